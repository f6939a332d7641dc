//! A request for a page, the addresses of others, and the frame that every page stands in.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Uri, header};
use axum::response::{Html, IntoResponse as _, Response};
use maud::{DOCTYPE, Markup, html};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, percent_encode};

use super::view::number;
use super::{ROOT, asset_version};
use crate::http::api::{Params, path_parts};
use crate::http::guard::{self, Viewer};
use crate::http::{ApiError, App};
use crate::job::JobId;
use crate::queue::QueueError;

/// Name of the cookie that carries what an action came to, to the page behind it.
const SAID_COOKIE: &str = "feedmill_said";
/// Characters of it.
const SAID_CHARS_MAX: usize = 600;
/// Characters that stand in a part of a path as they are.
pub(super) const PART: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// A request for a page: who looks, where, and what the last action came to.
#[derive(Debug)]
pub(super) struct Page {
    pub(super) app: Arc<App>,
    pub(super) viewer: Viewer,
    pub(super) params: Params,
    pub(super) path: Vec<Vec<u8>>,
    /// What `id` behind the `?` says; nothing when it is not there.
    pub(super) id: Vec<u8>,
    pub(super) said: Option<String>,
}

impl FromRequestParts<Arc<App>> for Page {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, ApiError> {
        let viewer = parts.extensions.get::<Viewer>().cloned().unwrap_or(Viewer { session: None });
        let said = guard::cookie(&parts.headers, SAID_COOKIE).filter(|said| !said.is_empty());
        let said = said.map(|said| percent_decode_str(said).decode_utf8_lossy().into_owned());
        Ok(Self::of(app.clone(), viewer, &parts.uri, said))
    }
}

impl Page {
    pub(super) fn of(app: Arc<App>, viewer: Viewer, uri: &Uri, said: Option<String>) -> Self {
        let mut pairs = uri.query().unwrap_or_default().split('&');
        let id = pairs.find_map(|pair| pair.strip_prefix("id=")).unwrap_or_default();
        let id = percent_decode_str(id).collect();
        Self { app, viewer, params: Params::of(uri), path: path_parts(uri), id, said }
    }

    /// The address of a page: `rest` is what stands behind [`ROOT`].
    pub(super) fn url(&self, rest: &str) -> String {
        format!("{}{ROOT}{rest}", self.app.options.base_path)
    }

    pub(super) fn queue_url(&self, queue: &str) -> String {
        self.url(&format!("/queue/{queue}"))
    }

    pub(super) fn job_url(&self, queue: &str, id: &JobId) -> String {
        self.with_id(&format!("/queue/{queue}/job"), id.as_bytes())
    }

    pub(super) fn edit_url(&self, queue: &str, id: &JobId) -> String {
        self.with_id(&format!("/queue/{queue}/job/edit"), id.as_bytes())
    }

    pub(super) fn scheduler_url(&self, queue: &str, id: &str) -> String {
        self.with_id(&format!("/queue/{queue}/scheduler"), id.as_bytes())
    }

    pub(super) fn feed_url(&self, feed: &str) -> String {
        self.url(&format!("/feeds/{}", percent_encode(feed.as_bytes(), PART)))
    }

    /// A page with parameters; those that are empty are left out.
    #[expect(clippy::unused_self, reason = "so that addresses are made in one way")]
    pub(super) fn with_params(&self, path: &str, params: &[(&str, &str)]) -> String {
        let given = params.iter().filter(|(_, value)| !value.is_empty());
        let query = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(given).finish();
        if query.is_empty() { path.to_owned() } else { format!("{path}?{query}") }
    }

    /// A part of the path as text, counted from that behind [`ROOT`].
    pub(super) fn part(&self, at: usize) -> String {
        self.path.get(at + 2).map_or_else(String::new, |part| String::from_utf8_lossy(part).into_owned())
    }

    /// The address of something that is known by an id. An id may be any bytes, and mostly has an address in it; it stands
    /// behind the `?`, because proxies change paths: `%2F` becomes `/` in them, and `//` becomes `/`.
    fn with_id(&self, rest: &str, id: &[u8]) -> String {
        format!("{}?id={}", self.url(rest), percent_encode(id, PART))
    }

    /// The id behind the `?`, as text.
    pub(super) fn id(&self) -> String {
        String::from_utf8_lossy(&self.id).into_owned()
    }

    /// The id behind the `?`, of a job.
    pub(super) fn job_id(&self) -> Result<JobId, ApiError> {
        Ok(JobId::new(&self.id).map_err(QueueError::from)?)
    }

    /// Whether this viewer may change something.
    pub(super) fn may_act(&self) -> bool {
        !self.app.is_read_only
    }

    /// What every form carries.
    pub(super) fn form_token(&self) -> Markup {
        html! { input type="hidden" name="form_token" value=(self.app.sessions.form_token(self.viewer.session.as_ref())); }
    }

    /// A form with one button.
    pub(super) fn button(&self, action: &str, (name, value): (&str, &str), text: &str, class: &str) -> Markup {
        html! {
            form method="post" action=(action) {
                (self.form_token())
                button.(class) name=(name) value=(value) { (text) }
            }
        }
    }

    /// The whole page; `here` is the entry of the navigation it belongs to.
    pub(super) fn shell(&self, title: &str, here: &str, body: &Markup) -> Response {
        self.shell_for(title, here, body, true)
    }

    pub(super) fn shell_for(&self, title: &str, here: &str, body: &Markup, is_in: bool) -> Response {
        let version = asset_version();
        let asset = |name: &str| self.url(&format!("/assets/{name}?v={version}"));
        let running = self.app.operations.running();
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

pub(super) fn said_cookie(app: &App, said: &str, age_s: u32) -> String {
    let said: String = said.chars().take(SAID_CHARS_MAX).collect();
    let (said, path) = (percent_encode(said.as_bytes(), PART), cookie_path(app));
    format!("{SAID_COOKIE}={said}; Path={path}; Max-Age={age_s}; HttpOnly; SameSite=Strict")
}

pub(super) fn cookie_path(app: &App) -> String {
    let base = &app.options.base_path;
    if base.is_empty() { "/".to_owned() } else { base.clone() }
}

pub(super) fn set_cookie(headers: &mut HeaderMap, cookie: &str) {
    if let Ok(cookie) = HeaderValue::from_str(cookie) {
        headers.append(header::SET_COOKIE, cookie);
    }
}

/// A number of a queue that moves while somebody looks.
pub(super) fn live_count(queue: &str, state: &str, count: u64) -> Markup {
    html! { span data-count=(format!("{queue}/{state}")) { (number(count)) } }
}
