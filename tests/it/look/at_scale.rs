//! With a million jobs no look takes the server long.

use std::time::Duration;

use feedmill::queue::{
    Order,
    find::State,
    list::{ListState, Standing},
    search::Filter,
};
use redis::AsyncCommands;

use super::ids;
use crate::support::{
    jobs::{connection, id, queue_at, read},
    servers::OwnRedis,
};

const MILLION: u64 = 1_000_000;
/// What one look may take at the server.
const LOOK_MAX: Duration = Duration::from_millis(5);

/// Makes jobs as `add` does, inside of Redis, so that a million of them take seconds.
const FILL: &str = r"
local stream, prefix, from, n, group = KEYS[1], ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local tail = string.rep('\0', 18) .. (group == '' and '\0' or string.char(4 + #group) .. '\0\0\0\0' .. group)
  .. '\145\196\2{}'
for i = from, from + n - 1 do
  local id = 'job-' .. string.format('%d', i)
  local front
  if stream == 'parked' then
    redis.call('ZADD', prefix .. 'parked:' .. group, i, id)
    front = 'g' .. string.rep('\0', 10)
  else
    local ms, seq = string.match(redis.call('XADD', stream, '*', 'id', id), '(%d+)-(%d+)')
    front = 's' .. struct.pack('>I6I4', ms, seq)
  end
  redis.call('SET', prefix .. 'job:' .. id, front .. tail)
end
";

#[tokio::test]
async fn with_a_million_jobs_waiting_every_look_takes_the_server_under_five_milliseconds() {
    let server = OwnRedis::start(&[]);
    let queue = queue_at(&server.url()).await;
    let mut redis = connection(&queue).await;
    let step = 4_000;
    for from in (0..MILLION).step_by(step) {
        let mut fill = redis::cmd("EVAL");
        fill.arg(FILL).arg(1).arg(queue.keys().stream()).arg(queue.keys().queue_prefix()).arg(from).arg(step).arg("");
        let () = fill.query_async(&mut redis).await.unwrap();
    }
    assert_eq!(queue.counts().await.unwrap().waiting, MILLION);
    let held = read(&mut queue.reader("worker"), 256).await;
    queue.set_progress(&held[0].lease, "1").await.unwrap();

    let mut far = None;
    for _ in 0..5 {
        far = queue.list(ListState::Waiting, Order::Descending, far.as_ref(), 128).await.unwrap().next;
    }
    let last = format!("job-{}", MILLION - 1);
    let found = queue.search(&Filter { id_prefix: last.into_bytes(), ..Filter::default() }, None, 10).await.unwrap();
    assert_eq!((found.jobs.len(), found.looked), (0, 128), "one step of many");
    timed(&server, "counts", async || drop(queue.counts().await.unwrap())).await;
    timed(&server, "job by id", async || {
        let found = queue.find(&id("job-777777")).await.unwrap().unwrap();
        assert_eq!(found.state, State::Waiting);
    })
    .await;
    timed(&server, "list page", async || {
        let page = queue.list(ListState::Waiting, Order::Ascending, None, 128).await.unwrap();
        assert_eq!((page.jobs.len(), ids(&page.jobs[..1]).remove(0)), (128, "job-256".to_owned()));
    })
    .await;
    timed(&server, "list page downwards, in the middle", async || {
        let page = queue.list(ListState::Waiting, Order::Descending, far.as_ref(), 128).await.unwrap();
        assert_eq!(ids(&page.jobs[..1]).remove(0), format!("job-{}", MILLION - 1 - 5 * 128));
    })
    .await;
    timed(&server, "active page", async || {
        assert_eq!(queue.list(ListState::Active, Order::Descending, None, 128).await.unwrap().jobs.len(), 128);
    })
    .await;
    timed(&server, "search page", async || {
        let filter = Filter { state: Some(ListState::Waiting), id_prefix: b"job-25".to_vec(), ..Filter::default() };
        let found = queue.search(&filter, None, 128).await.unwrap();
        assert_eq!((found.jobs.len(), found.looked), (4, 128), "256 to 259");
    })
    .await;
    timed(&server, "consumers", async || assert_eq!(queue.consumers().await.unwrap()[0].pending, 256)).await;
}

#[tokio::test]
async fn with_many_parked_jobs_a_page_takes_the_server_under_five_milliseconds() {
    let server = OwnRedis::start(&[]);
    let queue = queue_at(&server.url()).await;
    let mut redis = connection(&queue).await;
    let (groups, each) = (200_u64, 1000_u64);
    for group in 0..groups {
        let name = format!("group-{group:03}");
        let mut fill = redis::cmd("EVAL");
        fill.arg(FILL).arg(1).arg("parked").arg(queue.keys().queue_prefix()).arg(group * each).arg(each).arg(&name);
        let () = fill.query_async(&mut redis).await.unwrap();
        let () = redis.zadd(queue.keys().parked_groups(), &name, 0).await.unwrap();
    }
    let mut cursor = None;
    for _ in 0..100 {
        cursor = queue.list(ListState::Waiting, Order::Ascending, cursor.as_ref(), 128).await.unwrap().next;
    }
    timed(&server, "parked page", async || {
        let page = queue.list(ListState::Waiting, Order::Ascending, cursor.as_ref(), 128).await.unwrap();
        assert_eq!(ids(&page.jobs[..1]), ["job-12800"]);
        assert!(page.jobs.iter().all(|job| job.standing == Standing::Parked && job.job.is_some()));
    })
    .await;
}

/// Looks several times, and checks what the server took for the quickest look: the clock of Redis runs on while others have
/// the processor.
async fn timed(server: &OwnRedis, what: &str, look: impl AsyncFn()) {
    const LOOKS: u32 = 10;
    let client = redis::Client::open(server.url()).unwrap();
    let mut redis = client.get_multiplexed_async_connection().await.unwrap();
    let mut quickest = Duration::MAX;
    for _ in 0..LOOKS {
        let () = redis::cmd("CONFIG").arg("RESETSTAT").query_async(&mut redis).await.unwrap();
        look().await;
        let stats: String = redis::cmd("INFO").arg("commandstats").query_async(&mut redis).await.unwrap();
        let used = stats.lines().filter(|line| line.starts_with("cmdstat_") && !line.starts_with("cmdstat_config"));
        // what a script calls is in its own time
        let of_scripts = stats.lines().any(|line| line.starts_with("cmdstat_evalsha"));
        let micros = used.filter(|line| !of_scripts || line.starts_with("cmdstat_evalsha")).map(|line| {
            let micros = line.split("usec=").nth(1).and_then(|rest| rest.split(',').next()).unwrap();
            micros.parse::<u64>().unwrap()
        });
        quickest = quickest.min(Duration::from_micros(micros.sum()));
    }
    assert!(quickest > Duration::ZERO && quickest < LOOK_MAX, "{what} took the server {quickest:?}");
}
