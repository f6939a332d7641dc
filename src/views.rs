//! Jobs, schedulers and workers as JSON: one shape for the command line and for the HTTP API.

use std::time::SystemTime;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::job::Place;
use crate::queue::consumers::ConsumerState;
use crate::queue::find::{Found, State};
use crate::queue::list::{ListState, Listed, Standing};
use crate::queue::schedulers::Scheduler;
use crate::schedule::Repeat;

/// A job of a list.
pub(crate) fn listed_json(job: &Listed) -> Value {
    let at = |at: SystemTime| Timestamp::try_from(at).ok();
    let mut shown = json!({
        "id": job.id.as_ref().map(ToString::to_string),
        "title": job.title,
        "state": job.state().name(),
        "parked": job.standing == Standing::Parked,
        "adopted": !matches!(job.standing, Standing::NotAdopted { .. }),
        "error": job.error(),
    });
    let mut set = |name: &str, value: Value| shown[name] = value;
    let since = job.entry.filter(|_| job.state() == ListState::Waiting).and_then(|entry| at(entry.at()));
    set("waitingSince", json!(since));
    let (mut json, mut due, mut finished, mut failed, mut holder) = (None, None, None, None, None);
    match &job.standing {
        Standing::NotAdopted { json: front } => json = Some(String::from_utf8_lossy(front)),
        Standing::Delayed { due_at } => due = at(*due_at),
        Standing::Completed { finished_at } => finished = at(*finished_at),
        Standing::Failed(letter) => failed = at(letter.at),
        Standing::Active(by) => holder = Some(by),
        Standing::Waiting | Standing::Parked | Standing::Prioritized => {}
    }
    set("json", json!(json));
    set("dueAt", json!(due));
    set("finishedAt", json!(finished));
    set("failedAt", json!(failed));
    set("consumer", json!(holder.map(|holder| &holder.consumer)));
    set("idleMs", json!(holder.map(|holder| holder.idle.as_millis() as u64)));
    let known = job.job.as_ref();
    set("name", json!(known.and_then(|job| job.name.as_ref())));
    set("feed", json!(known.and_then(|job| job.feed.as_ref())));
    set("group", json!(known.and_then(|job| group(&job.head.group))));
    set("priority", json!(known.map(|job| job.head.priority).filter(|priority| *priority > 0)));
    set("attempts", json!(known.map(|job| job.head.attempts)));
    set("stalls", json!(known.map(|job| job.head.stalls)));
    set("enqueuedAt", json!(known.and_then(|job| at(job.enqueued_at))));
    set("import", json!(known.and_then(|job| job.head.import).map(|import| import.to_string())));
    set("payloadBytes", json!(known.map(|job| job.payload_bytes)));
    shown
}

/// A job with all that is known of it.
pub(crate) fn found_json(found: &Found) -> Value {
    let at = |at: SystemTime| Timestamp::try_from(at).ok();
    let Found { job, state, failure, holder, log } = found;
    let (due, finished, reason) = match state {
        State::Delayed { due_at } => (at(*due_at), None, None),
        State::Completed { finished_at } => (None, at(*finished_at), None),
        State::Failed { reason } => (None, None, Some(reason)),
        State::Waiting | State::Prioritized | State::Active | State::Unknown => (None, None, None),
    };
    // JSON by the rules of `set_progress`; a result is what a handler said it is.
    let value = |text: &Option<String>| {
        text.as_ref().map(|text| serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.clone())))
    };
    json!({
        "id": job.id.to_string(),
        "state": state.name(),
        "parked": job.head.place == Place::Parked,
        "name": job.name,
        "feed": job.feed,
        "group": group(&job.head.group),
        "priority": Some(job.head.priority).filter(|priority| *priority > 0),
        "enqueuedAt": at(job.enqueued_at),
        "attempts": job.head.attempts,
        "stalls": job.head.stalls,
        "dueAt": due,
        "finishedAt": finished,
        "reason": reason,
        "lastError": failure.as_ref().map(|failure| &failure.reason),
        "errors": log.errors,
        "consumer": holder.as_ref().map(|holder| &holder.consumer),
        "idleMs": holder.as_ref().map(|holder| holder.idle.as_millis() as u64),
        "import": job.head.import.map(|import| import.to_string()),
        "options": job.options,
        "progress": value(&log.progress),
        "result": value(&log.result),
        "log": log.lines,
        "linesBefore": log.lines_before,
        "payload": payload_json(job.payload()),
    })
}

/// A group as text; `None` for none.
pub(crate) fn group(group: &[u8]) -> Option<String> {
    (!group.is_empty()).then(|| String::from_utf8_lossy(group).into_owned())
}

/// The payload as JSON: items are MessagePack, fetch tasks are JSON; anything else is shown as text.
pub(crate) fn payload_json(payload: &[u8]) -> Value {
    serde_json::from_slice(payload)
        .or_else(|_| rmp_serde::from_slice(payload).map_err(|_| ()))
        .unwrap_or_else(|()| String::from_utf8_lossy(payload).into_owned().into())
}

/// A scheduler; `schedule` is that of the feed whose scheduler it is, if nothing is stored of it.
pub(crate) fn scheduler_json(scheduler: &Scheduler, schedule: Option<&str>) -> Value {
    let mut value = json!({"id": scheduler.id, "next": slot_at(scheduler.next_slot_ms)});
    match &scheduler.stored {
        None => value["feed"] = json!(schedule),
        Some(stored) => {
            value["fired"] = json!(stored.fired);
            value["lastSlot"] = json!(slot_at(stored.last_slot_ms));
            value["createdAt"] = json!(slot_at(Some(stored.created_ms)));
            value["updatedAt"] = json!(slot_at(Some(stored.updated_ms)));
            match &stored.definition {
                Err(reason) => value["damage"] = json!(reason),
                Ok(definition) => {
                    match &definition.repeat {
                        Repeat::Cron(cron) => {
                            value["cron"] = json!(cron.pattern());
                            value["timezone"] = json!(cron.timezone().unwrap_or("UTC"));
                        }
                        Repeat::Every { interval_ms, offset_ms } => {
                            value["everyMs"] = json!(interval_ms);
                            value["offsetMs"] = json!(offset_ms);
                        }
                    }
                    value["start"] = json!(definition.start);
                    value["end"] = json!(definition.end);
                    value["limit"] = json!(definition.limit);
                    value["immediately"] = json!(definition.immediately);
                    value["catchUp"] = json!(definition.catch_up);
                    value["overlap"] = json!(!definition.no_overlap);
                }
            }
        }
    }
    value
}

/// A consumer of a queue.
pub(crate) fn worker_json(queue: &str, worker: &ConsumerState) -> Value {
    let at = |at: SystemTime| Timestamp::try_from(at).ok();
    let about = worker.about.as_ref();
    json!({
        "queue": queue,
        "name": worker.name,
        "alive": worker.is_alive,
        "host": about.map(|about| &about.host),
        "pid": about.map(|about| about.pid),
        "startedAt": about.and_then(|about| at(about.started_at)),
        "heartbeatAt": worker.heartbeat_at.and_then(at),
        "held": about.map(|about| about.jobs_held),
        "pending": worker.pending,
        "running": worker.running.iter().map(ToString::to_string).collect::<Vec<_>>(),
    })
}

/// A slot as a time.
pub(crate) fn slot_at(slot_ms: Option<i64>) -> Option<Timestamp> {
    Timestamp::from_millisecond(slot_ms?).ok()
}
