//! Limits, groups and retention as the configuration and the command line have them, on real feeds.

use std::time::{Duration, Instant};

use feedmill::{job::JobId, queue::Queue};
use redis::{AsyncCommands, streams::StreamRangeReply};
use serde_json::{Value, json};

use crate::support::{
    audit::assert_sound,
    eventually::eventually,
    feed_server::{FeedServer, Page},
    process::{Mill, PATIENCE, redis_connection},
};

const IMPORT: &str = "job_import_queue";
const FETCH: &str = "feed_fetch_queue";

/// A feed of so many items, `<name>-0` …
fn items(name: &str, n: usize) -> Page {
    let guids: Vec<String> = (0..n).map(|n| format!("{name}-{n}")).collect();
    Page::rss(&guids.iter().map(|guid| (guid.as_str(), "title")).collect::<Vec<_>>())
}

async fn group_of(queue: &Queue, id: &str) -> String {
    let found = queue.find(&JobId::new(id).unwrap()).await.unwrap().unwrap();
    String::from_utf8(found.job.head.group).unwrap()
}

fn limiter(max: i64, duration: &str) -> toml::Table {
    toml::Table::from_iter([("max".to_owned(), max.into()), ("duration".to_owned(), duration.into())])
}

#[tokio::test]
async fn feeds_of_one_host_are_fetched_one_after_the_other_and_those_of_another_meanwhile() {
    const DELAY: Duration = Duration::from_millis(250);
    let server = FeedServer::start();
    let mut mill = Mill::new();
    mill.set(&format!("stream.{FETCH}.group_by"), "host");
    for n in 0..4 {
        let path = format!("/same-{n}");
        server.put(&path, items("a", 1).after(DELAY));
        mill.feed(&format!("same-{n}"), &server.url(&path), None);
    }
    server.put("/other", items("b", 1).after(DELAY));
    mill.feed("other", &server.url("/other").replace("127.0.0.1", "localhost"), None);
    let feeds = ["same-0", "same-1", "same-2", "same-3", "other"];
    mill.fetch(&feeds).await;
    let queues = mill.queues().await;
    assert_eq!(group_of(&queues.fetch, "same-3").await, "127.0.0.1");
    assert_eq!(queues.fetch.counts().await.unwrap().parked, 3);
    let _worker = mill.worker().await;
    eventually("all are fetched", PATIENCE, async || (server.asked().len() >= feeds.len()).then_some(())).await;
    let mut same: Vec<Instant> =
        server.asked().into_iter().filter(|asked| asked.path.starts_with("/same")).map(|asked| asked.at).collect();
    same.sort();
    assert!(same.windows(2).all(|two| two[1] - two[0] >= DELAY), "{same:?}");
    let other = server.asked_for("/other")[0].at;
    assert!(other < same[1], "the other host is not waited for");
    mill.through(&queues).await;
    assert_sound(&queues.fetch).await;
}

#[tokio::test]
async fn a_server_that_asks_for_time_gets_it_from_all_of_its_feeds() {
    let server = FeedServer::start();
    let mut mill = Mill::new();
    mill.set(&format!("stream.{FETCH}.group_by"), "host");
    server.put("/busy", Page::status(429).with_header("retry-after", "2"));
    server.put("/fine", items("a", 1));
    mill.feed("busy", &server.url("/busy"), None);
    mill.feed("fine", &server.url("/fine"), None);
    mill.fetch(&["busy"]).await;
    mill.fetch(&["fine"]).await;
    let _worker = mill.worker().await;
    eventually("the other feed is fetched", PATIENCE, async || server.asked_for("/fine").first().cloned()).await;
    let (busy, fine) = (server.asked_for("/busy")[0].at, server.asked_for("/fine")[0].at);
    assert!(fine - busy >= Duration::from_millis(1900), "{:?}", fine - busy);
    let queues = mill.queues().await;
    eventually("it lands", PATIENCE, async || mill.title("a-0").await).await;
    assert_sound(&queues.fetch).await;
}

#[tokio::test]
async fn items_are_grouped_by_their_source_whoever_adds_them() {
    let server = FeedServer::start();
    let mut mill = Mill::new();
    mill.set(&format!("stream.{IMPORT}.group_by.key"), "source");
    mill.set(&format!("stream.{IMPORT}.group_by.window"), 2);
    server.put("/feed", items("a", 5));
    mill.feed("feed", &server.url("/feed"), Some("https://jobs.example/feed"));
    let queues = mill.queues().await;
    let mut redis = redis_connection(queues.import.redis().address()).await;
    // What no worker has yet stays where its fetch puts it, once the queue is held up.
    queues.import.hold_up(Duration::from_hours(1)).await.unwrap();
    mill.fetch(&["feed"]).await;
    let worker = mill.worker().await;
    eventually("it is fetched", PATIENCE, async || {
        let counts = queues.import.counts().await.unwrap();
        (counts.waiting == 5).then_some(())
    })
    .await;
    assert_eq!(group_of(&queues.import, "https://jobs.example/feed#a-4").await, "https://jobs.example/feed");
    assert_eq!(queues.import.counts().await.unwrap().parked, 3);
    let json = r#"{"source":"https://jobs.example/feed","guid":"plain","title":"t"}"#;
    let entry: String = redis.xadd(queues.import.keys().stream(), "*", &[("json", json)]).await.unwrap();
    assert!(!entry.is_empty());
    queues.import.hold_up(Duration::ZERO).await.unwrap();
    eventually("all of it lands", PATIENCE, async || mill.title("plain").await.and(mill.title("a-4").await)).await;
    mill.through(&queues).await;
    assert_sound(&queues.import).await;
    drop(worker);
}

#[tokio::test]
async fn the_limit_of_the_configuration_is_changed_and_reset_on_the_command_line() {
    let server = FeedServer::start();
    let mut mill = Mill::new();
    server.put("/feed", items("a", 12));
    mill.feed("feed", &server.url("/feed"), None);
    mill.set(&format!("stream.{IMPORT}.limiter"), limiter(5, "1h"));
    let _worker = mill.worker().await;
    mill.fetch(&["feed"]).await;
    let documents = mill.documents().await;
    let written = async || documents.count_documents(mongodb::bson::doc! {}).await.unwrap();
    eventually("as many as may are written", PATIENCE, async || (written().await == 5).then_some(())).await;
    let shown = mill.run_ok(&["queue", "limit"]).await;
    let lines: Vec<&str> = shown.lines().collect();
    assert_eq!(lines[0], "queue        job_import_queue");
    assert!(lines[1].starts_with("rate         5/1h (5 started; the window ends in 35"), "{shown}");
    assert_eq!(
        lines[2..],
        ["concurrency  off", "group rate   off", "held up      no", "held groups  0", "set by       the configuration"]
    );

    let json: Value = serde_json::from_str(
        &mill
            .run_ok(&["queue", "limit", "--rate", "7/1h", "--concurrency", "3", "--group-rate", "9/1m", "--json"])
            .await,
    )
    .unwrap();
    assert_eq!(json["rate"], json!({"max": 7, "durationMs": 3_600_000}));
    assert_eq!((&json["concurrency"], &json["setBy"]), (&json!(3), &json!("operator")));
    assert_eq!(json["groupRate"], json!({"max": 9, "durationMs": 60_000}));
    eventually("two more are written", PATIENCE, async || (written().await == 7).then_some(())).await;
    let json: Value = serde_json::from_str(&mill.run_ok(&["queue", "limit", "--reset", "--json"]).await).unwrap();
    assert_eq!(
        (&json["rate"]["max"], &json["concurrency"], &json["setBy"]),
        (&json!(5), &Value::Null, &json!("configuration"))
    );

    assert!(mill.run_ok(&["queue", "limit", "--for", "1h"]).await.contains("held up      for 1h\n"));
    mill.run_ok(&["queue", "limit", "--rate", "off"]).await;
    let source = server.url("/feed");
    mill.run_ok(&["queue", "limit", "--for", "1h", "--group", &source]).await;
    mill.run_ok(&["queue", "limit", "--for", "off"]).await;
    let queues = mill.queues().await;
    eventually("its group is parked", PATIENCE, async || {
        (queues.import.counts().await.unwrap().parked == 5).then_some(())
    })
    .await;
    assert_eq!(written().await, 7);
    assert_sound(&queues.import).await;
    let shown = mill.run_ok(&["queue", "limit", "--for", "off", "--group", &source]).await;
    assert!(shown.contains("held groups  0\n"), "{shown}");
    eventually("all are written", PATIENCE, async || (written().await == 12).then_some(())).await;
    let ran = mill.run(&["queue", "limit", "--for", "off", "--group", "nobody"]).await;
    assert_eq!((ran.status.code(), ran.stderr.as_str()), (Some(0), "group nobody was not held up\n"));
}

#[tokio::test]
async fn limits_that_cannot_be_are_refused() {
    let mill = Mill::new();
    for (args, part) in [
        (&["--rate", "100"][..], "accepted: off, or starts per time such as 100/1s"),
        (&["--rate", "0/1s"], "to start nothing, pause the queue"),
        (&["--concurrency", "0"], "accepted: off, or 1 to 1000000000"),
        (&["--for", "5"], "accepted: off, or a time such as 30s"),
        (&["--group", "x"], "--for"),
        (&["--reset", "--rate", "1/1s"], "cannot be used with"),
        (&["--queue", "nope"], "there is no queue \"nope\""),
        (
            &["--queue", FETCH, "--group-rate", "1/1s"],
            "group_by of [stream.feed_fetch_queue] to \"source\" or \"host\"",
        ),
        (&["--queue", FETCH, "--for", "1s", "--group", "x"], "have no groups"),
    ] {
        let ran = mill.run(&[&["queue", "limit"], args].concat()).await;
        assert_eq!(ran.status.code(), Some(2), "{args:?}: {}", ran.stderr);
        assert!(ran.stderr.contains(part), "{args:?}: {}", ran.stderr);
    }
}

#[tokio::test]
async fn done_items_are_kept_and_every_step_is_an_event_where_the_configuration_wants_it() {
    let server = FeedServer::start();
    let mut mill = Mill::new();
    mill.set(&format!("stream.{IMPORT}.remove_on_complete"), 2);
    mill.set(&format!("stream.{IMPORT}.events"), "all");
    server.put("/feed", items("a", 5));
    mill.feed("feed", &server.url("/feed"), None);
    let _worker = mill.worker().await;
    mill.fetch_wait(&["feed"]).await;
    let queues = mill.queues().await;
    mill.through(&queues).await;
    let counts = queues.import.counts().await.unwrap();
    assert_eq!((counts.completed, counts.totals["completed"]), (2, 5));
    let mut redis = redis_connection(queues.import.redis().address()).await;
    let events: StreamRangeReply = redis.xrange_all(queues.import.keys().events()).await.unwrap();
    let names: Vec<String> = events.ids.iter().filter_map(|event| event.get("event")).collect();
    let n = |name: &str| names.iter().filter(|found| *found == name).count();
    assert_eq!((n("added"), n("waiting"), n("completed")), (5, 5, 5), "{names:?}");
    assert_sound(&queues.import).await;
}
