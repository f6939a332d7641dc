//! The environment variables: which setting each one is, and in what unit.

use toml::Value;

use super::{
    error::Problem,
    settings::{Node, Origin, Table},
};

/// How the text of a variable becomes a value of TOML.
#[derive(Clone, Copy)]
enum Unit {
    /// A whole number.
    Number,
    /// A whole number of milliseconds, as the old system had it; a duration of ours.
    Milliseconds,
}

/// Variables of the sections that are not a queue's: name, section, key. All are texts.
const SECTIONS: [(&str, &str, &str); 7] = [
    ("REDIS_URL", "redis", "url"),
    ("MONGODB_URI", "mongodb", "uri"),
    ("MONGODB_DATABASE", "mongodb", "database"),
    ("BULL_QUEUE_NAME", "queues", "import"),
    ("FEEDMILL_FETCH_QUEUE_NAME", "queues", "fetch"),
    ("FEEDMILL_LISTEN", "http", "listen"),
    ("FEEDMILL_METRICS_LISTEN", "http", "metrics_listen"),
];

/// Variables of the import queue, whose workers the names have always meant: name, key, unit.
const IMPORT_QUEUE: [(&str, &str, Unit); 3] = [
    ("WORKER_CONCURRENCY", "concurrency", Unit::Number),
    ("WORKER_BATCH_SIZE", "batch_size", Unit::Number),
    ("WORKER_FLUSH_MS", "flush", Unit::Milliseconds),
];

/// Names the user's file.
pub(super) const CONFIG: &str = "FEEDMILL_CONFIG";

/// The access token, which is in no file.
pub(super) const TOKEN: &str = "FEEDMILL_TOKEN";

/// The old system's rate limit: name, key of `limiter`, unit, and what it was where only the other one is set.
const RATE_LIMIT: [(&str, &str, Unit, &str); 2] = [
    ("WORKER_RATE_LIMIT_MAX", "max", Unit::Number, "100"),
    ("WORKER_RATE_LIMIT_DURATION_MS", "duration", Unit::Milliseconds, "1000"),
];

/// The variables as the caller passes them. One that is set to nothing counts as unset: compose files write
/// `FEEDMILL_TOKEN=${FEEDMILL_TOKEN:-}`.
pub(super) struct Env<'a>(pub(super) &'a dyn Fn(&str) -> Option<String>);

impl Env<'_> {
    pub(super) fn text(&self, name: &str) -> Option<String> {
        (self.0)(name).map(|text| text.trim().to_owned()).filter(|text| !text.is_empty())
    }

    /// Lays the variables of all sections but the queues' over `settings`.
    pub(super) fn set_sections(&self, settings: &mut Table) {
        for (name, section, key) in SECTIONS {
            if let Some(text) = self.text(name) {
                settings.set_in(section, key, Value::String(text), Origin::Env(name));
            }
        }
    }

    /// Lays the variables of the import queue over its section.
    pub(super) fn set_import_queue(&self, section: &mut Table, problems: &mut Vec<Problem>) {
        for (name, key, unit) in IMPORT_QUEUE {
            if let Some(value) = self.text(name).and_then(|text| unit.read(name, &text, problems)) {
                section.set(key, value, Origin::Env(name));
            }
        }
        self.set_limiter(section, problems);
    }

    /// Lays the old system's rate limit over `limiter`. Where only half of it is set, the other half is what the file says,
    /// or what it always was.
    fn set_limiter(&self, section: &mut Table, problems: &mut Vec<Problem>) {
        let Some((by, ..)) = RATE_LIMIT.into_iter().find(|(name, ..)| self.text(name).is_some()) else { return };
        let mut limiter = match section.node("limiter") {
            Some(Node::Table(limiter)) => limiter.clone(),
            _ => Table::new(Origin::Env(by)),
        };
        limiter.origin = Origin::Env(by);
        for (name, key, unit, default) in RATE_LIMIT {
            let (text, by) = match self.text(name) {
                Some(text) => (text, name),
                None if limiter.node(key).is_some() => continue,
                None => (default.to_owned(), by),
            };
            if let Some(value) = unit.read(name, &text, problems) {
                limiter.set(key, value, Origin::Env(by));
            }
        }
        section.set_node("limiter", Node::Table(limiter));
    }
}

impl Unit {
    /// The value of a variable with this text; `None` if it is refused, and then the problem is noted.
    fn read(self, name: &str, text: &str, problems: &mut Vec<Problem>) -> Option<Value> {
        let (value, accepted) = match self {
            Self::Number => (text.parse().ok().map(Value::Integer), "a whole number"),
            Self::Milliseconds => {
                (text.parse::<u32>().ok().map(|ms| Value::String(format!("{ms}ms"))), "a whole number of milliseconds")
            }
        };
        if value.is_none() {
            problems.push(Problem {
                key: name.to_owned(),
                value: Some(Value::String(text.to_owned()).to_string()),
                origin: None,
                reason: format!("accepted: {accepted}"),
            });
        }
        value
    }
}
