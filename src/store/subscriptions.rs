//! Subscriptions: feeds that were added with a command, and not in the configuration file.
//!
//! A subscription stands in the document of its feed in the collection `feeds`, beside what its last fetch brought
//! ([`super::feeds`]), under `subscription`. Running processes ask every few seconds whether any has changed
//! ([`Store::subscriptions_mark`]), which is cheap, and read them all if so.

use futures_util::TryStreamExt;
use jiff::Timestamp;
use mongodb::bson::{DateTime, Document, RawDocumentBuf, doc, raw::cstr, serialize_to_raw_document_buf};
use serde::{Deserialize, Serialize};

use super::{
    FEEDS, Store, StoreError, dates,
    write_command::{Answer, STATEMENTS_MAX, WriteCommand},
};
use crate::feed::OnLeave;

/// A feed that was subscribed to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Subscription {
    /// Its name, unique; the id of its fetch jobs.
    #[serde(skip)]
    pub name: String,
    /// Where it is fetched.
    pub url: String,
    /// What its items belong to.
    pub source: String,
    /// What its publisher calls it.
    #[serde(default)]
    pub title: Option<String>,
    /// When it is due, as in the configuration.
    pub schedule: String,
    /// Time zone of a cron pattern.
    #[serde(default)]
    pub timezone: Option<String>,
    /// What becomes of the documents of items that leave.
    #[serde(default)]
    pub on_leave: OnLeave,
    /// Whether its schedule rests.
    #[serde(default)]
    pub paused: bool,
    /// When it was added or last changed.
    #[serde(with = "dates::required")]
    pub changed_at: Timestamp,
}

/// Tells whether subscriptions have changed since they were read: their number, and when one last changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SubscriptionsMark {
    count: u64,
    changed_at: Option<DateTime>,
}

#[derive(Deserialize)]
struct Stored {
    #[serde(rename = "_id")]
    name: String,
    subscription: Subscription,
}

impl Stored {
    fn into_subscription(self) -> Subscription {
        Subscription { name: self.name, ..self.subscription }
    }
}

/// A filter that every subscription meets and nothing else. Ordered by the index on `subscription.changedAt`, which has
/// only them.
fn all() -> Document {
    doc! { "subscription.changedAt": { "$exists": true } }
}

impl Store {
    /// Adds subscriptions. Answers for each whether it was added; one whose name is taken by another is not.
    ///
    /// # Errors
    /// [`StoreError`]: some may have been added. Adding again answers that their names are taken.
    pub async fn add_subscriptions(&self, subscriptions: &[Subscription]) -> Result<Vec<bool>, StoreError> {
        const DOING: &str = "a write of subscriptions";
        let mut added = Vec::with_capacity(subscriptions.len());
        for piece in subscriptions.chunks(STATEMENTS_MAX) {
            let statements: Vec<RawDocumentBuf> = piece.iter().map(add_statement).collect();
            for answer in self.send(DOING, WriteCommand::Update, FEEDS, &statements).await? {
                added.push(match answer {
                    Answer::Inserted | Answer::Matched => true,
                    Answer::Refused(error) if error.is_clash_on(&["_id"]) => false,
                    Answer::Refused(error) => return Err(error.into_error(&self.hosts, DOING)),
                });
            }
        }
        Ok(added)
    }

    /// All subscriptions, by name.
    ///
    /// # Errors
    /// [`StoreError::is_outage`] holds for all of them.
    pub async fn subscriptions(&self) -> Result<Vec<Subscription>, StoreError> {
        let feeds = self.database.collection::<Stored>(FEEDS);
        let find = feeds.find(all()).projection(doc! { "subscription": 1 }).sort(doc! { "_id": 1 });
        let found: Vec<Stored> =
            self.call("a read of the subscriptions", async { find.await?.try_collect().await }).await?;
        Ok(found.into_iter().map(Stored::into_subscription).collect())
    }

    /// Whether subscriptions have changed shows in this being another.
    ///
    /// # Errors
    /// [`StoreError::is_outage`] holds for all of them.
    pub async fn subscriptions_mark(&self) -> Result<SubscriptionsMark, StoreError> {
        const DOING: &str = "a look whether subscriptions have changed";
        let feeds = self.database.collection::<Document>(FEEDS);
        let newest = feeds
            .find_one(all())
            .projection(doc! { "_id": 0, "subscription.changedAt": 1 })
            .sort(doc! { "subscription.changedAt": -1 });
        let newest = self.call(DOING, newest).await?;
        let changed_at =
            newest.and_then(|newest| newest.get_document("subscription").ok()?.get_datetime("changedAt").ok().copied());
        let count = self.call(DOING, feeds.count_documents(all())).await?;
        Ok(SubscriptionsMark { count, changed_at })
    }

    /// Lets the schedule of a subscription rest, or go on. False: there is no such subscription.
    ///
    /// # Errors
    /// [`StoreError::is_outage`] holds for all of them.
    pub async fn pause_subscription(&self, name: &str, paused: bool) -> Result<bool, StoreError> {
        let feeds = self.database.collection::<Document>(FEEDS);
        let set = doc! { "$set": { "subscription.paused": paused, "subscription.changedAt": DateTime::now() } };
        let mut filter = all();
        filter.insert("_id", name);
        let updated = self.call("a write of a subscription", feeds.update_one(filter, set)).await?;
        Ok(updated.matched_count == 1)
    }

    /// Ends a subscription. Its documents stay. False: there is no such subscription.
    ///
    /// # Errors
    /// [`StoreError::is_outage`] holds for all of them.
    pub async fn remove_subscription(&self, name: &str) -> Result<bool, StoreError> {
        let feeds = self.database.collection::<Document>(FEEDS);
        let mut filter = all();
        filter.insert("_id", name);
        let deleted = self.call("a removal of a subscription", feeds.delete_one(filter)).await?;
        Ok(deleted.deleted_count == 1)
    }
}

/// Adds a subscription to the document of its feed, which may be there with the status of an earlier one, unless it has
/// one.
fn add_statement(subscription: &Subscription) -> RawDocumentBuf {
    let stored =
        serialize_to_raw_document_buf(subscription).expect("a subscription is a struct of strings, flags and a time");
    let mut set = RawDocumentBuf::new();
    set.append(cstr!("url"), subscription.url.as_str());
    set.append(cstr!("source"), subscription.source.as_str());
    set.append(cstr!("subscription"), stored);
    let mut absent = RawDocumentBuf::new();
    absent.append(cstr!("$exists"), false);
    let mut filter = RawDocumentBuf::new();
    filter.append(cstr!("_id"), subscription.name.as_str());
    filter.append(cstr!("subscription"), absent);
    let mut update = RawDocumentBuf::new();
    update.append(cstr!("$set"), set);
    let mut statement = RawDocumentBuf::new();
    statement.append(cstr!("q"), filter);
    statement.append(cstr!("u"), update);
    statement.append(cstr!("upsert"), true);
    statement
}
