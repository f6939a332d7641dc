//! What a look at something comes to: how it stands, and what mends it.
//!
//! The words that `xinfo`, `doctor` and the dashboard share. They say the same of the same thing, since they print what
//! [`queue::inspect`](crate::queue::inspect) and [`doctor`](crate::doctor) found.

use serde::Serialize;

/// How something stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// As it should be.
    Ok,
    /// Worth knowing; nobody needs to do anything now.
    Warning,
    /// An anomaly: somebody has to do something, or work was held up.
    Error,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What was looked at, in one word or two.
    pub check: &'static str,
    /// How it stands.
    pub status: Status,
    /// What was found, as a sentence.
    pub detail: String,
    /// What mends it: a command, or what to do; `None` when nothing is to be done.
    pub fix: Option<String>,
}

impl Check {
    /// It is as it should be.
    pub fn ok(check: &'static str, detail: impl Into<String>) -> Self {
        Self { check, status: Status::Ok, detail: detail.into(), fix: None }
    }

    /// It is worth knowing.
    pub fn warning(check: &'static str, detail: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { check, status: Status::Warning, detail: detail.into(), fix: Some(fix.into()) }
    }

    /// It is wrong.
    pub fn error(check: &'static str, detail: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { check, status: Status::Error, detail: detail.into(), fix: Some(fix.into()) }
    }
}
