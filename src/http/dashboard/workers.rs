//! Workers: where they run, since when, and what they work on.

use axum::response::Response;
use maud::html;

use super::page::Page;
use super::view::{number, state, system_time};
use crate::http::{ApiError, readings};
use crate::queue::consumers::ConsumerState;

pub(super) async fn list(page: Page) -> Result<Response, ApiError> {
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
