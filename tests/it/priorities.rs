//! Priorities: an exact order whoever reads, over jobs without one, which are not starved.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant, UNIX_EPOCH},
};

use feedmill::{
    job::{EntryId, JobId, Outcome, Place},
    queue::{
        Queue, QueueOptions,
        claim::ClaimLimits,
        enqueue::{Enqueued, NewJob},
        limits::{Limits, SetBy},
        read::{Delivery, Entry, Reader},
        settle::BackOff,
    },
    worker::WorkerOptions,
};
use redis::AsyncCommands;

use crate::support::{
    audit::assert_sound,
    jobs::{
        PAYLOAD_MAX, add_many, add_prioritized, as_another_process, connection, done, id, new_job, queue, queue_at,
        queue_with, read, window,
    },
    servers::on_each_redis,
    wait::until,
    workers::{each, options},
};

const DEADLINE: Duration = Duration::from_mins(1);
const READERS: usize = 4;
const LEVELS: u32 = 10;

/// Adds jobs `<name>-0` … with priorities 1 to [`LEVELS`] in turn; in calls of 100.
async fn add_levels(queue: &Queue, name: &str, jobs: usize) {
    let ids: Vec<JobId> = (0..jobs).map(|n| id(format!("{name}-{n}"))).collect();
    for (page, ids) in ids.chunks(100).enumerate() {
        let jobs: Vec<NewJob<'_>> = ids
            .iter()
            .enumerate()
            .map(|(n, id)| NewJob { priority: 1 + ((page * 100 + n) * 7) as u32 % LEVELS, ..new_job(id) })
            .collect();
        assert_eq!(queue.add(&jobs, PAYLOAD_MAX).await.unwrap(), vec![Enqueued::Enqueued; ids.len()]);
    }
}

/// Reads with several readers at once until nothing is left and `adding` is over. What they got, in the order in which Redis
/// delivered it.
async fn read_all(queue: &Queue, adding: Arc<AtomicBool>) -> Vec<Delivery> {
    let mut readers = Vec::new();
    for n in 0..READERS {
        let own = as_another_process(queue, QueueOptions::default()).await;
        let adding = adding.clone();
        readers.push(tokio::spawn(async move {
            let mut reader = own.reader(format!("reader-{n}"));
            let mut delivered = Vec::new();
            loop {
                let was_adding = adding.load(SeqCst);
                let found = read(&mut reader, 1 + n * 3).await;
                if found.is_empty() && !was_adding {
                    return delivered;
                }
                let leases: Vec<_> = found.iter().map(|delivery| (delivery.lease.clone(), None)).collect();
                done(&own, leases).await.unwrap();
                delivered.extend(found);
            }
        }));
    }
    let mut delivered = Vec::new();
    for reader in readers {
        delivered.extend(reader.await.unwrap());
    }
    // An entry is made when it is handed out, so entry ids are the order of the hand-outs.
    delivered.sort_by_key(|delivery| delivery.lease.entry);
    delivered
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_jobs_start_exactly_by_priority_and_then_arrival() {
    const JOBS: usize = 10_000;
    let queue = queue().await;
    add_levels(&queue, "job", JOBS).await;
    let delivered = read_all(&queue, Arc::default()).await;
    let order: Vec<(u32, usize)> = delivered
        .iter()
        .map(|delivery| {
            let n = delivery.job.id.to_string()[4..].parse().unwrap();
            (delivery.job.head.priority, n)
        })
        .collect();
    assert_eq!(order.len(), JOBS);
    assert!(order.is_sorted(), "by priority, and within one in the order of the adds");
    assert!(queue.counts().await.unwrap().is_idle());
    assert_sound(&queue).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_that_come_while_others_are_read_start_before_those_with_less_priority() {
    const JOBS: usize = 5000;
    let queue = queue().await;
    add_levels(&queue, "first", JOBS).await;
    let adding = Arc::new(AtomicBool::new(true));
    let adder = tokio::spawn({
        let (queue, adding) = (as_another_process(&queue, QueueOptions::default()).await, adding.clone());
        async move {
            add_levels(&queue, "second", JOBS).await;
            adding.store(false, SeqCst);
        }
    });
    let delivered = read_all(&queue, adding).await;
    adder.await.unwrap();
    assert_eq!(delivered.len(), 2 * JOBS);
    // Whatever was handed out later although it comes first in the order was added later: its version says when.
    let mut added_us: BTreeMap<u32, u64> = BTreeMap::new();
    for Delivery { job, lease, .. } in delivered.iter().rev() {
        let handed_out_us = lease.entry.ms * 1000;
        for (level, earliest) in added_us.range(..job.head.priority) {
            assert!(
                *earliest >= handed_out_us,
                "a job of priority {level} waited when {} of priority {} was handed out",
                job.id,
                job.head.priority
            );
        }
        let earliest = added_us.entry(job.head.priority).or_insert(u64::MAX);
        *earliest = (*earliest).min(job.head.version.0);
    }
    assert_sound(&queue).await;
}

async fn a_priority_goes_before_none_and_comes_back_to_its_place(url: &str) {
    let queue = queue_at(url).await;
    add_many(&queue, "plain", 2).await;
    for (name, priority) in [("low", 2_097_151), ("middle", 5), ("high", 1)] {
        add_prioritized(&queue, name, priority).await;
    }
    let counts = queue.counts().await.unwrap();
    assert_eq!((counts.waiting, counts.prioritized, counts.active), (2, 3, 0));
    let mut reader = queue.reader("worker");
    let held = read(&mut reader, 2).await;
    assert_eq!(held.iter().map(|delivery| &delivery.job.id).collect::<Vec<_>>(), [&id("high"), &id("middle")]);
    assert!(held.iter().all(|delivery| delivery.lease.lane == Place::Prioritized));
    assert_sound(&queue).await;
    // given back, failed and stalled jobs wait by their priority again
    queue.give_back(&[held[0].lease.clone()]).await.unwrap();
    let back_off = BackOff { lease: held[1].lease.clone(), wait: Duration::ZERO, reason: Some("no".to_owned()) };
    queue.back_off(&[back_off]).await.unwrap();
    queue.promote().await.unwrap();
    let held = read(&mut reader, 1).await;
    assert_eq!(held[0].job.id, id("high"));
    let limits =
        ClaimLimits { lock_duration: Duration::ZERO, stalled_interval: Duration::from_millis(1), max_stalled_count: 1 };
    let mut sweeper = queue.sweeper("sweeper", limits);
    until(DEADLINE, async || sweeper.sweep().await.unwrap().waiting == 1).await;
    let order: Vec<JobId> = read(&mut reader, 9).await.into_iter().map(|delivery| delivery.job.id).collect();
    assert_eq!(order, ["high", "middle", "low", "plain-0", "plain-1"].map(id));
    assert_sound(&queue).await;
}

/// One read; jobs with a priority, and entries of plain producers.
async fn read_both(reader: &mut Reader, count: usize) -> (Vec<JobId>, usize) {
    let (mut first, mut plain) = (Vec::new(), 0);
    for entry in reader.read(count, None).await.unwrap().entries {
        match entry {
            Entry::Job(delivery) => first.push(delivery.job.id),
            Entry::Plain(_) => plain += 1,
            Entry::Unreadable(unreadable) => panic!("{unreadable:?}"),
        }
    }
    (first, plain)
}

/// Entries that were added before, as plain producers might. Only in a stream that is empty, since ids only grow.
async fn add_old_entries(queue: &Queue, entries: usize, age: Duration) {
    let mut redis = connection(queue).await;
    let added_at = queue.time().await.unwrap() - age;
    let ms = added_at.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64;
    for seq in 0..entries as u64 {
        let entry = EntryId { ms, seq: seq + 1 }.to_string();
        redis.xadd::<_, _, _, _, ()>(queue.keys().stream(), entry, &[("json", "\"x\"")]).await.unwrap();
    }
}

async fn jobs_without_a_priority_get_every_second_turn_once_they_have_waited_long(url: &str) {
    for limits in [Limits::default(), Limits { concurrency: Some(1_000_000), ..Limits::default() }] {
        let queue = queue_at(url).await;
        add_old_entries(&queue, 40, Duration::from_secs(11)).await;
        queue.set_limits(limits, SetBy::Operator).await.unwrap();
        for n in 0..100 {
            add_prioritized(&queue, format!("first-{n:02}"), 1).await;
        }
        let mut reader = queue.reader("worker");
        let (first, plain) = read_both(&mut reader, 10).await;
        assert_eq!((first.len(), plain), (5, 5), "{limits:?}");
        let mut turns = Vec::new();
        for _ in 0..6 {
            // a reader of its own: it has just come, or was woken
            let (first, plain) = read_both(&mut queue.reader("worker"), 1).await;
            turns.push((first.len(), plain));
        }
        assert!(turns.windows(2).all(|two| two[0] != two[1] && two[0].0 + two[0].1 == 1), "{turns:?}");
        // what the other half cannot use is not wasted
        let mut all = (8, 8);
        for _ in 0..20 {
            let (first, plain) = read_both(&mut reader, 10).await;
            all = (all.0 + first.len(), all.1 + plain);
        }
        assert_eq!(all, (100, 40));
    }
}

#[tokio::test]
async fn young_jobs_without_a_priority_wait_for_those_with_one() {
    let queue = queue().await;
    add_old_entries(&queue, 10, Duration::from_secs(5)).await;
    for n in 0..10 {
        add_prioritized(&queue, format!("first-{n}"), 1).await;
    }
    let mut reader = queue.reader("worker");
    assert_eq!(read_both(&mut reader, 10).await.0.len(), 10);
    assert_eq!(read_both(&mut reader, 10).await.1, 10);
}

#[tokio::test]
async fn a_busy_worker_takes_up_a_job_with_a_priority_soon() {
    let queue = queue().await;
    add_many(&queue, "plain", 2000).await;
    let (before, found) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let worker = each(&queue, WorkerOptions { concurrency: 2, ..options() }, {
        let (before, found) = (before.clone(), found.clone());
        move |delivery| {
            if delivery.job.id == id("urgent") {
                found.store(before.load(SeqCst), SeqCst);
            } else {
                before.fetch_add(1, SeqCst);
            }
            async { Ok(Outcome::Done) }
        }
    });
    until(DEADLINE, async || before.load(SeqCst) > 100).await;
    let seen = before.load(SeqCst);
    add_prioritized(&queue, "urgent", 1).await;
    until(DEADLINE, async || found.load(SeqCst) > 0).await;
    worker.stop().await;
    let overtook = found.load(SeqCst).saturating_sub(seen);
    assert!(overtook < 1500, "{overtook} plain jobs started before it");
    assert_sound(&queue).await;
}

#[tokio::test]
async fn a_prioritized_job_whose_guard_is_gone_is_a_dead_letter() {
    let queue = queue().await;
    for name in ["lost", "odd", "fine"] {
        add_prioritized(&queue, name, 1).await;
    }
    let mut redis = connection(&queue).await;
    redis.del::<_, ()>(queue.keys().job(&id("lost"))).await.unwrap();
    redis.del::<_, ()>(queue.keys().job(&id("odd"))).await.unwrap();
    redis.rpush::<_, _, ()>(queue.keys().job(&id("odd")), "x").await.unwrap();
    let found = read(&mut queue.reader("worker"), 1).await;
    assert_eq!(found[0].job.id, id("fine"), "and it holds up nobody");
    let letters = queue.dead_letters(None, 5).await.unwrap();
    assert_eq!(letters.iter().map(|letter| letter.id.clone().unwrap()).collect::<Vec<_>>(), ["lost", "odd"].map(id));
    assert_eq!(letters[0].reason, "payload lost");
    assert!(letters[1].reason.contains("WRONGTYPE"), "{}", letters[1].reason);
    let counts = queue.counts().await.unwrap();
    assert_eq!((counts.failed, counts.totals["failed"], counts.prioritized), (2, 2, 0));
}

#[tokio::test]
async fn parked_jobs_with_a_priority_come_out_first_and_in_their_order() {
    let queue = queue_with(window(1)).await;
    let jobs: Vec<(JobId, u32)> =
        [("a", 0), ("b", 0), ("c", 9), ("d", 3), ("e", 9), ("f", 3), ("g", 0)].map(|(name, p)| (id(name), p)).into();
    for (job, priority) in &jobs {
        let job = NewJob { group: Some("group"), priority: *priority, ..new_job(job) };
        queue.add(&[job], PAYLOAD_MAX).await.unwrap();
    }
    // A change takes a parked job to where it stands from now on.
    queue.change_priority(&id("c"), 1).await.unwrap();
    queue.change_priority(&id("e"), 0).await.unwrap();
    assert_sound(&queue).await;
    let mut order = Vec::new();
    loop {
        let Some(delivery) = read(&mut queue.reader("worker"), 5).await.pop() else { break };
        order.push(delivery.job.id.clone());
        done(&queue, [(delivery.lease, None)]).await.unwrap();
        assert_sound(&queue).await;
    }
    assert_eq!(order, ["a", "c", "d", "f", "b", "e", "g"].map(id));
}

#[tokio::test]
async fn a_job_with_a_priority_starts_at_once_on_an_idle_queue_with_many_readers() {
    let queue = queue().await;
    let started = Arc::new(AtomicUsize::new(0));
    let mut workers = Vec::new();
    for _ in 0..READERS {
        let started = started.clone();
        workers.push(each(&as_another_process(&queue, QueueOptions::default()).await, options(), move |_| {
            started.fetch_add(1, SeqCst);
            async { Ok(Outcome::Done) }
        }));
    }
    for n in 0..50_usize {
        let began = Instant::now();
        add_prioritized(&queue, format!("job-{n}"), 1).await;
        until(DEADLINE, async || started.load(SeqCst) == n + 1).await;
        assert!(began.elapsed() < Duration::from_secs(2), "job {n} after {:?}", began.elapsed());
    }
    for worker in workers {
        worker.stop().await;
    }
    assert_sound(&queue).await;
}

on_each_redis! {
    a_priority_goes_before_none_and_comes_back_to_its_place,
    jobs_without_a_priority_get_every_second_turn_once_they_have_waited_long,
}
