//! Events: what happened to jobs, with BullMQ's names, for whoever wants to follow it.
//!
//! The stream of events is read plainly: it has no group, nobody acknowledges, and any number of readers see everything. It
//! keeps about the last ten thousand. A reader that was away longer misses what was trimmed, and is not told.
//!
//! *Order:* events of one job stand in the order in which its moves happened.

use std::time::Duration;

use redis::aio::MultiplexedConnection;

use super::read::{BLOCK_MAX, streams};
use super::scripts::JOBS_PER_CALL_MAX;
use super::{Events, Queue, QueueError, millis};
use crate::job::{EntryId, JobId};

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Where it stands in the stream; its milliseconds are when it happened.
    pub id: EntryId,
    /// What happened: one of BullMQ's names.
    pub name: String,
    /// To which job; `None` for what happens to a queue.
    pub job: Option<JobId>,
    /// What else is said of it, in order: name and value.
    pub fields: Vec<(String, String)>,
}

/// From where events are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    /// What happens from now on.
    Now,
    /// What happened after this event; [`After::BEGINNING`] is everything that is kept.
    Event(EntryId),
}

impl After {
    /// Everything that is kept.
    pub const BEGINNING: Self = Self::Event(EntryId { ms: 0, seq: 0 });
}

/// Reads events, on a connection of its own.
#[derive(Debug)]
pub struct EventReader {
    queue: Queue,
    after: After,
    connection: Option<MultiplexedConnection>,
}

impl Event {
    /// The value of a field.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    fn new(id: EntryId, fields: Vec<(Vec<u8>, Vec<u8>)>) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        let mut event = Self { id, name: String::new(), job: None, fields: Vec::with_capacity(fields.len()) };
        for (name, value) in fields {
            match name.as_slice() {
                b"event" => event.name = text(value),
                b"jobId" => event.job = JobId::new(value).ok(),
                _ => event.fields.push((text(name), text(value))),
            }
        }
        event
    }
}

impl Queue {
    /// A reader of events. The position is its own, so it can be kept (the `id` of the last event) and taken up again.
    pub fn events(&self, after: After) -> EventReader {
        EventReader { queue: self.clone(), after, connection: None }
    }

    /// The newest events, oldest of them first; at most [`JOBS_PER_CALL_MAX`].
    ///
    /// # Errors
    /// [`QueueError::Redis`].
    pub async fn newest_events(&self, n: usize) -> Result<Vec<Event>, QueueError> {
        let mut command = redis::cmd("XREVRANGE");
        command.arg(self.keys().events()).arg("+").arg("-").arg("COUNT").arg(n.clamp(1, JOBS_PER_CALL_MAX));
        let reply: redis::Value = self.ask("XREVRANGE", &command).await?;
        // as one stream of a read
        let name = redis::Value::BulkString(Vec::new());
        let read = streams(redis::Value::Array(vec![redis::Value::Array(vec![name, reply])]))?;
        let entries = read.into_iter().flat_map(|(_, entries)| entries);
        let mut events: Vec<Event> = entries.map(|(id, fields)| Event::new(id, fields)).collect();
        events.reverse();
        Ok(events)
    }

    /// Forgets all events but the newest `n`. Returns how many were forgotten.
    ///
    /// # Errors
    /// [`QueueError::Redis`]; may be repeated.
    pub async fn trim_events(&self, n: usize) -> Result<u64, QueueError> {
        self.ask("XTRIM", redis::cmd("XTRIM").arg(self.keys().events()).arg("MAXLEN").arg(n)).await
    }

    /// Whether each step of each job is an event.
    pub(crate) fn tells_all(&self) -> bool {
        self.inner.options.events == Events::All
    }

    /// Writes that these jobs are active now. Delivering is a plain read, which writes nothing, so whoever reads says so.
    ///
    /// # Errors
    /// [`QueueError::Redis`].
    pub(crate) async fn tell_active<'a>(&self, jobs: impl IntoIterator<Item = &'a JobId>) -> Result<(), QueueError> {
        let mut pipeline = redis::pipe();
        for id in jobs {
            let mut add = redis::cmd("XADD");
            add.arg(self.keys().events()).arg("MAXLEN").arg("~").arg(self.events_max()).arg("*");
            add.arg("event").arg("active").arg("jobId").arg(id.as_bytes()).arg("prev").arg("waiting");
            pipeline.add_command(add).ignore();
        }
        if pipeline.is_empty() {
            return Ok(());
        }
        let written = pipeline.query_async(&mut self.connection()).await;
        written.map_err(|cause| QueueError::from_redis("XADD", cause))
    }
}

impl EventReader {
    /// Reads the events that follow, at most [`JOBS_PER_CALL_MAX`]; with `block`, waits up to that long for the first one.
    ///
    /// *Cancel safety:* safe; nothing that was not returned is passed over. [`After::Now`] is the moment of the first call.
    ///
    /// # Errors
    /// [`QueueError`]; the next call makes the connection anew and goes on from the same event.
    pub async fn read(&mut self, block: Option<Duration>) -> Result<Vec<Event>, QueueError> {
        let read = self.try_read(block).await;
        if read.is_err() {
            self.connection = None;
        }
        read
    }

    /// Behind which event the next read begins; [`After::Now`] before the first.
    pub fn position(&self) -> After {
        self.after
    }

    async fn try_read(&mut self, block: Option<Duration>) -> Result<Vec<Event>, QueueError> {
        let after = match self.after {
            After::Event(id) => id,
            After::Now => {
                let last = self.last_event().await?;
                self.after = After::Event(last);
                last
            }
        };
        let key = self.queue.keys().events().to_owned();
        if self.connection.is_none() {
            self.connection = Some(self.queue.redis().blocking_connection(BLOCK_MAX).await?);
        }
        let connection = self.connection.as_mut().expect("made above");
        let mut command = redis::cmd("XREAD");
        command.arg("COUNT").arg(JOBS_PER_CALL_MAX);
        if let Some(block) = block {
            // 0 would block for ever
            command.arg("BLOCK").arg(millis(block.min(BLOCK_MAX)).max(1));
        }
        command.arg("STREAMS").arg(key).arg(after.to_string());
        let reply = command.query_async(connection).await.map_err(|cause| QueueError::from_redis("XREAD", cause))?;
        let entries = streams(reply)?.into_iter().flat_map(|(_, entries)| entries);
        let events: Vec<Event> = entries.map(|(id, fields)| Event::new(id, fields)).collect();
        if let Some(last) = events.last() {
            self.after = After::Event(last.id);
        }
        Ok(events)
    }

    /// The event after which nothing has happened yet. From `$`, what happens between two reads would be missed.
    async fn last_event(&self) -> Result<EntryId, QueueError> {
        let newest = self.queue.newest_events(1).await?;
        Ok(newest.last().map_or(EntryId { ms: 0, seq: 0 }, |event| event.id))
    }
}
