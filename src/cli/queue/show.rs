//! `feedmill queue show`: everything about one job.

use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use super::{QueueArgs, input, there_is_no_job};
use crate::cli::output::{self, one_line};
use crate::job::Place;
use crate::queue::Queue;
use crate::queue::find::{Found, State};
use crate::views::{found_json, group, payload_json};

/// Bytes of a payload that are shown unless all of it is asked for.
const PREVIEW_BYTES: usize = 4096;

/// Show one job: its state, attempts, errors, log and payload
///
/// As JSON: {id, state, parked, name, feed, group, priority, enqueuedAt, attempts, stalls, dueAt, finishedAt, reason,
/// lastError, errors: {attempt: error}, consumer, idleMs, import, options, progress, result, log, linesBefore, payload}. What
/// does not apply is null; log is the newest lines.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  feedmill queue show 'https://jobs.example/feed#12345'   an item: source#guid
  feedmill queue show jobboard --queue feed_fetch_queue   the fetch of a feed")]
pub(in crate::cli) struct ShowArgs {
    /// Id of the job
    id: String,
    /// Print the whole payload
    #[arg(long)]
    full: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pub(super) queue: QueueArgs,
}

pub(super) async fn run(queue: &Queue, args: &ShowArgs) -> anyhow::Result<ExitCode> {
    let id = input::job_id(&args.id)?;
    let found = queue.find(&id).await?.ok_or_else(|| there_is_no_job(queue, &id))?;
    if args.json {
        output::json(&found_json(&found))?;
        return Ok(ExitCode::SUCCESS);
    }
    for (name, value) in rows(queue, &found) {
        output::line(&format!("{name:<12}{}", one_line(&value)))?;
    }
    let payload = serde_json::to_string_pretty(&payload_json(found.job.payload()))?;
    if args.full || payload.len() <= PREVIEW_BYTES {
        output::line(&format!("payload\n{payload}"))?;
    } else {
        let front = &payload[..payload.floor_char_boundary(PREVIEW_BYTES)];
        output::line(&format!("payload ({} bytes; --full shows all)\n{front}…", payload.len()))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// What is there to say of a job, as name and value; nothing of what it does not have.
fn rows(queue: &Queue, found: &Found) -> Vec<(&'static str, String)> {
    let Found { job, state, failure, holder, log } = found;
    let is_parked = job.head.place == Place::Parked;
    let mut rows = vec![
        ("job", job.id.to_string()),
        ("queue", queue.name().to_owned()),
        ("state", if is_parked { format!("{} (parked)", state.name()) } else { state.name().to_owned() }),
    ];
    let mut say = |name, value: Option<String>| rows.extend(value.map(|value| (name, value)));
    say("name", job.name.clone());
    say("feed", job.feed.clone());
    say("group", group(&job.head.group));
    say("priority", Some(job.head.priority).filter(|priority| *priority > 0).map(|priority| priority.to_string()));
    say("enqueued", Some(output::system_time(job.enqueued_at)));
    say("attempts", Some(format!("{} failed", job.head.attempts)));
    say("stalls", Some(job.head.stalls.to_string()));
    match state {
        State::Delayed { due_at } => say("due", Some(output::system_time(*due_at))),
        State::Completed { finished_at } => say("finished", Some(output::system_time(*finished_at))),
        State::Failed { reason } => say("reason", Some(reason.clone())),
        State::Waiting | State::Prioritized | State::Active | State::Unknown => {}
    }
    if let Some(holder) = holder {
        say("consumer", Some(format!("{}, idle for {}", holder.consumer, output::span(holder.idle))));
    }
    for (attempt, error) in &log.errors {
        say("error", Some(format!("of attempt {attempt}: {error}")));
    }
    if let Some(failure) = failure {
        say("first error", Some(output::system_time(failure.first_at)));
        say("last error", Some(format!("{}: {}", output::system_time(failure.last_at), failure.reason)));
    }
    say("import", job.head.import.map(|import| import.to_string()));
    say("options", job.options.as_ref().map(|options| json!(options).to_string()));
    say("progress", log.progress.clone());
    say("result", log.result.clone());
    say("log", (log.lines_before > 0).then(|| format!("({} lines before; `feedmill queue logs`)", log.lines_before)));
    for line in &log.lines {
        say("log", Some(line.clone()));
    }
    rows
}
