//! `feedmill feeds import-opml` and `export-opml`: many subscriptions at once.

use std::collections::HashSet;
use std::io::Read as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use super::{SubscriptionArgs, check, secret_url, subscribed};
use crate::cli::output;
use crate::config::Config;
use crate::feed::fetch::shown;
use crate::feed::opml::{self, Outline};

/// Subscriptions that are written at a time.
const PIECE: usize = 500;
/// Addresses that cannot be subscribed to, and are named.
const NAMED_MAX: usize = 20;

/// Subscribe to all feeds of an OPML file
///
/// Nothing is fetched here. What is subscribed to already is passed over.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  feedmill feeds import-opml feeds.opml
  feedmill feeds import-opml - --schedule \"every 1h\" <feeds.opml")]
pub(in crate::cli) struct ImportArgs {
    /// The file, or - for stdin
    file: PathBuf,
    #[command(flatten)]
    subscription: SubscriptionArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Print all feeds as OPML, for other readers
#[derive(Debug, Args)]
#[command(after_help = "Example:
  feedmill feeds export-opml >feeds.opml")]
pub(in crate::cli) struct ExportArgs {}

pub(super) async fn import(config: &Config, args: &ImportArgs) -> anyhow::Result<ExitCode> {
    args.subscription.check()?;
    let is_stdin = args.file.as_os_str() == "-";
    let name = if is_stdin { "stdin".to_owned() } else { args.file.display().to_string() };
    let mut bytes = Vec::new();
    if is_stdin {
        std::io::stdin().read_to_end(&mut bytes)
    } else {
        std::fs::File::open(&args.file).and_then(|mut file| file.read_to_end(&mut bytes))
    }
    .with_context(|| format!("cannot read {name}"))?;
    let outlines =
        opml::read(&String::from_utf8_lossy(&bytes)).map_err(|reason| anyhow::anyhow!("{name}: {reason}"))?;
    let (store, _, mut taken) = subscribed(config).await?;
    let mut urls: HashSet<String> = taken.urls.keys().cloned().collect();
    let (mut known, mut refused, mut wanted) = (0_usize, Vec::new(), Vec::new());
    for Outline { url, title } in outlines {
        match check::web_address(&url) {
            Ok(url) if secret_url(&url).is_some() => refused.push(shown(&url)),
            Ok(url) if !urls.insert(url.to_string()) => known += 1,
            Ok(url) => {
                let name = taken.new_name(title.as_deref(), &url);
                wanted.push(args.subscription.subscription(name, url.into(), None, title));
            }
            Err(_) => refused.push(output::one_line(&url)),
        }
    }
    let bar = ProgressBar::new(wanted.len() as u64);
    let style = ProgressStyle::with_template("{spinner} {bar:30} {pos}/{len} feeds  {elapsed}");
    bar.set_style(style.expect("the template is right"));
    let mut added = 0;
    for piece in wanted.chunks(PIECE) {
        let results = store.add_subscriptions(piece).await?;
        added += results.iter().filter(|is_added| **is_added).count();
        // Somebody else has taken the name since we looked.
        refused.extend(results.iter().zip(piece).filter(|(is_added, _)| !**is_added).map(|(_, one)| one.url.clone()));
        bar.inc(piece.len() as u64);
    }
    bar.finish_and_clear();
    for url in refused.iter().take(NAMED_MAX) {
        output::note(&format!("not subscribed to {url}: no web address, or it holds a secret, or its name is taken"));
    }
    if refused.len() > NAMED_MAX {
        output::note(&format!("and {} more", refused.len() - NAMED_MAX));
    }
    if args.json {
        output::json(&json!({ "added": added, "known": known, "refused": refused.len() }))?;
    } else {
        output::line(&format!("{added} added, {known} known already, {} refused", refused.len()))?;
    }
    Ok(if refused.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

pub(super) async fn export(config: &Config, _args: &ExportArgs) -> anyhow::Result<ExitCode> {
    let (_, subscriptions, _) = subscribed(config).await?;
    let mut outlines = Vec::new();
    for feed in &config.feeds {
        if secret_url(&feed.url).is_some() {
            output::note(&format!("{} is left out: its address holds a secret", feed.name));
        } else {
            outlines.push(Outline { url: feed.url.to_string(), title: Some(feed.name.clone()) });
        }
    }
    outlines.extend(subscriptions.into_iter().map(|one| Outline { url: one.url, title: one.title.or(Some(one.name)) }));
    output::line(opml::write(&outlines).trim_end())?;
    Ok(ExitCode::SUCCESS)
}
