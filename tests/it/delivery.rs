//! From waiting to active and out again: what a read makes of an entry, and who may settle it.

use std::{
    collections::BTreeMap,
    time::{Duration, UNIX_EPOCH},
};

use feedmill::{
    job::{EntryId, Envelope, Place, Stored, Version},
    queue::{
        Queue, Settled,
        claim::ClaimLimits,
        enqueue::Enqueued,
        find::State,
        read::{Adopted, Delivery, Entry, Lease, PlainEntry, UnreadableEntry},
        settle::{BackOff, Burial},
    },
};
use redis::{
    AsyncCommands,
    aio::MultiplexedConnection,
    streams::{StreamReadOptions, StreamReadReply},
};

use crate::support::{
    audit::{assert_sound, audit, scan},
    jobs::{
        Fetch, add, add_many, add_version, connection, counts, done, id, queue, queue_at, read, read_one,
        wait_until_blocked,
    },
    servers::OwnRedis,
    wait::until,
};

/// Entries count as stalled as soon as they are pending.
const AT_ONCE: ClaimLimits =
    ClaimLimits { lock_duration: Duration::ZERO, stalled_interval: Duration::from_millis(1), max_stalled_count: 9 };
/// A wait that is long compared with a test.
const LONG: Duration = Duration::from_hours(1);

/// Every key of a queue with its value, but for the one that only says who swept last and expires.
async fn all_values(queue: &Queue) -> BTreeMap<String, Vec<u8>> {
    let mut redis = connection(queue).await;
    let mut values = BTreeMap::new();
    for key in scan(&mut redis, queue.redis().prefix()).await {
        let dumped: Option<Vec<u8>> = redis::cmd("DUMP").arg(&key).query_async(&mut redis).await.unwrap();
        let key = String::from_utf8_lossy(&key).into_owned();
        if key != queue.keys().sweep() {
            values.insert(key, dumped.unwrap_or_default());
        }
    }
    values
}

/// The letters that a dead-letter stream holds, as `(id, reason)`.
async fn letters(queue: &Queue) -> Vec<(Option<String>, String)> {
    let letters = queue.dead_letters(None, 100).await.unwrap();
    letters.into_iter().map(|letter| (letter.id.map(|id| id.to_string()), letter.reason)).collect()
}

async fn xadd(redis: &mut MultiplexedConnection, queue: &Queue, fields: &[(&[u8], &[u8])]) -> EntryId {
    let entry: String = redis.xadd(queue.keys().stream(), "*", fields).await.unwrap();
    entry.parse().unwrap()
}

async fn read_entries(queue: &Queue) -> Vec<Entry> {
    queue.reader("worker").read(100, None).await.unwrap().entries
}

/// Reads, and does with what cannot be a job what the worker does.
async fn read_and_bury(queue: &Queue) -> Vec<Delivery> {
    let mut deliveries = Vec::new();
    for entry in read_entries(queue).await {
        match entry {
            Entry::Job(delivery) => deliveries.push(*delivery),
            Entry::Unreadable(unreadable) => {
                queue.bury_entry("worker", &unreadable).await.unwrap();
            }
            Entry::Plain(plain) => panic!("nobody adds {plain:?}"),
        }
    }
    deliveries
}

fn back_off(lease: Lease, wait: Duration) -> BackOff {
    BackOff { lease, wait, reason: Some("no".to_owned()) }
}

fn burial(lease: Lease) -> Burial {
    Burial { lease, reason: "no".to_owned(), exhausted: true, dedup: None }
}

#[tokio::test]
async fn a_job_is_delivered_once_in_the_order_of_arrival() {
    let queue = queue().await;
    let ids = add_many(&queue, "job", 5).await;
    let mut read_ids = Vec::new();
    for consumer in ["one", "other", "one", "other", "one"] {
        read_ids.push(read_one(&queue, consumer).await.job.id);
    }
    assert_eq!(read_ids, ids);
    assert!(read_entries(&queue).await.is_empty());
    assert_eq!(queue.counts().await.unwrap().active, 5);
    assert_sound(&queue).await;
}

#[tokio::test]
async fn another_group_on_the_stream_stops_nothing_and_is_named() {
    let queue = queue().await;
    let stream = queue.keys().stream();
    let mut redis = connection(&queue).await;
    // by name before and after ours
    for group in ["another", "zebra"] {
        let () = redis.xgroup_create(stream, group, 0).await.unwrap();
    }
    assert_eq!(queue.other_groups().await.unwrap(), ["another", "zebra"]);
    let ids = add_many(&queue, "job", 3).await;
    let options = StreamReadOptions::default().group("another", "somebody").count(2);
    let theirs: StreamReadReply = redis.xread_options(&[stream], &[">"], &options).await.unwrap();
    assert_eq!(theirs.keys[0].ids.len(), 2);
    let first = read_one(&queue, "worker").await;
    assert_eq!(first.job.id, ids[0]);
    let now = queue.counts().await.unwrap();
    assert_eq!((now.waiting, now.active), (2, 1), "what others have read is not active");
    assert!(queue.pause().await.unwrap() && read_entries(&queue).await.is_empty());
    assert!(queue.resume().await.unwrap());
    let rest = read_and_bury(&queue).await;
    assert_eq!(rest.iter().map(|delivery| &delivery.job.id).collect::<Vec<_>>(), [&ids[1], &ids[2]]);
    let leases: Vec<_> = rest.into_iter().chain([first]).map(|delivery| (delivery.lease, None)).collect();
    assert_eq!(done(&queue, leases).await.unwrap(), [Settled::Settled; 3]);
    assert!(queue.counts().await.unwrap().is_idle());
}

#[tokio::test]
async fn done_twice_is_lost_the_second_time_and_counted_once() {
    let queue = queue().await;
    let fetch = Fetch::begin(&queue, "feed").await;
    fetch.enqueue(&queue, &["a", "b"]).await;
    let lease = read_one(&queue, "worker").await.lease;
    let ended = [(lease.clone(), Some(Stored::Inserted)), (lease, Some(Stored::Inserted))];
    assert_eq!(done(&queue, ended[..1].to_vec()).await.unwrap(), [Settled::Settled]);
    assert_eq!(done(&queue, ended.clone()).await.unwrap(), [Settled::Lost, Settled::Lost]);
    assert_eq!(fetch.counts(&queue).await, counts(&[("new", 2), ("open", 1), ("inserted", 1)]));
    assert_eq!(queue.counts().await.unwrap().totals["completed"], 1);
    assert_sound(&queue).await;
}

#[tokio::test]
async fn settles_that_are_repeated_because_their_answer_was_lost_do_nothing() {
    let queue = queue().await;
    add_many(&queue, "job", 3).await;
    let leases: Vec<Lease> =
        read(&mut queue.reader("worker"), 3).await.into_iter().map(|delivery| delivery.lease).collect();
    let again = [Settled::Settled, Settled::Lost];
    for wanted in again {
        assert_eq!(queue.back_off(&[back_off(leases[0].clone(), LONG)]).await.unwrap().0, [wanted]);
        assert_eq!(queue.bury("worker", &[burial(leases[1].clone())]).await.unwrap(), [wanted]);
        assert_eq!(queue.give_back(&leases[2..]).await.unwrap(), [wanted]);
    }
    let now = queue.counts().await.unwrap();
    assert_eq!((now.delayed, now.failed, now.waiting, now.active), (1, 1, 1, 0));
    assert_eq!((now.totals["retried"], now.totals["failed"]), (1, 1));
    assert_sound(&queue).await;
}

#[tokio::test]
async fn whatever_a_zombie_says_is_lost_and_touches_nothing() {
    let queue = queue().await;
    let fetch = Fetch::begin(&queue, "feed").await;
    fetch.enqueue(&queue, &["a"]).await;
    let zombie = read_one(&queue, "zombie").await.lease;
    assert_eq!(queue.sweeper("other", AT_ONCE).sweep().await.unwrap().waiting, 1);
    // once while it waits again, once while somebody else works on it
    for _ in 0..2 {
        let before = all_values(&queue).await;
        assert_eq!(done(&queue, [(zombie.clone(), Some(Stored::Inserted))]).await.unwrap(), [Settled::Lost]);
        assert_eq!(queue.back_off(&[back_off(zombie.clone(), LONG)]).await.unwrap(), (vec![Settled::Lost], None));
        assert_eq!(queue.bury("zombie", &[burial(zombie.clone())]).await.unwrap(), [Settled::Lost]);
        assert_eq!(queue.give_back(std::slice::from_ref(&zombie)).await.unwrap(), [Settled::Lost]);
        assert_eq!(queue.renew("zombie", std::slice::from_ref(&zombie)).await.unwrap(), std::slice::from_ref(&zombie));
        let lost = UnreadableEntry {
            lane: Place::Stream,
            entry: zombie.entry,
            id: None,
            reason: "no".to_owned(),
            raw: Vec::new(),
        };
        assert_eq!(queue.bury_entry("zombie", &lost).await.unwrap(), Settled::Lost);
        let after = all_values(&queue).await;
        let touched: Vec<&String> = before.keys().filter(|key| before.get(*key) != after.get(*key)).collect();
        assert_eq!((touched, after.len()), (vec![], before.len()));
        if queue.counts().await.unwrap().active == 0 {
            assert_eq!(read_one(&queue, "heir").await.lease.id, id("a"));
        }
    }
    assert_sound(&queue).await;
}

#[tokio::test]
async fn a_batch_is_settled_job_by_job() {
    let queue = queue().await;
    add_many(&queue, "job", 3).await;
    let leases: Vec<Lease> =
        read(&mut queue.reader("worker"), 3).await.into_iter().map(|delivery| delivery.lease).collect();
    let mut redis = connection(&queue).await;
    let key = queue.keys().job(&leases[1].id);
    let () = redis.del(&key).await.unwrap();
    let () = redis.rpush(&key, "x").await.unwrap();
    let ended: Vec<_> = leases.iter().map(|lease| (lease.clone(), None)).collect();
    assert_eq!(done(&queue, ended.clone()).await.unwrap(), [Settled::Settled, Settled::Lost, Settled::Settled]);
    assert_eq!(queue.renew("worker", &leases).await.unwrap(), leases, "nothing is held any more");
    let back_offs: Vec<_> = leases.iter().map(|lease| back_off(lease.clone(), LONG)).collect();
    assert_eq!(queue.back_off(&back_offs).await.unwrap().0, [Settled::Lost; 3]);
    let burials: Vec<_> = leases.iter().map(|lease| burial(lease.clone())).collect();
    assert_eq!(queue.bury("worker", &burials).await.unwrap(), [Settled::Lost; 3]);
    assert_eq!(queue.give_back(&leases).await.unwrap(), [Settled::Lost; 3]);
}

#[tokio::test]
async fn more_leases_than_one_call_takes_are_settled_in_order() {
    let queue = queue().await;
    add_many(&queue, "job", 300).await;
    let leases: Vec<Lease> =
        read(&mut queue.reader("worker"), 300).await.into_iter().map(|delivery| delivery.lease).collect();
    assert_eq!(leases.len(), 300);
    assert_eq!(queue.renew("worker", &leases).await.unwrap(), []);
    assert_eq!(queue.give_back(&leases).await.unwrap(), vec![Settled::Settled; 300]);
    assert_sound(&queue).await;
    let leases: Vec<Lease> =
        read(&mut queue.reader("worker"), 300).await.into_iter().map(|delivery| delivery.lease).collect();
    let ended: Vec<_> = leases.into_iter().map(|lease| (lease, None)).collect();
    assert_eq!(done(&queue, ended.clone()).await.unwrap(), vec![Settled::Settled; 300]);
    assert_sound(&queue).await;
}

#[tokio::test]
async fn a_renewed_lease_counts_as_just_delivered() {
    let queue = queue().await;
    add(&queue, "a").await;
    let lease = read_one(&queue, "worker").await.lease;
    let limits = ClaimLimits { lock_duration: Duration::from_millis(100), ..AT_ONCE };
    let mut sweeper = queue.sweeper("other", limits);
    for _ in 0..10 {
        tokio::time::sleep(Duration::from_millis(20)).await; // ten times: twice the lock duration
        assert_eq!(queue.renew("worker", std::slice::from_ref(&lease)).await.unwrap(), []);
        assert!(sweeper.sweep().await.unwrap().stalled.is_empty());
    }
    until(Duration::from_secs(5), async || queue.sweeper("x", limits).sweep().await.unwrap().waiting == 1).await;
    assert_eq!(done(&queue, [(lease, None)]).await.unwrap(), [Settled::Lost]);
}

#[tokio::test]
async fn a_job_whose_payload_is_lost_becomes_a_dead_letter_and_its_neighbours_are_delivered() {
    let queue = queue().await;
    for job in ["a", "lost", "b"] {
        add(&queue, job).await;
    }
    let () = connection(&queue).await.del(queue.keys().job(&id("lost"))).await.unwrap();
    let delivered: Vec<_> = read_and_bury(&queue).await.into_iter().map(|delivery| delivery.job.id).collect();
    assert_eq!(delivered, [id("a"), id("b")]);
    assert_eq!(letters(&queue).await, [(Some("lost".to_owned()), "payload lost".to_owned())]);
    assert_eq!(queue.counts().await.unwrap().totals["failed"], 1);
    assert_sound(&queue).await;
    // the letter does not stand in the way of the next job with its id
    assert_eq!(add(&queue, "lost").await, Enqueued::Enqueued);
    assert_sound(&queue).await;
}

#[tokio::test]
async fn a_key_of_another_type_costs_its_own_job_and_not_the_batch() {
    let queue = queue().await;
    for job in ["a", "broken", "b"] {
        add(&queue, job).await;
    }
    let mut redis = connection(&queue).await;
    let () = redis.del(queue.keys().job(&id("broken"))).await.unwrap();
    let () = redis.rpush(queue.keys().job(&id("broken")), "x").await.unwrap();
    assert_eq!(read_and_bury(&queue).await.len(), 2);
    assert_eq!(letters(&queue).await.len(), 1);
    assert!(queue.find(&id("broken")).await.unwrap().is_none());
    let retention = feedmill::queue::dead_letter::Retention { count: Some(0), age: None };
    let forget = |_: &feedmill::job::JobId| [0; 16];
    let discarded = queue.retain_dead_letters(retention, std::time::SystemTime::now(), forget).await.unwrap();
    assert_eq!(discarded, 1);
}

#[tokio::test]
async fn a_job_with_a_damaged_envelope_is_buried_with_its_guard_and_counted() {
    let queue = queue().await;
    let fetch = Fetch::begin(&queue, "feed").await;
    fetch.enqueue(&queue, &["damaged", "b"]).await;
    let mut redis = connection(&queue).await;
    let () = redis.setrange(queue.keys().job(&id("damaged")), 30, b"\xc1\xc1\xc1").await.unwrap();
    assert_eq!(read_and_bury(&queue).await.len(), 1);
    let letters = letters(&queue).await;
    assert_eq!(letters.len(), 1, "{letters:?}");
    assert_eq!(letters[0].0.as_deref(), Some("damaged"));
    assert!(letters[0].1.contains("envelope"), "{letters:?}");
    let counts = fetch.counts(&queue).await;
    assert_eq!(counts, crate::support::jobs::counts(&[("new", 2), ("open", 1), ("failed", 1), ("failures", 1)]));
    assert_sound(&queue).await;
    // a change of the item brings it back
    let newer = Fetch::begin(&queue, "feed").await;
    assert_eq!(newer.enqueue(&queue, &["damaged"]).await.unwrap(), [Enqueued::Enqueued]);
    assert_eq!(read_and_bury(&queue).await.len(), 1);
    assert_sound(&queue).await;
}

#[tokio::test]
async fn a_guard_that_is_cut_short_is_a_lost_payload() {
    let queue = queue().await;
    add(&queue, "short").await;
    let mut redis = connection(&queue).await;
    let () = redis.set(queue.keys().job(&id("short")), "s").await.unwrap();
    assert!(read_and_bury(&queue).await.is_empty());
    let letters = letters(&queue).await;
    assert_eq!(letters[0].0.as_deref(), Some("short"));
    assert!(letters[0].1.contains("shorter than a head"), "{letters:?}");
    assert_eq!(add(&queue, "short").await, Enqueued::Enqueued);
    assert_sound(&queue).await;
}

#[tokio::test]
async fn a_leftover_entry_whose_job_stands_elsewhere_is_dropped() {
    let queue = queue().await;
    add(&queue, "a").await;
    let mut redis = connection(&queue).await;
    xadd(&mut redis, &queue, &[(b"id", b"a")]).await;
    assert!(audit(&queue).await.is_err(), "the audit sees the leftover");
    assert_eq!(read_and_bury(&queue).await.len(), 1);
    assert!(letters(&queue).await.is_empty());
    assert_eq!(queue.counts().await.unwrap().active, 1);
    assert_sound(&queue).await;
}

#[tokio::test]
async fn entries_that_name_no_job_become_dead_letters_with_what_there_is() {
    let queue = queue().await;
    let mut redis = connection(&queue).await;
    xadd(&mut redis, &queue, &[(b"", b"")]).await;
    xadd(&mut redis, &queue, &[(b"colour", b"blue"), (b"size", b"\xff")]).await;
    xadd(&mut redis, &queue, &[(b"id", b"")]).await;
    xadd(&mut redis, &queue, &[(b"id", &[b'x'; 4097])]).await;
    add(&queue, "a").await;
    assert_eq!(read_and_bury(&queue).await.len(), 1);
    let letters = queue.dead_letters(None, 10).await.unwrap();
    let reasons: Vec<&str> = letters.iter().map(|letter| letter.reason.as_str()).collect();
    assert_eq!(
        reasons,
        [
            "an entry with neither an id nor json",
            "an entry with neither an id nor json",
            "a job id must not be empty",
            "a job id of 4097 bytes is too long; at most 4096 are accepted"
        ]
    );
    assert!(letters.iter().all(|letter| letter.id.is_none()));
    assert!(letters[1].raw.as_ref().unwrap().windows(4).any(|part| part == b"blue"));
    assert_eq!(letters[3].raw.as_ref().unwrap().len(), 4097);
    assert_sound(&queue).await;
}

#[tokio::test]
async fn entries_that_name_no_job_are_buried_by_the_sweep_when_their_reader_dies() {
    let queue = queue().await;
    let mut redis = connection(&queue).await;
    xadd(&mut redis, &queue, &[(b"colour", b"blue")]).await;
    xadd(&mut redis, &queue, &[(b"id", b"")]).await;
    xadd(&mut redis, &queue, &[(b"id", &[b'x'; 5000])]).await;
    xadd(&mut redis, &queue, &[(b"id", b"nobody")]).await;
    assert_eq!(read_entries(&queue).await.len(), 4);
    let swept = queue.sweeper("other", AT_ONCE).sweep().await.unwrap();
    assert_eq!((swept.buried, swept.waiting, swept.dropped), (4, 0, 0));
    let letters = queue.dead_letters(None, 10).await.unwrap();
    assert_eq!(letters.len(), 4);
    assert_eq!(letters[2].raw.as_ref().map(Vec::len), Some(5000));
    assert_eq!((letters[3].id.clone(), letters[3].reason.as_str()), (Some(id("nobody")), "payload lost"));
    assert_sound(&queue).await;
}

#[tokio::test]
async fn a_letter_with_an_impossible_id_does_not_hide_the_others() {
    let queue = queue().await;
    add(&queue, "a").await;
    let mut redis = connection(&queue).await;
    let fields = [("id", ""), ("reason", "foreign"), ("attempts", "0"), ("at", "1"), ("consumer", "")];
    let _: String = redis.xadd(queue.keys().dead(), "*", &fields).await.unwrap();
    let lease = read_one(&queue, "worker").await.lease;
    queue.bury("worker", &[burial(lease)]).await.unwrap();
    let letters = queue.dead_letters(None, 10).await.unwrap();
    assert_eq!((letters[0].id.clone(), letters[1].id.clone()), (None, Some(id("a"))));
}

fn plain(entry: Entry) -> PlainEntry {
    match entry {
        Entry::Plain(plain) => plain,
        other => panic!("not a plain entry: {other:?}"),
    }
}

/// Adds a plain producer's entry and reads it.
async fn read_plain(queue: &Queue, json: &[u8]) -> PlainEntry {
    let added = xadd(&mut connection(queue).await, queue, &[(b"json", json)]).await;
    let plain = plain(read_entries(queue).await.remove(0));
    assert_eq!((plain.entry, plain.added), (added, added));
    assert_eq!(plain.json, json);
    plain
}

async fn adopt(queue: &Queue, plain: &PlainEntry, job: &str) -> Adopted {
    let envelope = Envelope { payload: &plain.json, ..Envelope::default() };
    queue.adopt(plain, &id(job), Some(plain.version()), None, envelope).await.unwrap()
}

#[tokio::test]
async fn a_plain_entry_becomes_a_job_whose_version_is_its_time() {
    let queue = queue().await;
    let entry = read_plain(&queue, b"{}").await;
    assert_eq!(adopt(&queue, &entry, "a").await, Adopted::Enqueued);
    assert_sound(&queue).await;
    let delivery = read_one(&queue, "worker").await;
    let microseconds = entry.added.ms * 1000 + entry.added.seq;
    assert_eq!((delivery.job.payload(), delivery.lease.version), (&b"{}"[..], Version(microseconds)));
    assert_eq!(adopt(&queue, &entry, "a").await, Adopted::Lost, "it is adopted once");
    assert_eq!(done(&queue, [(delivery.lease, None)]).await.unwrap(), [Settled::Settled]);
    assert_sound(&queue).await;
}

#[tokio::test]
async fn a_plain_entry_meets_a_job_that_stands_already_by_its_version() {
    let queue = queue().await;
    // waiting
    add_version(&queue, "a", 1, b"older").await;
    let mut reader = queue.reader("worker");
    let held = read(&mut reader, 1).await.remove(0);
    let entry = read_plain(&queue, b"newer").await;
    assert_eq!(adopt(&queue, &entry, "a").await, Adopted::Changed);
    assert_sound(&queue).await;
    assert_eq!(done(&queue, [(held.lease, None)]).await.unwrap(), [Settled::Changed]);
    let entry = read(&mut reader, 1).await.remove(0);
    assert_eq!(entry.job.payload(), b"newer");
    // a later version lives: the plain entry is a duplicate
    add_version(&queue, "b", u64::MAX, b"latest").await;
    read(&mut reader, 1).await;
    let entry = read_plain(&queue, b"older").await;
    assert_eq!(adopt(&queue, &entry, "b").await, Adopted::Duplicate);
    assert_eq!(queue.find(&id("b")).await.unwrap().unwrap().job.payload(), b"latest");
    assert_sound(&queue).await;
}

#[tokio::test]
async fn a_plain_entry_does_not_replace_a_newer_dead_job() {
    let queue = queue().await;
    add_version(&queue, "a", u64::MAX, b"newest").await;
    let delivery = read_one(&queue, "worker").await;
    queue.bury("worker", &[burial(delivery.lease)]).await.unwrap();
    let entry = read_plain(&queue, b"older").await;
    assert_eq!(adopt(&queue, &entry, "a").await, Adopted::Duplicate);
    assert_sound(&queue).await;
    let found = queue.find(&id("a")).await.unwrap().unwrap();
    assert_eq!((found.state.name(), found.job.payload()), ("failed", &b"newest"[..]));
}

#[tokio::test]
async fn a_plain_entry_takes_over_jobs_in_backoff_and_dead_ones() {
    let queue = queue().await;
    let fetch = Fetch::begin(&queue, "feed").await;
    fetch.enqueue(&queue, &["delayed", "dead"]).await;
    let mut reader = queue.reader("worker");
    let leases: Vec<Lease> = read(&mut reader, 2).await.into_iter().map(|delivery| delivery.lease).collect();
    queue.back_off(&[back_off(leases[0].clone(), LONG)]).await.unwrap();
    queue.bury("worker", &[burial(leases[1].clone())]).await.unwrap();
    // Its version is the time of Redis in whole milliseconds, and must be later than that of the fetch.
    until(Duration::from_secs(5), async || {
        let now = queue.time().await.unwrap().duration_since(UNIX_EPOCH).unwrap();
        now.as_millis() * 1000 > u128::from(fetch.version.0)
    })
    .await;
    for job in ["delayed", "dead"] {
        let entry = read_plain(&queue, b"plain").await;
        let wanted = if job == "dead" { Adopted::Enqueued } else { Adopted::Changed };
        assert_eq!(adopt(&queue, &entry, job).await, wanted);
        let found = queue.find(&id(job)).await.unwrap().unwrap();
        assert_eq!((found.state, found.job.attempt(), found.failure), (State::Waiting, 1, None));
        read(&mut reader, 1).await;
    }
    let wanted = [("new", 2), ("superseded", 1), ("failed", 1), ("failures", 1)];
    assert_eq!(fetch.counts(&queue).await, counts(&wanted));
    assert_sound(&queue).await;
}

#[tokio::test]
async fn a_plain_entry_is_enqueued_when_a_guard_without_a_job_has_its_id() {
    let queue = queue().await;
    for version in [1, u64::MAX] {
        let job = format!("job-{version}");
        add_version(&queue, &job, version, b"gone").await;
        let stood = queue.find(&id(&job)).await.unwrap().unwrap().job.head.entry.unwrap();
        let () = connection(&queue).await.xdel(queue.keys().stream(), &[stood.to_string()]).await.unwrap();
        let entry = read_plain(&queue, b"{}").await;
        assert_eq!(adopt(&queue, &entry, &job).await, Adopted::Enqueued);
        assert_eq!(read_one(&queue, "worker").await.job.payload(), b"{}");
        assert_sound(&queue).await;
    }
}

#[tokio::test]
async fn a_plain_entry_for_a_key_of_another_type_stays_pending() {
    let queue = queue().await;
    let () = connection(&queue).await.rpush(queue.keys().job(&id("a")), "x").await.unwrap();
    let entry = read_plain(&queue, b"{}").await;
    assert_eq!(adopt(&queue, &entry, "a").await, Adopted::Refused);
    assert_eq!(queue.counts().await.unwrap().active, 1);
    let unreadable = UnreadableEntry {
        lane: Place::Stream,
        entry: entry.entry,
        id: None,
        reason: "type".to_owned(),
        raw: entry.json,
    };
    assert_eq!(queue.bury_entry("worker", &unreadable).await.unwrap(), Settled::Settled);
    assert_eq!(queue.counts().await.unwrap().active, 0);
}

#[tokio::test]
async fn of_two_plain_entries_of_one_millisecond_the_later_one_lands() {
    let queue = queue().await;
    let mut redis = connection(&queue).await;
    for (entry, json) in [("1000-0", "first"), ("1000-1", "second")] {
        let _: String = redis.xadd(queue.keys().stream(), entry, &[("json", json)]).await.unwrap();
    }
    let entries: Vec<PlainEntry> = read_entries(&queue).await.into_iter().map(plain).collect();
    assert_eq!(adopt(&queue, &entries[0], "a").await, Adopted::Enqueued);
    assert_eq!(adopt(&queue, &entries[1], "a").await, Adopted::Changed);
    assert_eq!(read_one(&queue, "worker").await.job.payload(), b"second");
}

#[tokio::test]
async fn an_adopted_job_survives_the_death_of_its_worker() {
    let queue = queue().await;
    let entry = read_plain(&queue, b"{}").await;
    adopt(&queue, &entry, "a").await;
    read_one(&queue, "dies").await;
    let swept = queue.sweeper("other", AT_ONCE).sweep().await.unwrap();
    assert_eq!((swept.waiting, swept.stalled), (1, vec![id("a")]));
    let delivery = read_one(&queue, "worker").await;
    assert_eq!((delivery.job.id, delivery.job.head.stalls), (id("a"), 1));
    assert_sound(&queue).await;
}

#[tokio::test]
async fn a_plain_entry_that_was_claimed_does_not_overtake_a_later_one() {
    let queue = queue().await;
    let first = read_plain(&queue, b"older").await; // and its reader dies
    let second = read_plain(&queue, b"newer").await;
    assert_eq!(adopt(&queue, &second, "a").await, Adopted::Enqueued);
    let delivery = read_one(&queue, "worker").await;
    queue.give_back(&[delivery.lease]).await.unwrap();
    assert_eq!(queue.sweeper("other", AT_ONCE).sweep().await.unwrap().waiting, 1);
    read_one(&queue, "worker").await;
    let again = plain(read_entries(&queue).await.remove(0));
    assert_eq!(again.added, first.added);
    assert_eq!(adopt(&queue, &again, "a").await, Adopted::Duplicate);
    assert_eq!(queue.find(&id("a")).await.unwrap().unwrap().job.payload(), b"newer");
    assert_sound(&queue).await;
}

#[tokio::test]
async fn a_wake_entry_tells_the_reader_and_is_acknowledged() {
    let queue = queue().await;
    add(&queue, "a").await;
    let lease = read_one(&queue, "worker").await.lease;
    queue.back_off(&[back_off(lease, LONG)]).await.unwrap();
    let mut reader = queue.reader("worker");
    let reply = reader.read(10, Some(Duration::from_secs(5))).await.unwrap();
    assert!(reply.woken && reply.entries.is_empty());
    let reply = reader.read(10, None).await.unwrap();
    assert!(!reply.woken, "once is enough");
    let pending: redis::streams::StreamPendingReply =
        connection(&queue).await.xpending(queue.keys().wake(), feedmill::queue::GROUP).await.unwrap();
    assert_eq!(pending.count(), 0);
}

#[tokio::test]
async fn a_blocked_reader_gets_a_job_as_soon_as_it_is_added_and_can_be_unblocked() {
    let server = OwnRedis::start(&[]);
    let queue = queue_at(&server.url()).await;
    let mut reader = queue.reader("worker");
    let unblocker = reader.unblocker();
    let reading = tokio::spawn(async move {
        let first = reader.read(1, Some(Duration::from_secs(5))).await.unwrap();
        let second = reader.read(1, Some(Duration::from_secs(5))).await.unwrap();
        (first.entries.len(), second.entries.len())
    });
    wait_until_blocked(&server).await;
    add(&queue, "a").await;
    until(Duration::from_secs(5), async || queue.counts().await.unwrap().active == 1).await;
    wait_until_blocked(&server).await;
    let since = std::time::Instant::now();
    unblocker.unblock().await;
    assert_eq!(reading.await.unwrap(), (1, 0));
    assert!(since.elapsed() < Duration::from_secs(2), "it did not wait for the end of the block");
}

async fn destroy_group(queue: &Queue) {
    let destroyed: i64 =
        connection(queue).await.xgroup_destroy(queue.keys().stream(), feedmill::queue::GROUP).await.unwrap();
    assert_eq!(destroyed, 1);
}

#[tokio::test]
async fn a_lost_group_is_created_from_the_beginning_and_nothing_is_lost() {
    let queue = queue().await;
    let ids = add_many(&queue, "job", 3).await;
    let held = read_one(&queue, "worker").await;
    destroy_group(&queue).await;
    let again: Vec<_> =
        read(&mut queue.reader("worker"), 10).await.into_iter().map(|delivery| delivery.job.id).collect();
    assert_eq!(again, ids, "also the one that was delivered before");
    assert_sound(&queue).await;
    assert_eq!(done(&queue, [(held.lease, None)]).await.unwrap(), [Settled::Settled]);
    assert_sound(&queue).await;
}

#[tokio::test]
async fn a_group_that_is_lost_while_a_reader_blocks_is_created_again() {
    let server = OwnRedis::start(&[]);
    let queue = queue_at(&server.url()).await;
    let mut reader = queue.reader("worker");
    let reading = tokio::spawn(async move { reader.read(10, Some(Duration::from_secs(5))).await });
    wait_until_blocked(&server).await;
    destroy_group(&queue).await;
    add(&queue, "a").await;
    assert_eq!(reading.await.unwrap().unwrap().entries.len(), 1, "the same read goes on");
    assert_sound(&queue).await;
}

#[tokio::test]
async fn a_stream_that_is_deleted_comes_back_with_its_group() {
    let queue = queue().await;
    add(&queue, "gone").await;
    let () = connection(&queue).await.del(queue.keys().stream()).await.unwrap();
    assert!(queue.reader("worker").read(1, None).await.unwrap().entries.is_empty());
    assert_eq!(add(&queue, "gone").await, Enqueued::Enqueued, "its guard has no job");
    assert_eq!(read_one(&queue, "worker").await.job.id, id("gone"));
    assert_sound(&queue).await;
}

#[tokio::test]
async fn a_sweep_creates_a_lost_group_and_goes_on() {
    let queue = queue().await;
    add(&queue, "a").await;
    read_one(&queue, "worker").await;
    destroy_group(&queue).await;
    let swept = queue.sweeper("other", AT_ONCE).sweep().await.unwrap();
    assert!(swept.swept && swept.stalled.is_empty());
    assert_eq!(read_one(&queue, "worker").await.job.id, id("a"));
    assert_sound(&queue).await;
}

#[tokio::test]
async fn a_paused_queue_stays_paused_when_its_group_is_lost() {
    let queue = queue().await;
    add_many(&queue, "job", 2).await;
    queue.pause().await.unwrap();
    destroy_group(&queue).await;
    let mut reader = queue.reader("worker");
    assert!(reader.read(10, None).await.unwrap().entries.is_empty());
    assert!(queue.counts().await.unwrap().is_paused);
    assert_sound(&queue).await;
    assert!(queue.resume().await.unwrap());
    assert_eq!(read(&mut reader, 10).await.len(), 2);
    assert_sound(&queue).await;
}

#[tokio::test]
async fn a_script_that_redis_forgot_is_taught_again() {
    let server = OwnRedis::start(&[]);
    let queue = queue_at(&server.url()).await;
    add(&queue, "a").await;
    let () = redis::cmd("SCRIPT").arg("FLUSH").query_async(&mut connection(&queue).await).await.unwrap();
    assert_eq!(add(&queue, "b").await, Enqueued::Enqueued);
    assert_eq!(queue.counts().await.unwrap().waiting, 2);
}

/// Adds jobs, reads the first of them, and returns their leases.
async fn leased(queue: &Queue, jobs: usize, read_jobs: usize) -> Vec<Lease> {
    add_many(queue, "job", jobs).await;
    let leases: Vec<Lease> =
        read(&mut queue.reader("worker"), read_jobs).await.into_iter().map(|delivery| delivery.lease).collect();
    assert_eq!(leases.len(), read_jobs);
    leases
}

async fn end(queue: &Queue, leases: &[Lease]) {
    let settled = done(queue, leases.iter().map(|lease| (lease.clone(), None))).await.unwrap();
    assert_eq!(settled, vec![Settled::Settled; leases.len()]);
}

async fn waiting_and_active(queue: &Queue) -> (u64, u64) {
    assert_sound(queue).await;
    let counts = queue.counts().await.unwrap();
    (counts.waiting, counts.active)
}

#[tokio::test]
async fn jobs_that_end_at_the_front_in_the_middle_or_all_at_once_take_no_other_with_them() {
    let queue = queue().await;
    let leases = leased(&queue, 20, 12).await;
    end(&queue, &leases[3..7]).await; // behind what is still worked on
    assert_eq!(waiting_and_active(&queue).await, (8, 8));
    end(&queue, &[&leases[..3], &leases[8..11]].concat()).await; // some at the front, some behind
    assert_eq!(waiting_and_active(&queue).await, (8, 2));
    end(&queue, &[&leases[7..8], &leases[11..]].concat()).await; // nothing is worked on any more
    assert_eq!(waiting_and_active(&queue).await, (8, 0));
    let rest: Vec<Lease> = read(&mut queue.reader("worker"), 8).await.into_iter().map(|job| job.lease).collect();
    end(&queue, &rest[..7]).await;
    assert_eq!(waiting_and_active(&queue).await, (0, 1));
    end(&queue, &rest[7..]).await;
    assert_eq!(waiting_and_active(&queue).await, (0, 0));
}

#[tokio::test]
async fn a_job_that_is_delivered_anew_is_not_taken_for_ended_by_those_behind_it() {
    for read_again in [0, 2, 6] {
        let queue = queue().await;
        let leases = leased(&queue, 10, 6).await;
        let mut redis = connection(&queue).await;
        let _: u64 = redis::cmd("XGROUP")
            .arg("DESTROY")
            .arg(queue.keys().stream())
            .arg("workers")
            .query_async(&mut redis)
            .await
            .unwrap();
        queue.ensure_group().await.unwrap();
        if read_again > 0 {
            assert_eq!(read(&mut queue.reader("another"), read_again).await.len(), read_again);
        }
        // The heads still name the entries: what was done counts, and the first job is the other worker's or waits.
        end(&queue, &leases[1..]).await;
        let active = u64::from(read_again > 0);
        assert_eq!(waiting_and_active(&queue).await, (5 - active, active), "{read_again} were read again");
    }
}

#[tokio::test]
async fn an_entry_that_another_client_acknowledged_goes_with_those_behind_it_and_feeds_are_taken_in_anew() {
    let queue = queue().await;
    let leases = leased(&queue, 8, 8).await;
    let mut redis = connection(&queue).await;
    let acknowledged: u64 = redis.xack(queue.keys().stream(), "workers", &[leases[0].entry.to_string()]).await.unwrap();
    assert_eq!(acknowledged, 1);
    end(&queue, &leases[1..]).await;
    let left: u64 = redis.xlen(queue.keys().stream()).await.unwrap();
    let losses: Option<u64> = redis.hget(queue.keys().meta(), "losses").await.unwrap();
    assert_eq!((left, losses), (0, Some(1)));
    assert_eq!(add(&queue, "job-0").await, Enqueued::Enqueued, "its guard does not block its id");
    assert_eq!(waiting_and_active(&queue).await, (1, 0));
}
