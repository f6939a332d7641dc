//! `feedmill bench` of the queue: the phases, one after the other, of each system.
//!
//! ```text
//!   latency   one job at a time, from the add to the start of its handler, on an idle queue
//!   add       bulks, several in flight
//!   memory    what the jobs that wait now take
//!   process   a worker until so many are done, at each concurrency
//! ```

use std::ops::Range;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use tokio::task::JoinSet;

use super::bare::Bare;
use super::engine::Engine;
use super::server::Taken;
use super::{QueueArgs, System, delete_data, empty_data, own_keys};
use crate::cli::{UsageError, output};
use crate::embedded::EmbeddedRedis;
use crate::queue::Redis;
use crate::shutdown::on_signal;

/// Jobs of one bulk, and how many bulks are in flight: a producer that has many jobs and waits for their answers.
const BULK_JOBS: u64 = 1000;
const BULKS_IN_FLIGHT: usize = 4;

/// Jobs whose way is not timed, before those that are: they find connections and scripts new.
const WARM_UP_SAMPLES: u64 = 50;

/// Look-ups of one command that ends a move of keys.
const LOOK_UPS_PER_COMMAND: u64 = 1000;

/// Bytes of a job id.
const ID_BYTES: usize = 12;

/// What a system must be able to do to be measured.
pub(super) trait Measured: Clone + Send + Sync + 'static {
    /// Adds jobs with these numbers; ends when all are acknowledged.
    fn add(&self, jobs: Range<u64>) -> impl Future<Output = anyhow::Result<()>> + Send;

    /// Works on jobs, so many at once, with a handler that does nothing. Ends when at least `jobs` are done; returns how
    /// many, and how long it took.
    fn process(&self, jobs: u64, concurrency: usize) -> impl Future<Output = anyhow::Result<(u64, Duration)>> + Send;

    /// Adds jobs with these numbers to an idle queue, one at a time; returns how long each took to its handler. All are
    /// done at the end.
    fn starts(&self, jobs: Range<u64>) -> impl Future<Output = anyhow::Result<Vec<Duration>>> + Send;
}

/// What one phase found; what it does not measure is left out.
#[derive(Debug, Default, Serialize)]
struct Line {
    system: &'static str,
    phase: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    concurrency: Option<u64>,
    jobs: u64,
    /// Jobs that waited all the while, beside those.
    #[serde(skip_serializing_if = "Option::is_none")]
    waiting: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    per_s: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    p50_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    p99_ms: Option<f64>,
    /// CPU of the server's main thread.
    #[serde(skip_serializing_if = "Option::is_none")]
    redis_cpu_us_per_job: Option<f64>,
    /// CPU of this process.
    #[serde(skip_serializing_if = "Option::is_none")]
    client_cpu_us_per_job: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes_per_job: Option<f64>,
}

pub(super) async fn run(url: Option<&str>, args: &QueueArgs, folder: &Path, json: bool) -> anyhow::Result<ExitCode> {
    let mut report = Report { json, lines: Vec::new() };
    if let Some(url) = url {
        measure_on(url, args, &mut report).await?;
    } else {
        empty_data(folder)?;
        let server = EmbeddedRedis::start(folder).await?;
        let measured = measure_on(&server.url(), args, &mut report).await;
        server.stop().await;
        delete_data(folder);
        measured?;
    }
    report.end()?;
    Ok(ExitCode::SUCCESS)
}

/// Measures on one Redis, and deletes what came of it, also after an error or a signal.
async fn measure_on(url: &str, args: &QueueArgs, report: &mut Report) -> anyhow::Result<()> {
    let interrupted = on_signal()?;
    let redis = Redis::connect(url, &own_keys::own_prefix()).await?;
    output::note(&format!(
        "measuring on {}; the keys {}:* are made, and deleted at the end",
        redis.address(),
        redis.prefix()
    ));
    let measured = interrupted.run_until_cancelled(measure(&redis, args, report)).await;
    let deleted = own_keys::delete(&redis).await;
    let Some(measured) = measured else {
        deleted?;
        bail!("interrupted");
    };
    measured.and(deleted)
}

async fn measure(redis: &Redis, args: &QueueArgs, report: &mut Report) -> anyhow::Result<()> {
    let payload = payload(usize::try_from(args.payload_bytes)?);
    for (at, system) in args.system.iter().enumerate() {
        if args.system[..at].contains(system) {
            return Err(UsageError(format!("--system names {system:?} twice; name each once")).into());
        }
        match system {
            System::Feedmill => {
                phases("feedmill", &Engine::open(redis, payload.clone()).await?, redis, args, report).await
            }
            System::Bare => phases("bare", &Bare::open(redis, payload.clone()).await?, redis, args, report).await,
        }?;
        own_keys::delete(redis).await?;
    }
    Ok(())
}

async fn phases(
    system: &'static str,
    measured: &impl Measured,
    redis: &Redis,
    args: &QueueArgs,
    report: &mut Report,
) -> anyhow::Result<()> {
    let mut numbers = Numbers::default();
    let jobs = args.jobs;

    if args.samples > 0 {
        measured.starts(numbers.take(WARM_UP_SAMPLES)).await?;
        let mut took = measured.starts(numbers.take(args.samples)).await?;
        took.sort_unstable();
        report.line(Line {
            system,
            phase: "latency",
            concurrency: Some(1),
            jobs: args.samples,
            p50_ms: Some(rounded(percentile_ms(&took, 50))),
            p99_ms: Some(rounded(percentile_ms(&took, 99))),
            ..Line::default()
        })?;
    }

    fill(measured, numbers.take(args.waiting), system).await?;
    let (before, began) = (Taken::now(redis).await?, Instant::now());
    fill(measured, numbers.take(jobs), system).await?;
    let (took, after) = (began.elapsed(), Taken::now(redis).await?);
    report.line(Line {
        system,
        phase: "add",
        jobs,
        per_s: Some((jobs as f64 / took.as_secs_f64()).round()),
        redis_cpu_us_per_job: Some(rounded(after.redis_cpu_per_job(&before, jobs))),
        client_cpu_us_per_job: Some(rounded(after.client_cpu_per_job(&before, jobs))),
        ..Line::default()
    })?;
    let bytes_per_job = Some(after.bytes_per_job(&before, jobs).round());
    report.line(Line { system, phase: "memory", jobs, bytes_per_job, ..Line::default() })?;

    let mut waiting = args.waiting + jobs;
    for concurrency in &args.concurrency {
        let missing = (args.waiting + jobs).saturating_sub(waiting);
        fill(measured, numbers.take(missing), system).await?;
        end_rehash(redis).await?;
        let before = Taken::now(redis).await?;
        let (done, took) = measured.process(jobs, usize::try_from(*concurrency)?).await?;
        let after = Taken::now(redis).await?;
        ensure!(done >= jobs, "{done} of {jobs} jobs were done; this is no measurement");
        waiting = args.waiting + jobs - done.min(args.waiting + jobs);
        report.line(Line {
            system,
            phase: "process",
            concurrency: Some(*concurrency),
            jobs: done,
            waiting: Some(args.waiting),
            per_s: Some((done as f64 / took.as_secs_f64()).round()),
            redis_cpu_us_per_job: Some(rounded(after.redis_cpu_per_job(&before, done))),
            client_cpu_us_per_job: Some(rounded(after.client_cpu_per_job(&before, done))),
            ..Line::default()
        })?;
    }
    Ok(())
}

/// Has Redis end the move of its keys into a larger table, which it doubles when it is full, and fills with a few keys at
/// each look-up: else that is what would be measured, and only with some numbers of jobs. The old table has no more places
/// than there are keys, and a look-up, also one that finds nothing, moves at least one.
async fn end_rehash(redis: &Redis) -> anyhow::Result<()> {
    let keys: u64 = redis::cmd("DBSIZE").query_async(&mut redis.connection()).await?;
    let nothing = format!("{}:nothing", redis.prefix());
    let mut look_up = redis::cmd("EXISTS");
    for _ in 0..LOOK_UPS_PER_COMMAND {
        look_up.arg(&nothing);
    }
    for _ in 0..keys.div_ceil(LOOK_UPS_PER_COMMAND) {
        look_up.query_async::<u64>(&mut redis.connection()).await?;
    }
    Ok(())
}

/// Adds jobs in bulks.
async fn fill(measured: &impl Measured, jobs: Range<u64>, system: &str) -> anyhow::Result<()> {
    let bar = ProgressBar::new(jobs.end - jobs.start);
    bar.set_style(
        ProgressStyle::with_template("{prefix} {bar:30} {human_pos}/{human_len} jobs added  {elapsed}")
            .expect("the template is right"),
    );
    bar.set_prefix(system.to_owned());
    let mut bulks = jobs.clone().step_by(BULK_JOBS as usize).map(|from| from..(from + BULK_JOBS).min(jobs.end));
    let mut in_flight = JoinSet::new();
    loop {
        while in_flight.len() < BULKS_IN_FLIGHT
            && let Some(bulk) = bulks.next()
        {
            let measured = measured.clone();
            in_flight.spawn(async move { measured.add(bulk.clone()).await.map(|()| bulk.end - bulk.start) });
        }
        let Some(added) = in_flight.join_next().await else { break };
        bar.inc(added??);
    }
    bar.finish_and_clear();
    Ok(())
}

/// Gives each job a number of its own.
#[derive(Debug, Default)]
struct Numbers(u64);

impl Numbers {
    fn take(&mut self, jobs: u64) -> Range<u64> {
        let from = self.0;
        self.0 += jobs;
        from..self.0
    }
}

/// The id of a job by its number.
pub(super) fn id(number: u64) -> String {
    let id = format!("bench-{number:06}");
    debug_assert!(id.len() >= ID_BYTES);
    id
}

/// Text without repetition, as JSON has it.
fn payload(bytes: usize) -> Arc<[u8]> {
    let mut random = fastrand::Rng::with_seed(1);
    (0..bytes).map(|_| random.alphanumeric() as u8).collect()
}

/// Of sorted times.
fn percentile_ms(sorted: &[Duration], percent: usize) -> f64 {
    let at = (sorted.len() * percent / 100).min(sorted.len().saturating_sub(1));
    sorted.get(at).map_or(f64::NAN, |took| took.as_secs_f64() * 1e3)
}

/// To three places: more is noise.
fn rounded(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}

/// What was found so far: JSON at once, a table at the end.
struct Report {
    json: bool,
    lines: Vec<Line>,
}

impl Report {
    fn line(&mut self, line: Line) -> anyhow::Result<()> {
        if self.json {
            output::line(&serde_json::to_string(&line)?)?;
        }
        self.lines.push(line);
        Ok(())
    }

    fn end(self) -> anyhow::Result<()> {
        if self.json {
            return Ok(());
        }
        let shown =
            |value: Option<f64>, places: usize| value.map_or("-".to_owned(), |value| format!("{value:.places$}"));
        output::table(
            ["system", "phase", "at once", "jobs", "jobs/s", "p50 ms", "p99 ms", "Redis µs", "client µs", "bytes"],
            2,
            self.lines.iter().map(|line| {
                [
                    line.system.to_owned(),
                    line.phase.to_owned(),
                    line.concurrency.map_or("-".to_owned(), |concurrency| concurrency.to_string()),
                    line.jobs.to_string(),
                    shown(line.per_s, 0),
                    shown(line.p50_ms, 2),
                    shown(line.p99_ms, 2),
                    shown(line.redis_cpu_us_per_job, 1),
                    shown(line.client_cpu_us_per_job, 1),
                    shown(line.bytes_per_job, 0),
                ]
            }),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_one_of_the_times() {
        let times: Vec<Duration> = (1..=200).map(Duration::from_millis).collect();
        assert!((percentile_ms(&times, 50) - 101.0).abs() < 1e-9);
        assert!((percentile_ms(&times, 99) - 199.0).abs() < 1e-9);
        assert!((percentile_ms(&times[..1], 99) - 1.0).abs() < 1e-9);
    }

    #[test]
    fn jobs_have_ids_and_payloads_of_the_size_that_is_said() {
        assert_eq!(id(7).len(), ID_BYTES);
        assert_eq!(payload(600).len(), 600);
    }
}
