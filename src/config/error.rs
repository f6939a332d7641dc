//! What can be wrong with a configuration.

use std::{fmt, io, path::PathBuf};

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file named by `--config` or `FEEDMILL_CONFIG` cannot be read, or `./streams.toml` exists and cannot be.
    #[error("cannot read the configuration file {path} (named by {named_by})", path = path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Who asked for it: `--config`, `FEEDMILL_CONFIG` or `the working directory`.
        named_by: &'static str,
        /// What the system said.
        #[source]
        cause: io::Error,
    },

    /// The file is not TOML.
    #[error("{path} line {line} is not valid TOML: {reason}", path = path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What the parser expected.
        reason: String,
    },

    /// Values are refused: all that were found. One line each.
    #[error("{}", list(problems))]
    Invalid {
        /// At least one.
        problems: Vec<Problem>,
    },
}

fn list(problems: &[Problem]) -> String {
    match problems {
        [only] => only.to_string(),
        many => {
            let lines: Vec<String> = many.iter().map(|problem| format!("\n  {problem}")).collect();
            format!("{} problems in the configuration:{}", many.len(), lines.concat())
        }
    }
}

/// One refused value. Displayed as `key = value (where it was set): what is wrong; accepted: …`, secrets masked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Path of the key, such as `stream.job_import_queue.flush`.
    pub key: String,
    /// The value as it would stand in TOML, masked and cut; `None` if the key itself is the problem.
    pub value: Option<String>,
    /// File and line, variable or flag that set it; `None` if it is missing.
    pub origin: Option<String>,
    /// What is wrong and what is accepted.
    pub reason: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.key)?;
        if let Some(value) = &self.value {
            write!(f, " = {value}")?;
        }
        if let Some(origin) = &self.origin {
            write!(f, " ({origin})")?;
        }
        write!(f, ": {}", self.reason)
    }
}
