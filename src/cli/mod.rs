//! The command line: definitions here, one file per command.
//!
//! Data goes to stdout, logs and errors to stderr. Exit status: 0 ok, 1 failed, 2 usage or configuration, 3 anomaly.

mod bench;
mod config;
mod demo;
mod doctor;
mod feeds;
mod fetch;
mod import;
mod limit;
mod migrate;
mod output;
mod parse;
mod queue;
mod reload;
mod schedule;
mod schedulers;
mod serve;
mod up;
mod worker;
mod workers;
mod xinfo;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};

use crate::config::{Config, ConfigError, Overrides, Sources};
use crate::error::chain;
use crate::http::{BindError, HttpOptions};
use crate::metrics;
use crate::metrics::server::{Server, ServerError};
use crate::pipeline::PipelineError;
use crate::queue::QueueError;
use crate::store::StoreError;
use crate::telemetry::{self, LogFormat};

/// Exit status for usage and configuration errors.
const USAGE: u8 = 2;
/// Exit status when something that was looked at is wrong.
const ANOMALY: u8 = 3;

/// Takes RSS and Atom feeds, turns each item into a job on Redis Streams, and writes the items into MongoDB.
#[derive(Debug, Parser)]
#[command(name = "feedmill", version, max_term_width = 100)]
#[command(after_help = "Examples:
  feedmill up --embedded        all in one process, with a Redis and a MongoDB
  feedmill fetch --all --wait   import every feed of streams.toml now
  feedmill queue counts         what waits, what runs, what failed

Exit status: 0 ok, 1 failed, 2 usage or configuration, 3 anomaly.")]
pub struct Cli {
    #[command(flatten)]
    globals: Globals,
    #[command(subcommand)]
    command: Command,
}

/// Flags of every command; they win over the environment and the configuration file.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Global options")]
struct Globals {
    /// Configuration [else FEEDMILL_CONFIG, else ./streams.toml]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Redis to use [else REDIS_URL]
    #[arg(long, global = true, value_name = "URL")]
    redis_url: Option<String>,
    /// MongoDB to use [else MONGODB_URI]
    #[arg(long, global = true, value_name = "URI")]
    mongodb_uri: Option<String>,
    /// Its database [else MONGODB_DATABASE]
    #[arg(long, global = true, value_name = "NAME")]
    mongodb_database: Option<String>,
    /// Log lines on stderr, text or json; RUST_LOG says which
    #[arg(long, global = true, value_enum, default_value_t, value_name = "FORMAT", hide_possible_values = true)]
    #[arg(hide_default_value = true)]
    log_format: LogFormat,
}

#[derive(Debug, Subcommand)]
enum Command {
    // Some are described at their arguments.
    Up(up::UpArgs),
    Serve(serve::ServeArgs),
    Worker(worker::WorkerArgs),
    Schedule(schedule::ScheduleArgs),
    Fetch(fetch::FetchArgs),
    Parse(parse::ParseArgs),
    /// Look at feeds, and subscribe to them
    #[command(subcommand)]
    Feeds(feeds::FeedsCommand),
    /// Look at imports
    #[command(subcommand)]
    Import(import::ImportCommand),
    /// Look at and operate a queue
    #[command(subcommand)]
    Queue(queue::QueueCommand),
    /// Look at, make and remove jobs that are added again and again
    #[command(subcommand)]
    Schedulers(schedulers::SchedulersCommand),
    Workers(workers::WorkersArgs),
    Xinfo(xinfo::XinfoArgs),
    /// Take over the jobs of another system
    #[command(subcommand)]
    Migrate(migrate::MigrateCommand),
    /// Look at and check the configuration
    #[command(subcommand)]
    Config(config::ConfigCommand),
    Doctor(doctor::DoctorArgs),
    Bench(bench::BenchArgs),
    /// Serve and generate feeds to try feedmill on
    #[command(subcommand)]
    Demo(demo::DemoCommand),
}

/// A command was called in a way that cannot work; says how it can.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct UsageError(String);

impl Cli {
    /// Starts logging as the command and its flags want it.
    pub fn start_logging(&self) {
        let level = match &self.command {
            Command::Up(_) | Command::Serve(_) | Command::Worker(_) | Command::Schedule(_) => "info",
            // Feeds that fail are in its own output.
            Command::Fetch(_) => "warn,feedmill::failed_fetch=error",
            _ => "warn",
        };
        telemetry::start(level, self.globals.log_format);
    }
}

/// Runs a command.
///
/// # Errors
/// What [`report`] prints.
pub async fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    let globals = cli.globals;
    match cli.command {
        Command::Up(args) => up::run(&globals, args).await,
        Command::Serve(args) => Box::pin(serve::run(&globals, args)).await,
        Command::Worker(args) => worker::run(&globals, args).await,
        Command::Schedule(args) => schedule::run(&globals, args).await,
        Command::Fetch(args) => fetch::run(&globals, args).await,
        Command::Parse(args) => Ok(parse::run(&args)),
        Command::Feeds(command) => feeds::run(&globals, command).await,
        Command::Import(command) => import::run(&globals, command).await,
        Command::Queue(command) => queue::run(&globals, command).await,
        Command::Workers(args) => workers::run(&globals, args).await,
        Command::Xinfo(args) => xinfo::run(&globals, &args).await,
        Command::Schedulers(command) => schedulers::run(&globals, command).await,
        Command::Migrate(command) => migrate::run(&globals, command).await,
        Command::Config(command) => config::run(&globals, command),
        Command::Doctor(args) => doctor::run(&globals, &args).await,
        Command::Bench(args) => bench::run(&globals, args).await,
        Command::Demo(command) => demo::run(command).await,
    }
}

/// Prints an error with its causes and gives the exit status it means.
pub fn report(error: &anyhow::Error) -> ExitCode {
    output::error_line(&chain(error.as_ref()));
    ExitCode::from(if is_usage(error) { USAGE } else { 1 })
}

fn is_usage(error: &anyhow::Error) -> bool {
    let is_queue_usage = |error: &QueueError| {
        matches!(
            error,
            QueueError::Url { .. }
                | QueueError::Name { .. }
                | QueueError::Cursor(_)
                | QueueError::SchedulerId(_)
                | QueueError::Definition(_)
                | QueueError::Priority { .. }
                | QueueError::PayloadTooLarge { .. }
        )
    };
    let is_store_usage = |error: &StoreError| {
        matches!(error, StoreError::Scheme { .. } | StoreError::Uri { .. } | StoreError::DatabaseName { .. })
    };
    error.chain().any(|cause| {
        cause.is::<ConfigError>()
            || cause.is::<UsageError>()
            || matches!(cause.downcast_ref(), Some(BindError::Unguarded { .. }))
            || matches!(cause.downcast_ref(), Some(ServerError::NoToken { .. }))
            || cause.downcast_ref().is_some_and(is_queue_usage)
            || cause.downcast_ref().is_some_and(is_store_usage)
            // A transparent error stands in the chain in the place of the one it holds.
            || match cause.downcast_ref() {
                Some(PipelineError::Queue(error)) => is_queue_usage(error),
                Some(PipelineError::Store(error)) => is_store_usage(error),
                Some(PipelineError::Schedule { .. }) => true,
                _ => false,
            }
    })
}

/// What `serve` and `up` say of HTTP.
#[derive(Debug, Args)]
struct HttpArgs {
    /// Let nothing be changed over HTTP [else http.read_only]
    #[arg(long)]
    read_only: bool,
    /// Path under which a proxy shows it, such as /feeds [else http.base_path]
    #[arg(long, value_name = "PATH")]
    base_path: Option<String>,
}

impl HttpArgs {
    fn options(&self, config: &Config) -> anyhow::Result<HttpOptions> {
        let mut options = HttpOptions::new(config, self.read_only);
        if let Some(path) = &self.base_path {
            options.base_path = crate::config::base_path(path)
                .map_err(|accepted| UsageError(format!("--base-path {path:?}: {accepted}")))?;
        }
        Ok(options)
    }
}

impl Globals {
    fn load(&self, concurrency: Option<usize>) -> anyhow::Result<Config> {
        let sources = Sources {
            config_flag: self.config.clone(),
            directory: PathBuf::from("."),
            env: &|name| std::env::var(name).ok(),
            flags: Overrides {
                redis_url: self.redis_url.clone(),
                mongodb_uri: self.mongodb_uri.clone(),
                mongodb_database: self.mongodb_database.clone(),
                concurrency,
            },
        };
        Ok(Config::load(&sources)?)
    }
}

/// Begins to record what this process does, and to export it, if the configuration says where. To be called before any
/// work begins, and kept until everything has ended: the numbers of the end are of interest too.
async fn export_metrics(config: &Config) -> anyhow::Result<Option<Server>> {
    let Some(address) = config.http.metrics_listen else { return Ok(None) };
    Ok(Some(Server::start(address, metrics::record()?, config.http.token.clone()).await?))
}

/// What a failed write to stdout means for the command.
fn stdout_failed(error: std::io::Error) -> anyhow::Result<()> {
    // `feedmill … | head` is no failure.
    if error.kind() == std::io::ErrorKind::BrokenPipe { Ok(()) } else { Err(error).context("cannot write to stdout") }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn urls_that_cannot_work_are_usage_errors_wherever_they_are_found() {
        let url = || QueueError::Url { detail: "no host".to_owned() };
        assert!(is_usage(&url().into()));
        assert!(is_usage(&PipelineError::from(url()).into()));
        assert!(is_usage(&PipelineError::from(StoreError::Scheme { found: "none".to_owned() }).into()));
        let too_old = QueueError::Version { address: "db:6379".to_owned(), found: "5.0.6".to_owned() };
        assert!(!is_usage(&PipelineError::from(too_old).into()));
    }

    #[test]
    fn every_help_fits_into_80_columns() {
        fn check(command: &mut clap::Command, path: &str) {
            let helps = [command.render_help().to_string(), command.render_long_help().to_string()];
            for line in helps.iter().flat_map(|help| help.lines()) {
                assert!(line.chars().count() <= 80, "{path}: {line}");
            }
            // What we laid out by hand is not wrapped again.
            let examples = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(helps[0].contains(&examples), "{path}: the examples are wrapped");
            for sub in command.get_subcommands_mut() {
                let path = format!("{path} {}", sub.get_name());
                check(sub, &path);
            }
        }
        let mut command = Cli::command().term_width(80);
        command.build();
        check(&mut command, "feedmill");
    }

    #[test]
    fn every_command_shows_an_example_in_its_help() {
        fn check(command: &clap::Command, path: &str) {
            for sub in command.get_subcommands().filter(|sub| sub.get_name() != "help") {
                let path = format!("{path} {}", sub.get_name());
                let help = sub.get_after_help().map(ToString::to_string).unwrap_or_default();
                if sub.has_subcommands() {
                    check(sub, &path);
                } else {
                    assert!(help.contains("Example"), "{path} has no example");
                }
            }
        }
        check(&Cli::command(), "feedmill");
    }
}
