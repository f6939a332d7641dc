//! Plain producers: any program's `XADD … json` becomes a document, or a dead letter that says why not.

use std::{os::unix::fs::symlink, path::Path, process::Command};

use feedmill::{
    pipeline::Queues,
    queue::{QueueOptions, Redis},
};
use mongodb::bson::doc;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::support::{
    feed_server::{FeedServer, Page, small_items},
    jobs::id,
    process::{Mill, redis_connection},
    servers::{OwnRedis, find},
};

/// Adds entries as another program would.
async fn xadd(queues: &Queues, jsons: impl IntoIterator<Item = String>) {
    let mut redis = redis_connection(queues.import.redis().address()).await;
    for json in jsons {
        let mut add = redis::cmd("XADD");
        add.arg(queues.import.keys().stream()).arg("*").arg("json").arg(json);
        let _: String = add.query_async(&mut redis).await.unwrap();
    }
}

#[tokio::test]
async fn a_plain_entry_becomes_a_document() {
    let mill = Mill::new();
    let _worker = mill.worker().await;
    let queues = mill.queues().await;
    xadd(&queues, [r#"{"source": "x", "guid": "1", "title": "t", "salary": 5}"#.to_owned()]).await;
    mill.through(&queues).await;
    let document = mill.documents().await.find_one(doc! { "source": "x", "guid": "1" }).await.unwrap().unwrap();
    assert_eq!(document.get_str("title").unwrap(), "t");
    assert_eq!(document.get_document("extensions").unwrap(), &doc! { "salary": 5_i64 });
    assert!(document.get_i64("version").unwrap() > 0 && document.get_str("fingerprint").is_ok());
    mill.assert_clean(&queues, 1).await;
}

#[tokio::test]
async fn a_later_plain_entry_of_the_same_item_wins() {
    let mill = Mill::new();
    let queues = mill.queues().await;
    let json = |title: &str| format!(r#"{{"source": "x", "guid": "1", "title": "{title}"}}"#);
    xadd(&queues, ["old", "newer", "newest"].map(json)).await;
    let _worker = mill.worker().await;
    mill.through(&queues).await;
    assert_eq!(mill.title("1").await.unwrap(), "newest");
    mill.assert_clean(&queues, 1).await;
}

#[tokio::test]
async fn what_is_no_item_becomes_a_dead_letter_with_its_reason() {
    let mill = Mill::new();
    let _worker = mill.worker().await;
    let queues = mill.queues().await;
    let broken = [r#"{"source": "x", "guid": "#, r#"{"guid": "1"}"#, r#""x""#, r#"{"source": "x", "title": ["t"]}"#];
    xadd(&queues, broken.map(str::to_owned)).await;
    mill.through(&queues).await;
    let letters = queues.import.dead_letters(None, 10).await.unwrap();
    for (sent, reason) in broken.into_iter().zip(["EOF", "\"source\"", "expected a map", "string"]) {
        let letter = letters.iter().find(|letter| letter.raw.as_deref() == Some(sent.as_bytes()));
        let letter = letter.expect("what was sent is kept");
        assert!(letter.reason.starts_with("json: ") && letter.reason.contains(reason), "{letter:?}");
    }
    assert_eq!(letters.len(), broken.len());
    assert_eq!(mill.documents().await.count_documents(doc! {}).await.unwrap(), 0);
}

#[tokio::test]
async fn five_hundred_plain_entries_go_through_beside_a_feed() {
    let server = FeedServer::start();
    server.put("/a", Page::generated(small_items(1000, 1)));
    let mut mill = Mill::new();
    mill.feed("a", &server.url("/a"), Some("a"));
    let queues = mill.queues().await;
    let _worker = mill.worker().await;
    mill.fetch(&["a"]).await;
    xadd(&queues, (0..500).map(|n| format!(r#"{{"source": "plain", "guid": "{n}", "title": "t{n}"}}"#))).await;
    mill.through(&queues).await;
    mill.assert_clean(&queues, 1500).await;
    assert_eq!(mill.documents().await.count_documents(doc! { "source": "plain" }).await.unwrap(), 500);
    let record = &mill.records().await[0];
    assert_eq!([record.new, record.inserted], [1000, 1000], "plain entries belong to no import");
}

/// What a job of the queue `emails` says.
#[derive(serde::Serialize, serde::Deserialize)]
struct Email {
    to: String,
}

/// The program, with what it imports: the packages that scripts/setup.sh installed for the tests. Node looks for them in
/// the folder of the program.
fn example(mill: &Mill, interpreter: &str, program: &str) -> Command {
    let project = Path::new(env!("CARGO_MANIFEST_DIR"));
    let packages = project.join(".feedmill/python");
    for folder in [&project.join("tests/bullmq/node_modules"), &packages] {
        assert!(folder.is_dir(), "{} is missing; run: scripts/setup.sh test", folder.display());
    }
    let copy = mill.folder().join(program);
    std::fs::copy(project.join("examples").join(program), &copy).unwrap();
    let mut command = Command::new(find(interpreter));
    command.arg(copy).env("PYTHONPATH", packages);
    command
}

#[tokio::test]
async fn the_examples_in_node_and_python_add_an_item_and_a_job() {
    let redis = OwnRedis::start(&[]);
    let mut mill = Mill::on_redis(&redis);
    mill.set("redis.prefix", "feedmill");
    let _worker = mill.worker().await;
    let queues = mill.queues().await;
    let connection = Redis::connect(&redis.url(), "feedmill").await.unwrap();
    let emails: feedmill::Queue<Email> =
        feedmill::Queue::open(&connection, "emails", QueueOptions::default()).await.unwrap();
    let (sent, mut received) = mpsc::channel(1);
    let shutdown = CancellationToken::new();
    let worker = feedmill::Worker::new(&emails, move |job: feedmill::Job<Email>| {
        let sent = sent.clone();
        async move { sent.send((job.id, job.data.to)).await.unwrap() }
    });
    let running = tokio::spawn(worker.run(shutdown.clone()));
    let modules = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bullmq/node_modules");
    symlink(modules, mill.folder().join("node_modules")).unwrap();
    for (interpreter, program, guid, title, name) in [
        ("node", "producer.mjs", "12345", "Lighthouse keeper", "eve"),
        ("python3", "producer.py", "67890", "Harbour pilot", "fay"),
    ] {
        let lines = std::fs::read_to_string(Path::new("examples").join(program)).unwrap().lines().count();
        assert!(lines < 30, "{program} has {lines} lines");
        let ran = example(&mill, interpreter, program).env("REDIS_URL", redis.url()).output().unwrap();
        assert!(ran.status.success(), "{program}: {}", String::from_utf8_lossy(&ran.stderr));
        mill.through(&queues).await;
        assert_eq!(mill.title(guid).await.as_deref(), Some(title));
        let email = received.recv().await.unwrap();
        assert_eq!(email, (id(format!("welcome:{name}")), format!("{name}@example.com")));
    }
    shutdown.cancel();
    running.await.unwrap();
}
