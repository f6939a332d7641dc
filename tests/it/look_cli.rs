//! Looking at queues on the command line: what is printed for people and for machines.

use std::{
    io::{BufRead as _, BufReader},
    process::Stdio,
    time::Duration,
};

use feedmill::{
    QueueOptions,
    job::{Envelope, JobOptions, Keep, Outcome},
    queue::{
        Events, Queue, Redis,
        consumers::Consumer,
        enqueue::NewJob,
        progress::LINES_KEPT,
        settle::{BackOff, Burial, Done},
    },
};
use redis::AsyncCommands;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::support::{
    jobs::{PAYLOAD_MAX, add_many, connection, id, new_job, read, read_one},
    redis_prefix,
    servers::SharedServers,
    shell::{BINARY, Shell, ran},
    wait::until,
    workers::{each, options},
};

/// A shell, and the queue `work` under its prefix.
async fn shell_and_queue(options: impl Into<QueueOptions>) -> (Shell, Queue) {
    let (mut shell, prefix, url) = (Shell::new(), redis_prefix(), SharedServers::of_this_run().redis_url());
    shell.set("REDIS_URL", &url);
    shell.file("streams.toml", format!("[redis]\nprefix = {prefix:?}\n"));
    let redis = Redis::connect(&url, &prefix).await.unwrap();
    (shell, Queue::open(&redis, "work", options).await.unwrap())
}

fn on_work<'a>(args: &[&'a str]) -> Vec<&'a str> {
    [args, &["--queue", "work"]].concat()
}

fn json_of(shell: &Shell, args: &[&str]) -> Value {
    serde_json::from_str(&shell.run(&[args, &["--json"]].concat()).data()).unwrap()
}

/// Checks that a table goes into 80 columns, and returns its rows without the header, each as its words.
fn rows(table: &str) -> Vec<Vec<&str>> {
    for line in table.lines() {
        assert!(line.chars().count() <= 80, "{} columns: {line}", line.chars().count());
    }
    table.lines().skip(1).map(|line| line.split_whitespace().collect()).collect()
}

#[tokio::test]
async fn a_list_is_a_table_that_says_how_to_go_on_and_pages_for_machines() {
    let (shell, queue) = shell_and_queue(Events::Failures).await;
    add_many(&queue, "job", 25).await;
    let listed = shell.run(&on_work(&["queue", "list"]));
    let table = listed.stdout.clone();
    assert_eq!((rows(&table).len(), rows(&table)[0][0], rows(&table)[19][0]), (20, "job-0", "job-19"));
    assert!(table.starts_with("job     since UTC    tries  note\n"), "{table}");
    let cursor = listed.stderr.strip_prefix("more follow: --cursor ").expect(&listed.stderr).trim_end().to_owned();
    let rest = shell.run(&on_work(&["queue", "list", "--cursor", &cursor])).data();
    assert_eq!((rows(&rest).len(), rows(&rest)[0][0]), (5, "job-20"));

    let newest = json_of(&shell, &on_work(&["queue", "list", "--desc", "--limit", "2"]));
    assert_eq!((&newest["state"], &newest["order"]), (&json!("waiting"), &json!("desc")));
    let job = &newest["jobs"][0];
    assert_eq!((&job["id"], &job["state"], &job["attempts"]), (&json!("job-24"), &json!("waiting"), &json!(0)));
    assert_eq!((&job["payloadBytes"], &job["adopted"], &job["dueAt"]), (&json!(2), &json!(true), &Value::Null));
    assert!(job["waitingSince"].as_str() >= Some("2025"), "{job}");
    let next = newest["next"].as_str().unwrap();
    let on = json_of(&shell, &on_work(&["queue", "list", "--cursor", next, "--limit", "1000"]));
    assert_eq!((on["jobs"].as_array().unwrap().len(), &on["next"]), (23, &Value::Null), "it goes on downwards");

    let other = on_work(&["queue", "list", "--state", "failed", "--cursor", next]);
    shell.run(&other).failed(
        2,
        "the cursor belongs to a list of waiting jobs downwards; go on with that, or begin without a cursor",
    );
    assert_eq!(shell.run(&on_work(&["queue", "list", "--state", "completed"])).data(), "");
    for (args, told) in [
        (["--state", "gone"], "there is no state \"gone\"; the states are waiting, prioritized, active, "),
        (["--cursor", "zz"], "not a cursor; take one that a list or a search ended with, whole"),
        (["--limit", "0"], "0 is not in 1..=10000"),
    ] {
        let ran = shell.run(&[&["queue", "list"][..], &args].concat());
        assert_eq!((ran.status.code(), ran.stdout.as_str()), (Some(2), ""), "{args:?}");
        assert!(ran.stderr.contains(told), "{}", ran.stderr);
    }
}

#[tokio::test]
async fn each_state_is_listed_with_what_matters_of_it() {
    let (shell, queue) = shell_and_queue(QueueOptions { group_window: Some(1), ..QueueOptions::default() }).await;
    let long = format!("https://jobs.example/a/very/long/path?with=parameters#{}", "7".repeat(60));
    add_many(&queue, "job", 3).await;
    let held = read(&mut queue.reader("a-consumer"), 3).await;
    let lease = |at: usize| held[at].lease.clone();
    let wait = Duration::from_hours(1);
    queue.back_off(&[BackOff { lease: lease(0), wait, reason: Some("no\nluck ".repeat(20)) }]).await.unwrap();
    let reason = "timed out after 10s".to_owned();
    queue.bury("a-consumer", &[Burial { lease: lease(1), reason, exhausted: true, dedup: None }]).await.unwrap();
    queue.done(&[Done::new(lease(2))], Keep::All).await.unwrap();
    let jobs = [
        NewJob { priority: 7, ..new_job(&id(&long)) },
        NewJob { group: Some("slow"), ..new_job(&id("first")) },
        NewJob { group: Some("slow"), ..new_job(&id("second")) },
    ];
    queue.add(&jobs, PAYLOAD_MAX).await.unwrap();
    let plain = "{\"t\":\"\u{1b}[31mred\"}";
    let _: String = connection(&queue).await.xadd(queue.keys().stream(), "*", &[("json", plain)]).await.unwrap();

    let list = |state: &str| shell.run(&on_work(&["queue", "list", "--state", state])).data();
    let waiting = list("waiting");
    let of = rows(&waiting);
    assert_eq!((of[0][0], of[0].last(), of.len()), ("first", Some(&"0"), 3), "{waiting}");
    assert_eq!(
        (of[1][0], &of[1][3..]),
        ("-", &["-", "not", "adopted", "yet:", "{\"t\":\"", "[31mred\"}"][..]),
        "{waiting}"
    );
    assert_eq!((of[2][0], &of[2][4..]), ("second", &["parked", "in", "slow"][..]), "{waiting}");
    let prioritized = list("prioritized");
    assert_eq!(rows(&prioritized)[0][0], format!("{}…", &long[..35]), "{prioritized}");
    assert_eq!(rows(&prioritized)[0].last(), Some(&"7"));
    let delayed = list("delayed");
    assert!(rows(&delayed)[0][0] == "job-0" && delayed.contains("no luck no") && delayed.contains('…'), "{delayed}");
    let failed = list("failed");
    assert!(failed.contains("job-1") && failed.contains("  1      timed out after 10s\n"), "{failed}");
    assert_eq!(rows(&list("completed"))[0][0], "job-2");
    read_one(&queue, "a-consumer").await;
    let active = list("active");
    assert!(active.starts_with("job") && active.contains("a-consumer"), "{active}");
    let json = json_of(&shell, &on_work(&["queue", "list", "--state", "active"]));
    assert_eq!((&json["jobs"][0]["consumer"], &json["jobs"][0]["priority"]), (&json!("a-consumer"), &json!(7)));
    assert!(json["jobs"][0]["idleMs"].as_u64().unwrap() < 60_000);
    let json = json_of(&shell, &on_work(&["queue", "list", "--state", "waiting"]));
    assert_eq!((&json["jobs"][1]["adopted"], &json["jobs"][1]["json"]), (&json!(false), &json!(plain)));
    assert_eq!((&json["jobs"][2]["parked"], &json["jobs"][2]["group"]), (&json!(true), &json!("slow")));
}

#[tokio::test]
async fn titles_stand_beside_the_ids_of_jobs_that_have_one() {
    let (shell, queue) = shell_and_queue(Events::Failures).await;
    let titled = |title: &str| json!({ "source": "s", "title": title }).to_string().into_bytes();
    let (gardener, long) = (titled("Gardener\n\u{1b}[31m"), titled(&"Sehr langer Titel ".repeat(20)));
    for (job, payload) in
        [("https://jobs.example/a/very/long/feed#1234567", &gardener[..]), ("b#2", &long), ("c#3", b"no map")]
    {
        let envelope = Envelope { payload, ..Envelope::default() };
        queue.add(&[NewJob::new(id(job), envelope)], PAYLOAD_MAX).await.unwrap();
    }
    let table = shell.run(&on_work(&["queue", "list"])).data();
    let of = rows(&table);
    assert!(table.starts_with("job                     title   "), "{table}");
    assert_eq!(of[0][..3], ["https:/…g/feed#1234567", "Gardener", "[31m"], "{table}");
    assert_eq!(of[1][..5], ["b#2", "Sehr", "langer", "Titel", "Sehr"], "{table}");
    assert_eq!(of[2][..2], ["c#3", "-"], "{table}");
    let starts: Vec<Option<usize>> = table.lines().map(|line| line.find("title").or(line.find("Gard"))).collect();
    assert_eq!(starts[0].map(|column| column + "…".len() - 1), starts[1], "they line up\n{table}");

    let held = read(&mut queue.reader("w"), 3).await;
    let burials = held.iter().map(|held| Burial {
        lease: held.lease.clone(),
        reason: "the server of the feed timed out after 10s".to_owned(),
        exhausted: true,
        dedup: None,
    });
    queue.bury("w", &burials.collect::<Vec<_>>()).await.unwrap();
    let failed = shell.run(&on_work(&["queue", "list", "--state", "failed"])).data();
    assert!(rows(&failed)[0].join(" ").contains("Gardener [31m") && failed.contains("the server"), "{failed}");
    let found = shell.run(&on_work(&["queue", "search", "--error", "timed out"])).data();
    assert!(rows(&found)[1].join(" ").starts_with("b#2 Sehr langer Titel… failed 1 the server"), "{found}");
    let json = json_of(&shell, &on_work(&["queue", "list", "--state", "failed"]));
    assert_eq!((&json["jobs"][0]["title"], &json["jobs"][2]["title"]), (&json!("Gardener\n\u{1b}[31m"), &Value::Null));
    let long = json["jobs"][1]["title"].as_str().unwrap();
    assert!(long.chars().count() == 200 && long.ends_with('…'), "{long}");
}

#[tokio::test]
async fn a_search_prints_what_matches_and_can_be_gone_on_with() {
    let (shell, queue) = shell_and_queue(Events::Failures).await;
    add_many(&queue, "https://a.example/feed#", 200).await;
    add_many(&queue, "https://b.example/feed#", 3).await;
    let held = read_one(&queue, "w").await.lease;
    let reason = "the server timed out".to_owned();
    queue.bury("w", &[Burial { lease: held, reason, exhausted: true, dedup: None }]).await.unwrap();

    let found = shell.run(&on_work(&["queue", "search", "--source", "https://b.example/feed", "--limit", "2"]));
    assert_eq!(
        rows(&found.stdout).iter().map(|row| row[0]).collect::<Vec<_>>(),
        ["https://b.example/feed#-0", "https://b.example/feed#-1"]
    );
    let cursor = found.stderr.trim_end().rsplit(' ').next().unwrap().to_owned();
    assert!(found.stderr.starts_with("2 found among 201 jobs; there may be more: --cursor "), "{}", found.stderr);
    let rest =
        json_of(&shell, &on_work(&["queue", "search", "--id-prefix", "https://b.example/feed#", "--cursor", &cursor]));
    assert_eq!((&rest["jobs"][0]["id"], &rest["next"]), (&json!("https://b.example/feed#-2"), &Value::Null));
    assert_eq!(
        (rest["jobs"].as_array().unwrap().len(), &rest["lookedAt"]),
        (1, &json!(2)),
        "the last, and the dead one"
    );
    let by_error = shell.run(&on_work(&["queue", "search", "--error", "TIMED OUT", "--state", "failed"])).data();
    assert_eq!(rows(&by_error)[0][..3], ["https://a.example/feed#-0", "failed", "1"]);
    assert!(by_error.contains("the server timed out"), "{by_error}");
    assert_eq!(shell.run(&on_work(&["queue", "search", "--group", "none"])).data(), "");
    let told = "what is looked for? Say --id-prefix, --source, --group or --error";
    shell.run(&on_work(&["queue", "search", "--state", "failed"])).failed(2, told);
}

#[tokio::test]
async fn show_and_logs_tell_what_was_said_of_a_job() {
    let (shell, queue) = shell_and_queue(QueueOptions { group_window: Some(5), ..QueueOptions::default() }).await;
    let encoded = JobOptions { attempts: Some(4), ..JobOptions::default() }.encode();
    let envelope =
        Envelope { payload: b"{\"n\":1}", name: Some("thumbnail"), options: Some(&encoded), ..Envelope::default() };
    let job = NewJob { priority: 3, group: Some("g"), ..NewJob::new(id("a"), envelope) };
    queue.add(&[job], PAYLOAD_MAX).await.unwrap();
    let waits = shell.run(&on_work(&["queue", "show", "a"])).data();
    for row in ["state       prioritized", "name        thumbnail", "group       g", "priority    3"] {
        assert!(waits.lines().any(|shown| shown == row), "{row} is not in\n{waits}");
    }
    assert!(waits.contains("\noptions     {\"attempts\":4}\n"), "{waits}");

    let held = read_one(&queue, "a-consumer").await.lease;
    queue.set_progress(&held, "{\"at\":50}").await.unwrap();
    for n in 1..=25 {
        queue.log(&held, &format!("line {n}"), LINES_KEPT).await.unwrap();
    }
    let active = shell.run(&on_work(&["queue", "show", "a"])).data();
    assert!(
        active.contains("\nstate       active\n") && active.contains("\nconsumer    a-consumer, idle for "),
        "{active}"
    );
    queue.back_off(&[BackOff { lease: held, wait: Duration::ZERO, reason: Some("no".to_owned()) }]).await.unwrap();
    queue.promote().await.unwrap();
    let held = read_one(&queue, "a-consumer").await.lease;
    queue.done(&[Done { result: Some("[7]".to_owned()), ..Done::new(held) }], Keep::All).await.unwrap();

    let shown = shell.run(&on_work(&["queue", "show", "a"])).data();
    for row in [
        "state       completed",
        "error       of attempt 1: no",
        "progress    {\"at\":50}",
        "result      [7]",
        "log         (5 lines before; `feedmill queue logs`)",
        "log         line 25",
    ] {
        assert!(shown.lines().any(|shown| shown == row), "{row} is not in\n{shown}");
    }
    assert!(shown.contains("\nfinished    20"), "{shown}");
    let json = json_of(&shell, &on_work(&["queue", "show", "a"]));
    assert_eq!(
        (&json["progress"], &json["result"], &json["errors"]),
        (&json!({"at": 50}), &json!([7]), &json!({"1": "no"}))
    );
    assert_eq!(
        (&json["priority"], &json["options"], &json["linesBefore"]),
        (&json!(3), &json!({"attempts": 4}), &json!(5))
    );
    assert!(json["finishedAt"].is_string() && json["log"].as_array().unwrap().len() == 20, "{json}");

    let all = (1..=25).map(|n| format!("line {n}\n")).collect::<Vec<_>>().concat();
    assert_eq!(shell.run(&on_work(&["queue", "logs", "a"])).data(), all);
    assert_eq!(shell.run(&on_work(&["queue", "logs", "a", "--limit", "2"])).data(), "line 24\nline 25\n");
    let json = json_of(&shell, &on_work(&["queue", "logs", "a", "--limit", "1"]));
    let line = json!([{"number": 25, "text": "line 25"}]);
    assert_eq!((&json["lines"], &json["linesBefore"], &json["progress"]), (&line, &json!(24), &json!({"at": 50})));
    let told = "there is no job b in work: it is done, was never added, or no worker has adopted it yet";
    shell.run(&on_work(&["queue", "logs", "b"])).failed(1, told);
}

#[tokio::test]
async fn events_are_printed_from_the_newest_from_any_and_as_they_happen() {
    let (shell, queue) = shell_and_queue(Events::All).await;
    add_many(&queue, "job", 15).await;
    let newest = shell.run(&on_work(&["queue", "events"])).data();
    assert_eq!(newest.lines().count(), 20);
    assert!(newest.lines().last().unwrap().ends_with("Z  waiting            job-14"), "{newest}");
    let all = shell.run(&on_work(&["queue", "events", "--since", "0-0", "--json"])).data();
    let all: Vec<Value> = all.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((all.len(), &all[0]["event"], &all[0]["jobId"]), (30, &json!("added"), &json!("job-0")));
    assert_eq!((&all[0]["fields"], all[0]["at"].is_string()), (&json!({"name": ""}), true));
    let since = all[27]["id"].as_str().unwrap();
    let rest = shell.run(&on_work(&["queue", "events", "--since", since])).data();
    assert_eq!(rest.lines().count(), 2, "{rest}");
    let some = shell.run(&on_work(&["queue", "events", "--since", "0-0", "--limit", "3"])).data();
    assert_eq!(some.lines().count(), 3);
    shell.run(&on_work(&["queue", "events", "--since", "0-0", "--limit", "3"])).data();
    assert_eq!(shell.run(&on_work(&["queue", "events", "--since", "yesterday"])).status.code(), Some(2));

    let mut command = shell.command(BINARY);
    command.args(on_work(&["queue", "events", "--follow", "--since", since]));
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.next().unwrap().unwrap().ends_with("  added              job-14  name="));
    assert!(lines.next().unwrap().unwrap().ends_with("  waiting            job-14"));
    queue.pause().await.unwrap();
    assert!(lines.next().unwrap().unwrap().ends_with("  paused             -"), "it goes on");
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    assert_eq!(ran(child.wait_with_output().unwrap()).data(), "");
}

#[tokio::test]
async fn a_reader_of_followed_events_that_leaves_ends_it() {
    let (shell, queue) = shell_and_queue(Events::All).await;
    add_many(&queue, "job", 1).await;
    let mut command = shell.command(BINARY);
    command.args(on_work(&["queue", "events", "--follow", "--since", "0-0"]));
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    stdout.read_line(&mut String::new()).unwrap();
    drop(stdout);
    // the next event finds nobody who reads it
    let mut n = 0;
    until(Duration::from_secs(20), async || {
        n += 1;
        add_many(&queue, &format!("more-{n}"), 1).await;
        child.try_wait().unwrap().is_some()
    })
    .await;
    assert_eq!(ran(child.wait_with_output().unwrap()).data(), "");
}

#[tokio::test]
async fn a_series_is_printed_minute_by_minute() {
    let (shell, queue) = shell_and_queue(Events::Failures).await;
    add_many(&queue, "job", 3).await;
    let worker = each(&queue, options(), |delivery| async move {
        Ok(if delivery.job.id == id("job-0") { Outcome::Fail("no".to_owned()) } else { Outcome::Done })
    });
    until(Duration::from_secs(20), async || queue.counts().await.unwrap().is_idle()).await;
    worker.stop().await;
    let table = shell.run(&on_work(&["queue", "series", "--last", "5m"])).data();
    assert!(table.starts_with("minute UTC   completed  failed\n"), "{table}");
    let sum = |column: usize| rows(&table).iter().map(|row| row[column].parse::<u64>().unwrap()).sum::<u64>();
    assert_eq!((sum(2), sum(3), rows(&table).len()), (2, 1, 6), "{table}");
    let json = json_of(&shell, &on_work(&["queue", "series"]));
    let minutes = json.as_array().unwrap();
    let done: u64 = minutes.iter().map(|minute| minute["completed"].as_u64().unwrap()).sum();
    assert_eq!((minutes.len(), done), (16, 2));
    assert!(minutes[0]["minute"].as_str() < minutes[15]["minute"].as_str());
    let told = "--last \"16d\": numbers are kept for 15days";
    shell.run(&on_work(&["queue", "series", "--last", "16d"])).failed(2, told);
}

#[tokio::test]
async fn workers_are_listed_by_queue_with_what_they_run() {
    let (shell, queue) = shell_and_queue(Events::Failures).await;
    assert_eq!(shell.run(&["workers"]).data(), "");
    let consumer = Consumer::of_this_process();
    queue.heartbeat(&consumer, 2).await.unwrap();
    add_many(&queue, "job", 3).await;
    read(&mut queue.reader(&consumer.name), 2).await;
    read_one(&queue, "stranger").await;
    for args in [&["workers"][..], &["workers", "--queue", "work"]] {
        let table = shell.run(args).data();
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(rows(&table).len(), 6, "{table}");
        assert!(lines[1].contains("  alive  ") && lines[1].ends_with("  2     work"), "{table}");
        assert!(lines[2].starts_with("stranger ") && lines[2].contains("  dead "), "{table}");
        assert!(lines[3].is_empty() && lines[5].ends_with("job-0, job-1") && lines[6].ends_with("job-2"), "{table}");
    }
    let json = json_of(&shell, &["workers"]);
    assert_eq!(
        (&json[0]["name"], &json[0]["alive"], &json[0]["held"]),
        (&json!(consumer.name), &json!(true), &json!(2))
    );
    assert_eq!((&json[0]["running"], &json[0]["pid"]), (&json!(["job-0", "job-1"]), &json!(std::process::id())));
    assert_eq!((&json[1]["alive"], &json[1]["host"], &json[1]["pending"]), (&json!(false), &Value::Null, &json!(1)));
    let told = "there is no queue \"none\"; the queues are feed_fetch_queue, job_import_queue, work";
    shell.run(&["workers", "--queue", "none"]).failed(2, told);
}
