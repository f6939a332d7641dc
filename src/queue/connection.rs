//! The connections to Redis: one that all operations share, and one of its own for each reader that blocks.

use std::time::Duration;

use redis::aio::{ConnectionManager, ConnectionManagerConfig, MultiplexedConnection};
use redis::{AsyncConnectionConfig, Client, ConnectionAddr, IntoConnectionInfo as _};

use super::QueueError;
use super::info::Info;

/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long an answer may take on the shared connection, where nothing blocks: far above any script, so that what runs
/// into it is a server or network that hangs.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(10);
/// Pause between two attempts to connect again; short, because jobs wait.
const RECONNECT_DELAY_MAX: Duration = Duration::from_millis(500);
/// Attempts of one reconnection before the operation that waits for it fails; its caller tries again.
const RECONNECT_ATTEMPTS: usize = 3;
/// The oldest version with all commands that are used (`XAUTOCLAIM`, `XGROUP CREATECONSUMER`).
const OLDEST_VERSION: (u32, u32) = (6, 2);

/// A Redis server. Cheap to clone; all clones share one multiplexed connection, which reconnects by itself.
#[derive(Clone)]
pub struct Redis {
    client: Client,
    connection: ConnectionManager,
    prefix: String,
    address: String,
}

impl std::fmt::Debug for Redis {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Redis").field("address", &self.address).field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

impl Redis {
    /// Connects and checks the version.
    ///
    /// `prefix` begins all keys.
    ///
    /// # Errors
    /// [`QueueError::Url`], [`QueueError::Unreachable`], [`QueueError::Login`] or [`QueueError::Version`].
    pub async fn connect(url: &str, prefix: &str) -> Result<Self, QueueError> {
        crate::tls::install_provider();
        // The texts of the client library name what is wrong, not the URL.
        let refused = |cause: redis::RedisError| QueueError::Url { detail: cause.to_string() };
        let info = url.into_connection_info().map_err(refused)?;
        let address = match info.addr() {
            ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } => format!("{host}:{port}"),
            other => other.to_string(),
        };
        let client = Client::open(info).map_err(refused)?;
        let config = ConnectionManagerConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(Some(RESPONSE_TIMEOUT))
            .set_max_delay(RECONNECT_DELAY_MAX)
            .set_number_of_retries(RECONNECT_ATTEMPTS);
        let failed = |cause| QueueError::from_connecting(&address, cause);
        // The manager would try again what fails at the start, each time up to its timeouts; whoever starts us with a
        // wrong address wants to know at once.
        let first = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(Some(RESPONSE_TIMEOUT));
        let mut first = client.get_multiplexed_async_connection_with_config(&first).await.map_err(failed)?;
        let info = Info::ask(&mut first).await.map_err(failed)?;
        drop(first);
        let connection = client.get_connection_manager_with_config(config).await.map_err(failed)?;
        check_version(&info).map_err(|found| QueueError::Version { address: address.clone(), found })?;
        Ok(Self { client, connection, prefix: prefix.to_owned(), address })
    }

    /// What all keys begin with.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Host and port, without user and password.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The shared connection.
    pub(crate) fn connection(&self) -> ConnectionManager {
        self.connection.clone()
    }

    /// A connection of its own for a reader that blocks for up to `block`.
    ///
    /// # Errors
    /// [`QueueError::Unreachable`] or [`QueueError::Login`].
    pub(crate) async fn blocking_connection(&self, block: Duration) -> Result<MultiplexedConnection, QueueError> {
        // A response timeout below the block time would give up on a read that Redis still carries out: what it then
        // delivers would be pending for nobody.
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(Some(block + RESPONSE_TIMEOUT));
        self.client
            .get_multiplexed_async_connection_with_config(&config)
            .await
            .map_err(|cause| QueueError::from_connecting(&self.address, cause))
    }
}

/// Accepts what the server says of itself, or returns the version that is too old. Valkey and its like also say which Redis
/// they are compatible with.
fn check_version(info: &Info) -> Result<(), String> {
    if info.compatible_with() >= OLDEST_VERSION {
        return Ok(());
    }
    let version = info.text("redis_version").unwrap_or_default();
    Err(if version.is_empty() { "unknown" } else { version }.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_from_6_2_are_accepted() {
        for accepted in ["6.2.14", "7.0.15", "7.2.4", "8.2.0", "10.0.0"] {
            let info = format!("# Server\r\nredis_version:{accepted}\r\nredis_mode:standalone\r\n");
            assert_eq!(check_version(&Info::of_text(&info)), Ok(()));
        }
        for refused in ["5.0.6", "6.0.16"] {
            let info = Info::of_text(&format!("redis_version:{refused}\r\n"));
            assert_eq!(check_version(&info), Err(refused.to_owned()));
        }
        assert_eq!(check_version(&Info::of_text("hello")), Err("unknown".to_owned()));
    }
}
