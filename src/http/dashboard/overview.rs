//! The first page: every queue with its counts and its last hour, and what needs a look.

use std::time::Duration;

use axum::response::Response;
use maud::{Markup, html};

use super::page::{Page, live_count};
use super::queue::{count_of, label};
use super::view::{chart, counted, number, span};
use crate::http::{ApiError, readings};
use crate::queue::counts::Counts;
use crate::queue::list::ListState;

/// From this age on, waiting jobs are an alert where nobody works on them.
const OLD: Duration = Duration::from_mins(10);

pub(super) async fn show(page: Page) -> Result<Response, ApiError> {
    let seen = readings::overview(&page.app).await?;
    let mut cards = Vec::new();
    for one in &seen {
        let queue = readings::queue(&page.app, &one.name).await?;
        let chart_of = readings::chart(&page.app, &queue).await?;
        cards.push(card(&page, one, &chart(&chart_of, &one.name)));
    }
    let alerts: Vec<String> = seen.iter().flat_map(|one| alerts(&one.name, &one.counts)).collect();
    let body = html! {
        div.head {
            div { h1 { "Overview" } }
            @if page.may_act() {
                div {
                    @if seen.iter().any(|one| one.counts.is_paused) { (page.button(&page.url(""), ("do", "resume"), "Resume all", "")) }
                    @if !seen.iter().all(|one| one.counts.is_paused) {
                        form method="post" action=(page.url("")) {
                            (page.form_token())
                            button name="do" value="pause" data-confirm="Pause every queue?" { "Pause all" }
                        }
                    }
                }
            }
        }
        @if !alerts.is_empty() {
            section.panel.alert aria-label="What needs a look" {
                ul { @for alert in &alerts { li { (alert) } } }
            }
        }
        div.grid { @for card in cards { (card) } }
    };
    Ok(page.shell("Overview", "overview", &body))
}

/// What is wrong with a queue, in words.
fn alerts(name: &str, counts: &Counts) -> Vec<String> {
    let mut alerts = Vec::new();
    let waits = counts.waiting + counts.prioritized + counts.active;
    if counts.consumers_alive == 0 && waits + counts.delayed > 0 {
        alerts.push(format!("{name}: no worker is alive, and {} to be done", counted(waits + counts.delayed, "job")));
    }
    if counts.is_paused {
        alerts.push(format!("{name} is paused: nothing is handed out"));
    } else if let Some(age) = counts.oldest_waiting.filter(|age| *age > OLD) {
        alerts.push(format!("{name}: the job at the front has been waiting for {}", span(age)));
    }
    if counts.failed > 0 {
        alerts.push(format!("{name}: {}", counted(counts.failed, "dead letter")));
    }
    alerts
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
