//! Waiting for something to become true: the only place where tests look again and again.

use std::time::{Duration, Instant};

/// Pause between two looks.
const LOOK_INTERVAL: Duration = Duration::from_millis(10);

/// Looks until `look` finds something, and returns it.
///
/// # Panics
/// After `deadline`, naming what was waited for: "not within 5s: the document".
pub(crate) async fn eventually<T>(what: &str, deadline: Duration, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(started.elapsed() < deadline, "not within {deadline:?}: {what}");
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}
