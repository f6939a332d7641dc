//! How things are shown: numbers, times, states, charts, JSON.

use std::fmt::Write as _;
use std::time::{Duration, SystemTime};

use jiff::{Timestamp, Unit};
use maud::{Markup, html};
use serde_json::Value;

use crate::http::readings::Chart;

/// Nodes of a payload that are shown as a tree.
const NODES_MAX: usize = 1500;
/// How many levels of it are open.
const OPEN_LEVELS: usize = 2;

/// A number with its thousands apart.
pub(super) fn number(number: impl Into<u128>) -> String {
    let digits = number.into().to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.char_indices() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// So many of what a word names.
pub(super) fn counted(n: u64, noun: &str) -> String {
    if n == 1 { format!("1 {noun}") } else { format!("{} {noun}s", number(n)) }
}

/// A text as the beginning of a sentence.
pub(super) fn capitalised(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}

/// A number of a table in which most are 0: those are not to catch the eye.
pub(super) fn count(count: u64) -> Markup {
    if count == 0 {
        html! { span.dim { "0" } }
    } else {
        html! { (number(count)) }
    }
}

/// Bytes, to three digits.
pub(super) fn bytes(bytes: u64) -> String {
    match bytes {
        0..1024 => format!("{bytes} B"),
        1024..1_048_576 => format!("{:.1} KiB", bytes as f64 / 1024.0),
        _ => format!("{:.1} MiB", bytes as f64 / 1_048_576.0),
    }
}

/// A span in its two largest units.
pub(super) fn span(span: Duration) -> String {
    let seconds = span.as_secs();
    match seconds {
        0 => format!("{} ms", span.as_millis()),
        1..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds / 3600 % 24),
    }
}

/// An instant: in UTC here, in the zone of the viewer once the script ran; the exact one on hover.
pub(super) fn time(at: impl Into<Option<Timestamp>>) -> Markup {
    let Some(at) = at.into() else { return html! { span.dim { "–" } } };
    let shown = at.round(Unit::Second).unwrap_or(at).to_string().replace('T', " ").replace('Z', " UTC");
    html! { time.nowrap datetime=(at) title=(at) { (shown) } }
}

pub(super) fn system_time(at: SystemTime) -> Markup {
    time(Timestamp::try_from(at).ok())
}

/// A state as a badge.
pub(super) fn state(name: &str) -> Markup {
    let kind = match name {
        "failed" | "dead" | "interrupted" => "bad",
        "active" | "running" => "warn",
        "completed" | "done" | "ok" | "alive" | "ended" => "good",
        _ if name.starts_with("failed") || name.starts_with("gone") => "bad",
        _ => "",
    };
    html! { span.badge.(kind) { (name) } }
}

/// The minutes of a chart as bars: what was done, and what died on top of it.
pub(super) fn chart(chart: &Chart, about: &str) -> Markup {
    let bars: Vec<[u64; 2]> =
        chart.completed.iter().zip(&chart.failed).map(|(done, died)| [done.count, died.count]).collect();
    let sum = |at: usize| bars.iter().map(|bar| bar[at]).sum::<u64>();
    let label = format!("{about}: {} done and {} dead in the last hour", sum(0), sum(1));
    html! {
        (stacked(&bars, ["done", "died"], &label, ["60 min ago", "now"]))
        div.legend {
            span { i.done {} "done " (number(sum(0))) }
            span { i.died {} "dead " (number(sum(1))) }
            span { "in the last hour" }
        }
    }
}

/// Stacked bars.
pub(super) fn stacked<const N: usize>(bars: &[[u64; N]], classes: [&str; N], label: &str, ends: [&str; 2]) -> Markup {
    const WIDTH: f64 = 600.0;
    const HEIGHT: f64 = 84.0;
    let most = bars.iter().map(|bar| bar.iter().sum::<u64>()).max().unwrap_or(0);
    let step = WIDTH / bars.len().max(1) as f64;
    let mut parts = String::new();
    for (at, bar) in bars.iter().enumerate() {
        let mut top = HEIGHT;
        for (part, class) in bar.iter().zip(classes).filter(|(part, _)| **part > 0) {
            // What is there is seen, however little of the whole it is.
            let height = (*part as f64 / most as f64 * (HEIGHT - 4.0)).max(1.5);
            top -= height;
            let _ = write!(
                parts,
                r#"<rect class="{class}" x="{:.1}" y="{top:.1}" width="{:.1}" height="{height:.1}"/>"#,
                at as f64 * step,
                (step - 1.5).clamp(1.0, 26.0)
            );
        }
    }
    html! {
        svg.chart viewBox="0 -16 600 122" role="img" aria-label=(label) {
            (maud::PreEscaped(parts))
            line.axis x1="0" y1="84.5" x2="600" y2="84.5" {}
            text x="0" y="101" { (ends[0]) }
            text x="600" y="101" text-anchor="end" { (ends[1]) }
            @if most > 0 { text x="0" y="-3" { "max " (number(most)) } }
        }
    }
}

/// JSON as a tree that opens and closes.
pub(super) fn tree(value: &Value) -> Markup {
    let mut left = NODES_MAX;
    html! { div.tree { ul { (node(None, value, 0, &mut left)) } } }
}

fn node(key: Option<&str>, value: &Value, level: usize, left: &mut usize) -> Markup {
    if *left == 0 {
        return html! {};
    }
    *left -= 1;
    if *left == 0 {
        return html! { li.dim { "… more than is shown here" } };
    }
    let name = html! { @if let Some(key) = key { span.key { (key) } ": " } };
    let (children, brackets): (Vec<(Option<&str>, &Value)>, _) = match value {
        Value::Object(fields) => (fields.iter().map(|(key, value)| (Some(key.as_str()), value)).collect(), ("{", "}")),
        Value::Array(values) => (values.iter().map(|value| (None, value)).collect(), ("[", "]")),
        Value::String(text) => return html! { li { (name) span.text.mono { (text) } } },
        other => return html! { li { (name) span.other.mono { (other) } } },
    };
    if children.is_empty() {
        return html! { li { (name) (brackets.0) (brackets.1) } };
    }
    html! {
        li {
            details open[level < OPEN_LEVELS] {
                summary { (name) span.dim { (brackets.0) (children.len()) (brackets.1) } }
                ul { @for (key, value) in children { (node(key, value, level + 1, left)) } }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn numbers_and_spans_read_well() {
        assert_eq!([0_u64, 999, 1000, 1_234_567].map(number), ["0", "999", "1,000", "1,234,567"]);
        let spans = [0, 59, 61, 3700, 90_000].map(|seconds| span(Duration::from_secs(seconds)));
        assert_eq!(spans, ["0 ms", "59 s", "1 min 1 s", "1 h 1 min", "1 d 1 h"]);
    }

    #[test]
    fn one_is_not_many_and_a_sentence_begins_with_a_capital() {
        assert_eq!([0, 1, 2, 1000].map(|n| counted(n, "job")), ["0 jobs", "1 job", "2 jobs", "1,000 jobs"]);
        assert_eq!(["", "a b", "über"].map(capitalised), ["", "A b", "Über"]);
    }

    #[test]
    fn what_feeds_say_is_text_in_a_tree() {
        let hostile = "<script>alert(1)</script>\"'&";
        let shown = tree(&json!({ hostile: [hostile], "n": 1 })).into_string();
        assert!(
            !shown.contains("<script>") && shown.contains("&lt;script&gt;alert(1)&lt;/script&gt;&quot;"),
            "{shown}"
        );
    }

    #[test]
    fn a_huge_payload_is_cut() {
        let shown = tree(&json!(vec![1; 10 * NODES_MAX])).into_string();
        assert_eq!(shown.matches("<li").count(), NODES_MAX);
        assert!(shown.contains("more than is shown here"));
    }
}
