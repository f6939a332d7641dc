//! What is exported of the Redis server, from one `INFO`: whether it will run out of memory, and whether it drops keys.
//! What it is and how it is set up is in [`super::server`].

use serde::Serialize;

use super::{QueueError, Redis};

/// What `INFO` says of one server. A number that the server does not tell is 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ServerReading {
    /// Bytes that the server has allocated.
    pub memory_used_bytes: u64,
    /// Most that it may allocate; 0: no limit but the machine's.
    pub memory_max_bytes: u64,
    /// Whether it deletes keys when it has no memory left: its `maxmemory-policy` is another one than `noeviction`.
    pub may_evict: bool,
    /// Keys that it deleted for want of memory since it started.
    pub evicted_keys: u64,
    /// Commands that it carried out since it started.
    pub commands: u64,
    /// Connections of clients.
    pub clients: u64,
    /// Those of them that wait in a blocking command.
    pub blocked_clients: u64,
    /// Whether its last write to disk failed: of the append-only file, or of a snapshot.
    pub persistence_failed: bool,
}

impl Redis {
    /// Reads what the server says about itself.
    ///
    /// # Errors
    /// [`QueueError::Redis`].
    pub async fn reading(&self) -> Result<ServerReading, QueueError> {
        let info: String = redis::cmd("INFO")
            .query_async(&mut self.connection())
            .await
            .map_err(|cause| QueueError::from_redis("INFO", cause))?;
        Ok(ServerReading::from_info(&info))
    }
}

impl ServerReading {
    fn from_info(info: &str) -> Self {
        let mut reading = Self::default();
        for line in info.lines() {
            let Some((field, value)) = line.split_once(':') else { continue };
            let number = || value.parse().unwrap_or(0);
            match field {
                "used_memory" => reading.memory_used_bytes = number(),
                "maxmemory" => reading.memory_max_bytes = number(),
                "maxmemory_policy" => reading.may_evict = value != "noeviction",
                "evicted_keys" => reading.evicted_keys = number(),
                "total_commands_processed" => reading.commands = number(),
                "connected_clients" => reading.clients = number(),
                "blocked_clients" => reading.blocked_clients = number(),
                "rdb_last_bgsave_status" | "aof_last_write_status" | "aof_last_bgrewrite_status" => {
                    reading.persistence_failed |= value != "ok";
                }
                _ => {}
            }
        }
        reading
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_of_info_are_found_by_their_names() {
        let info = "# Memory\r\nused_memory:1048576\r\nused_memory_human:1.00M\r\nmaxmemory:2097152\r\n\
                    maxmemory_policy:allkeys-lru\r\n# Stats\r\nevicted_keys:3\r\ntotal_commands_processed:9\r\n\
                    connected_clients:5\r\nblocked_clients:2\r\naof_last_write_status:err\r\n";
        let wanted = ServerReading {
            memory_used_bytes: 1 << 20,
            memory_max_bytes: 2 << 20,
            may_evict: true,
            evicted_keys: 3,
            commands: 9,
            clients: 5,
            blocked_clients: 2,
            persistence_failed: true,
        };
        assert_eq!(ServerReading::from_info(info), wanted);
        assert_eq!(ServerReading::from_info("maxmemory_policy:noeviction\r\n"), ServerReading::default());
    }
}
