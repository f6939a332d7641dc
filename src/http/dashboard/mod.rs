//! The dashboard at `/admin/queues`: pages made on the server, forms that change something, and a small script.
//!
//! ```text
//!   overview · queue · job · dead · feeds · imports · schedulers · workers · operations · health      GET: pages
//!   forms.rs                                                                          POST: actions, then back to a page
//!   view.rs (numbers, times, charts, JSON) · assets/ (style, script, icon: compiled in)
//! ```
//!
//! All of it is escaped by maud, since feeds may say anything, and the policy of every answer lets the browser run nothing
//! but our script and load nothing from elsewhere. Everything can be read without the script.

mod about_feeds;
mod about_jobs;
mod about_queues;
mod forms;
mod view;

use std::sync::Arc;

use axum::Router;
use axum::extract::{FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{Html, IntoResponse as _, Response};
use axum::routing::{get, post};
use maud::{DOCTYPE, Markup, html};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, percent_encode};

use self::view::number;
use super::api::{Params, path_parts};
use super::error::Failure;
use super::guard::{self, Viewer};
use super::{ApiError, App, AppState};
use crate::job::JobId;
use crate::queue::QueueError;

/// Where the dashboard is, behind the base path.
pub(super) const ROOT: &str = "/admin/queues";
/// Name of the cookie that carries what an action came to, to the page behind it.
const SAID_COOKIE: &str = "feedmill_said";
/// Characters of it.
const SAID_CHARS_MAX: usize = 600;
/// What the browser may do with an answer.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      form-action 'self'; base-uri 'none'; frame-ancestors 'none'";
/// Characters that stand in a part of a path as they are.
const PART: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

const STYLE: &str = include_str!("assets/style.css");
const SCRIPT: &str = include_str!("assets/script.js");
const ICON: &str = include_str!("assets/icon.svg");

/// Pages and forms.
pub(super) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/admin/queues", get(about_queues::overview))
        .route("/admin/queues/", get(about_queues::overview))
        .route("/admin/queues/queue/{queue}", get(about_queues::queue).post(forms::queue))
        .route("/admin/queues/queue/{queue}/add", get(about_jobs::add))
        .route("/admin/queues/queue/{queue}/dead", get(about_queues::dead))
        .route("/admin/queues/queue/{queue}/job/{id}", get(about_jobs::job).post(forms::job))
        .route("/admin/queues/queue/{queue}/job/{id}/edit", get(about_jobs::edit))
        .route("/admin/queues/feeds", get(about_feeds::feeds))
        .route("/admin/queues/feeds/{feed}", get(about_feeds::feed).post(forms::feed))
        .route("/admin/queues/imports", get(about_feeds::imports))
        .route("/admin/queues/imports/{import}", get(about_feeds::import))
        .route("/admin/queues/document", get(about_feeds::document))
        .route("/admin/queues/schedulers", get(about_queues::schedulers).post(forms::scheduler))
        .route("/admin/queues/workers", get(about_queues::workers))
        .route("/admin/queues/operations", get(about_queues::operations))
        .route("/admin/queues/operations/{operation}", get(about_queues::operation).post(forms::operation))
        .route("/admin/queues/health", get(about_queues::health))
        .route("/admin/queues/logout", post(forms::logout))
}

/// What is shown to everybody: the way in, and what it looks like.
pub(super) fn entry() -> Router<Arc<App>> {
    Router::new()
        .route("/admin/queues/login", get(forms::login_page).post(forms::login))
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
        let page = Page { app, viewer, params: Params::of(&uri), path: path_parts(&uri), said: None };
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

/// A request for a page: who looks, where, and what the last action came to.
#[derive(Debug)]
struct Page {
    app: Arc<App>,
    viewer: Viewer,
    params: Params,
    path: Vec<Vec<u8>>,
    said: Option<String>,
}

impl FromRequestParts<Arc<App>> for Page {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, ApiError> {
        let viewer = parts.extensions.get::<Viewer>().cloned().unwrap_or(Viewer { session: None });
        let said = guard::cookie(&parts.headers, SAID_COOKIE).filter(|said| !said.is_empty());
        let said = said.map(|said| percent_decode_str(said).decode_utf8_lossy().into_owned());
        Ok(Self { app: app.clone(), viewer, params: Params::of(&parts.uri), path: path_parts(&parts.uri), said })
    }
}

impl Page {
    /// The address of a page: `rest` is what stands behind [`ROOT`].
    fn url(&self, rest: &str) -> String {
        format!("{}{ROOT}{rest}", self.app.options.base_path)
    }

    fn queue_url(&self, queue: &str) -> String {
        self.url(&format!("/queue/{queue}"))
    }

    fn job_url(&self, queue: &str, id: &JobId) -> String {
        self.url(&format!("/queue/{queue}/job/{}", percent_encode(id.as_bytes(), PART)))
    }

    fn feed_url(&self, feed: &str) -> String {
        self.url(&format!("/feeds/{}", percent_encode(feed.as_bytes(), PART)))
    }

    /// A page with parameters; those that are empty are left out.
    #[expect(clippy::unused_self, reason = "so that addresses are made in one way")]
    fn with_params(&self, path: &str, params: &[(&str, &str)]) -> String {
        let given = params.iter().filter(|(_, value)| !value.is_empty());
        let query = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(given).finish();
        if query.is_empty() { path.to_owned() } else { format!("{path}?{query}") }
    }

    /// A part of the path as text, counted from that behind [`ROOT`].
    fn part(&self, at: usize) -> String {
        self.path.get(at + 2).map_or_else(String::new, |part| String::from_utf8_lossy(part).into_owned())
    }

    /// The id in `/queue/{queue}/job/{id}`.
    fn job_id(&self) -> Result<JobId, ApiError> {
        let id = self.path.get(5).map_or(&[][..], Vec::as_slice);
        Ok(JobId::new(id).map_err(QueueError::from)?)
    }

    /// Whether this viewer may change something.
    fn may_act(&self) -> bool {
        !self.app.is_read_only
    }

    /// What every form carries.
    fn form_token(&self) -> Markup {
        html! { input type="hidden" name="form_token" value=(self.app.sessions.form_token(self.viewer.session.as_ref())); }
    }

    /// A form with one button.
    fn button(&self, action: &str, (name, value): (&str, &str), text: &str, class: &str) -> Markup {
        html! {
            form method="post" action=(action) {
                (self.form_token())
                button.(class) name=(name) value=(value) { (text) }
            }
        }
    }

    /// The whole page; `here` is the entry of the navigation it belongs to.
    fn shell(&self, title: &str, here: &str, body: &Markup) -> Response {
        self.shell_for(title, here, body, true)
    }

    fn shell_for(&self, title: &str, here: &str, body: &Markup, is_in: bool) -> Response {
        let version = asset_version();
        let asset = |name: &str| self.url(&format!("/assets/{name}?v={version}"));
        let running = self.app.operations.all().iter().filter(|one| one.progress().ended_at.is_none()).count();
        let links = [
            ("overview", "", "Overview"),
            ("feeds", "/feeds", "Feeds"),
            ("imports", "/imports", "Imports"),
            ("schedulers", "/schedulers", "Schedulers"),
            ("workers", "/workers", "Workers"),
            ("operations", "/operations", "Operations"),
            ("health", "/health", "Health"),
        ];
        let news = is_in.then(|| format!("{}/api/live", self.app.options.base_path));
        let page = html! {
            (DOCTYPE)
            html lang="en" {
                head {
                    meta charset="utf-8";
                    meta name="viewport" content="width=device-width, initial-scale=1";
                    meta name="color-scheme" content="light dark";
                    title { (title) " · feedmill" }
                    link rel="icon" href=(asset("icon.svg")) type="image/svg+xml";
                    link rel="stylesheet" href=(asset("style.css"));
                    script src=(asset("script.js")) {}
                }
                body data-news=[news] {
                    a.skip href="#main" { "Skip to the content" }
                    @if is_in {
                        div.frame {
                            header.side {
                                a.brand href=(self.url("")) {
                                    svg viewBox="0 0 32 32" aria-hidden="true" {
                                        rect width="32" height="32" rx="7" fill="#1f5fbf" {}
                                        path d="M8 9a15 15 0 0 1 15 15M8 16a8 8 0 0 1 8 8" fill="none" stroke="#fff" stroke-width="3" stroke-linecap="round" {}
                                        circle cx="9" cy="23" r="2.6" fill="#fff" {}
                                    }
                                    "feedmill"
                                }
                                nav aria-label="Pages" {
                                    ul {
                                        @for (name, path, text) in links {
                                            li {
                                                a href=(self.url(path)) aria-current=[(name == here).then_some("page")] {
                                                    (text)
                                                    @if name == "operations" && running > 0 { span.badge.warn { (running) } }
                                                }
                                            }
                                        }
                                    }
                                }
                                div.foot {
                                    span.live data-live="" { span { "not live" } }
                                    @if !self.may_act() { span { span.badge.warn { "read-only" } } }
                                    button.script type="button" data-theme-button="" { "Theme: auto" }
                                    @if self.viewer.session.is_some() {
                                        (self.button(&self.url("/logout"), ("do", "logout"), "Log out", ""))
                                    }
                                    span.about.dim { "feedmill " (env!("CARGO_PKG_VERSION")) }
                                }
                            }
                            main #main tabindex="-1" {
                                @if let Some(said) = &self.said {
                                    div.panel.said role="status" { (said) }
                                }
                                (body)
                            }
                        }
                    } @else {
                        main.login #main { (body) }
                    }
                }
            }
        };
        let mut response = Html(page.into_string()).into_response();
        if self.said.is_some() {
            set_cookie(response.headers_mut(), &said_cookie(&self.app, "", 0));
        }
        response
    }
}

fn said_cookie(app: &App, said: &str, age_s: u32) -> String {
    let said: String = said.chars().take(SAID_CHARS_MAX).collect();
    let (said, path) = (percent_encode(said.as_bytes(), PART), cookie_path(app));
    format!("{SAID_COOKIE}={said}; Path={path}; Max-Age={age_s}; HttpOnly; SameSite=Strict")
}

fn cookie_path(app: &App) -> String {
    let base = &app.options.base_path;
    if base.is_empty() { "/".to_owned() } else { base.clone() }
}

fn set_cookie(headers: &mut HeaderMap, cookie: &str) {
    if let Ok(cookie) = HeaderValue::from_str(cookie) {
        headers.append(header::SET_COOKIE, cookie);
    }
}

/// A number of a queue that moves while somebody looks.
fn live_count(queue: &str, state: &str, count: u64) -> Markup {
    html! { span data-count=(format!("{queue}/{state}")) { (number(count)) } }
}
