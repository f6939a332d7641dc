//! Takes the items of one fetch into the import queue: what is new or changed becomes jobs, the rest is only noted.
//!
//! ```text
//!   items ──seen map──▶ unchanged: noted      new, changed ──▶ payloads ──▶ enqueue, as many in a call as fit
//! ```
//!
//! *Crash between two calls:* what was taken in is in the seen map; the fetch begins anew and passes it over.

use std::collections::HashSet;

use tracing::Instrument as _;

use crate::feed::fingerprint::{Fingerprint, NORMALISER_VERSION, fingerprint, fingerprint_as};
use crate::feed::identity;
use crate::feed::seen::{self, Class, Digest, SeenMap};
use crate::item::Item;
use crate::job::{Envelope, JobId};
use crate::queue::enqueue::{Enqueued, FetchScope, NewItem};
use crate::queue::scripts::{BYTES_PER_CALL_MAX, JOBS_PER_CALL_MAX};
use crate::queue::{Queue, QueueError};
use crate::telemetry::spans::{self, span};

/// Where items go, and for which fetch.
pub(super) struct TakeIn<'a> {
    pub(super) queue: &'a Queue,
    pub(super) scope: FetchScope<'a>,
    pub(super) payload_max_bytes: usize,
}

/// What became of the items.
#[derive(Default)]
pub(super) struct Taken {
    /// Accepted or unchanged: what the seen map holds from now on.
    pub(super) shown: Vec<(Digest, Fingerprint)>,
    /// Items that are jobs now.
    pub(super) accepted: usize,
    /// Items that stood in the feed before: the first one counts.
    pub(super) repeated: usize,
    /// Items that did not get into the queue, with the reason.
    pub(super) refused: Vec<(JobId, String)>,
    /// A newer fetch of the feed has begun, or the import is not this fetch's any more.
    pub(super) is_overtaken: bool,
}

/// An item on its way into the queue.
struct Candidate {
    id: JobId,
    digest: Digest,
    fingerprint: Fingerprint,
    item: Item,
    /// What the seen map holds of it.
    seen: Option<Fingerprint>,
}

impl TakeIn<'_> {
    /// Takes in new and changed items; with `everything`, all of them.
    pub(super) async fn run(&self, items: Vec<Item>, map: &SeenMap, everything: bool) -> Result<Taken, QueueError> {
        let mut taken = Taken::default();
        let candidates = classify(items, map, everything, &mut taken);
        let (FetchScope { feed, import, .. }, items) = (self.scope, candidates.len());
        let enqueue = span!("enqueue", otel.kind = "producer", queue = self.queue.name(), feed, %import, items);
        self.enqueue(candidates, &mut taken).instrument(enqueue).await?;
        Ok(taken)
    }

    /// Enqueues items, as many in a call as fit.
    async fn enqueue(&self, candidates: Vec<Candidate>, taken: &mut Taken) -> Result<(), QueueError> {
        let mut piece: Vec<(Candidate, Vec<u8>)> = Vec::new();
        let mut piece_bytes = 0;
        for candidate in candidates {
            let payload = rmp_serde::to_vec_named(&candidate.item);
            let payload = match payload {
                Ok(payload) if payload.len() <= self.payload_max_bytes => payload,
                refused => {
                    let reason = match refused {
                        Ok(payload) => format!(
                            "an item of {} bytes; the limit (payload_max) is {}",
                            payload.len(),
                            self.payload_max_bytes
                        ),
                        Err(error) => format!("the item cannot be written down: {error}"),
                    };
                    tracing::error!(
                        queue = %self.queue.name(), feed = %self.scope.feed, import = %self.scope.import,
                        job.id = %candidate.id, %reason,
                        "item {} of feed {} refused: {reason}; the next fetch tries it again",
                        candidate.id, self.scope.feed
                    );
                    taken.refused.push((candidate.id, reason));
                    continue;
                }
            };
            let is_full = piece.len() == JOBS_PER_CALL_MAX || piece_bytes + payload.len() > BYTES_PER_CALL_MAX;
            if is_full && !piece.is_empty() {
                self.enqueue_piece(&piece, taken).await?;
                if taken.is_overtaken {
                    return Ok(());
                }
                piece.clear();
                piece_bytes = 0;
            }
            piece_bytes += payload.len();
            piece.push((candidate, payload));
        }
        if !piece.is_empty() {
            self.enqueue_piece(&piece, taken).await?;
        }
        Ok(())
    }

    async fn enqueue_piece(&self, piece: &[(Candidate, Vec<u8>)], taken: &mut Taken) -> Result<(), QueueError> {
        let traceparent = spans::traceparent();
        let items: Vec<NewItem<'_>> = piece
            .iter()
            .map(|(candidate, payload)| NewItem {
                id: candidate.id.clone(),
                envelope: Envelope {
                    payload,
                    fingerprint: Some(candidate.fingerprint.0),
                    feed: Some(self.scope.feed),
                    traceparent: traceparent.as_deref(),
                    ..Envelope::default()
                },
                known: candidate.seen.is_some(),
                record: seen::record(candidate.digest, candidate.fingerprint),
            })
            .collect();
        let Some(results) = self.queue.enqueue_items(self.scope, &items).await? else {
            taken.is_overtaken = true;
            return Ok(());
        };
        for ((candidate, _), result) in piece.iter().zip(results) {
            match result {
                Enqueued::Enqueued | Enqueued::Changed => {
                    taken.accepted += 1;
                    taken.shown.push((candidate.digest, candidate.fingerprint));
                }
                // Shown, though another version of it is on its way: what the map knows of it stands.
                Enqueued::Duplicate | Enqueued::Deduplicated(_) => {
                    taken.shown.extend(candidate.seen.map(|fingerprint| (candidate.digest, fingerprint)));
                }
                Enqueued::Refused(reason) => taken.refused.push((candidate.id.clone(), reason)),
            }
        }
        Ok(())
    }
}

/// Tells new and changed items, which are returned, from unchanged and repeated ones, which are only noted.
fn classify(items: Vec<Item>, map: &SeenMap, everything: bool, taken: &mut Taken) -> Vec<Candidate> {
    let mut candidates = Vec::new();
    let mut met = HashSet::with_capacity(items.len());
    for item in items {
        let id = match JobId::new(identity::job_id(&item.source, &item.guid)) {
            Ok(id) => id,
            Err(error) => unreachable!("identity gives ids within the limit: {error}"),
        };
        let digest = Digest::of(id.as_bytes());
        if !met.insert(id.clone()) {
            taken.repeated += 1;
            continue;
        }
        let current = fingerprint(&item);
        let class = map.classify(digest, |version| {
            if version == NORMALISER_VERSION { Some(current) } else { fingerprint_as(version, &item) }
        });
        if class == Class::Unchanged && !everything {
            taken.shown.push((digest, current));
        } else {
            candidates.push(Candidate { id, digest, fingerprint: current, item, seen: map.fingerprint(digest) });
        }
    }
    candidates
}
