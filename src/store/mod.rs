//! Everything MongoDB: what feedmill keeps of items, fetches and feeds, and how it is written.
//!
//! ```text
//!  worker ──batch of items──▶ documents.rs ──▶ jobs      one document per item, {source, guid} unique
//!  worker ──closed imports──▶ imports.rs ────▶ imports   one document per fetch that had work, kept 30 days
//!  fetch  ──its result──────▶ feeds.rs ──────▶ feeds     one document per feed
//!  fetch  ──items that left──▶ leaving.rs ──▶ jobs      marked, or deleted
//!  feeds … ─────────────────▶ subscriptions.rs ▶ feeds   what was subscribed to by command
//!  start  ──────────────────▶ indexes.rs
//! ```
//!
//! All writes become `insert` and `update` commands (`write_command.rs`). A [`Store`] is one connection pool. Every write
//! can be done again without harm, so a caller that got an error, or died while it waited, simply writes again: a document
//! carries the version of its item, and MongoDB refuses a lower one.
//!
//! *Not here:* deciding what a failed write costs its job (`worker/` does), and anything about Redis.

use std::{
    fmt,
    future::IntoFuture,
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use mongodb::{
    Client, Database,
    bson::{RawDocumentBuf, doc, serialize_to_raw_document_buf},
    options::{Acknowledgment, ClientOptions, ReadConcern, WriteConcern},
};

pub mod adopting;
mod checks;
pub mod documents;
pub mod error;
pub mod feeds;
pub mod imports;
pub mod indexes;
pub mod look;
pub mod subscriptions;

mod dates;
mod encode;
mod leaving;
mod write_command;

pub use documents::{ItemWrite, WriteResult};
pub use error::StoreError;
pub use feeds::FeedStatus;
pub use imports::{ImportFailure, ImportFilter, ImportRecord, ImportStatus};

/// The collection of items. Its name is the one existing readers of the database know.
pub const JOBS: &str = "jobs";
/// The collection of [`ImportRecord`]s.
pub const IMPORTS: &str = "imports";
/// The collection of [`FeedStatus`] documents.
pub const FEEDS: &str = "feeds";

/// How long one call may take before it counts as an outage. The driver has no limit of its own, and a frozen server
/// or a cut network answers nothing. The largest command takes a fraction of a second; an answer that takes this long
/// does not come.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the driver looks for a usable server. Its default of 30 s would always run into [`CALL_TIMEOUT`], which
/// knows less about the reason.
const SERVER_SELECTION_TIMEOUT: Duration = Duration::from_secs(5);
/// How long one connection may take to be set up; within [`SERVER_SELECTION_TIMEOUT`] for the same reason.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Connections per process. A worker has 10 writes in flight by default and writes import records beside them; more
/// connections than that only queue inside mongod, where each costs a thread and about 1 MiB.
const POOL_SIZE_MAX: u32 = 32;
/// The oldest server feedmill supports. Its makers stopped supporting earlier ones years ago.
const OLDEST_SERVER: (i32, i32) = (4, 4);

/// A handle on one MongoDB database. Cloning it is cheap and shares the connections.
#[derive(Clone)]
pub struct Store {
    database: Database,
    /// `host:port` of every server in the URI, for messages.
    hosts: String,
    call_timeout: Duration,
    /// What every write of ours asks for; the driver does not add it to a command of our own.
    write_concern: RawDocumentBuf,
    /// Whether most items of the last command that was written had no document yet ([`documents`]).
    most_are_new: Arc<AtomicBool>,
    /// Reads that decide whether something has landed must not see what may still be rolled back.
    read_concern: ReadConcern,
}

impl Store {
    /// Connects to the MongoDB of `uri` and uses its database `database`.
    ///
    /// Accepts `mongodb://` and `mongodb+srv://`. Options in the URI win over the defaults here: write concern
    /// `majority` with journal, 5 s to find a server and to connect, 32 connections. Returns once the server has
    /// answered, so a wrong address shows here. It does not create anything; see [`Store::ensure_indexes`].
    ///
    /// # Errors
    /// [`StoreError::Scheme`], [`StoreError::Uri`], [`StoreError::DatabaseName`] for values that cannot work;
    /// [`StoreError::Unreachable`], [`StoreError::Login`], [`StoreError::NoAnswer`] or [`StoreError::Refused`] when the
    /// server is not there or does not let us in; [`StoreError::TooOld`] before MongoDB 4.4. None of them shows user,
    /// password or the whole URI.
    pub async fn connect(uri: &str, database: &str) -> Result<Self, StoreError> {
        check_scheme(uri)?;
        check_database_name(database)?;
        // Only the DNS look-up of mongodb+srv can take this long, and the URI is well-formed when that begins.
        let Ok(parsed) = tokio::time::timeout(CALL_TIMEOUT, ClientOptions::parse(uri)).await else {
            let hosts = error::host_of(uri).to_owned();
            return Err(StoreError::NoAnswer { hosts, doing: "the DNS look-up of its servers", after: CALL_TIMEOUT });
        };
        let mut options = parsed.map_err(|error| StoreError::from_uri(uri, error))?;
        options.app_name.get_or_insert_with(|| "feedmill".to_owned());
        options.server_selection_timeout.get_or_insert(SERVER_SELECTION_TIMEOUT);
        options.connect_timeout.get_or_insert(CONNECT_TIMEOUT);
        options.max_pool_size.get_or_insert(POOL_SIZE_MAX);
        // A job is acknowledged, and so forgotten, once its write is confirmed: confirmed must mean it survives a
        // power cut and a fail-over.
        let write_concern = options
            .write_concern
            .get_or_insert_with(|| WriteConcern::builder().w(Acknowledgment::Majority).journal(true).build())
            .clone();
        let read_concern = match write_concern.w {
            Some(Acknowledgment::Majority) | None => ReadConcern::majority(),
            Some(_) => ReadConcern::local(),
        };
        let hosts = options.hosts.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        let client = Client::with_options(options).map_err(|error| StoreError::from_uri(uri, error))?;
        let write_concern = serialize_to_raw_document_buf(&write_concern)
            .map_err(|error| StoreError::Uri { detail: format!("its write concern is not usable: {error}") })?;
        let store = Self {
            database: client.database(database),
            hosts,
            call_timeout: CALL_TIMEOUT,
            write_concern,
            most_are_new: Arc::new(AtomicBool::new(true)),
            read_concern,
        };
        store.check_version().await?;
        Ok(store)
    }

    /// Changes how long one call may take before it counts as an outage; 10 s unless set.
    #[must_use]
    pub fn with_call_timeout(mut self, timeout: Duration) -> Self {
        self.call_timeout = timeout;
        self
    }

    /// Asks the server for a sign of life.
    ///
    /// # Errors
    /// Any [`StoreError`] for which [`StoreError::is_outage`] holds.
    pub async fn ping(&self) -> Result<(), StoreError> {
        self.call("a ping", self.database.run_command(doc! { "ping": 1 })).await.map(drop)
    }

    /// The driver's handle on the database, for what this module has no function for (`doctor`, tests).
    pub fn database(&self) -> &Database {
        &self.database
    }

    /// The driver's client, for other databases of the same server (`doctor`, tests).
    pub fn client(&self) -> &Client {
        self.database.client()
    }

    async fn check_version(&self) -> Result<(), StoreError> {
        let info = self.call("a question for its version", self.database.run_command(doc! { "buildInfo": 1 })).await?;
        let version = info.get_str("version").unwrap_or("of unknown version");
        let mut numbers = version.split('.').map_while(|number| number.parse::<i32>().ok());
        match (numbers.next(), numbers.next()) {
            (Some(major), Some(minor)) if (major, minor) < OLDEST_SERVER => {
                Err(StoreError::TooOld { hosts: self.hosts.clone(), version: version.to_owned() })
            }
            _ => Ok(()),
        }
    }

    /// Awaits one call of the driver, at most for the call timeout, and names it in the error.
    ///
    /// `doing` completes "MongoDB did not answer …".
    async fn call<T>(
        &self,
        doing: &'static str,
        action: impl IntoFuture<Output = mongodb::error::Result<T>>,
    ) -> Result<T, StoreError> {
        self.call_within(self.call_timeout, doing, action).await
    }

    async fn call_within<T>(
        &self,
        after: Duration,
        doing: &'static str,
        action: impl IntoFuture<Output = mongodb::error::Result<T>>,
    ) -> Result<T, StoreError> {
        // Dropping the driver's future closes its connection, so a late reply cannot be taken for another call's.
        match tokio::time::timeout(after, action.into_future()).await {
            Ok(answer) => answer.map_err(|error| StoreError::from_driver(&self.hosts, doing, error)),
            Err(_) => Err(StoreError::NoAnswer { hosts: self.hosts.clone(), doing, after }),
        }
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The driver's own output holds the credentials' user name.
        f.debug_struct("Store")
            .field("hosts", &self.hosts)
            .field("database", &self.database.name())
            .finish_non_exhaustive()
    }
}

fn check_scheme(uri: &str) -> Result<(), StoreError> {
    match uri.split_once("://") {
        Some(("mongodb" | "mongodb+srv", _)) => Ok(()),
        // Anything but letters is not a scheme and may be part of a password.
        Some((scheme, _)) if scheme.chars().all(|c| c.is_ascii_alphanumeric() || c == '+') => {
            Err(StoreError::Scheme { found: format!("{scheme}://") })
        }
        _ => Err(StoreError::Scheme { found: "none".to_owned() }),
    }
}

/// Refuses what MongoDB refuses, before a server has to be reached.
fn check_database_name(name: &str) -> Result<(), StoreError> {
    let usable = (1..=63).contains(&name.len())
        && !name.contains(['/', '\\', '.', ' ', '"', '$', '*', '<', '>', ':', '|', '?', '\0']);
    if usable { Ok(()) } else { Err(StoreError::DatabaseName { name: name.to_owned() }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_scheme_is_named_with_the_accepted_ones() {
        let error = check_scheme("postgres://user:secret@db/").unwrap_err().to_string();
        assert_eq!(
            error,
            "the MongoDB URI begins with postgres://; accepted: mongodb://host:port and mongodb+srv://host"
        );
    }

    #[test]
    fn a_uri_without_scheme_shows_nothing_of_itself() {
        let error = check_scheme("user:secret@db:27017").unwrap_err().to_string();
        assert!(!error.contains("secret"), "{error}");
    }

    #[tokio::test]
    async fn a_malformed_uri_with_credentials_shows_no_part_of_them() {
        for uri in ["mongodb://ada:s3c:r3t@db:27017", "mongodb://ada:s3c@r3t/x@db", "mongodb://ada:s3cr3t@db:port/"] {
            let error = Store::connect(uri, "feedmill").await.unwrap_err();
            assert!(matches!(error, StoreError::Uri { .. }), "{error:?}");
            let text = format!("{error} {error:?}");
            assert!(!["ada", "s3c", "r3t"].iter().any(|secret| text.contains(secret)), "{text}");
        }
    }

    #[test]
    fn a_database_name_mongodb_would_refuse_is_refused() {
        check_database_name("feedmill").unwrap();
        for name in ["", "a.b", "a b", "a/b", "$db", &"x".repeat(64)] {
            check_database_name(name).unwrap_err();
        }
    }
}
