//! The spans of traces: of each job one, and within it one for each thing that takes time.
//!
//! While no traces are sent, [`span!`] gives a span that is none, after a look at a flag; without the feature `otlp` the
//! compiler removes even that.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};

use tracing::Span;

use crate::job::JobId;
use crate::queue::read::Delivery;

/// Set once traces are sent.
static IS_EXPORTING: AtomicBool = AtomicBool::new(false);

/// Whether anybody wants spans.
#[inline]
pub(crate) fn is_exporting() -> bool {
    cfg!(feature = "otlp") && IS_EXPORTING.load(Ordering::Relaxed)
}

#[cfg(feature = "otlp")]
pub(super) fn begin_exporting() {
    IS_EXPORTING.store(true, Ordering::Relaxed);
}

/// A span of a trace, as `tracing::info_span!` without its target; none at all while no traces are sent.
macro_rules! span {
    ($($fields:tt)+) => {
        if $crate::telemetry::spans::is_exporting() {
            tracing::info_span!(target: "feedmill::trace", $($fields)+)
        } else {
            tracing::Span::none()
        }
    };
}
pub(crate) use span;

/// The context of the current span as the header `traceparent` of W3C Trace Context has it: what a job carries to whoever
/// works on it. `None` while no traces are sent.
pub(crate) fn traceparent() -> Option<String> {
    #[cfg(feature = "otlp")]
    if is_exporting() {
        return super::otlp::traceparent(&Span::current());
    }
    None
}

/// The span of a request to start imports, below the one that its header `traceparent` names; none without a header that
/// names one. Without it each import has a trace of its own, which its fetch begins.
pub(crate) fn of_request(traceparent: Option<&str>) -> Span {
    #[cfg(feature = "otlp")]
    if let Some(traceparent) = traceparent.filter(|named| is_exporting() && super::otlp::names_a_span(named)) {
        let span = span!(parent: None, "POST /imports/start", otel.kind = "server", trace_id = tracing::field::Empty);
        super::otlp::begin(&span, Some(traceparent));
        return span;
    }
    let _ = traceparent;
    Span::none()
}

/// The spans of a batch that is handled; empty while no traces are sent.
#[derive(Debug, Default)]
pub(crate) struct JobSpans {
    of_jobs: HashMap<JobId, Span>,
    /// What all of them have in common; that of the job, if it is alone.
    batch: Option<Span>,
}

impl JobSpans {
    /// Begins the span of each job, below the one that enqueued it.
    pub(crate) fn begin(queue: &str, batch: &[Delivery]) -> Self {
        if !is_exporting() {
            return Self::default();
        }
        let spans: Vec<Span> = batch.iter().map(|delivery| job_span(queue, delivery)).collect();
        let of_all = match spans.as_slice() {
            [alone] => alone.clone(),
            [first, others @ ..] => {
                let of_all = span!(parent: first, "batch", queue, jobs = batch.len());
                follow(&of_all, others);
                of_all
            }
            [] => Span::none(),
        };
        let ids = batch.iter().map(|delivery| delivery.lease.id.clone());
        Self { of_jobs: ids.zip(spans).collect(), batch: Some(of_all) }
    }

    /// The span to handle the batch in.
    pub(crate) fn of_batch(&self) -> Span {
        self.batch.clone().unwrap_or_else(Span::none)
    }

    /// The span of a job of the batch.
    pub(crate) fn of_job(&self, id: &JobId) -> Span {
        self.of_jobs.get(id).cloned().unwrap_or_else(Span::none)
    }
}

fn job_span(queue: &str, delivery: &Delivery) -> Span {
    let (job, none) = (&delivery.job, tracing::field::Empty);
    let span = span!(
        parent: None,
        "job",
        otel.kind = "consumer",
        messaging.system = "feedmill",
        queue,
        job.id = %delivery.lease.id,
        attempt = job.attempt(),
        feed = job.feed.as_deref(),
        import = job.head.import.map(tracing::field::display),
        trace_id = none,
        outcome = none,
        otel.status_code = none,
        otel.status_description = none,
    );
    #[cfg(feature = "otlp")]
    super::otlp::begin(&span, job.traceparent.as_deref());
    span
}

#[cfg(feature = "otlp")]
fn follow(span: &Span, others: &[Span]) {
    super::otlp::link(span, others);
}

#[cfg(not(feature = "otlp"))]
fn follow(_: &Span, _: &[Span]) {}
