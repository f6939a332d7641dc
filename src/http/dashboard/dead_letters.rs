//! The dead letters of a queue by reason, and their redrive.

use axum::response::Response;
use maud::html;

use super::page::Page;
use super::view::{counted, number, system_time, time};
use crate::http::dead_groups::dead_groups;
use crate::http::{ApiError, readings};

pub(super) async fn show(page: Page) -> Result<Response, ApiError> {
    let queue = readings::queue(&page.app, &page.part(1)).await?;
    let (name, here) = (queue.name().to_owned(), page.queue_url(queue.name()));
    let groups = dead_groups(&page.app, &queue).await?;
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
                (counted(groups.looked_at, "letter")) " in " (counted(groups.groups.len() as u64, "group")) ", as of " (time(groups.at))
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
