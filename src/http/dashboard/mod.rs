//! The dashboard at `/admin/queues`: pages made on the server, forms that change something, and a small script.
//!
//! ```text
//!   GET   overview · queue (job_table) · dead_letters · job (job_forms) · feeds · imports · document ·
//!         schedulers · scheduler · workers · operations · health          a page each, in the frame of page.rs
//!   POST  forms.rs · login.rs                                 actions, then back to a page
//!         view.rs (numbers, times, charts, JSON) · assets/ (style, script, icon: compiled in)
//! ```
//!
//! All of it is escaped by maud, since feeds may say anything, and the policy of every answer lets the browser run nothing
//! but our script and load nothing from elsewhere. Everything can be read without the script.

mod dead_letters;
mod document;
mod feeds;
mod forms;
mod health;
mod imports;
mod job;
mod job_forms;
mod job_table;
mod login;
mod operations;
mod overview;
mod page;
mod queue;
mod scheduler;
mod schedulers;
mod view;
mod workers;

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use maud::html;
use percent_encoding::percent_encode;

use self::page::{PART, Page};
use super::error::Failure;
use super::guard::Viewer;
use super::{App, AppState};

/// Where the dashboard is, behind the base path.
pub(super) const ROOT: &str = "/admin/queues";
/// What the browser may do with an answer.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

const STYLE: &str = include_str!("assets/style.css");
const SCRIPT: &str = include_str!("assets/script.js");
const ICON: &str = include_str!("assets/icon.svg");

/// Pages and forms.
pub(super) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/admin/queues", get(overview::show).post(forms::all_queues))
        .route("/admin/queues/", get(overview::show))
        .route("/admin/queues/queue/{queue}", get(queue::show).post(forms::queue))
        .route("/admin/queues/queue/{queue}/add", get(job_forms::add))
        .route("/admin/queues/queue/{queue}/dead", get(dead_letters::show))
        .route("/admin/queues/queue/{queue}/job", get(job::show).post(forms::job))
        .route("/admin/queues/queue/{queue}/job/edit", get(job_forms::edit))
        .route("/admin/queues/feeds", get(feeds::list))
        .route("/admin/queues/feeds/{feed}", get(feeds::show).post(forms::feed))
        .route("/admin/queues/imports", get(imports::list))
        .route("/admin/queues/imports/{import}", get(imports::show))
        .route("/admin/queues/document", get(document::show))
        .route("/admin/queues/queue/{queue}/scheduler", get(scheduler::show).post(forms::scheduler))
        .route("/admin/queues/schedulers", get(schedulers::list))
        .route("/admin/queues/schedulers/add", get(scheduler::add).post(forms::add_scheduler))
        .route("/admin/queues/workers", get(workers::list))
        .route("/admin/queues/operations", get(operations::list))
        .route("/admin/queues/operations/{operation}", get(operations::show).post(forms::operation))
        .route("/admin/queues/health", get(health::show))
        .route("/admin/queues/logout", post(login::logout))
}

/// What is shown to everybody: the way in, and what it looks like.
pub(super) fn entry() -> Router<Arc<App>> {
    Router::new()
        .route("/admin/queues/login", get(login::page).post(login::login))
        .route("/admin/queues/assets/style.css", get(async || asset("text/css; charset=utf-8", STYLE)))
        .route("/admin/queues/assets/script.js", get(async || asset("text/javascript; charset=utf-8", SCRIPT)))
        .route("/admin/queues/assets/icon.svg", get(async || asset("image/svg+xml", ICON)))
}

fn asset(content_type: &'static str, text: &'static str) -> Response {
    let headers =
        [(header::CONTENT_TYPE, content_type), (header::CACHE_CONTROL, "public, max-age=31536000, immutable")];
    (headers, text).into_response()
}

/// Changes with what is compiled in, so that an asset may be kept for ever.
fn asset_version() -> String {
    let all = [STYLE, SCRIPT, ICON].concat();
    format!("{:08x}", xxhash_rust::xxh3::xxh3_64(all.as_bytes()) as u32)
}

/// Whether a path is of the dashboard.
pub(super) fn is_page(path: &str) -> bool {
    path.strip_prefix(ROOT).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Leads somebody without a session to the login, and back afterwards.
pub(super) fn to_login(app: &App, uri: &Uri) -> Response {
    let wanted = uri.path_and_query().map_or(ROOT, |wanted| wanted.as_str());
    let next = percent_encode(wanted.as_bytes(), PART);
    see_other(&format!("{}{ROOT}/login?next={next}", app.options.base_path))
}

fn see_other(to: &str) -> Response {
    let location = HeaderValue::from_str(to).unwrap_or(HeaderValue::from_static(ROOT));
    (StatusCode::SEE_OTHER, [(header::LOCATION, location)]).into_response()
}

/// Gives every answer of the dashboard its headers, and failed ones a page.
pub(super) async fn as_page(State(app): AppState, request: Request, next: Next) -> Response {
    if !is_page(request.uri().path()) {
        return next.run(request).await;
    }
    let viewer = request.extensions().get::<Viewer>().cloned();
    let uri = request.uri().clone();
    let mut response = next.run(request).await;
    if let Some(Failure { detail, is_stranger }) = response.extensions().get::<Failure>().cloned() {
        let status = response.status();
        let viewer = viewer.unwrap_or(Viewer { session: None });
        let page = Page::of(app, viewer, &uri, None);
        let body = html! {
            div.head { h1 { (status.canonical_reason().unwrap_or("It did not work")) } }
            div.panel.problem role="alert" { p { (detail) } }
            p { a href=(page.url("")) { "To the overview" } }
        };
        response = page.shell_for("Error", "", &body, !is_stranger);
        *response.status_mut() = status;
    }
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("same-origin"));
    headers.insert("cross-origin-opener-policy", HeaderValue::from_static("same-origin"));
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}
