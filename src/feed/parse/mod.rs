//! Bytes of a feed → items. No I/O.
//!
//! ```text
//!  bytes ──unpack──▶ bytes ──text──▶ text ──guard──▶ text ──roxmltree──▶ tree ──document──▶ ParsedFeed
//!          gzip,             encoding │      refuses         strict               item: roles, links, people,
//!          zlib                       │      bombs             │                        date, markup, extensions
//!                                     │        ▲       not well-formed
//!                                     │        └─── recover ◀──┘  once, and said
//!                                     └──json_feed──▶ ParsedFeed
//! ```
//!
//! Called by the fetch handler and by `feedmill parse`.
//!
//! An item is what the feed says: its `source` and `feed` are empty and its `guid` may be; both are filled by
//! [`ParsedFeed::into_items`].
//!
//! *Absent:* anything that loads something. An external entity or document type is never asked for.

pub(crate) mod date;

mod document;
mod entities;
mod extensions;
mod guard;
mod item;
mod json_feed;
mod links;
mod markup;
mod namespaces;
mod people;
mod recover;
mod roles;
mod text;
mod unpack;

use std::fmt;

use roxmltree::{Document, ParsingOptions};
use url::Url;

use super::identity;
use crate::item::Item;

pub use recover::{Defect, Recovery};

/// Nodes of a document's tree. A node costs some 100 bytes, so this bounds a hostile 32 MiB at about 100 MB; 60,000
/// items of 16 nodes fit.
const NODES_MAX: u32 = 1_000_000;

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
    /// The bytes are not all of the document.
    pub is_cut_off: bool,
}

/// The format a feed was read as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Format {
    /// RSS 0.90, which is RDF.
    Rss090,
    /// RSS 0.91.
    Rss091,
    /// RSS 0.92 to 0.94.
    Rss092,
    /// RSS 1.0, which is RDF.
    Rss10,
    /// RSS 2.0, and RSS that does not say its version.
    Rss20,
    /// Atom 0.3.
    Atom03,
    /// Atom 1.0.
    Atom10,
    /// JSON Feed 1.0.
    JsonFeed10,
    /// JSON Feed 1.1.
    JsonFeed11,
}

/// `RSS 2.0`.
impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Rss090 => "RSS 0.90",
            Self::Rss091 => "RSS 0.91",
            Self::Rss092 => "RSS 0.92",
            Self::Rss10 => "RSS 1.0",
            Self::Rss20 => "RSS 2.0",
            Self::Atom03 => "Atom 0.3",
            Self::Atom10 => "Atom 1.0",
            Self::JsonFeed10 => "JSON Feed 1.0",
            Self::JsonFeed11 => "JSON Feed 1.1",
        })
    }
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
    /// What was wrong with the document, if it could only be read by mending it. Then items may be missing that the
    /// publisher has.
    pub recovered: Option<Recovery>,
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
    /// The JSON is broken or no JSON Feed; the cause says where and how.
    #[error("not a readable JSON Feed")]
    MalformedJson(#[source] serde_json::Error),
}

/// Reads a document as a feed.
///
/// Takes the bytes as received, after content decoding: the encoding of the text is found here.
///
/// # Errors
/// [`ParseError`], always one line. An HTML page is [`ParseError::NotAFeed`] however well it parses.
pub fn parse(body: &[u8], hints: &Hints<'_>) -> Result<ParsedFeed, ParseError> {
    let unpacked = unpack::unpack(body)?;
    let is_cut = unpacked.is_cut || hints.is_cut_off;
    let decoded = text::decode(&unpacked.bytes, hints.content_type);
    // Blank lines before the declaration are the one defect that is harmless to mend here.
    let text = decoded.trim_start_matches(|c: char| c.is_whitespace() || c == '\u{feff}');
    let mut feed = match text.chars().next() {
        None => return Err(ParseError::Empty),
        Some('{' | '[') => json_feed::read(text, hints.base_url)?,
        Some('<') if starts_with_ignoring_case(text, "<html") || starts_with_ignoring_case(text, "<!doctype html") => {
            return Err(html());
        }
        Some(_) => match read_strictly(text, hints.base_url) {
            Err(error @ (ParseError::Malformed(_) | ParseError::TooComplex { .. })) => {
                let (mended, recovery) = mend(text, error)?;
                // A large document is not kept three times over.
                drop(decoded);
                drop(unpacked);
                read_mended(&mended, recovery, hints.base_url)?
            }
            read => read?,
        },
    };
    if is_cut {
        feed.recovered.get_or_insert_default().note(Defect::CutOff);
    }
    Ok(feed)
}

/// Reads well-formed XML.
fn read_strictly(text: &str, base_url: Option<&Url>) -> Result<ParsedFeed, ParseError> {
    guard::check(text)?;
    let options = ParsingOptions { allow_dtd: true, nodes_limit: NODES_MAX, ..ParsingOptions::default() };
    let tree = Document::parse_with_options(text, options).map_err(|error| match error {
        roxmltree::Error::NodesLimitReached => ParseError::TooComplex { what: "XML nodes", limit: NODES_MAX as usize },
        error => ParseError::Malformed(error),
    })?;
    document::read(tree.root_element(), base_url)
}

/// The document written anew without what is wrong. Where nothing helps, the `error` of the first try counts.
fn mend(text: &str, error: ParseError) -> Result<(String, (Recovery, ParseError)), ParseError> {
    match recover::recover(text) {
        Ok(Some((mended, recovery))) => Ok((mended, (recovery, error))),
        // It breaks every rule; say what it is.
        _ if contains_html_root(text) => Err(html()),
        _ if !text.starts_with('<') => {
            Err(ParseError::NotAFeed { found: "it is text that does not start with <".to_owned() })
        }
        Err(too_complex) => Err(too_complex),
        Ok(None) => Err(error),
    }
}

/// Reads a document that was mended. One that was cut off before its first item is the `error` that it was: the next
/// fetch has a better chance.
fn read_mended(
    text: &str,
    (recovery, error): (Recovery, ParseError),
    base_url: Option<&Url>,
) -> Result<ParsedFeed, ParseError> {
    match read_strictly(text, base_url) {
        Ok(feed) if !feed.items.is_empty() || !recovery.is_cut_off() => {
            Ok(ParsedFeed { recovered: Some(recovery), ..feed })
        }
        _ => Err(error),
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
