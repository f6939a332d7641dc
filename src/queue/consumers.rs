//! Consumers: who is alive, and the end of those who are not.
//!
//! A consumer says that it is alive every [`HEARTBEAT_INTERVAL`]. One whose heartbeat stopped is deleted from the group
//! as soon as nothing is pending for it: deleting it earlier would drop its pending entries from the group for ever.
//!
//! *Crash:* a process that dies leaves its consumer; its entries are claimed, then any worker's janitor deletes it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::scripts::{self, Call};
use super::{Queue, QueueError, millis};

/// Time between two heartbeats.
pub const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(5);
/// Age from which a heartbeat counts as stopped: three were missed.
pub const HEARTBEAT_LIFETIME: Duration = Duration::from_secs(15);

/// A consumer as it registers itself.
#[derive(Clone, Debug)]
pub struct Consumer {
    /// Unique: host, process id and a random part.
    pub name: String,
    host: String,
    pid: u32,
    started_at: SystemTime,
}

/// What the janitor deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reaped {
    /// Consumers deleted from the group.
    pub deleted: usize,
    /// Consumers forgotten in the registry.
    pub forgotten: usize,
}

impl Consumer {
    /// A new name for a consumer of this process.
    pub fn of_this_process() -> Self {
        let host = gethostname::gethostname().to_string_lossy().into_owned();
        let pid = std::process::id();
        let name = format!("{host}:{pid}:{:08x}", fastrand::u32(..));
        Self { name, host, pid, started_at: SystemTime::now() }
    }
}

impl Queue {
    /// Says that a consumer is alive, and how many jobs it holds.
    ///
    /// # Errors
    /// [`QueueError::Redis`]; may be repeated.
    pub async fn heartbeat(&self, consumer: &Consumer, jobs_held: usize) -> Result<(), QueueError> {
        let keys = self.keys();
        let hash = keys.consumer(&consumer.name);
        let mut call = Call::new(&scripts::HEARTBEAT, [keys.consumers(), hash.as_str()].into_iter());
        call.arg(&consumer.name).arg(millis(HEARTBEAT_LIFETIME));
        let started_ms = consumer.started_at.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64;
        call.arg("host").arg(&consumer.host).arg("pid").arg(consumer.pid).arg("started").arg(started_ms);
        call.arg("jobs").arg(jobs_held);
        call.run(&mut self.connection()).await?.decode::<u64>()?;
        Ok(())
    }

    /// Names of the consumers with a live heartbeat.
    ///
    /// # Errors
    /// [`QueueError::Redis`].
    pub async fn live_consumers(&self) -> Result<Vec<String>, QueueError> {
        let now_ms = millis(self.time().await?.duration_since(UNIX_EPOCH).unwrap_or_default());
        let oldest = now_ms.saturating_sub(millis(HEARTBEAT_LIFETIME));
        redis::cmd("ZRANGEBYSCORE")
            .arg(self.keys().consumers())
            .arg(oldest)
            .arg("+inf")
            .arg("LIMIT")
            .arg(0)
            .arg(10_000)
            .query_async(&mut self.connection())
            .await
            .map_err(|cause| QueueError::from_redis("ZRANGEBYSCORE", cause))
    }

    /// Deletes consumers that are gone and have nothing pending; `leaving` is one that goes now.
    ///
    /// # Errors
    /// [`QueueError::Redis`]; may be repeated.
    pub async fn reap_consumers(&self, leaving: Option<&str>) -> Result<Reaped, QueueError> {
        let keys = self.keys();
        let all = [keys.stream(), keys.prioritized_active(), keys.wake(), keys.consumers()];
        let mut call = Call::new(&scripts::REAP_CONSUMERS, all.into_iter());
        call.arg(millis(HEARTBEAT_LIFETIME)).arg(keys.consumer_prefix()).arg(leaving.unwrap_or(""));
        let (deleted, forgotten) = call.run(&mut self.connection()).await?.decode()?;
        Ok(Reaped { deleted, forgotten })
    }
}
