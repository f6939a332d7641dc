//! Atom 1.0 (RFC 4287).

use roxmltree::Node;
use url::Url;

use super::namespaces::{DC, DCTERMS, ITUNES, XHTML};
use super::read::{ItemElement, core_children, joined, person};
use super::{Format, ITEMS_MAX, ParseError, ParsedFeed, guard, markup};
use crate::item::Item;

/// Longest author of a feed that its items inherit; it is written once and would stand in each.
const AUTHOR_MAX_BYTES: usize = 256;

/// Reads a `feed` element.
pub(super) fn read(root: Node<'_, '_>, base_url: Option<&Url>) -> Result<ParsedFeed, ParseError> {
    let core = root.tag_name().namespace();
    let title = core_children(root, core, "title").find_map(construct);
    let mut feed = ParsedFeed { format: Format::Atom10, title, items: Vec::new(), unreadable_dates: 0 };
    let authors_of_feed = joined(&authors(root, core)).filter(|authors| authors.len() <= AUTHOR_MAX_BYTES);
    for node in core_children(root, core, "entry") {
        let mut element = ItemElement::new(node, core, base_url);
        let mut item = read_item(&mut element);
        let source = core_children(node, core, "source").next();
        let authors = joined(&authors(node, core)).or_else(|| element.text(element.foreign(DC, "creator")));
        let authors = authors.or_else(|| source.and_then(|source| joined(&self::authors(source, core))));
        item.author =
            authors.or_else(|| authors_of_feed.clone()).or_else(|| element.text(element.foreign(ITUNES, "author")));
        feed.unreadable_dates += element.unreadable_dates;
        feed.items.push(element.finish(item));
        guard::limit(feed.items.len(), ITEMS_MAX, "items")?;
    }
    Ok(feed)
}

fn read_item(element: &mut ItemElement<'_, '_>) -> Item {
    let published = element.core("published").chain(element.foreign(DC, "date"));
    let updated = element.core("updated").chain(element.foreign(DCTERMS, "modified"));
    let last_resort = element.foreign(ITUNES, "summary").chain(element.foreign(DC, "description"));
    Item {
        guid: element.text(element.core("id")).unwrap_or_default(),
        title: element.first(element.core("title"), construct),
        link: link(element),
        published: element.date(published),
        updated: element.date(updated),
        summary: element.first(element.core("summary"), construct).or_else(|| element.markup(last_resort)),
        content: element.first(element.core("content"), construct),
        categories: {
            let own = element.core("category").filter_map(|node| {
                let term = node.attribute("term").and_then(markup::non_blank);
                term.or_else(|| markup::non_blank(node.attribute("label")?))
            });
            own.chain(element.texts(element.foreign(DC, "subject"))).collect()
        },
        enclosures: {
            let own = element.core("link").filter(|node| node.attribute("rel") == Some("enclosure"));
            let own: Vec<_> = own.filter_map(|node| element.enclosure(node, ["href", "type", "length"])).collect();
            if own.is_empty() { element.media_enclosures() } else { own }
        },
        ..Item::default()
    }
}

/// A text construct or content, by what it holds rather than by its `type`, which is wrong too often: element
/// children are markup, anything else is text that was unescaped once. The `div` around XHTML is not part of it
/// (RFC 4287, 3.1.1.3).
fn construct(node: Node<'_, '_>) -> Option<String> {
    let mut elements = node.children().filter(Node::is_element);
    let div = elements.next().filter(|first| {
        let is_div = first.tag_name().name() == "div" && first.tag_name().namespace() == Some(XHTML);
        is_div && elements.next().is_none()
    });
    match div {
        Some(div) => markup::inner(div),
        None => markup::text_or_markup(node),
    }
}

/// The page of the item: a link that is `alternate` or says nothing, an HTML one first.
fn link(element: &ItemElement<'_, '_>) -> Option<String> {
    let is_page = |node: &Node<'_, '_>| node.attribute("rel").is_none_or(|rel| rel.trim() == "alternate");
    let is_html = |node: &Node<'_, '_>| node.attribute("type").is_none_or(|media_type| media_type.contains("html"));
    let address = |node: Node<'_, '_>| Some(element.resolve(node, &markup::non_blank(node.attribute("href")?)?));
    let pages = || element.core("link").filter(is_page);
    pages().filter(is_html).find_map(address).or_else(|| pages().find_map(address))
}

/// The names of the authors, or their addresses where no name is given.
fn authors<'a>(node: Node<'a, '_>, core: Option<&'a str>) -> Vec<String> {
    core_children(node, core, "author")
        .filter_map(|author| {
            let part = |name| core_children(author, core, name).find_map(markup::text);
            // Some feeds put the name in the element itself.
            let bare = || author.children().all(|child| !child.is_element()).then(|| markup::text(author))?;
            part("name").or_else(|| part("email")).or_else(bare).map(|name| person(&name))
        })
        .collect()
}
