//! What is exported, asked for by a real Prometheus: names, numbers, and that all who count say the same.

use std::{
    env, fs,
    io::Write as _,
    net::SocketAddr,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use clap::Parser as _;
use feedmill::{
    cli::Cli,
    job::JobId,
    metrics::{
        self, QueueReadings,
        server::{CONTENT_TYPE, Server},
        table::{BUILD_INFO, FAMILIES, Family, SLOT_DELAY, SLOTS, Whose},
    },
    queue::{GROUP, Queue, consumers::Consumer, enqueue::NewJob, orphans::Patrol, schedulers::Rescheduling},
};
use mongodb::bson::doc;
use redis::{
    AsyncCommands as _,
    aio::MultiplexedConnection,
    streams::{StreamId, StreamRangeReply},
};
use serde_json::Value;

use crate::support::{
    eventually::eventually,
    feed_server::{FeedServer, Page},
    http::Served,
    jobs::{PAYLOAD_MAX, add, add_many, add_prioritized, connection, id, new_job, queue, queue_at, read_one},
    process::{Mill, PATIENCE, Running, assert_adds_up, records},
    prometheus::{Prometheus, http},
    servers::{OwnRedis, find, on_each_redis},
};

const IMPORT: &str = "job_import_queue";
const FETCH: &str = "feed_fetch_queue";
const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

async fn scrape(address: SocketAddr) -> String {
    let answer = http().get(format!("http://{address}/metrics")).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["content-type"], CONTENT_TYPE);
    String::from_utf8(answer.bytes().await.unwrap().to_vec()).unwrap()
}

/// The number of one series (`name{label="value"}`).
fn number(text: &str, series: &str) -> u64 {
    let of_series = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    of_series.unwrap_or_else(|| panic!("no {series} in\n{text}")).parse().unwrap()
}

fn is_exported(text: &str, family: &Family) -> bool {
    text.contains(&format!("# TYPE {} ", family.name))
}

/// What `promtool check metrics` finds, one finding a line.
fn findings(text: &str) -> Vec<String> {
    let mut promtool = Command::new(find("promtool"))
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    promtool.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let said = promtool.wait_with_output().unwrap();
    let said = [said.stdout, said.stderr].concat();
    String::from_utf8(said).unwrap().lines().map(str::to_owned).collect()
}

/// Two feeds: one of `items` items, of which every tenth has the title "bad", and one that answers 500.
fn serve_feeds(server: &FeedServer, mill: &mut Mill, items: usize) {
    let guids: Vec<String> = (0..items).map(|n| n.to_string()).collect();
    let items: Vec<(&str, &str)> =
        guids.iter().enumerate().map(|(n, guid)| (guid.as_str(), if n % 10 == 0 { "bad" } else { "good" })).collect();
    server.put("/a", Page::rss(&items));
    server.put("/b", Page::status(500));
    mill.feed("a", &server.url("/a"), Some("a"));
    mill.feed("b", &server.url("/b"), Some("b"));
    mill.retry(IMPORT, 2, "10ms");
    mill.retry(FETCH, 2, "10ms");
}

async fn entry_of_1970(queue: &Queue, redis: &mut MultiplexedConnection) {
    let mut add = redis::cmd("XADD");
    add.arg(queue.keys().stream()).arg("1000-0").arg("json").arg("{}");
    let _: String = add.query_async(redis).await.unwrap();
}

async fn the_age_of_the_oldest_waiting_job_is_that_of_the_first_one_not_delivered_also_while_paused(url: &str) {
    const YEAR: Duration = Duration::from_hours(24 * 365);
    let queue = queue_at(url).await;
    let counts = async || queue.counts().await.unwrap();
    assert_eq!((counts().await.oldest_waiting, counts().await.consumers_alive), (None, 0), "nothing is there");

    let mut redis = connection(&queue).await;
    entry_of_1970(&queue, &mut redis).await;
    add(&queue, "a").await;
    assert!(counts().await.oldest_waiting.unwrap() > YEAR, "it waits since 1970");
    assert!(queue.pause().await.unwrap());
    assert!(counts().await.oldest_waiting.unwrap() > YEAR, "a pause delivers nothing");
    assert!(queue.resume().await.unwrap());

    let mut read = redis::cmd("XREADGROUP");
    read.arg(&["GROUP", GROUP, "c", "COUNT", "1", "STREAMS", queue.keys().stream(), ">"]);
    let _: redis::Value = read.query_async(&mut redis).await.unwrap();
    assert!(counts().await.oldest_waiting.unwrap() < YEAR, "the old one is active, the one behind it waits");
    assert!(queue.pause().await.unwrap());
    assert!(counts().await.oldest_waiting.unwrap() < YEAR, "where the group was is known while it is paused");
    assert!(queue.resume().await.unwrap());
    read_one(&queue, "c").await;
    assert_eq!((counts().await.oldest_waiting, counts().await.active), (None, 2), "both are active");

    queue.heartbeat(&Consumer::of_this_process(), 0).await.unwrap();
    assert_eq!(counts().await.consumers_alive, 1);
}

on_each_redis!(the_age_of_the_oldest_waiting_job_is_that_of_the_first_one_not_delivered_also_while_paused);

#[tokio::test]
async fn prometheus_scrapes_what_is_exported_and_every_expression_of_dashboard_and_alerts_has_data() {
    let (server, mut mill) = (FeedServer::start(), Mill::new());
    serve_feeds(&server, &mut mill, 50);
    // Slots are fired all the time.
    mill.feed("c", &server.url("/a"), Some("c"));
    mill.set_of_feed("c", "schedule", Some("every 1s"));
    let up = Served::up(&mill).await;
    let prometheus = Prometheus::scraping(&up.address.to_string()).await;
    // A rate needs a number from before.
    eventually("the first scrape", PATIENCE, async || {
        (!prometheus.query("feedmill_fetches_total").await.is_empty()).then_some(())
    })
    .await;
    mill.fetch(&["a", "b"]).await;
    mill.through(&mill.queues().await).await;

    let text = scrape(up.address).await;
    assert!(text.ends_with('\n') && !text.contains("\n\n\n"));
    for family in FAMILIES {
        assert_eq!(text.matches(&format!("# TYPE {} ", family.name)).count(), 1, "{}", family.name);
        assert_eq!(text.matches(&format!("# HELP {} ", family.name)).count(), 1, "{}", family.name);
    }
    let findings = findings(&text);
    assert!(matches!(findings.as_slice(), [one] if one.starts_with("bullmq_job_count ")), "{findings:?}");

    prometheus.knows_dashboard_and_alerts(&[]).await;
}

#[test]
fn every_command_that_an_alert_names_is_one() {
    let alerts = include_str!("../../prometheus/alerts.yml").replace("{{ $labels.queue }}", "jobs");
    let runbooks: Vec<&str> = alerts.lines().filter_map(|line| line.trim().strip_prefix("runbook: \"")).collect();
    assert_eq!(runbooks.len(), alerts.matches("- alert: ").count(), "each alert has one");
    for runbook in runbooks {
        let commands: Vec<&str> =
            runbook.trim_end_matches('"').split("; ").map(|part| &part[part.find("feedmill ").unwrap()..]).collect();
        assert!(!commands.is_empty(), "{runbook}");
        for command in commands {
            let parsed = Cli::try_parse_from(command.split(' '));
            assert!(parsed.is_ok(), "{command}: {}", parsed.unwrap_err());
        }
    }
}

#[test]
fn the_dashboard_is_as_the_schema_wants_it_that_grafana_publishes() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/grafana");
    assert!(folder.join("node_modules").is_dir(), "Grafana's schema is not installed; run: scripts/setup.sh test");
    let check = |dashboard: &str| {
        let ran = Command::new(find("node")).args(["check.mjs", dashboard]).current_dir(&folder).output().unwrap();
        (ran.status.code(), String::from_utf8(ran.stdout).unwrap())
    };
    let (status, said) = check("../../grafana/dashboards/feedmill.json");
    assert_eq!(status, Some(0), "{said}");

    let wrong = include_str!("../../grafana/dashboards/feedmill.json").replacen("\"colorMode\"", "\"colourMode\"", 1);
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), wrong).unwrap();
    let (status, said) = check(file.path().to_str().unwrap());
    assert_eq!((status, said.lines().count()), (Some(1), 1), "{said}");
    assert!(said.contains("stat \"Waiting\" /options") && said.contains("colourMode"), "{said}");
}

#[tokio::test]
async fn after_an_import_with_failing_items_all_who_count_tell_the_same_story() {
    let (server, mut mill) = (FeedServer::start(), Mill::new());
    serve_feeds(&server, &mut mill, 200);
    let refuse_bad = doc! { "title": { "$ne": "bad" } };
    let store = mill.store().await;
    store.database().create_collection("jobs").validator(refuse_bad).await.unwrap();
    let up = Served::up(&mill).await;
    let ran = mill.run(&["fetch", "a", "--wait", "--json"]).await;
    assert_eq!(ran.status.code(), Some(1), "{}", ran.stderr);
    mill.through(&mill.queues().await).await;

    let record = records(&ran.stdout).remove(0);
    assert_adds_up(&record);
    assert_eq!((record.items, record.new, record.inserted, record.failed), (200, 200, 180, 20));
    assert_eq!(mill.documents().await.count_documents(doc! {}).await.unwrap(), 180);

    let counts: Value = serde_json::from_str(&mill.run_ok(&["queue", "counts", "--json"]).await).unwrap();
    let text = eventually("readings from after the import", PATIENCE, async || {
        let text = scrape(up.address).await;
        (number(&text, &format!("bullmq_job_count{{queue=\"{IMPORT}\",state=\"failed\"}}")) > 19).then_some(text)
    })
    .await;
    for queue in [IMPORT, FETCH] {
        let states =
            ["active", "completed", "delayed", "failed", "paused", "prioritized", "waiting", "waiting-children"];
        for state in states {
            let exported = number(&text, &format!("bullmq_job_count{{queue=\"{queue}\",state=\"{state}\"}}"));
            assert_eq!(Some(exported), counts[queue][state].as_u64(), "{queue} {state}");
        }
        let of = |name: &str| number(&text, &format!("{name}{{queue=\"{queue}\"}}"));
        let total = |name: &str| counts[queue]["totals"][name].as_u64().unwrap_or(0);
        assert_eq!(of("bullmq_job_completed_total"), total("completed"), "{queue}");
        assert_eq!(of("bullmq_job_failed_total"), total("failed"), "{queue}");
        assert_eq!(of("bullmq_jobs_processed_total"), total("completed") + total("failed"), "{queue}");
        assert_eq!(of("bullmq_queue_size"), 0, "{queue}");
        assert_eq!(of("feedmill_retries_total"), total("retried"), "{queue}");
        // One process did everything, so what it did itself is what Redis counted.
        let settled =
            |outcome| number(&text, &format!("feedmill_jobs_settled_total{{queue=\"{queue}\",outcome=\"{outcome}\"}}"));
        assert_eq!(settled("done"), total("completed"), "{queue}");
        assert_eq!(settled("buried"), total("failed"), "{queue}");
        assert_eq!(settled("retried"), total("retried"), "{queue}");
    }
    let import = |name: &str| number(&text, &format!("{name}{{queue=\"{IMPORT}\"}}"));
    assert_eq!((import("bullmq_job_completed_total"), import("bullmq_job_failed_total")), (180, 20));
    assert_eq!((import("feedmill_dead_letters"), import("feedmill_consumers_alive")), (20, 1));
    assert_eq!(import("feedmill_job_wait_seconds_count"), 200, "each job had one first handling");
    assert_eq!(number(&text, "feedmill_documents_total{result=\"inserted\"}"), 180);
    assert_eq!(number(&text, "feedmill_fetched_items_total{class=\"new\"}"), 200);
    assert_eq!(number(&text, "feedmill_fetches_total{status=\"2xx\"}"), 1);
    let enqueued = format!("feedmill_enqueued_total{{queue=\"{IMPORT}\",result=\"enqueued\"}}");
    assert_eq!(number(&text, &enqueued), 200);
}

/// A process that exports (`worker`, `schedule`); returns where, once its `n_parts` parts run.
async fn exporting(mill: &Mill, args: &str, n_parts: usize, variables: &[(&str, &str)]) -> (Running, SocketAddr) {
    let mut command = mill.command(&[args]);
    command.envs(variables.iter().copied());
    let process = mill.start_command(command);
    let address = eventually("it exports", PATIENCE, async || {
        let log = process.stderr();
        let (_, rest) = log.split_once("http://").filter(|_| log.matches("r starts").count() == n_parts)?;
        Some(rest.split('/').next()?.parse().unwrap())
    })
    .await;
    (process, address)
}

async fn exporting_worker(mill: &Mill, variables: &[(&str, &str)]) -> (Running, SocketAddr) {
    exporting(mill, "worker", 2, variables).await
}

#[tokio::test]
async fn a_worker_exports_what_it_did_and_serve_what_redis_says() {
    let (server, mut mill) = (FeedServer::start(), Mill::new());
    serve_feeds(&server, &mut mill, 3);
    let (mut worker, address) = exporting_worker(&mill, &[("FEEDMILL_METRICS_LISTEN", "127.0.0.1:0")]).await;
    let before = scrape(address).await;
    for family in FAMILIES {
        assert_eq!(is_exported(&before, family), family.whose == Whose::Process, "{}", family.name);
    }
    let done = format!("feedmill_jobs_settled_total{{queue=\"{IMPORT}\",outcome=\"done\"}}");
    assert_eq!(number(&before, &done), 0, "exported before the first one");
    let serve = Served::serve(&mill).await;
    let of_serve = scrape(serve.address).await;
    for family in FAMILIES {
        let wanted = family.whose == Whose::Redis || *family == BUILD_INFO;
        assert_eq!(is_exported(&of_serve, family), wanted, "{}", family.name);
    }
    mill.fetch(&["a"]).await;
    mill.through(&mill.queues().await).await;
    assert_eq!(number(&scrape(address).await, &done), 3);
    worker.term();
    let (status, _) = worker.wait(PATIENCE).await;
    assert_eq!(status.code(), Some(0));
}

#[tokio::test]
async fn schedules_export_what_became_of_slots_and_each_slot_is_counted_by_one_of_them() {
    let mut mill = Mill::new();
    for feed in ["a", "b", "taken"] {
        // Nobody fetches them.
        mill.feed(feed, "http://127.0.0.1:1/", None);
        mill.set_of_feed(feed, "schedule", Some("every 1s"));
    }
    let queue = mill.queues().await.fetch;
    let taken = queue.keys().job(&JobId::new("taken").unwrap());
    let mut redis = connection(&queue).await;
    let _: usize = redis.rpush(taken, "something else").await.unwrap();

    let variables = [("FEEDMILL_METRICS_LISTEN", "127.0.0.1:0")];
    let (_one, first) = exporting(&mill, "schedule", 2, &variables).await;
    let (_other, second) = exporting(&mill, "schedule", 2, &variables).await;
    let text = scrape(first).await;
    for family in FAMILIES {
        assert_eq!(is_exported(&text, family), [BUILD_INFO, SLOTS, SLOT_DELAY].contains(family), "{}", family.name);
    }
    let slots = async |result: &str| {
        let series = format!("feedmill_slots_total{{result=\"{result}\"}}");
        number(&scrape(first).await, &series) + number(&scrape(second).await, &series)
    };
    // A feed that was configured once, in a time before both have begun to remove those.
    let gone = Rescheduling { id: "gone", believed_ms: None, slot_ms: Some(1000) };
    assert_eq!(queue.reschedule(&[gone]).await.unwrap().moved, 1);
    eventually("slots have passed", PATIENCE, async || {
        (slots("overlapped").await > 4 && slots("refused").await > 2 && slots("dropped").await > 0).then_some(())
    })
    .await;
    assert_eq!((slots("fired").await, slots("dropped").await), (2, 1));
    assert_eq!(queue.counts().await.unwrap().totals["enqueued"], 2);
}

#[tokio::test]
async fn with_a_token_metrics_are_for_those_who_bring_it() {
    let mill = Mill::new();
    let variables = [("FEEDMILL_METRICS_LISTEN", "0.0.0.0:0"), ("FEEDMILL_TOKEN", "s3cret")];
    let (worker, address) = exporting_worker(&mill, &variables).await;
    let url = format!("http://127.0.0.1:{}/metrics", address.port());
    let without = http().get(&url).send().await.unwrap();
    assert_eq!(without.status(), 401);
    let wrong = http().get(&url).header("authorization", "Bearer secret").send().await.unwrap();
    assert_eq!(wrong.status(), 401);
    let with = http().get(&url).header("authorization", "Bearer s3cret").send().await.unwrap();
    assert_eq!(with.status(), 200);
    assert!(!worker.stderr().contains("s3cret"));
}

#[tokio::test]
async fn without_a_token_a_worker_refuses_to_export_beyond_this_host() {
    let mill = Mill::new();
    let mut command = mill.command(&["worker"]);
    command.env("FEEDMILL_METRICS_LISTEN", "0.0.0.0:9100");
    mill.start_command(command).ran().await.failed(
        2,
        "metrics on 0.0.0.0:9100, beyond this host, need a token: set FEEDMILL_TOKEN, or listen on 127.0.0.1",
    );
}

#[tokio::test]
async fn while_redis_is_away_its_numbers_are_missing_and_that_is_said() {
    let mut redis = OwnRedis::start(&[]);
    let queue = queue_at(&redis.url()).await;
    let exported = metrics::record().unwrap().with_queues(QueueReadings::new([queue]));
    let server = Server::start(LOOPBACK, exported, None).await.unwrap();
    assert_eq!(number(&scrape(server.address).await, "feedmill_redis_up"), 1);
    redis.kill9();
    let without = eventually("the reading is over a second old", PATIENCE, async || {
        let text = scrape(server.address).await;
        (number(&text, "feedmill_redis_up") == 0).then_some(text)
    })
    .await;
    assert!(!without.contains("bullmq_"), "{without}");
    assert!(without.contains("feedmill_build_info"), "what the process knows itself stays");
    redis.restart();
    eventually("Redis answers again", PATIENCE, async || {
        (number(&scrape(server.address).await, "feedmill_redis_up") == 1).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_worker_that_limits_hold_up_says_so() {
    let (server, mut mill) = (FeedServer::start(), Mill::new());
    serve_feeds(&server, &mut mill, 5);
    let limiter = [("max".to_owned(), 1.into()), ("duration".to_owned(), "1h".into())];
    mill.set(&format!("stream.{IMPORT}.limiter"), toml::Table::from_iter(limiter));
    let (_worker, address) = exporting_worker(&mill, &[("FEEDMILL_METRICS_LISTEN", "127.0.0.1:0")]).await;
    let series = |queue: &str| format!("feedmill_reads_held_up_total{{queue=\"{queue}\"}}");
    assert_eq!(number(&scrape(address).await, &series(IMPORT)), 0, "an idle queue is not held up");
    mill.run_ok(&["fetch", "--all"]).await;
    eventually("it is held up", PATIENCE, async || {
        let text = scrape(address).await;
        assert_eq!(number(&text, &series(FETCH)), 0);
        (number(&text, &series(IMPORT)) > 0).then_some(())
    })
    .await;
}

/// Delivers the next jobs of the stream to a consumer.
async fn deliver(queue: &Queue, redis: &mut MultiplexedConnection, consumer: &str, jobs: usize) {
    let mut read = redis::cmd("XREADGROUP");
    read.arg(&["GROUP", GROUP, consumer, "COUNT", &jobs.to_string(), "STREAMS", queue.keys().stream(), ">"]);
    let _: redis::Value = read.query_async(redis).await.unwrap();
}

/// What a foreign program may do: the entries of a consumer are then pending for nobody.
async fn delete_consumer(redis: &mut MultiplexedConnection, stream: &str, consumer: &str) {
    let _: usize = redis.xgroup_delconsumer(stream, GROUP, consumer).await.unwrap();
}

async fn orphans_are_counted_page_by_page_and_pending_entries_are_none(url: &str) {
    let queue = queue_at(url).await;
    let mut redis = connection(&queue).await;
    let mut patrol = Patrol::new(queue.clone());
    assert_eq!(patrol.turn().await.unwrap(), 0, "nothing is there");
    add_many(&queue, "pending", 1000).await;
    deliver(&queue, &mut redis, "alive", 1000).await;
    add_many(&queue, "orphan", 3).await;
    deliver(&queue, &mut redis, "dead", 3).await;
    add_many(&queue, "waiting", 300).await;
    delete_consumer(&mut redis, queue.keys().stream(), "dead").await;

    let mut turns = Vec::new();
    while turns.last() != Some(&3) {
        assert!(turns.len() < 10, "{turns:?}");
        turns.push(patrol.turn().await.unwrap());
    }
    assert!(turns.len() > 1, "a turn looks at a part: {turns:?}");
    for turn in 0..turns.len() {
        assert_eq!(patrol.turn().await.unwrap(), 3, "turn {turn} of the next pass");
    }

    assert!(queue.pause().await.unwrap());
    for _ in 0..turns.len() {
        assert_eq!(patrol.turn().await.unwrap(), 3, "a pause makes nothing an orphan");
    }
    assert!(queue.resume().await.unwrap());

    let entries: StreamRangeReply = redis.xrange_all(queue.keys().stream()).await.unwrap();
    let is_orphan = |entry: &&StreamId| entry.get::<String>("id").is_some_and(|id| id.starts_with("orphan"));
    let orphans: Vec<&str> = entries.ids.iter().filter(is_orphan).map(|entry| entry.id.as_str()).collect();
    let _: usize = redis.xdel(queue.keys().stream(), &orphans).await.unwrap();
    eventually("a whole pass has met none", PATIENCE, async || (patrol.turn().await.unwrap() == 0).then_some(())).await;
}

on_each_redis!(orphans_are_counted_page_by_page_and_pending_entries_are_none);

#[tokio::test]
async fn an_orphan_among_the_jobs_with_a_priority_is_counted_too() {
    let queue = queue().await;
    let mut redis = connection(&queue).await;
    add_prioritized(&queue, "a", 1).await;
    read_one(&queue, "dead").await;
    let mut patrol = Patrol::new(queue.clone());
    assert_eq!(patrol.turn().await.unwrap(), 0, "it is pending");
    delete_consumer(&mut redis, queue.keys().prioritized_active(), "dead").await;
    assert_eq!(patrol.turn().await.unwrap(), 1);
}

#[tokio::test]
async fn what_is_due_and_what_nobody_fires_is_late_by_the_clock_of_redis() {
    let queue = queue().await;
    let lateness = async || {
        let counts = queue.counts().await.unwrap();
        (counts.promote_lateness, counts.schedule_lateness)
    };
    let later = NewJob { delay: Duration::from_hours(1), ..new_job(&id("later")) };
    queue.add(&[later], PAYLOAD_MAX).await.unwrap();
    let slot = Rescheduling { id: "late", believed_ms: None, slot_ms: Some(i64::MAX >> 12) };
    assert_eq!(queue.reschedule(&[slot]).await.unwrap().moved, 1);
    assert_eq!(lateness().await, (Duration::ZERO, Duration::ZERO), "neither is due");

    let mut redis = connection(&queue).await;
    let (time, _): (i64, i64) = redis::cmd("TIME").query_async(&mut redis).await.unwrap();
    for key in [queue.keys().delayed(), queue.keys().schedulers()] {
        let _: usize = redis.zadd(key, "due", (time - 7) * 1000).await.unwrap();
    }
    let (promotion, schedule) = lateness().await;
    for late in [promotion, schedule] {
        assert!((Duration::from_secs(7)..PATIENCE).contains(&late), "{late:?}");
    }
}

#[tokio::test]
async fn what_redis_says_of_its_memory_and_of_what_it_evicts_is_exported() {
    let redis = OwnRedis::start(&["--maxmemory", "4mb", "--maxmemory-policy", "noeviction"]);
    let queue = queue_at(&redis.url()).await;
    let exported = || metrics::record().unwrap().with_queues(QueueReadings::new([queue.clone()]));
    let text = exported().render().await;
    assert_eq!(number(&text, "feedmill_redis_memory_max_bytes"), 4 << 20);
    assert!(number(&text, "feedmill_redis_memory_used_bytes") > 100_000);
    for zero in ["may_evict", "evicted_keys_total", "persistence_failed"] {
        assert_eq!(number(&text, &format!("feedmill_redis_{zero}")), 0, "{zero}");
    }
    assert!(number(&text, "feedmill_redis_clients") > 0 && number(&text, "feedmill_redis_commands_total") > 0);

    let mut other = connection(&queue).await;
    let set = redis::cmd("CONFIG").arg(&["SET", "maxmemory-policy", "allkeys-random"]).exec_async(&mut other).await;
    set.unwrap();
    for key in 0..100 {
        let _: () = other.set(format!("other-{key}"), vec![b'x'; 100_000]).await.unwrap();
    }
    let text = exported().render().await;
    assert_eq!(number(&text, "feedmill_redis_may_evict"), 1);
    assert!(number(&text, "feedmill_redis_evicted_keys_total") > 0);
}

#[tokio::test]
#[expect(clippy::print_stderr, reason = "the numbers are for whoever asks with FEEDMILL_METRICS_JOBS=1000000")]
async fn metrics_take_less_than_five_milliseconds_however_many_jobs_there_are() {
    let jobs: usize = env::var("FEEDMILL_METRICS_JOBS").map_or(20_000, |jobs| jobs.parse().unwrap());
    let redis = OwnRedis::start(&[]);
    let queue = queue_at(&redis.url()).await;
    let mut other = connection(&queue).await;
    let mut added = 0;
    while added < jobs {
        added += add_many(&queue, &added.to_string(), 10_000.min(jobs - added)).await.len();
    }
    deliver(&queue, &mut other, "worker", jobs / 10).await;
    // Each reading is a new one: what is cached takes no time at all.
    let mut took = Vec::new();
    for _ in 0..25 {
        let exported = metrics::record().unwrap().with_queues(QueueReadings::new([queue.clone()]));
        let began = Instant::now();
        let text = exported.render().await;
        took.push(began.elapsed());
        let states: u64 = ["waiting", "active"]
            .iter()
            .map(|state| number(&text, &format!("bullmq_job_count{{queue=\"jobs\",state=\"{state}\"}}")))
            .sum();
        assert_eq!(states, jobs as u64);
    }
    took.sort_unstable();
    eprintln!("{jobs} jobs, {} pending: best {:?}, median {:?}, worst {:?}", jobs / 10, took[0], took[12], took[24]);
    // The best one: others run beside us.
    assert!(took[0] < Duration::from_millis(5), "{took:?}");
}

#[tokio::test]
async fn of_ten_thousand_jobs_each_is_counted_once_though_some_fail_and_workers_are_killed() {
    const ITEMS: u64 = 10_000;
    const BAD: u64 = ITEMS / 10;
    let (server, mut mill) = (FeedServer::start(), Mill::new());
    serve_feeds(&server, &mut mill, ITEMS as usize);
    mill.refuse_bad_titles().await;
    let queues = mill.queues().await;
    let serve = Served::serve(&mill).await;
    let (mut first, mut second) = (mill.worker().await, mill.worker().await);
    mill.fetch(&["a"]).await;

    let text = async || scrape(serve.address).await;
    let count =
        |text: &str, state: &str| number(text, &format!("bullmq_job_count{{queue=\"{IMPORT}\",state=\"{state}\"}}"));
    let total = |text: &str, name: &str| number(text, &format!("{name}{{queue=\"{IMPORT}\"}}"));
    let enqueued =
        |text: &str| number(text, &format!("feedmill_enqueued_total{{queue=\"{IMPORT}\",result=\"enqueued\"}}"));
    let adds_up = |text: &str| {
        let living = ["waiting", "prioritized", "active", "delayed", "failed"].map(|state| count(text, state));
        let done = total(text, "bullmq_job_completed_total");
        assert_eq!(done + living.iter().sum::<u64>(), enqueued(text), "{done} done, {living:?}\n{text}");
        done
    };
    for victim in [&mut first, &mut second] {
        victim.kill9_while_it_holds(&queues.import).await;
        adds_up(&text().await);
        *victim = mill.worker().await;
    }
    let text = eventually("all jobs are through", PATIENCE * 4, async || {
        let text = text().await;
        let done = adds_up(&text);
        (done + total(&text, "bullmq_job_failed_total") == ITEMS).then_some(text)
    })
    .await;
    assert_eq!(enqueued(&text), ITEMS);
    assert_eq!(total(&text, "bullmq_job_completed_total"), ITEMS - BAD);
    assert_eq!(total(&text, "bullmq_job_failed_total"), BAD);
    assert_eq!(total(&text, "bullmq_jobs_processed_total"), ITEMS);
    assert_eq!((count(&text, "failed"), total(&text, "feedmill_dead_letters")), (BAD, BAD));
    assert!(total(&text, "feedmill_stalls_total") > 0, "workers were killed while they held jobs");
    assert_eq!(total(&text, "feedmill_stream_orphans"), 0);
    let documents = mill.documents().await.count_documents(doc! {}).await.unwrap();
    assert_eq!(documents, ITEMS - BAD, "what is counted as completed is in MongoDB");
}
