//! SIGHUP: the feeds of the configuration are read again, without a restart.

use tokio::signal::unix::{SignalKind, signal};

use super::Globals;
use crate::error::chain;
use crate::import::{ConfiguredFeeds, Feeds};
use crate::pipeline;

/// From now on SIGHUP puts the feeds of the configuration file in the place of `feeds`. Where the file cannot be used,
/// they stay as they are, and the log says why. Every other setting is for processes that are started later.
///
/// # Errors
/// When the system does not let signals be handled.
pub(super) fn on_hangup(globals: &Globals, feeds: &ConfiguredFeeds) -> std::io::Result<()> {
    let mut hangup = signal(SignalKind::hangup())?;
    let (globals, feeds) = (globals.clone(), feeds.clone());
    tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            match read(&globals) {
                Ok(read) => {
                    tracing::info!(
                        feeds = read.len(),
                        "the configuration was read again: {} feeds; other settings are taken at the next start",
                        read.len()
                    );
                    feeds.replace(read);
                }
                Err(error) => tracing::error!(
                    error = %chain(error.as_ref()),
                    "the configuration cannot be used; the feeds stay as they were"
                ),
            }
        }
    });
    Ok(())
}

fn read(globals: &Globals) -> anyhow::Result<Feeds> {
    Ok(pipeline::feeds(&globals.load(None)?)?)
}
