//! Takes jobs in: from a producer to waiting.
//!
//! ```text
//!   new job ──▶ guard job:<id> + entry in the stream          (one script)
//!               by what stands under the id: enqueued, changed, duplicate
//! ```
//!
//! Called by the fetch handler for the items of a feed, and by whoever adds jobs.
//!
//! *Crash:* a call that died on the way may have been carried out. A plain add may be repeated: its second run is a
//! duplicate. The items of a fetch are not sent again; the fetch begins anew and finds them in the seen map.

use super::scripts::{self, Call, element, pieces};
use super::{Queue, QueueError};
use crate::job::{Envelope, ImportId, JobId, Version};

/// A job to be added on its own.
#[derive(Clone, Debug)]
pub struct NewJob<'a> {
    /// Its identity: a second job with this id is a duplicate while the first one lives.
    pub id: JobId,
    /// What it is.
    pub envelope: Envelope<'a>,
    /// Version of its content; `None` takes the time of Redis, and then never replaces a job that lives.
    pub version: Option<Version>,
}

/// An item of a feed to be enqueued by its fetch.
#[derive(Clone, Debug)]
pub struct NewItem<'a> {
    /// Job id of the item.
    pub id: JobId,
    /// Payload, fingerprint and feed.
    pub envelope: Envelope<'a>,
    /// Whether the seen map knew the item.
    pub known: bool,
    /// The record that the seen map gets if the item is accepted.
    pub record: [u8; 16],
}

/// The fetch that items belong to.
#[derive(Clone, Copy, Debug)]
pub struct FetchScope<'a> {
    /// Name of the feed.
    pub feed: &'a str,
    /// Version that the fetch was given when it began: that of its items.
    pub version: Version,
    /// The import that counts them.
    pub import: ImportId,
}

/// What became of one job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Enqueued {
    /// It waits.
    Enqueued,
    /// A job with this id lives; its content was replaced by this newer one.
    Changed,
    /// A job with this id lives and is as new; nothing was done.
    Duplicate,
    /// Redis refused this one, for this reason (the key is of another type).
    Refused(String),
}

impl Queue {
    /// Adds jobs, in calls of bounded size. Returns what became of each, in order.
    ///
    /// # Errors
    /// [`QueueError::PayloadTooLarge`] before anything is sent; [`QueueError::Redis`]: earlier calls were carried out.
    pub async fn add(&self, jobs: &[NewJob<'_>], payload_max_bytes: usize) -> Result<Vec<Enqueued>, QueueError> {
        for job in jobs {
            let bytes = job.envelope.payload.len();
            if bytes > payload_max_bytes {
                return Err(QueueError::PayloadTooLarge { id: job.id.clone(), bytes, limit_bytes: payload_max_bytes });
            }
        }
        let mut results = Vec::with_capacity(jobs.len());
        for piece in pieces(jobs, |job| job.envelope.payload.len()) {
            let mut call = self.enqueue_call(None, piece.iter().map(|job| &job.id));
            call.arg("add").arg("").arg(&[0_u8; 8][..]);
            for job in piece {
                match job.version {
                    Some(version) => call.arg(job.id.as_bytes()).arg(&version.to_bytes()[..]),
                    None => call.arg(job.id.as_bytes()).arg(""),
                };
                call.arg("new").arg("").arg(encoded(&job.envelope));
            }
            let replied = self.run_enqueue(call, piece.len()).await?;
            // "stale" is only said to fetches
            results.extend(replied.ok_or_else(|| QueueError::Reply {
                script: scripts::ENQUEUE.name,
                detail: "stale for a plain add".to_owned(),
            })?);
        }
        Ok(results)
    }

    /// Enqueues items of a fetch, counts them for its import, and records them in the feed's seen map. `items` must fit
    /// one call (see [`scripts::pieces`]). Returns what became of each, or `None` when a newer fetch of the feed has
    /// begun: then nothing was taken in, and the fetch should end.
    ///
    /// # Errors
    /// [`QueueError::Redis`]: it is not known whether the call was carried out; the fetch must begin anew.
    pub async fn enqueue_items(
        &self,
        fetch: FetchScope<'_>,
        items: &[NewItem<'_>],
    ) -> Result<Option<Vec<Enqueued>>, QueueError> {
        let version = fetch.version.to_bytes();
        let mut call = self.enqueue_call(Some(fetch.feed), items.iter().map(|item| &item.id));
        call.arg("item").arg(&version[..]).arg(&fetch.import.to_bytes()[..]);
        for item in items {
            call.arg(item.id.as_bytes())
                .arg(&version[..])
                .arg(if item.known { "changed" } else { "new" })
                .arg(&item.record[..])
                .arg(encoded(&item.envelope));
        }
        self.run_enqueue(call, items.len()).await
    }

    fn enqueue_call<'a>(&self, feed: Option<&str>, ids: impl ExactSizeIterator<Item = &'a JobId>) -> Call {
        let keys = self.keys();
        let fixed = [keys.stream(), keys.delayed(), keys.failures(), keys.dead(), keys.meta(), keys.closing_imports()];
        let seen = feed.map_or_else(|| keys.meta().to_owned(), |feed| keys.seen(feed));
        let all: Vec<Vec<u8>> = fixed
            .into_iter()
            .map(|key| key.as_bytes().to_vec())
            .chain([seen.into_bytes()])
            .chain(ids.map(|id| keys.job(id)))
            .collect();
        let mut call = Call::new(&scripts::ENQUEUE, all.into_iter());
        call.arg(keys.import_prefix());
        call
    }

    async fn run_enqueue(&self, call: Call, jobs: usize) -> Result<Option<Vec<Enqueued>>, QueueError> {
        let (script, mut elements) = call.run(&mut self.connection()).await?.array()?;
        if elements.is_empty() {
            return Err(QueueError::Reply { script: script.name, detail: "an empty array".to_owned() });
        }
        let mut errors = elements.split_off(1).into_iter();
        let letters: Vec<u8> = element(script, elements.remove(0))?;
        if letters == b"stale" {
            return Ok(None);
        }
        let mut results = scripts::decode_statuses(script, &letters, jobs, |letter| match letter {
            b'E' => Some(Enqueued::Enqueued),
            b'C' => Some(Enqueued::Changed),
            b'D' => Some(Enqueued::Duplicate),
            b'X' => Some(Enqueued::Refused(String::new())),
            _ => None,
        })?;
        for result in &mut results {
            if let Enqueued::Refused(reason) = result {
                let missing =
                    || QueueError::Reply { script: script.name, detail: "a refusal without a reason".to_owned() };
                *reason = element(script, errors.next().ok_or_else(missing)?)?;
            }
        }
        Ok(Some(results))
    }
}

fn encoded(envelope: &Envelope<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    envelope.encode_into(&mut bytes);
    bytes
}
