//! What goes on beside the jobs: pauses, plain entries, the promoter and the janitor.

use std::time::{Duration, Instant};

use feedmill::{
    job::Outcome,
    queue::{dead_letter::Retention, settle::BackOff},
    worker::WorkerOptions,
};
use redis::AsyncCommands;

use super::{DEADLINE, Seen, idle, letters, noting_starts};
use crate::support::{
    audit::assert_sound,
    jobs::{Fetch, add, add_many, connection, id, queue, read_one},
    wait::until,
    workers::{batches, each, options},
};

#[tokio::test]
async fn a_paused_queue_starts_nothing_and_goes_on_after_resume() {
    let queue = queue().await;
    let (worker, seen) = noting_starts(&queue);
    add(&queue, "before").await;
    idle(&queue).await;
    queue.pause().await.unwrap();
    add_many(&queue, "job", 5).await;
    assert_eq!(queue.counts().await.unwrap().active, 0);
    assert_eq!(seen.len(), 1);
    let resumed_at = Instant::now();
    queue.resume().await.unwrap();
    until(DEADLINE, async || seen.len() == 6).await;
    let began = seen.all()[1] - resumed_at;
    assert!(began < Duration::from_millis(500), "{began:?}");
    idle(&queue).await;
    worker.stop().await;
    assert_sound(&queue).await;
}

#[tokio::test]
async fn a_plain_producers_entries_are_worked_on_and_unreadable_ones_are_dead_letters() {
    let queue = queue().await;
    let seen = Seen::nothing();
    let worker = batches(&queue, WorkerOptions { batch_size: 10, ..options() }, {
        let seen = seen.clone();
        move |jobs| {
            for job in &jobs {
                seen.push(job.job.id.clone());
            }
            async move { Ok(vec![Outcome::Done; jobs.len()]) }
        }
    });
    let mut redis = connection(&queue).await;
    for fields in [[("json", "\"a\"")], [("json", "{")], [("json", "\"\"")], [("colour", "blue")], [("json", "\"b\"")]]
    {
        let _: String = redis.xadd(queue.keys().stream(), "*", &fields).await.unwrap();
    }
    until(DEADLINE, async || seen.len() == 2).await;
    idle(&queue).await;
    worker.stop().await;
    assert_eq!(seen.all(), [id("a"), id("b")]);
    let letters = letters(&queue).await;
    assert_eq!(letters.len(), 3);
    assert_eq!((letters[0].raw.as_deref(), letters[0].id.clone()), (Some(&b"{"[..]), None));
    assert!(letters[0].reason.contains("expected a string"), "{}", letters[0].reason);
    assert_eq!(letters[1].reason, "a job id must not be empty");
    assert_sound(&queue).await;
}

#[tokio::test]
async fn a_job_handler_that_takes_no_plain_entries_buries_them() {
    let queue = queue().await;
    let worker = each(&queue, options(), |_| async { Ok(Outcome::Done) });
    let _: String = connection(&queue).await.xadd(queue.keys().stream(), "*", &[("json", "{}")]).await.unwrap();
    until(DEADLINE, async || queue.counts().await.unwrap().failed == 1).await;
    worker.stop().await;
    assert_eq!(letters(&queue).await[0].reason, "this queue takes no plain json entries");
}

#[tokio::test]
async fn a_job_in_backoff_that_is_due_early_wakes_the_promoter_of_another_process() {
    let queue = queue().await;
    add(&queue, "late").await;
    let lease = read_one(&queue, "elsewhere").await.lease;
    let seen = Seen::nothing();
    let worker = each(&queue, options(), {
        let seen = seen.clone();
        move |job| {
            seen.push(job.job.attempt());
            async { Ok(Outcome::Done) }
        }
    });
    // the worker is through with its first job, and its promoter sleeps: nothing is in backoff
    add(&queue, "other").await;
    until(DEADLINE, async || seen.len() == 1).await;
    let back_off = BackOff { lease, wait: Duration::from_millis(100), reason: Some("no".to_owned()) };
    queue.back_off(&[back_off]).await.unwrap();
    let since = Instant::now();
    until(DEADLINE, async || seen.all().contains(&2)).await;
    assert!(since.elapsed() < Duration::from_secs(2), "{:?}", since.elapsed());
    idle(&queue).await;
    worker.stop().await;
    assert_sound(&queue).await;
}

#[tokio::test]
async fn the_janitor_keeps_only_so_many_dead_letters() {
    let queue = queue().await;
    let fetch = Fetch::begin(&queue, "feed").await;
    fetch.enqueue(&queue, &["a", "b", "c"]).await;
    let bury = each(&queue, options(), |_| async { Ok(Outcome::Fail("bad".to_owned())) });
    until(DEADLINE, async || queue.counts().await.unwrap().failed == 3).await;
    bury.stop().await;
    let retention = Retention { count: Some(1), age: None };
    let worker = each(&queue, WorkerOptions { retention, ..options() }, |_| async { Ok(Outcome::Done) });
    until(DEADLINE, async || queue.counts().await.unwrap().failed == 1).await;
    worker.stop().await;
    assert_sound(&queue).await;
}
