//! The consumer side: one engine that reads jobs, hands them to a handler, and settles them by what it says.
//!
//! ```text
//!   read ──▶ buffer ──flush──▶ flight: handler ──outcomes──▶ settler: done · back off · bury
//!    ▲          held leases, renewed until settled                       │
//!    └─────────────── room for more ◀────────────────────────────────────┘
//! ```
//!
//! A handler of single jobs is a handler of batches of one: a slot is then a job. For a batch handler `concurrency`
//! counts the batches in flight, and a worker holds at most `concurrency × batch_size` jobs.
//!
//! Beside the road run the turns of [`background`]: renew, promote, claim, heartbeat, janitor, and the [`schedule_loop`].
//! Each is a function that does one pass and says in counts what it did; the loop around it is dull.
//!
//! *Crash:* jobs that were read stay pending and are claimed by another worker; what a handler wrote is written again.

mod background;
mod buffer;
mod control;
mod dispatch;
mod flight;
mod handler;
mod leases;
mod odd_entries;
mod reading;
pub mod schedule_loop;
mod settle;
mod settler;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

pub use control::WorkerHandle;
pub use handler::{Adoption, Handler, JobHandler, Outage, Single};
pub use schedule_loop::ScheduleLoop;

pub use crate::job::{Growth, RetryPolicy};

use crate::error::chain;
use crate::job::{JobId, Keep};
use crate::metrics::work::{SlotMetrics, WorkerMetrics};
use crate::pulse::{Beat, Pulse};
use crate::queue::Queue;
use crate::queue::claim::ClaimLimits;
use crate::queue::consumers::Consumer;
use crate::queue::dead_letter::Retention;
use crate::queue::limits::Limits;
use control::Control;
use dispatch::Dispatcher;
use leases::Leases;

/// How long a worker that ends waits for Redis, beyond `shutdown_timeout`: whoever told it to end may kill it soon.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(2);

/// How a worker works. The meaning and range of each value are in `streams.toml`.
#[derive(Clone, Debug)]
pub struct WorkerOptions {
    /// Batches in flight, to begin with; see [`WorkerHandle::set_concurrency`].
    pub concurrency: usize,
    /// Most jobs of a batch; 1 for single jobs.
    pub batch_size: usize,
    /// Longest time that a job waits for its batch to fill.
    pub flush: Duration,
    /// Most bytes of jobs held.
    pub buffer_bytes: usize,
    /// Handlings of a job before it is given up.
    pub attempts: u8,
    /// Wait between two of them.
    pub retry_policy: RetryPolicy,
    /// Longest time that one handling may take; `None` for no limit.
    pub job_timeout: Option<Duration>,
    /// Leases, and when they count as lost.
    pub claim: ClaimLimits,
    /// How long the worker may take to end.
    pub shutdown_timeout: Duration,
    /// What becomes of jobs that are done.
    pub on_complete: Keep,
    /// Which dead letters are kept.
    pub retention: Retention,
    /// Limits that it sets when it starts, for all workers of the queue, unless an operator has set others.
    pub limits: Limits,
    /// Makes the record by which a feed forgets a job that is discarded.
    pub forget: fn(&JobId) -> [u8; 16],
}

impl Default for WorkerOptions {
    /// Those of the fetch queue in `streams.toml`, without a time limit.
    fn default() -> Self {
        Self {
            concurrency: 10,
            batch_size: 1,
            flush: Duration::from_secs(3),
            buffer_bytes: 64 * 1024 * 1024,
            attempts: 3,
            retry_policy: RetryPolicy {
                growth: Growth::Exponential,
                delay: Duration::from_secs(1),
                max: Duration::from_hours(1),
                jitter: 0.0,
            },
            job_timeout: None,
            claim: ClaimLimits {
                lock_duration: Duration::from_secs(30),
                stalled_interval: Duration::from_secs(30),
                max_stalled_count: 2,
            },
            shutdown_timeout: Duration::from_secs(25),
            on_complete: Keep::Nothing,
            retention: Retention::default(),
            limits: Limits::default(),
            forget: |_| [0; 16],
        }
    }
}

/// What a worker leaves behind when it ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ended {
    /// Jobs that were not through in time and wait again.
    pub given_back: usize,
}

/// A consumer of one queue.
#[derive(Debug)]
pub struct Worker<H> {
    parts: Arc<Parts>,
    handler: Arc<H>,
}

/// What the tasks of a worker share.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) queue: Queue,
    pub(crate) consumer: Consumer,
    pub(crate) options: WorkerOptions,
    pub(crate) control: Arc<Control>,
    pub(crate) leases: Leases,
    pub(crate) metrics: WorkerMetrics,
    /// Told when jobs were settled.
    pub(crate) settled: Notify,
    /// Tells the promoter that a job is due earlier than it knows.
    pub(crate) due_earlier: Notify,
    /// Told that the heartbeat turns.
    pub(crate) beat: Beat,
    /// Whether it fires the schedulers of its queue.
    pub(crate) fires_schedulers: bool,
}

impl<H: Handler> Worker<H> {
    /// A worker with a consumer name of its own.
    pub fn new(queue: Queue, handler: H, options: WorkerOptions) -> Self {
        let parts = Parts {
            metrics: WorkerMetrics::new(queue.name()),
            queue,
            consumer: Consumer::of_this_process(),
            control: Arc::new(Control::new(options.concurrency)),
            options,
            leases: Leases::default(),
            settled: Notify::new(),
            due_earlier: Notify::new(),
            beat: Beat::default(),
            fires_schedulers: true,
        };
        Self { parts: Arc::new(parts), handler: Arc::new(handler) }
    }

    /// Says in `pulse` that its heartbeat turns.
    #[must_use]
    pub fn followed_by(mut self, pulse: &Pulse) -> Self {
        let parts = self.own_parts();
        parts.beat = pulse.follow(format!("worker of {}", parts.queue.name()));
        self
    }

    /// Changes it while it runs.
    pub fn handle(&self) -> WorkerHandle {
        WorkerHandle { control: self.parts.control.clone() }
    }

    /// Leaves the schedulers of its queue to somebody else's [`ScheduleLoop`].
    #[must_use]
    pub fn without_schedulers(mut self) -> Self {
        self.own_parts().fires_schedulers = false;
        self
    }

    fn own_parts(&mut self) -> &mut Parts {
        Arc::get_mut(&mut self.parts).expect("nobody shares the parts before the worker runs, which takes it")
    }

    /// Name of its consumer.
    pub fn consumer(&self) -> &str {
        &self.parts.consumer.name
    }

    /// Works until `shutdown`, then ends what it holds: stops reading, flushes, settles, gives back what is left after
    /// `shutdown_timeout`, and removes its consumer. Outages of Redis and of the store are waited out.
    pub async fn run(self, shutdown: CancellationToken) -> Ended {
        let parts = &self.parts;
        let (queue, consumer) = (parts.queue.name().to_owned(), parts.consumer.name.clone());
        if parts.fires_schedulers {
            // Its series are there from now on.
            SlotMetrics::new(parts.queue.name());
        }
        tracing::info!(%queue, %consumer, "worker starts");
        // Leases are renewed and the heartbeat goes on until nothing is held any more, or until this future is dropped:
        // then the jobs must be claimed.
        let (stop, ended) = (shutdown.child_token(), CancellationToken::new());
        let _stop_when_dropped = (stop.clone().drop_guard(), ended.clone().drop_guard());
        let background = background::spawn(parts, &stop, &ended);
        Dispatcher::new(parts.clone(), self.handler).run(&shutdown).await;
        let leaving = async {
            let given_back = give_back_rest(parts).await;
            ended.cancel();
            background.await;
            if let Err(error) = parts.queue.reap_consumers(Some(&parts.consumer.name)).await {
                tracing::warn!(%queue, %consumer, error = %chain(&error), "the consumer could not be removed; a janitor will");
            }
            given_back
        };
        let given_back = tokio::time::timeout(LEAVE_TIMEOUT, leaving).await.unwrap_or_else(|_| {
            tracing::warn!(%queue, %consumer, "Redis does not answer; what is held is claimed after lock_duration");
            0
        });
        tracing::info!(%queue, %consumer, given_back, "worker ends");
        Ended { given_back }
    }
}

/// Gives back what is held when the time to end is over. What cannot be given back now is claimed later.
async fn give_back_rest(parts: &Parts) -> usize {
    let rest = parts.leases.all();
    if rest.is_empty() {
        return 0;
    }
    match parts.queue.give_back(&rest).await {
        Ok(settled) => {
            parts.metrics.settled(&settled, |_| &parts.metrics.given_back);
            settled.iter().filter(|settled| **settled == crate::queue::Settled::Settled).count()
        }
        Err(error) => {
            tracing::warn!(
                queue = %parts.queue.name(),
                jobs = rest.len(),
                error = %chain(&error),
                "jobs could not be given back; they are claimed after lock_duration"
            );
            0
        }
    }
}
