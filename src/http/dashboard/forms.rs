//! What forms do, and the login. Each action ends in a page that says what came of it.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts as _, Request};
use axum::http::{HeaderMap, header};
use axum::response::Response;
use maud::html;
use percent_encoding::percent_decode_str;
use subtle::ConstantTimeEq as _;

use super::{Page, ROOT, said_cookie, see_other, set_cookie};
use crate::http::actions::{Actor, Asked, Changes, Verb};
use crate::http::operations::{LetterFilter, Operation, WithLetters};
use crate::http::{ApiError, App, api, guard, session};
use crate::job::JobId;
use crate::queue::QueueError;

/// How long a wrong token is thought about: whoever tries many waits long.
const WRONG_TOKEN_PAUSE: Duration = Duration::from_millis(500);
/// What an action came to is shown on the next page, if that comes soon.
const SAID_FOR_S: u32 = 30;

/// A form that was sent from one of our pages.
pub(super) struct Form {
    page: Page,
    fields: Vec<(String, String)>,
    is_https: bool,
}

impl FromRequest<Arc<App>> for Form {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, ApiError> {
        let (mut parts, body) = request.into_parts();
        let page = Page::from_request_parts(&mut parts, app).await?;
        if !guard::is_form(&parts.headers) {
            return Err(ApiError::FormToken);
        }
        let is_https = is_https(&parts.headers);
        let body = Bytes::from_request(Request::from_parts(parts, body), app).await.map_err(api::refused)?;
        let fields = url::form_urlencoded::parse(&body).into_owned().collect();
        let form = Self { page, fields, is_https };
        let shown = form.text("form_token").unwrap_or_default();
        if !app.sessions.is_form_token(form.page.viewer.session.as_ref(), shown) {
            return Err(ApiError::FormToken);
        }
        Ok(form)
    }
}

/// Whether the browser spoke TLS with the proxy in front of us.
fn is_https(headers: &HeaderMap) -> bool {
    headers.get("x-forwarded-proto").is_some_and(|proto| proto.as_bytes().eq_ignore_ascii_case(b"https"))
}

impl Form {
    fn text(&self, name: &str) -> Option<&str> {
        let found = self.fields.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str());
        found.filter(|value| !value.is_empty())
    }

    fn number<T: std::str::FromStr>(&self, name: &str) -> Result<Option<T>, ApiError> {
        let number = self.text(name).map(|text| text.trim().parse()).transpose();
        number.map_err(|_| ApiError::BadRequest(format!("{name}: a whole number is accepted")))
    }

    fn has(&self, name: &str) -> bool {
        self.text(name).is_some()
    }

    fn duration(&self, name: &str) -> Result<Option<Duration>, ApiError> {
        let parsed = self.text(name).map(|text| humantime::parse_duration(text.trim())).transpose();
        parsed.map_err(|_| ApiError::BadRequest(format!("{name}: a duration such as 15m or 1h 30m is accepted")))
    }

    fn action(&self) -> &str {
        self.text("do").unwrap_or_default()
    }

    fn actor(&self) -> Actor<'_> {
        Actor { app: &self.page.app, viewer: &self.page.viewer }
    }

    /// To a page of ours that says what came of it.
    fn back(&self, to: &str, said: &str) -> Response {
        let mut response = see_other(to);
        set_cookie(response.headers_mut(), &said_cookie(&self.page.app, said, SAID_FOR_S));
        response
    }

    /// The page that the form was on, if it says so, else this one. Never one of another site.
    fn origin(&self, otherwise: String) -> String {
        let base = &self.page.app.options.base_path;
        let is_ours = |back: &&str| {
            let path = back.split(['?', '#']).next().unwrap_or_default();
            path.strip_prefix(base.as_str()).is_some_and(super::is_page)
                && back.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\')
        };
        self.text("back").filter(is_ours).map_or(otherwise, str::to_owned)
    }

    fn to_operation(&self, operation: &Operation) -> Response {
        see_other(&self.page.url(&format!("/operations/{}", operation.id)))
    }
}

fn unknown_action() -> ApiError {
    ApiError::BadRequest("there is no such action".to_owned())
}

/// Actions on a queue.
pub(super) async fn queue(form: Form) -> Result<Response, ApiError> {
    let actor = form.actor();
    let queue = actor.queue(&form.page.part(1)).await?;
    let page = form.page.queue_url(queue.name());
    let filter = || LetterFilter {
        reason: form.text("reason").map(str::to_owned),
        group: form.text("group").map(str::to_owned),
    };
    let operation = match form.action() {
        "pause" | "resume" => {
            let said = actor.pause(&queue, form.action() == "pause").await?;
            return Ok(form.back(&form.origin(page), &said));
        }
        "concurrency" => {
            let said = actor.limit_concurrency(&queue, form.number("concurrency")?).await?;
            return Ok(form.back(&page, &said));
        }
        "add" => {
            let payload = serde_json::from_str(form.text("payload").unwrap_or_default());
            let asked = Asked {
                id: form.text("id").map(str::to_owned),
                name: form.text("name").map(str::to_owned),
                payload: payload.map_err(|error| ApiError::BadRequest(format!("the payload is no JSON: {error}")))?,
                delay_ms: form.duration("delay")?.map(|delay| delay.as_millis() as u64),
                priority: form.number("priority")?,
                attempts: form.number("attempts")?,
                group: None,
                dedup: form.text("dedup").map(str::to_owned),
            };
            let (id, result) = actor.add(&queue, asked).await?;
            return Ok(form.back(&form.page.job_url(queue.name(), &id), &format!("{id}: {result}")));
        }
        verb @ ("retry-these" | "promote-these" | "remove-these" | "cancel-these") => {
            let verb = Verb::of(verb.trim_end_matches("-these"))?;
            let ids = form.fields.iter().filter(|(name, _)| name == "id");
            let ids = ids.map(|(_, id)| JobId::new(percent_decode_str(id).collect::<Vec<u8>>()));
            let ids = ids.collect::<Result<Vec<_>, _>>().map_err(QueueError::from)?;
            if ids.is_empty() {
                return Ok(form.back(&form.origin(page), "No job was selected."));
            }
            let (said, _) = actor.each(&queue, verb, &ids).await?;
            return Ok(form.back(&form.origin(page), &said));
        }
        "redrive" => actor.letters(&queue, filter(), WithLetters::Redrive).await?,
        "remove-dead" => actor.letters(&queue, filter(), WithLetters::Remove).await?,
        "retry-completed" => actor.retry_completed(&queue).await?,
        "promote" => actor.promote_all(&queue).await?,
        "clean" => {
            let grace = form.duration("grace")?.unwrap_or(Duration::ZERO);
            actor.clean(&queue, form.text("state").unwrap_or_default(), grace, None).await?
        }
        "drain" => actor.drain(&queue, form.has("delayed")).await?,
        "obliterate" => actor.obliterate(&queue, form.text("confirm").unwrap_or_default(), form.has("force")).await?,
        _ => return Err(unknown_action()),
    };
    Ok(form.to_operation(&operation))
}

/// Actions on a job.
pub(super) async fn job(form: Form) -> Result<Response, ApiError> {
    let (actor, id) = (form.actor(), form.page.job_id()?);
    let queue = actor.queue(&form.page.part(1)).await?;
    let page = form.page.job_url(queue.name(), &id);
    match form.action() {
        "duplicate" => {
            let copy = actor.duplicate(&queue, &id).await?;
            Ok(form.back(&form.page.job_url(queue.name(), &copy), &format!("{copy} is a copy of {id}")))
        }
        "update" => {
            let payload = form.text("payload").map(serde_json::from_str).transpose();
            let changes = Changes {
                payload: payload.map_err(|error| ApiError::BadRequest(format!("the payload is no JSON: {error}")))?,
                delay_ms: form.duration("delay")?.map(|delay| delay.as_millis() as u64),
                priority: form.number("priority")?,
            };
            let said = actor.update(&queue, &id, changes).await?;
            Ok(form.back(&page, &format!("{id}: {said}")))
        }
        verb => {
            let verb = Verb::of(verb).map_err(|_| unknown_action())?;
            let said = actor.one(&queue, verb, &id).await?;
            let is_gone = verb == Verb::Remove;
            Ok(form.back(&if is_gone { form.page.queue_url(queue.name()) } else { page }, &said))
        }
    }
}

/// Actions on a feed.
pub(super) async fn feed(form: Form) -> Result<Response, ApiError> {
    let name = form.page.part(1);
    let page = form.page.feed_url(&name);
    let said = match form.action() {
        "import" => {
            let import = form.actor().import_feed(&name).await?;
            return Ok(
                form.back(&form.page.url(&format!("/imports/{import}")), &format!("The import of {name} has begun."))
            );
        }
        "pause" => form.actor().pause_feed(&name, true).await?,
        "resume" => form.actor().pause_feed(&name, false).await?,
        _ => return Err(unknown_action()),
    };
    Ok(form.back(&page, &said))
}

/// Removes a scheduler.
pub(super) async fn scheduler(form: Form) -> Result<Response, ApiError> {
    let queue = form.actor().queue(form.text("queue").unwrap_or_default()).await?;
    let said = form.actor().remove_scheduler(&queue, form.text("scheduler").unwrap_or_default()).await?;
    Ok(form.back(&form.page.url("/schedulers"), &said))
}

/// Stops an operation.
pub(super) async fn operation(form: Form) -> Result<Response, ApiError> {
    let id = form.page.part(1);
    let found = form.page.app.operations.find(&id);
    let operation = found.ok_or(ApiError::Missing { what: "operation", name: id })?;
    let said = form.actor().stop(&operation);
    Ok(form.back(&form.page.url(&format!("/operations/{}", operation.id)), &said))
}

/// The way in.
pub(super) async fn login_page(page: Page) -> Response {
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
        && super::is_page(next.split(['?', '#']).next().unwrap_or_default())
        && next.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\');
    let to = if is_ours { format!("{}{next}", app.options.base_path) } else { form.page.url("") };
    let mut response = see_other(&to);
    let secure = if form.is_https { "; Secure" } else { "" };
    let (name, path, age) = (session::COOKIE, super::cookie_path(&app), session::LIFETIME.as_secs());
    set_cookie(
        response.headers_mut(),
        &format!("{name}={cookie}; Path={path}; Max-Age={age}; HttpOnly; SameSite=Strict{secure}"),
    );
    Ok(response)
}

pub(super) async fn logout(form: Form) -> Response {
    if let Some(session) = &form.page.viewer.session {
        tracing::info!(audit = true, session = session.nonce, "session {} ends", session.nonce);
    }
    let mut response = see_other(&form.page.url("/login"));
    let (name, path) = (session::COOKIE, super::cookie_path(&form.page.app));
    set_cookie(response.headers_mut(), &format!("{name}=; Path={path}; Max-Age=0; HttpOnly; SameSite=Strict"));
    response.headers_mut().insert("clear-site-data", axum::http::HeaderValue::from_static("\"cache\""));
    response.headers_mut().insert(header::CACHE_CONTROL, axum::http::HeaderValue::from_static("no-store"));
    response
}
