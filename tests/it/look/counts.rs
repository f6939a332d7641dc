//! Counts by priority and group, deduplication ids, and which queues there are.

use feedmill::queue::{
    Events, Queue, QueueOptions,
    enqueue::{Deduplication, Enqueued, NewJob},
    groups::GroupCounts,
};

use super::{add_grouped, add_with};
use crate::support::{
    audit::assert_sound,
    jobs::{PAYLOAD_MAX, add_many, done, id, new_job, queue, queue_with, read},
};

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
