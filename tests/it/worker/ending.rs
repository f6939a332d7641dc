//! The end of a worker: what is in hand is finished or given back.

use std::time::{Duration, Instant};

use feedmill::{job::Outcome, queue::GROUP, worker::WorkerOptions};
use redis::{AsyncCommands, streams::StreamInfoConsumersReply};

use super::{DEADLINE, held_batches, idle};
use crate::support::{
    audit::assert_sound,
    jobs::{add, add_many, connection, queue, read_one},
    wait::until,
    workers::{each, options},
};

#[tokio::test]
async fn winding_down_finishes_what_is_in_hand_and_removes_the_consumer() {
    let queue = queue().await;
    add_many(&queue, "job", 20).await;
    let options = WorkerOptions { concurrency: 1, batch_size: 10, flush: Duration::from_hours(1), ..options() };
    let (worker, seen, go_on) = held_batches(&queue, options);
    until(DEADLINE, async || seen.len() == 1).await;
    let ending = tokio::spawn(worker.stop());
    go_on.add_permits(100);
    let ended = ending.await.unwrap();
    assert_eq!(ended.given_back, 0);
    let now = queue.counts().await.unwrap();
    assert_eq!((now.active, now.waiting + now.totals["completed"]), (0, 20));
    let consumers: StreamInfoConsumersReply =
        connection(&queue).await.xinfo_consumers(queue.keys().stream(), GROUP).await.unwrap();
    assert!(consumers.consumers.is_empty());
    assert!(queue.live_consumers().await.unwrap().is_empty());
    assert_sound(&queue).await;
}

#[tokio::test]
async fn what_is_not_through_at_the_end_of_shutdown_timeout_is_given_back() {
    let queue = queue().await;
    add_many(&queue, "job", 3).await;
    let options = WorkerOptions { shutdown_timeout: Duration::from_millis(100), ..options() };
    let (worker, seen, _go_on) = held_batches(&queue, options);
    until(DEADLINE, async || seen.len() == 3).await;
    assert_eq!(worker.stop().await.given_back, 3);
    let now = queue.counts().await.unwrap();
    assert_eq!((now.waiting, now.active, now.totals.get("stalled")), (3, 0, None));
    assert_eq!(read_one(&queue, "heir").await.job.attempt(), 1);
    assert_sound(&queue).await;
}

#[tokio::test]
async fn an_idle_worker_ends_at_once() {
    let queue = queue().await;
    let worker = each(&queue, options(), |_| async { Ok(Outcome::Done) });
    add(&queue, "a").await;
    idle(&queue).await;
    let since = Instant::now();
    worker.stop().await;
    assert!(since.elapsed() < Duration::from_secs(1), "{:?}", since.elapsed());
}
