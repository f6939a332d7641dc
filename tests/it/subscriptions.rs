//! Feeds that are subscribed to by command: what becomes of them, and that they never get in the way of the file's.

use std::{collections::BTreeMap, fmt::Write as _, time::Duration};

use mongodb::bson::doc;
use serde_json::Value;

use crate::support::{
    eventually::eventually,
    feed_server::{FeedServer, Page},
    process::{Mill, PATIENCE},
};

/// A mill whose subscriptions may be on this machine, where the test server is.
fn mill() -> Mill {
    let mut mill = Mill::new();
    mill.set("fetch.allow_networks", vec!["127.0.0.0/8"]);
    mill
}

async fn feeds(mill: &Mill) -> BTreeMap<String, Value> {
    let listed: Vec<Value> = serde_json::from_str(&mill.run_ok(&["feeds", "list", "--json"]).await).unwrap();
    listed.into_iter().map(|feed| (feed["name"].as_str().unwrap().to_owned(), feed)).collect()
}

async fn refused(mill: &Mill, args: &[&str], code: i32, wanted: &str) {
    let ran = mill.run(args).await;
    assert_eq!(ran.status.code(), Some(code), "{args:?}: {}", ran.stderr);
    assert!(ran.stderr.contains(wanted) && ran.stderr.lines().count() == 1, "{args:?}: {}", ran.stderr);
}

#[tokio::test]
async fn a_feed_is_found_on_a_page_and_is_fetched_by_workers_that_run_already() {
    let (server, mill) = (FeedServer::start(), mill());
    server.put("/", Page::html("<link rel=\"alternate\" type=\"application/rss+xml\" href=\"/feed\">"));
    server.put("/feed", Page::rss(&[("1", "one"), ("2", "two")]));
    let _worker = mill.worker().await;
    let added: Value = serde_json::from_str(&mill.run_ok(&["feeds", "add", &server.url("/"), "--json"]).await).unwrap();
    assert_eq!((added["name"].as_str(), added["url"].as_str()), (Some("test"), Some(server.url("/feed").as_str())));
    let record = mill.fetch_wait(&["test"]).await.remove(0);
    assert_eq!((record.new, record.inserted, record.source), (2, 2, server.url("/feed")));

    let listed = feeds(&mill).await;
    assert_eq!((&listed["test"]["state"], &listed["test"]["from"]), (&"ok".into(), &"subscription".into()));
    assert!(mill.run_ok(&["feeds", "list"]).await.lines().all(|line| line.chars().count() <= 80));
    assert!(mill.run_ok(&["feeds", "show", "test"]).await.contains("last status  200"));
    refused(&mill, &["feeds", "add", &server.url("/feed")], 1, "is the address of feed test already").await;
    refused(&mill, &["feeds", "show", "nowhere"], 1, "there is no feed \"nowhere\"").await;

    mill.run_ok(&["feeds", "remove", "test"]).await;
    refused(&mill, &["fetch", "test"], 2, "there is no feed \"test\"").await;
    assert_eq!(mill.documents().await.count_documents(doc! {}).await.unwrap(), 2, "documents stay");
}

#[tokio::test]
async fn a_process_that_keeps_schedules_learns_of_subscriptions_and_of_their_end() {
    let (server, mill) = (FeedServer::start(), mill());
    server.put("/feed", Page::rss(&[("1", "one")]));
    let queues = mill.queues().await;
    let _schedule = mill.start(&["schedule"]);
    let scheduled = async |wanted: bool, when: &str| {
        eventually(when, PATIENCE, async || {
            let slots = queues.fetch.schedulers().await.unwrap();
            (slots.iter().any(|(name, _)| name == "jobs") == wanted).then_some(())
        })
        .await;
    };
    let add = ["feeds", "add", &server.url("/feed"), "--name", "jobs", "--schedule", "0 9 * * *"];
    mill.run_ok(&add).await;
    scheduled(true, "the subscription is scheduled").await;
    mill.run_ok(&["feeds", "pause", "jobs"]).await;
    scheduled(false, "a paused one is not").await;
    assert_eq!(feeds(&mill).await["jobs"]["state"], "paused");
    mill.run_ok(&["feeds", "resume", "jobs"]).await;
    scheduled(true, "it goes on").await;
    mill.run_ok(&["feeds", "remove", "jobs"]).await;
    scheduled(false, "one that was removed is not").await;
    refused(&mill, &["feeds", "pause", "jobs"], 1, "there is no subscription \"jobs\"").await;
}

#[tokio::test]
async fn a_feed_of_the_file_is_not_overridden_and_not_changed() {
    let (server, mut mill) = (FeedServer::start(), mill());
    server.put("/own", Page::rss(&[("1", "one")]));
    server.put("/other", Page::rss(&[("2", "two")]));
    mill.run_ok(&["feeds", "add", &server.url("/other"), "--name", "jobs"]).await;
    // The file gets a feed of that name later.
    mill.feed("jobs", &server.url("/own"), Some("s"));
    assert_eq!(mill.fetch_wait(&["jobs"]).await[0].source, "s");
    assert_eq!(feeds(&mill).await["jobs"]["from"], "file");
    refused(&mill, &["feeds", "remove", "jobs"], 2, "change it there").await;
    refused(&mill, &["feeds", "add", &server.url("/other"), "--name", "jobs"], 1, "already").await;
    refused(&mill, &["feeds", "add", &server.url("/own")], 1, "is the address of feed jobs already").await;
}

#[tokio::test]
async fn what_cannot_be_subscribed_to_is_refused_in_one_line() {
    let server = FeedServer::start();
    server.put("/html", Page::html(""));
    let private = Mill::new();
    refused(&private, &["feeds", "add", &server.url("/feed")], 1, "a loopback address").await;
    refused(&private, &["feeds", "check", "http://localhost:1/"], 1, "a loopback address").await;
    assert!(server.asked().is_empty());
    let mill = mill();
    for (args, code, wanted) in [
        (vec!["feeds", "add", "ftp://a.example/"], 2, "accepted: http:// or https://"),
        (vec!["feeds", "add", "http://ada:pass@a.example/"], 2, "holds a secret"),
        (vec!["feeds", "add", "http://a.example/", "--schedule", "often"], 2, "often"),
        (vec!["feeds", "check", "nowhere"], 1, "there is no feed \"nowhere\""),
    ] {
        refused(&mill, &args, code, wanted).await;
    }
    refused(&mill, &["feeds", "add", &server.url("/html")], 1, "is no feed, and names none").await;
    refused(&mill, &["feeds", "add", &server.url("/missing")], 1, "answered 404").await;
    assert!(feeds(&mill).await.is_empty());
}

#[tokio::test]
async fn a_check_reads_a_feed_and_stores_nothing() {
    let (server, mut mill) = (FeedServer::start(), mill());
    server.put("/feed", Page::rss(&[("1", "one"), ("2", "two")]).with_header("cache-control", "max-age=600"));
    mill.feed("own", &server.url("/feed"), None);
    for which in ["own".to_owned(), server.url("/feed")] {
        let checked: Value = serde_json::from_str(&mill.run_ok(&["feeds", "check", &which, "--json"]).await).unwrap();
        let found = (&checked["items"], &checked["status"], &checked["interval"], &checked["title"]);
        assert_eq!(found, (&2.into(), &200.into(), &"10m".into(), &"test".into()), "{which}");
    }
    assert_eq!(mill.documents().await.count_documents(doc! {}).await.unwrap(), 0);
    assert!(mill.records().await.is_empty());
}

#[tokio::test]
async fn ten_thousand_feeds_come_from_an_opml_file_and_go_into_one() {
    let mill = mill();
    let mut opml = String::from("<opml version=\"2.0\"><body><outline text=\"all\">");
    for feed in 0..10_000 {
        write!(opml, "<outline text=\"Jobs {feed}\" xmlUrl=\"http://host{}.example/{feed}\"/>", feed % 100).unwrap();
    }
    opml += "<outline xmlUrl=\"file:///etc/passwd\"/></outline></body></opml>";
    let file = mill.folder().join("feeds.opml");
    std::fs::write(&file, opml).unwrap();
    let began = std::time::Instant::now();
    let import = ["feeds", "import-opml", file.to_str().unwrap(), "--json"];
    for (added, known) in [(10_000, 0), (0, 10_000)] {
        let ran = mill.run(&import).await;
        assert_eq!(ran.status.code(), Some(1), "one address is none: {}", ran.stderr);
        assert!(ran.stderr.contains("not subscribed to file:///etc/passwd"), "{}", ran.stderr);
        let counts: Value = serde_json::from_str(&ran.stdout).unwrap();
        assert_eq!((&counts["added"], &counts["known"], &counts["refused"]), (&added.into(), &known.into(), &1.into()));
    }
    assert!(began.elapsed() < Duration::from_mins(1), "{:?}", began.elapsed());
    assert_eq!(feeds(&mill).await.len(), 10_000);
    let exported = mill.run_ok(&["feeds", "export-opml"]).await;
    assert_eq!(exported.matches("<outline type=\"rss\" text=\"Jobs ").count(), 10_000);
}
