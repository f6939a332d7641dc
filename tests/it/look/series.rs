//! Counts by minute.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use feedmill::queue::{
    series::{Point, SERIES_KEPT, SeriesOf},
    settle::Burial,
};
use redis::AsyncCommands;

use crate::support::jobs::{add_many, connection, done, queue, read};

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
