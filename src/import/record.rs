//! Records imports: the turn that writes closed imports to MongoDB, and the one that seals those nobody will.
//!
//! ```text
//!   closed ──upsert by id──▶ record in MongoDB ──▶ released in Redis
//! ```
//!
//! *Crash between the two:* the record is written once more, whole, under the same id.

use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use crate::error::chain;
use crate::job::{ImportId, JobId};
use crate::pulse::Beat;
use crate::queue::find::State;
use crate::queue::imports::ImportState;
use crate::queue::{Queue, QueueError};
use crate::store::imports::{ImportFailure, ImportRecord, ImportStatus};
use crate::store::{Store, StoreError};

use super::FetchTask;

/// Time between two looks for closed imports; bounds how long a finished import still reads as running.
const RECORD_INTERVAL: Duration = Duration::from_millis(500);
/// Time between two looks for imports whose fetch is gone.
const ORPHAN_INTERVAL: Duration = Duration::from_secs(30);
/// An import younger than this may be about to get its fetch job.
const ORPHAN_AGE: Duration = Duration::from_mins(1);
/// Pause after a turn that failed.
const ERROR_PAUSE: Duration = Duration::from_secs(1);
/// Imports of one page.
const PAGE: usize = 100;

/// Writes the records of imports.
#[derive(Clone, Debug)]
pub struct Recorder {
    /// Where imports are counted.
    pub import_queue: Queue,
    /// Where their fetch jobs are.
    pub fetch_queue: Queue,
    /// Where records go.
    pub store: Store,
}

/// Why a turn of the recorder failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// Redis failed.
    #[error("imports cannot be read")]
    Queue(#[from] QueueError),
    /// MongoDB failed.
    #[error("import records cannot be written")]
    Store(#[from] StoreError),
}

impl Recorder {
    /// Runs both turns until `shutdown`; says in `beat` that it records.
    pub async fn run(self, shutdown: CancellationToken, beat: Beat) {
        let recording = async {
            loop {
                beat.turned();
                match self.record_closed().await {
                    Ok(PAGE) => {}
                    Ok(_) => tokio::time::sleep(RECORD_INTERVAL).await,
                    Err(error) => failed("recording imports", &error).await,
                }
            }
        };
        let sealing = async {
            loop {
                match self.seal_orphans().await {
                    Ok(_) => tokio::time::sleep(ORPHAN_INTERVAL).await,
                    Err(error) => failed("sealing imports", &error).await,
                }
            }
        };
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = recording => {}
            () = sealing => {}
        }
    }

    /// Writes the records of closed imports, up to a page of them. Returns how many were closed.
    ///
    /// # Errors
    /// [`RecordError`]; may be repeated.
    pub async fn record_closed(&self) -> Result<usize, RecordError> {
        let ids = self.import_queue.closing_import_ids(PAGE).await?;
        let mut records = Vec::with_capacity(ids.len());
        for id in &ids {
            if let Some(state) = self.import_queue.import(*id).await?
                && is_worth_a_record(&state)
            {
                records.push(import_record(*id, &state));
            }
        }
        if !records.is_empty() {
            self.store.upsert_imports(&records).await?;
        }
        for id in &ids {
            self.import_queue.release_closed_import(*id).await?;
        }
        Ok(ids.len())
    }

    /// Seals imports whose fetch job is dead or gone. Returns how many.
    ///
    /// # Errors
    /// [`RecordError`]; may be repeated.
    pub async fn seal_orphans(&self) -> Result<usize, RecordError> {
        let (mut sealed, mut offset) = (0, 0);
        // Imports are dated by the clock of Redis; ours may differ by more than their age.
        let now = self.import_queue.time().await?;
        loop {
            let page = self.import_queue.open_import_ids(offset, PAGE).await?;
            for (id, opened_at) in &page {
                let is_old = now.duration_since(*opened_at).is_ok_and(|age| age > ORPHAN_AGE);
                if is_old && self.is_orphan(*id).await? {
                    let error = "its fetch job was lost or stalled; the next fetch of the feed repeats it";
                    if self.import_queue.seal_import(*id, error).await? {
                        tracing::warn!(import = %id, "import {id} was left by its fetch job and is sealed as failed");
                        sealed += 1;
                    }
                }
            }
            if page.is_empty() {
                return Ok(sealed);
            }
            offset += PAGE;
        }
    }

    async fn is_orphan(&self, id: ImportId) -> Result<bool, QueueError> {
        let Some(state) = self.import_queue.import(id).await? else {
            // Only the zset knows it: sealing does nothing, releasing cleans up.
            self.import_queue.release_closed_import(id).await?;
            return Ok(false);
        };
        if state.sealed_at.is_some() {
            let missing = self.import_queue.close_leftover_import(id).await?;
            if missing > 0 {
                tracing::error!(import = %id, missing, "import {id} waited for jobs that do not exist: counted as failed");
            }
            return Ok(false);
        }
        let Ok(job_id) = JobId::new(&state.feed) else { return Ok(true) };
        let Some(found) = self.fetch_queue.find(&job_id).await? else { return Ok(true) };
        if matches!(found.state, State::Failed { .. } | State::Unknown) {
            return Ok(true);
        }
        let task = serde_json::from_slice::<FetchTask>(found.job.payload()).ok();
        if task.is_some_and(|task| task.import(found.job.head.version) == id) {
            return Ok(false);
        }
        // A fetch whose own import was sealed goes on with another one.
        Ok(self.import_queue.feed_memory(&state.feed).await?.current_import != Some(id))
    }
}

async fn failed(what: &str, error: &RecordError) {
    tracing::warn!(error = %chain(error), "{what} failed; trying again in {ERROR_PAUSE:?}");
    tokio::time::sleep(ERROR_PAUSE).await;
}

/// A scheduled fetch that found nothing to do leaves no record.
fn is_worth_a_record(state: &ImportState) -> bool {
    state.asked || state.is_failed || state.count("new") + state.count("changed") > 0
}

/// The record of an import, finished or running.
pub fn import_record(id: ImportId, state: &ImportState) -> ImportRecord {
    let timestamp = |at: SystemTime| Timestamp::try_from(at).ok();
    let finished_at = state.closed_at.and_then(timestamp);
    let count = |name| state.count(name);
    ImportRecord {
        id: id.to_string(),
        status: match finished_at {
            None => ImportStatus::Running,
            Some(_) if state.is_failed => ImportStatus::Failed,
            Some(_) => ImportStatus::Done,
        },
        feed: state.feed.clone(),
        source: state.source.clone(),
        run: Some(state.run.clone()).filter(|run| !run.is_empty()),
        asked: state.asked,
        started_at: state.started_at.or(state.opened_at).and_then(timestamp).unwrap_or_default(),
        finished_at,
        items: count("items"),
        new: count("new"),
        changed: count("changed"),
        unchanged: count("unchanged"),
        duplicate: count("duplicate"),
        inserted: count("inserted"),
        updated: count("updated"),
        stale: count("stale"),
        superseded: count("superseded"),
        removed: count("removed"),
        failed: count("failed"),
        failures: state
            .failures
            .iter()
            .map(|(id, reason)| ImportFailure { id: id.clone(), reason: reason.clone() })
            .collect(),
        recovered: state.recovered.clone(),
        error: state.error.clone(),
    }
}
