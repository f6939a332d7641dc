//! `feedmill queue limit`: look at and change the limits of a queue while it runs.

use std::time::Duration;

use clap::Args;
use serde_json::json;

use super::{UsageError, output};
use crate::config::{Config, QueueConfig};
use crate::pipeline;
use crate::queue::Queue;
use crate::queue::limits::{LimitChanges, LimitState, Rate, SetBy};

/// Longest window of a rate, as for the configuration.
const WINDOW_MAX: Duration = Duration::from_hours(24);
/// Most starts in a window, as for the configuration.
const STARTS_MAX: u64 = 1_000_000_000;
/// Longest hold-up: beyond it somebody should pause the queue.
const HOLD_UP_MAX: Duration = Duration::from_hours(30 * 24);

#[derive(Debug, Args)]
pub(super) struct LimitArgs {
    /// Starts per time over all workers, such as 100/1s, or off
    #[arg(long, value_name = "RATE", value_parser = rate)]
    rate: Option<Limit<Rate>>,
    /// Jobs that are active at once over all workers, or off
    #[arg(long, value_name = "N", value_parser = concurrency)]
    concurrency: Option<Limit<u64>>,
    /// As --rate, for each group
    #[arg(long, value_name = "RATE", value_parser = rate)]
    group_rate: Option<Limit<Rate>>,
    /// Start nothing for this long, such as 30s; off ends it
    #[arg(long = "for", value_name = "TIME", value_parser = span)]
    hold_up: Option<Limit<Duration>>,
    /// With --for: nothing of this group (a source or host)
    #[arg(long, value_name = "GROUP", requires = "hold_up")]
    group: Option<String>,
    /// Go back to what the configuration says
    #[arg(long, conflicts_with_all = ["rate", "concurrency", "group_rate"])]
    reset: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Name of the queue [default: the import queue]
    #[arg(long, value_name = "NAME")]
    pub(super) queue: Option<String>,
}

/// What a flag says: a limit, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Limit<T> {
    Off,
    To(T),
}

impl<T> Limit<T> {
    fn value(self) -> Option<T> {
        match self {
            Self::Off => None,
            Self::To(value) => Some(value),
        }
    }
}

/// Carries out what the flags say, and prints what is in force then.
pub(super) async fn run(config: &Config, queue: &Queue, args: &LimitArgs) -> anyhow::Result<()> {
    let of = [&config.import_queue, &config.fetch_queue].into_iter().find(|of| of.name == queue.name());
    let sets_group = matches!(args.group_rate, Some(Limit::To(_))) || args.group.is_some();
    if sets_group && let Some(of) = of.filter(|of| of.group_by.is_none()) {
        return Err(no_groups(of).into());
    }
    if args.reset {
        queue.set_limits(of.map(pipeline::limits).unwrap_or_default(), SetBy::Reset).await?;
    }
    let changes = LimitChanges {
        rate: args.rate.map(Limit::value),
        concurrency: args.concurrency.map(Limit::value),
        group_rate: args.group_rate.map(Limit::value),
    };
    if changes != LimitChanges::default() {
        queue.set_limits(changes, SetBy::Operator).await?;
    }
    if let Some(span) = args.hold_up {
        let span = span.value().unwrap_or_default();
        match &args.group {
            None => queue.hold_up(span).await?,
            Some(group) => {
                if !queue.hold_up_group(group, span).await? {
                    output::note(&format!("group {group} was not held up"));
                }
            }
        }
    }
    let state = queue.limits().await?;
    if args.json { output::json(&to_json(queue.name(), &state)) } else { print(queue.name(), &state) }
}

fn no_groups(of: &QueueConfig) -> UsageError {
    UsageError(format!(
        "the jobs of {name} have no groups: set group_by of [stream.{name}] to \"source\" or \"host\" first",
        name = of.name
    ))
}

fn print(queue: &str, state: &LimitState) -> anyhow::Result<()> {
    let off = || "off".to_owned();
    let shown = |rate: Rate| format!("{}/{}", rate.max, humantime::format_duration(rate.duration));
    let limits = &state.limits;
    let window = if state.started == 0 {
        String::new()
    } else {
        format!(" ({} started; the window ends in {} ms)", state.started, state.window_left.as_millis())
    };
    let held_up = match state.held_up_for {
        Duration::ZERO => "no".to_owned(),
        // To the second, rounded up.
        span => {
            format!("for {}", humantime::format_duration(Duration::from_secs(span.as_millis().div_ceil(1000) as u64)))
        }
    };
    let set_by =
        if state.is_by_operator { "an operator (--reset goes back to the configuration)" } else { "the configuration" };
    for (name, value) in [
        ("queue", queue.to_owned()),
        ("rate", limits.rate.map_or_else(off, |rate| shown(rate) + &window)),
        ("concurrency", limits.concurrency.map_or_else(off, |n| n.to_string())),
        ("group rate", limits.group_rate.map_or_else(off, shown)),
        ("held up", held_up),
        ("held groups", state.held_groups.to_string()),
        ("set by", set_by.to_owned()),
    ] {
        output::line(&format!("{name:<13}{value}"))?;
    }
    Ok(())
}

fn to_json(queue: &str, state: &LimitState) -> serde_json::Value {
    let rate = |rate: Rate| json!({"max": rate.max, "durationMs": rate.duration.as_millis() as u64});
    json!({
        "queue": queue,
        "rate": state.limits.rate.map(rate),
        "started": state.started,
        "windowLeftMs": state.window_left.as_millis() as u64,
        "concurrency": state.limits.concurrency,
        "groupRate": state.limits.group_rate.map(rate),
        "heldUpForMs": state.held_up_for.as_millis() as u64,
        "heldGroups": state.held_groups,
        "setBy": if state.is_by_operator { "operator" } else { "configuration" },
    })
}

fn rate(text: &str) -> Result<Limit<Rate>, String> {
    let parsed = || {
        let (max, duration) = text.split_once('/')?;
        let (max, duration) = (max.trim().parse().ok()?, humantime::parse_duration(duration.trim()).ok()?);
        let is_accepted =
            (1..=STARTS_MAX).contains(&max) && (Duration::from_millis(1)..=WINDOW_MAX).contains(&duration);
        is_accepted.then_some(Limit::To(Rate { max, duration }))
    };
    off_or(text, parsed()).ok_or_else(|| {
        "accepted: off, or starts per time such as 100/1s: 1 to 1000000000 in 1ms to 1d; to start nothing, pause the queue"
            .to_owned()
    })
}

fn concurrency(text: &str) -> Result<Limit<u64>, String> {
    let parsed = text.parse().ok().filter(|n| (1..=STARTS_MAX).contains(n)).map(Limit::To);
    off_or(text, parsed)
        .ok_or_else(|| "accepted: off, or 1 to 1000000000; to start nothing, pause the queue".to_owned())
}

fn span(text: &str) -> Result<Limit<Duration>, String> {
    let parsed = humantime::parse_duration(text).ok();
    let parsed = parsed.filter(|span| (Duration::from_millis(1)..=HOLD_UP_MAX).contains(span)).map(Limit::To);
    off_or(text, parsed).ok_or_else(|| "accepted: off, or a time such as 30s, from 1ms to 30d".to_owned())
}

fn off_or<T>(text: &str, parsed: Option<Limit<T>>) -> Option<Limit<T>> {
    if text == "off" { Some(Limit::Off) } else { parsed }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_starts_per_time() {
        let hundred = Limit::To(Rate { max: 100, duration: Duration::from_secs(1) });
        assert_eq!(rate("100/1s"), Ok(hundred));
        assert_eq!(rate("100 / 1000ms"), Ok(hundred));
        assert_eq!(rate("off"), Ok(Limit::Off));
        for refused in ["", "100", "100/s", "0/1s", "-1/1s", "1/0s", "1/2d", "1.5/1s", "99999999999/1s"] {
            assert!(rate(refused).is_err(), "{refused:?}");
        }
    }

    #[test]
    fn nothing_at_all_is_no_limit() {
        assert_eq!(concurrency("4"), Ok(Limit::To(4)));
        assert!(concurrency("0").is_err_and(|error| error.contains("pause")));
        assert_eq!(span("30s"), Ok(Limit::To(Duration::from_secs(30))));
        assert!(span("0s").is_err());
    }
}
