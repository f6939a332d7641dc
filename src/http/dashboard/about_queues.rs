//! Pages about queues: all of them, one with its jobs, its dead letters; schedulers, workers, operations, health.

use std::fmt::Write as _;
use std::time::Duration;

use axum::response::Response;
use jiff::Timestamp;
use maud::{Markup, html};
use percent_encoding::percent_encode;

use super::view::{bytes, chart, number, span, state, system_time, time};
use super::{PART, Page, live_count};
use crate::check::{Check, Status};
use crate::http::operations::{Operation, OperationState};
use crate::http::{ApiError, health_facts, readings};
use crate::job::JobId;
use crate::queue::consumers::ConsumerState;
use crate::queue::counts::Counts;
use crate::queue::list::{Cursor, ListState, Listed, Standing};
use crate::queue::schedulers::SchedulerCursor;
use crate::queue::search::Filter;
use crate::queue::{Order, Queue};
use crate::views::slot_at;

/// Jobs of a page.
const ROWS: usize = 50;
/// From this age on, waiting jobs are an alert where nobody works on them.
const OLD: Duration = Duration::from_mins(10);
/// Events that a page begins with.
const EVENTS: usize = 12;

fn count_of(counts: &Counts, state: ListState) -> u64 {
    counts.by_state().into_iter().find(|(name, _)| *name == state.name()).map_or(0, |(_, count)| count)
}

/// What is wrong with a queue, in words.
fn alerts(name: &str, counts: &Counts) -> Vec<String> {
    let mut alerts = Vec::new();
    let waits = counts.waiting + counts.prioritized + counts.active;
    if counts.consumers_alive == 0 && waits + counts.delayed > 0 {
        alerts.push(format!(
            "{name}: no worker is alive, and {} jobs are there to be done",
            number(waits + counts.delayed)
        ));
    }
    if counts.is_paused {
        alerts.push(format!("{name} is paused: nothing is handed out"));
    } else if let Some(age) = counts.oldest_waiting.filter(|age| *age > OLD) {
        alerts.push(format!("{name}: the job at the front has been waiting for {}", span(age)));
    }
    if counts.failed > 0 {
        alerts.push(format!("{name}: {} dead letters", number(counts.failed)));
    }
    alerts
}

pub(super) async fn overview(page: Page) -> Result<Response, ApiError> {
    let seen = readings::overview(&page.app).await?;
    let mut cards = Vec::new();
    for one in &seen {
        let queue = readings::queue(&page.app, &one.name).await?;
        let chart_of = readings::chart(&page.app, &queue).await?;
        cards.push(card(&page, one, &chart(&chart_of, &one.name)));
    }
    let alerts: Vec<String> = seen.iter().flat_map(|one| alerts(&one.name, &one.counts)).collect();
    let body = html! {
        div.head { h1 { "Overview" } }
        @if !alerts.is_empty() {
            section.panel.alert aria-label="What needs a look" {
                ul { @for alert in &alerts { li { (alert) } } }
            }
        }
        div.grid { @for card in cards { (card) } }
    };
    Ok(page.shell("Overview", "overview", &body))
}

fn card(page: &Page, seen: &readings::Seen, chart: &Markup) -> Markup {
    let readings::Seen { name, counts } = seen;
    let about = format!("queue {name}");
    html! {
        section.panel.card {
            h2 {
                a href=(page.queue_url(name)) { (name) }
                @if counts.is_paused { span.badge.warn { "paused" } }
            }
            div.counts {
                @for state in ListState::ALL {
                    @let count = count_of(counts, state);
                    a.hot[state == ListState::Failed && count > 0] href=(page.with_params(&page.queue_url(name), &[("state", state.name())])) {
                        b { (live_count(name, state.name(), count)) }
                        span { (label(state)) }
                    }
                }
            }
            div id=(format!("card-{name}")) data-refresh=(about) {
                (chart)
                div.facts {
                    span { "oldest waiting " b { (counts.oldest_waiting.map_or_else(|| "–".to_owned(), span)) } }
                    span { "workers " b { (live_count(name, "consumers", counts.consumers_alive)) } }
                    @if counts.parked > 0 { span { "parked " b { (number(counts.parked)) } } }
                    @if let Some(done) = counts.totals.get("completed") { span { "done in all " b { (number(*done)) } } }
                    @if let Some(retried) = counts.totals.get("retried").filter(|n| **n > 0) { span { "retried " b { (number(*retried)) } } }
                    @if let Some(stalled) = counts.totals.get("stalled").filter(|n| **n > 0) { span { "stalled " b { (number(*stalled)) } } }
                }
            }
        }
    }
}

/// A state, as people read it. Dead letters are BullMQ's failed jobs.
fn label(state: ListState) -> &'static str {
    match state {
        ListState::Failed => "dead (failed)",
        other => other.name(),
    }
}

/// What is looked for on the page of a queue.
struct Search {
    by: String,
    text: String,
    everywhere: bool,
}

pub(super) async fn queue(page: Page) -> Result<Response, ApiError> {
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
                    a href=(page.with_params(&here, &[("state", tab.name())])) aria-current=[(tab == state).then_some("page")] {
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
                    div.scroll { (jobs_table(&page, &name, &rows, search.is_some())) }
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
        div.grid {
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
                            (time(Timestamp::from_millisecond(event.id.ms as i64).ok())) " " (event.name) " "
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
        };
        return Ok((vec![listed], None, Some(note)));
    }
    let matches = readings::search(&page.app, queue, &filter, cursor, ROWS).await?;
    let _ = write!(note, "{} found among {} jobs", matches.jobs.len(), number(matches.looked_at as u64)); // a String takes it
    note += if matches.next.is_some() { "; there is more to look at." } else { "; that were all." };
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

fn jobs_table(page: &Page, queue: &str, rows: &[Listed], with_state: bool) -> Markup {
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
                @match &row.id {
                    Some(id) => a href=(page.job_url(queue, id)) { (id) },
                    None => span.dim { "an entry that no job is made of" },
                }
                @if let Some(job) = &row.job {
                    @if let Some(name) = &job.name { " " span.badge { (name) } }
                }
            }
            @if with_state { td { (state(row.state().name())) } }
            td.nowrap data-name="" { (shown_when(row)) }
            td.num data-name="failed attempts" { @if let Some(attempts) = attempts { (attempts) } }
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
                (act("redrive", "Redrive all", &format!("Bring all {} dead letters back to waiting, at attempt 1.", number(counts.failed)), None, html! {}))
                @if counts.completed > 0 { (act("retry-completed", "Retry all", "Do all completed jobs that are kept once more.", None, html! {})) }
                (act("promote", "Promote all", &format!("Let all {} delayed jobs wait now.", number(counts.delayed)), None, html! {}))
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

pub(super) async fn dead(page: Page) -> Result<Response, ApiError> {
    let queue = readings::queue(&page.app, &page.part(1)).await?;
    let (name, here) = (queue.name().to_owned(), page.queue_url(queue.name()));
    let groups = readings::dead_groups(&page.app, &queue).await?;
    let body = html! {
        div.head {
            p.crumbs { a href=(here) { (name) } " / dead letters" }
            div { h1 { "Dead letters by reason" } }
            @if page.may_act() && !groups.groups.is_empty() {
                div {
                    (page.button(&here, ("do", "redrive"), "Redrive all", "main"))
                }
            }
        }
        section.panel.flush #groups data-refresh=(format!("queue {name}")) {
            p.dim {
                (number(groups.looked_at)) " letters in " (groups.groups.len()) " groups, as of " (time(groups.at))
                @if !groups.is_through { ". They are still being counted: load the page again for more." }
            }
            @if groups.groups.is_empty() { p.empty { (if groups.is_through { "Nothing is dead." } else { "Counting …" }) } }
            @else {
                div.scroll {
                    table.fold {
                        thead { tr { th scope="col" { "Reason" } th.num scope="col" { "Letters" } th scope="col" { "First" } th scope="col" { "Last" } th scope="col" { span.skip { "Actions" } } } }
                        tbody {
                            @for group in &groups.groups {
                                tr {
                                    td.wide {
                                        (group.reason)
                                        @if let Some(example) = &group.example { br; span.dim { "such as " a href=(page.job_url(&name, example)) { (example) } } }
                                    }
                                    td.num data-name="letters" { (number(group.letters)) }
                                    td.nowrap data-name="first" { (system_time(group.oldest)) }
                                    td.nowrap data-name="last" { (system_time(group.newest)) }
                                    td {
                                        @if page.may_act() {
                                            form.inline method="post" action=(here) {
                                                (page.form_token())
                                                input type="hidden" name="group" value=(group.reason);
                                                button name="do" value="redrive" { "Redrive" }
                                                button.danger name="do" value="remove-dead" data-confirm="Remove all dead letters of this group for good?" { "Remove" }
                                            }
                                        }
                                    }
                                }
                            }
                        }
                    }
                }
            }
        }
        @if page.may_act() {
            section.panel {
                h2 { "Redrive by a part of the reason" }
                form.inline method="post" action=(here) {
                    (page.form_token())
                    input name="reason" aria-label="Part of the reason" required size="30";
                    button name="do" value="redrive" { "Redrive" }
                }
            }
        }
    };
    Ok(page.shell(&format!("Dead letters of {name}"), "overview", &body))
}

pub(super) async fn schedulers(page: Page) -> Result<Response, ApiError> {
    let names = readings::names(&page.app).await?;
    let wanted = page.params.text("queue").unwrap_or_else(|| page.app.queues.fetch.name()).to_owned();
    let queue = readings::queue(&page.app, &wanted).await?;
    let cursor = page.params.parsed::<SchedulerCursor>("cursor")?;
    let listed = readings::schedulers(&page.app, &queue, cursor.as_ref(), ROWS).await?;
    let feeds = page.app.feeds.current();
    let here = page.url("/schedulers");
    let body = html! {
        div.head { div { h1 { "Schedulers" } } span.dim { (number(listed.total as u64)) " of " (wanted) ", the next to be due first" } }
        section.panel.flush {
            nav.tabs aria-label="Queues" {
                @for name in names.iter() {
                    a href=(page.with_params(&here, &[("queue", name)])) aria-current=[(*name == wanted).then_some("page")] { (name) }
                }
            }
            @if listed.schedulers.is_empty() { p.empty { "There are none." } }
            @else {
                div.scroll {
                    table.fold {
                        thead { tr { th scope="col" { "Scheduler" } th scope="col" { "Schedule" } th scope="col" { "Next" } th scope="col" { "Last" } th.num scope="col" { "Fired" } th scope="col" { span.skip { "Actions" } } } }
                        tbody {
                            @for one in &listed.schedulers {
                                @let feed = feeds.get(&one.id).filter(|_| one.stored.is_none());
                                tr {
                                    td.wide {
                                        @if feed.is_some() { a href=(page.feed_url(&one.id)) { (one.id) } " " span.badge { "feed" } }
                                        @else { (one.id) }
                                    }
                                    td {
                                        @match (&one.stored, feed) {
                                            (Some(stored), _) => @match &stored.definition {
                                                Ok(definition) => (definition.repeat),
                                                Err(reason) => span.bad { "damaged: " (reason) },
                                            },
                                            (None, Some(feed)) => @if let Some(schedule) = &feed.schedule { (schedule) },
                                            (None, None) => span.dim { "unknown" },
                                        }
                                    }
                                    td.nowrap data-name="next" { (time(slot_at(one.next_slot_ms))) }
                                    td.nowrap data-name="last" { @if let Some(stored) = &one.stored { (time(slot_at(stored.last_slot_ms))) } }
                                    td.num data-name="fired" { @if let Some(stored) = &one.stored { (number(stored.fired)) } }
                                    td {
                                        @if page.may_act() && feed.is_none() {
                                            form method="post" action=(here) {
                                                (page.form_token())
                                                input type="hidden" name="queue" value=(wanted);
                                                input type="hidden" name="scheduler" value=(one.id);
                                                button.danger data-confirm="Remove this scheduler?" { "Remove" }
                                            }
                                        }
                                    }
                                }
                            }
                        }
                    }
                }
            }
            @if let Some(next) = &listed.next {
                div.bar.below { span.push {} a.button href=(page.with_params(&here, &[("queue", &wanted), ("cursor", &next.to_string())])) { "Next page" } }
            }
        }
    };
    Ok(page.shell("Schedulers", "schedulers", &body))
}

pub(super) async fn workers(page: Page) -> Result<Response, ApiError> {
    let mut rows: Vec<(String, ConsumerState)> = Vec::new();
    for name in readings::names(&page.app).await?.iter() {
        let queue = readings::queue(&page.app, name).await?;
        let of_queue = readings::workers(&page.app, &queue).await?;
        rows.extend(of_queue.iter().map(|worker| (name.clone(), worker.clone())));
    }
    let alive = rows.iter().filter(|(_, worker)| worker.is_alive).count();
    let body = html! {
        div.head { div { h1 { "Workers" } } span.dim { (alive) " alive" } }
        section.panel.flush {
            @if rows.is_empty() { p.empty { "There are no workers. `feedmill worker` starts one." } }
            @else {
                div.scroll {
                    table.fold {
                        thead { tr { th scope="col" { "Host and process" } th scope="col" { "Queue" } th scope="col" { "Heartbeat" } th scope="col" { "Since" } th.num scope="col" { "Jobs" } th scope="col" { "Runs" } } }
                        tbody {
                            @for (queue, worker) in &rows {
                                tr {
                                    td.wide {
                                        @match &worker.about {
                                            Some(about) => { b { (about.host) } " " span.dim { "pid " (about.pid) } },
                                            None => (worker.name),
                                        }
                                        " " (state(if worker.is_alive { "alive" } else { "dead" }))
                                    }
                                    td { a href=(page.queue_url(queue)) { (queue) } }
                                    td.nowrap data-name="heartbeat" { @if let Some(at) = worker.heartbeat_at { (system_time(at)) } }
                                    td.nowrap data-name="since" { @if let Some(about) = &worker.about { (system_time(about.started_at)) } }
                                    td.num data-name="jobs" { (number(worker.pending)) }
                                    td.note { @for id in worker.running.iter().take(5) { div { a href=(page.job_url(queue, id)) { (id) } } } }
                                }
                            }
                        }
                    }
                }
            }
        }
    };
    Ok(page.shell("Workers", "workers", &body))
}

fn operation_parts(operation: &Operation) -> Markup {
    let progress = operation.progress();
    let most = operation.total.max(progress.looked_at).max(1);
    html! {
        @if progress.state == OperationState::Running {
            progress max=(most) value=(progress.looked_at) aria-label=(operation.what) {}
        }
        span.num data-progress="" { (number(progress.done)) " done, " (number(progress.looked_at)) " looked at" }
        @if let OperationState::Failed(error) = &progress.state { p.bad { (error) } }
    }
}

pub(super) async fn operations(page: Page) -> Result<Response, ApiError> {
    let all = page.app.operations.all();
    let body = html! {
        div.head { div { h1 { "Operations" } } span.dim { "on many jobs, of this process" } }
        section.panel.flush #operations data-refresh="operations" {
            @if all.is_empty() { p.empty { "Nothing was asked for yet." } }
            @else {
                div.scroll {
                    table.fold {
                        thead { tr { th scope="col" { "Operation" } th scope="col" { "State" } th scope="col" { "Began" } th scope="col" { "By" } th scope="col" { "Progress" } } }
                        tbody {
                            @for operation in &all {
                                tr data-operation=(operation.id) data-state=(operation.progress().state.word()) {
                                    td.wide { a href=(page.url(&format!("/operations/{}", operation.id))) { (operation.what) " in " (operation.queue) } }
                                    td { (state(operation.progress().state.word())) }
                                    td.nowrap { (time(operation.started_at)) }
                                    td { (operation.by) }
                                    td { (operation_parts(operation)) }
                                }
                            }
                        }
                    }
                }
            }
        }
    };
    Ok(page.shell("Operations", "operations", &body))
}

pub(super) async fn operation(page: Page) -> Result<Response, ApiError> {
    let id = page.part(1);
    let operation = page.app.operations.find(&id).ok_or(ApiError::Missing { what: "operation", name: id })?;
    let progress = operation.progress();
    let here = page.url(&format!("/operations/{}", operation.id));
    let body = html! {
        div.head #operation-head data-refresh="operations" {
            p.crumbs { a href=(page.url("/operations")) { "Operations" } " / " (operation.id) }
            div { h1 { (operation.what) } (state(progress.state.word())) }
            @if page.may_act() && progress.state == OperationState::Running { (page.button(&here, ("do", "stop"), "Stop", "danger")) }
        }
        section.panel #operation data-refresh="operations" data-operation=(operation.id) data-state=(progress.state.word()) {
            (operation_parts(&operation))
            dl.about {
                dt { "Queue" } dd { a href=(page.queue_url(&operation.queue)) { (operation.queue) } }
                dt { "About" } dd { (number(operation.total)) " jobs" }
                dt { "By" } dd { (operation.by) }
                dt { "Began" } dd { (time(operation.started_at)) }
                dt { "Ended" } dd { (time(progress.ended_at)) }
            }
        }
        @if progress.state == OperationState::Running { noscript { p { a href=(here) { "Load again to see how far it is" } } } }
    };
    Ok(page.shell(&operation.what, "operations", &body))
}

/// What is not as it should be, and what mends it.
fn checks_list(checks: &[Check]) -> Markup {
    html! {
        @for check in checks.iter().filter(|check| check.status != Status::Ok) {
            p.(if check.status == Status::Error { "bad" } else { "warn" }) {
                (check.detail)
                @if let Some(fix) = &check.fix { br; code { (fix) } }
            }
        }
    }
}

pub(super) async fn health(page: Page) -> Result<Response, ApiError> {
    let health = health_facts::health(&page.app).await?;
    let body = html! {
        div.head { div { h1 { "Health" } } span.dim { code { "feedmill doctor" } " and " code { "feedmill xinfo" } " look closer" } }
        @if !health.stopped.is_empty() { section.panel.problem { "Stopped in this process: " (health.stopped.join(", ")) } }
        @if !health.findings.is_empty() {
            section.panel.flush {
                h2 { "Queues" }
                div.scroll {
                    table.fold {
                        thead { tr { th scope="col" { "Queue" } th scope="col" { "What was found" } th scope="col" { "What mends it" } } }
                        tbody {
                            @for (queue, finding) in &health.findings {
                                tr {
                                    td { a href=(page.queue_url(queue)) { (queue) } }
                                    td.wide.(if finding.status == Status::Error { "bad" } else { "" }) { (finding.verdict) }
                                    td.note { code { (finding.fix) } }
                                }
                            }
                        }
                    }
                }
            }
        }
        div.grid {
            section.panel {
                h2 { "Redis" }
                @match &health.redis {
                    Err(error) => p.bad { (error) },
                    Ok(facts) => {
                        (checks_list(&facts.checks))
                        dl.about {
                            dt { "Address" } dd { (facts.address) }
                            dt { "Round trip" } dd { (format!("{:.1} ms", facts.ping.as_secs_f64() * 1000.0)) }
                            @for name in health_facts::TOLD {
                                @if let Some(value) = facts.info.get(name) { dt { (name.replace('_', " ")) } dd { (value) } }
                            }
                        }
                    }
                }
            }
            section.panel {
                h2 { "MongoDB" }
                @match &health.mongodb {
                    Err(error) => p.bad { (error) },
                    Ok((facts, checks)) => {
                        (checks_list(checks))
                        dl.about {
                            dt { "Version" } dd { (facts.version) }
                            dt { "Round trip" } dd { (format!("{:.1} ms", facts.ping.as_secs_f64() * 1000.0)) }
                            @for (name, documents) in &facts.documents { dt { (name) } dd { (number(*documents)) " documents" } }
                            dt { "Indexes of jobs" } dd { (facts.indexes.join(", ")) }
                        }
                    }
                }
            }
            section.panel {
                h2 { "This process" }
                dl.about {
                    dt { "Version" } dd { (env!("CARGO_PKG_VERSION")) }
                    dt { "Started" } dd { (time(page.app.started_at)) }
                    dt { "Configuration" } dd { (page.app.options.config_file) }
                    dt { "Feeds" } dd { (number(page.app.feeds.current().len() as u64)) }
                    dt { "Changes" } dd { (if page.may_act() { "allowed" } else { "refused: read-only" }) }
                }
            }
        }
    };
    Ok(page.shell("Health", "health", &body))
}
