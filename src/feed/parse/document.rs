//! A tree → a feed: which format it is, and where its items stand.
//!
//! - RSS 0.91 to 2.0 (<https://www.rssboard.org/rss-specification>): items in the channel
//! - RSS 0.90 and 1.0 (<https://web.resource.org/rss/1.0/spec>), which are RDF: items beside the channel
//! - Atom 0.3 and 1.0 (RFC 4287): entries in the feed
//!
//! Feeds mix them up, so items are looked for in both places under both names.

use roxmltree::Node;
use url::Url;

use super::item::{ItemReader, authors};
use super::namespaces::{self, Namespaces, Vocabulary};
use super::{Format, ITEMS_MAX, ParseError, ParsedFeed, guard, html, markup};

/// Longest author of a feed that its items inherit; it is written once and would stand in each.
pub(super) const AUTHOR_MAX_BYTES: usize = 256;

/// Reads the document whose root element is `root`.
///
/// # Errors
/// [`ParseError::NotAFeed`] for another kind of document, [`ParseError::TooComplex`] over [`ITEMS_MAX`].
pub(super) fn read(root: Node<'_, '_>, base_url: Option<&Url>) -> Result<ParsedFeed, ParseError> {
    let namespaces = Namespaces::default();
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
    for child in children() {
        let inside = is_core(child, &["channel"], &namespaces).then(|| child.children()).into_iter().flatten();
        for node in inside.chain([child]).filter(|node| is_core(*node, &["item", "entry"], &namespaces)) {
            guard::limit(items.len() + 1, ITEMS_MAX, "items")?;
            let mut item = reader.read(node);
            item.author = item.author.or_else(|| inherited.clone());
            items.push(item);
        }
    }
    Ok(ParsedFeed { format, title, items, unreadable_dates: reader.unreadable_dates, recovered: None })
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
