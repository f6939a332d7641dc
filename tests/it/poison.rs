//! Items that MongoDB refuses: they become dead letters without hurting the others, and come back when asked to.

use feedmill::store::JOBS;
use mongodb::bson::{Bson, doc};

use crate::support::{
    eventually::eventually,
    feed_server::{FeedServer, Page},
    process::{Mill, PATIENCE, records},
};

#[tokio::test]
async fn a_refused_item_dies_alone_and_comes_back_by_redrive() {
    let server = FeedServer::start();
    server.put("/a", Page::rss(&[("1", "good"), ("2", "bad"), ("3", "good")]));
    let mut mill = Mill::new();
    mill.retry("job_import_queue", 2, "50ms");
    mill.feed("a", &server.url("/a"), Some("s"));
    mill.refuse_bad_titles().await;

    let ran = mill.run(&["fetch", "a", "--wait", "--json"]).await;
    assert_eq!(ran.status.code(), Some(1), "{}", ran.stderr);
    let record = records(&ran.stdout).remove(0);
    assert_eq!([record.new, record.inserted, record.failed], [3, 2, 1]);
    assert_eq!(record.failures[0].id, "s#2");
    assert!(record.failures[0].reason.contains("geo"), "{:?}", record.failures);
    let shown = mill.run_ok(&["queue", "show", "s#2"]).await;
    assert!(shown.contains("failed") && shown.contains("geo"), "{shown}");
    let queues = mill.queues().await;
    let counts = queues.import.counts().await.unwrap();
    assert_eq!((counts.failed, counts.totals.get("retried")), (1, Some(&1)), "two attempts");

    // As long as the reason stands, it dies again; after that it lands.
    let worker = mill.worker().await;
    assert_eq!(mill.run_ok(&["queue", "redrive"]).await, "1 redriven\n");
    eventually("it is dead again", PATIENCE, async || {
        (queues.import.counts().await.unwrap().totals.get("failed") == Some(&2)).then_some(())
    })
    .await;
    mill.accept_bad_titles().await;
    assert_eq!(mill.run_ok(&["queue", "redrive", "s#2"]).await, "1 redriven\n");
    mill.through(&queues).await;
    drop(worker);
    let document = mill.documents().await.find_one(doc! { "guid": "2" }).await.unwrap().unwrap();
    assert_eq!(document.get("importId"), Some(&Bson::Null), "its import was closed before");
    assert_eq!(mill.records().await[0], record, "and says what it said");
    mill.assert_clean(&queues, 3).await;
}

#[tokio::test]
async fn an_item_that_cannot_succeed_is_tried_once() {
    let server = FeedServer::start();
    server.put("/a", Page::rss(&[("1", "good"), ("2", "bad")]));
    let mut mill = Mill::new();
    mill.feed("a", &server.url("/a"), Some("s"));
    let store = mill.store().await;
    store.ensure_indexes().await.unwrap(); // creates the collection
    let validator = doc! { "collMod": JOBS, "validator": { "title": { "$ne": "bad" } } };
    store.database().run_command(validator).await.unwrap();

    let ran = mill.run(&["fetch", "a", "--wait", "--json"]).await;
    assert_eq!(ran.status.code(), Some(1), "{}", ran.stderr);
    let record = records(&ran.stdout).remove(0);
    assert_eq!([record.new, record.inserted, record.failed], [2, 1, 1]);
    assert_eq!(record.failures[0].reason, "Document failed validation (MongoDB error 121)");
    let counts = mill.queues().await.import.counts().await.unwrap();
    assert_eq!((counts.failed, counts.totals.get("retried")), (1, None));
}

#[tokio::test]
async fn a_redrive_before_the_import_closes_takes_its_failure_back() {
    const ITEMS: usize = 500;
    let server = FeedServer::start();
    let guids: Vec<String> = (0..ITEMS).map(|n| n.to_string()).collect();
    let items: Vec<(&str, &str)> =
        guids.iter().map(|guid| (guid.as_str(), if guid == "0" { "bad" } else { "good" })).collect();
    server.put("/a", Page::rss(&items));
    let mut mill = Mill::new();
    mill.retry("job_import_queue", 1, "50ms");
    // One job after the other, so that the first is dead while the others wait.
    mill.set("stream.job_import_queue.concurrency", 1);
    mill.set("stream.job_import_queue.batch_size", 1);
    mill.feed("a", &server.url("/a"), Some("s"));
    mill.refuse_bad_titles().await;
    let queues = mill.queues().await;
    let _worker = mill.worker().await;
    mill.fetch(&["a"]).await;
    eventually("the first item is dead", PATIENCE, async || {
        (queues.import.counts().await.unwrap().failed == 1).then_some(())
    })
    .await;
    queues.import.pause().await.unwrap();
    assert!(queues.import.counts().await.unwrap().waiting > 0, "the import is open");
    let (id, _) = queues.import.open_import_ids(0, 1).await.unwrap()[0];
    assert_eq!(queues.import.import(id).await.unwrap().unwrap().count("failed"), 1);
    mill.accept_bad_titles().await;
    assert_eq!(mill.run_ok(&["queue", "redrive"]).await, "1 redriven\n");
    assert_eq!(queues.import.import(id).await.unwrap().unwrap().count("failed"), 0);
    queues.import.resume().await.unwrap();
    mill.through(&queues).await;
    let record = &mill.records().await[0];
    assert_eq!([record.new, record.inserted, record.failed], [ITEMS as u64, ITEMS as u64, 0]);
    mill.assert_clean(&queues, ITEMS as u64).await;
}
