//! How many ended jobs are kept, and for how long.

use std::time::{Duration, SystemTime};

use feedmill::{
    job::{Envelope, JobId, JobOptions, Keep},
    queue::{Queue, dead_letter::Retention, enqueue::NewJob, read::Lease, settle::Done},
};
use redis::AsyncCommands;

use super::{LONG, burial, bury_all, keys};
use crate::support::{
    audit::assert_sound,
    jobs::{Fetch, PAYLOAD_MAX, add_many, connection, forget_record, id, queue, read},
};

/// Adds jobs with their own wish for the end, reads them, and returns their leases.
async fn with_on_fail(queue: &Queue, name: &str, jobs: usize, on_fail: Keep) -> Vec<Lease> {
    let options = JobOptions { on_fail: Some(on_fail), ..JobOptions::default() }.encode();
    let envelope = Envelope { payload: b"{}", options: Some(&options), ..Envelope::default() };
    let new: Vec<NewJob<'_>> = (0..jobs).map(|n| NewJob::new(id(format!("{name}-{n}")), envelope)).collect();
    queue.add(&new, PAYLOAD_MAX).await.unwrap();
    read(&mut queue.reader("worker"), jobs).await.into_iter().map(|delivery| delivery.lease).collect()
}

#[tokio::test]
async fn a_job_that_is_not_to_be_kept_when_it_fails_leaves_nothing_behind() {
    let queue = queue().await;
    add_many(&queue, "kept", 2).await;
    bury_all(&queue, "bad").await;
    let before = keys(&queue).await.len();
    let leases = with_on_fail(&queue, "job", 2, Keep::Nothing).await;
    queue.bury("worker", &leases.into_iter().map(burial).collect::<Vec<_>>()).await.unwrap();
    assert_eq!(keys(&queue).await.len(), before);
    let now = queue.counts().await.unwrap();
    assert_eq!((now.failed, now.totals["failed"], now.totals["discarded"]), (2, 4, 2), "it counts all the same");
    assert_sound(&queue).await;
}

#[tokio::test]
async fn a_stalled_job_over_the_limit_is_kept_as_it_says_too() {
    let queue = queue().await;
    with_on_fail(&queue, "job", 1, Keep::Nothing).await;
    let limits = feedmill::queue::claim::ClaimLimits {
        lock_duration: Duration::ZERO,
        stalled_interval: Duration::from_millis(1),
        max_stalled_count: 0,
    };
    assert_eq!(queue.sweeper("other", limits).sweep().await.unwrap().buried, 1);
    assert_eq!(queue.counts().await.unwrap().failed, 0);
    assert_sound(&queue).await;
}

#[tokio::test]
async fn a_job_may_keep_the_newest_dead_letters_alone() {
    let queue = queue().await;
    add_many(&queue, "older", 5).await;
    bury_all(&queue, "bad").await;
    let leases = with_on_fail(&queue, "job", 2, Keep::Newest { count: Some(3), age: None }).await;
    queue.bury("worker", &leases.into_iter().map(burial).collect::<Vec<_>>()).await.unwrap();
    let left = queue.dead_letters(None, 10).await.unwrap();
    let left: Vec<JobId> = left.into_iter().filter_map(|letter| letter.id).collect();
    assert_eq!(left, ["older-4", "job-0", "job-1"].map(id));
    assert_sound(&queue).await;
    // The others are to be older than that by the clock of Redis, and the last one is not, however slow its burial.
    let age = Duration::from_secs(1);
    let leases = with_on_fail(&queue, "last", 1, Keep::Newest { count: None, age: Some(age) }).await;
    let buried = queue.time().await.unwrap();
    crate::support::wait::until(Duration::from_secs(10), async || queue.time().await.unwrap() > buried + age).await;
    queue.bury("worker", &[burial(leases[0].clone())]).await.unwrap();
    let left = queue.dead_letters(None, 10).await.unwrap();
    assert_eq!(left.into_iter().filter_map(|letter| letter.id).collect::<Vec<_>>(), [id("last-0")]);
    assert_sound(&queue).await;
}

#[tokio::test]
async fn items_of_feeds_are_left_to_who_can_make_their_feed_forget_them() {
    let queue = queue().await;
    let fetch = Fetch::begin(&queue, "feed").await;
    fetch.enqueue(&queue, &["a"]).await;
    bury_all(&queue, "bad").await;
    let leases = with_on_fail(&queue, "job", 1, Keep::Newest { count: Some(0), age: None }).await;
    queue.bury("worker", &[burial(leases[0].clone())]).await.unwrap();
    let left = queue.dead_letters(None, 10).await.unwrap();
    assert_eq!(left.into_iter().filter_map(|letter| letter.id).collect::<Vec<_>>(), [id("a")]);
    let retention = Retention { count: Some(0), age: None };
    assert_eq!(queue.retain_dead_letters(retention, SystemTime::now(), forget_record).await.unwrap(), 1);
    assert_sound(&queue).await;
}

#[tokio::test]
async fn completed_jobs_beyond_the_count_or_the_age_go_oldest_first() {
    let queue = queue().await;
    let ids = add_many(&queue, "job", 300).await;
    let ended: Vec<Done> =
        read(&mut queue.reader("worker"), 300).await.into_iter().map(|read| Done::new(read.lease)).collect();
    queue.done(&ended, Keep::All).await.unwrap();
    for keep in [Keep::All, Keep::Nothing] {
        assert_eq!(queue.retain_completed(keep).await.unwrap(), 0);
    }
    let newest = |count, age| Keep::Newest { count, age };
    assert_eq!(queue.retain_completed(newest(Some(300), Some(LONG))).await.unwrap(), 0);
    assert_eq!(queue.retain_completed(newest(Some(10), None)).await.unwrap(), 256, "a call's worth");
    assert_eq!(queue.retain_completed(newest(Some(10), None)).await.unwrap(), 34);
    assert_eq!(queue.counts().await.unwrap().completed, 10);
    let an_hour_ago = (queue.time().await.unwrap() - LONG).duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let mut redis = connection(&queue).await;
    let last = ids.last().unwrap().as_bytes();
    let () = redis.zadd(queue.keys().completed(), last, an_hour_ago.as_millis() as u64).await.unwrap();
    assert_eq!(queue.retain_completed(newest(None, Some(LONG / 2))).await.unwrap(), 1);
    assert!(queue.find(ids.last().unwrap()).await.unwrap().is_none());
    assert_sound(&queue).await;
}
