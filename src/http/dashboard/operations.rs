//! Operations on many jobs: which there were, and how far they are.

use axum::response::Response;
use maud::{Markup, html};

use super::page::Page;
use super::view::{number, state, time};
use crate::http::ApiError;
use crate::http::operations::{Operation, OperationState};

pub(super) async fn list(page: Page) -> Result<Response, ApiError> {
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

pub(super) async fn show(page: Page) -> Result<Response, ApiError> {
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
