//! A worker whose handler gets payloads of a type.

use std::future::Future;
use std::marker::PhantomData;
use std::time::Duration;

use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::value::RawValue;
use tokio_util::sync::CancellationToken;

use super::{IntoOutcome, Job, Queue};
use crate::job::{JobId, Keep, Outcome, RetryPolicy};
use crate::queue::limits::Rate;
use crate::queue::read::Delivery;
use crate::worker::{self, Adoption, Ended, Handler, Outage, WorkerOptions};

/// Works on the jobs of a queue: one at a time each, or in batches.
///
/// Defaults: 10 jobs at once, 3 attempts with waits of 1 s and 2 s, a lease of 30 s that is renewed while the handler runs,
/// jobs that are done go at once, dead letters stay. Each `with`-like method changes one of them; [`Worker::options`] all.
#[derive(Debug)]
pub struct Worker<T, H> {
    queue: Queue<T>,
    handler: H,
    options: WorkerOptions,
}

/// Hands jobs one by one to a function.
#[derive(Debug)]
pub struct Each<T, F>(F, PhantomData<fn(T)>);

/// Hands batches of jobs to a function.
#[derive(Debug)]
pub struct Batches<T, F>(F, PhantomData<fn(T)>);

impl<T, F, R> Worker<T, Each<T, F>>
where
    T: DeserializeOwned + Send + 'static,
    F: Fn(Job<T>) -> R + Send + Sync + 'static,
    R: Future<Output: IntoOutcome> + Send,
{
    /// A worker that hands its jobs one by one to `handle`. A payload that is no `T` fails for good, with the reason.
    pub fn new(queue: &Queue<T>, handle: F) -> Self {
        Self { queue: queue.clone(), handler: Each(handle, PhantomData), options: WorkerOptions::default() }
    }
}

impl<T, F, R> Worker<T, Batches<T, F>>
where
    T: DeserializeOwned + Send + 'static,
    F: Fn(Vec<Job<T>>) -> R + Send + Sync + 'static,
    R: Future<Output = Result<Vec<Outcome>, Outage>> + Send,
{
    /// A worker that hands its jobs to `handle` in batches of up to `size`; a job waits at most `flush` for its batch to fill.
    /// The handler says one outcome per job, in their order. [`Worker::concurrency`] counts batches.
    pub fn batches(queue: &Queue<T>, size: usize, flush: Duration, handle: F) -> Self {
        let options = WorkerOptions { batch_size: size.max(1), flush, ..WorkerOptions::default() };
        Self { queue: queue.clone(), handler: Batches(handle, PhantomData), options }
    }
}

impl<T, H: Handler> Worker<T, H> {
    /// Jobs, or batches, at once.
    #[must_use]
    pub fn concurrency(mut self, concurrency: usize) -> Self {
        self.options.concurrency = concurrency.max(1);
        self
    }

    /// Handlings of a job before it is given up, at least 1.
    #[must_use]
    pub fn attempts(mut self, attempts: u8) -> Self {
        self.options.attempts = attempts.max(1);
        self
    }

    /// Wait between two attempts.
    #[must_use]
    pub fn backoff(mut self, backoff: RetryPolicy) -> Self {
        self.options.retry_policy = backoff;
        self
    }

    /// Longest time that one handling may take; over it the attempt has failed.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.options.job_timeout = Some(timeout);
        self
    }

    /// What becomes of jobs that are done.
    #[must_use]
    pub fn on_complete(mut self, keep: Keep) -> Self {
        self.options.on_complete = keep;
        self
    }

    /// Starts at most so many jobs per window of time, over all workers of the queue.
    #[must_use]
    pub fn rate(mut self, max: u64, duration: Duration) -> Self {
        self.options.limits.rate = Some(Rate { max, duration });
        self
    }

    /// All options, to be changed.
    pub fn options(&mut self) -> &mut WorkerOptions {
        &mut self.options
    }

    /// The worker itself, for what this type does not have: [`worker::Worker::handle`] changes it while it runs.
    pub fn into_untyped(self) -> worker::Worker<H> {
        worker::Worker::new(self.queue.untyped().clone(), self.handler, self.options)
    }

    /// Works until `shutdown`, then ends what it holds; see [`worker::Worker::run`].
    pub async fn run(self, shutdown: CancellationToken) -> Ended {
        self.into_untyped().run(shutdown).await
    }
}

impl<T, F, R> Handler for Each<T, F>
where
    T: DeserializeOwned + Send + 'static,
    F: Fn(Job<T>) -> R + Send + Sync + 'static,
    R: Future<Output: IntoOutcome> + Send,
{
    async fn handle(&self, jobs: &[Delivery]) -> Result<Vec<Outcome>, Outage> {
        let mut outcomes = Vec::with_capacity(jobs.len());
        for delivery in jobs {
            outcomes.push(match decode(delivery) {
                Ok(job) => {
                    let handled = (self.0)(job).await;
                    handled.into_outcome()?
                }
                Err(reason) => Outcome::Fail(reason),
            });
        }
        Ok(outcomes)
    }

    fn adopt(&self, json: &[u8]) -> Result<Adoption, String> {
        adopt(json)
    }
}

impl<T, F, R> Handler for Batches<T, F>
where
    T: DeserializeOwned + Send + 'static,
    F: Fn(Vec<Job<T>>) -> R + Send + Sync + 'static,
    R: Future<Output = Result<Vec<Outcome>, Outage>> + Send,
{
    async fn handle(&self, jobs: &[Delivery]) -> Result<Vec<Outcome>, Outage> {
        let (mut readable, mut outcomes) = (Vec::with_capacity(jobs.len()), Vec::with_capacity(jobs.len()));
        for delivery in jobs {
            match decode(delivery) {
                Ok(job) => {
                    readable.push(job);
                    outcomes.push(None);
                }
                Err(reason) => outcomes.push(Some(Outcome::Fail(reason))),
            }
        }
        let n_readable = readable.len();
        let said = if readable.is_empty() { Vec::new() } else { (self.0)(readable).await? };
        if said.len() != n_readable {
            return Ok(said); // the engine says what is wrong with it
        }
        let mut said = said.into_iter();
        Ok(outcomes.into_iter().map(|outcome| outcome.or_else(|| said.next()).expect("one for each")).collect())
    }

    fn adopt(&self, json: &[u8]) -> Result<Adoption, String> {
        adopt(json)
    }
}

fn decode<T: DeserializeOwned>(delivery: &Delivery) -> Result<Job<T>, String> {
    let job = &delivery.job;
    let data = serde_json::from_slice(job.payload()).map_err(|error| format!("payload: {error}"))?;
    Ok(Job {
        id: job.id.clone(),
        data,
        name: job.name.clone(),
        attempt: job.attempt(),
        enqueued_at: job.enqueued_at,
        priority: job.head.priority,
        cancelled: delivery.cancelled.clone(),
    })
}

/// What other programs add with a plain `XADD`: the id, and the payload as JSON.
#[derive(Deserialize)]
struct PlainJob<'a> {
    id: String,
    #[serde(borrow)]
    data: &'a RawValue,
    #[serde(default)]
    group: Option<String>,
}

fn adopt(json: &[u8]) -> Result<Adoption, String> {
    let read = serde_json::from_slice::<PlainJob<'_>>(json);
    let job = read.map_err(|error| match serde_json::from_slice::<IgnoredAny>(json) {
        Ok(_) => format!("json: {error}; accepted: {{\"id\": \"…\", \"data\": …}}"),
        Err(error) => format!("json: {error}"),
    })?;
    let id = JobId::new(&job.id).map_err(|error| error.to_string())?;
    let payload = job.data.get().as_bytes().to_vec();
    Ok(Adoption { id, payload, fingerprint: None, group: job.group, replaces: false })
}
