//! A queue whose payloads have a type.

use std::marker::PhantomData;

use serde::Serialize;

use super::NewJob;
use crate::job::{Envelope, JobId, JobIdError, JobOptions};
use crate::queue::enqueue::{self, Enqueued};
use crate::queue::schedulers::{Template, Upsert};
use crate::queue::{self, QueueError, QueueOptions, Redis};
use crate::schedule::Definition;

/// Payload that is accepted unless [`Queue::payload_max_bytes`] says otherwise, as in `streams.toml`.
const PAYLOAD_MAX_BYTES: usize = 1024 * 1024;

/// A queue of jobs that carry a `T`. Cheap to clone; all clones share one connection.
#[derive(Debug)]
pub struct Queue<T> {
    untyped: queue::Queue,
    payload_max_bytes: usize,
    payload: PhantomData<fn(T) -> T>,
}

// Derived, it would ask for a `T` that can be cloned.
impl<T> Clone for Queue<T> {
    fn clone(&self) -> Self {
        Self { untyped: self.untyped.clone(), ..*self }
    }
}

/// Why jobs could not be added.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AddError {
    /// An id is empty or too long.
    #[error(transparent)]
    Id(#[from] JobIdError),
    /// A payload cannot be written as JSON.
    #[error("the payload of job {id} cannot be written as JSON")]
    Payload {
        /// The job.
        id: JobId,
        /// What is wrong with it.
        #[source]
        cause: serde_json::Error,
    },
    /// A payload, priority or deduplication id is beyond what is accepted, or Redis failed.
    #[error(transparent)]
    Queue(#[from] QueueError),
}

impl<T> Queue<T> {
    /// Connects to Redis and opens a queue, creating it where it is missing.
    ///
    /// `url` is `redis://[user:password@]host[:port][/db]`, `rediss://` for TLS, or `redis+unix:///path`.
    ///
    /// # Errors
    /// [`QueueError`] when Redis cannot be reached or is too old, or the name is none (letters, digits, `_`, `.`, `-`).
    pub async fn connect(url: &str, name: &str) -> Result<Self, QueueError> {
        Self::open(&Redis::connect(url, "feedmill").await?, name, QueueOptions::default()).await
    }

    /// Opens a queue over a connection that others use too.
    ///
    /// # Errors
    /// As [`Queue::connect`].
    pub async fn open(redis: &Redis, name: &str, options: QueueOptions) -> Result<Self, QueueError> {
        Ok(Self {
            untyped: queue::Queue::open(redis, name, options).await?,
            payload_max_bytes: PAYLOAD_MAX_BYTES,
            payload: PhantomData,
        })
    }

    /// Accepts payloads up to this size, as JSON. Default: 1 MiB.
    #[must_use]
    pub fn payload_max_bytes(mut self, bytes: usize) -> Self {
        self.payload_max_bytes = bytes;
        self
    }

    /// The queue as the engine sees it: counts, lists, pause, limits, and everything else that needs no payload.
    pub fn untyped(&self) -> &queue::Queue {
        &self.untyped
    }
}

impl<T: Serialize> Queue<T> {
    /// Adds a job. May be repeated when its answer was lost: then it is a duplicate.
    ///
    /// # Errors
    /// [`AddError`].
    pub async fn add(&self, job: NewJob<T>) -> Result<Enqueued, AddError> {
        Ok(self.add_bulk(&[job]).await?.remove(0))
    }

    /// Adds jobs, in calls of bounded size; says of each what became of it, in order.
    ///
    /// # Errors
    /// [`AddError`]: of a job that cannot be accepted, before any is added; of Redis, with earlier calls carried out.
    pub async fn add_bulk(&self, jobs: &[NewJob<T>]) -> Result<Vec<Enqueued>, AddError> {
        let mut encoded = Vec::with_capacity(jobs.len());
        for job in jobs {
            let id = JobId::new(&job.id)?;
            let payload = serde_json::to_vec(&job.data).map_err(|cause| AddError::Payload { id: id.clone(), cause })?;
            encoded.push((id, payload, job.options.encode()));
        }
        let new: Vec<enqueue::NewJob<'_>> = jobs
            .iter()
            .zip(&encoded)
            .map(|(job, (id, payload, options))| enqueue::NewJob {
                delay: job.delay,
                priority: job.priority,
                group: job.group.as_deref(),
                dedup: job.dedup.as_ref().map(super::job::Dedup::as_deduplication),
                ..enqueue::NewJob::new(
                    id.clone(),
                    Envelope {
                        payload,
                        name: job.name.as_deref(),
                        options: Some(options).filter(|options| !options.is_empty()).map(Vec::as_slice),
                        ..Envelope::default()
                    },
                )
            })
            .collect();
        Ok(self.untyped.add(&new, self.payload_max_bytes).await?)
    }

    /// Adds a job again and again, at the slots that `definition` says, by a scheduler of this id: made, or put in the place
    /// of the one that stands there. Returns what that changed, and the next slot, ms since 1970.
    ///
    /// Of `template` counts what its jobs carry, their name, priority, group and options. Their ids follow from the
    /// scheduler's, and they are neither delayed nor deduplicated. Every [`Worker`](super::Worker) of the queue fires its
    /// schedulers, each slot once. May be called whenever a program starts: the same definition changes nothing. See
    /// [`crate::queue::Queue::upsert_scheduler`]; the other operations on schedulers are beside it.
    ///
    /// # Errors
    /// [`AddError`]: nothing is changed, unless Redis failed.
    pub async fn upsert_scheduler(
        &self,
        id: &str,
        definition: &Definition,
        template: NewJob<T>,
    ) -> Result<(Upsert, i64), AddError> {
        let payload = serde_json::to_vec(&template.data)
            .map_err(|cause| JobId::new(id).map_or_else(AddError::Id, |id| AddError::Payload { id, cause }))?;
        let options = JobOptions { dedup: None, ..template.options.clone() }.encode();
        let stored = Template {
            envelope: Envelope {
                payload: &payload,
                name: template.name.as_deref(),
                options: Some(&options),
                ..Envelope::default()
            },
            priority: template.priority,
            group: template.group.as_deref(),
        };
        Ok(self.untyped.upsert_scheduler(id, definition, stored, self.payload_max_bytes).await?)
    }
}
