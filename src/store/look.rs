//! What an operator looks up: single documents, the feeds of a page, and how the server is doing.

use std::time::{Duration, Instant};

use futures_util::TryStreamExt;
use jiff::Timestamp;
use mongodb::bson::{Bson, Document, RawDocumentBuf, deserialize_from_slice, doc};
use serde::{Deserialize, Serialize};

use super::subscriptions::Subscription;
use super::{FEEDS, FeedStatus, IMPORTS, JOBS, Store, StoreError};

/// Which feeds are looked for.
#[derive(Clone, Debug)]
pub enum FeedsWanted<'a> {
    /// Those of these names.
    Named(&'a [String]),
    /// Those whose last fetch failed, behind this name, at most so many.
    Failing(&'a str, u32),
    /// Subscriptions whose schedule rests, behind this name, at most so many.
    Paused(&'a str, u32),
}

/// What is stored of a feed.
#[derive(Clone, Debug)]
pub struct StoredFeed {
    /// Its name.
    pub name: String,
    /// How its last fetch went; `None` if it was never fetched.
    pub status: Option<FeedStatus>,
    /// What was subscribed to; `None` for a feed of the configuration.
    pub subscription: Option<Subscription>,
}

/// How the server is doing.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StoreFacts {
    /// Its version.
    pub version: String,
    /// Time of one round trip.
    #[serde(serialize_with = "as_ms", rename = "pingMs")]
    pub ping: Duration,
    /// About how many documents each collection has.
    pub documents: Vec<(&'static str, u64)>,
    /// Names of the indexes on the items.
    pub indexes: Vec<String>,
}

fn as_ms<S: serde::Serializer>(span: &Duration, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_f64((span.as_secs_f64() * 10_000.0).round() / 10.0)
}

#[derive(Deserialize)]
struct WithSubscription {
    #[serde(default)]
    subscription: Option<Subscription>,
}

impl Store {
    /// The document of an item as JSON, with dates in RFC 3339; `None` if there is none.
    ///
    /// # Errors
    /// [`StoreError::is_outage`] holds for all of them.
    pub async fn find_document(&self, source: &str, guid: &str) -> Result<Option<serde_json::Value>, StoreError> {
        let documents = self.database.collection::<Document>(JOBS);
        let find = documents.find_one(doc! { "source": source, "guid": guid });
        let found = self.call("a read of a document", find).await?;
        Ok(found.map(|document| shown(Bson::Document(document))))
    }

    /// What is stored of some feeds, by name.
    ///
    /// # Errors
    /// [`StoreError::is_outage`] holds for all of them.
    pub async fn stored_feeds(&self, wanted: FeedsWanted<'_>) -> Result<Vec<StoredFeed>, StoreError> {
        let (filter, limit) = match wanted {
            FeedsWanted::Named(names) => (doc! { "_id": { "$in": names } }, names.len() as u32),
            FeedsWanted::Failing(after, limit) => {
                (doc! { "_id": { "$gt": after }, "consecutiveFailures": { "$gt": 0 } }, limit)
            }
            FeedsWanted::Paused(after, limit) => (doc! { "_id": { "$gt": after }, "subscription.paused": true }, limit),
        };
        if limit == 0 {
            return Ok(Vec::new()); // to MongoDB, a limit of 0 is none
        }
        let feeds = self.database.collection::<RawDocumentBuf>(FEEDS);
        let find = feeds.find(filter).sort(doc! { "_id": 1 }).limit(i64::from(limit));
        let found: Vec<RawDocumentBuf> =
            self.call("a read of feeds", async { find.await?.try_collect().await }).await?;
        let stored = found.into_iter().filter_map(|document| {
            // As the driver reads them: dates are BSON's.
            let status = deserialize_from_slice::<FeedStatus>(document.as_bytes()).ok()?;
            let subscription = deserialize_from_slice::<WithSubscription>(document.as_bytes()).ok();
            let (name, subscription) = (status.name.clone(), subscription.and_then(|with| with.subscription));
            // What is subscribed to and was never fetched has no status.
            Some(StoredFeed {
                name,
                status: Some(status).filter(|status| status.last_fetch_at.is_some()),
                subscription,
            })
        });
        Ok(stored.collect())
    }

    /// How the server is doing.
    ///
    /// # Errors
    /// [`StoreError::is_outage`] holds for all of them.
    pub async fn facts(&self) -> Result<StoreFacts, StoreError> {
        let began = Instant::now();
        self.ping().await?;
        let ping = began.elapsed();
        let info = self.call("a question for its version", self.database.run_command(doc! { "buildInfo": 1 })).await?;
        let mut documents = Vec::new();
        for name in [JOBS, IMPORTS, FEEDS] {
            let collection = self.database.collection::<Document>(name);
            documents.push((name, self.call("a count", collection.estimated_document_count()).await?));
        }
        let items = self.database.collection::<Document>(JOBS);
        let indexes = self.call("a look at the indexes", items.list_index_names());
        Ok(StoreFacts {
            version: info.get_str("version").unwrap_or("unknown").to_owned(),
            ping,
            documents,
            indexes: indexes.await?,
        })
    }
}

/// A value as JSON for people.
fn shown(value: Bson) -> serde_json::Value {
    match value {
        Bson::Document(document) => document.into_iter().map(|(name, value)| (name, shown(value))).collect(),
        Bson::Array(values) => values.into_iter().map(shown).collect(),
        Bson::DateTime(at) => Timestamp::from_millisecond(at.timestamp_millis()).map(|at| at.to_string()).ok().into(),
        Bson::ObjectId(id) => id.to_hex().into(),
        Bson::Int32(number) => number.into(),
        Bson::Int64(number) => number.into(),
        Bson::String(text) => text.into(),
        Bson::Boolean(boolean) => boolean.into(),
        Bson::Double(number) => number.into(),
        Bson::Null => serde_json::Value::Null,
        other => other.to_string().into(),
    }
}
