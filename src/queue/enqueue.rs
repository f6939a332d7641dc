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

use std::time::Duration;

use super::scripts::{self, Call, element, pieces};
use super::{Queue, QueueError, millis};
use crate::job::{Envelope, ID_BYTES_MAX, ImportId, JobId, Version};

/// Lowest priority there is, as in BullMQ; 1 is the highest.
pub const PRIORITY_MAX: u32 = 2_097_151;

/// A job to be added on its own.
#[derive(Clone, Debug)]
pub struct NewJob<'a> {
    /// Its identity: a second job with this id is a duplicate while the first one lives.
    pub id: JobId,
    /// What it is.
    pub envelope: Envelope<'a>,
    /// Version of its content; `None` takes the time of Redis, and then never replaces a job that lives.
    pub version: Option<Version>,
    /// How long it waits before it may start, by the clock of Redis.
    pub delay: Duration,
    /// 1 (first) to [`PRIORITY_MAX`]; 0 for none. Jobs with a priority start before those without.
    pub priority: u32,
    /// What it is grouped by, on a queue that limits its groups. Cut after
    /// [`crate::job::head::GROUP_BYTES_MAX`] bytes.
    pub group: Option<&'a str>,
    /// Failed attempts that count already.
    pub attempts_made: u8,
    /// Another job that stands for it, if that lives.
    pub dedup: Option<Deduplication<'a>>,
}

impl<'a> NewJob<'a> {
    /// A job that may start at once.
    pub fn new(id: JobId, envelope: Envelope<'a>) -> Self {
        Self {
            id,
            envelope,
            version: None,
            delay: Duration::ZERO,
            priority: 0,
            group: None,
            attempts_made: 0,
            dedup: None,
        }
    }
}

/// BullMQ's deduplication: of several jobs with one deduplication id only one is taken in. The modes are those of its
/// documentation, "Deduplication".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deduplication<'a> {
    /// What the jobs have in common: 1 to [`ID_BYTES_MAX`] bytes.
    pub id: &'a str,
    /// How long the id is held; `None`: while the job lives.
    pub ttl: Option<Duration>,
    /// Each job that is turned away makes the time begin anew.
    pub extend: bool,
    /// A job that is still delayed gives way to the new one.
    pub replace: bool,
    /// A job that is active runs once more, with the newest content that was turned away meanwhile.
    pub keep_last_if_active: bool,
}

impl<'a> Deduplication<'a> {
    /// One job while one lives.
    pub fn simple(id: &'a str) -> Self {
        Self { id, ttl: None, extend: false, replace: false, keep_last_if_active: false }
    }

    /// One job in a span of time.
    pub fn throttle(id: &'a str, ttl: Duration) -> Self {
        Self { ttl: Some(ttl), ..Self::simple(id) }
    }

    /// The last job, once none came for a span of time; to be added with a delay of that span.
    pub fn debounce(id: &'a str, ttl: Duration) -> Self {
        Self { ttl: Some(ttl), extend: true, replace: true, ..Self::simple(id) }
    }

    /// One job while one lives, which runs once more if others came while it ran.
    pub fn keep_last_if_active(id: &'a str) -> Self {
        Self { keep_last_if_active: true, ..Self::simple(id) }
    }
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
    /// What its items are grouped by, on a queue that limits its groups.
    pub group: Option<&'a str>,
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
    /// Another job, of this id, holds its deduplication id; see [`Deduplication`].
    Deduplicated(JobId),
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
            check(job, payload_max_bytes)?;
        }
        let mut results = Vec::with_capacity(jobs.len());
        for piece in pieces(jobs, |job| job.envelope.payload.len()) {
            let mut call = self.enqueue_call(None, piece.iter().map(|job| &job.id));
            call.arg("add").arg("").arg(&[0_u8; 8][..]);
            for job in piece {
                call.arg(value(&self.extras(job.priority, job.group), &job.envelope));
                call.arg(version_and_options(job, self.tells_all()));
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
        let extras = self.extras(0, fetch.group);
        for item in items {
            let mut record = [if item.known { b'c' } else { b'n' }; 17];
            record[1..].copy_from_slice(&item.record);
            call.arg(value(&extras, &item.envelope)).arg(&record[..]);
        }
        self.run_enqueue(call, items.len()).await
    }

    fn enqueue_call<'a>(&self, feed: Option<&str>, ids: impl ExactSizeIterator<Item = &'a JobId>) -> Call {
        let keys = self.keys();
        let seen = feed.map_or_else(|| keys.meta().to_owned(), |feed| keys.seen(feed));
        let own: Vec<Vec<u8>> = std::iter::once(seen.into_bytes()).chain(ids.map(|id| keys.job(id))).collect();
        self.moving(&scripts::ENQUEUE, own)
    }

    async fn run_enqueue(&self, call: Call, jobs: usize) -> Result<Option<Vec<Enqueued>>, QueueError> {
        let (script, mut elements) = call.run(&mut self.connection()).await?.array()?;
        if elements.is_empty() {
            return Err(QueueError::Reply { script: script.name, detail: "an empty array".to_owned() });
        }
        let mut notes = elements.split_off(1).into_iter();
        let letters: Vec<u8> = element(script, elements.remove(0))?;
        if letters == b"stale" {
            return Ok(None);
        }
        let letters =
            scripts::decode_statuses(script, &letters, jobs, |letter| b"ECDPX".contains(&letter).then_some(letter))?;
        let mut note = || {
            let missing = || QueueError::Reply { script: script.name, detail: "a note is missing".to_owned() };
            element::<Vec<u8>>(script, notes.next().ok_or_else(missing)?)
        };
        let results = letters.into_iter().map(|letter| {
            Ok(match letter {
                b'E' => Enqueued::Enqueued,
                b'C' => Enqueued::Changed,
                b'D' => Enqueued::Duplicate,
                b'P' => Enqueued::Deduplicated(JobId::new(note()?)?),
                _ => Enqueued::Refused(String::from_utf8_lossy(&note()?).into_owned()),
            })
        });
        Ok(Some(results.collect::<Result<_, QueueError>>()?))
    }
}

/// Refuses what no script should be asked for.
fn check(job: &NewJob<'_>, payload_max_bytes: usize) -> Result<(), QueueError> {
    let (id, bytes) = (&job.id, job.envelope.payload.len());
    if bytes > payload_max_bytes {
        return Err(QueueError::PayloadTooLarge { id: id.clone(), bytes, limit_bytes: payload_max_bytes });
    }
    if job.priority > PRIORITY_MAX {
        return Err(QueueError::Priority { id: id.clone(), priority: job.priority });
    }
    let dedup_bytes = job.dedup.map_or(1, |dedup| dedup.id.len());
    if dedup_bytes == 0 || dedup_bytes > ID_BYTES_MAX {
        return Err(QueueError::DeduplicationId { id: id.clone(), bytes: dedup_bytes });
    }
    Ok(())
}

/// Version, delay, attempts made, deduplication and (where all events are told) name as the script takes them; nothing for
/// most jobs.
fn version_and_options(job: &NewJob<'_>, tells_all: bool) -> Vec<u8> {
    let name = job.envelope.name.filter(|_| tells_all);
    let has_options = !job.delay.is_zero() || job.attempts_made > 0 || job.dedup.is_some() || name.is_some();
    let mut bytes = Vec::new();
    match job.version {
        Some(version) => {
            bytes.push(b'v');
            bytes.extend_from_slice(&version.to_bytes());
        }
        None if has_options => bytes.push(b'-'),
        None => {}
    }
    if has_options {
        let dedup = job.dedup.map(|dedup| {
            let ttl = dedup.ttl.map_or(0, |ttl| millis(ttl).max(1));
            (dedup.id, ttl, dedup.extend, dedup.replace, dedup.keep_last_if_active)
        });
        let delay = if job.delay.is_zero() { 0 } else { millis(job.delay).max(1) };
        rmp_serde::encode::write(&mut bytes, &(delay, job.attempts_made, dedup, name))
            .expect("writing to memory does not fail");
    }
    bytes
}

/// The value of a job's key as the script takes it: what stands before the extras is for it to fill in.
fn value(extras: &[u8], envelope: &Envelope<'_>) -> Vec<u8> {
    let mut value = Vec::with_capacity(extras.len() + envelope.payload.len() + 32);
    value.extend_from_slice(if extras.is_empty() { &[0] } else { extras });
    envelope.encode_into(&mut value);
    value
}
