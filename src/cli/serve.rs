//! `feedmill serve`: HTTP alone.

use std::net::SocketAddr;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;

use super::reload::Hangup;
use super::{Globals, HttpArgs};
use crate::http::{self, App};
use crate::metrics;
use crate::metrics::queues::QueueReadings;
use crate::pipeline::{Queues, all_feeds, open_store};
use crate::pulse::Pulse;
use crate::shutdown;

/// Serve HTTP: start imports, look at them, health checks
///
/// Works on nothing itself: `feedmill worker` does. SIGHUP re-reads the feeds. Ends on SIGTERM, on Ctrl-C, or with its
/// terminal, once open requests are answered. A second signal ends at once.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  feedmill serve
  FEEDMILL_TOKEN=… feedmill serve --listen 0.0.0.0:4000
  curl -X POST http://127.0.0.1:4000/imports/start")]
pub(super) struct ServeArgs {
    /// IP address and port; port 0 takes a free one [else FEEDMILL_LISTEN, else http.listen]
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    #[command(flatten)]
    http: HttpArgs,
}

pub(super) async fn run(globals: &Globals, args: ServeArgs) -> anyhow::Result<ExitCode> {
    let shutdown = shutdown::on_signal().context("cannot handle signals")?;
    let hangup = Hangup::listen().context("cannot handle signals")?;
    let config = globals.load(None)?;
    let listener = http::bind(args.listen.unwrap_or(config.http.listen), config.http.token.as_ref()).await?;
    let queues = Queues::open(&config).await?;
    for warning in queues.import.redis().settings_warnings().await {
        tracing::warn!("{warning}");
    }
    let store = open_store(&config).await?;
    let feeds = all_feeds(&config, &store).await?;
    hangup.handle(globals, &feeds, &shutdown);
    let readings = QueueReadings::new([queues.import.clone(), queues.fetch.clone()]);
    let exported = metrics::record()?.with_queues(readings);
    let options = args.http.options(&config)?;
    let app = App::new(queues, store, feeds.clone(), Pulse::default(), config.http.token)
        .with_options(options)
        .with_metrics(exported);
    tokio::join!(http::serve(listener, app, shutdown.clone()), feeds.run(shutdown));
    Ok(ExitCode::SUCCESS)
}
