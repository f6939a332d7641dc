//! Adding jobs with options: delays, priorities, groups, deduplication, and what is kept of them when they are done.

use std::time::Duration;

use feedmill::{
    job::{Envelope, JobOptions, Keep, Version},
    queue::{
        Events, QueueError, QueueOptions,
        enqueue::{Deduplication, Enqueued, NewJob},
        find::State,
        settle::Done,
    },
};

use crate::support::{
    audit::assert_sound,
    jobs::{PAYLOAD_MAX, add, done, id, new_job, queue, queue_with, read, read_one},
    wait::until,
};

const LONG: Duration = Duration::from_hours(1);
const SOON: Duration = Duration::from_secs(5);

async fn add_with(queue: &feedmill::queue::Queue, job: NewJob<'_>) -> Enqueued {
    queue.add(&[job], PAYLOAD_MAX).await.unwrap().remove(0)
}

async fn state(queue: &feedmill::queue::Queue, job: &str) -> Option<State> {
    queue.find(&id(job)).await.unwrap().map(|found| found.state)
}

#[tokio::test]
async fn a_delayed_job_is_promoted_when_its_time_has_come_and_not_before() {
    let queue = queue().await;
    let job = NewJob { delay: Duration::from_millis(150), attempts_made: 1, ..new_job(&id("a")) };
    assert_eq!(add_with(&queue, job).await, Enqueued::Enqueued);
    assert!(matches!(state(&queue, "a").await, Some(State::Delayed { .. })));
    assert_eq!(queue.promote().await.unwrap().moved, 0);
    until(SOON, async || queue.promote().await.unwrap().moved == 1).await;
    let delivery = read_one(&queue, "worker").await;
    assert_eq!(delivery.job.attempt(), 2, "the attempt that was made before counts");
    assert_sound(&queue).await;
}

#[tokio::test]
async fn jobs_with_a_priority_are_taken_in_its_order_and_before_all_others() {
    let queue = queue().await;
    add(&queue, "plain").await;
    for (name, priority) in [("c", 5), ("a", 1), ("d", 5), ("b", 2)] {
        add_with(&queue, NewJob { priority, ..new_job(&id(name)) }).await;
    }
    assert_eq!(state(&queue, "a").await, Some(State::Prioritized));
    let counts = queue.counts().await.unwrap();
    assert_eq!((counts.prioritized, counts.waiting), (4, 1));
    let taken = read(&mut queue.reader("worker"), 10).await;
    let names: Vec<String> = taken.iter().map(|delivery| delivery.job.id.to_string()).collect();
    assert_eq!(names, ["a", "b", "c", "d", "plain"]);
    assert_eq!(state(&queue, "c").await, Some(State::Active));
    assert_sound(&queue).await;
    // Whatever comes back keeps its priority.
    let leases: Vec<_> = taken.into_iter().map(|delivery| delivery.lease).collect();
    queue.give_back(&leases).await.unwrap();
    assert_eq!(read_one(&queue, "worker").await.job.id, id("a"));
    assert_sound(&queue).await;
}

#[tokio::test]
async fn a_group_has_no_more_jobs_in_the_stream_than_its_window_and_the_rest_follows_in_order() {
    let queue = queue_with(QueueOptions { events: Events::Failures, group_window: Some(2) }).await;
    for name in ["a1", "a2", "a3", "a4"] {
        add_with(&queue, NewJob { group: Some("a"), ..new_job(&id(name)) }).await;
    }
    add_with(&queue, NewJob { group: Some("b"), ..new_job(&id("b1")) }).await;
    let counts = queue.counts().await.unwrap();
    assert_eq!((counts.waiting, counts.parked), (5, 2));
    assert_sound(&queue).await;
    let mut reader = queue.reader("worker");
    let mut order = Vec::new();
    loop {
        let taken = read(&mut reader, 10).await;
        if taken.is_empty() {
            break;
        }
        assert!(taken.iter().filter(|delivery| delivery.job.head.group == b"a").count() <= 2);
        order.extend(taken.iter().map(|delivery| delivery.job.id.to_string()));
        done(&queue, taken.into_iter().map(|delivery| (delivery.lease, None))).await.unwrap();
        assert_sound(&queue).await;
    }
    assert_eq!(order, ["a1", "a2", "b1", "a3", "a4"]);
    assert_eq!(queue.counts().await.unwrap().parked, 0);
}

#[tokio::test]
async fn a_simple_deduplication_id_is_held_while_its_job_lives() {
    let queue = queue().await;
    let job = |name: &str| NewJob { dedup: Some(Deduplication::simple("d")), ..new_job(&id(name)) };
    assert_eq!(add_with(&queue, job("a")).await, Enqueued::Enqueued);
    assert_eq!(add_with(&queue, job("b")).await, Enqueued::Deduplicated(id("a")));
    let lease = read_one(&queue, "worker").await.lease;
    assert_eq!(add_with(&queue, job("b")).await, Enqueued::Deduplicated(id("a")), "it is active");
    let ended = Done { dedup: Some("d".to_owned()), ..Done::new(lease) };
    queue.done(&[ended], Keep::Nothing).await.unwrap();
    assert_eq!(add_with(&queue, job("b")).await, Enqueued::Enqueued);
    assert_eq!(queue.counts().await.unwrap().totals["deduplicated"], 2);
    assert_sound(&queue).await;
}

#[tokio::test]
async fn a_deduplication_id_whose_job_is_gone_blocks_nobody() {
    let queue = queue().await;
    let job = |name: &str| NewJob { dedup: Some(Deduplication::simple("d")), ..new_job(&id(name)) };
    add_with(&queue, job("a")).await;
    let lease = read_one(&queue, "worker").await.lease;
    done(&queue, [(lease, None)]).await.unwrap(); // by a worker that does not know of it
    assert_eq!(add_with(&queue, job("b")).await, Enqueued::Enqueued);
}

#[tokio::test]
async fn a_throttle_survives_its_job_and_ends_with_its_time() {
    let queue = queue().await;
    let throttle = Deduplication::throttle("d", Duration::from_millis(300));
    let job = |name: &str| NewJob { dedup: Some(throttle), ..new_job(&id(name)) };
    assert_eq!(add_with(&queue, job("a")).await, Enqueued::Enqueued);
    let lease = read_one(&queue, "worker").await.lease;
    queue.done(&[Done { dedup: Some("d".to_owned()), ..Done::new(lease) }], Keep::Nothing).await.unwrap();
    assert_eq!(add_with(&queue, job("b")).await, Enqueued::Deduplicated(id("a")));
    until(SOON, async || add_with(&queue, job("c")).await == Enqueued::Enqueued).await;
}

#[tokio::test]
async fn a_debounce_keeps_the_newest_job_and_starts_its_delay_anew() {
    let queue = queue().await;
    let debounce = Deduplication::debounce("d", LONG);
    let job = |name: &str| NewJob { dedup: Some(debounce), delay: LONG, ..new_job(&id(name)) };
    assert_eq!(add_with(&queue, job("a")).await, Enqueued::Enqueued);
    assert_eq!(add_with(&queue, job("b")).await, Enqueued::Enqueued, "it takes the place of the other");
    assert_eq!(state(&queue, "a").await, None);
    assert!(matches!(state(&queue, "b").await, Some(State::Delayed { .. })));
    assert_eq!(queue.counts().await.unwrap().delayed, 1);
    assert_sound(&queue).await;
}

#[tokio::test]
async fn keep_last_runs_an_active_job_once_more_with_the_newest_content() {
    let queue = queue().await;
    let keep_last = Deduplication::keep_last_if_active("d");
    let job = |name: &str, payload| NewJob {
        dedup: Some(keep_last),
        ..NewJob::new(id(name), Envelope { payload, ..Envelope::default() })
    };
    add_with(&queue, job("a", b"1")).await;
    let lease = read_one(&queue, "worker").await.lease;
    assert_eq!(add_with(&queue, job("b", b"2")).await, Enqueued::Deduplicated(id("a")));
    assert_eq!(add_with(&queue, job("c", b"3")).await, Enqueued::Deduplicated(id("a")));
    done(&queue, [(lease, None)]).await.unwrap();
    let again = read_one(&queue, "worker").await;
    assert_eq!((again.job.id.clone(), again.job.payload()), (id("a"), &b"3"[..]));
    done(&queue, [(again.lease, None)]).await.unwrap();
    assert!(queue.counts().await.unwrap().is_idle());
    assert_sound(&queue).await;
}

#[tokio::test]
async fn finished_jobs_are_kept_as_asked_for_and_a_kept_id_is_taken() {
    let queue = queue().await;
    for name in ["a", "b", "c"] {
        add(&queue, name).await;
        let lease = read_one(&queue, "worker").await.lease;
        let ended = Done { result: Some("7".to_owned()), ..Done::new(lease) };
        queue.done(&[ended], Keep::Newest { count: Some(2), age: None }).await.unwrap();
    }
    assert_eq!(state(&queue, "a").await, None);
    let found = queue.find(&id("c")).await.unwrap().unwrap();
    assert!(matches!(found.state, State::Completed { .. }), "{:?}", found.state);
    assert_eq!(found.log.result.as_deref(), Some("7"));
    assert_eq!(queue.counts().await.unwrap().completed, 2);
    assert_eq!(add(&queue, "b").await, Enqueued::Duplicate);
    let newer = NewJob { version: Some(Version(u64::MAX)), ..new_job(&id("b")) };
    assert_eq!(add_with(&queue, newer).await, Enqueued::Enqueued);
    assert_eq!(queue.counts().await.unwrap().completed, 1);
    assert_sound(&queue).await;
}

#[tokio::test]
async fn a_job_brings_its_options_along() {
    let queue = queue().await;
    let options = JobOptions { attempts: Some(7), dedup: Some("d".to_owned()), ..JobOptions::default() };
    let bytes = options.encode();
    let envelope = Envelope { payload: b"{}", options: Some(&bytes), ..Envelope::default() };
    add_with(&queue, NewJob::new(id("a"), envelope)).await;
    assert_eq!(read_one(&queue, "worker").await.job.options.as_deref(), Some(&options));
}

#[tokio::test]
async fn what_no_job_can_have_is_refused_before_anything_is_added() {
    let queue = queue().await;
    let refused = |job: NewJob<'static>| {
        let queue = queue.clone();
        async move { queue.add(&[new_job(&id("good")), job], PAYLOAD_MAX).await.unwrap_err() }
    };
    let priority = refused(NewJob { priority: 2_097_152, ..new_job(&id("p")) }).await;
    assert!(matches!(priority, QueueError::Priority { priority: 2_097_152, .. }));
    let dedup = refused(NewJob { dedup: Some(Deduplication::simple("")), ..new_job(&id("d")) }).await;
    assert!(dedup.to_string().contains("job d has a deduplication id of 0 bytes; accepted: 1 to 4096"), "{dedup}");
    assert!(queue.counts().await.unwrap().is_idle());
}
