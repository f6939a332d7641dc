//! Random sequences of everything that can happen to a queue, against a model in memory.
//!
//! After each step the audit must find nothing, and the counts must be those of the model. `FEEDMILL_MODEL_CASES` sets
//! the number of sequences.

use std::{collections::BTreeMap, time::Duration};

use feedmill::{
    job::{JobId, Stored},
    queue::{
        GROUP, Queue, Settled,
        claim::ClaimLimits,
        enqueue::Enqueued,
        read::{Delivery, Lease},
        settle::{BackOff, Burial},
    },
};
use proptest::{collection::vec, prelude::*};
use redis::aio::MultiplexedConnection;

use crate::support::{
    audit::audit,
    jobs::{Fetch, MAP_HEADER_BYTES, add, add_version, connection, done, id, queue, read},
};

const CASES: u32 = 50;
const STALLS_MAX: u8 = 2;
const LOCK_DURATION: Duration = Duration::from_mins(10);
const LONG: Duration = Duration::from_hours(1);

#[derive(Clone, Debug)]
enum Step {
    /// A plain add of this job.
    Add(u8),
    /// An add with a version older than any other.
    AddOlder(u8),
    /// A fetch that shows the job as newer.
    Item(u8),
    Read(usize),
    /// Settles one of the jobs that are held.
    Done(usize),
    BackOff {
        which: usize,
        is_due: bool,
        counts: bool,
    },
    Bury(usize),
    GiveBack(usize),
    Renew(usize),
    /// A worker that lost a job says that it is done.
    Zombie(usize),
    /// Whoever holds jobs dies, and somebody sweeps.
    CrashAndClaim,
    Promote,
    Redrive,
    Pause,
    Resume,
}

fn step() -> impl Strategy<Value = Step> {
    let job = 0..6_u8;
    prop_oneof![
        4 => job.clone().prop_map(Step::Add),
        1 => job.clone().prop_map(Step::AddOlder),
        4 => job.prop_map(Step::Item),
        6 => (1..4_usize).prop_map(Step::Read),
        3 => any::<usize>().prop_map(Step::Done),
        3 => (any::<usize>(), any::<bool>(), any::<bool>())
            .prop_map(|(which, is_due, counts)| Step::BackOff { which, is_due, counts }),
        2 => any::<usize>().prop_map(Step::Bury),
        1 => any::<usize>().prop_map(Step::GiveBack),
        1 => any::<usize>().prop_map(Step::Renew),
        2 => any::<usize>().prop_map(Step::Zombie),
        2 => Just(Step::CrashAndClaim),
        2 => Just(Step::Promote),
        1 => Just(Step::Redrive),
        1 => Just(Step::Pause),
        2 => Just(Step::Resume),
    ]
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Waiting,
    Active,
    Delayed { is_due: bool },
    Dead,
}

#[derive(Clone, Debug)]
struct Job {
    place: Place,
    attempts: u8,
    stalls: u8,
    /// Its content was replaced while it was active.
    is_changed: bool,
}

/// What should be the case.
#[derive(Debug, Default)]
struct Model {
    jobs: BTreeMap<JobId, Job>,
    /// In the order in which they will be read.
    waiting: Vec<JobId>,
    /// In the order in which they were buried.
    dead: Vec<JobId>,
    held: Vec<Lease>,
    lost: Vec<Lease>,
    is_paused: bool,
}

impl Model {
    fn put_on_stream(&mut self, id: &JobId) {
        let job = self.jobs.get_mut(id).unwrap();
        (job.place, job.is_changed) = (Place::Waiting, false);
        self.waiting.push(id.clone());
    }

    /// A new job under this id, or one that takes over a dead one.
    fn enqueue(&mut self, id: &JobId) -> Enqueued {
        self.dead.retain(|dead| dead != id);
        let job = Job { place: Place::Waiting, attempts: 0, stalls: 0, is_changed: false };
        self.jobs.insert(id.clone(), job);
        self.put_on_stream(id);
        Enqueued::Enqueued
    }

    fn change(&mut self, id: &JobId) -> Enqueued {
        let job = self.jobs.get_mut(id).unwrap();
        job.attempts = 0;
        match job.place {
            Place::Dead => return self.enqueue(id),
            Place::Delayed { .. } => self.put_on_stream(id),
            Place::Active => job.is_changed = true,
            Place::Waiting => {}
        }
        Enqueued::Changed
    }

    fn place(&self, id: &JobId) -> Option<Place> {
        self.jobs.get(id).map(|job| job.place)
    }

    fn take(&mut self, which: usize) -> Option<Lease> {
        let n = self.held.len();
        (n > 0).then(|| self.held.remove(which % n))
    }

    /// What a settle of this job answers; one that was changed waits again.
    fn settle(&mut self, lease: &Lease) -> Settled {
        self.lost.push(lease.clone());
        if self.jobs[&lease.id].is_changed {
            self.put_on_stream(&lease.id);
            Settled::Changed
        } else {
            Settled::Settled
        }
    }

    fn n(&self, is_in: impl Fn(Place) -> bool) -> u64 {
        self.jobs.values().filter(|job| is_in(job.place)).count() as u64
    }
}

/// One sequence.
struct Case {
    queue: Queue,
    redis: MultiplexedConnection,
    model: Model,
}

impl Case {
    async fn step(&mut self, step: Step) {
        let Self { queue, model, .. } = self;
        match step {
            Step::Add(job) => {
                let id = id([job]);
                let wanted = match model.place(&id) {
                    None | Some(Place::Dead) => model.enqueue(&id),
                    Some(_) => Enqueued::Duplicate,
                };
                assert_eq!(add(queue, [job]).await, wanted);
            }
            Step::AddOlder(job) => {
                let name = String::from_utf8(vec![job]).unwrap();
                let wanted =
                    if model.place(&id(&name)).is_none() { model.enqueue(&id(&name)) } else { Enqueued::Duplicate };
                assert_eq!(add_version(queue, &name, 0, b"{}").await, wanted);
            }
            Step::Item(job) => {
                let name = String::from_utf8(vec![job]).unwrap();
                let wanted = if model.place(&id(&name)).is_none() {
                    model.enqueue(&id(&name))
                } else {
                    model.change(&id(&name))
                };
                let fetch = Fetch::begin(queue, "feed").await;
                assert_eq!(fetch.enqueue(queue, &[&name]).await.unwrap(), [wanted]);
                fetch.finish(queue, 1, MAP_HEADER_BYTES).await;
            }
            Step::Read(count) => self.read(count).await,
            Step::Done(which) => {
                let Some(lease) = model.take(which) else { return };
                let wanted = model.settle(&lease);
                if wanted == Settled::Settled {
                    model.jobs.remove(&lease.id);
                }
                assert_eq!(done(&queue, [(lease, Some(Stored::Inserted))]).await.unwrap(), [wanted]);
            }
            Step::BackOff { which, is_due, counts } => {
                let Some(lease) = model.take(which) else { return };
                let wanted = model.settle(&lease);
                if wanted == Settled::Settled {
                    let job = model.jobs.get_mut(&lease.id).unwrap();
                    job.place = Place::Delayed { is_due };
                    job.attempts += u8::from(counts);
                }
                let wait = if is_due { Duration::ZERO } else { LONG };
                let reason = counts.then(|| "no".to_owned());
                let (settled, _) = queue.back_off(&[BackOff { lease, wait, reason }]).await.unwrap();
                assert_eq!(settled, [wanted]);
            }
            Step::Bury(which) => {
                let Some(lease) = model.take(which) else { return };
                let wanted = model.settle(&lease);
                if wanted == Settled::Settled {
                    let job = model.jobs.get_mut(&lease.id).unwrap();
                    (job.place, job.attempts) = (Place::Dead, job.attempts + 1);
                    model.dead.push(lease.id.clone());
                }
                let burial = Burial { lease, reason: "no".to_owned(), exhausted: true, dedup: None };
                assert_eq!(queue.bury("worker", &[burial]).await.unwrap(), [wanted]);
            }
            Step::GiveBack(which) => {
                let Some(lease) = model.take(which) else { return };
                model.lost.push(lease.clone());
                model.put_on_stream(&lease.id);
                assert_eq!(queue.give_back(&[lease]).await.unwrap(), [Settled::Settled]);
            }
            Step::Renew(which) => {
                let Some(lease) = model.take(which) else { return };
                assert_eq!(queue.renew("worker", std::slice::from_ref(&lease)).await.unwrap(), []);
                model.held.push(lease);
            }
            Step::Zombie(which) => {
                if model.lost.is_empty() {
                    return;
                }
                let lease = model.lost[which % model.lost.len()].clone();
                assert_eq!(done(&queue, [(lease, Some(Stored::Inserted))]).await.unwrap(), [Settled::Lost]);
            }
            Step::CrashAndClaim => self.crash_and_claim().await,
            Step::Promote => {
                let due = Place::Delayed { is_due: true };
                let ids: Vec<JobId> =
                    model.jobs.iter().filter(|(_, job)| job.place == due).map(|(id, _)| id.clone()).collect();
                assert_eq!(queue.promote().await.unwrap().moved, ids.len());
                // the order among them is that of their due times, which only Redis knows
                let mut promoted = Vec::new();
                for id in ids {
                    promoted.push((queue.find(&id).await.unwrap().unwrap().job.head.entry, id));
                }
                promoted.sort();
                for (_, id) in promoted {
                    model.put_on_stream(&id);
                }
            }
            Step::Redrive => {
                let letters = queue.dead_letters(None, 100).await.unwrap();
                let ids: Vec<JobId> = letters.iter().filter_map(|letter| letter.id.clone()).collect();
                assert_eq!(ids, model.dead);
                assert_eq!(queue.redrive(&letters).await.unwrap().redriven, ids.len());
                for id in std::mem::take(&mut model.dead) {
                    let job = model.jobs.get_mut(&id).unwrap();
                    (job.attempts, job.stalls) = (0, 0);
                    model.put_on_stream(&id);
                }
            }
            Step::Pause => {
                assert_eq!(queue.pause().await.unwrap(), !model.is_paused);
                model.is_paused = true;
            }
            Step::Resume => {
                assert_eq!(queue.resume().await.unwrap(), model.is_paused);
                model.is_paused = false;
            }
        }
    }

    async fn read(&mut self, count: usize) {
        let model = &mut self.model;
        let n = if model.is_paused { 0 } else { count.min(model.waiting.len()) };
        let wanted: Vec<JobId> = model.waiting.drain(..n).collect();
        let deliveries: Vec<Delivery> = read(&mut self.queue.reader("worker"), count).await;
        assert_eq!(deliveries.iter().map(|delivery| delivery.job.id.clone()).collect::<Vec<_>>(), wanted);
        for delivery in deliveries {
            let job = model.jobs.get_mut(&delivery.job.id).unwrap();
            job.place = Place::Active;
            assert_eq!((delivery.job.head.attempts, delivery.job.head.stalls), (job.attempts, job.stalls));
            model.held.push(delivery.lease);
        }
    }

    async fn crash_and_claim(&mut self) {
        let model = &mut self.model;
        let limits = ClaimLimits {
            lock_duration: LOCK_DURATION,
            stalled_interval: Duration::from_millis(1),
            max_stalled_count: STALLS_MAX,
        };
        if model.is_paused {
            assert!(!self.queue.sweeper("other", limits).sweep().await.unwrap().swept);
            return;
        }
        let mut died = std::mem::take(&mut model.held);
        died.sort_by_key(|lease| lease.entry);
        if !died.is_empty() {
            let mut claim = redis::cmd("XCLAIM");
            claim.arg(self.queue.keys().stream()).arg(GROUP).arg("dead").arg(0);
            for lease in &died {
                claim.arg(lease.entry.to_string());
            }
            claim.arg("IDLE").arg(2 * LOCK_DURATION.as_millis() as u64).arg("JUSTID");
            claim.query_async::<redis::Value>(&mut self.redis).await.unwrap();
        }
        let swept = loop {
            // the interval of the last sweep may not be over
            let swept = self.queue.sweeper("other", limits).sweep().await.unwrap();
            if swept.swept {
                break swept;
            }
        };
        assert_eq!(swept.stalled, died.iter().map(|lease| lease.id.clone()).collect::<Vec<_>>());
        for lease in died {
            let job = model.jobs.get_mut(&lease.id).unwrap();
            job.stalls += 1;
            if job.stalls > STALLS_MAX {
                job.place = Place::Dead;
                model.dead.push(lease.id.clone());
            } else {
                model.put_on_stream(&lease.id);
            }
            model.lost.push(lease);
        }
    }

    async fn check(&self) {
        let (model, now) = (&self.model, self.queue.counts().await.unwrap());
        let wanted = (
            model.n(|place| place == Place::Waiting),
            model.n(|place| place == Place::Active),
            model.n(|place| matches!(place, Place::Delayed { .. })),
            model.n(|place| place == Place::Dead),
            model.is_paused,
        );
        assert_eq!((now.waiting, now.active, now.delayed, now.failed, now.is_paused), wanted);
        assert_eq!(audit(&self.queue).await, Ok(()));
    }
}

async fn run(steps: Vec<Step>) {
    let queue = queue().await;
    let mut case = Case { redis: connection(&queue).await, queue, model: Model::default() };
    for step in steps {
        case.step(step).await;
        case.check().await;
    }
}

#[test]
fn a_queue_does_what_the_model_says() {
    let cases = std::env::var("FEEDMILL_MODEL_CASES").ok().map_or(CASES, |cases| cases.parse().unwrap());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let config = ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() };
    proptest!(config, |(steps in vec(step(), 1..60))| runtime.block_on(run(steps)));
}
