//! When a feed is fetched next where its schedule alone does not say: after failures, and with the schedule `"auto"`.
//! Pure: time and chance come in as arguments.
//!
//! ```text
//!   fetch failed ──▶ the longer it has failed, the later      (from a minute, or half an hour where it is not let in,
//!                                                              to a day; a server that asks for time gets it)
//!   410          ──▶ never by itself again
//!   "auto"       ──▶ half the interval after something new, a quarter more after nothing; never more often than the
//!                    publisher wants (ttl, sy:updatePeriod, Cache-Control, Expires), nor in hours it wants to be left alone
//! ```
//!
//! What comes out is a [`Hold`], kept with what is remembered of the feed: the schedule goes on behind it. Who asks for a
//! fetch gets it whatever the hold, and one that succeeds ends it.

use std::convert::Infallible;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp, tz::TimeZone};

use super::fetch::Next;
use super::schedule::AUTO_INTERVAL;

/// Wait after the first fetch that failed; doubled with each that follows.
const FAILED_WAIT: Duration = Duration::from_mins(1);
/// The same, where the server says 401, 403 or 404: that takes somebody to change it.
const REFUSED_WAIT: Duration = Duration::from_mins(30);
/// Longest wait after failures: a feed that comes back is met within a day.
const WAIT_MAX: Duration = Duration::from_hours(24);
/// Share of a wait that is added by chance, so that what failed together does not come again together.
const JITTER: f64 = 0.2;

/// Shortest and longest interval of `"auto"`.
const INTERVAL_MIN: Duration = Duration::from_mins(5);
const INTERVAL_MAX: Duration = Duration::from_hours(12);
/// Longest interval that a publisher is believed to want; some say a year.
const ASKED_MAX: Duration = Duration::from_hours(24);

/// How much of a document is searched for what its publisher wants: it stands before the items.
const HEAD_BYTES_MAX: usize = 64 * 1024;

/// What stands between a feed and its schedule.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Hold {
    /// Nothing.
    #[default]
    None,
    /// It is not fetched by its schedule before this time.
    Until(Timestamp),
    /// It is not fetched by its schedule any more: its server says that it is gone for good.
    Stopped,
}

/// As it is remembered: empty, milliseconds since 1970, or `stopped`.
impl fmt::Display for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => Ok(()),
            Self::Until(at) => write!(f, "{}", at.as_millisecond()),
            Self::Stopped => f.write_str("stopped"),
        }
    }
}

/// What cannot be read holds nothing: the feed goes on by its schedule.
impl FromStr for Hold {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        if text == "stopped" {
            return Ok(Self::Stopped);
        }
        let at = text.parse().ok().and_then(|ms| Timestamp::from_millisecond(ms).ok());
        Ok(at.map_or(Self::None, Self::Until))
    }
}

/// The hold after a fetch that failed: for the `failures`th time in a row, with this status if there was an answer.
/// `chance` is a random number from 0 to 1.
pub fn after_failure(next: Next, status: Option<u16>, failures: u32, now: Timestamp, chance: f64) -> Hold {
    let first = if matches!(status, Some(401 | 403 | 404)) { REFUSED_WAIT } else { FAILED_WAIT };
    let doubled = first.saturating_mul(2_u32.saturating_pow(failures.saturating_sub(1)));
    let wait = doubled.min(WAIT_MAX).mul_f64(1.0 + JITTER * chance);
    match next {
        Next::Stop => Hold::Stopped,
        Next::RetryAfter(asked) => until(now, wait.max(asked)),
        Next::Retry | Next::Fail => until(now, wait),
    }
}

/// The interval of `"auto"` after a fetch that brought something new, or did not. `current` is the one before; `None` if
/// this is the first.
pub fn interval_after(current: Option<Duration>, has_news: bool) -> Duration {
    let Some(current) = current else { return AUTO_INTERVAL }; // everything is new, which says nothing
    let next = if has_news { current / 2 } else { current.saturating_mul(5) / 4 };
    next.clamp(INTERVAL_MIN, INTERVAL_MAX)
}

/// The hold of a feed with the schedule `"auto"`. `chance` is a random number from 0 to 1, by which feeds that were
/// fetched together drift apart.
pub fn auto(interval: Duration, wishes: &Wishes, now: Timestamp, chance: f64) -> Hold {
    let interval = interval.max(wishes.interval.unwrap_or_default());
    match until(now, interval.mul_f64(1.0 + JITTER / 2.0 * chance)) {
        Hold::Until(at) => Hold::Until(wishes.after_quiet_hours(at)),
        other => other,
    }
}

fn until(now: Timestamp, wait: Duration) -> Hold {
    now.checked_add(wait).map_or(Hold::Stopped, Hold::Until)
}

/// How often a publisher wants to be asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wishes {
    /// Not more often than this, at most [a day](ASKED_MAX).
    pub interval: Option<Duration>,
    /// Hours of the day, in UTC, in which it wants to be left alone (`skipHours`).
    quiet_hours: [bool; 24],
}

impl Wishes {
    /// What a document says before its items, and `fresh_for`, what the answer said that it came with.
    ///
    /// Looks at the bytes alone, so that it is the same for every format; what it does not find it does not know.
    pub fn of(document: &[u8], fresh_for: Option<Duration>) -> Self {
        let head = String::from_utf8_lossy(&document[..document.len().min(HEAD_BYTES_MAX)]);
        let end = ["<item", "<entry"].iter().filter_map(|tag| head.find(tag)).min().unwrap_or(head.len());
        let head = &head[..end];
        let ttl =
            text_of(head, "ttl").and_then(|text| text.parse().ok()).map(|minutes: u64| minutes.saturating_mul(60));
        let stated = ttl.map(Duration::from_secs).into_iter().chain(update_period(head)).chain(fresh_for);
        let interval = stated.max().map(|interval| interval.min(ASKED_MAX)).filter(|interval| !interval.is_zero());
        let mut quiet_hours = [false; 24];
        for hour in text_of(head, "skipHours").into_iter().flat_map(|hours| hours.split("<hour>").skip(1)) {
            let digits: String = hour.trim_start().chars().take_while(char::is_ascii_digit).collect();
            // Midnight is 24 in some versions of the format.
            if let Ok(hour @ 0..=24) = digits.parse::<usize>() {
                quiet_hours[hour % 24] = true;
            }
        }
        if quiet_hours.iter().all(|is_quiet| *is_quiet) {
            quiet_hours = [false; 24];
        }
        Self { interval, quiet_hours }
    }

    /// The first time from `at` on that is in no quiet hour.
    fn after_quiet_hours(&self, at: Timestamp) -> Timestamp {
        let hour = |at: Timestamp| at.to_zoned(TimeZone::UTC).hour().unsigned_abs() as usize;
        let mut later = at;
        for _ in 0..24 {
            if !self.quiet_hours[hour(later)] {
                break;
            }
            let into_hour = later.as_second().rem_euclid(3600);
            later = later.checked_add(SignedDuration::from_secs(3600 - into_hour)).unwrap_or(later);
        }
        later
    }
}

/// `sy:updatePeriod` divided by `sy:updateFrequency`.
fn update_period(head: &str) -> Option<Duration> {
    let hours = match text_of(head, "sy:updatePeriod")?.to_ascii_lowercase().as_str() {
        "hourly" => 1,
        "daily" => 24,
        "weekly" => 24 * 7,
        "monthly" => 24 * 30,
        "yearly" => 24 * 365,
        _ => return None,
    };
    let times = text_of(head, "sy:updateFrequency").and_then(|text| text.parse().ok()).filter(|times| *times > 0);
    Some(Duration::from_hours(hours) / times.unwrap_or(1))
}

/// What stands in the first element of this name.
fn text_of<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = head.split_once(&format!("<{name}>"))?;
    let (text, _) = rest.split_once(&format!("</{name}>"))?;
    Some(text.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: &str = "2026-03-01T10:16:00Z";

    fn now() -> Timestamp {
        NOW.parse().expect("is a time")
    }

    fn wait(hold: Hold) -> Duration {
        match hold {
            Hold::Until(at) => at.duration_since(now()).try_into().expect("is not before"),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_wait_doubles_with_each_failure_up_to_a_day_and_chance_adds_to_it() {
        let waits = |status, n| [0.0, 1.0].map(|chance| wait(after_failure(Next::Retry, status, n, now(), chance)));
        assert_eq!(waits(Some(500), 1), [60, 72].map(Duration::from_secs));
        assert_eq!(waits(None, 4), [480, 576].map(Duration::from_secs));
        assert_eq!(waits(Some(404), 1), [30, 36].map(Duration::from_mins));
        assert_eq!(waits(Some(403), 3), [120, 144].map(Duration::from_mins));
        assert_eq!(waits(None, 12)[0], Duration::from_hours(24));
        assert_eq!(waits(None, u32::MAX)[0], Duration::from_hours(24));
    }

    #[test]
    fn a_server_gets_the_time_it_asks_for_and_one_that_is_gone_is_left_alone() {
        let asked = |seconds| Next::RetryAfter(Duration::from_secs(seconds));
        assert_eq!(wait(after_failure(asked(3000), Some(429), 1, now(), 0.0)), Duration::from_mins(50));
        assert_eq!(wait(after_failure(asked(1), Some(503), 2, now(), 0.0)), Duration::from_mins(2));
        assert_eq!(after_failure(Next::Stop, Some(410), 1, now(), 0.0), Hold::Stopped);
    }

    #[test]
    fn the_interval_follows_how_often_something_is_new() {
        assert_eq!(interval_after(None, true), AUTO_INTERVAL);
        assert_eq!(interval_after(Some(AUTO_INTERVAL), true), Duration::from_mins(15));
        assert_eq!(interval_after(Some(Duration::from_mins(20)), false), Duration::from_mins(25));
        let (mut busy, mut quiet) = (AUTO_INTERVAL, AUTO_INTERVAL);
        for _ in 0..30 {
            (busy, quiet) = (interval_after(Some(busy), true), interval_after(Some(quiet), false));
        }
        assert_eq!((busy, quiet), (INTERVAL_MIN, INTERVAL_MAX));
    }

    #[test]
    fn a_publisher_is_not_asked_more_often_than_it_wants() {
        let rss = |channel: &str| format!("<rss><channel>{channel}<item><ttl>999</ttl></item></channel></rss>");
        for (channel, fresh_for, minutes) in [
            ("", None, None),
            ("<ttl>60</ttl>", None, Some(60)),
            ("<ttl> 60\n</ttl>", Some(Duration::from_hours(2)), Some(120)),
            ("<ttl>soon</ttl>", None, None),
            ("<ttl>0</ttl>", None, None),
            ("<ttl>525600</ttl>", None, Some(24 * 60)),
            ("<sy:updatePeriod>hourly</sy:updatePeriod><sy:updateFrequency>2</sy:updateFrequency>", None, Some(30)),
            ("<sy:updatePeriod> Daily </sy:updatePeriod>", None, Some(24 * 60)),
            ("<sy:updatePeriod>hourly</sy:updatePeriod><sy:updateFrequency>0</sy:updateFrequency>", None, Some(60)),
            ("", Some(Duration::from_mins(45)), Some(45)),
        ] {
            let wishes = Wishes::of(rss(channel).as_bytes(), fresh_for);
            assert_eq!(wishes.interval, minutes.map(Duration::from_mins), "{channel}");
        }
        let hourly = Wishes::of(rss("<ttl>60</ttl>").as_bytes(), None);
        assert_eq!(wait(auto(INTERVAL_MIN, &hourly, now(), 0.0)), Duration::from_hours(1));
        assert_eq!(wait(auto(INTERVAL_MAX, &hourly, now(), 1.0)), INTERVAL_MAX.mul_f64(1.1));
    }

    #[test]
    fn quiet_hours_are_waited_out() {
        let hours = |hours: &str| Wishes::of(format!("<skipHours>{hours}</skipHours>").as_bytes(), None);
        let quiet = hours("<hour>11</hour>\n <hour>12</hour><hour>24</hour>");
        assert_eq!(
            auto(AUTO_INTERVAL, &quiet, now(), 0.0),
            Hold::Until("2026-03-01T10:46:00Z".parse().expect("is one"))
        );
        let later = "2026-03-01T13:00:00Z".parse().expect("is a time");
        assert_eq!(auto(Duration::from_hours(1), &quiet, now(), 0.0), Hold::Until(later));
        let always = (0..24).map(|hour| format!("<hour>{hour}</hour>")).collect::<Vec<_>>().concat();
        assert_eq!(hours(&always), Wishes::default(), "it would never be fetched");
    }

    #[test]
    fn a_hold_is_read_as_it_was_written() {
        for hold in [Hold::None, Hold::Stopped, Hold::Until(now())] {
            assert_eq!(hold.to_string().parse(), Ok(hold));
        }
        assert_eq!("?".parse(), Ok(Hold::None));
    }
}
