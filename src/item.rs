//! An item: one element of a feed, as it travels from `feed/` through the queue to `store/`.
//!
//! It is the payload of a job of the import queue (MessagePack map, field names as below), the shape a plain
//! producer writes as JSON, and what `feedmill parse` prints. It knows nothing of Redis or MongoDB.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// One element of a feed, normalised.
///
/// Texts keep their markup: escaped HTML in a feed stays HTML here (one level of XML unescaping).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Item {
    /// The collection of items this one belongs to: the feed's `source` key, else its configured URL.
    /// Empty only in what the parser returns, which does not know it.
    #[serde(default)]
    pub source: String,
    /// Stable identity within `source`; see [`crate::feed::identity`].
    #[serde(default)]
    pub guid: String,
    /// Name of the feed that showed it; `None` for an item of a plain producer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub feed: Option<String>,
    /// RSS `title`, Atom `title`.
    #[serde(default)]
    pub title: Option<String>,
    /// Absolute URL of the item's page.
    #[serde(default)]
    pub link: Option<String>,
    /// When it was published; `None` when absent or unreadable, never "now".
    #[serde(default)]
    pub published: Option<Timestamp>,
    /// When it was last changed, as the feed says.
    #[serde(default)]
    pub updated: Option<Timestamp>,
    /// RSS `description`, Atom `summary`.
    #[serde(default)]
    pub summary: Option<String>,
    /// RSS `content:encoded`, Atom `content`.
    #[serde(default)]
    pub content: Option<String>,
    /// Name of the author.
    #[serde(default)]
    pub author: Option<String>,
    /// All categories, in document order.
    #[serde(default)]
    pub categories: Vec<String>,
    /// Attached files.
    #[serde(default)]
    pub enclosures: Vec<Enclosure>,
    /// Every other namespaced element, keyed by its usual prefix and name (`job_listing:company`; an attribute is
    /// `media:thumbnail@url`). One value is a string, several are an array of strings in document order.
    #[serde(default)]
    pub extensions: BTreeMap<String, serde_json::Value>,
}

/// A file attached to an item (RSS `enclosure`, Atom `link rel="enclosure"`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enclosure {
    /// Absolute URL.
    pub url: String,
    /// Media type as given, e.g. `audio/mpeg`.
    #[serde(rename = "type", default)]
    pub media_type: Option<String>,
    /// Size in bytes as given.
    #[serde(default)]
    pub length: Option<u64>,
}
