//! HTTP: what a web backend, a browser and a supervisor ask of feedmill.
//!
//! ```text
//!   health.rs    GET /healthz · /readyz                                for everybody
//!   dashboard/   /admin/queues: pages and forms    ┐
//!   api/         /api: the same as JSON            ├─ behind guard.rs, with a token or a session (session.rs)
//!   imports.rs   POST /imports/start · GET /imports┘
//!
//!   pages, api ──▶ actions.rs, operations.rs, schedulers.rs (what changes something)
//!              ──▶ readings.rs, dead_groups.rs, feeds.rs, health_facts.rs (what is read) ──▶ live.rs (what all share)
//! ```
//!
//! [`bind`] takes an address, [`serve`] answers on it until it is told to end. `guard.rs` decides who may ask, `error.rs`
//! says what went wrong: every error is `{"code": …, "detail": …}`, and a page where pages are asked for. Nothing here fetches
//! a feed or waits for one.

mod error;
pub(crate) mod guard;
mod session;
mod health;
mod imports;
mod live;
mod readings;
mod dead_groups;
mod feeds;
mod health_facts;
mod actions;
mod operations;
mod schedulers;
mod api;
mod dashboard;

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

use self::dead_groups::DeadScans;
use self::live::{News, Shared};
use self::operations::Operations;
use self::session::Sessions;
use crate::config::{Config, Secret};
use crate::import::{ConfiguredFeeds, Grouping};
use crate::metrics::{self, Metrics};
use crate::pipeline::{self, Queues};
use crate::pulse::Pulse;
use crate::queue::inspect::InspectOptions;
use crate::store::Store;

/// Longest time from the head of a request to its answer. Redis and MongoDB give up earlier, so what runs into it is a
/// client that does not send its body. It is also what open requests get when the process ends.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(20);
/// Largest body of a request.
const BODY_BYTES_MAX: usize = 1024 * 1024;

/// Largest body of what may carry a payload, which is up to three times as long in a form.
const FORM_BYTES_MAX: usize = 4 * BODY_BYTES_MAX;

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
    sessions: Sessions,
    shared: Shared,
    news: News,
    operations: Operations,
    dead_scans: DeadScans,
    options: HttpOptions,
    is_read_only: bool,
    started_at: jiff::Timestamp,
    /// Ends streams and operations with the process.
    shutdown: CancellationToken,
}

/// What the routes are told by the configuration.
#[derive(Clone, Debug, Default)]
pub struct HttpOptions {
    /// Path under which a proxy shows them; see `http.base_path`.
    pub base_path: String,
    /// Whether nothing can be changed.
    pub read_only: bool,
    /// Largest payload of the import queue, and of the fetch queue, in bytes.
    pub payload_max_bytes: [usize; 2],
    /// What items are grouped by.
    pub grouping: Grouping,
    /// Name of the configuration file, for what can only be changed there.
    pub config_file: String,
    /// The lease of the workers of the import queue, by which its entries are judged, and of the fetch queue.
    pub inspect: [InspectOptions; 2],
}

impl HttpOptions {
    /// As the configuration has it; `read_only` may ask for more than that.
    pub fn new(config: &Config, read_only: bool) -> Self {
        let name = config.file.as_ref().and_then(|file| file.file_name());
        let file = name.map(|name| name.to_string_lossy().into_owned());
        Self {
            base_path: config.http.base_path.clone(),
            read_only: config.http.read_only || read_only,
            payload_max_bytes: [config.import_queue.payload_max_bytes, config.fetch_queue.payload_max_bytes],
            grouping: pipeline::grouping(&config.import_queue).unwrap_or_default(),
            config_file: file.unwrap_or_else(|| "streams.toml".to_owned()),
            inspect: [&config.import_queue, &config.fetch_queue].map(|queue| InspectOptions {
                lock_duration: queue.lock_duration,
                stalled_interval: queue.stalled_interval,
                ..InspectOptions::default()
            }),
        }
    }
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
        Self {
            sessions: Sessions::new(token.as_ref()),
            queues,
            store,
            feeds,
            pulse,
            token,
            metrics: None,
            starts: TaskTracker::new(),
            shared: Shared::default(),
            news: News::default(),
            operations: Operations::default(),
            dead_scans: DeadScans::default(),
            options: HttpOptions { payload_max_bytes: [BODY_BYTES_MAX; 2], ..HttpOptions::default() },
            is_read_only: false,
            started_at: jiff::Timestamp::now(),
            shutdown: CancellationToken::new(),
        }
    }

    /// With what the configuration says.
    #[must_use]
    pub fn with_options(self, options: HttpOptions) -> Self {
        Self { is_read_only: options.read_only, options, ..self }
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
    let app = Arc::new(App { shutdown: shutdown.clone(), ..app });
    let (queues, snapshot) = ([app.queues.import.clone(), app.queues.fetch.clone()], || readings::snapshot(&app));
    tokio::join!(
        serve_routes(listener, routes(app.clone()), shutdown.clone()),
        app.news.run(&queues, snapshot, &shutdown)
    );
    app.starts.close();
    app.starts.wait().await;
}

/// All routes, at the root and under the base path.
fn routes(app: Arc<App>) -> Router {
    let all = own_routes(&app);
    let base = app.options.base_path.as_str();
    // A proxy may take the path away before it passes a request on, or leave it.
    let all = if base.is_empty() { all } else { all.clone().nest(base, all) };
    all.with_state(app)
}

/// What a client needs the token for goes to `guarded`.
fn own_routes(app: &Arc<App>) -> Router<Arc<App>> {
    let open = Router::new()
        .route("/healthz", get(health::live))
        .route("/readyz", get(health::ready))
        .method_not_allowed_fallback(async || ApiError::Method);
    let entry = dashboard::entry()
        .method_not_allowed_fallback(async || ApiError::Method)
        .layer(middleware::from_fn_with_state(app.clone(), guard::check_entry));
    let guarded = Router::new()
        .route("/imports/start", post(imports::start))
        .route("/imports", get(imports::list))
        .route("/imports/{id}", get(imports::show))
        .route("/metrics", get(exported))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .merge(
            Router::new().merge(api::routes()).merge(dashboard::routes()).layer(DefaultBodyLimit::max(FORM_BYTES_MAX)),
        )
        .fallback(async || ApiError::NoRoute)
        .method_not_allowed_fallback(async || ApiError::Method)
        .layer(middleware::from_fn_with_state(app.clone(), guard::check));
    let pages = middleware::from_fn_with_state(app.clone(), dashboard::as_page);
    open.merge(entry).merge(guarded).layer(pages).layer(middleware::from_fn(limit_time))
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
