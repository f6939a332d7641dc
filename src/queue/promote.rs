//! Promotes: from the backoff zset to waiting, when the wait is over.
//!
//! ```text
//!   delayed ──due──▶ waiting (new entry at the tail)
//! ```
//!
//! Called by the worker's turn of the same name, which sleeps until the next due time.
//!
//! *Crash:* each call is one script; what it did not reach is promoted by the next.

use std::time::Duration;

use super::scripts::{self, JOBS_PER_CALL_MAX};
use super::{NO_KEYS, Queue, QueueError};

/// What one promotion did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Promoted {
    /// Jobs that wait now.
    pub moved: usize,
    /// Ids without a guard, which are dead letters now.
    pub buried: usize,
    /// Time until the next job is due; `None` when none is in backoff. Zero: more are due, come again at once.
    pub next_due_in: Option<Duration>,
}

impl Queue {
    /// Moves jobs that are due, up to one call's worth.
    ///
    /// # Errors
    /// [`QueueError::Redis`]; may be repeated.
    pub async fn promote(&self) -> Result<Promoted, QueueError> {
        let mut call = self.moving(&scripts::PROMOTE, NO_KEYS);
        call.arg(JOBS_PER_CALL_MAX);
        let (moved, buried, due): (usize, usize, i64) = call.run(&mut self.connection()).await?.decode()?;
        Ok(Promoted { moved, buried, next_due_in: u64::try_from(due).ok().map(Duration::from_millis) })
    }
}
