//! What Redis says: lengths, groups, consumers, heads of zsets. Each command is bounded; nothing is judged here.

use std::collections::HashMap;

use redis::streams::{StreamPendingCountReply, StreamRangeReply};
use redis::{FromRedisValue, Value};

use super::super::consumers::ConsumerState;
use super::super::counts::Counts;
use super::super::groups::TopGroups;
use super::super::{GROUP, Queue, QueueError};
use crate::job::{JobId, Place};

/// Oldest pending entries that are shown.
const OLDEST_PENDING: usize = 5;
/// Groups with parked jobs that are shown.
const PARKED_GROUPS: usize = 5;
/// Pending entries of a dead consumer that are asked for how long they are idle.
const PENDING_ASKED: usize = 10;
/// Newest dead letters whose reasons are counted, and how many one command reads.
const LETTERS_READ: usize = 1000;
const LETTERS_PAGE: usize = 250;
/// Values that `MEMORY USAGE` looks at for its estimate.
const MEMORY_SAMPLES: usize = 5;

/// Everything that is observed, at about one moment.
pub(super) struct Observed {
    pub(super) now_ms: u64,
    pub(super) counts: Counts,
    /// Whether the queue ever had a group, as far as `meta` knows.
    pub(super) had_group: bool,
    /// Where the group of the work stream had got to when its gate was closed; `None` while it is open.
    pub(super) gate: Option<String>,
    /// Time until the next sweep may begin; `None`: it may begin now.
    pub(super) sweep_left_ms: Option<u64>,
    pub(super) lengths: HashMap<&'static str, Length>,
    pub(super) groups: Vec<(Place, Vec<RawGroup>)>,
    pub(super) consumers: Vec<RawConsumer>,
    pub(super) oldest_pending: Vec<RawPending>,
    pub(super) delayed: Due,
    pub(super) schedulers: Due,
    pub(super) parked: TopGroups,
    /// By group, until when it is held up (ms).
    pub(super) held: HashMap<Vec<u8>, u64>,
    /// Reasons of the newest dead letters.
    pub(super) reasons: Vec<String>,
}

/// How much there is in a key.
#[derive(Default)]
pub(super) struct Length {
    pub(super) key: String,
    pub(super) n: u64,
    pub(super) memory_bytes: Option<u64>,
    pub(super) first_entry: Option<String>,
    pub(super) last_entry: Option<String>,
}

/// What `XINFO GROUPS` says of a group.
pub(super) struct RawGroup {
    pub(super) name: String,
    pub(super) consumers: u64,
    pub(super) pending: u64,
    pub(super) last_delivered: String,
    pub(super) lag: Option<u64>,
}

/// What Redis and the registry say of a consumer.
pub(super) struct RawConsumer {
    pub(super) state: ConsumerState,
    pub(super) idle_ms: Option<u64>,
    pub(super) inactive_ms: Option<u64>,
    /// Of some of its pending entries the shortest time that one is idle: then all of those are claimed. Asked only of
    /// consumers that are not alive.
    pub(super) pending_idle_ms: Option<u64>,
}

/// What `XPENDING` says of an entry.
pub(super) struct RawPending {
    pub(super) lane: Place,
    pub(super) entry: String,
    pub(super) job: Option<String>,
    pub(super) consumer: String,
    pub(super) idle_ms: u64,
    pub(super) deliveries: u64,
}

/// The head of a zset that is ordered by time.
#[derive(Default)]
pub(super) struct Due {
    /// When the first one is due (ms).
    pub(super) first_ms: Option<u64>,
    /// How many are due.
    pub(super) n: u64,
    /// The first ones.
    pub(super) examples: Vec<String>,
}

/// What each lane is called.
pub(super) fn lane_name(lane: Place) -> &'static str {
    if lane == Place::Prioritized { "prioritized:active" } else { "stream" }
}

/// Text that is shown: what is no UTF-8 is replaced.
fn shown(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A field of what XINFO answers.
fn field<T: FromRedisValue>(fields: &mut HashMap<String, Value>, name: &str) -> Option<T> {
    T::from_redis_value(fields.remove(name)?).ok()
}

impl Queue {
    /// Keys of the queue whose type is another one than it should be, with the type they are of.
    pub(super) async fn mistyped_keys(&self) -> Result<Vec<(String, String)>, QueueError> {
        let keys = self.keys();
        let parked_groups = keys.parked_groups();
        let wanted = [
            (keys.stream(), "stream"),
            (keys.prioritized_active(), "stream"),
            (keys.wake(), "stream"),
            (keys.dead(), "stream"),
            (keys.events(), "stream"),
            (keys.prioritized(), "zset"),
            (keys.delayed(), "zset"),
            (keys.completed(), "zset"),
            (keys.schedulers(), "zset"),
            (keys.consumers(), "zset"),
            (keys.held_groups(), "zset"),
            (parked_groups.as_str(), "zset"),
            (keys.groups(), "hash"),
            (keys.failures(), "hash"),
            (keys.meta(), "hash"),
        ];
        let mut types = redis::pipe();
        for (key, _) in wanted {
            types.cmd("TYPE").arg(key);
        }
        let types = types.query_async::<Vec<String>>(&mut self.connection()).await;
        let types = types.map_err(|cause| QueueError::from_redis("TYPE", cause))?;
        let wrong = wanted.into_iter().zip(types).filter(|((_, wanted), found)| found != wanted && found != "none");
        Ok(wrong.map(|((key, _), found)| (key.to_owned(), found)).collect())
    }

    pub(super) async fn observe(&self) -> Result<Observed, QueueError> {
        let keys = self.keys();
        let time = self.time().await?.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let now_ms = super::super::millis(time);
        let mut noted = redis::cmd("HMGET");
        noted.arg(keys.meta()).arg("had_group").arg("gate");
        let (had_group, gate): (Option<String>, Option<String>) = self.ask("HMGET", &noted).await?;
        let mut left = redis::cmd("PTTL");
        let left: i64 = self.ask("PTTL", left.arg(keys.sweep())).await?;
        let mut groups = Vec::new();
        for lane in [Place::Stream, Place::Prioritized] {
            groups.push((lane, self.raw_groups(lane).await?));
        }
        let parked = self.top_parked_groups(PARKED_GROUPS).await?;
        let mut held = HashMap::new();
        for group in &parked.groups {
            let mut score = redis::cmd("ZSCORE");
            let until: Option<f64> = self.ask("ZSCORE", score.arg(keys.held_groups()).arg(&group.group)).await?;
            held.extend(until.map(|until| (group.group.clone(), until as u64)));
        }
        Ok(Observed {
            now_ms,
            counts: self.counts().await?,
            had_group: had_group.is_some(),
            gate,
            sweep_left_ms: u64::try_from(left).ok(),
            lengths: self.lengths().await?,
            groups,
            consumers: self.raw_consumers().await?,
            oldest_pending: self.raw_oldest_pending().await?,
            delayed: self.due(keys.delayed(), now_ms).await?,
            schedulers: self.due(keys.schedulers(), now_ms).await?,
            parked,
            held,
            reasons: self.newest_reasons().await?,
        })
    }

    fn lane_key(&self, lane: Place) -> &str {
        if lane == Place::Prioritized { self.keys().prioritized_active() } else { self.keys().stream() }
    }

    async fn lengths(&self) -> Result<HashMap<&'static str, Length>, QueueError> {
        let keys = self.keys();
        let parked_groups = keys.parked_groups();
        let mut lengths = HashMap::new();
        for (name, key) in [
            ("stream", keys.stream()),
            ("prioritized:active", keys.prioritized_active()),
            ("dead", keys.dead()),
            ("events", keys.events()),
        ] {
            let mut length = Length { key: key.to_owned(), ..Length::default() };
            let mut info = redis::cmd("XINFO");
            match self.ask::<HashMap<String, Value>>("XINFO", info.arg("STREAM").arg(key)).await {
                Err(error) if error.is_key_missing() => {}
                Err(error) => return Err(error),
                Ok(mut info) => {
                    length.n = field(&mut info, "length").unwrap_or(0);
                    length.memory_bytes = self.memory(key).await;
                    let id = |entry: Option<Value>| match entry {
                        Some(Value::Array(parts)) => String::from_redis_value(parts.into_iter().next()?).ok(),
                        _ => None,
                    };
                    length.first_entry = id(info.remove("first-entry"));
                    length.last_entry = id(info.remove("last-entry"));
                }
            }
            lengths.insert(name, length);
        }
        for (name, key) in [
            ("prioritized", keys.prioritized()),
            ("delayed", keys.delayed()),
            ("parked", parked_groups.as_str()),
            ("completed", keys.completed()),
            ("schedulers", keys.schedulers()),
        ] {
            let mut count = redis::cmd("ZCARD");
            let n: u64 = self.ask("ZCARD", count.arg(key)).await?;
            let memory_bytes = if n > 0 { self.memory(key).await } else { None };
            lengths.insert(name, Length { key: key.to_owned(), n, memory_bytes, ..Length::default() });
        }
        Ok(lengths)
    }

    /// What a key takes, as far as Redis tells: servers may refuse the command.
    async fn memory(&self, key: &str) -> Option<u64> {
        let mut usage = redis::cmd("MEMORY");
        self.ask("MEMORY", usage.arg("USAGE").arg(key).arg("SAMPLES").arg(MEMORY_SAMPLES)).await.ok().flatten()
    }

    async fn raw_groups(&self, lane: Place) -> Result<Vec<RawGroup>, QueueError> {
        let mut info = redis::cmd("XINFO");
        info.arg("GROUPS").arg(self.lane_key(lane));
        let groups = match self.ask::<Vec<HashMap<String, Value>>>("XINFO", &info).await {
            Err(error) if error.is_key_missing() => Vec::new(),
            groups => groups?,
        };
        let read = |mut info: HashMap<String, Value>| RawGroup {
            name: field(&mut info, "name").unwrap_or_default(),
            consumers: field(&mut info, "consumers").unwrap_or(0),
            pending: field(&mut info, "pending").unwrap_or(0),
            last_delivered: field(&mut info, "last-delivered-id").unwrap_or_default(),
            lag: field(&mut info, "lag"),
        };
        Ok(groups.into_iter().map(read).collect())
    }

    async fn raw_consumers(&self) -> Result<Vec<RawConsumer>, QueueError> {
        // By name: the shortest idle and inactive times of both lanes.
        let mut times: HashMap<String, (Option<u64>, Option<u64>)> = HashMap::new();
        for lane in [Place::Stream, Place::Prioritized] {
            let mut info = redis::cmd("XINFO");
            info.arg("CONSUMERS").arg(self.lane_key(lane)).arg(GROUP);
            let found = match self.ask::<Vec<HashMap<String, Value>>>("XINFO", &info).await {
                Err(error) if error.is_group_lost() || error.is_key_missing() => Vec::new(),
                found => found?,
            };
            for mut info in found {
                let name = field(&mut info, "name").unwrap_or_default();
                let (idle, inactive) = times.entry(name).or_default();
                let shortest = |known: Option<u64>, new: Option<u64>| known.into_iter().chain(new).min();
                *idle = shortest(*idle, field(&mut info, "idle"));
                // -1: it never got anything
                let got = field::<i64>(&mut info, "inactive").and_then(|ms| u64::try_from(ms).ok());
                *inactive = shortest(*inactive, got);
            }
        }
        let mut consumers = Vec::new();
        for state in self.consumers().await? {
            let (idle_ms, inactive_ms) = times.get(&state.name).copied().unwrap_or_default();
            let asked = !state.is_alive && state.pending > 0;
            let pending_idle_ms = if asked { self.shortest_idle(&state.name).await? } else { None };
            consumers.push(RawConsumer { state, idle_ms, inactive_ms, pending_idle_ms });
        }
        Ok(consumers)
    }

    async fn shortest_idle(&self, consumer: &str) -> Result<Option<u64>, QueueError> {
        let mut shortest = None;
        for lane in [Place::Stream, Place::Prioritized] {
            let mut pending = redis::cmd("XPENDING");
            pending.arg(self.lane_key(lane)).arg(GROUP).arg("-").arg("+").arg(PENDING_ASKED).arg(consumer);
            let pending = match self.ask::<StreamPendingCountReply>("XPENDING", &pending).await {
                Err(error) if error.is_group_lost() || error.is_key_missing() => continue,
                pending => pending?,
            };
            let idle = pending.ids.iter().map(|entry| entry.last_delivered_ms as u64).min();
            shortest = shortest.into_iter().chain(idle).min();
        }
        Ok(shortest)
    }

    async fn raw_oldest_pending(&self) -> Result<Vec<RawPending>, QueueError> {
        let mut oldest = Vec::new();
        for lane in [Place::Stream, Place::Prioritized] {
            let mut pending = redis::cmd("XPENDING");
            pending.arg(self.lane_key(lane)).arg(GROUP).arg("-").arg("+").arg(OLDEST_PENDING);
            let pending = match self.ask::<StreamPendingCountReply>("XPENDING", &pending).await {
                Err(error) if error.is_group_lost() || error.is_key_missing() => continue,
                pending => pending?,
            };
            for entry in pending.ids {
                let mut range = redis::cmd("XRANGE");
                range.arg(self.lane_key(lane)).arg(&entry.id).arg(&entry.id);
                let found: StreamRangeReply = self.ask("XRANGE", &range).await?;
                let id = found.ids.first().and_then(|found| found.get::<Vec<u8>>("id"));
                oldest.push(RawPending {
                    lane,
                    entry: entry.id,
                    job: id.and_then(|id| JobId::new(id).ok()).map(|id| id.to_string()),
                    consumer: entry.consumer,
                    idle_ms: entry.last_delivered_ms as u64,
                    deliveries: entry.times_delivered as u64,
                });
            }
        }
        Ok(oldest)
    }

    async fn due(&self, key: &str, now_ms: u64) -> Result<Due, QueueError> {
        let mut first = redis::cmd("ZRANGE");
        first.arg(key).arg(0).arg(super::finding::EXAMPLES_MAX - 1).arg("WITHSCORES");
        let first: Vec<(Vec<u8>, f64)> = self.ask("ZRANGE", &first).await?;
        let mut due = redis::cmd("ZCOUNT");
        let n = self.ask("ZCOUNT", due.arg(key).arg("-inf").arg(now_ms)).await?;
        Ok(Due {
            first_ms: first.first().map(|(_, ms)| *ms as u64),
            n,
            examples: first.iter().filter(|(_, ms)| *ms <= now_ms as f64).map(|(id, _)| shown(id)).collect(),
        })
    }

    async fn newest_reasons(&self) -> Result<Vec<String>, QueueError> {
        let (mut reasons, mut end) = (Vec::new(), "+".to_owned());
        while reasons.len() < LETTERS_READ {
            let mut range = redis::cmd("XREVRANGE");
            range.arg(self.keys().dead()).arg(&end).arg("-").arg("COUNT").arg(LETTERS_PAGE);
            let page: StreamRangeReply = self.ask("XREVRANGE", &range).await?;
            let Some(last) = page.ids.last() else { break };
            end = format!("({}", last.id);
            let is_last = page.ids.len() < LETTERS_PAGE;
            let reason = |letter: redis::streams::StreamId| {
                letter.get::<Vec<u8>>("reason").map_or_else(String::new, |reason| shown(&reason))
            };
            reasons.extend(page.ids.into_iter().map(reason));
            if is_last {
                break;
            }
        }
        Ok(reasons)
    }
}
