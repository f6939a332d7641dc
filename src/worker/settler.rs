//! The settler: ends deliveries as their outcomes want it, those of many flights in one call.
//!
//! ```text
//!   flight ──ending──▶ settler: done · back off · bury      one call at a time; what ends meanwhile goes with the next
//! ```
//!
//! A call costs Redis little more for a hundred jobs than for one, so under load settles gather by themselves, and an idle
//! worker still settles at once.
//!
//! *Crash:* what was not settled is pending and is handled again. *Panic:* the jobs of that call are let go and claimed.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tracing::Span;

use super::Parts;
use super::settle::{Settlement, settlement};
use crate::error::chain;
use crate::job::Outcome;
use crate::queue::read::{Delivery, Lease};
use crate::queue::scripts::JOBS_PER_CALL_MAX;
use crate::queue::settle::{BackOff, Burial, Done};
use crate::queue::{QueueError, Settled};
use crate::telemetry::spans::JobSpans;

/// First and longest pause between two tries while Redis does not answer.
const OUTAGE_PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// How one delivery ends.
#[derive(Debug)]
enum Ending {
    Done(Done),
    BackOff(BackOff),
    Bury(Burial),
}

impl Ending {
    fn lease(&self) -> &Lease {
        match self {
            Self::Done(done) => &done.lease,
            Self::BackOff(back_off) => &back_off.lease,
            Self::Bury(burial) => &burial.lease,
        }
    }
}

/// Hands endings to the settler. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Endings {
    parts: Arc<Parts>,
    sender: mpsc::UnboundedSender<Ending>,
}

/// The task that settles.
#[derive(Debug)]
pub(super) struct Settler {
    endings: Endings,
    task: JoinHandle<()>,
}

impl Settler {
    pub(super) fn spawn(parts: &Arc<Parts>) -> Self {
        // Bounded by what a worker holds: a job that is being settled counts until it is.
        let (sender, mut receiver) = mpsc::unbounded_channel();
        let endings = Endings { parts: parts.clone(), sender };
        let parts = parts.clone();
        let task = tokio::spawn(async move {
            let mut batch = Vec::new();
            while receiver.recv_many(&mut batch, JOBS_PER_CALL_MAX).await > 0 {
                let leases: Vec<Lease> = batch.iter().map(|ending| ending.lease().clone()).collect();
                let settling = settle(&parts, std::mem::take(&mut batch));
                if AssertUnwindSafe(settling).catch_unwind().await.is_err() {
                    tracing::error!(
                        queue = %parts.queue.name(), jobs = leases.len(),
                        "settling panicked; its jobs are claimed after lock_duration"
                    );
                }
                parts.leases.remove(&leases);
                parts.settled.notify_one();
            }
        });
        Self { endings, task }
    }

    /// What flights are given.
    pub(super) fn endings(&self) -> Endings {
        self.endings.clone()
    }

    /// Ends when everything that was handed in is settled, once all flights are over.
    pub(super) async fn end(self) {
        drop(self.endings);
        if let Err(error) = self.task.await {
            tracing::error!(%error, "the settler panicked; jobs that were through are claimed after lock_duration");
        }
    }
}

impl Endings {
    /// Hands in a batch with its outcomes. It is no longer the flight's from here on.
    pub(super) fn add(&self, batch: &[Delivery], outcomes: Vec<Outcome>, spans: &JobSpans) {
        let parts = &*self.parts;
        parts.leases.settling(batch.iter().map(|delivery| &delivery.lease));
        for (delivery, outcome) in batch.iter().zip(outcomes) {
            let span = spans.of_job(&delivery.lease.id);
            let _within = span.enter();
            if delivery.cancelled.is_cancelled() {
                parts.metrics.lost.increment(1);
                parts.leases.remove([&delivery.lease]);
            } else if let Err(unsent) = self.sender.send(ending(parts, delivery, outcome, &span)) {
                parts.leases.remove([unsent.0.lease()]);
            }
        }
    }
}

/// Decides how a delivery ends, and says so where people want to know.
fn ending(parts: &Parts, delivery: &Delivery, outcome: Outcome, span: &Span) -> Ending {
    let (lease, attempt) = (delivery.lease.clone(), delivery.job.attempt());
    let (options, own) = (&parts.options, delivery.job.options.as_deref());
    let attempts = own.and_then(|own| own.attempts).unwrap_or(options.attempts);
    let policy = own.and_then(|own| own.backoff.as_ref()).unwrap_or(&options.retry_policy);
    let dedup = own.and_then(|own| own.dedup.clone());
    match settlement(outcome, attempt, attempts, policy, fastrand::f64) {
        Settlement::Done { stored, result } => {
            span.record("outcome", "done");
            Ending::Done(Done { lease, stored, keep: own.and_then(|own| own.on_complete), result, dedup })
        }
        Settlement::BackOff { wait, reason } => {
            log_back_off(parts, &lease, (attempt, attempts), wait, reason.as_deref());
            span.record("outcome", if reason.is_some() { "retried" } else { "snoozed" });
            failed(span, reason.as_deref());
            Ending::BackOff(BackOff { lease, wait, reason })
        }
        Settlement::Bury { reason, exhausted } => {
            tracing::error!(
                queue = %parts.queue.name(), job.id = %lease.id, attempt, %reason,
                "job {} failed for good: it is a dead letter now (`feedmill queue redrive` brings it back)", lease.id
            );
            span.record("outcome", "buried");
            failed(span, Some(&reason));
            Ending::Bury(Burial { lease, reason, exhausted, dedup })
        }
    }
}

/// Says in the span of a job that it failed; a snooze is no failure.
fn failed(span: &Span, reason: Option<&str>) {
    if let Some(reason) = reason {
        span.record("otel.status_code", "ERROR").record("otel.status_description", reason);
    }
}

/// Settles each, trying again while Redis is out.
async fn settle(parts: &Parts, endings: Vec<Ending>) {
    let (mut done, mut back_off, mut burials) = (Vec::with_capacity(endings.len()), Vec::new(), Vec::new());
    for ending in endings {
        match ending {
            Ending::Done(job) => done.push(job),
            Ending::BackOff(job) => back_off.push(job),
            Ending::Bury(job) => burials.push(job),
        }
    }
    let (queue, metrics) = (&parts.queue, &parts.metrics);
    if !done.is_empty() {
        let settled = until_redis_answers(parts, "done", || queue.done(&done, parts.options.on_complete)).await;
        metrics.settled(&settled, |_| &metrics.done);
        log_lost(parts, done.iter().map(|job| &job.lease), &settled);
    }
    if !back_off.is_empty() {
        let (settled, _) = until_redis_answers(parts, "back_off", || queue.back_off(&back_off)).await;
        parts.due_earlier.notify_one();
        metrics.settled(&settled, |at| match back_off[at].reason {
            Some(_) => &metrics.retried,
            None => &metrics.snoozed,
        });
        log_lost(parts, back_off.iter().map(|job| &job.lease), &settled);
    }
    if !burials.is_empty() {
        let settled = until_redis_answers(parts, "bury", || queue.bury(&parts.consumer.name, &burials)).await;
        metrics.settled(&settled, |at| {
            if burials[at].exhausted { &metrics.exhausted } else { &metrics.hopeless }.increment(1);
            &metrics.buried
        });
        log_lost(parts, burials.iter().map(|job| &job.lease), &settled);
    }
}

fn log_back_off(parts: &Parts, lease: &Lease, (attempt, attempts): (u8, u8), wait: Duration, reason: Option<&str>) {
    let queue = parts.queue.name();
    if let Some(reason) = reason {
        tracing::warn!(
            %queue, job.id = %lease.id, attempt, attempts, %reason,
            "job {} failed, trying again in {wait:?}", lease.id
        );
    } else {
        tracing::debug!(%queue, job.id = %lease.id, "job {} snoozes for {wait:?}", lease.id);
    }
}

fn log_lost<'a>(parts: &Parts, leases: impl Iterator<Item = &'a Lease>, settled: &[Settled]) {
    for (lease, _) in leases.zip(settled).filter(|(_, settled)| **settled == Settled::Lost) {
        tracing::debug!(queue = %parts.queue.name(), job.id = %lease.id, "job {} was not ours any more", lease.id);
    }
}

/// Repeats a settle until Redis answers it. Settles are fenced, so one that was carried out before its answer was lost
/// does nothing the second time. An answer that makes no sense is logged, and the jobs are left to be claimed.
async fn until_redis_answers<T: Default, F: Future<Output = Result<T, QueueError>>>(
    parts: &Parts,
    what: &'static str,
    settle: impl Fn() -> F,
) -> T {
    let mut pause = OUTAGE_PAUSE.0;
    loop {
        match settle().await {
            Ok(settled) => return settled,
            Err(error) if error.is_outage() => {
                tracing::warn!(
                    queue = %parts.queue.name(), error = %chain(&error),
                    "Redis did not take {what}; trying again in {pause:?}"
                );
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(OUTAGE_PAUSE.1);
            }
            Err(error) => {
                tracing::error!(
                    queue = %parts.queue.name(), error = %chain(&error),
                    "{what} failed; its jobs are claimed after lock_duration"
                );
                return T::default();
            }
        }
    }
}
