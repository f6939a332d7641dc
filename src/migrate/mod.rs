//! Moving house: takes the jobs of a BullMQ queue over into one of ours.
//!
//! ```text
//!   bull:<queue>      failed ──────────────────────────────▶ dead letters
//!                     wait, paused, prioritized, delayed ──▶ waiting, prioritized, delayed
//!   bull:<queue>_dlq  whatever stands there ───────────────▶ dead letters
//! ```
//!
//! Called by `feedmill migrate bullmq`. Reads pages of bounded size ([`source`]), says what each job becomes
//! ([`mapping`], pure), takes a page in ([`target`]), and only then removes it from BullMQ, in one script.
//!
//! *Crash:* between taking in and removing, a page stands in both. Run again, its jobs are found to be here already, and
//! only the removal is made up for. Whatever was not reached yet is in BullMQ, untouched.
//!
//! *Not here:* schedulers, flows, finished jobs and logs; they stay, and the report counts them.

mod keys;
mod mapping;
mod source;
mod source_job;
mod target;
mod walk;

pub use keys::Structure;
pub use mapping::{Mapping, Obstacle};
pub use source::{Source, Survey};
pub use source_job::{Content, SourceBackoff, SourceJob, SourceKeep, SourceOptions, Unreadable};
pub use walk::{Found, Migration, Report, Stays, Tally};

use crate::queue::QueueError;

/// What the dead-letter queue that a program kept beside its queue is called behind the queue's name.
pub const DEAD_LETTER_QUEUE_SUFFIX: &str = "_dlq";

/// Why jobs cannot be taken over.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MigrateError {
    /// BullMQ has no such queue.
    #[error("there is no BullMQ queue {queue} on this Redis ({key} is missing); check --queue and --prefix")]
    NoQueue {
        /// Prefix and name.
        queue: String,
        /// The key that every queue has.
        key: String,
    },
    /// Jobs are being worked on.
    #[error("{jobs} jobs of {queue} are active; stop its workers, wait until none is active, and run this again")]
    Active {
        /// Prefix and name.
        queue: String,
        /// How many.
        jobs: u64,
    },
    /// Workers would take jobs while they are moved.
    #[error("{workers} workers of {queue} are connected; stop them, or pause the queue, and run this again")]
    Workers {
        /// Prefix and name.
        queue: String,
        /// How many.
        workers: usize,
    },
    /// A command or script on BullMQ's keys failed.
    #[error("{operation} of {queue} failed at Redis")]
    Redis {
        /// Prefix and name.
        queue: String,
        /// The command, or the script.
        operation: &'static str,
        /// What the client library says.
        #[source]
        cause: redis::RedisError,
    },
    /// A reply has not the shape it should have.
    #[error("{script} answered something unexpected: {detail}")]
    Reply {
        /// The script.
        script: &'static str,
        /// What is wrong with the reply.
        detail: String,
    },
    /// Our queue.
    #[error(transparent)]
    Queue(#[from] QueueError),
}
