//! `feedmill doctor`: whether feedmill can work with what it is given.

use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use super::output::{self, one_line};
use super::{ANOMALY, Globals};
use crate::check::{Check, Status};
use crate::doctor::{self, Part};

/// Check the configuration, Redis, MongoDB and what is stored in it
///
/// Redis: version and features, persistence, eviction, memory, layout, latency, clock. MongoDB: version, indexes, write concern,
/// latency, and what would prevent the unique index on source and guid in a collection that another system has filled. Each line
/// is ok, a warning (worth knowing) or an error, with what mends it. Nothing is written without --fix.
///
/// With --fix the newest document of each item is kept, the others are deleted, and missing indexes are made: stop whatever
/// else writes to the collection first. Exit status 3: there is an error.
///
/// As JSON: [{part, check, status, detail, fix}]; status is "ok", "warning" or "error", fix is null when nothing is to be done.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  feedmill doctor
  feedmill doctor --fix        after a backup
  feedmill doctor --json | jq -r '.[] | select(.status != \"ok\") | .fix'")]
pub(super) struct DoctorArgs {
    /// Delete all but the newest of documents that are of the same item, and make indexes that are missing
    #[arg(long)]
    fix: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(globals: &Globals, args: &DoctorArgs) -> anyhow::Result<ExitCode> {
    let config = globals.load(None)?;
    let parts = doctor::examine_and(&config, args.fix).await;
    let checks = || parts.iter().flat_map(|Part { part, checks }| checks.iter().map(move |check| (*part, check)));
    if args.json {
        let line = |(part, check): (&str, &Check)| {
            let Check { check, status, detail, fix } = check;
            json!({ "part": part, "check": check, "status": status, "detail": detail, "fix": fix })
        };
        output::json(&checks().map(line).collect::<Vec<_>>())?;
    } else {
        for (part, check) in checks() {
            print(part, check)?;
        }
    }
    let is_wrong = checks().any(|(_, check)| check.status == Status::Error);
    Ok(if is_wrong { ExitCode::from(ANOMALY) } else { ExitCode::SUCCESS })
}

fn print(part: &str, check: &Check) -> anyhow::Result<()> {
    let front = format!("{:<9}{part:<9}{:<13}", output::status_word(check.status), check.check);
    let indent = front.len();
    // Programs read lines as they are.
    let columns = if output::is_terminal() { output::columns() } else { usize::MAX };
    for line in output::wrapped(&format!("{front}{}", one_line(&check.detail)), columns, indent) {
        output::line(&output::coloured(&line, check.status))?;
    }
    if let Some(fix) = &check.fix {
        for line in output::fix_lines(fix, columns, indent) {
            output::line(&line)?;
        }
    }
    Ok(())
}
