//! Random sequences of everything that can happen to a queue, against a model in memory.
//!
//! After each step the audit must find nothing, the counts must be those of the model, and what waits must wait in an order
//! that the model allows. `FEEDMILL_MODEL_CASES` sets the number of sequences.

use std::{collections::BTreeMap, time::Duration};

use feedmill::{
    job::{JobId, Keep, Place as Lane, Stored},
    queue::{
        Events, GROUP, Queue, QueueOptions, Redis, Settled,
        claim::ClaimLimits,
        enqueue::{Enqueued, NewJob},
        limits::{Limits, SetBy},
        operated::{Operated, StateName},
        read::{Delivery, Lease},
        remove::RemovalWalk,
        settle::{BackOff, Burial, Done},
    },
};
use proptest::{collection::vec, prelude::*};
use redis::{AsyncCommands, aio::MultiplexedConnection, streams::StreamInfoGroupsReply, streams::StreamRangeReply};

use crate::support::{
    audit::audit,
    jobs::{Fetch, MAP_HEADER_BYTES, PAYLOAD_MAX, add_version, connection, done, forget_record, id, new_job, read},
    redis_prefix,
    servers::OwnRedis,
};

const CASES: u32 = 1000;
/// Jobs of a group that may stand in the lanes.
const WINDOW: u64 = 2;
/// The group of the items of the feed.
const FEED: &str = "feed";
const STALLS_MAX: u8 = 2;
const LOCK_DURATION: Duration = Duration::from_mins(10);
const LONG: Duration = Duration::from_hours(1);

#[derive(Clone, Debug)]
enum Step {
    /// A plain add of this job, which has the priority and the group that its number stands for.
    Add {
        job: u8,
        is_delayed: bool,
    },
    /// An add with a version older than any other.
    AddOlder(u8),
    /// A fetch that shows the job as newer.
    Item(u8),
    Read(usize),
    /// Settles one of the jobs that are held.
    Done {
        which: usize,
        is_kept: bool,
    },
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
    /// No more than so many jobs active at once.
    Limit(Option<u64>),
    /// What somebody does by hand to this job.
    Remove(u8),
    Cancel(u8),
    PromoteNow(u8),
    Retry(u8),
    Priority(u8, u32),
    Drain {
        delayed: bool,
    },
    /// Removes all jobs of a state.
    Clean(StateName),
}

fn step() -> impl Strategy<Value = Step> {
    let job = 0..8_u8;
    prop_oneof![
        5 => (job.clone(), prop::bool::weighted(0.1)).prop_map(|(job, is_delayed)| Step::Add { job, is_delayed }),
        1 => job.clone().prop_map(Step::AddOlder),
        4 => job.clone().prop_map(Step::Item),
        2 => job.clone().prop_map(Step::Remove),
        2 => job.clone().prop_map(Step::Cancel),
        2 => job.clone().prop_map(Step::PromoteNow),
        2 => job.clone().prop_map(Step::Retry),
        3 => (job, 0..3_u32).prop_map(|(job, priority)| Step::Priority(job, priority)),
        1 => prop_oneof![
            any::<bool>().prop_map(|delayed| Step::Drain { delayed }),
            prop::sample::select(vec![
                StateName::Waiting,
                StateName::Prioritized,
                StateName::Delayed,
                StateName::Completed,
                StateName::Failed,
            ])
            .prop_map(Step::Clean),
        ],
        6 => (1..4_usize).prop_map(Step::Read),
        3 => (any::<usize>(), prop::bool::weighted(0.2)).prop_map(|(which, is_kept)| Step::Done { which, is_kept }),
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
        1 => prop_oneof![Just(None), (0..4_u64).prop_map(Some)].prop_map(Step::Limit),
    ]
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Waiting,
    Prioritized,
    Parked,
    Active,
    Delayed { is_due: bool },
    Dead,
    Completed,
}

impl Place {
    fn state(self) -> StateName {
        match self {
            Self::Waiting | Self::Parked => StateName::Waiting,
            Self::Prioritized => StateName::Prioritized,
            Self::Active => StateName::Active,
            Self::Delayed { .. } => StateName::Delayed,
            Self::Dead => StateName::Failed,
            Self::Completed => StateName::Completed,
        }
    }
}

#[derive(Clone, Debug)]
struct Job {
    place: Place,
    attempts: u8,
    stalls: u8,
    priority: u32,
    group: &'static str,
    /// Its content was replaced while it was active.
    is_changed: bool,
}

/// Priority and group of a plain job: a third are plain, a third are in a group, the others have a priority.
fn kind(job: u8) -> (u32, &'static str) {
    [(0, ""), (0, ""), (0, ""), (0, "g"), (0, "g"), (0, "g"), (1, ""), (2, "g")][usize::from(job)]
}

/// What should be the case.
#[derive(Debug, Default)]
struct Model {
    jobs: BTreeMap<JobId, Job>,
    /// In the order in which they will be read: those in the stream, those with a priority, those parked in each group.
    waiting: Vec<JobId>,
    prioritized: Vec<JobId>,
    parked: BTreeMap<&'static str, Vec<JobId>>,
    /// In the order in which they were buried.
    dead: Vec<JobId>,
    held: Vec<Lease>,
    lost: Vec<Lease>,
    is_paused: bool,
    concurrency: Option<u64>,
}

impl Model {
    /// Puts a job where it waits, which has room in its group. Where in the order it comes is seen in Redis.
    fn wait(&mut self, id: &JobId) {
        let job = self.jobs.get_mut(id).unwrap();
        job.is_changed = false;
        if job.priority == 0 {
            job.place = Place::Waiting;
            self.waiting.push(id.clone());
        } else {
            job.place = Place::Prioritized;
            self.prioritized.push(id.clone());
        }
    }

    fn members(&self, group: &str) -> u64 {
        let has_room = |place| matches!(place, Place::Waiting | Place::Prioritized | Place::Active);
        self.jobs.values().filter(|job| job.group == group && has_room(job.place)).count() as u64
    }

    /// As [`Self::wait`], for a job that needs room in its group first.
    fn enter(&mut self, id: &JobId) {
        let group = self.jobs[id].group;
        self.jobs.get_mut(id).unwrap().place = Place::Parked;
        if group.is_empty() || self.members(group) < WINDOW {
            self.wait(id);
        } else {
            self.parked.entry(group).or_default().push(id.clone());
        }
    }

    /// After jobs have left the lanes: what is parked takes their room.
    fn fill_groups(&mut self) {
        for group in self.parked.keys().copied().collect::<Vec<_>>() {
            while self.members(group) < WINDOW && !self.parked[group].is_empty() {
                let id = self.parked.get_mut(group).unwrap().remove(0);
                self.wait(&id);
            }
        }
    }

    /// A new job under this id, or one that takes over a dead or a completed one.
    fn enqueue(&mut self, id: &JobId, (priority, group): (u32, &'static str)) -> Enqueued {
        self.dead.retain(|dead| dead != id);
        let job = Job { place: Place::Dead, attempts: 0, stalls: 0, priority, group, is_changed: false };
        self.jobs.insert(id.clone(), job);
        self.enter(id);
        Enqueued::Enqueued
    }

    /// As [`Self::enqueue`], for a job that is not due for long.
    fn delay(&mut self, id: &JobId, (priority, group): (u32, &'static str)) -> Enqueued {
        self.dead.retain(|dead| dead != id);
        let place = Place::Delayed { is_due: false };
        self.jobs.insert(id.clone(), Job { place, attempts: 0, stalls: 0, priority, group, is_changed: false });
        Enqueued::Enqueued
    }

    /// Puts promoted jobs where they are: which of a group found room follows from when they were due, which Redis knows.
    async fn learn_promoted(&mut self, queue: &Queue, ids: &[JobId]) {
        for id in ids {
            if queue.find(id).await.unwrap().unwrap().job.head.place == Lane::Parked {
                let job = self.jobs.get_mut(id).unwrap();
                job.place = Place::Parked;
                self.parked.entry(job.group).or_default().push(id.clone());
            } else {
                self.wait(id);
            }
        }
        for (group, parked) in &self.parked {
            assert!(parked.is_empty() || self.members(group) >= WINDOW, "{group} has room, and {parked:?} are parked");
        }
    }

    fn change(&mut self, id: &JobId) -> Enqueued {
        let job = self.jobs.get_mut(id).unwrap();
        match job.place {
            Place::Dead | Place::Completed => return self.enqueue(id, (0, FEED)),
            Place::Delayed { .. } => self.enter(id),
            Place::Active => job.is_changed = true,
            Place::Waiting | Place::Prioritized | Place::Parked => {}
        }
        self.jobs.get_mut(id).unwrap().attempts = 0;
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
            self.wait(&lease.id);
            self.jobs.get_mut(&lease.id).unwrap().attempts = 0;
            Settled::Changed
        } else {
            Settled::Settled
        }
    }

    /// Takes a job out of the order in which it waits or lies; whoever holds it has lost it.
    fn leave(&mut self, id: &JobId) {
        for ids in
            [&mut self.waiting, &mut self.prioritized, &mut self.dead].into_iter().chain(self.parked.values_mut())
        {
            ids.retain(|other| other != id);
        }
        let (lost, held) = std::mem::take(&mut self.held).into_iter().partition(|lease| lease.id == *id);
        self.held = held;
        self.lost.extend::<Vec<Lease>>(lost);
    }

    /// What is answered to somebody who wants something done to a job, which is possible in some places.
    fn answer(&self, id: &JobId, is_possible: impl Fn(Place) -> bool) -> Operated {
        match self.place(id) {
            None => Operated::Missing,
            Some(place) if is_possible(place) => Operated::Done,
            Some(place) => Operated::Refused(place.state()),
        }
    }

    /// Removes all jobs that stand in some places.
    fn remove_all(&mut self, is_in: impl Fn(Place) -> bool) -> usize {
        let ids: Vec<JobId> = self.jobs.iter().filter(|(_, job)| is_in(job.place)).map(|(id, _)| id.clone()).collect();
        for id in &ids {
            self.leave(id);
            self.jobs.remove(id);
        }
        self.fill_groups();
        ids.len()
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
            Step::Add { job, is_delayed } => {
                let (id, (priority, group)) = (id([job]), kind(job));
                let wanted = match model.place(&id) {
                    None | Some(Place::Dead) if is_delayed => model.delay(&id, kind(job)),
                    None | Some(Place::Dead) => model.enqueue(&id, kind(job)),
                    Some(_) => Enqueued::Duplicate,
                };
                let delay = if is_delayed { LONG } else { Duration::ZERO };
                let group = Some(group).filter(|group| !group.is_empty());
                let added = queue.add(&[NewJob { priority, group, delay, ..new_job(&id) }], PAYLOAD_MAX).await.unwrap();
                assert_eq!(added, [wanted]);
            }
            Step::AddOlder(job) => {
                let name = String::from_utf8(vec![job]).unwrap();
                let wanted = if model.place(&id(&name)).is_none() {
                    model.enqueue(&id(&name), (0, ""))
                } else {
                    Enqueued::Duplicate
                };
                assert_eq!(add_version(queue, &name, 0, b"{}").await, wanted);
            }
            Step::Item(job) => {
                let name = String::from_utf8(vec![job]).unwrap();
                let wanted = if model.place(&id(&name)).is_none() {
                    model.enqueue(&id(&name), (0, FEED))
                } else {
                    model.change(&id(&name))
                };
                let fetch = Fetch::begin(queue, FEED).await;
                assert_eq!(fetch.enqueue(queue, &[&name]).await.unwrap(), [wanted]);
                fetch.finish(queue, 1, MAP_HEADER_BYTES).await;
            }
            Step::Read(count) => self.read(count).await,
            Step::Done { which, is_kept } => {
                let Some(lease) = model.take(which) else { return };
                let wanted = model.settle(&lease);
                if wanted == Settled::Settled && is_kept {
                    model.jobs.get_mut(&lease.id).unwrap().place = Place::Completed;
                } else if wanted == Settled::Settled {
                    model.jobs.remove(&lease.id);
                }
                model.fill_groups();
                let keep = if is_kept { Keep::All } else { Keep::Nothing };
                let ended = Done { stored: Some(Stored::Inserted), ..Done::new(lease) };
                assert_eq!(queue.done(&[ended], keep).await.unwrap(), [wanted]);
            }
            Step::BackOff { which, is_due, counts } => {
                let Some(lease) = model.take(which) else { return };
                let wanted = model.settle(&lease);
                if wanted == Settled::Settled {
                    let job = model.jobs.get_mut(&lease.id).unwrap();
                    job.place = Place::Delayed { is_due };
                    job.attempts += u8::from(counts);
                    model.fill_groups();
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
                    model.fill_groups();
                }
                let burial = Burial { lease, reason: "no".to_owned(), exhausted: true, dedup: None };
                assert_eq!(queue.bury("worker", &[burial]).await.unwrap(), [wanted]);
            }
            Step::GiveBack(which) => {
                let Some(lease) = model.take(which) else { return };
                model.lost.push(lease.clone());
                model.wait(&lease.id);
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
                assert_eq!(done(queue, [(lease, Some(Stored::Inserted))]).await.unwrap(), [Settled::Lost]);
            }
            Step::CrashAndClaim => self.crash_and_claim().await,
            Step::Promote => {
                let due = Place::Delayed { is_due: true };
                let ids: Vec<JobId> =
                    model.jobs.iter().filter(|(_, job)| job.place == due).map(|(id, _)| id.clone()).collect();
                assert_eq!(queue.promote().await.unwrap().moved, ids.len());
                model.learn_promoted(queue, &ids).await;
            }
            Step::Redrive => {
                let letters = queue.dead_letters(None, 100).await.unwrap();
                let ids: Vec<JobId> = letters.iter().filter_map(|letter| letter.id.clone()).collect();
                assert_eq!(ids, model.dead);
                assert_eq!(queue.redrive(&letters).await.unwrap().redriven, ids.len());
                for id in std::mem::take(&mut model.dead) {
                    let job = model.jobs.get_mut(&id).unwrap();
                    (job.attempts, job.stalls) = (0, 0);
                    model.enter(&id);
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
            Step::Limit(concurrency) => {
                let limits = Limits { concurrency, ..Limits::default() };
                assert!(queue.set_limits(limits, SetBy::Operator).await.unwrap());
                // a limit below 1 would be a pause
                model.concurrency = concurrency.map(|concurrency| concurrency.max(1));
            }
            Step::Remove(_)
            | Step::Cancel(_)
            | Step::PromoteNow(_)
            | Step::Retry(_)
            | Step::Priority(..)
            | Step::Drain { .. }
            | Step::Clean(_) => self.operate(step).await,
        }
    }

    /// The steps that somebody takes by hand.
    async fn operate(&mut self, step: Step) {
        let Self { queue, model, .. } = self;
        let one = |job: u8| [id([job])];
        match step {
            Step::Remove(job) => {
                let ids = one(job);
                let wanted = model.answer(&ids[0], |place| place != Place::Active);
                if wanted == Operated::Done {
                    model.leave(&ids[0]);
                    model.jobs.remove(&ids[0]);
                    model.fill_groups();
                }
                assert_eq!(queue.remove(&ids, forget_record).await.unwrap(), [wanted]);
            }
            Step::Cancel(job) => {
                let id = id([job]);
                let wanted = model.answer(&id, |place| !matches!(place, Place::Dead | Place::Completed));
                if wanted == Operated::Done {
                    model.leave(&id);
                    let job = model.jobs.get_mut(&id).unwrap();
                    (job.place, job.is_changed) = (Place::Dead, false);
                    model.dead.push(id.clone());
                    model.fill_groups();
                }
                assert_eq!(queue.cancel(&id).await.unwrap(), wanted);
            }
            Step::PromoteNow(job) => {
                let ids = one(job);
                let wanted = model.answer(&ids[0], |place| matches!(place, Place::Delayed { .. }));
                assert_eq!(queue.promote_now(&ids).await.unwrap(), [wanted]);
                if wanted == Operated::Done {
                    model.learn_promoted(queue, &ids).await;
                }
            }
            Step::Retry(job) => {
                let ids = one(job);
                let wanted = model.answer(&ids[0], |place| matches!(place, Place::Dead | Place::Completed));
                if wanted == Operated::Done {
                    model.leave(&ids[0]);
                    let job = model.jobs.get_mut(&ids[0]).unwrap();
                    (job.attempts, job.stalls) = (0, 0);
                    model.enter(&ids[0]);
                }
                assert_eq!(queue.retry(&ids).await.unwrap(), [wanted]);
            }
            Step::Priority(job, priority) => {
                let id = id([job]);
                let wanted = model.answer(&id, |_| true);
                if let Some(job) = model.jobs.get_mut(&id).filter(|job| job.priority != priority) {
                    job.priority = priority;
                    if matches!(job.place, Place::Waiting | Place::Prioritized) {
                        model.leave(&id);
                        model.wait(&id);
                    }
                }
                assert_eq!(queue.change_priority(&id, priority).await.unwrap(), wanted);
            }
            Step::Drain { delayed } => {
                let n = model.remove_all(|place| match place {
                    Place::Waiting | Place::Parked | Place::Prioritized => true,
                    Place::Delayed { .. } => delayed,
                    Place::Active | Place::Dead | Place::Completed => false,
                });
                assert_eq!(finish(queue.drain(delayed, forget_record)).await, n);
            }
            Step::Clean(state) => {
                let n = model.remove_all(|place| place.state() == state);
                let walk = queue.clean(state, Duration::ZERO, None, forget_record).await.unwrap();
                assert_eq!(finish(walk).await, n);
            }
            other => unreachable!("{other:?} is not done by hand"),
        }
    }

    async fn read(&mut self, count: usize) {
        let model = &mut self.model;
        let active = model.n(|place| place == Place::Active);
        let allowed = model.concurrency.map_or(count, |most| count.min(most.saturating_sub(active) as usize));
        let n = if model.is_paused { 0 } else { allowed.min(model.prioritized.len() + model.waiting.len()) };
        let n_prioritized = n.min(model.prioritized.len());
        let mut wanted: Vec<JobId> = model.prioritized.drain(..n_prioritized).collect();
        wanted.extend(model.waiting.drain(..n - n_prioritized));
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
        // the lanes are swept one after the other
        died.sort_by_key(|lease| (lease.lane != Lane::Stream, lease.entry));
        let keys = self.queue.keys();
        for (lane, stream) in [(Lane::Stream, keys.stream()), (Lane::Prioritized, keys.prioritized_active())] {
            let mut claim = redis::cmd("XCLAIM");
            claim.arg(stream).arg(GROUP).arg("dead").arg(0);
            let entries: Vec<String> =
                died.iter().filter(|lease| lease.lane == lane).map(|lease| lease.entry.to_string()).collect();
            if !entries.is_empty() {
                claim.arg(entries).arg("IDLE").arg(2 * LOCK_DURATION.as_millis() as u64).arg("JUSTID");
                claim.query_async::<redis::Value>(&mut self.redis).await.unwrap();
            }
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
                model.wait(&lease.id);
            }
            model.lost.push(lease);
        }
        model.fill_groups();
    }

    async fn check(&mut self, before: &(Vec<JobId>, Vec<JobId>)) {
        let (model, now) = (&self.model, self.queue.counts().await.unwrap());
        let wanted = (
            (
                model.n(|place| matches!(place, Place::Waiting | Place::Parked)),
                model.n(|place| place == Place::Prioritized),
                model.n(|place| place == Place::Parked),
            ),
            model.n(|place| place == Place::Active),
            model.n(|place| matches!(place, Place::Delayed { .. })),
            model.n(|place| place == Place::Dead),
            model.n(|place| place == Place::Completed),
            model.is_paused,
        );
        let found = (
            (now.waiting, now.prioritized, now.parked),
            now.active,
            now.delayed,
            now.failed,
            now.completed,
            now.is_paused,
        );
        assert_eq!(found, wanted);
        assert_eq!(audit(&self.queue).await, Ok(()));
        self.check_order(before).await;
    }

    /// What waits must wait in the order of the model, but for what one step put there together.
    async fn check_order(&mut self, before: &(Vec<JobId>, Vec<JobId>)) {
        let (keys, model) = (self.queue.keys(), &mut self.model);
        let gate: Option<String> = self.redis.hget(keys.meta(), "gate").await.unwrap();
        let last = if let Some(gate) = gate {
            gate
        } else {
            let groups: StreamInfoGroupsReply = self.redis.xinfo_groups(keys.stream()).await.unwrap();
            groups.groups[0].last_delivered_id.clone()
        };
        let entries: StreamRangeReply = self.redis.xrange(keys.stream(), format!("({last}"), "+").await.unwrap();
        let in_stream: Vec<JobId> = entries.ids.iter().map(|entry| id(entry.get::<Vec<u8>>("id").unwrap())).collect();
        agree(&mut model.waiting, &before.0, in_stream, true);
        let prioritized: Vec<Vec<u8>> = self.redis.zrange(keys.prioritized(), 0, -1).await.unwrap();
        let prioritized: Vec<JobId> = prioritized.iter().map(id).collect();
        assert!(prioritized.is_sorted_by_key(|id| model.jobs[id].priority), "{prioritized:?}");
        agree(&mut model.prioritized, &before.1, prioritized, false);
        for (group, ids) in &mut model.parked {
            let parked: Vec<Vec<u8>> = self.redis.zrange(keys.parked(group.as_bytes()), 0, -1).await.unwrap();
            let parked: Vec<JobId> = parked.iter().map(id).collect();
            let (mut wanted, mut found) = (ids.clone(), parked.clone());
            wanted.sort();
            found.sort();
            assert_eq!(found, wanted);
            *ids = parked;
        }
    }
}

/// Goes through a walk; returns how many jobs it removed.
async fn finish(mut walk: RemovalWalk) -> usize {
    let mut done = 0;
    while let Some(step) = walk.step().await.unwrap() {
        done += step.done;
    }
    done
}

/// Takes over the order that was found: nothing is missing or too much, what waited `before` the step keeps its order, and,
/// in a stream, what came stands behind it.
fn agree(known: &mut Vec<JobId>, before: &[JobId], found: Vec<JobId>, is_stream: bool) {
    let (mut wanted, mut all) = (known.clone(), found.clone());
    wanted.sort();
    all.sort();
    assert_eq!(all, wanted);
    let old: Vec<&JobId> = before.iter().filter(|id| known.contains(id)).collect();
    let found_old: Vec<&JobId> = found.iter().filter(|id| before.contains(id)).collect();
    assert_eq!(found_old, old);
    if is_stream {
        assert_eq!(found.iter().take(old.len()).collect::<Vec<_>>(), old);
    }
    *known = found;
}

async fn run(server: &OwnRedis, steps: Vec<Step>) {
    let options = QueueOptions { events: Events::Failures, group_window: Some(WINDOW as u32) };
    let redis = Redis::connect(&server.url(), &redis_prefix()).await.unwrap();
    let queue = Queue::open(&redis, "jobs", options).await.unwrap();
    let mut case = Case { redis: connection(&queue).await, queue, model: Model::default() };
    // The audit scans all there is.
    redis::cmd("FLUSHALL").query_async::<()>(&mut case.redis).await.unwrap();
    case.queue.ensure_group().await.unwrap();
    for step in steps {
        let mut before = (case.model.waiting.clone(), case.model.prioritized.clone());
        if let Step::Priority(job, priority) = step
            && case.model.jobs.get(&id([job])).is_some_and(|job| job.priority != priority)
        {
            // it moves, and the order that the others keep is theirs
            before.1.retain(|other| *other != id([job]));
        }
        case.step(step).await;
        case.check(&before).await;
    }
}

#[test]
fn a_queue_does_what_the_model_says() {
    let cases = std::env::var("FEEDMILL_MODEL_CASES").ok().map_or(CASES, |cases| cases.parse().unwrap());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let config = ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() };
    let server = OwnRedis::start(&[]);
    proptest!(config, |(steps in vec(step(), 1..60))| runtime.block_on(run(&server, steps)));
}
