//! What a server says of itself: the one reader of `INFO`. What that means for jobs is in [`super::server`].

use std::collections::BTreeMap;
use std::time::Duration;

use redis::RedisResult;
use redis::aio::ConnectionLike;

use super::{QueueError, Redis};

/// What one `INFO` says. Servers leave fields out, old and managed ones more: a number that is not told is 0.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Info(BTreeMap<String, String>);

impl Redis {
    /// Asks the server what it says of itself.
    ///
    /// # Errors
    /// [`QueueError::Redis`].
    pub async fn info(&self) -> Result<Info, QueueError> {
        Info::ask(&mut self.connection()).await.map_err(|cause| QueueError::from_redis("INFO", cause))
    }
}

impl Info {
    /// Asks over any connection, for those who have no [`Redis`] yet.
    pub(crate) async fn ask(connection: &mut impl ConnectionLike) -> RedisResult<Self> {
        Ok(Self::of_text(&redis::cmd("INFO").query_async::<String>(connection).await?))
    }

    /// Lines without a colon are headings.
    pub(super) fn of_text(text: &str) -> Self {
        let fields = text.lines().filter_map(|line| line.trim_end().split_once(':'));
        Self(fields.map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
    }

    /// A field as the server says it; `None` when it does not.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// A field that is a whole number.
    pub fn number(&self, name: &str) -> u64 {
        self.text(name).and_then(|value| value.parse().ok()).unwrap_or(0)
    }

    /// `Redis` or `Valkey`.
    pub fn product(&self) -> &'static str {
        if self.text("valkey_version").is_some() { "Valkey" } else { "Redis" }
    }

    /// Its own version; empty when it says none.
    pub fn version(&self) -> &str {
        self.text("valkey_version").or_else(|| self.text("redis_version")).unwrap_or_default()
    }

    /// The Redis that it is, or that it is compatible with, by its first two numbers.
    pub fn compatible_with(&self) -> (u32, u32) {
        let version = self.text("redis_version").unwrap_or_default();
        let mut numbers = version.split('.').map(|number| number.parse().unwrap_or(0));
        (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
    }

    /// Bytes that it has allocated.
    pub fn used_memory_bytes(&self) -> u64 {
        self.number("used_memory")
    }

    /// Most that it may allocate; 0: no limit but the machine's.
    pub fn maxmemory_bytes(&self) -> u64 {
        self.number("maxmemory")
    }

    /// What it does when that is reached; `None` when it does not say.
    pub fn maxmemory_policy(&self) -> Option<&str> {
        self.text("maxmemory_policy")
    }

    /// Whether it says that it deletes keys when it has no memory left.
    pub fn may_evict(&self) -> bool {
        self.maxmemory_policy().is_some_and(|policy| policy != "noeviction")
    }

    /// Keys that it deleted for want of memory since it started.
    pub fn evicted_keys(&self) -> u64 {
        self.number("evicted_keys")
    }

    /// Whether its last write to disk failed: of the append-only file, that file written anew, or a snapshot.
    pub fn last_write_failed(&self) -> bool {
        let writes = ["aof_last_write_status", "aof_last_bgrewrite_status", "rdb_last_bgsave_status"];
        writes.into_iter().filter_map(|name| self.text(name)).any(|status| status != "ok")
    }

    /// Commands that it carried out since it started.
    pub fn commands(&self) -> u64 {
        self.number("total_commands_processed")
    }

    /// Connections of clients.
    pub fn clients(&self) -> u64 {
        self.number("connected_clients")
    }

    /// CPU that its main thread, which carries out the commands, has taken since it started. Servers on other systems than
    /// Linux know only the whole process, with the threads that write and free.
    pub fn command_cpu(&self) -> Duration {
        let of = |kind: &str| {
            let seconds = |name: &str| self.text(name).and_then(|value| value.parse().ok());
            let known =
                seconds(&format!("used_cpu_{kind}_main_thread")).or_else(|| seconds(&format!("used_cpu_{kind}")));
            known.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()).unwrap_or_default()
        };
        of("user") + of("sys")
    }

    /// Memory of its data, in bytes: what it uses without the buffers of clients and of the append-only file.
    pub fn data_bytes(&self) -> u64 {
        let passing = self.number("mem_clients_normal") + self.number("mem_aof_buffer");
        self.used_memory_bytes().saturating_sub(passing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_by_their_names() {
        let info = Info::of_text(
            "# Server\r\nredis_version:7.2.4\r\nvalkey_version:8.1.3\r\n# Memory\r\nused_memory:1048576\r\n\
             used_memory_human:1.00M\r\nmem_clients_normal:1000\r\nmem_aof_buffer:8\r\nmaxmemory:2097152\r\n\
             maxmemory_policy:allkeys-lru\r\n# Stats\r\nevicted_keys:3\r\ntotal_commands_processed:9\r\n\
             connected_clients:5\r\nused_cpu_user:3.5\r\nused_cpu_sys:0.25\r\nused_cpu_user_main_thread:1.5\r\n",
        );
        assert_eq!((info.product(), info.version(), info.compatible_with()), ("Valkey", "8.1.3", (7, 2)));
        assert_eq!(
            (info.used_memory_bytes(), info.maxmemory_bytes(), info.data_bytes()),
            (1 << 20, 2 << 20, 1_047_568)
        );
        assert_eq!((info.evicted_keys(), info.commands(), info.clients()), (3, 9, 5));
        assert_eq!((info.maxmemory_policy(), info.may_evict()), (Some("allkeys-lru"), true));
        assert_eq!(info.command_cpu(), Duration::from_millis(1750), "of the main thread where it is told");
        assert_eq!(info.text("used_memory_human"), Some("1.00M"));
    }

    #[test]
    fn what_is_not_told_is_nothing_and_no_alarm() {
        let info = Info::of_text("hello");
        assert_eq!(info, Info::default());
        assert_eq!((info.product(), info.version(), info.compatible_with()), ("Redis", "", (0, 0)));
        assert_eq!((info.used_memory_bytes(), info.may_evict(), info.last_write_failed()), (0, false, false));
        assert!(!Info::of_text("maxmemory_policy:noeviction").may_evict());
    }

    #[test]
    fn each_kind_of_write_may_fail() {
        for field in ["aof_last_write_status", "aof_last_bgrewrite_status", "rdb_last_bgsave_status"] {
            assert!(Info::of_text(&format!("{field}:err\r\n")).last_write_failed(), "{field}");
            assert!(!Info::of_text(&format!("{field}:ok\r\n")).last_write_failed(), "{field}");
        }
    }
}
