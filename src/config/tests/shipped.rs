//! The file that is shipped: it is the defaults and their documentation.

use std::{path::PathBuf, time::Duration};

use super::super::{Backoff, BackoffKind, Events, GroupBy, GroupKey, QueueConfig, Retention, load::BUILT_IN};
use super::{Start, assert_contains, refused};

#[test]
fn the_shipped_file_is_the_defaults() {
    let built_in = Start::new().load().unwrap();
    let from_file = Start::new().file(BUILT_IN).load().unwrap();
    assert_eq!(built_in.redis, from_file.redis);
    assert_eq!(built_in.mongodb, from_file.mongodb);
    assert_eq!(built_in.http, from_file.http);
    assert_eq!(built_in.fetch, from_file.fetch);
    assert_eq!(built_in.import_queue, from_file.import_queue);
    assert_eq!(built_in.fetch_queue, from_file.fetch_queue);
    assert!(built_in.feeds.is_empty() && from_file.feeds.is_empty());
    assert_eq!(built_in.file, None);
    assert_eq!(from_file.file, Some(PathBuf::from("streams.toml")));
}

#[test]
fn the_defaults_are_the_old_systems() {
    let config = Start::new().load().unwrap();
    let import = QueueConfig {
        name: "job_import_queue".to_owned(),
        attempts: 3,
        backoff: Backoff {
            kind: BackoffKind::Exponential,
            delay: Duration::from_secs(1),
            max: Duration::from_hours(1),
            jitter: 0.0,
        },
        concurrency: 10,
        batch_size: 100,
        flush: Duration::from_secs(3),
        limiter: None,
        group_by: Some(GroupBy { key: GroupKey::Source, window: 500, limiter: None }),
        lock_duration: Duration::from_secs(30),
        stalled_interval: Duration::from_secs(30),
        max_stalled_count: 2,
        job_timeout: None,
        remove_on_complete: Retention::KeepNone,
        remove_on_fail: Retention::KeepAll,
        remember: Duration::from_hours(168),
        payload_max_bytes: 1024 * 1024,
        buffer_bytes: 64 * 1024 * 1024,
        events: Events::Failures,
        shutdown_timeout: Duration::from_secs(25),
    };
    let fetch = QueueConfig {
        name: "feed_fetch_queue".to_owned(),
        batch_size: 1,
        group_by: Some(GroupBy { key: GroupKey::Host, window: 1, limiter: None }),
        job_timeout: Some(Duration::from_mins(5)),
        ..import.clone()
    };
    assert_eq!(config.import_queue, import);
    assert_eq!(config.fetch_queue, fetch);
    assert_eq!(config.redis.url.expose(), "redis://127.0.0.1:6379");
    assert_eq!(config.redis.prefix, "feedmill");
    assert_eq!(config.http.listen.to_string(), "127.0.0.1:4000");
    assert_eq!(config.http.metrics_listen, None);
    assert_eq!(config.http.token, None);
    assert_eq!(config.fetch.timeout, Duration::from_secs(30));
    assert_eq!(config.fetch.connect_timeout, Duration::from_secs(10));
    assert_eq!(config.fetch.body_max_bytes, 32 * 1024 * 1024);
    assert_eq!(config.fetch.redirects_max, 5);
    assert_contains(&config.fetch.user_agent, &["feedmill/", env!("CARGO_PKG_VERSION"), "(+https://"]);
}

#[test]
fn every_key_of_a_queue_is_documented_and_shipped() {
    let shipped: toml::Table = toml::from_str(BUILT_IN).unwrap();
    let keys = [
        "attempts",
        "backoff",
        "batch_size",
        "buffer_bytes",
        "concurrency",
        "events",
        "flush",
        "group_by",
        "job_timeout",
        "limiter",
        "lock_duration",
        "max_stalled_count",
        "payload_max",
        "remember",
        "remove_on_complete",
        "remove_on_fail",
        "shutdown_timeout",
        "stalled_interval",
    ];
    for queue in ["job_import_queue", "feed_fetch_queue"] {
        let mut found: Vec<&str> = shipped["stream"][queue].as_table().unwrap().keys().map(String::as_str).collect();
        found.sort_unstable();
        assert_eq!(found, keys, "{queue}");
    }
    for section in ["redis", "mongodb", "queues", "http", "fetch"] {
        assert!(shipped.contains_key(section), "{section}");
    }
}

#[test]
fn the_feed_example_in_the_shipped_file_is_a_feed_with_every_key() {
    let example: String = BUILT_IN
        .lines()
        .skip_while(|line| *line != "# [[feed]]")
        .flat_map(|line| [line.strip_prefix("# ").unwrap(), "\n"])
        .collect();
    let feeds = Start::new().file(&example).load().unwrap().feeds;
    assert_eq!(feeds.len(), 1);
    let problems = refused(&format!("{example}\nno_such_key = 1\n"));
    let accepted = problems[0].split("accepted: ").nth(1).unwrap();
    for key in accepted.split(", ") {
        assert!(example.lines().any(|line| line.starts_with(&format!("{key} ="))), "{key} is not in the example");
    }
}
