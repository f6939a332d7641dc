//! `feedmill queue clean`, `drain` and `obliterate`: remove many jobs, or the queue itself.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde_json::json;

use super::walking::{Walked, go_through};
use super::{QueueArgs, input};
use crate::cli::{UsageError, output};
use crate::import::forget_item;
use crate::queue::counts::Counts;
use crate::queue::operated::StateName;
use crate::queue::{Queue, QueueError};

/// States whose jobs can be cleaned.
const CLEANABLE: [StateName; 5] =
    [StateName::Completed, StateName::Failed, StateName::Waiting, StateName::Delayed, StateName::Prioritized];

/// Remove the old jobs of one state
///
/// Completed and failed jobs by the time since they ended, others by the time since they were added. Without --grace and
/// --limit it is all of them, which must be confirmed.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  feedmill queue clean failed --grace 7d
  feedmill queue clean completed --grace 1h --limit 10000")]
pub(in crate::cli) struct CleanArgs {
    /// completed, failed, waiting, delayed or prioritized
    state: String,
    /// Only those older than this
    #[arg(long, value_name = "DURATION", allow_hyphen_values = true)]
    grace: Option<String>,
    /// At most so many; 0 for all
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    limit: usize,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pub(super) queue: QueueArgs,
}

/// Remove every job that waits
///
/// Waiting and prioritized jobs; not those that a worker has, nor those that have ended. Feeds forget what was not stored,
/// so that the next fetch brings it again.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  feedmill queue drain
  feedmill queue drain --delayed --yes")]
pub(in crate::cli) struct DrainArgs {
    /// Delayed jobs too
    #[arg(long)]
    delayed: bool,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pub(super) queue: QueueArgs,
}

/// Delete a queue with everything in it
///
/// Every job in whatever state, counters, events, schedulers, and what is remembered of feeds. The queue must be paused.
/// Producers and workers should have ended: one that runs opens the queue anew.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  feedmill queue pause --queue mails
  feedmill queue obliterate --queue mails")]
pub(in crate::cli) struct ObliterateArgs {
    /// Active jobs too; their workers lose them
    #[arg(long)]
    force: bool,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pub(super) queue: QueueArgs,
}

pub(super) async fn clean(queue: &Queue, args: &CleanArgs) -> anyhow::Result<ExitCode> {
    let state = CLEANABLE.into_iter().find(|state| state.name() == args.state).ok_or_else(|| {
        let names = CLEANABLE.map(StateName::name).join(", ");
        UsageError(format!("no jobs in state {:?} can be cleaned; accepted: {names}", args.state))
    })?;
    let grace = args.grace.as_deref().map(|grace| input::duration("--grace", grace)).transpose()?;
    let grace = grace.unwrap_or(Duration::ZERO);
    let total = in_state(&queue.counts().await?, state);
    if grace.is_zero() && args.limit == 0 {
        let what = format!("removes all {total} {} jobs of {}", state.name(), queue.name());
        input::confirm(queue, args.yes, &what)?;
    }
    let limit = (args.limit > 0).then_some(args.limit);
    let mut walk = queue.clean(state, grace, limit, forget_item).await?;
    let walked = go_through("cleaning", total, async || walk.step().await).await?;
    print(walked, args.json)
}

pub(super) async fn drain(queue: &Queue, args: &DrainArgs) -> anyhow::Result<ExitCode> {
    let counts = queue.counts().await?;
    let total = counts.waiting + counts.prioritized + if args.delayed { counts.delayed } else { 0 };
    input::confirm(queue, args.yes, &format!("removes the {total} jobs that wait in {}", queue.name()))?;
    let mut walk = queue.drain(args.delayed, forget_item);
    print(go_through("draining", total, async || walk.step().await).await?, args.json)
}

pub(super) async fn obliterate(queue: &Queue, args: &ObliterateArgs) -> anyhow::Result<ExitCode> {
    let counts = queue.counts().await?;
    let name = queue.name().to_owned();
    // Nobody is asked for what will be refused.
    if !counts.is_paused {
        return Err(QueueError::NotPaused { queue: name }.into());
    }
    if counts.active > 0 && !args.force {
        return Err(QueueError::HasActive { queue: name, jobs: counts.active as usize }.into());
    }
    let total = counts.by_state().into_iter().map(|(_, jobs)| jobs).sum();
    input::confirm(queue, args.yes, &format!("deletes {name} with all its {total} jobs, and all that is known of it"))?;
    let mut walk = queue.obliterate(args.force);
    let walked = go_through("deleting", total, async || walk.step().await).await?;
    if args.json {
        output::json(&json!({"keys": walked.done, "interrupted": walked.interrupted}))?;
    } else if !walked.interrupted {
        output::line(&format!("{name} is gone"))?;
    }
    ended(walked)
}

fn in_state(counts: &Counts, state: StateName) -> u64 {
    counts.by_state().into_iter().find(|(name, _)| *name == state.name()).map_or(0, |(_, jobs)| jobs)
}

fn print(walked: Walked, json: bool) -> anyhow::Result<ExitCode> {
    if json {
        output::json(&json!({"removed": walked.done, "interrupted": walked.interrupted}))?;
    } else {
        output::line(&format!("{} removed", walked.done))?;
    }
    ended(walked)
}

fn ended(walked: Walked) -> anyhow::Result<ExitCode> {
    anyhow::ensure!(!walked.interrupted, "interrupted; the same command goes on");
    Ok(ExitCode::SUCCESS)
}
