//! A queue: its jobs by state, search among them, what is done with some or all of them, its last hour.

use std::fmt::Write as _;

use axum::response::Response;
use jiff::Timestamp;
use maud::{Markup, html};

use super::job_table::job_table;
use super::page::{Page, live_count};
use super::view::{chart, counted, time};
use crate::http::{ApiError, readings};
use crate::job::JobId;
use crate::job::title::title_of;
use crate::queue::counts::Counts;
use crate::queue::list::{Cursor, ListState, Listed, Standing};
use crate::queue::search::Filter;
use crate::queue::{Order, Queue};

/// Jobs of a page.
const ROWS: usize = 50;

/// Events that a page begins with.
const EVENTS: usize = 8;

/// What is looked for on the page of a queue.
struct Search {
    by: String,
    text: String,
    everywhere: bool,
}

pub(super) async fn show(page: Page) -> Result<Response, ApiError> {
    let queue = readings::queue(&page.app, &page.part(1)).await?;
    let name = queue.name().to_owned();
    let counts = readings::counts(&page.app, &queue).await?;
    let cursor = page.params.parsed::<Cursor>("cursor")?;
    let state = page.params.parsed::<ListState>("state")?.or_else(|| cursor.as_ref().map(Cursor::state));
    let state = state.unwrap_or_else(|| first_with_jobs(&counts));
    let order = match page.params.text("order") {
        Some("asc") => Order::Ascending,
        Some("desc") => Order::Descending,
        // What died or ended last is what people come for.
        _ if matches!(state, ListState::Failed | ListState::Completed) => Order::Descending,
        _ => Order::Ascending,
    };
    let search = page.params.text("text").map(|text| Search {
        by: page.params.text("by").unwrap_or("id").to_owned(),
        text: text.to_owned(),
        everywhere: page.params.text("everywhere").is_some(),
    });
    let (rows, next, note) = match &search {
        None => {
            let listed = readings::list(&page.app, &queue, (state, order), cursor.as_ref(), ROWS).await?;
            (listed.jobs.clone(), listed.next.clone(), None)
        }
        Some(search) => found(&page, &queue, search, state, cursor.as_ref()).await?,
    };
    let here = page.queue_url(&name);
    let is_everywhere = search.as_ref().is_some_and(|search| search.everywhere);
    let order_word = order.word();
    let address = |cursor: &str| {
        let mut params = vec![("state", state.name()), ("order", order_word)];
        if let Some(search) = &search {
            params = vec![("state", state.name()), ("by", &search.by), ("text", &search.text)];
            params.extend(search.everywhere.then_some(("everywhere", "yes")));
        }
        params.push(("cursor", cursor));
        page.with_params(&here, &params)
    };
    let cursor_text = cursor.as_ref().map(ToString::to_string).unwrap_or_default();
    let is_live = search.is_none() && cursor.is_none();
    let other = if order == Order::Ascending { "desc" } else { "asc" };
    let chart_of = readings::chart(&page.app, &queue).await?;
    let events = readings::events(&page.app, &queue, EVENTS).await?;
    let body = html! {
        div.head {
            div {
                h1 { (name) }
                @if counts.is_paused { span.badge.warn { "paused" } }
                @if counts.consumers_alive == 0 { span.badge.bad { "no worker" } }
            }
            div {
                @if page.may_act() {
                    @if counts.is_paused {
                        (page.button(&here, ("do", "resume"), "Resume", "main"))
                    } @else {
                        (page.button(&here, ("do", "pause"), "Pause", ""))
                    }
                    a.button href=(format!("{here}/add")) { "Add a job" }
                }
                @if counts.failed > 0 { a.button href=(format!("{here}/dead")) { "Dead letters by reason" } }
            }
        }
        section.panel.flush aria-label="Jobs" {
            nav.tabs aria-label="States" {
                @for tab in ListState::ALL {
                    a href=(page.with_params(&here, &[("state", tab.name())])) aria-current=[(tab == state && !is_everywhere).then_some("page")] {
                        (label(tab)) b { (live_count(&name, tab.name(), count_of(&counts, tab))) }
                    }
                }
            }
            form.bar method="get" action=(here) role="search" {
                input type="hidden" name="state" value=(state.name());
                label { span.skip { "Search by" }
                    select name="by" aria-label="Search by" {
                        @for (by, text) in [("id", "id begins with"), ("source", "source is"), ("error", "error contains"), ("group", "group is")] {
                            option value=(by) selected[search.as_ref().is_some_and(|search| search.by == by)] { (text) }
                        }
                    }
                }
                input type="search" name="text" aria-label="Search for" placeholder="Search jobs ( / )" value=(search.as_ref().map_or("", |search| &search.text)) size="28";
                label.inline { input type="checkbox" name="everywhere" value="yes" checked[search.as_ref().is_none_or(|search| search.everywhere)]; "in all states" }
                button { "Search" }
                @if search.is_some() { a href=(page.with_params(&here, &[("state", state.name())])) { "Clear" } }
                @else if let Some(other_order) = Some(other) {
                    a.push href=(page.with_params(&here, &[("state", state.name()), ("order", other_order)])) {
                        (if order == Order::Ascending { "Last first" } else { "First first" })
                    }
                }
            }
            @if let Some(note) = &note { p.dim role="status" { (note) } }
            form #jobs method="post" action=(here) data-select="" data-refresh=[is_live.then(|| format!("queue {name}"))] {
                (page.form_token())
                input type="hidden" name="back" value=(address(&cursor_text));
                @if rows.is_empty() {
                    p.empty { (if search.is_some() { "Nothing was found." } else { "There are no such jobs." }) }
                } @else {
                    div.scroll { (job_table(&page, &name, &rows, search.is_some())) }
                }
                div.bar.below {
                    @if page.may_act() && rows.iter().any(|row| row.id.is_some()) {
                        span.dim.script data-chosen="" { "None selected" }
                        (bulk_buttons(state, search.is_some()))
                    }
                    span.push {}
                    @if cursor.is_some() { a href=(address("")) { "First page" } }
                    @if let Some(next) = &next { a.button href=(address(&next.to_string())) { (if search.is_some() { "Search on" } else { "Next page" }) } }
                }
            }
        }
        div.grid.loose {
            section.panel {
                h2 { "Last hour" }
                div #chart data-refresh=(format!("queue {name}")) { (chart(&chart_of, &name)) }
            }
            section.panel {
                h2 { "What happened" }
                @if events.is_empty() { p.dim { "Nothing of note yet." } }
                ul.events data-events=(name) {
                    @for event in events.iter().rev() {
                        li {
                            (time(Timestamp::from_millisecond(event.id.ms as i64).ok())) " " b { (event.name) } " "
                            @if let Some(job) = &event.job { a href=(page.job_url(&name, job)) { (job) } }
                            @if let Some(reason) = event.field("failedReason").or_else(|| event.field("reason")) { span.dim { " — " (reason) } }
                        }
                    }
                }
            }
        }
        @if page.may_act() { (whole_queue(&page, &queue, &counts).await?) }
    };
    Ok(page.shell(&name, "overview", &body))
}

pub(super) fn count_of(counts: &Counts, state: ListState) -> u64 {
    counts.by_state().into_iter().find(|(name, _)| *name == state.name()).map_or(0, |(_, count)| count)
}

/// A state, as people read it. Dead letters are BullMQ's failed jobs.
pub(super) fn label(state: ListState) -> &'static str {
    match state {
        ListState::Failed => "dead (failed)",
        other => other.name(),
    }
}

/// Where there is something to see.
fn first_with_jobs(counts: &Counts) -> ListState {
    ListState::ALL.into_iter().find(|state| count_of(counts, *state) > 0).unwrap_or(ListState::Waiting)
}

type Rows = (Vec<Listed>, Option<Cursor>, Option<String>);

async fn found(
    page: &Page,
    queue: &Queue,
    search: &Search,
    state: ListState,
    cursor: Option<&Cursor>,
) -> Result<Rows, ApiError> {
    let mut filter = Filter { state: (!search.everywhere).then_some(state), ..Filter::default() };
    match search.by.as_str() {
        "source" => filter.id_prefix = format!("{}#", search.text).into_bytes(),
        "error" => filter.error = Some(search.text.clone()),
        "group" => filter.group = Some(search.text.as_bytes().to_vec()),
        "id" => filter.id_prefix = search.text.as_bytes().to_vec(),
        _ => return Err(ApiError::BadRequest("by: accepted are id, source, error, group".to_owned())),
    }
    let mut note = String::new();
    // A whole id is found at once, however many jobs there are.
    if search.by == "id"
        && cursor.is_none()
        && let Ok(id) = JobId::new(&search.text)
        && let Some(found) = queue.find(&id).await?
    {
        note = format!("There is a job of just this id: it is {}. ", found.state.name());
        let listed = Listed {
            id: Some(id),
            entry: None,
            standing: standing_of(&found),
            job: Some(crate::queue::list::Summary {
                head: found.job.head.clone(),
                enqueued_at: found.job.enqueued_at,
                name: found.job.name.clone(),
                feed: found.job.feed.clone(),
                options: found.job.options.clone(),
                payload_bytes: found.job.payload().len() as u64,
            }),
            failure: found.failure.clone(),
            title: title_of(found.job.payload()),
        };
        return Ok((vec![listed], None, Some(note)));
    }
    let matches = readings::search(&page.app, queue, &filter, cursor, ROWS).await?;
    let _ = write!(note, "{} found among {}", matches.jobs.len(), counted(matches.looked_at as u64, "job")); // a String takes it
    note += if matches.next.is_some() { "; there is more to look at." } else { "; that was all." };
    Ok((matches.jobs.clone(), matches.next.clone(), Some(note)))
}

fn standing_of(found: &crate::queue::find::Found) -> Standing {
    use crate::queue::find::State;
    match (&found.state, &found.holder) {
        (State::Delayed { due_at }, _) => Standing::Delayed { due_at: *due_at },
        (State::Completed { finished_at }, _) => Standing::Completed { finished_at: *finished_at },
        (State::Prioritized, _) => Standing::Prioritized,
        (State::Active, Some(holder)) => Standing::Active(holder.clone()),
        (State::Failed { reason }, _) => Standing::Failed(crate::queue::dead_letter::DeadLetter {
            entry: crate::job::EntryId { ms: 0, seq: 0 },
            id: Some(found.job.id.clone()),
            reason: reason.clone(),
            attempts: u32::from(found.job.head.attempts),
            at: found.failure.as_ref().map_or(found.job.enqueued_at, |failure| failure.last_at),
            consumer: String::new(),
            raw: None,
        }),
        _ => Standing::Waiting,
    }
}

fn bulk_buttons(of: ListState, is_search: bool) -> Markup {
    let fits = |states: &[ListState]| is_search || states.contains(&of);
    html! {
        @if fits(&[ListState::Failed, ListState::Completed]) { button data-bulk="" name="do" value="retry-these" { "Retry" } }
        @if fits(&[ListState::Delayed]) { button data-bulk="" name="do" value="promote-these" { "Promote" } }
        @if fits(&[ListState::Waiting, ListState::Prioritized, ListState::Active, ListState::Delayed]) {
            button data-bulk="" name="do" value="cancel-these" { "Cancel" }
        }
        @if fits(&[ListState::Waiting, ListState::Prioritized, ListState::Delayed, ListState::Failed, ListState::Completed]) {
            button.danger data-bulk="" name="do" value="remove-these" data-confirm="Remove the selected jobs for good?" { "Remove" }
        }
    }
}

/// What is done with a queue as a whole.
async fn whole_queue(page: &Page, queue: &Queue, counts: &Counts) -> Result<Markup, ApiError> {
    let (name, here) = (queue.name(), page.queue_url(queue.name()));
    let limits = readings::limits(&page.app, queue).await?;
    let act = |value: &str, text: &str, about: &str, confirm: Option<&str>, extra: Markup| {
        html! {
            form method="post" action=(here) {
                (page.form_token())
                p { (about) }
                (extra)
                button.(if confirm.is_some() { "danger" } else { "" }) name="do" value=(value) data-confirm=[confirm] { (text) }
            }
        }
    };
    Ok(html! {
        details.panel.more {
            summary { "The whole queue: retry, promote, clean, drain, limit, obliterate" }
            div.acts {
                (act("redrive", "Redrive all", &format!("Bring {} back to waiting, at attempt 1.", counted(counts.failed, "dead letter")), None, html! {}))
                @if counts.completed > 0 { (act("retry-completed", "Retry all", "Do all completed jobs that are kept once more.", None, html! {})) }
                (act("promote", "Promote all", &format!("Let {} wait now.", counted(counts.delayed, "delayed job")), None, html! {}))
                (act("concurrency", "Limit", "At most so many jobs active at once, over all workers; empty for no limit.", None, html! {
                    input type="number" name="concurrency" min="1" aria-label="Jobs active at once" value=[limits.limits.concurrency];
                }))
                (act("clean", "Clean", "Remove the jobs of a state that are older than this.", Some("Remove these jobs for good?"), html! {
                    select name="state" aria-label="State" { @for state in ["completed", "failed", "delayed", "waiting", "prioritized"] { option value=(state) { (state) } } }
                    input name="grace" value="1h" size="6" aria-label="Older than";
                }))
                (act("drain", "Drain", "Remove every job that waits. Feeds forget what was not stored, so that it comes again.", Some("Remove every job that waits?"), html! {
                    label.inline { input type="checkbox" name="delayed" value="yes"; "delayed jobs too" }
                }))
                (act("obliterate", "Obliterate", "Delete the queue with everything in it. It must be paused, and nobody may work on it.", Some("Delete the whole queue?"), html! {
                    input name="confirm" placeholder=(name) aria-label="Type the name of the queue to confirm" autocomplete="off" required;
                    label.inline { input type="checkbox" name="force" value="yes"; "active jobs too" }
                }))
            }
        }
    })
}
