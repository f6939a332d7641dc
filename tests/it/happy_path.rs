//! From feeds on the web to documents in MongoDB, with the real binary: what an import brings, and what it counts.

use feedmill::store::{FeedStatus, ImportRecord, ImportStatus};
use mongodb::bson::{Bson, DateTime, Document, doc};

use crate::support::{
    feed_server::{FeedServer, Page, rss, small_items},
    process::{Mill, Running},
};

const JOBS: &str = r#"<rss version="2.0"
  xmlns:job_listing="https://jobs.example/ns"
  xmlns:dc="http://purl.org/dc/elements/1.1/"
  xmlns:content="http://purl.org/rss/1.0/modules/content/"><channel><title>Jobs</title>
<item><title>Miller &amp; Sons</title><link>https://jobs.example/1</link>
<guid isPermaLink="false">https://jobs.example/?p=1#1</guid>
<pubDate>Mon, 02 Mar 2026 10:00:00 +0100</pubDate><dc:creator>Ada</dc:creator>
<category>Grain</category><category>Flour</category>
<description>&lt;p&gt;short&lt;/p&gt;</description><content:encoded><![CDATA[<p>long</p>]]></content:encoded>
<enclosure url="https://jobs.example/a.mp3" type="audio/mpeg" length="7"/>
<job_listing:company>The Mill</job_listing:company><job_listing:location>Sellick</job_listing:location></item>
<item><title>Baker</title><guid isPermaLink="false">2</guid><job_listing:company>The Oven</job_listing:company></item>
</channel></rss>"#;

const NEWS: &str = r#"<feed xmlns="http://www.w3.org/2005/Atom"><title>News</title><id>tag:news</id>
<updated>2026-03-01T00:00:00Z</updated>
<entry><id>tag:news:1</id><title>Fog</title><updated>2026-03-01T12:30:00Z</updated>
<published>2026-03-01T12:00:00Z</published>
<link rel="alternate" href="https://news.example/fog"/><summary>grey</summary></entry></feed>"#;

/// Three feeds, not fetched yet.
fn three_feeds() -> (Mill, FeedServer) {
    let server = FeedServer::start();
    server.put("/jobs.rss", Page::new(JOBS));
    server.put("/news.atom", Page::new(NEWS));
    server.put("/many.rss", Page::generated(small_items(400, 1)));
    let mut mill = Mill::new();
    mill.feed("jobs", &server.url("/jobs.rss"), Some("job board"));
    mill.feed("news", &server.url("/news.atom"), None);
    mill.feed("many", &server.url("/many.rss"), Some("many"));
    (mill, server)
}

/// Items, new, changed, unchanged of each import, in the order of the feeds' names.
fn counts(records: &[ImportRecord]) -> Vec<(&str, [u64; 4])> {
    let counts = |record: &ImportRecord| [record.items, record.new, record.changed, record.unchanged];
    records.iter().map(|record| (record.feed.as_str(), counts(record))).collect()
}

#[tokio::test]
async fn items_of_three_feeds_become_complete_documents() {
    let (mill, server) = three_feeds();
    let records = mill.fetch_wait(&["--all"]).await;
    assert_eq!(counts(&records), [("jobs", [2, 2, 0, 0]), ("many", [400, 400, 0, 0]), ("news", [1, 1, 0, 0])]);
    assert!(records.iter().all(|record| record.status == ImportStatus::Done && record.inserted == record.new));
    mill.assert_clean(&mill.queues().await, 403).await;

    let documents = mill.documents().await;
    let found = documents.find_one(doc! { "extensions.job_listing:company": "The Mill" }).await.unwrap();
    let mut document = found.expect("an extension can be asked for");
    let import = &records[0];
    let version = document.get_i64("version").unwrap();
    let started = import.started_at.as_microsecond();
    assert!(
        (0..1_000_000).contains(&(version - started + 1000)),
        "version {version} is when the fetch started, {started}"
    );
    let fingerprint = document.remove("fingerprint").unwrap();
    assert!(matches!(&fingerprint, Bson::String(digits) if digits.len() == 14), "{fingerprint}");
    for taken in ["_id", "version", "createdAt", "updatedAt"] {
        document.remove(taken).unwrap();
    }
    let published = DateTime::parse_rfc3339_str("2026-03-02T09:00:00Z").unwrap();
    let wanted = doc! {
        "source": "job board", "guid": "https://jobs.example/?p=1#1", "feed": "jobs",
        "title": "Miller & Sons", "link": "https://jobs.example/1", "published": published, "updated": Bson::Null,
        "summary": "<p>short</p>", "content": "<p>long</p>", "author": "Ada", "categories": ["Grain", "Flour"],
        "enclosures": [{ "url": "https://jobs.example/a.mp3", "type": "audio/mpeg", "length": 7_i64 }],
        "extensions": { "job_listing:company": "The Mill", "job_listing:location": "Sellick" },
        "importId": &import.id,
    };
    let by_name = |document: Document| document.into_iter().collect::<std::collections::BTreeMap<_, _>>();
    assert_eq!(by_name(document), by_name(wanted));

    let news = documents.find_one(doc! { "guid": "tag:news:1" }).await.unwrap().unwrap();
    assert_eq!(news.get_str("source").unwrap(), server.url("/news.atom"), "without a source it is the url");
    assert_eq!(news.get_str("summary").unwrap(), "grey");
}

#[tokio::test]
async fn a_second_run_brings_only_what_was_edited() {
    let (mill, server) = three_feeds();
    mill.fetch_wait(&["--all"]).await;

    let again = mill.fetch_wait(&["--all"]).await;
    assert_eq!(counts(&again), [("jobs", [2, 0, 0, 2]), ("many", [400, 0, 0, 400]), ("news", [1, 0, 0, 1])]);
    assert!(server.asked().iter().skip(3).all(|asked| asked.status == 304), "{:?}", server.asked());

    server
        .put("/many.rss", Page::generated(feedmill::demo::GeneratedFeed { edited: Some(217), ..small_items(400, 1) }));
    let edited = mill.fetch_wait(&["--all"]).await;
    assert_eq!(counts(&edited), [("jobs", [2, 0, 0, 2]), ("many", [400, 0, 1, 399]), ("news", [1, 0, 0, 1])]);
    assert_eq!(edited[1].updated, 1);
    let found = mill.documents().await.find_one(doc! { "title": { "$regex": "edited" } }).await.unwrap().unwrap();
    assert!(found.get_str("guid").unwrap().ends_with("#218"), "{found}");
    assert_eq!(found.get_str("importId").unwrap(), edited[1].id);
    mill.assert_clean(&mill.queues().await, 403).await;
}

#[tokio::test]
async fn force_imports_every_item_once_more() {
    let (mill, server) = three_feeds();
    mill.fetch_wait(&["many"]).await;
    let forced = mill.fetch_wait(&["many", "--force"]).await;
    assert_eq!(counts(&forced), [("many", [400, 0, 400, 0])]);
    assert_eq!(forced[0].updated, 400);
    assert!(server.asked().iter().all(|asked| !asked.is_conditional));
    let documents = mill.documents().await;
    assert_eq!(documents.count_documents(doc! { "importId": &forced[0].id }).await.unwrap(), 400);
    mill.assert_clean(&mill.queues().await, 400).await;
}

#[tokio::test]
async fn two_feeds_of_one_source_share_their_documents() {
    let server = FeedServer::start();
    server.put("/a", Page::rss(&[("1", "one"), ("2", "two")]));
    server.put("/b", Page::rss(&[("2", "two, as b has it"), ("3", "three")]));
    let mut mill = Mill::new();
    mill.feed("a", &server.url("/a"), Some("shared"));
    mill.feed("b", &server.url("/b"), Some("shared"));
    mill.fetch_wait(&["a"]).await;
    let records = mill.fetch_wait(&["b"]).await;
    // b has not shown item 2 before: for b it is new, for MongoDB it is not.
    let record = &records[0];
    assert_eq!([record.items, record.new, record.inserted, record.updated], [2, 2, 1, 1]);
    assert_eq!(mill.title("2").await.unwrap(), "two, as b has it");
    mill.assert_clean(&mill.queues().await, 3).await;
}

#[tokio::test]
async fn a_guid_that_stands_twice_counts_once_and_its_first_item_is_taken() {
    let server = FeedServer::start();
    server.put("/a", Page::rss(&[("1", "first"), ("2", "other"), ("1", "second")]));
    let mut mill = Mill::new();
    mill.feed("a", &server.url("/a"), None);
    let records = mill.fetch_wait(&["a"]).await;
    assert_eq!([records[0].items, records[0].new, records[0].duplicate], [3, 2, 1]);
    assert_eq!(mill.title("1").await.unwrap(), "first");
    let again = mill.fetch_wait(&["a", "--force"]).await;
    assert_eq!([again[0].items, again[0].changed, again[0].duplicate], [3, 2, 1]);
    mill.assert_clean(&mill.queues().await, 2).await;
}

#[tokio::test]
async fn an_item_over_payload_max_fails_alone_and_is_tried_at_every_fetch() {
    let server = FeedServer::start();
    let long = "x".repeat(3000);
    server.put("/a", Page::rss(&[("1", "short"), ("2", &long), ("3", "short")]));
    let mut mill = Mill::new();
    mill.set("stream.job_import_queue.payload_max", "2KiB");
    mill.feed("a", &server.url("/a"), Some("s"));
    for (new, unchanged) in [(3, 0), (1, 2)] {
        let ran = mill.run(&["fetch", "a", "--wait", "--json"]).await;
        assert_eq!(ran.status.code(), Some(1), "an item failed: {}", ran.stderr);
        let record = &crate::support::process::records(&ran.stdout)[0];
        assert_eq!([record.items, record.new, record.unchanged, record.failed], [3, new, unchanged, 1]);
        let shown = mill.run_ok(&["import", "show", &record.id]).await;
        assert!(shown.contains("s#2: an item of 3") && shown.contains("the limit (payload_max) is 2048"), "{shown}");
    }
    assert!(server.asked().iter().all(|asked| !asked.is_conditional), "a 304 would hide the item that failed");
    server.put("/a", Page::rss(&[("1", "short"), ("2", "shorter now"), ("3", "short")]));
    let records = mill.fetch_wait(&["a"]).await;
    assert_eq!([records[0].new, records[0].unchanged, records[0].failed], [1, 2, 0]);
    mill.assert_clean(&mill.queues().await, 3).await;
}

#[tokio::test]
async fn items_that_leave_a_feed_and_come_back_are_not_new() {
    let server = FeedServer::start();
    let mut mill = Mill::new();
    mill.feed("a", &server.url("/a"), None);
    let all = [("1", "one"), ("2", "two"), ("3", "three"), ("4", "four")];
    for (shown, wanted) in [
        (&all[..2], [2, 2, 0, 0]),
        (&all[1..], [3, 2, 0, 1]),
        (&all[3..], [1, 0, 0, 1]),
        (&[], [0, 0, 0, 0]),
        (&all[..], [4, 0, 0, 4]),
    ] {
        server.put("/a", Page::new(rss(shown)));
        assert_eq!(counts(&mill.fetch_wait(&["a"]).await), [("a", wanted)]);
    }
    mill.assert_clean(&mill.queues().await, 4).await;
}

#[tokio::test]
async fn two_workers_and_many_fetches_at_once_store_every_item_once() {
    const FEEDS: [&str; 3] = ["a", "b", "c"];
    let server = FeedServer::start();
    let mut mill = Mill::new();
    for (name, seed) in FEEDS.into_iter().zip(0..) {
        server.put(&format!("/{name}"), Page::generated(small_items(700, seed)));
        mill.feed(name, &server.url(&format!("/{name}")), Some(name));
    }
    let _workers: [Running; 2] = [mill.worker().await, mill.worker().await];
    let queues = mill.queues().await;
    for round in 0..3 {
        // Each changes something, imports everything again, or finds itself joined to a running fetch.
        let fetches: Vec<Running> = [&["fetch", "--all"][..], &["fetch", "--all", "--force"], &["fetch", "a", "c"]]
            .map(|args| mill.start(args))
            .into();
        for fetch in fetches {
            let ran = fetch.ran().await;
            assert!(ran.status.success(), "{}", ran.stderr);
        }
        let edited = feedmill::demo::GeneratedFeed { edited: Some(round), ..small_items(700, 1) };
        server.put("/b", Page::generated(edited));
    }
    mill.through(&queues).await;
    mill.fetch_wait(&["--all"]).await;
    // An import leaves Redis only after its record can be read.
    mill.through(&queues).await;
    mill.assert_clean(&queues, 2100).await;
    let found = mill.documents().await.find(doc! { "title": { "$regex": "edited" } }).await.unwrap();
    let edited: Vec<Document> = futures_util::TryStreamExt::try_collect(found).await.unwrap();
    assert_eq!(edited.len(), 1, "the last edit and no other: {edited:?}");
    assert!(edited[0].get_str("guid").unwrap().ends_with("#3"));
    let feeds: Vec<FeedStatus> = mill.store().await.list_feeds().await.unwrap();
    assert!(feeds.iter().all(|feed| feed.consecutive_failures == 0));
}
