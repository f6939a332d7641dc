//! Retries: brings back what has ended, at attempt 1: dead letters, and completed jobs that were kept.
//!
//! ```text
//!   dead ──retry · redrive──▶ waiting (attempt 1)        completed ──retry──▶ waiting (attempt 1)
//! ```
//!
//! By ids, or over all dead letters with a filter. That walk ends at the letter that was the newest when it began, so a job
//! that dies again meanwhile is not met again.
//!
//! *Crash:* each page is one script. Whoever goes on after [`RetryWalk::position`] meets no letter twice.

use super::dead_letter::{DeadLetter, Redriven};
use super::operated::{Operated, operated};
use super::scripts::{self, JOBS_PER_CALL_MAX};
use super::walk::Step;
use super::{Queue, QueueError};
use crate::job::{EntryId, JobId};

/// Which dead letters are meant; all of them unless something is said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeadFilter {
    /// Part of the reason, whatever its case.
    pub reason: Option<String>,
}

impl DeadFilter {
    /// Whether it means this letter.
    pub fn matches(&self, letter: &DeadLetter) -> bool {
        self.reason.as_ref().is_none_or(|part| letter.reason.to_lowercase().contains(&part.to_lowercase()))
    }
}

/// Redrives dead letters page by page; see [`Queue::retry_dead`].
#[derive(Debug)]
pub struct RetryWalk {
    queue: Queue,
    filter: DeadFilter,
    after: Option<EntryId>,
    until: Option<EntryId>,
    totals: Redriven,
}

impl Queue {
    /// Brings dead and completed jobs back to waiting, at attempt 1. Says of each what became of it, in order.
    ///
    /// # Errors
    /// [`QueueError::Redis`]: jobs of earlier calls wait again; may be repeated.
    pub async fn retry(&self, ids: &[JobId]) -> Result<Vec<Operated>, QueueError> {
        let mut answers = Vec::with_capacity(ids.len());
        for piece in ids.chunks(JOBS_PER_CALL_MAX) {
            let mut call = self.moving(&scripts::RETRY, piece.iter().map(|id| self.keys().job(id)));
            for id in piece {
                call.arg(id.as_bytes());
            }
            answers.extend(call.run(&mut self.connection()).await?.statuses(piece.len(), operated(b"R"))?);
        }
        Ok(answers)
    }

    /// Brings back the dead letters that a filter means: those there are now, or, to go on with a walk that was left, those
    /// after the first and up to the second entry of its [`RetryWalk::position`].
    ///
    /// # Errors
    /// [`QueueError::Redis`].
    pub async fn retry_dead(
        &self,
        filter: DeadFilter,
        position: Option<(Option<EntryId>, EntryId)>,
    ) -> Result<RetryWalk, QueueError> {
        let (after, until) = match position {
            Some((after, until)) => (after, Some(until)),
            None => (None, self.last_dead_letter().await?),
        };
        Ok(RetryWalk { queue: self.clone(), filter, after, until, totals: Redriven::default() })
    }
}

impl RetryWalk {
    /// Redrives one page; `None` when it is through.
    ///
    /// # Errors
    /// [`QueueError::Redis`]; may be repeated.
    pub async fn step(&mut self) -> Result<Option<Step>, QueueError> {
        let Some(until) = self.until.filter(|until| self.after.is_none_or(|after| after < *until)) else {
            return Ok(None);
        };
        let page = self.queue.dead_letters(self.after, JOBS_PER_CALL_MAX).await?;
        let page: Vec<DeadLetter> = page.into_iter().take_while(|letter| letter.entry <= until).collect();
        let Some(end) = page.last().map(|letter| letter.entry) else { return Ok(None) };
        let looked_at = page.len();
        let meant: Vec<DeadLetter> = page.into_iter().filter(|letter| self.filter.matches(letter)).collect();
        let redriven = self.queue.redrive(&meant).await?;
        self.totals.redriven += redriven.redriven;
        self.totals.gone += redriven.gone;
        self.totals.empty += redriven.empty;
        self.after = Some(end);
        Ok(Some(Step { looked_at, done: redriven.redriven }))
    }

    /// What it did so far.
    pub fn totals(&self) -> Redriven {
        self.totals
    }

    /// The last entry it looked at, and the one where it ends; what [`Queue::retry_dead`] goes on from. `None` when there was
    /// nothing to do from the beginning.
    pub fn position(&self) -> Option<(Option<EntryId>, EntryId)> {
        Some((self.after, self.until?))
    }
}
