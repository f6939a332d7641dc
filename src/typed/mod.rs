//! The queue for Rust programs: jobs whose payload has a type, over the engine of [`crate::queue`] and [`crate::worker`].
//!
//! ```no_run
//! use feedmill::{NewJob, Outcome, Queue, Worker};
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Serialize, Deserialize)]
//! struct Email {
//!     to: String,
//! }
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let queue: Queue<Email> = Queue::connect("redis://127.0.0.1:6379", "emails").await?;
//! queue.add(NewJob::new("welcome:42", Email { to: "ann@example.com".to_owned() }).attempts(5)).await?;
//!
//! let worker = Worker::new(&queue, async |job| {
//!     println!("attempt {} for {}", job.attempt, job.data.to);
//!     Outcome::Done
//! });
//! worker.concurrency(20).run(feedmill::shutdown::on_signal()?).await;
//! # Ok(())
//! # }
//! ```
//!
//! **Delivery is at least once.** A job is handed out again when its worker dies, or loses its connection to Redis for
//! longer than the lease; a handler must bear to see a job twice. It is never handed to two workers that both may settle
//! it: the late one is told that the job is lost.
//!
//! **An id is a guard.** While a job lives, another one with its id is a duplicate. Ids are any 1 to 4096 bytes.
//!
//! A payload is stored as JSON, so any program can read it, and other programs can add jobs: see the wire format in
//! `docs/wire-format.md`. Everything that can be done to a queue as a whole (count, list, pause, limit …) is on
//! [`Queue::untyped`].

mod job;
mod outcome;
mod queue;
mod worker;

pub use job::{Job, NewJob};
pub use outcome::IntoOutcome;
pub use queue::{AddError, Queue};
pub use worker::Worker;
