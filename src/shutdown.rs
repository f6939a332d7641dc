//! Signals: the first SIGTERM or SIGINT asks the process to end, the second ends it at once.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Exit status of a process that was told twice: as a shell reports SIGINT.
const INTERRUPTED: i32 = 130;

/// A token that the first signal cancels.
///
/// # Errors
/// When the system does not let signals be handled.
pub fn on_signal() -> std::io::Result<CancellationToken> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let token = CancellationToken::new();
    let asked = token.clone();
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if asked.is_cancelled() {
                tracing::warn!("told twice: ending at once; jobs that are held are claimed later");
                std::process::exit(INTERRUPTED);
            }
            tracing::info!("ending: what is held is finished first; a second signal ends at once");
            asked.cancel();
        }
    });
    Ok(token)
}
