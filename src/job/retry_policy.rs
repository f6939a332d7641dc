//! How long a failed job waits for its next attempt. Pure.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::options::millis;

/// How the wait grows with the failed attempts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Growth {
    /// Doubles: `delay × 2^(n−1)` after failed attempt n, so the first wait is `delay`.
    Exponential,
    /// Is always `delay`.
    Fixed,
}

/// The wait after a failed attempt; the same arithmetic as BullMQ's back-off strategies, with a cap.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct RetryPolicy {
    /// How it grows.
    pub growth: Growth,
    /// The wait after the first failed attempt.
    #[serde(with = "millis")]
    pub delay: Duration,
    /// No wait is longer.
    #[serde(with = "millis")]
    pub max: Duration,
    /// Share of the wait that is random, 0 to 1: with 0.5 a wait of 10 s is between 5 and 10 s.
    pub jitter: f64,
}

impl RetryPolicy {
    /// The wait after failed attempt `attempt` (counted from 1); `random` is uniform in 0 to 1.
    pub fn wait(&self, attempt: u8, random: f64) -> Duration {
        let full = match self.growth {
            Growth::Fixed => self.delay,
            Growth::Exponential => {
                let doublings = u32::from(attempt.saturating_sub(1));
                2_u32.checked_pow(doublings).map_or(self.max, |factor| self.delay.saturating_mul(factor))
            }
        };
        let full = full.min(self.max);
        if self.jitter <= 0.0 {
            return full;
        }
        let jitter = self.jitter.min(1.0);
        full.mul_f64(random.clamp(0.0, 1.0) * jitter + 1.0 - jitter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXPONENTIAL: RetryPolicy = RetryPolicy {
        growth: Growth::Exponential,
        delay: Duration::from_secs(1),
        max: Duration::from_hours(1),
        jitter: 0.0,
    };

    #[test]
    fn the_wait_doubles_from_the_delay_up_to_the_cap() {
        let waits: Vec<u64> = [1, 2, 3, 12, 13, 40, 255].map(|n| EXPONENTIAL.wait(n, 0.0).as_secs()).to_vec();
        assert_eq!(waits, [1, 2, 4, 2048, 3600, 3600, 3600]);
    }

    #[test]
    fn a_fixed_wait_does_not_grow() {
        let fixed = RetryPolicy { growth: Growth::Fixed, ..EXPONENTIAL };
        assert_eq!(fixed.wait(1, 0.0), fixed.wait(9, 0.0));
    }

    #[test]
    fn jitter_takes_off_at_most_its_share() {
        let policy = RetryPolicy { jitter: 0.5, ..EXPONENTIAL };
        assert_eq!(policy.wait(4, 0.0), Duration::from_secs(4));
        assert_eq!(policy.wait(4, 1.0), Duration::from_secs(8));
        assert_eq!(policy.wait(4, 7.0), Duration::from_secs(8), "never longer than without");
    }
}
