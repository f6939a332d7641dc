//! Cancels jobs: gives them up because somebody wants it so.
//!
//! ```text
//!   waiting, prioritized, parked, delayed, active ──cancel──▶ dead (reason "cancelled"), to be redriven
//! ```
//!
//! A worker that has the job loses it at once: what it says of the job from now on changes nothing. Its handler learns of it
//! with the worker's next heartbeat, within about a second; see [`crate::worker::JobHandler`].
//!
//! *Crash:* the cancellation is one script. Where the worker dies before its heartbeat, nobody works on the job anyway.

use std::time::Duration;

use super::keys::CANCELLED_ENDING;
use super::operated::Operated;
use super::scripts;
use super::{LISTED_FAILURES_MAX, Queue, QueueError, millis};
use crate::job::JobId;

/// Reason of the dead letter of a job that was cancelled.
pub const CANCELLED: &str = "cancelled";

/// Most cancellations that are noted for one worker; it takes them with each heartbeat.
const NOTES_MAX: usize = 1000;
/// How long they are kept for a worker that does not take them: long enough for any that lives.
const NOTES_KEPT: Duration = Duration::from_mins(1);

impl Queue {
    /// Gives a job up: it is a dead letter from now on, with the reason [`CANCELLED`]. Completed and dead jobs are refused.
    ///
    /// # Errors
    /// [`QueueError::Redis`]; may be repeated.
    pub async fn cancel(&self, id: &JobId) -> Result<Operated, QueueError> {
        let mut call = self.moving(&scripts::CANCEL, [self.keys().job(id)]);
        call.arg(id.as_bytes())
            .arg(CANCELLED)
            .arg(LISTED_FAILURES_MAX)
            .arg(self.keys().consumer_prefix())
            .arg(CANCELLED_ENDING)
            .arg(NOTES_MAX)
            .arg(millis(NOTES_KEPT));
        self.answer(call).await
    }
}
