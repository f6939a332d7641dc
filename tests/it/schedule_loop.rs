//! The schedule loop: each slot gets its job once, by any number of loops, whatever is upserted, removed or damaged
//! meanwhile.

use std::time::{Duration, Instant};

use feedmill::{
    job::Outcome,
    pulse::Beat,
    queue::{Queue, find::State, settle::Burial},
    schedule::{CatchUp, Definition},
    worker::{ScheduleLoop, schedule_loop::Fired},
};
use redis::AsyncCommands;
use tokio::{sync::mpsc, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use crate::support::{
    audit::assert_sound,
    eventually::eventually,
    jobs::{PAYLOAD_MAX, connection, id, queue, queue_under, read_one},
    schedulers::{HOUR, every, hourly, hours_ago, move_slot, now_ms, template, upsert, waiting_ids, waiting_slots},
    servers::SharedServers,
    workers::{each, options},
};

const PATIENCE: Duration = Duration::from_secs(30);

/// A loop that goes on until it is stopped or killed.
struct Running {
    shutdown: CancellationToken,
    task: JoinHandle<()>,
}

impl Running {
    /// With a connection of its own, as another process has it.
    async fn start(queue: &Queue) -> Self {
        let own = queue_under(&SharedServers::of_this_run().redis_url(), queue.redis().prefix()).await;
        let shutdown = CancellationToken::new();
        Self { task: tokio::spawn(ScheduleLoop::new(own).run(shutdown.clone(), Beat::default())), shutdown }
    }

    async fn start_four(queue: &Queue) -> Vec<Self> {
        futures_util::future::join_all((0..4).map(|_| Self::start(queue))).await
    }

    async fn stop(self) {
        self.shutdown.cancel();
        self.task.await.unwrap();
    }

    /// Ends it between two of its steps, wherever it is.
    async fn kill(self) {
        self.task.abort();
        assert!(self.task.await.unwrap_err().is_cancelled());
    }
}

/// One turn.
async fn turn(queue: &Queue) -> Fired {
    ScheduleLoop::new(queue.clone()).run_once().await.unwrap()
}

/// Waits until so many jobs of a scheduler were added.
async fn until_added(queue: &Queue, scheduler: &str, jobs: usize) {
    eventually("jobs are added", PATIENCE, async || {
        (waiting_slots(queue, scheduler).await.len() >= jobs).then_some(())
    })
    .await;
}

/// Checks that a job was added for each slot from the first to the last of them, once, and that the scheduler knows it.
async fn assert_each_slot_once(queue: &Queue, scheduler: &str, interval_ms: i64) -> usize {
    let mut slots = waiting_slots(queue, scheduler).await;
    slots.sort_unstable();
    let expected: Vec<i64> = (0..slots.len() as i64).map(|n| slots[0] + n * interval_ms).collect();
    assert_eq!(slots, expected, "{scheduler}");
    let (found, _) = queue.scheduler(scheduler).await.unwrap().unwrap();
    let stored = found.stored.unwrap();
    assert_eq!((stored.fired, stored.last_slot_ms), (slots.len() as u64, slots.last().copied()), "{scheduler}");
    assert_eq!(found.next_slot_ms, Some(slots.last().unwrap() + interval_ms), "{scheduler}");
    slots.len()
}

/// Jobs that somebody tried to add while one of their id lived.
async fn duplicates(queue: &Queue) -> u64 {
    connection(queue).await.hget::<_, _, Option<u64>>(queue.keys().meta(), "duplicates").await.unwrap().unwrap_or(0)
}

#[tokio::test]
async fn four_loops_of_which_one_is_killed_give_each_slot_its_job_once() {
    let queue = queue().await;
    let (interval, schedulers) = (Duration::from_millis(200), 30);
    let names: Vec<String> = (0..schedulers).map(|n| format!("s-{n}")).collect();
    // All have their slots at the same moments. A slot that a loaded machine comes to late is not left out.
    let definition = Definition { catch_up: CatchUp::All, ..every(interval) };
    for name in &names {
        upsert(&queue, name, &definition).await;
    }
    let mut loops = Running::start_four(&queue).await;
    until_added(&queue, "s-0", 5).await;
    loops.pop().unwrap().kill().await;
    until_added(&queue, "s-0", 15).await;
    for one in loops {
        one.stop().await;
    }
    let mut jobs = 0;
    for name in &names {
        jobs += assert_each_slot_once(&queue, name, interval.as_millis() as i64).await;
    }
    let counts = queue.counts().await.unwrap();
    assert_eq!((counts.waiting, duplicates(&queue).await), (jobs as u64, 0), "nobody tried a slot that was fired");
    assert_sound(&queue).await;
}

#[tokio::test]
async fn upserts_while_four_loops_fire_neither_lose_nor_double_a_slot() {
    let queue = queue().await;
    let definition = Definition { catch_up: CatchUp::All, ..every(Duration::from_millis(100)) };
    upsert(&queue, "a", &definition).await;
    let loops = Running::start_four(&queue).await;
    let mut upserts = 0;
    while waiting_slots(&queue, "a").await.len() < 20 {
        upserts += 1;
        let payload = format!("{upserts}");
        queue.upsert_scheduler("a", &definition, template(payload.as_bytes()), PAYLOAD_MAX).await.unwrap();
    }
    // The rest of the jobs are of the last template.
    let payload = format!("{upserts}");
    let n_before = waiting_slots(&queue, "a").await.len();
    until_added(&queue, "a", n_before + 3).await;
    for one in loops {
        one.stop().await;
    }
    assert_each_slot_once(&queue, "a", 100).await;
    let last = waiting_ids(&queue).await.pop().unwrap();
    assert_eq!(queue.find(&id(last)).await.unwrap().unwrap().job.payload(), payload.as_bytes());
    assert_eq!(duplicates(&queue).await, 0);
}

#[tokio::test]
async fn four_loops_together_keep_to_a_limit() {
    let queue = queue().await;
    for n in 0..20 {
        let name = format!("s-{n}");
        let definition = Definition { catch_up: CatchUp::All, limit: Some(7), ..hourly() };
        upsert(&queue, &name, &definition).await;
        move_slot(&queue, &name, hours_ago(&queue, 5).await).await;
    }
    let turns = (0..4).map(|_| turn(&queue));
    let fired = futures_util::future::join_all(turns).await;
    assert_eq!(fired.iter().map(|fired| fired.enqueued).sum::<usize>(), 20 * 6, "six slots have come");
    for n in 0..20 {
        move_slot(&queue, &format!("s-{n}"), hours_ago(&queue, 9).await).await;
    }
    let turns = (0..4).map(|_| turn(&queue));
    let fired = futures_util::future::join_all(turns).await;
    assert_eq!(fired.iter().map(|fired| fired.enqueued).sum::<usize>(), 20, "and one is left");
    assert_eq!(queue.count_schedulers().await.unwrap(), 0, "they are through");
    assert_sound(&queue).await;
}

#[tokio::test]
async fn after_a_removal_returned_nothing_is_added_any_more() {
    let queue = queue().await;
    for name in ["stays", "goes"] {
        upsert(&queue, name, &every(Duration::from_millis(100))).await;
    }
    let loops = Running::start_four(&queue).await;
    until_added(&queue, "goes", 3).await;
    assert!(queue.remove_scheduler("goes").await.unwrap());
    let (gone, stays) = (waiting_slots(&queue, "goes").await, waiting_slots(&queue, "stays").await.len());
    until_added(&queue, "stays", stays + 5).await;
    assert_eq!(waiting_slots(&queue, "goes").await, gone);
    for one in loops {
        one.stop().await;
    }
}

#[tokio::test]
async fn it_ends_with_its_last_slot() {
    let queue = queue().await;
    let end = jiff::Timestamp::from_millisecond(now_ms(&queue).await + 450).unwrap();
    let definition = Definition { end: Some(end), catch_up: CatchUp::All, ..every(Duration::from_millis(100)) };
    let (_, first) = upsert(&queue, "a", &definition).await;
    let running = Running::start(&queue).await;
    eventually("it is through", PATIENCE, async || (queue.count_schedulers().await.unwrap() == 0).then_some(())).await;
    running.stop().await;
    let last = end.as_millisecond() / 100 * 100;
    let expected: Vec<i64> = (0..=(last - first) / 100).map(|n| first + n * 100).collect();
    assert_eq!(waiting_slots(&queue, "a").await, expected);
}

#[tokio::test]
async fn slots_that_were_missed_are_skipped_made_up_for_once_or_all() {
    let queue = queue().await;
    let (slot, missed) = (hours_ago(&queue, 400).await, 401);
    for (name, catch_up) in [("skip", CatchUp::Skip), ("one", CatchUp::One), ("all", CatchUp::All)] {
        upsert(&queue, name, &Definition { catch_up, ..hourly() }).await;
        move_slot(&queue, name, slot).await;
    }
    // In the first half minute of an hour its slot has not been missed.
    let skipped = usize::from(now_ms(&queue).await % HOUR <= 30_000);
    let first = turn(&queue).await;
    assert_eq!((first.enqueued, first.next_due_in), (1 + 256 + skipped, Some(Duration::ZERO)), "the rest comes next");
    let rest = turn(&queue).await;
    assert_eq!(rest.enqueued, missed - 256);
    assert!(rest.next_due_in.unwrap() > Duration::ZERO);
    assert_eq!(waiting_slots(&queue, "skip").await.len(), skipped);
    assert_eq!(waiting_slots(&queue, "one").await, [slot]);
    assert_eq!(assert_each_slot_once(&queue, "all", HOUR).await, missed);
    assert_eq!(turn(&queue).await.enqueued, 0);
    assert_sound(&queue).await;
}

#[tokio::test]
async fn without_overlap_a_slot_passes_while_the_job_of_an_earlier_one_lives() {
    let queue = queue().await;
    upsert(&queue, "a", &Definition { no_overlap: true, ..hourly() }).await;
    let past = async || move_slot(&queue, "a", hours_ago(&queue, 1).await).await;
    let added = async || {
        past().await;
        let fired = turn(&queue).await;
        (fired.enqueued, fired.overlapping)
    };
    assert_eq!(added().await, (1, 0));
    assert_eq!(waiting_ids(&queue).await, ["repeat:a"]);
    assert_eq!(added().await, (0, 1), "it waits");
    let lease = read_one(&queue, "worker").await.lease;
    assert_eq!(added().await, (0, 1), "it is worked on");
    let wait = Duration::from_hours(1);
    let retry = feedmill::queue::settle::BackOff { lease, wait, reason: Some("not now".to_owned()) };
    queue.back_off(&[retry]).await.unwrap();
    assert_eq!(added().await, (0, 1), "it is to be tried again");
    let mut redis = connection(&queue).await;
    let _: () = redis.zadd(queue.keys().delayed(), "repeat:a", 1).await.unwrap();
    queue.promote().await.unwrap();
    let lease = read_one(&queue, "worker").await.lease;
    queue.bury("worker", &[Burial { lease, reason: "bad".to_owned(), exhausted: false, dedup: None }]).await.unwrap();
    assert_eq!(added().await, (1, 0), "it was given up: the next slot takes it over");
    assert_eq!(queue.find(&id("repeat:a")).await.unwrap().unwrap().state, State::Waiting);
    assert_sound(&queue).await;
}

#[tokio::test]
async fn with_overlap_each_slot_has_a_job_of_its_own() {
    let queue = queue().await;
    upsert(&queue, "a", &hourly()).await;
    for hours in [3, 2, 1] {
        move_slot(&queue, "a", hours_ago(&queue, hours).await).await;
        assert_eq!(turn(&queue).await.enqueued, 1);
    }
    assert_eq!(waiting_slots(&queue, "a").await.len(), 3);
}

#[tokio::test]
async fn what_cannot_be_read_holds_up_nobody() {
    let queue = queue().await;
    let mut redis = connection(&queue).await;
    // More than a page of them, all due before the sound one.
    for n in 0..300 {
        let _: () = redis.zadd(queue.keys().schedulers(), format!("nothing-stored-{n}"), 1).await.unwrap();
    }
    for name in ["no-json", "no-template", "wrong-type"] {
        upsert(&queue, name, &hourly()).await;
        move_slot(&queue, name, 2).await;
    }
    let keys = queue.keys();
    let _: () = redis.hset(keys.scheduler("no-json"), "definition", "{").await.unwrap();
    let _: () = redis.hdel(keys.scheduler("no-template"), "template").await.unwrap();
    let _: () = redis.del(keys.scheduler("wrong-type")).await.unwrap();
    let _: () = redis.set(keys.scheduler("wrong-type"), "a string").await.unwrap();
    let _: () = redis.zadd(keys.schedulers(), &b"not \xff text"[..], 2).await.unwrap();
    upsert(&queue, "sound", &hourly()).await;
    let slot = move_slot(&queue, "sound", hours_ago(&queue, 1).await).await;

    let fired = turn(&queue).await;
    assert_eq!((fired.enqueued, fired.damaged), (1, 304));
    assert_eq!(waiting_ids(&queue).await, [format!("repeat:sound:{slot}")]);
    assert!(fired.next_due_in.unwrap() > Duration::ZERO, "what is damaged keeps nobody awake");
    assert_eq!(turn(&queue).await.damaged, 304, "they stay, for somebody to mend");
}

#[tokio::test]
async fn a_slot_earlier_than_all_that_were_known_is_noticed_soon() {
    let queue = queue().await;
    upsert(&queue, "far", &hourly()).await;
    let running = Running::start(&queue).await;
    upsert(&queue, "early", &every(Duration::from_millis(100))).await;
    until_added(&queue, "early", 1).await;
    let upserted_at = Instant::now();
    upsert(&queue, "at-once", &Definition { immediately: true, ..hourly() }).await;
    until_added(&queue, "at-once", 1).await;
    assert!(upserted_at.elapsed() < Duration::from_secs(4), "{:?}", upserted_at.elapsed());
    running.stop().await;
}

#[tokio::test]
async fn a_worker_fires_the_schedulers_of_its_queue() {
    let queue = queue().await;
    let envelope = feedmill::job::Envelope { payload: b"work", name: Some("report"), ..Default::default() };
    let definition = Definition { immediately: true, ..hourly() };
    let (_, slot) = queue.upsert_scheduler("r", &definition, envelope, PAYLOAD_MAX).await.unwrap();
    let (told, mut handled) = mpsc::unbounded_channel();
    let worker = each(&queue, options(), move |delivery| {
        let job = delivery.job;
        told.send((job.id.to_string(), job.name.clone(), job.payload().to_vec())).unwrap();
        async { Ok(Outcome::Done) }
    });
    let job = tokio::time::timeout(PATIENCE, handled.recv()).await.unwrap().unwrap();
    assert_eq!(job, (format!("repeat:r:{slot}"), Some("report".to_owned()), b"work".to_vec()));
    worker.stop().await;
    assert_eq!(queue.count_schedulers().await.unwrap(), 1);
}
