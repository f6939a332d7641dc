//! Obliterates a queue: deletes everything there is of it.
//!
//! ```text
//!   streams and zsets ──▶ jobs and all other keys ──▶ meta ──▶ its name in the registry
//! ```
//!
//! Refuses unless the queue is paused, and while workers have jobs unless forced to. Jobs go before `meta`, which says that
//! the queue is paused: whatever stops this in between, the queue stays paused until somebody does it again.
//!
//! Producers should have ended: of a job that is added meanwhile a part may go. A worker that runs opens the queue anew.
//!
//! *Crash:* what is left are keys without a job; obliterating once more deletes them.

use std::collections::VecDeque;

use super::scripts::{self, JOBS_PER_CALL_MAX, element};
use super::walk::Step;
use super::{Queue, QueueError};

/// Keys that one step of a scan looks at. Those of other queues on the server are among them.
const SCAN_COUNT: usize = 1000;

/// Deletes a queue page by page; see [`Queue::obliterate`].
#[derive(Debug)]
pub struct ObliterateWalk {
    queue: Queue,
    force: bool,
    stage: Stage,
    /// Found and not deleted yet.
    found: VecDeque<Vec<u8>>,
}

#[derive(Clone, Copy, Debug)]
enum Stage {
    /// What jobs stand in.
    Structures,
    /// Everything else but `meta`; the cursor of the scan.
    Rest(u64),
    Meta,
    Through,
}

impl Queue {
    /// Begins to delete the queue with everything in it. With `force` active jobs go too: their workers lose them.
    pub fn obliterate(&self, force: bool) -> ObliterateWalk {
        ObliterateWalk { queue: self.clone(), force, stage: Stage::Structures, found: VecDeque::new() }
    }
}

impl ObliterateWalk {
    /// Deletes one page of keys; `None` when nothing is left.
    ///
    /// # Errors
    /// [`QueueError::NotPaused`] and [`QueueError::HasActive`]: nothing more was deleted; [`QueueError::Redis`], may be
    /// repeated.
    pub async fn step(&mut self) -> Result<Option<Step>, QueueError> {
        let keys = self.queue.keys();
        match self.stage {
            Stage::Structures => {
                let structures = keys.structures().map(|key| key.as_bytes().to_vec());
                let done = self.delete(&structures).await?;
                self.stage = Stage::Rest(0);
                Ok(Some(Step { looked_at: structures.len(), done }))
            }
            Stage::Rest(cursor) => {
                if self.found.is_empty() {
                    let (next, page) = self.scan(cursor).await?;
                    self.stage = if next == 0 { Stage::Meta } else { Stage::Rest(next) };
                    self.found.extend(page.into_iter().filter(|key| key != keys.meta().as_bytes()));
                }
                self.delete_found().await.map(Some)
            }
            Stage::Meta if !self.found.is_empty() => self.delete_found().await.map(Some),
            Stage::Meta => {
                // A worker that runs may have made structures anew meanwhile.
                let mut last: Vec<Vec<u8>> = keys.structures().map(|key| key.as_bytes().to_vec()).to_vec();
                last.push(keys.meta().as_bytes().to_vec());
                let done = self.delete(&last).await?;
                let mut forget = redis::cmd("SREM");
                forget.arg(keys.registry()).arg(keys.queue());
                let forgotten = forget.query_async::<()>(&mut self.queue.connection()).await;
                forgotten.map_err(|cause| QueueError::from_redis("SREM", cause))?;
                self.stage = Stage::Through;
                Ok(Some(Step { looked_at: last.len(), done }))
            }
            Stage::Through => Ok(None),
        }
    }

    async fn delete_found(&mut self) -> Result<Step, QueueError> {
        let page: Vec<Vec<u8>> = self.found.iter().take(JOBS_PER_CALL_MAX).cloned().collect();
        let done = if page.is_empty() { 0 } else { self.delete(&page).await? };
        self.found.drain(..page.len());
        Ok(Step { looked_at: page.len(), done })
    }

    /// Deletes keys if the queue may be obliterated now; returns how many there were.
    async fn delete(&self, page: &[Vec<u8>]) -> Result<usize, QueueError> {
        let mut call = self.queue.moving(&scripts::OBLITERATE, page.iter());
        call.arg(if self.force { "force" } else { "" });
        let (script, elements) = call.run(&mut self.queue.connection()).await?.array()?;
        let unexpected = |detail: &str| QueueError::Reply { script: script.name, detail: detail.to_owned() };
        let [word, number]: [redis::Value; 2] = elements.try_into().map_err(|_| unexpected("not two elements"))?;
        let number = element::<usize>(script, number)?;
        let queue = self.queue.name().to_owned();
        match element::<String>(script, word)?.as_str() {
            "deleted" => Ok(number),
            "running" => Err(QueueError::NotPaused { queue }),
            "active" => Err(QueueError::HasActive { queue, jobs: number }),
            other => Err(unexpected(other)),
        }
    }

    async fn scan(&self, cursor: u64) -> Result<(u64, Vec<Vec<u8>>), QueueError> {
        let mut scan = redis::cmd("SCAN");
        scan.arg(cursor).arg("MATCH").arg(self.queue.keys().pattern()).arg("COUNT").arg(SCAN_COUNT);
        let scanned = scan.query_async(&mut self.queue.connection()).await;
        scanned.map_err(|cause| QueueError::from_redis("SCAN", cause))
    }
}
