//! Adds a job again and again, and works on what is added until the scheduler is through.
//!
//! ```console
//! $ REDIS_URL=redis://127.0.0.1:6379 cargo run --example scheduler
//! ```

#![expect(clippy::print_stdout, reason = "an example shows what it does")]
#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::time::Duration;

use feedmill::schedule::{CatchUp, Definition, Repeat};
use feedmill::{Job, NewJob, Queue, Worker};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct Report {
    about: String,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let redis_url = std::env::var("REDIS_URL").unwrap_or("redis://127.0.0.1:6379".to_owned());
    let queue: Queue<Report> = Queue::connect(&redis_url, "reports").await?;

    // At nine on weekdays, by the clocks of Berlin. A program does this whenever it starts: the same again changes nothing.
    let weekdays = Definition::new(Repeat::cron("0 9 * * MON-FRI", Some("Europe/Berlin"))?);
    queue.upsert_scheduler("sales", &weekdays, NewJob::anonymous(Report { about: "sales".to_owned() })).await?;

    // Three times, half a second apart, and now. Slots at which no worker was there are made up for one by one.
    let soon = Definition {
        immediately: true,
        limit: Some(3),
        catch_up: CatchUp::All,
        ..Definition::new(Repeat::every(Duration::from_millis(500), Duration::ZERO)?)
    };
    let template = NewJob::anonymous(Report { about: "stock".to_owned() }).name("report").attempts(5);
    queue.upsert_scheduler("stock", &soon, template).await?;

    // Any worker of the queue fires its schedulers. Of many, one fires each slot.
    let shutdown = feedmill::shutdown::on_signal()?;
    let worker = Worker::new(&queue, async |job: Job<Report>| println!("{} ({})", job.data.about, job.id));
    let running = tokio::spawn(worker.run(shutdown.clone()));

    let is_through = async || {
        let gone = queue.untyped().scheduler("stock").await?.is_none();
        Ok::<_, feedmill::QueueError>(gone && queue.untyped().counts().await?.is_idle())
    };
    while !is_through().await? && !shutdown.is_cancelled() {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    shutdown.cancel();
    running.await?;
    queue.untyped().remove_scheduler("sales").await?;
    Ok(())
}
