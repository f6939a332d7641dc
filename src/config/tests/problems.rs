//! How problems are told: all at once, each on one line that names value and fix.

use super::{Start, assert_contains, refused, refused_in_queue};

#[test]
fn an_unknown_key_is_refused_with_the_line_and_the_accepted_ones() {
    let problem = refused_in_queue("attempts = 3\natempts = 3");
    assert_contains(
        &problem,
        &[
            "stream.job_import_queue.atempts (streams.toml line 3): is an unknown key",
            "accepted: attempts, backoff, concurrency",
            "shutdown_timeout",
        ],
    );
    let problems = refused("[reddis]\n[http]\ntoken = \"hunter2\"\n");
    assert_contains(
        &problems[0],
        &[
            "http.token (streams.toml line 3): is an unknown key; accepted: listen, metrics_listen, base_path, read_only",
        ],
    );
    assert_contains(
        &problems[1],
        &[
            "reddis (streams.toml line 1): is an unknown key; ",
            "accepted: redis, mongodb, queues, http, fetch, stream, feed",
        ],
    );
    assert!(!problems.concat().contains("hunter2"));
    assert_contains(&refused_in_queue("backoff = { dely = \"1s\" }"), &["backoff.dely", "accepted: type, delay, max"]);
}

#[test]
fn all_problems_are_reported_at_once_one_per_line() {
    let error = Start::new()
        .file(
            "[redis]\nurl = 6379\n[stream.job_import_queue]\nflush = 3\nattempts = 0\nx = 1\ny = 2\n\
             [[feed]]\nname = \"a b\"\n",
        )
        .env("WORKER_CONCURRENCY", "0")
        .load()
        .unwrap_err()
        .to_string();
    let lines: Vec<&str> = error.lines().collect();
    assert_eq!(lines[0], "8 problems in the configuration:");
    assert_eq!(lines.len(), 9, "{error}");
    assert_contains(
        &error,
        &[
            "redis.url",
            "flush = 3",
            "attempts = 0",
            ".x ",
            ".y ",
            "name = \"a b\"",
            "url (streams.toml line 8): is missing",
            "concurrency = 0 (WORKER_CONCURRENCY)",
        ],
    );
}

#[test]
fn a_message_is_one_line_whatever_the_keys_and_values_hold() {
    let problems = refused(
        "\"a\\nb\" = 1\n[stream.\"c\\nd\"]\n[redis]\nprefix = \"\"\"\ne\n\"\"\"\n\
         [[feed]]\nname = \"f\\ng\"\nurl = \"https://a.example/\"\n",
    );
    assert_eq!(problems.len(), 4, "{problems:#?}");
    assert!(problems.iter().all(|problem| problem.lines().count() == 1), "{problems:#?}");
}

#[test]
fn a_file_that_is_not_toml_is_refused_with_its_line() {
    let error = Start::new().file("[redis]\nurl = redis://x\n").load().unwrap_err().to_string();
    assert_contains(&error, &["streams.toml line 2 is not valid TOML: "]);
    assert_eq!(error.lines().count(), 1);
}
