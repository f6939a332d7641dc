//! Operations on many jobs: each runs on the server to its end, in bounded steps, while whoever asked for it may leave.
//!
//! ```text
//!   start ──▶ running ──step, step, …──▶ ended
//!                └── stop, or the process ends ──▶ stopped (done again, it goes on with what is left)
//! ```
//!
//! *Crash:* every step is one script over one page, so what was reached is done whole and the rest is as it was. The list
//! of operations goes with the process.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::dead_groups::reason_group;
use super::{ApiError, App};
use crate::error::chain;
use crate::import::forget_item;
use crate::job::{EntryId, JobId};
use crate::queue::list::{Cursor, ListState};
use crate::queue::obliterate::ObliterateWalk;
use crate::queue::operated::Operated;
use crate::queue::promote::PromotionWalk;
use crate::queue::remove::RemovalWalk;
use crate::queue::walk::Step;
use crate::queue::{Order, Queue, QueueError};

/// Operations that are remembered after their end.
const REMEMBERED_MAX: usize = 100;
/// Operations at the same time: each keeps Redis busy a part of the time.
const RUNNING_MAX: usize = 8;
/// Jobs of one step of our own walks.
const PAGE: usize = 128;

/// The operations of this process, newest first.
#[derive(Debug, Default)]
pub(super) struct Operations {
    all: Mutex<VecDeque<Arc<Operation>>>,
    started: AtomicU64,
}

/// One operation.
#[derive(Debug)]
pub(super) struct Operation {
    pub(super) id: String,
    /// Name of the queue.
    pub(super) queue: String,
    /// What is done, as a sentence goes on: "retrying all dead letters".
    pub(super) what: String,
    /// How many jobs there were about.
    pub(super) total: u64,
    pub(super) by: String,
    pub(super) started_at: Timestamp,
    progress: Mutex<Progress>,
    stop: CancellationToken,
}

/// How far it is.
#[derive(Clone, Debug)]
pub(super) struct Progress {
    /// Jobs it looked at.
    pub(super) looked_at: u64,
    /// Those it did something with.
    pub(super) done: u64,
    pub(super) state: OperationState,
    pub(super) ended_at: Option<Timestamp>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum OperationState {
    Running,
    Ended,
    /// Somebody stopped it, or the process ends.
    Stopped,
    Failed(String),
}

impl OperationState {
    pub(super) fn word(&self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Ended => "ended",
            Self::Stopped => "stopped",
            Self::Failed(_) => "failed",
        }
    }
}

impl Operation {
    pub(super) fn progress(&self) -> Progress {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn change(&self, change: impl FnOnce(&mut Progress)) {
        change(&mut self.progress.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Ends it between two steps.
    pub(super) fn stop(&self) {
        self.stop.cancel();
    }

    pub(super) fn json(&self) -> Value {
        let Progress { looked_at, done, state, ended_at } = self.progress();
        let error = if let OperationState::Failed(error) = &state { Some(error) } else { None };
        json!({
            "id": self.id, "queue": self.queue, "what": self.what, "by": self.by, "state": state.word(),
            "total": self.total, "lookedAt": looked_at, "done": done, "error": error,
            "startedAt": self.started_at, "endedAt": ended_at,
        })
    }
}

impl Operations {
    pub(super) fn all(&self) -> Vec<Arc<Operation>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    pub(super) fn find(&self, id: &str) -> Option<Arc<Operation>> {
        self.all().into_iter().find(|operation| operation.id == id)
    }

    /// Starts one.
    ///
    /// # Errors
    /// [`ApiError::Conflict`] when too many run.
    pub(super) fn start(
        app: &Arc<App>,
        queue: &Queue,
        by: String,
        (what, total): (String, u64),
        mut walk: Walk,
    ) -> Result<Arc<Operation>, ApiError> {
        let operations = &app.operations;
        let mut all = operations.all.lock().unwrap_or_else(PoisonError::into_inner);
        let running = all.iter().filter(|operation| operation.progress().state == OperationState::Running).count();
        if running >= RUNNING_MAX {
            return Err(ApiError::Conflict(format!(
                "{running} operations run already; wait for one to end, or stop it"
            )));
        }
        let number = operations.started.fetch_add(1, Ordering::Relaxed) + 1;
        let operation = Arc::new(Operation {
            // Those of an earlier process have other ids.
            id: format!("{:x}-{number}", app.started_at.as_second()),
            queue: queue.name().to_owned(),
            what,
            total,
            by,
            started_at: Timestamp::now(),
            progress: Mutex::new(Progress { looked_at: 0, done: 0, state: OperationState::Running, ended_at: None }),
            stop: app.shutdown.child_token(),
        });
        all.push_front(operation.clone());
        while all.len() > REMEMBERED_MAX
            && all.back().is_some_and(|oldest| oldest.progress().state != OperationState::Running)
        {
            all.pop_back();
        }
        drop(all);
        let (running, app, queue) = (operation.clone(), app.clone(), queue.clone());
        app.clone().starts.spawn(async move {
            let state = running.go_through(&queue, &mut walk).await;
            let Progress { looked_at, done, .. } = running.progress();
            tracing::info!(
                audit = true,
                operation = running.id,
                queue = running.queue,
                looked_at,
                done,
                by = running.by,
                "{} of {} {}: {done} of {looked_at} jobs",
                running.what,
                running.queue,
                state.word()
            );
            running.change(|progress| (progress.state, progress.ended_at) = (state, Some(Timestamp::now())));
            app.shared.changed();
        });
        Ok(operation)
    }
}

impl Operation {
    async fn go_through(&self, queue: &Queue, walk: &mut Walk) -> OperationState {
        loop {
            if self.stop.is_cancelled() {
                return OperationState::Stopped;
            }
            match walk.step(queue).await {
                Ok(Some(step)) => self.change(|progress| {
                    progress.looked_at += step.looked_at as u64;
                    progress.done += step.done as u64;
                }),
                Ok(None) => return OperationState::Ended,
                Err(error) => return OperationState::Failed(chain(&error)),
            }
            // Workers and producers have their turn at Redis in between.
            tokio::task::yield_now().await;
        }
    }
}

/// What goes through the jobs of a queue, a page a step.
#[derive(Debug)]
pub(super) enum Walk {
    Promote(PromotionWalk),
    Remove(RemovalWalk),
    Obliterate(Box<ObliterateWalk>),
    Letters(LettersWalk),
    RetryCompleted(RetryCompletedWalk),
}

impl Walk {
    async fn step(&mut self, queue: &Queue) -> Result<Option<Step>, QueueError> {
        match self {
            Self::Promote(walk) => walk.step().await,
            Self::Remove(walk) => walk.step().await,
            Self::Obliterate(walk) => walk.step().await,
            Self::Letters(walk) => walk.step(queue).await,
            Self::RetryCompleted(walk) => walk.step(queue).await,
        }
    }
}

/// What is done with dead letters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WithLetters {
    Redrive,
    Remove,
}

/// Which dead letters are meant; all that is set must hold.
#[derive(Clone, Debug, Default)]
pub(super) struct LetterFilter {
    /// Part of the reason, whatever its case.
    pub(super) reason: Option<String>,
    /// The reason is of this group ([`reason_group`]).
    pub(super) group: Option<String>,
}

/// Redrives or removes the dead letters there are when it begins.
#[derive(Debug)]
pub(super) struct LettersWalk {
    filter: LetterFilter,
    with: WithLetters,
    after: Option<EntryId>,
    until: Option<EntryId>,
}

impl LettersWalk {
    pub(super) async fn begin(queue: &Queue, filter: LetterFilter, with: WithLetters) -> Result<Self, QueueError> {
        let reason = filter.reason.map(|reason| reason.to_lowercase());
        Ok(Self {
            filter: LetterFilter { reason, ..filter },
            with,
            after: None,
            until: queue.last_dead_letter().await?,
        })
    }

    async fn step(&mut self, queue: &Queue) -> Result<Option<Step>, QueueError> {
        let Some(until) = self.until else { return Ok(None) };
        let mut letters = queue.dead_letters(self.after, PAGE).await?;
        letters.retain(|letter| letter.entry <= until);
        let Some(last) = letters.last() else { return Ok(None) };
        self.after = Some(last.entry);
        let looked_at = letters.len();
        let LetterFilter { reason, group } = &self.filter;
        letters.retain(|letter| {
            reason.as_ref().is_none_or(|part| letter.reason.to_lowercase().contains(part))
                && group.as_ref().is_none_or(|group| reason_group(&letter.reason) == *group)
        });
        let done = match self.with {
            WithLetters::Redrive => queue.redrive(&letters).await?.redriven,
            WithLetters::Remove => {
                let ids: Vec<JobId> = letters.into_iter().filter_map(|letter| letter.id).collect();
                count_done(&queue.remove(&ids, forget_item).await?)
            }
        };
        Ok(Some(Step { looked_at, done }))
    }
}

/// Brings back the completed jobs that are kept.
#[derive(Debug, Default)]
pub(super) struct RetryCompletedWalk {
    cursor: Option<Cursor>,
    has_begun: bool,
}

impl RetryCompletedWalk {
    async fn step(&mut self, queue: &Queue) -> Result<Option<Step>, QueueError> {
        if self.has_begun && self.cursor.is_none() {
            return Ok(None);
        }
        self.has_begun = true;
        // Downwards: what is done again meanwhile comes in where this was already.
        let page = queue.list(ListState::Completed, Order::Descending, self.cursor.as_ref(), PAGE).await?;
        let ids: Vec<JobId> = page.jobs.into_iter().filter_map(|job| job.id).collect();
        self.cursor = page.next;
        Ok(Some(Step { looked_at: ids.len(), done: count_done(&queue.retry(&ids).await?) }))
    }
}

fn count_done(answers: &[Operated]) -> usize {
    answers.iter().filter(|answer| **answer == Operated::Done).count()
}
