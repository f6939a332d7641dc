//! Schedulers of a queue: a slot is fired once, whoever comes, and what others changed meanwhile is left alone.

use std::time::Duration;

use feedmill::{
    job::{Envelope, JobOptions, Place},
    queue::{
        Queue, QueueError, QueueOptions, Redis,
        enqueue::PRIORITY_MAX,
        find::State,
        schedulers::{
            Added, Fire, Firing, Order, Rescheduled, Rescheduling, SCHEDULER_ID_BYTES_MAX, SchedulerCursor, Template,
            Upsert, Work,
        },
        settle::Burial,
    },
    schedule::{CatchUp, Definition, Repeat},
};
use redis::AsyncCommands;

use crate::support::{
    audit::{assert_sound, scan},
    jobs::{PAYLOAD_MAX, add, connection, id, queue, queue_at, queue_under, read_one},
    redis_prefix,
    schedulers::{HOUR, daily, hourly, hours_ago, move_slot, now_ms, template, upsert, waiting_ids},
    servers::{SharedServers, on_each_redis},
};

/// A firing of a slot of a scheduler of which nothing is stored, the next slot an hour later.
fn firing(name: &str, slot_ms: i64) -> Firing {
    let mut envelope = Vec::new();
    template(b"{}").encode_into(&mut envelope);
    Firing {
        id: name.to_owned(),
        slot_ms,
        from_ms: slot_ms,
        next_slot_ms: Some(slot_ms + HOUR),
        work: Work::Given { envelope, group: None },
        jobs: vec![(slot_ms, id(name))],
    }
}

/// What the one job of a firing became.
fn one(added: Added) -> Fire {
    Fire::Fired(vec![added])
}

/// Gives schedulers that are missing these slots.
async fn set(queue: &Queue, slots: &[(&str, i64)]) {
    let changes: Vec<Rescheduling<'_>> =
        slots.iter().map(|(id, slot)| Rescheduling { id, believed_ms: None, slot_ms: Some(*slot) }).collect();
    assert_eq!(queue.reschedule(&changes).await.unwrap().moved, slots.len());
}

/// All schedulers, by name.
async fn slots(queue: &Queue) -> Vec<(String, i64)> {
    let mut slots = queue.schedulers().await.unwrap();
    slots.sort();
    slots
}

/// The one stored scheduler that is due, as it is fired now.
async fn firing_of_due(queue: &Queue) -> Firing {
    let due = queue.due_schedulers(0).await.unwrap();
    let [one] = due.due.as_slice() else { panic!("one is due: {due:?}") };
    let stored = one.stored.as_ref().unwrap();
    Firing::of_stored(one, stored.definition.as_ref().unwrap(), stored, due.now_ms)
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
        [Fire::NotDue, Fire::NotDue, one(Added::Duplicate), one(Added::Enqueued), one(Added::Refused), Fire::NotDue],
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
    assert_eq!(queue.fire(&[early]).await.unwrap(), [one(Added::Enqueued)]);
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
    assert_eq!(queue.fire(&[firing("a", past)]).await.unwrap(), [one(Added::Enqueued)]);
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
    assert_eq!(queue.fire(&[firing("a", past)]).await.unwrap(), [one(Added::Enqueued)]);
    assert_eq!(queue.find(&id("a")).await.unwrap().unwrap().state, State::Waiting);
    assert_sound(&queue).await;
}

#[tokio::test]
async fn a_scheduler_without_a_next_slot_goes() {
    let queue = queue().await;
    let past = now_ms(&queue).await - 1;
    set(&queue, &[("last", past)]).await;
    let last = Firing { next_slot_ms: None, ..firing("last", past) };
    assert_eq!(queue.fire(&[last]).await.unwrap(), [one(Added::Enqueued)]);
    assert_eq!(slots(&queue).await, []);
}

#[tokio::test]
async fn of_many_who_fire_a_slot_at_once_one_does() {
    let queue = queue().await;
    let names: Vec<String> = (0..600).map(|n| format!("feed-{n}")).collect();
    let past = now_ms(&queue).await - 1;
    set(&queue, &names.iter().map(|name| (name.as_str(), past)).collect::<Vec<_>>()).await;
    let firings: Vec<Firing> = names.iter().map(|name| firing(name, past)).collect();
    let mut callers = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let firings = firings.clone();
        let other = queue_under(&SharedServers::of_this_run().redis_url(), queue.redis().prefix()).await;
        callers.spawn(async move { other.fire(&firings).await.unwrap() });
    }
    let fires = callers.join_all().await.concat();
    let n_enqueued = fires.iter().filter(|fire| **fire == one(Added::Enqueued)).count();
    let n_not_due = fires.iter().filter(|fire| **fire == Fire::NotDue).count();
    assert_eq!((n_enqueued, n_not_due), (names.len(), 7 * names.len()));
    assert_eq!(queue.counts().await.unwrap().waiting, names.len() as u64);
    let mut versions = std::collections::HashSet::new();
    for name in &names {
        versions.insert(queue.find(&id(name)).await.unwrap().unwrap().job.head.version);
    }
    assert_eq!(versions.len(), names.len(), "an import without a name of its own takes the version of its job");
}

#[tokio::test]
async fn the_due_ones_are_told_earliest_first_and_how_long_until_the_next() {
    let queue = queue().await;
    let none = queue.due_schedulers(0).await.unwrap();
    assert!(none.due.is_empty() && none.next_due_in.is_none());
    let now = now_ms(&queue).await;
    set(&queue, &[("later", now + HOUR), ("second", now - 1), ("first", now - HOUR)]).await;
    let told = async |passed_over| {
        let due = queue.due_schedulers(passed_over).await.unwrap();
        let ids = due.due.iter().map(|due| (due.id.clone(), due.slot_ms)).collect::<Vec<_>>();
        (ids, due.next_due_in.unwrap())
    };
    let (first, second) = (("first".to_owned(), now - HOUR), ("second".to_owned(), now - 1));
    let (due, wait) = told(0).await;
    assert_eq!(due, [first, second.clone()]);
    assert!(wait <= Duration::from_hours(1) && wait > Duration::from_mins(50), "{wait:?}");
    assert_eq!(told(1).await.0, [second]);

    let many: Vec<String> = (0..300).map(|n| format!("feed-{n}")).collect();
    set(&queue, &many.iter().map(|name| (name.as_str(), now - 1)).collect::<Vec<_>>()).await;
    let (due, wait) = told(0).await;
    assert_eq!((due.len(), wait), (256, Duration::ZERO), "a bounded number");
    assert_eq!(told(256).await.0.len(), 302 - 256);
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
    assert_eq!(queue.reschedule(&changes).await.unwrap(), Rescheduled { moved: 2, stored: Vec::new() });
    let expected = [("moved", 20), ("stays", 3), ("there", 4)];
    assert_eq!(slots(&queue).await, expected.map(|(name, slot)| (name.to_owned(), slot)));
    let (found, _) = queue.scheduler_slots(&["moved", "missing"]).await.unwrap();
    assert_eq!(found, [Some(20), None]);
}

// ── stored schedulers ──────────────────────────────────────────────────────────────────────────────────────────────

async fn a_scheduler_is_stored_and_found(url: &str) {
    let queue = queue_at(url).await;
    let definition = Definition { limit: Some(3), ..hourly() };
    let before = now_ms(&queue).await;
    let envelope = Envelope { payload: b"{\"n\": 1}", name: Some("report"), ..Envelope::default() };
    let (upserted, next) = queue.upsert_scheduler("r#1", &definition, envelope, PAYLOAD_MAX).await.unwrap();
    assert_eq!((upserted, next), (Upsert::Created, (before / HOUR + 1) * HOUR));

    let (found, template) = queue.scheduler("r#1").await.unwrap().unwrap();
    assert_eq!((found.id.as_str(), found.next_slot_ms), ("r#1", Some(next)));
    let stored = found.stored.unwrap();
    assert_eq!(stored.definition, Ok(definition));
    assert_eq!((stored.fired, stored.last_slot_ms), (0, None));
    assert!((before..=before + 5000).contains(&stored.created_ms), "{stored:?}");
    assert!((before..=before + 5000).contains(&stored.updated_ms), "{stored:?}");
    assert_eq!(template.unwrap().envelope().unwrap(), envelope);
    assert_eq!(queue.count_schedulers().await.unwrap(), 1);
    assert!(queue.scheduler("r").await.unwrap().is_none());

    // As other programs see it.
    let mut redis = connection(&queue).await;
    let json: String = redis.hget(queue.keys().scheduler("r#1"), "definition").await.unwrap();
    assert_eq!(json, r#"{"every":3600000,"limit":3,"catch_up":"one"}"#);

    assert!(queue.remove_scheduler("r#1").await.unwrap());
    assert!(!queue.remove_scheduler("r#1").await.unwrap(), "it is gone");
    assert!(queue.scheduler("r#1").await.unwrap().is_none());
    assert_eq!(scan(&mut redis, queue.keys().scheduler_prefix()).await, Vec::<Vec<u8>>::new());
}

on_each_redis!(a_scheduler_is_stored_and_found);

#[tokio::test]
async fn the_job_of_a_slot_is_made_of_the_template_and_named_after_scheduler_and_slot() {
    let queue = queue().await;
    let envelope = Envelope { payload: b"work", name: Some("report"), ..Envelope::default() };
    queue.upsert_scheduler("r", &hourly(), envelope, PAYLOAD_MAX).await.unwrap();
    let slot = move_slot(&queue, "r", hours_ago(&queue, 1).await).await;
    assert_eq!(queue.fire(&[firing_of_due(&queue).await]).await.unwrap(), [one(Added::Enqueued)]);
    let job = queue.find(&id(format!("repeat:r:{slot}"))).await.unwrap().unwrap().job;
    assert_eq!((job.payload(), job.name.as_deref()), (&b"work"[..], Some("report")));
    let (found, _) = queue.scheduler("r").await.unwrap().unwrap();
    let stored = found.stored.unwrap();
    assert_eq!((stored.fired, stored.last_slot_ms), (1, Some(slot)));
    assert_eq!(found.next_slot_ms, Some((now_ms(&queue).await / HOUR + 1) * HOUR), "from now, not from the slot");
    assert_sound(&queue).await;
}

#[tokio::test]
async fn its_jobs_have_the_priority_the_group_and_the_options_of_the_template() {
    let url = SharedServers::of_this_run().redis_url();
    let redis = Redis::connect(&url, &redis_prefix()).await.unwrap();
    let options = QueueOptions { group_window: Some(1), ..QueueOptions::default() };
    let queue = Queue::open(&redis, "jobs", options).await.unwrap();
    let job_options = JobOptions { attempts: Some(7), ..JobOptions::default() };
    let encoded = job_options.encode();
    let envelope = Envelope { options: Some(&encoded), ..template(b"{}") };
    let grouped = Template { envelope, priority: 3, group: Some("host") };
    let definition = Definition { catch_up: CatchUp::All, ..hourly() };
    queue.upsert_scheduler("a", &definition, grouped, PAYLOAD_MAX).await.unwrap();
    let (_, stored) = queue.scheduler("a").await.unwrap().unwrap();
    let stored = stored.unwrap();
    assert_eq!((stored.priority(), stored.group().as_deref()), (3, Some("host")));
    let slot = move_slot(&queue, "a", hours_ago(&queue, 1).await).await;
    let added = Fire::Fired(vec![Added::Enqueued; 2]);
    assert_eq!(queue.fire(&[firing_of_due(&queue).await]).await.unwrap(), [added]);
    let find = async |slot: i64| queue.find(&id(format!("repeat:a:{slot}"))).await.unwrap().unwrap();
    let (first, second) = (find(slot).await, find(slot + HOUR).await);
    assert_eq!(first.job.head.place, Place::Prioritized);
    assert_eq!(second.job.head.place, Place::Parked, "the group has room for one");
    assert_eq!(second.job.options.as_deref(), Some(&job_options));
    assert_sound(&queue).await;

    // Another priority is another template.
    let changed = Template { priority: 4, ..grouped };
    assert_eq!(queue.upsert_scheduler("a", &definition, changed, PAYLOAD_MAX).await.unwrap().0, Upsert::Changed);
    let highest = Template { priority: PRIORITY_MAX + 1, ..grouped };
    let refused = queue.upsert_scheduler("a", &definition, highest, PAYLOAD_MAX).await.unwrap_err();
    assert!(matches!(refused, QueueError::Priority { .. }), "{refused}");
}

#[tokio::test]
async fn an_upsert_of_the_same_changes_nothing_and_one_of_another_template_keeps_slot_and_count() {
    let queue = queue().await;
    let definition = Definition { immediately: true, ..hourly() };
    let (_, at_once) = upsert(&queue, "a", &definition).await;
    assert_eq!(upsert(&queue, "a", &definition).await, (Upsert::Unchanged, at_once), "not once more");
    queue.fire(&[firing_of_due(&queue).await]).await.unwrap();
    let next = queue.scheduler("a").await.unwrap().unwrap().0.next_slot_ms.unwrap();
    assert_eq!(upsert(&queue, "a", &definition).await, (Upsert::Unchanged, next));

    let other = template(b"other");
    let changed = queue.upsert_scheduler("a", &definition, other, PAYLOAD_MAX).await.unwrap();
    assert_eq!(changed, (Upsert::Changed, next));
    let (found, stored) = queue.scheduler("a").await.unwrap().unwrap();
    assert_eq!(found.stored.unwrap().fired, 1);
    assert_eq!(stored.unwrap().envelope().unwrap(), other);
}

#[tokio::test]
async fn another_definition_begins_anew_and_keeps_a_slot_that_has_come_only_if_it_has_it_too() {
    let queue = queue().await;
    let slot = hours_ago(&queue, 2).await;
    for (changed, is_kept) in [
        (Definition { catch_up: CatchUp::All, ..hourly() }, true),
        (Definition { repeat: Repeat::every(Duration::from_mins(30), Duration::ZERO).unwrap(), ..hourly() }, true),
        (
            Definition { repeat: Repeat::every(Duration::from_hours(1), Duration::from_secs(1)).unwrap(), ..hourly() },
            false,
        ),
    ] {
        upsert(&queue, "a", &hourly()).await;
        move_slot(&queue, "a", hours_ago(&queue, 3).await).await;
        queue.fire(&[firing_of_due(&queue).await]).await.unwrap();
        move_slot(&queue, "a", slot).await;
        let (upserted, next) = upsert(&queue, "a", &changed).await;
        assert_eq!((upserted, next == slot), (Upsert::Changed, is_kept), "{changed:?}");
        assert!(is_kept || next > now_ms(&queue).await);
        let stored = queue.scheduler("a").await.unwrap().unwrap().0.stored.unwrap();
        assert_eq!((stored.fired, stored.last_slot_ms), (0, None));
        assert!(queue.remove_scheduler("a").await.unwrap());
        let mut redis = connection(&queue).await;
        let _: () = redis.del(queue.keys().job(&id(format!("repeat:a:{}", slot - HOUR)))).await.unwrap();
    }
}

#[tokio::test]
async fn who_computed_the_next_slot_from_a_definition_that_was_replaced_since_fires_nothing() {
    let queue = queue().await;
    upsert(&queue, "a", &hourly()).await;
    let slot = move_slot(&queue, "a", hours_ago(&queue, 1).await).await;
    let late = firing_of_due(&queue).await;
    // The slot stays, what follows is another one.
    let two_hourly = Definition { repeat: Repeat::every(Duration::from_mins(20), Duration::ZERO).unwrap(), ..hourly() };
    assert_eq!(upsert(&queue, "a", &two_hourly).await, (Upsert::Changed, slot));
    assert_eq!(queue.fire(std::slice::from_ref(&late)).await.unwrap(), [Fire::NotDue]);
    // Removed and made anew with the same slot: it is not the one that was read.
    assert!(queue.remove_scheduler("a").await.unwrap());
    assert_eq!(queue.fire(std::slice::from_ref(&late)).await.unwrap(), [Fire::NotDue]);
    upsert(&queue, "a", &two_hourly).await;
    move_slot(&queue, "a", slot).await;
    assert_eq!(queue.fire(&[late]).await.unwrap(), [Fire::NotDue]);
    assert_eq!(queue.counts().await.unwrap().waiting, 0);
    let fires = queue.fire(&[firing_of_due(&queue).await]).await.unwrap();
    assert_eq!(fires, [one(Added::Enqueued)]);
}

#[tokio::test]
async fn a_scheduler_that_has_had_all_its_jobs_goes_with_all_that_is_stored_of_it() {
    let queue = queue().await;
    let definition = Definition { limit: Some(3), catch_up: CatchUp::All, ..hourly() };
    upsert(&queue, "a", &definition).await;
    let slot = move_slot(&queue, "a", hours_ago(&queue, 5).await).await;
    // As one that had read it before somebody else fired two.
    let mut firing = firing_of_due(&queue).await;
    assert_eq!(firing.jobs.len(), 3, "no more than are left");
    firing.jobs.extend((3..5).map(|n| (slot + n * HOUR, id(format!("repeat:a:{}", slot + n * HOUR)))));
    let added = [Added::Enqueued, Added::Enqueued, Added::Enqueued, Added::OverLimit, Added::OverLimit];
    assert_eq!(queue.fire(&[firing]).await.unwrap(), [Fire::Fired(added.to_vec())]);
    assert!(queue.scheduler("a").await.unwrap().is_none());
    assert_eq!(queue.counts().await.unwrap().waiting, 3);
    let mut redis = connection(&queue).await;
    assert_eq!(scan(&mut redis, queue.keys().scheduler_prefix()).await, Vec::<Vec<u8>>::new());
    assert_sound(&queue).await;
}

#[tokio::test]
async fn a_duplicate_is_no_job_of_the_limit() {
    let queue = queue().await;
    let definition = Definition { limit: Some(1), no_overlap: true, ..hourly() };
    upsert(&queue, "a", &definition).await;
    add(&queue, "repeat:a").await;
    move_slot(&queue, "a", hours_ago(&queue, 1).await).await;
    assert_eq!(queue.fire(&[firing_of_due(&queue).await]).await.unwrap(), [one(Added::Duplicate)]);
    let (found, _) = queue.scheduler("a").await.unwrap().unwrap();
    assert_eq!(found.stored.unwrap().fired, 0);
}

#[tokio::test]
async fn many_jobs_of_a_large_template_go_in_calls_of_bounded_size() {
    let queue = queue().await;
    let definition = Definition { catch_up: CatchUp::All, ..hourly() };
    let payload = vec![b'x'; 100 * 1024];
    for name in ["a", "b"] {
        queue.upsert_scheduler(name, &definition, template(&payload), PAYLOAD_MAX).await.unwrap();
        move_slot(&queue, name, hours_ago(&queue, 40).await).await;
    }
    let due = queue.due_schedulers(0).await.unwrap();
    let firings = due.due.iter().map(|due_one| {
        let stored = due_one.stored.as_ref().unwrap();
        Firing::of_stored(due_one, &definition, stored, due.now_ms)
    });
    let firings: Vec<Firing> = firings.collect();
    assert_eq!(firings.iter().map(|firing| firing.jobs.len()).collect::<Vec<_>>(), [5, 5], "as many as a call takes");
    let fires = queue.fire(&firings).await.unwrap();
    assert!(fires.iter().all(|fire| *fire == Fire::Fired(vec![Added::Enqueued; 5])), "{fires:?}");
}

#[tokio::test]
async fn what_cannot_be_is_refused_before_anything_is_stored() {
    let queue = queue().await;
    let start = jiff::Timestamp::now();
    let long = "x".repeat(SCHEDULER_ID_BYTES_MAX + 1);
    for (name, definition, payload_bytes, told) in [
        ("", hourly(), 1, "the id of a scheduler must not be empty".to_owned()),
        (&long, hourly(), 1, format!("{} bytes is too long; at most {SCHEDULER_ID_BYTES_MAX} are", long.len())),
        ("a", Definition { limit: Some(0), ..hourly() }, 1, "a limit of 0 jobs".to_owned()),
        ("a", Definition { start: Some(start), end: Some(start), ..hourly() }, 1, "is not after the start".to_owned()),
        ("a", Definition { end: Some(start), ..hourly() }, 1, "no slot between now and its end".to_owned()),
        ("a", hourly(), PAYLOAD_MAX + 1, "job repeat:a has a payload of".to_owned()),
    ] {
        let payload = vec![b'x'; payload_bytes];
        let error = queue.upsert_scheduler(name, &definition, template(&payload), PAYLOAD_MAX).await.unwrap_err();
        assert!(error.to_string().contains(&told), "{error}");
        assert!(!matches!(error, QueueError::Redis { .. }));
    }
    assert_eq!(queue.count_schedulers().await.unwrap(), 0);
    // The longest id fires all the same.
    let longest = "x".repeat(SCHEDULER_ID_BYTES_MAX);
    upsert(&queue, &longest, &hourly()).await;
    move_slot(&queue, &longest, hours_ago(&queue, 1).await).await;
    assert_eq!(queue.fire(&[firing_of_due(&queue).await]).await.unwrap(), [one(Added::Enqueued)]);
}

#[tokio::test]
async fn a_thousand_are_listed_by_pages_in_both_orders_each_once() {
    let queue = queue().await;
    let names: Vec<String> = (0..1000).map(|n| format!("s-{n:04}")).collect();
    for names in names.chunks(50) {
        // All of them have one of two slots.
        let upserts = names.iter().map(async |name| {
            let definition = if name.ends_with('7') { daily() } else { hourly() };
            upsert(&queue, name, &definition).await
        });
        futures_util::future::join_all(upserts).await;
    }
    for order in [Order::Ascending, Order::Descending] {
        let (mut listed, mut after, mut pages) = (Vec::new(), None, 0);
        loop {
            let page = queue.list_schedulers(after.as_ref(), order, 64).await.unwrap();
            assert_eq!(page.total, 1000);
            listed.extend(page.schedulers.into_iter().map(|one| (one.next_slot_ms.unwrap(), one.id)));
            pages += 1;
            let Some(next) = page.next else { break };
            // As a command prints it and is told it.
            after = Some(next.to_string().parse::<SchedulerCursor>().unwrap());
        }
        assert_eq!(pages, 1000_usize.div_ceil(64));
        let mut sorted = listed.clone();
        sorted.sort();
        if order == Order::Descending {
            sorted.reverse();
        }
        assert_eq!(listed, sorted);
        sorted.dedup();
        assert_eq!(sorted.len(), 1000);
    }
    let most = queue.list_schedulers(None, Order::Ascending, usize::MAX).await.unwrap();
    assert_eq!(most.schedulers.len(), 256, "a page is bounded");
    assert!("soon".parse::<SchedulerCursor>().is_err());
}

#[tokio::test]
async fn a_page_goes_on_behind_one_that_was_fired_or_removed_since() {
    let queue = queue().await;
    for (name, ago) in [("a", 3), ("b", 2), ("c", 2), ("d", 1)] {
        upsert(&queue, name, &hourly()).await;
        move_slot(&queue, name, hours_ago(&queue, ago).await).await;
    }
    let ids = async |after: Option<&SchedulerCursor>, order| {
        let page = queue.list_schedulers(after, order, 2).await.unwrap();
        (page.schedulers.into_iter().map(|one| one.id).collect::<Vec<_>>(), page.next)
    };
    let (first, up) = ids(None, Order::Ascending).await;
    assert_eq!(first, ["a", "b"]);
    let (first, down) = ids(None, Order::Descending).await;
    assert_eq!(first, ["d", "c"]);
    assert_eq!(ids(up.as_ref(), Order::Ascending).await.0, ["c", "d"]);
    assert_eq!(ids(down.as_ref(), Order::Descending).await.0, ["b", "a"]);
    move_slot(&queue, "b", now_ms(&queue).await + HOUR).await;
    assert_eq!(ids(up.as_ref(), Order::Ascending).await.0, ["c", "d"]);
    queue.remove_scheduler("c").await.unwrap();
    assert_eq!(ids(down.as_ref(), Order::Descending).await.0, ["a"]);
    assert!(ids(up.as_ref(), Order::Ascending).await.0.starts_with(&["d".to_owned()]));
}

#[tokio::test]
async fn damage_is_told_and_an_upsert_mends_it() {
    let queue = queue().await;
    let mut redis = connection(&queue).await;
    for (command, told) in [
        (&["HSET", "KEY", "definition", "{"][..], "cannot be read"),
        (&["HDEL", "KEY", "definition"], "its definition is missing"),
        (&["HDEL", "KEY", "template"], "the template of its jobs is missing"),
        (&["HDEL", "KEY", "revision"], "its revision is missing"),
        (&["DEL", "KEY"], "nothing"),
        (&["SET", "KEY", "a string"], "nothing"),
        (&["ZREM", "SLOTS", "a"], "no slot"),
    ] {
        upsert(&queue, "a", &hourly()).await;
        let mut built = redis::Cmd::new();
        for word in command {
            let keys = queue.keys();
            built.arg(word.replace("KEY", &keys.scheduler("a")).replace("SLOTS", keys.schedulers()));
        }
        let _: redis::Value = built.query_async(&mut redis).await.unwrap();
        let (found, _) = queue.scheduler("a").await.unwrap().unwrap();
        let said = match (&found.stored, found.next_slot_ms) {
            (Some(stored), Some(_)) => stored.definition.as_ref().unwrap_err().as_str(),
            (None, Some(_)) => "nothing",
            _ => "no slot",
        };
        assert!(said.contains(told), "{command:?}: {said}");
        let listed = queue.list_schedulers(None, Order::Ascending, 10).await.unwrap();
        assert_eq!(listed.schedulers.len(), usize::from(found.next_slot_ms.is_some()));
        assert_eq!(upsert(&queue, "a", &hourly()).await.0, Upsert::Changed, "{command:?}");
        let (found, _) = queue.scheduler("a").await.unwrap().unwrap();
        assert_eq!((found.stored.unwrap().definition, found.next_slot_ms.is_some()), (Ok(hourly()), true));
        queue.remove_scheduler("a").await.unwrap();
    }
}

#[tokio::test]
async fn one_that_is_stored_is_not_rescheduled_by_who_has_another_definition_for_its_id() {
    let queue = queue().await;
    let (_, slot) = upsert(&queue, "a", &hourly()).await;
    let changes = [
        Rescheduling { id: "a", believed_ms: Some(slot), slot_ms: Some(1) },
        Rescheduling { id: "a", believed_ms: Some(slot), slot_ms: None },
        Rescheduling { id: "b", believed_ms: None, slot_ms: Some(1) },
    ];
    let stored = vec!["a".to_owned(), "a".to_owned()];
    assert_eq!(queue.reschedule(&changes).await.unwrap(), Rescheduled { moved: 1, stored });
    assert_eq!(slots(&queue).await, [("a".to_owned(), slot), ("b".to_owned(), 1)]);
    assert_eq!(queue.fire(&[firing("a", slot)]).await.unwrap(), [Fire::NotDue]);
    move_slot(&queue, "a", 5).await;
    assert_eq!(queue.fire(&[firing("a", 5)]).await.unwrap(), [Fire::NotDue], "whoever has it, it is fired as stored");
    assert_eq!(waiting_ids(&queue).await, Vec::<String>::new());
}
