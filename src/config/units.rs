//! Reads one value of a setting: its type, its unit, its range.
//!
//! Each reader answers with the value or with the reason, which ends in what is accepted. Bounds of durations and sizes
//! are given as they would stand in the file, so that the message can quote them.

use std::{
    fmt::{Display, Write as _},
    net::SocketAddr,
    ops::RangeInclusive,
    time::Duration,
};

use bytesize::ByteSize;
use toml::Value;

/// A value, or why it is refused.
pub(super) type Read<T> = Result<T, String>;

/// Reads a string.
pub(super) fn text(value: &Value) -> Read<&str> {
    value.as_str().ok_or_else(|| "accepted: a string".to_owned())
}

/// Reads a string of 1 to `len_max` ASCII letters, digits and characters of `others`.
pub(super) fn word(value: &Value, others: &str, len_max: usize) -> Read<String> {
    let is_accepted = |c: char| c.is_ascii_alphanumeric() || others.contains(c);
    match value.as_str() {
        Some(word) if (1..=len_max).contains(&word.len()) && word.chars().all(is_accepted) => Ok(word.to_owned()),
        _ => {
            let mut reason = format!("accepted: 1 to {len_max} letters, digits and");
            for c in others.chars() {
                // Writing to a String cannot fail.
                let _ = write!(reason, " {c}");
            }
            Err(reason)
        }
    }
}

/// Reads `true` or `false`.
pub(super) fn boolean(value: &Value) -> Read<bool> {
    value.as_bool().ok_or_else(|| "accepted: true or false".to_owned())
}

/// Reads a whole number.
pub(super) fn whole<T>(value: &Value, range: RangeInclusive<T>) -> Read<T>
where
    T: TryFrom<i64> + PartialOrd + Display,
{
    value
        .as_integer()
        .and_then(|number| T::try_from(number).ok())
        .filter(|number| range.contains(number))
        .ok_or_else(|| format!("accepted: a whole number from {} to {}", range.start(), range.end()))
}

/// Reads a share, 0.0 to 1.0.
#[expect(clippy::manual_range_contains, reason = "a range would hide that NaN is refused by both comparisons")]
pub(super) fn share(value: &Value) -> Read<f64> {
    let number = match value {
        Value::Float(number) => *number,
        Value::Integer(0) => 0.0,
        Value::Integer(1) => 1.0,
        _ => f64::NAN,
    };
    if number >= 0.0 && number <= 1.0 { Ok(number) } else { Err("accepted: a number from 0.0 to 1.0".to_owned()) }
}

/// Reads a duration with its unit.
pub(super) fn duration(value: &Value, least: &str, most: &str) -> Read<Duration> {
    let accepted = format!("accepted: a duration with its unit, such as \"1500ms\" or \"30s\", from {least} to {most}");
    let Value::String(text) = value else {
        return Err(if value.is_integer() { format!("has no unit; {accepted}") } else { accepted });
    };
    match humantime::parse_duration(text) {
        Ok(duration) if (bound(least)..=bound(most)).contains(&duration) => Ok(duration),
        Ok(_) => Err(accepted),
        Err(_) => Err(format!("is not a duration; {accepted}")),
    }
}

fn bound(text: &str) -> Duration {
    humantime::parse_duration(text).expect("bounds are durations")
}

/// Reads a number of bytes, with or without a unit.
pub(super) fn size<T: TryFrom<u64>>(value: &Value, least: &str, most: &str) -> Read<T> {
    let bytes = match value {
        Value::Integer(bytes) => u64::try_from(*bytes).ok(),
        Value::String(text) => text.parse::<ByteSize>().ok().map(|size| size.as_u64()),
        _ => None,
    };
    let bound = |text: &str| text.parse::<ByteSize>().expect("bounds are sizes").as_u64();
    bytes
        .filter(|bytes| (bound(least)..=bound(most)).contains(bytes))
        .and_then(|bytes| T::try_from(bytes).ok())
        .ok_or_else(|| {
            format!(
                "accepted: a size such as \"512KiB\" or \"1MiB\", or a whole number of bytes, from {least} to {most}"
            )
        })
}

/// Reads one of a few words.
pub(super) fn one_of<T: Copy>(value: &Value, words: &[(&str, T)]) -> Read<T> {
    let found = value.as_str().and_then(|text| words.iter().find(|(word, _)| *word == text));
    found.map(|(_, meaning)| *meaning).ok_or_else(|| {
        let words: Vec<String> = words.iter().map(|(word, _)| format!("\"{word}\"")).collect();
        format!("accepted: {}", words.join(" or "))
    })
}

/// Reads an address to listen on.
pub(super) fn address(value: &Value) -> Read<SocketAddr> {
    value
        .as_str()
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| "accepted: an IP address and a port, such as \"127.0.0.1:4000\" or \"[::1]:4000\"".to_owned())
}

/// Reads the path under which a proxy shows feedmill: empty, or `/` and words, without a `/` at its end.
pub(super) fn base_path(value: &Value) -> Read<String> {
    let is_word = |word: &str| {
        !word.is_empty()
            && word.chars().any(char::is_alphanumeric)
            && word.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
    };
    let is_path =
        |path: &&str| path.is_empty() || path.strip_prefix('/').is_some_and(|rest| rest.split('/').all(is_word));
    let path = value.as_str().map(|path| path.trim_end_matches('/')).filter(is_path);
    path.map(str::to_owned)
        .ok_or_else(|| "accepted: nothing, or a path such as \"/feeds\", of letters, digits and - _ .".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn string(text: &str) -> Value {
        Value::String(text.to_owned())
    }

    #[test]
    fn a_duration_needs_a_unit_and_its_range() {
        assert_eq!(duration(&string("1500ms"), "1ms", "1h"), Ok(Duration::from_millis(1500)));
        assert_eq!(duration(&string("1h"), "1ms", "1h"), Ok(Duration::from_hours(1)));
        assert!(duration(&Value::Integer(30), "1ms", "1h").unwrap_err().starts_with("has no unit; accepted: "));
        assert!(duration(&string("30"), "1ms", "1h").unwrap_err().starts_with("is not a duration; accepted: "));
        assert!(duration(&string("2h"), "1ms", "1h").unwrap_err().ends_with("from 1ms to 1h"));
    }

    #[test]
    fn a_size_has_a_unit_or_is_a_number_of_bytes() {
        assert_eq!(size(&string("1MiB"), "1KiB", "1GiB"), Ok(1_048_576_u64));
        assert_eq!(size(&Value::Integer(2048), "1KiB", "1GiB"), Ok(2048_usize));
        for refused in [string("1 parsec"), string("2GiB"), Value::Integer(-1), Value::Boolean(true)] {
            assert!(size::<u64>(&refused, "1KiB", "1GiB").unwrap_err().ends_with("from 1KiB to 1GiB"), "{refused}");
        }
    }

    #[test]
    fn a_share_is_no_nan() {
        assert_eq!(share(&Value::Integer(1)), Ok(1.0));
        assert!(share(&Value::Float(f64::NAN)).is_err());
        assert!(share(&Value::Float(1.01)).is_err());
    }

    #[test]
    fn a_word_names_the_characters_it_accepts() {
        assert_eq!(word(&string("a.b-c_1"), "_.-", 10), Ok("a.b-c_1".to_owned()));
        assert_eq!(word(&string("a b"), "_.-", 10), Err("accepted: 1 to 10 letters, digits and _ . -".to_owned()));
        assert!(word(&string(""), "_.-", 10).is_err());
        assert!(word(&string("12345678901"), "_.-", 10).is_err());
    }
}
