//! Looking at a queue: lists and searches page by page, events, series, what is said of a job, who works.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use feedmill::{
    job::{EntryId, Envelope, JobId, JobOptions, Keep, Outcome},
    queue::{
        Events, Order, Queue, QueueError, QueueOptions, Redis, Settled,
        claim::ClaimLimits,
        consumers::{Consumer, HEARTBEAT_LIFETIME},
        enqueue::{Deduplication, Enqueued, NewJob},
        events::{After, Event},
        find::State,
        groups::GroupCounts,
        limits::{Limits, Rate, SetBy},
        list::{Cursor, CursorError, ListState, Listed, Standing},
        progress::{LINE_BYTES_MAX, LINES_KEPT, LogLine, PROGRESS_BYTES_MAX},
        search::{Filter, Matches},
        series::{Point, SERIES_KEPT, SeriesOf},
        settle::{BackOff, Burial, Done},
    },
};
use redis::AsyncCommands;
use serde_json::json;

use crate::support::{
    audit::assert_sound,
    jobs::{PAYLOAD_MAX, add, add_many, connection, done, id, new_job, queue, queue_at, queue_with, read, read_one},
    redis_prefix,
    servers::{OwnRedis, on_each_redis},
    wait::until,
    workers::{each, options},
};

const BOTH: [Order; 2] = [Order::Ascending, Order::Descending];

/// The whole list, by pages of so many.
async fn walk(queue: &Queue, state: ListState, order: Order, page: usize) -> Vec<Listed> {
    let (mut jobs, mut cursor) = (Vec::new(), None);
    loop {
        let read = queue.list(state, order, cursor.as_ref(), page).await.unwrap();
        assert!(read.jobs.len() <= page, "a page has at most what was asked for");
        jobs.extend(read.jobs);
        let Some(next) = read.next else { return jobs };
        // as text, as every caller keeps it
        cursor = Some(next.to_string().parse().unwrap());
    }
}

fn ids(jobs: &[Listed]) -> Vec<String> {
    jobs.iter().map(|job| job.id.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string)).collect()
}

/// Checks that a list holds these jobs, upwards, downwards, and in pages of any size.
async fn assert_listed(queue: &Queue, state: ListState, wanted: &[&str]) {
    for page in [1, 2, 3, 256] {
        let mut wanted = wanted.to_vec();
        assert_eq!(ids(&walk(queue, state, Order::Ascending, page).await), wanted, "{state}, {page} a page");
        wanted.reverse();
        assert_eq!(ids(&walk(queue, state, Order::Descending, page).await), wanted, "{state} downwards, {page} a page");
    }
}

/// Adds jobs that have something special.
async fn add_with<'a>(queue: &Queue, jobs: &[&'a str], special: impl Fn(NewJob<'a>) -> NewJob<'a>) {
    let jobs: Vec<NewJob<'a>> = jobs.iter().map(|job| special(new_job(&id(job)))).collect();
    let added = queue.add(&jobs, PAYLOAD_MAX).await.unwrap();
    assert!(added.iter().all(|added| *added == Enqueued::Enqueued), "{added:?}");
}

async fn add_grouped(queue: &Queue, group: &'static str, jobs: &[&str]) {
    add_with(queue, jobs, |job| NewJob { group: Some(group), ..job }).await;
}

// ── lists ──────────────────────────────────────────────────────────────────────────────────────────────────────────

async fn every_job_is_in_the_list_of_its_state_once_and_in_order(url: &str) {
    let redis = Redis::connect(url, &redis_prefix()).await.unwrap();
    let window = QueueOptions { group_window: Some(2), ..QueueOptions::default() };
    let queue = Queue::open(&redis, "jobs", window).await.unwrap();
    for state in ListState::ALL {
        assert_listed(&queue, state, &[]).await;
    }
    add_many(&queue, "first", 6).await;
    add_with(&queue, &["urgent-0", "urgent-1"], |job| NewJob { priority: 1, ..job }).await;
    let held = read(&mut queue.reader("worker"), 7).await;
    let lease = |name: &str| held.iter().find(|delivery| delivery.job.id == id(name)).unwrap().lease.clone();
    // within one millisecond they stand by their ids
    queue.done(&[Done::new(lease("first-0"))], Keep::All).await.unwrap();
    queue.done(&[Done::new(lease("first-3"))], Keep::All).await.unwrap();
    let burial = |name: &str| Burial {
        lease: lease(name),
        reason: format!("{name} is hopeless"),
        exhausted: false,
        dedup: None,
    };
    queue.bury("worker", &[burial("first-1")]).await.unwrap();
    queue.bury("worker", &[burial("first-2")]).await.unwrap();
    let wait = Duration::from_hours(2);
    queue.back_off(&[BackOff { lease: lease("first-4"), wait, reason: Some("not yet".to_owned()) }]).await.unwrap();
    add_with(&queue, &["late"], |job| NewJob { delay: Duration::from_hours(3), ..job }).await;
    add_with(&queue, &["soon"], |job| NewJob { delay: Duration::from_hours(1), ..job }).await;
    add_with(&queue, &["low", "lower"], |job| NewJob { priority: 9, ..job }).await;
    add_with(&queue, &["high"], |job| NewJob { priority: 3, ..job }).await;
    add_grouped(&queue, "b", &["b-0", "b-1", "b-2", "b-3"]).await;
    add_grouped(&queue, "a", &["a-0", "a-1", "a-2"]).await;
    add_grouped(&queue, "Z", &["Z-0", "Z-1", "Z-2"]).await;
    add_grouped(&queue, "ä", &["ä-0", "ä-1", "ä-2"]).await;
    add(&queue, "last").await;

    let waiting = ["first-5", "b-0", "b-1", "a-0", "a-1", "Z-0", "Z-1", "ä-0", "ä-1", "last"];
    let parked = ["Z-2", "a-2", "b-2", "b-3", "ä-2"];
    assert_listed(&queue, ListState::Waiting, &[&waiting[..], &parked[..]].concat()).await;
    assert_listed(&queue, ListState::Prioritized, &["high", "low", "lower"]).await;
    assert_listed(&queue, ListState::Active, &["urgent-0", "urgent-1"]).await;
    assert_listed(&queue, ListState::Delayed, &["soon", "first-4", "late"]).await;
    assert_listed(&queue, ListState::Completed, &["first-0", "first-3"]).await;
    assert_listed(&queue, ListState::Failed, &["first-1", "first-2"]).await;

    let listed = walk(&queue, ListState::Waiting, Order::Ascending, 256).await;
    assert!(listed[..waiting.len()].iter().all(|job| job.standing == Standing::Waiting && job.entry.is_some()));
    assert!(listed[waiting.len()..].iter().all(|job| job.standing == Standing::Parked && job.entry.is_none()));
    assert!(listed.iter().all(|job| job.state() == ListState::Waiting && job.job.is_some() && job.error().is_none()));
    let active = walk(&queue, ListState::Active, Order::Ascending, 256).await;
    for job in &active {
        let Standing::Active(holder) = &job.standing else { panic!("{:?}", job.standing) };
        assert_eq!(holder.consumer, "worker");
        assert!(holder.idle < Duration::from_mins(1), "{holder:?}");
        assert_eq!(queue.find(job.id.as_ref().unwrap()).await.unwrap().unwrap().holder.unwrap().consumer, "worker");
    }
    let delayed = walk(&queue, ListState::Delayed, Order::Ascending, 256).await;
    assert_eq!((delayed[1].error(), delayed[1].job.as_ref().unwrap().head.attempts), (Some("not yet"), 1));
    let now = queue.time().await.unwrap();
    let Standing::Delayed { due_at } = delayed[1].standing else { panic!("{:?}", delayed[1]) };
    assert!(due_at > now + wait - Duration::from_mins(1) && due_at <= now + wait, "{due_at:?}");
    let failed = walk(&queue, ListState::Failed, Order::Ascending, 256).await;
    let Standing::Failed(letter) = &failed[0].standing else { panic!("{:?}", failed[0]) };
    assert_eq!((letter.reason.as_str(), letter.consumer.as_str()), ("first-1 is hopeless", "worker"));
    assert_eq!(failed[0].error(), Some("first-1 is hopeless"));
    let completed = walk(&queue, ListState::Completed, Order::Ascending, 256).await;
    let Standing::Completed { finished_at } = completed[0].standing else { panic!("{:?}", completed[0]) };
    assert!(finished_at <= now && finished_at > now - Duration::from_mins(1), "{finished_at:?}");
    assert_sound(&queue).await;
}

async fn jobs_that_stay_are_listed_once_while_others_come_and_go(url: &str) {
    let queue = queue_at(url).await;
    // one call: all are due at the same time, so their ids alone say how they stand, by their bytes
    let names: Vec<String> =
        (0..30_u8).map(|n| format!("{}-{n}", ["a", "B", "ä", "Ä", "-", "é", "z"][usize::from(n) % 7])).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    add_with(&queue, &names, |job| NewJob { delay: Duration::from_hours(1), ..job }).await;
    let mut in_order = names.clone();
    in_order.sort_by_key(|name| name.as_bytes().to_vec());
    assert_listed(&queue, ListState::Delayed, &in_order).await;

    let mut redis = connection(&queue).await;
    for order in BOTH {
        let mut left: BTreeSet<String> = ids(&walk(&queue, ListState::Delayed, order, 256).await).into_iter().collect();
        let (mut seen, mut cursor) = (Vec::new(), None);
        loop {
            let page = queue.list(ListState::Delayed, order, cursor.as_ref(), 3).await.unwrap();
            let last = page.jobs.last().and_then(|job| job.id.clone());
            seen.extend(ids(&page.jobs));
            // what the page ended with goes, and so does the one at the other end that nobody has seen yet
            let other_end = if order == Order::Ascending { -1 } else { 0 };
            let far: Vec<Vec<u8>> = redis.zrange(queue.keys().delayed(), other_end, other_end).await.unwrap();
            let gone = last.into_iter().chain(far.into_iter().map(|name| JobId::new(name).unwrap()));
            for job in gone {
                let () = redis.zrem(queue.keys().delayed(), job.as_bytes()).await.unwrap();
                let () = redis.del(queue.keys().job(&job)).await.unwrap();
                left.remove(&job.to_string());
            }
            cursor = page.next;
            if cursor.is_none() {
                break;
            }
        }
        let stayed: Vec<&String> = seen.iter().filter(|name| left.contains(*name)).collect();
        assert_eq!(stayed.len(), left.len(), "{order:?}: each of {left:?} once in {seen:?}");
        assert_eq!(stayed.into_iter().collect::<BTreeSet<_>>().len(), left.len(), "{order:?}");
        assert_eq!(seen.iter().collect::<BTreeSet<_>>().len(), seen.len(), "{order:?}: nothing twice");
    }
}

async fn a_walk_through_the_waiting_goes_on_where_it_was_while_they_are_taken_and_added(url: &str) {
    let queue = queue_at(url).await;
    add_many(&queue, "job", 9).await;
    let page = queue.list(ListState::Waiting, Order::Ascending, None, 3).await.unwrap();
    assert_eq!(ids(&page.jobs), ["job-0", "job-1", "job-2"]);
    let held = read(&mut queue.reader("worker"), 5).await;
    add(&queue, "new").await;
    let rest = queue.list(ListState::Waiting, Order::Ascending, page.next.as_ref(), 256).await.unwrap();
    assert_eq!(ids(&rest.jobs), ["job-5", "job-6", "job-7", "job-8", "new"], "3 and 4 are active now");
    assert_eq!(rest.next, None);
    // downwards, what is added is behind us and what is taken is before us
    let page = queue.list(ListState::Waiting, Order::Descending, None, 2).await.unwrap();
    assert_eq!(ids(&page.jobs), ["new", "job-8"]);
    add(&queue, "newer").await;
    done(&queue, held.into_iter().map(|delivery| (delivery.lease, None))).await.unwrap();
    read(&mut queue.reader("worker"), 1).await;
    let rest = queue.list(ListState::Waiting, Order::Descending, page.next.as_ref(), 256).await.unwrap();
    assert_eq!(ids(&rest.jobs), ["job-7", "job-6"]);
}

async fn what_waits_is_listed_while_the_queue_is_paused_or_limited(url: &str) {
    let queue = queue_at(url).await;
    add_many(&queue, "job", 4).await;
    read(&mut queue.reader("worker"), 1).await;
    queue.pause().await.unwrap();
    add(&queue, "later").await;
    assert_listed(&queue, ListState::Waiting, &["job-1", "job-2", "job-3", "later"]).await;
    assert_listed(&queue, ListState::Active, &["job-0"]).await;
    queue.resume().await.unwrap();
    let limits = Limits { rate: Some(Rate { max: 2, duration: Duration::from_hours(1) }), ..Limits::default() };
    queue.set_limits(limits, SetBy::Operator).await.unwrap();
    assert_eq!(read(&mut queue.reader("worker"), 10).await.len(), 2);
    assert_listed(&queue, ListState::Waiting, &["job-3", "later"]).await;
    assert_listed(&queue, ListState::Active, &["job-0", "job-1", "job-2"]).await;
    assert_sound(&queue).await;
}

on_each_redis! {
    every_job_is_in_the_list_of_its_state_once_and_in_order,
    jobs_that_stay_are_listed_once_while_others_come_and_go,
    a_walk_through_the_waiting_goes_on_where_it_was_while_they_are_taken_and_added,
    what_waits_is_listed_while_the_queue_is_paused_or_limited,
}

#[tokio::test]
async fn a_listed_job_says_what_it_is_and_how_large_without_its_payload() {
    let queue = queue().await;
    let payload = vec![b'x'; 300_000];
    let options = JobOptions { attempts: Some(7), ..JobOptions::default() };
    let encoded = options.encode();
    let enqueued_at = UNIX_EPOCH + Duration::from_millis(1_795_492_693_614);
    let envelope = Envelope {
        payload: &payload,
        fingerprint: Some([9; 7]),
        enqueued_at: Some(enqueued_at),
        name: Some("thumbnail"),
        feed: Some("board"),
        options: Some(&encoded),
        traceparent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
    };
    let large = NewJob { priority: 5, ..NewJob::new(id("large"), envelope) };
    queue.add(&[large], PAYLOAD_MAX).await.unwrap();
    for bytes in [0_usize, 1, 255, 256, 65_535, 65_536] {
        let envelope = Envelope { payload: &payload[..bytes], ..Envelope::default() };
        queue.add(&[NewJob::new(id(format!("{bytes}")), envelope)], PAYLOAD_MAX).await.unwrap();
    }
    let listed = walk(&queue, ListState::Prioritized, Order::Ascending, 1).await.remove(0).job.unwrap();
    assert_eq!((listed.payload_bytes, listed.enqueued_at, listed.head.priority), (300_000, enqueued_at, 5));
    assert_eq!((listed.name.as_deref(), listed.feed.as_deref()), (Some("thumbnail"), Some("board")));
    assert_eq!(listed.options.as_deref(), Some(&options));
    for job in walk(&queue, ListState::Waiting, Order::Ascending, 256).await {
        assert_eq!(job.id.unwrap().to_string(), job.job.unwrap().payload_bytes.to_string());
    }
}

#[tokio::test]
async fn the_titles_of_listed_jobs_are_read_from_the_front_of_payloads_of_any_size() {
    let queue = queue().await;
    let large = json!({ "source": "s", "title": "Large", "zone": "x".repeat(300_000) });
    let payloads = [
        ("json", serde_json::to_vec(&large).unwrap()),
        ("packed", rmp_serde::to_vec_named(&large).unwrap()),
        ("none", b"{\"n\":1}".to_vec()),
        ("far", json!({ "a": "x".repeat(5000), "title": "Far" }).to_string().into_bytes()),
        ("broken", json!({ "title": "Broken" }).to_string().into_bytes()),
    ];
    for (name, payload) in &payloads {
        let envelope = Envelope { payload, name: Some("kind"), ..Envelope::default() };
        // the front of the value is as long as it can be
        let job = NewJob { priority: 3, group: Some("a long group of this job"), ..NewJob::new(id(name), envelope) };
        queue.add(&[job], PAYLOAD_MAX).await.unwrap();
    }
    let mut redis = connection(&queue).await;
    for plain in [r#"{"source":"x","guid":"1","title":"Plain"}"#, r#"{"source":"x","guid":"2"}"#] {
        let _: String = redis.xadd(queue.keys().stream(), "*", &[("json", plain)]).await.unwrap();
    }
    let titles = async |state: ListState| {
        let mut listed = walk(&queue, state, Order::Ascending, 256).await;
        assert!(listed.iter().all(|job| job.title.is_none()), "nobody asked");
        if state == ListState::Prioritized {
            // between the list and its titles, one key becomes something else
            let () = redis::pipe()
                .del(queue.keys().job(&id("broken")))
                .lpush(queue.keys().job(&id("broken")), "x")
                .query_async(&mut connection(&queue).await)
                .await
                .unwrap();
        }
        queue.read_titles(&mut listed).await.unwrap();
        let titled = |job: Listed| (job.id.map_or_else(|| "-".to_owned(), |id| id.to_string()), job.title);
        listed.into_iter().map(titled).collect::<Vec<_>>()
    };
    let row = |id: &str, title: Option<&str>| (id.to_owned(), title.map(str::to_owned));
    let wanted = [
        row("json", Some("Large")),
        row("packed", Some("Large")),
        row("none", None),
        row("far", None),
        row("broken", None),
    ];
    assert_eq!(titles(ListState::Prioritized).await, wanted);
    assert_eq!(titles(ListState::Waiting).await, [row("-", Some("Plain")), row("-", None)]);
}

#[tokio::test]
async fn what_is_no_job_yet_or_any_more_is_listed_as_what_it_is() {
    let queue = queue().await;
    let mut redis = connection(&queue).await;
    let stream = queue.keys().stream();
    let plain = r#"{"source":"x","guid":"1"}"#;
    let _: String = redis.xadd(stream, "*", &[("json", plain)]).await.unwrap();
    add_many(&queue, "job", 3).await;
    let () = redis.del(queue.keys().job(&id("job-0"))).await.unwrap();
    let () = redis.set(queue.keys().job(&id("job-1")), "not a head").await.unwrap();
    let _: String = redis.xadd(stream, "*", &[("id", "job-2")]).await.unwrap(); // its head names another entry
    let _: String = redis.xadd(stream, "*", &[("neither", "nor")]).await.unwrap();
    let _: String = redis.xadd(stream, "*", &[("also", "this"), ("id", "")]).await.unwrap();
    let listed = walk(&queue, ListState::Waiting, Order::Ascending, 256).await;
    assert_eq!(ids(&listed), ["-", "job-0", "job-1", "job-2", "job-2", "-", "-"]);
    assert_eq!(listed[0].standing, Standing::NotAdopted { json: plain.as_bytes().to_vec() });
    assert!(listed[1..].iter().all(|job| job.standing == Standing::Waiting));
    let known: Vec<bool> = listed.iter().map(|job| job.job.is_some()).collect();
    assert_eq!(known, [false, false, false, true, false, false, false], "the entry that its head names is the job");
}

#[tokio::test]
async fn large_entries_make_short_pages_and_none_is_left_out() {
    let queue = queue().await;
    let mut redis = connection(&queue).await;
    let large = format!("{{\"t\":\"{}\"}}", "x".repeat(100_000));
    for _ in 0..40 {
        let _: String = redis.xadd(queue.keys().stream(), "*", &[("json", large.as_str())]).await.unwrap();
    }
    let page = queue.list(ListState::Waiting, Order::Ascending, None, 256).await.unwrap();
    assert!(page.jobs.len() < 10, "{} jobs of 100 kB", page.jobs.len());
    assert!(page.next.is_some());
    for order in BOTH {
        let listed = walk(&queue, ListState::Waiting, order, 256).await;
        let entries: BTreeSet<EntryId> = listed.iter().map(|job| job.entry.unwrap()).collect();
        assert_eq!((listed.len(), entries.len()), (40, 40), "{order:?}");
        let fronts = listed.iter().map(|job| match &job.standing {
            Standing::NotAdopted { json } => json.len(),
            other => panic!("{other:?}"),
        });
        assert_eq!(fronts.max(), Some(1024), "only the front of each");
    }
}

#[tokio::test]
async fn entries_that_a_client_acknowledged_by_hand_are_not_listed_as_active_and_hide_nothing() {
    let queue = queue().await;
    add_many(&queue, "job", 1500).await;
    let mut reader = queue.reader("worker");
    let mut read_jobs = 0;
    while read_jobs < 1500 {
        read_jobs += read(&mut reader, 256).await.len();
    }
    let mut redis = connection(&queue).await;
    for job in walk(&queue, ListState::Active, Order::Ascending, 256).await.into_iter().take(1400) {
        let () =
            redis.xack(queue.keys().stream(), feedmill::queue::GROUP, &[job.entry.unwrap().to_string()]).await.unwrap();
    }
    for order in BOTH {
        let mut listed = ids(&walk(&queue, ListState::Active, order, 7).await);
        if order == Order::Descending {
            listed.reverse();
        }
        assert_eq!(listed, (1400..1500).map(|n| format!("job-{n}")).collect::<Vec<_>>(), "{order:?}");
    }
}

#[tokio::test]
async fn a_cursor_of_another_list_is_refused() {
    let queue = queue().await;
    add_many(&queue, "job", 3).await;
    let next = queue.list(ListState::Waiting, Order::Ascending, None, 1).await.unwrap().next.unwrap();
    for (state, order) in [(ListState::Delayed, Order::Ascending), (ListState::Waiting, Order::Descending)] {
        let error = queue.list(state, order, Some(&next), 1).await.unwrap_err();
        assert!(matches!(error, QueueError::Cursor(CursorError::OtherList { .. })), "{error}");
        assert_eq!(
            error.to_string(),
            "the cursor belongs to a list of waiting jobs upwards; go on with that, or begin without a cursor"
        );
    }
    let filter = Filter { state: Some(ListState::Failed), ..Filter::default() };
    assert!(matches!(queue.search(&filter, Some(&next), 1).await.unwrap_err(), QueueError::Cursor(_)));
}

// ── search ─────────────────────────────────────────────────────────────────────────────────────────────────────────

/// Everything that a search finds, so many a step, and how many jobs it looked at.
async fn search(queue: &Queue, filter: &Filter, limit: usize) -> (Vec<String>, usize) {
    let (mut found, mut looked) = (Vec::new(), 0);
    let mut cursor: Option<Cursor> = None;
    loop {
        let Matches { jobs, looked: here, next } = queue.search(filter, cursor.as_ref(), limit).await.unwrap();
        assert!(jobs.len() <= limit && here <= 128, "a step is bounded");
        found.extend(ids(&jobs));
        looked += here;
        cursor = next;
        if cursor.is_none() {
            return (found, looked);
        }
    }
}

#[tokio::test]
async fn a_search_finds_jobs_by_id_group_error_and_state_and_says_how_many_it_looked_at() {
    let queue = queue_with(QueueOptions { group_window: Some(100), ..QueueOptions::default() }).await;
    add_many(&queue, "https://a.example/feed#1", 300).await;
    add_many(&queue, "https://b.example/feed#2", 3).await;
    add_grouped(&queue, "b", &["grouped-0", "grouped-1"]).await;
    add_with(&queue, &["delayed"], |job| NewJob { delay: Duration::from_hours(1), group: Some("b"), ..job }).await;
    add_with(&queue, &["first"], |job| NewJob { priority: 1, ..job }).await;
    let held = read(&mut queue.reader("worker"), 4).await;
    let lease = |at: usize| held[at].lease.clone();
    let wait = Duration::from_hours(1);
    let timed_out = |what: &str| format!("{what} Timed out after 10s");
    queue.back_off(&[BackOff { lease: lease(1), wait, reason: Some(timed_out("GET")) }]).await.unwrap();
    let burial = Burial { lease: lease(2), reason: timed_out("PUT"), exhausted: true, dedup: None };
    queue.bury("worker", &[burial]).await.unwrap();

    let all = 300 + 3 + 2 + 2;
    for limit in [1, 2, 256] {
        let by_prefix = Filter { id_prefix: b"https://b.example/feed#".to_vec(), ..Filter::default() };
        let found = ["https://b.example/feed#2-0", "https://b.example/feed#2-1", "https://b.example/feed#2-2"];
        assert_eq!(search(&queue, &by_prefix, limit).await, (found.map(str::to_owned).to_vec(), all), "{limit}");
        let by_group = Filter { group: Some(b"b".to_vec()), ..Filter::default() };
        assert_eq!(search(&queue, &by_group, limit).await.0, ["grouped-0", "grouped-1", "delayed"], "{limit}");
        let by_error = Filter { error: Some("TIMED out".to_owned()), ..Filter::default() };
        let (backs_off, dead) = (lease(1).id.to_string(), lease(2).id.to_string());
        assert_eq!(search(&queue, &by_error, limit).await.0, [backs_off, dead.clone()], "{limit}");
        let dead_only = Filter { state: Some(ListState::Failed), ..by_error };
        assert_eq!(search(&queue, &dead_only, limit).await, (vec![dead], 1), "{limit}");
        assert_eq!(search(&queue, &Filter::default(), limit).await.0.len(), all, "{limit}");
    }
}

// ── counts ─────────────────────────────────────────────────────────────────────────────────────────────────────────

#[tokio::test]
async fn jobs_are_counted_by_priority() {
    let queue = queue().await;
    add_many(&queue, "plain", 2).await;
    add_with(&queue, &["a", "b", "c"], |job| NewJob { priority: 7, ..job }).await;
    add_with(&queue, &["d"], |job| NewJob { priority: 8, ..job }).await;
    add_with(&queue, &["e"], |job| NewJob { priority: 2_097_151, ..job }).await;
    assert_eq!(queue.counts_per_priority(&[7, 0, 8, 9, 2_097_151, 6]).await.unwrap(), [3, 2, 1, 0, 1, 0]);
    assert!(queue.counts_per_priority(&[]).await.unwrap().is_empty());
}

#[tokio::test]
async fn the_largest_groups_are_named_and_the_fullest_ones() {
    let queue = queue_with(QueueOptions { group_window: Some(2), ..QueueOptions::default() }).await;
    assert!(queue.top_groups(3).await.unwrap().groups.is_empty());
    add_grouped(&queue, "one", &["one-0"]).await;
    add_grouped(&queue, "two", &["two-0", "two-1"]).await;
    add_grouped(&queue, "four", &["four-0", "four-1", "four-2", "four-3"]).await;
    add_grouped(&queue, "six", &["six-0", "six-1", "six-2", "six-3", "six-4", "six-5"]).await;
    let counts = |group: &str, members, parked| GroupCounts { group: group.as_bytes().to_vec(), members, parked };
    let top = queue.top_groups(3).await.unwrap();
    assert_eq!(top.groups, [counts("four", 2, 2), counts("six", 2, 4), counts("two", 2, 0)]);
    assert_eq!((top.looked, top.is_through), (4, true));
    let parked = queue.top_parked_groups(1).await.unwrap();
    assert_eq!((parked.groups, parked.looked, parked.is_through), (vec![counts("six", 2, 4)], 2, true));
    // what leaves makes room, and at last nothing is parked of a group
    for _ in 0..4 {
        let held = read(&mut queue.reader("worker"), 256).await;
        done(&queue, held.into_iter().map(|delivery| (delivery.lease, None))).await.unwrap();
    }
    assert_eq!(queue.top_parked_groups(9).await.unwrap().groups, []);
    assert_sound(&queue).await;
}

#[tokio::test]
async fn a_deduplication_id_names_its_owner_until_it_is_freed() {
    let queue = queue().await;
    assert_eq!(queue.dedup_owner("d").await.unwrap(), None);
    assert!(!queue.free_dedup("d").await.unwrap());
    add_with(&queue, &["a"], |job| NewJob { dedup: Some(Deduplication::simple("d")), ..job }).await;
    let second = NewJob { dedup: Some(Deduplication::simple("d")), ..new_job(&id("b")) };
    let deduplicated = [Enqueued::Deduplicated(id("a"))];
    assert_eq!(queue.add(std::slice::from_ref(&second), PAYLOAD_MAX).await.unwrap(), deduplicated);
    assert_eq!(queue.dedup_owner("d").await.unwrap(), Some(id("a")));
    assert!(queue.free_dedup("d").await.unwrap());
    assert_eq!(queue.add(&[second], PAYLOAD_MAX).await.unwrap(), [Enqueued::Enqueued]);
    assert_eq!(queue.dedup_owner("d").await.unwrap(), Some(id("b")));
}

#[tokio::test]
async fn queues_are_registered_when_they_are_opened() {
    let queue = queue().await;
    let redis = queue.redis();
    for name in ["b", "a"] {
        Queue::open(redis, name, Events::Off).await.unwrap();
    }
    assert_eq!(redis.registered_queues().await.unwrap(), ["a", "b", "jobs"]);
    assert!(redis.has_queue("a").await.unwrap());
    assert!(!redis.has_queue("c").await.unwrap());
}

// ── events ─────────────────────────────────────────────────────────────────────────────────────────────────────────

/// A queue that tells everything.
async fn telling_queue() -> Queue {
    queue_with(Events::All.into()).await
}

/// Name and fields of an event, without those that hold a time.
fn told(event: &Event) -> String {
    let fields = event.fields.iter().map(|(name, value)| match name.as_str() {
        "delay" => format!(" {name}"),
        _ => format!(" {name}={value}"),
    });
    event.name.clone() + &fields.collect::<String>()
}

/// What was told of each job, in order.
async fn told_by_job(queue: &Queue) -> BTreeMap<String, Vec<String>> {
    let mut told_of: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut reader = queue.events(After::BEGINNING);
    loop {
        let events = reader.read(None).await.unwrap();
        if events.is_empty() {
            return told_of;
        }
        for event in events {
            let of = event.job.as_ref().map_or_else(|| "queue".to_owned(), ToString::to_string);
            told_of.entry(of).or_default().push(told(&event));
        }
    }
}

#[tokio::test]
async fn events_are_read_from_now_and_from_any_that_was_read_before() {
    let queue = telling_queue().await;
    add(&queue, "before").await;
    let mut reader = queue.events(After::Now);
    assert!(reader.read(None).await.unwrap().is_empty());
    let waiting = tokio::spawn(async move {
        let events = reader.read(Some(Duration::from_secs(5))).await.unwrap();
        (events, reader)
    });
    let names = |events: &[Event]| events.iter().map(|event| event.name.clone()).collect::<Vec<_>>();
    add(&queue, "a").await;
    let (mut events, mut reader) = waiting.await.unwrap();
    while events.len() < 2 {
        events.extend(reader.read(None).await.unwrap());
    }
    assert_eq!(names(&events), ["added", "waiting"]);
    assert_eq!(events[0].job, Some(id("a")));
    assert_eq!(events[0].field("name"), Some(""));
    assert_eq!(reader.position(), After::Event(events[1].id));
    let again = queue.events(After::Event(events[0].id)).read(None).await.unwrap();
    assert_eq!(again, events[1..]);
    assert_eq!(queue.newest_events(None, 3).await.unwrap()[1..], events[..]);

    assert_eq!(queue.trim_events(1).await.unwrap(), 3);
    assert_eq!(queue.events(After::BEGINNING).read(None).await.unwrap(), events[1..]);
    // a reader that stands on an event that is gone goes on behind it
    add(&queue, "b").await;
    assert_eq!(names(&reader.read(None).await.unwrap()), ["added", "waiting"]);
}

#[tokio::test]
async fn the_events_of_a_job_are_bullmqs_in_the_order_of_its_moves() {
    let queue = telling_queue().await;
    let named = |name: &'static str| Envelope { payload: b"{}", name: Some(name), ..Envelope::default() };
    let jobs = [
        NewJob::new(id("good"), named("work")),
        NewJob::new(id("twice"), named("work")),
        NewJob::new(id("bad"), named("work")),
        NewJob { priority: 3, ..NewJob::new(id("urgent"), named("work")) },
        NewJob { delay: Duration::from_millis(1), ..NewJob::new(id("later"), named("work")) },
    ];
    queue.add(&jobs, PAYLOAD_MAX).await.unwrap();
    add(&queue, "good").await;
    let teller = queue.clone();
    let worker = each(&queue, options(), move |delivery| {
        let queue = teller.clone();
        async move {
            let name = delivery.job.id.to_string();
            Ok(match (name.as_str(), delivery.job.attempt()) {
                ("twice", 1) => Outcome::Retry("not yet".to_owned()),
                ("bad", _) => Outcome::Retry("no".to_owned()),
                ("good", _) => {
                    assert_eq!(queue.set_progress(&delivery.lease, "{\"at\":1}").await.unwrap(), Settled::Settled);
                    Outcome::DoneWith("7".to_owned())
                }
                _ => Outcome::Done,
            })
        }
    });
    until(Duration::from_secs(20), async || {
        let counts = queue.counts().await.unwrap();
        counts.is_idle() && counts.failed == 1
    })
    .await;
    worker.stop().await;

    let told = told_by_job(&queue).await;
    let of = |job: &str| told[job].iter().map(String::as_str).collect::<Vec<_>>();
    let (added, active, waits) = ("added name=work", "active prev=waiting", "waiting prev=delayed");
    let done = "completed returnvalue=null prev=active";
    let progress = "progress data={\"at\":1}";
    assert_eq!(of("good"), [added, "waiting", "duplicated", active, progress, "completed returnvalue=7 prev=active"]);
    assert_eq!(of("urgent"), [added, "waiting", active, done]);
    assert_eq!(of("later"), [added, "delayed delay", waits, active, done]);
    assert_eq!(of("twice"), [added, "waiting", active, "delayed delay failedReason=not yet", waits, active, done]);
    let failed = "delayed delay failedReason=no";
    assert_eq!(
        of("bad"),
        [
            added,
            "waiting",
            active,
            failed,
            waits,
            active,
            failed,
            waits,
            active,
            "failed failedReason=no prev=active",
            "retries-exhausted attemptsMade=3"
        ]
    );
    assert_eq!(of("queue").last(), Some(&"drained"));
    assert_sound(&queue).await;
}

#[tokio::test]
async fn a_stalled_job_and_one_that_is_given_back_are_told_to_wait_again() {
    let queue = telling_queue().await;
    add_many(&queue, "job", 3).await;
    let held = read(&mut queue.reader("worker"), 3).await;
    queue.give_back(&[held[0].lease.clone()]).await.unwrap();
    let limits =
        ClaimLimits { lock_duration: Duration::ZERO, stalled_interval: Duration::from_millis(1), max_stalled_count: 1 };
    queue.sweeper("other", limits).sweep().await.unwrap();
    let wait_again = ["added name=", "waiting", "waiting prev=active"];
    let told = told_by_job(&queue).await;
    assert_eq!(told["job-0"], wait_again);
    assert_eq!(told["job-1"], [&wait_again[..], &["stalled"]].concat());
    let () = connection(&queue).await.del(queue.keys().sweep()).await.unwrap();
    read(&mut queue.reader("worker"), 3).await;
    queue.sweeper("other", limits).sweep().await.unwrap();
    let told = told_by_job(&queue).await;
    let buried = ["stalled", "failed failedReason=job stalled more than allowable limit prev=active"];
    assert_eq!(told["job-2"][4..], buried);
    assert_sound(&queue).await;
}

#[tokio::test]
async fn deduplication_is_told_with_both_ids() {
    let queue = telling_queue().await;
    let hour = Duration::from_hours(1);
    let debounced =
        |job: &str| NewJob { delay: hour, dedup: Some(Deduplication::debounce("d", hour)), ..new_job(&id(job)) };
    queue.add(&[debounced("a"), debounced("b")], PAYLOAD_MAX).await.unwrap();
    let told = told_by_job(&queue).await;
    assert_eq!(told["a"], ["added name=", "delayed delay", "removed prev=delayed"]);
    assert_eq!(told["b"], ["deduplicated deduplicationId=d deduplicatedJobId=a", "added name=", "delayed delay"]);
}

#[tokio::test]
async fn a_queue_that_tells_failures_only_is_silent_about_the_rest() {
    let queue = queue().await;
    add(&queue, "a").await;
    let worker = each(&queue, options(), |_| async { Ok(Outcome::Done) });
    until(Duration::from_secs(10), async || queue.counts().await.unwrap().is_idle()).await;
    worker.stop().await;
    assert_eq!(queue.events(After::BEGINNING).read(None).await.unwrap(), []);
}

// ── series ─────────────────────────────────────────────────────────────────────────────────────────────────────────

#[tokio::test]
async fn a_series_has_a_point_for_each_minute_across_days_and_nothing_outside_of_what_is_kept() {
    let queue = queue().await;
    add_many(&queue, "job", 3).await;
    let held = read(&mut queue.reader("worker"), 3).await;
    let burial = Burial { lease: held[0].lease.clone(), reason: "no".to_owned(), exhausted: false, dedup: None };
    queue.bury("worker", &[burial]).await.unwrap();
    done(&queue, held[1..].iter().map(|delivery| (delivery.lease.clone(), None))).await.unwrap();
    let now = queue.time().await.unwrap();
    let minute = |at: SystemTime| at.duration_since(UNIX_EPOCH).unwrap().as_secs() / 60;
    let ended = |points: &[Point]| points.iter().map(|point| point.count).sum::<u64>();
    let last = |of| queue.series(of, now - Duration::from_mins(2), now + Duration::from_hours(1));
    let (completed, failed) = (last(SeriesOf::Completed).await.unwrap(), last(SeriesOf::Failed).await.unwrap());
    assert_eq!((ended(&completed), ended(&failed)), (2, 1));
    assert!((3..=4).contains(&completed.len()), "up to now: {completed:?}");

    let mut redis = connection(&queue).await;
    let today = minute(now) / 1440;
    let () = redis.hset(queue.keys().series(today - 2), "completed:1439", 5).await.unwrap();
    let () = redis.hset(queue.keys().series(today - 1), "completed:1", 6).await.unwrap();
    let at = |day: u64, minute: u64| UNIX_EPOCH + Duration::from_mins(day * 1440 + minute);
    let late = Duration::from_secs(59);
    let points = queue.series(SeriesOf::Completed, at(today - 2, 1438) + late, at(today - 1, 2) + late).await.unwrap();
    let expected =
        [(today - 2, 1438, 0), (today - 2, 1439, 5), (today - 1, 0, 0), (today - 1, 1, 6), (today - 1, 2, 0)];
    let expected = expected.map(|(day, minute, count)| Point { minute: at(day, minute), count });
    assert_eq!(points, expected);

    let all = queue.series(SeriesOf::Completed, UNIX_EPOCH, now).await.unwrap();
    let kept = SERIES_KEPT.as_secs() / 60 + 1;
    assert!((kept..=kept + 1).contains(&(all.len() as u64)), "{}", all.len());
    assert!(all.is_sorted_by(|a, b| b.minute == a.minute + Duration::from_mins(1)));
    assert_eq!(queue.series(SeriesOf::Failed, now, now - Duration::from_mins(5)).await.unwrap(), []);
    let expires: i64 = redis.pttl(queue.keys().series(today)).await.unwrap();
    assert!(expires > 0, "the numbers of a day go some day");
}

// ── progress and logs ──────────────────────────────────────────────────────────────────────────────────────────────

#[tokio::test]
async fn progress_and_log_lines_are_written_only_by_who_holds_the_job() {
    let queue = telling_queue().await;
    add(&queue, "a").await;
    let held = read_one(&queue, "worker").await.lease;
    assert_eq!(queue.set_progress(&held, "10").await.unwrap(), Settled::Settled);
    assert_eq!(queue.log(&held, "began", LINES_KEPT).await.unwrap(), Some(1));
    queue.give_back(std::slice::from_ref(&held)).await.unwrap();
    let new = read_one(&queue, "other").await.lease;
    assert_eq!(queue.set_progress(&held, "99").await.unwrap(), Settled::Lost);
    assert_eq!(queue.log(&held, "late", LINES_KEPT).await.unwrap(), None);
    assert_eq!(queue.log(&new, "took over", LINES_KEPT).await.unwrap(), Some(2));
    assert_eq!(queue.set_progress(&new.id, r#"{"of":"anybody"}"#).await.unwrap(), Settled::Settled);
    let log = queue.find(&new.id).await.unwrap().unwrap().log;
    assert_eq!((log.progress.as_deref(), log.lines_before), (Some(r#"{"of":"anybody"}"#), 0));
    assert_eq!(log.lines, ["began", "took over"]);
    let told = told_by_job(&queue).await;
    let progress: Vec<_> = told["a"].iter().filter(|told| told.starts_with("progress")).collect();
    assert_eq!(progress, ["progress data=10", "progress data={\"of\":\"anybody\"}"]);

    let nobody = id("nobody");
    assert_eq!(queue.set_progress(&nobody, "1").await.unwrap(), Settled::Lost);
    assert_eq!(queue.log(&nobody, "x", LINES_KEPT).await.unwrap(), None);
    let log_exists: bool = connection(&queue).await.exists(queue.keys().log(&nobody)).await.unwrap();
    assert!(!log_exists);
    let error = queue.set_progress(&new.id, "ten").await.unwrap_err().to_string();
    assert!(error.starts_with("the progress of job a cannot be set: no JSON: "), "{error}");
    let too_large = format!("\"{}\"", "x".repeat(PROGRESS_BYTES_MAX));
    let error = queue.set_progress(&new.id, &too_large).await.unwrap_err().to_string();
    assert!(error.ends_with("65538 bytes; the limit is 65536"), "{error}");
}

#[tokio::test]
async fn a_log_keeps_its_newest_lines_and_is_read_by_pages() {
    let queue = queue().await;
    add(&queue, "a").await;
    let job = id("a");
    assert_eq!(queue.log_lines(&job, None, 10).await.unwrap(), []);
    for n in 1..=25 {
        assert_eq!(queue.log(&job, &format!("line {n}"), 20).await.unwrap(), Some(n.min(20)));
    }
    let texts = |lines: Vec<LogLine>| lines.into_iter().map(|line| (line.number, line.text)).collect::<Vec<_>>();
    let numbered =
        |numbers: std::ops::RangeInclusive<u64>| numbers.map(|n| (n, format!("line {n}"))).collect::<Vec<_>>();
    assert_eq!(texts(queue.log_lines(&job, None, 15).await.unwrap()), numbered(11..=25));
    assert_eq!(texts(queue.log_lines(&job, Some(11), 15).await.unwrap()), numbered(6..=10), "those before are gone");
    assert_eq!(queue.log_lines(&job, Some(6), 15).await.unwrap(), []);
    let log = queue.find(&job).await.unwrap().unwrap().log;
    assert_eq!((log.lines.len(), log.lines_before), (20, 5));
    // fewer are kept from now on, and a long line is cut between two characters
    let text = format!("x{}", "é".repeat(4000));
    assert_eq!(queue.log(&job, &text, 3).await.unwrap(), Some(3));
    let lines = queue.log_lines(&job, None, 100).await.unwrap();
    assert_eq!(lines.iter().map(|line| line.number).collect::<Vec<_>>(), [24, 25, 26]);
    assert_eq!(lines[2].text.len(), LINE_BYTES_MAX - 1);
    let fields: usize = connection(&queue).await.hlen(queue.keys().log(&job)).await.unwrap();
    assert_eq!(fields, 1 + 3);
}

#[tokio::test]
async fn a_log_goes_a_week_after_its_last_line_unless_its_job_is_kept() {
    let queue = queue().await;
    add_many(&queue, "job", 2).await;
    let mut redis = connection(&queue).await;
    let held = read(&mut queue.reader("worker"), 2).await;
    let [kept, dead] = [&held[0].lease, &held[1].lease];
    let week = 7 * 86_400_000;
    let expires = async |job: &JobId| {
        let ms: i64 = connection(&queue).await.pttl(queue.keys().log(job)).await.unwrap();
        ms
    };
    for lease in [kept, dead] {
        queue.log(lease, "said", LINES_KEPT).await.unwrap();
        let ms = expires(&lease.id).await;
        assert!(ms > week - 60_000 && ms <= week, "{ms}");
    }
    queue.done(&[Done { result: Some("42".to_owned()), ..Done::new(kept.clone()) }], Keep::All).await.unwrap();
    let burial = Burial { lease: dead.clone(), reason: "no".to_owned(), exhausted: false, dedup: None };
    queue.bury("worker", &[burial]).await.unwrap();
    for lease in [kept, dead] {
        assert_eq!(expires(&lease.id).await, -1, "it goes with the job that is kept");
        queue.log(&lease.id, "said later", LINES_KEPT).await.unwrap();
        assert_eq!(expires(&lease.id).await, -1);
    }
    let found = queue.find(&kept.id).await.unwrap().unwrap();
    assert_eq!((found.log.result.as_deref(), found.log.lines.len()), (Some("42"), 2));
    assert!(matches!(found.state, State::Completed { .. }));
    assert_eq!(queue.find(&dead.id).await.unwrap().unwrap().log.errors, BTreeMap::from([(1, "no".to_owned())]));
    let letters = queue.dead_letters(None, 10).await.unwrap();
    queue.redrive(&letters).await.unwrap();
    assert!(expires(&dead.id).await > 0, "a job that works again may end without anybody looking after its log");
    let () = redis.del(queue.keys().log(&kept.id)).await.unwrap();
}

#[tokio::test]
async fn errors_of_attempts_are_kept_once_something_was_said_of_the_job() {
    let queue = queue().await;
    add_many(&queue, "job", 2).await;
    for attempt in 1..=2 {
        for delivery in read(&mut queue.reader("worker"), 2).await {
            let lease = delivery.lease;
            if lease.id == id("job-0") {
                queue.set_progress(&lease, "0").await.unwrap();
            }
            let reason = Some(format!("error {attempt}"));
            queue.back_off(&[BackOff { lease, wait: Duration::ZERO, reason }]).await.unwrap();
        }
        queue.promote().await.unwrap();
    }
    let found = queue.find(&id("job-0")).await.unwrap().unwrap();
    assert_eq!(found.log.errors, BTreeMap::from([(1, "error 1".to_owned()), (2, "error 2".to_owned())]));
    let other = queue.find(&id("job-1")).await.unwrap().unwrap();
    assert!(other.log.errors.is_empty());
    assert_eq!(other.failure.unwrap().reason, "error 2", "the last error is kept of every job");
}

// ── consumers ──────────────────────────────────────────────────────────────────────────────────────────────────────

#[tokio::test]
async fn consumers_are_listed_with_what_they_run_and_whether_they_live() {
    let queue = queue().await;
    assert_eq!(queue.consumers().await.unwrap(), []);
    let [alive, dead] = [(); 2].map(|()| Consumer::of_this_process());
    queue.heartbeat(&dead, 1).await.unwrap();
    queue.heartbeat(&alive, 12).await.unwrap();
    add_many(&queue, "job", 13).await;
    add_with(&queue, &["urgent"], |job| NewJob { priority: 1, ..job }).await;
    read_one(&queue, &dead.name).await; // the urgent one
    assert_eq!(read(&mut queue.reader(&alive.name), 12).await.len(), 12);
    read_one(&queue, "stranger").await;
    let mut redis = connection(&queue).await;
    let ago = -(HEARTBEAT_LIFETIME.as_millis() as i64) - 1000;
    let () = redis.zincr(queue.keys().consumers(), &dead.name, ago).await.unwrap();
    let () = redis.del(queue.keys().consumer(&dead.name)).await.unwrap(); // as it expires

    let consumers = queue.consumers().await.unwrap();
    let names: Vec<&str> = consumers.iter().map(|consumer| consumer.name.as_str()).collect();
    assert_eq!(names, [&alive.name, &dead.name, "stranger"]);
    assert_eq!(consumers.iter().map(|consumer| consumer.is_alive).collect::<Vec<_>>(), [true, false, false]);
    let about = consumers[0].about.as_ref().unwrap();
    assert_eq!((about.pid, about.jobs_held), (std::process::id(), 12));
    assert!(alive.name.starts_with(&about.host));
    assert_eq!((consumers[0].pending, consumers[0].running.len()), (12, 10), "some of them are named");
    assert_eq!((consumers[1].pending, &consumers[1].running), (1, &vec![id("urgent")]));
    assert!(consumers[1].about.is_none() && consumers[1].heartbeat_at.is_some());
    assert_eq!((consumers[2].pending, consumers[2].heartbeat_at), (1, None));
}

// ── a million ──────────────────────────────────────────────────────────────────────────────────────────────────────

const MILLION: u64 = 1_000_000;
/// What one look may take at the server.
const LOOK_MAX: Duration = Duration::from_millis(5);

/// Makes jobs as `add` does, inside of Redis, so that a million of them take seconds.
const FILL: &str = r"
local stream, prefix, from, n, group = KEYS[1], ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local tail = string.rep('\0', 18) .. (group == '' and '\0' or string.char(4 + #group) .. '\0\0\0\0' .. group)
  .. '\145\196\2{}'
for i = from, from + n - 1 do
  local id = 'job-' .. string.format('%d', i)
  local front
  if stream == 'parked' then
    redis.call('ZADD', prefix .. 'parked:' .. group, i, id)
    front = 'g' .. string.rep('\0', 10)
  else
    local ms, seq = string.match(redis.call('XADD', stream, '*', 'id', id), '(%d+)-(%d+)')
    front = 's' .. struct.pack('>I6I4', ms, seq)
  end
  redis.call('SET', prefix .. 'job:' .. id, front .. tail)
end
";

#[tokio::test]
async fn with_a_million_jobs_waiting_every_look_takes_the_server_under_five_milliseconds() {
    let server = OwnRedis::start(&[]);
    let queue = queue_at(&server.url()).await;
    let mut redis = connection(&queue).await;
    let step = 4_000;
    for from in (0..MILLION).step_by(step) {
        let mut fill = redis::cmd("EVAL");
        fill.arg(FILL).arg(1).arg(queue.keys().stream()).arg(queue.keys().queue_prefix()).arg(from).arg(step).arg("");
        let () = fill.query_async(&mut redis).await.unwrap();
    }
    assert_eq!(queue.counts().await.unwrap().waiting, MILLION);
    let held = read(&mut queue.reader("worker"), 256).await;
    queue.set_progress(&held[0].lease, "1").await.unwrap();

    let mut far = None;
    for _ in 0..5 {
        far = queue.list(ListState::Waiting, Order::Descending, far.as_ref(), 128).await.unwrap().next;
    }
    let last = format!("job-{}", MILLION - 1);
    let found = queue.search(&Filter { id_prefix: last.into_bytes(), ..Filter::default() }, None, 10).await.unwrap();
    assert_eq!((found.jobs.len(), found.looked), (0, 128), "one step of many");
    timed(&server, "counts", async || drop(queue.counts().await.unwrap())).await;
    timed(&server, "job by id", async || {
        let found = queue.find(&id("job-777777")).await.unwrap().unwrap();
        assert_eq!(found.state, State::Waiting);
    })
    .await;
    timed(&server, "list page", async || {
        let page = queue.list(ListState::Waiting, Order::Ascending, None, 128).await.unwrap();
        assert_eq!((page.jobs.len(), ids(&page.jobs[..1]).remove(0)), (128, "job-256".to_owned()));
    })
    .await;
    timed(&server, "list page downwards, in the middle", async || {
        let page = queue.list(ListState::Waiting, Order::Descending, far.as_ref(), 128).await.unwrap();
        assert_eq!(ids(&page.jobs[..1]).remove(0), format!("job-{}", MILLION - 1 - 5 * 128));
    })
    .await;
    timed(&server, "active page", async || {
        assert_eq!(queue.list(ListState::Active, Order::Descending, None, 128).await.unwrap().jobs.len(), 128);
    })
    .await;
    timed(&server, "search page", async || {
        let filter = Filter { state: Some(ListState::Waiting), id_prefix: b"job-25".to_vec(), ..Filter::default() };
        let found = queue.search(&filter, None, 128).await.unwrap();
        assert_eq!((found.jobs.len(), found.looked), (4, 128), "256 to 259");
    })
    .await;
    timed(&server, "consumers", async || assert_eq!(queue.consumers().await.unwrap()[0].pending, 256)).await;
}

#[tokio::test]
async fn with_many_parked_jobs_a_page_takes_the_server_under_five_milliseconds() {
    let server = OwnRedis::start(&[]);
    let queue = queue_at(&server.url()).await;
    let mut redis = connection(&queue).await;
    let (groups, each) = (200_u64, 1000_u64);
    for group in 0..groups {
        let name = format!("group-{group:03}");
        let mut fill = redis::cmd("EVAL");
        fill.arg(FILL).arg(1).arg("parked").arg(queue.keys().queue_prefix()).arg(group * each).arg(each).arg(&name);
        let () = fill.query_async(&mut redis).await.unwrap();
        let () = redis.zadd(queue.keys().parked_groups(), &name, 0).await.unwrap();
    }
    let mut cursor = None;
    for _ in 0..100 {
        cursor = queue.list(ListState::Waiting, Order::Ascending, cursor.as_ref(), 128).await.unwrap().next;
    }
    timed(&server, "parked page", async || {
        let page = queue.list(ListState::Waiting, Order::Ascending, cursor.as_ref(), 128).await.unwrap();
        assert_eq!(ids(&page.jobs[..1]), ["job-12800"]);
        assert!(page.jobs.iter().all(|job| job.standing == Standing::Parked && job.job.is_some()));
    })
    .await;
}

/// Looks several times, and checks what the server took for the quickest look: the clock of Redis runs on while others have
/// the processor.
async fn timed(server: &OwnRedis, what: &str, look: impl AsyncFn()) {
    const LOOKS: u32 = 10;
    let client = redis::Client::open(server.url()).unwrap();
    let mut redis = client.get_multiplexed_async_connection().await.unwrap();
    let mut quickest = Duration::MAX;
    for _ in 0..LOOKS {
        let () = redis::cmd("CONFIG").arg("RESETSTAT").query_async(&mut redis).await.unwrap();
        look().await;
        let stats: String = redis::cmd("INFO").arg("commandstats").query_async(&mut redis).await.unwrap();
        let used = stats.lines().filter(|line| line.starts_with("cmdstat_") && !line.starts_with("cmdstat_config"));
        // what a script calls is in its own time
        let of_scripts = stats.lines().any(|line| line.starts_with("cmdstat_evalsha"));
        let micros = used.filter(|line| !of_scripts || line.starts_with("cmdstat_evalsha")).map(|line| {
            let micros = line.split("usec=").nth(1).and_then(|rest| rest.split(',').next()).unwrap();
            micros.parse::<u64>().unwrap()
        });
        quickest = quickest.min(Duration::from_micros(micros.sum()));
    }
    assert!(quickest > Duration::ZERO && quickest < LOOK_MAX, "{what} took the server {quickest:?}");
}
