//! Consumers: who is alive, and the end of those who are not.
//!
//! A consumer says that it is alive every [`HEARTBEAT_INTERVAL`]. One whose heartbeat stopped is deleted from the group
//! as soon as nothing is pending for it: deleting it earlier would drop its pending entries from the group for ever.
//!
//! *Crash:* a process that dies leaves its consumer; its entries are claimed, then any worker's janitor deletes it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::keys::CANCELLED_ENDING;
use super::scripts::{self, Call, JOBS_PER_CALL_MAX, element};
use super::{Queue, QueueError, millis};
use crate::job::{EntryId, Place};

/// Time between two heartbeats of a worker that has nothing to do.
pub const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(5);
/// Time between two heartbeats of a worker that holds jobs: with each it learns which of them were cancelled.
pub const BUSY_HEARTBEAT_INTERVAL: Duration = Duration::from_secs(1);
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
    /// Says that a consumer is alive, and how many jobs it holds. Returns the lane and the entry of those of its jobs that were
    /// cancelled since the last time; a full call's worth means that there may be more.
    ///
    /// # Errors
    /// [`QueueError::Redis`]; may be repeated, and then may miss cancellations of the time before.
    pub async fn heartbeat(&self, consumer: &Consumer, jobs_held: usize) -> Result<Vec<(Place, EntryId)>, QueueError> {
        let keys = self.keys();
        let (hash, cancelled) = (keys.consumer(&consumer.name), keys.consumer_cancelled(&consumer.name));
        let mut call =
            Call::new(&scripts::HEARTBEAT, [keys.consumers(), hash.as_str(), cancelled.as_str()].into_iter());
        call.arg(&consumer.name).arg(millis(HEARTBEAT_LIFETIME)).arg(JOBS_PER_CALL_MAX);
        let started_ms = consumer.started_at.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64;
        call.arg("host").arg(&consumer.host).arg("pid").arg(consumer.pid).arg("started").arg(started_ms);
        call.arg("jobs").arg(jobs_held);
        let (script, mut elements) = call.run(&mut self.connection()).await?.array()?;
        let unexpected = |detail: String| QueueError::Reply { script: script.name, detail };
        if elements.is_empty() {
            return Err(unexpected("an empty array".to_owned()));
        }
        let notes = elements.split_off(1).into_iter().map(|note| {
            let note: Vec<u8> = element(script, note)?;
            EntryId::from_reference(&note).ok_or_else(|| unexpected(format!("note {note:?}")))
        });
        notes.collect()
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
        call.arg(millis(HEARTBEAT_LIFETIME))
            .arg(keys.consumer_prefix())
            .arg(leaving.unwrap_or(""))
            .arg(CANCELLED_ENDING);
        let (deleted, forgotten) = call.run(&mut self.connection()).await?.decode()?;
        Ok(Reaped { deleted, forgotten })
    }
}
