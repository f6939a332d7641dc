//! The dispatcher: reads while there is room, fills the buffer, and starts flights.
//!
//! ```text
//!   Reading ──entries──▶ LookUps ──jobs──▶ Dispatcher: buffer ──batch──▶ flight, at most `concurrency` at once
//! ```

use std::sync::Arc;
use std::time::Duration;

use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use super::buffer::Buffer;
use super::flight::{Gate, fly};
use super::odd_entries::{self, OddEntry};
use super::reading::{LookUps, READ_PAUSE, Reading, UNBLOCK_INTERVAL};
use super::settler::{Endings, Settler};
use super::{Handler, Parts};
use crate::error::chain;
use crate::queue::QueueError;
use crate::queue::look_up::Delivered;
use crate::queue::read::{BLOCK_MAX, Entry};
use crate::queue::scripts::JOBS_PER_CALL_MAX;

/// How long a busy worker waits, after a read, for the next one to be worth its call: a read or a settle costs Redis little
/// more for many jobs than for one.
const GATHER_TIME: Duration = Duration::from_millis(1);
/// Part of the slots that must be free for a read that does not wait.
const GATHERED_PART: usize = 4;
/// Reads whose jobs may be looked up at once: while one is, Redis carries out the next.
const LOOK_UPS_MAX: usize = 2;
/// Jobs of one read. What is being looked up is as much as one call may carry, since nobody knows yet how large it is.
const READ_JOBS_MAX: usize = JOBS_PER_CALL_MAX / LOOK_UPS_MAX;
/// Jobs of the first read.
const FIRST_READ_JOBS: usize = 64;
/// Reads whose entries may still be adopted or buried while more is read: they hold no room of the buffer.
const ODD_READS_MAX: usize = 4;
/// How long the end of a worker waits, beyond `shutdown_timeout`, for Redis to take the last settles.
const LAST_SETTLE_TIMEOUT: Duration = Duration::from_secs(1);

/// A worker that ended, or was dropped, has nothing in hand.
struct AtRestWhenDropped(Arc<Parts>);

impl Drop for AtRestWhenDropped {
    fn drop(&mut self) {
        self.0.control.set_at_rest(true);
    }
}

pub(super) struct Dispatcher<H> {
    parts: Arc<Parts>,
    handler: Arc<H>,
    look_ups: LookUps,
    buffer: Buffer,
    flights: JoinSet<()>,
    gate: Gate,
    /// Reads whose entries were not all jobs.
    odd: JoinSet<()>,
    /// The last read brought less than it asked for: nothing more waits just now.
    is_drained: bool,
    /// When the last read came back.
    read_at: Instant,
    /// Size of the larger jobs of late: how many fit into what is left of `buffer_bytes`.
    job_bytes: usize,
}

impl<H: Handler> Dispatcher<H> {
    pub(super) fn new(parts: Arc<Parts>, handler: Arc<H>) -> Self {
        let buffer = Buffer::new(parts.options.batch_size, parts.options.flush);
        // The first read knows nothing about sizes and asks for little.
        let job_bytes = parts.options.buffer_bytes.div_ceil(FIRST_READ_JOBS);
        Self {
            parts,
            handler,
            look_ups: LookUps::default(),
            buffer,
            flights: JoinSet::new(),
            gate: Gate::open(),
            odd: JoinSet::new(),
            is_drained: true,
            read_at: Instant::now(),
            job_bytes,
        }
    }

    /// Runs until `shutdown`, and then until nothing is held or `shutdown_timeout` is over.
    pub(super) async fn run(mut self, shutdown: &CancellationToken) {
        let mut reading = Reading::spawn(&self.parts.queue, &self.parts.consumer.name);
        let settler = Settler::spawn(&self.parts);
        let endings = settler.endings();
        let mut gate_changes = self.gate.changes();
        let mut wanted = self.parts.control.changes();
        let _at_rest_when_ended = AtRestWhenDropped(self.parts.clone());
        let mut deadline = None;
        loop {
            let is_ending = deadline.is_some();
            let reads = !is_ending && !self.parts.control.wanted().is_paused;
            self.start_flights(&endings, !reads);
            let has_none = !reading.is_busy
                && self.look_ups.is_empty()
                && self.buffer.is_empty()
                && self.flights.is_empty()
                && self.odd.is_empty();
            self.parts.control.set_at_rest(has_none && !reads && self.parts.leases.totals().0 == 0);
            if reads {
                self.request_read(&mut reading).await;
            } else if has_none && is_ending {
                drop(endings);
                // What Redis does not take in time is pending, and is given back or claimed.
                let _ = timeout_at(deadline.unwrap_or_else(far_future) + LAST_SETTLE_TIMEOUT, settler.end()).await;
                return;
            }
            let gathered_at =
                self.is_gathering().then(|| self.read_at + GATHER_TIME).filter(|_| reads && !reading.is_busy);
            let can_start = self.flights.len() < self.concurrency();
            let flush_at = self.buffer.flush_at().filter(|_| can_start).unwrap_or_else(far_future);
            tokio::select! {
                () = shutdown.cancelled(), if !is_ending => {
                    deadline = Some(Instant::now() + self.parts.options.shutdown_timeout);
                    reading.unblock();
                }
                () = sleep_until(deadline.unwrap_or_else(far_future)) => {
                    tracing::warn!(
                        queue = %self.parts.queue.name(), jobs = self.parts.leases.totals().0,
                        "shutdown_timeout is over; what is not through is given back"
                    );
                    self.flights.shutdown().await;
                    self.odd.shutdown().await;
                    reading.end(&self.parts, self.look_ups).await;
                    drop(endings);
                    let _ = timeout(LAST_SETTLE_TIMEOUT, settler.end()).await;
                    return;
                }
                () = sleep(UNBLOCK_INTERVAL), if !reads && reading.is_busy => reading.unblock(),
                // fails only without a sender, and the parts hold one
                _ = wanted.changed() => reading.unblock(),
                read = reading.replies.recv(), if reading.is_busy => {
                    reading.is_busy = false;
                    if let Some((count, reply)) = read {
                        self.look_up(count, reply);
                    } else {
                        tracing::error!(queue = %self.parts.queue.name(), "the reading task panicked and is started anew");
                        reading = Reading::spawn(&self.parts.queue, &self.parts.consumer.name);
                    }
                }
                looked_up = self.look_ups.next(), if !self.look_ups.is_empty() => self.take_in(looked_up),
                Some(flown) = self.flights.join_next(), if !self.flights.is_empty() => {
                    landed(flown);
                    // Under load many land at once.
                    while let Some(flown) = self.flights.try_join_next() {
                        landed(flown);
                    }
                }
                () = self.parts.settled.notified() => reading.unblocker.room_made(),
                Some(dealt) = self.odd.join_next(), if !self.odd.is_empty() => {
                    if let Err(error) = dealt {
                        tracing::error!(%error, "entries that are no jobs were left; they are claimed after lock_duration");
                    }
                }
                // fails only without a sender, and the gate is one
                _ = gate_changes.changed() => {}
                () = sleep_until(flush_at) => {}
                () = sleep_until(gathered_at.unwrap_or_else(far_future)) => {}
            }
        }
    }

    fn concurrency(&self) -> usize {
        self.parts.control.wanted().concurrency
    }

    /// Starts what is due, as far as slots are free. Nothing more comes when the worker ends, or is paused.
    fn start_flights(&mut self, endings: &Endings, nothing_comes: bool) {
        while self.flights.len() < self.concurrency() {
            let no_more = self.look_ups.is_empty() && (nothing_comes || self.is_drained || self.room() == 0);
            let Some(mut batch) = self.buffer.take_due(Instant::now(), no_more) else {
                return;
            };
            // What was lost while it waited is somebody else's now.
            batch.retain(|delivery| self.parts.leases.is_held(&delivery.lease));
            if !batch.is_empty() {
                let (parts, handler, gate) = (self.parts.clone(), self.handler.clone(), self.gate.clone());
                self.flights.spawn(fly(parts, handler, gate, endings.clone(), batch));
            }
        }
    }

    /// How many more jobs may be held.
    fn room(&self) -> usize {
        let options = &self.parts.options;
        let (jobs, settling, bytes) = self.parts.leases.loads();
        let free_bytes = options.buffer_bytes.saturating_sub(bytes);
        let fitting = if free_bytes == 0 { 0 } else { free_bytes.div_ceil(self.job_bytes.max(1)) };
        let held_max = self.slots();
        // What is through and waits for Redis takes no slot, but must not pile up either.
        if settling >= held_max {
            return 0;
        }
        held_max.saturating_sub(jobs).min(fitting).saturating_sub(self.look_ups.jobs())
    }

    /// How many jobs a worker may hold, as far as it knows nothing of their sizes.
    fn slots(&self) -> usize {
        self.concurrency() * self.parts.options.batch_size
    }

    /// Whether so few slots are free, so soon after the last read, that it is better to wait for more.
    fn is_gathering(&self) -> bool {
        let room = self.room();
        0 < room && room < (self.slots() / GATHERED_PART).min(JOBS_PER_CALL_MAX) && self.read_at.elapsed() < GATHER_TIME
    }

    async fn request_read(&mut self, reading: &mut Reading) {
        // No read takes all slots: one that did would leave none for the next, which Redis is to carry out meanwhile.
        let count = self.room().min(self.slots().div_ceil(LOOK_UPS_MAX)).min(READ_JOBS_MAX);
        if reading.is_busy
            || self.look_ups.len() >= LOOK_UPS_MAX
            || count == 0
            || self.is_gathering()
            || !self.gate.is_open()
            || self.odd.len() >= ODD_READS_MAX
        {
            return;
        }
        // With jobs in the buffer, or on their way to it, a read does not wait: if nothing more is there, they are flushed.
        let block = (self.buffer.is_empty() && self.look_ups.is_empty()).then_some(BLOCK_MAX);
        if block.is_none() && self.is_drained {
            return; // the buffer waits for a slot; reading goes on when it is empty
        }
        reading.request(count, block).await;
    }

    fn look_up(&mut self, asked: usize, reply: Result<Delivered, QueueError>) {
        self.read_at = Instant::now();
        let delivered = match reply {
            Ok(delivered) => delivered,
            Err(error) => {
                tracing::warn!(
                    queue = %self.parts.queue.name(), error = %chain(&error),
                    "reading failed; trying again in {READ_PAUSE:?}"
                );
                self.is_drained = true;
                return;
            }
        };
        if delivered.held_up {
            self.parts.metrics.held_up.increment(1);
        }
        if delivered.woken {
            self.parts.due_earlier.notify_one();
        }
        self.is_drained = delivered.len() < asked;
        if !delivered.is_empty() {
            self.look_ups.start(&self.parts.queue, delivered);
        }
    }

    fn take_in(&mut self, looked_up: Vec<Entry>) {
        let now = Instant::now();
        let (mut odd, mut largest) = (Vec::new(), 0);
        for entry in looked_up {
            match entry {
                Entry::Job(delivery) => {
                    largest = largest.max(delivery.job.size_bytes());
                    // A group that was created anew delivers once more what is held here.
                    if self.parts.leases.add(&delivery) {
                        self.buffer.push(*delivery, now);
                    }
                }
                Entry::Plain(plain) => odd.push(OddEntry::Plain(plain)),
                Entry::Unreadable(unreadable) => odd.push(OddEntry::Unreadable(unreadable)),
            }
        }
        if largest > 0 {
            // Falls slowly: large and small jobs may take turns.
            self.job_bytes = largest.max(self.job_bytes - self.job_bytes / 4);
        }
        if !odd.is_empty() {
            self.odd.spawn(odd_entries::deal_with(self.parts.clone(), self.handler.clone(), odd));
        }
    }
}

fn landed(flown: Result<(), JoinError>) {
    if let Err(error) = flown
        && error.is_panic()
    {
        tracing::error!(%error, "a flight panicked; its jobs are claimed after lock_duration");
    }
}

fn far_future() -> Instant {
    Instant::now() + Duration::from_hours(24)
}
