//! What becomes of a job by what its handler says: attempts, waits, panics, and time that is up.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use feedmill::{
    job::Outcome,
    worker::{Growth, RetryPolicy, WorkerOptions},
};

use super::{DEADLINE, Seen, idle, letters};
use crate::support::{
    audit::assert_sound,
    jobs::{add, add_many, id, queue},
    wait::until,
    workers::{batches, each, options},
};

#[tokio::test]
async fn a_job_that_fails_twice_succeeds_on_its_third_attempt_after_one_and_two_seconds() {
    let queue = queue().await;
    let seen = Seen::nothing();
    let retry_policy = RetryPolicy {
        growth: Growth::Exponential,
        delay: Duration::from_secs(1),
        max: Duration::from_hours(1),
        jitter: 0.0,
    };
    let worker = each(&queue, WorkerOptions { retry_policy, ..options() }, {
        let seen = seen.clone();
        move |job| {
            let before = seen.push((Instant::now(), job.job.attempt()));
            async move { Ok(if before < 2 { Outcome::Retry("not yet".to_owned()) } else { Outcome::Done }) }
        }
    });
    add(&queue, "a").await;
    until(DEADLINE, async || seen.len() == 3).await;
    idle(&queue).await;
    worker.stop().await;
    let runs = seen.all();
    assert_eq!(runs.iter().map(|(_, attempt)| *attempt).collect::<Vec<_>>(), [1, 2, 3]);
    for (pair, wait) in runs.windows(2).zip([1, 2].map(Duration::from_secs)) {
        let waited = pair[1].0 - pair[0].0;
        assert!(waited >= wait, "early: {waited:?} instead of {wait:?}");
        assert!(waited <= wait + Duration::from_millis(250), "late: {waited:?} instead of {wait:?}");
    }
    let totals = queue.counts().await.unwrap().totals;
    assert_eq!((totals["completed"], totals["retried"], totals.get("failed")), (1, 2, None));
    assert_sound(&queue).await;
}

#[tokio::test]
async fn a_job_that_always_fails_is_a_dead_letter_after_its_attempts_with_its_last_reason() {
    let queue = queue().await;
    let seen = Seen::nothing();
    let worker = each(&queue, options(), {
        let seen = seen.clone();
        move |job| {
            let before = seen.push(job.job.attempt());
            async move { Ok(Outcome::Retry(format!("failure {}", before + 1))) }
        }
    });
    add(&queue, "a").await;
    until(DEADLINE, async || queue.counts().await.unwrap().failed == 1).await;
    let consumer = worker.consumer.clone();
    worker.stop().await;
    assert_eq!(seen.all(), [1, 2, 3]);
    let letters = letters(&queue).await;
    assert_eq!((letters[0].reason.as_str(), letters[0].attempts), ("failure 3", 3));
    assert_eq!(letters[0].consumer, consumer);
    assert_sound(&queue).await;
}

#[tokio::test]
async fn a_job_that_says_fail_is_buried_at_once() {
    let queue = queue().await;
    let worker = each(&queue, options(), |_| async { Ok(Outcome::Fail("never".to_owned())) });
    add(&queue, "a").await;
    until(DEADLINE, async || queue.counts().await.unwrap().failed == 1).await;
    worker.stop().await;
    let letters = letters(&queue).await;
    assert_eq!((letters[0].reason.as_str(), letters[0].attempts), ("never", 1));
    assert_sound(&queue).await;
}

#[tokio::test]
async fn a_snooze_waits_and_uses_no_attempt() {
    let queue = queue().await;
    let seen = Seen::nothing();
    let nap = Duration::from_millis(30);
    let worker = each(&queue, options(), {
        let seen = seen.clone();
        move |job| {
            let before = seen.push((Instant::now(), job.job.attempt()));
            async move { Ok(if before < 4 { Outcome::Snooze(nap) } else { Outcome::Done }) }
        }
    });
    add(&queue, "a").await;
    until(DEADLINE, async || seen.len() == 5).await;
    idle(&queue).await;
    worker.stop().await;
    let runs = seen.all();
    assert!(runs.iter().all(|(_, attempt)| *attempt == 1), "{runs:?}");
    assert!(runs.windows(2).all(|pair| pair[1].0 - pair[0].0 >= nap), "{runs:?}");
    assert_sound(&queue).await;
}

#[tokio::test]
async fn a_handler_may_choose_the_wait_of_a_retry() {
    let queue = queue().await;
    let seen = Seen::nothing();
    let wait = Duration::from_millis(200);
    let worker = each(&queue, options(), {
        let seen = seen.clone();
        move |job| {
            let before = seen.push((Instant::now(), job.job.attempt()));
            let later = Outcome::RetryAfter("busy".to_owned(), wait);
            async move { Ok(if before == 0 { later } else { Outcome::Done }) }
        }
    });
    add(&queue, "a").await;
    until(DEADLINE, async || seen.len() == 2).await;
    idle(&queue).await;
    worker.stop().await;
    let runs = seen.all();
    assert_eq!((runs[0].1, runs[1].1), (1, 2));
    let waited = runs[1].0 - runs[0].0;
    assert!(waited >= wait && waited < wait + Duration::from_millis(250), "{waited:?}");
    assert_sound(&queue).await;
}

#[tokio::test]
async fn a_panic_is_a_failed_attempt_of_its_job_and_its_batch_mates_are_unharmed() {
    let queue = queue().await;
    let seen = Seen::nothing();
    add_many(&queue, "job", 3).await;
    add(&queue, "panics").await;
    let worker = batches(&queue, WorkerOptions { batch_size: 10, ..options() }, {
        let seen = seen.clone();
        move |jobs| {
            let seen = seen.clone();
            async move {
                assert!(!jobs.iter().any(|job| job.job.id == id("panics")), "it was in the batch");
                for job in &jobs {
                    seen.push((job.job.id.clone(), job.job.attempt()));
                }
                Ok(vec![Outcome::Done; jobs.len()])
            }
        }
    });
    until(DEADLINE, async || queue.counts().await.unwrap().failed == 1).await;
    idle(&queue).await;
    worker.stop().await;
    let mut done = seen.all();
    done.sort();
    assert_eq!(done, [(id("job-0"), 1), (id("job-1"), 1), (id("job-2"), 1)]);
    let letters = letters(&queue).await;
    assert_eq!((letters[0].id.clone(), letters[0].attempts), (Some(id("panics")), 3));
    assert!(letters[0].reason.contains("panicked: it was in the batch"), "{}", letters[0].reason);
    assert_sound(&queue).await;
}

#[tokio::test]
async fn a_handler_that_says_too_few_outcomes_fails_the_attempts_it_says_too_few_for() {
    let queue = queue().await;
    add_many(&queue, "job", 3).await;
    let options = WorkerOptions { batch_size: 10, attempts: 1, ..options() };
    let worker = batches(&queue, options, |jobs| async move {
        Ok(if jobs.len() == 1 && jobs[0].job.id == id("job-1") { vec![Outcome::Done] } else { Vec::new() })
    });
    idle(&queue).await;
    until(DEADLINE, async || queue.counts().await.unwrap().failed == 2).await;
    worker.stop().await;
    let letters = letters(&queue).await;
    assert_eq!(letters[0].reason, "the handler said 0 outcomes for 1 jobs");
    assert_eq!(queue.counts().await.unwrap().totals["completed"], 1);
    assert_sound(&queue).await;
}

#[tokio::test]
async fn a_handling_over_job_timeout_is_a_failed_attempt() {
    let queue = queue().await;
    let runs = Arc::new(AtomicUsize::new(0));
    let options = WorkerOptions { job_timeout: Some(Duration::from_millis(50)), attempts: 2, ..options() };
    let worker = each(&queue, options, {
        let runs = runs.clone();
        move |_| {
            runs.fetch_add(1, SeqCst);
            std::future::pending()
        }
    });
    add(&queue, "a").await;
    until(DEADLINE, async || queue.counts().await.unwrap().failed == 1).await;
    worker.stop().await;
    assert_eq!(runs.load(SeqCst), 2);
    assert_eq!(letters(&queue).await[0].reason, "no result within job_timeout (50ms)");
    assert_sound(&queue).await;
}
