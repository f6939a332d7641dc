//! Reads: from waiting to active, at one consumer.
//!
//! ```text
//!   stream ──XREADGROUP──▶ Delivered ──look_up (MGET)──▶ deliveries
//!                                        │ plain producer's json ──adopt──▶ waiting
//!                                        └ unreadable, payload lost ──▶ dead letter
//! ```
//!
//! A [`Reader`] owns the connection it blocks on. Whoever is in a hurry reads on while what was delivered is looked up
//! ([`Reader::deliver`], [`Delivered::look_up`]); [`Reader::read`] is one after the other. *Cancel safety:* none: dropping a read does not take the command back,
//! and what Redis delivers to it would be pending for nobody until it is claimed. Use [`Unblocker`] to end a read early.
//!
//! *Crash:* what was delivered stays pending for this consumer and is claimed after `lock_duration`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use redis::Value;
use redis::aio::MultiplexedConnection;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::limits::{Gate, Taken};
use super::look_up::Delivered;
use super::scripts;
use super::{GROUP, Queue, QueueError, millis};
use crate::job::head::HEAD_BYTES;
use crate::job::{EntryId, Envelope, Job, JobId, Place, Version};

/// Longest time that a read blocks: bounds how long a dead connection goes unnoticed.
pub const BLOCK_MAX: Duration = Duration::from_secs(5);

/// Once the oldest plain job has waited so long, jobs with a priority get no more than half of what is handed out.
const AGEING: Duration = Duration::from_secs(10);

/// Longest wait of a reader that limits hold up: bounds how late it learns that they were changed.
const HELD_UP_MAX: Duration = Duration::from_secs(1);

/// The duty to settle one job: it holds as long as the job's head names the entry.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Lease {
    /// The job.
    pub id: JobId,
    /// Whose lane the entry is in: that of plain jobs ([`Place::Stream`]), or of those with a priority.
    pub lane: Place,
    /// The entry that was delivered.
    pub entry: EntryId,
    /// The version of the content that is worked on.
    pub version: Version,
}

impl Lease {
    /// Place and entry id as the head holds them.
    pub(super) fn reference(&self) -> [u8; 11] {
        let mut reference = [self.lane as u8; 11];
        reference[1..].copy_from_slice(&self.entry.packed().expect("only entries that a head can name become leases"));
        reference
    }

    /// The head of such a job that never failed, counts for no import, and has neither priority nor group.
    pub(super) fn plain_head(&self) -> [u8; HEAD_BYTES] {
        let mut head = [0; HEAD_BYTES];
        head[..11].copy_from_slice(&self.reference());
        head[13..21].copy_from_slice(&self.version.to_bytes());
        head
    }
}

/// A job that was handed to this consumer.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// The job as it stood when it was read.
    pub job: Job,
    /// The lease on it.
    pub lease: Lease,
    /// Fires when the worker learns that the job is not its own any more: it was cancelled or removed, or somebody took it
    /// over because it looked stalled. Nothing that is said of it from then on counts.
    pub cancelled: CancellationToken,
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
    /// Whose lane it is in.
    pub lane: Place,
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
    /// Something is due that the stream does not show: a job in the backoff zset, one with a priority, a group.
    pub woken: bool,
    /// The queue has limits, and they are why nothing more comes now.
    pub held_up: bool,
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
    ends: Arc<Ends>,
    /// Whether to ask [`Queue::take`] before the next plain read.
    takes_first: bool,
    /// While the queue has limits: the id of the newest entry that the wake stream had when it was last asked.
    last_wake: Option<String>,
}

/// What ends a wait of a reader.
#[derive(Debug, Default)]
struct Ends {
    /// The blocking connection, as Redis knows it; 0 for none.
    client_id: AtomicU64,
    /// Ends a wait that is not at Redis.
    unblocked: Notify,
    /// A job was settled: as many may start.
    room: Notify,
}

/// Ends the blocking read of a [`Reader`].
#[derive(Clone, Debug)]
pub struct Unblocker {
    queue: Queue,
    ends: Arc<Ends>,
}

impl Queue {
    /// A reader for the consumer of this name, which must be unique: what is pending for it is taken to be in the memory
    /// of the process that owns it.
    pub fn reader(&self, consumer: impl Into<String>) -> Reader {
        Reader {
            queue: self.clone(),
            consumer: consumer.into(),
            connection: None,
            ends: Arc::default(),
            takes_first: true,
            last_wake: None,
        }
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
        group: Option<&str>,
        envelope: Envelope<'_>,
    ) -> Result<Adopted, QueueError> {
        let mut encoded = Vec::new();
        envelope.encode_into(&mut encoded);
        let mut call = self.moving(&scripts::ADOPT, [self.keys().job(id)]);
        call.arg(plain.entry.to_string())
            .arg(id.as_bytes())
            .arg(version.map_or_else(Vec::new, |version| version.to_bytes().to_vec()))
            .arg(encoded)
            .arg(self.extras(0, group));
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
    /// Reads up to `count` entries and looks up their jobs; with `block`, waits up to that long for the first one (at most
    /// [`BLOCK_MAX`]).
    ///
    /// # Errors
    /// [`QueueError`]; the connection is made anew by the next call.
    pub async fn read(&mut self, count: usize, block: Option<Duration>) -> Result<ReadReply, QueueError> {
        let delivered = self.deliver(count, block).await?;
        let (woken, held_up) = (delivered.woken, delivered.held_up);
        Ok(ReadReply { entries: delivered.look_up().await?, woken, held_up })
    }

    /// The first half of [`Reader::read`]: from here on the entries are pending for this consumer.
    ///
    /// What was delivered is looked up on the same connection, so nothing that blocks may follow before that has ended. A
    /// missing group is created and read from its beginning.
    ///
    /// # Errors
    /// [`QueueError`]; the connection is made anew by the next call.
    pub async fn deliver(&mut self, count: usize, block: Option<Duration>) -> Result<Delivered, QueueError> {
        let reply = match self.try_deliver(count, block).await {
            Err(error) if error.is_group_lost() => {
                tracing::warn!(queue = %self.queue.name(), "the consumer group was lost; creating it from the beginning");
                self.queue.ensure_group().await?;
                self.try_deliver(count, block).await
            }
            reply => reply,
        };
        if reply.is_err() {
            self.connection = None;
            self.ends.client_id.store(0, Ordering::Release);
        }
        reply
    }

    /// A handle that ends a blocking read.
    pub fn unblocker(&self) -> Unblocker {
        Unblocker { queue: self.queue.clone(), ends: self.ends.clone() }
    }

    async fn try_deliver(&mut self, count: usize, block: Option<Duration>) -> Result<Delivered, QueueError> {
        let connection = self.connected().await?.clone();
        let mut delivered = Delivered::nothing(self.queue.clone(), connection);
        if self.takes_first {
            let taken = self.take(count).await?;
            let is_limited = self.last_wake.is_some();
            self.takes_first = is_limited || taken.prioritized.len() + taken.plain.len() == count;
            delivered.woken = taken.woken;
            delivered.add(Place::Prioritized, taken.prioritized);
            delivered.add(Place::Stream, taken.plain);
            if delivered.len() == count || (is_limited && !delivered.is_empty()) {
                return Ok(delivered);
            }
            if is_limited {
                delivered.held_up = taken.wait.is_some();
                // Who is told that something is due promotes it before it waits.
                if let Some(block) = block.filter(|_| !delivered.woken) {
                    self.wait_for_limits(block.min(BLOCK_MAX), taken.gate, taken.wait, &taken.last_added).await?;
                }
                return Ok(delivered);
            }
        }
        let block = block.filter(|_| delivered.is_empty());
        let rest = count - delivered.len();
        let raw = self.read_plainly(&mut delivered.woken, rest, block).await?;
        // What came to nothing after a wait may have been held back from plain reads: by limits that were set meanwhile, or
        // because it has a priority and whoever was woken for it died.
        self.takes_first |= delivered.woken || (block.is_some() && raw.is_empty());
        delivered.add(Place::Stream, raw);
        Ok(delivered)
    }

    /// Takes what a plain read does not bring. What is parked on the way, because its group is held up, is passed over.
    async fn take(&mut self, count: usize) -> Result<Taken, QueueError> {
        let mut woken = false;
        loop {
            let knows_limits = self.last_wake.is_some();
            let mut taken = self.queue.take(&self.consumer, count, AGEING, knows_limits).await?;
            let last_wake =
                matches!(taken.gate, Gate::Limited | Gate::Full).then(|| std::mem::take(&mut taken.last_wake));
            // With limits nobody reads the wake stream as a group: each reader sees for itself that it went on.
            woken |= last_wake.is_some() && last_wake != self.last_wake;
            self.last_wake = last_wake;
            let is_passing =
                taken.prioritized.is_empty() && taken.plain.is_empty() && taken.wait == Some(Duration::ZERO);
            if !is_passing {
                return Ok(Taken { woken, ..taken });
            }
        }
    }

    /// Waits until a limit may let something through: for as long as the script said, or until something is added.
    async fn wait_for_limits(
        &mut self,
        block: Duration,
        gate: Gate,
        wait: Option<Duration>,
        last_added: &str,
    ) -> Result<(), QueueError> {
        if let Some(wait) = wait {
            // Whoever changes limits need not wait for the end of a long window.
            let again = tokio::time::sleep(wait.min(block).min(HELD_UP_MAX));
            tokio::select! {
                () = again => {}
                () = self.ends.unblocked.notified() => {}
                () = self.ends.room.notified(), if gate == Gate::Full => {}
            }
            return Ok(());
        }
        let (stream, wake) = (self.queue.keys().stream().to_owned(), self.queue.keys().wake().to_owned());
        let last_wake = self.last_wake.clone().unwrap_or_default();
        let connection = self.connected().await?;
        let mut command = redis::cmd("XREAD");
        command.arg("COUNT").arg(1).arg("BLOCK").arg(millis(block).max(1));
        // From what was last when nothing was to be had: what was added since is seen. It is only looked at, not taken.
        command.arg("STREAMS").arg(stream).arg(wake).arg(last_added).arg(last_wake);
        command.query_async::<Value>(connection).await.map_err(|cause| QueueError::from_redis("XREAD", cause))?;
        Ok(())
    }

    /// The connection that may block, made where there is none.
    async fn connected(&mut self) -> Result<&mut MultiplexedConnection, QueueError> {
        if self.connection.is_none() {
            let mut connection = self.queue.redis().blocking_connection(BLOCK_MAX).await?;
            let id = redis::cmd("CLIENT").arg("ID").query_async(&mut connection).await;
            self.ends.client_id.store(id.unwrap_or(0), Ordering::Release);
            self.connection = Some(connection);
        }
        Ok(self.connection.as_mut().expect("made above"))
    }

    /// XREADGROUP on the work stream and the wake stream.
    async fn read_plainly(
        &mut self,
        woken: &mut bool,
        count: usize,
        block: Option<Duration>,
    ) -> Result<Vec<RawEntry>, QueueError> {
        let (queue, consumer) = (self.queue.clone(), self.consumer.clone());
        let keys = queue.keys();
        let connection = self.connected().await?;
        let mut command = redis::cmd("XREADGROUP");
        command.arg("GROUP").arg(GROUP).arg(&consumer).arg("COUNT").arg(count);
        if let Some(block) = block {
            // 0 would block for ever
            command.arg("BLOCK").arg(millis(block.min(BLOCK_MAX)).max(1));
        }
        command.arg("STREAMS").arg(keys.stream()).arg(keys.wake()).arg(">").arg(">");
        let failed = |cause| QueueError::from_redis("XREADGROUP", cause);
        let reply: Value = command.query_async(connection).await.map_err(failed)?;
        let mut raw = Vec::new();
        for (stream, entries) in streams(reply)? {
            if stream != keys.wake().as_bytes() {
                raw = entries;
            } else if !entries.is_empty() {
                *woken = true;
                let mut ack = redis::cmd("XACK");
                ack.arg(keys.wake()).arg(GROUP);
                for (entry, _) in entries {
                    ack.arg(entry.to_string());
                }
                let failed = |cause| QueueError::from_redis("XACK", cause);
                ack.query_async::<()>(connection).await.map_err(failed)?;
            }
        }
        Ok(raw)
    }
}

impl Unblocker {
    /// Says that a job was settled: a reader that waits because as many are active as may be tries again at once.
    pub fn room_made(&self) {
        self.ends.room.notify_one();
    }

    /// Ends a read that blocks now. Where the server refuses the command, the read ends by itself within [`BLOCK_MAX`].
    pub async fn unblock(&self) {
        self.ends.unblocked.notify_one();
        let id = self.ends.client_id.load(Ordering::Acquire);
        if id != 0 {
            let answer: Result<i64, _> =
                redis::cmd("CLIENT").arg("UNBLOCK").arg(id).query_async(&mut self.queue.connection()).await;
            if let Err(error) = answer {
                tracing::debug!(%error, "CLIENT UNBLOCK was refused; the read ends by itself");
            }
        }
    }
}

pub(super) type Fields = Vec<(Vec<u8>, Vec<u8>)>;
pub(super) type RawEntry = (EntryId, Fields);
pub(super) type Stream = (Vec<u8>, Vec<RawEntry>);

pub(super) fn field<'a>(fields: &'a Fields, name: &[u8]) -> Option<&'a [u8]> {
    fields.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_slice())
}

/// The reply of XREADGROUP: streams with entries with fields. Nil and an empty entry list are no entries.
pub(super) fn streams(reply: Value) -> Result<Vec<Stream>, QueueError> {
    const SCRIPT: &str = "XREADGROUP";
    let mut decoded = Vec::new();
    for stream in array(SCRIPT, reply)? {
        let [name, found] = pair(SCRIPT, stream)?;
        decoded.push((bytes(SCRIPT, name)?, entries(SCRIPT, found)?));
    }
    Ok(decoded)
}

/// Entries with their fields, as XRANGE answers them; `script` is whose reply they are in.
pub(super) fn entries(script: &'static str, reply: Value) -> Result<Vec<RawEntry>, QueueError> {
    let mut found = Vec::new();
    for entry in array(script, reply)? {
        let [id, fields] = pair(script, entry)?;
        let id = String::from_utf8_lossy(&bytes(script, id)?).parse().map_err(|_| unexpected(script, "no entry id"))?;
        let mut pairs = Vec::with_capacity(1);
        let mut parts = array(script, fields)?.into_iter();
        while let (Some(name), Some(value)) = (parts.next(), parts.next()) {
            pairs.push((bytes(script, name)?, bytes(script, value)?));
        }
        found.push((id, pairs));
    }
    Ok(found)
}

fn array(script: &'static str, value: Value) -> Result<Vec<Value>, QueueError> {
    match value {
        Value::Array(elements) => Ok(elements),
        Value::Nil => Ok(Vec::new()),
        _ => Err(unexpected(script, "no array where one is due")),
    }
}

fn pair(script: &'static str, value: Value) -> Result<[Value; 2], QueueError> {
    array(script, value)?.try_into().map_err(|_| unexpected(script, "no pair where one is due"))
}

fn bytes(script: &'static str, value: Value) -> Result<Vec<u8>, QueueError> {
    match value {
        Value::BulkString(bytes) => Ok(bytes),
        Value::SimpleString(text) => Ok(text.into_bytes()),
        _ => Err(unexpected(script, "no string where one is due")),
    }
}

fn unexpected(script: &'static str, detail: &str) -> QueueError {
    QueueError::Reply { script, detail: detail.to_owned() }
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
