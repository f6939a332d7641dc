//! The handler of the import queue: jobs in, documents out.
//!
//! *Crash after the write:* the jobs are delivered again and find their documents with an equal version.

use std::time::Instant;

use tracing::Instrument as _;

use crate::item::Item;
use crate::job::{Outcome, Stored};
use crate::metrics::work::WriteMetrics;
use crate::queue::Queue;
use crate::queue::read::Delivery;
use crate::store::Store;
use crate::store::documents::{ItemWrite, WriteResult};
use crate::telemetry::spans::span;
use crate::worker::{Adoption, Handler, Outage};

use super::leaving::left_meanwhile;
use super::{ConfiguredFeeds, Grouping, plain};

/// Writes items to MongoDB.
#[derive(Clone, Debug)]
pub struct StoreItems {
    store: Store,
    queue: Queue,
    feeds: ConfiguredFeeds,
    metrics: WriteMetrics,
    payload_max_bytes: usize,
    grouping: Grouping,
}

impl StoreItems {
    /// A handler that writes the jobs of this queue to this store, but for those of items that left these feeds, and adopts
    /// items of plain producers up to this size, grouped like this.
    pub fn new(
        store: Store,
        queue: Queue,
        feeds: ConfiguredFeeds,
        payload_max_bytes: usize,
        grouping: Grouping,
    ) -> Self {
        Self { store, queue, feeds, metrics: WriteMetrics::new(), payload_max_bytes, grouping }
    }
}

impl Handler for StoreItems {
    async fn handle(&self, jobs: &[Delivery]) -> Result<Vec<Outcome>, Outage> {
        let left = left_meanwhile(&self.queue, &self.feeds, jobs).await;
        let left = left.map_err(|cause| Outage { what: "Redis", cause: cause.into() })?;
        let is_left = |delivery: &Delivery| left.contains(&delivery.lease.id);
        let items: Vec<Result<Item, String>> = jobs.iter().map(|delivery| decode(delivery.job.payload())).collect();
        let imports: Vec<Option<String>> =
            jobs.iter().map(|delivery| delivery.job.head.import.map(|import| import.to_string())).collect();
        let writes: Vec<ItemWrite<'_>> = jobs
            .iter()
            .zip(&items)
            .zip(&imports)
            .filter(|((delivery, _), _)| !is_left(delivery))
            .filter_map(|((delivery, item), import)| {
                Some(ItemWrite {
                    item: item.as_ref().ok()?,
                    fingerprint: delivery.job.fingerprint,
                    version: delivery.lease.version.0,
                    import: import.as_deref(),
                })
            })
            .collect();
        let began = Instant::now();
        let write = span!("write", otel.kind = "client", db.system.name = "mongodb", documents = writes.len());
        let results = self.store.write(&writes).instrument(write).await;
        self.metrics.written(began.elapsed(), results.as_deref().ok());
        let mut results = results.map_err(|cause| Outage { what: "MongoDB", cause: cause.into() })?.into_iter();
        Ok(jobs
            .iter()
            .zip(items)
            .map(|(delivery, item)| match item {
                _ if is_left(delivery) => Outcome::Done,
                Ok(_) => outcome(results.next()),
                Err(reason) => Outcome::Fail(reason),
            })
            .collect())
    }

    fn adopt(&self, json: &[u8]) -> Result<Adoption, String> {
        let mut adoption = plain::adopt_item(json)?;
        adoption.group = adoption.group.map(|source| self.grouping.of_source(&source).into_owned());
        let (bytes, limit_bytes) = (adoption.payload.len(), self.payload_max_bytes);
        if bytes > limit_bytes {
            return Err(format!("an item of {bytes} bytes; the limit (payload_max) is {limit_bytes}"));
        }
        Ok(adoption)
    }
}

fn decode(payload: &[u8]) -> Result<Item, String> {
    rmp_serde::from_slice(payload).map_err(|error| format!("the payload is no item: {error}"))
}

fn outcome(result: Option<WriteResult>) -> Outcome {
    match result {
        Some(WriteResult::Inserted) => Outcome::Stored(Stored::Inserted),
        Some(WriteResult::Updated) => Outcome::Stored(Stored::Updated),
        Some(WriteResult::Stale) => Outcome::Stored(Stored::Stale),
        Some(WriteResult::Failed { reason, retry: true }) => Outcome::Retry(reason),
        Some(WriteResult::Failed { reason, retry: false }) => Outcome::Fail(reason),
        None => Outcome::Retry("the store said nothing about this document".to_owned()),
    }
}
