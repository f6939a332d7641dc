//! The envelope: what a job is, as it stands behind the head in the job's key.
//!
//! A MessagePack array `[payload, fingerprint, enqueued at (ms), name, feed, options, traceparent]` whose absent tail is left
//! out, so a bare payload costs 4 bytes. That the first element is a byte string says that it is version 1; a later version begins
//! with its number. Nothing that the key or the head already says stands here.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Deserialize;
use serde_bytes::{ByteArray, Bytes};

/// What a producer hands in, borrowed.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Envelope<'a> {
    /// Any bytes.
    pub payload: &'a [u8],
    /// Fingerprint of the content, to tell a changed item from an unchanged one.
    pub fingerprint: Option<[u8; 7]>,
    /// When it was enqueued, to the millisecond; `None` when the version says it.
    pub enqueued_at: Option<SystemTime>,
    /// Kind of work, for queues that carry several.
    pub name: Option<&'a str>,
    /// Name of the feed whose seen map holds a record of this job: whoever discards the job makes that record forget it.
    pub feed: Option<&'a str>,
    /// Its own options, as [`super::JobOptions::encode`] makes them; `None`, or no bytes, when it has none.
    pub options: Option<&'a [u8]>,
    /// The span that enqueued it, as the header `traceparent` of W3C Trace Context has it; only where traces are sent.
    pub traceparent: Option<&'a str>,
}

/// Why an envelope cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("not an envelope of version 1")]
pub struct EnvelopeError(#[from] rmp_serde::decode::Error);

impl<'a> Envelope<'a> {
    /// Appends the envelope to `value`, which holds the head or is empty.
    #[expect(clippy::missing_panics_doc, reason = "writing to memory does not fail")]
    pub fn encode_into(&self, value: &mut Vec<u8>) {
        value.reserve(self.payload.len() + 32);
        let payload = Bytes::new(self.payload);
        let fingerprint = self.fingerprint.map(ByteArray::new);
        let millis = self.enqueued_at.map(|at| at.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64);
        let Self { name, feed, traceparent, .. } = *self;
        let options = self.options.filter(|options| !options.is_empty()).map(Bytes::new);
        if traceparent.is_some() {
            rmp_serde::encode::write(value, &(payload, fingerprint, millis, name, feed, options, traceparent))
        } else if options.is_some() {
            rmp_serde::encode::write(value, &(payload, fingerprint, millis, name, feed, options))
        } else if feed.is_some() {
            rmp_serde::encode::write(value, &(payload, fingerprint, millis, name, feed))
        } else if name.is_some() {
            rmp_serde::encode::write(value, &(payload, fingerprint, millis, name))
        } else if millis.is_some() {
            rmp_serde::encode::write(value, &(payload, fingerprint, millis))
        } else if fingerprint.is_some() {
            rmp_serde::encode::write(value, &(payload, fingerprint))
        } else {
            rmp_serde::encode::write(value, &(payload,))
        }
        .expect("writing to memory does not fail");
    }

    /// The payload in the front of an envelope, as far as it is there; `None` where `front` does not begin one.
    pub(crate) fn payload_front(front: &'a [u8]) -> Option<&'a [u8]> {
        let ([0x91..=0x97, kind @ 0xc4..=0xc6], rest) = front.split_first_chunk()? else { return None };
        let width = 1 << (kind - 0xc4); // bytes of its length
        let (length, payload) = rest.split_at_checked(width)?;
        let length = length.iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
        Some(&payload[..payload.len().min(length)])
    }

    /// Reads an envelope, borrowing from `bytes`.
    ///
    /// # Errors
    /// [`EnvelopeError`] for damaged bytes and for a later version.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, EnvelopeError> {
        let Wire(payload, fingerprint, millis, name, feed, options, traceparent) = rmp_serde::from_slice(bytes)?;
        Ok(Self {
            payload,
            fingerprint: fingerprint.map(ByteArray::into_array),
            enqueued_at: millis.map(|millis| UNIX_EPOCH + Duration::from_millis(millis)),
            name,
            feed,
            options: options.map(|options| options as &[u8]),
            traceparent,
        })
    }
}

/// The array as it is read: what is missing at its end is `None`.
#[derive(Deserialize)]
struct Wire<'a>(
    #[serde(borrow, with = "serde_bytes")] &'a [u8],
    #[serde(default)] Option<ByteArray<7>>,
    #[serde(default)] Option<u64>,
    #[serde(default, borrow)] Option<&'a str>,
    #[serde(default, borrow)] Option<&'a str>,
    #[serde(default, borrow)] Option<&'a Bytes>,
    #[serde(default, borrow)] Option<&'a str>,
);

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(envelope: Envelope<'_>) -> Vec<u8> {
        let mut bytes = Vec::new();
        envelope.encode_into(&mut bytes);
        bytes
    }

    /// Jobs wait in Redis across upgrades, so these bytes must stay readable for ever.
    #[test]
    fn the_bytes_are_golden() {
        let bare = Envelope { payload: b"hi", ..Envelope::default() };
        assert_eq!(encoded(bare), b"\x91\xc4\x02hi");
        let full = Envelope {
            payload: b"hi",
            fingerprint: Some(*b"1234567"),
            enqueued_at: Some(UNIX_EPOCH + Duration::from_millis(1_795_492_693_614)),
            name: Some("item"),
            feed: Some("jobs"),
            options: None,
            traceparent: None,
        };
        let golden = b"\x95\xc4\x02hi\xc4\x071234567\xcf\x00\x00\x01\xa2\x0b\xb4\x46\x6e\xa4item\xa4jobs";
        assert_eq!(encoded(full), golden);
        let traced = Envelope { payload: b"hi", traceparent: Some("00-1-2-01"), ..Envelope::default() };
        assert_eq!(encoded(traced), b"\x97\xc4\x02hi\xc0\xc0\xc0\xc0\xc0\xa900-1-2-01");
    }

    #[test]
    fn every_combination_reads_back() {
        let payload = vec![7; 600];
        for bits in 0..64_u8 {
            let envelope = Envelope {
                payload: &payload,
                fingerprint: (bits & 1 != 0).then_some([0xfe; 7]),
                enqueued_at: (bits & 2 != 0).then_some(UNIX_EPOCH + Duration::from_millis(5)),
                name: (bits & 4 != 0).then_some("n"),
                feed: (bits & 8 != 0).then_some("f"),
                options: (bits & 16 != 0).then_some(&[0x81][..]),
                traceparent: (bits & 32 != 0).then_some("t"),
            };
            assert_eq!(Envelope::decode(&encoded(envelope)).expect("readable"), envelope);
        }
    }

    #[test]
    fn a_bare_payload_of_600_bytes_fits_the_allocators_class_with_its_head() {
        let len = encoded(Envelope { payload: &[0; 600], ..Envelope::default() }).len();
        assert_eq!(super::super::head::HEAD_BYTES + len, 634);
    }

    #[test]
    fn the_front_of_a_payload_is_found_in_the_front_of_its_envelope() {
        for bytes in [0, 1, 255, 256, 65_535, 65_536] {
            let payload = vec![7; bytes];
            let whole = encoded(Envelope { payload: &payload, name: Some("n"), ..Envelope::default() });
            assert_eq!(Envelope::payload_front(&whole), Some(&payload[..]));
            let front = &whole[..whole.len().min(100)];
            assert!(payload.starts_with(Envelope::payload_front(front).expect("there is one")), "{bytes}");
        }
        for other in [&b""[..], b"\x91", b"\x91\xc6\0\0", b"\x92\x02\xc4\x02hi", b"hi"] {
            assert_eq!(Envelope::payload_front(other), None, "{other:?}");
        }
    }

    #[test]
    fn another_version_and_damaged_bytes_are_refused() {
        assert!(Envelope::decode(b"\x92\x02\xc4\x02hi").is_err(), "a later version begins with its number");
        assert!(Envelope::decode(b"\x91\xc4\x09hi").is_err());
        assert!(Envelope::decode(b"").is_err());
    }
}
