//! Jobs that are removed: they leave nothing, count for their import, and make room in their group.

use std::collections::BTreeSet;

use feedmill::{
    job::{Envelope, JobId, JobOptions, Keep, Stored},
    queue::{
        Events, Queue, QueueOptions,
        enqueue::{Deduplication, Enqueued, NewJob},
        find::State,
        operated::{Operated, StateName},
        read::Lease,
        settle::{BackOff, Done},
    },
};
use redis::AsyncCommands;

use super::{LONG, burial, events, keys};
use crate::support::{
    audit::assert_sound,
    jobs::{
        Fetch, MAP_HEADER_BYTES, PAYLOAD_MAX, add, add_many, connection, counts, forget_record, id, new_job, queue,
        queue_with, read, read_one, record,
    },
};

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
