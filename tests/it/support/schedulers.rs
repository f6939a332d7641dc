//! Stored schedulers: definitions, and slots that have come.

use std::time::Duration;

use feedmill::{
    job::Envelope,
    queue::{Queue, schedulers::Upsert},
    schedule::{Definition, Repeat},
};
use redis::{AsyncCommands, streams::StreamRangeReply};

use super::jobs::{PAYLOAD_MAX, connection};

/// An hour, in ms.
pub(crate) const HOUR: i64 = 3_600_000;

pub(crate) fn every(interval: Duration) -> Definition {
    Definition::new(Repeat::every(interval, Duration::ZERO).unwrap())
}

pub(crate) fn hourly() -> Definition {
    every(Duration::from_hours(1))
}

pub(crate) fn daily() -> Definition {
    every(Duration::from_hours(24))
}

pub(crate) fn template(payload: &[u8]) -> Envelope<'_> {
    Envelope { payload, ..Envelope::default() }
}

/// Upserts a scheduler whose jobs do not matter.
pub(crate) async fn upsert(queue: &Queue, id: &str, definition: &Definition) -> (Upsert, i64) {
    queue.upsert_scheduler(id, definition, template(b"{}"), PAYLOAD_MAX).await.unwrap()
}

/// The time of Redis, ms since 1970.
pub(crate) async fn now_ms(queue: &Queue) -> i64 {
    queue.due_schedulers(0).await.unwrap().now_ms
}

/// The last full hour so many hours ago: a slot of [`hourly`].
pub(crate) async fn hours_ago(queue: &Queue, hours: i64) -> i64 {
    (now_ms(queue).await / HOUR - hours) * HOUR
}

/// Gives a scheduler another next slot, as if time had passed; returns it.
pub(crate) async fn move_slot(queue: &Queue, id: &str, slot_ms: i64) -> i64 {
    let _: () = connection(queue).await.zadd(queue.keys().schedulers(), id, slot_ms).await.unwrap();
    slot_ms
}

/// Ids of the jobs that stand in the stream, in order.
pub(crate) async fn waiting_ids(queue: &Queue) -> Vec<String> {
    let entries: StreamRangeReply = connection(queue).await.xrange_all(queue.keys().stream()).await.unwrap();
    entries.ids.iter().map(|entry| entry.get("id").unwrap()).collect()
}

/// The slots whose jobs stand in the stream for this scheduler, in order.
pub(crate) async fn waiting_slots(queue: &Queue, id: &str) -> Vec<i64> {
    let prefix = format!("repeat:{id}:");
    waiting_ids(queue).await.iter().filter_map(|job| job.strip_prefix(&prefix)?.parse().ok()).collect()
}
