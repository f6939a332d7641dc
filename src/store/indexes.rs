//! Every index, made sure of at start.
//!
//! | collection | index | for |
//! |---|---|---|
//! | `jobs` | `{source, guid}` unique | writing by identity; without it the same item is stored twice |
//! | `imports` | `{startedAt}`, expires | the newest first; old records go away |
//! | `imports` | `{feed, startedAt}` | the newest of one feed |
//! | `imports` | `{run, startedAt}` | those that were started together |
//!
//! `feeds` is read by `_id`. There are no others: each costs every write, and which fields readers query is theirs to
//! know and to index.

use std::time::Duration;

use futures_util::TryStreamExt;
use mongodb::{
    IndexModel,
    bson::{Document, doc},
    options::IndexOptions,
};

use super::{IMPORTS, JOBS, Store, StoreError};

/// How long import records are kept, from the start of the import. Counted from the start because every record has
/// one; so one whose end was never written goes away too.
pub const IMPORTS_KEPT: Duration = Duration::from_hours(30 * 24);

/// How long building an index may take. On an adopted collection it reads every document; the other calls' limit would
/// give up while MongoDB is at work.
const BUILD_TIMEOUT: Duration = Duration::from_hours(1);

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

fn wanted() -> [Wanted; 4] {
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
    ]
}

impl Store {
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

    async fn ensure_index(&self, wanted: Wanted) -> Result<(), StoreError> {
        let collection = self.database.collection::<Document>(wanted.collection);
        let list = collection.list_indexes();
        let existing: Vec<IndexModel> =
            match self.call("a list of indexes", async { list.await?.try_collect().await }).await {
                Ok(existing) => existing,
                Err(error) if error.code() == Some(NAMESPACE_NOT_FOUND) => Vec::new(),
                Err(error) => return Err(error),
            };
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
