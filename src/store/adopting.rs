//! What in an existing collection `jobs` would prevent the unique index on `{source, guid}`.
//!
//! Reads all documents once; MongoDB may use its disk for it. Without the index, and with writers at work, the answer is
//! that of a moment.

use std::cmp::Ordering;

use futures_util::TryStreamExt;
use mongodb::IndexModel;
use mongodb::bson::{Bson, Document, doc};

use super::indexes::BUILD_TIMEOUT;
use super::{JOBS, Store, StoreError, write_command::number};

/// MongoDB's error for a collection that does not exist.
const NAMESPACE_NOT_FOUND: i32 = 26;

/// What prevents the index.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Obstacles {
    /// Items of which there is more than one document.
    pub duplicated_items: u64,
    /// Documents that are more than one of an item.
    pub surplus_documents: u64,
    /// One of these items, as source and guid.
    pub example: Option<(String, String)>,
    /// Documents without a source or a guid that is a text. The index takes all without for the same; they are nobody's
    /// items, and are left to whoever knows what they are.
    pub unidentified_documents: u64,
    /// An index on the same fields that is not unique, by its name.
    pub plain_index: Option<String>,
}

impl Obstacles {
    /// Whether nothing is in the way.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl Store {
    /// Looks for what prevents the unique index.
    ///
    /// # Errors
    /// [`StoreError::is_outage`] holds for all of them.
    pub async fn find_obstacles(&self) -> Result<Obstacles, StoreError> {
        const DOING: &str = "a look at existing documents";
        let documents = self.database.collection::<Document>(JOBS);
        let listed = self.call(DOING, async { documents.list_indexes().await?.try_collect::<Vec<IndexModel>>().await });
        let indexes = match listed.await {
            Err(StoreError::Refused { cause, .. }) if cause.code() == Some(NAMESPACE_NOT_FOUND) => {
                return Ok(Obstacles::default());
            }
            listed => listed?,
        };
        let own = indexes.into_iter().find(|index| index.keys == doc! { "source": 1, "guid": 1 });
        let own = own.map(|index| index.options.unwrap_or_default());
        let mut obstacles = Obstacles::default();
        match own {
            Some(options) if options.unique == Some(true) => return Ok(obstacles),
            own => obstacles.plain_index = own.and_then(|options| options.name),
        }
        let is_no_text = |field: &str| doc! { field: { "$not": { "$type": "string" } } };
        let unidentified = documents.count_documents(doc! { "$or": [is_no_text("source"), is_no_text("guid")] });
        obstacles.unidentified_documents = self.call_within(BUILD_TIMEOUT, DOING, unidentified).await?;
        for (source, guid, count) in self.duplicates().await? {
            obstacles.duplicated_items += 1;
            obstacles.surplus_documents += count - 1;
            obstacles.example.get_or_insert((source, guid));
        }
        Ok(obstacles)
    }

    /// Keeps of each item's documents the newest: the one with the highest version, else the one that was last written,
    /// else the one with the highest `_id`. One that was written since it was read is left, and still an obstacle. Drops a
    /// plain index on the same fields, if the unique one can follow it. Answers how many documents it deleted.
    ///
    /// *Crash at any point:* some of the older ones are gone, or no index is there until the next start makes the unique one.
    ///
    /// # Errors
    /// [`StoreError::is_outage`] holds for all of them; may be repeated.
    pub async fn remove_obstacles(&self, obstacles: &Obstacles) -> Result<u64, StoreError> {
        const DOING: &str = "a removal of duplicates";
        let documents = self.database.collection::<Document>(JOBS);
        let mut deleted = 0;
        for (source, guid, _) in self.duplicates().await? {
            let find = documents
                .find(doc! { "source": source, "guid": guid })
                .projection(doc! { "version": 1, "updatedAt": 1, "createdAt": 1 })
                .sort(doc! { "_id": 1 });
            let mut found: Vec<Document> =
                self.call_within(BUILD_TIMEOUT, DOING, async { find.await?.try_collect().await }).await?;
            // Of equal ones the last is the greatest, and it has the highest id.
            let newest = found.iter().enumerate().max_by(|(_, a), (_, b)| age(a, b)).map(|(at, _)| at);
            if let Some(newest) = newest {
                found.remove(newest);
            }
            let as_read: Vec<Document> = found.iter().map(as_read).collect();
            if as_read.is_empty() {
                continue; // somebody else has removed them; and `$or` takes no empty list
            }
            let delete = documents.delete_many(doc! { "$or": as_read });
            deleted += self.call_within(BUILD_TIMEOUT, DOING, delete).await?.deleted_count;
        }
        if let Some(name) = &obstacles.plain_index
            && obstacles.unidentified_documents == 0
        {
            self.call(DOING, documents.drop_index(name.as_str())).await?;
        }
        Ok(deleted)
    }

    /// Items with several documents: source, guid, how many.
    async fn duplicates(&self) -> Result<Vec<(String, String, u64)>, StoreError> {
        let documents = self.database.collection::<Document>(JOBS);
        let aggregate = documents
            .aggregate([
                doc! { "$match": { "source": { "$type": "string" }, "guid": { "$type": "string" } } },
                doc! { "$group": { "_id": { "source": "$source", "guid": "$guid" }, "count": { "$sum": 1 } } },
                doc! { "$match": { "count": { "$gt": 1 } } },
            ])
            .allow_disk_use(true);
        let found: Vec<Document> = self
            .call_within(BUILD_TIMEOUT, "a look for duplicates", async { aggregate.await?.try_collect().await })
            .await?;
        let duplicate = |group: &Document| {
            let item = group.get_document("_id").ok()?;
            let text = |field| Some(item.get_str(field).ok()?.to_owned());
            Some((text("source")?, text("guid")?, number(group.get("count"))?.unsigned_abs()))
        };
        Ok(found.iter().filter_map(duplicate).collect())
    }
}

/// What fits a document as long as nobody writes it.
fn as_read(document: &Document) -> Document {
    // null fits a field that is not there
    let read = |field| (field, document.get(field).cloned().unwrap_or(Bson::Null));
    ["_id", "version", "updatedAt", "createdAt"]
        .map(read)
        .into_iter()
        .map(|(field, value)| (field.to_owned(), value))
        .collect()
}

/// Which of two documents of an item is older.
fn age(a: &Document, b: &Document) -> Ordering {
    let version = |document: &Document| number(document.get("version"));
    let time = |document: &Document, field| document.get_datetime(field).ok().copied();
    version(a)
        .cmp(&version(b))
        .then_with(|| time(a, "updatedAt").cmp(&time(b, "updatedAt")))
        .then_with(|| time(a, "createdAt").cmp(&time(b, "createdAt")))
}

#[cfg(test)]
mod tests {
    use mongodb::bson::DateTime;

    use super::*;

    #[test]
    fn the_newest_has_the_highest_version_or_else_was_written_last() {
        let at = DateTime::from_millis;
        let ordered = [
            doc! {},
            doc! { "createdAt": at(5) },
            doc! { "updatedAt": at(1) },
            doc! { "updatedAt": at(2), "createdAt": at(1) },
            doc! { "version": 1_i64 },
            doc! { "version": 2_i64, "updatedAt": at(0) },
        ];
        for pair in ordered.windows(2) {
            assert_eq!(age(&pair[0], &pair[1]), Ordering::Less, "{pair:?}");
        }
    }
}
