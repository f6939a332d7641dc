//! Jobs that are cancelled, and what their handlers learn of it.

use std::{sync::Arc, time::Duration};

use feedmill::{
    job::Outcome,
    queue::operated::{Operated, StateName},
};
use redis::AsyncCommands;
use tokio::sync::mpsc;

use super::state;
use crate::support::{
    audit::assert_sound,
    jobs::{Fetch, add, add_many, connection, counts, id, queue, read, read_one},
    workers::{batches, each, options},
};

#[tokio::test]
async fn a_cancelled_job_can_be_redriven_and_its_import_counts_it() {
    let queue = queue().await;
    let fetch = Fetch::begin(&queue, "feed").await;
    fetch.enqueue(&queue, &["a"]).await;
    queue.cancel(&id("a")).await.unwrap();
    assert_eq!(fetch.counts(&queue).await, counts(&[("new", 1), ("failed", 1), ("failures", 1)]));
    assert_eq!(queue.counts().await.unwrap().totals["failed"], 1);
    assert_sound(&queue).await;
    assert_eq!(queue.retry(&[id("a")]).await.unwrap(), [Operated::Done]);
    assert_eq!(read_one(&queue, "worker").await.job.attempt(), 1);
    assert_sound(&queue).await;
}

#[tokio::test]
async fn notes_for_a_consumer_that_does_not_take_them_are_bounded_and_expire() {
    let queue = queue().await;
    let mut redis = connection(&queue).await;
    let notes = queue.keys().consumer_cancelled("worker");
    let () = redis.sadd(&notes, (0..1000).collect::<Vec<_>>()).await.unwrap();
    add_many(&queue, "job", 2).await;
    read(&mut queue.reader("worker"), 2).await;
    assert_eq!(queue.cancel(&id("job-0")).await.unwrap(), Operated::Done);
    let () = redis.del(&notes).await.unwrap();
    assert_eq!(queue.cancel(&id("job-1")).await.unwrap(), Operated::Done);
    let (n, left): (u64, i64) = (redis.scard(&notes).await.unwrap(), redis.pttl(&notes).await.unwrap());
    assert!(n == 1 && (1..=60_000).contains(&left), "{n} for {left} ms");
    assert_eq!(queue.counts().await.unwrap().failed, 2);
}

#[tokio::test]
async fn a_running_handler_learns_that_its_job_was_cancelled_and_the_others_go_on() {
    let queue = queue().await;
    let (started, mut starts) = mpsc::unbounded_channel();
    let (told, mut tells) = mpsc::unbounded_channel();
    let worker = each(&queue, options(), move |job| {
        let (started, told) = (started.clone(), told.clone());
        async move {
            started.send(()).unwrap();
            job.cancelled.cancelled().await;
            told.send(job.job.id).unwrap();
            Ok(Outcome::Done)
        }
    });
    // Idle first: the worker must not sleep through its heartbeat when it gets jobs.
    add_many(&queue, "job", 2).await;
    for _ in 0..2 {
        starts.recv().await.unwrap();
    }
    let cancelled_at = tokio::time::Instant::now();
    queue.cancel(&id("job-1")).await.unwrap();
    assert_eq!(tells.recv().await, Some(id("job-1")));
    let took = cancelled_at.elapsed();
    assert!(took < Duration::from_secs(3), "about a second, took {took:?}");
    assert!(tells.try_recv().is_err());
    assert_eq!(state(&queue, &id("job-1")).await, Some(StateName::Failed), "what it says changes nothing");
    assert_eq!(state(&queue, &id("job-0")).await, Some(StateName::Active));
    queue.cancel(&id("job-0")).await.unwrap();
    tells.recv().await.unwrap();
    worker.stop().await;
    assert_eq!(queue.counts().await.unwrap().totals.get("completed"), None);
    assert_sound(&queue).await;
}

#[tokio::test]
async fn a_handler_that_does_not_end_is_stopped_and_its_slot_is_free() {
    /// Tells that it was dropped.
    struct Stopped(mpsc::UnboundedSender<()>);
    impl Drop for Stopped {
        fn drop(&mut self) {
            // at the end of the test nobody listens
            let _ = self.0.send(());
        }
    }
    let queue = queue().await;
    let (started, mut starts) = mpsc::unbounded_channel();
    let (stopped, mut stops) = mpsc::unbounded_channel();
    let one_at_a_time = feedmill::worker::WorkerOptions { concurrency: 1, ..options() };
    let worker = each(&queue, one_at_a_time, move |job| {
        let (started, stopped) = (started.clone(), stopped.clone());
        async move {
            started.send(job.job.id.clone()).unwrap();
            if job.job.id == id("stuck") {
                let _stopped = Stopped(stopped);
                std::future::pending::<()>().await;
            }
            Ok(Outcome::Done)
        }
    });
    add(&queue, "stuck").await;
    assert_eq!(starts.recv().await, Some(id("stuck")));
    add(&queue, "next").await;
    queue.cancel(&id("stuck")).await.unwrap();
    let stopped = tokio::time::timeout(Duration::from_secs(20), stops.recv()).await;
    assert_eq!(stopped.expect("a while after it was told"), Some(()));
    assert_eq!(starts.recv().await, Some(id("next")));
    worker.stop().await;
    let now = queue.counts().await.unwrap();
    assert_eq!((now.failed, now.totals["completed"], now.active), (1, 1, 0));
    assert_eq!(now.totals.get("retried"), None, "it used no attempt");
    assert_sound(&queue).await;
}

#[tokio::test]
async fn one_cancelled_job_of_a_batch_does_not_end_the_batch() {
    let queue = queue().await;
    let (started, mut starts) = mpsc::unbounded_channel();
    let go_on = Arc::new(tokio::sync::Notify::new());
    let options = feedmill::worker::WorkerOptions { batch_size: 3, ..options() };
    let worker = batches(&queue, options, {
        let go_on = go_on.clone();
        move |jobs| {
            let (started, go_on) = (started.clone(), go_on.clone());
            async move {
                started.send(jobs.len()).unwrap();
                let cancelled = jobs.iter().find(|job| job.job.id == id("job-1")).unwrap();
                cancelled.cancelled.cancelled().await;
                go_on.notified().await;
                Ok(vec![Outcome::Done; jobs.len()])
            }
        }
    });
    add_many(&queue, "job", 3).await;
    assert_eq!(starts.recv().await, Some(3));
    queue.cancel(&id("job-1")).await.unwrap();
    go_on.notify_one();
    let now = async || queue.counts().await.unwrap();
    crate::support::wait::until(Duration::from_secs(10), async || now().await.totals.get("completed") == Some(&2))
        .await;
    worker.stop().await;
    assert_eq!((now().await.failed, now().await.active), (1, 0));
    assert_sound(&queue).await;
}

#[tokio::test]
async fn a_handler_learns_that_its_lease_was_lost() {
    let queue = queue().await;
    let (told, mut tells) = mpsc::unbounded_channel();
    let (started, mut starts) = mpsc::unbounded_channel();
    let mut options = options();
    options.claim.lock_duration = Duration::from_millis(200); // renewed at half of it
    let worker = each(&queue, options, move |job| {
        let (started, told) = (started.clone(), told.clone());
        async move {
            started.send(job.lease.clone()).unwrap();
            job.cancelled.cancelled().await;
            told.send(()).unwrap();
            Ok(Outcome::Done)
        }
    });
    add(&queue, "a").await;
    let lease = starts.recv().await.unwrap();
    queue.pause().await.unwrap(); // or the worker would read it again
    queue.give_back(&[lease]).await.unwrap();
    tells.recv().await.unwrap();
    worker.stop().await;
    assert_eq!(state(&queue, &id("a")).await, Some(StateName::Waiting));
    assert_sound(&queue).await;
}
