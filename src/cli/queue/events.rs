//! `feedmill queue events`: what happens in a queue.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use jiff::Timestamp;
use serde_json::json;

use super::QueueArgs;
use crate::cli::output::{self, one_line};
use crate::job::EntryId;
use crate::queue::Queue;
use crate::queue::events::{After, Event};
use crate::queue::scripts::JOBS_PER_CALL_MAX;
use crate::shutdown;

/// How long one read waits while events are followed.
const BLOCK: Duration = Duration::from_secs(5);

/// Print what happened in a queue, or follow what happens
///
/// With BullMQ's names and fields. A queue tells what failed, stalled and was paused, unless `events` in its configuration
/// says otherwise. It keeps about the last ten thousand events.
///
/// As JSON, one object a line: {id, at, event, jobId, fields}; jobId is null for what happens to the queue, fields are the
/// others, each a text.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  feedmill queue events                           the newest 20
  feedmill queue events --follow --json | jq 'select(.event == \"failed\")'
  feedmill queue events --since 1795492693614-0   what came after that one")]
pub(in crate::cli) struct EventsArgs {
    /// Go on with what happens, until interrupted
    #[arg(long)]
    follow: bool,
    /// Begin behind the event with this id; 0-0 for all that are kept
    #[arg(long, value_name = "ID")]
    since: Option<EntryId>,
    /// The newest so many; with --since the first so many [default: 20; none with --follow, all with --since]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000), conflicts_with = "follow")]
    limit: Option<u32>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pub(super) queue: QueueArgs,
}

pub(super) async fn run(queue: &Queue, args: &EventsArgs) -> anyhow::Result<ExitCode> {
    if args.follow {
        follow(queue, args).await?;
    } else if let Some(since) = args.since {
        let mut left = args.limit.map_or(usize::MAX, |limit| limit as usize);
        let mut reader = queue.events(After::Event(since));
        loop {
            let events = reader.read(None).await?;
            if events.is_empty() || left == 0 || !print(events.iter().take(left), args.json)? {
                break;
            }
            left = left.saturating_sub(events.len());
        }
    } else {
        let wanted = args.limit.unwrap_or(20) as usize;
        let mut pages = vec![queue.newest_events(None, wanted).await?];
        let mut n = pages[0].len();
        while let Some(first) = pages.last().and_then(|page| page.first()).filter(|_| n < wanted) {
            pages.push(queue.newest_events(Some(first.id), (wanted - n).min(JOBS_PER_CALL_MAX)).await?);
            n += pages.last().map_or(0, Vec::len);
        }
        print(pages.iter().rev().flatten(), args.json)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints what happens until somebody interrupts, or nobody reads it any more.
async fn follow(queue: &Queue, args: &EventsArgs) -> anyhow::Result<()> {
    let interrupted = shutdown::on_signal().context("cannot handle signals")?;
    let mut reader = queue.events(args.since.map_or(After::Now, After::Event));
    loop {
        let Some(read) = interrupted.run_until_cancelled(reader.read(Some(BLOCK))).await else { return Ok(()) };
        let events = read.with_context(|| match reader.position() {
            After::Event(id) => format!("to go on, add --since {id}"),
            After::Now => "nothing was read yet".to_owned(),
        })?;
        if !print(&events, args.json)? {
            return Ok(());
        }
    }
}

/// Prints events; false when nobody reads them any more.
fn print<'a>(events: impl IntoIterator<Item = &'a Event>, json: bool) -> anyhow::Result<bool> {
    for event in events {
        let text = if json { event_json(event).to_string() } else { event_line(event) };
        if !output::goes_on(&text)? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn event_line(event: &Event) -> String {
    let at = output::system_time(event.id.at());
    let job = event.job.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string);
    let fields = event.fields.iter().map(|(name, value)| format!("  {name}={value}")).collect::<Vec<_>>().concat();
    one_line(&format!("{at}  {:<17}  {job}{fields}", event.name))
}

fn event_json(event: &Event) -> serde_json::Value {
    let fields: serde_json::Map<String, serde_json::Value> =
        event.fields.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
    json!({
        "id": event.id.to_string(),
        "at": Timestamp::try_from(event.id.at()).ok(),
        "event": event.name,
        "jobId": event.job.as_ref().map(ToString::to_string),
        "fields": fields,
    })
}
