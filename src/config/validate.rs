//! From settings to values with types: the range of each key, and the rules between keys.
//!
//! Each function reads one table, reports everything wrong with it, and answers `None` if a value is missing for that.

use std::{
    collections::{BTreeMap, HashSet},
    path::PathBuf,
    time::Duration,
};

use jiff::tz::TimeZone;
use mongodb::options::ConnectionString;
use redis::IntoConnectionInfo;
use reqwest::header::{HeaderName, HeaderValue};
use toml::Value;
use url::Url;

use crate::feed::OnLeave;
use crate::feed::fetch::{Credentials, Kept, Network, Networks, Proxy};
use crate::feed::schedule::{Schedule, ScheduleError};

use super::{
    Backoff, BackoffKind, Config, Events, FeedConfig, FetchConfig, GroupBy, GroupKey, HttpConfig, Limiter, MongoConfig,
    Problem, QueueConfig, RedisConfig, Retention,
    settings::{Node, Section, Table},
    show,
    units::{self, Read},
};
use crate::secret::{self, MongoUri, RedisUrl, Secret};

/// How long a write may take before it is clear that MongoDB hangs.
const WRITE_TIME_MAX: Duration = Duration::from_mins(1);

/// Jobs a worker may hold. Each is renewed at half of `lock_duration`: at the default that is already 6,700 renewals a
/// second.
const HELD_MAX: usize = 100_000;

/// Longest `source` in bytes. A job id holds source and guid in at most 4 KiB, and long guids are more common.
const SOURCE_MAX: usize = 1024;

/// Bytes of a MongoDB database name, by the server's rule.
const DATABASE_MAX: usize = 63;

/// Characters MongoDB refuses in the name of a database, on the strictest of its platforms.
const DATABASE_REFUSED: &str = "/\\. \"$*<>:|?\0";

/// `spread` of a feed that has none: the most there is, so that the feeds of one slot do not start all at once.
const SPREAD: Duration = Duration::from_mins(1);

/// Headers that are ours to send. A conditional one from the file would make every fetch a 304, and items be missed.
const OWN_HEADERS: [&str; 6] =
    ["accept-encoding", "connection", "content-length", "host", "if-modified-since", "if-none-match"];

/// Window of a group that has none: enough of a source's items for several batches of several workers, and one fetch at a
/// time from a host.
const IMPORT_WINDOW: u32 = 500;
const FETCH_WINDOW: u32 = 1;

/// What comes out of the settings; the rest of [`Config`] does not depend on them.
pub(super) struct Checked {
    redis: RedisConfig,
    mongodb: MongoConfig,
    http: HttpConfig,
    fetch: FetchConfig,
    import_queue: QueueConfig,
    fetch_queue: QueueConfig,
    feeds: Vec<FeedConfig>,
}

impl Checked {
    pub(super) fn into_config(
        self,
        token: Option<String>,
        file: Option<PathBuf>,
        effective: show::Effective,
    ) -> Config {
        Config {
            redis: self.redis,
            mongodb: self.mongodb,
            http: HttpConfig { token: token.map(Secret::new), ..self.http },
            fetch: self.fetch,
            import_queue: self.import_queue,
            fetch_queue: self.fetch_queue,
            feeds: self.feeds,
            file,
            effective,
        }
    }
}

/// Which handler a queue feeds; some rules differ.
#[derive(Clone, Copy)]
enum Role {
    /// Batches of items.
    Import,
    /// One fetch at a time per slot, each with this long at most for HTTP, if that is known.
    Fetch { timeout: Option<Duration> },
}

/// Checks everything. `None` only if at least one problem was added.
pub(super) fn check(
    settings: &Table,
    (import_name, import): (&str, &Table),
    (fetch_name, fetch): (&str, &Table),
    problems: &mut Vec<Problem>,
) -> Option<Checked> {
    let mut root = Section::new(String::new(), settings, problems);
    let redis = root.table("redis").and_then(check_redis);
    let mongodb = root.table("mongodb").and_then(check_mongodb);
    if let Some(section) = root.table("queues") {
        check_queue_names(section);
    }
    let http = root.table("http").and_then(check_http);
    let fetch_limits = root.table("fetch").and_then(check_fetch);
    // The queues' sections are read below; the key is named here for the list of accepted ones.
    root.optional("stream", (), |_| Ok(()));
    let feeds = check_feeds(settings, &mut root);
    root.finish();

    let role = Role::Fetch { timeout: fetch_limits.as_ref().map(|limits| limits.timeout) };
    let import_queue = check_queue(import_name, Role::Import, import, problems);
    let fetch_queue = check_queue(fetch_name, role, fetch, problems);
    Some(Checked {
        redis: redis?,
        mongodb: mongodb?,
        http: http?,
        fetch: fetch_limits?,
        import_queue: import_queue?,
        fetch_queue: fetch_queue?,
        feeds: feeds?,
    })
}

fn check_redis(mut section: Section<'_>) -> Option<RedisConfig> {
    let url = section.read("url", |value| {
        const ACCEPTED: &str = "accepted: redis://[user:password@]host[:port][/db], the same with rediss:// for TLS, \
                                or redis+unix:///path of a socket";
        let url = units::text(value).map_err(|_| ACCEPTED.to_owned())?;
        match redis::parse_redis_url(url) {
            Some(parsed) => match parsed.into_connection_info() {
                Ok(_) => Ok(RedisUrl::new(url)),
                // The client's messages are fixed texts, so that no password can be in them.
                Err(error) => Err(format!("is not a Redis URL ({error}); {ACCEPTED}")),
            },
            None => Err(format!("is not a Redis URL; {ACCEPTED}")),
        }
    });
    // Braces would move the hash tag that keeps the keys of a queue in one slot.
    let prefix = section.read("prefix", |value| units::word(value, "_.:-", 64));
    section.finish();
    Some(RedisConfig { url: url?, prefix: prefix? })
}

fn check_mongodb(mut section: Section<'_>) -> Option<MongoConfig> {
    let uri = section.read("uri", |value| {
        const ACCEPTED: &str = "accepted: mongodb://[user:password@]host[:port][,host…][/?options] or \
                                mongodb+srv://[user:password@]host, with special characters in user and password \
                                percent-encoded";
        let uri = units::text(value).map_err(|_| ACCEPTED.to_owned())?;
        match ConnectionString::parse(uri) {
            Ok(_) => Ok(MongoUri::new(uri)),
            // The driver quotes parts of what it refuses: only shown where there is nothing to hide.
            Err(error) if secret::mask_connection(uri) == uri => {
                Err(format!("is not a MongoDB connection string ({}); {ACCEPTED}", reason_of(&error)))
            }
            Err(_) => Err(format!("is not a MongoDB connection string; {ACCEPTED}")),
        }
    });
    let database = section.read("database", |value| match value.as_str() {
        Some(name) if (1..=DATABASE_MAX).contains(&name.len()) && !name.contains(|c| DATABASE_REFUSED.contains(c)) => {
            Ok(name.to_owned())
        }
        _ => Err(format!("accepted: 1 to {DATABASE_MAX} bytes without space and / \\ . \" $ * < > : | ?")),
    });
    let documents_keep = section.read("documents_keep", |value| match value {
        Value::Boolean(false) => Ok(None),
        _ => units::duration(value, "1h", "3650d").map(Some).map_err(|reason| format!("{reason}, or false")),
    });
    section.finish();
    Some(MongoConfig { uri: uri?, database: database?, documents_keep: documents_keep? })
}

fn reason_of(error: &mongodb::error::Error) -> String {
    match &*error.kind {
        mongodb::error::ErrorKind::InvalidArgument { message, .. } => message.clone(),
        other => other.to_string(),
    }
}

fn check_queue_names(mut section: Section<'_>) {
    let queue_name = |value: &Value| units::word(value, "_.-", 128);
    let import = section.read("import", queue_name);
    let fetch = section.read("fetch", queue_name);
    if import.is_some() && import == fetch {
        // A worker of the one would read the jobs of the other, and bury what it cannot decode.
        section.refuse("fetch", "is also queues.import; accepted: two different names");
    }
    section.finish();
}

fn check_http(mut section: Section<'_>) -> Option<HttpConfig> {
    let listen = section.read("listen", units::address);
    let metrics_listen = section.read("metrics_listen", |value| match value.as_str() {
        Some("off") => Ok(None),
        _ => units::address(value).map(Some).map_err(|reason| format!("{reason}, or \"off\"")),
    });
    let base_path = section.read("base_path", units::base_path);
    let read_only = section.read("read_only", units::boolean);
    section.finish();
    Some(HttpConfig {
        listen: listen?,
        metrics_listen: metrics_listen?,
        base_path: base_path?,
        read_only: read_only?,
        token: None,
    })
}

fn check_fetch(mut section: Section<'_>) -> Option<FetchConfig> {
    let timeout = section.read("timeout", |value| units::duration(value, "10ms", "10m"));
    let connect_timeout = section.read("connect_timeout", |value| units::duration(value, "10ms", "10m"));
    if let (Some(timeout), Some(connect)) = (timeout, connect_timeout)
        && connect > timeout
    {
        section.refuse(
            "connect_timeout",
            format!(
                "is longer than fetch.timeout ({}), which includes it; accepted: at most that",
                humantime::format_duration(timeout)
            ),
        );
    }
    let body_max_bytes = section.read("body_max", |value| units::size(value, "1KiB", "1GiB"));
    let redirects_max = section.read("redirects_max", |value| units::whole(value, 0..=20));
    let user_agent = section.read("user_agent", |value| {
        let filled_in = units::text(value)?.replace("{version}", env!("CARGO_PKG_VERSION"));
        match HeaderValue::from_str(&filled_in) {
            Ok(_) if !filled_in.trim().is_empty() => Ok(filled_in),
            _ => Err("accepted: a text of visible ASCII characters and spaces, not empty".to_owned()),
        }
    });
    let proxy = section.read("proxy", proxy);
    let allow_networks = section.read("allow_networks", |value| {
        let networks = value.as_array().and_then(|networks| {
            networks.iter().map(|network| network.as_str()?.parse::<Network>().ok()).collect::<Option<Vec<_>>>()
        });
        networks.map(Networks::with).ok_or_else(|| {
            "accepted: a list of networks such as [\"10.1.0.0/16\", \"fd00:1::/32\"], or single addresses".to_owned()
        })
    });
    section.finish();
    Some(FetchConfig {
        timeout: timeout?,
        connect_timeout: connect_timeout?,
        body_max_bytes: body_max_bytes?,
        redirects_max: redirects_max?,
        user_agent: user_agent?,
        proxy: proxy?,
        allow_networks: allow_networks?,
    })
}

fn proxy(value: &Value) -> Read<Proxy> {
    value.as_str().and_then(|text| text.parse().ok()).ok_or_else(|| {
        "accepted: \"environment\" (HTTP_PROXY, HTTPS_PROXY, NO_PROXY), \"none\", or the URL of an HTTP proxy such as \
         \"http://proxy:3128\""
            .to_owned()
    })
}

fn check_queue(name: &str, role: Role, table: &Table, problems: &mut Vec<Problem>) -> Option<QueueConfig> {
    let mut section = Section::new(format!("stream.{name}"), table, problems);
    // One byte of the head.
    let attempts = section.read("attempts", |value| units::whole(value, 1..=u8::MAX));
    let backoff = section.table("backoff").and_then(check_backoff);
    let concurrency = section.read("concurrency", |value| units::whole(value, 1..=1000));
    let batch_size = section.read("batch_size", |value| match role {
        Role::Import => units::whole(value, 1..=10_000),
        Role::Fetch { .. } if value.as_integer() == Some(1) => Ok(1),
        Role::Fetch { .. } => Err("a fetch is never part of a batch; accepted: 1".to_owned()),
    });
    let flush = section.read("flush", |value| units::duration(value, "1ms", "1h"));
    let limiter = section.read("limiter", limiter);
    let group_by = section.read("group_by", |value| {
        group_by(value, if matches!(role, Role::Import) { IMPORT_WINDOW } else { FETCH_WINDOW })
    });
    let lock_duration = section.read("lock_duration", |value| units::duration(value, "100ms", "1d"));
    let stalled_interval = section.read("stalled_interval", |value| units::duration(value, "100ms", "1h"));
    // One byte of the head, with room to count over the limit.
    let max_stalled_count = section.read("max_stalled_count", |value| units::whole(value, 0..=200));
    let job_timeout = section.read("job_timeout", |value| match value {
        Value::Boolean(false) => Ok(None),
        _ => units::duration(value, "100ms", "1d").map(Some).map_err(|reason| format!("{reason}, or false")),
    });
    let remove_on_complete = section.read("remove_on_complete", retention);
    let remove_on_fail = section.read("remove_on_fail", retention);
    let remember = section.read("remember", |value| units::duration(value, "1h", "365d"));
    let payload_max_bytes = section.read("payload_max", |value| units::size(value, "1KiB", "15MiB"));
    let buffer_bytes = section.read("buffer_bytes", |value| units::size(value, "1KiB", "16GiB"));
    let events = section.read("events", |value| {
        units::one_of(value, &[("failures", Events::Failures), ("all", Events::All), ("off", Events::Off)])
    });
    let shutdown_timeout = section.read("shutdown_timeout", |value| units::duration(value, "0s", "1h"));

    if let (Some(flush), Some(lock_duration)) = (flush, lock_duration)
        && flush >= lock_duration
    {
        section.refuse(
            "flush",
            format!(
                "is not shorter than lock_duration ({}): jobs would look stalled while they wait for their batch; \
             accepted: less than that",
                humantime::format_duration(lock_duration)
            ),
        );
    }
    if let (Some(concurrency), Some(batch_size)) = (concurrency, batch_size)
        && concurrency * batch_size > HELD_MAX
    {
        section.refuse("batch_size", format!(
            "times concurrency ({concurrency}) is over {HELD_MAX} jobs held by one worker, whose leases could not be \
             renewed in time; accepted: at most {}",
            HELD_MAX / concurrency
        ));
    }
    if let (Some(payload), Some(buffer)) = (payload_max_bytes, buffer_bytes)
        && buffer < payload
    {
        section.refuse(
            "buffer_bytes",
            format!(
                "is less than payload_max ({payload} bytes): the largest job would never fit; accepted: at least that"
            ),
        );
    }
    // A write to a MongoDB that hangs is given up, as an outage, after ten seconds, and runs up to three times.
    if let (Role::Import, Some(Some(job_timeout))) = (role, job_timeout)
        && job_timeout < WRITE_TIME_MAX
    {
        section.refuse("job_timeout", format!(
            "is shorter than {}: a MongoDB that hangs would cost jobs their attempts; accepted: at least that, or false",
            humantime::format_duration(WRITE_TIME_MAX)
        ));
    }
    if let (Role::Fetch { timeout: Some(timeout) }, Some(Some(job_timeout))) = (role, job_timeout)
        && job_timeout <= timeout
    {
        section.refuse("job_timeout", format!(
            "is not longer than fetch.timeout ({}): a slow server would end the job before the fetch; accepted: more \
             than that, or false",
            humantime::format_duration(timeout)
        ));
    }
    section.finish();
    Some(QueueConfig {
        name: name.to_owned(),
        attempts: attempts?,
        backoff: backoff?,
        concurrency: concurrency?,
        batch_size: batch_size?,
        flush: flush?,
        limiter: limiter?,
        group_by: group_by?,
        lock_duration: lock_duration?,
        stalled_interval: stalled_interval?,
        max_stalled_count: max_stalled_count?,
        job_timeout: job_timeout?,
        remove_on_complete: remove_on_complete?,
        remove_on_fail: remove_on_fail?,
        remember: remember?,
        payload_max_bytes: payload_max_bytes?,
        buffer_bytes: buffer_bytes?,
        events: events?,
        shutdown_timeout: shutdown_timeout?,
    })
}

fn check_backoff(mut section: Section<'_>) -> Option<Backoff> {
    let kind = section.read("type", |value| {
        units::one_of(value, &[("exponential", BackoffKind::Exponential), ("fixed", BackoffKind::Fixed)])
    });
    let delay = section.read("delay", |value| units::duration(value, "0s", "30d"));
    let max = section.read("max", |value| units::duration(value, "0s", "30d"));
    if let (Some(delay), Some(max)) = (delay, max)
        && delay > max
    {
        section.refuse(
            "delay",
            format!(
                "is longer than max ({}), which would cut it; accepted: at most that",
                humantime::format_duration(max)
            ),
        );
    }
    let jitter = section.read("jitter", units::share);
    section.finish();
    Some(Backoff { kind: kind?, delay: delay?, max: max?, jitter: jitter? })
}

fn limiter(value: &Value) -> Read<Option<Limiter>> {
    const ACCEPTED: &str = "accepted: false, or { max = 100, duration = \"1s\" } with max from 1 to 1000000000 and \
                            duration from 1ms to 1d";
    let limit = match value {
        Value::Boolean(false) => return Ok(None),
        Value::Table(limit) if limit.len() == 2 => limit,
        _ => return Err(ACCEPTED.to_owned()),
    };
    let max = limit.get("max").map(|max| units::whole(max, 1..=1_000_000_000));
    let duration = limit.get("duration").map(|duration| units::duration(duration, "1ms", "1d"));
    match (max, duration) {
        (Some(Ok(max)), Some(Ok(duration))) => Ok(Some(Limiter { max, duration })),
        _ => Err(ACCEPTED.to_owned()),
    }
}

fn group_by(value: &Value, default_window: u32) -> Read<Option<GroupBy>> {
    let key = |value: &Value| units::one_of(value, &[("source", GroupKey::Source), ("host", GroupKey::Host)]);
    let accepted = || {
        format!(
            "accepted: false, \"source\", \"host\", or {{ key = \"source\", window = {default_window}, limiter = false }} \
             with window from 1 to 100000 and limiter as the queue's; only key is required"
        )
    };
    match value {
        Value::Boolean(false) => Ok(None),
        Value::Table(group) if group.keys().all(|key| ["key", "window", "limiter"].contains(&key.as_str())) => {
            let window = group.get("window").map_or(Ok(default_window), |window| units::whole(window, 1..=100_000));
            let limiter = group.get("limiter").map_or(Ok(None), limiter);
            match (group.get("key").map(key), window, limiter) {
                (Some(Ok(key)), Ok(window), Ok(limiter)) => Ok(Some(GroupBy { key, window, limiter })),
                _ => Err(accepted()),
            }
        }
        _ => key(value).map(|key| Some(GroupBy { key, window: default_window, limiter: None })).map_err(|_| accepted()),
    }
}

fn retention(value: &Value) -> Read<Retention> {
    let accepted = || "accepted: false, true, a count such as 1000, or { count = 1000, age = \"30d\" }".to_owned();
    let count = |value: &Value| units::whole(value, 0..=i64::MAX).map(i64::unsigned_abs);
    match value {
        Value::Boolean(false) => Ok(Retention::KeepAll),
        Value::Boolean(true) => Ok(Retention::KeepNone),
        Value::Integer(_) => {
            count(value).map(|n| Retention::Keep { count: Some(n), age: None }).map_err(|_| accepted())
        }
        Value::Table(limits) if !limits.is_empty() && limits.keys().all(|key| key == "count" || key == "age") => {
            let count = limits.get("count").map(count).transpose();
            let age = limits.get("age").map(|age| units::duration(age, "1s", "3650d")).transpose();
            match (count, age) {
                (Ok(count), Ok(age)) => Ok(Retention::Keep { count, age }),
                _ => Err(accepted()),
            }
        }
        _ => Err(accepted()),
    }
}

fn check_feeds(settings: &Table, root: &mut Section<'_>) -> Option<Vec<FeedConfig>> {
    root.optional("feed", (), |_| Ok(()));
    let tables = match settings.node("feed") {
        None => return Some(Vec::new()),
        Some(Node::Tables { tables, .. }) => tables,
        Some(_) => {
            root.refuse("feed", "accepted: one [[feed]] per feed");
            return None;
        }
    };
    let mut names = HashSet::new();
    let mut feeds = Vec::with_capacity(tables.len());
    for (at, table) in tables.iter().enumerate() {
        let path = match table.node("name").map(Node::to_value) {
            Some(Value::String(name)) => format!("feed.{}", name.escape_debug()),
            _ => format!("feed.#{}", at + 1),
        };
        let feed = check_feed(root.beside(path, table), &mut names);
        feeds.extend(feed);
    }
    Some(feeds)
}

fn check_feed(mut section: Section<'_>, names: &mut HashSet<String>) -> Option<FeedConfig> {
    let name = section.read("name", |value| units::word(value, "_.-", 200));
    if let Some(name) = &name
        && !names.insert(name.clone())
    {
        // The name is the id of the fetch job: the second feed would count as a duplicate and never be fetched.
        section.refuse("name", "is the name of an earlier feed; accepted: a name no other feed has");
    }
    let url = section.read("url", |value| {
        let text = units::text(value)?;
        match Url::parse(text) {
            Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => Ok((url, text.to_owned())),
            _ => Err("is not the URL of a feed; accepted: http:// or https:// with a host".to_owned()),
        }
    });
    let source = section.optional("source", None, |value| match value.as_str() {
        Some(source) if (1..=SOURCE_MAX).contains(&source.len()) => Ok(Some(source.to_owned())),
        _ => Err(format!("accepted: a string of 1 to {SOURCE_MAX} bytes")),
    });
    if let (Some((_, text)), Some(None)) = (&url, &source)
        && text.len() > SOURCE_MAX
    {
        section.refuse("url", format!("is over {SOURCE_MAX} bytes, too long to be the source too; set feed.source"));
    }
    if let (Some((_, text)), Some(None)) = (&url, &source)
        && secret::mask_url(text) != *text
    {
        section.refuse("url", "holds a secret, and would be stored as the source of each item; set feed.source");
    }
    let timezone = section.optional("timezone", None, |value| {
        let name = units::text(value)?;
        match TimeZone::get(name) {
            Ok(_) => Ok(Some(name.to_owned())),
            Err(_) => Err("is not a known time zone; accepted: an IANA name such as \"Europe/Berlin\"".to_owned()),
        }
    });
    let schedule = section.optional("schedule", None, |value| {
        let schedule = units::text(value)?;
        let timezone = timezone.as_ref().and_then(Option::as_deref);
        check_schedule(schedule, timezone).map(|()| Some(schedule.to_owned()))
    });
    let spread = section.optional("spread", SPREAD, |value| units::duration(value, "0s", "60s"));
    let headers = check_headers(&mut section);
    let credentials = section.optional("auth", None, |value| credentials(value).map(Some));
    let has_other = url.as_ref().is_some_and(|(url, _)| !url.username().is_empty())
        || headers
            .as_ref()
            .is_some_and(|headers| headers.keys().any(|name| name.eq_ignore_ascii_case("authorization")));
    if let Some(Some(_)) = credentials
        && has_other
    {
        section.refuse("auth", "is given beside a user in the url, or a header Authorization; accepted: one of them");
    }
    let proxy = section.optional("proxy", None, |value| proxy(value).map(Some));
    let on_leave = section.optional("on_leave", OnLeave::Keep, |value| {
        units::one_of(value, &[("keep", OnLeave::Keep), ("mark", OnLeave::Mark), ("delete", OnLeave::Delete)])
    });
    let allow_private = section.optional("allow_private", false, units::boolean);
    section.finish();
    let (url, text) = url?;
    Some(FeedConfig {
        name: name?,
        url,
        source: source?.unwrap_or(text),
        schedule: schedule?,
        timezone: timezone?,
        spread: spread?,
        headers: headers?,
        credentials: credentials?,
        proxy: proxy?,
        on_leave: on_leave?,
        allow_private: allow_private?,
    })
}

fn credentials(value: &Value) -> Read<Credentials> {
    const ACCEPTED: &str = "accepted: { user = \"ada\", password_env = \"NAME\" } or { bearer_env = \"NAME\" }, or the \
                            same with password_file or bearer_file and the path of a file";
    let table = value.as_table().ok_or(ACCEPTED)?;
    let text = |key: &str| table.get(key).and_then(Value::as_str).filter(|text| !text.is_empty());
    let kept = |env: &str, file: &str| match (text(env), text(file)) {
        (Some(name), None) => Some(Kept::Env(name.to_owned())),
        (None, Some(path)) => Some(Kept::File(PathBuf::from(path))),
        _ => None,
    };
    let credentials = match (text("user"), kept("password_env", "password_file"), kept("bearer_env", "bearer_file")) {
        (Some(user), Some(password), None) if table.len() == 2 && !user.contains(':') => {
            Some(Credentials::Basic { user: user.to_owned(), password })
        }
        (None, None, Some(token)) if table.len() == 1 => Some(Credentials::Bearer(token)),
        _ => None,
    };
    Ok(credentials.ok_or(ACCEPTED)?)
}

fn check_headers(section: &mut Section<'_>) -> Option<BTreeMap<String, Secret>> {
    // Values may be secrets, so messages name the header only.
    section.optional("headers", BTreeMap::new(), |value| {
        let headers = value.as_table().ok_or("accepted: a table of header names and values")?;
        let read_one = |(name, value): (&String, &Value)| match HeaderName::from_bytes(name.as_bytes()) {
            Err(_) => Err(format!("{name:?} is not the name of an HTTP header")),
            Ok(header) if OWN_HEADERS.contains(&header.as_str()) => {
                Err(format!("{name} is set by feedmill itself; accepted: any header but {}", OWN_HEADERS.join(", ")))
            }
            Ok(_) => match value.as_str() {
                Some(text) if HeaderValue::from_str(text).is_ok() => Ok((name.clone(), Secret::new(text))),
                _ => Err(format!(
                    "the value of {name} is not one of an HTTP header; accepted: a string of visible ASCII and spaces"
                )),
            },
        };
        headers.iter().map(read_one).collect()
    })
}

/// Checks that a schedule can be read.
fn check_schedule(schedule: &str, timezone: Option<&str>) -> Read<()> {
    const ACCEPTED: &str = "accepted: a cron pattern such as \"*/15 * * * *\", \"every 15m\", or \"auto\"";
    Schedule::parse(schedule, timezone).map(|_| ()).map_err(|error| match error {
        ScheduleError::Never { .. } => format!("is never due; {ACCEPTED}"),
        _ => format!("is not a schedule; {ACCEPTED}"),
    })
}
