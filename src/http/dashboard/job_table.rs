//! Jobs as rows of a table: what is listed, and what was found.

use maud::{Markup, html};
use percent_encoding::percent_encode;

use super::page::{PART, Page};
use super::view::{bytes, span, state, system_time};
use crate::queue::list::{Listed, Standing};

pub(super) fn job_table(page: &Page, queue: &str, rows: &[Listed], with_state: bool) -> Markup {
    let may_act = page.may_act();
    let when = rows.first().map_or("When", |row| match (with_state, &row.standing) {
        (true, _) => "When",
        (_, Standing::Active(_)) => "Held for",
        (_, Standing::Delayed { .. }) => "Due",
        (_, Standing::Completed { .. }) => "Ended",
        (_, Standing::Failed(_)) => "Died",
        _ => "Since",
    });
    html! {
        table.fold {
            thead {
                tr {
                    @if may_act { th.pick scope="col" { input.script type="checkbox" data-all="" aria-label="Select all on this page"; span.skip { "Select" } } }
                    th scope="col" { "Job" }
                    @if with_state { th scope="col" { "State" } }
                    th scope="col" { (when) }
                    th.num scope="col" { "Failed" }
                    th.num scope="col" { "Size" }
                    th scope="col" { "Note" }
                }
            }
            tbody { @for row in rows { (job_row(page, queue, row, with_state)) } }
        }
    }
}

fn job_row(page: &Page, queue: &str, row: &Listed, with_state: bool) -> Markup {
    let encoded = row.id.as_ref().map(|id| percent_encode(id.as_bytes(), PART).to_string());
    let attempts = match (&row.job, &row.standing) {
        (Some(job), _) => Some(u64::from(job.head.attempts)),
        (None, Standing::Failed(letter)) => Some(u64::from(letter.attempts)),
        (None, _) => None,
    };
    let (note, is_bad) = note(row);
    html! {
        tr {
            @if page.may_act() {
                td.pick { @if let (Some(id), Some(encoded)) = (&row.id, &encoded) { input type="checkbox" name="id" value=(encoded) aria-label=(format!("Select {id}")); } }
            }
            td.wide {
                @match (&row.id, &row.title) {
                    (Some(id), Some(title)) => { a.clip href=(page.job_url(queue, id)) { (title) } span.id.mono { (id) } },
                    (Some(id), None) => a href=(page.job_url(queue, id)) { (id) },
                    (None, Some(title)) => { (title) span.id { "an entry that no job is made of" } },
                    (None, None) => span.dim { "an entry that no job is made of" },
                }
                @if let Some(job) = &row.job {
                    @if let Some(name) = &job.name { " " span.badge { (name) } }
                }
            }
            @if with_state { td { (state(row.state().name())) } }
            td.nowrap data-name="" { (shown_when(row)) }
            td.num data-name="failed attempts" { @if let Some(attempts) = attempts.filter(|n| *n > 0) { (attempts) } }
            td.num data-name="size" { @if let Some(job) = &row.job { (bytes(job.payload_bytes)) } }
            td.note.(if is_bad { "bad" } else { "" }) { @if !note.is_empty() { span.clip { (note) } } }
        }
    }
}

fn shown_when(row: &Listed) -> Markup {
    match &row.standing {
        Standing::Waiting | Standing::NotAdopted { .. } => match row.entry {
            Some(entry) => system_time(entry.at()),
            None => row.job.as_ref().map_or_else(|| html! {}, |job| system_time(job.enqueued_at)),
        },
        Standing::Parked | Standing::Prioritized => {
            row.job.as_ref().map_or_else(|| html! {}, |job| system_time(job.enqueued_at))
        }
        Standing::Active(holder) => html! { (span(holder.idle)) },
        Standing::Delayed { due_at } => system_time(*due_at),
        Standing::Completed { finished_at } => system_time(*finished_at),
        Standing::Failed(letter) => system_time(letter.at),
    }
}

/// What there is to say of a job, and whether it is bad news.
fn note(row: &Listed) -> (String, bool) {
    const CHARS_MAX: usize = 300;
    let (note, is_bad) = match &row.standing {
        Standing::NotAdopted { json } => (format!("not adopted yet: {}", String::from_utf8_lossy(json)), false),
        Standing::Parked => {
            let group = row.job.as_ref().map(|job| String::from_utf8_lossy(&job.head.group).into_owned());
            (format!("parked in {}", group.unwrap_or_default()), false)
        }
        Standing::Active(holder) => (holder.consumer.clone(), false),
        Standing::Prioritized => {
            (row.job.as_ref().map_or_else(String::new, |job| format!("priority {}", job.head.priority)), false)
        }
        Standing::Failed(letter) => (letter.reason.clone(), true),
        Standing::Waiting | Standing::Delayed { .. } | Standing::Completed { .. } => {
            (row.error().unwrap_or_default().to_owned(), true)
        }
    };
    if note.is_empty() && row.job.is_none() {
        return ("its payload is lost".to_owned(), true);
    }
    (note.chars().take(CHARS_MAX).collect(), is_bad)
}
