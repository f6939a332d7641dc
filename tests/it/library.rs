//! The library as other programs use it: its examples, and typed queues and workers.

use std::{path::PathBuf, process::Command, sync::Arc, time::Duration};

use feedmill::{
    Job, Keep, NewJob, Outage, Outcome, Queue, QueueOptions, Redis, Worker,
    queue::{find::State, schedulers::Upsert},
    schedule::{Definition, Repeat},
};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::support::{
    jobs::id,
    redis_prefix,
    servers::{OwnRedis, SharedServers},
    wait::until,
};

const SOON: Duration = Duration::from_secs(10);

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Sum {
    a: i32,
    b: i32,
}

async fn sums() -> Queue<Sum> {
    let redis = Redis::connect(&SharedServers::of_this_run().redis_url(), &redis_prefix()).await.unwrap();
    Queue::open(&redis, "sums", QueueOptions::default()).await.unwrap()
}

#[tokio::test]
async fn a_typed_job_goes_in_and_comes_out_as_it_was() {
    let queue = sums().await;
    let (sent, mut received) = mpsc::channel(1);
    queue.add(NewJob::new("1+2", Sum { a: 1, b: 2 }).name("sum").priority(7).attempts(2)).await.unwrap();
    let shutdown = CancellationToken::new();
    let worker = Worker::new(&queue, move |job: Job<Sum>| {
        let sent = sent.clone();
        async move {
            let result = (job.data.a + job.data.b).to_string();
            sent.send(job).await.unwrap();
            Outcome::DoneWith(result)
        }
    });
    let running = tokio::spawn(worker.on_complete(Keep::All).run(shutdown.clone()));
    let job = received.recv().await.unwrap();
    assert_eq!((job.data, job.name.as_deref(), job.attempt, job.priority), (Sum { a: 1, b: 2 }, Some("sum"), 1, 7));
    until(SOON, async || queue.untyped().counts().await.unwrap().completed == 1).await;
    shutdown.cancel();
    running.await.unwrap();
    let found = queue.untyped().find(&id("1+2")).await.unwrap().unwrap();
    assert!(matches!(found.state, State::Completed { .. }));
    assert_eq!(found.log.result.as_deref(), Some("3"));
}

#[tokio::test]
async fn what_is_no_payload_fails_for_good_and_an_error_is_a_failed_attempt() {
    let queue = sums().await;
    let other: Queue<String> = Queue::open(queue.untyped().redis(), "sums", QueueOptions::default()).await.unwrap();
    other.add(NewJob::new("text", "no sum".to_owned())).await.unwrap();
    queue.add(NewJob::new("error", Sum { a: 1, b: 1 }).attempts(1)).await.unwrap();
    let shutdown = CancellationToken::new();
    let worker = Worker::new(&queue, async |job: Job<Sum>| Err::<(), _>(format!("cannot add {}", job.data.a)));
    let running = tokio::spawn(worker.run(shutdown.clone()));
    until(SOON, async || queue.untyped().counts().await.unwrap().failed == 2).await;
    shutdown.cancel();
    running.await.unwrap();
    let letters = queue.untyped().dead_letters(None, 10).await.unwrap();
    let reason = |name: &str| {
        let letter = letters.iter().find(|letter| letter.id == Some(id(name))).unwrap();
        letter.reason.clone()
    };
    assert!(reason("text").starts_with("payload: invalid type: string \"no sum\", expected struct Sum"));
    assert_eq!(reason("error"), "cannot add 1");
}

#[tokio::test]
async fn batches_settle_each_job_on_its_own() {
    let queue = sums().await;
    let jobs: Vec<NewJob<Sum>> = (0..10).map(|n| NewJob::new(n.to_string(), Sum { a: n, b: 0 })).collect();
    queue.add_bulk(&jobs).await.unwrap();
    let sizes = Arc::new(std::sync::Mutex::new(Vec::new()));
    let seen = sizes.clone();
    let worker = Worker::batches(&queue, 5, Duration::from_secs(1), move |jobs: Vec<Job<Sum>>| {
        seen.lock().unwrap().push(jobs.len());
        async move {
            let judge =
                |job: &Job<Sum>| if job.data.a == 3 { Outcome::Fail("three".to_owned()) } else { Outcome::Done };
            Ok::<_, Outage>(jobs.iter().map(judge).collect())
        }
    });
    let shutdown = CancellationToken::new();
    let running = tokio::spawn(worker.run(shutdown.clone()));
    until(SOON, async || queue.untyped().counts().await.unwrap().is_idle()).await;
    shutdown.cancel();
    running.await.unwrap();
    let counts = queue.untyped().counts().await.unwrap();
    assert_eq!((counts.failed, counts.totals["completed"]), (1, 9));
    assert_eq!(*sizes.lock().unwrap(), [5, 5]);
}

/// Runs an example, which `cargo build --examples` has built beside this program.
fn example(name: &str, redis_url: &str) -> String {
    let target: PathBuf = std::env::current_exe().unwrap().parent().unwrap().parent().unwrap().into();
    let program = target.join("examples").join(name);
    assert!(program.exists(), "{} is not built; run: cargo build --examples", program.display());
    run(Command::new(program), redis_url)
}

fn run(mut command: Command, redis_url: &str) -> String {
    let output = command.env("REDIS_URL", redis_url).output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_examples_add_jobs_and_work_on_them() {
    let redis = OwnRedis::start(&[]);
    let added = example("producer", &redis.url());
    let wanted = "Enqueued\nEnqueued\nEnqueued\nDuplicate\nEnqueued\nDeduplicated(JobId(";
    assert!(added.starts_with(wanted), "{added}");
    let sent = example("worker", &redis.url());
    for line in ["sent to ann@example.com (job welcome:ann, attempt 1)", "sent to bob@", "sent to cy@", "sent to dee@"]
    {
        assert!(sent.contains(line), "{line:?} is missing in {sent}");
    }
    assert_eq!(sent.lines().count(), 4, "{sent}");
}

#[test]
fn the_example_of_a_scheduler_adds_its_jobs_and_ends_with_the_last() {
    let redis = OwnRedis::start(&[]);
    for _ in 0..2 {
        let printed = example("scheduler", &redis.url());
        let lines: Vec<&str> = printed.lines().collect();
        assert_eq!(lines.len(), 3, "{printed}");
        assert!(lines.iter().all(|line| line.starts_with("stock (repeat:stock:")), "{printed}");
    }
}

#[tokio::test]
async fn a_typed_scheduler_gives_its_jobs_what_its_template_has() {
    let queue = sums().await;
    let definition = Definition {
        immediately: true,
        no_overlap: true,
        limit: Some(1),
        ..Definition::new(Repeat::cron("@yearly", None).unwrap())
    };
    let template = || NewJob::anonymous(Sum { a: 1, b: 2 }).name("sum").priority(7).attempts(2);
    let (upserted, slot) = queue.upsert_scheduler("s", &definition, template()).await.unwrap();
    assert_eq!(upserted, Upsert::Created);
    assert_eq!(queue.upsert_scheduler("s", &definition, template()).await.unwrap(), (Upsert::Unchanged, slot));
    let (sent, mut received) = mpsc::channel(1);
    let shutdown = CancellationToken::new();
    let worker = Worker::new(&queue, move |job: Job<Sum>| {
        let sent = sent.clone();
        async move { sent.send(job).await.unwrap() }
    });
    let running = tokio::spawn(worker.run(shutdown.clone()));
    let job = received.recv().await.unwrap();
    assert_eq!((job.id, job.data, job.name.as_deref()), (id("repeat:s"), Sum { a: 1, b: 2 }, Some("sum")));
    assert_eq!((job.attempt, job.priority), (1, 7));
    shutdown.cancel();
    running.await.unwrap();
    assert_eq!(queue.untyped().count_schedulers().await.unwrap(), 0, "it has had its job");
}
