//! `parse`: items of files as lines of JSON.

use std::process::Stdio;

use serde_json::{Value, json};

use super::{FEED, errors};
use crate::support::shell::{BINARY, Shell, ran};

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
