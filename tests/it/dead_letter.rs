//! Dead letters: what they say, how they come back, and how long they are kept.

use std::time::{Duration, SystemTime};

use feedmill::{
    job::{Envelope, Stored, Version},
    queue::{
        Queue, Settled,
        dead_letter::{NewDeadJob, Redriven, Retention},
        enqueue::Enqueued,
        find::State,
        settle::{BackOff, Burial},
    },
};
use redis::AsyncCommands;

use crate::support::{
    audit::assert_sound,
    jobs::{
        Fetch, MAP_HEADER_BYTES, add, add_many, connection, counts, done, forget_record, id, queue, read, read_one,
        record,
    },
};

/// Reads everything that waits and buries it.
async fn bury_all(queue: &Queue) {
    let deliveries = read(&mut queue.reader("worker"), 1000).await;
    let burials: Vec<Burial> = deliveries
        .into_iter()
        .map(|delivery| Burial { lease: delivery.lease, reason: "bad".to_owned(), exhausted: false, dedup: None })
        .collect();
    assert_eq!(queue.bury("worker", &burials).await.unwrap(), vec![Settled::Settled; burials.len()]);
}

async fn redrive_all(queue: &Queue) -> Redriven {
    let letters = queue.dead_letters(None, 1000).await.unwrap();
    queue.redrive(&letters).await.unwrap()
}

#[tokio::test]
async fn a_letter_says_which_job_why_how_often_when_and_where() {
    let queue = queue().await;
    add(&queue, "a").await;
    let lease = read_one(&queue, "worker").await.lease;
    queue.back_off(&[BackOff { lease, wait: Duration::ZERO, reason: Some("first".to_owned()) }]).await.unwrap();
    queue.promote().await.unwrap();
    let lease = read_one(&queue, "worker").await.lease;
    let before = SystemTime::now();
    queue.bury("worker", &[Burial { lease, reason: "last".to_owned(), exhausted: true, dedup: None }]).await.unwrap();
    let letters = queue.dead_letters(None, 10).await.unwrap();
    let [letter] = &letters[..] else { panic!("{letters:?}") };
    assert_eq!((letter.id.clone(), letter.reason.as_str(), letter.attempts), (Some(id("a")), "last", 2));
    assert_eq!((letter.consumer.as_str(), letter.raw.as_ref()), ("worker", None));
    let late = letter.at.duration_since(before - Duration::from_secs(1)).unwrap();
    assert!(late < Duration::from_mins(1), "{late:?}");
    assert_eq!(queue.last_dead_letter().await.unwrap(), Some(letter.entry));
    assert_eq!(queue.dead_letters(Some(letter.entry), 10).await.unwrap(), []);
    assert_eq!(queue.find(&id("a")).await.unwrap().unwrap().failure.unwrap().reason, "last");
    let events: redis::streams::StreamRangeReply =
        connection(&queue).await.xrange_all(queue.keys().events()).await.unwrap();
    let events: Vec<String> = events.ids.iter().filter_map(|event| event.get("event")).collect();
    assert_eq!(events, ["delayed", "failed", "retries-exhausted"]);
    assert_sound(&queue).await;
}

#[tokio::test]
async fn letters_are_read_page_by_page() {
    let queue = queue().await;
    let ids = add_many(&queue, "job", 5).await;
    bury_all(&queue).await;
    let mut read_ids = Vec::new();
    let mut after = None;
    loop {
        let page = queue.dead_letters(after, 2).await.unwrap();
        let Some(last) = page.last() else { break };
        after = Some(last.entry);
        read_ids.extend(page.into_iter().filter_map(|letter| letter.id));
    }
    assert_eq!(read_ids, ids);
}

#[tokio::test]
async fn a_redriven_job_starts_at_attempt_one_and_is_worked_on_again() {
    let queue = queue().await;
    add(&queue, "a").await;
    let lease = read_one(&queue, "worker").await.lease;
    queue.back_off(&[BackOff { lease, wait: Duration::ZERO, reason: Some("no".to_owned()) }]).await.unwrap();
    queue.promote().await.unwrap();
    bury_all(&queue).await;
    let letters = queue.dead_letters(None, 10).await.unwrap();
    assert_eq!(queue.redrive(&letters).await.unwrap(), Redriven { redriven: 1, ..Redriven::default() });
    assert_eq!(queue.redrive(&letters).await.unwrap(), Redriven { gone: 1, ..Redriven::default() });
    assert_sound(&queue).await;
    assert_eq!(queue.find(&id("a")).await.unwrap().unwrap().failure, None);
    let delivery = read_one(&queue, "worker").await;
    assert_eq!((delivery.job.attempt(), delivery.job.payload()), (1, &b"{}"[..]));
    assert_eq!(done(&queue, [(delivery.lease, None)]).await.unwrap(), [Settled::Settled]);
    assert_sound(&queue).await;
}

#[tokio::test]
async fn a_redrive_before_its_import_closes_opens_the_job_again() {
    let queue = queue().await;
    let fetch = Fetch::begin(&queue, "feed").await;
    fetch.enqueue(&queue, &["a"]).await;
    bury_all(&queue).await;
    assert_eq!(redrive_all(&queue).await.redriven, 1);
    assert_eq!(fetch.counts(&queue).await, counts(&[("new", 1), ("open", 1), ("failures", 1)]));
    assert_sound(&queue).await;
    fetch.finish(&queue, 1, MAP_HEADER_BYTES + 16).await;
    let lease = read_one(&queue, "worker").await.lease;
    done(&queue, [(lease, Some(Stored::Inserted))]).await.unwrap();
    assert_eq!(queue.closing_import_ids(10).await.unwrap(), [fetch.import]);
    assert_eq!((fetch.state(&queue).await.count("failed"), fetch.state(&queue).await.count("inserted")), (0, 1));
    assert_sound(&queue).await;
}

#[tokio::test]
async fn a_redrive_after_its_import_closed_counts_for_no_import() {
    for is_recorded in [false, true] {
        let queue = queue().await;
        let fetch = Fetch::begin(&queue, "feed").await;
        fetch.enqueue(&queue, &["a"]).await;
        bury_all(&queue).await;
        fetch.finish(&queue, 1, MAP_HEADER_BYTES + 16).await;
        let closed = fetch.counts(&queue).await;
        if is_recorded {
            assert!(queue.release_closed_import(fetch.import).await.unwrap());
        }
        assert_eq!(redrive_all(&queue).await.redriven, 1);
        let delivery = read_one(&queue, "worker").await;
        assert_eq!(delivery.job.head.import, None);
        done(&queue, [(delivery.lease, Some(Stored::Inserted))]).await.unwrap();
        if is_recorded {
            assert_eq!(queue.import(fetch.import).await.unwrap(), None, "it is not brought back");
        } else {
            assert_eq!(fetch.counts(&queue).await, closed);
        }
        assert_sound(&queue).await;
    }
}

#[tokio::test]
async fn a_letter_without_anything_to_work_on_stays() {
    let queue = queue().await;
    add(&queue, "lost").await;
    let mut redis = connection(&queue).await;
    let () = redis.del(queue.keys().job(&id("lost"))).await.unwrap();
    let entries = queue.reader("worker").read(1, None).await.unwrap().entries;
    let [feedmill::queue::read::Entry::Unreadable(unreadable)] = &entries[..] else { panic!("{entries:?}") };
    queue.bury_entry("worker", unreadable).await.unwrap();
    assert_eq!(redrive_all(&queue).await, Redriven { empty: 1, ..Redriven::default() });
    assert_eq!(queue.counts().await.unwrap().failed, 1);
    // its id came back meanwhile: the letter is a leftover and goes
    add(&queue, "lost").await;
    assert_eq!(redrive_all(&queue).await, Redriven { gone: 1, ..Redriven::default() });
    let now = queue.counts().await.unwrap();
    assert_eq!((now.failed, now.waiting), (0, 1));
    assert_sound(&queue).await;
}

#[tokio::test]
async fn more_letters_than_one_call_takes_are_redriven_and_discarded() {
    let queue = queue().await;
    add_many(&queue, "job", 300).await;
    bury_all(&queue).await;
    assert_eq!(redrive_all(&queue).await.redriven, 300);
    bury_all(&queue).await;
    let retention = Retention { count: Some(10), age: None };
    let now = SystemTime::now();
    assert_eq!(queue.retain_dead_letters(retention, now, forget_record).await.unwrap(), 256, "a page");
    assert_eq!(queue.retain_dead_letters(retention, now, forget_record).await.unwrap(), 34);
    assert_eq!(queue.retain_dead_letters(retention, now, forget_record).await.unwrap(), 0);
    assert_eq!(queue.counts().await.unwrap().failed, 10);
    assert_sound(&queue).await;
}

#[tokio::test]
async fn letters_over_the_count_go_oldest_first_with_their_guards() {
    let queue = queue().await;
    let ids = add_many(&queue, "job", 4).await;
    bury_all(&queue).await;
    let retention = Retention { count: Some(3), age: None };
    assert_eq!(queue.retain_dead_letters(retention, SystemTime::now(), forget_record).await.unwrap(), 1);
    assert!(queue.find(&ids[0]).await.unwrap().is_none());
    for kept in &ids[1..] {
        let state = queue.find(kept).await.unwrap().unwrap().state;
        assert_eq!(state, State::Failed { reason: "bad".to_owned() });
    }
    assert_eq!(queue.counts().await.unwrap().totals["discarded"], 1);
    assert_sound(&queue).await;
    assert_eq!(add(&queue, "job-0").await, Enqueued::Enqueued, "its id is free");
}

#[tokio::test]
async fn letters_over_the_age_go_and_younger_ones_stay() {
    let queue = queue().await;
    add_many(&queue, "job", 2).await;
    bury_all(&queue).await;
    let retention = Retention { count: None, age: Some(Duration::from_mins(1)) };
    let now = SystemTime::now();
    assert_eq!(queue.retain_dead_letters(retention, now, forget_record).await.unwrap(), 0);
    let later = now + Duration::from_mins(2);
    assert_eq!(queue.retain_dead_letters(retention, later, forget_record).await.unwrap(), 2);
    assert_eq!(queue.counts().await.unwrap().failed, 0);
    assert_sound(&queue).await;
}

#[tokio::test]
async fn all_letters_are_kept_without_limits() {
    let queue = queue().await;
    add_many(&queue, "job", 2).await;
    bury_all(&queue).await;
    let later = SystemTime::now() + Duration::from_hours(10_000);
    assert_eq!(queue.retain_dead_letters(Retention::default(), later, forget_record).await.unwrap(), 0);
}

#[tokio::test]
async fn the_feed_of_a_discarded_item_forgets_it_and_fetches_without_validators() {
    let queue = queue().await;
    let fetch = Fetch::begin(&queue, "feed").await;
    fetch.enqueue(&queue, &["a", "b"]).await;
    let lease = read_one(&queue, "worker").await.lease;
    queue.bury("worker", &[Burial { lease, reason: "bad".to_owned(), exhausted: false, dedup: None }]).await.unwrap();
    fetch.finish(&queue, 2, MAP_HEADER_BYTES + 2 * 16).await;
    assert!(queue.feed_memory("feed").await.unwrap().etag.is_some());
    let retention = Retention { count: Some(0), age: None };
    assert_eq!(queue.retain_dead_letters(retention, SystemTime::now(), forget_record).await.unwrap(), 1);
    assert_eq!(queue.feed_memory("feed").await.unwrap().etag, None);
    let seen: Vec<u8> = connection(&queue).await.get(queue.keys().seen("feed")).await.unwrap();
    assert_eq!(seen[MAP_HEADER_BYTES..], [record(&id("a")), record(&id("b")), forget_record(&id("a"))].concat());
    assert_sound(&queue).await;

    // a fetch that had begun before notices, and stores no validators either
    let next = Fetch::begin(&queue, "feed").await;
    let seen_bytes = MAP_HEADER_BYTES + 3 * 16;
    next.enqueue(&queue, &["c"]).await;
    bury_all_but(&queue, "b").await;
    queue.retain_dead_letters(retention, SystemTime::now(), forget_record).await.unwrap();
    assert!(!next.finish(&queue, 1, seen_bytes + 16).await.undisturbed);
    assert_eq!(queue.feed_memory("feed").await.unwrap().etag, None);
    assert_sound(&queue).await;
}

/// Buries what waits, but for one job that is given back.
async fn bury_all_but(queue: &Queue, kept: &str) {
    for delivery in read(&mut queue.reader("worker"), 100).await {
        if delivery.job.id == id(kept) {
            queue.give_back(&[delivery.lease]).await.unwrap();
        } else {
            let burial = Burial { lease: delivery.lease, reason: "bad".to_owned(), exhausted: false, dedup: None };
            queue.bury("worker", &[burial]).await.unwrap();
        }
    }
}

#[tokio::test]
async fn discarding_a_leftover_letter_leaves_the_job_of_its_id_alone() {
    let queue = queue().await;
    let mut redis = connection(&queue).await;
    let fields = [("id", "a"), ("reason", "payload lost"), ("attempts", "0"), ("at", "1"), ("consumer", "")];
    let _: String = redis.xadd(queue.keys().dead(), "*", &fields).await.unwrap();
    let fetch = Fetch::begin(&queue, "feed").await;
    fetch.enqueue(&queue, &["a"]).await;
    fetch.finish(&queue, 1, MAP_HEADER_BYTES + 16).await;
    let retention = Retention { count: Some(0), age: None };
    assert_eq!(queue.retain_dead_letters(retention, SystemTime::now(), forget_record).await.unwrap(), 1);
    assert_eq!(queue.find(&id("a")).await.unwrap().unwrap().state, State::Waiting);
    assert!(queue.feed_memory("feed").await.unwrap().etag.is_some());
    assert_sound(&queue).await;
}

/// A job that was given up elsewhere, an hour ago.
fn given_up(job: &str, version: Option<u64>) -> NewDeadJob<'static> {
    NewDeadJob {
        id: id(job),
        envelope: Envelope { payload: b"from elsewhere", ..Envelope::default() },
        version: version.map(Version),
        priority: 7,
        group: None,
        attempts_made: 4,
        reason: "over there",
        at: SystemTime::now() - Duration::from_hours(1),
    }
}

#[tokio::test]
async fn a_job_that_was_given_up_elsewhere_is_a_dead_letter_and_can_be_redriven() {
    let queue = queue().await;
    let new = [given_up("a", Some(5)), given_up("b", None)];
    assert_eq!(queue.enqueue_dead(&new).await.unwrap(), vec![Enqueued::Enqueued; 2]);
    assert_sound(&queue).await;
    let letters = queue.dead_letters(None, 10).await.unwrap();
    assert_eq!(letters.iter().map(|letter| letter.id.clone().unwrap()).collect::<Vec<_>>(), [id("a"), id("b")]);
    let hour = letters[0].at.elapsed().unwrap().as_secs();
    assert!((3_599..3_660).contains(&hour), "{hour}");
    assert_eq!((letters[0].attempts, letters[0].consumer.as_str()), (4, ""));
    let found = queue.find(&id("a")).await.unwrap().unwrap();
    assert_eq!(found.state, State::Failed { reason: "over there".to_owned() });
    assert_eq!((found.job.payload(), found.job.head.attempts), (&b"from elsewhere"[..], 4));
    let totals = queue.counts().await.unwrap().totals;
    assert_eq!((totals.get("failed"), totals.get("enqueued")), (None, None), "neither happened here");

    assert_eq!(redrive_all(&queue).await.redriven, 2);
    let counts = queue.counts().await.unwrap();
    assert_eq!((counts.prioritized, counts.failed), (2, 0), "with the priority it had");
    assert_sound(&queue).await;
}

#[tokio::test]
async fn a_job_that_was_given_up_elsewhere_replaces_only_an_older_dead_one() {
    let queue = queue().await;
    queue.enqueue_dead(&[given_up("dead", Some(5))]).await.unwrap();
    add(&queue, "living").await;
    connection(&queue).await.hset::<_, _, _, ()>(queue.keys().job(&id("foreign")), "a", "b").await.unwrap();
    for (job, version, wanted) in [
        ("dead", Some(4), Enqueued::Duplicate),
        ("dead", Some(5), Enqueued::Duplicate),
        ("dead", None, Enqueued::Duplicate),
        ("dead", Some(6), Enqueued::Enqueued),
        ("living", Some(u64::MAX), Enqueued::Duplicate),
        ("living", None, Enqueued::Duplicate),
    ] {
        assert_eq!(queue.enqueue_dead(&[given_up(job, version)]).await.unwrap(), [wanted], "{job} {version:?}");
    }
    let refused = queue.enqueue_dead(&[given_up("foreign", None), given_up("new", None)]).await.unwrap();
    assert!(matches!(&refused[..], [Enqueued::Refused(reason), Enqueued::Enqueued] if reason.contains("WRONGTYPE")));
    connection(&queue).await.del::<_, ()>(queue.keys().job(&id("foreign"))).await.unwrap();
    assert_eq!(queue.dead_letters(None, 10).await.unwrap().len(), 2, "the older letter is gone");
    assert_sound(&queue).await;
}
