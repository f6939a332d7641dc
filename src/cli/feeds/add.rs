//! `feedmill feeds add`: subscribes to one feed, which may be found on a web page.

use std::process::ExitCode;

use clap::Args;
use serde_json::json;
use url::Url;

use super::{SubscriptionArgs, check, secret_url, subscribed};
use crate::cli::{UsageError, output};
use crate::config::Config;
use crate::feed::fetch::Fetcher;
use crate::pipeline::fetch_limits;

/// Subscribe to a feed
///
/// URL is that of the feed, or of a web page that names its feed. It is fetched and read first. Running processes know
/// the feed within seconds.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  feedmill feeds add https://jobs.example/rss.xml
  feedmill feeds add https://blog.example --name blog --schedule \"every 1h\"")]
pub(in crate::cli) struct AddArgs {
    /// Address of the feed or of a page, http:// or https://
    url: String,
    /// Its name [else made of its title]
    #[arg(long, value_name = "NAME", value_parser = name)]
    name: Option<String>,
    /// What its items belong to [else its address]
    #[arg(long, value_name = "SOURCE")]
    source: Option<String>,
    #[command(flatten)]
    subscription: SubscriptionArgs,
    /// Do not fetch it first
    #[arg(long)]
    no_check: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

fn name(text: &str) -> Result<String, String> {
    let is_accepted = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    if (1..=200).contains(&text.len()) && text.chars().all(is_accepted) {
        Ok(text.to_owned())
    } else {
        Err("accepted: 1 to 200 letters, digits and _ . -".to_owned())
    }
}

pub(super) async fn run(config: &Config, args: AddArgs) -> anyhow::Result<ExitCode> {
    args.subscription.check()?;
    let asked = check::web_address(&args.url)?;
    if let Some(error) = secret_url(&asked) {
        return Err(error.into());
    }
    let (store, _, mut taken) = subscribed(config).await?;
    let (url, title) = if args.no_check {
        (asked, None)
    } else {
        let found = check::find(&Fetcher::new(fetch_limits(config))?, &asked).await?;
        if found.url != asked {
            output::note(&format!("the feed of {asked} is {}", found.url));
        }
        (found.url, found.feed.title)
    };
    if let Some(error) = secret_url(&url) {
        return Err(error.into());
    }
    if let Some(name) = taken.urls.get(url.as_str()) {
        anyhow::bail!("{url} is the address of feed {name} already");
    }
    let is_taken = |name: &str| anyhow::anyhow!("there is a feed {name} already; choose another --name");
    let name = match args.name {
        Some(name) if taken.names.contains(&name) => return Err(is_taken(&name)),
        Some(name) => name,
        None => taken.new_name(title.as_deref(), &url),
    };
    if args.source.as_ref().is_some_and(String::is_empty) {
        return Err(UsageError("--source is empty".to_owned()).into());
    }
    let subscription = args.subscription.subscription(name.clone(), Url::into(url), args.source, title);
    if store.add_subscriptions(std::slice::from_ref(&subscription)).await? != [true] {
        return Err(is_taken(&name));
    }
    if args.json {
        output::json(&json!({ "name": name, "url": subscription.url, "title": subscription.title }))?;
    } else {
        output::line(&format!("subscribed to {name}: {}", subscription.url))?;
    }
    Ok(ExitCode::SUCCESS)
}
