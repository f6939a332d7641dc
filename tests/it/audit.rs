//! The audit itself: it finds what is broken on purpose.

use redis::AsyncCommands;

use crate::support::{
    audit::{assert_sound, audit},
    jobs::{Fetch, add, connection, id, queue, read_one},
};

/// Breaks a queue with one waiting, one active and one dead job, and says what the audit finds.
async fn findings_after(breaking: &[&[&str]]) -> String {
    let queue = queue().await;
    let fetch = Fetch::begin(&queue, "feed").await;
    fetch.enqueue(&queue, &["active", "waiting"]).await;
    read_one(&queue, "worker").await;
    assert_sound(&queue).await;
    let mut redis = connection(&queue).await;
    for command in breaking {
        let mut built = redis::cmd(command[0]);
        for word in &command[1..] {
            let word = word
                .replace("STREAM", queue.keys().stream())
                .replace("DELAYED", queue.keys().delayed())
                .replace("JOBS:", queue.keys().job_prefix())
                .replace("FAILURES", queue.keys().failures())
                .replace("IMPORT", &queue.keys().import(fetch.import));
            built.arg(word);
        }
        let _: redis::Value = built.query_async(&mut redis).await.unwrap();
    }
    audit(&queue).await.expect_err("it is broken").join("; ")
}

#[tokio::test]
async fn each_kind_of_damage_is_found() {
    for (breaking, finding) in [
        (&["XTRIM", "STREAM", "MAXLEN", "1"][..], "guard without a job: active"),
        (&["DEL", "JOBS:waiting"], "entry"),
        (&["SETRANGE", "JOBS:waiting", "0", "d"], "guard without a job: waiting is not in backoff"),
        (&["SETRANGE", "JOBS:waiting", "0", "?"], "cannot be read"),
        (&["ZADD", "DELAYED", "1", "nobody"], "nobody is in backoff"),
        (&["XADD", "STREAM", "*", "id", "waiting"], "stands elsewhere"),
        (&["XGROUP", "SETID", "STREAM", "workers", "$"], "orphan entry"),
        (&["XGROUP", "DESTROY", "STREAM", "workers"], "no group"),
        (&["HSET", "FAILURES", "waiting", "x"], "has not failed"),
        (&["HINCRBY", "IMPORT", "open", "1"], "open is 3, and 2 of its jobs live"),
        (&["HINCRBY", "IMPORT", "new", "1"], "3 jobs were taken in"),
        (&["HSET", "IMPORT", "closed", "1"], "the zset of closing imports disagrees"),
        (&["DEL", "IMPORT"], "which is gone"),
    ] {
        let found = findings_after(&[breaking]).await;
        assert!(found.contains(finding), "{breaking:?}: {found}");
    }
}

#[tokio::test]
async fn a_paused_queue_is_judged_by_the_place_it_had_reached() {
    let queue = queue().await;
    add(&queue, "a").await;
    read_one(&queue, "worker").await;
    add(&queue, "b").await;
    queue.pause().await.unwrap();
    assert_sound(&queue).await;
    let (): () = connection(&queue).await.hset(queue.keys().meta(), "gate", "9999999999999-0").await.unwrap();
    let findings = audit(&queue).await.expect_err("b is passed over");
    assert!(findings.iter().any(|finding| finding.contains("orphan")), "{findings:?}");
    assert!(queue.find(&id("b")).await.unwrap().is_some());
}
