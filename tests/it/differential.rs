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
    jobs::{PAYLOAD_MAX, connection, forget_record, id, read},
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
    ATTEMPTS_MADE,
    REMOVED_EVENTS,
    DELAYED_EVENT,
    EXHAUSTED_EVENT,
    PROMOTE_ALL,
    RETRY_AT_ONCE,
    PREV_OF_REMOVED,
];
const ID_OF_A_FAILED_JOB: &str = "id of a failed job";
const REDRIVE: &str = "redrive";
const STALLED_OVER_THE_LIMIT: &str = "stalled over the limit";
const STALLED_WITH_A_PRIORITY: &str = "stalled job with a priority";
const STALLS_WHILE_PAUSED: &str = "stalls of a paused queue";
const PRIORITY_BEFORE_PLAIN: &str = "jobs with a priority";
const UPDATE_OF_A_COMPLETED_JOB: &str = "new data for a completed job";

const ATTEMPTS_MADE: &str = "attempts made";
const DELAYED_EVENT: &str = "event `delayed`";
const EXHAUSTED_EVENT: &str = "event `retries-exhausted`";
const PROMOTE_ALL: &str = "priority of a job that is promoted or retried with all";
const RETRY_AT_ONCE: &str = "retry without a wait";
const PREV_OF_REMOVED: &str = "`prev` of event `removed`";
const REMOVED_EVENTS: &str = "events of `clean` and `drain`";

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
    /// Jobs that were there after the last step.
    present: BTreeSet<String>,
    /// The last event that was looked at, in both.
    seen: (String, String),
}

/// An event without its time: of which job, its name, and the fields that both write.
type Event = (String, String, BTreeMap<&'static str, String>);

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
        let mut pair = Self {
            bull,
            name: name.to_owned(),
            queue,
            redis,
            max_stalled_count,
            ids: BTreeSet::new(),
            held: BTreeMap::new(),
            present: BTreeSet::new(),
            seen: ("-".to_owned(), "-".to_owned()),
        };
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
        // RETRY_AT_ONCE: BullMQ puts it back to waiting in the same step, ours when it looks what is due.
        self.queue.promote().await.unwrap();
    }

    /// The workers with these jobs die, and both look for stalled jobs after the locks have expired.
    async fn stall(&mut self, jobs: &[String]) {
        for job in jobs {
            self.bull.call(&json!({"do": "abandon", "queue": self.name, "id": job}));
            // Its handler waits for the word to the end.
            let HeldJob { decide: _decide, worker } = self.held.remove(job).unwrap();
            let consumer = worker.consumer.clone();
            worker.crash().await;
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
    fn operate(&mut self, job: &str, method: &str, args: &Value, ours: Operated) {
        let call = json!({"do": "job", "queue": self.name, "id": job, "method": method, "args": args});
        let theirs = self.bull.try_call(&call);
        assert_eq!(ours == Operated::Done, theirs.is_ok(), "{method} {job}: {ours:?}, but BullMQ: {theirs:?}");
    }

    async fn promote(&mut self, job: &str) {
        let ours = self.queue.promote_now(&[id(job)]).await.unwrap()[0];
        self.operate(job, "promote", &json!([]), ours);
    }

    async fn remove(&mut self, job: &str) {
        let ours = self.queue.remove(&[id(job)], forget_record).await.unwrap()[0];
        self.operate(job, "remove", &json!([]), ours);
    }

    async fn retry(&mut self, job: &str) {
        let state = if self.our_state(job).await == "completed" { "completed" } else { "failed" };
        let ours = self.queue.retry(&[id(job)]).await.unwrap()[0];
        // REDRIVE: ours starts at attempt 1 again; BullMQ does when it is told to.
        let reset = json!([state, {"resetAttemptsMade": true, "resetAttemptsStarted": true}]);
        self.operate(job, "retry", &reset, ours);
    }

    async fn change_delay(&mut self, job: &str, delay: Duration) {
        let ours = self.queue.change_delay(&id(job), delay).await.unwrap();
        self.operate(job, "changeDelay", &json!([delay.as_millis() as u64]), ours);
    }

    async fn change_priority(&mut self, job: &str, priority: u32) {
        let ours = self.queue.change_priority(&id(job), priority).await.unwrap();
        self.operate(job, "changePriority", &json!([{"priority": priority}]), ours);
    }

    async fn update_data(&mut self, job: &str, data: &Value) {
        let ours = self.queue.update_payload(&id(job), data.to_string().as_bytes(), PAYLOAD_MAX).await.unwrap();
        if ours == Operated::Refused(StateName::Completed) {
            return; // UPDATE_OF_A_COMPLETED_JOB
        }
        self.operate(job, "updateData", &json!([data]), ours);
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
        // PROMOTE_ALL: ours keeps it; BullMQ does when it promotes one job.
        for (job, look) in self.looks() {
            if look["state"] == "delayed" && look["priority"] != 0 {
                self.bull.job(&self.name, &job, "promote", &json!([]));
            }
        }
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

    /// What BullMQ has of each job; null for one that is gone.
    fn looks(&mut self) -> Vec<(String, Value)> {
        let ids: Vec<String> = self.ids.iter().cloned().collect();
        let looks = self.bull.call(&json!({"do": "look", "queue": self.name, "ids": ids}));
        ids.into_iter().zip(looks.as_array().unwrap().clone()).collect()
    }

    async fn ours(&self, job: &str) -> Option<Found> {
        self.queue.find(&id(job)).await.unwrap()
    }

    async fn our_state(&self, job: &str) -> &'static str {
        self.ours(job).await.map_or("unknown", |found| found.state.name())
    }

    /// Compares counts, and each job: state, attempts, priority, data, when it is due, and why it failed.
    async fn compare(&mut self) {
        let looks = self.looks();
        let mut theirs: BTreeMap<&str, u64> = STATES.iter().map(|state| (*state, 0)).collect();
        let mut wanted = theirs.clone();
        for (job, look) in &looks {
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
        // ATTEMPTS_MADE: BullMQ counts the one that went well too.
        let went_well = state == "completed";
        let attempts = look["attemptsMade"].as_u64().unwrap() - u64::from(stalled_to_death || went_well);
        assert_eq!(u64::from(head.attempts), attempts, "{job}: {look}");
        assert_eq!(look["priority"], head.priority, "{job}: {look}");
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

    /// Compares what both wrote to their streams of events since the last time: names and fields, in order of each job.
    async fn compare_events(&mut self, op: &Op) {
        let command = json!({"do": "events", "queue": self.name, "after": self.seen.0});
        let written = self.bull.call(&command);
        let mut theirs: Vec<Event> = Vec::new();
        for event in written.as_array().unwrap() {
            event["entry"].as_str().unwrap().clone_into(&mut self.seen.0);
            theirs.push(event_of(|field| event[field].as_str().map(str::to_owned)));
        }
        let mut present = BTreeSet::new();
        for job in &self.ids {
            if self.ours(job).await.is_some() {
                present.insert(job.clone());
            }
        }
        let gone: Vec<String> = self.present.difference(&present).cloned().collect();
        self.present = present;
        let doomed = |event: &Event| event.2.get("failedReason").is_some_and(|reason| reason == STALLED);
        match op {
            // ID_OF_A_FAILED_JOB
            Op::Add(..) => theirs.retain(|event| event.1 != "removed"),
            // STALLED_OVER_THE_LIMIT: the next worker failed it, as an attempt.
            Op::TakeAll => {
                let late: Vec<String> =
                    theirs.iter().filter(|event| doomed(event)).map(|event| event.0.clone()).collect();
                let ends = ["active", "failed", "retries-exhausted"];
                theirs.retain(|event| !late.contains(&event.0) || !ends.contains(&event.1.as_str()));
                theirs.retain(|event| late.is_empty() || event.1 != "drained");
            }
            Op::Stall(_) => {
                let mut failed = Vec::new();
                for job in &self.present {
                    if self.our_state(job).await == "failed" {
                        failed.push(job.clone());
                    }
                }
                theirs.retain(|event| event.1 != "waiting" || !failed.contains(&event.0));
                let late = theirs.clone().into_iter().filter(|event| failed.contains(&event.0));
                theirs.extend(late.map(|(job, ..)| {
                    let fields = [("failedReason", STALLED.to_owned()), ("prev", "active".to_owned())];
                    (job, "failed".to_owned(), BTreeMap::from(fields))
                }));
            }
            Op::Clean(_) | Op::Drain(_) => {
                theirs.retain(|event| event.1 != "cleaned");
                theirs.extend(gone.into_iter().map(|job| (job, "removed".to_owned(), BTreeMap::new())));
            }
            // RETRY_AT_ONCE: it is delayed by nothing, and then promoted.
            Op::Settle(_, Ends::Throws) => {
                let prev = |state: &str| BTreeMap::from([("prev", state.to_owned())]);
                let at_once = |event: &Event| event.1 == "waiting" && event.2 == prev("active");
                if let Some(at) = theirs.iter().position(at_once) {
                    theirs[at].2 = prev("delayed");
                    theirs.insert(at, (theirs[at].0.clone(), "delayed".to_owned(), BTreeMap::new()));
                }
            }
            // PREV_OF_REMOVED: BullMQ has the name of its list there.
            Op::Remove(_) => {
                let waited = theirs.iter_mut().filter(|event| event.2.get("prev").is_some_and(|prev| prev == "wait"));
                waited.for_each(|event| drop(event.2.insert("prev", "waiting".to_owned())));
            }
            // EXHAUSTED_EVENT: no attempt was left either, but that is not why it was given up.
            Op::Settle(_, Ends::Unrecoverable) => theirs.retain(|event| event.1 != "retries-exhausted"),
            _ => {}
        }

        let after = if self.seen.1 == "-" { "-".to_owned() } else { format!("({}", self.seen.1) };
        let reply: StreamRangeReply = self.redis.xrange(self.queue.keys().events(), after, "+").await.unwrap();
        let mut ours: Vec<Event> = Vec::new();
        for entry in reply.ids {
            let mut event = event_of(|field| entry.get(field));
            if event.1 == "delayed" {
                event.2.remove("failedReason"); // DELAYED_EVENT
            }
            ours.push(event);
            self.seen.1 = entry.id;
        }
        if matches!(op, Op::Clean(_) | Op::Drain(_)) {
            ours.iter_mut().filter(|event| event.1 == "removed").for_each(|event| event.2.clear());
        }
        // Between jobs there is no order that both must keep.
        theirs.sort_by(|a, b| a.0.cmp(&b.0));
        ours.sort_by(|a, b| a.0.cmp(&b.0));
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

fn event_of(field: impl Fn(&str) -> Option<String>) -> Event {
    let fields = ["prev", "failedReason", "returnvalue", "attemptsMade"];
    let fields = fields.into_iter().filter_map(|name| Some((name, field(name)?))).collect();
    (field("jobId").unwrap_or_default(), field("event").unwrap(), fields)
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

#[tokio::test]
async fn jobs_come_in_the_order_of_bullmq() {
    let bull = BullMq::start(Version::V6, &SharedServers::of_this_run().redis_url());
    let mut pair = Pair::new(bull, "order", 1).await;
    for (job, priority) in
        [("low", 20), ("a", 0), ("high", 1), ("b", 0), ("middle", 7), ("second", 1), ("last", 2_097_151)]
    {
        pair.add(job, &json!({}), Add { priority, ..Add::default() }).await;
    }
    pair.change_priority("low", 3).await;
    pair.change_priority("b", 2).await;
    pair.change_priority("second", 0).await;
    pair.compare().await;
    let mut theirs = Vec::new();
    while let Some(job) = pair.bull.take("order") {
        theirs.push(job["id"].as_str().unwrap().to_owned());
    }
    let taken = read(&mut pair.queue.reader("reads"), 100).await;
    let ours: Vec<String> = taken.iter().map(|delivery| delivery.job.id.to_string()).collect();
    // PRIORITY_BEFORE_PLAIN: both lanes have the same order, but the other one is first.
    let plain = |job: &&String| ["a", "second"].contains(&job.as_str());
    let (theirs_plain, theirs_prioritized): (Vec<_>, Vec<_>) = theirs.iter().partition(plain);
    assert_eq!(theirs, [&theirs_plain[..], &theirs_prioritized].concat().into_iter().cloned().collect::<Vec<_>>());
    assert_eq!(ours, [theirs_prioritized, theirs_plain].concat().into_iter().cloned().collect::<Vec<_>>());
    assert_eq!(ours, ["high", "b", "low", "middle", "last", "a", "second"]);
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
        let job = format!("job-{}", random.u8(0..8));
        let held: Vec<String> = pair.held.keys().cloned().collect();
        let priority = if random.bool() { 0 } else { random.u32(1..5) };
        let minutes = Duration::from_mins(random.u64(10..100));
        match random.u8(0..40) {
            0..6 => Self::TakeAll,
            6..18 if !held.is_empty() => {
                let ends = [Ends::Done, Ends::Throws, Ends::Throws, Ends::Unrecoverable, Ends::Later];
                Self::Settle(held[random.usize(0..held.len())].clone(), ends[random.usize(0..ends.len())])
            }
            // STALLS_WHILE_PAUSED: ours are taken over when the queue goes on.
            18..20 if !held.is_empty() && !is_paused => {
                Self::Stall(held.into_iter().filter(|_| random.bool()).collect())
            }
            20..22 => Self::Promote(job),
            22 => Self::Remove(job),
            23..26 => Self::Retry(job),
            26 => Self::ChangeDelay(job, minutes),
            27 => Self::ChangePriority(job, priority),
            28 => Self::UpdateData(job),
            29..31 if is_paused => Self::Resume,
            29 => Self::Pause,
            31 if random.bool() => {
                let states = [
                    StateName::Waiting,
                    StateName::Prioritized,
                    StateName::Delayed,
                    StateName::Completed,
                    StateName::Failed,
                ];
                Self::Clean(states[random.usize(0..states.len())])
            }
            32 => Self::PromoteAll,
            33 if random.u8(0..3) == 0 => Self::Drain(random.bool()),
            _ => {
                let growth = if random.bool() { Growth::Exponential } else { Growth::Fixed };
                let add = Add {
                    delay: if random.u8(0..3) == 0 { minutes } else { Duration::ZERO },
                    priority,
                    attempts: random.bool().then(|| random.u8(1..4)),
                    backoff: random.bool().then_some((growth, minutes)),
                };
                Self::Add(job, add)
            }
        }
    }

    async fn run(&self, pair: &mut Pair, step: usize) {
        match self {
            Self::Add(job, add) => pair.add(job, &json!({"step": step}), *add).await,
            Self::TakeAll => pair.take_all().await,
            Self::Settle(job, ends) => pair.settle(job, *ends).await,
            Self::Stall(jobs) => pair.stall(jobs).await,
            Self::Promote(job) => pair.promote(job).await,
            Self::Remove(job) => pair.remove(job).await,
            Self::Retry(job) => pair.retry(job).await,
            Self::ChangeDelay(job, delay) => pair.change_delay(job, *delay).await,
            Self::ChangePriority(job, priority) => pair.change_priority(job, *priority).await,
            Self::UpdateData(job) => pair.update_data(job, &json!({"updated": step})).await,
            Self::Pause => pair.pause().await,
            Self::Resume => pair.resume().await,
            Self::Drain(delayed) => pair.drain(*delayed).await,
            Self::Clean(state) => pair.clean(*state).await,
            Self::PromoteAll => pair.promote_all().await,
        }
    }
}

/// Histories of this many steps …
const STEPS: usize = 80;
/// … from so many seeds; `FEEDMILL_HISTORIES` asks for more.
const HISTORIES: u64 = 15;

#[expect(clippy::print_stdout, reason = "the history is shown when a comparison fails")]
#[tokio::test]
async fn random_histories_lead_to_the_same_states_counts_events_and_samples() {
    let mut bull = BullMq::start(Version::V6, &SharedServers::of_this_run().redis_url());
    let histories = std::env::var("FEEDMILL_HISTORIES").ok().map_or(HISTORIES, |wanted| wanted.parse().unwrap());
    for seed in 0..histories {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut pair = Pair::new(bull, &format!("history-{seed}"), random.u8(0..3)).await;
        let (mut is_paused, mut after_stall) = (false, false);
        for step in 0..STEPS {
            // STALLED_OVER_THE_LIMIT: BullMQ's worker must have had its chance to fail them before anything else is done.
            let op = if after_stall { Op::TakeAll } else { Op::random(&mut random, &pair, is_paused) };
            after_stall = matches!(op, Op::Stall(_));
            println!("history {seed}, step {step}: {op:?}");
            is_paused = matches!(op, Op::Pause) || (is_paused && !matches!(op, Op::Resume));
            op.run(&mut pair, step).await;
            pair.compare().await;
            pair.compare_events(&op).await;
        }
        assert_sound(&pair.queue).await;
        pair.compare_samples().await;
        pair.obliterate().await;
        pair.compare().await;
        bull = pair.bull;
    }
}
