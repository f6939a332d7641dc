//! feedmill: from feeds to MongoDB through a queue on Redis Streams.
//!
//! ```text
//!  feed/ ──item──▶ queue/ ──delivery──▶ worker/ ──batch──▶ store/
//!  fetch, parse,   Redis: stream,       slots, buffer,     MongoDB: idempotent
//!  new or changed  backoff, dead        settle             upsert
//!     ▲                                                       ▲
//!     └────────────── import/: the two handlers ──────────────┘
//! ```
//!
//! The modules below are listed in the order in which an item meets them.

// from a subscribed URL to items
pub mod feed;
pub mod item;

// when something is done again and again
pub mod schedule;

// the unit of work, the queue it stands in, the engine that works on it, and both for other work than feeds
pub mod job;
pub mod queue;
pub mod worker;
pub mod typed;

// where items end up
pub mod store;

// what brings them together
pub mod import;
pub mod pipeline;

// taking over the queues of BullMQ
pub mod migrate;

// what others ask over HTTP, and what is told there as on the command line
pub mod http;
mod views;

// around the road
pub mod check;
pub mod cli;
pub mod config;
pub mod demo;
pub mod doctor;
pub mod embedded;
pub mod error;
pub mod metrics;
pub mod pulse;
pub mod secret;
pub mod shutdown;
pub mod telemetry;
pub mod tls;

pub use job::{Growth, JobId, JobOptions, Keep, Outcome, RetryPolicy};
pub use queue::enqueue::{Deduplication, Enqueued};
pub use queue::limits::{Limits, Rate};
pub use queue::{Events, QueueError, QueueOptions, Redis};
pub use typed::{AddError, IntoOutcome, Job, NewJob, Queue, Worker};
pub use worker::{Outage, WorkerOptions};
