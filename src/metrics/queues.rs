//! What Redis says about queues and about itself: a few short calls a queue, and at most one round a second however many
//! ask.
//!
//! The counters live in Redis and never start again, so that a gauge which stays at 0 because finished jobs are removed
//! is not all there is.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{try_join_all, try_join3};
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

use super::table::{self, Family};
use super::text::Text;
use crate::error::chain;
use crate::queue::counts::Counts;
use crate::queue::info::Info;
use crate::queue::orphans::Patrol;
use crate::queue::{Queue, QueueError};

/// How old a reading may be.
const CACHED: Duration = Duration::from_secs(1);
/// How long Redis may take; far below the 10 s after which Prometheus gives up on all metrics.
const TIMEOUT: Duration = Duration::from_secs(3);

/// Reads what Redis says of some queues. Cheap to clone; all clones share one reading.
#[derive(Clone, Debug)]
pub struct QueueReadings {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    queues: Vec<Queue>,
    /// Held while Redis is asked: who comes meanwhile waits for that answer.
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    patrols: Vec<Patrol>,
    latest: Option<(Instant, Reading)>,
}

/// What Redis said at one time; the lists are in the order of the queues.
#[derive(Clone, Debug)]
struct Reading {
    counts: Arc<[Counts]>,
    orphans: Arc<[u64]>,
    server: Arc<Info>,
}

impl QueueReadings {
    /// Readings of these queues, which are all on one Redis.
    pub fn new(queues: impl IntoIterator<Item = Queue>) -> Self {
        let queues: Vec<Queue> = queues.into_iter().collect();
        let patrols = queues.iter().cloned().map(Patrol::new).collect();
        Self { inner: Arc::new(Inner { queues, state: Mutex::new(State { patrols, latest: None }) }) }
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
        Ok(self.reading().await?.counts)
    }

    async fn reading(&self) -> Result<Reading, QueueError> {
        let mut state = self.inner.state.lock().await;
        if let Some((at, reading)) = &state.latest
            && at.elapsed() < CACHED
        {
            return Ok(reading.clone());
        }
        state.latest = None;
        let server = async {
            match self.inner.queues.first() {
                Some(queue) => queue.redis().info().await,
                None => Ok(Info::default()),
            }
        };
        let counts = try_join_all(self.inner.queues.iter().map(Queue::counts));
        let orphans = try_join_all(state.patrols.iter_mut().map(Patrol::turn));
        let (counts, orphans, server) = try_join3(counts, orphans, server).await?;
        let reading = Reading { counts: counts.into(), orphans: orphans.into(), server: Arc::new(server) };
        state.latest = Some((Instant::now(), reading.clone()));
        Ok(reading)
    }

    pub(super) async fn render(&self) -> String {
        let mut text = Text::default();
        let reading = match timeout(TIMEOUT, self.reading()).await {
            Ok(Ok(reading)) => Some(reading),
            Ok(Err(error)) => {
                tracing::warn!(error = %chain(&error), "Redis did not say the numbers of the queues; /metrics lacks them");
                None
            }
            Err(_) => {
                tracing::warn!("Redis did not say the numbers of the queues within {TIMEOUT:?}; /metrics lacks them");
                None
            }
        };
        text.family(table::REDIS_UP).sample(&[], u8::from(reading.is_some()));
        if let Some(reading) = reading {
            let names: Vec<&str> = self.inner.queues.iter().map(Queue::name).collect();
            render(&mut text, &names, &reading);
        }
        text.into_string()
    }
}

fn render(text: &mut Text, names: &[&str], reading: &Reading) {
    let queues: Vec<(&str, &Counts)> = names.iter().copied().zip(reading.counts.iter()).collect();
    let mut states = text.family(table::JOB_COUNT);
    for (queue, counts) in &queues {
        for (state, n) in counts.by_state() {
            states.sample(&[queue, state], n);
        }
    }
    let mut each = |family: Family, value: &dyn Fn(&Counts) -> f64| {
        let mut samples = text.family(family);
        for (queue, counts) in &queues {
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
    each(table::STREAM_ENTRIES, &|counts| counts.stream_entries as f64);
    each(table::PENDING_ENTRIES, &|counts| counts.active as f64);
    each(table::PARKED, &|counts| counts.parked as f64);
    each(table::DELAYED_JOBS, &|counts| counts.delayed as f64);
    each(table::PROMOTE_LAG, &|counts| counts.promote_lateness.as_secs_f64());
    each(table::SCHEDULE_LAG, &|counts| counts.schedule_lateness.as_secs_f64());
    each(table::DEAD_LETTERS, &|counts| counts.failed as f64);
    each(table::RETRIES, &|counts| total(counts, "retried"));
    each(table::STALLS, &|counts| total(counts, "stalled"));
    each(table::REDRIVEN, &|counts| total(counts, "redriven"));
    each(table::DISCARDED, &|counts| total(counts, "discarded"));
    each(table::LOSSES, &|counts| total(counts, "losses"));
    let mut orphans = text.family(table::ORPHANS);
    for (queue, orphans_of_it) in names.iter().zip(reading.orphans.iter()) {
        orphans.sample(&[queue], orphans_of_it);
    }
    let server = &reading.server;
    text.family(table::REDIS_MEMORY_USED).sample(&[], server.used_memory_bytes());
    text.family(table::REDIS_MEMORY_MAX).sample(&[], server.maxmemory_bytes());
    text.family(table::REDIS_MAY_EVICT).sample(&[], u8::from(server.may_evict()));
    text.family(table::REDIS_EVICTED).sample(&[], server.evicted_keys());
    text.family(table::REDIS_PERSISTENCE_FAILED).sample(&[], u8::from(server.last_write_failed()));
    text.family(table::REDIS_COMMANDS).sample(&[], server.commands());
    text.family(table::REDIS_CLIENTS).sample(&[], server.clients());
    let mut enqueued = text.family(table::ENQUEUED);
    for (queue, counts) in &queues {
        for (result, name) in [
            ("enqueued", "enqueued"),
            ("changed", "changed"),
            ("duplicate", "duplicates"),
            ("deduplicated", "deduplicated"),
        ] {
            enqueued.sample(&[queue, result], total(counts, name));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::table::{FAMILIES, Whose};
    use super::*;

    fn reading<const N: usize>(counts: [Counts; N]) -> Reading {
        Reading { counts: counts.into(), orphans: [0; N].into(), server: Arc::default() }
    }

    #[test]
    fn every_family_that_is_read_from_redis_is_written_once_for_all_queues() {
        let mut text = Text::default();
        text.family(table::REDIS_UP).sample(&[], 1);
        render(&mut text, &["a", "b"], &reading([Counts::default(), Counts::default()]));
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
        render(&mut text, &["a"], &reading([counts]));
        let text = text.into_string();
        assert!(text.contains("\nbullmq_jobs_processed_total{queue=\"a\"} 4000000001\n"));
        assert!(text.contains("\nfeedmill_oldest_waiting_age_seconds{queue=\"a\"} 1.5\n"));
    }
}
