//! Servers that cannot be used: which, why, and no password in it.

use std::time::{Duration, Instant};

use super::{NOTHING, REFUSED, shell_with_redis};
use crate::support::{
    servers::{OwnRedis, SharedServers, find},
    shell::Shell,
};

#[test]
fn a_redis_that_is_not_there_is_named_without_its_password() {
    let mut shell = Shell::new();
    shell.set("FEEDMILL_LISTEN", "127.0.0.1:0");
    let url = format!("redis://ada:s3cret@{NOTHING}/3");
    for command in [&["queue", "counts"][..], &["import", "list"], &["worker"], &["up"]] {
        let started = Instant::now();
        let ran = shell.run(&[command, &["--redis-url", &url]].concat());
        ran.failed(
            1,
            &format!("cannot reach Redis at {NOTHING}; start it, or set REDIS_URL to where it runs: {REFUSED}"),
        );
        assert!(started.elapsed() < Duration::from_secs(5), "an operator is not kept waiting");
    }
}

#[test]
fn a_host_that_does_not_exist_is_named() {
    let ran = Shell::new().run(&["queue", "counts", "--redis-url", "redis://nowhere.invalid"]);
    assert_eq!((ran.status.code(), ran.stdout.as_str()), (Some(1), ""));
    let told = "error: cannot reach Redis at nowhere.invalid:6379; start it, or set REDIS_URL to where it runs: ";
    assert!(ran.stderr.starts_with(told) && ran.stderr.lines().count() == 1, "{}", ran.stderr);
}

#[test]
fn a_redis_that_refuses_the_login_says_so_and_the_password_stays_hidden() {
    let server = OwnRedis::start(&["--requirepass", "right"]);
    let address = format!("127.0.0.1:{}", server.port());
    let told = format!("error: Redis at {address} refused the login; check user and password in REDIS_URL: ");
    for user_info in ["", ":wr0ng@", "ada:wr0ng@"] {
        let ran = Shell::new().run(&["queue", "counts", "--redis-url", &format!("redis://{user_info}{address}")]);
        assert_eq!((ran.status.code(), ran.stdout.as_str()), (Some(1), ""));
        assert!(ran.stderr.starts_with(&told) && ran.stderr.lines().count() == 1, "{}", ran.stderr);
        assert!(!ran.stderr.contains("wr0ng"), "{}", ran.stderr);
    }
    let ran = Shell::new().run(&["queue", "counts", "--redis-url", &format!("redis://:right@{address}")]);
    assert_eq!(ran.status.code(), Some(0), "{}", ran.stderr);
}

#[test]
fn a_redis_before_6_2_is_refused_with_its_version() {
    let server = OwnRedis::start_program(&find("redis-server-5.0"), &[]);
    for command in [&["queue", "counts"][..], &["worker"]] {
        let ran = Shell::new().run(&[command, &["--redis-url", &server.url()]].concat());
        let told = format!(
            "Redis at 127.0.0.1:{} is version 5.0.6; feedmill needs Redis 6.2 or later, or Valkey 7.2 or later",
            server.port()
        );
        ran.failed(1, &told);
    }
}

#[test]
fn a_mongodb_that_is_not_there_is_named_without_its_password() {
    let mut shell = shell_with_redis();
    shell.set("MONGODB_URI", format!("mongodb://ada:s3cret@{NOTHING}/?authSource=admin&serverSelectionTimeoutMS=300"));
    shell.run(&["import", "list"]).failed(
        1,
        &format!(
            "cannot reach MongoDB at {NOTHING}; start it, or set MONGODB_URI to where it runs: I/O error: {REFUSED}"
        ),
    );
}

#[test]
fn a_server_that_is_not_mongodb_is_told_apart_from_none() {
    let mut shell = shell_with_redis();
    let address = SharedServers::of_this_run().redis_url().replace("redis://", "");
    shell.set("MONGODB_URI", format!("mongodb://{address}/?serverSelectionTimeoutMS=300"));
    let ran = shell.run(&["import", "list"]);
    let told = format!("error: cannot reach MongoDB at {address}; start it, or set MONGODB_URI to where it runs: ");
    assert!(ran.stderr.starts_with(&told), "{}", ran.stderr);
    assert!(ran.stderr.lines().count() == 1 && !ran.stderr.contains("Topology"), "{}", ran.stderr);
}

#[test]
fn a_mongodb_that_refuses_the_login_says_so_and_the_password_stays_hidden() {
    let mut shell = shell_with_redis();
    let address = SharedServers::of_this_run().mongodb_uri().replace("mongodb://", "");
    shell.set("MONGODB_URI", format!("mongodb://ada:s3cret@{address}"));
    let ran = shell.run(&["import", "list"]);
    let told =
        format!("error: MongoDB at {address} refused the login; check user, password and authSource in MONGODB_URI");
    assert_eq!((ran.status.code(), ran.stdout.as_str()), (Some(1), ""));
    assert!(ran.stderr.starts_with(&told) && ran.stderr.lines().count() == 1, "{}", ran.stderr);
    assert!(!ran.stderr.contains("s3cret"), "{}", ran.stderr);
}

#[test]
fn embedded_servers_that_are_not_installed_are_named_before_any_is_started() {
    let mut shell = Shell::new();
    shell.set("PATH", "/nowhere");
    shell.set("FEEDMILL_LISTEN", "127.0.0.1:0");
    let own = shell.path().join(".feedmill/bin");
    // The folder's real name, as the process sees it.
    let own = shell.path().canonicalize().unwrap().join(own.strip_prefix(shell.path()).unwrap());
    let told = format!("redis-server was not found in {} or on PATH; `make setup` installs it", own.display());
    shell.run(&["up", "--embedded"]).failed(1, &told);
    std::fs::create_dir_all(&own).unwrap();
    std::os::unix::fs::symlink(find("redis-server"), own.join("redis-server")).unwrap();
    shell.run(&["up", "--embedded"]).failed(1, &told.replace("redis-server", "mongod"));
    assert!(!shell.path().join(".feedmill/data/redis").exists(), "redis-server was not started");
}
