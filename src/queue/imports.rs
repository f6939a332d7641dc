//! Imports: the counts of one fetch of a feed and of all jobs that follow from it.
//!
//! ```text
//!   open ──▶ (fetch: items counted in) ──▶ sealed ──last job left──▶ closed ──record in MongoDB──▶ released
//! ```
//!
//! Every script that lets a job in or out moves the counts of its import in the same step, taking the import from the
//! job's head, so that a crash neither loses nor doubles one. A closed import stays in Redis until its record is written.
//!
//! `items = new + changed + unchanged + duplicate` and
//! `new + changed = inserted + updated + stale + superseded + removed + failed` hold for every closed import.

use std::collections::HashMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::scripts::{self, Call, JOBS_PER_CALL_MAX};
use super::{Queue, QueueError};
use crate::job::ImportId;

/// An import to be opened.
#[derive(Clone, Copy, Debug)]
pub struct Opening<'a> {
    /// Name of the feed.
    pub feed: &'a str,
    /// Source of its items.
    pub source: &'a str,
    /// Groups imports that were started together; empty for none.
    pub run: &'a str,
    /// Whether somebody asked for it: then a record is kept even if there was nothing to do.
    pub asked: bool,
}

/// What Redis knows of an import that is not recorded yet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImportState {
    /// Name of the feed.
    pub feed: String,
    /// Source of its items.
    pub source: String,
    /// Groups imports that were started together.
    pub run: String,
    /// Whether somebody asked for it.
    pub asked: bool,
    /// When it was opened.
    pub opened_at: Option<SystemTime>,
    /// When its fetch first began.
    pub started_at: Option<SystemTime>,
    /// When its fetch was through; counts of items are final from then on.
    pub sealed_at: Option<SystemTime>,
    /// When its last job left.
    pub closed_at: Option<SystemTime>,
    /// Whether the fetch failed.
    pub is_failed: bool,
    /// What was wrong with the document, if it was read all the same.
    pub recovered: Option<String>,
    /// Why the fetch failed.
    pub error: Option<String>,
    /// Counts by name: `items new changed unchanged duplicate open inserted updated stale superseded removed failed`.
    pub counts: HashMap<String, i64>,
    /// The first failures: job id and reason.
    pub failures: Vec<(String, String)>,
}

impl ImportState {
    /// One of the counts; 0 when nothing was counted.
    pub fn count(&self, name: &str) -> u64 {
        self.counts.get(name).copied().and_then(|count| u64::try_from(count).ok()).unwrap_or(0)
    }
}

impl Queue {
    /// Opens imports; returns their ids in order. All must agree in `run` and `asked`, which are taken from the first.
    ///
    /// # Errors
    /// [`QueueError::Redis`]: imports of a call that was carried out all the same are sealed by the janitor.
    pub async fn open_imports(&self, openings: &[Opening<'_>]) -> Result<Vec<ImportId>, QueueError> {
        let keys = self.keys();
        let mut ids = Vec::with_capacity(openings.len());
        for piece in openings.chunks(JOBS_PER_CALL_MAX) {
            let mut call = Call::new(&scripts::OPEN_IMPORTS, [keys.meta(), keys.imports()].into_iter());
            call.arg(keys.import_prefix()).arg(piece[0].run).arg(u8::from(piece[0].asked));
            for opening in piece {
                call.arg(opening.feed).arg(opening.source);
            }
            for bytes in call.run(&mut self.connection()).await?.decode::<Vec<Vec<u8>>>()? {
                let unexpected =
                    || QueueError::Reply { script: scripts::OPEN_IMPORTS.name, detail: format!("{bytes:?}") };
                let bytes: [u8; 8] = bytes.as_slice().try_into().map_err(|_| unexpected())?;
                ids.push(ImportId::from_bytes(bytes).ok_or_else(unexpected)?);
            }
        }
        Ok(ids)
    }

    /// Reads an import; `None` once it was released (or never opened).
    ///
    /// # Errors
    /// [`QueueError`].
    pub async fn import(&self, id: ImportId) -> Result<Option<ImportState>, QueueError> {
        let fields: Vec<(Vec<u8>, Vec<u8>)> = redis::cmd("HGETALL")
            .arg(self.keys().import(id))
            .query_async(&mut self.connection())
            .await
            .map_err(|cause| QueueError::from_redis("HGETALL", cause))?;
        Ok((!fields.is_empty()).then(|| decode_import(fields)))
    }

    /// Reads imports, in order, in one round trip; `None` for each that was released (or never opened).
    ///
    /// # Errors
    /// [`QueueError`].
    pub async fn imports(&self, ids: &[ImportId]) -> Result<Vec<Option<ImportState>>, QueueError> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let mut pipeline = redis::pipe();
        for id in ids {
            pipeline.cmd("HGETALL").arg(self.keys().import(*id));
        }
        let all: Vec<Vec<(Vec<u8>, Vec<u8>)>> = pipeline
            .query_async(&mut self.connection())
            .await
            .map_err(|cause| QueueError::from_redis("HGETALL", cause))?;
        Ok(all.into_iter().map(|fields| (!fields.is_empty()).then(|| decode_import(fields))).collect())
    }

    /// Ids of imports that are not recorded yet, newest first, with the time of opening: up to `limit` of those opened at
    /// `until` (to the millisecond, included) or before.
    ///
    /// # Errors
    /// [`QueueError::Redis`].
    pub async fn newest_import_ids(
        &self,
        until: Option<SystemTime>,
        limit: usize,
    ) -> Result<Vec<(ImportId, SystemTime)>, QueueError> {
        let until = until.and_then(|at| at.duration_since(UNIX_EPOCH).ok());
        let rows: Vec<(String, f64)> = redis::cmd("ZREVRANGEBYSCORE")
            .arg(self.keys().imports())
            .arg(until.map_or_else(|| "+inf".to_owned(), |at| super::millis(at).to_string()))
            .arg("-inf")
            .arg("WITHSCORES")
            .arg("LIMIT")
            .arg(0)
            .arg(limit)
            .query_async(&mut self.connection())
            .await
            .map_err(|cause| QueueError::from_redis("ZREVRANGEBYSCORE", cause))?;
        Ok(read_ids(rows))
    }

    /// Ids of imports that are not recorded yet, oldest first, with the time of opening: a page of `limit` from `offset`.
    ///
    /// # Errors
    /// [`QueueError::Redis`].
    pub async fn open_import_ids(
        &self,
        offset: usize,
        limit: usize,
    ) -> Result<Vec<(ImportId, SystemTime)>, QueueError> {
        self.import_ids(self.keys().imports(), offset, limit).await
    }

    /// Ids of imports whose record is to be written, in the order they closed.
    ///
    /// # Errors
    /// [`QueueError::Redis`].
    pub async fn closing_import_ids(&self, limit: usize) -> Result<Vec<ImportId>, QueueError> {
        let ids = self.import_ids(self.keys().closing_imports(), 0, limit).await?;
        Ok(ids.into_iter().map(|(id, _)| id).collect())
    }

    async fn import_ids(
        &self,
        key: &str,
        offset: usize,
        limit: usize,
    ) -> Result<Vec<(ImportId, SystemTime)>, QueueError> {
        let rows: Vec<(String, f64)> = redis::cmd("ZRANGE")
            .arg(key)
            .arg(offset)
            .arg((offset + limit).saturating_sub(1))
            .arg("WITHSCORES")
            .query_async(&mut self.connection())
            .await
            .map_err(|cause| QueueError::from_redis("ZRANGE", cause))?;
        Ok(read_ids(rows))
    }

    /// Seals an import whose fetch will not do it any more, because of `error`. Returns whether it had to be.
    ///
    /// # Errors
    /// [`QueueError::Redis`]; may be repeated.
    pub async fn seal_import(&self, id: ImportId, error: &str) -> Result<bool, QueueError> {
        let keys = self.keys();
        let hash = keys.import(id);
        let mut call = Call::new(&scripts::SEAL_IMPORT, [keys.closing_imports(), hash.as_str()].into_iter());
        call.arg(id.to_string()).arg(error);
        Ok(call.run(&mut self.connection()).await?.decode::<u8>()? == 1)
    }

    /// Closes a sealed import that waits for jobs which do not exist any more, if the queue has no live job. Returns how
    /// many were missing; they count as failed.
    ///
    /// # Errors
    /// [`QueueError::Redis`]; may be repeated.
    pub async fn close_leftover_import(&self, id: ImportId) -> Result<u64, QueueError> {
        let keys = self.keys();
        let hash = keys.import(id);
        let mut call = self.moving(&scripts::CLOSE_LEFTOVER, [hash.as_str()]);
        call.arg(id.to_string());
        call.run(&mut self.connection()).await?.decode()
    }

    /// Forgets a closed import whose record is written.
    ///
    /// # Errors
    /// [`QueueError::Redis`]; may be repeated.
    pub async fn release_closed_import(&self, id: ImportId) -> Result<bool, QueueError> {
        self.release_import(id, "closed").await
    }

    /// Forgets an import whose fetch was not started after all.
    ///
    /// # Errors
    /// [`QueueError::Redis`]; may be repeated.
    pub async fn release_unused_import(&self, id: ImportId) -> Result<bool, QueueError> {
        self.release_import(id, "unused").await
    }

    async fn release_import(&self, id: ImportId, condition: &str) -> Result<bool, QueueError> {
        let keys = self.keys();
        let hash = keys.import(id);
        let all = [keys.imports(), keys.closing_imports(), hash.as_str()];
        let mut call = Call::new(&scripts::RELEASE_IMPORT, all.into_iter());
        call.arg(id.to_string()).arg(condition);
        Ok(call.run(&mut self.connection()).await?.decode::<u8>()? == 1)
    }
}

/// Members of a zset of imports with their times. One that is no id was not put there by us, and must not hide the
/// others.
fn read_ids(rows: Vec<(String, f64)>) -> Vec<(ImportId, SystemTime)> {
    let read = |(id, ms): (String, f64)| Some((id.parse().ok()?, UNIX_EPOCH + Duration::from_millis(ms as u64)));
    rows.into_iter().filter_map(read).collect()
}

fn decode_import(fields: Vec<(Vec<u8>, Vec<u8>)>) -> ImportState {
    let mut state = ImportState::default();
    let mut failures = Vec::new();
    for (name, value) in fields {
        let name = String::from_utf8_lossy(&name).into_owned();
        let text = String::from_utf8_lossy(&value);
        let number = text.parse::<i64>().ok();
        let at = number.and_then(|ms| u64::try_from(ms).ok()).map(|ms| UNIX_EPOCH + Duration::from_millis(ms));
        match name.as_str() {
            "feed" => state.feed = text.into_owned(),
            "source" => state.source = text.into_owned(),
            "run" => state.run = text.into_owned(),
            "asked" => state.asked = text == "1",
            "opened" => state.opened_at = at,
            "started" => state.started_at = at,
            "sealed" => state.sealed_at = at,
            "closed" => state.closed_at = at,
            "status" => state.is_failed = text == "failed",
            "recovered" => state.recovered = Some(text.into_owned()),
            "error" => state.error = Some(text.into_owned()),
            _ => match (name.strip_prefix("failure:"), number) {
                (Some(position), _) => failures.push((position.parse().unwrap_or(u32::MAX), decode_failure(&value))),
                (None, Some(count)) => {
                    state.counts.insert(name, count);
                }
                (None, None) => {}
            },
        }
    }
    failures.sort_by_key(|(position, _)| *position);
    state.failures = failures.into_iter().map(|(_, failure)| failure).collect();
    state
}

/// One listed failure: MessagePack `[job id, reason]`.
fn decode_failure(value: &[u8]) -> (String, String) {
    let (id, reason): (serde_bytes::ByteBuf, serde_bytes::ByteBuf) = rmp_serde::from_slice(value).unwrap_or_default();
    (String::from_utf8_lossy(&id).into_owned(), String::from_utf8_lossy(&reason).into_owned())
}
