//! The event stream: what is told, to whom, and in which order.

use std::time::Duration;

use feedmill::{
    job::{Envelope, Outcome},
    queue::{
        Settled,
        claim::ClaimLimits,
        enqueue::{Deduplication, NewJob},
        events::{After, Event},
    },
};
use redis::AsyncCommands;

use super::{telling_queue, told_by_job};
use crate::support::{
    audit::assert_sound,
    jobs::{PAYLOAD_MAX, add, add_many, connection, id, new_job, queue, read},
    wait::until,
    workers::{each, options},
};

#[tokio::test]
async fn events_are_read_from_now_and_from_any_that_was_read_before() {
    let queue = telling_queue().await;
    add(&queue, "before").await;
    let mut reader = queue.events(After::Now);
    assert!(reader.read(None).await.unwrap().is_empty());
    let waiting = tokio::spawn(async move {
        let events = reader.read(Some(Duration::from_secs(5))).await.unwrap();
        (events, reader)
    });
    let names = |events: &[Event]| events.iter().map(|event| event.name.clone()).collect::<Vec<_>>();
    add(&queue, "a").await;
    let (mut events, mut reader) = waiting.await.unwrap();
    while events.len() < 2 {
        events.extend(reader.read(None).await.unwrap());
    }
    assert_eq!(names(&events), ["added", "waiting"]);
    assert_eq!(events[0].job, Some(id("a")));
    assert_eq!(events[0].field("name"), Some(""));
    assert_eq!(reader.position(), After::Event(events[1].id));
    let again = queue.events(After::Event(events[0].id)).read(None).await.unwrap();
    assert_eq!(again, events[1..]);
    assert_eq!(queue.newest_events(None, 3).await.unwrap()[1..], events[..]);

    assert_eq!(queue.trim_events(1).await.unwrap(), 3);
    assert_eq!(queue.events(After::BEGINNING).read(None).await.unwrap(), events[1..]);
    // a reader that stands on an event that is gone goes on behind it
    add(&queue, "b").await;
    assert_eq!(names(&reader.read(None).await.unwrap()), ["added", "waiting"]);
}

#[tokio::test]
async fn the_events_of_a_job_are_bullmqs_in_the_order_of_its_moves() {
    let queue = telling_queue().await;
    let named = |name: &'static str| Envelope { payload: b"{}", name: Some(name), ..Envelope::default() };
    let jobs = [
        NewJob::new(id("good"), named("work")),
        NewJob::new(id("twice"), named("work")),
        NewJob::new(id("bad"), named("work")),
        NewJob { priority: 3, ..NewJob::new(id("urgent"), named("work")) },
        NewJob { delay: Duration::from_millis(1), ..NewJob::new(id("later"), named("work")) },
    ];
    queue.add(&jobs, PAYLOAD_MAX).await.unwrap();
    add(&queue, "good").await;
    let teller = queue.clone();
    let worker = each(&queue, options(), move |delivery| {
        let queue = teller.clone();
        async move {
            let name = delivery.job.id.to_string();
            Ok(match (name.as_str(), delivery.job.attempt()) {
                ("twice", 1) => Outcome::Retry("not yet".to_owned()),
                ("bad", _) => Outcome::Retry("no".to_owned()),
                ("good", _) => {
                    assert_eq!(queue.set_progress(&delivery.lease, "{\"at\":1}").await.unwrap(), Settled::Settled);
                    Outcome::DoneWith("7".to_owned())
                }
                _ => Outcome::Done,
            })
        }
    });
    until(Duration::from_secs(20), async || {
        let counts = queue.counts().await.unwrap();
        counts.is_idle() && counts.failed == 1
    })
    .await;
    worker.stop().await;

    let told = told_by_job(&queue).await;
    let of = |job: &str| told[job].iter().map(String::as_str).collect::<Vec<_>>();
    let (added, active, waits) = ("added name=work", "active prev=waiting", "waiting prev=delayed");
    let done = "completed returnvalue=null prev=active";
    let progress = "progress data={\"at\":1}";
    assert_eq!(of("good"), [added, "waiting", "duplicated", active, progress, "completed returnvalue=7 prev=active"]);
    assert_eq!(of("urgent"), [added, "waiting", active, done]);
    assert_eq!(of("later"), [added, "delayed delay", waits, active, done]);
    assert_eq!(of("twice"), [added, "waiting", active, "delayed delay failedReason=not yet", waits, active, done]);
    let failed = "delayed delay failedReason=no";
    assert_eq!(
        of("bad"),
        [
            added,
            "waiting",
            active,
            failed,
            waits,
            active,
            failed,
            waits,
            active,
            "failed failedReason=no prev=active",
            "retries-exhausted attemptsMade=3"
        ]
    );
    assert_eq!(of("queue").last(), Some(&"drained"));
    assert_sound(&queue).await;
}

#[tokio::test]
async fn a_stalled_job_and_one_that_is_given_back_are_told_to_wait_again() {
    let queue = telling_queue().await;
    add_many(&queue, "job", 3).await;
    let held = read(&mut queue.reader("worker"), 3).await;
    queue.give_back(&[held[0].lease.clone()]).await.unwrap();
    let limits =
        ClaimLimits { lock_duration: Duration::ZERO, stalled_interval: Duration::from_millis(1), max_stalled_count: 1 };
    queue.sweeper("other", limits).sweep().await.unwrap();
    let wait_again = ["added name=", "waiting", "waiting prev=active"];
    let told = told_by_job(&queue).await;
    assert_eq!(told["job-0"], wait_again);
    assert_eq!(told["job-1"], [&wait_again[..], &["stalled"]].concat());
    let () = connection(&queue).await.del(queue.keys().sweep()).await.unwrap();
    read(&mut queue.reader("worker"), 3).await;
    queue.sweeper("other", limits).sweep().await.unwrap();
    let told = told_by_job(&queue).await;
    let buried = ["stalled", "failed failedReason=job stalled more than allowable limit prev=active"];
    assert_eq!(told["job-2"][4..], buried);
    assert_sound(&queue).await;
}

#[tokio::test]
async fn deduplication_is_told_with_both_ids() {
    let queue = telling_queue().await;
    let hour = Duration::from_hours(1);
    let debounced =
        |job: &str| NewJob { delay: hour, dedup: Some(Deduplication::debounce("d", hour)), ..new_job(&id(job)) };
    queue.add(&[debounced("a"), debounced("b")], PAYLOAD_MAX).await.unwrap();
    let told = told_by_job(&queue).await;
    assert_eq!(told["a"], ["added name=", "delayed delay", "removed prev=delayed"]);
    assert_eq!(told["b"], ["deduplicated deduplicationId=d deduplicatedJobId=a", "added name=", "delayed delay"]);
}

#[tokio::test]
async fn a_queue_that_tells_failures_only_is_silent_about_the_rest() {
    let queue = queue().await;
    add(&queue, "a").await;
    let worker = each(&queue, options(), |_| async { Ok(Outcome::Done) });
    until(Duration::from_secs(10), async || queue.counts().await.unwrap().is_idle()).await;
    worker.stop().await;
    assert_eq!(queue.events(After::BEGINNING).read(None).await.unwrap(), []);
}
