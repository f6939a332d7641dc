//! What is stored of a scheduler: its definition and the template of its jobs. It is put there, read, run by hand and removed
//! here.

use std::str::FromStr;

use super::super::enqueue::{Enqueued, NewJob, PRIORITY_MAX};
use super::super::scripts::{self, Call};
use super::super::{Queue, QueueError};
use super::{JOB_ID_PREFIX, check_id, job_id, text};
use crate::job::head::GROUP_BYTES_MAX;
use crate::job::{Envelope, EnvelopeError, JobId};
use crate::schedule::Definition;

/// A scheduler as it stands.
#[derive(Clone, Debug)]
pub struct Scheduler {
    /// Its id.
    pub id: String,
    /// Its next slot, ms since 1970; `None` when somebody has deleted it, so that it is never fired until it is upserted
    /// anew.
    pub next_slot_ms: Option<i64>,
    /// What is stored of it; `None` when nothing is.
    pub stored: Option<Stored>,
}

/// What is stored of a scheduler.
#[derive(Clone, Debug)]
pub struct Stored {
    /// When it is due, or what is wrong with what is stored.
    pub definition: Result<Definition, String>,
    /// Changes with the definition and the template: who computed a slot from another one is refused.
    pub revision: String,
    /// Jobs it has added since it was defined.
    pub fired: u64,
    /// The last slot that got a job, ms since 1970.
    pub last_slot_ms: Option<i64>,
    /// When it was first upserted, ms since 1970.
    pub created_ms: i64,
    /// When it was upserted last, ms since 1970.
    pub updated_ms: i64,
    /// Length of the template of its jobs.
    pub template_bytes: usize,
}

/// What each job of a scheduler is.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Template<'a> {
    /// Name, payload, and options of its own.
    pub envelope: Envelope<'a>,
    /// 1 (first) to [`PRIORITY_MAX`]; 0 for none.
    pub priority: u32,
    /// What it is grouped by, on a queue that limits its groups. Cut after [`GROUP_BYTES_MAX`] bytes.
    pub group: Option<&'a str>,
}

impl<'a> From<Envelope<'a>> for Template<'a> {
    fn from(envelope: Envelope<'a>) -> Self {
        Self { envelope, priority: 0, group: None }
    }
}

/// The [`Template`] of a scheduler as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredTemplate {
    envelope: Vec<u8>,
    priority: u32,
    group: Vec<u8>,
}

impl StoredTemplate {
    fn of(template: &Template<'_>) -> Self {
        let mut envelope = Vec::new();
        template.envelope.encode_into(&mut envelope);
        let group = template.group.unwrap_or_default().as_bytes();
        let group = group[..group.len().min(GROUP_BYTES_MAX)].to_vec();
        Self { envelope, priority: template.priority, group }
    }

    /// Name, payload, and options.
    ///
    /// # Errors
    /// When it is damaged or of a later version.
    pub fn envelope(&self) -> Result<Envelope<'_>, EnvelopeError> {
        Envelope::decode(&self.envelope)
    }

    /// Its priority; 0 for none.
    pub fn priority(&self) -> u32 {
        self.priority
    }

    /// What it is grouped by.
    pub fn group(&self) -> Option<String> {
        Some(String::from_utf8_lossy(&self.group).into_owned()).filter(|group| !group.is_empty())
    }
}

/// What an upsert did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Upsert {
    /// There was no scheduler of this id.
    Created,
    /// Its definition or its template is another one now.
    Changed,
    /// It was like this before.
    Unchanged,
}

impl Queue {
    /// Stores a scheduler under this id, or puts it in the place of the one that stands there. Returns what that changed,
    /// and the next slot, ms since 1970.
    ///
    /// With the definition that it has already, a scheduler
    /// keeps its slot and its count of jobs, so a program may upsert what it needs whenever it starts. With another one it
    /// begins anew: its count is 0, and its next slot is the first by the new definition, except that a slot that has come
    /// and was not fired yet is kept if the new definition has it too. Jobs that were added stay as they are.
    ///
    /// # Errors
    /// [`QueueError::SchedulerId`], [`QueueError::Definition`], [`QueueError::PayloadTooLarge`] and
    /// [`QueueError::Priority`]: nothing was changed. [`QueueError::Redis`]; may be repeated.
    pub async fn upsert_scheduler<'t>(
        &self,
        id: &str,
        definition: &Definition,
        template: impl Into<Template<'t>>,
        payload_max_bytes: usize,
    ) -> Result<(Upsert, i64), QueueError> {
        check_id(id)?;
        definition.check()?;
        let template = template.into();
        let (bytes, priority) = (template.envelope.payload.len(), template.priority);
        if bytes > payload_max_bytes {
            let id = JobId::new([JOB_ID_PREFIX, id].concat())?;
            return Err(QueueError::PayloadTooLarge { id, bytes, limit_bytes: payload_max_bytes });
        }
        if priority > PRIORITY_MAX {
            return Err(QueueError::Priority { id: JobId::new([JOB_ID_PREFIX, id].concat())?, priority });
        }
        let json = definition.to_json();
        let template = StoredTemplate::of(&template);
        loop {
            let found = self.find_row(id).await?;
            let is_same = found.definition.as_deref() == Some(json.as_bytes());
            let next_slot_ms = match found.slot_ms {
                Some(slot_ms) if is_same || (slot_ms <= found.now_ms && definition.has_slot(slot_ms)) => slot_ms,
                _ => definition.first_slot(found.now_ms)?,
            };
            let upsert = match &found {
                Row { definition: None, slot_ms: None, .. } => Upsert::Created,
                Row { template: Some(stored), slot_ms: Some(_), revision: Some(_), .. }
                    if is_same && *stored == template =>
                {
                    return Ok((Upsert::Unchanged, next_slot_ms));
                }
                _ => Upsert::Changed,
            };
            let keys = [self.keys().schedulers().to_owned(), self.keys().scheduler(id)];
            let mut call = Call::new(&scripts::UPSERT_SCHEDULER, keys.into_iter());
            call.arg(id).arg(text(found.slot_ms)).arg(found.revision.as_deref().unwrap_or_default());
            call.arg(next_slot_ms).arg(&json).arg(if is_same { "on" } else { "afresh" });
            call.arg(&template.envelope[..]).arg(template.priority).arg(&template.group[..]);
            // Else somebody has fired or replaced it since it was read.
            if call.run(&mut self.connection()).await?.decode::<u8>()? == 1 {
                return Ok((upsert, next_slot_ms));
            }
        }
    }

    /// Removes a scheduler. Returns whether there was one. Jobs that it added stay.
    ///
    /// # Errors
    /// [`QueueError::Redis`]; may be repeated.
    pub async fn remove_scheduler(&self, id: &str) -> Result<bool, QueueError> {
        let keys = [self.keys().schedulers().to_owned(), self.keys().scheduler(id)];
        let mut call = Call::new(&scripts::REMOVE_SCHEDULER, keys.into_iter());
        call.arg(id);
        Ok(call.run(&mut self.connection()).await?.decode::<u8>()? == 1)
    }

    /// Adds a job of this scheduler's template now, beside those of its slots: neither its next slot nor its count changes.
    /// With `no_overlap` it is a duplicate while the job of a slot lives. `None` when no template is stored that can be read.
    ///
    /// # Errors
    /// [`QueueError::PayloadTooLarge`]; [`QueueError::Redis`]: repeated, it may add a second job.
    pub async fn run_scheduler(
        &self,
        id: &str,
        payload_max_bytes: usize,
    ) -> Result<Option<(JobId, Enqueued)>, QueueError> {
        let Row { now_ms, definition, template: Some(template), .. } = self.find_row(id).await? else {
            return Ok(None);
        };
        let definition = definition.and_then(|json| Definition::from_json(&json).ok());
        let (Some(definition), Ok(envelope)) = (definition, template.envelope()) else { return Ok(None) };
        let (job, group) = (job_id(id, definition.no_overlap, now_ms), template.group());
        let new =
            NewJob { priority: template.priority(), group: group.as_deref(), ..NewJob::new(job.clone(), envelope) };
        let became = self.add(&[new], payload_max_bytes).await?.remove(0);
        Ok(Some((job, became)))
    }

    /// The scheduler of this id with the template of its jobs, if one is stored.
    ///
    /// # Errors
    /// [`QueueError::Redis`].
    pub async fn scheduler(&self, id: &str) -> Result<Option<(Scheduler, Option<StoredTemplate>)>, QueueError> {
        let Row { slot_ms, definition, revision, fired, last_slot, created, template, .. } = self.find_row(id).await?;
        if slot_ms.is_none() && definition.is_none() && revision.is_none() {
            return Ok(None);
        }
        let template_bytes = template.as_ref().map_or(0, |template| template.envelope.len());
        let stored = Fields { definition, revision, fired, last_slot, created, template_bytes }.stored();
        let scheduler = Scheduler { id: id.to_owned(), next_slot_ms: slot_ms, stored };
        Ok(Some((scheduler, template)))
    }

    /// Everything that is kept of one scheduler, as it stands.
    async fn find_row(&self, id: &str) -> Result<Row, QueueError> {
        let keys = [self.keys().schedulers().to_owned(), self.keys().scheduler(id)];
        let mut call = Call::new(&scripts::FIND_SCHEDULER, keys.into_iter());
        call.arg(id);
        let row: FoundRow = call.run(&mut self.connection()).await?.decode()?;
        let (now_ms, slot, definition, revision, fired, last_slot, created, envelope, priority, group) = row;
        let slot_ms = slot.map(|slot| slot as i64);
        let template = envelope.filter(|envelope| !envelope.is_empty()).map(|envelope| StoredTemplate {
            envelope,
            priority: number(priority.as_deref()).unwrap_or(0),
            group: group.unwrap_or_default(),
        });
        Ok(Row { now_ms, slot_ms, definition, revision, fired, last_slot, created, template })
    }
}

/// The reply of `find_scheduler.lua`.
type FoundRow = (
    i64,
    Option<f64>,
    Option<Vec<u8>>,
    Option<String>,
    Option<Vec<u8>>,
    Option<Vec<u8>>,
    Option<Vec<u8>>,
    Option<Vec<u8>>,
    Option<Vec<u8>>,
    Option<Vec<u8>>,
);

/// The reply of `find_scheduler.lua`, by name.
struct Row {
    now_ms: i64,
    slot_ms: Option<i64>,
    definition: Option<Vec<u8>>,
    revision: Option<String>,
    fired: Option<Vec<u8>>,
    last_slot: Option<Vec<u8>>,
    created: Option<Vec<u8>>,
    template: Option<StoredTemplate>,
}

/// The fields of a scheduler's hash as they were read.
pub(super) struct Fields {
    pub(super) definition: Option<Vec<u8>>,
    pub(super) revision: Option<String>,
    pub(super) fired: Option<Vec<u8>>,
    pub(super) last_slot: Option<Vec<u8>>,
    pub(super) created: Option<Vec<u8>>,
    pub(super) template_bytes: usize,
}

impl Fields {
    /// What they say. Damage is told as that of the definition: it is what keeps the scheduler from being fired.
    pub(super) fn stored(self) -> Option<Stored> {
        if self.definition.is_none() && self.revision.is_none() {
            return None;
        }
        let definition = match self.definition {
            None => Err("its definition is missing".to_owned()),
            Some(_) if self.revision.is_none() => Err("its revision is missing".to_owned()),
            Some(_) if self.template_bytes == 0 => Err("the template of its jobs is missing".to_owned()),
            Some(json) => Definition::from_json(&json).map_err(|error| crate::error::chain(&error)),
        };
        let revision = self.revision.unwrap_or_default();
        Some(Stored {
            definition,
            fired: number(self.fired.as_deref()).unwrap_or(0),
            last_slot_ms: number(self.last_slot.as_deref()),
            created_ms: number(self.created.as_deref()).unwrap_or(0),
            updated_ms: revision.parse::<i64>().unwrap_or(0) / 1000,
            revision,
            template_bytes: self.template_bytes,
        })
    }
}

fn number<T: FromStr>(text: Option<&[u8]>) -> Option<T> {
    std::str::from_utf8(text?).ok()?.parse().ok()
}
