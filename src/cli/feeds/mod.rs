//! `feedmill feeds`: the subscriptions, which are in MongoDB, and beside them the feeds of the configuration.

mod add;
mod check;
mod list;
mod opml;

use std::collections::{BTreeMap, HashSet};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, Subcommand};

use super::{Globals, UsageError};
use crate::config::{Config, FeedConfig};
use crate::feed::OnLeave;
use crate::feed::schedule::{AUTO, Schedule};
use crate::pipeline::open_store;
use crate::store::Store;
use crate::store::subscriptions::Subscription;

/// Characters of a name that is made of a title or an address.
const NAME_CHARS_MAX: usize = 60;

#[derive(Debug, Subcommand)]
pub(super) enum FeedsCommand {
    List(list::ListArgs),
    Show(list::ShowArgs),
    Add(add::AddArgs),
    Remove(RemoveArgs),
    Pause(PauseArgs),
    Resume(ResumeArgs),
    Check(check::CheckArgs),
    ImportOpml(opml::ImportArgs),
    ExportOpml(opml::ExportArgs),
}

/// End subscriptions; documents that were imported stay
#[derive(Debug, Args)]
#[command(after_help = "Example:
  feedmill feeds remove jobs.example")]
pub(super) struct RemoveArgs {
    /// Names of feeds
    #[arg(value_name = "FEED", required = true)]
    feeds: Vec<String>,
}

/// Let the schedules of subscriptions rest; `fetch` still fetches them
#[derive(Debug, Args)]
#[command(after_help = "Example:
  feedmill feeds pause jobs.example")]
pub(super) struct PauseArgs {
    /// Names of feeds
    #[arg(value_name = "FEED", required = true)]
    feeds: Vec<String>,
}

/// Let the schedules of subscriptions go on
#[derive(Debug, Args)]
#[command(after_help = "Example:
  feedmill feeds resume jobs.example")]
pub(super) struct ResumeArgs {
    /// Names of feeds
    #[arg(value_name = "FEED", required = true)]
    feeds: Vec<String>,
}

/// What new subscriptions have in common.
#[derive(Debug, Args)]
struct SubscriptionArgs {
    /// When to fetch: a cron pattern, "every 15m" or "auto"
    #[arg(long, value_name = "SCHEDULE", default_value = AUTO)]
    schedule: String,
    /// Time zone of a cron pattern
    #[arg(long, value_name = "ZONE")]
    timezone: Option<String>,
    /// What becomes of documents whose item leaves the feed: keep, mark or delete
    #[arg(long, value_name = "WHAT", default_value = "keep", value_parser = on_leave)]
    on_leave: OnLeave,
}

fn on_leave(text: &str) -> Result<OnLeave, String> {
    match text {
        "keep" => Ok(OnLeave::Keep),
        "mark" => Ok(OnLeave::Mark),
        "delete" => Ok(OnLeave::Delete),
        _ => Err("accepted: keep, mark or delete".to_owned()),
    }
}

impl SubscriptionArgs {
    fn check(&self) -> anyhow::Result<()> {
        let parsed = Schedule::parse(&self.schedule, self.timezone.as_deref());
        parsed.map(drop).map_err(|error| UsageError(crate::error::chain(&error)).into())
    }

    fn subscription(&self, name: String, url: String, source: Option<String>, title: Option<String>) -> Subscription {
        Subscription {
            name,
            source: source.unwrap_or_else(|| url.clone()),
            url,
            title,
            schedule: self.schedule.clone(),
            timezone: self.timezone.clone(),
            on_leave: self.on_leave,
            paused: false,
            changed_at: jiff::Timestamp::now(),
        }
    }
}

pub(super) async fn run(globals: &Globals, command: FeedsCommand) -> anyhow::Result<ExitCode> {
    let config = globals.load(None)?;
    match command {
        FeedsCommand::List(args) => list::list(&config, &args).await,
        FeedsCommand::Show(args) => list::show(&config, &args).await,
        FeedsCommand::Add(args) => add::run(&config, args).await,
        FeedsCommand::Remove(args) => {
            each(&config, &args.feeds, async |store: &Store, name: &str| store.remove_subscription(name).await).await
        }
        FeedsCommand::Pause(args) => {
            each(&config, &args.feeds, async |store: &Store, name: &str| store.pause_subscription(name, true).await)
                .await
        }
        FeedsCommand::Resume(args) => {
            each(&config, &args.feeds, async |store: &Store, name: &str| store.pause_subscription(name, false).await)
                .await
        }
        FeedsCommand::Check(args) => check::run(&config, &args).await,
        FeedsCommand::ImportOpml(args) => opml::import(&config, &args).await,
        FeedsCommand::ExportOpml(args) => opml::export(&config, &args).await,
    }
}

/// Does something to each of these subscriptions.
async fn each(
    config: &Config,
    names: &[String],
    change: impl AsyncFn(&Store, &str) -> Result<bool, crate::store::StoreError>,
) -> anyhow::Result<ExitCode> {
    if let Some(own) = names.iter().find(|name| config.feeds.iter().any(|feed| feed.name == **name)) {
        return Err(UsageError(format!("{own} is a feed of {}: change it there", file_of(config))).into());
    }
    let store = open_store(config).await?;
    for name in names {
        if !change(&store, name).await? {
            anyhow::bail!("there is no subscription {name:?}; `feedmill feeds list` shows them");
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn file_of(config: &Config) -> String {
    config.file.as_ref().map_or_else(|| "streams.toml".to_owned(), |file| file.display().to_string())
}

/// The names and addresses that are taken.
struct Taken {
    names: HashSet<String>,
    /// Name by address.
    urls: BTreeMap<String, String>,
}

impl Taken {
    fn of(configured: &[FeedConfig], subscriptions: &[Subscription]) -> Self {
        let configured = configured.iter().map(|feed| (feed.name.clone(), feed.url.to_string()));
        let all = configured.chain(subscriptions.iter().map(|one| (one.name.clone(), one.url.clone())));
        let mut taken = Self { names: HashSet::new(), urls: BTreeMap::new() };
        for (name, url) in all {
            taken.names.insert(name.clone());
            taken.urls.insert(url, name);
        }
        taken
    }

    /// A name that is free, made of the title of a feed or else of its address; it is taken then.
    fn new_name(&mut self, title: Option<&str>, url: &url::Url) -> String {
        let slug = |text: &str| {
            let words = text.to_ascii_lowercase();
            let words = words.split(|c: char| !c.is_ascii_alphanumeric() && c != '.').filter(|word| !word.is_empty());
            let slug = words.collect::<Vec<_>>().join("-");
            slug.chars().take(NAME_CHARS_MAX).collect::<String>().trim_matches(['-', '.']).to_owned()
        };
        let of_title = title.map(slug).filter(|slug| slug.len() > 2);
        let of_url = || slug(url.host_str().unwrap_or_default().trim_start_matches("www."));
        let base = of_title.unwrap_or_else(of_url);
        let base = if base.is_empty() { "feed".to_owned() } else { base };
        let mut name = base.clone();
        for number in 2_u64.. {
            if self.names.insert(name.clone()) {
                break;
            }
            name = format!("{base}-{number}");
        }
        name
    }
}

/// The subscriptions and what is taken by them and by the configuration.
async fn subscribed(config: &Config) -> anyhow::Result<(Store, Vec<Subscription>, Taken)> {
    let store = open_store(config).await?;
    let subscriptions = store.subscriptions().await.context("the subscriptions cannot be read")?;
    let taken = Taken::of(&config.feeds, &subscriptions);
    Ok((store, subscriptions, taken))
}

fn secret_url(url: &url::Url) -> Option<UsageError> {
    let shown = crate::feed::fetch::shown(url);
    (shown != url.as_str()).then(|| {
        UsageError(format!(
            "{shown} holds a secret; feeds that need one belong into streams.toml, which can keep it apart"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_made_of_the_title_or_the_host_and_is_free() {
        let mut taken = Taken { names: HashSet::new(), urls: BTreeMap::new() };
        let url = "https://www.Example.com/feed".parse().expect("is a URL");
        for (title, name) in [
            (Some("Jobs & More!"), "jobs-more"),
            (Some("Jobs more"), "jobs-more-2"),
            (Some("日本"), "example.com"),
            (None, "example.com-2"),
            (Some("../.."), "example.com-3"),
        ] {
            assert_eq!(taken.new_name(title, &url), name);
        }
    }
}
