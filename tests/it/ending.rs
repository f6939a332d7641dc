//! SIGTERM: a worker finishes or gives back what it holds, in time, and no job pays for it.

use std::time::Duration;

use feedmill::{job::Head, pipeline::Queues, queue::Queue};
use redis::AsyncCommands;

use crate::support::{
    eventually::eventually,
    feed_server::{FeedServer, Page, small_items},
    process::{Mill, PATIENCE, redis_connection},
    servers::{OwnMongod, OwnRedis},
};

const ITEMS: u64 = 10_000;

/// Far below shutdown_timeout, and enough for a process to end on a loaded machine.
const AT_ONCE: Duration = Duration::from_secs(5);

fn large_import(mill: &mut Mill, server: &FeedServer) {
    server.put("/large", Page::generated(small_items(ITEMS as usize, 1)));
    mill.feed("large", &server.url("/large"), Some("large"));
    mill.set("stream.job_import_queue.concurrency", 4);
    mill.set("stream.job_import_queue.batch_size", 50);
}

async fn in_the_middle(mill: &Mill) {
    let documents = mill.documents().await;
    eventually("a part of the documents", PATIENCE, async || {
        (documents.estimated_document_count().await.unwrap() > 1000).then_some(())
    })
    .await;
}

/// Waits until the worker holds jobs; while MongoDB is frozen it keeps them.
async fn holds_jobs(queues: &Queues) {
    eventually("the worker holds jobs", PATIENCE, async || {
        (queues.import.counts().await.unwrap().active > 0).then_some(())
    })
    .await;
}

/// Nothing is held, no consumer is left, and no job has paid for it.
async fn assert_all_given_back(queues: &Queues) {
    for queue in [&queues.import, &queues.fetch] {
        let counts = queue.counts().await.unwrap();
        assert_eq!((counts.active, counts.delayed, counts.failed), (0, 0, 0), "{counts:?}");
        assert!(!["retried", "failed", "stalled"].iter().any(|total| counts.totals.contains_key(*total)), "{counts:?}");
        assert_eq!(queue.live_consumers().await.unwrap(), Vec::<String>::new());
        for head in heads(queue).await {
            assert_eq!((head.attempts, head.stalls), (0, 0), "{head:?}");
        }
    }
    assert!(queues.import.counts().await.unwrap().waiting > 0, "there is something left to do");
}

/// The heads of all jobs of a queue.
async fn heads(queue: &Queue) -> Vec<Head> {
    let mut redis = redis_connection(queue.redis().address()).await;
    let guards: Vec<String> = {
        let mut scan = redis.scan_match(format!("{}*", queue.keys().job_prefix())).await.unwrap();
        let mut found = Vec::new();
        while let Some(key) = scan.next_item().await {
            found.push(key.unwrap());
        }
        found
    };
    let mut heads = Vec::new();
    for guards in guards.chunks(1000) {
        let values: Vec<Vec<u8>> = redis.mget(guards).await.unwrap();
        heads.extend(values.iter().map(|value| Head::decode(value).unwrap()));
    }
    heads
}

#[tokio::test]
async fn a_worker_that_is_told_to_end_leaves_nothing_pending_and_another_one_finishes() {
    let (server, mut mill) = (FeedServer::start(), Mill::new());
    large_import(&mut mill, &server);
    let mut worker = mill.worker().await;
    let queues = mill.queues().await;
    mill.fetch(&["large"]).await;
    in_the_middle(&mill).await;
    worker.term();
    let (status, took) = worker.wait(PATIENCE).await;
    assert_eq!(status.code(), Some(0));
    assert!(took < Duration::from_secs(10), "within shutdown_timeout: {took:?}");
    assert_all_given_back(&queues).await;

    let _other = mill.worker().await;
    mill.through(&queues).await;
    mill.assert_clean(&queues, ITEMS).await;
    let record = &mill.records().await[0];
    assert_eq!([record.new, record.inserted], [ITEMS, ITEMS], "what was written was also settled");
}

#[tokio::test]
async fn a_worker_that_cannot_finish_gives_everything_back_at_shutdown_timeout() {
    let (server, mongod) = (FeedServer::start(), OwnMongod::start());
    let mut mill = Mill::on_mongod(&mongod);
    large_import(&mut mill, &server);
    for queue in ["job_import_queue", "feed_fetch_queue"] {
        mill.set(&format!("stream.{queue}.shutdown_timeout"), "3s");
    }
    let mut worker = mill.worker().await;
    let queues = mill.queues().await;
    mill.fetch(&["large"]).await;
    in_the_middle(&mill).await;
    mongod.stop();
    holds_jobs(&queues).await;
    worker.term();
    let (status, took) = worker.wait(PATIENCE).await;
    assert_eq!(status.code(), Some(0));
    let timeout = Duration::from_secs(3);
    assert!(
        took >= timeout.checked_sub(Duration::from_millis(500)).unwrap() && took < timeout + AT_ONCE,
        "at shutdown_timeout: {took:?}"
    );
    assert_all_given_back(&queues).await;

    mongod.cont();
    let _other = mill.worker().await;
    mill.through(&queues).await;
    mill.assert_clean(&queues, ITEMS).await;
}

#[tokio::test]
async fn a_second_signal_ends_a_worker_at_once() {
    let (server, mongod) = (FeedServer::start(), OwnMongod::start());
    let mut mill = Mill::on_mongod(&mongod);
    large_import(&mut mill, &server);
    let mut worker = mill.worker().await;
    let queues = mill.queues().await;
    mill.fetch(&["large"]).await;
    in_the_middle(&mill).await;
    mongod.stop();
    holds_jobs(&queues).await;
    worker.term();
    eventually("the first signal is heard", PATIENCE, async || {
        worker.stderr().contains("a second signal").then_some(())
    })
    .await;
    worker.term();
    let (status, took) = worker.wait(PATIENCE).await;
    assert_eq!(status.code(), Some(130));
    assert!(took < AT_ONCE, "{took:?}");
    assert!(queues.import.counts().await.unwrap().active > 0, "what it held is claimed later");

    mongod.cont();
    let _other = mill.worker().await;
    mill.through(&queues).await;
    mill.assert_clean(&queues, ITEMS).await;
}

#[tokio::test]
async fn an_idle_worker_ends_at_once() {
    let mill = Mill::new();
    let mut worker = mill.worker().await;
    worker.term();
    let (status, took) = worker.wait(PATIENCE).await;
    assert_eq!(status.code(), Some(0));
    assert!(took < AT_ONCE, "{took:?}");
    assert!(mill.queues().await.import.live_consumers().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_worker_ends_in_time_though_redis_is_frozen() {
    let redis = OwnRedis::start(&[]);
    let mut mill = Mill::on_redis(&redis);
    for queue in ["job_import_queue", "feed_fetch_queue"] {
        mill.set(&format!("stream.{queue}.shutdown_timeout"), "1s");
    }
    let mut worker = mill.worker().await;
    redis.stop();
    worker.term();
    let (status, took) = worker.wait(PATIENCE).await;
    redis.cont();
    assert!(status.success(), "{status}");
    // shutdown_timeout, and a little for a Redis that might still answer
    assert!(took < Duration::from_secs(1) + AT_ONCE, "{took:?}");
}
