//! The registry: which queues there are under a prefix.
//!
//! [`Queue::open`](super::Queue::open) writes a queue's name into it. It has no hash tag, so it is in no script.

use super::keys::registry;
use super::{QueueError, Redis};

/// Names that one step of a scan looks at.
const SCAN_COUNT: usize = 1000;

impl Redis {
    /// Names of the queues under this prefix, in order; every queue that was ever opened and not obliterated.
    ///
    /// # Errors
    /// [`QueueError::Redis`].
    pub async fn registered_queues(&self) -> Result<Vec<String>, QueueError> {
        let (mut names, mut cursor) = (Vec::new(), 0_u64);
        loop {
            let mut scan = redis::cmd("SSCAN");
            scan.arg(registry(self.prefix())).arg(cursor).arg("COUNT").arg(SCAN_COUNT);
            let scanned = scan.query_async::<(u64, Vec<String>)>(&mut self.connection()).await;
            let (next, page) = scanned.map_err(|cause| QueueError::from_redis("SSCAN", cause))?;
            names.extend(page);
            cursor = next;
            if cursor == 0 {
                break;
            }
        }
        names.sort_unstable();
        names.dedup();
        Ok(names)
    }

    /// Whether a queue of this name was ever opened.
    ///
    /// # Errors
    /// [`QueueError::Redis`].
    pub async fn has_queue(&self, name: &str) -> Result<bool, QueueError> {
        redis::cmd("SISMEMBER")
            .arg(registry(self.prefix()))
            .arg(name)
            .query_async(&mut self.connection())
            .await
            .map_err(|cause| QueueError::from_redis("SISMEMBER", cause))
    }
}
