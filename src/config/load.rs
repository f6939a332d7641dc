//! Lays the four layers of settings over each other, the later over the earlier: built in, file, environment, flags.
//!
//! The section of a queue is found by its role. The built-in section of the role comes first, then the user's
//! `[stream.X]` where X is the queue's name, as the file has it or as the environment renames it.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use toml::Value;

use super::{
    Config, ConfigError, Problem,
    env::{self, Env},
    settings::{self, Node, Origin, Table},
    show, validate,
};

/// The shipped `streams.toml`: the reference of every key, and the defaults.
pub(super) const BUILT_IN: &str = include_str!("../../streams.toml");

/// Looked for in the working directory when no file is named.
const FILE_NAME: &str = "streams.toml";

/// Where the settings come from.
pub struct Sources<'a> {
    /// `--config`: must exist.
    pub config_flag: Option<PathBuf>,
    /// The working directory, where `streams.toml` is read if it exists and no file is named.
    pub directory: PathBuf,
    /// Looks up an environment variable. One set to nothing counts as unset.
    pub env: &'a dyn Fn(&str) -> Option<String>,
    /// The flags that are settings.
    pub flags: Overrides,
}

/// Flags of a command that win over file and environment; `None` is not given.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// `--redis-url`.
    pub redis_url: Option<String>,
    /// `--mongodb-uri`.
    pub mongodb_uri: Option<String>,
    /// `--mongodb-database`.
    pub mongodb_database: Option<String>,
    /// `--concurrency`, of the import queue.
    pub concurrency: Option<usize>,
}

/// The names of the two queues.
struct QueueNames {
    import: String,
    fetch: String,
}

impl QueueNames {
    fn of(settings: &Table, defaults: &QueueNames) -> Self {
        let name = |key, default: &str| settings.text("queues", key).unwrap_or(default).to_owned();
        Self { import: name("import", &defaults.import), fetch: name("fetch", &defaults.fetch) }
    }
}

impl Config {
    /// Reads and checks the configuration.
    ///
    /// # Errors
    /// [`ConfigError::Unreadable`] and [`ConfigError::Syntax`] for the file; [`ConfigError::Invalid`] with every
    /// problem of every layer.
    pub fn load(sources: &Sources<'_>) -> Result<Self, ConfigError> {
        let env = Env(sources.env);
        let mut problems = Vec::new();

        let mut settings = built_in();
        let built_in_names = QueueNames::of(&settings, &QueueNames { import: String::new(), fetch: String::new() });
        let mut sections = take_sections(&mut settings, &mut problems);
        let mut section_of = |name: &str| match sections.remove(name) {
            Some(Node::Table(table)) => table,
            _ => Table::new(Origin::BuiltIn),
        };
        let mut import = section_of(&built_in_names.import);
        let mut fetch = section_of(&built_in_names.fetch);

        let (file, mut layer) = match read_file(sources, &env)? {
            Some((path, layer)) => (Some(path), layer),
            None => (None, Table::new(Origin::BuiltIn)),
        };
        let file_sections = take_sections(&mut layer, &mut problems);
        settings.merge(layer);
        let file_names = QueueNames::of(&settings, &built_in_names);

        env.set_sections(&mut settings);
        sources.flags.set_sections(&mut settings);
        let names = QueueNames::of(&settings, &file_names);
        merge_queues(file_sections, [&file_names, &names], [&mut import, &mut fetch], &mut problems);
        env.set_import_queue(&mut import, &mut problems);
        sources.flags.set_import_queue(&mut import);

        let token = env.text(env::TOKEN);
        let checked = validate::check(&settings, (&names.import, &import), (&names.fetch, &fetch), &mut problems);
        match checked {
            Some(checked) if problems.is_empty() => Ok(checked.into_config(
                token.clone(),
                file,
                show::Effective::new(settings, [(names.import, import), (names.fetch, fetch)], token.is_some()),
            )),
            _ => Err(ConfigError::Invalid { problems }),
        }
    }
}

impl Overrides {
    fn set_sections(&self, settings: &mut Table) {
        for (flag, section, key, text) in [
            ("--redis-url", "redis", "url", &self.redis_url),
            ("--mongodb-uri", "mongodb", "uri", &self.mongodb_uri),
            ("--mongodb-database", "mongodb", "database", &self.mongodb_database),
        ] {
            if let Some(text) = text {
                settings.set_in(section, key, Value::String(text.clone()), Origin::Flag(flag));
            }
        }
    }

    fn set_import_queue(&self, section: &mut Table) {
        if let Some(concurrency) = self.concurrency {
            // A number TOML cannot hold is refused as out of range all the same.
            let value = Value::Integer(i64::try_from(concurrency).unwrap_or(i64::MAX));
            section.set("concurrency", value, Origin::Flag("--concurrency"));
        }
    }
}

fn built_in() -> Table {
    settings::parse(BUILT_IN, None).expect("the shipped streams.toml is TOML: a test parses it")
}

/// Takes the `[stream.*]` sections out of a layer, as a table from name to section.
fn take_sections(layer: &mut Table, problems: &mut Vec<Problem>) -> Table {
    match layer.remove("stream") {
        Some(Node::Table(sections)) => sections,
        Some(other) => {
            problems.push(Problem {
                key: "stream".to_owned(),
                value: None,
                origin: Some(other.origin().to_string()),
                reason: "accepted: one table per queue, [stream.<queue>]".to_owned(),
            });
            Table::new(Origin::BuiltIn)
        }
        None => Table::new(Origin::BuiltIn),
    }
}

/// Merges each section of the file over its queue's. `names` are those of the file, then those in force: a queue that
/// the environment renames keeps the settings the file has for it, and a section under the new name wins over them.
fn merge_queues(
    sections: Table,
    names: [&QueueNames; 2],
    [import, fetch]: [&mut Table; 2],
    problems: &mut Vec<Problem>,
) {
    let [file_names, names] = names;
    let mut under_new_name = Vec::new();
    for (name, node) in sections.entries {
        let origin = node.origin().to_string();
        let Node::Table(section) = node else {
            problems.push(Problem {
                key: format!("stream.{}", name.escape_debug()),
                value: None,
                origin: Some(origin),
                reason: "accepted: a table".to_owned(),
            });
            continue;
        };
        // The names in force come first: two queues may have swapped theirs.
        if name == names.import || name == names.fetch {
            under_new_name.push((name, section));
        } else if name == file_names.import {
            import.merge(section);
        } else if name == file_names.fetch {
            fetch.merge(section);
        } else {
            problems.push(Problem {
                key: format!("stream.{}", name.escape_debug()),
                value: None,
                origin: Some(origin),
                reason: format!("names no queue; accepted: stream.{} and stream.{}", names.import, names.fetch),
            });
        }
    }
    for (name, section) in under_new_name {
        if name == names.import { import.merge(section) } else { fetch.merge(section) }
    }
}

/// Reads the first of `--config`, `FEEDMILL_CONFIG` and `./streams.toml`; `None` if none is named and none is there.
fn read_file(sources: &Sources<'_>, env: &Env<'_>) -> Result<Option<(PathBuf, Table)>, ConfigError> {
    let (path, named_by) = if let Some(path) = &sources.config_flag {
        (path.clone(), "--config")
    } else if let Some(path) = env.text(env::CONFIG) {
        (PathBuf::from(path), env::CONFIG)
    } else {
        (PathBuf::from(FILE_NAME), "the working directory")
    };
    match fs::read_to_string(sources.directory.join(&path)) {
        Ok(toml) => parse_file(&toml, path).map(Some),
        Err(cause) if named_by == "the working directory" && cause.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(cause) => Err(ConfigError::Unreadable { path, named_by, cause }),
    }
}

fn parse_file(toml: &str, path: PathBuf) -> Result<(PathBuf, Table), ConfigError> {
    match settings::parse(toml, Some(Path::new(&path))) {
        Ok(layer) => Ok((path, layer)),
        Err((line, reason)) => Err(ConfigError::Syntax { path, line, reason }),
    }
}
