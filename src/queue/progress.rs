//! What is said of a job while it is worked on: how far it is, and lines of a log.
//!
//! A handler owns a clone of its [`Queue`] and speaks with the lease of its delivery, so that what it says after it lost the
//! job is not written: `queue.set_progress(&delivery.lease, "50").await`. Others speak by the id of the job.
//!
//! It stands in `log:<id>`, which is there only for jobs of which something was said, or that are kept. It goes a week after
//! it was last written, and with its job where that is kept or was tried more than once.

use super::read::Lease;
use super::scripts;
use super::{Queue, QueueError, Settled};
use crate::job::JobId;

/// Longest progress, in bytes.
pub const PROGRESS_BYTES_MAX: usize = 64 * 1024;
/// Longest line of a log, in bytes; what is longer is cut.
pub const LINE_BYTES_MAX: usize = 4096;
/// Lines of a log that are kept unless it is said otherwise.
pub const LINES_KEPT: usize = 1000;
/// Most lines that are read at once.
pub const LINES_PER_PAGE: usize = 100;

/// Of which job something is said.
#[derive(Clone, Copy, Debug)]
pub enum About<'a> {
    /// The one that the speaker works on, as long as it holds the lease.
    Lease(&'a Lease),
    /// The one with this id, whoever has it.
    Id(&'a JobId),
}

impl<'a> From<&'a Lease> for About<'a> {
    fn from(lease: &'a Lease) -> Self {
        Self::Lease(lease)
    }
}

impl<'a> From<&'a JobId> for About<'a> {
    fn from(id: &'a JobId) -> Self {
        Self::Id(id)
    }
}

impl<'a> About<'a> {
    fn id(self) -> &'a JobId {
        match self {
            Self::Lease(lease) => &lease.id,
            Self::Id(id) => id,
        }
    }

    fn reference(self) -> Vec<u8> {
        match self {
            Self::Lease(lease) => lease.reference().to_vec(),
            Self::Id(_) => Vec::new(),
        }
    }
}

/// A line of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    /// Counted from 1 over all lines the job ever had.
    pub number: u64,
    /// What it says.
    pub text: String,
}

impl Queue {
    /// Sets how far a job is: any JSON, as in BullMQ. [`Settled::Lost`] when the lease is lost, or there is no such job: then
    /// nothing was written.
    ///
    /// # Errors
    /// [`QueueError::Progress`] for what is no JSON or over [`PROGRESS_BYTES_MAX`]; [`QueueError::Redis`]; may be repeated.
    pub async fn set_progress(&self, job: impl Into<About<'_>>, json: &str) -> Result<Settled, QueueError> {
        let job = job.into();
        let refused = |detail| QueueError::Progress { id: job.id().clone(), detail };
        if json.len() > PROGRESS_BYTES_MAX {
            return Err(refused(format!("{} bytes; the limit is {PROGRESS_BYTES_MAX}", json.len())));
        }
        serde_json::from_str::<serde::de::IgnoredAny>(json).map_err(|error| refused(format!("no JSON: {error}")))?;
        let keys = [self.keys().job(job.id()), self.keys().log(job.id())];
        let mut call = self.moving(&scripts::SET_PROGRESS, keys);
        call.arg(job.id().as_bytes()).arg(job.reference()).arg(json);
        let letter: String = call.run(&mut self.connection()).await?.decode()?;
        match letter.as_str() {
            "K" => Ok(Settled::Settled),
            "L" => Ok(Settled::Lost),
            other => Err(QueueError::Reply { script: scripts::SET_PROGRESS.name, detail: other.to_owned() }),
        }
    }

    /// Adds a line to the log of a job, of which the newest `keep` stay (see [`LINES_KEPT`]); a line longer than
    /// [`LINE_BYTES_MAX`] is cut. Returns how many lines the log has now; `None` when the lease is lost, or there is no such
    /// job: then nothing was written.
    ///
    /// # Errors
    /// [`QueueError::Redis`]; repeated, it may add the line twice.
    pub async fn log(&self, job: impl Into<About<'_>>, line: &str, keep: usize) -> Result<Option<u64>, QueueError> {
        let job = job.into();
        let keys = [self.keys().job(job.id()), self.keys().log(job.id())];
        let mut call = self.moving(&scripts::ADD_LOG, keys);
        call.arg(job.id().as_bytes())
            .arg(job.reference())
            .arg(keep.max(1))
            .arg(&line[..line.floor_char_boundary(LINE_BYTES_MAX)]);
        let kept: i64 = call.run(&mut self.connection()).await?.decode()?;
        Ok(u64::try_from(kept).ok())
    }

    /// The newest lines of a job's log that come before line number `before` (`None`: the newest of all), oldest first; at most
    /// `limit`, and at most [`LINES_PER_PAGE`]. None when there are no more, or no such job.
    ///
    /// # Errors
    /// [`QueueError::Redis`].
    pub async fn log_lines(&self, id: &JobId, before: Option<u64>, limit: usize) -> Result<Vec<LogLine>, QueueError> {
        let key = self.keys().log(id);
        let before = match before {
            Some(before) => before,
            None => self.ask::<Option<u64>>("HGET", redis::cmd("HGET").arg(&key).arg("lines")).await?.unwrap_or(0) + 1,
        };
        let first = before.saturating_sub(limit.clamp(1, LINES_PER_PAGE) as u64).max(1);
        if first >= before {
            return Ok(Vec::new());
        }
        let mut read = redis::cmd("HMGET");
        read.arg(&key);
        for number in first..before {
            read.arg(format!("line:{number}"));
        }
        let texts: Vec<Option<Vec<u8>>> = self.ask("HMGET", &read).await?;
        let lines = (first..before)
            .zip(texts)
            .filter_map(|(number, text)| Some(LogLine { number, text: String::from_utf8_lossy(&text?).into_owned() }));
        Ok(lines.collect())
    }
}
