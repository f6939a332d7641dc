//! What commands print: tables that line up, JSON for machines, one-line errors.

use std::io::{self, IsTerminal as _, Write as _};
use std::time::{Duration, SystemTime};

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use jiff::{Timestamp, Unit};
use serde::Serialize;

/// Prints `error: …` to stderr.
pub(super) fn error_line(text: &str) {
    // One error is one line, or one line per problem of a configuration.
    let text =
        if io::stderr().is_terminal() { format!("\x1b[31merror:\x1b[0m {text}") } else { format!("error: {text}") };
    // There is nowhere to say that stderr is closed.
    let _ = writeln!(io::stderr(), "{text}");
}

/// Prints a line to stderr that is for people only.
pub(super) fn note(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// Prints a line to stderr if somebody is there to read it: what is as expected is nothing to mail from cron.
pub(super) fn aside(text: &str) {
    if io::stderr().is_terminal() {
        note(text);
    }
}

/// Prints a line to stdout.
pub(super) fn line(text: &str) -> anyhow::Result<()> {
    writeln!(io::stdout(), "{text}").or_else(super::stdout_failed)
}

/// Prints a value as JSON, indented.
pub(super) fn json(value: &impl Serialize) -> anyhow::Result<()> {
    line(&serde_json::to_string_pretty(value)?)
}

/// A table without lines; the columns from `numbers_from` on are numbers and stand to the right.
pub(super) fn table<const N: usize>(
    header: [&str; N],
    numbers_from: usize,
    rows: impl IntoIterator<Item = [String; N]>,
) -> anyhow::Result<()> {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(header);
    for row in rows {
        table.add_row(row);
    }
    for (position, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, 2));
        if position >= numbers_from {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let text: Vec<String> = table.lines().map(|line| line.trim_end().to_owned()).collect();
    line(&text.join("\n"))
}

/// A time to the second, in UTC.
pub(super) fn time(at: Option<Timestamp>) -> String {
    at.and_then(|at| at.round(Unit::Second).ok()).map_or_else(|| "-".to_owned(), |at| at.to_string())
}

/// Day and minute, in UTC: for columns, of times within the last weeks.
pub(super) fn day_and_minute(at: Timestamp) -> String {
    at.strftime("%m-%d %H:%M").to_string()
}

/// A time of the system to the second, in UTC.
pub(super) fn system_time(at: SystemTime) -> String {
    time(Timestamp::try_from(at).ok())
}

/// Items per second, or a dash when it was over too fast to say.
pub(super) fn per_second(items: u64, took: Duration) -> String {
    if items == 0 || took.is_zero() { "-".to_owned() } else { format!("{:.0}", items as f64 / took.as_secs_f64()) }
}
