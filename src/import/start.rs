//! Starts imports: opens one per feed and adds its fetch job.
//!
//! *Crash after opening:* the import has no fetch job; after a minute the recorder seals it as failed.

use std::time::Duration;

use futures_util::future::try_join_all;

use super::scheduler::Scheduler;
use crate::feed::Feed;
use crate::import::FetchTask;
use crate::job::{Envelope, ImportId, JobId, JobIdError};
use crate::queue::enqueue::{Enqueued, NewJob};
use crate::queue::find::{Found, State};
use crate::queue::imports::Opening;
use crate::queue::schedulers::{Added, Fire, Firing};
use crate::queue::scripts::JOBS_PER_CALL_MAX;
use crate::queue::{Queue, QueueError};
use crate::telemetry::spans;

/// A fetch task is a few hundred bytes; feed names are bounded by the configuration.
const TASK_BYTES_MAX: usize = 64 * 1024;

/// Running fetches that are joined at the same time.
const JOINS_AT_ONCE: usize = 64;
/// How often, and with what pause, a fetch that ends just now is looked at again.
const JOIN_TRIES: usize = 50;
const JOIN_PAUSE: Duration = Duration::from_millis(100);

/// How imports are started.
#[derive(Clone, Debug, Default)]
pub struct StartRequest {
    /// Groups them.
    pub run: String,
    /// Whether somebody asked for them, as opposed to the schedule.
    pub asked: bool,
    /// Whether every item is to be imported, seen or not.
    pub force: bool,
}

/// An import that was started, or ran already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Started {
    /// Name of the feed.
    pub feed: String,
    /// The import to follow.
    pub import: ImportId,
    /// The feed was being fetched already, by this import.
    pub was_running: bool,
}

/// Why imports could not be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// Redis failed; imports started before that run.
    #[error("cannot start imports")]
    Queue(#[from] QueueError),
    /// A feed's name cannot be the id of a job.
    #[error("feed {feed:?} cannot be fetched")]
    Name {
        /// That name.
        feed: String,
        /// Why.
        #[source]
        cause: JobIdError,
    },
    /// Redis refused the fetch job of a feed.
    #[error("feed {feed:?} cannot be fetched: {reason}")]
    Refused {
        /// That feed.
        feed: String,
        /// What Redis says.
        reason: String,
    },
}

/// Starts imports of these feeds; a feed that is being fetched gives its running import instead.
///
/// # Errors
/// [`StartError`].
pub async fn start<'f>(
    import_queue: &Queue,
    fetch_queue: &Queue,
    feeds: impl IntoIterator<Item = &'f Feed>,
    request: &StartRequest,
) -> Result<Vec<Started>, StartError> {
    let feeds: Vec<&Feed> = feeds.into_iter().collect();
    let opened = open(import_queue, &feeds, request).await?;
    let jobs: Vec<NewJob<'_>> = opened.iter().map(Opened::job).collect();
    let results = fetch_queue.add(&jobs, TASK_BYTES_MAX).await?;

    let mut started = Vec::with_capacity(feeds.len());
    let mut running = Vec::new();
    for ((opened, job), result) in opened.iter().zip(&jobs).zip(results) {
        let (feed, import) = (job.id.to_string(), opened.import);
        match result {
            Enqueued::Enqueued | Enqueued::Changed => {}
            Enqueued::Duplicate | Enqueued::Deduplicated(_) => running.push(started.len()),
            Enqueued::Refused(reason) => return Err(StartError::Refused { feed, reason }),
        }
        started.push(Started { feed, import, was_running: false });
    }
    // One after the other, joining a hundred thousand feeds takes longer than whoever asked waits.
    for positions in running.chunks(JOINS_AT_ONCE) {
        let joins: Vec<_> = positions
            .iter()
            .map(|&at| join_running(import_queue, fetch_queue, &jobs[at], started[at].import))
            .collect();
        for (&at, joined) in positions.iter().zip(try_join_all(joins).await?) {
            started[at] = joined;
        }
    }
    Ok(started)
}

/// Starts imports of the feeds that are due: those with a slot that nobody fired, as the [`Scheduler`] does, and those
/// that were never fetched. Returns what was started, or ran already at its slot.
///
/// A slot counts from its scheduled time, without the feed's spread: whoever calls this once in a while has no second
/// chance before the next call.
///
/// # Errors
/// [`StartError`].
pub async fn start_due(
    import_queue: &Queue,
    scheduler: &Scheduler,
    request: &StartRequest,
) -> Result<Vec<Started>, StartError> {
    scheduler.sync().await?;
    scheduler.catch_up().await?;
    let (due, now_ms) = scheduler.due().await?;
    let fetch_queue = &scheduler.fetch_queue;
    let mut started = Vec::with_capacity(due.len());
    for due in due.chunks(JOBS_PER_CALL_MAX) {
        let feeds: Vec<&Feed> = due.iter().map(|due| &*due.feed).collect();
        let opened = open(import_queue, &feeds, request).await?;
        let firings: Vec<Firing> = due
            .iter()
            .zip(&opened)
            .map(|(due, opened)| due.firing(opened.id.clone(), &opened.payload, now_ms))
            .collect();
        for (fire, opened) in fetch_queue.fire(&firings).await?.into_iter().zip(&opened) {
            let (feed, import) = (opened.id.to_string(), opened.import);
            let added = match fire {
                Fire::Fired(added) => added.first().copied(),
                Fire::NotDue => None,
            };
            match added {
                Some(Added::Enqueued) => started.push(Started { feed, import, was_running: false }),
                Some(Added::Duplicate) => {
                    started.push(join_running(import_queue, fetch_queue, &opened.job(), import).await?);
                }
                Some(Added::Refused) => {
                    let reason = "the key of its job holds something else; delete it".to_owned();
                    return Err(StartError::Refused { feed, reason });
                }
                // Somebody else has fired it since we looked.
                Some(Added::OverLimit) | None => {
                    import_queue.release_unused_import(import).await?;
                }
            }
        }
    }
    Ok(started)
}

/// An import that was opened, and the fetch job that is to be its.
struct Opened {
    id: JobId,
    group: String,
    import: ImportId,
    payload: Vec<u8>,
    traceparent: Option<String>,
}

impl Opened {
    fn job(&self) -> NewJob<'_> {
        let envelope =
            Envelope { payload: &self.payload, traceparent: self.traceparent.as_deref(), ..Envelope::default() };
        NewJob { group: Some(&self.group), ..NewJob::new(self.id.clone(), envelope) }
    }
}

/// Opens an import for each feed.
async fn open(import_queue: &Queue, feeds: &[&Feed], request: &StartRequest) -> Result<Vec<Opened>, StartError> {
    let openings: Vec<Opening<'_>> = feeds
        .iter()
        .map(|feed| Opening { feed: &feed.name, source: &feed.source, run: &request.run, asked: request.asked })
        .collect();
    let imports = import_queue.open_imports(&openings).await?;
    let (mut opened, traceparent) = (Vec::with_capacity(feeds.len()), spans::traceparent());
    for (feed, import) in feeds.iter().zip(imports) {
        let task = FetchTask {
            feed: feed.name.clone(),
            import: Some(import.to_string()),
            run: request.run.clone(),
            asked: request.asked,
            force: request.force,
        };
        let id = JobId::new(&feed.name).map_err(|cause| StartError::Name { feed: feed.name.clone(), cause })?;
        opened.push(Opened {
            id,
            group: feed.fetch_group.clone(),
            import,
            payload: task.to_json(),
            traceparent: traceparent.clone(),
        });
    }
    Ok(opened)
}

/// The import of the fetch that runs already. If it ended, or is given up, ours is started after all.
async fn join_running(
    import_queue: &Queue,
    fetch_queue: &Queue,
    job: &NewJob<'_>,
    import: ImportId,
) -> Result<Started, StartError> {
    let feed = job.id.to_string();
    let mut tries = 0;
    loop {
        let found = fetch_queue.find(&job.id).await?;
        let lives = |found: &Found| matches!(found.state, State::Waiting | State::Active | State::Delayed { .. });
        if let Some(found) = found.filter(lives)
            && let Ok(task) = serde_json::from_slice::<FetchTask>(found.job.payload())
        {
            import_queue.release_unused_import(import).await?;
            return Ok(Started { feed, import: task.import(found.job.head.version), was_running: true });
        }
        match fetch_queue.add(std::slice::from_ref(job), TASK_BYTES_MAX).await?.pop() {
            // An unreadable task is about to be buried; what is found next time is not. It may be a newer version's.
            Some(Enqueued::Duplicate) if tries < JOIN_TRIES => {
                tries += 1;
                tokio::time::sleep(JOIN_PAUSE).await;
            }
            Some(Enqueued::Duplicate) => {
                let reason = "a job with its name lives, and cannot be read as a fetch task".to_owned();
                return Err(StartError::Refused { feed, reason });
            }
            Some(Enqueued::Refused(reason)) => return Err(StartError::Refused { feed, reason }),
            _ => return Ok(Started { feed, import, was_running: false }),
        }
    }
}
