//! Lists of jobs by state, page by page, while jobs move.

use std::{
    collections::BTreeSet,
    time::{Duration, UNIX_EPOCH},
};

use feedmill::{
    job::{EntryId, Envelope, JobId, JobOptions, Keep},
    queue::{
        Order, Queue, QueueError, QueueOptions, Redis,
        enqueue::NewJob,
        limits::{Limits, Rate, SetBy},
        list::{CursorError, ListState, Listed, Standing},
        search::Filter,
        settle::{BackOff, Burial, Done},
    },
};
use redis::AsyncCommands;
use serde_json::json;

use super::{add_grouped, add_with, ids};
use crate::support::{
    audit::assert_sound,
    jobs::{PAYLOAD_MAX, add, add_many, connection, done, id, queue, queue_at, read},
    redis_prefix,
    servers::on_each_redis,
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

/// Checks that a list holds these jobs, upwards, downwards, and in pages of any size.
async fn assert_listed(queue: &Queue, state: ListState, wanted: &[&str]) {
    for page in [1, 2, 3, 256] {
        let mut wanted = wanted.to_vec();
        assert_eq!(ids(&walk(queue, state, Order::Ascending, page).await), wanted, "{state}, {page} a page");
        wanted.reverse();
        assert_eq!(ids(&walk(queue, state, Order::Descending, page).await), wanted, "{state} downwards, {page} a page");
    }
}

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
