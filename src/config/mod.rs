//! The configuration: what the files, the environment and the flags say, checked once, so that nothing later has to.
//!
//! ```text
//!  streams.toml, compiled in ─┐
//!  the user's file ───────────┤   settings            validate             Config ──▶ everything else
//!  environment ───────────────┼─▶ (each value with ─▶ (types, ranges,  ─▶
//!  flags ─────────────────────┘   where it is from)   rules between keys)  └─ effective ──▶ show
//! ```
//!
//! `streams.toml` at the root of the repository is the reference: every key with its unit, default and range. The
//! defaults are that file, so they are written once. [`Config::load`] collects all problems and names for each the key,
//! the value, where it was set and what is accepted. The layers are merged as plain values rather than as one serde
//! struct, because serde stops at the first problem and forgets the origin.
//!
//! *Not here:* reading the process's environment (the caller passes it in) and connecting to anything.

mod env;
mod error;
mod load;
mod settings;
pub mod show;
mod units;
mod validate;

#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, fmt, net::SocketAddr, path::PathBuf, time::Duration};

use url::Url;

use crate::feed::OnLeave;
use crate::feed::fetch::{Credentials, Networks, Proxy};
pub use crate::secret::{MongoUri, RedisUrl, Secret};

/// The path under which a proxy shows feedmill, of a text.
///
/// # Errors
/// What is accepted.
pub fn base_path(text: &str) -> Result<String, String> {
    units::base_path(&toml::Value::String(text.to_owned()))
}

pub use self::{
    error::{ConfigError, Problem},
    load::{Overrides, Sources},
};

/// The configuration in force. Every value is in its range and agrees with the others.
///
/// Unit, default, range and effect of each field stand at its key in `streams.toml`.
#[derive(Clone, Debug)]
pub struct Config {
    /// `[redis]`.
    pub redis: RedisConfig,
    /// `[mongodb]`.
    pub mongodb: MongoConfig,
    /// `[http]`.
    pub http: HttpConfig,
    /// `[fetch]`.
    pub fetch: FetchConfig,
    /// `[stream.<name of the import queue>]`: one job is one item.
    pub import_queue: QueueConfig,
    /// `[stream.<name of the fetch queue>]`: one job is one fetch of one feed.
    pub fetch_queue: QueueConfig,
    /// Each `[[feed]]`, in the order of the file; names are unique.
    pub feeds: Vec<FeedConfig>,
    /// The user's file that was read; `None` if there was none.
    pub file: Option<PathBuf>,
    effective: show::Effective,
}

/// `[redis]`: where the queues live.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedisConfig {
    /// A URL the Redis client accepts.
    pub url: RedisUrl,
    /// First part of every key; without braces, which mark the hash tag.
    pub prefix: String,
}

/// `[mongodb]`: where the items are written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MongoConfig {
    /// A connection string the driver accepts.
    pub uri: MongoUri,
    /// Database of the collections.
    pub database: String,
    /// How long documents are kept after their item left its feed; `None` is for ever.
    pub documents_keep: Option<Duration>,
}

/// `[http]` and the access token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpConfig {
    /// Address of `serve` and `up`.
    pub listen: SocketAddr,
    /// Address of the metrics of `worker` and `schedule`; `None` is off.
    pub metrics_listen: Option<SocketAddr>,
    /// Path under which a proxy shows feedmill, such as `/feeds`; empty for the root.
    pub base_path: String,
    /// Whether nothing can be changed over HTTP.
    pub read_only: bool,
    /// `FEEDMILL_TOKEN`; never in a file.
    pub token: Option<Secret>,
}

/// `[fetch]`: the limits of one HTTP GET of a feed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchConfig {
    /// Whole fetch, redirects and body included.
    pub timeout: Duration,
    /// To connect, TLS included; at most `timeout`.
    pub connect_timeout: Duration,
    /// Largest body in bytes, after decompression.
    pub body_max_bytes: u64,
    /// Redirects followed before giving up.
    pub redirects_max: usize,
    /// A valid header value, with the version filled in.
    pub user_agent: String,
    /// The way to servers, for feeds that say nothing of it.
    pub proxy: Proxy,
    /// Private networks that every feed may be on.
    pub allow_networks: Networks,
}

/// `[stream.<queue>]`: how one queue runs.
#[derive(Clone, Debug, PartialEq)]
pub struct QueueConfig {
    /// Name of the queue, `[A-Za-z0-9_.-]+`.
    pub name: String,
    /// Attempts of a job, the first included; at least 1, and one byte where it is stored.
    pub attempts: u8,
    /// The wait between attempts.
    pub backoff: Backoff,
    /// Slots of a worker: writes in flight (import queue) or jobs (fetch queue); at least 1.
    pub concurrency: usize,
    /// Jobs in one write; at least 1, and 1 on the fetch queue.
    pub batch_size: usize,
    /// Longest wait of a buffered job for its batch to fill; below `lock_duration`.
    pub flush: Duration,
    /// Jobs that start in a window of time, over all workers; `None` is no limit.
    pub limiter: Option<Limiter>,
    /// What shares the queue fairly; `None` is first come, first served.
    pub group_by: Option<GroupBy>,
    /// The lease: idle time after which a job may be claimed.
    pub lock_duration: Duration,
    /// Time between two sweeps for stalled jobs.
    pub stalled_interval: Duration,
    /// Recoveries of a stalled job before it is buried.
    pub max_stalled_count: u8,
    /// Longest run of one handler call; `None` is no limit.
    pub job_timeout: Option<Duration>,
    /// Which done jobs stay.
    pub remove_on_complete: Retention,
    /// Which dead letters stay.
    pub remove_on_fail: Retention,
    /// How long a shown item is remembered, at least.
    pub remember: Duration,
    /// Largest payload in bytes.
    pub payload_max_bytes: usize,
    /// Payload a worker holds, in bytes; at least `payload_max_bytes`.
    pub buffer_bytes: usize,
    /// What goes to the events stream.
    pub events: Events,
    /// How long a wind-down may take before jobs are given back.
    pub shutdown_timeout: Duration,
}

/// The wait after a failed attempt.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Backoff {
    /// How the wait grows.
    pub kind: BackoffKind,
    /// The wait after the first failed attempt; at most `max`.
    pub delay: Duration,
    /// Never longer than this.
    pub max: Duration,
    /// Share of the wait that is random, 0.0 to 1.0.
    pub jitter: f64,
}

/// How the wait grows with the attempts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BackoffKind {
    /// `delay × 2^(n−1)` after failed attempt n, as BullMQ computes it.
    Exponential,
    /// `delay` each time.
    Fixed,
}

/// At most `max` starts in each window of `duration`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limiter {
    /// At least 1.
    pub max: u64,
    /// From a millisecond to a day.
    pub duration: Duration,
}

/// `group_by`: jobs that have something in common have a share of the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupBy {
    /// What they have in common.
    pub key: GroupKey,
    /// Most jobs of a group that wait in the stream or are active; at least 1.
    pub window: u32,
    /// Jobs of a group that start in a window of time; `None` is no limit.
    pub limiter: Option<Limiter>,
}

/// What jobs may have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupKey {
    /// The source of the item, or of the feed that is fetched.
    Source,
    /// The host of the feed's URL; of an item the host of its source, or the source where that is no URL.
    Host,
}

/// Which ended jobs are kept (`remove_on_complete`, `remove_on_fail`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retention {
    /// `false`: all, until they are redriven or removed.
    KeepAll,
    /// `true`: none.
    KeepNone,
    /// A count or `{ count, age }`: what is over either limit goes. At least one is set.
    Keep {
        /// The newest so many.
        count: Option<u64>,
        /// Those younger than this.
        age: Option<Duration>,
    },
}

/// What goes to the events stream of a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Events {
    /// Failed, stalled, exhausted, paused and the like.
    Failures,
    /// Each step of each job.
    All,
    /// Nothing.
    Off,
}

/// One `[[feed]]`.
#[derive(Clone, PartialEq, Eq)]
pub struct FeedConfig {
    /// Unique among the feeds, `[A-Za-z0-9_.-]+`, at most 200 bytes: the id of the feed's fetch job.
    pub name: String,
    /// http or https, with a host. May hold credentials.
    pub url: Url,
    /// What the items belong to: the `source` key, else `url` as configured, byte for byte.
    pub source: String,
    /// When to fetch, shape checked; `None` is only when asked.
    pub schedule: Option<String>,
    /// Time zone of `schedule`, known to the time zone database; `None` is UTC.
    pub timezone: Option<String>,
    /// The feed starts within this time of its slot.
    pub spread: Duration,
    /// Sent with every fetch; names and values are valid in HTTP.
    pub headers: BTreeMap<String, Secret>,
    /// The user or the token it is fetched with.
    pub credentials: Option<Credentials>,
    /// The way to its server; `None` is that of `[fetch]`.
    pub proxy: Option<Proxy>,
    /// What becomes of the documents of items that leave.
    pub on_leave: OnLeave,
    /// Whether the feed may be on a private network.
    pub allow_private: bool,
}

impl fmt::Debug for FeedConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // By hand, for the credentials that `url`, and `source` made from it, may hold.
        f.debug_struct("FeedConfig")
            .field("name", &self.name)
            .field("url", &crate::secret::mask_url(self.url.as_str()))
            .field("source", &crate::secret::mask_url(&self.source))
            .field("schedule", &self.schedule)
            .field("timezone", &self.timezone)
            .field("spread", &self.spread)
            .field("headers", &self.headers)
            .field("credentials", &self.credentials)
            .field("proxy", &self.proxy)
            .field("on_leave", &self.on_leave)
            .field("allow_private", &self.allow_private)
            .finish()
    }
}
