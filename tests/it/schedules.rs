//! Feeds are fetched at their slots: each slot once, by any number of processes, through crashes and changes.

use std::{
    collections::{BTreeMap, HashSet},
    fs,
    time::{Duration, Instant, SystemTime},
};

use feedmill::{
    feed::Feed,
    import::{ConfiguredFeeds, Scheduler, Synced},
    pipeline::{Queues, feeds},
    queue::{GROUP, Queue, schedulers::Rescheduling},
    worker::schedule_loop::Fired,
};
use jiff::{Timestamp, tz::TimeZone};
use redis::{
    AsyncCommands as _,
    streams::{StreamInfoConsumersReply, StreamPendingCountReply, StreamRangeReply},
};

use crate::support::{
    eventually::eventually,
    feed_server::{Asked, FeedServer, Page},
    process::{Mill, PATIENCE, Running, redis_connection},
    servers::OwnRedis,
};

/// A mill with feeds of these names and schedules at `server`, each with an item of its own.
fn mill(server: &FeedServer, schedules: &[(&str, &str)]) -> Mill {
    let mut mill = Mill::new();
    for (name, schedule) in schedules {
        add_feed(&mut mill, server, name, schedule);
    }
    mill
}

fn add_feed(mill: &mut Mill, server: &FeedServer, name: &str, schedule: &str) {
    let path = format!("/{name}");
    server.put(&path, Page::rss(&[(name, "an item")]));
    mill.feed(name, &server.url(&path), Some(name));
    mill.set_of_feed(name, "schedule", Some(schedule));
}

fn configured(mill: &Mill) -> ConfiguredFeeds {
    ConfiguredFeeds::new(feeds(&mill.config()).unwrap())
}

async fn scheduler(mill: &Mill) -> Scheduler {
    let queues = mill.queues().await;
    Scheduler { fetch_queue: queues.fetch, import_queue: queues.import, feeds: configured(mill) }
}

/// Moves the slot of a feed, as if time had passed; returns the slot.
async fn move_slot(scheduler: &Scheduler, name: &str, by: Duration) -> i64 {
    let queue = &scheduler.fetch_queue;
    let (slots, now) = queue.scheduler_slots(&[name]).await.unwrap();
    let slot_ms = now - by.as_millis() as i64;
    let change = Rescheduling { id: name, believed_ms: slots[0], slot_ms: Some(slot_ms) };
    assert_eq!(queue.reschedule(&[change]).await.unwrap().moved, 1);
    slot_ms
}

/// The slots of all schedulers by name.
async fn slots(scheduler: &Scheduler) -> BTreeMap<String, i64> {
    scheduler.fetch_queue.schedulers().await.unwrap().into_iter().collect()
}

fn next_slot_ms(feed: &Feed) -> i64 {
    feed.slot_after(Timestamp::now()).unwrap().due_at.as_millisecond()
}

async fn asked_more(server: &FeedServer, path: &str, more: usize) {
    let before = server.asked_for(path).len();
    eventually(&format!("{path} is fetched"), PATIENCE, async || {
        (server.asked_for(path).len() >= before + more).then_some(())
    })
    .await;
}

#[tokio::test]
async fn schedulers_are_made_to_agree_with_the_feeds_and_what_is_right_is_kept() {
    let server = FeedServer::start();
    let mut mill = mill(&server, &[("daily", "0 9 * * *"), ("often", "every 365d"), ("gone", "0 9 * * *")]);
    mill.feed("asked", &server.url("/asked"), None);
    let before = scheduler(&mill).await;
    assert_eq!(before.sync().await.unwrap(), Synced { set: 3, removed: 0 }, "the one without a schedule has none");
    let next = |name: &str| next_slot_ms(&before.feeds.find(name).unwrap());
    let expected = ["daily", "gone", "often"].map(|name| (name.to_owned(), next(name)));
    assert_eq!(slots(&before).await, BTreeMap::from(expected), "never fetched: due at the next slot");
    assert_eq!(before.sync().await.unwrap(), Synced::default());

    // 365 days are whole minutes, but not the next of them.
    mill.set_of_feed("often", "schedule", Some("every 1m"));
    mill.set_of_feed("often", "spread", Some("0s"));
    mill.remove_feed("gone");
    let after = scheduler(&mill).await;
    let past = move_slot(&after, "daily", Duration::from_mins(1)).await;
    assert_eq!(after.sync().await.unwrap(), Synced { set: 1, removed: 1 });
    let slots = slots(&after).await;
    assert_eq!(slots["daily"], past, "a slot that has come is still to be fired");
    assert!(slots["often"] <= Timestamp::now().as_millisecond() + 60_000);
    assert_eq!(slots.len(), 2);
}

#[tokio::test]
async fn a_slot_that_was_missed_is_fired_once_and_then_the_next_one_from_now() {
    let mill = mill(&FeedServer::start(), &[("often", "every 1h"), ("daily", "0 9 * * *")]);
    let (one, other) = (scheduler(&mill).await, scheduler(&mill).await);
    one.sync().await.unwrap();
    // A week of hours has passed.
    move_slot(&one, "often", Duration::from_hours(7 * 24)).await;
    let turns = [one.run_once().await.unwrap(), other.run_once().await.unwrap(), one.run_once().await.unwrap()];
    assert_eq!(turns.map(|turn| turn.enqueued), [1, 0, 0]);
    assert_eq!(slots(&one).await["often"], next_slot_ms(&one.feeds.find("often").unwrap()));
    assert!(turns[2].next_due_in.unwrap() <= Duration::from_hours(1));
    // Nobody has worked on it when its next slot comes: it is not fetched twice.
    move_slot(&one, "often", Duration::from_secs(1)).await;
    let turn = other.run_once().await.unwrap();
    assert_eq!(turn, Fired { overlapping: 1, next_due_in: turn.next_due_in, ..Fired::default() });
    assert_eq!(one.fetch_queue.counts().await.unwrap().waiting, 1);
}

#[tokio::test]
async fn a_feed_that_only_others_have_is_left_to_them_and_dropped_when_nobody_has_it() {
    let mill = mill(&FeedServer::start(), &[("ours", "0 9 * * *")]);
    let scheduler = scheduler(&mill).await;
    scheduler.sync().await.unwrap();
    for (name, ago) in [("theirs", Duration::from_secs(1)), ("nobodys", Duration::from_mins(2))] {
        move_slot(&scheduler, name, ago).await;
    }
    let turn = scheduler.run_once().await.unwrap();
    assert_eq!((turn.enqueued, turn.dropped), (0, 1));
    assert_eq!(slots(&scheduler).await.into_keys().collect::<Vec<_>>(), ["ours", "theirs"]);
}

#[tokio::test]
async fn cron_and_the_loop_together_fire_a_slot_once() {
    let server = FeedServer::start();
    let mill = mill(&server, &[("a", "every 1h"), ("b", "every 1h")]);
    let _worker = mill.worker().await;
    let scheduler = scheduler(&mill).await;
    mill.run_ok(&["fetch", "--due"]).await;
    let queues = mill.queues().await;
    mill.through(&queues).await;
    assert_eq!(server.asked().len(), 2, "never fetched is due");

    // Once by the loop, and then there is nothing for cron.
    move_slot(&scheduler, "a", Duration::from_secs(1)).await;
    assert_eq!(scheduler.run_once().await.unwrap().enqueued, 1);
    assert_eq!(mill.run(&["fetch", "--due"]).await.data(), "");
    // Once by cron, and then there is nothing for the loop.
    move_slot(&scheduler, "b", Duration::from_secs(1)).await;
    assert!(mill.run_ok(&["fetch", "--due"]).await.contains("b "));
    assert_eq!(scheduler.run_once().await.unwrap().enqueued, 0);
    mill.through(&queues).await;
    assert_eq!((server.asked_for("/a").len(), server.asked_for("/b").len()), (2, 2));
    mill.assert_clean(&queues, 2).await;
}

#[tokio::test]
async fn cron_does_not_wait_for_the_spread_of_a_feed() {
    let server = FeedServer::start();
    // A name whose place in a minute is near its end.
    let mut mill = mill(&server, &[("f37", "0 0 1 1 *")]);
    mill.fetch_wait(&["--due"]).await;
    // Scheduled a moment ago, and due towards the end of the spread.
    let now = Timestamp::now().to_zoned(TimeZone::UTC);
    let schedule = format!("{} {} {} * * *", now.second(), now.minute(), now.hour());
    mill.set_of_feed("f37", "schedule", Some(&schedule));
    let scheduler = scheduler(&mill).await;
    scheduler.sync().await.unwrap();
    assert_eq!(scheduler.run_once().await.unwrap().enqueued, 0);
    assert_eq!(mill.fetch_wait(&["--due"]).await.len(), 1);
    assert_eq!(mill.run(&["fetch", "--due"]).await.data(), "");
    let tomorrow = slots(&scheduler).await["f37"] - Timestamp::now().as_millisecond();
    assert!(tomorrow > 23 * 3_600_000, "{tomorrow}");
}

#[tokio::test]
async fn a_scheduled_fetch_without_anything_new_leaves_no_record() {
    let server = FeedServer::start();
    let mill = mill(&server, &[("a", "every 1s")]);
    let _up = mill.start(&["up"]);
    asked_more(&server, "/a", 4).await;
    let records = mill.records().await;
    assert_eq!(records.len(), 1, "{records:?}");
    assert_eq!((records[0].asked, records[0].inserted), (false, 1));
}

#[tokio::test]
async fn feeds_change_with_a_sighup_and_without_a_restart() {
    let server = FeedServer::start();
    let mut mill = mill(&server, &[("moved", "every 1s"), ("removed", "every 1s")]);
    let (schedule, worker) = (mill.start(&["schedule"]), mill.worker().await);
    for path in ["/moved", "/removed"] {
        asked_more(&server, path, 1).await;
    }
    server.put("/elsewhere", Page::rss(&[("moved", "an item")]));
    mill.feed("moved", &server.url("/elsewhere"), Some("moved"));
    mill.set_of_feed("moved", "schedule", Some("every 1s"));
    mill.remove_feed("removed");
    add_feed(&mut mill, &server, "added", "every 1s");
    for process in [&worker, &schedule] {
        process.hup();
        eventually("it has read the file", PATIENCE, async || process.stderr().contains("read again").then_some(()))
            .await;
    }
    asked_more(&server, "/elsewhere", 2).await;
    asked_more(&server, "/added", 2).await;
    let scheduler = scheduler(&mill).await;
    assert_eq!(slots(&scheduler).await.into_keys().collect::<Vec<_>>(), ["added", "moved"]);
    let (moved, removed) = (server.asked_for("/moved").len(), server.asked_for("/removed").len());
    asked_more(&server, "/elsewhere", 2).await;
    assert_eq!((server.asked_for("/moved").len(), server.asked_for("/removed").len()), (moved, removed));
}

#[tokio::test]
async fn a_file_that_cannot_be_used_changes_nothing() {
    let server = FeedServer::start();
    let mill = mill(&server, &[("a", "every 1s")]);
    let up = mill.start(&["up"]);
    asked_more(&server, "/a", 1).await;
    fs::write(mill.config_path(), "[[feed]]\nname = \"a\"\nurl = \"ftp://a\"\n").unwrap();
    up.hup();
    eventually("it says so", PATIENCE, async || up.stderr().contains("the feeds stay as they were").then_some(()))
        .await;
    let log = up.stderr();
    assert!(log.contains("ERROR") && log.contains("feed.a.url"), "{log}");
    asked_more(&server, "/a", 2).await;
}

#[tokio::test]
async fn the_schedule_goes_on_after_redis_came_back_without_anything() {
    let (server, mut redis) = (FeedServer::start(), OwnRedis::start(&[]));
    let mut mill = Mill::on_redis(&redis);
    add_feed(&mut mill, &server, "a", "every 1s");
    let (schedule, _worker) = (mill.start(&["schedule"]), mill.worker().await);
    asked_more(&server, "/a", 2).await;
    redis.kill9();
    let waits = |line: &str| line.contains("scheduling failed") && line.contains("queue=feed_fetch_queue");
    eventually("it waits", PATIENCE, async || schedule.stderr().lines().any(waits).then_some(())).await;
    redis.restart();
    asked_more(&server, "/a", 3).await;
    assert!(schedule.stderr().contains("1 feeds were without their scheduler"), "{}", schedule.stderr());
}

/// Slots of a feed from `from` on.
fn slots_from(feed: &Feed, from: Timestamp) -> impl Iterator<Item = Timestamp> {
    let mut at = from;
    std::iter::from_fn(move || {
        at = feed.slot_after(at)?.due_at;
        Some(at)
    })
}

/// Checks that from its first fetch on a feed was fetched once at each of its slots, before the next one.
fn assert_once_a_slot(feed: &Feed, asked: &[Timestamp], until: Timestamp) {
    let name = &feed.name;
    let first = slots_from(feed, asked[0].checked_sub(Duration::from_secs(3)).unwrap());
    let first = first.take_while(|slot| *slot <= asked[0]).last().expect("a slot of the last seconds");
    let slots: Vec<Timestamp> = std::iter::once(first).chain(slots_from(feed, first)).take(asked.len() + 1).collect();
    for (n, asked) in asked.iter().enumerate() {
        assert!((slots[n]..slots[n + 1]).contains(asked), "{name}: fetch {n} at {asked}, slots {slots:?}");
    }
    assert!(slots[asked.len()] > until, "{name}: not fetched at {}, by {until}", slots[asked.len()]);
}

/// How long the processes of the test below work beside each other, unless `FEEDMILL_SCHEDULES_SECONDS` says otherwise.
const WORK_SECONDS: u64 = 20;

#[tokio::test]
async fn two_schedules_and_three_workers_fetch_each_feed_once_a_slot_and_a_killed_one_loses_nothing() {
    const FEEDS: usize = 50;
    /// A slot, and what a fetch may take on a loaded machine.
    const SLOT: Duration = Duration::from_secs(2);
    let seconds = std::env::var("FEEDMILL_SCHEDULES_SECONDS").ok().map_or(WORK_SECONDS, |text| text.parse().unwrap());
    let slots = (seconds / SLOT.as_secs()) as usize;
    let quarter = slots / 4;
    assert!(quarter > 0, "{seconds} s are too short");

    let server = FeedServer::start();
    let names: Vec<String> = (0..FEEDS).map(|n| format!("feed-{n}")).collect();
    let mut mill = mill(&server, &names.iter().map(|name| (name.as_str(), "every 2s")).collect::<Vec<_>>());
    // The requests of one slot are counted; a retry would be another one.
    mill.retry("feed_fetch_queue", 3, "10s");
    let queues = mill.queues().await;
    let mut workers: Vec<Running> = vec![mill.worker().await, mill.worker().await, mill.worker().await];
    let mut schedules = [mill.start(&["schedule"]), mill.start(&["schedule"])];

    rounds(&server, &names, quarter).await;
    schedules[0].kill9();
    rounds(&server, &names, quarter).await;
    // What the killed worker held is fetched by another, and new items come with it.
    for name in &names {
        server.put(&format!("/{name}"), Page::rss(&[(name, "an item"), (&format!("{name}-2"), "another")]));
    }
    workers[0].kill9_while_it_holds(&queues.fetch).await;
    let killed_at = Timestamp::now();
    let held = held_by(workers[0].pid(), &queues.fetch).await;
    assert!(!held.is_empty());
    rounds(&server, &names, slots - 2 * quarter).await;

    let (until, asked) = (Timestamp::now().checked_sub(SLOT).unwrap(), asked_by_path(&server));
    for feed in feeds(&mill.config()).unwrap().values() {
        let asked = &asked[&format!("/{}", feed.name)];
        if held.contains(&feed.name) {
            // It may have been asked for just before, and its next slot passed while its job was the dead worker's.
            let (before, after) = asked.split_at(asked.partition_point(|at| *at <= killed_at));
            assert_once_a_slot(feed, before, killed_at.checked_sub(SLOT).unwrap());
            assert_once_a_slot(feed, after, until);
        } else {
            assert_once_a_slot(feed, asked, until);
        }
    }
    schedules[1].term();
    let (status, _) = schedules[1].wait(PATIENCE).await;
    assert_eq!(status.code(), Some(0));
    mill.through(&queues).await;
    mill.assert_clean(&queues, 2 * FEEDS as u64).await;
}

/// The jobs that a process holds, or held when it was killed.
async fn held_by(pid: u32, queue: &Queue) -> HashSet<String> {
    let mut redis = redis_connection(queue.redis().address()).await;
    let stream = queue.keys().stream();
    let consumers: StreamInfoConsumersReply = redis.xinfo_consumers(stream, GROUP).await.unwrap();
    let consumer = consumers.consumers.into_iter().find(|one| one.name.contains(&format!(":{pid}:"))).unwrap();
    let pending: StreamPendingCountReply =
        redis.xpending_consumer_count(stream, GROUP, "-", "+", consumer.pending, consumer.name).await.unwrap();
    let mut held = HashSet::new();
    for entry in pending.ids {
        let found: StreamRangeReply = redis.xrange(stream, &entry.id, &entry.id).await.unwrap();
        held.insert(found.ids[0].get("id").unwrap());
    }
    held
}

/// Waits until each feed was fetched so many times more.
async fn rounds(server: &FeedServer, names: &[String], rounds: usize) {
    let count =
        |asked: &BTreeMap<String, Vec<Timestamp>>, name: &str| asked.get(&format!("/{name}")).map_or(0, Vec::len);
    let before = asked_by_path(server);
    eventually("all feeds are fetched", PATIENCE, async || {
        let now = asked_by_path(server);
        names.iter().all(|name| count(&now, name) >= count(&before, name) + rounds).then_some(())
    })
    .await;
}

fn asked_by_path(server: &FeedServer) -> BTreeMap<String, Vec<Timestamp>> {
    let (instant, now) = (Instant::now(), SystemTime::now());
    let mut by_path = BTreeMap::<String, Vec<Timestamp>>::new();
    for Asked { path, at, .. } in server.asked() {
        let at = now - instant.saturating_duration_since(at);
        by_path.entry(path).or_default().push(at.try_into().unwrap());
    }
    by_path
}

#[tokio::test]
async fn an_idle_up_costs_next_to_nothing() {
    const SPAN: Duration = Duration::from_secs(10);
    let (server, redis) = (FeedServer::start(), OwnRedis::start(&[]));
    let mut mill = Mill::on_redis(&redis);
    for name in 0..20 {
        add_feed(&mut mill, &server, &format!("feed-{name}"), "0 0 1 1 *");
    }
    // As shipped.
    for queue in ["job_import_queue", "feed_fetch_queue"] {
        for (key, value) in [("lock_duration", "30s"), ("stalled_interval", "30s"), ("flush", "3s")] {
            mill.set(&format!("stream.{queue}.{key}"), value);
        }
    }
    let up = mill.start(&["up"]);
    let queues = mill.queues().await;
    eventually("all of it runs", PATIENCE, async || {
        let n_consumers = queues.fetch.live_consumers().await.unwrap().len();
        let n_schedulers = queues.fetch.schedulers().await.unwrap().len();
        (n_consumers == 1 && n_schedulers == 20).then_some(())
    })
    .await;
    let (commands, cpu) = (commands_so_far(&queues).await, cpu_so_far(up.pid()));
    // What is measured is a span of time.
    tokio::time::sleep(SPAN).await;
    let commands = commands_so_far(&queues).await - commands;
    let cpu = cpu_so_far(up.pid()).saturating_sub(cpu);
    assert!(commands < 30 * SPAN.as_secs(), "{commands} commands in {SPAN:?}, those within scripts included");
    assert!(cpu < SPAN / 100, "{cpu:?} of CPU in {SPAN:?}");
}

#[tokio::test]
async fn a_scheduled_fetch_that_is_answered_304_costs_little() {
    const FEEDS: usize = 50;
    const FETCHES: usize = 500;
    let server = FeedServer::start();
    let names: Vec<String> = (0..FEEDS).map(|n| format!("feed-{n}")).collect();
    let mill = mill(&server, &names.iter().map(|name| (name.as_str(), "every 1s")).collect::<Vec<_>>());
    let up = mill.start(&["up"]);
    // Everything is imported, and has been found unchanged once.
    rounds(&server, &names, 2).await;
    let (before, cpu) = (server.asked().len(), cpu_so_far(up.pid()));
    eventually("many fetches", PATIENCE, async || (server.asked().len() >= before + FETCHES).then_some(())).await;
    // All that the process did meanwhile: slots, fetches, and turns without work. A debug build may take twice as long.
    let (cpu, asked) = (cpu_so_far(up.pid()).saturating_sub(cpu), server.asked().split_off(before));
    assert!(asked.iter().all(|asked| asked.status == 304), "{asked:?}");
    let each = cpu / asked.len() as u32;
    let limit = Duration::from_millis(if cfg!(debug_assertions) { 4 } else { 2 });
    assert!(each < limit, "{each:?} of CPU a fetch, {} fetches", asked.len());
}

/// Calls of all commands, those within scripts included.
async fn commands_so_far(queues: &Queues) -> u64 {
    let mut redis = redis_connection(queues.fetch.redis().address()).await;
    let stats: String = redis::cmd("INFO").arg("commandstats").query_async(&mut redis).await.unwrap();
    let calls = stats.lines().filter_map(|line| line.split_once("calls=")?.1.split(',').next()?.parse::<u64>().ok());
    calls.sum()
}

/// CPU that a process has used, in user and kernel, all threads together.
fn cpu_so_far(pid: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    // The fields after the name in brackets, which may hold anything: utime and stime are the 12th and 13th.
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    let ticks: u64 = fields[11..13].iter().map(|ticks| ticks.parse::<u64>().unwrap()).sum();
    Duration::from_secs(ticks) / rustix::param::clock_ticks_per_second() as u32
}
