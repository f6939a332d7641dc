//! Namespaced elements of an item that no field took → `extensions`.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use roxmltree::Node;
use serde_json::Value;

use super::markup;
use super::namespaces::{Namespaces, XHTML, XML};

/// Longest name that is kept: an element's stands before each of its attributes.
const NAME_MAX_BYTES: usize = 64;

/// Values by `prefix:name`, or `prefix:name@attribute`.
#[derive(Default)]
pub(super) struct Extensions(BTreeMap<String, Value>);

impl Extensions {
    /// Adds `element` (which has a namespace), its attributes, and the namespaced elements inside it, each under its
    /// own name: `media:group/media:thumbnail` is `media:thumbnail`.
    ///
    /// Recursion is bounded by the depth that `guard` lets through.
    pub(super) fn add<'a>(&mut self, element: Node<'a, '_>, namespaces: &Namespaces<'a>) {
        let tag = element.tag_name();
        if tag.name().len() > NAME_MAX_BYTES {
            return;
        }
        let key = match tag.namespace() {
            Some(namespace) => namespaces.usual_name(element, namespace, tag.name()),
            None => tag.name().to_owned(),
        };
        for attribute in element.attributes() {
            if attribute.namespace() == Some(XML) || attribute.name().len() > NAME_MAX_BYTES {
                continue;
            }
            let name = match attribute.namespace() {
                Some(namespace) => Cow::Owned(namespaces.usual_name(element, namespace, attribute.name())),
                None => Cow::Borrowed(attribute.name()),
            };
            if let Some(value) = markup::non_blank(attribute.value()) {
                self.push([&key, "@", &name].concat(), value);
            }
        }
        if element.children().any(is_container_child) {
            for child in element.children().filter(|child| is_container_child(*child)) {
                self.add(child, namespaces);
            }
            let own_text: String = element.children().filter(Node::is_text).filter_map(|child| child.text()).collect();
            if let Some(text) = markup::non_blank(&own_text) {
                self.push(key, text);
            }
        } else if let Some(text) = markup::text_or_markup(element) {
            self.push(key, text);
        }
    }

    /// One value is a string, several are an array in document order.
    fn push(&mut self, key: String, value: String) {
        match self.0.entry(key) {
            Entry::Vacant(free) => {
                free.insert(Value::String(value));
            }
            Entry::Occupied(mut taken) => match taken.get_mut() {
                Value::Array(values) => values.push(Value::String(value)),
                first => *first = Value::Array(vec![first.take(), Value::String(value)]),
            },
        }
    }

    pub(super) fn into_values(self) -> BTreeMap<String, Value> {
        self.0
    }
}

/// A child that is an element of an extension; XHTML and elements without namespace are the text of their parent.
fn is_container_child(child: Node<'_, '_>) -> bool {
    child.is_element() && child.tag_name().namespace().is_some_and(|namespace| namespace != XHTML)
}

#[cfg(test)]
mod tests {
    use roxmltree::Document;
    use serde_json::json;

    use super::{Extensions, Namespaces};

    fn extensions_of(inner: &str) -> serde_json::Value {
        let xml = format!(
            "<item xmlns:m='http://search.yahoo.com/mrss/' xmlns:j='urn:jobs' xmlns='urn:other'>{inner}</item>"
        );
        let document = Document::parse(&xml).expect("is well-formed");
        let mut extensions = Extensions::default();
        let namespaces = Namespaces::default();
        for child in document.root_element().children().filter(roxmltree::Node::is_element) {
            extensions.add(child, &namespaces);
        }
        json!(extensions.into_values())
    }

    #[test]
    fn several_values_become_an_array_in_document_order() {
        assert_eq!(
            extensions_of("<j:tag>b</j:tag><j:one> x </j:one><j:tag>a</j:tag><j:none/>"),
            json!({"j:tag": ["b", "a"], "j:one": "x"})
        );
    }

    #[test]
    fn nested_elements_are_flattened_by_their_own_name() {
        assert_eq!(
            extensions_of("<m:group><m:title>t</m:title><m:thumbnail url='u' xml:lang='en'/></m:group>"),
            json!({"media:title": "t", "media:thumbnail@url": "u"})
        );
    }
}
