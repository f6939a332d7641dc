//! Bodies packed without a header that says so: gzip and zlib, told by their first bytes.
//!
//! A server that sends its stored `.gz` file as it is, or forgets `Content-Encoding`, is read all the same.

use std::borrow::Cow;
use std::io::Read;

use flate2::read::{MultiGzDecoder, ZlibDecoder};

use super::ParseError;

/// Largest unpacked body: what a fetched one may have too.
const UNPACKED_MAX_BYTES: usize = 32 * 1024 * 1024;

/// How a stream of zlib starts: deflate with a window of 32 KiB, and each level of compression.
const ZLIB_STARTS: &[[u8; 2]] = &[[0x78, 0x01], [0x78, 0x5e], [0x78, 0x9c], [0x78, 0xda]];

/// A body, and whether it stops in the middle.
pub(super) struct Unpacked<'a> {
    pub(super) bytes: Cow<'a, [u8]>,
    pub(super) is_cut: bool,
}

/// Unpacks `body`, or lends it as it is when it is not packed.
///
/// Of a stream that stops or breaks in the middle there is what could be unpacked.
///
/// # Errors
/// [`ParseError::TooComplex`] when it would be larger than [`UNPACKED_MAX_BYTES`].
pub(super) fn unpack(body: &[u8]) -> Result<Unpacked<'_>, ParseError> {
    if body.starts_with(&[0x1f, 0x8b]) {
        read(MultiGzDecoder::new(body))
    } else if ZLIB_STARTS.iter().any(|start| body.starts_with(start)) {
        read(ZlibDecoder::new(body))
    } else {
        Ok(Unpacked { bytes: Cow::Borrowed(body), is_cut: false })
    }
}

fn read(decoder: impl Read) -> Result<Unpacked<'static>, ParseError> {
    let mut bytes = Vec::new();
    let end = decoder.take(UNPACKED_MAX_BYTES as u64 + 1).read_to_end(&mut bytes);
    if bytes.len() > UNPACKED_MAX_BYTES {
        return Err(ParseError::TooComplex { what: "bytes once unpacked", limit: UNPACKED_MAX_BYTES });
    }
    Ok(Unpacked { bytes: Cow::Owned(bytes), is_cut: end.is_err() })
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, repeat};

    use flate2::Compression;
    use flate2::read::{GzEncoder, ZlibEncoder};

    use super::{UNPACKED_MAX_BYTES, unpack};
    use crate::feed::parse::ParseError;

    fn packed(mut encoder: impl std::io::Read) -> Vec<u8> {
        let mut bytes = Vec::new();
        encoder.read_to_end(&mut bytes).expect("memory can be read");
        bytes
    }

    #[test]
    fn gzip_and_zlib_are_unpacked_and_text_is_lent() {
        let text = b"<rss/>".as_slice();
        for level in [Compression::none(), Compression::fast(), Compression::default(), Compression::best()] {
            for body in [packed(GzEncoder::new(text, level)), packed(ZlibEncoder::new(text, level))] {
                let unpacked = unpack(&body).expect("is small");
                assert_eq!((&*unpacked.bytes, unpacked.is_cut), (text, false));
            }
        }
        assert!(matches!(unpack(text).expect("is small").bytes, std::borrow::Cow::Borrowed(_)));
    }

    #[test]
    fn a_stream_that_stops_gives_what_there_is() {
        let text = "<rss>many words of one feed</rss>".repeat(1000);
        let body = packed(GzEncoder::new(text.as_bytes(), Compression::none()));
        let unpacked = unpack(&body[..body.len() / 2]).expect("is small");
        assert!(unpacked.is_cut);
        assert!(unpacked.bytes.len() > 1000 && text.as_bytes().starts_with(&unpacked.bytes));
    }

    #[test]
    fn a_bomb_is_refused() {
        let bomb = packed(GzEncoder::new(repeat(b' ').take(UNPACKED_MAX_BYTES as u64 + 1), Compression::fast()));
        assert!(matches!(unpack(&bomb), Err(ParseError::TooComplex { .. })));
    }
}
