//! Items that leave their feed, and what becomes of their documents.

use std::time::Duration;

use feedmill::{feed::seen::MISSED_MAX, pipeline::Queues, store::JOBS};
use mongodb::bson::{Bson, Document, doc};
use redis::AsyncCommands;

use crate::support::{
    eventually::eventually,
    feed_server::{FeedServer, Page},
    jobs::connection,
    process::{Mill, PATIENCE},
};

/// Fetches a feed as often as it takes for an item to leave it, each time with something new in it.
async fn fetch_without(mill: &Mill, server: &FeedServer, feed: &str, round: u32) {
    for n in 0..MISSED_MAX {
        server.put(&format!("/{feed}"), Page::rss(&[("1", &format!("{feed} {round} {n}"))]));
        mill.fetch_wait(&[feed]).await;
    }
}

async fn document(mill: &Mill, guid: &str) -> Option<Document> {
    mill.documents().await.find_one(doc! { "guid": guid }).await.unwrap()
}

#[tokio::test]
async fn a_document_says_when_its_item_left_until_it_comes_back() {
    let (server, mut mill) = (FeedServer::start(), Mill::new());
    mill.feed("a", &server.url("/a"), Some("s"));
    mill.set_of_feed("a", "on_leave", Some("mark"));
    let both = Page::rss(&[("1", "one"), ("2", "two")]);
    server.put("/a", both.clone());
    mill.fetch_wait(&["a"]).await;
    let before = document(&mill, "2").await.unwrap();
    assert!(!before.contains_key("leftFeedAt"));
    fetch_without(&mill, &server, "a", 0).await;
    let left = document(&mill, "2").await.unwrap();
    assert!(matches!(left.get("leftFeedAt"), Some(Bson::DateTime(_))), "{left}");
    assert!(left.get_i64("version").unwrap() > before.get_i64("version").unwrap());
    assert!(!document(&mill, "1").await.unwrap().contains_key("leftFeedAt"));
    server.put("/a", both);
    assert_eq!(mill.fetch_wait(&["a"]).await[0].updated, 2);
    assert!(!document(&mill, "2").await.unwrap().contains_key("leftFeedAt"), "it is back");
    mill.assert_clean(&mill.queues().await, 2).await;
}

#[tokio::test]
async fn an_item_stays_while_another_feed_of_its_source_shows_it() {
    let (server, mut mill) = (FeedServer::start(), Mill::new());
    for feed in ["a", "b"] {
        mill.feed(feed, &server.url(&format!("/{feed}")), Some("s"));
        mill.set_of_feed(feed, "on_leave", Some("delete"));
        server.put(&format!("/{feed}"), Page::rss(&[("1", "one"), ("2", "two")]));
        mill.fetch_wait(&[feed]).await;
    }
    fetch_without(&mill, &server, "a", 1).await;
    assert!(document(&mill, "2").await.is_some(), "b shows it");
    fetch_without(&mill, &server, "b", 2).await;
    assert!(document(&mill, "2").await.is_none(), "nobody does");
}

#[tokio::test]
async fn an_item_whose_job_has_not_ended_leaves_when_it_has() {
    let (server, mut mill) = (FeedServer::start(), Mill::new());
    mill.feed("a", &server.url("/a"), Some("s"));
    mill.set_of_feed("a", "on_leave", Some("delete"));
    server.put("/a", Page::rss(&[("1", "one"), ("2", "two")]));
    let queues = mill.queues().await;
    queues.import.pause().await.unwrap();
    let _worker = mill.worker().await;
    for n in 0..=usize::from(MISSED_MAX) {
        mill.fetch(&["a"]).await;
        eventually("the fetch is through", PATIENCE, async || {
            let is_idle = queues.fetch.counts().await.unwrap().is_idle();
            (is_idle && server.asked_for("/a").len() == n + 1).then_some(())
        })
        .await;
        server.put("/a", Page::rss(&[("1", &format!("one {n}"))]));
    }
    queues.import.resume().await.unwrap();
    mill.through(&queues).await;
    assert!(document(&mill, "2").await.is_some(), "its job was there, and has run");
    mill.fetch(&["a"]).await;
    mill.through(&queues).await;
    assert!(document(&mill, "2").await.is_none(), "it left with the next fetch");
}

/// Two feeds of one source, of which `a`, and perhaps `b`, shows item 2, whose job died; it may be stored from now on.
async fn with_a_dead_letter(on_leave: &str, b_has_it: bool) -> (FeedServer, Mill, Queues) {
    let (server, mut mill) = (FeedServer::start(), Mill::new());
    for feed in ["a", "b"] {
        mill.feed(feed, &server.url(&format!("/{feed}")), Some("s"));
        mill.set_of_feed(feed, "on_leave", Some(on_leave));
    }
    server.put("/a", Page::rss(&[("1", "one"), ("2", "bad")]));
    server.put("/b", Page::rss(if b_has_it { &[("2", "bad")] } else { &[("3", "three")] }));
    mill.retry("job_import_queue", 1, "10ms");
    mill.refuse_bad_titles().await;
    for feed in ["a", "b"] {
        let ran = mill.run(&["fetch", "--wait", feed]).await;
        assert!(ran.stderr.contains("items failed") == (feed == "a" || b_has_it), "{}", ran.stderr);
    }
    let queues = mill.queues().await;
    assert_eq!(queues.import.counts().await.unwrap().failed, 1);
    mill.accept_bad_titles().await;
    (server, mill, queues)
}

async fn redrive_all(mill: &Mill, queues: &Queues) {
    let letters = queues.import.dead_letters(None, 10).await.unwrap();
    assert_eq!(queues.import.redrive(&letters).await.unwrap().redriven, 1);
    mill.through(queues).await;
    assert_eq!(queues.import.counts().await.unwrap().failed, 0);
}

#[tokio::test]
async fn a_dead_letter_that_is_redriven_after_its_item_left_is_not_written() {
    for on_leave in ["delete", "mark"] {
        let (server, mill, queues) = with_a_dead_letter(on_leave, false).await;
        fetch_without(&mill, &server, "a", 1).await;
        let mut worker = mill.worker().await;
        redrive_all(&mill, &queues).await;
        assert!(document(&mill, "2").await.is_none(), "{on_leave}");
        worker.term();
        worker.wait(PATIENCE).await;
        let log = worker.stderr();
        assert!(log.contains("job s#2 is not written: its item has left feed a since it failed"), "{log}");
        // It comes as new when the feed shows it again.
        server.put("/a", Page::rss(&[("1", "one"), ("2", "good")]));
        mill.fetch_wait(&["a"]).await;
        assert_eq!(mill.title("2").await.as_deref(), Some("good"));
    }
}

#[tokio::test]
async fn a_dead_letter_is_redriven_while_any_feed_of_its_source_has_the_item_or_nobody_knows() {
    // still in the feed
    let (_server, mill, queues) = with_a_dead_letter("delete", false).await;
    let _worker = mill.worker().await;
    redrive_all(&mill, &queues).await;
    assert_eq!(mill.title("2").await.as_deref(), Some("bad"));

    // left one, and the other has it
    let (server, mill, queues) = with_a_dead_letter("delete", true).await;
    fetch_without(&mill, &server, "a", 1).await;
    let _worker = mill.worker().await;
    redrive_all(&mill, &queues).await;
    assert_eq!(mill.title("2").await.as_deref(), Some("bad"));

    // with `keep`, as ever
    let (server, mill, queues) = with_a_dead_letter("keep", false).await;
    fetch_without(&mill, &server, "a", 1).await;
    let _worker = mill.worker().await;
    redrive_all(&mill, &queues).await;
    assert_eq!(mill.title("2").await.as_deref(), Some("bad"));

    // the feeds were forgotten
    let (server, mill, queues) = with_a_dead_letter("delete", false).await;
    fetch_without(&mill, &server, "a", 1).await;
    let mut redis = connection(&queues.import).await;
    let () = redis.del(queues.import.keys().seen("a")).await.unwrap();
    let _worker = mill.worker().await;
    redrive_all(&mill, &queues).await;
    assert_eq!(mill.title("2").await.as_deref(), Some("bad"));
}

#[tokio::test]
async fn how_long_documents_are_kept_is_an_index_of_mongodb_that_follows_the_configuration() {
    let mill = Mill::new();
    let store = mill.store().await;
    store.ensure_indexes().await.unwrap();
    let documents = store.database().collection::<Document>(JOBS);
    for keep in
        [None, Some(Duration::from_hours(24)), Some(Duration::from_hours(48)), Some(Duration::from_hours(48)), None]
    {
        store.ensure_documents_keep(keep).await.unwrap();
        let mut indexes = documents.list_indexes().await.unwrap();
        let mut found = None;
        while indexes.advance().await.unwrap() {
            let index = indexes.deserialize_current().unwrap();
            if index.keys == doc! { "leftFeedAt": 1 } {
                found = index.options.and_then(|options| options.expire_after);
            }
        }
        assert_eq!(found, keep);
    }
}

#[tokio::test]
async fn a_doctor_finds_what_prevents_the_unique_index_and_keeps_the_newest_of_duplicates() {
    let mut mill = Mill::new();
    let server = FeedServer::start();
    server.put("/a", Page::rss(&[("1", "one")]));
    mill.feed("a", &server.url("/a"), Some("s"));
    let documents = mill.documents().await;
    let item = |guid: &str, version: i64, title: &str| doc! { "source": "s", "guid": guid, "version": version, "title": title };
    let others = [doc! { "source": "s", "title": "without" }, doc! { "source": 7, "guid": "x" }];
    documents
        .insert_many([item("1", 1, "old"), item("1", 3, "new"), item("1", 2, "mid"), item("2", 1, "alone")])
        .await
        .unwrap();
    documents.insert_many(others).await.unwrap();
    let index = mongodb::IndexModel::builder().keys(doc! { "source": 1, "guid": 1 }).build();
    documents.create_index(index).await.unwrap();

    let ran = mill.run(&["doctor"]).await;
    assert_eq!(ran.status.code(), Some(3), "{}{}", ran.stdout, ran.stderr);
    for wanted in
        ["1 items have 2 documents too many", "is not unique", "2 documents of jobs have no source or no guid"]
    {
        assert!(ran.stdout.contains(wanted), "{wanted}: {}", ran.stdout);
    }
    assert_eq!(documents.count_documents(doc! {}).await.unwrap(), 6, "it only looks");
    let ran = mill.run(&["doctor", "--fix"]).await;
    assert!(ran.stdout.contains("2 older duplicates were deleted"), "{}", ran.stdout);
    assert_eq!(ran.status.code(), Some(3), "what nobody knows is not touched");
    assert_eq!(mill.title("1").await.as_deref(), Some("new"));
    let names = documents.list_index_names().await.unwrap();
    assert!(
        names.contains(&"source_1_guid_1".to_owned()),
        "no index is dropped that nothing can follow yet: {names:?}"
    );
    documents.delete_many(doc! { "guid": { "$not": { "$type": "string" } } }).await.unwrap();
    documents.delete_many(doc! { "source": 7 }).await.unwrap();
    let ran = mill.run(&["doctor", "--fix"]).await;
    assert!(!ran.stdout.contains("error    mongodb") && ran.stdout.contains("nothing is in the way"), "{}", ran.stdout);
    mill.fetch_wait(&["a"]).await;
    assert_eq!(documents.count_documents(doc! {}).await.unwrap(), 2);
}
