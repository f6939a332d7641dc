//! Logs, on stderr, so that stdout is data; and traces, for those who ask for them.
//!
//! ```text
//!   POST /imports/start, if its caller sends a traceparent
//!        └── fetch job ──┬── GET
//!                        └── enqueue ──traceparent in the envelope──▶ job of an item ── MongoDB write
//! ```
//!
//! *Traces* are the spans of [`spans`], sent as OTLP over HTTP by a program that was built with the feature `otlp` and is
//! told where to by `OTEL_EXPORTER_OTLP_ENDPOINT`. Else no span is made, and no job carries a context: it costs nothing.
//! Ids are fields of the same names in spans and in log lines: `queue`, `job.id`, `feed`, `import`, `trace_id`.
//!
//! *Crash:* spans that were not sent yet are lost.

#[cfg(feature = "otlp")]
mod otlp;
pub(crate) mod spans;

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

/// Starts logging at `level` (`info`, `warn` …) unless `RUST_LOG` says otherwise, and traces where the environment asks
/// for them. To be called within the runtime that sends them.
pub fn start(level: &str, format: LogFormat) {
    // The drivers' own logs are noise at levels that are ours to read; that spans are not sent, `otlp` says itself.
    let default = format!("{level},mongodb=warn,redis=warn,hyper=warn,reqwest=warn,opentelemetry=off");
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
    #[cfg(feature = "otlp")]
    if otlp::is_asked_for() {
        return otlp::start(filter, format);
    }
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    // It says on stderr that stderr cannot be written to, and panics over it: a closed terminal or a full disk would
    // take down whatever logs next.
    let logs = logs.log_internal_errors(false);
    match format {
        LogFormat::Text => logs.with_ansi(std::io::stderr().is_terminal()).init(),
        LogFormat::Json => logs.json().init(),
    }
    #[cfg(not(feature = "otlp"))]
    if is_asked_for() {
        tracing::warn!("{ENDPOINT} is set, and this feedmill was built without the feature otlp: no traces are sent");
    }
}

/// Sends what is left of the traces, waiting for it for a few seconds. Of no effect where none are sent.
pub fn end() {
    #[cfg(feature = "otlp")]
    otlp::end();
}

/// Where OpenTelemetry says that spans go; each program of a site reads the same variable.
const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
/// The same for spans alone, with the path.
const TRACES_ENDPOINT: &str = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";

fn is_asked_for() -> bool {
    [ENDPOINT, TRACES_ENDPOINT].iter().any(|name| std::env::var_os(name).is_some_and(|value| !value.is_empty()))
}
