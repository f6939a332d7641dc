//! Real servers for the tests: one Redis and one MongoDB shared by a run, and private ones for tests that break them.
//!
//! ```text
//!  nextest run ──▶ test process ─┐                       ┌─ redis-server
//!              ──▶ test process ─┼─▶ supervisor (sh) ────┤
//!              ──▶ test process ─┘   started by the      └─ mongod
//!                                    first that asks
//! ```
//!
//! nextest runs every test in a process of its own, so whoever asks first takes a file lock, starts the supervisor and
//! leaves the ports in a state file; the others read it. The supervisor is the servers' parent and watches the process
//! the run belongs to (nextest, or the test binary itself under `cargo test`): when that one is gone, it kills the
//! two by their pids and removes their folder. So nothing is left behind, however the run ends.
//!
//! A server counts as ready when its own log says so, not when something answers on its port: a port can be taken by
//! another process between choosing it and binding it. Then the server dies, and is started again on another port.

use std::{
    env, fs,
    net::{Ipv4Addr, TcpListener},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::LazyLock,
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// Longer than a loaded two-core machine needs to start mongod (2 s), short enough for a useful failure.
const START_TIMEOUT: Duration = Duration::from_mins(1);
/// How often logs and state files are looked at while a server starts.
const POLL: Duration = Duration::from_millis(10);
/// Another process taking the port we chose is rare; twice in a row means something else is wrong.
const START_ATTEMPTS: usize = 3;

const REDIS: Program = Program { name: "redis-server", ready: "eady to accept connections" };
const MONGOD: Program = Program { name: "mongod", ready: "Waiting for connections" };

/// A server program and what its log says once it takes connections.
#[derive(Clone, Copy)]
struct Program {
    name: &'static str,
    ready: &'static str,
}

/// Addresses of the two servers that all tests of a run share.
///
/// Tests that use them keep to a key prefix ([`super::redis_prefix`]) and a database ([`super::mongo_database`]) of
/// their own. They never flush, stop or reconfigure them; that is what [`OwnRedis`] and [`OwnMongod`] are for.
#[derive(Debug)]
pub(crate) struct SharedServers {
    redis_port: u16,
    mongod_port: u16,
}

impl SharedServers {
    /// Returns the servers of this run and starts them for the first test that asks.
    ///
    /// # Panics
    /// When a server program is not installed or does not start; the message says what to do.
    pub(crate) fn of_this_run() -> &'static Self {
        static SHARED: LazyLock<SharedServers> = LazyLock::new(join_or_start);
        &SHARED
    }

    /// `redis://127.0.0.1:<port>`
    pub(crate) fn redis_url(&self) -> String {
        redis_url(self.redis_port)
    }

    /// `mongodb://127.0.0.1:<port>`
    pub(crate) fn mongodb_uri(&self) -> String {
        mongodb_uri(self.mongod_port)
    }
}

/// A redis-server of one test. Dropping it kills it and removes its data.
pub(crate) struct OwnRedis(Own);

impl OwnRedis {
    /// Starts the installed redis-server with `options` (`&["--appendonly", "yes"]`) and without persistence otherwise.
    pub(crate) fn start(options: &[&str]) -> Self {
        Self::start_program(&find(REDIS.name), options)
    }

    /// As [`Self::start`], of an installed server with another name: `redis-server-6.2`, `valkey-server`.
    pub(crate) fn start_named(name: &str, options: &[&str]) -> Self {
        Self::start_program(&find(name), options)
    }

    /// Starts another server that speaks Redis' protocol and takes its options.
    pub(crate) fn start_program(program: &Path, options: &[&str]) -> Self {
        Self(Own::start(REDIS, program, options))
    }

    /// `redis://127.0.0.1:<port>`; stays the same over a restart.
    pub(crate) fn url(&self) -> String {
        redis_url(self.0.port)
    }
}

/// A mongod of one test. Dropping it kills it and removes its data.
pub(crate) struct OwnMongod(Own);

impl OwnMongod {
    /// Starts the installed mongod.
    pub(crate) fn start() -> Self {
        Self::start_with(&[])
    }

    /// Starts the installed mongod with `options` (`&["--replSet", "rs"]`).
    pub(crate) fn start_with(options: &[&str]) -> Self {
        Self(Own::start(MONGOD, &find(MONGOD.name), options))
    }

    /// `mongodb://127.0.0.1:<port>`; stays the same over a restart.
    pub(crate) fn uri(&self) -> String {
        mongodb_uri(self.0.port)
    }
}

/// What both kinds of own server can do.
macro_rules! server_controls {
    ($server:ident) => {
        impl $server {
            /// The port it listens on, on 127.0.0.1.
            pub(crate) fn port(&self) -> u16 {
                self.0.port
            }

            /// Kills it as a power cut would (SIGKILL) and waits until it is gone.
            pub(crate) fn kill9(&mut self) {
                self.0.end(Signal::KILL);
            }

            /// Shuts it down in an orderly way (SIGTERM) and waits until it is gone.
            pub(crate) fn term(&mut self) {
                self.0.end(Signal::TERM);
            }

            /// Freezes it (SIGSTOP): connections stay open and nothing is answered.
            pub(crate) fn stop(&self) {
                self.0.signal(Signal::STOP);
            }

            /// Lets it go on after [`Self::stop`] (SIGCONT).
            pub(crate) fn cont(&self) {
                self.0.signal(Signal::CONT);
            }

            /// Starts it again on the same port and data after [`Self::kill9`] or [`Self::term`].
            pub(crate) fn restart(&mut self) {
                self.0.restart();
            }
        }
    };
}
server_controls!(OwnRedis);
server_controls!(OwnMongod);

/// A server process, its port and its folder.
struct Own {
    program: Program,
    path: PathBuf,
    options: Vec<String>,
    port: u16,
    folder: TempDir,
    child: Child,
}

impl Own {
    fn start(program: Program, path: &Path, options: &[&str]) -> Self {
        let folder =
            tempfile::Builder::new().prefix("feedmill-own-").tempdir().expect("the temporary folder is writable");
        let options: Vec<String> = options.iter().map(ToString::to_string).collect();
        for _ in 0..START_ATTEMPTS {
            let port = free_port();
            let mut child = spawn(program, path, folder.path(), port, &options);
            if wait_until_ready(program, folder.path(), || has_exited(&mut child)) {
                return Self { program, path: path.to_owned(), options, port, folder, child };
            }
        }
        panic!("{} does not start; its log ends:\n{}", path.display(), log_tail(program, folder.path()));
    }

    fn restart(&mut self) {
        assert!(has_exited(&mut self.child), "{} still runs: stop it before the restart", self.program.name);
        self.child = spawn(self.program, &self.path, self.folder.path(), self.port, &self.options);
        let ready = wait_until_ready(self.program, self.folder.path(), || has_exited(&mut self.child));
        assert!(ready, "{} did not come back:\n{}", self.program.name, log_tail(self.program, self.folder.path()));
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("the server process is alive");
    }

    fn end(&mut self, signal: Signal) {
        self.signal(signal);
        self.child.wait().expect("the server is our child");
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        // Also ends a stopped process; an exited one only gives an error, which changes nothing here.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The shared servers: those another test process of this run started, or new ones.
fn join_or_start() -> SharedServers {
    // Under nextest the run is nextest's own process, our parent; under `cargo test` it is this process.
    let (run, watched) = match env::var("NEXTEST_RUN_ID") {
        Ok(id) => (id, rustix::process::getppid().expect("a test process has a parent")),
        Err(_) => (std::process::id().to_string(), rustix::process::getpid()),
    };
    let folder = env::temp_dir().join(format!("feedmill-run-{run}"));
    fs::create_dir_all(&folder).expect("the temporary folder is writable");

    let lock = fs::File::create(folder.join("lock")).expect("the run's folder is writable");
    lock.lock().expect("file locks work in the temporary folder");
    let state = folder.join("ports");
    if let Ok(ports) = fs::read_to_string(&state) {
        return parse_ports(&ports);
    }
    let shared = start_supervised(&folder, watched);
    fs::write(&state, format!("{} {}", shared.redis_port, shared.mongod_port)).expect("the run's folder is writable");
    shared
    // Dropping `lock` releases it. If we die before the state is written, the next test starts a second pair; the
    // supervisor of the first still ends with the run.
}

fn start_supervised(folder: &Path, watched: Pid) -> SharedServers {
    let (redis, mongod) = (find(REDIS.name), find(MONGOD.name));
    for _ in 0..START_ATTEMPTS {
        let (redis_port, mongod_port) = (free_port(), free_port());
        remove_log(REDIS, folder);
        remove_log(MONGOD, folder);
        let mut supervisor = Command::new("sh")
            .args(["-c", include_str!("supervisor.sh"), "feedmill-supervisor"])
            .arg(watched.to_string())
            .arg(folder)
            .arg(shell_line(&server_command(REDIS, &redis, folder, redis_port, &[])))
            .arg(shell_line(&server_command(MONGOD, &mongod, folder, mongod_port, &[])))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0) // a signal to the test's process group must not reach the shared servers
            .spawn()
            .expect("sh is installed");
        let mut exited = || has_exited(&mut supervisor);
        if wait_until_ready(REDIS, folder, &mut exited) && wait_until_ready(MONGOD, folder, &mut exited) {
            return SharedServers { redis_port, mongod_port };
        }
    }
    let logs = [log_tail(REDIS, folder), log_tail(MONGOD, folder)].join("\n");
    let _ = fs::remove_dir_all(folder);
    panic!("the servers of this run do not start; their logs end:\n{logs}");
}

fn parse_ports(state: &str) -> SharedServers {
    let mut ports = state.split(' ').map(|port| port.parse().expect("the state file holds two ports"));
    let mut next = || ports.next().expect("the state file holds two ports");
    SharedServers { redis_port: next(), mongod_port: next() }
}

/// Finds a server program on PATH, else in `.feedmill/bin` of the project or of a folder above it.
pub(crate) fn find(name: &str) -> PathBuf {
    let on_path = env::var_os("PATH").map(|path| env::split_paths(&path).collect::<Vec<_>>()).unwrap_or_default();
    let unpacked = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().map(|folder| folder.join(".feedmill/bin"));
    on_path
        .into_iter()
        .chain(unpacked)
        .map(|folder| folder.join(name))
        .find(|program| program.is_file())
        .unwrap_or_else(|| panic!("{name} is not installed; `make setup` installs it"))
}

/// The command that runs a server in the foreground, with data and log in `folder`.
fn server_command(program: Program, path: &Path, folder: &Path, port: u16, options: &[String]) -> Command {
    let data = folder.join(format!("{}-data", program.name));
    fs::create_dir_all(&data).expect("the server's folder is writable");
    let mut command = Command::new(path);
    command.arg("--port").arg(port.to_string());
    if program.name == REDIS.name {
        command.args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir"]).arg(data);
        command.arg("--logfile").arg(log_file(program, folder));
    } else {
        command.args(["--bind_ip", "127.0.0.1", "--nounixsocket", "--wiredTigerCacheSizeGB", "0.5", "--dbpath"]);
        command.arg(data).arg("--logpath").arg(log_file(program, folder));
        command.args(["--setParameter", "diagnosticDataCollectionEnabled=false"]);
    }
    command.args(options);
    command
}

fn spawn(program: Program, path: &Path, folder: &Path, port: u16, options: &[String]) -> Child {
    remove_log(program, folder);
    server_command(program, path, folder, port, options)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap_or_else(|error| panic!("{} cannot be run: {error}", path.display()))
}

/// Waits until the server's log says that it takes connections; `false` when its process exits before.
fn wait_until_ready(program: Program, folder: &Path, mut exited: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + START_TIMEOUT;
    loop {
        if fs::read_to_string(log_file(program, folder)).is_ok_and(|log| log.contains(program.ready)) {
            return true;
        }
        if exited() {
            return false;
        }
        assert!(Instant::now() < deadline, "{} is not ready after {START_TIMEOUT:?}", program.name);
        thread::sleep(POLL);
    }
}

fn has_exited(child: &mut Child) -> bool {
    child.try_wait().expect("the process is our child").is_some()
}

fn log_file(program: Program, folder: &Path) -> PathBuf {
    folder.join(format!("{}.log", program.name))
}

/// Removes the log of an earlier process, which would make the next one look ready.
fn remove_log(program: Program, folder: &Path) {
    let _ = fs::remove_file(log_file(program, folder));
}

/// The last lines of a server's log, for the message of a failed start.
fn log_tail(program: Program, folder: &Path) -> String {
    let log = fs::read_to_string(log_file(program, folder)).unwrap_or_default();
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(5)..].join("\n")
}

pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a local port is free");
    listener.local_addr().expect("a bound listener has an address").port()
}

/// A command as one line that `sh` splits back into the same words.
fn shell_line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let quoted = words.map(|word| format!("'{}'", word.to_string_lossy().replace('\'', r"'\''")));
    quoted.collect::<Vec<_>>().join(" ")
}

fn redis_url(port: u16) -> String {
    format!("redis://127.0.0.1:{port}")
}

fn mongodb_uri(port: u16) -> String {
    format!("mongodb://127.0.0.1:{port}")
}

/// Makes three tests of a scenario that takes the address of a server: one for each kind of Redis that is supported and
/// answers differently.
macro_rules! on_each_redis {
    ($($scenario:ident),+ $(,)?) => {$(
        mod $scenario {
            use crate::support::servers::{OwnRedis, SharedServers};

            #[tokio::test]
            async fn on_redis_7() {
                super::$scenario(&SharedServers::of_this_run().redis_url()).await;
            }

            #[tokio::test]
            async fn on_redis_6_2() {
                super::$scenario(&OwnRedis::start_named("redis-server-6.2", &[]).url()).await;
            }

            #[tokio::test]
            async fn on_valkey() {
                super::$scenario(&OwnRedis::start_named("valkey-server", &[]).url()).await;
            }
        }
    )+};
}
pub(crate) use on_each_redis;
