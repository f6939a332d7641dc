//! What pages and API read of the queues, through [`super::live::Shared`].

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use futures_util::future::try_join_all;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::live::SECOND;
use super::{ApiError, App};
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
/// Dead letters of one read while they are grouped.
const LETTERS_PER_READ: usize = 256;
/// How often a scan shows what it has so far.
const LETTERS_PER_SHOWING: usize = 16 * LETTERS_PER_READ;
/// Different reasons that are told apart.
const GROUPS_MAX: usize = 1000;
/// How long a page waits for a scan that has just begun.
const SCAN_PATIENCE: Duration = Duration::from_millis(80);
/// How old groups may be, once something is different.
const GROUPS_AGE: Duration = Duration::from_secs(5);

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
    app.shared.get(key, SECOND, async { Ok(queue.list(state, order, cursor, limit).await?) }).await
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
    let operations: Vec<Value> = app.operations.all().iter().map(|operation| operation.json()).collect();
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

// ── dead letters by reason ─────────────────────────────────────────────────────────────────────────────────────────

/// Dead letters whose reasons say the same.
#[derive(Clone, Debug)]
pub(super) struct DeadGroup {
    /// What they say, without what is different in each.
    pub(super) reason: String,
    pub(super) letters: u64,
    pub(super) oldest: SystemTime,
    pub(super) newest: SystemTime,
    /// The newest of them.
    pub(super) example: Option<JobId>,
}

/// The dead letters of a queue by reason.
#[derive(Clone, Debug)]
pub(super) struct DeadGroups {
    /// The largest first.
    pub(super) groups: Vec<DeadGroup>,
    /// Letters that were looked at.
    pub(super) looked_at: u64,
    /// Whether that were all.
    pub(super) is_through: bool,
    pub(super) at: Timestamp,
    /// Length and newest letter when it was begun: while they are the same, so are the groups.
    mark: (u64, String),
}

/// The scans of the queues, by name.
#[derive(Debug, Default)]
pub(super) struct DeadScans(Mutex<BTreeMap<String, Arc<DeadScan>>>);

#[derive(Debug)]
struct DeadScan {
    latest: watch::Sender<Option<Arc<DeadGroups>>>,
    /// Held by the one that is under way.
    running: tokio::sync::Mutex<()>,
}

/// The dead letters by reason, as of a few seconds ago; of very many, as far as they were looked at. A scan goes on in the
/// background, in bounded steps, one a queue.
pub(super) async fn dead_groups(app: &Arc<App>, queue: &Queue) -> Result<Arc<DeadGroups>, ApiError> {
    let scan = {
        let mut scans = app.dead_scans.0.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || Arc::new(DeadScan { latest: watch::Sender::new(None), running: tokio::sync::Mutex::default() });
        scans.entry(queue.name().to_owned()).or_insert_with(new).clone()
    };
    let mark = app
        .shared
        .get(format!("dead {}", queue.name()), SECOND, async {
            let last = queue.last_dead_letter().await?.map(|entry| entry.to_string()).unwrap_or_default();
            Ok((queue.counts().await?.failed, last))
        })
        .await?;
    let latest = scan.latest.borrow().clone();
    let is_current = latest.as_ref().is_some_and(|latest| {
        let is_young = latest.at.duration_until(Timestamp::now()).unsigned_abs() < GROUPS_AGE;
        latest.mark == *mark || (is_young && latest.is_through && latest.mark.0 > 100 * LETTERS_PER_READ as u64)
    });
    if !is_current && scan.running.try_lock().is_ok() {
        let (scan, queue, mark) = (scan.clone(), queue.clone(), (*mark).clone());
        let stop = app.shutdown.clone();
        app.starts.spawn(async move {
            let Ok(_running) = scan.running.try_lock() else { return };
            if let Some(Err(error)) = stop.run_until_cancelled(scan_letters(&scan, &queue, mark)).await {
                tracing::debug!(%error, "dead letters cannot be read");
            }
        });
    }
    let mut waiting = scan.latest.subscribe();
    let shown = |groups: &Option<Arc<DeadGroups>>| {
        groups.as_ref().is_some_and(|groups| groups.mark == *mark && groups.is_through)
    };
    let waited = tokio::time::timeout(SCAN_PATIENCE, waiting.wait_for(shown)).await;
    if let Ok(Ok(groups)) = waited
        && let Some(groups) = groups.clone()
    {
        return Ok(groups);
    }
    let so_far = scan.latest.borrow().clone();
    Ok(so_far.unwrap_or_else(|| {
        Arc::new(DeadGroups {
            groups: Vec::new(),
            looked_at: 0,
            is_through: false,
            at: Timestamp::now(),
            mark: (*mark).clone(),
        })
    }))
}

async fn scan_letters(scan: &DeadScan, queue: &Queue, mark: (u64, String)) -> Result<(), ApiError> {
    let mut groups: BTreeMap<String, DeadGroup> = BTreeMap::new();
    let (mut after, mut looked_at, mut is_first) = (None, 0_u64, scan.latest.borrow().is_none());
    loop {
        let letters = queue.dead_letters(after, LETTERS_PER_READ).await?;
        let is_through = letters.len() < LETTERS_PER_READ;
        after = letters.last().map(|letter| letter.entry).or(after);
        looked_at += letters.len() as u64;
        for letter in letters {
            let mut reason = reason_group(&letter.reason);
            if groups.len() >= GROUPS_MAX && !groups.contains_key(&reason) {
                "others".clone_into(&mut reason);
            }
            let new = || DeadGroup {
                reason: reason.clone(),
                letters: 0,
                oldest: letter.at,
                newest: letter.at,
                example: None,
            };
            let group = groups.entry(reason.clone()).or_insert_with(new);
            group.letters += 1;
            group.oldest = group.oldest.min(letter.at);
            group.newest = group.newest.max(letter.at);
            group.example = letter.id.or_else(|| group.example.take());
        }
        let is_to_be_shown = is_first && looked_at.is_multiple_of(LETTERS_PER_SHOWING as u64);
        if is_through || is_to_be_shown {
            let mut groups: Vec<DeadGroup> = groups.values().cloned().collect();
            groups.sort_by_key(|group| std::cmp::Reverse(group.letters));
            let all = DeadGroups { groups, looked_at, is_through, at: Timestamp::now(), mark: mark.clone() };
            scan.latest.send_replace(Some(Arc::new(all)));
        }
        if is_through {
            return Ok(());
        }
        is_first &= scan.latest.borrow().as_ref().is_none_or(|latest| !latest.is_through);
        // Between two reads others have their turn.
        tokio::task::yield_now().await;
    }
}

/// What a reason has in common with others of its kind: addresses, quoted texts and long numbers are left out.
pub(super) fn reason_group(reason: &str) -> String {
    const CHARS_MAX: usize = 160;
    let line = reason.lines().next().unwrap_or_default();
    let mut words: Vec<String> = Vec::new();
    let mut quote = None;
    for word in line.split_whitespace() {
        let opens = word.chars().next().filter(|c| ['"', '\'', '`', '“'].contains(c));
        if quote.is_none() && opens.is_some() {
            quote = opens.map(|c| if c == '“' { '”' } else { c });
            words.push("“…”".to_owned());
            if word.chars().count() == 1 {
                continue;
            }
        } else if quote.is_none() {
            let digits = word.bytes().filter(u8::is_ascii_digit).count();
            let is_hex = word.len() >= 8 && digits > 0 && word.bytes().all(|byte| byte.is_ascii_hexdigit());
            let is_own = word.contains("://") || digits >= 5 || is_hex;
            words.push(if is_own { "…".to_owned() } else { word.to_owned() });
        }
        let trimmed = word.trim_end_matches([',', ':', ';', '.', ')', ']']);
        if quote.is_some_and(|quote| trimmed.ends_with(quote) && (opens.is_none() || trimmed.chars().count() > 1)) {
            quote = None;
        }
    }
    let group = words.join(" ");
    if group.is_empty() { "(no reason)".to_owned() } else { group.chars().take(CHARS_MAX).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_that_differ_in_what_they_are_about_are_one_group() {
        for (reason, group) in [
            ("HTTP 503 from https://a.example/1", "HTTP 503 from …"),
            ("HTTP 404 from https://a.example/2", "HTTP 404 from …"),
            ("no field \"a b\" in item", "no field “…” in item"),
            ("no field \"c\": in item", "no field “…” in item"),
            ("lost 1795492693614 and deadbeef01", "lost … and …"),
            ("panicked\nat line 7", "panicked"),
            ("", "(no reason)"),
            ("\" open", "“…”"),
        ] {
            assert_eq!(reason_group(reason), group, "{reason:?}");
        }
        assert!(reason_group(&"ä ".repeat(500)).chars().count() <= 160);
    }
}
