//! `feedmill schedulers`, and the processes that fire what it makes.

use std::{collections::BTreeSet, time::Duration};

use feedmill::{
    QueueOptions,
    import::FetchTask,
    queue::{Queue, schedulers::SCHEDULER_ID_BYTES_MAX},
};
use mongodb::bson::doc;
use redis::AsyncCommands;
use serde_json::{Value, json};

use crate::support::{
    eventually::eventually,
    feed_server::{FeedServer, Page},
    jobs::{connection, id},
    process::{Mill, PATIENCE, Running},
    schedulers::{move_slot, now_ms, waiting_slots},
    shell::Shell,
};

const FETCH: &[&str] = &["--queue", "feed_fetch_queue", "--payload", "{\"feed\": \"jobs\"}"];

fn upsert<'a>(id: &'a str, args: &[&'a str]) -> Vec<&'a str> {
    [&["schedulers", "upsert", id], args, FETCH].concat()
}

async fn json_of(mill: &Mill, args: &[&str]) -> Value {
    serde_json::from_str(&mill.run(&[args, &["--json"]].concat()).await.data()).unwrap()
}

#[tokio::test]
async fn a_scheduler_is_made_shown_listed_and_removed() {
    let mill = Mill::new();
    let made = mill.run(&upsert("weekly", &["--cron", "0 4 * * SUN", "--timezone", "Europe/Berlin"])).await.data();
    assert!(made.starts_with("weekly created, next 20") && made.ends_with("Z\n"), "{made}");
    let again = mill.run(&upsert("weekly", &["--cron", "0 4 * * SUN", "--timezone", "Europe/Berlin"])).await.data();
    assert_eq!(again, made.replace("created", "unchanged"));
    let args = ["--every", "90s", "--offset", "5s", "--limit", "20", "--name", "again", "--priority", "7"];
    let more = ["--attempts", "2", "--end", "2099-01-01T00:00:00Z", "--catch-up", "all", "--no-overlap"];
    mill.run_ok(&upsert("often", &[&args[..], &more].concat())).await;

    let list = mill.run(&["schedulers", "list", "--queue", "feed_fetch_queue"]).await.data();
    let rows: Vec<&str> = list.lines().collect();
    assert!(rows[0].starts_with("scheduler  schedule") && rows[0].ends_with("next UTC             jobs"), "{list}");
    assert!(rows[1].starts_with("often      every 1m 30s + 5s") && rows[1].ends_with("  0"), "{list}");
    assert!(rows[2].starts_with("weekly     0 4 * * SUN (Europe/Berlin)"), "{list}");
    assert!(rows.iter().all(|row| row.chars().count() <= 80) && rows.len() == 3, "{list}");

    let shown = mill.run(&["schedulers", "show", "often", "--queue", "feed_fetch_queue"]).await.data();
    for row in [
        "scheduler   often",
        "schedule    every 1m 30s + 5s",
        "end         2099-01-01T00:00:00Z",
        "catch-up    all",
        "overlap     no",
        "jobs        0 of 20",
        "last slot   -",
        "job name    again",
        "priority    7",
        "attempts    2",
        "  \"feed\": \"jobs\"",
    ] {
        assert!(shown.lines().any(|line| line == row), "{row}: {shown}");
    }
    let shown = json_of(&mill, &["schedulers", "show", "often", "--queue", "feed_fetch_queue"]).await;
    for (key, value) in [
        ("everyMs", json!(90_000)),
        ("offsetMs", json!(5000)),
        ("limit", json!(20)),
        ("fired", json!(0)),
        ("catchUp", json!("all")),
        ("overlap", json!(false)),
        ("lastSlot", Value::Null),
    ] {
        assert_eq!(shown[key], value, "{key}: {shown}");
    }
    assert_eq!(shown["job"]["payload"], json!({"feed": "jobs"}));

    let first = json_of(&mill, &["schedulers", "list", "--queue", "feed_fetch_queue", "--limit", "1", "--desc"]).await;
    assert_eq!((&first["total"], &first["schedulers"][0]["id"]), (&json!(2), &json!("weekly")));
    let cursor = first["next"].as_str().unwrap();
    let args = ["schedulers", "list", "--queue", "feed_fetch_queue", "--desc", "--after", cursor];
    let second = json_of(&mill, &args).await;
    assert_eq!((&second["schedulers"][0]["id"], &second["next"]), (&json!("often"), &Value::Null));

    let removed = mill.run(&["schedulers", "remove", "often", "weekly", "--queue", "feed_fetch_queue"]).await.data();
    assert_eq!(removed, "often removed\nweekly removed\n");
    assert_eq!(mill.run(&["schedulers", "list", "--queue", "feed_fetch_queue"]).await.data(), "");
    for command in ["show", "remove"] {
        mill.run(&["schedulers", command, "often"]).await.failed(
            1,
            "there is no scheduler \"often\" in job_import_queue; `feedmill schedulers list` shows those there are",
        );
    }
}

#[tokio::test]
async fn bad_input_is_one_line_that_names_it_and_the_way_out() {
    let mill = Mill::new();
    let long = "x".repeat(SCHEDULER_ID_BYTES_MAX + 1);
    for (scheduler, args, told) in [
        ("a", &["--cron", "* * * * *", "--every", "1m"][..], "--cron and --every exclude each other; give one"),
        ("a", &[], "there is no schedule; give --cron or --every"),
        ("a", &["--every", "1m", "--timezone", "UTC"], "--timezone belongs to --cron; an interval has none"),
        ("a", &["--cron", "* * * * *", "--offset", "1s"], "--offset belongs to --every; a pattern says itself when"),
        ("a", &["--cron", "soon"], "\"soon\" is not a cron pattern; write it like \"*/15 * * * *\", with a sixth"),
        ("a", &["--cron", "0 0 31 2 *"], "cron pattern \"0 0 31 2 *\" is never due"),
        ("a", &["--cron", "* * * * *", "--timezone", "Europe/Berln"], "timezone \"Europe/Berln\" is not known; use a"),
        ("a", &["--every", "15"], "--every \"15\" is no duration; write it like \"15m\" or \"1h 30m\""),
        ("a", &["--every", "10ms"], "an interval of 10ms is not accepted; accepted: whole milliseconds, from 100ms"),
        ("a", &["--every", "1m", "--offset", "1m"], "an offset of 1m is not accepted; accepted: whole milliseconds"),
        ("a", &["--every", "1m", "--limit", "0"], "a limit of 0 jobs leaves nothing to be done; accepted: 1 or more"),
        ("a", &["--every", "1m", "--end", "tomorrow"], "--end \"tomorrow\" is no time; write it like 2027-01-31T09"),
        (
            "a",
            &["--every", "1m", "--start", "2027-01-02T00:00:00Z", "--end", "2027-01-01T00:00:00Z"],
            "the end 2027-01-01T00:00:00Z is not after the start 2027-01-02T00:00:00Z",
        ),
        ("a", &["--every", "1m", "--end", "2001-01-01T00:00:00Z"], "it has no slot between now and its end 2001-01-"),
        ("a", &["--every", "1m", "--priority", "2097152"], "job repeat:a"),
        ("", &["--every", "1m"], "the id of a scheduler must not be empty"),
        (&long, &["--every", "1m"], "a scheduler id of"),
    ] {
        let ran = mill.run(&upsert(scheduler, args)).await;
        assert_eq!((ran.status.code(), ran.stdout.as_str()), (Some(2), ""), "{args:?}: {}", ran.stderr);
        assert!(ran.stderr.starts_with(&format!("error: {told}")), "{args:?}: {}", ran.stderr);
        assert_eq!(ran.stderr.lines().count(), 1, "{args:?}: {}", ran.stderr);
    }
    let payload = ["schedulers", "upsert", "a", "--every", "1m", "--payload", "{\"fed\": 1}"];
    let ran = mill.run(&[&payload[..], &["--queue", "feed_fetch_queue"]].concat()).await;
    assert_eq!(ran.status.code(), Some(2));
    assert!(ran.stderr.starts_with("error: --payload: json: unknown field `fed`"), "{}", ran.stderr);
    mill.run(&[&payload[..], &["--queue", "jobs"]].concat())
        .await
        .failed(2, "there is no queue \"jobs\"; the queues are feed_fetch_queue, job_import_queue");
    mill.run(&["schedulers", "list", "--after", "x"])
        .await
        .failed(2, "\"x\" is no cursor; it is printed at the end of a page, like 1795492693614:id");
    assert_eq!(json_of(&mill, &["schedulers", "list", "--queue", "feed_fetch_queue"]).await["total"], 0);
    // Before anything is connected.
    Shell::new()
        .run(&["schedulers", "upsert", "a", "--payload", "{}", "--redis-url", "redis://127.0.0.1:1"])
        .failed(2, "there is no schedule; give --cron or --every");
}

#[tokio::test]
async fn any_queue_has_schedulers_and_its_own_workers_fire_them() {
    let mill = Mill::new();
    let queues = mill.queues().await;
    let reports: feedmill::Queue<Value> =
        feedmill::Queue::open(queues.import.redis(), "reports", QueueOptions::default()).await.unwrap();
    let of_reports = ["--every", "1h", "--immediately", "--queue", "reports", "--payload"];
    let refused = mill.run(&[&["schedulers", "upsert", "r"], &of_reports[..], &["{"]].concat()).await;
    assert!(
        refused.status.code() == Some(2) && refused.stderr.starts_with("error: --payload: json: EOF"),
        "{refused:?}"
    );
    mill.run_ok(&[&["schedulers", "upsert", "r"], &of_reports[..], &["{\"about\": 5}"]].concat()).await;
    let (told, mut handled) = tokio::sync::mpsc::unbounded_channel();
    let shutdown = tokio_util::sync::CancellationToken::new();
    let worker = feedmill::Worker::new(&reports, move |job: feedmill::Job<Value>| {
        told.send(job.data).unwrap();
        async {}
    });
    let running = tokio::spawn(worker.run(shutdown.clone()));
    assert_eq!(tokio::time::timeout(PATIENCE, handled.recv()).await.unwrap(), Some(json!({"about": 5})));
    shutdown.cancel();
    running.await.unwrap();
}

#[tokio::test]
async fn the_schedules_of_feeds_are_listed_and_left_to_the_configuration() {
    let server = FeedServer::start();
    let mut mill = Mill::new();
    mill.feed("jobs", &server.url("/jobs"), None);
    mill.set_of_feed("jobs", "schedule", Some("0 9 * * *"));
    let _schedule = mill.start(&["schedule"]);
    let list = ["schedulers", "list", "--queue", "feed_fetch_queue"];
    let listed = eventually("the feed has its slot", PATIENCE, async || {
        Some(mill.run(&list).await.data()).filter(|listed| !listed.is_empty())
    })
    .await;
    assert!(listed.lines().nth(1).unwrap().starts_with("jobs       0 9 * * * (feed)"), "{listed}");
    assert_eq!(json_of(&mill, &list).await["schedulers"][0]["feed"], "0 9 * * *");
    mill.run(&upsert("jobs", &["--every", "1m"]))
        .await
        .failed(2, "\"jobs\" is the schedule of a feed; give the scheduler another id");
    mill.run(&["schedulers", "remove", "jobs", "--queue", "feed_fetch_queue"])
        .await
        .failed(2, "\"jobs\" is the schedule of a feed; take it out of the configuration");
}

#[tokio::test]
async fn the_schedules_of_subscriptions_are_listed_as_such_and_left_to_them() {
    let (server, mut mill) = (FeedServer::start(), Mill::new());
    mill.set("fetch.allow_networks", vec!["127.0.0.0/8"]);
    server.put("/feed", Page::rss(&[("1", "one")]));
    mill.run_ok(&["feeds", "add", &server.url("/feed"), "--name", "jobs", "--schedule", "0 9 * * *"]).await;
    let _schedule = mill.start(&["schedule"]);
    let list = ["schedulers", "list", "--queue", "feed_fetch_queue"];
    let listed = eventually("the subscription has its slot", PATIENCE, async || {
        Some(mill.run(&list).await.data()).filter(|listed| !listed.is_empty())
    })
    .await;
    assert!(listed.lines().nth(1).unwrap().starts_with("jobs       0 9 * * * (subscription)"), "{listed}");
    assert!(listed.lines().all(|line| line.chars().count() <= 80), "{listed}");
    let scheduler = &json_of(&mill, &list).await["schedulers"][0];
    assert_eq!((&scheduler["feed"], &scheduler["from"]), (&json!("0 9 * * *"), &json!("subscription")));
    let shown = mill.run(&["schedulers", "show", "jobs", "--queue", "feed_fetch_queue"]).await.data();
    assert!(shown.contains("schedule    0 9 * * * (subscription)"), "{shown}");
    mill.run(&["schedulers", "remove", "jobs", "--queue", "feed_fetch_queue"])
        .await
        .failed(2, "\"jobs\" is the schedule of a subscription; `feedmill feeds remove jobs` ends it");
    mill.run(&upsert("jobs", &["--every", "1m"]))
        .await
        .failed(2, "\"jobs\" is the schedule of a feed; give the scheduler another id");
    // Without MongoDB it is not known what it is, and said.
    mill.set("mongodb.uri", "mongodb://127.0.0.1:1/?serverSelectionTimeoutMS=200");
    let ran = mill.run(&list).await;
    assert_eq!(ran.status.code(), Some(0), "{}", ran.stderr);
    assert!(ran.stdout.contains("unknown: nothing is stored"), "{}", ran.stdout);
    assert!(ran.stderr.starts_with("MongoDB does not say which are subscriptions: "), "{}", ran.stderr);
}

#[tokio::test]
async fn damage_is_shown_in_list_and_show() {
    let mill = Mill::new();
    mill.run_ok(&upsert("a", &["--every", "1h"])).await;
    let queue = mill.queues().await.fetch;
    let mut redis = connection(&queue).await;
    let _: () = redis.hset(queue.keys().scheduler("a"), "definition", "{").await.unwrap();
    let _: () = redis.zadd(queue.keys().schedulers(), "lost", 1).await.unwrap();
    let list = mill.run(&["schedulers", "list", "--queue", "feed_fetch_queue"]).await.data();
    assert!(list.contains("lost       unknown: nothing is stored of…  1970-01-01 00:00:00     -"), "{list}");
    assert!(list.contains("a          damaged: the stored definitio…"), "{list}");
    let shown = mill.run(&["schedulers", "show", "a", "--queue", "feed_fetch_queue"]).await.data();
    assert!(shown.contains("schedule    damaged: the stored definition cannot be read: EOF"), "{shown}");
    mill.run_ok(&["schedulers", "remove", "a", "lost", "--queue", "feed_fetch_queue"]).await;
}

#[tokio::test]
async fn a_scheduler_of_items_writes_the_same_document_at_each_slot() {
    let mill = Mill::new();
    let item = r#"{"source": "x", "guid": "1", "title": "again", "salary": 5}"#;
    let _worker = mill.worker().await;
    mill.run_ok(&["schedulers", "upsert", "item", "--every", "200ms", "--payload", item]).await;
    let documents = mill.documents().await;
    let mut versions = BTreeSet::new();
    eventually("it is written again and again", PATIENCE, async || {
        let found = documents.find_one(doc! {"source": "x", "guid": "1"}).await.unwrap()?;
        assert_eq!(found.get_str("title").unwrap(), "again");
        versions.insert(found.get_i64("version").unwrap());
        (versions.len() >= 3).then_some(())
    })
    .await;
    assert_eq!(documents.count_documents(doc! {}).await.unwrap(), 1);
    mill.run_ok(&["schedulers", "remove", "item"]).await;
    mill.through(&mill.queues().await).await;
}

/// How many jobs the scheduler says it has added.
async fn fired(queue: &Queue, scheduler: &str) -> u64 {
    queue.scheduler(scheduler).await.unwrap().map_or(0, |(found, _)| found.stored.unwrap().fired)
}

#[tokio::test]
async fn four_processes_of_which_two_are_killed_fire_each_slot_once_and_keep_to_a_limit() {
    let mill = Mill::new();
    let queue = mill.queues().await.fetch;
    mill.run_ok(&upsert("endless", &["--every", "200ms", "--catch-up", "all"])).await;
    mill.run_ok(&upsert("limited", &["--every", "100ms", "--catch-up", "all", "--limit", "25"])).await;
    let mut schedules: Vec<Running> = (0..4).map(|_| mill.start(&["schedule"])).collect();
    for jobs in [10, 20] {
        eventually("slots are fired", PATIENCE, async || (fired(&queue, "endless").await >= jobs).then_some(())).await;
        schedules.pop().unwrap().kill9();
    }
    eventually("slots are fired", PATIENCE, async || (fired(&queue, "endless").await >= 30).then_some(())).await;
    eventually("the other one ends", PATIENCE, async || {
        queue.scheduler("limited").await.unwrap().is_none().then_some(())
    })
    .await;
    for schedule in &mut schedules {
        schedule.term();
        assert_eq!(schedule.wait(PATIENCE).await.0.code(), Some(0));
    }
    let limited = waiting_slots(&queue, "limited").await;
    let slots = waiting_slots(&queue, "endless").await;
    for (slots, interval) in [(&limited, 100), (&slots, 200)] {
        let expected: Vec<i64> = (0..slots.len() as i64).map(|n| slots[0] + n * interval).collect();
        assert_eq!(*slots, expected);
    }
    assert_eq!((limited.len(), slots.len() as u64), (25, fired(&queue, "endless").await));
    assert_eq!(queue.counts().await.unwrap().waiting, 25 + slots.len() as u64);
    let job = queue.find(&id(format!("repeat:endless:{}", slots[0]))).await.unwrap().unwrap().job;
    assert_eq!(serde_json::from_slice::<FetchTask>(job.payload()).unwrap().feed, "jobs");
}

#[tokio::test]
async fn a_scheduler_of_the_fetch_queue_fetches_its_feed_beside_the_schedule() {
    let server = FeedServer::start();
    server.put("/jobs", Page::rss(&[("1", "an item")]));
    let mut mill = Mill::new();
    mill.feed("jobs", &server.url("/jobs"), Some("jobs"));
    mill.set_of_feed("jobs", "schedule", Some("0 0 1 1 *"));
    let _up = mill.start(&["up"]);
    let queue = mill.queues().await.fetch;
    mill.run_ok(&upsert("more", &["--every", "1h", "--immediately"])).await;
    eventually("it is fetched", PATIENCE, async || (server.asked_for("/jobs").len() == 1).then_some(())).await;
    move_slot(&queue, "more", now_ms(&queue).await - 1).await;
    eventually("and again", PATIENCE, async || (server.asked_for("/jobs").len() == 2).then_some(())).await;
    assert_eq!(fired(&queue, "more").await, 2);
    let next = queue.scheduler("jobs").await.unwrap().unwrap().0.next_slot_ms.unwrap();
    assert!(next > now_ms(&queue).await + Duration::from_secs(1).as_millis() as i64, "the feed keeps its own");
}
