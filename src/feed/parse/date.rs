//! Dates as feeds write them → an instant. What cannot be read is `None`, never "now".

use jiff::{Timestamp, civil, fmt::rfc2822, tz};

/// RFC 822, without insisting that the weekday fits the date: feeds get it wrong, and write it in their language.
const RFC_822: rfc2822::DateTimeParser = rfc2822::DateTimeParser::new().relaxed_weekday(true);

/// Longer texts are no dates; the longest spelling below has some forty characters.
const TEXT_MAX_BYTES: usize = 80;

/// Reads any spelling met in feeds:
///
/// - RFC 822: two- and four-digit years, obsolete zone names, no zone, missing seconds, single-digit days, wrong or
///   foreign weekday, full month names
/// - RFC 3339: with `T` or a space, with and without zone, with fractions; W3CDTF year or year and month only
/// - ASCTIME (`Sat Nov  1 08:30:00 2025`)
///
/// Without a zone it is UTC, without a time midnight.
pub(crate) fn parse(text: &str) -> Option<Timestamp> {
    let text = text.trim();
    if text.is_empty() || text.len() > TEXT_MAX_BYTES || !text.is_ascii() && !text.contains(',') {
        return None;
    }
    let leading_digits = text.bytes().take_while(u8::is_ascii_digit).count();
    if leading_digits >= 4 { iso(text) } else { rfc_822(text) }
}

/// RFC 3339 and its shorter relatives.
fn iso(text: &str) -> Option<Timestamp> {
    let text = match text.len() {
        4 => format!("{text}-01-01"),
        7 => format!("{text}-01"),
        _ => with_attached_zone(text),
    };
    let instant = || text.parse::<Timestamp>().ok();
    let without_zone = || utc(text.parse::<civil::DateTime>().ok()?);
    instant().or_else(without_zone)
}

/// `2025-11-01 08:30:00 +0100` and `… UTC` → the zone directly behind the time.
fn with_attached_zone(text: &str) -> String {
    match text.rsplit_once(' ') {
        Some((time, zone)) if time.contains(':') => match offset(zone) {
            Some(offset) => format!("{}{offset}", time.trim_end()),
            None => text.to_owned(),
        },
        _ => text.to_owned(),
    }
}

fn utc(time: civil::DateTime) -> Option<Timestamp> {
    tz::Offset::UTC.to_timestamp(time).ok()
}

/// RFC 822 and ASCTIME: the same words in another order. They are put in the order of RFC 822, with a numeric zone,
/// and read by jiff.
fn rfc_822(text: &str) -> Option<Timestamp> {
    let mut words: Vec<&str> = text.split([' ', '\t', '\n', '\r', ',']).filter(|word| !word.is_empty()).collect();
    // `01-Nov-2025`
    if let Some(date) = words.iter().position(|word| word.matches('-').count() == 2) {
        let parts: Vec<&str> = words[date].split('-').collect();
        words.splice(date..=date, parts);
    }
    if !is_number(words.first()?) && month(words.first()?).is_none() {
        words.remove(0);
    }
    let (day, month) = match words.get(..2)? {
        [day, name] if is_number(day) => (*day, month(name)?),
        [name, day] if is_number(day) => (*day, month(name)?),
        _ => return None,
    };
    let rest = &words[2..];
    let year = rest.iter().find(|word| is_number(word))?;
    let time = rest.iter().find(|word| word.contains(':') && word.starts_with(|c: char| c.is_ascii_digit()));
    let zone = rest.iter().find(|word| *word != year && Some(*word) != time);
    let zone = zone.map_or(Some("+0000".to_owned()), |zone| offset(zone))?;
    let time = time.map_or("00:00", |time| time.split('.').next().unwrap_or(time));
    RFC_822.parse_timestamp(format!("{day} {month} {year} {time} {zone}")).ok()
}

fn is_number(word: &str) -> bool {
    !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit())
}

/// The RFC 822 name of an English month, short or in full.
fn month(word: &str) -> Option<&'static str> {
    const NAMES: [(&str, &str); 12] = [
        ("Jan", "January"),
        ("Feb", "February"),
        ("Mar", "March"),
        ("Apr", "April"),
        ("May", "May"),
        ("Jun", "June"),
        ("Jul", "July"),
        ("Aug", "August"),
        ("Sep", "September"),
        ("Oct", "October"),
        ("Nov", "November"),
        ("Dec", "December"),
    ];
    let word = word.trim_end_matches('.');
    let is_month =
        |full: &str| word.len() >= 3 && full.get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word));
    NAMES.iter().find(|(_, full)| is_month(full)).map(|(short, _)| *short)
}

/// A zone as `±hhmm`: numeric, with a colon, behind `GMT`/`UTC`, or a name. The names are those of RFC 822 and the
/// European ones feeds use; a single letter is UTC, as RFC 2822 says (4.3).
fn offset(zone: &str) -> Option<String> {
    let zone = zone.trim_matches(['(', ')']);
    let numeric = zone.trim_start_matches(|c: char| c.is_ascii_alphabetic());
    if numeric.is_empty() {
        let hours = match zone.to_ascii_uppercase().as_str() {
            "GMT" | "UT" | "UTC" | "WET" => "+0000",
            "CET" | "BST" | "WEST" | "MEZ" => "+0100",
            "CEST" | "EET" | "MESZ" => "+0200",
            "EEST" | "MSK" => "+0300",
            "EDT" => "-0400",
            "EST" | "CDT" => "-0500",
            "CST" | "MDT" => "-0600",
            "MST" | "PDT" => "-0700",
            "PST" => "-0800",
            letter if letter.len() == 1 => "+0000",
            _ => return None,
        };
        return Some(hours.to_owned());
    }
    let sign = numeric.chars().next().filter(|sign| matches!(sign, '+' | '-'))?;
    let digits: String = numeric[1..].chars().filter(|c| *c != ':').collect();
    if !is_number(&digits) {
        return None;
    }
    match digits.len() {
        1 => Some(format!("{sign}0{digits}00")),
        2 => Some(format!("{sign}{digits}00")),
        4 => Some(format!("{sign}{digits}")),
        _ => None,
    }
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
    }

    #[test]
    fn a_wrong_or_foreign_weekday_is_ignored() {
        check("Mon, 01 Nov 2025 08:30:15 GMT", "2025-11-01T08:30:15Z");
        check("Sa, 01 Nov 2025 08:30:15 GMT", "2025-11-01T08:30:15Z");
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
            "Sat, 01 Nov 2025 08:30:15 NOWHERE",
            "Sat, 01 Nov 2025 08:30:15 +01é",
            "é",
            ",,,",
            "1 Nov",
            "::: Nov 1 1",
            long.as_str(),
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
