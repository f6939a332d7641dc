//! Schedulers: which jobs are added again and again, and when next.

use axum::response::Response;
use maud::{Markup, html};

use super::page::Page;
use super::view::{number, time};
use crate::http::schedulers::feed_of;
use crate::http::{ApiError, readings};
use crate::queue::Queue;
use crate::queue::schedulers::{Scheduler, SchedulerCursor};
use crate::views::slot_at;

/// Schedulers of a page.
const ROWS: usize = 50;

pub(super) async fn list(page: Page) -> Result<Response, ApiError> {
    let names = readings::names(&page.app).await?;
    let wanted = page.params.text("queue").unwrap_or_else(|| page.app.queues.fetch.name()).to_owned();
    let queue = readings::queue(&page.app, &wanted).await?;
    let cursor = page.params.parsed::<SchedulerCursor>("cursor")?;
    let listed = readings::schedulers(&page.app, &queue, cursor.as_ref(), ROWS).await?;
    let here = page.url("/schedulers");
    let body = html! {
        div.head {
            div { h1 { "Schedulers" } span.dim { (number(listed.total as u64)) ", the next to be due first" } }
            @if page.may_act() { div { a.button href=(page.with_params(&format!("{here}/add"), &[("queue", &wanted)])) { "Add a scheduler" } } }
        }
        section.panel.flush {
            nav.tabs aria-label="Queues" {
                @for name in names.iter() {
                    a href=(page.with_params(&here, &[("queue", name)])) aria-current=[(*name == wanted).then_some("page")] { (name) }
                }
            }
            @if listed.schedulers.is_empty() { p.empty { "Nothing is added to " (wanted) " again and again." } }
            @else {
                div.scroll {
                    table.fold {
                        thead { tr { th scope="col" { "Scheduler" } th scope="col" { "Schedule" } th scope="col" { "Next" } th scope="col" { "Last" } th.num scope="col" { "Fired" } th scope="col" { span.skip { "Actions" } } } }
                        tbody { @for one in &listed.schedulers { (row(&page, &queue, one)) } }
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

fn row(page: &Page, queue: &Queue, one: &Scheduler) -> Markup {
    let (feed, here) = (feed_of(&page.app, queue, one), page.scheduler_url(queue.name(), &one.id));
    html! {
        tr {
            td.wide { a href=(here) { (one.id) } @if feed.is_some() { " " span.badge { "feed" } } }
            td data-name="schedule" {
                @match (&one.stored, &feed) {
                    (Some(stored), _) => @match &stored.definition {
                        Ok(definition) => (definition.repeat),
                        Err(reason) => span.bad { "damaged: " (reason) },
                    },
                    (None, Some(feed)) => @if let Some(schedule) = &feed.schedule { (schedule) },
                    (None, None) => span.dim { "unknown: of a feed that this process does not have" },
                }
            }
            td.nowrap data-name="next" { (time(slot_at(one.next_slot_ms))) }
            td.nowrap data-name="last" { @if let Some(stored) = &one.stored { (time(slot_at(stored.last_slot_ms))) } }
            td.num data-name="fired" { @if let Some(stored) = &one.stored { (number(stored.fired)) } }
            td { @if page.may_act() && (feed.is_some() || one.stored.is_some()) { (page.button(&here, ("do", "run"), "Run now", "")) } }
        }
    }
}
