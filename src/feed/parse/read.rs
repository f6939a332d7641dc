//! What the readers of the formats share: finding elements, links, dates, and the list of what no field took.

use std::collections::HashSet;

use jiff::Timestamp;
use roxmltree::{Node, NodeId};
use url::Url;

use super::extensions::Extensions;
use super::namespaces::{self, XML};
use super::{date, markup};
use crate::item::{Enclosure, Item};

/// How much longer a resolved link may be than what stands in the document: a base is written once and stands in each.
const BASE_MAX_BYTES: usize = 512;

/// An item element being read.
///
/// An element that filled a field is noted, so that the rest of the namespaced ones can be listed as extensions and
/// nothing is there twice.
pub(super) struct ItemElement<'a, 'input> {
    node: Node<'a, 'input>,
    /// Namespace of the format's own elements, beside none.
    core: Option<&'a str>,
    base_url: Option<&'a Url>,
    used: HashSet<NodeId>,
    /// Dates that were there and could not be read.
    pub(super) unreadable_dates: usize,
}

impl<'a, 'input> ItemElement<'a, 'input> {
    pub(super) fn new(node: Node<'a, 'input>, core: Option<&'a str>, base_url: Option<&'a Url>) -> Self {
        Self { node, core, base_url, used: HashSet::new(), unreadable_dates: 0 }
    }

    /// The element children called `name` in the format's own namespace.
    pub(super) fn core(&self, name: &'static str) -> impl Iterator<Item = Node<'a, 'input>> + use<'a, 'input> {
        core_children(self.node, self.core, name)
    }

    /// The element children called `name` in `namespace`.
    pub(super) fn foreign(
        &self,
        namespace: &'static str,
        name: &'static str,
    ) -> impl Iterator<Item = Node<'a, 'input>> + use<'a, 'input> {
        let is_meant = move |node: &Node<'_, '_>| {
            let tag = node.tag_name();
            tag.name() == name && tag.namespace().is_some_and(|uri| namespaces::same(uri, namespace))
        };
        self.node.children().filter(is_meant)
    }

    /// The first of `candidates` with a text, as text or markup.
    pub(super) fn markup(&mut self, candidates: impl IntoIterator<Item = Node<'a, 'input>>) -> Option<String> {
        self.first(candidates, markup::text_or_markup)
    }

    /// The first of `candidates` with a text, without markup.
    pub(super) fn text(&mut self, candidates: impl IntoIterator<Item = Node<'a, 'input>>) -> Option<String> {
        self.first(candidates, markup::text)
    }

    /// The texts of all `candidates`.
    pub(super) fn texts(&mut self, candidates: impl IntoIterator<Item = Node<'a, 'input>>) -> Vec<String> {
        candidates.into_iter().filter_map(|node| self.take(node, markup::text(node))).collect()
    }

    /// The first date of `candidates` that can be read; the others are counted.
    pub(super) fn date(&mut self, candidates: impl IntoIterator<Item = Node<'a, 'input>>) -> Option<Timestamp> {
        for node in candidates {
            let Some(text) = markup::text(node) else { continue };
            match date::parse(&text) {
                Some(at) => return self.take(node, Some(at)),
                None => self.unreadable_dates += 1,
            }
        }
        None
    }

    /// The first of `candidates` that `read` gets something from.
    pub(super) fn first<T>(
        &mut self,
        candidates: impl IntoIterator<Item = Node<'a, 'input>>,
        read: impl Fn(Node<'a, 'input>) -> Option<T>,
    ) -> Option<T> {
        candidates.into_iter().find_map(|node| self.take(node, read(node)))
    }

    /// Notes `node` as used when it gave a value.
    pub(super) fn take<T>(&mut self, node: Node<'a, 'input>, value: Option<T>) -> Option<T> {
        if value.is_some() {
            self.used.insert(node.id());
        }
        value
    }

    /// `link` as an absolute URL; see [`resolve`].
    pub(super) fn resolve(&self, node: Node<'_, '_>, link: &str) -> String {
        resolve(node, link, self.base_url)
    }

    /// An enclosure from the attributes that `names` calls its URL, its media type and its length.
    pub(super) fn enclosure(&self, node: Node<'_, '_>, names: [&str; 3]) -> Option<Enclosure> {
        let [url, media_type, length] = names.map(|name| node.attribute(name).and_then(markup::non_blank));
        Some(Enclosure {
            url: self.resolve(node, &url?),
            media_type,
            length: length.and_then(|length| length.parse().ok()),
        })
    }

    /// The files of `media:content`, grouped or not. They stay extensions too: most of what they say (size, credit,
    /// rating) has no place in an enclosure.
    pub(super) fn media_enclosures(&self) -> Vec<Enclosure> {
        self.node
            .descendants()
            .filter(|node| {
                let tag = node.tag_name();
                tag.name() == "content" && tag.namespace().is_some_and(|uri| namespaces::same(uri, namespaces::MEDIA))
            })
            .filter_map(|node| self.enclosure(node, ["url", "type", "fileSize"]))
            .collect()
    }

    /// Puts what no field took into `item.extensions`, and hands the item over.
    pub(super) fn finish(self, mut item: Item) -> Item {
        let mut extensions = Extensions::default();
        for node in self.node.children().filter(Node::is_element) {
            let is_foreign = node.tag_name().namespace().is_some_and(|uri| Some(uri) != self.core);
            if is_foreign && !self.used.contains(&node.id()) {
                extensions.add(node);
            }
        }
        item.extensions = extensions.into_values();
        item
    }
}

/// The element children of `node` called `name`, in namespace `core` or none.
pub(super) fn core_children<'a, 'input>(
    node: Node<'a, 'input>,
    core: Option<&'a str>,
    name: &'static str,
) -> impl Iterator<Item = Node<'a, 'input>> + use<'a, 'input> {
    let is_meant = move |child: &Node<'_, '_>| {
        let tag = child.tag_name();
        tag.name() == name && (tag.namespace().is_none() || tag.namespace() == core)
    };
    node.children().filter(is_meant)
}

/// `link` as an absolute URL: an absolute one as it was written, byte for byte (it may be an item's identity); a
/// relative one against the `xml:base` in force at `node`, else `base_url`. Without a base, or with one over
/// [`BASE_MAX_BYTES`], it stays as it is.
pub(super) fn resolve(node: Node<'_, '_>, link: &str, base_url: Option<&Url>) -> String {
    let link = link.trim();
    if Url::parse(link).is_ok() {
        return link.to_owned();
    }
    let resolved = base(node, base_url).and_then(|base| base.join(link).ok());
    let resolved = resolved.filter(|resolved| resolved.as_str().len() <= link.len() + BASE_MAX_BYTES);
    resolved.map_or_else(|| link.to_owned(), String::from)
}

/// The base in force at `node`: each `xml:base` is relative to the one outside it.
fn base(node: Node<'_, '_>, base_url: Option<&Url>) -> Option<Url> {
    let mut bases: Vec<&str> = node.ancestors().filter_map(|outer| outer.attribute((XML, "base"))).collect();
    bases.reverse();
    bases.into_iter().fold(base_url.cloned(), |outer, base| match outer {
        Some(outer) => outer.join(base.trim()).ok().or(Some(outer)),
        None => Url::parse(base.trim()).ok(),
    })
}

/// The name out of `mail (Name)` and `Name <mail>`; anything else as it is.
pub(super) fn person(text: &str) -> String {
    let in_brackets = text.split_once('(').and_then(|(mail, rest)| {
        let name = rest.trim_end().strip_suffix(')')?;
        mail.contains('@').then_some(name)
    });
    let before_mail = text.split_once('<').and_then(|(name, mail)| mail.contains('@').then_some(name));
    let name = in_brackets.or(before_mail).map(|name| name.trim().trim_matches('"'));
    name.filter(|name| !name.is_empty()).unwrap_or(text).to_owned()
}

/// Several names as one text, each once.
pub(super) fn joined(names: &[String]) -> Option<String> {
    let mut known = HashSet::new();
    let unique: Vec<&str> = names.iter().map(String::as_str).filter(|name| known.insert(*name)).collect();
    (!unique.is_empty()).then(|| unique.join(", "))
}

#[cfg(test)]
mod tests {
    use roxmltree::Document;
    use url::Url;

    use super::{person, resolve};

    #[test]
    fn a_name_is_taken_out_of_a_mail_address() {
        assert_eq!(person("ann@example.com (Ann Lee)"), "Ann Lee");
        assert_eq!(person("\"Ann Lee\" <ann@example.com>"), "Ann Lee");
        assert_eq!(person("ann@example.com"), "ann@example.com");
        assert_eq!(person("Ann Lee (editor)"), "Ann Lee (editor)");
        assert_eq!(person("<ann@example.com>"), "<ann@example.com>");
    }

    #[test]
    fn relative_links_follow_xml_base_and_then_the_address_of_the_feed() {
        let xml = "<a xml:base='http://b.example/x/'><b xml:base='y/'/></a>";
        let document = Document::parse(xml).expect("is well-formed");
        let inner = document.root_element().first_child().expect("has a child");
        let feed = Url::parse("http://feed.example/f.xml").expect("is a URL");
        assert_eq!(resolve(inner, "z?q=1", Some(&feed)), "http://b.example/x/y/z?q=1");
        assert_eq!(resolve(inner, " http://Abs.example ", Some(&feed)), "http://Abs.example");
        let plain = Document::parse("<a/>").expect("is well-formed");
        assert_eq!(resolve(plain.root_element(), "/z", Some(&feed)), "http://feed.example/z");
        assert_eq!(resolve(plain.root_element(), "/z", None), "/z");
    }

    #[test]
    fn a_base_too_long_to_stand_in_every_link_is_not_used() {
        let xml = format!("<a xml:base='http://b.example/{}/'/>", "x".repeat(600));
        let document = Document::parse(&xml).expect("is well-formed");
        assert_eq!(resolve(document.root_element(), "z", None), "z");
    }
}
