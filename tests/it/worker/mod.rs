//! The worker engine with small handlers: attempts and waits, panics and outages, batches, and the end.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use feedmill::{
    job::Outcome,
    queue::{Queue, dead_letter::DeadLetter},
    worker::WorkerOptions,
};
use tokio::sync::Semaphore;

use crate::support::{
    wait::until,
    workers::{Running, batches, each, options},
};

mod attempts;
mod leases;
mod reading;
mod ending;
mod background;
mod control;

/// Longer than anything a test waits for takes on a loaded machine.
const DEADLINE: Duration = Duration::from_secs(20);

/// What a handler saw, in order.
struct Seen<T>(Arc<Mutex<Vec<T>>>);

impl<T> Clone for Seen<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T: Clone> Seen<T> {
    fn nothing() -> Self {
        Self(Arc::default())
    }

    /// Returns how many came before.
    fn push(&self, what: T) -> usize {
        let mut seen = self.0.lock().unwrap();
        seen.push(what);
        seen.len() - 1
    }

    fn all(&self) -> Vec<T> {
        self.0.lock().unwrap().clone()
    }

    fn len(&self) -> usize {
        self.0.lock().unwrap().len()
    }
}

/// A worker with when each job was started.
fn noting_starts(queue: &Queue) -> (Running, Seen<Instant>) {
    let seen = Seen::nothing();
    let worker = each(queue, options(), {
        let seen = seen.clone();
        move |_| {
            seen.push(Instant::now());
            async { Ok(Outcome::Done) }
        }
    });
    (worker, seen)
}

async fn idle(queue: &Queue) {
    until(DEADLINE, async || queue.counts().await.unwrap().is_idle()).await;
}

async fn letters(queue: &Queue) -> Vec<DeadLetter> {
    queue.dead_letters(None, 100).await.unwrap()
}

/// A worker whose handlers wait for permits, with the sizes of the batches it was given.
fn held_batches(queue: &Queue, options: WorkerOptions) -> (Running, Seen<usize>, Arc<Semaphore>) {
    let (seen, go_on) = (Seen::nothing(), Arc::new(Semaphore::new(0)));
    let worker = batches(queue, options, {
        let (seen, go_on) = (seen.clone(), go_on.clone());
        move |jobs| {
            seen.push(jobs.len());
            let go_on = go_on.clone();
            async move {
                go_on.acquire().await.unwrap().forget();
                Ok(vec![Outcome::Done; jobs.len()])
            }
        }
    });
    (worker, seen, go_on)
}
