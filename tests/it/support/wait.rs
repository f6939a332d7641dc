//! Waiting for a condition, where there is nothing to hand over.

use std::time::Duration;

use super::eventually;

/// Waits until the condition holds.
///
/// # Panics
/// When it does not within `deadline`.
pub(crate) async fn until(deadline: Duration, mut condition: impl AsyncFnMut() -> bool) {
    eventually::eventually("what the test waits for", deadline, async || condition().await.then_some(())).await;
}
