//! What can be changed about a worker while it runs: how many of its slots are used, and whether it reads at all.

use std::sync::Arc;

use tokio::sync::watch;

/// Changes a worker while it runs, from [`super::Worker::handle`]. Cheap to clone; without effect once the worker has ended.
///
/// A pause is this worker's alone: others go on. For the whole queue there is [`crate::queue::Queue::pause`].
#[derive(Clone, Debug)]
pub struct WorkerHandle {
    pub(super) control: Arc<Control>,
}

impl WorkerHandle {
    /// Batches in flight, at most; jobs, for a handler of single jobs.
    pub fn concurrency(&self) -> usize {
        self.control.wanted().concurrency
    }

    /// Sets [`WorkerHandle::concurrency`]; 0 counts as 1. More starts at once. Fewer takes nothing back: what was read runs,
    /// and nothing is read until fewer than that are in hand.
    pub fn set_concurrency(&self, concurrency: usize) {
        self.control.change(|wanted| wanted.concurrency = concurrency.max(1));
    }

    /// Stops reading. What was read before runs, and so does what Redis delivers while the read is ended; see
    /// [`WorkerHandle::at_rest`].
    pub fn pause(&self) {
        self.control.change(|wanted| wanted.is_paused = true);
    }

    /// Reads again.
    pub fn resume(&self) {
        self.control.change(|wanted| wanted.is_paused = false);
    }

    /// Whether it was paused and not resumed.
    pub fn is_paused(&self) -> bool {
        self.control.wanted().is_paused
    }

    /// Waits until the worker is paused, or has ended, and has nothing in hand. Returns at once before it runs.
    ///
    /// # Cancel safety
    /// Safe: it only looks.
    #[expect(clippy::missing_panics_doc, reason = "the sender lives as long as the handle")]
    pub async fn at_rest(&self) {
        let mut is_at_rest = self.control.is_at_rest.subscribe();
        is_at_rest.wait_for(|at_rest| *at_rest).await.expect("the handle holds the sender");
    }
}

/// What a worker is to do, as others want it and as its dispatcher follows.
#[derive(Debug)]
pub(crate) struct Control {
    wanted: watch::Sender<Wanted>,
    is_at_rest: watch::Sender<bool>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) concurrency: usize,
    pub(super) is_paused: bool,
}

impl Control {
    pub(super) fn new(concurrency: usize) -> Self {
        let wanted = Wanted { concurrency: concurrency.max(1), is_paused: false };
        Self { wanted: watch::Sender::new(wanted), is_at_rest: watch::Sender::new(true) }
    }

    pub(super) fn wanted(&self) -> Wanted {
        *self.wanted.borrow()
    }

    pub(super) fn changes(&self) -> watch::Receiver<Wanted> {
        self.wanted.subscribe()
    }

    fn change(&self, change: impl FnOnce(&mut Wanted)) {
        self.wanted.send_if_modified(|wanted| {
            let before = *wanted;
            change(wanted);
            *wanted != before
        });
    }

    pub(super) fn set_at_rest(&self, is_at_rest: bool) {
        self.is_at_rest.send_if_modified(|before| std::mem::replace(before, is_at_rest) != is_at_rest);
    }
}
