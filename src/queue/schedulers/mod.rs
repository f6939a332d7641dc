//! Schedulers: which job is added again and again, and when next.
//!
//! ```text
//!   upsert ──▶ scheduler (id, next slot; definition, template) ──slot has come──▶ its job waits, and the next slot
//!                                                                                 (one script)
//! ```
//!
//! One zset of id by next slot, and a hash per scheduler with its definition and the template of its jobs. Any number of
//! processes look at it and fire what is due; a slot is fired by the first, because firing sets the next slot in the same
//! step and asks for the slot, and the revision of the definition, that the caller believes to be there. There is no
//! leader, no lock and nothing that expires.
//!
//! A scheduler may also be one of which nothing is stored: whoever [sets its slot](super::Queue::reschedule) has its definition,
//! in a configuration say, and knows how to [fire](super::Queue::fire) it.
//!
//! # Ids of jobs
//!
//! The job of a slot is `repeat:<id>:<slot in ms>`, as in BullMQ: each slot has its own, and jobs of several slots may wait
//! and run beside each other. With `no_overlap` it is `repeat:<id>` for all slots: a job that lives makes the next one a
//! duplicate, which is not added. That is exact without a lock, across retries, crashes and a pause of the queue.
//!
//! *Crash:* each call is one script. A slot whose caller died before it is fired by the next who looks.
//! *Not here:* when the next slot is ([`crate::schedule`]), and who looks ([`crate::worker::ScheduleLoop`]).

mod firing;
mod listing;
mod slots;
mod stored;

use crate::job::{ID_BYTES_MAX, JobId, JobIdError};

pub use firing::{Added, DueScheduler, DueSchedulers, Fire, Firing, Work};
pub use listing::{SchedulerCursor, SchedulerCursorError, SchedulerPage};
pub use slots::{Rescheduled, Rescheduling};
pub use stored::{Scheduler, Stored, StoredTemplate, Template, Upsert};

/// What the ids of the jobs of stored schedulers begin with.
const JOB_ID_PREFIX: &str = "repeat:";
/// Longest slot in the id of a job: a sign and 19 digits.
const SLOT_DIGITS_MAX: usize = 20;

/// Longest id of a scheduler, in bytes: the ids of its jobs are longer and must fit.
pub const SCHEDULER_ID_BYTES_MAX: usize = ID_BYTES_MAX - JOB_ID_PREFIX.len() - 1 - SLOT_DIGITS_MAX;

/// Why a text cannot be the id of a scheduler.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum SchedulerIdError {
    /// The id has no bytes.
    #[error("the id of a scheduler must not be empty")]
    Empty,
    /// The id is longer than [`SCHEDULER_ID_BYTES_MAX`].
    #[error("a scheduler id of {bytes} bytes is too long; at most {SCHEDULER_ID_BYTES_MAX} are accepted")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
}

/// Id of the job of a slot; see the [module](self).
fn job_id(id: &str, no_overlap: bool, slot_ms: i64) -> JobId {
    let text = if no_overlap { format!("{JOB_ID_PREFIX}{id}") } else { format!("{JOB_ID_PREFIX}{id}:{slot_ms}") };
    // Only an id that somebody else has put into Redis is too long.
    JobId::new(&text)
        .or_else(|error| match error {
            JobIdError::TooLong { .. } => JobId::new(&text.as_bytes()[..ID_BYTES_MAX]),
            error => Err(error),
        })
        .expect("it is not empty, and cut to what is accepted")
}

fn check_id(id: &str) -> Result<(), SchedulerIdError> {
    match id.len() {
        0 => Err(SchedulerIdError::Empty),
        1..=SCHEDULER_ID_BYTES_MAX => Ok(()),
        bytes => Err(SchedulerIdError::TooLong { bytes }),
    }
}

/// An id as text. One that is no text was put there by somebody else: what is done under its name is done to nothing.
fn lossy(id: Vec<u8>) -> String {
    String::from_utf8(id).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

/// A number that may be missing, as scripts take it.
fn text(number: Option<impl ToString>) -> String {
    number.map(|number| number.to_string()).unwrap_or_default()
}
