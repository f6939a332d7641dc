//! Works on the jobs that the producer adds, until Ctrl-C or until nothing is left to do.
//!
//! ```console
//! $ REDIS_URL=redis://127.0.0.1:6379 cargo run --example worker
//! ```

#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::time::Duration;

use feedmill::{Job, Outcome, Queue, Worker};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct Email {
    to: String,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let redis_url = std::env::var("REDIS_URL").unwrap_or("redis://127.0.0.1:6379".to_owned());
    let queue: Queue<Email> = Queue::connect(&redis_url, "emails").await?;

    // The first signal ends the worker once what it holds is done, a second one ends the process.
    let shutdown = feedmill::shutdown::on_signal()?;
    let worker = Worker::new(&queue, send).concurrency(4).attempts(3);
    let running = tokio::spawn(worker.run(shutdown.clone()));

    while !queue.untyped().counts().await?.is_idle() && !shutdown.is_cancelled() {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    shutdown.cancel();
    running.await?;
    Ok(())
}

/// An error would be a failed attempt: the job would wait a second, then two, and then be a dead letter.
async fn send(job: Job<Email>) -> Result<Outcome, std::io::Error> {
    if !job.data.to.contains('@') {
        return Ok(Outcome::Fail(format!("{:?} is no address", job.data.to))); // trying again would not help
    }
    println!("sent to {} (job {}, attempt {})", job.data.to, job.id, job.attempt);
    Ok(Outcome::Done)
}
