//! Looking for jobs.

use std::time::Duration;

use feedmill::queue::{
    QueueOptions,
    enqueue::NewJob,
    list::ListState,
    search::Filter,
    settle::{BackOff, Burial},
};

use super::{add_grouped, add_with, search};
use crate::support::jobs::{add_many, queue_with, read};

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
