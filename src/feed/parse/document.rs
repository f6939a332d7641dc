//! A tree → a feed: which format it is, and where its items stand.
//!
//! - RSS 0.91 to 2.0 (<https://www.rssboard.org/rss-specification>): items in the channel
//! - RSS 0.90 and 1.0 (<https://web.resource.org/rss/1.0/spec>), which are RDF: items beside the channel
//! - Atom 0.3 and 1.0 (RFC 4287): entries in the feed
//!
//! Feeds mix them up, so items are looked for everywhere under both names.

use roxmltree::Node;
use url::Url;

use super::item::{ItemReader, authors};
use super::namespaces::{self, Namespaces, Vocabulary};
use super::{Format, ITEMS_MAX, ParseError, ParsedFeed, guard, html, markup};
use crate::item::Item;

/// Longest author of a feed that its items inherit; it is written once and would stand in each.
pub(super) const AUTHOR_MAX_BYTES: usize = 256;

/// Reads the document whose root element is `root`.
///
/// # Errors
/// [`ParseError::NotAFeed`] for another kind of document, [`ParseError::TooComplex`] over [`ITEMS_MAX`].
pub(super) fn read(root: Node<'_, '_>, base_url: Option<&Url>) -> Result<ParsedFeed, ParseError> {
    let root = feed_root(root);
    let namespaces = Namespaces::of(root);
    let children = || root.children().filter(Node::is_element);
    // The elements of an RDF are in another namespace than its root.
    let first_core = children().find(|child| namespaces.vocabulary(*child) == Vocabulary::Core);
    let core = match namespaces.vocabulary(root) {
        Vocabulary::Core => root.tag_name().namespace(),
        _ => first_core.and_then(|child| child.tag_name().namespace()),
    };
    let format = format(root, core, &namespaces)?;
    let holder = children().find(|child| is_core(*child, &["channel"], &namespaces)).unwrap_or(root);
    let mut titles = holder.children().filter(|child| is_core(*child, &["title"], &namespaces));
    let title = titles.find_map(markup::text_or_markup);
    let inherited = matches!(format, Format::Atom03 | Format::Atom10).then(|| authors(root, &namespaces)).flatten();
    let inherited = inherited.filter(|authors| authors.len() <= AUTHOR_MAX_BYTES);

    let mut reader = ItemReader::new(&namespaces, core, base_url);
    let mut items = Vec::new();
    read_items(root, &mut reader, &mut items)?;
    for item in &mut items {
        item.author = item.author.take().or_else(|| inherited.clone());
    }
    Ok(ParsedFeed { format, title, items, unreadable_dates: reader.unreadable_dates, recovered: None })
}

/// The root element, unless it is something around that of a feed.
fn feed_root<'a, 'input>(root: Node<'a, 'input>) -> Node<'a, 'input> {
    let is_feed = |node: &Node<'_, '_>| {
        let name = node.tag_name().name();
        ["rss", "feed", "rdf", "channel"].iter().any(|known| name.eq_ignore_ascii_case(known))
    };
    let is_html = root.tag_name().name().eq_ignore_ascii_case("html");
    let inside = root.children().find(is_feed).filter(|_| !is_html && !is_feed(&root));
    inside.unwrap_or(root)
}

/// Reads the items below `node`, wherever they stand.
///
/// Recursion is bounded by the depth that `guard` lets through.
fn read_items<'a, 'input>(
    node: Node<'a, 'input>,
    reader: &mut ItemReader<'_, 'a, 'input>,
    items: &mut Vec<Item>,
) -> Result<(), ParseError> {
    for child in node.children().filter(Node::is_element) {
        if is_core(child, &["item", "entry"], reader.namespaces) {
            guard::limit(items.len() + 1, ITEMS_MAX, "items")?;
            items.push(reader.read(child));
        } else {
            read_items(child, reader, items)?;
        }
    }
    Ok(())
}

/// Whether `node` is an element of the feed formats with one of `names`.
fn is_core<'a>(node: Node<'a, '_>, names: &[&str], namespaces: &Namespaces<'a>) -> bool {
    node.is_element()
        && names.iter().any(|name| node.tag_name().name().eq_ignore_ascii_case(name))
        && namespaces.vocabulary(node) == Vocabulary::Core
}

/// The format, by the root element and the namespace `core` of what is in it.
fn format<'a>(root: Node<'a, '_>, core: Option<&str>, namespaces: &Namespaces<'a>) -> Result<Format, ParseError> {
    let name = root.tag_name().name();
    match (name.to_ascii_lowercase().as_str(), namespaces.vocabulary(root)) {
        ("rss", _) => Ok(match root.attribute("version").map(str::trim) {
            Some("0.90") => Format::Rss090,
            Some("0.91") => Format::Rss091,
            Some("0.92" | "0.93" | "0.94") => Format::Rss092,
            _ => Format::Rss20,
        }),
        // RSS without its root.
        ("channel", _) => Ok(Format::Rss20),
        ("rdf", _) if core.is_some_and(namespaces::is_rss_090) => Ok(Format::Rss090),
        ("rdf", _) => Ok(Format::Rss10),
        ("feed", Vocabulary::Core) => {
            let is_03 = core.map_or(root.attribute("version") == Some("0.3"), namespaces::is_atom_03);
            Ok(if is_03 { Format::Atom03 } else { Format::Atom10 })
        }
        ("html", _) => Err(html()),
        _ => {
            let name: String = name.chars().take(40).collect();
            Err(ParseError::NotAFeed { found: format!("its root element is <{name}>, not <rss>, <feed> or <rdf:RDF>") })
        }
    }
}
