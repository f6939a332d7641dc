//! What goes wrong with a request: the one place where an error becomes a status and a code.

use std::time::Duration;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::json;
use crate::error::chain;
use crate::import::{HistoryError, StartError};
use crate::job::ImportId;
use crate::queue::QueueError;
use crate::store::StoreError;

/// Why a request is not carried out. The text is the `detail` of the answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ApiError {
    /// There is no such path.
    #[error("there is nothing at this path")]
    NoRoute,
    /// The path takes other methods.
    #[error("this path takes another method; the header Allow says which")]
    Method,
    /// Feeds that are not configured.
    #[error("no such feed: {0}; nothing was started")]
    FeedNotFound(String),
    /// An import that is not there, or not any more.
    #[error("there is no import {0}; those of the last 30 days are kept")]
    ImportNotFound(String),
    /// There is no queue of this name.
    #[error("there is no queue {0:?}; GET /api/queues lists those there are")]
    QueueNotFound(String),
    /// There is no such job.
    #[error("there is no job {0}: it is done, was never added, or no worker has adopted it yet")]
    JobNotFound(String),
    /// There is no such scheduler, document or operation.
    #[error("there is no {what} {name:?}")]
    Missing {
        /// What was looked for.
        what: &'static str,
        /// By this name.
        name: String,
    },
    /// It cannot be done to what is in this state.
    #[error("{0}")]
    Conflict(String),
    /// Nothing may be changed.
    #[error("this feedmill is read-only: it was started with --read-only, or http.read_only is true")]
    ReadOnly,
    /// A form from a page that we did not make, or of an earlier process.
    #[error("this form is not of a page of now; go back, load the page again, and repeat")]
    FormToken,
    /// The token is missing or another.
    #[error("send the token: Authorization: Bearer TOKEN")]
    Unauthorized,
    /// Redis does not say whether a session was logged out of.
    #[error("this session cannot be checked now: {0}")]
    SessionUnchecked(String),
    /// The Host header names no address of this machine, and no token protects it.
    #[error(
        "the host {0:?} is not this machine: ask as localhost or 127.0.0.1, or set FEEDMILL_TOKEN, with which every \
         host is accepted"
    )]
    ForeignHost(String),
    /// The page of another site sent it.
    #[error("pages of {0:?} may not change anything here")]
    ForeignOrigin(String),
    /// The body is of another type.
    #[error("the body is not JSON; send it with Content-Type: application/json")]
    NotJson,
    /// The body is too large.
    #[error("the body is over {0} bytes")]
    TooLarge(usize),
    /// Something in the request cannot be used.
    #[error("{0}")]
    BadRequest(String),
    /// The body did not come, or the answer took too long.
    #[error("not answered within {0:?}")]
    Timeout(Duration),
    /// A loop of the process has stopped.
    #[error("stopped: {0}; restart this process")]
    NotAlive(String),
    /// A server does not answer.
    #[error("no answer from {0}")]
    NotReady(String),
    /// Redis or MongoDB is away; the same request may succeed later.
    #[error("{0}")]
    Unavailable(String),
    /// A fault of ours.
    #[error("{0}")]
    Internal(String),
}

impl ApiError {
    fn status_and_code(&self) -> (StatusCode, &'static str) {
        match self {
            Self::NoRoute | Self::Missing { .. } => (StatusCode::NOT_FOUND, "not_found"),
            Self::Method => (StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed"),
            Self::FeedNotFound(_) => (StatusCode::NOT_FOUND, "feed_not_found"),
            Self::ImportNotFound(_) => (StatusCode::NOT_FOUND, "import_not_found"),
            Self::QueueNotFound(_) => (StatusCode::NOT_FOUND, "queue_not_found"),
            Self::JobNotFound(_) => (StatusCode::NOT_FOUND, "job_not_found"),
            Self::Conflict(_) => (StatusCode::CONFLICT, "conflict"),
            Self::ReadOnly => (StatusCode::FORBIDDEN, "read_only"),
            Self::FormToken => (StatusCode::FORBIDDEN, "form_token"),
            Self::Unauthorized => (StatusCode::UNAUTHORIZED, "unauthorized"),
            Self::ForeignHost(_) => (StatusCode::FORBIDDEN, "foreign_host"),
            Self::ForeignOrigin(_) => (StatusCode::FORBIDDEN, "foreign_origin"),
            Self::NotJson => (StatusCode::UNSUPPORTED_MEDIA_TYPE, "not_json"),
            Self::TooLarge(_) => (StatusCode::PAYLOAD_TOO_LARGE, "too_large"),
            Self::BadRequest(_) => (StatusCode::BAD_REQUEST, "bad_request"),
            Self::Timeout(_) => (StatusCode::REQUEST_TIMEOUT, "timeout"),
            Self::NotAlive(_) => (StatusCode::SERVICE_UNAVAILABLE, "not_alive"),
            Self::NotReady(_) => (StatusCode::SERVICE_UNAVAILABLE, "not_ready"),
            Self::Unavailable(_) | Self::SessionUnchecked(_) => (StatusCode::SERVICE_UNAVAILABLE, "unavailable"),
            Self::Internal(_) => (StatusCode::INTERNAL_SERVER_ERROR, "internal"),
        }
    }

    /// No import of this id, as the client wrote it.
    pub(super) fn no_import(id: &str) -> Self {
        let id: Result<ImportId, _> = id.parse();
        // What is no id is not repeated: it may be anything.
        Self::ImportNotFound(id.map_or_else(|error| format!("of this id ({error})"), |id| id.to_string()))
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let (status, code) = self.status_and_code();
        if status.is_server_error() && !matches!(self, Self::NotReady(_)) {
            // A probe comes every few seconds, and the worker's own log tells what it found; the rest is told once here.
            tracing::warn!(status = status.as_u16(), code, error = %self, "a request failed: {self}");
        }
        let detail = self.to_string();
        let is_stranger = matches!(
            self,
            Self::Unauthorized | Self::SessionUnchecked(_) | Self::ForeignHost(_) | Self::ForeignOrigin(_)
        );
        let mut response = json(status, &serde_json::json!({ "code": code, "detail": &detail }));
        response.extensions_mut().insert(Failure { detail, is_stranger });
        if status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

/// Goes along with the answer to a failed request, for those who tell it otherwise than in JSON.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    pub(super) detail: String,
    /// Whoever asked is not to see more than that.
    pub(super) is_stranger: bool,
}

impl From<QueueError> for ApiError {
    fn from(error: QueueError) -> Self {
        let text = chain(&error);
        match error {
            _ if error.is_outage() => Self::Unavailable(text),
            QueueError::Cursor(_)
            | QueueError::JobId(_)
            | QueueError::Name { .. }
            | QueueError::SchedulerId(_)
            | QueueError::Definition(_)
            | QueueError::Priority { .. }
            | QueueError::DeduplicationId { .. }
            | QueueError::NotCleanable { .. } => Self::BadRequest(text),
            QueueError::PayloadTooLarge { limit_bytes, .. } => Self::TooLarge(limit_bytes),
            QueueError::NotPaused { .. } | QueueError::HasActive { .. } => Self::Conflict(text),
            _ => Self::Internal(text),
        }
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        let text = chain(&error);
        if error.is_outage() { Self::Unavailable(text) } else { Self::Internal(text) }
    }
}

impl From<StartError> for ApiError {
    fn from(error: StartError) -> Self {
        let text = chain(&error);
        match error {
            StartError::Queue(cause) if cause.is_outage() => Self::Unavailable(text),
            _ => Self::Internal(text),
        }
    }
}

impl From<HistoryError> for ApiError {
    fn from(error: HistoryError) -> Self {
        let is_outage = match &error {
            HistoryError::Queue(cause) => cause.is_outage(),
            HistoryError::Store(cause) => cause.is_outage(),
        };
        if is_outage { Self::Unavailable(chain(&error)) } else { Self::Internal(chain(&error)) }
    }
}
