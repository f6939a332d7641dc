//! What enqueue does with an id, by where its job stands and how new it is; and what the import counts.

use feedmill::{
    job::{EntryId, Envelope, Stored, Version},
    queue::{
        Queue, QueueError, Settled,
        enqueue::{Enqueued, NewJob},
        find::{Found, State},
        settle::{BackOff, Burial},
    },
};
use redis::AsyncCommands;
use std::time::Duration;

use crate::support::{
    audit::assert_sound,
    jobs::{
        Fetch, MAP_HEADER_BYTES, PAYLOAD_MAX, add, add_version, connection, counts, done, id, new_job, queue, read,
        read_one, record,
    },
};
use Enqueued::{Changed, Duplicate, Enqueued as Accepted};

/// Longer than any test: a job that waits this long in backoff comes back only by a change.
const LONG: Duration = Duration::from_hours(1);

async fn found(queue: &Queue, job: &str) -> Found {
    queue.find(&id(job)).await.unwrap().expect("the job lives")
}

async fn state(queue: &Queue, job: &str) -> &'static str {
    found(queue, job).await.state.name()
}

async fn entry(queue: &Queue, job: &str) -> Option<EntryId> {
    found(queue, job).await.job.head.entry
}

/// An item `a` of a first fetch, brought to a place; and a newer fetch of the same feed.
struct Table {
    queue: Queue,
    first: Fetch,
    newer: Fetch,
}

impl Table {
    /// The item waits.
    async fn waiting() -> Self {
        let queue = queue().await;
        let first = Fetch::begin(&queue, "feed").await;
        assert_eq!(first.enqueue(&queue, &["a"]).await.unwrap(), [Accepted]);
        let newer = Fetch::begin(&queue, "feed").await;
        Self { queue, first, newer }
    }

    async fn delayed() -> Self {
        let table = Self::waiting().await;
        let lease = read_one(&table.queue, "worker").await.lease;
        let back_off = BackOff { lease, wait: LONG, reason: Some("no".to_owned()) };
        table.queue.back_off(&[back_off]).await.unwrap();
        assert_eq!(state(&table.queue, "a").await, "delayed");
        table
    }

    async fn dead() -> Self {
        let table = Self::waiting().await;
        let lease = read_one(&table.queue, "worker").await.lease;
        let burial = Burial { lease, reason: "no".to_owned(), exhausted: true, dedup: None };
        table.queue.bury("worker", &[burial]).await.unwrap();
        assert_eq!(state(&table.queue, "a").await, "failed");
        table
    }

    /// Enqueues `a` with another payload, by the newer fetch.
    async fn newer(&self) -> Vec<Enqueued> {
        self.newer.enqueue_payload(&self.queue, &["a"], b"newer").await.unwrap()
    }

    async fn assert_newer_content_at_attempt_one(&self) {
        let found = found(&self.queue, "a").await;
        assert_eq!(found.job.payload(), b"newer");
        assert_eq!(found.job.head.version, self.newer.version);
        assert_eq!(found.job.head.import, Some(self.newer.import));
        assert_eq!((found.job.attempt(), found.failure), (1, None));
    }

    /// Runs the job to its end; it must be there to be read, and counts for the newer import.
    async fn run_newer(&self) {
        let delivery = read_one(&self.queue, "worker").await;
        assert_eq!((delivery.job.payload(), delivery.job.attempt()), (&b"newer"[..], 1));
        let settled = done(&self.queue, [(delivery.lease, Some(Stored::Updated))]).await.unwrap();
        assert_eq!(settled, [Settled::Settled]);
        assert!(self.queue.find(&id("a")).await.unwrap().is_none());
        assert_sound(&self.queue).await;
    }

    async fn assert_counts(&self, first: &[(&str, i64)], newer: &[(&str, i64)]) {
        assert_eq!(self.first.counts(&self.queue).await, counts(first), "of the first import");
        assert_eq!(self.newer.counts(&self.queue).await, counts(newer), "of the newer import");
        assert_sound(&self.queue).await;
    }
}

#[tokio::test]
async fn a_job_that_is_nowhere_is_enqueued_whether_item_or_add() {
    let queue = queue().await;
    let fetch = Fetch::begin(&queue, "feed").await;
    assert_eq!(fetch.enqueue(&queue, &["a", "b", "a"]).await.unwrap(), [Accepted, Accepted, Duplicate]);
    assert_eq!(add(&queue, "c").await, Accepted);
    assert_eq!(add_version(&queue, "d", 7, b"{}").await, Accepted);
    assert_eq!(found(&queue, "d").await.job.head.version, Version(7));
    assert_eq!(fetch.counts(&queue).await, counts(&[("new", 2), ("open", 2), ("duplicate", 1)]));
    assert_sound(&queue).await;
}

#[tokio::test]
async fn an_item_the_feed_knew_counts_as_changed() {
    let queue = queue().await;
    let fetch = Fetch::begin(&queue, "feed").await;
    let scope = feedmill::queue::enqueue::FetchScope {
        feed: "feed",
        version: fetch.version,
        import: fetch.import,
        group: None,
    };
    let item =
        feedmill::queue::enqueue::NewItem { id: id("a"), envelope: Envelope::default(), known: true, record: [0; 16] };
    assert_eq!(queue.enqueue_items(scope, &[item]).await.unwrap().unwrap(), [Accepted]);
    assert_eq!(fetch.counts(&queue).await, counts(&[("changed", 1), ("open", 1)]));
}

/// Leaves the guard of `a`, whose head says `place`, and takes the job itself away.
async fn without_its_job(table: &Table, place: &str) {
    let mut redis = connection(&table.queue).await;
    let keys = table.queue.keys();
    let where_it_stood = entry(&table.queue, "a").await.map(|entry| entry.to_string()).unwrap_or_default();
    let gone: i64 = match place {
        "delayed" => redis.zrem(keys.delayed(), "a").await.unwrap(),
        "failed" => redis.xdel(keys.dead(), &[where_it_stood]).await.unwrap(),
        _ => redis.xdel(keys.stream(), &[where_it_stood]).await.unwrap(),
    };
    assert_eq!(gone, 1);
    assert_eq!(state(&table.queue, "a").await, "unknown");
}

#[tokio::test]
async fn a_guard_in_the_stream_without_a_job_does_not_block_its_id() {
    let table = Table::waiting().await;
    without_its_job(&table, "waiting").await;
    assert_eq!(table.newer().await, [Accepted]);
    table.assert_counts(&[("new", 1), ("superseded", 1)], &[("new", 1), ("open", 1)]).await;
    table.run_newer().await;
}

#[tokio::test]
async fn a_guard_in_backoff_without_a_job_does_not_block_its_id() {
    let table = Table::delayed().await;
    without_its_job(&table, "delayed").await;
    assert_eq!(table.newer().await, [Accepted]);
    table.assert_counts(&[("new", 1), ("superseded", 1)], &[("new", 1), ("open", 1)]).await;
    table.assert_newer_content_at_attempt_one().await;
    table.run_newer().await;
}

#[tokio::test]
async fn a_guard_among_the_dead_without_a_letter_does_not_block_its_id() {
    let table = Table::dead().await;
    without_its_job(&table, "failed").await;
    assert_eq!(table.newer().await, [Accepted]);
    table.assert_counts(&[("new", 1), ("failed", 1), ("failures", 1)], &[("new", 1), ("open", 1)]).await;
    table.assert_newer_content_at_attempt_one().await;
    table.run_newer().await;
}

#[tokio::test]
async fn a_guard_without_a_job_does_not_block_an_older_version_or_a_plain_add() {
    for place in ["waiting", "delayed", "failed"] {
        let table = match place {
            "waiting" => Table::waiting().await,
            "delayed" => Table::delayed().await,
            _ => Table::dead().await,
        };
        without_its_job(&table, place).await;
        assert_eq!(add_version(&table.queue, "a", 1, b"older").await, Accepted, "{place}");
        without_its_job(&table, "waiting").await;
        assert_eq!(add(&table.queue, "a").await, Accepted, "{place}");
        assert_eq!(state(&table.queue, "a").await, "waiting");
        assert_sound(&table.queue).await;
    }
}

#[tokio::test]
async fn a_waiting_job_is_a_duplicate_for_the_same_and_an_older_version() {
    let table = Table::waiting().await;
    let stood = entry(&table.queue, "a").await;
    assert_eq!(add(&table.queue, "a").await, Duplicate);
    assert_eq!(add_version(&table.queue, "a", table.first.version.0, b"same").await, Duplicate);
    assert_eq!(add_version(&table.queue, "a", 1, b"older").await, Duplicate);
    assert_eq!(entry(&table.queue, "a").await, stood);
    assert_eq!(found(&table.queue, "a").await.job.payload(), b"{}");
    table.assert_counts(&[("new", 1), ("open", 1)], &[]).await;
}

#[tokio::test]
async fn a_waiting_job_gets_newer_content_and_keeps_its_place() {
    let table = Table::waiting().await;
    add(&table.queue, "behind").await;
    let stood = entry(&table.queue, "a").await;
    assert_eq!(table.newer().await, [Changed]);
    assert_eq!(entry(&table.queue, "a").await, stood);
    table.assert_newer_content_at_attempt_one().await;
    table.assert_counts(&[("new", 1), ("superseded", 1)], &[("changed", 1), ("open", 1)]).await;
    table.run_newer().await;
}

#[tokio::test]
async fn a_job_in_backoff_is_a_duplicate_for_the_same_and_an_older_version() {
    let table = Table::delayed().await;
    assert_eq!(add(&table.queue, "a").await, Duplicate);
    assert_eq!(add_version(&table.queue, "a", table.first.version.0, b"same").await, Duplicate);
    let found = found(&table.queue, "a").await;
    assert_eq!((found.state.name(), found.job.attempt()), ("delayed", 2));
    assert_eq!(found.failure.expect("it failed").reason, "no");
    table.assert_counts(&[("new", 1), ("open", 1)], &[]).await;
}

#[tokio::test]
async fn a_job_in_backoff_is_due_now_when_its_content_changes() {
    let table = Table::delayed().await;
    assert_eq!(table.newer().await, [Changed]);
    assert_eq!(state(&table.queue, "a").await, "waiting");
    table.assert_newer_content_at_attempt_one().await;
    table.assert_counts(&[("new", 1), ("superseded", 1)], &[("changed", 1), ("open", 1)]).await;
    table.run_newer().await;
}

#[tokio::test]
async fn an_active_job_is_a_duplicate_for_the_same_and_an_older_version() {
    let table = Table::waiting().await;
    let delivery = read_one(&table.queue, "worker").await;
    assert_eq!(add(&table.queue, "a").await, Duplicate);
    assert_eq!(add_version(&table.queue, "a", table.first.version.0, b"same").await, Duplicate);
    assert_eq!(done(&table.queue, [(delivery.lease, Some(Stored::Inserted))]).await.unwrap(), [Settled::Settled]);
    table.assert_counts(&[("new", 1), ("inserted", 1)], &[]).await;
}

#[tokio::test]
async fn an_active_job_whose_content_changes_runs_once_more_after_it_is_done() {
    let table = Table::waiting().await;
    let delivery = read_one(&table.queue, "worker").await;
    assert_eq!(table.newer().await, [Changed]);
    assert_eq!(state(&table.queue, "a").await, "active");
    let settled = done(&table.queue, [(delivery.lease, Some(Stored::Inserted))]).await.unwrap();
    assert_eq!(settled, [Settled::Changed]);
    table.assert_counts(&[("new", 1), ("superseded", 1)], &[("changed", 1), ("open", 1)]).await;
    assert_eq!(table.queue.counts().await.unwrap().totals.get("completed"), None, "nothing is counted");
    table.run_newer().await;
}

#[tokio::test]
async fn an_active_job_whose_content_changes_runs_once_more_after_it_failed() {
    let table = Table::waiting().await;
    let delivery = read_one(&table.queue, "worker").await;
    assert_eq!(table.newer().await, [Changed]);
    let back_off = BackOff { lease: delivery.lease, wait: LONG, reason: Some("no".to_owned()) };
    let (settled, next_due) = table.queue.back_off(&[back_off]).await.unwrap();
    assert_eq!((settled, next_due), (vec![Settled::Changed], None));
    assert_eq!(state(&table.queue, "a").await, "waiting");
    table.assert_newer_content_at_attempt_one().await;
    assert_eq!(table.queue.counts().await.unwrap().totals.get("retried"), None, "nothing is counted");
    table.run_newer().await;
}

#[tokio::test]
async fn an_active_job_whose_content_changes_runs_once_more_instead_of_being_buried() {
    let table = Table::waiting().await;
    let delivery = read_one(&table.queue, "worker").await;
    assert_eq!(table.newer().await, [Changed]);
    let burial = Burial { lease: delivery.lease, reason: "no".to_owned(), exhausted: true, dedup: None };
    assert_eq!(table.queue.bury("worker", &[burial]).await.unwrap(), [Settled::Changed]);
    let now = table.queue.counts().await.unwrap();
    assert_eq!((now.waiting, now.failed, now.totals.get("failed")), (1, 0, None));
    table.assert_newer_content_at_attempt_one().await;
    table.assert_counts(&[("new", 1), ("superseded", 1)], &[("changed", 1), ("open", 1)]).await;
    table.run_newer().await;
}

#[tokio::test]
async fn an_active_job_whose_content_changes_starts_afresh_when_it_is_given_back() {
    let table = Table::waiting().await;
    let delivery = read_one(&table.queue, "worker").await;
    assert_eq!(table.newer().await, [Changed]);
    assert_eq!(table.queue.give_back(&[delivery.lease]).await.unwrap(), [Settled::Settled]);
    table.run_newer().await;
}

#[tokio::test]
async fn a_dead_job_is_a_duplicate_for_an_item_of_the_same_or_an_older_version() {
    let table = Table::dead().await;
    assert_eq!(add_version(&table.queue, "a", table.first.version.0, b"same").await, Duplicate);
    assert_eq!(add_version(&table.queue, "a", 1, b"older").await, Duplicate);
    let found = found(&table.queue, "a").await;
    assert_eq!(found.state, State::Failed { reason: "no".to_owned() });
    assert_eq!(found.job.payload(), b"{}");
    table.assert_counts(&[("new", 1), ("failed", 1), ("failures", 1)], &[]).await;
}

#[tokio::test]
async fn a_dead_job_is_enqueued_at_attempt_one_by_a_newer_version_and_its_letter_goes() {
    let table = Table::dead().await;
    assert_eq!(table.newer().await, [Accepted]);
    assert_eq!(table.queue.dead_letters(None, 10).await.unwrap(), []);
    table.assert_newer_content_at_attempt_one().await;
    table.assert_counts(&[("new", 1), ("failed", 1), ("failures", 1)], &[("new", 1), ("open", 1)]).await;
    table.run_newer().await;
}

#[tokio::test]
async fn a_dead_job_is_taken_over_by_a_plain_add() {
    let table = Table::dead().await;
    assert_eq!(add(&table.queue, "a").await, Accepted);
    assert_eq!(table.queue.dead_letters(None, 10).await.unwrap(), []);
    let found = found(&table.queue, "a").await;
    assert_eq!((found.state.name(), found.job.attempt(), found.failure), ("waiting", 1, None));
    assert_eq!(found.job.head.import, None);
    table.assert_counts(&[("new", 1), ("failed", 1), ("failures", 1)], &[]).await;
}

#[tokio::test]
async fn one_fetch_that_shows_an_item_twice_does_not_replace_it_by_itself() {
    let queue = queue().await;
    let fetch = Fetch::begin(&queue, "feed").await;
    fetch.enqueue(&queue, &["a"]).await;
    assert_eq!(fetch.enqueue_payload(&queue, &["a"], b"other").await.unwrap(), [Duplicate]);
    assert_eq!(found(&queue, "a").await.job.payload(), b"{}");
    assert_eq!(fetch.counts(&queue).await, counts(&[("new", 1), ("open", 1), ("duplicate", 1)]));
}

#[tokio::test]
async fn the_feed_remembers_only_items_that_were_accepted() {
    let queue = queue().await;
    add(&queue, "taken").await;
    let mut redis = connection(&queue).await;
    let () = redis.rpush(queue.keys().job(&id("broken")), "x").await.unwrap();
    let first = Fetch::begin(&queue, "feed").await;
    let results = first.enqueue(&queue, &["a", "broken", "b"]).await.unwrap();
    assert!(matches!(results[..], [Accepted, Enqueued::Refused(_), Accepted]), "{results:?}");
    let seen: Vec<u8> = redis.get(queue.keys().seen("feed")).await.unwrap();
    assert_eq!(seen[..8], crate::support::jobs::MAP_FRONT);
    assert_eq!(seen[8..16], first.version.to_bytes());
    assert_eq!(seen[MAP_HEADER_BYTES..], [record(&id("a")), record(&id("b"))].concat());

    // a duplicate leaves no record: its fetch may be the older one
    assert_eq!(first.enqueue(&queue, &["a"]).await.unwrap(), [Duplicate]);
    let after: Vec<u8> = redis.get(queue.keys().seen("feed")).await.unwrap();
    assert_eq!(after, seen);
    let () = redis.del(queue.keys().job(&id("broken"))).await.unwrap();
    assert_sound(&queue).await;
}

#[tokio::test]
async fn an_older_fetch_enqueues_nothing_once_a_newer_one_has_begun() {
    let queue = queue().await;
    let older = Fetch::begin(&queue, "feed").await;
    let newer = Fetch::begin(&queue, "feed").await;
    assert!(newer.version > older.version);
    assert_eq!(older.enqueue(&queue, &["a"]).await, None);
    assert!(queue.find(&id("a")).await.unwrap().is_none());
    assert_eq!(older.counts(&queue).await, []);
    assert_eq!(newer.enqueue(&queue, &["a"]).await.unwrap(), [Accepted]);
    assert_eq!(Fetch::begin(&queue, "other feed").await.enqueue(&queue, &["b"]).await.unwrap(), [Accepted]);
    assert_sound(&queue).await;
}

#[tokio::test]
async fn an_older_fetch_leaves_the_memory_of_the_feed_to_the_newer_one() {
    let queue = queue().await;
    let older = Fetch::begin(&queue, "feed").await;
    let newer = Fetch::begin(&queue, "feed").await;
    assert!(!older.finish(&queue, 0, MAP_HEADER_BYTES).await.undisturbed);
    assert_eq!(queue.feed_memory("feed").await.unwrap().etag, None);
    assert!(newer.finish(&queue, 0, MAP_HEADER_BYTES).await.undisturbed);
    assert_eq!(queue.feed_memory("feed").await.unwrap().etag.as_deref(), Some("\"1\""));
    assert_sound(&queue).await;
}

#[tokio::test]
async fn an_import_closes_with_its_last_job_and_its_counts_add_up() {
    let queue = queue().await;
    let fetch = Fetch::begin(&queue, "feed").await;
    add(&queue, "lives").await;
    let ids = ["inserted", "updated", "stale", "failed", "lives"];
    fetch.enqueue(&queue, &ids).await;
    let mut reader = queue.reader("worker");
    let active = read(&mut reader, 10).await;
    let lease = |name: &str| active.iter().find(|delivery| delivery.job.id == id(name)).unwrap().lease.clone();
    let sealed = fetch.finish(&queue, 7, MAP_HEADER_BYTES + 4 * 16).await;
    // "lives" was added after the fetch began, so it is as new as the item
    assert_eq!((sealed.items, sealed.unchanged, sealed.new, sealed.changed, sealed.duplicate), (7, 2, 4, 0, 1));
    assert_sound(&queue).await;
    let ended = [
        (lease("inserted"), Some(Stored::Inserted)),
        (lease("updated"), Some(Stored::Updated)),
        (lease("stale"), Some(Stored::Stale)),
        (lease("lives"), None),
    ];
    assert_eq!(done(&queue, ended.clone()).await.unwrap(), [Settled::Settled; 4]);
    assert!(queue.closing_import_ids(10).await.unwrap().is_empty(), "one is open");
    let burial = Burial { lease: lease("failed"), reason: "bad".to_owned(), exhausted: false, dedup: None };
    queue.bury("worker", &[burial]).await.unwrap();
    assert_eq!(queue.closing_import_ids(10).await.unwrap(), [fetch.import]);
    let state = fetch.state(&queue).await;
    assert!(state.closed_at.is_some());
    assert_eq!(state.failures, [("failed".to_owned(), "bad".to_owned())]);
    for name in ["inserted", "updated", "stale", "failed"] {
        assert_eq!(state.count(name), 1, "{name}");
    }
    assert_sound(&queue).await;
    assert!(queue.release_closed_import(fetch.import).await.unwrap());
    assert_eq!(queue.import(fetch.import).await.unwrap(), None);
    assert_sound(&queue).await;
}

#[tokio::test]
async fn a_finished_fetch_is_not_begun_again() {
    let queue = queue().await;
    let fetch = Fetch::begin(&queue, "feed").await;
    fetch.finish(&queue, 0, MAP_HEADER_BYTES).await;
    let opening = feedmill::queue::imports::Opening { feed: "feed", source: "feed", run: "", asked: true };
    let begun = queue.begin_fetch(fetch.import, opening, [0; 8], LONG).await.unwrap();
    assert_eq!(begun, feedmill::queue::feed_memory::Begin::Through);
}

#[tokio::test]
async fn a_key_of_another_type_refuses_its_job_and_not_the_batch() {
    let queue = queue().await;
    let mut redis = connection(&queue).await;
    let () = redis.rpush(queue.keys().job(&id("b")), "x").await.unwrap();
    let jobs = ["a", "b", "c"].map(|name| new_job(&id(name)));
    let results = queue.add(&jobs, PAYLOAD_MAX).await.unwrap();
    let [Accepted, Enqueued::Refused(reason), Accepted] = &results[..] else { panic!("{results:?}") };
    assert!(reason.contains("WRONGTYPE"), "{reason}");
    assert_eq!(queue.counts().await.unwrap().waiting, 2);
}

#[tokio::test]
async fn more_jobs_and_bytes_than_one_call_takes_are_taken_in_in_order() {
    let queue = queue().await;
    let payload = vec![b'x'; 200 * 1024];
    let jobs: Vec<NewJob<'_>> = (0..600)
        .map(|n| {
            let payload = if n % 100 == 0 { &payload[..] } else { b"{}" };
            NewJob::new(id(format!("{n}")), Envelope { payload, ..Envelope::default() })
        })
        .collect();
    assert_eq!(queue.add(&jobs, PAYLOAD_MAX).await.unwrap(), vec![Accepted; 600]);
    let mut reader = queue.reader("worker");
    let mut order = Vec::new();
    while order.len() < 600 {
        order.extend(read(&mut reader, 256).await.into_iter().map(|delivery| delivery.job.id));
    }
    assert_eq!(order, jobs.into_iter().map(|job| job.id).collect::<Vec<_>>());
    assert_sound(&queue).await;
}

#[tokio::test]
async fn a_payload_over_the_limit_is_refused_before_anything_is_sent() {
    let queue = queue().await;
    let mut large = new_job(&id("large"));
    large.envelope.payload = b"0123456789";
    let error = queue.add(&[new_job(&id("small")), large], 9).await.expect_err("10 bytes are more than 9");
    assert!(matches!(error, QueueError::PayloadTooLarge { bytes: 10, limit_bytes: 9, .. }), "{error}");
    assert_eq!(queue.counts().await.unwrap().waiting, 0);
}

#[tokio::test]
async fn ids_of_any_bytes_up_to_four_kib_go_through_the_whole_road() {
    let queue = queue().await;
    let ids =
        [id("https://jobicy.com/?feed=job_feed#12345"), id([0, 0xff, b'\n', b'{', b'}', b':']), id(vec![0xFE; 4096])];
    for job in &ids {
        assert_eq!(add(&queue, job.as_bytes()).await, Accepted);
        assert_eq!(add(&queue, job.as_bytes()).await, Duplicate);
        let lease = read_one(&queue, "worker").await.lease;
        assert_eq!(&lease.id, job);
        let back_off = BackOff { lease, wait: Duration::ZERO, reason: Some("no".to_owned()) };
        queue.back_off(&[back_off]).await.unwrap();
        assert_eq!(queue.promote().await.unwrap().moved, 1);
        let lease = read_one(&queue, "worker").await.lease;
        queue.bury("worker", &[Burial { lease, reason: "no".to_owned(), exhausted: true, dedup: None }]).await.unwrap();
        let letters = queue.dead_letters(None, 10).await.unwrap();
        assert_eq!(letters[0].id.as_ref(), Some(job));
        assert_eq!(queue.redrive(&letters).await.unwrap().redriven, 1);
        assert_sound(&queue).await;
        let lease = read_one(&queue, "worker").await.lease;
        assert_eq!(done(&queue, [(lease, None)]).await.unwrap(), [Settled::Settled]);
    }
    assert_sound(&queue).await;
}
