//! `feedmill worker`: the workers of both queues, alone.

use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;

use super::reload::Hangup;
use super::{Globals, export_metrics};
use crate::pipeline::Pipeline;
use crate::shutdown;

/// Run the workers of both queues
///
/// Start as many processes as you like, on as many hosts. SIGHUP re-reads the feeds. Ends on SIGTERM, on Ctrl-C, or
/// with its terminal: what is held is finished or given back first. A second signal ends it at once. With
/// FEEDMILL_METRICS_LISTEN=127.0.0.1:9100 it exports what it does on http://127.0.0.1:9100/metrics.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  feedmill worker --concurrency 20
  REDIS_URL=redis://cache MONGODB_URI=mongodb://db feedmill worker")]
pub(super) struct WorkerArgs {
    /// Batches being written to MongoDB at the same time [else WORKER_CONCURRENCY]
    #[arg(long, value_name = "N")]
    concurrency: Option<usize>,
}

pub(super) async fn run(globals: &Globals, args: WorkerArgs) -> anyhow::Result<ExitCode> {
    let shutdown = shutdown::on_signal().context("cannot handle signals")?;
    let hangup = Hangup::listen().context("cannot handle signals")?;
    let config = globals.load(args.concurrency)?;
    let _metrics = export_metrics(&config).await?;
    let pipeline = Pipeline::connect(&config).await?;
    hangup.handle(globals, &pipeline.feeds, &shutdown);
    pipeline.run(shutdown).await;
    Ok(ExitCode::SUCCESS)
}
