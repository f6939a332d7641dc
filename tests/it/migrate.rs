//! `feedmill migrate bullmq`: queues that the real BullMQ filled, in both versions that are supported.

use std::collections::BTreeMap;

use redis::AsyncCommands as _;
use serde_json::{Value, json};

use crate::support::{
    bullmq::{BullMq, Version, on_each_bullmq},
    process::{Mill, Ran},
    servers::SharedServers,
};

on_each_bullmq!(
    a_dry_run_says_what_would_move_and_changes_nothing,
    what_cannot_be_moved_is_named_and_stays,
    nothing_moves_while_jobs_are_active_or_workers_connected,
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
    bull.queue(IMPORT, "upsertJobScheduler", json!(["nightly", {"pattern": "0 3 * * *"}, {"data": item("tick")}]));
    let report = house.report(IMPORT, &["--dry-run"], 1).await;
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

    let ran = house.migrate(IMPORT, &["--dry-run"]).await;
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
    house.bull.queue(IMPORT, "pause", json!([]));
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
