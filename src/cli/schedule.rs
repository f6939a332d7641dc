//! `feedmill schedule`: the schedule loop, alone.

use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;

use super::reload::Hangup;
use super::{Globals, export_metrics};
use crate::import::Scheduler;
use crate::pipeline::{Queues, all_feeds, open_store};
use crate::pulse::Beat;
use crate::shutdown;
use crate::worker::ScheduleLoop;

/// Add the fetch jobs of feeds at the times of their schedules
///
/// It fires the job schedulers of both queues too (`feedmill schedulers`). Start as many processes as you like, on as many
/// hosts: each slot is fired once. Workers do the work. SIGHUP re-reads the feeds; subscriptions come from MongoDB.
/// Ends on SIGTERM, on Ctrl-C, or with its terminal. With FEEDMILL_METRICS_LISTEN=127.0.0.1:9100 it exports what it does on http://127.0.0.1:9100/metrics.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  feedmill schedule
  RUST_LOG=debug feedmill schedule     says what it fires")]
pub(super) struct ScheduleArgs {}

pub(super) async fn run(globals: &Globals, _args: ScheduleArgs) -> anyhow::Result<ExitCode> {
    let shutdown = shutdown::on_signal().context("cannot handle signals")?;
    let hangup = Hangup::listen().context("cannot handle signals")?;
    let config = globals.load(None)?;
    let _metrics = export_metrics(&config).await?;
    let queues = Queues::open(&config).await?;
    let feeds = all_feeds(&config, &open_store(&config).await?).await?;
    hangup.handle(globals, &feeds, &shutdown);
    tokio::join!(
        feeds.clone().run(shutdown.clone()),
        Scheduler { fetch_queue: queues.fetch, import_queue: queues.import.clone(), feeds }
            .run(shutdown.clone(), Beat::default()),
        ScheduleLoop::new(queues.import).run(shutdown, Beat::default()),
    );
    Ok(ExitCode::SUCCESS)
}
