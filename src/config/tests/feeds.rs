//! Feeds in the file.

use std::{fmt::Write as _, time::Duration};

use super::{Start, assert_contains, refused};

/// The first problem of a feed with a good name and url and this line.
fn refused_in_feed(line: &str) -> String {
    refused(&format!("[[feed]]\nname = \"a\"\nurl = \"https://a.example/\"\n{line}\n")).remove(0)
}

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
