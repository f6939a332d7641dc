//! `feedmill queue series`: how many jobs ended in each minute.

use std::process::ExitCode;

use clap::Args;
use jiff::Timestamp;
use serde_json::json;

use super::{QueueArgs, input};
use crate::cli::{UsageError, output};
use crate::queue::Queue;
use crate::queue::series::{SERIES_KEPT, SeriesOf};

/// Print how many jobs were done, and how many failed for good, in each minute
///
/// The oldest minute first; the last one is not over yet. Numbers are kept for 15 days.
///
/// As JSON: [{minute, completed, failed}].
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  feedmill queue series
  feedmill queue series --last 1d --json | jq 'map(.failed) | add'")]
pub(in crate::cli) struct SeriesArgs {
    /// So far back
    #[arg(long, value_name = "DURATION", default_value = "15m")]
    last: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pub(super) queue: QueueArgs,
}

pub(super) async fn run(queue: &Queue, args: &SeriesArgs) -> anyhow::Result<ExitCode> {
    let last = input::duration("--last", &args.last)?;
    if last > SERIES_KEPT {
        let told = format!("--last {:?}: numbers are kept for {}", args.last, humantime::format_duration(SERIES_KEPT));
        return Err(UsageError(told).into());
    }
    let to = queue.time().await?;
    let completed = queue.series(SeriesOf::Completed, to - last, to).await?;
    let failed = queue.series(SeriesOf::Failed, to - last, to).await?;
    let minutes = completed.iter().zip(&failed).filter_map(|(completed, failed)| {
        Some((Timestamp::try_from(completed.minute).ok()?, completed.count, failed.count))
    });
    if args.json {
        let minutes = minutes
            .map(|(minute, completed, failed)| json!({"minute": minute, "completed": completed, "failed": failed}));
        output::json(&minutes.collect::<Vec<_>>())?;
    } else {
        output::table(
            ["minute UTC", "completed", "failed"],
            1,
            minutes.map(|(minute, completed, failed)| {
                [output::day_and_minute(minute), completed.to_string(), failed.to_string()]
            }),
        )?;
    }
    Ok(ExitCode::SUCCESS)
}
