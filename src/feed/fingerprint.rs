//! What tells a changed item from an unchanged one: seven bytes of a hash over its content.
//!
//! The hash is taken over a canonical form, so that the same content gives the same bytes whatever order or white
//! space it came with. How that form is made is the *normaliser*, and it has a version: another parser or other
//! trimming must not turn every item of every feed into a changed one, so [`fingerprint_as`] still computes what an
//! older version made of an item, and [`super::seen`] compares with that once.
//!
//! *Not in it:* source, guid and feed name, which say which item it is and not what it says.

use jiff::Timestamp;
use xxhash_rust::xxh3::Xxh3Default;

use crate::item::Item;

/// Version of the canonical form that [`fingerprint`] uses. To change the form, add a version and keep the older
/// ones in [`fingerprint_as`] until no seen map holds them (a feed's map lives for days after its last fetch).
///
/// At most 15: a seen record has four bits for it.
pub const NORMALISER_VERSION: u8 = 1;

/// Seven bytes that change when the content of an item does. Two contents share one by chance once in 7 × 10^16.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fingerprint(pub [u8; 7]);

/// The fingerprint of `item` in the current version.
pub fn fingerprint(item: &Item) -> Fingerprint {
    of(item, canonical_v1)
}

/// The fingerprint that normaliser `version` gives `item`; `None` for a version that is not known here.
pub fn fingerprint_as(version: u8, item: &Item) -> Option<Fingerprint> {
    match version {
        1 => Some(of(item, canonical_v1)),
        _ => None,
    }
}

fn of(item: &Item, canonical: fn(&Item, &mut Canonical)) -> Fingerprint {
    let mut form = Canonical(Xxh3Default::new());
    canonical(item, &mut form);
    let [_, bytes @ ..] = form.0.digest().to_be_bytes();
    // All ones mean "forgotten" in a seen map.
    Fingerprint(if bytes == [0xFF; 7] { [0xFE; 7] } else { bytes })
}

/// Version 1: the fields in the order of [`Item`], texts trimmed, extensions as JSON.
fn canonical_v1(item: &Item, form: &mut Canonical) {
    form.optional(item.title.as_deref());
    form.optional(item.link.as_deref());
    form.instant(item.published);
    form.instant(item.updated);
    form.optional(item.summary.as_deref());
    form.optional(item.content.as_deref());
    form.optional(item.author.as_deref());
    form.count(item.categories.len());
    for category in &item.categories {
        form.text(category);
    }
    form.count(item.enclosures.len());
    for enclosure in &item.enclosures {
        form.text(&enclosure.url);
        form.optional(enclosure.media_type.as_deref());
        form.optional(enclosure.length.map(|length| length.to_string()).as_deref());
    }
    form.count(item.extensions.len());
    for (name, value) in &item.extensions {
        form.text(name);
        form.text(&value.to_string());
    }
}

/// Feeds the hash so that no two contents look alike: each text is preceded by its length, each list by its count,
/// and an absent text differs from an empty one.
struct Canonical(Xxh3Default);

impl Canonical {
    fn count(&mut self, count: usize) {
        self.0.update(&(count as u64).to_be_bytes());
    }

    fn text(&mut self, text: &str) {
        let text = text.trim();
        self.count(text.len());
        self.0.update(text.as_bytes());
    }

    fn optional(&mut self, text: Option<&str>) {
        self.count(usize::from(text.is_some()));
        if let Some(text) = text {
            self.text(text);
        }
    }

    fn instant(&mut self, at: Option<Timestamp>) {
        self.optional(at.map(|at| at.to_string()).as_deref());
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use serde_json::json;

    use super::{Fingerprint, NORMALISER_VERSION, fingerprint, fingerprint_as};
    use crate::item::{Enclosure, Item};

    fn full() -> Item {
        Item {
            source: "https://jobs.example/feed".to_owned(),
            guid: "1".to_owned(),
            feed: Some("jobs".to_owned()),
            title: Some("Gärtner".to_owned()),
            link: Some("https://jobs.example/1".to_owned()),
            published: Some(Timestamp::constant(1_700_000_000, 0)),
            updated: Some(Timestamp::constant(1_700_000_001, 0)),
            summary: Some("short".to_owned()),
            content: Some("<p>long</p>".to_owned()),
            author: Some("Ann".to_owned()),
            categories: vec!["a".to_owned(), "b".to_owned()],
            enclosures: vec![Enclosure { url: "u".to_owned(), media_type: None, length: Some(3) }],
            extensions: [("job:city".to_owned(), json!(["Ulm", "Wien"]))].into(),
        }
    }

    #[test]
    fn version_1_gives_the_same_bytes_for_ever() {
        // Stored in the seen maps of every installation: a difference here makes every item of every feed changed.
        assert_eq!(fingerprint(&full()), Fingerprint([191, 37, 134, 87, 245, 125, 117]));
        assert_eq!(fingerprint(&Item::default()), Fingerprint([218, 156, 209, 186, 96, 236, 213]));
    }

    #[test]
    fn every_content_field_counts() {
        let changes: [fn(&mut Item); 11] = [
            |item| item.title = None,
            |item| item.link = Some(String::new()),
            |item| item.published = item.updated,
            |item| item.updated = None,
            |item| item.summary = Some("shorter".to_owned()),
            |item| item.content = item.summary.clone(),
            |item| item.author = None,
            |item| item.categories.reverse(),
            |item| item.categories = vec!["ab".to_owned()],
            |item| item.enclosures[0].length = None,
            |item| item.extensions = [("job:city".to_owned(), json!("Ulm"))].into(),
        ];
        for (i, change) in changes.into_iter().enumerate() {
            let mut item = full();
            change(&mut item);
            assert_ne!(fingerprint(&item), fingerprint(&full()), "change {i}");
        }
    }

    #[test]
    fn identity_and_white_space_around_texts_do_not_count() {
        let mut item = full();
        item.source = "other".to_owned();
        item.guid = "2".to_owned();
        item.feed = None;
        item.title = Some(" Gärtner\n".to_owned());
        item.categories[0].push(' ');
        assert_eq!(fingerprint(&item), fingerprint(&full()));
    }

    #[test]
    fn a_field_moved_to_its_neighbour_is_a_change() {
        let first = Item { title: Some("x".to_owned()), ..Item::default() };
        let second = Item { link: Some("x".to_owned()), ..Item::default() };
        assert_ne!(fingerprint(&first), fingerprint(&second));
        assert_ne!(fingerprint(&Item { title: Some(String::new()), ..Item::default() }), fingerprint(&Item::default()));
    }

    #[test]
    fn a_known_version_can_be_asked_for_and_an_unknown_one_is_none() {
        assert_eq!(fingerprint_as(NORMALISER_VERSION, &full()), Some(fingerprint(&full())));
        assert_eq!(fingerprint_as(0, &full()), None);
        assert_eq!(fingerprint_as(NORMALISER_VERSION + 1, &full()), None);
    }
}
