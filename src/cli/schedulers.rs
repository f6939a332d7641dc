//! `feedmill schedulers`: jobs that are added again and again.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, Subcommand, ValueEnum};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::output::shortened;
use super::queue::input::{duration, read_payload};
use super::queue::{QueueArgs, chosen};
use super::{Globals, UsageError, output};
use crate::config::{Config, FeedConfig};
use crate::error::chain;
use crate::import::Payload;
use crate::job::{Envelope, JobOptions};
use crate::pipeline::Queues;
use crate::queue::schedulers::{Scheduler, SchedulerCursor, Stored, StoredTemplate, Template, Upsert};
use crate::queue::{Order, Queue};
use crate::schedule::{CatchUp, Definition, Repeat};
use crate::store::look::FeedsWanted;
use crate::store::{Store, StoreError};
use crate::views::{payload_json, scheduler_json, slot_at};

/// How much of an id a table shows.
const ID_SHOWN_CHARS: usize = 20;
/// Subscriptions that MongoDB is asked for at once.
const NAMES_PER_QUERY: usize = 1000;
/// How much of a schedule a table shows.
const REPEAT_SHOWN_CHARS: usize = 30;

#[derive(Debug, Subcommand)]
pub(super) enum SchedulersCommand {
    /// List schedulers, the next to be due first
    #[command(after_help = "Examples:
  feedmill schedulers list
  feedmill schedulers list --queue feed_fetch_queue    those of the feeds too
  feedmill schedulers list --json | jq '.schedulers[].id'")]
    List(ListArgs),
    /// Show one scheduler: when it is due, and what its jobs are
    #[command(after_help = "Example:
  feedmill schedulers show weekly --queue feed_fetch_queue")]
    Show(ShowArgs),
    /// Make a scheduler, or put another one in its place
    ///
    /// Its jobs are added at each slot, once, by whichever process comes first: any worker of the queue, or `feedmill
    /// schedule`; on the fetch queue `feedmill up` or `feedmill schedule`. With the same schedule it keeps its slot and
    /// its count of jobs.
    #[command(after_help = "Examples:
  feedmill schedulers upsert weekly --queue feed_fetch_queue \\
      --cron '0 4 * * SUN' --timezone Europe/Berlin \\
      --payload '{\"feed\": \"jobs\", \"force\": true}'
  feedmill schedulers upsert often --queue feed_fetch_queue --every 90s \\
      --limit 20 --immediately --payload '{\"feed\": \"jobs\"}'")]
    Upsert(Box<UpsertArgs>),
    /// Remove schedulers; jobs that they added stay
    #[command(after_help = "Example:
  feedmill schedulers remove weekly --queue feed_fetch_queue")]
    Remove(RemoveArgs),
}

#[derive(Debug, Args)]
pub(super) struct ListArgs {
    /// At most so many
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    limit: u32,
    /// Go on behind this cursor, which the page before ended with
    #[arg(long, value_name = "CURSOR")]
    after: Option<String>,
    /// The last to be due first
    #[arg(long)]
    desc: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    queue: QueueArgs,
}

#[derive(Debug, Args)]
pub(super) struct ShowArgs {
    /// Id of the scheduler
    id: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    queue: QueueArgs,
}

#[derive(Debug, Args)]
pub(super) struct RemoveArgs {
    /// Ids of schedulers
    #[arg(value_name = "ID", required = true)]
    ids: Vec<String>,
    #[command(flatten)]
    queue: QueueArgs,
}

#[derive(Debug, Args)]
pub(super) struct UpsertArgs {
    /// Its id
    id: String,
    /// Slots by a cron pattern of five fields, or six with seconds in front
    #[arg(long, value_name = "PATTERN")]
    cron: Option<String>,
    /// Time zone of the pattern [default: UTC]
    #[arg(long, value_name = "NAME")]
    timezone: Option<String>,
    /// Slots at each multiple of this since 1970, such as "15m"
    #[arg(long, value_name = "DURATION")]
    every: Option<String>,
    /// So much later than the multiple
    #[arg(long, value_name = "DURATION")]
    offset: Option<String>,
    /// No slot before this time
    #[arg(long, value_name = "TIME")]
    start: Option<String>,
    /// No slot after this time
    #[arg(long, value_name = "TIME")]
    end: Option<String>,
    /// End after so many jobs
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
    /// A slot at once too, when it is made
    #[arg(long)]
    immediately: bool,
    /// What becomes of slots at which nobody was there: skip, one job for all of them, or all
    #[arg(long, value_enum, default_value_t, value_name = "POLICY", hide_possible_values = true)]
    catch_up: CatchUpArg,
    /// Add nothing while the job of an earlier slot lives
    #[arg(long)]
    no_overlap: bool,
    /// Name of its jobs
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// What its jobs work on, as JSON; - reads stdin
    #[arg(long, value_name = "JSON", required = true)]
    payload: String,
    /// Priority of its jobs, 1 is the first; 0 for none
    #[arg(long, value_name = "N", default_value_t = 0)]
    priority: u32,
    /// How often each job is tried [default: as its queue has it]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..))]
    attempts: Option<u8>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    queue: QueueArgs,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum CatchUpArg {
    Skip,
    #[default]
    One,
    All,
}

pub(super) async fn run(globals: &Globals, command: SchedulersCommand) -> anyhow::Result<ExitCode> {
    let config = globals.load(None)?;
    match command {
        SchedulersCommand::List(args) => list(&config, &args).await?,
        SchedulersCommand::Show(args) => show(&config, &args).await?,
        SchedulersCommand::Upsert(args) => upsert(&config, &args).await?,
        SchedulersCommand::Remove(args) => remove(&config, &args).await?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn list(config: &Config, args: &ListArgs) -> anyhow::Result<()> {
    let after: Option<SchedulerCursor> = args.after.as_deref().map(str::parse).transpose().map_err(usage)?;
    let queue = chosen(&Queues::open(config).await?, &args.queue).await?;
    let order = if args.desc { Order::Descending } else { Order::Ascending };
    let (mut listed, mut after, mut total) = (Vec::new(), after, 0);
    loop {
        let page = queue.list_schedulers(after.as_ref(), order, args.limit as usize - listed.len()).await?;
        listed.extend(page.schedulers);
        (after, total) = (page.next, total.max(page.total));
        if after.is_none() || listed.len() >= args.limit as usize {
            break;
        }
    }
    let feeds = Feeds::of(config, &queue, &listed).await;
    if args.json {
        let schedulers: Vec<Value> = listed.iter().map(|scheduler| feeds.json(scheduler)).collect();
        return output::json(&json!({
            "total": total,
            "schedulers": schedulers,
            "next": after.map(|after| after.to_string()),
        }));
    }
    if listed.is_empty() {
        output::aside(&format!("{} has no schedulers", queue.name()));
        return Ok(());
    }
    output::table(
        ["scheduler", "schedule", "next UTC", "jobs"],
        3,
        listed.iter().map(|scheduler| {
            [
                shortened(&scheduler.id, ID_SHOWN_CHARS),
                shortened(&what(scheduler, &feeds), REPEAT_SHOWN_CHARS),
                time(scheduler.next_slot_ms).trim_end_matches('Z').replace('T', " "),
                scheduler.stored.as_ref().map_or_else(|| "-".to_owned(), |stored| stored.fired.to_string()),
            ]
        }),
    )?;
    if let Some(after) = after {
        output::note(&format!("{} of {total}; --after '{after}' goes on", listed.len()));
    }
    Ok(())
}

async fn show(config: &Config, args: &ShowArgs) -> anyhow::Result<()> {
    let queue = chosen(&Queues::open(config).await?, &args.queue).await?;
    let (scheduler, template) = queue.scheduler(&args.id).await?.with_context(|| there_is_none(&args.id, &queue))?;
    let feeds = Feeds::of(config, &queue, std::slice::from_ref(&scheduler)).await;
    let envelope = template.as_ref().and_then(|template| template.envelope().ok());
    let group = template.as_ref().and_then(StoredTemplate::group);
    let priority = template.as_ref().map_or(0, StoredTemplate::priority);
    if args.json {
        let mut value = feeds.json(&scheduler);
        if let Some(envelope) = &envelope {
            value["job"] = json!({
                "name": envelope.name,
                "priority": priority,
                "group": group,
                "attempts": options(envelope).attempts,
                "payload": payload_json(envelope.payload),
            });
        }
        return output::json(&value);
    }
    let mut rows = vec![
        ("scheduler", scheduler.id.clone()),
        ("queue", queue.name().to_owned()),
        ("schedule", what(&scheduler, &feeds)),
        ("next", time(scheduler.next_slot_ms)),
    ];
    if let Some(stored) = &scheduler.stored {
        if let Ok(definition) = &stored.definition {
            let bounds = [("start", definition.start), ("end", definition.end)];
            rows.extend(bounds.into_iter().filter_map(|(name, at)| Some((name, output::time(Some(at?))))));
            rows.push(("catch-up", definition.catch_up.word().to_owned()));
            rows.push(("overlap", if definition.no_overlap { "no" } else { "yes" }.to_owned()));
        }
        let limit = stored.definition.as_ref().ok().and_then(|definition| definition.limit);
        let of = limit.map_or_else(String::new, |limit| format!(" of {limit}"));
        rows.push(("jobs", format!("{}{of}", stored.fired)));
        rows.push(("last slot", time(stored.last_slot_ms)));
        rows.push(("created", time(Some(stored.created_ms))));
        rows.push(("updated", time(Some(stored.updated_ms))));
    }
    if let Some(envelope) = &envelope {
        rows.extend(envelope.name.map(|name| ("job name", name.to_owned())));
        rows.extend(group.map(|group| ("group", group)));
        rows.extend((priority > 0).then(|| ("priority", priority.to_string())));
        rows.extend(options(envelope).attempts.map(|attempts| ("attempts", attempts.to_string())));
    }
    for (name, value) in rows {
        output::line(&format!("{name:<12}{value}"))?;
    }
    match envelope {
        Some(envelope) => {
            output::line(&format!("payload\n{}", serde_json::to_string_pretty(&payload_json(envelope.payload))?))
        }
        None => Ok(()),
    }
}

async fn upsert(config: &Config, args: &UpsertArgs) -> anyhow::Result<()> {
    // What is wrong is said before anything is connected.
    let definition = definition(args)?;
    definition.check().map_err(usage)?;
    let json = read_payload(&args.payload)?;
    let queues = Queues::open(config).await?;
    let queue = chosen(&queues, &args.queue).await?;
    let is_fetch = queue.name() == queues.fetch.name();
    let payload = queues.payload_for(&queue, json);
    let Payload { bytes, fingerprint, .. } = payload.map_err(|reason| UsageError(format!("--payload: {reason}")))?;
    // A feed's name is taken even before its schedule has a slot.
    let of_feed = Scheduler { id: args.id.clone(), next_slot_ms: None, stored: None };
    if Feeds::of(config, &queue, std::slice::from_ref(&of_feed)).await.owner(&of_feed).is_some() {
        return Err(
            UsageError(format!("{:?} is the schedule of a feed; give the scheduler another id", args.id)).into()
        );
    }
    let options = JobOptions { attempts: args.attempts, ..JobOptions::default() }.encode();
    let template = Template {
        envelope: Envelope {
            payload: &bytes,
            fingerprint,
            name: args.name.as_deref(),
            options: Some(&options),
            ..Envelope::default()
        },
        priority: args.priority,
        group: None,
    };
    let queue_config = if is_fetch { &config.fetch_queue } else { &config.import_queue };
    let (upsert, next_ms) =
        queue.upsert_scheduler(&args.id, &definition, template, queue_config.payload_max_bytes).await?;
    let done = match upsert {
        Upsert::Created => "created",
        Upsert::Changed => "changed",
        Upsert::Unchanged => "unchanged",
    };
    if args.json {
        return output::json(&json!({"id": args.id, "result": done, "next": slot_at(Some(next_ms))}));
    }
    output::line(&format!("{} {done}, next {}", args.id, time(Some(next_ms))))
}

async fn remove(config: &Config, args: &RemoveArgs) -> anyhow::Result<()> {
    let queue = chosen(&Queues::open(config).await?, &args.queue).await?;
    for id in &args.ids {
        if let Some((scheduler, _)) = queue.scheduler(id).await? {
            match Feeds::of(config, &queue, std::slice::from_ref(&scheduler)).await.owner(&scheduler) {
                None => {}
                Some(Owner::Configuration) => {
                    let told = format!("{id:?} is the schedule of a feed; take it out of the configuration");
                    return Err(UsageError(told).into());
                }
                Some(Owner::Subscription) => {
                    let told =
                        format!("{id:?} is the schedule of a subscription; `feedmill feeds remove {id}` ends it");
                    return Err(UsageError(told).into());
                }
            }
        }
        if !queue.remove_scheduler(id).await? {
            anyhow::bail!(there_is_none(id, &queue));
        }
        output::line(&format!("{id} removed"))?;
    }
    Ok(())
}

/// The schedules of feeds, of which nothing is stored with the queue they are fired on.
struct Feeds<'a> {
    configured: &'a [FeedConfig],
    /// Schedules of subscriptions by name: of those that were asked for.
    subscribed: BTreeMap<String, String>,
}

/// Whose schedule a scheduler is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owner {
    Configuration,
    Subscription,
}

impl<'a> Feeds<'a> {
    /// What is known of these schedulers. MongoDB, which has the subscriptions, is asked only of what is known otherwise
    /// neither to Redis nor to the configuration; if it is away, these stay unknown, and a line on stderr says why.
    async fn of(config: &'a Config, queue: &Queue, schedulers: &[Scheduler]) -> Self {
        if queue.name() != config.fetch_queue.name {
            return Self { configured: &[], subscribed: BTreeMap::new() };
        }
        let mut feeds = Self { configured: &config.feeds, subscribed: BTreeMap::new() };
        let unknown = schedulers.iter().filter(|one| one.stored.is_none() && feeds.schedule(&one.id).is_none());
        let unknown: Vec<String> = unknown.map(|one| one.id.clone()).collect();
        if !unknown.is_empty() {
            match subscriptions(config, &unknown).await {
                Ok(subscribed) => feeds.subscribed = subscribed,
                Err(error) => output::note(&format!("MongoDB does not say which are subscriptions: {}", chain(&error))),
            }
        }
        feeds
    }

    /// The schedule of the feed of this name.
    fn schedule(&self, name: &str) -> Option<&str> {
        let configured =
            self.configured.iter().find(|feed| feed.name == name).and_then(|feed| feed.schedule.as_deref());
        configured.or_else(|| self.subscribed.get(name).map(String::as_str))
    }

    fn owner(&self, scheduler: &Scheduler) -> Option<Owner> {
        if scheduler.stored.is_some() || self.schedule(&scheduler.id).is_none() {
            None
        } else if self.subscribed.contains_key(&scheduler.id) {
            Some(Owner::Subscription)
        } else {
            Some(Owner::Configuration)
        }
    }

    fn json(&self, scheduler: &Scheduler) -> Value {
        let mut value = scheduler_json(scheduler, self.schedule(&scheduler.id));
        match self.owner(scheduler) {
            Some(Owner::Configuration) => value["from"] = json!("file"),
            Some(Owner::Subscription) => value["from"] = json!("subscription"),
            None => {}
        }
        value
    }
}

/// The schedules of those of these feeds that are subscribed to, by name.
async fn subscriptions(config: &Config, names: &[String]) -> Result<BTreeMap<String, String>, StoreError> {
    let store = Store::connect(config.mongodb.uri.expose(), &config.mongodb.database).await?;
    let mut schedules = BTreeMap::new();
    for names in names.chunks(NAMES_PER_QUERY) {
        let found = store.stored_feeds(FeedsWanted::Named(names)).await?;
        schedules.extend(found.into_iter().filter_map(|feed| Some((feed.name, feed.subscription?.schedule))));
    }
    Ok(schedules)
}

fn definition(args: &UpsertArgs) -> anyhow::Result<Definition> {
    let repeat = match (&args.cron, &args.every) {
        (Some(_), Some(_)) => return Err(UsageError("--cron and --every exclude each other; give one".into()).into()),
        (None, None) => return Err(UsageError("there is no schedule; give --cron or --every".to_owned()).into()),
        (Some(_), None) if args.offset.is_some() => {
            return Err(UsageError("--offset belongs to --every; a pattern says itself when".to_owned()).into());
        }
        (None, Some(_)) if args.timezone.is_some() => {
            return Err(UsageError("--timezone belongs to --cron; an interval has none".to_owned()).into());
        }
        (Some(pattern), None) => Repeat::cron(pattern, args.timezone.as_deref()).map_err(usage)?,
        (None, Some(every)) => {
            let offset = args.offset.as_deref().map_or(Ok(Duration::ZERO), |offset| duration("--offset", offset))?;
            Repeat::every(duration("--every", every)?, offset).map_err(usage)?
        }
    };
    let time = |flag, text: &Option<String>| text.as_deref().map(|text| parse_time(flag, text)).transpose();
    Ok(Definition {
        repeat,
        start: time("--start", &args.start)?,
        end: time("--end", &args.end)?,
        limit: args.limit,
        immediately: args.immediately,
        catch_up: match args.catch_up {
            CatchUpArg::Skip => CatchUp::Skip,
            CatchUpArg::One => CatchUp::One,
            CatchUpArg::All => CatchUp::All,
        },
        no_overlap: args.no_overlap,
    })
}

fn parse_time(flag: &str, text: &str) -> Result<Timestamp, UsageError> {
    text.parse().map_err(|_| UsageError(format!("{flag} {text:?} is no time; write it like 2027-01-31T09:00:00Z")))
}

fn usage(error: impl std::error::Error) -> UsageError {
    UsageError(chain(&error))
}

fn there_is_none(id: &str, queue: &Queue) -> String {
    format!("there is no scheduler {id:?} in {}; `feedmill schedulers list` shows those there are", queue.name())
}

/// Its schedule, or why it has none.
fn what(scheduler: &Scheduler, feeds: &Feeds<'_>) -> String {
    match &scheduler.stored {
        Some(Stored { definition: Ok(definition), .. }) => definition.repeat.to_string(),
        Some(Stored { definition: Err(reason), .. }) => format!("damaged: {reason}"),
        None => match (feeds.schedule(&scheduler.id), feeds.owner(scheduler)) {
            (Some(schedule), Some(Owner::Subscription)) => format!("{schedule} (subscription)"),
            (Some(schedule), _) => format!("{schedule} (feed)"),
            (None, _) => "unknown: nothing is stored of it".to_owned(),
        },
    }
}

fn options(envelope: &Envelope<'_>) -> JobOptions {
    envelope.options.and_then(|options| JobOptions::decode(options).ok()).unwrap_or_default()
}

/// A slot to the second, in UTC.
fn time(slot_ms: Option<i64>) -> String {
    output::time(slot_at(slot_ms))
}
