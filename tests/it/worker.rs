//! The worker engine with small handlers: attempts and waits, panics and outages, batches, and the end.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use feedmill::{
    job::Outcome,
    queue::{
        GROUP, Queue,
        claim::ClaimLimits,
        dead_letter::{DeadLetter, Retention},
        settle::BackOff,
    },
    worker::{Growth, RetryPolicy, WorkerOptions},
};
use redis::{AsyncCommands, streams::StreamInfoConsumersReply};
use tokio::sync::{Notify, Semaphore};

use crate::support::{
    audit::assert_sound,
    jobs::{
        Fetch, add, add_many, add_version, connection, id, queue, queue_at, queue_under, read_one, rejected_calls,
        url_of_user_with, wait_until_blocked,
    },
    servers::OwnRedis,
    wait::until,
    workers::{Running, batches, each, options, outage, quick_claims},
};

/// Longer than anything a test waits for takes on a loaded machine.
const DEADLINE: Duration = Duration::from_secs(20);

/// What a handler saw, in order.
struct Seen<T>(Arc<Mutex<Vec<T>>>);

impl<T> Clone for Seen<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T: Clone> Seen<T> {
    fn nothing() -> Self {
        Self(Arc::default())
    }

    /// Returns how many came before.
    fn push(&self, what: T) -> usize {
        let mut seen = self.0.lock().unwrap();
        seen.push(what);
        seen.len() - 1
    }

    fn all(&self) -> Vec<T> {
        self.0.lock().unwrap().clone()
    }

    fn len(&self) -> usize {
        self.0.lock().unwrap().len()
    }
}

async fn idle(queue: &Queue) {
    until(DEADLINE, async || queue.counts().await.unwrap().is_idle()).await;
}

async fn letters(queue: &Queue) -> Vec<DeadLetter> {
    queue.dead_letters(None, 100).await.unwrap()
}

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

#[tokio::test]
async fn an_idle_queue_starts_a_job_within_milliseconds() {
    let queue = queue().await;
    let seen = Seen::nothing();
    let worker = each(&queue, options(), {
        let seen = seen.clone();
        move |_| {
            seen.push(Instant::now());
            async { Ok(Outcome::Done) }
        }
    });
    let mut delays = Vec::new();
    for n in 0..21 {
        idle(&queue).await;
        let added_at = Instant::now();
        add(&queue, format!("{n}")).await;
        until(DEADLINE, async || seen.len() > n).await;
        delays.push(seen.all()[n].saturating_duration_since(added_at));
    }
    worker.stop().await;
    delays.sort();
    assert!(delays[10] < Duration::from_millis(20), "{delays:?}");
    assert_sound(&queue).await;
}

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

/// A worker whose handlers wait for permits, with the sizes of the batches it was given.
fn held_batches(
    queue: &Queue,
    options: WorkerOptions,
) -> (crate::support::workers::Running, Seen<usize>, Arc<Semaphore>) {
    let (seen, go_on) = (Seen::nothing(), Arc::new(Semaphore::new(0)));
    let worker = batches(queue, options, {
        let (seen, go_on) = (seen.clone(), go_on.clone());
        move |jobs| {
            seen.push(jobs.len());
            let go_on = go_on.clone();
            async move {
                go_on.acquire().await.unwrap().forget();
                Ok(vec![Outcome::Done; jobs.len()])
            }
        }
    });
    (worker, seen, go_on)
}

#[tokio::test]
async fn a_worker_holds_no_more_jobs_than_its_slots_take() {
    let queue = queue().await;
    add_many(&queue, "job", 50).await;
    let options = WorkerOptions { concurrency: 2, batch_size: 5, ..options() };
    let (worker, seen, go_on) = held_batches(&queue, options);
    until(DEADLINE, async || seen.len() == 2).await;
    assert_eq!(seen.all(), [5, 5]);
    let now = queue.counts().await.unwrap();
    assert_eq!((now.active, now.waiting), (10, 40));
    go_on.add_permits(100);
    idle(&queue).await;
    worker.stop().await;
    assert_eq!(seen.all().iter().sum::<usize>(), 50);
    assert!(seen.all().iter().all(|size| *size <= 5), "{:?}", seen.all());
    assert_sound(&queue).await;
}

#[tokio::test]
async fn a_worker_that_reads_ahead_takes_no_more_than_its_slots_and_fills_them() {
    for concurrency in [1, 3, 100, 600] {
        let queue = queue().await;
        add_many(&queue, "job", 1000).await;
        let (worker, seen, go_on) = held_batches(&queue, WorkerOptions { concurrency, ..options() });
        until(DEADLINE, async || seen.len() == concurrency).await;
        assert_eq!(queue.counts().await.unwrap().active, concurrency as u64);
        go_on.add_permits(1000);
        idle(&queue).await;
        worker.stop().await;
        assert_eq!(seen.len(), 1000);
        assert_sound(&queue).await;
    }
}

#[tokio::test]
async fn jobs_that_cannot_be_looked_up_stay_pending_are_not_taken_in_masses_and_are_done_later() {
    let redis = OwnRedis::start(&[]);
    let admin = queue_at(&redis.url()).await;
    let url = url_of_user_with(&redis, "-mget").await;
    let queue = queue_under(&url, admin.redis().prefix()).await;
    add_many(&queue, "job", 200).await;
    let since = Instant::now();
    let worker = each(&queue, quick_claims(Duration::from_millis(100)), |_| async { Ok(Outcome::Done) });
    until(DEADLINE, async || rejected_calls(&admin, "mget").await >= 3).await;
    assert!(since.elapsed() >= Duration::from_millis(500), "it reads on at once: {:?}", since.elapsed());
    url_of_user_with(&redis, "+mget").await;
    idle(&queue).await;
    worker.stop().await;
    assert_eq!(queue.counts().await.unwrap().totals["completed"], 200);
    assert_sound(&queue).await;
}

#[tokio::test]
async fn a_worker_holds_no_more_bytes_than_its_buffer_takes_and_one_job_always_fits() {
    let queue = queue().await;
    for n in 0..4 {
        add_version(&queue, &format!("{n}"), 1, &[b'x'; 3000]).await;
    }
    let options = WorkerOptions { concurrency: 1, batch_size: 1, buffer_bytes: 1000, ..options() };
    let (worker, seen, go_on) = held_batches(&queue, options);
    until(DEADLINE, async || seen.len() == 1).await;
    assert_eq!(queue.counts().await.unwrap().active, 1);
    go_on.add_permits(100);
    idle(&queue).await;
    worker.stop().await;
    assert_eq!(seen.len(), 4);
    assert_sound(&queue).await;
}

#[tokio::test]
async fn winding_down_finishes_what_is_in_hand_and_removes_the_consumer() {
    let queue = queue().await;
    add_many(&queue, "job", 20).await;
    let options = WorkerOptions { concurrency: 1, batch_size: 10, flush: Duration::from_hours(1), ..options() };
    let (worker, seen, go_on) = held_batches(&queue, options);
    until(DEADLINE, async || seen.len() == 1).await;
    let ending = tokio::spawn(worker.stop());
    go_on.add_permits(100);
    let ended = ending.await.unwrap();
    assert_eq!(ended.given_back, 0);
    let now = queue.counts().await.unwrap();
    assert_eq!((now.active, now.waiting + now.totals["completed"]), (0, 20));
    let consumers: StreamInfoConsumersReply =
        connection(&queue).await.xinfo_consumers(queue.keys().stream(), GROUP).await.unwrap();
    assert!(consumers.consumers.is_empty());
    assert!(queue.live_consumers().await.unwrap().is_empty());
    assert_sound(&queue).await;
}

#[tokio::test]
async fn what_is_not_through_at_the_end_of_shutdown_timeout_is_given_back() {
    let queue = queue().await;
    add_many(&queue, "job", 3).await;
    let options = WorkerOptions { shutdown_timeout: Duration::from_millis(100), ..options() };
    let (worker, seen, _go_on) = held_batches(&queue, options);
    until(DEADLINE, async || seen.len() == 3).await;
    assert_eq!(worker.stop().await.given_back, 3);
    let now = queue.counts().await.unwrap();
    assert_eq!((now.waiting, now.active, now.totals.get("stalled")), (3, 0, None));
    assert_eq!(read_one(&queue, "heir").await.job.attempt(), 1);
    assert_sound(&queue).await;
}

#[tokio::test]
async fn an_idle_worker_ends_at_once() {
    let queue = queue().await;
    let worker = each(&queue, options(), |_| async { Ok(Outcome::Done) });
    add(&queue, "a").await;
    idle(&queue).await;
    let since = Instant::now();
    worker.stop().await;
    assert!(since.elapsed() < Duration::from_secs(1), "{:?}", since.elapsed());
}

#[tokio::test]
async fn a_paused_queue_starts_nothing_and_goes_on_after_resume() {
    let queue = queue().await;
    let seen = Seen::nothing();
    let worker = each(&queue, options(), {
        let seen = seen.clone();
        move |_| {
            seen.push(Instant::now());
            async { Ok(Outcome::Done) }
        }
    });
    add(&queue, "before").await;
    idle(&queue).await;
    queue.pause().await.unwrap();
    add_many(&queue, "job", 5).await;
    assert_eq!(queue.counts().await.unwrap().active, 0);
    assert_eq!(seen.len(), 1);
    let resumed_at = Instant::now();
    queue.resume().await.unwrap();
    until(DEADLINE, async || seen.len() == 6).await;
    let began = seen.all()[1] - resumed_at;
    assert!(began < Duration::from_millis(500), "{began:?}");
    idle(&queue).await;
    worker.stop().await;
    assert_sound(&queue).await;
}

#[tokio::test]
async fn a_plain_producers_entries_are_worked_on_and_unreadable_ones_are_dead_letters() {
    let queue = queue().await;
    let seen = Seen::nothing();
    let worker = batches(&queue, WorkerOptions { batch_size: 10, ..options() }, {
        let seen = seen.clone();
        move |jobs| {
            for job in &jobs {
                seen.push(job.job.id.clone());
            }
            async move { Ok(vec![Outcome::Done; jobs.len()]) }
        }
    });
    let mut redis = connection(&queue).await;
    for fields in [[("json", "\"a\"")], [("json", "{")], [("json", "\"\"")], [("colour", "blue")], [("json", "\"b\"")]]
    {
        let _: String = redis.xadd(queue.keys().stream(), "*", &fields).await.unwrap();
    }
    until(DEADLINE, async || seen.len() == 2).await;
    idle(&queue).await;
    worker.stop().await;
    assert_eq!(seen.all(), [id("a"), id("b")]);
    let letters = letters(&queue).await;
    assert_eq!(letters.len(), 3);
    assert_eq!((letters[0].raw.as_deref(), letters[0].id.clone()), (Some(&b"{"[..]), None));
    assert!(letters[0].reason.contains("expected a string"), "{}", letters[0].reason);
    assert_eq!(letters[1].reason, "a job id must not be empty");
    assert_sound(&queue).await;
}

#[tokio::test]
async fn a_job_handler_that_takes_no_plain_entries_buries_them() {
    let queue = queue().await;
    let worker = each(&queue, options(), |_| async { Ok(Outcome::Done) });
    let _: String = connection(&queue).await.xadd(queue.keys().stream(), "*", &[("json", "{}")]).await.unwrap();
    until(DEADLINE, async || queue.counts().await.unwrap().failed == 1).await;
    worker.stop().await;
    assert_eq!(letters(&queue).await[0].reason, "this queue takes no plain json entries");
}

#[tokio::test]
async fn a_job_in_backoff_that_is_due_early_wakes_the_promoter_of_another_process() {
    let queue = queue().await;
    add(&queue, "late").await;
    let lease = read_one(&queue, "elsewhere").await.lease;
    let seen = Seen::nothing();
    let worker = each(&queue, options(), {
        let seen = seen.clone();
        move |job| {
            seen.push(job.job.attempt());
            async { Ok(Outcome::Done) }
        }
    });
    // the worker is through with its first job, and its promoter sleeps: nothing is in backoff
    add(&queue, "other").await;
    until(DEADLINE, async || seen.len() == 1).await;
    let back_off = BackOff { lease, wait: Duration::from_millis(100), reason: Some("no".to_owned()) };
    queue.back_off(&[back_off]).await.unwrap();
    let since = Instant::now();
    until(DEADLINE, async || seen.all().contains(&2)).await;
    assert!(since.elapsed() < Duration::from_secs(2), "{:?}", since.elapsed());
    idle(&queue).await;
    worker.stop().await;
    assert_sound(&queue).await;
}

#[tokio::test]
async fn the_janitor_keeps_only_so_many_dead_letters() {
    let queue = queue().await;
    let fetch = Fetch::begin(&queue, "feed").await;
    fetch.enqueue(&queue, &["a", "b", "c"]).await;
    let bury = each(&queue, options(), |_| async { Ok(Outcome::Fail("bad".to_owned())) });
    until(DEADLINE, async || queue.counts().await.unwrap().failed == 3).await;
    bury.stop().await;
    let retention = Retention { count: Some(1), age: None };
    let worker = each(&queue, WorkerOptions { retention, ..options() }, |_| async { Ok(Outcome::Done) });
    until(DEADLINE, async || queue.counts().await.unwrap().failed == 1).await;
    worker.stop().await;
    assert_sound(&queue).await;
}

// ── a handle ────────────────────────────────────────────────────────────────────────────────────────────────────────────

/// Jobs that run until they are let go, and how many of them do.
struct Held {
    running: Arc<AtomicUsize>,
    go: Arc<Semaphore>,
}

/// A worker of such jobs.
fn holding(queue: &Queue, concurrency: usize) -> (Running, Held) {
    let held = Held { running: Arc::default(), go: Arc::new(Semaphore::new(0)) };
    let (running, go) = (held.running.clone(), held.go.clone());
    let worker = each(queue, WorkerOptions { concurrency, ..options() }, move |_| {
        running.fetch_add(1, SeqCst);
        let (running, go) = (running.clone(), go.clone());
        async move {
            go.acquire().await.unwrap().forget();
            running.fetch_sub(1, SeqCst);
            Ok(Outcome::Done)
        }
    });
    (worker, held)
}

/// That a number stays what it is, for longer than the worker needs to act.
async fn stays(number: &AtomicUsize, wanted: usize) {
    for _ in 0..20 {
        assert_eq!(number.load(SeqCst), wanted);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn concurrency_is_changed_while_the_worker_runs() {
    let queue = queue().await;
    let (worker, held) = holding(&queue, 1);
    add_many(&queue, "job", 20).await;
    until(DEADLINE, async || held.running.load(SeqCst) == 1).await;
    stays(&held.running, 1).await;
    assert_eq!(worker.handle.concurrency(), 1);
    worker.handle.set_concurrency(5);
    until(DEADLINE, async || held.running.load(SeqCst) == 5).await;
    stays(&held.running, 5).await;
    // Fewer: what runs goes on, and its slots are not filled again.
    worker.handle.set_concurrency(2);
    held.go.add_permits(3);
    until(DEADLINE, async || held.running.load(SeqCst) == 2).await;
    held.go.add_permits(1);
    until(DEADLINE, async || queue.counts().await.unwrap().totals.get("completed") == Some(&4)).await;
    until(DEADLINE, async || held.running.load(SeqCst) == 2).await;
    stays(&held.running, 2).await;
    worker.handle.set_concurrency(0);
    assert_eq!(worker.handle.concurrency(), 1, "none at all is a pause");
    held.go.add_permits(20);
    until(DEADLINE, async || queue.counts().await.unwrap().is_idle()).await;
    worker.stop().await;
    assert_sound(&queue).await;
}

#[tokio::test]
async fn an_idle_worker_takes_more_at_once_when_its_concurrency_was_raised() {
    let server = OwnRedis::start(&[]);
    let queue = queue_at(&server.url()).await;
    let (worker, held) = holding(&queue, 1);
    // It blocks for one job.
    wait_until_blocked(&server).await;
    worker.handle.set_concurrency(3);
    let began = Instant::now();
    add_many(&queue, "job", 3).await;
    until(DEADLINE, async || held.running.load(SeqCst) == 3).await;
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    held.go.add_permits(3);
    worker.stop().await;
    assert_sound(&queue).await;
}

#[tokio::test]
async fn a_paused_worker_finishes_what_it_has_and_leaves_the_rest_to_others() {
    let queue = queue().await;
    let (worker, held) = holding(&queue, 2);
    add_many(&queue, "job", 4).await;
    until(DEADLINE, async || held.running.load(SeqCst) == 2).await;
    worker.handle.pause();
    assert!(worker.handle.is_paused());
    let resting = tokio::spawn({
        let handle = worker.handle.clone();
        async move { handle.at_rest().await }
    });
    stays(&held.running, 2).await;
    assert!(!resting.is_finished(), "it has two in hand");
    held.go.add_permits(10);
    resting.await.unwrap();
    let counts = queue.counts().await.unwrap();
    assert_eq!((counts.active, counts.waiting, counts.totals["completed"]), (0, 2, 2));
    // What comes now is another worker's.
    let (other, others) = holding(&queue, 1);
    others.go.add_permits(10);
    add(&queue, "later").await;
    until(DEADLINE, async || queue.counts().await.unwrap().totals["completed"] == 5).await;
    other.stop().await;
    add(&queue, "last").await;
    stays(&held.running, 0).await;
    assert_eq!(queue.counts().await.unwrap().waiting, 1);
    worker.handle.resume();
    until(DEADLINE, async || queue.counts().await.unwrap().is_idle()).await;
    worker.handle.pause();
    worker.handle.at_rest().await;
    let ending = Instant::now();
    worker.stop().await;
    assert!(ending.elapsed() < Duration::from_secs(3), "a paused worker ends at once");
    assert_sound(&queue).await;
}

#[tokio::test]
async fn a_paused_worker_flushes_its_buffer() {
    let queue = queue().await;
    let sizes = Seen::nothing();
    let hour = Duration::from_hours(1);
    let options = WorkerOptions { batch_size: 10, flush: hour, ..options() };
    let worker = batches(&queue, options, {
        let sizes = sizes.clone();
        move |jobs| {
            sizes.push(jobs.len());
            async move { Ok(vec![Outcome::Done; jobs.len()]) }
        }
    });
    add_many(&queue, "job", 3).await;
    worker.handle.pause();
    worker.handle.at_rest().await;
    let done: usize = sizes.all().iter().sum();
    let counts = queue.counts().await.unwrap();
    assert_eq!((counts.active, counts.waiting), (0, 3 - done as u64));
    worker.stop().await;
    assert_sound(&queue).await;
}
