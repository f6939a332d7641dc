//! The one decision table: outcome × attempt → how a delivery is settled. Pure.

use std::time::Duration;

use super::RetryPolicy;
use crate::job::{Outcome, Stored};

/// The end of a delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Settlement {
    Done {
        stored: Option<Stored>,
        /// What the work came to, as JSON.
        result: Option<String>,
    },
    /// Wait, then try again. Without a reason no attempt was used.
    BackOff {
        wait: Duration,
        reason: Option<String>,
    },
    Bury {
        reason: String,
        exhausted: bool,
    },
}

/// Decides; `attempt` is the one that ended, counted from 1, `attempts` how many there may be.
pub(super) fn settlement(
    outcome: Outcome,
    attempt: u8,
    attempts: u8,
    policy: &RetryPolicy,
    random: impl FnOnce() -> f64,
) -> Settlement {
    match outcome {
        Outcome::Done => Settlement::Done { stored: None, result: None },
        Outcome::DoneWith(result) => Settlement::Done { stored: None, result: Some(result) },
        Outcome::Stored(stored) => Settlement::Done { stored: Some(stored), result: None },
        Outcome::Snooze(wait) => Settlement::BackOff { wait, reason: None },
        Outcome::Fail(reason) => Settlement::Bury { reason, exhausted: false },
        Outcome::Retry(reason) | Outcome::RetryAfter(reason, _) if attempt >= attempts => {
            Settlement::Bury { reason, exhausted: true }
        }
        Outcome::Retry(reason) => Settlement::BackOff { wait: policy.wait(attempt, random()), reason: Some(reason) },
        Outcome::RetryAfter(reason, wait) => Settlement::BackOff { wait, reason: Some(reason) },
    }
}

#[cfg(test)]
mod tests {
    use super::super::Growth;
    use super::*;

    fn decide(outcome: Outcome, attempt: u8) -> Settlement {
        let policy = RetryPolicy {
            growth: Growth::Exponential,
            delay: Duration::from_secs(1),
            max: Duration::from_hours(1),
            jitter: 0.0,
        };
        settlement(outcome, attempt, 3, &policy, || 0.0)
    }

    fn back_off(seconds: u64, reason: Option<&str>) -> Settlement {
        Settlement::BackOff { wait: Duration::from_secs(seconds), reason: reason.map(str::to_owned) }
    }

    #[test]
    fn a_failed_attempt_waits_until_the_last_which_is_buried() {
        let failed = || Outcome::Retry("no".to_owned());
        assert_eq!(decide(failed(), 1), back_off(1, Some("no")));
        assert_eq!(decide(failed(), 2), back_off(2, Some("no")));
        assert_eq!(decide(failed(), 3), Settlement::Bury { reason: "no".to_owned(), exhausted: true });
        assert_eq!(
            decide(Outcome::RetryAfter("no".to_owned(), Duration::from_secs(9)), 3),
            Settlement::Bury { reason: "no".to_owned(), exhausted: true }
        );
    }

    #[test]
    fn a_handler_may_choose_the_wait() {
        let later = Outcome::RetryAfter("busy".to_owned(), Duration::from_secs(9));
        assert_eq!(decide(later, 1), back_off(9, Some("busy")));
    }

    #[test]
    fn a_snooze_uses_no_attempt_even_at_the_last() {
        assert_eq!(decide(Outcome::Snooze(Duration::from_secs(5)), 3), back_off(5, None));
    }

    #[test]
    fn what_cannot_succeed_is_buried_at_once() {
        let buried = Settlement::Bury { reason: "bad".to_owned(), exhausted: false };
        assert_eq!(decide(Outcome::Fail("bad".to_owned()), 1), buried);
    }

    #[test]
    fn done_is_done() {
        let done = |stored, result: Option<&str>| Settlement::Done { stored, result: result.map(str::to_owned) };
        assert_eq!(decide(Outcome::Done, 1), done(None, None));
        assert_eq!(decide(Outcome::DoneWith("7".to_owned()), 1), done(None, Some("7")));
        assert_eq!(decide(Outcome::Stored(Stored::Stale), 3), done(Some(Stored::Stale), None));
    }
}
