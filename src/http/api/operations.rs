//! Operations on many jobs: which there are, one of them, its end, and its repetition.

use axum::http::StatusCode;
use axum::response::Response;
use serde_json::json;

use super::super::operations;
use super::{ApiError, Ask, answer, begun};

pub(super) async fn list(ask: Ask) -> Result<Response, ApiError> {
    ask.no_params()?;
    Ok(answer(StatusCode::OK, &json!({ "operations": operations::all(&ask.app).await })))
}

pub(super) async fn show(ask: Ask) -> Result<Response, ApiError> {
    ask.no_params()?;
    Ok(answer(StatusCode::OK, &operations::find(&ask.app, &ask.part(1)).await?))
}

pub(super) async fn stop(ask: Ask) -> Result<Response, ApiError> {
    ask.no_params()?;
    Ok(begun(&ask.actor().stop(&ask.part(1)).await?))
}

pub(super) async fn go_on(ask: Ask) -> Result<Response, ApiError> {
    ask.no_params()?;
    Ok(begun(&ask.actor().go_on(&ask.part(1)).await?))
}
