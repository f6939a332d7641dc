//! Which schedulers there are, by their next slots.

use std::fmt;
use std::str::FromStr;

use super::super::scripts::{self, Call, JOBS_PER_CALL_MAX, element};
use super::super::{Order, Queue, QueueError};
use super::lossy;
use super::stored::{Fields, Scheduler};

/// How many schedulers one step of a scan looks at.
const SCAN_COUNT: usize = 256;

/// Where a page of a list ends: what the next one begins behind.
///
/// As text `<slot in ms>:<id>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SchedulerCursor {
    slot_ms: i64,
    id: String,
}

/// A text is no [`SchedulerCursor`].
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0:?} is no cursor; it is printed at the end of a page, like 1795492693614:id")]
pub struct SchedulerCursorError(String);

impl fmt::Display for SchedulerCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.slot_ms, self.id)
    }
}

impl FromStr for SchedulerCursor {
    type Err = SchedulerCursorError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let read = || {
            let (slot_ms, id) = text.split_once(':')?;
            Some(Self { slot_ms: slot_ms.parse().ok()?, id: id.to_owned() })
        };
        read().ok_or_else(|| SchedulerCursorError(text.to_owned()))
    }
}

/// A page of a list.
#[derive(Clone, Debug)]
pub struct SchedulerPage {
    /// How many schedulers there are.
    pub total: usize,
    /// Those of this page.
    pub schedulers: Vec<Scheduler>,
    /// Where it goes on; `None` behind the last one.
    pub next: Option<SchedulerCursor>,
}

impl Queue {
    /// A page of the schedulers by their next slots, behind `after`, at most `limit` and at most one call's worth.
    ///
    /// Pages lead to each scheduler once, except that one which is fired meanwhile moves to its next slot, and may be met
    /// there again or not at all.
    ///
    /// # Errors
    /// [`QueueError::Redis`].
    pub async fn list_schedulers(
        &self,
        after: Option<&SchedulerCursor>,
        order: Order,
        limit: usize,
    ) -> Result<SchedulerPage, QueueError> {
        let limit = limit.clamp(1, JOBS_PER_CALL_MAX);
        let mut call = Call::new(&scripts::LIST_SCHEDULERS, [self.keys().schedulers()].into_iter());
        call.arg(self.keys().scheduler_prefix());
        call.arg(order.word());
        match after {
            Some(SchedulerCursor { slot_ms, id }) => call.arg(*slot_ms).arg(id),
            None => call.arg("").arg(""),
        };
        call.arg(limit);
        let (script, mut elements) = call.run(&mut self.connection()).await?.array()?;
        let missing = || QueueError::Reply { script: script.name, detail: "an empty array".to_owned() };
        let rows = if elements.is_empty() { return Err(missing()) } else { elements.split_off(1) };
        let total = element(script, elements.remove(0))?;
        let mut schedulers = Vec::with_capacity(rows.len());
        for row in rows {
            let (id, slot, definition, revision, fired, last_slot, created, template_bytes): ListedRow =
                element(script, row)?;
            schedulers.push(Scheduler {
                id: lossy(id),
                next_slot_ms: Some(slot as i64),
                stored: Fields { definition, revision, fired, last_slot, created, template_bytes }.stored(),
            });
        }
        let last = schedulers.last().filter(|_| schedulers.len() == limit);
        let next =
            last.map(|last| SchedulerCursor { slot_ms: last.next_slot_ms.unwrap_or_default(), id: last.id.clone() });
        Ok(SchedulerPage { total, schedulers, next })
    }

    /// How many schedulers there are.
    ///
    /// # Errors
    /// [`QueueError::Redis`].
    pub async fn count_schedulers(&self) -> Result<usize, QueueError> {
        let count = redis::cmd("ZCARD").arg(self.keys().schedulers()).query_async(&mut self.connection()).await;
        count.map_err(|cause| QueueError::from_redis("ZCARD", cause))
    }

    /// All schedulers with their slots, ms since 1970, in no order. One that is moved meanwhile may come twice.
    ///
    /// # Errors
    /// [`QueueError::Redis`].
    pub async fn schedulers(&self) -> Result<Vec<(String, i64)>, QueueError> {
        let mut found = Vec::new();
        let mut cursor = 0_u64;
        loop {
            let (next, page): (u64, Vec<(Vec<u8>, f64)>) = redis::cmd("ZSCAN")
                .arg(self.keys().schedulers())
                .arg(cursor)
                .arg("COUNT")
                .arg(SCAN_COUNT)
                .query_async(&mut self.connection())
                .await
                .map_err(|cause| QueueError::from_redis("ZSCAN", cause))?;
            found.extend(page.into_iter().map(|(id, slot)| (lossy(id), slot as i64)));
            cursor = next;
            if cursor == 0 {
                return Ok(found);
            }
        }
    }
}

/// One scheduler as `list_schedulers.lua` tells it.
type ListedRow =
    (Vec<u8>, f64, Option<Vec<u8>>, Option<String>, Option<Vec<u8>>, Option<Vec<u8>>, Option<Vec<u8>>, usize);
