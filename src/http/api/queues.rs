//! Queues: how they are, and what is done with a whole one.

use axum::http::StatusCode;
use axum::response::Response;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use super::super::dead_groups::dead_groups;
use super::super::live::event_json;
use super::super::operations::{LetterFilter, Task};
use super::super::readings::{self, counts_json};
use super::{ApiError, Ask, Body, answer, begun, said};
use crate::queue::series::Point;
use crate::views::worker_json;

pub(super) async fn list(ask: Ask) -> Result<Response, ApiError> {
    ask.no_params()?;
    let queues: Vec<Value> =
        readings::overview(&ask.app).await?.iter().map(|seen| counts_json(&seen.name, &seen.counts)).collect();
    Ok(answer(StatusCode::OK, &json!({ "queues": queues })))
}

pub(super) async fn show(ask: Ask) -> Result<Response, ApiError> {
    ask.no_params()?;
    let queue = readings::queue(&ask.app, &ask.queue_name()).await?;
    let mut shown = counts_json(queue.name(), &*readings::counts(&ask.app, &queue).await?);
    let limits = readings::limits(&ask.app, &queue).await?;
    shown["concurrency"] = json!(limits.limits.concurrency);
    shown["rate"] = json!(
        limits.limits.rate.map(|rate| json!({ "max": rate.max, "durationMs": rate.duration.as_millis() as u64 }))
    );
    Ok(answer(StatusCode::OK, &shown))
}

pub(super) async fn metrics(ask: Ask) -> Result<Response, ApiError> {
    ask.no_params()?;
    let queue = readings::queue(&ask.app, &ask.queue_name()).await?;
    let chart = readings::chart(&ask.app, &queue).await?;
    let points = |points: &[Point]| -> Vec<Value> {
        points
            .iter()
            .map(|point| json!({ "minute": Timestamp::try_from(point.minute).ok(), "count": point.count }))
            .collect()
    };
    Ok(answer(StatusCode::OK, &json!({ "completed": points(&chart.completed), "failed": points(&chart.failed) })))
}

pub(super) async fn events(ask: Ask) -> Result<Response, ApiError> {
    ask.params.only(&["limit"])?;
    let limit = ask.params.number("limit", (1, 50, 256))? as usize;
    let queue = readings::queue(&ask.app, &ask.queue_name()).await?;
    let events = readings::events(&ask.app, &queue, limit).await?;
    let events: Vec<Value> = events.iter().rev().map(|event| event_json(queue.name(), event)).collect();
    Ok(answer(StatusCode::OK, &json!({ "events": events })))
}

pub(super) async fn workers(ask: Ask) -> Result<Response, ApiError> {
    ask.no_params()?;
    let queue = readings::queue(&ask.app, &ask.queue_name()).await?;
    let workers = readings::workers(&ask.app, &queue).await?;
    let workers: Vec<Value> = workers.iter().map(|worker| worker_json(queue.name(), worker)).collect();
    Ok(answer(StatusCode::OK, &json!({ "workers": workers })))
}

pub(super) async fn dead(ask: Ask) -> Result<Response, ApiError> {
    ask.no_params()?;
    let queue = readings::queue(&ask.app, &ask.queue_name()).await?;
    let groups = dead_groups(&ask.app, &queue).await?;
    let rows: Vec<Value> = groups
        .groups
        .iter()
        .map(|group| {
            json!({
                "reason": group.reason, "letters": group.letters,
                "oldest": Timestamp::try_from(group.oldest).ok(), "newest": Timestamp::try_from(group.newest).ok(),
                "example": group.example.as_ref().map(ToString::to_string),
            })
        })
        .collect();
    let shown =
        json!({ "groups": rows, "lookedAt": groups.looked_at, "isThrough": groups.is_through, "at": groups.at });
    Ok(answer(StatusCode::OK, &shown))
}

pub(super) async fn pause(ask: Ask) -> Result<Response, ApiError> {
    ask.no_params()?;
    let queue = ask.actor().queue(&ask.queue_name()).await?;
    Ok(said(&ask.actor().pause(&queue, true).await?))
}

pub(super) async fn resume(ask: Ask) -> Result<Response, ApiError> {
    ask.no_params()?;
    let queue = ask.actor().queue(&ask.queue_name()).await?;
    Ok(said(&ask.actor().pause(&queue, false).await?))
}

pub(super) async fn pause_all(ask: Ask) -> Result<Response, ApiError> {
    each(ask, true).await
}

pub(super) async fn resume_all(ask: Ask) -> Result<Response, ApiError> {
    each(ask, false).await
}

async fn each(ask: Ask, pause: bool) -> Result<Response, ApiError> {
    ask.no_params()?;
    Ok(said(&ask.actor().pause_all(pause).await?))
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct ConcurrencyBody {
    concurrency: Option<u64>,
}

pub(super) async fn concurrency(ask: Ask, body: Body) -> Result<Response, ApiError> {
    ask.no_params()?;
    let limit = body.read::<ConcurrencyBody>()?.concurrency;
    let queue = ask.actor().queue(&ask.queue_name()).await?;
    Ok(said(&ask.actor().limit_concurrency(&queue, limit).await?))
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RetryBody {
    reason: Option<String>,
    group: Option<String>,
}

pub(super) async fn retry_all(ask: Ask, body: Body) -> Result<Response, ApiError> {
    ask.no_params()?;
    let RetryBody { reason, group } = body.read()?;
    let queue = ask.actor().queue(&ask.queue_name()).await?;
    let operation = match ask.part(3).as_str() {
        "failed" => ask.actor().operate(&queue, Task::Redrive(LetterFilter { reason, group })).await?,
        "completed" if reason.is_none() && group.is_none() => ask.actor().operate(&queue, Task::RetryCompleted).await?,
        "completed" => return Err(ApiError::BadRequest("completed jobs have no reason".to_owned())),
        _ => return Err(ApiError::BadRequest("failed and completed jobs can be retried".to_owned())),
    };
    Ok(begun(&operation))
}

pub(super) async fn promote_all(ask: Ask) -> Result<Response, ApiError> {
    ask.no_params()?;
    let queue = ask.actor().queue(&ask.queue_name()).await?;
    Ok(begun(&ask.actor().operate(&queue, Task::Promote).await?))
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct CleanBody {
    grace_ms: Option<u64>,
    limit: Option<usize>,
}

/// What Bull Board spares: what ended a moment ago, and somebody may be looking at.
const GRACE_MS: u64 = 5000;

pub(super) async fn clean(ask: Ask, body: Body) -> Result<Response, ApiError> {
    ask.no_params()?;
    let CleanBody { grace_ms, limit } = body.read()?;
    let queue = ask.actor().queue(&ask.queue_name()).await?;
    let (state, grace_ms) = (ask.part(3), grace_ms.unwrap_or(GRACE_MS));
    let task = Task::Clean { state, grace_ms, limit: limit.filter(|limit| *limit > 0) };
    Ok(begun(&ask.actor().operate(&queue, task).await?))
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct DrainBody {
    #[serde(default)]
    delayed: bool,
}

pub(super) async fn drain(ask: Ask, body: Body) -> Result<Response, ApiError> {
    ask.no_params()?;
    let delayed = body.read::<DrainBody>()?.delayed;
    let queue = ask.actor().queue(&ask.queue_name()).await?;
    Ok(begun(&ask.actor().operate(&queue, Task::Drain { delayed }).await?))
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct ObliterateBody {
    /// The name of the queue, typed.
    #[serde(default)]
    confirm: String,
    #[serde(default)]
    force: bool,
}

pub(super) async fn obliterate(ask: Ask, body: Body) -> Result<Response, ApiError> {
    ask.no_params()?;
    let ObliterateBody { confirm, force } = body.read()?;
    let queue = ask.actor().queue(&ask.queue_name()).await?;
    Ok(begun(&ask.actor().obliterate(&queue, &confirm, force).await?))
}
