//! The real binary as processes: a [`Mill`] is one feedmill (a configuration, a key prefix, a database), whose commands
//! a test runs and whose workers it starts, ends and kills.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use feedmill::{
    config::{Config, Overrides, Sources},
    pipeline::Queues,
    queue::{GROUP, Queue},
    store::{ImportRecord, JOBS, Store},
};
use mongodb::{
    IndexModel,
    bson::{Document, doc},
    options::IndexOptions,
};
use redis::{AsyncCommands, streams::StreamInfoConsumersReply};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use toml::{Table, Value};

use super::{
    TestDatabase,
    audit::assert_sound,
    eventually::eventually,
    mongo_database, redis_prefix,
    servers::{OwnMongod, OwnRedis, SharedServers},
    shell::BINARY,
};

/// Longer than any step takes on a loaded two-core machine.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

/// One feedmill: its configuration file, and what its commands work on.
pub(crate) struct Mill {
    folder: TempDir,
    settings: Table,
    processes: AtomicUsize,
    mongodb_uri: String,
    database: String,
    /// On the shared server, where it must not stay.
    _dropped: Option<TestDatabase>,
}

impl Mill {
    /// On the servers that all tests share.
    pub(crate) fn new() -> Self {
        Self::on_shared_mongod(&SharedServers::of_this_run().redis_url())
    }

    /// On a Redis that the test breaks.
    pub(crate) fn on_redis(redis: &OwnRedis) -> Self {
        Self::on_shared_mongod(&redis.url())
    }

    /// On a MongoDB that the test breaks.
    pub(crate) fn on_mongod(mongod: &OwnMongod) -> Self {
        Self::on(&SharedServers::of_this_run().redis_url(), mongod.uri(), "feedmill".to_owned())
    }

    fn on_shared_mongod(redis_url: &str) -> Self {
        let database = mongo_database();
        let mill = Self::on(redis_url, database.uri.clone(), database.name.clone());
        Self { _dropped: Some(database), ..mill }
    }

    fn on(redis_url: &str, mongodb_uri: String, database: String) -> Self {
        let folder = tempfile::Builder::new().prefix("feedmill-mill-").tempdir().unwrap();
        let mut mill = Self {
            folder,
            settings: Table::new(),
            processes: AtomicUsize::new(0),
            mongodb_uri,
            database,
            _dropped: None,
        };
        mill.set("redis.url", redis_url);
        mill.set("redis.prefix", redis_prefix());
        mill.set("mongodb.uri", mill.mongodb_uri.clone());
        mill.set("mongodb.database", mill.database.clone());
        // tests run beside each other
        mill.set("http.listen", "127.0.0.1:0");
        for queue in ["job_import_queue", "feed_fetch_queue"] {
            for (key, value) in [
                ("lock_duration", "2s"),
                ("stalled_interval", "500ms"),
                ("flush", "100ms"),
                ("shutdown_timeout", "10s"),
            ] {
                mill.set(&format!("stream.{queue}.{key}"), value);
            }
        }
        // All feeds of a test are of one host.
        mill.set("stream.feed_fetch_queue.group_by", false);
        mill
    }

    /// From now on its other processes, and the test, work on these servers: those of `up --embedded`.
    pub(crate) fn move_to(&mut self, variables: &HashMap<String, String>, database: &str) {
        database.clone_into(&mut self.database);
        self.set("mongodb.database", database);
        self.mongodb_uri.clone_from(&variables["MONGODB_URI"]);
        self.set("mongodb.uri", self.mongodb_uri.clone());
        self.set("redis.url", variables["REDIS_URL"].clone());
    }

    /// Sets a key of the configuration (`stream.job_import_queue.attempts`); for processes that are started from now on.
    pub(crate) fn set(&mut self, key: &str, value: impl Into<Value>) {
        let mut table = &mut self.settings;
        let mut parts = key.split('.').peekable();
        while let Some(part) = parts.next() {
            if parts.peek().is_none() {
                table.insert(part.to_owned(), value.into());
                break;
            }
            table = table.entry(part).or_insert_with(|| Table::new().into()).as_table_mut().unwrap();
        }
        fs::write(self.config_path(), toml::to_string(&self.settings).unwrap()).unwrap();
    }

    /// How often jobs of a queue are tried, and the fixed wait in between.
    pub(crate) fn retry(&mut self, queue: &str, attempts: i64, delay: &str) {
        self.set(&format!("stream.{queue}.attempts"), attempts);
        self.set(&format!("stream.{queue}.backoff.type"), "fixed");
        self.set(&format!("stream.{queue}.backoff.delay"), delay);
    }

    /// Adds a feed, or changes the one of this name.
    pub(crate) fn feed(&mut self, name: &str, url: &str, source: Option<&str>) {
        let mut feed = Table::new();
        feed.insert("name".to_owned(), name.into());
        feed.insert("url".to_owned(), url.into());
        feed.insert("allow_private".to_owned(), true.into());
        if let Some(source) = source {
            feed.insert("source".to_owned(), source.into());
        }
        let mut feeds = self.settings.get("feed").and_then(Value::as_array).cloned().unwrap_or_default();
        feeds.retain(|feed| feed["name"].as_str() != Some(name));
        feeds.push(feed.into());
        self.set("feed", feeds);
    }

    /// Sets a key of a feed that was added; `None` takes it away.
    pub(crate) fn set_of_feed(&mut self, name: &str, key: &str, value: Option<&str>) {
        let mut feeds = self.settings["feed"].as_array().unwrap().clone();
        let feed = feeds.iter_mut().find(|feed| feed["name"].as_str() == Some(name)).unwrap().as_table_mut().unwrap();
        match value {
            Some(value) => feed.insert(key.to_owned(), value.into()),
            None => feed.remove(key),
        };
        self.set("feed", feeds);
    }

    /// Sets a key of a feed to a table of texts.
    pub(crate) fn set_table_of_feed(&mut self, name: &str, key: &str, texts: &[(&str, &str)]) {
        let table: Table = texts.iter().map(|(key, text)| ((*key).to_owned(), (*text).into())).collect();
        let mut feeds = self.settings["feed"].as_array().unwrap().clone();
        let feed = feeds.iter_mut().find(|feed| feed["name"].as_str() == Some(name)).unwrap().as_table_mut().unwrap();
        feed.insert(key.to_owned(), table.into());
        self.set("feed", feeds);
    }

    /// Takes a feed away.
    pub(crate) fn remove_feed(&mut self, name: &str) {
        let mut feeds = self.settings["feed"].as_array().unwrap().clone();
        feeds.retain(|feed| feed["name"].as_str() != Some(name));
        self.set("feed", feeds);
    }

    /// The working directory of its processes.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Its configuration file.
    pub(crate) fn config_path(&self) -> PathBuf {
        self.folder().join("streams.toml")
    }

    /// A command of the binary with this configuration and no other environment.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(BINARY);
        command.args(args).arg("--config").arg(self.config_path()).current_dir(self.folder.path()).env_clear();
        command.stdin(Stdio::null());
        command
    }

    /// Starts a process that goes on (`worker`).
    pub(crate) fn start(&self, args: &[&str]) -> Running {
        self.start_command(self.command(args))
    }

    /// Starts a command of this mill that goes on.
    pub(crate) fn start_command(&self, mut command: Command) -> Running {
        let number = self.processes.fetch_add(1, Ordering::Relaxed);
        let path = |ending| self.folder.path().join(format!("process-{number}.{ending}"));
        let (stdout, stderr) = (path("stdout"), path("stderr"));
        let file = |path| fs::File::create(path).unwrap();
        let child = command.stdout(file(&stdout)).stderr(file(&stderr)).spawn().unwrap();
        Running { child, stdout, stderr }
    }

    /// Starts a worker and waits until it works.
    pub(crate) async fn worker(&self) -> Running {
        let worker = self.start(&["worker"]);
        eventually("the worker starts", PATIENCE, async || {
            (worker.stderr().matches("worker starts").count() == 2).then_some(())
        })
        .await;
        worker
    }

    /// Runs a command to its end.
    pub(crate) async fn run(&self, args: &[&str]) -> Ran {
        self.start(args).ran().await
    }

    /// Runs a command that must end well, and returns what it printed.
    pub(crate) async fn run_ok(&self, args: &[&str]) -> String {
        let ran = self.run(args).await;
        assert_eq!(ran.status.code(), Some(0), "feedmill {}: {}{}", args.join(" "), ran.stdout, ran.stderr);
        ran.stdout
    }

    /// Runs `fetch … --wait`, which must end well, and returns the records by feed; each is checked by
    /// [`assert_adds_up`].
    pub(crate) async fn fetch_wait(&self, args: &[&str]) -> Vec<ImportRecord> {
        let args: Vec<&str> = ["fetch", "--wait", "--json"].iter().chain(args).copied().collect();
        records(&self.run_ok(&args).await)
    }

    /// Starts fetches of feeds that are not being fetched.
    pub(crate) async fn fetch(&self, feeds: &[&str]) {
        let args: Vec<&str> = ["fetch"].iter().chain(feeds).copied().collect();
        let ran = self.run(&args).await;
        assert_eq!(ran.status.code(), Some(0), "{}", ran.stderr);
        assert!(!ran.stderr.contains("already"), "{}", ran.stderr);
    }

    /// Its configuration, as its processes read it.
    pub(crate) fn config(&self) -> Config {
        let sources = Sources {
            config_flag: Some(self.config_path()),
            directory: self.folder.path().to_owned(),
            env: &|_| None,
            flags: Overrides::default(),
        };
        Config::load(&sources).unwrap()
    }

    /// The queues, as another program of this configuration sees them.
    pub(crate) async fn queues(&self) -> Queues {
        Queues::open(&self.config()).await.unwrap()
    }

    /// The store of this configuration.
    pub(crate) async fn store(&self) -> Store {
        Store::connect(&self.mongodb_uri, &self.database).await.unwrap()
    }

    /// The documents of items.
    pub(crate) async fn documents(&self) -> mongodb::Collection<Document> {
        self.store().await.database().collection(JOBS)
    }

    /// Waits until nothing is left to do in either queue and every import is recorded.
    pub(crate) async fn through(&self, queues: &Queues) {
        eventually("both queues are through and all imports recorded", PATIENCE * 2, async || {
            // Redis may be on its way back.
            let (fetch, import) = (queues.fetch.counts().await.ok()?, queues.import.counts().await.ok()?);
            let open = queues.import.open_import_ids(0, 1).await.ok()?;
            (fetch.is_idle() && import.is_idle() && open.is_empty()).then_some(())
        })
        .await;
    }

    /// Checks that the work is done and nothing of it is left: `items` documents (the unique index keeps
    /// each guid to one), every import recorded and adding up, no job in any state.
    pub(crate) async fn assert_clean(&self, queues: &Queues, items: u64) {
        let documents = self.documents().await;
        assert_eq!(documents.count_documents(doc! {}).await.unwrap(), items, "documents");
        for queue in [&queues.fetch, &queues.import] {
            let counts = queue.counts().await.unwrap();
            assert!(counts.is_idle() && counts.failed == 0, "{}: {counts:?}", queue.name());
            assert_sound(queue).await;
        }
        for record in self.records().await {
            assert_adds_up(&record);
            assert!(record.finished_at.is_some(), "{record:?}");
        }
    }

    /// Records of all imports that are through, newest first.
    pub(crate) async fn records(&self) -> Vec<ImportRecord> {
        self.store().await.list_imports(1000, None).await.unwrap()
    }

    /// Makes MongoDB refuse documents with the title "bad", with an error that may pass: somebody has put an index for
    /// places on the titles.
    pub(crate) async fn refuse_bad_titles(&self) {
        let options = IndexOptions::builder().name("bad".to_owned()).partial_filter_expression(doc! { "title": "bad" });
        let index = IndexModel::builder().keys(doc! { "title": "2dsphere" }).options(options.build()).build();
        self.documents().await.create_index(index).await.unwrap();
    }

    /// Ends [`Self::refuse_bad_titles`].
    pub(crate) async fn accept_bad_titles(&self) {
        self.documents().await.drop_index("bad").await.unwrap();
    }

    /// Title of the document with this guid, if there is one.
    pub(crate) async fn title(&self, guid: &str) -> Option<String> {
        let document = self.documents().await.find_one(doc! { "guid": guid }).await.unwrap()?;
        Some(document.get_str("title").unwrap().to_owned())
    }
}

/// A connection to a Redis at `host:port`, as any other program has one.
pub(crate) async fn redis_connection(address: &str) -> redis::aio::MultiplexedConnection {
    let client = redis::Client::open(format!("redis://{address}")).unwrap();
    client.get_multiplexed_async_connection().await.unwrap()
}

/// The records that `fetch --wait --json` printed.
pub(crate) fn records(json: &str) -> Vec<ImportRecord> {
    let records: Vec<ImportRecord> = serde_json::from_str(json).unwrap();
    records.iter().for_each(assert_adds_up);
    records
}

/// Checks both equations of an import that is through.
pub(crate) fn assert_adds_up(record: &ImportRecord) {
    let ImportRecord { items, new, changed, unchanged, duplicate, .. } = *record;
    assert_eq!(items, new + changed + unchanged + duplicate, "{record:?}");
    let ImportRecord { inserted, updated, stale, superseded, removed, failed, .. } = *record;
    assert_eq!(new + changed, inserted + updated + stale + superseded + removed + failed, "{record:?}");
}

/// A process of the binary; killed when it is dropped. A test that fails shows what it logged.
pub(crate) struct Running {
    child: Child,
    stdout: PathBuf,
    stderr: PathBuf,
}

/// How a process ended, and what it printed.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Running {
    /// Kills it as a power cut would (SIGKILL) and waits until it is gone.
    pub(crate) fn kill9(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Asks it to end (SIGTERM).
    pub(crate) fn term(&self) {
        self.signal(Signal::TERM);
    }

    /// Interrupts it, as Ctrl-C does (SIGINT).
    pub(crate) fn int(&self) {
        self.signal(Signal::INT);
    }

    /// Asks it to read its configuration again (SIGHUP).
    pub(crate) fn hup(&self) {
        self.signal(Signal::HUP);
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Kills it (SIGKILL) at a moment when it holds jobs of this queue.
    pub(crate) async fn kill9_while_it_holds(&mut self, queue: &Queue) {
        let of_this = format!(":{}:", self.child.id());
        let mut redis = redis_connection(queue.redis().address()).await;
        eventually("the process holds jobs", PATIENCE, async || {
            // It is stopped for the look, or it could settle them before it is killed. What it sent just before may
            // still be on its way: only what it holds at every one of many looks was not about to be settled.
            self.signal(Signal::STOP);
            let mut holds = true;
            for _ in 0..32 {
                let consumers: StreamInfoConsumersReply =
                    redis.xinfo_consumers(queue.keys().stream(), GROUP).await.unwrap();
                holds &= consumers.consumers.iter().any(|one| one.name.contains(&of_this) && one.pending > 0);
            }
            if !holds {
                self.signal(Signal::CONT);
            }
            holds.then_some(())
        })
        .await;
        self.kill9();
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// What it logged so far.
    pub(crate) fn stderr(&self) -> String {
        fs::read_to_string(&self.stderr).unwrap()
    }

    /// What it printed so far.
    pub(crate) fn stdout(&self) -> String {
        fs::read_to_string(&self.stdout).unwrap()
    }

    /// Waits until it ends; returns how, and after how long.
    pub(crate) async fn wait(&mut self, deadline: Duration) -> (ExitStatus, Duration) {
        let started = Instant::now();
        let child = &mut self.child;
        let status = eventually("the process ends", deadline, async || child.try_wait().unwrap()).await;
        (status, started.elapsed())
    }

    /// Waits until it ends by itself.
    pub(crate) async fn ran(mut self) -> Ran {
        let (status, _) = self.wait(PATIENCE * 2).await;
        Ran { status, stdout: fs::read_to_string(&self.stdout).unwrap(), stderr: self.stderr() }
    }
}

#[expect(clippy::print_stderr, reason = "a failed test shows the log of its process")]
impl Drop for Running {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = fs::read_to_string(&self.stderr).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            eprintln!("{} ends:\n{}", self.stderr.display(), lines[lines.len().saturating_sub(40)..].join("\n"));
        }
        // One that has ended only gives an error.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
