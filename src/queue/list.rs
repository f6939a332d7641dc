//! Lists the jobs in a state, page by page, in the time of a page however many there are.
//!
//! | state | upwards ([`Order::Ascending`]) |
//! |---|---|
//! | waiting | as they will be handed out; behind them what is parked, by group and arrival |
//! | prioritized | as they will be handed out: by priority and arrival |
//! | active | those with a priority, then the others, each by entry |
//! | delayed | by when they are due |
//! | completed, failed | by when they ended |
//!
//! *Promised:* a job that stays where it stands while somebody walks through a list is on exactly one page, whatever happens
//! to others. *Not promised:* one that moves meanwhile (it is taken, comes back, changes its priority) may be on two pages or
//! on none. What is on a page was so at one instant.

use std::fmt;
use std::str::FromStr;
use std::time::SystemTime;

use redis::Value;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use super::dead_letter::DeadLetter;
use super::find::{Failure, Holder, instant};
use super::scripts::{self, Script, element};
use super::{Order, Queue, QueueError};
use crate::job::title::{TITLE_WITHIN_BYTES, title_of};
use crate::job::{EntryId, Envelope, Head, Job, JobId, JobOptions, Place};

/// Most jobs of a page: they take Redis a millisecond or two, since each is looked up.
pub const PAGE_MAX: usize = 128;

/// Most bytes of an envelope in front of its payload.
const ENVELOPE_BEGINS_WITHIN: usize = 6;

/// A state whose jobs can be listed, with BullMQ's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ListState {
    /// In the stream, not delivered, or parked; entries of plain producers too, which no job is made of yet.
    Waiting,
    /// Waiting, with a priority.
    Prioritized,
    /// Delivered, not settled.
    Active,
    /// In the backoff zset.
    Delayed,
    /// Done, and kept.
    Completed,
    /// Dead letters.
    Failed,
}

/// A word that names no state whose jobs can be listed.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("there is no state {name:?}; the states are waiting, prioritized, active, delayed, completed and failed")]
pub struct UnknownState {
    /// That word.
    pub name: String,
}

impl ListState {
    /// All of them, in the order in which a job meets them.
    pub const ALL: [Self; 6] =
        [Self::Waiting, Self::Prioritized, Self::Active, Self::Delayed, Self::Failed, Self::Completed];

    /// Its name, as BullMQ has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Prioritized => "prioritized",
            Self::Active => "active",
            Self::Delayed => "delayed",
            Self::Completed => "completed",
            Self::Failed => "failed",
        }
    }
}

impl FromStr for ListState {
    type Err = UnknownState;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        // BullMQ takes its own list's name too
        let wanted = if name == "wait" { "waiting" } else { name };
        let found = Self::ALL.into_iter().find(|state| state.name() == wanted);
        found.ok_or_else(|| UnknownState { name: name.to_owned() })
    }
}

impl fmt::Display for ListState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Where a list goes on: behind a job that was on its last page. Text that a URL and a shell take as it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    state: ListState,
    order: Order,
    position: Position,
}

/// A place in a list, whether or not something stands there: section, entry or score, id in a zset, group if parked. An empty
/// section is the beginning.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Position(String, String, ByteBuf, ByteBuf);

/// A cursor that cannot be used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum CursorError {
    /// The text was never one.
    #[error("not a cursor; take one that a list or a search ended with, whole")]
    Damaged,
    /// It belongs to another list.
    #[error("the cursor belongs to a list of {state} jobs {order}; go on with that, or begin without a cursor")]
    OtherList {
        /// What that one lists.
        state: ListState,
        /// Which way it goes.
        order: &'static str,
    },
}

impl Cursor {
    /// The beginning of a list.
    pub(super) fn start(state: ListState, order: Order) -> Self {
        Self { state, order, position: Position::default() }
    }

    /// The state that is listed.
    pub fn state(&self) -> ListState {
        self.state
    }

    /// Which way it is listed.
    pub fn order(&self) -> Order {
        self.order
    }

    pub(super) fn check(&self, state: ListState, order: Order) -> Result<(), CursorError> {
        if (self.state, self.order) == (state, order) {
            return Ok(());
        }
        let order = match self.order {
            Order::Ascending => "upwards",
            Order::Descending => "downwards",
        };
        Err(CursorError::OtherList { state: self.state, order })
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = rmp_serde::to_vec(self).expect("writing to memory does not fail");
        bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for Cursor {
    type Err = CursorError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = text.as_bytes();
        if !digits.len().is_multiple_of(2) {
            return Err(CursorError::Damaged);
        }
        let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
        let bytes: Option<Vec<u8>> = digits.chunks(2).map(byte).collect();
        bytes.and_then(|bytes| rmp_serde::from_slice(&bytes).ok()).ok_or(CursorError::Damaged)
    }
}

/// One page of a list.
#[derive(Clone, Debug)]
pub struct Page {
    /// The jobs, in order. There may be fewer than were asked for though more follow.
    pub jobs: Vec<Listed>,
    /// Where the list goes on; `None` when that was all.
    pub next: Option<Cursor>,
}

/// A job as it is listed.
#[derive(Clone, Debug)]
pub struct Listed {
    /// Its id; `None` for an entry that no job is made of.
    pub id: Option<JobId>,
    /// The entry it stands in, whose milliseconds are the time it was added: with what waits, since when; with dead letters,
    /// when we gave up; with an active job that has a priority, when it was delivered. `None` for what is in a zset.
    pub entry: Option<EntryId>,
    /// Where it stands.
    pub standing: Standing,
    /// What it is; `None` when nothing is known: its key is gone, cannot be read, or says that the job stands elsewhere.
    pub job: Option<Summary>,
    /// How it failed so far.
    pub failure: Option<Failure>,
    /// What people call it: the text `title` of its payload, if that is a map with one near its front; a long one is cut.
    /// `None` until [`Queue::read_titles`] was asked.
    pub title: Option<String>,
}

/// Where a listed job stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// In the stream, to be delivered.
    Waiting,
    /// In the stream, added by a plain producer: no job is made of it until it is read.
    NotAdopted {
        /// The front of its JSON.
        json: Vec<u8>,
    },
    /// Waiting for room in its group.
    Parked,
    /// Waiting, with a priority.
    Prioritized,
    /// A worker has it.
    Active(Holder),
    /// To be tried at its time.
    Delayed {
        /// When it is due.
        due_at: SystemTime,
    },
    /// Done, and kept.
    Completed {
        /// When it was done.
        finished_at: SystemTime,
    },
    /// A dead letter; of what could not be read it holds the front only.
    Failed(DeadLetter),
}

/// What is known of a job without its payload.
#[derive(Clone, Debug)]
pub struct Summary {
    /// Attempts, stalls, version, import, priority and group.
    pub head: Head,
    /// When it was first enqueued.
    pub enqueued_at: SystemTime,
    /// Kind of work.
    pub name: Option<String>,
    /// The feed that brought it.
    pub feed: Option<String>,
    /// What it says about itself.
    pub options: Option<Box<JobOptions>>,
    /// Size of its payload.
    pub payload_bytes: u64,
}

impl Listed {
    /// The state it is listed under.
    pub fn state(&self) -> ListState {
        match self.standing {
            Standing::Waiting | Standing::NotAdopted { .. } | Standing::Parked => ListState::Waiting,
            Standing::Prioritized => ListState::Prioritized,
            Standing::Active(_) => ListState::Active,
            Standing::Delayed { .. } => ListState::Delayed,
            Standing::Completed { .. } => ListState::Completed,
            Standing::Failed(_) => ListState::Failed,
        }
    }

    /// Why it failed last, if it did.
    pub fn error(&self) -> Option<&str> {
        match &self.standing {
            Standing::Failed(letter) => Some(&letter.reason),
            _ => self.failure.as_ref().map(|failure| failure.reason.as_str()),
        }
    }
}

/// A page, with where the list goes on behind each of its jobs.
pub(super) struct Rows {
    pub(super) rows: Vec<(Listed, Cursor)>,
    pub(super) next: Option<Cursor>,
}

impl Queue {
    /// Reads one page of the jobs in a state: at most `limit`, and at most [`PAGE_MAX`]; `cursor` is where the page
    /// before ended, `None` the beginning.
    ///
    /// # Errors
    /// [`QueueError::Cursor`] when the cursor is of another list.
    pub async fn list(
        &self,
        state: ListState,
        order: Order,
        cursor: Option<&Cursor>,
        limit: usize,
    ) -> Result<Page, QueueError> {
        let start = Cursor::start(state, order);
        let cursor = cursor.unwrap_or(&start);
        cursor.check(state, order)?;
        let Rows { rows, next } = self.rows(cursor, limit).await?;
        Ok(Page { jobs: rows.into_iter().map(|(listed, _)| listed).collect(), next })
    }

    /// Reads the titles of the jobs of a page, from the front of each payload, however large it is. A payload that was
    /// replaced or ended since the page was read has its new title, or none.
    ///
    /// # Errors
    /// [`QueueError::Redis`].
    pub async fn read_titles(&self, jobs: &mut [Listed]) -> Result<(), QueueError> {
        for jobs in jobs.chunks_mut(PAGE_MAX) {
            let mut fronts = redis::pipe();
            fronts.ignore_errors(); // a key may have become one of another type
            let mut asked = Vec::new();
            for job in jobs {
                match (&job.id, &job.job, &job.standing) {
                    (Some(id), Some(known), _) => {
                        let last = known.head.len() + ENVELOPE_BEGINS_WITHIN + TITLE_WITHIN_BYTES;
                        fronts.cmd("GETRANGE").arg(self.keys().job(id)).arg(0).arg(last);
                        asked.push(job);
                    }
                    (_, _, Standing::NotAdopted { json }) => job.title = title_of(json),
                    (_, _, Standing::Failed(DeadLetter { raw: Some(raw), .. })) => job.title = title_of(raw),
                    _ => {}
                }
            }
            if asked.is_empty() {
                continue;
            }
            let read = fronts.query_async::<Vec<redis::RedisResult<Vec<u8>>>>(&mut self.connection()).await;
            let fronts = read.map_err(|cause| QueueError::from_redis("GETRANGE", cause))?;
            for (job, front) in asked.into_iter().zip(fronts) {
                job.title = front.ok().as_deref().and_then(title_in_value);
            }
        }
        Ok(())
    }

    /// Reads the page behind a cursor.
    pub(super) async fn rows(&self, cursor: &Cursor, limit: usize) -> Result<Rows, QueueError> {
        let Cursor { state, order, position } = cursor;
        let mut call = self.moving(&scripts::LIST, super::NO_KEYS);
        call.arg(state.name())
            .arg(order.word())
            .arg(limit.clamp(1, PAGE_MAX))
            .arg(&position.0)
            .arg(&position.1)
            .arg(&position.2[..])
            .arg(&position.3[..]);
        let (script, mut rows) = call.run(&mut self.connection()).await?.array()?;
        if rows.is_empty() {
            return Err(QueueError::Reply { script: script.name, detail: "an empty array".to_owned() });
        }
        let at = |position| Cursor { state: *state, order: *order, position };
        let (section, at_entry, id, group): (String, String, Vec<u8>, Vec<u8>) = element(script, rows.remove(0))?;
        let next = Position(section, at_entry, ByteBuf::from(id), ByteBuf::from(group));
        let next = (!next.0.is_empty()).then(|| at(next));
        let rows = rows.into_iter().map(|row| {
            let (position, listed) = decode_row(script, *state, row)?;
            Ok((listed, at(position)))
        });
        Ok(Rows { rows: rows.collect::<Result<_, QueueError>>()?, next })
    }
}

/// A job of a page as the script answers it.
type Row = (String, String, Vec<u8>, Vec<u8>, Vec<u8>, u64, Vec<u8>, Vec<Value>);

/// Decodes one job of a page.
fn decode_row(script: &'static Script, state: ListState, row: Value) -> Result<(Position, Listed), QueueError> {
    let unexpected = |detail: &str| QueueError::Reply { script: script.name, detail: detail.to_owned() };
    let (section, at, id, group, value, payload_bytes, failure, more): Row = element(script, row)?;
    let (holder, more) = match state {
        ListState::Active => (Holder::decode(script, more)?, Vec::new()),
        _ => (None, more.into_iter().map(|value| element::<Vec<u8>>(script, value)).collect::<Result<_, _>>()?),
    };
    let field = |name: &[u8]| more.chunks_exact(2).find(|pair| pair[0] == name).map(|pair| &pair[1]);
    let is_zset = matches!(section.as_str(), "zset" | "parked");
    let entry = if is_zset { None } else { Some(at.parse().map_err(|_| unexpected("not an entry id"))?) };
    let job_id = JobId::new(&id).ok();
    let standing = match (state, section.as_str()) {
        (ListState::Waiting, "parked") => Standing::Parked,
        (ListState::Waiting, _) => match field(b"json").filter(|_| job_id.is_none()) {
            Some(json) => Standing::NotAdopted { json: json.clone() },
            None => Standing::Waiting,
        },
        (ListState::Active, _) => Standing::Active(holder.ok_or_else(|| unexpected("no consumer of an active job"))?),
        (ListState::Prioritized, _) => Standing::Prioritized,
        (ListState::Delayed, _) => Standing::Delayed { due_at: instant(script, at.as_bytes())? },
        (ListState::Completed, _) => Standing::Completed { finished_at: instant(script, at.as_bytes())? },
        (ListState::Failed, _) => {
            let entry = entry.expect("dead letters are entries");
            // an id is never cut, other fields are
            let field = |name: &str| match name {
                "id" => Some(id.clone()).filter(|id| !id.is_empty()),
                _ => field(name.as_bytes()).cloned(),
            };
            Standing::Failed(DeadLetter::decode(script.name, entry, field)?)
        }
    };
    let job = job_id.clone().and_then(|id| summary(id, value, payload_bytes)).filter(|job| {
        // what the head says counts: a leftover of the stream is not the job
        let place = match (state, section.as_str()) {
            (ListState::Waiting, "parked") => Place::Parked,
            (ListState::Waiting, _) | (ListState::Active, "stream") => Place::Stream,
            (ListState::Active | ListState::Prioritized, _) => Place::Prioritized,
            (ListState::Delayed, _) => Place::Delayed,
            (ListState::Completed, _) => Place::Completed,
            (ListState::Failed, _) => Place::Dead,
        };
        (job.head.place, job.head.entry) == (place, entry)
    });
    let failure = match failure.as_slice() {
        [] => None,
        row => Some(Failure::decode(row).map_err(|error| unexpected(&error.to_string()))?),
    };
    let position = Position(section, at, ByteBuf::from(if is_zset { id } else { Vec::new() }), ByteBuf::from(group));
    Ok((position, Listed { id: job_id, entry, standing, job, failure, title: None }))
}

/// The title in the front of the value of a job's key.
fn title_in_value(front: &[u8]) -> Option<String> {
    let head = Head::decode(front).ok()?;
    title_of(Envelope::payload_front(&front[head.len()..])?)
}

/// Reads the value of a job's key whose payload was left out; `None` when there is none, or it cannot be read.
fn summary(id: JobId, value: Vec<u8>, payload_bytes: u64) -> Option<Summary> {
    let Job { head, enqueued_at, name, feed, options, .. } = Job::decode(id, value).ok()?;
    Some(Summary { head, enqueued_at, name, feed, options, payload_bytes })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_reads_back_from_its_text_whatever_the_id() {
        let id = ByteBuf::from(vec![0, 0xff, b'\'', b' ', b'#']);
        let position = Position("zset".to_owned(), "1795492693614".to_owned(), id, ByteBuf::from("g"));
        let cursor = Cursor { state: ListState::Delayed, order: Order::Descending, position };
        let text = cursor.to_string();
        assert!(text.bytes().all(|byte| byte.is_ascii_alphanumeric()), "{text}");
        assert_eq!(text.parse(), Ok(cursor.clone()));
        for damaged in ["", "0", "zz", &text[2..], &text[..text.len() - 2], "é0"] {
            assert_eq!(damaged.parse::<Cursor>(), Err(CursorError::Damaged), "{damaged:?}");
        }
        assert_eq!(cursor.check(ListState::Delayed, Order::Descending), Ok(()));
        assert!(cursor.check(ListState::Delayed, Order::Ascending).is_err());
        assert!(cursor.check(ListState::Waiting, Order::Descending).is_err());
    }

    #[test]
    fn states_are_named_as_in_bullmq() {
        for state in ListState::ALL {
            assert_eq!(state.name().parse(), Ok(state));
        }
        assert_eq!("wait".parse(), Ok(ListState::Waiting));
        let unknown = "paused".parse::<ListState>().expect_err("jobs of a paused queue are waiting");
        assert!(unknown.to_string().starts_with("there is no state \"paused\"; the states are waiting, "), "{unknown}");
    }
}
