//! Bytes of a feed → items. No I/O.
//!
//! ```text
//!  bytes ──text──▶ text ──guard──▶ text ──roxmltree──▶ tree ──rss │ atom──▶ ParsedFeed
//!        encoding        refuses              strict        fields: read, markup,
//!                        bombs                              date, extensions, namespaces
//! ```
//!
//! Called by the fetch handler and by `feedmill parse`.
//!
//! An item is what the feed says: its `source` and `feed` are empty and its `guid` may be; both are filled by
//! [`ParsedFeed::into_items`].
//!
//! *Not here:* RSS 1.0, Atom 0.3 and JSON Feed, which are recognised and refused by name, and the recovery of documents
//! that are not well-formed. A format is one more reader beside `rss` and `atom`.

pub(crate) mod date;

mod atom;
mod extensions;
mod guard;
mod markup;
mod namespaces;
mod read;
mod rss;
mod text;

use roxmltree::{Document, Node, ParsingOptions};
use url::Url;

use super::identity;
use crate::item::Item;

/// Nodes of a document's tree. A node costs some 75 bytes, so this bounds a hostile 32 MiB at about 150 MB; 60,000
/// items of 30 nodes fit.
const NODES_MAX: u32 = 2_000_000;

/// Items of a feed; real ones have up to a few thousand. An empty one takes 7 bytes of a document and some 400 of memory.
const ITEMS_MAX: usize = 100_000;

/// How much of a document is looked at to tell what it is instead of a feed.
const SNIFF_MAX_BYTES: usize = 1024;

/// What is known about a document from outside it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Hints<'a> {
    /// The HTTP `Content-Type`; only its `charset` is used, after byte order mark and XML declaration.
    pub content_type: Option<&'a str>,
    /// The address the document came from: the base of its relative links where it sets no `xml:base`.
    pub base_url: Option<&'a Url>,
}

/// The format a feed was read as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Format {
    /// RSS 2.0, and 0.91 to 0.94, which differ from it only in what they lack.
    Rss20,
    /// Atom 1.0.
    Atom10,
}

/// A feed, read.
#[derive(Clone, Debug, PartialEq)]
pub struct ParsedFeed {
    /// The format it came in.
    pub format: Format,
    /// The feed's own title.
    pub title: Option<String>,
    /// Its items in document order. `source` and `feed` are empty; `guid` is the feed's, empty where it gives none.
    pub items: Vec<Item>,
    /// Dates that were given and could not be read; their fields are `None`.
    pub unreadable_dates: usize,
}

impl ParsedFeed {
    /// The items as items of `source`, shown by `feed`, each with its identity as `guid`.
    ///
    /// An identity that comes twice is kept twice: which of them counts is the caller's to decide.
    pub fn into_items(self, source: &str, feed: &str) -> Vec<Item> {
        let mut items = self.items;
        for item in &mut items {
            item.guid = identity::guid(item);
            source.clone_into(&mut item.source);
            item.feed = Some(feed.to_owned());
        }
        items
    }
}

/// Why a document could not be read as a feed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ParseError {
    /// There is nothing in it.
    #[error("the document is empty")]
    Empty,
    /// It is something else.
    #[error("not a feed: {found}")]
    NotAFeed {
        /// What it is, and what to do about it.
        found: String,
    },
    /// It is a feed of a kind that is not read.
    #[error("{format} is not supported yet, only RSS 2.0 (0.9x) and Atom 1.0 are")]
    Unsupported {
        /// Its name.
        format: &'static str,
    },
    /// It goes over a limit that only documents made to be expensive reach.
    #[error("has more than {limit} {what}")]
    TooComplex {
        /// What there is too much of.
        what: &'static str,
        /// How much of it is allowed.
        limit: usize,
    },
    /// It declares an entity that could multiply its size.
    #[error("declares an XML entity that is more than a character, which is refused as it could expand without end")]
    Entity,
    /// The XML is broken; the cause says where and how.
    #[error("not well-formed XML")]
    Malformed(#[source] roxmltree::Error),
}

/// Reads a document as a feed.
///
/// Takes the bytes as received, after content decoding: the encoding of the text is found here.
///
/// # Errors
/// [`ParseError`], always one line. An HTML page is [`ParseError::NotAFeed`] however well it parses.
pub fn parse(body: &[u8], hints: &Hints<'_>) -> Result<ParsedFeed, ParseError> {
    let text = text::decode(body, hints.content_type);
    // Blank lines before the declaration are the one defect that is harmless to mend here.
    let text = text.trim_start_matches(|c: char| c.is_whitespace() || c == '\u{feff}');
    refuse_what_is_no_xml(text)?;
    // An HTML page behind a comment or an XML declaration breaks every rule; say that it is one.
    let or_html = |error| if contains_html_root(text) { html() } else { error };
    guard::check(text).map_err(or_html)?;
    let options = ParsingOptions { allow_dtd: true, nodes_limit: NODES_MAX, ..ParsingOptions::default() };
    let document = Document::parse_with_options(text, options).map_err(|error| match error {
        roxmltree::Error::NodesLimitReached => ParseError::TooComplex { what: "XML nodes", limit: NODES_MAX as usize },
        error => or_html(ParseError::Malformed(error)),
    })?;
    read(document.root_element(), hints.base_url)
}

/// Picks the reader by the root element.
fn read(root: Node<'_, '_>, base_url: Option<&Url>) -> Result<ParsedFeed, ParseError> {
    let tag = root.tag_name();
    match (tag.name(), tag.namespace()) {
        ("rss", _) => rss::read(root, base_url),
        ("feed", None | Some(namespaces::ATOM)) => atom::read(root, base_url),
        ("feed", Some(namespaces::ATOM_03)) => Err(ParseError::Unsupported { format: "Atom 0.3" }),
        ("RDF", Some(namespaces::RDF)) => Err(ParseError::Unsupported { format: "RSS 1.0 (RDF)" }),
        ("html", _) => Err(html()),
        (name, _) => {
            let name: String = name.chars().take(40).collect();
            Err(ParseError::NotAFeed { found: format!("its root element is <{name}>, not <rss> or <feed>") })
        }
    }
}

fn refuse_what_is_no_xml(text: &str) -> Result<(), ParseError> {
    match text.chars().next() {
        None => Err(ParseError::Empty),
        Some('{' | '[') => Err(ParseError::Unsupported { format: "JSON" }),
        Some('<') if starts_with_ignoring_case(text, "<html") || starts_with_ignoring_case(text, "<!doctype html") => {
            Err(html())
        }
        Some('<') => Ok(()),
        Some(_) => Err(ParseError::NotAFeed { found: "it is text that does not start with <".to_owned() }),
    }
}

fn starts_with_ignoring_case(text: &str, start: &str) -> bool {
    text.get(..start.len()).is_some_and(|beginning| beginning.eq_ignore_ascii_case(start))
}

/// Whether an `html` element stands near the start, and no feed around it.
fn contains_html_root(text: &str) -> bool {
    let start = text.as_bytes()[..text.len().min(SNIFF_MAX_BYTES)].to_ascii_lowercase();
    let contains = |tag: &[u8]| start.windows(tag.len()).any(|window| window == tag);
    contains(b"<html") && !contains(b"<rss") && !contains(b"<feed")
}

fn html() -> ParseError {
    let found = "it looks like HTML; use the address of the feed itself, which the page may name in a <link>";
    ParseError::NotAFeed { found: found.to_owned() }
}

#[cfg(test)]
mod tests;
