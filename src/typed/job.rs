//! Jobs as programs make them, and as handlers get them.

use std::time::{Duration, SystemTime};

use tokio_util::sync::CancellationToken;

use crate::job::{JobId, JobOptions, Keep, RetryPolicy};
use crate::queue::enqueue::Deduplication;

/// A job to be added.
#[derive(Clone, Debug)]
pub struct NewJob<T> {
    pub(super) id: Vec<u8>,
    pub(super) data: T,
    pub(super) name: Option<String>,
    pub(super) delay: Duration,
    pub(super) priority: u32,
    pub(super) group: Option<String>,
    pub(super) dedup: Option<Dedup>,
    pub(super) options: JobOptions,
}

/// [`Deduplication`] that owns its id.
#[derive(Clone, Debug)]
pub(super) struct Dedup {
    pub(super) id: String,
    mode: Deduplication<'static>,
}

impl Dedup {
    pub(super) fn as_deduplication(&self) -> Deduplication<'_> {
        Deduplication { id: &self.id, ..self.mode }
    }
}

impl<T> NewJob<T> {
    /// A job with this id, 1 to 4096 bytes of any value, which may start at once.
    pub fn new(id: impl AsRef<[u8]>, data: T) -> Self {
        Self {
            id: id.as_ref().to_vec(),
            data,
            name: None,
            delay: Duration::ZERO,
            priority: 0,
            group: None,
            dedup: None,
            options: JobOptions::default(),
        }
    }

    /// A job with a random id, which is a duplicate of none.
    pub fn anonymous(data: T) -> Self {
        Self::new(format!("{:032x}", fastrand::u128(..)), data)
    }

    /// What kind of work it is, for queues that carry several.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// It may start only after this time.
    #[must_use]
    pub fn delay(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// It may start only from this instant on, by the clock of this process; one that has passed is now.
    #[must_use]
    pub fn run_at(self, at: SystemTime) -> Self {
        self.delay(at.duration_since(SystemTime::now()).unwrap_or_default())
    }

    /// 1 is first, 2,097,151 last. Jobs with a priority start before those without, which is 0.
    #[must_use]
    pub fn priority(mut self, priority: u32) -> Self {
        self.priority = priority;
        self
    }

    /// What it has in common with others, on a queue that limits its groups.
    #[must_use]
    pub fn group(mut self, group: impl Into<String>) -> Self {
        self.group = Some(group.into());
        self
    }

    /// Handlings before it is given up, at least 1. Default: as the worker has it.
    #[must_use]
    pub fn attempts(mut self, attempts: u8) -> Self {
        self.options.attempts = Some(attempts.max(1));
        self
    }

    /// Wait between two of them. Default: as the worker has it.
    #[must_use]
    pub fn backoff(mut self, backoff: RetryPolicy) -> Self {
        self.options.backoff = Some(backoff);
        self
    }

    /// Longest time that one handling may take. Default: as the worker has it.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.options.timeout = Some(timeout);
        self
    }

    /// What becomes of it when it is done. Default: as the worker has it.
    #[must_use]
    pub fn on_complete(mut self, keep: Keep) -> Self {
        self.options.on_complete = Some(keep);
        self
    }

    /// What becomes of it when it has failed for good. Default: as the worker has it.
    #[must_use]
    pub fn on_fail(mut self, keep: Keep) -> Self {
        self.options.on_fail = Some(keep);
        self
    }

    /// Of the jobs with this deduplication id only one is taken in.
    #[must_use]
    pub fn deduplicate(mut self, dedup: Deduplication<'_>) -> Self {
        self.options.dedup = Some(dedup.id.to_owned());
        self.dedup = Some(Dedup { id: dedup.id.to_owned(), mode: Deduplication { id: "", ..dedup } });
        self
    }
}

/// A job that a handler has.
#[derive(Clone, Debug)]
pub struct Job<T> {
    /// Its id.
    pub id: JobId,
    /// What it carries.
    pub data: T,
    /// What kind of work it is.
    pub name: Option<String>,
    /// Which attempt this is, counted from 1.
    pub attempt: u8,
    /// When it was added.
    pub enqueued_at: SystemTime,
    /// Its priority; 0 for none.
    pub priority: u32,
    /// Fires when somebody cancels the job, or takes it over; see [`crate::worker::JobHandler`].
    pub cancelled: CancellationToken,
}
