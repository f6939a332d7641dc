//! One BullMQ queue as it stands in Redis: what it holds, page by page, and the removal of what was taken over.
//!
//! Reading changes nothing. The shape of the answers is that of the two scripts.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use redis::aio::ConnectionManager;
use redis::{FromRedisValue, Script, Value};

use super::MigrateError;
use super::keys::{SourceKeys, Structure};
use super::source_job::SourceJob;
use crate::queue::Redis;
use crate::queue::scripts::BYTES_PER_CALL_MAX;

/// Jobs of a page: to read one takes Redis about 10 µs, several times as long as one of ours.
const PAGE_JOBS: usize = 128;

/// A BullMQ queue.
pub struct Source {
    connection: ConnectionManager,
    keys: SourceKeys,
    read_page: Script,
    remove: Script,
}

/// What a BullMQ queue holds, in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Survey {
    /// Jobs that wait, in `wait` and in `paused`.
    pub waiting: u64,
    /// Jobs with a priority.
    pub prioritized: u64,
    /// Jobs that are not due.
    pub delayed: u64,
    /// Jobs that were given up.
    pub failed: u64,
    /// Jobs that a worker has.
    pub active: u64,
    /// Finished jobs that were kept.
    pub completed: u64,
    /// Parents whose children are not done.
    pub waiting_children: u64,
    /// Job schedulers.
    pub schedulers: u64,
    /// Whether the queue is paused.
    pub is_paused: bool,
}

/// Some jobs of one structure, in the order in which BullMQ would work on them.
#[derive(Debug)]
pub(super) struct Page {
    /// When it was read, by the clock of Redis.
    pub(super) read_at: SystemTime,
    /// The jobs.
    pub(super) jobs: Vec<SourceJob>,
}

/// What became of a job that was to be removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Removed {
    /// It is gone from BullMQ.
    Removed,
    /// It stood there no more; a worker, or another run, was faster.
    Gone,
}

impl Survey {
    /// Jobs that are there to be moved.
    pub fn movable(&self) -> u64 {
        self.waiting + self.prioritized + self.delayed + self.failed
    }
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Source").field("queue", &self.keys.label()).finish_non_exhaustive()
    }
}

impl Source {
    /// The queue `queue` of BullMQ, whose keys begin with `prefix` (`bull` unless the program says otherwise).
    pub fn new(redis: &Redis, prefix: &str, queue: &str) -> Self {
        Self {
            connection: redis.connection(),
            keys: SourceKeys::new(prefix, queue),
            read_page: Script::new(include_str!("scripts/read_page.lua")),
            remove: Script::new(include_str!("scripts/remove.lua")),
        }
    }

    /// The queue as people see it: `bull:orders`.
    pub fn label(&self) -> String {
        self.keys.label()
    }

    /// Whether BullMQ ever opened this queue.
    ///
    /// # Errors
    /// [`MigrateError::Redis`].
    pub async fn exists(&self) -> Result<bool, MigrateError> {
        redis::cmd("EXISTS")
            .arg(self.keys.named("meta"))
            .query_async(&mut self.connection.clone())
            .await
            .map_err(|cause| self.failed("EXISTS", cause))
    }

    /// Counts what it holds.
    ///
    /// # Errors
    /// [`MigrateError::Redis`].
    pub async fn survey(&self) -> Result<Survey, MigrateError> {
        let structure = |structure| self.keys.structure(structure);
        let (wait, paused, active, prioritized, delayed, failed, completed, waiting_children, schedulers, is_paused) =
            redis::pipe()
                .llen(structure(Structure::Wait))
                .llen(structure(Structure::Paused))
                .llen(self.keys.named("active"))
                .zcard(structure(Structure::Prioritized))
                .zcard(structure(Structure::Delayed))
                .zcard(structure(Structure::Failed))
                .zcard(self.keys.named("completed"))
                .zcard(self.keys.named("waiting-children"))
                .zcard(self.keys.named("repeat"))
                .hexists(self.keys.named("meta"), "paused")
                .query_async::<(u64, u64, u64, u64, u64, u64, u64, u64, u64, bool)>(&mut self.connection.clone())
                .await
                .map_err(|cause| self.failed("counting", cause))?;
        let waiting = wait + paused;
        Ok(Survey { waiting, prioritized, delayed, failed, active, completed, waiting_children, schedulers, is_paused })
    }

    /// How many workers of this queue are connected; `None` where the server does not list its clients.
    ///
    /// # Errors
    /// [`MigrateError::Redis`] when Redis does not answer.
    pub async fn workers(&self) -> Result<Option<usize>, MigrateError> {
        let mut list = redis::cmd("CLIENT");
        list.arg("LIST");
        match list.query_async::<String>(&mut self.connection.clone()).await {
            Ok(clients) => {
                let name = self.keys.worker_name();
                Ok(Some(clients.lines().filter(|client| is_worker(client, &name)).count()))
            }
            Err(cause) if cause.is_io_error() || cause.is_timeout() => Err(self.failed("CLIENT LIST", cause)),
            // Managed servers may refuse it.
            Err(_) => Ok(None),
        }
    }

    /// Reads the next jobs of a structure after the first `skip`; an empty page is the end.
    ///
    /// # Errors
    /// [`MigrateError::Redis`], [`MigrateError::Reply`].
    pub(super) async fn read_page(&self, structure: Structure, skip: usize) -> Result<Page, MigrateError> {
        let reply = self
            .read_page
            .key(self.keys.structure(structure))
            .key(self.keys.named("repeat"))
            .arg(structure.kind())
            .arg(self.keys.base())
            .arg(skip)
            .arg(PAGE_JOBS)
            .arg(BYTES_PER_CALL_MAX)
            .invoke_async::<Vec<Value>>(&mut self.connection.clone())
            .await
            .map_err(|cause| self.failed("read_page", cause))?;
        let unexpected = |detail: String| MigrateError::Reply { script: "read_page", detail };
        let mut elements = reply.into_iter();
        let time = elements.next().ok_or_else(|| unexpected("no time".to_owned()))?;
        let time = u64::from_redis_value(time).map_err(|error| unexpected(error.to_string()))?;
        let read_at = UNIX_EPOCH + Duration::from_millis(time);
        let jobs = elements.map(|row| {
            let row = Vec::<Option<Vec<u8>>>::from_redis_value(row).map_err(|error| unexpected(error.to_string()))?;
            SourceJob::from_row(row, structure, read_at).map_err(unexpected)
        });
        Ok(Page { read_at, jobs: jobs.collect::<Result<_, _>>()? })
    }

    /// Removes jobs that were taken over, with everything that belongs to them. Says what became of each, in order.
    ///
    /// # Errors
    /// [`MigrateError::Active`] when a worker has begun to work on the queue: then nothing was removed.
    /// [`MigrateError::Redis`], [`MigrateError::Reply`].
    pub(super) async fn remove(&self, structure: Structure, ids: &[&[u8]]) -> Result<Vec<Removed>, MigrateError> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let mut call = self.remove.key(self.keys.structure(structure));
        call.key(self.keys.named("active")).arg(structure.kind()).arg(self.keys.base()).arg(ids);
        let (active, letters) = call
            .invoke_async::<(u64, Vec<u8>)>(&mut self.connection.clone())
            .await
            .map_err(|cause| self.failed("remove", cause))?;
        if active > 0 {
            return Err(MigrateError::Active { queue: self.label(), jobs: active });
        }
        decode_letters(&letters, ids.len())
    }

    fn failed(&self, operation: &'static str, cause: redis::RedisError) -> MigrateError {
        MigrateError::Redis { queue: self.label(), operation, cause }
    }
}

impl SourceKeys {
    /// What the connections of workers are called; those of workers with names of their own go on with `:w:`.
    fn worker_name(&self) -> String {
        format!("{}:{}", self.prefix(), STANDARD.encode(self.queue()))
    }
}

/// Whether a line of `CLIENT LIST` is a worker whose connections have this name.
fn is_worker(client: &str, name: &str) -> bool {
    let called = client.split(' ').find_map(|field| field.strip_prefix("name=")).unwrap_or_default();
    called.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with(":w:"))
}

fn decode_letters(letters: &[u8], jobs: usize) -> Result<Vec<Removed>, MigrateError> {
    let unexpected = || MigrateError::Reply {
        script: "remove",
        detail: format!("{:?} for {jobs} jobs", String::from_utf8_lossy(letters)),
    };
    if letters.len() != jobs {
        return Err(unexpected());
    }
    let removed = letters.iter().map(|letter| match letter {
        b'R' => Ok(Removed::Removed),
        b'G' => Ok(Removed::Gone),
        _ => Err(unexpected()),
    });
    removed.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_are_known_by_the_names_of_their_connections() {
        let name = SourceKeys::new("bull", "orders").worker_name();
        assert_eq!(name, "bull:b3JkZXJz");
        assert!(is_worker("id=7 addr=127.0.0.1:5 name=bull:b3JkZXJz age=1", &name));
        assert!(is_worker("id=7 name=bull:b3JkZXJz:w:eu-1 age=1", &name));
        for other in ["id=7 name= age=1", "id=7 name=bull:b3JkZXJz:qe", "id=7 name=bull:b3JkZXJzMg==", "id=7"] {
            assert!(!is_worker(other, &name), "{other}");
        }
    }

    #[test]
    fn scripts_say_what_goes_in_and_out_and_ask_for_nothing_unbounded() {
        for script in [include_str!("scripts/read_page.lua"), include_str!("scripts/remove.lua")] {
            for part in ["-- KEYS  1 ", "-- ARGV  1 ", "-- Returns "] {
                assert!(script.contains(part), "{part:?} is missing");
            }
            for command in ["'KEYS'", "'SMEMBERS'", "'HGETALL'", "'SCAN'"] {
                assert!(!script.contains(command), "{command}");
            }
        }
    }

    #[test]
    fn letters_are_decoded_strictly() {
        assert_eq!(decode_letters(b"RG", 2).expect("as promised"), [Removed::Removed, Removed::Gone]);
        assert!(decode_letters(b"R", 2).is_err(), "one is missing");
        assert!(decode_letters(b"R?", 2).is_err(), "unknown letter");
    }
}
