//! Element children as text: what a publisher wrote as raw XHTML becomes the HTML it stands for.

use roxmltree::{Node, NodeType};

use super::namespaces::{XHTML, XML, own_prefix};

/// Elements that HTML writes without an end tag.
const VOID: &[&str] =
    &["area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "param", "source", "track", "wbr"];

/// The text of a field, trimmed; `None` when nothing is left.
///
/// Escaped markup stays as it is (XML unescapes one level). Element children are serialised, and then the text around
/// them is escaped again, so that the result is HTML either way.
pub(super) fn text_or_markup(node: Node<'_, '_>) -> Option<String> {
    if node.children().any(|child| child.is_element()) { inner(node) } else { text(node) }
}

/// All text below `node`, trimmed, without its markup; `None` when nothing is left.
pub(super) fn text(node: Node<'_, '_>) -> Option<String> {
    let text: String = node.descendants().filter(Node::is_text).filter_map(|child| child.text()).collect();
    non_blank(&text)
}

/// The children of `node` as markup, trimmed; `None` when nothing is left.
pub(super) fn inner(node: Node<'_, '_>) -> Option<String> {
    let mut html = String::new();
    for child in node.children() {
        write(child, &mut html);
    }
    non_blank(&html)
}

/// `text` without the white space around it, unless that is all there is.
pub(super) fn non_blank(text: &str) -> Option<String> {
    let text = text.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

/// Recursion is bounded by the depth that `guard` lets through.
fn write(node: Node<'_, '_>, html: &mut String) {
    match node.node_type() {
        NodeType::Text => escape(node.text().unwrap_or_default(), false, html),
        NodeType::Element => {
            let name = name(node);
            html.push('<');
            html.push_str(&name);
            for attribute in node.attributes() {
                html.push(' ');
                match attribute.namespace() {
                    Some(XML) => html.push_str("xml:"),
                    Some(namespace) => {
                        if let Some(prefix) = own_prefix(node, namespace) {
                            html.push_str(prefix);
                            html.push(':');
                        }
                    }
                    None => {}
                }
                html.push_str(attribute.name());
                html.push_str("=\"");
                escape(attribute.value(), true, html);
                html.push('"');
            }
            if VOID.contains(&name.as_str()) && !node.has_children() {
                html.push_str("/>");
                return;
            }
            html.push('>');
            for child in node.children() {
                write(child, html);
            }
            html.push_str("</");
            html.push_str(&name);
            html.push('>');
        }
        NodeType::Root | NodeType::PI | NodeType::Comment => {}
    }
}

/// XHTML and elements of a default namespace by their bare name, as HTML has them; others with the prefix they have.
fn name(node: Node<'_, '_>) -> String {
    let tag = node.tag_name();
    let prefix = tag.namespace().filter(|uri| *uri != XHTML && node.default_namespace() != Some(*uri));
    match prefix.and_then(|uri| own_prefix(node, uri)) {
        Some(prefix) => format!("{prefix}:{}", tag.name()),
        None => tag.name().to_owned(),
    }
}

fn escape(text: &str, in_attribute: bool, html: &mut String) {
    for c in text.chars() {
        match c {
            '&' => html.push_str("&amp;"),
            '<' => html.push_str("&lt;"),
            '>' => html.push_str("&gt;"),
            '"' if in_attribute => html.push_str("&quot;"),
            other => html.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use roxmltree::Document;

    use super::{text, text_or_markup};

    fn field(xml: &str) -> Option<String> {
        text_or_markup(Document::parse(xml).expect("is well-formed").root_element())
    }

    #[test]
    fn escaped_markup_is_unescaped_one_level() {
        assert_eq!(field("<d> &lt;p&gt;a &amp;amp; b&lt;/p&gt; </d>").as_deref(), Some("<p>a &amp; b</p>"));
        assert_eq!(field("<d><![CDATA[<p>a &amp; b</p>]]></d>").as_deref(), Some("<p>a &amp; b</p>"));
    }

    #[test]
    fn element_children_are_serialised_as_html() {
        let xml = "<d>a &amp; b<br/><p class='x \"y\"'>c<!-- no --> &lt; d</p><i></i></d>";
        let html = "a &amp; b<br/><p class=\"x &quot;y&quot;\">c &lt; d</p><i></i>";
        assert_eq!(field(xml).as_deref(), Some(html));
    }

    #[test]
    fn prefixes_of_xhtml_are_dropped_and_others_kept() {
        let xml =
            "<d xmlns:h='http://www.w3.org/1999/xhtml' xmlns:x='urn:x'><h:p xml:lang='de'>a</h:p><x:b x:c='1'/></d>";
        assert_eq!(field(xml).as_deref(), Some("<p xml:lang=\"de\">a</p><x:b x:c=\"1\"></x:b>"));
    }

    #[test]
    fn blank_is_none_and_text_drops_markup() {
        assert_eq!(field("<d> \n </d>"), None);
        let document = Document::parse("<d>a<b>b</b> c</d>").expect("is well-formed");
        assert_eq!(text(document.root_element()).as_deref(), Some("ab c"));
    }
}
