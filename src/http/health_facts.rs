//! How Redis, MongoDB and the queues are doing, for the page and the API: the words of `doctor` and `xinfo`, which look
//! closer.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use super::{ApiError, App};
use crate::check::{Check, Status};
use crate::error::chain;
use crate::queue::QueueError;
use crate::queue::info::Info;
use crate::queue::inspect::{Finding, InspectOptions};
use crate::store::StoreError;
use crate::store::look::StoreFacts;

/// How old it may be.
const AGE: Duration = Duration::from_secs(5);
/// How old findings in the queues may be: to look costs a fraction of a second with a million jobs.
const FINDINGS_AGE: Duration = Duration::from_secs(30);

/// What was found; an error where a server did not answer.
#[derive(Clone, Debug)]
pub(super) struct Health {
    pub(super) redis: Result<RedisFacts, String>,
    pub(super) mongodb: Result<(StoreFacts, Vec<Check>), String>,
    /// What is not as it should be in the queues, by name.
    pub(super) findings: Vec<(String, Finding)>,
    /// Loops of this process that have stopped.
    pub(super) stopped: Vec<String>,
}

#[derive(Clone, Debug)]
pub(super) struct RedisFacts {
    pub(super) address: String,
    pub(super) info: Info,
    pub(super) ping: Duration,
    pub(super) checks: Vec<Check>,
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
    // On the heap: it is large.
    let load = Box::pin(async {
        let redis = async {
            let redis = app.queues.import.redis();
            let (ping, info, checks) = (redis.ping().await?, redis.info().await?, redis.checks().await?);
            Ok::<_, QueueError>(RedisFacts { address: redis.address().to_owned(), info, ping, checks })
        };
        let mongodb = async {
            let facts = app.store.facts().await?;
            Ok::<_, StoreError>((facts, app.store.checks().await?))
        };
        let (redis, mongodb, findings) = tokio::join!(redis, mongodb, findings(app));
        let (redis, mongodb) = (redis.map_err(|error| chain(&error)), mongodb.map_err(|error| chain(&error)));
        let stopped = app.pulse.stopped(Duration::from_mins(1));
        Ok(Health { redis, mongodb, findings, stopped })
    });
    Ok((*app.shared.get("health", AGE, load).await?).clone())
}

fn is_ok(checks: &[Check]) -> bool {
    checks.iter().all(|check| check.status == Status::Ok)
}

/// Looks at a part of each queue, so that a page is not long in coming.
async fn findings(app: &App) -> Vec<(String, Finding)> {
    const LOOKED_AT_MAX: usize = 256;
    let load = async {
        let mut findings = Vec::new();
        for (queue, options) in [&app.queues.import, &app.queues.fetch].into_iter().zip(app.options.inspect) {
            let options = InspectOptions { entries_max: LOOKED_AT_MAX, guards_max: LOOKED_AT_MAX, ..options };
            match queue.inspect(options).await {
                Ok(found) => findings.extend(found.findings.into_iter().map(|one| (queue.name().to_owned(), one))),
                Err(error) => tracing::debug!(error = %chain(&error), "{} cannot be inspected", queue.name()),
            }
        }
        Ok(findings)
    };
    let found = Box::pin(app.shared.get("findings", FINDINGS_AGE, load)).await;
    found.map_or_else(|_| Vec::new(), |found| (*found).clone())
}

impl Health {
    pub(super) fn json(&self) -> Value {
        let redis = match &self.redis {
            Err(error) => json!({ "ok": false, "error": error }),
            Ok(facts) => {
                let told: BTreeMap<&str, &str> =
                    TOLD.iter().filter_map(|name| Some((*name, facts.info.text(name)?))).collect();
                let ping = (facts.ping.as_secs_f64() * 10_000.0).round() / 10.0;
                json!({ "ok": is_ok(&facts.checks), "address": facts.address, "pingMs": ping, "checks": facts.checks, "info": told })
            }
        };
        let mongodb = match &self.mongodb {
            Err(error) => json!({ "ok": false, "error": error }),
            Ok((facts, checks)) => json!({ "ok": is_ok(checks), "facts": facts, "checks": checks }),
        };
        let findings: Vec<Value> =
            self.findings.iter().map(|(queue, finding)| json!({ "queue": queue, "finding": finding })).collect();
        json!({ "redis": redis, "mongodb": mongodb, "queues": findings, "stopped": self.stopped })
    }
}
