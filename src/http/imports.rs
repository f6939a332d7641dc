//! Imports: to start them, and to see what became of them.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tracing::Instrument as _;

use super::{ApiError, App, AppState, BODY_BYTES_MAX, guard, json};
use crate::feed::Feed;
use crate::import::{self, StartRequest};
use crate::job::ImportId;
use crate::store::imports::ImportFilter;
use crate::telemetry::spans;

/// Imports that the answer to a start lists; a client that starts more follows them by their run.
const LISTED_MAX: usize = 1000;
/// Unknown feeds that an error names.
const NAMED_MAX: usize = 20;
/// Characters of a name that an error repeats.
const NAME_CHARS_MAX: usize = 200;
/// Imports that are listed unless the client wants more or fewer.
const LIMIT_DEFAULT: u32 = 20;
/// Imports that are listed at most.
const LIMIT_MAX: u32 = 10_000;

/// Body of `POST /imports/start`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct StartBody {
    /// Names of feeds; without it all.
    #[serde(default)]
    feeds: Option<Vec<String>>,
}

/// Answer to it.
#[derive(Debug, Serialize)]
struct StartAnswer {
    /// By which `GET /imports` finds what was started.
    run: String,
    /// In the order asked for; left out when they are more than [`LISTED_MAX`].
    #[serde(skip_serializing_if = "Option::is_none")]
    imports: Option<Vec<StartedRow>>,
}

/// One import that was started, or ran already.
#[derive(Debug, Serialize)]
struct StartedRow {
    feed: String,
    id: String,
}

/// `POST /imports/start`: adds a fetch job for each feed named, or for all, and answers before any is fetched. A feed that
/// is being fetched gives its running import, which keeps the run it was started in.
pub(super) async fn start(
    State(app): AppState,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, ApiError> {
    let wanted = wanted_feeds(&app, &start_body(&headers, body)?).await?;
    let run = new_run();
    let starting = {
        let (app, run) = (app.clone(), run.clone());
        async move {
            let request = StartRequest { run, asked: true, force: false };
            import::start(&app.queues.import, &app.queues.fetch, wanted.iter().map(|feed| &**feed), &request).await
        }
    };
    let starting = starting.instrument(spans::of_request(traceparent(&headers)));
    let started = app.starts.spawn(starting).await.map_err(|error| ApiError::Internal(error.to_string()))??;
    let is_listed = started.len() <= LISTED_MAX;
    let row = |started: import::Started| StartedRow { feed: started.feed, id: started.import.to_string() };
    let imports = is_listed.then(|| started.into_iter().map(row).collect());
    Ok(json(StatusCode::ACCEPTED, &StartAnswer { run, imports }))
}

/// The header `traceparent` of W3C Trace Context; of two it is not known which holds.
fn traceparent(headers: &HeaderMap) -> Option<&str> {
    let mut all = headers.get_all("traceparent").iter();
    let first = all.next()?;
    first.to_str().ok().filter(|_| all.next().is_none())
}

fn start_body(headers: &HeaderMap, body: Result<Bytes, BytesRejection>) -> Result<StartBody, ApiError> {
    let body = body.map_err(|rejection| {
        let text = rejection.body_text();
        if rejection.into_response().status() == StatusCode::PAYLOAD_TOO_LARGE {
            ApiError::TooLarge(BODY_BYTES_MAX)
        } else {
            ApiError::BadRequest(text)
        }
    })?;
    if body.is_empty() {
        return Ok(StartBody::default());
    }
    if !guard::is_json(headers) {
        return Err(ApiError::NotJson);
    }
    serde_json::from_slice(&body)
        .map_err(|error| ApiError::BadRequest(format!("not {{\"feeds\": [\"name\", …]}} or nothing: {error}")))
}

async fn wanted_feeds(app: &App, body: &StartBody) -> Result<Vec<Arc<Feed>>, ApiError> {
    let Some(names) = &body.feeds else { return Ok(app.feeds.current().values().cloned().collect()) };
    if names.is_empty() {
        // Whoever computed an empty list does not want all feeds.
        return Err(ApiError::BadRequest("\"feeds\" is empty; leave it out to start all".to_owned()));
    }
    if names.iter().any(|name| app.feeds.find(name).is_none()) {
        // It may have been subscribed to a moment ago.
        app.feeds.refresh().await.map_err(import::HistoryError::from)?;
    }
    let (mut asked, mut wanted, mut unknown) = (HashSet::new(), Vec::new(), Vec::new());
    for name in names.iter().filter(|name| asked.insert(*name)) {
        match app.feeds.find(name) {
            Some(feed) => wanted.push(feed.clone()),
            None => unknown.push(name),
        }
    }
    if unknown.is_empty() {
        return Ok(wanted);
    }
    let shown = |name: &&String| format!("{:?}", name.chars().take(NAME_CHARS_MAX).collect::<String>());
    let mut list = unknown.iter().take(NAMED_MAX).map(shown).collect::<Vec<_>>().join(", ");
    if unknown.len() > NAMED_MAX {
        let _ = write!(list, " and {} more", unknown.len() - NAMED_MAX); // a String takes everything
    }
    Err(ApiError::FeedNotFound(list))
}

/// A name for what is started together: no two are the same, later ones are mostly greater.
fn new_run() -> String {
    format!("{:x}{:04x}", Timestamp::now().as_microsecond(), fastrand::u16(..))
}

/// `GET /imports?run=&feed=&limit=`: the newest imports, running ones included.
pub(super) async fn list(State(app): AppState, RawQuery(query): RawQuery) -> Result<Response, ApiError> {
    let (mut run, mut feed, mut limit) = (None, None, LIMIT_DEFAULT);
    for (name, value) in url::form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
        match &*name {
            "run" => run = Some(value.into_owned()),
            "feed" => feed = Some(value.into_owned()),
            "limit" => {
                let number = value.parse().ok().filter(|limit| (1..=LIMIT_MAX).contains(limit));
                let wrong = || ApiError::BadRequest(format!("limit: a number from 1 to {LIMIT_MAX} is accepted"));
                limit = number.ok_or_else(wrong)?;
            }
            _ => return Err(ApiError::BadRequest("unknown parameter; accepted: run, feed, limit".to_owned())),
        }
    }
    let wanted = ImportFilter { feed: feed.as_deref(), run: run.as_deref() };
    let records = import::list_imports(&app.queues.import, &app.store, wanted, limit).await?;
    let imports: Vec<Value> = records.iter().map(import::import_json).collect();
    Ok(json(StatusCode::OK, &json!({ "imports": imports })))
}

/// `GET /imports/{id}`: one import, as `feedmill import show --json` prints it.
pub(super) async fn show(State(app): AppState, Path(id): Path<String>) -> Result<Response, ApiError> {
    let no_import = || ApiError::no_import(&id);
    let parsed: ImportId = id.parse().map_err(|_| no_import())?;
    let record = import::find_import(&app.queues.import, &app.store, parsed).await?.ok_or_else(no_import)?;
    Ok(json(StatusCode::OK, &import::import_json(&record)))
}
