//! How Redis and MongoDB are doing, for the page and the API. `feedmill doctor` says more.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use super::{ApiError, App};
use crate::error::chain;
use crate::store::look::StoreFacts;

/// How old it may be.
const AGE: Duration = Duration::from_secs(5);

/// What was found; an error where a server did not answer.
#[derive(Clone, Debug)]
pub(super) struct Health {
    pub(super) redis: Result<RedisFacts, String>,
    pub(super) mongodb: Result<StoreFacts, String>,
    /// Loops of this process that have stopped.
    pub(super) stopped: Vec<String>,
}

#[derive(Clone, Debug)]
pub(super) struct RedisFacts {
    pub(super) address: String,
    pub(super) info: BTreeMap<String, String>,
    pub(super) ping: Duration,
    /// What is wrong with how it is set up.
    pub(super) warnings: Vec<String>,
}

/// Fields of `INFO` that are told.
pub(super) const TOLD: [&str; 17] = [
    "redis_version",
    "redis_mode",
    "uptime_in_seconds",
    "connected_clients",
    "blocked_clients",
    "used_memory_human",
    "used_memory_peak_human",
    "maxmemory_human",
    "maxmemory_policy",
    "mem_fragmentation_ratio",
    "instantaneous_ops_per_sec",
    "evicted_keys",
    "expired_keys",
    "aof_enabled",
    "rdb_last_bgsave_status",
    "role",
    "connected_slaves",
];

pub(super) async fn health(app: &App) -> Result<Health, ApiError> {
    let load = async {
        let redis = async {
            let redis = app.queues.import.redis();
            let (info, ping) = redis.server_info().await.map_err(|error| chain(&error))?;
            let warnings = redis.settings_warnings().await;
            Ok(RedisFacts { address: redis.address().to_owned(), info, ping, warnings })
        };
        let mongodb = async { app.store.facts().await.map_err(|error| chain(&error)) };
        let (redis, mongodb) = tokio::join!(redis, mongodb);
        let stopped = app.pulse.stopped(Duration::from_mins(1));
        Ok(Health { redis, mongodb, stopped })
    };
    Ok((*app.shared.get("health", AGE, load).await?).clone())
}

impl Health {
    pub(super) fn json(&self) -> Value {
        let redis = match &self.redis {
            Err(error) => json!({ "ok": false, "error": error }),
            Ok(facts) => {
                let told: BTreeMap<&str, &String> =
                    TOLD.iter().filter_map(|name| Some((*name, facts.info.get(*name)?))).collect();
                let ping = (facts.ping.as_secs_f64() * 10_000.0).round() / 10.0;
                json!({ "ok": facts.warnings.is_empty(), "address": facts.address, "pingMs": ping, "warnings": facts.warnings, "info": told })
            }
        };
        let mongodb = match &self.mongodb {
            Err(error) => json!({ "ok": false, "error": error }),
            Ok(facts) => json!({ "ok": true, "facts": facts }),
        };
        json!({ "redis": redis, "mongodb": mongodb, "stopped": self.stopped })
    }
}
