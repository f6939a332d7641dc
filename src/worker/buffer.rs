//! Jobs that were read and wait for their batch. Pure: it is told the time.
//!
//! One buffer for all sources: a write carries whatever is there, and its result settles each job on its own.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use crate::queue::read::Delivery;

/// Jobs in the order in which they were read.
#[derive(Debug)]
pub(super) struct Buffer<J = Delivery> {
    jobs: VecDeque<(Instant, J)>,
    batch_size: usize,
    flush: Duration,
}

impl<J> Buffer<J> {
    pub(super) fn new(batch_size: usize, flush: Duration) -> Self {
        Self { jobs: VecDeque::new(), batch_size, flush }
    }

    pub(super) fn push(&mut self, job: J, now: Instant) {
        self.jobs.push_back((now, job));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.jobs.is_empty()
    }

    /// When the oldest job has waited long enough.
    pub(super) fn flush_at(&self) -> Option<Instant> {
        self.jobs.front().map(|(since, _)| *since + self.flush)
    }

    /// A batch, if one is due: it is full, its oldest job waited `flush`, or waiting would bring nothing (`no_more`: there
    /// is nothing to read, no room to read it into, or the worker ends).
    pub(super) fn take_due(&mut self, now: Instant, no_more: bool) -> Option<Vec<J>> {
        let waited = self.flush_at().is_some_and(|at| at <= now);
        let is_due = self.jobs.len() >= self.batch_size || (!self.jobs.is_empty() && (no_more || waited));
        is_due.then(|| {
            let size = self.jobs.len().min(self.batch_size);
            self.jobs.drain(..size).map(|(_, job)| job).collect()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_due_when_it_is_full_old_or_nothing_more_comes() {
        let start = Instant::now();
        let mut buffer = Buffer::new(3, Duration::from_secs(3));
        assert_eq!(buffer.take_due(start, true), None, "nothing there");
        buffer.push('a', start);
        buffer.push('b', start + Duration::from_secs(2));
        assert_eq!(buffer.take_due(start + Duration::from_secs(2), false), None, "more may come");
        assert_eq!(buffer.take_due(start + Duration::from_secs(3), false), Some(vec!['a', 'b']), "a waited 3 s");
        for job in ['c', 'd', 'e', 'f'] {
            buffer.push(job, start);
        }
        assert_eq!(buffer.take_due(start, false), Some(vec!['c', 'd', 'e']), "full");
        assert_eq!(buffer.take_due(start, false), None);
        assert_eq!(buffer.take_due(start, true), Some(vec!['f']), "nothing more to read");
        assert!(buffer.is_empty());
    }
}
