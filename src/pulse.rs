//! Whether the loops of this process turn.
//!
//! A loop says at each turn that it goes round, whether the turn succeeds or not: a loop that waits for Redis to come
//! back turns. One that hangs does not, and one that panicked and was not started anew; then only a new process helps.
//! `GET /healthz` asks here.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The loops of a process that are followed. Cheap to clone; clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Pulse {
    loops: Arc<Mutex<Vec<(String, Beat)>>>,
}

/// What a loop holds to say that it turned. The default one is followed by nobody.
#[derive(Clone, Debug)]
pub struct Beat {
    turned_at: Arc<Mutex<Instant>>,
}

impl Default for Beat {
    fn default() -> Self {
        Self { turned_at: Arc::new(Mutex::new(Instant::now())) }
    }
}

impl Beat {
    /// The loop went round.
    pub fn turned(&self) {
        *lock(&self.turned_at) = Instant::now();
    }
}

impl Pulse {
    /// Follows a loop from now on. A loop whose beat is dropped counts as one that stopped: that is how one ends that
    /// panicked.
    pub fn follow(&self, name: impl Into<String>) -> Beat {
        let beat = Beat::default();
        lock(&self.loops).push((name.into(), beat.clone()));
        beat
    }

    /// Names of the loops that have not turned for longer than `limit`.
    pub fn stopped(&self, limit: Duration) -> Vec<String> {
        let now = Instant::now();
        let is_stopped = |beat: &Beat| now.saturating_duration_since(*lock(&beat.turned_at)) > limit;
        lock(&self.loops).iter().filter(|(_, beat)| is_stopped(beat)).map(|(name, _)| name.clone()).collect()
    }
}

// Held for an assignment or a look, never across an await; a panic in between cannot leave it half done.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loop_that_has_not_turned_for_too_long_is_named_until_it_turns() {
        let pulse = Pulse::default();
        let (first, second) = (pulse.follow("first"), pulse.follow("second"));
        let limit = Duration::from_mins(1);
        assert_eq!(pulse.stopped(limit), <[String; 0]>::default());
        *lock(&first.turned_at) -= limit * 2;
        assert_eq!(pulse.stopped(limit), ["first"]);
        first.turned();
        drop(second);
        assert_eq!(pulse.stopped(limit), <[String; 0]>::default());
    }

    #[test]
    fn a_loop_that_panicked_is_named_once_its_last_turn_is_too_old() {
        let pulse = Pulse::default();
        let limit = Duration::from_mins(1);
        let beat = pulse.follow("gone");
        *lock(&beat.turned_at) -= limit * 2;
        drop(beat);
        assert_eq!(pulse.stopped(limit), ["gone"]);
    }
}
