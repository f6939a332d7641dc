//! feedmill's queue and worker, as any program uses them.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use tokio::sync::{Notify, mpsc};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::queue::{Measured, id};
use crate::job::{Envelope, JobId, Outcome};
use crate::queue::enqueue::{Enqueued, NewJob};
use crate::queue::read::Delivery;
use crate::queue::{Events, Queue, Redis};
use crate::worker::{JobHandler, Outage, Single, Worker, WorkerOptions};

/// Pause between two looks whether the last jobs are settled: each costs Redis a few microseconds.
const LOOK_INTERVAL: Duration = Duration::from_millis(1);
/// Pause between two jobs whose way is timed: the worker settles and blocks again meanwhile.
const IDLE_PAUSE: Duration = Duration::from_millis(2);
/// Longest time for jobs to be done, or to start, once nothing happens any more.
const STANDSTILL: Duration = Duration::from_secs(30);

#[derive(Clone)]
pub(super) struct Engine {
    queue: Queue,
    payload: Arc<[u8]>,
}

impl Engine {
    pub(super) async fn open(redis: &Redis, payload: Arc<[u8]>) -> anyhow::Result<Self> {
        Ok(Self { queue: Queue::open(redis, "feedmill", Events::default()).await?, payload })
    }

    fn worker<H: JobHandler>(&self, concurrency: usize, handler: H) -> Worker<Single<H>> {
        Worker::new(self.queue.clone(), Single(handler), options(concurrency))
    }

    async fn completed(&self) -> anyhow::Result<u64> {
        Ok(self.queue.counts().await?.totals.get("completed").copied().unwrap_or(0))
    }
}

impl Measured for Engine {
    async fn add(&self, jobs: Range<u64>) -> anyhow::Result<()> {
        let envelope = Envelope { payload: &self.payload, ..Envelope::default() };
        let jobs = jobs
            .map(|number| Ok(NewJob::new(JobId::new(id(number))?, envelope)))
            .collect::<anyhow::Result<Vec<_>>>()?;
        let added = self.queue.add(&jobs, self.payload.len()).await?;
        ensure!(added.iter().all(|added| *added == Enqueued::Enqueued), "a job was there already");
        Ok(())
    }

    async fn process(&self, jobs: u64, concurrency: usize) -> anyhow::Result<(u64, Duration)> {
        let done_before = self.completed().await?;
        let handled = Arc::new(Countdown { left: AtomicU64::new(jobs), over: Notify::new() });
        let (stop, began) = (CancellationToken::new(), Instant::now());
        let worker = self.worker(concurrency, NoOp(handled.clone())).run(stop.clone());
        let looking = async {
            // Until all were handled nobody asks Redis anything.
            handled.wait().await?;
            let deadline = Instant::now() + STANDSTILL;
            let done = loop {
                let done = self.completed().await? - done_before;
                if done >= jobs {
                    break Ok((done, began.elapsed()));
                }
                ensure!(Instant::now() < deadline, "jobs that were handled are not settled");
                sleep(LOOK_INTERVAL).await;
            };
            stop.cancel();
            done
        };
        let (_, done) = tokio::join!(worker, looking);
        done
    }

    async fn starts(&self, jobs: Range<u64>) -> anyhow::Result<Vec<Duration>> {
        let (started, mut starts) = mpsc::channel(1);
        let stop = CancellationToken::new();
        let worker = self.worker(1, Stamp(started)).run(stop.clone());
        let timing = async {
            let mut took = Vec::new();
            for number in jobs {
                sleep(IDLE_PAUSE).await;
                let began = Instant::now();
                self.add(number..number + 1).await?;
                let start = tokio::time::timeout(STANDSTILL, starts.recv()).await.context("no job starts")?;
                took.push(start.context("the worker ended")?.duration_since(began));
            }
            anyhow::Ok(took)
        };
        let timing = async {
            let took = timing.await;
            stop.cancel();
            took
        };
        let (_, took) = tokio::join!(worker, timing);
        took
    }
}

/// What `streams.toml` has for single jobs.
fn options(concurrency: usize) -> WorkerOptions {
    WorkerOptions { concurrency, ..WorkerOptions::default() }
}

/// Does nothing, and counts.
struct NoOp(Arc<Countdown>);

impl JobHandler for NoOp {
    async fn handle(&self, _: &Delivery) -> Result<Outcome, Outage> {
        self.0.one_less();
        Ok(Outcome::Done)
    }
}

/// Says when it was called.
struct Stamp(mpsc::Sender<Instant>);

impl JobHandler for Stamp {
    async fn handle(&self, _: &Delivery) -> Result<Outcome, Outage> {
        // Who waits for it may have given up.
        let _ = self.0.send(Instant::now()).await;
        Ok(Outcome::Done)
    }
}

/// Jobs that are still to be handled.
struct Countdown {
    left: AtomicU64,
    over: Notify,
}

impl Countdown {
    fn one_less(&self) {
        // Goes below 0, that is round, where more jobs wait than are measured.
        if self.left.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.over.notify_one();
        }
    }

    /// Waits until none is left, as long as there is progress.
    async fn wait(&self) -> anyhow::Result<()> {
        loop {
            let left = self.left.load(Ordering::Relaxed);
            if tokio::time::timeout(STANDSTILL, self.over.notified()).await.is_ok() {
                return Ok(());
            }
            ensure!(self.left.load(Ordering::Relaxed) != left, "no job was handled within {STANDSTILL:?}");
        }
    }
}
