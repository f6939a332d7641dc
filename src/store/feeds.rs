//! How each feed is doing: what its last fetch brought and when the next is due.
//!
//! This is the readable copy for `feeds list`, the API and other programs. What a fetch works with (validators, next
//! due time) is in Redis, beside the queue.
//!
//! Two fetches of a feed can end at the same time, when one of them was taken for dead. Each has a version, taken when
//! it started, and the status of an older one does not replace that of a newer one.

use futures_util::TryStreamExt;
use jiff::Timestamp;
use mongodb::bson::{RawDocumentBuf, doc, raw::cstr, serialize_to_raw_document_buf};
use serde::{Deserialize, Serialize};

use super::{
    FEEDS, Store, StoreError, dates,
    encode::stored_version,
    error::one_line,
    write_command::{Answer, WriteCommand},
};

/// The state of one feed after its last fetch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FeedStatus {
    /// Name of the feed.
    #[serde(rename = "_id")]
    pub name: String,
    /// URL as configured.
    pub url: String,
    /// Source of its items.
    pub source: String,
    /// HTTP status of the last answer; `None` if there was none.
    #[serde(default)]
    pub last_status: Option<u16>,
    /// When the last fetch ended.
    #[serde(default, with = "dates::optional")]
    pub last_fetch_at: Option<Timestamp>,
    /// When the next fetch is due; `None` if it is not scheduled.
    #[serde(default, with = "dates::optional")]
    pub next_fetch_at: Option<Timestamp>,
    /// Fetches that failed since the last that did not.
    #[serde(default)]
    pub consecutive_failures: u32,
    /// Why the last fetch failed; `None` if it did not.
    #[serde(default)]
    pub last_error: Option<String>,
    /// Whether its schedule has ended: its server said that it is gone for good. A fetch that succeeds begins it again.
    #[serde(default)]
    pub stopped: bool,
    /// Where the feed says it is now (permanent redirect); the subscription still names the old URL.
    #[serde(default)]
    pub moved_to: Option<String>,
}

impl Store {
    /// Writes the state of a feed after the fetch of version `version` (µs).
    ///
    /// Returns `false`, and changes nothing, if a fetch with a higher version has written already. The same version
    /// writes again: a fetch may fail once and succeed at its next attempt. Fields others have added stay.
    ///
    /// # Errors
    /// [`StoreError::is_outage`] holds for all of them.
    pub async fn upsert_feed(&self, status: &FeedStatus, version: u64) -> Result<bool, StoreError> {
        const DOING: &str = "a write of a feed's status";
        let statement = [upsert_statement(status, version)];
        // The first E11000 may come from a concurrent first write with a lower version; only a second one is certain
        // to come from a higher version.
        for _ in 0..2 {
            match self.send(DOING, WriteCommand::Update, FEEDS, &statement).await?.pop() {
                Some(Answer::Inserted | Answer::Matched) => return Ok(true),
                Some(Answer::Refused(error)) if error.is_clash_on(&["_id"]) => {}
                Some(Answer::Refused(error)) => {
                    return Err(error.into_error(&self.hosts, DOING));
                }
                None => return Err(StoreError::Answer { doing: DOING, detail: "no answer to the statement".into() }),
            }
        }
        Ok(false)
    }

    /// Reads the state of one feed; `None` if it was never fetched.
    ///
    /// # Errors
    /// [`StoreError::is_outage`] holds for all of them.
    pub async fn find_feed(&self, name: &str) -> Result<Option<FeedStatus>, StoreError> {
        let feeds = self.database.collection::<FeedStatus>(FEEDS);
        self.call("a read of a feed's status", feeds.find_one(doc! { "_id": name })).await
    }

    /// Reads the state of all feeds, by name.
    ///
    /// # Errors
    /// [`StoreError::is_outage`] holds for all of them.
    pub async fn list_feeds(&self) -> Result<Vec<FeedStatus>, StoreError> {
        let feeds = self.database.collection::<FeedStatus>(FEEDS);
        let find = feeds.find(doc! {}).sort(doc! { "_id": 1 });
        self.call("a read of the feeds' status", async { find.await?.try_collect().await }).await
    }
}

fn upsert_statement(status: &FeedStatus, version: u64) -> RawDocumentBuf {
    let mut stored = status.clone();
    stored.last_error = stored.last_error.as_deref().map(one_line);
    let version = stored_version(version);
    let mut set =
        serialize_to_raw_document_buf(&stored).expect("a status is a struct of strings, times and small numbers");
    set.append(cstr!("version"), version);

    let mut newer = RawDocumentBuf::new();
    newer.append(cstr!("$gt"), version);
    let mut not_newer = RawDocumentBuf::new();
    not_newer.append(cstr!("$not"), newer);
    let mut filter = RawDocumentBuf::new();
    filter.append(cstr!("_id"), status.name.as_str());
    filter.append(cstr!("version"), not_newer);
    let mut update = RawDocumentBuf::new();
    update.append(cstr!("$set"), set);

    let mut statement = RawDocumentBuf::new();
    statement.append(cstr!("q"), filter);
    statement.append(cstr!("u"), update);
    statement.append(cstr!("upsert"), true);
    statement
}
