//! Removes jobs for good: some by their ids, those that are old enough, or all that wait.
//!
//! ```text
//!   waiting, prioritized, parked, delayed, dead, completed ──remove · clean · drain──▶ gone
//! ```
//!
//! A job that a worker has is never removed; to end one, [cancel](Queue::cancel) it. A removed job leaves nothing: its guard,
//! log, errors and deduplication id go with it, the next job of its group moves up, and its import counts it as removed.
//!
//! The feed of an item that did not finish forgets it, or its next fetch would pass it over. Only who knows feeds can say
//! how a seen map is told so, hence [`Forget`].
//!
//! *Crash:* see [`super::walk`].

use std::collections::VecDeque;
use std::time::Duration;

use super::operated::{Operated, StateName, operated};
use super::scripts::{self, JOBS_PER_CALL_MAX};
use super::walk::{Member, Step, StreamPages, ZsetPages};
use super::{NO_KEYS, Queue, QueueError, millis};
use crate::job::{EntryId, JobId, Place};

/// Makes the record by which a feed's seen map forgets a job.
pub type Forget = fn(&JobId) -> [u8; 16];

/// Jobs of one step: what a removal takes of Redis for each is more than most moves do.
const PAGE: usize = 64;
/// Groups that one look for parked jobs brings.
const GROUPS_PER_LOOK: usize = 256;

impl Queue {
    /// Removes jobs in any state but active. Says of each what became of it, in order.
    ///
    /// # Errors
    /// [`QueueError::Redis`]: jobs of earlier calls are removed; may be repeated.
    pub async fn remove(&self, ids: &[JobId], forget: Forget) -> Result<Vec<Operated>, QueueError> {
        let mut answers = Vec::with_capacity(ids.len());
        for piece in ids.chunks(PAGE) {
            answers.extend(
                self.remove_page(piece, None, Duration::ZERO, forget).await?.statuses(piece.len(), operated(b"R"))?,
            );
        }
        Ok(answers)
    }

    /// Removes what is older than `grace` in one state: completed and failed since they ended, the others since they were
    /// enqueued. Active jobs cannot be cleaned, nor those in no state; `limit` is the most to remove, `None` for all.
    ///
    /// # Errors
    /// [`QueueError::NotCleanable`], [`QueueError::Redis`].
    pub async fn clean(
        &self,
        state: StateName,
        grace: Duration,
        limit: Option<usize>,
        forget: Forget,
    ) -> Result<RemovalWalk, QueueError> {
        let stages: &[Stage] = match state {
            StateName::Waiting => &[Stage::Parked, Stage::Stream],
            StateName::Prioritized => &[Stage::Zset(Place::Prioritized)],
            StateName::Delayed => &[Stage::Zset(Place::Delayed)],
            StateName::Completed => &[Stage::Zset(Place::Completed)],
            StateName::Failed => &[Stage::Dead],
            StateName::Active | StateName::Unknown => return Err(QueueError::NotCleanable { state: state.name() }),
        };
        let older_than_ms = millis(self.time().await?.duration_since(std::time::UNIX_EPOCH).unwrap_or_default())
            .saturating_sub(millis(grace));
        Ok(RemovalWalk {
            queue: self.clone(),
            forget,
            least_age: grace,
            older_than_ms,
            left: limit.unwrap_or(usize::MAX),
            stages: stages.iter().copied().collect(),
            current: None,
        })
    }

    /// Empties the queue of what waits: waiting, parked and prioritized jobs, entries of plain producers that nobody has
    /// adopted, and with `delayed` what is delayed. Active jobs, dead letters and completed jobs stay.
    pub fn drain(&self, delayed: bool, forget: Forget) -> RemovalWalk {
        // In the order in which jobs move: what moves on while this works is met where it has moved to.
        let stages = [Stage::Zset(Place::Delayed), Stage::Parked, Stage::Zset(Place::Prioritized), Stage::Stream];
        RemovalWalk {
            queue: self.clone(),
            forget,
            least_age: Duration::ZERO,
            older_than_ms: u64::MAX,
            left: usize::MAX,
            stages: stages.into_iter().skip(usize::from(!delayed)).collect(),
            current: None,
        }
    }

    /// One call of the script, for at most a page.
    async fn remove_page(
        &self,
        ids: &[JobId],
        place: Option<Place>,
        least_age: Duration,
        forget: Forget,
    ) -> Result<scripts::Reply, QueueError> {
        let mut call = self.moving(&scripts::REMOVE, ids.iter().map(|id| self.keys().job(id)));
        call.arg(place.map_or_else(Vec::new, |place| vec![place as u8])).arg(millis(least_age));
        for id in ids {
            call.arg(id.as_bytes()).arg(&forget(id)[..]);
        }
        call.run(&mut self.connection()).await
    }

    /// Drops waiting entries of the work stream in which no job stands; says of each whether it was.
    async fn drop_entries(&self, entries: &[(EntryId, Option<JobId>)]) -> Result<usize, QueueError> {
        let mut call = self.moving(&scripts::DROP_ENTRIES, NO_KEYS);
        for (entry, id) in entries {
            call.arg(entry.to_string()).arg(id.as_ref().map_or(&[][..], JobId::as_bytes));
        }
        let reply = call.run(&mut self.connection()).await?;
        let dropped = reply.statuses(entries.len(), |letter| b"RAS".contains(&letter).then_some(letter == b'R'))?;
        Ok(dropped.into_iter().filter(|dropped| *dropped).count())
    }
}

/// Where a walk looks for jobs to remove.
#[derive(Clone, Copy, Debug)]
enum Stage {
    /// One of the zsets: delayed, prioritized, completed.
    Zset(Place),
    /// The parked jobs of all groups.
    Parked,
    /// The work stream.
    Stream,
    /// The dead letters.
    Dead,
}

/// Where it is.
#[derive(Debug)]
enum Current {
    Zset(Place, ZsetPages),
    /// From where on groups are looked for next (as ZRANGEBYLEX takes it), `None` when all were found; groups that were found; the
    /// one whose jobs are removed.
    Parked {
        from: Option<Vec<u8>>,
        groups: VecDeque<Vec<u8>>,
        pages: Option<ZsetPages>,
    },
    Stream(StreamPages),
    Dead(StreamPages),
}

/// Removes jobs page by page; see [`Queue::clean`] and [`Queue::drain`].
#[derive(Debug)]
pub struct RemovalWalk {
    queue: Queue,
    forget: Forget,
    least_age: Duration,
    /// Dead letters and plain entries that are younger stay, ms since 1970.
    older_than_ms: u64,
    /// How many may still be removed.
    left: usize,
    stages: VecDeque<Stage>,
    current: Option<Current>,
}

impl RemovalWalk {
    /// Removes one page; `None` when it is through.
    ///
    /// # Errors
    /// [`QueueError::Redis`]; may be repeated.
    pub async fn step(&mut self) -> Result<Option<Step>, QueueError> {
        while self.left > 0 {
            let current = match self.current.take() {
                Some(current) => current,
                None => match self.stages.pop_front() {
                    Some(stage) => self.begin(stage).await?,
                    None => return Ok(None),
                },
            };
            // A stage that is through is not put back.
            if let Some((current, step)) = self.page(current).await? {
                self.current = Some(current);
                self.left -= step.done;
                return Ok(Some(step));
            }
        }
        Ok(None)
    }

    async fn begin(&self, stage: Stage) -> Result<Current, QueueError> {
        let (queue, keys) = (&self.queue, self.queue.keys());
        Ok(match stage {
            Stage::Zset(place) => {
                let key = match place {
                    Place::Delayed => keys.delayed(),
                    Place::Completed => keys.completed(),
                    _ => keys.prioritized(),
                };
                Current::Zset(place, ZsetPages::begin(queue, key).await?)
            }
            Stage::Parked => Current::Parked { from: Some(b"-".to_vec()), groups: VecDeque::new(), pages: None },
            Stage::Stream => Current::Stream(StreamPages::begin(queue, keys.stream()).await?),
            Stage::Dead => Current::Dead(StreamPages::begin(queue, keys.dead()).await?),
        })
    }

    async fn page(&mut self, current: Current) -> Result<Option<(Current, Step)>, QueueError> {
        let limit = PAGE.min(self.left);
        match current {
            Current::Zset(place, mut pages) => {
                let step = self.zset_page(place, &mut pages, limit).await?;
                Ok(step.map(|step| (Current::Zset(place, pages), step)))
            }
            Current::Parked { mut from, mut groups, mut pages } => loop {
                if let Some(pages_now) = &mut pages {
                    if let Some(step) = self.zset_page(Place::Parked, pages_now, limit).await? {
                        return Ok(Some((Current::Parked { from, groups, pages }, step)));
                    }
                    pages = None;
                } else if let Some(group) = groups.pop_front() {
                    pages = Some(ZsetPages::begin(&self.queue, self.queue.keys().parked(&group)).await?);
                } else if let Some(at) = from {
                    groups.extend(self.parked_groups(&at).await?);
                    let more = groups.back().filter(|_| groups.len() == GROUPS_PER_LOOK);
                    from = more.map(|last| [b"(", last.as_slice()].concat());
                } else {
                    return Ok(None);
                }
            },
            Current::Stream(mut pages) => {
                let page = pages.next(&self.queue, limit).await?;
                let entries: Vec<(EntryId, Option<JobId>)> = page
                    .into_iter()
                    .map(|(entry, fields)| (entry, fields.get::<Vec<u8>>("id").and_then(|id| JobId::new(id).ok())))
                    .collect();
                if entries.is_empty() {
                    return Ok(None);
                }
                let done = self.remove_entries(&entries).await?;
                Ok(Some((Current::Stream(pages), Step { looked_at: entries.len(), done })))
            }
            Current::Dead(mut pages) => {
                let page = pages.next(&self.queue, limit).await?;
                let letters: Vec<(EntryId, Option<JobId>)> = page
                    .into_iter()
                    .filter(|(entry, _)| entry.ms <= self.older_than_ms)
                    .map(|(entry, fields)| (entry, fields.get::<Vec<u8>>("id").and_then(|id| JobId::new(id).ok())))
                    .collect();
                // In the order of time: behind one that is too young there is none that is not.
                if letters.is_empty() {
                    return Ok(None);
                }
                let done = self.queue.discard(&letters, "removed", self.forget).await?;
                Ok(Some((Current::Dead(pages), Step { looked_at: letters.len(), done })))
            }
        }
    }

    /// Removes a page of one of the zsets; `None` when it is through.
    async fn zset_page(&self, place: Place, pages: &mut ZsetPages, limit: usize) -> Result<Option<Step>, QueueError> {
        let page = pages.next(&self.queue, limit).await?;
        if page.is_empty() {
            return Ok(None);
        }
        let ids: Vec<JobId> = page.iter().filter_map(|(id, _)| id.clone()).collect();
        let removed = self.remove_ids(&ids, place).await?;
        let done = removed.iter().filter(|removed| **removed).count();
        let mut removed = removed.into_iter();
        let stays = |(id, _): &&Member| id.is_none() || !removed.next().unwrap_or(false);
        let staying: Vec<&str> = page.iter().filter(stays).map(|(_, score)| score.as_str()).collect();
        pages.pass(&page, staying.into_iter());
        Ok(Some(Step { looked_at: page.len(), done }))
    }

    /// Removes jobs that stand in this place and are old enough; says of each whether it was.
    async fn remove_ids(&self, ids: &[JobId], place: Place) -> Result<Vec<bool>, QueueError> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let reply = self.queue.remove_page(ids, Some(place), self.least_age, self.forget).await?;
        reply.statuses(ids.len(), |letter| b"RYNwpadcfu".contains(&letter).then_some(letter == b'R'))
    }

    /// Removes the jobs of waiting entries, and drops those that are no job's.
    async fn remove_entries(&self, entries: &[(EntryId, Option<JobId>)]) -> Result<usize, QueueError> {
        let ids: Vec<JobId> = entries.iter().filter_map(|(_, id)| id.clone()).collect();
        let mut removed = self.remove_ids(&ids, Place::Stream).await?.into_iter();
        let done = removed.clone().filter(|removed| *removed).count();
        let rest: Vec<(EntryId, Option<JobId>)> = entries
            .iter()
            .filter(|(entry, id)| {
                let was_removed = id.is_some() && removed.next().unwrap_or(false);
                !was_removed && entry.ms <= self.older_than_ms
            })
            .cloned()
            .collect();
        Ok(if rest.is_empty() { done } else { done + self.queue.drop_entries(&rest).await? })
    }

    async fn parked_groups(&self, from: &[u8]) -> Result<Vec<Vec<u8>>, QueueError> {
        let mut range = redis::cmd("ZRANGEBYLEX");
        range.arg(self.queue.keys().parked_groups()).arg(from).arg("+").arg("LIMIT").arg(0).arg(GROUPS_PER_LOOK);
        let groups = range.query_async(&mut self.queue.connection()).await;
        groups.map_err(|cause| QueueError::from_redis("ZRANGEBYLEX", cause))
    }
}

const _: () = assert!(PAGE <= JOBS_PER_CALL_MAX);
