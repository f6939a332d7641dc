//! Imports: what happens to a feed from the moment somebody wants it until its record stands in MongoDB.
//!
//! ```text
//!   scheduler ─▶┐ a slot has come: no import yet
//!   start ──▶ fetch queue ──▶ fetch_feed ──▶ import queue ──▶ store_items ──▶ documents
//!     │ opens the import        │ seals it                       │ counts it down
//!     └────────────────────────▶└───────────────────────────────▶└──▶ record: its record in MongoDB
//! ```
//!
//! The two handlers, [`FetchFeed`] and [`StoreItems`], run on the same engine ([`crate::worker`]); here feeds, queue and
//! store meet.

mod feeds;
mod grouping;
mod scheduler;
mod start;
mod fetch_feed;
mod take_in;
mod leaving;
mod store_items;
mod record;
mod history;
mod plain;

use serde::{Deserialize, Serialize};

pub use feeds::{ConfiguredFeeds, Feeds};
pub use fetch_feed::FetchFeed;
pub use grouping::Grouping;
pub use history::{HistoryError, find_import, import_json, list_imports};
pub(crate) use plain::{adopt_fetch, adopt_item};
pub use record::{Recorder, import_record};
pub use scheduler::{Scheduler, Synced};
pub use start::{StartError, StartRequest, Started, start, start_due};
pub use store_items::StoreItems;

use crate::job::{ImportId, JobId, Version};

/// Payload of a fetch job, as JSON. A plain producer writes `{"feed": "name"}`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FetchTask {
    /// Name of the feed; also the id of the job, so that one fetch of a feed runs at a time.
    pub feed: String,
    /// The import it belongs to, in hexadecimal; without one, the version of the job gives it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub import: Option<String>,
    /// Groups imports that were started together.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub run: String,
    /// Whether somebody asked for it, as opposed to the schedule.
    #[serde(default)]
    pub asked: bool,
    /// Whether every item is to be imported, seen or not.
    #[serde(default)]
    pub force: bool,
}

impl FetchTask {
    /// A fetch that a feed's schedule asks for.
    pub fn scheduled(feed: &str) -> Self {
        Self { feed: feed.to_owned(), import: None, run: String::new(), asked: false, force: false }
    }

    /// As the payload of a job.
    pub(crate) fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a task is strings and flags")
    }

    /// The import it belongs to: the one it names, else one that follows from the version of its job, so that all
    /// attempts have the same.
    #[expect(clippy::missing_panics_doc, reason = "a version is a time after 1970")]
    pub fn import(&self, version: Version) -> ImportId {
        let named = self.import.as_deref().and_then(|id| id.parse().ok());
        named.or(ImportId::from_bytes(version.to_bytes())).expect("a version is a time after 1970")
    }
}

/// The payload of a job, made of the JSON that a plain producer writes.
#[derive(Clone, Debug)]
pub struct Payload {
    /// The id that the job has by what is in it, if that says one.
    pub id: Option<JobId>,
    /// What it is grouped by, on a queue that limits its groups.
    pub group: Option<String>,
    /// The payload.
    pub bytes: Vec<u8>,
    /// Fingerprint of its content, where it has one.
    pub fingerprint: Option<[u8; 7]>,
}

/// The payload of an import job, of an item as JSON.
///
/// # Errors
/// The reason: what is wrong, and what is accepted.
pub fn item_payload(json: &[u8]) -> Result<Payload, String> {
    plain::adopt_item(json).map(Payload::from)
}

/// The payload of a fetch job, of a [`FetchTask`] as JSON.
///
/// # Errors
/// The reason: what is wrong, and what is accepted.
pub fn fetch_payload(json: &[u8]) -> Result<Payload, String> {
    plain::adopt_fetch(json).map(Payload::from)
}

impl From<crate::worker::Adoption> for Payload {
    fn from(adoption: crate::worker::Adoption) -> Self {
        let crate::worker::Adoption { id, payload, fingerprint, group, replaces: _ } = adoption;
        Self { id: Some(id), group, bytes: payload, fingerprint }
    }
}

/// The record by which a feed forgets an item whose job is discarded.
pub fn forget_item(id: &JobId) -> [u8; 16] {
    crate::feed::seen::forget_record(crate::feed::seen::Digest::of(id.as_bytes()))
}
