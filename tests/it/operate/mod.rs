//! What operators do to jobs by hand: alone, to many at once, and while workers are at it.

use std::time::Duration;

use feedmill::{
    job::{JobId, Keep},
    queue::{
        Queue,
        enqueue::{Enqueued, NewJob},
        operated::StateName,
        read::Lease,
        remove::RemovalWalk,
        settle::{Burial, Done},
    },
};
use redis::{AsyncCommands, streams::StreamRangeReply};

use crate::support::{
    audit::scan,
    jobs::{PAYLOAD_MAX, connection, id, new_job, read, read_one},
};

mod states;
mod removing;
mod cleaning;
mod obliterating;
mod changing;
mod cancelling;
mod keeping;

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
