//! One item element → an [`Item`].

use jiff::Timestamp;
use roxmltree::Node;
use url::Url;

use super::extensions::Extensions;
use super::namespaces::{Namespaces, RDF, Vocabulary};
use super::roles::{LAST_RANK, Rank, Role, role};
use super::{date, links, markup, people};
use crate::item::{Enclosure, Item};

/// Reads the items of one document.
pub(super) struct ItemReader<'n, 'a, 'input> {
    pub(super) namespaces: &'n Namespaces<'a>,
    /// Namespace of the format's own elements; others are foreign.
    core: Option<&'a str>,
    base_url: Option<&'a Url>,
    /// The elements of the item being read, in document order.
    parts: Vec<Part<'a, 'input>>,
    /// Dates that were there and could not be read.
    pub(super) unreadable_dates: usize,
}

/// An element of an item.
struct Part<'a, 'input> {
    node: Node<'a, 'input>,
    role: Option<(Role, Rank)>,
    vocabulary: Vocabulary,
    /// Has a namespace that is not the format's own: an extension, unless a field took it.
    is_foreign: bool,
    /// Inside a `media:group` or `media:content`: asked for fields, and an extension as part of what it is in.
    is_grouped: bool,
    is_taken: bool,
}

impl Part<'_, '_> {
    fn is(&self, role: Role, rank: Rank) -> bool {
        self.role == Some((role, rank))
    }
}

impl<'n, 'a, 'input> ItemReader<'n, 'a, 'input> {
    /// A reader of items whose own elements are in the namespace `core`, or in none.
    pub(super) fn new(namespaces: &'n Namespaces<'a>, core: Option<&'a str>, base_url: Option<&'a Url>) -> Self {
        Self { namespaces, core, base_url, parts: Vec::new(), unreadable_dates: 0 }
    }

    /// Reads an `item` or `entry`.
    ///
    /// An element that filled a field is noted, so that the rest of the namespaced ones can be listed as extensions and
    /// nothing is there twice. What Media RSS says stays an extension too: most of it has no place in a field.
    pub(super) fn read(&mut self, node: Node<'a, 'input>) -> Item {
        self.parts.clear();
        self.gather(node, false);
        let guid = self.first(Role::Guid, markup::text);
        let guid = guid.or_else(|| node.attribute((RDF, "about")).and_then(markup::non_blank));
        Item {
            guid: guid.unwrap_or_default(),
            title: self.first(Role::Title, markup::construct),
            link: self.link(),
            published: self.date(Role::Published),
            updated: self.date(Role::Updated),
            summary: self.first(Role::Summary, markup::construct),
            content: self.first(Role::Content, markup::construct),
            author: self.author(),
            categories: self.categories(),
            enclosures: self.enclosures(node),
            extensions: {
                let mut extensions = Extensions::default();
                let rest = |part: &&Part<'_, '_>| part.is_foreign && !part.is_taken && !part.is_grouped;
                self.parts.iter().filter(rest).for_each(|part| extensions.add(part.node, self.namespaces));
                extensions.into_values()
            },
            ..Item::default()
        }
    }

    fn gather(&mut self, parent: Node<'a, 'input>, is_grouped: bool) {
        for node in parent.children().filter(Node::is_element) {
            let tag = node.tag_name();
            let vocabulary = self.namespaces.vocabulary(node);
            self.parts.push(Part {
                node,
                role: role(vocabulary, tag.name()),
                vocabulary,
                is_foreign: tag.namespace().is_some_and(|namespace| Some(namespace) != self.core),
                is_grouped,
                is_taken: false,
            });
            // A content may be in a group, and no deeper.
            if vocabulary == Vocabulary::Media && matches!((tag.name(), is_grouped), ("group", false) | ("content", _))
            {
                self.gather(node, true);
            }
        }
    }

    /// The first of a role's elements, by rank and then in document order, that `read` gets something from.
    fn first<T>(&mut self, role: Role, read: impl Fn(Node<'a, 'input>) -> Option<T>) -> Option<T> {
        for rank in 0..=LAST_RANK {
            for part in self.parts.iter_mut().filter(|part| part.is(role, rank)) {
                if let Some(value) = read(part.node) {
                    part.is_taken = part.vocabulary != Vocabulary::Media;
                    return Some(value);
                }
            }
        }
        None
    }

    /// The first date of a role that can be read; those before it are counted.
    fn date(&mut self, role: Role) -> Option<Timestamp> {
        let unreadable = std::cell::Cell::new(0);
        let at = self.first(role, |node| {
            let text = markup::text(node)?;
            let at = date::parse(&text);
            unreadable.set(unreadable.get() + usize::from(at.is_none()));
            at
        });
        self.unreadable_dates += unreadable.get();
        at
    }

    /// The format's own link, else a guid that is the address of a page, else a link of Atom in another format.
    fn link(&mut self) -> Option<String> {
        let own = self.page(false);
        own.or_else(|| self.permalink()).or_else(|| self.page(true))
    }

    /// The page of the item: the text of a link, else the address of one that is `alternate` or says nothing. Of several,
    /// the last that is HTML, as feedparser has it; else the first.
    fn page(&mut self, is_foreign: bool) -> Option<String> {
        let mut page = None;
        for (at, part) in self.parts.iter().enumerate() {
            if !part.is(Role::Link, 0) || part.is_foreign != is_foreign {
                continue;
            }
            let node = part.node;
            let Some(address) = links::address(node) else {
                // An address behind an HTML editor is escaped twice.
                let text = markup::text(node).map(|text| text.replace("&amp;", "&"));
                if let Some(text) = text {
                    page = Some((at, links::resolve(node, &text, self.base_url)));
                    break;
                }
                continue;
            };
            let is_page = node.attribute("rel").is_none_or(|rel| rel.trim().eq_ignore_ascii_case("alternate"));
            let is_html = node.attribute("type").is_none_or(|media_type| media_type.contains("html"));
            if is_page && (page.is_none() || is_html) {
                page = Some((at, links::resolve(node, address, self.base_url)));
            }
        }
        let (at, page) = page?;
        self.parts[at].is_taken = true;
        Some(page)
    }

    /// A guid is a permalink unless it says `isPermaLink="false"`. One without the attribute is often a bare number, so
    /// only one that says `true` is taken for a relative address.
    fn permalink(&self) -> Option<String> {
        let says = |node: Node<'_, '_>, word: &str| {
            let said = node.attributes().find(|attribute| attribute.name().eq_ignore_ascii_case("isPermaLink"));
            said.is_some_and(|said| said.value().trim().eq_ignore_ascii_case(word))
        };
        let guids = self.parts.iter().filter(|part| part.is(Role::Guid, 0) && !says(part.node, "false"));
        let addresses = guids.filter_map(|part| {
            let guid = markup::text(part.node)?;
            Some(if says(part.node, "true") { links::resolve(part.node, &guid, self.base_url) } else { guid })
        });
        addresses.into_iter().find(|address| links::is_http(address))
    }

    /// The authors of the best rank that names any, else those of the feed that an entry of Atom was taken from.
    fn author(&mut self) -> Option<String> {
        for rank in 0..=LAST_RANK {
            let mut names = Vec::new();
            for part in self.parts.iter_mut().filter(|part| part.is(Role::Author, rank)) {
                let name = people::name_in(part.node, self.namespaces);
                part.is_taken = name.is_some();
                names.extend(name);
            }
            if let Some(names) = people::joined(names) {
                return Some(names);
            }
        }
        let source = self.parts.iter().find(|part| part.is(Role::Source, 0))?;
        authors(source.node, self.namespaces)
    }

    /// All categories in document order. One that comes twice without a domain that tells them apart is one.
    ///
    /// What iTunes and Media RSS have as categories and keywords stays an extension too.
    fn categories(&mut self) -> Vec<String> {
        let mut categories: Vec<String> = Vec::new();
        let mut add = |term: String, has_domain: bool| {
            if has_domain || categories.len() > CATEGORIES_COMPARED_MAX || !categories.contains(&term) {
                categories.push(term);
            }
        };
        for part in &mut self.parts {
            let node = part.node;
            if part.is(Role::Category, 0) {
                let attribute = |name: &str| node.attribute(name).and_then(markup::non_blank);
                let term = attribute("term").or_else(|| markup::text(node)).or_else(|| attribute("label"));
                let Some(term) = term.or_else(|| attribute("text")) else { continue };
                part.is_taken = !matches!(part.vocabulary, Vocabulary::Itunes | Vocabulary::Media);
                add(term, node.attribute("domain").or(node.attribute("scheme")).is_some());
            } else if part.is(Role::Keywords, 0) {
                let list = markup::text(node).unwrap_or_default();
                let terms = list.split(',').filter_map(markup::non_blank);
                terms.take(KEYWORDS_MAX).for_each(|term| add(term, false));
            }
        }
        categories
    }

    /// Enclosures in document order; the files of `media:content`, grouped or not, where there is none.
    fn enclosures(&mut self, item: Node<'a, 'input>) -> Vec<Enclosure> {
        let mut enclosures = Vec::new();
        let mut has_media = false;
        for part in &mut self.parts {
            has_media |= part.vocabulary == Vocabulary::Media;
            let is_link = part.is(Role::Link, 0)
                && part.node.attribute("rel").is_some_and(|rel| rel.trim().eq_ignore_ascii_case("enclosure"));
            if is_link || part.is(Role::Enclosure, 0) {
                let enclosure = links::enclosure(part.node, "length", self.base_url);
                part.is_taken |= enclosure.is_some();
                enclosures.extend(enclosure);
            }
        }
        if enclosures.is_empty() && has_media {
            let files = item.descendants().filter(|node| {
                node.is_element()
                    && node.tag_name().name() == "content"
                    && self.namespaces.vocabulary(*node) == Vocabulary::Media
            });
            enclosures.extend(files.filter_map(|node| links::enclosure(node, "fileSize", self.base_url)));
        }
        enclosures
    }
}

/// Keywords of one list that are read: a byte of it could become a category.
const KEYWORDS_MAX: usize = 1000;

/// Categories among which a repeated one is looked for, so that an item of nothing else takes no quadratic time.
const CATEGORIES_COMPARED_MAX: usize = 256;

/// The authors that stand in a feed or a source of Atom.
pub(super) fn authors<'a>(node: Node<'a, '_>, namespaces: &Namespaces<'a>) -> Option<String> {
    let is_author = |child: &Node<'a, '_>| {
        child.is_element() && child.tag_name().name() == "author" && namespaces.vocabulary(*child) == Vocabulary::Core
    };
    people::joined(node.children().filter(is_author).filter_map(|author| people::name_in(author, namespaces)))
}
