//! The scripts: one `.lua` file per atomic move, named like the function that calls it.
//!
//! Each script begins with a header: what it does, its KEYS with their Redis types, its ARGV with units, what it returns.
//! [`Call`] builds one invocation straight into the command, without a list of arguments in between;
//! [`Reply`] decodes the answer strictly: what does not have the shape of the header is an error, never skipped.
//!
//! *Limit:* a call handles at most [`JOBS_PER_CALL_MAX`] jobs or [`BYTES_PER_CALL_MAX`]; callers loop.

use std::sync::LazyLock;

use redis::aio::ConnectionLike;
use redis::{Cmd, RedisError, ToRedisArgs, Value};

use super::QueueError;

/// Most jobs in one call: about a millisecond of Redis at 600 bytes each.
pub const JOBS_PER_CALL_MAX: usize = 256;
/// Most payload bytes in one call, for the same reason; a larger payload goes alone.
pub const BYTES_PER_CALL_MAX: usize = 512 * 1024;

/// One script: its name, its text, and the hash that Redis knows it by.
#[derive(Debug)]
pub(crate) struct Script {
    pub(crate) name: &'static str,
    pub(crate) source: &'static str,
    sha: LazyLock<String>,
}

macro_rules! scripts {
    ($($name:ident = [$($shared:literal),*] $file:literal;)+) => {
        $(
            pub(crate) static $name: Script = Script {
                name: $file,
                source: concat!($(include_str!(concat!($shared, ".lua")),)* include_str!(concat!($file, ".lua"))),
                sha: LazyLock::new(|| redis::Script::new($name.source).get_hash().to_owned()),
            };
        )+
        /// Every script, for the tests of their headers.
        #[cfg(test)]
        static ALL: &[&Script] = &[$(&$name),+];
    };
}

scripts! {
    ENQUEUE = ["head", "queue", "imports", "placing"] "enqueue";
    ADOPT = ["head", "queue", "imports", "placing"] "adopt";
    TAKE = ["head", "queue", "gate", "placing"] "take";
    DONE = ["head", "queue", "imports", "placing", "retention"] "done";
    BACK_OFF = ["head", "queue", "placing"] "back_off";
    PROMOTE = ["head", "queue", "placing"] "promote";
    BURY = ["head", "queue", "imports", "placing", "burial", "envelope", "forgetting", "discarding"] "bury";
    ENQUEUE_DEAD = ["head", "queue", "imports", "placing"] "enqueue_dead";
    BURY_ENTRY = ["head", "queue", "imports", "placing", "burial"] "bury_entry";
    REDRIVE = ["head", "queue", "imports", "placing", "revival"] "redrive";
    RETRY = ["head", "queue", "imports", "placing", "states", "revival"] "retry";
    DISCARD = ["head", "queue", "placing", "envelope", "forgetting", "discarding"] "discard";
    GIVE_BACK = ["head", "queue", "placing"] "give_back";
    RENEW = ["head"] "renew";
    BEGIN_SWEEP = ["head"] "begin_sweep";
    CLAIM = ["head", "queue", "imports", "placing", "burial", "envelope", "forgetting", "discarding"] "claim";
    PROMOTE_NOW = ["head", "queue", "placing", "states"] "promote_now";
    CHANGE_DELAY = ["head", "queue", "placing", "states"] "change_delay";
    CHANGE_PRIORITY = ["head", "queue", "placing", "states"] "change_priority";
    UPDATE_PAYLOAD = ["head", "queue", "placing", "envelope", "states"] "update_payload";
    CANCEL = ["head", "queue", "imports", "placing", "burial", "envelope", "states"] "cancel";
    REMOVE = ["head", "queue", "imports", "placing", "envelope", "forgetting", "states"] "remove";
    DROP_ENTRIES = ["head", "queue", "placing"] "drop_entries";
    TRIM_COMPLETED = ["head", "queue", "placing", "retention"] "trim_completed";
    OBLITERATE = ["head", "queue", "placing"] "obliterate";
    ENSURE_GROUP = ["head", "gate"] "ensure_group";
    PAUSE = ["head", "gate"] "pause";
    RESUME = ["head", "gate"] "resume";
    SET_LIMITS = ["head", "gate"] "set_limits";
    HOLD_UP_GROUP = ["head", "queue", "gate", "placing"] "hold_up_group";
    COUNTS = ["head", "queue", "gate"] "counts";
    FIND = ["head", "queue", "placing"] "find";
    LIST = ["head", "queue", "brief"] "list";
    LOOK_AT_DELIVERED = ["head", "queue", "gate", "placing"] "look_at_delivered";
    LOOK_AT_GUARDS = ["head", "queue", "placing"] "look_at_guards";
    RESTORE_ORPHANS = ["head", "queue", "gate", "placing"] "restore_orphans";
    RESTORE_GUARDS = ["head", "queue", "placing"] "restore_guards";
    RELEASE_GROUPS = ["head", "queue", "placing"] "release_groups";
    RECOUNT_GROUPS = ["head", "queue", "placing"] "recount_groups";
    SET_PROGRESS = ["head", "queue"] "set_progress";
    ADD_LOG = ["head", "queue"] "add_log";
    CONSUMERS = ["head"] "consumers";
    HEARTBEAT = ["head"] "heartbeat";
    REAP_CONSUMERS = ["head"] "reap_consumers";
    OPEN_IMPORTS = ["head", "imports"] "open_imports";
    BEGIN_FETCH = ["head"] "begin_fetch";
    FINISH_FETCH = ["head", "imports"] "finish_fetch";
    SEAL_IMPORT = ["head", "imports"] "seal_import";
    CLOSE_LEFTOVER = ["head", "queue", "imports"] "close_leftover";
    RELEASE_IMPORT = [] "release_import";
    DUE_SCHEDULERS = ["head"] "due_schedulers";
    FIRE = ["head", "queue", "imports", "placing"] "fire";
    RESCHEDULE = [] "reschedule";
    UPSERT_SCHEDULER = ["head"] "upsert_scheduler";
    FIND_SCHEDULER = ["head"] "find_scheduler";
    LIST_SCHEDULERS = [] "list_schedulers";
    REMOVE_SCHEDULER = [] "remove_scheduler";
    END_SESSION = ["head"] "end_session";
    NOTE_OPERATION = ["head"] "note_operation";
    STOP_OPERATION = [] "stop_operation";
    LIST_OPERATIONS = ["head"] "list_operations";
}

/// One invocation of a script.
pub(crate) struct Call {
    script: &'static Script,
    command: Cmd,
}

impl Call {
    /// Begins a call with these keys; more follow only through [`Call::new`]'s iterator.
    pub(crate) fn new<K: ToRedisArgs>(script: &'static Script, keys: impl ExactSizeIterator<Item = K>) -> Self {
        let mut command = redis::cmd("EVALSHA");
        command.arg(script.sha.as_str()).arg(keys.len());
        for key in keys {
            command.arg(key);
        }
        Self { script, command }
    }

    /// As [`Call::new`], with the keys of the front before the others.
    pub(crate) fn with_front<K: AsRef<[u8]>>(
        script: &'static Script,
        front: &[&str],
        keys: impl ExactSizeIterator<Item = K>,
    ) -> Self {
        let mut command = redis::cmd("EVALSHA");
        command.arg(script.sha.as_str()).arg(front.len() + keys.len()).arg(front);
        for key in keys {
            command.arg(key.as_ref());
        }
        Self { script, command }
    }

    /// Adds one ARGV.
    pub(crate) fn arg(&mut self, arg: impl ToRedisArgs) -> &mut Self {
        self.command.arg(arg);
        self
    }

    /// Runs the script, teaching it to Redis first where Redis does not know it (restart, `SCRIPT FLUSH`).
    pub(crate) async fn run(self, connection: &mut impl ConnectionLike) -> Result<Reply, QueueError> {
        let failed = |cause| QueueError::from_redis(self.script.name, cause);
        let value = match connection.req_packed_command(&self.command).await.and_then(Value::extract_error) {
            Err(error) if is_unknown_script(&error) => {
                let mut load = redis::cmd("SCRIPT");
                load.arg("LOAD").arg(self.script.source);
                connection.req_packed_command(&load).await.and_then(Value::extract_error).map_err(failed)?;
                connection.req_packed_command(&self.command).await.and_then(Value::extract_error)
            }
            answered => answered,
        };
        Ok(Reply { script: self.script, value: value.map_err(failed)? })
    }
}

fn is_unknown_script(error: &RedisError) -> bool {
    error.code() == Some("NOSCRIPT")
}

/// The answer of a script, to be decoded by the shape its header promises.
#[derive(Debug)]
pub(crate) struct Reply {
    script: &'static Script,
    value: Value,
}

impl Reply {
    /// As whatever type `T` decodes from; anything else is an error.
    pub(crate) fn decode<T: redis::FromRedisValue>(self) -> Result<T, QueueError> {
        let script = self.script;
        T::from_redis_value(self.value)
            .map_err(|cause| QueueError::Reply { script: script.name, detail: cause.to_string() })
    }

    /// A string of one status letter per job, as many as there were jobs.
    pub(crate) fn statuses<S>(self, jobs: usize, status: impl Fn(u8) -> Option<S>) -> Result<Vec<S>, QueueError> {
        let script = self.script;
        let letters: Vec<u8> = self.decode()?;
        decode_statuses(script, &letters, jobs, status)
    }

    /// Whether the answer is nil.
    pub(crate) fn is_nil(&self) -> bool {
        self.value == Value::Nil
    }

    /// As the elements of an array.
    pub(crate) fn array(self) -> Result<(&'static Script, Vec<Value>), QueueError> {
        match self.value {
            Value::Array(elements) => Ok((self.script, elements)),
            other => {
                Err(QueueError::Reply { script: self.script.name, detail: format!("expected an array, got {other:?}") })
            }
        }
    }
}

/// Decodes one element of an array reply.
pub(crate) fn element<T: redis::FromRedisValue>(script: &Script, value: Value) -> Result<T, QueueError> {
    T::from_redis_value(value).map_err(|cause| QueueError::Reply { script: script.name, detail: cause.to_string() })
}

/// Decodes a string of status letters.
pub(crate) fn decode_statuses<S>(
    script: &Script,
    letters: &[u8],
    jobs: usize,
    status: impl Fn(u8) -> Option<S>,
) -> Result<Vec<S>, QueueError> {
    let unexpected = || QueueError::Reply {
        script: script.name,
        detail: format!("{:?} for {jobs} jobs", String::from_utf8_lossy(letters)),
    };
    if letters.len() != jobs {
        return Err(unexpected());
    }
    letters.iter().map(|letter| status(*letter).ok_or_else(unexpected)).collect()
}

/// Cuts work into pieces that one call may handle: at most [`JOBS_PER_CALL_MAX`] and [`BYTES_PER_CALL_MAX`], at least one.
pub(crate) fn pieces<'a, T>(jobs: &'a [T], bytes: impl Fn(&T) -> usize + 'a) -> impl Iterator<Item = &'a [T]> {
    let mut rest = jobs;
    std::iter::from_fn(move || {
        let mut total = 0;
        let fitting = rest
            .iter()
            .take(JOBS_PER_CALL_MAX)
            .take_while(|job| {
                total += bytes(job);
                total <= BYTES_PER_CALL_MAX
            })
            .count();
        let (piece, after) = rest.split_at(fitting.max(1).min(rest.len()));
        rest = after;
        (!piece.is_empty()).then_some(piece)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_script_has_a_header_that_says_what_goes_in_and_out() {
        for script in ALL {
            let own = script.source.rsplit("\n\n\n").next().expect("some text");
            for part in ["-- KEYS  1", "-- Returns ", "-- ARGV  1"] {
                assert!(own.contains(part), "{} does not say {part:?}", script.name);
            }
        }
    }

    #[test]
    fn no_script_asks_redis_for_an_unbounded_answer() {
        for script in ALL {
            for command in ["'KEYS'", "'SMEMBERS'", "'FLUSHALL'", "'SCAN'"] {
                assert!(!script.source.contains(command), "{} uses {command}", script.name);
            }
        }
    }

    #[test]
    fn pieces_keep_to_both_limits_and_lose_nothing() {
        let small = vec![10; 600];
        assert_eq!(pieces(&small, |b| *b).map(<[_]>::len).collect::<Vec<_>>(), [256, 256, 88]);
        let large = [200 * 1024, 200 * 1024, 200 * 1024, 900 * 1024, 1];
        assert_eq!(pieces(&large, |b| *b).map(<[_]>::len).collect::<Vec<_>>(), [2, 1, 1, 1]);
        assert_eq!(pieces(&[] as &[usize], |b| *b).count(), 0);
    }

    #[test]
    fn status_letters_are_decoded_strictly() {
        let status = |letter| (letter == b'D').then_some(());
        assert_eq!(decode_statuses(&DONE, b"DD", 2, status).expect("as promised").len(), 2);
        assert!(decode_statuses(&DONE, b"D", 2, status).is_err(), "one is missing");
        assert!(decode_statuses(&DONE, b"D?", 2, status).is_err(), "unknown letter");
    }
}
