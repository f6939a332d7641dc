//! Calls that cannot work, help and version.

use crate::support::{mongo_database, shell::Shell};

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
