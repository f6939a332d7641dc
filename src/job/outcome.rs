//! What a handler says about a job when it is through with it.

use std::time::Duration;

/// The end of one handling of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The work is done.
    Done,
    /// The work is done and came to this, as JSON: kept with the job, if finished jobs are kept.
    DoneWith(String),
    /// The work is done and ended in a write to the store; says which, for the counts of the import.
    Stored(Stored),
    /// The attempt failed for this reason; try again after the queue's backoff, if attempts are left.
    Retry(String),
    /// The attempt failed for this reason; try again after this wait, if attempts are left.
    RetryAfter(String, Duration),
    /// Not now: come back after this wait. Uses no attempt.
    Snooze(Duration),
    /// Failed for this reason, and trying again would not help.
    Fail(String),
}

/// What a write of an item did to its document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stored {
    /// There was none.
    Inserted,
    /// There was an older one, or this very version.
    Updated,
    /// There is a newer one, which was left as it is.
    Stale,
}
