//! Schedulers of a queue: lists, one of them, and what is done with one.

use axum::http::StatusCode;
use axum::response::Response;
use serde_json::{Value, json};

use super::super::readings;
use super::super::schedulers::{AskedScheduler, find, listed_json, word};
use super::{ApiError, Ask, Body, answer, said};
use crate::queue::schedulers::SchedulerCursor;
use crate::views::slot_at;

pub(super) async fn list(ask: Ask) -> Result<Response, ApiError> {
    ask.params.only(&["cursor", "limit"])?;
    let queue = readings::queue(&ask.app, &ask.queue_name()).await?;
    let cursor = ask.params.parsed::<SchedulerCursor>("cursor")?;
    let limit = ask.params.number("limit", (1, 50, 256))? as usize;
    let page = readings::schedulers(&ask.app, &queue, cursor.as_ref(), limit).await?;
    let schedulers: Vec<Value> = page.schedulers.iter().map(|one| listed_json(&ask.app, &queue, one)).collect();
    let next = page.next.as_ref().map(ToString::to_string);
    Ok(answer(StatusCode::OK, &json!({ "total": page.total, "schedulers": schedulers, "next": next })))
}

pub(super) async fn remove(ask: Ask) -> Result<Response, ApiError> {
    ask.no_params()?;
    let queue = ask.actor().queue(&ask.queue_name()).await?;
    Ok(said(&ask.actor().remove_scheduler(&queue, &ask.part(3)).await?))
}

pub(super) async fn show(ask: Ask) -> Result<Response, ApiError> {
    ask.no_params()?;
    let queue = readings::queue(&ask.app, &ask.queue_name()).await?;
    Ok(answer(StatusCode::OK, &find(&ask.app, &queue, &ask.part(3)).await?.json(&ask.app, &queue)))
}

pub(super) async fn upsert(ask: Ask, body: Body) -> Result<Response, ApiError> {
    ask.no_params()?;
    let asked: AskedScheduler = body.read()?;
    let queue = ask.actor().queue(&ask.queue_name()).await?;
    let (upsert, next_ms) = ask.actor().upsert_scheduler(&queue, &ask.part(3), asked).await?;
    let done = json!({ "id": ask.part(3), "result": word(upsert), "next": slot_at(Some(next_ms)) });
    Ok(answer(StatusCode::OK, &done))
}

pub(super) async fn run(ask: Ask) -> Result<Response, ApiError> {
    ask.no_params()?;
    let queue = ask.actor().queue(&ask.queue_name()).await?;
    Ok(said(&ask.actor().run_scheduler(&queue, &ask.part(3)).await?))
}
