//! Times in our structs: a BSON date in MongoDB (milliseconds), RFC 3339 text in JSON.

use jiff::Timestamp;
use mongodb::bson::DateTime;

/// A BSON date of the same instant; what is finer than a millisecond is cut off.
pub(super) fn to_bson(time: Timestamp) -> DateTime {
    DateTime::from_millis(time.as_millisecond())
}

/// `#[serde(with = …)]` for a [`Timestamp`].
pub(super) mod required {
    use jiff::Timestamp;
    use mongodb::bson::DateTime;
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

    pub(crate) fn serialize<S: Serializer>(time: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            time.serialize(serializer)
        } else {
            super::to_bson(*time).serialize(serializer)
        }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Timestamp, D::Error> {
        if deserializer.is_human_readable() {
            return Timestamp::deserialize(deserializer);
        }
        let date = DateTime::deserialize(deserializer)?;
        Timestamp::from_millisecond(date.timestamp_millis()).map_err(D::Error::custom)
    }
}

/// `#[serde(with = …)]` for an `Option<Timestamp>`.
pub(super) mod optional {
    use jiff::Timestamp;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    /// One time in the form of [`super::required`].
    #[derive(Serialize, Deserialize)]
    #[serde(transparent)]
    struct Time(#[serde(with = "super::required")] Timestamp);

    #[expect(clippy::ref_option, reason = "the signature serde calls")]
    pub(crate) fn serialize<S: Serializer>(time: &Option<Timestamp>, serializer: S) -> Result<S::Ok, S::Error> {
        time.map(Time).serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Timestamp>, D::Error> {
        Ok(Option::<Time>::deserialize(deserializer)?.map(|Time(time)| time))
    }
}
