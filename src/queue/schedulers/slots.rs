//! Schedulers of which nothing is stored: whoever sets their slots has their definitions.

use super::super::scripts::{self, Call, JOBS_PER_CALL_MAX};
use super::super::{Queue, QueueError};
use super::text;

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

impl Queue {
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
}
