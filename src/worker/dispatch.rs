//! The dispatcher: reads while there is room, fills the buffer, and starts flights.
//!
//! ```text
//!   Reading (a task of its own: a read is never dropped) ⇄ Dispatcher ──batch──▶ flight, at most `concurrency` at once
//! ```

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::buffer::Buffer;
use super::flight::{Gate, fly};
use super::{Handler, Parts};
use crate::error::chain;
use crate::job::Envelope;
use crate::queue::QueueError;
use crate::queue::read::{Adopted, BLOCK_MAX, Entry, PlainEntry, ReadReply, Reader, Unblocker, UnreadableEntry};
use crate::queue::scripts::JOBS_PER_CALL_MAX;

/// Pause after a failed read, before the connection is made anew.
const READ_PAUSE: Duration = Duration::from_millis(500);
/// How often a blocked read is asked to end while the worker ends: the first request may come just before it blocks.
const UNBLOCK_INTERVAL: Duration = Duration::from_millis(50);

/// What the dispatcher asks of the reading task.
struct ReadRequest {
    count: usize,
    block: Option<Duration>,
}

/// The reading task's ends.
struct Reading {
    requests: mpsc::Sender<ReadRequest>,
    replies: mpsc::Receiver<(usize, Result<ReadReply, QueueError>)>,
    unblocker: Unblocker,
    /// A read is under way.
    is_busy: bool,
}

pub(super) struct Dispatcher<H> {
    parts: Arc<Parts>,
    handler: Arc<H>,
    buffer: Buffer,
    flights: JoinSet<()>,
    gate: Gate,
    /// The last read brought less than it asked for: nothing more waits just now.
    is_drained: bool,
}

impl<H: Handler> Dispatcher<H> {
    pub(super) fn new(parts: Arc<Parts>, handler: Arc<H>) -> Self {
        let buffer = Buffer::new(parts.options.batch_size, parts.options.flush);
        Self { parts, handler, buffer, flights: JoinSet::new(), gate: Gate::open(), is_drained: true }
    }

    /// Runs until `shutdown`, and then until nothing is held or `shutdown_timeout` is over.
    pub(super) async fn run(mut self, shutdown: &CancellationToken) {
        let mut reading = Reading::spawn(self.parts.queue.reader(&self.parts.consumer.name));
        let mut gate_changes = self.gate.changes();
        let mut deadline = None;
        loop {
            let is_ending = deadline.is_some();
            self.start_flights(is_ending);
            if !is_ending {
                self.request_read(&mut reading).await;
            } else if !reading.is_busy && self.buffer.is_empty() && self.flights.is_empty() {
                return;
            }
            let can_start = self.flights.len() < self.parts.options.concurrency;
            let flush_at = self.buffer.flush_at().filter(|_| can_start).unwrap_or_else(far_future);
            tokio::select! {
                () = shutdown.cancelled(), if !is_ending => {
                    deadline = Some(Instant::now() + self.parts.options.shutdown_timeout);
                    reading.unblocker.unblock().await;
                }
                () = sleep_until(deadline.unwrap_or_else(far_future)) => {
                    tracing::warn!(
                        queue = %self.parts.queue.name(), jobs = self.parts.leases.totals().0,
                        "shutdown_timeout is over; what is not through is given back"
                    );
                    self.flights.shutdown().await;
                    return;
                }
                () = sleep(UNBLOCK_INTERVAL), if is_ending && reading.is_busy => reading.unblocker.unblock().await,
                Some((count, reply)) = reading.replies.recv(), if reading.is_busy => {
                    reading.is_busy = false;
                    self.take_in(count, reply).await;
                }
                Some(flown) = self.flights.join_next(), if !self.flights.is_empty() => {
                    if let Err(error) = flown && error.is_panic() {
                        tracing::error!(%error, "a flight panicked; its jobs are claimed after lock_duration");
                    }
                }
                // fails only without a sender, and the gate is one
                _ = gate_changes.changed() => {}
                () = sleep_until(flush_at) => {}
            }
        }
    }

    /// Starts what is due, as far as slots are free.
    fn start_flights(&mut self, is_ending: bool) {
        while self.flights.len() < self.parts.options.concurrency {
            let no_more = is_ending || self.is_drained || self.room() == 0;
            let Some(mut batch) = self.buffer.take_due(Instant::now(), no_more) else {
                return;
            };
            // What was lost while it waited is somebody else's now.
            batch.retain(|delivery| self.parts.leases.is_held(&delivery.lease));
            if !batch.is_empty() {
                self.flights.spawn(fly(self.parts.clone(), self.handler.clone(), self.gate.clone(), batch));
            }
        }
    }

    /// How many more jobs may be held.
    fn room(&self) -> usize {
        let options = &self.parts.options;
        let (jobs, bytes) = self.parts.leases.totals();
        if bytes >= options.buffer_bytes { 0 } else { (options.concurrency * options.batch_size).saturating_sub(jobs) }
    }

    async fn request_read(&mut self, reading: &mut Reading) {
        let room = self.room().min(JOBS_PER_CALL_MAX);
        if reading.is_busy || room == 0 || !self.gate.is_open() {
            return;
        }
        // With jobs in the buffer a read does not wait: if nothing more is there, they are flushed.
        let block = self.buffer.is_empty().then_some(BLOCK_MAX);
        if block.is_none() && self.is_drained {
            return; // the buffer waits for a slot; reading goes on when it is empty
        }
        reading.is_busy = reading.requests.send(ReadRequest { count: room, block }).await.is_ok();
    }

    async fn take_in(&mut self, asked: usize, reply: Result<ReadReply, QueueError>) {
        let read = match reply {
            Ok(read) => read,
            Err(error) => {
                tracing::warn!(
                    queue = %self.parts.queue.name(), error = %chain(&error),
                    "reading failed; trying again in {READ_PAUSE:?}"
                );
                self.is_drained = true;
                return;
            }
        };
        if read.woken {
            self.parts.due_earlier.notify_one();
        }
        self.is_drained = read.entries.len() < asked;
        let now = Instant::now();
        for entry in read.entries {
            match entry {
                Entry::Job(delivery) => {
                    self.parts.leases.add(&delivery);
                    self.buffer.push(*delivery, now);
                }
                Entry::Plain(plain) => self.adopt(plain).await,
                Entry::Unreadable(unreadable) => self.bury(&unreadable).await,
            }
        }
    }

    /// Makes a job of a plain producer's entry, or a dead letter. On an outage the entry stays pending and is claimed.
    async fn adopt(&self, plain: PlainEntry) {
        let refused =
            |plain: PlainEntry, reason| UnreadableEntry { entry: plain.entry, id: None, reason, raw: plain.json };
        let adoption = match self.handler.adopt(&plain.json) {
            Ok(adoption) => adoption,
            Err(reason) => return self.bury(&refused(plain, reason)).await,
        };
        let envelope =
            Envelope { payload: &adoption.payload, fingerprint: adoption.fingerprint, ..Envelope::default() };
        match self.parts.queue.adopt(&plain, &adoption.id, envelope).await {
            // it is read again as any job, by whoever comes first
            Ok(Adopted::Enqueued | Adopted::Changed | Adopted::Duplicate | Adopted::Lost) => {}
            Ok(Adopted::Refused) => {
                let reason = format!("the key of job {} is of another type", adoption.id);
                self.bury(&refused(plain, reason)).await;
            }
            Err(error) => tracing::warn!(
                queue = %self.parts.queue.name(), job.id = %adoption.id, error = %chain(&error),
                "an entry could not be adopted; it is claimed after lock_duration"
            ),
        }
    }

    async fn bury(&self, unreadable: &UnreadableEntry) {
        let queue = self.parts.queue.name();
        match self.parts.queue.bury_entry(&self.parts.consumer.name, unreadable).await {
            Ok(crate::queue::Settled::Settled) => tracing::error!(
                %queue, entry = %unreadable.entry, reason = %unreadable.reason,
                "entry {} is a dead letter now: {}", unreadable.entry, unreadable.reason
            ),
            Ok(_) => {}
            Err(error) => tracing::warn!(
                %queue, entry = %unreadable.entry, error = %chain(&error),
                "an unreadable entry could not be buried; it is claimed after lock_duration"
            ),
        }
    }
}

impl Reading {
    /// Reads on a task of its own, one request at a time, until the dispatcher is gone.
    fn spawn(mut reader: Reader) -> Self {
        let unblocker = reader.unblocker();
        let (requests, mut requested) = mpsc::channel::<ReadRequest>(1);
        let (answers, replies) = mpsc::channel(1);
        tokio::spawn(async move {
            while let Some(request) = requested.recv().await {
                let reply = reader.read(request.count, request.block).await;
                if reply.is_err() {
                    sleep(READ_PAUSE).await;
                }
                if answers.send((request.count, reply)).await.is_err() {
                    return;
                }
            }
        });
        Self { requests, replies, unblocker, is_busy: false }
    }
}

fn far_future() -> Instant {
    Instant::now() + Duration::from_hours(24)
}
