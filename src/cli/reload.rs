//! SIGHUP: the feeds of the configuration are read again, without a restart; or, where it is the terminal that went
//! away, the process ends.
//!
//! ```text
//!   kill -HUP            ─▶ the terminal is there, or there never was one ─▶ read again
//!   closing the terminal ─▶ it was there at start, and is gone            ─▶ end, as on SIGTERM
//! ```
//!
//! The signal does not say who sent it, so the controlling terminal is looked at. A process that was to outlive its
//! terminal is left alone: `nohup` has SIGHUP ignored before it begins, `setsid` and service managers give it no
//! terminal.
//!
//! *Crash:* nothing is written here; the next start reads the file.

use std::fs;
use std::io;
use std::time::Duration;

use rustix::io::Errno;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::Globals;
use crate::error::chain;
use crate::import::{ConfiguredFeeds, Feeds};
use crate::pipeline;

/// Time between the signal and the look at the terminal. When a shell dies, the system sends the signal first and takes
/// the terminal away just after.
const TERMINAL_GOES_WITHIN: Duration = Duration::from_millis(100);

/// The controlling terminal of whoever opens it.
const TERMINAL: &str = "/dev/tty";

/// SIGHUP, kept from its usual effect (to end the process at once) from [`Hangup::listen`] on.
pub(super) struct Hangup {
    signal: Signal,
    /// Whether the process is to end with its terminal: it has one, and was not started to outlive it.
    ends_with_terminal: bool,
}

impl Hangup {
    /// To be called first of all; a signal that comes before [`Self::handle`] is handled there.
    ///
    /// # Errors
    /// When the system does not let signals be handled.
    pub(super) fn listen() -> io::Result<Self> {
        // Before our handler takes the place of what the process was started with.
        let ends_with_terminal = !is_ignored() && fs::File::open(TERMINAL).is_ok();
        Ok(Self { signal: signal(SignalKind::hangup())?, ends_with_terminal })
    }

    /// From now on SIGHUP puts the feeds of the configuration file in the place of `feeds`, or cancels `shutdown` when
    /// the terminal has gone. Where the file cannot be used, the feeds stay as they are, and the log says why. Every
    /// other setting is for processes that are started later.
    pub(super) fn handle(mut self, globals: &Globals, feeds: &ConfiguredFeeds, shutdown: &CancellationToken) {
        let (globals, feeds, shutdown) = (globals.clone(), feeds.clone(), shutdown.clone());
        tokio::spawn(async move {
            while self.signal.recv().await.is_some() {
                if self.ends_with_terminal {
                    tokio::time::sleep(TERMINAL_GOES_WITHIN).await;
                    if is_gone(fs::File::open(TERMINAL)) {
                        tracing::info!("the terminal was closed: ending; what is held is finished first");
                        shutdown.cancel();
                        return;
                    }
                }
                read_again(&globals, &feeds);
            }
        });
    }
}

fn read_again(globals: &Globals, feeds: &ConfiguredFeeds) {
    match read(globals) {
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

fn read(globals: &Globals) -> anyhow::Result<Feeds> {
    Ok(pipeline::feeds(&globals.load(None)?)?)
}

/// Whether this process was started with SIGHUP ignored, as `nohup` does it. False where the system does not tell.
fn is_ignored() -> bool {
    let Ok(status) = fs::read_to_string("/proc/self/status") else { return false };
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    // A bit for each signal: the lowest is that of signal 1, SIGHUP.
    ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & 1 == 1)
}

/// Whether opening it failed as it does without a terminal. Any other failure says nothing about it.
fn is_gone(opened: io::Result<fs::File>) -> bool {
    opened.is_err_and(|error| matches!(Errno::from_io_error(&error), Some(Errno::NXIO | Errno::IO)))
}
