//! Private servers for `feedmill up --embedded`: a redis-server and a mongod of its own, under one folder.
//!
//! ```text
//!   .feedmill/bin/             binaries that `make setup` put there (looked for in the folder, then in the working
//!                              directory); else those on PATH
//!   .feedmill/data/redis/      append-only file
//!   .feedmill/data/mongodb/    database files
//!   .feedmill/data/servers.json  process ids and ports, to take over servers that a killed `up` left behind
//!   .feedmill/embedded.env     REDIS_URL=… and MONGODB_URI=… while they run, for the other commands
//! ```
//!
//! *Crash:* when `up` is killed its servers go on. The next `up --embedded` in the same folder takes them over, if they
//! answer on their port with the process id that was written down; otherwise it starts new ones on the same data.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use mongodb::bson::doc;
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep};

use crate::queue::info::Info;

/// Where `make setup` puts programs, seen from the source folder.
const SET_UP: &str = ".feedmill/bin";
/// How long a server may take until it answers; a mongod that recovers its journal needs some of it.
const START_TIMEOUT: Duration = Duration::from_mins(1);
/// How long a server may take to end before it is killed.
const STOP_TIMEOUT: Duration = Duration::from_secs(20);
/// Time between two looks whether the servers still run.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);
/// Pause between two looks whether a server answers.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// The servers of one folder; they run until [`Embedded::stop`].
#[derive(Debug)]
pub struct Embedded {
    folder: PathBuf,
    servers: [Server; 2],
    /// Held as long as this process owns the folder.
    _lock: fs::File,
}

/// Why the servers cannot be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EmbeddedError {
    /// The binary is neither in the folder nor on PATH.
    #[error("{program} was not found in {} or on PATH; `make setup` installs it", folder.display())]
    Missing {
        /// Its name.
        program: &'static str,
        /// Where it was looked for first.
        folder: PathBuf,
    },
    /// Another process owns the folder.
    #[error("another `feedmill up --embedded` is running in {}; stop it first, or use another --data-dir", folder.display())]
    Locked {
        /// That folder.
        folder: PathBuf,
    },
    /// A server ended or did not answer in time.
    #[error("{program} did not start; its log is {}: {last_line}", log.display())]
    NotStarted {
        /// Its name.
        program: &'static str,
        /// Its log.
        log: PathBuf,
        /// What the log ends with.
        last_line: String,
    },
    /// A file or process operation failed.
    #[error("cannot use {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
}

/// What is written down about a server.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Address {
    pid: i32,
    port: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Redis,
    Mongod,
}

#[derive(Debug)]
struct Server {
    kind: Kind,
    address: Address,
    /// None when it was taken over.
    child: Option<Child>,
}

impl Embedded {
    /// Starts both servers, or takes over what is left of earlier ones.
    ///
    /// # Errors
    /// [`EmbeddedError`]; a server that was started is stopped again.
    pub async fn start(folder: &Path) -> Result<Self, EmbeddedError> {
        let (folder, lock) = own(folder)?;
        for kind in [Kind::Redis, Kind::Mongod] {
            kind.find(&folder)?;
        }
        let notes = Notes::of(&folder);
        let redis = Server::start(Kind::Redis, &folder, &notes).await?;
        let mongod = match Server::start(Kind::Mongod, &folder, &notes).await {
            Ok(mongod) => mongod,
            Err(error) => {
                redis.stop(&folder).await;
                return Err(error);
            }
        };
        Ok(Self { folder, servers: [redis, mongod], _lock: lock })
    }

    /// Writes the file that tells other commands where the servers are.
    ///
    /// # Errors
    /// [`EmbeddedError::Io`].
    pub fn publish(&self) -> Result<(), EmbeddedError> {
        let variables = format!("REDIS_URL={}\nMONGODB_URI={}\n", self.redis_url(), self.mongodb_uri());
        write_whole(&self.env_path(), variables.as_bytes())
    }

    /// Where its Redis listens.
    pub fn redis_url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.servers[0].address.port)
    }

    /// Where its mongod listens.
    pub fn mongodb_uri(&self) -> String {
        format!("mongodb://127.0.0.1:{}", self.servers[1].address.port)
    }

    /// Names and process ids of the servers.
    pub fn processes(&self) -> [(&'static str, i32); 2] {
        self.servers.each_ref().map(|server| (server.kind.program(), server.address.pid))
    }

    /// The file that tells other commands where the servers are.
    pub fn env_path(&self) -> PathBuf {
        self.folder.join("embedded.env")
    }

    /// Stops both servers.
    pub async fn stop(self) {
        // Files that name servers which do not run would only mislead; a failure to remove them does no harm.
        let _ = fs::remove_file(self.env_path());
        for server in self.servers {
            server.stop(&self.folder).await;
        }
        let _ = fs::remove_file(self.folder.join("data/servers.json"));
    }

    /// Waits until one of the servers has ended by itself, and says which.
    pub async fn died(&self) -> &'static str {
        loop {
            let dead = self.servers.iter().find(|server| !server.is_running(&self.folder));
            if let Some(server) = dead {
                return server.kind.program();
            }
            sleep(WATCH_INTERVAL).await;
        }
    }
}

/// A redis-server alone; runs until [`EmbeddedRedis::stop`].
#[derive(Debug)]
pub struct EmbeddedRedis {
    folder: PathBuf,
    server: Server,
    /// Held as long as this process owns the folder.
    _lock: fs::File,
}

impl EmbeddedRedis {
    /// Starts it, or takes over what is left of an earlier one.
    ///
    /// # Errors
    /// [`EmbeddedError`].
    pub async fn start(folder: &Path) -> Result<Self, EmbeddedError> {
        let (folder, lock) = own(folder)?;
        let server = Server::start(Kind::Redis, &folder, &Notes::of(&folder)).await?;
        Ok(Self { folder, server, _lock: lock })
    }

    /// Where it listens.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.server.address.port)
    }

    /// Stops it.
    pub async fn stop(self) {
        self.server.stop(&self.folder).await;
        // Named servers that do not run would only mislead; a failure to remove the file does no harm.
        let _ = fs::remove_file(Notes::of(&self.folder).path);
    }
}

/// Makes a folder ours: its absolute path, and the lock that says so.
fn own(folder: &Path) -> Result<(PathBuf, fs::File), EmbeddedError> {
    let folder = std::path::absolute(folder).map_err(|cause| io_error(folder, cause))?;
    let data = folder.join("data");
    fs::create_dir_all(&data).map_err(|cause| io_error(&data, cause))?;
    let lock_path = data.join("lock");
    let lock = fs::File::create(&lock_path).map_err(|cause| io_error(&lock_path, cause))?;
    lock.try_lock().map_err(|error| match error {
        fs::TryLockError::WouldBlock => EmbeddedError::Locked { folder: folder.clone() },
        fs::TryLockError::Error(cause) => io_error(&lock_path, cause),
    })?;
    Ok((folder, lock))
}

/// The file with the addresses of the servers. Written as soon as a server runs, before it answers: two servers on one
/// folder of data would ruin it.
struct Notes {
    path: PathBuf,
}

impl Notes {
    fn of(folder: &Path) -> Self {
        Self { path: folder.join("data/servers.json") }
    }

    fn read(&self) -> BTreeMap<String, Address> {
        // A damaged file says as little as a missing one.
        fs::read(&self.path).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default()
    }

    fn add(&self, kind: Kind, address: Address) -> Result<(), EmbeddedError> {
        let mut notes = self.read();
        notes.insert(kind.program().to_owned(), address);
        write_whole(&self.path, &serde_json::to_vec(&notes).expect("numbers are JSON"))
    }
}

impl Server {
    async fn start(kind: Kind, folder: &Path, notes: &Notes) -> Result<Self, EmbeddedError> {
        let data = folder.join("data").join(kind.data_name());
        if let Some(address) = notes.read().get(kind.program()).copied()
            && let Some(server) = Self::take_over(kind, folder, address).await?
        {
            return Ok(server);
        }
        let program = kind.find(folder)?;
        fs::create_dir_all(&data).map_err(|cause| io_error(&data, cause))?;
        let log = kind.log(folder);
        let port = free_port().map_err(|cause| io_error(&data, cause))?;
        let output = fs::File::create(&log).map_err(|cause| io_error(&log, cause))?;
        let mut child = kind
            .command(&program, &data, port)
            .current_dir(&data)
            .stdin(Stdio::null())
            .stderr(output.try_clone().map_err(|cause| io_error(&log, cause))?)
            .stdout(output)
            // A Ctrl-C in the terminal is for us alone: the servers are needed until we are through.
            .process_group(0)
            .spawn()
            .map_err(|cause| io_error(&program, cause))?;
        let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).unwrap_or_default();
        let address = Address { pid, port };
        // Dying just here leaves a server that nobody knows of: mongod would keep a second one off its data, Redis would not.
        if let Err(error) = notes.add(kind, address) {
            let _ = child.kill().await; // nobody would know of it
            return Err(error);
        }
        let deadline = Instant::now() + START_TIMEOUT;
        while kind.answering_pid(port).await != Some(pid) {
            let has_ended = !matches!(child.try_wait(), Ok(None));
            if has_ended || Instant::now() > deadline {
                let _ = child.kill().await; // it may have ended already
                return Err(kind.not_started(folder));
            }
            sleep(LOOK_INTERVAL).await;
        }
        tracing::info!(pid, port, "{} is running", kind.program());
        Ok(Self { kind, address, child: Some(child) })
    }

    /// Waits for a server that runs on our data already; it may still be recovering. `None` when there is none, or none
    /// any more: it may as well have been ending.
    async fn take_over(kind: Kind, folder: &Path, address: Address) -> Result<Option<Self>, EmbeddedError> {
        let data = folder.join("data").join(kind.data_name());
        let deadline = Instant::now() + START_TIMEOUT;
        while address.is_running_on(&data) {
            if kind.answering_pid(address.port).await == Some(address.pid) {
                let (pid, port) = (address.pid, address.port);
                tracing::info!(pid, port, "taking over the {} that runs here", kind.program());
                return Ok(Some(Self { kind, address, child: None }));
            }
            if Instant::now() > deadline {
                return Err(kind.not_started(folder));
            }
            sleep(LOOK_INTERVAL).await;
        }
        Ok(None)
    }

    fn is_running(&self, folder: &Path) -> bool {
        self.address.is_running_on(&folder.join("data").join(self.kind.data_name()))
    }

    async fn stop(mut self, folder: &Path) {
        let Some(pid) = Pid::from_raw(self.address.pid) else { return };
        // One that was taken over is not our child: once it has ended, its process id may be somebody else's.
        if self.is_running(folder) {
            let _ = kill_process(pid, Signal::TERM);
        }
        let deadline = Instant::now() + STOP_TIMEOUT;
        loop {
            let runs = match &mut self.child {
                Some(child) => matches!(child.try_wait(), Ok(None)),
                None => self.is_running(folder),
            };
            if !runs {
                return;
            }
            if Instant::now() > deadline {
                tracing::warn!(pid = self.address.pid, "{} did not end in time and is killed", self.kind.program());
                let _ = kill_process(pid, Signal::KILL);
                return;
            }
            sleep(LOOK_INTERVAL).await;
        }
    }
}

impl Address {
    /// Whether the process that was noted is still the server of this folder of data, and not one that got its id since:
    /// a server works in its folder.
    fn is_running_on(self, data: &Path) -> bool {
        let runs = Pid::from_raw(self.pid).is_some_and(|pid| rustix::process::test_kill_process(pid).is_ok());
        let works_here = |folder: PathBuf| fs::canonicalize(data).is_ok_and(|data| folder == data);
        // Where there is no /proc, a process with this id is taken for the server.
        runs && fs::read_link(format!("/proc/{}/cwd", self.pid)).map_or(!Path::new("/proc/self").exists(), works_here)
    }
}

impl Kind {
    fn log(self, folder: &Path) -> PathBuf {
        folder.join("data").join(format!("{}.log", self.data_name()))
    }

    fn not_started(self, folder: &Path) -> EmbeddedError {
        let log = self.log(folder);
        let text = fs::read_to_string(&log).unwrap_or_default();
        let last_line = text.lines().last().unwrap_or("(empty)").to_owned();
        EmbeddedError::NotStarted { program: self.program(), log, last_line }
    }

    fn program(self) -> &'static str {
        match self {
            Self::Redis => "redis-server",
            Self::Mongod => "mongod",
        }
    }

    fn data_name(self) -> &'static str {
        match self {
            Self::Redis => "redis",
            Self::Mongod => "mongodb",
        }
    }

    fn find(self, folder: &Path) -> Result<PathBuf, EmbeddedError> {
        let own = folder.join("bin");
        let on_path = std::env::var_os("PATH").unwrap_or_default();
        [own.clone(), PathBuf::from(SET_UP)]
            .into_iter()
            .chain(std::env::split_paths(&on_path))
            // It is started in another folder than the one we are in.
            .filter_map(|place| std::path::absolute(place.join(self.program())).ok())
            .find(|program| program.is_file())
            // It is started in its own folder, from where a relative path leads nowhere.
            .and_then(|program| std::path::absolute(program).ok())
            .ok_or(EmbeddedError::Missing { program: self.program(), folder: own })
    }

    fn command(self, program: &Path, data: &Path, port: u16) -> Command {
        let mut command = Command::new(program);
        let port = port.to_string();
        match self {
            Self::Redis => {
                command.args(["--bind", "127.0.0.1", "--port", &port, "--daemonize", "no", "--save", ""]);
                command.args(["--appendonly", "yes", "--appendfsync", "everysec"]);
                command.args(["--maxmemory-policy", "noeviction", "--dir"]).arg(data);
            }
            Self::Mongod => {
                command.args(["--bind_ip", "127.0.0.1", "--port", &port, "--nounixsocket"]);
                command.args(["--wiredTigerCacheSizeGB", "0.25", "--dbpath"]).arg(data);
            }
        }
        command
    }

    /// The process id of the server on this port, as the server says it; `None` when nothing answers yet.
    async fn answering_pid(self, port: u16) -> Option<i32> {
        let answer = async {
            match self {
                Self::Redis => {
                    let client = redis::Client::open(format!("redis://127.0.0.1:{port}")).ok()?;
                    let mut connection = client.get_multiplexed_async_connection().await.ok()?;
                    // While it loads its data, INFO answers and PING does not.
                    redis::cmd("PING").query_async::<()>(&mut connection).await.ok()?;
                    Info::ask(&mut connection).await.ok()?.text("process_id")?.parse().ok()
                }
                Self::Mongod => {
                    // The driver would wait for the server longer than we do.
                    tokio::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.ok()?;
                    let client = mongodb::Client::with_uri_str(format!("mongodb://127.0.0.1:{port}")).await.ok()?;
                    let status = client.database("admin").run_command(doc! { "serverStatus": 1 }).await.ok()?;
                    let pid = status.get_i64("pid").ok()?;
                    client.shutdown().await;
                    i32::try_from(pid).ok()
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(5), answer).await.ok().flatten()
    }
}

fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

/// Writes a file so that readers see all of it or nothing.
fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), EmbeddedError> {
    let part = path.with_extension("part");
    fs::write(&part, bytes).and_then(|()| fs::rename(&part, path)).map_err(|cause| io_error(path, cause))
}

fn io_error(path: &Path, cause: io::Error) -> EmbeddedError {
    EmbeddedError::Io { path: path.to_owned(), cause }
}
