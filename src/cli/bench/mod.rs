//! `feedmill bench`: how fast the queue is, and what it costs, on a given Redis or on a private one; with `--pipeline`
//! the whole path, on private servers.
//!
//! ```text
//!   engine.rs, bare.rs   what is measured: feedmill's queue, and the bare commands beside it
//!   queue.rs     the phases: latency, add, memory, process       own_keys.rs   what they leave behind, deleted
//!   server.rs    what a phase took of the server and of this process
//!   pipeline.rs  the whole path, from HTTP to MongoDB
//! ```

mod bare;
mod engine;
mod own_keys;
mod pipeline;
mod queue;
mod server;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, ValueEnum};

use super::Globals;
use crate::demo::ITEM_BYTES_DEFAULT;

/// Measure throughput, latency and memory on this machine.
///
/// Adds jobs to a queue and works on them with a handler that does nothing; says how many a second that were, and what
/// each cost Redis and this process. Without --redis-url it starts a redis-server of its own (append-only file) under
/// DATA_DIR. On a Redis that is given it works on keys of its own, names them, and deletes them at the end; REDIS_URL is
/// not looked at. Before a worker is measured, Redis is made to end moving its keys into a larger table, if it is about that.
///
/// With --pipeline it measures the whole path instead: starts a redis-server, a mongod, a feed server and a worker, and
/// imports generated feeds.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  feedmill bench
  feedmill bench --redis-url redis://127.0.0.1:6379 --jobs 100000 --json
  feedmill bench --system feedmill,bare --concurrency 10,100
  feedmill bench --waiting 1000000
  feedmill bench --pipeline --feeds 2 --items 1000")]
pub(super) struct BenchArgs {
    #[command(flatten)]
    queue: QueueArgs,
    /// Measure the whole path, from HTTP to MongoDB
    #[arg(long)]
    pipeline: bool,
    #[command(flatten)]
    path: PipelineArgs,
    /// Folder for private servers and their data
    #[arg(long, value_name = "DIR", default_value = ".feedmill/bench")]
    data_dir: PathBuf,
    /// Print JSON; of the queue one line per phase
    #[arg(long)]
    json: bool,
}

/// What is measured of the queue.
#[derive(Debug, Args)]
#[group(id = "of_queue", multiple = true, conflicts_with = "pipeline")]
struct QueueArgs {
    /// Jobs to add, and to work on
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    jobs: u64,
    /// Bytes of each
    #[arg(long, default_value_t = 600, value_parser = clap::value_parser!(u64).range(0..=1024 * 1024))]
    payload_bytes: u64,
    /// Jobs a worker works on at once; a comma between several
    #[arg(long, value_name = "N", default_value = "100", value_delimiter = ',')]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=10_000))]
    concurrency: Vec<u64>,
    /// Jobs that wait all the while, beside those that are measured
    #[arg(long, value_name = "N", default_value_t = 0)]
    waiting: u64,
    /// Jobs whose way from add to handler is timed
    #[arg(long, value_name = "N", default_value_t = 2_000)]
    samples: u64,
    /// What to measure; a comma between several
    #[arg(long, value_enum, default_value = "feedmill", value_delimiter = ',')]
    system: Vec<System>,
}

/// Something that jobs go through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum System {
    /// The queue and its worker
    Feedmill,
    /// The bare commands: no retries, no leases, no counts
    Bare,
}

/// What goes through the whole path.
#[derive(Debug, Args)]
#[group(id = "of_pipeline", multiple = true)]
struct PipelineArgs {
    /// Feeds to import at once
    #[arg(long, requires = "pipeline", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=1000))]
    feeds: u32,
    /// Items of each
    #[arg(long, requires = "pipeline", default_value_t = 5000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    items: u32,
    /// Bytes of an item, about
    #[arg(long, requires = "pipeline", default_value_t = ITEM_BYTES_DEFAULT)]
    bytes: usize,
}

pub(super) async fn run(globals: &Globals, args: BenchArgs) -> anyhow::Result<ExitCode> {
    if args.pipeline {
        pipeline::run(&args.path, &args.data_dir, args.json).await
    } else {
        queue::run(globals.redis_url.as_deref(), &args.queue, &args.data_dir, args.json).await
    }
}

/// Makes the folder for private servers, without what a bench that was killed left in it.
fn empty_data(folder: &Path) -> anyhow::Result<()> {
    let data = data(folder);
    if data.exists() {
        std::fs::remove_dir_all(&data).with_context(|| format!("cannot empty {}", data.display()))?;
    }
    std::fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))
}

/// Deletes the data of private servers that have ended.
fn delete_data(folder: &Path) {
    // What is left is a few files; the next bench deletes them.
    let _ = std::fs::remove_dir_all(data(folder));
}

fn data(folder: &Path) -> PathBuf {
    folder.join("data")
}
