//! Links: what they are relative to.

use roxmltree::Node;
use url::Url;

use super::markup;
use super::namespaces::XML;
use crate::item::Enclosure;

/// How much longer a resolved link may be than what stands in the document: a base is written once and stands in each.
const BASE_MAX_BYTES: usize = 512;

/// `link` as an absolute URL: an absolute one as it was written, byte for byte (it may be an item's identity); a
/// relative one against the `xml:base` in force at `node`, else `base_url`. Without a base, or with one over
/// [`BASE_MAX_BYTES`], it stays as it is.
pub(super) fn resolve(node: Node<'_, '_>, link: &str, base_url: Option<&Url>) -> String {
    let link = link.trim();
    if is_absolute(link) {
        return link.to_owned();
    }
    let resolved = base(node, base_url).and_then(|base| base.join(link).ok());
    let resolved = resolved.filter(|resolved| resolved.as_str().len() <= link.len() + BASE_MAX_BYTES);
    resolved.map_or_else(|| link.to_owned(), String::from)
}

/// Whether `link` is the address of a page, wherever it stands.
pub(super) fn is_http(link: &str) -> bool {
    ["http://", "https://"].iter().any(|scheme| {
        let start = link.get(..scheme.len());
        start.is_some_and(|start| start.eq_ignore_ascii_case(scheme)) && link.len() > scheme.len()
    })
}

/// Most links are `http`, which needs no parsing to see.
fn is_absolute(link: &str) -> bool {
    is_http(link) || Url::parse(link).is_ok()
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

/// The address in the attributes of a link or an enclosure, whatever the format calls it.
pub(super) fn address<'a>(node: Node<'a, '_>) -> Option<&'a str> {
    let given = ["href", "url", "uri"].into_iter().find_map(|name| node.attribute(name));
    given.map(str::trim).filter(|address| !address.is_empty())
}

/// An enclosure from the attributes of `node`; its size is in the attribute `length_name`.
pub(super) fn enclosure(node: Node<'_, '_>, length_name: &str, base_url: Option<&Url>) -> Option<Enclosure> {
    Some(Enclosure {
        url: resolve(node, address(node)?, base_url),
        media_type: node.attribute("type").and_then(markup::non_blank),
        length: node.attribute(length_name).and_then(|length| length.trim().parse().ok()),
    })
}

#[cfg(test)]
mod tests {
    use roxmltree::Document;
    use url::Url;

    use super::resolve;

    #[test]
    fn relative_links_follow_xml_base_and_then_the_address_of_the_feed() {
        let xml = "<a xml:base='http://b.example/x/'><b xml:base='y/'/></a>";
        let document = Document::parse(xml).expect("is well-formed");
        let inner = document.root_element().first_child().expect("has a child");
        let feed = Url::parse("http://feed.example/f.xml").expect("is a URL");
        assert_eq!(resolve(inner, "z?q=1", Some(&feed)), "http://b.example/x/y/z?q=1");
        assert_eq!(resolve(inner, " http://Abs.example ", Some(&feed)), "http://Abs.example");
        assert_eq!(resolve(inner, "mailto:a@b.example", Some(&feed)), "mailto:a@b.example");
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
