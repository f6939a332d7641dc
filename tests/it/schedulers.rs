//! Schedulers of a queue: a slot is fired once, whoever comes, and what others changed meanwhile is left alone.

use std::time::Duration;

use feedmill::{
    job::Envelope,
    queue::{
        Queue,
        find::State,
        schedulers::{Fire, Firing, Rescheduling},
        settle::Burial,
    },
};
use redis::AsyncCommands;

use crate::support::{
    audit::assert_sound,
    jobs::{add, connection, id, queue, queue_at, queue_under, read_one},
    servers::{SharedServers, on_each_redis},
};

/// An hour, in ms.
const HOUR: i64 = 3_600_000;

/// A firing of a slot, the next one an hour later.
fn firing(name: &str, slot_ms: i64) -> Firing<'static> {
    Firing {
        id: id(name),
        envelope: Envelope { payload: b"{}", ..Envelope::default() },
        priority: 0,
        group: None,
        slot_ms,
        from_ms: slot_ms,
        next_slot_ms: Some(slot_ms + HOUR),
    }
}

async fn now_ms(queue: &Queue) -> i64 {
    queue.due_schedulers().await.unwrap().now_ms
}

/// Gives schedulers that are missing these slots.
async fn set(queue: &Queue, slots: &[(&str, i64)]) {
    let changes: Vec<Rescheduling<'_>> =
        slots.iter().map(|(id, slot)| Rescheduling { id, believed_ms: None, slot_ms: Some(*slot) }).collect();
    assert_eq!(queue.reschedule(&changes).await.unwrap(), slots.len());
}

/// All schedulers, by name.
async fn slots(queue: &Queue) -> Vec<(String, i64)> {
    let mut slots = queue.schedulers().await.unwrap();
    slots.sort();
    slots
}

async fn each_answer_of_fire(url: &str) {
    let queue = queue_at(url).await;
    let now = now_ms(&queue).await;
    let past = now - 5;
    set(&queue, &[("early", now + HOUR), ("fired", past + 1), ("live", past), ("new", past), ("wrong", past)]).await;
    add(&queue, "live").await;
    let mut redis = connection(&queue).await;
    let _: () = redis.rpush(queue.keys().job(&id("wrong")), "a list").await.unwrap();

    let firings = ["early", "fired", "live", "new", "wrong", "missing"].map(|name| firing(name, past));
    let mut firings = firings.to_vec();
    firings[0].slot_ms = now + HOUR;
    firings[0].from_ms = now + HOUR;
    let fires = queue.fire(&firings).await.unwrap();
    assert_eq!(
        fires,
        [Fire::NotDue, Fire::NotDue, Fire::Duplicate, Fire::Enqueued, Fire::Refused, Fire::NotDue],
        "in the order of the call"
    );
    let expected = [("early", now + HOUR), ("fired", past + 1), ("live", past + HOUR), ("new", past + HOUR)];
    let expected = expected.into_iter().chain([("wrong", past + HOUR)]).map(|(name, slot)| (name.to_owned(), slot));
    assert_eq!(slots(&queue).await, expected.collect::<Vec<_>>(), "the slot of what was not fired stays");
    assert_eq!(queue.counts().await.unwrap().waiting, 2);

    assert_eq!(queue.fire(&firings[3..4]).await.unwrap(), [Fire::NotDue], "a slot is fired once");
    let _: () = redis.del(queue.keys().job(&id("wrong"))).await.unwrap();
    assert_sound(&queue).await;
}

on_each_redis!(each_answer_of_fire);

#[tokio::test]
async fn a_slot_may_be_fired_from_when_the_caller_says() {
    let queue = queue().await;
    let soon = now_ms(&queue).await + HOUR;
    set(&queue, &[("a", soon)]).await;
    let early = Firing { from_ms: soon - 2 * HOUR, ..firing("a", soon) };
    assert_eq!(queue.fire(&[early]).await.unwrap(), [Fire::Enqueued]);
    assert_eq!(slots(&queue).await, [("a".to_owned(), soon + HOUR)]);
}

#[tokio::test]
async fn a_dead_job_is_taken_over_at_its_slot() {
    let queue = queue().await;
    add(&queue, "a").await;
    let lease = read_one(&queue, "worker").await.lease;
    queue.bury("worker", &[Burial { lease, reason: "bad".to_owned(), exhausted: false, dedup: None }]).await.unwrap();
    let past = now_ms(&queue).await - 1;
    set(&queue, &[("a", past)]).await;
    assert_eq!(queue.fire(&[firing("a", past)]).await.unwrap(), [Fire::Enqueued]);
    let found = queue.find(&id("a")).await.unwrap().unwrap();
    assert_eq!((found.state, found.failure), (State::Waiting, None));
    assert_eq!(queue.dead_letters(None, 10).await.unwrap(), []);
    assert_sound(&queue).await;
}

#[tokio::test]
async fn a_guard_whose_job_is_gone_does_not_block_a_slot() {
    let queue = queue().await;
    add(&queue, "a").await;
    // Somebody has deleted the stream.
    let mut redis = connection(&queue).await;
    let _: () = redis.del(queue.keys().stream()).await.unwrap();
    queue.ensure_group().await.unwrap();
    let past = now_ms(&queue).await - 1;
    set(&queue, &[("a", past)]).await;
    assert_eq!(queue.fire(&[firing("a", past)]).await.unwrap(), [Fire::Enqueued]);
    assert_eq!(queue.find(&id("a")).await.unwrap().unwrap().state, State::Waiting);
    assert_sound(&queue).await;
}

#[tokio::test]
async fn a_scheduler_without_a_next_slot_goes() {
    let queue = queue().await;
    let past = now_ms(&queue).await - 1;
    set(&queue, &[("last", past)]).await;
    let last = Firing { next_slot_ms: None, ..firing("last", past) };
    assert_eq!(queue.fire(&[last]).await.unwrap(), [Fire::Enqueued]);
    assert_eq!(slots(&queue).await, []);
}

#[tokio::test]
async fn of_many_who_fire_a_slot_at_once_one_does() {
    let one = queue().await;
    let names: Vec<String> = (0..600).map(|n| format!("feed-{n}")).collect();
    let past = now_ms(&one).await - 1;
    set(&one, &names.iter().map(|name| (name.as_str(), past)).collect::<Vec<_>>()).await;
    let firings: Vec<Firing<'static>> = names.iter().map(|name| firing(name, past)).collect();
    let mut callers = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let firings = firings.clone();
        let other = queue_under(&SharedServers::of_this_run().redis_url(), one.redis().prefix()).await;
        callers.spawn(async move { other.fire(&firings).await.unwrap() });
    }
    let fires = callers.join_all().await.concat();
    let n_enqueued = fires.iter().filter(|fire| **fire == Fire::Enqueued).count();
    let n_not_due = fires.iter().filter(|fire| **fire == Fire::NotDue).count();
    assert_eq!((n_enqueued, n_not_due), (names.len(), 7 * names.len()));
    assert_eq!(one.counts().await.unwrap().waiting, names.len() as u64);
    let mut versions = std::collections::HashSet::new();
    for name in &names {
        versions.insert(one.find(&id(name)).await.unwrap().unwrap().job.head.version);
    }
    assert_eq!(versions.len(), names.len(), "an import without a name of its own takes the version of its job");
}

#[tokio::test]
async fn the_due_ones_are_told_earliest_first_and_how_long_until_the_next() {
    let queue = queue().await;
    let none = queue.due_schedulers().await.unwrap();
    assert_eq!((none.total, none.next_due_in, none.due), (0, None, Vec::new()));
    let now = now_ms(&queue).await;
    set(&queue, &[("later", now + HOUR), ("second", now - 1), ("first", now - HOUR)]).await;
    let due = queue.due_schedulers().await.unwrap();
    assert_eq!(due.due, [("first".to_owned(), now - HOUR), ("second".to_owned(), now - 1)]);
    assert_eq!(due.total, 3);
    let wait = due.next_due_in.unwrap();
    assert!(wait <= Duration::from_hours(1) && wait > Duration::from_mins(50), "{wait:?}");

    let many: Vec<String> = (0..300).map(|n| format!("feed-{n}")).collect();
    set(&queue, &many.iter().map(|name| (name.as_str(), now - 1)).collect::<Vec<_>>()).await;
    let due = queue.due_schedulers().await.unwrap();
    assert_eq!((due.due.len(), due.total, due.next_due_in), (256, 303, Some(Duration::ZERO)), "a bounded number");
    assert_eq!(slots(&queue).await.len(), 303, "the list of all has no bound");
}

#[tokio::test]
async fn what_was_changed_meanwhile_is_left_alone() {
    let queue = queue().await;
    set(&queue, &[("gone", 1), ("moved", 2), ("stays", 3), ("there", 4)]).await;
    let change = |id, believed_ms, slot_ms| Rescheduling { id, believed_ms, slot_ms };
    let changes = [
        change("gone", Some(1), None),
        change("moved", Some(2), Some(20)),
        change("stays", Some(7), Some(30)),
        change("there", None, Some(40)),
        change("missing", Some(5), Some(50)),
    ];
    assert_eq!(queue.reschedule(&changes).await.unwrap(), 2);
    let expected = [("moved", 20), ("stays", 3), ("there", 4)];
    assert_eq!(slots(&queue).await, expected.map(|(name, slot)| (name.to_owned(), slot)));
    let (found, _) = queue.scheduler_slots(&["moved", "missing"]).await.unwrap();
    assert_eq!(found, [Some(20), None]);
}
