//! Consumers: who is alive, and the end of those who are not.
//!
//! A consumer says that it is alive every [`HEARTBEAT_INTERVAL`]. One whose heartbeat stopped is deleted from the group
//! as soon as nothing is pending for it: deleting it earlier would drop its pending entries from the group for ever.
//!
//! *Crash:* a process that dies leaves its consumer; its entries are claimed, then any worker's janitor deletes it.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use redis::streams::StreamInfoConsumersReply;

use super::keys::CANCELLED_ENDING;
use super::scripts::{self, Call, JOBS_PER_CALL_MAX, element};
use super::{GROUP, Queue, QueueError, millis};
use crate::job::{EntryId, JobId, Place};

/// Time between two heartbeats of a worker that has nothing to do.
pub const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(5);
/// Time between two heartbeats of a worker that holds jobs: with each it learns which of them were cancelled.
pub const BUSY_HEARTBEAT_INTERVAL: Duration = Duration::from_secs(1);
/// Age from which a heartbeat counts as stopped: three were missed.
pub const HEARTBEAT_LIFETIME: Duration = Duration::from_secs(15);

/// Jobs that are named of each consumer.
pub const RUNNING_NAMED: usize = 10;
/// Most consumers that are looked at: those whose heartbeats are the newest.
pub const CONSUMERS_MAX: usize = 1000;
/// Consumers that one call looks at.
const CONSUMERS_PER_CALL: usize = 32;

/// What a script says of a consumer: the fields of its hash, and ids of jobs.
type Seen = (HashMap<String, String>, Vec<Vec<u8>>);

/// A consumer as it registers itself.
#[derive(Clone, Debug)]
pub struct Consumer {
    /// Unique: host, process id and a random part.
    pub name: String,
    host: String,
    pid: u32,
    started_at: SystemTime,
}

/// A consumer as others see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsumerState {
    /// Its name.
    pub name: String,
    /// Whether its heartbeat goes on. One whose heartbeat stopped is dead: its jobs are claimed, then it is deleted.
    pub is_alive: bool,
    /// Its last heartbeat; `None` when it never had one, as a reader that is no worker.
    pub heartbeat_at: Option<SystemTime>,
    /// What it said of itself with its last heartbeat; `None` once that is forgotten, [`HEARTBEAT_LIFETIME`] later.
    pub about: Option<AboutConsumer>,
    /// Jobs that are pending for it now.
    pub pending: u64,
    /// Some of those, at most [`RUNNING_NAMED`].
    pub running: Vec<JobId>,
}

/// What a consumer says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AboutConsumer {
    /// Where it runs.
    pub host: String,
    /// Its process.
    pub pid: u32,
    /// When it started, by its own clock.
    pub started_at: SystemTime,
    /// Jobs it held at its last heartbeat, in its buffer or at work.
    pub jobs_held: u64,
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

impl ConsumerState {
    fn new(name: String, heartbeat_ms: Option<u64>, now_ms: u64) -> Self {
        Self {
            name,
            is_alive: heartbeat_ms.is_some_and(|ms| ms + millis(HEARTBEAT_LIFETIME) >= now_ms),
            heartbeat_at: heartbeat_ms.map(|ms| UNIX_EPOCH + Duration::from_millis(ms)),
            about: None,
            pending: 0,
            running: Vec::new(),
        }
    }
}

impl AboutConsumer {
    /// Reads the hash `consumer:<name>`; `None` when it is not there, or not whole.
    fn from_fields(fields: &HashMap<String, String>) -> Option<Self> {
        Some(Self {
            host: fields.get("host")?.clone(),
            pid: fields.get("pid")?.parse().ok()?,
            started_at: UNIX_EPOCH + Duration::from_millis(fields.get("started")?.parse().ok()?),
            jobs_held: fields.get("jobs")?.parse().ok()?,
        })
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

    /// The consumers there are, with what they run: those that are alive first, then by their last heartbeat. Dead ones are
    /// among them until a janitor deleted them.
    ///
    /// # Errors
    /// [`QueueError::Redis`].
    pub async fn consumers(&self) -> Result<Vec<ConsumerState>, QueueError> {
        let now_ms = millis(self.time().await?.duration_since(UNIX_EPOCH).unwrap_or_default());
        let mut heartbeats = redis::cmd("ZREVRANGE");
        heartbeats.arg(self.keys().consumers()).arg(0).arg(CONSUMERS_MAX - 1).arg("WITHSCORES");
        let heartbeats: Vec<(String, f64)> = self.ask("ZREVRANGE", &heartbeats).await?;
        let heard =
            heartbeats.into_iter().map(|(name, ms)| (name.clone(), ConsumerState::new(name, Some(ms as u64), now_ms)));
        let mut consumers: HashMap<String, ConsumerState> = heard.collect();
        for lane in [self.keys().stream(), self.keys().prioritized_active()] {
            let mut info = redis::cmd("XINFO");
            let info = self.ask::<StreamInfoConsumersReply>("XINFO", info.arg("CONSUMERS").arg(lane).arg(GROUP)).await;
            let found = match info {
                Ok(info) => info.consumers,
                // without the stream nobody has anything
                Err(error) if error.is_group_lost() || error.is_key_missing() => Vec::new(),
                Err(error) => return Err(error),
            };
            for found in found {
                let has_room = consumers.len() < CONSUMERS_MAX;
                match consumers.entry(found.name) {
                    Entry::Occupied(mut known) => known.get_mut().pending += found.pending as u64,
                    Entry::Vacant(new) if has_room => {
                        let state = ConsumerState::new(new.key().clone(), None, now_ms);
                        new.insert(state).pending = found.pending as u64;
                    }
                    Entry::Vacant(_) => {}
                }
            }
        }
        let mut consumers: Vec<ConsumerState> = consumers.into_values().collect();
        for piece in consumers.chunks_mut(CONSUMERS_PER_CALL) {
            let keys = [self.keys().stream(), self.keys().prioritized_active()];
            let mut call = Call::new(&scripts::CONSUMERS, keys.into_iter());
            call.arg(self.keys().consumer_prefix()).arg(RUNNING_NAMED);
            for consumer in piece.iter() {
                call.arg(&consumer.name);
            }
            let seen: Vec<Seen> = call.run(&mut self.connection()).await?.decode()?;
            if seen.len() != piece.len() {
                let detail = format!("{} for {} consumers", seen.len(), piece.len());
                return Err(QueueError::Reply { script: scripts::CONSUMERS.name, detail });
            }
            for (consumer, (fields, running)) in piece.iter_mut().zip(seen) {
                consumer.about = AboutConsumer::from_fields(&fields);
                consumer.running = running.into_iter().filter_map(|id| JobId::new(id).ok()).collect();
            }
        }
        consumers.sort_by(|a, b| (b.is_alive, b.heartbeat_at, &a.name).cmp(&(a.is_alive, a.heartbeat_at, &b.name)));
        Ok(consumers)
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
