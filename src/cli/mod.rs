//! The command line: definitions here, one file per command.
//!
//! Data goes to stdout, logs and errors to stderr. Exit status: 0 ok, 1 failed, 2 usage or configuration.

mod config;
mod demo;
mod fetch;
mod import;
mod output;
mod parse;
mod queue;
mod up;
mod worker;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};

use crate::config::{Config, ConfigError, Overrides, Sources};
use crate::error::chain;
use crate::pipeline::PipelineError;
use crate::queue::QueueError;
use crate::store::StoreError;
use crate::telemetry::{self, LogFormat};

/// Exit status for usage and configuration errors.
const USAGE: u8 = 2;

/// Takes RSS and Atom feeds, turns each item into a job on Redis Streams, and writes the items into MongoDB.
#[derive(Debug, Parser)]
#[command(name = "feedmill", version, propagate_version = true, max_term_width = 100)]
pub struct Cli {
    #[command(flatten)]
    globals: Globals,
    #[command(subcommand)]
    command: Command,
}

/// Flags of every command; they win over the environment and the configuration file.
#[derive(Debug, Args)]
#[command(next_help_heading = "Global options")]
struct Globals {
    /// Configuration file [default: FEEDMILL_CONFIG, else ./streams.toml, else built in]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Redis to use [environment: REDIS_URL]
    #[arg(long, global = true, value_name = "URL")]
    redis_url: Option<String>,
    /// MongoDB to use [environment: MONGODB_URI]
    #[arg(long, global = true, value_name = "URI")]
    mongodb_uri: Option<String>,
    /// Database to use [environment: MONGODB_DATABASE]
    #[arg(long, global = true, value_name = "NAME")]
    mongodb_database: Option<String>,
    /// How log lines on stderr look; RUST_LOG sets what is logged
    #[arg(long, global = true, value_enum, default_value_t)]
    log_format: LogFormat,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run everything in one process
    Up(up::UpArgs),
    /// Run the workers of both queues
    Worker(worker::WorkerArgs),
    /// Fetch feeds now
    Fetch(fetch::FetchArgs),
    /// Read feeds from files and print their items, one JSON object a line
    Parse(parse::ParseArgs),
    /// Look at imports
    #[command(subcommand)]
    Import(import::ImportCommand),
    /// Look at and operate a queue
    #[command(subcommand)]
    Queue(queue::QueueCommand),
    /// Look at and check the configuration
    #[command(subcommand)]
    Config(config::ConfigCommand),
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
            Command::Up(_) | Command::Worker(_) => "info",
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
        Command::Worker(args) => worker::run(&globals, args).await,
        Command::Fetch(args) => fetch::run(&globals, args).await,
        Command::Parse(args) => Ok(parse::run(&args)),
        Command::Import(command) => import::run(&globals, command).await,
        Command::Queue(command) => queue::run(&globals, command).await,
        Command::Config(command) => config::run(&globals, command),
        Command::Demo(command) => demo::run(command).await,
    }
}

/// Prints an error with its causes and gives the exit status it means.
pub fn report(error: &anyhow::Error) -> ExitCode {
    output::error_line(&chain(error.as_ref()));
    ExitCode::from(if is_usage(error) { USAGE } else { 1 })
}

fn is_usage(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause.is::<ConfigError>()
            || cause.is::<UsageError>()
            || matches!(cause.downcast_ref(), Some(QueueError::Url { .. } | QueueError::Name { .. }))
            || matches!(cause.downcast_ref(), Some(StoreError::Uri { .. }))
            || matches!(cause.downcast_ref(), Some(PipelineError::Schedule { .. }))
    })
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
        let config = Config::load(&sources)?;
        for warning in &config.warnings {
            tracing::warn!("{warning}");
        }
        Ok(config)
    }
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
