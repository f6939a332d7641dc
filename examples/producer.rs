//! Adds jobs: one now, one later, one before all others, and one that stands for several.
//!
//! ```console
//! $ REDIS_URL=redis://127.0.0.1:6379 cargo run --example producer
//! ```

#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::time::Duration;

use feedmill::{Deduplication, NewJob, Queue};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct Email {
    to: String,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let redis_url = std::env::var("REDIS_URL").unwrap_or("redis://127.0.0.1:6379".to_owned());
    let queue: Queue<Email> = Queue::connect(&redis_url, "emails").await?;
    let email = |to: &str| Email { to: format!("{to}@example.com") };

    let results = queue
        .add_bulk(&[
            NewJob::new("welcome:ann", email("ann")).attempts(5),
            NewJob::new("reminder:bob", email("bob")).delay(Duration::from_secs(2)),
            NewJob::new("reset-password:cy", email("cy")).priority(1),
            // The second of these is a duplicate of the first while that one lives.
            NewJob::new("welcome:ann", email("ann")),
            // Of several in a minute, one.
            NewJob::anonymous(email("dee")).deduplicate(Deduplication::throttle("digest:dee", Duration::from_mins(1))),
            NewJob::anonymous(email("dee")).deduplicate(Deduplication::throttle("digest:dee", Duration::from_mins(1))),
        ])
        .await?;
    for result in results {
        println!("{result:?}");
    }
    Ok(())
}
