//! What handlers say of a job: progress, log lines, errors of attempts.

use std::{collections::BTreeMap, time::Duration};

use feedmill::{
    job::{JobId, Keep},
    queue::{
        Settled,
        find::State,
        progress::{LINE_BYTES_MAX, LINES_KEPT, LogLine, PROGRESS_BYTES_MAX},
        settle::{BackOff, Burial, Done},
    },
};
use redis::AsyncCommands;

use super::{telling_queue, told_by_job};
use crate::support::jobs::{add, add_many, connection, id, queue, read, read_one};

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
