//! `feedmill demo`: feeds to try feedmill on.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, Subcommand};

use super::{UsageError, output};
use crate::demo::{self, GeneratedFeed, ITEM_BYTES_DEFAULT};
use crate::shutdown;

#[derive(Debug, Subcommand)]
pub(super) enum DemoCommand {
    /// Serve a folder of feeds over HTTP, and generated feeds under /generated/ITEMS.rss
    #[command(after_help = "Example:
  feedmill demo serve demo/feeds --listen 127.0.0.1:4100")]
    Serve(ServeArgs),
    /// Print a generated feed
    #[command(after_help = "Example:
  feedmill demo generate 5000 --seed 7 > large.rss")]
    Generate(GenerateArgs),
}

#[derive(Debug, Args)]
pub(super) struct ServeArgs {
    /// Folder with the feeds
    folder: PathBuf,
    /// Address to listen on; port 0 takes a free one and prints it
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:4100")]
    listen: SocketAddr,
}

#[derive(Debug, Args)]
pub(super) struct GenerateArgs {
    /// Number of items
    items: usize,
    /// Bytes of one item, at least
    #[arg(long, value_name = "N", default_value_t = ITEM_BYTES_DEFAULT)]
    bytes: usize,
    /// The same seed gives the same feed
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Give the item at this position (from 0) another title
    #[arg(long, value_name = "N")]
    edited: Option<usize>,
}

pub(super) async fn run(command: DemoCommand) -> anyhow::Result<ExitCode> {
    match command {
        DemoCommand::Serve(args) => {
            if !args.folder.is_dir() {
                return Err(UsageError(format!("{} is not a folder", args.folder.display())).into());
            }
            let shutdown = shutdown::on_signal().context("cannot handle signals")?;
            let listener = tokio::net::TcpListener::bind(args.listen).await;
            let listener = listener.with_context(|| format!("cannot listen on {}", args.listen))?;
            output::line(&format!("serving {} on http://{}", args.folder.display(), listener.local_addr()?))?;
            demo::serve(listener, args.folder, shutdown.cancelled_owned()).await?;
        }
        DemoCommand::Generate(args) => {
            let feed = GeneratedFeed {
                item_bytes: args.bytes,
                seed: args.seed,
                edited: args.edited,
                ..GeneratedFeed::new(args.items)
            };
            let written = feed.write_to(&mut std::io::BufWriter::new(std::io::stdout().lock()));
            written.or_else(super::stdout_failed)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
