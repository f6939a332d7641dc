//! Writing items to MongoDB: which version lands, what fails alone, what is an outage.

use std::{collections::BTreeMap, time::Duration};

use feedmill::{
    item::{Enclosure, Item},
    store::{FeedStatus, ImportFailure, ImportRecord, ImportStatus, ItemWrite, JOBS, Store, StoreError, WriteResult},
};
use futures_util::future::join_all;
use mongodb::bson::{Bson, DateTime, Document, doc};
use serde_json::json;

use crate::support::{TestDatabase, mongo_database, servers::OwnMongod};

/// A store with its indexes on a database of this test.
async fn store() -> (Store, TestDatabase) {
    let database = mongo_database();
    let store = Store::connect(&database.uri, &database.name).await.unwrap();
    store.ensure_indexes().await.unwrap();
    (store, database)
}

fn item(guid: &str, title: &str) -> Item {
    Item { source: "test".into(), guid: guid.into(), title: Some(title.into()), ..Item::default() }
}

fn write(item: &Item, version: u64) -> ItemWrite<'_> {
    ItemWrite { item, fingerprint: None, version, import: Some("import-1") }
}

async fn write_one(store: &Store, item: &Item, version: u64) -> WriteResult {
    store.write(&[write(item, version)]).await.unwrap().remove(0)
}

async fn document(store: &Store, guid: &str) -> Document {
    let jobs = store.database().collection::<Document>(JOBS);
    jobs.find_one(doc! { "source": "test", "guid": guid }).await.unwrap().expect("the document exists")
}

async fn documents(store: &Store) -> u64 {
    store.database().collection::<Document>(JOBS).count_documents(doc! {}).await.unwrap()
}

/// JSON objects in each other, `levels` of them.
fn nested(levels: usize) -> serde_json::Value {
    (0..levels).fold(json!("core"), |inner, _| json!({ "in": inner }))
}

#[tokio::test]
async fn an_item_becomes_a_document_with_all_its_fields() {
    let (store, _database) = store().await;
    let item = Item {
        source: "test".into(),
        guid: "https://example.org/?id=1#2".into(),
        feed: Some("jobs".into()),
        title: Some("Miller".into()),
        link: Some("https://example.org/1".into()),
        published: Some("2026-03-01T10:00:00.123456Z".parse().unwrap()),
        updated: None,
        summary: Some("<p>short</p>".into()),
        content: Some("<p>long</p>".into()),
        author: Some("Ada".into()),
        categories: vec!["grain".into(), "flour".into()],
        enclosures: vec![
            Enclosure {
                url: "https://example.org/a.mp3".into(),
                media_type: Some("audio/mpeg".into()),
                length: Some(7),
            },
            Enclosure { url: "https://example.org/b".into(), media_type: None, length: Some(u64::MAX) },
        ],
        extensions: BTreeMap::from([
            ("job_listing:company".into(), json!("Mill & Sons")),
            ("numbers".into(), json!([1, 2.5, u64::MAX, null, true, ["a", { "b": [] }]])),
        ]),
    };
    let write = ItemWrite {
        item: &item,
        fingerprint: Some([0, 1, 2, 0xab, 0xcd, 0xef, 0xff]),
        version: 1_700_000_000_000_000,
        import: Some("import-1"),
    };
    assert_eq!(store.write(&[write]).await.unwrap(), [WriteResult::Inserted]);

    let mut document = document(&store, &item.guid).await;
    document.remove("_id").unwrap();
    let created = document.remove("createdAt").unwrap();
    assert_eq!(Some(created), document.remove("updatedAt"));
    let mut fields: Vec<&str> = document.keys().map(String::as_str).collect();
    fields.sort_unstable();
    let published = DateTime::from_millis(1_772_359_200_123);
    let expected = doc! {
        "author": "Ada",
        "categories": ["grain", "flour"],
        "content": "<p>long</p>",
        "enclosures": [
            { "url": "https://example.org/a.mp3", "type": "audio/mpeg", "length": 7_i64 },
            { "url": "https://example.org/b", "type": null, "length": u64::MAX as f64 },
        ],
        "extensions": {
            "job_listing:company": "Mill & Sons",
            "numbers": [1_i64, 2.5, u64::MAX as f64, null, true, ["a", { "b": [] }]],
        },
        "feed": "jobs",
        "fingerprint": "000102abcdefff",
        "guid": "https://example.org/?id=1#2",
        "importId": "import-1",
        "link": "https://example.org/1",
        "published": published,
        "source": "test",
        "summary": "<p>short</p>",
        "title": "Miller",
        "updated": null,
        "version": 1_700_000_000_000_000_i64,
    };
    assert_eq!(fields, expected.keys().collect::<Vec<_>>());
    for (field, value) in &expected {
        assert_eq!(document.get(field), Some(value), "{field}");
    }
}

#[tokio::test]
async fn a_newer_version_updates_and_an_older_one_is_stale() {
    let (store, _database) = store().await;
    assert_eq!(write_one(&store, &item("1", "second"), 2).await, WriteResult::Inserted);
    assert_eq!(write_one(&store, &item("1", "third"), 3).await, WriteResult::Updated);
    assert_eq!(write_one(&store, &item("1", "first"), 1).await, WriteResult::Stale);
    assert_eq!(document(&store, "1").await.get_str("title").ok(), Some("third"));
    assert_eq!(documents(&store).await, 1);
}

#[tokio::test]
async fn an_equal_version_counts_as_written_with_the_result_of_the_first_time() {
    let (store, _database) = store().await;
    let first = item("1", "first");
    assert_eq!(write_one(&store, &first, 1).await, WriteResult::Inserted);
    assert_eq!(write_one(&store, &first, 1).await, WriteResult::Inserted);
    // The two times of a document are milliseconds; the update must fall into a later one to be told apart.
    let created = document(&store, "1").await.get_datetime("createdAt").unwrap().timestamp_millis();
    while DateTime::now().timestamp_millis() <= created {
        tokio::task::yield_now().await;
    }
    let second = item("1", "second");
    assert_eq!(write_one(&store, &second, 2).await, WriteResult::Updated);
    assert_eq!(write_one(&store, &second, 2).await, WriteResult::Updated);
}

#[tokio::test]
async fn one_batch_gives_each_item_its_own_result() {
    let (store, _database) = store().await;
    let (old, same, new) = (item("old", "kept"), item("same", "kept"), item("new", "new"));
    store.write(&[write(&old, 5), write(&same, 5)]).await.unwrap();
    let bad = Item { extensions: BTreeMap::from([("nul\0name".into(), json!(1))]), ..item("bad", "bad") };
    let results = store.write(&[write(&old, 4), write(&bad, 5), write(&same, 5), write(&new, 5), write(&new, 6)]).await;
    let failed = WriteResult::Failed {
        reason: "the name \"nul\\0name\" contains a NUL character, which a BSON name cannot".into(),
        retry: false,
    };
    let expected = [WriteResult::Stale, failed, WriteResult::Inserted, WriteResult::Inserted, WriteResult::Updated];
    assert_eq!(results.unwrap(), expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_200_concurrent_writers_of_two_versions_the_newest_always_lands() {
    let (store, _database) = store().await;
    let ids = 20;
    let writers = (0..200_u64).map(|writer| {
        let store = store.clone();
        let version = 1 + writer % 2;
        tokio::spawn(async move {
            let items: Vec<Item> = (0..ids).map(|id| item(&id.to_string(), &format!("version {version}"))).collect();
            let writes: Vec<ItemWrite<'_>> = items.iter().map(|item| write(item, version)).collect();
            (version, store.write(&writes).await.unwrap())
        })
    });
    for writer in join_all(writers).await {
        let (version, results) = writer.unwrap();
        let wrong = |result: &WriteResult| match result {
            WriteResult::Inserted | WriteResult::Updated => false,
            WriteResult::Stale => version == 2,
            WriteResult::Failed { .. } => true,
        };
        assert!(!results.iter().any(wrong), "version {version}: {results:?}");
    }
    assert_eq!(documents(&store).await, ids);
    let jobs = store.database().collection::<Document>(JOBS);
    assert_eq!(jobs.count_documents(doc! { "title": "version 2", "version": 2 }).await.unwrap(), ids);
}

#[tokio::test]
async fn a_document_without_version_is_older_than_any_and_keeps_what_is_not_ours() {
    let (store, _database) = store().await;
    let adopted = doc! { "source": "test", "guid": "1", "title": "old", "rating": 5, "version": "1.0" };
    let jobs = store.database().collection::<Document>(JOBS);
    jobs.insert_one(adopted).await.unwrap();
    jobs.insert_one(doc! { "source": "test", "guid": "2", "title": "old" }).await.unwrap();
    let (one, two) = (item("1", "new"), item("2", "new"));
    let results = store.write(&[write(&one, 1), write(&two, 1)]).await.unwrap();
    assert_eq!(results, [WriteResult::Updated, WriteResult::Updated]);
    let document = document(&store, "1").await;
    assert_eq!(document.get_str("title").ok(), Some("new"));
    assert_eq!(document.get_i32("rating").ok(), Some(5));
    assert_eq!(documents(&store).await, 2);
}

#[tokio::test]
async fn a_field_the_newer_version_lacks_becomes_null() {
    let (store, _database) = store().await;
    let mut item = item("1", "title");
    item.author = Some("Ada".into());
    item.extensions.insert("a:b".into(), json!("c"));
    write_one(&store, &item, 1).await;
    item.author = None;
    item.extensions.clear();
    assert_eq!(write_one(&store, &item, 2).await, WriteResult::Updated);
    let document = document(&store, "1").await;
    assert_eq!(document.get("author"), Some(&Bson::Null));
    assert_eq!(document.get_document("extensions").ok(), Some(&doc! {}));
}

#[tokio::test]
async fn texts_that_look_like_expressions_are_stored_verbatim() {
    let (store, _database) = store().await;
    for title in ["$100 an hour", "$$ROOT", "$title", "a\0b", "{\"$gt\": 1}"] {
        let item = item(title, title);
        assert_eq!(write_one(&store, &item, 1).await, WriteResult::Inserted, "{title:?}");
        assert_eq!(document(&store, title).await.get_str("title").ok(), Some(title));
    }
}

#[tokio::test]
async fn names_in_extensions_are_stored_verbatim_but_for_a_leading_dollar() {
    let (store, _database) = store().await;
    let mut item = item("1", "names");
    item.extensions.insert("a.b".into(), json!({ "c.d": 1, "$e": 2, "": 3, "f$g": 4, "_id": [5] }));
    item.extensions.insert("$ref".into(), json!("x"));
    assert_eq!(write_one(&store, &item, 1).await, WriteResult::Inserted);
    assert_eq!(write_one(&store, &item, 2).await, WriteResult::Updated);
    let expected =
        doc! { "＄ref": "x", "a.b": { "c.d": 1_i64, "＄e": 2_i64, "": 3_i64, "f$g": 4_i64, "_id": [5_i64] } };
    let document = document(&store, "1").await;
    let stored = document.get_document("extensions").unwrap();
    assert_eq!(stored.get("＄ref"), expected.get("＄ref"));
    for (name, value) in expected.get_document("a.b").unwrap() {
        assert_eq!(stored.get_document("a.b").unwrap().get(name), Some(value), "{name:?}");
    }
}

#[tokio::test]
async fn nesting_of_100_levels_lands_and_of_101_is_refused_alone() {
    let (store, _database) = store().await;
    let (mut deep, mut deeper) = (item("deep", "deep"), item("deeper", "deeper"));
    // The document and its `extensions` are two levels.
    deep.extensions.insert("nested".into(), nested(98));
    deeper.extensions.insert("nested".into(), nested(99));
    let other = item("other", "other");
    let results = store.write(&[write(&deep, 1), write(&deeper, 1), write(&other, 1)]).await.unwrap();
    let failed = WriteResult::Failed {
        reason: "nested deeper than 100 levels at the extension \"nested\"".into(),
        retry: false,
    };
    assert_eq!(results, [WriteResult::Inserted, failed, WriteResult::Inserted]);
}

#[tokio::test]
async fn items_beyond_12_mib_go_in_several_commands() {
    let (store, _database) = store().await;
    let body = "x".repeat(1 << 20);
    let items: Vec<Item> =
        (0..20).map(|id| Item { content: Some(body.clone()), ..item(&id.to_string(), "large") }).collect();
    let writes: Vec<ItemWrite<'_>> = items.iter().map(|item| write(item, 1)).collect();
    assert_eq!(store.write(&writes).await.unwrap(), vec![WriteResult::Inserted; 20]);
    assert_eq!(documents(&store).await, 20);
}

#[tokio::test]
async fn a_document_of_14_mib_lands_and_one_of_16_mib_is_refused_alone() {
    let (store, _database) = store().await;
    let large = |guid: &str, mib: usize| Item { content: Some("x".repeat(mib << 20)), ..item(guid, "large") };
    let (fits, too_large, small) = (large("fits", 14), large("too-large", 16), item("small", "small"));
    let results = store.write(&[write(&small, 1), write(&too_large, 1), write(&fits, 1)]).await.unwrap();
    assert_eq!(results[0], WriteResult::Inserted);
    assert!(matches!(&results[1], WriteResult::Failed { reason, retry: false } if reason.contains("16 MiB")));
    assert_eq!(results[2], WriteResult::Inserted);
}

#[tokio::test]
async fn what_makes_the_document_too_large_with_the_fields_of_others_fails_alone() {
    let (store, _database) = store().await;
    let jobs = store.database().collection::<Document>(JOBS);
    jobs.insert_one(doc! { "source": "test", "guid": "1", "others": "x".repeat(5 << 20) }).await.unwrap();
    let large = Item { content: Some("x".repeat(12 << 20)), ..item("1", "large") };
    let results = store.write(&[write(&large, 1), write(&item("2", "small"), 1)]).await.unwrap();
    assert!(matches!(&results[0], WriteResult::Failed { retry: false, .. }), "{:?}", results[0]);
    assert_eq!(results[1], WriteResult::Inserted);
}

#[tokio::test]
async fn what_a_validator_or_an_index_of_others_refuses_fails_alone_and_for_good() {
    let (store, _database) = store().await;
    let validator = doc! { "collMod": JOBS, "validator": { "title": { "$ne": "forbidden" } } };
    store.database().run_command(validator).await.unwrap();
    let jobs = store.database().collection::<Document>(JOBS);
    let unique_author = doc! { "createIndexes": JOBS, "indexes": [{
        "key": { "author": 1 }, "name": "author", "unique": true,
        "partialFilterExpression": { "author": { "$type": "string" } },
    }] };
    store.database().run_command(unique_author).await.unwrap();
    jobs.insert_one(doc! { "source": "test", "guid": "0", "author": "Ada" }).await.unwrap();

    let taken = Item { author: Some("Ada".into()), ..item("2", "fine") };
    let results = store
        .write(&[write(&item("1", "forbidden"), 1), write(&taken, 1), write(&item("3", "fine"), 1)])
        .await
        .unwrap();
    assert!(
        matches!(&results[0], WriteResult::Failed { reason, retry: false } if reason.contains("121")),
        "{results:?}"
    );
    assert!(
        matches!(&results[1], WriteResult::Failed { reason, retry: false } if reason.contains("author")),
        "{results:?}"
    );
    assert_eq!(results[2], WriteResult::Inserted);
}

#[tokio::test]
async fn what_a_validator_lets_be_updated_but_not_inserted_is_updated() {
    let (store, _database) = store().await;
    let jobs = store.database().collection::<Document>(JOBS);
    jobs.insert_one(doc! { "source": "test", "guid": "1", "title": "forbidden" }).await.unwrap();
    let validator =
        doc! { "collMod": JOBS, "validator": { "title": { "$ne": "forbidden" } }, "validationLevel": "moderate" };
    store.database().run_command(validator).await.unwrap();
    assert_eq!(write_one(&store, &item("1", "forbidden"), 1).await, WriteResult::Updated);
    let result = write_one(&store, &item("2", "forbidden"), 1).await;
    assert!(matches!(&result, WriteResult::Failed { retry: false, .. }), "{result:?}");
}

/// How many commands a server was sent so far: inserts, updates.
async fn commands(store: &Store) -> (i64, i64) {
    let status = store.database().run_command(doc! { "serverStatus": 1 }).await.unwrap();
    let commands = status.get_document("metrics").unwrap().get_document("commands").unwrap();
    let total = |name: &str| commands.get_document(name).unwrap().get_i64("total").unwrap();
    (total("insert"), total("update"))
}

#[tokio::test]
async fn a_write_begins_with_what_was_right_for_most_items_of_the_one_before() {
    let server = OwnMongod::start();
    let store = Store::connect(&server.uri(), "ways").await.unwrap();
    store.ensure_indexes().await.unwrap();
    let items = |from: u32| (from..from + 10).map(|id| item(&id.to_string(), "title")).collect::<Vec<_>>();
    let mut before = commands(&store).await;
    for (what, first, version, result, inserts, updates) in [
        ("new ones are inserted", 0, 1, WriteResult::Inserted, 1, 0),
        ("changed ones are refused, and updated", 0, 2, WriteResult::Updated, 1, 1),
        ("more changed ones are updated at once", 0, 3, WriteResult::Updated, 0, 1),
        ("new ones are updates that insert", 10, 3, WriteResult::Inserted, 0, 1),
        ("more new ones are inserted", 20, 3, WriteResult::Inserted, 1, 0),
        ("the same again is refused, and needs no update", 20, 3, WriteResult::Inserted, 1, 0),
        ("older ones are refused, and need none either", 20, 2, WriteResult::Stale, 1, 0),
    ] {
        let items = items(first);
        let writes: Vec<ItemWrite<'_>> = items.iter().map(|item| write(item, version)).collect();
        assert_eq!(store.write(&writes).await.unwrap(), vec![result; 10], "{what}");
        let now = commands(&store).await;
        assert_eq!((now.0 - before.0, now.1 - before.1), (inserts, updates), "{what}");
        before = now;
    }
    // However it was written, a document is the same.
    let (mut updated, mut inserted) = (document(&store, "10").await, document(&store, "20").await);
    for document in [&mut updated, &mut inserted] {
        for own in ["_id", "guid", "createdAt", "updatedAt"] {
            assert!(document.remove(own).is_some(), "{own} in {document}");
        }
    }
    let by_name = |document: Document| document.into_iter().collect::<BTreeMap<_, _>>();
    assert_eq!(by_name(updated), by_name(inserted));
}

#[tokio::test]
async fn a_unique_index_of_others_that_is_checked_first_hides_no_written_document() {
    let database = mongo_database();
    let store = Store::connect(&database.uri, &database.name).await.unwrap();
    let by_guid = doc! { "key": { "guid": 1 }, "name": "by_guid", "unique": true };
    store.database().run_command(doc! { "createIndexes": JOBS, "indexes": [by_guid] }).await.unwrap();
    store.ensure_indexes().await.unwrap();
    let item = item("1", "title");
    assert_eq!(write_one(&store, &item, 2).await, WriteResult::Inserted);
    assert_eq!(write_one(&store, &item, 2).await, WriteResult::Inserted);
    assert_eq!(write_one(&store, &item, 1).await, WriteResult::Stale);
    let other_source = Item { source: "other".into(), ..item };
    let result = write_one(&store, &other_source, 2).await;
    assert!(
        matches!(&result, WriteResult::Failed { reason, retry: false } if reason.contains("by_guid")),
        "{result:?}"
    );
}

#[tokio::test]
async fn duplicates_forbid_the_unique_index_and_the_error_names_one() {
    let database = mongo_database();
    let store = Store::connect(&database.uri, &database.name).await.unwrap();
    let jobs = store.database().collection::<Document>(JOBS);
    jobs.insert_many([doc! { "source": "s", "guid": "7" }, doc! { "source": "s", "guid": "7" }]).await.unwrap();
    let error = store.ensure_indexes().await.unwrap_err();
    assert!(!error.is_outage());
    assert_eq!(
        error.to_string(),
        "cannot build the unique index {source, guid} on the collection \"jobs\": several documents have the same values \
         ({ source: \"s\", guid: \"7\" }); delete or change all but one of each and start again"
    );
}

#[tokio::test]
async fn an_index_in_the_way_is_named_with_the_command_that_drops_it() {
    let database = mongo_database();
    let store = Store::connect(&database.uri, &database.name).await.unwrap();
    let not_unique = doc! { "key": { "source": 1, "guid": 1 }, "name": "source_1_guid_1" };
    store.database().run_command(doc! { "createIndexes": JOBS, "indexes": [not_unique] }).await.unwrap();
    let error = store.ensure_indexes().await.unwrap_err();
    assert!(!error.is_outage());
    assert_eq!(
        error.to_string(),
        "the index \"source_1_guid_1\" on the collection \"jobs\" conflicts with one that feedmill needs (unique on \
         source and guid of all documents); drop it with db.jobs.dropIndex(\"source_1_guid_1\") and start again"
    );

    store.database().collection::<Document>(JOBS).drop_index("source_1_guid_1").await.unwrap();
    let expires_sooner = doc! { "key": { "startedAt": 1 }, "name": "mine", "expireAfterSeconds": 60 };
    store.database().run_command(doc! { "createIndexes": "imports", "indexes": [expires_sooner] }).await.unwrap();
    let error = store.ensure_indexes().await.unwrap_err().to_string();
    assert!(error.contains("db.imports.dropIndex(\"mine\")"), "{error}");
}

#[tokio::test]
async fn an_index_that_only_finds_documents_may_stand_beside_the_unique_one() {
    let database = mongo_database();
    let store = Store::connect(&database.uri, &database.name).await.unwrap();
    let by_source = doc! { "key": { "source": 1, "guid": 1 }, "name": "by_source" };
    store.database().run_command(doc! { "createIndexes": JOBS, "indexes": [by_source] }).await.unwrap();
    store.ensure_indexes().await.unwrap();
    let names = store.database().collection::<Document>(JOBS).list_index_names().await.unwrap();
    assert_eq!(names, ["_id_", "by_source", "source_1_guid_1"]);
}

#[tokio::test]
async fn indexes_are_created_once_and_one_of_another_name_is_used() {
    let database = mongo_database();
    let store = Store::connect(&database.uri, &database.name).await.unwrap();
    let command = doc! { "createIndexes": JOBS, "indexes": [
        { "key": { "source": 1, "guid": 1 }, "name": "by_source", "unique": true },
    ] };
    store.database().run_command(command).await.unwrap();
    store.ensure_indexes().await.unwrap();
    store.ensure_indexes().await.unwrap();
    let names = |collection: &str| {
        let collection = store.database().collection::<Document>(collection);
        async move { collection.list_index_names().await.unwrap() }
    };
    assert_eq!(names("jobs").await, ["_id_", "by_source"]);
    assert_eq!(names("imports").await, ["_id_", "startedAt_1", "feed_1_startedAt_-1", "run_1_startedAt_-1"]);
}

fn import(id: &str, feed: &str, started: &str) -> ImportRecord {
    ImportRecord {
        id: id.into(),
        feed: feed.into(),
        source: "test".into(),
        run: None,
        asked: true,
        status: ImportStatus::Running,
        started_at: started.parse().unwrap(),
        finished_at: None,
        items: 3,
        new: 2,
        changed: 0,
        unchanged: 1,
        duplicate: 0,
        inserted: 0,
        updated: 0,
        stale: 0,
        superseded: 0,
        removed: 0,
        failed: 0,
        failures: Vec::new(),
        recovered: None,
        error: None,
    }
}

#[tokio::test]
async fn an_import_record_is_replaced_by_its_id_and_reads_back_as_written() {
    let (store, _database) = store().await;
    let mut record = import("a", "jobs", "2026-03-01T10:00:00.5Z");
    store.upsert_imports(std::slice::from_ref(&record)).await.unwrap();
    assert_eq!(store.find_import("a").await.unwrap().as_ref(), Some(&record));

    record.status = ImportStatus::Done;
    record.finished_at = Some("2026-03-01T10:00:02Z".parse().unwrap());
    record.inserted = 1;
    record.failed = 1;
    record.failures = vec![ImportFailure { id: "test#2".into(), reason: "no".into() }];
    store.upsert_imports(std::slice::from_ref(&record)).await.unwrap();
    store.upsert_imports(std::slice::from_ref(&record)).await.unwrap();
    assert_eq!(store.find_import("a").await.unwrap().as_ref(), Some(&record));
    assert_eq!(store.find_import("b").await.unwrap(), None);

    let stored = store.database().collection::<Document>("imports").find_one(doc! {}).await.unwrap().unwrap();
    assert!(stored.get_datetime("startedAt").is_ok(), "the expiry needs a BSON date: {stored}");
    assert!(stored.get_datetime("finishedAt").is_ok());
}

#[tokio::test]
async fn a_late_running_record_does_not_replace_a_finished_one() {
    let (store, _database) = store().await;
    let running = import("a", "jobs", "2026-03-01T10:00:00Z");
    let done = ImportRecord { status: ImportStatus::Done, ..running.clone() };
    store.upsert_imports(&[done.clone(), running]).await.unwrap();
    assert_eq!(store.find_import("a").await.unwrap(), Some(done));
}

#[tokio::test]
async fn imports_are_listed_newest_first_of_one_feed_or_all() {
    let (store, _database) = store().await;
    let records = [
        import("a", "jobs", "2026-03-01T10:00:00Z"),
        import("b", "news", "2026-03-01T12:00:00Z"),
        import("c", "jobs", "2026-03-01T11:00:00Z"),
    ];
    store.upsert_imports(&records).await.unwrap();
    let ids = |records: Vec<ImportRecord>| records.into_iter().map(|record| record.id).collect::<Vec<_>>();
    assert_eq!(ids(store.list_imports(10, None).await.unwrap()), ["b", "c", "a"]);
    assert_eq!(ids(store.list_imports(1, None).await.unwrap()), ["b"]);
    assert_eq!(ids(store.list_imports(10, Some("jobs")).await.unwrap()), ["c", "a"]);
    assert!(store.list_imports(0, None).await.unwrap().is_empty());
}

#[tokio::test]
async fn an_import_prints_its_times_as_text() {
    let record = import("a", "jobs", "2026-03-01T10:00:00Z");
    let json = serde_json::to_value(&record).unwrap();
    assert_eq!(json["startedAt"], "2026-03-01T10:00:00Z");
    assert_eq!(serde_json::from_value::<ImportRecord>(json).unwrap(), record);
}

#[tokio::test]
async fn the_status_of_an_older_fetch_does_not_replace_a_newer_one() {
    let (store, _database) = store().await;
    let status = |last_status: u16| FeedStatus {
        name: "jobs".into(),
        url: "https://example.org/feed".into(),
        source: "test".into(),
        last_status: Some(last_status),
        last_fetch_at: Some("2026-03-01T10:00:00Z".parse().unwrap()),
        next_fetch_at: None,
        consecutive_failures: 0,
        last_error: None,
        stopped: false,
        moved_to: None,
    };
    assert!(store.upsert_feed(&status(200), 2).await.unwrap());
    assert!(!store.upsert_feed(&status(500), 1).await.unwrap());
    assert_eq!(store.find_feed("jobs").await.unwrap(), Some(status(200)));
    assert!(store.upsert_feed(&status(304), 2).await.unwrap(), "the next attempt of the same fetch");
    assert!(store.upsert_feed(&status(404), 3).await.unwrap());
    assert_eq!(store.list_feeds().await.unwrap(), [status(404)]);
    assert_eq!(store.find_feed("news").await.unwrap(), None);
}

#[tokio::test]
async fn an_unreachable_mongodb_is_named_without_user_and_password() {
    let started = std::time::Instant::now();
    let uri = "mongodb://ada:s3cret@127.0.0.1:1/?serverSelectionTimeoutMS=300";
    let error = Store::connect(uri, "feedmill").await.unwrap_err();
    assert!(started.elapsed() < Duration::from_secs(5));
    assert!(error.is_outage());
    assert_eq!(error.to_string(), "cannot reach MongoDB at 127.0.0.1:1; start it, or set MONGODB_URI to where it runs");
    let whole = format!("{error:?} {}", std::error::Error::source(&error).unwrap());
    assert!(!whole.contains("s3cret") && !whole.contains("ada"), "{whole}");
    assert!(whole.contains("refused"), "the reason is in the cause: {whole}");
}

#[tokio::test]
async fn a_frozen_mongod_is_an_outage_within_the_timeout_and_nothing_is_lost() {
    let server = OwnMongod::start();
    let timeout = Duration::from_millis(300);
    let store = Store::connect(&server.uri(), "frozen").await.unwrap().with_call_timeout(timeout);
    store.ensure_indexes().await.unwrap();
    server.stop();
    let item = item("1", "title");
    let started = std::time::Instant::now();
    let error = store.write(&[write(&item, 1)]).await.unwrap_err();
    assert!(started.elapsed() < 2 * timeout, "{:?}", started.elapsed());
    assert!(error.is_outage(), "{error}");
    assert!(matches!(error, StoreError::NoAnswer { .. }), "{error:?}");
    server.cont();
    // The first write may have landed once the server went on; then this is a redelivery.
    let store = store.with_call_timeout(Duration::from_secs(10));
    assert_eq!(store.write(&[write(&item, 1)]).await.unwrap(), [WriteResult::Inserted]);
    assert_eq!(documents(&store).await, 1);
}

#[tokio::test]
async fn a_mongod_that_is_down_is_an_outage_and_the_same_store_works_once_it_is_back() {
    let mut server = OwnMongod::start();
    let uri = format!("{}/?serverSelectionTimeoutMS=500", server.uri());
    let store = Store::connect(&uri, "down").await.unwrap();
    store.ensure_indexes().await.unwrap();
    let (one, two) = (item("1", "one"), item("2", "two"));
    assert_eq!(write_one(&store, &one, 1).await, WriteResult::Inserted);
    for end in [OwnMongod::term, OwnMongod::kill9] {
        end(&mut server);
        let error = store.write(&[write(&two, 1)]).await.unwrap_err();
        assert!(error.is_outage(), "{error}");
        assert!(store.ping().await.unwrap_err().is_outage());
        server.restart();
        let mut written = store.write(&[write(&one, 1), write(&two, 1)]).await;
        // A connection from before may fail once more.
        while written.as_ref().is_err_and(StoreError::is_outage) {
            written = store.write(&[write(&one, 1), write(&two, 1)]).await;
        }
        assert_eq!(written.unwrap(), [WriteResult::Inserted, WriteResult::Inserted]);
        store.ping().await.unwrap();
    }
    assert_eq!(documents(&store).await, 2);
}

/// Makes the next `times` writes of a server (started with test commands) fail as a whole.
async fn fail_writes(store: &Store, code: i32, times: i32) {
    let fail_point = doc! {
        "configureFailPoint": "failCommand",
        "mode": { "times": times },
        "data": { "failCommands": ["insert", "update"], "errorCode": code },
    };
    store.client().database("admin").run_command(fail_point).await.unwrap();
}

#[tokio::test]
async fn errors_of_the_whole_command_are_outages_or_the_fault_of_the_one_document_it_is_narrowed_down_to() {
    let server = OwnMongod::start_with(&["--setParameter", "enableTestCommands=1"]);
    // Some of the errors make the driver wait for the server's next heartbeat, 10 s by default.
    let uri = format!("{}/?heartbeatFrequencyMS=500", server.uri());
    let store = Store::connect(&uri, "failing").await.unwrap();
    store.ensure_indexes().await.unwrap();
    let items: Vec<Item> = (0..5).map(|id| item(&id.to_string(), "title")).collect();
    let writes: Vec<ItemWrite<'_>> = items.iter().map(|item| write(item, 1)).collect();

    for code in [13, 50, 91, 189, 10107, 11600, 11602, 13435, 14031] {
        fail_writes(&store, code, 1).await;
        let error = store.write(&writes).await.unwrap_err();
        assert!(error.is_outage(), "{code}: {error}");
    }
    assert_eq!(documents(&store).await, 0);

    // 22 is InvalidBSON: all five fail, then the first two, then the first alone, which an update decides about.
    fail_writes(&store, 22, 3).await;
    assert_eq!(store.write(&writes).await.unwrap(), vec![WriteResult::Inserted; 5]);

    // Now most exist, so it begins with updates.
    let newer = |version| items.iter().map(|item| write(item, version)).collect::<Vec<_>>();
    assert_eq!(store.write(&newer(2)).await.unwrap(), vec![WriteResult::Updated; 5]);
    fail_writes(&store, 22, 3).await;
    let results = store.write(&newer(3)).await.unwrap();
    assert!(
        matches!(&results[0], WriteResult::Failed { reason, retry: false } if reason.contains("22")),
        "{results:?}"
    );
    assert_eq!(results[1..], vec![WriteResult::Updated; 4]);
    let jobs = store.database().collection::<Document>(JOBS);
    let mut guids: Vec<Bson> = jobs.distinct("guid", doc! { "version": 3 }).await.unwrap();
    guids.sort_by_key(ToString::to_string);
    assert_eq!(guids, ["1", "2", "3", "4"].map(Bson::from));
}

#[tokio::test]
async fn missing_rights_are_an_outage_and_no_error_shows_a_password_or_an_item() {
    let server = OwnMongod::start_with(&["--auth"]);
    let admin = mongodb::Client::with_uri_str(server.uri()).await.unwrap().database("admin");
    // The first user may be created without logging in, from this machine.
    admin.run_command(doc! { "createUser": "ada", "pwd": "s3cret", "roles": ["readAnyDatabase"] }).await.unwrap();
    let address = format!("127.0.0.1:{}", server.port());

    let error =
        Store::connect(&format!("mongodb://ada:wr0ng@{address}/?authSource=admin"), "feedmill").await.unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("MongoDB at {address} refused the login; check user, password and authSource in MONGODB_URI")
    );
    let text = format!("{error:?}");
    assert!(!text.contains("wr0ng") && text.contains("Authentication failed"), "{text}");

    let store = Store::connect(&format!("mongodb://ada:s3cret@{address}/?authSource=admin"), "feedmill").await.unwrap();
    let secret = Item { content: Some("the item's text".into()), ..item("1", "title") };
    let error = store.write(&[write(&secret, 1)]).await.unwrap_err();
    assert!(error.is_outage(), "{error}");
    let text = format!("{error:?} {store:?}");
    assert!(!text.contains("s3cret") && !text.contains("the item's text"), "{text}");
}

#[tokio::test]
async fn a_member_that_is_not_primary_is_an_outage() {
    // A replica set that was never initiated has no primary.
    let server = OwnMongod::start_with(&["--replSet", "rs"]);
    let store = Store::connect(&format!("{}/?directConnection=true", server.uri()), "secondary").await.unwrap();
    let error = store.write(&[write(&item("1", "title"), 1)]).await.unwrap_err();
    assert!(error.is_outage(), "{error}");
    assert!(matches!(error, StoreError::Refused { .. }), "{error:?}");
}

#[tokio::test]
async fn a_write_concern_that_cannot_be_met_is_an_outage_and_the_write_can_be_repeated() {
    let server = OwnMongod::start_with(&["--replSet", "rs"]);
    let client = mongodb::Client::with_uri_str(format!("{}/?directConnection=true", server.uri())).await.unwrap();
    let config = doc! { "_id": "rs", "members": [{ "_id": 0, "host": format!("127.0.0.1:{}", server.port()) }] };
    client.database("admin").run_command(doc! { "replSetInitiate": config }).await.unwrap();
    let uri = format!("{}/?replicaSet=rs", server.uri());
    let store = Store::connect(&uri, "concern").await.unwrap();
    store.ensure_indexes().await.unwrap();
    let strict = Store::connect(&format!("{uri}&w=3&wtimeoutMS=100"), "concern").await.unwrap();
    let item = item("1", "title");
    let error = strict.write(&[write(&item, 1)]).await.unwrap_err();
    assert!(error.is_outage(), "{error}");
    assert!(matches!(error, StoreError::Refused { .. }), "{error:?}");
    assert_eq!(store.write(&[write(&item, 1)]).await.unwrap(), [WriteResult::Inserted]);
}
