//! Health: whether this process is to be restarted (`/healthz`), and whether it can be of use now (`/readyz`).
//!
//! The two must not be mixed up: a process that is restarted because Redis is away only adds to the trouble.

use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::json;
use tokio::time::timeout;

use super::{ApiError, AppState, json};
use crate::error::chain;

/// How old the last turn of a loop may be: longer than a turn takes that waits for Redis or MongoDB in vain, with all
/// their timeouts and reconnections.
const TURN_AGE_MAX: Duration = Duration::from_mins(1);
/// How long Redis and MongoDB may take to answer.
const READY_WITHIN: Duration = Duration::from_secs(1);

/// `GET /healthz`: the loops of this process turn. In `serve` there are none beside the one that answers here; in `up`
/// there are the heartbeats of both workers, the recorder and the scheduler. Turns that fail are turns.
pub(super) async fn live(State(app): AppState) -> Result<Response, ApiError> {
    let stopped = app.pulse.stopped(TURN_AGE_MAX);
    if stopped.is_empty() {
        Ok(json(StatusCode::OK, &json!({ "status": "ok" })))
    } else {
        Err(ApiError::NotAlive(stopped.join(", ")))
    }
}

/// `GET /readyz`: Redis and MongoDB answer within a second.
pub(super) async fn ready(State(app): AppState) -> Result<Response, ApiError> {
    let redis = async { app.queues.import.time().await.map(drop).map_err(|error| chain(&error)) };
    let mongodb = async { app.store.ping().await.map_err(|error| chain(&error)) };
    let (redis, mongodb) = tokio::join!(timeout(READY_WITHIN, redis), timeout(READY_WITHIN, mongodb));
    // Who asks needs no token, so addresses and reasons are for the log alone.
    let mut missing = Vec::new();
    for (server, answer) in [("Redis", redis), ("MongoDB", mongodb)] {
        match answer {
            Ok(Ok(())) => continue,
            Ok(Err(error)) => tracing::debug!(server, error, "not ready: {error}"),
            Err(_) => tracing::debug!(server, "not ready: no answer from {server} within {READY_WITHIN:?}"),
        }
        missing.push(server);
    }
    if missing.is_empty() {
        Ok(json(StatusCode::OK, &json!({ "status": "ok" })))
    } else {
        Err(ApiError::NotReady(missing.join(" and ")))
    }
}
