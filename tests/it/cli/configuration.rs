//! What is wrong in a configuration, and what `config` prints of it.

use serde_json::{Value, json};

use crate::support::shell::Shell;

#[test]
fn a_wrong_url_scheme_is_refused_with_those_that_are_accepted() {
    let shell = Shell::new();
    let redis = "is not a Redis URL; accepted: redis://[user:password@]host[:port][/db], the same with rediss:// for \
                 TLS, or redis+unix:///path of a socket";
    let mongodb = "is not a MongoDB connection string; accepted: \
                   mongodb://[user:password@]host[:port][,host…][/?options] or mongodb+srv://[user:password@]host, \
                   with special characters in user and password percent-encoded";
    for command in [&["queue", "counts"][..], &["worker"], &["config", "check"]] {
        let ran = shell.run(&[command, &["--redis-url", "http://ada:s3cret@cache"]].concat());
        ran.failed(2, &format!("redis.url = \"http://ada:****@cache\" (--redis-url): {redis}"));
        let ran = shell.run(&[command, &["--mongodb-uri", "postgres://ada:s3cret@db"]].concat());
        ran.failed(2, &format!("mongodb.uri = \"postgres://ada:****@db\" (--mongodb-uri): {mongodb}"));
    }
    shell.file("streams.toml", "[[feed]]\nname = \"jobs\"\nurl = \"ftp://jobs.example/feed\"\n");
    shell.run(&["fetch", "jobs"]).failed(
        2,
        "feed.jobs.url = \"ftp://jobs.example/feed\" (streams.toml line 3): is not the URL of a feed; accepted: \
         http:// or https:// with a host",
    );
}

#[test]
fn each_way_in_which_a_file_can_be_wrong_is_one_line_with_place_and_fix() {
    let shell = Shell::new();
    for (toml, told) in [
        ("[redis]\nulr = \"redis://x\"\n", "redis.ulr (streams.toml line 2): is an unknown key; accepted: url, prefix"),
        (
            "colour = 1\n",
            "colour (streams.toml line 1): is an unknown key; accepted: redis, mongodb, queues, http, fetch, stream, \
             feed",
        ),
        ("[redis\n", "streams.toml line 1 is not valid TOML: unclosed table, expected `]`"),
        (
            "[fetch]\ntimeout = \"30 parsecs\"\n",
            "fetch.timeout = \"30 parsecs\" (streams.toml line 2): is not a duration; accepted: a duration with its \
             unit, such as \"1500ms\" or \"30s\", from 10ms to 10m",
        ),
        (
            "[fetch]\ntimeout = 30\n",
            "fetch.timeout = 30 (streams.toml line 2): has no unit; accepted: a duration with its unit, such as \
             \"1500ms\" or \"30s\", from 10ms to 10m",
        ),
        (
            "[stream.job_import_queue]\nflush = \"30s\"\n",
            "stream.job_import_queue.flush = \"30s\" (streams.toml line 2): is not shorter than lock_duration (30s): \
             jobs would look stalled while they wait for their batch; accepted: less than that",
        ),
        (
            "[stream.imports]\nflush = \"3s\"\n",
            "stream.imports (streams.toml line 1): names no queue; accepted: stream.job_import_queue and \
             stream.feed_fetch_queue",
        ),
        (
            "[[feed]]\nname = \"a\"\nurl = \"http://a\"\nschedule = \"daily\"\n",
            "feed.a.schedule = \"daily\" (streams.toml line 4): is not a schedule; accepted: a cron pattern such as \
             \"*/15 * * * *\", \"every 15m\", or \"auto\"",
        ),
        (
            "[[feed]]\nname = \"a\"\nurl = \"http://a\"\n[[feed]]\nname = \"a\"\nurl = \"http://b\"\n",
            "feed.a.name = \"a\" (streams.toml line 5): is the name of an earlier feed; accepted: a name no other \
             feed has",
        ),
    ] {
        shell.file("streams.toml", toml);
        for command in
            [&["config", "check"][..], &["config", "show"], &["queue", "counts"], &["fetch", "--all"], &["worker"]]
        {
            shell.run(command).failed(2, told);
        }
    }
}

#[test]
fn several_problems_are_told_at_once_each_on_its_line() {
    let mut shell = Shell::new();
    shell.file("streams.toml", "[redis]\nprefix = \"{x}\"\n[fetch]\nretries = 3\n");
    shell.set("WORKER_CONCURRENCY", "many");
    shell.run(&["config", "check"]).failed(
        2,
        "3 problems in the configuration:\n  \
         WORKER_CONCURRENCY = \"many\": accepted: a whole number\n  \
         redis.prefix = \"{x}\" (streams.toml line 2): accepted: 1 to 64 letters, digits and _ . : -\n  \
         fetch.retries (streams.toml line 4): is an unknown key; accepted: timeout, connect_timeout, body_max, \
         redirects_max, user_agent, proxy, allow_networks",
    );
}

#[test]
fn a_configuration_file_that_cannot_be_read_is_named_with_who_asked_for_it() {
    let mut shell = Shell::new();
    let missing = "No such file or directory (os error 2)";
    shell
        .run(&["config", "show", "--config", "gone.toml"])
        .failed(2, &format!("cannot read the configuration file gone.toml (named by --config): {missing}"));
    shell.run(&["config", "check", "gone.toml"]).failed(2, &format!("cannot read gone.toml: {missing}"));
    shell.run(&["config", "check", "."]).failed(2, "cannot read .: Is a directory (os error 21)");
    shell.file("binary.toml", b"\xff\xfe");
    shell
        .run(&["config", "check", "binary.toml"])
        .failed(2, "cannot read binary.toml: stream did not contain valid UTF-8");
    shell.set("FEEDMILL_CONFIG", "gone.toml");
    shell
        .run(&["fetch", "--all"])
        .failed(2, &format!("cannot read the configuration file gone.toml (named by FEEDMILL_CONFIG): {missing}"));
}

#[test]
fn config_check_says_which_file_it_means_and_how_many_feeds_are_in_it() {
    let shell = Shell::new();
    assert_eq!(shell.run(&["config", "check"]).data(), "built-in configuration: ok, 0 feeds\n");
    shell.file("one.toml", "[[feed]]\nname = \"a\"\nurl = \"http://a\"\n");
    assert_eq!(shell.run(&["config", "check", "one.toml"]).data(), "one.toml: ok, 1 feed\n");
    shell.file("streams.toml", include_str!("../../../streams.toml"));
    assert_eq!(shell.run(&["config", "check"]).data(), "streams.toml: ok, 0 feeds\n");
}

#[test]
fn config_show_masks_every_secret_says_where_values_are_from_and_is_a_configuration_again() {
    let mut shell = Shell::new();
    shell.file(
        "streams.toml",
        "[redis]\nprefix = \"other\"\n[[feed]]\nname = \"jobs\"\nurl = \
         \"https://ada:s3cret@jobs.example/feed?token=s3cret\"\nsource = \"jobs\"\n\
         schedule = \"every 15m\"\nheaders = { Authorization = \"Bearer s3cret\", Accept = \"text/xml\" }\n",
    );
    shell.set("MONGODB_URI", "mongodb://ada:s3cret@db/?authSource=admin");
    shell.set("FEEDMILL_TOKEN", "s3cret");
    let shown = shell.run(&["config", "show", "--redis-url", "redis://:s3cret@cache/1"]).data();
    assert!(!shown.contains("s3cret"), "{shown}");
    for line in [
        "# file: streams.toml",
        "# FEEDMILL_TOKEN: set",
        "url = \"redis://:****@cache/1\"  # --redis-url",
        "prefix = \"other\"  # streams.toml line 2",
        "uri = \"mongodb://ada:****@db/?authSource=admin\"  # MONGODB_URI",
        "database = \"feedmill\"",
        "url = \"https://ada:****@jobs.example/feed?token=****\"  # streams.toml line 5",
    ] {
        assert!(shown.lines().any(|shown| shown == line), "{line} is not in\n{shown}");
    }

    let again = Shell::new();
    again.file("streams.toml", &shown);
    assert_eq!(again.run(&["config", "check"]).data(), "streams.toml: ok, 1 feed\n");

    let json = shell.run(&["config", "show", "--json", "--redis-url", "redis://:s3cret@cache/1"]).data();
    assert!(!json.contains("s3cret"), "{json}");
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["redis"], json!({ "url": "redis://:****@cache/1", "prefix": "other" }));
    assert_eq!(json["http"]["token"], "set");
    assert_eq!(json["stream"]["job_import_queue"]["batch_size"], 100);
    assert_eq!(json["feed"][0]["headers"], json!({ "Authorization": "****", "Accept": "text/xml" }));
}

#[test]
fn the_rate_limit_of_the_old_system_is_in_force_and_no_warning() {
    let mut shell = Shell::new();
    shell.set("WORKER_RATE_LIMIT_MAX", "7");
    let ran = shell.run(&["config", "check"]);
    assert_eq!((ran.status.code(), ran.stdout.as_str()), (Some(0), "built-in configuration: ok, 0 feeds\n"));
    assert_eq!(ran.stderr, "");
    let json: Value = serde_json::from_str(&shell.run(&["config", "show", "--json"]).data()).unwrap();
    assert_eq!(json["stream"]["job_import_queue"]["limiter"], json!({ "max": 7, "duration": "1000ms" }));
}
