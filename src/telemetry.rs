//! Logs: on stderr, so that stdout is data.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line, for machines.
    Json,
}

/// Starts logging at `level` (`info`, `warn` …) unless `RUST_LOG` says otherwise.
pub fn start(level: &str, format: LogFormat) {
    // The drivers' own logs are noise at levels that are ours to read.
    let default = format!("{level},mongodb=warn,redis=warn,hyper=warn,reqwest=warn");
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    // It says on stderr that stderr cannot be written to, and panics over it: a closed terminal or a full disk would
    // take down whatever logs next.
    let logs = logs.log_internal_errors(false);
    match format {
        LogFormat::Text => logs.with_ansi(std::io::stderr().is_terminal()).init(),
        LogFormat::Json => logs.json().init(),
    }
}
