//! One scheduler: when it is due, what its jobs are; and the form to make and to change one.

use axum::response::Response;
use jiff::Timestamp;
use maud::{Markup, html};

use super::page::Page;
use super::view::{number, time, tree};
use crate::http::schedulers::{Looked, find, options_of, owner};
use crate::http::{ApiError, readings};
use crate::queue::Queue;
use crate::queue::schedulers::Stored;
use crate::schedule::{CatchUp, Definition, Repeat};
use crate::views::{payload_json, slot_at};

/// Coming slots that are shown.
const SLOTS_SHOWN: usize = 5;

pub(super) async fn show(page: Page) -> Result<Response, ApiError> {
    let queue = readings::queue(&page.app, &page.part(1)).await?;
    let looked = find(&page.app, &queue, &page.id()).await?;
    let (id, here) = (&looked.scheduler.id, page.scheduler_url(queue.name(), &looked.scheduler.id));
    let can_run = looked.feed.is_some() || looked.scheduler.stored.is_some();
    let body = html! {
        div.head {
            p.crumbs { a href=(page.with_params(&page.url("/schedulers"), &[("queue", queue.name())])) { "Schedulers of " (queue.name()) } " / " (id) }
            div { h1 { (id) } @if looked.feed.is_some() { span.badge { "feed" } } }
            @if page.may_act() {
                div {
                    @if can_run { (page.button(&here, ("do", "run"), "Run now", "main")) }
                    @if looked.feed.is_none() {
                        form method="post" action=(here) {
                            (page.form_token())
                            button.danger name="do" value="remove" data-confirm="Remove this scheduler? Jobs that it added stay." { "Remove" }
                        }
                    }
                }
            }
        }
        div.grid {
            section.panel { h2 { "About" } (about(&page, &looked)) }
            section.panel {
                h2 { "Comes next" }
                @match coming(&looked) {
                    slots if slots.is_empty() => p.dim { "Nothing is due." },
                    slots => ol.timeline { @for (n, slot) in slots.into_iter().enumerate() { li.now[n == 0] { (time(slot)) } } },
                }
            }
        }
        @if let Some((_, envelope)) = looked.job() {
            section.panel { h2 { "Payload of its jobs" } (tree(&payload_json(envelope.payload))) }
        }
        @if page.may_act() && looked.feed.is_none() && looked.scheduler.stored.is_some() {
            section.panel { details.more { summary { "Change it" } (fields(&page, &here, &queue, Some(&looked))) } }
        }
    };
    Ok(page.shell(id, "schedulers", &body))
}

fn about(page: &Page, looked: &Looked) -> Markup {
    let Looked { scheduler, feed, .. } = looked;
    let definition = scheduler.stored.as_ref().map(|stored| stored.definition.as_ref());
    html! {
        dl.about {
            dt { "Schedule" }
            dd {
                @match (definition, feed) {
                    (Some(Ok(definition)), _) => (definition.repeat),
                    (Some(Err(reason)), _) => span.bad { "damaged: " (reason) },
                    (None, Some(feed)) => @if let Some(schedule) = &feed.schedule { (schedule) },
                    (None, None) => "unknown: nothing is stored of it, and this process has no feed of this name",
                }
            }
            @if let Some(feed) = feed {
                dt { "Feed" } dd { a href=(page.feed_url(&feed.name)) { (feed.name) } }
                dt { "Changed in" } dd { (owner(&page.app, feed)) ", and not here" }
            }
            @if let Some(stored) = &scheduler.stored { (about_stored(stored)) }
            @if let Some((template, envelope)) = looked.job() {
                @if let Some(name) = envelope.name { dt { "Name of its jobs" } dd { (name) } }
                @if template.priority() > 0 { dt { "Priority" } dd { (number(template.priority())) } }
                @if let Some(group) = template.group() { dt { "Group" } dd { (group) } }
                @if let Some(attempts) = options_of(&envelope).attempts { dt { "Attempts" } dd { (attempts) } }
            }
        }
    }
}

fn about_stored(stored: &Stored) -> Markup {
    html! {
        @if let Ok(definition) = &stored.definition {
            @if let Some(start) = definition.start { dt { "Not before" } dd { (time(start)) } }
            @if let Some(end) = definition.end { dt { "Not after" } dd { (time(end)) } }
            dt { "Missed slots" } dd { (missed(definition.catch_up)) }
            dt { "Overlap" } dd { (if definition.no_overlap { "no: a slot passes while an earlier job lives" } else { "yes: each slot has its job" }) }
        }
        dt { "Jobs so far" }
        dd {
            (number(stored.fired))
            @if let Some(limit) = stored.definition.as_ref().ok().and_then(|definition| definition.limit) { " of " (number(limit)) }
        }
        dt { "Last" } dd { (time(slot_at(stored.last_slot_ms))) }
        dt { "Made" } dd { (time(slot_at(Some(stored.created_ms)))) }
        dt { "Changed" } dd { (time(slot_at(Some(stored.updated_ms)))) }
    }
}

fn missed(catch_up: CatchUp) -> &'static str {
    match catch_up {
        CatchUp::Skip => "they pass",
        CatchUp::One => "one job for all of them",
        CatchUp::All => "a job for each, late",
    }
}

/// The next slots. Of a feed only the next is known: its schedule may follow what the feed does.
fn coming(looked: &Looked) -> Vec<Timestamp> {
    let Some(next) = looked.scheduler.next_slot_ms else { return Vec::new() };
    let definition = looked.scheduler.stored.as_ref().and_then(|stored| stored.definition.as_ref().ok());
    let after = |slot: &i64| definition?.slot_after(*slot);
    let slots = std::iter::successors(Some(next), after).take(SLOTS_SHOWN);
    slots.filter_map(|slot| slot_at(Some(slot))).collect()
}

pub(super) async fn add(page: Page) -> Result<Response, ApiError> {
    let wanted = page.params.text("queue").unwrap_or_else(|| page.app.queues.fetch.name()).to_owned();
    let queue = readings::queue(&page.app, &wanted).await?;
    let list = page.with_params(&page.url("/schedulers"), &[("queue", &wanted)]);
    let body = html! {
        div.head { p.crumbs { a href=(list) { "Schedulers of " (wanted) } " / add" } div { h1 { "Add a scheduler" } } }
        section.panel { (fields(&page, &page.url("/schedulers/add"), &queue, None)) }
    };
    Ok(page.shell("Add a scheduler", "schedulers", &body))
}

/// The form; filled with what there is.
fn fields(page: &Page, action: &str, queue: &Queue, looked: Option<&Looked>) -> Markup {
    let stored = looked.and_then(|looked| looked.scheduler.stored.as_ref());
    let definition: Option<&Definition> = stored.and_then(|stored| stored.definition.as_ref().ok());
    let (cron, every) = match definition.map(|definition| &definition.repeat) {
        Some(Repeat::Cron(cron)) => (Some((cron.pattern(), cron.timezone().unwrap_or_default())), None),
        Some(Repeat::Every { interval_ms, offset_ms }) => (None, Some((*interval_ms, *offset_ms))),
        None => (None, None),
    };
    let duration = |ms: i64| {
        let span = std::time::Duration::from_millis(u64::try_from(ms).unwrap_or(0));
        humantime::format_duration(span).to_string()
    };
    let job = looked.and_then(Looked::job);
    let payload = match &job {
        Some((_, envelope)) => serde_json::to_string_pretty(&payload_json(envelope.payload)).unwrap_or_default(),
        None if queue.name() == page.app.queues.fetch.name() => "{\n  \"feed\": \"name\"\n}".to_owned(),
        None => "{\n}".to_owned(),
    };
    let attempts = job.as_ref().and_then(|(_, envelope)| options_of(envelope).attempts);
    let group = job.as_ref().and_then(|(template, _)| template.group());
    html! {
        form.stack method="post" action=(action) {
            (page.form_token())
            @if looked.is_none() {
                input type="hidden" name="queue" value=(queue.name());
                label { "Id" input name="scheduler" autocomplete="off" required; }
            }
            div.fields {
                label { "Cron pattern" input name="cron" placeholder="0 4 * * SUN" autocomplete="off" value=[cron.map(|(pattern, _)| pattern)]; }
                label { "Time zone of the pattern" input name="timezone" placeholder="UTC" autocomplete="off" value=[cron.map(|(_, zone)| zone)]; }
                label { "Or every" input name="every" placeholder="15m" autocomplete="off" value=[every.map(|(every, _)| duration(every))]; }
                label { "So much later" input name="offset" placeholder="0s" autocomplete="off" value=[every.map(|(_, offset)| offset).filter(|offset| *offset > 0).map(duration)]; }
                label { "Not before (UTC)" input name="start" placeholder="2027-01-31T09:00:00Z" autocomplete="off" value=[definition.and_then(|one| one.start)]; }
                label { "Not after (UTC)" input name="end" placeholder="2027-12-31T09:00:00Z" autocomplete="off" value=[definition.and_then(|one| one.end)]; }
                label { "End after so many jobs" input type="number" name="limit" min="1" value=[definition.and_then(|one| one.limit)]; }
                label { "Missed slots"
                    select name="catch-up" {
                        @for catch_up in [CatchUp::One, CatchUp::Skip, CatchUp::All] {
                            option value=(catch_up.word()) selected[definition.is_some_and(|one| one.catch_up == catch_up)] { (missed(catch_up)) }
                        }
                    }
                }
            }
            label.inline { input type="checkbox" name="no-overlap" value="yes" checked[definition.is_some_and(|one| one.no_overlap)]; "nothing while the job of an earlier slot lives" }
            label.inline { input type="checkbox" name="immediately" value="yes" checked[definition.is_some_and(|one| one.immediately)]; "a slot at once too, when it is made" }
            div.fields {
                label { "Name of its jobs" input name="name" autocomplete="off" value=[job.as_ref().and_then(|(_, envelope)| envelope.name)]; }
                label { "Priority" input type="number" name="priority" min="0" max="2097151" value=[job.as_ref().map(|(template, _)| template.priority()).filter(|priority| *priority > 0)]; }
                label { "Attempts" input type="number" name="attempts" min="1" max="255" value=[attempts]; }
                label { "Group" input name="group" autocomplete="off" value=[group]; }
            }
            label { "Payload of its jobs, as JSON" textarea name="payload" rows="8" spellcheck="false" required { (payload) } }
            @if looked.is_some() { p.dim { "With another schedule it begins anew: its count is 0. Jobs that it added stay as they are." } }
            button.main name="do" value="save" { (if looked.is_some() { "Save" } else { "Add" }) }
        }
    }
}
