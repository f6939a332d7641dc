//! What Redis says about queues: one script a queue, and at most one round a second however many ask.
//!
//! The counters live in Redis and never start again, so that a gauge which stays at 0 because finished jobs are removed
//! is not all there is.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::try_join_all;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

use super::table::{self, Family};
use super::text::Text;
use crate::error::chain;
use crate::queue::counts::Counts;
use crate::queue::{Queue, QueueError};

/// How old a reading may be.
const CACHED: Duration = Duration::from_secs(1);
/// How long Redis may take; far below the 10 s after which Prometheus gives up on all metrics.
const TIMEOUT: Duration = Duration::from_secs(3);

/// Reads the counts of some queues. Cheap to clone; all clones share one reading.
#[derive(Clone, Debug)]
pub struct QueueReadings {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    queues: Vec<Queue>,
    /// Held while Redis is asked: who comes meanwhile waits for that answer.
    latest: Mutex<Option<(Instant, Arc<[Counts]>)>>,
}

impl QueueReadings {
    /// Readings of these queues.
    pub fn new(queues: impl IntoIterator<Item = Queue>) -> Self {
        Self { inner: Arc::new(Inner { queues: queues.into_iter().collect(), latest: Mutex::default() }) }
    }

    /// The queues, in the order of the counts.
    pub fn queues(&self) -> &[Queue] {
        &self.inner.queues
    }

    /// Counts of each queue, at most a second old.
    ///
    /// # Errors
    /// [`QueueError::Redis`]. An error is not kept: the next call asks again.
    pub async fn counts(&self) -> Result<Arc<[Counts]>, QueueError> {
        let mut latest = self.inner.latest.lock().await;
        if let Some((at, counts)) = &*latest
            && at.elapsed() < CACHED
        {
            return Ok(counts.clone());
        }
        *latest = None;
        let counts: Arc<[Counts]> = try_join_all(self.inner.queues.iter().map(Queue::counts)).await?.into();
        *latest = Some((Instant::now(), counts.clone()));
        Ok(counts)
    }

    pub(super) async fn render(&self) -> String {
        let mut text = Text::default();
        let counts = match timeout(TIMEOUT, self.counts()).await {
            Ok(Ok(counts)) => Some(counts),
            Ok(Err(error)) => {
                tracing::warn!(error = %chain(&error), "Redis did not say the counts of the queues");
                None
            }
            Err(_) => {
                tracing::warn!("Redis did not say the counts of the queues within {TIMEOUT:?}");
                None
            }
        };
        text.family(table::REDIS_UP).sample(&[], u8::from(counts.is_some()));
        if let Some(counts) = counts {
            let names = self.inner.queues.iter().map(Queue::name);
            render(&mut text, &names.zip(counts.iter()).collect::<Vec<_>>());
        }
        text.into_string()
    }
}

fn render(text: &mut Text, queues: &[(&str, &Counts)]) {
    let mut states = text.family(table::JOB_COUNT);
    for (queue, counts) in queues {
        for (state, n) in counts.by_state() {
            states.sample(&[queue, state], n);
        }
    }
    let mut each = |family: Family, value: &dyn Fn(&Counts) -> f64| {
        let mut samples = text.family(family);
        for (queue, counts) in queues {
            samples.sample(&[queue], value(counts));
        }
    };
    let total = |counts: &Counts, name: &str| counts.totals.get(name).copied().unwrap_or(0) as f64;
    each(table::JOB_COMPLETED, &|counts| total(counts, "completed"));
    each(table::JOB_FAILED, &|counts| total(counts, "failed"));
    each(table::JOBS_PROCESSED, &|counts| total(counts, "completed") + total(counts, "failed"));
    each(table::QUEUE_SIZE, &|counts| (counts.waiting + counts.active) as f64);
    each(table::QUEUE_PAUSED, &|counts| f64::from(u8::from(counts.is_paused)));
    each(table::OLDEST_WAITING, &|counts| counts.oldest_waiting.unwrap_or_default().as_secs_f64());
    each(table::CONSUMERS_ALIVE, &|counts| counts.consumers_alive as f64);
    each(table::STREAM_ENTRIES, &|counts| (counts.waiting + counts.active) as f64);
    each(table::PENDING_ENTRIES, &|counts| counts.active as f64);
    each(table::DELAYED_JOBS, &|counts| counts.delayed as f64);
    each(table::DEAD_LETTERS, &|counts| counts.failed as f64);
    each(table::RETRIES, &|counts| total(counts, "retried"));
    each(table::STALLS, &|counts| total(counts, "stalled"));
    each(table::REDRIVEN, &|counts| total(counts, "redriven"));
    each(table::DISCARDED, &|counts| total(counts, "discarded"));
    each(table::LOSSES, &|counts| total(counts, "losses"));
    let mut enqueued = text.family(table::ENQUEUED);
    for (queue, counts) in queues {
        for (result, name) in [("enqueued", "enqueued"), ("changed", "changed"), ("duplicate", "duplicates")] {
            enqueued.sample(&[queue, result], total(counts, name));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::table::{FAMILIES, Whose};
    use super::*;

    #[test]
    fn every_family_that_is_read_from_redis_is_written_once_for_all_queues() {
        let counts = Counts::default();
        let mut text = Text::default();
        text.family(table::REDIS_UP).sample(&[], 1);
        render(&mut text, &[("a", &counts), ("b", &counts)]);
        let text = text.into_string();
        for family in FAMILIES {
            let header = format!("# TYPE {} ", family.name);
            assert_eq!(text.matches(&header).count(), usize::from(family.whose == Whose::Redis), "{}", family.name);
        }
        assert_eq!(text.matches("bullmq_job_count{").count(), 16, "eight states of two queues");
    }

    #[test]
    fn large_counts_are_written_in_full() {
        let totals = [("completed".to_owned(), 4_000_000_000), ("failed".to_owned(), 1)].into();
        let counts = Counts { totals, oldest_waiting: Some(Duration::from_millis(1500)), ..Counts::default() };
        let mut text = Text::default();
        render(&mut text, &[("a", &counts)]);
        let text = text.into_string();
        assert!(text.contains("\nbullmq_jobs_processed_total{queue=\"a\"} 4000000001\n"));
        assert!(text.contains("\nfeedmill_oldest_waiting_age_seconds{queue=\"a\"} 1.5\n"));
    }
}
