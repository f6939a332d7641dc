//! Claims: puts back to waiting the jobs whose consumer stopped working on them.
//!
//! ```text
//!   pending, idle ≥ lock_duration ──▶ waiting (tail), stalls + 1
//!                                 └─▶ dead, over max_stalled_count
//! ```
//!
//! One sweep per queue and `stalled_interval`, by whichever process comes first. A sweep follows the cursor to the end, so
//! a long pending list is covered and its tail never starves.
//!
//! *Crash:* each page is one script; what a sweep did not reach is reached by the next one.

use std::time::{Duration, Instant};

use super::scripts::{self, Call, element};
use super::{LISTED_FAILURES_MAX, NO_KEYS, Queue, QueueError, millis};
use crate::job::{ID_BYTES_MAX, JobId, Place};

/// Entries looked at in one call: XAUTOCLAIM looks at ten times as many, which costs Redis about 1.5 ms.
const PAGE: usize = 100;
/// A clock that moved this much more or less than ours was set: idle times mean nothing until the next sweep.
const CLOCK_STEP: Duration = Duration::from_secs(1);

/// When an entry is stalled, and how often it may be.
#[derive(Clone, Copy, Debug)]
pub struct ClaimLimits {
    /// Idle time from which an entry is stalled.
    pub lock_duration: Duration,
    /// At most one sweep in this time.
    pub stalled_interval: Duration,
    /// Recoveries that a job is allowed; 0 buries it at its first stall.
    pub max_stalled_count: u8,
}

/// What one sweep did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Whether it was this process's turn.
    pub swept: bool,
    /// Jobs that wait again.
    pub waiting: usize,
    /// Jobs that were given up.
    pub buried: usize,
    /// Entries without a job, dropped.
    pub dropped: usize,
    /// Ids of the jobs that had stalled.
    pub stalled: Vec<JobId>,
}

/// Sweeps a queue; remembers the clocks from one sweep to the next.
#[derive(Debug)]
pub struct Sweeper {
    queue: Queue,
    consumer: String,
    limits: ClaimLimits,
    clocks: Option<(Instant, u64)>,
}

impl Queue {
    /// A sweeper that claims in the name of this consumer.
    pub fn sweeper(&self, consumer: impl Into<String>, limits: ClaimLimits) -> Sweeper {
        Sweeper { queue: self.clone(), consumer: consumer.into(), limits, clocks: None }
    }
}

impl Sweeper {
    /// Sweeps, if nobody did within the interval, the queue is not paused, and the clock of Redis was not set.
    ///
    /// # Errors
    /// [`QueueError::Redis`]: pages up to there are claimed.
    pub async fn sweep(&mut self) -> Result<Swept, QueueError> {
        let keys = self.queue.keys();
        let mut call = Call::new(&scripts::BEGIN_SWEEP, [keys.sweep(), keys.meta()].into_iter());
        call.arg(millis(self.limits.stalled_interval)).arg(&self.consumer);
        let (turn, redis_ms): (u8, u64) = call.run(&mut self.queue.connection()).await?.decode()?;
        let stepped = self.clocks.is_some_and(|(at, ms)| clock_stepped(at.elapsed(), ms, redis_ms));
        self.clocks = Some((Instant::now(), redis_ms));
        if stepped {
            tracing::warn!(queue = %self.queue.name(), "the clock of Redis was set; no stalled jobs are claimed this time");
        }
        if turn == 0 || stepped {
            return Ok(Swept::default());
        }
        let mut swept = Swept { swept: true, ..Swept::default() };
        for lane in [Place::Stream, Place::Prioritized] {
            let mut cursor = "0-0".to_owned();
            loop {
                cursor = match self.claim_page(lane, &cursor, &mut swept).await {
                    // Without the group nothing is pending; it is read from its beginning.
                    Err(error) if error.is_group_lost() => {
                        self.queue.ensure_group().await?;
                        break;
                    }
                    page => page?,
                };
                if cursor == "0-0" {
                    break;
                }
            }
        }
        Ok(swept)
    }

    async fn claim_page(&self, lane: Place, cursor: &str, swept: &mut Swept) -> Result<String, QueueError> {
        let mut call = self.queue.moving(&scripts::CLAIM, NO_KEYS);
        call.arg(&[lane as u8][..])
            .arg(&self.consumer)
            .arg(millis(self.limits.lock_duration))
            .arg(cursor)
            .arg(PAGE)
            .arg(self.limits.max_stalled_count)
            .arg(LISTED_FAILURES_MAX)
            .arg(ID_BYTES_MAX);
        let (script, mut elements) = call.run(&mut self.queue.connection()).await?.array()?;
        if elements.len() < 4 {
            return Err(QueueError::Reply { script: script.name, detail: "fewer than four elements".to_owned() });
        }
        for id in elements.split_off(4) {
            swept.stalled.push(JobId::new(element::<Vec<u8>>(script, id)?)?);
        }
        let mut numbers = elements.drain(1..);
        let mut number = || element::<usize>(script, numbers.next().expect("there are four elements"));
        swept.waiting += number()?;
        swept.buried += number()?;
        swept.dropped += number()?;
        drop(numbers);
        element(script, elements.remove(0))
    }
}

/// Whether the clock of Redis moved a good deal more or less than ours between two looks at both.
fn clock_stepped(ours: Duration, before_ms: u64, now_ms: u64) -> bool {
    let theirs = i128::from(now_ms) - i128::from(before_ms);
    let difference = theirs - ours.as_millis() as i128;
    difference.unsigned_abs() > CLOCK_STEP.as_millis()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_was_set_is_noticed_in_both_directions() {
        let minute = Duration::from_mins(1);
        assert!(!clock_stepped(minute, 1_000_000, 1_060_400));
        assert!(clock_stepped(minute, 1_000_000, 1_062_000), "set forward: everything would look stalled");
        assert!(clock_stepped(minute, 1_000_000, 990_000), "set back");
    }
}
