//! Promotes: from the backoff zset to waiting, when the wait is over, or when somebody does not want to wait for that.
//!
//! ```text
//!   delayed ──due · promote now──▶ waiting (new entry at the tail)
//! ```
//!
//! What is due is promoted by the worker's turn of the same name, which sleeps until the next due time.
//!
//! *Crash:* each call is one script; what it did not reach is promoted by the next.

use std::time::Duration;

use super::operated::{Operated, operated};
use super::scripts::{self, JOBS_PER_CALL_MAX};
use super::walk::{Step, ZsetPages};
use super::{NO_KEYS, Queue, QueueError};
use crate::job::JobId;

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

    /// Moves delayed jobs to waiting, due or not. Says of each what became of it, in order.
    ///
    /// # Errors
    /// [`QueueError::Redis`]: jobs of earlier calls wait; may be repeated.
    pub async fn promote_now(&self, ids: &[JobId]) -> Result<Vec<Operated>, QueueError> {
        let mut answers = Vec::with_capacity(ids.len());
        for piece in ids.chunks(JOBS_PER_CALL_MAX) {
            let mut call = self.moving(&scripts::PROMOTE_NOW, piece.iter().map(|id| self.keys().job(id)));
            for id in piece {
                call.arg(id.as_bytes());
            }
            let reply = call.run(&mut self.connection()).await?;
            answers.extend(reply.statuses(piece.len(), |letter| match letter {
                b'B' => Some(Operated::Missing),
                other => operated(b"M")(other),
            })?);
        }
        Ok(answers)
    }

    /// Moves all jobs that are delayed now to waiting.
    ///
    /// # Errors
    /// [`QueueError::Redis`].
    pub async fn promote_all(&self) -> Result<PromotionWalk, QueueError> {
        let pages = ZsetPages::begin(self, self.keys().delayed()).await?;
        Ok(PromotionWalk { queue: self.clone(), pages })
    }
}

/// Promotes page by page; see [`Queue::promote_all`].
#[derive(Debug)]
pub struct PromotionWalk {
    queue: Queue,
    pages: ZsetPages,
}

impl PromotionWalk {
    /// Promotes one page; `None` when it is through.
    ///
    /// # Errors
    /// [`QueueError::Redis`]; may be repeated.
    pub async fn step(&mut self) -> Result<Option<Step>, QueueError> {
        let page = self.pages.next(&self.queue, JOBS_PER_CALL_MAX).await?;
        if page.is_empty() {
            return Ok(None);
        }
        let ids: Vec<JobId> = page.iter().filter_map(|(id, _)| id.clone()).collect();
        let answers = self.queue.promote_now(&ids).await?;
        // Every job has left the zset: those that were promoted, and those that somebody else moved or removed.
        let nameless = page.iter().filter(|(id, _)| id.is_none()).map(|(_, score)| score.as_str());
        self.pages.pass(&page, nameless);
        let done = answers.into_iter().filter(|answer| *answer == Operated::Done).count();
        Ok(Some(Step { looked_at: page.len(), done }))
    }
}
