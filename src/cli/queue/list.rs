//! `feedmill queue list` and `search`: jobs by state, page by page, and those that match.

use std::process::ExitCode;
use std::time::SystemTime;

use clap::Args;
use jiff::Timestamp;
use serde_json::json;

use super::QueueArgs;
use super::walking::go_through;
use crate::cli::UsageError;
use crate::cli::output::{self, fitting, one_line, shortened, without_middle};
use crate::job::EntryId;
use crate::queue::list::{Cursor, ListState, Listed, Standing};
use crate::queue::search::Filter;
use crate::queue::walk::Step;
use crate::queue::{Order, Queue, QueueError};
use crate::views::listed_json;

/// Columns that an id may take in a table.
const ID_COLUMNS: usize = 36;
/// Columns that an id may take beside titles.
const ID_BESIDE_TITLES: usize = 22;
/// Columns that a title may take, beside notes and where there are none.
const TITLE_COLUMNS: (usize, usize) = (18, 30);

/// List the jobs in a state
///
/// A job that stays where it stands is on one page, whatever happens to others while somebody goes from page to page.
///
/// As JSON: {state, order, jobs, next}. Of each job: id (null for an entry that no job is made of), title (the text of this
/// name in its payload, if that is a map with one near its front), state, parked, adopted (false while it is only a plain
/// producer's entry), json (the front of what that added), waitingSince, dueAt, finishedAt, failedAt, consumer and idleMs
/// (of an active one), error; and, null when nothing is known of the job, name, feed, group, priority, attempts, stalls,
/// enqueuedAt, import, payloadBytes. What does not apply is null.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  feedmill queue list                            what waits, the next one first
  feedmill queue list --state failed --desc      the newest dead letters
  feedmill queue list --state delayed --json | jq '.jobs[].dueAt'")]
pub(in crate::cli) struct ListArgs {
    /// waiting, prioritized, active, delayed, completed or failed [default: waiting]
    #[arg(long, value_name = "STATE")]
    state: Option<ListState>,
    /// At most so many
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    limit: u32,
    /// Go on where a list ended that printed this cursor
    #[arg(long, value_name = "CURSOR")]
    cursor: Option<Cursor>,
    /// The last one first
    #[arg(long)]
    desc: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pub(super) queue: QueueArgs,
}

/// Search jobs by id, group or error
///
/// Everything that is asked for must hold. There is no index: all jobs are looked at, a page a step, until enough match. It may
/// be interrupted, and gone on with.
///
/// As JSON: {jobs, lookedAt, next}; jobs as those of `list`. `next` is null when the search is through.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  feedmill queue search --source https://jobs.example/feed --state failed
  feedmill queue search --error 'timed out' --limit 5
  feedmill queue search --group slow --json | jq -r '.jobs[].id'")]
pub(in crate::cli) struct SearchArgs {
    /// Only jobs in this state
    #[arg(long, value_name = "STATE")]
    state: Option<ListState>,
    /// Whose id begins so
    #[arg(long, value_name = "TEXT")]
    id_prefix: Option<String>,
    /// Items of this source: whose id begins with it and #
    #[arg(long, value_name = "SOURCE", conflicts_with = "id_prefix")]
    source: Option<String>,
    /// In this group
    #[arg(long, value_name = "GROUP")]
    group: Option<String>,
    /// With this in their last error, in whatever case
    #[arg(long, value_name = "TEXT")]
    error: Option<String>,
    /// End when so many are found
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    limit: u32,
    /// Go on where a search for the same ended that printed this cursor
    #[arg(long, value_name = "CURSOR")]
    cursor: Option<Cursor>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pub(super) queue: QueueArgs,
}

pub(super) async fn list(queue: &Queue, args: &ListArgs) -> anyhow::Result<ExitCode> {
    let of_cursor = args.cursor.as_ref();
    let state = args.state.or_else(|| of_cursor.map(Cursor::state)).unwrap_or(ListState::Waiting);
    let order = match of_cursor {
        _ if args.desc => Order::Descending,
        Some(cursor) => cursor.order(),
        None => Order::Ascending,
    };
    let (mut jobs, mut cursor) = (Vec::new(), args.cursor.clone());
    loop {
        let page = queue.list(state, order, cursor.as_ref(), args.limit as usize - jobs.len()).await?;
        jobs.extend(page.jobs);
        cursor = page.next;
        if cursor.is_none() || jobs.len() >= args.limit as usize {
            break;
        }
    }
    queue.read_titles(&mut jobs).await?;
    if args.json {
        output::json(&json!({
            "state": state.name(),
            "order": order.word(),
            "jobs": jobs.iter().map(listed_json).collect::<Vec<_>>(),
            "next": cursor.map(|cursor| cursor.to_string()),
        }))?;
        return Ok(ExitCode::SUCCESS);
    }
    if jobs.is_empty() {
        output::aside(&format!("{} has no {state} jobs", queue.name()));
        return Ok(ExitCode::SUCCESS);
    }
    print_table(state, &jobs)?;
    if let Some(cursor) = cursor {
        output::note(&format!("more follow: --cursor {cursor}"));
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn search(queue: &Queue, args: &SearchArgs) -> anyhow::Result<ExitCode> {
    let source = args.source.as_ref().map(|source| format!("{source}#"));
    let filter = Filter {
        state: args.state,
        id_prefix: source.or_else(|| args.id_prefix.clone()).unwrap_or_default().into_bytes(),
        group: args.group.clone().map(String::into_bytes),
        error: args.error.clone(),
    };
    if (Filter { state: None, ..filter.clone() }) == Filter::default() {
        return Err(UsageError("what is looked for? Say --id-prefix, --source, --group or --error".to_owned()).into());
    }
    let counts = queue.counts().await?.by_state().into_iter();
    let looked_through = counts.filter(|(name, _)| args.state.is_none_or(|state| state.name() == *name));
    let total = looked_through.map(|(_, count)| count).sum();
    let limit = args.limit as usize;
    let (mut jobs, mut cursor, mut through) = (Vec::new(), args.cursor.clone(), false);
    let walked = go_through("searching", total, async || -> Result<Option<Step>, QueueError> {
        if through || jobs.len() >= limit {
            return Ok(None);
        }
        let found = queue.search(&filter, cursor.as_ref(), limit - jobs.len()).await?;
        let step = Step { looked_at: found.looked, done: found.jobs.len() };
        jobs.extend(found.jobs);
        cursor = found.next;
        through = cursor.is_none();
        Ok(Some(step))
    })
    .await?;
    queue.read_titles(&mut jobs).await?;
    if args.json {
        output::json(&json!({
            "jobs": jobs.iter().map(listed_json).collect::<Vec<_>>(),
            "lookedAt": walked.looked_at,
            "next": cursor.as_ref().map(ToString::to_string),
        }))?;
    } else if !jobs.is_empty() {
        print_matches(&jobs)?;
    }
    match cursor {
        Some(cursor) if walked.interrupted => {
            anyhow::bail!("interrupted after {} jobs; to go on, add --cursor {cursor}", walked.looked_at)
        }
        Some(cursor) if !args.json => output::note(&format!(
            "{} found among {} jobs; there may be more: --cursor {cursor}",
            jobs.len(),
            walked.looked_at
        )),
        None if !args.json => output::aside(&format!("{} found among {} jobs", jobs.len(), walked.looked_at)),
        _ => {}
    }
    Ok(ExitCode::SUCCESS)
}

/// The jobs of one state.
fn print_table(state: ListState, jobs: &[Listed]) -> anyhow::Result<()> {
    let (when, note) = match state {
        ListState::Waiting => ("since UTC", "note"),
        ListState::Prioritized => ("enqueued", "priority"),
        ListState::Active => ("idle", "consumer"),
        ListState::Delayed => ("due UTC", "last error"),
        ListState::Completed => ("ended UTC", "name"),
        ListState::Failed => ("failed UTC", "reason"),
    };
    let rows = jobs.iter().map(|job| [shown_id(job), shown_when(job), shown_attempts(job), shown_note(job)]);
    print_rows(["job", when, "tries", note], jobs, rows.collect())
}

/// Jobs of several states.
fn print_matches(jobs: &[Listed]) -> anyhow::Result<()> {
    let rows = jobs.iter().map(|job| {
        [shown_id(job), job.state().name().to_owned(), shown_attempts(job), one_line(job.error().unwrap_or_default())]
    });
    print_rows(["job", "state", "tries", "error"], jobs, rows.collect())
}

/// Prints a table of jobs whose first column is the id; beside it stand the titles, if any job has one.
fn print_rows(header: [&str; 4], jobs: &[Listed], mut rows: Vec<[String; 4]>) -> anyhow::Result<()> {
    if jobs.iter().all(|job| job.title.is_none()) {
        for [id, ..] in &mut rows {
            *id = shortened(id, ID_COLUMNS);
        }
        return output::table(header, 4, fitting(header, rows));
    }
    let has_notes = rows.iter().any(|[.., note]| !note.is_empty());
    let columns = if has_notes { TITLE_COLUMNS.0 } else { TITLE_COLUMNS.1 };
    let [job, when, tries, note] = header;
    let header = [job, "title", when, tries, note];
    let rows = rows.into_iter().zip(jobs).map(|([id, when, tries, note], job)| {
        let title = job.title.as_deref().map_or_else(|| "-".to_owned(), |title| shortened(&one_line(title), columns));
        [without_middle(&id, ID_BESIDE_TITLES), title, when, tries, note]
    });
    output::table(header, 5, fitting(header, rows.collect()))
}

fn shown_id(job: &Listed) -> String {
    one_line(&job.id.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string))
}

fn shown_when(job: &Listed) -> String {
    let at = |at: SystemTime| Timestamp::try_from(at).map_or_else(|_| "-".to_owned(), output::day_and_minute);
    let of_entry = |entry: Option<EntryId>| entry.map_or_else(|| "-".to_owned(), |entry| at(entry.at()));
    match &job.standing {
        Standing::Waiting | Standing::NotAdopted { .. } => of_entry(job.entry),
        Standing::Parked | Standing::Prioritized => {
            job.job.as_ref().map_or_else(|| "-".to_owned(), |job| at(job.enqueued_at))
        }
        Standing::Active(holder) => output::span(holder.idle),
        Standing::Delayed { due_at } => at(*due_at),
        Standing::Completed { finished_at } => at(*finished_at),
        Standing::Failed(letter) => at(letter.at),
    }
}

fn shown_attempts(job: &Listed) -> String {
    match (&job.job, &job.standing) {
        (Some(job), _) => job.head.attempts.to_string(),
        (None, Standing::Failed(letter)) => letter.attempts.to_string(),
        (None, _) => "-".to_owned(),
    }
}

fn shown_note(job: &Listed) -> String {
    let known = |text: String| if job.job.is_some() { text } else { "payload lost".to_owned() };
    match (&job.standing, &job.job) {
        (Standing::NotAdopted { json }, _) => {
            format!("not adopted yet: {}", one_line(&String::from_utf8_lossy(json)))
        }
        (Standing::Parked, Some(job)) => format!("parked in {}", String::from_utf8_lossy(&job.head.group)),
        (Standing::Prioritized, Some(job)) => job.head.priority.to_string(),
        (Standing::Active(holder), _) => holder.consumer.clone(),
        (Standing::Failed(letter), _) => one_line(&letter.reason),
        (Standing::Completed { .. }, Some(job)) => job.name.clone().unwrap_or_default(),
        (Standing::Waiting | Standing::Parked | Standing::Prioritized | Standing::Completed { .. }, _) => {
            known(String::new())
        }
        (Standing::Delayed { .. }, _) => known(one_line(job.error().unwrap_or_default())),
    }
}
