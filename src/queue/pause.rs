//! Pauses and resumes a queue.
//!
//! A job starts when Redis delivers it. After [`Queue::pause`] returns nothing is delivered; what was delivered before
//! runs on. It costs nothing on the way of a read: the group is told that everything was delivered already.

use super::scripts::{self, Call};
use super::{Queue, QueueError};

impl Queue {
    /// Pauses; returns false if the queue was paused already.
    ///
    /// # Errors
    /// [`QueueError::Redis`]; may be repeated.
    pub async fn pause(&self) -> Result<bool, QueueError> {
        self.ensure_group().await?;
        self.pause_or_resume(&scripts::PAUSE).await
    }

    /// Resumes; returns false if the queue was not paused.
    ///
    /// # Errors
    /// [`QueueError::Redis`]; may be repeated.
    pub async fn resume(&self) -> Result<bool, QueueError> {
        self.ensure_group().await?;
        self.pause_or_resume(&scripts::RESUME).await
    }

    async fn pause_or_resume(&self, script: &'static scripts::Script) -> Result<bool, QueueError> {
        let keys = self.keys();
        let all = [keys.stream(), keys.meta(), keys.events(), keys.wake(), keys.held_groups()];
        let mut call = Call::new(script, all.into_iter());
        call.arg(self.events_max());
        Ok(call.run(&mut self.connection()).await?.decode::<u8>()? == 1)
    }
}
