//! The body of an answer, and the room for large ones.
//!
//! A body, the document that is parsed from it and its items together take several times the size of the feed. So only a
//! few large bodies are in memory at a time, as many as can be worked on at once; the others wait with what they have read.
//! That bounds the memory of a worker, whatever the size of its feeds, and costs nothing where feeds are small.

use std::io::{ErrorKind, Read};
use std::ops::Deref;
use std::sync::Arc;

use flate2::read::{DeflateDecoder, ZlibDecoder};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A body that grows beyond this is large.
const LARGE_BYTES: usize = 1024 * 1024;

/// A decoded body. While it or its [`Room`] lives, a large one keeps the next from being read.
#[derive(Clone, Debug, Default)]
pub struct Body {
    bytes: Vec<u8>,
    is_cut_off: bool,
    room: Room,
}

/// The room that a body takes, to be held for as long as what was made of it is in memory.
#[derive(Clone, Debug, Default)]
pub struct Room(Option<Arc<OwnedSemaphorePermit>>);

/// Why a body could not be unpacked.
#[derive(Clone, Copy, Debug)]
pub(super) enum Inflating {
    /// It would be over the limit.
    TooLarge,
    /// It is nothing that is packed.
    Broken,
}

/// Gives room to large bodies.
#[derive(Clone, Debug)]
pub(super) struct Rooms(Arc<Semaphore>);

impl Rooms {
    /// Room for one large body per two cores: the other one is busy with what was enqueued, here or at the servers.
    pub(super) fn new() -> Self {
        Self(Arc::new(Semaphore::new(rooms())))
    }
}

/// Large bodies that may be in memory at a time.
pub(super) fn rooms() -> usize {
    std::thread::available_parallelism().map_or(1, |cores| cores.get().div_ceil(2))
}

impl Body {
    pub(super) fn with_capacity(bytes: usize) -> Self {
        Self { bytes: Vec::with_capacity(bytes.min(LARGE_BYTES)), ..Self::default() }
    }

    /// Whether adding `bytes` more has to wait for [`Body::wait_for_room`].
    pub(super) fn needs_room_for(&self, bytes: usize) -> bool {
        self.room.0.is_none() && self.bytes.len() + bytes > LARGE_BYTES
    }

    /// Waits until there is room for one more large body.
    pub(super) async fn wait_for_room(&mut self, rooms: &Rooms) {
        let permit = rooms.0.clone().acquire_owned().await;
        self.room = Room(Some(Arc::new(permit.expect("the semaphore is never closed"))));
    }

    pub(super) fn push(&mut self, chunk: &[u8]) {
        self.bytes.extend_from_slice(chunk);
    }

    /// Notes that what was packed ends in the middle, or breaks there.
    pub(super) fn cut_off(mut self) -> Self {
        self.is_cut_off = true;
        self
    }

    /// Whether it ends in the middle: the server keeps, or packs, only part of the document.
    pub fn is_cut_off(&self) -> bool {
        self.is_cut_off
    }

    /// What it holds in packed form: zlib, as the standard has it, or bare deflate, as some servers read it. Of one that
    /// is cut off there is what could be unpacked.
    pub(super) fn inflated(self, limit_bytes: u64) -> Result<Self, Inflating> {
        let unpack = |decoder: &mut dyn Read| {
            let mut bytes = Vec::new();
            let read = decoder.take(limit_bytes + 1).read_to_end(&mut bytes);
            let is_cut_off = read.as_ref().is_err_and(|error| error.kind() == ErrorKind::UnexpectedEof);
            (read.is_ok() || is_cut_off && !bytes.is_empty()).then_some((bytes, is_cut_off))
        };
        let (bytes, is_cut_off) = unpack(&mut ZlibDecoder::new(&*self.bytes))
            .or_else(|| unpack(&mut DeflateDecoder::new(&*self.bytes)))
            .ok_or(Inflating::Broken)?;
        if bytes.len() as u64 > limit_bytes {
            Err(Inflating::TooLarge)
        } else {
            Ok(Self { bytes, is_cut_off, room: self.room })
        }
    }

    /// The room it takes.
    pub fn room(&self) -> Room {
        self.room.clone()
    }
}

impl Deref for Body {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl PartialEq for Body {
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes && self.is_cut_off == other.is_cut_off
    }
}

impl Eq for Body {}

impl From<&str> for Body {
    fn from(text: &str) -> Self {
        Self { bytes: text.into(), ..Self::default() }
    }
}
