//! Who may ask, and who may change something.
//!
//! | rule | keeps out | answer |
//! |---|---|---|
//! | with a token: `Authorization: Bearer TOKEN`, or the cookie of a session that has not ended | who does not know it | 401; a page leads to the login |
//! | without: `Host` is `localhost` or a loopback address | a web page whose host name was pointed at this machine | 403 |
//! | to change something: `Origin`, where there is one, is this very host | pages of other sites | 403 |
//! | to change something: `Sec-Fetch-Site`, where there is one, is `same-origin` or `none` | the same, where `Origin` is left out | 403 |
//! | to change something: the body is JSON, and says so | HTML forms, which need no permission to be sent | 415 |
//! | but the forms of the dashboard: they carry the token of their page ([`super::session`]) | forms of other pages | 403 |
//! | to change something, read-only | everybody | 403 |
//!
//! A proxy in front must pass `Host` on as the browser sent it. Health checks are not guarded; the login, and what it looks
//! like, need no token.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use axum::extract::{Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use subtle::ConstantTimeEq as _;

use super::session::{self, Session};
use super::{ApiError, App, dashboard};
use crate::config::Secret;
use crate::error::chain;

/// Who asks, for the log and for the forms of its pages.
#[derive(Clone, Debug)]
pub(super) struct Viewer {
    /// The session of a browser.
    pub(super) session: Option<Session>,
}

impl Viewer {
    /// As the log calls it.
    pub(super) fn name(&self, app: &App) -> String {
        match &self.session {
            Some(session) => format!("session {}", session.nonce),
            None if app.token.is_some() => "token".to_owned(),
            None => "this machine".to_owned(),
        }
    }
}

/// What is asked of a request beyond that it comes from the right place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    /// Token or session.
    Everything,
    /// Nothing: it is the way to a session.
    Entry,
}

/// Lets a request through to its route, or answers why not.
pub(super) async fn check(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    pass(app, request, next, Wanted::Everything).await
}

/// As [`check`], for the login and its style.
pub(super) async fn check_entry(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    pass(app, request, next, Wanted::Entry).await
}

async fn pass(app: Arc<App>, mut request: Request, next: Next, wanted: Wanted) -> Response {
    // An address in the request line wins over the header, as in HTTP.
    let named = request.uri().authority().map(|authority| authority.as_str().as_bytes());
    let named = named.or_else(|| request.headers().get(header::HOST).map(HeaderValue::as_bytes));
    let host = named.map(|host| String::from_utf8_lossy(host).into_owned());
    let cookie = cookie(request.headers(), session::COOKIE);
    let session = cookie.and_then(|cookie| app.sessions.check(cookie, SystemTime::now()));
    let session = match still_holds(&app, session).await {
        Ok(session) => session,
        Err(error) => return error.into_response(),
    };
    let is_page = dashboard::is_page(request.uri().path());
    let rules = Rules {
        token: app.token.as_ref().filter(|_| wanted == Wanted::Everything && session.is_none()),
        is_open: app.token.is_none(),
        is_read_only: app.is_read_only && wanted == Wanted::Everything,
        takes_forms: is_page,
    };
    match may_pass(request.method(), host.as_deref(), request.headers(), rules) {
        Ok(()) => {
            request.extensions_mut().insert(Viewer { session });
            next.run(request).await
        }
        Err(ApiError::Unauthorized) if is_page && request.method() == Method::GET => {
            dashboard::to_login(&app, request.uri())
        }
        Err(error) => error.into_response(),
    }
}

/// The session, unless somebody has logged out of it.
async fn still_holds(app: &App, session: Option<Session>) -> Result<Option<Session>, ApiError> {
    let Some(session) = session else { return Ok(None) };
    let has_ended = app.sessions.has_ended(&session, app.queues.import.redis()).await;
    let has_ended = has_ended.map_err(|error| ApiError::SessionUnchecked(chain(&error)))?;
    Ok((!has_ended).then_some(session))
}

/// Whether who asked may go on listening: their session is neither over nor ended. Who showed the token may.
pub(super) async fn still_may(app: &App, viewer: &Viewer) -> bool {
    let Some(session) = viewer.session.clone().map(|session| session.if_not_over(SystemTime::now())) else {
        return true;
    };
    still_holds(app, session).await.is_ok_and(|session| session.is_some())
}

/// The value of a cookie.
pub(super) fn cookie<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    let all = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = all.flat_map(|cookies| cookies.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(found, _)| *found == name).map(|(_, value)| value)
}

/// What holds for a request.
#[derive(Clone, Copy)]
struct Rules<'a> {
    /// The token that must be shown.
    token: Option<&'a Secret>,
    /// There is none at all.
    is_open: bool,
    is_read_only: bool,
    /// Bodies may be forms too; whoever reads them checks their own token.
    takes_forms: bool,
}

fn may_pass(method: &Method, host: Option<&str>, headers: &HeaderMap, rules: Rules<'_>) -> Result<(), ApiError> {
    match rules.token {
        Some(token) if !shows(headers, token) => return Err(ApiError::Unauthorized),
        // Only what is no browser leaves the host out.
        None if rules.is_open && !host.is_none_or(is_loopback) => {
            return Err(ApiError::ForeignHost(host.unwrap_or_default().to_owned()));
        }
        _ => {}
    }
    if method.is_safe() {
        return Ok(());
    }
    if let Some(origin) = headers.get(header::ORIGIN) {
        let origin = String::from_utf8_lossy(origin.as_bytes());
        let own = origin.split_once("://").map(|(_, authority)| authority);
        if !own.zip(host).is_some_and(|(own, host)| own.eq_ignore_ascii_case(host)) {
            return Err(ApiError::ForeignOrigin(origin.into_owned()));
        }
    }
    if let Some(site) = headers.get("sec-fetch-site")
        && !["same-origin", "none"].contains(&site.to_str().unwrap_or_default())
    {
        return Err(ApiError::ForeignOrigin("another site".to_owned()));
    }
    if rules.is_read_only {
        return Err(ApiError::ReadOnly);
    }
    // A body without a type is looked at by whoever reads it: there may be none.
    match headers.get(header::CONTENT_TYPE) {
        Some(_) if is_json(headers) || (rules.takes_forms && is_form(headers)) => Ok(()),
        Some(_) => Err(ApiError::NotJson),
        None => Ok(()),
    }
}

/// Whether the request says that its body is a form.
pub(super) fn is_form(headers: &HeaderMap) -> bool {
    is_of_type(headers, "application/x-www-form-urlencoded")
}

/// Whether the request says that its body is JSON.
pub(super) fn is_json(headers: &HeaderMap) -> bool {
    is_of_type(headers, "application/json")
}

fn is_of_type(headers: &HeaderMap, wanted: &str) -> bool {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let media_type = content_type.and_then(|value| value.split(';').next());
    media_type.is_some_and(|media_type| media_type.trim().eq_ignore_ascii_case(wanted))
}

pub(crate) fn shows(headers: &HeaderMap, token: &Secret) -> bool {
    let shown = headers.get(header::AUTHORIZATION).map(HeaderValue::as_bytes).unwrap_or_default();
    let Some((scheme, shown)) = shown.split_at_checked("Bearer ".len()) else { return false };
    // How long the comparison takes tells nothing of how much of it was right.
    scheme.eq_ignore_ascii_case(b"Bearer ") && bool::from(shown.trim_ascii().ct_eq(token.expose().as_bytes()))
}

fn is_loopback(host: &str) -> bool {
    let Ok(authority) = host.parse::<Authority>() else { return false };
    let name = authority.host().trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost")
        || name.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: &str = "127.0.0.1:4000";

    fn status(method: &Method, host: &str, headers: &[(&'static str, &str)], token: Option<&str>) -> u16 {
        let headers: HeaderMap = headers
            .iter()
            .map(|(name, value)| (header::HeaderName::from_static(name), value.parse().unwrap()))
            .collect();
        let token = token.map(Secret::new);
        let rules = Rules { token: token.as_ref(), is_open: token.is_none(), is_read_only: false, takes_forms: false };
        let passed = may_pass(method, Some(host), &headers, rules);
        passed.map_or_else(|error| error.into_response().status().as_u16(), |()| 200)
    }

    #[test]
    fn only_the_very_token_opens() {
        for (shown, expected) in [
            ("Bearer s3cret", 200),
            ("bearer s3cret", 200),
            ("Bearer s3cre", 401),
            ("Bearer s3cret2", 401),
            ("Bearer ", 401),
            ("Bearer", 401),
            ("Basic s3cret", 401),
            ("s3cret", 401),
        ] {
            let asked = status(&Method::GET, "feeds.example", &[("authorization", shown)], Some("s3cret"));
            assert_eq!(asked, expected, "{shown:?}");
        }
        assert_eq!(status(&Method::GET, OWN, &[], Some("s3cret")), 401);
    }

    #[test]
    fn without_a_token_only_names_of_this_machine_are_answered() {
        for own in [OWN, "localhost", "LocalHost:80", "[::1]:4000", "127.8.9.1"] {
            assert_eq!(status(&Method::GET, own, &[], None), 200, "{own}");
        }
        for foreign in ["rebound.example:4000", "localhost.example", "10.0.0.1", "127.0.0.1.example", "", "a b"] {
            assert_eq!(status(&Method::GET, foreign, &[], None), 403, "{foreign}");
        }
    }

    #[test]
    fn only_a_page_of_this_very_host_may_change_something() {
        let post = |host, origin| status(&Method::POST, host, &[("origin", origin)], None);
        assert_eq!(post(OWN, "http://127.0.0.1:4000"), 200);
        assert_eq!(post("localhost:4000", "http://LOCALHOST:4000"), 200);
        for foreign in
            ["http://127.0.0.1:4001", "https://evil.example", "null", "", "http://127.0.0.1:4000.evil.example"]
        {
            assert_eq!(post(OWN, foreign), 403, "{foreign}");
        }
        assert_eq!(
            status(&Method::GET, OWN, &[("origin", "https://evil.example")], None),
            200,
            "to read changes nothing"
        );
    }

    #[test]
    fn what_a_form_can_send_is_refused() {
        let post = |content_type| status(&Method::POST, OWN, &[("content-type", content_type)], None);
        for json in ["application/json", "Application/JSON; charset=utf-8"] {
            assert_eq!(post(json), 200, "{json}");
        }
        for form in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", ""] {
            assert_eq!(post(form), 415, "{form}");
        }
    }
}
