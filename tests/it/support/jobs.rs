//! Builders: queues under a prefix of their own, jobs, fetches that enqueue items, and reads.

use std::{collections::HashMap, time::Duration};

use feedmill::{
    job::{Envelope, ImportId, JobId, Keep, Stored, Version},
    queue::{
        Events, Queue, QueueError, QueueOptions, Redis, Settled,
        enqueue::{Enqueued, FetchScope, NewItem, NewJob},
        feed_memory::{Begin, FinishedFetch, NewValidators, SealedCounts},
        imports::{ImportState, Opening},
        read::{Delivery, Entry, Lease, Reader},
        settle::Done,
    },
};
use redis::aio::MultiplexedConnection;

use super::{
    redis_prefix,
    servers::{OwnRedis, SharedServers},
    wait::until,
};

/// Above any payload of a test.
pub(crate) const PAYLOAD_MAX: usize = 1 << 20;
/// Long compared with a test.
pub(crate) const REMEMBER: Duration = Duration::from_mins(5);
/// Begins a seen map; what the bytes mean does not matter to a queue.
pub(crate) const MAP_FRONT: [u8; 8] = [0xF1, 0, 0, 0, 0, 0, 0, 0];
/// Length of a seen map without records.
pub(crate) const MAP_HEADER_BYTES: usize = 16;

/// A queue on the shared Redis that no other test uses.
pub(crate) async fn queue() -> Queue {
    queue_at(&SharedServers::of_this_run().redis_url()).await
}

/// As [`queue`], on the server of this address.
pub(crate) async fn queue_at(url: &str) -> Queue {
    queue_under(url, &redis_prefix()).await
}

/// A queue under a prefix that is in use already, as another process would open it.
pub(crate) async fn queue_under(url: &str, prefix: &str) -> Queue {
    let redis = Redis::connect(url, prefix).await.unwrap();
    Queue::open(&redis, "jobs", Events::Failures).await.unwrap()
}

/// A queue on the shared Redis with options of its own.
pub(crate) async fn queue_with(options: QueueOptions) -> Queue {
    queue_at_with(&SharedServers::of_this_run().redis_url(), options).await
}

/// As [`queue_with`], on the server of this address.
pub(crate) async fn queue_at_with(url: &str, options: QueueOptions) -> Queue {
    let redis = Redis::connect(url, &redis_prefix()).await.unwrap();
    Queue::open(&redis, "jobs", options).await.unwrap()
}

/// A queue once more, with connections of its own, as a process with these options opens it.
pub(crate) async fn as_another_process(queue: &Queue, options: QueueOptions) -> Queue {
    let redis = Redis::connect(&format!("redis://{}", queue.redis().address()), queue.redis().prefix()).await.unwrap();
    Queue::open(&redis, queue.name(), options).await.unwrap()
}

/// Options of a queue with a window for each group.
pub(crate) fn window(jobs: u32) -> QueueOptions {
    QueueOptions { group_window: Some(jobs), ..QueueOptions::default() }
}

/// A connection of its own to the server of a queue, to look at and to break what is there.
pub(crate) async fn connection(queue: &Queue) -> MultiplexedConnection {
    let client = redis::Client::open(format!("redis://{}", queue.redis().address())).unwrap();
    // Half a second unless said: less than a loaded machine may take.
    let patient = redis::AsyncConnectionConfig::new().set_response_timeout(Some(Duration::from_secs(30)));
    client.get_multiplexed_async_connection_with_config(&patient).await.unwrap()
}

pub(crate) fn id(bytes: impl AsRef<[u8]>) -> JobId {
    JobId::new(bytes).unwrap()
}

pub(crate) fn new_job(job: &JobId) -> NewJob<'static> {
    NewJob::new(job.clone(), Envelope { payload: b"{}", ..Envelope::default() })
}

/// Ends jobs as done, each with what its write did.
pub(crate) async fn done(
    queue: &Queue,
    jobs: impl IntoIterator<Item = (Lease, Option<Stored>)>,
) -> Result<Vec<Settled>, QueueError> {
    let jobs: Vec<Done> = jobs.into_iter().map(|(lease, stored)| Done { stored, ..Done::new(lease) }).collect();
    queue.done(&jobs, Keep::Nothing).await
}

/// Adds a job without a version, as any producer does.
pub(crate) async fn add(queue: &Queue, job: impl AsRef<[u8]>) -> Enqueued {
    queue.add(&[new_job(&id(job))], PAYLOAD_MAX).await.unwrap().remove(0)
}

/// Adds many jobs of the names `<name>-0`, `<name>-1` …
pub(crate) async fn add_many(queue: &Queue, name: &str, jobs: usize) -> Vec<JobId> {
    let ids: Vec<JobId> = (0..jobs).map(|n| id(format!("{name}-{n}"))).collect();
    let new: Vec<NewJob<'_>> = ids.iter().map(new_job).collect();
    assert_eq!(queue.add(&new, PAYLOAD_MAX).await.unwrap(), vec![Enqueued::Enqueued; jobs]);
    ids
}

/// Adds jobs of a group, named `<group>-0`, `<group>-1` …
pub(crate) async fn add_to_group(queue: &Queue, group: &str, jobs: usize) -> Vec<JobId> {
    let ids: Vec<JobId> = (0..jobs).map(|n| id(format!("{group}-{n}"))).collect();
    let new: Vec<NewJob<'_>> = ids.iter().map(|id| NewJob { group: Some(group), ..new_job(id) }).collect();
    assert_eq!(queue.add(&new, PAYLOAD_MAX).await.unwrap(), vec![Enqueued::Enqueued; jobs]);
    ids
}

/// Adds a job with a priority.
pub(crate) async fn add_prioritized(queue: &Queue, job: impl AsRef<[u8]>, priority: u32) -> Enqueued {
    let job = NewJob { priority, ..new_job(&id(job)) };
    queue.add(&[job], PAYLOAD_MAX).await.unwrap().remove(0)
}

/// Adds a job with a version and a payload of its own.
pub(crate) async fn add_version(queue: &Queue, job: &str, version: u64, payload: &[u8]) -> Enqueued {
    let envelope = Envelope { payload, ..Envelope::default() };
    let job = NewJob { version: Some(Version(version)), ..NewJob::new(id(job), envelope) };
    queue.add(&[job], PAYLOAD_MAX).await.unwrap().remove(0)
}

/// A fetch of a feed that has begun: what enqueues items.
#[derive(Clone, Debug)]
pub(crate) struct Fetch {
    pub(crate) feed: String,
    pub(crate) version: Version,
    pub(crate) import: ImportId,
    pub(crate) run_id: String,
}

impl Fetch {
    /// Opens an import and begins its fetch.
    pub(crate) async fn begin(queue: &Queue, feed: &str) -> Self {
        let opening = Opening { feed, source: feed, run: "", asked: true };
        let import = queue.open_imports(&[opening]).await.unwrap().remove(0);
        let Begin::Begun(begun) = queue.begin_fetch(import, opening, MAP_FRONT, REMEMBER).await.unwrap() else {
            panic!("the import is new");
        };
        Self { feed: feed.to_owned(), version: begun.version, import, run_id: begun.run_id.clone() }
    }

    /// Enqueues items with these ids, new to the feed; `None` when a newer fetch has begun.
    pub(crate) async fn enqueue(&self, queue: &Queue, ids: &[&str]) -> Option<Vec<Enqueued>> {
        self.enqueue_payload(queue, ids, b"{}").await
    }

    pub(crate) async fn enqueue_payload(&self, queue: &Queue, ids: &[&str], payload: &[u8]) -> Option<Vec<Enqueued>> {
        let scope =
            FetchScope { feed: &self.feed, version: self.version, import: self.import, group: Some(&self.feed) };
        let items: Vec<NewItem<'_>> = ids
            .iter()
            .map(|item| NewItem {
                id: id(item),
                envelope: Envelope { payload, feed: Some(&self.feed), ..Envelope::default() },
                known: false,
                record: record(&id(item)),
            })
            .collect();
        queue.enqueue_items(scope, &items).await.unwrap()
    }

    /// Ends the fetch as complete, with so many items shown, and seals its import.
    pub(crate) async fn finish(&self, queue: &Queue, items: usize, seen_bytes: usize) -> SealedCounts {
        let finished = FinishedFetch {
            hold: String::new(),
            interval: None,
            feed: &self.feed,
            address_digest: "http://feed.invalid/",
            import: self.import,
            version: self.version,
            seen_bytes,
            seen: None,
            remember: REMEMBER,
            losses: Some(0),
            validators: NewValidators::Set { etag: "\"1\"", last_modified: "", run_id: &self.run_id },
            moved_to: None,
            consecutive_failures: 0,
            items,
            repeated: 0,
            refused: &[],
            recovered: None,
            error: None,
        };
        queue.finish_fetch(&finished).await.unwrap()
    }

    /// What the import counts now; everything that is 0 is left out.
    pub(crate) async fn counts(&self, queue: &Queue) -> Vec<(String, i64)> {
        let mut counts: Vec<(String, i64)> =
            self.state(queue).await.counts.into_iter().filter(|(_, count)| *count != 0).collect();
        counts.sort();
        counts
    }

    pub(crate) async fn state(&self, queue: &Queue) -> ImportState {
        queue.import(self.import).await.unwrap().expect("not released yet")
    }
}

/// Counts as [`Fetch::counts`] says them.
pub(crate) fn counts(wanted: &[(&str, i64)]) -> Vec<(String, i64)> {
    let mut wanted: Vec<(String, i64)> = wanted.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect();
    wanted.sort();
    wanted
}

/// The record that an item gets in the seen map of its feed.
pub(crate) fn record(job: &JobId) -> [u8; 16] {
    feedmill::feed::seen::record(
        feedmill::feed::seen::Digest::of(job.as_bytes()),
        feedmill::feed::fingerprint::Fingerprint([1; 7]),
    )
}

/// The record by which the feed forgets it.
pub(crate) fn forget_record(job: &JobId) -> [u8; 16] {
    feedmill::feed::seen::forget_record(feedmill::feed::seen::Digest::of(job.as_bytes()))
}

/// Reads up to `count` entries that wait, without blocking; all must be jobs.
pub(crate) async fn read(reader: &mut Reader, count: usize) -> Vec<Delivery> {
    let entries = reader.read(count, None).await.unwrap().entries;
    entries
        .into_iter()
        .map(|entry| match entry {
            Entry::Job(delivery) => *delivery,
            other => panic!("not a job: {other:?}"),
        })
        .collect()
}

/// Reads one job that must be there, for a consumer of this name.
pub(crate) async fn read_one(queue: &Queue, consumer: &str) -> Delivery {
    let mut read = read(&mut queue.reader(consumer), 1).await;
    read.pop().expect("a job waits")
}

/// How often each command was called on the server of a queue, those within scripts included.
pub(crate) async fn calls(queue: &Queue) -> HashMap<String, i64> {
    let mut redis = connection(queue).await;
    let stats: String = redis::cmd("INFO").arg("commandstats").query_async(&mut redis).await.unwrap();
    let call = |line: &str| {
        let (name, rest) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
        Some((name.to_owned(), rest.split(',').next()?.parse().ok()?))
    };
    stats.lines().filter_map(call).collect()
}

/// How often Redis refused this command to a user that may not send it.
pub(crate) async fn rejected_calls(queue: &Queue, command: &str) -> u64 {
    let mut info = redis::cmd("INFO");
    let text: String = info.arg("commandstats").query_async(&mut connection(queue).await).await.unwrap();
    let line = text.lines().find(|line| line.starts_with(&format!("cmdstat_{command}:")));
    let calls = line.and_then(|line| line.split("rejected_calls=").nth(1)?.split(',').next());
    calls.map_or(0, |calls| calls.parse().unwrap())
}

/// Lets the user `worker` do everything, but for this rule (`-mget`: all but that), and returns the address with it.
pub(crate) async fn url_of_user_with(server: &OwnRedis, rule: &str) -> String {
    let client = redis::Client::open(server.url()).unwrap();
    let mut redis = client.get_multiplexed_async_connection().await.unwrap();
    let mut acl = redis::cmd("ACL");
    acl.arg(&["SETUSER", "worker", "on", ">secret", "~*", "+@all", rule]);
    acl.query_async::<()>(&mut redis).await.unwrap();
    server.url().replace("redis://", "redis://worker:secret@")
}

/// Waits until the one reader of a server of its own blocks.
pub(crate) async fn wait_until_blocked(server: &OwnRedis) {
    let client = redis::Client::open(server.url()).unwrap();
    let redis = client.get_multiplexed_async_connection().await.unwrap();
    until(Duration::from_secs(5), async || {
        let info: String = redis::cmd("INFO").arg("clients").query_async(&mut redis.clone()).await.unwrap();
        info.contains("blocked_clients:1")
    })
    .await;
}
