//! feedmill: from feeds to MongoDB through a queue on Redis Streams.
//!
//! ```text
//!  feed/ ──item──▶ queue/ ──delivery──▶ worker/ ──batch──▶ store/
//!  fetch, parse,   Redis: stream,       slots, buffer,     MongoDB: idempotent
//!  new or changed  backoff, dead        settle             upsert
//! ```
//!
//! The modules below are listed in the order in which an item meets them.

pub mod cli;
pub mod config;
pub mod demo;
pub mod feed;
pub mod item;
pub mod job;
pub mod queue;
pub mod store;
pub mod tls;
pub mod worker;
