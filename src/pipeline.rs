//! The whole of feedmill in one process: both queues with their workers, the store, and the recorder.
//!
//! Called by the commands that work (`up`, `worker`, `fetch --wait`) and by tests.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::de::IgnoredAny;
use tokio_util::sync::CancellationToken;

use crate::config::{self, Config, QueueConfig};
use crate::feed::Feed;
use crate::feed::fetch::{FetchError, FetchLimits, Fetcher};
use crate::feed::schedule::{Schedule, ScheduleError};
use crate::import::{
    ConfiguredFeeds, Feeds, FetchFeed, Grouping, Payload, Recorder, Scheduler, StoreItems, fetch_payload, forget_item,
    item_payload,
};
use crate::job::Keep;
use crate::metrics::work::FetchMetrics;
use crate::pulse::Pulse;
use crate::queue::claim::ClaimLimits;
use crate::queue::dead_letter::Retention;
use crate::queue::limits::{Limits, Rate};
use crate::queue::{Events, Queue, QueueError, QueueOptions, Redis};
use crate::store::{Store, StoreError};
use crate::worker::{Ended, Growth, RetryPolicy, Single, Worker, WorkerOptions};

/// Both queues of a feedmill.
#[derive(Clone, Debug)]
pub struct Queues {
    /// One job is one item.
    pub import: Queue,
    /// One job is one fetch of one feed.
    pub fetch: Queue,
}

/// Everything that works on imports, connected.
#[derive(Clone, Debug)]
pub struct Pipeline {
    /// The queues.
    pub queues: Queues,
    /// MongoDB.
    pub store: Store,
    /// The configured feeds.
    pub feeds: ConfiguredFeeds,
    /// Whether the loops turn, once they run.
    pub pulse: Pulse,
    fetcher: Fetcher,
    /// What items are grouped by.
    grouping: Grouping,
    /// Whether fetches are grouped by host.
    is_fetched_by_host: bool,
    import_options: WorkerOptions,
    fetch_options: WorkerOptions,
    remember: std::time::Duration,
    payload_max_bytes: usize,
}

/// Why the pipeline cannot be set up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PipelineError {
    /// Redis.
    #[error(transparent)]
    Queue(#[from] QueueError),
    /// MongoDB.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The HTTP client.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// A feed's schedule.
    #[error("feed {feed:?} has no usable schedule")]
    Schedule {
        /// Name of the feed.
        feed: String,
        /// What is wrong with it.
        #[source]
        cause: ScheduleError,
    },
}

impl Queues {
    /// Connects to Redis and opens both queues.
    ///
    /// # Errors
    /// [`QueueError`].
    pub async fn open(config: &Config) -> Result<Self, QueueError> {
        let redis = Redis::connect(config.redis.url.expose(), &config.redis.prefix).await?;
        Ok(Self {
            import: Queue::open(&redis, &config.import_queue.name, queue_options(&config.import_queue)).await?,
            fetch: Queue::open(&redis, &config.fetch_queue.name, queue_options(&config.fetch_queue)).await?,
        })
    }

    /// The queue of this name: one of the two, or any other that is in the registry; `None` when there is none.
    ///
    /// Of another program's queue nothing is configured here: it is opened as that program did it.
    ///
    /// # Errors
    /// [`QueueError`].
    pub async fn named(&self, name: &str) -> Result<Option<Queue>, QueueError> {
        if let Some(own) = [&self.import, &self.fetch].into_iter().find(|queue| queue.name() == name) {
            return Ok(Some(own.clone()));
        }
        let redis = self.import.redis();
        if !redis.has_queue(name).await? {
            return Ok(None);
        }
        Queue::open_as_it_is(redis, name).await.map(Some)
    }

    /// The payload that a job of this queue has, of JSON: an item, a fetch task, or the JSON itself.
    ///
    /// # Errors
    /// The reason: what is wrong, and what is accepted.
    pub fn payload_for(&self, queue: &Queue, json: Vec<u8>) -> Result<Payload, String> {
        if queue.name() == self.fetch.name() {
            fetch_payload(&json)
        } else if queue.name() == self.import.name() {
            item_payload(&json)
        } else {
            let checked = serde_json::from_slice::<IgnoredAny>(&json).map_err(|error| format!("json: {error}"));
            checked.map(|_| Payload { id: None, group: None, bytes: json, fingerprint: None })
        }
    }
}

/// Connects to MongoDB and ensures its indexes.
///
/// # Errors
/// [`StoreError`].
pub async fn open_store(config: &Config) -> Result<Store, StoreError> {
    let store = Store::connect(config.mongodb.uri.expose(), &config.mongodb.database).await?;
    store.ensure_indexes().await?;
    store.ensure_documents_keep(config.mongodb.documents_keep).await?;
    Ok(store)
}

/// The feeds of the configuration and the subscriptions of the store.
///
/// # Errors
/// [`PipelineError`].
pub async fn all_feeds(config: &Config, store: &Store) -> Result<ConfiguredFeeds, PipelineError> {
    let grouping = grouping(&config.fetch_queue);
    Ok(ConfiguredFeeds::with_subscriptions(feeds(config)?, store.clone(), grouping).await?)
}

/// The feeds of the configuration, by name.
///
/// # Errors
/// [`PipelineError::Schedule`].
pub fn feeds(config: &Config) -> Result<Feeds, PipelineError> {
    let feeds = config.feeds.iter().map(|feed| {
        let schedule = feed.schedule.as_deref().map(|text| Schedule::parse(text, feed.timezone.as_deref()));
        let schedule = schedule.transpose();
        let schedule = schedule.map_err(|cause| PipelineError::Schedule { feed: feed.name.clone(), cause })?;
        let mut built = Feed {
            fetch_group: String::new(),
            name: feed.name.clone(),
            url: feed.url.clone(),
            source: feed.source.clone(),
            headers: feed.headers.iter().map(|(name, value)| (name.clone(), value.expose().to_owned())).collect(),
            credentials: feed.credentials.clone(),
            proxy: feed.proxy.clone(),
            schedule,
            allow_private: feed.allow_private,
            on_leave: feed.on_leave,
            spread: feed.spread,
        };
        if let Some(grouping) = grouping(&config.fetch_queue) {
            let group = grouping.of_fetches(&built).to_owned();
            built.fetch_group = group;
        }
        Ok((feed.name.clone(), Arc::new(built)))
    });
    Ok(Arc::new(feeds.collect::<Result<BTreeMap<_, _>, PipelineError>>()?))
}

impl Pipeline {
    /// Fetches with this from now on.
    #[must_use]
    pub fn with_fetcher(self, fetcher: Fetcher) -> Self {
        Self { fetcher, ..self }
    }

    /// Connects to everything.
    ///
    /// # Errors
    /// [`PipelineError`]; the text names what cannot be reached and what to do.
    pub async fn connect(config: &Config) -> Result<Self, PipelineError> {
        // What is wrong with the configuration is said before anything is connected to.
        feeds(config)?;
        let fetcher = Fetcher::new(fetch_limits(config))?;
        let queues = Queues::open(config).await?;
        for warning in queues.import.redis().settings_warnings().await {
            tracing::warn!("{warning}");
        }
        let store = open_store(config).await?;
        let feeds = all_feeds(config, &store).await?;
        Ok(Self {
            queues,
            store,
            feeds,
            pulse: Pulse::default(),
            fetcher,
            grouping: grouping(&config.import_queue).unwrap_or_default(),
            is_fetched_by_host: grouping(&config.fetch_queue) == Some(Grouping::Host),
            import_options: worker_options(&config.import_queue),
            fetch_options: worker_options(&config.fetch_queue),
            remember: config.import_queue.remember,
            payload_max_bytes: config.import_queue.payload_max_bytes,
        })
    }

    /// What fires the schedules of the feeds.
    pub fn scheduler(&self) -> Scheduler {
        let Queues { import, fetch } = self.queues.clone();
        Scheduler { fetch_queue: fetch, import_queue: import, feeds: self.feeds.clone() }
    }

    /// Works on both queues and records imports until `shutdown`, then ends what is held, as far as `shutdown_timeout`
    /// allows. What waits then, and records of imports that end on the way, are for the next worker.
    pub async fn run(self, shutdown: CancellationToken) -> Ended {
        // On the heap: the future of a whole process is too large to be moved about.
        Box::pin(self.work(shutdown)).await
    }

    async fn work(self, shutdown: CancellationToken) -> Ended {
        let Queues { import, fetch } = self.queues;
        let recorder = Recorder { import_queue: import.clone(), fetch_queue: fetch.clone(), store: self.store.clone() };
        let fetch_feed = FetchFeed {
            feeds: self.feeds.clone(),
            fetcher: self.fetcher,
            import_queue: import.clone(),
            grouping: self.grouping,
            fetch_queue: fetch.clone(),
            is_fetched_by_host: self.is_fetched_by_host,
            store: self.store.clone(),
            attempts: self.fetch_options.attempts,
            remember: self.remember,
            payload_max_bytes: self.payload_max_bytes,
        };
        FetchMetrics::register();
        // Whoever keeps the schedules of the feeds fires all schedulers of the fetch queue.
        let fetching =
            Worker::new(fetch, Single(fetch_feed), self.fetch_options).followed_by(&self.pulse).without_schedulers();
        let store_items =
            StoreItems::new(self.store, import.clone(), self.feeds.clone(), self.payload_max_bytes, self.grouping);
        let storing = Worker::new(import, store_items, self.import_options).followed_by(&self.pulse);
        let beat = self.pulse.follow("recorder of imports");
        let (fetched, stored, (), ()) = tokio::join!(
            fetching.run(shutdown.clone()),
            storing.run(shutdown.clone()),
            recorder.run(shutdown.clone(), beat),
            self.feeds.run(shutdown.clone())
        );
        Ended { given_back: fetched.given_back + stored.given_back }
    }
}

/// The limits of fetches as the configuration has them.
pub fn fetch_limits(config: &Config) -> FetchLimits {
    FetchLimits {
        connect_timeout: config.fetch.connect_timeout,
        total_timeout: config.fetch.timeout,
        redirects_max: config.fetch.redirects_max,
        body_max_bytes: config.fetch.body_max_bytes,
        user_agent: config.fetch.user_agent.clone(),
        networks: config.fetch.allow_networks.clone(),
        proxy: config.fetch.proxy.clone(),
    }
}

fn worker_options(queue: &QueueConfig) -> WorkerOptions {
    WorkerOptions {
        concurrency: queue.concurrency,
        batch_size: queue.batch_size,
        flush: queue.flush,
        buffer_bytes: queue.buffer_bytes,
        attempts: queue.attempts,
        retry_policy: RetryPolicy {
            growth: match queue.backoff.kind {
                config::BackoffKind::Exponential => Growth::Exponential,
                config::BackoffKind::Fixed => Growth::Fixed,
            },
            delay: queue.backoff.delay,
            max: queue.backoff.max,
            jitter: queue.backoff.jitter,
        },
        job_timeout: queue.job_timeout,
        claim: ClaimLimits {
            lock_duration: queue.lock_duration,
            stalled_interval: queue.stalled_interval,
            max_stalled_count: queue.max_stalled_count,
        },
        shutdown_timeout: queue.shutdown_timeout,
        on_complete: match queue.remove_on_complete {
            config::Retention::KeepAll => Keep::All,
            config::Retention::KeepNone => Keep::Nothing,
            config::Retention::Keep { count, age } => Keep::Newest { count, age },
        },
        retention: match queue.remove_on_fail {
            config::Retention::KeepAll => Retention::default(),
            config::Retention::KeepNone => Retention { count: Some(0), age: None },
            config::Retention::Keep { count, age } => {
                Retention { count: count.map(|count| usize::try_from(count).unwrap_or(usize::MAX)), age }
            }
        },
        limits: limits(queue),
        forget: forget_item,
    }
}

/// The options of a queue as the configuration has them.
pub fn queue_options(queue: &QueueConfig) -> QueueOptions {
    QueueOptions {
        events: match queue.events {
            config::Events::Failures => Events::Failures,
            config::Events::All => Events::All,
            config::Events::Off => Events::Off,
        },
        group_window: queue.group_by.map(|group| group.window),
    }
}

/// What the jobs of a queue are grouped by, if they are.
pub fn grouping(queue: &QueueConfig) -> Option<Grouping> {
    queue.group_by.map(|group| match group.key {
        config::GroupKey::Source => Grouping::Source,
        config::GroupKey::Host => Grouping::Host,
    })
}

/// The limits of a queue as the configuration has them.
pub fn limits(queue: &QueueConfig) -> Limits {
    let rate = |limiter: config::Limiter| Rate { max: limiter.max, duration: limiter.duration };
    Limits {
        rate: queue.limiter.map(rate),
        concurrency: None,
        group_rate: queue.group_by.and_then(|group| group.limiter).map(rate),
    }
}
