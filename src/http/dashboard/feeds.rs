//! Feeds: all of them, and one with its imports.

use axum::response::Response;
use maud::{Markup, html};

use super::imports::{imports_table, read_imports};
use super::page::Page;
use super::view::{number, stacked, state, time};
use crate::http::ApiError;
use crate::http::feeds::{self, FeedRow, Which};

/// Feeds of a page.
const ROWS: usize = 50;

/// Imports of a feed's chart.
const CHART_IMPORTS: u32 = 40;

pub(super) async fn list(page: Page) -> Result<Response, ApiError> {
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
            td.nowrap data-name="schedule" { @if let Some(schedule) = &feed.schedule { (schedule) } @else { span.dim { "when asked" } } }
            td { @if page.may_act() && feed.from != "gone" { (page.button(&page.feed_url(&feed.name), ("do", "import"), "Import now", "")) } }
        }
    }
}

pub(super) async fn show(page: Page) -> Result<Response, ApiError> {
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
                (stacked(&bars, ["done", "changed", "rest"], &format!("Items of the last {} imports: new, changed, unchanged", imports.len()), ["older", "newest"]))
                div.legend { span { i.done {} "new" } span { i.changed {} "changed" } span { i.rest {} "unchanged" } }
            }
        }
        section.panel.flush { h2 { "Imports" } (imports_table(&page, &imports, false)) }
    };
    Ok(page.shell(&feed.name, "feeds", &body))
}
