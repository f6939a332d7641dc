//! What does the work: handlers of batches, and handlers of single jobs as batches of one.

use std::future::Future;

use crate::job::{JobId, Outcome};
use crate::queue::read::Delivery;

/// Something that all jobs need is not there: the store, or Redis. It is not the fault of any job.
///
/// The worker keeps the jobs, stops reading, and hands the same batch in again until it works. No attempt is used.
#[derive(Debug, thiserror::Error)]
#[error("{what} is not available")]
pub struct Outage {
    /// What is missing, e.g. `MongoDB`.
    pub what: &'static str,
    /// Why.
    #[source]
    pub cause: Box<dyn std::error::Error + Send + Sync>,
}

/// A job made of a plain producer's JSON.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Adoption {
    /// Its id.
    pub id: JobId,
    /// Its payload, as the handler will read it.
    pub payload: Vec<u8>,
    /// Fingerprint of its content.
    pub fingerprint: Option<[u8; 7]>,
    /// What it is grouped by, on a queue that limits its groups.
    pub group: Option<String>,
    /// Whether it is newer content for a job of this id that lives, rather than a duplicate of it.
    pub replaces: bool,
}

/// Handles jobs in batches.
pub trait Handler: Send + Sync + 'static {
    /// Handles a batch; says one outcome per job, in order. May be given the same jobs again: it must be idempotent.
    ///
    /// A panic is a failed attempt of the job that causes it.
    ///
    /// Of a job that was cancelled, or that somebody else took over, [`Delivery::cancelled`] fires. The others of the batch go
    /// on. When it has fired for all of them the handler has five seconds to end; then it is aborted, at the next point
    /// where it awaits something.
    ///
    /// # Errors
    /// [`Outage`]: nothing is known about any job; the batch is handed in again later.
    fn handle(&self, jobs: &[Delivery]) -> impl Future<Output = Result<Vec<Outcome>, Outage>> + Send;

    /// Makes a job of the JSON that a plain producer added, or says why not.
    ///
    /// # Errors
    /// The reason with which the entry becomes a dead letter.
    fn adopt(&self, json: &[u8]) -> Result<Adoption, String> {
        let _ = json;
        Err("this queue takes no plain json entries".to_owned())
    }
}

/// Handles one job at a time.
///
/// A job may stop being the worker's while it is handled: somebody cancels it ([`crate::queue::Queue::cancel`]), removes it by
/// force, or takes it over because the worker showed no sign of life. Then [`Delivery::cancelled`] fires, within about a
/// second of a cancellation. What the handler says from then on changes nothing, so one that works long or does something
/// that it should not do for nobody waits for the token beside its work:
///
/// ```no_run
/// # use feedmill::{job::Outcome, queue::read::Delivery, worker::Outage};
/// # async fn work(_: &[u8]) {}
/// # async fn undo() {}
/// async fn handle(job: &Delivery) -> Result<Outcome, Outage> {
///     tokio::select! {
///         () = work(job.job.payload()) => {}
///         () = job.cancelled.cancelled() => undo().await,
///     }
///     Ok(Outcome::Done)
/// }
/// ```
///
/// It has five seconds to end; then it is aborted, at the next point where it awaits something. A handler that knows nothing of
/// tokens is simply aborted then.
pub trait JobHandler: Send + Sync + 'static {
    /// Handles a job. May be given the same job again: it must be idempotent.
    ///
    /// # Errors
    /// [`Outage`]: nothing is known about the job; it is handed in again later.
    fn handle(&self, job: &Delivery) -> impl Future<Output = Result<Outcome, Outage>> + Send;

    /// As [`Handler::adopt`].
    ///
    /// # Errors
    /// The reason with which the entry becomes a dead letter.
    fn adopt(&self, json: &[u8]) -> Result<Adoption, String> {
        let _ = json;
        Err("this queue takes no plain json entries".to_owned())
    }
}

/// Makes a [`Handler`] of a [`JobHandler`]; to be used with a batch size of 1.
#[derive(Debug)]
pub struct Single<H>(pub H);

impl<H: JobHandler> Handler for Single<H> {
    async fn handle(&self, jobs: &[Delivery]) -> Result<Vec<Outcome>, Outage> {
        let mut outcomes = Vec::with_capacity(jobs.len());
        for job in jobs {
            outcomes.push(self.0.handle(job).await?);
        }
        Ok(outcomes)
    }

    fn adopt(&self, json: &[u8]) -> Result<Adoption, String> {
        self.0.adopt(json)
    }
}
