//! Notes of operations on many jobs, which the processes of the dashboard leave for each other, and for those that come
//! after a crash. What a note says is the dashboard's. In front of it stands whether somebody wants the operation to stop:
//! who runs it is told so by its next note.

use std::time::Duration;

use super::keys::operations;
use super::scripts::{self, Call, element};
use super::{QueueError, Redis};

/// Operations that are remembered.
const KEPT_MAX: usize = 100;
/// How long they are.
const KEPT_FOR: Duration = Duration::from_hours(7 * 24);

/// A note of an operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotedOperation {
    /// Its id.
    pub id: String,
    /// What was noted last.
    pub note: String,
    /// How long ago, by the clock of Redis.
    pub age: Duration,
    /// Whether somebody wants it to stop.
    pub is_to_stop: bool,
}

impl Redis {
    /// Notes how far an operation is. Ids of later operations must be greater: with too many, the least are forgotten.
    /// Returns whether somebody wants it to stop; with its note, that is forgotten too.
    ///
    /// # Errors
    /// [`QueueError::Redis`]; may be repeated.
    pub async fn note_operation(&self, id: &str, note: &str) -> Result<bool, QueueError> {
        let mut call = Call::new(&scripts::NOTE_OPERATION, std::iter::once(operations(self.prefix())));
        call.arg(id).arg(note).arg(KEPT_MAX).arg(KEPT_FOR.as_millis() as u64);
        call.run(&mut self.connection()).await?.decode()
    }

    /// Lets whoever runs an operation know, with its next note, that it is to stop; false when nothing is noted of it.
    ///
    /// # Errors
    /// [`QueueError::Redis`]; may be repeated.
    pub async fn stop_operation(&self, id: &str) -> Result<bool, QueueError> {
        let mut call = Call::new(&scripts::STOP_OPERATION, std::iter::once(operations(self.prefix())));
        call.arg(id);
        call.run(&mut self.connection()).await?.decode()
    }

    /// What was noted of operations, the latest first.
    ///
    /// # Errors
    /// [`QueueError::Redis`]; [`QueueError::Reply`] when somebody else has written there.
    pub async fn noted_operations(&self) -> Result<Vec<NotedOperation>, QueueError> {
        let mut call = Call::new(&scripts::LIST_OPERATIONS, std::iter::once(operations(self.prefix())));
        call.arg(KEPT_MAX);
        let (script, mut elements) = call.run(&mut self.connection()).await?.array()?;
        let unexpected = |detail: &str| QueueError::Reply { script: script.name, detail: detail.to_owned() };
        if elements.len() % 2 == 0 {
            return Err(unexpected("no time, or an id without a note"));
        }
        let pairs = elements.split_off(1);
        let now_ms: u64 = element(script, elements.remove(0))?;
        let mut noted = Vec::with_capacity(pairs.len() / 2);
        let mut pairs = pairs.into_iter();
        while let (Some(id), Some(note)) = (pairs.next(), pairs.next()) {
            let note: String = element(script, note)?;
            let (front, note) = note.split_once(':').ok_or_else(|| unexpected("a note without a time"))?;
            let (at_ms, is_to_stop) = front.strip_suffix(" stop").map_or((front, false), |at_ms| (at_ms, true));
            let at_ms: u64 = at_ms.parse().map_err(|_| unexpected("a note whose time is no number"))?;
            let age = Duration::from_millis(now_ms.saturating_sub(at_ms));
            noted.push(NotedOperation { id: element(script, id)?, note: note.to_owned(), age, is_to_stop });
        }
        noted.sort_unstable_by(|a, b| b.id.cmp(&a.id));
        Ok(noted)
    }
}
