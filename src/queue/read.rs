//! Reads: from waiting to active, at one consumer.
//!
//! ```text
//!   stream ──XREADGROUP──▶ entries ──MGET──▶ deliveries
//!                             │ plain producer's json ──adopt──▶ waiting
//!                             └ unreadable, payload lost ──▶ dead letter
//! ```
//!
//! A [`Reader`] owns the connection it blocks on. *Cancel safety:* none: dropping a read does not take the command back,
//! and what Redis delivers to it would be pending for nobody until it is claimed. Use [`Unblocker`] to end a read early.
//!
//! *Crash:* what was delivered stays pending for this consumer and is claimed after `lock_duration`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use redis::Value;
use redis::aio::MultiplexedConnection;

use super::scripts::{self, Call};
use super::{GROUP, Queue, QueueError, millis};
use crate::job::{EntryId, Envelope, Job, JobId, Version};

/// Longest time that a read blocks: bounds how long a dead connection goes unnoticed.
pub const BLOCK_MAX: Duration = Duration::from_secs(5);

/// Keys of one MGET: a command that answers with many large jobs would block Redis for long.
const KEYS_PER_MGET: usize = 32;

/// The duty to settle one job: it holds as long as the job's head names the entry.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Lease {
    /// The job.
    pub id: JobId,
    /// The entry that was delivered.
    pub entry: EntryId,
    /// The version of the content that is worked on.
    pub version: Version,
}

impl Lease {
    /// The entry id as the head holds it.
    pub(super) fn packed(&self) -> [u8; 10] {
        self.entry.packed().expect("only entries that a head can name become leases")
    }
}

/// A job that was handed to this consumer.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// The job as it stood when it was read.
    pub job: Job,
    /// The lease on it.
    pub lease: Lease,
}

/// One entry as it was read.
#[derive(Debug)]
pub enum Entry {
    /// A job.
    Job(Box<Delivery>),
    /// A plain producer's: to be adopted, see [`Queue::adopt`].
    Plain(PlainEntry),
    /// No job can be made of it: to be given to [`Queue::bury_entry`], which drops it if its job stands elsewhere.
    Unreadable(UnreadableEntry),
}

/// An entry that a plain producer added.
#[derive(Debug)]
pub struct PlainEntry {
    /// Its entry id.
    pub entry: EntryId,
    /// The entry id it was added with: another one when it was claimed since. Its time is the version.
    pub added: EntryId,
    /// Its field `json`.
    pub json: Vec<u8>,
}

impl PlainEntry {
    /// Version of its content: when it was added; of two entries of one millisecond the later one is the newer.
    pub fn version(&self) -> Version {
        Version(self.added.ms.saturating_mul(1000).saturating_add(self.added.seq.min(999)))
    }
}

/// An entry that no job can be made of.
#[derive(Debug)]
pub struct UnreadableEntry {
    /// Its entry id.
    pub entry: EntryId,
    /// The job it names, if it names one.
    pub id: Option<JobId>,
    /// What is wrong.
    pub reason: String,
    /// What there is of it.
    pub raw: Vec<u8>,
}

/// What one read brought.
#[derive(Debug, Default)]
pub struct ReadReply {
    /// The entries, in stream order.
    pub entries: Vec<Entry>,
    /// A job in the backoff zset is due earlier than known so far.
    pub woken: bool,
}

/// What came of adopting a plain producer's entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Adopted {
    /// It is a job now, and waits.
    Enqueued,
    /// A job with this id lives; its content was replaced by this newer one.
    Changed,
    /// A job with this id lives and is as new.
    Duplicate,
    /// Somebody else has it.
    Lost,
    /// The key of the job is of another type; the entry is still pending.
    Refused,
}

/// Reads for one consumer.
#[derive(Debug)]
pub struct Reader {
    queue: Queue,
    consumer: String,
    connection: Option<MultiplexedConnection>,
    client_id: Arc<AtomicU64>,
}

/// Ends the blocking read of a [`Reader`].
#[derive(Clone, Debug)]
pub struct Unblocker {
    queue: Queue,
    client_id: Arc<AtomicU64>,
}

impl Queue {
    /// A reader for the consumer of this name, which must be unique: what is pending for it is taken to be in the memory
    /// of the process that owns it.
    pub fn reader(&self, consumer: impl Into<String>) -> Reader {
        Reader { queue: self.clone(), consumer: consumer.into(), connection: None, client_id: Arc::default() }
    }

    /// Makes a job of a plain producer's entry, as if it had been enqueued here: it waits, with an entry of our own.
    ///
    /// With a version (see [`PlainEntry::version`]) it replaces older content of a job that lives; without one it is a
    /// plain add, a duplicate of any job that lives.
    ///
    /// # Errors
    /// [`QueueError`]; the entry is still pending then.
    pub async fn adopt(
        &self,
        plain: &PlainEntry,
        id: &JobId,
        version: Option<Version>,
        envelope: Envelope<'_>,
    ) -> Result<Adopted, QueueError> {
        let keys = self.keys();
        let job_key = keys.job(id);
        let all: [&[u8]; 7] = [
            keys.stream().as_bytes(),
            keys.delayed().as_bytes(),
            keys.failures().as_bytes(),
            keys.dead().as_bytes(),
            keys.meta().as_bytes(),
            keys.closing_imports().as_bytes(),
            &job_key,
        ];
        let mut encoded = Vec::new();
        envelope.encode_into(&mut encoded);
        let mut call = Call::new(&scripts::ADOPT, all.into_iter());
        call.arg(GROUP)
            .arg(keys.import_prefix())
            .arg(plain.entry.to_string())
            .arg(id.as_bytes())
            .arg(version.map_or_else(Vec::new, |version| version.to_bytes().to_vec()))
            .arg(encoded);
        let letter: String = call.run(&mut self.connection()).await?.decode()?;
        match letter.as_str() {
            "E" => Ok(Adopted::Enqueued),
            "C" => Ok(Adopted::Changed),
            "D" => Ok(Adopted::Duplicate),
            "L" => Ok(Adopted::Lost),
            "X" => Ok(Adopted::Refused),
            other => Err(QueueError::Reply { script: scripts::ADOPT.name, detail: other.to_owned() }),
        }
    }
}

impl Reader {
    /// Reads up to `count` entries; with `block`, waits up to that long for the first one (at most [`BLOCK_MAX`]).
    ///
    /// A missing group is created and read from its beginning.
    ///
    /// # Errors
    /// [`QueueError`]; the connection is made anew by the next call.
    pub async fn read(&mut self, count: usize, block: Option<Duration>) -> Result<ReadReply, QueueError> {
        let reply = match self.try_read(count, block).await {
            Err(error) if error.is_group_lost() => {
                tracing::warn!(queue = %self.queue.name(), "the consumer group was lost; creating it from the beginning");
                self.queue.ensure_group().await?;
                self.try_read(count, block).await
            }
            reply => reply,
        };
        if reply.is_err() {
            self.connection = None;
            self.client_id.store(0, Ordering::Release);
        }
        reply
    }

    /// A handle that ends a blocking read.
    pub fn unblocker(&self) -> Unblocker {
        Unblocker { queue: self.queue.clone(), client_id: self.client_id.clone() }
    }

    async fn try_read(&mut self, count: usize, block: Option<Duration>) -> Result<ReadReply, QueueError> {
        let keys = self.queue.keys();
        let connection = match &mut self.connection {
            Some(connection) => connection,
            none => {
                let mut connection = self.queue.redis().blocking_connection(BLOCK_MAX).await?;
                let id = redis::cmd("CLIENT").arg("ID").query_async(&mut connection).await;
                self.client_id.store(id.unwrap_or(0), Ordering::Release);
                none.insert(connection)
            }
        };
        let mut command = redis::cmd("XREADGROUP");
        command.arg("GROUP").arg(GROUP).arg(&self.consumer).arg("COUNT").arg(count);
        if let Some(block) = block {
            // 0 would block for ever
            command.arg("BLOCK").arg(millis(block.min(BLOCK_MAX)).max(1));
        }
        command.arg("STREAMS").arg(keys.stream()).arg(keys.wake()).arg(">").arg(">");
        let failed = |cause| QueueError::from_redis("XREADGROUP", cause);
        let reply: Value = command.query_async(connection).await.map_err(failed)?;

        let mut pipeline = redis::pipe();
        let mut read = ReadReply::default();
        let mut raw = Vec::new();
        for (stream, entries) in streams(reply)? {
            if stream == keys.wake().as_bytes() {
                read.woken = !entries.is_empty();
                for (entry, _) in entries {
                    pipeline.xack(keys.wake(), GROUP, &[entry.to_string()]).ignore();
                }
            } else {
                raw = entries;
            }
        }
        let wanted: Vec<Vec<u8>> = raw
            .iter()
            .filter_map(|(_, fields)| Some([keys.job_prefix().as_bytes(), field(fields, b"id")?].concat()))
            .collect();
        for piece in wanted.chunks(KEYS_PER_MGET) {
            pipeline.cmd("MGET").arg(piece);
        }
        if pipeline.is_empty() {
            read.entries = raw.into_iter().map(|(entry, fields)| self.entry(entry, fields, None)).collect();
            return Ok(read);
        }
        let failed = |cause| QueueError::from_redis("MGET", cause);
        let values: Vec<Vec<Option<Vec<u8>>>> = pipeline.query_async(connection).await.map_err(failed)?;
        let mut values = values.into_iter().flatten();
        read.entries = raw
            .into_iter()
            .map(|(entry, fields)| {
                let value = field(&fields, b"id").is_some().then(|| values.next().flatten()).flatten();
                self.entry(entry, fields, value)
            })
            .collect();
        Ok(read)
    }

    /// Judges one entry, with the value of the key of the job it names.
    #[expect(clippy::unused_self, reason = "reads as a step of the reader")]
    fn entry(&self, entry: EntryId, mut fields: Vec<(Vec<u8>, Vec<u8>)>, value: Option<Vec<u8>>) -> Entry {
        let unreadable = |id: Option<JobId>, reason: String, raw: Vec<u8>| {
            Entry::Unreadable(UnreadableEntry { entry, id, reason, raw })
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
            Ok(job) if job.head.entry == Some(entry) => {
                let lease = Lease { id, entry, version: job.head.version };
                Entry::Job(Box::new(Delivery { job, lease }))
            }
            Ok(_) => unreadable(Some(id), "the job stands elsewhere".to_owned(), Vec::new()),
            Err(error) => {
                let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
                unreadable(Some(id), format!("{error}{cause}"), Vec::new())
            }
        }
    }
}

impl Unblocker {
    /// Ends a read that blocks now. Where the server refuses the command, the read ends by itself within [`BLOCK_MAX`].
    pub async fn unblock(&self) {
        let id = self.client_id.load(Ordering::Acquire);
        if id != 0 {
            let answer: Result<i64, _> =
                redis::cmd("CLIENT").arg("UNBLOCK").arg(id).query_async(&mut self.queue.connection()).await;
            if let Err(error) = answer {
                tracing::debug!(%error, "CLIENT UNBLOCK was refused; the read ends by itself");
            }
        }
    }
}

type Fields = Vec<(Vec<u8>, Vec<u8>)>;
type Stream = (Vec<u8>, Vec<(EntryId, Fields)>);

fn field<'a>(fields: &'a Fields, name: &[u8]) -> Option<&'a [u8]> {
    fields.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_slice())
}

/// The reply of XREADGROUP: streams with entries with fields. Nil and an empty entry list are no entries.
fn streams(reply: Value) -> Result<Vec<Stream>, QueueError> {
    let unexpected = |detail: &str| QueueError::Reply { script: "XREADGROUP", detail: detail.to_owned() };
    let array = |value: Value| match value {
        Value::Array(elements) => Ok(elements),
        Value::Nil => Ok(Vec::new()),
        _ => Err(unexpected("no array where one is due")),
    };
    let bytes = |value: Value| match value {
        Value::BulkString(bytes) => Ok(bytes),
        Value::SimpleString(text) => Ok(text.into_bytes()),
        _ => Err(unexpected("no string where one is due")),
    };
    let pair = |value: Value| -> Result<[Value; 2], QueueError> {
        array(value)?.try_into().map_err(|_| unexpected("no pair where one is due"))
    };
    let mut decoded = Vec::new();
    for stream in array(reply)? {
        let [name, entries] = pair(stream)?;
        let mut found = Vec::new();
        for entry in array(entries)? {
            let [id, fields] = pair(entry)?;
            let id = String::from_utf8_lossy(&bytes(id)?).parse().map_err(|_| unexpected("no entry id"))?;
            let mut pairs = Vec::with_capacity(1);
            let mut parts = array(fields)?.into_iter();
            while let (Some(name), Some(value)) = (parts.next(), parts.next()) {
                pairs.push((bytes(name)?, bytes(value)?));
            }
            found.push((id, pairs));
        }
        decoded.push((bytes(name)?, found));
    }
    Ok(decoded)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Value {
        Value::BulkString(text.as_bytes().to_vec())
    }

    #[test]
    fn a_reply_of_two_streams_is_decoded() {
        let entry = Value::Array(vec![text("5-1"), Value::Array(vec![text("id"), text("a")])]);
        let reply = Value::Array(vec![
            Value::Array(vec![text("s"), Value::Array(vec![entry])]),
            Value::Array(vec![text("w"), Value::Array(vec![])]),
        ]);
        let decoded = streams(reply).expect("as Redis answers");
        assert_eq!(decoded[0].1[0].0, EntryId { ms: 5, seq: 1 });
        assert_eq!(field(&decoded[0].1[0].1, b"id"), Some(&b"a"[..]));
        assert!(decoded[1].1.is_empty());
    }

    #[test]
    fn nil_is_no_entry_and_anything_else_is_an_error() {
        assert!(streams(Value::Nil).expect("timed out").is_empty());
        assert!(streams(Value::Int(1)).is_err());
        assert!(streams(Value::Array(vec![text("s")])).is_err());
    }
}
