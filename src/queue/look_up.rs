//! The jobs of entries that were delivered: their keys are read, and each entry is judged by what is there.
//!
//! *Crash:* the entries are pending for the consumer that read them, and are claimed after `lock_duration`.

use redis::aio::MultiplexedConnection;
use tokio_util::sync::CancellationToken;

use super::read::{Delivery, Entry, Fields, Lease, PlainEntry, RawEntry, UnreadableEntry, field};
use super::{Queue, QueueError};
use crate::job::{EntryId, Job, JobId, Place};

/// Keys of one MGET: a command that answers with many large jobs would block Redis for long.
const KEYS_PER_MGET: usize = 32;

/// What one read delivered: entries that are pending, and whose jobs are not known yet.
#[derive(Debug)]
pub struct Delivered {
    queue: Queue,
    /// The reader's: the answers, which may be large, do not hold up those to others.
    connection: MultiplexedConnection,
    /// In the order in which they are handed out.
    entries: Vec<(Place, RawEntry)>,
    /// See [`super::read::ReadReply::woken`].
    pub woken: bool,
    /// See [`super::read::ReadReply::held_up`].
    pub held_up: bool,
}

impl Delivered {
    pub(super) fn nothing(queue: Queue, connection: MultiplexedConnection) -> Self {
        Self { queue, connection, entries: Vec::new(), woken: false, held_up: false }
    }

    pub(super) fn add(&mut self, lane: Place, entries: Vec<RawEntry>) {
        self.entries.extend(entries.into_iter().map(|entry| (lane, entry)));
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Reads the keys of the jobs that the entries name, and says what comes of each, in the same order.
    ///
    /// # Errors
    /// [`QueueError`]; the entries are still pending then, and are claimed after `lock_duration`.
    pub async fn look_up(mut self) -> Result<Vec<Entry>, QueueError> {
        let prefix = self.queue.keys().job_prefix().as_bytes();
        let keys: Vec<Vec<u8>> =
            self.entries.iter().filter_map(|(_, (_, fields))| Some([prefix, field(fields, b"id")?].concat())).collect();
        let values: Vec<Vec<Option<Vec<u8>>>> = if keys.is_empty() {
            Vec::new()
        } else {
            let mut pipeline = redis::pipe();
            for piece in keys.chunks(KEYS_PER_MGET) {
                pipeline.cmd("MGET").arg(piece);
            }
            let failed = |cause| QueueError::from_redis("MGET", cause);
            pipeline.query_async(&mut self.connection).await.map_err(failed)?
        };
        let mut values = values.into_iter().flatten();
        let judged = self.entries.into_iter().map(|(lane, (entry, fields))| {
            let value = field(&fields, b"id").is_some().then(|| values.next().flatten()).flatten();
            judge(lane, entry, fields, value)
        });
        Ok(judged.collect())
    }
}

/// Judges one entry, with the value of the key of the job it names.
fn judge(lane: Place, entry: EntryId, mut fields: Fields, value: Option<Vec<u8>>) -> Entry {
    let unreadable = |id: Option<JobId>, reason: String, raw: Vec<u8>| {
        Entry::Unreadable(UnreadableEntry { lane, entry, id, reason, raw })
    };
    let Some(id) = field(&fields, b"id") else {
        if let Some(at) = fields.iter().position(|(name, _)| name == b"json") {
            let added = field(&fields, b"added").and_then(|id| std::str::from_utf8(id).ok()?.parse().ok());
            let json = fields.swap_remove(at).1;
            return Entry::Plain(PlainEntry { entry, added: added.unwrap_or(entry), json });
        }
        let raw = rmp_serde::to_vec(&fields).unwrap_or_default();
        return unreadable(None, "an entry with neither an id nor json".to_owned(), raw);
    };
    let id = match JobId::new(id) {
        Ok(id) => id,
        Err(error) => return unreadable(None, error.to_string(), id.to_vec()),
    };
    let Some(value) = value else {
        return unreadable(Some(id), "payload lost".to_owned(), Vec::new());
    };
    match Job::decode(id.clone(), value) {
        Ok(job) if job.head.place == lane && job.head.entry == Some(entry) => {
            let lease = Lease { id, lane, entry, version: job.head.version };
            Entry::Job(Box::new(Delivery { job, lease, cancelled: CancellationToken::new() }))
        }
        Ok(_) => unreadable(Some(id), "the job stands elsewhere".to_owned(), Vec::new()),
        Err(error) => {
            let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
            unreadable(Some(id), format!("{error}{cause}"), Vec::new())
        }
    }
}
