//! Every index, made sure of at start.
//!
//! | collection | index | for |
//! |---|---|---|
//! | `jobs` | `{source, guid}` unique | writing by identity; without it the same item is stored twice |
//! | `imports` | `{startedAt}`, expires | the newest first; old records go away |
//! | `imports` | `{feed, startedAt}` | the newest of one feed |
//! | `imports` | `{run, startedAt}` | those that were started together |
//!
//! | `feeds` | `{subscription.changedAt}` sparse | the subscriptions; whether one has changed |
//! | `jobs` | `{leftFeedAt}`, expires | only with `documents_keep`: documents of items that left go away |
//!
//! Else `feeds` is read by `_id`. There are no others: each costs every write, and which fields readers query is theirs to
//! know and to index.

use std::time::Duration;

use futures_util::TryStreamExt;
use mongodb::{
    IndexModel,
    bson::{Document, doc},
    options::IndexOptions,
};

use super::{FEEDS, IMPORTS, JOBS, Store, StoreError};

/// How long import records are kept, from the start of the import. Counted from the start because every record has
/// one; so one whose end was never written goes away too.
pub const IMPORTS_KEPT: Duration = Duration::from_hours(30 * 24);

/// How long building an index may take. On an adopted collection it reads every document; the other calls' limit would
/// give up while MongoDB is at work.
pub(super) const BUILD_TIMEOUT: Duration = Duration::from_hours(1);

/// MongoDB's errors (`src/mongo/base/error_codes.yml` of the server) for an index that cannot be created.
const DUPLICATE_KEY: i32 = 11000;
const NAMESPACE_NOT_FOUND: i32 = 26; // the collection does not exist yet
const INDEX_OPTIONS_CONFLICT: i32 = 85;
const INDEX_KEY_SPECS_CONFLICT: i32 = 86;

/// An index feedmill needs.
struct Wanted {
    collection: &'static str,
    keys: Document,
    options: IndexOptions,
    /// The fields, for messages.
    fields: &'static str,
    /// The whole, for messages.
    what: &'static str,
}

fn wanted() -> [Wanted; 5] {
    [
        Wanted {
            collection: JOBS,
            keys: doc! { "source": 1, "guid": 1 },
            options: IndexOptions::builder().unique(true).build(),
            fields: "source, guid",
            what: "unique on source and guid of all documents",
        },
        Wanted {
            collection: IMPORTS,
            keys: doc! { "startedAt": 1 },
            options: IndexOptions::builder().expire_after(IMPORTS_KEPT).build(),
            fields: "startedAt",
            what: "on startedAt, expiring after 30 days",
        },
        Wanted {
            collection: IMPORTS,
            keys: doc! { "feed": 1, "startedAt": -1 },
            options: IndexOptions::default(),
            fields: "feed, startedAt",
            what: "on feed and startedAt",
        },
        Wanted {
            collection: IMPORTS,
            keys: doc! { "run": 1, "startedAt": -1 },
            options: IndexOptions::default(),
            fields: "run, startedAt",
            what: "on run and startedAt",
        },
        Wanted {
            collection: FEEDS,
            keys: doc! { "subscription.changedAt": 1 },
            options: IndexOptions::builder().sparse(true).build(),
            fields: "subscription.changedAt",
            what: "on subscription.changedAt",
        },
    ]
}

/// The field whose age lets a document expire.
const LEFT_FEED_AT: &str = "leftFeedAt";

impl Store {
    /// Lets MongoDB delete documents so long after their item left its feeds; `None`: it does not.
    ///
    /// # Errors
    /// An outage, or an index on `leftFeedAt` that somebody else made for another purpose.
    pub async fn ensure_documents_keep(&self, keep: Option<Duration>) -> Result<(), StoreError> {
        const DOING: &str = "setting how long documents are kept";
        let documents = self.database.collection::<Document>(JOBS);
        let indexes: Vec<IndexModel> =
            self.call(DOING, async { documents.list_indexes().await?.try_collect().await }).await?;
        let existing = indexes.iter().find(|index| index.keys == doc! { LEFT_FEED_AT: 1 });
        let expires = existing.and_then(|index| index.options.as_ref()?.expire_after);
        let name = existing.and_then(|index| index.options.as_ref()?.name.clone());
        match (name, keep) {
            (Some(name), None) if expires.is_some() => self.call(DOING, documents.drop_index(name)).await,
            (Some(_), Some(keep)) if expires == Some(keep) => Ok(()),
            (Some(name), Some(keep)) => {
                let seconds = i64::try_from(keep.as_secs()).unwrap_or(i64::MAX);
                let change = doc! { "collMod": JOBS, "index": { "name": name, "expireAfterSeconds": seconds } };
                self.call(DOING, self.database.run_command(change)).await.map(drop)
            }
            (None, Some(keep)) => {
                let options = IndexOptions::builder().expire_after(keep).sparse(true).build();
                let index = IndexModel::builder().keys(doc! { LEFT_FEED_AT: 1 }).options(options).build();
                self.call_within(BUILD_TIMEOUT, DOING, documents.create_index(index)).await.map(drop)
            }
            (_, None) => Ok(()),
        }
    }

    /// Creates the indexes that are missing; and with them, the collections.
    ///
    /// An index of another name that does the same is left in place and used. Building `{source, guid}` on an adopted
    /// collection takes about a second per 100,000 documents.
    ///
    /// # Errors
    /// [`StoreError::Duplicates`] and [`StoreError::IndexConflict`] if the existing data or indexes forbid one;
    /// otherwise an outage.
    ///
    /// # Cancel safety
    /// Safe: MongoDB goes on building, and the next call waits for it.
    pub async fn ensure_indexes(&self) -> Result<(), StoreError> {
        for wanted in wanted() {
            self.ensure_index(wanted).await?;
        }
        Ok(())
    }

    /// The indexes that [`Store::ensure_indexes`] would create.
    ///
    /// # Errors
    /// An outage.
    pub async fn missing_indexes(&self) -> Result<Vec<String>, StoreError> {
        let mut missing = Vec::new();
        for wanted in wanted() {
            let existing = self.existing_indexes(wanted.collection).await?;
            if !existing.iter().any(|index| index.keys == wanted.keys && does_the_same(index, &wanted)) {
                missing.push(format!("{} {}", wanted.collection, wanted.what));
            }
        }
        Ok(missing)
    }

    /// Indexes of a collection; none when it does not exist yet.
    async fn existing_indexes(&self, collection: &str) -> Result<Vec<IndexModel>, StoreError> {
        let collection = self.database.collection::<Document>(collection);
        let list = collection.list_indexes();
        match self.call("a list of indexes", async { list.await?.try_collect().await }).await {
            Err(error) if error.code() == Some(NAMESPACE_NOT_FOUND) => Ok(Vec::new()),
            existing => existing,
        }
    }

    async fn ensure_index(&self, wanted: Wanted) -> Result<(), StoreError> {
        let collection = self.database.collection::<Document>(wanted.collection);
        let existing = self.existing_indexes(wanted.collection).await?;
        let mut same_keys = existing.iter().filter(|index| index.keys == wanted.keys);
        if same_keys.clone().any(|index| does_the_same(index, &wanted)) {
            return Ok(());
        }
        let index = IndexModel::builder().keys(wanted.keys.clone()).options(wanted.options.clone()).build();
        let build = self.call_within(BUILD_TIMEOUT, "an index build", collection.create_index(index));
        let Err(error) = build.await else { return Ok(()) };
        Err(match (&error, error.code()) {
            (StoreError::Refused { cause, .. }, Some(DUPLICATE_KEY)) => {
                let message = cause.message();
                // "… dup key: { source: \"x\", guid: \"1\" }"
                let example = message.split_once("dup key: ").map_or(message.as_str(), |(_, value)| value);
                let example = super::error::one_line(example);
                StoreError::Duplicates { collection: wanted.collection, keys: wanted.fields, example }
            }
            (_, Some(INDEX_OPTIONS_CONFLICT | INDEX_KEY_SPECS_CONFLICT)) => {
                let name = same_keys.next().and_then(|index| index.options.as_ref()?.name.clone()).unwrap_or_default();
                StoreError::IndexConflict { collection: wanted.collection, name, wanted: wanted.what }
            }
            _ => error,
        })
    }
}

/// Whether an existing index on the same keys does what the wanted one is for.
fn does_the_same(existing: &IndexModel, wanted: &Wanted) -> bool {
    let existing = existing.options.clone().unwrap_or_default();
    // A partial index does not see all documents, and with a collation "A" and "a" are the same guid.
    existing.unique.unwrap_or(false) == wanted.options.unique.unwrap_or(false)
        && existing.expire_after == wanted.options.expire_after
        && existing.partial_filter_expression.is_none()
        && existing.collation.is_none()
}
