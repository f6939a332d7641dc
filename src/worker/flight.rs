//! One batch in flight: handle it, then hand each job with its outcome to the settler.
//!
//! *Outage:* when the handler says that the store is missing, the flight keeps its jobs and tries again until it is back;
//! the [`Gate`] stops reading meanwhile. *Panic:* a failed attempt of the job that causes it; to find it, the jobs of the
//! batch are handled one by one.
//!
//! *Lost:* a handler whose jobs are all somebody else's by now is told, and stopped if it goes on nevertheless.
//!
//! *Crash after the handler:* the jobs are pending and are handled again, which the handler makes harmless.

use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::Instrument as _;

use super::settler::Endings;
use super::{Handler, Outage, Parts};
use crate::error::chain;
use crate::job::Outcome;
use crate::queue::read::{Delivery, Lease};
use crate::telemetry::spans::JobSpans;

/// First and longest pause between two tries during an outage.
const OUTAGE_PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));
/// How long a handler may go on with jobs that are not its worker's any more: time to end in good order.
const LOST_GRACE: Duration = Duration::from_secs(5);

/// Closed while a flight waits for an outage to end: nothing is read then.
#[derive(Clone, Debug)]
pub(super) struct Gate(watch::Sender<usize>);

impl Gate {
    pub(super) fn open() -> Self {
        Self(watch::Sender::new(0))
    }

    pub(super) fn is_open(&self) -> bool {
        *self.0.borrow() == 0
    }

    pub(super) fn changes(&self) -> watch::Receiver<usize> {
        self.0.subscribe()
    }

    /// Keeps the gate closed until it is dropped.
    fn close(&self) -> Closed {
        self.0.send_modify(|flights| *flights += 1);
        Closed(self.clone())
    }
}

#[derive(Debug)]
struct Closed(Gate);

impl Drop for Closed {
    fn drop(&mut self) {
        self.0.0.send_modify(|flights| *flights -= 1);
    }
}

/// Stops renewing the jobs of a flight that panicked, so that they are claimed. A flight that is dropped keeps them.
struct LetGoOnPanic<'a> {
    parts: &'a Parts,
    leases: Vec<Lease>,
}

impl Drop for LetGoOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.parts.leases.remove(&self.leases);
        }
    }
}

/// Flies a batch to its end. Dropped (at the end of `shutdown_timeout`), it leaves its jobs held, to be given back.
pub(super) async fn fly<H: Handler>(
    parts: Arc<Parts>,
    handler: Arc<H>,
    gate: Gate,
    endings: Endings,
    mut batch: Vec<Delivery>,
) {
    let _let_go = LetGoOnPanic { parts: &parts, leases: batch.iter().map(|delivery| delivery.lease.clone()).collect() };
    let mut closed = None;
    let mut pause = OUTAGE_PAUSE.0;
    parts.metrics.starts(&batch);
    let spans = JobSpans::begin(parts.queue.name(), &batch);
    let outcomes = loop {
        let began = Instant::now();
        match handle_once(&parts, &*handler, &batch).instrument(spans.of_batch()).await {
            Ok(outcomes) => {
                parts.metrics.handled(batch.len(), began.elapsed());
                break outcomes;
            }
            Err(outage) => {
                if closed.is_none() {
                    parts.metrics.outages.increment(1);
                    tracing::warn!(
                        queue = %parts.queue.name(), jobs = batch.len(), error = %chain(&outage),
                        "{} is not available: reading stops, jobs are kept and tried again, no attempt is used",
                        outage.what
                    );
                    closed = Some(gate.close());
                }
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(OUTAGE_PAUSE.1);
                // What was lost meanwhile is somebody else's now, and may be in another state than this batch knows.
                batch.retain(|delivery| parts.leases.is_held(&delivery.lease));
                if batch.is_empty() {
                    return;
                }
            }
        }
    };
    if closed.take().is_some() {
        tracing::info!(queue = %parts.queue.name(), jobs = batch.len(), "the outage is over");
    }
    endings.add(&batch, outcomes, &spans);
}

/// Why the handler ended without saying anything about a batch.
enum Silence {
    /// It panicked, was stopped, or said too much or too little.
    Broke(String),
    /// It took longer than `job_timeout`.
    TimedOut(String),
    /// It went on although none of the jobs is the worker's any more.
    Lost,
}

/// What is said of a job that is not ours any more; nobody hears it.
const LOST: &str = "the lease was lost";

/// Hands the batch in once; one outcome per job.
async fn handle_once<H: Handler>(parts: &Parts, handler: &H, batch: &[Delivery]) -> Result<Vec<Outcome>, Outage> {
    let retry = |reason: String| vec![Outcome::Retry(reason); batch.len()];
    match supervised(parts, handler, batch).await {
        Ok(said) => said,
        // One by one they would take as long again, each.
        Err(Silence::TimedOut(reason)) => Ok(retry(reason)),
        Err(Silence::Lost) => Ok(retry(LOST.to_owned())),
        Err(Silence::Broke(reason)) if batch.len() == 1 => Ok(retry(reason)),
        Err(Silence::Broke(_)) => {
            let mut outcomes = Vec::with_capacity(batch.len());
            for alone in batch.chunks(1) {
                match supervised(parts, handler, alone).await {
                    Ok(said) => outcomes.extend(said?),
                    Err(Silence::Broke(reason) | Silence::TimedOut(reason)) => outcomes.push(Outcome::Retry(reason)),
                    Err(Silence::Lost) => outcomes.push(Outcome::Retry(LOST.to_owned())),
                }
            }
            Ok(outcomes)
        }
    }
}

/// Waits until none of the jobs is the worker's any more, and then for as long as the handler may go on.
async fn all_lost(batch: &[Delivery]) {
    for delivery in batch {
        delivery.cancelled.cancelled().await;
    }
    tokio::time::sleep(LOST_GRACE).await;
}

/// Runs the handler within the time limit, and catches its panics. Whoever drops this stops it.
async fn supervised<H: Handler>(
    parts: &Parts,
    handler: &H,
    batch: &[Delivery],
) -> Result<Result<Vec<Outcome>, Outage>, Silence> {
    let jobs = batch.len();
    // A batch has one time for all of its jobs: that of the queue.
    let own_limit = match batch {
        [alone] => alone.job.options.as_ref().and_then(|options| options.timeout),
        _ => None,
    };
    // A handler that panicked is not polled again.
    let mut handling = pin!(AssertUnwindSafe(handler.handle(batch)).catch_unwind());
    let in_time = async {
        match own_limit.or(parts.options.job_timeout) {
            None => Ok((&mut handling).await),
            Some(limit) => tokio::time::timeout(limit, &mut handling).await.map_err(|_| {
                Silence::TimedOut(format!("no result within job_timeout ({})", humantime::format_duration(limit)))
            }),
        }
    };
    let ended = tokio::select! {
        biased;
        ended = in_time => ended?,
        () = all_lost(batch) => return Err(Silence::Lost),
    };
    match ended {
        Ok(Ok(outcomes)) if outcomes.len() != jobs => {
            Err(Silence::Broke(format!("the handler said {} outcomes for {jobs} jobs", outcomes.len())))
        }
        Ok(said) => Ok(said),
        Err(panic) => Err(Silence::Broke(format!("the handler panicked: {}", panic_text(panic.as_ref())))),
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}
