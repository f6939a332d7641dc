//! Each operation meets a job in each state: what it does, and that the queue is sound after it.

use std::collections::BTreeSet;

use feedmill::{
    job::JobId,
    queue::{
        Events, Queue, QueueOptions, Redis, Settled,
        cancel::CANCELLED,
        consumers::Consumer,
        enqueue::NewJob,
        operated::{Operated, StateName},
    },
};
use redis::AsyncCommands;

use super::{LONG, PLACES, Place, WINDOW, finish, keys, stand, state};
use crate::support::{
    audit::assert_sound,
    jobs::{PAYLOAD_MAX, connection, done, forget_record, id, new_job, read_one},
    redis_prefix,
    servers::on_each_redis,
};

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
