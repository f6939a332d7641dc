//! What a process did itself. The handles are made once, so that counting a job costs an addition; making them also
//! exports their series at 0, so that the first increase is seen.
//!
//! Without [`super::record`] everything here does nothing.

use std::time::{Duration, SystemTime};

use metrics::{Counter, Histogram, counter, histogram};

use super::table;
use crate::queue::Settled;
use crate::queue::read::Delivery;
use crate::store::documents::WriteResult;

/// Answers of feed servers, as the label has them.
const STATUSES: [&str; 7] = ["2xx", "304", "3xx", "4xx", "5xx", "other", "none"];

/// The numbers of one worker's queue.
#[derive(Debug)]
pub(crate) struct WorkerMetrics {
    pub(crate) done: Counter,
    pub(crate) retried: Counter,
    pub(crate) snoozed: Counter,
    pub(crate) buried: Counter,
    pub(crate) given_back: Counter,
    changed: Counter,
    pub(crate) lost: Counter,
    pub(crate) exhausted: Counter,
    pub(crate) hopeless: Counter,
    pub(crate) buried_stalled: Counter,
    pub(crate) buried_unreadable: Counter,
    pub(crate) buried_lost: Counter,
    pub(crate) claimed: Counter,
    pub(crate) promoted: Counter,
    pub(crate) outages: Counter,
    pub(crate) held_up: Counter,
    duration: Histogram,
    wait: Histogram,
    batch_jobs: Histogram,
}

impl WorkerMetrics {
    pub(crate) fn new(queue: &str) -> Self {
        let queue = queue.to_owned();
        let settled =
            |outcome: &'static str| counter!(table::SETTLED.name, "queue" => queue.clone(), "outcome" => outcome);
        let buried = |reason: &'static str| counter!(table::BURIED.name, "queue" => queue.clone(), "reason" => reason);
        Self {
            done: settled("done"),
            retried: settled("retried"),
            snoozed: settled("snoozed"),
            buried: settled("buried"),
            given_back: settled("given_back"),
            changed: settled("changed"),
            lost: settled("lost"),
            exhausted: buried("exhausted"),
            hopeless: buried("hopeless"),
            buried_stalled: buried("stalled"),
            buried_unreadable: buried("unreadable"),
            buried_lost: buried("lost"),
            claimed: counter!(table::CLAIMED.name, "queue" => queue.clone()),
            promoted: counter!(table::PROMOTED.name, "queue" => queue.clone()),
            outages: counter!(table::OUTAGES.name, "queue" => queue.clone()),
            held_up: counter!(table::HELD_UP.name, "queue" => queue.clone()),
            duration: histogram!(table::JOB_DURATION.name, "queue" => queue.clone()),
            wait: histogram!(table::JOB_WAIT.name, "queue" => queue.clone()),
            batch_jobs: histogram!(table::BATCH_JOBS.name, "queue" => queue.clone()),
        }
    }

    /// A batch is handed to the handler.
    pub(crate) fn starts(&self, batch: &[Delivery]) {
        self.batch_jobs.record(batch.len() as f64);
        let now = SystemTime::now();
        // What was tried or taken over before waited for other reasons too.
        for delivery in batch.iter().filter(|delivery| delivery.job.attempt() == 1 && delivery.job.head.stalls == 0) {
            // The clock of who enqueued it may be ahead.
            self.wait.record(now.duration_since(delivery.job.enqueued_at).unwrap_or_default().as_secs_f64());
        }
    }

    /// The handler said something about each job of a batch.
    pub(crate) fn handled(&self, jobs: usize, took: Duration) {
        self.duration.record_many(took.as_secs_f64(), jobs);
    }

    /// Redis answered a settle: `counted` is how a delivery ended that was settled as asked.
    pub(crate) fn settled<'a>(&self, settled: &[Settled], counted: impl Fn(usize) -> &'a Counter) {
        for (at, settled) in settled.iter().enumerate() {
            match settled {
                Settled::Settled => counted(at).increment(1),
                Settled::Changed => self.changed.increment(1),
                Settled::Lost => self.lost.increment(1),
            }
        }
    }
}

/// The numbers of writes to MongoDB.
#[derive(Clone, Debug)]
pub(crate) struct WriteMetrics {
    seconds: Histogram,
    done: Counter,
    refused: Counter,
    outage: Counter,
    inserted: Counter,
    updated: Counter,
    stale: Counter,
    failed: Counter,
}

impl WriteMetrics {
    pub(crate) fn new() -> Self {
        let documents = |result: &'static str| counter!(table::DOCUMENTS.name, "result" => result);
        let writes = |result: &'static str| counter!(table::WRITES.name, "result" => result);
        Self {
            seconds: histogram!(table::WRITE_SECONDS.name),
            done: writes("done"),
            refused: writes("refused"),
            outage: writes("outage"),
            inserted: documents("inserted"),
            updated: documents("updated"),
            stale: documents("stale"),
            failed: documents("failed"),
        }
    }

    /// A write ended, with a result for each document or, in an outage, with none.
    pub(crate) fn written(&self, took: Duration, results: Option<&[WriteResult]>) {
        self.seconds.record(took.as_secs_f64());
        let Some(results) = results else { return self.outage.increment(1) };
        let is_refused = results.iter().any(|result| matches!(result, WriteResult::Failed { .. }));
        if is_refused { &self.refused } else { &self.done }.increment(1);
        for result in results {
            let counter = match result {
                WriteResult::Inserted => &self.inserted,
                WriteResult::Updated => &self.updated,
                WriteResult::Stale => &self.stale,
                WriteResult::Failed { .. } => &self.failed,
            };
            counter.increment(1);
        }
    }
}

/// The numbers of fetches. Made anew for each, which is rare enough.
#[derive(Debug)]
pub(crate) struct FetchMetrics;

impl FetchMetrics {
    /// Exports the series at 0.
    pub(crate) fn register() {
        for status in STATUSES {
            counter!(table::FETCHES.name, "status" => status).increment(0);
        }
        let _made = histogram!(table::FETCH_SECONDS.name);
        Self::items(0, 0, 0, 0);
    }

    /// A request for a feed ended, with the status of its answer if there was one.
    pub(crate) fn fetched(status: Option<u16>, took: Duration) {
        counter!(table::FETCHES.name, "status" => class(status)).increment(1);
        histogram!(table::FETCH_SECONDS.name).record(took.as_secs_f64());
    }

    /// What a fetch brought.
    pub(crate) fn items(new: u64, changed: u64, unchanged: u64, duplicate: u64) {
        for (class, n) in [("new", new), ("changed", changed), ("unchanged", unchanged), ("duplicate", duplicate)] {
            counter!(table::ITEMS.name, "class" => class).increment(n);
        }
    }
}

/// The numbers of the schedule loop. A slot that another process fired first is counted there.
#[derive(Debug)]
pub(crate) struct SlotMetrics {
    pub(crate) fired: Counter,
    pub(crate) overlapped: Counter,
    pub(crate) refused: Counter,
    pub(crate) dropped: Counter,
    delay: Histogram,
}

impl SlotMetrics {
    pub(crate) fn new(queue: &str) -> Self {
        let slots = |result: &'static str| counter!(table::SLOTS.name, "result" => result);
        Self {
            fired: slots("fired"),
            overlapped: slots("overlapped"),
            refused: slots("refused"),
            dropped: slots("dropped"),
            delay: histogram!(table::SLOT_DELAY.name, "queue" => queue.to_owned()),
        }
    }

    /// A slot was fired this long after it came.
    pub(crate) fn late(&self, by: Duration) {
        self.delay.record(by.as_secs_f64());
    }
}

fn class(status: Option<u16>) -> &'static str {
    match status {
        None => "none",
        Some(304) => "304",
        Some(200..=299) => "2xx",
        Some(300..=399) => "3xx",
        Some(400..=499) => "4xx",
        Some(500..=599) => "5xx",
        Some(_) => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_has_one_of_the_classes_that_are_exported_from_the_start() {
        for status in (0..=999).map(Some).chain([None]) {
            assert!(STATUSES.contains(&class(status)), "{status:?}");
        }
        assert_eq!(class(Some(304)), "304", "an unchanged feed is no redirect");
    }
}
