//! The API and the forms of the dashboard: what they do, and whom they refuse.

use feedmill::{
    Events,
    job::{Envelope, JobId},
    queue::{Queue, dead_letter::NewDeadJob, enqueue::NewJob},
};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::support::{
    audit::assert_sound,
    eventually::eventually,
    feed_server::{FeedServer, Page},
    http::{Answer, Served},
    process::{Mill, PATIENCE, redis_connection},
    servers::OwnRedis,
};

const JSON: (&str, &str) = ("Content-Type", "application/json");
const FORM: (&str, &str) = ("Content-Type", "application/x-www-form-urlencoded");

/// A server and a queue of another program with so many jobs `n-0`, `n-1`, ….
async fn with_jobs(n: usize) -> (Mill, Served, Queue) {
    let mill = Mill::new();
    let served = Served::serve(&mill).await;
    let queue = Queue::open(mill.queues().await.import.redis(), "mails", Events::Failures).await.unwrap();
    for chunk in (0..n).collect::<Vec<_>>().chunks(200) {
        let envelope = Envelope { payload: b"{\"to\": \"ann\"}", ..Envelope::default() };
        let jobs: Vec<NewJob<'_>> =
            chunk.iter().map(|n| NewJob::new(JobId::new(format!("n-{n}")).unwrap(), envelope)).collect();
        queue.add(&jobs, 1000).await.unwrap();
    }
    (mill, served, queue)
}

async fn put(served: &Served, path: &str, body: &Value) -> Answer {
    served.ask("PUT", path, &[JSON], &body.to_string()).await
}

/// Follows an operation to its end.
async fn ended(served: &Served, began: &Answer) -> Value {
    assert_eq!(began.status, 202, "{began:?}");
    let path = format!("/api/operations/{}", began.json()["id"].as_str().unwrap());
    eventually("the operation ends", PATIENCE, async || {
        let now = served.get_json(&path).await;
        (now["state"] != "running").then_some(now)
    })
    .await
}

#[tokio::test]
async fn jobs_are_added_listed_changed_and_removed() {
    let (_mill, served, queue) = with_jobs(3).await;
    let add = |body: Value| body.to_string();
    let added = served
        .post(
            "/api/queues/mails/add",
            &add(json!({ "id": "a/b ?#", "payload": [1], "delayMs": 60_000, "priority": 3 })),
        )
        .await;
    assert_eq!(added.json(), json!({ "id": "a/b ?#", "result": "enqueued" }));
    let again = served.post("/api/queues/mails/add", &add(json!({ "id": "n-0", "payload": 1 }))).await;
    assert_eq!(again.json()["result"], "duplicate");
    served.post("/api/queues/mails/add", &add(json!({ "payload": 1 }))).await.refused(400, "bad_request");
    served.post("/api/queues/nope/add", &add(json!({ "id": "x", "payload": 1 }))).await.refused(404, "queue_not_found");

    let job = "/api/queues/mails/jobs/a%2Fb%20%3F%23";
    let shown = served.get_json(job).await;
    assert_eq!((&shown["id"], &shown["state"], &shown["payload"]), (&json!("a/b ?#"), &json!("delayed"), &json!([1])));
    let changed = served.ask("PATCH", job, &[JSON], r#"{"payload": {"x": 2}}"#).await;
    assert_eq!(changed.status, 200, "{changed:?}");
    assert_eq!(served.get_json(job).await["payload"], json!({ "x": 2 }));
    assert_eq!(served.ask("PUT", &format!("{job}/promote"), &[], "").await.status, 200);
    served.ask("PUT", &format!("{job}/promote"), &[], "").await.refused(409, "conflict");
    let copy = served.ask("POST", &format!("{job}/duplicate"), &[], "").await.json();
    assert!(copy["id"].as_str().unwrap().starts_with("a/b ?#~"), "{copy}");
    assert_eq!(served.ask("DELETE", job, &[], "").await.status, 200);
    served.get(job).await.refused(404, "job_not_found");

    let page = served.get_json("/api/queues/mails/jobs?state=waiting&limit=2").await;
    let ids: Vec<&str> = page["jobs"].as_array().unwrap().iter().map(|job| job["id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["n-0", "n-1"]);
    let next = page["next"].as_str().unwrap();
    let rest = served.get_json(&format!("/api/queues/mails/jobs?cursor={next}")).await;
    assert_eq!(rest["jobs"][0]["id"], "n-2");
    let found = served.get_json("/api/queues/mails/search?idPrefix=n-1").await;
    assert_eq!((&found["jobs"][0]["id"], &found["next"]), (&json!("n-1"), &Value::Null));

    let body = json!({ "action": "cancel", "ids": ["n-0", "n-1", "gone"] });
    let bulk = served.post("/api/queues/mails/bulk", &body.to_string()).await.json();
    let results: Vec<&str> =
        bulk["results"].as_array().unwrap().iter().map(|one| one["result"].as_str().unwrap()).collect();
    assert_eq!(results, ["done", "done", "missing"]);
    assert_eq!(queue.counts().await.unwrap().failed, 2);
    for (path, params) in [("jobs", "limit=0"), ("jobs", "cursor=zz"), ("jobs", "state=paused"), ("search", "x=1")] {
        served.get(&format!("/api/queues/mails/{path}?{params}")).await.refused(400, "bad_request");
    }
}

#[tokio::test]
async fn lists_and_searches_show_the_titles_of_jobs_as_text() {
    let (_mill, served, queue) = with_jobs(1).await;
    let hostile = "<b>Gardener</b>";
    let payload = json!({ "title": hostile, "zone": "x".repeat(50_000) }).to_string();
    let envelope = Envelope { payload: payload.as_bytes(), ..Envelope::default() };
    queue.add(&[NewJob::new(JobId::new("titled").unwrap(), envelope)], 1 << 20).await.unwrap();
    for path in ["jobs?state=waiting", "search?idPrefix="] {
        let jobs = served.get_json(&format!("/api/queues/mails/{path}")).await["jobs"].clone();
        let titles: Vec<(&Value, &Value)> =
            jobs.as_array().unwrap().iter().map(|job| (&job["id"], &job["title"])).collect();
        assert_eq!(titles, [(&json!("n-0"), &Value::Null), (&json!("titled"), &json!(hostile))], "{path}");
    }
    // a list, a search through all, and the one that finds a whole id at once
    for params in ["state=waiting", "by=id&text=ti", "by=id&text=titled"] {
        let page = served.get(&format!("/admin/queues/queue/mails?{params}")).await;
        let (_, rows) = page.body.split_once("<tbody>").unwrap_or_else(|| panic!("{params}: {page:?}"));
        assert!(rows.contains(">&lt;b&gt;Gardener&lt;/b&gt;</a>"), "{params}: {rows}");
        assert!(rows.contains(">titled</span>") && !rows.contains(hostile), "{params}: {rows}");
    }
}

#[tokio::test]
async fn many_jobs_are_operated_on_by_the_server_and_their_progress_is_told() {
    let (_mill, served, queue) = with_jobs(1000).await;
    let ids: Vec<JobId> = (0..1000).map(|n| JobId::new(format!("n-{n}")).unwrap()).collect();
    for id in &ids {
        queue.cancel(id).await.unwrap();
    }
    let groups = eventually("they are grouped", PATIENCE, async || {
        let groups = served.get_json("/api/queues/mails/dead").await;
        (groups["lookedAt"] == 1000).then_some(groups)
    })
    .await;
    assert_eq!((&groups["groups"][0]["reason"], &groups["groups"][0]["letters"]), (&json!("cancelled"), &json!(1000)));

    let none =
        ended(&served, &put(&served, "/api/queues/mails/retry/failed", &json!({ "group": "other" })).await).await;
    assert_eq!((&none["lookedAt"], &none["done"]), (&json!(1000), &json!(0)));
    let all =
        ended(&served, &put(&served, "/api/queues/mails/retry/failed", &json!({ "group": "cancelled" })).await).await;
    assert_eq!((&all["state"], &all["done"], &all["total"]), (&json!("ended"), &json!(1000), &json!(1000)));
    assert_eq!(queue.counts().await.unwrap().waiting, 1000);

    let drained = ended(&served, &served.ask("PUT", "/api/queues/mails/empty", &[], "").await).await;
    assert_eq!(drained["done"], 1000);
    put(&served, "/api/queues/mails/obliterate", &json!({ "confirm": "mails" })).await.refused(409, "conflict");
    assert_eq!(served.ask("PUT", "/api/queues/mails/pause", &[], "").await.status, 200);
    put(&served, "/api/queues/mails/obliterate", &json!({ "confirm": "mail" })).await.refused(400, "bad_request");
    ended(&served, &put(&served, "/api/queues/mails/obliterate", &json!({ "confirm": "mails" })).await).await;
    served.get("/api/queues/mails").await.refused(404, "queue_not_found");
    let log = served.process.stderr();
    assert!(log.contains("audit=true") && log.contains("by=\"this machine\""), "{log}");
}

/// The value of the hidden field on a page.
fn form_token(page: &Answer) -> &str {
    let (_, rest) = page.body.split_once("name=\"form_token\" value=\"").expect("the page has a form");
    rest.split_once('"').unwrap().0
}

#[tokio::test]
async fn a_form_needs_the_token_of_its_page() {
    let (_mill, served, queue) = with_jobs(1).await;
    let path = "/admin/queues/queue/mails";
    let page = served.get(path).await;
    let body = format!("do=pause&form_token={}", form_token(&page));
    for wrong in ["do=pause", "do=pause&form_token=", "do=pause&form_token=00"] {
        let answer = served.ask("POST", path, &[FORM], wrong).await;
        assert_eq!(answer.status, 403, "{answer:?}");
        assert!(answer.body.contains("load the page again"), "{}", answer.body);
    }
    for foreign in [("Origin", "https://evil.example"), ("Sec-Fetch-Site", "cross-site")] {
        assert_eq!(served.ask("POST", path, &[FORM, foreign], &body).await.status, 403, "{foreign:?}");
    }
    // What is made for forms is not for the API.
    served.ask("PUT", "/api/queues/mails/pause", &[FORM], &body).await.refused(415, "not_json");
    assert!(!queue.counts().await.unwrap().is_paused);
    let answer = served.ask("POST", path, &[FORM], &body).await;
    assert_eq!(answer.status, 303, "{answer:?}");
    assert!(queue.counts().await.unwrap().is_paused);
    for (action, is_paused) in [("resume", false), ("pause", true), ("resume", false)] {
        let all =
            served.ask("POST", "/admin/queues", &[FORM], &body.replace("do=pause", &format!("do={action}"))).await;
        assert_eq!(all.status, 303, "{all:?}");
        assert_eq!(queue.counts().await.unwrap().is_paused, is_paused, "{action} all");
    }
}

#[tokio::test]
async fn a_session_opens_pages_and_api_until_it_is_damaged() {
    let mill = Mill::new();
    let served = Served::behind_token(&mill, "s3cret").await;
    for path in ["/admin/queues", "/admin/queues/feeds?which=all"] {
        let answer = served.get(path).await;
        assert_eq!(answer.status, 303, "{answer:?}");
        assert!(answer.head.contains("location: /admin/queues/login?next=%2Fadmin%2Fqueues"), "{}", answer.head);
    }
    served.get("/api/queues").await.refused(401, "unauthorized");
    let login = served.get("/admin/queues/login").await;
    let sign_in = async |token: &str, next: &str| {
        let body = format!("form_token={}&token={token}&next={next}", form_token(&login));
        served.ask("POST", "/admin/queues/login", &[FORM, ("X-Forwarded-Proto", "https")], &body).await
    };
    assert_eq!(sign_in("wrong", "").await.status, 401);
    for elsewhere in ["https%3A%2F%2Fevil.example", "%2F%2Fevil.example", "%2Fadmin%2Fqueues%5C%0Aevil"] {
        let answer = sign_in("s3cret", elsewhere).await;
        assert!(answer.head.contains("location: /admin/queues\r\n"), "{}", answer.head);
    }
    let answer = sign_in("s3cret", "%2Fadmin%2Fqueues%2Ffeeds").await;
    assert!(answer.head.contains("location: /admin/queues/feeds"), "{}", answer.head);
    let (_, cookie) = answer.head.split_once("set-cookie: ").unwrap();
    let cookie = cookie.lines().next().unwrap();
    for part in ["HttpOnly", "SameSite=Strict", "Secure", "Path=/;"] {
        assert!(cookie.contains(part), "{cookie}");
    }
    let cookie = cookie.split(';').next().unwrap();
    for path in ["/admin/queues", "/api/queues", "/imports"] {
        assert_eq!(served.ask("GET", path, &[("Cookie", cookie)], "").await.status, 200, "{path}");
    }
    let bearer = [("Authorization", "Bearer s3cret")];
    assert_eq!(served.ask("GET", "/api/queues", &bearer, "").await.status, 200);
    served.ask("GET", "/api/queues", &[("Cookie", &format!("{cookie}0"))], "").await.refused(401, "unauthorized");
}

/// The cookie of a new session.
async fn log_in(served: &Served, token: &str) -> String {
    let login = served.get("/admin/queues/login").await;
    let body = format!("form_token={}&token={token}", form_token(&login));
    let answer = served.ask("POST", "/admin/queues/login", &[FORM], &body).await;
    assert_eq!(answer.status, 303, "{answer:?}");
    answer.head.split_once("set-cookie: ").unwrap().1.split(';').next().unwrap().to_owned()
}

#[tokio::test]
async fn a_session_that_was_logged_out_of_is_good_nowhere_any_more() {
    let mill = Mill::new();
    let (served, other) = (Served::behind_token(&mill, "s3cret").await, Served::behind_token(&mill, "s3cret").await);
    let (cookie, bystander) = (log_in(&served, "s3cret").await, log_in(&served, "s3cret").await);
    let status = async |at: &Served, cookie: &str| at.ask("GET", "/api/queues", &[("Cookie", cookie)], "").await.status;
    assert_eq!((status(&served, &cookie).await, status(&other, &cookie).await), (200, 200));
    // A thief listens, and has the cookie.
    let mut stream = tokio::net::TcpStream::connect(other.address).await.unwrap();
    stream.write_all(&other.request("GET", "/api/live", &[("Cookie", &cookie)], "")).await.unwrap();
    let mut heard = Vec::new();
    while !String::from_utf8_lossy(&heard).contains("event: snapshot") {
        assert!(stream.read_buf(&mut heard).await.unwrap() > 0, "it ended early");
    }

    let page = served.ask("GET", "/admin/queues", &[("Cookie", &cookie)], "").await;
    let body = format!("do=logout&form_token={}", form_token(&page));
    let out = served.ask("POST", "/admin/queues/logout", &[FORM, ("Cookie", &cookie)], &body).await;
    assert_eq!(out.status, 303, "{out:?}");
    assert_eq!(status(&served, &cookie).await, 401, "at once, where it was");
    eventually("it ends elsewhere too", PATIENCE, async || (status(&other, &cookie).await == 401).then_some(())).await;
    tokio::time::timeout(PATIENCE, stream.read_to_end(&mut heard)).await.expect("the stream ends too").unwrap();
    assert_eq!(status(&Served::behind_token(&mill, "s3cret").await, &cookie).await, 401, "after a restart");
    assert_eq!((status(&served, &bystander).await, status(&other, &bystander).await), (200, 200));
    // A form of the ended session does nothing.
    let pause = body.replace("logout", "pause");
    let path = "/admin/queues/queue/job_import_queue";
    assert_eq!(served.ask("POST", path, &[FORM, ("Cookie", &cookie)], &pause).await.status, 401);
    assert!(!mill.queues().await.import.counts().await.unwrap().is_paused);
}

#[tokio::test]
async fn sessions_cost_redis_one_read_a_second_and_while_it_is_away_nobody_is_let_in_unchecked() {
    let mut redis = OwnRedis::start(&[]);
    let mill = Mill::on_redis(&redis);
    let (served, other) = (Served::behind_token(&mill, "s3cret").await, Served::behind_token(&mill, "s3cret").await);
    let mut cookies = Vec::new();
    for _ in 0..20 {
        cookies.push(log_in(&served, "s3cret").await);
    }
    // A route that reads nothing itself.
    let status =
        async |at: &Served, cookie: &str| at.ask("GET", "/api/openapi.json", &[("Cookie", cookie)], "").await.status;
    let mut connection = redis_connection(&format!("127.0.0.1:{}", redis.port())).await;
    let mut reads = async || {
        let info: String = redis::cmd("INFO").arg("commandstats").query_async(&mut connection).await.unwrap();
        let calls = info.lines().find_map(|line| line.strip_prefix("cmdstat_zrevrange:calls="));
        calls.map_or(0, |line| line.split(',').next().unwrap().parse::<u64>().unwrap())
    };
    let (before, began) = (reads().await, std::time::Instant::now());
    for _ in 0..10 {
        for cookie in &cookies {
            assert_eq!(status(&served, cookie).await, 200);
        }
    }
    let (asked, seconds) = (reads().await - before, began.elapsed().as_secs() + 1);
    assert!((1..=seconds + 1).contains(&asked), "{asked} reads in {seconds} s");

    redis.kill9();
    // This one knows who has ended; the other has looked at no session yet.
    assert_eq!(status(&served, &cookies[0]).await, 200);
    other.ask("GET", "/api/openapi.json", &[("Cookie", &cookies[0])], "").await.refused(503, "unavailable");
    let page = other.ask("GET", "/admin/queues", &[("Cookie", &cookies[0])], "").await;
    assert!(page.status == 503 && !page.body.contains("Schedulers"), "{page:?}");
    assert_eq!(other.ask("GET", "/api/openapi.json", &[("Authorization", "Bearer s3cret")], "").await.status, 200);
    redis.restart();
    eventually("it is asked again", PATIENCE, async || (status(&other, &cookies[0]).await == 200).then_some(())).await;
}

#[tokio::test]
async fn what_is_kept_of_ended_sessions_goes_when_they_would_have_been_over() {
    let mill = Mill::new();
    let redis = mill.queues().await.import.redis().clone();
    redis.end_session("soon", std::time::Duration::from_millis(1)).await.unwrap();
    eventually("its note is gone, and the key with it", PATIENCE, async || {
        redis.ended_sessions().await.unwrap().is_empty().then_some(())
    })
    .await;
    redis.end_session("over", std::time::Duration::from_millis(1)).await.unwrap();
    redis.end_session("long", std::time::Duration::from_hours(1)).await.unwrap();
    // Each end of a session removes the notes that are over, and leaves the others.
    eventually("the note that is over is gone", PATIENCE, async || {
        redis.end_session("longer", std::time::Duration::from_hours(2)).await.unwrap();
        let mut noted: Vec<String> = redis.ended_sessions().await.unwrap().into_iter().collect();
        noted.sort_unstable();
        (noted == ["long", "longer"]).then_some(())
    })
    .await;
}

#[tokio::test]
async fn schedulers_are_made_changed_run_and_removed_but_for_those_of_feeds() {
    let (mut mill, server) = (Mill::new(), FeedServer::start());
    server.put("/jobs", Page::rss(&[("1", "one")]));
    mill.feed("jobs", &server.url("/jobs"), Some("jobs"));
    mill.set_of_feed("jobs", "schedule", Some("0 9 1 1 *"));
    let up = Served::up(&mill).await;
    let queues = mill.queues().await;
    let _reports = Queue::open(queues.import.redis(), "reports", Events::Failures).await.unwrap();
    let at = "/api/queues/reports/schedulers/week%2Fly";
    let asked = json!({
        "cron": "0 4 * * SUN", "timezone": "Europe/Berlin",
        "job": { "payload": { "about": 5 }, "name": "report", "priority": 7, "attempts": 2, "group": "g" },
    });
    let made = put(&up, at, &asked).await.json();
    assert_eq!((&made["id"], &made["result"]), (&json!("week/ly"), &json!("created")));
    assert_eq!(put(&up, at, &asked).await.json()["result"], "unchanged");
    let shown = up.get_json(at).await;
    assert_eq!((&shown["cron"], &shown["job"]), (&asked["cron"], &asked["job"]));
    for (wrong, why) in [
        (json!({ "job": { "payload": 1 } }), "there is no schedule"),
        (json!({ "cron": "* * * * *", "everyMs": 1000, "job": { "payload": 1 } }), "exclude each other"),
        (json!({ "cron": "soon", "job": { "payload": 1 } }), "is not a cron pattern"),
        (json!({ "everyMs": 1, "job": { "payload": 1 } }), "is not accepted"),
        (json!({ "everyMs": 1000, "limit": 0, "job": { "payload": 1 } }), "leaves nothing to be done"),
        (json!({ "everyMs": 1000, "end": "2001-01-01T00:00:00Z", "job": { "payload": 1 } }), "has no slot"),
        (json!({ "everyMs": 1000, "job": { "payload": 1, "attempts": 0 } }), "attempts is 0"),
    ] {
        let detail = put(&up, at, &wrong).await.refused(400, "bad_request");
        assert!(detail.contains(why), "{wrong}: {detail}");
    }

    // Beside its slots, as often as one likes; without overlap once at a time.
    assert_eq!(up.ask("PUT", &format!("{at}/run"), &[], "").await.status, 200);
    let waiting = up.get_json("/api/queues/reports/jobs?state=prioritized").await;
    let id = waiting["jobs"][0]["id"].as_str().unwrap();
    assert!(id.starts_with("repeat:week/ly:"), "{waiting}");
    assert_eq!(up.get_json(at).await["fired"], 0, "it is not counted");
    let single = json!({ "everyMs": 3_600_000, "overlap": false, "job": { "payload": 1 } });
    assert_eq!(put(&up, "/api/queues/reports/schedulers/single", &single).await.status, 200);
    let run = async || up.ask("PUT", "/api/queues/reports/schedulers/single/run", &[], "").await;
    assert_eq!(run().await.status, 200);
    run().await.refused(409, "conflict");

    // By form: the same, and an id that is taken is not written over.
    let page = up.get("/admin/queues/schedulers/add?queue=reports").await;
    let fields = format!(
        "form_token={}&queue=reports&scheduler=hourly&every=1h&payload=%7B%7D&catch-up=skip&no-overlap=yes",
        form_token(&page)
    );
    let added = up.ask("POST", "/admin/queues/schedulers/add", &[FORM], &fields).await;
    assert!(added.head.contains("location: /admin/queues/queue/reports/scheduler?id=hourly\r\n"), "{added:?}");
    assert_eq!(up.ask("POST", "/admin/queues/schedulers/add", &[FORM], &fields).await.status, 409);
    let hourly = up.get_json("/api/queues/reports/schedulers/hourly").await;
    assert_eq!(
        (&hourly["everyMs"], &hourly["catchUp"], &hourly["overlap"]),
        (&json!(3_600_000), &json!("skip"), &json!(false))
    );
    let act = async |action: &str| {
        let body = format!("form_token={}&do={action}", form_token(&page));
        up.ask("POST", "/admin/queues/queue/reports/scheduler?id=hourly", &[FORM], &body).await
    };
    assert_eq!(act("run").await.status, 303);
    assert_eq!(act("remove").await.status, 303);
    up.get("/api/queues/reports/schedulers/hourly").await.refused(404, "not_found");
    assert_eq!(up.ask("DELETE", at, &[], "").await.status, 200);

    // The schedule of a feed is its feed's.
    let of_feed = "/api/queues/feed_fetch_queue/schedulers/jobs";
    let shown = eventually("the feed has its slot", PATIENCE, async || {
        let answer = up.get(of_feed).await;
        (answer.status == 200).then(|| answer.json())
    })
    .await;
    assert_eq!((&shown["feed"], &shown["from"]), (&json!("0 9 1 1 *"), &json!("file")));
    let fetch = json!({ "everyMs": 60_000, "job": { "payload": { "feed": "jobs" } } });
    put(&up, of_feed, &fetch).await.refused(409, "conflict");
    let detail = up.ask("DELETE", of_feed, &[], "").await.refused(409, "conflict");
    assert!(detail.contains("change it in streams.toml"), "{detail}");
    let page = up.get("/admin/queues/queue/feed_fetch_queue/scheduler?id=jobs").await;
    assert!(
        page.body.contains("streams.toml, and not here") && !page.body.contains("Change it</summary>"),
        "{}",
        page.body
    );
    assert_eq!(up.ask("PUT", &format!("{of_feed}/run"), &[], "").await.status, 200);
    mill.through(&queues).await;
    assert_eq!(up.get_json("/imports?feed=jobs").await["imports"][0]["new"], 1);
    let log = up.process.stderr();
    for action in ["upsert scheduler", "run scheduler", "remove scheduler"] {
        assert!(log.contains(&format!("action=\"{action}\"")), "{action}: {log}");
    }
}

#[tokio::test]
async fn streams_of_news_end_with_the_process() {
    let mill = Mill::new();
    let served = Served::serve(&mill).await;
    let mut stream = tokio::net::TcpStream::connect(served.address).await.unwrap();
    stream.write_all(&served.request("GET", "/api/live", &[], "")).await.unwrap();
    let mut heard = Vec::new();
    while !String::from_utf8_lossy(&heard).contains("event: snapshot") {
        assert!(stream.read_buf(&mut heard).await.unwrap() > 0, "it ended early");
    }
    let began = std::time::Instant::now();
    served.process.term();
    stream.read_to_end(&mut heard).await.unwrap();
    assert!(began.elapsed() < std::time::Duration::from_secs(5), "{:?}", began.elapsed());
}

/// Sends what the description of the API allows, and what it does not.
#[tokio::test]
async fn schemathesis_finds_no_error_of_the_server() {
    const ROOT: &str = env!("CARGO_MANIFEST_DIR");
    let (mut mill, server) = (Mill::new(), FeedServer::start());
    server.put("/jobs", Page::rss(&[("1", "one")]));
    mill.feed("jobboard", &server.url("/jobs"), Some("jobs"));
    let up = Served::up(&mill).await;
    let mut python = std::process::Command::new("python3");
    python
        .args(["-c", "from schemathesis.cli import schemathesis; schemathesis()"])
        .args(["--config-file", &format!("{ROOT}/tests/schemathesis.toml"), "run", "--no-color"])
        .args(["--checks", "not_a_server_error", "--max-examples", "10", "--seed", "1"])
        // A stream has no end.
        .args(["--exclude-path", "/api/live"])
        .arg(format!("http://{}/api/openapi.json", up.address))
        .env("PYTHONPATH", format!("{ROOT}/.feedmill/schemathesis"))
        .current_dir(mill.folder());
    let ran = tokio::task::spawn_blocking(move || python.output().unwrap()).await.unwrap();
    let said = String::from_utf8_lossy(&ran.stdout);
    assert!(ran.status.success(), "{said}{}", String::from_utf8_lossy(&ran.stderr));
    assert!(said.contains("generated") && !said.contains("Failed to load"), "{said}");
    assert!(!up.process.stderr().contains("a request failed"), "{}", up.process.stderr());
}

/// Adds so many dead letters `n-0`, `n-1`, ….
async fn add_dead(queue: &Queue, letters: u64) {
    for chunk in (0..letters).collect::<Vec<_>>().chunks(250) {
        let envelope = Envelope { payload: b"{\"to\": \"ann\"}", ..Envelope::default() };
        let letter = |n: &u64| NewDeadJob {
            id: JobId::new(format!("n-{n}")).unwrap(),
            envelope,
            version: None,
            priority: 0,
            group: None,
            attempts_made: 3,
            reason: "the mail server refused it",
            at: std::time::SystemTime::now(),
        };
        queue.enqueue_dead(&chunk.iter().map(letter).collect::<Vec<_>>()).await.unwrap();
    }
}

#[tokio::test]
async fn an_operation_is_stopped_by_any_process_and_goes_on_in_any() {
    const LETTERS: u64 = 40_000;
    let (mill, served, queue) = with_jobs(0).await;
    let other = Served::serve(&mill).await;
    add_dead(&queue, LETTERS).await;
    let began = put(&served, "/api/queues/mails/retry/failed", &json!({})).await;
    assert_eq!((began.status, &began.json()["isToStop"]), (202, &json!(false)), "{began:?}");
    let id = began.json()["id"].as_str().unwrap().to_owned();
    let stop = format!("/api/operations/{id}/stop");

    let asked = other.ask("PUT", &stop, &[], "").await;
    assert_eq!((asked.status, &asked.json()["isToStop"]), (202, &json!(true)), "{asked:?}");
    let stopped = ended(&served, &began).await;
    assert_eq!(stopped["state"], "stopped", "{stopped}");
    let counts = queue.counts().await.unwrap();
    assert!(counts.failed > 0, "it went through to its end: {stopped}");
    assert_eq!((counts.failed + counts.waiting, &json!(counts.waiting)), (LETTERS, &stopped["done"]));
    assert!(other.process.stderr().contains("action=\"stop\""), "who asked says so: {}", other.process.stderr());
    for process in [&served, &other] {
        // what the other one knows may be a second old
        let told = eventually("it is told that it is over", PATIENCE, async || {
            let answer = process.ask("PUT", &stop, &[], "").await;
            (answer.status == 409).then(|| answer.refused(409, "conflict"))
        })
        .await;
        assert_eq!(told, format!("operation {id} is stopped already"));
    }
    other.ask("PUT", "/api/operations/0/stop", &[], "").await.refused(404, "not_found");

    // Elsewhere it is shown as stopped, and what is left is done there.
    let all = eventually("it is shown as stopped", PATIENCE, async || {
        let all = other.get_json("/api/operations").await["operations"].clone();
        (all[0]["state"] == "stopped").then_some(all)
    })
    .await;
    assert_eq!(all[0]["id"], id, "{all}");
    let rest = ended(&other, &other.ask("PUT", &format!("/api/operations/{id}/go-on"), &[], "").await).await;
    assert_eq!((&rest["state"], &rest["done"]), (&json!("ended"), &json!(counts.failed)), "{rest}");
    assert_eq!(queue.counts().await.unwrap().waiting, LETTERS);
    assert_sound(&queue).await;
}

#[tokio::test]
async fn who_runs_an_operation_is_told_that_it_is_to_stop_with_every_note() {
    let mill = Mill::new();
    let queues = mill.queues().await;
    let redis = queues.import.redis();
    assert!(!redis.stop_operation("1").await.unwrap(), "there is none");
    assert!(redis.noted_operations().await.unwrap().is_empty());
    assert!(!redis.note_operation("1", "a: b stop: c").await.unwrap());
    assert!(!redis.note_operation("2", "other").await.unwrap());
    for _ in 0..2 {
        assert!(redis.stop_operation("1").await.unwrap());
        assert!(redis.note_operation("1", "50% stop: %1").await.unwrap());
        assert!(!redis.note_operation("2", "other").await.unwrap());
    }
    let noted = redis.noted_operations().await.unwrap();
    let noted: Vec<_> = noted.iter().map(|noted| (&*noted.id, &*noted.note, noted.is_to_stop)).collect();
    assert_eq!(noted, [("2", "other", false), ("1", "50% stop: %1", true)]);
}

#[tokio::test]
async fn an_operation_whose_process_is_killed_loses_nothing_is_shown_as_interrupted_and_goes_on() {
    const LETTERS: u64 = 40_000;
    let (mill, mut served, queue) = with_jobs(0).await;
    let other = Served::serve(&mill).await;
    add_dead(&queue, LETTERS).await;
    let page = served.get("/admin/queues/queue/mails").await;
    let body = format!("do=redrive&form_token={}", form_token(&page));
    let began = served.ask("POST", "/admin/queues/queue/mails", &[FORM], &body).await;
    let (_, place) = began.head.split_once("location: ").unwrap();
    let place = place.lines().next().unwrap().to_owned();
    eventually("it is under way", PATIENCE, async || (queue.counts().await.unwrap().waiting > 0).then_some(())).await;
    served.process.kill9();
    let counts = queue.counts().await.unwrap();
    assert!(counts.failed > 0, "it was through before it was killed: {counts:?}");
    assert_eq!(counts.failed + counts.waiting, LETTERS, "each job is in one place");
    assert_sound(&queue).await;

    // Another process shows it, and after a while that nobody works on it.
    let page = eventually("it is shown as interrupted", PATIENCE, async || {
        let page = other.get(&place).await;
        assert_eq!(page.status, 200, "{page:?}");
        page.body.contains("interrupted").then_some(page)
    })
    .await;
    assert!(page.body.contains("has ended in the midst of it"), "{}", page.body);
    let id = place.rsplit('/').next().unwrap();
    other.ask("PUT", &format!("/api/operations/{id}/stop"), &[], "").await.refused(409, "conflict");
    let body = format!("do=go-on&form_token={}", form_token(&page));
    let again = other.ask("POST", &place, &[FORM], &body).await;
    assert_eq!(again.status, 303, "{again:?}");
    eventually("all of them wait", PATIENCE, async || (queue.counts().await.unwrap().waiting == LETTERS).then_some(()))
        .await;
    assert_sound(&queue).await;
    let operations = eventually("the second one has ended", PATIENCE, async || {
        let all = other.get_json("/api/operations").await["operations"].clone();
        (all[0]["state"] == "ended").then_some(all)
    })
    .await;
    assert_eq!(operations.as_array().unwrap().len(), 2, "{operations}");
    assert_eq!((&operations[0]["done"], &operations[1]["state"]), (&json!(counts.failed), &json!("interrupted")));
    other
        .ask("PUT", &format!("/api/operations/{}/go-on", operations[0]["id"].as_str().unwrap()), &[], "")
        .await
        .refused(409, "conflict");
}
