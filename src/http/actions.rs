//! What changes something: one function for each action, for forms and API alike, with a line in the log that says who did
//! what and what came of it (`audit=true`).

use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use super::guard::Viewer;
use super::operations::{self, About, LettersWalk, Operations, RetryCompletedWalk, Task, Walk, WithLetters};
use super::{ApiError, App, readings};
use crate::error::chain;
use crate::import::{self, StartRequest, forget_item};
use crate::job::{Envelope, JobId, JobOptions};
use crate::queue::enqueue::{Deduplication, Enqueued, NewJob};
use crate::queue::limits::{LimitChanges, SetBy};
use crate::queue::operated::{Operated, StateName};
use crate::queue::{Queue, QueueError};

/// Jobs that one request may name.
pub(super) const IDS_MAX: usize = 1000;

/// What is done to single jobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verb {
    Retry,
    Promote,
    Remove,
    Cancel,
}

impl Verb {
    pub(super) const ALL: [Self; 4] = [Self::Retry, Self::Promote, Self::Remove, Self::Cancel];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Retry => "retry",
            Self::Promote => "promote",
            Self::Remove => "remove",
            Self::Cancel => "cancel",
        }
    }

    fn past(self) -> &'static str {
        match self {
            Self::Retry => "waits again, at attempt 1",
            Self::Promote => "waits now",
            Self::Remove => "is removed",
            Self::Cancel => "is cancelled",
        }
    }

    pub(super) fn of(name: &str) -> Result<Self, ApiError> {
        let unknown = || ApiError::BadRequest(format!("action {name:?}: accepted are retry, promote, remove, cancel"));
        Self::ALL.into_iter().find(|verb| verb.name() == name).ok_or_else(unknown)
    }
}

/// A job to be added, as clients write it.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Asked {
    pub(super) id: Option<String>,
    pub(super) name: Option<String>,
    pub(super) payload: Value,
    pub(super) delay_ms: Option<u64>,
    pub(super) priority: Option<u32>,
    pub(super) group: Option<String>,
    pub(super) attempts: Option<u8>,
    pub(super) dedup: Option<String>,
}

/// What to change of a job, as clients write it.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Changes {
    pub(super) payload: Option<Value>,
    pub(super) delay_ms: Option<u64>,
    pub(super) priority: Option<u32>,
}

/// Somebody who does something.
pub(super) struct Actor<'a> {
    pub(super) app: &'a Arc<App>,
    pub(super) viewer: &'a Viewer,
}

/// Longest delay that is accepted: ten years.
const DELAY_MS_MAX: u64 = 10 * 366 * 24 * 3600 * 1000;

impl Actor<'_> {
    fn by(&self) -> String {
        self.viewer.name(self.app)
    }

    /// Writes what was done into the log, and lets nobody see what was read before.
    pub(super) fn did(&self, action: &str, on: &str, said: String) -> String {
        tracing::info!(audit = true, action, on, by = self.by(), "{action} {on}: {said}");
        self.app.shared.changed();
        said
    }

    /// The queue of this name, opened.
    pub(super) async fn queue(&self, name: &str) -> Result<Queue, ApiError> {
        let found = self.app.queues.named(name).await?;
        found.ok_or_else(|| ApiError::QueueNotFound(name.chars().take(200).collect()))
    }

    pub(super) async fn pause(&self, queue: &Queue, pause: bool) -> Result<String, ApiError> {
        let name = queue.name();
        Ok(if pause {
            let said = if queue.pause().await? { "is paused" } else { "was paused already" };
            self.did("pause", name, format!("{name} {said}"))
        } else {
            let said = if queue.resume().await? { "goes on" } else { "was not paused" };
            self.did("resume", name, format!("{name} {said}"))
        })
    }

    /// Pauses every queue, or lets them go on.
    pub(super) async fn pause_all(&self, pause: bool) -> Result<String, ApiError> {
        let mut said = Vec::new();
        for name in readings::names(self.app).await?.iter() {
            said.push(self.pause(&self.queue(name).await?, pause).await?);
        }
        Ok(said.join(", "))
    }

    /// Does something to single jobs; says of each what became of it, in order.
    pub(super) async fn each(
        &self,
        queue: &Queue,
        verb: Verb,
        ids: &[JobId],
    ) -> Result<(String, Vec<Operated>), ApiError> {
        if ids.len() > IDS_MAX {
            return Err(ApiError::BadRequest(format!("{} ids; at most {IDS_MAX} are accepted", ids.len())));
        }
        let answers = match verb {
            Verb::Retry => queue.retry(ids).await?,
            Verb::Promote => queue.promote_now(ids).await?,
            Verb::Remove => queue.remove(ids, forget_item).await?,
            Verb::Cancel => {
                let mut answers = Vec::with_capacity(ids.len());
                for id in ids {
                    answers.push(queue.cancel(id).await?);
                }
                answers
            }
        };
        let done = answers.iter().filter(|answer| **answer == Operated::Done).count();
        let said = match (ids, answers.as_slice()) {
            ([id], [Operated::Done]) => format!("{id} {}", verb.past()),
            ([id], [answer]) => {
                told(id, verb.name(), *answer).map_or_else(|error| error.to_string(), |()| String::new())
            }
            _ => format!("{}: {done} of {} jobs", verb.name(), ids.len()),
        };
        let on = ids.first().filter(|_| ids.len() == 1).map_or_else(String::new, |id| format!(" {id}"));
        Ok((self.did(verb.name(), &format!("{}{on}", queue.name()), said), answers))
    }

    /// As [`Actor::each`] for one job, of which it is an error if nothing was done.
    pub(super) async fn one(&self, queue: &Queue, verb: Verb, id: &JobId) -> Result<String, ApiError> {
        let (said, answers) = self.each(queue, verb, std::slice::from_ref(id)).await?;
        told(id, verb.name(), answers[0])?;
        Ok(said)
    }

    async fn start(
        &self,
        queue: &Queue,
        (what, total, task): (&str, u64, Task),
        walk: Walk,
    ) -> Result<About, ApiError> {
        let operation = Operations::start(self.app, queue, self.by(), (what.to_owned(), total, task), walk).await?;
        self.did(what, queue.name(), format!("operation {} begins, over about {total} jobs", operation.id));
        Ok(operation)
    }

    /// Starts what is done with many jobs of a queue.
    pub(super) async fn operate(&self, queue: &Queue, task: Task) -> Result<About, ApiError> {
        let counts = queue.counts().await?;
        let given = task.clone();
        match task {
            Task::Redrive(filter) => {
                let what = format!("redriving {}", filter.in_words());
                let walk = LettersWalk::begin(queue, filter, WithLetters::Redrive).await?;
                self.start(queue, (&what, counts.failed, given), Walk::Letters(walk)).await
            }
            Task::RemoveDead(filter) => {
                let what = format!("removing {}", filter.in_words());
                let walk = LettersWalk::begin(queue, filter, WithLetters::Remove).await?;
                self.start(queue, (&what, counts.failed, given), Walk::Letters(walk)).await
            }
            Task::RetryCompleted => {
                let walk = Walk::RetryCompleted(RetryCompletedWalk::default());
                self.start(queue, ("retrying all completed jobs", counts.completed, given), walk).await
            }
            Task::Promote => {
                let walk = Walk::Promote(queue.promote_all().await?);
                self.start(queue, ("promoting all delayed jobs", counts.delayed, given), walk).await
            }
            Task::Clean { state, grace_ms, limit } => {
                let state = cleanable(&state)?;
                let total = counts.by_state().into_iter().find(|(name, _)| *name == state.name());
                let total = total.map_or(0, |(_, jobs)| jobs);
                let walk = queue.clean(state, Duration::from_millis(grace_ms), limit, forget_item).await?;
                let what = format!("cleaning {} jobs", state.name());
                self.start(queue, (&what, total, given), Walk::Remove(walk)).await
            }
            Task::Drain { delayed } => {
                let total = counts.waiting + counts.prioritized + if delayed { counts.delayed } else { 0 };
                let walk = Walk::Remove(queue.drain(delayed, forget_item));
                self.start(queue, ("draining", total, given), walk).await
            }
            Task::Obliterate { force } => {
                let name = queue.name();
                if !counts.is_paused {
                    return Err(QueueError::NotPaused { queue: name.to_owned() }.into());
                }
                if counts.active > 0 && !force {
                    let jobs = counts.active as usize;
                    return Err(QueueError::HasActive { queue: name.to_owned(), jobs }.into());
                }
                let total = counts.by_state().into_iter().map(|(_, jobs)| jobs).sum();
                let walk = Walk::Obliterate(Box::new(queue.obliterate(force)));
                self.start(queue, ("obliterating", total, given), walk).await
            }
        }
    }

    /// Deletes a queue. `typed` is what somebody typed to say that they mean it: the name of the queue.
    pub(super) async fn obliterate(&self, queue: &Queue, typed: &str, force: bool) -> Result<About, ApiError> {
        let name = queue.name();
        if typed.trim() != name {
            return Err(ApiError::BadRequest(format!(
                "to confirm, type the name of the queue, {name}; nothing was done"
            )));
        }
        self.operate(queue, Task::Obliterate { force }).await
    }

    /// Does an operation that came to no end again: with what is left, and what has come since.
    pub(super) async fn go_on(&self, id: &str) -> Result<About, ApiError> {
        let operation = operations::find(self.app, id).await?;
        if !operation.may_go_on() {
            let state = operation.state.word();
            return Err(ApiError::Conflict(format!("operation {id} is {state}: there is nothing to go on with")));
        }
        let queue = self.queue(&operation.queue).await?;
        self.operate(&queue, operation.task).await
    }

    /// Sets how many jobs are active at once over all workers; `None` is no limit.
    pub(super) async fn limit_concurrency(&self, queue: &Queue, limit: Option<u64>) -> Result<String, ApiError> {
        if limit == Some(0) {
            return Err(ApiError::BadRequest(
                "concurrency: at least 1, or nothing; to start none, pause the queue".to_owned(),
            ));
        }
        let changes = LimitChanges { concurrency: Some(limit), ..LimitChanges::default() };
        queue.set_limits(changes, SetBy::Operator).await?;
        let said = match limit {
            Some(limit) => format!("at most {limit} jobs are active at once"),
            None => "there is no limit of active jobs".to_owned(),
        };
        Ok(self.did("limit concurrency", queue.name(), said))
    }

    /// Largest payload of a job of this queue, in bytes.
    pub(super) fn payload_max(&self, queue: &Queue) -> usize {
        let [import, fetch] = self.app.options.payload_max_bytes;
        if queue.name() == self.app.queues.fetch.name() { fetch } else { import }
    }

    fn is_of_feeds(&self, queue: &Queue) -> bool {
        [&self.app.queues.import, &self.app.queues.fetch].into_iter().any(|own| own.name() == queue.name())
    }

    /// Adds a job: its id, and what became of it.
    pub(super) async fn add(&self, queue: &Queue, asked: Asked) -> Result<(JobId, &'static str), ApiError> {
        let wrong = |what: String| ApiError::BadRequest(what);
        if asked.attempts == Some(0) {
            return Err(wrong("attempts is 0; accepted: 1 to 255".to_owned()));
        }
        if asked.delay_ms.is_some_and(|delay| delay > DELAY_MS_MAX) {
            return Err(wrong(format!("delayMs: at most {DELAY_MS_MAX} is accepted")));
        }
        let json = asked.payload.to_string().into_bytes();
        let payload = self.app.queues.payload_for(queue, json).map_err(|why| wrong(format!("payload: {why}")))?;
        let id = match (asked.id.filter(|id| !id.is_empty()), payload.id.clone()) {
            (Some(id), known) => {
                let id = JobId::new(id).map_err(QueueError::from)?;
                match known.filter(|known| *known != id) {
                    Some(known) => return Err(wrong(format!("the payload is that of job {known}; leave the id out"))),
                    None => id,
                }
            }
            (None, Some(known)) => known,
            (None, None) => return Err(wrong(format!("which id? Jobs of {} need one", queue.name()))),
        };
        let group = match &payload.group {
            Some(source) => Some(self.app.options.grouping.of_source(source).into_owned()),
            None if queue.name() == self.app.queues.fetch.name() => {
                self.app.feeds.find(&id.to_string()).map(|feed| feed.fetch_group.clone())
            }
            None => None,
        };
        let group = asked.group.or(group).filter(|group| !group.is_empty());
        let dedup = asked.dedup.filter(|dedup| !dedup.is_empty());
        let options = JobOptions { attempts: asked.attempts, dedup: dedup.clone(), ..JobOptions::default() }.encode();
        let envelope = Envelope {
            payload: &payload.bytes,
            fingerprint: payload.fingerprint,
            name: asked.name.as_deref().filter(|name| !name.is_empty()),
            options: Some(&options),
            ..Envelope::default()
        };
        let job = NewJob {
            delay: Duration::from_millis(asked.delay_ms.unwrap_or(0)),
            priority: asked.priority.unwrap_or(0),
            group: group.as_deref(),
            dedup: dedup.as_deref().map(Deduplication::simple),
            ..NewJob::new(id.clone(), envelope)
        };
        let word = match queue.add(&[job], self.payload_max(queue)).await?.remove(0) {
            Enqueued::Enqueued => "enqueued",
            Enqueued::Changed => "changed",
            Enqueued::Duplicate => "duplicate",
            Enqueued::Deduplicated(_) => "deduplicated",
            Enqueued::Refused(reason) => return Err(ApiError::Conflict(format!("job {id} was refused: {reason}"))),
        };
        self.did("add", &format!("{} {id}", queue.name()), word.to_owned());
        Ok((id, word))
    }

    /// Adds a copy of a job under another id.
    pub(super) async fn duplicate(&self, queue: &Queue, id: &JobId) -> Result<JobId, ApiError> {
        if self.is_of_feeds(queue) {
            let what = "its id follows from its payload, so there cannot be two of it; retry it, or import the feed";
            return Err(ApiError::Conflict(what.to_owned()));
        }
        let found = queue.find(id).await?.ok_or_else(|| ApiError::JobNotFound(id.to_string()))?;
        let copy = JobId::new([id.as_bytes(), format!("~{:08x}", fastrand::u32(..)).as_bytes()].concat());
        let copy = copy.map_err(QueueError::from)?;
        let options = found.job.options.as_ref().map(|options| {
            // The deduplication id is the original's.
            JobOptions { dedup: None, ..(**options).clone() }.encode()
        });
        let envelope = Envelope {
            payload: found.job.payload(),
            name: found.job.name.as_deref(),
            options: options.as_deref(),
            ..Envelope::default()
        };
        let group = String::from_utf8_lossy(&found.job.head.group).into_owned();
        let job = NewJob {
            priority: found.job.head.priority,
            group: Some(group.as_str()).filter(|group| !group.is_empty()),
            ..NewJob::new(copy.clone(), envelope)
        };
        if let Enqueued::Refused(reason) = queue.add(&[job], self.payload_max(queue)).await?.remove(0) {
            return Err(ApiError::Conflict(format!("job {copy} was refused: {reason}")));
        }
        self.did("duplicate", &format!("{} {id}", queue.name()), format!("{copy} is enqueued"));
        Ok(copy)
    }

    /// Changes a job where it stands.
    pub(super) async fn update(&self, queue: &Queue, id: &JobId, changes: Changes) -> Result<String, ApiError> {
        let mut said = Vec::new();
        if let Some(payload) = changes.payload {
            let json = payload.to_string().into_bytes();
            let payload = self.app.queues.payload_for(queue, json);
            let payload = payload.map_err(|why| ApiError::BadRequest(format!("payload: {why}")))?;
            if let Some(other) = payload.id.filter(|other| other != id) {
                return Err(ApiError::BadRequest(format!("the payload is that of job {other}, and not of {id}")));
            }
            told(
                id,
                "change the payload of",
                queue.update_payload(id, &payload.bytes, self.payload_max(queue)).await?,
            )?;
            said.push("payload replaced".to_owned());
        }
        if let Some(delay_ms) = changes.delay_ms {
            if delay_ms > DELAY_MS_MAX {
                return Err(ApiError::BadRequest(format!("delayMs: at most {DELAY_MS_MAX} is accepted")));
            }
            told(id, "delay", queue.change_delay(id, Duration::from_millis(delay_ms)).await?)?;
            said.push(format!("due in {delay_ms} ms"));
        }
        if let Some(priority) = changes.priority {
            told(id, "change the priority of", queue.change_priority(id, priority).await?)?;
            said.push(format!("priority {priority}"));
        }
        if said.is_empty() {
            return Err(ApiError::BadRequest("nothing to change; accepted: payload, delayMs, priority".to_owned()));
        }
        Ok(self.did("change", &format!("{} {id}", queue.name()), said.join(", ")))
    }

    /// Starts the import of a feed: its id.
    pub(super) async fn import_feed(&self, name: &str) -> Result<String, ApiError> {
        let feed =
            self.app.feeds.find(name).ok_or_else(|| ApiError::Missing { what: "feed", name: name.to_owned() })?;
        let (app, request) = (self.app.clone(), StartRequest { asked: true, ..StartRequest::default() });
        let starting = async move { import::start(&app.queues.import, &app.queues.fetch, [&*feed], &request).await };
        let started =
            self.app.starts.spawn(starting).await.map_err(|error| ApiError::Internal(error.to_string()))??;
        let import = started.first().map(|started| started.import.to_string()).unwrap_or_default();
        self.did("import", name, format!("import {import}"));
        Ok(import)
    }

    /// Lets the schedule of a subscription rest, or go on.
    pub(super) async fn pause_feed(&self, name: &str, pause: bool) -> Result<String, ApiError> {
        if !self.app.store.pause_subscription(name, pause).await? {
            let file = &self.app.options.config_file;
            return Err(match self.app.feeds.find(name) {
                Some(_) => ApiError::Conflict(format!("{name} is a feed of {file}: change its schedule there")),
                None => ApiError::Missing { what: "feed", name: name.chars().take(200).collect() },
            });
        }
        if let Err(error) = self.app.feeds.refresh().await {
            tracing::debug!(error = %chain(&error), "subscriptions cannot be read; they are, later");
        }
        let said = if pause { "its schedule rests" } else { "its schedule goes on" };
        Ok(self.did(if pause { "pause feed" } else { "resume feed" }, name, format!("{name}: {said}")))
    }

    pub(super) async fn stop(&self, id: &str) -> Result<About, ApiError> {
        let operation = operations::stop(self.app, id).await?;
        self.did("stop", id, format!("{} ends after this step", operation.what));
        Ok(operation)
    }
}

/// The state of this name, if jobs in it can be cleaned.
fn cleanable(name: &str) -> Result<StateName, ApiError> {
    let states =
        [StateName::Completed, StateName::Failed, StateName::Waiting, StateName::Delayed, StateName::Prioritized];
    let accepted = states.map(StateName::name).join(", ");
    let unknown = || ApiError::BadRequest(format!("no jobs in state {name:?} can be cleaned; accepted: {accepted}"));
    states.into_iter().find(|known| known.name() == name).ok_or_else(unknown)
}

/// An error unless it was done.
pub(super) fn told(id: &JobId, verb: &str, answer: Operated) -> Result<(), ApiError> {
    match answer {
        Operated::Done => Ok(()),
        Operated::Missing => Err(ApiError::JobNotFound(id.to_string())),
        Operated::Refused(state) => {
            Err(ApiError::Conflict(format!("cannot {verb} {id}: it is {}; nothing was done", state.name())))
        }
    }
}
