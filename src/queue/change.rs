//! Changes jobs where they stand: their delay, their priority, their payload.
//!
//! ```text
//!   delayed ──change delay──▶ delayed      waiting ◀──change priority──▶ prioritized
//! ```
//!
//! *Crash:* each change is one script.

use std::time::Duration;

use super::enqueue::PRIORITY_MAX;
use super::operated::{Operated, operated};
use super::scripts::{self, Call};
use super::{Queue, QueueError, millis};
use crate::job::JobId;

impl Queue {
    /// Makes a delayed job due after this wait from now, by the clock of Redis. Jobs in other states are refused.
    ///
    /// # Errors
    /// [`QueueError::Redis`]; may be repeated, and then counts from the last time.
    pub async fn change_delay(&self, id: &JobId, delay: Duration) -> Result<Operated, QueueError> {
        let mut call = self.moving(&scripts::CHANGE_DELAY, [self.keys().job(id)]);
        call.arg(id.as_bytes()).arg(if delay.is_zero() { 0 } else { millis(delay).max(1) });
        self.answer(call).await
    }

    /// Gives a job another priority: 1 (first) to [`PRIORITY_MAX`], or 0 for none. One that waits moves to its place in the
    /// order, behind those of the same priority; for any other it holds from the next time that it waits.
    ///
    /// # Errors
    /// [`QueueError::Priority`] beyond that; [`QueueError::Redis`], may be repeated.
    pub async fn change_priority(&self, id: &JobId, priority: u32) -> Result<Operated, QueueError> {
        if priority > PRIORITY_MAX {
            return Err(QueueError::Priority { id: id.clone(), priority });
        }
        let mut call = self.moving(&scripts::CHANGE_PRIORITY, [self.keys().job(id)]);
        call.arg(id.as_bytes()).arg(priority);
        self.answer(call).await
    }

    /// Replaces the payload of a job; its name, options, times and version stay. A handler that has the job works on with what
    /// it was given; a retry of the job has the new payload. Completed jobs are refused.
    ///
    /// # Errors
    /// [`QueueError::PayloadTooLarge`] before anything is sent; [`QueueError::Redis`], may be repeated.
    #[expect(clippy::missing_panics_doc, reason = "writing to memory does not fail")]
    pub async fn update_payload(
        &self,
        id: &JobId,
        payload: &[u8],
        payload_max_bytes: usize,
    ) -> Result<Operated, QueueError> {
        if payload.len() > payload_max_bytes {
            let (id, bytes) = (id.clone(), payload.len());
            return Err(QueueError::PayloadTooLarge { id, bytes, limit_bytes: payload_max_bytes });
        }
        let packed = rmp_serde::to_vec(serde_bytes::Bytes::new(payload)).expect("writing to memory does not fail");
        let mut call = self.moving(&scripts::UPDATE_PAYLOAD, [self.keys().job(id)]);
        call.arg(id.as_bytes()).arg(packed);
        self.answer(call).await
    }

    /// Runs a script for one job that says by `D` that it was done.
    pub(super) async fn answer(&self, call: Call) -> Result<Operated, QueueError> {
        let answers = call.run(&mut self.connection()).await?.statuses(1, operated(b"D"))?;
        Ok(answers[0])
    }
}
