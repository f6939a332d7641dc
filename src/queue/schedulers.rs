//! Schedulers: which job is added again and again, and when next.
//!
//! ```text
//!   scheduler (id, next slot) ──slot has come──▶ waiting job of that id, and the next slot          (one script)
//! ```
//!
//! One zset of id by next slot. Any number of processes look at it and fire what is due; a slot is fired by the first,
//! because firing sets the next slot in the same step and asks for the slot that the caller believes to be next. There
//! is no leader, no lock and nothing that expires.
//!
//! *Crash:* each call is one script. A slot whose caller died before it is fired by the next who looks, once, however
//! many slots have passed since.
//! *Not here:* when the next slot is. Slots are milliseconds since 1970 that the caller computes.

use std::time::Duration;

use super::scripts::{self, Call, JOBS_PER_CALL_MAX};
use super::{Queue, QueueError};
use crate::job::{Envelope, JobId};

/// How many schedulers one step of a scan looks at.
const SCAN_COUNT: usize = 256;

/// The schedulers that are due, and when the next one is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DueSchedulers {
    /// The time of Redis, ms since 1970.
    pub now_ms: i64,
    /// How many schedulers there are, due or not.
    pub total: usize,
    /// Time until the earliest slot beyond those listed; `None` if there is none. Zero: more are due, come again at once.
    pub next_due_in: Option<Duration>,
    /// Id and slot (ms since 1970) of those that are due, earliest first.
    pub due: Vec<(String, i64)>,
}

/// A scheduler to be fired.
#[derive(Clone, Debug)]
pub struct Firing<'a> {
    /// Its id, and that of the job.
    pub id: JobId,
    /// What the job is.
    pub envelope: Envelope<'a>,
    /// Its priority; 0 for none.
    pub priority: u32,
    /// What it is grouped by.
    pub group: Option<&'a str>,
    /// The slot that it is believed to have, ms since 1970: with another one nothing is done.
    pub slot_ms: i64,
    /// When the slot may be fired, ms since 1970: the slot itself, or earlier.
    pub from_ms: i64,
    /// The next slot, ms since 1970; `None` when there is none, which removes the scheduler.
    pub next_slot_ms: Option<i64>,
}

/// What became of a scheduler that was to be fired.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fire {
    /// Its job waits.
    Enqueued,
    /// Its job lives still, so nothing was added; the slot has passed.
    Duplicate,
    /// Nothing was done: somebody else fired the slot, or moved it, or it is too early.
    NotDue,
    /// The key of its job is of another type, so nothing was added; the slot has passed.
    Refused,
}

/// A change of a scheduler, carried out only if it still has the slot that is believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rescheduling<'a> {
    /// Its id.
    pub id: &'a str,
    /// The slot that it is believed to have, ms since 1970; `None`: it is believed to be missing.
    pub believed_ms: Option<i64>,
    /// The slot that it gets, ms since 1970; `None`: it is removed.
    pub slot_ms: Option<i64>,
}

impl Queue {
    /// The schedulers that are due: one call's worth, earliest first.
    ///
    /// # Errors
    /// [`QueueError::Redis`].
    pub async fn due_schedulers(&self) -> Result<DueSchedulers, QueueError> {
        let mut call = Call::new(&scripts::DUE_SCHEDULERS, [self.keys().schedulers()].into_iter());
        call.arg(JOBS_PER_CALL_MAX);
        let (now_ms, total, wait, due): (i64, usize, i64, Vec<(String, f64)>) =
            call.run(&mut self.connection()).await?.decode()?;
        Ok(DueSchedulers {
            now_ms,
            total,
            next_due_in: u64::try_from(wait).ok().map(Duration::from_millis),
            due: due.into_iter().map(|(id, slot)| (id, slot as i64)).collect(),
        })
    }

    /// Fires schedulers: adds their jobs and sets their next slots. Returns what became of each, in order.
    ///
    /// # Errors
    /// [`QueueError::Redis`]: earlier calls were carried out. May be repeated: what was fired is [`Fire::NotDue`] then.
    pub async fn fire(&self, firings: &[Firing<'_>]) -> Result<Vec<Fire>, QueueError> {
        let mut fires = Vec::with_capacity(firings.len());
        for piece in scripts::pieces(firings, |firing| firing.envelope.payload.len()) {
            let own = std::iter::once(self.keys().schedulers().as_bytes().to_vec());
            let own: Vec<Vec<u8>> = own.chain(piece.iter().map(|firing| self.keys().job(&firing.id))).collect();
            let mut call = self.moving(&scripts::FIRE, own);
            for firing in piece {
                let mut envelope = Vec::new();
                firing.envelope.encode_into(&mut envelope);
                call.arg(firing.id.as_bytes()).arg(firing.slot_ms).arg(firing.from_ms);
                call.arg(text(firing.next_slot_ms)).arg(envelope).arg(self.extras(firing.priority, firing.group));
            }
            fires.extend(call.run(&mut self.connection()).await?.statuses(piece.len(), |letter| match letter {
                b'E' => Some(Fire::Enqueued),
                b'D' => Some(Fire::Duplicate),
                b'N' => Some(Fire::NotDue),
                b'X' => Some(Fire::Refused),
                _ => None,
            })?);
        }
        Ok(fires)
    }

    /// Sets, moves and removes schedulers, each only if it still has the slot that is believed. Returns how many were.
    ///
    /// # Errors
    /// [`QueueError::Redis`]: earlier calls were carried out. May be repeated.
    pub async fn reschedule(&self, changes: &[Rescheduling<'_>]) -> Result<usize, QueueError> {
        let mut done = 0;
        for piece in changes.chunks(JOBS_PER_CALL_MAX) {
            let mut call = Call::new(&scripts::RESCHEDULE, [self.keys().schedulers()].into_iter());
            call.arg(piece.len());
            for change in piece {
                call.arg(change.id).arg(text(change.believed_ms)).arg(text(change.slot_ms));
            }
            done += call.run(&mut self.connection()).await?.decode::<usize>()?;
        }
        Ok(done)
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
            let (next, page): (u64, Vec<(String, f64)>) = redis::cmd("ZSCAN")
                .arg(self.keys().schedulers())
                .arg(cursor)
                .arg("COUNT")
                .arg(SCAN_COUNT)
                .query_async(&mut self.connection())
                .await
                .map_err(|cause| QueueError::from_redis("ZSCAN", cause))?;
            found.extend(page.into_iter().map(|(id, slot)| (id, slot as i64)));
            cursor = next;
            if cursor == 0 {
                return Ok(found);
            }
        }
    }
}

/// A number that may be missing, as scripts take it.
fn text(number: Option<i64>) -> String {
    number.map(|number| number.to_string()).unwrap_or_default()
}
