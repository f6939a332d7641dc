//! JSON Feed 1.0 and 1.1 (<https://www.jsonfeed.org/version/1.1/>).
//!
//! Of what an item may say beyond the fields there is, every key that starts with an underscore is an extension, as the
//! specification has it, and so are the few it names that have no field (`image`, `external_url`, …). Their values stay
//! JSON.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_json::value::RawValue;
use url::Url;

use super::people::joined;
use super::{Format, ITEMS_MAX, ParseError, ParsedFeed, date, guard, markup};
use crate::item::{Enclosure, Item};

/// Objects in a document: an item, its authors and attachments. One takes some 700 bytes when it is an extension.
const OBJECTS_MAX: usize = 200_000;
/// Values in a document.
const VALUES_MAX: usize = 2_000_000;

/// An item, or an author or an attachment of it: its values unread, so that one that is odd spoils no other.
type Object<'a> = BTreeMap<Cow<'a, str>, &'a RawValue>;

#[derive(Deserialize)]
struct Feed<'a> {
    #[serde(borrow, default)]
    version: Cow<'a, str>,
    #[serde(borrow, default)]
    title: Option<&'a RawValue>,
    #[serde(borrow, default)]
    authors: Option<&'a RawValue>,
    #[serde(borrow, default)]
    author: Option<&'a RawValue>,
    #[serde(borrow)]
    items: Vec<Object<'a>>,
}

/// Reads a JSON document.
///
/// # Errors
/// [`ParseError::NotAFeed`] when it is something else, [`ParseError::MalformedJson`], [`ParseError::TooComplex`].
pub(super) fn read(text: &str, base_url: Option<&Url>) -> Result<ParsedFeed, ParseError> {
    check_size(text)?;
    let feed: Feed<'_> = serde_json::from_str(text).map_err(|error| {
        if error.is_data() && !text.contains("jsonfeed.org/version") {
            ParseError::NotAFeed { found: "it is JSON, but no JSON Feed".to_owned() }
        } else {
            ParseError::MalformedJson(error)
        }
    })?;
    guard::limit(feed.items.len(), ITEMS_MAX, "items")?;
    let format =
        if feed.version.trim_end_matches('/').ends_with("1.1") { Format::JsonFeed11 } else { Format::JsonFeed10 };
    let inherited = names(feed.authors, feed.author).filter(|names| names.len() <= super::document::AUTHOR_MAX_BYTES);
    let mut unreadable_dates = 0;
    let items = feed.items.into_iter().map(|item| {
        let mut item = read_item(item, base_url, &mut unreadable_dates);
        item.author = item.author.or_else(|| inherited.clone());
        item
    });
    let items = items.collect();
    Ok(ParsedFeed { format, title: feed.title.and_then(text_of), items, unreadable_dates, recovered: None })
}

/// Bounds what the document takes once it is read. Brackets and commas inside of strings count too: they are few.
fn check_size(text: &str) -> Result<(), ParseError> {
    guard::limit(memchr::memchr_iter(b'{', text.as_bytes()).count(), OBJECTS_MAX, "JSON objects")?;
    let values = memchr::memchr2_iter(b',', b'[', text.as_bytes()).count();
    guard::limit(values, VALUES_MAX, "JSON values")
}

fn read_item(mut item: Object<'_>, base_url: Option<&Url>, unreadable_dates: &mut usize) -> Item {
    let mut take = |name: &str| item.remove(name);
    let guid = take("id").and_then(text_of).unwrap_or_default();
    let title = take("title").and_then(text_of);
    let link = take("url").and_then(text_of);
    let summary = take("summary").and_then(text_of);
    let html = take("content_html").and_then(text_of);
    let plain = take("content_text").and_then(text_of);
    let author = names(take("authors"), take("author"));
    let mut date = |value: Option<&RawValue>| {
        let text = value.and_then(text_of)?;
        let at = date::parse(&text);
        *unreadable_dates += usize::from(at.is_none());
        at
    };
    let published = date(take("date_published"));
    let updated = date(take("date_modified"));
    let categories = take("tags").map(read_list).unwrap_or_default().into_iter().filter_map(text_of).collect();
    let attachments = take("attachments").map(read_list).unwrap_or_default();
    let enclosures = attachments.into_iter().filter_map(|attachment| enclosure(attachment, base_url)).collect();
    let extensions: BTreeMap<String, Value> = item
        .into_iter()
        .filter_map(|(name, value)| Some((name.into_owned(), read_value::<Value>(value)?)))
        .filter(|(_, value)| !value.is_null())
        .collect();
    let link = link.or_else(|| extensions.get("external_url")?.as_str().map(str::to_owned));
    Item {
        guid,
        title,
        link: link.map(|link| resolve(&link, base_url)),
        published,
        updated,
        summary,
        content: html.or(plain),
        author,
        categories,
        enclosures,
        extensions,
        ..Item::default()
    }
}

fn enclosure(attachment: &RawValue, base_url: Option<&Url>) -> Option<Enclosure> {
    let attachment: Object<'_> = serde_json::from_str(attachment.get()).ok()?;
    let text = |name: &str| attachment.get(name).copied().and_then(text_of);
    Some(Enclosure {
        url: resolve(&text("url")?, base_url),
        media_type: text("mime_type"),
        length: attachment.get("size_in_bytes").and_then(|size| read_value::<f64>(size)).map(|size| size as u64),
    })
}

/// The names of `authors` (1.1), else of the `author` (1.0).
fn names(authors: Option<&RawValue>, author: Option<&RawValue>) -> Option<String> {
    let name = |author: &RawValue| {
        let author: Object<'_> = serde_json::from_str(author.get()).ok()?;
        author.get("name").copied().and_then(text_of)
    };
    let several = authors.map(read_list).unwrap_or_default();
    joined(several.into_iter().filter_map(name)).or_else(|| name(author?))
}

/// A string, or a number as it is written (ids are given as either).
fn text_of(value: &RawValue) -> Option<String> {
    let written = value.get();
    if written.starts_with('"') {
        markup::non_blank(&read_value::<String>(value)?)
    } else {
        written.starts_with(|c: char| c.is_ascii_digit() || c == '-').then(|| written.to_owned())
    }
}

fn read_list(list: &RawValue) -> Vec<&RawValue> {
    serde_json::from_str(list.get()).unwrap_or_default()
}

fn read_value<T: DeserializeOwned>(value: &RawValue) -> Option<T> {
    serde_json::from_str(value.get()).ok()
}

fn resolve(link: &str, base_url: Option<&Url>) -> String {
    match base_url {
        Some(base) if Url::parse(link).is_err() => base.join(link).map_or_else(|_| link.to_owned(), String::from),
        _ => link.to_owned(),
    }
}
