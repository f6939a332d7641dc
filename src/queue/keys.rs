//! Every key of a queue: the only place where keys are built.
//!
//! All keys of a queue share the hash tag `{queue}`, so that a script may touch several of them on a cluster. What
//! belongs to a source (seen map, validators, import) lives with the import queue for the same reason.
//!
//! | key | type | holds |
//! |---|---|---|
//! | `:stream` | stream | waiting and active jobs: field `id`; a plain producer's entry: field `json` (claimed once: also `stalls`, `added`) |
//! | `:prioritized` | zset | waiting jobs with a priority, by priority × 2³² + arrival |
//! | `:prioritized:active` | stream | those of them that a worker has: every entry is pending |
//! | `:job:<id>` | string | guard and job in one: head, envelope |
//! | `:groups` | hash | group → its jobs that are not parked |
//! | `:groups:held` | zset | groups that are held up, by until when (ms) |
//! | `:parked:<group>` | zset | jobs of a group that have no room in the stream, by arrival (µs) |
//! | `:parked` | zset | groups that have parked jobs, by name |
//! | `:delayed` | zset | job id by due time (ms) |
//! | `:failures` | hash | job id → MessagePack `[first failure (ms), last failure (ms), error]` |
//! | `:dead` | stream | dead letters: `id`, `reason`, `attempts`, `at` (ms), `consumer`, `raw` (of an unreadable entry) |
//! | `:completed` | zset | finished jobs that are kept, by the time they finished (ms) |
//! | `:log:<id>` | hash | progress, log lines, result and times of a job: only when used or kept |
//! | `:dedup:<id>` | string | the job that holds a deduplication id |
//! | `:wake` | stream | at most one entry: wakes a blocked reader because something is due that the stream does not show |
//! | `:meta` | hash | `events`, `group_window` (0: none), `paused`, `gate` (entry id reached), limits, counters, `last_version`, `last_import`, `had_group` |
//! | `:limiter` | string | jobs started in this window; expires with it |
//! | `:limiter:<group>` | string | the same for a group |
//! | `:events` | stream | what happened, capped |
//! | `:series:<day>` | hash | `completed:<minute>`, `failed:<minute>` of a day since 1970; expires |
//! | `:sweep` | string | who swept for stalled jobs last; expires with the interval |
//! | `:consumers` | zset | consumer name by last heartbeat (ms) |
//! | `:consumer:<name>` | hash | host, pid, started (ms), current jobs |
//! | `:consumer:<name>:cancelled` | set | place and entry (11 bytes) of its jobs that were cancelled and it does not know of; expires |
//! | `:schedulers` | zset | scheduler id by its next slot (ms) |
//! | `:scheduler:<id>` | hash | `definition`, `template`, `revision`, `created`, `fired`, `last_slot` of a stored scheduler |
//! | `:imports` | zset | imports that are not recorded yet, by time of opening (ms) |
//! | `:imports:closing` | zset | imports whose record is to be written, by time of closing (ms) |
//! | `:import:<id>` | hash | counts of a running import |
//! | `:seen:<feed>` | string | what the feed showed lately |
//! | `:feed:<name>` | hash | validators, last fetch, failures of a feed |
//!
//! Scripts that move jobs are told the prefix of the queue and build the keys of single jobs, groups, imports, feeds and
//! deduplication ids themselves, in `scripts/queue.lua` and `scripts/forgetting.lua`: they meet ids that their caller does
//! not know.

use super::QueueError;
use crate::job::{ImportId, JobId};

/// The set of the names of all queues under `prefix` (set).
pub(super) fn registry(prefix: &str) -> String {
    format!("{prefix}:queues")
}

/// The sessions of the dashboard that have ended before their time, by when they would have been over, in ms (zset).
pub(super) fn ended_sessions(prefix: &str) -> String {
    format!("{prefix}:sessions:ended")
}

/// How far operations on many jobs are, by id (hash).
pub(super) fn operations(prefix: &str) -> String {
    format!("{prefix}:operations")
}

/// How the key ends that notes which jobs of a consumer were cancelled.
pub(super) const CANCELLED_ENDING: &str = ":cancelled";

/// The keys of one queue.
#[derive(Clone, Debug)]
pub struct Keys {
    queue: String,
    registry: String,
    queue_prefix: String,
    stream: String,
    prioritized: String,
    prioritized_active: String,
    groups: String,
    held_groups: String,
    completed: String,
    limiter: String,
    wake: String,
    delayed: String,
    failures: String,
    dead: String,
    meta: String,
    events: String,
    sweep: String,
    consumers: String,
    schedulers: String,
    imports: String,
    closing_imports: String,
    job_prefix: String,
    consumer_prefix: String,
    scheduler_prefix: String,
    import_prefix: String,
    seen_prefix: String,
    feed_prefix: String,
}

impl Keys {
    /// Keys of `queue` under `prefix` (`feedmill` unless configured).
    ///
    /// # Errors
    /// [`QueueError::Name`] for a name with other characters than `A–Z a–z 0–9 _ . -`: a brace would change the hash tag.
    pub fn new(prefix: &str, queue: &str) -> Result<Self, QueueError> {
        let accepted = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
        if queue.is_empty() || !queue.bytes().all(accepted) {
            return Err(QueueError::Name { name: queue.to_owned() });
        }
        let key = |rest: &str| format!("{prefix}:{{{queue}}}:{rest}");
        Ok(Self {
            queue: queue.to_owned(),
            registry: registry(prefix),
            queue_prefix: key(""),
            stream: key("stream"),
            prioritized: key("prioritized"),
            prioritized_active: key("prioritized:active"),
            groups: key("groups"),
            held_groups: key("groups:held"),
            completed: key("completed"),
            limiter: key("limiter"),
            wake: key("wake"),
            delayed: key("delayed"),
            failures: key("failures"),
            dead: key("dead"),
            meta: key("meta"),
            events: key("events"),
            sweep: key("sweep"),
            consumers: key("consumers"),
            schedulers: key("schedulers"),
            imports: key("imports"),
            closing_imports: key("imports:closing"),
            job_prefix: key("job:"),
            consumer_prefix: key("consumer:"),
            scheduler_prefix: key("scheduler:"),
            import_prefix: key("import:"),
            seen_prefix: key("seen:"),
            feed_prefix: key("feed:"),
        })
    }

    /// Name of the queue.
    pub fn queue(&self) -> &str {
        &self.queue
    }

    /// The set of all queues (set). Has no hash tag: never in a script.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// What all keys of the queue begin with.
    pub fn queue_prefix(&self) -> &str {
        &self.queue_prefix
    }

    /// The keys that every script which moves jobs gets, in the order of `scripts/queue.lua`.
    pub(super) fn moving(&self) -> [&str; 12] {
        [
            &self.stream,
            &self.prioritized_active,
            &self.wake,
            &self.prioritized,
            &self.delayed,
            &self.dead,
            &self.completed,
            &self.failures,
            &self.groups,
            &self.meta,
            &self.events,
            &self.closing_imports,
        ]
    }

    /// What jobs stand in, of whichever type: everything that is not of a single job, group, feed, import or consumer, but for
    /// `meta`.
    pub(super) fn structures(&self) -> [&str; 14] {
        [
            &self.stream,
            &self.prioritized_active,
            &self.wake,
            &self.prioritized,
            &self.delayed,
            &self.dead,
            &self.completed,
            &self.failures,
            &self.groups,
            &self.events,
            &self.closing_imports,
            &self.imports,
            &self.consumers,
            &self.schedulers,
        ]
    }

    /// The pattern by which SCAN finds all keys of the queue.
    pub(super) fn pattern(&self) -> String {
        Self::pattern_of(&self.queue_prefix)
    }

    /// The pattern by which SCAN finds the keys of jobs.
    pub(super) fn job_pattern(&self) -> String {
        Self::pattern_of(&self.job_prefix)
    }

    fn pattern_of(prefix: &str) -> String {
        let mut pattern = String::with_capacity(prefix.len() + 1);
        for character in prefix.chars() {
            // A prefix may hold what means something in a pattern.
            if matches!(character, '*' | '?' | '[' | ']' | '\\') {
                pattern.push('\\');
            }
            pattern.push(character);
        }
        pattern + "*"
    }

    /// The work stream (stream).
    pub fn stream(&self) -> &str {
        &self.stream
    }

    /// Waiting jobs with a priority (zset).
    pub fn prioritized(&self) -> &str {
        &self.prioritized
    }

    /// Jobs with a priority that a worker has (stream).
    pub fn prioritized_active(&self) -> &str {
        &self.prioritized_active
    }

    /// Jobs of each group that are not parked (hash).
    pub fn groups(&self) -> &str {
        &self.groups
    }

    /// Groups that are held up (zset).
    pub fn held_groups(&self) -> &str {
        &self.held_groups
    }

    /// Jobs of a group that have no room in the stream (zset).
    pub fn parked(&self, group: &[u8]) -> Vec<u8> {
        [self.queue_prefix.as_bytes(), b"parked:", group].concat()
    }

    /// Groups that have parked jobs (zset).
    pub fn parked_groups(&self) -> String {
        format!("{}parked", self.queue_prefix)
    }

    /// Finished jobs that are kept (zset).
    pub fn completed(&self) -> &str {
        &self.completed
    }

    /// Jobs started in this window (string).
    pub fn limiter(&self) -> &str {
        &self.limiter
    }

    /// What the limiters of groups begin with.
    pub fn group_limiter_prefix(&self) -> String {
        format!("{}:", self.limiter)
    }

    /// Progress, log lines, result and times of a job (hash).
    pub fn log(&self, id: &JobId) -> Vec<u8> {
        [self.queue_prefix.as_bytes(), b"log:", id.as_bytes()].concat()
    }

    /// The job that holds a deduplication id (string).
    pub fn dedup(&self, dedup: &str) -> String {
        format!("{}dedup:{dedup}", self.queue_prefix)
    }

    /// What ended in each minute of a day, counted from 1970 (hash).
    pub fn series(&self, day: u64) -> String {
        format!("{}series:{day}", self.queue_prefix)
    }

    /// The stream that wakes readers (stream).
    pub fn wake(&self) -> &str {
        &self.wake
    }

    /// The backoff zset (zset).
    pub fn delayed(&self) -> &str {
        &self.delayed
    }

    /// Errors of jobs that failed at least once (hash).
    pub fn failures(&self) -> &str {
        &self.failures
    }

    /// The dead letters (stream).
    pub fn dead(&self) -> &str {
        &self.dead
    }

    /// Flags and counters (hash).
    pub fn meta(&self) -> &str {
        &self.meta
    }

    /// What happened (stream).
    pub fn events(&self) -> &str {
        &self.events
    }

    /// Who sweeps for stalled jobs (string).
    pub fn sweep(&self) -> &str {
        &self.sweep
    }

    /// Heartbeats of the consumers (zset).
    pub fn consumers(&self) -> &str {
        &self.consumers
    }

    /// A consumer (hash).
    pub fn consumer(&self, name: &str) -> String {
        format!("{}{name}", self.consumer_prefix)
    }

    /// Which of its jobs were cancelled, until it knows (set).
    pub fn consumer_cancelled(&self, name: &str) -> String {
        format!("{}{name}{CANCELLED_ENDING}", self.consumer_prefix)
    }

    /// What the keys of consumers begin with.
    pub fn consumer_prefix(&self) -> &str {
        &self.consumer_prefix
    }

    /// Schedulers by their next slots (zset).
    pub fn schedulers(&self) -> &str {
        &self.schedulers
    }

    /// What is stored of a scheduler (hash).
    pub fn scheduler(&self, id: &str) -> String {
        format!("{}{id}", self.scheduler_prefix)
    }

    /// What the keys of stored schedulers begin with.
    pub fn scheduler_prefix(&self) -> &str {
        &self.scheduler_prefix
    }

    /// Imports that are not recorded yet (zset).
    pub fn imports(&self) -> &str {
        &self.imports
    }

    /// Imports whose record is to be written (zset).
    pub fn closing_imports(&self) -> &str {
        &self.closing_imports
    }

    /// Counts of an import (hash).
    pub fn import(&self, id: ImportId) -> String {
        format!("{}{id}", self.import_prefix)
    }

    /// What the keys of imports begin with.
    pub fn import_prefix(&self) -> &str {
        &self.import_prefix
    }

    /// A job (string).
    pub fn job(&self, id: &JobId) -> Vec<u8> {
        [self.job_prefix.as_bytes(), id.as_bytes()].concat()
    }

    /// What the keys of jobs begin with.
    pub fn job_prefix(&self) -> &str {
        &self.job_prefix
    }

    /// What a feed showed lately (string).
    pub fn seen(&self, feed: &str) -> String {
        format!("{}{feed}", self.seen_prefix)
    }

    /// Validators and state of a feed (hash).
    pub fn feed(&self, feed: &str) -> String {
        format!("{}{feed}", self.feed_prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_keys_of_a_queue_share_its_hash_tag() {
        let keys = Keys::new("feedmill", "job_import_queue").expect("a name");
        assert_eq!(keys.stream(), "feedmill:{job_import_queue}:stream");
        let id = JobId::new("https://jobicy.com/?feed=job_feed#12345").expect("an id");
        assert_eq!(keys.job(&id), b"feedmill:{job_import_queue}:job:https://jobicy.com/?feed=job_feed#12345");
        assert_eq!(keys.registry(), "feedmill:queues");
    }

    #[test]
    fn the_pattern_of_a_queue_means_its_keys_alone() {
        let keys = Keys::new("a*[b]", "jobs").expect("a name");
        assert_eq!(keys.pattern(), r"a\*\[b\]:{jobs}:*");
    }

    #[test]
    fn a_name_that_would_change_the_hash_tag_is_refused() {
        for name in ["", "a b", "a{b", "a}b", "a:b", "ü"] {
            assert!(Keys::new("feedmill", name).is_err(), "{name:?}");
        }
    }
}
