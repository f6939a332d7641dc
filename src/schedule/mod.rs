//! What is done again and again, and when. Pure: time comes in as an argument.
//!
//! ```text
//!   Repeat            cron pattern in a time zone · every so long           → the next slot after a time
//!   Definition        a repeat with start, end, limit, and what becomes     → the slots to fire now, and the one after
//!                     of slots at which nobody was there
//! ```
//!
//! A *slot* is a time at which something is to be done, in whole milliseconds since 1970. Slots follow from the definition
//! alone, never from when something was done last, so every process has the same ones without asking.
//!
//! [`crate::queue::schedulers`] keeps definitions with a queue, [`crate::worker::ScheduleLoop`] fires their slots.
//!
//! *Not here:* what is done at a slot.

pub mod repeat;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

pub use repeat::{Repeat, RepeatError};

/// How late a slot may be fired by a definition that skips those that were missed: longer than the loop of a process that
/// is alive takes to look again, whoever fired before.
pub const SKIP_AFTER_MS: i64 = 30_000;

/// What becomes of slots at which nobody was there to fire them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CatchUp {
    /// They pass. A slot counts as missed when it is more than [`SKIP_AFTER_MS`] over, or when the next one has come too.
    Skip,
    /// They are made up for by one job, that of the first of them.
    #[default]
    One,
    /// Each of them gets its job, late.
    All,
}

impl CatchUp {
    /// As the configuration and JSON have it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Skip => "skip",
            Self::One => "one",
            Self::All => "all",
        }
    }
}

/// When the jobs of a scheduler are added.
#[derive(Clone, Debug, PartialEq)]
pub struct Definition {
    /// Where its slots are.
    pub repeat: Repeat,
    /// No slot lies before this time; `None`: the slots begin when the scheduler is made.
    pub start: Option<Timestamp>,
    /// No slot lies after this time; `None`: they go on for ever.
    pub end: Option<Timestamp>,
    /// After so many jobs the scheduler ends, at least 1; `None`: it does not.
    pub limit: Option<u64>,
    /// Whether there is a slot at the moment the scheduler is made, or at `start`, beside those of `repeat`.
    pub immediately: bool,
    /// What becomes of slots that were missed.
    pub catch_up: CatchUp,
    /// Whether nothing is added while the job of an earlier slot lives. The slot passes then.
    pub no_overlap: bool,
}

/// Why a definition cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DefinitionError {
    /// Its repeat.
    #[error(transparent)]
    Repeat(#[from] RepeatError),
    /// A limit of 0.
    #[error("a limit of 0 jobs leaves nothing to be done; accepted: 1 or more, or no limit")]
    Limit,
    /// The end is not after the start.
    #[error("the end {end} is not after the start {start}")]
    EndBeforeStart {
        /// When it ends.
        end: Timestamp,
        /// When it starts.
        start: Timestamp,
    },
    /// There is nothing left to be fired.
    #[error("it has no slot between now and its end {end}")]
    Ended {
        /// When it ends.
        end: Timestamp,
    },
    /// There is nothing left to be fired, though it has no end: the calendar has.
    #[error("it is never due again")]
    Never,
    /// What is stored is no definition.
    #[error("the stored definition cannot be read")]
    Stored(#[source] serde_json::Error),
    /// What is stored has no repeat, or two.
    #[error("the stored definition must have either \"cron\" or \"every\"")]
    StoredRepeat,
}

/// What is to be done about a slot that has come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The slots that get a job now, earliest first.
    pub slots: Vec<i64>,
    /// The slot that is next then. It may have come already: there are more than were asked for.
    pub next: Option<i64>,
}

impl Definition {
    /// With these slots, and everything else as it is by default: no bounds, one job for all that was missed, and a job at
    /// each slot whether the one before is through or not.
    pub fn new(repeat: Repeat) -> Self {
        Self {
            repeat,
            start: None,
            end: None,
            limit: None,
            immediately: false,
            catch_up: CatchUp::One,
            no_overlap: false,
        }
    }

    /// Checks the rules between its parts.
    ///
    /// # Errors
    /// [`DefinitionError`] names what does not go together.
    pub fn check(&self) -> Result<(), DefinitionError> {
        if self.limit == Some(0) {
            return Err(DefinitionError::Limit);
        }
        match (self.start, self.end) {
            (Some(start), Some(end)) if end <= start => Err(DefinitionError::EndBeforeStart { end, start }),
            _ => Ok(()),
        }
    }

    /// The slot with which it begins when it is made at this time.
    ///
    /// # Errors
    /// [`DefinitionError::Ended`] and [`DefinitionError::Never`] when there is none.
    pub fn first_slot(&self, now_ms: i64) -> Result<i64, DefinitionError> {
        let at_once = self.start.map_or(now_ms, |start| start.as_millisecond().max(now_ms));
        let first = if self.immediately { self.within_end(at_once) } else { self.slot_after(now_ms) };
        first.ok_or(self.end.map_or(DefinitionError::Never, |end| DefinitionError::Ended { end }))
    }

    /// The first slot after this time; `None` when there is none any more.
    pub fn slot_after(&self, after_ms: i64) -> Option<i64> {
        let before_start = self.start.map(|start| start.as_millisecond() - 1);
        let after = timestamp(before_start.map_or(after_ms, |before| before.max(after_ms)));
        self.within_end(self.repeat.next_after(after)?.as_millisecond())
    }

    /// Whether there is a slot at this time, other than the one at the moment the scheduler is made.
    pub fn has_slot(&self, at_ms: i64) -> bool {
        self.slot_after(at_ms - 1) == Some(at_ms)
    }

    /// What is to be done about `slot_ms`, which has come by `now_ms`. At most `slots_max` slots get a job.
    pub fn plan(&self, slot_ms: i64, now_ms: i64, slots_max: usize) -> Plan {
        match self.catch_up {
            CatchUp::One => Plan { slots: vec![slot_ms], next: self.slot_after(now_ms.max(slot_ms)) },
            CatchUp::All => {
                let mut plan = Plan { slots: Vec::new(), next: Some(slot_ms) };
                while let Some(slot) = plan.next.filter(|slot| *slot <= now_ms && plan.slots.len() < slots_max) {
                    plan.slots.push(slot);
                    plan.next = self.slot_after(slot);
                }
                plan
            }
            CatchUp::Skip => {
                let oldest = now_ms - SKIP_AFTER_MS;
                let mut plan = Plan { slots: Vec::new(), next: Some(slot_ms).filter(|slot| *slot >= oldest) };
                plan.next = plan.next.or_else(|| self.slot_after(oldest - 1));
                while let Some(slot) = plan.next.filter(|slot| *slot <= now_ms) {
                    plan.slots = vec![slot];
                    plan.next = self.slot_after(slot);
                }
                plan
            }
        }
    }

    /// As it is stored: a JSON object, the same text for the same definition.
    #[expect(clippy::missing_panics_doc, reason = "texts, numbers and flags are JSON")]
    pub fn to_json(&self) -> String {
        let (cron, timezone, every, offset) = match &self.repeat {
            Repeat::Cron(cron) => (Some(cron.pattern().to_owned()), cron.timezone().map(str::to_owned), None, None),
            Repeat::Every { interval_ms, offset_ms } => (None, None, Some(*interval_ms), Some(*offset_ms)),
        };
        let wire = Wire {
            cron,
            timezone,
            every,
            offset: offset.filter(|offset| *offset != 0),
            start: self.start.map(Timestamp::as_millisecond),
            end: self.end.map(Timestamp::as_millisecond),
            limit: self.limit,
            immediately: self.immediately,
            catch_up: self.catch_up,
            no_overlap: self.no_overlap,
        };
        serde_json::to_string(&wire).expect("texts, numbers and flags are JSON")
    }

    /// Reads back [`Self::to_json`].
    ///
    /// # Errors
    /// [`DefinitionError`]: it is damaged, of a later version, or names a time zone that this machine does not know.
    pub fn from_json(json: &[u8]) -> Result<Self, DefinitionError> {
        let wire: Wire = serde_json::from_slice(json).map_err(DefinitionError::Stored)?;
        let repeat = match (&wire.cron, wire.every) {
            (Some(pattern), None) if wire.offset.is_none() => Repeat::cron(pattern, wire.timezone.as_deref())?,
            (None, Some(every)) if wire.timezone.is_none() => Repeat::every_ms(every, wire.offset.unwrap_or_default())?,
            _ => return Err(DefinitionError::StoredRepeat),
        };
        let at = |ms: Option<i64>| ms.map(timestamp);
        let definition = Self {
            repeat,
            start: at(wire.start),
            end: at(wire.end),
            limit: wire.limit,
            immediately: wire.immediately,
            catch_up: wire.catch_up,
            no_overlap: wire.no_overlap,
        };
        definition.check()?;
        Ok(definition)
    }

    fn within_end(&self, slot_ms: i64) -> Option<i64> {
        Some(slot_ms).filter(|slot| self.end.is_none_or(|end| *slot <= end.as_millisecond()))
    }
}

/// A definition as it is stored. Times and spans are milliseconds.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cron: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    timezone: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    every: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    offset: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    start: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    end: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    limit: Option<u64>,
    #[serde(default, skip_serializing_if = "is_false")]
    immediately: bool,
    catch_up: CatchUp,
    #[serde(default, skip_serializing_if = "is_false")]
    no_overlap: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_false(flag: &bool) -> bool {
    !flag
}

/// Milliseconds since 1970 as a time; beyond the calendar, its end.
pub(crate) fn timestamp(ms: i64) -> Timestamp {
    Timestamp::from_millisecond(ms).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// A slot of every minute.
    const AT: i64 = 1_800_000_000_000;
    const MINUTE: i64 = 60_000;

    fn every_minute() -> Definition {
        Definition::new(Repeat::every(Duration::from_mins(1), Duration::ZERO).expect("an interval"))
    }

    fn minutes(slots: &[i64]) -> Vec<i64> {
        slots.iter().map(|minute| AT + minute * MINUTE).collect()
    }

    #[test]
    fn what_was_missed_gets_one_job_all_of_them_or_none() {
        let (slot, now) = (AT, AT + 4 * MINUTE + 5_000);
        let plan = |catch_up, slots_max| Definition { catch_up, ..every_minute() }.plan(slot, now, slots_max);
        assert_eq!(plan(CatchUp::One, 256), Plan { slots: minutes(&[0]), next: Some(AT + 5 * MINUTE) });
        assert_eq!(plan(CatchUp::All, 256), Plan { slots: minutes(&[0, 1, 2, 3, 4]), next: Some(AT + 5 * MINUTE) });
        assert_eq!(plan(CatchUp::All, 2), Plan { slots: minutes(&[0, 1]), next: Some(AT + 2 * MINUTE) });
        assert_eq!(plan(CatchUp::Skip, 256), Plan { slots: minutes(&[4]), next: Some(AT + 5 * MINUTE) });
    }

    #[test]
    fn a_slot_that_is_only_a_little_late_was_not_missed() {
        let skip = Definition { catch_up: CatchUp::Skip, ..every_minute() };
        let next = Some(AT + MINUTE);
        assert_eq!(skip.plan(AT, AT, 1), Plan { slots: vec![AT], next });
        assert_eq!(skip.plan(AT, AT + SKIP_AFTER_MS, 1), Plan { slots: vec![AT], next });
        assert_eq!(skip.plan(AT, AT + SKIP_AFTER_MS + 1, 1), Plan { slots: Vec::new(), next });
    }

    #[test]
    fn slots_lie_between_start_and_end_both_included() {
        let at = |minute: i64| Some(timestamp(AT + minute * MINUTE));
        let bounded = Definition { start: at(2), end: at(4), ..every_minute() };
        bounded.check().expect("it has slots");
        let mut slots = vec![bounded.first_slot(AT - MINUTE).expect("it begins")];
        slots.extend(std::iter::successors(bounded.slot_after(slots[0]), |slot| bounded.slot_after(*slot)));
        assert_eq!(slots, minutes(&[2, 3, 4]));
        assert!(bounded.has_slot(slots[0]) && !bounded.has_slot(slots[0] - MINUTE) && !bounded.has_slot(slots[0] + 1));
        let over = bounded.first_slot(AT + 4 * MINUTE).expect_err("it is over");
        assert_eq!(over.to_string(), format!("it has no slot between now and its end {}", at(4).expect("a time")));
        // The last slot passes with the end, whatever is to be caught up with.
        assert_eq!(bounded.plan(AT + 4 * MINUTE, AT + 9 * MINUTE, 9), Plan { slots: minutes(&[4]), next: None });
        let skip = Definition { catch_up: CatchUp::Skip, ..bounded };
        assert_eq!(skip.plan(AT + 4 * MINUTE, AT + 9 * MINUTE, 9), Plan::default());
    }

    #[test]
    fn immediately_is_a_slot_of_its_own_that_moves_no_other() {
        let now = AT + 7;
        let at_once = Definition { immediately: true, ..every_minute() };
        assert_eq!(at_once.first_slot(now).expect("at once"), now);
        assert_eq!(at_once.plan(now, now + 3, 9), Plan { slots: vec![now], next: Some(AT + MINUTE) });
        let later = Definition { start: Some(timestamp(AT + 9)), ..at_once.clone() };
        assert_eq!(later.first_slot(now).expect("at its start"), AT + 9);
        let over = Definition { end: Some(timestamp(now - 1)), ..at_once };
        assert!(matches!(over.first_slot(now), Err(DefinitionError::Ended { .. })));
    }

    #[test]
    fn parts_that_do_not_go_together_are_refused() {
        let none = Definition { limit: Some(0), ..every_minute() }.check().expect_err("no jobs");
        assert!(none.to_string().contains("limit of 0"), "{none}");
        let (start, end) = (Some(timestamp(AT)), Some(timestamp(AT)));
        let empty = Definition { start, end, ..every_minute() }.check().expect_err("no slots");
        assert_eq!(empty.to_string(), "the end 2027-01-15T08:00:00Z is not after the start 2027-01-15T08:00:00Z");
    }

    #[test]
    fn a_definition_reads_back_and_its_text_is_golden() {
        let every = Repeat::every(Duration::from_mins(1), Duration::from_secs(5)).expect("an interval");
        let cron = Repeat::cron(" 0 9 * * MON ", Some("Europe/Berlin")).expect("a pattern");
        let full = Definition {
            start: Some(timestamp(AT)),
            end: Some(timestamp(AT + 1)),
            limit: Some(3),
            immediately: true,
            catch_up: CatchUp::All,
            no_overlap: true,
            ..Definition::new(every)
        };
        for (definition, golden) in [
            (Definition::new(cron), r#"{"cron":"0 9 * * MON","timezone":"Europe/Berlin","catch_up":"one"}"#),
            (every_minute(), r#"{"every":60000,"catch_up":"one"}"#),
            (
                full,
                "{\"every\":60000,\"offset\":5000,\"start\":1800000000000,\"end\":1800000000001,\"limit\":3,\
                 \"immediately\":true,\"catch_up\":\"all\",\"no_overlap\":true}",
            ),
        ] {
            assert_eq!(definition.to_json(), golden);
            assert_eq!(Definition::from_json(golden.as_bytes()).expect("readable"), definition);
        }
    }

    #[test]
    fn what_cannot_be_understood_is_an_error_and_not_guessed_at() {
        for (json, part) in [
            ("", "cannot be read"),
            (r#"{"catch_up":"one"}"#, "either"),
            (r#"{"every":60000,"cron":"* * * * *","catch_up":"one"}"#, "either"),
            (r#"{"every":60000,"timezone":"UTC","catch_up":"one"}"#, "either"),
            (r#"{"every":60000,"catch_up":"two"}"#, "cannot be read"),
            (r#"{"every":60000,"catch_up":"one","jitter":5}"#, "cannot be read"),
            (r#"{"every":0,"catch_up":"one"}"#, "interval"),
            (r#"{"every":60000,"catch_up":"one","limit":0}"#, "limit of 0"),
            (r#"{"cron":"* * *","catch_up":"one"}"#, "not a cron pattern"),
            (r#"{"cron":"* * * * *","timezone":"Mars/Base","catch_up":"one"}"#, "Mars/Base"),
        ] {
            let error = Definition::from_json(json.as_bytes()).expect_err(json);
            assert!(error.to_string().contains(part), "{json}: {error}");
        }
    }
}
