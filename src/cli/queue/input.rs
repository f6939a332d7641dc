//! What people type at the commands of a queue: ids, payloads, durations, and the name of a queue that is to go.

use std::io::{self, BufRead as _, IsTerminal as _, Read as _, Write as _};
use std::time::Duration;

use anyhow::Context as _;

use crate::cli::UsageError;
use crate::config::Config;
use crate::job::JobId;
use crate::queue::Queue;

/// An id of a job.
pub(in crate::cli) fn job_id(text: &str) -> Result<JobId, UsageError> {
    JobId::new(text).map_err(|error| UsageError(error.to_string()))
}

/// Ids of jobs.
pub(super) fn job_ids(texts: &[String]) -> Result<Vec<JobId>, UsageError> {
    texts.iter().map(|text| job_id(text)).collect()
}

/// A duration with its unit.
pub(in crate::cli) fn duration(flag: &str, text: &str) -> Result<Duration, UsageError> {
    humantime::parse_duration(text)
        .map_err(|_| UsageError(format!("{flag} {text:?} is no duration; write it like \"15m\" or \"1h 30m\"")))
}

/// The bytes of a payload: as they stand there, of a file (`@FILE`), or of stdin (`-`).
pub(in crate::cli) fn read_payload(text: &str) -> anyhow::Result<Vec<u8>> {
    if let Some(file) = text.strip_prefix('@') {
        return std::fs::read(file).with_context(|| format!("cannot read {file}"));
    }
    if text != "-" {
        return Ok(text.as_bytes().to_vec());
    }
    let mut bytes = Vec::new();
    io::stdin().read_to_end(&mut bytes).context("cannot read stdin")?;
    Ok(bytes)
}

/// Largest payload that a queue takes, in bytes: of one that is not configured here, as the import queue has it.
pub(super) fn payload_max_bytes(config: &Config, queue: &Queue) -> usize {
    let configured = [&config.fetch_queue, &config.import_queue].into_iter().find(|known| known.name == queue.name());
    configured.unwrap_or(&config.import_queue).payload_max_bytes
}

/// Makes sure that somebody means it: by the flag, or by typing the name of the queue. `what` says what will happen.
pub(super) fn confirm(queue: &Queue, yes: bool, what: &str) -> anyhow::Result<()> {
    if yes {
        return Ok(());
    }
    let name = queue.name();
    if !(io::stdin().is_terminal() && io::stderr().is_terminal()) {
        return Err(UsageError(format!("this {what}; say --yes to do it")).into());
    }
    write!(io::stderr(), "this {what}; type the name of the queue to do it: ").context("cannot write to stderr")?;
    let mut typed = String::new();
    io::stdin().lock().read_line(&mut typed).context("cannot read stdin")?;
    anyhow::ensure!(typed.trim() == name, "{:?} is not {name}; nothing was done", typed.trim());
    Ok(())
}
