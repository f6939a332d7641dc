//! What a namespace means: whose words are in it, and its usual prefix, which is what a field of `extensions` is called
//! whatever prefix the feed chose.

use std::cell::RefCell;

use roxmltree::Node;

const ATOM: &str = "http://www.w3.org/2005/Atom";
const ATOM_03: &str = "http://purl.org/atom/ns#";
const RSS_090: &str = "http://my.netscape.com/rdf/simple/0.9/";
const RSS_10: &str = "http://purl.org/rss/1.0/";
const CONTENT: &str = "http://purl.org/rss/1.0/modules/content/";
const DC: &str = "http://purl.org/dc/elements/1.1/";
const DCTERMS: &str = "http://purl.org/dc/terms/";
const ITUNES: &str = "http://www.itunes.com/dtds/podcast-1.0.dtd";
const MEDIA: &str = "http://search.yahoo.com/mrss/";
pub(super) const RDF: &str = "http://www.w3.org/1999/02/22-rdf-syntax-ns#";
pub(super) const XHTML: &str = "http://www.w3.org/1999/xhtml";
pub(super) const XML: &str = "http://www.w3.org/XML/1998/namespace";

/// Namespace → the prefix its specification uses. Compared without regard to case, `http` or `https`, and a final slash,
/// which feeds write either way (`https://search.yahoo.com/mrss`).
const USUAL_PREFIXES: &[(&str, &str)] = &[
    (ATOM, "atom"),
    (ATOM_03, "atom"),
    (RSS_090, "rss"),
    ("http://channel.netscape.com/rdf/simple/0.9/", "rss"),
    (RSS_10, "rss"),
    ("http://purl.org/rss/1.0/modules/rss091#", "rss"),
    ("http://blogs.law.harvard.edu/tech/rss", "rss"),
    ("http://purl.org/atom/app#", "app"),
    ("http://www.w3.org/2007/app", "app"),
    ("http://webns.net/mvcb/", "admin"),
    ("http://www.rssboard.org/media-rss", "media"),
    (CONTENT, "content"),
    ("http://creativecommons.org/ns#", "cc"),
    ("http://cyber.law.harvard.edu/rss/creativeCommonsRssModule.html", "creativeCommons"),
    ("http://backend.userland.com/creativeCommonsRssModule", "creativeCommons"),
    (DC, "dc"),
    (DCTERMS, "dcterms"),
    ("http://rssnamespace.org/feedburner/ext/1.0", "feedburner"),
    ("http://schemas.google.com/g/2005", "gd"),
    ("http://www.w3.org/2003/01/geo/wgs84_pos#", "geo"),
    ("http://www.georss.org/georss", "georss"),
    ("http://www.opengis.net/gml", "gml"),
    ("http://www.google.com/schemas/play-podcasts/1.0", "googleplay"),
    (ITUNES, "itunes"),
    (MEDIA, "media"),
    ("http://a9.com/-/spec/opensearch/1.1/", "opensearch"),
    ("http://a9.com/-/spec/opensearchrss/1.0/", "opensearch"),
    ("https://podcastindex.org/namespace/1.0", "podcast"),
    ("https://github.com/Podcastindex-org/podcast-namespace/blob/main/docs/1.0.md", "podcast"),
    ("http://podlove.org/simple-chapters", "psc"),
    ("http://www.rawvoice.com/rawvoiceRssModule/", "rawvoice"),
    (RDF, "rdf"),
    ("http://purl.org/rss/1.0/modules/slash/", "slash"),
    ("http://www.smartnews.be/snf", "snf"),
    ("http://www.spotify.com/ns/rss", "spotify"),
    ("http://purl.org/rss/1.0/modules/syndication/", "sy"),
    ("http://purl.org/syndication/thread/1.0", "thr"),
    ("http://purl.org/rss/1.0/modules/taxonomy/", "taxo"),
    ("http://madskills.com/public/xml/rss/module/trackback/", "trackback"),
    ("http://webfeeds.org/rss/1.0", "webfeeds"),
    ("http://wellformedweb.org/CommentAPI/", "wfw"),
    (XHTML, "xhtml"),
    (XML, "xml"),
    ("http://www.youtube.com/xml/schemas/2015", "yt"),
];

/// Longest prefix of the document's own that is used. It is declared once and may be put before every name.
const PREFIX_MAX_BYTES: usize = 64;

/// Namespaces of the userland RSS, all of which start so.
const USERLAND_START: &str = "http://backend.userland.com/rss";

/// Namespaces whose recognition is remembered; a feed has a dozen. Beyond, one is recognised each time.
const REMEMBERED_MAX: usize = 64;

/// Whose words the names in a namespace are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Vocabulary {
    /// The feed formats' own, or no namespace at all.
    Core,
    Content,
    Dc,
    DcTerms,
    Itunes,
    Media,
    Rdf,
    Xhtml,
    Other,
}

/// A namespace, recognised.
#[derive(Clone, Copy)]
pub(super) struct Known {
    pub(super) vocabulary: Vocabulary,
    usual_prefix: Option<&'static str>,
}

/// Recognises the namespaces of one document, remembering those it has seen.
///
/// A namespace that is not known is recognised by its prefix, where that is a usual one (`xmlns:dc="urn:mine"`). Without
/// a prefix, where the root or what is in it has it, it is the feed's own: `<feed xmlns="http://www.w3.org/2005/Atm">`
/// means Atom.
#[derive(Default)]
pub(super) struct Namespaces<'a> {
    seen: RefCell<Vec<(&'a str, Known)>>,
    /// A namespace that is the formats' own in this document, though nothing but its place says so.
    own: Option<&'a str>,
}

impl<'a> Namespaces<'a> {
    /// Those of the document whose root element is `root`.
    pub(super) fn of(root: Node<'a, '_>) -> Self {
        let inside = root.children().find(Node::is_element);
        let unprefixed =
            |node: Node<'a, '_>| node.default_namespace().filter(|uri| node.tag_name().namespace() == Some(uri));
        let own = unprefixed(root).or_else(|| unprefixed(inside?));
        let own = own.filter(|uri| recognise(uri).vocabulary == Vocabulary::Other);
        Self { own, ..Self::default() }
    }

    /// The vocabulary of an element.
    pub(super) fn vocabulary(&self, node: Node<'a, '_>) -> Vocabulary {
        node.tag_name().namespace().map_or(Vocabulary::Core, |namespace| self.known(node, namespace).vocabulary)
    }

    /// `prefix:name` of an element or attribute in `namespace`, seen from `node`. A namespace we do not know keeps the
    /// prefix the document gives it; one without a prefix gives the bare name.
    pub(super) fn usual_name(&self, node: Node<'_, '_>, namespace: &'a str, name: &str) -> String {
        let usual = self.known(node, namespace).usual_prefix;
        match usual.or_else(|| own_prefix(node, namespace)) {
            Some(prefix) => [prefix, ":", name].concat(),
            None => name.to_owned(),
        }
    }

    /// What `namespace`, which is in force at `node`, is.
    fn known(&self, node: Node<'_, '_>, namespace: &'a str) -> Known {
        let mut seen = self.seen.borrow_mut();
        // A declaration is one place in memory, however many elements are in it.
        if let Some((_, known)) = seen.iter().find(|(uri, _)| std::ptr::eq(*uri, namespace)) {
            return *known;
        }
        let mut known = recognise(namespace);
        if self.own == Some(namespace) {
            known.vocabulary = Vocabulary::Core;
        } else if known.vocabulary == Vocabulary::Other && known.usual_prefix.is_none() {
            known = own_prefix(node, namespace).and_then(usual_namespace).map_or(known, recognise);
        }
        if seen.len() < REMEMBERED_MAX {
            seen.push((namespace, known));
        }
        known
    }
}

fn recognise(namespace: &str) -> Known {
    let usual_prefix = USUAL_PREFIXES.iter().find(|(uri, _)| same(uri, namespace)).map(|(_, prefix)| *prefix);
    let is_userland = || {
        let start = namespace.get(..USERLAND_START.len());
        start.is_some_and(|start| start.eq_ignore_ascii_case(USERLAND_START))
    };
    let vocabulary = match usual_prefix {
        Some("atom" | "rss") => Vocabulary::Core,
        Some("content") => Vocabulary::Content,
        Some("dc") => Vocabulary::Dc,
        Some("dcterms") => Vocabulary::DcTerms,
        Some("itunes") => Vocabulary::Itunes,
        Some("media") => Vocabulary::Media,
        Some("rdf") => Vocabulary::Rdf,
        Some("xhtml") => Vocabulary::Xhtml,
        _ if namespace.is_empty() || is_userland() => Vocabulary::Core,
        _ => Vocabulary::Other,
    };
    Known { vocabulary, usual_prefix }
}

/// The namespace that `prefix` usually stands for.
pub(super) fn usual_namespace(prefix: &str) -> Option<&'static str> {
    USUAL_PREFIXES.iter().find(|(_, usual)| *usual == prefix).map(|(uri, _)| *uri)
}

/// Whether two spellings name the same namespace.
fn same(left: &str, right: &str) -> bool {
    bare(left).eq_ignore_ascii_case(bare(right))
}

/// A namespace without what feeds write either way.
fn bare(namespace: &str) -> &str {
    let namespace = namespace.trim().trim_end_matches('/');
    let is_web = |scheme: &&str| namespace.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme));
    ["http://", "https://"].iter().find(|scheme| is_web(scheme)).map_or(namespace, |scheme| &namespace[scheme.len()..])
}

/// Whether `namespace` is the one of Atom 0.3.
pub(super) fn is_atom_03(namespace: &str) -> bool {
    same(namespace, ATOM_03)
}

/// Whether `namespace` is the one of RSS 0.90.
pub(super) fn is_rss_090(namespace: &str) -> bool {
    same(namespace, RSS_090)
}

/// The prefix that the document gives `namespace`, seen from `node`.
pub(super) fn own_prefix<'input>(node: Node<'_, 'input>, namespace: &str) -> Option<&'input str> {
    node.lookup_prefix(namespace).filter(|prefix| prefix.len() <= PREFIX_MAX_BYTES)
}

#[cfg(test)]
mod tests {
    use roxmltree::Document;

    use super::{Namespaces, Vocabulary};

    fn name_of_root(xml: &str) -> String {
        let document = Document::parse(xml).expect("is well-formed");
        let root = document.root_element();
        let namespace = root.tag_name().namespace().expect("has a namespace");
        Namespaces::of(root).usual_name(root, namespace, root.tag_name().name())
    }

    #[test]
    fn a_known_namespace_gets_its_usual_prefix_whatever_the_feed_calls_it() {
        assert_eq!(name_of_root("<m:thumbnail xmlns:m='http://search.yahoo.com/mrss'/>"), "media:thumbnail");
        assert_eq!(
            name_of_root("<i:duration xmlns:i='http://www.itunes.com/DTDs/Podcast-1.0.dtd'/>"),
            "itunes:duration"
        );
        assert_eq!(name_of_root("<creator xmlns='http://purl.org/dc/elements/1.1/'/>"), "dc:creator");
    }

    #[test]
    fn an_unknown_namespace_keeps_the_prefix_of_the_document() {
        assert_eq!(
            name_of_root("<job_listing:company xmlns:job_listing='https://jobs.example'/>"),
            "job_listing:company"
        );
        assert_eq!(name_of_root("<company xmlns='https://jobs.example'/>"), "company");
    }

    #[test]
    fn the_namespaces_of_the_formats_are_one_vocabulary() {
        for (xml, vocabulary) in [
            ("<a/>", Vocabulary::Core),
            ("<a xmlns='http://www.w3.org/2005/Atom'/>", Vocabulary::Core),
            ("<a xmlns='http://my.netscape.com/rdf/simple/0.9/'/>", Vocabulary::Core),
            ("<a xmlns='http://backend.userland.com/rss2'/>", Vocabulary::Core),
            ("<a xmlns='http://purl.org/dc/terms/'/>", Vocabulary::DcTerms),
            ("<a xmlns='urn:other'/>", Vocabulary::Other),
        ] {
            let document = Document::parse(xml).expect("is well-formed");
            assert_eq!(Namespaces::default().vocabulary(document.root_element()), vocabulary, "{xml}");
        }
    }

    #[test]
    fn a_namespace_that_is_not_known_is_recognised_by_its_prefix_or_its_place() {
        for (xml, vocabulary) in [
            ("<dc:a xmlns:dc='urn:mine'/>", Vocabulary::Dc),
            ("<m:a xmlns:m='https://search.yahoo.com/mrss'/>", Vocabulary::Media),
            ("<a xmlns='http://www.w3.org/2005/Atm'/>", Vocabulary::Core),
            ("<rdf:a xmlns:rdf='urn:rdf'><b xmlns='urn:rss'/></rdf:a>", Vocabulary::Rdf),
            ("<m:a xmlns:m='urn:mine'/>", Vocabulary::Other),
        ] {
            let document = Document::parse(xml).expect("is well-formed");
            assert_eq!(
                Namespaces::of(document.root_element()).vocabulary(document.root_element()),
                vocabulary,
                "{xml}"
            );
        }
    }
}
