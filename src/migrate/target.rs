//! The queue that jobs are moved into.

use std::time::{Duration, UNIX_EPOCH};

use super::MigrateError;
use super::mapping::{Arrival, Identity, Met, Standing};
use super::source_job::{SourceBackoff, SourceKeep, SourceOptions};
use crate::job::{Envelope, Growth, JobId, JobOptions, Keep, RetryPolicy, Version};
use crate::queue::Queue;
use crate::queue::dead_letter::NewDeadJob;
use crate::queue::enqueue::{Enqueued, NewJob};

/// What became of a job that was to be taken in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum TakenIn {
    /// It is here now.
    Moved,
    /// It is here since an earlier run, or what is here makes it needless.
    Duplicate,
    /// Another job has its id.
    IdInUse,
    /// Redis refused it.
    Refused(String),
}

/// Takes jobs in. May be repeated: what is here already is a duplicate then.
///
/// # Errors
/// [`MigrateError::Queue`]: some may be here.
pub(super) async fn take_in(
    queue: &Queue,
    arrivals: &[Arrival],
    payload_max_bytes: usize,
) -> Result<Vec<TakenIn>, MigrateError> {
    let ids: Vec<JobId> = arrivals.iter().map(|arrival| arrival.id.clone()).collect();
    let here = queue.jobs(&ids).await?;
    let mut results: Vec<Option<TakenIn>> = arrivals
        .iter()
        .zip(here)
        .map(|(arrival, here)| match here.map(|here| arrival.is_met_by(&here)) {
            Some(Met::Other) => Some(TakenIn::IdInUse),
            Some(Met::Same) if is_compared_here(arrival) => Some(TakenIn::Duplicate),
            _ => None,
        })
        .collect();
    let open: Vec<usize> = (0..arrivals.len()).filter(|at| results[*at].is_none()).collect();
    let options: Vec<Vec<u8>> = open.iter().map(|at| job_options(&arrivals[*at].options).encode()).collect();

    let (mut living, mut dead, mut dead_jobs, mut living_jobs) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for (at, options) in open.iter().zip(&options) {
        let arrival = &arrivals[*at];
        match &arrival.standing {
            Standing::Waits { delay, priority } => {
                living.push(*at);
                living_jobs.push(NewJob {
                    version: version(arrival),
                    delay: *delay,
                    priority: *priority,
                    group: arrival.group.as_deref(),
                    attempts_made: arrival.attempts_made,
                    ..NewJob::new(arrival.id.clone(), envelope(arrival, options))
                });
            }
            Standing::Dead { reason, at: given_up_at, priority } => {
                dead.push(*at);
                dead_jobs.push(NewDeadJob {
                    id: arrival.id.clone(),
                    envelope: envelope(arrival, options),
                    version: version(arrival),
                    priority: *priority,
                    group: arrival.group.as_deref(),
                    attempts_made: arrival.attempts_made,
                    reason,
                    at: *given_up_at,
                });
            }
        }
    }
    let enqueued = queue.add(&living_jobs, payload_max_bytes).await?;
    let buried = queue.enqueue_dead(&dead_jobs).await?;
    let mut met_meanwhile = Vec::new();
    for (at, result) in living.into_iter().zip(enqueued).chain(dead.into_iter().zip(buried)) {
        results[at] = Some(match result {
            Enqueued::Enqueued | Enqueued::Changed => TakenIn::Moved,
            Enqueued::Duplicate | Enqueued::Deduplicated(_) => {
                if is_compared_here(&arrivals[at]) {
                    met_meanwhile.push(at);
                }
                TakenIn::Duplicate
            }
            Enqueued::Refused(reason) => TakenIn::Refused(reason),
        });
    }
    // One page may hold two jobs that claim one id, and a producer may have been faster.
    let ids: Vec<JobId> = met_meanwhile.iter().map(|at| arrivals[*at].id.clone()).collect();
    for (at, here) in met_meanwhile.into_iter().zip(queue.jobs(&ids).await?) {
        if here.is_some_and(|here| arrivals[at].is_met_by(&here) == Met::Other) {
            results[at] = Some(TakenIn::IdInUse);
        }
    }
    Ok(results.into_iter().flatten().collect())
}

/// Whether a job of its id is told from it here; items and tasks are compared by the queue, as it takes them in.
fn is_compared_here(arrival: &Arrival) -> bool {
    matches!(arrival.identity, Identity::Job | Identity::Copy)
}

fn version(arrival: &Arrival) -> Option<Version> {
    match arrival.identity {
        Identity::Item(version) => Some(version),
        Identity::FetchTask | Identity::Job | Identity::Copy => None,
    }
}

fn envelope<'a>(arrival: &'a Arrival, options: &'a [u8]) -> Envelope<'a> {
    let of_version = version(arrival).map(|version| UNIX_EPOCH + Duration::from_micros(version.0));
    Envelope {
        payload: &arrival.payload,
        fingerprint: arrival.fingerprint,
        enqueued_at: Some(arrival.enqueued_at).filter(|at| of_version != Some(*at)),
        name: arrival.name.as_deref(),
        feed: None,
        options: Some(options),
        traceparent: None,
    }
}

fn job_options(options: &SourceOptions) -> JobOptions {
    JobOptions {
        attempts: options.attempts.map(|attempts| u8::try_from(attempts).unwrap_or(u8::MAX)),
        backoff: options.backoff.map(retry_policy),
        on_complete: options.remove_on_complete.map(keep),
        on_fail: options.remove_on_fail.map(keep),
        ..JobOptions::default()
    }
}

/// BullMQ knows no longest wait; 49 days are as good.
fn retry_policy(backoff: SourceBackoff) -> RetryPolicy {
    let SourceBackoff { is_exponential, delay, jitter } = backoff;
    let growth = if is_exponential { Growth::Exponential } else { Growth::Fixed };
    RetryPolicy { growth, delay, max: Duration::from_millis(u64::from(u32::MAX)).max(delay), jitter }
}

fn keep(keep: SourceKeep) -> Keep {
    match keep {
        SourceKeep::Nothing => Keep::Nothing,
        SourceKeep::All => Keep::All,
        SourceKeep::Newest { count, age } => Keep::Newest { count, age },
    }
}
