//! The servers behind the tests: what tests rely on when they break one.

use std::time::Duration;

use mongodb::bson::doc;

use crate::support::{
    redis_prefix,
    servers::{OwnMongod, OwnRedis, SharedServers},
};

/// Long for a local server that answers at all.
const SILENCE: Duration = Duration::from_millis(200);

async fn redis(url: &str) -> redis::aio::MultiplexedConnection {
    let client = redis::Client::open(url).unwrap();
    client.get_multiplexed_async_connection().await.unwrap()
}

#[tokio::test]
async fn shared_redis_answers_and_prefixes_differ() {
    let mut redis = redis(&SharedServers::of_this_run().redis_url()).await;
    let (one, other) = (redis_prefix(), redis_prefix());
    let _: () = redis::cmd("SET").arg(&one).arg(1).query_async(&mut redis).await.unwrap();
    let found: Option<i64> = redis::cmd("GETDEL").arg(&other).query_async(&mut redis).await.unwrap();
    assert_eq!(found, None);
    let found: Option<i64> = redis::cmd("GETDEL").arg(&one).query_async(&mut redis).await.unwrap();
    assert_eq!(found, Some(1));
}

#[tokio::test]
async fn own_redis_comes_back_on_its_port_with_its_data() {
    let mut server = OwnRedis::start(&["--appendonly", "yes", "--appendfsync", "always"]);
    let (url, port) = (server.url(), server.port());
    let _: () = redis::cmd("SET").arg("key").arg("kept").query_async(&mut redis(&url).await).await.unwrap();
    for end in [OwnRedis::kill9, OwnRedis::term] {
        end(&mut server);
        assert!(redis::Client::open(url.as_str()).unwrap().get_connection().is_err(), "it is dead");
        server.restart();
        assert_eq!((server.url(), server.port()), (url.clone(), port));
        let kept: String = redis::cmd("GET").arg("key").query_async(&mut redis(&url).await).await.unwrap();
        assert_eq!(kept, "kept");
    }
}

#[tokio::test]
async fn own_redis_answers_after_a_stop_only_once_it_may_go_on() {
    let server = OwnRedis::start(&[]);
    let mut redis = redis(&server.url()).await;
    let command = redis::cmd("PING");
    server.stop();
    let mut ping = std::pin::pin!(command.query_async::<String>(&mut redis));
    tokio::time::timeout(SILENCE, &mut ping).await.expect_err("a stopped server answers nothing");
    server.cont();
    assert_eq!(ping.await.unwrap(), "PONG");
}

#[tokio::test]
async fn own_mongod_goes_on_after_a_stop_and_comes_back_after_a_term() {
    let mut server = OwnMongod::start();
    let database = mongodb::Client::with_uri_str(server.uri()).await.unwrap().database("test");
    server.stop();
    let mut insert = tokio::spawn({
        let documents = database.collection("kept");
        async move { documents.insert_one(doc! { "_id": 1 }).await }
    });
    tokio::time::timeout(SILENCE, &mut insert).await.expect_err("a stopped server answers nothing");
    server.cont();
    insert.await.unwrap().unwrap();
    server.term();
    server.restart();
    let kept = database.collection::<mongodb::bson::Document>("kept").find_one(doc! {}).await.unwrap();
    assert_eq!(kept, Some(doc! { "_id": 1 }));
}
