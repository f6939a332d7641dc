//! A handle on a worker that runs: concurrency and pause.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use feedmill::{job::Outcome, queue::Queue, worker::WorkerOptions};
use tokio::sync::Semaphore;

use super::{DEADLINE, Seen};
use crate::support::{
    audit::assert_sound,
    jobs::{add, add_many, queue, queue_at, wait_until_blocked},
    servers::OwnRedis,
    wait::until,
    workers::{Running, batches, each, options},
};

/// Jobs that run until they are let go, and how many of them do.
struct Held {
    running: Arc<AtomicUsize>,
    go: Arc<Semaphore>,
}

/// A worker of such jobs.
fn holding(queue: &Queue, concurrency: usize) -> (Running, Held) {
    let held = Held { running: Arc::default(), go: Arc::new(Semaphore::new(0)) };
    let (running, go) = (held.running.clone(), held.go.clone());
    let worker = each(queue, WorkerOptions { concurrency, ..options() }, move |_| {
        running.fetch_add(1, SeqCst);
        let (running, go) = (running.clone(), go.clone());
        async move {
            go.acquire().await.unwrap().forget();
            running.fetch_sub(1, SeqCst);
            Ok(Outcome::Done)
        }
    });
    (worker, held)
}

/// That a number stays what it is, for longer than the worker needs to act.
async fn stays(number: &AtomicUsize, wanted: usize) {
    for _ in 0..20 {
        assert_eq!(number.load(SeqCst), wanted);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn concurrency_is_changed_while_the_worker_runs() {
    let queue = queue().await;
    let (worker, held) = holding(&queue, 1);
    add_many(&queue, "job", 20).await;
    until(DEADLINE, async || held.running.load(SeqCst) == 1).await;
    stays(&held.running, 1).await;
    assert_eq!(worker.handle.concurrency(), 1);
    worker.handle.set_concurrency(5);
    until(DEADLINE, async || held.running.load(SeqCst) == 5).await;
    stays(&held.running, 5).await;
    // Fewer: what runs goes on, and its slots are not filled again.
    worker.handle.set_concurrency(2);
    held.go.add_permits(3);
    until(DEADLINE, async || held.running.load(SeqCst) == 2).await;
    held.go.add_permits(1);
    until(DEADLINE, async || queue.counts().await.unwrap().totals.get("completed") == Some(&4)).await;
    until(DEADLINE, async || held.running.load(SeqCst) == 2).await;
    stays(&held.running, 2).await;
    worker.handle.set_concurrency(0);
    assert_eq!(worker.handle.concurrency(), 1, "none at all is a pause");
    held.go.add_permits(20);
    until(DEADLINE, async || queue.counts().await.unwrap().is_idle()).await;
    worker.stop().await;
    assert_sound(&queue).await;
}

#[tokio::test]
async fn an_idle_worker_takes_more_at_once_when_its_concurrency_was_raised() {
    let server = OwnRedis::start(&[]);
    let queue = queue_at(&server.url()).await;
    let (worker, held) = holding(&queue, 1);
    // It blocks for one job.
    wait_until_blocked(&server).await;
    worker.handle.set_concurrency(3);
    let began = Instant::now();
    add_many(&queue, "job", 3).await;
    until(DEADLINE, async || held.running.load(SeqCst) == 3).await;
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    held.go.add_permits(3);
    worker.stop().await;
    assert_sound(&queue).await;
}

#[tokio::test]
async fn a_paused_worker_finishes_what_it_has_and_leaves_the_rest_to_others() {
    let queue = queue().await;
    let (worker, held) = holding(&queue, 2);
    add_many(&queue, "job", 4).await;
    until(DEADLINE, async || held.running.load(SeqCst) == 2).await;
    worker.handle.pause();
    assert!(worker.handle.is_paused());
    let resting = tokio::spawn({
        let handle = worker.handle.clone();
        async move { handle.at_rest().await }
    });
    stays(&held.running, 2).await;
    assert!(!resting.is_finished(), "it has two in hand");
    held.go.add_permits(10);
    resting.await.unwrap();
    let counts = queue.counts().await.unwrap();
    assert_eq!((counts.active, counts.waiting, counts.totals["completed"]), (0, 2, 2));
    // What comes now is another worker's.
    let (other, others) = holding(&queue, 1);
    others.go.add_permits(10);
    add(&queue, "later").await;
    until(DEADLINE, async || queue.counts().await.unwrap().totals["completed"] == 5).await;
    other.stop().await;
    add(&queue, "last").await;
    stays(&held.running, 0).await;
    assert_eq!(queue.counts().await.unwrap().waiting, 1);
    worker.handle.resume();
    until(DEADLINE, async || queue.counts().await.unwrap().is_idle()).await;
    worker.handle.pause();
    worker.handle.at_rest().await;
    let ending = Instant::now();
    worker.stop().await;
    assert!(ending.elapsed() < Duration::from_secs(3), "a paused worker ends at once");
    assert_sound(&queue).await;
}

#[tokio::test]
async fn a_paused_worker_flushes_its_buffer() {
    let queue = queue().await;
    let sizes = Seen::nothing();
    let hour = Duration::from_hours(1);
    let options = WorkerOptions { batch_size: 10, flush: hour, ..options() };
    let worker = batches(&queue, options, {
        let sizes = sizes.clone();
        move |jobs| {
            sizes.push(jobs.len());
            async move { Ok(vec![Outcome::Done; jobs.len()]) }
        }
    });
    add_many(&queue, "job", 3).await;
    worker.handle.pause();
    worker.handle.at_rest().await;
    let done: usize = sizes.all().iter().sum();
    let counts = queue.counts().await.unwrap();
    assert_eq!((counts.active, counts.waiting), (0, 3 - done as u64));
    worker.stop().await;
    assert_sound(&queue).await;
}
