//! Fetches feeds when their slot has come.
//!
//! ```text
//!   configured feeds ──sync──▶ scheduler (feed, next slot) ──fire──▶ fetch job, and the slot after
//! ```
//!
//! Any number of processes run this at once. A slot is fired by whoever comes first ([`crate::queue::schedulers`]). A
//! slot that passed while nobody was there is fired once, and then the first one after now is next: nothing is replayed.
//! A feed that is still being fetched at its slot is not fetched twice: that slot passes. A feed that was never fetched
//! begins at its next slot, so that a thousand new feeds do not start all at once.
//!
//! *Crash:* what was fired is a job, what was not is still due.
//! *Not here:* opening an import. The fetch opens its own, whose id follows from the version of the job, so that firing
//! needs one queue and one step.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::{ConfiguredFeeds, FetchTask};
use crate::error::chain;
use crate::feed::Feed;
use crate::job::{Envelope, JobId};
use crate::metrics::work::SlotMetrics;
use crate::pulse::Beat;
use crate::queue::schedulers::{DueSchedulers, Fire, Firing, Rescheduling};
use crate::queue::{Queue, QueueError};

/// Longest sleep: bounds how late a slot is noticed that another process has set earlier than ours was, or that Redis has
/// forgotten.
const SLEEP_MAX: Duration = Duration::from_secs(10);
/// Shortest sleep: many feeds with slots close together are fired in one turn.
const SLEEP_MIN: Duration = Duration::from_millis(50);
/// Pause after a turn that Redis did not answer.
const ERROR_PAUSE: Duration = Duration::from_secs(1);
/// Time between two looks whether every feed has its scheduler.
const RESTORE_INTERVAL: Duration = Duration::from_mins(1);
/// How long after its slot a scheduler is dropped whose feed we do not have. A process that has the feed fires it before.
const UNKNOWN_KEPT: Duration = Duration::from_mins(1);

/// Fires the schedulers of the configured feeds.
#[derive(Clone, Debug)]
pub struct Scheduler {
    /// Where fetch jobs go, and the schedulers are.
    pub fetch_queue: Queue,
    /// The configured feeds.
    pub feeds: ConfiguredFeeds,
}

/// What one turn did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fired {
    /// Fetch jobs that were added.
    pub enqueued: usize,
    /// Slots that passed because the feed is still being fetched.
    pub still_fetching: usize,
    /// Slots that somebody else fired.
    pub fired_by_others: usize,
    /// Schedulers that were dropped because nobody has their feed.
    pub dropped: usize,
    /// How many schedulers there are.
    pub schedulers: usize,
    /// Time until the next slot; `None` without any. Zero: more are due.
    pub next_due_in: Option<Duration>,
}

/// What a [`Scheduler::sync`] changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Synced {
    /// Schedulers that were added, or whose slot is another one now.
    pub set: usize,
    /// Schedulers that were removed because their feed is not configured any more.
    pub removed: usize,
}

/// A feed with a slot that has come.
#[derive(Clone, Debug)]
pub(super) struct DueFeed {
    pub(super) feed: Arc<Feed>,
    slot_ms: i64,
    /// When the slot may be fired.
    from_ms: i64,
}

impl DueFeed {
    /// How to fire it.
    pub(super) fn firing<'a>(&'a self, id: JobId, payload: &'a [u8], now_ms: i64) -> Firing<'a> {
        Firing {
            id,
            envelope: Envelope { payload, ..Envelope::default() },
            priority: 0,
            group: Some(&self.feed.fetch_group),
            slot_ms: self.slot_ms,
            from_ms: self.from_ms,
            next_slot_ms: next_slot_ms(&self.feed, now_ms.max(self.slot_ms)),
        }
    }
}

impl Scheduler {
    /// Keeps the schedulers as the feeds are, and fires what is due, until `shutdown`. While Redis is away it waits. Says in
    /// `beat` that it turns.
    pub async fn run(self, shutdown: CancellationToken, beat: Beat) {
        // Its series are there from now on, however long Redis takes to answer.
        let _series = SlotMetrics::new();
        tracing::info!(queue = %self.fetch_queue.name(), "scheduler starts");
        shutdown.run_until_cancelled_owned(self.run_for_ever(beat)).await;
    }

    async fn run_for_ever(self, beat: Beat) {
        let mut replaced = self.feeds.subscribe();
        let (mut is_synced, mut restore_at) = (false, Instant::now());
        loop {
            beat.turned();
            // Marked before they are read: a replacement in between is seen in the next turn.
            is_synced &= !replaced.has_changed().unwrap_or(false);
            replaced.mark_unchanged();
            match self.turn(&mut is_synced, &mut restore_at).await {
                Ok(fired) => {
                    let pause = fired.next_due_in.unwrap_or(SLEEP_MAX).clamp(SLEEP_MIN, SLEEP_MAX);
                    tokio::select! {
                        () = sleep(pause) => {}
                        _ = replaced.changed() => is_synced = false,
                    }
                }
                Err(error) => {
                    // What Redis has lost meanwhile is put back in the first turn that it answers.
                    restore_at = Instant::now();
                    tracing::warn!(
                        queue = %self.fetch_queue.name(), error = %chain(&error),
                        "scheduling failed; trying again in {ERROR_PAUSE:?}"
                    );
                    sleep(ERROR_PAUSE).await;
                }
            }
        }
    }

    async fn turn(&self, is_synced: &mut bool, restore_at: &mut Instant) -> Result<Fired, QueueError> {
        if !*is_synced {
            let synced = self.sync().await?;
            tracing::info!(
                scheduled = self.scheduled().len(),
                set = synced.set,
                removed = synced.removed,
                "the schedules of the configured feeds are in force"
            );
            *is_synced = true;
        } else if *restore_at <= Instant::now() {
            self.restore().await?;
        } else {
            return self.run_once().await;
        }
        *restore_at = Instant::now() + RESTORE_INTERVAL;
        self.run_once().await
    }

    /// Fires what is due, one call's worth.
    ///
    /// # Errors
    /// [`QueueError::Redis`]; may be repeated.
    pub async fn run_once(&self) -> Result<Fired, QueueError> {
        let DueSchedulers { now_ms, total, next_due_in, due } = self.fetch_queue.due_schedulers().await?;
        let feeds = self.feeds.current();
        let mut fired = Fired { schedulers: total, next_due_in, ..Fired::default() };
        let (mut known, mut unknown) = (Vec::new(), Vec::new());
        for (name, slot_ms) in &due {
            let feed = feeds.get(name).filter(|feed| feed.schedule.is_some());
            match feed.and_then(|feed| Some((feed, JobId::new(name).ok()?))) {
                Some((feed, id)) => {
                    let due = DueFeed { feed: feed.clone(), slot_ms: *slot_ms, from_ms: *slot_ms };
                    let task = FetchTask::scheduled(name).to_json();
                    known.push((due, id, task));
                }
                None if now_ms - slot_ms >= UNKNOWN_KEPT.as_millis() as i64 => {
                    unknown.push(Rescheduling { id: name, believed_ms: Some(*slot_ms), slot_ms: None });
                }
                None => {}
            }
        }
        let metrics = SlotMetrics::new();
        let firings: Vec<Firing<'_>> =
            known.iter().map(|(due, id, task)| due.firing(id.clone(), task, now_ms)).collect();
        for (fire, firing) in self.fetch_queue.fire(&firings).await?.into_iter().zip(&firings) {
            let (feed, late_ms) = (&firing.id, now_ms - firing.slot_ms);
            match fire {
                Fire::Enqueued => {
                    fired.enqueued += 1;
                    metrics.fired.increment(1);
                    tracing::debug!(%feed, slot_ms = firing.slot_ms, late_ms, "feed {feed} is due: its fetch waits");
                }
                Fire::Duplicate => {
                    fired.still_fetching += 1;
                    metrics.overlapped.increment(1);
                    tracing::debug!(
                        %feed, slot_ms = firing.slot_ms, late_ms,
                        "feed {feed} is due and still being fetched: this slot passes"
                    );
                }
                Fire::NotDue => fired.fired_by_others += 1,
                Fire::Refused => {
                    metrics.refused.increment(1);
                    tracing::error!(
                        %feed,
                        "the key of the fetch job of feed {feed} holds something else; delete it, or the feed is not fetched"
                    );
                }
            }
        }
        // Those that were listed have a next slot now, which may be the earliest of all.
        let next = firings.iter().filter_map(|firing| u64::try_from(firing.next_slot_ms? - now_ms).ok());
        fired.next_due_in = fired.next_due_in.into_iter().chain(next.map(Duration::from_millis)).min();
        fired.dropped = self.fetch_queue.reschedule(&unknown).await?;
        metrics.dropped.increment(fired.dropped as u64);
        Ok(fired)
    }

    /// Makes the schedulers agree with the feeds: adds the missing ones with their next slot, moves those whose slot is
    /// not the next one by the feed's schedule, removes those whose feed is gone. A slot that has come is left to be fired.
    ///
    /// Several processes may do this at once, while others fire: what they change in between is left alone.
    ///
    /// # Errors
    /// [`QueueError::Redis`]; may be repeated.
    pub async fn sync(&self) -> Result<Synced, QueueError> {
        let scheduled = self.scheduled();
        let names: HashSet<&str> = scheduled.iter().map(|feed| feed.name.as_str()).collect();
        let others: Vec<(String, i64)> =
            self.fetch_queue.schedulers().await?.into_iter().filter(|(id, _)| !names.contains(id.as_str())).collect();
        let removals: Vec<Rescheduling<'_>> =
            others.iter().map(|(id, slot)| Rescheduling { id, believed_ms: Some(*slot), slot_ms: None }).collect();
        let removed = self.fetch_queue.reschedule(&removals).await?;
        let set = self
            .set_slots(&scheduled, |feed, slot, now| match slot {
                Some(at) if at <= now => slot,
                Some(at) if is_next_but_one(feed, at, now) => slot,
                _ => next_slot_ms(feed, now),
            })
            .await?;
        Ok(Synced { set, removed })
    }

    /// Adds the schedulers that are missing, with their next slot.
    async fn restore(&self) -> Result<(), QueueError> {
        let set = self.set_slots(&self.scheduled(), |feed, slot, now| slot.or_else(|| next_slot_ms(feed, now))).await?;
        if set > 0 {
            tracing::warn!(queue = %self.fetch_queue.name(), set, "{set} feeds were without their scheduler");
        }
        Ok(())
    }

    /// Makes feeds due that were never fetched, or that have no scheduler and a slot since their last fetch: what is
    /// fetched by `fetch --due` alone has nothing that looks at the clock in between.
    ///
    /// # Errors
    /// [`QueueError::Redis`]; may be repeated.
    pub(super) async fn catch_up(&self, import_queue: &Queue) -> Result<(), QueueError> {
        let scheduled = self.scheduled();
        let names: Vec<&str> = scheduled.iter().map(|feed| feed.name.as_str()).collect();
        let last_fetches = import_queue.last_fetches(&names).await?;
        let mut last = last_fetches.into_iter().map(|at| at.and_then(|at| Timestamp::try_from(at).ok()));
        self.set_slots(&scheduled, |feed, slot, now| {
            let last = last.next().flatten();
            let is_due = match slot {
                Some(slot) => slot > now && last.is_none(),
                None => feed.schedule.as_ref().is_some_and(|schedule| schedule.is_due(last, timestamp(now))),
            };
            if is_due { Some(now) } else { slot }
        })
        .await?;
        Ok(())
    }

    /// The feeds with a slot that has come, and the time, ms since 1970. Here a slot counts from its scheduled time, without
    /// the feed's spread.
    ///
    /// # Errors
    /// [`QueueError::Redis`].
    pub(super) async fn due(&self) -> Result<(Vec<DueFeed>, i64), QueueError> {
        let scheduled = self.scheduled();
        let names: Vec<&str> = scheduled.iter().map(|feed| feed.name.as_str()).collect();
        let (slots, now_ms) = self.fetch_queue.scheduler_slots(&names).await?;
        let due = scheduled.iter().zip(slots).filter_map(|(feed, slot)| {
            let slot_ms = slot?;
            // A time that is no slot is that of another schedule, or when the feed was found never fetched.
            let slot = feed.slot_at(timestamp(slot_ms));
            let from_ms = slot.map_or(slot_ms, |slot| slot.scheduled_at.as_millisecond());
            (from_ms <= now_ms).then(|| DueFeed { feed: feed.clone(), slot_ms, from_ms })
        });
        Ok((due.collect(), now_ms))
    }

    /// Gives each feed the slot that `slot` says, from the one it has and the time (ms since 1970).
    async fn set_slots(
        &self,
        feeds: &[Arc<Feed>],
        mut slot: impl FnMut(&Feed, Option<i64>, i64) -> Option<i64>,
    ) -> Result<usize, QueueError> {
        let names: Vec<&str> = feeds.iter().map(|feed| feed.name.as_str()).collect();
        let (slots, now) = self.fetch_queue.scheduler_slots(&names).await?;
        let mut changes = Vec::new();
        for (feed, believed_ms) in feeds.iter().zip(slots) {
            let slot_ms = slot(feed, believed_ms, now);
            if slot_ms != believed_ms {
                changes.push(Rescheduling { id: &feed.name, believed_ms, slot_ms });
            }
        }
        self.fetch_queue.reschedule(&changes).await
    }

    /// The feeds that have a schedule.
    fn scheduled(&self) -> Vec<Arc<Feed>> {
        self.feeds.current().values().filter(|feed| feed.schedule.is_some()).cloned().collect()
    }
}

/// The first slot after this time, both in ms since 1970.
fn next_slot_ms(feed: &Feed, after_ms: i64) -> Option<i64> {
    feed.slot_after(timestamp(after_ms)).map(|slot| slot.due_at.as_millisecond())
}

/// Whether the slot is the one after the next, and the next one may have been fired already: `fetch --due` does not wait
/// for the spread. Both times are ms since 1970.
fn is_next_but_one(feed: &Feed, slot_ms: i64, now_ms: i64) -> bool {
    feed.slot_after(timestamp(now_ms)).is_some_and(|next| {
        next.scheduled_at <= timestamp(now_ms) && next_slot_ms(feed, next.due_at.as_millisecond()) == Some(slot_ms)
    })
}

/// Milliseconds since 1970 as a time; beyond the calendar, its end.
fn timestamp(ms: i64) -> Timestamp {
    Timestamp::from_millisecond(ms).unwrap_or(Timestamp::MAX)
}
