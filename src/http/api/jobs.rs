//! Jobs: lists, search, one of them, and what is done with some.

use axum::http::StatusCode;
use axum::response::Response;
use serde::Deserialize;
use serde_json::{Value, json};

use super::super::actions::{Asked, Changes, Verb};
use super::super::readings;
use super::{ApiError, Ask, Body, answer, said};
use crate::job::JobId;
use crate::queue::list::{Cursor, ListState};
use crate::queue::operated::Operated;
use crate::queue::search::Filter;
use crate::queue::{Order, QueueError};
use crate::views::{found_json, listed_json};

pub(super) async fn list(ask: Ask) -> Result<Response, ApiError> {
    ask.params.only(&["state", "order", "cursor", "limit"])?;
    let queue = readings::queue(&ask.app, &ask.queue_name()).await?;
    let cursor = ask.params.parsed::<Cursor>("cursor")?;
    let of_cursor = cursor.as_ref().map(Cursor::state);
    let state = ask.params.parsed::<ListState>("state")?.or(of_cursor).unwrap_or(ListState::Waiting);
    let order = match ask.params.text("order") {
        None => cursor.as_ref().map_or(Order::Ascending, Cursor::order),
        Some("asc") => Order::Ascending,
        Some("desc") => Order::Descending,
        Some(_) => return Err(ApiError::BadRequest("order: accepted are asc and desc".to_owned())),
    };
    let limit = ask.params.number("limit", (1, 20, 128))? as usize;
    let page = readings::list(&ask.app, &queue, (state, order), cursor.as_ref(), limit).await?;
    let jobs: Vec<Value> = page.jobs.iter().map(listed_json).collect();
    let next = page.next.as_ref().map(ToString::to_string);
    Ok(answer(StatusCode::OK, &json!({ "state": state.name(), "order": order.word(), "jobs": jobs, "next": next })))
}

pub(super) async fn search(ask: Ask) -> Result<Response, ApiError> {
    ask.params.only(&["state", "idPrefix", "source", "group", "error", "cursor", "limit"])?;
    let queue = readings::queue(&ask.app, &ask.queue_name()).await?;
    let source = ask.params.text("source").map(|source| format!("{source}#"));
    let prefix = source.or_else(|| ask.params.text("idPrefix").map(str::to_owned)).unwrap_or_default();
    let filter = Filter {
        state: ask.params.parsed::<ListState>("state")?,
        id_prefix: prefix.into_bytes(),
        group: ask.params.text("group").map(|group| group.as_bytes().to_vec()),
        error: ask.params.text("error").map(str::to_owned),
    };
    let cursor = ask.params.parsed::<Cursor>("cursor")?;
    let limit = ask.params.number("limit", (1, 20, 128))? as usize;
    let page = readings::search(&ask.app, &queue, &filter, cursor.as_ref(), limit).await?;
    let jobs: Vec<Value> = page.jobs.iter().map(listed_json).collect();
    let next = page.next.as_ref().map(ToString::to_string);
    Ok(answer(StatusCode::OK, &json!({ "jobs": jobs, "lookedAt": page.looked_at, "next": next })))
}

pub(super) async fn show(ask: Ask) -> Result<Response, ApiError> {
    ask.no_params()?;
    let (queue, id) = (readings::queue(&ask.app, &ask.queue_name()).await?, ask.job_id()?);
    let found = readings::job(&ask.app, &queue, &id).await?;
    Ok(answer(StatusCode::OK, &found_json(&found)))
}

pub(super) async fn logs(ask: Ask) -> Result<Response, ApiError> {
    ask.params.only(&["before", "limit"])?;
    let (queue, id) = (readings::queue(&ask.app, &ask.queue_name()).await?, ask.job_id()?);
    // Line numbers are counted from 1; those beyond what a script takes for a whole number are none.
    let before = ask.params.text("before").map(|_| ask.params.number("before", (1, 1, 1 << 50))).transpose()?;
    let limit = ask.params.number("limit", (1, 100, 100))? as usize;
    let lines = queue.log_lines(&id, before, limit).await?;
    let lines: Vec<Value> = lines.into_iter().map(|line| json!({ "number": line.number, "text": line.text })).collect();
    Ok(answer(StatusCode::OK, &json!({ "lines": lines })))
}

pub(super) async fn add(ask: Ask, body: Body) -> Result<Response, ApiError> {
    ask.no_params()?;
    let asked: Asked = body.read()?;
    let queue = ask.actor().queue(&ask.queue_name()).await?;
    let (id, result) = ask.actor().add(&queue, asked).await?;
    Ok(answer(StatusCode::OK, &json!({ "id": id.to_string(), "result": result })))
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct BulkBody {
    #[serde(default)]
    action: String,
    #[serde(default)]
    ids: Vec<String>,
}

pub(super) async fn bulk(ask: Ask, body: Body) -> Result<Response, ApiError> {
    ask.no_params()?;
    let BulkBody { action, ids } = body.read()?;
    let verb = Verb::of(&action)?;
    let ids = ids.iter().map(JobId::new).collect::<Result<Vec<_>, _>>().map_err(QueueError::from)?;
    let queue = ask.actor().queue(&ask.queue_name()).await?;
    let (said, answers) = ask.actor().each(&queue, verb, &ids).await?;
    let results: Vec<Value> = ids
        .iter()
        .zip(answers)
        .map(|(id, answer)| {
            let result = match answer {
                Operated::Done => "done",
                Operated::Missing => "missing",
                Operated::Refused(state) => state.name(),
            };
            json!({ "id": id.to_string(), "result": result })
        })
        .collect();
    Ok(answer(StatusCode::OK, &json!({ "said": said, "results": results })))
}

pub(super) async fn update(ask: Ask, body: Body) -> Result<Response, ApiError> {
    ask.no_params()?;
    let changes: Changes = body.read()?;
    let (queue, id) = (ask.actor().queue(&ask.queue_name()).await?, ask.job_id()?);
    Ok(said(&ask.actor().update(&queue, &id, changes).await?))
}

async fn one(ask: Ask, verb: Verb) -> Result<Response, ApiError> {
    ask.no_params()?;
    let (queue, id) = (ask.actor().queue(&ask.queue_name()).await?, ask.job_id()?);
    Ok(said(&ask.actor().one(&queue, verb, &id).await?))
}

pub(super) async fn retry(ask: Ask) -> Result<Response, ApiError> {
    one(ask, Verb::Retry).await
}

pub(super) async fn promote(ask: Ask) -> Result<Response, ApiError> {
    one(ask, Verb::Promote).await
}

pub(super) async fn cancel(ask: Ask) -> Result<Response, ApiError> {
    one(ask, Verb::Cancel).await
}

pub(super) async fn remove(ask: Ask) -> Result<Response, ApiError> {
    one(ask, Verb::Remove).await
}

pub(super) async fn duplicate(ask: Ask) -> Result<Response, ApiError> {
    ask.no_params()?;
    let (queue, id) = (ask.actor().queue(&ask.queue_name()).await?, ask.job_id()?);
    let copy = ask.actor().duplicate(&queue, &id).await?;
    Ok(answer(StatusCode::OK, &json!({ "id": copy.to_string(), "result": "enqueued" })))
}
