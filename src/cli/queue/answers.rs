//! What became of jobs that were named on the command line.

use std::process::ExitCode;

use serde_json::json;

use crate::cli::output;
use crate::job::JobId;
use crate::queue::Queue;
use crate::queue::operated::{Operated, StateName};

/// Jobs that were left as they are and are named; the rest is counted.
const NAMED_MAX: usize = 10;

/// Prints how many jobs something was done to (`done`, such as "removed"), and which were left and why: `rule` says what the
/// operation asks for. Fails if one was left.
pub(super) fn print(
    queue: &Queue,
    ids: &[JobId],
    answers: &[Operated],
    (done, rule): (&str, &str),
    json: bool,
) -> anyhow::Result<ExitCode> {
    let n_done = answers.iter().filter(|answer| **answer == Operated::Done).count();
    let left: Vec<(&JobId, Option<StateName>)> = ids
        .iter()
        .zip(answers)
        .filter_map(|(id, answer)| match answer {
            Operated::Done => None,
            Operated::Missing => Some((id, None)),
            Operated::Refused(state) => Some((id, Some(*state))),
        })
        .collect();
    if json {
        let left: Vec<_> =
            left.iter().map(|(id, state)| json!({"id": id.to_string(), "state": state.map(StateName::name)})).collect();
        output::json(&json!({ done: n_done, "left": left }))?;
    } else if n_done > 0 || left.is_empty() {
        output::line(&format!("{n_done} {done}"))?;
    }
    for (id, state) in left.iter().take(NAMED_MAX) {
        output::error_line(&match state {
            None => format!(
                "there is no job {id} in {}: it is done, was never added, or no worker has adopted it yet",
                queue.name()
            ),
            Some(state) => format!("job {id} is {}; {rule}", state.name()),
        });
    }
    if left.len() > NAMED_MAX {
        output::error_line(&format!("{} more jobs were left as they are", left.len() - NAMED_MAX));
    }
    Ok(if left.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
