//! The head: the fixed-length front of a job's key, which says where the job stands.
//!
//! ```text
//!   0      1..11          11        12      13..21    21..29   29                    30..34    34…
//!   place  entry id       attempts  stalls  version   import   length of the extras  priority  group
//!          ms:6 seq:4                       (all numbers big-endian)                 the extras, if it has one of them
//! ```
//!
//! Every script that moves a job rewrites the head in the same call (`SETRANGE`), so the state of an id is found by
//! reading 30 bytes. The entry id is the lease: a settle is carried out only while the head names the entry the worker
//! holds. The layout is compact because Redis rounds a value up to its allocator's size classes: with a 600-byte
//! payload, head and envelope together stay within the class of 640 bytes.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::{ImportId, Version};

/// Length of the fixed part, in bytes.
pub const HEAD_BYTES: usize = 30;
/// Longest value that jobs are grouped by, in bytes: its length and that of the priority fit a byte.
pub const GROUP_BYTES_MAX: usize = 251;

/// Where a job stands. The byte is what the head holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Place {
    /// In the work stream: waiting, or active when its entry is pending.
    Stream = b's',
    /// In the zset of jobs with a priority: waiting; with an entry in the stream of those that a worker has: active.
    Prioritized = b'p',
    /// Parked: waiting for room in its group.
    Parked = b'g',
    /// In the backoff zset.
    Delayed = b'd',
    /// In the dead-letter stream.
    Dead = b'f',
    /// Done, and kept.
    Completed = b'c',
}

impl Place {
    fn from_byte(byte: u8) -> Option<Self> {
        let places = [Self::Stream, Self::Prioritized, Self::Parked, Self::Delayed, Self::Dead, Self::Completed];
        places.into_iter().find(|place| *place as u8 == byte)
    }
}

/// The Redis id of a stream entry, `<ms>-<seq>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryId {
    /// Milliseconds since the Unix epoch, by the clock of Redis.
    pub ms: u64,
    /// Counts the entries of one millisecond.
    pub seq: u64,
}

impl EntryId {
    /// When the entry was added, by the clock of Redis.
    pub fn at(self) -> SystemTime {
        // an id that a client chose may be beyond all time
        UNIX_EPOCH.checked_add(Duration::from_millis(self.ms)).unwrap_or(UNIX_EPOCH)
    }

    /// The id as the head holds it, or `None` when it is none that Redis would generate
    /// (a client may choose any 64-bit numbers).
    pub fn packed(self) -> Option<[u8; 10]> {
        let seq = u32::try_from(self.seq).ok()?;
        if self.ms >> 48 != 0 {
            return None;
        }
        let mut packed = [0; 10];
        packed[..6].copy_from_slice(&self.ms.to_be_bytes()[2..]);
        packed[6..].copy_from_slice(&seq.to_be_bytes());
        Some(packed)
    }

    /// Reads what a head says of where its job stands: the place and the entry.
    pub(crate) fn from_reference(bytes: &[u8]) -> Option<(Place, Self)> {
        let (place, packed) = bytes.split_first()?;
        Some((Place::from_byte(*place)?, Self::unpack(packed.try_into().ok()?)?))
    }

    fn unpack(packed: [u8; 10]) -> Option<Self> {
        let mut ms = [0; 8];
        ms[2..].copy_from_slice(&packed[..6]);
        let mut seq = [0; 8];
        seq[4..].copy_from_slice(&packed[6..]);
        let id = Self { ms: u64::from_be_bytes(ms), seq: u64::from_be_bytes(seq) };
        (id != Self { ms: 0, seq: 0 }).then_some(id)
    }
}

impl std::str::FromStr for EntryId {
    type Err = HeadError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (ms, seq) = text.split_once('-').ok_or(HeadError::EntryId)?;
        let number = |digits: &str| digits.parse().map_err(|_| HeadError::EntryId);
        Ok(Self { ms: number(ms)?, seq: number(seq)? })
    }
}

impl fmt::Display for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.ms, self.seq)
    }
}

/// Where a job stands, and what happened to it so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// The structure that holds the job.
    pub place: Place,
    /// The entry it stands in (a stream of jobs or of dead letters); `None` in a zset.
    pub entry: Option<EntryId>,
    /// Failed attempts so far.
    pub attempts: u8,
    /// How often a worker stopped working on it without settling.
    pub stalls: u8,
    /// Version of its content.
    pub version: Version,
    /// The import it counts for.
    pub import: Option<ImportId>,
    /// Its priority: 1 is first; 0 when it has none.
    pub priority: u32,
    /// Value it is grouped by; empty when it is in no group.
    pub group: Vec<u8>,
}

/// Why a head cannot be read.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum HeadError {
    /// The value is shorter than a head.
    #[error("{bytes} bytes are shorter than a head")]
    TooShort {
        /// Length of the value.
        bytes: usize,
    },
    /// The first byte names no place.
    #[error("unknown place {byte:#04x}")]
    Place {
        /// That byte.
        byte: u8,
    },
    /// Not of the form `<ms>-<seq>`.
    #[error("not an entry id")]
    EntryId,
}

impl Head {
    /// A head of a job that has not been tried yet.
    pub fn new(place: Place, entry: Option<EntryId>, version: Version, import: Option<ImportId>) -> Self {
        Self { place, entry, attempts: 0, stalls: 0, version, import, priority: 0, group: Vec::new() }
    }

    /// Reads the front of a job's value.
    ///
    /// # Errors
    /// [`HeadError`] when it is too short or names no place.
    pub fn decode(value: &[u8]) -> Result<Self, HeadError> {
        let too_short = || HeadError::TooShort { bytes: value.len() };
        let fixed: &[u8; HEAD_BYTES] = value.first_chunk().ok_or_else(too_short)?;
        let field = |at: usize| -> [u8; 8] { std::array::from_fn(|i| fixed[at + i]) };
        let place = Place::from_byte(fixed[0]).ok_or(HeadError::Place { byte: fixed[0] })?;
        let entry = EntryId::unpack(std::array::from_fn(|i| fixed[1 + i]));
        let extras = value.get(HEAD_BYTES..HEAD_BYTES + usize::from(fixed[29])).ok_or_else(too_short)?;
        let (priority, group) = match extras.split_first_chunk() {
            Some((priority, group)) => (u32::from_be_bytes(*priority), group),
            None => (0, &[][..]),
        };
        Ok(Self {
            place,
            entry,
            attempts: fixed[11],
            stalls: fixed[12],
            version: Version::from_bytes(field(13)),
            import: ImportId::from_bytes(field(21)),
            priority,
            group: group.to_vec(),
        })
    }

    /// Length of the head with its extras, in bytes: where the envelope begins.
    #[expect(clippy::len_without_is_empty, reason = "a head is never empty")]
    pub fn len(&self) -> usize {
        HEAD_BYTES + if self.priority == 0 && self.group.is_empty() { 0 } else { 4 + self.group.len() }
    }

    /// The bytes that [`Head::decode`] reads; in production only scripts write heads.
    #[cfg(test)]
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![self.place as u8];
        bytes.extend(self.entry.map_or([0; 10], |entry| entry.packed().expect("an id that Redis generated")));
        bytes.extend([self.attempts, self.stalls]);
        bytes.extend(self.version.to_bytes());
        bytes.extend(self.import.map_or([0; 8], ImportId::to_bytes));
        bytes.extend(extras(self.priority, &self.group));
        bytes
    }
}

/// The extras of a head with their length in front: priority (0 none) and group, which is cut after
/// [`GROUP_BYTES_MAX`].
pub fn extras(priority: u32, group: &[u8]) -> Vec<u8> {
    if priority == 0 && group.is_empty() {
        return vec![0];
    }
    let group = &group[..group.len().min(GROUP_BYTES_MAX)];
    let mut bytes = Vec::with_capacity(5 + group.len());
    bytes.push((4 + group.len()) as u8);
    bytes.extend(priority.to_be_bytes());
    bytes.extend(group);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The layout is a contract with the scripts and with every Redis that holds jobs: it may only grow a new version.
    #[test]
    fn the_layout_is_golden() {
        let head = Head {
            place: Place::Stream,
            entry: Some(EntryId { ms: 0x0001_a20b_3c4d, seq: 7 }),
            attempts: 2,
            stalls: 1,
            version: Version(0x0006_60f1_a2b3_c4d5),
            import: ImportId::from_bytes([0, 6, 0x60, 0xf1, 0, 0, 0, 9]),
            priority: 3,
            group: b"g".to_vec(),
        };
        let golden: &[u8] = &[
            b's', 0x00, 0x01, 0xa2, 0x0b, 0x3c, 0x4d, 0, 0, 0, 7, 2, 1, 0, 6, 0x60, 0xf1, 0xa2, 0xb3, 0xc4, 0xd5, 0, 6,
            0x60, 0xf1, 0, 0, 0, 9, 5, 0, 0, 0, 3, b'g',
        ];
        assert_eq!(head.encode(), golden);
        assert_eq!(Head::decode(golden), Ok(head));
    }

    #[test]
    fn damaged_heads_are_refused() {
        assert_eq!(Head::decode(b"s"), Err(HeadError::TooShort { bytes: 1 }));
        assert_eq!(Head::decode(&[b'?'; 40]), Err(HeadError::Place { byte: b'?' }));
        let mut long_group = Head::new(Place::Dead, None, Version(1), None).encode();
        long_group[29] = 200;
        assert_eq!(Head::decode(&long_group), Err(HeadError::TooShort { bytes: 30 }));
    }

    #[test]
    fn an_entry_id_that_redis_would_not_generate_does_not_pack() {
        assert_eq!("5-1".parse(), Ok(EntryId { ms: 5, seq: 1 }));
        assert!("5".parse::<EntryId>().is_err());
        assert_eq!(EntryId { ms: 5, seq: 1 << 32 }.packed(), None);
        assert_eq!(EntryId { ms: 1 << 48, seq: 1 }.packed(), None);
    }
}
