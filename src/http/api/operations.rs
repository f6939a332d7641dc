//! Operations on many jobs: which there are, one of them, and its end.

use std::sync::Arc;

use axum::http::StatusCode;
use axum::response::Response;
use serde_json::{Value, json};

use super::super::operations::Operation;
use super::{ApiError, Ask, answer, begun};

pub(super) async fn list(ask: Ask) -> Result<Response, ApiError> {
    ask.no_params()?;
    let all: Vec<Value> = ask.app.operations.all().iter().map(|operation| operation.json()).collect();
    Ok(answer(StatusCode::OK, &json!({ "operations": all })))
}

pub(super) async fn show(ask: Ask) -> Result<Response, ApiError> {
    ask.no_params()?;
    Ok(answer(StatusCode::OK, &find(&ask)?.json()))
}

pub(super) async fn stop(ask: Ask) -> Result<Response, ApiError> {
    ask.no_params()?;
    let operation = find(&ask)?;
    ask.actor().stop(&operation);
    Ok(begun(&operation))
}

fn find(ask: &Ask) -> Result<Arc<Operation>, ApiError> {
    let (id, missing) = (ask.part(1), |name: String| ApiError::Missing { what: "operation", name });
    ask.app.operations.find(&id).ok_or_else(|| missing(id.chars().take(200).collect()))
}
