//! MongoDB goes away for twenty seconds in the middle of an import, in two ways; no job pays for it.

use std::time::Duration;

use crate::support::{
    eventually::eventually,
    feed_server::{FeedServer, Page, small_items},
    process::{Mill, PATIENCE},
    servers::OwnMongod,
};

/// Longer than the driver and the store wait for an answer, than a lease, and than a whole sequence of attempts.
const OUTAGE: Duration = Duration::from_secs(20);
const ITEMS: u64 = 10_000;

/// Imports a large feed; in the middle of it MongoDB goes, and comes back after [`OUTAGE`].
async fn import_through_an_outage(go: impl FnOnce(&mut OwnMongod), come_back: impl FnOnce(&mut OwnMongod)) {
    let (server, mut mongod) = (FeedServer::start(), OwnMongod::start());
    let mut mill = Mill::on_mongod(&mongod);
    server.put("/large", Page::generated(small_items(ITEMS as usize, 1)));
    mill.feed("large", &server.url("/large"), Some("large"));
    mill.set("stream.job_import_queue.batch_size", 20);
    mill.set("stream.job_import_queue.concurrency", 3);
    let worker = mill.worker().await;
    let queues = mill.queues().await;
    mill.fetch(&["large"]).await;
    let documents = mill.documents().await;
    eventually("a part of the documents", PATIENCE, async || {
        (documents.estimated_document_count().await.unwrap() > 1000).then_some(())
    })
    .await;
    go(&mut mongod);
    tokio::time::sleep(OUTAGE).await;
    let during = queues.import.counts().await.unwrap();
    assert!(during.active > 0 && during.waiting > 0, "the outage came in the middle: {during:?}");
    come_back(&mut mongod);

    mill.through(&queues).await;
    mill.assert_clean(&queues, ITEMS).await;
    for counts in [queues.import.counts().await.unwrap(), queues.fetch.counts().await.unwrap()] {
        for unharmed in ["retried", "failed", "stalled"] {
            assert_eq!(counts.totals.get(unharmed), None, "{unharmed}: {counts:?}");
        }
    }
    let record = &mill.records().await[0];
    assert_eq!([record.new, record.inserted + record.updated], [ITEMS, ITEMS]);
    let log = worker.stderr();
    assert!(log.contains("MongoDB is not available: reading stops") && log.contains("the outage is over"), "{log}");
    assert!(!log.contains("ERROR"), "{log}");
}

#[tokio::test]
async fn mongod_is_shut_down_and_comes_back_and_no_attempt_is_used() {
    import_through_an_outage(OwnMongod::term, OwnMongod::restart).await;
}

#[tokio::test]
async fn mongod_freezes_and_goes_on_and_no_attempt_is_used() {
    import_through_an_outage(|mongod| mongod.stop(), |mongod| mongod.cont()).await;
}
