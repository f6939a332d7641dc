//! `feedmill migrate bullmq`: queues that the real BullMQ filled, in both versions that are supported.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use feedmill::{
    job::{Growth, Job, Keep, RetryPolicy},
    migrate::{Mapping, MigrateError, Migration},
    queue::{
        Events, Queue, Redis,
        find::{Found, State},
    },
};
use redis::AsyncCommands as _;
use serde_json::{Value, json};

use crate::support::{
    audit::assert_sound,
    bullmq::{BullMq, Version, on_each_bullmq},
    eventually::eventually,
    jobs::{PAYLOAD_MAX, id, new_job, read},
    process::{Mill, PATIENCE, Ran},
    servers::{OwnRedis, SharedServers},
};

on_each_bullmq!(
    a_dry_run_says_what_would_move_and_changes_nothing,
    what_cannot_be_moved_is_named_and_stays,
    nothing_moves_while_jobs_are_active_or_workers_connected,
    items_move_with_their_attempts_delays_and_reasons,
    jobs_of_any_queue_move_in_order_with_ids_names_bytes_and_options,
    a_paused_queue_stays_paused,
    nothing_but_the_queue_itself_is_left_in_bullmq,
    a_run_that_died_before_it_removed_a_page_is_made_up_for,
);

const IMPORT: &str = "job_import_queue";

/// A feedmill, and a BullMQ on the same Redis.
struct House {
    mill: Mill,
    bull: BullMq,
}

impl House {
    fn new(version: Version) -> Self {
        let bull = BullMq::start(version, &SharedServers::of_this_run().redis_url());
        Self { mill: Mill::new(), bull }
    }

    /// Runs the migration of a queue.
    async fn migrate(&self, queue: &str, flags: &[&str]) -> Ran {
        let args = ["migrate", "bullmq", "--queue", queue, "--prefix", self.bull.prefix()];
        self.mill.run(&[&args[..], flags].concat()).await
    }

    /// Runs it with `--json`, to this exit status.
    async fn report(&self, queue: &str, flags: &[&str], status: i32) -> Value {
        let ran = self.migrate(queue, &[flags, &["--json"]].concat()).await;
        assert_eq!(ran.status.code(), Some(status), "{}{}", ran.stdout, ran.stderr);
        serde_json::from_str(&ran.stdout).unwrap_or_else(|_| panic!("{}", ran.stderr))
    }

    /// One of our queues.
    async fn our_queue(&self, name: &str) -> Queue {
        let redis = Redis::connect(&SharedServers::of_this_run().redis_url(), &self.mill.config().redis.prefix).await;
        Queue::open(&redis.unwrap(), name, Events::Failures).await.unwrap()
    }

    /// Every key of both, with what it holds and how long.
    async fn keys(&self) -> BTreeMap<String, Held> {
        let client = redis::Client::open(SharedServers::of_this_run().redis_url()).unwrap();
        let mut redis = client.get_multiplexed_async_connection().await.unwrap();
        let mut held = BTreeMap::new();
        for prefix in [self.bull.prefix().to_owned(), self.mill.config().redis.prefix] {
            let keys: Vec<String> = redis.keys(format!("{prefix}:*")).await.unwrap();
            for key in keys {
                let kind: String = redis.key_type(&key).await.unwrap();
                let content = if kind == "hash" {
                    // Redis moves the fields of a hash about as it likes, even when it is only read.
                    let fields: BTreeMap<Vec<u8>, Vec<u8>> = redis.hgetall(&key).await.unwrap();
                    fields.into_iter().flat_map(|(field, value)| [field, value]).collect()
                } else {
                    vec![redis::cmd("DUMP").arg(&key).query_async(&mut redis).await.unwrap()]
                };
                let expires: i64 = redis.expire_time(&key).await.unwrap();
                held.insert(key, Held { content, expires });
            }
        }
        held
    }
}

/// What a key holds.
#[derive(PartialEq, Eq)]
struct Held {
    content: Vec<Vec<u8>>,
    /// In seconds since 1970; -1: never.
    expires: i64,
}

/// Checks that no key was added, removed or changed.
#[track_caller]
fn assert_same(before: &BTreeMap<String, Held>, after: &BTreeMap<String, Held>) {
    let differing = |one: &BTreeMap<String, Held>, other: &BTreeMap<String, Held>| -> Vec<String> {
        one.iter().filter(|(key, held)| other.get(*key) != Some(held)).map(|(key, _)| key.clone()).collect()
    };
    assert_eq!((differing(before, after), differing(after, before)), (vec![], vec![]));
}

fn item(guid: &str) -> Value {
    json!({"source": "s", "guid": guid, "title": format!("title of {guid}"), "salary": 7})
}

/// Fills the import queue with a job of each kind, and its dead-letter queue.
fn fill(bull: &mut BullMq) {
    let retried = json!({"attempts": 3, "backoff": {"type": "exponential", "delay": 600_000}});
    bull.add_bulk(IMPORT, ["gives-up", "fails-for-good"].map(|guid| (item(guid), json!({"jobId": guid}))));
    bull.add(IMPORT, &item("retried"), &{
        let mut options = retried;
        options["jobId"] = json!("retried");
        options
    });
    bull.worker(IMPORT, &json!({}));
    let outcomes = json!({"fails-for-good": [{"do": "unrecoverable", "reason": "not an item"}]});
    bull.work(IMPORT, &outcomes, &json!({"do": "throw", "reason": "boom"}));
    bull.close_worker(IMPORT);
    bull.add_bulk(
        IMPORT,
        [
            (item("first"), json!({})),
            (item("zweite-äöü-二"), json!({"jobId": "zweite-äöü-二"})),
            (item("third"), json!({})),
            (item("low"), json!({"priority": 20})),
            (item("high"), json!({"priority": 1})),
            (item("tomorrow"), json!({"delay": 86_400_000})),
        ],
    );
    bull.add_bulk(
        "job_import_queue_dlq",
        [
            (item("gives-up"), json!({})),
            (json!({"data": item("long-dead"), "failedReason": "old", "attemptsMade": 5}), json!({})),
        ],
    );
}

fn tally(moved: u64, duplicates: u64, stay: u64) -> Value {
    json!({"moved": moved, "duplicates": duplicates, "stay": stay})
}

async fn a_dry_run_says_what_would_move_and_changes_nothing(version: Version) {
    let mut house = House::new(version);
    fill(&mut house.bull);
    let before = house.keys().await;
    let report = house.report(IMPORT, &["--dry-run"], 0).await;
    let moved = &report["moved"];
    assert_eq!(moved["waiting"], tally(3, 0, 0), "{report:#}");
    assert_eq!(moved["prioritized"], tally(2, 0, 0));
    assert_eq!(moved["delayed"], tally(2, 0, 0), "one of them waits for its second attempt");
    assert_eq!(moved["failed"], tally(2, 0, 0));
    assert_eq!(moved["dlq"], tally(1, 1, 0), "one is a copy of a failed one");
    assert_same(&before, &house.keys().await); // not even the queue is opened

    let table = house.migrate(IMPORT, &["--dry-run"]).await.data();
    let expected = "\
state        would move  duplicates  would stay
waiting               3           0           0
prioritized           2           0           0
delayed               2           0           0
failed                2           0           0
dlq                   1           1           0
";
    assert_eq!(table, expected);
    assert_same(&before, &house.keys().await);
}

async fn what_cannot_be_moved_is_named_and_stays(version: Version) {
    let mut house = House::new(version);
    let bull = &mut house.bull;
    bull.add(IMPORT, &item("fine"), &json!({}));
    bull.add(IMPORT, &json!({"guid": "without-a-source"}), &json!({"jobId": "without-a-source"}));
    bull.add(IMPORT, &json!({"source": "s", "guid": "5", "title": 5}), &json!({"jobId": "title-5"}));
    bull.call(&json!({"do": "flow", "tree": {
        "name": "parent", "queueName": IMPORT, "data": item("parent"),
        "children": [{"name": "child", "queueName": IMPORT, "data": item("child"), "opts": {"jobId": "child"}}],
    }}));
    bull.queue(IMPORT, "upsertJobScheduler", &json!(["nightly", {"pattern": "0 3 * * *"}, {"data": item("tick")}]));
    for flags in [&["--dry-run"][..], &[]] {
        check_what_stays(&house, flags).await;
    }
    let counts = house.bull.counts(IMPORT);
    assert_eq!(
        (&counts["waiting"], &counts["delayed"], &counts["waiting-children"]),
        (&json!(3), &json!(1), &json!(1))
    );
    house.bull.worker(IMPORT, &json!({}));
    house.bull.work(IMPORT, &json!({}), &json!({"do": "done"}));
    let counts = house.bull.counts(IMPORT);
    assert_eq!(counts["completed"], 4, "the flow is whole: {counts}");
}

async fn check_what_stays(house: &House, flags: &[&str]) {
    let report = house.report(IMPORT, flags, 1).await;
    assert_eq!(report["moved"]["waiting"], tally(1, 0, 3), "{report:#}");
    assert_eq!(report["moved"]["delayed"], tally(0, 0, 1), "the next run of the scheduler");
    assert_eq!(report["moved"]["nextRuns"], 1);
    assert_eq!(report["leftInBullmq"], json!({"completed": 0, "schedulers": 1, "waitingChildren": 1}));
    let mut reasons = BTreeMap::new();
    for stays in report["moved"]["obstacles"].as_array().unwrap() {
        assert_eq!(stays["queue"], format!("{}:{IMPORT}", house.bull.prefix()));
        reasons.insert(stays["id"].as_str().unwrap(), stays["reason"].as_str().unwrap());
    }
    assert_eq!(reasons.keys().copied().collect::<Vec<_>>(), ["child", "title-5", "without-a-source"]);
    assert!(reasons["without-a-source"].contains("needs a \"source\""), "{reasons:?}");
    assert!(reasons["title-5"].contains("expected a string"), "{reasons:?}");
    assert!(reasons["child"].contains("flow"), "{reasons:?}");

    let ran = house.migrate(IMPORT, flags).await;
    assert_eq!(ran.status.code(), Some(1));
    assert_eq!(ran.stderr.lines().filter(|line| line.contains(" stays: ")).count(), 3, "{}", ran.stderr);
    assert!(ran.stderr.contains("1 job schedulers, 1 parents of flows"), "{}", ran.stderr);
}

async fn nothing_moves_while_jobs_are_active_or_workers_connected(version: Version) {
    let mut house = House::new(version);
    house.bull.add_bulk(IMPORT, [(item("a"), json!({})), (item("b"), json!({}))]);
    house.bull.worker(IMPORT, &json!({}));
    let queue = format!("{}:{IMPORT}", house.bull.prefix());
    let workers = format!("1 workers of {queue} are connected; stop them, or pause the queue, and run this again");
    house.migrate(IMPORT, &["--dry-run"]).await.failed(1, &workers);

    let taken = house.bull.take(IMPORT).unwrap();
    let active =
        format!("1 jobs of {queue} are active; stop its workers, wait until none is active, and run this again");
    house.migrate(IMPORT, &["--dry-run"]).await.failed(1, &active);
    house.bull.settle(IMPORT, taken["id"].as_str().unwrap(), &json!({"do": "done"}));

    // Workers of a paused queue take nothing.
    house.bull.queue(IMPORT, "pause", &json!([]));
    let report = house.report(IMPORT, &["--dry-run"], 0).await;
    assert_eq!((&report["moved"]["waiting"], &report["isPaused"]), (&tally(1, 0, 0), &json!(true)));
    assert_eq!(report["leftInBullmq"]["completed"], 1);
}

#[tokio::test]
async fn a_queue_that_bullmq_does_not_have_is_named() {
    let house = House::new(Version::V6);
    let key = format!("{}:orders", house.bull.prefix());
    let told =
        format!("there is no BullMQ queue {key} on this Redis ({key}:meta is missing); check --queue and --prefix");
    house.migrate("orders", &["--dry-run"]).await.failed(1, &told);
    let ran = house.migrate("an order", &["--dry-run"]).await;
    ran.failed(2, "\"an order\" cannot be the name of a queue; accepted: letters, digits, '_', '.' and '-'");
}

// ── moving ─────────────────────────────────────────────────────────────────────────────────────────────────────────

async fn find(queue: &Queue, job: &str) -> Found {
    queue.find(&id(job)).await.unwrap().unwrap_or_else(|| panic!("{job} is not here"))
}

/// Ids of everything that waits, in the order in which workers get it.
async fn order(queue: &Queue) -> Vec<String> {
    let (mut reader, mut ids) = (queue.reader("looks"), Vec::new());
    loop {
        let jobs = read(&mut reader, 256).await;
        if jobs.is_empty() {
            return ids;
        }
        ids.extend(jobs.into_iter().map(|delivery| delivery.job.id.to_string()));
    }
}

/// Checks that something lies so far in the future, give or take what a test takes.
#[track_caller]
fn assert_in(due_at: SystemTime, wanted: Duration) {
    let left = due_at.duration_since(SystemTime::now()).unwrap_or_default();
    assert!(left <= wanted && wanted.saturating_sub(left) < PATIENCE, "{left:?} instead of {wanted:?}");
}

fn due_at(found: &Found) -> SystemTime {
    match found.state {
        State::Delayed { due_at } => due_at,
        ref other => panic!("{other:?}"),
    }
}

fn reason(found: &Found) -> (&str, u8) {
    match &found.state {
        State::Failed { reason } => (reason, found.job.head.attempts),
        other => panic!("{other:?}"),
    }
}

async fn items_move_with_their_attempts_delays_and_reasons(version: Version) {
    let mut house = House::new(version);
    fill(&mut house.bull);
    let table = house.migrate(IMPORT, &[]).await.data();
    let expected = "\
state        moved  duplicates  stay
waiting          3           0     0
prioritized      2           0     0
delayed          2           0     0
failed           2           0     0
dlq              1           1     0
";
    assert_eq!(table, expected);
    for queue in [IMPORT, "job_import_queue_dlq"] {
        let counts = house.bull.counts(queue);
        assert!(counts.as_object().unwrap().values().all(|count| count == 0), "{queue}: {counts}");
    }

    let queue = house.mill.queues().await.import;
    let counts = queue.counts().await.unwrap();
    assert_eq!((counts.waiting, counts.prioritized, counts.delayed, counts.failed), (3, 2, 2, 3), "{counts:?}");
    assert_sound(&queue).await;
    let retried = find(&queue, "s#retried").await;
    assert_in(due_at(&retried), Duration::from_mins(10));
    assert_eq!(retried.job.head.attempts, 1);
    let options = retried.job.options.unwrap();
    let backoff = options.backoff.unwrap();
    assert_eq!(
        (options.attempts, backoff.growth, backoff.delay),
        (Some(3), Growth::Exponential, Duration::from_mins(10))
    );
    assert_in(due_at(&find(&queue, "s#tomorrow").await), Duration::from_hours(24));
    assert_eq!(reason(&find(&queue, "s#gives-up").await), ("boom", 1));
    assert_eq!(reason(&find(&queue, "s#fails-for-good").await), ("not an item", 1));
    assert_eq!(reason(&find(&queue, "s#long-dead").await), ("old", 5));
    let letters = queue.dead_letters(None, 10).await.unwrap();
    let ids: Vec<String> = letters.iter().map(|letter| letter.id.as_ref().unwrap().to_string()).collect();
    assert_eq!(ids, ["s#gives-up", "s#fails-for-good", "s#long-dead"], "in the order in which they failed");
    assert!(letters[0].at <= letters[1].at && letters[0].at.elapsed().unwrap() < PATIENCE);

    let before = house.keys().await;
    let again = house.report(IMPORT, &[], 0).await;
    assert!(again["moved"]["waiting"] == tally(0, 0, 0) && again["moved"]["dlq"] == tally(0, 0, 0), "{again:#}");
    assert_same(&before, &house.keys().await);

    // What our workers make of it.
    assert_eq!(order(&queue).await, ["s#high", "s#low", "s#first", "s#zweite-äöü-二", "s#third"]);
}

async fn jobs_of_any_queue_move_in_order_with_ids_names_bytes_and_options(version: Version) {
    const JOBS: usize = 1_200;
    let mut house = House::new(version);
    // Every hundredth is part of a flow and stays, so pages do not begin at the end of the list.
    let mut wanted = Vec::new();
    for hundred in 0..JOBS / 100 {
        house.bull.call(
            &json!({"do": "flow", "tree": {"name": "parent", "queueName": "orders", "data": {}, "children": [
                {"name": "child", "queueName": "orders", "data": {}},
            ]}}),
        );
        let jobs = (1..100).map(|n| {
            let name = format!("二-{hundred}:{n}:x");
            (json!({"n": n, "text": "é\u{1f4e6}", "half": 0.5}), json!({"jobId": name}))
        });
        wanted.extend(house.bull.add_bulk("orders", jobs));
    }
    let options = json!({
        "jobId": "kept", "attempts": 7, "backoff": {"type": "fixed", "delay": 250, "jitter": 0.5}, "delay": 3_600_000,
        "priority": 9, "removeOnComplete": {"age": 60, "count": 5}, "removeOnFail": false,
    });
    house.bull.add("orders", &json!(["any", null]), &options);

    let report = house.report("orders", &["--to", "orders_2"], 1).await;
    let stay = (JOBS / 100) as u64;
    assert_eq!(report["moved"]["waiting"], tally(wanted.len() as u64, 0, stay), "{report:#}");
    assert_eq!(report["moved"]["obstacles"].as_array().unwrap().len(), stay as usize);
    assert_eq!(house.bull.counts("orders")["waiting"], stay);

    let queue = house.our_queue("orders_2").await;
    assert_sound(&queue).await;
    let kept = find(&queue, "kept").await;
    assert_in(due_at(&kept), Duration::from_hours(1));
    assert_eq!((kept.job.payload(), kept.job.head.priority), (&br#"["any",null]"#[..], 9));
    let options = kept.job.options.unwrap();
    let max = Duration::from_millis(u32::MAX.into());
    let backoff = RetryPolicy { growth: Growth::Fixed, delay: Duration::from_millis(250), max, jitter: 0.5 };
    assert_eq!((options.attempts, options.backoff), (Some(7), Some(backoff)));
    let newest = Keep::Newest { count: Some(5), age: Some(Duration::from_mins(1)) };
    assert_eq!((options.on_complete, options.on_fail), (Some(newest), Some(Keep::All)));
    let first = find(&queue, "二-0:1:x").await.job;
    assert_eq!(first.payload(), "{\"half\":0.5,\"n\":1,\"text\":\"é\u{1f4e6}\"}".as_bytes());
    assert_eq!(first.name.as_deref(), Some("work"));
    assert_eq!(first.enqueued_at, added_at(&mut house.bull, &first), "when it was added to BullMQ");
    assert_eq!(order(&queue).await, wanted);
}

/// When BullMQ was given a job: it says so in the stream of events, a moment later.
fn added_at(bull: &mut BullMq, job: &Job) -> SystemTime {
    let events = bull.call(&json!({"do": "events", "queue": "orders"}));
    let mut added = events.as_array().unwrap().iter().filter(|event| event["event"] == "added");
    let event = added.find(|event| event["jobId"] == job.id.to_string()).unwrap();
    let ms: u64 = event["entry"].as_str().unwrap().split_once('-').unwrap().0.parse().unwrap();
    let at = SystemTime::UNIX_EPOCH + Duration::from_millis(ms);
    assert!(at.duration_since(job.enqueued_at).unwrap() < PATIENCE);
    job.enqueued_at
}

async fn a_paused_queue_stays_paused(version: Version) {
    let mut house = House::new(version);
    house.bull.queue(IMPORT, "pause", &json!([]));
    house.bull.add_bulk(IMPORT, ["a", "b", "c"].map(|guid| (item(guid), json!({}))));
    let ran = house.migrate(IMPORT, &[]).await;
    let told = format!("{}:{IMPORT} is paused, and so is {IMPORT} now\n", house.bull.prefix());
    assert_eq!((ran.status.code(), ran.stderr), (Some(0), told));
    let queue = house.mill.queues().await.import;
    assert!(queue.counts().await.unwrap().is_paused);
    assert_eq!(order(&queue).await, [""; 0]);

    queue.resume().await.unwrap();
    house.report(IMPORT, &[], 0).await;
    assert!(!queue.counts().await.unwrap().is_paused, "nothing moved, so nothing is paused again");
    assert_eq!(order(&queue).await, ["s#a", "s#b", "s#c"]);
}

async fn nothing_but_the_queue_itself_is_left_in_bullmq(version: Version) {
    let mut house = House::new(version);
    let deduplicated = json!({"deduplication": {"id": "one"}, "delay": 60_000});
    let logged = house.bull.add(IMPORT, &item("logged"), &json!({}));
    house.bull.job(IMPORT, &logged, "log", &json!(["a line"]));
    house.bull.add(IMPORT, &item("deduplicated"), &deduplicated);
    fill(&mut house.bull);
    house.report(IMPORT, &[], 0).await;
    let keys = house.keys().await;
    let prefix = format!("{}:", house.bull.prefix());
    let left: Vec<&str> =
        keys.keys().filter_map(|key| key.strip_prefix(&prefix)?.split_once(':')).map(|key| key.1).collect();
    for key in &left {
        assert!(["meta", "id", "events", "pc", "marker", "stalled-check"].contains(key), "{key}");
    }
    assert!(left.contains(&"meta"));
    // A deduplication key that outlived its job would turn this one away.
    let again = house.bull.add(IMPORT, &item("again"), &deduplicated);
    assert_eq!(house.bull.counts(IMPORT)["delayed"], 1, "{again}");
}

/// Everything that BullMQ has, to be put back as if its removal had never been carried out.
async fn snapshot(house: &House) -> Vec<(String, Vec<u8>)> {
    let client = redis::Client::open(SharedServers::of_this_run().redis_url()).unwrap();
    let mut redis = client.get_multiplexed_async_connection().await.unwrap();
    let keys: Vec<String> = redis.keys(format!("{}:*", house.bull.prefix())).await.unwrap();
    let mut held = Vec::new();
    for key in keys {
        let dump = redis::cmd("DUMP").arg(&key).query_async(&mut redis).await.unwrap();
        held.push((key, dump));
    }
    held
}

async fn restore(held: &[(String, Vec<u8>)]) {
    let client = redis::Client::open(SharedServers::of_this_run().redis_url()).unwrap();
    let mut redis = client.get_multiplexed_async_connection().await.unwrap();
    for (key, dump) in held {
        let mut restore = redis::cmd("RESTORE");
        restore.arg(key).arg(0).arg(dump).arg("REPLACE");
        restore.exec_async(&mut redis).await.unwrap();
    }
}

async fn a_run_that_died_before_it_removed_a_page_is_made_up_for(version: Version) {
    let mut house = House::new(version);
    fill(&mut house.bull);
    house.bull.add_bulk("orders", (0..5).map(|n| (json!({"n": n}), json!({"jobId": format!("o-{n}")}))));
    let copy = |of: &str| (json!({"jobId": of, "data": {"n": 1}, "reason": "failed once"}), json!({}));
    house.bull.add_bulk("orders_dlq", [copy("o-1"), copy("gone")]);
    let before = snapshot(&house).await;
    house.report(IMPORT, &[], 0).await;
    house.report("orders", &[], 0).await;
    let (import, orders) = (house.mill.queues().await.import, house.our_queue("orders").await);
    let counts = (import.counts().await.unwrap(), orders.counts().await.unwrap());
    assert_eq!((counts.1.waiting, counts.1.failed), (5, 1), "a copy gives way to its living job");

    restore(&before).await;
    let again = house.report(IMPORT, &[], 0).await;
    let moved = &again["moved"];
    assert_eq!(
        (&moved["waiting"], &moved["delayed"], &moved["dlq"]),
        (&tally(0, 3, 0), &tally(0, 2, 0), &tally(0, 2, 0))
    );
    assert_eq!((&moved["prioritized"], &moved["failed"]), (&tally(0, 2, 0), &tally(0, 2, 0)));
    let again = house.report("orders", &[], 0).await;
    assert_eq!((&again["moved"]["waiting"], &again["moved"]["dlq"]), (&tally(0, 5, 0), &tally(0, 2, 0)), "{again:#}");
    let mut now = (import.counts().await.unwrap(), orders.counts().await.unwrap());
    (now.0.totals, now.1.totals) = (counts.0.totals.clone(), counts.1.totals.clone());
    (now.0.oldest_waiting, now.1.oldest_waiting) = (counts.0.oldest_waiting, counts.1.oldest_waiting);
    assert_eq!(now, counts, "nothing is here twice");
    assert_eq!(house.bull.counts(IMPORT)["waiting"], 0);
    assert_sound(&import).await;
    assert_sound(&orders).await;
}

#[tokio::test]
async fn a_run_that_is_killed_anywhere_loses_and_doubles_nothing() {
    const JOBS: usize = 20_000;
    let mut house = House::new(Version::V6);
    let wanted =
        house.bull.add_bulk("orders", (0..JOBS).map(|n| (json!({"n": n}), json!({"jobId": format!("o-{n}")}))));
    let queue = house.our_queue("orders").await;
    let mut reached = 0;
    while house.bull.counts("orders")["waiting"] != 0 {
        let args = ["migrate", "bullmq", "--queue", "orders", "--prefix", house.bull.prefix()];
        let mut run = house.mill.start(&args);
        let goal = reached + JOBS as u64 / 5;
        if goal > JOBS as u64 {
            // Everything is here, and some of it may be there still: killed at once again and again, no run would end that.
            assert!(run.ran().await.status.success());
            break;
        }
        eventually("some jobs are here", PATIENCE, async || {
            reached = queue.counts().await.unwrap().waiting;
            (reached >= goal).then_some(())
        })
        .await;
        run.kill9();
        let (here, there) = (queue.counts().await.unwrap().waiting, house.bull.counts("orders")["waiting"].as_u64());
        assert!(here + there.unwrap() >= JOBS as u64, "{here} and {there:?}");
    }
    assert_eq!(house.report("orders", &[], 0).await["moved"]["waiting"], tally(0, 0, 0));
    assert_sound(&queue).await;
    assert_eq!(order(&queue).await, wanted, "each once, in order");
}

#[tokio::test]
async fn a_job_whose_id_another_one_has_stays() {
    let mut house = House::new(Version::V6);
    let queue = house.our_queue("orders").await;
    queue.add(&[new_job(&id("mine"))], PAYLOAD_MAX).await.unwrap();
    house.bull.add("orders", &json!({"other": true}), &json!({"jobId": "mine"}));
    for flags in [&["--dry-run"][..], &[]] {
        let report = house.report("orders", flags, 1).await;
        assert_eq!(report["moved"]["waiting"], tally(0, 0, 1));
        assert_eq!(report["moved"]["obstacles"][0]["reason"], "another job of this id is in the queue already");
    }
    assert_eq!(house.bull.counts("orders")["waiting"], 1);
    assert_eq!(find(&queue, "mine").await.job.payload(), b"{}");
}

#[tokio::test]
async fn a_newer_item_that_is_here_already_is_not_replaced_and_an_older_one_is() {
    let mut house = House::new(Version::V6);
    house.bull.add_bulk(IMPORT, [(item("old"), json!({"timestamp": 1_000})), (item("new"), json!({}))]);
    let queue = house.mill.queues().await.import;
    for guid in ["old", "new"] {
        let mut job = new_job(&id(format!("s#{guid}")));
        job.version = Some(feedmill::job::Version(1_000_001));
        queue.add(&[job], PAYLOAD_MAX).await.unwrap();
    }
    let report = house.report(IMPORT, &[], 0).await;
    assert_eq!(report["moved"]["waiting"], tally(1, 1, 0));
    assert_eq!(find(&queue, "s#old").await.job.payload(), b"{}");
    assert_ne!(find(&queue, "s#new").await.job.payload(), b"{}");
    assert_eq!(queue.counts().await.unwrap().waiting, 2);
    assert_eq!(house.bull.counts(IMPORT)["waiting"], 0);
}

#[tokio::test]
async fn a_worker_that_begins_while_jobs_are_moved_stops_the_migration() {
    let mut house = House::new(Version::V6);
    house.bull.add_bulk("orders", (0..3).map(|n| (json!({"n": n}), json!({}))));
    let redis = Redis::connect(&SharedServers::of_this_run().redis_url(), &house.mill.config().redis.prefix).await;
    let (redis, queue) = (redis.unwrap(), house.our_queue("orders").await);
    let migration =
        Migration::find(&redis, house.bull.prefix(), "orders", queue, Mapping::AsTheyAre, PAYLOAD_MAX).await.unwrap();
    let found = migration.begin().await.unwrap();
    house.bull.worker("orders", &json!({}));
    let taken = house.bull.take("orders").unwrap();
    let stopped = migration.run(&found, |_| ()).await.unwrap_err();
    assert!(matches!(stopped, MigrateError::Active { jobs: 1, .. }), "{stopped}");
    assert_eq!(house.bull.counts("orders")["waiting"], 2, "nothing was removed");

    house.bull.settle("orders", taken["id"].as_str().unwrap(), &json!({"do": "done"}));
    house.bull.close_worker("orders");
    let report = house.report("orders", &[], 0).await;
    assert_eq!(report["moved"]["waiting"], tally(0, 2, 0), "they were here already");
}

#[tokio::test]
async fn bullmq_may_be_on_another_redis() {
    let server = OwnRedis::start_named("redis-server-6.2", &[]);
    let mut house = House { mill: Mill::new(), bull: BullMq::start(Version::V5, &server.url()) };
    fill(&mut house.bull);
    let report = house.report(IMPORT, &["--from", &server.url()], 0).await;
    assert_eq!(report["moved"]["waiting"], tally(3, 0, 0));
    let queue = house.mill.queues().await.import;
    assert_eq!(queue.counts().await.unwrap().failed, 3);
    assert_eq!(house.bull.counts(IMPORT)["waiting"], 0);
}
