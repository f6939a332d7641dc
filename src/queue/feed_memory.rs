//! What is remembered of a feed between two fetches: its seen map, its validators, its last fetch.
//!
//! ```text
//!   begin fetch ──▶ version, seen map, validators ──▶ (fetch, enqueue) ──▶ finish fetch: map, validators, import sealed
//! ```
//!
//! Kept with the import queue, because the script that enqueues items writes the seen map in the same call. The map is
//! bytes here, a 16-byte header and 16-byte records; what they mean is [`crate::feed::seen`]'s.
//!
//! *Crash:* a fetch that died is tried again by the next worker and gets a newer version; from then on what is left of
//! the old one is refused. A fetch that died after [`Queue::finish_fetch`] is found "through" and not repeated.

use std::collections::HashMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::scripts::{self, Call, JOBS_PER_CALL_MAX, element};
use super::{LISTED_FAILURES_MAX, Queue, QueueError, millis};
use crate::job::{ImportId, JobId, Version};

/// What came of beginning a fetch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Begin {
    /// It has begun.
    Begun(Box<BegunFetch>),
    /// Its import, or a later one of the feed, was finished before: there is nothing to do.
    Through,
    /// Its import was sealed, because nobody was believed to finish it: the fetch needs another one.
    Sealed {
        /// The import that the feed was last fetched for: an earlier attempt may have opened it.
        current: Option<ImportId>,
    },
}

/// A fetch that has begun.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BegunFetch {
    /// Version of this fetch and of its items.
    pub version: Version,
    /// The seen map, header included.
    pub seen: Vec<u8>,
    /// Identity of the Redis that answered: it is another after a restart.
    pub run_id: String,
    /// How often the queue has lost a job so far: its guard was evicted or deleted, or the stream itself.
    pub losses: u64,
    /// What is known of the feed.
    pub feed: FeedMemory,
}

/// State of a feed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FeedMemory {
    /// Entity tag of the last complete, accepted fetch.
    pub etag: Option<String>,
    /// `Last-Modified` of the last complete, accepted fetch.
    pub last_modified: Option<String>,
    /// The Redis that stored these validators. After a restart Redis may have lost the items of its last second while the
    /// validators survived, so they are good only for the same run.
    pub run_id: Option<String>,
    /// Losses of the queue when the feed was last taken in whole. If there were more since, an item that the seen map knows
    /// may be among them.
    pub losses: u64,
    /// Digest of the configured address at the last fetch: what is remembered belongs to it.
    pub address_digest: Option<String>,
    /// Where the feed has moved for good.
    pub moved_to: Option<String>,
    /// The import it was last fetched for.
    pub current_import: Option<ImportId>,
    /// When a fetch last began.
    pub last_fetch_at: Option<SystemTime>,
    /// Fetches that failed one after the other.
    pub consecutive_failures: u32,
    /// Why the last fetch failed; `None` if it did not.
    pub last_error: Option<String>,
    /// What stands between the feed and its schedule, as [`crate::feed::pace`] writes it.
    pub hold: String,
    /// Interval of a feed that is fetched as often as it changes.
    pub interval: Option<Duration>,
}

/// What a fetch leaves behind.
#[derive(Clone, Debug)]
pub struct FinishedFetch<'a> {
    /// Name of the feed.
    pub feed: &'a str,
    /// Digest of its configured address.
    pub address_digest: &'a str,
    /// The import that the fetch belongs to.
    pub import: ImportId,
    /// Version it was given.
    pub version: Version,
    /// Length that the seen map has if nobody else appended to it, in bytes.
    pub seen_bytes: usize,
    /// The compacted map; `None` leaves it as it is.
    pub seen: Option<Vec<u8>>,
    /// How long the map is kept without another fetch.
    pub remember: Duration,
    /// Losses of the queue when the fetch began, if it took the feed in whole.
    pub losses: Option<u64>,
    /// What happens to the validators.
    pub validators: NewValidators<'a>,
    /// Where the feed has moved for good; empty: it has not. `None` leaves what is known.
    pub moved_to: Option<&'a str>,
    /// Fetches that failed one after the other, this one included.
    pub consecutive_failures: u32,
    /// What stands between the feed and its schedule from now on; see [`FeedMemory::hold`].
    pub hold: String,
    /// Its interval from now on, if it is fetched as often as it changes; `None` leaves what is known.
    pub interval: Option<Duration>,
    /// Items in the feed.
    pub items: usize,
    /// Of these, items that stood there more than once.
    pub repeated: usize,
    /// Items that did not get into the queue, with the reason: they count as new and as failed.
    pub refused: &'a [(JobId, String)],
    /// What was wrong with the document, if it was read all the same.
    pub recovered: Option<String>,
    /// Why the fetch failed, if it did.
    pub error: Option<&'a str>,
}

/// What happens to the validators of a feed at the end of a fetch.
#[derive(Clone, Debug)]
pub enum NewValidators<'a> {
    /// They are these from now on: the fetch was complete, and all its items are enqueued.
    Set {
        /// `ETag`, or empty.
        etag: &'a str,
        /// `Last-Modified`, or empty.
        last_modified: &'a str,
        /// Run id of Redis when the fetch began.
        run_id: &'a str,
    },
    /// There are none: the next fetch is unconditional.
    Clear,
    /// They stay as they are.
    Keep,
}

/// Counts of a fetch when its import was sealed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SealedCounts {
    /// Whether the seen map was as expected, and so the compacted one and the validators were written.
    pub undisturbed: bool,
    /// Items of the feed.
    pub items: u64,
    /// Items that were seen before, as they are.
    pub unchanged: u64,
    /// Items enqueued that were not known.
    pub new: u64,
    /// Items enqueued because they had changed.
    pub changed: u64,
    /// Items that stood twice, or whose job is as new.
    pub duplicate: u64,
}

impl Queue {
    /// Begins a fetch, unless its import is finished already.
    ///
    /// `map_front` is the first half of a seen map's header, for a feed that has none yet.
    ///
    /// # Errors
    /// [`QueueError::Redis`]; may be repeated.
    pub async fn begin_fetch(
        &self,
        import: ImportId,
        opening: super::imports::Opening<'_>,
        map_front: [u8; 8],
        remember: Duration,
    ) -> Result<Begin, QueueError> {
        let keys = self.keys();
        let (feed, seen, hash) = (keys.feed(opening.feed), keys.seen(opening.feed), keys.import(import));
        let all = [feed.as_str(), &seen, keys.meta(), keys.imports(), &hash];
        let mut call = Call::new(&scripts::BEGIN_FETCH, all.into_iter());
        call.arg(import.to_string())
            .arg(&map_front[..])
            .arg(millis(remember))
            .arg(opening.feed)
            .arg(opening.source)
            .arg(u8::from(opening.asked))
            .arg(opening.run);
        let (script, elements) = call.run(&mut self.connection()).await?.array()?;
        let parts = elements.into_iter().map(|part| element::<Vec<u8>>(script, part));
        let parts = parts.collect::<Result<Vec<_>, _>>()?;
        let unexpected = || QueueError::Reply { script: script.name, detail: format!("{} elements", parts.len()) };
        match parts.as_slice() {
            [word] if word == b"through" => Ok(Begin::Through),
            [word, current] if word == b"sealed" => {
                let current = std::str::from_utf8(current).ok().and_then(|id| id.parse().ok());
                Ok(Begin::Sealed { current: current.filter(|current| *current != import) })
            }
            [word, version, seen, run_id, losses, fields @ ..] if word == b"begun" => {
                Ok(Begin::Begun(Box::new(BegunFetch {
                    version: Version::from_bytes(version.as_slice().try_into().map_err(|_| unexpected())?),
                    seen: seen.clone(),
                    run_id: String::from_utf8_lossy(run_id).into_owned(),
                    losses: std::str::from_utf8(losses).ok().and_then(|text| text.parse().ok()).unwrap_or(0),
                    feed: FeedMemory::from_fields(fields),
                })))
            }
            _ => Err(unexpected()),
        }
    }

    /// Ends a fetch and seals its import.
    ///
    /// # Errors
    /// [`QueueError::Redis`]; may be repeated, and then answers zero counts.
    #[expect(clippy::missing_panics_doc, reason = "writing to memory does not fail")]
    pub async fn finish_fetch(&self, fetch: &FinishedFetch<'_>) -> Result<SealedCounts, QueueError> {
        let keys = self.keys();
        let (feed, seen, hash) = (keys.feed(fetch.feed), keys.seen(fetch.feed), keys.import(fetch.import));
        let all = [feed.as_str(), &seen, keys.closing_imports(), &hash];
        let mut call = Call::new(&scripts::FINISH_FETCH, all.into_iter());
        call.arg(fetch.import.to_string())
            .arg(&fetch.version.to_bytes()[..])
            .arg(fetch.seen_bytes)
            .arg(fetch.seen.as_deref().unwrap_or_default())
            .arg(millis(fetch.remember));
        match fetch.validators {
            NewValidators::Set { etag, last_modified, run_id } => {
                call.arg("set").arg(etag).arg(last_modified).arg(run_id)
            }
            NewValidators::Clear => call.arg("clear").arg("").arg("").arg(""),
            NewValidators::Keep => call.arg("keep").arg("").arg("").arg(""),
        };
        let failures = ("failures", fetch.consecutive_failures.to_string());
        let address = ("address", fetch.address_digest.to_owned());
        let error = ("error", fetch.error.map(super::settle::cut).unwrap_or_default().to_owned());
        let hold = ("hold", fetch.hold.clone());
        let feed_fields: Vec<(&str, String)> = [failures, address, error, hold]
            .into_iter()
            .chain(fetch.interval.map(|interval| ("interval", millis(interval).to_string())))
            .chain(fetch.losses.map(|losses| ("losses", losses.to_string())))
            .chain(fetch.moved_to.map(|url| ("moved_to", url.to_owned())))
            .collect();
        call.arg(feed_fields.len());
        for (field, value) in feed_fields {
            call.arg(field).arg(value);
        }
        call.arg("status").arg(if fetch.error.is_some() { "failed" } else { "done" });
        call.arg("items").arg(fetch.items).arg("repeated").arg(fetch.repeated);
        call.arg("refused").arg(fetch.refused.len());
        for (position, (id, reason)) in fetch.refused.iter().take(LISTED_FAILURES_MAX).enumerate() {
            let failure = (serde_bytes::Bytes::new(id.as_bytes()), reason);
            let failure = rmp_serde::to_vec(&failure).expect("writing to memory does not fail");
            // Behind those that jobs will list.
            call.arg(format!("failure:{}", LISTED_FAILURES_MAX + 1 + position)).arg(failure);
        }
        if let Some(recovered) = &fetch.recovered {
            call.arg("recovered").arg(super::settle::cut(recovered));
        }
        if let Some(error) = fetch.error {
            call.arg("error").arg(super::settle::cut(error));
        }
        let (undisturbed, items, unchanged, new, changed, duplicate): (u8, u64, u64, u64, u64, u64) =
            call.run(&mut self.connection()).await?.decode()?;
        Ok(SealedCounts { undisturbed: undisturbed == 1, items, unchanged, new, changed, duplicate })
    }

    /// State of a feed; default for one that was never fetched.
    ///
    /// # Errors
    /// [`QueueError::Redis`].
    pub async fn feed_memory(&self, feed: &str) -> Result<FeedMemory, QueueError> {
        let fields: Vec<Vec<u8>> = redis::cmd("HGETALL")
            .arg(self.keys().feed(feed))
            .query_async(&mut self.connection())
            .await
            .map_err(|cause| QueueError::from_redis("HGETALL", cause))?;
        Ok(FeedMemory::from_fields(&fields))
    }

    /// The seen map of a feed, header included; `None` if it was never fetched, or long ago.
    ///
    /// # Errors
    /// [`QueueError::Redis`].
    pub async fn seen_map(&self, feed: &str) -> Result<Option<Vec<u8>>, QueueError> {
        redis::cmd("GET")
            .arg(self.keys().seen(feed))
            .query_async(&mut self.connection())
            .await
            .map_err(|cause| QueueError::from_redis("GET", cause))
    }

    /// What stands between each of these feeds and its schedule; see [`FeedMemory::hold`].
    ///
    /// # Errors
    /// [`QueueError::Redis`].
    pub async fn holds(&self, feeds: &[&str]) -> Result<Vec<String>, QueueError> {
        let mut found = Vec::with_capacity(feeds.len());
        for piece in feeds.chunks(JOBS_PER_CALL_MAX) {
            let mut pipe = redis::pipe();
            for feed in piece {
                pipe.cmd("HGET").arg(self.keys().feed(feed)).arg("hold");
            }
            let holds: Vec<Option<String>> = pipe
                .query_async(&mut self.connection())
                .await
                .map_err(|cause| QueueError::from_redis("HGET", cause))?;
            found.extend(holds.into_iter().map(Option::unwrap_or_default));
        }
        Ok(found)
    }

    /// When the last fetch of each of these feeds began; `None` for one that was never fetched.
    ///
    /// # Errors
    /// [`QueueError::Redis`].
    pub async fn last_fetches(&self, feeds: &[&str]) -> Result<Vec<Option<SystemTime>>, QueueError> {
        let mut found = Vec::with_capacity(feeds.len());
        for piece in feeds.chunks(JOBS_PER_CALL_MAX) {
            let mut pipe = redis::pipe();
            for feed in piece {
                pipe.cmd("HGET").arg(self.keys().feed(feed)).arg("last_fetch");
            }
            let times: Vec<Option<u64>> = pipe
                .query_async(&mut self.connection())
                .await
                .map_err(|cause| QueueError::from_redis("HGET", cause))?;
            found.extend(times.into_iter().map(|at| at.map(|ms| UNIX_EPOCH + Duration::from_millis(ms))));
        }
        Ok(found)
    }
}

impl BegunFetch {
    /// Whether the queue has lost jobs since the feed was last taken in whole: items that the seen map knows may be among
    /// them, and would not come again by themselves.
    pub fn may_have_lost_items(&self) -> bool {
        self.losses != self.feed.losses
    }
}

impl FeedMemory {
    /// Forgets what was learned from the address of the feed, because it has another one now.
    pub fn forget_address(&mut self) {
        *self = Self {
            last_fetch_at: self.last_fetch_at,
            current_import: self.current_import,
            losses: self.losses,
            consecutive_failures: self.consecutive_failures,
            last_error: self.last_error.take(),
            ..Self::default()
        };
    }

    fn from_fields(fields: &[Vec<u8>]) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let mut fields: HashMap<String, String> =
            fields.chunks_exact(2).map(|pair| (text(&pair[0]), text(&pair[1]))).collect();
        let mut present = |name: &str| fields.remove(name).filter(|value| !value.is_empty());
        Self {
            etag: present("etag"),
            last_modified: present("last_modified"),
            run_id: present("run_id"),
            losses: present("losses").and_then(|count| count.parse().ok()).unwrap_or(0),
            address_digest: present("address"),
            moved_to: present("moved_to"),
            current_import: present("current_import").and_then(|id| id.parse().ok()),
            last_fetch_at: present("last_fetch")
                .and_then(|ms| ms.parse().ok())
                .map(|ms| UNIX_EPOCH + Duration::from_millis(ms)),
            consecutive_failures: present("failures").and_then(|count| count.parse().ok()).unwrap_or(0),
            last_error: present("error"),
            hold: present("hold").unwrap_or_default(),
            interval: present("interval").and_then(|ms| ms.parse().ok()).map(Duration::from_millis),
        }
    }
}
