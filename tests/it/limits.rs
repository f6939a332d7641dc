//! Limits: exact over all workers, whatever is paused, lost or changed meanwhile; and no cost where there are none.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicI64, AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use feedmill::{
    job::{EntryId, JobId, Keep, Outcome},
    queue::{
        GROUP, Queue, QueueOptions, Settled,
        enqueue::NewJob,
        limits::{LimitChanges, Limits, Rate, SetBy},
        read::Reader,
        settle::Done,
    },
    worker::WorkerOptions,
};
use redis::{AsyncCommands, Value, aio::MultiplexedConnection, streams::StreamInfoGroupsReply};

use crate::support::{
    audit::assert_sound,
    jobs::{
        PAYLOAD_MAX, add, add_many, add_prioritized, as_another_process, calls, connection, done, id, new_job, queue,
        queue_at, read, wait_until_blocked,
    },
    servers::{OwnRedis, on_each_redis},
    wait::until,
    workers::{Running, batches, each, options},
};

const DEADLINE: Duration = Duration::from_secs(20);
const BLOCK: Duration = Duration::from_secs(5);
const TRIES: usize = 200;
/// Workers of a queue, each with connections of its own.
const WORKERS: usize = 4;
/// How long the rate is watched.
const WATCHED: Duration = Duration::from_secs(20);

fn rate(max: u64, duration: Duration) -> Limits {
    Limits { rate: Some(Rate { max, duration }), ..Limits::default() }
}

fn at_most(concurrency: u64) -> Limits {
    Limits { concurrency: Some(concurrency), ..Limits::default() }
}

/// A limit that holds nothing up, so that only the way of reading differs.
fn generous() -> Limits {
    rate(1_000_000, Duration::from_secs(1))
}

async fn set(queue: &Queue, limits: Limits) {
    assert!(queue.set_limits(limits, SetBy::Operator).await.unwrap());
}

async fn ids(reader: &mut Reader, count: usize) -> Vec<JobId> {
    read(reader, count).await.into_iter().map(|delivery| delivery.job.id).collect()
}

/// Another handle on the queue, with connections of its own.
async fn own(queue: &Queue) -> Queue {
    as_another_process(queue, QueueOptions::default()).await
}

/// When each pending entry of both lanes was delivered (ms), by the clock of Redis.
async fn deliveries(queue: &Queue) -> Vec<u64> {
    let mut redis = connection(queue).await;
    let mut delivered = Vec::new();
    for stream in [queue.keys().stream(), queue.keys().prioritized_active()] {
        let mut command = redis::cmd("XINFO");
        command.arg("STREAM").arg(stream).arg("FULL").arg("COUNT").arg(0);
        let info: Value = command.query_async(&mut redis).await.unwrap();
        for group in elements(&field(&info, "groups")) {
            for entry in elements(&field(&group, "pending")) {
                delivered.push(redis::from_redis_value(elements(&entry)[2].clone()).unwrap());
            }
        }
    }
    delivered.sort_unstable();
    delivered
}

/// The value of a field in a flat list of names and values.
fn field(list: &Value, name: &str) -> Value {
    let wanted = Value::BulkString(name.as_bytes().to_vec());
    elements(list).chunks(2).find(|pair| pair[0] == wanted).map_or(Value::Nil, |pair| pair[1].clone())
}

fn elements(value: &Value) -> Vec<Value> {
    match value {
        Value::Array(elements) => elements.clone(),
        other => panic!("not a list: {other:?}"),
    }
}

/// Starts in each window: the first start after the end of one begins the next.
fn windows(starts: &[u64], duration: Duration) -> Vec<usize> {
    let mut windows: Vec<(u64, usize)> = Vec::new();
    for &start in starts {
        match windows.last_mut() {
            Some((begin, n)) if start - *begin <= duration.as_millis() as u64 => *n += 1,
            _ => windows.push((start, 1)),
        }
    }
    windows.into_iter().map(|(_, n)| n).collect()
}

// ── exact ───────────────────────────────────────────────────────────────────────────────────────────────────────────────

#[tokio::test(flavor = "multi_thread")]
async fn four_workers_start_no_more_than_the_rate_in_any_window() {
    const MAX: usize = 100;
    let window = Duration::from_secs(1);
    let queue = queue().await;
    add_many(&queue, "plain", 3000).await;
    let jobs: Vec<JobId> = (0..1000).map(|n| id(format!("first-{n}"))).collect();
    let jobs: Vec<NewJob<'_>> = jobs.iter().map(|id| NewJob { priority: 5, ..new_job(id) }).collect();
    queue.add(&jobs, PAYLOAD_MAX).await.unwrap();
    set(&queue, rate(MAX as u64, window)).await;

    // The handlers hold what they get, so that Redis still knows at the end when it was delivered. Renewing would change it.
    let starts: Arc<Mutex<Vec<Instant>>> = Arc::default();
    let mut options = WorkerOptions { concurrency: 1000, shutdown_timeout: Duration::ZERO, ..options() };
    options.claim.lock_duration = Duration::from_mins(10);
    options.limits = rate(MAX as u64, window);
    let mut workers = Vec::new();
    for _ in 0..WORKERS {
        let starts = starts.clone();
        workers.push(each(&own(&queue).await, options.clone(), move |_| {
            starts.lock().unwrap().push(Instant::now());
            std::future::pending()
        }));
    }
    tokio::time::sleep(WATCHED).await;
    // What the handlers saw first: all of it is among the deliveries.
    let mut starts = starts.lock().unwrap().clone();
    let delivered = deliveries(&queue).await;
    let in_windows = windows(&delivered, window);
    assert!(in_windows.iter().all(|n| *n <= MAX), "{in_windows:?}");
    let full = in_windows.iter().filter(|n| **n == MAX).count();
    assert!(full >= WATCHED.as_secs() as usize - 2, "as many as may start do: {in_windows:?}");

    // The starts lag behind the deliveries, by less than half a window.
    starts.sort();
    let crowded = starts.windows(2 * MAX + 1).find(|some| some[2 * MAX] - some[0] < window / 2);
    assert!(crowded.is_none(), "more than two windows' worth within one");
    assert!(starts.len() <= MAX * in_windows.len());
    for worker in workers {
        worker.stop().await;
    }
    assert_sound(&queue).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn four_workers_run_no_more_jobs_at_once_than_the_queue_allows_and_lose_no_time() {
    const JOBS: usize = 600;
    let queue = queue().await;
    add_many(&queue, "job", JOBS).await;
    set(&queue, at_most(3)).await;
    let (running, most, ended) =
        (Arc::new(AtomicI64::new(0)), Arc::new(AtomicI64::new(0)), Arc::new(AtomicUsize::new(0)));
    let began = Instant::now();
    let mut workers = Vec::new();
    for _ in 0..WORKERS {
        let (running, most, ended) = (running.clone(), most.clone(), ended.clone());
        let options = WorkerOptions { limits: at_most(3), ..options() };
        workers.push(each(&own(&queue).await, options, move |_| {
            most.fetch_max(running.fetch_add(1, SeqCst) + 1, SeqCst);
            let (running, ended) = (running.clone(), ended.clone());
            async move {
                tokio::time::sleep(Duration::from_millis(5)).await;
                running.fetch_sub(1, SeqCst);
                ended.fetch_add(1, SeqCst);
                Ok(Outcome::Done)
            }
        }));
    }
    until(DEADLINE, async || {
        let active = queue.counts().await.unwrap().active;
        assert!(active <= 3, "{active} are active");
        ended.load(SeqCst) == JOBS
    })
    .await;
    // Three at a time, 5 ms each, is a second. Were a slot filled again only at the next look of an idle worker, it would be
    // minutes.
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    for worker in workers {
        worker.stop().await;
    }
    assert_eq!(most.load(SeqCst), 3, "and as many as may");
    assert_sound(&queue).await;
}

/// What moves when something is delivered: entries pending in both lanes, and how far the group is.
async fn reached(queue: &Queue, redis: &mut MultiplexedConnection) -> (usize, usize, Option<String>, String) {
    let mut groups = Vec::new();
    for stream in [queue.keys().stream(), queue.keys().prioritized_active()] {
        let reply: StreamInfoGroupsReply = redis.xinfo_groups(stream).await.unwrap();
        groups.push(reply.groups.into_iter().find(|group| group.name == GROUP).unwrap());
    }
    let gate: Option<String> = redis.hget(queue.keys().meta(), "gate").await.unwrap();
    (groups[0].pending, groups[1].pending, gate, groups[1].last_delivered_id.clone())
}

async fn nothing_is_delivered_once_pause_of_a_limited_queue_has_returned(url: &str) {
    let queue = queue_at(url).await;
    let mut redis = connection(&queue).await;
    set(&queue, generous()).await;
    let mut reader = queue.reader("worker");
    let unblocker = reader.unblocker();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let reading = tokio::spawn(async move {
        let mut delivered = 0;
        while !stop.is_closed() {
            delivered += reader.read(10, Some(BLOCK)).await.unwrap().entries.len();
        }
        delivered
    });
    for n in 0..TRIES {
        let adding = tokio::spawn({
            let queue = queue.clone();
            async move {
                add(&queue, format!("before-{n}")).await;
                add_prioritized(&queue, format!("first-before-{n}"), 1).await;
            }
        });
        if n % 2 == 0 {
            tokio::task::yield_now().await;
        }
        assert!(queue.pause().await.unwrap());
        let paused = reached(&queue, &mut redis).await;
        assert!(paused.2.is_some(), "the gate is closed");
        add(&queue, format!("during-{n}")).await;
        add_prioritized(&queue, format!("first-during-{n}"), 1).await;
        adding.await.unwrap();
        assert_eq!(reached(&queue, &mut redis).await, paused, "try {n}");
        assert!(queue.resume().await.unwrap());
    }
    until(DEADLINE, async || {
        let counts = queue.counts().await.unwrap();
        counts.waiting + counts.prioritized == 0
    })
    .await;
    drop(stopped);
    while !reading.is_finished() {
        unblocker.unblock().await;
        tokio::task::yield_now().await;
    }
    assert_eq!(reading.await.unwrap(), 4 * TRIES, "and nothing was lost");
    assert_sound(&queue).await;
}

async fn limits_and_pauses_come_and_go_in_any_order(url: &str) {
    let queue = queue_at(url).await;
    let jobs = add_many(&queue, "job", 8).await;
    let mut reader = queue.reader("worker");
    let brings = async |reader: &mut Reader, wanted: &[JobId]| assert_eq!(ids(reader, 1).await, wanted);
    brings(&mut reader, &jobs[..1]).await;
    // paused, then limited, then resumed
    queue.pause().await.unwrap();
    set(&queue, generous()).await;
    brings(&mut reader, &[]).await;
    queue.resume().await.unwrap();
    brings(&mut reader, &jobs[1..2]).await;
    // limited, then paused, then free, then resumed
    queue.pause().await.unwrap();
    set(&queue, Limits::default()).await;
    brings(&mut reader, &[]).await;
    queue.resume().await.unwrap();
    brings(&mut reader, &jobs[2..3]).await;
    // held up, over a pause
    queue.hold_up(Duration::from_hours(1)).await.unwrap();
    brings(&mut reader, &[]).await;
    queue.pause().await.unwrap();
    queue.hold_up(Duration::ZERO).await.unwrap();
    brings(&mut reader, &[]).await;
    queue.resume().await.unwrap();
    brings(&mut reader, &jobs[3..4]).await;
    // each of it twice
    set(&queue, generous()).await;
    set(&queue, generous()).await;
    queue.pause().await.unwrap();
    queue.pause().await.unwrap();
    queue.resume().await.unwrap();
    queue.resume().await.unwrap();
    brings(&mut reader, &jobs[4..5]).await;
    set(&queue, Limits::default()).await;
    set(&queue, Limits::default()).await;
    brings(&mut reader, &jobs[5..6]).await;
    // a hold-up that is over by itself
    queue.hold_up(Duration::from_millis(30)).await.unwrap();
    brings(&mut reader, &[]).await;
    until(DEADLINE, async || ids(&mut reader, 10).await == jobs[6..]).await;
    let mut redis = connection(&queue).await;
    let gate: Option<String> = redis.hget(queue.keys().meta(), "gate").await.unwrap();
    assert_eq!(gate, None, "plain reads again");
    assert_sound(&queue).await;
}

async fn a_rate_counts_every_job_that_is_handed_out(url: &str) {
    let queue = queue_at(url).await;
    add_many(&queue, "plain", 10).await;
    for n in 0..3 {
        add_prioritized(&queue, format!("first-{n}"), 1).await;
    }
    let hour = Duration::from_hours(1);
    set(&queue, rate(7, hour)).await;
    let (mut one, mut other) = (queue.reader("one"), queue.reader("other"));
    assert_eq!(ids(&mut one, 5).await, ["first-0", "first-1", "first-2", "plain-0", "plain-1"].map(id));
    let state = queue.limits().await.unwrap();
    assert_eq!((state.started, state.limits, state.is_by_operator), (5, rate(7, hour), true));
    assert!(state.window_left > hour / 2 && state.window_left <= hour, "{state:?}");
    assert_eq!(ids(&mut other, 5).await, ["plain-2", "plain-3"].map(id));
    let reply = one.read(5, None).await.unwrap();
    assert!(reply.entries.is_empty() && reply.held_up);
    // more may start from now on, less may not be undone
    set(&queue, rate(8, hour)).await;
    assert_eq!(ids(&mut one, 5).await, [id("plain-4")]);
    set(&queue, rate(2, hour)).await;
    assert_eq!(ids(&mut one, 5).await, []);
    // a shorter window ends in time
    set(&queue, rate(2, Duration::from_millis(50))).await;
    until(DEADLINE, async || ids(&mut one, 1).await == [id("plain-5")]).await;
    assert_sound(&queue).await;
}

async fn a_limiter_that_was_tampered_with_goes_on(url: &str) {
    let queue = queue_at(url).await;
    let mut redis = connection(&queue).await;
    add_many(&queue, "job", 100).await;
    set(&queue, rate(2, Duration::from_millis(100))).await;
    let mut reader = queue.reader("worker");
    let key = queue.keys().limiter();
    for tamper in ["no end", "an end far off, as when the clock was set back", "another type", "no number"] {
        until(DEADLINE, async || ids(&mut reader, 5).await.len() == 2).await;
        match tamper {
            "no end" => redis.persist::<_, ()>(key).await.unwrap(),
            "another type" => {
                redis.del::<_, ()>(key).await.unwrap();
                redis.rpush::<_, _, ()>(key, "x").await.unwrap();
            }
            "no number" => redis.set::<_, _, ()>(key, "x").await.unwrap(),
            _ => redis.pexpire::<_, ()>(key, 3_600_000).await.unwrap(),
        }
        let at = Instant::now();
        until(DEADLINE, async || !ids(&mut reader, 1).await.is_empty()).await;
        assert!(at.elapsed() < Duration::from_secs(5), "{tamper}: {:?}", at.elapsed());
    }
    assert_sound(&queue).await;
}

async fn a_limited_queue_outlives_the_loss_of_its_stream_and_groups(url: &str) {
    let queue = queue_at(url).await;
    let mut redis = connection(&queue).await;
    let mut reader = queue.reader("worker");
    for (limits, name) in [(generous(), "rate"), (at_most(100), "concurrency"), (Limits::default(), "none")] {
        set(&queue, limits).await;
        for (n, lost) in ["DEL", "XGROUP"].iter().enumerate() {
            let (plain, first) = (format!("{name}-{n}"), format!("first-{name}-{n}"));
            for stream in [queue.keys().stream(), queue.keys().prioritized_active(), queue.keys().wake()] {
                match *lost {
                    "DEL" => redis.del::<_, ()>(stream).await.unwrap(),
                    _ => redis.xgroup_destroy::<_, _, ()>(stream, GROUP).await.unwrap(),
                }
            }
            add(&queue, &plain).await;
            add_prioritized(&queue, &first, 1).await;
            let mut brought = Vec::new();
            until(DEADLINE, async || {
                brought.extend(ids(&mut reader, 10).await);
                brought.len() >= 2
            })
            .await;
            assert_eq!(brought, [id(&first), id(&plain)], "{name} {lost}");
            let taken: Vec<JobId> = brought;
            settle_all(&queue, &taken).await;
            assert_sound(&queue).await;
        }
    }
}

/// Ends jobs that this test has read, whoever holds them.
async fn settle_all(queue: &Queue, jobs: &[JobId]) {
    for job in jobs {
        let head = queue.find(job).await.unwrap().unwrap().job.head;
        let entry: EntryId = head.entry.unwrap();
        let lease = feedmill::queue::read::Lease { id: job.clone(), lane: head.place, entry, version: head.version };
        assert_eq!(queue.done(&[Done::new(lease)], Keep::Nothing).await.unwrap(), [Settled::Settled]);
    }
}

async fn active_prioritized_jobs_are_delivered_again_when_their_group_was_lost(url: &str) {
    let queue = queue_at(url).await;
    let mut redis = connection(&queue).await;
    for n in 0..3 {
        add_prioritized(&queue, format!("job-{n}"), 1).await;
    }
    assert_eq!(ids(&mut queue.reader("gone"), 2).await.len(), 2);
    redis.xgroup_destroy::<_, _, ()>(queue.keys().prioritized_active(), GROUP).await.unwrap();
    queue.ensure_group().await.unwrap();
    // first what was in hand, and in the order that was promised
    let mut reader = queue.reader("worker");
    assert_eq!(ids(&mut reader, 1).await, [id("job-0")]);
    assert_eq!(ids(&mut reader, 5).await, ["job-1", "job-2"].map(id));
    assert_sound(&queue).await;
}

async fn a_gate_that_nobody_remembers_is_opened(url: &str) {
    let queue = queue_at(url).await;
    set(&queue, generous()).await;
    add(&queue, "a").await;
    let mut redis = connection(&queue).await;
    redis.del::<_, ()>(queue.keys().meta()).await.unwrap();
    assert!(ids(&mut queue.reader("before"), 1).await.is_empty(), "the group says that all was delivered");
    let queue = own(&queue).await;
    assert_eq!(ids(&mut queue.reader("worker"), 1).await, [id("a")]);
    assert_sound(&queue).await;
}

on_each_redis! {
    nothing_is_delivered_once_pause_of_a_limited_queue_has_returned,
    limits_and_pauses_come_and_go_in_any_order,
    a_rate_counts_every_job_that_is_handed_out,
    a_limiter_that_was_tampered_with_goes_on,
    a_limited_queue_outlives_the_loss_of_its_stream_and_groups,
    active_prioritized_jobs_are_delivered_again_when_their_group_was_lost,
    a_gate_that_nobody_remembers_is_opened,
    a_job_that_comes_at_any_moment_starts_at_once_on_a_limited_queue,
    a_job_that_comes_while_a_reader_gets_ready_to_wait_is_seen,
    workers_that_wait_learn_of_limits_one_from_the_other,
}

// ── who sets them ───────────────────────────────────────────────────────────────────────────────────────────────────────

#[tokio::test]
async fn an_operators_limits_stay_until_they_are_reset() {
    let queue = queue().await;
    assert!(queue.set_limits(rate(1, BLOCK), SetBy::Config).await.unwrap());
    assert!(!queue.limits().await.unwrap().is_by_operator);
    assert!(queue.set_limits(at_most(9), SetBy::Config).await.unwrap(), "who starts last has the say");
    assert_eq!(queue.limits().await.unwrap().limits, at_most(9));
    let change = LimitChanges { rate: Some(Some(Rate { max: 2, duration: BLOCK })), ..LimitChanges::default() };
    assert!(queue.set_limits(change, SetBy::Operator).await.unwrap());
    let both = Limits { concurrency: Some(9), ..rate(2, BLOCK) };
    assert_eq!(queue.limits().await.unwrap().limits, both, "what is not changed stays");
    assert!(!queue.set_limits(Limits::default(), SetBy::Config).await.unwrap());
    assert_eq!(queue.limits().await.unwrap().limits, both);
    assert!(queue.set_limits(at_most(3), SetBy::Reset).await.unwrap());
    let state = queue.limits().await.unwrap();
    assert_eq!((state.limits, state.is_by_operator), (at_most(3), false));
    queue.hold_up(Duration::from_hours(1)).await.unwrap();
    assert!(queue.set_limits(Limits::default(), SetBy::Config).await.unwrap(), "to hold up sets no limit");
    assert!(queue.limits().await.unwrap().held_up_for > Duration::from_mins(59));
}

// ── waiting ─────────────────────────────────────────────────────────────────────────────────────────────────────────────

/// A worker of a limited queue that notes when each job starts.
fn noting(queue: &Queue, limits: Limits) -> (Running, Arc<Mutex<BTreeMap<JobId, Instant>>>) {
    let starts: Arc<Mutex<BTreeMap<JobId, Instant>>> = Arc::default();
    let worker = each(queue, WorkerOptions { limits, ..options() }, {
        let starts = starts.clone();
        move |delivery| {
            starts.lock().unwrap().insert(delivery.job.id, Instant::now());
            async { Ok(Outcome::Done) }
        }
    });
    (worker, starts)
}

/// A wake-up that is lost shows as a start only when the blocking read ends.
async fn a_job_that_comes_at_any_moment_starts_at_once_on_a_limited_queue(url: &str) {
    let queue = queue_at(url).await;
    let (worker, starts) = noting(&queue, generous());
    for n in 0..120_u64 {
        let (name, added_at) = (format!("{n}"), Instant::now());
        let delay = Duration::from_millis(if n % 3 == 2 { 3 } else { 0 });
        let job = id(&name);
        let job = NewJob { priority: u32::from(n % 3 == 1), delay, ..new_job(&job) };
        queue.add(&[job], PAYLOAD_MAX).await.unwrap();
        until(DEADLINE, async || starts.lock().unwrap().contains_key(&id(&name))).await;
        let took = starts.lock().unwrap()[&id(&name)].saturating_duration_since(added_at);
        assert!(took < Duration::from_secs(2), "job {n} started after {took:?}");
        // from the middle of the worker's round to its rest
        tokio::time::sleep(Duration::from_micros(n * 37 % 1500)).await;
    }
    worker.stop().await;
    assert_sound(&queue).await;
}

/// Between finding nothing and waiting for more a reader makes its connection, the first time: long enough for a job to come.
async fn a_job_that_comes_while_a_reader_gets_ready_to_wait_is_seen(url: &str) {
    let queue = queue_at(url).await;
    set(&queue, generous()).await;
    for n in 0..60_u64 {
        let mut reader = queue.reader(format!("reader-{n}"));
        let reading = tokio::spawn(async move {
            loop {
                let found = reader.read(1, Some(BLOCK)).await.unwrap().entries;
                if !found.is_empty() {
                    return (found, Instant::now());
                }
            }
        });
        // each time a little later on the reader's way
        tokio::time::sleep(Duration::from_micros(n * 60)).await;
        let began = Instant::now();
        add_prioritized(&queue, format!("{n}"), 1).await;
        let (found, at) = reading.await.unwrap();
        assert!(at - began < Duration::from_secs(2), "job {n} after {:?}", at - began);
        assert_eq!(found.len(), 1);
    }
}

async fn workers_that_wait_learn_of_limits_one_from_the_other(url: &str) {
    let queue = queue_at(url).await;
    let running = Arc::new(AtomicUsize::new(0));
    let mut workers = Vec::new();
    for _ in 0..WORKERS {
        let running = running.clone();
        let options = WorkerOptions { concurrency: 1, shutdown_timeout: Duration::ZERO, ..options() };
        workers.push(each(&own(&queue).await, options, move |_| {
            running.fetch_add(1, SeqCst);
            std::future::pending()
        }));
    }
    until(DEADLINE, async || queue.counts().await.unwrap().consumers_alive == WORKERS as u64).await;
    until(DEADLINE, async || blocked_clients(&queue).await >= WORKERS).await;
    set(&queue, generous()).await;
    let began = Instant::now();
    add_many(&queue, "job", WORKERS).await;
    until(DEADLINE, async || running.load(SeqCst) == WORKERS).await;
    // A reader that nobody tells finds out when its read ends, after five seconds.
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    for worker in workers {
        worker.stop().await;
    }
    assert_sound(&queue).await;
}

/// Clients that block on the server, of other tests too.
async fn blocked_clients(queue: &Queue) -> usize {
    let mut redis = connection(queue).await;
    let info: String = redis::cmd("INFO").arg("clients").query_async(&mut redis).await.unwrap();
    let line = info.lines().find_map(|line| line.strip_prefix("blocked_clients:")).unwrap();
    line.trim().parse().unwrap()
}

#[tokio::test]
async fn a_worker_that_is_held_up_waits_quietly_and_ends_at_once() {
    let server = OwnRedis::start(&[]);
    let queue = queue_at(&server.url()).await;
    add_many(&queue, "job", 5).await;
    let hour = Duration::from_hours(1);
    let limits = Limits { concurrency: Some(1), ..rate(2, hour) };
    let (worker, starts) = noting(&queue, limits);
    until(DEADLINE, async || starts.lock().unwrap().len() == 2).await;
    let before = calls(&queue).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let scripts = calls(&queue).await["evalsha"] - before["evalsha"];
    assert!(scripts <= 8, "{scripts} scripts in three seconds");
    let began = Instant::now();
    worker.stop().await;
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    assert_eq!(starts.lock().unwrap().len(), 2);
    assert_sound(&queue).await;
}

#[tokio::test]
async fn a_worker_that_is_held_up_hands_on_what_it_has() {
    let queue = queue().await;
    add_many(&queue, "job", 5).await;
    let sizes: Arc<Mutex<Vec<usize>>> = Arc::default();
    let hour = Duration::from_hours(1);
    let options = WorkerOptions { batch_size: 100, flush: hour, limits: rate(3, hour), ..options() };
    set(&queue, rate(3, hour)).await;
    let worker = batches(&queue, options, {
        let sizes = sizes.clone();
        move |jobs| {
            sizes.lock().unwrap().push(jobs.len());
            async move { Ok(vec![Outcome::Done; jobs.len()]) }
        }
    });
    until(DEADLINE, async || queue.counts().await.unwrap().waiting == 2 && !sizes.lock().unwrap().is_empty()).await;
    worker.stop().await;
    assert_eq!(*sizes.lock().unwrap(), [3], "without waiting for a batch to fill");
    assert_sound(&queue).await;
}

#[tokio::test]
async fn a_worker_in_a_long_window_learns_within_a_second_that_the_limit_is_gone() {
    let queue = queue().await;
    add_many(&queue, "job", 3).await;
    let (worker, starts) = noting(&queue, rate(1, Duration::from_hours(1)));
    until(DEADLINE, async || queue.limits().await.unwrap().started == 1).await;
    let began = Instant::now();
    set(&queue, Limits::default()).await;
    until(DEADLINE, async || starts.lock().unwrap().len() == 3).await;
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    worker.stop().await;
    assert_sound(&queue).await;
}

// ── the cost ────────────────────────────────────────────────────────────────────────────────────────────────────────────

#[tokio::test]
async fn idle_workers_of_limited_queues_send_few_commands() {
    const SPAN: Duration = Duration::from_secs(6);
    let server = OwnRedis::start(&[]);
    let (limited, full) = (queue_at(&server.url()).await, queue_at(&server.url()).await);
    let workers = [noting(&limited, generous()).0, noting(&full, at_most(4)).0];
    until(DEADLINE, async || blocked_clients(&limited).await == 2).await;
    let before: i64 = calls(&limited).await.values().sum();
    tokio::time::sleep(SPAN).await;
    let sent = calls(&limited).await.values().sum::<i64>() - before;
    assert!(sent < 30 * SPAN.as_secs() as i64, "{sent} commands in {SPAN:?}, those within scripts included");
    for worker in workers {
        worker.stop().await;
    }
}

#[tokio::test]
async fn a_queue_without_limits_and_groups_pays_nothing_for_them() {
    const JOBS: i64 = 2560;
    let server = OwnRedis::start(&[]);
    let queue = queue_at(&server.url()).await;
    let mut reader = queue.reader("worker");
    let mut cycle = async |name: &str, jobs: usize| {
        add_many(&queue, name, jobs).await;
        for _ in 0..jobs / 256 {
            let held = read(&mut reader, 256).await;
            let leases = held.into_iter().map(|delivery| (delivery.lease, None));
            assert_eq!(done(&queue, leases).await.unwrap(), [Settled::Settled; 256]);
        }
    };
    cycle("first", 256).await;
    let before = calls(&queue).await;
    cycle("job", JOBS as usize).await;
    let after = calls(&queue).await;
    let called = |name: &str| after.get(name).unwrap_or(&0) - before.get(name).unwrap_or(&0);
    for command in
        ["hget", "hset", "hdel", "hexists", "zpopmin", "zscore", "zcard", "xgroup", "xgroup|setid", "xinfo|groups"]
    {
        assert_eq!(called(command), 0, "{command}");
    }
    // an add and a done of 256 each, and the read between them is no script
    assert_eq!(called("evalsha"), 2 * JOBS / 256);
    assert_eq!(called("xreadgroup"), JOBS / 256);
    let per_call = |command: &str| called(command) as f64 / (2 * JOBS / 256) as f64;
    for command in ["hmget", "hincrby", "time", "zrange"] {
        assert!(per_call(command) <= 4.0, "{command}: {} a call", per_call(command));
    }
}

// ── what a blocked reader is told ───────────────────────────────────────────────────────────────────────────────────────

#[tokio::test]
async fn a_limit_wakes_a_reader_that_blocks_so_that_it_goes_on_under_the_limit() {
    let server = OwnRedis::start(&[]);
    let queue = queue_at(&server.url()).await;
    let mut reader = queue.reader("worker");
    assert!(ids(&mut reader, 1).await.is_empty());
    let reading = tokio::spawn(async move {
        let mut found = Vec::new();
        while found.is_empty() {
            found = reader.read(5, Some(BLOCK)).await.unwrap().entries;
        }
        (found.len(), Instant::now())
    });
    wait_until_blocked(&server).await;
    set(&queue, rate(2, Duration::from_hours(1))).await;
    let began = Instant::now();
    add_many(&queue, "job", 5).await;
    let (found, at) = reading.await.unwrap();
    assert_eq!(found, 2);
    assert!(at - began < Duration::from_secs(2), "{:?}", at - began);
    assert_sound(&queue).await;
}

#[tokio::test]
async fn limits_survive_a_restart_of_redis() {
    let mut server = OwnRedis::start(&["--appendonly", "yes", "--appendfsync", "always"]);
    let before = queue_at(&server.url()).await;
    set(&before, rate(2, Duration::from_hours(1))).await;
    let jobs = add_many(&before, "job", 4).await;
    assert_eq!(ids(&mut before.reader("worker"), 1).await, jobs[..1]);
    server.kill9();
    server.restart();
    let queue = own(&before).await;
    assert_eq!(queue.limits().await.unwrap().started, 1);
    assert_eq!(ids(&mut queue.reader("worker"), 5).await, jobs[1..2]);
    assert_sound(&queue).await;
}
