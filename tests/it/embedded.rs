//! `up --embedded`: private servers under one folder, which outlive a killed `up` and end with one that is told to.

use std::{collections::HashMap, fs, path::Path};

use rustix::process::{Pid, Signal, kill_process, test_kill_process};

use crate::support::{
    embedded::DataDir,
    eventually::eventually,
    feed_server::{FeedServer, Page},
    process::{Mill, PATIENCE, Ran},
};

/// Whether a process runs; one that has ended and that nobody has waited for does not.
fn is_running(pid: Pid) -> bool {
    let status = fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat"));
    let is_zombie = status.is_ok_and(|stat| stat.rsplit(')').next().is_some_and(|rest| rest.starts_with(" Z")));
    test_kill_process(pid).is_ok() && !is_zombie
}

/// `fetch --wait` as another command that has read `embedded.env`.
async fn fetch(mill: &Mill, variables: &HashMap<String, String>) -> Ran {
    let mut command = mill.command(&["fetch", "a", "--wait"]);
    command.envs(variables);
    let ran = mill.start_command(command).ran().await;
    assert_eq!(ran.status.code(), Some(0), "{}{}", ran.stdout, ran.stderr);
    assert_eq!(ran.stderr, "", "the workers of `up` do the work");
    ran
}

/// A mill with one feed, which shows two items.
fn mill() -> (Mill, FeedServer) {
    let (server, mut mill) = (FeedServer::start(), Mill::new());
    server.put("/a", Page::rss(&[("1", "one"), ("2", "two")]));
    mill.feed("a", &server.url("/a"), Some("s"));
    (mill, server)
}

#[tokio::test]
async fn up_embedded_serves_other_commands_and_ends_with_its_servers() {
    let (mill, _server) = mill();
    let data = DataDir::of(&mill);
    let (mut up, variables) = data.up(&mill).await;
    let row = fetch(&mill, &variables).await.stdout;
    assert_eq!(row.lines().last().unwrap().split_whitespace().take(4).collect::<Vec<_>>(), ["a", "done", "2", "2"]);
    let pids = data.pids();
    assert!(pids.len() == 2 && pids.iter().all(|pid| is_running(*pid)));

    up.term();
    let (status, _) = up.wait(PATIENCE).await;
    assert_eq!(status.code(), Some(0));
    assert!(!pids.iter().any(|pid| is_running(*pid)), "the servers are gone");
    assert!(!data.env_file().exists(), "nothing points to them");

    // What they held is still there.
    let (_up, variables) = data.up(&mill).await;
    let row = fetch(&mill, &variables).await.stdout;
    let counts: Vec<&str> = row.lines().last().unwrap().split_whitespace().skip(2).take(4).collect();
    assert_eq!(counts, ["2", "0", "0", "2"], "all unchanged: {row}");
}

#[tokio::test]
async fn a_killed_up_leaves_its_servers_to_the_next_one() {
    let (mill, _server) = mill();
    let data = DataDir::of(&mill);
    let (mut up, before) = data.up(&mill).await;
    fetch(&mill, &before).await;
    let pids = data.pids();
    up.kill9();
    assert!(pids.iter().all(|pid| is_running(*pid)), "they go on");

    let (mut up, after) = data.up(&mill).await;
    assert_eq!((after, data.pids()), (before.clone(), pids.clone()), "the same servers");
    fetch(&mill, &before).await;
    up.term();
    let (status, took) = up.wait(PATIENCE).await;
    assert_eq!(status.code(), Some(0));
    assert!(!pids.iter().any(|pid| is_running(*pid)), "it ends them as its own, after {took:?}");
    assert!(!data.env_file().exists());
}

#[tokio::test]
async fn a_second_up_in_the_same_folder_is_refused() {
    let (mill, _server) = mill();
    let data = DataDir::of(&mill);
    let (_up, variables) = data.up(&mill).await;
    let second = data.start(&mill).ran().await;
    second.failed(
        1,
        &format!(
            "another `feedmill up --embedded` is running in {}; stop it first, or use another --data-dir",
            data.0.display()
        ),
    );
    fetch(&mill, &variables).await; // the first one is unharmed
}

#[tokio::test]
async fn a_server_that_died_with_up_is_started_anew_on_its_data() {
    let (mill, server) = mill();
    let data = DataDir::of(&mill);
    let (mut up, before) = data.up(&mill).await;
    fetch(&mill, &before).await;
    let pids = data.pids();
    up.kill9();
    for pid in &pids {
        kill_process(*pid, Signal::KILL).unwrap();
    }
    eventually("both are dead", PATIENCE, async || (!pids.iter().any(|pid| is_running(*pid))).then_some(())).await;

    let (_up, after) = data.up(&mill).await;
    fetch(&mill, &after).await;
    assert_eq!(server.asked().last().unwrap().status, 200, "unconditional: this Redis is another run");
    fetch(&mill, &after).await;
    assert_eq!(server.asked().last().unwrap().status, 304);
}

#[tokio::test]
async fn an_up_that_is_killed_while_its_servers_start_leaves_them_to_the_next_one() {
    let (mill, _server) = mill();
    let data = DataDir::of(&mill);
    for started in [1, 2] {
        let mut up = data.start(&mill);
        eventually("a server is started", PATIENCE, async || (data.pids().len() == started).then_some(())).await;
        up.kill9();
    }
    let pids = data.pids();
    let (_up, variables) = data.up(&mill).await;
    assert_eq!(data.pids(), pids, "one of each, and never two on the same data");
    fetch(&mill, &variables).await;
}

#[tokio::test]
async fn a_leftover_server_that_ends_while_it_is_waited_for_is_started_anew() {
    let (mill, _server) = mill();
    let data = DataDir::of(&mill);
    let (mut up, _) = data.up(&mill).await;
    let mongod = data.pids()[1];
    up.kill9();
    kill_process(mongod, Signal::STOP).unwrap();
    let next = data.start(&mill);
    eventually("the next one comes to mongod", PATIENCE, async || {
        next.stderr().contains("taking over the redis-server").then_some(())
    })
    .await;
    kill_process(mongod, Signal::KILL).unwrap();
    eventually("it works", PATIENCE, async || (next.stderr().matches("worker starts").count() == 2).then_some(()))
        .await;
    assert_ne!(data.pids()[1], mongod);
}

#[tokio::test]
async fn bench_measures_the_whole_path_and_leaves_nothing_behind() {
    let mill = Mill::new();
    let data = DataDir::of(&mill);
    let folder = data.0.to_str().unwrap();
    let ran =
        mill.run_ok(&["bench", "--pipeline", "--feeds", "2", "--items", "300", "--data-dir", folder, "--json"]).await;
    let measured: serde_json::Value = serde_json::from_str(&ran).unwrap();
    assert_eq!((measured["items"].as_u64(), measured["feeds"].as_u64()), (Some(600), Some(2)));
    assert!(measured["per_s"].as_f64().unwrap() > 0.0, "{ran}");
    let names: Vec<_> = measured["processes"].as_array().unwrap().iter().map(|p| p["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["feed server", "feedmill worker", "redis-server", "mongod"]);
    for process in measured["processes"].as_array().unwrap() {
        assert!(process["peak_memory_bytes"].as_u64().is_some_and(|bytes| bytes > 1 << 20), "{process}");
    }
    assert!(!data.0.join("data").exists(), "its data is deleted");
    assert!(data.pids().is_empty(), "its servers are stopped");
}
