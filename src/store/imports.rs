//! The history of imports: one record for each fetch of a feed that had work, was asked for, or failed.
//!
//! The counts of a running import live in Redis and move with the jobs; when the last of its jobs is done, the worker
//! writes them here. Records are found by import id, and expire [`super::indexes::IMPORTS_KEPT`] after their start.
//!
//! `items = new + changed + unchanged + duplicate`, and, once an import is closed,
//! `new + changed = inserted + updated + stale + superseded + removed + failed`.
//!
//! *Crash:* a record is written whole by its id, so writing it again changes nothing.

use futures_util::TryStreamExt;
use jiff::Timestamp;
use mongodb::{
    bson::{Document, RawDocumentBuf, doc, raw::cstr, serialize_to_raw_document_buf},
    options::{ReadPreference, SelectionCriteria},
};
use serde::{Deserialize, Serialize};

use super::{
    IMPORTS, Store, StoreError, dates,
    error::one_line,
    write_command::{Answer, STATEMENTS_MAX, WriteCommand},
};

/// Failures a record lists. `failed` counts all of them; each has its own dead letter with the whole story.
pub const FAILURES_MAX: usize = 100;

/// Where an import stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ImportStatus {
    /// The fetch or some of its jobs are still at work.
    Running,
    /// Every job of it has ended; some may have failed, see `failed`.
    Done,
    /// The fetch failed, see `error`.
    Failed,
}

/// One import as it is stored, and, with `id` for `_id`, as `import show --json` prints it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ImportRecord {
    /// The import's id.
    #[serde(rename = "_id", alias = "id")]
    pub id: String,
    /// Name of the feed.
    pub feed: String,
    /// Source of its items.
    pub source: String,
    /// The run it was started in together with other feeds, if any.
    #[serde(default)]
    pub run: Option<String>,
    /// Whether somebody asked for it, as opposed to the schedule.
    #[serde(default)]
    pub asked: bool,
    /// Where it stands.
    pub status: ImportStatus,
    /// When its fetch started.
    #[serde(with = "dates::required")]
    pub started_at: Timestamp,
    /// When the last of its jobs ended; `None` while it runs.
    #[serde(default, with = "dates::optional")]
    pub finished_at: Option<Timestamp>,
    /// Items in the feed.
    #[serde(default)]
    pub items: u64,
    /// Of these, never seen before.
    #[serde(default)]
    pub new: u64,
    /// Of these, seen with other content.
    #[serde(default)]
    pub changed: u64,
    /// Of these, seen like this.
    #[serde(default)]
    pub unchanged: u64,
    /// Of these, already in the queue with this content.
    #[serde(default)]
    pub duplicate: u64,
    /// Jobs that became a new document.
    #[serde(default)]
    pub inserted: u64,
    /// Jobs that changed a document.
    #[serde(default)]
    pub updated: u64,
    /// Jobs that found a newer version in place.
    #[serde(default)]
    pub stale: u64,
    /// Jobs whose content a later import replaced before they were done.
    #[serde(default)]
    pub superseded: u64,
    /// Jobs an operator removed.
    #[serde(default)]
    pub removed: u64,
    /// Jobs that became dead letters.
    #[serde(default)]
    pub failed: u64,
    /// The first failures; at most [`FAILURES_MAX`] are stored.
    #[serde(default)]
    pub failures: Vec<ImportFailure>,
    /// What was wrong with the feed's document, if it could only be read by mending it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovered: Option<String>,
    /// Why the fetch failed.
    #[serde(default)]
    pub error: Option<String>,
}

/// One job of an import that became a dead letter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImportFailure {
    /// The job's id.
    pub id: String,
    /// Why it failed, in one line.
    pub reason: String,
}

/// Which imports are listed; without any field all.
#[derive(Clone, Copy, Debug, Default)]
pub struct ImportFilter<'a> {
    /// Those of this feed.
    pub feed: Option<&'a str>,
    /// Those of this run.
    pub run: Option<&'a str>,
}

impl Store {
    /// Writes import records, each whole, in place of what is stored under its id.
    ///
    /// Failures beyond [`FAILURES_MAX`] are left out and texts are cut to a length. A record that says `running` does
    /// not replace one that is finished: it comes from a writer that was overtaken.
    ///
    /// # Errors
    /// [`StoreError::is_outage`] holds for all of them. Some records may have been written then; write them again.
    pub async fn upsert_imports(&self, records: &[ImportRecord]) -> Result<(), StoreError> {
        const DOING: &str = "a write of import records";
        for records in records.chunks(STATEMENTS_MAX) {
            let statements: Vec<RawDocumentBuf> = records.iter().map(upsert_statement).collect();
            for (answer, record) in
                self.send(DOING, WriteCommand::Update, IMPORTS, &statements).await?.into_iter().zip(records)
            {
                match answer {
                    Answer::Inserted | Answer::Matched => {}
                    Answer::Refused(error) if record.status == ImportStatus::Running && error.is_clash_on(&["_id"]) => {
                    }
                    Answer::Refused(error) => {
                        return Err(error.into_error(&self.hosts, DOING));
                    }
                }
            }
        }
        Ok(())
    }

    /// Reads the latest imports, newest first, of one feed or of all.
    ///
    /// # Errors
    /// [`StoreError::is_outage`] holds for all of them.
    pub async fn list_imports(&self, limit: u32, feed: Option<&str>) -> Result<Vec<ImportRecord>, StoreError> {
        self.list_imports_of(ImportFilter { feed, run: None }, limit).await
    }

    /// Reads the latest imports that the filter lets through, newest first.
    ///
    /// # Errors
    /// [`StoreError::is_outage`] holds for all of them.
    pub async fn list_imports_of(&self, wanted: ImportFilter<'_>, limit: u32) -> Result<Vec<ImportRecord>, StoreError> {
        if limit == 0 {
            return Ok(Vec::new()); // to MongoDB, a limit of 0 is none
        }
        let mut filter = Document::new();
        filter.extend(wanted.feed.map(|feed| ("feed".to_owned(), feed.into())));
        filter.extend(wanted.run.map(|run| ("run".to_owned(), run.into())));
        let records = self.database.collection::<ImportRecord>(IMPORTS);
        let find = records.find(filter).sort(doc! { "startedAt": -1 }).limit(i64::from(limit));
        self.call("a read of import records", async { find.await?.try_collect().await }).await
    }

    /// Reads one import; `None` if there is none of this id, or no longer.
    ///
    /// # Errors
    /// [`StoreError::is_outage`] holds for all of them.
    pub async fn find_import(&self, id: &str) -> Result<Option<ImportRecord>, StoreError> {
        let records = self.database.collection::<ImportRecord>(IMPORTS);
        let find = records
            .find_one(doc! { "_id": id })
            .selection_criteria(SelectionCriteria::ReadPreference(ReadPreference::Primary));
        self.call("a read of an import record", find).await
    }
}

fn upsert_statement(record: &ImportRecord) -> RawDocumentBuf {
    let mut stored = record.clone();
    stored.failures.truncate(FAILURES_MAX);
    for failure in &mut stored.failures {
        failure.reason = one_line(&failure.reason);
    }
    stored.recovered = stored.recovered.as_deref().map(one_line);
    stored.error = stored.error.as_deref().map(one_line);

    let mut filter = RawDocumentBuf::new();
    filter.append(cstr!("_id"), record.id.as_str());
    if record.status == ImportStatus::Running {
        filter.append(cstr!("status"), "running");
    }
    let mut statement = RawDocumentBuf::new();
    statement.append(cstr!("q"), filter);
    statement.append(
        cstr!("u"),
        serialize_to_raw_document_buf(&stored).expect("a record is a struct of strings, times and small numbers"),
    );
    statement.append(cstr!("upsert"), true);
    statement
}
