//! Imports as people and programs ask for them: running ones from Redis, recorded ones from MongoDB.
//!
//! Redis is asked first: an import leaves it after its record is written, so one that ends meanwhile is in MongoDB.

use std::collections::HashSet;
use std::time::Duration;

use crate::job::ImportId;
use crate::queue::{Queue, QueueError};
use crate::store::imports::{ImportFilter, ImportRecord};
use crate::store::{Store, StoreError};

use super::import_record;

/// Ids of one look at the imports in Redis: more than can be opened within a millisecond, by which pages are told apart.
const IDS_PAGE: usize = 1000;
/// Imports that are read in one round trip.
const STATES_PAGE: usize = 250;

/// Why imports could not be looked up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HistoryError {
    /// Redis failed.
    #[error("running imports cannot be read")]
    Queue(#[from] QueueError),
    /// MongoDB failed.
    #[error("import records cannot be read")]
    Store(#[from] StoreError),
}

/// The newest `limit` imports that the filter lets through, newest first.
///
/// # Errors
/// [`HistoryError`].
pub async fn list_imports(
    queue: &Queue,
    store: &Store,
    wanted: ImportFilter<'_>,
    limit: u32,
) -> Result<Vec<ImportRecord>, HistoryError> {
    let mut records = list_running(queue, wanted, limit as usize).await?;
    let running: HashSet<String> = records.iter().map(|record| record.id.clone()).collect();
    // one that is recorded but not released yet stands in both
    let recorded = store.list_imports_of(wanted, limit).await?;
    records.extend(recorded.into_iter().filter(|record| !running.contains(&record.id)));
    records.sort_by_key(|record| std::cmp::Reverse(record.started_at));
    records.truncate(limit as usize);
    Ok(records)
}

async fn list_running(queue: &Queue, wanted: ImportFilter<'_>, limit: usize) -> Result<Vec<ImportRecord>, QueueError> {
    let lets_through = |value: &str, wanted: Option<&str>| wanted.is_none_or(|wanted| wanted == value);
    let (mut records, mut seen, mut until) = (Vec::new(), HashSet::new(), None);
    loop {
        let page = queue.newest_import_ids(until, IDS_PAGE).await?;
        let Some((_, oldest)) = page.last().copied() else { return Ok(records) };
        // The page begins in the millisecond in which the last one ended.
        let ids: Vec<ImportId> = page.into_iter().map(|(id, _)| id).filter(|id| seen.insert(*id)).collect();
        for ids in ids.chunks(STATES_PAGE) {
            for (id, state) in ids.iter().zip(queue.imports(ids).await?) {
                if let Some(state) = state
                    && lets_through(&state.feed, wanted.feed)
                    && lets_through(&state.run, wanted.run)
                {
                    records.push(import_record(*id, &state));
                }
            }
            if records.len() >= limit {
                return Ok(records);
            }
        }
        until = Some(if ids.is_empty() { oldest - Duration::from_millis(1) } else { oldest });
    }
}

/// An import, wherever it stands; `None` if there is none of this id, or no longer.
///
/// # Errors
/// [`HistoryError`].
pub async fn find_import(queue: &Queue, store: &Store, id: ImportId) -> Result<Option<ImportRecord>, HistoryError> {
    if let Some(state) = queue.import(id).await? {
        return Ok(Some(import_record(id, &state)));
    }
    Ok(store.find_import(&id.to_string()).await?)
}

/// An import as it is shown: as it is stored, but for the name of its id.
#[expect(clippy::missing_panics_doc, reason = "a record is strings, times and numbers, which are JSON")]
pub fn import_json(record: &ImportRecord) -> serde_json::Value {
    let mut json = serde_json::to_value(record).expect("a record is strings, times and numbers");
    if let Some(fields) = json.as_object_mut()
        && let Some(id) = fields.remove("_id")
    {
        fields.insert("id".to_owned(), id);
    }
    json
}
