//! Bytes of a feed → text, in whatever encoding they came.
//!
//! Order of belief: byte order mark, XML declaration, HTTP `charset`, the bytes themselves. The declaration goes before
//! the HTTP header because web servers add a default charset to files they know nothing about.
//!
//! What is declared may be wrong, and the bytes tell: valid UTF-8 with a character beyond ASCII is UTF-8, since nobody
//! writes that by accident in another encoding; and what is mostly invalid as UTF-8 is not UTF-8. A few invalid bytes in
//! otherwise good UTF-8 become U+FFFD: one bad byte does not cost the whole feed.

use std::borrow::Cow;

use chardetng::{EncodingDetector, Iso2022JpDetection, Utf8Detection};
use encoding_rs::{Encoding, UTF_8, UTF_16BE, UTF_16LE};

/// How far into a document its XML declaration is looked for; it has to stand first, and is short.
const DECLARATION_MAX_BYTES: usize = 512;

/// How much is looked at to guess an encoding, from the first byte on that is not ASCII.
const GUESS_MAX_BYTES: usize = 256 * 1024;

/// How many characters of UTF-8 there must be for each byte that is not, for a declaration of something else to be wrong.
const VALID_PER_INVALID: usize = 8;

/// Decodes `body`; borrows when it is already valid UTF-8.
///
/// `content_type` is the HTTP header as received, with or without a `charset`.
pub(super) fn decode<'a>(body: &'a [u8], content_type: Option<&str>) -> Cow<'a, str> {
    if let Some(text) = utf_32(body) {
        return Cow::Owned(text);
    }
    if let Some((encoding, bom_length)) = Encoding::for_bom(body) {
        return encoding.decode_without_bom_handling(&body[bom_length..]).0;
    }
    if let Some(encoding) = wide_without_bom(body) {
        return encoding.decode_without_bom_handling(body).0;
    }
    // One that says UTF-16 is not believed: the start of the document was just read as single bytes.
    let is_narrow = |encoding: &&'static Encoding| *encoding != UTF_16LE && *encoding != UTF_16BE;
    let http = || content_type.and_then(http_charset).filter(is_narrow);
    let declared = declared(body).filter(is_narrow).or_else(http);
    let is_declared_escaped = declared.is_some_and(|encoding| !encoding.is_ascii_compatible());
    if let (false, Ok(text)) = (is_declared_escaped, std::str::from_utf8(body)) {
        return Cow::Borrowed(text);
    }
    let encoding = match declared {
        Some(encoding) if encoding != UTF_8 && !is_utf_8_with_errors(body, VALID_PER_INVALID) => encoding,
        Some(encoding) if encoding != UTF_8 => UTF_8,
        _ if is_utf_8_with_errors(body, 1) => UTF_8,
        _ => guess(body),
    };
    encoding.decode_without_bom_handling(body).0
}

/// UTF-32, with its mark or starting with `<`.
fn utf_32(body: &[u8]) -> Option<String> {
    let number: fn([u8; 4]) -> u32 = match body {
        [0xff, 0xfe, 0, 0, ..] | [b'<', 0, 0, 0, ..] => u32::from_le_bytes,
        [0, 0, 0xfe, 0xff, ..] | [0, 0, 0, b'<', ..] => u32::from_be_bytes,
        _ => return None,
    };
    let (quads, _) = body.as_chunks::<4>();
    let characters = quads.iter().map(|quad| char::from_u32(number(*quad)).unwrap_or(char::REPLACEMENT_CHARACTER));
    Some(characters.skip_while(|c| *c == '\u{feff}').collect())
}

/// UTF-16 without a mark: a document starts with `<`, so its first two bytes tell the order.
fn wide_without_bom(body: &[u8]) -> Option<&'static Encoding> {
    match body {
        [b'<', 0, ..] => Some(UTF_16LE),
        [0, b'<', ..] => Some(UTF_16BE),
        _ => None,
    }
}

/// The `encoding` of the XML declaration.
fn declared(body: &[u8]) -> Option<&'static Encoding> {
    let start = &body[..body.len().min(DECLARATION_MAX_BYTES)];
    let start = start.trim_ascii_start().strip_prefix(b"<?xml")?;
    let end = start.windows(2).position(|pair| pair == b"?>")?;
    let declaration = std::str::from_utf8(&start[..end]).ok()?;
    let (_, value) = declaration.split_once("encoding")?;
    let value = value.trim_start().strip_prefix('=')?.trim_start();
    let quote = value.chars().next().filter(|c| matches!(c, '"' | '\''))?;
    let label = value[1..].split(quote).next()?;
    Encoding::for_label(label.as_bytes())
}

/// The `charset` parameter of a `Content-Type` header.
fn http_charset(content_type: &str) -> Option<&'static Encoding> {
    content_type.split(';').skip(1).find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        let is_charset = name.trim().eq_ignore_ascii_case("charset");
        is_charset.then(|| Encoding::for_label(value.trim().trim_matches(['"', '\'']).as_bytes()))?
    })
}

/// Whether characters beyond ASCII are valid UTF-8 at least `times` as often as not.
fn is_utf_8_with_errors(body: &[u8], times: usize) -> bool {
    let (mut valid, mut invalid) = (0, 0);
    for chunk in body.utf8_chunks() {
        valid += chunk.valid().bytes().filter(|byte| *byte >= 0xc0).count();
        invalid += usize::from(!chunk.invalid().is_empty());
    }
    valid >= invalid * times
}

/// The encoding that the bytes look like.
fn guess(body: &[u8]) -> &'static Encoding {
    let start = body.iter().position(|byte| !byte.is_ascii()).unwrap_or(0);
    let sample = &body[start..body.len().min(start + GUESS_MAX_BYTES)];
    let mut detector = EncodingDetector::new(Iso2022JpDetection::Deny);
    detector.feed(sample, true);
    detector.guess(None, Utf8Detection::Deny)
}

#[cfg(test)]
mod tests {
    use super::decode;

    #[test]
    fn a_byte_order_mark_wins_over_everything() {
        let body = b"\xEF\xBB\xBF<?xml version='1.0' encoding='iso-8859-1'?><a>\xC3\xA9</a>";
        assert!(decode(body, Some("text/xml; charset=windows-1251")).ends_with("<a>é</a>"));
    }

    #[test]
    fn the_declaration_wins_over_the_http_charset() {
        let body = b"<?xml version=\"1.0\" encoding = \"ISO-8859-1\" ?><a>\xE9</a>";
        assert!(decode(body, Some("text/xml; charset=utf-8")).ends_with("<a>é</a>"));
    }

    #[test]
    fn the_http_charset_is_used_where_nothing_is_declared() {
        assert_eq!(decode(b"<a>\xCF</a>", Some("application/rss+xml; Charset=\"windows-1251\"")), "<a>П</a>");
        assert_eq!(decode("<a>П</a>".as_bytes(), Some("text/xml")), "<a>П</a>");
        assert_eq!(decode("<a>П</a>".as_bytes(), Some("text/xml; charset=no-such")), "<a>П</a>");
    }

    #[test]
    fn wide_encodings_are_read_with_and_without_their_mark() {
        let text = "<?xml version=\"1.0\"?><a>é</a>";
        let units = || text.encode_utf16();
        let little: Vec<u8> = units().flat_map(u16::to_le_bytes).collect();
        let big: Vec<u8> = units().flat_map(u16::to_be_bytes).collect();
        let little_32: Vec<u8> = text.chars().flat_map(|c| u32::from(c).to_le_bytes()).collect();
        let big_32: Vec<u8> = text.chars().flat_map(|c| u32::from(c).to_be_bytes()).collect();
        for (mark, body) in [
            (b"\xFF\xFE".as_slice(), &little),
            (b"\xFE\xFF", &big),
            (b"\xFF\xFE\0\0", &little_32),
            (b"\0\0\xFE\xFF", &big_32),
        ] {
            assert_eq!(decode(body, None), text);
            assert_eq!(decode(&[mark, body].concat(), None), text);
        }
    }

    #[test]
    fn a_declaration_of_utf_16_over_single_bytes_is_not_believed() {
        let body = "<?xml version=\"1.0\" encoding=\"utf-16\"?><a>é</a>".as_bytes();
        assert!(decode(body, None).ends_with("<a>é</a>"));
    }

    #[test]
    fn one_bad_byte_costs_one_character() {
        assert_eq!(decode(b"<a>caf\xE9 \xC3\xA9</a>", None), "<a>caf\u{FFFD} é</a>");
    }

    #[test]
    fn a_declaration_that_lies_is_found_out() {
        let is_utf_8 = "<?xml version='1.0' encoding='iso-8859-1'?><a>Größe – €</a>";
        assert_eq!(decode(is_utf_8.as_bytes(), None), is_utf_8);
        let with_a_bad_byte = [is_utf_8.replace("Größe", "ÄÖÜäöü").as_bytes(), b"\xE9"].concat();
        assert!(decode(&with_a_bad_byte, None).ends_with("<a>ÄÖÜäöü – €</a>\u{FFFD}"));
        let is_latin = b"<?xml version='1.0' encoding='utf-8'?><a>Gr\xF6\xDFe und Stra\xDFe</a>";
        assert!(decode(is_latin, None).ends_with("<a>Größe und Straße</a>"));
    }

    #[test]
    fn what_declares_nothing_is_guessed() {
        let russian = "<rss><title>Новости высоких технологий и науки</title></rss>";
        let (bytes, _, _) = encoding_rs::WINDOWS_1251.encode(russian);
        assert_eq!(decode(&bytes, None), russian);
        let japanese = "<rss><title>これは日本語のフィードです</title></rss>";
        let (bytes, _, _) = encoding_rs::SHIFT_JIS.encode(japanese);
        assert_eq!(decode(&bytes, None), japanese);
    }
}
