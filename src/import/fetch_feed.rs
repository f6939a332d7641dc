//! The handler of the fetch queue: one fetch job → fetch → parse → enqueue what is new or changed.
//!
//! ```text
//!   begin (version, seen map, validators) → GET → parse → classify → enqueue → finish (map, validators, import sealed)
//! ```
//!
//! A fetch that fails for good is no dead letter: its job is done and its import failed, and the next slot of the feed's
//! schedule tries again.
//!
//! *Crash anywhere before `finish`:* the job is claimed and the fetch begins anew, with a newer version; what the dead one
//! enqueued is in the seen map. *Crash after it:* the fetch is found finished and only its job is settled.

use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;
use tracing::Instrument as _;

use crate::error::chain;
use crate::feed::Feed;
use crate::feed::fetch::{FetchError, FetchRequest, Fetched, Fetcher, Next, Room, Validators, shown};
use crate::feed::pace::{self, Hold, Wishes};
use crate::feed::parse::{self, Hints, ParseError, Recovery};
use crate::feed::schedule::Schedule;
use crate::feed::seen::{self, SeenMap};
use crate::item::Item;
use crate::job::{ImportId, Outcome};
use crate::metrics::work::FetchMetrics;
use crate::queue::enqueue::FetchScope;
use crate::queue::feed_memory::{Begin, BegunFetch, FinishedFetch, NewValidators, SealedCounts};
use crate::queue::imports::Opening;
use crate::queue::read::Delivery;
use crate::queue::{Queue, QueueError};
use crate::store::Store;
use crate::store::feeds::FeedStatus;
use crate::telemetry::spans::span;
use crate::worker::{Adoption, JobHandler, Outage};

use super::leaving::Leaving;
use super::scheduler::hold_back;
use super::take_in::TakeIn;
use super::{ConfiguredFeeds, FetchTask, Grouping, plain};

/// Gaps between slots that are looked at for the longest: a schedule may have several slots a day, a month, a year.
const GAPS_LOOKED_AT: usize = 12;
/// Pause between two tries to write the state of a feed while MongoDB is away.
const STATUS_PAUSE: Duration = Duration::from_secs(1);
/// How long the state of a feed is tried to be written: it is a copy for people to read, and must not hold the slot, nor
/// run into `job_timeout` and cost an attempt of a fetch that is through.
const STATUS_TIMEOUT: Duration = Duration::from_secs(30);

/// Fetches feeds and enqueues their items.
#[derive(Clone, Debug)]
pub struct FetchFeed {
    /// The configured feeds.
    pub feeds: ConfiguredFeeds,
    /// The HTTP client.
    pub fetcher: Fetcher,
    /// Where items go.
    pub import_queue: Queue,
    /// What they are grouped by there.
    pub grouping: Grouping,
    /// The queue of the fetches, and of the schedules of feeds.
    pub fetch_queue: Queue,
    /// Whether fetches are grouped by host: a server that asks for time holds up all of its feeds.
    pub is_fetched_by_host: bool,
    /// Where the state of feeds is written.
    pub store: Store,
    /// Attempts of a fetch job; the last failed one ends it.
    pub attempts: u8,
    /// How long a seen map is kept without a fetch, at least.
    pub remember: Duration,
    /// Largest payload of an item.
    pub payload_max_bytes: usize,
}

/// How one fetch ended.
struct FetchEnd {
    /// HTTP status; `None` without an answer.
    status: Option<u16>,
    moved_to: Option<String>,
    /// How often its publisher wants to be asked.
    wishes: Wishes,
    result: Result<Content, Failure>,
}

enum Content {
    NotModified,
    /// With the room that a large feed takes until its items are in the queue.
    Items(ReadItems),
}

/// What a feed held.
struct ReadItems {
    items: Vec<Item>,
    /// What was wrong with the document, if it had to be mended.
    recovered: Option<Recovery>,
    unreadable_dates: usize,
    validators: Validators,
    room: Room,
}

/// A fetch that failed, and what comes next.
struct Failure {
    reason: String,
    next: Next,
}

impl JobHandler for FetchFeed {
    async fn handle(&self, delivery: &Delivery) -> Result<Outcome, Outage> {
        let task: FetchTask = match serde_json::from_slice(delivery.job.payload()) {
            Ok(task) => task,
            Err(error) => return Ok(Outcome::Fail(format!("the payload is no fetch task: {error}"))),
        };
        let import = task.import(delivery.lease.version);
        let mut feed = self.feeds.find(&task.feed);
        if feed.is_none() {
            // It may have been subscribed to a moment ago.
            self.feeds.refresh().await.map_err(|cause| Outage { what: "MongoDB", cause: cause.into() })?;
            feed = self.feeds.find(&task.feed);
        }
        let Some(feed) = feed else {
            let error = format!(
                "the worker that took it has no feed {:?} in its configuration; workers read theirs when they start, \
                 and on SIGHUP",
                task.feed
            );
            self.import_queue.seal_import(import, &error).await.map_err(redis_outage)?;
            tracing::warn!(feed = %task.feed, "{error}; its fetch ends here");
            return Ok(Outcome::Done);
        };
        let is_last = delivery.job.attempt() >= self.attempts;
        match self.fetch(&feed, &task, import, is_last).await {
            Ok(outcome) => Ok(outcome),
            Err(error) if error.is_outage() => Err(redis_outage(error)),
            Err(error) if is_last => {
                self.import_queue.seal_import(import, &chain(&error)).await.map_err(redis_outage)?;
                tracing::error!(
                    queue = %self.fetch_queue.name(), feed = %feed.name, import = %import, error = %chain(&error),
                    "fetching feed {} failed; its next slot tries again", feed.name
                );
                Ok(Outcome::Done)
            }
            Err(error) => Ok(Outcome::Retry(chain(&error))),
        }
    }

    fn adopt(&self, json: &[u8]) -> Result<Adoption, String> {
        let mut adoption = plain::adopt_fetch(json)?;
        adoption.group = self.feeds.find(&adoption.id.to_string()).map(|feed| feed.fetch_group.clone());
        Ok(adoption)
    }
}

fn redis_outage(cause: QueueError) -> Outage {
    Outage { what: "Redis", cause: cause.into() }
}

impl FetchFeed {
    /// One attempt. An error of the queue says nothing about what was enqueued: the next attempt finds out.
    async fn fetch(
        &self,
        feed: &Feed,
        task: &FetchTask,
        import: ImportId,
        is_last: bool,
    ) -> Result<Outcome, QueueError> {
        let opening = Opening { feed: &feed.name, source: &feed.source, run: &task.run, asked: task.asked };
        let mut map_front = [0; 8];
        map_front.copy_from_slice(&seen::header(0)[..8]);
        let remember = self.remember_for(feed);
        let begin_for = async |import| self.import_queue.begin_fetch(import, opening, map_front, remember).await;
        let mut import = import;
        let mut answer = begin_for(import).await?;
        if let Begin::Sealed { current } = answer {
            // Nobody was believed to finish the import, and here we are: this fetch gets one of its own, the same at each
            // of its attempts.
            answer = Begin::Through;
            if let Some(current) = current {
                (import, answer) = (current, begin_for(current).await?);
            }
            if !matches!(answer, Begin::Begun(_)) {
                import = self.import_queue.open_imports(&[opening]).await?[0];
                answer = begin_for(import).await?;
            }
        }
        let Begin::Begun(mut begun) = answer else {
            return Ok(Outcome::Done);
        };
        let address_digest = feed.address_digest();
        if begun.feed.address_digest.as_ref() != Some(&address_digest) {
            begun.feed.forget_address();
        }
        let get = span!(
            "GET",
            otel.kind = "client",
            feed = %feed.name,
            import = %import,
            http.response.status_code = tracing::field::Empty,
            otel.status_code = tracing::field::Empty,
            otel.status_description = tracing::field::Empty,
        );
        let mut end = self.get(feed, task, &begun).instrument(get.clone()).await;
        get.record("http.response.status_code", end.status);
        if let Err(failure) = &end.result {
            get.record("otel.status_code", "ERROR").record("otel.status_description", failure.reason.as_str());
        }
        drop(get);
        end.moved_to = end.moved_to.or_else(|| begun.feed.moved_to.clone());
        let fetch = Fetch { handler: self, feed, address_digest, import, begun: &begun, remember };
        match end.result {
            Ok(Content::NotModified) => fetch.finish_unmodified(end.status, end.moved_to, &end.wishes).await?,
            Ok(Content::Items(read)) => {
                fetch.import_items(read, task.force, end.status, end.moved_to, &end.wishes).await?;
            }
            Err(Failure { reason, next }) => {
                if let Next::RetryAfter(wait) = next
                    && self.is_fetched_by_host
                {
                    tracing::warn!(feed = %feed.name, host = %feed.fetch_group, ?wait, "{reason}: its host is held up");
                    self.fetch_queue.hold_up_group(&feed.fetch_group, wait).await?;
                }
                if is_last || matches!(next, Next::Fail | Next::Stop) {
                    fetch.finish_failed(&reason, end.status, next).await?;
                }
                match next {
                    Next::Retry if !is_last => return Ok(Outcome::Retry(reason)),
                    Next::RetryAfter(wait) if !is_last => return Ok(Outcome::RetryAfter(reason, wait)),
                    Next::Stop => tracing::warn!(
                        target: "feedmill::failed_fetch",
                        queue = %self.fetch_queue.name(), feed = %feed.name, import = %import, error = %reason,
                        "feed {} is gone for good: it is fetched again only when somebody asks for it", feed.name
                    ),
                    Next::Fail | Next::Retry | Next::RetryAfter(_) => tracing::warn!(
                        target: "feedmill::failed_fetch",
                        queue = %self.fetch_queue.name(), feed = %feed.name, import = %import, error = %reason,
                        "fetching feed {} failed; its next slot tries again", feed.name
                    ),
                }
            }
        }
        Ok(Outcome::Done)
    }

    /// A seen map outlives three intervals of its feed, or a monthly feed would be all new each time.
    fn remember_for(&self, feed: &Feed) -> Duration {
        let interval = feed.schedule.as_ref().map(|schedule| {
            let mut last = Timestamp::now();
            let slots = std::iter::from_fn(|| {
                let next = schedule.next_after(last)?;
                let gap = Duration::try_from(next.duration_since(last)).unwrap_or_default();
                last = next;
                Some(gap)
            });
            slots.take(GAPS_LOOKED_AT).max().unwrap_or_default()
        });
        self.remember.max(interval.unwrap_or_default() * 3)
    }

    /// The GET and the parser.
    async fn get(&self, feed: &Feed, task: &FetchTask, begun: &BegunFetch) -> FetchEnd {
        let memory = &begun.feed;
        let moved_to = memory.moved_to.as_ref().and_then(|url| url.parse().ok());
        // After a restart Redis may have lost items whose validators it kept.
        let is_conditional =
            !task.force && !begun.may_have_lost_items() && memory.run_id.as_deref() == Some(&begun.run_id);
        let validators = if is_conditional {
            Validators { etag: memory.etag.clone(), last_modified: memory.last_modified.clone() }
        } else {
            Validators::default()
        };
        let request = FetchRequest {
            url: feed.url.clone(),
            moved_to,
            headers: feed.headers.clone(),
            credentials: feed.credentials.clone(),
            validators,
            allow_private: feed.allow_private,
            proxy: feed.proxy.clone(),
        };
        let asked_at = Instant::now();
        let end = match self.fetcher.fetch(&request).await {
            Ok(Fetched::NotModified { moved_to, fresh_for, .. }) => FetchEnd {
                status: Some(304),
                moved_to: moved_to.map(String::from),
                wishes: Wishes::of(&[], fresh_for),
                result: Ok(Content::NotModified),
            },
            Ok(Fetched::Body { bytes, content_type, validators, final_url, moved_to, fresh_for, status }) => {
                let wishes = Wishes::of(&bytes, fresh_for);
                // A large document takes a while: not on the threads that everything else runs on.
                let (source, name) = (feed.source.clone(), feed.name.clone());
                let room = bytes.room();
                let parsed = tokio::task::spawn_blocking(move || {
                    let hints = Hints {
                        content_type: content_type.as_deref(),
                        base_url: Some(&final_url),
                        is_cut_off: bytes.is_cut_off(),
                    };
                    parse::parse(&bytes, &hints).map(|mut parsed| {
                        let recovered = parsed.recovered.take();
                        let unreadable_dates = parsed.unreadable_dates;
                        let items = parsed.into_items(&source, &name);
                        ReadItems { items, recovered, unreadable_dates, validators, room }
                    })
                })
                .await;
                let result = match parsed {
                    Ok(Ok(read)) => Ok(Content::Items(read)),
                    Ok(Err(error)) => Err(unreadable(feed, &error)),
                    Err(error) => Err(Failure { reason: format!("the parser failed: {error}"), next: Next::Fail }),
                };
                FetchEnd { status: Some(status), moved_to: moved_to.map(String::from), wishes, result }
            }
            Err(error) => FetchEnd {
                status: match &error {
                    FetchError::Status { status, .. } => Some(*status),
                    _ => None,
                },
                moved_to: None,
                wishes: Wishes::default(),
                result: Err(Failure { reason: chain(&error), next: error.next() }),
            },
        };
        FetchMetrics::fetched(end.status, asked_at.elapsed());
        end
    }
}

fn unreadable(feed: &Feed, error: &ParseError) -> Failure {
    Failure { reason: format!("feed {} cannot be read: {}", feed.name, chain(error)), next: Next::Fail }
}

/// What stands between a feed and its schedule after a fetch that did not fail; `interval` is that of `"auto"`.
fn hold_after(interval: Option<Duration>, wishes: &Wishes) -> Hold {
    interval.map_or(Hold::None, |interval| pace::auto(interval, wishes, Timestamp::now(), fastrand::f64()))
}

/// One fetch that has begun.
struct Fetch<'a> {
    handler: &'a FetchFeed,
    feed: &'a Feed,
    /// Of the feed's configured URL.
    address_digest: String,
    import: ImportId,
    begun: &'a BegunFetch,
    remember: Duration,
}

impl Fetch<'_> {
    async fn import_items(
        &self,
        read: ReadItems,
        force: bool,
        status: Option<u16>,
        moved_to: Option<String>,
        wishes: &Wishes,
    ) -> Result<(), QueueError> {
        let ReadItems { items, recovered, unreadable_dates, validators, room } = read;
        // What a mended or empty feed does not show may be there all the same.
        let is_complete = recovered.is_none() && !items.is_empty();
        let n_items = items.len();
        if let Some(recovered) = &recovered {
            tracing::warn!(
                feed = %self.feed.name, import = %self.import, recovered = %recovered,
                "feed {} is not well-formed and was mended: {recovered}", self.feed.name
            );
        }
        if unreadable_dates > 0 {
            tracing::warn!(
                feed = %self.feed.name, import = %self.import, unreadable_dates,
                "{unreadable_dates} dates of feed {} cannot be read; their items have none", self.feed.name
            );
        }
        let map = SeenMap::decode(Some(&self.begun.seen));
        let everything = force || self.begun.may_have_lost_items();
        if everything && !force && !map.is_empty() {
            tracing::warn!(
                feed = %self.feed.name,
                "the queue has lost jobs: every item of feed {} is enqueued once more", self.feed.name
            );
        }
        let group = self.handler.grouping.of_source(&self.feed.source);
        let taking_in = TakeIn {
            queue: &self.handler.import_queue,
            scope: FetchScope {
                feed: &self.feed.name,
                version: self.begun.version,
                import: self.import,
                group: Some(&group),
            },
            payload_max_bytes: self.handler.payload_max_bytes,
        };
        let taken = taking_in.run(items, &map, everything).await?;
        drop(room);
        if taken.is_overtaken {
            tracing::warn!(
                feed = %self.feed.name, import = %self.import,
                "this fetch of feed {} was given up and ends: another one has its import, or it was sealed",
                self.feed.name
            );
            return Ok(());
        }
        let interval = self.interval_after(taken.accepted > 0);
        let hold = hold_after(interval, wishes);
        let leaving = Leaving {
            queue: &self.handler.import_queue,
            store: &self.handler.store,
            feeds: &self.handler.feeds,
            feed: self.feed,
            version: self.begun.version.0,
            import: self.import,
        };
        let shown_elsewhere = leaving.leave(&map.dropped(&taken.shown, is_complete)).await?;
        let may_drop = is_complete && shown_elsewhere.is_some();
        let finished = FinishedFetch {
            hold: hold.to_string(),
            interval,
            seen_bytes: self.begun.seen.len() + seen::RECORD_BYTES * taken.accepted,
            seen: Some(map.compact(&taken.shown, may_drop, self.begun.version.0)),
            losses: Some(self.begun.losses),
            // Hidden behind a 304, what was refused or cut off would not even be tried again.
            validators: if taken.refused.is_empty() && !recovered.as_ref().is_some_and(Recovery::is_cut_off) {
                NewValidators::Set {
                    etag: validators.etag.as_deref().unwrap_or_default(),
                    last_modified: validators.last_modified.as_deref().unwrap_or_default(),
                    run_id: &self.begun.run_id,
                }
            } else {
                NewValidators::Clear
            },
            moved_to: Some(moved_to.as_deref().unwrap_or_default()),
            items: n_items,
            repeated: taken.repeated,
            refused: &taken.refused,
            recovered: recovered.as_ref().map(ToString::to_string),
            ..self.finished()
        };
        let counts = self.handler.import_queue.finish_fetch(&finished).await?;
        self.log(counts, status);
        // The other feed may have dropped them meanwhile, and believed us to show them.
        leaving.leave(&shown_elsewhere.unwrap_or_default()).await?;
        self.go_on(hold).await?;
        self.write_status(status, None, moved_to, hold).await;
        Ok(())
    }

    async fn finish_unmodified(
        &self,
        status: Option<u16>,
        moved_to: Option<String>,
        wishes: &Wishes,
    ) -> Result<(), QueueError> {
        let items = SeenMap::decode(Some(&self.begun.seen)).shown_last();
        let moved = Some(moved_to.as_deref().unwrap_or_default());
        let interval = self.interval_after(false);
        let hold = hold_after(interval, wishes);
        let finished = FinishedFetch { moved_to: moved, items, hold: hold.to_string(), interval, ..self.finished() };
        let counts = self.handler.import_queue.finish_fetch(&finished).await?;
        self.log(counts, status);
        self.go_on(hold).await?;
        self.write_status(status, None, moved_to, hold).await;
        Ok(())
    }

    async fn finish_failed(&self, reason: &str, status: Option<u16>, next: Next) -> Result<(), QueueError> {
        let failures = self.begun.feed.consecutive_failures.saturating_add(1);
        let hold = pace::after_failure(next, status, failures, Timestamp::now(), fastrand::f64());
        let finished = FinishedFetch {
            consecutive_failures: failures,
            hold: hold.to_string(),
            // Where it had moved to may be what fails: the next fetch asks at the configured address again.
            moved_to: Some(""),
            // Those of another address are no good here.
            validators: if self.begun.feed.address_digest.is_none() {
                NewValidators::Clear
            } else {
                NewValidators::Keep
            },
            error: Some(reason),
            ..self.finished()
        };
        self.handler.import_queue.finish_fetch(&finished).await?;
        self.go_on(hold).await?;
        self.write_status(status, Some(reason), None, hold).await;
        Ok(())
    }

    /// The interval of a feed that is fetched as often as it changes.
    fn interval_after(&self, has_news: bool) -> Option<Duration> {
        let is_auto = self.feed.schedule.as_ref().is_some_and(Schedule::is_auto);
        is_auto.then(|| pace::interval_after(self.begun.feed.interval, has_news))
    }

    /// Moves the feed's slot, if it is not that of its schedule, or was not. If we die before that, the hold is remembered
    /// with the feed: the slot is moved by the next fetch, or when a scheduler starts.
    async fn go_on(&self, hold: Hold) -> Result<(), QueueError> {
        if self.feed.schedule.is_none() || (hold == Hold::None && self.begun.feed.hold.is_empty()) {
            return Ok(());
        }
        hold_back(&self.handler.fetch_queue, self.feed, hold).await
    }

    /// A fetch that ends without anything new.
    fn finished(&self) -> FinishedFetch<'_> {
        FinishedFetch {
            feed: &self.feed.name,
            address_digest: &self.address_digest,
            import: self.import,
            version: self.begun.version,
            seen_bytes: self.begun.seen.len(),
            seen: None,
            losses: None,
            remember: self.remember,
            validators: NewValidators::Keep,
            moved_to: None,
            consecutive_failures: 0,
            hold: String::new(),
            interval: None,
            items: 0,
            repeated: 0,
            refused: &[],
            recovered: None,
            error: None,
        }
    }

    fn log(&self, counts: SealedCounts, status: Option<u16>) {
        let SealedCounts { items, new, changed, unchanged, duplicate, .. } = counts;
        FetchMetrics::items(new, changed, unchanged, duplicate);
        tracing::info!(
            feed = %self.feed.name, import = %self.import, status, items, new, changed, unchanged,
            "fetched feed {}", self.feed.name
        );
    }

    /// Writes the state of the feed to MongoDB, waiting for it a while if need be. If we die before that, the state is
    /// written by the next fetch.
    async fn write_status(&self, status: Option<u16>, error: Option<&str>, moved_to: Option<String>, hold: Hold) {
        let now = Timestamp::now();
        let failures = if error.is_some() { self.begun.feed.consecutive_failures.saturating_add(1) } else { 0 };
        let state = FeedStatus {
            name: self.feed.name.clone(),
            url: shown(&self.feed.url),
            source: self.feed.source.clone(),
            last_status: status,
            last_fetch_at: Some(now),
            next_fetch_at: self.feed.due_after(now, hold),
            stopped: hold == Hold::Stopped,
            consecutive_failures: failures,
            last_error: error.map(str::to_owned),
            moved_to: moved_to.filter(|_| error.is_none()).and_then(|url| Some(shown(&url.parse().ok()?))),
        };
        let give_up_at = Instant::now() + STATUS_TIMEOUT;
        while let Err(error) = self.handler.store.upsert_feed(&state, self.begun.version.0).await {
            let gives_up = Instant::now() >= give_up_at || !error.is_outage();
            tracing::warn!(
                feed = %self.feed.name, error = %chain(&error),
                "the state of feed {} could not be written; {}", self.feed.name,
                if gives_up { "its next fetch writes it" } else { "trying again" }
            );
            if gives_up {
                return;
            }
            tokio::time::sleep(STATUS_PAUSE).await;
        }
    }
}
