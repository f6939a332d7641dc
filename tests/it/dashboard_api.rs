//! The API and the forms of the dashboard: what they do, and whom they refuse.

use feedmill::{
    Events,
    job::{Envelope, JobId},
    queue::{Queue, enqueue::NewJob},
};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::support::{
    eventually::eventually,
    feed_server::{FeedServer, Page},
    http::{Answer, Served},
    process::{Mill, PATIENCE},
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
