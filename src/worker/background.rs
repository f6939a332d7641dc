//! The turns beside the road: renew, promote, claim, heartbeat, janitor, schedules. Each loop is `turn`, then wait.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::{Parts, ScheduleLoop};
use crate::error::chain;
use crate::pulse::Beat;
use crate::queue::QueueError;
use crate::queue::claim::Sweeper;
use crate::queue::consumers::{BUSY_HEARTBEAT_INTERVAL, HEARTBEAT_INTERVAL};
use crate::queue::limits::SetBy;
use crate::queue::scripts::JOBS_PER_CALL_MAX;

/// Longest sleep of the promoter: bounds how late a job is promoted when the process that knew of it died.
const PROMOTE_INTERVAL_MAX: Duration = Duration::from_secs(5);
/// Time between two looks for consumers that are gone and dead letters that are too many.
const JANITOR_INTERVAL: Duration = Duration::from_secs(30);
/// Stalled jobs that a log line names; a worker that died may leave a thousand.
const STALLED_NAMED: usize = 3;
/// Pause after a turn that Redis did not answer.
const ERROR_PAUSE: Duration = Duration::from_secs(1);

/// Runs the loops. Renewing and the heartbeat go on until `ended`, the others until `shutdown`.
async fn run_all(parts: Arc<Parts>, shutdown: CancellationToken, ended: CancellationToken) {
    tokio::join!(
        ended.run_until_cancelled(supervised("renew", &parts, renew)),
        ended.run_until_cancelled(supervised("heartbeat", &parts, heartbeat)),
        shutdown.run_until_cancelled(set_limits(&parts)),
        shutdown.run_until_cancelled(supervised("promote", &parts, promote)),
        shutdown.run_until_cancelled(supervised("claim", &parts, claim)),
        shutdown.run_until_cancelled(supervised("clean", &parts, clean)),
        shutdown.run_until_cancelled(supervised("fire schedulers", &parts, fire_schedulers)),
    );
}

/// Runs a loop on a task of its own, and once more if it panics: without renewing, say, every job of the worker would be
/// taken for stalled.
async fn supervised<F>(name: &str, parts: &Arc<Parts>, run: fn(Arc<Parts>) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    loop {
        let task = AbortOnDropHandle::new(tokio::spawn(run(parts.clone())));
        if let Err(error) = task.await {
            tracing::error!(queue = %parts.queue.name(), %error, "the loop {name} panicked and is started anew");
            sleep(ERROR_PAUSE).await;
        }
    }
}

/// As [`run_all`], on a task of its own; the future ends when all loops have.
pub(super) fn spawn(
    parts: &Arc<Parts>,
    shutdown: &CancellationToken,
    ended: &CancellationToken,
) -> impl Future<Output = ()> + use<> {
    let task = tokio::spawn(run_all(parts.clone(), shutdown.clone(), ended.clone()));
    async move {
        if let Err(error) = task.await {
            tracing::error!(%error, "the background loops panicked");
        }
    }
}

/// Logs what went wrong and waits before the next turn.
async fn failed(parts: &Parts, what: &str, error: &QueueError) {
    let queue = parts.queue.name();
    tracing::warn!(%queue, error = %chain(error), "{what} failed; trying again in {ERROR_PAUSE:?}");
    sleep(ERROR_PAUSE).await;
}

/// Sets the limits that this worker was started with, once.
async fn set_limits(parts: &Parts) {
    loop {
        match parts.queue.set_limits(parts.options.limits, SetBy::Config).await {
            Ok(true) => return,
            Ok(false) => {
                let queue = parts.queue.name();
                return tracing::info!(%queue, "the queue keeps the limits that an operator has set");
            }
            Err(error) => failed(parts, "setting limits", &error).await,
        }
    }
}

async fn renew(parts: Arc<Parts>) {
    let interval = parts.options.claim.lock_duration / 2;
    loop {
        sleep(interval).await;
        while let Err(error) = renew_once(&parts).await {
            failed(&parts, "renewing leases", &error).await;
        }
    }
}

/// Renews everything that is held; forgets what is lost.
async fn renew_once(parts: &Parts) -> Result<usize, QueueError> {
    let leases = parts.leases.all();
    let lost = parts.queue.renew(&parts.consumer.name, &leases).await?;
    // Those that were settled meanwhile are held no more.
    for lease in parts.leases.lose(lost.iter().map(|lease| (lease.lane, lease.entry))) {
        tracing::warn!(
            queue = %parts.queue.name(), job.id = %lease.id,
            "the lease on job {} was lost: it was removed, or somebody took it over", lease.id
        );
    }
    Ok(leases.len() - lost.len())
}

/// Of these loops the one that is followed: it goes round every few seconds, whatever the configuration says, and every
/// second while there is a job that may be cancelled.
async fn heartbeat(parts: Arc<Parts>) {
    loop {
        parts.beat.turned();
        let began = Instant::now();
        match heartbeat_once(&parts).await {
            Ok(()) => tokio::select! {
                () = sleep_until(began + HEARTBEAT_INTERVAL) => {}
                () = async {
                    parts.leases.some().await;
                    sleep_until(began + BUSY_HEARTBEAT_INTERVAL).await;
                } => {}
            },
            Err(error) => failed(&parts, "the heartbeat", &error).await,
        }
    }
}

/// Says that this worker is alive, and tells the handlers of jobs that were cancelled.
async fn heartbeat_once(parts: &Parts) -> Result<(), QueueError> {
    loop {
        let (jobs, _) = parts.leases.totals();
        let cancelled = parts.queue.heartbeat(&parts.consumer, jobs).await?;
        let all_are_known = cancelled.len() < JOBS_PER_CALL_MAX;
        for lease in parts.leases.lose(cancelled) {
            tracing::info!(queue = %parts.queue.name(), job.id = %lease.id, "job {} was cancelled", lease.id);
        }
        if all_are_known {
            return Ok(());
        }
    }
}

async fn promote(parts: Arc<Parts>) {
    loop {
        match parts.queue.promote().await {
            Ok(promoted) => {
                parts.metrics.promoted.increment(promoted.moved as u64);
                parts.metrics.buried_lost.increment(promoted.buried as u64);
                if promoted.buried > 0 {
                    tracing::error!(
                        queue = %parts.queue.name(), jobs = promoted.buried,
                        "{} delayed jobs were due and their payload is gone: they are dead letters now (`feedmill queue list \
                         --state failed`); feeds enqueue their items anew",
                        promoted.buried
                    );
                }
                if promoted.moved > 0 {
                    tracing::debug!(queue = %parts.queue.name(), ?promoted, "promoted");
                }
                let pause = promoted.next_due_in.unwrap_or(PROMOTE_INTERVAL_MAX).min(PROMOTE_INTERVAL_MAX);
                if !pause.is_zero() {
                    tokio::select! {
                        () = sleep(pause) => {}
                        () = parts.due_earlier.notified() => {}
                    }
                }
            }
            Err(error) => failed(&parts, "promoting", &error).await,
        }
    }
}

async fn claim(parts: Arc<Parts>) {
    let mut sweeper = parts.queue.sweeper(&parts.consumer.name, parts.options.claim);
    loop {
        match claim_once(&parts, &mut sweeper).await {
            // Somebody else may have swept just after us: look a little more often than a sweep is due.
            Ok(()) => sleep(parts.options.claim.stalled_interval / 2).await,
            Err(error) => failed(&parts, "claiming", &error).await,
        }
    }
}

async fn claim_once(parts: &Parts, sweeper: &mut Sweeper) -> Result<(), QueueError> {
    let swept = sweeper.sweep().await?;
    parts.metrics.claimed.increment(swept.waiting as u64);
    parts.metrics.buried_stalled.increment(swept.buried as u64);
    if !swept.stalled.is_empty() {
        let named: Vec<String> = swept.stalled.iter().take(STALLED_NAMED).map(ToString::to_string).collect();
        tracing::warn!(
            queue = %parts.queue.name(), stalled = swept.stalled.len(), waiting = swept.waiting, buried = swept.buried,
            jobs = ?named,
            "{} jobs stalled: their worker stopped working on them; {} wait again, {} over max_stalled_count are dead \
             letters",
            swept.stalled.len(), swept.waiting, swept.buried
        );
    }
    if swept.dropped > 0 {
        tracing::warn!(queue = %parts.queue.name(), entries = swept.dropped, "entries without a job were dropped");
    }
    Ok(())
}

async fn fire_schedulers(parts: Arc<Parts>) {
    if parts.fires_schedulers {
        ScheduleLoop::new(parts.queue.clone()).run_for_ever(Beat::default()).await;
    } else {
        std::future::pending::<()>().await;
    }
}

async fn clean(parts: Arc<Parts>) {
    loop {
        match clean_once(&parts).await {
            Ok(()) => sleep(JANITOR_INTERVAL).await,
            Err(error) => failed(&parts, "cleaning", &error).await,
        }
    }
}

/// Deletes consumers that are gone, and completed jobs and dead letters beyond what is to be kept.
async fn clean_once(parts: &Parts) -> Result<(), QueueError> {
    let queue = parts.queue.name();
    let reaped = parts.queue.reap_consumers(None).await?;
    if reaped.deleted + reaped.forgotten > 0 {
        tracing::info!(%queue, deleted = reaped.deleted, forgotten = reaped.forgotten, "consumers that are gone were deleted");
    }
    while parts.queue.retain_completed(parts.options.on_complete).await? == JOBS_PER_CALL_MAX {}
    loop {
        let options = &parts.options;
        let discarded = parts.queue.retain_dead_letters(options.retention, SystemTime::now(), options.forget).await?;
        if discarded > 0 {
            tracing::info!(%queue, discarded, "dead letters beyond remove_on_fail were deleted");
        }
        if discarded < JOBS_PER_CALL_MAX {
            return Ok(());
        }
    }
}
