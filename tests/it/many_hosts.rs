//! Very many feeds of very many hosts on one worker: the hosts are spared, and memory is, and no time is lost beyond what
//! the limits of the hosts take.
//!
//! `FEEDMILL_MANY_FEEDS=10000` makes them ten times as many.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use feedmill::{
    feed::fetch::Fetcher,
    import::{StartRequest, start},
    pipeline::{Pipeline, fetch_limits},
};
use mongodb::bson::doc;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use tokio_util::sync::CancellationToken;

use crate::support::{
    feed_server::{FeedServer, Page},
    process::Mill,
};

/// Feeds and hosts; `FEEDMILL_MANY_FEEDS` sets another number of feeds.
const FEEDS: usize = 1000;
const HOSTS: usize = 100;
/// What the server takes for an answer.
const LATENCY: Duration = Duration::from_millis(50);
/// Fetches of a host at a time.
const PER_HOST: usize = 2;
const PER_HOST_TOML: toml::Value = toml::Value::Integer(PER_HOST as i64);
const MEMORY_BYTES_MAX: u64 = 300 << 20;

fn table(keys: &[(&str, toml::Value)]) -> toml::Value {
    keys.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect::<toml::Table>().into()
}

/// Every name is a name of this machine.
struct EveryName;

impl Resolve for EveryName {
    fn resolve(&self, _: Name) -> Resolving {
        Box::pin(async { Ok(Box::new(std::iter::once(SocketAddr::from(([127, 0, 0, 1], 0)))) as Addrs) })
    }
}

/// The most memory this process had, where the system tells.
fn peak_memory_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().trim().parse::<u64>().unwrap() * 1024
}

/// What became of fetching all feeds.
struct Fetched {
    feeds: usize,
    took: Duration,
}

/// Fetches each feed once, with these limits for each host, and checks all but the time that it took.
async fn fetch_all(limits: toml::Value) -> Fetched {
    let feeds = std::env::var("FEEDMILL_MANY_FEEDS").map_or(FEEDS, |feeds| feeds.parse().unwrap());
    let server = FeedServer::start();
    let port = server.url("").rsplit(':').next().unwrap().to_owned();
    server.put("/feed", Page::rss(&[("1", "one")]).after(LATENCY));
    let mut mill = Mill::new();
    mill.set("fetch.allow_networks", vec!["127.0.0.0/8"]);
    mill.set("stream.feed_fetch_queue.concurrency", 200);
    mill.set("stream.feed_fetch_queue.group_by", limits);
    let list: Vec<toml::Value> = (0..feeds)
        .map(|n| {
            let url = format!("http://host{}.example:{port}/feed?{n}", n % HOSTS);
            table(&[("name", format!("feed{n}").into()), ("url", url.into()), ("source", format!("s{n}").into())])
        })
        .collect();
    mill.set("feed", list);
    let config = mill.config();
    let fetcher = Fetcher::with_names(fetch_limits(&config), Arc::new(EveryName)).unwrap();
    let pipeline = Pipeline::connect(&config).await.unwrap().with_fetcher(fetcher);
    let (queues, wanted) = (pipeline.queues.clone(), pipeline.feeds.current());
    start(&queues.import, &queues.fetch, wanted.values().map(|feed| &**feed), &StartRequest::default()).await.unwrap();
    let (stop, began) = (CancellationToken::new(), Instant::now());
    let running = tokio::spawn(pipeline.run(stop.clone()));
    mill.through(&queues).await;
    let took = began.elapsed();
    stop.cancel();
    running.await.unwrap();

    assert_eq!(mill.documents().await.count_documents(doc! {}).await.unwrap(), feeds as u64);
    assert_eq!(server.asked().len(), feeds, "each once");
    let busiest = server.busiest();
    assert_eq!(busiest.len(), HOSTS);
    assert!(busiest.values().all(|at_once| *at_once <= PER_HOST), "{busiest:?}");
    let memory = peak_memory_bytes();
    assert!(memory < MEMORY_BYTES_MAX, "{} MiB", memory >> 20);
    Fetched { feeds, took }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_host_is_asked_more_than_its_limit_however_many_feeds_there_are() {
    let Fetched { feeds, took } = fetch_all(table(&[("key", "host".into()), ("window", PER_HOST_TOML)])).await;
    let least = LATENCY * u32::try_from(feeds / HOSTS / PER_HOST).unwrap();
    assert!(took >= least, "{took:?}, {least:?} are the least");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[expect(clippy::print_stderr, reason = "what was measured is shown by a test that fails, or with --no-capture")]
async fn all_hosts_are_through_in_the_time_that_the_spacing_of_one_takes() {
    let limiter = table(&[("max", 1.into()), ("duration", "1s".into())]);
    let limits = table(&[("key", "host".into()), ("window", PER_HOST_TOML), ("limiter", limiter)]);
    let Fetched { feeds, took } = fetch_all(limits).await;
    let seconds = (feeds / HOSTS) as u64;
    // One a second, the first at once: the last one starts in the last window, whenever that began.
    let (least, most) = (Duration::from_secs(seconds - 2), Duration::from_secs(seconds + 2).mul_f64(1.1));
    eprintln!("{feeds} feeds of {HOSTS} hosts, one a second of each, in {took:?}");
    assert!((least..most).contains(&took), "{took:?}, not {least:?} to {most:?}");
}
