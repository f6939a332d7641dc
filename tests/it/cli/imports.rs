//! `fetch` and `import`: what is started, waited for, and listed.

use std::time::Duration;

use feedmill::{
    job::{Envelope, JobId},
    queue::enqueue::NewJob,
    store::{ImportRecord, ImportStatus},
};
use serde_json::{Value, json};

use super::{NOTHING, errors, mill_with_a_dead_letter};
use crate::support::{
    eventually::eventually,
    feed_server::{FeedServer, Page},
    process::{Mill, PATIENCE, redis_connection},
    shell::{BINARY, Shell},
};

#[tokio::test]
async fn each_feed_that_fails_is_one_line_with_the_reason_and_the_others_are_imported() {
    let server = FeedServer::start();
    server.put("/jobs.rss", Page::rss(&[("1", "good")]));
    server.put("/page.html", Page::new("<!DOCTYPE html><html><body><p>Hello<br></body></html>"));
    server.put("/large.rss", Page::rss(&[("1", &"x".repeat(5000))]));
    let mut mill = Mill::new();
    mill.set("fetch.body_max", "4KiB");
    mill.retry("feed_fetch_queue", 1, "1s");
    for (name, url) in [
        ("jobs", server.url("/jobs.rss")),
        ("page", server.url("/page.html")),
        ("large", server.url("/large.rss")),
        ("gone", server.url("/gone.rss")),
        ("down", format!("http://{NOTHING}/down.rss")),
    ] {
        mill.feed(name, &url, None);
    }
    let ran = mill.run(&["fetch", "jobs", "page", "large", "gone", "down", "--wait"]).await;
    assert_eq!(ran.status.code(), Some(1));
    let errors = errors(&ran);
    assert_eq!(
        errors[..3],
        [
            "page: feed page cannot be read: not a feed: it looks like HTML; use the address of the feed itself, \
             which the page may name in a <link>"
                .to_owned(),
            format!("large: {} is larger than 4096 bytes, the limit set by fetch.body_max", server.url("/large.rss")),
            format!("gone: {} answered 404", server.url("/gone.rss")),
        ]
    );
    assert!(
        errors[3].starts_with(&format!("down: cannot reach http://{NOTHING}/down.rss: no connection: ")),
        "{}",
        errors[3]
    );
    assert_eq!(errors.len(), 4);
    assert!(!ran.stderr.contains(" fetching feed "), "said once, not in the log too: {}", ran.stderr);

    let rows: Vec<Vec<&str>> = ran.stdout.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[0], ["feed", "status", "items", "new", "changed", "unchanged", "failed", "items/s"]);
    assert_eq!(rows[1][..7], ["jobs", "done", "1", "1", "0", "0", "0"]);
    assert_eq!(rows[2], ["page", "failed", "0", "0", "0", "0", "0", "-"]);
    assert_eq!(rows.len(), 6);
}

#[tokio::test]
async fn tables_fit_80_columns_and_line_up_and_nothing_is_coloured_in_a_pipe() {
    let (mill, _server) = mill_with_a_dead_letter().await;
    let mut commands = vec![];
    for args in
        [&["fetch", "jobs", "--wait"][..], &["import", "list"], &["queue", "counts"], &["queue", "show", "board#2"]]
    {
        commands.push(mill.run(args).await);
    }
    for ran in &commands {
        let printed = [ran.stdout.as_str(), &ran.stderr].concat();
        assert!(!printed.contains(['\x1b', '\r']), "{printed}");
    }
    for table in commands[..3].iter().map(|ran| &ran.stdout) {
        let lines: Vec<&str> = table.lines().collect();
        assert!(lines.len() > 1 && lines.iter().all(|line| line.len() <= 80), "{table}");
        // The last column is one of numbers: all lines end where its header ends.
        assert!(lines.iter().all(|line| line.len() == lines[0].len()), "{table}");
    }
}

#[tokio::test]
async fn progress_and_colour_are_for_terminals() {
    let server = FeedServer::start();
    server.put("/jobs.rss", Page::rss(&[("1", "good")]));
    let mut mill = Mill::new();
    mill.feed("jobs", &server.url("/jobs.rss"), None);
    mill.feed("gone", &server.url("/gone.rss"), None);
    let shell = Shell::new();
    // `script` gives the command a terminal and copies what comes out of it.
    let config = mill.command(&[]).get_args().last().unwrap().to_str().unwrap().to_owned();
    let mut command = shell.command("script");
    let line = format!("{BINARY} fetch --all --wait --config {config}");
    let output = command.env("TERM", "xterm").args(["-qec", &line, "/dev/null"]).output().expect("script is installed");
    let seen = String::from_utf8_lossy(&output.stdout);
    assert!(seen.contains("/2 feeds"), "a progress bar: {seen}");
    assert!(seen.contains("\x1b[31merror:\x1b[0m gone: "), "a red error: {seen}");
}

#[tokio::test]
async fn fetch_names_the_imports_it_started_and_those_that_ran_already() {
    let server = FeedServer::start();
    let mut mill = Mill::new();
    mill.feed("jobs", &server.url("/jobs.rss"), None);
    mill.feed("news", &server.url("/news.rss"), None);
    let ran = mill.run(&["fetch", "jobs", "jobs"]).await;
    let import = ran.stdout.lines().nth(1).unwrap().strip_prefix("jobs  ").unwrap();
    assert_eq!((ran.status.code(), ran.stdout.clone()), (Some(0), format!("feed  import\njobs  {import}\n")));
    let nobody = "no worker is alive: the feeds are fetched once `feedmill worker` or `feedmill up` runs\n";
    assert_eq!(ran.stderr, nobody);

    let ran = mill.run(&["fetch", "--all", "--json"]).await;
    let started: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(started[0], json!({ "feed": "jobs", "id": import, "running": true }));
    assert_eq!((&started[1]["feed"], &started[1]["running"]), (&json!("news"), &json!(false)));
    assert_eq!(ran.stderr, format!("jobs is being fetched already\n{nobody}"));
    assert!(server.asked().is_empty());
}

#[tokio::test]
async fn due_is_what_was_never_fetched_and_what_a_slot_has_passed_of() {
    let server = FeedServer::start();
    server.put("/jobs.rss", Page::rss(&[("1", "good")]));
    let mut mill = Mill::new();
    for name in ["yearly", "often", "asked"] {
        mill.feed(name, &server.url("/jobs.rss"), Some(name));
    }
    let schedule = |mill: &mut Mill, schedules: [Option<&str>; 3]| {
        let names = ["yearly", "often", "asked"];
        let feeds = names.into_iter().zip(schedules).map(|(name, schedule)| {
            let mut feed = toml::Table::new();
            feed.insert("name".to_owned(), name.into());
            feed.insert("url".to_owned(), server.url("/jobs.rss").into());
            feed.insert("source".to_owned(), name.into());
            feed.insert("allow_private".to_owned(), true.into());
            feed.extend(schedule.map(|schedule| ("schedule".to_owned(), schedule.into())));
            toml::Value::from(feed)
        });
        mill.set("feed", feeds.collect::<Vec<_>>());
    };
    schedule(&mut mill, [Some("0 0 1 1 *"), Some("every 365d"), None]);
    let due = async |mill: &Mill| {
        let records = mill.fetch_wait(&["--due"]).await;
        records.into_iter().map(|record: ImportRecord| record.feed).collect::<Vec<_>>()
    };
    assert_eq!(due(&mill).await, ["often", "yearly"], "never fetched is due; without a schedule is not");
    assert_eq!(due(&mill).await, <[&str; 0]>::default());
    assert_eq!(mill.run(&["fetch", "--due"]).await.data(), "", "cron has nothing to mail");
    schedule(&mut mill, [Some("0 0 1 1 *"), Some("every 1s"), None]);
    eventually("the next second begins", PATIENCE, async || {
        let due = due(&mill).await;
        (!due.is_empty()).then(|| assert_eq!(due, ["often"]))
    })
    .await;
}

#[tokio::test]
async fn waiting_for_an_import_that_ended_without_a_record_ends() {
    let server = FeedServer::start();
    server.put("/jobs.rss", Page::rss(&[("1", "good")]));
    let mut mill = Mill::new();
    mill.feed("jobs", &server.url("/jobs.rss"), None);
    // As a worker leaves it that is killed after the fetch and before its job is settled: the job is there, and its
    // import, which the schedule had started and which had nothing to do, is over and forgotten.
    let payload = br#"{"feed":"jobs","import":"660f1a2b3c4d5"}"#;
    let job = NewJob::new(JobId::new("jobs").unwrap(), Envelope { payload, ..Envelope::default() });
    let queues = mill.queues().await;
    let mut redis = redis_connection(queues.import.redis().address()).await;
    let feed = queues.import.keys().feed("jobs");
    let mut ended = redis::cmd("HSET");
    ended.arg(feed).arg("last_import").arg("660f1a2b3c4d5");
    ended.query_async::<()>(&mut redis).await.unwrap();
    queues.fetch.add(&[job], 1000).await.unwrap();

    let ran = mill.run(&["fetch", "jobs", "--wait", "--json"]).await;
    assert_eq!((ran.status.code(), ran.stdout.as_str()), (Some(0), "[]\n"), "{}", ran.stderr);
    assert!(ran.stderr.contains("jobs is being fetched already\n"), "{}", ran.stderr);
    assert!(ran.stderr.ends_with("jobs has nothing new\n"), "{}", ran.stderr);
}

#[tokio::test]
async fn a_feed_that_only_fetch_knows_is_said_to_be_missing_at_the_worker() {
    let mut mill = Mill::new();
    let _worker = mill.worker().await;
    mill.feed("jobs", &format!("http://{NOTHING}/jobs.rss"), None);
    let ran = mill.run(&["fetch", "jobs", "--wait"]).await;
    assert_eq!(ran.status.code(), Some(1));
    let told = "the worker that took it has no feed \"jobs\" in its configuration; workers read theirs when they start, \
                and on SIGHUP";
    assert_eq!(errors(&ran), [format!("jobs: {told}")]);
}

#[tokio::test]
async fn fetch_that_is_interrupted_gives_back_and_says_that_the_imports_go_on() {
    let server = FeedServer::start();
    server.put("/jobs.rss", Page::rss(&[("1", "good")]).after(Duration::from_secs(30)));
    let mut mill = Mill::new();
    mill.set("stream.feed_fetch_queue.shutdown_timeout", "100ms");
    mill.feed("jobs", &server.url("/jobs.rss"), None);
    let fetch = mill.start(&["fetch", "jobs", "--wait"]);
    eventually("the feed is asked for", PATIENCE, async || (!server.asked().is_empty()).then_some(())).await;
    fetch.term();
    let ran = fetch.ran().await;
    assert_eq!((ran.status.code(), ran.stdout.as_str()), (Some(1), ""));
    assert_eq!(errors(&ran), ["interrupted; the imports go on as soon as a worker runs"]);
    let counts = mill.queues().await.fetch.counts().await.unwrap();
    assert_eq!((counts.waiting, counts.active), (1, 0), "what it held was given back");
}

#[tokio::test]
async fn imports_are_listed_newest_first_and_shown_with_their_failures() {
    let (mill, server) = mill_with_a_dead_letter().await;
    server.put("/jobs.rss", Page::rss(&[("1", "good"), ("2", "bad"), ("3", "good too")]));
    let second = mill.fetch_wait(&["jobs"]).await.remove(0);

    let table = mill.run(&["import", "list"]).await.data();
    let rows: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[0].join(" "), "import feed status started UTC items new changed failed");
    assert_eq!(rows[1][..3], [second.id.as_str(), "jobs", "done"]);
    assert_eq!(rows[1][5..], ["3", "1", "0", "0"]);
    assert_eq!(rows[2][5..], ["2", "2", "0", "1"]);
    assert_eq!(rows.len(), 3);

    let listed = mill.run(&["import", "list", "--json", "--limit", "1", "--feed", "jobs"]).await.data();
    let listed: Value = serde_json::from_str(&listed).unwrap();
    assert_eq!((listed.as_array().unwrap().len(), &listed[0]["id"]), (1, &json!(second.id)));
    assert_eq!((&listed[0]["unchanged"], &listed[0]["inserted"]), (&json!(2), &json!(1)));
    assert_eq!(mill.run(&["import", "list", "--feed", "news"]).await.data(), "");

    let first = rows[2][0];
    let shown = mill.run(&["import", "show", first]).await.data();
    for line in ["status      done", "items       2", "  new       2", "inserted    1", "failed      1"] {
        assert!(shown.lines().any(|shown| shown == line), "{line} is not in\n{shown}");
    }
    assert!(shown.lines().last().unwrap().starts_with("failure     board#2: "), "{shown}");
    let shown: ImportRecord =
        serde_json::from_str(&mill.run(&["import", "show", first, "--json"]).await.data()).unwrap();
    assert_eq!((shown.id.as_str(), shown.status, shown.failures.len()), (first, ImportStatus::Done, 1));
}

#[tokio::test]
async fn a_running_import_is_listed_with_the_others() {
    let server = FeedServer::start();
    server.put("/jobs.rss", Page::rss(&[("1", "good")]));
    let mut mill = Mill::new();
    mill.feed("jobs", &server.url("/jobs.rss"), None);
    mill.fetch_wait(&["jobs"]).await;
    mill.fetch(&["jobs"]).await;
    let listed: Vec<ImportRecord> =
        serde_json::from_str(&mill.run(&["import", "list", "--json"]).await.data()).unwrap();
    let statuses: Vec<ImportStatus> = listed.iter().map(|record| record.status).collect();
    assert_eq!(statuses, [ImportStatus::Running, ImportStatus::Done]);
    let shown = mill.run(&["import", "show", &listed[0].id]).await.data();
    assert!(shown.contains("status      running\n") && shown.contains("finished    -\n"), "{shown}");
}
