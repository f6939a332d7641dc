//! The configured feeds, as they are now: a running process may be told to read its configuration again.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::watch;

use crate::feed::Feed;

/// The feeds of one reading of the configuration, by name.
pub type Feeds = Arc<BTreeMap<String, Arc<Feed>>>;

/// The feeds in force. Cheap to clone; all clones see a replacement at once.
#[derive(Clone, Debug)]
pub struct ConfiguredFeeds {
    feeds: Arc<watch::Sender<Feeds>>,
}

impl ConfiguredFeeds {
    /// With these feeds for now.
    pub fn new(feeds: Feeds) -> Self {
        Self { feeds: Arc::new(watch::Sender::new(feeds)) }
    }

    /// All feeds. What is done with them goes on with these even if they are replaced meanwhile.
    pub fn current(&self) -> Feeds {
        self.feeds.borrow().clone()
    }

    /// The feed of this name.
    pub fn find(&self, name: &str) -> Option<Arc<Feed>> {
        self.feeds.borrow().get(name).cloned()
    }

    /// Puts these in the place of all feeds.
    pub fn replace(&self, feeds: Feeds) {
        self.feeds.send_replace(feeds);
    }

    /// Tells of replacements from now on.
    pub fn subscribe(&self) -> watch::Receiver<Feeds> {
        self.feeds.subscribe()
    }
}
