//! Where slots are: a cron pattern in a time zone, or a fixed interval.
//!
//! Where the clock is set back, a pattern that runs at intervals runs in the repeated hour too, and one with a fixed
//! time runs once. Where it is set forward, a fixed time that does not exist runs when the gap ends.
//!
//! The slots of an interval are its multiples since 1970, moved by the offset. So all processes have the same ones, and a
//! restart moves nothing.

use std::fmt;
use std::time::Duration;

use croner::Cron;
use croner::errors::CronError;
use croner::parser::{CronParser, Seconds, Year};
use jiff::Timestamp;
use jiff::tz::TimeZone;

/// Shortest interval: beyond it slots would come faster than a loop looks at them.
pub const INTERVAL_MIN: Duration = Duration::from_millis(100);

/// Where slots are.
#[derive(Clone, Debug, PartialEq)]
pub enum Repeat {
    /// By a cron pattern; see [`Repeat::cron`].
    Cron(Box<CronPattern>),
    /// At fixed intervals; see [`Repeat::every`].
    Every {
        /// From one slot to the next, in ms.
        interval_ms: i64,
        /// From a multiple of the interval since 1970 to the slot, in ms; less than the interval.
        offset_ms: i64,
    },
}

/// A cron pattern in a time zone.
#[derive(Clone, Debug)]
pub struct CronPattern {
    pattern: String,
    timezone: Option<String>,
    cron: Cron,
    zone: TimeZone,
}

/// Why slots cannot be told.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RepeatError {
    /// It is no cron pattern.
    #[error(
        "\"{value}\" is not a cron pattern; write it like \"*/15 * * * *\", with a sixth field in front for seconds"
    )]
    Pattern {
        /// What was given.
        value: String,
        /// What the cron parser says.
        #[source]
        cause: CronError,
    },
    /// The pattern has no date, like the 31st of February.
    #[error("cron pattern \"{value}\" is never due")]
    Never {
        /// What was given.
        value: String,
    },
    /// There is no such time zone.
    #[error("timezone \"{value}\" is not known; use a name of the IANA database like \"Europe/Berlin\" or \"UTC\"")]
    TimeZone {
        /// What was given.
        value: String,
        /// What the look-up says.
        #[source]
        cause: jiff::Error,
    },
    /// The interval is too short, too long, or no whole number of milliseconds.
    #[error(
        "an interval of {} is not accepted; accepted: whole milliseconds, from {} to 100 years",
        Span(*interval),
        Span(INTERVAL_MIN)
    )]
    Interval {
        /// What was given.
        interval: Duration,
    },
    /// The offset would skip a slot, or is no whole number of milliseconds.
    #[error("an offset of {} is not accepted; accepted: whole milliseconds below the interval of {}",
        Span(*offset), Span(*interval))]
    Offset {
        /// What was given.
        offset: Duration,
        /// The interval.
        interval: Duration,
    },
}

/// Longest interval: far beyond what anyone waits for, and small enough to reckon with.
const INTERVAL_MAX_MS: i64 = 100 * 366 * 24 * 3_600_000;

impl Repeat {
    /// At the times of a cron pattern of five fields, or six with seconds in front (`"*/15 * * * *"`), or one of its
    /// nicknames (`"@hourly"`), in the time zone of this name; UTC if `None`.
    ///
    /// # Errors
    /// [`RepeatError`] names the value and what is accepted.
    pub fn cron(pattern: &str, timezone: Option<&str>) -> Result<Self, RepeatError> {
        let zone = match timezone {
            None => TimeZone::UTC,
            Some(name) => {
                TimeZone::get(name).map_err(|cause| RepeatError::TimeZone { value: name.to_owned(), cause })?
            }
        };
        let value = || pattern.trim().to_owned();
        let parser = CronParser::builder().seconds(Seconds::Optional).year(Year::Disallowed).build();
        let cron = parser.parse(pattern.trim()).map_err(|cause| RepeatError::Pattern { value: value(), cause })?;
        let timezone = timezone.map(str::to_owned);
        let repeat = Self::Cron(Box::new(CronPattern { pattern: value(), timezone, cron, zone }));
        match repeat.next_after(Timestamp::UNIX_EPOCH) {
            Some(_) => Ok(repeat),
            None => Err(RepeatError::Never { value: value() }),
        }
    }

    /// At each multiple of the interval since 1970, and `offset` later.
    ///
    /// # Errors
    /// [`RepeatError::Interval`] below [`INTERVAL_MIN`] or above 100 years, [`RepeatError::Offset`] from the interval on;
    /// both for spans that are no whole milliseconds.
    pub fn every(interval: Duration, offset: Duration) -> Result<Self, RepeatError> {
        let whole_ms = |span: Duration| {
            let is_whole = span.subsec_nanos().is_multiple_of(1_000_000);
            i64::try_from(span.as_millis()).ok().filter(|_| is_whole)
        };
        let is_accepted = |ms: &i64| (INTERVAL_MIN.as_millis() as i64..=INTERVAL_MAX_MS).contains(ms);
        let interval_ms = whole_ms(interval).filter(is_accepted).ok_or(RepeatError::Interval { interval })?;
        let offset_ms = whole_ms(offset)
            .filter(|offset_ms| *offset_ms < interval_ms)
            .ok_or(RepeatError::Offset { offset, interval })?;
        Ok(Self::Every { interval_ms, offset_ms })
    }

    /// As [`Self::every`], of milliseconds.
    pub(super) fn every_ms(interval_ms: i64, offset_ms: i64) -> Result<Self, RepeatError> {
        let span = |ms: i64| u64::try_from(ms).map_or(Duration::ZERO, Duration::from_millis);
        Self::every(span(interval_ms), span(offset_ms))
    }

    /// The first slot after `at`; `None` when the calendar ends before it.
    pub fn next_after(&self, at: Timestamp) -> Option<Timestamp> {
        match self {
            Self::Cron(cron) => {
                let next = cron.cron.find_next_occurrence(&at.to_zoned(cron.zone.clone()), false).ok()?;
                Some(next.timestamp())
            }
            Self::Every { interval_ms, offset_ms } => {
                let at_ms = at.as_millisecond();
                let into = (at_ms - offset_ms).rem_euclid(*interval_ms);
                Timestamp::from_millisecond(at_ms - into + interval_ms).ok()
            }
        }
    }
}

impl CronPattern {
    /// The pattern as it was written.
    pub fn pattern(&self) -> &str {
        &self.pattern
    }

    /// Its time zone; `None`: none was given, so UTC.
    pub fn timezone(&self) -> Option<&str> {
        self.timezone.as_deref()
    }
}

/// What was written is the same.
impl PartialEq for CronPattern {
    fn eq(&self, other: &Self) -> bool {
        self.pattern == other.pattern && self.timezone == other.timezone
    }
}

/// As people write it: `0 9 * * * (Europe/Berlin)`, `every 15m`, `every 1h + 5m`.
impl fmt::Display for Repeat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let span = |ms: &i64| Span(Duration::from_millis(ms.unsigned_abs()));
        match self {
            Self::Cron(cron) => {
                f.write_str(&cron.pattern)?;
                cron.timezone.as_ref().map_or(Ok(()), |timezone| write!(f, " ({timezone})"))
            }
            Self::Every { interval_ms, offset_ms: 0 } => write!(f, "every {}", span(interval_ms)),
            Self::Every { interval_ms, offset_ms } => write!(f, "every {} + {}", span(interval_ms), span(offset_ms)),
        }
    }
}

/// A span as it is written in settings.
struct Span(Duration);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime::format_duration(self.0).fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().expect("is a time stamp")
    }

    fn slots(repeat: &Repeat, from: &str, count: usize) -> Vec<String> {
        let mut now = at(from);
        let mut next = || {
            now = repeat.next_after(now)?;
            Some(now.to_string())
        };
        (0..count).map_while(|_| next()).collect()
    }

    fn cron(pattern: &str, zone: &str) -> Repeat {
        Repeat::cron(pattern, Some(zone)).expect(pattern)
    }

    fn every(interval: Duration, offset: Duration) -> Repeat {
        Repeat::every(interval, offset).expect("is an interval")
    }

    /// From the moment before the clock is set to the slots after it.
    #[test]
    fn clocks_that_are_set_make_interval_patterns_neither_stop_nor_hurry_and_fixed_times_run_once() {
        // Berlin goes back at 01:00 UTC on 25 October 2026, and forward at 01:00 UTC on 28 March 2027.
        // New York goes back at 06:00 UTC on 1 November 2026, and forward at 07:00 UTC on 14 March 2027.
        // Lord Howe goes back by half an hour at 15:00 UTC on 3 April 2027, and forward at 15:30 UTC on 2 October 2027.
        let table: [(&str, &str, &str, &[&str]); 12] = [
            ("*/30 * * * *", "Europe/Berlin", "2026-10-25T00:10:00Z", &["00:30", "01:00", "01:30", "02:00"]),
            ("0 * * * *", "Europe/Berlin", "2026-10-24T23:10:00Z", &["00:00", "01:00", "02:00"]),
            ("*/20 2 * * *", "Europe/Berlin", "2026-10-25T00:30:00Z", &["00:40", "01:00", "01:20", "01:40"]),
            ("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00:00Z", &["00:30", "01:30"]),
            ("0 0,12 * * *", "Europe/Berlin", "2026-10-24T21:00:00Z", &["22:00", "11:00", "23:00"]),
            ("*/30 * * * *", "Europe/Berlin", "2027-03-28T00:10:00Z", &["00:30", "01:00", "01:30"]),
            ("30 2 * * *", "Europe/Berlin", "2027-03-27T12:00:00Z", &["01:00", "00:30"]),
            ("30 1 * * *", "America/New_York", "2026-10-31T12:00:00Z", &["05:30", "06:30"]),
            ("30 2 * * *", "America/New_York", "2027-03-13T12:00:00Z", &["07:00", "06:30"]),
            ("45 1 * * *", "Australia/Lord_Howe", "2027-04-03T12:00:00Z", &["14:45", "15:15"]),
            ("15 2 * * *", "Australia/Lord_Howe", "2027-10-02T12:00:00Z", &["15:30", "15:15"]),
            ("15 2 * * *", "UTC", "2027-03-27T12:00:00Z", &["02:15", "02:15"]),
        ];
        for (pattern, zone, from, expected) in table {
            let found = slots(&cron(pattern, zone), from, expected.len());
            let times: Vec<&str> = found.iter().map(|slot| &slot[11..16]).collect();
            assert_eq!(times, expected, "{pattern} {zone} from {from}: {found:?}");
        }
    }

    #[test]
    fn an_interval_pays_no_heed_to_clocks_that_are_set() {
        let hourly = every(Duration::from_hours(1), Duration::ZERO);
        assert_eq!(
            slots(&hourly, "2026-10-25T00:10:00Z", 3),
            ["2026-10-25T01:00:00Z", "2026-10-25T02:00:00Z", "2026-10-25T03:00:00Z"]
        );
    }

    #[test]
    fn a_pattern_has_five_fields_or_six_or_a_nickname() {
        assert_eq!(slots(&cron("30 */15 * * * *", "UTC"), "2026-03-01T10:15:00Z", 1), ["2026-03-01T10:15:30Z"]);
        assert_eq!(slots(&cron("@hourly", "UTC"), "2026-03-01T10:15:00Z", 1), ["2026-03-01T11:00:00Z"]);
        assert_eq!(slots(&cron("0 9 29 2 *", "UTC"), "2026-03-01T10:15:00Z", 1), ["2028-02-29T09:00:00Z"]);
        assert_eq!(slots(&cron("0 9 * * MON-FRI", "UTC"), "2026-02-27T10:00:00Z", 1), ["2026-03-02T09:00:00Z"]);
    }

    #[test]
    fn intervals_are_aligned_since_1970_and_moved_by_their_offset() {
        let quarter = every(Duration::from_mins(15), Duration::ZERO);
        assert_eq!(slots(&quarter, "2026-03-01T10:16:07.5Z", 2), ["2026-03-01T10:30:00Z", "2026-03-01T10:45:00Z"]);
        assert_eq!(slots(&quarter, "2026-03-01T10:15:00Z", 1), ["2026-03-01T10:30:00Z"]);
        let moved = every(Duration::from_mins(15), Duration::from_mins(14));
        assert_eq!(slots(&moved, "2026-03-01T10:16:07.5Z", 2), ["2026-03-01T10:29:00Z", "2026-03-01T10:44:00Z"]);
        assert_eq!(slots(&moved, "1970-01-01T00:00:00Z", 1), ["1970-01-01T00:14:00Z"]);
        let short = every(Duration::from_millis(250), Duration::from_millis(1));
        assert_eq!(slots(&short, "2026-03-01T10:00:00.001Z", 1), ["2026-03-01T10:00:00.251Z"]);
        assert_eq!(
            slots(&every(Duration::from_secs(10), Duration::ZERO), "1969-12-31T23:59:55Z", 1),
            ["1970-01-01T00:00:00Z"]
        );
    }

    #[test]
    fn a_refusal_names_the_value_and_what_is_accepted() {
        let refusal = |repeat: Result<Repeat, RepeatError>| repeat.expect_err("refused").to_string();
        for pattern in ["", "* * * *", "61 * * * *", "hourly", "0 0 0 1 1 * 2030", "*/15 * * * * UTC"] {
            let refusal = refusal(Repeat::cron(pattern, None));
            assert!(refusal.contains(&format!("\"{pattern}\"")) && refusal.contains("*/15"), "{refusal}");
        }
        assert_eq!(refusal(Repeat::cron("0 0 31 2 *", None)), "cron pattern \"0 0 31 2 *\" is never due");
        assert!(refusal(Repeat::cron("@daily", Some("Europe/Berln"))).starts_with("timezone \"Europe/Berln\" is not"));
        for interval in [Duration::ZERO, Duration::from_millis(99), Duration::from_micros(100_500), Duration::MAX] {
            assert!(refusal(Repeat::every(interval, Duration::ZERO)).contains("from 100ms to 100 years"));
        }
        let minute = Duration::from_mins(1);
        assert_eq!(
            refusal(Repeat::every(minute, minute)),
            "an offset of 1m is not accepted; accepted: whole milliseconds below the interval of 1m"
        );
    }

    #[test]
    fn a_repeat_shows_what_was_written() {
        assert_eq!(cron(" 0 9 * * * ", "Europe/Berlin").to_string(), "0 9 * * * (Europe/Berlin)");
        assert_eq!(Repeat::cron("@daily", None).expect("a pattern").to_string(), "@daily");
        assert_eq!(every(Duration::from_mins(90), Duration::from_mins(5)).to_string(), "every 1h 30m + 5m");
    }
}
