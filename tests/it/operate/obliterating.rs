//! A whole queue that goes.

use feedmill::queue::{Events, Queue, QueueError, QueueOptions, consumers::Consumer};

use super::{PLACES, WINDOW, keys, stand};
use crate::support::{
    audit::assert_sound,
    jobs::{Fetch, add, add_many, id, queue, queue_with, read_one},
};

#[tokio::test]
async fn obliterate_refuses_a_queue_that_runs_or_is_worked_on() {
    let queue = queue().await;
    add_many(&queue, "job", 3).await;
    read_one(&queue, "worker").await;
    let error = queue.obliterate(true).step().await.unwrap_err();
    assert!(matches!(error, QueueError::NotPaused { .. }), "{error}");
    queue.pause().await.unwrap();
    let error = queue.obliterate(false).step().await.unwrap_err();
    assert!(matches!(error, QueueError::HasActive { jobs: 1, .. }), "{error}");
    assert_eq!(queue.counts().await.unwrap().waiting, 2);
    assert_sound(&queue).await;
}

#[tokio::test]
async fn obliterate_leaves_nothing_of_the_queue_and_everything_of_others() {
    let queue = queue_with(QueueOptions { events: Events::All, group_window: Some(WINDOW) }).await;
    let other = Queue::open(queue.redis(), "jobs2", Events::Failures).await.unwrap();
    add_many(&other, "job", 5).await;
    let of_other = keys(&other).await.len();
    for place in PLACES {
        stand(&queue, place).await;
    }
    let fetch = Fetch::begin(&queue, "feed").await;
    fetch.enqueue(&queue, &["a", "b"]).await;
    add_many(&queue, "job", 2000).await;
    queue.heartbeat(&Consumer::of_this_process(), 1).await.unwrap();
    queue.pause().await.unwrap();
    // left in the middle, and begun anew
    let mut walk = queue.obliterate(true);
    for _ in 0..3 {
        walk.step().await.unwrap();
    }
    assert!(!keys(&queue).await.is_empty());
    let mut walk = queue.obliterate(false);
    while walk.step().await.unwrap().is_some() {}
    assert_eq!(keys(&queue).await, Vec::<String>::new());
    assert_eq!(queue.redis().registered_queues().await.unwrap(), ["jobs2"]);
    assert_eq!(keys(&other).await.len(), of_other);
    // its name can be used again
    let again = Queue::open(queue.redis(), "jobs", Events::Off).await.unwrap();
    add(&again, "a").await;
    assert_eq!(read_one(&again, "worker").await.job.id, id("a"));
    assert_sound(&again).await;
}
