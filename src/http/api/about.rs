//! What is about no queue, feed or operation: the description of the API, health, workers, documents.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use serde_json::json;

use super::super::{health_facts, readings};
use super::{ApiError, Ask, answer};
use crate::views::worker_json;

/// The description of this API.
pub(super) const OPENAPI: &str = include_str!("openapi.json");

pub(super) async fn openapi(ask: Ask) -> Result<Response, ApiError> {
    ask.no_params()?;
    let base = &ask.app.options.base_path;
    let text = OPENAPI.replacen("\"url\": \"/\"", &format!("\"url\": \"{base}/\""), 1);
    let mut response = text.into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}

pub(super) async fn health(ask: Ask) -> Result<Response, ApiError> {
    ask.no_params()?;
    Ok(answer(StatusCode::OK, &health_facts::health(&ask.app).await?.json()))
}

pub(super) async fn workers(ask: Ask) -> Result<Response, ApiError> {
    ask.no_params()?;
    let mut workers = Vec::new();
    for name in readings::names(&ask.app).await?.iter() {
        let queue = readings::queue(&ask.app, name).await?;
        let of_queue = readings::workers(&ask.app, &queue).await?;
        workers.extend(of_queue.iter().map(|worker| worker_json(name, worker)));
    }
    Ok(answer(StatusCode::OK, &json!({ "workers": workers })))
}

pub(super) async fn document(ask: Ask) -> Result<Response, ApiError> {
    ask.params.only(&["source", "guid"])?;
    let wanted = ask.params.text("source").zip(ask.params.text("guid"));
    let (source, guid) = wanted.ok_or_else(|| ApiError::BadRequest("source and guid must be given".to_owned()))?;
    let found = ask.app.store.find_document(source, guid).await?;
    let missing =
        || ApiError::Missing { what: "document", name: format!("{source}#{guid}").chars().take(200).collect() };
    Ok(answer(StatusCode::OK, &found.ok_or_else(missing)?))
}
