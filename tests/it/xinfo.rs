//! `feedmill xinfo`: what is broken on purpose is named with its fix, and `--fix` mends what it says, and nothing else.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use feedmill::{
    job::{EntryId, Keep, Place},
    queue::{
        GROUP, Queue, Settled,
        claim::ClaimLimits,
        consumers::Consumer,
        enqueue::NewJob,
        inspect::{FindingKind, GuardRestored, InspectOptions, Inspection, OrphanRestored},
        read::Delivery,
        settle::{Burial, Done},
    },
};
use redis::{AsyncCommands, aio::MultiplexedConnection};
use serde_json::Value;

use crate::support::{
    audit::{assert_sound, audit},
    eventually::eventually,
    jobs::{
        PAYLOAD_MAX, add, add_many, add_prioritized, add_to_group, as_another_process, connection, id, new_job, queue,
        queue_at, queue_with, read_one, window,
    },
    process::{Mill, Ran},
    servers::{OwnRedis, on_each_redis},
    terminal::Terminal,
};

/// Of a sweep that claims whatever is pending.
const AT_ONCE: ClaimLimits =
    ClaimLimits { lock_duration: Duration::ZERO, stalled_interval: Duration::from_millis(1), max_stalled_count: 9 };

/// Everything that stands under the prefix of a queue, byte for byte.
async fn dump(queue: &Queue) -> BTreeMap<String, Vec<u8>> {
    let mut redis = connection(queue).await;
    let mut keys: Vec<Vec<u8>> = Vec::new();
    let mut cursor = 0_u64;
    loop {
        let mut scan = redis::cmd("SCAN");
        scan.arg(cursor).arg("MATCH").arg(format!("{}*", queue.redis().prefix())).arg("COUNT").arg(1000);
        let (next, page): (u64, Vec<Vec<u8>>) = scan.query_async(&mut redis).await.unwrap();
        keys.extend(page);
        cursor = next;
        if cursor == 0 {
            break;
        }
    }
    let mut all = BTreeMap::new();
    for key in keys {
        let value: Option<Vec<u8>> = redis::cmd("DUMP").arg(&key).query_async(&mut redis).await.unwrap();
        all.extend(value.map(|value| (String::from_utf8_lossy(&key).into_owned(), value)));
    }
    all
}

/// Keys that came, went or changed between two dumps, without what all keys of the queue begin with.
fn changed(queue: &Queue, before: &BTreeMap<String, Vec<u8>>, after: &BTreeMap<String, Vec<u8>>) -> BTreeSet<String> {
    let keys = before.keys().chain(after.keys()).filter(|key| before.get(*key) != after.get(*key));
    keys.map(|key| key.strip_prefix(queue.keys().queue_prefix()).unwrap_or(key).to_owned()).collect()
}

/// A feedmill with a live worker and one job that waits, to be broken.
struct Stage {
    mill: Mill,
    queue: Queue,
    redis: MultiplexedConnection,
    worker: Consumer,
}

impl Stage {
    async fn new() -> Self {
        let stage = Self::without_worker(Mill::new()).await;
        stage.queue.heartbeat(&stage.worker, 0).await.unwrap();
        stage
    }

    async fn without_worker(mill: Mill) -> Self {
        let queue = mill.queues().await.import;
        add(&queue, "waits").await;
        let redis = connection(&queue).await;
        Self { mill, queue, redis, worker: Consumer::of_this_process() }
    }

    async fn run<T: redis::FromRedisValue>(&mut self, command: &[&str]) -> T {
        let mut built = redis::cmd(command[0]);
        built.arg(&command[1..]);
        built.query_async(&mut self.redis).await.unwrap()
    }

    /// Looks at everything: the shared Redis may have more keys of other tests than is looked at otherwise.
    async fn xinfo(&self, flags: &[&str]) -> (Ran, Value) {
        let args = ["xinfo", self.queue.name(), "--json", "--deep"];
        let args: Vec<&str> = args.into_iter().chain(flags.iter().copied()).collect();
        let ran = self.mill.run(&args).await;
        let json = serde_json::from_str(&ran.stdout).unwrap_or_else(|error| panic!("{error}: {ran:?}"));
        (ran, json)
    }

    /// Checks that `xinfo` names this one anomaly and its fix, writes nothing, and that `--fix` changes these keys alone;
    /// with a repair, nothing is wrong any more.
    async fn is_named(&self, kind: &str, verdict: &str, fix: &str, repaired: &[&str]) {
        let before = dump(&self.queue).await;
        let (ran, json) = self.xinfo(&[]).await;
        assert_eq!(ran.status.code(), Some(3), "{kind}: {}", ran.stdout);
        let findings = json["queues"][0]["findings"].as_array().unwrap();
        let errors: Vec<&Value> = findings.iter().filter(|finding| finding["status"] == "error").collect();
        let [found] = errors.as_slice() else { panic!("{kind}: {errors:#?}") };
        assert_eq!(found["kind"], kind);
        assert!(found["verdict"].as_str().unwrap().contains(verdict), "{found:#}");
        assert!(found["fix"].as_str().unwrap().contains(fix), "{found:#}");
        assert_eq!(found["repairable"], !repaired.is_empty(), "{found:#}");
        assert_eq!(changed(&self.queue, &before, &dump(&self.queue).await), BTreeSet::new(), "{kind}: it only looks");
        let printed = self.mill.run(&["xinfo", self.queue.name(), "--deep"]).await.stdout;
        let (printed, fix) = (squeezed(&printed), squeezed(fix));
        assert!(printed.contains(&fix), "{fix}: {printed}");

        let (ran, json) = self.xinfo(&["--fix"]).await;
        let after = dump(&self.queue).await;
        let expected = repaired.iter().map(|key| (*key).to_owned()).collect::<BTreeSet<_>>();
        assert_eq!(changed(&self.queue, &before, &after), expected, "{kind}: {}", ran.stdout);
        let repairs = json["queues"][0]["repairs"].as_array().unwrap();
        if repaired.is_empty() {
            assert_eq!((ran.status.code(), repairs.len()), (Some(3), 0), "{kind} is for somebody to mend");
        } else {
            assert_eq!(ran.status.code(), Some(0), "{kind}: {json:#}");
            assert_eq!((repairs.len(), &repairs[0]["kind"]), (1, &Value::from(kind)), "{json:#}");
            assert_sound(&self.queue).await;
        }
    }
}

impl Stage {
    /// As [`Self::is_named`] for what is no anomaly: checks that `xinfo` names this one thing and its fix, exits with 0 and writes nothing, with `--fix` neither.
    async fn is_worth_knowing(&self, kind: &str, verdict: &str, fix: &str) {
        let before = dump(&self.queue).await;
        for flags in [&[][..], &["--fix"]] {
            let (ran, json) = self.xinfo(flags).await;
            assert_eq!(ran.status.code(), Some(0), "{kind}: {}", ran.stdout);
            let findings = json["queues"][0]["findings"].as_array().unwrap();
            let [found] = findings.as_slice() else { panic!("{kind}: {findings:#?}") };
            assert_eq!((&found["kind"], &found["status"]), (&kind.into(), &"warning".into()));
            assert!(found["verdict"].as_str().unwrap().contains(verdict), "{found:#}");
            assert_eq!((&found["fix"], &found["repairable"]), (&fix.into(), &false.into()));
        }
        let printed = squeezed(&self.mill.run(&["xinfo", self.queue.name(), "--deep"]).await.stdout);
        assert!(printed.contains(fix), "{fix}: {printed}");
        assert_eq!(changed(&self.queue, &before, &dump(&self.queue).await), BTreeSet::new(), "{kind}: it only looks");
    }
}

/// A text with its lines and spaces run together, to find what may have been wrapped.
fn squeezed(text: &str) -> String {
    text.replace(" \\\n", "\n").split_whitespace().collect::<Vec<_>>().join(" ")
}

// ── the breakages ───────────────────────────────────────────────────────────────────────────────────────────────────────

#[tokio::test]
async fn a_dead_consumer_with_pending_entries_is_named_with_when_they_are_claimed() {
    let mut stage = Stage::new().await;
    read_one(&stage.queue, "web1:4242:0badcafe").await;
    let died = stage.queue.time().await.unwrap().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() - 180_000;
    let registry = stage.queue.keys().consumers().to_owned();
    let _: u64 = stage.run(&["ZADD", &registry, &died.to_string(), "web1:4242:0badcafe"]).await;
    let verdict = "web1:4242:0badcafe died 3 min ago holding 1 entry; it will be claimed in ";
    stage.is_named("dead-consumer", verdict, "feedmill worker", &[]).await;
}

#[tokio::test]
async fn an_orphan_entry_is_named_and_its_job_waits_again() {
    let mut stage = Stage::new().await;
    let delivery = read_one(&stage.queue, "worker").await;
    let stream = stage.queue.keys().stream().to_owned();
    let _: u64 = stage.run(&["XACK", &stream, GROUP, &delivery.lease.entry.to_string()]).await;
    stage
        .is_named("orphan-entry", "pending for nobody", "xinfo job_import_queue --fix", &["stream", "job:waits"])
        .await;
    assert_eq!(read_one(&stage.queue, "worker").await.job.id, id("waits"));
}

#[tokio::test]
async fn a_guard_without_a_job_is_named_and_its_job_waits_again() {
    let mut stage = Stage::new().await;
    let stream = stage.queue.keys().stream().to_owned();
    let _: u64 = stage.run(&["XTRIM", &stream, "MAXLEN", "0"]).await;
    let fix = "xinfo job_import_queue --fix";
    stage.is_named("guard-without-job", "1 guard without a job", fix, &["stream", "job:waits"]).await;
    assert_eq!(read_one(&stage.queue, "worker").await.job.id, id("waits"));
}

#[tokio::test]
async fn a_second_group_is_named_with_the_command_that_removes_it() {
    let mut stage = Stage::new().await;
    let stream = stage.queue.keys().stream().to_owned();
    let _: String = stage.run(&["XGROUP", "CREATE", &stream, "audit", "0"]).await;
    let fix = format!("redis-cli XGROUP DESTROY '{stream}' 'audit'");
    stage.is_named("second-group", "second consumer group, audit", &fix, &[]).await;
    let _: u64 = stage.run(&["XGROUP", "DESTROY", &stream, "audit"]).await;
    assert_eq!(stage.xinfo(&[]).await.0.status.code(), Some(0), "that mended it");
}

#[tokio::test]
async fn a_backlog_without_a_consumer_is_named() {
    let stage = Stage::without_worker(Mill::new()).await;
    stage.is_named("no-consumer", "1 job waits, the oldest for ", "feedmill worker", &[]).await;
}

#[tokio::test]
async fn overdue_backoff_is_named_and_promoted() {
    let mut stage = Stage::new().await;
    let late = NewJob { delay: Duration::from_hours(1), ..new_job(&id("late")) };
    stage.queue.add(&[late], PAYLOAD_MAX).await.unwrap();
    let delayed = stage.queue.keys().delayed().to_owned();
    let _: u64 = stage.run(&["ZADD", &delayed, "1000", "late"]).await;
    stage
        .is_named(
            "overdue-backoff",
            "1 job in backoff is due",
            "xinfo job_import_queue --fix",
            &["delayed", "job:late", "stream"],
        )
        .await;
}

#[tokio::test]
async fn an_overdue_scheduler_is_named() {
    let mut stage = Stage::new().await;
    let schedulers = stage.queue.keys().schedulers().to_owned();
    let _: u64 = stage.run(&["ZADD", &schedulers, "1000", "nightly"]).await;
    stage.is_named("overdue-scheduler", "the slot of 1 scheduler has come", "feedmill schedule", &[]).await;
}

#[tokio::test]
async fn a_lost_group_is_named_and_created_again() {
    let mut stage = Stage::new().await;
    let stream = stage.queue.keys().stream().to_owned();
    let _: u64 = stage.run(&["XGROUP", "DESTROY", &stream, GROUP]).await;
    // the loss is noted, so that feeds are taken in whole once more
    stage.is_named("group-lost", "is gone", "xinfo job_import_queue --fix", &["meta", "stream"]).await;
    assert_eq!(read_one(&stage.queue, "worker").await.job.id, id("waits"));
}

#[tokio::test]
async fn keys_that_another_program_wrote_are_named_and_left_alone() {
    let mut stage = Stage::new().await;
    let key = format!("{}broken", stage.queue.keys().job_prefix());
    let _: String = stage.run(&["SET", &key, "no head"]).await;
    stage.is_named("unreadable-guard", "hold no head", &format!("redis-cli DEL '{key}'"), &[]).await;
    let _: u64 = stage.run(&["DEL", &key]).await;
    let dead = stage.queue.keys().dead().to_owned();
    let _: String = stage.run(&["SET", &dead, "a text"]).await;
    stage.is_named("wrong-type", "is a string", &format!("redis-cli RENAME '{dead}'"), &[]).await;
}

#[tokio::test]
async fn groups_that_are_counted_wrong_or_forgotten_are_named_and_mended() {
    let mut stage = Stage::new().await;
    let queue = as_another_process(&stage.queue, window(1)).await;
    add_to_group(&queue, "busy", 3).await;
    let groups = queue.keys().groups().to_owned();
    let _: u64 = stage.run(&["HSET", &groups, "busy", "7"]).await;
    stage.is_named("miscounted-group", "1 group is counted wrong", "xinfo job_import_queue --fix", &["groups"]).await;
    // Its one job in the stream goes, and nobody brings out the next one.
    let delivery = read_one(&queue, "worker").await;
    assert_eq!(delivery.job.id, id("waits"));
    let first = read_one(&queue, "worker").await;
    let stream = queue.keys().stream().to_owned();
    let entry = first.lease.entry.to_string();
    let _: u64 = stage.run(&["XACK", &stream, GROUP, &entry]).await;
    let _: u64 = stage.run(&["XDEL", &stream, &entry]).await;
    let _: u64 = stage.run(&["DEL", &format!("{}busy-0", queue.keys().job_prefix())]).await;
    let _: u64 = stage.run(&["HDEL", &groups, "busy"]).await;
    let kept = ["groups", "job:busy-1", "meta", "parked:busy", "stream"];
    stage.is_named("forgotten-group", "2 jobs of group busy are parked", "--fix", &kept).await;
}

#[tokio::test]
async fn entries_that_nobody_claims_although_a_worker_is_alive_are_named_until_one_sweeps() {
    let mut stage = Stage::new().await;
    // The worker that has it does not renew its lease any more, and nobody claims what it has.
    let worker = stage.worker.name.clone();
    let entry = read_one(&stage.queue, &worker).await.lease.entry.to_string();
    let stream = stage.queue.keys().stream().to_owned();
    let ten_minutes = "600000";
    let claim = ["XCLAIM", &stream, GROUP, &worker, "0", &entry, "IDLE", ten_minutes, "JUSTID"];
    let _: Vec<String> = stage.run(&claim).await;
    let verdict = "1 is idle for up to 10 min, beyond lease and sweep: no worker sweeps";
    stage.is_named("overdue-claim", verdict, "feedmill worker", &[]).await;
    stage.queue.pause().await.unwrap();
    let verdict = "the queue is paused, and nothing is claimed meanwhile";
    stage.is_named("overdue-claim", verdict, "feedmill queue resume --queue job_import_queue", &[]).await;
    stage.queue.resume().await.unwrap();
    assert_eq!(stage.queue.sweeper("another", AT_ONCE).sweep().await.unwrap().waiting, 1);
    assert_eq!(stage.xinfo(&[]).await.0.status.code(), Some(0), "that mended it");
    assert_sound(&stage.queue).await;
}

#[tokio::test]
async fn an_active_job_whose_guard_is_gone_is_worth_knowing_until_it_is_a_dead_letter() {
    let mut stage = Stage::new().await;
    read_one(&stage.queue, &stage.worker.name).await;
    let guard = format!("{}waits", stage.queue.keys().job_prefix());
    let _: u64 = stage.run(&["DEL", &guard]).await;
    stage.is_worth_knowing("payload-lost", "1 active job has no guard any more", "feedmill doctor").await;
    stage.queue.sweeper("another", AT_ONCE).sweep().await.unwrap();
    let letters = stage.queue.dead_letters(None, 9).await.unwrap();
    let letters: Vec<_> = letters.iter().map(|letter| (letter.id.clone(), letter.reason.as_str())).collect();
    assert_eq!(letters, [(Some(id("waits")), "payload lost")]);
    let found = inspect(&stage.queue).await;
    assert!(found.finding(FindingKind::PayloadLost).is_none(), "{found:#?}");
    assert_sound(&stage.queue).await;
}

#[tokio::test]
async fn a_pause_is_worth_knowing_and_no_anomaly() {
    let stage = Stage::without_worker(Mill::new()).await;
    stage.queue.pause().await.unwrap();
    let fix = "feedmill queue resume --queue job_import_queue";
    stage.is_worth_knowing("paused", "the queue is paused, and 1 job waits", fix).await;
}

#[tokio::test]
async fn dead_letters_are_worth_knowing_and_no_anomaly() {
    let stage = Stage::new().await;
    let delivery = read_one(&stage.queue, "worker").await;
    bury(&stage.queue, delivery, "it cannot be done").await;
    let fix = "feedmill queue list --state failed --desc --queue job_import_queue";
    stage.is_worth_knowing("dead-letters", "1 job was given up; most often: it cannot be done", fix).await;
}

// ── what it prints ──────────────────────────────────────────────────────────────────────────────────────────────────────

/// A queue in which something of everything stands, and much is wrong.
async fn everything() -> Stage {
    let mut stage = Stage::without_worker(Mill::new()).await;
    add_many(&stage.queue, "https://jobs.example/a/rather/long/feed?category=gardening#item", 3).await;
    add_prioritized(&stage.queue, "urgent", 1).await;
    read_one(&stage.queue, "a-host-with-a-long-name.example:4242:0badcafe").await;
    let (stream, schedulers) = (stage.queue.keys().stream().to_owned(), stage.queue.keys().schedulers().to_owned());
    let _: String = stage.run(&["XGROUP", "CREATE", &stream, "audit", "0"]).await;
    let _: u64 = stage.run(&["ZADD", &schedulers, "1000", "nightly"]).await;
    stage
}

#[tokio::test]
async fn lines_keep_to_80_and_to_120_columns_and_are_not_coloured_when_piped() {
    let stage = everything().await;
    for columns in [80, 120] {
        let mut command = stage.mill.command(&["xinfo"]);
        command.env("COLUMNS", columns.to_string());
        let printed = stage.mill.start_command(command).ran().await.stdout;
        let widest = printed.lines().map(|line| line.chars().count()).max().unwrap();
        assert!(widest <= columns && widest > columns * 3 / 4, "{columns}: {widest}\n{printed}");
        assert!(!printed.contains('\x1b'), "{printed}");
        let header = printed.lines().find(|line| line.starts_with("consumer ")).unwrap();
        let row = printed.lines().find(|line| line.starts_with("a-host")).unwrap();
        let column = |line: &str, text| line.split_once(text).unwrap().0.chars().count();
        assert_eq!(column(header, "means"), column(row, "no worker of ours"), "{printed}");
    }
}

#[tokio::test]
async fn in_a_terminal_anomalies_are_red_and_lines_keep_to_its_width() {
    let stage = everything().await;
    for columns in [80, 120] {
        let terminal = Terminal::open_wide(columns);
        let (status, printed) = terminal.printed(&mut stage.mill.command(&["xinfo", "job_import_queue"]));
        assert_eq!(status.code(), Some(3));
        let red = printed.lines().filter(|line| line.starts_with("\x1b[31m")).collect::<Vec<_>>();
        assert!(red.iter().any(|line| line.contains("second consumer group")), "{printed}");
        assert!(!red.iter().any(|line| line.contains("fix: ")), "a command is to be copied: {printed}");
        let plain = |line: &str| line.replace("\x1b[31m", "").replace("\x1b[33m", "").replace("\x1b[0m", "");
        let widest = printed.lines().map(|line| plain(line).chars().count()).max().unwrap();
        assert!(widest <= usize::from(columns), "{widest}: {printed}");
        let mut command = stage.mill.command(&["xinfo", "job_import_queue"]);
        let (_, printed) = Terminal::open_wide(columns).printed(command.env("NO_COLOR", "1"));
        assert!(!printed.contains('\x1b'), "{printed}");
    }
}

#[tokio::test]
async fn watching_looks_again_until_interrupted() {
    let stage = Stage::new().await;
    let mut watching = stage.mill.start(&["xinfo", "job_import_queue", "--json", "--watch", "1"]);
    eventually("it looks twice", Duration::from_secs(30), async || {
        (watching.stdout().lines().count() >= 2).then_some(())
    })
    .await;
    watching.int();
    let (status, _) = watching.wait(Duration::from_secs(10)).await;
    assert_eq!(status.code(), Some(0));
}

#[tokio::test]
async fn bad_input_is_one_line_that_names_it_and_what_is_accepted() {
    let stage = Stage::new().await;
    for (args, error) in [
        (
            &["xinfo", "nope"][..],
            "error: there is no queue \"nope\"; the queues are feed_fetch_queue, job_import_queue\n",
        ),
        (&["xinfo", "a b"], "error: there is no queue \"a b\"; the queues are feed_fetch_queue, job_import_queue\n"),
    ] {
        let ran = stage.mill.run(args).await;
        assert_eq!((ran.status.code(), ran.stderr.as_str(), ran.stdout.as_str()), (Some(2), error, ""));
    }
    for args in [&["xinfo", "--watch", "0"][..], &["xinfo", "--watch", "--fix"]] {
        let ran = stage.mill.run(args).await;
        assert_eq!((ran.status.code(), ran.stdout.as_str()), (Some(2), ""), "{ran:?}");
    }
}

#[tokio::test]
async fn the_json_is_as_its_schema_says() {
    let schema: Value = serde_json::from_str(include_str!("../../docs/xinfo.schema.json")).unwrap();
    let stage = everything().await;
    let queue = as_another_process(&stage.queue, window(1)).await;
    add_to_group(&queue, "parked", 3).await;
    let delivery = read_one(&queue, "worker").await;
    bury(&queue, delivery, "it cannot be done").await;
    for flags in [&[][..], &["--fix"]] {
        let (_, json) = stage.xinfo(flags).await;
        check_schema(&schema, &schema, &json, "$");
    }
    let mut wrong = stage.xinfo(&[]).await.1;
    wrong["queues"][0]["findings"][0]["status"] = "bad".into();
    let checked = std::panic::catch_unwind(|| check_schema(&schema, &schema, &wrong, "$"));
    assert!(checked.is_err(), "the check would find it");
}

/// Checks a value by the part of JSON Schema that our schema uses; a keyword beyond that fails.
fn check_schema(root: &Value, schema: &Value, value: &Value, at: &str) {
    for (keyword, said) in schema.as_object().unwrap() {
        match keyword.as_str() {
            "$schema" | "$id" | "$defs" | "title" | "description" => {}
            "$ref" => {
                let target = said.as_str().unwrap().strip_prefix('#').unwrap();
                check_schema(root, root.pointer(target).unwrap(), value, at);
            }
            "type" => {
                let types = said.as_array().cloned().unwrap_or_else(|| vec![said.clone()]);
                let is = |name: &Value| match name.as_str().unwrap() {
                    "object" => value.is_object(),
                    "array" => value.is_array(),
                    "string" => value.is_string(),
                    "boolean" => value.is_boolean(),
                    "null" => value.is_null(),
                    "integer" => value.is_u64() || value.is_i64(),
                    other => panic!("type {other}"),
                };
                assert!(types.iter().any(is), "{at} is not {said}: {value}");
            }
            "enum" => assert!(said.as_array().unwrap().contains(value), "{at} is none of {said}: {value}"),
            "minimum" => assert!(value.as_i64().is_none_or(|n| n >= said.as_i64().unwrap()), "{at}: {value}"),
            "items" => value.as_array().unwrap().iter().enumerate().for_each(|(n, item)| {
                check_schema(root, said, item, &format!("{at}[{n}]"));
            }),
            "required" => said.as_array().unwrap().iter().for_each(|name| {
                assert!(value.get(name.as_str().unwrap()).is_some(), "{at} has no {name}: {value}");
            }),
            "properties" => said.as_object().unwrap().iter().for_each(|(name, schema)| {
                value
                    .get(name)
                    .into_iter()
                    .for_each(|value| check_schema(root, schema, value, &format!("{at}.{name}")));
            }),
            "additionalProperties" => {
                assert_eq!(said, false);
                for name in value.as_object().unwrap().keys() {
                    assert!(schema["properties"].get(name).is_some(), "{at}.{name} is not in the schema");
                }
            }
            other => panic!("the check does not know the keyword {other}"),
        }
    }
}

// ── the scripts ─────────────────────────────────────────────────────────────────────────────────────────────────────────

async fn bury(queue: &Queue, delivery: Delivery, reason: &str) {
    let burial = Burial { lease: delivery.lease, reason: reason.to_owned(), exhausted: false, dedup: None };
    assert_eq!(queue.bury("worker", &[burial]).await.unwrap(), [Settled::Settled]);
}

/// Looks at everything, as [`Stage::xinfo`].
async fn inspect(queue: &Queue) -> Inspection {
    queue.inspect(InspectOptions::default().deep()).await.unwrap()
}

async fn orphans_and_guards_are_restored_each_in_its_way(url: &str) {
    let queue = queue_at(url).await;
    let mut redis = connection(&queue).await;
    let stream = queue.keys().stream().to_owned();
    // one that is active, one that waits, and orphans of each kind
    for job in ["orphan", "lost", "elsewhere", "active"] {
        add(&queue, job).await;
    }
    let mut entries: Vec<EntryId> = Vec::new();
    for _ in 0..4 {
        entries.push(read_one(&queue, "worker").await.lease.entry);
    }
    for field in ["json", "colour"] {
        let entry: String = redis.xadd(&stream, "*", &[(field, "{}")]).await.unwrap();
        entries.push(entry.parse().unwrap());
    }
    // Our own readers would adopt or bury these two.
    let mut raw = redis::cmd("XREADGROUP");
    raw.arg("GROUP").arg(GROUP).arg("worker").arg("COUNT").arg(9).arg("STREAMS").arg(&stream).arg(">");
    let _: redis::Value = raw.query_async(&mut redis).await.unwrap();
    add(&queue, "waiting").await;
    let waiting: redis::streams::StreamRangeReply = redis.xrevrange_count(&stream, "+", "-", 1).await.unwrap();
    entries.push(waiting.ids[0].id.parse().unwrap());
    for at in [0, 1, 2, 4, 5] {
        let _: u64 = redis.xack(&stream, GROUP, &[entries[at].to_string()]).await.unwrap();
    }
    let _: u64 = redis.del(queue.keys().job(&id("lost"))).await.unwrap();
    let _: u64 = redis.del(queue.keys().job(&id("elsewhere"))).await.unwrap();
    add(&queue, "elsewhere").await;

    let found = inspect(&queue).await;
    assert_eq!(found.finding(FindingKind::OrphanEntry).map(|finding| finding.count), Some(5), "{found:#?}");
    let restored = queue.restore_orphans(Place::Stream, &entries).await.unwrap();
    let expected = [
        OrphanRestored::Waiting,
        OrphanRestored::Dead,
        OrphanRestored::Dropped,
        OrphanRestored::None,
        OrphanRestored::Waiting,
        OrphanRestored::Dead,
        OrphanRestored::None,
    ];
    assert_eq!(restored, expected);
    let again = queue.restore_orphans(Place::Stream, &entries).await.unwrap();
    assert_eq!(again, [OrphanRestored::None; 7], "once is enough");
    assert_sound(&queue).await;

    // and guards whose jobs stand nowhere
    add_prioritized(&queue, "urgent", 3).await;
    let late = NewJob { delay: Duration::from_hours(1), ..new_job(&id("late")) };
    queue.add(&[late], PAYLOAD_MAX).await.unwrap();
    let _: u64 = redis.zrem(queue.keys().prioritized(), "urgent").await.unwrap();
    let _: u64 = redis.zrem(queue.keys().delayed(), "late").await.unwrap();
    let _: u64 = redis.del(queue.keys().dead()).await.unwrap();
    let _: () = redis.set(queue.keys().job(&id("broken")), "no head").await.unwrap();
    let found = inspect(&queue).await;
    assert_eq!(found.finding(FindingKind::GuardWithoutJob).map(|finding| finding.count), Some(2), "{found:#?}");
    let guards = ["urgent", "late", "waiting", "broken", "nobody"].map(id);
    let restored = queue.restore_guards(&guards).await.unwrap();
    let expected = [
        GuardRestored::Waiting,
        GuardRestored::Waiting,
        GuardRestored::Stands,
        GuardRestored::Unreadable,
        GuardRestored::Gone,
    ];
    assert_eq!(restored, expected);
    let _: u64 = redis.del(queue.keys().job(&id("broken"))).await.unwrap();
    assert_sound(&queue).await;
}

async fn dead_and_completed_jobs_are_listed_again(url: &str) {
    let queue = queue_at(url).await;
    let mut redis = connection(&queue).await;
    for job in ["dead", "kept"] {
        add(&queue, job).await;
    }
    let dead = read_one(&queue, "worker").await;
    bury(&queue, dead, "it cannot be done").await;
    let kept = read_one(&queue, "worker").await;
    queue.done(&[Done::new(kept.lease)], Keep::All).await.unwrap();
    let _: u64 = redis.del(queue.keys().dead()).await.unwrap();
    let _: u64 = redis.del(queue.keys().completed()).await.unwrap();
    assert!(audit(&queue).await.is_err());
    let restored = queue.restore_guards(&["dead", "kept"].map(id)).await.unwrap();
    assert_eq!(restored, [GuardRestored::Dead, GuardRestored::Completed]);
    assert_sound(&queue).await;
    let letters = queue.dead_letters(None, 9).await.unwrap();
    assert_eq!((letters.len(), letters[0].reason.as_str()), (1, "it cannot be done"), "the reason was kept");
}

on_each_redis!(orphans_and_guards_are_restored_each_in_its_way, dead_and_completed_jobs_are_listed_again);

#[tokio::test]
async fn groups_are_counted_anew_only_while_no_job_moves() {
    let queue = queue_with(window(2)).await;
    add_to_group(&queue, "g", 3).await;
    let _: u64 = connection(&queue).await.hset(queue.keys().groups(), "g", 5).await.unwrap();
    let found = inspect(&queue).await;
    assert!(found.finding(FindingKind::MiscountedGroup).is_some(), "{found:#?}");
    add(&queue, "moved").await;
    let repairs = queue.repair(&found).await.unwrap();
    assert_eq!((repairs.len(), repairs[0].repaired), (1, 0), "{repairs:?}");
    let repairs = queue.repair(&inspect(&queue).await).await.unwrap();
    assert_eq!((repairs.len(), repairs[0].repaired), (1, 1), "{repairs:?}");
    assert_sound(&queue).await;
}

#[tokio::test]
async fn a_closed_gate_hides_no_orphan_and_makes_none() {
    let queue = queue().await;
    add_many(&queue, "job", 2).await;
    let delivery = read_one(&queue, "worker").await;
    queue.pause().await.unwrap();
    assert!(inspect(&queue).await.finding(FindingKind::OrphanEntry).is_none(), "what waits was not delivered");
    let entry = delivery.lease.entry.to_string();
    let _: u64 = connection(&queue).await.xack(queue.keys().stream(), GROUP, &[entry]).await.unwrap();
    let found = inspect(&queue).await;
    assert_eq!(found.finding(FindingKind::OrphanEntry).map(|finding| finding.count), Some(1));
    queue.repair(&found).await.unwrap();
    assert_sound(&queue).await;
    assert!(queue.counts().await.unwrap().is_paused);
}

/// A row of the slowlog: number, when, for how long (µs), the command, whose.
type SlowCommand = (u64, u64, u64, Vec<Vec<u8>>, Vec<u8>, Vec<u8>);

// ── what it costs ───────────────────────────────────────────────────────────────────────────────────────────────────────

#[tokio::test]
async fn no_command_holds_redis_for_5_ms_however_much_there_is() {
    let number = |name: &str, default: usize| std::env::var(name).map_or(default, |text| text.parse().unwrap());
    let entries = number("FEEDMILL_XINFO_ENTRIES", 20_000);
    let pending = entries / 20;
    let server = OwnRedis::start(&["--slowlog-log-slower-than", "5000", "--slowlog-max-len", "100000"]);
    let queue = queue_at(&server.url()).await;
    for first in (0..entries).step_by(5000) {
        let last = (first + 5000).min(entries);
        let ids: Vec<_> = (first..last).map(|n| id(format!("https://jobs.example/feed#{n}"))).collect();
        let jobs: Vec<NewJob<'_>> = ids.iter().map(new_job).collect();
        queue.add(&jobs, PAYLOAD_MAX).await.unwrap();
    }
    let mut looks = 0;
    let mut redis = connection(&queue).await;
    for _ in 0..pending.div_ceil(1000) {
        let mut read = redis::cmd("XREADGROUP");
        read.arg("GROUP").arg(GROUP).arg("worker").arg("COUNT").arg(1000.min(pending));
        let _: redis::Value =
            read.arg("STREAMS").arg(queue.keys().stream()).arg(">").query_async(&mut redis).await.unwrap();
    }
    // A command counts as slow, too, when its server was not given the processor meanwhile; what is slow by itself is so each
    // time. The walks make the same calls each time, since nothing moves.
    let mut always_slow: Option<BTreeSet<Vec<Vec<u8>>>> = None;
    while always_slow.as_ref().is_none_or(|slow| !slow.is_empty()) && looks < 10 {
        looks += 1;
        let _: () = redis::cmd("SLOWLOG").arg("RESET").query_async(&mut redis).await.unwrap();
        let found = queue.inspect(InspectOptions::default().deep()).await.unwrap();
        assert_eq!((found.walked.entries, found.walked.guards), (pending as u64, entries as u64));
        assert!(found.walked.entries_through && found.walked.guards_through);
        let mut log = redis::cmd("SLOWLOG");
        let log: Vec<SlowCommand> = log.arg("GET").arg(100_000).query_async(&mut redis).await.unwrap();
        let slow: BTreeSet<Vec<Vec<u8>>> = log.into_iter().map(|(_, _, _, command, _, _)| command).collect();
        always_slow = Some(always_slow.map_or(slow.clone(), |before| before.intersection(&slow).cloned().collect()));
    }
    let slow: Vec<String> =
        always_slow.unwrap().iter().map(|command| String::from_utf8_lossy(&command.concat()).into_owned()).collect();
    assert!(slow.is_empty(), "{slow:?}");
}
