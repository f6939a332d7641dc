//! `queue`: counts, pause, one job, and dead letters.

use std::collections::BTreeMap;

use feedmill::{
    job::{Envelope, JobId},
    queue::enqueue::NewJob,
};
use serde_json::{Value, json};

use super::{NOTHING, mill_with_a_dead_letter, shell_with_redis};
use crate::support::{
    eventually::eventually,
    feed_server::{FeedServer, Page},
    mongo_database,
    process::{Mill, PATIENCE, redis_connection},
};

#[tokio::test]
async fn counts_are_a_table_for_people_and_bullmqs_keys_for_machines() {
    let (mill, _server) = mill_with_a_dead_letter().await;
    mill.fetch(&["jobs"]).await;
    assert_eq!(mill.run_ok(&["queue", "pause"]).await, "job_import_queue is paused\n");
    assert_eq!(
        mill.run(&["queue", "counts"]).await.data(),
        "state             job_import_queue (paused)  feed_fetch_queue\n\
         active                                    0                 0\n\
         completed                                 0                 0\n\
         delayed                                   0                 0\n\
         failed                                    1                 0\n\
         paused                                    0                 0\n\
         prioritized                               0                 0\n\
         waiting                                   0                 1\n\
         waiting-children                          0                 0\n"
    );
    let counts = mill.run(&["queue", "counts", "--json"]).await.data();
    let counts: BTreeMap<String, BTreeMap<String, Value>> = serde_json::from_str(&counts).unwrap();
    let states = ["active", "completed", "delayed", "failed", "paused", "prioritized", "waiting", "waiting-children"];
    let numbers = |queue: &str| states.map(|state| counts[queue][state].as_u64().unwrap());
    assert_eq!(numbers("job_import_queue"), [0, 0, 0, 1, 0, 0, 0, 0]);
    assert_eq!(numbers("feed_fetch_queue"), [0, 0, 0, 0, 0, 0, 1, 0]);
    assert_eq!(counts["job_import_queue"]["is-paused"], true);
    assert_eq!(counts["job_import_queue"]["totals"]["completed"], 1);
    let one = mill.run(&["queue", "counts", "--queue", "feed_fetch_queue"]).await.data();
    assert!(one.starts_with("state             feed_fetch_queue\nactive                           0\n"), "{one}");
}

#[tokio::test]
async fn pause_and_resume_say_what_they_changed_and_hold_the_jobs() {
    let server = FeedServer::start();
    server.put("/jobs.rss", Page::rss(&[("1", "good")]));
    let mut mill = Mill::new();
    mill.feed("jobs", &server.url("/jobs.rss"), None);
    let fetch_queue = ["--queue", "feed_fetch_queue"];
    let on_fetch_queue = async |command: &str| mill.run_ok(&[&["queue", command], &fetch_queue[..]].concat()).await;
    assert_eq!(on_fetch_queue("pause").await, "feed_fetch_queue is paused\n");
    assert_eq!(on_fetch_queue("pause").await, "feed_fetch_queue was paused already\n");
    mill.fetch(&["jobs"]).await;
    let _worker = mill.worker().await;
    let queues = mill.queues().await;
    // The import queue is not paused: a job of its own comes through, with the worker's reader at work.
    let _: String = redis::cmd("XADD")
        .arg(queues.import.keys().stream())
        .arg("*")
        .arg("json")
        .arg(r#"{"source":"x","guid":"1","title":"t"}"#)
        .query_async(&mut redis_connection(queues.import.redis().address()).await)
        .await
        .unwrap();
    eventually("the other queue goes on", PATIENCE, async || mill.title("1").await).await;
    assert_eq!(queues.fetch.counts().await.unwrap().waiting, 1);
    assert!(server.asked().is_empty(), "a paused queue starts nothing");
    assert_eq!(on_fetch_queue("resume").await, "feed_fetch_queue goes on\n");
    assert_eq!(on_fetch_queue("resume").await, "feed_fetch_queue was not paused\n");
    mill.through(&queues).await;
    assert_eq!(server.asked().len(), 1);
}

#[tokio::test]
async fn show_tells_why_a_job_is_dead_and_redrive_brings_it_back() {
    let (mill, _server) = mill_with_a_dead_letter().await;
    let shown = mill.run(&["queue", "show", "board#2"]).await.data();
    for line in ["job         board#2", "queue       job_import_queue", "state       failed", "attempts    1 failed"] {
        assert!(shown.lines().any(|shown| shown == line), "{line} is not in\n{shown}");
    }
    assert!(shown.contains("\nreason      ") && shown.contains("\"title\": \"bad\""), "{shown}");
    let job: Value = serde_json::from_str(&mill.run(&["queue", "show", "board#2", "--json"]).await.data()).unwrap();
    assert_eq!((&job["id"], &job["state"], &job["attempts"]), (&json!("board#2"), &json!("failed"), &json!(1)));
    assert_eq!(job["payload"]["title"], "bad");
    assert!(job["reason"].as_str().unwrap().contains("geo"), "{}", job["reason"]);

    let there_is_none = |id: &str| {
        format!(
            "there is no job {id} in job_import_queue: it is done, was never added, or no worker has adopted it yet"
        )
    };
    mill.run(&["queue", "redrive", "board#1"]).await.failed(1, &there_is_none("board#1"));
    assert_eq!(mill.run(&["queue", "redrive", "board#2"]).await.data(), "1 redriven\n");
    assert_eq!(mill.run(&["queue", "redrive"]).await.data(), "0 redriven\n");
    let shown = mill.run(&["queue", "show", "board#2"]).await.data();
    assert!(shown.contains("\nstate       waiting\n") && shown.contains("\nattempts    0 failed\n"), "{shown}");
}

#[tokio::test]
async fn a_job_in_backoff_is_shown_with_its_last_error_and_when_it_is_due() {
    let mut mill = Mill::new();
    mill.feed("down", &format!("http://{NOTHING}/down.rss"), None);
    mill.retry("feed_fetch_queue", 2, "5m");
    mill.fetch(&["down"]).await;
    let _worker = mill.worker().await;
    let queues = mill.queues().await;
    eventually("it waits for its second attempt", PATIENCE, async || {
        (queues.fetch.counts().await.unwrap().delayed == 1).then_some(())
    })
    .await;
    let show = ["queue", "show", "down", "--queue", "feed_fetch_queue"];
    let shown = mill.run(&show).await.data();
    for begin in ["state       delayed\n", "attempts    1 failed\n", "due         20", "last error  20"] {
        assert!(shown.contains(&format!("\n{begin}")), "{begin} is not in\n{shown}");
    }
    let job: Value = serde_json::from_str(&mill.run(&[&show[..], &["--json"]].concat()).await.data()).unwrap();
    assert!(job["lastError"].as_str().unwrap().starts_with("cannot reach http://127.0.0.1:1/down.rss: "), "{job}");
    assert!(job["dueAt"].as_str() > job["enqueuedAt"].as_str(), "{job}");
    assert_eq!(job["payload"]["feed"], "down");
}

#[tokio::test]
async fn a_long_payload_is_cut_unless_all_of_it_is_asked_for() {
    let mill = Mill::new();
    let queues = mill.queues().await;
    let title = "ß".repeat(5000);
    let payload = serde_json::to_vec(&json!({ "title": title })).unwrap();
    let job = NewJob::new(JobId::new("long").unwrap(), Envelope { payload: &payload, ..Envelope::default() });
    queues.import.add(&[job], 1 << 20).await.unwrap();
    let cut = mill.run(&["queue", "show", "long"]).await.data();
    assert!(cut.contains(" bytes; --full shows all)\n") && cut.ends_with("ß…\n") && cut.len() < 5000, "{cut}");
    assert!(mill.run(&["queue", "show", "long", "--full"]).await.data().contains(&title));
}

#[test]
fn jobs_imports_and_queues_that_there_are_not_are_named() {
    let mut shell = shell_with_redis();
    let database = mongo_database();
    shell.set("MONGODB_URI", database.uri.clone());
    shell.set("MONGODB_DATABASE", database.name.clone());
    shell.run(&["queue", "show", "x#1"]).failed(
        1,
        "there is no job x#1 in job_import_queue: it is done, was never added, or no worker has adopted it yet",
    );
    shell.run(&["queue", "show", ""]).failed(2, "a job id must not be empty");
    for command in ["counts", "pause", "resume", "redrive"] {
        shell
            .run(&["queue", command, "--queue", "jobs"])
            .failed(2, "there is no queue \"jobs\"; the queues are feed_fetch_queue, job_import_queue");
    }
    shell
        .run(&["import", "show", "yesterday"])
        .failed(2, "\"yesterday\": an import id is a hexadecimal number such as 660f1a2b3c4d5");
    shell
        .run(&["import", "show", "660f1a2b3c4d5"])
        .failed(1, "there is no import 660f1a2b3c4d5; `feedmill import list` shows those of the last 30 days");
    assert_eq!(shell.run(&["import", "list"]).data(), "");
    assert_eq!(shell.run(&["import", "list", "--json"]).data(), "[]\n");
}
