//! Dates as feeds write them → an instant. What cannot be read is `None`, never "now".

use jiff::{Timestamp, civil, tz::Offset};

/// Longer texts are no dates; the longest spelling below has some forty characters.
const TEXT_MAX_BYTES: usize = 80;

/// Two-digit years from here on are of the last century.
const CENTURY_TURNS_AT: i16 = 90;

/// Reads any spelling met in feeds:
///
/// - RFC 822: two- and four-digit years, obsolete and unknown zone names, no zone, missing seconds, single-digit days,
///   wrong or foreign weekday or none, day and month swapped, full month names
/// - RFC 3339: with `T` or a space, with and without zone, with fractions; W3CDTF year or year and month only; without
///   hyphens and colons, or with slashes or points for hyphens
/// - ASCTIME (`Sat Nov  1 08:30:00 2025`)
/// - any of them with `AM` or `PM` behind the time
///
/// Without a zone, or with a name that is not known, it is UTC (RFC 2822, 4.3); without a time midnight.
pub(crate) fn parse(text: &str) -> Option<Timestamp> {
    let text = text.trim();
    if text.is_empty() || text.len() > TEXT_MAX_BYTES {
        return None;
    }
    let leading_digits = text.bytes().take_while(u8::is_ascii_digit).count();
    if leading_digits >= 4 { iso(text) } else { rfc_822(text) }
}

/// RFC 3339 and its shorter relatives.
fn iso(text: &str) -> Option<Timestamp> {
    let (date, rest) = match text.find(['T', 't', ' ']) {
        Some(end) => (&text[..end], text[end + 1..].trim()),
        None => (text, ""),
    };
    let mut numbers = date.split(['-', '/', '.']);
    let year = numbers.next()?;
    let (year, month, day) = match (year.len(), numbers.next(), numbers.next(), numbers.next()) {
        (4, month, day, None) => (number(year)?, number(month.unwrap_or("1"))?, number(day.unwrap_or("1"))?),
        // `20251101`
        (8, None, ..) => (number(year.get(..4)?)?, number(year.get(4..6)?)?, number(year.get(6..)?)?),
        _ => return None,
    };
    let end_of_time = rest.find(|c: char| !matches!(c, '0'..='9' | ':' | '.' | ',')).unwrap_or(rest.len());
    let (time, rest) = rest.split_at(end_of_time);
    // `[Europe/Paris]` behind an offset says what that already says.
    let mut words = rest.split('[').next()?.split_ascii_whitespace().peekable();
    let half = words.next_if(|word| half_of_day(word).is_some()).and_then(half_of_day);
    let zone = words.next().unwrap_or("");
    // `163000`
    let digits = time.split(['.', ',']).next().unwrap_or("");
    if is_number(digits) && matches!(digits.len(), 4 | 6) {
        let (hour, rest) = time.split_at(2);
        let (minute, second) = rest.split_at(2);
        let colon = if second.is_empty() { "" } else { ":" };
        return instant((year, month, day), &[hour, ":", minute, colon, second].concat(), half, zone);
    }
    instant((year, month, day), time, half, zone)
}

/// RFC 822 and ASCTIME: the same words in another order.
fn rfc_822(text: &str) -> Option<Timestamp> {
    let mut words: Vec<&str> = text.split([' ', '\t', '\n', '\r', ',']).filter(|word| !word.is_empty()).collect();
    // `01-Nov-2025`
    if let Some(date) = words.iter().position(|word| word.matches('-').count() == 2) {
        let parts: Vec<&str> = words[date].split('-').collect();
        words.splice(date..=date, parts);
    }
    // `mar` is a Tuesday where a month stands behind the day.
    let is_month_at = |at: usize| words.get(at).copied().and_then(month).is_some();
    let is_day_at = |at: usize| words.get(at).is_some_and(|word| is_number(word));
    if !words.is_empty() && !is_day_at(0) && (!is_month_at(0) || !is_day_at(1) || is_month_at(2)) {
        words.remove(0);
    }
    let (day, month) = match words.get(..2)? {
        [day, name] if is_number(day) => (number(day)?, month(name)?),
        [name, day] if is_number(day) => (number(day)?, month(name)?),
        _ => return None,
    };
    let rest = &words[2..];
    let year_word = rest.iter().find(|word| is_number(word))?;
    let year = match (year_word.len(), number(year_word)?) {
        (1 | 2, short) if short < CENTURY_TURNS_AT => 2000 + short,
        (1 | 2, short) => 1900 + short,
        (_, year) => year,
    };
    let time = rest.iter().find(|word| word.contains(':') && word.starts_with(|c: char| c.is_ascii_digit()));
    let half = rest.iter().find_map(|word| half_of_day(word));
    let is_other =
        |word: &&str| word != year_word && Some(word) != time && half_of_day(word).is_none() && *word != "at";
    let zone = rest.iter().copied().find(is_other);
    instant((year, month, day), time.unwrap_or(&""), half, zone.unwrap_or(""))
}

/// Whether `word` says that a time of up to twelve hours is after noon; `None` when it is another word.
fn half_of_day(word: &str) -> Option<bool> {
    let letters = word.trim_end_matches('.');
    if letters.eq_ignore_ascii_case("pm") || letters.eq_ignore_ascii_case("p.m") {
        return Some(true);
    }
    (letters.eq_ignore_ascii_case("am") || letters.eq_ignore_ascii_case("a.m")).then_some(false)
}

/// The instant of a date, a time (`hh:mm`, `hh:mm:ss`, `hh:mm:ss.fraction`, or nothing), whether it is after noon if that
/// is said, and a zone or nothing.
fn instant(
    (year, month, day): (i16, i16, i16),
    time: &str,
    is_after_noon: Option<bool>,
    zone: &str,
) -> Option<Timestamp> {
    let date = civil::Date::new(year, i8::try_from(month).ok()?, i8::try_from(day).ok()?).ok()?;
    let (time, fraction) = time.split_once(['.', ',']).unwrap_or((time, ""));
    let mut parts = [0; 3];
    if !time.is_empty() {
        let mut given = time.split(':');
        for part in &mut parts {
            *part = given.next().map_or(Some(0), number)?;
        }
        if given.next().is_some() {
            return None;
        }
    }
    parts[0] = match (is_after_noon, parts[0]) {
        (Some(true), 1..12) => parts[0] + 12,
        (Some(false), 12) => 0,
        _ => parts[0],
    };
    let [hour, minute, second] = parts.map(|part| i8::try_from(part).unwrap_or(i8::MAX));
    let time = civil::Time::new(hour, minute, second, nanoseconds(fraction)?).ok()?;
    offset(zone)?.to_timestamp(date.to_datetime(time)).ok()
}

/// The digits behind the point, as nanoseconds.
fn nanoseconds(fraction: &str) -> Option<i32> {
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some(
        fraction
            .bytes()
            .chain(std::iter::repeat(b'0'))
            .take(9)
            .fold(0, |all, digit| all * 10 + i32::from(digit - b'0')),
    )
}

fn number(text: &str) -> Option<i16> {
    if is_number(text) { text.parse().ok() } else { None }
}

fn is_number(word: &str) -> bool {
    !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit())
}

/// The number of an English month, short or in full.
fn month(word: &str) -> Option<i16> {
    const NAMES: [&str; 12] = [
        "January",
        "February",
        "March",
        "April",
        "May",
        "June",
        "July",
        "August",
        "September",
        "October",
        "November",
        "December",
    ];
    let word = word.trim_end_matches('.');
    let is_month =
        |full: &str| word.len() >= 3 && full.get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word));
    // `Sept` is as common as `Sep`.
    let position = NAMES.iter().position(|full| is_month(full))?;
    i16::try_from(position + 1).ok()
}

/// A zone: numeric (with or without a colon, behind `GMT`/`UTC` or not), or a name. The names are those of RFC 822 and
/// the European ones feeds use; another name, and a single letter, is UTC, as RFC 2822 says (4.3).
fn offset(zone: &str) -> Option<Offset> {
    let zone = zone.trim_matches(['(', ')']);
    let zone = zone.strip_prefix("Etc/").unwrap_or(zone);
    let numeric = zone.trim_start_matches(|c: char| c.is_ascii_alphabetic());
    if numeric.is_empty() || !numeric.starts_with(['+', '-']) {
        let hours = match zone.to_ascii_uppercase().as_str() {
            "CET" | "BST" | "WEST" | "MEZ" | "MET" => 1,
            "CEST" | "EET" | "MESZ" | "MEST" => 2,
            "EEST" | "MSK" => 3,
            "ADT" => -3,
            "EDT" | "AST" | "AT" => -4,
            "EST" | "CDT" | "ET" => -5,
            "CST" | "MDT" | "CT" => -6,
            "MST" | "PDT" | "MT" => -7,
            "PST" | "PT" => -8,
            name if name.bytes().all(|byte| byte.is_ascii_alphabetic() || matches!(byte, b'/' | b'_')) => 0,
            _ => return None,
        };
        return Some(Offset::constant(hours));
    }
    let digits: String = numeric[1..].chars().filter(|c| *c != ':').collect();
    let (hours, minutes) = match digits.len() {
        1 | 2 => (number(&digits)?, 0),
        // `+530`
        3 => (number(digits.get(..1)?)?, number(digits.get(1..)?)?),
        4 => (number(digits.get(..2)?)?, number(digits.get(2..)?)?),
        _ => return None,
    };
    let seconds = i32::from(hours) * 3600 + i32::from(minutes) * 60;
    Offset::from_seconds(if numeric.starts_with('-') { -seconds } else { seconds }).ok()
}

#[cfg(test)]
mod tests {
    use super::parse;

    fn check(text: &str, expected: &str) {
        assert_eq!(parse(text).map(|at| at.to_string()).as_deref(), Some(expected), "{text}");
    }

    #[test]
    fn rfc_822_is_read_in_all_its_spellings() {
        check("Sat, 01 Nov 2025 08:30:15 GMT", "2025-11-01T08:30:15Z");
        check("Sat, 1 Nov 2025 08:30:15 +0100", "2025-11-01T07:30:15Z");
        check("1 Nov 25 08:30 EST", "2025-11-01T13:30:00Z");
        check("01 Nov 99 08:30:00 Z", "1999-11-01T08:30:00Z");
        check("Sat, 01 Nov 2025 08:30:15", "2025-11-01T08:30:15Z");
        check("Sat, 01 Nov 2025 08:30:15 +01:00", "2025-11-01T07:30:15Z");
        check("Sat, 01 Nov 2025 08:30:15 GMT+2", "2025-11-01T06:30:15Z");
        check("Sat, 01 Nov 2025 08:30:15 CEST", "2025-11-01T06:30:15Z");
        check("Saturday, 01-Nov-25 08:30:15 GMT", "2025-11-01T08:30:15Z");
        check("Sat, 01 November 2025 08:30:15 GMT", "2025-11-01T08:30:15Z");
        check("Nov 1, 2025 08:30 UTC", "2025-11-01T08:30:00Z");
        check("  Sat,01 Nov 2025\n 08:30:15 PDT ", "2025-11-01T15:30:15Z");
        check("01 Nov 2025", "2025-11-01T00:00:00Z");
        check("November 1, 2025 at 8:30 p.m.", "2025-11-01T20:30:00Z");
        check("Sat, 01 Nov 2025 12:30:15 AM EST", "2025-11-01T05:30:15Z");
        check("Sat, 01 Nov 2025 12:30:15 PM", "2025-11-01T12:30:15Z");
        check("Sat, 01 Nov 2025 08:30:15 +530", "2025-11-01T03:00:15Z");
        check("01 Nov 2025 08:30:15 America/New_York", "2025-11-01T08:30:15Z");
        check("Sat, 01 Nov 2025 08:30:15 NOWHERE", "2025-11-01T08:30:15Z");
        check("Saturday, November 1 2025 08:30:15 GMT-05:00", "2025-11-01T13:30:15Z");
    }

    #[test]
    fn a_wrong_or_foreign_weekday_is_ignored() {
        check("Mon, 01 Nov 2025 08:30:15 GMT", "2025-11-01T08:30:15Z");
        check("Sa, 01 Nov 2025 08:30:15 GMT", "2025-11-01T08:30:15Z");
        check("Mar, 04 Nov 2025 08:30:15 GMT", "2025-11-04T08:30:15Z");
        check("Суббота, 01 Nov 2025 08:30:15 GMT", "2025-11-01T08:30:15Z");
    }

    #[test]
    fn rfc_3339_and_w3cdtf_are_read_in_all_their_spellings() {
        check("2025-11-01T08:30:15Z", "2025-11-01T08:30:15Z");
        check("2025-11-01T08:30:15+01:00", "2025-11-01T07:30:15Z");
        check("2025-11-01T08:30:15+0100", "2025-11-01T07:30:15Z");
        check("2025-11-01 08:30:15 +0100", "2025-11-01T07:30:15Z");
        check("2025-11-01 08:30:15 UTC", "2025-11-01T08:30:15Z");
        check("2025-11-01 08:30:15", "2025-11-01T08:30:15Z");
        check("2025-11-01T08:30:15.125Z", "2025-11-01T08:30:15.125Z");
        check("2025-11-01t08:30z", "2025-11-01T08:30:00Z");
        check("2025-11-01T08:30", "2025-11-01T08:30:00Z");
        check("2025-11-01", "2025-11-01T00:00:00Z");
        check("2025-11", "2025-11-01T00:00:00Z");
        check("2025", "2025-01-01T00:00:00Z");
        check("2025-1-9", "2025-01-09T00:00:00Z");
        check("20251101", "2025-11-01T00:00:00Z");
        check("2025-11-01T08:30:15 +01:00", "2025-11-01T07:30:15Z");
        check("2025-11-01T08:30:15+01:00[Europe/Paris]", "2025-11-01T07:30:15Z");
        check("20251101T083015Z", "2025-11-01T08:30:15Z");
        check("20251101T0830+0100", "2025-11-01T07:30:00Z");
        check("20251101T083015.125Z", "2025-11-01T08:30:15.125Z");
        check("2025/11/01 08:30:15", "2025-11-01T08:30:15Z");
        check("2025.11.01", "2025-11-01T00:00:00Z");
        check("2025-11-01 08:30:15 PM", "2025-11-01T20:30:15Z");
    }

    #[test]
    fn asctime_is_read() {
        check("Sat Nov  1 08:30:15 2025", "2025-11-01T08:30:15Z");
        check("Sat Nov  1 08:30:15 CET 2025", "2025-11-01T07:30:15Z");
    }

    #[test]
    fn what_is_no_date_is_none() {
        let long = "1".repeat(200);
        for text in [
            "",
            "yesterday",
            "Sat, 31 Feb 2025 08:30:15 GMT",
            "32 Nov 2025",
            "2025-13-01",
            "Nov",
            "1",
            "99999",
            "2025-11-01T24:30:00Z",
            "2025-11-01T08:30:00+99:00",
            "Sat, 01 Nov 2025 08:30:15 +01é",
            "é",
            ",,,",
            "1 Nov",
            "::: Nov 1 x",
            long.as_str(),
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
