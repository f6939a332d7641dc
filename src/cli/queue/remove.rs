//! `feedmill queue remove` and `cancel`: end single jobs.

use std::process::ExitCode;

use clap::Args;

use super::{QueueArgs, answers, input};
use crate::import::forget_item;
use crate::queue::Queue;

/// Remove jobs for good, in any state but active
///
/// The feed of an item that was not stored forgets it, so that the next fetch brings it again.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  feedmill queue remove 'https://jobs.example/feed#12345'")]
pub(in crate::cli) struct RemoveArgs {
    /// Ids of jobs
    #[arg(value_name = "ID", required = true)]
    ids: Vec<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pub(super) queue: QueueArgs,
}

/// Give jobs up: they fail with the reason `cancelled`
///
/// A worker that has the job loses it at once; its handler is told within about a second, and stopped if it goes on.
/// `retry` brings a cancelled job back.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  feedmill queue cancel jobboard --queue feed_fetch_queue")]
pub(in crate::cli) struct CancelArgs {
    /// Ids of jobs
    #[arg(value_name = "ID", required = true)]
    ids: Vec<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pub(super) queue: QueueArgs,
}

pub(super) async fn remove(queue: &Queue, args: &RemoveArgs) -> anyhow::Result<ExitCode> {
    let ids = input::job_ids(&args.ids)?;
    let answers = queue.remove(&ids, forget_item).await?;
    let rule = "`feedmill queue cancel` ends it, then it can be removed";
    answers::print(queue, &ids, &answers, ("removed", rule), args.json)
}

pub(super) async fn cancel(queue: &Queue, args: &CancelArgs) -> anyhow::Result<ExitCode> {
    let ids = input::job_ids(&args.ids)?;
    let mut answers = Vec::with_capacity(ids.len());
    for id in &ids {
        answers.push(queue.cancel(id).await?);
    }
    answers::print(queue, &ids, &answers, ("cancelled", "it has ended"), args.json)
}
