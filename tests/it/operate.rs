//! Operating on a queue: each operation on a job in each state, and the walks over many.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, SystemTime},
};

use feedmill::{
    job::{Envelope, JobId, JobOptions, Keep, Outcome, Stored},
    queue::{
        Events, Queue, QueueError, QueueOptions, Redis, Settled,
        cancel::CANCELLED,
        consumers::Consumer,
        dead_letter::Retention,
        enqueue::{Deduplication, Enqueued, NewJob},
        find::State,
        operated::{Operated, StateName},
        read::Lease,
        remove::RemovalWalk,
        retry::DeadFilter,
        settle::{BackOff, Burial, Done},
    },
};
use redis::{AsyncCommands, streams::StreamRangeReply};
use tokio::sync::mpsc;

use crate::support::{
    audit::{assert_sound, scan},
    jobs::{
        Fetch, MAP_HEADER_BYTES, PAYLOAD_MAX, add, add_many, connection, counts, done, forget_record, id, new_job,
        queue, queue_with, read, read_one, record,
    },
    redis_prefix,
    servers::on_each_redis,
    workers::{batches, each, options},
};

/// A wait that is long compared with a test.
const LONG: Duration = Duration::from_hours(1);
/// Jobs of a group that may stand in the stream.
const WINDOW: u32 = 2;

/// Where a job can stand. Unlike the names of states this tells apart what is waiting, and what is active, in two ways.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Waiting,
    Parked,
    Prioritized,
    Delayed,
    Active,
    ActivePrioritized,
    Failed,
    Completed,
}

/// Those first that are read to get there: what is read is then the job itself.
const PLACES: [Place; 8] = [
    Place::Active,
    Place::ActivePrioritized,
    Place::Failed,
    Place::Completed,
    Place::Waiting,
    Place::Parked,
    Place::Prioritized,
    Place::Delayed,
];

impl Place {
    fn state(self) -> StateName {
        match self {
            Self::Waiting | Self::Parked => StateName::Waiting,
            Self::Prioritized => StateName::Prioritized,
            Self::Delayed => StateName::Delayed,
            Self::Active | Self::ActivePrioritized => StateName::Active,
            Self::Failed => StateName::Failed,
            Self::Completed => StateName::Completed,
        }
    }
}

/// What can be asked of one job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operation {
    Remove,
    Promote,
    Retry,
    Delay,
    Priority(u32),
    Payload,
    Cancel,
}

impl Operation {
    async fn run(self, queue: &Queue, job: &JobId) -> Operated {
        let one = std::slice::from_ref(job);
        match self {
            Self::Remove => queue.remove(one, forget_record).await.unwrap()[0],
            Self::Promote => queue.promote_now(one).await.unwrap()[0],
            Self::Retry => queue.retry(one).await.unwrap()[0],
            Self::Delay => queue.change_delay(job, LONG * 2).await.unwrap(),
            Self::Priority(priority) => queue.change_priority(job, priority).await.unwrap(),
            Self::Payload => queue.update_payload(job, b"other", PAYLOAD_MAX).await.unwrap(),
            Self::Cancel => queue.cancel(job).await.unwrap(),
        }
    }

    /// The state in which it leaves a job; `None` when the job is gone, the state it was in when it is refused.
    fn leads_to(self, place: Place) -> Option<StateName> {
        let is_active = matches!(place, Place::Active | Place::ActivePrioritized);
        let has_ended = matches!(place, Place::Failed | Place::Completed);
        match self {
            Self::Remove if !is_active => None,
            Self::Promote if place == Place::Delayed => Some(StateName::Waiting),
            Self::Retry if has_ended => Some(StateName::Waiting),
            Self::Cancel if !has_ended => Some(StateName::Failed),
            Self::Priority(0) if place == Place::Prioritized => Some(StateName::Waiting),
            Self::Priority(1..) if place == Place::Waiting => Some(StateName::Prioritized),
            _ => Some(place.state()),
        }
    }

    fn is_refused(self, place: Place) -> bool {
        let is_active = matches!(place, Place::Active | Place::ActivePrioritized);
        let has_ended = matches!(place, Place::Failed | Place::Completed);
        match self {
            Self::Remove => is_active,
            Self::Promote | Self::Delay => place != Place::Delayed,
            Self::Retry => !has_ended,
            Self::Priority(_) => false,
            Self::Payload => place == Place::Completed,
            Self::Cancel => has_ended,
        }
    }
}

async fn queue_with_groups(url: &str) -> Queue {
    let redis = Redis::connect(url, &redis_prefix()).await.unwrap();
    let options = QueueOptions { events: Events::All, group_window: Some(WINDOW) };
    Queue::open(&redis, "jobs", options).await.unwrap()
}

fn burial(lease: Lease) -> Burial {
    Burial { lease, reason: "bad".to_owned(), exhausted: false, dedup: None }
}

/// A job that stands in this place, and the lease of who has it.
async fn stand(queue: &Queue, place: Place) -> (JobId, Option<Lease>) {
    let (job, group) = (id(format!("{place:?}")), format!("group of {place:?}"));
    let mut new = NewJob { group: Some(&group), ..new_job(&job) };
    match place {
        Place::Parked => {
            for filler in 0..WINDOW {
                let filler = NewJob { group: Some(&group), ..new_job(&id(format!("filler-{filler}"))) };
                queue.add(&[filler], PAYLOAD_MAX).await.unwrap();
            }
        }
        Place::Prioritized | Place::ActivePrioritized => new.priority = 5,
        Place::Delayed => new.delay = LONG,
        _ => {}
    }
    assert_eq!(queue.add(&[new], PAYLOAD_MAX).await.unwrap(), [Enqueued::Enqueued]);
    let mut lease = None;
    if matches!(place, Place::Active | Place::ActivePrioritized | Place::Failed | Place::Completed) {
        let read = read_one(queue, "worker").await.lease;
        match place {
            Place::Failed => drop(queue.bury("worker", &[burial(read)]).await.unwrap()),
            Place::Completed => drop(queue.done(&[Done::new(read)], Keep::All).await.unwrap()),
            _ => lease = Some(read),
        }
    }
    assert_eq!(state(queue, &job).await, Some(place.state()), "{place:?}");
    (job, lease)
}

async fn state(queue: &Queue, job: &JobId) -> Option<StateName> {
    let found = queue.find(job).await.unwrap()?;
    let names = [
        StateName::Waiting,
        StateName::Prioritized,
        StateName::Active,
        StateName::Delayed,
        StateName::Completed,
        StateName::Failed,
        StateName::Unknown,
    ];
    names.into_iter().find(|name| name.name() == found.state.name())
}

async fn each_operation_in_each_state(url: &str) {
    let operations = [
        Operation::Remove,
        Operation::Promote,
        Operation::Retry,
        Operation::Delay,
        Operation::Priority(0),
        Operation::Priority(5),
        Operation::Priority(7),
        Operation::Payload,
        Operation::Cancel,
    ];
    for place in PLACES {
        for operation in operations {
            let queue = queue_with_groups(url).await;
            let (job, lease) = stand(&queue, place).await;
            let wanted = if operation.is_refused(place) { Operated::Refused(place.state()) } else { Operated::Done };
            assert_eq!(operation.run(&queue, &job).await, wanted, "{operation:?} of {place:?}");
            assert_eq!(state(&queue, &job).await, operation.leads_to(place), "{operation:?} of {place:?}");
            assert_sound(&queue).await;
            if let Some(lease) = lease {
                let settled = if operation == Operation::Cancel { Settled::Lost } else { Settled::Settled };
                assert_eq!(done(&queue, [(lease, None)]).await.unwrap(), [settled], "{operation:?} of {place:?}");
                assert_sound(&queue).await;
            }
            assert_eq!(operation.run(&queue, &id("nobody")).await, Operated::Missing, "{operation:?}");
        }
    }
}

async fn each_step_of_a_drain_and_an_obliteration(url: &str) {
    let queue = queue_with_groups(url).await;
    for place in PLACES {
        stand(&queue, place).await;
    }
    finish(queue.drain(true, forget_record)).await;
    assert_sound(&queue).await;
    let now = queue.counts().await.unwrap();
    assert_eq!((now.waiting, now.prioritized, now.delayed, now.parked), (0, 0, 0, 0));
    queue.pause().await.unwrap();
    let mut walk = queue.obliterate(true);
    while walk.step().await.unwrap().is_some() {}
    assert!(keys(&queue).await.is_empty());
}

on_each_redis!(
    each_operation_in_each_state,
    each_step_of_a_drain_and_an_obliteration,
    a_cancelled_job_is_noted_for_its_consumer
);

/// Goes through a walk; returns how many jobs it did something with.
async fn finish(mut walk: RemovalWalk) -> usize {
    let mut done = 0;
    while let Some(step) = walk.step().await.unwrap() {
        done += step.done;
    }
    done
}

/// All keys of a queue.
async fn keys(queue: &Queue) -> Vec<String> {
    let mut redis = connection(queue).await;
    let keys = scan(&mut redis, queue.keys().queue_prefix()).await;
    keys.into_iter().map(|key| String::from_utf8(key).unwrap()).collect()
}

async fn bury_all(queue: &Queue, reason: &str) -> usize {
    let deliveries = read(&mut queue.reader("worker"), 1000).await;
    let burials: Vec<Burial> =
        deliveries.into_iter().map(|delivery| Burial { reason: reason.to_owned(), ..burial(delivery.lease) }).collect();
    queue.bury("worker", &burials).await.unwrap();
    burials.len()
}

/// The events of a queue that are about this job: name and state before.
async fn events(queue: &Queue, job: &str) -> Vec<(String, Option<String>)> {
    let all: StreamRangeReply = connection(queue).await.xrange_all(queue.keys().events()).await.unwrap();
    let of_job = all.ids.iter().filter(|event| event.get::<String>("jobId").as_deref() == Some(job));
    of_job.map(|event| (event.get("event").unwrap(), event.get("prev"))).collect()
}

// ── removing ───────────────────────────────────────────────────────────────────────────────────────────────────────

#[tokio::test]
async fn a_removed_job_leaves_nothing_and_its_id_is_free() {
    let queue = queue_with(QueueOptions { events: Events::All, group_window: None }).await;
    let before: BTreeSet<String> = keys(&queue).await.into_iter().collect();
    let options = JobOptions { dedup: Some("d".to_owned()), ..JobOptions::default() }.encode();
    let envelope = Envelope { payload: b"{}", options: Some(&options), ..Envelope::default() };
    let dedup = Deduplication::throttle("d", LONG);
    let job = NewJob { dedup: Some(dedup), ..NewJob::new(id("a"), envelope) };
    queue.add(&[job], PAYLOAD_MAX).await.unwrap();
    let lease = read_one(&queue, "worker").await.lease;
    queue.back_off(&[BackOff { lease, wait: LONG, reason: Some("no".to_owned()) }]).await.unwrap();
    assert_eq!(queue.remove(&[id("a")], forget_record).await.unwrap(), [Operated::Done]);
    assert_sound(&queue).await;
    let after: BTreeSet<String> = keys(&queue).await.into_iter().collect();
    let made = after.difference(&before).map(|key| key.rsplit_once(':').unwrap().1).collect::<Vec<_>>();
    assert_eq!(made, ["events"], "what is left beside what was there");
    assert_eq!(queue.counts().await.unwrap().totals["removed"], 1);
    assert_eq!(events(&queue, "a").await.last().unwrap(), &("removed".to_owned(), Some("delayed".to_owned())));
    assert_eq!(add(&queue, "a").await, Enqueued::Enqueued);
}

#[tokio::test]
async fn ids_are_answered_in_order_and_more_than_a_call_takes() {
    let queue = queue().await;
    let mut ids = add_many(&queue, "job", 300).await;
    let held = read_one(&queue, "worker").await.lease;
    ids.push(id("nobody"));
    ids.push(ids[1].clone());
    let mut wanted = vec![Operated::Refused(StateName::Active)];
    wanted.extend([Operated::Done; 299]);
    wanted.extend([Operated::Missing; 2]);
    assert_eq!(queue.remove(&ids, forget_record).await.unwrap(), wanted);
    assert_sound(&queue).await;
    assert_eq!(queue.find(&held.id).await.unwrap().unwrap().state, State::Active);
}

#[tokio::test]
async fn an_import_counts_its_removed_jobs_and_the_feed_forgets_them() {
    let queue = queue().await;
    let fetch = Fetch::begin(&queue, "feed").await;
    let items = ["done", "dead", "delayed", "waiting"];
    fetch.enqueue(&queue, &items).await;
    let leases: Vec<Lease> =
        read(&mut queue.reader("worker"), 3).await.into_iter().map(|delivery| delivery.lease).collect();
    let kept = Done { stored: Some(Stored::Inserted), ..Done::new(leases[0].clone()) };
    queue.done(&[kept], Keep::All).await.unwrap();
    queue.bury("worker", &[burial(leases[1].clone())]).await.unwrap();
    let back_off = BackOff { lease: leases[2].clone(), wait: LONG, reason: Some("no".to_owned()) };
    queue.back_off(&[back_off]).await.unwrap();
    fetch.finish(&queue, 4, MAP_HEADER_BYTES + 4 * 16).await;
    assert_sound(&queue).await;

    let ids: Vec<JobId> = items.iter().map(id).collect();
    assert_eq!(queue.remove(&ids, forget_record).await.unwrap(), [Operated::Done; 4]);
    assert_sound(&queue).await;
    let wanted = [("items", 4), ("new", 4), ("inserted", 1), ("failed", 1), ("failures", 1), ("removed", 2)];
    assert_eq!(fetch.counts(&queue).await, counts(&wanted));
    assert_eq!(queue.closing_import_ids(10).await.unwrap(), [fetch.import], "the last of its jobs is gone");
    // what is stored is not brought again; what did not finish is
    let seen: Vec<u8> = connection(&queue).await.get(queue.keys().seen("feed")).await.unwrap();
    let forgotten = ids[1..].iter().map(forget_record).collect::<Vec<_>>().concat();
    assert_eq!(seen[MAP_HEADER_BYTES..], [ids.iter().map(record).collect::<Vec<_>>().concat(), forgotten].concat());
    assert_eq!(queue.feed_memory("feed").await.unwrap().etag, None);
}

#[tokio::test]
async fn a_removed_job_makes_room_in_its_group() {
    let queue = queue_with(QueueOptions { events: Events::Off, group_window: Some(1) }).await;
    for job in ["a", "b", "c"] {
        queue.add(&[NewJob { group: Some("g"), ..new_job(&id(job)) }], PAYLOAD_MAX).await.unwrap();
    }
    assert_eq!(queue.counts().await.unwrap().parked, 2);
    queue.remove(&[id("a"), id("b")], forget_record).await.unwrap();
    assert_eq!(read_one(&queue, "worker").await.job.id, id("c"));
    assert_sound(&queue).await;
}

#[tokio::test]
async fn who_knows_a_queue_by_its_name_alone_goes_by_its_options() {
    let queue = queue_with(QueueOptions { events: Events::All, group_window: Some(1) }).await;
    for job in ["a", "b", "c"] {
        queue.add(&[NewJob { group: Some("g"), ..new_job(&id(job)) }], PAYLOAD_MAX).await.unwrap();
    }
    let other = Queue::open_as_it_is(queue.redis(), queue.name()).await.unwrap();
    other.remove(&[id("a")], forget_record).await.unwrap();
    assert_eq!(queue.counts().await.unwrap().parked, 1, "its group has room for one");
    assert_eq!(events(&queue, "a").await.last().unwrap().0, "removed");
    assert_sound(&queue).await;
}

// ── cleaning and draining ──────────────────────────────────────────────────────────────────────────────────────────

/// Adds jobs that were enqueued an hour ago, and as many new ones; half of each group of four is delayed, has a priority.
async fn add_old_and_new(queue: &Queue, jobs: usize) {
    let an_hour_ago = queue.time().await.unwrap() - LONG;
    for n in 0..jobs {
        for (name, enqueued_at) in [("old", Some(an_hour_ago)), ("new", None)] {
            let envelope = Envelope { payload: b"{}", enqueued_at, ..Envelope::default() };
            let plain = NewJob::new(id(format!("{name}-{n}")), envelope);
            let delayed = NewJob { delay: LONG, ..NewJob::new(id(format!("{name}-d-{n}")), envelope) };
            let prioritized = NewJob { priority: 3, ..NewJob::new(id(format!("{name}-p-{n}")), envelope) };
            let grouped = NewJob { group: Some("g"), ..NewJob::new(id(format!("{name}-g-{n}")), envelope) };
            queue.add(&[plain, delayed, prioritized, grouped], PAYLOAD_MAX).await.unwrap();
        }
    }
}

#[tokio::test]
async fn clean_removes_what_is_older_than_the_grace_in_one_state_alone() {
    let queue = queue_with(QueueOptions { events: Events::Off, group_window: Some(WINDOW) }).await;
    add_old_and_new(&queue, 200).await;
    let half_an_hour = LONG / 2;
    let clean =
        async |state, limit| finish(queue.clean(state, half_an_hour, limit, forget_record).await.unwrap()).await;
    assert_eq!(clean(StateName::Prioritized, Some(3)).await, 3);
    assert_eq!(clean(StateName::Prioritized, None).await, 197);
    assert_eq!(clean(StateName::Delayed, None).await, 200);
    assert_eq!(clean(StateName::Waiting, Some(150)).await, 150);
    assert_sound(&queue).await;
    assert_eq!(clean(StateName::Waiting, None).await, 250, "plain ones and those of the group, parked or not");
    let now = queue.counts().await.unwrap();
    assert_eq!((now.waiting, now.delayed, now.prioritized), (400, 200, 200));
    assert_eq!(clean(StateName::Waiting, None).await, 0);
    assert_sound(&queue).await;
}

#[tokio::test]
async fn clean_removes_what_ended_before_the_grace() {
    let queue = queue().await;
    add_many(&queue, "dead", 300).await;
    bury_all(&queue, "bad").await;
    add_many(&queue, "done", 300).await;
    let ended: Vec<Done> =
        read(&mut queue.reader("worker"), 300).await.into_iter().map(|read| Done::new(read.lease)).collect();
    queue.done(&ended, Keep::All).await.unwrap();
    for state in [StateName::Failed, StateName::Completed] {
        assert_eq!(finish(queue.clean(state, LONG, None, forget_record).await.unwrap()).await, 0);
        assert_eq!(finish(queue.clean(state, Duration::ZERO, Some(10), forget_record).await.unwrap()).await, 10);
    }
    let an_hour_ago = queue.time().await.unwrap() - LONG * 2;
    let ms = an_hour_ago.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis() as u64;
    let mut redis = connection(&queue).await;
    let () = redis.zadd(queue.keys().completed(), "done-299", ms).await.unwrap();
    assert_eq!(finish(queue.clean(StateName::Completed, LONG, None, forget_record).await.unwrap()).await, 1);
    assert!(queue.find(&id("done-299")).await.unwrap().is_none());
    for state in [StateName::Failed, StateName::Completed] {
        finish(queue.clean(state, Duration::ZERO, None, forget_record).await.unwrap()).await;
    }
    let now = queue.counts().await.unwrap();
    assert_eq!((now.failed, now.completed, now.totals["removed"]), (0, 0, 600));
    assert_sound(&queue).await;
    for state in [StateName::Active, StateName::Unknown] {
        let error = queue.clean(state, LONG, None, forget_record).await.unwrap_err();
        assert!(matches!(error, QueueError::NotCleanable { .. }), "{error}");
    }
}

#[tokio::test]
async fn drain_empties_what_waits_and_leaves_what_a_worker_has_and_what_has_ended() {
    for with_delayed in [false, true] {
        let queue = queue_with(QueueOptions { events: Events::Off, group_window: Some(WINDOW) }).await;
        for place in PLACES {
            stand(&queue, place).await;
        }
        add_old_and_new(&queue, 100).await;
        let mut redis = connection(&queue).await;
        let _: String = redis.xadd(queue.keys().stream(), "*", &[("json", "\"plain\"")]).await.unwrap();
        let _: String = redis.xadd(queue.keys().stream(), "*", &[("id", "nobody")]).await.unwrap();
        finish(queue.drain(with_delayed, forget_record)).await;
        assert_sound(&queue).await;
        let now = queue.counts().await.unwrap();
        let delayed = if with_delayed { 0 } else { 201 };
        assert_eq!((now.waiting, now.prioritized, now.delayed), (0, 0, delayed));
        assert_eq!((now.active, now.failed, now.completed), (2, 1, 1));
    }
}

#[tokio::test]
async fn drain_finds_the_parked_jobs_of_a_group_that_is_held_up() {
    let queue = queue_with(QueueOptions { events: Events::Off, group_window: Some(1) }).await;
    for job in ["a", "b"] {
        queue.add(&[NewJob { group: Some("g"), ..new_job(&id(job)) }], PAYLOAD_MAX).await.unwrap();
    }
    let lease = read_one(&queue, "worker").await.lease;
    queue.hold_up_group("g", LONG).await.unwrap();
    done(&queue, [(lease, None)]).await.unwrap();
    assert_eq!(queue.counts().await.unwrap().parked, 1, "nobody of its group is at work");
    assert_eq!(finish(queue.drain(false, forget_record)).await, 1);
    assert_eq!(queue.counts().await.unwrap().parked, 0);
    assert_sound(&queue).await;
}

#[tokio::test]
async fn the_import_of_drained_items_adds_up_and_closes_and_the_next_fetch_brings_them_again() {
    let queue = queue().await;
    let fetch = Fetch::begin(&queue, "feed").await;
    fetch.enqueue(&queue, &["a", "b", "c"]).await;
    let lease = read_one(&queue, "worker").await.lease;
    fetch.finish(&queue, 3, MAP_HEADER_BYTES + 3 * 16).await;
    assert_eq!(finish(queue.drain(false, forget_record)).await, 2);
    assert_sound(&queue).await;
    let wanted = [("items", 3), ("new", 3), ("open", 1), ("removed", 2)];
    assert_eq!(fetch.counts(&queue).await, counts(&wanted));
    done(&queue, [(lease, Some(Stored::Inserted))]).await.unwrap();
    assert_eq!(queue.closing_import_ids(10).await.unwrap(), [fetch.import]);
    let next = Fetch::begin(&queue, "feed").await;
    assert_eq!(next.enqueue(&queue, &["b", "c"]).await.unwrap(), [Enqueued::Enqueued, Enqueued::Enqueued]);
}

#[tokio::test]
async fn a_drain_ends_while_others_add() {
    let queue = queue().await;
    add_many(&queue, "old", 300).await;
    let mut walk = queue.drain(false, forget_record);
    let mut steps = 0;
    while walk.step().await.unwrap().is_some() {
        add_many(&queue, &format!("new-{steps}"), 300).await;
        steps += 1;
    }
    assert_eq!(steps, 5, "300 jobs are five pages");
    assert_eq!(queue.counts().await.unwrap().waiting, 5 * 300);
    assert!(queue.find(&id("old-0")).await.unwrap().is_none());
}

// ── obliterating ───────────────────────────────────────────────────────────────────────────────────────────────────

#[tokio::test]
async fn obliterate_refuses_a_queue_that_runs_or_is_worked_on() {
    let queue = queue().await;
    add_many(&queue, "job", 3).await;
    read_one(&queue, "worker").await;
    let error = queue.obliterate(true).step().await.unwrap_err();
    assert!(matches!(error, QueueError::NotPaused { .. }), "{error}");
    queue.pause().await.unwrap();
    let error = queue.obliterate(false).step().await.unwrap_err();
    assert!(matches!(error, QueueError::HasActive { jobs: 1, .. }), "{error}");
    assert_eq!(queue.counts().await.unwrap().waiting, 2);
    assert_sound(&queue).await;
}

#[tokio::test]
async fn obliterate_leaves_nothing_of_the_queue_and_everything_of_others() {
    let queue = queue_with(QueueOptions { events: Events::All, group_window: Some(WINDOW) }).await;
    let other = Queue::open(queue.redis(), "jobs2", Events::Failures).await.unwrap();
    add_many(&other, "job", 5).await;
    let of_other = keys(&other).await.len();
    for place in PLACES {
        stand(&queue, place).await;
    }
    let fetch = Fetch::begin(&queue, "feed").await;
    fetch.enqueue(&queue, &["a", "b"]).await;
    add_many(&queue, "job", 2000).await;
    queue.heartbeat(&Consumer::of_this_process(), 1).await.unwrap();
    queue.pause().await.unwrap();
    // left in the middle, and begun anew
    let mut walk = queue.obliterate(true);
    for _ in 0..3 {
        walk.step().await.unwrap();
    }
    assert!(!keys(&queue).await.is_empty());
    let mut walk = queue.obliterate(false);
    while walk.step().await.unwrap().is_some() {}
    assert_eq!(keys(&queue).await, Vec::<String>::new());
    assert_eq!(queue.redis().registered_queues().await.unwrap(), ["jobs2"]);
    assert_eq!(keys(&other).await.len(), of_other);
    // its name can be used again
    let again = Queue::open(queue.redis(), "jobs", Events::Off).await.unwrap();
    add(&again, "a").await;
    assert_eq!(read_one(&again, "worker").await.job.id, id("a"));
    assert_sound(&again).await;
}

// ── promoting, retrying, changing ──────────────────────────────────────────────────────────────────────────────────

#[tokio::test]
async fn promote_all_moves_everything_that_is_delayed_and_keeps_priorities() {
    let queue = queue().await;
    let delayed = |n: u32| NewJob { delay: LONG * (1 + n % 3), priority: n % 2, ..new_job(&id(format!("job-{n}"))) };
    let jobs: Vec<NewJob<'_>> = (0..600).map(delayed).collect();
    queue.add(&jobs, PAYLOAD_MAX).await.unwrap();
    let mut walk = queue.promote_all().await.unwrap();
    let mut promoted = 0;
    while let Some(step) = walk.step().await.unwrap() {
        promoted += step.done;
    }
    let now = queue.counts().await.unwrap();
    assert_eq!((promoted, now.delayed, now.waiting, now.prioritized), (600, 0, 300, 300));
    assert_sound(&queue).await;
}

#[tokio::test]
async fn a_retried_job_starts_at_attempt_one_and_a_completed_one_counts_for_no_import() {
    let queue = queue().await;
    let fetch = Fetch::begin(&queue, "feed").await;
    fetch.enqueue(&queue, &["done", "dead"]).await;
    let leases: Vec<Lease> =
        read(&mut queue.reader("worker"), 2).await.into_iter().map(|delivery| delivery.lease).collect();
    let result = Some("7".to_owned());
    let kept = Done { stored: Some(Stored::Inserted), result, ..Done::new(leases[0].clone()) };
    queue.done(&[kept], Keep::All).await.unwrap();
    queue.bury("worker", &[burial(leases[1].clone())]).await.unwrap();
    assert_eq!(queue.retry(&[id("done"), id("dead")]).await.unwrap(), [Operated::Done; 2]);
    assert_sound(&queue).await;
    assert_eq!(fetch.counts(&queue).await, counts(&[("new", 2), ("inserted", 1), ("open", 1), ("failures", 1)]));
    let again = read(&mut queue.reader("worker"), 2).await;
    let imports: Vec<_> = again.iter().map(|delivery| (delivery.job.attempt(), delivery.job.head.import)).collect();
    assert_eq!(imports, [(1, None), (1, Some(fetch.import))]);
    assert_eq!(queue.find(&id("done")).await.unwrap().unwrap().log.result, None);
    assert_eq!(queue.counts().await.unwrap().totals["redriven"], 1);
    done(&queue, again.into_iter().map(|delivery| (delivery.lease, Some(Stored::Updated)))).await.unwrap();
    assert_eq!(fetch.counts(&queue).await, counts(&[("new", 2), ("inserted", 1), ("updated", 1), ("failures", 1)]));
    assert_sound(&queue).await;
}

#[tokio::test]
async fn a_retry_that_is_left_goes_on_and_meets_no_job_twice() {
    let queue = queue().await;
    add_many(&queue, "job", 600).await;
    assert_eq!(bury_all(&queue, "the store refused it").await, 600);
    let mut walk = queue.retry_dead(DeadFilter::default(), None).await.unwrap();
    assert_eq!(walk.step().await.unwrap().unwrap().done, 256);
    let position = walk.position();
    drop(walk);
    assert_eq!(bury_all(&queue, "again").await, 256);
    let mut walk = queue.retry_dead(DeadFilter::default(), position).await.unwrap();
    while walk.step().await.unwrap().is_some() {}
    assert_eq!(walk.totals().redriven, 344);
    let left = queue.dead_letters(None, 1000).await.unwrap();
    assert!(left.len() == 256 && left.iter().all(|letter| letter.reason == "again"));
    assert_sound(&queue).await;
}

#[tokio::test]
async fn a_retry_brings_back_what_its_filter_means() {
    let queue = queue().await;
    add_many(&queue, "refused", 3).await;
    bury_all(&queue, "MongoDB refused it: E11000").await;
    add_many(&queue, "late", 2).await;
    bury_all(&queue, "no result within job_timeout (1s)").await;
    let filter = DeadFilter { reason: Some("mongodb REFUSED".to_owned()) };
    let mut walk = queue.retry_dead(filter, None).await.unwrap();
    assert_eq!(walk.step().await.unwrap().map(|step| (step.looked_at, step.done)), Some((5, 3)));
    assert_eq!(walk.step().await.unwrap(), None);
    let left = queue.dead_letters(None, 10).await.unwrap();
    assert!(left.len() == 2 && left.iter().all(|letter| letter.reason.contains("job_timeout")));
    assert_sound(&queue).await;
}

#[tokio::test]
async fn nothing_dead_is_nothing_to_retry() {
    let queue = queue().await;
    let mut walk = queue.retry_dead(DeadFilter::default(), None).await.unwrap();
    assert_eq!((walk.step().await.unwrap(), walk.position()), (None, None));
}

#[tokio::test]
async fn a_shorter_delay_wakes_the_promoter() {
    let queue = queue().await;
    queue.add(&[NewJob { delay: LONG, ..new_job(&id("a")) }], PAYLOAD_MAX).await.unwrap();
    let (tell, mut told) = mpsc::unbounded_channel();
    let worker = each(&queue, options(), move |job| {
        tell.send(job.job.id).unwrap();
        async { Ok(Outcome::Done) }
    });
    assert_eq!(queue.change_delay(&id("a"), Duration::from_millis(10)).await.unwrap(), Operated::Done);
    let started = tokio::time::timeout(Duration::from_secs(4), told.recv()).await.expect("before it looks by itself");
    assert_eq!(started, Some(id("a")));
    worker.stop().await;
}

#[tokio::test]
async fn a_changed_priority_changes_the_order_at_once() {
    let queue = queue().await;
    let prioritized = |name: &str, priority| NewJob { priority, ..new_job(&id(name)) };
    let jobs = [prioritized("a", 1), prioritized("b", 2), prioritized("c", 3), prioritized("d", 0)];
    queue.add(&jobs, PAYLOAD_MAX).await.unwrap();
    for (job, priority) in [("a", 4), ("d", 2), ("c", 0)] {
        assert_eq!(queue.change_priority(&id(job), priority).await.unwrap(), Operated::Done);
        assert_sound(&queue).await;
    }
    let order: Vec<JobId> =
        read(&mut queue.reader("worker"), 10).await.into_iter().map(|delivery| delivery.job.id).collect();
    assert_eq!(order, ["b", "d", "a", "c"].map(id), "b and d have the same; d came to it later");
    let error = queue.change_priority(&id("a"), 2_097_152).await.unwrap_err();
    assert!(matches!(error, QueueError::Priority { .. }), "{error}");
}

#[tokio::test]
async fn a_priority_that_a_job_got_meanwhile_holds_from_the_next_time_that_it_waits() {
    for priority in [0, 9] {
        let queue = queue_with(QueueOptions { events: Events::Off, group_window: Some(WINDOW) }).await;
        let (job, lease) = stand(&queue, Place::Active).await;
        queue.change_priority(&job, 9).await.unwrap();
        queue.change_priority(&job, priority).await.unwrap();
        queue.give_back(&[lease.unwrap()]).await.unwrap();
        let wanted = if priority == 0 { StateName::Waiting } else { StateName::Prioritized };
        assert_eq!(state(&queue, &job).await, Some(wanted));
        assert_sound(&queue).await;
        let (job, _) = stand(&queue, Place::Delayed).await;
        queue.change_priority(&job, priority).await.unwrap();
        queue.promote_now(std::slice::from_ref(&job)).await.unwrap();
        assert_eq!(state(&queue, &job).await, Some(wanted));
        assert_eq!(queue.find(&job).await.unwrap().unwrap().job.head.group, b"group of Delayed", "its group stays");
        assert_sound(&queue).await;
    }
}

#[tokio::test]
async fn an_updated_payload_of_any_length_leaves_everything_else_of_the_job() {
    let queue = queue().await;
    let options = JobOptions { attempts: Some(7), ..JobOptions::default() }.encode();
    let envelope = Envelope {
        payload: b"short",
        fingerprint: Some([3; 7]),
        enqueued_at: Some(SystemTime::UNIX_EPOCH + LONG),
        name: Some("mail"),
        feed: Some("feed"),
        options: Some(&options),
        traceparent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
    };
    let job = NewJob { priority: 3, ..NewJob::new(id("a"), envelope) };
    queue.add(&[job], PAYLOAD_MAX).await.unwrap();
    let before = queue.find(&id("a")).await.unwrap().unwrap().job;
    for length in [0, 1, 255, 256, 65_535, 65_536, 1 << 20] {
        let payload = vec![b'x'; length];
        assert_eq!(queue.update_payload(&id("a"), &payload, PAYLOAD_MAX).await.unwrap(), Operated::Done);
        let found = queue.find(&id("a")).await.unwrap().unwrap();
        assert_eq!((found.job.payload(), found.state.name()), (&payload[..], "prioritized"));
        let kept = |job: &feedmill::job::Job| {
            (
                job.head.clone(),
                job.fingerprint,
                job.enqueued_at,
                job.name.clone(),
                job.feed.clone(),
                job.options.clone(),
            )
        };
        assert_eq!(kept(&found.job), kept(&before));
    }
    let too_large = queue.update_payload(&id("a"), &[0; 11], 10).await.unwrap_err();
    assert!(matches!(too_large, QueueError::PayloadTooLarge { bytes: 11, limit_bytes: 10, .. }), "{too_large}");
}

#[tokio::test]
async fn a_job_with_a_damaged_envelope_keeps_it_and_can_be_removed() {
    let queue = queue().await;
    add(&queue, "a").await;
    let () = connection(&queue).await.setrange(queue.keys().job(&id("a")), 30, b"\xc1\xc1\xc1").await.unwrap();
    let updated = queue.update_payload(&id("a"), b"x", PAYLOAD_MAX).await.unwrap();
    assert_eq!(updated, Operated::Refused(StateName::Unknown));
    assert_eq!(queue.remove(&[id("a")], forget_record).await.unwrap(), [Operated::Done]);
    assert_sound(&queue).await;
}

// ── cancelling ─────────────────────────────────────────────────────────────────────────────────────────────────────

async fn a_cancelled_job_is_noted_for_its_consumer(url: &str) {
    let queue = queue_with_groups(url).await;
    let consumer = Consumer::of_this_process();
    let mut held = Vec::new();
    for job in ["a", "b", "c"] {
        queue.add(&[NewJob { priority: u32::from(job == "b"), ..new_job(&id(job)) }], PAYLOAD_MAX).await.unwrap();
        held.push(read_one(&queue, &consumer.name).await.lease);
    }
    for job in ["a", "b"] {
        assert_eq!(queue.cancel(&id(job)).await.unwrap(), Operated::Done);
    }
    let letters = queue.dead_letters(None, 10).await.unwrap();
    let said: Vec<_> = letters.iter().map(|letter| (letter.reason.as_str(), letter.consumer.as_str())).collect();
    assert_eq!(said, [(CANCELLED, consumer.name.as_str()); 2]);
    let notes: BTreeSet<_> = queue.heartbeat(&consumer, 3).await.unwrap().into_iter().map(|note| note.1).collect();
    assert_eq!(notes, held[..2].iter().map(|lease| lease.entry).collect());
    assert_eq!(queue.heartbeat(&consumer, 3).await.unwrap(), [], "they are taken once");
    queue.cancel(&id("c")).await.unwrap();
    queue.reap_consumers(Some(&consumer.name)).await.unwrap();
    let left: bool = connection(&queue).await.exists(queue.keys().consumer_cancelled(&consumer.name)).await.unwrap();
    assert!(!left, "the notes go with their consumer");
    assert_sound(&queue).await;
}

#[tokio::test]
async fn a_cancelled_job_can_be_redriven_and_its_import_counts_it() {
    let queue = queue().await;
    let fetch = Fetch::begin(&queue, "feed").await;
    fetch.enqueue(&queue, &["a"]).await;
    queue.cancel(&id("a")).await.unwrap();
    assert_eq!(fetch.counts(&queue).await, counts(&[("new", 1), ("failed", 1), ("failures", 1)]));
    assert_eq!(queue.counts().await.unwrap().totals["failed"], 1);
    assert_sound(&queue).await;
    assert_eq!(queue.retry(&[id("a")]).await.unwrap(), [Operated::Done]);
    assert_eq!(read_one(&queue, "worker").await.job.attempt(), 1);
    assert_sound(&queue).await;
}

#[tokio::test]
async fn notes_for_a_consumer_that_does_not_take_them_are_bounded_and_expire() {
    let queue = queue().await;
    let mut redis = connection(&queue).await;
    let notes = queue.keys().consumer_cancelled("worker");
    let () = redis.sadd(&notes, (0..1000).collect::<Vec<_>>()).await.unwrap();
    add_many(&queue, "job", 2).await;
    read(&mut queue.reader("worker"), 2).await;
    assert_eq!(queue.cancel(&id("job-0")).await.unwrap(), Operated::Done);
    let () = redis.del(&notes).await.unwrap();
    assert_eq!(queue.cancel(&id("job-1")).await.unwrap(), Operated::Done);
    let (n, left): (u64, i64) = (redis.scard(&notes).await.unwrap(), redis.pttl(&notes).await.unwrap());
    assert!(n == 1 && (1..=60_000).contains(&left), "{n} for {left} ms");
    assert_eq!(queue.counts().await.unwrap().failed, 2);
}

#[tokio::test]
async fn a_running_handler_learns_that_its_job_was_cancelled_and_the_others_go_on() {
    let queue = queue().await;
    let (started, mut starts) = mpsc::unbounded_channel();
    let (told, mut tells) = mpsc::unbounded_channel();
    let worker = each(&queue, options(), move |job| {
        let (started, told) = (started.clone(), told.clone());
        async move {
            started.send(()).unwrap();
            job.cancelled.cancelled().await;
            told.send(job.job.id).unwrap();
            Ok(Outcome::Done)
        }
    });
    // Idle first: the worker must not sleep through its heartbeat when it gets jobs.
    add_many(&queue, "job", 2).await;
    for _ in 0..2 {
        starts.recv().await.unwrap();
    }
    let cancelled_at = tokio::time::Instant::now();
    queue.cancel(&id("job-1")).await.unwrap();
    assert_eq!(tells.recv().await, Some(id("job-1")));
    let took = cancelled_at.elapsed();
    assert!(took < Duration::from_secs(3), "about a second, took {took:?}");
    assert!(tells.try_recv().is_err());
    assert_eq!(state(&queue, &id("job-1")).await, Some(StateName::Failed), "what it says changes nothing");
    assert_eq!(state(&queue, &id("job-0")).await, Some(StateName::Active));
    queue.cancel(&id("job-0")).await.unwrap();
    tells.recv().await.unwrap();
    worker.stop().await;
    assert_eq!(queue.counts().await.unwrap().totals.get("completed"), None);
    assert_sound(&queue).await;
}

#[tokio::test]
async fn a_handler_that_does_not_end_is_stopped_and_its_slot_is_free() {
    /// Tells that it was dropped.
    struct Stopped(mpsc::UnboundedSender<()>);
    impl Drop for Stopped {
        fn drop(&mut self) {
            // at the end of the test nobody listens
            let _ = self.0.send(());
        }
    }
    let queue = queue().await;
    let (started, mut starts) = mpsc::unbounded_channel();
    let (stopped, mut stops) = mpsc::unbounded_channel();
    let one_at_a_time = feedmill::worker::WorkerOptions { concurrency: 1, ..options() };
    let worker = each(&queue, one_at_a_time, move |job| {
        let (started, stopped) = (started.clone(), stopped.clone());
        async move {
            started.send(job.job.id.clone()).unwrap();
            if job.job.id == id("stuck") {
                let _stopped = Stopped(stopped);
                std::future::pending::<()>().await;
            }
            Ok(Outcome::Done)
        }
    });
    add(&queue, "stuck").await;
    assert_eq!(starts.recv().await, Some(id("stuck")));
    add(&queue, "next").await;
    queue.cancel(&id("stuck")).await.unwrap();
    let stopped = tokio::time::timeout(Duration::from_secs(20), stops.recv()).await;
    assert_eq!(stopped.expect("a while after it was told"), Some(()));
    assert_eq!(starts.recv().await, Some(id("next")));
    worker.stop().await;
    let now = queue.counts().await.unwrap();
    assert_eq!((now.failed, now.totals["completed"], now.active), (1, 1, 0));
    assert_eq!(now.totals.get("retried"), None, "it used no attempt");
    assert_sound(&queue).await;
}

#[tokio::test]
async fn one_cancelled_job_of_a_batch_does_not_end_the_batch() {
    let queue = queue().await;
    let (started, mut starts) = mpsc::unbounded_channel();
    let go_on = Arc::new(tokio::sync::Notify::new());
    let options = feedmill::worker::WorkerOptions { batch_size: 3, ..options() };
    let worker = batches(&queue, options, {
        let go_on = go_on.clone();
        move |jobs| {
            let (started, go_on) = (started.clone(), go_on.clone());
            async move {
                started.send(jobs.len()).unwrap();
                let cancelled = jobs.iter().find(|job| job.job.id == id("job-1")).unwrap();
                cancelled.cancelled.cancelled().await;
                go_on.notified().await;
                Ok(vec![Outcome::Done; jobs.len()])
            }
        }
    });
    add_many(&queue, "job", 3).await;
    assert_eq!(starts.recv().await, Some(3));
    queue.cancel(&id("job-1")).await.unwrap();
    go_on.notify_one();
    let now = async || queue.counts().await.unwrap();
    crate::support::wait::until(Duration::from_secs(10), async || now().await.totals.get("completed") == Some(&2))
        .await;
    worker.stop().await;
    assert_eq!((now().await.failed, now().await.active), (1, 0));
    assert_sound(&queue).await;
}

#[tokio::test]
async fn a_handler_learns_that_its_lease_was_lost() {
    let queue = queue().await;
    let (told, mut tells) = mpsc::unbounded_channel();
    let (started, mut starts) = mpsc::unbounded_channel();
    let mut options = options();
    options.claim.lock_duration = Duration::from_millis(200); // renewed at half of it
    let worker = each(&queue, options, move |job| {
        let (started, told) = (started.clone(), told.clone());
        async move {
            started.send(job.lease.clone()).unwrap();
            job.cancelled.cancelled().await;
            told.send(()).unwrap();
            Ok(Outcome::Done)
        }
    });
    add(&queue, "a").await;
    let lease = starts.recv().await.unwrap();
    queue.pause().await.unwrap(); // or the worker would read it again
    queue.give_back(&[lease]).await.unwrap();
    tells.recv().await.unwrap();
    worker.stop().await;
    assert_eq!(state(&queue, &id("a")).await, Some(StateName::Waiting));
    assert_sound(&queue).await;
}

// ── retention ──────────────────────────────────────────────────────────────────────────────────────────────────────

/// Adds jobs with their own wish for the end, reads them, and returns their leases.
async fn with_on_fail(queue: &Queue, name: &str, jobs: usize, on_fail: Keep) -> Vec<Lease> {
    let options = JobOptions { on_fail: Some(on_fail), ..JobOptions::default() }.encode();
    let envelope = Envelope { payload: b"{}", options: Some(&options), ..Envelope::default() };
    let new: Vec<NewJob<'_>> = (0..jobs).map(|n| NewJob::new(id(format!("{name}-{n}")), envelope)).collect();
    queue.add(&new, PAYLOAD_MAX).await.unwrap();
    read(&mut queue.reader("worker"), jobs).await.into_iter().map(|delivery| delivery.lease).collect()
}

#[tokio::test]
async fn a_job_that_is_not_to_be_kept_when_it_fails_leaves_nothing_behind() {
    let queue = queue().await;
    add_many(&queue, "kept", 2).await;
    bury_all(&queue, "bad").await;
    let before = keys(&queue).await.len();
    let leases = with_on_fail(&queue, "job", 2, Keep::Nothing).await;
    queue.bury("worker", &leases.into_iter().map(burial).collect::<Vec<_>>()).await.unwrap();
    assert_eq!(keys(&queue).await.len(), before);
    let now = queue.counts().await.unwrap();
    assert_eq!((now.failed, now.totals["failed"], now.totals["discarded"]), (2, 4, 2), "it counts all the same");
    assert_sound(&queue).await;
}

#[tokio::test]
async fn a_stalled_job_over_the_limit_is_kept_as_it_says_too() {
    let queue = queue().await;
    with_on_fail(&queue, "job", 1, Keep::Nothing).await;
    let limits = feedmill::queue::claim::ClaimLimits {
        lock_duration: Duration::ZERO,
        stalled_interval: Duration::from_millis(1),
        max_stalled_count: 0,
    };
    assert_eq!(queue.sweeper("other", limits).sweep().await.unwrap().buried, 1);
    assert_eq!(queue.counts().await.unwrap().failed, 0);
    assert_sound(&queue).await;
}

#[tokio::test]
async fn a_job_may_keep_the_newest_dead_letters_alone() {
    let queue = queue().await;
    add_many(&queue, "older", 5).await;
    bury_all(&queue, "bad").await;
    let leases = with_on_fail(&queue, "job", 2, Keep::Newest { count: Some(3), age: None }).await;
    queue.bury("worker", &leases.into_iter().map(burial).collect::<Vec<_>>()).await.unwrap();
    let left = queue.dead_letters(None, 10).await.unwrap();
    let left: Vec<JobId> = left.into_iter().filter_map(|letter| letter.id).collect();
    assert_eq!(left, ["older-4", "job-0", "job-1"].map(id));
    assert_sound(&queue).await;
    // The others are to be older than that by the clock of Redis, and the last one is not, however slow its burial.
    let age = Duration::from_secs(1);
    let leases = with_on_fail(&queue, "last", 1, Keep::Newest { count: None, age: Some(age) }).await;
    let buried = queue.time().await.unwrap();
    crate::support::wait::until(Duration::from_secs(10), async || queue.time().await.unwrap() > buried + age).await;
    queue.bury("worker", &[burial(leases[0].clone())]).await.unwrap();
    let left = queue.dead_letters(None, 10).await.unwrap();
    assert_eq!(left.into_iter().filter_map(|letter| letter.id).collect::<Vec<_>>(), [id("last-0")]);
    assert_sound(&queue).await;
}

#[tokio::test]
async fn items_of_feeds_are_left_to_who_can_make_their_feed_forget_them() {
    let queue = queue().await;
    let fetch = Fetch::begin(&queue, "feed").await;
    fetch.enqueue(&queue, &["a"]).await;
    bury_all(&queue, "bad").await;
    let leases = with_on_fail(&queue, "job", 1, Keep::Newest { count: Some(0), age: None }).await;
    queue.bury("worker", &[burial(leases[0].clone())]).await.unwrap();
    let left = queue.dead_letters(None, 10).await.unwrap();
    assert_eq!(left.into_iter().filter_map(|letter| letter.id).collect::<Vec<_>>(), [id("a")]);
    let retention = Retention { count: Some(0), age: None };
    assert_eq!(queue.retain_dead_letters(retention, SystemTime::now(), forget_record).await.unwrap(), 1);
    assert_sound(&queue).await;
}

#[tokio::test]
async fn completed_jobs_beyond_the_count_or_the_age_go_oldest_first() {
    let queue = queue().await;
    let ids = add_many(&queue, "job", 300).await;
    let ended: Vec<Done> =
        read(&mut queue.reader("worker"), 300).await.into_iter().map(|read| Done::new(read.lease)).collect();
    queue.done(&ended, Keep::All).await.unwrap();
    for keep in [Keep::All, Keep::Nothing] {
        assert_eq!(queue.retain_completed(keep).await.unwrap(), 0);
    }
    let newest = |count, age| Keep::Newest { count, age };
    assert_eq!(queue.retain_completed(newest(Some(300), Some(LONG))).await.unwrap(), 0);
    assert_eq!(queue.retain_completed(newest(Some(10), None)).await.unwrap(), 256, "a call's worth");
    assert_eq!(queue.retain_completed(newest(Some(10), None)).await.unwrap(), 34);
    assert_eq!(queue.counts().await.unwrap().completed, 10);
    let an_hour_ago = (queue.time().await.unwrap() - LONG).duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let mut redis = connection(&queue).await;
    let last = ids.last().unwrap().as_bytes();
    let () = redis.zadd(queue.keys().completed(), last, an_hour_ago.as_millis() as u64).await.unwrap();
    assert_eq!(queue.retain_completed(newest(None, Some(LONG / 2))).await.unwrap(), 1);
    assert!(queue.find(ids.last().unwrap()).await.unwrap().is_none());
    assert_sound(&queue).await;
}
