//! `feedmill parse`: feeds from files, as JSON.

use std::io::{self, Read as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;
use serde::Serialize;

use super::output;
use crate::error::chain;
use crate::feed::parse::{self, Hints};
use crate::item::{Enclosure, Item};

/// Read feeds from files and print their items, one JSON object a line
///
/// A file that cannot be read as a feed is an error on stderr; the others are printed all the same.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  feedmill parse feed.rss | jq -r .title
  feedmill parse - < feed.atom")]
pub(super) struct ParseArgs {
    /// Files to read; - is stdin
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
}

/// An item as it is printed: what the feed says, without what feedmill adds.
#[derive(Serialize)]
struct Printed<'a> {
    guid: Option<&'a str>,
    title: &'a Option<String>,
    link: &'a Option<String>,
    published: Option<jiff::Timestamp>,
    updated: Option<jiff::Timestamp>,
    summary: &'a Option<String>,
    content: &'a Option<String>,
    author: &'a Option<String>,
    categories: &'a [String],
    enclosures: &'a [Enclosure],
    extensions: &'a std::collections::BTreeMap<String, serde_json::Value>,
}

pub(super) fn run(args: &ParseArgs) -> ExitCode {
    let mut status = ExitCode::SUCCESS;
    for file in &args.files {
        if let Err(error) = print_items(file) {
            output::error_line(&chain(error.as_ref()));
            status = ExitCode::FAILURE;
        }
    }
    status
}

fn print_items(file: &PathBuf) -> anyhow::Result<()> {
    let is_stdin = file.as_os_str() == "-";
    let name = if is_stdin { "stdin".to_owned() } else { file.display().to_string() };
    let mut body = Vec::new();
    if is_stdin {
        io::stdin().read_to_end(&mut body)
    } else {
        std::fs::File::open(file).and_then(|mut file| file.read_to_end(&mut body))
    }
    .with_context(|| format!("cannot read {name}"))?;
    let feed = parse::parse(&body, &Hints::default()).with_context(|| format!("{name} cannot be read as a feed"))?;
    if let Some(recovered) = &feed.recovered {
        output::note(&format!("{name} is not well-formed and was mended: {recovered}"));
    }
    let mut out = io::BufWriter::new(io::stdout().lock());
    let written = feed.items.iter().try_for_each(|item| {
        serde_json::to_writer(&mut out, &printed(item))?;
        out.write_all(b"\n")
    });
    written.and_then(|()| out.flush()).or_else(super::stdout_failed)
}

fn printed(item: &Item) -> Printed<'_> {
    Printed {
        guid: Some(item.guid.as_str()).filter(|guid| !guid.is_empty()),
        title: &item.title,
        link: &item.link,
        published: item.published,
        updated: item.updated,
        summary: &item.summary,
        content: &item.content,
        author: &item.author,
        categories: &item.categories,
        enclosures: &item.enclosures,
        extensions: &item.extensions,
    }
}
