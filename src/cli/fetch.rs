//! `feedmill fetch`: one pass over feeds, for cron and for people.

use std::collections::HashSet;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Globals, UsageError, import, output};
use crate::feed::Feed;
use crate::import::{
    ConfiguredFeeds, FetchTask, Scheduler, StartRequest, Started, find_import, import_json, start, start_due,
};
use crate::job::{ImportId, JobId};
use crate::pipeline::{Pipeline, Queues, all_feeds, feeds, open_store};
use crate::queue::Queue;
use crate::shutdown;
use crate::store::imports::{ImportRecord, ImportStatus};
use crate::worker::Ended;

/// Time between two looks at the imports that are waited for.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);
/// Time between two looks whether anybody works on them.
const WORKER_LOOK_INTERVAL: Duration = Duration::from_secs(5);

/// Feeds that are named to somebody who asked for one that there is not.
const NAMED_MAX: usize = 20;

/// Fetch feeds now
///
/// Adds a fetch job for each feed, which the workers carry out. A feed that is being fetched already is not fetched
/// twice: its running import is named instead.
#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
#[command(after_help = "Examples:
  feedmill fetch jobboard            one feed
  feedmill fetch --all --wait        all, with a progress bar and a summary
  */5 * * * * feedmill fetch --due   in a crontab: those whose schedule says so")]
pub(super) struct FetchArgs {
    /// Names of feeds
    #[arg(value_name = "FEED", conflicts_with_all = ["all", "due"])]
    feeds: Vec<String>,
    /// All feeds
    #[arg(long, conflicts_with = "due")]
    all: bool,
    /// Feeds with a slot that nobody fired yet, and those with a schedule that were never fetched
    #[arg(long)]
    due: bool,
    /// Import every item, whether it was seen before or not
    #[arg(long)]
    force: bool,
    /// Follow the imports to their end; works in this process if no worker is alive
    #[arg(long)]
    wait: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(globals: &Globals, args: FetchArgs) -> anyhow::Result<ExitCode> {
    let config = globals.load(None)?;
    let own = feeds(&config)?;
    if args.feeds.is_empty() && !args.all && !args.due {
        return Err(UsageError("which feeds? Name them, or say --all or --due".to_owned()).into());
    }
    // Without subscriptions MongoDB need not be asked.
    let is_of_the_file = !args.feeds.is_empty() && args.feeds.iter().all(|name| own.contains_key(name));
    let all = if is_of_the_file {
        ConfiguredFeeds::new(own)
    } else {
        all_feeds(&config, &open_store(&config).await?).await?
    };
    let configured = all.current();
    let mut wanted: Vec<Arc<Feed>> = Vec::new();
    if args.feeds.is_empty() {
        wanted.extend(configured.values().cloned());
    } else {
        let mut named = HashSet::new();
        for name in args.feeds.iter().filter(|name| named.insert(*name)) {
            wanted.push(configured.get(name).cloned().ok_or_else(|| unknown(name, configured.keys()))?);
        }
    }
    if wanted.is_empty() {
        let file = config.file.as_ref().map_or_else(|| "streams.toml".to_owned(), |file| file.display().to_string());
        return Err(UsageError(format!(
            "there is no feed to fetch; add a [[feed]] to {file}, or run `feedmill feeds add URL`"
        ))
        .into());
    }
    // With --wait a worker may have to run here; everything is connected before anything is started.
    let pipeline = if args.wait { Some(Pipeline::connect(&config).await?) } else { None };
    let queues = match &pipeline {
        Some(pipeline) => pipeline.queues.clone(),
        None => Queues::open(&config).await?,
    };
    let request = StartRequest { run: String::new(), asked: !args.due || args.wait, force: args.force };
    let started = if args.due {
        let Queues { import, fetch } = queues.clone();
        let scheduler = Scheduler { fetch_queue: fetch, import_queue: import, feeds: all };
        start_due(&queues.import, &scheduler, &request).await?
    } else {
        start(&queues.import, &queues.fetch, wanted.iter().map(|feed| &**feed), &request).await?
    };
    for started in started.iter().filter(|started| started.was_running) {
        output::note(&format!("{} is being fetched already", started.feed));
    }
    let Some(pipeline) = pipeline else {
        print_started(&started, args.json)?;
        if !started.is_empty() && !is_worked_on(&queues).await? {
            output::note("no worker is alive: the feeds are fetched once `feedmill worker` or `feedmill up` runs");
        }
        return Ok(ExitCode::SUCCESS);
    };

    let shutdown = shutdown::on_signal().context("cannot handle signals")?;
    let mut helper = Helper { pipeline: &pipeline, stop: CancellationToken::new(), worker: None, told_of_pause: false };
    let followed = shutdown.run_until_cancelled(follow(&mut helper, &started)).await;
    helper.stop.cancel();
    if let Some(worker) = helper.worker {
        worker.await?;
    }
    match followed {
        Some(records) => print_summary(&records?, args.json),
        None => anyhow::bail!("interrupted; the imports go on as soon as a worker runs"),
    }
}

/// A worker in this process, for as long as there is no other.
struct Helper<'a> {
    pipeline: &'a Pipeline,
    stop: CancellationToken,
    worker: Option<JoinHandle<Ended>>,
    told_of_pause: bool,
}

impl Helper<'_> {
    /// Starts working if nobody else does: there was no worker, or it died meanwhile.
    async fn work_if_needed(&mut self, bar: &ProgressBar) -> anyhow::Result<()> {
        if self.worker.is_none() && !is_worked_on(&self.pipeline.queues).await? {
            bar.suspend(|| output::note("no worker is alive: working in this process"));
            self.worker = Some(tokio::spawn(self.pipeline.clone().run(self.stop.clone())));
        }
        Ok(())
    }

    /// Says so, once, when a pause is what is waited for.
    async fn tell_of_pauses(&mut self, bar: &ProgressBar) -> anyhow::Result<()> {
        for queue in [&self.pipeline.queues.fetch, &self.pipeline.queues.import] {
            let name = queue.name();
            if !self.told_of_pause && queue.counts().await?.is_paused {
                self.told_of_pause = true;
                let note = format!("{name} is paused; `feedmill queue resume --queue {name}` ends that");
                bar.suspend(|| output::note(&note));
            }
        }
        Ok(())
    }
}

fn unknown<'a>(name: &str, known: impl Iterator<Item = &'a String>) -> UsageError {
    let mut known = known.map(String::as_str);
    let mut named: Vec<&str> = known.by_ref().take(NAMED_MAX).collect();
    let more = format!("{} more", known.count());
    if more != "0 more" {
        named.push(&more);
    }
    let known = if named.is_empty() { "there are none yet, add a [[feed]]".to_owned() } else { named.join(", ") };
    UsageError(format!("there is no feed {name:?} in the configuration; its feeds: {known}"))
}

/// Whether somebody works on both queues.
async fn is_worked_on(queues: &Queues) -> anyhow::Result<bool> {
    Ok(!queues.fetch.live_consumers().await?.is_empty() && !queues.import.live_consumers().await?.is_empty())
}

fn print_started(started: &[Started], json: bool) -> anyhow::Result<()> {
    if json {
        let rows: Vec<_> = started
            .iter()
            .map(
                |row| serde_json::json!({ "feed": row.feed, "id": row.import.to_string(), "running": row.was_running }),
            )
            .collect();
        return output::json(&rows);
    }
    if started.is_empty() {
        output::aside("nothing is due");
        return Ok(());
    }
    output::table(["feed", "import"], 2, started.iter().map(|row| [row.feed.clone(), row.import.to_string()]))
}

/// Whether the fetch of an import that was joined is still in its queue.
async fn is_to_begin(queue: &Queue, started: &Started) -> anyhow::Result<bool> {
    let found = queue.find(&JobId::new(&started.feed)?).await?;
    let task = found.and_then(|found| {
        let task: FetchTask = serde_json::from_slice(found.job.payload()).ok()?;
        Some(task.import(found.job.head.version))
    });
    Ok(task == Some(started.import))
}

/// Waits until all imports are through; returns their records in the order they were started.
async fn follow(helper: &mut Helper<'_>, started: &[Started]) -> anyhow::Result<Vec<ImportRecord>> {
    let (queue, store) = (helper.pipeline.queues.import.clone(), helper.pipeline.store.clone());
    let bar = ProgressBar::new(started.len() as u64);
    bar.set_style(
        ProgressStyle::with_template("{spinner} {bar:30} {pos}/{len} feeds  {msg}  {elapsed}")
            .expect("the template is right"),
    );
    bar.enable_steady_tick(LOOK_INTERVAL);
    let mut waiting: Vec<(usize, ImportId)> =
        started.iter().enumerate().map(|(at, started)| (at, started.import)).collect();
    let mut records: Vec<Option<ImportRecord>> = vec![None; started.len()];
    let mut lost = Vec::new();
    let mut look_for_workers_at = Instant::now();
    loop {
        if !waiting.is_empty() && Instant::now() >= look_for_workers_at {
            helper.work_if_needed(&bar).await?;
            helper.tell_of_pauses(&bar).await?;
            look_for_workers_at = Instant::now() + WORKER_LOOK_INTERVAL;
        }
        let mut still = Vec::with_capacity(waiting.len());
        for (at, id) in waiting {
            let record = find_import(&queue, &store, id).await?;
            match &record {
                Some(record) if record.finished_at.is_none() => still.push((at, id)),
                Some(_) => {}
                // An import leaves Redis after its record is written. Only one that the schedule had started, and that
                // we joined, ends without a record: when there was nothing to do.
                // One that a plain producer asked for is opened when its fetch begins.
                None if started[at].was_running && is_to_begin(&helper.pipeline.queues.fetch, &started[at]).await? => {
                    still.push((at, id));
                }
                None if started[at].was_running => {
                    bar.suspend(|| output::note(&format!("{} has nothing new", started[at].feed)));
                }
                None => lost.push((&started[at].feed, id)),
            }
            records[at] = record;
        }
        let stored: u64 = records.iter().flatten().map(|r| r.inserted + r.updated + r.stale + r.superseded).sum();
        let accepted: u64 = records.iter().flatten().map(|r| r.new + r.changed).sum();
        bar.set_position((started.len() - still.len()) as u64);
        bar.set_message(format!("{stored} of {accepted} items stored"));
        waiting = still;
        if waiting.is_empty() {
            break;
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
    bar.finish_and_clear();
    if let Some((feed, id)) = lost.first() {
        anyhow::bail!("import {id} of feed {feed} is gone: Redis has lost it, as in a crash; fetch the feed again");
    }
    Ok(records.into_iter().flatten().collect())
}

fn print_summary(records: &[ImportRecord], json: bool) -> anyhow::Result<ExitCode> {
    let took = |record: &ImportRecord| {
        let finished = record.finished_at.unwrap_or(record.started_at);
        Duration::try_from(finished.duration_since(record.started_at)).unwrap_or_default()
    };
    if json {
        output::json(&records.iter().map(import_json).collect::<Vec<_>>())?;
    } else if records.is_empty() {
        output::aside("there was nothing to do");
    } else {
        let header = ["feed", "status", "items", "new", "changed", "unchanged", "failed", "items/s"];
        output::table(
            header,
            2,
            records.iter().map(|record| {
                [
                    record.feed.clone(),
                    import::status(record).to_owned(),
                    record.items.to_string(),
                    record.new.to_string(),
                    record.changed.to_string(),
                    record.unchanged.to_string(),
                    record.failed.to_string(),
                    output::per_second(record.items, took(record)),
                ]
            }),
        )?;
    }
    let mut status = ExitCode::SUCCESS;
    for record in records {
        if record.duplicate > 0 {
            let (feed, duplicate) = (&record.feed, record.duplicate);
            output::note(&format!("{feed}: {duplicate} duplicate: in the feed twice, or waiting in the queue already"));
        }
        if record.status == ImportStatus::Failed || record.failed > 0 {
            status = ExitCode::FAILURE;
            let reason = record.error.clone().unwrap_or_else(|| {
                format!("{} items failed; `feedmill import show {}` lists them", record.failed, record.id)
            });
            output::error_line(&format!("{}: {reason}", record.feed));
        }
    }
    Ok(status)
}
