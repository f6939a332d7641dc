//! Many jobs at once: cleaning by age, and draining what waits.

use std::time::{Duration, SystemTime};

use feedmill::{
    job::{Envelope, Keep, Stored},
    queue::{
        Events, Queue, QueueError, QueueOptions,
        enqueue::{Enqueued, NewJob},
        operated::StateName,
        settle::Done,
    },
};
use redis::AsyncCommands;

use super::{LONG, PLACES, WINDOW, bury_all, finish, stand};
use crate::support::{
    audit::assert_sound,
    jobs::{
        Fetch, MAP_HEADER_BYTES, PAYLOAD_MAX, add_many, connection, counts, done, forget_record, id, new_job, queue,
        queue_with, read, read_one,
    },
};

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
