//! The forms to add a job and to change one.

use axum::response::Response;
use maud::html;

use super::job::find;
use super::page::Page;
use crate::http::{ApiError, readings};
use crate::queue::find::State;
use crate::views::payload_json;

pub(super) async fn edit(page: Page) -> Result<Response, ApiError> {
    let (queue, found) = find(&page).await?;
    let here = page.job_url(queue.name(), &found.job.id);
    let text = serde_json::to_string_pretty(&payload_json(found.job.payload())).unwrap_or_default();
    let is_delayed = matches!(found.state, State::Delayed { .. });
    let body = html! {
        div.head {
            p.crumbs { a href=(page.queue_url(queue.name())) { (queue.name()) } " / " a href=(here) { "job" } " / edit" }
            div { h1 { "Edit a job" } }
        }
        p.mono { (found.job.id) }
        section.panel {
            h2 { "Payload" }
            form.stack method="post" action=(here) {
                (page.form_token())
                label { "As JSON" textarea name="payload" rows="18" spellcheck="false" required { (text) } }
                p.dim { "A worker that has the job goes on with what it was given; the next attempt has the new payload." }
                button.main name="do" value="update" { "Replace the payload" }
            }
        }
        section.panel {
            h2 { "Order" }
            form.stack method="post" action=(here) {
                (page.form_token())
                div.fields {
                    label { "Priority (1 is first, 0 none)" input type="number" name="priority" min="0" max="2097151" value=(found.job.head.priority); }
                    @if is_delayed { label { "Due in" input name="delay" placeholder="15m"; } }
                }
                button name="do" value="update" { "Change" }
            }
        }
    };
    Ok(page.shell("Edit a job", "overview", &body))
}

pub(super) async fn add(page: Page) -> Result<Response, ApiError> {
    let queue = readings::queue(&page.app, &page.part(1)).await?;
    let (name, here) = (queue.name(), page.queue_url(queue.name()));
    let (example, about) = if name == page.app.queues.import.name() {
        (
            "{\n  \"source\": \"https://jobs.example/feed\",\n  \"guid\": \"1\",\n  \"title\": \"\"\n}",
            "An item; its id follows from source and guid.",
        )
    } else if name == page.app.queues.fetch.name() {
        ("{\n  \"feed\": \"name\"\n}", "A fetch of a feed; its id is the feed's name.")
    } else {
        ("{\n}", "Any JSON. The job needs an id.")
    };
    let body = html! {
        div.head { p.crumbs { a href=(here) { (name) } " / add" } div { h1 { "Add a job" } } }
        section.panel {
            form.stack method="post" action=(here) {
                (page.form_token())
                div.fields {
                    label { "Id" input name="id" autocomplete="off"; }
                    label { "Name" input name="name" autocomplete="off"; }
                    label { "Delay" input name="delay" placeholder="15m"; }
                    label { "Priority" input type="number" name="priority" min="0" max="2097151"; }
                    label { "Attempts" input type="number" name="attempts" min="1" max="255"; }
                    label { "Deduplication id" input name="dedup" autocomplete="off"; }
                }
                label { "Payload, as JSON" textarea name="payload" rows="10" spellcheck="false" required { (example) } }
                p.dim { (about) }
                button.main name="do" value="add" { "Add" }
            }
        }
    };
    Ok(page.shell("Add a job", "overview", &body))
}
