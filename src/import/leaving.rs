//! What becomes of the documents of items that their feed shows no more.
//!
//! The seen map drops an item after so many complete fetches without it. It has left then, unless another feed of the
//! same source still has it in its own map: then that one's drop will be its leaving.
//!
//! ```text
//!   dropped ──no other feed has it──▶ documents marked or deleted ──▶ the map is written without it
//!      └──────another has it──▶ the map is written ──▶ looked at once more: two feeds may drop it at the same moment
//! ```
//!
//! An item whose job has not ended leaves later: its document may not be there yet, and would be written after it was
//! deleted. So nothing leaves while an earlier import of the source is open.
//!
//! A job that comes back after its import has closed, because somebody redrives its dead letter, may be of an item that left
//! meanwhile: [`left_meanwhile`] finds those, in the maps of the feeds, and they end without a write. Of one that is redriven
//! at the very moment at which its item leaves, the map may still say that it is there; then it is written.
//!
//! *Crash before the map is written:* it still has the item, and the next fetch drops it again. *MongoDB away:* nothing is
//! dropped by this fetch.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};

use crate::error::chain;
use crate::feed::seen::{Digest, SeenMap};
use crate::feed::{Feed, OnLeave, identity};
use crate::job::{ImportId, JobId};
use crate::queue::imports::ImportState;
use crate::queue::read::Delivery;
use crate::queue::{Queue, QueueError};
use crate::store::Store;

use super::ConfiguredFeeds;

/// Items that one fetch of a feed dropped.
pub(super) struct Leaving<'a> {
    pub(super) queue: &'a Queue,
    pub(super) store: &'a Store,
    pub(super) feeds: &'a ConfiguredFeeds,
    pub(super) feed: &'a Feed,
    /// Version of the fetch.
    pub(super) version: u64,
    /// Import of the fetch.
    pub(super) import: ImportId,
}

/// Open imports that are looked at. Where there are more, the queue is behind, and items leave when it has caught up.
const IMPORTS_MAX: usize = 1000;

impl Leaving<'_> {
    /// Lets these items leave, as far as no other feed of the source has them; returns those that one has.
    ///
    /// `None`: MongoDB could not be written, or jobs of the source are still under way, and the items must not be dropped
    /// now.
    pub(super) async fn leave(&self, dropped: &[Digest]) -> Result<Option<Vec<Digest>>, QueueError> {
        if dropped.is_empty() || self.feed.on_leave == OnLeave::Keep {
            return Ok(Some(Vec::new()));
        }
        let shown_elsewhere = self.shown_by_others().await?;
        let (kept, gone): (Vec<Digest>, Vec<Digest>) =
            dropped.iter().partition(|digest| shown_elsewhere.contains(*digest));
        if gone.is_empty() {
            return Ok(Some(kept));
        }
        if self.may_have_jobs().await? {
            tracing::info!(
                feed = %self.feed.name,
                "items that left feed {} leave later: jobs of earlier fetches have not ended", self.feed.name
            );
            return Ok(None);
        }
        let gone: HashSet<Digest> = gone.into_iter().collect();
        let source = &self.feed.source;
        let is_gone = |guid: &str| gone.contains(&Digest::of(identity::job_id(source, guid).as_bytes()));
        let left = async {
            let guids = self.store.find_guids(source, is_gone).await?;
            self.store.leave(source, &guids, self.version, self.feed.on_leave).await
        };
        match left.await {
            Ok(documents) => {
                tracing::info!(
                    feed = %self.feed.name, documents, "{documents} items have left feed {}", self.feed.name
                );
                Ok(Some(kept))
            }
            Err(error) => {
                tracing::warn!(
                    feed = %self.feed.name, error = %chain(&error),
                    "the documents of items that left feed {} could not be written and stay as they are", self.feed.name
                );
                Ok(None)
            }
        }
    }

    /// Whether jobs of earlier fetches of the source may be under way.
    async fn may_have_jobs(&self) -> Result<bool, QueueError> {
        let open = self.queue.open_import_ids(0, IMPORTS_MAX).await?;
        let earlier: Vec<ImportId> = open.iter().map(|(id, _)| *id).filter(|id| *id != self.import).collect();
        let imports = self.queue.imports(&earlier).await?;
        let is_of_source = |import: &ImportState| {
            import.source == self.feed.source && import.closed_at.is_none() && import.count("open") > 0
        };
        Ok(open.len() == IMPORTS_MAX || imports.iter().flatten().any(is_of_source))
    }

    /// The digests in the seen maps of the other feeds of the source.
    async fn shown_by_others(&self) -> Result<HashSet<Digest>, QueueError> {
        let mut shown = HashSet::new();
        for other in self.feeds.current().values() {
            if other.source == self.feed.source && other.name != self.feed.name {
                let map = self.queue.seen_map(&other.name).await?;
                shown.extend(SeenMap::decode(map.as_deref()).digests());
            }
        }
        Ok(shown)
    }
}

/// Those of these jobs whose items have left, where something is done about that: they are not to be written.
///
/// Only a job of a feed that counts for no import any more is looked at: it came back after its import had closed. Where a
/// map is missing or cannot be read, nobody knows what the feed shows, and nothing has left.
pub(super) async fn left_meanwhile(
    queue: &Queue,
    feeds: &ConfiguredFeeds,
    jobs: &[Delivery],
) -> Result<HashSet<JobId>, QueueError> {
    let mut left = HashSet::new();
    // Of each source one look at what its feeds show; `None` when that is not known.
    let mut shown_of: HashMap<String, Option<HashSet<Digest>>> = HashMap::new();
    for delivery in jobs.iter().filter(|delivery| delivery.job.head.import.is_none()) {
        let feed = delivery.job.feed.as_deref().and_then(|name| feeds.find(name));
        let Some(feed) = feed.filter(|feed| feed.on_leave != OnLeave::Keep) else { continue };
        let shown = match shown_of.entry(feed.source.clone()) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => entry.insert(shown_by(queue, feeds, &feed.source).await?),
        };
        let id = &delivery.lease.id;
        if shown.as_ref().is_some_and(|shown| !shown.contains(&Digest::of(id.as_bytes()))) {
            tracing::info!(
                job.id = %id, feed = %feed.name,
                "job {id} is not written: its item has left feed {} since it failed", feed.name
            );
            left.insert(id.clone());
        }
    }
    Ok(left)
}

/// The digests in the seen maps of all feeds of a source; `None` if one has no map, or none that can be read.
async fn shown_by(queue: &Queue, feeds: &ConfiguredFeeds, source: &str) -> Result<Option<HashSet<Digest>>, QueueError> {
    let mut shown = HashSet::new();
    for feed in feeds.current().values().filter(|feed| feed.source == source) {
        let Some(bytes) = queue.seen_map(&feed.name).await? else { return Ok(None) };
        let map = SeenMap::decode(Some(&bytes));
        if map.is_damaged() {
            return Ok(None);
        }
        shown.extend(map.digests());
    }
    Ok(Some(shown))
}
