//! Long operations on the command line: a bar, an end between two steps when somebody interrupts, and a count.

use std::time::Duration;

use anyhow::Context as _;
use indicatif::{ProgressBar, ProgressStyle};

use crate::queue::QueueError;
use crate::queue::walk::Step;
use crate::shutdown;

/// How often the bar moves while a step takes long.
const TICK: Duration = Duration::from_millis(100);

/// How far a walk came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Walked {
    /// Jobs that it looked at.
    pub(super) looked_at: usize,
    /// Those it did something with.
    pub(super) done: usize,
    /// Whether somebody interrupted it before it was through.
    pub(super) interrupted: bool,
}

/// Goes through a walk of about `total` jobs, until it is through or somebody interrupts: then the step under way is ended
/// first. `doing` names it ("retrying").
pub(super) async fn go_through(
    doing: &'static str,
    total: u64,
    mut step: impl AsyncFnMut() -> Result<Option<Step>, QueueError>,
) -> anyhow::Result<Walked> {
    let interrupted = shutdown::on_signal().context("cannot handle signals")?;
    let bar = ProgressBar::new(total);
    let style = ProgressStyle::with_template("{msg} {bar:30} {pos}/{len}  {per_sec}  {elapsed}");
    bar.set_style(style.expect("the template is right"));
    bar.set_message(doing);
    bar.enable_steady_tick(TICK);
    let mut walked = Walked::default();
    let through = loop {
        if interrupted.is_cancelled() {
            walked.interrupted = true;
            break Ok(());
        }
        match step().await {
            Ok(Some(step)) => {
                walked.looked_at += step.looked_at;
                walked.done += step.done;
                bar.inc(step.looked_at as u64);
                // What came in meanwhile.
                bar.set_length(total.max(walked.looked_at as u64));
            }
            Ok(None) => break Ok(()),
            Err(error) => break Err(error),
        }
    };
    bar.finish_and_clear();
    match through {
        Ok(()) => Ok(walked),
        Err(error) if walked.looked_at == 0 => Err(error.into()),
        Err(error) => Err(error).with_context(|| format!("{doing} stopped after {} jobs", walked.looked_at)),
    }
}

/// A word as a shell takes it.
pub(super) fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@%+,".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_shell_would_take_apart_is_quoted() {
        assert_eq!(quoted("1700000000000-5"), "1700000000000-5");
        assert_eq!(quoted("it's gone"), r"'it'\''s gone'");
        assert_eq!(quoted(""), "''");
    }
}
