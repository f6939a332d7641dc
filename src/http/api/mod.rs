//! `/api`: what the dashboard shows and does, as JSON.
//!
//! [`ROUTES`] is every route there is, and `openapi.json` describes each of them; a test compares the two. Route shapes are
//! Bull Board's where they fit. A job id may be any bytes, so it stands percent-encoded in a path of its own.

mod about;
mod feeds;
mod jobs;
mod news;
mod operations;
mod queues;
mod schedulers;

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{MethodRouter, delete, get, patch, post, put};
use percent_encoding::percent_decode_str;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::actions::Actor;
use super::guard::{self, Viewer};
use super::operations::About;
use super::{ApiError, App, FORM_BYTES_MAX, json as answer};
use crate::job::JobId;
use crate::queue::QueueError;

/// One route: method (which the test compares), path, handler.
#[cfg_attr(not(test), expect(dead_code, reason = "the method is in the handler too"))]
struct Route(&'static str, &'static str, fn() -> MethodRouter<Arc<App>>);

/// Every route of the API.
const ROUTES: &[Route] = &[
    Route("GET", "/api/openapi.json", || get(about::openapi)),
    Route("GET", "/api/live", || get(news::stream)),
    Route("GET", "/api/health", || get(about::health)),
    Route("GET", "/api/workers", || get(about::workers)),
    Route("GET", "/api/document", || get(about::document)),
    Route("GET", "/api/feeds", || get(feeds::list)),
    Route("GET", "/api/feeds/{feed}", || get(feeds::show)),
    Route("PUT", "/api/feeds/{feed}/import", || put(feeds::import)),
    Route("PUT", "/api/feeds/{feed}/pause", || put(feeds::pause)),
    Route("PUT", "/api/feeds/{feed}/resume", || put(feeds::resume)),
    Route("GET", "/api/operations", || get(operations::list)),
    Route("GET", "/api/operations/{operation}", || get(operations::show)),
    Route("PUT", "/api/operations/{operation}/stop", || put(operations::stop)),
    Route("PUT", "/api/operations/{operation}/go-on", || put(operations::go_on)),
    Route("GET", "/api/queues", || get(queues::list)),
    Route("PUT", "/api/queues/pause", || put(queues::pause_all)),
    Route("PUT", "/api/queues/resume", || put(queues::resume_all)),
    Route("GET", "/api/queues/{queue}", || get(queues::show)),
    Route("GET", "/api/queues/{queue}/metrics", || get(queues::metrics)),
    Route("GET", "/api/queues/{queue}/events", || get(queues::events)),
    Route("GET", "/api/queues/{queue}/workers", || get(queues::workers)),
    Route("GET", "/api/queues/{queue}/dead", || get(queues::dead)),
    Route("GET", "/api/queues/{queue}/schedulers", || get(schedulers::list)),
    Route("GET", "/api/queues/{queue}/schedulers/{scheduler}", || get(schedulers::show)),
    Route("PUT", "/api/queues/{queue}/schedulers/{scheduler}", || put(schedulers::upsert)),
    Route("DELETE", "/api/queues/{queue}/schedulers/{scheduler}", || delete(schedulers::remove)),
    Route("PUT", "/api/queues/{queue}/schedulers/{scheduler}/run", || put(schedulers::run)),
    Route("PUT", "/api/queues/{queue}/pause", || put(queues::pause)),
    Route("PUT", "/api/queues/{queue}/resume", || put(queues::resume)),
    Route("PUT", "/api/queues/{queue}/concurrency", || put(queues::concurrency)),
    Route("PUT", "/api/queues/{queue}/retry/{status}", || put(queues::retry_all)),
    Route("PUT", "/api/queues/{queue}/promote", || put(queues::promote_all)),
    Route("PUT", "/api/queues/{queue}/clean/{status}", || put(queues::clean)),
    Route("PUT", "/api/queues/{queue}/empty", || put(queues::drain)),
    Route("PUT", "/api/queues/{queue}/obliterate", || put(queues::obliterate)),
    Route("POST", "/api/queues/{queue}/add", || post(jobs::add)),
    Route("POST", "/api/queues/{queue}/bulk", || post(jobs::bulk)),
    Route("GET", "/api/queues/{queue}/jobs", || get(jobs::list)),
    Route("GET", "/api/queues/{queue}/search", || get(jobs::search)),
    Route("GET", "/api/queues/{queue}/jobs/{id}", || get(jobs::show)),
    Route("PATCH", "/api/queues/{queue}/jobs/{id}", || patch(jobs::update)),
    Route("DELETE", "/api/queues/{queue}/jobs/{id}", || delete(jobs::remove)),
    Route("GET", "/api/queues/{queue}/jobs/{id}/logs", || get(jobs::logs)),
    Route("PUT", "/api/queues/{queue}/jobs/{id}/retry", || put(jobs::retry)),
    Route("PUT", "/api/queues/{queue}/jobs/{id}/promote", || put(jobs::promote)),
    Route("PUT", "/api/queues/{queue}/jobs/{id}/cancel", || put(jobs::cancel)),
    Route("POST", "/api/queues/{queue}/jobs/{id}/duplicate", || post(jobs::duplicate)),
];

/// Routes of other modules that `openapi.json` describes too.
#[cfg(test)]
const OTHERS: [(&str, &str); 5] = [
    ("GET", "/healthz"),
    ("GET", "/readyz"),
    ("POST", "/imports/start"),
    ("GET", "/imports"),
    ("GET", "/imports/{id}"),
];

/// The API.
pub(super) fn routes() -> Router<Arc<App>> {
    ROUTES.iter().fold(Router::new(), |router, Route(_, path, handler)| router.route(path, handler()))
}

/// Parameters behind the `?`. Each is known and given at most once.
#[derive(Debug)]
pub(super) struct Params(Vec<(String, String)>);

impl Params {
    pub(super) fn of(uri: &Uri) -> Self {
        Self(url::form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()).into_owned().collect())
    }

    /// Refuses other parameters than these.
    fn only(&self, accepted: &[&str]) -> Result<(), ApiError> {
        match self.0.iter().find(|(name, _)| !accepted.contains(&name.as_str())) {
            None => Ok(()),
            Some(_) if accepted.is_empty() => Err(ApiError::BadRequest("there are no parameters here".to_owned())),
            Some(_) => Err(ApiError::BadRequest(format!("unknown parameter; accepted: {}", accepted.join(", ")))),
        }
    }

    /// The value of one, unless it is empty.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str());
        found.filter(|value| !value.is_empty())
    }

    /// A number in a range, or what it is otherwise.
    pub(super) fn number(&self, name: &str, (least, default, most): (u64, u64, u64)) -> Result<u64, ApiError> {
        let Some(text) = self.text(name) else { return Ok(default) };
        let number = text.parse().ok().filter(|number| (least..=most).contains(number));
        number.ok_or_else(|| ApiError::BadRequest(format!("{name}: a number from {least} to {most} is accepted")))
    }

    /// A value of a type that says itself what is wrong.
    pub(super) fn parsed<T: std::str::FromStr<Err: std::fmt::Display>>(
        &self,
        name: &str,
    ) -> Result<Option<T>, ApiError> {
        let parsed = self.text(name).map(str::parse).transpose();
        parsed.map_err(|error| ApiError::BadRequest(format!("{name}: {error}")))
    }
}

/// A request: who asks, its path and its parameters.
#[derive(Debug)]
struct Ask {
    app: Arc<App>,
    viewer: Viewer,
    params: Params,
    /// Parts of the path, decoded.
    path: Vec<Vec<u8>>,
}

impl FromRequestParts<Arc<App>> for Ask {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, ApiError> {
        let viewer = parts.extensions.get::<Viewer>().cloned();
        let viewer = viewer.ok_or_else(|| ApiError::Internal("nobody looked who asks".to_owned()))?;
        Ok(Self { app: app.clone(), viewer, params: Params::of(&parts.uri), path: path_parts(&parts.uri) })
    }
}

/// The parts of a path, each decoded on its own: what stands in a part may hold a `/`.
pub(super) fn path_parts(uri: &Uri) -> Vec<Vec<u8>> {
    uri.path().split('/').skip(1).map(|part| percent_decode_str(part).collect()).collect()
}

impl Ask {
    fn actor(&self) -> Actor<'_> {
        Actor { app: &self.app, viewer: &self.viewer }
    }

    /// A part of the path as text, counted from that behind `/api`.
    fn part(&self, at: usize) -> String {
        self.path.get(at + 1).map_or_else(String::new, |part| String::from_utf8_lossy(part).into_owned())
    }

    /// The name in `/api/queues/{queue}`.
    fn queue_name(&self) -> String {
        self.part(1)
    }

    /// The id in `/api/queues/{queue}/jobs/{id}`.
    fn job_id(&self) -> Result<JobId, ApiError> {
        let id = self.path.get(4).map_or(&[][..], Vec::as_slice);
        Ok(JobId::new(id).map_err(QueueError::from)?)
    }

    /// For routes without parameters.
    fn no_params(&self) -> Result<(), ApiError> {
        self.params.only(&[])
    }
}

/// A body that is JSON, or none at all.
struct Body(Bytes);

impl FromRequest<Arc<App>> for Body {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, ApiError> {
        let headers = request.headers().clone();
        Bytes::from_request(request, app).await.map_err(refused).and_then(|bytes| Self::new(&headers, bytes))
    }
}

pub(super) fn refused(rejection: BytesRejection) -> ApiError {
    let text = rejection.body_text();
    match rejection.into_response().status() {
        StatusCode::PAYLOAD_TOO_LARGE => ApiError::TooLarge(FORM_BYTES_MAX),
        _ => ApiError::BadRequest(text),
    }
}

impl Body {
    fn new(headers: &HeaderMap, bytes: Bytes) -> Result<Self, ApiError> {
        if bytes.is_empty() || guard::is_json(headers) { Ok(Self(bytes)) } else { Err(ApiError::NotJson) }
    }

    /// What it says; nothing is what `T` is by default.
    fn read<T: DeserializeOwned + Default>(&self) -> Result<T, ApiError> {
        if self.0.is_empty() {
            return Ok(T::default());
        }
        serde_json::from_slice(&self.0).map_err(|error| ApiError::BadRequest(format!("the body: {error}")))
    }
}

/// What was done, in a sentence.
fn said(text: &str) -> Response {
    answer(StatusCode::OK, &json!({ "said": text }))
}

/// An operation has begun.
fn begun(operation: &About) -> Response {
    answer(StatusCode::ACCEPTED, operation)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::*;

    #[test]
    fn every_route_is_in_the_openapi_file_and_the_other_way_round() {
        let file: Value = serde_json::from_str(about::OPENAPI).unwrap();
        assert_eq!(file["openapi"], "3.1.0");
        let mut described = BTreeSet::new();
        for (path, operations) in file["paths"].as_object().unwrap() {
            for (method, operation) in operations.as_object().unwrap().iter().filter(|(name, _)| *name != "parameters")
            {
                described.insert((method.to_uppercase(), path.clone()));
                let id = operation["operationId"].as_str();
                assert!(id.is_some() && operation["summary"].is_string(), "{method} {path} has no id or no summary");
                assert!(operation["responses"].as_object().is_some_and(|all| !all.is_empty()), "{method} {path}");
                // Each part of a path in braces is a parameter.
                let own = operation["parameters"].as_array().into_iter().flatten();
                let shared = operations["parameters"].as_array().into_iter().flatten();
                let names: BTreeSet<&str> = own
                    .chain(shared)
                    .map(|parameter| match parameter["$ref"].as_str() {
                        Some(at) => file.pointer(at.trim_start_matches('#')).unwrap(),
                        None => parameter,
                    })
                    .filter(|parameter| parameter["in"] == "path")
                    .map(|parameter| parameter["name"].as_str().unwrap())
                    .collect();
                let parts = path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
                assert_eq!(names, parts.collect(), "{method} {path}");
            }
        }
        let own = ROUTES.iter().map(|Route(method, path, _)| ((*method).to_owned(), (*path).to_owned()));
        let others = OTHERS.into_iter().map(|(method, path)| (method.to_owned(), path.to_owned()));
        assert_eq!(described, own.chain(others).collect());
    }

    #[test]
    fn every_reference_in_the_openapi_file_leads_somewhere() {
        fn check(value: &Value, file: &Value) {
            match value {
                Value::Object(fields) => {
                    if let Some(at) = fields.get("$ref").and_then(Value::as_str) {
                        assert!(file.pointer(at.trim_start_matches('#')).is_some(), "{at}");
                    }
                    fields.values().for_each(|value| check(value, file));
                }
                Value::Array(values) => values.iter().for_each(|value| check(value, file)),
                _ => {}
            }
        }
        let file: Value = serde_json::from_str(about::OPENAPI).unwrap();
        check(&file, &file);
    }
}
