//! Writes families in Prometheus's text format, version 0.0.4.

use std::fmt::{Display, Write as _};

use super::table::{Family, Kind};

/// A text of whole families: each is written once, with its HELP and TYPE and then its samples.
#[derive(Debug, Default)]
pub(super) struct Text(String);

/// Writes the samples of one family.
pub(super) struct Samples<'a> {
    text: &'a mut String,
    family: Family,
}

impl Text {
    /// Begins a family.
    pub(super) fn family(&mut self, family: Family) -> Samples<'_> {
        let kind = match family.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram(_) => "histogram",
        };
        let help = family.help.replace('\\', r"\\").replace('\n', r"\n");
        let name = family.name;
        writing(write!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}\n"));
        Samples { text: &mut self.0, family }
    }

    pub(super) fn into_string(self) -> String {
        self.0
    }
}

impl Samples<'_> {
    /// Adds one sample; the values of the labels are in the order of the table.
    pub(super) fn sample(&mut self, labels: &[&str], value: impl Display) -> &mut Self {
        debug_assert_eq!(labels.len(), self.family.labels.len(), "{}", self.family.name);
        self.text.push_str(self.family.name);
        for (at, (name, value)) in self.family.labels.iter().zip(labels).enumerate() {
            let value = value.replace('\\', r"\\").replace('"', r#"\""#).replace('\n', r"\n");
            writing(write!(self.text, "{}{name}=\"{value}\"", if at == 0 { '{' } else { ',' }));
        }
        writing(writeln!(self.text, "{} {value}", if self.family.labels.is_empty() { "" } else { "}" }));
        self
    }
}

fn writing(written: std::fmt::Result) {
    written.expect("a String takes everything");
}

#[cfg(test)]
mod tests {
    use super::super::table::{JOB_COUNT, REDIS_UP};
    use super::*;

    #[test]
    fn a_family_is_help_type_and_samples_and_ends_in_a_newline() {
        let mut text = Text::default();
        text.family(JOB_COUNT).sample(&["q", "active"], 3).sample(&["q", "waiting"], 0.5);
        text.family(REDIS_UP).sample(&[], 1);
        assert_eq!(
            text.into_string(),
            "# HELP bullmq_job_count Number of jobs in the queue by state, read from Redis.\n\
             # TYPE bullmq_job_count gauge\n\
             bullmq_job_count{queue=\"q\",state=\"active\"} 3\n\
             bullmq_job_count{queue=\"q\",state=\"waiting\"} 0.5\n\
             # HELP feedmill_redis_up Whether Redis answered when it was asked for the numbers of the queues (1) or not \
             (0).\n\
             # TYPE feedmill_redis_up gauge\n\
             feedmill_redis_up 1\n"
        );
    }

    #[test]
    fn the_value_of_a_label_cannot_break_out_of_its_line() {
        let mut text = Text::default();
        text.family(JOB_COUNT).sample(&["a\"b\\c\nd", "x"], 1);
        assert!(text.into_string().ends_with("bullmq_job_count{queue=\"a\\\"b\\\\c\\nd\",state=\"x\"} 1\n"));
    }
}
