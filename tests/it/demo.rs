//! `make demo`: what somebody sees who tries feedmill for the first time.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Child, Stdio},
};

use rustix::process::{Pid, Signal, kill_process};

use crate::support::{
    eventually::eventually,
    process::{PATIENCE, Ran},
    prometheus::{Prometheus, http},
    servers::{find, free_port},
    shell::{BINARY, Shell, ran},
};

/// A copy of what the demo needs, so that a developer's `.feedmill` and other tests are left alone.
struct Demo(Shell);

impl Demo {
    fn new() -> Self {
        let project = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut shell = Shell::new();
        for folder in ["scripts", "demo", "demo/feeds"] {
            fs::create_dir(shell.path().join(folder)).unwrap();
            for file in fs::read_dir(project.join(folder)).unwrap().map(|file| file.unwrap().path()) {
                if file.is_file() {
                    fs::copy(&file, shell.path().join(folder).join(file.file_name().unwrap())).unwrap();
                }
            }
        }
        fs::copy(project.join("Cargo.toml"), shell.path().join("Cargo.toml")).unwrap();
        let bin = shell.path().join(".feedmill/bin");
        fs::create_dir_all(&bin).unwrap();
        for server in ["redis-server", "mongod"] {
            symlink(fs::canonicalize(find(server)).unwrap(), bin.join(server)).unwrap();
        }
        shell.set("FEEDMILL_BIN", BINARY);
        // A developer's own, which the demo must not use.
        shell.set("REDIS_URL", "redis://127.0.0.1:1");
        shell.set("MONGODB_URI", "mongodb://127.0.0.1:1");
        shell.set("WORKER_BATCH_SIZE", "0");
        Self(shell)
    }

    fn path(&self, file: &str) -> PathBuf {
        self.0.path().join(file)
    }

    fn run(&self, script: &str) -> Ran {
        ran(self.0.command(self.path(script)).output().unwrap())
    }

    /// A `feedmill up --embedded` with servers in this folder, once they run.
    async fn up_in(&self, data_dir: &str) -> Child {
        let mut up = self.0.command(BINARY);
        up.args(["up", "--embedded", "--data-dir", data_dir, "--listen", "127.0.0.1:0"])
            .env_remove("WORKER_BATCH_SIZE")
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let up = up.spawn().unwrap();
        let addresses = self.path(data_dir).join("embedded.env");
        eventually("its servers run", PATIENCE, async || addresses.exists().then_some(())).await;
        up
    }

    /// Processes that work in this folder, which all that the demo starts do.
    fn processes(&self) -> Vec<u32> {
        let pids = fs::read_dir("/proc").unwrap().filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok());
        let folder = fs::canonicalize(self.0.path()).unwrap();
        pids.filter(|pid| fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd.starts_with(&folder))).collect()
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        // Only a test that failed has left any.
        for pid in self.processes() {
            let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
            let _ = pid.map(|pid| kill_process(pid, Signal::KILL));
        }
    }
}

/// Items, new, changed, unchanged, failed of each feed in the table that was printed.
fn table(ran: &Ran) -> Vec<(&str, [u64; 5])> {
    let rows = ran.stdout.lines().skip_while(|line| !line.starts_with("feed ")).skip(1);
    rows.map(|row| {
        let cells: Vec<&str> = row.split_whitespace().collect();
        assert_eq!((cells[1], cells.len()), ("done", 8), "{row}");
        (cells[0], std::array::from_fn(|at| cells[2 + at].parse().unwrap()))
    })
    .collect()
}

#[test]
fn the_demo_brings_all_then_nothing_then_the_one_item_that_was_edited() {
    let demo = Demo::new();
    let [first, again, edited, edited_again] =
        ["demo.sh", "demo.sh", "demo-edited.sh", "demo-edited.sh"].map(|script| {
            let ran = demo.run(&format!("scripts/{script}"));
            let log = fs::read_to_string(demo.path(".feedmill/demo/up.log")).unwrap_or_default();
            assert_eq!(ran.status.code(), Some(0), "{}{}{log}", ran.stdout, ran.stderr);
            assert!(!demo.path(".feedmill/demo/embedded.env").exists(), "its servers are stopped");
            ran
        });
    let new = [("jobboard", [25, 25, 0, 0, 0]), ("news", [20, 20, 0, 0, 0]), ("podcast", [6, 6, 0, 0, 0])];
    assert_eq!(table(&first), new);
    assert_eq!(table(&again), new.map(|(feed, [items, ..])| (feed, [items, 0, 0, items, 0])));
    for edited in [edited, edited_again] {
        assert_eq!(
            table(&edited),
            [("jobboard", [25, 0, 1, 24, 0]), ("news", [20, 0, 0, 20, 0]), ("podcast", [6, 0, 0, 6, 0])]
        );
    }
    assert_eq!(demo.processes(), <[u32; 0]>::default(), "nothing is left running");
    let ran = demo.run("scripts/clean-demo.sh");
    assert_eq!((ran.status.code(), ran.stdout.as_str(), ran.stderr.as_str()), (Some(0), "", ""));
    assert!(!demo.path(".feedmill/demo").exists());
    assert!(demo.path(".feedmill/bin/mongod").exists(), "what was installed stays");
}

#[tokio::test]
async fn cleaning_up_ends_the_servers_that_a_killed_feedmill_left() {
    let demo = Demo::new();
    let mut up = demo.up_in(".feedmill/demo").await;
    let ran = demo.run("scripts/clean-demo.sh");
    assert_eq!(ran.status.code(), Some(1), "{}", ran.stdout);
    assert_eq!(ran.stderr, "clean-demo: error: the demo is running here; stop it first\n");

    up.kill().unwrap();
    up.wait().unwrap();
    assert_eq!(demo.processes().len(), 2, "both servers go on");
    let ran = demo.run("scripts/clean-demo.sh");
    assert_eq!((ran.status.code(), ran.stderr.as_str()), (Some(0), ""));
    assert_eq!(ran.stdout.lines().count(), 2, "{}", ran.stdout);
    assert_eq!(demo.processes(), <[u32; 0]>::default());
    assert!(!demo.path(".feedmill/demo").exists());
}

#[tokio::test]
async fn the_demo_leaves_a_feedmill_of_ones_own_in_the_source_folder_alone() {
    let demo = Demo::new();
    let mut own = demo.up_in(".feedmill").await;
    for script in ["demo.sh", "clean-demo.sh"] {
        let ran = demo.run(&format!("scripts/{script}"));
        assert_eq!(ran.status.code(), Some(0), "{}{}", ran.stdout, ran.stderr);
    }
    assert_eq!(own.try_wait().unwrap(), None, "it goes on, with both of its servers");
    assert_eq!(demo.processes().len(), 3);
    assert!(demo.path(".feedmill/embedded.env").exists() && demo.path(".feedmill/data/mongodb").exists());
    kill_process(Pid::from_child(&own), Signal::TERM).unwrap();
    let status = eventually("it ends", PATIENCE, async || own.try_wait().unwrap()).await;
    assert_eq!(status.code(), Some(0));
}

#[test]
fn a_demo_that_cannot_start_says_why_and_where_to_look() {
    let demo = Demo::new();
    fs::write(demo.path("demo/streams.toml"), "[[feed]]\nname = \"jobboard\"\n").unwrap();
    let ran = demo.run("scripts/demo.sh");
    assert_eq!(ran.status.code(), Some(1), "{}", ran.stdout);
    let why = "error: feed.jobboard.url (.feedmill/demo/streams.toml line 1): is missing\n";
    let told = "demo: error: feedmill up ended before it was ready; the end of .feedmill/demo/up.log is above\n";
    assert_eq!(ran.stderr, [why, told].concat());
}

#[tokio::test]
async fn a_demo_that_stays_prints_its_addresses_can_be_scraped_and_ends_with_all_it_started() {
    let demo = Demo::new();
    let printed = demo.path("printed");
    let mut staying = demo.0.command(demo.path("scripts/demo.sh"));
    let listen = format!("127.0.0.1:{}", free_port());
    let prometheus = Prometheus::scraping(&listen).await;
    staying.arg("stay").env("DEMO_LISTEN", &listen).stdout(fs::File::create(&printed).unwrap()).stderr(Stdio::null());
    let mut staying = staying.spawn().unwrap();
    let said = eventually("the addresses", PATIENCE, async || {
        fs::read_to_string(&printed).ok().filter(|said| said.contains("Other commands find it"))
    })
    .await;
    let metrics = format!("http://{listen}/metrics");
    assert!(said.contains(&format!("  metrics   {metrics}\n")), "{said}");
    assert_eq!(http().get(metrics).send().await.unwrap().status(), 200);
    let addresses = fs::read_to_string(demo.path(".feedmill/demo/embedded.env")).unwrap();
    for (name, label) in [("REDIS_URL", "Redis"), ("MONGODB_URI", "MongoDB")] {
        let address = addresses.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('=')).unwrap();
        assert!(said.contains(&format!("  {label:<9} {}\n", address.trim_matches('\''))), "{said}{addresses}");
    }
    // A rate needs numbers from before.
    prometheus.has_data("feedmill_job_wait_seconds_count").await;
    let mut again = demo.0.command(BINARY);
    again.args(["fetch", "--all", "--force", "--wait", "--config"]).arg(demo.path(".feedmill/demo/streams.toml"));
    for (name, value) in addresses.lines().filter_map(|line| line.split_once('=')) {
        again.env(name, value.trim_matches('\''));
    }
    let again = ran(again.env_remove("WORKER_BATCH_SIZE").output().unwrap());
    assert_eq!(again.status.code(), Some(0), "{}{}", again.stdout, again.stderr);
    // The feeds of the demo are due once a year.
    prometheus.knows_dashboard_and_alerts(&["feedmill_slot_delay_seconds"]).await;

    kill_process(Pid::from_child(&staying), Signal::TERM).unwrap();
    let status = eventually("it ends", PATIENCE, async || staying.try_wait().unwrap()).await;
    assert_eq!(status.code(), Some(143));
    assert_eq!(demo.processes(), <[u32; 0]>::default(), "nothing is left running");
}
