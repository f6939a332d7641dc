//! `feedmill xinfo`: what Redis says about the queues, explained.

use std::io::{self, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use jiff::Timestamp;
use serde::Serialize;

use super::output::{self, one_line, shortened};
use super::{ANOMALY, Globals, UsageError};
use crate::check::Status;
use crate::config::{Config, QueueConfig};
use crate::queue::inspect::{
    ConsumerLine, Finding, Group, InspectOptions, Inspection, ParkedGroup, PendingEntry, Repair, Structure,
};
use crate::queue::server::Server;
use crate::queue::{Queue, Redis};
use crate::shutdown;

/// Columns that names and ids may take in a table.
const NAME_COLUMNS: usize = 28;
/// Consumers that are printed; JSON has more.
const CONSUMERS_SHOWN: usize = 20;
/// Queues that are inspected when none is named.
const QUEUES_MAX: usize = 100;

/// Say what Redis says about a queue, and what it means
///
/// Streams, groups, consumers, pending entries, backoff, schedulers, parked groups, dead letters; each line says in plain words
/// how it stands. What is not as it should be stands at the end, with the command that mends it; anomalies are red.
///
/// Nothing is written without --fix. It puts back what stands nowhere, creates a lost group, promotes what is overdue, counts
/// groups anew and brings out forgotten ones; it deletes no job and takes none from a worker. Redis is never held for long: of
/// very many entries and guards a part is looked at, all of them with --deep.
///
/// Exit status 3: there is an anomaly. The JSON is described in docs/xinfo.md.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  feedmill xinfo
  feedmill xinfo job_import_queue --watch
  feedmill xinfo --fix
  feedmill xinfo --json | jq '.queues[].findings'")]
pub(super) struct XinfoArgs {
    /// The queue [default: every queue]
    queue: Option<String>,
    /// Look at every delivered entry and every guard, however many there are
    #[arg(long)]
    deep: bool,
    /// Mend what can be mended without losing anything
    #[arg(long, conflicts_with = "watch")]
    fix: bool,
    /// Look again every so many seconds, until interrupted
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "2")]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=3600))]
    watch: Option<u64>,
    /// Print JSON; with --watch, one line each time
    #[arg(long)]
    json: bool,
}

/// What is printed as JSON.
#[derive(Debug, Serialize)]
struct Report {
    server: Server,
    queues: Vec<QueueReport>,
}

#[derive(Debug, Serialize)]
struct QueueReport {
    #[serde(flatten)]
    inspection: Inspection,
    /// With --fix: what was done before this was found.
    repairs: Vec<Repair>,
}

pub(super) async fn run(globals: &Globals, args: &XinfoArgs) -> anyhow::Result<ExitCode> {
    let config = globals.load(None)?;
    let redis = Redis::connect(config.redis.url.expose(), &config.redis.prefix).await?;
    let Some(seconds) = args.watch else {
        let report = look(&config, &redis, args).await?;
        if args.json {
            output::json(&report)?;
        } else {
            output::line(&render(&report, output::columns(), output::is_coloured()))?;
        }
        return Ok(exit_code(&report));
    };
    let interrupted = shutdown::on_signal().context("cannot handle signals")?;
    let watching = async {
        let mut is_first = true;
        loop {
            let report = look(&config, &redis, args).await?;
            let text = if args.json {
                serde_json::to_string(&report)?
            } else {
                let text = render(&report, output::columns(), output::is_coloured());
                if output::is_terminal() { in_place(&text, is_first) } else { text + "\n" }
            };
            is_first = false;
            if !output::goes_on(&text)? {
                return Ok(());
            }
            io::stdout().flush()?;
            tokio::time::sleep(Duration::from_secs(seconds)).await;
        }
    };
    interrupted.run_until_cancelled(watching).await.unwrap_or(anyhow::Ok(()))?;
    Ok(ExitCode::SUCCESS)
}

fn exit_code(report: &Report) -> ExitCode {
    let is_wrong = report.queues.iter().any(|queue| queue.inspection.has_anomaly());
    if is_wrong { ExitCode::from(ANOMALY) } else { ExitCode::SUCCESS }
}

/// A text in the place of the one before: each line is written over what stood there, so nothing flickers.
fn in_place(text: &str, is_first: bool) -> String {
    let begin = if is_first { "\x1b[2J\x1b[H" } else { "\x1b[H" };
    format!("{begin}{}\x1b[K\n\x1b[J", text.replace('\n', "\x1b[K\n"))
}

async fn look(config: &Config, redis: &Redis, args: &XinfoArgs) -> anyhow::Result<Report> {
    let mut queues = Vec::new();
    for queue in chosen(redis, args.queue.as_deref()).await? {
        let options = options_of(config, queue.name());
        let options = if args.deep { options.deep() } else { options };
        let mut inspection = queue.inspect(options).await?;
        let mut repairs = Vec::new();
        if args.fix {
            repairs = queue.repair(&inspection).await?;
            if !repairs.is_empty() {
                inspection = queue.inspect(options).await?;
            }
        }
        queues.push(QueueReport { inspection, repairs });
    }
    Ok(Report { server: redis.server().await?, queues })
}

/// The queue of this name, or all there are.
async fn chosen(redis: &Redis, name: Option<&str>) -> anyhow::Result<Vec<Queue>> {
    let names = redis.registered_queues().await?;
    let wanted = match name {
        Some(name) if names.iter().any(|known| known == name) => vec![name.to_owned()],
        Some(name) => {
            let known = if names.is_empty() {
                format!("there is none yet under the prefix {:?}", redis.prefix())
            } else {
                format!("the queues are {}", names.join(", "))
            };
            return Err(UsageError(format!("there is no queue {name:?}; {known}")).into());
        }
        None if names.len() > QUEUES_MAX => {
            return Err(UsageError(format!("there are {} queues; say which one", names.len())).into());
        }
        None => names,
    };
    let mut queues = Vec::new();
    for name in wanted {
        queues.extend(Queue::as_it_stands(redis, &name).await?);
    }
    Ok(queues)
}

/// Lease and sweeps as configured; of a queue of another program the defaults.
fn options_of(config: &Config, name: &str) -> InspectOptions {
    let own = [&config.import_queue, &config.fetch_queue].into_iter().find(|queue| queue.name == name);
    own.map_or_else(InspectOptions::default, |QueueConfig { lock_duration, stalled_interval, .. }| InspectOptions {
        lock_duration: *lock_duration,
        stalled_interval: *stalled_interval,
        ..InspectOptions::default()
    })
}

// ── printing ────────────────────────────────────────────────────────────────────────────────────────────────────────────

/// The whole text, no line of which is wider than `columns`.
fn render(report: &Report, columns: usize, is_coloured: bool) -> String {
    let mut page = Page { columns, is_coloured, text: String::new() };
    let at = report.queues.first().and_then(|queue| Timestamp::from_millisecond(queue.inspection.at_ms as i64).ok());
    for line in output::wrapped(&format!("{}; {}", report.server.summary(), output::time(at)), columns, 2) {
        page.line(&line, Status::Ok);
    }
    page.line("", Status::Ok);
    if report.queues.is_empty() {
        page.line("there are no queues yet", Status::Ok);
    }
    for queue in &report.queues {
        page.queue(queue);
    }
    page.text.trim_end().to_owned()
}

struct Page {
    columns: usize,
    is_coloured: bool,
    text: String,
}

impl Page {
    fn line(&mut self, line: &str, status: Status) {
        let line = if self.is_coloured { output::paint(line, status) } else { line.to_owned() };
        self.text.push_str(&line);
        self.text.push('\n');
    }

    /// A table whose last column says how each row stands, wrapped within the column; nothing for no rows.
    fn table<const N: usize>(
        &mut self,
        header: [&str; N],
        numbers: &[usize],
        rows: impl IntoIterator<Item = (Status, [String; N])>,
    ) {
        let (statuses, rows): (Vec<Status>, Vec<[String; N]>) = rows.into_iter().unzip();
        if rows.is_empty() {
            return;
        }
        let columns = output::last_column(self.columns, header, &rows);
        let mut lines = Vec::new();
        for (status, mut row) in statuses.into_iter().zip(rows) {
            for (at, part) in output::wrapped(&row[N - 1].clone(), columns, 0).into_iter().enumerate() {
                if at > 0 {
                    row = std::array::from_fn(|_| String::new());
                }
                row[N - 1] = part;
                lines.push((status, row.clone()));
            }
        }
        let (statuses, rows): (Vec<Status>, Vec<[String; N]>) = lines.into_iter().unzip();
        let lines = output::table_lines(header, |column| numbers.contains(&column), rows);
        for (line, status) in lines.iter().zip([Status::Ok].into_iter().chain(statuses)) {
            self.line(line, status);
        }
        self.line("", Status::Ok);
    }

    fn queue(&mut self, QueueReport { inspection, repairs }: &QueueReport) {
        let paused = if inspection.paused { " (paused)" } else { "" };
        self.line(&format!("{}{paused}", inspection.queue), Status::Ok);
        self.line("", Status::Ok);
        let shown = inspection.structures.iter().filter(|one| one.length > 0 || one.name == "stream");
        self.table(["key", "size", "memory", "means"], &[1, 2], shown.map(structure_row));
        self.table(
            ["group", "consumers", "pending", "lag", "means"],
            &[1, 2, 3],
            inspection.groups.iter().filter(|group| group.stream == "stream" || group.pending > 0).map(group_row),
        );
        let consumers = &inspection.consumers[..inspection.consumers.len().min(CONSUMERS_SHOWN)];
        self.table(["consumer", "pending", "idle", "means"], &[1, 2], consumers.iter().map(consumer_row));
        if inspection.consumers.len() > CONSUMERS_SHOWN {
            let more = inspection.consumers.len() - CONSUMERS_SHOWN;
            self.line(&format!("and {more} more consumers: feedmill workers"), Status::Ok);
            self.line("", Status::Ok);
        }
        let columns = self.columns;
        self.table(
            ["oldest pending", "job", "tries", "held by", "means"],
            &[2],
            inspection.oldest_pending.iter().map(|entry| pending_row(entry, columns)),
        );
        self.table(["parked group", "parked", "in work", "means"], &[1, 2], inspection.parked.iter().map(parked_row));
        let reasons = inspection.dead_reasons.iter();
        self.table(
            ["died", "of"],
            &[0],
            reasons.map(|reason| (Status::Ok, [reason.letters.to_string(), one_line(&reason.reason)])),
        );
        for repair in repairs {
            let text = format!("repaired {}: {}", name_of(&repair.kind), repair.detail);
            for line in output::wrapped(&text, self.columns, 9) {
                self.line(&line, Status::Ok);
            }
        }
        for finding in &inspection.findings {
            self.finding(finding);
        }
        for line in output::wrapped(&conclusion(inspection), self.columns, 2) {
            self.line(&line, Status::Ok);
        }
        self.line("", Status::Ok);
    }

    fn finding(&mut self, finding: &Finding) {
        let front = format!("{:<9}", output::status_word(finding.status));
        let indent = front.len();
        for line in output::wrapped(&format!("{front}{}", one_line(&finding.verdict)), self.columns, indent) {
            self.line(&line, finding.status);
        }
        // The consumer that it is about is named in the verdict.
        if !finding.verdict.contains(&finding.examples.first().cloned().unwrap_or_default()) {
            let examples = finding.examples.iter().map(|example| shortened(&one_line(example), self.columns / 2));
            let text = format!("{:indent$}{}", "", examples.collect::<Vec<_>>().join(", "));
            for line in output::wrapped(&text, self.columns, indent) {
                self.line(&line, finding.status);
            }
        }
        for line in output::fix_lines(&finding.fix, self.columns, indent) {
            self.line(&line, Status::Ok);
        }
    }
}

/// How far was looked, and whether something is wrong.
fn conclusion(inspection: &Inspection) -> String {
    let walked = inspection.walked;
    let errors = inspection.findings.iter().filter(|finding| finding.status == Status::Error).count();
    let found = match errors {
        0 => "no anomalies".to_owned(),
        1 => "1 anomaly".to_owned(),
        n => format!("{n} anomalies"),
    };
    let how_far =
        if walked.entries_through && walked.guards_through { "all there are" } else { "not all; --deep looks at all" };
    format!("{found}; looked at {} delivered entries and {} guards: {how_far}", walked.entries, walked.guards)
}

/// The name of a variant as JSON has it.
fn name_of(value: &impl Serialize) -> String {
    serde_json::to_value(value).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}

fn structure_row(one: &Structure) -> (Status, [String; 4]) {
    let memory =
        one.memory_bytes.map_or_else(|| "-".to_owned(), |bytes| bytesize::ByteSize(bytes).display().iec().to_string());
    (one.status, [one.name.to_owned(), one.length.to_string(), memory, one.verdict.clone()])
}

fn group_row(group: &Group) -> (Status, [String; 5]) {
    let lag = group.lag.map_or_else(|| "-".to_owned(), |lag| lag.to_string());
    let name = if group.stream == "stream" { group.name.clone() } else { format!("{} ({})", group.name, group.stream) };
    let name = shortened(&one_line(&name), NAME_COLUMNS);
    (group.status, [name, group.consumers.to_string(), group.pending.to_string(), lag, group.verdict.clone()])
}

fn consumer_row(consumer: &ConsumerLine) -> (Status, [String; 4]) {
    let idle =
        consumer.idle_ms.map_or_else(|| "-".to_owned(), |ms| output::span(Duration::from_millis(ms / 1000 * 1000)));
    let name = shortened(&one_line(&consumer.name), NAME_COLUMNS);
    (consumer.status, [name, consumer.pending.to_string(), idle, one_line(&consumer.verdict)])
}

fn pending_row(entry: &PendingEntry, columns: usize) -> (Status, [String; 5]) {
    let job = entry.job.as_deref().unwrap_or("-");
    let row = [
        entry.entry.clone(),
        shortened(&one_line(job), (columns / 5).min(NAME_COLUMNS)),
        entry.deliveries.to_string(),
        shortened(&one_line(&entry.consumer), (columns / 4).min(NAME_COLUMNS)),
        entry.verdict.clone(),
    ];
    (entry.status, row)
}

fn parked_row(group: &ParkedGroup) -> (Status, [String; 4]) {
    let name = shortened(&one_line(&group.group), NAME_COLUMNS);
    (group.status, [name, group.parked.to_string(), group.members.to_string(), group.verdict.clone()])
}
