//! Schedulers: what is told of them, and what is done with them. Those of feeds belong to their feeds: they are shown, and
//! changed where the feed's schedule is.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use super::actions::Actor;
use super::{ApiError, App};
use crate::error::chain;
use crate::feed::Feed;
use crate::job::{Envelope, JobOptions};
use crate::queue::Queue;
use crate::queue::enqueue::Enqueued;
use crate::queue::schedulers::{Scheduler, StoredTemplate, Template, Upsert};
use crate::schedule::{CatchUp, Definition, Repeat};
use crate::views::{payload_json, scheduler_json};

/// A scheduler with what its jobs are, and the feed it belongs to.
pub(super) struct Looked {
    pub(super) scheduler: Scheduler,
    pub(super) template: Option<StoredTemplate>,
    /// Of a feed's schedule, of which nothing is stored here.
    pub(super) feed: Option<Arc<Feed>>,
}

/// A scheduler as clients write it: either `cron` or `everyMs`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct AskedScheduler {
    pub(super) cron: Option<String>,
    pub(super) timezone: Option<String>,
    pub(super) every_ms: Option<u64>,
    pub(super) offset_ms: Option<u64>,
    pub(super) start: Option<Timestamp>,
    pub(super) end: Option<Timestamp>,
    pub(super) limit: Option<u64>,
    #[serde(default)]
    pub(super) immediately: bool,
    #[serde(default)]
    pub(super) catch_up: CatchUp,
    pub(super) overlap: Option<bool>,
    #[serde(default)]
    pub(super) job: AskedJob,
}

/// What each job of a scheduler is, as clients write it.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AskedJob {
    pub(super) name: Option<String>,
    #[serde(default)]
    pub(super) payload: Value,
    pub(super) priority: Option<u32>,
    pub(super) attempts: Option<u8>,
    pub(super) group: Option<String>,
}

/// The feed whose schedule the scheduler of this id is.
pub(super) fn feed_of(app: &App, queue: &Queue, scheduler: &Scheduler) -> Option<Arc<Feed>> {
    let is_of_feeds = scheduler.stored.is_none() && queue.name() == app.queues.fetch.name();
    app.feeds.find(&scheduler.id).filter(|feed| is_of_feeds && feed.schedule.is_some())
}

/// Where the schedule of a feed is changed.
pub(super) fn owner(app: &App, feed: &Feed) -> String {
    if app.feeds.is_configured(&feed.name) {
        app.options.config_file.clone()
    } else {
        format!("its subscription (feedmill feeds remove {0}, feeds add)", feed.name)
    }
}

/// One scheduler.
pub(super) async fn find(app: &App, queue: &Queue, id: &str) -> Result<Looked, ApiError> {
    let (scheduler, template) = queue.scheduler(id).await?.ok_or_else(|| missing(id))?;
    let feed = feed_of(app, queue, &scheduler);
    Ok(Looked { scheduler, template, feed })
}

/// A scheduler as it is told; `feed` is the schedule of the feed it belongs to.
pub(super) fn listed_json(app: &App, queue: &Queue, scheduler: &Scheduler) -> Value {
    let feed = feed_of(app, queue, scheduler);
    let schedule = feed.as_ref().and_then(|feed| feed.schedule.as_ref()).map(ToString::to_string);
    let mut value = scheduler_json(scheduler, schedule.as_deref());
    if let Some(feed) = feed {
        value["from"] = json!(if app.feeds.is_configured(&feed.name) { "file" } else { "subscription" });
    }
    value
}

impl Looked {
    pub(super) fn json(&self, app: &App, queue: &Queue) -> Value {
        let mut value = listed_json(app, queue, &self.scheduler);
        if let Some((template, envelope)) = self.job() {
            value["job"] = json!({
                "name": envelope.name,
                "priority": template.priority(),
                "group": template.group(),
                "attempts": options_of(&envelope).attempts,
                "payload": payload_json(envelope.payload),
            });
        }
        value
    }

    /// What its jobs are, if that can be read.
    pub(super) fn job(&self) -> Option<(&StoredTemplate, Envelope<'_>)> {
        let template = self.template.as_ref()?;
        Some((template, template.envelope().ok()?))
    }
}

/// The options of a template's jobs.
pub(super) fn options_of(envelope: &Envelope<'_>) -> JobOptions {
    envelope.options.and_then(|options| JobOptions::decode(options).ok()).unwrap_or_default()
}

fn missing(id: &str) -> ApiError {
    ApiError::Missing { what: "scheduler", name: id.chars().take(200).collect() }
}

impl AskedScheduler {
    fn definition(&self) -> Result<Definition, ApiError> {
        let wrong = |what: &str| Err(ApiError::BadRequest(what.to_owned()));
        let repeat = match (self.cron.as_deref(), self.every_ms) {
            (Some(_), Some(_)) => return wrong("a cron pattern and an interval exclude each other; give one"),
            (None, None) => return wrong("there is no schedule; give a cron pattern or an interval"),
            (Some(_), None) if self.offset_ms.is_some() => {
                return wrong("an offset belongs to an interval; a pattern says itself when");
            }
            (None, Some(_)) if self.timezone.is_some() => {
                return wrong("a time zone belongs to a pattern; an interval has none");
            }
            (Some(pattern), None) => Repeat::cron(pattern, self.timezone.as_deref()),
            (None, Some(every_ms)) => {
                Repeat::every(Duration::from_millis(every_ms), Duration::from_millis(self.offset_ms.unwrap_or(0)))
            }
        };
        let definition = Definition {
            repeat: repeat.map_err(|error| ApiError::BadRequest(chain(&error)))?,
            start: self.start,
            end: self.end,
            limit: self.limit,
            immediately: self.immediately,
            catch_up: self.catch_up,
            no_overlap: !self.overlap.unwrap_or(true),
        };
        definition.check().map_err(|error| ApiError::BadRequest(chain(&error)))?;
        Ok(definition)
    }
}

impl Actor<'_> {
    /// Makes a scheduler, or puts another one in its place: what that changed.
    pub(super) async fn upsert_scheduler(
        &self,
        queue: &Queue,
        id: &str,
        asked: AskedScheduler,
    ) -> Result<(Upsert, i64), ApiError> {
        let definition = asked.definition()?;
        let AskedJob { name, payload, priority, attempts, group } = asked.job;
        if attempts == Some(0) {
            return Err(ApiError::BadRequest("attempts is 0; accepted: 1 to 255".to_owned()));
        }
        let payload = self.app.queues.payload_for(queue, payload.to_string().into_bytes());
        let payload = payload.map_err(|why| ApiError::BadRequest(format!("payload: {why}")))?;
        let is_of_feed = queue.name() == self.app.queues.fetch.name()
            && self.app.feeds.find(id).is_some_and(|feed| feed.schedule.is_some());
        if is_of_feed {
            let what = format!("{id:?} is the schedule of a feed; give the scheduler another id");
            return Err(ApiError::Conflict(what));
        }
        // Options that cannot be written here, and that a program has set, stay.
        let stored = queue.scheduler(id).await?.and_then(|(_, template)| template);
        let stored = stored.as_ref().and_then(|template| template.envelope().ok());
        let options = stored.as_ref().map(options_of).unwrap_or_default();
        let options = JobOptions { attempts, ..options }.encode();
        let template = Template {
            envelope: Envelope {
                payload: &payload.bytes,
                fingerprint: payload.fingerprint,
                name: name.as_deref().filter(|name| !name.is_empty()),
                options: Some(&options),
                ..Envelope::default()
            },
            priority: priority.unwrap_or(0),
            group: group.as_deref().filter(|group| !group.is_empty()),
        };
        let (upsert, next_ms) = queue.upsert_scheduler(id, &definition, template, self.payload_max(queue)).await?;
        self.did(
            "upsert scheduler",
            &format!("{} {id}", queue.name()),
            format!("{id} is {}: {}", word(upsert), definition.repeat),
        );
        Ok((upsert, next_ms))
    }

    pub(super) async fn remove_scheduler(&self, queue: &Queue, id: &str) -> Result<String, ApiError> {
        if let Some(feed) = find(self.app, queue, id).await?.feed {
            return Err(ApiError::Conflict(format!(
                "{id:?} is the schedule of a feed: change it in {}",
                owner(self.app, &feed)
            )));
        }
        if !queue.remove_scheduler(id).await? {
            return Err(missing(id));
        }
        Ok(self.did("remove scheduler", &format!("{} {id}", queue.name()), format!("{id} is removed")))
    }

    /// Adds a job of a scheduler now, beside those of its slots; of a feed, an import.
    pub(super) async fn run_scheduler(&self, queue: &Queue, id: &str) -> Result<String, ApiError> {
        if let Some(feed) = find(self.app, queue, id).await?.feed {
            return Ok(format!("import {} of {id} has begun", self.import_feed(&feed.name).await?));
        }
        let ran = queue.run_scheduler(id, self.payload_max(queue)).await?;
        let (job, enqueued) = ran.ok_or_else(|| {
            ApiError::Conflict(format!("{id:?} cannot be run: what its jobs are is not stored, or damaged"))
        })?;
        match enqueued {
            Enqueued::Enqueued | Enqueued::Changed => {
                Ok(self.did("run scheduler", &format!("{} {id}", queue.name()), format!("{job} is enqueued")))
            }
            Enqueued::Duplicate | Enqueued::Deduplicated(_) => {
                Err(ApiError::Conflict(format!("{job} lives still, and {id} has one job at a time; nothing was added")))
            }
            Enqueued::Refused(reason) => Err(ApiError::Conflict(format!("job {job} was refused: {reason}"))),
        }
    }
}

/// What an upsert did, in a word.
pub(super) fn word(upsert: Upsert) -> &'static str {
    match upsert {
        Upsert::Created => "created",
        Upsert::Changed => "changed",
        Upsert::Unchanged => "unchanged",
    }
}
