//! SIGTERM, and a terminal that is closed: a worker finishes or gives back what it holds, in time, and no job pays for
//! it.

use std::{fs::File, process::Stdio, time::Duration};

use feedmill::{job::Head, pipeline::Queues, queue::Queue};
use redis::AsyncCommands;
use rustix::process::{Pid, Signal, kill_process};

use crate::support::{
    eventually::eventually,
    feed_server::{FeedServer, Page, small_items},
    process::{Mill, PATIENCE, redis_connection},
    servers::{OwnMongod, OwnRedis},
    terminal::Terminal,
};

const ITEMS: u64 = 10_000;

/// Far below shutdown_timeout, and enough for a process to end on a loaded machine.
const AT_ONCE: Duration = Duration::from_secs(5);

fn large_import(mill: &mut Mill, server: &FeedServer) {
    server.put("/large", Page::generated(small_items(ITEMS as usize, 1)));
    mill.feed("large", &server.url("/large"), Some("large"));
    mill.set("stream.job_import_queue.concurrency", 4);
    mill.set("stream.job_import_queue.batch_size", 50);
}

async fn in_the_middle(mill: &Mill) {
    let documents = mill.documents().await;
    eventually("a part of the documents", PATIENCE, async || {
        (documents.estimated_document_count().await.unwrap() > 1000).then_some(())
    })
    .await;
}

/// Waits until the worker holds jobs; while MongoDB is frozen it keeps them.
async fn holds_jobs(queues: &Queues) {
    eventually("the worker holds jobs", PATIENCE, async || {
        (queues.import.counts().await.unwrap().active > 0).then_some(())
    })
    .await;
}

/// Nothing is held, no consumer is left, and no job has paid for it.
async fn assert_all_given_back(queues: &Queues) {
    for queue in [&queues.import, &queues.fetch] {
        let counts = queue.counts().await.unwrap();
        assert_eq!((counts.active, counts.delayed, counts.failed), (0, 0, 0), "{counts:?}");
        assert!(!["retried", "failed", "stalled"].iter().any(|total| counts.totals.contains_key(*total)), "{counts:?}");
        assert_eq!(queue.live_consumers().await.unwrap(), Vec::<String>::new());
        for head in heads(queue).await {
            assert_eq!((head.attempts, head.stalls), (0, 0), "{head:?}");
        }
    }
    assert!(queues.import.counts().await.unwrap().waiting > 0, "there is something left to do");
}

/// The heads of all jobs of a queue.
async fn heads(queue: &Queue) -> Vec<Head> {
    let mut redis = redis_connection(queue.redis().address()).await;
    let guards: Vec<String> = {
        let mut scan = redis.scan_match(format!("{}*", queue.keys().job_prefix())).await.unwrap();
        let mut found = Vec::new();
        while let Some(key) = scan.next_item().await {
            found.push(key.unwrap());
        }
        found
    };
    let mut heads = Vec::new();
    for guards in guards.chunks(1000) {
        let values: Vec<Vec<u8>> = redis.mget(guards).await.unwrap();
        heads.extend(values.iter().map(|value| Head::decode(value).unwrap()));
    }
    heads
}

#[tokio::test]
async fn a_worker_that_is_told_to_end_leaves_nothing_pending_and_another_one_finishes() {
    let (server, mut mill) = (FeedServer::start(), Mill::new());
    large_import(&mut mill, &server);
    let mut worker = mill.worker().await;
    let queues = mill.queues().await;
    mill.fetch(&["large"]).await;
    in_the_middle(&mill).await;
    worker.term();
    let (status, took) = worker.wait(PATIENCE).await;
    assert_eq!(status.code(), Some(0));
    assert!(took < Duration::from_secs(10), "within shutdown_timeout: {took:?}");
    assert_all_given_back(&queues).await;

    let _other = mill.worker().await;
    mill.through(&queues).await;
    mill.assert_clean(&queues, ITEMS).await;
    let record = &mill.records().await[0];
    assert_eq!([record.new, record.inserted], [ITEMS, ITEMS], "what was written was also settled");
}

#[tokio::test]
async fn a_worker_that_cannot_finish_gives_everything_back_at_shutdown_timeout() {
    let (server, mongod) = (FeedServer::start(), OwnMongod::start());
    let mut mill = Mill::on_mongod(&mongod);
    large_import(&mut mill, &server);
    for queue in ["job_import_queue", "feed_fetch_queue"] {
        mill.set(&format!("stream.{queue}.shutdown_timeout"), "3s");
    }
    let mut worker = mill.worker().await;
    let queues = mill.queues().await;
    mill.fetch(&["large"]).await;
    in_the_middle(&mill).await;
    mongod.stop();
    holds_jobs(&queues).await;
    worker.term();
    let (status, took) = worker.wait(PATIENCE).await;
    assert_eq!(status.code(), Some(0));
    let timeout = Duration::from_secs(3);
    assert!(
        took >= timeout.checked_sub(Duration::from_millis(500)).unwrap() && took < timeout + AT_ONCE,
        "at shutdown_timeout: {took:?}"
    );
    assert_all_given_back(&queues).await;

    mongod.cont();
    let _other = mill.worker().await;
    mill.through(&queues).await;
    mill.assert_clean(&queues, ITEMS).await;
}

#[tokio::test]
async fn a_second_signal_ends_a_worker_at_once() {
    let (server, mongod) = (FeedServer::start(), OwnMongod::start());
    let mut mill = Mill::on_mongod(&mongod);
    large_import(&mut mill, &server);
    let mut worker = mill.worker().await;
    let queues = mill.queues().await;
    mill.fetch(&["large"]).await;
    in_the_middle(&mill).await;
    mongod.stop();
    holds_jobs(&queues).await;
    worker.term();
    eventually("the first signal is heard", PATIENCE, async || {
        worker.stderr().contains("a second signal").then_some(())
    })
    .await;
    worker.term();
    let (status, took) = worker.wait(PATIENCE).await;
    assert_eq!(status.code(), Some(130));
    assert!(took < AT_ONCE, "{took:?}");
    assert!(queues.import.counts().await.unwrap().active > 0, "what it held is claimed later");

    mongod.cont();
    let _other = mill.worker().await;
    mill.through(&queues).await;
    mill.assert_clean(&queues, ITEMS).await;
}

#[tokio::test]
async fn an_idle_worker_ends_at_once() {
    let mill = Mill::new();
    let mut worker = mill.worker().await;
    worker.term();
    let (status, took) = worker.wait(PATIENCE).await;
    assert_eq!(status.code(), Some(0));
    assert!(took < AT_ONCE, "{took:?}");
    assert!(mill.queues().await.import.live_consumers().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_worker_ends_in_time_though_redis_is_frozen() {
    let redis = OwnRedis::start(&[]);
    let mut mill = Mill::on_redis(&redis);
    for queue in ["job_import_queue", "feed_fetch_queue"] {
        mill.set(&format!("stream.{queue}.shutdown_timeout"), "1s");
    }
    let mut worker = mill.worker().await;
    redis.stop();
    worker.term();
    let (status, took) = worker.wait(PATIENCE).await;
    redis.cont();
    assert!(status.success(), "{status}");
    // shutdown_timeout, and a little for a Redis that might still answer
    assert!(took < Duration::from_secs(1) + AT_ONCE, "{took:?}");
}

// ── the terminal goes away ─────────────────────────────────────────────────────────────────────────────────────────

/// Waits until the workers of a process turn, and returns their process id.
async fn works(queues: &Queues) -> i32 {
    eventually("both workers turn", PATIENCE, async || {
        let fetching = queues.fetch.live_consumers().await.unwrap();
        let storing = queues.import.live_consumers().await.unwrap();
        let [name] = &fetching[..] else { return None };
        (storing.len() == 1).then(|| name.split(':').nth(1).unwrap().parse().unwrap())
    })
    .await
}

#[tokio::test]
async fn a_worker_whose_terminal_is_closed_ends_as_if_told_to() {
    let (server, mut mill) = (FeedServer::start(), Mill::new());
    large_import(&mut mill, &server);
    let terminal = Terminal::open();
    // Its log is in the terminal, too: what it says at its end cannot be written.
    let words = ["sh", "-c", r#"exec "$@" >&0 2>&0"#, "sh"];
    let mut worker = mill.start_command(terminal.command(&words, &mill.command(&["worker"])));
    let queues = mill.queues().await;
    works(&queues).await;
    mill.fetch(&["large"]).await;
    in_the_middle(&mill).await;
    drop(terminal);
    let (status, _) = worker.wait(PATIENCE).await;
    assert_eq!(status.code(), Some(0));
    assert_all_given_back(&queues).await;
}

#[tokio::test]
async fn sighup_without_the_loss_of_the_terminal_ends_nothing() {
    for args in ["up", "serve", "worker", "schedule"] {
        let (mill, terminal) = (Mill::new(), Terminal::open());
        let mut process = mill.start_command(terminal.command(&[], &mill.command(&[args])));
        eventually("it has started", PATIENCE, async || {
            let log = process.stderr();
            ["starts", "listening"].iter().any(|said| log.contains(said)).then_some(())
        })
        .await;
        for n_read in 1..=2 {
            process.hup();
            eventually("it reads again", PATIENCE, async || {
                (process.stderr().matches("read again").count() == n_read).then_some(())
            })
            .await;
        }
        drop(terminal);
        let (status, _) = process.wait(PATIENCE).await;
        assert_eq!(status.code(), Some(0), "{args}");
        assert!(process.stderr().contains("the terminal was closed"), "{args}");
    }
}

#[tokio::test]
async fn a_worker_ends_with_the_shell_that_it_was_started_from() {
    let (mill, terminal) = (Mill::new(), Terminal::open());
    // The shell owns the terminal, which stays open; the worker is its child.
    let mut shell =
        mill.start_command(terminal.command(&["sh", "-c", r#""$@"; true"#, "sh"], &mill.command(&["worker"])));
    let queues = mill.queues().await;
    let _worker = KilledAtLast(works(&queues).await);
    shell.kill9();
    eventually("the worker ends", PATIENCE, async || {
        queues.import.live_consumers().await.unwrap().is_empty().then_some(())
    })
    .await;
    let log = shell.stderr();
    assert!(log.contains("the terminal was closed") && !log.contains("read again"), "{log}");
}

#[tokio::test]
async fn a_log_that_cannot_be_written_is_no_reason_to_end() {
    let (server, mut mill) = (FeedServer::start(), Mill::new());
    server.put("/a", Page::rss(&[("a", "an item")]));
    mill.feed("a", &server.url("/a"), Some("a"));
    let mut command = mill.command(&["worker"]);
    let full = File::options().write(true).open("/dev/full").unwrap();
    let mut worker = command.stdout(Stdio::null()).stderr(full).spawn().unwrap();
    mill.fetch(&["a"]).await;
    let queues = mill.queues().await;
    mill.through(&queues).await;
    mill.assert_clean(&queues, 1).await;
    kill_process(Pid::from_child(&worker), Signal::TERM).unwrap();
    let status = eventually("it ends", PATIENCE, async || worker.try_wait().unwrap()).await;
    assert_eq!(status.code(), Some(0));
}

/// A process that is not a child of the test: when that fails, it is killed.
struct KilledAtLast(i32);

impl Drop for KilledAtLast {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // One that has ended only gives an error.
            let _ = kill_process(Pid::from_raw(self.0).unwrap(), Signal::KILL);
        }
    }
}

#[tokio::test]
async fn what_was_started_to_outlive_its_terminal_does() {
    let (mill, terminal) = (Mill::new(), Terminal::open());
    let mut worker = mill.start_command(terminal.command(&["nohup"], &mill.command(&["worker"])));
    works(&mill.queues().await).await;
    drop(terminal);
    eventually("it reads again", PATIENCE, async || worker.stderr().contains("read again").then_some(())).await;
    worker.hup();
    eventually("it reads again when asked to", PATIENCE, async || {
        (worker.stderr().matches("read again").count() == 2).then_some(())
    })
    .await;
    worker.term();
    let (status, _) = worker.wait(PATIENCE).await;
    assert_eq!(status.code(), Some(0));
}
