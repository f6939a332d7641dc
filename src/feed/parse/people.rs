//! Names of authors.

use std::collections::HashSet;

use roxmltree::Node;

use super::markup;
use super::namespaces::{Namespaces, Vocabulary};

/// The name in an author element: that of its `name`, else its `email`, else its text.
pub(super) fn name_in<'a>(author: Node<'a, '_>, namespaces: &Namespaces<'a>) -> Option<String> {
    let part = |name: &str| {
        let is_meant = |child: &Node<'a, '_>| {
            child.has_tag_name_ignoring_case(name) && namespaces.vocabulary(*child) == Vocabulary::Core
        };
        author.children().filter(is_meant).find_map(markup::text)
    };
    let bare = || author.children().all(|child| !child.is_element()).then(|| markup::text(author))?;
    part("name").or_else(|| part("email")).or_else(bare).map(|name| person(&name))
}

trait NameIgnoringCase {
    fn has_tag_name_ignoring_case(&self, name: &str) -> bool;
}

impl NameIgnoringCase for Node<'_, '_> {
    fn has_tag_name_ignoring_case(&self, name: &str) -> bool {
        self.is_element() && self.tag_name().name().eq_ignore_ascii_case(name)
    }
}

/// The name beside a mail address (`mail (Name)`, `Name <mail>`, `Name mail`); anything else as it is.
fn person(text: &str) -> String {
    let Some(mail) = mail_address(text) else { return text.to_owned() };
    let around = [&text[..mail.start], &text[mail.end..]].concat();
    let name = ["()", "<>", "&lt;&gt;"].iter().fold(around, |name, brackets| name.replace(brackets, ""));
    let name = name.trim().trim_start_matches("mailto:").trim();
    let name = name.strip_prefix('(').unwrap_or(name);
    let name = name.strip_suffix(')').unwrap_or(name);
    let name = name.trim().trim_matches('"').trim();
    if name.is_empty() { text.to_owned() } else { name.to_owned() }
}

/// Where a mail address stands in `text`.
fn mail_address(text: &str) -> Option<std::ops::Range<usize>> {
    let at = text.find('@')?;
    let is_local = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '+');
    let is_domain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.');
    let local = text[..at].trim_end_matches(is_local).len();
    let domain = &text[at + 1..];
    let domain = domain.len() - domain.trim_start_matches(is_domain).len();
    let is_address = local < at && text[at + 1..at + 1 + domain].trim_matches('.').contains('.');
    is_address.then_some(local..at + 1 + domain)
}

/// Several names as one text, each once.
pub(super) fn joined(names: impl IntoIterator<Item = String>) -> Option<String> {
    let mut known = HashSet::new();
    let unique: Vec<String> = names.into_iter().filter(|name| known.insert(name.clone())).collect();
    (!unique.is_empty()).then(|| unique.join(", "))
}

#[cfg(test)]
mod tests {
    use super::person;

    #[test]
    fn a_name_is_taken_from_beside_a_mail_address() {
        for text in [
            "ann@example.com (Ann Lee)",
            "\"Ann Lee\" <ann@example.com>",
            "Ann Lee ann@example.com",
            "Ann Lee (ann@example.com)",
            "Ann Lee &lt;ann@example.com&gt;",
        ] {
            assert_eq!(person(text), "Ann Lee", "{text}");
        }
        assert_eq!(person("ann@example.com"), "ann@example.com");
        assert_eq!(person("Ann Lee (editor)"), "Ann Lee (editor)");
        assert_eq!(person("<ann@example.com>"), "<ann@example.com>");
        assert_eq!(person("@ann on the net"), "@ann on the net");
    }
}
