//! `feedmill doctor`: each thing that endangers items is named with its fix, and looking changes nothing.

use mongodb::bson::{Document, doc};
use serde_json::Value;

use crate::support::{
    process::Mill,
    servers::{OwnMongod, OwnRedis, SharedServers},
};

/// The settings that a Redis should have.
const SAFE: [&str; 4] = ["--appendonly", "yes", "--maxmemory-policy", "noeviction"];

/// Checks that are not ok, as (part, check, status, detail, fix).
async fn found(mill: &Mill) -> (Option<i32>, Vec<(String, String)>, Vec<Value>) {
    let ran = mill.run(&["doctor", "--json"]).await;
    let all: Vec<Value> = serde_json::from_str(&ran.stdout).unwrap_or_else(|error| panic!("{error}: {ran:?}"));
    let wrong: Vec<Value> = all.into_iter().filter(|check| check["status"] != "ok").collect();
    let names = wrong
        .iter()
        .map(|check| (check["check"].as_str().unwrap().to_owned(), check["status"].as_str().unwrap().to_owned()));
    (ran.status.code(), names.collect(), wrong)
}

fn names(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    expected.iter().map(|(check, status)| ((*check).to_owned(), (*status).to_owned())).collect()
}

/// A mill whose indexes are there.
async fn mill_on(redis: &OwnRedis) -> Mill {
    let mill = Mill::on_redis(redis);
    mill.store().await.ensure_indexes().await.unwrap();
    mill
}

#[tokio::test]
async fn servers_that_are_set_up_well_are_ok() {
    let redis = OwnRedis::start(&SAFE);
    let mill = mill_on(&redis).await;
    let ran = mill.run(&["doctor"]).await;
    assert_eq!((ran.status.code(), ran.stderr.as_str()), (Some(0), ""), "{}", ran.stdout);
    for line in ran.stdout.lines() {
        assert!(line.starts_with("ok "), "{}", ran.stdout);
    }
    for check in [
        "features",
        "persistence",
        "eviction",
        "memory",
        "layout",
        "latency",
        "clock",
        "indexes",
        "writes",
        "documents",
    ] {
        assert!(ran.stdout.contains(check), "{check}: {}", ran.stdout);
    }
}

#[tokio::test]
async fn an_eviction_policy_that_drops_jobs_is_named_with_its_fix() {
    let redis = OwnRedis::start(&["--appendonly", "yes", "--maxmemory-policy", "allkeys-lru"]);
    let (status, named, wrong) = found(&mill_on(&redis).await).await;
    assert_eq!((status, named), (Some(3), names(&[("eviction", "error")])));
    assert_eq!(wrong[0]["detail"], "maxmemory-policy is allkeys-lru: when memory is full it drops jobs");
    assert_eq!(wrong[0]["fix"], "redis-cli CONFIG SET maxmemory-policy noeviction, and the same in redis.conf");
}

#[tokio::test]
async fn a_missing_append_only_file_is_named_with_its_fix() {
    let redis = OwnRedis::start(&["--maxmemory-policy", "noeviction"]);
    let (status, named, wrong) = found(&mill_on(&redis).await).await;
    assert_eq!((status, named), (Some(3), names(&[("persistence", "error")])));
    assert_eq!(wrong[0]["detail"], "appendonly is off: a crash loses the jobs since its last snapshot");
    assert_eq!(wrong[0]["fix"], "redis-cli CONFIG SET appendonly yes, and the same in redis.conf");
}

#[tokio::test]
async fn a_managed_server_that_refuses_config_gets_a_warning_with_what_to_check_by_hand() {
    let redis = OwnRedis::start(&[&SAFE[..], &["--rename-command", "CONFIG", ""]].concat());
    let (status, named, wrong) = found(&mill_on(&redis).await).await;
    assert_eq!((status, named), (Some(0), names(&[("settings", "warning")])));
    let fix = wrong[0]["fix"].as_str().unwrap();
    assert!(fix.starts_with("check by hand") && fix.contains("appendfsync") && fix.contains("noeviction"), "{fix}");
}

#[tokio::test]
async fn a_replica_and_a_node_of_a_cluster_are_refused_by_name() {
    let master = OwnRedis::start(&SAFE);
    let port = master.port().to_string();
    let replica = OwnRedis::start(&[&SAFE[..], &["--replicaof", "127.0.0.1", &port]].concat());
    let (status, named, wrong) = found(&mill_on(&replica).await).await;
    assert_eq!((status, named), (Some(3), names(&[("layout", "error")])));
    assert_eq!(wrong[0]["fix"], "set REDIS_URL to the master");
    let node = OwnRedis::start(&[&SAFE[..], &["--cluster-enabled", "yes"]].concat());
    let (status, named, _) = found(&mill_on(&node).await).await;
    assert_eq!((status, named), (Some(3), names(&[("layout", "error")])));
}

#[tokio::test]
async fn a_user_that_may_run_no_scripts_is_named() {
    let redis = OwnRedis::start(&SAFE);
    let mut admin = crate::support::process::redis_connection(&format!("127.0.0.1:{}", redis.port())).await;
    let mut acl = redis::cmd("ACL");
    acl.arg(&["SETUSER", "mill", "on", ">secret", "~*", "+@all", "-@scripting"]);
    let _: String = acl.query_async(&mut admin).await.unwrap();
    let mut mill = mill_on(&redis).await;
    mill.set("redis.url", format!("redis://mill:secret@127.0.0.1:{}", redis.port()));
    let (status, named, _) = found(&mill).await;
    assert_eq!((status, named), (Some(3), names(&[("features", "error")])));
}

#[tokio::test]
async fn a_weak_write_concern_and_missing_indexes_are_named() {
    let redis = OwnRedis::start(&SAFE);
    let mut mill = Mill::on_redis(&redis);
    let (status, named, wrong) = found(&mill).await;
    assert_eq!((status, named), (Some(0), names(&[("indexes", "warning")])), "workers make them");
    assert!(wrong[0]["detail"].as_str().unwrap().contains("jobs unique on source and guid"), "{wrong:?}");
    let ran = mill.run(&["doctor", "--fix"]).await;
    assert!(ran.stdout.contains("made: jobs unique"), "{}", ran.stdout);
    assert_eq!(found(&mill).await.1, []);
    let uri = mill.config().mongodb.uri.expose().to_owned();
    for (w, status) in [("w=1", "warning"), ("w=0", "error")] {
        mill.set("mongodb.uri", format!("{uri}/?{w}"));
        let (_, named, _) = found(&mill).await;
        assert_eq!(named, names(&[("writes", status)]));
    }
}

#[tokio::test]
async fn servers_that_are_away_are_one_line_each() {
    let (mut redis, mut mongod) = (OwnRedis::start(&[]), OwnMongod::start());
    let mut mill = Mill::on_mongod(&mongod);
    mill.set("redis.url", redis.url());
    mill.set("mongodb.uri", format!("{}/?serverSelectionTimeoutMS=500", mongod.uri()));
    redis.kill9();
    mongod.kill9();
    let (status, named, wrong) = found(&mill).await;
    assert_eq!((status, named), (Some(3), names(&[("server", "error"), ("server", "error")])));
    assert_eq!((&wrong[0]["part"], &wrong[1]["part"]), (&"redis".into(), &"mongodb".into()));
}

#[tokio::test]
async fn looking_writes_nothing() {
    let mut mill = Mill::new();
    let prefix = mill.config().redis.prefix.clone();
    mill.set("mongodb.database", format!("{}_untouched", mill.config().mongodb.database));
    mill.run(&["doctor"]).await;
    let ran = mill.run(&["xinfo"]).await;
    assert_eq!((ran.status.code(), ran.stdout.lines().last()), (Some(0), Some("there are no queues yet")));
    let mut redis = crate::support::process::redis_connection(
        SharedServers::of_this_run().redis_url().trim_start_matches("redis://"),
    )
    .await;
    let keys: Vec<String> = redis::cmd("KEYS").arg(format!("{prefix}*")).query_async(&mut redis).await.unwrap();
    assert_eq!(keys, [""; 0]);
    let client = mongodb::Client::with_uri_str(mill.config().mongodb.uri.expose()).await.unwrap();
    let database = client.database(&mill.config().mongodb.database);
    assert_eq!(database.list_collection_names().await.unwrap(), [""; 0]);
    let _: Document = database.run_command(doc! { "dropDatabase": 1 }).await.unwrap();
}
