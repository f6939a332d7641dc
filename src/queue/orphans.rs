//! Counts orphans: entries that were delivered and are pending for nobody, so that nobody will ever work on them. A foreign
//! `XGROUP DELCONSUMER`, or an `XACK` without `XDEL`, leaves them.
//!
//! All entries that were delivered must be looked at to be sure, so a [`Patrol`] goes over them a few pages at a time. The
//! pages are those by which an inspection finds orphans to name and to restore.

use super::inspect::walks::{BEGINNING, LookFor};
use super::{Queue, QueueError};
use crate::job::Place;

/// Pages of one turn: a turn costs Redis about as much as one settle of a full batch.
const PAGES_PER_TURN: usize = 4;

/// Goes over what was delivered of a queue, again and again.
#[derive(Clone, Debug)]
pub struct Patrol {
    queue: Queue,
    /// The lane of the next page.
    lane: Place,
    /// The last entry that was looked at there in this pass.
    behind: String,
    /// Orphans that this pass has met so far.
    met: u64,
    /// Those of the last pass that was made to its end.
    counted: u64,
}

impl Patrol {
    /// A patrol that has seen nothing yet.
    pub fn new(queue: Queue) -> Self {
        Self { queue, lane: Place::Stream, behind: BEGINNING.to_owned(), met: 0, counted: 0 }
    }

    /// Looks at the next pages. Returns how many orphans are known: those of the last whole pass, or of this one if it
    /// has met more already. Orphans are mostly the oldest entries, which a pass meets first.
    ///
    /// # Errors
    /// [`QueueError::Redis`]; the next turn looks at the same page again.
    pub async fn turn(&mut self) -> Result<u64, QueueError> {
        for _ in 0..PAGES_PER_TURN {
            let page = self.queue.look_at_delivered(self.lane, &self.behind, LookFor::Orphans).await?;
            self.met += page.orphans.len() as u64;
            if let Some(last) = page.next {
                self.behind = last;
                continue;
            }
            BEGINNING.clone_into(&mut self.behind);
            if self.lane == Place::Stream {
                self.lane = Place::Prioritized;
            } else {
                self.lane = Place::Stream;
                self.counted = std::mem::take(&mut self.met);
                break;
            }
        }
        Ok(self.counted.max(self.met))
    }
}
