//! Schedulers: which job is added again and again, and when next.
//!
//! ```text
//!   upsert ──▶ scheduler (id, next slot; definition, template) ──slot has come──▶ its job waits, and the next slot
//!                                                                                 (one script)
//! ```
//!
//! One zset of id by next slot, and a hash per scheduler with its definition and the template of its jobs. Any number of
//! processes look at it and fire what is due; a slot is fired by the first, because firing sets the next slot in the same
//! step and asks for the slot, and the revision of the definition, that the caller believes to be there. There is no
//! leader, no lock and nothing that expires.
//!
//! A scheduler may also be one of which nothing is stored: whoever [sets its slot](Queue::reschedule) has its definition,
//! in a configuration say, and knows how to [fire](Queue::fire) it.
//!
//! # Ids of jobs
//!
//! The job of a slot is `repeat:<id>:<slot in ms>`, as in BullMQ: each slot has its own, and jobs of several slots may wait
//! and run beside each other. With `no_overlap` it is `repeat:<id>` for all slots: a job that lives makes the next one a
//! duplicate, which is not added. That is exact without a lock, across retries, crashes and a pause of the queue.
//!
//! *Crash:* each call is one script. A slot whose caller died before it is fired by the next who looks.
//! *Not here:* when the next slot is ([`crate::schedule`]), and who looks ([`crate::worker::ScheduleLoop`]).

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::enqueue::{Enqueued, NewJob, PRIORITY_MAX};
use super::scripts::{self, BYTES_PER_CALL_MAX, Call, JOBS_PER_CALL_MAX, element};
use super::{Order, Queue, QueueError};
use crate::job::head::GROUP_BYTES_MAX;
use crate::job::{Envelope, EnvelopeError, ID_BYTES_MAX, JobId, JobIdError};
use crate::schedule::Definition;

/// What the ids of the jobs of stored schedulers begin with.
const JOB_ID_PREFIX: &str = "repeat:";
/// Longest slot in the id of a job: a sign and 19 digits.
const SLOT_DIGITS_MAX: usize = 20;

/// Longest id of a scheduler, in bytes: the ids of its jobs are longer and must fit.
pub const SCHEDULER_ID_BYTES_MAX: usize = ID_BYTES_MAX - JOB_ID_PREFIX.len() - 1 - SLOT_DIGITS_MAX;

/// How many schedulers one step of a scan looks at.
const SCAN_COUNT: usize = 256;

/// Why a text cannot be the id of a scheduler.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum SchedulerIdError {
    /// The id has no bytes.
    #[error("the id of a scheduler must not be empty")]
    Empty,
    /// The id is longer than [`SCHEDULER_ID_BYTES_MAX`].
    #[error("a scheduler id of {bytes} bytes is too long; at most {SCHEDULER_ID_BYTES_MAX} are accepted")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
}

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

/// Where a page of a list ends: what the next one begins behind.
///
/// As text `<slot in ms>:<id>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SchedulerCursor {
    slot_ms: i64,
    id: String,
}

/// A text is no [`SchedulerCursor`].
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0:?} is no cursor; it is printed at the end of a page, like 1795492693614:id")]
pub struct SchedulerCursorError(String);

/// A page of a list.
#[derive(Clone, Debug)]
pub struct SchedulerPage {
    /// How many schedulers there are.
    pub total: usize,
    /// Those of this page.
    pub schedulers: Vec<Scheduler>,
    /// Where it goes on; `None` behind the last one.
    pub next: Option<SchedulerCursor>,
}

/// The schedulers that are due, and when the next one is.
#[derive(Clone, Debug, Default)]
pub struct DueSchedulers {
    /// The time of Redis, ms since 1970.
    pub now_ms: i64,
    /// Time until the earliest slot that has not come; `None` if there is none. Zero: more are due than are listed.
    pub next_due_in: Option<Duration>,
    /// Those that are due, earliest first.
    pub due: Vec<DueScheduler>,
}

/// A scheduler whose slot has come.
#[derive(Clone, Debug)]
pub struct DueScheduler {
    /// Its id.
    pub id: String,
    /// Its slot, ms since 1970.
    pub slot_ms: i64,
    /// What is stored of it; without `last_slot_ms` and `created_ms`.
    pub stored: Option<Stored>,
}

/// A scheduler to be fired.
#[derive(Clone, Debug)]
pub struct Firing {
    /// Its id.
    pub id: String,
    /// The slot that it is believed to have, ms since 1970: with another one nothing is done.
    pub slot_ms: i64,
    /// When the slot may be fired, ms since 1970: the slot itself, or earlier.
    pub from_ms: i64,
    /// The next slot, ms since 1970; `None` when there is none, which removes the scheduler.
    pub next_slot_ms: Option<i64>,
    /// What its jobs are.
    pub work: Work,
    /// Slot and id of each job that is added, earliest first; at most one call's worth ([`Firing::of_stored`]).
    pub jobs: Vec<(i64, JobId)>,
}

/// What the jobs of a firing are.
#[derive(Clone, Debug)]
pub enum Work {
    /// This: nothing is stored of the scheduler.
    Given {
        /// The envelope.
        envelope: Vec<u8>,
        /// What they are grouped by, on a queue that limits its groups.
        group: Option<String>,
    },
    /// The stored template.
    Stored {
        /// The revision that it is believed to have: with another one nothing is done.
        revision: String,
        /// Most jobs it may ever add.
        limit: Option<u64>,
        /// Jobs it has added so far.
        fired: u64,
        /// Length of the template.
        template_bytes: usize,
    },
}

/// What became of a scheduler that was to be fired.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fire {
    /// Nothing was done: somebody else fired the slot, or moved or replaced the scheduler, or it is too early.
    NotDue,
    /// The slot passed, and this became of its jobs, in order.
    Fired(Vec<Added>),
}

/// What became of the job of a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Added {
    /// It waits.
    Enqueued,
    /// A job of its id lives still, so nothing was added.
    Duplicate,
    /// Its key is of another type, so nothing was added.
    Refused,
    /// The scheduler has had all its jobs, so nothing was added.
    OverLimit,
}

/// A change of a scheduler of which nothing is stored, carried out only if it still has the slot that is believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rescheduling<'a> {
    /// Its id.
    pub id: &'a str,
    /// The slot that it is believed to have, ms since 1970; `None`: it is believed to be missing.
    pub believed_ms: Option<i64>,
    /// The slot that it gets, ms since 1970; `None`: it is removed.
    pub slot_ms: Option<i64>,
}

/// What became of changes of schedulers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rescheduled {
    /// How many were set, moved or removed.
    pub moved: usize,
    /// Ids of those that were left alone because a definition is stored for them.
    pub stored: Vec<String>,
}

impl Firing {
    /// How to fire a stored scheduler at a slot that has come by `now_ms`: a job for each slot that its definition wants
    /// caught up with, as many as one call takes.
    pub fn of_stored(due: &DueScheduler, definition: &Definition, stored: &Stored, now_ms: i64) -> Self {
        let left = definition.limit.map_or(u64::MAX, |limit| limit.saturating_sub(stored.fired));
        let fitting = BYTES_PER_CALL_MAX / stored.template_bytes.max(1);
        let slots_max = fitting.min(usize::try_from(left).unwrap_or(usize::MAX)).clamp(1, JOBS_PER_CALL_MAX);
        let plan = definition.plan(due.slot_ms, now_ms, slots_max);
        let id = |slot: &i64| (*slot, job_id(&due.id, definition.no_overlap, *slot));
        Self {
            id: due.id.clone(),
            slot_ms: due.slot_ms,
            from_ms: due.slot_ms,
            next_slot_ms: plan.next,
            work: Work::Stored {
                revision: stored.revision.clone(),
                limit: definition.limit,
                fired: stored.fired,
                template_bytes: stored.template_bytes,
            },
            jobs: plan.slots.iter().map(id).collect(),
        }
    }

    /// Whether the scheduler has ended with it, when this became of its jobs.
    pub(crate) fn is_last(&self, added: &[Added]) -> bool {
        let n_added = added.iter().filter(|added| **added == Added::Enqueued).count() as u64;
        let has_all = match self.work {
            Work::Stored { limit: Some(limit), fired, .. } => fired + n_added >= limit,
            _ => false,
        };
        self.next_slot_ms.is_none() || has_all
    }

    /// What it weighs against the bytes of a call. A job weighs its share of a call at least, so that their number is
    /// bounded too, and the scheduler itself weighs as much: to judge and to move it takes as long as to add a job.
    fn weight_bytes(&self) -> usize {
        let bytes = match &self.work {
            Work::Given { envelope, .. } => envelope.len(),
            Work::Stored { template_bytes, .. } => *template_bytes,
        };
        let share = BYTES_PER_CALL_MAX / JOBS_PER_CALL_MAX;
        share + self.jobs.len() * bytes.max(share)
    }
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

    /// A page of the schedulers by their next slots, behind `after`, at most `limit` and at most one call's worth.
    ///
    /// Pages lead to each scheduler once, except that one which is fired meanwhile moves to its next slot, and may be met
    /// there again or not at all.
    ///
    /// # Errors
    /// [`QueueError::Redis`].
    pub async fn list_schedulers(
        &self,
        after: Option<&SchedulerCursor>,
        order: Order,
        limit: usize,
    ) -> Result<SchedulerPage, QueueError> {
        let limit = limit.clamp(1, JOBS_PER_CALL_MAX);
        let mut call = Call::new(&scripts::LIST_SCHEDULERS, [self.keys().schedulers()].into_iter());
        call.arg(self.keys().scheduler_prefix());
        call.arg(order.word());
        match after {
            Some(SchedulerCursor { slot_ms, id }) => call.arg(*slot_ms).arg(id),
            None => call.arg("").arg(""),
        };
        call.arg(limit);
        let (script, mut elements) = call.run(&mut self.connection()).await?.array()?;
        let missing = || QueueError::Reply { script: script.name, detail: "an empty array".to_owned() };
        let rows = if elements.is_empty() { return Err(missing()) } else { elements.split_off(1) };
        let total = element(script, elements.remove(0))?;
        let mut schedulers = Vec::with_capacity(rows.len());
        for row in rows {
            let (id, slot, definition, revision, fired, last_slot, created, template_bytes): ListedRow =
                element(script, row)?;
            schedulers.push(Scheduler {
                id: lossy(id),
                next_slot_ms: Some(slot as i64),
                stored: Fields { definition, revision, fired, last_slot, created, template_bytes }.stored(),
            });
        }
        let last = schedulers.last().filter(|_| schedulers.len() == limit);
        let next =
            last.map(|last| SchedulerCursor { slot_ms: last.next_slot_ms.unwrap_or_default(), id: last.id.clone() });
        Ok(SchedulerPage { total, schedulers, next })
    }

    /// How many schedulers there are.
    ///
    /// # Errors
    /// [`QueueError::Redis`].
    pub async fn count_schedulers(&self) -> Result<usize, QueueError> {
        let count = redis::cmd("ZCARD").arg(self.keys().schedulers()).query_async(&mut self.connection()).await;
        count.map_err(|cause| QueueError::from_redis("ZCARD", cause))
    }

    /// The schedulers that are due: one call's worth, earliest first, beyond the first `passed_over` of them.
    ///
    /// # Errors
    /// [`QueueError::Redis`].
    pub async fn due_schedulers(&self, passed_over: usize) -> Result<DueSchedulers, QueueError> {
        let mut call = Call::new(&scripts::DUE_SCHEDULERS, [self.keys().schedulers()].into_iter());
        call.arg(self.keys().scheduler_prefix()).arg(passed_over).arg(JOBS_PER_CALL_MAX);
        let (script, mut elements) = call.run(&mut self.connection()).await?.array()?;
        if elements.len() < 2 {
            return Err(QueueError::Reply { script: script.name, detail: "no time and no wait".to_owned() });
        }
        let rows = elements.split_off(2);
        let wait: i64 = element(script, elements.remove(1))?;
        let now_ms = element(script, elements.remove(0))?;
        let mut due = Vec::with_capacity(rows.len());
        for row in rows {
            let (id, slot, definition, revision, fired, template_bytes): DueRow = element(script, row)?;
            due.push(DueScheduler {
                id: lossy(id),
                slot_ms: slot as i64,
                stored: Fields { definition, revision, fired, last_slot: None, created: None, template_bytes }.stored(),
            });
        }
        Ok(DueSchedulers { now_ms, next_due_in: u64::try_from(wait).ok().map(Duration::from_millis), due })
    }

    /// Fires schedulers: adds their jobs and sets their next slots. Returns what became of each, in order.
    ///
    /// # Errors
    /// [`QueueError::Redis`]: earlier calls were carried out. May be repeated: what was fired is [`Fire::NotDue`] then.
    pub async fn fire(&self, firings: &[Firing]) -> Result<Vec<Fire>, QueueError> {
        let mut fires = Vec::with_capacity(firings.len());
        for piece in scripts::pieces(firings, Firing::weight_bytes) {
            let keys = self.keys();
            let jobs = piece.iter().flat_map(|firing| &firing.jobs);
            let schedulers = keys.schedulers().as_bytes().to_vec();
            let own: Vec<Vec<u8>> = std::iter::once(schedulers).chain(jobs.map(|(_, id)| keys.job(id))).collect();
            let mut call = self.moving(&scripts::FIRE, own);
            call.arg(keys.scheduler_prefix());
            for firing in piece {
                call.arg(&firing.id).arg(firing.slot_ms).arg(firing.from_ms).arg(text(firing.next_slot_ms));
                let last_slot_ms = firing.jobs.last().map(|(slot_ms, _)| *slot_ms);
                match &firing.work {
                    Work::Given { envelope, group } => {
                        let extras = self.extras(0, group.as_deref());
                        call.arg("").arg("").arg(text(last_slot_ms)).arg(&envelope[..]).arg(extras)
                    }
                    Work::Stored { revision, limit, .. } => {
                        call.arg(revision).arg(text(*limit)).arg(text(last_slot_ms)).arg("").arg("")
                    }
                };
                call.arg(firing.jobs.len());
                for (_, id) in &firing.jobs {
                    call.arg(id.as_bytes());
                }
            }
            let letters: Vec<String> = call.run(&mut self.connection()).await?.decode()?;
            fires.extend(fired(piece, &letters)?);
        }
        Ok(fires)
    }

    /// Sets, moves and removes schedulers of which nothing is stored, each only if it still has the slot that is believed.
    ///
    /// # Errors
    /// [`QueueError::Redis`]: earlier calls were carried out. May be repeated.
    pub async fn reschedule(&self, changes: &[Rescheduling<'_>]) -> Result<Rescheduled, QueueError> {
        let mut rescheduled = Rescheduled::default();
        for piece in changes.chunks(JOBS_PER_CALL_MAX) {
            let mut call = Call::new(&scripts::RESCHEDULE, [self.keys().schedulers()].into_iter());
            call.arg(self.keys().scheduler_prefix());
            for change in piece {
                call.arg(change.id).arg(text(change.believed_ms)).arg(text(change.slot_ms));
            }
            let statuses = call.run(&mut self.connection()).await?.statuses(piece.len(), |letter| match letter {
                letter @ (b'M' | b'L' | b'S') => Some(letter),
                _ => None,
            })?;
            for (letter, change) in statuses.into_iter().zip(piece) {
                match letter {
                    b'M' => rescheduled.moved += 1,
                    b'S' => rescheduled.stored.push(change.id.to_owned()),
                    _ => {}
                }
            }
        }
        Ok(rescheduled)
    }

    /// The slots of these schedulers, ms since 1970, and then the time of Redis: what is over by it was over, or was fired
    /// since. `None` where there is no such scheduler.
    ///
    /// # Errors
    /// [`QueueError::Redis`].
    pub async fn scheduler_slots(&self, ids: &[&str]) -> Result<(Vec<Option<i64>>, i64), QueueError> {
        let mut slots = Vec::with_capacity(ids.len());
        for piece in ids.chunks(JOBS_PER_CALL_MAX) {
            let scores: Vec<Option<f64>> = redis::cmd("ZMSCORE")
                .arg(self.keys().schedulers())
                .arg(piece)
                .query_async(&mut self.connection())
                .await
                .map_err(|cause| QueueError::from_redis("ZMSCORE", cause))?;
            slots.extend(scores.into_iter().map(|score| score.map(|score| score as i64)));
        }
        let now = self.time().await?.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Ok((slots, i64::try_from(now.as_millis()).unwrap_or(i64::MAX)))
    }

    /// All schedulers with their slots, ms since 1970, in no order. One that is moved meanwhile may come twice.
    ///
    /// # Errors
    /// [`QueueError::Redis`].
    pub async fn schedulers(&self) -> Result<Vec<(String, i64)>, QueueError> {
        let mut found = Vec::new();
        let mut cursor = 0_u64;
        loop {
            let (next, page): (u64, Vec<(Vec<u8>, f64)>) = redis::cmd("ZSCAN")
                .arg(self.keys().schedulers())
                .arg(cursor)
                .arg("COUNT")
                .arg(SCAN_COUNT)
                .query_async(&mut self.connection())
                .await
                .map_err(|cause| QueueError::from_redis("ZSCAN", cause))?;
            found.extend(page.into_iter().map(|(id, slot)| (lossy(id), slot as i64)));
            cursor = next;
            if cursor == 0 {
                return Ok(found);
            }
        }
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

/// Id of the job of a slot; see the [module](self).
fn job_id(id: &str, no_overlap: bool, slot_ms: i64) -> JobId {
    let text = if no_overlap { format!("{JOB_ID_PREFIX}{id}") } else { format!("{JOB_ID_PREFIX}{id}:{slot_ms}") };
    // Only an id that somebody else has put into Redis is too long.
    JobId::new(&text)
        .or_else(|error| match error {
            JobIdError::TooLong { .. } => JobId::new(&text.as_bytes()[..ID_BYTES_MAX]),
            error => Err(error),
        })
        .expect("it is not empty, and cut to what is accepted")
}

fn check_id(id: &str) -> Result<(), SchedulerIdError> {
    match id.len() {
        0 => Err(SchedulerIdError::Empty),
        1..=SCHEDULER_ID_BYTES_MAX => Ok(()),
        bytes => Err(SchedulerIdError::TooLong { bytes }),
    }
}

/// What the reply of `fire.lua` says.
fn fired(firings: &[Firing], replies: &[String]) -> Result<Vec<Fire>, QueueError> {
    let unexpected = |detail: String| QueueError::Reply { script: scripts::FIRE.name, detail };
    if replies.len() != firings.len() {
        return Err(unexpected(format!("{} replies for {} schedulers", replies.len(), firings.len())));
    }
    let mut fires = Vec::with_capacity(firings.len());
    for (firing, letters) in firings.iter().zip(replies) {
        if letters == "N" {
            fires.push(Fire::NotDue);
            continue;
        }
        let added =
            scripts::decode_statuses(&scripts::FIRE, letters.as_bytes(), firing.jobs.len(), |letter| match letter {
                b'E' => Some(Added::Enqueued),
                b'D' => Some(Added::Duplicate),
                b'X' => Some(Added::Refused),
                b'O' => Some(Added::OverLimit),
                _ => None,
            });
        fires.push(Fire::Fired(added?));
    }
    Ok(fires)
}

/// One scheduler as `list_schedulers.lua` tells it.
type ListedRow =
    (Vec<u8>, f64, Option<Vec<u8>>, Option<String>, Option<Vec<u8>>, Option<Vec<u8>>, Option<Vec<u8>>, usize);
/// One scheduler as `due_schedulers.lua` tells it.
type DueRow = (Vec<u8>, f64, Option<Vec<u8>>, Option<String>, Option<Vec<u8>>, usize);
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
struct Fields {
    definition: Option<Vec<u8>>,
    revision: Option<String>,
    fired: Option<Vec<u8>>,
    last_slot: Option<Vec<u8>>,
    created: Option<Vec<u8>>,
    template_bytes: usize,
}

impl Fields {
    /// What they say. Damage is told as that of the definition: it is what keeps the scheduler from being fired.
    fn stored(self) -> Option<Stored> {
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

/// An id as text. One that is no text was put there by somebody else: what is done under its name is done to nothing.
fn lossy(id: Vec<u8>) -> String {
    String::from_utf8(id).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

/// A number that may be missing, as scripts take it.
fn text(number: Option<impl ToString>) -> String {
    number.map(|number| number.to_string()).unwrap_or_default()
}

impl fmt::Display for SchedulerCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.slot_ms, self.id)
    }
}

impl FromStr for SchedulerCursor {
    type Err = SchedulerCursorError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let read = || {
            let (slot_ms, id) = text.split_once(':')?;
            Some(Self { slot_ms: slot_ms.parse().ok()?, id: id.to_owned() })
        };
        read().ok_or_else(|| SchedulerCursorError(text.to_owned()))
    }
}
