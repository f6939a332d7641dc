//! What viewers of the dashboard share: answers of Redis and MongoDB that are at most a second old, and one stream of news.
//!
//! ```text
//!   any number of pages ──▶ Shared: one load per key and second ──▶ Redis, MongoDB
//!   any number of streams ◀── News: one reader per queue, one snapshot a second, while anybody listens
//! ```
//!
//! So what the dashboard costs Redis depends on what is looked at, and not on how many look at it.

use std::any::Any;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Mutex as AsyncMutex, broadcast, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::ApiError;
use crate::queue::Queue;
use crate::queue::events::{After, Event};

/// How old most answers may be.
pub(super) const SECOND: Duration = Duration::from_secs(1);
/// Answers that are remembered; with more, those that are too old go.
const ANSWERS_MAX: usize = 512;
/// News that a slow listener may be behind; then it misses some.
const NEWS_MAX: usize = 256;
/// Events of one read that are passed on. A busy queue has thousands a second, and nobody reads them.
const EVENTS_TOLD_MAX: usize = 20;
/// Pause after a failed read of events.
const PAUSE: Duration = Duration::from_secs(1);

type Answer = Option<(Instant, u64, Arc<dyn Any + Send + Sync>)>;

/// Answers that all viewers share.
#[derive(Default)]
pub(super) struct Shared {
    answers: Mutex<HashMap<String, Arc<AsyncMutex<Answer>>>>,
    /// Rises with each change that somebody makes here: what was read before is not shown after it.
    changes: AtomicU64,
}

/// News for listeners.
#[derive(Clone, Debug)]
pub(super) struct News {
    /// The newest snapshot, as JSON; empty until there is one.
    snapshots: watch::Sender<Arc<str>>,
    events: broadcast::Sender<Arc<str>>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Shared")
    }
}

impl Shared {
    /// The answer under this key, not older than `age`. Who comes while it is loaded waits for it; an error is not kept.
    ///
    /// A key belongs to one type of answer.
    pub(super) async fn get<T: Any + Send + Sync>(
        &self,
        key: impl Into<String>,
        age: Duration,
        load: impl Future<Output = Result<T, ApiError>>,
    ) -> Result<Arc<T>, ApiError> {
        let answer = {
            let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
            if answers.len() >= ANSWERS_MAX {
                // One that is being loaded is locked, and stays.
                answers.retain(|_, answer| {
                    answer.try_lock().is_ok_and(|answer| answer.as_ref().is_some_and(|(at, ..)| at.elapsed() < SECOND))
                });
            }
            answers.entry(key.into()).or_default().clone()
        };
        let mut answer = answer.lock().await;
        let change = self.changes.load(Ordering::Acquire);
        if let Some((at, of_change, value)) = &*answer
            && at.elapsed() < age
            && *of_change == change
            && let Ok(value) = value.clone().downcast()
        {
            return Ok(value);
        }
        let value = Arc::new(load.await?);
        *answer = Some((Instant::now(), change, value.clone()));
        Ok(value)
    }

    /// To be called after something was changed.
    pub(super) fn changed(&self) {
        self.changes.fetch_add(1, Ordering::AcqRel);
    }
}

impl Default for News {
    fn default() -> Self {
        Self { snapshots: watch::Sender::new(Arc::from("")), events: broadcast::Sender::new(NEWS_MAX) }
    }
}

impl News {
    /// Listens from now on: to snapshots, and to events.
    pub(super) fn listen(&self) -> (watch::Receiver<Arc<str>>, broadcast::Receiver<Arc<str>>) {
        let mut snapshots = self.snapshots.subscribe();
        // The one there is may be an hour old.
        snapshots.mark_unchanged();
        (snapshots, self.events.subscribe())
    }

    fn is_heard(&self) -> bool {
        self.snapshots.receiver_count() > 0
    }

    /// Takes snapshots and reads the events of these queues until `shutdown`, while anybody listens.
    pub(super) async fn run(
        &self,
        queues: &[Queue],
        snapshot: impl AsyncFn() -> Result<String, ApiError>,
        shutdown: &CancellationToken,
    ) {
        let telling = async {
            loop {
                tokio::time::sleep(SECOND).await;
                if !self.is_heard() {
                    continue;
                }
                match snapshot().await {
                    Ok(snapshot) => {
                        self.snapshots.send_replace(Arc::from(snapshot));
                    }
                    Err(error) => {
                        tracing::debug!(%error, "no news: {error}");
                        self.snapshots.send_replace(Arc::from(r#"{"away":true}"#));
                    }
                }
            }
        };
        let reading = futures_util::future::join_all(queues.iter().map(|queue| self.read(queue)));
        let both = async { tokio::join!(telling, reading) };
        shutdown.run_until_cancelled(both).await;
    }

    async fn read(&self, queue: &Queue) {
        loop {
            let mut reader = queue.events(After::Now);
            while self.is_heard() {
                match reader.read(Some(SECOND)).await {
                    Ok(events) => {
                        let skipped = events.len().saturating_sub(EVENTS_TOLD_MAX);
                        for event in &events[skipped..] {
                            // Nobody may be listening any more.
                            let _ = self.events.send(Arc::from(event_json(queue.name(), event).to_string()));
                        }
                        if skipped > 0 {
                            tokio::time::sleep(SECOND).await;
                        }
                    }
                    Err(error) => {
                        tracing::debug!(%error, "events cannot be read");
                        tokio::time::sleep(PAUSE).await;
                    }
                }
            }
            drop(reader);
            tokio::time::sleep(SECOND).await;
        }
    }
}

/// An event as it is told.
pub(super) fn event_json(queue: &str, event: &Event) -> serde_json::Value {
    let fields: serde_json::Map<String, serde_json::Value> =
        event.fields.iter().map(|(name, value)| (name.clone(), value.clone().into())).collect();
    serde_json::json!({
        "queue": queue,
        "id": event.id.to_string(),
        "at": jiff::Timestamp::from_millisecond(event.id.ms as i64).ok(),
        "event": event.name,
        "job": event.job.as_ref().map(ToString::to_string),
        "fields": fields,
    })
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[tokio::test]
    async fn many_who_ask_at_once_cost_one_load_until_something_changes() {
        let (shared, loads) = (Shared::default(), AtomicUsize::new(0));
        let load = || async {
            tokio::task::yield_now().await;
            Ok(loads.fetch_add(1, Ordering::Relaxed))
        };
        let asked = (0..20).map(|_| shared.get("key", Duration::from_hours(1), load()));
        let answers = futures_util::future::join_all(asked).await;
        assert!(answers.into_iter().all(|answer| *answer.unwrap() == 0));
        shared.changed();
        assert_eq!(*shared.get("key", Duration::from_hours(1), load()).await.unwrap(), 1);
        assert_eq!(*shared.get("other", Duration::from_hours(1), load()).await.unwrap(), 2);
    }

    #[tokio::test]
    async fn an_error_is_not_kept_and_old_answers_make_room() {
        let shared = Shared::default();
        let failed = shared.get::<u8>("key", SECOND, async { Err(ApiError::NoRoute) }).await;
        assert!(failed.is_err());
        assert_eq!(*shared.get("key", SECOND, async { Ok(1_u8) }).await.unwrap(), 1);
        for n in 0..3 * ANSWERS_MAX {
            shared.get(n.to_string(), Duration::ZERO, async { Ok(n) }).await.unwrap();
            if n % ANSWERS_MAX == 0 {
                tokio::time::sleep(SECOND).await;
            }
        }
        assert!(shared.answers.lock().unwrap().len() <= 2 * ANSWERS_MAX);
    }
}
