//! Promoting, retrying, and changing jobs where they stand.

use std::time::{Duration, SystemTime};

use feedmill::{
    job::{Envelope, JobId, JobOptions, Keep, Outcome, Stored},
    queue::{
        Events, QueueError, QueueOptions,
        enqueue::NewJob,
        operated::{Operated, StateName},
        read::Lease,
        retry::DeadFilter,
        settle::Done,
    },
};
use redis::AsyncCommands;
use tokio::sync::mpsc;

use super::{LONG, Place, WINDOW, burial, bury_all, stand, state};
use crate::support::{
    audit::assert_sound,
    jobs::{
        Fetch, PAYLOAD_MAX, add, add_many, connection, counts, done, forget_record, id, new_job, queue, queue_with,
        read,
    },
    workers::{each, options},
};

#[tokio::test]
async fn promote_all_moves_everything_that_is_delayed_and_keeps_priorities() {
    let queue = queue().await;
    let delayed = |n: u32| NewJob { delay: LONG * (1 + n % 3), priority: n % 2, ..new_job(&id(format!("job-{n}"))) };
    let jobs: Vec<NewJob<'_>> = (0..600).map(delayed).collect();
    queue.add(&jobs, PAYLOAD_MAX).await.unwrap();
    let mut walk = queue.promote_all().await.unwrap();
    let mut promoted = 0;
    while let Some(step) = walk.step().await.unwrap() {
        promoted += step.done;
    }
    let now = queue.counts().await.unwrap();
    assert_eq!((promoted, now.delayed, now.waiting, now.prioritized), (600, 0, 300, 300));
    assert_sound(&queue).await;
}

#[tokio::test]
async fn a_retried_job_starts_at_attempt_one_and_a_completed_one_counts_for_no_import() {
    let queue = queue().await;
    let fetch = Fetch::begin(&queue, "feed").await;
    fetch.enqueue(&queue, &["done", "dead"]).await;
    let leases: Vec<Lease> =
        read(&mut queue.reader("worker"), 2).await.into_iter().map(|delivery| delivery.lease).collect();
    let result = Some("7".to_owned());
    let kept = Done { stored: Some(Stored::Inserted), result, ..Done::new(leases[0].clone()) };
    queue.done(&[kept], Keep::All).await.unwrap();
    queue.bury("worker", &[burial(leases[1].clone())]).await.unwrap();
    assert_eq!(queue.retry(&[id("done"), id("dead")]).await.unwrap(), [Operated::Done; 2]);
    assert_sound(&queue).await;
    assert_eq!(fetch.counts(&queue).await, counts(&[("new", 2), ("inserted", 1), ("open", 1), ("failures", 1)]));
    let again = read(&mut queue.reader("worker"), 2).await;
    let imports: Vec<_> = again.iter().map(|delivery| (delivery.job.attempt(), delivery.job.head.import)).collect();
    assert_eq!(imports, [(1, None), (1, Some(fetch.import))]);
    assert_eq!(queue.find(&id("done")).await.unwrap().unwrap().log.result, None);
    assert_eq!(queue.counts().await.unwrap().totals["redriven"], 1);
    done(&queue, again.into_iter().map(|delivery| (delivery.lease, Some(Stored::Updated)))).await.unwrap();
    assert_eq!(fetch.counts(&queue).await, counts(&[("new", 2), ("inserted", 1), ("updated", 1), ("failures", 1)]));
    assert_sound(&queue).await;
}

#[tokio::test]
async fn a_retry_that_is_left_goes_on_and_meets_no_job_twice() {
    let queue = queue().await;
    add_many(&queue, "job", 600).await;
    assert_eq!(bury_all(&queue, "the store refused it").await, 600);
    let mut walk = queue.retry_dead(DeadFilter::default(), None).await.unwrap();
    assert_eq!(walk.step().await.unwrap().unwrap().done, 256);
    let position = walk.position();
    drop(walk);
    assert_eq!(bury_all(&queue, "again").await, 256);
    let mut walk = queue.retry_dead(DeadFilter::default(), position).await.unwrap();
    while walk.step().await.unwrap().is_some() {}
    assert_eq!(walk.totals().redriven, 344);
    let left = queue.dead_letters(None, 1000).await.unwrap();
    assert!(left.len() == 256 && left.iter().all(|letter| letter.reason == "again"));
    assert_sound(&queue).await;
}

#[tokio::test]
async fn a_retry_brings_back_what_its_filter_means() {
    let queue = queue().await;
    add_many(&queue, "refused", 3).await;
    bury_all(&queue, "MongoDB refused it: E11000").await;
    add_many(&queue, "late", 2).await;
    bury_all(&queue, "no result within job_timeout (1s)").await;
    let filter = DeadFilter { reason: Some("mongodb REFUSED".to_owned()) };
    let mut walk = queue.retry_dead(filter, None).await.unwrap();
    assert_eq!(walk.step().await.unwrap().map(|step| (step.looked_at, step.done)), Some((5, 3)));
    assert_eq!(walk.step().await.unwrap(), None);
    let left = queue.dead_letters(None, 10).await.unwrap();
    assert!(left.len() == 2 && left.iter().all(|letter| letter.reason.contains("job_timeout")));
    assert_sound(&queue).await;
}

#[tokio::test]
async fn nothing_dead_is_nothing_to_retry() {
    let queue = queue().await;
    let mut walk = queue.retry_dead(DeadFilter::default(), None).await.unwrap();
    assert_eq!((walk.step().await.unwrap(), walk.position()), (None, None));
}

#[tokio::test]
async fn a_shorter_delay_wakes_the_promoter() {
    let queue = queue().await;
    queue.add(&[NewJob { delay: LONG, ..new_job(&id("a")) }], PAYLOAD_MAX).await.unwrap();
    let (tell, mut told) = mpsc::unbounded_channel();
    let worker = each(&queue, options(), move |job| {
        tell.send(job.job.id).unwrap();
        async { Ok(Outcome::Done) }
    });
    assert_eq!(queue.change_delay(&id("a"), Duration::from_millis(10)).await.unwrap(), Operated::Done);
    let started = tokio::time::timeout(Duration::from_secs(4), told.recv()).await.expect("before it looks by itself");
    assert_eq!(started, Some(id("a")));
    worker.stop().await;
}

#[tokio::test]
async fn a_changed_priority_changes_the_order_at_once() {
    let queue = queue().await;
    let prioritized = |name: &str, priority| NewJob { priority, ..new_job(&id(name)) };
    let jobs = [prioritized("a", 1), prioritized("b", 2), prioritized("c", 3), prioritized("d", 0)];
    queue.add(&jobs, PAYLOAD_MAX).await.unwrap();
    for (job, priority) in [("a", 4), ("d", 2), ("c", 0)] {
        assert_eq!(queue.change_priority(&id(job), priority).await.unwrap(), Operated::Done);
        assert_sound(&queue).await;
    }
    let order: Vec<JobId> =
        read(&mut queue.reader("worker"), 10).await.into_iter().map(|delivery| delivery.job.id).collect();
    assert_eq!(order, ["b", "d", "a", "c"].map(id), "b and d have the same; d came to it later");
    let error = queue.change_priority(&id("a"), 2_097_152).await.unwrap_err();
    assert!(matches!(error, QueueError::Priority { .. }), "{error}");
}

#[tokio::test]
async fn a_priority_that_a_job_got_meanwhile_holds_from_the_next_time_that_it_waits() {
    for priority in [0, 9] {
        let queue = queue_with(QueueOptions { events: Events::Off, group_window: Some(WINDOW) }).await;
        let (job, lease) = stand(&queue, Place::Active).await;
        queue.change_priority(&job, 9).await.unwrap();
        queue.change_priority(&job, priority).await.unwrap();
        queue.give_back(&[lease.unwrap()]).await.unwrap();
        let wanted = if priority == 0 { StateName::Waiting } else { StateName::Prioritized };
        assert_eq!(state(&queue, &job).await, Some(wanted));
        assert_sound(&queue).await;
        let (job, _) = stand(&queue, Place::Delayed).await;
        queue.change_priority(&job, priority).await.unwrap();
        queue.promote_now(std::slice::from_ref(&job)).await.unwrap();
        assert_eq!(state(&queue, &job).await, Some(wanted));
        assert_eq!(queue.find(&job).await.unwrap().unwrap().job.head.group, b"group of Delayed", "its group stays");
        assert_sound(&queue).await;
    }
}

#[tokio::test]
async fn an_updated_payload_of_any_length_leaves_everything_else_of_the_job() {
    let queue = queue().await;
    let options = JobOptions { attempts: Some(7), ..JobOptions::default() }.encode();
    let envelope = Envelope {
        payload: b"short",
        fingerprint: Some([3; 7]),
        enqueued_at: Some(SystemTime::UNIX_EPOCH + LONG),
        name: Some("mail"),
        feed: Some("feed"),
        options: Some(&options),
        traceparent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
    };
    let job = NewJob { priority: 3, ..NewJob::new(id("a"), envelope) };
    queue.add(&[job], PAYLOAD_MAX).await.unwrap();
    let before = queue.find(&id("a")).await.unwrap().unwrap().job;
    for length in [0, 1, 255, 256, 65_535, 65_536, 1 << 20] {
        let payload = vec![b'x'; length];
        assert_eq!(queue.update_payload(&id("a"), &payload, PAYLOAD_MAX).await.unwrap(), Operated::Done);
        let found = queue.find(&id("a")).await.unwrap().unwrap();
        assert_eq!((found.job.payload(), found.state.name()), (&payload[..], "prioritized"));
        let kept = |job: &feedmill::job::Job| {
            (
                job.head.clone(),
                job.fingerprint,
                job.enqueued_at,
                job.name.clone(),
                job.feed.clone(),
                job.options.clone(),
            )
        };
        assert_eq!(kept(&found.job), kept(&before));
    }
    let too_large = queue.update_payload(&id("a"), &[0; 11], 10).await.unwrap_err();
    assert!(matches!(too_large, QueueError::PayloadTooLarge { bytes: 11, limit_bytes: 10, .. }), "{too_large}");
}

#[tokio::test]
async fn a_job_with_a_damaged_envelope_keeps_it_and_can_be_removed() {
    let queue = queue().await;
    add(&queue, "a").await;
    let () = connection(&queue).await.setrange(queue.keys().job(&id("a")), 30, b"\xc1\xc1\xc1").await.unwrap();
    let updated = queue.update_payload(&id("a"), b"x", PAYLOAD_MAX).await.unwrap();
    assert_eq!(updated, Operated::Refused(StateName::Unknown));
    assert_eq!(queue.remove(&[id("a")], forget_record).await.unwrap(), [Operated::Done]);
    assert_sound(&queue).await;
}
