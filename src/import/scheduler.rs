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
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{ConfiguredFeeds, Feeds, FetchTask};
use crate::feed::Feed;
use crate::feed::pace::Hold;
use crate::job::{Envelope, JobId};
use crate::pulse::Beat;
use crate::queue::schedulers::{Firing, Rescheduled, Rescheduling, Work};
use crate::queue::{Queue, QueueError};
use crate::schedule::timestamp;
use crate::worker::ScheduleLoop;
use crate::worker::schedule_loop::{Configured, Fired};

/// Time between two looks whether every feed has its scheduler.
const RESTORE_INTERVAL: Duration = Duration::from_mins(1);

/// Keeps the schedulers of the configured feeds, and fires them.
#[derive(Clone, Debug)]
pub struct Scheduler {
    /// Where fetch jobs go, and the schedulers are.
    pub fetch_queue: Queue,
    /// Where it is remembered what holds feeds back from their schedule.
    pub import_queue: Queue,
    /// The configured feeds.
    pub feeds: ConfiguredFeeds,
}

/// The schedulers of the feeds, as the loop that fires them knows them.
struct FeedSchedulers {
    scheduler: Scheduler,
    replaced: watch::Receiver<Feeds>,
    is_synced: bool,
    restore_at: Instant,
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
    /// How to fire it, with a fetch job of this payload.
    pub(super) fn firing(&self, id: JobId, payload: &[u8], now_ms: i64) -> Firing {
        let mut envelope = Vec::new();
        Envelope { payload, ..Envelope::default() }.encode_into(&mut envelope);
        Firing {
            id: self.feed.name.clone(),
            slot_ms: self.slot_ms,
            from_ms: self.from_ms,
            next_slot_ms: next_slot_ms(&self.feed, now_ms.max(self.slot_ms)),
            work: Work::Given { envelope, group: Some(self.feed.fetch_group.clone()) },
            jobs: vec![(self.slot_ms, id)],
        }
    }
}

impl Configured for FeedSchedulers {
    /// A process that has the feed fires it before.
    const UNKNOWN_KEPT: Option<Duration> = Some(Duration::from_mins(1));

    async fn sync(&mut self) -> Result<(), QueueError> {
        // Marked before they are read: a replacement in between is seen in the next turn.
        self.is_synced &= !self.replaced.has_changed().unwrap_or(false);
        self.replaced.mark_unchanged();
        let scheduler = &self.scheduler;
        if !self.is_synced {
            let synced = scheduler.sync().await?;
            tracing::info!(
                scheduled = scheduler.scheduled().len(),
                set = synced.set,
                removed = synced.removed,
                "the schedules of the configured feeds are in force"
            );
            self.is_synced = true;
        } else if self.restore_at <= Instant::now() {
            scheduler.restore().await?;
        } else {
            return Ok(());
        }
        self.restore_at = Instant::now() + RESTORE_INTERVAL;
        Ok(())
    }

    async fn changed(&mut self) {
        if self.replaced.changed().await.is_ok() {
            self.is_synced = false;
        }
    }

    fn failed(&mut self) {
        // What Redis has lost meanwhile is put back in the first turn that it answers.
        self.restore_at = Instant::now();
    }

    fn firing(&self, id: &str, slot_ms: i64, now_ms: i64) -> Option<Firing> {
        let feed = self.scheduler.feeds.find(id).filter(|feed| feed.schedule.is_some())?;
        let job = JobId::new(id).ok()?;
        let due = DueFeed { feed, slot_ms, from_ms: slot_ms };
        Some(due.firing(job, &FetchTask::scheduled(id).to_json(), now_ms))
    }
}

impl Scheduler {
    /// Keeps the schedulers as the feeds are, and fires what is due, stored schedulers of the fetch queue too, until
    /// `shutdown`. While Redis is away it waits. Says in `beat` that it turns.
    pub async fn run(self, shutdown: CancellationToken, beat: Beat) {
        self.into_loop().run(shutdown, beat).await;
    }

    /// Fires what is due.
    ///
    /// # Errors
    /// [`QueueError::Redis`]; may be repeated.
    pub async fn run_once(&self) -> Result<Fired, QueueError> {
        self.clone().into_loop().run_once().await
    }

    fn into_loop(self) -> ScheduleLoop<impl Configured> {
        let replaced = self.feeds.subscribe();
        let queue = self.fetch_queue.clone();
        let feeds = FeedSchedulers { scheduler: self, replaced, is_synced: false, restore_at: Instant::now() };
        ScheduleLoop::with(queue, feeds)
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
        let removed = self.fetch_queue.reschedule(&removals).await?.moved;
        let set = self
            .set_slots(&scheduled, |feed, hold, slot, now| match slot {
                _ if hold == Hold::Stopped => None,
                Some(at) if at <= now => slot,
                Some(at) if !is_held(hold, now) && is_next_but_one(feed, at, now) => slot,
                _ => held_slot_ms(feed, now, hold),
            })
            .await?;
        Ok(Synced { set, removed })
    }

    /// Adds the schedulers that are missing, with their next slot.
    async fn restore(&self) -> Result<(), QueueError> {
        let set = self
            .set_slots(&self.scheduled(), |feed, hold, slot, now| slot.or_else(|| held_slot_ms(feed, now, hold)))
            .await?;
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
    pub(super) async fn catch_up(&self) -> Result<(), QueueError> {
        let scheduled = self.scheduled();
        let names: Vec<&str> = scheduled.iter().map(|feed| feed.name.as_str()).collect();
        let last_fetches = self.import_queue.last_fetches(&names).await?;
        let mut last = last_fetches.into_iter().map(|at| at.and_then(|at| Timestamp::try_from(at).ok()));
        self.set_slots(&scheduled, |feed, hold, slot, now| {
            let last = last.next().flatten();
            let is_due = match slot {
                _ if is_held(hold, now) => false,
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

    /// Gives each feed the slot that `slot` says, from what holds it back, the slot it has and the time (ms since 1970).
    async fn set_slots(
        &self,
        feeds: &[Arc<Feed>],
        mut slot: impl FnMut(&Feed, Hold, Option<i64>, i64) -> Option<i64>,
    ) -> Result<usize, QueueError> {
        let names: Vec<&str> = feeds.iter().map(|feed| feed.name.as_str()).collect();
        let holds = self.import_queue.holds(&names).await?;
        let (slots, now) = self.fetch_queue.scheduler_slots(&names).await?;
        let mut changes = Vec::new();
        for ((feed, hold), believed_ms) in feeds.iter().zip(holds).zip(slots) {
            let slot_ms = slot(feed, hold.parse().unwrap_or_default(), believed_ms, now);
            if slot_ms != believed_ms {
                changes.push(Rescheduling { id: &feed.name, believed_ms, slot_ms });
            }
        }
        let Rescheduled { moved, stored } = self.fetch_queue.reschedule(&changes).await?;
        for feed in stored {
            tracing::warn!(
                queue = %self.fetch_queue.name(), %feed,
                "feed {feed} is not fetched by its schedule: a stored scheduler has its name; remove one of the two"
            );
        }
        Ok(moved)
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

/// The same, with what holds the feed back.
fn held_slot_ms(feed: &Feed, after_ms: i64, hold: Hold) -> Option<i64> {
    feed.due_after(timestamp(after_ms), hold).map(Timestamp::as_millisecond)
}

fn is_held(hold: Hold, now_ms: i64) -> bool {
    match hold {
        Hold::None => false,
        Hold::Until(end) => end > timestamp(now_ms),
        Hold::Stopped => true,
    }
}

/// Puts the slot of a feed where its fetch says that it is, as far as nobody moves it meanwhile.
///
/// *Crash before it:* the slot is that of the schedule, or with `"auto"` of its interval to begin with; the fetch that it
/// fires puts it right.
pub(super) async fn hold_back(fetch_queue: &Queue, feed: &Feed, hold: Hold) -> Result<(), QueueError> {
    let (slots, now) = fetch_queue.scheduler_slots(&[&feed.name]).await?;
    let (believed_ms, slot_ms) = (slots.first().copied().flatten(), held_slot_ms(feed, now, hold));
    if believed_ms != slot_ms {
        fetch_queue.reschedule(&[Rescheduling { id: &feed.name, believed_ms, slot_ms }]).await?;
    }
    Ok(())
}

/// Whether the slot is the one after the next, and the next one may have been fired already: `fetch --due` does not wait
/// for the spread. Both times are ms since 1970.
fn is_next_but_one(feed: &Feed, slot_ms: i64, now_ms: i64) -> bool {
    feed.slot_after(timestamp(now_ms)).is_some_and(|next| {
        next.scheduled_at <= timestamp(now_ms) && next_slot_ms(feed, next.due_at.as_millisecond()) == Some(slot_ms)
    })
}
