//! Limits of a queue, over all of its workers: how many jobs start in a window of time, and how many are active at once.
//!
//! ```text
//!   no limits:    waiting ──XREADGROUP──▶ active
//!   with limits:  waiting ──take (as many as allowed)──▶ active        plain reads bring nothing: the gate is closed
//! ```
//!
//! The same script hands out jobs with a priority, with or without limits. A queue without either never calls it while
//! it is busy.
//!
//! *Crash:* a script that was carried out and whose answer was lost has delivered jobs to nobody; they are claimed.

use std::time::Duration;

use super::read::{RawEntry, streams};
use super::scripts::{self, Call, JOBS_PER_CALL_MAX, element};
use super::{Queue, QueueError, millis};

/// At most so many starts in each window of time. Windows are fixed: one begins with the first start after the last ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Starts in a window; at least 1.
    pub max: u64,
    /// Length of a window; at least a millisecond.
    pub duration: Duration,
}

/// What a queue is limited to; `None` is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Starts per window, over all workers.
    pub rate: Option<Rate>,
    /// Jobs that are active at once, over all workers; at least 1.
    pub concurrency: Option<u64>,
    /// Starts per window of each group; jobs over it wait in backoff until the window ends, without an attempt.
    pub group_rate: Option<Rate>,
}

/// Who sets limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetBy {
    /// The configuration of a process that starts. Does nothing once an operator has set limits.
    Config,
    /// Somebody who wants it so now.
    Operator,
}

/// How plain reads are answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gate {
    Free,
    Limited,
    Paused,
}

/// What [`Queue::take`] brought.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) gate: Gate,
    /// Time until the next try may bring more; `None`: when something is added.
    pub(super) wait: Option<Duration>,
    /// Id of the newest entry that the stream ever had; empty where it does not matter.
    pub(super) last_generated: String,
    pub(super) prioritized: Vec<RawEntry>,
    pub(super) plain: Vec<RawEntry>,
}

impl Queue {
    /// Sets the limits, from the next delivery on; those that are `None` are removed. Returns false if they were left as an
    /// operator has set them.
    ///
    /// # Errors
    /// [`QueueError::Redis`]; may be repeated.
    pub async fn set_limits(&self, limits: Limits, by: SetBy) -> Result<bool, QueueError> {
        let number = |number: Option<u64>| number.map(|number| number.max(1).to_string()).unwrap_or_default();
        let (rate, group_rate) = (limits.rate, limits.group_rate);
        let fields = [
            ("rate_max", number(rate.map(|rate| rate.max))),
            ("rate_duration", number(rate.map(|rate| millis(rate.duration)))),
            ("concurrency", number(limits.concurrency)),
            ("group_rate_max", number(group_rate.map(|rate| rate.max))),
            ("group_rate_duration", number(group_rate.map(|rate| millis(rate.duration)))),
        ];
        self.change_limits(by, &fields).await
    }

    /// Starts nothing for so long, whatever the limits: what a server's `429` asks for. What is active goes on.
    ///
    /// # Errors
    /// [`QueueError::Redis`]; may be repeated, and then counts from the last time.
    pub async fn hold_up(&self, span: Duration) -> Result<(), QueueError> {
        self.change_limits(SetBy::Operator, &[("rate_for", millis(span).to_string())]).await?;
        Ok(())
    }

    /// The limits in force.
    ///
    /// # Errors
    /// [`QueueError::Redis`].
    pub async fn limits(&self) -> Result<Limits, QueueError> {
        let fields = ["rate_max", "rate_duration", "concurrency", "group_rate_max", "group_rate_duration"];
        let values: Vec<Option<u64>> = redis::cmd("HMGET")
            .arg(self.keys().meta())
            .arg(&fields)
            .query_async(&mut self.connection())
            .await
            .map_err(|cause| QueueError::from_redis("HMGET", cause))?;
        let rate = |max: Option<u64>, duration: Option<u64>| {
            Some(Rate { max: max?, duration: Duration::from_millis(duration?) })
        };
        let value = |at: usize| values.get(at).copied().flatten();
        Ok(Limits { rate: rate(value(0), value(1)), concurrency: value(2), group_rate: rate(value(3), value(4)) })
    }

    async fn change_limits(&self, by: SetBy, fields: &[(&str, String)]) -> Result<bool, QueueError> {
        self.ensure_group().await?;
        let keys = self.keys();
        let all = [keys.stream(), keys.meta(), keys.wake(), keys.limiter()];
        let mut call = Call::new(&scripts::SET_LIMITS, all.into_iter());
        call.arg(match by {
            SetBy::Config => "config",
            SetBy::Operator => "operator",
        });
        for (field, value) in fields {
            call.arg(field).arg(value);
        }
        Ok(call.run(&mut self.connection()).await?.decode::<u8>()? == 1)
    }

    /// Takes up to `count` jobs where a plain read brings none: those with a priority, and with limits all of them. Once the
    /// oldest plain job waits for `ageing`, jobs with a priority get half of `count`.
    pub(super) async fn take(&self, consumer: &str, count: usize, ageing: Duration) -> Result<Taken, QueueError> {
        let mut call = self.moving(&scripts::TAKE, [self.keys().limiter()]);
        call.arg(consumer)
            .arg(count.min(JOBS_PER_CALL_MAX))
            .arg(millis(ageing))
            .arg(self.keys().group_limiter_prefix());
        let (script, elements) = call.run(&mut self.connection()).await?.array()?;
        let unexpected = |detail: &str| QueueError::Reply { script: script.name, detail: detail.to_owned() };
        let [gate, wait, last, prioritized, plain]: [redis::Value; 5] =
            elements.try_into().map_err(|_| unexpected("not five elements"))?;
        let gate = match element::<String>(script, gate)?.as_str() {
            "free" => Gate::Free,
            "limited" => Gate::Limited,
            "paused" => Gate::Paused,
            other => return Err(unexpected(other)),
        };
        let entries = |reply| {
            Ok::<Vec<RawEntry>, QueueError>(streams(reply)?.into_iter().flat_map(|(_, entries)| entries).collect())
        };
        Ok(Taken {
            gate,
            wait: u64::try_from(element::<i64>(script, wait)?).ok().map(Duration::from_millis),
            last_generated: element(script, last)?,
            prioritized: entries(prioritized)?,
            plain: entries(plain)?,
        })
    }
}
