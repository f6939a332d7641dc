//! Stalled jobs: who claims what, how often, and what becomes of jobs that stall again and again.

use std::time::Duration;

use feedmill::{
    job::{EntryId, Envelope, Place, Stored},
    queue::{
        GROUP, Queue, Settled,
        claim::{ClaimLimits, Swept},
        enqueue::Enqueued,
        find::State,
        read::{Adopted, Delivery, Entry, Lease, PlainEntry, UnreadableEntry},
        settle::{BackOff, Burial},
    },
};
use redis::AsyncCommands;

use crate::support::{
    audit::{assert_sound, audit},
    jobs::{Fetch, add, add_many, connection, counts, done, id, queue, queue_at, queue_under, read, read_one},
    servers::on_each_redis,
    wait::until,
};

/// No entry of a test gets this old unless the test says so with [`stall`].
const LOCK_DURATION: Duration = Duration::from_mins(10);
const STALLED: &str = "job stalled more than allowable limit";

fn limits(max_stalled_count: u8) -> ClaimLimits {
    ClaimLimits { lock_duration: LOCK_DURATION, stalled_interval: Duration::from_millis(1), max_stalled_count }
}

/// Makes entries look as if their consumer had stopped working on them long ago.
async fn stall(queue: &Queue, entries: &[EntryId]) {
    let mut claim = redis::cmd("XCLAIM");
    claim.arg(queue.keys().stream()).arg(GROUP).arg("dead").arg(0);
    for entry in entries {
        claim.arg(entry.to_string());
    }
    claim.arg("IDLE").arg(2 * LOCK_DURATION.as_millis() as u64).arg("JUSTID");
    let claimed: Vec<String> = claim.query_async(&mut connection(queue).await).await.unwrap();
    assert_eq!(claimed.len(), entries.len());
}

/// A sweep that takes place whoever swept before.
async fn sweep(queue: &Queue, max_stalled_count: u8) -> Swept {
    let mut sweeper = queue.sweeper("sweeper", limits(max_stalled_count));
    let mut swept = Swept::default();
    for _ in 0..1000 {
        swept = sweeper.sweep().await.unwrap();
        if swept.swept {
            break;
        }
    }
    assert!(swept.swept);
    swept
}

/// Reads a job and lets its consumer die.
async fn read_and_die(queue: &Queue) -> Delivery {
    let delivery = read_one(queue, "dead").await;
    stall(queue, &[delivery.lease.entry]).await;
    delivery
}

async fn the_jobs_of_a_dead_consumer_wait_again(url: &str) {
    let queue = queue_at(url).await;
    let ids = add_many(&queue, "job", 3).await;
    let deliveries = read(&mut queue.reader("dead"), 3).await;
    let alive = add_many(&queue, "alive", 1).await;
    read_one(&queue, "alive").await;
    stall(&queue, &deliveries.iter().map(|delivery| delivery.lease.entry).collect::<Vec<_>>()).await;

    let swept = sweep(&queue, 2).await;
    assert_eq!(swept, Swept { swept: true, waiting: 3, buried: 0, dropped: 0, stalled: ids.clone() });
    assert_sound(&queue).await;
    let now = queue.counts().await.unwrap();
    assert_eq!((now.waiting, now.active, now.totals["stalled"]), (3, 1, 3));
    assert_eq!(queue.find(&alive[0]).await.unwrap().unwrap().state, State::Active);

    let again = read(&mut queue.reader("heir"), 10).await;
    assert_eq!(again.iter().map(|delivery| delivery.job.id.clone()).collect::<Vec<_>>(), ids);
    for delivery in &again {
        assert_eq!((delivery.job.head.stalls, delivery.job.attempt()), (1, 1), "a stall is not an attempt");
    }
    let ended: Vec<_> = again.into_iter().map(|delivery| (delivery.lease, None)).collect();
    assert_eq!(done(&queue, ended.clone()).await.unwrap(), [Settled::Settled; 3]);
    assert_sound(&queue).await;
}

async fn pending_entries_that_were_deleted_are_cleaned_up(url: &str) {
    let queue = queue_at(url).await;
    add_many(&queue, "job", 2).await;
    let deliveries = read(&mut queue.reader("dead"), 2).await;
    let entries: Vec<EntryId> = deliveries.iter().map(|delivery| delivery.lease.entry).collect();
    stall(&queue, &entries).await;
    let deleted: i64 = connection(&queue).await.xdel(queue.keys().stream(), &[entries[0].to_string()]).await.unwrap();
    assert_eq!(deleted, 1);
    let swept = sweep(&queue, 2).await;
    assert_eq!((swept.waiting, swept.buried), (1, 0));
    let now = queue.counts().await.unwrap();
    assert_eq!((now.active, now.waiting), (0, 1), "nothing is pending any more");
    let findings = audit(&queue).await.expect_err("the guard has no job");
    assert_eq!(findings.len(), 1, "{findings:?}");
    assert_eq!(add(&queue, "job-0").await, Enqueued::Enqueued);
    assert_sound(&queue).await;
}

async fn a_job_recovers_as_often_as_allowed_and_is_buried_then(url: &str) {
    for allowed in [0, 1, 2] {
        let queue = queue_at(url).await;
        let fetch = Fetch::begin(&queue, "feed").await;
        fetch.enqueue(&queue, &["poison", "a"]).await;
        for recovery in 1..=allowed {
            let stalled = read_and_die(&queue).await;
            let swept = sweep(&queue, allowed).await;
            assert_eq!((swept.waiting, swept.buried), (1, 0), "recovery {recovery} of {allowed}");
            // the other job stalls as well, so that the poisoned one is at the front again
            let other = read_one(&queue, "alive").await;
            queue.give_back(&[other.lease]).await.unwrap();
            assert_eq!(stalled.job.id, id("poison"));
        }
        let swept = {
            read_and_die(&queue).await;
            sweep(&queue, allowed).await
        };
        assert_eq!((swept.waiting, swept.buried), (0, 1), "{allowed} recoveries were allowed");
        assert_eq!(swept.stalled, [id("poison")]);
        let found = queue.find(&id("poison")).await.unwrap().unwrap();
        assert_eq!(found.state, State::Failed { reason: STALLED.to_owned() });
        assert_eq!(found.failure.expect("it failed").reason, STALLED);
        assert_eq!(found.job.head.attempts, 0);
        assert_eq!(fetch.counts(&queue).await, counts(&[("new", 2), ("open", 1), ("failed", 1), ("failures", 1)]));
        assert_eq!(queue.counts().await.unwrap().totals["stalled"], u64::from(allowed) + 1);
        assert_sound(&queue).await;
        // stalls start afresh when it is redriven
        let letters = queue.dead_letters(None, 10).await.unwrap();
        queue.redrive(&letters).await.unwrap();
        read(&mut queue.reader("worker"), 1).await;
        assert_eq!(read_one(&queue, "worker").await.job.head.stalls, 0);
        assert_sound(&queue).await;
    }
}

async fn plain_entries_that_nobody_adopted_come_back(url: &str) {
    let queue = queue_at(url).await;
    let mut redis = connection(&queue).await;
    let added: String = redis.xadd(queue.keys().stream(), "*", &[("json", "{\"a\":1}")]).await.unwrap();
    let mut plain = read_plain(&queue).await;
    for _ in 0..2 {
        stall(&queue, &[plain.entry]).await;
        let swept = sweep(&queue, 2).await;
        assert_eq!((swept.waiting, swept.buried, swept.stalled.len()), (1, 0, 1));
        let again = read_plain(&queue).await;
        assert_eq!((again.added.to_string(), &again.json), (added.clone(), &plain.json));
        plain = again;
    }
    stall(&queue, &[plain.entry]).await;
    let swept = sweep(&queue, 2).await;
    assert_eq!((swept.waiting, swept.buried), (0, 1), "two recoveries, as for any job");
    let letters = queue.dead_letters(None, 10).await.unwrap();
    assert_eq!((letters[0].reason.as_str(), letters[0].raw.as_deref()), (STALLED, Some(&b"{\"a\":1}"[..])));
    assert_sound(&queue).await;
    assert_eq!(queue.redrive(&letters).await.unwrap().redriven, 1);
    let plain = read_plain(&queue).await;
    let adopted = queue
        .adopt(&plain, &id("a"), Some(plain.version()), None, Envelope { payload: &plain.json, ..Envelope::default() })
        .await
        .unwrap();
    assert_eq!(adopted, Adopted::Enqueued);
    assert_eq!(read_one(&queue, "worker").await.job.payload(), b"{\"a\":1}");
    assert_sound(&queue).await;
}

async fn read_plain(queue: &Queue) -> PlainEntry {
    match queue.reader("dead").read(1, None).await.unwrap().entries.remove(0) {
        Entry::Plain(plain) => plain,
        other => panic!("not a plain entry: {other:?}"),
    }
}

/// A plain entry between two jobs takes the number of an entry that the call would have given to the second of them.
async fn a_plain_entry_between_two_jobs_holds_neither_up(url: &str) {
    let queue = queue_at(url).await;
    let mut redis = connection(&queue).await;
    add(&queue, "a").await;
    let _: String = redis.xadd(queue.keys().stream(), "*", &[("json", "{}")]).await.unwrap();
    add(&queue, "b").await;
    let read = queue.reader("dead").read(3, None).await.unwrap().entries;
    let entries: Vec<EntryId> = read
        .iter()
        .map(|entry| match entry {
            Entry::Job(delivery) => delivery.lease.entry,
            Entry::Plain(plain) => plain.entry,
            other @ Entry::Unreadable(_) => panic!("not readable: {other:?}"),
        })
        .collect();
    stall(&queue, &entries).await;
    let swept = sweep(&queue, 2).await;
    assert_eq!((swept.waiting, swept.buried, swept.dropped), (3, 0, 0));
    assert_eq!(queue.find(&id("b")).await.unwrap().unwrap().job.head.stalls, 1);
    assert_sound(&queue).await;

    // The same where dead letters come back.
    let mut reader = queue.reader("worker");
    for entry in reader.read(3, None).await.unwrap().entries {
        match entry {
            Entry::Job(delivery) => {
                let burial = Burial { lease: delivery.lease, reason: "no".to_owned(), exhausted: true, dedup: None };
                queue.bury("worker", &[burial]).await.unwrap();
            }
            Entry::Plain(plain) => {
                let (lane, reason) = (Place::Stream, "no".to_owned());
                let entry = UnreadableEntry { lane, entry: plain.entry, id: None, reason, raw: plain.json };
                queue.bury_entry("worker", &entry).await.unwrap();
            }
            other @ Entry::Unreadable(_) => panic!("not readable: {other:?}"),
        }
    }
    let letters = queue.dead_letters(None, 10).await.unwrap();
    assert_eq!(queue.redrive(&letters).await.unwrap().redriven, 3);
    assert_eq!(queue.counts().await.unwrap().waiting, 3);
    assert_sound(&queue).await;
}

on_each_redis! {
    the_jobs_of_a_dead_consumer_wait_again,
    a_plain_entry_between_two_jobs_holds_neither_up,
    pending_entries_that_were_deleted_are_cleaned_up,
    a_job_recovers_as_often_as_allowed_and_is_buried_then,
    plain_entries_that_nobody_adopted_come_back,
}

#[tokio::test]
async fn one_sweep_finds_a_stalled_job_behind_1500_fresh_ones() {
    let queue = queue().await;
    add_many(&queue, "job", 1501).await;
    let mut reader = queue.reader("worker");
    let mut deliveries = Vec::new();
    while deliveries.len() < 1501 {
        deliveries.extend(read(&mut reader, 256).await);
    }
    stall(&queue, &[deliveries[1500].lease.entry]).await;
    let swept = sweep(&queue, 2).await;
    assert_eq!((swept.waiting, swept.stalled), (1, vec![id("job-1500")]));
    assert_eq!(queue.counts().await.unwrap().active, 1500);
    assert_sound(&queue).await;
}

#[tokio::test]
async fn many_stalled_jobs_are_claimed_over_several_pages() {
    let queue = queue().await;
    add_many(&queue, "job", 250).await;
    let deliveries = read(&mut queue.reader("worker"), 250).await;
    stall(&queue, &deliveries.iter().map(|delivery| delivery.lease.entry).collect::<Vec<_>>()).await;
    assert_eq!(sweep(&queue, 2).await.waiting, 250);
    assert_sound(&queue).await;
}

#[tokio::test]
async fn a_sweep_holds_the_interval_for_all_processes() {
    let queue = queue().await;
    let other = queue_under(&format!("redis://{}", queue.redis().address()), queue.redis().prefix()).await;
    let slow = ClaimLimits { stalled_interval: Duration::from_mins(1), ..limits(2) };
    add(&queue, "a").await;
    assert!(queue.sweeper("one", slow).sweep().await.unwrap().swept);
    read_and_die(&queue).await;
    let mut sweeper = other.sweeper("other", slow);
    assert_eq!(sweeper.sweep().await.unwrap(), Swept::default());
    assert_eq!(queue.sweeper("one", slow).sweep().await.unwrap(), Swept::default());
    let left: i64 = connection(&queue).await.pttl(queue.keys().sweep()).await.unwrap();
    assert!((1..=60_000).contains(&left), "{left} ms");
    let () = connection(&queue).await.pexpire(queue.keys().sweep(), 1).await.unwrap();
    until(Duration::from_secs(5), async || sweeper.sweep().await.unwrap().waiting == 1).await;
}

#[tokio::test]
async fn nothing_is_claimed_while_the_queue_is_paused() {
    let queue = queue().await;
    add(&queue, "a").await;
    read_and_die(&queue).await;
    queue.pause().await.unwrap();
    assert_eq!(queue.sweeper("other", limits(2)).sweep().await.unwrap(), Swept::default());
    assert_eq!(queue.counts().await.unwrap().active, 1);
    queue.resume().await.unwrap();
    assert_eq!(sweep(&queue, 2).await.waiting, 1);
    assert_sound(&queue).await;
}

#[tokio::test]
async fn giving_back_counts_neither_a_stall_nor_an_attempt() {
    let queue = queue().await;
    add(&queue, "a").await;
    for _ in 0..5 {
        let lease = read_one(&queue, "worker").await.lease;
        assert_eq!(queue.give_back(&[lease]).await.unwrap(), [Settled::Settled]);
    }
    let delivery = read_one(&queue, "worker").await;
    assert_eq!((delivery.job.head.stalls, delivery.job.attempt()), (0, 1));
    assert_sound(&queue).await;
}

#[tokio::test]
async fn attempts_stand_while_a_job_stalls() {
    let queue = queue().await;
    add(&queue, "a").await;
    let lease = read_one(&queue, "worker").await.lease;
    queue.back_off(&[BackOff { lease, wait: Duration::ZERO, reason: Some("no".to_owned()) }]).await.unwrap();
    queue.promote().await.unwrap();
    read_and_die(&queue).await;
    sweep(&queue, 2).await;
    let delivery = read_one(&queue, "worker").await;
    assert_eq!((delivery.job.attempt(), delivery.job.head.stalls), (2, 1));
    assert_sound(&queue).await;
}

#[tokio::test]
async fn a_change_of_a_job_that_stalls_is_not_lost() {
    let queue = queue().await;
    let fetch = Fetch::begin(&queue, "feed").await;
    fetch.enqueue(&queue, &["a"]).await;
    let zombie: Lease = read_and_die(&queue).await.lease;
    let newer = Fetch::begin(&queue, "feed").await;
    newer.enqueue_payload(&queue, &["a"], b"newer").await;
    assert_eq!(sweep(&queue, 2).await.waiting, 1);
    assert_eq!(done(&queue, [(zombie, Some(Stored::Inserted))]).await.unwrap(), [Settled::Lost]);
    let delivery = read_one(&queue, "worker").await;
    assert_eq!(delivery.job.payload(), b"newer");
    done(&queue, [(delivery.lease, Some(Stored::Inserted))]).await.unwrap();
    assert_eq!(newer.counts(&queue).await, counts(&[("changed", 1), ("inserted", 1)]));
    assert_sound(&queue).await;
}

#[tokio::test]
async fn a_key_of_another_type_is_buried_by_the_sweep_and_its_neighbours_are_claimed() {
    let queue = queue().await;
    add_many(&queue, "job", 3).await;
    let deliveries = read(&mut queue.reader("worker"), 3).await;
    stall(&queue, &deliveries.iter().map(|delivery| delivery.lease.entry).collect::<Vec<_>>()).await;
    let mut redis = connection(&queue).await;
    let () = redis.del(queue.keys().job(&id("job-1"))).await.unwrap();
    let () = redis.rpush(queue.keys().job(&id("job-1")), "x").await.unwrap();
    let swept = sweep(&queue, 2).await;
    assert_eq!((swept.waiting, swept.buried), (2, 1));
    let letters = queue.dead_letters(None, 10).await.unwrap();
    assert!(letters[0].reason.contains("WRONGTYPE"), "{letters:?}");
    assert_eq!(letters[0].id, Some(id("job-1")));
}

#[tokio::test]
async fn jobs_and_plain_entries_that_stalled_take_turns_on_one_page() {
    let queue = queue().await;
    let mut redis = connection(&queue).await;
    for n in 0..5 {
        add(&queue, format!("job-{n}")).await;
        let json = format!("\"plain-{n}\"");
        redis.xadd::<_, _, _, _, ()>(queue.keys().stream(), "*", &[("json", json)]).await.unwrap();
    }
    let entries = queue.reader("dead").read(20, None).await.unwrap().entries;
    let entries: Vec<EntryId> = entries
        .iter()
        .map(|entry| match entry {
            Entry::Job(delivery) => delivery.lease.entry,
            Entry::Plain(plain) => plain.entry,
            Entry::Unreadable(unreadable) => panic!("{unreadable:?}"),
        })
        .collect();
    stall(&queue, &entries).await;
    let swept = sweep(&queue, 2).await;
    assert_eq!((swept.waiting, swept.dropped), (10, 0));
    assert_sound(&queue).await;
    let again = queue.reader("worker").read(20, None).await.unwrap().entries;
    let order: Vec<String> = again
        .into_iter()
        .map(|entry| match entry {
            Entry::Job(delivery) => delivery.job.id.to_string(),
            Entry::Plain(plain) => String::from_utf8(plain.json).unwrap().replace('"', ""),
            Entry::Unreadable(unreadable) => panic!("{unreadable:?}"),
        })
        .collect();
    let wanted: Vec<String> = (0..5).flat_map(|n| [format!("job-{n}"), format!("plain-{n}")]).collect();
    assert_eq!(order, wanted);
}
