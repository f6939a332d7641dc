//! The feeds as they are shown: what is configured or subscribed to, and how the last fetch went.

use std::ops::Bound;

use jiff::Timestamp;
use serde::Serialize;

use super::live::SECOND;
use super::{ApiError, App};
use crate::feed::Feed;
use crate::feed::fetch::shown;
use crate::secret::mask_url;
use crate::store::look::{FeedsWanted, StoredFeed};

/// One feed.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct FeedRow {
    pub(super) name: String,
    /// `file`, `subscription`, or `gone`: it is stored and nobody wants it any more.
    pub(super) from: &'static str,
    pub(super) url: String,
    pub(super) source: String,
    pub(super) title: Option<String>,
    pub(super) schedule: Option<String>,
    pub(super) is_paused: bool,
    pub(super) is_stopped: bool,
    pub(super) last_status: Option<u16>,
    pub(super) last_fetch_at: Option<Timestamp>,
    pub(super) next_fetch_at: Option<Timestamp>,
    pub(super) consecutive_failures: u32,
    pub(super) last_error: Option<String>,
    pub(super) moved_to: Option<String>,
}

/// Which feeds are listed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Which {
    #[default]
    All,
    Failing,
    Paused,
}

impl Which {
    pub(super) const ALL: [Self; 3] = [Self::All, Self::Failing, Self::Paused];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Failing => "failing",
            Self::Paused => "paused",
        }
    }

    pub(super) fn of(name: &str) -> Result<Self, ApiError> {
        let unknown = || ApiError::BadRequest(format!("which {name:?}: accepted are all, failing, paused"));
        Self::ALL.into_iter().find(|which| which.name() == name).ok_or_else(unknown)
    }
}

/// A page of feeds.
#[derive(Clone, Debug, Serialize)]
pub(super) struct FeedPage {
    pub(super) feeds: Vec<FeedRow>,
    /// Name of the last one, where more follow.
    pub(super) next: Option<String>,
}

impl FeedRow {
    fn new(name: String, feed: Option<&Feed>, stored: Option<StoredFeed>) -> Self {
        let (status, subscription) = stored.map_or((None, None), |stored| (stored.status, stored.subscription));
        let is_subscribed = subscription.is_some();
        let is_paused = subscription.as_ref().is_some_and(|one| one.paused);
        let of_status =
            |text: fn(&crate::store::FeedStatus) -> &String| status.as_ref().map(text).map(|url| mask_url(url));
        let known = feed.map(|feed| (shown(&feed.url), mask_url(&feed.source)));
        let (url, source) = known.unwrap_or_else(|| {
            (
                of_status(|status| &status.url).unwrap_or_default(),
                of_status(|status| &status.source).unwrap_or_default(),
            )
        });
        Self {
            name,
            from: match feed {
                Some(_) if is_subscribed => "subscription",
                Some(_) => "file",
                None => "gone",
            },
            url,
            source,
            schedule: subscription
                .as_ref()
                .map(|one| one.schedule.clone())
                .or_else(|| feed?.schedule.as_ref().map(ToString::to_string)),
            title: subscription.and_then(|one| one.title),
            is_paused,
            is_stopped: status.as_ref().is_some_and(|status| status.stopped),
            last_status: status.as_ref().and_then(|status| status.last_status),
            last_fetch_at: status.as_ref().and_then(|status| status.last_fetch_at),
            next_fetch_at: status.as_ref().and_then(|status| status.next_fetch_at).filter(|_| !is_paused),
            consecutive_failures: status.as_ref().map_or(0, |status| status.consecutive_failures),
            last_error: status.as_ref().and_then(|status| status.last_error.clone()),
            moved_to: status.and_then(|status| status.moved_to.as_deref().map(mask_url)),
        }
    }

    /// How it is doing, in a word or two.
    pub(super) fn state(&self) -> String {
        if self.is_paused {
            "paused".to_owned()
        } else if self.is_stopped {
            "gone for good".to_owned()
        } else if self.consecutive_failures > 0 {
            format!("failed {}×", self.consecutive_failures)
        } else if self.last_fetch_at.is_some() {
            "ok".to_owned()
        } else {
            "never fetched".to_owned()
        }
    }
}

/// Feeds by name, behind `after`, with `text` in their name or address.
pub(super) async fn list(app: &App, which: Which, text: &str, after: &str, limit: usize) -> Result<FeedPage, ApiError> {
    let load = async {
        let current = app.feeds.current();
        let (stored, is_full) = if which == Which::All {
            let range = (Bound::Excluded(after.to_owned()), Bound::Unbounded);
            let holds = |feed: &Feed| text.is_empty() || feed.name.contains(text) || shown(&feed.url).contains(text);
            let names = current.range(range).filter(|(_, feed)| holds(feed)).map(|(name, _)| name.clone());
            let names: Vec<String> = names.take(limit).collect();
            let mut stored = app.store.stored_feeds(FeedsWanted::Named(&names)).await?.into_iter().peekable();
            let all = names.iter().map(|name| {
                let found = stored.next_if(|stored| stored.name == *name);
                found.unwrap_or_else(|| StoredFeed { name: name.clone(), status: None, subscription: None })
            });
            let all: Vec<StoredFeed> = all.collect();
            let is_full = all.len() >= limit;
            (all, is_full)
        } else {
            let wanted = if which == Which::Failing {
                FeedsWanted::Failing(after, limit as u32)
            } else {
                FeedsWanted::Paused(after, limit as u32)
            };
            let mut stored = app.store.stored_feeds(wanted).await?;
            let is_full = stored.len() >= limit;
            let last = stored.last().map(|stored| stored.name.clone());
            stored.retain(|stored| text.is_empty() || stored.name.contains(text));
            if let (true, Some(last)) = (is_full, last)
                && stored.last().is_none_or(|stored| stored.name != last)
            {
                // The page goes on behind one that is not shown.
                let feeds = stored
                    .into_iter()
                    .map(|one| FeedRow::new(one.name.clone(), current.get(&one.name).map(|feed| &**feed), Some(one)));
                return Ok(FeedPage { feeds: feeds.collect(), next: Some(last) });
            }
            (stored, is_full)
        };
        let next = stored.last().filter(|_| is_full).map(|stored| stored.name.clone());
        let feeds = stored.into_iter().map(|one| {
            let feed = current.get(&one.name).map(|feed| &**feed);
            FeedRow::new(one.name.clone(), feed, Some(one))
        });
        Ok(FeedPage { feeds: feeds.collect(), next })
    };
    let page = app.shared.get(format!("feeds {} {limit} {after} {text}", which.name()), SECOND, load).await?;
    Ok((*page).clone())
}

/// One feed.
pub(super) async fn find(app: &App, name: &str) -> Result<FeedRow, ApiError> {
    let stored = app.store.stored_feeds(FeedsWanted::Named(&[name.to_owned()])).await?.pop();
    let feed = app.feeds.find(name);
    if feed.is_none() && stored.is_none() {
        return Err(ApiError::Missing { what: "feed", name: name.chars().take(200).collect() });
    }
    Ok(FeedRow::new(name.to_owned(), feed.as_deref(), stored))
}
