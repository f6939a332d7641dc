//! `feedmill workers`: who works, and on what.

use std::process::ExitCode;

use clap::Args;
use jiff::Timestamp;

use super::output::{self, fitting, one_line, shortened};
use super::queue::{QueueArgs, chosen};
use super::{Globals, UsageError};
use crate::pipeline::Queues;
use crate::queue::Queue;
use crate::queue::consumers::ConsumerState;
use crate::views::worker_json;

/// Columns that the name of a worker may take in a table.
const NAME_COLUMNS: usize = 32;
/// Queues that are looked at when none is named.
const QUEUES_MAX: usize = 1000;

/// Say which workers there are, whether they live, and what they run
///
/// A worker is a consumer of one queue, so a process that works on two queues is two of them. One whose heartbeat stopped is
/// dead: its jobs wait until `lock_duration` is over, then somebody takes them over.
///
/// As JSON: [{queue, name, alive, host, pid, startedAt, heartbeatAt, held, pending, running}]; held are the jobs it said it
/// had at its last heartbeat, pending those that Redis knows of now, running the ids of up to 10 of them. What is not known is
/// null.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  feedmill workers
  feedmill workers --queue job_import_queue
  feedmill workers --json | jq -r '.[] | select(.alive) | .host'")]
pub(super) struct WorkersArgs {
    /// Only those of this queue [default: of every queue]
    #[arg(long, value_name = "NAME")]
    queue: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(globals: &Globals, args: WorkersArgs) -> anyhow::Result<ExitCode> {
    let queues = Queues::open(&globals.load(None)?).await?;
    let workers = if args.queue.is_some() {
        workers_of(&chosen(&queues, &QueueArgs { queue: args.queue.clone() }).await?).await?
    } else {
        let names = queues.import.redis().registered_queues().await?;
        if names.len() > QUEUES_MAX {
            return Err(UsageError(format!("there are {} queues; say which one with --queue", names.len())).into());
        }
        let mut workers = Vec::new();
        for name in names {
            if let Some(queue) = queues.named(&name).await? {
                workers.extend(workers_of(&queue).await?);
            }
        }
        workers
    };
    if args.json {
        output::json(&workers.iter().map(|(queue, worker)| worker_json(queue, worker)).collect::<Vec<_>>())?;
        return Ok(ExitCode::SUCCESS);
    }
    if workers.is_empty() {
        output::aside("there are no workers");
        return Ok(ExitCode::SUCCESS);
    }
    let header = ["worker", "", "started UTC", "jobs", "queue"];
    let rows = workers.iter().map(|(queue, worker)| {
        let about = worker.about.as_ref();
        let started = about.and_then(|about| Timestamp::try_from(about.started_at).ok());
        [
            shown_name(worker),
            if worker.is_alive { "alive" } else { "dead" }.to_owned(),
            started.map_or_else(|| "-".to_owned(), output::day_and_minute),
            worker.pending.to_string(),
            queue.clone(),
        ]
    });
    output::table(header, 5, fitting(header, rows.collect()))?;
    let busy: Vec<[String; 2]> = workers
        .iter()
        .filter(|(_, worker)| !worker.running.is_empty())
        .map(|(_, worker)| {
            let ids: Vec<String> = worker.running.iter().map(|id| one_line(&id.to_string())).collect();
            [shown_name(worker), ids.join(", ")]
        })
        .collect();
    if !busy.is_empty() {
        output::line("")?;
        let header = ["worker", "runs"];
        output::table(header, 2, fitting(header, busy))?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn workers_of(queue: &Queue) -> anyhow::Result<Vec<(String, ConsumerState)>> {
    let consumers = queue.consumers().await?;
    Ok(consumers.into_iter().map(|consumer| (queue.name().to_owned(), consumer)).collect())
}

fn shown_name(worker: &ConsumerState) -> String {
    shortened(&one_line(&worker.name), NAME_COLUMNS)
}
