//! News of the queues, as they happen.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderValue, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse as _, Response};
use futures_util::Stream;
use tokio::sync::broadcast::error::RecvError;

use super::super::App;
use super::super::guard::{self, Viewer};
use super::{ApiError, Ask};

/// How often a stream without news says that it is there: proxies close what is silent for a minute.
const KEEP_ALIVE: Duration = Duration::from_secs(20);

/// News as server-sent events: `snapshot` once a second, and `event` for what happens in the queues.
pub(super) async fn stream(ask: Ask) -> Result<Response, ApiError> {
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
