//! How much a worker reads, how soon, and what it cannot read.

use std::time::{Duration, Instant};

use feedmill::{job::Outcome, worker::WorkerOptions};

use super::{DEADLINE, held_batches, idle, noting_starts};
use crate::support::{
    audit::assert_sound,
    jobs::{add, add_many, add_version, queue, queue_at, queue_under, rejected_calls, url_of_user_with},
    servers::OwnRedis,
    wait::until,
    workers::{each, options, quick_claims},
};

#[tokio::test]
async fn an_idle_queue_starts_a_job_within_milliseconds() {
    let queue = queue().await;
    let (worker, seen) = noting_starts(&queue);
    let mut delays = Vec::new();
    for n in 0..21 {
        idle(&queue).await;
        let added_at = Instant::now();
        add(&queue, format!("{n}")).await;
        until(DEADLINE, async || seen.len() > n).await;
        delays.push(seen.all()[n].saturating_duration_since(added_at));
    }
    worker.stop().await;
    delays.sort();
    assert!(delays[10] < Duration::from_millis(20), "{delays:?}");
    assert_sound(&queue).await;
}

#[tokio::test]
async fn a_worker_holds_no_more_jobs_than_its_slots_take() {
    let queue = queue().await;
    add_many(&queue, "job", 50).await;
    let options = WorkerOptions { concurrency: 2, batch_size: 5, ..options() };
    let (worker, seen, go_on) = held_batches(&queue, options);
    until(DEADLINE, async || seen.len() == 2).await;
    assert_eq!(seen.all(), [5, 5]);
    let now = queue.counts().await.unwrap();
    assert_eq!((now.active, now.waiting), (10, 40));
    go_on.add_permits(100);
    idle(&queue).await;
    worker.stop().await;
    assert_eq!(seen.all().iter().sum::<usize>(), 50);
    assert!(seen.all().iter().all(|size| *size <= 5), "{:?}", seen.all());
    assert_sound(&queue).await;
}

#[tokio::test]
async fn a_worker_that_reads_ahead_takes_no_more_than_its_slots_and_fills_them() {
    for concurrency in [1, 3, 100, 600] {
        let queue = queue().await;
        add_many(&queue, "job", 1000).await;
        let (worker, seen, go_on) = held_batches(&queue, WorkerOptions { concurrency, ..options() });
        until(DEADLINE, async || seen.len() == concurrency).await;
        assert_eq!(queue.counts().await.unwrap().active, concurrency as u64);
        go_on.add_permits(1000);
        idle(&queue).await;
        worker.stop().await;
        assert_eq!(seen.len(), 1000);
        assert_sound(&queue).await;
    }
}

#[tokio::test]
async fn jobs_that_cannot_be_looked_up_stay_pending_are_not_taken_in_masses_and_are_done_later() {
    let redis = OwnRedis::start(&[]);
    let admin = queue_at(&redis.url()).await;
    let url = url_of_user_with(&redis, "-mget").await;
    let queue = queue_under(&url, admin.redis().prefix()).await;
    add_many(&queue, "job", 200).await;
    let since = Instant::now();
    let worker = each(&queue, quick_claims(Duration::from_millis(100)), |_| async { Ok(Outcome::Done) });
    until(DEADLINE, async || rejected_calls(&admin, "mget").await >= 3).await;
    assert!(since.elapsed() >= Duration::from_millis(500), "it reads on at once: {:?}", since.elapsed());
    url_of_user_with(&redis, "+mget").await;
    idle(&queue).await;
    worker.stop().await;
    assert_eq!(queue.counts().await.unwrap().totals["completed"], 200);
    assert_sound(&queue).await;
}

#[tokio::test]
async fn a_worker_holds_no_more_bytes_than_its_buffer_takes_and_one_job_always_fits() {
    let queue = queue().await;
    for n in 0..4 {
        add_version(&queue, &format!("{n}"), 1, &[b'x'; 3000]).await;
    }
    let options = WorkerOptions { concurrency: 1, batch_size: 1, buffer_bytes: 1000, ..options() };
    let (worker, seen, go_on) = held_batches(&queue, options);
    until(DEADLINE, async || seen.len() == 1).await;
    assert_eq!(queue.counts().await.unwrap().active, 1);
    go_on.add_permits(100);
    idle(&queue).await;
    worker.stop().await;
    assert_eq!(seen.len(), 4);
    assert_sound(&queue).await;
}
