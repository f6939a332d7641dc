//! Consumers: who counts as alive, and when one may be deleted.

use std::time::Duration;

use feedmill::queue::{
    GROUP, Queue,
    consumers::{Consumer, HEARTBEAT_LIFETIME, Reaped},
};
use redis::{AsyncCommands, streams::StreamInfoConsumersReply};

use crate::support::{
    audit::assert_sound,
    jobs::{add, connection, done, queue, read_one},
};

async fn in_the_group(queue: &Queue) -> Vec<String> {
    let reply: StreamInfoConsumersReply =
        connection(queue).await.xinfo_consumers(queue.keys().stream(), GROUP).await.unwrap();
    let mut names: Vec<String> = reply.consumers.into_iter().map(|consumer| consumer.name).collect();
    names.sort();
    names
}

/// Lets the last heartbeat of a consumer be so long ago.
async fn age(queue: &Queue, consumer: &Consumer, by: Duration) {
    let mut redis = connection(queue).await;
    let () = redis.zincr(queue.keys().consumers(), &consumer.name, -(by.as_millis() as i64)).await.unwrap();
}

#[tokio::test]
async fn a_consumer_is_deleted_once_its_heartbeat_stopped_and_nothing_is_pending_for_it() {
    let queue = queue().await;
    let [alive, gone, holds] = [(); 3].map(|()| Consumer::of_this_process());
    for consumer in [&alive, &gone, &holds] {
        add(&queue, &consumer.name).await;
        queue.heartbeat(consumer, 1).await.unwrap();
    }
    let mut leases = Vec::new();
    for consumer in [&alive, &gone, &holds] {
        leases.push(read_one(&queue, &consumer.name).await.lease);
    }
    let held = leases.pop().unwrap();
    let ended: Vec<_> = leases.into_iter().map(|lease| (lease, None)).collect();
    done(&queue, ended.clone()).await.unwrap();
    age(&queue, &gone, HEARTBEAT_LIFETIME + Duration::from_secs(1)).await;
    age(&queue, &holds, HEARTBEAT_LIFETIME + Duration::from_secs(1)).await;
    assert_eq!(queue.live_consumers().await.unwrap(), std::slice::from_ref(&alive.name));

    assert_eq!(queue.reap_consumers(None).await.unwrap(), Reaped { deleted: 1, forgotten: 1 });
    let mut left = vec![alive.name.clone(), holds.name.clone()];
    left.sort();
    assert_eq!(in_the_group(&queue).await, left);
    assert_eq!(queue.counts().await.unwrap().active, 1, "what is pending stays pending");
    assert_sound(&queue).await;

    done(&queue, [(held, None)]).await.unwrap();
    assert_eq!(queue.reap_consumers(None).await.unwrap(), Reaped { deleted: 1, forgotten: 1 });
    assert_eq!(in_the_group(&queue).await, std::slice::from_ref(&alive.name));
    let mut redis = connection(&queue).await;
    let known: bool = redis.exists(queue.keys().consumer(&holds.name)).await.unwrap();
    assert!(!known);
}

#[tokio::test]
async fn a_consumer_that_leaves_is_deleted_at_once_unless_it_holds_jobs() {
    let queue = queue().await;
    let consumer = Consumer::of_this_process();
    queue.heartbeat(&consumer, 0).await.unwrap();
    add(&queue, "a").await;
    let lease = read_one(&queue, &consumer.name).await.lease;
    assert_eq!(queue.reap_consumers(Some(&consumer.name)).await.unwrap(), Reaped::default());
    assert_eq!(in_the_group(&queue).await, std::slice::from_ref(&consumer.name));
    done(&queue, [(lease, None)]).await.unwrap();
    let reaped = queue.reap_consumers(Some(&consumer.name)).await.unwrap();
    assert_eq!(reaped, Reaped { deleted: 1, forgotten: 1 });
    assert!(in_the_group(&queue).await.is_empty());
    assert!(queue.live_consumers().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_heartbeat_says_who_and_how_many_jobs_and_expires_by_itself() {
    let queue = queue().await;
    let consumer = Consumer::of_this_process();
    queue.heartbeat(&consumer, 7).await.unwrap();
    let mut redis = connection(&queue).await;
    let key = queue.keys().consumer(&consumer.name);
    let fields: std::collections::BTreeMap<String, String> = redis.hgetall(&key).await.unwrap();
    assert_eq!(fields["jobs"], "7");
    assert_eq!(fields["pid"], std::process::id().to_string());
    let left: i64 = redis.pttl(&key).await.unwrap();
    assert!((1..=HEARTBEAT_LIFETIME.as_millis() as i64).contains(&left), "{left} ms");
}

#[tokio::test]
async fn reaping_without_a_group_is_harmless() {
    let queue = queue().await;
    let consumer = Consumer::of_this_process();
    queue.heartbeat(&consumer, 0).await.unwrap();
    let () = connection(&queue).await.del(queue.keys().stream()).await.unwrap();
    assert_eq!(queue.reap_consumers(None).await.unwrap(), Reaped::default());
}
