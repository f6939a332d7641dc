//! The dashboard in a real browser: what an operator sees and does, and what a hostile feed cannot do.

use std::{fmt::Write as _, fs, time::Duration};

use feedmill::{
    job::{Envelope, JobId},
    queue::enqueue::NewJob,
};
use serde_json::json;

use crate::support::{
    browser::Browser,
    embedded::DataDir,
    eventually::eventually,
    feed_server::{FeedServer, Page},
    http::Served,
    process::{Mill, PATIENCE},
    servers::find,
};

/// What a hostile feed puts where it can.
const HOSTILE: &str = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>'\"&";

fn xml(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;")
}

/// A feed of so many items whose ids, titles and descriptions are hostile.
fn hostile_feed(items: usize) -> Page {
    let mut rss = String::from("<rss version=\"2.0\"><channel><title>hostile</title>");
    for n in 0..items {
        for (name, text) in [
            ("guid isPermaLink=\"false\"", format!("{n}-{HOSTILE}")),
            ("title", format!("{n} {HOSTILE}")),
            ("description", format!("<p>described {HOSTILE}</p>")),
        ] {
            let end = name.split(' ').next().unwrap();
            let opening = if end == "guid" { "<item>" } else { "" };
            write!(rss, "{opening}<{name}>{}</{end}>", xml(&text)).unwrap();
        }
        rss += "</item>";
    }
    Page::new(rss + "</channel></rss>")
}

fn mill(feeds: &[&str], page: &Page) -> (Mill, FeedServer) {
    let (mut mill, server) = (Mill::new(), FeedServer::start());
    for feed in feeds {
        server.put(&format!("/{feed}"), page.clone());
        mill.feed(feed, &server.url(&format!("/{feed}")), Some(feed));
    }
    (mill, server)
}

/// A job that no document can be made of, and the payload with which one can.
fn bad_and_good(guid: &str) -> (String, String) {
    let item = |extensions: serde_json::Value| {
        json!({ "source": "jobs", "guid": guid, "title": "By hand", "extensions": extensions }).to_string()
    };
    (item(json!({ "a\u{0}b": "1" })), item(json!({})))
}

/// The way of an operator through it, on servers of `up --embedded`, behind a token.
#[tokio::test]
async fn an_operator_logs_in_watches_an_import_helps_jobs_that_failed_and_logs_out() {
    let (mut mill, _server) = mill(&["jobs"], &hostile_feed(25));
    mill.set("mongodb.database", "feedmill");
    let data = DataDir::of(&mill);
    let mut command = data.command(&mill);
    command.env("FEEDMILL_TOKEN", "s3cret");
    let up = Served::by(mill.start_command(command)).await;
    let variables = data.variables(&up.process).await;
    mill.move_to(&variables, "feedmill");
    let queues = mill.queues().await;
    let (browser, root) = (Browser::start().await, format!("http://{}/admin/queues", up.address));

    // Nothing is shown to who does not know the token; who does comes to where they wanted to.
    let import_queue = format!("{root}/queue/job_import_queue");
    browser.open(&import_queue).await;
    browser.says("Log in").await;
    browser.fill("//input[@name='token']", "s3cret").await;
    browser.press("Log in").await;
    browser.until("document.querySelector('[data-live]').dataset.is === 'on'").await;
    assert_eq!(browser.url().await, import_queue);

    // Paused, what is imported waits. It is imported in one tab, and the count moves in the other without a reload.
    browser.press("Pause").await;
    browser.says("job_import_queue is paused").await;
    browser.until("document.querySelector('[data-live]').dataset.is === 'on'").await;
    browser.run("window.stillHere = true").await;
    let watching = browser.open_tab().await;
    browser.open(&format!("{root}/feeds/jobs")).await;
    browser.press("Import now").await;
    browser.says("The import of jobs has begun.").await;
    browser.close_tab(&watching).await;
    browser.until("document.querySelector('[data-count=\"job_import_queue/waiting\"]').textContent === '25'").await;
    browser.until("document.querySelectorAll('#jobs tbody tr').length === 25").await;
    assert_eq!(browser.run("return window.stillHere").await, true, "it was not loaded anew");

    // A job is found by the beginning of its id, and opened. What its feed says is text.
    browser.fill("//input[@type='search']", "jobs#7-").await;
    browser.press("Search").await;
    browser.says("1 found among").await;
    browser.click("//tbody//a").await;
    browser.says("Timeline").await;
    assert_eq!(browser.run("return document.querySelector('h1').textContent").await, format!("7 {HOSTILE}"));
    browser.says(&format!("<p>described {HOSTILE}</p>")).await;
    browser.says("Waits since").await;

    // It is made to fail, and comes back.
    browser.press("Cancel").await;
    browser.says("is cancelled").await;
    browser.says("Given up: cancelled").await;
    browser.press("Retry").await;
    browser.says("waits again, at attempt 1").await;

    // Three are chosen and given up together; by their reason they are brought back together.
    browser.open(&format!("{import_queue}?state=waiting")).await;
    for row in 1..=3 {
        browser.click(&format!("(//input[@name='id'])[{row}]")).await;
    }
    browser.says("3 selected").await;
    browser.press("Cancel").await;
    browser.says("cancel: 3 of 3 jobs").await;
    browser.press("Dead letters by reason").await;
    browser.says("cancelled").await;
    browser.click("//td//button[normalize-space()='Redrive']").await;
    browser.says("3 done, 3 looked at").await;

    // All of it is stored once the queue goes on.
    browser.open(&import_queue).await;
    browser.press("Resume").await;
    browser.says("goes on").await;
    mill.through(&queues).await;
    let guid =
        percent_encoding::utf8_percent_encode(&format!("7-{HOSTILE}"), percent_encoding::NON_ALPHANUMERIC).to_string();
    browser.open(&format!("{root}/document?source=jobs&guid={guid}")).await;
    browser.says(&format!("<p>described {HOSTILE}</p>")).await;

    // A job that cannot be stored dies, is mended, and is redriven.
    browser.open(&import_queue).await;
    browser.press("Add a job").await;
    let (bad, good) = bad_and_good("bad");
    browser.fill("//textarea", &bad).await;
    browser.press("Add").await;
    eventually("it died", PATIENCE, async || (queues.import.counts().await.unwrap().failed == 1).then_some(())).await;
    browser.open(&format!("{import_queue}?state=failed")).await;
    browser.click("//tbody//a").await;
    browser.press("Edit").await;
    browser.fill("//textarea", &good).await;
    browser.press("Replace the payload").await;
    browser.says("payload replaced").await;
    browser.press("Retry").await;
    eventually("it is no dead letter any more", PATIENCE, async || {
        (queues.import.counts().await.unwrap().failed == 0).then_some(())
    })
    .await;
    mill.through(&queues).await;
    browser.open(&format!("{root}/document?source=jobs&guid=bad")).await;
    browser.says("By hand").await;

    browser.press("Log out").await;
    browser.says("Log in").await;
    browser.open(&import_queue).await;
    browser.says("Log in").await;
    assert_ne!(browser.run("return document.title").await, "owned");
    assert_eq!(browser.complaints().await, Vec::<String>::new());
    mill.assert_clean(&queues, 26).await;

    let log = up.process.stderr();
    for line in
        ["audit=true", "by=\"session ", "\"pause\"", "\"cancel\"", "\"retry\"", "\"add\"", "redriving dead letters"]
    {
        assert!(log.contains(line), "{line}: {log}");
    }
}

#[tokio::test]
async fn the_page_of_a_job_that_is_gone_leads_to_its_document() {
    let (mill, _server) = mill(&["jobs"], &Page::rss(&[("1", "one")]));
    let up = Served::up(&mill).await;
    assert_eq!(up.post("/imports/start", "").await.status, 202);
    let queues = mill.queues().await;
    eventually("it is stored", PATIENCE, async || mill.title("1").await).await;
    mill.through(&queues).await;
    // What others saw may be shown for a second.
    eventually("the job is gone", PATIENCE, async || {
        let page = up.get("/admin/queues/queue/job_import_queue/job?id=jobs%231").await;
        let leads = page.body.contains("/admin/queues/document?source=jobs&amp;guid=1");
        (page.status == 404 && page.body.contains("This job is not there") && leads).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_queue_is_obliterated_only_by_who_types_its_name() {
    let (mill, _server) = mill(&[], &Page::rss(&[]));
    let served = Served::serve(&mill).await;
    let queues = mill.queues().await;
    let other = feedmill::queue::Queue::open(queues.import.redis(), "mails", feedmill::Events::Failures).await.unwrap();
    let envelope = Envelope { payload: b"{\"to\": \"ann\"}", ..Envelope::default() };
    other.add(&[NewJob::new(JobId::new("mail-1").unwrap(), envelope)], 1000).await.unwrap();
    let browser = Browser::start().await;
    browser.open(&format!("http://{}/admin/queues/queue/mails", served.address)).await;
    browser.says("mail-1").await;
    browser.press("Pause").await;
    browser.says("mails is paused").await;
    let obliterate = "//button[normalize-space()='Obliterate']";
    for (typed, said) in [("mail", "nothing was done"), ("mails", "ended")] {
        browser.open(&format!("http://{}/admin/queues/queue/mails", served.address)).await;
        browser.click("//summary[contains(., 'obliterate')]").await;
        browser.fill("//input[@name='confirm']", typed).await;
        browser.press_and_confirm(obliterate).await;
        browser.says(said).await;
    }
    assert!(!queues.import.redis().has_queue("mails").await.unwrap());
}

#[tokio::test]
async fn who_knows_the_token_logs_in_and_out_and_others_see_nothing() {
    let (mill, _server) = mill(&["jobs"], &Page::rss(&[]));
    let served = Served::behind_token(&mill, "s3cret").await;
    let browser = Browser::start().await;
    let page = format!("http://{}/admin/queues/workers", served.address);
    browser.open(&page).await;
    browser.says("Log in").await;
    assert!(!browser.text().await.contains("Workers"));
    assert_eq!(browser.complaints().await, Vec::<String>::new());
    browser.fill("//input[@name='token']", "wrong").await;
    browser.press("Log in").await;
    browser.says("That is not the token.").await;
    browser.open(&page).await;
    browser.fill("//input[@name='token']", "s3cret").await;
    browser.press("Log in").await;
    browser.says("There are no workers.").await;
    assert_eq!(browser.url().await, page, "it leads to where one wanted to");
    browser.until("document.querySelector('[data-live]').dataset.is === 'on'").await;
    assert_eq!(browser.run("return document.cookie").await, "", "scripts do not see the session");
    browser.press("Log out").await;
    browser.says("Log in").await;
    browser.open(&page).await;
    browser.says("Log in").await;
}

#[tokio::test]
async fn read_only_shows_everything_and_offers_nothing() {
    let (mill, _server) = mill(&["jobs"], &Page::rss(&[]));
    let served = Served::by(mill.start(&["serve", "--read-only"])).await;
    let browser = Browser::start().await;
    browser.open(&format!("http://{}/admin/queues/queue/job_import_queue", served.address)).await;
    browser.says("read-only").await;
    assert_eq!(browser.run("return document.querySelectorAll('form[method=post] button').length").await, 0);
    // Nor is a form taken that somebody makes by hand.
    let forged = "const form = document.createElement('form'); form.method = 'post'; form.action = location.href;
        form.innerHTML = '<input name=do value=pause>'; document.body.append(form); form.submit()";
    browser.run(forged).await;
    browser.says("this feedmill is read-only").await;
    served.post("/imports/start", "").await.refused(403, "read_only");
    let paused = served.ask("PUT", "/api/queues/job_import_queue/pause", &[], "").await;
    paused.refused(403, "read_only");
    assert!(!mill.queues().await.import.counts().await.unwrap().is_paused);
}

/// Fills a feedmill with something for every page.
async fn filled() -> (Mill, FeedServer, Served) {
    let (mut mill, server) = mill(&["jobs", "news"], &hostile_feed(25));
    server.put("/broken", Page::status(503));
    mill.feed("broken", &server.url("/broken"), Some("broken"));
    mill.set_of_feed("jobs", "schedule", Some("every 15m"));
    let up = Served::up(&mill).await;
    let queues = mill.queues().await;
    assert_eq!(up.post("/imports/start", r#"{"feeds": ["jobs"]}"#).await.status, 202);
    mill.through(&queues).await;
    queues.import.pause().await.unwrap();
    assert_eq!(up.post("/imports/start", r#"{"feeds": ["news", "broken"]}"#).await.status, 202);
    eventually("they wait", PATIENCE, async || (queues.import.counts().await.unwrap().waiting == 25).then_some(()))
        .await;
    for n in 0..4 {
        let id = JobId::new(format!("news#{n}-{HOSTILE}")).unwrap();
        queues.import.cancel(&id).await.unwrap();
    }
    let delayed = json!({ "payload": { "source": "news", "guid": "later", "title": "Later" }, "delayMs": 3_600_000 });
    let added = up.post("/api/queues/job_import_queue/add", &delayed.to_string()).await;
    assert_eq!(added.status, 200, "{added:?}");
    let fetched = eventually("its status is written", PATIENCE, async || {
        let feed = up.get_json("/api/feeds/jobs").await;
        (feed["lastStatus"] == 200).then_some(feed)
    })
    .await;
    assert_eq!((&fetched["from"], &fetched["schedule"]), (&json!("file"), &json!("every 15m")));
    let weekly = json!({ "cron": "0 4 * * SUN", "job": { "payload": { "feed": "jobs" } } }).to_string();
    let path = "/api/queues/feed_fetch_queue/schedulers/weekly";
    let made = up.ask("PUT", path, &[("Content-Type", "application/json")], &weekly).await;
    assert_eq!(made.status, 200, "{made:?}");
    let body = json!({ "reason": "no such reason" }).to_string();
    let began = up
        .ask("PUT", "/api/queues/job_import_queue/retry/failed", &[("Content-Type", "application/json")], &body)
        .await;
    assert_eq!(began.status, 202, "{began:?}");
    (mill, server, up)
}

/// Every page, by the name of its picture.
async fn pages(up: &Served, mill: &Mill) -> Vec<(&'static str, String)> {
    let imports = up.get_json("/imports?feed=jobs").await["imports"].clone();
    let import = imports[0]["id"].as_str().unwrap().to_owned();
    let operations = up.get_json("/api/operations").await["operations"].clone();
    let operation = operations[0]["id"].as_str().unwrap().to_owned();
    let id = JobId::new(format!("news#7-{HOSTILE}")).unwrap();
    assert!(mill.queues().await.import.find(&id).await.unwrap().is_some());
    let encode =
        |text: &str| percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string();
    let (id, dead) = (encode(&id.to_string()), encode(&format!("news#0-{HOSTILE}")));
    let guid = encode(&format!("7-{HOSTILE}"));
    let queue = "/queue/job_import_queue";
    vec![
        ("overview", String::new()),
        ("queue", format!("{queue}?state=waiting")),
        ("dead", format!("{queue}?state=failed")),
        ("search", format!("{queue}?by=error&text=cancelled&everywhere=yes")),
        ("dead-letters", format!("{queue}/dead")),
        ("job", format!("{queue}/job?id={id}")),
        ("dead-job", format!("{queue}/job?id={dead}")),
        ("edit-job", format!("{queue}/job/edit?id={id}")),
        ("add-job", format!("{queue}/add")),
        ("feeds", "/feeds".to_owned()),
        ("feed", "/feeds/jobs".to_owned()),
        ("imports", "/imports".to_owned()),
        ("import", format!("/imports/{import}")),
        ("document", format!("/document?source=jobs&guid={guid}")),
        ("schedulers", "/schedulers".to_owned()),
        ("scheduler", "/queue/feed_fetch_queue/scheduler?id=weekly".to_owned()),
        ("add-scheduler", "/schedulers/add".to_owned()),
        ("workers", "/workers".to_owned()),
        ("operations", "/operations".to_owned()),
        ("operation", format!("/operations/{operation}")),
        ("health", "/health".to_owned()),
    ]
}

#[tokio::test]
async fn every_page_is_without_complaints_barriers_and_foreign_scripts_in_both_themes_and_on_a_phone() {
    let (mill, _server, up) = filled().await;
    let browser = Browser::start().await;
    let mut wrong = Vec::new();
    for (name, path) in pages(&up, &mill).await {
        for (width, scheme) in [(1280, "light"), (1280, "dark"), (390, "light"), (390, "dark")] {
            browser.look_as(width, scheme).await;
            browser.open(&format!("http://{}/admin/queues{path}", up.address)).await;
            browser.until("document.querySelector('[data-live]').dataset.is === 'on'").await;
            let shown = format!("{name} {width} {scheme}");
            if browser.run("return document.title").await == "owned" {
                wrong.push(format!("{shown}: a script of the feed ran"));
            }
            wrong.extend(browser.complaints().await.into_iter().map(|line| format!("{shown}: {line}")));
            wrong.extend(browser.barriers().await.into_iter().map(|line| format!("{shown}: {line}")));
            let over = browser.run("return document.documentElement.scrollWidth - innerWidth").await;
            if over.as_i64().unwrap() > 0 {
                wrong.push(format!("{shown}: {over} pixels too wide"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn pages_can_be_read_without_the_script_and_under_a_path_of_a_proxy() {
    let (mill, _server) = mill(&["jobs"], &Page::rss(&[("1", "one")]));
    let served = Served::by(mill.start(&["serve", "--base-path", "/mill"])).await;
    for path in ["/mill/admin/queues", "/admin/queues", "/mill/admin/queues/feeds"] {
        let answer = served.get(path).await;
        assert_eq!(answer.status, 200, "{path}");
        assert!(answer.body.contains("href=\"/mill/admin/queues/workers\""), "{}", answer.body);
        let policy = "content-security-policy: default-src 'none'; script-src 'self'; style-src 'self';";
        assert!(answer.head.contains(policy), "{}", answer.head);
        for inline in ["<style", " style=", "onclick", "javascript:"] {
            assert!(!answer.body.contains(inline), "{inline} on {path}");
        }
    }
    let style = served.get("/mill/admin/queues/assets/style.css").await;
    assert_eq!(style.status, 200);
    tokio::time::timeout(Duration::from_secs(5), async {
        assert_eq!(served.get("/mill/healthz").await.status, 200);
        served.get("/other/admin/queues").await.refused(404, "not_found");
    })
    .await
    .unwrap();
}

/// nginx in front, with one server that takes the base path away and one that leaves it.
struct Proxy {
    nginx: std::process::Child,
    taking: u16,
    leaving: u16,
    _folder: tempfile::TempDir,
}

impl Proxy {
    async fn before(served: &Served) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let free = || std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let (taking, leaving) = (free(), free());
        let listening = |port: u16, to: &str| {
            format!(
                "server {{ listen 127.0.0.1:{port}; location /mill/ {{ proxy_pass http://{}{to}; proxy_http_version 1.1; \
                 proxy_set_header Host $http_host; proxy_set_header X-Forwarded-Proto $scheme; }} }}\n",
                served.address
            )
        };
        let places: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|name| format!("{name}_temp_path {0}/{name};\n", folder.path().display()))
            .concat();
        let config = format!(
            "daemon off; master_process off; pid {0}/pid; error_log {0}/error.log;\nevents {{}}\nhttp {{ access_log off;\n\
             {places}{1}{2}}}\n",
            folder.path().display(),
            listening(taking, "/"),
            listening(leaving, ""),
        );
        let path = folder.path().join("nginx.conf");
        fs::write(&path, config).unwrap();
        let mut command = std::process::Command::new(find("nginx"));
        command.arg("-e").arg(folder.path().join("error.log")).arg("-p").arg(folder.path()).arg("-c").arg(&path);
        let nginx = command.spawn().unwrap();
        for port in [taking, leaving] {
            eventually("nginx listens", PATIENCE, async || {
                tokio::net::TcpStream::connect(("127.0.0.1", port)).await.ok()
            })
            .await;
        }
        Self { nginx, taking, leaving, _folder: folder }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.nginx.kill();
        let _ = self.nginx.wait();
    }
}

#[tokio::test]
async fn behind_a_proxy_under_a_path_pages_links_forms_cookies_and_news_work() {
    let (mill, _server) = mill(&["jobs"], &Page::rss(&[]));
    let mut command = mill.command(&["serve", "--base-path", "/mill"]);
    command.env("FEEDMILL_TOKEN", "s3cret");
    let served = Served::by(mill.start_command(command)).await;
    let queues = mill.queues().await;
    let mails = feedmill::queue::Queue::open(queues.import.redis(), "mails", feedmill::Events::Failures).await.unwrap();
    // What proxies would change in a path.
    let id = JobId::new("https://jobs.example//a%2Fb?x=1&y=~2F#1 ü+").unwrap();
    let envelope = Envelope { payload: b"{}", ..Envelope::default() };
    let proxy = Proxy::before(&served).await;
    let browser = Browser::start().await;
    for port in [proxy.taking, proxy.leaving] {
        mails.add(&[NewJob::new(id.clone(), envelope)], 1000).await.unwrap();
        let root = format!("http://127.0.0.1:{port}/mill/admin/queues");
        browser.open(&format!("{root}/workers")).await;
        browser.says("Log in").await;
        browser.fill("//input[@name='token']", "s3cret").await;
        browser.press("Log in").await;
        browser.says("There are no workers.").await;
        assert_eq!(browser.url().await, format!("{root}/workers"));
        browser.until("document.querySelector('[data-live]').dataset.is === 'on'").await;
        browser.press("Overview").await;
        browser.press("mails").await;
        browser.press("Pause").await;
        browser.says("mails is paused").await;
        browser.press("Resume").await;
        browser.says("mails goes on").await;
        browser.press(&id.to_string()).await;
        browser.says("Waits since").await;
        assert!(browser.text().await.contains(&id.to_string()));
        browser.press("Edit").await;
        browser.fill("//textarea", "{\"to\": \"bob\"}").await;
        browser.press("Replace the payload").await;
        browser.says("payload replaced").await;
        browser.press("Cancel").await;
        browser.says("is cancelled").await;
        // Its count moves on another page, and what is said does not come twice.
        browser.open(&format!("{root}/queue/mails?state=failed")).await;
        browser.until("document.querySelector('[data-live]').dataset.is === 'on'").await;
        assert_eq!(mails.remove(std::slice::from_ref(&id), |_| [0; 16]).await.unwrap().len(), 1);
        browser.until("document.querySelector('[data-count=\"mails/failed\"]').textContent === '0'").await;
        let cookies = browser.cookies().await;
        let session = cookies.iter().find(|cookie| cookie["name"] == "feedmill_session").unwrap();
        assert_eq!((&session["path"], &session["httpOnly"]), (&json!("/mill"), &json!(true)));
        for link in browser.run("return [...document.links].map((link) => link.href)").await.as_array().unwrap() {
            assert!(link.as_str().unwrap().starts_with(&root), "{link}");
        }
        browser.press("Log out").await;
        browser.says("Log in").await;
        assert_eq!(browser.complaints().await, Vec::<String>::new());
    }
}
