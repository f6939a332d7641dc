//! Operations on many jobs: each runs on the server to its end, in bounded steps, while whoever asked for it may leave.
//!
//! ```text
//!   start ──▶ running ──step, step, …──▶ ended
//!                ├── stop, or the process ends ──▶ stopped      ┐ done again, it goes on
//!                └── the process dies ──▶ interrupted           ┘ with what is left
//! ```
//!
//! Each notes in Redis how far it is, and is told with that whether it is to stop: so every process of the dashboard shows
//! and stops those of all, and what was under way when one died is not forgotten.
//!
//! *Crash:* every step is one script over one page, so what was reached is done whole and the rest is as it was. The last
//! note may be a quarter of a second, or a step, behind what was done.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::dead_groups::reason_group;
use super::live::SECOND;
use super::{ApiError, App};
use crate::error::chain;
use crate::import::forget_item;
use crate::job::{EntryId, JobId};
use crate::queue::list::{Cursor, ListState};
use crate::queue::noted_operations::NotedOperation;
use crate::queue::obliterate::ObliterateWalk;
use crate::queue::operated::Operated;
use crate::queue::promote::PromotionWalk;
use crate::queue::remove::RemovalWalk;
use crate::queue::walk::Step;
use crate::queue::{Order, Queue, QueueError, Redis};

/// Operations of this process that are remembered after their end.
const REMEMBERED_MAX: usize = 100;
/// Operations at the same time: each keeps Redis busy a part of the time.
const RUNNING_MAX: usize = 8;
/// Jobs of one step of our own walks.
const PAGE: usize = 128;
/// How often an operation is noted at least, but for the time of a step: as soon it stops that is stopped elsewhere.
const NOTED_EVERY: Duration = Duration::from_millis(250);
/// From a note that is this old on, an operation that is said to run has lost its process.
const SILENT_FOR: Duration = Duration::from_secs(10);

/// The operations of this process, newest first.
#[derive(Debug, Default)]
pub(super) struct Operations {
    all: Mutex<VecDeque<Arc<Operation>>>,
}

/// One operation of this process.
#[derive(Debug)]
pub(super) struct Operation {
    about: Mutex<About>,
    stop: CancellationToken,
}

/// What is told of an operation, and noted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct About {
    pub(super) id: String,
    /// Name of the queue.
    pub(super) queue: String,
    /// What is done, as a sentence goes on: "retrying all dead letters".
    pub(super) what: String,
    pub(super) by: String,
    /// Where it runs: host and process id.
    pub(super) process: String,
    pub(super) state: OperationState,
    /// Whether somebody wants it to stop: it ends after the step under way.
    #[serde(default)]
    pub(super) is_to_stop: bool,
    /// How many jobs there were about.
    pub(super) total: u64,
    /// Jobs it looked at.
    pub(super) looked_at: u64,
    /// Those it did something with.
    pub(super) done: u64,
    pub(super) error: Option<String>,
    pub(super) started_at: Timestamp,
    pub(super) ended_at: Option<Timestamp>,
    /// By which it is done again.
    pub(super) task: Task,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum OperationState {
    Running,
    Ended,
    /// Somebody stopped it, or the process was told to end.
    Stopped,
    Failed,
    /// Its process died.
    Interrupted,
}

impl OperationState {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Ended => "ended",
            Self::Stopped => "stopped",
            Self::Failed => "failed",
            Self::Interrupted => "interrupted",
        }
    }
}

/// What is done with many jobs of a queue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub(super) enum Task {
    Redrive(LetterFilter),
    RemoveDead(LetterFilter),
    RetryCompleted,
    Promote,
    /// `grace_ms`: how long ago they must have come into that state.
    Clean {
        state: String,
        grace_ms: u64,
        limit: Option<usize>,
    },
    Drain {
        delayed: bool,
    },
    Obliterate {
        force: bool,
    },
}

impl About {
    /// Whether it came to no end, and can be done again without being asked for anew: not what deletes a queue.
    pub(super) fn may_go_on(&self) -> bool {
        let is_cut_off =
            matches!(self.state, OperationState::Interrupted | OperationState::Stopped | OperationState::Failed);
        is_cut_off && !matches!(self.task, Task::Obliterate { .. })
    }

    /// Of a note; one that is written by a later version, or damaged, is none.
    fn of(noted: &NotedOperation) -> Option<Self> {
        let mut about: Self = serde_json::from_str(&noted.note).ok()?;
        if about.state == OperationState::Running && noted.age > SILENT_FOR {
            about.state = OperationState::Interrupted;
        }
        about.is_to_stop |= noted.is_to_stop;
        Some(about)
    }
}

impl Operation {
    pub(super) fn about(&self) -> About {
        self.about.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn is_running(&self) -> bool {
        self.about.lock().unwrap_or_else(PoisonError::into_inner).state == OperationState::Running
    }

    fn change(&self, change: impl FnOnce(&mut About)) {
        change(&mut self.about.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Ends it between two steps.
    pub(super) fn stop(&self) {
        self.change(|about| about.is_to_stop = true);
        self.stop.cancel();
    }
}

/// The operations of all processes, the latest first. Without Redis, those of this one.
pub(super) async fn all(app: &App) -> Vec<About> {
    let load = async {
        let noted = app.queues.import.redis().noted_operations().await?;
        Ok(noted.iter().filter_map(About::of).collect::<Vec<_>>())
    };
    let own: Vec<About> = app.operations.own().iter().map(|operation| operation.about()).collect();
    let mut all = match app.shared.get("operations", SECOND, load).await {
        Ok(noted) => (*noted).clone(),
        Err(error) => {
            tracing::debug!(%error, "operations of other processes cannot be read");
            Vec::new()
        }
    };
    all.retain(|noted| own.iter().all(|own| own.id != noted.id));
    all.extend(own);
    all.sort_by(|a, b| b.id.cmp(&a.id));
    all
}

/// Lets the process that runs an operation end it between two steps, whichever process that is; returns what is known of it.
///
/// # Errors
/// [`ApiError::Missing`]; [`ApiError::Conflict`] when it does not run.
pub(super) async fn stop(app: &App, id: &str) -> Result<About, ApiError> {
    let missing = || ApiError::Missing { what: "operation", name: id.chars().take(200).collect() };
    let is_over = |state: OperationState| ApiError::Conflict(format!("operation {id} is {} already", state.word()));
    if let Some(own) = app.operations.find_own(id) {
        if !own.is_running() {
            return Err(is_over(own.about().state));
        }
        own.stop();
        return Ok(own.about());
    }
    let redis = app.queues.import.redis();
    // Not from what is shared: that may be older than the operation.
    let noted = redis.noted_operations().await?;
    let about = noted.iter().find(|noted| noted.id == id).and_then(About::of).ok_or_else(missing)?;
    if about.state != OperationState::Running {
        return Err(is_over(about.state));
    }
    if !redis.stop_operation(id).await? {
        return Err(missing());
    }
    Ok(About { is_to_stop: true, ..about })
}

/// One of them.
///
/// # Errors
/// [`ApiError::Missing`].
pub(super) async fn find(app: &App, id: &str) -> Result<About, ApiError> {
    let missing = || ApiError::Missing { what: "operation", name: id.chars().take(200).collect() };
    all(app).await.into_iter().find(|operation| operation.id == id).ok_or_else(missing)
}

impl Operations {
    /// Those of this process.
    fn own(&self) -> Vec<Arc<Operation>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    /// How many run in this process.
    pub(super) fn running(&self) -> usize {
        self.own().iter().filter(|operation| operation.is_running()).count()
    }

    /// The one of this process with this id.
    pub(super) fn find_own(&self, id: &str) -> Option<Arc<Operation>> {
        self.own().into_iter().find(|operation| operation.about().id == id)
    }

    /// Starts one; returns it once it is noted.
    ///
    /// # Errors
    /// [`ApiError::Conflict`] when too many run.
    pub(super) async fn start(
        app: &Arc<App>,
        queue: &Queue,
        by: String,
        (what, total, task): (String, u64, Task),
        mut walk: Walk,
    ) -> Result<About, ApiError> {
        let started_at = Timestamp::now();
        let about = About {
            // Later ones are greater, and no two processes have the same.
            id: format!("{:x}{:05x}", started_at.as_millisecond(), fastrand::u32(..1 << 20)),
            queue: queue.name().to_owned(),
            what,
            by,
            process: format!("{}:{}", gethostname::gethostname().to_string_lossy(), std::process::id()),
            state: OperationState::Running,
            is_to_stop: false,
            total,
            looked_at: 0,
            done: 0,
            error: None,
            started_at,
            ended_at: None,
            task,
        };
        let operation = Arc::new(Operation { about: Mutex::new(about.clone()), stop: app.shutdown.child_token() });
        {
            let mut all = app.operations.all.lock().unwrap_or_else(PoisonError::into_inner);
            let running = all.iter().filter(|operation| operation.is_running()).count();
            if running >= RUNNING_MAX {
                return Err(ApiError::Conflict(format!(
                    "{running} operations run already; wait for one to end, or stop it"
                )));
            }
            all.push_front(operation.clone());
            while all.len() > REMEMBERED_MAX && all.back().is_some_and(|oldest| !oldest.is_running()) {
                all.pop_back();
            }
        }
        operation.note(queue.redis()).await;
        let (running, app, queue) = (operation, app.clone(), queue.clone());
        app.clone().starts.spawn(async move {
            let (state, error) = running.go_through(&queue, &mut walk).await;
            running.change(|about| {
                (about.state, about.error, about.ended_at) = (state, error, Some(Timestamp::now()));
            });
            running.note(queue.redis()).await;
            let About { id, queue, what, by, looked_at, done, .. } = running.about();
            tracing::info!(
                audit = true,
                operation = id,
                queue,
                looked_at,
                done,
                by,
                "{what} of {queue} {}: {done} of {looked_at} jobs",
                state.word()
            );
            app.shared.changed();
        });
        Ok(about)
    }
}

impl Operation {
    async fn go_through(&self, queue: &Queue, walk: &mut Walk) -> (OperationState, Option<String>) {
        let mut noted_at = Instant::now();
        loop {
            if self.stop.is_cancelled() {
                return (OperationState::Stopped, None);
            }
            match walk.step(queue).await {
                Ok(Some(step)) => self.change(|about| {
                    about.looked_at += step.looked_at as u64;
                    about.done += step.done as u64;
                }),
                Ok(None) => return (OperationState::Ended, None),
                Err(error) => return (OperationState::Failed, Some(chain(&error))),
            }
            if noted_at.elapsed() >= NOTED_EVERY {
                noted_at = Instant::now();
                self.note(queue.redis()).await;
            }
            // Workers and producers have their turn at Redis in between.
            tokio::task::yield_now().await;
        }
    }

    /// Without its note an operation goes on: others neither see nor stop it, and after a crash nobody knows of it.
    async fn note(&self, redis: &Redis) {
        let about = self.about();
        let note = serde_json::to_string(&about).expect("texts and numbers are JSON");
        match redis.note_operation(&about.id, &note).await {
            Ok(false) => {}
            Ok(true) => self.stop(),
            Err(error) => {
                tracing::warn!(error = %chain(&error), operation = about.id, "operation {} cannot be noted", about.id);
            }
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
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct LetterFilter {
    /// Part of the reason, whatever its case.
    pub(super) reason: Option<String>,
    /// The reason is of this group ([`reason_group`]).
    pub(super) group: Option<String>,
}

impl LetterFilter {
    /// Which they are.
    pub(super) fn in_words(&self) -> String {
        match (&self.group, &self.reason) {
            (None, None) => "all dead letters".to_owned(),
            (Some(group), _) => format!("dead letters “{group}”"),
            (None, Some(reason)) => format!("dead letters with “{reason}”"),
        }
    }
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
