//! Groups: a window for each, so that a large one holds up nobody; exact as concurrency; and nothing parked is forgotten.

use std::{
    collections::{BTreeMap, HashMap},
    env,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use feedmill::{
    job::{JobId, Outcome},
    queue::{
        Queue, QueueOptions, Settled,
        claim::ClaimLimits,
        enqueue::{Enqueued, NewJob},
        find::State,
        limits::{Limits, Rate, SetBy},
        read::Lease,
        settle::BackOff,
    },
    worker::WorkerOptions,
};
use redis::AsyncCommands;

use crate::support::{
    audit::assert_sound,
    jobs::{
        PAYLOAD_MAX, add, add_prioritized, add_to_group, as_another_process, connection, done, id, new_job,
        queue_at_with, queue_with, read, window,
    },
    servers::on_each_redis,
    wait::until,
    workers::{Running, batches, each, options},
};

const DEADLINE: Duration = Duration::from_mins(1);
const WORKERS: usize = 4;

/// Jobs of the large source, unless `FEEDMILL_GROUP_JOBS` says how many.
const LARGE: usize = 20_000;

fn group_rate(max: u64, duration: Duration) -> Limits {
    Limits { group_rate: Some(Rate { max, duration }), ..Limits::default() }
}

async fn ids(queue: &Queue, count: usize) -> Vec<JobId> {
    read(&mut queue.reader("worker"), count).await.into_iter().map(|delivery| delivery.job.id).collect()
}

async fn leases(queue: &Queue, count: usize) -> Vec<Lease> {
    read(&mut queue.reader("worker"), count).await.into_iter().map(|delivery| delivery.lease).collect()
}

async fn settle(queue: &Queue, leases: Vec<Lease>) {
    let n = leases.len();
    let settled = done(queue, leases.into_iter().map(|lease| (lease, None))).await.unwrap();
    assert_eq!(settled, vec![Settled::Settled; n]);
}

/// Reads and ends everything there is, a few jobs at a time; returns it in the order in which it was read.
async fn work_off(queue: &Queue, at_a_time: usize) -> Vec<JobId> {
    let mut order = Vec::new();
    loop {
        let held = leases(queue, at_a_time).await;
        if held.is_empty() {
            return order;
        }
        order.extend(held.iter().map(|lease| lease.id.clone()));
        settle(queue, held).await;
        assert_sound(queue).await;
    }
}

/// Workers on connections of their own, which count what they end by the first part of its name.
async fn counting(queue: &Queue, options: &WorkerOptions) -> (Vec<Running>, Arc<Mutex<HashMap<String, usize>>>) {
    let ended: Arc<Mutex<HashMap<String, usize>>> = Arc::default();
    let mut workers = Vec::new();
    for _ in 0..WORKERS {
        let ended = ended.clone();
        let own = as_another_process(queue, window(500)).await;
        workers.push(batches(&own, options.clone(), move |jobs| {
            let mut ended = ended.lock().unwrap();
            for delivery in &jobs {
                let name = delivery.job.id.to_string();
                *ended.entry(name.split('-').next().unwrap().to_owned()).or_default() += 1;
            }
            async move {
                // So long that the time is that of the work, and not of whatever else this machine does.
                tokio::time::sleep(Duration::from_millis(20)).await;
                Ok(vec![Outcome::Done; jobs.len()])
            }
        }));
    }
    (workers, ended)
}

// ── fair ────────────────────────────────────────────────────────────────────────────────────────────────────────────────

/// A source with many items and, behind it, fifty with a hundred each: these are through almost as soon as without it.
#[tokio::test(flavor = "multi_thread")]
async fn a_large_source_holds_up_fifty_small_ones_by_less_than_half() {
    const SOURCES: usize = 50;
    const ITEMS: usize = 100;
    let large = env::var("FEEDMILL_GROUP_JOBS").map_or(LARGE, |jobs| jobs.parse().unwrap());
    let options = WorkerOptions { concurrency: 2, batch_size: 25, ..options() };
    let mut took = Vec::new();
    for large in [0, large] {
        let queue = queue_with(window(500)).await;
        add_to_group(&queue, "large", large).await;
        for source in 0..SOURCES {
            add_to_group(&queue, &format!("small{source}"), ITEMS).await;
        }
        queue.pause().await.unwrap();
        let (workers, ended) = counting(&queue, &options).await;
        until(DEADLINE, async || queue.counts().await.unwrap().consumers_alive == WORKERS as u64).await;
        let began = Instant::now();
        queue.resume().await.unwrap();
        until(DEADLINE, async || {
            let ended = ended.lock().unwrap();
            ended.iter().filter(|(name, _)| name.starts_with("small")).map(|(_, n)| n).sum::<usize>() == SOURCES * ITEMS
        })
        .await;
        took.push(began.elapsed());
        until(DEADLINE, async || queue.counts().await.unwrap().is_idle()).await;
        for worker in workers {
            worker.stop().await;
        }
        assert_eq!(ended.lock().unwrap().get("large").copied().unwrap_or(0), large);
        assert_sound(&queue).await;
    }
    let ratio = took[1].as_secs_f64() / took[0].as_secs_f64();
    assert!(ratio <= 1.5, "alone and beside {large} jobs of one source: {ratio:.2} times as long, {took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_jobs_of_a_group_run_at_once_than_its_window_has_room_for() {
    const GROUPS: usize = 5;
    const JOBS: usize = 60;
    let queue = queue_with(window(2)).await;
    for group in 0..GROUPS {
        add_to_group(&queue, &format!("group{group}"), JOBS).await;
    }
    add_prioritized(&queue, "urgent-0", 1).await;
    let running: Arc<Mutex<HashMap<String, (usize, usize)>>> = Arc::default();
    let failed_once: Arc<Mutex<Vec<JobId>>> = Arc::default();
    let ended = Arc::new(AtomicUsize::new(0));
    let mut workers = Vec::new();
    for _ in 0..WORKERS {
        let (running, ended, failed_once) = (running.clone(), ended.clone(), failed_once.clone());
        let own = as_another_process(&queue, window(2)).await;
        workers.push(each(&own, options(), move |delivery| {
            let group = delivery.job.id.to_string().split('-').next().unwrap().to_owned();
            {
                let mut running = running.lock().unwrap();
                let (now, most) = running.entry(group.clone()).or_default();
                *now += 1;
                *most = (*most).max(*now);
            }
            let (running, ended, failed_once) = (running.clone(), ended.clone(), failed_once.clone());
            async move {
                tokio::time::sleep(Duration::from_millis(2)).await;
                running.lock().unwrap().get_mut(&group).unwrap().0 -= 1;
                // Every tenth fails once: it goes round by way of backoff.
                let fails = delivery.job.id.to_string().ends_with('7') && delivery.job.attempt() == 1;
                if fails {
                    failed_once.lock().unwrap().push(delivery.job.id.clone());
                    return Ok(Outcome::Retry("once".to_owned()));
                }
                ended.fetch_add(1, SeqCst);
                Ok(Outcome::Done)
            }
        }));
    }
    until(DEADLINE, async || ended.load(SeqCst) == GROUPS * JOBS + 1).await;
    until(DEADLINE, async || queue.counts().await.unwrap().is_idle()).await;
    for worker in workers {
        worker.stop().await;
    }
    assert_eq!(failed_once.lock().unwrap().len(), GROUPS * JOBS / 10);
    for (group, (now, most)) in running.lock().unwrap().iter() {
        assert_eq!(*now, 0, "{group}");
        assert!(*most <= 2, "{most} of {group} at once");
    }
    assert!(running.lock().unwrap().values().any(|(_, most)| *most == 2), "and as many as may");
    assert_sound(&queue).await;
}

// ── rate of a group ─────────────────────────────────────────────────────────────────────────────────────────────────────

async fn each_group_starts_as_many_jobs_in_a_window_as_it_may(url: &str) {
    let queue = queue_at_with(url, window(10)).await;
    let hour = Duration::from_hours(1);
    assert!(queue.set_limits(group_rate(3, hour), SetBy::Operator).await.unwrap());
    let (a, b) = (add_to_group(&queue, "a", 30).await, add_to_group(&queue, "b", 2).await);
    add(&queue, "of-no-group").await;
    let urgent = id("a-urgent");
    queue.add(&[NewJob { group: Some("a"), priority: 1, ..new_job(&urgent) }], PAYLOAD_MAX).await.unwrap();
    // The one with a priority found no room: it is the first to come out, but a's rate is used up by then.
    let read = work_off(&queue, 4).await;
    assert_eq!(read, [&a[..3], &b[..], &[id("of-no-group")]].concat());
    let counts = queue.counts().await.unwrap();
    assert_eq!(
        (counts.waiting, counts.parked, counts.prioritized, counts.delayed),
        (28, 28, 0, 0),
        "parked, not sent round"
    );
    let state = queue.limits().await.unwrap();
    assert_eq!((state.held_groups, state.limits), (1, group_rate(3, hour)));
    assert_eq!(queue.promote().await.unwrap().moved, 0, "it is too early");

    // The window ends; as many come out as may start in the next one, those with a priority first.
    assert!(queue.hold_up_group("a", Duration::ZERO).await.unwrap());
    let mut redis = connection(&queue).await;
    redis.del::<_, ()>(format!("{}a", queue.keys().group_limiter_prefix())).await.unwrap();
    assert_eq!(work_off(&queue, 2).await, [&[urgent], &a[3..5]].concat());
    assert_eq!(queue.counts().await.unwrap().waiting, 25);

    // Without the limit everything comes out.
    assert!(queue.set_limits(Limits::default(), SetBy::Operator).await.unwrap());
    assert!(queue.hold_up_group("a", Duration::ZERO).await.unwrap());
    assert!(!queue.hold_up_group("a", Duration::ZERO).await.unwrap(), "it is not held up any more");
    let mut rest = work_off(&queue, 4).await;
    rest.sort_by_key(|job| job.to_string()[2..].parse::<usize>().unwrap());
    assert_eq!(rest, a[5..]);
    let gate: Option<String> = redis.hget(queue.keys().meta(), "gate").await.unwrap();
    assert_eq!(gate, None, "plain reads again");
    assert_sound(&queue).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_start_no_more_of_a_group_in_a_window_than_its_rate_and_finish_all() {
    const JOBS: usize = 40;
    let duration = Duration::from_millis(200);
    let queue = queue_with(window(20)).await;
    for group in ["a", "b"] {
        add_to_group(&queue, group, JOBS).await;
    }
    let starts: Arc<Mutex<BTreeMap<String, Vec<Instant>>>> = Arc::default();
    let mut workers = Vec::new();
    for _ in 0..WORKERS {
        let starts = starts.clone();
        let own = as_another_process(&queue, window(20)).await;
        workers.push(each(&own, WorkerOptions { limits: group_rate(5, duration), ..options() }, move |delivery| {
            let group = delivery.job.id.to_string()[..1].to_owned();
            starts.lock().unwrap().entry(group).or_default().push(Instant::now());
            async { Ok(Outcome::Done) }
        }));
    }
    let began = Instant::now();
    until(DEADLINE, async || queue.counts().await.unwrap().is_idle()).await;
    let took = began.elapsed();
    for worker in workers {
        worker.stop().await;
    }
    for (group, starts) in starts.lock().unwrap().iter() {
        assert_eq!(starts.len(), JOBS, "{group}");
        // Two windows of 5 may lie next to each other.
        let crowded = starts.windows(11).find(|some| some[10] - some[0] < duration / 2);
        assert!(crowded.is_none(), "{group}: more than two windows' worth within half of one");
    }
    // Eight windows; those who wait are released in time and not at some later look.
    assert!(took >= duration * 6 && took < duration * 25, "{took:?}");
    assert_eq!(queue.limits().await.unwrap().held_groups.min(2), queue.limits().await.unwrap().held_groups);
    assert_sound(&queue).await;
}

async fn a_group_is_held_up_while_the_others_go_on(url: &str) {
    let queue = queue_at_with(url, window(4)).await;
    let (a, b) = (add_to_group(&queue, "a", 6).await, add_to_group(&queue, "b", 6).await);
    assert!(queue.hold_up_group("a", Duration::from_hours(1)).await.unwrap());
    assert_eq!(work_off(&queue, 3).await, b);
    assert_eq!(queue.find(&a[0]).await.unwrap().unwrap().state, State::Waiting);
    assert_eq!(queue.limits().await.unwrap().held_groups, 1);
    let later = add_to_group(&queue, "later", 1).await;
    let again = id("a-later");
    queue.add(&[NewJob { group: Some("a"), ..new_job(&again) }], PAYLOAD_MAX).await.unwrap();
    assert_eq!(work_off(&queue, 3).await, later);
    // Held up once more, for a moment only: it counts from now.
    assert!(queue.hold_up_group("a", Duration::from_millis(20)).await.unwrap());
    until(DEADLINE, async || queue.promote().await.unwrap().moved > 0).await;
    assert_eq!(work_off(&queue, 3).await, [&a[..], &[again]].concat(), "in their order");
    assert_eq!(queue.limits().await.unwrap().held_groups, 0);
    assert_sound(&queue).await;
}

// ── nothing parked is forgotten ─────────────────────────────────────────────────────────────────────────────────────────

async fn processes_that_disagree_about_the_window_lose_and_strand_nothing(url: &str) {
    let wide = queue_at_with(url, window(50)).await;
    let narrow = as_another_process(&wide, window(2)).await;
    let none = as_another_process(&wide, QueueOptions::default()).await;
    // Whoever adds, and whoever ends the jobs: all of them come out in the end.
    for (round, (adds, ends)) in
        [(&narrow, &none), (&none, &narrow), (&narrow, &wide), (&wide, &narrow), (&wide, &none)].into_iter().enumerate()
    {
        for group in ["a", "b", "c"] {
            add_to_group(adds, &format!("{group}{round}"), 300).await;
        }
        assert_sound(&wide).await;
        let mut ended = work_off_by(&wide, ends, 7).await;
        ended.sort();
        ended.dedup();
        assert_eq!(ended.len(), 900, "round {round}");
        assert_eq!(wide.counts().await.unwrap().parked, 0, "round {round}");
        assert_sound(&wide).await;
    }
    // Taking turns while jobs are added.
    let mut ended = 0;
    for turn in 0..60 {
        add_to_group([&wide, &narrow, &none][turn % 3], &format!("turn{}-{turn}", turn % 4), 10).await;
        let held = leases(&wide, 8).await;
        ended += held.len();
        settle([&none, &wide, &narrow][turn / 2 % 3], held).await;
        assert_sound(&wide).await;
    }
    ended += work_off_by(&wide, &narrow, 40).await.len();
    assert_eq!(ended, 600);
    assert_sound(&wide).await;
}

async fn work_off_by(reads: &Queue, ends: &Queue, at_a_time: usize) -> Vec<JobId> {
    let mut order = Vec::new();
    loop {
        let held = leases(reads, at_a_time).await;
        if held.is_empty() {
            return order;
        }
        order.extend(held.iter().map(|lease| lease.id.clone()));
        settle(ends, held).await;
    }
}

#[tokio::test]
async fn a_call_that_ends_jobs_of_many_groups_lets_in_the_next_of_each() {
    let queue = queue_with(window(1)).await;
    let without = as_another_process(&queue, QueueOptions::default()).await;
    for group in 0..256 {
        add_to_group(&queue, &format!("group{group}"), 4).await;
    }
    // Where the window is off, the first of them could take all the room that one call fills.
    for by in [&without, &queue, &without] {
        let held = leases(&queue, 256).await;
        assert_eq!(held.len(), 256);
        settle(by, held).await;
        assert_sound(&queue).await;
    }
    work_off(&queue, 256).await;
    assert!(queue.counts().await.unwrap().is_idle());
}

#[tokio::test]
async fn what_one_call_parks_keeps_its_order_and_knows_what_it_has_parked() {
    let queue = queue_with(window(2)).await;
    let in_group = |name: &str, group: &'static str| NewJob { group: Some(group), ..new_job(&id(name)) };
    let taken = queue.keys().job(&id("taken"));
    let () = connection(&queue).await.rpush(&taken, "a list").await.unwrap();
    let added = queue
        .add(
            &[
                in_group("a-0", "a"),
                in_group("a-1", "a"),
                in_group("a-2", "a"),
                in_group("b-0", "b"),
                in_group("a-2", "a"),
                in_group("a-3", "a"),
                in_group("b-1", "b"),
                in_group("b-2", "b"),
                in_group("taken", "a"),
                NewJob { priority: 1, ..in_group("a-first", "a") },
                in_group("a-4", "a"),
                in_group("b-3", "b"),
                in_group("a-5", "a"),
            ],
            PAYLOAD_MAX,
        )
        .await
        .unwrap();
    for (at, added) in added.iter().enumerate() {
        match at {
            4 => assert_eq!(*added, Enqueued::Duplicate),
            8 => assert!(matches!(added, Enqueued::Refused(reason) if reason.contains("WRONGTYPE")), "{added:?}"),
            _ => assert_eq!(*added, Enqueued::Enqueued, "{at}"),
        }
    }
    let () = connection(&queue).await.del(&taken).await.unwrap();
    assert_sound(&queue).await;
    let order = work_off(&queue, 2).await;
    let of_group = |group: &str| {
        let jobs = order.iter().map(ToString::to_string).filter(|job| job.starts_with(group));
        jobs.collect::<Vec<_>>()
    };
    assert_eq!(of_group("a"), ["a-0", "a-1", "a-first", "a-2", "a-3", "a-4", "a-5"]);
    assert_eq!(of_group("b"), ["b-0", "b-1", "b-2", "b-3"]);
}

#[tokio::test]
async fn parked_jobs_that_are_lost_are_dead_letters_and_strand_nobody() {
    const LOST: usize = 700;
    let queue = queue_with(window(1)).await;
    let jobs = add_to_group(&queue, "a", LOST + 3).await;
    let mut redis = connection(&queue).await;
    for job in &jobs[1..=LOST] {
        redis.del::<_, ()>(queue.keys().job(job)).await.unwrap();
    }
    let first = leases(&queue, 5).await;
    assert_eq!(first.iter().map(|lease| &lease.id).collect::<Vec<_>>(), [&jobs[0]]);
    // So many are lost that one call does not find the next one: whoever promotes goes on.
    settle(&queue, first).await;
    assert!(ids(&queue, 5).await.is_empty());
    while queue.promote().await.unwrap().next_due_in.is_some() {}
    assert_eq!(work_off(&queue, 5).await, jobs[LOST + 1..]);
    let counts = queue.counts().await.unwrap();
    assert_eq!((counts.failed, counts.parked), (LOST as u64, 0));
    let letter = queue.dead_letters(None, 1).await.unwrap().remove(0);
    assert_eq!((letter.id, letter.reason.as_str()), (Some(jobs[1].clone()), "payload lost"));
    assert_eq!(counts.totals["losses"], 1, "one of a burst");
    assert_sound(&queue).await;
}

#[tokio::test]
async fn a_job_that_comes_back_finds_its_room_or_waits_in_front_of_what_came_later() {
    let queue = queue_with(window(2)).await;
    let jobs = add_to_group(&queue, "a", 5).await;
    let held = leases(&queue, 2).await;
    // In backoff it holds no room: the next one comes in.
    let back_off = BackOff { lease: held[0].clone(), wait: Duration::ZERO, reason: Some("no".to_owned()) };
    queue.back_off(&[back_off]).await.unwrap();
    let next = leases(&queue, 5).await;
    assert_eq!(next.iter().map(|lease| &lease.id).collect::<Vec<_>>(), [&jobs[2]]);
    assert_eq!(queue.promote().await.unwrap().moved, 1);
    assert_eq!(queue.counts().await.unwrap().parked, 3, "there is no room for it now");
    assert_sound(&queue).await;
    settle(&queue, [held[1].clone(), next[0].clone()].to_vec()).await;
    assert_eq!(ids(&queue, 5).await, [jobs[0].clone(), jobs[3].clone()]);
    assert_sound(&queue).await;
}

#[tokio::test]
async fn a_stalled_job_keeps_its_room() {
    let queue = queue_with(window(1)).await;
    let jobs = add_to_group(&queue, "a", 3).await;
    assert_eq!(ids(&queue, 5).await, jobs[..1]);
    let limits =
        ClaimLimits { lock_duration: Duration::ZERO, stalled_interval: Duration::from_millis(1), max_stalled_count: 1 };
    let mut sweeper = queue.sweeper("sweeper", limits);
    until(DEADLINE, async || sweeper.sweep().await.unwrap().waiting == 1).await;
    assert_sound(&queue).await;
    assert_eq!(ids(&queue, 5).await, jobs[..1], "and not the next one");
    until(DEADLINE, async || sweeper.sweep().await.unwrap().buried == 1).await;
    assert_sound(&queue).await;
    assert_eq!(work_off(&queue, 5).await, jobs[1..]);
}

on_each_redis! {
    each_group_starts_as_many_jobs_in_a_window_as_it_may,
    a_group_is_held_up_while_the_others_go_on,
    processes_that_disagree_about_the_window_lose_and_strand_nothing,
}
