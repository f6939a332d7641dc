//! `feedmill queue update`, `delay` and `priority`: change a job where it stands.

use std::process::ExitCode;

use clap::Args;

use super::{QueueArgs, answers, input};
use crate::cli::UsageError;
use crate::config::Config;
use crate::job::JobId;
use crate::pipeline::Queues;
use crate::queue::Queue;
use crate::queue::operated::Operated;

/// Replace the payload of a job
///
/// Everything else of it stays. A worker that has the job works on with what it has; a retry has the new payload.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  feedmill queue update mail-7 --payload '{\"to\": \"ann\"}' --queue mails
  feedmill queue update 'x#1' --payload @item.json")]
pub(in crate::cli) struct UpdateArgs {
    /// Id of the job
    id: String,
    /// The payload, as JSON; @FILE reads a file, - reads stdin
    #[arg(long, value_name = "JSON")]
    payload: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pub(super) queue: QueueArgs,
}

/// Make a delayed job due after another wait
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  feedmill queue delay mail-7 10m --queue mails   in ten minutes from now
  feedmill queue delay mail-7 0s --queue mails    now")]
pub(in crate::cli) struct DelayArgs {
    /// Id of the job
    id: String,
    /// Wait from now, such as "30s" or "2h"
    #[arg(value_name = "DURATION", allow_hyphen_values = true)]
    delay: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pub(super) queue: QueueArgs,
}

/// Give a job another priority, or none
///
/// A job that waits moves to its place in the order; of any other it holds from the next time that it waits.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  feedmill queue priority mail-7 1 --queue mails   before all others
  feedmill queue priority mail-7 0 --queue mails   no priority")]
pub(in crate::cli) struct PriorityArgs {
    /// Id of the job
    id: String,
    /// 1 is the first, 2097151 the last; 0 is none
    #[arg(value_name = "N")]
    priority: u32,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pub(super) queue: QueueArgs,
}

pub(super) async fn update(
    config: &Config,
    queues: &Queues,
    queue: &Queue,
    args: &UpdateArgs,
) -> anyhow::Result<ExitCode> {
    let id = input::job_id(&args.id)?;
    let payload = queues.payload_for(queue, input::read_payload(&args.payload)?);
    let payload = payload.map_err(|reason| UsageError(format!("--payload: {reason}")))?;
    if let Some(other) = payload.id.filter(|other| *other != id) {
        return Err(UsageError(format!("--payload is that of job {other}; job {id} cannot have it")).into());
    }
    let answer = queue.update_payload(&id, &payload.bytes, input::payload_max_bytes(config, queue)).await?;
    let rule = "the payload of a job that is completed or damaged stays";
    print(queue, id, answer, ("updated", rule), args.json)
}

pub(super) async fn delay(queue: &Queue, args: &DelayArgs) -> anyhow::Result<ExitCode> {
    let id = input::job_id(&args.id)?;
    let answer = queue.change_delay(&id, input::duration("the wait", &args.delay)?).await?;
    print(queue, id, answer, ("changed", "only delayed jobs have a wait"), args.json)
}

pub(super) async fn priority(queue: &Queue, args: &PriorityArgs) -> anyhow::Result<ExitCode> {
    let id = input::job_id(&args.id)?;
    let answer = queue.change_priority(&id, args.priority).await?;
    print(queue, id, answer, ("changed", "it stands nowhere"), args.json)
}

fn print(queue: &Queue, id: JobId, answer: Operated, words: (&str, &str), json: bool) -> anyhow::Result<ExitCode> {
    answers::print(queue, &[id], &[answer], words, json)
}
