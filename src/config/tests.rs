//! The configuration as its users meet it: files, variables and flags in; a `Config`, or all problems, out.

use std::{collections::HashMap, fmt::Write as _, fs, path::PathBuf, time::Duration};

use tempfile::TempDir;

use super::{
    Backoff, BackoffKind, Config, ConfigError, Events, GroupBy, GroupKey, Limiter, Overrides, QueueConfig, Retention,
    Sources, load::BUILT_IN, show,
};

/// One start of feedmill in a working directory of its own.
struct Start {
    directory: TempDir,
    env: HashMap<&'static str, String>,
    config_flag: Option<PathBuf>,
    flags: Overrides,
}

impl Start {
    fn new() -> Self {
        Self {
            directory: tempfile::tempdir().unwrap(),
            env: HashMap::new(),
            config_flag: None,
            flags: Overrides::default(),
        }
    }

    fn file(self, toml: &str) -> Self {
        self.file_named("streams.toml", toml)
    }

    fn file_named(self, name: &str, toml: &str) -> Self {
        fs::write(self.directory.path().join(name), toml).unwrap();
        self
    }

    fn env(mut self, name: &'static str, value: &str) -> Self {
        self.env.insert(name, value.to_owned());
        self
    }

    fn config_flag(mut self, path: &str) -> Self {
        self.config_flag = Some(PathBuf::from(path));
        self
    }

    fn flags(mut self, flags: Overrides) -> Self {
        self.flags = flags;
        self
    }

    fn load(self) -> Result<Config, ConfigError> {
        Config::load(&Sources {
            config_flag: self.config_flag,
            directory: self.directory.path().to_owned(),
            env: &|name| self.env.get(name).cloned(),
            flags: self.flags,
        })
    }

    /// The problems as the user sees them, one per line.
    fn refused(self) -> Vec<String> {
        match self.load() {
            Err(ConfigError::Invalid { problems }) => problems.iter().map(ToString::to_string).collect(),
            other => panic!("expected refused values, got {other:?}"),
        }
    }
}

/// The problems of a file.
fn refused(toml: &str) -> Vec<String> {
    Start::new().file(toml).refused()
}

/// The only problem of a line in the section of the import queue.
fn refused_in_queue(line: &str) -> String {
    let problems = refused(&format!("[stream.job_import_queue]\n{line}\n"));
    assert_eq!(problems.len(), 1, "{problems:#?}");
    problems.into_iter().next().unwrap()
}

/// The first problem of a feed with a good name and url and this line.
fn refused_in_feed(line: &str) -> String {
    refused(&format!("[[feed]]\nname = \"a\"\nurl = \"https://a.example/\"\n{line}\n")).remove(0)
}

fn assert_contains(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in {text:?}");
    }
}

// ---- the shipped file ----

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

// ---- layers ----

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

// ---- queues and their names ----

#[test]
fn a_renamed_queue_keeps_the_defaults_of_its_role() {
    let config = Start::new()
        .file("[queues]\nimport = \"items\"\n[stream.items]\nattempts = 9\n[stream.feed_fetch_queue]\nattempts = 8\n")
        .load()
        .unwrap();
    assert_eq!(config.import_queue.name, "items");
    assert_eq!((config.import_queue.attempts, config.import_queue.batch_size), (9, 100));
    assert_eq!((config.fetch_queue.attempts, config.fetch_queue.batch_size), (8, 1));
}

#[test]
fn a_queue_renamed_by_the_environment_is_found_by_both_names_and_the_new_one_wins() {
    let file = "[stream.items]\nattempts = 9\n[stream.job_import_queue]\nattempts = 5\nconcurrency = 4\n";
    let config = Start::new().file(file).env("BULL_QUEUE_NAME", "items").env("WORKER_BATCH_SIZE", "6").load().unwrap();
    assert_eq!(config.import_queue.name, "items");
    assert_eq!((config.import_queue.attempts, config.import_queue.concurrency), (9, 4));
    assert_eq!(config.import_queue.batch_size, 6);

    let config = Start::new().file(BUILT_IN).env("FEEDMILL_FETCH_QUEUE_NAME", "feeds").load().unwrap();
    assert_eq!((config.fetch_queue.name.as_str(), config.fetch_queue.batch_size), ("feeds", 1));
}

#[test]
fn swapped_names_configure_the_queue_that_has_the_name_now() {
    let config = Start::new()
        .file("[stream.job_import_queue]\nattempts = 9\n")
        .env("BULL_QUEUE_NAME", "feed_fetch_queue")
        .env("FEEDMILL_FETCH_QUEUE_NAME", "job_import_queue")
        .load()
        .unwrap();
    assert_eq!((config.fetch_queue.attempts, config.import_queue.attempts), (9, 3));
}

#[test]
fn a_section_of_no_queue_is_refused_with_the_names_there_are() {
    let problems = refused("[stream.job_import_queu]\nattempts = 9\n");
    assert_eq!(
        problems,
        ["stream.job_import_queu (streams.toml line 1): names no queue; accepted: stream.job_import_queue and \
             stream.feed_fetch_queue"]
    );
}

#[test]
fn the_two_queues_have_different_and_plain_names() {
    let problems = refused("[queues]\nfetch = \"job_import_queue\"\n");
    assert_contains(&problems[0], &["queues.fetch = \"job_import_queue\"", "is also queues.import"]);
    let problems = Start::new().env("BULL_QUEUE_NAME", "a{b}").refused();
    assert_contains(&problems[0], &["queues.import = \"a{b}\" (BULL_QUEUE_NAME)", "letters, digits and _ . -"]);
}

// ---- refusals ----

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

/// The import queue of a file with this line in its section.
fn import_queue(line: &str) -> QueueConfig {
    Start::new().file(&format!("[stream.job_import_queue]\n{line}\n")).load().unwrap().import_queue
}

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

// ---- feeds ----

#[test]
fn a_feed_needs_only_a_name_and_a_url() {
    let config = Start::new().file("[[feed]]\nname = \"a\"\nurl = \"https://A.example\"\n").load().unwrap();
    let feed = &config.feeds[0];
    assert_eq!(feed.name, "a");
    assert_eq!(feed.url.as_str(), "https://a.example/");
    assert_eq!(feed.source, "https://A.example", "the url as configured, byte for byte");
    assert_eq!((feed.schedule.as_deref(), feed.timezone.as_deref()), (None, None));
    assert_eq!(feed.spread, Duration::from_mins(1));
    assert!(feed.headers.is_empty() && !feed.allow_private);
}

#[test]
fn two_feeds_of_one_name_are_refused() {
    let feed = "[[feed]]\nname = \"a\"\nurl = \"https://a.example/\"\n";
    let problems = refused(&feed.repeat(2));
    assert_contains(&problems[0], &["feed.a.name = \"a\" (streams.toml line 5)", "is the name of an earlier feed"]);
    assert_eq!(problems.len(), 1);
}

#[test]
fn a_bad_feed_is_refused_key_by_key() {
    assert_contains(&refused_in_feed("spread = \"61s\""), &["feed.a.spread", "from 0s to 60s"]);
    assert_contains(
        &refused_in_feed("timezone = \"Mars/Base\""),
        &["feed.a.timezone = \"Mars/Base\"", "Europe/Berlin"],
    );
    assert_contains(&refused_in_feed("schedule = \"often\""), &["\"often\"", "is not a schedule", "every 15m"]);
    assert_contains(&refused_in_feed("schedule = \"every 3 moons\""), &["is not a schedule"]);
    assert_contains(&refused_in_feed("source = \"\""), &["feed.a.source", "1 to 1024 bytes"]);
    assert_contains(&refused_in_feed("headers = { \"a b\" = \"x\" }"), &["feed.a.headers", "\"a b\" is not the name"]);
    let problem = refused_in_feed("headers = { If-None-Match = \"x\" }");
    assert_contains(&problem, &["If-None-Match is set by feedmill itself"]);
    let problem = refused_in_feed("headers = { Authorization = \"hunter2\\n\" }");
    assert_contains(&problem, &["the value of Authorization"]);
    assert!(!problem.contains("hunter2"));
    let problem = refused("[[feed]]\nname = \"a\"\nurl = \"ftp://u:hunter2@a.example/@x\"\n").remove(0);
    assert_contains(&problem, &["feed.a.url = \"ftp://u:****@a.example/@x\"", "http:// or https://"]);
    assert_contains(&refused("[feed]\nname = \"a\"\n")[0], &["accepted: one [[feed]] per feed"]);
    for schedule in ["*/15 * * * *", "0 */15 8-18 * * MON-FRI", "every 15m"] {
        let file = format!("[[feed]]\nname = \"a\"\nurl = \"https://a.example/\"\nschedule = \"{schedule}\"\n");
        assert_eq!(Start::new().file(&file).load().unwrap().feeds[0].schedule.as_deref(), Some(schedule));
    }
}

#[test]
fn a_hundred_thousand_feeds_load_in_seconds() {
    let mut file = String::new();
    for n in 0..100_000 {
        writeln!(file, "[[feed]]\nname = \"f{n}\"\nurl = \"https://a.example/{n}\"").unwrap();
    }
    let started = std::time::Instant::now();
    assert_eq!(Start::new().file(&file).load().unwrap().feeds.len(), 100_000);
    // Quadratic work would take minutes; this leaves room for a busy machine.
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
}

// ---- show ----

const SECRETS: &str = r#"
[redis]
url = "redis://default:hunter2@db:6379/1"
[mongodb]
uri = "mongodb://u:hunter2@a,b/?authSource=admin"
[queues]
import = "items.v2"
[stream."items.v2"]
backoff = { type = "fixed", delay = "5s" }
remove_on_fail = { count = 10, age = "30d" }
[[feed]]
name = "a"
url = "https://me:hunter2@a.example/?token=hunter2"
source = "a"
schedule = "every 15m"
headers = { Authorization = "Bearer hunter2", X-Api-Key = "hunter2", Cookie = "s=hunter2", Accept-Language = "de" }
"#;

#[test]
fn what_is_shown_is_toml_that_loads_to_the_same_configuration_but_for_the_secrets() {
    let config =
        Start::new().file(SECRETS).env("WORKER_FLUSH_MS", "1500").env("FEEDMILL_TOKEN", "hunter2").load().unwrap();
    let shown = show::render(&config);
    let again = Start::new().file(&shown).load().unwrap();
    assert_eq!(again.import_queue, config.import_queue);
    assert_eq!(again.fetch_queue, config.fetch_queue);
    assert_eq!(again.fetch, config.fetch);
    assert_eq!(again.redis.prefix, config.redis.prefix);
    assert_eq!(again.mongodb.database, config.mongodb.database);
    assert_eq!(again.feeds[0].schedule, config.feeds[0].schedule);
    assert_eq!(again.feeds[0].headers["Accept-Language"].expose(), "de");
    assert_eq!(again.redis.url.expose(), "redis://default:****@db:6379/1");
}

#[test]
fn a_url_that_holds_a_secret_is_no_source() {
    for url in ["https://me:hunter2@b.example/", "https://b.example/?token=hunter2"] {
        let file = format!("[[feed]]\nname = \"b\"\nurl = \"{url}\"\n");
        let refused = Start::new().file(&file).load().unwrap_err().to_string();
        assert_contains(&refused, &["feed.b.url", "set feed.source"]);
        assert!(!refused.contains("hunter2"), "{refused}");
    }
}

#[test]
fn secrets_are_in_nothing_that_is_printed() {
    let config = Start::new().file(SECRETS).env("FEEDMILL_TOKEN", "hunter2").load().unwrap();
    let json = show::to_json(&config);
    for printed in [show::render(&config), json.to_string(), format!("{config:?}")] {
        assert!(!printed.contains("hunter2"), "{printed}");
    }
    assert_contains(&show::render(&config), &["# FEEDMILL_TOKEN: set", "https://me:****@a.example/?token=****"]);
    assert_eq!(json["http"]["token"], "set");
    assert_eq!(json["redis"]["url"], "redis://default:****@db:6379/1");
    assert_eq!(json["feed"][0]["headers"]["X-Api-Key"], "****");
    assert_eq!(json["stream"]["items.v2"]["remove_on_fail"]["count"], 10);
    assert_eq!(config.mongodb.uri.expose(), "mongodb://u:hunter2@a,b/?authSource=admin");
}

#[test]
fn what_is_shown_says_where_each_value_was_set() {
    let config = Start::new()
        .file("[stream.job_import_queue]\nbackoff = { delay = \"2s\" }\nattempts = 4\n")
        .env("WORKER_CONCURRENCY", "20")
        .flags(Overrides { redis_url: Some("redis://flag".to_owned()), ..Overrides::default() })
        .load()
        .unwrap();
    let shown = show::render(&config);
    assert_contains(
        &shown,
        &[
            "# file: streams.toml\n",
            "# FEEDMILL_TOKEN: unset\n",
            "url = \"redis://flag\"  # --redis-url\n",
            "concurrency = 20  # WORKER_CONCURRENCY\n",
            "attempts = 4  # streams.toml line 3\n",
            "}  # streams.toml line 2\n",
            "flush = \"3s\"\n",
        ],
    );
    assert_contains(&show::render(&Start::new().load().unwrap()), &["# file: none\n"]);
}
