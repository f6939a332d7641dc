//! `feedmill config`: the configuration in force, and checking a file.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::{Globals, UsageError, output};
use crate::config::{ConfigError, show};
use crate::pipeline;

#[derive(Debug, Subcommand)]
pub(super) enum ConfigCommand {
    /// Print the configuration in force, secrets masked, with where each value came from
    #[command(after_help = "Examples:
  feedmill config show
  feedmill config show --json | jq .redis")]
    Show(ShowArgs),
    /// Check a file, and say what is wrong with it
    #[command(after_help = "Examples:
  feedmill config check                what would be used here
  feedmill config check streams.toml   this file")]
    Check(CheckArgs),
}

#[derive(Debug, Args)]
pub(super) struct ShowArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct CheckArgs {
    /// File to check instead of the one that would be used
    file: Option<PathBuf>,
}

pub(super) fn run(globals: &Globals, command: ConfigCommand) -> anyhow::Result<ExitCode> {
    match command {
        ConfigCommand::Show(args) => {
            let config = globals.load(None)?;
            if args.json {
                output::json(&show::to_json(&config))?;
            } else {
                output::line(show::render(&config).trim_end())?;
            }
        }
        ConfigCommand::Check(args) => {
            let is_named_here = args.file.is_some();
            let checked = Globals {
                config: args.file.or_else(|| globals.config.clone()),
                redis_url: globals.redis_url.clone(),
                mongodb_uri: globals.mongodb_uri.clone(),
                mongodb_database: globals.mongodb_database.clone(),
                log_format: globals.log_format,
            };
            let config = checked.load(None).map_err(|error| match error.downcast_ref() {
                // The error would name an option that nobody used.
                Some(ConfigError::Unreadable { path, cause, .. }) if is_named_here => {
                    UsageError(format!("cannot read {}: {cause}", path.display())).into()
                }
                _ => error,
            })?;
            pipeline::feeds(&config)?;
            let file = config
                .file
                .as_ref()
                .map_or_else(|| "built-in configuration".to_owned(), |file| file.display().to_string());
            let n_feeds = config.feeds.len();
            output::line(&format!("{file}: ok, {n_feeds} {}", if n_feeds == 1 { "feed" } else { "feeds" }))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
