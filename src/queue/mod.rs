//! Everything Redis: one queue is a stream with one consumer group, a backoff zset and a dead-letter stream.
//!
//! ```text
//!              enqueue                read                     done
//!   producer ─────────▶ waiting ─────────────▶ active ─────────────────────▶ gone
//!                       (stream)               (pending entries)
//!                          ▲ ▲ ▲ ▲               │ │ │ │
//!                  promote │ │ │ └── give back ──┘ │ │ │ back off
//!      delayed (zset) ─────┘ │ └───── claim ───────┘ │ └──────────▶ delayed (zset)
//!                            │ redrive               │ bury
//!                            └──────────── dead (stream) ◀
//!
//!      by hand: cancel ──▶ dead · retry ──▶ waiting · promote now ──▶ waiting · remove, clean, drain, obliterate ──▶ gone
//!      schedulers (zset) ──fire──▶ waiting: a job that is added again at each of its slots
//! ```
//!
//! Every arrow is one script in [`scripts`], called by one function of a [`Queue`] in the file of that name. The key
//! `job:<id>` is guard and job in one and never moves: what moves is its id, and the head in front of it says where to.
//! An entry id is the lease on a job: every take-over adds a new entry and writes its id into the head, so the late
//! settle of a worker that lost the job is answered "lost" and changes nothing.
//!
//! *Not here:* what a job is about. The queue knows ids, versions, imports to count for, when schedulers are due, and bytes.

pub mod connection;
pub mod counts;
pub mod keys;
pub mod info;
pub mod scripts;
pub mod server;
// the road of a job
pub mod enqueue;
pub mod look_up;
pub mod read;
pub mod settle;
// the failure roads
pub mod claim;
pub mod dead_letter;
pub mod promote;
// looking
pub mod orphans;
pub mod events;
pub mod find;
pub mod groups;
pub mod inspect;
pub mod list;
pub mod progress;
pub mod registry;
pub mod ended_sessions;
pub mod noted_operations;
pub mod search;
pub mod series;
// operating
pub mod operated;
pub mod walk;
pub mod retry;
pub mod change;
pub mod cancel;
pub mod remove;
pub mod obliterate;
pub mod consumers;
pub mod dedup;
pub mod limits;
pub mod pause;
// what is added again and again
pub mod schedulers;
// what feeds and imports keep beside the jobs
pub mod feed_memory;
pub mod imports;

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use redis::aio::ConnectionManager;
use redis::streams::StreamInfoGroupsReply;
use redis::{Cmd, FromRedisValue, RedisError};

use serde::{Deserialize, Serialize};

pub use connection::Redis;
pub use keys::Keys;
use schedulers::SchedulerIdError;
use scripts::Call;
pub use settle::Settled;

use crate::job::head::extras;
use crate::job::{JobId, JobIdError};
use crate::schedule::DefinitionError;

/// The one consumer group of a work stream.
pub const GROUP: &str = "workers";

/// Most events a queue keeps; older ones are trimmed.
const EVENTS_MAX: usize = 10_000;

/// The keys of its own of a script that has none.
const NO_KEYS: [&[u8]; 0] = [];

/// Most failures that an import lists with their reasons; the rest is only counted.
const LISTED_FAILURES_MAX: usize = 20;

/// Which way a list goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Order {
    /// What comes first: the next one to be handed out or due, the one that ended first.
    #[default]
    Ascending,
    /// The other way round.
    Descending,
}

impl Order {
    /// What scripts call it.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Ascending => "asc",
            Self::Descending => "desc",
        }
    }
}

/// What a process says about a queue; all processes should agree.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueOptions {
    /// Which events it writes.
    pub events: Events,
    /// Most jobs of one group that may stand in the stream, be it waiting or active; the rest is parked. With 1, jobs of a
    /// group run one after the other. `None`: no limit.
    pub group_window: Option<u32>,
}

/// Which events a queue writes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Events {
    /// None.
    Off,
    /// What an operator wants to know: failed attempts, dead letters, stalls, pauses.
    #[default]
    Failures,
    /// BullMQ's: each step of each job. Costs a write each.
    All,
}

impl Events {
    /// As `streams.toml` says it.
    fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Failures => "failures",
            Self::All => "all",
        }
    }

    /// Those of this name; the default for what is none.
    fn named(name: Option<&str>) -> Self {
        let all = [Self::Off, Self::Failures, Self::All];
        all.into_iter().find(|known| Some(known.as_str()) == name).unwrap_or_default()
    }
}

impl From<Events> for QueueOptions {
    fn from(events: Events) -> Self {
        Self { events, ..Self::default() }
    }
}

/// A queue: cheap to clone, all clones share one connection.
#[derive(Clone, Debug)]
pub struct Queue {
    inner: Arc<Inner>,
}

struct Inner {
    redis: Redis,
    keys: Keys,
    options: QueueOptions,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Queue").field("name", &self.keys.queue()).finish_non_exhaustive()
    }
}

impl Queue {
    /// Opens a queue: registers its name and what `options` say of it, and creates its group where it is missing.
    ///
    /// # Errors
    /// [`QueueError`] when the name is none, or Redis does not answer.
    pub async fn open(redis: &Redis, name: &str, options: impl Into<QueueOptions>) -> Result<Self, QueueError> {
        let queue = Self::unopened(redis, name, options)?;
        queue.ensure_group().await?;
        let QueueOptions { events, group_window } = queue.inner.options;
        let mut opening = redis::pipe();
        opening.cmd("SADD").arg(queue.keys().registry()).arg(name).ignore();
        opening.cmd("HSET").arg(queue.keys().meta());
        opening.arg("events").arg(events.as_str()).arg("group_window").arg(group_window.unwrap_or(0)).ignore();
        let registered = opening.query_async::<()>(&mut queue.connection()).await;
        registered.map_err(|cause| QueueError::from_redis("SADD", cause))?;
        let others = queue.other_groups().await?;
        if !others.is_empty() {
            tracing::warn!(
                queue = name,
                "the stream of queue {name} has other consumer groups too ({}): a job that is settled goes from it, whether \
                 they have read it or not; XGROUP DESTROY removes them",
                others.join(", ")
            );
        }
        Ok(queue)
    }

    /// Opens a queue with the options of whoever opened it last: for those who know no more than its name.
    ///
    /// # Errors
    /// As [`Queue::open`].
    pub async fn open_as_it_is(redis: &Redis, name: &str) -> Result<Self, QueueError> {
        let keys = Keys::new(redis.prefix(), name)?;
        let mut noted = redis::cmd("HMGET");
        noted.arg(keys.meta()).arg("events").arg("group_window");
        let noted = noted.query_async::<(Option<String>, Option<u32>)>(&mut redis.connection()).await;
        let (events, window) = noted.map_err(|cause| QueueError::from_redis("HMGET", cause))?;
        let events = Events::named(events.as_deref());
        Self::open(redis, name, QueueOptions { events, group_window: window.filter(|window| *window > 0) }).await
    }

    /// A queue as it is, for those who only look: nothing is written, and it may not exist.
    ///
    /// # Errors
    /// [`QueueError::Name`].
    pub fn unopened(redis: &Redis, name: &str, options: impl Into<QueueOptions>) -> Result<Self, QueueError> {
        let keys = Keys::new(redis.prefix(), name)?;
        Ok(Self { inner: Arc::new(Inner { redis: redis.clone(), keys, options: options.into() }) })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        self.keys().queue()
    }

    /// Its keys.
    pub fn keys(&self) -> &Keys {
        &self.inner.keys
    }

    /// The server it is on.
    pub fn redis(&self) -> &Redis {
        &self.inner.redis
    }

    pub(crate) fn connection(&self) -> ConnectionManager {
        self.inner.redis.connection()
    }

    /// Runs one command of this name on the shared connection.
    async fn ask<T: FromRedisValue>(&self, name: &'static str, command: &Cmd) -> Result<T, QueueError> {
        command.query_async(&mut self.connection()).await.map_err(|cause| QueueError::from_redis(name, cause))
    }

    /// The time of Redis, by which everything in the queue is dated.
    ///
    /// # Errors
    /// [`QueueError::Redis`].
    pub async fn time(&self) -> Result<SystemTime, QueueError> {
        let (seconds, micros): (u64, u64) = redis::cmd("TIME")
            .query_async(&mut self.connection())
            .await
            .map_err(|cause| QueueError::from_redis("TIME", cause))?;
        Ok(UNIX_EPOCH + Duration::from_secs(seconds) + Duration::from_micros(micros))
    }

    /// Consumer groups on the stream beside the one there is to be: somebody made them by hand. They are given every entry
    /// that is still there when they read, and hold nothing up.
    ///
    /// # Errors
    /// [`QueueError::Redis`].
    pub async fn other_groups(&self) -> Result<Vec<String>, QueueError> {
        let mut info = redis::cmd("XINFO");
        let groups: StreamInfoGroupsReply = self.ask("XINFO", info.arg("GROUPS").arg(self.keys().stream())).await?;
        Ok(groups.groups.into_iter().map(|group| group.name).filter(|name| name != GROUP).collect())
    }

    /// Creates the group at 0 if it is missing (Redis was flushed, or the stream was deleted): a paused queue stays
    /// paused. Returns whether it was missing.
    ///
    /// # Errors
    /// [`QueueError::Redis`].
    pub async fn ensure_group(&self) -> Result<bool, QueueError> {
        let keys = self.keys();
        let all = [keys.stream(), keys.prioritized_active(), keys.wake(), keys.meta()];
        let mut call = Call::new(&scripts::ENSURE_GROUP, all.into_iter());
        call.arg(GROUP);
        Ok(call.run(&mut self.connection()).await?.decode::<u8>()? == 1)
    }

    /// What a script is told: how many events the stream of events keeps, 0 for none.
    fn events_max(&self) -> usize {
        match self.inner.options.events {
            Events::Off => 0,
            Events::Failures | Events::All => EVENTS_MAX,
        }
    }

    /// Whether it limits how many jobs of a group stand where they are read.
    fn limits_groups(&self) -> bool {
        self.inner.options.group_window.is_some()
    }

    /// The extras of a job's head; nothing for most jobs. Groups count only on a queue that limits them.
    fn extras(&self, priority: u32, group: Option<&str>) -> Vec<u8> {
        let group = group.filter(|_| self.inner.options.group_window.is_some()).unwrap_or_default();
        if priority == 0 && group.is_empty() { Vec::new() } else { extras(priority, group.as_bytes()) }
    }

    /// Begins a call of a script that moves jobs, with the KEYS and ARGV that all of them have in front.
    fn moving<K: AsRef<[u8]>>(
        &self,
        script: &'static scripts::Script,
        keys: impl IntoIterator<Item = K, IntoIter: ExactSizeIterator>,
    ) -> Call {
        let QueueOptions { events, group_window } = self.inner.options;
        let mut call = Call::with_front(script, &self.keys().moving(), keys.into_iter());
        call.arg(self.keys().queue_prefix())
            .arg(self.events_max())
            .arg(if events == Events::All { "all" } else { "failures" })
            .arg(group_window.unwrap_or(0));
        call
    }
}

/// Why an operation on a queue failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QueueError {
    /// The server cannot be reached.
    #[error("cannot reach Redis at {address}; start it, or set REDIS_URL to where it runs")]
    Unreachable {
        /// Host and port.
        address: String,
        /// What the client library says.
        #[source]
        cause: RedisError,
    },
    /// The server does not let us in.
    #[error("Redis at {address} refused the login; check user and password in REDIS_URL")]
    Login {
        /// Host and port.
        address: String,
        /// What the client library says; user and password are not in it.
        #[source]
        cause: RedisError,
    },
    /// The server is too old, or none that we know.
    #[error("Redis at {address} is version {found}; feedmill needs Redis 6.2 or later, or Valkey 7.2 or later")]
    Version {
        /// Host and port.
        address: String,
        /// What it says it is.
        found: String,
    },
    /// The URL cannot be used.
    #[error(
        "not a Redis URL: {detail}; accepted: redis://[user:password@]host[:port][/database], rediss://…, redis+unix://…"
    )]
    Url {
        /// What is wrong with it; never the URL itself, which may hold a password.
        detail: String,
    },
    /// The name of a queue has other characters than `A–Z a–z 0–9 _ . -`.
    #[error("{name:?} cannot be the name of a queue; accepted: letters, digits, '_', '.' and '-'")]
    Name {
        /// That name.
        name: String,
    },
    /// A job id is empty or too long.
    #[error(transparent)]
    JobId(#[from] JobIdError),
    /// The id of a scheduler is empty or too long.
    #[error(transparent)]
    SchedulerId(#[from] SchedulerIdError),
    /// The definition of a scheduler cannot be used.
    #[error(transparent)]
    Definition(#[from] DefinitionError),
    /// A payload is over the queue's limit.
    #[error("job {id} has a payload of {bytes} bytes; the limit (payload_max) is {limit_bytes}")]
    PayloadTooLarge {
        /// The job.
        id: JobId,
        /// Size of its payload.
        bytes: usize,
        /// What is accepted.
        limit_bytes: usize,
    },
    /// A priority is none.
    #[error("job {id} has priority {priority}; accepted: 1 (first) to 2097151 (last), or 0 for none")]
    Priority {
        /// The job.
        id: JobId,
        /// What it was given.
        priority: u32,
    },
    /// A deduplication id is empty or too long.
    #[error("job {id} has a deduplication id of {bytes} bytes; accepted: 1 to 4096")]
    DeduplicationId {
        /// The job.
        id: JobId,
        /// Length of the deduplication id.
        bytes: usize,
    },
    /// Jobs in this state cannot be cleaned.
    #[error("{state} jobs cannot be cleaned; accepted: completed, failed, waiting, delayed, prioritized")]
    NotCleanable {
        /// Name of the state.
        state: &'static str,
    },
    /// A queue that runs cannot be obliterated.
    #[error("queue {queue} is not paused; pause it first (`feedmill queue pause`), and nothing is started meanwhile")]
    NotPaused {
        /// Its name.
        queue: String,
    },
    /// A queue whose workers have jobs is obliterated only by force.
    #[error(
        "{jobs} jobs of queue {queue} are active; wait until they have ended, or force it: their workers lose them"
    )]
    HasActive {
        /// Its name.
        queue: String,
        /// How many.
        jobs: usize,
    },
    /// What is said of a job's progress cannot be kept.
    #[error("the progress of job {id} cannot be set: {detail}")]
    Progress {
        /// The job.
        id: JobId,
        /// What is wrong.
        detail: String,
    },
    /// A cursor is of another list.
    #[error(transparent)]
    Cursor(#[from] list::CursorError),
    /// A command or script failed.
    #[error("{operation} failed at Redis")]
    Redis {
        /// The command, or the scripts it was made of.
        operation: &'static str,
        /// What the client library says.
        #[source]
        cause: RedisError,
    },
    /// A reply has not the shape it should have.
    #[error("{script} answered something unexpected: {detail}")]
    Reply {
        /// The script or command.
        script: &'static str,
        /// What is wrong with the reply.
        detail: String,
    },
}

impl QueueError {
    /// An error of making a connection to `address`.
    pub(crate) fn from_connecting(address: &str, cause: RedisError) -> Self {
        let address = address.to_owned();
        let is_login = cause.kind() == redis::ErrorKind::AuthenticationFailed
            || matches!(cause.code(), Some("NOAUTH" | "WRONGPASS" | "NOPERM"));
        if is_login { Self::Login { address, cause } } else { Self::Unreachable { address, cause } }
    }

    pub(crate) fn from_redis(operation: &'static str, cause: RedisError) -> Self {
        Self::Redis { operation, cause }
    }

    /// Whether Redis could not do it now but may later: it is down, restarting, read-only or out of memory. Nothing is
    /// known then about whether the operation was carried out.
    pub fn is_outage(&self) -> bool {
        const NOT_NOW: [&str; 10] = [
            "LOADING",
            "READONLY",
            "MASTERDOWN",
            "TRYAGAIN",
            "CLUSTERDOWN",
            "OOM",
            "MISCONF",
            "BUSY",
            "NOREPLICAS",
            "NOSCRIPT",
        ];
        match self {
            Self::Unreachable { .. } => true,
            Self::Redis { cause, .. } => {
                cause.is_io_error()
                    || cause.is_timeout()
                    || cause.is_connection_dropped()
                    || cause.is_connection_refusal()
                    || says(cause, &NOT_NOW)
            }
            _ => false,
        }
    }

    /// Whether a command needed a key that is not there.
    pub(crate) fn is_key_missing(&self) -> bool {
        matches!(self, Self::Redis { cause, .. } if cause.detail().is_some_and(|detail| detail.contains("no such key")))
    }

    /// Whether a key is of another type than the command is for.
    pub(crate) fn is_wrong_type(&self) -> bool {
        matches!(self, Self::Redis { cause, .. } if says(cause, &["WRONGTYPE"]))
    }

    /// Whether the consumer group is missing. `UNBLOCKED` is what a read is told that blocked while the group went.
    pub(crate) fn is_group_lost(&self) -> bool {
        matches!(self, Self::Redis { cause, .. } if says(cause, &["NOGROUP", "UNBLOCKED"]))
    }
}

/// Whether Redis answered one of these error codes: as its answer, or as the error of a command inside a script, which
/// stands somewhere in the text (Redis 6.2 puts `ERR Error running script …: -` before it).
fn says(error: &RedisError, codes: &[&str]) -> bool {
    let mut words = error.detail().unwrap_or_default().split_ascii_whitespace();
    error.code().is_some_and(|code| codes.contains(&code))
        || words.any(|word| codes.contains(&word.trim_start_matches('-')))
}

/// A span as the whole milliseconds that a script takes.
fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX >> 12)
}
