//! Pages about feeds, their imports and the documents that came of them.

use axum::response::Response;
use maud::{Markup, html};

use super::Page;
use super::view::{number, stacked, state, time, tree};
use crate::http::ApiError;
use crate::http::feeds::{self, FeedRow, Which};
use crate::http::live::SECOND;
use crate::import;
use crate::job::ImportId;
use crate::store::imports::{ImportFilter, ImportRecord, ImportStatus};

/// Feeds and imports of a page.
const ROWS: usize = 50;
/// Imports of a feed's chart.
const CHART_IMPORTS: u32 = 40;

pub(super) async fn feeds(page: Page) -> Result<Response, ApiError> {
    let which = page.params.text("which").map_or(Ok(Which::All), Which::of)?;
    let (text, after) = (page.params.text("text").unwrap_or_default(), page.params.text("after").unwrap_or_default());
    let listed = feeds::list(&page.app, which, text, after, ROWS).await?;
    let here = page.url("/feeds");
    let body = html! {
        div.head { div { h1 { "Feeds" } } span.dim { (number(page.app.feeds.current().len() as u64)) " in force" } }
        section.panel.flush {
            nav.tabs aria-label="Which feeds" {
                @for one in Which::ALL { a href=(page.with_params(&here, &[("which", one.name())])) aria-current=[(one == which).then_some("page")] { (one.name()) } }
            }
            form.bar method="get" action=(here) role="search" {
                input type="hidden" name="which" value=(which.name());
                input type="search" name="text" aria-label="Name or address" placeholder="Name or address ( / )" value=(text) size="30";
                button { "Search" }
            }
            @if listed.feeds.is_empty() { p.empty { "There are no such feeds." } }
            @else {
                div.scroll {
                    table.fold {
                        thead { tr { th scope="col" { "Feed" } th scope="col" { "State" } th.num scope="col" { "HTTP" } th scope="col" { "Last fetch" } th scope="col" { "Next" } th scope="col" { "Schedule" } th scope="col" { span.skip { "Actions" } } } }
                        tbody { @for feed in &listed.feeds { (feed_row(&page, feed)) } }
                    }
                }
            }
            @if let Some(next) = &listed.next {
                div.bar.below { span.push {} a.button href=(page.with_params(&here, &[("which", which.name()), ("text", text), ("after", next)])) { "Next page" } }
            }
        }
    };
    Ok(page.shell("Feeds", "feeds", &body))
}

fn feed_row(page: &Page, feed: &FeedRow) -> Markup {
    html! {
        tr {
            td.wide {
                a href=(page.feed_url(&feed.name)) { (feed.name) }
                br; span.dim { (feed.url) }
                @if let Some(error) = &feed.last_error { br; span.bad { (error) } }
            }
            td { (state(&feed.state())) }
            td.num data-name="HTTP" { @if let Some(status) = feed.last_status { (status) } }
            td.nowrap data-name="last" { (time(feed.last_fetch_at)) }
            td.nowrap data-name="next" { (time(feed.next_fetch_at)) }
            td data-name="schedule" { @if let Some(schedule) = &feed.schedule { (schedule) } @else { span.dim { "when asked" } } }
            td { @if page.may_act() && feed.from != "gone" { (page.button(&page.feed_url(&feed.name), ("do", "import"), "Import now", "")) } }
        }
    }
}

pub(super) async fn feed(page: Page) -> Result<Response, ApiError> {
    let feed = feeds::find(&page.app, &page.part(1)).await?;
    let here = page.feed_url(&feed.name);
    let imports = read_imports(&page, Some(&feed.name), None, CHART_IMPORTS).await?;
    let mut bars: Vec<[u64; 3]> =
        imports.iter().rev().map(|one| [one.new, one.changed, one.unchanged + one.duplicate]).collect();
    if bars.len() < 8 {
        // So that one import is not a wall.
        bars.splice(0..0, vec![[0; 3]; 8 - bars.len()]);
    }
    let body = html! {
        div.head {
            p.crumbs { a href=(page.url("/feeds")) { "Feeds" } " / " (feed.name) }
            div { h1 { (feed.title.as_deref().unwrap_or(&feed.name)) } (state(&feed.state())) }
            @if page.may_act() && feed.from != "gone" {
                div {
                    (page.button(&here, ("do", "import"), "Import now", "main"))
                    @if feed.from == "subscription" {
                        @if feed.is_paused { (page.button(&here, ("do", "resume"), "Resume", "")) }
                        @else { (page.button(&here, ("do", "pause"), "Pause", "")) }
                    }
                }
            }
        }
        div.grid {
            section.panel {
                h2 { "About" }
                dl.about {
                    dt { "Address" } dd { (feed.url) }
                    @if feed.source != feed.url { dt { "Source" } dd { (feed.source) } }
                    @if let Some(moved) = &feed.moved_to { dt { "Moved to" } dd { (moved) } }
                    dt { "From" } dd { (if feed.from == "file" { page.app.options.config_file.as_str() } else { feed.from }) }
                    dt { "Schedule" } dd { @if let Some(schedule) = &feed.schedule { (schedule) } @else { "when asked" } }
                    dt { "Last fetch" } dd { (time(feed.last_fetch_at)) @if let Some(status) = feed.last_status { ", HTTP " (status) } }
                    dt { "Next fetch" } dd { (time(feed.next_fetch_at)) }
                    dt { "Failures in a row" } dd { (feed.consecutive_failures) }
                    @if let Some(error) = &feed.last_error { dt { "Last error" } dd.bad { (error) } }
                }
            }
            section.panel {
                h2 { "Items of the last imports" }
                (stacked(&bars, ["done", "died", "rest"], &format!("Items of the last {} imports: new, changed, unchanged", imports.len()), ["older", "newest"]))
                div.legend { span { i.done {} "new" } span { i.died {} "changed" } span { i.rest {} "unchanged" } }
            }
        }
        section.panel.flush { h2 { "Imports" } (imports_table(&page, &imports, false)) }
    };
    Ok(page.shell(&feed.name, "feeds", &body))
}

async fn read_imports(
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

pub(super) async fn imports(page: Page) -> Result<Response, ApiError> {
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

fn imports_table(page: &Page, imports: &[ImportRecord], with_feed: bool) -> Markup {
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
                                td.num data-name="items" { (number(one.items)) }
                                td.num data-name="new" { (number(one.new)) }
                                td.num data-name="changed" { (number(one.changed)) }
                                td.num data-name="unchanged" { (number(one.unchanged)) }
                                td.num data-name="stored" { (number(one.inserted + one.updated)) }
                                td.num.(if one.failed > 0 { "bad" } else { "" }) data-name="failed" { (number(one.failed)) }
                                td.note.(if one.error.is_some() { "bad" } else { "" }) { @if let Some(note) = one.error.as_ref().or(one.recovered.as_ref()) { span.clip { (note) } } }
                            }
                        }
                    }
                }
            }
        }
    }
}

pub(super) async fn import(page: Page) -> Result<Response, ApiError> {
    let text = page.part(1);
    let id: ImportId = text.parse().map_err(|_| ApiError::no_import(&text))?;
    let found = import::find_import(&page.app.queues.import, &page.app.store, id).await?;
    let one = found.ok_or_else(|| ApiError::no_import(&text))?;
    let queue = page.app.queues.import.name();
    let counts = |counts: &[(&str, u64)]| html! { dl.about { @for (name, count) in counts { dt { (name) } dd.num { (number(*count)) } } } };
    let body = html! {
        div.head {
            p.crumbs { a href=(page.url("/imports")) { "Imports" } " / " (one.id) }
            div { h1 { "Import of " a href=(page.feed_url(&one.feed)) { (one.feed) } } (state(status_word(one.status))) }
        }
        @if let Some(error) = &one.error { section.panel.problem { (error) } }
        @if let Some(recovered) = &one.recovered { section.panel.alert { "The document was read by mending it: " (recovered) } }
        div.grid {
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

pub(super) async fn document(page: Page) -> Result<Response, ApiError> {
    let wanted = page.params.text("source").zip(page.params.text("guid"));
    let (source, guid) = wanted.ok_or_else(|| ApiError::BadRequest("source and guid must be given".to_owned()))?;
    let found = page.app.store.find_document(source, guid).await?;
    let body = html! {
        div.head { div { h1 { "Document" } } }
        p.mono { (source) "#" (guid) }
        section.panel {
            @match &found {
                Some(document) => (tree(document)),
                None => p.dim { "There is no document of this item: its job is not done yet, or it was never seen." },
            }
        }
    };
    Ok(page.shell("Document", "imports", &body))
}
