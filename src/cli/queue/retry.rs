//! `feedmill queue retry` and `redrive`: bring back what has ended.

use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use super::walking::{go_through, quoted};
use super::{QueueArgs, answers, input};
use crate::cli::{UsageError, output};
use crate::job::EntryId;
use crate::queue::Queue;
use crate::queue::retry::DeadFilter;

/// Bring failed jobs back to waiting, at attempt 1
///
/// By their ids, by a part of their reason, or all. Named by their ids, completed jobs that were kept are brought back too.
/// A job that fails again meanwhile is not met again. Interrupted, it ends after the page at hand and says how to go on.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  feedmill queue retry 'https://jobs.example/feed#12345'
  feedmill queue retry --reason 'timed out'
  feedmill queue retry --all --queue feed_fetch_queue")]
pub(in crate::cli) struct RetryArgs {
    /// Ids of jobs
    #[arg(value_name = "ID", conflicts_with_all = ["all", "reason"])]
    ids: Vec<String>,
    /// All failed jobs
    #[arg(long)]
    all: bool,
    /// Failed jobs with this in their reason, in whatever case
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Go on behind this entry of the dead letters
    #[arg(long, value_name = "ENTRY", requires = "until", conflicts_with = "ids")]
    after: Option<String>,
    /// End at this one [default: the newest there is now]
    #[arg(long, value_name = "ENTRY", conflicts_with = "ids")]
    until: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pub(super) queue: QueueArgs,
}

/// Bring dead letters back to waiting, at attempt 1
///
/// All of them, unless some are named: `retry` with fewer words.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  feedmill queue redrive                                     all of them
  feedmill queue redrive 'https://jobs.example/feed#12345'   this one")]
pub(in crate::cli) struct RedriveArgs {
    /// Ids of dead jobs [default: all]
    #[arg(value_name = "ID")]
    ids: Vec<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pub(super) queue: QueueArgs,
}

impl From<RedriveArgs> for RetryArgs {
    fn from(args: RedriveArgs) -> Self {
        let RedriveArgs { ids, json, queue } = args;
        Self { all: ids.is_empty(), ids, reason: None, after: None, until: None, json, queue }
    }
}

/// `done` is the word for what was done.
pub(super) async fn run(queue: &Queue, args: &RetryArgs, done: &str) -> anyhow::Result<ExitCode> {
    if !args.ids.is_empty() {
        let ids = input::job_ids(&args.ids)?;
        let answers = queue.retry(&ids).await?;
        let words = (done, "only failed and completed jobs can be brought back");
        return answers::print(queue, &ids, &answers, words, args.json);
    }
    if !args.all && args.reason.is_none() {
        return Err(UsageError("which jobs? Name them, or say --all or --reason TEXT".to_owned()).into());
    }
    let position = match &args.until {
        Some(until) => {
            let after = args.after.as_deref().map(|after| entry("--after", after)).transpose()?;
            Some((after, entry("--until", until)?))
        }
        None => None,
    };
    let filter = DeadFilter { reason: args.reason.clone() };
    let mut walk = queue.retry_dead(filter, position).await?;
    let walked = go_through("retrying", queue.counts().await?.failed, async || walk.step().await).await?;
    let totals = walk.totals();
    let go_on = walk.position().filter(|_| walked.interrupted).map(|position| go_on(args, position));
    if args.json {
        output::json(&json!({
            done: totals.redriven,
            "lookedAt": walked.looked_at,
            "gone": totals.gone,
            "empty": totals.empty,
            "interrupted": walked.interrupted,
        }))?;
    } else {
        output::line(&format!("{} {done}", totals.redriven))?;
    }
    if totals.empty > 0 {
        output::note(&format!("{} have nothing left to work on and stay", totals.empty));
    }
    match go_on {
        None => Ok(ExitCode::SUCCESS),
        Some(command) => {
            anyhow::bail!("interrupted after {} dead letters; to go on: {command}", walked.looked_at)
        }
    }
}

fn entry(flag: &str, text: &str) -> Result<EntryId, UsageError> {
    text.parse().map_err(|_| UsageError(format!("{flag} {text:?} is no entry; write it like 1700000000000-0")))
}

/// The command that goes on where this one ended.
fn go_on(args: &RetryArgs, (after, until): (Option<EntryId>, EntryId)) -> String {
    let mut words = vec!["feedmill".to_owned(), "queue".to_owned(), "retry".to_owned()];
    let mut say = |flag: &str, value: Option<String>| {
        if let Some(value) = value {
            words.extend([flag.to_owned(), quoted(&value)]);
        }
    };
    say("--reason", args.reason.clone());
    say("--after", after.map(|after| after.to_string()));
    say("--until", Some(until.to_string()));
    say("--queue", args.queue.queue.clone());
    if args.reason.is_none() {
        words.insert(3, "--all".to_owned());
    }
    words.join(" ")
}
