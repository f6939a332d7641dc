//! Processes that are killed in the middle of an import: workers, and Redis.

use std::time::Duration;

use feedmill::pipeline::Queues;
use mongodb::bson::doc;

use crate::support::{
    eventually::eventually,
    feed_server::{FeedServer, Page, small_items},
    jobs::{rejected_calls, url_of_user_with},
    process::{Mill, PATIENCE, Running, redis_connection},
    servers::OwnRedis,
};

const ITEMS: usize = 20_000;

/// A feed of 20,000 items, and workers that take small batches.
fn large_import(mill: &mut Mill, server: &FeedServer) {
    server.put("/large", Page::generated(small_items(ITEMS, 1)));
    mill.feed("large", &server.url("/large"), Some("large"));
    mill.set("stream.job_import_queue.concurrency", 4);
    mill.set("stream.job_import_queue.batch_size", 50);
}

/// Waits until some of the documents are there, and checks that most are not.
async fn in_the_middle(mill: &Mill) {
    let documents = mill.documents().await;
    let stored = eventually("a part of the documents", PATIENCE, async || {
        let stored = documents.estimated_document_count().await.unwrap();
        (stored > 2000).then_some(stored)
    })
    .await;
    assert!(stored < ITEMS as u64 / 2, "too late to be the middle: {stored}");
}

/// Checks that one import brought everything, none of it twice.
async fn assert_imported_once(mill: &Mill, queues: &Queues) {
    mill.through(queues).await;
    mill.assert_clean(queues, ITEMS as u64).await;
    let records = mill.records().await;
    assert_eq!(records.len(), 1);
    let record = &records[0];
    assert_eq!([record.items, record.new, record.failed, record.stale], [ITEMS as u64, ITEMS as u64, 0, 0]);
    assert_eq!(record.inserted + record.updated, ITEMS as u64);
    // A write whose worker died before it could say so is found done by the next one.
    let of_this = doc! { "importId": &record.id };
    assert_eq!(mill.documents().await.count_documents(of_this).await.unwrap(), ITEMS as u64);
}

#[tokio::test]
async fn a_worker_that_is_killed_leaves_its_jobs_to_the_other() {
    let (server, mut mill) = (FeedServer::start(), Mill::new());
    large_import(&mut mill, &server);
    let mut workers: Vec<Running> = vec![mill.worker().await, mill.worker().await];
    let queues = mill.queues().await;
    mill.fetch(&["large"]).await;
    in_the_middle(&mill).await;
    workers[0].kill9_while_it_holds(&queues.import).await;
    assert_imported_once(&mill, &queues).await;
    let counts = queues.import.counts().await.unwrap();
    assert!(counts.totals.get("stalled").is_some_and(|stalled| *stalled > 0), "it held jobs: {counts:?}");
    assert_eq!(counts.totals.get("retried"), None, "a stall is no attempt");
}

#[tokio::test]
async fn the_only_worker_is_killed_and_another_one_goes_on() {
    let (server, mut mill) = (FeedServer::start(), Mill::new());
    large_import(&mut mill, &server);
    let mut worker = mill.worker().await;
    let queues = mill.queues().await;
    mill.fetch(&["large"]).await;
    in_the_middle(&mill).await;
    worker.kill9_while_it_holds(&queues.import).await;
    let _other = mill.worker().await;
    assert_imported_once(&mill, &queues).await;
}

/// What a worker was delivered and has not looked up yet is known to nobody but Redis.
#[tokio::test]
async fn a_worker_that_is_killed_between_delivery_and_look_up_leaves_every_job_to_the_next() {
    const ITEMS: u64 = 500;
    let (server, redis) = (FeedServer::start(), OwnRedis::start(&[]));
    let mut mill = Mill::on_redis(&redis);
    server.put("/a", Page::generated(small_items(ITEMS as usize, 1)));
    mill.feed("a", &server.url("/a"), Some("a"));
    mill.set("stream.job_import_queue.concurrency", 4);
    mill.set("stream.job_import_queue.batch_size", 50);
    let queues = mill.queues().await;
    queues.import.pause().await.unwrap();
    let mut worker = mill.worker().await;
    mill.fetch(&["a"]).await;
    eventually("all items wait", PATIENCE, async || {
        let (fetch, import) = (queues.fetch.counts().await.unwrap(), queues.import.counts().await.unwrap());
        (fetch.is_idle() && import.waiting == ITEMS).then_some(())
    })
    .await;
    worker.term();
    assert_eq!(worker.wait(PATIENCE).await.0.code(), Some(0));
    queues.import.resume().await.unwrap();

    // Redis delivers to the next one, and refuses it every look-up.
    mill.set("redis.url", url_of_user_with(&redis, "-mget").await);
    let mut worker = mill.worker().await;
    eventually("it was delivered jobs and has looked up none", PATIENCE, async || {
        (rejected_calls(&queues.import, "mget").await > 0).then_some(())
    })
    .await;
    worker.kill9_while_it_holds(&queues.import).await;
    assert!(worker.stderr().contains("jobs that were delivered could not be read"), "{}", worker.stderr());
    assert!(queues.import.counts().await.unwrap().active > 0, "nobody gave them back");
    assert_eq!(mill.documents().await.count_documents(doc! {}).await.unwrap(), 0);

    mill.set("redis.url", redis.url());
    let _next = mill.worker().await;
    mill.through(&queues).await;
    mill.assert_clean(&queues, ITEMS).await;
    let records = mill.records().await;
    let [record] = records.as_slice() else { panic!("{records:?}") };
    assert_eq!([record.new, record.inserted, record.updated, record.stale, record.failed], [ITEMS, ITEMS, 0, 0, 0]);
    let totals = queues.import.counts().await.unwrap().totals;
    assert_eq!(totals["completed"], ITEMS, "each once: {totals:?}");
    assert!(totals["stalled"] > 0, "{totals:?}");
    assert_eq!((totals.get("retried"), totals.get("failed")), (None, None), "a stall is no attempt");
}

#[tokio::test]
async fn a_fetch_that_waits_works_itself_when_the_worker_was_killed_just_now() {
    let (server, mut mill) = (FeedServer::start(), Mill::new());
    server.put("/a", Page::rss(&[("1", "one")]));
    mill.feed("a", &server.url("/a"), None);
    let mut worker = mill.worker().await;
    worker.kill9();
    // Its heartbeat is still good: the command only finds out after a while that nobody works.
    let fetch = mill.fetch_wait(&["a"]).await;
    assert_eq!(fetch[0].inserted, 1);
}

#[tokio::test]
async fn a_fetch_that_waits_says_so_when_its_import_is_lost() {
    let (server, mut mill) = (FeedServer::start(), Mill::new());
    server.put("/a", Page::rss(&[("1", "one")]));
    mill.feed("a", &server.url("/a"), None);
    let queues = mill.queues().await;
    queues.fetch.pause().await.unwrap();
    let fetch = mill.start(&["fetch", "a", "--wait"]);
    let import = eventually("the import is open", PATIENCE, async || {
        queues.import.open_import_ids(0, 1).await.unwrap().first().map(|(id, _)| *id)
    })
    .await;
    eventually("it is waited for", PATIENCE, async || fetch.stderr().contains("no worker is alive").then_some(()))
        .await;
    let mut redis = redis_connection(queues.import.redis().address()).await;
    let mut lose = redis::cmd("UNLINK");
    lose.arg(queues.import.keys().import(import));
    let _: i64 = lose.query_async(&mut redis).await.unwrap();
    let ran = fetch.ran().await;
    assert_eq!(ran.status.code(), Some(1));
    let wanted =
        format!("error: import {import} of feed a is gone: Redis has lost it, as in a crash; fetch the feed again\n");
    assert!(ran.stderr.ends_with(&wanted), "{}", ran.stderr);
}

#[tokio::test]
async fn redis_is_killed_and_one_more_fetch_brings_everything() {
    let (server, mut redis) = (FeedServer::start(), persistent_redis());
    let mut mill = Mill::on_redis(&redis);
    large_import(&mut mill, &server);
    let _worker = mill.worker().await;
    let queues = mill.queues().await;
    mill.fetch(&["large"]).await;
    in_the_middle(&mill).await;
    redis.kill9();
    redis.restart();
    // What the last second held is gone; the rest goes on by itself.
    mill.through(&queues).await;
    let record = mill.fetch_wait(&["large"]).await.remove(0);
    assert_eq!(record.items, ITEMS as u64, "not hidden behind a 304: {:?}", server.asked());
    mill.assert_clean(&queues, ITEMS as u64).await;
    // From now on the answers may be conditional again.
    mill.fetch_wait(&["large"]).await;
    assert_eq!(server.asked().last().unwrap().status, 304);
}

#[tokio::test]
async fn the_first_fetch_after_a_crash_of_redis_is_unconditional() {
    let (server, mut redis) = (FeedServer::start(), persistent_redis());
    let mut mill = Mill::on_redis(&redis);
    server.put("/a", Page::rss(&[("1", "one"), ("2", "two")]));
    mill.feed("a", &server.url("/a"), Some("s"));
    mill.fetch_wait(&["a"]).await;
    // The crash takes back what the last second held, validators included or not: both must do.
    redis.kill9();
    redis.restart();
    mill.fetch_wait(&["a"]).await;
    mill.fetch_wait(&["a"]).await;
    let asked: Vec<(bool, u16)> = server.asked().iter().map(|asked| (asked.is_conditional, asked.status)).collect();
    assert_eq!(asked, [(false, 200), (false, 200), (true, 304)]);
    mill.assert_clean(&mill.queues().await, 2).await;
}

fn persistent_redis() -> OwnRedis {
    OwnRedis::start(&["--appendonly", "yes", "--appendfsync", "everysec"])
}

#[tokio::test]
async fn redis_is_shut_down_and_comes_back_and_nothing_is_lost() {
    let (server, mut redis) = (FeedServer::start(), persistent_redis());
    let mut mill = Mill::on_redis(&redis);
    large_import(&mut mill, &server);
    let _worker = mill.worker().await;
    let queues = mill.queues().await;
    mill.fetch(&["large"]).await;
    in_the_middle(&mill).await;
    redis.term();
    // Longer than the workers' leases.
    tokio::time::sleep(Duration::from_secs(3)).await;
    redis.restart();
    assert_imported_once(&mill, &queues).await;
    let counts = queues.import.counts().await.unwrap();
    assert_eq!(counts.totals.get("retried"), None, "an outage is no attempt: {counts:?}");
}
