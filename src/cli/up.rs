//! `feedmill up`: everything in one process.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::reload::Hangup;
use super::{Globals, HttpArgs};
use crate::config::Secret;
use crate::embedded::Embedded;
use crate::http::{self, App, HttpOptions};
use crate::metrics::queues::QueueReadings;
use crate::metrics::{self, Metrics};
use crate::pipeline::Pipeline;
use crate::shutdown;

/// Run everything in one process
///
/// These are HTTP, the workers of both queues, and the schedules of the feeds. SIGHUP re-reads the feeds. Ends on
/// SIGTERM, on Ctrl-C, or with its terminal: what is held is finished or given back first. A second signal ends it at
/// once.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  feedmill up                  with Redis and MongoDB from the configuration
  feedmill up --embedded       with private servers under .feedmill/

Other commands find the private servers with
  set -a; . .feedmill/embedded.env; set +a")]
pub(super) struct UpArgs {
    /// Start a private redis-server and mongod, found in DIR/bin or on PATH
    #[arg(long)]
    embedded: bool,
    /// Folder of the private servers
    #[arg(long, value_name = "DIR", default_value = ".feedmill", requires = "embedded")]
    data_dir: PathBuf,
    /// IP address and port of HTTP; port 0 takes a free one [else FEEDMILL_LISTEN, else http.listen]
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    #[command(flatten)]
    http: HttpArgs,
}

pub(super) async fn run(globals: &Globals, args: UpArgs) -> anyhow::Result<ExitCode> {
    let shutdown = shutdown::on_signal().context("cannot handle signals")?;
    let hangup = Hangup::listen().context("cannot handle signals")?;
    // What is wrong with the configuration, or the address, is said before servers are started.
    let config = globals.load(None)?;
    // Before there are workers, so that they are recorded from their start.
    let metrics = metrics::record()?;
    let listener = http::bind(args.listen.unwrap_or(config.http.listen), config.http.token.as_ref()).await?;
    let options = args.http.options(&config)?;
    if !args.embedded {
        let pipeline = Pipeline::connect(&config).await?;
        hangup.handle(globals, &pipeline.feeds, &shutdown);
        work(pipeline, listener, (config.http.token, options), metrics, shutdown).await?;
        return Ok(ExitCode::SUCCESS);
    }
    let servers = Embedded::start(&args.data_dir).await?;
    let globals = Globals {
        config: globals.config.clone(),
        redis_url: Some(servers.redis_url()),
        mongodb_uri: Some(servers.mongodb_uri()),
        mongodb_database: globals.mongodb_database.clone(),
        log_format: globals.log_format,
    };
    let worked = async {
        let pipeline = Pipeline::connect(&globals.load(None)?).await?;
        hangup.handle(&globals, &pipeline.feeds, &shutdown);
        servers.publish()?;
        tracing::info!(
            redis = %servers.redis_url(), mongodb = %servers.mongodb_uri(),
            "the addresses for other commands are in {}", servers.env_path().display()
        );
        let died = async {
            let program = servers.died().await;
            tracing::error!("the embedded {program} has ended; ending too");
            shutdown.cancel();
            Err(anyhow::anyhow!(
                "the embedded {program} has ended; its log is in {}",
                args.data_dir.join("data").display()
            ))
        };
        tokio::select! {
            result = work(pipeline, listener, (config.http.token, options), metrics, shutdown.clone()) => result,
            result = died => result,
        }
    };
    let result = worked.await;
    servers.stop().await;
    result.map(|()| ExitCode::SUCCESS)
}

/// Everything there is, until `shutdown`.
async fn work(
    pipeline: Pipeline,
    listener: TcpListener,
    (token, options): (Option<Secret>, HttpOptions),
    metrics: Metrics,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let scheduler = pipeline.scheduler();
    let Pipeline { queues, store, feeds, pulse, .. } = pipeline.clone();
    let exported = metrics.with_queues(QueueReadings::new([queues.import.clone(), queues.fetch.clone()]));
    let app = App::new(queues, store, feeds, pulse, token).with_options(options).with_metrics(exported);
    let beat = pipeline.pulse.follow("scheduler");
    tokio::join!(
        http::serve(listener, app, shutdown.clone()),
        scheduler.run(shutdown.clone(), beat),
        pipeline.run(shutdown)
    );
    Ok(())
}
