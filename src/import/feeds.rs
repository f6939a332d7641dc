//! The feeds, as they are now: those of the configuration, which a running process may be told to read again, and the
//! subscriptions, which are in MongoDB.
//!
//! ```text
//!   streams.toml ──replace──▶┐
//!                            ├─▶ by name; the configuration's wins ──▶ whoever works with feeds
//!   MongoDB ──────refresh───▶┘
//! ```

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use url::Url;

use super::Grouping;
use crate::error::chain;
use crate::feed::Feed;
use crate::feed::schedule::Schedule;
use crate::store::subscriptions::{Subscription, SubscriptionsMark};
use crate::store::{Store, StoreError};

/// The feeds of one reading, by name.
pub type Feeds = Arc<BTreeMap<String, Arc<Feed>>>;

/// Time between two looks whether subscriptions have changed: how long a new one is not known everywhere.
const REFRESH_INTERVAL: Duration = Duration::from_secs(2);

/// Longest delay of a subscribed feed after a due time, so that not all start together.
const SPREAD: Duration = Duration::from_mins(1);

/// The feeds in force. Cheap to clone; all clones see a change at once.
#[derive(Clone, Debug)]
pub struct ConfiguredFeeds {
    feeds: Arc<watch::Sender<Feeds>>,
    layers: Arc<Mutex<Layers>>,
    subscriptions: Option<Subscriptions>,
}

#[derive(Debug, Default)]
struct Layers {
    configured: Feeds,
    subscribed: Feeds,
    /// Of the subscriptions that were read last.
    mark: Option<SubscriptionsMark>,
}

/// Where subscriptions are, and what their fetches are grouped by.
#[derive(Clone, Debug)]
struct Subscriptions {
    store: Store,
    grouping: Option<Grouping>,
}

impl ConfiguredFeeds {
    /// With these feeds for now, and no subscriptions.
    pub fn new(feeds: Feeds) -> Self {
        let layers = Layers { configured: feeds.clone(), ..Layers::default() };
        Self { feeds: Arc::new(watch::Sender::new(feeds)), layers: Arc::new(Mutex::new(layers)), subscriptions: None }
    }

    /// With the feeds of the configuration and the subscriptions of this store.
    ///
    /// # Errors
    /// [`StoreError`] when they cannot be read: without them, their schedules would be taken for gone.
    pub async fn with_subscriptions(
        feeds: Feeds,
        store: Store,
        grouping: Option<Grouping>,
    ) -> Result<Self, StoreError> {
        let feeds = Self { subscriptions: Some(Subscriptions { store, grouping }), ..Self::new(feeds) };
        feeds.refresh().await?;
        Ok(feeds)
    }

    /// All feeds. What is done with them goes on with these even if they are replaced meanwhile.
    pub fn current(&self) -> Feeds {
        self.feeds.borrow().clone()
    }

    /// The feed of this name.
    pub fn find(&self, name: &str) -> Option<Arc<Feed>> {
        self.feeds.borrow().get(name).cloned()
    }

    /// Whether the feed of this name is of the configuration; a subscription of the same name has no say.
    pub fn is_configured(&self, name: &str) -> bool {
        self.layers.lock().unwrap_or_else(PoisonError::into_inner).configured.contains_key(name)
    }

    /// Puts these in the place of the feeds of the configuration.
    pub fn replace(&self, feeds: Feeds) {
        self.change(|layers| layers.configured = feeds);
    }

    /// Tells of changes from now on.
    pub fn subscribe(&self) -> watch::Receiver<Feeds> {
        self.feeds.subscribe()
    }

    /// Reads the subscriptions, if they have changed since they were read.
    ///
    /// # Errors
    /// [`StoreError`]; then they stay as they were.
    pub async fn refresh(&self) -> Result<(), StoreError> {
        let Some(Subscriptions { store, grouping }) = &self.subscriptions else { return Ok(()) };
        // Before they are read: what changes in between is read again.
        let mark = Some(store.subscriptions_mark().await?);
        if self.layers.lock().unwrap_or_else(PoisonError::into_inner).mark == mark {
            return Ok(());
        }
        let subscriptions = store.subscriptions().await?;
        let feeds = subscriptions.into_iter().filter_map(|subscription| {
            let name = subscription.name.clone();
            match feed(subscription, *grouping) {
                Ok(feed) => Some((name, Arc::new(feed))),
                Err(reason) => {
                    tracing::warn!(feed = %name, "subscription {name} cannot be used: {reason}");
                    None
                }
            }
        });
        let feeds = Arc::new(feeds.collect());
        self.change(|layers| {
            layers.subscribed = feeds;
            layers.mark = mark;
        });
        Ok(())
    }

    /// Keeps up with the subscriptions until `shutdown`. While MongoDB is away they stay as they were.
    pub async fn run(self, shutdown: CancellationToken) {
        if self.subscriptions.is_none() {
            return;
        }
        let refreshing = async {
            loop {
                tokio::time::sleep(REFRESH_INTERVAL).await;
                if let Err(error) = self.refresh().await {
                    tracing::debug!(error = %chain(&error), "subscriptions cannot be read; they stay as they were");
                }
            }
        };
        shutdown.run_until_cancelled(refreshing).await;
    }

    fn change(&self, change: impl FnOnce(&mut Layers)) {
        let mut layers = self.layers.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut layers);
        let merged = if layers.subscribed.is_empty() {
            layers.configured.clone()
        } else {
            let mut merged = BTreeMap::clone(&layers.subscribed);
            merged.extend(layers.configured.iter().map(|(name, feed)| (name.clone(), feed.clone())));
            Arc::new(merged)
        };
        self.feeds.send_replace(merged);
    }
}

/// A subscription as a feed. It may come from anybody, so it never reaches a private address.
fn feed(subscription: Subscription, grouping: Option<Grouping>) -> Result<Feed, String> {
    let url: Url = subscription.url.parse().map_err(|error| format!("its url: {error}"))?;
    let schedule = Schedule::parse(&subscription.schedule, subscription.timezone.as_deref());
    let schedule = schedule.map_err(|error| chain(&error))?;
    let mut feed = Feed {
        name: subscription.name,
        url,
        source: subscription.source,
        headers: BTreeMap::new(),
        credentials: None,
        proxy: None,
        schedule: (!subscription.paused).then_some(schedule),
        allow_private: false,
        on_leave: subscription.on_leave,
        fetch_group: String::new(),
        spread: SPREAD,
    };
    if let Some(grouping) = grouping {
        feed.fetch_group = grouping.of_fetches(&feed).to_owned();
    }
    Ok(feed)
}
