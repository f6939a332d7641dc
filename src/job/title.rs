//! The title of a job: what people call it, where its payload says so.
//!
//! Payloads belong to whoever made them, and may be large, so this reads the front of one and takes what it finds: a map, as
//! JSON or MessagePack, with a text `title` at its top level. Items are such maps; their title stands near the front.

use std::fmt;

use serde::Deserializer as _;
use serde::de::{IgnoredAny, MapAccess, Visitor};

/// Bytes of a payload that are looked at.
pub(crate) const TITLE_WITHIN_BYTES: usize = 4096;
/// Longest title, in characters; a longer one is cut and ends with `…`.
const TITLE_CHARS_MAX: usize = 200;

/// The title in a payload, or in the front of one; `None` when it has none, or none that ends within
/// [`TITLE_WITHIN_BYTES`].
pub(crate) fn title_of(payload: &[u8]) -> Option<String> {
    let front = &payload[..payload.len().min(TITLE_WITHIN_BYTES)];
    let mut title = Title(None);
    // Either fails where the front was cut, or at once when the payload is of the other kind; what was read before that counts.
    let _ = serde_json::Deserializer::from_slice(front).deserialize_map(&mut title);
    if title.0.is_none() {
        let _ = rmp_serde::Deserializer::from_read_ref(front).deserialize_any(&mut title);
    }
    let text = title.0?;
    let text = text.trim();
    match text.char_indices().nth(TITLE_CHARS_MAX) {
        _ if text.is_empty() => None,
        None => Some(text.to_owned()),
        Some(_) => Some(text.chars().take(TITLE_CHARS_MAX - 1).chain(['…']).collect()),
    }
}

/// Reads a map as far as its `title`.
struct Title(Option<String>);

impl<'de> Visitor<'de> for &mut Title {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<String>()? {
            if key == "title" {
                self.0 = Some(map.next_value()?);
                return Ok(());
            }
            map.next_value::<IgnoredAny>()?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_title_is_read_from_json_and_messagepack_wherever_the_front_is_cut_behind_it() {
        let payload = json!({ "id": [1, { "title": "not this one" }], "title": "Gärtner", "zone": "x".repeat(10_000) });
        for bytes in [serde_json::to_vec(&payload).unwrap(), rmp_serde::to_vec_named(&payload).unwrap()] {
            assert_eq!(title_of(&bytes).as_deref(), Some("Gärtner"));
            let end = bytes.windows(3).position(|part| part == b"ner").unwrap() + 3;
            assert_eq!(title_of(&bytes[..=end]).as_deref(), Some("Gärtner"));
            for cut in 0..end {
                assert_eq!(title_of(&bytes[..cut]), None, "cut at {cut}");
            }
        }
    }

    #[test]
    fn what_is_no_text_of_a_map_is_no_title() {
        for payload in
            [json!(null), json!("title"), json!(["title", "x"]), json!({ "title": 5 }), json!({ "title": null })]
        {
            assert_eq!(title_of(&serde_json::to_vec(&payload).unwrap()), None, "{payload}");
            assert_eq!(title_of(&rmp_serde::to_vec_named(&payload).unwrap()), None, "{payload}");
        }
        for payload in [&b""[..], b"{", b"hi", b"\xff\xff", br#"{"title": "  "}"#, b"\xc1"] {
            assert_eq!(title_of(payload), None, "{payload:?}");
        }
    }

    #[test]
    fn a_long_title_is_cut_and_one_beyond_the_front_is_not_looked_for() {
        let long = title_of(json!({ "title": "ä".repeat(500) }).to_string().as_bytes()).unwrap();
        assert!(long.chars().count() == TITLE_CHARS_MAX && long.ends_with('…'), "{long}");
        let far = json!({ "a": "x".repeat(TITLE_WITHIN_BYTES), "title": "far" });
        assert_eq!(title_of(far.to_string().as_bytes()), None);
    }
}
