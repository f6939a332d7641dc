//! `feedmill import`: what was imported, and what is being imported.

use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, Subcommand};

use super::{Globals, UsageError, output};
use crate::import::{find_import, import_json, list_imports};
use crate::job::ImportId;
use crate::pipeline::{Queues, open_store};
use crate::queue::Queue;
use crate::store::Store;
use crate::store::imports::{ImportFilter, ImportRecord, ImportStatus};

#[derive(Debug, Subcommand)]
pub(super) enum ImportCommand {
    /// List imports, newest first, running ones included
    #[command(after_help = "Examples:
  feedmill import list
  feedmill import list --feed jobboard --limit 5 --json")]
    List(ListArgs),
    /// Show one import with its failures
    #[command(after_help = "Example:
  feedmill import show 660f1a2b3c4d5")]
    Show(ShowArgs),
}

#[derive(Debug, Args)]
pub(super) struct ListArgs {
    /// Only imports of this feed
    #[arg(long, value_name = "NAME")]
    feed: Option<String>,
    /// At most so many
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    limit: u32,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct ShowArgs {
    /// Id of the import, as `import list` prints it
    id: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(globals: &Globals, command: ImportCommand) -> anyhow::Result<ExitCode> {
    let config = globals.load(None)?;
    let queue = Queues::open(&config).await?.import;
    let store = open_store(&config).await?;
    match command {
        ImportCommand::List(args) => list(&queue, &store, &args).await,
        ImportCommand::Show(args) => show(&queue, &store, &args).await,
    }
}

async fn list(queue: &Queue, store: &Store, args: &ListArgs) -> anyhow::Result<ExitCode> {
    let wanted = ImportFilter { feed: args.feed.as_deref(), run: None };
    let records = list_imports(queue, store, wanted, args.limit).await?;
    if args.json {
        output::json(&records.iter().map(import_json).collect::<Vec<_>>())?;
    } else if records.is_empty() {
        output::aside("there are no imports of the last 30 days");
    } else {
        // As much as goes into 80 columns; `import show` has the rest.
        let header = ["import", "feed", "status", "started UTC", "items", "new", "changed", "failed"];
        output::table(
            header,
            4,
            records.iter().map(|record| {
                [
                    record.id.clone(),
                    record.feed.clone(),
                    status(record).to_owned(),
                    output::day_and_minute(record.started_at),
                    record.items.to_string(),
                    record.new.to_string(),
                    record.changed.to_string(),
                    record.failed.to_string(),
                ]
            }),
        )?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn show(queue: &Queue, store: &Store, args: &ShowArgs) -> anyhow::Result<ExitCode> {
    let id: ImportId = args.id.parse().map_err(|error| UsageError(format!("{:?}: {error}", args.id)))?;
    let record = find_import(queue, store, id)
        .await?
        .with_context(|| format!("there is no import {id}; `feedmill import list` shows those of the last 30 days"))?;
    if args.json {
        output::json(&import_json(&record))?;
        return Ok(ExitCode::SUCCESS);
    }
    let rows = [
        ("import", record.id.clone()),
        ("feed", record.feed.clone()),
        ("source", record.source.clone()),
        ("status", status(&record).to_owned()),
        ("started", output::time(Some(record.started_at))),
        ("finished", output::time(record.finished_at)),
        ("items", record.items.to_string()),
        ("  new", record.new.to_string()),
        ("  changed", record.changed.to_string()),
        ("  unchanged", record.unchanged.to_string()),
        ("  duplicate", record.duplicate.to_string()),
        ("inserted", record.inserted.to_string()),
        ("updated", record.updated.to_string()),
        ("stale", record.stale.to_string()),
        ("superseded", record.superseded.to_string()),
        ("removed", record.removed.to_string()),
        ("failed", record.failed.to_string()),
    ];
    for (name, value) in rows {
        output::line(&format!("{name:<12}{value}"))?;
    }
    if let Some(recovered) = &record.recovered {
        output::line(&format!("{:<12}{recovered}", "recovered"))?;
    }
    if let Some(error) = &record.error {
        output::line(&format!("{:<12}{error}", "error"))?;
    }
    for failure in &record.failures {
        output::line(&format!("{:<12}{}: {}", "failure", failure.id, failure.reason))?;
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) fn status(record: &ImportRecord) -> &'static str {
    match record.status {
        ImportStatus::Running => "running",
        ImportStatus::Done => "done",
        ImportStatus::Failed => "failed",
    }
}
