//! What pages and API read of the queues, through [`super::live::Shared`].

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::future::try_join_all;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::live::SECOND;
use super::{ApiError, App, operations};
use crate::job::JobId;
use crate::queue::consumers::ConsumerState;
use crate::queue::counts::Counts;
use crate::queue::events::Event;
use crate::queue::find::Found;
use crate::queue::limits::LimitState;
use crate::queue::list::{Cursor, ListState, Listed, Page};
use crate::queue::schedulers::{SchedulerCursor, SchedulerPage};
use crate::queue::search::Filter;
use crate::queue::series::{Point, SeriesOf};
use crate::queue::{Order, Queue, QueueOptions};

/// Queues that are looked at; a server with more is somebody else's.
pub(super) const QUEUES_MAX: usize = 200;
/// How old a chart may be: its last minute is not over anyway.
const CHART_AGE: Duration = Duration::from_secs(10);
/// Minutes of a chart.
pub(super) const CHART_MINUTES: u64 = 60;
/// Longest time that one request searches; then it says where to go on.
const SEARCH_FOR: Duration = Duration::from_millis(100);

/// How long listeners are told of an operation that has ended: pages show how it ended, and need it once.
const ENDED_IS_TOLD_FOR: Duration = Duration::from_mins(1);

/// One queue of the overview.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) name: String,
    pub(super) counts: Arc<Counts>,
}

/// What ended in each of the last minutes.
#[derive(Clone, Debug)]
pub(super) struct Chart {
    pub(super) completed: Vec<Point>,
    pub(super) failed: Vec<Point>,
}

/// What a search found.
#[derive(Clone, Debug)]
pub(super) struct SearchPage {
    pub(super) jobs: Vec<Listed>,
    pub(super) looked_at: usize,
    pub(super) next: Option<Cursor>,
}

/// Names of the queues there are.
pub(super) async fn names(app: &App) -> Result<Arc<Vec<String>>, ApiError> {
    let load = async {
        let mut names = app.queues.import.redis().registered_queues().await?;
        names.truncate(QUEUES_MAX);
        Ok(names)
    };
    app.shared.get("names", SECOND, load).await
}

/// The queue of this name, to be read from: nothing is written, as opposed to [`crate::pipeline::Queues::named`].
pub(super) async fn queue(app: &App, name: &str) -> Result<Queue, ApiError> {
    if let Some(own) = [&app.queues.import, &app.queues.fetch].into_iter().find(|queue| queue.name() == name) {
        return Ok(own.clone());
    }
    let redis = app.queues.import.redis();
    if !names(app).await?.iter().any(|known| known == name) && !redis.has_queue(name).await? {
        return Err(ApiError::QueueNotFound(name.chars().take(200).collect()));
    }
    Ok(Queue::unopened(redis, name, QueueOptions::default())?)
}

pub(super) async fn counts(app: &App, queue: &Queue) -> Result<Arc<Counts>, ApiError> {
    app.shared.get(format!("counts {}", queue.name()), SECOND, async { Ok(queue.counts().await?) }).await
}

/// All queues.
pub(super) async fn overview(app: &App) -> Result<Vec<Seen>, ApiError> {
    let names = names(app).await?;
    // The two of ours first, and the others by name.
    let own = [app.queues.import.name(), app.queues.fetch.name()];
    let others = names.iter().map(String::as_str).filter(|name| !own.contains(name));
    let seen = own.into_iter().chain(others).map(async |name| {
        let queue = queue(app, name).await?;
        Ok::<_, ApiError>(Seen { name: name.to_owned(), counts: counts(app, &queue).await? })
    });
    try_join_all(seen).await
}

/// The last hour of a queue.
pub(super) async fn chart(app: &App, queue: &Queue) -> Result<Arc<Chart>, ApiError> {
    let load = async {
        let now = SystemTime::now();
        let from = now - Duration::from_mins(CHART_MINUTES - 1);
        let (completed, failed) =
            tokio::try_join!(queue.series(SeriesOf::Completed, from, now), queue.series(SeriesOf::Failed, from, now))?;
        Ok(Chart { completed, failed })
    };
    app.shared.get(format!("chart {}", queue.name()), CHART_AGE, load).await
}

/// The consumers of a queue.
pub(super) async fn workers(app: &App, queue: &Queue) -> Result<Arc<Vec<ConsumerState>>, ApiError> {
    app.shared.get(format!("workers {}", queue.name()), SECOND, async { Ok(queue.consumers().await?) }).await
}

/// One job; an error when there is none.
pub(super) async fn job(app: &App, queue: &Queue, id: &JobId) -> Result<Arc<Found>, ApiError> {
    let load = async {
        let found = queue.find(id).await?;
        found.ok_or_else(|| ApiError::JobNotFound(id.to_string()))
    };
    app.shared.get(format!("job {} {:?}", queue.name(), id.as_bytes()), SECOND, load).await
}

/// The newest events of a queue, oldest first.
pub(super) async fn events(app: &App, queue: &Queue, n: usize) -> Result<Arc<Vec<Event>>, ApiError> {
    let load = async { Ok(queue.newest_events(None, n).await?) };
    app.shared.get(format!("events {} {n}", queue.name()), SECOND, load).await
}

pub(super) async fn limits(app: &App, queue: &Queue) -> Result<Arc<LimitState>, ApiError> {
    app.shared.get(format!("limits {}", queue.name()), SECOND, async { Ok(queue.limits().await?) }).await
}

/// A page of the schedulers, the next to be due first.
pub(super) async fn schedulers(
    app: &App,
    queue: &Queue,
    cursor: Option<&SchedulerCursor>,
    limit: usize,
) -> Result<Arc<SchedulerPage>, ApiError> {
    let at = cursor.map(ToString::to_string).unwrap_or_default();
    let load = async { Ok(queue.list_schedulers(cursor, Order::Ascending, limit).await?) };
    app.shared.get(format!("schedulers {} {limit} {at}", queue.name()), SECOND, load).await
}

/// A page of a list.
pub(super) async fn list(
    app: &App,
    queue: &Queue,
    (state, order): (ListState, Order),
    cursor: Option<&Cursor>,
    limit: usize,
) -> Result<Arc<Page>, ApiError> {
    let at = cursor.map(ToString::to_string).unwrap_or_default();
    let key = format!("list {} {state} {order:?} {limit} {at}", queue.name());
    app.shared
        .get(key, SECOND, async {
            let mut page = queue.list(state, order, cursor, limit).await?;
            queue.read_titles(&mut page.jobs).await?;
            Ok(page)
        })
        .await
}

/// Searches for a while, and says where to go on.
pub(super) async fn search(
    app: &App,
    queue: &Queue,
    filter: &Filter,
    cursor: Option<&Cursor>,
    limit: usize,
) -> Result<Arc<SearchPage>, ApiError> {
    let load = async {
        let (mut page, began) = (SearchPage { jobs: Vec::new(), looked_at: 0, next: None }, SystemTime::now());
        let mut at = cursor.cloned();
        loop {
            let found = queue.search(filter, at.as_ref(), limit - page.jobs.len()).await?;
            page.looked_at += found.looked;
            page.jobs.extend(found.jobs);
            at = found.next;
            if at.is_none() || page.jobs.len() >= limit || began.elapsed().is_ok_and(|for_| for_ > SEARCH_FOR) {
                page.next = at;
                queue.read_titles(&mut page.jobs).await?;
                return Ok(page);
            }
        }
    };
    let at = cursor.map(ToString::to_string).unwrap_or_default();
    app.shared.get(format!("search {} {filter:?} {limit} {at}", queue.name()), SECOND, load).await
}

/// What listeners are told once a second.
pub(super) async fn snapshot(app: &App) -> Result<String, ApiError> {
    let queues: Vec<Value> = overview(app).await?.iter().map(|seen| counts_json(&seen.name, &seen.counts)).collect();
    // On the heap: what it waits for is large.
    let mut operations = Box::pin(operations::all(app)).await;
    let a_while_ago = Timestamp::now() - ENDED_IS_TOLD_FOR;
    operations.retain(|operation| operation.ended_at.is_none_or(|ended_at| ended_at > a_while_ago));
    Ok(json!({ "at": Timestamp::now(), "queues": queues, "operations": operations }).to_string())
}

/// The counts of a queue, as they are told.
pub(super) fn counts_json(name: &str, counts: &Counts) -> Value {
    json!({
        "name": name,
        "counts": counts,
        "parked": counts.parked,
        "isPaused": counts.is_paused,
        "consumersAlive": counts.consumers_alive,
        "oldestWaitingMs": counts.oldest_waiting.map(|age| age.as_millis() as u64),
        "totals": counts.totals,
    })
}
