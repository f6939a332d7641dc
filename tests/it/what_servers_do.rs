//! A server that does what servers do: how often it is asked, what is stored of its answers, and when it is asked again.

use std::{collections::BTreeMap, io::Write as _, time::Duration};

use feedmill::{
    feed::pace::Hold,
    import::{ConfiguredFeeds, Scheduler},
    pipeline::feeds,
    store::FeedStatus,
};
use jiff::{SignedDuration, Timestamp, tz::TimeZone};
use mongodb::bson::doc;

use crate::support::{
    feed_server::{FeedServer, Page},
    process::Mill,
};

/// When a feed is asked again, from its fetch on.
#[derive(Clone, Copy, Debug)]
enum Again {
    /// After so many minutes, or up to a fifth more.
    Minutes(u64),
    /// Only when somebody asks.
    Never,
}
use Again::{Minutes, Never};

/// What one feed is served, and what is to come of it.
struct Case {
    name: &'static str,
    page: Page,
    requests: usize,
    items: u64,
    status: Option<u16>,
    again: Again,
}

fn case(name: &'static str, page: Page, requests: usize, items: u64, status: u16, again: Again) -> Case {
    Case { name, page, requests, items, status: Some(status).filter(|status| *status > 0), again }
}

/// A feed of one item, whose channel begins with this.
fn feed(channel: &str) -> Page {
    let item = "<item><guid isPermaLink=\"false\">1</guid><title>one</title></item>";
    let namespace = "xmlns:sy=\"http://purl.org/rss/1.0/modules/syndication/\"";
    Page::new(format!("<rss version=\"2.0\" {namespace}><channel><title>t</title>{channel}{item}</channel></rss>"))
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zlib(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn deflate(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn brotli(bytes: &[u8]) -> Vec<u8> {
    let mut packed = Vec::new();
    brotli::CompressorWriter::new(&mut packed, 4096, 5, 22).write_all(bytes).unwrap();
    packed
}

fn http_date(in_minutes: i64) -> String {
    let at = Timestamp::now() + SignedDuration::from_mins(in_minutes);
    jiff::fmt::rfc2822::DateTimePrinter::new().timestamp_to_rfc9110_string(&at).unwrap()
}

/// One whole item and a long one, which is in the half that is missing.
fn cut_off() -> Page {
    let noise: Vec<String> = (0..4000_u32).map(|n| format!("{:x}", n.wrapping_mul(2_654_435_761))).collect();
    Page::rss(&[("1", "one"), ("2", &noise.concat())])
}

fn half_of_gzip(bytes: &[u8]) -> Vec<u8> {
    let packed = gzip(bytes);
    packed[..packed.len() / 2].to_vec()
}

/// A feed that wants to be asked in one hour of the day only, three hours from now, and the minutes until then.
fn quiet_until_later() -> (Page, u64) {
    let now = Timestamp::now().to_zoned(TimeZone::UTC);
    let loud = (now.hour() + 3) % 24;
    let hours: Vec<String> = (0..24).filter(|hour| *hour != loud).map(|hour| format!("<hour>{hour}</hour>")).collect();
    (feed(&format!("<skipHours>{}</skipHours>", hours.concat())), 180 - u64::from(now.minute().unsigned_abs()))
}

fn cases() -> Vec<Case> {
    let (quiet, until_loud) = quiet_until_later();
    vec![
        // Answers with a feed, in every packing.
        case("plain", feed(""), 1, 1, 200, Minutes(30)),
        case("weak-etag", feed("").without_etag().with_header("etag", "W/\"1\""), 1, 1, 200, Minutes(30)),
        case("gzip", feed("").packed("gzip", gzip), 1, 1, 200, Minutes(30)),
        case("zlib", feed("").packed("deflate", zlib), 1, 1, 200, Minutes(30)),
        case("deflate", feed("").packed("deflate", deflate), 1, 1, 200, Minutes(30)),
        case("brotli", feed("").packed("br", brotli), 1, 1, 200, Minutes(30)),
        case("zstd", feed("").packed("zstd", |bytes| zstd::encode_all(bytes, 3).unwrap()), 1, 1, 200, Minutes(30)),
        case("gzip-unsaid", Page::new(gzip(&feed("").body())), 1, 1, 200, Minutes(30)),
        case("zlib-unsaid", Page::new(zlib(&feed("").body())), 1, 1, 200, Minutes(30)),
        // Cut off by who packed it: the whole items are there.
        case("gzip-cut", cut_off().packed("gzip", half_of_gzip), 1, 1, 200, Minutes(30)),
        case("gzip-unsaid-cut", Page::new(half_of_gzip(&cut_off().body())), 1, 1, 200, Minutes(30)),
        // What the publisher wants.
        case("max-age", feed("").with_header("cache-control", "max-age=7200"), 1, 1, 200, Minutes(120)),
        case("expires", feed("").with_header("expires", &http_date(60)), 1, 1, 200, Minutes(59)),
        case("ttl", feed("<ttl>180</ttl>"), 1, 1, 200, Minutes(180)),
        case("period", feed("<sy:updatePeriod>daily</sy:updatePeriod>"), 1, 1, 200, Minutes(24 * 60)),
        case(
            "hub",
            feed("<atom:link xmlns:atom=\"http://www.w3.org/2005/Atom\" rel=\"hub\" href=\"/websub\"/>"),
            1,
            1,
            200,
            Minutes(30),
        ),
        case("quiet", quiet, 1, 1, 200, Minutes(until_loud - 1)),
        case("a-year", feed("<ttl>525600</ttl>"), 1, 1, 200, Minutes(24 * 60)),
        // Elsewhere.
        case("moved", Page::redirect(301, "/plain"), 1, 1, 200, Minutes(30)),
        case("moved-308", Page::redirect(308, "/plain"), 1, 1, 200, Minutes(30)),
        case("elsewhere", Page::redirect(302, "/plain"), 1, 1, 200, Minutes(30)),
        case("elsewhere-307", Page::redirect(307, "/plain"), 1, 1, 200, Minutes(30)),
        case("loop", Page::redirect(302, "/loop"), 6, 0, 0, Minutes(1)),
        // Not let in, gone, busy, broken.
        case("login", Page::status(401), 1, 0, 401, Minutes(30)),
        case("forbidden", Page::status(403), 1, 0, 403, Minutes(30)),
        case("missing", Page::status(404), 1, 0, 404, Minutes(30)),
        case("gone", Page::status(410), 1, 0, 410, Never),
        case("busy", Page::status(429).with_header("retry-after", "600"), 1, 0, 429, Minutes(10)),
        case("busy-until", Page::status(503).with_header("retry-after", &http_date(20)), 1, 0, 503, Minutes(19)),
        case("broken", Page::status(500), 1, 0, 500, Minutes(1)),
        // No feed, no end, no whole.
        case("html", Page::html(""), 1, 0, 200, Minutes(1)),
        case("stalling", feed("").stalling(), 1, 0, 0, Minutes(1)),
        case("endless", feed("").endless(), 1, 0, 0, Minutes(1)),
        case("cut", feed("").breaking_off(), 1, 0, 0, Minutes(1)),
        case("bomb", Page::new(vec![b' '; 16 << 20]).packed("gzip", gzip), 1, 0, 0, Minutes(1)),
    ]
}

/// A feed of each case, with the schedule `auto`, each fetched once.
async fn fetched(server: &FeedServer, cases: &[Case]) -> Mill {
    let mut mill = Mill::new();
    mill.retry("feed_fetch_queue", 1, "1s");
    mill.set("fetch.timeout", "3s");
    mill.set("fetch.connect_timeout", "1s");
    mill.set("fetch.body_max", "1MiB");
    for case in cases {
        let path = format!("/{}", case.name);
        server.put(&path, case.page.clone());
        mill.feed(case.name, &server.url(&path), Some(case.name));
        mill.set_of_feed(case.name, "schedule", Some("auto"));
    }
    let ran = mill.run(&["fetch", "--all", "--wait"]).await;
    assert_eq!(ran.status.code(), Some(1), "some fail: {}", ran.stderr);
    mill
}

async fn scheduler(mill: &Mill) -> Scheduler {
    let queues = mill.queues().await;
    let feeds = ConfiguredFeeds::new(feeds(&mill.config()).unwrap());
    Scheduler { fetch_queue: queues.fetch, import_queue: queues.import, feeds }
}

fn assert_again(name: &str, status: &FeedStatus, slot_ms: Option<i64>, again: Again) {
    assert_eq!(
        slot_ms,
        status.next_fetch_at.map(Timestamp::as_millisecond),
        "{name}: what is shown is what is scheduled"
    );
    match again {
        Never => assert_eq!((status.next_fetch_at, status.stopped), (None, true), "{name}"),
        Minutes(minutes) => {
            let at = status.next_fetch_at.unwrap_or_else(|| panic!("{name} is fetched again"));
            let wait = Duration::try_from(at.duration_since(status.last_fetch_at.unwrap())).unwrap();
            let least = Duration::from_mins(minutes);
            // What is next was decided a moment before the last fetch was dated.
            let wait = wait + Duration::from_secs(5);
            let most = least.mul_f64(1.3) + Duration::from_secs(10);
            assert!((least..=most).contains(&wait), "{name}: {wait:?} is not from {least:?} to {most:?}");
        }
    }
}

#[tokio::test]
async fn each_answer_has_its_requests_its_items_and_its_next_fetch() {
    let (server, cases) = (FeedServer::start(), cases());
    let mill = fetched(&server, &cases).await;
    let scheduler = scheduler(&mill).await;
    let set = scheduler.sync().await.unwrap();
    assert_eq!((set.set, set.removed), (0, 0), "a process that starts leaves each feed its time");
    let slots: BTreeMap<String, i64> = scheduler.fetch_queue.schedulers().await.unwrap().into_iter().collect();
    let (documents, store) = (mill.documents().await, mill.store().await);
    for Case { name, requests, items, status, again, .. } in &cases {
        let path = format!("/{name}");
        if *name != "plain" {
            assert_eq!(server.asked_for(&path).len(), *requests, "{name}");
        }
        assert_eq!(documents.count_documents(doc! { "source": *name }).await.unwrap(), *items, "{name}");
        let stored = store.find_feed(name).await.unwrap().unwrap();
        assert_eq!(stored.last_status, *status, "{name}: {stored:?}");
        assert_eq!(stored.consecutive_failures, u32::from(*items == 0), "{name}");
        assert_eq!(stored.last_error.is_some(), *items == 0, "{name}");
        assert_again(name, &stored, slots.get(*name).copied(), *again);
        let moved_to = Some(server.url("/plain")).filter(|_| name.starts_with("moved"));
        assert_eq!(stored.moved_to, moved_to, "{name}");
        assert!(server.asked_for("/websub").is_empty());
        let memory = scheduler.import_queue.feed_memory(name).await.unwrap();
        assert_eq!((memory.consecutive_failures, memory.last_error), (stored.consecutive_failures, stored.last_error));
    }
}

#[tokio::test]
async fn a_feed_is_asked_for_with_what_its_server_said_and_304_says_that_nothing_is_new() {
    let (server, mut mill) = (FeedServer::start(), Mill::new());
    let modified = "Sat, 01 Nov 2025 08:30:15 GMT";
    let weak = feed("").without_etag().with_header("etag", "W/\"1\"").with_header("last-modified", modified);
    server.put("/etag", feed(""));
    server.put("/weak", weak);
    for name in ["etag", "weak"] {
        mill.feed(name, &server.url(&format!("/{name}")), Some(name));
        mill.set_of_feed(name, "schedule", Some("auto"));
        mill.fetch_wait(&[name]).await;
        mill.fetch_wait(&[name]).await;
    }
    let statuses = |path: &str| server.asked_for(path).iter().map(|asked| asked.status).collect::<Vec<_>>();
    assert_eq!((statuses("/etag"), statuses("/weak")), (vec![200, 304], vec![200, 200]));
    let again = &server.asked_for("/weak")[1].headers;
    assert_eq!(again["if-none-match"], "W/\"1\"");
    assert_eq!(again["if-modified-since"], modified);
    let (scheduler, documents, store) = (scheduler(&mill).await, mill.documents().await, mill.store().await);
    for (name, last) in [("etag", 304), ("weak", 200)] {
        assert_eq!(documents.count_documents(doc! { "source": name }).await.unwrap(), 1);
        let status = store.find_feed(name).await.unwrap().unwrap();
        assert_eq!((status.last_status, status.consecutive_failures), (Some(last), 0));
        let slots = scheduler.fetch_queue.scheduler_slots(&[name]).await.unwrap().0;
        // A quarter later than before, as nothing was new.
        assert_again(name, &status, slots[0], Minutes(37));
    }
}

#[tokio::test]
async fn a_packed_feed_that_is_cut_off_gives_its_whole_items_and_is_read_anew_each_time() {
    let (server, mut mill) = (FeedServer::start(), Mill::new());
    server.put("/cut", cut_off().packed("gzip", half_of_gzip));
    mill.feed("a", &server.url("/cut"), Some("s"));
    for new in [1, 0] {
        let record = &mill.fetch_wait(&["a"]).await[0];
        assert_eq!((record.items, record.new), (1, new));
        assert_eq!(record.recovered.as_deref(), Some("cut off before its end"));
    }
    let asked = server.asked_for("/cut");
    assert_eq!(asked.iter().map(|asked| asked.is_conditional).collect::<Vec<_>>(), [false, false], "no validators");
}

#[tokio::test]
async fn what_fails_again_waits_longer_and_what_succeeds_goes_on() {
    let server = FeedServer::start();
    let chosen = ["plain", "missing", "gone", "broken"];
    let cases: Vec<Case> = cases().into_iter().filter(|case| chosen.contains(&case.name)).collect();
    let mill = fetched(&server, &cases).await;
    let (scheduler, store) = (scheduler(&mill).await, mill.store().await);
    let fetch = async |name: &str| {
        mill.run(&["fetch", name, "--wait"]).await;
        let slots = scheduler.fetch_queue.scheduler_slots(&[name]).await.unwrap().0;
        (store.find_feed(name).await.unwrap().unwrap(), slots[0])
    };
    for (name, again) in [("missing", Minutes(60)), ("broken", Minutes(2)), ("gone", Never), ("missing", Minutes(120))]
    {
        let (status, slot) = fetch(name).await;
        assert!(status.consecutive_failures > 1);
        assert_again(name, &status, slot, again);
    }
    // Nothing new, and then something: asked less often, and then more often.
    for (page, minutes) in [(feed(""), 37), (feed(""), 46), (Page::rss(&[("2", "two")]), 23)] {
        server.put("/plain", page);
        let (status, slot) = fetch("plain").await;
        assert_again("plain", &status, slot, Minutes(minutes));
    }
    assert_eq!(server.asked_for("/plain").last().unwrap().status, 200);
    // One that was gone is back, because somebody asked.
    for name in chosen {
        server.put(&format!("/{name}"), feed(""));
        let (status, slot) = fetch(name).await;
        assert_eq!(
            (status.consecutive_failures, status.last_error.clone(), status.stopped),
            (0, None, false),
            "{name}"
        );
        assert!(slot.is_some() && status.next_fetch_at.is_some(), "{name} is fetched by its schedule again");
    }
}

#[tokio::test]
async fn a_feed_that_is_held_back_lets_slots_pass_and_fetch_due_too() {
    let server = FeedServer::start();
    let mut mill = Mill::new();
    mill.retry("feed_fetch_queue", 1, "1s");
    for (name, status) in [("missing", 404), ("gone", 410)] {
        server.put(&format!("/{name}"), Page::status(status));
        mill.feed(name, &server.url(&format!("/{name}")), Some(name));
        mill.set_of_feed(name, "schedule", Some("every 1s"));
        mill.set_of_feed(name, "spread", Some("0s"));
    }
    // Never fetched: due.
    assert_eq!(mill.run(&["fetch", "--due", "--wait"]).await.status.code(), Some(1));
    let scheduler = scheduler(&mill).await;
    let slots: BTreeMap<String, i64> = scheduler.fetch_queue.schedulers().await.unwrap().into_iter().collect();
    let memory = scheduler.import_queue.feed_memory("missing").await.unwrap();
    let Ok(Hold::Until(end)) = memory.hold.parse() else { panic!("{memory:?}") };
    assert!(end > Timestamp::now() + SignedDuration::from_mins(29), "{end}");
    assert!(
        slots["missing"] > end.as_millisecond() && slots["missing"] <= end.as_millisecond() + 1000,
        "the slot after it"
    );
    assert_eq!(slots.len(), 1, "what is gone has no slot: {slots:?}");
    scheduler.sync().await.unwrap();
    let ran = mill.run(&["fetch", "--due", "--json"]).await;
    assert_eq!(ran.stdout.trim(), "[]", "{}", ran.stderr);
    assert_eq!(server.asked().len(), 2);
}

#[tokio::test]
async fn a_user_a_token_and_a_proxy_are_taken_from_where_the_configuration_says() {
    let server = FeedServer::start();
    let mut mill = Mill::new();
    server.put("/feed", feed(""));
    std::fs::write(mill.folder().join("token"), "t0ken\n").unwrap();
    let token = format!("{}", mill.folder().join("token").display());
    for (name, key, value) in [("bearer", "bearer_file", token.as_str()), ("variable", "bearer_env", "JOBS_TOKEN")] {
        mill.feed(name, &server.url("/feed"), Some(name));
        mill.set_table_of_feed(name, "auth", &[(key, value)]);
    }
    mill.feed("basic", &server.url("/feed"), Some("basic"));
    mill.set_table_of_feed("basic", "auth", &[("user", "ada"), ("password_env", "JOBS_PASSWORD")]);
    // The server is the proxy of another host.
    mill.feed("proxied", "http://feeds.invalid/feed", Some("proxied"));
    mill.set_of_feed("proxied", "proxy", Some(&server.url("")));
    let mut command = mill.command(&["fetch", "--all", "--wait"]);
    command.env("JOBS_TOKEN", "other").env("JOBS_PASSWORD", "p@ss");
    let ran = mill.start_command(command).ran().await;
    assert!(ran.status.success(), "{}", ran.stderr);
    let mut sent: Vec<String> = server
        .asked()
        .iter()
        .map(|asked| {
            let header = |name: &str| asked.headers.get(name).map_or("none", |value| value.to_str().unwrap());
            format!("{} {}", header("authorization"), header("host").split(':').next().unwrap())
        })
        .collect();
    sent.sort();
    let expected =
        ["Basic YWRhOnBAc3M= 127.0.0.1", "Bearer other 127.0.0.1", "Bearer t0ken 127.0.0.1", "none feeds.invalid"];
    assert_eq!(sent, expected);
    let ran = mill.run(&["fetch", "variable", "--wait"]).await;
    assert!(ran.stderr.contains("the variable JOBS_TOKEN is not set"), "{}", ran.stderr);
}

#[tokio::test]
async fn a_feed_on_a_private_address_is_refused_unless_it_or_its_network_is_allowed() {
    let server = FeedServer::start();
    server.put("/feed", feed(""));
    let mut mill = Mill::new();
    mill.feed("a", &server.url("/feed"), Some("s"));
    mill.set_of_feed("a", "allow_private", None);
    let ran = mill.run(&["fetch", "a", "--wait"]).await;
    assert_eq!(ran.status.code(), Some(1));
    assert!(ran.stderr.contains("127.0.0.1, a loopback address; only a feed of streams.toml with allow_private"));
    assert!(server.asked().is_empty(), "not even a connection");
    mill.set("fetch.allow_networks", vec!["127.0.0.0/8"]);
    mill.fetch_wait(&["a"]).await;
    assert_eq!(server.asked().len(), 1);
}
