//! A change that arrives while the job of its item is waiting, active, in backoff or dead is not lost.

use std::time::Duration;

use feedmill::pipeline::Queues;

use crate::support::{
    eventually::eventually,
    feed_server::{FeedServer, Page},
    process::{Mill, PATIENCE},
    servers::OwnMongod,
};

/// Fetches a feed by the running worker and waits until its job has left the fetch queue.
async fn fetched(mill: &Mill, queues: &Queues, feed: &str) {
    mill.fetch(&[feed]).await;
    eventually("the feed is fetched", PATIENCE, async || queues.fetch.counts().await.unwrap().is_idle().then_some(()))
        .await;
}

/// `new changed inserted updated superseded failed` of the imports of a feed, oldest first.
async fn counted(mill: &Mill, feed: &str) -> Vec<[u64; 6]> {
    let mut records = mill.store().await.list_imports(10, Some(feed)).await.unwrap();
    records.reverse();
    records.iter().map(|r| [r.new, r.changed, r.inserted, r.updated, r.superseded, r.failed]).collect()
}

#[tokio::test]
async fn a_change_replaces_a_job_that_waits() {
    let server = FeedServer::start();
    let mut mill = Mill::new();
    mill.feed("a", &server.url("/a"), None);
    let queues = mill.queues().await;
    queues.import.pause().await.unwrap();
    let _worker = mill.worker().await;
    for title in ["old", "newer", "newest"] {
        server.put("/a", Page::rss(&[("1", title)]));
        fetched(&mill, &queues, "a").await;
        assert_eq!(queues.import.counts().await.unwrap().waiting, 1);
    }
    queues.import.resume().await.unwrap();
    mill.through(&queues).await;
    assert_eq!(mill.title("1").await.unwrap(), "newest");
    assert_eq!(counted(&mill, "a").await, [[1, 0, 0, 0, 1, 0], [0, 1, 0, 0, 1, 0], [0, 1, 1, 0, 0, 0]]);
    mill.assert_clean(&queues, 1).await;
}

#[tokio::test]
async fn a_change_runs_after_the_job_that_is_active() {
    let server = FeedServer::start();
    let mongod = OwnMongod::start();
    let mut mill = Mill::on_mongod(&mongod);
    // Two feeds of one source: a fetch writes the state of its feed to MongoDB at its end, so the first one is not
    // through while MongoDB is frozen.
    for (name, title) in [("a", "old"), ("b", "newest")] {
        server.put(&format!("/{name}"), Page::rss(&[("1", title)]));
        mill.feed(name, &server.url(&format!("/{name}")), Some("shared"));
    }
    let _worker = mill.worker().await;
    let queues = mill.queues().await;
    mongod.stop();
    mill.fetch(&["a"]).await;
    eventually("the job is active", PATIENCE, async || {
        (queues.import.counts().await.unwrap().active == 1).then_some(())
    })
    .await;
    mill.fetch(&["b"]).await;
    eventually("its content is replaced", PATIENCE, async || {
        (queues.import.counts().await.unwrap().totals.get("changed") == Some(&1)).then_some(())
    })
    .await;
    assert_eq!(queues.import.counts().await.unwrap().active, 1, "still the same job");
    mongod.cont();
    mill.through(&queues).await;
    assert_eq!(mill.title("1").await.unwrap(), "newest");
    assert_eq!(counted(&mill, "a").await, [[1, 0, 0, 0, 1, 0]]);
    assert_eq!(counted(&mill, "b").await, [[0, 1, 0, 1, 0, 0]]);
    mill.assert_clean(&queues, 1).await;
}

#[tokio::test]
async fn a_change_ends_the_backoff_of_its_job() {
    let server = FeedServer::start();
    let mut mill = Mill::new();
    mill.retry("job_import_queue", 3, "1h");
    mill.feed("a", &server.url("/a"), None);
    mill.refuse_bad_titles().await;
    let _worker = mill.worker().await;
    let queues = mill.queues().await;
    server.put("/a", Page::rss(&[("1", "bad")]));
    fetched(&mill, &queues, "a").await;
    eventually("the job is in backoff", PATIENCE, async || {
        (queues.import.counts().await.unwrap().delayed == 1).then_some(())
    })
    .await;
    server.put("/a", Page::rss(&[("1", "good")]));
    fetched(&mill, &queues, "a").await;
    eventually("the change lands long before the backoff is over", Duration::from_secs(20), async || {
        mill.title("1").await
    })
    .await;
    mill.through(&queues).await;
    assert_eq!(mill.title("1").await.unwrap(), "good");
    assert_eq!(counted(&mill, "a").await, [[1, 0, 0, 0, 1, 0], [0, 1, 1, 0, 0, 0]]);
    mill.assert_clean(&queues, 1).await;
}

#[tokio::test]
async fn a_change_takes_over_a_dead_letter() {
    let server = FeedServer::start();
    let mut mill = Mill::new();
    mill.retry("job_import_queue", 2, "50ms");
    mill.feed("a", &server.url("/a"), None);
    mill.refuse_bad_titles().await;
    let _worker = mill.worker().await;
    let queues = mill.queues().await;
    server.put("/a", Page::rss(&[("1", "bad")]));
    fetched(&mill, &queues, "a").await;
    mill.through(&queues).await;
    assert_eq!(queues.import.counts().await.unwrap().failed, 1);
    // Unchanged, it stays where it is; whether the server says so or not.
    fetched(&mill, &queues, "a").await;
    mill.through(&queues).await;
    assert_eq!(queues.import.counts().await.unwrap().failed, 1);

    server.put("/a", Page::rss(&[("1", "good")]));
    fetched(&mill, &queues, "a").await;
    mill.through(&queues).await;
    assert_eq!(mill.title("1").await.unwrap(), "good");
    assert_eq!(counted(&mill, "a").await, [[1, 0, 0, 0, 0, 1], [0; 6], [0, 1, 1, 0, 0, 0]]);
    mill.assert_clean(&queues, 1).await;
}
