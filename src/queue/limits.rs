//! Limits of a queue, over all of its workers: how many jobs start in a window of time, and how many are active at once.
//!
//! ```text
//!   no limits:    waiting ──XREADGROUP──▶ active
//!   with limits:  waiting ──take (as many as allowed)──▶ active        plain reads bring nothing: the gate is closed
//!                    └── over the limit of its group ──▶ parked, until promote releases the group
//! ```
//!
//! The same script hands out jobs with a priority, with or without limits. A queue without either never calls it while
//! it is busy.
//!
//! *Crash:* a script that was carried out and whose answer was lost has delivered jobs to nobody; they are claimed.

use std::time::{Duration, UNIX_EPOCH};

use super::read::{RawEntry, entries};
use super::scripts::{self, Call, JOBS_PER_CALL_MAX, element};
use super::{Queue, QueueError, millis};
use crate::job::head::GROUP_BYTES_MAX;

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
    /// Starts per window of each group; what is over it is parked until the window ends, without an attempt.
    pub group_rate: Option<Rate>,
}

/// What to change of [`Limits`]: `None` leaves a limit as it is, `Some(None)` removes it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LimitChanges {
    /// See [`Limits::rate`].
    pub rate: Option<Option<Rate>>,
    /// See [`Limits::concurrency`].
    pub concurrency: Option<Option<u64>>,
    /// See [`Limits::group_rate`].
    pub group_rate: Option<Option<Rate>>,
}

impl From<Limits> for LimitChanges {
    fn from(limits: Limits) -> Self {
        Self { rate: Some(limits.rate), concurrency: Some(limits.concurrency), group_rate: Some(limits.group_rate) }
    }
}

/// Who sets limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetBy {
    /// The configuration of a process that starts. Does nothing once an operator has set limits.
    Config,
    /// Somebody who wants it so now, whatever the configuration says.
    Operator,
    /// Somebody who wants what the configuration says again, and hands that in.
    Reset,
}

/// The limits in force, and what they do now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LimitState {
    /// The limits.
    pub limits: Limits,
    /// Whether an operator has set any of them.
    pub is_by_operator: bool,
    /// Starts in the present window; 0 between two windows.
    pub started: u64,
    /// How long the present window still lasts.
    pub window_left: Duration,
    /// How long nothing is started at all; zero unless [`Queue::hold_up`] was called.
    pub held_up_for: Duration,
    /// Groups that are held up: they have started as many as they may, or [`Queue::hold_up_group`] was called.
    pub held_groups: u64,
}

/// How plain reads are answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gate {
    Free,
    Limited,
    /// Limited, and as many jobs are active as may be.
    Full,
    Paused,
}

/// What [`Queue::take`] brought.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) gate: Gate,
    /// Time until the next try may bring more; `None`: when something is added.
    pub(super) wait: Option<Duration>,
    /// Id of the newest entry that the stream ever had; empty unless something is to be added before more comes.
    pub(super) last_added: String,
    /// The same of the wake stream; empty without limits.
    pub(super) last_wake: String,
    /// The wake stream went on since the reader last asked.
    pub(super) woken: bool,
    pub(super) prioritized: Vec<RawEntry>,
    pub(super) plain: Vec<RawEntry>,
}

/// TIME, those fields, starts, time left and held groups, as Redis answers them.
type LimitAnswer = ((u64, u64), Vec<Option<String>>, Option<u64>, i64, u64);

/// Fields of limits in `meta`, in the order of [`LimitState`].
const FIELDS: [&str; 7] =
    ["rate_max", "rate_duration", "concurrency", "group_rate_max", "group_rate_duration", "limits_by", "held_until"];

impl Queue {
    /// Sets limits, from the next delivery on. Returns false if they were left as an operator has set them.
    ///
    /// # Errors
    /// [`QueueError::Redis`]; may be repeated.
    pub async fn set_limits(&self, changes: impl Into<LimitChanges>, by: SetBy) -> Result<bool, QueueError> {
        let changes = changes.into();
        let number = |number: Option<u64>| number.map(|number| number.max(1).to_string()).unwrap_or_default();
        let mut fields = Vec::new();
        for (rate, names) in [(changes.rate, [FIELDS[0], FIELDS[1]]), (changes.group_rate, [FIELDS[3], FIELDS[4]])] {
            if let Some(rate) = rate {
                fields.push((names[0], number(rate.map(|rate| rate.max))));
                fields.push((names[1], number(rate.map(|rate| millis(rate.duration)))));
            }
        }
        if let Some(concurrency) = changes.concurrency {
            fields.push((FIELDS[2], number(concurrency)));
        }
        self.change_limits(by, &fields).await
    }

    /// Starts nothing for so long, whatever the limits: what a server's `429` asks for. What is active goes on. Zero ends
    /// it.
    ///
    /// # Errors
    /// [`QueueError::Redis`]; may be repeated, and then counts from the last time.
    pub async fn hold_up(&self, span: Duration) -> Result<(), QueueError> {
        self.change_limits(SetBy::Operator, &[("hold_up", millis(span).to_string())]).await?;
        Ok(())
    }

    /// As [`Queue::hold_up`], for the jobs of one group: those that wait are parked meanwhile. Returns false if it was to
    /// end and nothing was held up.
    ///
    /// # Errors
    /// [`QueueError::Redis`]; may be repeated, and then counts from the last time.
    pub async fn hold_up_group(&self, group: &str, span: Duration) -> Result<bool, QueueError> {
        self.ensure_group().await?;
        let mut call = self.moving(&scripts::HOLD_UP_GROUP, super::NO_KEYS);
        let group = group.as_bytes();
        call.arg(&group[..group.len().min(GROUP_BYTES_MAX)]).arg(millis(span));
        Ok(call.run(&mut self.connection()).await?.decode::<u8>()? == 1)
    }

    /// The limits in force.
    ///
    /// # Errors
    /// [`QueueError::Redis`].
    pub async fn limits(&self) -> Result<LimitState, QueueError> {
        let keys = self.keys();
        let mut pipeline = redis::pipe();
        pipeline.atomic().cmd("TIME").cmd("HMGET").arg(keys.meta()).arg(&FIELDS);
        pipeline.cmd("GET").arg(keys.limiter()).cmd("PTTL").arg(keys.limiter()).cmd("ZCARD").arg(keys.held_groups());
        let (time, fields, started, left, held_groups): LimitAnswer = pipeline
            .query_async(&mut self.connection())
            .await
            .map_err(|cause| QueueError::from_redis("HMGET", cause))?;
        let number = |at: usize| fields.get(at)?.as_ref()?.parse::<u64>().ok();
        let rate = |at: usize| Some(Rate { max: number(at)?, duration: Duration::from_millis(number(at + 1)?) });
        let limits = Limits { rate: rate(0), concurrency: number(2), group_rate: rate(3) };
        let now = UNIX_EPOCH + Duration::from_secs(time.0) + Duration::from_micros(time.1);
        let held_until = UNIX_EPOCH + Duration::from_millis(number(6).unwrap_or(0));
        Ok(LimitState {
            limits,
            is_by_operator: fields.get(5).is_some_and(Option::is_some),
            started: limits.rate.and(started).unwrap_or(0),
            window_left: Duration::from_millis(u64::try_from(left).unwrap_or(0)),
            held_up_for: held_until.duration_since(now).unwrap_or_default(),
            held_groups,
        })
    }

    async fn change_limits(&self, by: SetBy, fields: &[(&str, String)]) -> Result<bool, QueueError> {
        self.ensure_group().await?;
        let keys = self.keys();
        let all = [keys.stream(), keys.meta(), keys.wake(), keys.held_groups()];
        let mut call = Call::new(&scripts::SET_LIMITS, all.into_iter());
        call.arg(match by {
            SetBy::Config => "config",
            SetBy::Operator => "operator",
            SetBy::Reset => "reset",
        });
        for (field, value) in fields {
            call.arg(field).arg(value);
        }
        Ok(call.run(&mut self.connection()).await?.decode::<u8>()? == 1)
    }

    /// Takes up to `count` jobs where a plain read brings none: those with a priority, and with limits all of them. Once the
    /// oldest plain job waits for `ageing`, jobs with a priority get half of `count`. A reader that did not know of the
    /// limits lets the next one know.
    pub(super) async fn take(
        &self,
        consumer: &str,
        count: usize,
        ageing: Duration,
        knows_limits: bool,
    ) -> Result<Taken, QueueError> {
        let mut call = self.moving(&scripts::TAKE, [self.keys().limiter()]);
        call.arg(consumer)
            .arg(count.min(JOBS_PER_CALL_MAX))
            .arg(millis(ageing))
            .arg(self.keys().group_limiter_prefix())
            .arg(if knows_limits { "limited" } else { "" });
        let (script, elements) = call.run(&mut self.connection()).await?.array()?;
        let unexpected = |detail: &str| QueueError::Reply { script: script.name, detail: detail.to_owned() };
        let [gate, wait, last_added, last_wake, prioritized, plain]: [redis::Value; 6] =
            elements.try_into().map_err(|_| unexpected("not six elements"))?;
        let gate = match element::<String>(script, gate)?.as_str() {
            "free" => Gate::Free,
            "limited" => Gate::Limited,
            "full" => Gate::Full,
            "paused" => Gate::Paused,
            other => return Err(unexpected(other)),
        };
        Ok(Taken {
            gate,
            wait: u64::try_from(element::<i64>(script, wait)?).ok().map(Duration::from_millis),
            last_added: element(script, last_added)?,
            last_wake: element(script, last_wake)?,
            woken: false,
            prioritized: entries(script.name, prioritized)?,
            plain: entries(script.name, plain)?,
        })
    }
}
