//! The layers of settings before they have types: a tree of values, each with the place that set it.
//!
//! [`parse`] reads a layer, [`Table::merge`] lays one over another key by key, and a [`Section`] reads the result,
//! collecting problems. A section learns the keys it accepts from being asked for them, so the list in the message
//! about an unknown key cannot differ from what is read.

use std::{fmt, path::Path, sync::Arc};

use toml::{
    Spanned, Value,
    de::{DeTable, DeValue},
};

use super::{error::Problem, units::Read};
use crate::secret::{self, MASK};

/// Longest value quoted in a message, in characters.
const QUOTED_MAX: usize = 120;

/// Where a value was set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    BuiltIn,
    File { path: Arc<Path>, line: usize },
    Env(&'static str),
    Flag(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BuiltIn => f.write_str("built in"),
            Self::File { path, line } => write!(f, "{} line {line}", path.display()),
            Self::Env(name) | Self::Flag(name) => f.write_str(name),
        }
    }
}

/// One key's content.
#[derive(Clone, Debug)]
pub(super) enum Node {
    Value {
        value: Value,
        origin: Origin,
    },
    Table(Table),
    /// `[[feed]]`.
    Tables {
        tables: Vec<Table>,
        origin: Origin,
    },
}

impl Node {
    pub(super) fn origin(&self) -> &Origin {
        match self {
            Self::Value { origin, .. } | Self::Tables { origin, .. } => origin,
            Self::Table(table) => &table.origin,
        }
    }

    pub(super) fn to_value(&self) -> Value {
        match self {
            Self::Value { value, .. } => value.clone(),
            Self::Table(table) => table.to_value(),
            Self::Tables { tables, .. } => Value::Array(tables.iter().map(Table::to_value).collect()),
        }
    }
}

/// Keys in the order of the layer that had them first.
#[derive(Clone, Debug)]
pub(super) struct Table {
    pub(super) origin: Origin,
    pub(super) entries: Vec<(String, Node)>,
}

impl Table {
    pub(super) fn new(origin: Origin) -> Self {
        Self { origin, entries: Vec::new() }
    }

    pub(super) fn node(&self, key: &str) -> Option<&Node> {
        self.entries.iter().find(|(name, _)| name == key).map(|(_, node)| node)
    }

    pub(super) fn node_mut(&mut self, key: &str) -> Option<&mut Node> {
        self.entries.iter_mut().find(|(name, _)| name == key).map(|(_, node)| node)
    }

    /// The text of `table.key`, if there is one.
    pub(super) fn text(&self, table: &str, key: &str) -> Option<&str> {
        match self.node(table)? {
            Node::Table(table) => match table.node(key)? {
                Node::Value { value, .. } => value.as_str(),
                _ => None,
            },
            _ => None,
        }
    }

    pub(super) fn remove(&mut self, key: &str) -> Option<Node> {
        let at = self.entries.iter().position(|(name, _)| name == key)?;
        Some(self.entries.remove(at).1)
    }

    /// Sets a key in its place, or at the end if it is new.
    pub(super) fn set(&mut self, key: &str, value: Value, origin: Origin) {
        self.set_node(key, Node::Value { value, origin });
    }

    /// As [`Table::set`], for any content.
    pub(super) fn set_node(&mut self, key: &str, node: Node) {
        match self.node_mut(key) {
            Some(old) => *old = node,
            None => self.entries.push((key.to_owned(), node)),
        }
    }

    /// Sets a key of a table in this one. Where a file put something else in the table's place, that stays: reading
    /// it will be refused.
    pub(super) fn set_in(&mut self, table: &str, key: &str, value: Value, origin: Origin) {
        if let Some(Node::Table(table)) = self.node_mut(table) {
            table.set(key, value, origin);
        }
    }

    /// Lays `over` over this table: its values win, tables are merged key by key, everything else stays.
    pub(super) fn merge(&mut self, over: Table) {
        self.origin = over.origin;
        for (key, node) in over.entries {
            match (self.node_mut(&key), node) {
                (Some(Node::Table(old)), Node::Table(new)) => old.merge(new),
                (Some(old), new) => *old = new,
                (None, new) => self.entries.push((key, new)),
            }
        }
    }

    pub(super) fn to_value(&self) -> Value {
        Value::Table(self.entries.iter().map(|(key, node)| (key.clone(), node.to_value())).collect())
    }
}

/// Reads a layer of TOML. `path` is the file's, for origins; `None` is the built-in one.
///
/// # Errors
/// Line (from 1) and reason of the first thing that is not TOML.
pub(super) fn parse(toml: &str, path: Option<&Path>) -> Result<Table, (usize, String)> {
    let origins =
        Origins { line_ends: toml.match_indices('\n').map(|(at, _)| at).collect(), path: path.map(Arc::from) };
    let document = DeTable::parse(toml).map_err(|error| {
        let at = error.span().map_or(0, |span| span.start);
        // The parser's message may go on over several lines; ours are one line each.
        (origins.line(at), error.message().replace('\n', ", "))
    })?;
    Ok(origins.table(document.get_ref(), 0))
}

/// Turns offsets into lines. The ends are collected once: a file of 100,000 feeds has half a million offsets.
struct Origins {
    line_ends: Vec<usize>,
    path: Option<Arc<Path>>,
}

impl Origins {
    fn line(&self, at: usize) -> usize {
        1 + self.line_ends.partition_point(|&end| end < at)
    }

    fn origin(&self, at: usize) -> Origin {
        match &self.path {
            Some(path) => Origin::File { path: Arc::clone(path), line: self.line(at) },
            None => Origin::BuiltIn,
        }
    }

    fn table(&self, table: &DeTable<'_>, at: usize) -> Table {
        // The parser sorts by key; the order of the file reads better in `config show` and in messages.
        let mut entries: Vec<_> = table.iter().collect();
        entries.sort_by_key(|(key, _)| key.span().start);
        let entries = entries.into_iter().map(|(key, value)| (key.get_ref().to_string(), self.node(value))).collect();
        Table { origin: self.origin(at), entries }
    }

    fn node(&self, value: &Spanned<DeValue<'_>>) -> Node {
        let at = value.span().start;
        match value.get_ref() {
            DeValue::Table(table) => Node::Table(self.table(table, at)),
            DeValue::Array(array) if array.iter().all(|element| element.get_ref().is_table()) => Node::Tables {
                tables: array
                    .iter()
                    .filter_map(|element| Some(self.table(element.get_ref().as_table()?, element.span().start)))
                    .collect(),
                origin: self.origin(at),
            },
            other => Node::Value { value: plain(other), origin: self.origin(at) },
        }
    }
}

fn plain(value: &DeValue<'_>) -> Value {
    match value {
        DeValue::String(text) => Value::String(text.to_string()),
        // A number that does not fit is kept as it was written: no reader of numbers takes it, and the message shows
        // it.
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
            .map_or_else(|_| Value::String(number.to_string()), Value::Integer),
        DeValue::Float(number) => {
            number.as_str().parse().map_or_else(|_| Value::String(number.to_string()), Value::Float)
        }
        DeValue::Boolean(boolean) => Value::Boolean(*boolean),
        DeValue::Datetime(datetime) => Value::Datetime(*datetime),
        DeValue::Array(array) => Value::Array(array.iter().map(|element| plain(element.get_ref())).collect()),
        DeValue::Table(table) => {
            Value::Table(table.iter().map(|(key, value)| (key.get_ref().to_string(), plain(value.get_ref()))).collect())
        }
    }
}

/// Reads the keys of one table, and collects what is wrong with them.
pub(super) struct Section<'a> {
    path: String,
    table: &'a Table,
    asked: Vec<&'static str>,
    problems: &'a mut Vec<Problem>,
}

impl<'a> Section<'a> {
    /// `path` is the table's, such as `stream.job_import_queue`; empty for the whole document.
    pub(super) fn new(path: String, table: &'a Table, problems: &'a mut Vec<Problem>) -> Self {
        Self { path, table, asked: Vec::new(), problems }
    }

    /// Opens a section of another table, whose problems are collected with those of this one.
    pub(super) fn beside<'b>(&'b mut self, path: String, table: &'b Table) -> Section<'b> {
        Section::new(path, table, self.problems)
    }

    /// Reads a key that must be there. `None` if it is not or is refused, and then the problem is noted.
    pub(super) fn read<T>(&mut self, key: &'static str, read: impl FnOnce(&Value) -> Read<T>) -> Option<T> {
        self.read_or(key, Err("is missing".to_owned()), read)
    }

    /// Reads a key that may be left out, and is `absent` then. `None` if it is refused, and then the problem is noted.
    pub(super) fn optional<T>(
        &mut self,
        key: &'static str,
        absent: T,
        read: impl FnOnce(&Value) -> Read<T>,
    ) -> Option<T> {
        self.read_or(key, Ok(absent), read)
    }

    fn read_or<T>(&mut self, key: &'static str, absent: Read<T>, read: impl FnOnce(&Value) -> Read<T>) -> Option<T> {
        self.asked.push(key);
        let value = self.table.node(key).map_or(absent, |node| read(&node.to_value()));
        value.map_err(|reason| self.refuse(key, reason)).ok()
    }

    /// Opens a table inside this one; `None` if it is missing or no table, and then the problem is noted.
    pub(super) fn table(&mut self, key: &'static str) -> Option<Section<'_>> {
        self.asked.push(key);
        match self.table.node(key) {
            Some(Node::Table(table)) => Some(Section::new(self.path_of(key), table, self.problems)),
            Some(_) => {
                self.refuse(key, "accepted: a table");
                None
            }
            None => {
                self.refuse(key, "is missing");
                None
            }
        }
    }

    /// Notes a problem of the value at `key`.
    pub(super) fn refuse(&mut self, key: &str, reason: impl Into<String>) {
        let node = self.table.node(key);
        self.problems.push(Problem {
            key: self.path_of(key),
            value: node.and_then(|node| quote(&self.path, key, node)),
            origin: Some(node.map_or(&self.table.origin, Node::origin).to_string()),
            reason: reason.into(),
        });
    }

    /// Notes every key nobody asked for.
    pub(super) fn finish(self) {
        for (key, node) in self.table.entries.iter().filter(|(key, _)| !self.asked.contains(&key.as_str())) {
            self.problems.push(Problem {
                // Any text can be a key; a message is one line.
                key: self.path_of(&key.escape_debug().to_string()),
                value: None,
                origin: Some(node.origin().to_string()),
                reason: format!("is an unknown key; accepted: {}", self.asked.join(", ")),
            });
        }
    }

    fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }
}

/// The value as it stands in TOML, on one line, cut, and without secrets. `None` for what may hold any of them.
fn quote(path: &str, key: &str, node: &Node) -> Option<String> {
    let value = match (path, key, node.to_value()) {
        ("", ..) | (_, "headers" | "auth", _) => return None,
        ("redis" | "mongodb", "url" | "uri", Value::String(url)) => Value::String(secret::mask_connection(&url)),
        (_, "url" | "source" | "proxy", Value::String(url)) => Value::String(secret::mask_url(&url)),
        (_, "url" | "uri" | "source" | "proxy", _) => Value::String(MASK.to_owned()),
        (.., value) => value,
    };
    let quoted = value.to_string().replace('\n', "\\n");
    Some(match quoted.char_indices().nth(QUOTED_MAX) {
        Some((cut, _)) => format!("{}…", &quoted[..cut]),
        None => quoted,
    })
}
