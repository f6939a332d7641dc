//! When a feed is due. Pure: time comes in as an argument.
//!
//! A schedule is a cron pattern of five fields, or six with seconds in front, in a time zone (`"*/15 * * * *"`); one of
//! its nicknames (`"@hourly"`); a fixed interval (`"every 15m"`); or `"auto"`. What their slots are, also where clocks are
//! set, says [`crate::schedule::repeat`].
//!
//! A feed is due a little after the time its schedule says, each at its own moment ([`Slot`]), so that all that are
//! scheduled for nine o'clock do not start in the same second.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use croner::errors::CronError;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use xxhash_rust::xxh3::xxh3_64;

use super::Feed;
use super::pace::Hold;
use crate::schedule::{Repeat, RepeatError};

/// The interval of `"auto"` until it follows how often a feed changes ([`super::pace`]).
pub const AUTO_INTERVAL: Duration = Duration::from_mins(30);

/// The schedule that follows how often a feed changes.
pub const AUTO: &str = "auto";

/// Shortest interval of `"every …"`: slots are whole seconds.
const INTERVAL_MIN: Duration = Duration::from_secs(1);

/// A slot is delayed by at most the interval divided by this, so that feeds keep to their schedule.
const SPREAD_SHARE: u32 = 10;

/// When a feed is due.
#[derive(Clone, Debug)]
pub struct Schedule {
    text: String,
    repeat: Repeat,
}

/// Why a schedule was refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ScheduleError {
    /// It is none of the forms.
    #[error(
        "schedule \"{value}\" is not a cron pattern (\"*/15 * * * *\", with a sixth field in front for seconds), \
         \"every 15m\" or \"auto\""
    )]
    Pattern {
        /// What was given.
        value: String,
        /// What the cron parser says.
        #[source]
        cause: CronError,
    },
    /// The pattern has no date, like the 31st of February.
    #[error("schedule \"{value}\" is never due")]
    Never {
        /// What was given.
        value: String,
    },
    /// What follows `every` is not a duration.
    #[error("schedule \"{value}\" has no interval after \"every\"; write it like \"every 15m\" or \"every 1h 30m\"")]
    Interval {
        /// What was given.
        value: String,
        /// What is wrong with the duration.
        #[source]
        cause: humantime::DurationError,
    },
    /// The interval is no whole number of seconds, or too long.
    #[error("schedule \"{value}\" is not a whole number of seconds, from one to 100 years")]
    IntervalTooFine {
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
}

impl Schedule {
    /// Reads a schedule; see the [module](self) for its forms. `timezone` is the one of a cron pattern, UTC if `None`.
    ///
    /// # Errors
    /// [`ScheduleError`] names the value and what is accepted. A time zone is checked even where it changes nothing.
    pub fn parse(text: &str, timezone: Option<&str>) -> Result<Self, ScheduleError> {
        let value = || text.to_owned();
        if let Some(name) = timezone {
            TimeZone::get(name).map_err(|cause| ScheduleError::TimeZone { value: name.to_owned(), cause })?;
        }
        let trimmed = text.trim();
        let every = |interval| {
            Repeat::every(interval, Duration::ZERO).map_err(|_| ScheduleError::IntervalTooFine { value: value() })
        };
        let repeat = if trimmed == AUTO {
            every(AUTO_INTERVAL)?
        } else if let Some(interval) = trimmed.strip_prefix("every ") {
            let interval = humantime::parse_duration(interval.trim())
                .map_err(|cause| ScheduleError::Interval { value: value(), cause })?;
            if interval < INTERVAL_MIN || interval.subsec_nanos() != 0 {
                return Err(ScheduleError::IntervalTooFine { value: value() });
            }
            every(interval)?
        } else {
            Repeat::cron(trimmed, timezone).map_err(|error| match error {
                RepeatError::Pattern { cause, .. } => ScheduleError::Pattern { value: value(), cause },
                RepeatError::TimeZone { value, cause } => ScheduleError::TimeZone { value, cause },
                _ => ScheduleError::Never { value: value() },
            })?
        };
        Ok(Self { text: trimmed.to_owned(), repeat })
    }

    /// Whether it follows how often the feed changes.
    pub fn is_auto(&self) -> bool {
        self.text == AUTO
    }

    /// The first slot after `at`; `None` when the calendar ends before it.
    pub fn next_after(&self, at: Timestamp) -> Option<Timestamp> {
        self.repeat.next_after(at)
    }

    /// Whether a slot lies after the last fetch and not after `now`. What was never fetched is due.
    pub fn is_due(&self, last_fetched: Option<Timestamp>, now: Timestamp) -> bool {
        last_fetched.is_none_or(|last| self.next_after(last).is_some_and(|slot| slot <= now))
    }
}

/// One time at which a feed is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// What the schedule says.
    pub scheduled_at: Timestamp,
    /// When the feed is due: the same moment after each scheduled time, which follows from the feed's name. At most its
    /// `spread` later, and at most [a tenth](SPREAD_SHARE) of the time to the next one.
    pub due_at: Timestamp,
}

impl Feed {
    /// The first slot that is due after `at`; `None` without a schedule, or when the calendar ends before it.
    pub fn slot_after(&self, at: Timestamp) -> Option<Slot> {
        let schedule = self.schedule.as_ref()?;
        // What was scheduled before may be due after.
        let mut scheduled_at = schedule.next_after(at.checked_sub(self.spread).ok()?)?;
        loop {
            let following = schedule.next_after(scheduled_at)?;
            let interval = Duration::try_from(following.duration_since(scheduled_at)).unwrap_or_default();
            let due_at = scheduled_at.checked_add(self.delay_below(self.spread.min(interval / SPREAD_SHARE))).ok()?;
            if due_at > at {
                return Some(Slot { scheduled_at, due_at });
            }
            scheduled_at = following;
        }
    }

    /// The slot that is due at this very time, if it is one.
    pub fn slot_at(&self, due_at: Timestamp) -> Option<Slot> {
        let before = due_at.checked_sub(Duration::from_millis(1)).ok()?;
        self.slot_after(before).filter(|slot| slot.due_at == due_at)
    }

    /// When it is due next after `at`, with what stands between it and its schedule; `None` if it is not scheduled.
    ///
    /// A hold that ends later lets the first slot pass that is due after it; with `"auto"` its end is the slot.
    pub fn due_after(&self, at: Timestamp, hold: Hold) -> Option<Timestamp> {
        let schedule = self.schedule.as_ref()?;
        match hold {
            Hold::Stopped => None,
            Hold::Until(end) if end > at && schedule.is_auto() => Some(end),
            Hold::Until(end) if end > at => self.slot_after(end).map(|slot| slot.due_at),
            Hold::Until(_) | Hold::None => self.slot_after(at).map(|slot| slot.due_at),
        }
    }

    /// The feed's own place in a span, in whole milliseconds.
    fn delay_below(&self, span: Duration) -> Duration {
        let place = u128::from(xxh3_64(self.name.as_bytes()));
        Duration::from_millis(((place * span.as_millis()) >> 64) as u64)
    }
}

/// The schedule as it was written.
impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// A schedule in UTC.
impl FromStr for Schedule {
    type Err = ScheduleError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text, None)
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, time::Duration};

    use jiff::{SignedDuration, Timestamp};

    use super::{Feed, Hold, Schedule};
    use crate::feed::OnLeave;

    fn at(text: &str) -> Timestamp {
        text.parse().expect("is a time stamp")
    }

    fn slots(text: &str, zone: Option<&str>, from: &str, count: usize) -> Vec<String> {
        let schedule = Schedule::parse(text, zone).expect(text);
        let mut now = at(from);
        let mut next = || {
            now = schedule.next_after(now)?;
            Some(now.to_string())
        };
        (0..count).map_while(|_| next()).collect()
    }

    fn refusal(text: &str, zone: Option<&str>) -> String {
        Schedule::parse(text, zone).expect_err(text).to_string()
    }

    fn feed(name: &str, schedule: &str, spread: Duration) -> Feed {
        Feed {
            fetch_group: String::new(),
            name: name.to_owned(),
            url: "https://example.com/feed".parse().expect("is a URL"),
            source: name.to_owned(),
            credentials: None,
            proxy: None,
            headers: BTreeMap::new(),
            schedule: Some(Schedule::parse(schedule, None).expect(schedule)),
            allow_private: false,
            on_leave: OnLeave::Keep,
            spread,
        }
    }

    #[test]
    fn a_feed_is_due_at_the_same_moment_after_each_scheduled_time() {
        let feed = feed("jobs", "*/15 * * * *", Duration::from_mins(1));
        let first = feed.slot_after(at("2026-03-01T10:16:00Z")).expect("there are more");
        // Moves only with the name of the feed, in every version: else an upgrade would fetch feeds twice.
        assert_eq!(first.scheduled_at, at("2026-03-01T10:30:00Z"));
        assert_eq!(first.due_at, at("2026-03-01T10:30:08.693Z"));
        let second = feed.slot_after(first.due_at).expect("there are more");
        assert_eq!(second.due_at.duration_since(first.due_at), SignedDuration::from_mins(15));
        // Between a scheduled time and its due time the slot is still to come.
        assert_eq!(feed.slot_after(first.scheduled_at), Some(first));
        assert_eq!(feed.slot_at(first.due_at), Some(first));
        assert_eq!(feed.slot_at(first.scheduled_at), None);
    }

    #[test]
    fn a_hold_lets_slots_pass_and_is_the_slot_of_auto() {
        let (now, end) = (at("2026-03-01T10:16:00Z"), at("2026-03-01T11:31:07Z"));
        for (schedule, hold, due) in [
            ("*/15 * * * *", Hold::None, Some("2026-03-01T10:30:00Z")),
            ("*/15 * * * *", Hold::Until(end), Some("2026-03-01T11:45:00Z")),
            ("*/15 * * * *", Hold::Until(now), Some("2026-03-01T10:30:00Z")),
            ("*/15 * * * *", Hold::Stopped, None),
            ("auto", Hold::None, Some("2026-03-01T10:30:00Z")),
            ("auto", Hold::Until(end), Some("2026-03-01T11:31:07Z")),
            ("auto", Hold::Stopped, None),
        ] {
            assert_eq!(feed("jobs", schedule, Duration::ZERO).due_after(now, hold), due.map(at), "{schedule} {hold:?}");
        }
    }

    #[test]
    fn feeds_are_spread_over_their_spread_or_a_tenth_of_their_interval_if_that_is_less() {
        for (schedule, spread, limit) in [
            ("0 * * * *", Duration::from_mins(1), Duration::from_mins(1)),
            ("every 2s", Duration::from_mins(1), Duration::from_millis(200)),
            ("* * * * *", Duration::from_secs(5), Duration::from_secs(5)),
            ("0 9 * * *", Duration::ZERO, Duration::ZERO),
        ] {
            let delays: Vec<Duration> = (0..500)
                .map(|n| {
                    let slot = feed(&format!("feed-{n}"), schedule, spread).slot_after(at("2026-03-01T10:16:00Z"));
                    let slot = slot.expect("there are more");
                    Duration::try_from(slot.due_at.duration_since(slot.scheduled_at)).expect("it is not before")
                })
                .collect();
            assert!(delays.iter().all(|delay| *delay <= limit), "{schedule}: {delays:?}");
            for part in 0..10 {
                let range = limit / 10 * part..limit / 10 * (part + 1);
                let n_within = delays.iter().filter(|delay| range.contains(*delay)).count();
                assert!(limit.is_zero() || n_within > 20, "{schedule}: {n_within} in {range:?}");
            }
        }
    }

    #[test]
    fn no_slot_is_passed_over_or_met_twice_whatever_its_spread() {
        // Intervals that differ: a minute, and then most of an hour.
        for schedule in ["0,1 * * * *", "every 3s", "* * * * * *"] {
            for name in ["a", "b", "c", "feed-17"] {
                let feed = feed(name, schedule, Duration::from_mins(1));
                let parsed = feed.schedule.clone().expect("it has one");
                let start = at("2026-03-01T10:00:00Z");
                let (mut scheduled, mut due) = (start, feed.slot_after(start).expect("there are more"));
                while due.scheduled_at <= start {
                    due = feed.slot_after(due.due_at).expect("there are more");
                }
                for _ in 0..50 {
                    scheduled = parsed.next_after(scheduled).expect("there are more");
                    assert_eq!(due.scheduled_at, scheduled, "{schedule} {name}");
                    due = feed.slot_after(due.due_at).expect("there are more");
                }
            }
        }
    }

    #[test]
    fn a_cron_pattern_gives_its_slots() {
        assert_eq!(
            slots("*/15 * * * *", None, "2026-03-01T10:15:00Z", 2),
            ["2026-03-01T10:30:00Z", "2026-03-01T10:45:00Z"]
        );
        assert_eq!(slots("*/15 * * * *", None, "2026-03-01T10:14:59.5Z", 1), ["2026-03-01T10:15:00Z"]);
        assert_eq!(slots("30 */15 * * * *", None, "2026-03-01T10:15:00Z", 1), ["2026-03-01T10:15:30Z"]);
        assert_eq!(slots("@hourly", None, "2026-03-01T10:15:00Z", 1), ["2026-03-01T11:00:00Z"]);
        assert_eq!(slots("0 9 * * MON-FRI", None, "2026-02-27T10:00:00Z", 1), ["2026-03-02T09:00:00Z"]);
    }

    #[test]
    fn a_time_zone_moves_a_cron_pattern() {
        assert_eq!(slots("0 9 * * *", Some("Europe/Berlin"), "2026-01-10T00:00:00Z", 1), ["2026-01-10T08:00:00Z"]);
        assert_eq!(slots("0 9 * * *", Some("Europe/Berlin"), "2026-07-10T00:00:00Z", 1), ["2026-07-10T07:00:00Z"]);
    }

    #[test]
    fn intervals_are_aligned_so_that_all_processes_agree() {
        assert_eq!(
            slots("every 15m", None, "2026-03-01T10:16:07.5Z", 2),
            ["2026-03-01T10:30:00Z", "2026-03-01T10:45:00Z"]
        );
        assert_eq!(
            slots("every 1h 30m", None, "1970-01-01T00:00:00Z", 2),
            ["1970-01-01T01:30:00Z", "1970-01-01T03:00:00Z"]
        );
        assert_eq!(slots("auto", None, "2026-03-01T10:16:00Z", 1), ["2026-03-01T10:30:00Z"]);
        assert_eq!(slots("every 10s", None, "1969-12-31T23:59:55Z", 1), ["1970-01-01T00:00:00Z"]);
    }

    #[test]
    fn a_feed_is_due_when_a_slot_passed_since_its_last_fetch() {
        let schedule = Schedule::parse("*/15 * * * *", None).expect("is a schedule");
        let now = at("2026-03-01T10:15:00Z");
        assert!(schedule.is_due(None, now));
        assert!(schedule.is_due(Some(at("2026-03-01T10:14:59Z")), now));
        assert!(!schedule.is_due(Some(now), now));
        assert!(!schedule.is_due(Some(at("2026-03-01T10:15:01Z")), at("2026-03-01T10:29:59Z")));
        assert!(schedule.is_due(Some(at("2026-02-01T00:00:00Z")), now));
    }

    #[test]
    fn a_refusal_names_the_value_and_what_is_accepted() {
        for text in ["", "* * * *", "61 * * * *", "every", "hourly", "0 0 0 1 1 * 2030", "*/15 * * * * UTC"] {
            let refusal = refusal(text, None);
            assert!(refusal.contains(&format!("\"{text}\"")) && refusal.contains("every 15m"), "{refusal}");
        }
        assert!(refusal("every soon", None).contains("like \"every 15m\""));
        assert!(refusal("every 500ms", None).contains("whole number of seconds"));
        assert!(refusal("every 0s", None).contains("whole number of seconds"));
        assert!(refusal("every 99999999999999y", None).contains("every"));
        assert_eq!(refusal("0 0 31 2 *", None), "schedule \"0 0 31 2 *\" is never due");
        assert!(refusal("auto", Some("Europe/Berln")).starts_with("timezone \"Europe/Berln\" is not known"));
    }

    #[test]
    fn a_schedule_shows_what_was_written() {
        assert_eq!(Schedule::parse(" every 15m ", None).expect("is a schedule").to_string(), "every 15m");
    }
}
