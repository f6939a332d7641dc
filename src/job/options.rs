//! What a job says about itself, where it differs from what its queue says about all jobs.
//!
//! Stands in the envelope as a MessagePack map of the options that are set; spans are whole milliseconds. A job without
//! options, which is the rule, carries none of it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::RetryPolicy;

/// What becomes of a job that ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Keep {
    /// It goes at once.
    #[default]
    Nothing,
    /// It stays until somebody removes it.
    All,
    /// It stays while it is one of the newest `count`, and younger than `age`.
    Newest {
        /// Most jobs that stay.
        count: Option<u64>,
        /// How long they stay.
        #[serde(default, with = "millis_option")]
        age: Option<Duration>,
    },
}

/// Options of one job. What is `None` is as the queue has it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct JobOptions {
    /// Handlings before it is given up: 1 to 255.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempts: Option<u8>,
    /// Wait between two of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backoff: Option<RetryPolicy>,
    /// Longest time that one handling may take.
    #[serde(skip_serializing_if = "Option::is_none", with = "millis_option")]
    pub timeout: Option<Duration>,
    /// What becomes of it when it is done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_complete: Option<Keep>,
    /// What becomes of it when it has failed for good.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_fail: Option<Keep>,
    /// Its deduplication id, to be freed when it ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dedup: Option<String>,
}

impl JobOptions {
    /// Whether nothing is set.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The bytes that an envelope carries; none when nothing is set.
    #[expect(clippy::missing_panics_doc, reason = "writing to memory does not fail")]
    pub fn encode(&self) -> Vec<u8> {
        if self.is_empty() {
            return Vec::new();
        }
        rmp_serde::to_vec_named(self).expect("writing to memory does not fail")
    }

    /// Reads [`JobOptions::encode`]; options of a later version are passed over.
    ///
    /// # Errors
    /// When the bytes are damaged.
    pub fn decode(bytes: &[u8]) -> Result<Self, rmp_serde::decode::Error> {
        if bytes.is_empty() { Ok(Self::default()) } else { rmp_serde::from_slice(bytes) }
    }
}

/// Spans as whole milliseconds.
pub(super) mod millis {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(in crate::job) fn serialize<S: Serializer>(span: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u64(u64::try_from(span.as_millis()).unwrap_or(u64::MAX))
    }

    pub(in crate::job) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        u64::deserialize(from).map(Duration::from_millis)
    }
}

mod millis_option {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    #[expect(clippy::ref_option, reason = "serde passes a reference to the field")]
    pub(in crate::job) fn serialize<S: Serializer>(span: &Option<Duration>, to: S) -> Result<S::Ok, S::Error> {
        match span {
            Some(span) => super::millis::serialize(span, to),
            None => to.serialize_none(),
        }
    }

    pub(in crate::job) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
        Ok(Option::<u64>::deserialize(from)?.map(Duration::from_millis))
    }
}

#[cfg(test)]
mod tests {
    use super::super::Growth;
    use super::*;

    #[test]
    fn no_options_take_no_bytes() {
        assert!(JobOptions::default().encode().is_empty());
        assert_eq!(JobOptions::decode(b"").expect("nothing to read"), JobOptions::default());
    }

    /// Jobs wait in Redis across upgrades, so these bytes must stay readable for ever.
    #[test]
    fn the_bytes_are_golden() {
        let options = JobOptions {
            attempts: Some(5),
            backoff: Some(RetryPolicy {
                growth: Growth::Fixed,
                delay: Duration::from_secs(2),
                max: Duration::from_mins(1),
                jitter: 0.5,
            }),
            timeout: Some(Duration::from_secs(9)),
            on_complete: Some(Keep::All),
            on_fail: Some(Keep::Newest { count: Some(3), age: Some(Duration::from_secs(1)) }),
            dedup: Some("a".to_owned()),
        };
        let bytes = options.encode();
        let shown = rmp_serde::from_slice::<serde_json::Value>(&bytes).expect("a map").to_string();
        let golden = r#"{"attempts":5,"backoff":{"delay":2000,"growth":"fixed","jitter":0.5,"max":60000},"dedup":"a","#
            .to_owned()
            + r#""on_complete":"all","on_fail":{"newest":{"age":1000,"count":3}},"timeout":9000}"#;
        assert_eq!(shown, golden);
        assert_eq!(JobOptions::decode(&bytes).expect("readable"), options);
    }
}
