//! What each value accepts.

use std::time::Duration;

use super::super::{Events, GroupBy, GroupKey, Limiter, Retention};
use super::{Start, assert_contains, import_queue, refused, refused_in_queue};

#[test]
fn durations_and_sizes_say_what_they_accept() {
    let unit = "accepted: a duration with its unit, such as \"1500ms\" or \"30s\", from 1ms to 1h";
    assert_eq!(
        refused_in_queue("flush = 30"),
        format!("stream.job_import_queue.flush = 30 (streams.toml line 2): has no unit; {unit}")
    );
    assert_contains(&refused_in_queue("flush = \"3 parsecs\""), &["flush = \"3 parsecs\"", "is not a duration", unit]);
    assert_contains(&refused_in_queue("payload_max = \"1 lot\""), &["\"1 lot\"", "\"1MiB\"", "from 1KiB to 15MiB"]);
    assert_contains(&refused_in_queue("remember = \"10m\""), &["\"10m\"", "from 1h to 365d"]);
    assert_contains(&refused_in_queue("job_timeout = true"), &["job_timeout = true", "or false"]);
}

#[test]
fn numbers_stay_in_what_they_are_stored_in() {
    assert_contains(&refused_in_queue("attempts = 256"), &["attempts = 256", "from 1 to 255"]);
    assert_contains(&refused_in_queue("max_stalled_count = 201"), &["from 0 to 200"]);
    assert_contains(&refused_in_queue("concurrency = 99999999999999999999"), &["99999999999999999999", "1 to 1000"]);
    assert_contains(&refused_in_queue("backoff = { jitter = 1.5 }"), &["backoff.jitter = 1.5", "from 0.0 to 1.0"]);
    assert_contains(&refused_in_queue("backoff = { type = \"linear\" }"), &["\"exponential\" or \"fixed\""]);
    assert_contains(&refused_in_queue("backoff = 5"), &["backoff = 5", "accepted: a table"]);
}

#[test]
fn keys_that_contradict_each_other_are_refused() {
    assert_contains(&refused_in_queue("flush = \"30s\""), &["flush = \"30s\"", "not shorter than lock_duration (30s)"]);
    assert_contains(
        &refused_in_queue("backoff = { delay = \"2h\" }"),
        &["backoff.delay = \"2h\"", "longer than max (1h)"],
    );
    assert_contains(&refused_in_queue("buffer_bytes = \"512KiB\""), &["buffer_bytes = \"512KiB\"", "1048576 bytes"]);
    assert_contains(&refused_in_queue("concurrency = 1000\nbatch_size = 101"), &["batch_size = 101", "at most 100"]);
    let problems =
        refused("[fetch]\ntimeout = \"5s\"\n[stream.feed_fetch_queue]\njob_timeout = \"5s\"\nbatch_size = 2\n");
    assert_contains(
        &problems.join("\n"),
        &[
            "fetch.connect_timeout = \"10s\" (built in): is longer than fetch.timeout (5s)",
            "job_timeout = \"5s\" (streams.toml line 4): is not longer than fetch.timeout (5s)",
            "batch_size = 2 (streams.toml line 5): a fetch is never part of a batch; accepted: 1",
        ],
    );
}

#[test]
fn what_this_version_does_not_have_is_refused_as_such() {}

#[test]
fn a_limiter_is_off_or_starts_per_time() {
    let limiter = |value: &str| import_queue(&format!("limiter = {value}")).limiter;
    assert_eq!(limiter("false"), None);
    let limit = Limiter { max: 100, duration: Duration::from_secs(1) };
    assert_eq!(limiter("{ max = 100, duration = \"1s\" }"), Some(limit));
    for bad in ["true", "100", "{ max = 100 }", "{ max = 0, duration = \"1s\" }", "{ max = 1, duration = \"2d\" }"] {
        let problem = refused_in_queue(&format!("limiter = {bad}"));
        assert_contains(&problem, &["limiter = ", "accepted: false, or { max = 100, duration = \"1s\" }"]);
    }
    assert_contains(
        &refused_in_queue("limiter = { max = 1, duration = \"1s\", x = 1 }"),
        &["x = 1", "accepted: false, or"],
    );
}

#[test]
fn groups_have_a_key_a_window_and_a_limiter() {
    let group_by = |value: &str| import_queue(&format!("group_by = {value}")).group_by;
    let by = |key, window, limiter| Some(GroupBy { key, window, limiter });
    assert_eq!(group_by("false"), None);
    assert_eq!(group_by("\"source\""), by(GroupKey::Source, 500, None));
    assert_eq!(group_by("\"host\""), by(GroupKey::Host, 500, None));
    assert_eq!(group_by("{ key = \"host\", window = 1 }"), by(GroupKey::Host, 1, None));
    let limit = Limiter { max: 2, duration: Duration::from_secs(1) };
    let limited = "{ key = \"source\", limiter = { max = 2, duration = \"1s\" } }";
    assert_eq!(group_by(limited), by(GroupKey::Source, 500, Some(limit)));
    assert_eq!(group_by("{ key = \"source\", limiter = false }"), by(GroupKey::Source, 500, None));
    for bad in [
        "true",
        "\"moon\"",
        "{ window = 1 }",
        "{ key = \"source\", window = 0 }",
        "{ key = \"source\", widow = 1 }",
        "{ key = \"source\", limiter = 100 }",
    ] {
        let problem = refused_in_queue(&format!("group_by = {bad}"));
        assert_contains(&problem, &["group_by = ", "accepted: false, \"source\", \"host\", or { key = \"source\""]);
    }
    let fetch = Start::new().file("[stream.feed_fetch_queue]\ngroup_by = \"host\"\n").load().unwrap().fetch_queue;
    assert_eq!(fetch.group_by, by(GroupKey::Host, 1, None), "one fetch of a host at a time, unless it is said");
}

#[test]
fn events_are_none_those_of_failures_or_all() {
    for (word, events) in [("off", Events::Off), ("failures", Events::Failures), ("all", Events::All)] {
        assert_eq!(import_queue(&format!("events = \"{word}\"")).events, events);
    }
    assert_contains(&refused_in_queue("events = true"), &["\"failures\" or \"all\" or \"off\""]);
}

#[test]
fn retention_has_four_forms() {
    assert_eq!(import_queue("remove_on_complete = false").remove_on_complete, Retention::KeepAll);
    let newest = Retention::Keep { count: Some(10), age: None };
    assert_eq!(import_queue("remove_on_complete = { count = 10 }").remove_on_complete, newest);
    let kept = |value: &str| import_queue(&format!("remove_on_fail = {value}")).remove_on_fail;
    assert_eq!(kept("false"), Retention::KeepAll);
    assert_eq!(kept("true"), Retention::KeepNone);
    assert_eq!(kept("1000"), Retention::Keep { count: Some(1000), age: None });
    let day = Duration::from_hours(24);
    assert_eq!(kept("{ age = \"1d\" }"), Retention::Keep { count: None, age: Some(day) });
    assert_eq!(kept("{ count = 5, age = \"1d\" }"), Retention::Keep { count: Some(5), age: Some(day) });
    for bad in ["-1", "{ }", "{ count = 1, limit = 2 }", "{ age = 86400 }", "\"all\""] {
        assert_contains(&refused_in_queue(&format!("remove_on_fail = {bad}")), &["accepted: false, true, a count"]);
    }
}

#[test]
fn urls_of_servers_are_checked_and_their_passwords_never_shown() {
    let problem = Start::new().env("REDIS_URL", "http://user:hunter2@db:6379").refused().remove(0);
    assert_contains(
        &problem,
        &["redis.url = \"http://user:****@db:6379\" (REDIS_URL)", "accepted: redis://", "rediss://"],
    );
    let problem = Start::new().env("REDIS_URL", "redis://:hunter2@db/one").refused().remove(0);
    assert_contains(&problem, &["redis://:****@db/one", "nvalid database number"]);
    let problem = Start::new().env("MONGODB_URI", "mongodb://u:hunter2@db:notaport").refused().remove(0);
    assert_contains(&problem, &["mongodb.uri = \"mongodb://u:****@db:notaport\"", "mongodb+srv://"]);
    let problem = Start::new().env("MONGODB_URI", "postgres://db").refused().remove(0);
    assert_contains(&problem, &["postgres://db", "unsupported connection string scheme", "mongodb+srv://"]);
    let problems = refused("[redis]\nurl = [\"redis://:hunter2@db\"]\n[[mongodb]]\nuri = \"mongodb://u:hunter2@db\"\n");
    assert!(!problems.concat().contains("hunter2"), "{problems:?}");
    for accepted in ["redis://db", "rediss://u:p@db:6380/2", "redis+unix:///run/redis.sock?db=1"] {
        assert_eq!(Start::new().env("REDIS_URL", accepted).load().unwrap().redis.url.expose(), accepted);
    }
    for accepted in ["mongodb://u:p@a:1,b:2/?replicaSet=rs0", "mongodb+srv://u:p@cluster.example/"] {
        assert_eq!(Start::new().env("MONGODB_URI", accepted).load().unwrap().mongodb.uri.expose(), accepted);
    }
}

#[test]
fn names_of_prefix_database_and_addresses_are_checked() {
    let problems = refused(
        "[redis]\nprefix = \"{x}\"\n[mongodb]\ndatabase = \"a.b\"\n[http]\nlisten = \"localhost:4000\"\n\
         metrics_listen = 9100\n[fetch]\nuser_agent = \"\"\n",
    );
    assert_eq!(problems.len(), 5, "{problems:#?}");
    assert_contains(
        &problems.join("\n"),
        &[
            "redis.prefix = \"{x}\"",
            "mongodb.database = \"a.b\"",
            "http.listen = \"localhost:4000\"",
            "127.0.0.1:4000",
            "http.metrics_listen = 9100",
            "or \"off\"",
            "fetch.user_agent = \"\"",
        ],
    );
}
