//! Prints the configuration in force, for `feedmill config show`: secrets masked, with where each value was set.
//!
//! The text is TOML that [`Config::load`] accepts again. Secrets are masked when the configuration is loaded, so what
//! is kept for printing never held them.

use std::fmt::Write as _;

use serde_json::json;
use toml::Value;

use super::{
    Config,
    settings::{Node, Origin, Table},
};
use crate::secret::{self, MASK};

/// All settings in force, masked, in the order of the shipped file.
#[derive(Clone, Debug)]
pub(super) struct Effective {
    /// Everything but the queues' sections and the feeds.
    sections: Table,
    /// Name and section of the import queue, then of the fetch queue.
    queues: [(String, Table); 2],
    feeds: Vec<Table>,
    /// Whether `FEEDMILL_TOKEN` is set.
    has_token: bool,
}

impl Effective {
    pub(super) fn new(mut settings: Table, queues: [(String, Table); 2], has_token: bool) -> Self {
        let mut feeds = match settings.remove("feed") {
            Some(Node::Tables { tables, .. }) => tables,
            _ => Vec::new(),
        };
        for feed in &mut feeds {
            mask_text(feed, "url", secret::mask_url);
            mask_text(feed, "source", secret::mask_url);
            mask_text(feed, "proxy", secret::mask_url);
            if let Some(Node::Table(headers)) = feed.node_mut("headers") {
                for (name, node) in &mut headers.entries {
                    if let Node::Value { value, .. } = node
                        && secret::is_secret_name(name)
                    {
                        *value = Value::String(MASK.to_owned());
                    }
                }
            }
        }
        for (section, key) in [("redis", "url"), ("mongodb", "uri")] {
            if let Some(Node::Table(section)) = settings.node_mut(section) {
                mask_text(section, key, secret::mask_connection);
            }
        }
        if let Some(Node::Table(fetch)) = settings.node_mut("fetch") {
            mask_text(fetch, "proxy", secret::mask_url);
        }
        Self { sections: settings, queues, feeds, has_token }
    }
}

fn mask_text(table: &mut Table, key: &str, mask: fn(&str) -> String) {
    if let Some(Node::Value { value: Value::String(text), .. }) = table.node_mut(key) {
        *text = mask(text);
    }
}

/// Writes the configuration as TOML. A value that is not built in has a comment that says where it was set.
pub fn render(config: &Config) -> String {
    let Effective { sections, queues, feeds, has_token } = &config.effective;
    let mut toml = String::from("# The configuration in force, secrets masked. Values without a note are built in.\n");
    match &config.file {
        Some(file) => line(&mut toml, &format!("# file: {}", file.display())),
        None => line(&mut toml, "# file: none"),
    }
    line(&mut toml, if *has_token { "# FEEDMILL_TOKEN: set" } else { "# FEEDMILL_TOKEN: unset" });
    for (name, node) in &sections.entries {
        if let Node::Table(section) = node {
            block(&mut toml, &format!("[{}]", bare_or_quoted(name)), section);
        }
    }
    for (name, section) in queues {
        block(&mut toml, &format!("[stream.{}]", bare_or_quoted(name)), section);
    }
    for feed in feeds {
        block(&mut toml, "[[feed]]", feed);
    }
    toml
}

/// The configuration as JSON, in the shape of the TOML; `http.token` is `"set"` or `"unset"`.
pub fn to_json(config: &Config) -> serde_json::Value {
    let Effective { sections, queues, feeds, has_token } = &config.effective;
    let mut all = sections.clone();
    all.set_in("http", "token", Value::from(if *has_token { "set" } else { "unset" }), Origin::BuiltIn);
    let mut json = json!(all.to_value());
    json["stream"] = queues.iter().map(|(name, section)| (name.clone(), json!(section.to_value()))).collect();
    json["feed"] = feeds.iter().map(|feed| json!(feed.to_value())).collect();
    json
}

fn block(toml: &mut String, header: &str, section: &Table) {
    line(toml, "");
    line(toml, header);
    for (key, node) in &section.entries {
        let note = origins(node);
        let note = if note.is_empty() { note } else { format!("  # {note}") };
        line(toml, &format!("{} = {}{note}", bare_or_quoted(key), node.to_value()));
    }
}

fn line(toml: &mut String, text: &str) {
    // Writing to a String cannot fail.
    let _ = writeln!(toml, "{text}");
}

/// Where a value, or the parts of an inline table, were set; empty if all of it is built in.
fn origins(node: &Node) -> String {
    let mut origins: Vec<String> = match node {
        Node::Table(table) => table.entries.iter().map(|(_, node)| origins(node)).collect(),
        _ if *node.origin() == Origin::BuiltIn => Vec::new(),
        _ => vec![node.origin().to_string()],
    };
    origins.retain(|origin| !origin.is_empty());
    origins.dedup();
    origins.join(", ")
}

fn bare_or_quoted(key: &str) -> String {
    if key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-') {
        key.to_owned()
    } else {
        Value::from(key).to_string()
    }
}
