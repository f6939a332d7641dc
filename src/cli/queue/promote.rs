//! `feedmill queue promote`: start delayed jobs now.

use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use super::walking::go_through;
use super::{QueueArgs, answers, input};
use crate::cli::{UsageError, output};
use crate::queue::Queue;

/// Put delayed jobs to waiting, due or not
///
/// Also those that wait for their next attempt.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  feedmill queue promote 'https://jobs.example/feed#12345'
  feedmill queue promote --all")]
pub(in crate::cli) struct PromoteArgs {
    /// Ids of jobs
    #[arg(value_name = "ID", conflicts_with = "all")]
    ids: Vec<String>,
    /// All delayed jobs
    #[arg(long)]
    all: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pub(super) queue: QueueArgs,
}

pub(super) async fn run(queue: &Queue, args: &PromoteArgs) -> anyhow::Result<ExitCode> {
    if !args.all {
        if args.ids.is_empty() {
            return Err(UsageError("which jobs? Name them, or say --all".to_owned()).into());
        }
        let ids = input::job_ids(&args.ids)?;
        let answers = queue.promote_now(&ids).await?;
        return answers::print(queue, &ids, &answers, ("promoted", "only delayed jobs can be promoted"), args.json);
    }
    let mut walk = queue.promote_all().await?;
    let walked = go_through("promoting", queue.counts().await?.delayed, async || walk.step().await).await?;
    if args.json {
        output::json(&json!({"promoted": walked.done, "interrupted": walked.interrupted}))?;
    } else {
        output::line(&format!("{} promoted", walked.done))?;
    }
    anyhow::ensure!(!walked.interrupted, "interrupted; the same command goes on");
    Ok(ExitCode::SUCCESS)
}
