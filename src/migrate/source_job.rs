//! A job as BullMQ keeps it: a hash whose fields are texts, its options as JSON in one of them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;

use super::keys::Structure;

/// A priority is what a score is of this.
const PRIORITY_STEP: f64 = 4_294_967_296.0;
/// A due time (ms) is what a score is of this.
const DUE_STEP: f64 = 4096.0;

/// A job of a BullMQ queue, as it was read.
#[derive(Clone, Debug, PartialEq)]
pub struct SourceJob {
    /// Its id; BullMQ's own ids are integers.
    pub id: Vec<u8>,
    /// What it is, or why it cannot be read.
    pub content: Result<Content, Unreadable>,
}

/// What a job is and where it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Content {
    /// Kind of work.
    pub name: String,
    /// Payload: JSON, byte for byte.
    pub data: Vec<u8>,
    /// When it was added.
    pub added_at: SystemTime,
    /// How long until it is due; zero where it waits.
    pub delay: Duration,
    /// 1 (first) to 2,097,151; 0 for none.
    pub priority: u32,
    /// Failed attempts.
    pub attempts_made: u32,
    /// Why it failed the last time.
    pub failed_reason: Option<String>,
    /// Why the next worker that gets it is to fail it: it stalled too often.
    pub deferred_failure: Option<String>,
    /// When it was given up; `None` when it was not.
    pub given_up_at: Option<SystemTime>,
    /// Options of its own.
    pub options: SourceOptions,
    /// Whether a parent waits for it, or it has or had children.
    pub is_of_flow: bool,
    /// Whether it is the run that a scheduler waits for.
    pub is_next_run: bool,
}

/// Options of a job that have a meaning here.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SourceOptions {
    /// Handlings before it is given up.
    pub attempts: Option<u32>,
    /// Wait between two of them; `None` too for a strategy of the program's own.
    pub backoff: Option<SourceBackoff>,
    /// What becomes of it when it is done.
    pub remove_on_complete: Option<SourceKeep>,
    /// What becomes of it when it has failed for good.
    pub remove_on_fail: Option<SourceKeep>,
}

/// One of BullMQ's two strategies.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SourceBackoff {
    /// Whether the wait doubles.
    pub is_exponential: bool,
    /// The first wait.
    pub delay: Duration,
    /// Share of the wait that is random, 0 to 1.
    pub jitter: f64,
}

/// `removeOnComplete` and `removeOnFail`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceKeep {
    /// `true`: it goes at once.
    Nothing,
    /// `false`: it stays.
    All,
    /// A number, or an object: it stays while it is one of the newest, and young enough.
    Newest {
        /// Most jobs that stay.
        count: Option<u64>,
        /// How long they stay.
        age: Option<Duration>,
    },
}

/// Why a job of BullMQ cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// Only its id is left.
    #[error("its hash is gone, only the id is left")]
    NoHash,
    /// The payload is not the JSON that BullMQ writes.
    #[error("its data is not JSON: {0}")]
    Data(String),
}

impl SourceJob {
    /// Makes a job of a row of `read_page.lua`.
    ///
    /// # Errors
    /// What is wrong with the row; a job that cannot be read is no error.
    pub(super) fn from_row(
        row: Vec<Option<Vec<u8>>>,
        structure: Structure,
        read_at: SystemTime,
    ) -> Result<Self, String> {
        let columns = row.len();
        let [
            id,
            score,
            is_of_flow,
            is_next_run,
            name,
            data,
            options,
            timestamp,
            priority,
            attempts_made,
            attempts_made_before,
            failed_reason,
            deferred_failure,
            _parent_key,
            _scheduler,
        ]: [Option<Vec<u8>>; 15] = row.try_into().map_err(|_| format!("a job of {columns} columns"))?;
        let id = id.ok_or("a job without an id")?;
        let score = score.ok_or("a job without a score")?;
        let score: f64 = if structure.kind() == "zset" { number(&score).ok_or("a score that is none")? } else { 0.0 };
        let Some(data) = data else { return Ok(Self { id, content: Err(Unreadable::NoHash) }) };
        if let Err(error) = serde_json::from_slice::<serde::de::IgnoredAny>(&data) {
            return Ok(Self { id, content: Err(Unreadable::Data(error.to_string())) });
        }
        let count = |value: &Option<Vec<u8>>| value.as_deref().and_then(number).map_or(0, |number| number as u32);
        let time = |value: &Option<Vec<u8>>| value.as_deref().and_then(number).map(at);
        let content = Content {
            name: name.map(text).unwrap_or_default(),
            data,
            added_at: time(&timestamp).unwrap_or(read_at),
            delay: match structure {
                Structure::Delayed => at(score / DUE_STEP).duration_since(read_at).unwrap_or_default(),
                _ => Duration::ZERO,
            },
            priority: match structure {
                Structure::Prioritized => (score / PRIORITY_STEP) as u32,
                Structure::Delayed | Structure::Failed => count(&priority),
                Structure::Wait | Structure::Paused => 0,
            },
            // Versions before 5 called it attemptsMade.
            attempts_made: count(if attempts_made.is_some() { &attempts_made } else { &attempts_made_before }),
            failed_reason: failed_reason.map(text),
            deferred_failure: deferred_failure.map(text),
            given_up_at: (structure == Structure::Failed).then(|| at(score)),
            options: SourceOptions::read(options.as_deref().unwrap_or_default()),
            is_of_flow: is_of_flow.is_some(),
            is_next_run: is_next_run.is_some(),
        };
        Ok(Self { id, content: Ok(content) })
    }
}

impl SourceOptions {
    /// Reads the field `opts`. What is not understood is as if it were not set: the queue's own setting holds then.
    fn read(json: &[u8]) -> Self {
        let options: Value = serde_json::from_slice(json).unwrap_or_default();
        Self {
            // BullMQ writes 0 when nothing was set.
            attempts: options["attempts"].as_f64().filter(|attempts| *attempts >= 1.0).map(|attempts| attempts as u32),
            backoff: SourceBackoff::read(&options["backoff"]),
            remove_on_complete: SourceKeep::read(&options["removeOnComplete"]),
            remove_on_fail: SourceKeep::read(&options["removeOnFail"]),
        }
    }
}

impl SourceBackoff {
    fn read(option: &Value) -> Option<Self> {
        let (is_exponential, delay) = match option["type"].as_str() {
            Some("exponential") => (true, &option["delay"]),
            Some("fixed") => (false, &option["delay"]),
            Some(_) => return None,
            None => (false, option),
        };
        let delay = Duration::from_millis(delay.as_f64()? as u64);
        Some(Self { is_exponential, delay, jitter: option["jitter"].as_f64().unwrap_or(0.0).clamp(0.0, 1.0) })
    }
}

impl SourceKeep {
    fn read(option: &Value) -> Option<Self> {
        let whole = |value: &Value| value.as_f64().filter(|number| *number >= 0.0).map(|number| number as u64);
        match option {
            Value::Bool(true) => Some(Self::Nothing),
            Value::Bool(false) => Some(Self::All),
            Value::Number(_) => match whole(option)? {
                0 => Some(Self::Nothing),
                count => Some(Self::Newest { count: Some(count), age: None }),
            },
            Value::Object(limits) => {
                let limit = |name| limits.get(name).and_then(whole);
                match (limit("count"), limit("age").map(Duration::from_secs)) {
                    (Some(0), _) => Some(Self::Nothing),
                    (None, None) => None,
                    (count, age) => Some(Self::Newest { count, age }),
                }
            }
            _ => None,
        }
    }
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

fn number(bytes: &[u8]) -> Option<f64> {
    std::str::from_utf8(bytes).ok()?.parse().ok().filter(|number: &f64| number.is_finite())
}

/// A time that Redis holds as milliseconds; times before 1970 are none of BullMQ's.
fn at(ms: f64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(ms as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_MS: u64 = 1_795_492_693_614;

    fn now() -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(NOW_MS)
    }

    /// A row of `read_page.lua` with these values; the rest is nil.
    fn row(values: &[(usize, &str)]) -> Vec<Option<Vec<u8>>> {
        let mut row = vec![None; 15];
        for (at, value) in [(0, "7"), (1, ""), (4, "import"), (5, "{}"), (7, "1795492000000")] {
            row[at] = Some(value.as_bytes().to_vec());
        }
        for (at, value) in values {
            row[*at] = Some(value.as_bytes().to_vec());
        }
        row
    }

    fn content(values: &[(usize, &str)], structure: Structure) -> Content {
        SourceJob::from_row(row(values), structure, now()).expect("a row").content.expect("readable")
    }

    #[test]
    fn what_a_job_is_and_where_it_stands_comes_from_hash_and_score() {
        let waiting = content(&[(5, r#"{"a": 1.0}"#), (9, "2"), (11, "boom")], Structure::Wait);
        assert_eq!((waiting.name.as_str(), waiting.data.as_slice()), ("import", &br#"{"a": 1.0}"#[..]));
        assert_eq!(waiting.added_at, UNIX_EPOCH + Duration::from_secs(1_795_492_000));
        assert_eq!((waiting.attempts_made, waiting.failed_reason.as_deref()), (2, Some("boom")));
        assert_eq!((waiting.delay, waiting.priority), (Duration::ZERO, 0));

        let score = (3_u64 << 32) + 17;
        assert_eq!(content(&[(1, &score.to_string())], Structure::Prioritized).priority, 3);

        let score = ((NOW_MS + 1500) << 12) + 5;
        let delayed = content(&[(1, &score.to_string()), (8, "4")], Structure::Delayed);
        assert_eq!((delayed.delay, delayed.priority), (Duration::from_millis(1500), 4));
        let overdue = content(&[(1, &((NOW_MS - 1) << 12).to_string())], Structure::Delayed);
        assert_eq!(overdue.delay, Duration::ZERO);

        let failed = content(&[(1, "1795492693000"), (11, "boom")], Structure::Failed);
        assert_eq!(failed.given_up_at, Some(UNIX_EPOCH + Duration::from_secs(1_795_492_693)));
        assert_eq!(waiting.given_up_at, None);
    }

    #[test]
    fn a_job_that_cannot_be_read_says_why() {
        let mut gone = row(&[]);
        gone[4..].fill(None);
        let unreadable = |row| SourceJob::from_row(row, Structure::Wait, now()).expect("a row").content;
        assert_eq!(unreadable(gone), Err(Unreadable::NoHash));
        assert!(matches!(unreadable(row(&[(5, "{")])), Err(Unreadable::Data(_))));
        assert!(SourceJob::from_row(vec![None; 14], Structure::Wait, now()).is_err(), "a column is missing");
        assert!(SourceJob::from_row(row(&[(1, "x")]), Structure::Failed, now()).is_err(), "no score");
    }

    #[test]
    fn options_are_read_in_every_spelling_that_bullmq_takes() {
        let read = |json: &str| SourceOptions::read(json.as_bytes());
        assert_eq!(read(r#"{"attempts":0}"#), SourceOptions::default());
        assert_eq!(read(r#"{"attempts":3}"#).attempts, Some(3));
        let exponential = read(r#"{"backoff":{"type":"exponential","delay":1000,"jitter":0.5}}"#).backoff;
        let delay = Duration::from_secs(1);
        assert_eq!(exponential, Some(SourceBackoff { is_exponential: true, delay, jitter: 0.5 }));
        let fixed = Some(SourceBackoff { is_exponential: false, delay, jitter: 0.0 });
        assert_eq!(read(r#"{"backoff":1000}"#).backoff, fixed);
        assert_eq!(read(r#"{"backoff":{"type":"fixed","delay":1000}}"#).backoff, fixed);
        assert_eq!(read(r#"{"backoff":{"type":"mine"}}"#).backoff, None);
        let keep = |value: &str| read(&format!(r#"{{"removeOnFail":{value}}}"#)).remove_on_fail;
        assert_eq!(keep("true"), Some(SourceKeep::Nothing));
        assert_eq!(keep("false"), Some(SourceKeep::All));
        assert_eq!(keep("0"), Some(SourceKeep::Nothing));
        assert_eq!(keep("50"), Some(SourceKeep::Newest { count: Some(50), age: None }));
        let hour = Some(Duration::from_hours(1));
        assert_eq!(keep(r#"{"age":3600}"#), Some(SourceKeep::Newest { count: None, age: hour }));
        assert_eq!(keep(r#"{"age":3600,"count":5}"#), Some(SourceKeep::Newest { count: Some(5), age: hour }));
        assert_eq!(keep("null"), None);
        assert_eq!(read("not json"), SourceOptions::default());
    }
}
