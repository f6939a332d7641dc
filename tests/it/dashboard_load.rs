//! What the dashboard costs with many jobs and many viewers. With FEEDMILL_LOAD_WAITING and FEEDMILL_LOAD_DEAD at the size
//! of the figures in docs/http.md, and FEEDMILL_LOAD_SECONDS for how long.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
    time::{Duration, Instant, SystemTime},
};

use feedmill::{
    job::{Envelope, JobId},
    queue::{Queue, dead_letter::NewDeadJob, enqueue::NewJob},
};

use crate::support::{
    http::Served,
    process::{Mill, redis_connection},
    servers::OwnRedis,
};

const VIEWERS: usize = 20;

fn from_env(name: &str, otherwise: usize) -> usize {
    std::env::var(name).map_or(otherwise, |value| value.parse().unwrap())
}

async fn fill(queue: &Queue, waiting: usize, dead: usize) {
    let payload = rmp_serde::to_vec(&serde_json::json!({ "source": "jobs", "guid": "1", "title": "x".repeat(200) }));
    let payload = payload.unwrap();
    let envelope = || Envelope { payload: &payload, ..Envelope::default() };
    for chunk in (0..waiting).collect::<Vec<_>>().chunks(256) {
        let job = |n: &usize| NewJob::new(JobId::new(format!("jobs#{n}")).unwrap(), envelope());
        queue.add(&chunk.iter().map(job).collect::<Vec<_>>(), 10_000).await.unwrap();
    }
    for chunk in (0..dead).collect::<Vec<_>>().chunks(256) {
        let reasons: Vec<String> =
            chunk.iter().map(|n| format!("document {} bytes too large for https://jobs.example/{n}", n % 7)).collect();
        let job = |(n, reason)| NewDeadJob {
            id: JobId::new(format!("dead#{n}")).unwrap(),
            envelope: envelope(),
            version: None,
            priority: 0,
            group: None,
            attempts_made: 3,
            reason,
            at: SystemTime::now(),
        };
        let jobs: Vec<NewDeadJob<'_>> =
            chunk.iter().zip(&reasons).map(|(n, reason)| job((n, reason.as_str()))).collect();
        queue.enqueue_dead(&jobs).await.unwrap();
    }
}

async fn commands(redis: &OwnRedis) -> u64 {
    let mut connection = redis_connection(&format!("127.0.0.1:{}", redis.port())).await;
    let info: String = redis::cmd("INFO").arg("stats").query_async(&mut connection).await.unwrap();
    let line = info.lines().find_map(|line| line.strip_prefix("total_commands_processed:")).unwrap();
    line.trim().parse().unwrap()
}

/// A search that finds nothing. It looks for a tenth of a second, once a second for all viewers, so it works as many commands
/// as Redis can in that time: its cost is bounded, and differs from one moment to the next.
const SEARCH: &str = "/queue/job_import_queue?by=error&text=nowhere&everywhere=yes";
/// The other pages.
const PAGES: [&str; 8] = [
    "",
    "/queue/job_import_queue?state=waiting",
    "/queue/job_import_queue?state=failed",
    "/queue/job_import_queue/dead",
    "/queue/job_import_queue/job?id=dead%231",
    "/workers",
    "/schedulers",
    "/health",
];

/// So many viewers look at one of these pages after the other for a while: how long each took, and commands of Redis per second.
async fn look(
    served: &Arc<Served>,
    redis: &OwnRedis,
    pages: &'static [&'static str],
    viewers: usize,
    span: Duration,
) -> (Vec<(Duration, &'static str)>, f64) {
    let (took, before, began) = (Arc::new(Mutex::new(Vec::new())), commands(redis).await, Instant::now());
    let viewing: Vec<_> = (0..viewers)
        .map(|n| {
            let (served, took) = (served.clone(), took.clone());
            tokio::spawn(async move {
                let mut at = n;
                while began.elapsed() < span {
                    let page = pages[at % pages.len()];
                    let asked = Instant::now();
                    let answer = served.get(&format!("/admin/queues{page}")).await;
                    took.lock().unwrap().push((asked.elapsed(), page));
                    assert_eq!(answer.status, 200, "{page}");
                    at += 1;
                    // A quick reader.
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            })
        })
        .collect();
    if viewers == 0 {
        tokio::time::sleep(span).await;
    }
    for viewer in viewing {
        viewer.await.unwrap();
    }
    let per_second = (commands(redis).await - before) as f64 / began.elapsed().as_secs_f64();
    let mut took = Arc::into_inner(took).unwrap().into_inner().unwrap();
    took.sort_unstable();
    (took, per_second)
}

#[expect(clippy::print_stdout, reason = "the figures are what it is for")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_viewers_of_many_jobs_wait_little_and_cost_redis_no_more_than_few() {
    let redis = OwnRedis::start(&[]);
    let mill = Mill::on_redis(&redis);
    let queue = mill.queues().await.import;
    let (waiting, dead) = (from_env("FEEDMILL_LOAD_WAITING", 3000), from_env("FEEDMILL_LOAD_DEAD", 600));
    fill(&queue, waiting, dead).await;
    let served = Arc::new(Served::serve(&mill).await);
    let span = Duration::from_secs(from_env("FEEDMILL_LOAD_SECONDS", 3) as u64);
    let (_, idle) = look(&served, &redis, &PAGES, 0, Duration::from_secs(1)).await;
    let (_, of_few) = look(&served, &redis, &PAGES, VIEWERS / 2, span).await;
    let (mut took, of_many) = look(&served, &redis, &PAGES, VIEWERS, span).await;
    let (searched, with_search) = look(&served, &redis, &[SEARCH, ""], VIEWERS, span).await;
    took.extend(searched);
    took.sort_unstable();
    let at = |share: f64| took[((took.len() - 1) as f64 * share) as usize].0;
    let of_page = |page: &str| {
        let of_page: Vec<Duration> = took.iter().filter(|(_, of)| *of == page).map(|(took, _)| *took).collect();
        of_page[((of_page.len() - 1) as f64 * 0.99) as usize]
    };
    for page in took.iter().map(|(_, page)| *page).collect::<BTreeSet<_>>() {
        println!("p99 {:?} of /admin/queues{page}", of_page(page));
        assert!(of_page(page) < Duration::from_millis(200), "{page}");
    }
    println!(
        "{waiting} waiting, {dead} dead, {VIEWERS} viewers: {} pages, p50 {:?}, p99 {:?}, max {:?}; commands of Redis a \
         second: {of_many:.0}, with half as many viewers {of_few:.0}, with none {idle:.0}, while all search \
         {with_search:.0}",
        took.len(),
        at(0.5),
        at(0.99),
        at(1.0)
    );
    assert!(of_many < 1.25 * of_few, "{of_many} commands a second, and {of_few} of half as many viewers");
    assert!(at(0.99) < Duration::from_millis(200), "p99 {:?}", at(0.99));
}
