//! `feedmill feeds list` and `show`: how each feed is doing.

use std::collections::BTreeMap;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;
use jiff::Timestamp;
use serde::Serialize;

use super::subscribed;
use crate::cli::output;
use crate::config::Config;
use crate::feed::fetch::shown;
use crate::store::FeedStatus;

/// List all feeds, those of the configuration and the subscriptions
///
/// As JSON: what `feeds show --json` prints, of each.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  feedmill feeds list
  feedmill feeds list --json | jq '.[] | select(.consecutive_failures > 3)'")]
pub(in crate::cli) struct ListArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Show one feed and its last fetch
#[derive(Debug, Args)]
#[command(after_help = "Example:
  feedmill feeds show jobs")]
pub(in crate::cli) struct ShowArgs {
    /// Name of the feed
    feed: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// One feed, as it is shown.
#[derive(Clone, Debug, Serialize)]
struct Row {
    name: String,
    /// `file` or `subscription`.
    from: &'static str,
    url: String,
    source: String,
    title: Option<String>,
    schedule: Option<String>,
    state: String,
    last_status: Option<u16>,
    last_fetch: Option<Timestamp>,
    next_fetch: Option<Timestamp>,
    consecutive_failures: u32,
    last_error: Option<String>,
    moved_to: Option<String>,
}

impl Row {
    fn with(self, status: Option<FeedStatus>, paused: bool) -> Self {
        let Some(status) = status else {
            let state = if paused { "paused" } else { "new" };
            return Self { state: state.to_owned(), ..self };
        };
        let state = if paused {
            "paused".to_owned()
        } else if status.stopped {
            "gone".to_owned()
        } else if status.consecutive_failures > 0 {
            format!("failed {}×", status.consecutive_failures)
        } else if status.last_fetch_at.is_some() {
            "ok".to_owned()
        } else {
            "new".to_owned()
        };
        Self {
            state,
            last_status: status.last_status,
            last_fetch: status.last_fetch_at,
            next_fetch: status.next_fetch_at.filter(|_| !paused),
            consecutive_failures: status.consecutive_failures,
            last_error: status.last_error,
            moved_to: status.moved_to,
            ..self
        }
    }
}

async fn rows(config: &Config) -> anyhow::Result<BTreeMap<String, Row>> {
    let (store, subscriptions, _) = subscribed(config).await?;
    let mut statuses: BTreeMap<String, FeedStatus> =
        store.list_feeds().await?.into_iter().map(|status| (status.name.clone(), status)).collect();
    let blank = |name: &str, from| Row {
        name: name.to_owned(),
        from,
        url: String::new(),
        source: String::new(),
        title: None,
        schedule: None,
        state: String::new(),
        last_status: None,
        last_fetch: None,
        next_fetch: None,
        consecutive_failures: 0,
        last_error: None,
        moved_to: None,
    };
    let mut rows = BTreeMap::new();
    for subscription in subscriptions {
        let row = Row {
            url: subscription.url,
            source: subscription.source,
            title: subscription.title,
            schedule: Some(subscription.schedule),
            ..blank(&subscription.name, "subscription")
        };
        rows.insert(row.name.clone(), (row, subscription.paused));
    }
    // Those of the file are in force where both have a name.
    for feed in &config.feeds {
        let row = Row {
            url: shown(&feed.url),
            source: crate::secret::mask_url(&feed.source),
            schedule: feed.schedule.clone(),
            ..blank(&feed.name, "file")
        };
        rows.insert(row.name.clone(), (row, false));
    }
    let rows = rows.into_iter().map(|(name, (row, paused))| {
        let status = statuses.remove(&name);
        (name, row.with(status, paused))
    });
    Ok(rows.collect())
}

pub(super) async fn list(config: &Config, args: &ListArgs) -> anyhow::Result<ExitCode> {
    let rows = rows(config).await?;
    if args.json {
        output::json(&rows.values().collect::<Vec<_>>())?;
    } else if rows.is_empty() {
        output::aside("there are no feeds; `feedmill feeds add URL` subscribes to one");
    } else {
        let header = ["feed", "from", "state", "last UTC", "next UTC", "url"];
        let at = |at: Option<Timestamp>| at.map_or_else(|| "-".to_owned(), output::day_and_minute);
        let from = |row: &Row| if row.from == "file" { "file" } else { "added" }.to_owned();
        let cells = rows.into_values().map(|row| {
            let from = from(&row);
            [output::shortened(&row.name, 24), from, row.state, at(row.last_fetch), at(row.next_fetch), row.url]
        });
        output::table(header, header.len(), output::fitting(header, cells.collect()))?;
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn show(config: &Config, args: &ShowArgs) -> anyhow::Result<ExitCode> {
    let row = rows(config)
        .await?
        .remove(&args.feed)
        .with_context(|| format!("there is no feed {:?}; `feedmill feeds list` shows them", args.feed))?;
    if args.json {
        output::json(&row)?;
        return Ok(ExitCode::SUCCESS);
    }
    let or_dash = |text: Option<String>| text.map_or_else(|| "-".to_owned(), |text| output::one_line(&text));
    let rows = [
        ("feed", row.name),
        ("from", row.from.to_owned()),
        ("url", row.url),
        ("moved to", or_dash(row.moved_to)),
        ("source", output::one_line(&row.source)),
        ("title", or_dash(row.title)),
        ("schedule", or_dash(row.schedule)),
        ("state", row.state),
        ("last status", row.last_status.map_or_else(|| "-".to_owned(), |status| status.to_string())),
        ("last fetch", output::time(row.last_fetch)),
        ("next fetch", output::time(row.next_fetch)),
        ("last error", or_dash(row.last_error)),
    ];
    for (name, value) in rows {
        output::line(&format!("{name:<13}{value}"))?;
    }
    Ok(ExitCode::SUCCESS)
}
