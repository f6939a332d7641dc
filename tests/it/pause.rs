//! Pause and resume: nothing starts in between, nothing is lost, and it survives a restart.

use std::time::{Duration, Instant};

use feedmill::queue::{GROUP, Queue, Settled, find::State, settle::BackOff};
use redis::{AsyncCommands, aio::MultiplexedConnection, streams::StreamInfoGroupsReply};

use crate::support::{
    audit::assert_sound,
    jobs::{add, add_many, connection, done, id, queue, queue_at, queue_under, read, read_one, wait_until_blocked},
    servers::{OwnRedis, on_each_redis},
    wait::until,
};

const TRIES: usize = 200;
const BLOCK: Duration = Duration::from_secs(5);

/// What the group says: entries pending, and the last id that was delivered.
async fn group(queue: &Queue, redis: &mut MultiplexedConnection) -> (usize, String) {
    let groups: StreamInfoGroupsReply = redis.xinfo_groups(queue.keys().stream()).await.unwrap();
    let group = groups.groups.into_iter().find(|group| group.name == GROUP).unwrap();
    (group.pending, group.last_delivered_id)
}

async fn nothing_is_delivered_once_pause_has_returned(url: &str) {
    let queue = queue_at(url).await;
    let mut redis = connection(&queue).await;
    // a reader that takes whatever comes, and never settles: what is pending only grows
    let mut reader = queue.reader("worker");
    let unblocker = reader.unblocker();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let reading = tokio::spawn(async move {
        let mut delivered = 0;
        while !stop.is_closed() {
            delivered += reader.read(10, Some(BLOCK)).await.unwrap().entries.len();
        }
        delivered
    });
    for n in 0..TRIES {
        let adding = tokio::spawn({
            let queue = queue.clone();
            async move { add(&queue, format!("before-{n}")).await }
        });
        assert!(queue.pause().await.unwrap());
        let paused = group(&queue, &mut redis).await;
        let during = format!("during-{n}");
        add(&queue, &during).await;
        adding.await.unwrap();
        assert_eq!(group(&queue, &mut redis).await, paused, "try {n}");
        assert_eq!(queue.find(&id(&during)).await.unwrap().unwrap().state, State::Waiting, "try {n}");
        assert!(queue.resume().await.unwrap());
    }
    until(BLOCK, async || queue.counts().await.unwrap().waiting == 0).await;
    drop(stopped);
    while !reading.is_finished() {
        unblocker.unblock().await;
        tokio::task::yield_now().await;
    }
    assert_eq!(reading.await.unwrap(), 2 * TRIES, "and nothing was lost");
    assert_sound(&queue).await;
}

async fn resume_wakes_a_blocked_reader_at_once_on(program: &str) {
    let server = OwnRedis::start_named(program, &[]);
    let queue = queue_at(&server.url()).await;
    queue.pause().await.unwrap();
    let ids = add_many(&queue, "job", 3).await;
    let mut reader = queue.reader("worker");
    assert!(reader.read(10, None).await.unwrap().entries.is_empty());
    let reading = tokio::spawn(async move { (read_blocking(&mut reader).await, Instant::now()) });
    wait_until_blocked(&server).await;
    let resumed_at = Instant::now();
    queue.resume().await.unwrap();
    let (delivered, at) = reading.await.unwrap();
    assert_eq!(delivered, ids);
    assert!(at - resumed_at < Duration::from_millis(500), "{:?}", at - resumed_at);
    assert_sound(&queue).await;
}

/// Reads with one blocking read.
async fn read_blocking(reader: &mut feedmill::queue::read::Reader) -> Vec<feedmill::job::JobId> {
    let entries = reader.read(10, Some(BLOCK)).await.unwrap().entries;
    entries
        .into_iter()
        .map(|entry| match entry {
            feedmill::queue::read::Entry::Job(delivery) => delivery.job.id,
            other => panic!("not a job: {other:?}"),
        })
        .collect()
}

async fn what_was_delivered_before_a_pause_runs_to_its_end(url: &str) {
    let queue = queue_at(url).await;
    add_many(&queue, "job", 4).await;
    let held = read(&mut queue.reader("worker"), 3).await;
    assert!(queue.pause().await.unwrap());
    assert!(!queue.pause().await.unwrap(), "it is paused already");
    let leases: Vec<_> = held.iter().map(|delivery| delivery.lease.clone()).collect();
    assert_eq!(queue.renew("worker", &leases).await.unwrap(), []);
    assert_eq!(done(&queue, [(leases[0].clone(), None)]).await.unwrap(), [Settled::Settled]);
    let back_off = BackOff { lease: leases[1].clone(), wait: Duration::ZERO, reason: Some("no".to_owned()) };
    assert_eq!(queue.back_off(&[back_off]).await.unwrap().0, [Settled::Settled]);
    assert_eq!(queue.promote().await.unwrap().moved, 1, "what is due waits");
    assert_eq!(queue.give_back(&leases[2..]).await.unwrap(), [Settled::Settled]);
    assert!(queue.reader("other").read(10, None).await.unwrap().entries.is_empty());
    let now = queue.counts().await.unwrap();
    assert_eq!((now.is_paused, now.waiting, now.active, now.paused), (true, 3, 0, 0));
    assert_sound(&queue).await;
    assert!(queue.resume().await.unwrap());
    assert!(!queue.resume().await.unwrap(), "it was resumed already");
    assert_eq!(read(&mut queue.reader("other"), 10).await.len(), 3);
    assert_sound(&queue).await;
}

on_each_redis! {
    nothing_is_delivered_once_pause_has_returned,
    what_was_delivered_before_a_pause_runs_to_its_end,
}

#[tokio::test]
async fn resume_wakes_a_blocked_reader_at_once_on_redis_7() {
    resume_wakes_a_blocked_reader_at_once_on("redis-server").await;
}

#[tokio::test]
async fn resume_wakes_a_blocked_reader_at_once_on_redis_6_2() {
    resume_wakes_a_blocked_reader_at_once_on("redis-server-6.2").await;
}

#[tokio::test]
async fn resume_wakes_a_blocked_reader_at_once_on_valkey() {
    resume_wakes_a_blocked_reader_at_once_on("valkey-server").await;
}

async fn pause_survives_a_restart_of(program: &str) {
    let mut server = OwnRedis::start_named(program, &["--appendonly", "yes", "--appendfsync", "always"]);
    let before = queue_at(&server.url()).await;
    add_many(&before, "job", 2).await;
    let held = read_one(&before, "worker").await;
    before.pause().await.unwrap();
    server.kill9();
    server.restart();
    let queue = queue_under(&server.url(), before.redis().prefix()).await;
    assert!(queue.counts().await.unwrap().is_paused);
    add(&queue, "later").await;
    assert!(queue.reader("other").read(10, None).await.unwrap().entries.is_empty());
    assert_sound(&queue).await;
    assert_eq!(done(&queue, [(held.lease, None)]).await.unwrap(), [Settled::Settled]);
    queue.resume().await.unwrap();
    let delivered = read(&mut queue.reader("other"), 10).await;
    let delivered: Vec<_> = delivered.into_iter().map(|delivery| delivery.job.id).collect();
    assert_eq!(delivered, [id("job-1"), id("later")]);
    assert_sound(&queue).await;
}

#[tokio::test]
async fn pause_survives_a_restart_of_redis_7() {
    pause_survives_a_restart_of("redis-server").await;
}

#[tokio::test]
async fn pause_survives_a_restart_of_redis_6_2() {
    pause_survives_a_restart_of("redis-server-6.2").await;
}

#[tokio::test]
async fn pause_survives_a_restart_of_valkey() {
    pause_survives_a_restart_of("valkey-server").await;
}

#[tokio::test]
async fn an_empty_queue_can_be_paused_and_what_comes_then_waits() {
    let queue = queue().await;
    queue.pause().await.unwrap();
    add(&queue, "a").await;
    assert!(queue.reader("worker").read(10, None).await.unwrap().entries.is_empty());
    queue.resume().await.unwrap();
    assert_eq!(read_one(&queue, "worker").await.job.id, id("a"));
    let mut redis = connection(&queue).await;
    let events: redis::streams::StreamRangeReply = redis.xrange_all(queue.keys().events()).await.unwrap();
    let events: Vec<String> = events.ids.iter().filter_map(|event| event.get("event")).collect();
    assert_eq!(events, ["paused", "resumed"]);
    assert_sound(&queue).await;
}
