//! HTTP with the real binary: what it answers, whom it refuses, and how it ends.

use std::time::{Duration, Instant};

use feedmill::store::{ImportRecord, ImportStatus};
use serde_json::{Value, json};
use tokio::{io::AsyncWriteExt, net::TcpStream};

use crate::support::{
    eventually::eventually,
    feed_server::{FeedServer, Page},
    http::{Answer, Served},
    process::{Mill, PATIENCE, assert_adds_up},
    servers::{OwnMongod, OwnRedis},
};

/// How long the feed server says nothing.
const HANG: Duration = Duration::from_secs(3);

/// A mill with feeds of one item; none is fetched yet.
fn mill_with(feeds: &[&str], page: &Page) -> (Mill, FeedServer) {
    let (mut mill, server) = (Mill::new(), FeedServer::start());
    for feed in feeds {
        server.put(&format!("/{feed}"), page.clone());
        mill.feed(feed, &server.url(&format!("/{feed}")), Some(feed));
    }
    (mill, server)
}

fn one_item() -> Page {
    Page::rss(&[("1", "one")])
}

/// Feed and id of each import in an answer.
fn imports(answer: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    answer["imports"].as_array().unwrap().iter().map(|row| (text(&row["feed"]), text(&row["id"]))).collect()
}

// ── imports ────────────────────────────────────────────────────────────────────────────────────────────────────────

#[tokio::test]
async fn a_start_is_answered_at_once_while_the_feed_server_hangs() {
    let feeds = ["a", "b", "c", "d", "e"];
    let (mill, server) = mill_with(&feeds, &one_item().after(HANG));
    let up = Served::up(&mill).await;
    let mut started = Vec::new();
    let mut took = Vec::new();
    for feed in feeds {
        let asked = Instant::now();
        let answer = up.post("/imports/start", &json!({ "feeds": [feed] }).to_string()).await;
        took.push(asked.elapsed());
        assert_eq!(answer.status, 202, "{answer:?}");
        let answer = answer.json();
        let [(name, id)] = &imports(&answer)[..] else { panic!("{answer}") };
        assert_eq!(name, feed);
        started.push((answer["run"].as_str().unwrap().to_owned(), id.clone()));
    }
    // The machine may be busy with other tests; what takes long always is our fault.
    assert!(took.iter().min().unwrap() < &Duration::from_millis(10), "{took:?}");

    let (run, id) = &started[0];
    eventually("the feed server is asked", PATIENCE, async || (server.asked().len() == feeds.len()).then_some(()))
        .await;
    let running = up.get_json(&format!("/imports/{id}")).await;
    assert_eq!((&running["status"], &running["run"]), (&json!("running"), &json!(run)));
    assert_eq!(up.get_json(&format!("/imports?run={run}")).await, json!({ "imports": [running] }));
    let again = up.post("/imports/start", r#"{"feeds": ["a", "a"]}"#).await.json();
    assert_eq!(imports(&again), [("a".to_owned(), id.clone())], "the running one");
    assert_ne!(again["run"], *run);

    for (run, id) in &started {
        let record = eventually("the import is through", PATIENCE, async || {
            let record: ImportRecord = serde_json::from_value(up.get_json(&format!("/imports/{id}")).await).unwrap();
            record.finished_at.is_some().then_some(record)
        })
        .await;
        assert_adds_up(&record);
        assert_eq!((record.status, record.items, record.new, record.inserted), (ImportStatus::Done, 1, 1, 1));
        assert_eq!(record.run.as_ref(), Some(run));
        assert!(record.asked);
    }
    let queues = mill.queues().await;
    mill.through(&queues).await;
    mill.assert_clean(&queues, 5).await;
    assert_eq!(server.asked().len(), feeds.len(), "the feed asked for twice was fetched once");

    let (run, id) = &started[4];
    let shown: Value = serde_json::from_str(&mill.run_ok(&["import", "show", id, "--json"]).await).unwrap();
    assert_eq!(up.get_json(&format!("/imports/{id}")).await, shown, "as the command prints it");
    assert_eq!(up.get_json(&format!("/imports?run={run}")).await, json!({ "imports": [shown] }));
}

#[tokio::test]
async fn imports_are_listed_newest_first_by_feed_and_up_to_a_limit() {
    let (mill, _server) = mill_with(&["a", "b"], &one_item());
    let served = Served::serve(&mill).await;
    assert_eq!(served.get_json("/imports").await, json!({ "imports": [] }));
    mill.fetch_wait(&["--all"]).await;
    mill.fetch_wait(&["a"]).await;
    // Without a worker it goes on running.
    let running = imports(&served.post("/imports/start", r#"{"feeds":["a"]}"#).await.json());

    let listed = served.get_json("/imports").await;
    let statuses: Vec<&str> =
        listed["imports"].as_array().unwrap().iter().map(|one| one["status"].as_str().unwrap()).collect();
    assert_eq!(statuses, ["running", "done", "done", "done"]);
    let listed = imports(&listed);
    assert_eq!(listed[..1], running);
    assert_eq!(listed[1].0, "a");
    assert_eq!(imports(&served.get_json("/imports?limit=2").await), listed[..2]);
    assert_eq!(imports(&served.get_json("/imports?feed=a&limit=2").await), listed[..2]);
    assert_eq!(imports(&served.get_json("/imports?feed=b").await).len(), 1);
    assert_eq!(served.get_json("/imports?run=none").await, json!({ "imports": [] }));
    for wrong in ["limit=0", "limit=10001", "limit=x", "feeds=a"] {
        served.get(&format!("/imports?{wrong}")).await.refused(400, "bad_request");
    }
    for missing in ["660f1a2b3c4d5", "x"] {
        served.get(&format!("/imports/{missing}")).await.refused(404, "import_not_found");
    }
}

/// `serve` of so many feeds, which nobody fetches.
async fn serve_feeds(n: u32) -> (Mill, Served) {
    let feed = |n| format!("name = \"f{n:04}\"\nurl = \"http://127.0.0.1:1/{n}\"").parse::<toml::Table>().unwrap();
    let mut mill = Mill::new();
    mill.set("feed", (0..n).map(|n| feed(n).into()).collect::<Vec<toml::Value>>());
    let served = Served::serve(&mill).await;
    (mill, served)
}

#[tokio::test]
async fn a_start_of_all_lists_its_imports_up_to_a_thousand_feeds() {
    let (_mill, served) = serve_feeds(1000).await;
    let all = served.post("/imports/start", "").await;
    assert_eq!((all.status, imports(&all.json()).len()), (202, 1000));
}

#[tokio::test]
async fn more_imports_than_that_are_followed_by_their_run() {
    let (_mill, served) = serve_feeds(1001).await;
    let all = served.post("/imports/start", "{}").await;
    assert_eq!(all.status, 202, "{all:?}");
    let all = all.json();
    assert_eq!(all.as_object().unwrap().keys().collect::<Vec<_>>(), ["run"]);
    let of_run = async |run: &Value| {
        imports(&served.get_json(&format!("/imports?limit=10000&run={}", run.as_str().unwrap())).await)
    };
    assert_eq!(of_run(&all["run"]).await.len(), 1001);

    let two = served.post("/imports/start", r#"{"feeds": ["f1000", "f0000"]}"#).await.json();
    assert_eq!(imports(&two).iter().map(|(feed, _)| &**feed).collect::<Vec<_>>(), ["f1000", "f0000"], "as asked for");
    assert_eq!(of_run(&two["run"]).await, [], "those that run already stay with their run");
}

#[tokio::test]
async fn an_unknown_feed_is_named_and_nothing_is_started() {
    let (mill, server) = mill_with(&["a"], &one_item());
    let up = Served::up(&mill).await;
    let detail = up.post("/imports/start", r#"{"feeds": ["a", "nope", "b"]}"#).await.refused(404, "feed_not_found");
    assert_eq!(detail, "no such feed: \"nope\", \"b\"; nothing was started");
    assert_eq!(up.get_json("/imports").await, json!({ "imports": [] }));
    assert!(mill.queues().await.fetch.counts().await.unwrap().is_idle());
    assert!(server.asked().is_empty());
}

#[tokio::test]
async fn a_body_that_cannot_be_used_starts_nothing() {
    let (mill, _server) = mill_with(&["a"], &one_item());
    let served = Served::serve(&mill).await;
    for body in ["[]x", "{", "[\"a\"]", r#"{"feeds": "a"}"#, r#"{"feeds": []}"#, r#"{"feed": ["a"]}"#] {
        served.post("/imports/start", body).await.refused(400, "bad_request");
    }
    let body = r#"{"feeds": ["a"]}"#;
    for headers in
        [&[][..], &[("Content-Type", "text/plain")], &[("Content-Type", "application/x-www-form-urlencoded")]]
    {
        served.ask("POST", "/imports/start", headers, body).await.refused(415, "not_json");
    }
    let empty_form = [("Content-Type", "application/x-www-form-urlencoded")];
    served.ask("POST", "/imports/start", &empty_form, "").await.refused(415, "not_json");
    let large = format!("{{\"feeds\": [\"{}\"]}}", "x".repeat(1024 * 1024));
    served.post("/imports/start", &large).await.refused(413, "too_large");
    assert_eq!(served.get_json("/imports").await, json!({ "imports": [] }));
}

// ── who may ask ────────────────────────────────────────────────────────────────────────────────────────────────────

#[tokio::test]
async fn pages_of_other_sites_start_nothing() {
    let (mill, _server) = mill_with(&["a"], &one_item());
    let served = Served::serve(&mill).await;
    for origin in ["https://evil.example", "null", "http://127.0.0.1:1"] {
        served.ask("POST", "/imports/start", &[("Origin", origin)], "").await.refused(403, "foreign_origin");
    }
    // A page whose host name was pointed at this machine after it was loaded is of the host it asks.
    let rebound = [("Host", "rebound.example"), ("Origin", "http://rebound.example")];
    for method in ["POST", "GET"] {
        served.ask(method, "/imports", &rebound, "").await.refused(403, "foreign_host");
    }
    assert_eq!(served.ask("GET", "/healthz", &rebound, "").await.status, 200);
    assert_eq!(served.get_json("/imports").await, json!({ "imports": [] }));
    let own = format!("http://{}", served.address);
    assert_eq!(served.ask("POST", "/imports/start", &[("Origin", &own)], "").await.status, 202);
}

#[tokio::test]
async fn with_a_token_everything_but_the_health_checks_needs_it() {
    let (mut mill, _server) = mill_with(&["a"], &one_item());
    mill.set("http.listen", "0.0.0.0:0");
    let served = Served::behind_token(&mill, "s3cret").await;
    for wrong in [&[][..], &[("Authorization", "Bearer s3cre")], &[("Authorization", "Basic s3cret")]] {
        for (method, path) in [("GET", "/imports"), ("POST", "/imports/start"), ("GET", "/metrics"), ("GET", "/x")] {
            let answer = served.ask(method, path, wrong, "").await;
            answer.refused(401, "unauthorized");
            assert!(answer.head.to_ascii_lowercase().contains("www-authenticate: bearer"), "{}", answer.head);
        }
    }
    for path in ["/healthz", "/readyz"] {
        assert_eq!(served.get(path).await.status, 200, "{path}");
    }
    let right = [("Authorization", "Bearer s3cret"), ("Host", "feeds.example")];
    assert_eq!(served.ask("GET", "/imports", &right, "").await.status, 200);
    assert_eq!(served.ask("POST", "/imports/start", &right, "").await.status, 202);
    assert!(!served.process.stderr().contains("s3cret"));
}

#[tokio::test]
async fn an_address_beyond_this_machine_needs_a_token() {
    let mill = Mill::new();
    for command in ["serve", "up"] {
        for listen in ["0.0.0.0:0", "[::]:0", "192.0.2.1:4000"] {
            mill.run(&[command, "--listen", listen]).await.failed(
                2,
                &format!(
                    "refusing to listen on {listen} without a token: other machines could reach it; set \
                     FEEDMILL_TOKEN, or listen on 127.0.0.1"
                ),
            );
        }
    }
}

#[tokio::test]
async fn a_taken_port_is_named() {
    let mill = Mill::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for command in ["serve", "up"] {
        mill.run(&[command, "--listen", &address]).await.failed(
            1,
            &format!(
                "cannot listen on {address}; choose another address with --listen, FEEDMILL_LISTEN or http.listen: \
                 Address already in use (os error 98)"
            ),
        );
    }
}

#[tokio::test]
async fn paths_and_methods_that_are_not_there_are_json_too() {
    let served = Served::serve(&Mill::new()).await;
    for path in ["/", "/admin/nothing", "/api/nothing", "/imports/a/b"] {
        served.get(path).await.refused(404, "not_found");
    }
    let wrong =
        [("GET", "/imports/start", "POST"), ("DELETE", "/imports", "GET,HEAD"), ("POST", "/healthz", "GET,HEAD")];
    for (method, path, allowed) in wrong {
        let answer = served.ask(method, path, &[], "").await;
        answer.refused(405, "method_not_allowed");
        assert!(answer.head.contains(&format!("allow: {allowed}\r\n")), "{answer:?}");
    }
}

#[tokio::test]
async fn metrics_of_serve_and_up_say_what_redis_says_about_both_queues() {
    let (mill, _server) = mill_with(&["a"], &one_item());
    for served in [Served::serve(&mill).await, Served::up(&mill).await] {
        let answer = served.get("/metrics").await;
        assert_eq!(answer.status, 200);
        assert!(answer.head.contains("content-type: text/plain; version=0.0.4"), "{}", answer.head);
        for queue in ["job_import_queue", "feed_fetch_queue"] {
            let series = format!("bullmq_job_count{{queue=\"{queue}\",state=\"waiting\"}} 0\n");
            assert!(answer.body.contains(&series), "{series} is not in\n{}", answer.body);
        }
        assert!(answer.body.ends_with('\n'));
    }
}

// ── health ─────────────────────────────────────────────────────────────────────────────────────────────────────────

#[tokio::test]
async fn who_waits_for_redis_is_alive_and_not_ready() {
    let redis = OwnRedis::start(&[]);
    let mill = Mill::on_redis(&redis);
    let up = Served::up(&mill).await;
    eventually("it is ready", PATIENCE, async || (up.get("/readyz").await.status == 200).then_some(())).await;
    redis.stop();
    let asked = Instant::now();
    let detail = up.get("/readyz").await.refused(503, "not_ready");
    assert_eq!(detail, "no answer from Redis");
    assert!(asked.elapsed() < Duration::from_secs(3), "{:?}", asked.elapsed());
    assert_eq!(up.get("/healthz").await.status, 200);
    redis.cont();
    eventually("it is ready again", PATIENCE, async || (up.get("/readyz").await.status == 200).then_some(())).await;
}

#[tokio::test]
async fn a_mongodb_that_is_away_is_named_and_imports_can_be_started_all_the_same() {
    let mut mongod = OwnMongod::start();
    let mut mill = Mill::on_mongod(&mongod);
    mill.feed("a", "http://127.0.0.1:1/", None);
    let served = Served::serve(&mill).await;
    mongod.kill9();
    assert_eq!(served.get("/readyz").await.refused(503, "not_ready"), "no answer from MongoDB");
    let (_, id) = imports(&served.post("/imports/start", "").await.json()).remove(0);
    assert_eq!(served.get_json(&format!("/imports/{id}")).await["status"], "running");
    let detail = served.get("/imports/1").await.refused(503, "unavailable");
    assert!(detail.starts_with("import records cannot be read: "), "{detail}");
    assert_eq!(served.get("/healthz").await.status, 200);
}

// ── the end ────────────────────────────────────────────────────────────────────────────────────────────────────────

#[tokio::test]
async fn sigterm_answers_open_requests_and_takes_no_more() {
    let (mill, _server) = mill_with(&["a"], &one_item());
    for command in ["serve", "up"] {
        let mut served = Served::by(mill.start(&[command])).await;
        let body = r#"{"feeds": ["a"]}"#;
        let request = served.request("POST", "/imports/start", &[("Content-Type", "application/json")], body);
        let (first, rest) = request.split_at(request.len() - 5);
        let mut open = TcpStream::connect(served.address).await.unwrap();
        open.write_all(first).await.unwrap();
        let _idle = TcpStream::connect(served.address).await.unwrap();
        // Answered after those two were taken: the server has all three.
        assert_eq!(served.get("/healthz").await.status, 200);

        served.process.term();
        eventually("it takes no more", PATIENCE, async || TcpStream::connect(served.address).await.err()).await;
        open.write_all(rest).await.unwrap();
        let answer = Answer::read(&mut open).await;
        assert_eq!((answer.status, imports(&answer.json()).len()), (202, 1), "{command}");
        let (status, took) = served.process.wait(PATIENCE).await;
        assert_eq!(status.code(), Some(0));
        assert!(took < Duration::from_secs(10), "an idle connection is not waited for: {took:?}");
    }
}
