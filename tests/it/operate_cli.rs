//! Operating on queues from the command line: what each command prints, what it refuses, and that a long one can be
//! interrupted or killed and be gone on with.

use feedmill::{
    pipeline::Queues,
    queue::{Events, Queue, settle::Burial},
};
use serde_json::{Value, json};

use crate::support::{
    audit::{assert_sound, scan},
    eventually::eventually,
    jobs::{add_many, connection, id, read, read_one},
    process::{Mill, PATIENCE, Ran},
    servers::OwnRedis,
};

/// A mill with a third queue, `mails`.
async fn mill() -> (Mill, Queues, Queue) {
    with_mails(Mill::new()).await
}

async fn with_mails(mill: Mill) -> (Mill, Queues, Queue) {
    let queues = mill.queues().await;
    let mails = Queue::open(queues.import.redis(), "mails", Events::Failures).await.unwrap();
    (mill, queues, mails)
}

/// Runs a command of the queue `mails`.
async fn on_mails(mill: &Mill, args: &[&str]) -> Ran {
    mill.run(&[&["queue"], args, &["--queue", "mails"]].concat()).await
}

async fn state(queue: &Queue, job: &str) -> Option<&'static str> {
    Some(queue.find(&id(job)).await.unwrap()?.state.name())
}

/// Gives up everything that waits; returns how many jobs.
async fn bury_all(queue: &Queue, reason: &str) -> usize {
    let (mut reader, mut buried) = (queue.reader("worker"), 0);
    loop {
        let burials: Vec<Burial> = read(&mut reader, 256)
            .await
            .into_iter()
            .map(|delivery| Burial { lease: delivery.lease, reason: reason.to_owned(), exhausted: false, dedup: None })
            .collect();
        if burials.is_empty() {
            return buried;
        }
        buried += burials.len();
        queue.bury("worker", &burials).await.unwrap();
    }
}

#[tokio::test]
async fn a_job_goes_through_all_operations() {
    let (mill, _, mails) = mill().await;
    let done = async |args: &[&str]| on_mails(&mill, args).await.data();
    assert_eq!(done(&["add", "a", "--payload", r#"{"to": "ann"}"#, "--delay", "1h"]).await, "a enqueued\n");
    let again = done(&["add", "a", "--payload", "{}"]).await;
    assert_eq!(again, "a is a duplicate: a job with this id is there already\n");
    assert_eq!(state(&mails, "a").await, Some("delayed"));
    assert_eq!(done(&["delay", "a", "2h"]).await, "1 changed\n");
    assert_eq!(done(&["priority", "a", "3"]).await, "1 changed\n");
    assert_eq!(done(&["promote", "a"]).await, "1 promoted\n");
    assert_eq!(state(&mails, "a").await, Some("prioritized"));
    assert_eq!(done(&["update", "a", "--payload", r#"{"to": "bob"}"#]).await, "1 updated\n");
    assert_eq!(mails.find(&id("a")).await.unwrap().unwrap().job.payload(), br#"{"to": "bob"}"#);
    assert_eq!(done(&["cancel", "a"]).await, "1 cancelled\n");
    assert_eq!(state(&mails, "a").await, Some("failed"));
    assert_eq!(done(&["retry", "a", "--json"]).await, "{\n  \"left\": [],\n  \"retried\": 1\n}\n");
    assert_eq!(done(&["remove", "a"]).await, "1 removed\n");
    assert_eq!(state(&mails, "a").await, None);
    assert_sound(&mails).await;
}

#[tokio::test]
async fn what_cannot_be_done_to_a_job_is_an_error_that_says_why_and_the_others_are_done() {
    let (mill, _, mails) = mill().await;
    add_many(&mails, "job", 2).await;
    read_one(&mails, "worker").await;
    let gone = "there is no job x in mails: it is done, was never added, or no worker has adopted it yet";
    for command in ["promote", "retry", "remove", "cancel"] {
        on_mails(&mill, &[command, "x"]).await.failed(1, gone);
    }
    on_mails(&mill, &["delay", "x", "1s"]).await.failed(1, gone);
    on_mails(&mill, &["delay", "job-1", "1s"]).await.failed(1, "job job-1 is waiting; only delayed jobs have a wait");
    on_mails(&mill, &["promote", "job-1"]).await.failed(1, "job job-1 is waiting; only delayed jobs can be promoted");
    let both = on_mails(&mill, &["remove", "job-0", "job-1"]).await;
    assert_eq!((both.status.code(), both.stdout.as_str()), (Some(1), "1 removed\n"));
    assert_eq!(both.stderr, "error: job job-0 is active; `feedmill queue cancel` ends it, then it can be removed\n");
    let ended = on_mails(&mill, &["remove", "job-0", "--json"]).await;
    let told: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(told, json!({"removed": 0, "left": [{"id": "job-0", "state": "active"}]}));
    assert_eq!(ended.status.code(), Some(1));
    assert_sound(&mails).await;
}

#[tokio::test]
async fn bad_input_is_one_line_that_names_it_and_what_is_accepted() {
    let (mill, _, mails) = mill().await;
    let too_long = "x".repeat(4097);
    let large = format!("@{}", mill.folder().join("large.json").display());
    std::fs::write(mill.folder().join("large.json"), format!("\"{}\"", "x".repeat(1 << 20))).unwrap();
    let payload = ["--payload", "{}"];
    for (args, told) in [
        (vec!["add", "", payload[0], payload[1]], "a job id must not be empty"),
        (
            vec!["add", &too_long, payload[0], payload[1]],
            "a job id of 4097 bytes is too long; at most 4096 are accepted",
        ),
        (vec!["add", payload[0], payload[1]], "which id? Jobs of mails need one"),
        (
            vec!["add", "a", "--payload", &large],
            "job a has a payload of 1048578 bytes; the limit (payload_max) is 1048576",
        ),
        (vec!["add", "a", "--payload", "{to: ann}"], "payload: json: key must be a string at line 1 column 2"),
        (
            vec!["add", "a", "--payload", "{}", "--delay", "-5s"],
            "delay \"-5s\" is no duration; write it like \"15m\" or \"1h 30m\"",
        ),
        (
            vec!["add", "a", "--payload", "{}", "--priority", "2097152"],
            "job a has priority 2097152; accepted: 1 (first) to 2097151 (last), or 0 for none",
        ),
        (vec!["remove", ""], "a job id must not be empty"),
        (vec!["delay", "a", "-1s"], "the wait \"-1s\" is no duration; write it like \"15m\" or \"1h 30m\""),
        (
            vec!["priority", "a", "2097152"],
            "job a has priority 2097152; accepted: 1 (first) to 2097151 (last), or 0 for none",
        ),
        (vec!["retry"], "which jobs? Name them, or say --all or --reason TEXT"),
        (vec!["promote"], "which jobs? Name them, or say --all"),
        (vec!["retry", "--all", "--until", "soon"], "--until \"soon\" is no entry; write it like 1700000000000-0"),
        (
            vec!["clean", "sleeping"],
            "no jobs in state \"sleeping\" can be cleaned; accepted: completed, failed, waiting, delayed, prioritized",
        ),
        (
            vec!["clean", "failed", "--grace", "-1h"],
            "--grace \"-1h\" is no duration; write it like \"15m\" or \"1h 30m\"",
        ),
        (vec!["clean", "failed"], "this removes all 0 failed jobs of mails; say --yes to do it"),
        (vec!["drain"], "this removes the 0 jobs that wait in mails; say --yes to do it"),
    ] {
        on_mails(&mill, &args).await.failed(2, told);
    }
    on_mails(&mill, &["obliterate", "--yes"]).await.failed(
        1,
        "queue mails is not paused; pause it first (`feedmill queue pause`), and nothing is started meanwhile",
    );
    for command in [&["add", "a", "--payload", "{}"][..], &["drain", "--yes"], &["retry", "--all"], &["cancel", "a"]] {
        let ran = mill.run(&[&["queue"], command, &["--queue", "nails"]].concat()).await;
        ran.failed(2, "there is no queue \"nails\"; the queues are feed_fetch_queue, job_import_queue, mails");
    }
    assert!(mails.counts().await.unwrap().is_idle());
}

#[tokio::test]
async fn an_item_and_a_fetch_have_the_id_that_follows_from_them() {
    let (mill, queues, _) = mill().await;
    let item = r#"{"source": "x", "guid": "1", "title": "Gardener"}"#;
    assert_eq!(mill.run(&["queue", "add", "--payload", item]).await.data(), "x#1 enqueued\n");
    let found = queues.import.find(&id("x#1")).await.unwrap().unwrap();
    assert!(found.job.fingerprint.is_some() && found.job.payload() != item.as_bytes(), "as a producer's");
    let other = "the payload is that of job x#1, and not of y; leave the id out";
    mill.run(&["queue", "add", "y", "--payload", item]).await.failed(2, other);
    mill.run(&["queue", "add", "--payload", "{}"]).await.failed(2, "payload: json: an item needs a \"source\"");
    let fetch = ["queue", "add", "--payload", r#"{"feed": "jobs"}"#, "--queue", "feed_fetch_queue"];
    assert_eq!(mill.run(&fetch).await.data(), "jobs enqueued\n");
    let newer = item.replace("Gardener", "Baker");
    assert_eq!(mill.run(&["queue", "update", "x#1", "--payload", &newer]).await.data(), "1 updated\n");
    let other = "--payload is that of job x#1; job x#2 cannot have it";
    mill.run(&["queue", "update", "x#2", "--payload", &newer]).await.failed(2, other);
}

#[tokio::test]
async fn jobs_of_a_file_are_added_each_with_what_it_says_of_itself() {
    let (mill, _, mails) = mill().await;
    let lines = [
        r#"{"id": "a", "payload": {"to": "ann"}, "delay": "1h", "attempts": 7, "name": "mail"}"#,
        "",
        r#"{"id": "b", "payload": "plain", "priority": 0}"#,
        r#"{"id": "c", "payload": 3, "dedup": "d"}"#,
        r#"{"id": "e", "payload": 3, "dedup": "d"}"#,
        r#"{"id": "b", "payload": "again"}"#,
    ];
    let file = mill.folder().join("jobs.ndjson");
    std::fs::write(&file, lines.join("\n")).unwrap();
    let file = file.display().to_string();
    let added = on_mails(&mill, &["add", "--bulk", &file, "--priority", "5"]).await.data();
    assert_eq!(added, "3 enqueued, 1 duplicate, 1 deduplicated\n");
    let found = mails.find(&id("a")).await.unwrap().unwrap();
    assert_eq!((found.state.name(), found.job.head.priority), ("delayed", 5), "the flag holds where nothing is said");
    assert_eq!((found.job.name.as_deref(), found.job.options.unwrap().attempts), (Some("mail"), Some(7)));
    assert_eq!(mails.find(&id("a")).await.unwrap().unwrap().job.payload(), br#"{"to": "ann"}"#);
    assert_eq!(state(&mails, "b").await, Some("waiting"));
    assert_eq!(state(&mails, "c").await, Some("prioritized"));
    assert_sound(&mails).await;
    let lines = [r#"{"id": "f", "payload": 1}"#, r#"{"id": "g", "payload": 1, "colour": "blue"}"#];
    std::fs::write(&file, lines.join("\n")).unwrap();
    let told = format!(
        "{file} line 2: json: unknown field `colour`, expected one of `id`, `payload`, `delay`, `priority`, `group`, \
         `attempts`, `dedup`, `name` at line 1 column 34 (nothing was added)"
    );
    on_mails(&mill, &["add", "--bulk", &file]).await.failed(2, &told);
    assert_eq!(state(&mails, "f").await, None);
}

#[tokio::test]
async fn many_jobs_are_retried_promoted_cleaned_and_drained() {
    let (mill, _, mails) = mill().await;
    let json = async |args: &[&str]| -> Value {
        serde_json::from_str(&on_mails(&mill, &[args, &["--json"]].concat()).await.data()).unwrap()
    };
    add_many(&mails, "a", 3).await;
    bury_all(&mails, "the store refused it").await;
    add_many(&mails, "b", 2).await;
    bury_all(&mails, "too late").await;
    let said = on_mails(&mill, &["retry", "--reason", "REFUSED"]).await.data();
    assert_eq!(said, "3 retried\n");
    assert_eq!(json(&["retry", "--all"]).await["retried"], 2);
    assert_eq!(json(&["drain", "--yes"]).await, json!({"removed": 5, "interrupted": false}));
    for job in ["c", "d"] {
        on_mails(&mill, &["add", job, "--payload", "1", "--delay", "1h"]).await.data();
    }
    assert_eq!(json(&["clean", "delayed", "--grace", "1h"]).await["removed"], 0);
    assert_eq!(json(&["clean", "delayed", "--limit", "1"]).await["removed"], 1);
    assert_eq!(on_mails(&mill, &["promote", "--all"]).await.data(), "1 promoted\n");
    assert_eq!(on_mails(&mill, &["clean", "waiting", "--yes"]).await.data(), "1 removed\n");
    assert!(mails.counts().await.unwrap().is_idle());
    assert_sound(&mails).await;
}

#[tokio::test]
async fn an_obliterated_queue_is_no_queue_any_more() {
    let (mill, _, mails) = mill().await;
    add_many(&mails, "a", 3).await;
    read_one(&mails, "worker").await;
    mails.pause().await.unwrap();
    let told = "1 jobs of queue mails are active; wait until they have ended, or force it: their workers lose them";
    on_mails(&mill, &["obliterate", "--yes"]).await.failed(1, told);
    let told = "this deletes mails with all its 3 jobs, and all that is known of it; say --yes to do it";
    on_mails(&mill, &["obliterate", "--force"]).await.failed(2, told);
    assert_eq!(on_mails(&mill, &["obliterate", "--force", "--yes"]).await.data(), "mails is gone\n");
    let told = "there is no queue \"mails\"; the queues are feed_fetch_queue, job_import_queue";
    on_mails(&mill, &["obliterate", "--force", "--yes"]).await.failed(2, told);
    assert!(scan(&mut connection(&mails).await, mails.keys().queue_prefix()).await.is_empty());
}

/// How many dead letters there are to be retried; the number of a busy night.
const DEAD: usize = 100_000;

#[tokio::test]
async fn a_retry_of_very_many_is_interrupted_and_gone_on_with() {
    let redis = OwnRedis::start(&[]); // others are not to wait for so many jobs
    let (mill, _, mails) = with_mails(Mill::on_redis(&redis)).await;
    for part in 0..DEAD / 10_000 {
        add_many(&mails, &format!("job-{part}"), 10_000).await;
        bury_all(&mails, "bad").await;
    }
    let failed = async || mails.counts().await.unwrap().failed as usize;
    assert_eq!(failed().await, DEAD);
    let retrying = mill.start(&["queue", "retry", "--all", "--queue", "mails"]);
    eventually("some are retried", PATIENCE, async || (failed().await < DEAD).then_some(())).await;
    retrying.int();
    let ran = retrying.ran().await;
    assert_eq!(ran.status.code(), Some(1), "{}", ran.stderr);
    let done: usize = ran.stdout.strip_suffix(" retried\n").unwrap().parse().unwrap();
    let told = format!("error: interrupted after {done} dead letters; to go on: feedmill ");
    let command = ran.stderr.strip_prefix(&told).unwrap_or_else(|| panic!("{} after {told}", ran.stderr)).trim_end();
    assert_eq!(failed().await, DEAD - done);
    assert!(0 < done && done < DEAD, "interrupted in the middle, after {done}");

    // what dies again meanwhile is not met again
    let again = bury_all(&mails, "again").await;
    assert_eq!(again, done);
    let words: Vec<&str> = command.split(' ').collect();
    assert_eq!(words[..3], ["queue", "retry", "--all"]);
    assert_eq!(mill.run(&words).await.data(), format!("{} retried\n", DEAD - done));
    assert_eq!(failed().await, again);
    let now = mails.counts().await.unwrap();
    assert_eq!((now.waiting as usize, now.totals["redriven"] as usize), (DEAD - done, DEAD));
}

/// Jobs of a queue that is emptied by a process which is killed: more than it can remove before it is seen at it.
const MANY: usize = 8_000;

#[tokio::test]
async fn a_drain_that_was_killed_leaves_a_sound_queue_and_is_done_again() {
    let redis = OwnRedis::start(&[]); // others are not to wait for so many jobs
    let (mill, _, mails) = with_mails(Mill::on_redis(&redis)).await;
    add_many(&mails, "job", MANY).await;
    let waiting = async || mails.counts().await.unwrap().waiting as usize;
    let mut draining = mill.start(&["queue", "drain", "--yes", "--queue", "mails"]);
    eventually("some are removed", PATIENCE, async || (waiting().await < MANY).then_some(())).await;
    draining.kill9();
    let left = waiting().await;
    assert!(left > 0, "killed in the middle");
    assert_sound(&mails).await;
    assert_eq!(on_mails(&mill, &["drain", "--yes"]).await.data(), format!("{left} removed\n"));
    assert_eq!(waiting().await, 0);
    assert_sound(&mails).await;
}

#[tokio::test]
async fn an_obliteration_that_was_killed_is_done_again() {
    let redis = OwnRedis::start(&[]); // others are not to wait for so many jobs
    let (mill, _, mails) = with_mails(Mill::on_redis(&redis)).await;
    add_many(&mails, "job", MANY).await;
    mails.pause().await.unwrap();
    let mut redis = connection(&mails).await;
    let mut deleting = mill.start(&["queue", "obliterate", "--yes", "--queue", "mails"]);
    eventually("its stream is gone", PATIENCE, async || {
        let there: bool = redis::cmd("EXISTS").arg(mails.keys().stream()).query_async(&mut redis).await.unwrap();
        (!there).then_some(())
    })
    .await;
    deleting.kill9();
    let left = scan(&mut connection(&mails).await, mails.keys().queue_prefix()).await.len();
    assert!(left > 1, "killed in the middle");
    assert!(mails.counts().await.unwrap().is_paused, "nothing is started until it is done");
    assert_eq!(on_mails(&mill, &["obliterate", "--yes"]).await.data(), "mails is gone\n");
    assert!(scan(&mut connection(&mails).await, mails.keys().queue_prefix()).await.is_empty());
}
