//! The HTTP server of processes that have no other: `GET /metrics`, in `worker` and `schedule`.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio_util::task::AbortOnDropHandle;

use super::Metrics;
use crate::http::guard;
use crate::secret::Secret;

/// Content type of the answer.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Why the server does not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServerError {
    /// Everybody on the network could read along.
    #[error("metrics on {address}, beyond this host, need a token: set FEEDMILL_TOKEN, or listen on 127.0.0.1")]
    NoToken {
        /// Where it was to listen.
        address: SocketAddr,
    },
    /// The address is taken, or not of this host.
    #[error("cannot listen on {address} for metrics; set FEEDMILL_METRICS_LISTEN to a free address")]
    Listen {
        /// Where it was to listen.
        address: SocketAddr,
        /// Why not.
        #[source]
        cause: std::io::Error,
    },
}

/// A server at work; it ends when it is dropped.
#[derive(Debug)]
pub struct Server {
    /// Where it listens.
    pub address: SocketAddr,
    _task: AbortOnDropHandle<()>,
}

struct Served {
    metrics: Metrics,
    token: Option<Secret>,
}

impl Server {
    /// Listens, and answers until it is dropped; an answer that is under way is not waited for.
    ///
    /// With a token, requests must bring it (`Authorization: Bearer …`).
    ///
    /// # Errors
    /// [`ServerError`].
    pub async fn start(address: SocketAddr, metrics: Metrics, token: Option<Secret>) -> Result<Self, ServerError> {
        if token.is_none() && !address.ip().to_canonical().is_loopback() {
            return Err(ServerError::NoToken { address });
        }
        let failed = |cause| ServerError::Listen { address, cause };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let router = Router::new().route("/metrics", get(answer)).with_state(Arc::new(Served { metrics, token }));
        let task = tokio::spawn(async move {
            // `serve` never ends: it waits and tries again when a connection cannot be accepted.
            let _ = axum::serve(listener, router).await;
        });
        tracing::info!(%address, "metrics on http://{address}/metrics");
        Ok(Self { address, _task: AbortOnDropHandle::new(task) })
    }
}

async fn answer(State(served): State<Arc<Served>>, headers: HeaderMap) -> Response {
    if let Some(token) = &served.token
        && !guard::shows(&headers, token)
    {
        return (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, "Bearer")], "a token is needed\n")
            .into_response();
    }
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], served.metrics.render().await).into_response()
}
