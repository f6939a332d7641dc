//! HTTP: what a web backend, a browser and a supervisor ask of feedmill.
//!
//! ```text
//!   health.rs    GET /healthz · /readyz                                for everybody
//!   imports.rs   POST /imports/start · GET /imports · /imports/{id}    behind guard.rs
//! ```
//!
//! [`bind`] takes an address, [`serve`] answers on it until it is told to end. `guard.rs` decides who may ask, `error.rs`
//! says what went wrong: every error is `{"code": …, "detail": …}`. Nothing here fetches a feed or waits for one.

mod error;
pub(crate) mod guard;
mod health;
mod imports;

use std::future::IntoFuture as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Router, body::Body};
use serde::Serialize;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use error::ApiError;

use crate::config::Secret;
use crate::import::ConfiguredFeeds;
use crate::metrics::{self, Metrics};
use crate::pipeline::Queues;
use crate::pulse::Pulse;
use crate::store::Store;

/// Longest time from the head of a request to its answer. Redis and MongoDB give up earlier, so what runs into it is a
/// client that does not send its body. It is also what open requests get when the process ends.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(20);
/// Largest body of a request.
const BODY_BYTES_MAX: usize = 1024 * 1024;

/// What the routes work with.
#[derive(Debug)]
pub struct App {
    queues: Queues,
    store: Store,
    feeds: ConfiguredFeeds,
    pulse: Pulse,
    token: Option<Secret>,
    metrics: Option<Metrics>,
    /// Starts of imports under way: each goes on to its end when its client hangs up, or imports would be open without
    /// a fetch job.
    starts: TaskTracker,
}

/// Why an address cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BindError {
    /// Other machines could reach it, and nothing would keep them out.
    #[error(
        "refusing to listen on {listen} without a token: other machines could reach it; set FEEDMILL_TOKEN, or listen \
         on 127.0.0.1"
    )]
    Unguarded {
        /// That address.
        listen: SocketAddr,
    },
    /// The system refuses it: it is taken, or not ours.
    #[error("cannot listen on {listen}; choose another address with --listen, FEEDMILL_LISTEN or http.listen")]
    Refused {
        /// That address.
        listen: SocketAddr,
        /// What the system says.
        #[source]
        cause: std::io::Error,
    },
}

/// Begins to listen. Clients are answered once [`serve`] runs.
///
/// # Errors
/// [`BindError::Unguarded`] beyond loopback without a token; [`BindError::Refused`] when the system refuses the address.
pub async fn bind(listen: SocketAddr, token: Option<&Secret>) -> Result<TcpListener, BindError> {
    if token.is_none() && !listen.ip().to_canonical().is_loopback() {
        return Err(BindError::Unguarded { listen });
    }
    TcpListener::bind(listen).await.map_err(|cause| BindError::Refused { listen, cause })
}

impl App {
    /// `token` is what clients must show; without one everybody on this machine may ask.
    pub fn new(queues: Queues, store: Store, feeds: ConfiguredFeeds, pulse: Pulse, token: Option<Secret>) -> Self {
        Self { queues, store, feeds, pulse, token, metrics: None, starts: TaskTracker::new() }
    }

    /// Answers `/metrics` with these.
    #[must_use]
    pub fn with_metrics(self, metrics: Metrics) -> Self {
        Self { metrics: Some(metrics), ..self }
    }
}

/// Answers requests until `shutdown`; then takes no more, and ends once those that are open are answered, at most 20 s
/// later.
pub async fn serve(listener: TcpListener, app: App, shutdown: CancellationToken) {
    let app = Arc::new(app);
    serve_routes(listener, routes(app.clone()), shutdown).await;
    app.starts.close();
    app.starts.wait().await;
}

/// All routes. What a client needs the token for goes to `guarded`.
fn routes(app: Arc<App>) -> Router {
    let open = Router::new()
        .route("/healthz", get(health::live))
        .route("/readyz", get(health::ready))
        .method_not_allowed_fallback(async || ApiError::Method);
    let guarded = Router::new()
        .route("/imports/start", post(imports::start))
        .route("/imports", get(imports::list))
        .route("/imports/{id}", get(imports::show))
        .route("/metrics", get(exported))
        .fallback(async || ApiError::NoRoute)
        .method_not_allowed_fallback(async || ApiError::Method)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(middleware::from_fn_with_state(app.clone(), guard::check));
    open.merge(guarded).layer(middleware::from_fn(limit_time)).with_state(app)
}

/// As [`serve`], for any routes.
pub async fn serve_routes(listener: TcpListener, routes: Router, shutdown: CancellationToken) {
    if let Ok(address) = listener.local_addr() {
        tracing::info!(%address, "listening on http://{address}");
    }
    let grace_is_over = async {
        shutdown.cancelled().await;
        tokio::time::sleep(REQUEST_TIMEOUT).await;
    };
    let serving = axum::serve(listener, routes).with_graceful_shutdown(shutdown.clone().cancelled_owned());
    tokio::select! {
        served = serving.into_future() => {
            if let Err(error) = served {
                tracing::error!(%error, "HTTP ends");
            }
        }
        () = grace_is_over => tracing::warn!("requests still open after {REQUEST_TIMEOUT:?} are cut off"),
    }
}

/// `GET /metrics`, in Prometheus' text format.
async fn exported(State(app): AppState) -> Result<impl IntoResponse, ApiError> {
    let metrics = app.metrics.as_ref().ok_or(ApiError::NoRoute)?;
    Ok(([(header::CONTENT_TYPE, metrics::server::CONTENT_TYPE)], metrics.render().await))
}

async fn limit_time(request: Request, next: Next) -> Response {
    let answer = tokio::time::timeout(REQUEST_TIMEOUT, next.run(request)).await;
    answer.unwrap_or_else(|_| ApiError::Timeout(REQUEST_TIMEOUT).into_response())
}

/// An answer in JSON. It is true at this moment only, so nobody may keep it.
fn json(status: StatusCode, body: &impl Serialize) -> Response {
    let bytes = serde_json::to_vec(body).expect("what is answered is strings, numbers and lists");
    let mut response = Response::new(Body::from(bytes));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// The state of a handler.
type AppState = State<Arc<App>>;
