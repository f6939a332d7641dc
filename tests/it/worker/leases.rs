//! Who has a job: leases that are renewed, workers that crash, outages, and changes of an active job.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use feedmill::{job::Outcome, queue::claim::ClaimLimits, worker::WorkerOptions};
use tokio::sync::{Notify, Semaphore};

use super::{DEADLINE, Seen, idle, letters};
use crate::support::{
    audit::assert_sound,
    jobs::{add, add_many, add_version, id, queue},
    wait::until,
    workers::{each, options, outage, quick_claims},
};

#[tokio::test]
async fn a_job_that_runs_for_three_lock_durations_is_renewed_and_not_claimed() {
    let queue = queue().await;
    let seen = Seen::nothing();
    let lock_duration = Duration::from_millis(300);
    let workers = [(); 2].map(|()| {
        let seen = seen.clone();
        each(&queue, quick_claims(lock_duration), move |_| {
            seen.push(());
            async move {
                tokio::time::sleep(3 * lock_duration).await;
                Ok(Outcome::Done)
            }
        })
    });
    add(&queue, "a").await;
    until(DEADLINE, async || seen.len() == 1).await;
    idle(&queue).await;
    for worker in workers {
        worker.stop().await;
    }
    assert_eq!(seen.len(), 1);
    let totals = queue.counts().await.unwrap().totals;
    assert_eq!((totals["completed"], totals.get("stalled")), (1, None));
    assert_sound(&queue).await;
}

#[tokio::test]
async fn the_jobs_of_a_worker_that_crashed_are_done_by_another() {
    let queue = queue().await;
    let started = Arc::new(Notify::new());
    let lock_duration = Duration::from_millis(100);
    let dies = each(&queue, quick_claims(lock_duration), {
        let started = started.clone();
        move |_| {
            started.notify_one();
            std::future::pending()
        }
    });
    add(&queue, "a").await;
    started.notified().await;
    dies.crash().await;
    let seen = Seen::nothing();
    let heir = each(&queue, quick_claims(lock_duration), {
        let seen = seen.clone();
        move |job| {
            seen.push((job.job.id.clone(), job.job.attempt(), job.job.head.stalls));
            async { Ok(Outcome::Done) }
        }
    });
    until(DEADLINE, async || seen.len() == 1).await;
    idle(&queue).await;
    heir.stop().await;
    assert_eq!(seen.all(), [(id("a"), 1, 1)]);
    assert_sound(&queue).await;
}

#[tokio::test]
async fn a_job_that_keeps_killing_its_worker_is_stopped() {
    let queue = queue().await;
    let claim = ClaimLimits { max_stalled_count: 1, ..quick_claims(Duration::from_millis(50)).claim };
    let options = WorkerOptions { claim, ..options() };
    add(&queue, "poison").await;
    for _ in 0..2 {
        let started = Arc::new(Notify::new());
        let dies = each(&queue, options.clone(), {
            let started = started.clone();
            move |_| {
                started.notify_one();
                std::future::pending()
            }
        });
        tokio::time::timeout(DEADLINE, started.notified()).await.unwrap();
        dies.crash().await;
    }
    let seen = Seen::<()>::nothing();
    let survives = each(&queue, options, {
        let seen = seen.clone();
        move |_| {
            seen.push(());
            async { Ok(Outcome::Done) }
        }
    });
    until(DEADLINE, async || queue.counts().await.unwrap().failed == 1).await;
    survives.stop().await;
    assert_eq!(seen.len(), 0);
    assert_eq!(letters(&queue).await[0].reason, "job stalled more than allowable limit");
    assert_sound(&queue).await;
}

#[tokio::test]
async fn an_outage_keeps_its_jobs_stops_reading_and_uses_no_attempt() {
    let queue = queue().await;
    let is_out = Arc::new(std::sync::atomic::AtomicBool::new(true));
    let seen = Seen::nothing();
    let tries = Arc::new(AtomicUsize::new(0));
    let worker = each(&queue, quick_claims(Duration::from_millis(200)), {
        let (is_out, seen, tries) = (is_out.clone(), seen.clone(), tries.clone());
        move |job| {
            tries.fetch_add(1, SeqCst);
            let said = if is_out.load(SeqCst) {
                Err(outage())
            } else {
                seen.push((job.job.id.clone(), job.job.attempt()));
                Ok(Outcome::Done)
            };
            async { said }
        }
    });
    add(&queue, "a").await;
    until(DEADLINE, async || tries.load(SeqCst) >= 2).await;
    // the reader blocked when the outage began: it may still bring what comes first
    add_many(&queue, "first", 1).await;
    until(DEADLINE, async || tries.load(SeqCst) >= 4).await;
    add_many(&queue, "later", 5).await;
    let before = tries.load(SeqCst);
    until(DEADLINE, async || tries.load(SeqCst) > before + 1).await;
    let now = queue.counts().await.unwrap();
    assert!(now.waiting >= 5 && now.active <= 2, "{now:?}");
    assert_eq!((now.delayed, now.failed, now.totals.get("stalled")), (0, 0, None));
    assert_sound(&queue).await;
    is_out.store(false, SeqCst);
    until(DEADLINE, async || seen.len() == 7).await;
    idle(&queue).await;
    worker.stop().await;
    assert!(seen.all().iter().all(|(_, attempt)| *attempt == 1), "{:?}", seen.all());
    assert_eq!(queue.counts().await.unwrap().totals.get("retried"), None);
    assert_sound(&queue).await;
}

#[tokio::test]
async fn a_change_that_arrives_while_its_job_is_active_runs_it_once_more() {
    for outcome in [Outcome::Done, Outcome::Retry("no".to_owned()), Outcome::Fail("no".to_owned())] {
        let queue = queue().await;
        let (started, go_on) = (Arc::new(Notify::new()), Arc::new(Semaphore::new(0)));
        let seen = Seen::nothing();
        let worker = each(&queue, options(), {
            let (started, go_on, seen) = (started.clone(), go_on.clone(), seen.clone());
            let outcome = outcome.clone();
            move |job| {
                let before = seen.push((job.job.payload().to_vec(), job.job.attempt()));
                let (started, go_on, outcome) = (started.clone(), go_on.clone(), outcome.clone());
                async move {
                    if before > 0 {
                        return Ok(Outcome::Done);
                    }
                    started.notify_one();
                    go_on.acquire().await.unwrap().forget();
                    Ok(outcome)
                }
            }
        });
        add_version(&queue, "a", 1, b"older").await;
        started.notified().await;
        add_version(&queue, "a", 2, b"newer").await;
        go_on.add_permits(1);
        until(DEADLINE, async || seen.len() == 2).await;
        idle(&queue).await;
        worker.stop().await;
        assert_eq!(seen.all(), [(b"older".to_vec(), 1), (b"newer".to_vec(), 1)], "after {outcome:?}");
        let now = queue.counts().await.unwrap();
        assert_eq!((now.failed, now.totals["completed"], now.totals.get("retried")), (0, 1, None));
        assert_sound(&queue).await;
    }
}
