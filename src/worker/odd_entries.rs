//! Entries that are no jobs yet, or never will be: adopted or buried, beside the road.
//!
//! ```text
//!   a plain producer's json ──adopt──▶ waiting, as any job
//!   unreadable, payload lost ──bury──▶ dead
//! ```
//!
//! On a task of its own, so that a thousand of them, or a Redis that hangs, hold up neither jobs nor the end of the worker.
//!
//! *Crash or outage:* the entries are pending and are claimed after `lock_duration`.

use std::sync::Arc;
use std::time::Duration;

use super::{Handler, Parts};
use crate::error::chain;
use crate::job::{Envelope, Place};
use crate::queue::read::{Adopted, PlainEntry, UnreadableEntry};
use crate::queue::{QueueError, Settled};

/// Pause between two tries while Redis does not answer.
const OUTAGE_PAUSE: Duration = Duration::from_secs(1);

/// An entry that was read and is no job.
#[derive(Debug)]
pub(super) enum OddEntry {
    Plain(PlainEntry),
    Unreadable(UnreadableEntry),
}

/// Adopts or buries each, waiting for Redis if need be.
pub(super) async fn deal_with<H: Handler>(parts: Arc<Parts>, handler: Arc<H>, entries: Vec<OddEntry>) {
    for entry in &entries {
        loop {
            let dealt = match entry {
                OddEntry::Plain(plain) => adopt(&parts, &*handler, plain).await,
                OddEntry::Unreadable(unreadable) => bury(&parts, unreadable).await,
            };
            let Err(error) = dealt else { break };
            let tries_again = error.is_outage();
            tracing::warn!(
                queue = %parts.queue.name(), error = %chain(&error),
                "an entry could not be adopted or buried; {}",
                if tries_again { "trying again" } else { "it is claimed after lock_duration" }
            );
            if !tries_again {
                break;
            }
            tokio::time::sleep(OUTAGE_PAUSE).await;
        }
    }
}

/// Makes a job of a plain producer's entry, or a dead letter.
async fn adopt<H: Handler>(parts: &Parts, handler: &H, plain: &PlainEntry) -> Result<(), QueueError> {
    let adoption = match handler.adopt(&plain.json) {
        Ok(adoption) => adoption,
        Err(reason) => return bury(parts, &refused(plain, reason)).await,
    };
    let envelope = Envelope { payload: &adoption.payload, fingerprint: adoption.fingerprint, ..Envelope::default() };
    let version = adoption.replaces.then(|| plain.version());
    match parts.queue.adopt(plain, &adoption.id, version, adoption.group.as_deref(), envelope).await? {
        // it is read again as any job, by whoever comes first
        Adopted::Enqueued | Adopted::Changed | Adopted::Duplicate | Adopted::Lost => Ok(()),
        Adopted::Refused => {
            let reason = format!("the key of job {} is of another type", adoption.id);
            bury(parts, &refused(plain, reason)).await
        }
    }
}

fn refused(plain: &PlainEntry, reason: String) -> UnreadableEntry {
    UnreadableEntry { lane: Place::Stream, entry: plain.entry, id: None, reason, raw: plain.json.clone() }
}

async fn bury(parts: &Parts, unreadable: &UnreadableEntry) -> Result<(), QueueError> {
    if parts.queue.bury_entry(&parts.consumer.name, unreadable).await? == Settled::Settled {
        let metrics = &parts.metrics;
        if unreadable.id.is_some() { &metrics.buried_lost } else { &metrics.buried_unreadable }.increment(1);
        tracing::error!(
            queue = %parts.queue.name(), entry = %unreadable.entry, reason = %unreadable.reason,
            job.id = unreadable.id.as_ref().map(tracing::field::display),
            "entry {} is a dead letter now: {} (`feedmill queue redrive` puts it on the stream again)",
            unreadable.entry, unreadable.reason
        );
    }
    Ok(())
}
