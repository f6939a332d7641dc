//! Consumers and what they run.

use feedmill::queue::{
    consumers::{Consumer, HEARTBEAT_LIFETIME},
    enqueue::NewJob,
};
use redis::AsyncCommands;

use super::add_with;
use crate::support::jobs::{add_many, connection, id, queue, read, read_one};

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
