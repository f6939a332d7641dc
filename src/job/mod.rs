//! The unit of work: a job, what Redis keeps of it, and what a handler says about it.
//!
//! ```text
//!   key job:<id>  =  head (30 bytes) · group · envelope (MessagePack)
//!                    where it stands           what it is
//! ```
//!
//! Nothing here does I/O. [`head`] is rewritten by every script of [`crate::queue`] that moves a job, [`envelope`] only
//! when the job's content is replaced by a newer version.

pub mod envelope;
pub mod head;
pub mod options;
pub mod outcome;
pub mod retry_policy;
pub(crate) mod title;

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub use envelope::{Envelope, EnvelopeError};
pub use head::{EntryId, Head, HeadError, Place};
pub use options::{JobOptions, Keep};
pub use outcome::{Outcome, Stored};
pub use retry_policy::{Growth, RetryPolicy};

/// Longest job id that is accepted, in bytes.
///
/// `{source}#{guid}` with two long URLs fits; a longer id would make the keys of a queue larger than its jobs.
pub const ID_BYTES_MAX: usize = 4096;

/// Identity of a job within its queue: 1 to [`ID_BYTES_MAX`] bytes of any value.
///
/// Cheap to clone. Shown with invalid UTF-8 replaced.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct JobId(Arc<[u8]>);

/// Why bytes cannot be a job id.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum JobIdError {
    /// The id has no bytes.
    #[error("a job id must not be empty")]
    Empty,
    /// The id is longer than [`ID_BYTES_MAX`].
    #[error("a job id of {bytes} bytes is too long; at most {ID_BYTES_MAX} are accepted")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
}

impl JobId {
    /// Takes the bytes as an id.
    ///
    /// # Errors
    /// [`JobIdError`] for an empty or overlong one.
    pub fn new(bytes: impl AsRef<[u8]>) -> Result<Self, JobIdError> {
        let bytes = bytes.as_ref();
        if bytes.is_empty() {
            Err(JobIdError::Empty)
        } else if bytes.len() > ID_BYTES_MAX {
            Err(JobIdError::TooLong { bytes: bytes.len() })
        } else {
            Ok(Self(bytes.into()))
        }
    }

    /// The bytes as they stand in Redis.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.0))
    }
}

impl fmt::Debug for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JobId({self})")
    }
}

/// Version of a job's content: of two, the greater is the newer.
///
/// Versions that feedmill gives are microseconds since the Unix epoch, by the clock of Redis, and never repeat within
/// a queue. In Redis a version is 8 bytes big-endian: as a Lua number turned into text it would lose digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(pub u64);

impl Version {
    /// The 8 bytes that Redis keeps.
    pub fn to_bytes(self) -> [u8; 8] {
        self.0.to_be_bytes()
    }

    /// Reads back [`Version::to_bytes`].
    pub fn from_bytes(bytes: [u8; 8]) -> Self {
        Self(u64::from_be_bytes(bytes))
    }
}

/// Names one import (a fetch of one feed and all that follows from it); given by Redis when the import is opened.
///
/// A number that grows with time, written in lower-case hexadecimal wherever people see it. 0 stands for "none" in
/// Redis and is never given.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ImportId(u64);

impl ImportId {
    /// Reads the 8 bytes of a job's head; all zero means none.
    pub fn from_bytes(bytes: [u8; 8]) -> Option<Self> {
        Some(u64::from_be_bytes(bytes)).filter(|id| *id != 0).map(Self)
    }

    /// The 8 bytes that a job's head keeps.
    pub fn to_bytes(self) -> [u8; 8] {
        self.0.to_be_bytes()
    }
}

/// The text is not an import id.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("an import id is a hexadecimal number such as 660f1a2b3c4d5")]
pub struct ImportIdError;

impl std::str::FromStr for ImportId {
    type Err = ImportIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        u64::from_str_radix(text, 16).ok().filter(|id| *id != 0).map(Self).ok_or(ImportIdError)
    }
}

impl fmt::Display for ImportId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}", self.0)
    }
}

impl fmt::Debug for ImportId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ImportId({self})")
    }
}

/// A job as it was read from its key.
#[derive(Clone, Debug)]
pub struct Job {
    /// Its id.
    pub id: JobId,
    /// Where it stood when it was read.
    pub head: Head,
    /// Fingerprint of its content, if its producer gave one.
    pub fingerprint: Option<[u8; 7]>,
    /// When it was first enqueued.
    pub enqueued_at: SystemTime,
    /// Kind of work, for queues that carry several.
    pub name: Option<String>,
    /// Name of the feed whose seen map holds a record of this job.
    pub feed: Option<String>,
    /// What it says about itself; `None` when it is as its queue has it.
    pub options: Option<Box<JobOptions>>,
    /// The span that enqueued it (`traceparent` of W3C Trace Context); only where traces are sent.
    pub traceparent: Option<Box<str>>,
    /// The whole value of the key; the payload is a part of it, so that it is never copied.
    value: Vec<u8>,
    payload: Range<usize>,
}

impl Job {
    /// Reads the value of the key `job:<id>`.
    ///
    /// # Errors
    /// [`JobError`] when the head or the envelope is damaged or of a later version.
    pub fn decode(id: JobId, value: Vec<u8>) -> Result<Self, JobError> {
        let head = Head::decode(&value)?;
        let envelope = Envelope::decode(&value[head.len()..])?;
        let start = envelope.payload.as_ptr() as usize - value.as_ptr() as usize;
        let payload = start..start + envelope.payload.len();
        let enqueued_at = envelope.enqueued_at.unwrap_or(UNIX_EPOCH + Duration::from_micros(head.version.0));
        let (fingerprint, name, feed) =
            (envelope.fingerprint, envelope.name.map(str::to_owned), envelope.feed.map(str::to_owned));
        let options = match envelope.options {
            Some(bytes) => Some(Box::new(JobOptions::decode(bytes).map_err(EnvelopeError::from)?)),
            None => None,
        };
        let traceparent = envelope.traceparent.map(Box::from);
        Ok(Self { id, head, fingerprint, enqueued_at, name, feed, options, traceparent, value, payload })
    }

    /// What the producer handed in.
    pub fn payload(&self) -> &[u8] {
        &self.value[self.payload.clone()]
    }

    /// Which attempt a handler makes with it now, counted from 1.
    pub fn attempt(&self) -> u8 {
        self.head.attempts.saturating_add(1)
    }

    /// Memory the job takes in this process, in bytes.
    pub fn size_bytes(&self) -> usize {
        self.value.len() + self.id.as_bytes().len()
    }
}

/// Why the value of a job's key cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JobError {
    /// The head is damaged.
    #[error("unreadable head")]
    Head(#[from] HeadError),
    /// The envelope is damaged or of a later version.
    #[error("unreadable envelope")]
    Envelope(#[from] EnvelopeError),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_any_bytes_up_to_four_kib_are_accepted() {
        assert!(JobId::new(b"https://jobicy.com/?feed=job_feed#12345").is_ok());
        assert!(JobId::new([0xff, 0, b':']).is_ok());
        assert_eq!(JobId::new(b""), Err(JobIdError::Empty));
        assert_eq!(JobId::new(vec![b'x'; 4097]), Err(JobIdError::TooLong { bytes: 4097 }));
    }

    #[test]
    fn an_import_id_reads_back_what_it_shows() {
        let id = ImportId::from_bytes(1_795_492_693_614_123_u64.to_be_bytes()).expect("not zero");
        assert_eq!(id.to_string().parse::<ImportId>(), Ok(id));
        assert!(ImportId::from_bytes([0; 8]).is_none());
        assert!("0".parse::<ImportId>().is_err());
    }

    #[test]
    fn a_job_is_read_without_copying_its_payload() {
        let mut value = Head::new(Place::Delayed, None, Version(1_000_000), None).encode();
        Envelope { payload: b"hello", ..Envelope::default() }.encode_into(&mut value);
        let job = Job::decode(JobId::new("a").expect("an id"), value).expect("readable");
        assert_eq!(job.payload(), b"hello");
        assert_eq!(job.enqueued_at, UNIX_EPOCH + Duration::from_secs(1));
        assert_eq!(job.attempt(), 1);
    }
}
