//! `feedmill migrate`: takes over the jobs of another system.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use indicatif::ProgressBar;
use serde_json::json;

use super::{Globals, output};
use crate::config::Config;
use crate::migrate::{Found, Mapping, Migration, Report};
use crate::queue::{Events, Queue, Redis};

#[derive(Debug, Subcommand)]
pub(super) enum MigrateCommand {
    /// Move the jobs of a BullMQ queue (version 5 or 6) into one of ours
    ///
    /// Moves what waits, has a priority, is delayed or has failed, and what stands in QUEUE_dlq, with ids, attempts and
    /// delays. Finished jobs, job schedulers and flows stay. Stop the workers of BullMQ first. May be interrupted and run
    /// again at any time.
    #[command(after_help = "Examples:
  feedmill migrate bullmq --queue job_import_queue --dry-run   what would move
  feedmill migrate bullmq --queue orders --to orders_2 --json")]
    Bullmq(BullmqArgs),
}

#[derive(Debug, Args)]
pub(super) struct BullmqArgs {
    /// Name of the BullMQ queue
    #[arg(long, value_name = "NAME")]
    queue: String,
    /// Our queue [default: the same name]
    #[arg(long, value_name = "QUEUE")]
    to: Option<String>,
    /// Prefix of BullMQ's keys
    #[arg(long, value_name = "PREFIX", default_value = "bull")]
    prefix: String,
    /// Redis that BullMQ is on [default: the one we use]
    #[arg(long, value_name = "URL")]
    from: Option<String>,
    /// Say what would move, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(globals: &Globals, command: MigrateCommand) -> anyhow::Result<ExitCode> {
    let MigrateCommand::Bullmq(args) = command;
    let config = globals.load(None)?;
    let redis = Redis::connect(config.redis.url.expose(), &config.redis.prefix).await?;
    let source = match &args.from {
        Some(url) => Redis::connect(url, &args.prefix).await?,
        None => redis.clone(),
    };
    let target = Target::of(&config, args.to.as_deref().unwrap_or(&args.queue));
    let queue = Queue::unopened(&redis, target.name, target.events)?;
    let migration =
        Migration::find(&source, &args.prefix, &args.queue, queue, target.mapping, target.payload_max_bytes).await?;
    let found = migration.begin().await?;
    let bar = ProgressBar::new(found.movable());
    let report = if args.dry_run {
        migration.rehearse(|jobs| bar.inc(jobs)).await?
    } else {
        // Opening registers the queue, which a dry run must not.
        Queue::open(&redis, target.name, target.events).await?;
        migration.run(&found, |jobs| bar.inc(jobs)).await?
    };
    bar.finish_and_clear();
    print(&args, &target, &found, &report)?;
    Ok(if report.is_complete() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The queue that jobs are moved into, with its settings.
struct Target<'a> {
    name: &'a str,
    mapping: Mapping,
    events: Events,
    payload_max_bytes: usize,
}

impl<'a> Target<'a> {
    /// A queue that the configuration does not have gets the settings of the import queue.
    fn of(config: &Config, name: &'a str) -> Self {
        let (settings, mapping) = match name {
            name if name == config.import_queue.name => (&config.import_queue, Mapping::Items),
            name if name == config.fetch_queue.name => (&config.fetch_queue, Mapping::FetchTasks),
            _ => (&config.import_queue, Mapping::AsTheyAre),
        };
        let events = match settings.events {
            crate::config::Events::Off => Events::Off,
            crate::config::Events::Failures => Events::Failures,
        };
        Self { name, mapping, events, payload_max_bytes: settings.payload_max_bytes }
    }
}

fn print(args: &BullmqArgs, target: &Target<'_>, found: &Found, report: &Report) -> anyhow::Result<()> {
    let source = format!("{}:{}", args.prefix, args.queue);
    if args.json {
        return output::json(&json!({
            "from": source,
            "to": target.name,
            "dryRun": args.dry_run,
            "isPaused": found.queue.is_paused,
            "moved": report,
            "leftInBullmq": {
                "completed": found.queue.completed,
                "schedulers": found.queue.schedulers,
                "waitingChildren": found.queue.waiting_children,
            },
        }));
    }
    let header = if args.dry_run {
        ["state", "would move", "duplicates", "would stay"]
    } else {
        ["state", "moved", "duplicates", "stay"]
    };
    let rows = report.rows().map(|(state, tally)| {
        [state.to_owned(), tally.moved.to_string(), tally.duplicates.to_string(), tally.stay.to_string()]
    });
    output::table(header, 1, rows)?;
    for stays in &report.obstacles {
        output::note(&format!("job {} of {} stays: {}", stays.id, stays.queue, stays.reason));
    }
    let stay = report.rows().iter().map(|(_, tally)| tally.stay).sum::<u64>() - report.next_runs;
    let unsaid = stay - report.obstacles.len() as u64;
    if unsaid > 0 {
        output::note(&format!("and {unsaid} more jobs stay"));
    }
    if report.taken_meanwhile > 0 {
        output::note(&format!(
            "{} jobs were taken by a BullMQ worker while they were moved: they may be done twice",
            report.taken_meanwhile
        ));
    }
    if found.queue.is_paused && !args.dry_run && report.rows().iter().any(|(_, tally)| tally.moved > 0) {
        output::note(&format!("{source} is paused, and so is {} now", target.name));
    }
    let left: Vec<String> = [
        (found.queue.completed, "finished jobs"),
        (found.queue.schedulers, "job schedulers"),
        (found.queue.waiting_children, "parents of flows"),
    ]
    .into_iter()
    .filter(|(number, _)| *number > 0)
    .map(|(number, what)| format!("{number} {what}"))
    .collect();
    if !left.is_empty() {
        output::note(&format!("not moved, they stay in {source}: {}", left.join(", ")));
    }
    Ok(())
}
