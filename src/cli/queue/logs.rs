//! `feedmill queue logs`: what was said of a job while it was worked on.

use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use super::{QueueArgs, input, there_is_no_job};
use crate::cli::output::{self, one_line};
use crate::queue::Queue;
use crate::queue::progress::LogLine;

/// Print the log of a job, oldest line first
///
/// Its handlers write it. It is there for a week after the last line, and as long as the job is kept.
///
/// As JSON: {id, progress, result, lines: [{number, text}], linesBefore}; progress and result as their handlers wrote them,
/// null when there are none; linesBefore is how many lines there were before these.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  feedmill queue logs resize-17
  feedmill queue logs resize-17 --limit 3 --queue thumbnails")]
pub(in crate::cli) struct LogsArgs {
    /// Id of the job
    id: String,
    /// The newest so many lines
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    limit: u32,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pub(super) queue: QueueArgs,
}

pub(super) async fn run(queue: &Queue, args: &LogsArgs) -> anyhow::Result<ExitCode> {
    let id = input::job_id(&args.id)?;
    let (mut pages, mut left, mut before) = (Vec::new(), args.limit as usize, None);
    while left > 0 {
        let page = queue.log_lines(&id, before, left).await?;
        let Some(first) = page.first() else { break };
        before = Some(first.number);
        left = left.saturating_sub(page.len());
        pages.push(page);
    }
    let lines: Vec<LogLine> = pages.into_iter().rev().flatten().collect();
    let found = queue.find(&id).await?;
    if lines.is_empty() && found.is_none() {
        return Err(there_is_no_job(queue, &id));
    }
    if args.json {
        // JSON by the rules of `set_progress`; a result is what a handler said it is.
        let value = |text: Option<String>| {
            text.map(|text| serde_json::from_str(&text).unwrap_or(serde_json::Value::String(text)))
        };
        let log = found.map(|found| found.log).unwrap_or_default();
        output::json(&json!({
            "id": id.to_string(),
            "progress": value(log.progress),
            "result": value(log.result),
            "lines": lines.iter().map(|line| json!({"number": line.number, "text": line.text})).collect::<Vec<_>>(),
            "linesBefore": lines.first().map_or(0, |line| line.number - 1),
        }))?;
        return Ok(ExitCode::SUCCESS);
    }
    if lines.is_empty() {
        output::aside(&format!("job {id} has no log"));
    }
    for line in &lines {
        output::line(&one_line(&line.text))?;
    }
    Ok(ExitCode::SUCCESS)
}
