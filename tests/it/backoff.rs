//! Backoff: in what order and when jobs come back, and who is woken for it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use feedmill::queue::{
    Queue, Settled,
    find::State,
    promote::Promoted,
    read::{Delivery, Lease},
    settle::BackOff,
};
use redis::AsyncCommands;

use crate::support::{
    audit::{assert_sound, audit},
    jobs::{add, add_many, connection, done, id, queue, read, read_one},
    wait::until,
};

/// A wait that is long compared with a test.
const LONG: Duration = Duration::from_hours(1);

/// Due times are in whole milliseconds, rounded up.
const MILLISECOND: Duration = Duration::from_millis(1);

async fn redis_now(queue: &Queue) -> SystemTime {
    let (seconds, micros): (u64, u64) = redis::cmd("TIME").query_async(&mut connection(queue).await).await.unwrap();
    UNIX_EPOCH + Duration::from_secs(seconds) + Duration::from_micros(micros)
}

fn failed(lease: Lease, wait: Duration) -> BackOff {
    BackOff { lease, wait, reason: Some("no".to_owned()) }
}

/// Reads everything that waits, and sends it into backoff with these waits, job by job.
async fn back_off(queue: &Queue, waits: &[Duration]) -> Option<Duration> {
    let deliveries: Vec<Delivery> = read(&mut queue.reader("worker"), waits.len()).await;
    let jobs: Vec<BackOff> =
        deliveries.into_iter().zip(waits).map(|(delivery, wait)| failed(delivery.lease, *wait)).collect();
    assert_eq!(jobs.len(), waits.len());
    let (settled, next_due) = queue.back_off(&jobs).await.unwrap();
    assert_eq!(settled, vec![Settled::Settled; waits.len()]);
    next_due
}

#[tokio::test]
async fn jobs_come_back_in_the_order_they_are_due_and_never_early() {
    let queue = queue().await;
    let ids = add_many(&queue, "job", 3).await;
    let waits = [300, 100, 200].map(Duration::from_millis);
    let began = redis_now(&queue).await;
    let next_due = back_off(&queue, &waits).await.expect("three are in backoff");
    assert!(next_due <= waits[1] + MILLISECOND, "{next_due:?}");
    assert_eq!(queue.promote().await.unwrap().moved, 0, "none is due yet");
    let mut reader = queue.reader("worker");
    let mut came_back = Vec::new();
    until(Duration::from_secs(10), async || {
        let promoted = queue.promote().await.unwrap();
        let next_due = promoted.next_due_in;
        assert!(next_due.is_none_or(|wait| wait <= waits[0] + MILLISECOND), "{next_due:?}");
        for delivery in read(&mut reader, 10).await {
            let waited = redis_now(&queue).await.duration_since(began).unwrap();
            came_back.push((delivery.job.id, waited));
        }
        came_back.len() == 3
    })
    .await;
    let order: Vec<_> = came_back.iter().map(|(id, _)| id.clone()).collect();
    assert_eq!(order, [ids[1].clone(), ids[2].clone(), ids[0].clone()]);
    for ((_, waited), wait) in came_back.iter().zip([waits[1], waits[2], waits[0]]) {
        assert!(*waited >= wait, "{waited:?} of {wait:?}");
    }
    assert_sound(&queue).await;
}

#[tokio::test]
async fn a_failed_attempt_leaves_its_error_and_counts() {
    let queue = queue().await;
    add(&queue, "a").await;
    let lease = read_one(&queue, "worker").await.lease;
    let before = redis_now(&queue).await;
    queue.back_off(&[failed(lease, LONG)]).await.unwrap();
    let found = queue.find(&id("a")).await.unwrap().unwrap();
    let State::Delayed { due_at } = found.state else { panic!("{:?}", found.state) };
    let wait = due_at.duration_since(before).unwrap();
    assert!(wait >= LONG && wait < LONG + Duration::from_secs(10), "{wait:?}");
    let failure = found.failure.expect("it failed");
    assert_eq!((failure.reason.as_str(), failure.first_at), ("no", failure.last_at));
    assert_eq!(found.job.attempt(), 2);
    assert_eq!(queue.counts().await.unwrap().totals["retried"], 1);
    assert_sound(&queue).await;
}

#[tokio::test]
async fn the_first_failure_is_remembered_over_later_ones() {
    let queue = queue().await;
    add(&queue, "a").await;
    for n in 1..=2 {
        let lease = read_one(&queue, "worker").await.lease;
        let reason = Some(format!("reason {n}"));
        queue.back_off(&[BackOff { lease, wait: Duration::from_millis(2), reason }]).await.unwrap();
        until(Duration::from_secs(5), async || queue.promote().await.unwrap().moved == 1).await;
    }
    let failure = queue.find(&id("a")).await.unwrap().unwrap().failure.unwrap();
    assert_eq!(failure.reason, "reason 2");
    assert!(failure.first_at < failure.last_at);
    let lease = read_one(&queue, "worker").await.lease;
    assert_eq!(done(&queue, [(lease, None)]).await.unwrap(), [Settled::Settled]);
    assert_sound(&queue).await; // no error is kept of a job that is done
}

#[tokio::test]
async fn a_job_that_only_waits_uses_no_attempt() {
    let queue = queue().await;
    add(&queue, "a").await;
    for _ in 0..3 {
        let lease = read_one(&queue, "worker").await.lease;
        queue.back_off(&[BackOff { lease, wait: Duration::ZERO, reason: None }]).await.unwrap();
        assert_eq!(queue.promote().await.unwrap().moved, 1);
    }
    let found = queue.find(&id("a")).await.unwrap().unwrap();
    assert_eq!((found.job.attempt(), found.failure), (1, None));
    assert_eq!(queue.counts().await.unwrap().totals.get("retried"), None);
    assert_sound(&queue).await;
}

#[tokio::test]
async fn an_attempt_that_failed_without_words_is_an_attempt() {
    let queue = queue().await;
    add(&queue, "a").await;
    let lease = read_one(&queue, "worker").await.lease;
    queue.back_off(&[BackOff { lease, wait: LONG, reason: Some(String::new()) }]).await.unwrap();
    assert_eq!(queue.find(&id("a")).await.unwrap().unwrap().job.attempt(), 2);
    assert_sound(&queue).await;
}

#[tokio::test]
async fn readers_are_woken_only_by_a_job_that_is_due_earlier_than_all_others() {
    let queue = queue().await;
    let mut reader = queue.reader("reader");
    for (wait, wakes) in [(2 * LONG, true), (3 * LONG, false), (LONG, true), (2 * LONG, false)] {
        add_many(&queue, &format!("{wait:?}-{wakes}"), 1).await;
        back_off(&queue, &[wait]).await;
        let read = reader.read(10, None).await.unwrap();
        assert_eq!(read.woken, wakes, "{wait:?}");
    }
    let wakes: usize = connection(&queue).await.xlen(queue.keys().wake()).await.unwrap();
    assert_eq!(wakes, 1, "the stream does not grow");
    assert_sound(&queue).await;
}

#[tokio::test]
async fn an_empty_backoff_says_so() {
    let queue = queue().await;
    assert_eq!(queue.promote().await.unwrap(), Promoted::default());
    add(&queue, "a").await;
    let next_due = back_off(&queue, &[LONG]).await.unwrap();
    assert!(next_due <= LONG + MILLISECOND && next_due > LONG / 2, "{next_due:?}");
}

#[tokio::test]
async fn a_call_promotes_a_bounded_number_and_says_that_more_are_due() {
    let queue = queue().await;
    add_many(&queue, "job", 300).await;
    back_off(&queue, &[Duration::ZERO; 300]).await;
    let first = queue.promote().await.unwrap();
    assert_eq!(first, Promoted { moved: 256, buried: 0, next_due_in: Some(Duration::ZERO) });
    assert_sound(&queue).await;
    assert_eq!(queue.promote().await.unwrap(), Promoted { moved: 44, ..Promoted::default() });
    assert_eq!(queue.counts().await.unwrap().waiting, 300);
    assert_sound(&queue).await;
}

#[tokio::test]
async fn an_id_in_backoff_without_a_job_becomes_a_dead_letter_and_the_others_come_back() {
    let queue = queue().await;
    add_many(&queue, "job", 3).await;
    back_off(&queue, &[Duration::ZERO; 3]).await;
    let mut redis = connection(&queue).await;
    let () = redis.del(queue.keys().job(&id("job-0"))).await.unwrap();
    let () = redis.del(queue.keys().job(&id("job-1"))).await.unwrap();
    let () = redis.rpush(queue.keys().job(&id("job-1")), "x").await.unwrap();
    assert!(audit(&queue).await.is_err());
    assert_eq!(queue.promote().await.unwrap(), Promoted { moved: 1, buried: 2, next_due_in: None });
    let letters = queue.dead_letters(None, 10).await.unwrap();
    let named: Vec<_> = letters.iter().map(|letter| (letter.id.clone().unwrap(), letter.reason.as_str())).collect();
    let wrong_type = "WRONGTYPE Operation against a key holding the wrong kind of value";
    assert_eq!(named, [(id("job-0"), "payload lost"), (id("job-1"), wrong_type)]);
    assert_eq!(queue.counts().await.unwrap().totals["failed"], 2);
    let () = redis.del(queue.keys().job(&id("job-1"))).await.unwrap();
    assert_sound(&queue).await;
}
