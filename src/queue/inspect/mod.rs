//! Inspects a queue: what Redis says about its streams, and in plain language what that means.
//!
//! ```text
//!   observe.rs ── lengths, groups, consumers, heads of zsets ──┐
//!   walks.rs ──── delivered entries, guards, page by page ─────┼──▶ judge.rs ──▶ Inspection: lines with verdicts, findings
//!                                                              │                    │
//!                                                  (nothing is written)             └──▶ repair.rs: what is safe to mend
//! ```
//!
//! Called by `feedmill xinfo`, and by the dashboard. Nothing is written, not even what opening a queue writes: a look at a
//! queue whose group is gone does not create it.
//!
//! *Cost:* each command and script looks at a bounded number of things, so Redis is never held for long, however many jobs
//! there are. The walks stop at the limits of [`InspectOptions`]; [`Walked`] says how far they came.
//!
//! *A moment:* between two commands jobs move. What the walks find is judged inside one script each, so an orphan or a guard
//! without a job is one; the numbers of different lines may differ by what happened in between.

mod finding;
mod judge;
mod observe;
mod repair;
pub(super) mod walks;
mod words;

use std::time::Duration;

use serde::Serialize;

pub use finding::{Finding, FindingKind};
pub use repair::{GuardRestored, OrphanRestored, Repair};

use super::{Events, Queue, QueueError, QueueOptions, Redis};
use crate::check::Status;
use crate::job::{EntryId, JobId, Place};

/// What an inspection is to know of the queue's workers, and how far it looks.
#[derive(Clone, Copy, Debug)]
pub struct InspectOptions {
    /// The lease of its workers: idle time from which a job may be claimed.
    pub lock_duration: Duration,
    /// Time between two sweeps for stalled jobs.
    pub stalled_interval: Duration,
    /// Most delivered entries that are looked at for orphans.
    pub entries_max: usize,
    /// Most guards that are looked at for jobs that stand nowhere.
    pub guards_max: usize,
}

impl Default for InspectOptions {
    /// The lease and interval that `streams.toml` has by default; as much as is looked at in about a second.
    fn default() -> Self {
        Self {
            lock_duration: Duration::from_secs(30),
            stalled_interval: Duration::from_secs(30),
            entries_max: 100_000,
            guards_max: 100_000,
        }
    }
}

impl InspectOptions {
    /// Looks at everything, however much there is.
    #[must_use]
    pub fn deep(self) -> Self {
        Self { entries_max: usize::MAX, guards_max: usize::MAX, ..self }
    }
}

/// What an inspection found.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Inspection {
    /// Name of the queue.
    pub queue: String,
    /// When, by the clock of Redis, in ms since 1970.
    pub at_ms: u64,
    /// Whether the queue is paused.
    pub paused: bool,
    /// Consumers with a live heartbeat.
    pub consumers_alive: u64,
    /// What jobs stand in.
    pub structures: Vec<Structure>,
    /// Consumer groups of the two lanes.
    pub groups: Vec<Group>,
    /// Consumers: those that are alive first.
    pub consumers: Vec<ConsumerLine>,
    /// The oldest pending entries.
    pub oldest_pending: Vec<PendingEntry>,
    /// Groups of jobs (`group_by`) with the most parked jobs.
    pub parked: Vec<ParkedGroup>,
    /// Why the newest dead letters died.
    pub dead_reasons: Vec<DeadReason>,
    /// How far the walks came.
    pub walked: Walked,
    /// What is not as it should be, the gravest first.
    pub findings: Vec<Finding>,
    #[serde(skip)]
    pub(super) orphans: Vec<(Place, EntryId)>,
    #[serde(skip)]
    pub(super) stray_guards: Vec<JobId>,
    #[serde(skip)]
    pub(super) forgotten_groups: Vec<Vec<u8>>,
    #[serde(skip)]
    pub(super) miscounted: walks::Miscounted,
}

impl Inspection {
    /// Whether something is an anomaly.
    pub fn has_anomaly(&self) -> bool {
        self.findings.iter().any(|finding| finding.status == Status::Error)
    }

    /// The finding of this kind, if there is one.
    pub fn finding(&self, kind: FindingKind) -> Option<&Finding> {
        self.findings.iter().find(|finding| finding.kind == kind)
    }
}

/// One key that jobs (or schedulers, or events) stand in.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Structure {
    /// What it is called within the queue: the last part of its key.
    pub name: &'static str,
    /// The whole key.
    pub key: String,
    /// What it is of: `stream` or `zset`.
    pub r#type: &'static str,
    /// Entries or members.
    pub length: u64,
    /// What Redis says it takes, estimated from a sample; `None` when it is empty.
    pub memory_bytes: Option<u64>,
    /// First entry of a stream.
    pub first_entry: Option<String>,
    /// Last entry of a stream.
    pub last_entry: Option<String>,
    /// How it stands.
    pub status: Status,
    /// What that means.
    pub verdict: String,
}

/// A consumer group of a lane.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Group {
    /// The lane: `stream` or `prioritized:active`.
    pub stream: &'static str,
    /// Its name.
    pub name: String,
    /// Consumers in it.
    pub consumers: u64,
    /// Entries that are pending in it.
    pub pending: u64,
    /// The last entry that it delivered. Of a paused or limited queue: the one that it had reached.
    pub last_delivered: String,
    /// Entries it has not delivered, as Redis says it; `None` when Redis does not know, because entries were deleted.
    pub lag: Option<u64>,
    /// How it stands.
    pub status: Status,
    /// What that means.
    pub verdict: String,
}

/// Whether a consumer lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ConsumerLife {
    /// Its heartbeat goes on.
    Alive,
    /// Its heartbeat stopped.
    Dead,
    /// It never had a heartbeat, or that was forgotten: a reader that is no worker of ours.
    Unknown,
}

/// A consumer of the group.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ConsumerLine {
    /// Its name.
    pub name: String,
    /// Whether it lives.
    pub life: ConsumerLife,
    /// Host and process, as it said last.
    pub host: Option<String>,
    /// Its process id there.
    pub pid: Option<u32>,
    /// Time since its last heartbeat.
    pub heartbeat_ms: Option<u64>,
    /// Time since it last asked for or settled anything, as Redis says it.
    pub idle_ms: Option<u64>,
    /// Time since it last got anything; from Redis 7.2.
    pub inactive_ms: Option<u64>,
    /// Entries that are pending for it.
    pub pending: u64,
    /// Time until those are claimed; `None` when it holds none, or none will be.
    pub claimed_in_ms: Option<u64>,
    /// How it stands.
    pub status: Status,
    /// What that means.
    pub verdict: String,
}

/// A pending entry.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PendingEntry {
    /// The lane: `stream` or `prioritized:active`.
    pub stream: &'static str,
    /// Its id.
    pub entry: String,
    /// The job it names; `None` for a plain producer's, or when the entry is gone.
    pub job: Option<String>,
    /// Who has it.
    pub consumer: String,
    /// Time since it was delivered, or its lease was renewed.
    pub idle_ms: u64,
    /// How often it was delivered, as Redis counts.
    pub deliveries: u64,
    /// What is left of its lease; 0 when it is over.
    pub lease_left_ms: u64,
    /// How it stands.
    pub status: Status,
    /// What that means.
    pub verdict: String,
}

/// A group of jobs of which some are parked.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ParkedGroup {
    /// Its name.
    pub group: String,
    /// Its jobs that stand where they are read, active ones too.
    pub members: u64,
    /// Its jobs that wait for room.
    pub parked: u64,
    /// How long it is held up, if it is.
    pub held_ms: Option<u64>,
    /// How it stands.
    pub status: Status,
    /// What that means.
    pub verdict: String,
}

/// How many dead letters have this reason.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DeadReason {
    /// The reason, cut.
    pub reason: String,
    /// Of the newest dead letters, so many.
    pub letters: u64,
}

/// How far the walks came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Walked {
    /// Delivered entries that were looked at.
    pub entries: u64,
    /// Whether that were all.
    pub entries_through: bool,
    /// Guards that were looked at.
    pub guards: u64,
    /// Whether that were all.
    pub guards_through: bool,
}

impl Queue {
    /// The queue of this name as whoever opened it last has it, for those who look: nothing is written. `None` when there
    /// is none.
    ///
    /// # Errors
    /// [`QueueError::Name`] or [`QueueError::Redis`].
    pub async fn as_it_stands(redis: &Redis, name: &str) -> Result<Option<Self>, QueueError> {
        let looked = Self::unopened(redis, name, QueueOptions::default())?;
        if !redis.has_queue(name).await? {
            return Ok(None);
        }
        let mut noted = redis::cmd("HMGET");
        noted.arg(looked.keys().meta()).arg("events").arg("group_window");
        let noted = looked.ask("HMGET", &noted).await;
        let (events, window): (Option<String>, Option<u32>) = match noted {
            // the inspection says so
            Err(error) if error.is_wrong_type() => (None, None),
            noted => noted?,
        };
        let events = Events::named(events.as_deref());
        Self::unopened(redis, name, QueueOptions { events, group_window: window.filter(|window| *window > 0) })
            .map(Some)
    }

    /// Inspects the queue; see [`self`](crate::queue::inspect).
    ///
    /// # Errors
    /// [`QueueError::Redis`].
    pub async fn inspect(&self, options: InspectOptions) -> Result<Inspection, QueueError> {
        judge::inspect(self, options).await
    }
}
