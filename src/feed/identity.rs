//! The stable key of an item, which makes importing it twice harmless.

use xxhash_rust::xxh3::xxh3_128;

use crate::item::Item;
use crate::job::ID_BYTES_MAX;

/// What a hash that stands in for an identity starts with.
const HASH_PREFIX: &str = "hash:";

/// The identity of `item` within its source: its guid, else its link, else a hash of its title, date and texts.
///
/// An item known only by its hash becomes another item when it is edited; nothing in it says otherwise.
pub fn guid(item: &Item) -> String {
    let given = [Some(item.guid.as_str()), item.link.as_deref()];
    if let Some(given) = given.into_iter().flatten().map(str::trim).find(|given| !given.is_empty()) {
        return given.to_owned();
    }
    let published = item.published.map(|at| at.to_string());
    let mut bytes = Vec::new();
    for part in [item.title.as_ref(), published.as_ref(), item.summary.as_ref(), item.content.as_ref()] {
        let part = part.map(|text| text.trim()).unwrap_or_default();
        // The length in front keeps ("ab", "c") and ("a", "bc") apart.
        bytes.extend((part.len() as u64).to_be_bytes());
        bytes.extend(part.as_bytes());
    }
    hash(&bytes)
}

/// The job id of the item `guid` of `source`: `{source}#{guid}`.
///
/// Where that is longer than [`ID_BYTES_MAX`], a hash stands for the guid and, if that is not enough, for the
/// source; the same pair always gives the same id.
pub fn job_id(source: &str, guid: &str) -> String {
    let id = format!("{source}#{guid}");
    if id.len() <= ID_BYTES_MAX {
        return id;
    }
    let id = format!("{source}#{}", hash(guid.as_bytes()));
    if id.len() <= ID_BYTES_MAX {
        return id;
    }
    format!("{}#{}", hash(source.as_bytes()), hash(guid.as_bytes()))
}

fn hash(bytes: &[u8]) -> String {
    format!("{HASH_PREFIX}{:032x}", xxh3_128(bytes))
}

#[cfg(test)]
mod tests {
    use super::{guid, job_id};
    use crate::item::Item;
    use crate::job::ID_BYTES_MAX;

    #[test]
    fn the_guid_goes_before_the_link_and_the_link_before_the_content() {
        let link = Some("https://a.example/1".to_owned());
        let item = Item { guid: " g ".to_owned(), link: link.clone(), ..Item::default() };
        assert_eq!(guid(&item), "g");
        assert_eq!(guid(&Item { guid: "  ".to_owned(), link, ..Item::default() }), "https://a.example/1");
    }

    #[test]
    fn an_item_without_guid_and_link_is_known_by_its_content() {
        let item = |title: &str, summary: &str| Item {
            title: Some(title.to_owned()),
            summary: Some(summary.to_owned()),
            ..Item::default()
        };
        let known = guid(&item("ab", "c"));
        // Stored with every such item: it must never come out differently.
        assert_eq!(known, "hash:43da7b62d9a3568591475935b56acc76");
        assert_eq!(guid(&item(" ab ", "c\n")), known);
        assert_ne!(guid(&item("a", "bc")), known);
        assert_ne!(guid(&Item::default()), "");
    }

    #[test]
    fn a_job_id_is_source_and_guid() {
        assert_eq!(job_id("https://jobs.example/?feed=job_feed", "12345"), "https://jobs.example/?feed=job_feed#12345");
    }

    #[test]
    fn a_long_job_id_is_shortened_the_same_way_each_time() {
        let long = "x".repeat(5000);
        for (source, guid) in [("s", long.as_str()), (long.as_str(), "g"), (long.as_str(), long.as_str())] {
            let id = job_id(source, guid);
            assert!(id.len() <= ID_BYTES_MAX, "{} bytes", id.len());
            assert_eq!(id, job_id(source, guid));
            assert_ne!(id, job_id(source, &format!("{guid}y")));
        }
        assert!(job_id("s", &long).starts_with("s#hash:"));
        let fits = "x".repeat(ID_BYTES_MAX - 2);
        assert_eq!(job_id("s", &fits), format!("s#{fits}"));
    }
}
