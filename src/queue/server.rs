//! The Redis server: what it is, and whether it is set up to keep jobs.
//!
//! What [`Info`] tells is read there; only what it does not tell is asked of `CONFIG`, which managed servers refuse.

use std::collections::HashMap;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::Serialize;

use super::info::Info;
use super::{QueueError, Redis};
use crate::check::Check;

/// Round trips that latency is measured with.
const PINGS: usize = 15;
/// A median from which jobs are noticeably slower, and one from which something is wrong.
const SLOW: Duration = Duration::from_millis(5);
const FAR_TOO_SLOW: Duration = Duration::from_millis(100);
/// A difference of clocks from which times that are shown mislead.
const CLOCKS_APART: Duration = Duration::from_secs(2);
/// Shares of `maxmemory`, in percent, from which memory is scarce, and nearly used up.
const MEMORY_SCARCE: u64 = 75;
const MEMORY_FULL: u64 = 90;

/// What `INFO` and `CONFIG` say of a server.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Server {
    /// Host and port, without user and password.
    pub address: String,
    /// `Redis` or `Valkey`.
    pub product: &'static str,
    /// Its own version.
    pub version: String,
    /// `standalone`, `cluster` or `sentinel`.
    pub mode: String,
    /// `master` or `slave`, as Redis calls them.
    pub role: String,
    /// Time since it started.
    pub uptime_seconds: u64,
    /// Memory in use.
    pub used_memory_bytes: u64,
    /// Most it may use; 0 for no limit.
    pub maxmemory_bytes: u64,
    /// What it does when that is reached; `None` when it does not say.
    pub maxmemory_policy: Option<String>,
    /// Keys that it dropped for want of memory since it started.
    pub evicted_keys: u64,
    /// Whether it has an append-only file.
    pub aof_enabled: bool,
    /// When that is flushed: `always`, `everysec`, `no`; `None` when it does not say.
    pub appendfsync: Option<String>,
    /// Whether the last write to disk failed: of the append-only file, that file written anew, or a snapshot.
    pub last_write_failed: bool,
    /// Whether it answers `CONFIG`.
    pub shows_config: bool,
    /// `redis_version`: of Valkey, the Redis it is compatible with.
    #[serde(skip)]
    compatible: (u32, u32),
}

impl Redis {
    /// Reads what the server says of itself.
    ///
    /// # Errors
    /// [`QueueError::Redis`].
    pub async fn server(&self) -> Result<Server, QueueError> {
        let info = self.info().await?;
        let config = redis::cmd("CONFIG").arg("GET").arg("*append*").query_async(&mut self.connection()).await;
        let config: Option<HashMap<String, String>> = match config {
            Ok(config) => Some(config),
            Err(error) if error.is_io_error() || error.is_timeout() => {
                return Err(QueueError::from_redis("CONFIG", error));
            }
            Err(_) => None,
        };
        Ok(Server::new(self.address(), &info, config.as_ref()))
    }

    /// The time of one round trip.
    ///
    /// # Errors
    /// [`QueueError::Redis`].
    pub async fn ping(&self) -> Result<Duration, QueueError> {
        let asked = Instant::now();
        let pong = redis::cmd("PING").query_async::<String>(&mut self.connection()).await;
        pong.map_err(|cause| QueueError::from_redis("PING", cause))?;
        Ok(asked.elapsed())
    }

    /// What about the server's settings endangers jobs, one line each. Managed servers that refuse `CONFIG` get a line
    /// that says what to check by hand. Nothing when it does not answer: others notice that.
    pub async fn settings_warnings(&self) -> Vec<String> {
        let Ok(server) = self.server().await else { return Vec::new() };
        let lines = server.settings_checks().into_iter().filter_map(|check| Some((check.detail, check.fix?)));
        lines.map(|(detail, fix)| format!("Redis at {}: {detail}; {fix}", self.address())).collect()
    }

    /// Checks the server: what it is, whether it keeps jobs, how fast it answers, and its clock.
    ///
    /// # Errors
    /// [`QueueError::Redis`].
    pub async fn checks(&self) -> Result<Vec<Check>, QueueError> {
        let server = self.server().await?;
        let mut checks = vec![server.version_check(), self.features_check(&server).await?];
        checks.extend(server.settings_checks_with_ok());
        checks.push(server.layout_check());
        checks.push(self.latency_check().await?);
        checks.push(self.clock_check().await?);
        Ok(checks)
    }

    /// Whether the server runs scripts, and what its version shows of streams.
    async fn features_check(&self, server: &Server) -> Result<Check, QueueError> {
        let mut connection = self.connection();
        let eval = redis::cmd("EVAL").arg("return 1").arg(0).query_async::<u8>(&mut connection).await;
        Ok(match eval {
            Ok(_) => Check::ok("features", format!("scripts run; {}", server.stream_features())),
            Err(error) if error.is_io_error() || error.is_timeout() => {
                return Err(QueueError::from_redis("EVAL", error));
            }
            Err(error) => Check::error(
                "features",
                format!("scripts cannot be run: {}", error.detail().unwrap_or("refused")),
                "give the user +eval +evalsha +script (ACL SETUSER), or use a server that runs Lua",
            ),
        })
    }

    async fn latency_check(&self) -> Result<Check, QueueError> {
        let mut took = Vec::with_capacity(PINGS);
        for _ in 0..PINGS {
            took.push(self.ping().await?);
        }
        took.sort_unstable();
        let (median, slowest) = (took[PINGS / 2], took[PINGS - 1]);
        let detail = format!("a round trip takes {median:.1?}, the slowest of {PINGS} {slowest:.1?}");
        Ok(match median {
            median if median > FAR_TOO_SLOW => Check::error(
                "latency",
                detail,
                "bring the workers nearer to Redis, and look for slow commands: redis-cli SLOWLOG GET",
            ),
            median if median > SLOW => {
                Check::warning("latency", detail, "look at the network, and for slow commands: redis-cli SLOWLOG GET")
            }
            _ => Check::ok("latency", detail),
        })
    }

    async fn clock_check(&self) -> Result<Check, QueueError> {
        let asked = SystemTime::now();
        let time = redis::cmd("TIME").query_async::<(u64, u64)>(&mut self.connection()).await;
        let (seconds, micros) = time.map_err(|cause| QueueError::from_redis("TIME", cause))?;
        let round_trip = asked.elapsed().unwrap_or_default();
        let theirs = UNIX_EPOCH + Duration::from_secs(seconds) + Duration::from_micros(micros);
        let ours = asked + round_trip / 2;
        let (apart, side) = match theirs.duration_since(ours) {
            Ok(ahead) => (ahead, "ahead of"),
            Err(error) => (error.duration(), "behind"),
        };
        let uncertain = apart.saturating_sub(round_trip);
        Ok(if uncertain > CLOCKS_APART {
            Check::warning(
                "clock",
                format!(
                    "the clock of Redis is {apart:.1?} {side} this host's: jobs do not mind, since scripts use the one of \
                     Redis, but ages that are shown are off"
                ),
                "let both hosts follow a time server: timedatectl status",
            )
        } else {
            Check::ok("clock", format!("{apart:.1?} {side} this host's"))
        })
    }
}

impl Server {
    fn new(address: &str, info: &Info, config: Option<&HashMap<String, String>>) -> Self {
        let text = |name: &str| info.text(name).map(str::to_owned);
        Self {
            address: address.to_owned(),
            product: info.product(),
            version: info.version().to_owned(),
            mode: text("server_mode").or_else(|| text("redis_mode")).unwrap_or_else(|| "standalone".to_owned()),
            role: text("role").unwrap_or_else(|| "master".to_owned()),
            uptime_seconds: info.number("uptime_in_seconds"),
            used_memory_bytes: info.used_memory_bytes(),
            maxmemory_bytes: info.maxmemory_bytes(),
            maxmemory_policy: info.maxmemory_policy().map(str::to_owned),
            evicted_keys: info.evicted_keys(),
            aof_enabled: info.number("aof_enabled") == 1,
            appendfsync: config.and_then(|config| config.get("appendfsync").cloned()),
            last_write_failed: info.last_write_failed(),
            shows_config: config.is_some(),
            compatible: info.compatible_with(),
        }
    }

    /// In one line, for people: version, eviction, persistence, memory.
    pub fn summary(&self) -> String {
        let aof = match (&self.appendfsync, self.aof_enabled) {
            (_, false) => "AOF off".to_owned(),
            (Some(fsync), true) => format!("AOF {fsync}"),
            (None, true) => "AOF on".to_owned(),
        };
        let policy = self.maxmemory_policy.as_deref().unwrap_or("eviction unknown");
        let used = bytesize::ByteSize(self.used_memory_bytes).display().iec();
        format!("{} {}, {policy}, {aof}, {used}", self.product, self.version)
    }

    fn version_check(&self) -> Check {
        let up = humantime::format_duration(Duration::from_secs(self.uptime_seconds / 60 * 60)).to_string();
        let up = up.split(' ').take(2).collect::<Vec<_>>().join(" ");
        Check::ok("server", format!("{} {} at {}, up for {up}", self.product, self.version, self.address))
    }

    /// What a version shows of streams. All versions are worked with in the same way; some say less.
    fn stream_features(&self) -> &'static str {
        match self.compatible {
            (..=6, _) => "streams as of 6.2: no lag is known, and readers that get nothing are not seen",
            (7, 0..=1) => "streams as of 7.0: readers that get nothing are not seen",
            _ => "streams as of 7.2",
        }
    }

    /// What about the settings endangers jobs.
    fn settings_checks(&self) -> Vec<Check> {
        self.settings_checks_with_ok().into_iter().filter(|check| check.fix.is_some()).collect()
    }

    fn settings_checks_with_ok(&self) -> Vec<Check> {
        let mut checks = vec![self.persistence_check(), self.eviction_check(), self.memory_check()];
        if !self.shows_config {
            checks.push(Check::warning(
                "settings",
                "it refuses CONFIG, as managed servers do, so not all of its settings can be seen",
                "check by hand, where it is managed, that appendonly is yes with appendfsync everysec or always, and \
                 maxmemory-policy is noeviction",
            ));
        }
        checks
    }

    fn persistence_check(&self) -> Check {
        if self.last_write_failed {
            return Check::error(
                "persistence",
                "its last write of the append-only file or of a snapshot failed: Redis soon refuses writes",
                "look at its log and the space on its disk: redis-cli INFO persistence",
            );
        }
        match (self.aof_enabled, self.appendfsync.as_deref()) {
            (false, _) => Check::error(
                "persistence",
                "appendonly is off: a crash loses the jobs since its last snapshot",
                "redis-cli CONFIG SET appendonly yes, and the same in redis.conf",
            ),
            (true, Some("no")) => Check::warning(
                "persistence",
                "appendfsync is no: a crash of the host loses what the system had not written yet",
                "redis-cli CONFIG SET appendfsync everysec, and the same in redis.conf",
            ),
            (true, Some("always")) => Check::ok("persistence", "appendonly is on, flushed always"),
            (true, Some(_)) => {
                Check::ok("persistence", "appendonly is on, flushed every second: a crash may take back the last one")
            }
            (true, None) => Check::ok("persistence", "appendonly is on"),
        }
    }

    fn eviction_check(&self) -> Check {
        let set = "redis-cli CONFIG SET maxmemory-policy noeviction, and the same in redis.conf";
        match self.maxmemory_policy.as_deref() {
            None => Check::warning(
                "eviction",
                "it does not say its maxmemory-policy",
                "check by hand that it is noeviction",
            ),
            Some("noeviction") if self.evicted_keys > 0 => Check::warning(
                "eviction",
                format!("noeviction, but {} keys were dropped since it started", self.evicted_keys),
                "look for jobs that were lost: feedmill xinfo --deep",
            ),
            Some("noeviction") => {
                Check::ok("eviction", "noeviction: when memory is full, adding fails and nothing is lost")
            }
            Some(policy) => Check::error(
                "eviction",
                format!("maxmemory-policy is {policy}: when memory is full it drops jobs"),
                set,
            ),
        }
    }

    fn memory_check(&self) -> Check {
        let size = |bytes: u64| bytesize::ByteSize(bytes).display().iec().to_string();
        let used = size(self.used_memory_bytes);
        if self.maxmemory_bytes == 0 {
            return Check::ok("memory", format!("{used} used, no maxmemory"));
        }
        let percent = self.used_memory_bytes.saturating_mul(100) / self.maxmemory_bytes;
        let detail = format!("{used} used, {percent} % of maxmemory {}", size(self.maxmemory_bytes));
        let fix = "add memory (redis-cli CONFIG SET maxmemory), or workers: feedmill queue counts";
        match percent {
            MEMORY_FULL.. => Check::error("memory", detail, fix),
            MEMORY_SCARCE.. => Check::warning("memory", detail, fix),
            _ => Check::ok("memory", detail),
        }
    }

    fn layout_check(&self) -> Check {
        if self.mode == "sentinel" {
            return Check::error("layout", "this is a Sentinel, which holds no data", "set REDIS_URL to the master");
        }
        if self.mode == "cluster" {
            return Check::error(
                "layout",
                "this is a node of a cluster; feedmill needs one server that has all keys",
                "set REDIS_URL to a server that is no cluster",
            );
        }
        if self.role != "master" {
            return Check::error("layout", "this is a replica: it takes no writes", "set REDIS_URL to the master");
        }
        Check::ok("layout", "one server that takes writes")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::Status;

    fn server(info: &[(&str, &str)], config: Option<&[(&str, &str)]>) -> Server {
        let info: Vec<String> = info.iter().map(|(name, value)| format!("{name}:{value}")).collect();
        let config = config.map(|config| {
            config.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect::<HashMap<_, _>>()
        });
        Server::new("cache:6379", &Info::of_text(&info.join("\r\n")), config.as_ref())
    }

    #[test]
    fn each_setting_that_endangers_jobs_is_named_with_its_fix() {
        let safe = [("aof_enabled", "1"), ("maxmemory_policy", "noeviction"), ("redis_version", "7.0.15")];
        let everysec: &[(&str, &str)] = &[("appendfsync", "everysec")];
        assert_eq!(server(&safe, Some(everysec)).settings_checks(), []);
        for (changed, config, status, named, fix) in [
            (("aof_enabled", "0"), Some(everysec), Status::Error, "appendonly is off", "appendonly yes"),
            (("maxmemory_policy", "allkeys-lru"), Some(everysec), Status::Error, "allkeys-lru", "noeviction"),
            (("evicted_keys", "7"), Some(everysec), Status::Warning, "7 keys were dropped", "xinfo --deep"),
            (("aof_last_write_status", "err"), Some(everysec), Status::Error, "failed", "disk"),
            (("role", "master"), None, Status::Warning, "refuses CONFIG", "check by hand"),
            (("role", "master"), Some(&[("appendfsync", "no")]), Status::Warning, "appendfsync is no", "everysec"),
        ] {
            let info: Vec<(&str, &str)> = safe.into_iter().chain([changed]).collect();
            let checks = server(&info, config).settings_checks();
            let [check] = checks.as_slice() else { panic!("{changed:?}: {checks:?}") };
            assert_eq!(check.status, status, "{check:?}");
            assert!(check.detail.contains(named), "{check:?}");
            assert!(check.fix.as_deref().is_some_and(|text| text.contains(fix)), "{check:?}");
        }
    }

    #[test]
    fn memory_that_is_nearly_used_up_is_an_error() {
        let used = |bytes| server(&[("used_memory", bytes), ("maxmemory", "1000")], None).memory_check().status;
        assert_eq!([used("700"), used("800"), used("950")], [Status::Ok, Status::Warning, Status::Error]);
    }

    #[test]
    fn what_takes_no_writes_or_has_not_all_keys_is_an_error() {
        for info in [("redis_mode", "cluster"), ("redis_mode", "sentinel"), ("role", "slave")] {
            assert_eq!(server(&[info], None).layout_check().status, Status::Error, "{info:?}");
        }
        assert_eq!(server(&[("role", "master")], None).layout_check().status, Status::Ok);
    }
}
