//! The command line with the real binary: what it says to bad input, and what it prints.
//!
//! An error is one line on stderr that names the thing and what to do, nothing on stdout, and exit status 1 (it failed)
//! or 2 (it was called or configured in a way that cannot work).

use std::{
    collections::BTreeMap,
    process::Stdio,
    time::{Duration, Instant},
};

use feedmill::{
    job::{Envelope, JobId},
    queue::enqueue::NewJob,
    store::{ImportRecord, ImportStatus},
};
use serde_json::{Value, json};

use crate::support::{
    eventually::eventually,
    feed_server::{FeedServer, Page},
    mongo_database,
    process::{Mill, PATIENCE, Ran, redis_connection},
    redis_prefix,
    servers::{OwnRedis, SharedServers, find},
    shell::{BINARY, Shell, ran},
};

/// A port on which nothing listens: a reserved one.
const NOTHING: &str = "127.0.0.1:1";
const REFUSED: &str = "Connection refused (os error 111)";

/// A shell that reaches the shared Redis.
fn shell_with_redis() -> Shell {
    let mut shell = Shell::new();
    shell.set("REDIS_URL", SharedServers::of_this_run().redis_url());
    shell.file("streams.toml", format!("[redis]\nprefix = {:?}\n", redis_prefix()));
    shell
}

/// The lines of stderr that are errors.
fn errors(ran: &Ran) -> Vec<&str> {
    ran.stderr.lines().filter_map(|line| line.strip_prefix("error: ")).collect()
}

// ── servers that cannot be used ────────────────────────────────────────────────────────────────────────────────────

#[test]
fn a_redis_that_is_not_there_is_named_without_its_password() {
    let mut shell = Shell::new();
    shell.set("FEEDMILL_LISTEN", "127.0.0.1:0");
    let url = format!("redis://ada:s3cret@{NOTHING}/3");
    for command in [&["queue", "counts"][..], &["import", "list"], &["worker"], &["up"]] {
        let started = Instant::now();
        let ran = shell.run(&[command, &["--redis-url", &url]].concat());
        ran.failed(
            1,
            &format!("cannot reach Redis at {NOTHING}; start it, or set REDIS_URL to where it runs: {REFUSED}"),
        );
        assert!(started.elapsed() < Duration::from_secs(5), "an operator is not kept waiting");
    }
}

#[test]
fn a_host_that_does_not_exist_is_named() {
    let ran = Shell::new().run(&["queue", "counts", "--redis-url", "redis://nowhere.invalid"]);
    assert_eq!((ran.status.code(), ran.stdout.as_str()), (Some(1), ""));
    let told = "error: cannot reach Redis at nowhere.invalid:6379; start it, or set REDIS_URL to where it runs: ";
    assert!(ran.stderr.starts_with(told) && ran.stderr.lines().count() == 1, "{}", ran.stderr);
}

#[test]
fn a_redis_that_refuses_the_login_says_so_and_the_password_stays_hidden() {
    let server = OwnRedis::start(&["--requirepass", "right"]);
    let address = format!("127.0.0.1:{}", server.port());
    let told = format!("error: Redis at {address} refused the login; check user and password in REDIS_URL: ");
    for user_info in ["", ":wr0ng@", "ada:wr0ng@"] {
        let ran = Shell::new().run(&["queue", "counts", "--redis-url", &format!("redis://{user_info}{address}")]);
        assert_eq!((ran.status.code(), ran.stdout.as_str()), (Some(1), ""));
        assert!(ran.stderr.starts_with(&told) && ran.stderr.lines().count() == 1, "{}", ran.stderr);
        assert!(!ran.stderr.contains("wr0ng"), "{}", ran.stderr);
    }
    let ran = Shell::new().run(&["queue", "counts", "--redis-url", &format!("redis://:right@{address}")]);
    assert_eq!(ran.status.code(), Some(0), "{}", ran.stderr);
}

#[test]
fn a_redis_before_6_2_is_refused_with_its_version() {
    let server = OwnRedis::start_program(&find("redis-server-5.0"), &[]);
    for command in [&["queue", "counts"][..], &["worker"]] {
        let ran = Shell::new().run(&[command, &["--redis-url", &server.url()]].concat());
        let told = format!(
            "Redis at 127.0.0.1:{} is version 5.0.6; feedmill needs Redis 6.2 or later, or Valkey 7.2 or later",
            server.port()
        );
        ran.failed(1, &told);
    }
}

#[test]
fn a_mongodb_that_is_not_there_is_named_without_its_password() {
    let mut shell = shell_with_redis();
    shell.set("MONGODB_URI", format!("mongodb://ada:s3cret@{NOTHING}/?authSource=admin&serverSelectionTimeoutMS=300"));
    shell.run(&["import", "list"]).failed(
        1,
        &format!(
            "cannot reach MongoDB at {NOTHING}; start it, or set MONGODB_URI to where it runs: I/O error: {REFUSED}"
        ),
    );
}

#[test]
fn a_server_that_is_not_mongodb_is_told_apart_from_none() {
    let mut shell = shell_with_redis();
    let address = SharedServers::of_this_run().redis_url().replace("redis://", "");
    shell.set("MONGODB_URI", format!("mongodb://{address}/?serverSelectionTimeoutMS=300"));
    let ran = shell.run(&["import", "list"]);
    let told = format!("error: cannot reach MongoDB at {address}; start it, or set MONGODB_URI to where it runs: ");
    assert!(ran.stderr.starts_with(&told), "{}", ran.stderr);
    assert!(ran.stderr.lines().count() == 1 && !ran.stderr.contains("Topology"), "{}", ran.stderr);
}

#[test]
fn a_mongodb_that_refuses_the_login_says_so_and_the_password_stays_hidden() {
    let mut shell = shell_with_redis();
    let address = SharedServers::of_this_run().mongodb_uri().replace("mongodb://", "");
    shell.set("MONGODB_URI", format!("mongodb://ada:s3cret@{address}"));
    let ran = shell.run(&["import", "list"]);
    let told =
        format!("error: MongoDB at {address} refused the login; check user, password and authSource in MONGODB_URI");
    assert_eq!((ran.status.code(), ran.stdout.as_str()), (Some(1), ""));
    assert!(ran.stderr.starts_with(&told) && ran.stderr.lines().count() == 1, "{}", ran.stderr);
    assert!(!ran.stderr.contains("s3cret"), "{}", ran.stderr);
}

#[test]
fn embedded_servers_that_are_not_installed_are_named_before_any_is_started() {
    let mut shell = Shell::new();
    shell.set("PATH", "/nowhere");
    shell.set("FEEDMILL_LISTEN", "127.0.0.1:0");
    let own = shell.path().join(".feedmill/bin");
    // The folder's real name, as the process sees it.
    let own = shell.path().canonicalize().unwrap().join(own.strip_prefix(shell.path()).unwrap());
    let told = format!("redis-server was not found in {} or on PATH; `make setup` installs it", own.display());
    shell.run(&["up", "--embedded"]).failed(1, &told);
    std::fs::create_dir_all(&own).unwrap();
    std::os::unix::fs::symlink(find("redis-server"), own.join("redis-server")).unwrap();
    shell.run(&["up", "--embedded"]).failed(1, &told.replace("redis-server", "mongod"));
    assert!(!shell.path().join(".feedmill/data/redis").exists(), "redis-server was not started");
}

// ── configuration ──────────────────────────────────────────────────────────────────────────────────────────────────

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
    shell.file("streams.toml", include_str!("../../streams.toml"));
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

// ── calls that cannot work ─────────────────────────────────────────────────────────────────────────────────────────

#[test]
fn fetch_says_what_it_needs_when_it_is_told_no_feed_an_unknown_one_or_has_none() {
    let mut shell = Shell::new();
    // Where there may be subscriptions.
    let database = mongo_database();
    shell.set("MONGODB_URI", database.uri.as_str());
    shell.set("MONGODB_DATABASE", database.name.as_str());
    shell.run(&["fetch"]).failed(2, "which feeds? Name them, or say --all or --due");
    for args in [&["fetch", "--all"][..], &["fetch", "--due"], &["fetch", "--all", "--wait"]] {
        let told = "there is no feed to fetch; add a [[feed]] to streams.toml, or run `feedmill feeds add URL`";
        shell.run(args).failed(2, told);
    }
    shell
        .run(&["fetch", "jobs"])
        .failed(2, "there is no feed \"jobs\" in the configuration; its feeds: there are none yet, add a [[feed]]");
    let feed = |name: &str| format!("[[feed]]\nname = {name:?}\nurl = \"http://feeds.example\"\n");
    shell.file("streams.toml", feed("news") + &feed("jobs"));
    shell
        .run(&["fetch", "news", "jbos", "--wait"])
        .failed(2, "there is no feed \"jbos\" in the configuration; its feeds: jobs, news");
    let many: Vec<String> = (10..35).map(|number| feed(&format!("f{number}"))).collect();
    shell.file("streams.toml", many.concat());
    let ran = shell.run(&["fetch", "f9"]);
    assert!(ran.stderr.ends_with(" f28, f29, 5 more\n"), "{}", ran.stderr);
}

#[test]
fn arguments_that_contradict_each_other_or_are_missing_are_usage_errors() {
    let shell = Shell::new();
    for (args, told) in [
        (&["fetch", "--all", "--due"][..], "error: the argument '--all' cannot be used with '--due'"),
        (&["fetch", "jobs", "--due"], "error: the argument '[FEED]...' cannot be used with '--due'"),
        (&["fetch", "jobs", "--all"], "error: the argument '[FEED]...' cannot be used with '--all'"),
        (&["parse"], "error: the following required arguments were not provided:"),
        (&["up", "--data-dir", "x"], "error: the following required arguments were not provided:"),
        (&["import", "list", "--limit", "0"], "error: invalid value '0' for '--limit <N>': 0 is not in 1..=10000"),
        (&["fecth"], "error: unrecognized subcommand 'fecth'"),
        (&["worker", "--concurrency", "many"], "error: invalid value 'many' for '--concurrency <N>': invalid digit"),
    ] {
        let ran = shell.run(args);
        assert_eq!((ran.status.code(), ran.stdout.as_str()), (Some(2), ""), "{args:?}");
        assert!(ran.stderr.starts_with(told), "{}", ran.stderr);
    }
    shell
        .run(&["worker", "--concurrency", "0"])
        .failed(2, "stream.job_import_queue.concurrency = 0 (--concurrency): accepted: a whole number from 1 to 1000");
}

#[test]
fn help_and_version_are_data() {
    let shell = Shell::new();
    assert_eq!(shell.run(&["--version"]).data(), concat!("feedmill ", env!("CARGO_PKG_VERSION"), "\n"));
    for args in [&["--help"][..], &["fetch", "--help"], &["help", "queue", "show"]] {
        assert!(shell.run(args).data().contains("Example"), "{args:?}");
    }
}

// ── parse ──────────────────────────────────────────────────────────────────────────────────────────────────────────

const FEED: &str = r#"<rss version="2.0" xmlns:job_listing="https://jobs.example/ns"><channel><title>Jobs</title>
<item><title>Miller</title><link>https://jobs.example/1</link><guid>https://jobs.example/?p=1#1</guid>
<pubDate>Mon, 02 Mar 2026 10:00:00 +0100</pubDate><category>Grain</category><description>short</description>
<enclosure url="https://jobs.example/a.mp3" type="audio/mpeg" length="7"/>
<job_listing:company>The Mill</job_listing:company></item><item><title>Baker</title></item></channel></rss>"#;

#[test]
fn parse_prints_one_object_a_line_with_the_keys_that_are_promised_and_no_others() {
    let shell = Shell::new();
    shell.file("jobs.rss", FEED);
    let from_file = shell.run(&["parse", "jobs.rss"]).data();
    assert_eq!(shell.run_with_stdin(&["parse", "-"], FEED.as_bytes()).data(), from_file);
    let items: Vec<Value> = from_file.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(
        items[0],
        json!({
            "guid": "https://jobs.example/?p=1#1", "title": "Miller", "link": "https://jobs.example/1",
            "published": "2026-03-02T09:00:00Z", "updated": null, "summary": "short", "content": null, "author": null,
            "categories": ["Grain"],
            "enclosures": [{ "url": "https://jobs.example/a.mp3", "type": "audio/mpeg", "length": 7 }],
            "extensions": { "job_listing:company": "The Mill" },
        })
    );
    assert_eq!(
        items[1],
        json!({
            "guid": null, "title": "Baker", "link": null, "published": null, "updated": null, "summary": null,
            "content": null, "author": null, "categories": [], "enclosures": [], "extensions": {},
        })
    );
    assert_eq!(items.len(), 2);
}

#[test]
fn parse_says_of_each_file_why_it_is_no_feed_and_prints_the_others() {
    let shell = Shell::new();
    let html = "it looks like HTML; use the address of the feed itself, which the page may name in a <link>";
    for (name, content, told) in [
        ("page.html", "<!DOCTYPE html><html><body><p>Hello<br></body></html>", format!("not a feed: {html}")),
        ("text.rss", "hello", "not a feed: it is text that does not start with <".to_owned()),
        ("empty.rss", "", "the document is empty".to_owned()),
        (
            "cut.rss",
            "<rss version=\"2.0\"><channel>",
            "not well-formed XML: the root node was opened but never closed".to_owned(),
        ),
    ] {
        shell.file(name, content);
        shell.run(&["parse", name]).failed(1, &format!("{name} cannot be read as a feed: {told}"));
    }
    shell.run(&["parse", "-"]).failed(1, "stdin cannot be read as a feed: the document is empty");
    shell.run(&["parse", "gone.rss"]).failed(1, "cannot read gone.rss: No such file or directory (os error 2)");
    shell.run(&["parse", "."]).failed(1, "cannot read .: Is a directory (os error 21)");

    shell.file("jobs.rss", FEED);
    let ran = shell.run(&["parse", "gone.rss", "jobs.rss", "page.html"]);
    assert_eq!((ran.status.code(), ran.stdout.lines().count(), errors(&ran).len()), (Some(1), 2, 2), "{}", ran.stderr);
}

#[test]
fn a_reader_that_leaves_early_is_no_failure() {
    let shell = Shell::new();
    let mut command = shell.command(BINARY);
    command.args(["demo", "generate", "20000"]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    drop(child.stdout.take());
    assert_eq!(ran(child.wait_with_output().unwrap()).data(), "");
}

// ── queue ──────────────────────────────────────────────────────────────────────────────────────────────────────────

/// A mill with a feed of one good item and one that MongoDB refuses, imported: one dead letter.
async fn mill_with_a_dead_letter() -> (Mill, FeedServer) {
    let server = FeedServer::start();
    server.put("/jobs.rss", Page::rss(&[("1", "good"), ("2", "bad")]));
    let mut mill = Mill::new();
    mill.feed("jobs", &server.url("/jobs.rss"), Some("board"));
    mill.retry("job_import_queue", 1, "1s");
    mill.refuse_bad_titles().await;
    let ran = mill.run(&["fetch", "jobs", "--wait"]).await;
    assert_eq!(ran.status.code(), Some(1), "{}", ran.stderr);
    (mill, server)
}

#[tokio::test]
async fn counts_are_a_table_for_people_and_bullmqs_keys_for_machines() {
    let (mill, _server) = mill_with_a_dead_letter().await;
    mill.fetch(&["jobs"]).await;
    assert_eq!(mill.run_ok(&["queue", "pause"]).await, "job_import_queue is paused\n");
    assert_eq!(
        mill.run(&["queue", "counts"]).await.data(),
        "state             job_import_queue (paused)  feed_fetch_queue\n\
         active                                    0                 0\n\
         completed                                 0                 0\n\
         delayed                                   0                 0\n\
         failed                                    1                 0\n\
         paused                                    0                 0\n\
         prioritized                               0                 0\n\
         waiting                                   0                 1\n\
         waiting-children                          0                 0\n"
    );
    let counts = mill.run(&["queue", "counts", "--json"]).await.data();
    let counts: BTreeMap<String, BTreeMap<String, Value>> = serde_json::from_str(&counts).unwrap();
    let states = ["active", "completed", "delayed", "failed", "paused", "prioritized", "waiting", "waiting-children"];
    let numbers = |queue: &str| states.map(|state| counts[queue][state].as_u64().unwrap());
    assert_eq!(numbers("job_import_queue"), [0, 0, 0, 1, 0, 0, 0, 0]);
    assert_eq!(numbers("feed_fetch_queue"), [0, 0, 0, 0, 0, 0, 1, 0]);
    assert_eq!(counts["job_import_queue"]["is-paused"], true);
    assert_eq!(counts["job_import_queue"]["totals"]["completed"], 1);
    let one = mill.run(&["queue", "counts", "--queue", "feed_fetch_queue"]).await.data();
    assert!(one.starts_with("state             feed_fetch_queue\nactive                           0\n"), "{one}");
}

#[tokio::test]
async fn pause_and_resume_say_what_they_changed_and_hold_the_jobs() {
    let server = FeedServer::start();
    server.put("/jobs.rss", Page::rss(&[("1", "good")]));
    let mut mill = Mill::new();
    mill.feed("jobs", &server.url("/jobs.rss"), None);
    let fetch_queue = ["--queue", "feed_fetch_queue"];
    let on_fetch_queue = async |command: &str| mill.run_ok(&[&["queue", command], &fetch_queue[..]].concat()).await;
    assert_eq!(on_fetch_queue("pause").await, "feed_fetch_queue is paused\n");
    assert_eq!(on_fetch_queue("pause").await, "feed_fetch_queue was paused already\n");
    mill.fetch(&["jobs"]).await;
    let _worker = mill.worker().await;
    let queues = mill.queues().await;
    // The import queue is not paused: a job of its own comes through, with the worker's reader at work.
    let _: String = redis::cmd("XADD")
        .arg(queues.import.keys().stream())
        .arg("*")
        .arg("json")
        .arg(r#"{"source":"x","guid":"1","title":"t"}"#)
        .query_async(&mut redis_connection(queues.import.redis().address()).await)
        .await
        .unwrap();
    eventually("the other queue goes on", PATIENCE, async || mill.title("1").await).await;
    assert_eq!(queues.fetch.counts().await.unwrap().waiting, 1);
    assert!(server.asked().is_empty(), "a paused queue starts nothing");
    assert_eq!(on_fetch_queue("resume").await, "feed_fetch_queue goes on\n");
    assert_eq!(on_fetch_queue("resume").await, "feed_fetch_queue was not paused\n");
    mill.through(&queues).await;
    assert_eq!(server.asked().len(), 1);
}

#[tokio::test]
async fn show_tells_why_a_job_is_dead_and_redrive_brings_it_back() {
    let (mill, _server) = mill_with_a_dead_letter().await;
    let shown = mill.run(&["queue", "show", "board#2"]).await.data();
    for line in ["job         board#2", "queue       job_import_queue", "state       failed", "attempts    1 failed"] {
        assert!(shown.lines().any(|shown| shown == line), "{line} is not in\n{shown}");
    }
    assert!(shown.contains("\nreason      ") && shown.contains("\"title\": \"bad\""), "{shown}");
    let job: Value = serde_json::from_str(&mill.run(&["queue", "show", "board#2", "--json"]).await.data()).unwrap();
    assert_eq!((&job["id"], &job["state"], &job["attempts"]), (&json!("board#2"), &json!("failed"), &json!(1)));
    assert_eq!(job["payload"]["title"], "bad");
    assert!(job["reason"].as_str().unwrap().contains("geo"), "{}", job["reason"]);

    let there_is_none = |id: &str| {
        format!(
            "there is no job {id} in job_import_queue: it is done, was never added, or no worker has adopted it yet"
        )
    };
    mill.run(&["queue", "redrive", "board#1"]).await.failed(1, &there_is_none("board#1"));
    assert_eq!(mill.run(&["queue", "redrive", "board#2"]).await.data(), "1 redriven\n");
    assert_eq!(mill.run(&["queue", "redrive"]).await.data(), "0 redriven\n");
    let shown = mill.run(&["queue", "show", "board#2"]).await.data();
    assert!(shown.contains("\nstate       waiting\n") && shown.contains("\nattempts    0 failed\n"), "{shown}");
}

#[tokio::test]
async fn a_job_in_backoff_is_shown_with_its_last_error_and_when_it_is_due() {
    let mut mill = Mill::new();
    mill.feed("down", &format!("http://{NOTHING}/down.rss"), None);
    mill.retry("feed_fetch_queue", 2, "5m");
    mill.fetch(&["down"]).await;
    let _worker = mill.worker().await;
    let queues = mill.queues().await;
    eventually("it waits for its second attempt", PATIENCE, async || {
        (queues.fetch.counts().await.unwrap().delayed == 1).then_some(())
    })
    .await;
    let show = ["queue", "show", "down", "--queue", "feed_fetch_queue"];
    let shown = mill.run(&show).await.data();
    for begin in ["state       delayed\n", "attempts    1 failed\n", "due         20", "last error  20"] {
        assert!(shown.contains(&format!("\n{begin}")), "{begin} is not in\n{shown}");
    }
    let job: Value = serde_json::from_str(&mill.run(&[&show[..], &["--json"]].concat()).await.data()).unwrap();
    assert!(job["lastError"].as_str().unwrap().starts_with("cannot reach http://127.0.0.1:1/down.rss: "), "{job}");
    assert!(job["dueAt"].as_str() > job["enqueuedAt"].as_str(), "{job}");
    assert_eq!(job["payload"]["feed"], "down");
}

#[tokio::test]
async fn a_long_payload_is_cut_unless_all_of_it_is_asked_for() {
    let mill = Mill::new();
    let queues = mill.queues().await;
    let title = "ß".repeat(5000);
    let payload = serde_json::to_vec(&json!({ "title": title })).unwrap();
    let job = NewJob::new(JobId::new("long").unwrap(), Envelope { payload: &payload, ..Envelope::default() });
    queues.import.add(&[job], 1 << 20).await.unwrap();
    let cut = mill.run(&["queue", "show", "long"]).await.data();
    assert!(cut.contains(" bytes; --full shows all)\n") && cut.ends_with("ß…\n") && cut.len() < 5000, "{cut}");
    assert!(mill.run(&["queue", "show", "long", "--full"]).await.data().contains(&title));
}

#[test]
fn jobs_imports_and_queues_that_there_are_not_are_named() {
    let mut shell = shell_with_redis();
    let database = mongo_database();
    shell.set("MONGODB_URI", database.uri.clone());
    shell.set("MONGODB_DATABASE", database.name.clone());
    shell.run(&["queue", "show", "x#1"]).failed(
        1,
        "there is no job x#1 in job_import_queue: it is done, was never added, or no worker has adopted it yet",
    );
    shell.run(&["queue", "show", ""]).failed(2, "a job id must not be empty");
    for command in ["counts", "pause", "resume", "redrive"] {
        shell
            .run(&["queue", command, "--queue", "jobs"])
            .failed(2, "there is no queue \"jobs\"; the queues are feed_fetch_queue, job_import_queue");
    }
    shell
        .run(&["import", "show", "yesterday"])
        .failed(2, "\"yesterday\": an import id is a hexadecimal number such as 660f1a2b3c4d5");
    shell
        .run(&["import", "show", "660f1a2b3c4d5"])
        .failed(1, "there is no import 660f1a2b3c4d5; `feedmill import list` shows those of the last 30 days");
    assert_eq!(shell.run(&["import", "list"]).data(), "");
    assert_eq!(shell.run(&["import", "list", "--json"]).data(), "[]\n");
}

// ── fetch and import ───────────────────────────────────────────────────────────────────────────────────────────────

#[tokio::test]
async fn each_feed_that_fails_is_one_line_with_the_reason_and_the_others_are_imported() {
    let server = FeedServer::start();
    server.put("/jobs.rss", Page::rss(&[("1", "good")]));
    server.put("/page.html", Page::new("<!DOCTYPE html><html><body><p>Hello<br></body></html>"));
    server.put("/large.rss", Page::rss(&[("1", &"x".repeat(5000))]));
    let mut mill = Mill::new();
    mill.set("fetch.body_max", "4KiB");
    mill.retry("feed_fetch_queue", 1, "1s");
    for (name, url) in [
        ("jobs", server.url("/jobs.rss")),
        ("page", server.url("/page.html")),
        ("large", server.url("/large.rss")),
        ("gone", server.url("/gone.rss")),
        ("down", format!("http://{NOTHING}/down.rss")),
    ] {
        mill.feed(name, &url, None);
    }
    let ran = mill.run(&["fetch", "jobs", "page", "large", "gone", "down", "--wait"]).await;
    assert_eq!(ran.status.code(), Some(1));
    let errors = errors(&ran);
    assert_eq!(
        errors[..3],
        [
            "page: feed page cannot be read: not a feed: it looks like HTML; use the address of the feed itself, \
             which the page may name in a <link>"
                .to_owned(),
            format!("large: {} is larger than 4096 bytes, the limit set by fetch.body_max", server.url("/large.rss")),
            format!("gone: {} answered 404", server.url("/gone.rss")),
        ]
    );
    assert!(
        errors[3].starts_with(&format!("down: cannot reach http://{NOTHING}/down.rss: no connection: ")),
        "{}",
        errors[3]
    );
    assert_eq!(errors.len(), 4);
    assert!(!ran.stderr.contains(" fetching feed "), "said once, not in the log too: {}", ran.stderr);

    let rows: Vec<Vec<&str>> = ran.stdout.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[0], ["feed", "status", "items", "new", "changed", "unchanged", "failed", "items/s"]);
    assert_eq!(rows[1][..7], ["jobs", "done", "1", "1", "0", "0", "0"]);
    assert_eq!(rows[2], ["page", "failed", "0", "0", "0", "0", "0", "-"]);
    assert_eq!(rows.len(), 6);
}

#[tokio::test]
async fn tables_fit_80_columns_and_line_up_and_nothing_is_coloured_in_a_pipe() {
    let (mill, _server) = mill_with_a_dead_letter().await;
    let mut commands = vec![];
    for args in
        [&["fetch", "jobs", "--wait"][..], &["import", "list"], &["queue", "counts"], &["queue", "show", "board#2"]]
    {
        commands.push(mill.run(args).await);
    }
    for ran in &commands {
        let printed = [ran.stdout.as_str(), &ran.stderr].concat();
        assert!(!printed.contains(['\x1b', '\r']), "{printed}");
    }
    for table in commands[..3].iter().map(|ran| &ran.stdout) {
        let lines: Vec<&str> = table.lines().collect();
        assert!(lines.len() > 1 && lines.iter().all(|line| line.len() <= 80), "{table}");
        // The last column is one of numbers: all lines end where its header ends.
        assert!(lines.iter().all(|line| line.len() == lines[0].len()), "{table}");
    }
}

#[tokio::test]
async fn progress_and_colour_are_for_terminals() {
    let server = FeedServer::start();
    server.put("/jobs.rss", Page::rss(&[("1", "good")]));
    let mut mill = Mill::new();
    mill.feed("jobs", &server.url("/jobs.rss"), None);
    mill.feed("gone", &server.url("/gone.rss"), None);
    let shell = Shell::new();
    // `script` gives the command a terminal and copies what comes out of it.
    let config = mill.command(&[]).get_args().last().unwrap().to_str().unwrap().to_owned();
    let mut command = shell.command("script");
    let line = format!("{BINARY} fetch --all --wait --config {config}");
    let output = command.env("TERM", "xterm").args(["-qec", &line, "/dev/null"]).output().expect("script is installed");
    let seen = String::from_utf8_lossy(&output.stdout);
    assert!(seen.contains("/2 feeds"), "a progress bar: {seen}");
    assert!(seen.contains("\x1b[31merror:\x1b[0m gone: "), "a red error: {seen}");
}

#[tokio::test]
async fn fetch_names_the_imports_it_started_and_those_that_ran_already() {
    let server = FeedServer::start();
    let mut mill = Mill::new();
    mill.feed("jobs", &server.url("/jobs.rss"), None);
    mill.feed("news", &server.url("/news.rss"), None);
    let ran = mill.run(&["fetch", "jobs", "jobs"]).await;
    let import = ran.stdout.lines().nth(1).unwrap().strip_prefix("jobs  ").unwrap();
    assert_eq!((ran.status.code(), ran.stdout.clone()), (Some(0), format!("feed  import\njobs  {import}\n")));
    let nobody = "no worker is alive: the feeds are fetched once `feedmill worker` or `feedmill up` runs\n";
    assert_eq!(ran.stderr, nobody);

    let ran = mill.run(&["fetch", "--all", "--json"]).await;
    let started: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(started[0], json!({ "feed": "jobs", "id": import, "running": true }));
    assert_eq!((&started[1]["feed"], &started[1]["running"]), (&json!("news"), &json!(false)));
    assert_eq!(ran.stderr, format!("jobs is being fetched already\n{nobody}"));
    assert!(server.asked().is_empty());
}

#[tokio::test]
async fn due_is_what_was_never_fetched_and_what_a_slot_has_passed_of() {
    let server = FeedServer::start();
    server.put("/jobs.rss", Page::rss(&[("1", "good")]));
    let mut mill = Mill::new();
    for name in ["yearly", "often", "asked"] {
        mill.feed(name, &server.url("/jobs.rss"), Some(name));
    }
    let schedule = |mill: &mut Mill, schedules: [Option<&str>; 3]| {
        let names = ["yearly", "often", "asked"];
        let feeds = names.into_iter().zip(schedules).map(|(name, schedule)| {
            let mut feed = toml::Table::new();
            feed.insert("name".to_owned(), name.into());
            feed.insert("url".to_owned(), server.url("/jobs.rss").into());
            feed.insert("source".to_owned(), name.into());
            feed.insert("allow_private".to_owned(), true.into());
            feed.extend(schedule.map(|schedule| ("schedule".to_owned(), schedule.into())));
            toml::Value::from(feed)
        });
        mill.set("feed", feeds.collect::<Vec<_>>());
    };
    schedule(&mut mill, [Some("0 0 1 1 *"), Some("every 365d"), None]);
    let due = async |mill: &Mill| {
        let records = mill.fetch_wait(&["--due"]).await;
        records.into_iter().map(|record: ImportRecord| record.feed).collect::<Vec<_>>()
    };
    assert_eq!(due(&mill).await, ["often", "yearly"], "never fetched is due; without a schedule is not");
    assert_eq!(due(&mill).await, <[&str; 0]>::default());
    assert_eq!(mill.run(&["fetch", "--due"]).await.data(), "", "cron has nothing to mail");
    schedule(&mut mill, [Some("0 0 1 1 *"), Some("every 1s"), None]);
    eventually("the next second begins", PATIENCE, async || {
        let due = due(&mill).await;
        (!due.is_empty()).then(|| assert_eq!(due, ["often"]))
    })
    .await;
}

#[tokio::test]
async fn waiting_for_an_import_that_ended_without_a_record_ends() {
    let server = FeedServer::start();
    server.put("/jobs.rss", Page::rss(&[("1", "good")]));
    let mut mill = Mill::new();
    mill.feed("jobs", &server.url("/jobs.rss"), None);
    // As a worker leaves it that is killed after the fetch and before its job is settled: the job is there, and its
    // import, which the schedule had started and which had nothing to do, is over and forgotten.
    let payload = br#"{"feed":"jobs","import":"660f1a2b3c4d5"}"#;
    let job = NewJob::new(JobId::new("jobs").unwrap(), Envelope { payload, ..Envelope::default() });
    let queues = mill.queues().await;
    let mut redis = redis_connection(queues.import.redis().address()).await;
    let feed = queues.import.keys().feed("jobs");
    let mut ended = redis::cmd("HSET");
    ended.arg(feed).arg("last_import").arg("660f1a2b3c4d5");
    ended.query_async::<()>(&mut redis).await.unwrap();
    queues.fetch.add(&[job], 1000).await.unwrap();

    let ran = mill.run(&["fetch", "jobs", "--wait", "--json"]).await;
    assert_eq!((ran.status.code(), ran.stdout.as_str()), (Some(0), "[]\n"), "{}", ran.stderr);
    assert!(ran.stderr.contains("jobs is being fetched already\n"), "{}", ran.stderr);
    assert!(ran.stderr.ends_with("jobs has nothing new\n"), "{}", ran.stderr);
}

#[tokio::test]
async fn a_feed_that_only_fetch_knows_is_said_to_be_missing_at_the_worker() {
    let mut mill = Mill::new();
    let _worker = mill.worker().await;
    mill.feed("jobs", &format!("http://{NOTHING}/jobs.rss"), None);
    let ran = mill.run(&["fetch", "jobs", "--wait"]).await;
    assert_eq!(ran.status.code(), Some(1));
    let told = "the worker that took it has no feed \"jobs\" in its configuration; workers read theirs when they start, \
                and on SIGHUP";
    assert_eq!(errors(&ran), [format!("jobs: {told}")]);
}

#[tokio::test]
async fn fetch_that_is_interrupted_gives_back_and_says_that_the_imports_go_on() {
    let server = FeedServer::start();
    server.put("/jobs.rss", Page::rss(&[("1", "good")]).after(Duration::from_secs(30)));
    let mut mill = Mill::new();
    mill.set("stream.feed_fetch_queue.shutdown_timeout", "100ms");
    mill.feed("jobs", &server.url("/jobs.rss"), None);
    let fetch = mill.start(&["fetch", "jobs", "--wait"]);
    eventually("the feed is asked for", PATIENCE, async || (!server.asked().is_empty()).then_some(())).await;
    fetch.term();
    let ran = fetch.ran().await;
    assert_eq!((ran.status.code(), ran.stdout.as_str()), (Some(1), ""));
    assert_eq!(errors(&ran), ["interrupted; the imports go on as soon as a worker runs"]);
    let counts = mill.queues().await.fetch.counts().await.unwrap();
    assert_eq!((counts.waiting, counts.active), (1, 0), "what it held was given back");
}

#[tokio::test]
async fn imports_are_listed_newest_first_and_shown_with_their_failures() {
    let (mill, server) = mill_with_a_dead_letter().await;
    server.put("/jobs.rss", Page::rss(&[("1", "good"), ("2", "bad"), ("3", "good too")]));
    let second = mill.fetch_wait(&["jobs"]).await.remove(0);

    let table = mill.run(&["import", "list"]).await.data();
    let rows: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[0].join(" "), "import feed status started UTC items new changed failed");
    assert_eq!(rows[1][..3], [second.id.as_str(), "jobs", "done"]);
    assert_eq!(rows[1][5..], ["3", "1", "0", "0"]);
    assert_eq!(rows[2][5..], ["2", "2", "0", "1"]);
    assert_eq!(rows.len(), 3);

    let listed = mill.run(&["import", "list", "--json", "--limit", "1", "--feed", "jobs"]).await.data();
    let listed: Value = serde_json::from_str(&listed).unwrap();
    assert_eq!((listed.as_array().unwrap().len(), &listed[0]["id"]), (1, &json!(second.id)));
    assert_eq!((&listed[0]["unchanged"], &listed[0]["inserted"]), (&json!(2), &json!(1)));
    assert_eq!(mill.run(&["import", "list", "--feed", "news"]).await.data(), "");

    let first = rows[2][0];
    let shown = mill.run(&["import", "show", first]).await.data();
    for line in ["status      done", "items       2", "  new       2", "inserted    1", "failed      1"] {
        assert!(shown.lines().any(|shown| shown == line), "{line} is not in\n{shown}");
    }
    assert!(shown.lines().last().unwrap().starts_with("failure     board#2: "), "{shown}");
    let shown: ImportRecord =
        serde_json::from_str(&mill.run(&["import", "show", first, "--json"]).await.data()).unwrap();
    assert_eq!((shown.id.as_str(), shown.status, shown.failures.len()), (first, ImportStatus::Done, 1));
}

#[tokio::test]
async fn a_running_import_is_listed_with_the_others() {
    let server = FeedServer::start();
    server.put("/jobs.rss", Page::rss(&[("1", "good")]));
    let mut mill = Mill::new();
    mill.feed("jobs", &server.url("/jobs.rss"), None);
    mill.fetch_wait(&["jobs"]).await;
    mill.fetch(&["jobs"]).await;
    let listed: Vec<ImportRecord> =
        serde_json::from_str(&mill.run(&["import", "list", "--json"]).await.data()).unwrap();
    let statuses: Vec<ImportStatus> = listed.iter().map(|record| record.status).collect();
    assert_eq!(statuses, [ImportStatus::Running, ImportStatus::Done]);
    let shown = mill.run(&["import", "show", &listed[0].id]).await.data();
    assert!(shown.contains("status      running\n") && shown.contains("finished    -\n"), "{shown}");
}
