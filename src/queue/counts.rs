//! Counts jobs by state, in the time of a look-up however many there are.

use std::collections::BTreeMap;

use serde::Serialize;

use super::scripts::{self, Call, element};
use super::{GROUP, Queue, QueueError};

/// Jobs by state, with BullMQ's names, and what happened since the queue exists.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Counts {
    /// Delivered, not settled.
    pub active: u64,
    /// Kept finished jobs: none, they are removed.
    pub completed: u64,
    /// In the backoff zset.
    pub delayed: u64,
    /// Dead letters.
    pub failed: u64,
    /// Always 0: a paused queue keeps its jobs waiting.
    pub paused: u64,
    /// Jobs with a priority: none yet.
    pub prioritized: u64,
    /// In the stream, not delivered.
    pub waiting: u64,
    /// Always 0: there are no flows.
    pub waiting_children: u64,
    /// Whether the queue is paused.
    #[serde(skip)]
    pub is_paused: bool,
    /// Counters that only grow: `enqueued`, `changed`, `duplicates`, `completed`, `retried`, `failed`, `stalled`,
    /// `redriven`, `discarded`, `losses`.
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
        self.active == 0 && self.delayed == 0 && self.waiting == 0
    }
}

impl Queue {
    /// Counts at one instant.
    ///
    /// # Errors
    /// [`QueueError::Redis`].
    pub async fn counts(&self) -> Result<Counts, QueueError> {
        let keys = self.keys();
        let mut call =
            Call::new(&scripts::COUNTS, [keys.stream(), keys.delayed(), keys.dead(), keys.meta()].into_iter());
        call.arg(GROUP);
        let (script, mut elements) = call.run(&mut self.connection()).await?.array()?;
        if elements.len() < 4 {
            return Err(QueueError::Reply { script: script.name, detail: "fewer than four elements".to_owned() });
        }
        let mut counts = Counts::default();
        let fields = elements.split_off(4).into_iter().map(|field| element::<Vec<u8>>(script, field));
        let fields = fields.collect::<Result<Vec<_>, _>>()?;
        for pair in fields.chunks_exact(2) {
            let name = String::from_utf8_lossy(&pair[0]).into_owned();
            match (name.as_str(), std::str::from_utf8(&pair[1]).ok().and_then(|text| text.parse().ok())) {
                ("paused", _) => counts.is_paused = true,
                ("last_version" | "last_import" | "had_group" | "lost_at", _) | (_, None) => {}
                (_, Some(total)) => {
                    counts.totals.insert(name, total);
                }
            }
        }
        let numbers = elements.into_iter().map(|number| element::<u64>(script, number));
        let numbers = numbers.collect::<Result<Vec<_>, _>>()?;
        counts.active = numbers[1];
        counts.waiting = numbers[0].saturating_sub(numbers[1]);
        counts.delayed = numbers[2];
        counts.failed = numbers[3];
        Ok(counts)
    }
}
