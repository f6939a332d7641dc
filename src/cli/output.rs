//! What commands print: tables that line up, JSON for machines, one-line errors.

use std::io::{self, IsTerminal as _, Write as _};
use std::time::{Duration, SystemTime};

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use jiff::{Timestamp, Unit};
use serde::Serialize;

use crate::check::Status;

/// Columns that a table takes.
pub(super) const WIDTH: usize = 80;

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

/// As [`line()`], for output that goes on: false when nobody reads it any more.
pub(super) fn goes_on(text: &str) -> anyhow::Result<bool> {
    match writeln!(io::stdout(), "{text}") {
        Ok(()) => Ok(true),
        Err(error) => super::stdout_failed(error).map(|()| false),
    }
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
    line(&table_lines(header, |column| column >= numbers_from, rows).join("\n"))
}

/// The lines of a table without lines: the header, then one for each row. Columns that `is_number` stand to the right.
pub(super) fn table_lines<const N: usize>(
    header: [&str; N],
    is_number: impl Fn(usize) -> bool,
    rows: impl IntoIterator<Item = [String; N]>,
) -> Vec<String> {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(header);
    for row in rows {
        table.add_row(row);
    }
    for (position, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, 2));
        if is_number(position) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.lines().map(|line| line.trim_end().to_owned()).collect()
}

/// Columns of the terminal that stdout is; else those that `COLUMNS` names, else [`WIDTH`].
pub(super) fn columns() -> usize {
    let window = rustix::termios::tcgetwinsize(io::stdout()).ok().map(|size| usize::from(size.ws_col));
    let named = || std::env::var("COLUMNS").ok()?.parse().ok();
    window.filter(|columns| *columns > 0).or_else(named).unwrap_or(WIDTH).max(40)
}

/// Whether stdout may be coloured: it is a terminal, and nobody set `NO_COLOR`.
pub(super) fn is_coloured() -> bool {
    io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Whether stdout is a terminal.
pub(super) fn is_terminal() -> bool {
    io::stdout().is_terminal()
}

/// The word for how something stands, as it begins a line.
pub(super) fn status_word(status: Status) -> &'static str {
    match status {
        Status::Ok => "ok",
        Status::Warning => "warning",
        Status::Error => "error",
    }
}

/// A line in the colour of how it stands: an anomaly is red, what is worth knowing yellow.
pub(super) fn paint(line: &str, status: Status) -> String {
    match status {
        Status::Ok => line.to_owned(),
        Status::Warning => format!("\x1b[33m{line}\x1b[0m"),
        Status::Error => format!("\x1b[31m{line}\x1b[0m"),
    }
}

/// As [`paint`], where colours are wanted.
pub(super) fn coloured(line: &str, status: Status) -> String {
    if is_coloured() { paint(line, status) } else { line.to_owned() }
}

/// Breaks a text at its spaces into lines of so many columns; what follows the first is indented.
pub(super) fn wrapped(text: &str, columns: usize, indent: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    let (mut length, mut is_empty) = (0, true);
    for (at, word) in text.split(' ').enumerate() {
        let chars = word.chars().count();
        if at > 0 && !is_empty && length + 1 + chars > columns {
            lines.push(" ".repeat(indent));
            (length, is_empty) = (indent, true);
        } else if at > 0 {
            lines.last_mut().expect("there is one").push(' ');
            length += 1;
        }
        lines.last_mut().expect("there is one").push_str(word);
        length += chars;
        is_empty &= word.is_empty();
    }
    lines
}

/// The lines that say what mends something, indented. A command that does not fit is broken as a shell wants it, so that it
/// can be copied.
pub(super) fn fix_lines(fix: &str, columns: usize, indent: usize) -> Vec<String> {
    let text = format!("{:indent$}fix: {}", "", one_line(fix));
    let is_command = ["feedmill ", "redis-cli "].iter().any(|program| fix.starts_with(program));
    if !is_command || text.chars().count() <= columns {
        return wrapped(&text, columns, indent + 5);
    }
    let mut lines = wrapped(&text, columns - 2, indent + 5);
    let last = lines.len() - 1;
    lines[..last].iter_mut().for_each(|line| line.push_str(" \\"));
    lines
}

/// Columns that the last one of a table has, beside the others.
pub(super) fn last_column<const N: usize>(columns: usize, header: [&str; N], rows: &[[String; N]]) -> usize {
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.max().unwrap_or(0).max(header[column].chars().count())
    };
    let others: usize = (0..N - 1).map(|column| width(column) + 2).sum();
    columns.saturating_sub(others).max(header[N - 1].len())
}

/// Cuts the last column so that no row is wider than [`WIDTH`].
pub(super) fn fitting<const N: usize>(header: [&str; N], mut rows: Vec<[String; N]>) -> Vec<[String; N]> {
    let columns = last_column(WIDTH, header, &rows);
    for row in &mut rows {
        row[N - 1] = shortened(&row[N - 1], columns);
    }
    rows
}

/// The front of a text that is longer than so many characters.
pub(super) fn shortened(text: &str, chars: usize) -> String {
    if text.chars().count() <= chars {
        return text.to_owned();
    }
    text.chars().take(chars - 1).chain(['…']).collect()
}

/// The beginning and the end of a text that is longer than so many characters: ids of a source differ at the end.
pub(super) fn without_middle(text: &str, chars: usize) -> String {
    let length = text.chars().count();
    if length <= chars {
        return text.to_owned();
    }
    let front = chars / 3;
    let behind = text.chars().skip(length - (chars - front - 1));
    text.chars().take(front).chain(['…']).chain(behind).collect()
}

/// A text without what would break a line, or speak to a terminal.
pub(super) fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// A span in its two largest units.
pub(super) fn span(span: Duration) -> String {
    let whole = if span < Duration::from_secs(1) { span } else { Duration::from_secs(span.as_secs()) };
    let text = humantime::format_duration(Duration::from_millis(whole.as_millis() as u64)).to_string();
    text.split(' ').take(2).collect::<Vec<_>>().join(" ")
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_wrapped_at_spaces_and_what_stands_in_front_stays() {
        assert_eq!(wrapped("error  one two three", 12, 7), ["error  one", "       two", "       three"]);
        assert_eq!(wrapped("   fix: a b", 9, 5), ["   fix: a", "     b"]);
        assert_eq!(wrapped("unbreakable-word after", 5, 2), ["unbreakable-word", "  after"]);
        assert_eq!(wrapped("as it is", usize::MAX, 2), ["as it is"]);
    }
}
