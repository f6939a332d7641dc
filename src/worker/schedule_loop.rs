//! The schedule loop: fires the schedulers of a queue when their slots have come.
//!
//! ```text
//!   due? ──plan: which slots get a job, which one is next──▶ fire ──▶ sleep until the next slot ─┐
//!    ▲                                                                                            │
//!    └────────────────────────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! Every [`Worker`](super::Worker) runs one for its queue, and a process may run one alone. Any number may run at once: a
//! slot is fired by whoever comes first ([`crate::queue::schedulers`]), and the next one follows from the definition, so
//! there is nobody whose death ends a schedule. A scheduler that cannot be fired is reported and passed over.
//!
//! Most schedulers are stored with the queue. Those of which nothing is stored are known to the process alone, by its
//! configuration say: it hands them in as [`Configured`].
//!
//! *Crash:* what was fired is a job, what was not is still due.

use std::collections::HashMap;
use std::future;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::error::chain;
use crate::metrics::work::SlotMetrics;
use crate::pulse::Beat;
use crate::queue::schedulers::{Added, DueScheduler, DueSchedulers, Fire, Firing, Rescheduling};
use crate::queue::{Queue, QueueError};

/// Longest sleep: bounds how late a slot is noticed that somebody has set earlier than all that were known, or that Redis
/// has forgotten.
const SLEEP_MAX: Duration = Duration::from_secs(2);
/// Shortest sleep: many schedulers with slots close together are fired in one turn.
const SLEEP_MIN: Duration = Duration::from_millis(50);
/// Pause after a turn that Redis did not answer.
const ERROR_PAUSE: Duration = Duration::from_secs(1);
/// Time between two reports of a scheduler that cannot be fired.
const REPORT_INTERVAL: Duration = Duration::from_mins(10);

/// Schedulers of which nothing is stored, as a process knows them.
pub trait Configured: Send + 'static {
    /// How long after its slot a scheduler is dropped of which nothing is stored and that is not known here either: somebody
    /// else may know it, and would have fired it before. `None`: it is reported and stays.
    const UNKNOWN_KEPT: Option<Duration>;

    /// Makes the schedulers of the queue agree with what is configured, where that is not known to be so. Before each turn.
    ///
    /// # Errors
    /// [`QueueError`]: the turn has failed.
    fn sync(&mut self) -> impl Future<Output = Result<(), QueueError>> + Send;

    /// Ends when the configuration has changed since the last [`Self::sync`].
    fn changed(&mut self) -> impl Future<Output = ()> + Send;

    /// A turn has failed: what Redis was told may be forgotten.
    fn failed(&mut self) {}

    /// How to fire the scheduler of this id at this slot, which has come by `now_ms`; `None` if it is not known here.
    fn firing(&self, id: &str, slot_ms: i64, now_ms: i64) -> Option<Firing>;
}

/// Nothing is configured: all schedulers are stored with the queue.
#[derive(Clone, Copy, Debug, Default)]
pub struct StoredOnly;

impl Configured for StoredOnly {
    const UNKNOWN_KEPT: Option<Duration> = None;

    async fn sync(&mut self) -> Result<(), QueueError> {
        Ok(())
    }

    fn changed(&mut self) -> impl Future<Output = ()> + Send {
        future::pending()
    }

    fn firing(&self, _id: &str, _slot_ms: i64, _now_ms: i64) -> Option<Firing> {
        None
    }
}

/// Fires the schedulers of one queue.
#[derive(Debug)]
pub struct ScheduleLoop<C = StoredOnly> {
    queue: Queue,
    configured: C,
    metrics: SlotMetrics,
    /// Schedulers that cannot be fired, and when that was said last.
    reported: HashMap<String, Instant>,
}

/// What one turn did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fired {
    /// Jobs that were added.
    pub enqueued: usize,
    /// Slots that passed without a job because that of an earlier one lives.
    pub overlapping: usize,
    /// Schedulers that somebody else fired.
    pub fired_by_others: usize,
    /// Schedulers that were dropped because nobody knows them.
    pub dropped: usize,
    /// Schedulers that are due and cannot be fired.
    pub damaged: usize,
    /// Time until the next slot; `None` without any. Zero: more are due.
    pub next_due_in: Option<Duration>,
}

impl ScheduleLoop {
    /// Fires what is stored with this queue.
    pub fn new(queue: Queue) -> Self {
        Self::with(queue, StoredOnly)
    }
}

impl<C: Configured> ScheduleLoop<C> {
    /// Fires what is stored with this queue, and what is configured.
    pub fn with(queue: Queue, configured: C) -> Self {
        Self { metrics: SlotMetrics::new(queue.name()), queue, configured, reported: HashMap::new() }
    }

    /// Fires what is due until `shutdown`. While Redis is away it waits. Says in `beat` that it turns.
    pub async fn run(self, shutdown: CancellationToken, beat: Beat) {
        tracing::info!(queue = %self.queue.name(), "scheduler starts");
        shutdown.run_until_cancelled_owned(Box::pin(self.run_for_ever(beat))).await;
    }

    pub(super) async fn run_for_ever(mut self, beat: Beat) {
        loop {
            beat.turned();
            match self.turn().await {
                Ok(fired) => {
                    let pause = fired.next_due_in.unwrap_or(SLEEP_MAX).clamp(SLEEP_MIN, SLEEP_MAX);
                    tokio::select! {
                        () = sleep(pause) => {}
                        () = self.configured.changed() => {}
                    }
                }
                Err(error) => {
                    self.configured.failed();
                    tracing::warn!(
                        queue = %self.queue.name(), error = %chain(&error),
                        "scheduling failed; trying again in {ERROR_PAUSE:?}"
                    );
                    sleep(ERROR_PAUSE).await;
                }
            }
        }
    }

    async fn turn(&mut self) -> Result<Fired, QueueError> {
        self.configured.sync().await?;
        self.run_once().await
    }

    /// Fires what is due.
    ///
    /// # Errors
    /// [`QueueError::Redis`]; may be repeated.
    pub async fn run_once(&mut self) -> Result<Fired, QueueError> {
        self.reported.retain(|_, reported_at| reported_at.elapsed() < REPORT_INTERVAL);
        let mut fired = Fired::default();
        // Those that stay due stand in front of the others: they are passed over, or they would hold them up.
        let mut passed_over = 0;
        loop {
            let page = self.queue.due_schedulers(passed_over).await?;
            passed_over += self.fire(&page, &mut fired).await?;
            if page.next_due_in != Some(Duration::ZERO) || page.due.is_empty() {
                fired.next_due_in = fired.next_due_in.into_iter().chain(page.next_due_in).min();
                return Ok(fired);
            }
        }
    }

    /// Fires a page of what is due. Returns how many of them are due still.
    async fn fire(&mut self, page: &DueSchedulers, fired: &mut Fired) -> Result<usize, QueueError> {
        let now_ms = page.now_ms;
        let (mut firings, mut unknown, mut still_due) = (Vec::new(), Vec::new(), 0);
        for due in &page.due {
            match self.judge(due, now_ms) {
                Ok(firing) => firings.push(firing),
                Err(_) if due.stored.is_none() && is_over(C::UNKNOWN_KEPT, now_ms - due.slot_ms) => {
                    unknown.push(Rescheduling { id: &due.id, believed_ms: Some(due.slot_ms), slot_ms: None });
                }
                // Somebody who knows it may be about to fire it.
                Err(_) if due.stored.is_none() && C::UNKNOWN_KEPT.is_some() => still_due += 1,
                Err(reason) => {
                    fired.damaged += 1;
                    still_due += 1;
                    self.report(&due.id, &reason);
                }
            }
        }
        for (fire, firing) in self.queue.fire(&firings).await?.into_iter().zip(&firings) {
            self.count(firing, &fire, now_ms, fired);
            // It has a next slot now, which may be the earliest of all, or have come already.
            let next = firing.next_slot_ms.map(|next| u64::try_from(next - now_ms).unwrap_or(0));
            still_due += usize::from(next == Some(0));
            fired.next_due_in = fired.next_due_in.into_iter().chain(next.map(Duration::from_millis)).min();
        }
        let dropped = self.queue.reschedule(&unknown).await?.moved;
        self.metrics.dropped.increment(dropped as u64);
        fired.dropped += dropped;
        Ok(still_due)
    }

    /// How to fire it, or why that is not possible.
    fn judge(&self, due: &DueScheduler, now_ms: i64) -> Result<Firing, String> {
        match &due.stored {
            Some(stored) => match &stored.definition {
                Ok(definition) => Ok(Firing::of_stored(due, definition, stored, now_ms)),
                Err(reason) => Err(reason.clone()),
            },
            None => {
                self.configured.firing(&due.id, due.slot_ms, now_ms).ok_or_else(|| "nothing is stored of it".to_owned())
            }
        }
    }

    fn report(&mut self, id: &str, reason: &str) {
        if self.reported.insert(id.to_owned(), Instant::now()).is_none() {
            tracing::error!(
                queue = %self.queue.name(), scheduler = %id,
                "scheduler {id} cannot be fired: {reason}; upsert it anew or remove it"
            );
        }
    }

    /// Counts what became of a firing, and says it.
    fn count(&self, firing: &Firing, fire: &Fire, now_ms: i64, fired: &mut Fired) {
        let queue = self.queue.name();
        let Fire::Fired(added) = fire else {
            fired.fired_by_others += 1;
            return;
        };
        for (added, (slot_ms, job)) in added.iter().zip(&firing.jobs) {
            let (scheduler, late_ms) = (&firing.id, now_ms - slot_ms);
            match added {
                Added::Enqueued => {
                    fired.enqueued += 1;
                    self.metrics.fired.increment(1);
                    self.metrics.late(Duration::from_millis(u64::try_from(late_ms).unwrap_or(0)));
                    tracing::debug!(%queue, %scheduler, slot_ms, late_ms, "scheduler {scheduler} fired: job {job} waits");
                }
                Added::Duplicate => {
                    fired.overlapping += 1;
                    self.metrics.overlapped.increment(1);
                    tracing::debug!(
                        %queue, %scheduler, slot_ms, late_ms,
                        "scheduler {scheduler} is due and its job {job} lives still: this slot passes"
                    );
                }
                Added::Refused => {
                    self.metrics.refused.increment(1);
                    tracing::error!(
                        %queue, %scheduler,
                        "the key of job {job} of scheduler {scheduler} holds something else; delete it, or the job is not added"
                    );
                }
                Added::OverLimit => {}
            }
        }
        if firing.is_last(added) {
            tracing::info!(%queue, scheduler = %firing.id, "scheduler {} is through and was removed", firing.id);
        }
    }
}

/// Whether so many ms are over what is kept.
fn is_over(kept: Option<Duration>, ms: i64) -> bool {
    kept.is_some_and(|kept| ms >= kept.as_millis() as i64)
}
