//! The command line with the real binary: what it says to bad input, and what it prints.
//!
//! An error is one line on stderr that names the thing and what to do, nothing on stdout, and exit status 1 (it failed)
//! or 2 (it was called or configured in a way that cannot work).

use crate::support::{
    feed_server::{FeedServer, Page},
    process::{Mill, Ran},
    redis_prefix,
    servers::SharedServers,
    shell::Shell,
};

mod servers;
mod configuration;
mod usage;
mod parse;
mod queue;
mod imports;

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

/// A feed of one whole item, and one with a title alone.
const FEED: &str = r#"<rss version="2.0" xmlns:job_listing="https://jobs.example/ns"><channel><title>Jobs</title>
<item><title>Miller</title><link>https://jobs.example/1</link><guid>https://jobs.example/?p=1#1</guid>
<pubDate>Mon, 02 Mar 2026 10:00:00 +0100</pubDate><category>Grain</category><description>short</description>
<enclosure url="https://jobs.example/a.mp3" type="audio/mpeg" length="7"/>
<job_listing:company>The Mill</job_listing:company></item><item><title>Baker</title></item></channel></rss>"#;

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
