//! Counts orphans: entries of the work stream that were delivered and are pending for nobody, so that nobody will ever
//! work on them. A foreign `XGROUP DELCONSUMER`, or an `XACK` without `XDEL`, leaves them.
//!
//! All entries that were delivered must be looked at to be sure, so a [`Patrol`] goes over them a few pages at a time.

use super::scripts::{self, Call, JOBS_PER_CALL_MAX};
use super::{Queue, QueueError};

/// Pages of one turn: a turn costs Redis about as much as one settle of a full batch.
const PAGES_PER_TURN: usize = 2;
/// Where a pass begins, and what a script says when it is through.
const BEGINNING: &str = "0-0";

/// Goes over what was delivered of a queue, again and again.
#[derive(Clone, Debug)]
pub struct Patrol {
    queue: Queue,
    /// The last entry that was looked at in this pass.
    at: String,
    /// Orphans that this pass has met so far.
    met: u64,
    /// Those of the last pass that was made to its end.
    counted: u64,
}

impl Patrol {
    /// A patrol that has seen nothing yet.
    pub fn new(queue: Queue) -> Self {
        Self { queue, at: BEGINNING.to_owned(), met: 0, counted: 0 }
    }

    /// Looks at the next pages. Returns how many orphans are known: those of the last whole pass, or of this one if it
    /// has met more already. Orphans are mostly the oldest entries, which a pass meets first.
    ///
    /// # Errors
    /// [`QueueError::Redis`]; the next turn looks at the same page again.
    pub async fn turn(&mut self) -> Result<u64, QueueError> {
        let mut of_lane = 0;
        for _ in 0..PAGES_PER_TURN {
            let keys = self.queue.keys();
            let all = [keys.stream(), keys.prioritized_active(), keys.meta()];
            let mut call = Call::new(&scripts::COUNT_ORPHANS, all.into_iter());
            call.arg(&self.at).arg(JOBS_PER_CALL_MAX);
            let (last, met, lane): (String, u64, u64) = call.run(&mut self.queue.connection()).await?.decode()?;
            self.met += met;
            of_lane = lane;
            self.at = last;
            if self.at == BEGINNING {
                self.counted = std::mem::take(&mut self.met);
                break;
            }
        }
        Ok(self.counted.max(self.met) + of_lane)
    }
}
