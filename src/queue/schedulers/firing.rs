//! Slots that have come: which they are, and firing them.

use std::time::Duration;

use super::super::scripts::{self, BYTES_PER_CALL_MAX, Call, JOBS_PER_CALL_MAX, element};
use super::super::{Queue, QueueError};
use super::stored::{Fields, Stored};
use super::{job_id, lossy, text};
use crate::job::JobId;
use crate::schedule::Definition;

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
}

/// One scheduler as `due_schedulers.lua` tells it.
type DueRow = (Vec<u8>, f64, Option<Vec<u8>>, Option<String>, Option<Vec<u8>>, usize);

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
