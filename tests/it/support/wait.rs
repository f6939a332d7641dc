//! Waiting for what another task or server does.

use std::time::{Duration, Instant};

/// How often the condition is looked at: often enough for tests that measure in tens of milliseconds.
const POLL: Duration = Duration::from_millis(5);

/// Waits until the condition holds.
///
/// # Panics
/// When it does not within `deadline`.
pub(crate) async fn eventually(deadline: Duration, mut condition: impl AsyncFnMut() -> bool) {
    let until = Instant::now() + deadline;
    while !condition().await {
        assert!(Instant::now() < until, "not so within {deadline:?}");
        tokio::time::sleep(POLL).await;
    }
}
