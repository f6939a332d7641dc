//! Element children as text: what a publisher wrote as raw XHTML becomes the HTML it stands for.

use base64::prelude::{BASE64_STANDARD, Engine as _};
use encoding_rs::WINDOWS_1252;
use roxmltree::{Node, NodeType};

use super::namespaces::{XHTML, XML, own_prefix};

/// Elements that HTML writes without an end tag.
const VOID: &[&str] =
    &["area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "param", "source", "track", "wbr"];

/// The text of a field, trimmed; `None` when nothing is left.
///
/// Escaped markup stays as it is (XML unescapes one level). Element children are serialised, and then the text around
/// them is escaped again, so that the result is HTML either way. It is told by what the field holds and not by its
/// `type`, which is wrong too often. The one `div` around XHTML is not part of it (RFC 4287, 3.1.1.3).
pub(super) fn text_or_markup(node: Node<'_, '_>) -> Option<String> {
    let mut elements = node.children().filter(Node::is_element);
    let Some(first) = elements.next() else { return text(node) };
    let is_alone = elements.next().is_none();
    let tag = first.tag_name();
    let is_div = is_alone && tag.name() == "div" && tag.namespace() == Some(XHTML);
    let is_blank = |child: Node<'_, '_>| child.is_element() || child.text().is_none_or(|text| text.trim().is_empty());
    inner(if is_div && node.children().all(is_blank) { first } else { node })
}

/// The text of a title, summary or content, which may be in base64: `mode="base64"` in Atom 0.3, any `type` that is no text
/// in Atom 1.0.
pub(super) fn construct(node: Node<'_, '_>) -> Option<String> {
    let text = text_or_markup(node)?;
    let is_base64 = match (node.attribute("mode"), node.attribute("type")) {
        (Some(mode), _) => mode == "base64",
        (None, Some(media_type)) => {
            let is_text =
                media_type.starts_with("text/") || media_type.ends_with("+xml") || media_type.ends_with("/xml");
            media_type.contains('/') && !is_text
        }
        (None, None) => false,
    };
    let decoded = || {
        let packed: String = text.split_ascii_whitespace().collect();
        non_blank(&String::from_utf8(BASE64_STANDARD.decode(packed).ok()?).ok()?)
    };
    is_base64.then(decoded).flatten().or(Some(text))
}

/// All text below `node`, trimmed, without its markup; `None` when nothing is left.
pub(super) fn text(node: Node<'_, '_>) -> Option<String> {
    let mut children = node.children();
    match (children.next(), children.next()) {
        (None, _) => None,
        (Some(only), None) if only.is_text() => non_blank(only.text()?),
        _ => non_blank(&node.descendants().filter(Node::is_text).filter_map(|child| child.text()).collect::<String>()),
    }
}

/// The children of `node` as markup, trimmed; `None` when nothing is left.
pub(super) fn inner(node: Node<'_, '_>) -> Option<String> {
    let mut html = String::with_capacity(node.range().len());
    for child in node.children() {
        write(child, &mut html);
    }
    non_blank(&html)
}

/// `text` without the white space around it, unless that is all there is.
///
/// Two mistakes that writers of feeds make are mended, which never stand for something else:
///
/// - Text that was encoded in UTF-8 twice (`Ã©` for `é`), if all of it was.
/// - Control characters U+0080 to U+009F are what windows-1252 has at their number: nobody means the others, and
///   `&#146;` is a common apostrophe.
pub(super) fn non_blank(text: &str) -> Option<String> {
    let text = text.trim();
    if text.is_empty() {
        return None;
    }
    let bytes = text.as_bytes();
    // Both have characters U+0080 to U+00BF, which in UTF-8 start with C2.
    let (mut has_control, mut has_encoded) = (false, false);
    for at in memchr::memchr_iter(0xc2, bytes) {
        has_control |= bytes.get(at + 1).is_some_and(|byte| *byte < 0xa0);
        // Before it U+00C2 to U+00F4, with which a character of two to four bytes starts.
        has_encoded |= at >= 2 && bytes[at - 2] == 0xc3 && (0x82..=0xb4).contains(&bytes[at - 1]);
    }
    let decoded = has_encoded.then(|| decoded_again(text)).flatten();
    if has_control || decoded.is_some() {
        return Some(decoded.as_deref().unwrap_or(text).chars().map(from_windows_1252).collect());
    }
    Some(text.to_owned())
}

/// What `text` says when its characters are bytes of UTF-8; `None` if they are not.
fn decoded_again(text: &str) -> Option<String> {
    let bytes: Option<Vec<u8>> = text.chars().map(|c| u8::try_from(c).ok()).collect();
    String::from_utf8(bytes?).ok()
}

fn from_windows_1252(c: char) -> char {
    let byte = u8::try_from(c).ok().filter(|byte| (0x80..0xa0).contains(byte));
    let decoded = byte.and_then(|byte| WINDOWS_1252.decode(&[byte]).0.chars().next());
    decoded.unwrap_or(c)
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
    let mut rest = text;
    let special = |byte: &u8| matches!(byte, b'&' | b'<' | b'>') || in_attribute && *byte == b'"';
    while let Some(at) = rest.as_bytes().iter().position(special) {
        html.push_str(&rest[..at]);
        html.push_str(match rest.as_bytes()[at] {
            b'&' => "&amp;",
            b'<' => "&lt;",
            b'>' => "&gt;",
            _ => "&quot;",
        });
        rest = &rest[at + 1..];
    }
    html.push_str(rest);
}

#[cfg(test)]
mod tests {
    use roxmltree::Document;

    use super::{construct, text, text_or_markup};

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
    fn the_one_div_around_xhtml_is_left_out() {
        let div = "<h:div xmlns:h='http://www.w3.org/1999/xhtml'>a <h:b>b</h:b></h:div>";
        assert_eq!(field(&format!("<d> {div}\n</d>")).as_deref(), Some("a <b>b</b>"));
        assert_eq!(field(&format!("<d>c {div}</d>")).as_deref(), Some("c <div>a <b>b</b></div>"));
        assert_eq!(field("<d><div>a</div></d>").as_deref(), Some("<div>a</div>"));
    }

    #[test]
    fn base64_is_unpacked_when_it_is_text() {
        let content = |xml: &str| construct(Document::parse(xml).expect("is well-formed").root_element());
        assert_eq!(content("<c mode='base64'> PGI+\nYTwvYj4= </c>").as_deref(), Some("<b>a</b>"));
        assert_eq!(content("<c type='application/octet-stream'>YQ==</c>").as_deref(), Some("a"));
        assert_eq!(content("<c type='image/png'>iVBORw0KGgo=</c>").as_deref(), Some("iVBORw0KGgo="));
        assert_eq!(content("<c type='html'>YQ==</c>").as_deref(), Some("YQ=="));
    }

    #[test]
    fn numbers_of_windows_1252_are_its_characters() {
        assert_eq!(field("<d>it&#146;s \u{a0}x&#128;</d>").as_deref(), Some("it’s \u{a0}x€"));
    }

    #[test]
    fn blank_is_none_and_text_drops_markup() {
        assert_eq!(field("<d> \n </d>"), None);
        let document = Document::parse("<d>a<b>b</b> c</d>").expect("is well-formed");
        assert_eq!(text(document.root_element()).as_deref(), Some("ab c"));
    }
}
