//! Checks everything that feedmill works with: the configuration, Redis, MongoDB and what is stored in it.
//!
//! Nothing is written unless a repair is asked for: no queue is opened, no index made. Called by `feedmill doctor` and the dashboard.

use serde::Serialize;

use crate::check::Check;
use crate::config::Config;
use crate::error::chain;
use crate::pipeline;
use crate::queue::Redis;
use crate::store::{Store, StoreError};

/// Checks of one part, in the order in which they are printed.
#[derive(Clone, Debug, Serialize)]
pub struct Part {
    /// `config`, `redis` or `mongodb`.
    pub part: &'static str,
    /// What was found.
    pub checks: Vec<Check>,
}

/// Checks all parts.
pub async fn examine(config: &Config) -> Vec<Part> {
    examine_and(config, false).await
}

/// Checks all parts; with `fix`, after [`repair`].
pub async fn examine_and(config: &Config, fix: bool) -> Vec<Part> {
    let mongodb = match connect_store(config).await {
        Ok(store) => {
            let repaired = if fix { repair(&store).await } else { Ok(Vec::new()) };
            let mut checks = repaired.unwrap_or_else(|error| vec![store_failed(&error)]);
            checks.extend(mongodb(&store).await);
            checks
        }
        Err(check) => vec![check],
    };
    vec![
        Part { part: "config", checks: configuration(config) },
        Part { part: "redis", checks: redis(config).await },
        Part { part: "mongodb", checks: mongodb },
    ]
}

/// Checks the configuration: that it can be read is known, since it was.
pub fn configuration(config: &Config) -> Vec<Check> {
    let file = config.file.as_ref();
    let file = file.map_or_else(|| "the built-in configuration".to_owned(), |file| file.display().to_string());
    let n = config.feeds.len();
    vec![match pipeline::feeds(config) {
        Err(error) => Check::error("file", format!("{file}: {}", chain(&error)), "correct it: feedmill config check"),
        Ok(_) => Check::ok("file", format!("{file}, {n} {}", if n == 1 { "feed" } else { "feeds" })),
    }]
}

/// Checks Redis.
pub async fn redis(config: &Config) -> Vec<Check> {
    let failed = |detail| vec![Check::error("server", detail, "redis-cli -u \"$REDIS_URL\" PING")];
    match Redis::connect(config.redis.url.expose(), &config.redis.prefix).await {
        Err(error) => failed(chain(&error)),
        Ok(redis) => redis.checks().await.unwrap_or_else(|error| failed(chain(&error))),
    }
}

/// Connects to MongoDB.
///
/// # Errors
/// The check that says why not.
pub async fn connect_store(config: &Config) -> Result<Store, Check> {
    let store = Store::connect(config.mongodb.uri.expose(), &config.mongodb.database).await;
    store.map_err(|error| store_failed(&error))
}

/// Checks MongoDB and what is in the way of the unique index.
pub async fn mongodb(store: &Store) -> Vec<Check> {
    let checked = async {
        let mut checks = store.checks().await?;
        checks.extend(documents(store).await?);
        Ok::<_, StoreError>(checks)
    };
    checked.await.unwrap_or_else(|error| vec![store_failed(&error)])
}

/// What in the collection of documents is in the way of the unique index.
///
/// # Errors
/// [`StoreError::is_outage`] holds for all of them.
pub async fn documents(store: &Store) -> Result<Vec<Check>, StoreError> {
    const CHECK: &str = "documents";
    let obstacles = store.find_obstacles().await?;
    let mut checks = Vec::new();
    if let Some((source, guid)) = &obstacles.example {
        let (items, surplus) = (obstacles.duplicated_items, obstacles.surplus_documents);
        checks.push(Check::error(
            CHECK,
            format!("{items} items have {surplus} documents too many (source {source:?}, guid {guid:?})"),
            "feedmill doctor --fix, after a backup, keeps the newest of each",
        ));
    }
    if let Some(name) = &obstacles.plain_index {
        checks.push(Check::error(
            CHECK,
            format!("the index {name} on source and guid is not unique"),
            "feedmill doctor --fix replaces it",
        ));
    }
    if obstacles.unidentified_documents > 0 {
        let count = obstacles.unidentified_documents;
        checks.push(Check::error(
            CHECK,
            format!("{count} documents of jobs have no source or no guid as a text"),
            "give them one, or move them to another collection",
        ));
    }
    if obstacles.is_empty() {
        checks.push(Check::ok(CHECK, "nothing is in the way of the unique index on source and guid"));
    }
    Ok(checks)
}

/// Removes what is in the way of the unique index as far as that is safe, and makes the indexes that are missing. Returns what
/// was done.
///
/// # Errors
/// Any [`StoreError`] of making an index or deleting.
pub async fn repair(store: &Store) -> Result<Vec<Check>, StoreError> {
    const CHECK: &str = "repair";
    let mut done = Vec::new();
    let obstacles = store.find_obstacles().await?;
    if !obstacles.is_empty() {
        let deleted = store.remove_obstacles(&obstacles).await?;
        done.push(Check::ok(CHECK, format!("{deleted} older duplicates were deleted")));
    }
    let missing = store.missing_indexes().await?;
    // Without the unique index on items nothing may be written, so none of the others is made either.
    if !missing.is_empty() && store.find_obstacles().await?.is_empty() {
        store.ensure_indexes().await?;
        done.push(Check::ok(CHECK, format!("made: {}", missing.join(", "))));
    }
    Ok(done)
}

fn store_failed(error: &StoreError) -> Check {
    Check::error("server", chain(error), "mongosh \"$MONGODB_URI\" --eval 'db.hello()'")
}
