//! `feedmill bench --pipeline`: throughput and memory of the whole path, on private servers.
//!
//! ```text
//!   feedmill demo serve ──HTTP──▶ feedmill worker ◀──▶ redis-server, mongod       each a process of its own
//! ```

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde::Serialize;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep};

use super::{PipelineArgs, delete_data, empty_data};
use crate::cli::output;
use crate::config::{Config, Overrides, Sources};
use crate::embedded::Embedded;
use crate::import::{StartRequest, start};
use crate::pipeline::{Queues, feeds};

/// Time between two looks at the queue: short against what is measured.
const LOOK_INTERVAL: Duration = Duration::from_millis(10);
/// Longest time for the processes to start.
const START_TIMEOUT: Duration = Duration::from_mins(1);
/// Longest time for the import: far above any machine that is worth measuring.
const IMPORT_TIMEOUT: Duration = Duration::from_mins(10);
/// Milliseconds of a clock tick in `/proc/<pid>/stat`: 100 ticks a second on Linux.
const TICK_MS: u64 = 10;

/// What was measured.
#[derive(Debug, Serialize)]
struct Measured {
    feeds: u32,
    items: u64,
    bytes: usize,
    seconds: f64,
    per_s: f64,
    processes: Vec<Process>,
}

/// What one process took; `None` where the system does not say.
#[derive(Debug, Serialize)]
struct Process {
    name: &'static str,
    cpu_us_per_item: Option<f64>,
    peak_memory_bytes: Option<u64>,
}

pub(super) async fn run(args: &PipelineArgs, folder: &Path, json: bool) -> anyhow::Result<ExitCode> {
    empty_data(folder)?;
    let servers = Embedded::start(folder).await?;
    let measured = measure(args, folder, &servers).await;
    servers.stop().await;
    delete_data(folder);
    let measured = measured?;
    if json {
        output::json(&measured)?;
    } else {
        output::line(&format!(
            "{} items of {} bytes from {} feeds in {:.2} s: {:.0} items/s\n",
            measured.items, measured.bytes, measured.feeds, measured.seconds, measured.per_s
        ))?;
        let shown = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
        output::table(
            ["process", "CPU µs/item", "peak MiB"],
            1,
            measured.processes.iter().map(|process| {
                [
                    process.name.to_owned(),
                    shown(process.cpu_us_per_item.map(|cpu| format!("{cpu:.1}"))),
                    shown(process.peak_memory_bytes.map(|bytes| format!("{:.0}", bytes as f64 / 1024.0 / 1024.0))),
                ]
            }),
        )?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn measure(args: &PipelineArgs, folder: &Path, servers: &Embedded) -> anyhow::Result<Measured> {
    let program = std::env::current_exe().context("cannot find the program itself")?;
    let (feed_server, address) = serve_feeds(&program, folder).await?;
    let config_path = folder.join("streams.toml");
    std::fs::write(&config_path, config_text(args, &address))
        .with_context(|| format!("cannot write {}", config_path.display()))?;
    let config = Config::load(&Sources {
        config_flag: Some(config_path.clone()),
        directory: PathBuf::from("."),
        // As the worker will see it.
        env: &|name| std::env::var(name).ok(),
        flags: Overrides {
            redis_url: Some(servers.redis_url()),
            mongodb_uri: Some(servers.mongodb_uri()),
            ..Overrides::default()
        },
    })?;
    let queues = Queues::open(&config).await?;
    let worker = start_worker(&program, &config_path, servers, &queues).await?;

    let [redis, mongod] = servers.processes();
    let processes = [
        ("feed server", feed_server.id().and_then(|pid| i32::try_from(pid).ok())),
        ("feedmill worker", worker.id().and_then(|pid| i32::try_from(pid).ok())),
        (redis.0, Some(redis.1)),
        (mongod.0, Some(mongod.1)),
    ];
    let cpu_before = processes.map(|(_, pid)| pid.and_then(cpu_ms));
    let wanted = feeds(&config)?;
    let started_at = Instant::now();
    start(&queues.import, &queues.fetch, wanted.values().map(|feed| &**feed), &StartRequest::default()).await?;
    let items = u64::from(args.feeds) * u64::from(args.items);
    loop {
        let counts = queues.import.counts().await?;
        if counts.totals.get("completed").is_some_and(|completed| *completed >= items) {
            break;
        }
        ensure!(counts.failed == 0, "{} items failed; this is no measurement", counts.failed);
        ensure!(started_at.elapsed() < IMPORT_TIMEOUT, "the import did not end within {IMPORT_TIMEOUT:?}");
        sleep(LOOK_INTERVAL).await;
    }
    let seconds = started_at.elapsed().as_secs_f64();
    let processes = processes.into_iter().zip(cpu_before).map(|((name, pid), before)| {
        let cpu = pid.and_then(cpu_ms).zip(before).map(|(now, before)| (now - before) as f64 * 1000.0 / items as f64);
        Process { name, cpu_us_per_item: cpu, peak_memory_bytes: pid.and_then(peak_memory_bytes) }
    });
    let processes = processes.collect();
    Ok(Measured { feeds: args.feeds, items, bytes: args.bytes, seconds, per_s: items as f64 / seconds, processes })
}

/// Starts a feed server on a free port; both end with this process.
async fn serve_feeds(program: &Path, folder: &Path) -> anyhow::Result<(Child, String)> {
    let mut child = Command::new(program)
        .args(["demo", "serve", "--listen", "127.0.0.1:0"])
        .arg(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .context("cannot start the feed server")?;
    let stdout = child.stdout.take().context("the feed server has no output")?;
    let line = BufReader::new(stdout).lines().next_line().await?.context("the feed server ended at once")?;
    let (_, address) = line.rsplit_once(' ').context("the feed server did not say where it listens")?;
    Ok((child, address.to_owned()))
}

async fn start_worker(program: &Path, config: &Path, servers: &Embedded, queues: &Queues) -> anyhow::Result<Child> {
    let mut child = Command::new(program)
        .arg("worker")
        .arg("--config")
        .arg(config)
        .args(["--redis-url", &servers.redis_url(), "--mongodb-uri", &servers.mongodb_uri()])
        .env("RUST_LOG", "warn")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .context("cannot start the worker")?;
    let deadline = Instant::now() + START_TIMEOUT;
    while queues.import.live_consumers().await?.is_empty() || queues.fetch.live_consumers().await?.is_empty() {
        ensure!(child.try_wait()?.is_none(), "the worker ended at once");
        ensure!(Instant::now() < deadline, "the worker did not start within {START_TIMEOUT:?}");
        sleep(LOOK_INTERVAL).await;
    }
    Ok(child)
}

fn config_text(args: &PipelineArgs, address: &str) -> String {
    // All feeds are of one host, which does not mind.
    let mut text = String::from("[stream.feed_fetch_queue]\ngroup_by = false\n");
    for feed in 0..args.feeds {
        let (items, bytes) = (args.items, args.bytes);
        let written = writeln!(
            text,
            "[[feed]]\nname = \"feed{feed}\"\nsource = \"bench:{feed}\"\nallow_private = true\n\
             url = \"{address}/generated/{items}.rss?bytes={bytes}&seed={feed}\"\n"
        );
        written.expect("writing to memory does not fail");
    }
    text
}

/// CPU time of a process so far, where the system has `/proc`.
fn cpu_ms(pid: i32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold spaces; user and system time are fields 14 and 15 of the line.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_ascii_whitespace().collect();
    Some((fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?) * TICK_MS)
}

/// The most memory a process had, where the system has `/proc`.
fn peak_memory_bytes(pid: i32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()? * 1024)
}
