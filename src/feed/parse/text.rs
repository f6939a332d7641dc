//! Bytes of a feed → text, in whatever encoding they came.
//!
//! Order of belief: byte order mark, XML declaration, HTTP `charset`, UTF-8. The declaration goes before the HTTP
//! header because web servers add a default charset to files they know nothing about.
//!
//! Bytes that are invalid in the chosen encoding become U+FFFD: one bad byte does not cost the whole feed.

use std::borrow::Cow;

use encoding_rs::{Encoding, UTF_8, UTF_16BE, UTF_16LE};

/// How far into a document its XML declaration is looked for; it has to stand first, and is short.
const DECLARATION_MAX_BYTES: usize = 512;

/// Decodes `body`; borrows when it is already valid UTF-8.
///
/// `content_type` is the HTTP header as received, with or without a `charset`.
pub(super) fn decode<'a>(body: &'a [u8], content_type: Option<&str>) -> Cow<'a, str> {
    let (encoding, bom_length) = Encoding::for_bom(body).unwrap_or_else(|| {
        let encoding = wide_without_bom(body)
            .or_else(|| declared(body))
            .or_else(|| content_type.and_then(http_charset))
            .unwrap_or(UTF_8);
        (encoding, 0)
    });
    let (text, _had_errors) = encoding.decode_without_bom_handling(&body[bom_length..]);
    text
}

/// UTF-16 without a mark: a document starts with `<`, so its first two bytes tell the order.
fn wide_without_bom(body: &[u8]) -> Option<&'static Encoding> {
    match body {
        [b'<', 0, ..] => Some(UTF_16LE),
        [0, b'<', ..] => Some(UTF_16BE),
        _ => None,
    }
}

/// The `encoding` of the XML declaration. One that says UTF-16 is not believed: it was just read as single bytes.
fn declared(body: &[u8]) -> Option<&'static Encoding> {
    let start = &body[..body.len().min(DECLARATION_MAX_BYTES)];
    let start = start.trim_ascii_start().strip_prefix(b"<?xml")?;
    let end = start.windows(2).position(|pair| pair == b"?>")?;
    let declaration = std::str::from_utf8(&start[..end]).ok()?;
    let (_, value) = declaration.split_once("encoding")?;
    let value = value.trim_start().strip_prefix('=')?.trim_start();
    let quote = value.chars().next().filter(|c| matches!(c, '"' | '\''))?;
    let label = value[1..].split(quote).next()?;
    Encoding::for_label(label.as_bytes()).filter(|encoding| *encoding != UTF_16LE && *encoding != UTF_16BE)
}

/// The `charset` parameter of a `Content-Type` header.
fn http_charset(content_type: &str) -> Option<&'static Encoding> {
    content_type.split(';').skip(1).find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        let is_charset = name.trim().eq_ignore_ascii_case("charset");
        is_charset.then(|| Encoding::for_label(value.trim().trim_matches(['"', '\'']).as_bytes()))?
    })
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
    fn utf_16_is_read_with_and_without_its_mark() {
        let little: Vec<u8> = "<?xml version=\"1.0\"?><a>é</a>".encode_utf16().flat_map(u16::to_le_bytes).collect();
        let big: Vec<u8> = "<?xml version=\"1.0\"?><a>é</a>".encode_utf16().flat_map(u16::to_be_bytes).collect();
        assert!(decode(&little, None).ends_with("<a>é</a>"));
        assert!(decode(&big, None).ends_with("<a>é</a>"));
        let marked: Vec<u8> = [b"\xFF\xFE".as_slice(), &little].concat();
        assert!(decode(&marked, None).starts_with("<?xml"));
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
}
