//! `feedmill feeds check`: fetches and reads a feed, and stores nothing.

use std::collections::BTreeMap;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;
use serde_json::json;
use url::Url;

use crate::cli::{UsageError, output};
use crate::config::Config;
use crate::feed::Feed;
use crate::feed::discover::feeds_of_page;
use crate::feed::fetch::{FetchRequest, Fetched, Fetcher, Validators, shown};
use crate::feed::pace::Wishes;
use crate::feed::parse::{self, Hints, ParsedFeed};
use crate::pipeline::{all_feeds, feeds, fetch_limits, open_store};

/// Fetch and read a feed, and store nothing
///
/// Asks as a fetch would: with the headers and credentials of a feed that is named, and by the rules for addresses that
/// anybody may have given where it is a URL.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  feedmill feeds check jobs
  feedmill feeds check https://jobs.example/rss.xml --json")]
pub(in crate::cli) struct CheckArgs {
    /// Name of a feed, or a URL
    #[arg(value_name = "FEED|URL")]
    feed: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// A feed that was fetched and read.
pub(super) struct Checked {
    /// Where it is to be fetched.
    pub(super) url: Url,
    /// Where it was found: behind the redirects.
    final_url: Url,
    status: u16,
    wishes: Wishes,
    pub(super) feed: ParsedFeed,
}

pub(super) fn web_address(text: &str) -> Result<Url, UsageError> {
    match text.parse::<Url>() {
        Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => Ok(url),
        _ => Err(UsageError(format!("{text:?} is no address of a feed; accepted: http:// or https:// with a host"))),
    }
}

/// A request by somebody who is not trusted.
fn request(url: &Url) -> FetchRequest {
    FetchRequest {
        url: url.clone(),
        moved_to: None,
        headers: BTreeMap::new(),
        credentials: None,
        validators: Validators::default(),
        allow_private: false,
        proxy: None,
    }
}

fn request_of(feed: &Feed) -> FetchRequest {
    FetchRequest {
        headers: feed.headers.clone(),
        credentials: feed.credentials.clone(),
        allow_private: feed.allow_private,
        proxy: feed.proxy.clone(),
        ..request(&feed.url)
    }
}

/// The answer to a request, as a feed or, if it is none, as the page it may be.
async fn read(fetcher: &Fetcher, request: &FetchRequest) -> anyhow::Result<Result<Checked, (Vec<Url>, anyhow::Error)>> {
    let Fetched::Body { bytes, content_type, final_url, moved_to, fresh_for, status, .. } =
        fetcher.fetch(request).await?
    else {
        anyhow::bail!("{} answered 304 to a request that knew nothing", shown(&request.url));
    };
    let hints =
        Hints { content_type: content_type.as_deref(), base_url: Some(&final_url), is_cut_off: bytes.is_cut_off() };
    Ok(match parse::parse(&bytes, &hints) {
        Ok(feed) => {
            let wishes = Wishes::of(&bytes, fresh_for);
            let url = moved_to.unwrap_or_else(|| request.url.clone());
            Ok(Checked { url, final_url, status, wishes, feed })
        }
        Err(error) => Err((feeds_of_page(&bytes, &final_url), error.into())),
    })
}

/// The feed at an address that anybody may have given: it, or the first one that the page there names.
pub(super) async fn find(fetcher: &Fetcher, url: &Url) -> anyhow::Result<Checked> {
    let (named, error) = match read(fetcher, &request(url)).await? {
        Ok(found) => return Ok(found),
        Err(page) => page,
    };
    let Some(feed_url) = named.first() else {
        return Err(error.context(format!("{} is no feed, and names none", shown(url))));
    };
    match read(fetcher, &request(feed_url)).await? {
        Ok(found) => Ok(found),
        Err((_, error)) => {
            Err(error.context(format!("{}, which {} names as its feed, is none", shown(feed_url), shown(url))))
        }
    }
}

pub(super) async fn run(config: &Config, args: &CheckArgs) -> anyhow::Result<ExitCode> {
    let fetcher = Fetcher::new(fetch_limits(config))?;
    let checked = if args.feed.contains("://") {
        find(&fetcher, &web_address(&args.feed)?).await?
    } else {
        let feed = match feeds(config)?.get(&args.feed) {
            Some(feed) => feed.clone(),
            None => all_feeds(config, &open_store(config).await?)
                .await?
                .find(&args.feed)
                .with_context(|| format!("there is no feed {:?}; `feedmill feeds list` shows them", args.feed))?,
        };
        let read = read(&fetcher, &request_of(&feed)).await?;
        read.map_err(|(_, error)| error.context(format!("feed {} cannot be read", feed.name)))?
    };
    let Checked { url, final_url, status, wishes, feed } = checked;
    let format = format!("{:?}", feed.format);
    let interval = wishes.interval.map(|interval| humantime::format_duration(interval).to_string());
    if args.json {
        output::json(&json!({
            "url": shown(&url),
            "final_url": shown(&final_url),
            "status": status,
            "format": format,
            "title": feed.title,
            "items": feed.items.len(),
            "unreadable_dates": feed.unreadable_dates,
            "interval": interval,
        }))?;
        return Ok(ExitCode::SUCCESS);
    }
    let title = feed.title.as_deref().map_or_else(|| "-".to_owned(), output::one_line);
    let rows = [
        ("url", shown(&url)),
        ("found at", shown(&final_url)),
        ("status", status.to_string()),
        ("format", format),
        ("title", title),
        ("items", feed.items.len().to_string()),
        ("bad dates", feed.unreadable_dates.to_string()),
        ("wants", interval.map_or_else(|| "-".to_owned(), |interval| format!("to be asked every {interval} at most"))),
    ];
    for (name, value) in rows {
        output::line(&format!("{name:<12}{value}"))?;
    }
    Ok(ExitCode::SUCCESS)
}
