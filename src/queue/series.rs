//! Series: how many jobs ended in each minute, always on, written by the scripts that end jobs.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::{Queue, QueueError};

/// How long a series goes back: the scripts let the numbers of a day go this long after its first.
pub const SERIES_KEPT: Duration = Duration::from_hours(15 * 24);

const MINUTES_PER_DAY: u64 = 24 * 60;

/// What a series counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SeriesOf {
    /// Jobs that were done.
    Completed,
    /// Jobs that became dead letters. Failed attempts that are repeated are not counted.
    Failed,
}

impl SeriesOf {
    /// Its name, as it stands in Redis.
    pub fn name(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Failed => "failed",
        }
    }
}

/// One minute of a series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Point {
    /// When the minute began, by the clock of Redis.
    pub minute: SystemTime,
    /// How many jobs ended in it.
    pub count: u64,
}

impl Queue {
    /// One point for each minute from that of `from` to that of `to`, both included, oldest first; minutes in which nothing
    /// ended are 0. The present minute, which is not over, is the last; what is asked for beyond it, or before
    /// [`SERIES_KEPT`], is left out.
    ///
    /// # Errors
    /// [`QueueError::Redis`].
    pub async fn series(&self, of: SeriesOf, from: SystemTime, to: SystemTime) -> Result<Vec<Point>, QueueError> {
        let now = self.time().await?;
        let oldest = now - SERIES_KEPT;
        let (mut minute, last) = (minute_of(from.max(oldest)), minute_of(to.min(now)));
        let mut points = Vec::new();
        // One day a command: what one of them reads is bounded.
        while minute <= last {
            let day = minute / MINUTES_PER_DAY;
            let end = last.min(day * MINUTES_PER_DAY + MINUTES_PER_DAY - 1);
            let mut read = redis::cmd("HMGET");
            read.arg(self.keys().series(day));
            for minute in minute..=end {
                read.arg(format!("{}:{}", of.name(), minute % MINUTES_PER_DAY));
            }
            let counts: Vec<Option<u64>> = self.ask("HMGET", &read).await?;
            points.extend((minute..=end).zip(counts).map(|(minute, count)| Point {
                minute: UNIX_EPOCH + Duration::from_secs(minute * 60),
                count: count.unwrap_or(0),
            }));
            minute = end + 1;
        }
        Ok(points)
    }
}

fn minute_of(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() / 60
}
