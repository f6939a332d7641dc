//! Finds one job and says where it stands, in the time of a look-up.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::scripts::{self, element};
use super::{Queue, QueueError};
use crate::job::{Job, JobId};

/// Newest log lines that come with a job.
pub const LINES_FOUND: usize = 20;

/// State of a job, with BullMQ's names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// In the stream, not delivered; or parked, while its group has no room there.
    Waiting,
    /// Waiting, with a priority.
    Prioritized,
    /// Delivered to a consumer that has not settled it.
    Active,
    /// In the backoff zset.
    Delayed {
        /// When it is due.
        due_at: SystemTime,
    },
    /// Done, and kept.
    Completed {
        /// When it was done.
        finished_at: SystemTime,
    },
    /// A dead letter.
    Failed {
        /// Why we gave up.
        reason: String,
    },
    /// Its head names a place where it does not stand: a guard without a job.
    Unknown,
}

/// A job with its state.
#[derive(Clone, Debug)]
pub struct Found {
    /// The job.
    pub job: Job,
    /// Where it stands.
    pub state: State,
    /// How it failed so far.
    pub failure: Option<Failure>,
    /// Which consumer has it, if it is active.
    pub holder: Option<Holder>,
    /// What its handler said of it.
    pub log: Log,
}

/// What a handler said of a job, and how it ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Log {
    /// How far it is, as JSON.
    pub progress: Option<String>,
    /// What it came to, as JSON.
    pub result: Option<String>,
    /// Its newest log lines, oldest first, at most [`LINES_FOUND`]; [`Queue::log_lines`] reads the others.
    pub lines: Vec<String>,
    /// How many lines there were before them.
    pub lines_before: u64,
    /// Errors of its failed attempts, by attempt; of those that failed after something was said of the job, the newest.
    pub errors: BTreeMap<u8, String>,
}

impl Log {
    /// Reads the fields of the hash `log:<id>`.
    fn from_fields(fields: &[Vec<u8>]) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let mut log = Self::default();
        let (mut lines, mut n_lines) = (BTreeMap::new(), 0_u64);
        for pair in fields.chunks_exact(2) {
            let (name, value) = (text(&pair[0]), text(&pair[1]));
            match name.split_once(':') {
                Some(("line", number)) => {
                    lines.insert(number.parse::<u64>().unwrap_or(u64::MAX), value);
                }
                Some(("error", attempt)) => {
                    log.errors.insert(attempt.parse().unwrap_or(u8::MAX), value);
                }
                _ if name == "progress" => log.progress = Some(value),
                _ if name == "result" => log.result = Some(value),
                _ if name == "lines" => n_lines = value.parse().unwrap_or(0),
                _ => {}
            }
        }
        log.lines = lines.into_values().collect();
        log.lines_before = n_lines.saturating_sub(log.lines.len() as u64);
        log
    }
}

/// Who has an active job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Name of the consumer.
    pub consumer: String,
    /// How long ago the consumer was given the job, or last renewed its lease.
    pub idle: Duration,
}

/// How a job failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The first time.
    pub first_at: SystemTime,
    /// The last time.
    pub last_at: SystemTime,
    /// The last error.
    pub reason: String,
}

impl State {
    /// BullMQ's name of the state.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Prioritized => "prioritized",
            Self::Active => "active",
            Self::Delayed { .. } => "delayed",
            Self::Completed { .. } => "completed",
            Self::Failed { .. } => "failed",
            Self::Unknown => "unknown",
        }
    }
}

impl Queue {
    /// Finds a job by its id; `None` when there is none (never enqueued, done, or not adopted yet).
    ///
    /// # Errors
    /// [`QueueError`].
    pub async fn find(&self, id: &JobId) -> Result<Option<Found>, QueueError> {
        let mut call = self.moving(&scripts::FIND, [self.keys().job(id), self.keys().log(id)]);
        call.arg(id.as_bytes()).arg(LINES_FOUND);
        let reply = call.run(&mut self.connection()).await?;
        if reply.is_nil() {
            return Ok(None);
        }
        let (script, elements) = reply.array()?;
        let unexpected = |detail: String| QueueError::Reply { script: script.name, detail };
        let [value, state, at, failure, letter, log, holder]: [redis::Value; 7] =
            elements.try_into().map_err(|_| unexpected("not seven elements".to_owned()))?;
        let value: Vec<u8> = element(script, value)?;
        let state: String = element(script, state)?;
        let at: Vec<u8> = element(script, at)?;
        let failure: Vec<u8> = element(script, failure)?;
        let letter: Vec<Vec<u8>> = element(script, letter)?;
        let log: Vec<Vec<u8>> = element(script, log)?;
        let holder = Holder::decode(script, element(script, holder)?)?;

        let job = Job::decode(id.clone(), value).map_err(|error| unexpected(error.to_string()))?;
        let failure = match failure.as_slice() {
            [] => None,
            row => Some(Failure::decode(row).map_err(|error| unexpected(error.to_string()))?),
        };
        let state = match state.as_str() {
            "waiting" => State::Waiting,
            "active" => State::Active,
            "prioritized" => State::Prioritized,
            "delayed" => State::Delayed { due_at: instant(script, &at)? },
            "completed" => State::Completed { finished_at: instant(script, &at)? },
            "failed" => {
                let reason = letter.chunks_exact(2).find(|pair| pair[0] == b"reason").map(|pair| &pair[1]);
                State::Failed { reason: String::from_utf8_lossy(reason.map_or(&[][..], Vec::as_slice)).into_owned() }
            }
            "unknown" => State::Unknown,
            other => return Err(unexpected(format!("state {other:?}"))),
        };
        Ok(Some(Found { job, state, failure, holder, log: Log::from_fields(&log) }))
    }
}

/// Reads a score that is a time in ms.
pub(super) fn instant(script: &scripts::Script, ms: &[u8]) -> Result<SystemTime, QueueError> {
    let unexpected = |error| QueueError::Reply { script: script.name, detail: format!("not a time: {error}") };
    let ms = String::from_utf8_lossy(ms).parse::<f64>().map_err(unexpected)?;
    Ok(UNIX_EPOCH + Duration::from_millis(ms as u64))
}

impl Holder {
    /// Reads consumer and idle time (ms); `None` of nothing.
    pub(super) fn decode(script: &scripts::Script, said: Vec<redis::Value>) -> Result<Option<Self>, QueueError> {
        let Ok([consumer, idle]) = <[redis::Value; 2]>::try_from(said) else { return Ok(None) };
        let consumer: Vec<u8> = element(script, consumer)?;
        let idle = Duration::from_millis(element(script, idle)?);
        Ok(Some(Self { consumer: String::from_utf8_lossy(&consumer).into_owned(), idle }))
    }
}

impl Queue {
    /// Reads the jobs of these ids, wherever they stand; `None` for what is no job. At most
    /// [`scripts::JOBS_PER_CALL_MAX`] ids.
    ///
    /// # Errors
    /// [`QueueError::Redis`].
    pub async fn jobs(&self, ids: &[JobId]) -> Result<Vec<Option<Job>>, QueueError> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let keys: Vec<Vec<u8>> = ids.iter().map(|id| self.keys().job(id)).collect();
        let read = redis::cmd("MGET").arg(keys).query_async::<Vec<Option<Vec<u8>>>>(&mut self.connection()).await;
        let values = read.map_err(|cause| QueueError::from_redis("MGET", cause))?;
        let jobs = ids.iter().zip(values).map(|(id, value)| Job::decode(id.clone(), value?).ok());
        Ok(jobs.collect())
    }
}

impl Failure {
    /// Reads a row of the failures hash: MessagePack `[first (ms), last (ms), error]`.
    pub(super) fn decode(row: &[u8]) -> Result<Self, rmp_serde::decode::Error> {
        let (first, last, reason): (u64, u64, serde_bytes::ByteBuf) = rmp_serde::from_slice(row)?;
        let at = |ms| UNIX_EPOCH + Duration::from_millis(ms);
        Ok(Self { first_at: at(first), last_at: at(last), reason: String::from_utf8_lossy(&reason).into_owned() })
    }
}
