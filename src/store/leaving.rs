//! Documents of items that left their feeds: marked with when, or deleted.
//!
//! The filter is that of a write: a document with a higher version shows an item that came back meanwhile, and is left
//! alone. A marked document takes the version of the fetch that missed it, so that what was enqueued before cannot undo
//! the mark; a write of a later version takes the mark away.
//!
//! *Crash between two commands:* part of the documents are marked. The fetch was not finished, so the next one does all of
//! it again.

use std::time::Duration;

use futures_util::TryStreamExt;
use mongodb::bson::{DateTime, Document, doc};

use super::{JOBS, Store, StoreError, encode::stored_version};
use crate::feed::OnLeave;

/// Documents of one command.
const DOCUMENTS_PER_COMMAND: usize = 500;
/// How long a look through the guids of a source may take; a million of them take a few seconds.
const LOOK_TIMEOUT: Duration = Duration::from_mins(1);

impl Store {
    /// The guids of a source that are wanted. Reads all guids of the source from the index on them.
    ///
    /// # Errors
    /// [`StoreError::is_outage`] holds for all of them.
    pub async fn find_guids(&self, source: &str, is_wanted: impl Fn(&str) -> bool) -> Result<Vec<String>, StoreError> {
        let documents = self.database.collection::<Document>(JOBS);
        let find = documents.find(doc! { "source": source }).projection(doc! { "_id": 0, "guid": 1 });
        let look = async {
            let mut wanted = Vec::new();
            let mut found = find.await?;
            while let Some(document) = found.try_next().await? {
                if let Ok(guid) = document.get_str("guid")
                    && is_wanted(guid)
                {
                    wanted.push(guid.to_owned());
                }
            }
            Ok(wanted)
        };
        self.call_within(LOOK_TIMEOUT, "a look for items that left", look).await
    }

    /// Does to the documents of these items what is to be done when they leave. `version` (µs) is that of the fetch that
    /// missed them for the last time. Answers how many documents it was.
    ///
    /// # Errors
    /// [`StoreError::is_outage`] holds for all of them; may be repeated.
    pub async fn leave(
        &self,
        source: &str,
        guids: &[String],
        version: u64,
        on_leave: OnLeave,
    ) -> Result<u64, StoreError> {
        const DOING: &str = "a write of items that left";
        let documents = self.database.collection::<Document>(JOBS);
        let version = stored_version(version);
        let mut n_left = 0;
        for guids in guids.chunks(DOCUMENTS_PER_COMMAND) {
            let filter =
                doc! { "source": source, "guid": { "$in": guids }, "version": { "$not": { "$gte": version } } };
            n_left += match on_leave {
                OnLeave::Keep => 0,
                OnLeave::Mark => {
                    let set = doc! { "$set": { "leftFeedAt": DateTime::now(), "version": version } };
                    self.call(DOING, documents.update_many(filter, set)).await?.matched_count
                }
                OnLeave::Delete => self.call(DOING, documents.delete_many(filter)).await?.deleted_count,
            };
        }
        Ok(n_left)
    }
}
