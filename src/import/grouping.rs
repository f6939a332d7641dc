//! What jobs are grouped by, on a queue with `group_by`: jobs of one group share a window of the queue.

use std::borrow::Cow;

use url::Url;

use crate::feed::Feed;

/// What the jobs of a group have in common.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Grouping {
    /// The source of the items.
    #[default]
    Source,
    /// The host that they come from.
    Host,
}

impl Grouping {
    /// The group of the items of a source: itself, or the host of its URL. A source that is no URL is its own group.
    pub fn of_source(self, source: &str) -> Cow<'_, str> {
        let host = match self {
            Self::Source => None,
            Self::Host => Url::parse(source).ok().and_then(|url| url.host_str().map(str::to_owned)),
        };
        host.map_or(Cow::Borrowed(source), Cow::Owned)
    }

    /// The group of the fetches of a feed: its source, or the host that it is fetched from, wherever that redirects to.
    pub fn of_fetches(self, feed: &Feed) -> &str {
        match self {
            Self::Source => &feed.source,
            Self::Host => feed.url.host_str().unwrap_or(&feed.source),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_are_grouped_by_their_source_or_its_host() {
        let source = "https://Jobs.example:8443/feed?x=1";
        assert_eq!(Grouping::Source.of_source(source), source);
        assert_eq!(Grouping::Host.of_source(source), "jobs.example");
        for source in ["jobboard", "urn:feed:1", ""] {
            assert_eq!(Grouping::Host.of_source(source), source, "no host in it");
        }
    }
}
