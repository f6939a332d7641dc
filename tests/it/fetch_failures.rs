//! Fetches that fail: how often they are tried, what is remembered of them, and that the next one is a fresh start.

use std::time::Duration;

use feedmill::store::{FeedStatus, ImportRecord, ImportStatus};

use crate::support::{
    feed_server::{FeedServer, Page},
    process::{Mill, records},
};

const FEED: &str = "/feed";
const RETRY_DELAY: Duration = Duration::from_millis(200);

/// One feed at [`FEED`], tried three times, 200 ms apart.
fn mill(server: &FeedServer) -> Mill {
    let mut mill = Mill::new();
    mill.retry("feed_fetch_queue", 3, "200ms");
    mill.feed("a", &server.url(FEED), Some("s"));
    mill
}

/// Fetches it to no avail; returns the import's record.
async fn failed_fetch(mill: &Mill) -> ImportRecord {
    let ran = mill.run(&["fetch", "a", "--wait", "--json"]).await;
    assert_eq!(ran.status.code(), Some(1), "{}{}", ran.stdout, ran.stderr);
    let record = records(&ran.stdout).remove(0);
    assert_eq!((record.status, record.items), (ImportStatus::Failed, 0), "{record:?}");
    let last = ran.stderr.lines().last().unwrap_or_default();
    assert_eq!(last, format!("error: a: {}", record.error.as_deref().unwrap_or_default()));
    let counts = mill.queues().await.fetch.counts().await.unwrap();
    assert!(counts.is_idle() && counts.failed == 0, "a failed fetch is no dead letter: {counts:?}");
    record
}

async fn status(mill: &Mill) -> FeedStatus {
    mill.store().await.find_feed("a").await.unwrap().unwrap()
}

#[tokio::test]
async fn a_broken_server_is_asked_three_times_and_the_next_fetch_starts_afresh() {
    let server = FeedServer::start();
    let mill = mill(&server);
    server.put(FEED, Page::status(500));
    for failures in [1, 2] {
        let record = failed_fetch(&mill).await;
        assert!(record.error.as_deref().unwrap().ends_with("answered 500"), "{record:?}");
        let asked = server.asked();
        assert_eq!(asked.len(), 3 * failures);
        for pair in asked[asked.len() - 3..].windows(2) {
            assert!(pair[1].at - pair[0].at >= RETRY_DELAY, "{pair:?}");
        }
        let status = status(&mill).await;
        assert_eq!((status.consecutive_failures as usize, status.last_status), (failures, Some(500)));
        assert_eq!(status.last_error, record.error);
    }
    server.put(FEED, Page::rss(&[("1", "one")]));
    assert_eq!(mill.fetch_wait(&["a"]).await[0].inserted, 1);
    let status = status(&mill).await;
    assert_eq!((status.consecutive_failures, status.last_status, status.last_error), (0, Some(200), None));
    mill.assert_clean(&mill.queues().await, 1).await;
}

#[tokio::test]
async fn a_server_that_recovers_between_two_attempts_costs_nothing() {
    let server = FeedServer::start();
    let mut mill = mill(&server);
    mill.retry("feed_fetch_queue", 3, "2s");
    server.put(FEED, Page::status(503));
    let fetch = mill.start(&["fetch", "a", "--wait", "--json"]);
    crate::support::eventually::eventually("the first attempt", Duration::from_secs(30), async || {
        (!server.asked().is_empty()).then_some(())
    })
    .await;
    server.put(FEED, Page::rss(&[("1", "one")]));
    let ran = fetch.ran().await;
    assert!(ran.status.success(), "{}", ran.stderr);
    assert_eq!(records(&ran.stdout)[0].inserted, 1);
    assert_eq!(status(&mill).await.consecutive_failures, 0);
    mill.assert_clean(&mill.queues().await, 1).await;
}

#[tokio::test]
async fn what_asking_again_cannot_change_fails_at_once() {
    let server = FeedServer::start();
    let mut mill = mill(&server);
    mill.set("fetch.body_max", "2KiB");
    mill.set("fetch.timeout", "2s");
    mill.set("fetch.connect_timeout", "1s");
    let html = Page::new("<!doctype html><html><head><title>Jobs</title></head><body>none</body></html>");
    let large = Page::rss(&[("1", &"x".repeat(3000))]);
    let looping = Page::redirect(302, FEED);
    for (page, wanted_status, wanted) in [
        (Page::status(404), Some(404), "answered 404"),
        (Page::status(410), Some(410), "answered 410"),
        (html, Some(200), "HTML"),
        (Page::new(""), Some(200), "empty"),
        (large, None, "larger than 2048 bytes"),
        (looping, None, "redirects more than 5 times"),
    ] {
        server.put(FEED, page);
        let before = server.asked().len();
        let record = failed_fetch(&mill).await;
        assert!(record.error.as_deref().unwrap().contains(wanted), "{wanted}: {record:?}");
        assert_eq!(status(&mill).await.last_status, wanted_status, "{wanted}");
        let asked = server.asked().len() - before;
        assert_eq!(asked, if wanted.contains("redirects") { 6 } else { 1 }, "{wanted}");
    }
    assert_eq!(status(&mill).await.consecutive_failures, 6);
}

#[tokio::test]
async fn a_failed_fetch_forgets_neither_items_nor_validators() {
    let server = FeedServer::start();
    let mill = mill(&server);
    let page = Page::rss(&[("1", "one"), ("2", "two")]);
    server.put(FEED, page.clone());
    mill.fetch_wait(&["a"]).await;
    server.put(FEED, Page::status(404));
    failed_fetch(&mill).await;
    server.put(FEED, page);
    let record = mill.fetch_wait(&["a"]).await.remove(0);
    assert_eq!([record.items, record.unchanged], [2, 2]);
    assert_eq!(server.asked().last().unwrap().status, 304);
}

#[tokio::test]
async fn a_permanent_redirect_is_remembered_and_the_source_stays() {
    let server = FeedServer::start();
    let mut mill = Mill::new();
    mill.feed("a", &server.url("/old"), None);
    server.put("/old", Page::redirect(301, "/new"));
    server.put("/new", Page::rss(&[("1", "one")]));
    mill.fetch_wait(&["a"]).await;
    assert_eq!(status(&mill).await.moved_to, Some(server.url("/new")));
    server.put("/new", Page::rss(&[("1", "one"), ("2", "two")]));
    let record = mill.fetch_wait(&["a"]).await.remove(0);
    assert_eq!([record.new, record.unchanged], [1, 1]);
    assert_eq!((server.asked_for("/old").len(), server.asked_for("/new").len()), (1, 2), "asked where it is now");
    assert!(server.asked_for("/new")[1].is_conditional);
    let document = mill.documents().await.find_one(mongodb::bson::doc! { "guid": "2" }).await.unwrap().unwrap();
    assert_eq!(document.get_str("source").unwrap(), server.url("/old"));
    assert_eq!(status(&mill).await.moved_to, Some(server.url("/new")));

    // The new place fails: the fetch after that asks at the old one again.
    server.put("/new", Page::status(404));
    assert_eq!(mill.run(&["fetch", "a", "--wait"]).await.status.code(), Some(1));
    server.put("/old", Page::rss(&[("1", "one"), ("2", "two")]));
    assert_eq!(mill.fetch_wait(&["a"]).await[0].unchanged, 2);
    assert_eq!(server.asked().last().unwrap().path, "/old");
    assert_eq!(status(&mill).await.moved_to, None);
}

#[tokio::test]
async fn a_temporary_redirect_is_not_remembered() {
    let server = FeedServer::start();
    let mut mill = Mill::new();
    mill.feed("a", &server.url("/old"), None);
    server.put("/old", Page::redirect(302, "/new"));
    server.put("/new", Page::rss(&[("1", "one")]));
    for _ in 0..2 {
        mill.fetch_wait(&["a"]).await;
    }
    assert_eq!(server.asked_for("/old").len(), 2);
    assert_eq!(status(&mill).await.moved_to, None);
}

#[tokio::test]
async fn another_url_in_the_configuration_is_asked_without_what_the_old_one_said() {
    let server = FeedServer::start();
    let mut mill = Mill::new();
    mill.feed("a", &server.url("/old"), Some("s"));
    server.put("/old", Page::redirect(301, "/moved"));
    for path in ["/moved", "/other"] {
        server.put(path, Page::rss(&[("1", "one")]));
    }
    mill.fetch_wait(&["a"]).await;
    mill.feed("a", &server.url("/missing"), Some("s"));
    assert_eq!(mill.run(&["fetch", "a", "--wait"]).await.status.code(), Some(1));
    // The one that failed has learned nothing about its address.
    server.put("/missing", Page::rss(&[("1", "one")]));
    mill.fetch_wait(&["a"]).await;
    assert!(server.asked_for("/missing").iter().all(|asked| !asked.is_conditional));

    mill.feed("a", &server.url("/other"), Some("s"));
    for is_conditional in [false, true] {
        let record = mill.fetch_wait(&["a"]).await.remove(0);
        assert_eq!([record.new, record.unchanged], [0, 1], "the items are the source's, not the url's");
        let asked = server.asked();
        let last = asked.last().unwrap();
        assert_eq!((last.path.as_str(), last.is_conditional), ("/other", is_conditional));
    }
    assert_eq!(status(&mill).await.moved_to, None);
    mill.assert_clean(&mill.queues().await, 1).await;
}
