//! The way in and out: a form for the token, and the cookie of a session.

use std::time::{Duration, SystemTime};

use axum::http::{HeaderMap, header};
use axum::response::Response;
use maud::html;
use subtle::ConstantTimeEq as _;

use super::forms::Form;
use super::page::{Page, cookie_path, set_cookie};
use super::{ROOT, is_page, see_other};
use crate::http::{ApiError, session};

/// How long a wrong token is thought about: whoever tries many waits long.
const WRONG_TOKEN_PAUSE: Duration = Duration::from_millis(500);

/// The way in.
pub(super) async fn page(page: Page) -> Response {
    if page.app.token.is_none() || page.viewer.session.is_some() {
        return see_other(&page.url(""));
    }
    login_form(&page, None)
}

fn login_form(page: &Page, problem: Option<&str>) -> Response {
    let body = html! {
        div.panel {
            form.stack method="post" action=(page.url("/login")) {
                h1 { "feedmill" }
                @if let Some(problem) = problem { p.bad role="alert" { (problem) } }
                (page.form_token())
                input type="hidden" name="next" value=(page.params.text("next").unwrap_or_default());
                label { "Token"
                    input type="password" name="token" autocomplete="current-password" required autofocus;
                }
                button.main { "Log in" }
                p.dim { "It is what this feedmill was started with as " code { "FEEDMILL_TOKEN" } "." }
            }
        }
    };
    page.shell_for("Log in", "", &body, false)
}

pub(super) async fn login(form: Form) -> Result<Response, ApiError> {
    let app = form.page.app.clone();
    let token = app.token.as_ref().ok_or(ApiError::NoRoute)?;
    let shown = form.text("token").unwrap_or_default();
    if !bool::from(shown.trim().as_bytes().ct_eq(token.expose().as_bytes())) {
        tokio::time::sleep(WRONG_TOKEN_PAUSE).await;
        tracing::warn!(audit = true, "a login failed: another token");
        let mut response = login_form(&form.page, Some("That is not the token."));
        *response.status_mut() = axum::http::StatusCode::UNAUTHORIZED;
        return Ok(response);
    }
    let (cookie, session) = app.sessions.begin(SystemTime::now());
    tracing::info!(audit = true, session = session.nonce, "session {} begins", session.nonce);
    let next = form.text("next").unwrap_or_default();
    let is_ours = next.starts_with(ROOT)
        && is_page(next.split(['?', '#']).next().unwrap_or_default())
        && next.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\');
    let to = if is_ours { format!("{}{next}", app.options.base_path) } else { form.page.url("") };
    let mut response = see_other(&to);
    let secure = if form.is_https { "; Secure" } else { "" };
    let (name, path, age) = (session::COOKIE, cookie_path(&app), session::LIFETIME.as_secs());
    set_cookie(
        response.headers_mut(),
        &format!("{name}={cookie}; Path={path}; Max-Age={age}; HttpOnly; SameSite=Strict{secure}"),
    );
    Ok(response)
}

/// The way out. A session that Redis cannot be told of goes on, and the browser keeps its cookie, so that it can be tried
/// again.
pub(super) async fn logout(form: Form) -> Result<Response, ApiError> {
    let app = &form.page.app;
    if let Some(session) = &form.page.viewer.session {
        app.sessions.end(session, app.queues.import.redis(), SystemTime::now()).await?;
        tracing::info!(audit = true, session = session.nonce, "session {} ends", session.nonce);
    }
    let mut response = see_other(&form.page.url("/login"));
    let (name, path) = (session::COOKIE, cookie_path(app));
    set_cookie(response.headers_mut(), &format!("{name}=; Path={path}; Max-Age=0; HttpOnly; SameSite=Strict"));
    response.headers_mut().insert("clear-site-data", axum::http::HeaderValue::from_static("\"cache\""));
    response.headers_mut().insert(header::CACHE_CONTROL, axum::http::HeaderValue::from_static("no-store"));
    Ok(response)
}

/// Whether the browser spoke TLS with the proxy in front of us.
pub(super) fn is_https(headers: &HeaderMap) -> bool {
    headers.get("x-forwarded-proto").is_some_and(|proto| proto.as_bytes().eq_ignore_ascii_case(b"https"))
}
