//! The bare commands: what a queue on Redis Streams costs at least, as a yardstick.
//!
//! ```text
//!   add       one script per batch: SET NX of guard and payload in one string, XADD
//!   process   XREADGROUP, MGET, one script per batch: XACK, XDEL, UNLINK
//! ```
//!
//! It has jobs of the size of ours in keys of the names of ours, on connections like ours, and nothing else: no leases,
//! no retries, no counts, no look-up. It speaks Redis itself, beside `queue/`, because that is what is measured.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use redis::{Cmd, Value};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::queue::{Measured, id};
use crate::job::Envelope;
use crate::job::head::HEAD_BYTES;
use crate::queue::scripts::{JOBS_PER_CALL_MAX, pieces};
use crate::queue::{GROUP, Keys, Redis};

/// Adds jobs. KEYS: stream, keys of jobs. ARGV: per job id and value. Returns how many were there already.
const ADD: &str = "
local stream, there = KEYS[1], 0
for i = 2, #KEYS do
  if redis.call('SET', KEYS[i], ARGV[2 * i - 2], 'NX') then
    redis.call('XADD', stream, '*', 'id', ARGV[2 * i - 3])
  else
    there = there + 1
  end
end
return there";

/// Ends jobs. KEYS: stream, keys of jobs. ARGV: group, entry ids.
const END: &str = "
redis.call('XACK', KEYS[1], ARGV[1], unpack(ARGV, 2))
redis.call('XDEL', KEYS[1], unpack(ARGV, 2))
return redis.call('UNLINK', unpack(KEYS, 2))";

/// Ends in flight: enough for Redis never to wait for us.
const ENDS_IN_FLIGHT: usize = 4;
/// How long a read waits for a job.
const BLOCK: Duration = Duration::from_secs(5);
/// As between the timed jobs of the engine.
const IDLE_PAUSE: Duration = Duration::from_millis(2);

#[derive(Clone)]
pub(super) struct Bare(Arc<Inner>);

struct Inner {
    redis: Redis,
    keys: Keys,
    /// What stands in a job's key.
    value: Vec<u8>,
    add_sha: String,
    end_sha: String,
}

/// An entry that was read, and the key of its job.
struct Named {
    entry: Vec<u8>,
    key: Vec<u8>,
}

impl Bare {
    pub(super) async fn open(redis: &Redis, payload: Arc<[u8]>) -> anyhow::Result<Self> {
        let keys = Keys::new(redis.prefix(), "bare")?;
        let mut connection = redis.connection();
        let load = async |script: &str| {
            redis::cmd("SCRIPT").arg("LOAD").arg(script).query_async::<String>(&mut redis.connection()).await
        };
        let mut create = redis::cmd("XGROUP");
        create.arg("CREATE").arg(keys.stream()).arg(GROUP).arg("0").arg("MKSTREAM");
        create.query_async::<()>(&mut connection).await?;
        let mut value = vec![0; HEAD_BYTES];
        Envelope { payload: &payload, ..Envelope::default() }.encode_into(&mut value);
        let (add_sha, end_sha) = (load(ADD).await?, load(END).await?);
        Ok(Self(Arc::new(Inner { redis: redis.clone(), keys, value, add_sha, end_sha })))
    }

    fn read_command(&self, block: Option<Duration>) -> Cmd {
        let mut command = redis::cmd("XREADGROUP");
        command.arg("GROUP").arg(GROUP).arg("bench").arg("COUNT").arg(JOBS_PER_CALL_MAX);
        if let Some(block) = block {
            command.arg("BLOCK").arg(block.as_millis() as u64);
        }
        command.arg("STREAMS").arg(self.0.keys.stream()).arg(">");
        command
    }

    /// The jobs that a reply of XREADGROUP names.
    fn named(&self, reply: Value) -> anyhow::Result<Vec<Named>> {
        let decoded = || -> Option<Vec<Named>> {
            let mut named = Vec::with_capacity(JOBS_PER_CALL_MAX);
            for stream in array(reply)? {
                let [_, entries]: [Value; 2] = array(stream)?.try_into().ok()?;
                for entry in array(entries)? {
                    let [entry, fields]: [Value; 2] = array(entry)?.try_into().ok()?;
                    let [_, id]: [Value; 2] = array(fields)?.try_into().ok()?;
                    let (Value::BulkString(entry), Value::BulkString(id)) = (entry, id) else { return None };
                    named.push(Named { entry, key: [self.0.keys.job_prefix().as_bytes(), &id].concat() });
                }
            }
            Some(named)
        };
        decoded().context("XREADGROUP answered something unexpected")
    }

    /// Ends jobs that were read.
    async fn end(&self, jobs: &[Named]) -> anyhow::Result<()> {
        let mut command = redis::cmd("EVALSHA");
        command.arg(&self.0.end_sha).arg(jobs.len() + 1).arg(self.0.keys.stream());
        for job in jobs {
            command.arg(&job.key);
        }
        command.arg(GROUP);
        for job in jobs {
            command.arg(&job.entry);
        }
        let ended: usize = command.query_async(&mut self.0.redis.connection()).await?;
        ensure!(ended == jobs.len(), "{ended} of {} jobs were there to be ended", jobs.len());
        Ok(())
    }
}

impl Measured for Bare {
    async fn add(&self, jobs: Range<u64>) -> anyhow::Result<()> {
        let numbers: Vec<u64> = jobs.collect();
        for piece in pieces(&numbers, |_| self.0.value.len()) {
            let mut command = redis::cmd("EVALSHA");
            command.arg(&self.0.add_sha).arg(piece.len() + 1).arg(self.0.keys.stream());
            let ids: Vec<String> = piece.iter().map(|number| id(*number)).collect();
            for id in &ids {
                command.arg([self.0.keys.job_prefix(), id].concat());
            }
            for id in &ids {
                command.arg(id).arg(&self.0.value);
            }
            let there: usize = command.query_async(&mut self.0.redis.connection()).await?;
            ensure!(there == 0, "{there} jobs were there already");
        }
        Ok(())
    }

    /// With batches of one size, whatever the concurrency.
    async fn process(&self, jobs: u64, _: usize) -> anyhow::Result<(u64, Duration)> {
        let mut reading = self.0.redis.blocking_connection(BLOCK).await?;
        let (began, mut done) = (Instant::now(), 0);
        let mut ending = JoinSet::new();
        let mut named = self.named(self.read_command(None).query_async(&mut reading).await?)?;
        while !named.is_empty() {
            // The payloads of one batch and the ids of the next come with one round trip.
            let mut both = redis::pipe();
            both.cmd("MGET").arg(named.iter().map(|job| &job.key[..]).collect::<Vec<_>>());
            if done + (named.len() as u64) < jobs {
                both.add_command(self.read_command(None));
            }
            let mut replies: Vec<Value> = both.query_async(&mut reading).await?;
            let next = if replies.len() > 1 { replies.pop() } else { None };
            let payloads: Vec<Option<Vec<u8>>> = redis::from_redis_value(replies.pop().context("no answer to MGET")?)?;
            ensure!(payloads.iter().all(Option::is_some), "a payload is missing");
            done += named.len() as u64;
            if ending.len() == ENDS_IN_FLIGHT {
                ending.join_next().await.context("it is full")???;
            }
            let (bare, ended) = (self.clone(), std::mem::take(&mut named));
            ending.spawn(async move { bare.end(&ended).await });
            named = self.named(next.unwrap_or(Value::Nil))?;
        }
        while let Some(ended) = ending.join_next().await {
            ended??;
        }
        Ok((done, began.elapsed()))
    }

    async fn starts(&self, jobs: Range<u64>) -> anyhow::Result<Vec<Duration>> {
        let mut reading = self.0.redis.blocking_connection(BLOCK).await?;
        let (started, mut starts) = mpsc::channel(1);
        let bare = self.clone();
        let n_jobs = jobs.end - jobs.start;
        let worker = async move {
            for _ in 0..n_jobs {
                let named = bare.named(bare.read_command(Some(BLOCK)).query_async(&mut reading).await?)?;
                let mut payloads = redis::cmd("MGET");
                payloads.arg(named.iter().map(|job| &job.key[..]).collect::<Vec<_>>());
                payloads.query_async::<Value>(&mut reading).await?;
                started.send(Instant::now()).await?;
                bare.end(&named).await?;
            }
            anyhow::Ok(())
        };
        let timing = async {
            let mut took = Vec::new();
            for number in jobs {
                sleep(IDLE_PAUSE).await;
                let began = Instant::now();
                self.add(number..number + 1).await?;
                let start = starts.recv().await.context("the reader ended")?;
                took.push(start.duration_since(began));
            }
            anyhow::Ok(took)
        };
        let ((), took) = tokio::try_join!(worker, timing)?;
        Ok(took)
    }
}

fn array(value: Value) -> Option<Vec<Value>> {
    match value {
        Value::Array(elements) => Some(elements),
        Value::Nil => Some(Vec::new()),
        _ => None,
    }
}
