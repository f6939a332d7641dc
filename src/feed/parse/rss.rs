//! RSS 2.0 and the 0.9x that share its shape (<https://www.rssboard.org/rss-specification>).

use roxmltree::Node;
use url::Url;

use super::namespaces::{ATOM, CONTENT, DC, DCTERMS, ITUNES, XHTML};
use super::read::{ItemElement, core_children, joined, person};
use super::{Format, ITEMS_MAX, ParseError, ParsedFeed, guard, markup};
use crate::item::Item;

/// Reads an `rss` element. Items are looked for in the channel and, as some early feeds have them, beside it.
pub(super) fn read(root: Node<'_, '_>, base_url: Option<&Url>) -> Result<ParsedFeed, ParseError> {
    let core = root.tag_name().namespace();
    let channel = core_children(root, core, "channel").next();
    let title = channel.and_then(|channel| core_children(channel, core, "title").find_map(markup::text));
    let mut feed = ParsedFeed { format: Format::Rss20, title, items: Vec::new(), unreadable_dates: 0 };
    let inside = channel.into_iter().flat_map(|channel| core_children(channel, core, "item"));
    for node in inside.chain(core_children(root, core, "item")) {
        let mut element = ItemElement::new(node, core, base_url);
        let item = read_item(&mut element);
        feed.unreadable_dates += element.unreadable_dates;
        feed.items.push(element.finish(item));
        guard::limit(feed.items.len(), ITEMS_MAX, "items")?;
    }
    Ok(feed)
}

fn read_item(element: &mut ItemElement<'_, '_>) -> Item {
    let published = element.core("pubDate").chain(element.core("published"));
    let published = published.chain(element.foreign(ATOM, "published")).chain(element.foreign(DC, "date"));
    let updated = element.foreign(ATOM, "updated").chain(element.foreign(DCTERMS, "modified"));
    let summary = element.core("description").chain(element.foreign(ITUNES, "summary"));
    let content = element.foreign(CONTENT, "encoded").chain(element.foreign(ATOM, "content"));
    Item {
        guid: element.text(element.core("guid")).unwrap_or_default(),
        title: element.markup(element.core("title")),
        link: link(element),
        published: element.date(published),
        updated: element.date(updated),
        summary: element.markup(summary.chain(element.foreign(DC, "description"))),
        content: element.markup(content.chain(element.foreign(XHTML, "body"))),
        author: author(element),
        categories: element.texts(element.core("category").chain(element.foreign(DC, "subject"))),
        enclosures: {
            let own = element.core("enclosure");
            let own: Vec<_> = own.filter_map(|node| element.enclosure(node, ["url", "type", "length"])).collect();
            if own.is_empty() { element.media_enclosures() } else { own }
        },
        ..Item::default()
    }
}

/// `link`, else a guid that is a permalink (it is unless it says `isPermaLink="false"`), else `atom:link`.
fn link(element: &mut ItemElement<'_, '_>) -> Option<String> {
    let own = element.core("link").find_map(|node| Some(element.resolve(node, &markup::text(node)?)));
    let permalink = || {
        let is_permalink = |guid: &Node<'_, '_>| {
            !guid.attribute("isPermaLink").is_some_and(|value| value.trim().eq_ignore_ascii_case("false"))
        };
        let guids = element.core("guid").filter(is_permalink).filter_map(markup::text);
        // A guid without the attribute is often a bare number.
        guids.into_iter().find(|guid| Url::parse(guid).is_ok_and(|url| matches!(url.scheme(), "http" | "https")))
    };
    if let Some(link) = own.or_else(permalink) {
        return Some(link);
    }
    let alternates = element
        .foreign(ATOM, "link")
        .filter(|node| node.attribute("rel").is_none_or(|rel| rel == "alternate"))
        .find_map(|node| Some((node, element.resolve(node, &markup::non_blank(node.attribute("href")?)?))));
    let (node, link) = alternates?;
    element.take(node, Some(link))
}

/// `dc:creator`, else `author`, else `itunes:author`.
fn author(element: &mut ItemElement<'_, '_>) -> Option<String> {
    let creators = element.foreign(DC, "creator");
    if let Some(creators) = joined(&element.texts(creators)) {
        return Some(creators);
    }
    let authors = element.core("author").chain(element.foreign(ATOM, "author"));
    let authors: Vec<String> = element.texts(authors).iter().map(|author| person(author)).collect();
    joined(&authors).or_else(|| element.text(element.foreign(ITUNES, "author")))
}
