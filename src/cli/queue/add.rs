//! `feedmill queue add`: add one job, or those of a file.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;

use super::{QueueArgs, input};
use crate::cli::{UsageError, output};
use crate::config::Config;
use crate::import::{Feeds, Grouping, Payload};
use crate::job::{Envelope, JobId, JobOptions};
use crate::pipeline::{Queues, feeds, grouping};
use crate::queue::Queue;
use crate::queue::enqueue::{Deduplication, Enqueued, NewJob};

/// Lines of a file that are added at once: enough for the network not to count, and no more than fits into memory even
/// with the largest payloads.
const LINES_AT_ONCE: usize = 256;

/// Add a job, or those of a file
///
/// The payload is JSON; on the import queue an item, on the fetch queue a task such as {"feed": "NAME"}, and there the id
/// follows from it. A job whose id lives already is a duplicate, and nothing is changed.
///
/// Each line of a --bulk file is a job: {"id": …, "payload": …}, with "delay", "priority", "group", "attempts", "dedup" and
/// "name" as the flags have them.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  feedmill queue add mail-7 --payload '{\"to\": \"ann\"}' --queue mails --delay 5m
  feedmill queue add --payload '{\"source\": \"x\", \"guid\": \"1\"}'   an item
  feedmill queue add --bulk jobs.ndjson --queue mails")]
pub(in crate::cli) struct AddArgs {
    /// Id of the job
    #[arg(conflicts_with = "bulk")]
    id: Option<String>,
    /// The payload, as JSON; @FILE reads a file, - reads stdin
    #[arg(long, value_name = "JSON", required_unless_present = "bulk", conflicts_with = "bulk")]
    payload: Option<String>,
    /// Add the jobs of this file, one a line; - reads stdin
    #[arg(long, value_name = "FILE")]
    bulk: Option<String>,
    /// Start it no earlier than after this time
    #[arg(long, value_name = "DURATION", allow_hyphen_values = true)]
    delay: Option<String>,
    /// 1 is the first, 2097151 the last; 0 is none
    #[arg(long, value_name = "N")]
    priority: Option<u32>,
    /// What it has in common with others, if the queue limits groups
    #[arg(long, value_name = "NAME")]
    group: Option<String>,
    /// How often it is tried [default: as its queue has it]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..))]
    attempts: Option<u8>,
    /// Leave it out while another job with this deduplication id lives
    #[arg(long, value_name = "ID")]
    dedup: Option<String>,
    /// Name of the kind of work
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pub(super) queue: QueueArgs,
}

/// One job as it is asked for.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    id: Option<String>,
    payload: Option<Box<RawValue>>,
    delay: Option<String>,
    priority: Option<u32>,
    group: Option<String>,
    attempts: Option<u8>,
    dedup: Option<String>,
    name: Option<String>,
}

/// One job that can be added.
struct Ready {
    id: JobId,
    payload: Payload,
    delay: Duration,
    priority: u32,
    options: Vec<u8>,
    group: Option<String>,
    dedup: Option<String>,
    name: Option<String>,
}

/// Where jobs are added.
struct Target<'a> {
    queues: &'a Queues,
    queue: &'a Queue,
    /// What items are grouped by.
    grouping: Grouping,
    /// The feeds, for what their fetches are grouped by.
    feeds: Feeds,
    payload_max: usize,
}

impl Target<'_> {
    /// The payload of a job, and its group by what is in it: the same as if a producer had added it.
    fn payload(&self, json: Vec<u8>) -> Result<Payload, String> {
        let mut payload = self.queues.payload_for(self.queue, json)?;
        payload.group = match payload.group {
            Some(source) => Some(self.grouping.of_source(&source).into_owned()),
            None if self.queue.name() == self.queues.fetch.name() => {
                let feed = payload.id.as_ref().and_then(|id| self.feeds.get(&id.to_string()));
                feed.map(|feed| feed.fetch_group.clone()).filter(|group| !group.is_empty())
            }
            None => None,
        };
        Ok(payload)
    }
}

impl AddArgs {
    /// What is asked of every job that does not say it itself.
    fn ready(&self, target: &Target<'_>, asked: Asked, json: Vec<u8>) -> Result<Ready, String> {
        let payload = target.payload(json).map_err(|reason| format!("payload: {reason}"))?;
        let id = match (asked.id, &payload.id) {
            (Some(id), known) => {
                let id = JobId::new(id).map_err(|error| error.to_string())?;
                if let Some(known) = known.as_ref().filter(|known| **known != id) {
                    return Err(format!("the payload is that of job {known}, and not of {id}; leave the id out"));
                }
                id
            }
            (None, Some(known)) => known.clone(),
            (None, None) => return Err(format!("which id? Jobs of {} need one", target.queue.name())),
        };
        let delay = asked.delay.as_ref().or(self.delay.as_ref());
        let delay =
            delay.map(|delay| input::duration("delay", delay)).transpose().map_err(|error| error.to_string())?;
        let dedup = asked.dedup.or_else(|| self.dedup.clone());
        let attempts = asked.attempts.or(self.attempts);
        if attempts == Some(0) {
            return Err("attempts is 0; accepted: 1 to 255".to_owned());
        }
        Ok(Ready {
            id,
            delay: delay.unwrap_or_default(),
            priority: asked.priority.or(self.priority).unwrap_or(0),
            group: asked.group.or_else(|| self.group.clone()).or_else(|| payload.group.clone()),
            options: JobOptions { attempts, dedup: dedup.clone(), ..JobOptions::default() }.encode(),
            dedup,
            name: asked.name.or_else(|| self.name.clone()),
            payload,
        })
    }
}

impl Ready {
    fn as_job(&self) -> NewJob<'_> {
        let envelope = Envelope {
            payload: &self.payload.bytes,
            fingerprint: self.payload.fingerprint,
            name: self.name.as_deref(),
            options: Some(&self.options),
            ..Envelope::default()
        };
        NewJob {
            delay: self.delay,
            priority: self.priority,
            group: self.group.as_deref(),
            dedup: self.dedup.as_deref().map(Deduplication::simple),
            ..NewJob::new(self.id.clone(), envelope)
        }
    }
}

pub(super) async fn run(config: &Config, queues: &Queues, queue: &Queue, args: &AddArgs) -> anyhow::Result<ExitCode> {
    let target = Target {
        queues,
        queue,
        grouping: grouping(&config.import_queue).unwrap_or_default(),
        feeds: feeds(config)?,
        payload_max: input::payload_max_bytes(config, queue),
    };
    if let Some(file) = &args.bulk {
        return bulk(&target, args, file).await;
    }
    let json = input::read_payload(args.payload.as_deref().unwrap_or_default())?;
    let asked = Asked { id: args.id.clone(), ..Asked::default() };
    let ready = args.ready(&target, asked, json).map_err(UsageError)?;
    let added = queue.add(&[ready.as_job()], target.payload_max).await?.remove(0);
    let id = &ready.id;
    let (word, said) = match &added {
        Enqueued::Enqueued => ("enqueued", format!("{id} enqueued")),
        Enqueued::Changed => ("changed", format!("{id} changed")),
        Enqueued::Duplicate => ("duplicate", format!("{id} is a duplicate: a job with this id is there already")),
        Enqueued::Deduplicated(by) => ("deduplicated", format!("{id} is left out: job {by} has its deduplication id")),
        Enqueued::Refused(reason) => anyhow::bail!("job {id} was refused: {reason}"),
    };
    if args.json {
        let by = if let Enqueued::Deduplicated(by) = &added { Some(by.to_string()) } else { None };
        output::json(&json!({"id": id.to_string(), "result": word, "by": by}))?;
    } else {
        output::line(&said)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// What became of the jobs of a file.
#[derive(Clone, Copy, Debug, Default)]
struct Added {
    enqueued: usize,
    changed: usize,
    duplicate: usize,
    deduplicated: usize,
    refused: usize,
}

async fn bulk(target: &Target<'_>, args: &AddArgs, file: &str) -> anyhow::Result<ExitCode> {
    let Target { queue, payload_max, .. } = *target;
    let (reader, bytes): (Box<dyn BufRead>, u64) = if file == "-" {
        (Box::new(io::stdin().lock()), 0)
    } else {
        let opened = File::open(file).with_context(|| format!("cannot read {file}"))?;
        let bytes = opened.metadata().map_or(0, |metadata| metadata.len());
        (Box::new(BufReader::new(opened)), bytes)
    };
    let bar = ProgressBar::new(bytes);
    bar.set_style(
        ProgressStyle::with_template("adding {bar:30} {bytes}/{total_bytes}  {elapsed}")
            .expect("the template is right"),
    );
    let mut added = Added::default();
    let mut lines = reader.lines().enumerate().peekable();
    while lines.peek().is_some() {
        let (mut ready, mut read) = (Vec::with_capacity(LINES_AT_ONCE), 0);
        for (at, line) in lines.by_ref().take(LINES_AT_ONCE) {
            let line = line.with_context(|| format!("cannot read {file}"))?;
            read += line.len() as u64 + 1;
            if line.trim().is_empty() {
                continue;
            }
            let job = asked(&line).and_then(|(asked, json)| args.ready(target, asked, json));
            let job = job.and_then(|job| {
                let bytes = job.payload.bytes.len();
                let too_large = format!("a payload of {bytes} bytes; the limit (payload_max) is {payload_max}");
                if bytes > payload_max { Err(too_large) } else { Ok(job) }
            });
            ready.push(job.map_err(|reason| {
                let before = added.enqueued + added.changed;
                let told = if before == 0 { "nothing was added".to_owned() } else { format!("{before} were added") };
                UsageError(format!("{file} line {}: {reason} ({told})", at + 1))
            })?);
        }
        let jobs: Vec<NewJob<'_>> = ready.iter().map(Ready::as_job).collect();
        for (job, result) in ready.iter().zip(queue.add(&jobs, payload_max).await?) {
            match result {
                Enqueued::Enqueued => added.enqueued += 1,
                Enqueued::Changed => added.changed += 1,
                Enqueued::Duplicate => added.duplicate += 1,
                Enqueued::Deduplicated(_) => added.deduplicated += 1,
                Enqueued::Refused(reason) => {
                    added.refused += 1;
                    bar.suspend(|| output::error_line(&format!("job {} was refused: {reason}", job.id)));
                }
            }
        }
        bar.inc(read);
    }
    bar.finish_and_clear();
    let counted = [
        ("enqueued", added.enqueued),
        ("changed", added.changed),
        ("duplicate", added.duplicate),
        ("deduplicated", added.deduplicated),
        ("refused", added.refused),
    ];
    if args.json {
        output::json(&counted.into_iter().collect::<std::collections::BTreeMap<_, _>>())?;
    } else {
        let shown = counted.iter().filter(|(word, n)| *n > 0 || *word == "enqueued");
        let shown: Vec<String> = shown.map(|(word, n)| format!("{n} {word}")).collect();
        output::line(&shown.join(", "))?;
    }
    Ok(if added.refused == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// One line of a file: the job, and its payload.
fn asked(line: &str) -> Result<(Asked, Vec<u8>), String> {
    let mut asked: Asked = serde_json::from_str(line).map_err(|error| format!("json: {error}"))?;
    let payload = asked.payload.take().ok_or("there is no \"payload\"")?;
    Ok((asked, payload.get().as_bytes().to_vec()))
}
