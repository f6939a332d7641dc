//! `feedmill queue`: look at and operate a queue. One file per group of commands.

mod add;
mod answers;
mod change;
mod empty;
mod events;
pub(super) mod input;
mod list;
mod logs;
mod promote;
mod remove;
mod retry;
mod series;
mod show;
mod walking;

use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::json;

use super::limit::{self, LimitArgs};
use super::{Globals, UsageError, output};
use crate::job::JobId;
use crate::pipeline::Queues;
use crate::queue::Queue;
use crate::queue::counts::Counts;

/// Queues that an error names.
const NAMED_MAX: usize = 20;

#[derive(Debug, Subcommand)]
pub(super) enum QueueCommand {
    /// Count jobs by state
    #[command(after_help = "Examples:
  feedmill queue counts
  feedmill queue counts --json | jq '.[].waiting'")]
    Counts(CountsArgs),
    /// Stop handing out jobs; those that run go on
    #[command(after_help = "Example:
  feedmill queue pause --queue job_import_queue")]
    Pause(QueueArgs),
    /// Hand out jobs again
    #[command(after_help = "Example:
  feedmill queue resume --queue job_import_queue")]
    Resume(QueueArgs),
    /// Show and change what limits the start of jobs
    #[command(after_help = "Examples:
  feedmill queue limit                            what is in force
  feedmill queue limit --rate 100/1s              at most 100 starts a second
  feedmill queue limit --concurrency 20           at most 20 jobs active
  feedmill queue limit --for 30s                  start nothing for so long
  feedmill queue limit --reset                    as configured, again

Limits hold for all workers together, from the next start on; a worker that
waits learns of them within a second or, if the queue had none, five.")]
    Limit(LimitArgs),
    // The others are described at their arguments.
    List(list::ListArgs),
    Search(list::SearchArgs),
    Show(show::ShowArgs),
    Logs(logs::LogsArgs),
    Events(events::EventsArgs),
    Series(series::SeriesArgs),
    Add(Box<add::AddArgs>),
    Retry(retry::RetryArgs),
    Redrive(retry::RedriveArgs),
    Promote(promote::PromoteArgs),
    Update(change::UpdateArgs),
    Delay(change::DelayArgs),
    Priority(change::PriorityArgs),
    Cancel(remove::CancelArgs),
    Remove(remove::RemoveArgs),
    Clean(empty::CleanArgs),
    Drain(empty::DrainArgs),
    Obliterate(empty::ObliterateArgs),
}

#[derive(Debug, Args)]
pub(super) struct CountsArgs {
    /// Only this queue
    #[arg(long, value_name = "NAME")]
    queue: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct QueueArgs {
    /// Name of the queue [default: the import queue]
    #[arg(long, value_name = "NAME")]
    pub(super) queue: Option<String>,
}

pub(super) async fn run(globals: &Globals, command: QueueCommand) -> anyhow::Result<ExitCode> {
    let config = globals.load(None)?;
    let queues = Queues::open(&config).await?;
    match command {
        QueueCommand::Counts(args) => counts(&queues, &args).await?,
        QueueCommand::List(args) => return list::list(&chosen(&queues, &args.queue).await?, &args).await,
        QueueCommand::Search(args) => return list::search(&chosen(&queues, &args.queue).await?, &args).await,
        QueueCommand::Show(args) => return show::run(&chosen(&queues, &args.queue).await?, &args).await,
        QueueCommand::Logs(args) => return logs::run(&chosen(&queues, &args.queue).await?, &args).await,
        QueueCommand::Events(args) => return events::run(&chosen(&queues, &args.queue).await?, &args).await,
        QueueCommand::Series(args) => return series::run(&chosen(&queues, &args.queue).await?, &args).await,
        QueueCommand::Pause(args) => {
            let queue = chosen(&queues, &args).await?;
            let changed = queue.pause().await?;
            output::line(&format!("{} {}", queue.name(), if changed { "is paused" } else { "was paused already" }))?;
        }
        QueueCommand::Resume(args) => {
            let queue = chosen(&queues, &args).await?;
            let changed = queue.resume().await?;
            output::line(&format!("{} {}", queue.name(), if changed { "goes on" } else { "was not paused" }))?;
        }
        QueueCommand::Limit(args) => {
            let queue = chosen(&queues, &QueueArgs { queue: args.queue.clone() }).await?;
            limit::run(&config, &queue, &args).await?;
        }
        QueueCommand::Add(args) => {
            return add::run(&config, &queues, &chosen(&queues, &args.queue).await?, &args).await;
        }
        QueueCommand::Retry(args) => return retry::run(&chosen(&queues, &args.queue).await?, &args, "retried").await,
        QueueCommand::Redrive(args) => {
            return retry::run(&chosen(&queues, &args.queue).await?, &args.into(), "redriven").await;
        }
        QueueCommand::Promote(args) => return promote::run(&chosen(&queues, &args.queue).await?, &args).await,
        QueueCommand::Update(args) => {
            return change::update(&config, &queues, &chosen(&queues, &args.queue).await?, &args).await;
        }
        QueueCommand::Delay(args) => return change::delay(&chosen(&queues, &args.queue).await?, &args).await,
        QueueCommand::Priority(args) => return change::priority(&chosen(&queues, &args.queue).await?, &args).await,
        QueueCommand::Cancel(args) => return remove::cancel(&chosen(&queues, &args.queue).await?, &args).await,
        QueueCommand::Remove(args) => return remove::remove(&chosen(&queues, &args.queue).await?, &args).await,
        QueueCommand::Clean(args) => return empty::clean(&chosen(&queues, &args.queue).await?, &args).await,
        QueueCommand::Drain(args) => return empty::drain(&chosen(&queues, &args.queue).await?, &args).await,
        QueueCommand::Obliterate(args) => return empty::obliterate(&chosen(&queues, &args.queue).await?, &args).await,
    }
    Ok(ExitCode::SUCCESS)
}

/// The queue that was named: any of the registry; the import queue when none was named.
pub(super) async fn chosen(queues: &Queues, args: &QueueArgs) -> anyhow::Result<Queue> {
    let Some(name) = args.queue.as_deref() else { return Ok(queues.import.clone()) };
    if let Some(queue) = queues.named(name).await? {
        return Ok(queue);
    }
    let mut names = queues.import.redis().registered_queues().await?;
    let more = names.len().saturating_sub(NAMED_MAX);
    names.truncate(NAMED_MAX);
    if more > 0 {
        names.push(format!("{more} more"));
    }
    Err(UsageError(format!("there is no queue {name:?}; the queues are {}", names.join(", "))).into())
}

/// The error of a job that is not there.
fn there_is_no_job(queue: &Queue, id: &JobId) -> anyhow::Error {
    anyhow::anyhow!(
        "there is no job {id} in {}: it is done, was never added, or no worker has adopted it yet",
        queue.name()
    )
}

async fn counts(queues: &Queues, args: &CountsArgs) -> anyhow::Result<()> {
    let wanted = match &args.queue {
        Some(_) => vec![chosen(queues, &QueueArgs { queue: args.queue.clone() }).await?],
        None => vec![queues.import.clone(), queues.fetch.clone()],
    };
    let mut rows: Vec<(String, Counts)> = Vec::new();
    for queue in wanted {
        rows.push((queue.name().to_owned(), queue.counts().await?));
    }
    if args.json {
        let mut by_queue = serde_json::Map::new();
        for (name, counts) in &rows {
            let mut value = serde_json::to_value(counts)?;
            value["is-paused"] = json!(counts.is_paused);
            value["totals"] = json!(counts.totals);
            by_queue.insert(name.clone(), value);
        }
        return output::json(&by_queue);
    }
    let names: Vec<String> = rows
        .iter()
        .map(|(name, counts)| if counts.is_paused { format!("{name} (paused)") } else { name.clone() })
        .collect();
    let header: Vec<&str> = std::iter::once("state").chain(names.iter().map(String::as_str)).collect();
    let states = rows[0].1.by_state().map(|(state, _)| state);
    let cell = |row: &(String, Counts), at: usize| row.1.by_state()[at].1.to_string();
    match rows.as_slice() {
        [one] => output::table([header[0], header[1]], 1, (0..8).map(|at| [states[at].to_owned(), cell(one, at)])),
        [one, two, ..] => output::table(
            [header[0], header[1], header[2]],
            1,
            (0..8).map(|at| [states[at].to_owned(), cell(one, at), cell(two, at)]),
        ),
        [] => Ok(()),
    }
}
