//! Refuses documents made to be expensive, before a tree is built from them.
//!
//! The XML parser is quadratic in the attributes of one element (100,000 of them, 1 MB: 13 s), cubic in nested
//! namespace declarations, and expands entities without a limit on the result (a few kilobytes became 784 MB).
//! One pass over the bytes bounds all of them. What is merely malformed is left to the parser, which says where.
//!
//! What is written once and read many times (a base, a prefix, a feed's author) could multiply too; it is bounded where
//! it is used.

use memchr::{memchr, memchr_iter, memmem};

use super::ParseError;

/// Attributes of one element, namespace declarations included. Real feeds have fewer than thirty.
pub(super) const ATTRIBUTES_MAX: usize = 256;
/// Attributes of a document; each costs some 60 bytes in the tree.
const ATTRIBUTES_TOTAL_MAX: usize = 1_000_000;
/// Elements inside each other. XHTML content nests a few dozen deep.
pub(super) const DEPTH_MAX: usize = 256;
/// `<` or `=` in a document, in its texts too: the parser makes room for as many nodes and attributes beforehand.
const ROOM_MAX: usize = 8_000_000;
/// Namespace declarations in force at one place: the parser's work there is quadratic in them.
pub(super) const XMLNS_IN_SCOPE_MAX: usize = 64;
/// Namespace declarations of a document. An Atom feed with XHTML content declares one or two per item.
const XMLNS_MAX: usize = 50_000;
/// References in a document that declares entities.
pub(super) const REFERENCES_MAX: usize = 1_000_000;
/// Entities that an internal DTD may declare; the complete HTML set has 253.
const ENTITIES_MAX: usize = 256;
/// Length of an entity's value: enough for a character reference (`&#x1F600;`), too short to multiply anything.
const ENTITY_VALUE_MAX_BYTES: usize = 16;

/// Scans `text` once.
///
/// # Errors
/// [`ParseError::TooComplex`] over a limit, [`ParseError::Entity`] for an entity that could multiply.
pub(super) fn check(text: &str) -> Result<(), ParseError> {
    let bytes = text.as_bytes();
    if bytes.len() > ROOM_MAX {
        limit(memchr_iter(b'<', bytes).count(), ROOM_MAX, "< characters")?;
        limit(memchr_iter(b'=', bytes).count(), ROOM_MAX, "= characters")?;
    }
    // Namespace declarations of each open element.
    let mut open: Vec<usize> = Vec::new();
    let (mut xmlns_in_scope, mut xmlns_total, mut attributes_total) = (0, 0, 0);
    let mut at = 0;
    while let Some(offset) = memchr(b'<', &bytes[at..]) {
        at += offset;
        let rest = &bytes[at..];
        let length = if rest.starts_with(b"<!--") {
            length_to(rest, 4, b"-->")
        } else if rest.starts_with(b"<![CDATA[") {
            length_to(rest, 9, b"]]>")
        } else if rest.starts_with(b"<?") {
            length_to(rest, 2, b"?>")
        } else if rest.starts_with(b"<!DOCTYPE") {
            let (length, entities) = doctype(rest)?;
            if entities > 0 {
                // Each could be several times as long as what refers to it.
                limit(memchr_iter(b'&', bytes).count(), REFERENCES_MAX, "references to entities")?;
            }
            length
        } else if rest.starts_with(b"</") {
            xmlns_in_scope -= open.pop().unwrap_or(0);
            length_to(rest, 2, b">")
        } else {
            let tag = tag(rest);
            limit(tag.attributes, ATTRIBUTES_MAX, "attributes on one element")?;
            attributes_total += tag.attributes;
            limit(attributes_total, ATTRIBUTES_TOTAL_MAX, "attributes")?;
            xmlns_total += tag.xmlns;
            limit(xmlns_total, XMLNS_MAX, "namespace declarations")?;
            limit(xmlns_in_scope + tag.xmlns, XMLNS_IN_SCOPE_MAX, "namespace declarations in force at one place")?;
            if !tag.is_empty {
                xmlns_in_scope += tag.xmlns;
                open.push(tag.xmlns);
                limit(open.len(), DEPTH_MAX, "elements inside each other")?;
            }
            Some(tag.length)
        };
        // Cut short: the parser reports it.
        let Some(length) = length else { break };
        at = (at + length).min(bytes.len());
    }
    Ok(())
}

/// Refuses a `count` over `limit`.
pub(super) fn limit(count: usize, limit: usize, what: &'static str) -> Result<(), ParseError> {
    if count > limit { Err(ParseError::TooComplex { what, limit }) } else { Ok(()) }
}

/// Length up to and including the first `end` at or after `from`.
fn length_to(bytes: &[u8], from: usize, end: &[u8]) -> Option<usize> {
    let inside = bytes.get(from..)?;
    memmem::find(inside, end).map(|position| from + position + end.len())
}

/// What matters of a start tag.
struct Tag {
    length: usize,
    attributes: usize,
    xmlns: usize,
    is_empty: bool,
}

/// Reads a start tag; a `>` inside a quoted value does not end it.
fn tag(bytes: &[u8]) -> Tag {
    let mut tag = Tag { length: bytes.len(), attributes: 0, xmlns: 0, is_empty: false };
    let mut name_start = 1;
    let mut at = 1;
    while at < bytes.len() {
        match bytes[at] {
            b'>' => {
                tag.is_empty = bytes[at - 1] == b'/';
                tag.length = at + 1;
                break;
            }
            b'=' => {
                tag.attributes += 1;
                tag.xmlns += usize::from(bytes[name_start..at].starts_with(b"xmlns"));
            }
            quote @ (b'"' | b'\'') => match memchr(quote, &bytes[at + 1..]) {
                Some(length) => {
                    at += length + 1;
                    name_start = at + 1;
                }
                None => break,
            },
            // A name starts behind white space; `name =` keeps its name.
            byte if byte.is_ascii_whitespace()
                && bytes.get(at + 1).is_some_and(|next| *next != b'=' && !next.is_ascii_whitespace()) =>
            {
                name_start = at + 1;
            }
            _ => {}
        }
        at += 1;
    }
    tag
}

/// Checks a `<!DOCTYPE …>`: entities it declares must be few, short, and free of references and markup.
/// External ones are never loaded, so they need no limit.
///
/// Returns its length, if it has an end, and the number of entities.
///
/// Goes through it the way the parser does, step by step: what one of the two takes for quoted and the other does not
/// would be a place to hide an entity in.
fn doctype(bytes: &[u8]) -> Result<(Option<usize>, usize), ParseError> {
    let Some(mut at) = length_outside_quotes(bytes, b"[>") else { return Ok((None, 0)) };
    if bytes[at - 1] == b'>' {
        return Ok((Some(at), 0));
    }
    let mut entities = 0;
    loop {
        let rest = &bytes[at..];
        let length = if rest.starts_with(b"<!ENTITY") {
            entities += 1;
            limit(entities, ENTITIES_MAX, "entity declarations")?;
            entity(rest)?
        } else if rest.starts_with(b"<!--") {
            length_to(rest, 4, b"-->")
        } else if rest.starts_with(b"<?") {
            length_to(rest, 2, b"?>")
        } else if rest.starts_with(b"<!") {
            // The parser ends other declarations at the first `>`, quoted or not.
            length_to(rest, 2, b">")
        } else if rest.starts_with(b"]") {
            return Ok((length_to(rest, 1, b">").map(|length| at + length), entities));
        } else if rest.first().is_some_and(u8::is_ascii_whitespace) {
            Some(1)
        } else {
            None
        };
        let Some(length) = length else { return Ok((None, entities)) };
        at += length;
    }
}

/// Checks one `<!ENTITY …>` and returns its length.
fn entity(bytes: &[u8]) -> Result<Option<usize>, ParseError> {
    let Some(before_value) = bytes.iter().position(|byte| matches!(byte, b'"' | b'\'' | b'>')) else {
        return Ok(None);
    };
    let words = bytes[b"<!ENTITY".len()..before_value].split(u8::is_ascii_whitespace);
    let mut words = words.filter(|word| !word.is_empty() && *word != b"%");
    let _name = words.next();
    let is_external = words.next().is_some_and(|word| word == b"SYSTEM" || word == b"PUBLIC");
    let quote = bytes[before_value];
    if !is_external && quote != b'>' {
        let value = &bytes[before_value + 1..];
        let Some(length) = value.iter().position(|byte| *byte == quote) else { return Ok(None) };
        if !is_harmless(&value[..length]) {
            return Err(ParseError::Entity);
        }
    }
    Ok(length_outside_quotes(bytes, b">"))
}

/// Length up to and including the first of `ends` that is not quoted.
fn length_outside_quotes(bytes: &[u8], ends: &[u8]) -> Option<usize> {
    let mut quote = None;
    let end = bytes.iter().position(|byte| {
        if quote.is_some() {
            quote = quote.filter(|open| open != byte);
            return false;
        }
        quote = Some(*byte).filter(|byte| matches!(byte, b'"' | b'\''));
        ends.contains(byte)
    });
    end.map(|end| end + 1)
}

/// Whether an entity's value is plain characters or character references, and short.
pub(super) fn is_harmless(value: &[u8]) -> bool {
    let only_character_references =
        value.iter().enumerate().all(|(i, byte)| *byte != b'&' || value.get(i + 1) == Some(&b'#'));
    value.len() <= ENTITY_VALUE_MAX_BYTES && !value.contains(&b'<') && only_character_references
}

#[cfg(test)]
mod tests {
    use super::{ParseError, check};

    fn refusal(text: &str) -> String {
        check(text).expect_err("is refused").to_string()
    }

    #[test]
    fn too_many_attributes_are_refused_before_the_tree_is_built() {
        let many = (0..257).map(|i| format!(" a{i}='>'")).collect::<Vec<_>>().concat();
        assert_eq!(refusal(&format!("<rss{many}/>")), "has more than 256 attributes on one element");
    }

    #[test]
    fn too_deep_nesting_is_refused() {
        assert_eq!(refusal(&"<a>".repeat(257)), "has more than 256 elements inside each other");
        check(&"<a></a>".repeat(1000)).expect("siblings are not nested");
        check(&"<a/>".repeat(1000)).expect("empty elements are not nested");
    }

    #[test]
    fn namespace_declarations_are_counted_where_they_are_in_force() {
        let nested = (0..65).map(|i| format!("<a xmlns:n{i} = 'u{i}'>")).collect::<Vec<_>>().concat();
        assert_eq!(refusal(&nested), "has more than 64 namespace declarations in force at one place");
        check(&"<div xmlns='http://www.w3.org/1999/xhtml'>x</div>".repeat(2000)).expect("one per item is usual");
        assert!(check(&"<b xmlns='u'/>".repeat(50_001)).is_err());
    }

    #[test]
    fn entities_that_could_multiply_are_refused() {
        let bomb = format!("<!DOCTYPE r [<!ENTITY a \"{}\">]><r>&a;&a;</r>", "x".repeat(1000));
        assert!(matches!(check(&bomb), Err(ParseError::Entity)));
        let laughs = "<!DOCTYPE r [<!ENTITY a 'lol'><!ENTITY b '&a;&a;'>]><r>&b;</r>";
        assert!(matches!(check(laughs), Err(ParseError::Entity)));
        assert!(matches!(check("<!DOCTYPE r [<!ENTITY a '<b/>'>]><r>&a;</r>"), Err(ParseError::Entity)));
    }

    #[test]
    fn no_entity_hides_from_the_check() {
        let entity = format!("<!ENTITY a '{}'>", "x".repeat(1000));
        let named_like_a_keyword = entity.replace(" a ", " SYSTEM ");
        for subset in [
            format!("<!ELEMENT r '> {entity} <!ELEMENT s '>"),
            format!("<!ATTLIST r a CDATA \"> {entity} <!NOTATION \">"),
            format!("<!-- ' --> {entity}"),
            format!("<?php ' ?>\t{entity}"),
            format!("<!ENTITY b SYSTEM \"'\"> {entity}"),
            named_like_a_keyword,
            entity.replace("<!ENTITY", "<!ENTITY\n%"),
        ] {
            let text = format!("<!DOCTYPE r [{subset}]><r>&a;</r>");
            assert!(matches!(check(&text), Err(ParseError::Entity)), "{subset}");
        }
    }

    #[test]
    fn harmless_doctypes_pass() {
        for text in [
            "<!DOCTYPE rss PUBLIC \"-//Netscape Communications//DTD RSS 0.91//EN\" \"http://x/rss-0.91.dtd\"><rss/>",
            "<!DOCTYPE rss [<!-- ' > -->\n<!ENTITY nbsp \"&#160;\"><!ELEMENT rss ANY>\n\
             <!ENTITY % HTML\tSYSTEM \"http://x/very-long-address.ent\"> ] ><rss/>",
        ] {
            check(text).expect(text);
        }
    }

    #[test]
    fn markup_inside_comments_and_cdata_does_not_count() {
        let hidden = format!("<a><!-- {0} --><![CDATA[{0}]]><?php {0} ?></a>", "<b>".repeat(300));
        check(&hidden).expect("none of it is an element");
    }
}
