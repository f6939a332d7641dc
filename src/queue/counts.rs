//! Counts jobs by state, in the time of a look-up however many there are.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use super::consumers::HEARTBEAT_LIFETIME;
use super::scripts::{self, JOBS_PER_CALL_MAX, element};
use super::{Queue, QueueError, millis};

/// The score of a job with a priority is that times this, plus its arrival; as in `scripts/placing.lua`.
const PRIORITY_STEP: u64 = 1 << 32;

/// Numbers in front of the counters in the reply of the script.
const FIXED: usize = 13;

/// Counters of a queue that only grow.
pub const TOTALS: [&str; 12] = [
    "enqueued",
    "changed",
    "duplicates",
    "deduplicated",
    "completed",
    "retried",
    "failed",
    "stalled",
    "redriven",
    "discarded",
    "removed",
    "losses",
];

/// Jobs by state, with BullMQ's names, and what happened since the queue exists.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Counts {
    /// Delivered, not settled.
    pub active: u64,
    /// Finished jobs that are kept.
    pub completed: u64,
    /// In the backoff zset.
    pub delayed: u64,
    /// Dead letters.
    pub failed: u64,
    /// Always 0: a paused queue keeps its jobs waiting.
    pub paused: u64,
    /// Jobs with a priority that wait.
    pub prioritized: u64,
    /// In the stream, not delivered, or parked while their group has no room there.
    pub waiting: u64,
    /// Always 0: there are no flows.
    pub waiting_children: u64,
    /// Those of the waiting that are parked: their group has as many jobs in the stream as it may.
    #[serde(skip)]
    pub parked: u64,
    /// Whether the queue is paused.
    #[serde(skip)]
    pub is_paused: bool,
    /// Consumers with a live heartbeat.
    #[serde(skip)]
    pub consumers_alive: u64,
    /// How long the job at the front has been waiting there, by the clock of Redis, to the millisecond; `None` when none
    /// waits. A job that came back (retried, stalled, given back) waits anew.
    #[serde(skip)]
    pub oldest_waiting: Option<Duration>,
    /// Entries in the two work streams: waiting ones that are not parked, active ones, and orphans.
    #[serde(skip)]
    pub stream_entries: u64,
    /// How long the earliest delayed job has been due, by the clock of Redis; zero when none is late.
    #[serde(skip)]
    pub promote_lateness: Duration,
    /// How long ago the earliest slot of a scheduler that was not fired yet came; zero when none is late.
    #[serde(skip)]
    pub schedule_lateness: Duration,
    /// Counters that only grow; see [`TOTALS`].
    #[serde(skip)]
    pub totals: BTreeMap<String, u64>,
}

impl Counts {
    /// States and counts in BullMQ's order.
    pub fn by_state(&self) -> [(&'static str, u64); 8] {
        [
            ("active", self.active),
            ("completed", self.completed),
            ("delayed", self.delayed),
            ("failed", self.failed),
            ("paused", self.paused),
            ("prioritized", self.prioritized),
            ("waiting", self.waiting),
            ("waiting-children", self.waiting_children),
        ]
    }

    /// Whether no job is left that somebody works on or will work on.
    pub fn is_idle(&self) -> bool {
        self.active == 0 && self.delayed == 0 && self.waiting == 0 && self.prioritized == 0
    }
}

impl Queue {
    /// How many jobs wait with each of these priorities, in their order; priority 0 stands for jobs without one, which are
    /// `waiting`.
    ///
    /// # Errors
    /// [`QueueError::Redis`].
    pub async fn counts_per_priority(&self, priorities: &[u32]) -> Result<Vec<u64>, QueueError> {
        let mut counts = Vec::with_capacity(priorities.len());
        for piece in priorities.chunks(JOBS_PER_CALL_MAX) {
            let mut pipeline = redis::pipe();
            for priority in piece {
                let first = u64::from(*priority) * PRIORITY_STEP;
                let range = (first.to_string(), format!("({}", first + PRIORITY_STEP));
                pipeline.zcount(self.keys().prioritized(), range.0, range.1);
            }
            let counted = pipeline.query_async::<Vec<u64>>(&mut self.connection()).await;
            counts.extend(counted.map_err(|cause| QueueError::from_redis("ZCOUNT", cause))?);
        }
        if priorities.contains(&0) {
            let waiting = self.counts().await?.waiting;
            let of_none = counts.iter_mut().zip(priorities).filter(|(_, priority)| **priority == 0);
            of_none.for_each(|(count, _)| *count = waiting);
        }
        Ok(counts)
    }

    /// Counts at one instant.
    ///
    /// # Errors
    /// [`QueueError::Redis`].
    pub async fn counts(&self) -> Result<Counts, QueueError> {
        let mut call = self.moving(&scripts::COUNTS, [self.keys().consumers(), self.keys().schedulers()]);
        call.arg(millis(HEARTBEAT_LIFETIME));
        let (script, mut elements) = call.run(&mut self.connection()).await?.array()?;
        if elements.len() < FIXED {
            return Err(QueueError::Reply { script: script.name, detail: format!("fewer than {FIXED} elements") });
        }
        let mut counts = Counts::default();
        let fields = elements.split_off(FIXED).into_iter().map(|field| element::<Vec<u8>>(script, field));
        let fields = fields.collect::<Result<Vec<_>, _>>()?;
        for pair in fields.chunks_exact(2) {
            let name = String::from_utf8_lossy(&pair[0]).into_owned();
            match (name.as_str(), std::str::from_utf8(&pair[1]).ok().and_then(|text| text.parse().ok())) {
                ("paused", _) => counts.is_paused = true,
                (name, Some(total)) if TOTALS.contains(&name) => {
                    counts.totals.insert(name.to_owned(), total);
                }
                _ => {}
            }
        }
        let numbers = elements.into_iter().map(|number| element::<i64>(script, number));
        let numbers = numbers.collect::<Result<Vec<_>, _>>()?;
        let number = |at: usize| u64::try_from(numbers[at]).unwrap_or(0);
        counts.active = number(1) + number(2);
        counts.waiting = number(0).saturating_sub(number(1)) + number(4);
        counts.prioritized = number(3);
        counts.parked = number(4);
        counts.delayed = number(5);
        counts.failed = number(6);
        counts.completed = number(7);
        counts.consumers_alive = number(8);
        counts.stream_entries = number(0) + number(10);
        counts.promote_lateness = Duration::from_millis(number(11));
        counts.schedule_lateness = Duration::from_millis(number(12));
        counts.oldest_waiting = u64::try_from(numbers[9]).ok().map(Duration::from_millis);
        Ok(counts)
    }
}
