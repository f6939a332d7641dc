//! Operations on many jobs: which there were, and how far they are.

use axum::response::Response;
use maud::{Markup, html};

use super::page::Page;
use super::view::{capitalised, counted, number, state, time};
use crate::http::ApiError;
use crate::http::operations::{self, About, OperationState, Task};

pub(super) async fn list(page: Page) -> Result<Response, ApiError> {
    let all = operations::all(&page.app).await;
    let body = html! {
        div.head { div { h1 { "Operations" } } span.dim { "on many jobs; the last hundred of a week" } }
        section.panel.flush #operations data-refresh="operations" {
            @if all.is_empty() { p.empty { "Nothing was asked for yet." } }
            @else {
                div.scroll {
                    table.fold {
                        thead { tr { th scope="col" { "Operation" } th scope="col" { "State" } th scope="col" { "Began" } th scope="col" { "By" } th scope="col" { "Progress" } } }
                        tbody {
                            @for operation in &all {
                                tr data-operation=(operation.id) data-state=(operation.state.word()) {
                                    td.wide { a href=(page.url(&format!("/operations/{}", operation.id))) { (capitalised(&operation.what)) " in " (operation.queue) } }
                                    td { (state(operation.state.word())) }
                                    td.nowrap { (time(operation.started_at)) }
                                    td data-name="by" { (operation.by) }
                                    td { (progress(operation)) }
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

pub(super) async fn show(page: Page) -> Result<Response, ApiError> {
    let operation = operations::find(&page.app, &page.part(1)).await?;
    let here = page.url(&format!("/operations/{}", operation.id));
    let is_running = operation.state == OperationState::Running;
    let body = html! {
        div.head #operation-head data-refresh="operations" {
            p.crumbs { a href=(page.url("/operations")) { "Operations" } " / " (operation.id) }
            div { h1 { (capitalised(&operation.what)) } (state(operation.state.word())) }
            @if is_running && operation.is_to_stop { span.dim { "It ends after the step under way." } }
            @else if page.may_act() && is_running { (page.button(&here, ("do", "stop"), "Stop", "danger")) }
            @if page.may_act() && operation.may_go_on() {
                form method="post" action=(here) {
                    (page.form_token())
                    button.main name="do" value="go-on" data-confirm=[question(&operation.task)] { "Go on with what is left" }
                }
            }
        }
        section.panel #operation data-refresh="operations" data-operation=(operation.id) data-state=(operation.state.word()) {
            (progress(&operation))
            @if operation.state == OperationState::Interrupted {
                p { "Its process, " (operation.process) ", has ended in the midst of it. What it had reached is done, a little more than is said here; all else is as it was." }
            }
            dl.about {
                dt { "Queue" } dd { a href=(page.queue_url(&operation.queue)) { (operation.queue) } }
                dt { "About" } dd { (counted(operation.total, "job")) }
                dt { "By" } dd { (operation.by) }
                dt { "In" } dd { (operation.process) }
                dt { "Began" } dd { (time(operation.started_at)) }
                dt { "Ended" } dd { (time(operation.ended_at)) }
            }
        }
        @if is_running { noscript { p { a href=(here) { "Load again to see how far it is" } } } }
    };
    Ok(page.shell(&capitalised(&operation.what), "operations", &body))
}

/// What is asked before something is done that cannot be undone.
fn question(task: &Task) -> Option<&'static str> {
    match task {
        Task::RemoveDead(_) | Task::Clean { .. } | Task::Drain { .. } | Task::Obliterate { .. } => {
            Some("Remove these jobs for good?")
        }
        Task::Redrive(_) | Task::RetryCompleted | Task::Promote => None,
    }
}

fn progress(operation: &About) -> Markup {
    let most = operation.total.max(operation.looked_at).max(1);
    html! {
        @if operation.state == OperationState::Running {
            progress max=(most) value=(operation.looked_at) aria-label=(operation.what) {}
        }
        p.progress data-progress="" { (number(operation.done)) " done, " (number(operation.looked_at)) " looked at" }
        @if let Some(error) = &operation.error { p.bad { (error) } }
    }
}
