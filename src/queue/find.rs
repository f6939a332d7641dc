//! Finds one job and says where it stands, in the time of a look-up.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::scripts::{self, Call, element};
use super::{GROUP, Queue, QueueError};
use crate::job::{Job, JobId};

/// State of a job, with BullMQ's names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// In the stream, not delivered.
    Waiting,
    /// Delivered to a consumer that has not settled it.
    Active,
    /// In the backoff zset.
    Delayed {
        /// When it is due.
        due_at: SystemTime,
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
            Self::Active => "active",
            Self::Delayed { .. } => "delayed",
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
        let keys = self.keys();
        let job_key = keys.job(id);
        let fixed = [keys.stream(), keys.delayed(), keys.failures(), keys.dead()];
        let all: Vec<&[u8]> = fixed.iter().map(|key| key.as_bytes()).chain([&job_key[..]]).collect();
        let mut call = Call::new(&scripts::FIND, all.into_iter());
        call.arg(GROUP).arg(id.as_bytes());
        let reply = call.run(&mut self.connection()).await?;
        if reply.is_nil() {
            return Ok(None);
        }
        let (script, elements) = reply.array()?;
        let unexpected = |detail: String| QueueError::Reply { script: script.name, detail };
        let mut elements = elements.into_iter();
        let mut next = || elements.next().ok_or_else(|| unexpected("fewer than four elements".to_owned()));
        let value: Vec<u8> = element(script, next()?)?;
        let state: String = element(script, next()?)?;
        let due: Vec<u8> = element(script, next()?)?;
        let failure: Vec<u8> = element(script, next()?)?;
        let letter: Vec<Vec<u8>> = elements.map(|field| element(script, field)).collect::<Result<_, _>>()?;

        let job = Job::decode(id.clone(), value).map_err(|error| unexpected(error.to_string()))?;
        let failure = match failure.as_slice() {
            [] => None,
            row => Some(Failure::decode(row).map_err(|error| unexpected(error.to_string()))?),
        };
        let state = match state.as_str() {
            "waiting" => State::Waiting,
            "active" => State::Active,
            "delayed" => {
                let ms = String::from_utf8_lossy(&due).parse::<f64>().map_err(|error| unexpected(error.to_string()))?;
                State::Delayed { due_at: UNIX_EPOCH + Duration::from_millis(ms as u64) }
            }
            "failed" => {
                let reason = letter.chunks_exact(2).find(|pair| pair[0] == b"reason").map(|pair| &pair[1]);
                State::Failed { reason: String::from_utf8_lossy(reason.map_or(&[][..], Vec::as_slice)).into_owned() }
            }
            "unknown" => State::Unknown,
            other => return Err(unexpected(format!("state {other:?}"))),
        };
        Ok(Some(Found { job, state, failure }))
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
    fn decode(row: &[u8]) -> Result<Self, rmp_serde::decode::Error> {
        let (first, last, reason): (u64, u64, serde_bytes::ByteBuf) = rmp_serde::from_slice(row)?;
        let at = |ms| UNIX_EPOCH + Duration::from_millis(ms);
        Ok(Self { first_at: at(first), last_at: at(last), reason: String::from_utf8_lossy(&reason).into_owned() })
    }
}
