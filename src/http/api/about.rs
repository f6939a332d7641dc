//! What is not about one queue: news, health, workers, feeds, documents, operations.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse as _, Response};
use futures_util::Stream;
use serde_json::{Value, json};
use tokio::sync::broadcast::error::RecvError;

use super::super::guard::{self, Viewer};
use super::super::{App, feeds, health_facts, readings};
use super::{ApiError, Ask, answer, begun, said};
use crate::views::worker_json;

/// The description of this API.
pub(super) const OPENAPI: &str = include_str!("openapi.json");

/// How often a stream without news says that it is there: proxies close what is silent for a minute.
const KEEP_ALIVE: Duration = Duration::from_secs(20);

pub(super) async fn openapi(ask: Ask) -> Result<Response, ApiError> {
    ask.no_params()?;
    let base = &ask.app.options.base_path;
    let text = OPENAPI.replacen("\"url\": \"/\"", &format!("\"url\": \"{base}/\""), 1);
    let mut response = text.into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}

/// News as server-sent events: `snapshot` once a second, and `event` for what happens in the queues.
pub(super) async fn live(ask: Ask) -> Result<Response, ApiError> {
    ask.no_params()?;
    let stream = Sse::new(news(&ask.app, ask.viewer.clone())).keep_alive(KeepAlive::new().interval(KEEP_ALIVE));
    let mut response = stream.into_response();
    // Proxies that collect what they pass on would hold news back.
    response.headers_mut().insert("x-accel-buffering", HeaderValue::from_static("no"));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

/// Ends with the process, and with the session of who listens.
fn news(app: &Arc<App>, viewer: Viewer) -> impl Stream<Item = Result<Event, Infallible>> + use<> {
    let listening = app.news.listen();
    let who = (app.clone(), viewer);
    futures_util::stream::unfold((listening, who), async |((mut snapshots, mut events), (app, viewer))| {
        let event = loop {
            tokio::select! {
                () = app.shutdown.cancelled() => return None,
                changed = snapshots.changed() => {
                    changed.ok()?;
                    if !guard::still_may(&app, &viewer).await {
                        return None;
                    }
                    let snapshot = snapshots.borrow_and_update().clone();
                    break Event::default().event("snapshot").data(&*snapshot);
                }
                event = events.recv() => match event {
                    Ok(event) => break Event::default().event("event").data(&*event),
                    // It was too slow, and missed some.
                    Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => return None,
                },
            }
        };
        Some((Ok(event), ((snapshots, events), (app, viewer))))
    })
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

pub(super) async fn feeds(ask: Ask) -> Result<Response, ApiError> {
    ask.params.only(&["which", "text", "after", "limit"])?;
    let which = ask.params.text("which").map_or(Ok(feeds::Which::All), feeds::Which::of)?;
    let limit = ask.params.number("limit", (1, 50, 1000))? as usize;
    let (text, after) = (ask.params.text("text").unwrap_or_default(), ask.params.text("after").unwrap_or_default());
    Ok(answer(StatusCode::OK, &feeds::list(&ask.app, which, text, after, limit).await?))
}

pub(super) async fn feed(ask: Ask) -> Result<Response, ApiError> {
    ask.no_params()?;
    Ok(answer(StatusCode::OK, &feeds::find(&ask.app, &ask.part(1)).await?))
}

pub(super) async fn import_feed(ask: Ask) -> Result<Response, ApiError> {
    ask.no_params()?;
    let import = ask.actor().import_feed(&ask.part(1)).await?;
    Ok(answer(StatusCode::ACCEPTED, &json!({ "feed": ask.part(1), "import": import })))
}

pub(super) async fn pause_feed(ask: Ask) -> Result<Response, ApiError> {
    ask.no_params()?;
    Ok(said(&ask.actor().pause_feed(&ask.part(1), true).await?))
}

pub(super) async fn resume_feed(ask: Ask) -> Result<Response, ApiError> {
    ask.no_params()?;
    Ok(said(&ask.actor().pause_feed(&ask.part(1), false).await?))
}

pub(super) async fn operations(ask: Ask) -> Result<Response, ApiError> {
    ask.no_params()?;
    let all: Vec<Value> = ask.app.operations.all().iter().map(|operation| operation.json()).collect();
    Ok(answer(StatusCode::OK, &json!({ "operations": all })))
}

pub(super) async fn operation(ask: Ask) -> Result<Response, ApiError> {
    ask.no_params()?;
    let found = ask.app.operations.find(&ask.part(1));
    let missing = || ApiError::Missing { what: "operation", name: ask.part(1).chars().take(200).collect() };
    Ok(answer(StatusCode::OK, &found.ok_or_else(missing)?.json()))
}

pub(super) async fn stop_operation(ask: Ask) -> Result<Response, ApiError> {
    ask.no_params()?;
    let found = ask.app.operations.find(&ask.part(1));
    let missing = || ApiError::Missing { what: "operation", name: ask.part(1).chars().take(200).collect() };
    let operation = found.ok_or_else(missing)?;
    ask.actor().stop(&operation);
    Ok(begun(&operation))
}
