//! BullMQ and feedmill side by side: the same operations on the real BullMQ 6 and on our engine, compared after each.
//!
//! Nothing is compared loosely. Where a difference is meant it is a row of [`MEANT`], and the place that allows for it
//! names the row; everything else must be equal.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, SystemTime},
};

use feedmill::{
    job::{Envelope, Growth, JobOptions, Keep, Outcome, Place, RetryPolicy},
    metrics::{self, queues::QueueReadings},
    queue::{
        Events, GROUP, Queue, Redis,
        claim::ClaimLimits,
        enqueue::NewJob,
        find::{Found, State},
        operated::{Operated, StateName},
    },
    worker::WorkerOptions,
};
use redis::{AsyncCommands as _, aio::MultiplexedConnection, streams::StreamRangeReply};
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};

use crate::support::{
    audit::assert_sound,
    bullmq::{BullMq, Version},
    jobs::{PAYLOAD_MAX, connection, forget_record, id},
    redis_prefix,
    servers::SharedServers,
    workers::{Running, each, options},
};

/// The differences that are meant, by the first column of their row in `docs/bullmq.md`, where the reason stands.
const MEANT: &[&str] = &[
    ID_OF_A_FAILED_JOB,
    REDRIVE,
    STALLED_OVER_THE_LIMIT,
    STALLED_WITH_A_PRIORITY,
    STALLS_WHILE_PAUSED,
    PRIORITY_BEFORE_PLAIN,
    UPDATE_OF_A_COMPLETED_JOB,
];
const ID_OF_A_FAILED_JOB: &str = "id of a failed job";
const REDRIVE: &str = "redrive";
const STALLED_OVER_THE_LIMIT: &str = "stalled over the limit";
const STALLED_WITH_A_PRIORITY: &str = "stalled job with a priority";
const STALLS_WHILE_PAUSED: &str = "stalls of a paused queue";
const PRIORITY_BEFORE_PLAIN: &str = "jobs with a priority";
const UPDATE_OF_A_COMPLETED_JOB: &str = "new data for a completed job";

/// What both say when a job stalled too often.
const STALLED: &str = "job stalled more than allowable limit";
/// Longer than a test, so that nothing is due, and no lock lost, before somebody says so.
const LONG: Duration = Duration::from_hours(2);
/// How far two clocks readings in one step may be apart on a loaded machine.
const STEP: Duration = Duration::from_mins(1);
/// The states both count.
const STATES: [&str; 7] = ["active", "completed", "delayed", "failed", "prioritized", "waiting", "waiting-children"];

/// One queue in both.
struct Pair {
    bull: BullMq,
    name: String,
    queue: Queue,
    redis: MultiplexedConnection,
    max_stalled_count: u8,
    /// Every id that was ever added.
    ids: BTreeSet<String>,
    /// What workers of ours have.
    held: BTreeMap<String, HeldJob>,
}

/// A job in the hands of a worker of ours that does nothing else.
struct HeldJob {
    decide: oneshot::Sender<Outcome>,
    worker: Running,
}

/// How a handling ends, on both sides.
#[derive(Clone, Copy, Debug)]
enum Ends {
    Done,
    Throws,
    Unrecoverable,
    Later,
}

#[derive(Clone, Copy, Debug, Default)]
struct Add {
    delay: Duration,
    priority: u32,
    attempts: Option<u8>,
    backoff: Option<(Growth, Duration)>,
}

impl Pair {
    async fn new(bull: BullMq, name: &str, max_stalled_count: u8) -> Self {
        let redis = Redis::connect(&SharedServers::of_this_run().redis_url(), &redis_prefix()).await.unwrap();
        let queue = Queue::open(&redis, name, Events::All).await.unwrap();
        let redis = connection(&queue).await;
        let (ids, held) = (BTreeSet::new(), BTreeMap::new());
        let mut pair = Self { bull, name: name.to_owned(), queue, redis, max_stalled_count, ids, held };
        let options = json!({
            "maxStalledCount": max_stalled_count,
            "lockDuration": LONG.as_millis() as u64,
            "metrics": {"maxDataPoints": 60},
        });
        pair.bull.worker(name, &options);
        pair
    }

    fn options(&self) -> WorkerOptions {
        let claim =
            ClaimLimits { lock_duration: LONG, stalled_interval: LONG, max_stalled_count: self.max_stalled_count };
        WorkerOptions {
            concurrency: 1,
            attempts: 1,
            retry_policy: RetryPolicy { growth: Growth::Fixed, delay: Duration::ZERO, max: LONG, jitter: 0.0 },
            claim,
            on_complete: Keep::All,
            shutdown_timeout: LONG,
            ..options()
        }
    }

    // ── operations ─────────────────────────────────────────────────────────────────────────────────────────────────

    async fn add(&mut self, job: &str, data: &Value, add: Add) {
        // ID_OF_A_FAILED_JOB: ours takes it over; BullMQ is helped to do the same.
        if self.our_state(job).await == "failed" {
            let name = self.name.clone();
            self.bull.job(&name, job, "remove", &json!([]));
        }
        let mut options = json!({"jobId": job});
        if !add.delay.is_zero() {
            options["delay"] = json!(add.delay.as_millis() as u64);
        }
        if add.priority > 0 {
            options["priority"] = json!(add.priority);
        }
        if let Some(attempts) = add.attempts {
            options["attempts"] = json!(attempts);
        }
        if let Some((growth, delay)) = add.backoff {
            let kind = if growth == Growth::Fixed { "fixed" } else { "exponential" };
            options["backoff"] = json!({"type": kind, "delay": delay.as_millis() as u64});
        }
        let name = self.name.clone();
        self.bull.add(&name, data, &options);

        let backoff = add.backoff.map(|(growth, delay)| RetryPolicy { growth, delay, max: LONG * 1000, jitter: 0.0 });
        let options = JobOptions { attempts: add.attempts, backoff, ..JobOptions::default() }.encode();
        let payload = data.to_string().into_bytes();
        let envelope = Envelope { payload: &payload, options: Some(&options), ..Envelope::default() };
        let new = NewJob { delay: add.delay, priority: add.priority, ..NewJob::new(id(job), envelope) };
        self.queue.add(&[new], PAYLOAD_MAX).await.unwrap();
        self.ids.insert(job.to_owned());
    }

    /// Both take everything that waits.
    async fn take_all(&mut self) {
        let mut theirs = BTreeSet::new();
        while let Some(job) = self.bull.take(&self.name) {
            if job["settled"] == false {
                theirs.insert(job["id"].as_str().unwrap().to_owned());
            }
        }
        let counts = self.queue.counts().await.unwrap();
        let waiting = if counts.is_paused { 0 } else { counts.waiting + counts.prioritized };
        let mut ours = BTreeSet::new();
        for _ in 0..waiting {
            let (taken, mut arrivals) = mpsc::unbounded_channel();
            let worker = each(&self.queue, self.options(), move |delivery| {
                let (decide, decided) = oneshot::channel();
                taken.send((delivery.job.id.to_string(), decide)).unwrap();
                async move { Ok(decided.await.unwrap()) }
            });
            let (job, decide) = arrivals.recv().await.unwrap();
            worker.take_no_more();
            ours.insert(job.clone());
            self.held.insert(job, HeldJob { decide, worker });
        }
        assert_eq!(ours, theirs);
    }

    async fn settle(&mut self, job: &str, ends: Ends) {
        let reason = format!("{job} fails");
        let (theirs, ours) = match ends {
            Ends::Done => (json!({"do": "done", "result": 7}), Outcome::DoneWith("7".to_owned())),
            Ends::Throws => (json!({"do": "throw", "reason": reason}), Outcome::Retry(reason)),
            Ends::Unrecoverable => (json!({"do": "unrecoverable", "reason": reason}), Outcome::Fail(reason)),
            Ends::Later => (json!({"do": "delay", "ms": LONG.as_millis() as u64}), Outcome::Snooze(LONG)),
        };
        self.bull.settle(&self.name, job, &theirs);
        let held = self.held.remove(job).unwrap();
        held.decide.send(ours).unwrap();
        held.worker.stop().await;
        // BullMQ puts what may be tried again at once back to waiting in the same step, ours when it looks what is due.
        self.queue.promote().await.unwrap();
    }

    /// The workers with these jobs die, and both look for stalled jobs after the locks have expired.
    async fn stall(&mut self, jobs: &[String]) {
        for job in jobs {
            self.bull.call(&json!({"do": "abandon", "queue": self.name, "id": job}));
            let held = self.held.remove(job).unwrap();
            let consumer = held.worker.consumer.clone();
            held.worker.crash().await;
            let head = self.ours(job).await.unwrap().job.head;
            let keys = self.queue.keys();
            let lane = if head.place == Place::Prioritized { keys.prioritized_active() } else { keys.stream() };
            let mut age = redis::cmd("XCLAIM");
            age.arg(lane).arg(GROUP).arg(consumer).arg(0).arg(head.entry.unwrap().to_string());
            age.arg("IDLE").arg((LONG * 2).as_millis() as u64).arg("JUSTID");
            age.exec_async(&mut self.redis).await.unwrap();
        }
        let stalled = self.bull.call(&json!({"do": "stalled_check", "queue": self.name}));
        let theirs: BTreeSet<&str> = stalled.as_array().unwrap().iter().map(|job| job.as_str().unwrap()).collect();
        self.redis.del::<_, ()>(self.queue.keys().sweep()).await.unwrap();
        let swept = self.queue.sweeper("sweeper", self.options().claim).sweep().await.unwrap();
        let ours: BTreeSet<String> = swept.stalled.iter().map(ToString::to_string).collect();
        assert!(swept.swept && ours.iter().map(String::as_str).eq(theirs.iter().copied()), "{ours:?} {theirs:?}");
        assert_eq!(ours, jobs.iter().cloned().collect());
    }

    /// An operation on one job; both carry it out, or both refuse.
    async fn operate(&mut self, job: &str, method: &str, args: Value, ours: Operated) {
        let call = json!({"do": "job", "queue": self.name, "id": job, "method": method, "args": args});
        let theirs = self.bull.try_call(&call);
        assert_eq!(ours == Operated::Done, theirs.is_ok(), "{method} {job}: {ours:?}, but BullMQ: {theirs:?}");
    }

    async fn promote(&mut self, job: &str) {
        let ours = self.queue.promote_now(&[id(job)]).await.unwrap()[0];
        self.operate(job, "promote", json!([]), ours).await;
    }

    async fn remove(&mut self, job: &str) {
        let ours = self.queue.remove(&[id(job)], forget_record).await.unwrap()[0];
        self.operate(job, "remove", json!([]), ours).await;
    }

    async fn retry(&mut self, job: &str) {
        let state = if self.our_state(job).await == "completed" { "completed" } else { "failed" };
        let ours = self.queue.retry(&[id(job)]).await.unwrap()[0];
        // REDRIVE: ours starts at attempt 1 again; BullMQ does when it is told to.
        let reset = json!([state, {"resetAttemptsMade": true, "resetAttemptsStarted": true}]);
        self.operate(job, "retry", reset, ours).await;
    }

    async fn change_delay(&mut self, job: &str, delay: Duration) {
        let ours = self.queue.change_delay(&id(job), delay).await.unwrap();
        self.operate(job, "changeDelay", json!([delay.as_millis() as u64]), ours).await;
    }

    async fn change_priority(&mut self, job: &str, priority: u32) {
        let ours = self.queue.change_priority(&id(job), priority).await.unwrap();
        self.operate(job, "changePriority", json!([{"priority": priority}]), ours).await;
    }

    async fn update_data(&mut self, job: &str, data: &Value) {
        let ours = self.queue.update_payload(&id(job), data.to_string().as_bytes(), PAYLOAD_MAX).await.unwrap();
        if ours == Operated::Refused(StateName::Completed) {
            return; // UPDATE_OF_A_COMPLETED_JOB
        }
        self.operate(job, "updateData", json!([data]), ours).await;
    }

    async fn pause(&mut self) {
        self.bull.queue(&self.name, "pause", &json!([]));
        self.queue.pause().await.unwrap();
    }

    async fn resume(&mut self) {
        self.bull.queue(&self.name, "resume", &json!([]));
        self.queue.resume().await.unwrap();
    }

    async fn drain(&mut self, delayed: bool) {
        self.bull.queue(&self.name, "drain", &json!([delayed]));
        let mut walk = self.queue.drain(delayed, forget_record);
        while walk.step().await.unwrap().is_some() {}
    }

    async fn clean(&mut self, state: StateName) {
        let kind = if state == StateName::Waiting { "wait" } else { state.name() };
        self.bull.queue(&self.name, "clean", &json!([0, 0, kind]));
        let mut walk = self.queue.clean(state, Duration::ZERO, None, forget_record).await.unwrap();
        while walk.step().await.unwrap().is_some() {}
    }

    async fn promote_all(&mut self) {
        self.bull.queue(&self.name, "promoteJobs", &json!([]));
        let mut walk = self.queue.promote_all().await.unwrap();
        while walk.step().await.unwrap().is_some() {}
    }

    async fn obliterate(&mut self) {
        self.pause().await;
        let (_, held) = (self.bull.queue(&self.name, "obliterate", &json!([{"force": true}])), &mut self.held);
        for (_, job) in std::mem::take(held) {
            job.worker.crash().await;
        }
        let mut walk = self.queue.obliterate(true);
        while walk.step().await.unwrap().is_some() {}
    }

    // ── comparing ──────────────────────────────────────────────────────────────────────────────────────────────────

    async fn ours(&self, job: &str) -> Option<Found> {
        self.queue.find(&id(job)).await.unwrap()
    }

    async fn our_state(&self, job: &str) -> &'static str {
        self.ours(job).await.map_or("unknown", |found| found.state.name())
    }

    /// Compares counts, and each job: state, attempts, priority, data, when it is due, and why it failed.
    async fn compare(&mut self) {
        let ids: Vec<&String> = self.ids.iter().collect();
        let looks = self.bull.call(&json!({"do": "look", "queue": self.name, "ids": ids}));
        let mut theirs: BTreeMap<&str, u64> = STATES.iter().map(|state| (*state, 0)).collect();
        let mut wanted = theirs.clone();
        for (job, look) in self.ids.clone().iter().zip(looks.as_array().unwrap()) {
            let Some(state) = STATES.into_iter().find(|state| look["state"] == *state) else {
                assert!(look.is_null(), "{look}");
                assert!(self.ours(job).await.is_none(), "BullMQ has no {job}");
                continue;
            };
            *theirs.get_mut(state).unwrap() += 1;
            let translated = translated(state, look);
            *wanted.get_mut(translated).unwrap() += 1;
            self.compare_job(job, look, translated).await;
        }
        let counted = self.bull.counts(&self.name);
        assert_eq!(counted, json!(theirs), "BullMQ agrees with itself");
        let counts = self.queue.counts().await.unwrap();
        let counts: BTreeMap<&str, u64> =
            counts.by_state().into_iter().filter(|(state, _)| STATES.contains(state)).collect();
        assert_eq!(counts, wanted);
    }

    async fn compare_job(&mut self, job: &str, look: &Value, state: &str) {
        let found = self.ours(job).await.unwrap_or_else(|| panic!("{job} is not here: {look}"));
        assert_eq!(found.state.name(), state, "{job}: {look}");
        let head = &found.job.head;
        // STALLED_OVER_THE_LIMIT: for BullMQ it was an attempt of the worker that failed it.
        let stalled_to_death = look["failedReason"] == STALLED && state == "failed";
        let attempts = look["attemptsMade"].as_u64().unwrap() - u64::from(stalled_to_death);
        assert_eq!(
            (u64::from(head.attempts), u64::from(head.priority)),
            (attempts, look["priority"].as_u64().unwrap()),
            "{job}: {look}"
        );
        let data: Value = serde_json::from_slice(found.job.payload()).unwrap();
        assert_eq!(data, look["data"], "{job}");
        match &found.state {
            State::Delayed { due_at } => {
                let key = format!("{}:{}:delayed", self.bull.prefix(), self.name);
                let score: f64 = self.redis.zscore(key, job).await.unwrap();
                let theirs = SystemTime::UNIX_EPOCH + Duration::from_millis((score / 4096.0) as u64);
                let apart = theirs.duration_since(*due_at).unwrap_or_else(|error| error.duration());
                assert!(apart < STEP, "{job} is due {apart:?} apart");
            }
            State::Failed { reason } if look["deferredFailure"].is_null() => assert_eq!(look["failedReason"], *reason),
            State::Failed { reason } => assert_eq!(look["deferredFailure"], *reason),
            _ => {}
        }
    }

    /// Names of the events of each job, in order.
    async fn compare_events(&mut self) {
        let events = self.bull.call(&json!({"do": "events", "queue": self.name}));
        let mut theirs: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for event in events.as_array().unwrap() {
            if let Some(job) = event["jobId"].as_str() {
                theirs.entry(job.to_owned()).or_default().push(event["event"].as_str().unwrap().to_owned());
            }
        }
        let reply: StreamRangeReply = self.redis.xrange_all(self.queue.keys().events()).await.unwrap();
        let mut ours: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for entry in reply.ids {
            if let Some(job) = entry.get::<String>("jobId") {
                ours.entry(job).or_default().push(entry.get("event").unwrap());
            }
        }
        assert_eq!(ours, theirs);
    }

    /// The samples of `bullmq_job_count` and of the two counters, by name and state.
    async fn compare_samples(&mut self) {
        let text = self.bull.queue(&self.name, "exportPrometheusMetrics", &json!([]));
        let theirs = samples(text.as_str().unwrap(), &self.name);
        let metrics = metrics::record().unwrap().with_queues(QueueReadings::new([self.queue.clone()]));
        let mut ours = samples(&metrics.render().await, &self.name);
        ours.retain(|(name, _), _| theirs.keys().any(|(theirs, _)| theirs == name));
        // Version 5 had this one too.
        assert_eq!(ours.remove(&("bullmq_job_count".to_owned(), "paused".to_owned())), Some(0.0));
        assert_eq!(ours, theirs);
    }
}

/// The state that a job of BullMQ has here.
fn translated<'a>(state: &'a str, look: &Value) -> &'a str {
    let stalled = look["stalledCounter"].as_u64().unwrap_or_default() > 0;
    match state {
        // STALLED_OVER_THE_LIMIT: the next worker that gets it is to fail it.
        "waiting" if look["deferredFailure"].is_string() => "failed",
        // STALLED_WITH_A_PRIORITY: BullMQ puts it to the plain ones.
        "waiting" if stalled && look["priority"] != 0 => "prioritized",
        state => state,
    }
}

/// Samples of one queue, by name and state (empty for those without one).
fn samples(text: &str, queue: &str) -> BTreeMap<(String, String), f64> {
    let mut samples = BTreeMap::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let Some((series, value)) = line.rsplit_once(' ') else { continue };
        let Some((name, labels)) = series.split_once('{') else { continue };
        let label = |name: &str| {
            let (_, rest) = labels.split_once(&format!("{name}=\""))?;
            Some(rest.split_once('"')?.0.to_owned())
        };
        if label("queue").as_deref() == Some(queue) {
            samples.insert((name.to_owned(), label("state").unwrap_or_default()), value.parse().unwrap());
        }
    }
    samples
}

#[test]
fn every_difference_that_is_meant_is_a_row_of_the_documents() {
    let documents = include_str!("../../docs/bullmq.md");
    for row in MEANT {
        assert!(documents.lines().any(|line| line.starts_with(&format!("| {row} |"))), "no row {row:?}");
    }
}

#[tokio::test]
async fn waits_between_attempts_are_those_of_bullmq() {
    let mut bull = BullMq::start(Version::V6, &SharedServers::of_this_run().redis_url());
    let mut random = fastrand::Rng::with_seed(4);
    let cases: Vec<(u8, u64, Growth)> = (0..1000)
        .map(|_| {
            let growth = if random.bool() { Growth::Exponential } else { Growth::Fixed };
            (random.u8(1..=20), random.u64(0..=60_000), growth)
        })
        .collect();
    let asked: Vec<Value> = cases
        .iter()
        .map(|(n, delay, growth)| json!([n, delay, if *growth == Growth::Fixed { "fixed" } else { "exponential" }]))
        .collect();
    let theirs = bull.call(&json!({"do": "delays", "cases": asked}));
    for ((n, delay, growth), theirs) in cases.into_iter().zip(theirs.as_array().unwrap()) {
        let policy = RetryPolicy { growth, delay: Duration::from_millis(delay), max: Duration::MAX, jitter: 0.0 };
        let ours = policy.wait(n, 0.0).as_millis() as u64;
        assert_eq!(Some(ours), theirs.as_u64(), "{growth:?} {delay} ms after attempt {n}");
    }
}

#[tokio::test]
async fn a_job_may_stall_as_often_as_in_bullmq() {
    let mut bull = BullMq::start(Version::V6, &SharedServers::of_this_run().redis_url());
    for max_stalled_count in 0..=2 {
        let mut pair = Pair::new(bull, &format!("stalls-{max_stalled_count}"), max_stalled_count).await;
        pair.add("a", &json!({}), Add { attempts: Some(3), ..Add::default() }).await;
        for stalls in 1..=max_stalled_count + 1 {
            pair.take_all().await;
            pair.stall(&["a".to_owned()]).await;
            pair.compare().await;
            let wanted = if stalls > max_stalled_count { "failed" } else { "waiting" };
            assert_eq!(pair.our_state("a").await, wanted, "after {stalls} of {max_stalled_count}");
        }
        // BullMQ's worker fails it now.
        pair.take_all().await;
        pair.compare().await;
        assert_eq!(pair.bull.counts(&pair.name)["failed"], 1);
        assert_sound(&pair.queue).await;
        bull = pair.bull;
    }
}

/// A step of a random history.
#[derive(Clone, Debug)]
enum Op {
    Add(String, Add),
    TakeAll,
    Settle(String, Ends),
    Stall(Vec<String>),
    Promote(String),
    Remove(String),
    Retry(String),
    ChangeDelay(String, Duration),
    ChangePriority(String, u32),
    UpdateData(String),
    Pause,
    Resume,
    Drain(bool),
    Clean(StateName),
    PromoteAll,
}

impl Op {
    fn random(random: &mut fastrand::Rng, pair: &Pair, is_paused: bool) -> Self {
        let job = format!("job-{}", random.u8(0..10));
        let held: Vec<String> = pair.held.keys().cloned().collect();
        let priority = if random.bool() { 0 } else { random.u32(1..5) };
        let minutes = Duration::from_mins(random.u64(10..100));
        match random.u8(0..32) {
            0..8 => {
                let growth = if random.bool() { Growth::Exponential } else { Growth::Fixed };
                let add = Add {
                    delay: if random.u8(0..3) == 0 { minutes } else { Duration::ZERO },
                    priority,
                    attempts: random.bool().then(|| random.u8(1..4)),
                    backoff: random.bool().then_some((growth, minutes)),
                };
                Self::Add(job, add)
            }
            8..12 => Self::TakeAll,
            12..19 if !held.is_empty() => {
                let ends = [Ends::Done, Ends::Throws, Ends::Throws, Ends::Unrecoverable, Ends::Later];
                Self::Settle(held[random.usize(0..held.len())].clone(), ends[random.usize(0..ends.len())])
            }
            // STALLS_WHILE_PAUSED: ours are taken over when the queue goes on.
            19 if !held.is_empty() && !is_paused => Self::Stall(held.into_iter().filter(|_| random.bool()).collect()),
            20..22 => Self::Promote(job),
            22..24 => Self::Remove(job),
            24..26 => Self::Retry(job),
            26 => Self::ChangeDelay(job, minutes),
            27 => Self::ChangePriority(job, priority),
            28 => Self::UpdateData(job),
            29 if is_paused => Self::Resume,
            29 => Self::Pause,
            30 => {
                let states = [
                    StateName::Waiting,
                    StateName::Prioritized,
                    StateName::Delayed,
                    StateName::Completed,
                    StateName::Failed,
                ];
                Self::Clean(states[random.usize(0..states.len())])
            }
            31 if random.bool() => Self::PromoteAll,
            31 => Self::Drain(random.bool()),
            _ => Self::TakeAll,
        }
    }

    async fn run(self, pair: &mut Pair, step: usize) {
        match self {
            Self::Add(job, add) => pair.add(&job, &json!({"step": step}), add).await,
            Self::TakeAll => pair.take_all().await,
            Self::Settle(job, ends) => pair.settle(&job, ends).await,
            Self::Stall(jobs) => pair.stall(&jobs).await,
            Self::Promote(job) => pair.promote(&job).await,
            Self::Remove(job) => pair.remove(&job).await,
            Self::Retry(job) => pair.retry(&job).await,
            Self::ChangeDelay(job, delay) => pair.change_delay(&job, delay).await,
            Self::ChangePriority(job, priority) => pair.change_priority(&job, priority).await,
            Self::UpdateData(job) => pair.update_data(&job, &json!({"updated": step})).await,
            Self::Pause => pair.pause().await,
            Self::Resume => pair.resume().await,
            Self::Drain(delayed) => pair.drain(delayed).await,
            Self::Clean(state) => pair.clean(state).await,
            Self::PromoteAll => pair.promote_all().await,
        }
    }
}

/// Histories of this many steps …
const STEPS: usize = 80;
/// … from so many seeds.
const HISTORIES: u64 = 20;

#[tokio::test]
async fn random_histories_lead_to_the_same_states_counts_events_and_samples() {
    let mut bull = BullMq::start(Version::V6, &SharedServers::of_this_run().redis_url());
    for seed in 0..HISTORIES {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut pair = Pair::new(bull, &format!("history-{seed}"), random.u8(0..3)).await;
        let mut is_paused = false;
        for step in 0..STEPS {
            let op = Op::random(&mut random, &pair, is_paused);
            println!("history {seed}, step {step}: {op:?}"); // shown when a comparison fails
            is_paused = matches!(op, Op::Pause) || (is_paused && !matches!(op, Op::Resume));
            op.run(&mut pair, step).await;
            pair.compare().await;
        }
        assert_sound(&pair.queue).await;
        pair.compare_events().await;
        pair.compare_samples().await;
        pair.obliterate().await;
        pair.compare().await;
        bull = pair.bull;
    }
}
