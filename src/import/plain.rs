//! Plain producers: programs in any language that put an item on the stream as JSON.
//!
//! ```text
//!   XADD feedmill:{job_import_queue}:stream * json '{"source": "…", "guid": "…", "title": "…", …}'
//! ```
//!
//! Field names are those of [`Item`]; what it does not know becomes an extension, so nothing is lost.

use serde_json::{Map, Value};

use crate::feed::parse::date;
use crate::feed::{fingerprint, identity};
use crate::item::Item;
use crate::job::JobId;
use crate::worker::Adoption;

use super::FetchTask;

/// Makes an import job of a plain producer's JSON, grouped by its source.
///
/// # Errors
/// The reason for the dead letter: what is wrong, and what is accepted.
pub(crate) fn adopt_item(json: &[u8]) -> Result<Adoption, String> {
    let item = item(json)?;
    let id = JobId::new(identity::job_id(&item.source, &item.guid)).map_err(|error| error.to_string())?;
    let fingerprint = Some(fingerprint::fingerprint(&item).0);
    let payload = rmp_serde::to_vec_named(&item).map_err(|error| format!("json: {error}"))?;
    Ok(Adoption { id, payload, fingerprint, group: Some(item.source), replaces: true })
}

/// Makes a fetch job of a plain producer's JSON. What it is grouped by is for the handler to say, which knows the feeds.
///
/// # Errors
/// The reason for the dead letter.
pub(crate) fn adopt_fetch(json: &[u8]) -> Result<Adoption, String> {
    let task: FetchTask = serde_json::from_slice(json).map_err(|error| format!("json: {error}"))?;
    let id = JobId::new(&task.feed).map_err(|error| error.to_string())?;
    Ok(Adoption { id, payload: json.to_vec(), fingerprint: None, group: None, replaces: false })
}

fn item(json: &[u8]) -> Result<Item, String> {
    let mut fields: Map<String, Value> = serde_json::from_slice(json).map_err(|error| format!("json: {error}"))?;
    // Dates come in whatever spelling their producer uses; what cannot be read is null, as in a feed.
    for name in ["published", "updated"] {
        if let Some(value) = fields.get_mut(name) {
            let read = value.as_str().and_then(date::parse).map(|at| Value::String(at.to_string()));
            *value = read.unwrap_or(Value::Null);
        }
    }
    let known = [
        "source",
        "guid",
        "feed",
        "title",
        "link",
        "published",
        "updated",
        "summary",
        "content",
        "author",
        "categories",
        "enclosures",
        "extensions",
    ];
    let others: Vec<String> = fields.keys().filter(|name| !known.contains(&name.as_str())).cloned().collect();
    let others: Vec<(String, Value)> =
        others.into_iter().filter_map(|name| fields.remove(&name).map(|value| (name, value))).collect();
    let mut item: Item = serde_json::from_value(Value::Object(fields)).map_err(|error| format!("json: {error}"))?;
    item.extensions.extend(others);
    if item.source.is_empty() {
        return Err("json: an item needs a \"source\"".to_owned());
    }
    item.guid = identity::guid(&item);
    Ok(item)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_item_keeps_every_field_its_producer_gave() {
        let item = item(
            br#"{"source": "x", "guid": "1", "title": "t", "published": "Tue, 24 Nov 2026 09:00:00 +0100",
                 "updated": "soon", "salary": 5, "extensions": {"a:b": "c"}}"#,
        )
        .expect("an item");
        assert_eq!(item.published.expect("readable").to_string(), "2026-11-24T08:00:00Z");
        assert_eq!(item.updated, None, "unreadable is null, never now");
        assert_eq!(item.extensions["salary"], 5);
        assert_eq!(item.extensions["a:b"], "c");
        let adopted = adopt_item(br#"{"source": "x", "guid": "1"}"#).expect("adopted");
        assert_eq!((adopted.id.to_string().as_str(), adopted.group.as_deref()), ("x#1", Some("x")));
    }

    #[test]
    fn an_item_without_a_guid_is_known_by_its_link_or_content() {
        assert_eq!(
            item(br#"{"source": "x", "link": "https://a.example/1"}"#).expect("an item").guid,
            "https://a.example/1"
        );
        assert!(item(br#"{"source": "x", "title": "t"}"#).expect("an item").guid.starts_with("hash:"));
    }

    #[test]
    fn broken_json_says_why() {
        for (json, part) in [
            (&br#"{"source": "#[..], "EOF"),
            (br#"{"guid": "1"}"#, "source"),
            (br"[1]", "expected a map"),
            (br#"{"source": "x", "title": 5}"#, "expected a string"),
        ] {
            let reason = adopt_item(json).expect_err("refused");
            assert!(reason.contains(part), "{reason}");
        }
        assert!(adopt_fetch(br#"{"fed": "a"}"#).expect_err("refused").contains("fed"));
        assert_eq!(adopt_fetch(br#"{"feed": "a"}"#).expect("adopted").id.to_string(), "a");
    }
}
