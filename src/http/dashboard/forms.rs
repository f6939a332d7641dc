//! What forms do. Each action ends in a page that says what came of it.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts as _, Request};
use axum::response::Response;
use jiff::Timestamp;
use percent_encoding::percent_decode_str;
use serde_json::Value;

use super::login::is_https;
use super::page::{Page, said_cookie, set_cookie};
use super::see_other;
use crate::http::actions::{Actor, Asked, Changes, Verb};
use crate::http::operations::{About, LetterFilter, Task};
use crate::http::schedulers::{AskedJob, AskedScheduler, word};
use crate::http::{ApiError, App, api, guard};
use crate::job::JobId;
use crate::queue::{Queue, QueueError};
use crate::schedule::CatchUp;

/// What an action came to is shown on the next page, if that comes soon.
const SAID_FOR_S: u32 = 30;

/// A form that was sent from one of our pages.
pub(super) struct Form {
    pub(super) page: Page,
    pub(super) fields: Vec<(String, String)>,
    pub(super) is_https: bool,
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

impl Form {
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        let found = self.fields.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str());
        found.filter(|value| !value.is_empty())
    }

    pub(super) fn number<T: std::str::FromStr>(&self, name: &str) -> Result<Option<T>, ApiError> {
        let number = self.text(name).map(|text| text.trim().parse()).transpose();
        number.map_err(|_| ApiError::BadRequest(format!("{name}: a whole number is accepted")))
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.text(name).is_some()
    }

    pub(super) fn duration(&self, name: &str) -> Result<Option<Duration>, ApiError> {
        let parsed = self.text(name).map(|text| humantime::parse_duration(text.trim())).transpose();
        parsed.map_err(|_| ApiError::BadRequest(format!("{name}: a duration such as 15m or 1h 30m is accepted")))
    }

    fn time(&self, name: &str) -> Result<Option<Timestamp>, ApiError> {
        let parsed = self.text(name).map(|text| text.trim().parse()).transpose();
        parsed.map_err(|_| ApiError::BadRequest(format!("{name}: a time such as 2027-01-31T09:00:00Z is accepted")))
    }

    /// A field that is JSON.
    fn payload(&self) -> Result<Option<Value>, ApiError> {
        let payload = self.text("payload").map(serde_json::from_str).transpose();
        payload.map_err(|error| ApiError::BadRequest(format!("the payload is no JSON: {error}")))
    }

    fn asked_scheduler(&self) -> Result<AskedScheduler, ApiError> {
        let text = |name| self.text(name).map(|text| text.trim().to_owned());
        let ms = |name| Ok::<_, ApiError>(self.duration(name)?.map(|span| span.as_millis() as u64));
        let policies = [CatchUp::One, CatchUp::Skip, CatchUp::All];
        let catch_up = policies.into_iter().find(|one| Some(one.word()) == self.text("catch-up"));
        Ok(AskedScheduler {
            cron: text("cron"),
            timezone: text("timezone"),
            every_ms: ms("every")?,
            offset_ms: ms("offset")?,
            start: self.time("start")?,
            end: self.time("end")?,
            limit: self.number("limit")?,
            immediately: self.has("immediately"),
            catch_up: catch_up.unwrap_or_default(),
            overlap: Some(!self.has("no-overlap")),
            job: AskedJob {
                name: text("name"),
                payload: self.payload()?.unwrap_or_default(),
                priority: self.number("priority")?,
                attempts: self.number("attempts")?,
                group: text("group"),
            },
        })
    }

    pub(super) fn action(&self) -> &str {
        self.text("do").unwrap_or_default()
    }

    pub(super) fn actor(&self) -> Actor<'_> {
        Actor { app: &self.page.app, viewer: &self.page.viewer }
    }

    /// To a page of ours that says what came of it.
    pub(super) fn back(&self, to: &str, said: &str) -> Response {
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

    fn to_operation(&self, operation: &About) -> Response {
        see_other(&self.page.url(&format!("/operations/{}", operation.id)))
    }
}

fn unknown_action() -> ApiError {
    ApiError::BadRequest("there is no such action".to_owned())
}

/// Actions on all queues.
pub(super) async fn all_queues(form: Form) -> Result<Response, ApiError> {
    let pause = match form.action() {
        "pause" => true,
        "resume" => false,
        _ => return Err(unknown_action()),
    };
    let said = form.actor().pause_all(pause).await?;
    Ok(form.back(&form.page.url(""), &said))
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
            let asked = Asked {
                id: form.text("id").map(str::to_owned),
                name: form.text("name").map(str::to_owned),
                payload: form.payload()?.unwrap_or_default(),
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
        "redrive" => actor.operate(&queue, Task::Redrive(filter())).await?,
        "remove-dead" => actor.operate(&queue, Task::RemoveDead(filter())).await?,
        "retry-completed" => actor.operate(&queue, Task::RetryCompleted).await?,
        "promote" => actor.operate(&queue, Task::Promote).await?,
        "clean" => {
            let state = form.text("state").unwrap_or_default().to_owned();
            let grace_ms = form.duration("grace")?.map_or(0, |grace| grace.as_millis() as u64);
            actor.operate(&queue, Task::Clean { state, grace_ms, limit: None }).await?
        }
        "drain" => actor.operate(&queue, Task::Drain { delayed: form.has("delayed") }).await?,
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
            let changes = Changes {
                payload: form.payload()?,
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

/// Makes a scheduler, unless there is one of this id.
pub(super) async fn add_scheduler(form: Form) -> Result<Response, ApiError> {
    let queue = form.actor().queue(form.text("queue").unwrap_or_default()).await?;
    let id = form.text("scheduler").unwrap_or_default();
    if queue.scheduler(id).await?.is_some() {
        return Err(ApiError::Conflict(format!("there is a scheduler {id:?} already; open it to change it")));
    }
    save_scheduler(&form, &queue, id).await
}

async fn save_scheduler(form: &Form, queue: &Queue, id: &str) -> Result<Response, ApiError> {
    let (upsert, _) = form.actor().upsert_scheduler(queue, id, form.asked_scheduler()?).await?;
    Ok(form.back(&form.page.scheduler_url(queue.name(), id), &format!("{id}: {}", word(upsert))))
}

/// Actions on a scheduler.
pub(super) async fn scheduler(form: Form) -> Result<Response, ApiError> {
    let (actor, id) = (form.actor(), form.page.id());
    let queue = actor.queue(&form.page.part(1)).await?;
    match form.action() {
        "save" => save_scheduler(&form, &queue, &id).await,
        "run" => {
            let said = actor.run_scheduler(&queue, &id).await?;
            Ok(form.back(&form.page.scheduler_url(queue.name(), &id), &said))
        }
        "remove" => {
            let said = actor.remove_scheduler(&queue, &id).await?;
            let list = form.page.with_params(&form.page.url("/schedulers"), &[("queue", queue.name())]);
            Ok(form.back(&list, &said))
        }
        _ => Err(unknown_action()),
    }
}

/// Stops an operation, or does what is left of it.
pub(super) async fn operation(form: Form) -> Result<Response, ApiError> {
    let id = form.page.part(1);
    match form.action() {
        "stop" => {
            let operation = form.actor().stop(&id).await?;
            let said = format!("{} ends after this step", operation.what);
            Ok(form.back(&form.page.url(&format!("/operations/{id}")), &said))
        }
        "go-on" => Ok(form.to_operation(&form.actor().go_on(&id).await?)),
        _ => Err(unknown_action()),
    }
}
