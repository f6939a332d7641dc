//! Files, variables and flags, laid over each other.

use std::{path::PathBuf, time::Duration};

use super::super::{Overrides, show};
use super::{Start, assert_contains};

#[test]
fn a_file_is_merged_key_by_key() {
    let config =
        Start::new().file("[stream.job_import_queue]\nbatch_size = 7\nbackoff = { delay = \"2s\" }\n").load().unwrap();
    assert_eq!(config.import_queue.batch_size, 7);
    assert_eq!(config.import_queue.backoff.delay, Duration::from_secs(2));
    assert_eq!(config.import_queue.backoff.max, Duration::from_hours(1));
    assert_eq!(config.import_queue.attempts, 3);
    assert_eq!(config.fetch_queue.batch_size, 1);
}

#[test]
fn the_first_file_named_is_read_and_no_other() {
    let start = || {
        Start::new()
            .file("[redis]\nprefix = \"cwd\"\n")
            .file_named("env.toml", "[redis]\nprefix = \"env\"\n")
            .file_named("flag.toml", "[mongodb]\ndatabase = \"flag\"\n")
    };
    assert_eq!(start().load().unwrap().redis.prefix, "cwd");
    assert_eq!(start().env("FEEDMILL_CONFIG", "env.toml").load().unwrap().redis.prefix, "env");
    let config = start().env("FEEDMILL_CONFIG", "env.toml").config_flag("flag.toml").load().unwrap();
    assert_eq!((config.mongodb.database.as_str(), config.redis.prefix.as_str()), ("flag", "feedmill"));
    assert_eq!(config.file, Some(PathBuf::from("flag.toml")));
}

#[test]
fn a_named_file_must_exist_and_the_one_of_the_working_directory_need_not() {
    assert!(Start::new().load().is_ok());
    let error = Start::new().config_flag("gone.toml").load().unwrap_err().to_string();
    assert_eq!(error, "cannot read the configuration file gone.toml (named by --config)");
    let error = Start::new().env("FEEDMILL_CONFIG", "gone.toml").load().unwrap_err().to_string();
    assert_eq!(error, "cannot read the configuration file gone.toml (named by FEEDMILL_CONFIG)");
}

#[test]
fn the_environment_wins_over_the_file_and_flags_over_the_environment() {
    let file = "[redis]\nurl = \"redis://file\"\n[mongodb]\nuri = \"mongodb://file\"\ndatabase = \"file\"\n\
                [stream.job_import_queue]\nconcurrency = 2\nbatch_size = 3\nflush = \"4s\"\n";
    let start = || {
        Start::new()
            .file(file)
            .env("REDIS_URL", "rediss://env:6380/1")
            .env("MONGODB_URI", "mongodb://env")
            .env("MONGODB_DATABASE", "env")
            .env("WORKER_CONCURRENCY", "20")
            .env("WORKER_BATCH_SIZE", "30")
            .env("WORKER_FLUSH_MS", "1500")
            .env("FEEDMILL_LISTEN", "0.0.0.0:80")
            .env("FEEDMILL_METRICS_LISTEN", "[::1]:9100")
            .env("FEEDMILL_TOKEN", "hunter2")
    };
    let config = start().load().unwrap();
    assert_eq!(config.redis.url.expose(), "rediss://env:6380/1");
    assert_eq!(config.mongodb.uri.expose(), "mongodb://env");
    assert_eq!(config.mongodb.database, "env");
    assert_eq!(config.import_queue.concurrency, 20);
    assert_eq!(config.import_queue.batch_size, 30);
    assert_eq!(config.import_queue.flush, Duration::from_millis(1500));
    assert_eq!(config.fetch_queue.concurrency, 10, "WORKER_* are the import queue's");
    assert_eq!(config.http.listen.to_string(), "0.0.0.0:80");
    assert_eq!(config.http.metrics_listen.unwrap().to_string(), "[::1]:9100");
    assert_eq!(config.http.token.unwrap().expose(), "hunter2");

    let flags = Overrides {
        redis_url: Some("redis://flag".to_owned()),
        mongodb_uri: Some("mongodb://flag".to_owned()),
        mongodb_database: Some("flag".to_owned()),
        concurrency: Some(40),
    };
    let config = start().flags(flags).load().unwrap();
    assert_eq!(config.redis.url.expose(), "redis://flag");
    assert_eq!(config.mongodb.uri.expose(), "mongodb://flag");
    assert_eq!(config.mongodb.database, "flag");
    assert_eq!(config.import_queue.concurrency, 40);
}

#[test]
fn a_variable_set_to_nothing_is_unset() {
    let config =
        Start::new().env("REDIS_URL", "").env("FEEDMILL_TOKEN", " ").env("FEEDMILL_CONFIG", "").load().unwrap();
    assert_eq!(config.redis.url.expose(), "redis://127.0.0.1:6379");
    assert_eq!(config.http.token, None);
}

#[test]
fn a_bad_variable_is_named_with_its_value() {
    let problems = Start::new()
        .env("WORKER_CONCURRENCY", "many")
        .env("WORKER_FLUSH_MS", "3s")
        .env("WORKER_BATCH_SIZE", "0")
        .env("REDIS_URL", "localhost:6379")
        .refused();
    assert_contains(
        &problems.join("\n"),
        &[
            "WORKER_CONCURRENCY = \"many\": accepted: a whole number",
            "WORKER_FLUSH_MS = \"3s\": accepted: a whole number of milliseconds",
            "stream.job_import_queue.batch_size = 0 (WORKER_BATCH_SIZE): accepted: a whole number from 1 to 10000",
            "redis.url = \"localhost:6379\" (REDIS_URL): is not a Redis URL; accepted: redis://",
        ],
    );
    assert_eq!(problems.len(), 4);
}

#[test]
fn half_of_the_old_rate_limit_takes_the_other_half_from_the_file_or_as_it_was() {
    const MAX: &str = "WORKER_RATE_LIMIT_MAX";
    const DURATION: &str = "WORKER_RATE_LIMIT_DURATION_MS";
    let limiter = |start: Start| start.load().unwrap().import_queue.limiter.map(|l| (l.max, l.duration.as_millis()));
    assert_eq!(limiter(Start::new()), None);
    assert_eq!(limiter(Start::new().env(MAX, "7").env(DURATION, "250")), Some((7, 250)));
    assert_eq!(limiter(Start::new().env(MAX, "7")), Some((7, 1000)));
    assert_eq!(limiter(Start::new().env(DURATION, "250")), Some((100, 250)));
    let file = || Start::new().file("[stream.job_import_queue]\nlimiter = { max = 5, duration = \"2s\" }\n");
    assert_eq!(limiter(file()), Some((5, 2000)));
    assert_eq!(limiter(file().env(MAX, "7")), Some((7, 2000)));
    assert_eq!(limiter(file().env(DURATION, "250")), Some((5, 250)));

    let config = Start::new().env(MAX, "7").load().unwrap();
    assert_eq!(config.fetch_queue.limiter, None, "WORKER_* are the import queue's");
    assert_contains(
        &show::render(&config),
        &["limiter = { duration = \"1000ms\", max = 7 }  # WORKER_RATE_LIMIT_MAX\n"],
    );
    let problems = Start::new().env(MAX, "many").env(DURATION, "1s").refused().join("\n");
    assert_contains(
        &problems,
        &[
            "WORKER_RATE_LIMIT_MAX = \"many\": accepted: a whole number",
            "WORKER_RATE_LIMIT_DURATION_MS = \"1s\": accepted: a whole number of milliseconds",
        ],
    );
    let problem = Start::new().env(MAX, "0").refused().remove(0);
    assert_contains(
        &problem,
        &["limiter = { duration = \"1000ms\", max = 0 } (WORKER_RATE_LIMIT_MAX)", "accepted: false"],
    );
}
