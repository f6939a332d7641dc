//! The pictures of the dashboard in docs/screenshots, of feeds as they are: job boards and news that change while one
//! looks, a server that is down, a document that must be mended, jobs that MongoDB refuses.
//!
//! Without FEEDMILL_SCREENSHOTS no picture is taken, and it is still seen that every page has something to show and fits.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use base64::Engine as _;
use feedmill::{Job, NewJob, Outcome, Queue, QueueOptions, Worker, job::JobId, queue::list::ListState};
use mongodb::{
    IndexModel,
    bson::{Document, doc},
    options::IndexOptions,
};
use redis::AsyncCommands as _;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::support::{
    browser::Browser,
    embedded::DataDir,
    eventually::eventually,
    feed_server::{FeedServer, Page},
    http::Served,
    process::{Mill, PATIENCE, Running, redis_connection},
};

const JSON: (&str, &str) = ("Content-Type", "application/json");

const ROLES: [&str; 12] = [
    "Senior Rust Engineer",
    "Data Analyst",
    "Site Reliability Engineer",
    "Product Designer",
    "Technical Writer",
    "Backend Developer (Python)",
    "Engineering Manager, Payments",
    "Customer Support Lead",
    "Machine Learning Engineer",
    "Accountant, part-time",
    "Frontend Developer (TypeScript)",
    "Embedded Software Engineer",
];
const COMPANIES: [&str; 9] = [
    "Kestrel Rail",
    "Northgate Energy",
    "Brightwater Health",
    "Alder & Finch",
    "Tern Logistics",
    "Copperline Insurance",
    "Halden Instruments",
    "Marlow Press",
    "Sellick Harbour Trust",
];
const PLACES: [&str; 7] = ["Remote (EU)", "Berlin", "Lisbon", "Oslo", "Rotterdam", "Vienna", "Kraków"];
const SUBJECTS: [&str; 8] = [
    "the harbour bridge",
    "night trains to the coast",
    "a seed vault's new wing",
    "the tide tables of 1926",
    "an unusually quiet volcano",
    "the last paper timetable",
    "solar roofs on market halls",
    "eels in the city canals",
];
const EVENTS: [&str; 6] = [
    "Council votes on {}",
    "What we learned from {}",
    "Repairs begin at {}",
    "A short history of {}",
    "Researchers return to {}",
    "Letters: in defence of {}",
];

/// A board of jobs: so many, the first one being number `from`; every seventh has been edited `edits` times.
fn board(name: &str, (from, items): (usize, usize), edits: usize) -> Page {
    let mut rss = format!("<rss version=\"2.0\"><channel><title>{name}</title><link>https://{name}.example/</link>");
    for n in from..from + items {
        let (role, company, place) =
            (ROLES[n * 5 % ROLES.len()], COMPANIES[n * 7 % COMPANIES.len()], PLACES[n * 3 % PLACES.len()]);
        let edited = if n % 7 == 3 && edits > 0 { format!(" (updated {edits}×)") } else { String::new() };
        // Now and then a board repeats an advertisement under a new number.
        let advertisement = if n % 23 == 19 { n - 1 } else { n };
        write!(
            rss,
            "<item><guid isPermaLink=\"false\">https://{name}.example/?p={n}</guid>\
             <link>https://{name}.example/jobs/{advertisement}</link>\
             <title>{role}, {}{edited}</title><category>{place}</category>\
             <description>&lt;p&gt;{} has a place in {place}: {role}. Full time, from 1 March; salary by agreement. Send \
             two pages at most, and say what you would change first.&lt;/p&gt;</description></item>",
            company.replace('&', "&amp;"),
            company.replace('&', "&amp;"),
        )
        .unwrap();
    }
    Page::new(rss + "</channel></rss>")
}

/// News: so many, the first being number `from`.
fn news(name: &str, (from, items): (usize, usize), broken: bool) -> Page {
    let mut rss = format!("<rss version=\"2.0\"><channel><title>{name}</title><link>https://{name}.example/</link>");
    for n in from..from + items {
        let title = EVENTS[n * 5 % EVENTS.len()].replace("{}", SUBJECTS[n * 3 % SUBJECTS.len()]);
        // Those who write their feeds by hand forget this.
        let and = if broken { "&" } else { "&amp;" };
        write!(
            rss,
            "<item><guid isPermaLink=\"false\">{name}-{n}</guid><link>https://{name}.example/{n}</link>\
             <title>{title}</title><description>Our correspondents {and} readers report.</description></item>"
        )
        .unwrap();
    }
    Page::new(rss + "</channel></rss>")
}

/// A feedmill that is in use.
struct World {
    /// First, so that its servers are ended before their folder goes.
    _data: DataDir,
    mill: Mill,
    feeds: FeedServer,
    up: Served,
    _workers: [Running; 2],
    mails: Queue<Value>,
    stop: CancellationToken,
}

const BOARDS: [(&str, usize); 3] = [("remote-rust", 40), ("nordic-design", 22), ("data-berlin", 31)];

impl World {
    async fn begin() -> Self {
        let (feeds, mut mill) = (FeedServer::start(), Mill::new());
        mill.set("fetch.allow_networks", vec!["127.0.0.0/8"]);
        mill.retry("job_import_queue", 3, "200ms");
        mill.retry("feed_fetch_queue", 2, "200ms");
        let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("demo/feeds");
        for (name, file) in [("jobboard", "jobboard.rss"), ("sellick-news", "news.atom"), ("podcast", "podcast.rss")] {
            feeds.put(&format!("/{name}"), Page::new(fs::read(demo.join(file)).unwrap()));
        }
        feeds.put("/harbour-notices", Page::status(503));
        feeds.put("/old-gazette", Page::status(410));
        for (name, schedule) in [
            ("jobboard", "*/15 * * * *"),
            ("sellick-news", "auto"),
            ("podcast", "0 6 * * *"),
            ("remote-rust", "every 15m"),
            ("nordic-design", "every 30m"),
            ("data-berlin", "*/20 * * * *"),
            ("city-council", "every 1h"),
            ("science-weekly", "0 7 * * FRI"),
            ("harbour-notices", "every 1h"),
            ("old-gazette", "every 6h"),
        ] {
            mill.feed(name, &feeds.url(&format!("/{name}")), Some(&format!("https://{name}.example/feed")));
            mill.set_of_feed(name, "schedule", Some(schedule));
        }
        mill.set("mongodb.database", "feedmill");
        let data = DataDir::of(&mill);
        let up = Served::by(data.start(&mill)).await;
        let variables = data.variables(&up.process).await;
        mill.move_to(&variables, "feedmill");
        let workers = [mill.worker().await, mill.worker().await];
        let mails = Queue::open(mill.queues().await.import.redis(), "mails", QueueOptions::default()).await.unwrap();
        let world = Self { mill, feeds, up, _workers: workers, _data: data, mails, stop: CancellationToken::new() };
        world.refuse_some().await;
        world.work_on_mails().await;
        for (name, path) in [("night-trains", "/night-trains"), ("garden-notes", "/garden-notes")] {
            world.feeds.put(path, news(name, (0, 9), false));
            let add = ["feeds", "add", &world.feeds.url(path), "--name", name, "--schedule", "every 2h"];
            world.mill.run_ok(&add).await;
        }
        world.mill.run_ok(&["feeds", "pause", "garden-notes"]).await;
        world
    }

    /// An operator wants each advertisement once, and titles to be short.
    async fn refuse_some(&self) {
        let is_text = doc! { "link": { "$type": "string" } };
        let options = IndexOptions::builder().name("one_per_link".to_owned()).unique(true);
        let options = options.partial_filter_expression(is_text).build();
        let index = IndexModel::builder().keys(doc! { "link": 1 }).options(options).build();
        self.mill.documents().await.create_index(index).await.unwrap();
    }

    /// Another program has a queue too, and a worker.
    async fn work_on_mails(&self) {
        let queue = self.mails.untyped().clone();
        let worker = Worker::new(&self.mails, move |job: Job<Value>| {
            let queue = queue.clone();
            async move {
                if job.data["template"] == "digest" {
                    queue.log(&job.id, "rendered 14 items for 1,200 subscribers", 100).await.unwrap();
                    queue.log(&job.id, "310 sent, 2 addresses refused", 100).await.unwrap();
                    queue.set_progress(&job.id, "{\"sent\": 310, \"of\": 1200}").await.unwrap();
                    tokio::time::sleep(Duration::from_hours(1)).await;
                }
                Outcome::Done
            }
        });
        tokio::spawn(worker.on_complete(feedmill::Keep::All).concurrency(2).run(self.stop.clone()));
        let mail = |id: &str, template: &str| NewJob::new(id, json!({ "to": "ann@example.com", "template": template }));
        for job in [
            mail("welcome:ann", "welcome"),
            mail("welcome:bob", "welcome"),
            mail("receipt:8812", "receipt"),
            mail("digest:2026-11-24", "digest"),
            mail("reminder:ann", "reminder").delay(Duration::from_hours(9)),
            mail("reminder:bob", "reminder").delay(Duration::from_hours(33)),
        ] {
            self.mails.add(job).await.unwrap();
        }
        for (queue, id, scheduler) in [
            (
                "mails",
                "weekly-digest",
                json!({ "cron": "0 8 * * MON", "timezone": "Europe/Berlin", "overlap": false,
                "job": { "payload": { "to": "subscribers", "template": "digest" }, "name": "digest", "attempts": 2 } }),
            ),
            ("mails", "receipts", json!({ "everyMs": 21_600_000, "job": { "payload": { "template": "receipts" } } })),
            (
                "feed_fetch_queue",
                "sunday-in-full",
                json!({ "cron": "0 4 * * SUN", "timezone": "Europe/Berlin",
                "job": { "payload": { "feed": "jobboard", "force": true } } }),
            ),
        ] {
            let path = format!("/api/queues/{queue}/schedulers/{id}");
            let made = self.up.ask("PUT", &path, &[JSON], &scheduler.to_string()).await;
            assert_eq!(made.status, 200, "{made:?}");
        }
    }

    /// The boards and the news go on, and are read again.
    async fn turn(&self, n: usize) {
        for (name, items) in BOARDS {
            self.feeds.put(&format!("/{name}"), board(name, (2 * n, items), n));
        }
        self.feeds.put("/city-council", news("city-council", (n / 2, 18), false));
        self.feeds.put("/science-weekly", news("science-weekly", (n / 3, 14), true));
        assert_eq!(self.up.post("/imports/start", "").await.status, 202);
    }

    /// What an operator finds in the morning: some of everything.
    async fn evening(&self) {
        let queues = self.mill.queues().await;
        self.mill.through(&queues).await;
        let mut redis = redis_connection(queues.import.redis().address()).await;
        // A plain producer makes a mistake.
        let stream = queues.import.keys().stream().to_owned();
        for json in ["{\"source\": \"crm\", \"guid\": 17", "{\"guid\": \"18\", \"title\": \"Receptionist\"}"] {
            let _: String = redis.xadd(&stream, "*", &[("json", json)]).await.unwrap();
        }
        let dead = async || queues.import.counts().await.unwrap().failed;
        eventually("both are dead letters", PATIENCE, async || {
            let letters = queues.import.dead_letters(None, 128).await.unwrap();
            (letters.iter().filter(|letter| letter.reason.starts_with("json: ")).count() == 2).then_some(())
        })
        .await;
        let some = json!({ "reason": "E11000" }).to_string();
        let path = "/api/queues/job_import_queue/retry/failed";
        let before = dead().await;
        assert_eq!(self.up.ask("PUT", path, &[JSON], &some).await.status, 202);
        eventually("they die again", PATIENCE, async || (dead().await == before).then_some(())).await;
        self.mill.through(&queues).await;
        // It is paused, and waits.
        queues.import.pause().await.unwrap();
        self.turn(40).await;
        eventually("much waits", PATIENCE, async || {
            let (import, fetch) = (queues.import.counts().await.unwrap(), queues.fetch.counts().await.unwrap());
            (import.waiting > 30 && fetch.active + fetch.waiting == 0).then_some(())
        })
        .await;
        for (guid, delay_ms, priority) in [("later", 5_400_000, 0), ("urgent", 0, 1)] {
            let payload =
                json!({ "source": "https://jobboard.example/feed", "guid": guid, "title": "Pilot, relief crew" });
            let job = json!({ "payload": payload, "delayMs": delay_ms, "priority": priority }).to_string();
            let added = self.up.post("/api/queues/job_import_queue/add", &job).await;
            assert_eq!(added.status, 200, "{added:?}");
        }
    }

    /// Every page, by the name of its picture.
    async fn pages(&self) -> Vec<(&'static str, String)> {
        let queues = self.mill.queues().await;
        let waiting =
            queues.import.list(ListState::Waiting, feedmill::queue::Order::Ascending, None, 128).await.unwrap();
        let waiting = waiting.jobs.iter().find_map(|job| job.id.clone().filter(|id| is_of(id, "remote-rust"))).unwrap();
        let dead = queues.import.dead_letters(None, 50).await.unwrap();
        let dead = dead.iter().find(|letter| letter.reason.contains("E11000")).unwrap().id.clone().unwrap();
        let imports = self.up.get_json("/imports?feed=remote-rust&limit=50").await["imports"].clone();
        let failed = imports.as_array().unwrap().iter().find(|one| one["failed"].as_u64() > Some(0)).unwrap();
        let operation = self.up.get_json("/api/operations").await["operations"][0]["id"].as_str().unwrap().to_owned();
        let document: Document =
            self.mill.documents().await.find_one(doc! { "guid": { "$regex": "12368" } }).await.unwrap().unwrap();
        let (source, guid) = (document.get_str("source").unwrap(), document.get_str("guid").unwrap());
        let document = url::form_urlencoded::Serializer::new(String::new())
            .append_pair("source", source)
            .append_pair("guid", guid)
            .finish();
        let queue = "/queue/job_import_queue";
        vec![
            ("overview", String::new()),
            ("queue", format!("{queue}?state=waiting")),
            ("dead", format!("{queue}?state=failed")),
            ("search", format!("{queue}?by=error&text=duplicate+key&everywhere=yes")),
            ("dead-letters", format!("{queue}/dead")),
            ("job", format!("{queue}/job?id={}", encoded(&waiting))),
            ("dead-job", format!("{queue}/job?id={}", encoded(&dead))),
            ("running-job", "/queue/mails/job?id=digest%3A2026-11-24".to_owned()),
            ("edit-job", format!("{queue}/job/edit?id={}", encoded(&dead))),
            ("add-job", format!("{queue}/add")),
            ("feeds", "/feeds".to_owned()),
            ("feed", "/feeds/remote-rust".to_owned()),
            ("imports", "/imports".to_owned()),
            ("import", format!("/imports/{}", failed["id"].as_str().unwrap())),
            ("document", format!("/document?{document}")),
            ("schedulers", "/schedulers".to_owned()),
            ("scheduler", "/queue/mails/scheduler?id=weekly-digest".to_owned()),
            ("add-scheduler", "/schedulers/add?queue=mails".to_owned()),
            ("workers", "/workers".to_owned()),
            ("operations", "/operations".to_owned()),
            ("operation", format!("/operations/{operation}")),
            ("health", "/health".to_owned()),
        ]
    }
}

fn is_of(id: &JobId, feed: &str) -> bool {
    id.to_string().contains(feed)
}

fn encoded(id: &JobId) -> String {
    percent_encoding::percent_encode(id.as_bytes(), percent_encoding::NON_ALPHANUMERIC).to_string()
}

/// How the pictures are taken: where they go, and for how many minutes feeds are imported before.
fn wanted() -> (Option<PathBuf>, u64) {
    let minutes = std::env::var("FEEDMILL_SCREENSHOTS_MINUTES").ok().map(|text| text.parse().unwrap());
    (std::env::var_os("FEEDMILL_SCREENSHOTS").map(PathBuf::from), minutes.unwrap_or(0))
}

fn take(browser_says: &str, path: &Path) {
    let png = base64::engine::general_purpose::STANDARD.decode(browser_says).unwrap();
    fs::write(path, png).unwrap();
    // A page has few colours. Without it the pictures are as good, and three times as large.
    let _ = Command::new("pngquant").args(["--force", "--skip-if-larger", "--ext", ".png", "64"]).arg(path).status();
}

#[tokio::test]
async fn every_page_has_something_to_show_of_feeds_in_use_and_fits_a_desk_and_a_phone() {
    let (folder, minutes) = wanted();
    let world = World::begin().await;
    let (began, mut turns) = (Instant::now(), 0);
    loop {
        world.turn(turns).await;
        world.mill.through(&world.mill.queues().await).await;
        turns += 1;
        if turns > 2 && began.elapsed() >= Duration::from_secs(60 * minutes) {
            break;
        }
        tokio::time::sleep(Duration::from_secs(minutes.min(1) * 20)).await;
    }
    world.evening().await;
    let browser = Browser::start().await;
    let mut wrong = Vec::new();
    for (name, path) in world.pages().await {
        for (width, scheme) in [(1280, "light"), (1280, "dark"), (390, "light"), (390, "dark")] {
            if folder.is_none() && scheme == "dark" {
                continue;
            }
            browser.look_as(width, scheme).await;
            browser.open(&format!("http://{}/admin/queues{path}", world.up.address)).await;
            browser.until("document.querySelector('[data-live]').dataset.is === 'on'").await;
            let look = "return [document.documentElement.scrollWidth - innerWidth, document.querySelectorAll('.empty').length,
                [...document.querySelectorAll('main *')].filter((one) => one.clientWidth > 0 && one.scrollWidth > one.clientWidth + 1
                    && getComputedStyle(one).overflowX === 'hidden').map((one) => one.outerHTML.slice(0, 80))]";
            let found = browser.run(look).await;
            if found[0].as_i64() > Some(0) || found[1] != 0 || found[2] != json!([]) {
                wrong.push(format!("{name} {width} {scheme}: pixels too wide, empty tables, cut off: {found}"));
            }
            wrong.extend(browser.complaints().await.into_iter().map(|line| format!("{name} {width} {scheme}: {line}")));
            if let Some(folder) = &folder {
                fs::create_dir_all(folder).unwrap();
                take(&browser.picture().await, &folder.join(format!("{name}-{width}-{scheme}.png")));
            }
        }
    }
    if let Some(folder) = &folder {
        let login = Served::behind_token(&world.mill, "s3cret").await;
        for (width, scheme) in [(1280, "light"), (1280, "dark"), (390, "light"), (390, "dark")] {
            browser.look_as(width, scheme).await;
            browser.open(&format!("http://{}/admin/queues", login.address)).await;
            browser.says("Log in").await;
            take(&browser.picture().await, &folder.join(format!("login-{width}-{scheme}.png")));
        }
    }
    world.stop.cancel();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
