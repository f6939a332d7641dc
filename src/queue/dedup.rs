//! Deduplication ids: who holds one, and how to free it. How they are taken is in [`super::enqueue::Deduplication`].

use super::{Queue, QueueError};
use crate::job::JobId;

impl Queue {
    /// The job that holds a deduplication id, if any. Without a time to live an id is held only as long as its job lives, so
    /// the one that is named here may have ended: the next `add` looks.
    ///
    /// # Errors
    /// [`QueueError::Redis`].
    pub async fn dedup_owner(&self, dedup: &str) -> Result<Option<JobId>, QueueError> {
        let owner: Option<Vec<u8>> = self.ask("GET", redis::cmd("GET").arg(self.keys().dedup(dedup))).await?;
        Ok(owner.map(JobId::new).transpose()?)
    }

    /// Frees a deduplication id, whoever holds it: the next job with it is taken in. Returns false if nobody held it.
    ///
    /// # Errors
    /// [`QueueError::Redis`]; may be repeated.
    pub async fn free_dedup(&self, dedup: &str) -> Result<bool, QueueError> {
        Ok(self.ask::<u64>("UNLINK", redis::cmd("UNLINK").arg(self.keys().dedup(dedup))).await? == 1)
    }
}
