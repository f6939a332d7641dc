//! From a subscribed URL to items: the producer side.
//!
//! ```text
//!  Feed ──schedule──▶ due ──fetch──▶ Fetched ──parse──▶ ParsedFeed ──identity──▶ items
//!                          GET, 304                                               │
//!                                        seen: fingerprint of each against        │
//!                                        what the feed showed lately     ◀────────┘
//!                                        new and changed ones go to the queue
//! ```
//!
//! Three words that are not the same: a *schedule* says when a feed is due, a *fetch* is the HTTP request, a *read*
//! belongs to the queue.
//!
//! **Invariants.** Only [`fetch`] does I/O. Nothing here knows Redis or MongoDB. An item of a feed has the feed's
//! [`source`](Feed::source), whatever redirects say.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use url::Url;

pub mod schedule;
pub mod pace;
pub mod fetch;
pub mod parse;
pub mod identity;
pub mod fingerprint;
pub mod seen;
pub mod opml;
pub mod discover;

use fetch::{Credentials, Proxy};
use schedule::Schedule;

/// A subscription, as the configuration describes it.
#[derive(Clone)]
pub struct Feed {
    /// Its name, unique in the configuration; the id of its fetch jobs.
    pub name: String,
    /// Where it is fetched.
    pub url: Url,
    /// The collection its items belong to: the `source` key, else the URL as configured, byte for byte.
    pub source: String,
    /// Credentials sent with each request, to the host of `url` only.
    pub credentials: Option<Credentials>,
    /// The way to its server, if it is not that of all feeds.
    pub proxy: Option<Proxy>,
    /// Headers sent with each request, to the host of `url` only. May hold secrets.
    pub headers: BTreeMap<String, String>,
    /// When it is due; `None` is never by itself, only when asked for.
    pub schedule: Option<Schedule>,
    /// Whether addresses of private networks may be fetched.
    pub allow_private: bool,
    /// What becomes of the document of an item that the feed does not show any more.
    pub on_leave: OnLeave,
    /// What its fetches are grouped by, on a fetch queue with groups.
    pub fetch_group: String,
    /// Longest delay after a due time, so that feeds due at the same moment do not all start together.
    pub spread: Duration,
}

/// What becomes of the document of an item that left its feed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnLeave {
    /// Nothing.
    #[default]
    Keep,
    /// It says when, in `leftFeedAt`.
    Mark,
    /// It is deleted.
    Delete,
}

impl Feed {
    /// A digest of where it is fetched: tells whether the address has changed, without keeping its secrets.
    pub fn address_digest(&self) -> String {
        format!("{:032x}", xxhash_rust::xxh3::xxh3_128(self.url.as_str().as_bytes()))
    }
}

/// The name alone: URL, source and headers may hold secrets, and a log shows what it is given.
impl fmt::Debug for Feed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Feed").field("name", &self.name).finish_non_exhaustive()
    }
}
