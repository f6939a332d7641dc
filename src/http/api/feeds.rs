//! Feeds: lists, one of them, and what is done with one.

use axum::http::StatusCode;
use axum::response::Response;
use serde_json::json;

use super::super::feeds::{self, Which};
use super::{ApiError, Ask, answer, said};

pub(super) async fn list(ask: Ask) -> Result<Response, ApiError> {
    ask.params.only(&["which", "text", "after", "limit"])?;
    let which = ask.params.text("which").map_or(Ok(Which::All), Which::of)?;
    let limit = ask.params.number("limit", (1, 50, 1000))? as usize;
    let (text, after) = (ask.params.text("text").unwrap_or_default(), ask.params.text("after").unwrap_or_default());
    Ok(answer(StatusCode::OK, &feeds::list(&ask.app, which, text, after, limit).await?))
}

pub(super) async fn show(ask: Ask) -> Result<Response, ApiError> {
    ask.no_params()?;
    Ok(answer(StatusCode::OK, &feeds::find(&ask.app, &ask.part(1)).await?))
}

pub(super) async fn import(ask: Ask) -> Result<Response, ApiError> {
    ask.no_params()?;
    let import = ask.actor().import_feed(&ask.part(1)).await?;
    Ok(answer(StatusCode::ACCEPTED, &json!({ "feed": ask.part(1), "import": import })))
}

pub(super) async fn pause(ask: Ask) -> Result<Response, ApiError> {
    ask.no_params()?;
    Ok(said(&ask.actor().pause_feed(&ask.part(1), true).await?))
}

pub(super) async fn resume(ask: Ask) -> Result<Response, ApiError> {
    ask.no_params()?;
    Ok(said(&ask.actor().pause_feed(&ask.part(1), false).await?))
}
