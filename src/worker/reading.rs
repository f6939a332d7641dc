//! Reading ahead of the dispatcher: one read at a time, while the jobs of earlier ones are looked up.
//!
//! ```text
//!   request ──▶ XREADGROUP ──Delivered──▶ dispatcher ──▶ MGET ──jobs──▶ dispatcher
//!               Reading                                  LookUps
//! ```
//!
//! Both run on tasks of their own, since neither may be dropped midway: what Redis delivered would be held by nobody.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tokio_util::task::AbortOnDropHandle;

use super::Parts;
use crate::error::chain;
use crate::queue::look_up::Delivered;
use crate::queue::read::{Entry, Unblocker};
use crate::queue::{Queue, QueueError};

/// Pause after a read or a look-up that failed.
pub(super) const READ_PAUSE: Duration = Duration::from_millis(500);
/// How often a blocked read is asked to end while nothing is to be read: the first request may come just before it blocks.
pub(super) const UNBLOCK_INTERVAL: Duration = Duration::from_millis(50);
/// How long the end of a worker waits for a read that is asked to end, and for jobs that are being looked up.
const LAST_READ_TIMEOUT: Duration = Duration::from_secs(1);

/// What the dispatcher asks of the reading task.
struct ReadRequest {
    count: usize,
    block: Option<Duration>,
}

/// The reading task's ends.
pub(super) struct Reading {
    requests: mpsc::Sender<ReadRequest>,
    /// How many entries were asked for, and what came.
    pub(super) replies: mpsc::Receiver<(usize, Result<Delivered, QueueError>)>,
    pub(super) unblocker: Unblocker,
    /// A read is under way.
    pub(super) is_busy: bool,
    /// Dropped with a worker that is dropped: the connection goes, and Redis delivers nothing more to nobody.
    _task: AbortOnDropHandle<()>,
}

impl Reading {
    /// Reads on a task of its own, one request at a time, until the dispatcher is gone.
    pub(super) fn spawn(queue: &Queue, consumer: &str) -> Self {
        let mut reader = queue.reader(consumer);
        let unblocker = reader.unblocker();
        let (requests, mut requested) = mpsc::channel::<ReadRequest>(1);
        let (answers, replies) = mpsc::channel(1);
        let task = tokio::spawn(async move {
            while let Some(request) = requested.recv().await {
                let reply = reader.deliver(request.count, request.block).await;
                if reply.is_err() {
                    sleep(READ_PAUSE).await; // before the connection is made anew
                }
                if answers.send((request.count, reply)).await.is_err() {
                    return;
                }
            }
        });
        Self { requests, replies, unblocker, is_busy: false, _task: AbortOnDropHandle::new(task) }
    }

    /// Asks for up to `count` entries; with `block`, the read waits up to that long for the first one.
    pub(super) async fn request(&mut self, count: usize, block: Option<Duration>) {
        self.is_busy = self.requests.send(ReadRequest { count, block }).await.is_ok();
    }

    /// Asks a blocked read to end, on a task of its own: a Redis that hangs must not hang us.
    pub(super) fn unblock(&self) {
        let unblocker = self.unblocker.clone();
        tokio::spawn(async move { timeout(LAST_READ_TIMEOUT, unblocker.unblock()).await });
    }

    /// Ends a read that is under way. What it still brings, and what is being looked up, counts as held, and so is given
    /// back.
    pub(super) async fn end(mut self, parts: &Parts, mut look_ups: LookUps) {
        let ending = async {
            while self.is_busy {
                self.unblock();
                if let Ok(reply) = timeout(UNBLOCK_INTERVAL, self.replies.recv()).await {
                    self.is_busy = false;
                    if let Some((_, Ok(delivered))) = reply {
                        look_ups.start(&parts.queue, delivered);
                    }
                }
            }
            while !look_ups.is_empty() {
                for entry in look_ups.next().await {
                    if let Entry::Job(delivery) = entry {
                        parts.leases.add(&delivery);
                    }
                }
            }
        };
        // What does not end leaves its entries pending; they are claimed.
        let _ = timeout(LAST_READ_TIMEOUT, ending).await;
    }
}

/// Reads whose jobs are being looked up, in the order of the reads.
#[derive(Default)]
pub(super) struct LookUps(VecDeque<LookUp>);

struct LookUp {
    jobs: usize,
    task: AbortOnDropHandle<Vec<Entry>>,
}

impl LookUps {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many jobs are being looked up.
    pub(super) fn jobs(&self) -> usize {
        self.0.iter().map(|look_up| look_up.jobs).sum()
    }

    /// Looks up what was delivered.
    pub(super) fn start(&mut self, queue: &Queue, delivered: Delivered) {
        let jobs = delivered.len();
        let task = tokio::spawn(look_up(queue.clone(), delivered));
        self.0.push_back(LookUp { jobs, task: AbortOnDropHandle::new(task) });
    }

    /// What came of the oldest one; never ends where there is none. *Cancel safety:* nothing is lost.
    pub(super) async fn next(&mut self) -> Vec<Entry> {
        let Some(oldest) = self.0.front_mut() else { return std::future::pending().await };
        let ended = (&mut oldest.task).await;
        self.0.pop_front();
        ended.unwrap_or_else(|error| {
            tracing::error!(%error, "looking up jobs panicked; they are claimed after lock_duration");
            Vec::new()
        })
    }
}

/// Looks up what was delivered, and says that it is active. Entries whose jobs cannot be read are claimed later; the pause
/// keeps a worker that can read no job from making all of them pending.
async fn look_up(queue: Queue, delivered: Delivered) -> Vec<Entry> {
    let jobs = delivered.len();
    match delivered.look_up().await {
        Ok(entries) => {
            // before anybody works on them, so that the events of a job stand in order
            if queue.tells_all() {
                tell_active(&queue, &entries).await;
            }
            entries
        }
        Err(error) => {
            tracing::warn!(
                queue = %queue.name(), jobs, error = %chain(&error),
                "jobs that were delivered could not be read; they are claimed after lock_duration"
            );
            sleep(READ_PAUSE).await;
            Vec::new()
        }
    }
}

/// Writes the events of jobs that were read, in one go. An event that is lost is no reason to hold up its job.
async fn tell_active(queue: &Queue, entries: &[Entry]) {
    let jobs = entries.iter().filter_map(|entry| match entry {
        Entry::Job(delivery) => Some(&delivery.job.id),
        Entry::Plain(_) | Entry::Unreadable(_) => None,
    });
    if let Err(error) = queue.tell_active(jobs).await {
        tracing::warn!(queue = %queue.name(), error = %chain(&error), "the events of jobs that start were not written");
    }
}
