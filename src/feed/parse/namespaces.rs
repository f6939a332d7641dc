//! The usual prefix of a namespace: what a field of `extensions` is called, whatever prefix the feed chose.

use roxmltree::Node;

pub(super) const ATOM: &str = "http://www.w3.org/2005/Atom";
pub(super) const ATOM_03: &str = "http://purl.org/atom/ns#";
pub(super) const CONTENT: &str = "http://purl.org/rss/1.0/modules/content/";
pub(super) const DC: &str = "http://purl.org/dc/elements/1.1/";
pub(super) const DCTERMS: &str = "http://purl.org/dc/terms/";
pub(super) const ITUNES: &str = "http://www.itunes.com/dtds/podcast-1.0.dtd";
pub(super) const MEDIA: &str = "http://search.yahoo.com/mrss/";
pub(super) const RDF: &str = "http://www.w3.org/1999/02/22-rdf-syntax-ns#";
pub(super) const XHTML: &str = "http://www.w3.org/1999/xhtml";
pub(super) const XML: &str = "http://www.w3.org/XML/1998/namespace";

/// Namespace → the prefix its specification uses. Compared without regard to case and a final slash, which feeds
/// write either way (`http://search.yahoo.com/mrss`).
const USUAL_PREFIXES: &[(&str, &str)] = &[
    (ATOM, "atom"),
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

/// Whether two spellings name the same namespace.
pub(super) fn same(left: &str, right: &str) -> bool {
    left.trim_end_matches('/').eq_ignore_ascii_case(right.trim_end_matches('/'))
}

/// `prefix:name` of an element or attribute in `namespace`, seen from `node`. A namespace we do not know keeps the
/// prefix the document gives it; one without a prefix gives the bare name.
pub(super) fn usual_name(node: Node<'_, '_>, namespace: &str, name: &str) -> String {
    let usual = USUAL_PREFIXES.iter().find(|(uri, _)| same(uri, namespace)).map(|(_, prefix)| *prefix);
    match usual.or_else(|| own_prefix(node, namespace)) {
        Some(prefix) => format!("{prefix}:{name}"),
        None => name.to_owned(),
    }
}

/// The prefix that the document gives `namespace`, seen from `node`.
pub(super) fn own_prefix<'input>(node: Node<'_, 'input>, namespace: &str) -> Option<&'input str> {
    node.lookup_prefix(namespace).filter(|prefix| prefix.len() <= PREFIX_MAX_BYTES)
}

#[cfg(test)]
mod tests {
    use roxmltree::Document;

    use super::usual_name;

    fn name_of_root(xml: &str) -> String {
        let document = Document::parse(xml).expect("is well-formed");
        let root = document.root_element();
        usual_name(root, root.tag_name().namespace().expect("has a namespace"), root.tag_name().name())
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
}
