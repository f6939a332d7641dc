//! `feedmill queue`: look at and operate a queue. One file per group of commands.

mod add;
mod answers;
mod change;
mod empty;
pub(super) mod input;
mod promote;
mod remove;
mod retry;
mod walking;

use std::process::ExitCode;
use std::time::SystemTime;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use serde_json::json;

use super::{Globals, UsageError, output};
use crate::job::JobId;
use crate::pipeline::Queues;
use crate::queue::Queue;
use crate::queue::counts::Counts;
use crate::queue::find::{Found, State};

/// Bytes of a payload that are shown unless all of it is asked for.
const PREVIEW_BYTES: usize = 4096;
/// Queues that an error names.
const NAMED_MAX: usize = 20;

#[derive(Debug, Subcommand)]
pub(super) enum QueueCommand {
    /// Count jobs by state
    #[command(after_help = "Examples:
  feedmill queue counts
  feedmill queue counts --json | jq '.[].waiting'")]
    Counts(CountsArgs),
    /// Show one job: its state, attempts, last error and payload
    #[command(after_help = "Examples:
  feedmill queue show 'https://jobs.example/feed#12345'   an item: source#guid
  feedmill queue show jobboard --queue feed_fetch_queue   the fetch of a feed")]
    Show(ShowArgs),
    /// Stop handing out jobs; those that run go on
    #[command(after_help = "Example:
  feedmill queue pause --queue job_import_queue")]
    Pause(QueueArgs),
    /// Hand out jobs again
    #[command(after_help = "Example:
  feedmill queue resume --queue job_import_queue")]
    Resume(QueueArgs),
    // The others are described at their arguments.
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
    queue: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct ShowArgs {
    /// Id of the job
    id: String,
    /// Print the whole payload
    #[arg(long)]
    full: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    queue: QueueArgs,
}

pub(super) async fn run(globals: &Globals, command: QueueCommand) -> anyhow::Result<ExitCode> {
    let config = globals.load(None)?;
    let queues = Queues::open(&config).await?;
    match command {
        QueueCommand::Counts(args) => counts(&queues, &args).await?,
        QueueCommand::Show(args) => show(&chosen(&queues, &args.queue).await?, &args).await?,
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

async fn show(queue: &Queue, args: &ShowArgs) -> anyhow::Result<()> {
    let id = JobId::new(&args.id).map_err(|error| UsageError(error.to_string()))?;
    let found = queue.find(&id).await?;
    let found = found.with_context(|| {
        format!(
            "there is no job {id} in {}: it is done, was never added, or no worker has adopted it yet",
            queue.name()
        )
    })?;
    if args.json {
        return output::json(&job_json(&found));
    }
    let mut rows = vec![
        ("job", id.to_string()),
        ("queue", queue.name().to_owned()),
        ("state", found.state.name().to_owned()),
        ("enqueued", output::system_time(found.job.enqueued_at)),
        ("attempts", format!("{} failed", found.job.head.attempts)),
        ("stalls", found.job.head.stalls.to_string()),
    ];
    match &found.state {
        State::Delayed { due_at } => rows.push(("due", output::system_time(*due_at))),
        State::Failed { reason } => rows.push(("reason", reason.clone())),
        _ => {}
    }
    if let Some(failure) = &found.failure {
        rows.push(("first error", output::system_time(failure.first_at)));
        rows.push(("last error", format!("{}: {}", output::system_time(failure.last_at), failure.reason)));
    }
    if let Some(import) = found.job.head.import {
        rows.push(("import", import.to_string()));
    }
    for (name, value) in rows {
        output::line(&format!("{name:<12}{value}"))?;
    }
    let payload = serde_json::to_string_pretty(&payload_json(found.job.payload()))?;
    if args.full || payload.len() <= PREVIEW_BYTES {
        output::line(&format!("payload\n{payload}"))
    } else {
        let front = &payload[..payload.floor_char_boundary(PREVIEW_BYTES)];
        output::line(&format!("payload ({} bytes; --full shows all)\n{front}…", payload.len()))
    }
}

fn job_json(found: &Found) -> serde_json::Value {
    let seconds = |at: SystemTime| jiff::Timestamp::try_from(at).ok();
    let (due, reason) = match &found.state {
        State::Delayed { due_at } => (seconds(*due_at), None),
        State::Failed { reason } => (None, Some(reason)),
        _ => (None, None),
    };
    json!({
        "id": found.job.id.to_string(),
        "state": found.state.name(),
        "enqueuedAt": seconds(found.job.enqueued_at),
        "attempts": found.job.head.attempts,
        "stalls": found.job.head.stalls,
        "dueAt": due,
        "reason": reason,
        "lastError": found.failure.as_ref().map(|failure| &failure.reason),
        "import": found.job.head.import.map(|import| import.to_string()),
        "payload": payload_json(found.job.payload()),
    })
}

/// The payload as JSON: items are MessagePack, fetch tasks are JSON; anything else is shown as text.
pub(super) fn payload_json(payload: &[u8]) -> serde_json::Value {
    serde_json::from_slice(payload)
        .or_else(|_| rmp_serde::from_slice(payload).map_err(|_| ()))
        .unwrap_or_else(|()| String::from_utf8_lossy(payload).into_owned().into())
}
