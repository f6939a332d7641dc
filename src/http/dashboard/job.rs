//! One job: what it is, what became of it so far, what it carries, and what can be done with it.

use std::sync::Arc;

use axum::response::Response;
use maud::{Markup, html};
use serde_json::Value;

use super::page::Page;
use super::view::{bytes, number, span, state, system_time, tree};
use crate::http::{ApiError, readings};
use crate::job::Place;
use crate::queue::find::{Found, State};
use crate::queue::{Queue, progress::LINES_PER_PAGE};
use crate::views::{group, payload_json};

/// Bytes of a payload that are shown unless all of it is asked for.
const PREVIEW_BYTES: usize = 4096;

pub(super) async fn find(page: &Page) -> Result<(Queue, Arc<Found>), ApiError> {
    let (queue, id) = (readings::queue(&page.app, &page.part(1)).await?, page.job_id()?);
    let found = readings::job(&page.app, &queue, &id).await?;
    Ok((queue, found))
}

pub(super) async fn show(page: Page) -> Result<Response, ApiError> {
    let (queue, found) = match find(&page).await {
        Err(ApiError::JobNotFound(id)) => return gone(&page, &id).await,
        found => found?,
    };
    let Found { job, state: stands, failure, holder, log } = &*found;
    let (name, here) = (queue.name(), page.job_url(queue.name(), &job.id));
    let payload = payload_json(job.payload());
    let of_item = payload.get("source").and_then(Value::as_str).zip(payload.get("guid").and_then(Value::as_str));
    let text = |key: &str| payload.get(key).and_then(Value::as_str).map(str::to_owned);
    let title = text("title").or_else(|| text("feed").filter(|_| of_item.is_none()));
    let body = html! {
        div.head {
            p.crumbs { a href=(page.queue_url(name)) { (name) } " / job" }
            div {
                h1 { @match &title { Some(title) => (title), None => (job.id) } }
                (state(if job.head.place == Place::Parked { "waiting (parked)" } else { stands.name() }))
            }
            @if page.may_act() { (actions(&page, &here, &queue, &found)) }
        }
        @if title.is_some() { p.mono { (job.id) } }
        div.grid {
            section.panel {
                h2 { "About" }
                dl.about {
                    @if let Some(kind) = &job.name { dt { "Name" } dd { (kind) } }
                    @if let Some(feed) = &job.feed { dt { "Feed" } dd { a href=(page.feed_url(feed)) { (feed) } } }
                    @if let Some(group) = group(&job.head.group) { dt { "Group" } dd { (group) } }
                    @if job.head.priority > 0 { dt { "Priority" } dd { (number(job.head.priority)) } }
                    dt { "Failed attempts" } dd { (job.head.attempts) }
                    dt { "Stalls" } dd { (job.head.stalls) }
                    @if let Some(holder) = holder { dt { "Worker" } dd { (holder.consumer) } }
                    @if let Some(import) = job.head.import { dt { "Import" } dd { a href=(page.url(&format!("/imports/{import}"))) { (import) } } }
                    @if let Some((source, guid)) = of_item {
                        dt { "Document" } dd { a href=(page.with_params(&page.url("/document"), &[("source", source), ("guid", guid)])) { "in MongoDB" } }
                    }
                    @if let Some(options) = &job.options { dt { "Options" } dd { code { (serde_json::to_string(options).unwrap_or_default()) } } }
                    @if let Some(progress) = &log.progress { dt { "Progress" } dd { code { (progress) } } }
                    @if let Some(result) = &log.result { dt { "Result" } dd { code { (result) } } }
                    dt { "Payload" } dd { (bytes(job.payload().len() as u64)) }
                }
            }
            section.panel {
                h2 { "Timeline" }
                (timeline(&found))
            }
        }
        @if !log.errors.is_empty() || failure.is_some() {
            section.panel {
                h2 { "Errors" }
                dl.about {
                    @for (attempt, error) in &log.errors { dt { "Attempt " (attempt) } dd { pre { (error) } } }
                    @if let (Some(failure), true) = (failure, log.errors.is_empty()) { dt { "Last" } dd { pre { (failure.reason) } } }
                }
            }
        }
        (payload_panel(&page, &here, &payload))
        @if !log.lines.is_empty() {
            section.panel {
                h2 { "Log" }
                @if log.lines_before > 0 { p.dim { (number(log.lines_before)) " lines before; the API gives them, " (LINES_PER_PAGE) " at a time" } }
                pre { @for line in &log.lines { (line) "\n" } }
            }
        }
    };
    Ok(page.shell(title.as_deref().unwrap_or("Job"), "overview", &body))
}

/// A job that is not there: its document may be.
async fn gone(page: &Page, id: &str) -> Result<Response, ApiError> {
    let name = page.part(1);
    let stored = match id.split_once('#') {
        Some((source, guid)) => page.app.store.find_document(source, guid).await?.map(|_| (source, guid)),
        None => None,
    };
    let body = html! {
        div.head { p.crumbs { a href=(page.queue_url(&name)) { (name) } " / job" } div { h1 { "This job is not there" } } }
        p.mono { (id) }
        section.panel {
            @if let Some((source, guid)) = stored {
                p { "It is done: " a href=(page.with_params(&page.url("/document"), &[("source", source), ("guid", guid)])) { "its document" } " is in MongoDB." }
            } @else {
                p { "It is done and was not kept, was never added, or no worker has adopted it yet." }
            }
        }
    };
    let mut response = page.shell("No such job", "overview", &body);
    // Who retried or added it comes here, and it may be done before they do: that is no error.
    if page.said.is_none() {
        *response.status_mut() = axum::http::StatusCode::NOT_FOUND;
    }
    Ok(response)
}

fn actions(page: &Page, here: &str, queue: &Queue, found: &Found) -> Markup {
    let is_own = [&page.app.queues.import, &page.app.queues.fetch].into_iter().any(|own| own.name() == queue.name());
    let waits = matches!(found.state, State::Waiting | State::Prioritized | State::Delayed { .. });
    let has_ended = matches!(found.state, State::Failed { .. } | State::Completed { .. });
    html! {
        form.inline method="post" action=(here) {
            (page.form_token())
            @if has_ended { button.main name="do" value="retry" { "Retry" } }
            @if matches!(found.state, State::Delayed { .. }) { button.main name="do" value="promote" { "Promote" } }
            @if waits || found.state == State::Active { button name="do" value="cancel" { "Cancel" } }
            @if !is_own { button name="do" value="duplicate" { "Duplicate" } }
            @if !matches!(found.state, State::Completed { .. }) { a.button href=(page.edit_url(queue.name(), &found.job.id)) { "Edit" } }
            @if found.state != State::Active { button.danger name="do" value="remove" data-confirm="Remove this job for good?" { "Remove" } }
        }
    }
}

fn timeline(found: &Found) -> Markup {
    let Found { job, state: stands, failure, holder, .. } = found;
    html! {
        ol.timeline {
            li { "Enqueued " (system_time(job.enqueued_at)) }
            @if let Some(failure) = failure {
                li.bad { "First failed " (system_time(failure.first_at)) }
                @if failure.last_at != failure.first_at { li.bad { "Last failed " (system_time(failure.last_at)) } }
            }
            @match stands {
                State::Waiting | State::Prioritized => {
                    @if let Some(entry) = job.head.entry { li.now { "Waits since " (system_time(entry.at())) " for attempt " (job.attempt()) } }
                    @else { li.now { "Waits for attempt " (job.attempt()) } }
                }
                State::Active => li.now {
                    "Attempt " (job.attempt()) " runs"
                    @if let Some(holder) = holder { ", renewed " (span(holder.idle)) " ago" }
                },
                State::Delayed { due_at } => li.now { "Attempt " (job.attempt()) " is due " (system_time(*due_at)) },
                State::Completed { finished_at } => {
                    li.good { "Done " (system_time(*finished_at)) }
                    @if let Ok(took) = finished_at.duration_since(job.enqueued_at) { li { (span(took)) " from beginning to end" } }
                }
                State::Failed { reason } => li.bad { "Given up: " (reason) },
                State::Unknown => li.bad { "A guard without a job: its head names a place where it does not stand" },
            }
        }
    }
}

fn payload_panel(page: &Page, here: &str, payload: &Value) -> Markup {
    let text = serde_json::to_string_pretty(payload).unwrap_or_default();
    let is_whole = text.len() <= PREVIEW_BYTES || page.params.text("full").is_some();
    html! {
        section.panel {
            h2 { "Payload" }
            @if is_whole { (tree(payload)) }
            @else {
                p { a href=(format!("{here}&full=yes")) { "Show all of it" } span.dim { " (" (bytes(text.len() as u64)) " as JSON)" } }
                pre { (&text[..text.floor_char_boundary(PREVIEW_BYTES)]) "…" }
            }
        }
    }
}
