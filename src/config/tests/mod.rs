//! The configuration as its users meet it: files, variables and flags in; a `Config`, or all problems, out.

use std::{collections::HashMap, fs, path::PathBuf};

use tempfile::TempDir;

use super::{Config, ConfigError, Overrides, QueueConfig, Sources};

mod shipped;
mod layers;
mod queues;
mod problems;
mod values;
mod feeds;
mod shown;

/// One start of feedmill in a working directory of its own.
struct Start {
    directory: TempDir,
    env: HashMap<&'static str, String>,
    config_flag: Option<PathBuf>,
    flags: Overrides,
}

impl Start {
    fn new() -> Self {
        Self {
            directory: tempfile::tempdir().unwrap(),
            env: HashMap::new(),
            config_flag: None,
            flags: Overrides::default(),
        }
    }

    fn file(self, toml: &str) -> Self {
        self.file_named("streams.toml", toml)
    }

    fn file_named(self, name: &str, toml: &str) -> Self {
        fs::write(self.directory.path().join(name), toml).unwrap();
        self
    }

    fn env(mut self, name: &'static str, value: &str) -> Self {
        self.env.insert(name, value.to_owned());
        self
    }

    fn config_flag(mut self, path: &str) -> Self {
        self.config_flag = Some(PathBuf::from(path));
        self
    }

    fn flags(mut self, flags: Overrides) -> Self {
        self.flags = flags;
        self
    }

    fn load(self) -> Result<Config, ConfigError> {
        Config::load(&Sources {
            config_flag: self.config_flag,
            directory: self.directory.path().to_owned(),
            env: &|name| self.env.get(name).cloned(),
            flags: self.flags,
        })
    }

    /// The problems as the user sees them, one per line.
    fn refused(self) -> Vec<String> {
        match self.load() {
            Err(ConfigError::Invalid { problems }) => problems.iter().map(ToString::to_string).collect(),
            other => panic!("expected refused values, got {other:?}"),
        }
    }
}

/// The problems of a file.
fn refused(toml: &str) -> Vec<String> {
    Start::new().file(toml).refused()
}

/// The only problem of a line in the section of the import queue.
fn refused_in_queue(line: &str) -> String {
    let problems = refused(&format!("[stream.job_import_queue]\n{line}\n"));
    assert_eq!(problems.len(), 1, "{problems:#?}");
    problems.into_iter().next().unwrap()
}

fn assert_contains(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in {text:?}");
    }
}

/// The import queue of a file with this line in its section.
fn import_queue(line: &str) -> QueueConfig {
    Start::new().file(&format!("[stream.job_import_queue]\n{line}\n")).load().unwrap().import_queue
}
