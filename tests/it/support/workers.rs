//! Workers with handlers made of closures, and a way to stop them.

use std::{future::Future, time::Duration};

use feedmill::{
    job::{JobId, Keep, Outcome},
    queue::{Queue, claim::ClaimLimits, dead_letter::Retention, limits::Limits, read::Delivery},
    worker::{
        Adoption, Ended, Growth, Handler, JobHandler, Outage, RetryPolicy, Single, Worker, WorkerHandle, WorkerOptions,
    },
};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::jobs::forget_record;

/// Options for single jobs, with the defaults of the configuration where they do not make a test slow.
pub(crate) fn options() -> WorkerOptions {
    WorkerOptions {
        concurrency: 10,
        batch_size: 1,
        flush: Duration::from_millis(20),
        buffer_bytes: 1 << 20,
        attempts: 3,
        retry_policy: RetryPolicy {
            growth: Growth::Fixed,
            delay: Duration::from_millis(10),
            max: Duration::from_hours(1),
            jitter: 0.0,
        },
        job_timeout: None,
        claim: ClaimLimits {
            lock_duration: Duration::from_secs(30),
            stalled_interval: Duration::from_secs(30),
            max_stalled_count: 2,
        },
        shutdown_timeout: Duration::from_secs(5),
        on_complete: Keep::Nothing,
        limits: Limits::default(),
        retention: Retention::default(),
        forget: forget_record,
    }
}

/// Options for a worker that notices soon when another one is dead.
pub(crate) fn quick_claims(lock_duration: Duration) -> WorkerOptions {
    let claim = ClaimLimits { lock_duration, stalled_interval: Duration::from_millis(20), max_stalled_count: 2 };
    WorkerOptions { claim, ..options() }
}

/// What a handler may say.
pub(crate) type Said<T> = Result<T, Outage>;

pub(crate) fn outage() -> Outage {
    Outage { what: "the store", cause: "not there".into() }
}

/// Handles single jobs with a closure.
struct Each<F>(F);

impl<F, S> JobHandler for Each<F>
where
    F: Fn(Delivery) -> S + Send + Sync + 'static,
    S: Future<Output = Said<Outcome>> + Send + 'static,
{
    async fn handle(&self, job: &Delivery) -> Said<Outcome> {
        (self.0)(job.clone()).await
    }
}

/// Handles batches with a closure. A plain entry becomes the job its json names in quotes.
struct Batches<F>(F);

impl<F, S> Handler for Batches<F>
where
    F: Fn(Vec<Delivery>) -> S + Send + Sync + 'static,
    S: Future<Output = Said<Vec<Outcome>>> + Send + 'static,
{
    async fn handle(&self, jobs: &[Delivery]) -> Said<Vec<Outcome>> {
        (self.0)(jobs.to_vec()).await
    }

    fn adopt(&self, json: &[u8]) -> Result<Adoption, String> {
        let name: String = serde_json::from_slice(json).map_err(|error| error.to_string())?;
        let id = JobId::new(&name).map_err(|error| error.to_string())?;
        Ok(Adoption { id, payload: json.to_vec(), fingerprint: None, group: None, replaces: true })
    }
}

/// A worker at work.
pub(crate) struct Running {
    pub(crate) consumer: String,
    pub(crate) handle: WorkerHandle,
    shutdown: CancellationToken,
    task: JoinHandle<Ended>,
}

impl Running {
    fn start<H: Handler>(queue: &Queue, handler: H, options: WorkerOptions) -> Self {
        let worker = Worker::new(queue.clone(), handler, options);
        let (consumer, handle) = (worker.consumer().to_owned(), worker.handle());
        let shutdown = CancellationToken::new();
        Self { consumer, handle, task: tokio::spawn(worker.run(shutdown.clone())), shutdown }
    }

    /// Asks it to end, and waits until it has.
    pub(crate) async fn stop(self) -> Ended {
        self.shutdown.cancel();
        self.task.await.unwrap()
    }

    /// Ends it as a crash would: nothing is settled or given back.
    pub(crate) async fn crash(self) {
        self.task.abort();
        assert!(self.task.await.unwrap_err().is_cancelled());
    }
}

/// Starts a worker of single jobs.
pub(crate) fn each<F, S>(queue: &Queue, options: WorkerOptions, handle: F) -> Running
where
    F: Fn(Delivery) -> S + Send + Sync + 'static,
    S: Future<Output = Said<Outcome>> + Send + 'static,
{
    Running::start(queue, Single(Each(handle)), options)
}

/// Starts a worker of batches.
pub(crate) fn batches<F, S>(queue: &Queue, options: WorkerOptions, handle: F) -> Running
where
    F: Fn(Vec<Delivery>) -> S + Send + Sync + 'static,
    S: Future<Output = Said<Vec<Outcome>>> + Send + 'static,
{
    Running::start(queue, Batches(handle), options)
}
