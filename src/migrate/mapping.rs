//! What a job of BullMQ becomes here. Pure.
//!
//! | target | id | payload |
//! |---|---|---|
//! | import queue | `source#guid` of the item | the item: its JSON is adopted like a plain producer's |
//! | fetch queue | name of the feed | the fetch task, adopted likewise |
//! | any other | BullMQ's id | BullMQ's data, byte for byte; the name is kept |
//!
//! A job of the dead-letter queue that a program kept beside its queue (`<queue>_dlq`) is the given-up job itself, or an
//! object around it: see [`unwrap`].

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::value::RawValue;

use super::source_job::{Content, SourceJob, SourceOptions, Unreadable};
use crate::import::{adopt_fetch, adopt_item};
use crate::job::{Job, JobId, JobIdError, Place, Version};
use crate::worker::Adoption;

/// Which queue jobs are moved into, and so what they become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mapping {
    /// The import queue.
    Items,
    /// The fetch queue.
    FetchTasks,
    /// Any other.
    AsTheyAre,
}

/// Which of the two BullMQ queues a job comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin<'a> {
    /// The queue itself.
    Queue,
    /// The queue of this name that the program keeps for given-up jobs.
    DeadLetterQueue(&'a str),
}

/// A job as it will be here.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Arrival {
    pub(super) id: JobId,
    pub(super) payload: Vec<u8>,
    pub(super) fingerprint: Option<[u8; 7]>,
    pub(super) group: Option<String>,
    pub(super) name: Option<String>,
    pub(super) enqueued_at: SystemTime,
    pub(super) identity: Identity,
    pub(super) attempts_made: u8,
    pub(super) options: SourceOptions,
    pub(super) standing: Standing,
}

/// What another job of the same id is to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Identity {
    /// The same item; of two versions the newer counts.
    Item(Version),
    /// A task for the same feed, which is as good.
    FetchTask,
    /// Another job, unless it has the same name, payload and time.
    Job,
    /// Another job, unless it has the same payload: a dead-letter queue holds copies, made later.
    Copy,
}

/// How a job will stand here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// It waits: for its time, then for a worker.
    Waits {
        /// Zero: no time.
        delay: Duration,
        /// 0: none.
        priority: u32,
    },
    /// It is a dead letter.
    Dead {
        /// Why it was given up.
        reason: String,
        /// When.
        at: SystemTime,
        /// 0: none. Counts once it is redriven.
        priority: u32,
    },
}

/// Why a job stays in BullMQ.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Obstacle {
    /// It cannot be read.
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
    /// Parents and children are unknown here.
    #[error("it is part of a flow (FlowProducer), which feedmill does not have")]
    Flow,
    /// The scheduler would be left without the run that makes its next one.
    #[error("it is the next run of a job scheduler")]
    NextRun,
    /// Its id is none here.
    #[error(transparent)]
    Id(#[from] JobIdError),
    /// Its data is not what the queue takes.
    #[error("{0}")]
    Refused(String),
    /// Its payload is over the limit.
    #[error("its payload of {bytes} bytes is over the limit of {limit_bytes} (payload_max)")]
    TooLarge {
        /// Size of the payload.
        bytes: usize,
        /// What is accepted.
        limit_bytes: usize,
    },
    /// Another job has its id.
    #[error("another job of this id is in the queue already")]
    IdInUse,
}

/// What a job here is to one that arrives with its id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Met {
    /// It was moved by an earlier run, or makes it needless: the same item as new or newer, a task for the same feed.
    Same,
    /// It gives way: the same item, older, or a task that was given up.
    Older,
    /// It is another job.
    Other,
}

impl Arrival {
    /// Compares it with a job of its id that is here already.
    pub(super) fn is_met_by(&self, here: &Job) -> Met {
        let has_payload = here.payload() == self.payload;
        match self.identity {
            Identity::Item(version) if here.head.version >= version => Met::Same,
            Identity::Item(_) => Met::Older,
            Identity::FetchTask if here.head.place == Place::Dead => Met::Older,
            Identity::FetchTask => Met::Same,
            Identity::Job if has_payload && here.name == self.name && here.enqueued_at == self.enqueued_at => Met::Same,
            Identity::Copy if has_payload => Met::Same,
            Identity::Job | Identity::Copy => Met::Other,
        }
    }
}

/// Says what a job becomes, or why it stays.
pub(super) fn arrival(
    job: &SourceJob,
    origin: Origin<'_>,
    mapping: Mapping,
    read_at: SystemTime,
    payload_max_bytes: usize,
) -> Result<Arrival, Obstacle> {
    let content = job.content.as_ref().map_err(Clone::clone)?;
    if content.is_next_run {
        return Err(Obstacle::NextRun);
    }
    if content.is_of_flow {
        return Err(Obstacle::Flow);
    }
    let given_up = match origin {
        Origin::Queue => None,
        Origin::DeadLetterQueue(_) => Some(unwrap(content)),
    };
    let data = given_up.as_ref().map_or(content.data.as_slice(), |given_up| given_up.data);
    let added = Version(content.added_at.duration_since(UNIX_EPOCH).unwrap_or_default().as_micros() as u64);
    // How old the content of a dead letter is, nobody knows: it must never go over something that is there.
    let version = if given_up.is_some() { Version(0) } else { added };
    let (adoption, name, identity) = match mapping {
        Mapping::Items => (adopt_item(data).map_err(Obstacle::Refused)?, None, Identity::Item(version)),
        Mapping::FetchTasks => (adopt_fetch(data).map_err(Obstacle::Refused)?, None, Identity::FetchTask),
        Mapping::AsTheyAre => {
            let id = match (origin, given_up.as_ref().and_then(|given_up| given_up.id.clone())) {
                (_, Some(original)) => JobId::new(original)?,
                (Origin::DeadLetterQueue(queue), None) if is_of_bullmq(&job.id) => {
                    JobId::new([queue.as_bytes(), b"#", &job.id].concat())?
                }
                _ => JobId::new(&job.id)?,
            };
            let name = Some(content.name.clone()).filter(|name| !name.is_empty());
            let adoption = Adoption { id, payload: data.to_vec(), fingerprint: None, group: None, replaces: false };
            (adoption, name, if given_up.is_some() { Identity::Copy } else { Identity::Job })
        }
    };
    let Adoption { id, payload, fingerprint, group, .. } = adoption;
    if payload.len() > payload_max_bytes {
        return Err(Obstacle::TooLarge { bytes: payload.len(), limit_bytes: payload_max_bytes });
    }
    let mut options = content.options.clone();
    if mapping != Mapping::AsTheyAre {
        // Whether items and tasks are kept is for their queue to say.
        (options.remove_on_complete, options.remove_on_fail) = (None, None);
    }
    let attempts_made = given_up.as_ref().and_then(|given_up| given_up.attempts_made).unwrap_or(content.attempts_made);
    Ok(Arrival {
        id,
        payload,
        fingerprint,
        group,
        name,
        enqueued_at: content.added_at,
        identity,
        attempts_made: u8::try_from(attempts_made).unwrap_or(u8::MAX),
        options,
        standing: standing(content, given_up.as_ref(), origin, read_at),
    })
}

fn standing(content: &Content, given_up: Option<&GivenUp<'_>>, origin: Origin<'_>, read_at: SystemTime) -> Standing {
    let priority = content.priority;
    let said = content.failed_reason.clone().or_else(|| content.deferred_failure.clone());
    match (origin, given_up) {
        (Origin::DeadLetterQueue(queue), Some(given_up)) => {
            let reason = given_up.reason.clone().or(said).unwrap_or_else(|| format!("was in {queue}"));
            Standing::Dead { reason, at: content.given_up_at.unwrap_or(content.added_at), priority }
        }
        _ => match (content.given_up_at, &content.deferred_failure) {
            (Some(at), _) => Standing::Dead { reason: said.unwrap_or_default(), at, priority },
            (None, Some(reason)) => Standing::Dead { reason: reason.clone(), at: read_at, priority },
            (None, None) => Standing::Waits { delay: content.delay, priority },
        },
    }
}

/// What a job of a dead-letter queue says about the job that was given up.
#[derive(Debug, Default)]
struct GivenUp<'a> {
    data: &'a [u8],
    id: Option<String>,
    reason: Option<String>,
    attempts_made: Option<u32>,
}

/// Looks into a job of a dead-letter queue.
///
/// Programs add either the data of the given-up job, or an object with its data under `data`, `originalData`, `jobData`
/// or `payload`, and beside it, as they like, its id (`jobId`, `originalJobId`), the reason (`failedReason`, `reason`,
/// `error`: a text, or an object with `message`) and the attempts (`attemptsMade`). An object with a `source` is an item,
/// whatever else it has.
fn unwrap(content: &Content) -> GivenUp<'_> {
    let as_it_is = GivenUp { data: &content.data, ..GivenUp::default() };
    let Ok(fields) = serde_json::from_slice::<std::collections::BTreeMap<String, &RawValue>>(&content.data) else {
        return as_it_is;
    };
    let field = |names: &[&str]| names.iter().find_map(|name| fields.get(*name)).copied();
    let inner = field(&["data", "originalData", "jobData", "payload"]).filter(|inner| inner.get().starts_with('{'));
    let (id, reason) = (field(&["jobId", "originalJobId"]), field(&["failedReason", "reason", "error"]));
    match inner {
        Some(inner) if !fields.contains_key("source") && (id.is_some() || reason.is_some()) => GivenUp {
            data: inner.get().as_bytes(),
            id: id.and_then(text_or_number),
            reason: reason.and_then(text_or_message),
            attempts_made: field(&["attemptsMade"]).and_then(|number| serde_json::from_str(number.get()).ok()),
        },
        _ => as_it_is,
    }
}

fn text_or_number(value: &RawValue) -> Option<String> {
    let number = || serde_json::from_str::<u64>(value.get()).ok().map(|number| number.to_string());
    serde_json::from_str::<String>(value.get()).ok().or_else(number)
}

fn text_or_message(value: &RawValue) -> Option<String> {
    let message = || {
        let object: serde_json::Value = serde_json::from_str(value.get()).ok()?;
        Some(object["message"].as_str()?.to_owned())
    };
    serde_json::from_str::<String>(value.get()).ok().or_else(message)
}

/// Whether BullMQ gave the id itself: those are whole numbers, which it refuses from programs.
fn is_of_bullmq(id: &[u8]) -> bool {
    !id.is_empty() && id.iter().all(u8::is_ascii_digit)
}

#[cfg(test)]
mod tests {
    use super::super::source_job::SourceKeep;
    use super::*;
    use crate::job::{Envelope, Head};

    const LIMIT: usize = 1000;

    fn content(data: &str) -> Content {
        Content {
            name: "import".to_owned(),
            data: data.as_bytes().to_vec(),
            added_at: UNIX_EPOCH + Duration::from_secs(7),
            delay: Duration::ZERO,
            priority: 0,
            attempts_made: 1,
            failed_reason: None,
            deferred_failure: None,
            given_up_at: None,
            options: SourceOptions::default(),
            is_of_flow: false,
            is_next_run: false,
        }
    }

    fn now() -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(100)
    }

    fn becomes(id: &str, content: Content, origin: Origin<'_>, mapping: Mapping) -> Result<Arrival, Obstacle> {
        let job = SourceJob { id: id.as_bytes().to_vec(), content: Ok(content) };
        arrival(&job, origin, mapping, now(), LIMIT)
    }

    fn dead(arrival: &Arrival) -> &str {
        match &arrival.standing {
            Standing::Dead { reason, .. } => reason,
            waits @ Standing::Waits { .. } => panic!("{waits:?}"),
        }
    }

    #[test]
    fn an_item_is_known_by_source_and_guid_and_is_as_old_as_its_job() {
        let job = content(r#"{"source": "s", "guid": "g", "salary": 5}"#);
        let item = becomes("17", job, Origin::Queue, Mapping::Items).expect("moves");
        assert_eq!((item.id.to_string().as_str(), item.identity), ("s#g", Identity::Item(Version(7_000_000))));
        assert_eq!((item.attempts_made, item.name), (1, None));
        assert!(item.fingerprint.is_some());
        let refused = becomes("17", content(r#"{"guid": "g"}"#), Origin::Queue, Mapping::Items);
        assert!(matches!(refused, Err(Obstacle::Refused(reason)) if reason.contains("source")));
    }

    #[test]
    fn another_job_keeps_id_name_and_every_byte_of_its_data() {
        let job = Content { delay: Duration::from_secs(5), priority: 3, ..content(r#"{"b" :1.0, "a":"\u00e9"}"#) };
        let arrival = becomes("ü:1:x", job.clone(), Origin::Queue, Mapping::AsTheyAre).expect("moves");
        assert_eq!((arrival.id.to_string().as_str(), arrival.name.as_deref()), ("ü:1:x", Some("import")));
        assert_eq!((arrival.payload, arrival.identity), (job.data, Identity::Job));
        assert_eq!(arrival.standing, Standing::Waits { delay: Duration::from_secs(5), priority: 3 });
    }

    #[test]
    fn a_fetch_task_is_known_by_its_feed() {
        let task = becomes("17", content(r#"{"feed": "jobs"}"#), Origin::Queue, Mapping::FetchTasks).expect("moves");
        assert_eq!((task.id.to_string().as_str(), task.identity), ("jobs", Identity::FetchTask));
    }

    #[test]
    fn what_would_be_lost_or_broken_stays() {
        let stays = |job: Content| becomes("1", job, Origin::Queue, Mapping::AsTheyAre).expect_err("stays");
        assert_eq!(stays(Content { is_of_flow: true, ..content("{}") }), Obstacle::Flow);
        assert_eq!(stays(Content { is_next_run: true, ..content("{}") }), Obstacle::NextRun);
        let large = format!("\"{}\"", "x".repeat(LIMIT));
        assert!(matches!(stays(content(&large)), Obstacle::TooLarge { bytes: 1002, limit_bytes: LIMIT }));
        let gone = SourceJob { id: b"1".to_vec(), content: Err(Unreadable::NoHash) };
        let obstacle = arrival(&gone, Origin::Queue, Mapping::AsTheyAre, now(), LIMIT).expect_err("stays");
        assert_eq!(obstacle, Obstacle::Unreadable(Unreadable::NoHash));
        let long = "x".repeat(5000);
        assert!(matches!(becomes(&long, content("{}"), Origin::Queue, Mapping::AsTheyAre), Err(Obstacle::Id(_))));
    }

    #[test]
    fn a_job_that_was_given_up_or_is_about_to_be_is_a_dead_letter() {
        let at = UNIX_EPOCH + Duration::from_secs(50);
        let failed = Content { given_up_at: Some(at), failed_reason: Some("boom".to_owned()), ..content("{}") };
        let failed = becomes("1", failed, Origin::Queue, Mapping::AsTheyAre).expect("moves");
        assert_eq!(failed.standing, Standing::Dead { reason: "boom".to_owned(), at, priority: 0 });
        let stalled = Content { deferred_failure: Some("stalled too often".to_owned()), ..content("{}") };
        let stalled = becomes("1", stalled, Origin::Queue, Mapping::AsTheyAre).expect("moves");
        let at = now();
        assert_eq!(stalled.standing, Standing::Dead { reason: "stalled too often".to_owned(), at, priority: 0 });
        // It failed once and waits for its next attempt.
        let retried = Content { failed_reason: Some("boom".to_owned()), ..content("{}") };
        let retried = becomes("1", retried, Origin::Queue, Mapping::AsTheyAre).expect("moves");
        assert_eq!(retried.standing, Standing::Waits { delay: Duration::ZERO, priority: 0 });
    }

    #[test]
    fn a_job_that_is_here_already_is_told_from_another_one_of_its_id() {
        let here = |arrival: &Arrival, payload: &[u8], at: u64, version: u64| {
            let mut value = Head::new(Place::Stream, None, Version(version), None).encode();
            let enqueued_at = Some(UNIX_EPOCH + Duration::from_secs(at));
            let name = arrival.name.as_deref();
            Envelope { payload, enqueued_at, name, ..Envelope::default() }.encode_into(&mut value);
            Job::decode(arrival.id.clone(), value).expect("readable")
        };
        let job = becomes("1", content("{}"), Origin::Queue, Mapping::AsTheyAre).expect("moves");
        assert_eq!(job.is_met_by(&here(&job, b"{}", 7, 1)), Met::Same);
        assert_eq!(job.is_met_by(&here(&job, b"{}", 8, 1)), Met::Other);
        assert_eq!(job.is_met_by(&here(&job, b"[]", 7, 1)), Met::Other);
        let copy = becomes("x", content("{}"), Origin::DeadLetterQueue("q_dlq"), Mapping::AsTheyAre).expect("moves");
        assert_eq!(copy.is_met_by(&here(&copy, b"{}", 3, 1)), Met::Same);
        assert_eq!(copy.is_met_by(&here(&copy, b"[]", 7, 1)), Met::Other);
        let item = becomes("1", content(r#"{"source":"s","guid":"g"}"#), Origin::Queue, Mapping::Items).expect("moves");
        assert_eq!(item.is_met_by(&here(&item, b"", 0, 7_000_000)), Met::Same);
        assert_eq!(item.is_met_by(&here(&item, b"", 0, 6_999_999)), Met::Older);
    }

    #[test]
    fn retention_is_taken_over_only_where_the_queue_has_none_of_its_own() {
        let options =
            SourceOptions { attempts: Some(4), remove_on_fail: Some(SourceKeep::Nothing), ..Default::default() };
        let job = Content { options: options.clone(), ..content(r#"{"source":"s","guid":"g"}"#) };
        let item = becomes("1", job.clone(), Origin::Queue, Mapping::Items).expect("moves");
        assert_eq!(item.options, SourceOptions { attempts: Some(4), ..Default::default() });
        assert_eq!(becomes("1", job, Origin::Queue, Mapping::AsTheyAre).expect("moves").options, options);
    }

    #[test]
    fn a_job_of_a_dead_letter_queue_is_the_given_up_job_or_has_it_inside() {
        let origin = Origin::DeadLetterQueue("jobs_dlq");
        let item = r#"{"source":"s","guid":"g","data":{"x":1},"reason":"in the item"}"#;
        let plain = becomes("1", content(item), origin, Mapping::Items).expect("moves");
        assert_eq!((plain.id.to_string().as_str(), dead(&plain)), ("s#g", "was in jobs_dlq"));
        assert_eq!(plain.identity, Identity::Item(Version(0)), "it goes over nothing");

        let wrapped = r#"{"jobId":42,"data":{"source":"s","guid":"g"},"error":{"message":"boom"},"attemptsMade":3}"#;
        let item = becomes("1", content(wrapped), origin, Mapping::Items).expect("moves");
        assert_eq!((item.id.to_string().as_str(), dead(&item), item.attempts_made), ("s#g", "boom", 3));
        let other = becomes("1", content(wrapped), origin, Mapping::AsTheyAre).expect("moves");
        assert_eq!((other.id.to_string().as_str(), dead(&other)), ("42", "boom"));
        assert_eq!(other.payload, br#"{"source":"s","guid":"g"}"#);

        // Not known to be around another one: nothing says so.
        let data = r#"{"data":{"a":1}}"#;
        let other = becomes("1", content(data), origin, Mapping::AsTheyAre).expect("moves");
        assert_eq!((other.id.to_string().as_str(), other.payload.as_slice()), ("jobs_dlq#1", data.as_bytes()));
        let named = becomes("order-9", content(data), origin, Mapping::AsTheyAre).expect("moves");
        assert_eq!(named.id.to_string(), "order-9");
    }
}
