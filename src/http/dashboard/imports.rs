//! Imports: the newest, and one with what became of its items.

use axum::response::Response;
use maud::{Markup, html};

use super::page::Page;
use super::view::{count, number, state, time};
use crate::http::ApiError;
use crate::http::live::SECOND;
use crate::import;
use crate::job::ImportId;
use crate::store::imports::{ImportFilter, ImportRecord, ImportStatus};

/// Imports of a page.
const ROWS: usize = 50;

pub(super) async fn read_imports(
    page: &Page,
    feed: Option<&str>,
    run: Option<&str>,
    limit: u32,
) -> Result<Vec<ImportRecord>, ApiError> {
    let load = async {
        let wanted = ImportFilter { feed, run };
        Ok(import::list_imports(&page.app.queues.import, &page.app.store, wanted, limit).await?)
    };
    let key = format!("imports {limit} {feed:?} {run:?}");
    Ok((*page.app.shared.get(key, SECOND, load).await?).clone())
}

pub(super) async fn list(page: Page) -> Result<Response, ApiError> {
    let (feed, run) = (page.params.text("feed"), page.params.text("run"));
    let limit = page.params.number("limit", (1, ROWS as u64, 1000))? as u32;
    let all = read_imports(&page, feed, run, limit).await?;
    let here = page.url("/imports");
    let body = html! {
        div.head { div { h1 { "Imports" } } span.dim { "the newest first; records are kept 30 days" } }
        section.panel.flush {
            form.bar method="get" action=(here) role="search" {
                input type="search" name="feed" aria-label="Name of a feed" placeholder="Name of a feed ( / )" value=(feed.unwrap_or_default());
                button { "Show" }
                @if feed.is_some() || run.is_some() { a href=(here) { "Clear" } }
            }
            (imports_table(&page, &all, true))
            @if all.len() >= limit as usize && limit < 1000 {
                div.bar.below { span.push {} a.button href=(page.with_params(&here, &[("feed", feed.unwrap_or_default()), ("run", run.unwrap_or_default()), ("limit", "1000")])) { "Show up to 1,000" } }
            }
        }
    };
    Ok(page.shell("Imports", "imports", &body))
}

fn status_word(status: ImportStatus) -> &'static str {
    match status {
        ImportStatus::Running => "running",
        ImportStatus::Done => "done",
        ImportStatus::Failed => "failed",
    }
}

pub(super) fn imports_table(page: &Page, imports: &[ImportRecord], with_feed: bool) -> Markup {
    html! {
        @if imports.is_empty() { p.empty { "There are none." } }
        @else {
            div.scroll {
                table.fold {
                    thead {
                        tr {
                            th scope="col" { "Started" }
                            @if with_feed { th scope="col" { "Feed" } }
                            th scope="col" { "Status" }
                            @for name in ["Items", "New", "Changed", "Unchanged", "Stored", "Failed"] { th.num scope="col" { (name) } }
                            th scope="col" { "Note" }
                        }
                    }
                    tbody {
                        @for one in imports {
                            tr {
                                td.nowrap { a href=(page.url(&format!("/imports/{}", one.id))) { (time(one.started_at)) } }
                                @if with_feed { td { a href=(page.feed_url(&one.feed)) { (one.feed) } } }
                                td { (state(status_word(one.status))) }
                                td.num data-name="items" { (count(one.items)) }
                                td.num data-name="new" { (count(one.new)) }
                                td.num data-name="changed" { (count(one.changed)) }
                                td.num data-name="unchanged" { (count(one.unchanged)) }
                                td.num data-name="stored" { (count(one.inserted + one.updated)) }
                                td.num.(if one.failed > 0 { "bad" } else { "" }) data-name="failed" { (count(one.failed)) }
                                td.note.(if one.error.is_some() { "bad" } else { "" }) { @if let Some(note) = one.error.as_ref().or(one.recovered.as_ref()) { span.clip { (note) } } }
                            }
                        }
                    }
                }
            }
        }
    }
}

pub(super) async fn show(page: Page) -> Result<Response, ApiError> {
    let text = page.part(1);
    let id: ImportId = text.parse().map_err(|_| ApiError::no_import(&text))?;
    let found = import::find_import(&page.app.queues.import, &page.app.store, id).await?;
    let one = found.ok_or_else(|| ApiError::no_import(&text))?;
    let queue = page.app.queues.import.name();
    let counts = |counts: &[(&str, u64)]| {
        html! {
            dl.about { @for (name, count) in counts { dt { (name) } dd.num.(if *name == "Failed" && *count > 0 { "bad" } else { "" }) { (number(*count)) } } }
        }
    };
    let body = html! {
        div.head {
            p.crumbs { a href=(page.url("/imports")) { "Imports" } " / " (one.id) }
            div { h1 { "Import of " a href=(page.feed_url(&one.feed)) { (one.feed) } } (state(status_word(one.status))) }
        }
        @if let Some(error) = &one.error { section.panel.problem { (error) } }
        @if let Some(recovered) = &one.recovered { section.panel.alert { "The document was read by mending it: " (recovered) } }
        div.grid.three {
            section.panel {
                h2 { "About" }
                dl.about {
                    dt { "Source" } dd { (one.source) }
                    dt { "Started" } dd { (time(one.started_at)) }
                    dt { "Finished" } dd { (time(one.finished_at)) }
                    dt { "Asked for" } dd { (if one.asked { "by somebody" } else { "by its schedule" }) }
                    @if let Some(run) = one.run.as_ref().filter(|run| !run.is_empty()) { dt { "Run" } dd { a href=(page.with_params(&page.url("/imports"), &[("run", run)])) { (run) } } }
                }
            }
            section.panel {
                h2 { "Items in the feed" }
                (counts(&[("Items", one.items), ("New", one.new), ("Changed", one.changed), ("Unchanged", one.unchanged), ("Already in the queue", one.duplicate)]))
            }
            section.panel {
                h2 { "What became of the jobs" }
                (counts(&[("Inserted", one.inserted), ("Updated", one.updated), ("Stale", one.stale), ("Superseded", one.superseded), ("Removed", one.removed), ("Failed", one.failed)]))
            }
        }
        @if !one.failures.is_empty() {
            section.panel.flush {
                h2 { "Failures" }
                div.scroll {
                    table.fold {
                        thead { tr { th scope="col" { "Job" } th scope="col" { "Reason" } } }
                        tbody {
                            @for failure in &one.failures {
                                tr {
                                    td.wide {
                                        @match crate::job::JobId::new(&failure.id) {
                                            Ok(id) => a href=(page.job_url(queue, &id)) { (failure.id) },
                                            Err(_) => (failure.id),
                                        }
                                    }
                                    td.note.bad { (failure.reason) }
                                }
                            }
                        }
                    }
                }
            }
        }
    };
    Ok(page.shell(&format!("Import of {}", one.feed), "imports", &body))
}
