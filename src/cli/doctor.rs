//! `feedmill doctor`: whether feedmill can work with what it is given.

use std::process::ExitCode;

use clap::Args;
use serde::Serialize;

use super::{Globals, output};
use crate::config::Config;
use crate::error::chain;
use crate::pipeline::Queues;
use crate::store::Store;

/// Exit status when something is wrong.
const ANOMALY: u8 = 3;

/// Check Redis, MongoDB and what is stored in it
///
/// Finds what would prevent the unique index on source and guid in a collection that another system has filled. With
/// --fix the newest document of each item is kept, and the others are deleted: stop whatever else writes them first. Exit
/// status 3: something is wrong.
///
/// As JSON: [{check, ok, detail}].
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  feedmill doctor
  feedmill doctor --fix        after a backup")]
pub(super) struct DoctorArgs {
    /// Delete all but the newest of documents that are of the same item
    #[arg(long)]
    fix: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// One thing that was looked at.
#[derive(Debug, Serialize)]
struct Finding {
    check: &'static str,
    ok: bool,
    detail: String,
}

fn finding(check: &'static str, ok: bool, detail: impl Into<String>) -> Finding {
    Finding { check, ok, detail: detail.into() }
}

pub(super) async fn run(globals: &Globals, args: &DoctorArgs) -> anyhow::Result<ExitCode> {
    let config = globals.load(None)?;
    let mut findings = redis(&config).await;
    findings.extend(mongodb(&config, args.fix).await);
    let status = if findings.iter().all(|finding| finding.ok) { ExitCode::SUCCESS } else { ExitCode::from(ANOMALY) };
    if args.json {
        output::json(&findings)?;
    } else {
        for Finding { check, ok, detail } in &findings {
            output::line(&format!("{:<6}{check:<11}{}", if *ok { "ok" } else { "wrong" }, output::one_line(detail)))?;
        }
    }
    Ok(status)
}

async fn redis(config: &Config) -> Vec<Finding> {
    match Queues::open(config).await {
        Err(error) => vec![finding("redis", false, chain(&error))],
        Ok(queues) => {
            let warnings = queues.import.redis().settings_warnings().await;
            if warnings.is_empty() {
                return vec![finding("redis", true, "answers, and is set up to keep jobs")];
            }
            warnings.into_iter().map(|warning| finding("redis", false, warning)).collect()
        }
    }
}

async fn mongodb(config: &Config, fix: bool) -> Vec<Finding> {
    let store = match Store::connect(config.mongodb.uri.expose(), &config.mongodb.database).await {
        Ok(store) => store,
        Err(error) => return vec![finding("mongodb", false, chain(&error))],
    };
    let mut findings = vec![finding("mongodb", true, "answers")];
    match documents(&store, fix).await {
        Ok(found) => findings.extend(found),
        Err(error) => findings.push(finding("documents", false, chain(&error))),
    }
    findings
}

/// Looks at the documents and, if nothing is in their way, makes the indexes.
async fn documents(store: &Store, fix: bool) -> Result<Vec<Finding>, crate::store::StoreError> {
    let mut obstacles = store.find_obstacles().await?;
    let mut findings = Vec::new();
    if fix && !obstacles.is_empty() {
        let deleted = store.remove_obstacles(&obstacles).await?;
        findings.push(finding("documents", true, format!("{deleted} older duplicates were deleted")));
        obstacles = store.find_obstacles().await?;
    }
    if let Some((source, guid)) = &obstacles.example {
        let (items, surplus) = (obstacles.duplicated_items, obstacles.surplus_documents);
        findings.push(finding(
            "documents",
            false,
            format!(
                "{items} items have {surplus} documents too many (source {source:?}, guid {guid:?}); \
                 `feedmill doctor --fix` keeps the newest of each"
            ),
        ));
    }
    if let Some(name) = &obstacles.plain_index {
        findings.push(finding(
            "documents",
            false,
            format!("the index {name} on source and guid is not unique; `feedmill doctor --fix` replaces it"),
        ));
    }
    if obstacles.unidentified_documents > 0 {
        let count = obstacles.unidentified_documents;
        findings.push(finding(
            "documents",
            false,
            format!("{count} documents of jobs have no source or no guid as a text; give them one, or move them away"),
        ));
    }
    if obstacles.is_empty() {
        if fix {
            store.ensure_indexes().await?;
        }
        findings.push(finding("documents", true, "nothing is in the way of the unique index on source and guid"));
    }
    Ok(findings)
}
