//! What the integration tests share: servers, and a database and a key prefix for each test.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

pub(crate) mod browser;
pub(crate) mod bullmq;
pub(crate) mod embedded;
pub(crate) mod eventually;
pub(crate) mod feed_server;
pub(crate) mod http;
pub(crate) mod process;
pub(crate) mod prometheus;
pub(crate) mod servers;
pub(crate) mod shell;
pub(crate) mod terminal;
pub(crate) mod wait;

pub(crate) mod audit;
pub(crate) mod jobs;
pub(crate) mod schedulers;
pub(crate) mod workers;

use servers::SharedServers;

/// A MongoDB database of one test on the shared server; dropped with its collections at the end.
pub(crate) struct TestDatabase {
    /// `mongodb://host:port` of the shared server.
    pub(crate) uri: String,
    /// Name of the database.
    pub(crate) name: String,
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        // A drop cannot wait for a future on the test's own runtime, so this runs on another thread. A failure leaves
        // the database behind until the server ends with the run.
        let (uri, name) = (self.uri.clone(), self.name.clone());
        let dropping = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                let client = mongodb::Client::with_uri_str(uri).await.map_err(std::io::Error::other)?;
                client.database(&name).drop().await.map_err(std::io::Error::other)
            })
        });
        let _ = dropping.join();
    }
}

/// A database that no other test uses.
pub(crate) fn mongo_database() -> TestDatabase {
    TestDatabase { uri: SharedServers::of_this_run().mongodb_uri(), name: unique("feedmill_test") }
}

/// A prefix for Redis keys that no other test uses.
pub(crate) fn redis_prefix() -> String {
    unique("test")
}

/// A name that no other test of this run has: each process has its pid, each call in it its number.
fn unique(prefix: &str) -> String {
    static CALLS: AtomicUsize = AtomicUsize::new(0);
    format!("{prefix}_{}_{}", std::process::id(), CALLS.fetch_add(1, Ordering::Relaxed))
}
