//! Every metric: name, type, labels, and a help text that says whose number it is.
//!
//! Counters end in `_total`; times are in seconds, sizes in jobs or documents as the name says.

/// Type of a metric.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// Only grows, and starts again at 0.
    Counter,
    /// Goes up and down.
    Gauge,
    /// How often values fell below each of these limits.
    Histogram(&'static [f64]),
}

/// Whose number a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    /// What the process that exports it did itself.
    Process,
    /// What Redis says, whichever process asks.
    Redis,
}

/// All series of one name.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Family {
    /// Name.
    pub name: &'static str,
    /// Type.
    pub kind: Kind,
    /// Whose number it is.
    pub whose: Whose,
    /// Names of the labels.
    pub labels: &'static [&'static str],
    /// One sentence for people.
    pub help: &'static str,
}

/// From a millisecond, which an idle queue takes to start a job, to the hour that a backlog may take.
const WAIT_SECONDS: &[f64] = &[0.001, 0.005, 0.02, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 1800.0, 3600.0];
/// From a write of a few documents to the limits that end a handling.
const WORK_SECONDS: &[f64] = &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];
/// Around the default `batch_size` of 100, and up to ten times as much.
const JOBS: &[f64] = &[1.0, 2.0, 5.0, 10.0, 25.0, 50.0, 75.0, 100.0, 250.0, 500.0, 1000.0];

macro_rules! families {
    ($($(#[$doc:meta])* $constant:ident = $whose:ident $kind:expr, $name:literal [$($label:literal),*] $help:literal;)+) => {
        $(
            $(#[$doc])*
            pub const $constant: Family =
                Family { name: $name, kind: $kind, whose: Whose::$whose, labels: &[$($label),*], help: $help };
        )+
        /// The table.
        pub const FAMILIES: &[Family] = &[$($constant),+];
    };
}

use Kind::{Counter, Gauge, Histogram};

families! {
    // ---- what Redis says; the first five have the names that dashboards for BullMQ ask for ----------------------------
    /// The eight states of BullMQ; `paused` and `waiting-children` are always 0.
    JOB_COUNT = Redis Gauge, "bullmq_job_count" ["queue", "state"]
        "Number of jobs in the queue by state, read from Redis.";
    /// Goes on where the gauge `completed` does not: finished jobs are removed.
    JOB_COMPLETED = Redis Counter, "bullmq_job_completed_total" ["queue"]
        "Jobs that were completed since the queue exists, read from Redis.";
    /// Jobs, not attempts.
    JOB_FAILED = Redis Counter, "bullmq_job_failed_total" ["queue"]
        "Jobs that failed for good and became dead letters since the queue exists, read from Redis.";
    /// A name of the system before this one.
    JOBS_PROCESSED = Redis Counter, "bullmq_jobs_processed_total" ["queue"]
        "Jobs that were completed or failed for good since the queue exists, read from Redis.";
    /// A name of the system before this one.
    QUEUE_SIZE = Redis Gauge, "bullmq_queue_size" ["queue"]
        "Jobs that wait or are active, read from Redis.";
    /// 0 when the other numbers from Redis are missing.
    REDIS_UP = Redis Gauge, "feedmill_redis_up" []
        "Whether Redis answered when it was asked for the numbers of the queues (1) or not (0).";
    /// A paused queue delivers nothing.
    QUEUE_PAUSED = Redis Gauge, "feedmill_queue_paused" ["queue"]
        "Whether the queue is paused (1) or not (0), read from Redis.";
    /// The number to alert on: it grows when nothing is read, whatever the reason.
    OLDEST_WAITING = Redis Gauge, "feedmill_oldest_waiting_age_seconds" ["queue"]
        "How long the job at the front of the queue has been waiting there (0: none waits), read from Redis.";
    /// Of all processes.
    CONSUMERS_ALIVE = Redis Gauge, "feedmill_consumers_alive" ["queue"]
        "Consumers whose heartbeat is fresh, of all processes, read from Redis.";
    /// Those of parked jobs are not there yet.
    STREAM_ENTRIES = Redis Gauge, "feedmill_stream_entries" ["queue"]
        "Entries in the work streams: jobs that wait there or are active, and orphans, read from Redis.";
    /// Delivered, not settled.
    PENDING_ENTRIES = Redis Gauge, "feedmill_pending_entries" ["queue"]
        "Entries that were delivered to a consumer and are not settled, read from Redis.";
    /// Looked for a few pages a scrape.
    ORPHANS = Redis Gauge, "feedmill_stream_orphans" ["queue"]
        "Entries that were delivered and are pending for nobody, so that nobody will work on them, read from Redis.";
    /// Their groups are full.
    PARKED = Redis Gauge, "feedmill_parked_jobs" ["queue"]
        "Those of the waiting jobs that are parked because their group has no room in the stream, read from Redis.";
    /// In backoff.
    DELAYED_JOBS = Redis Gauge, "feedmill_delayed_jobs" ["queue"]
        "Jobs that wait for their next attempt, read from Redis.";
    /// Somebody should have promoted them.
    PROMOTE_LAG = Redis Gauge, "feedmill_promote_lag_seconds" ["queue"]
        "How long the earliest delayed job has been due without being promoted (0: none is late), read from Redis.";
    /// Somebody should have fired them.
    SCHEDULE_LAG = Redis Gauge, "feedmill_schedule_lag_seconds" ["queue"]
        "How long ago the earliest slot came that nobody has fired yet (0: none is late), read from Redis.";
    /// Kept ones.
    DEAD_LETTERS = Redis Gauge, "feedmill_dead_letters" ["queue"]
        "Dead letters that are kept, read from Redis.";
    /// What became of ids that producers handed in.
    ENQUEUED = Redis Counter, "feedmill_enqueued_total" ["queue", "result"]
        "Jobs handed in since the queue exists by result: enqueued, changed (replaced the content of a living job), \
         duplicate (a job with its id lives) or deduplicated (another job holds its deduplication id), read from Redis.";
    /// Failed attempts with another one to come.
    RETRIES = Redis Counter, "feedmill_retries_total" ["queue"]
        "Failed attempts after which the job is tried again, since the queue exists, read from Redis.";
    /// Jobs whose worker died or hung.
    STALLS = Redis Counter, "feedmill_stalls_total" ["queue"]
        "Jobs whose worker stopped working on them, since the queue exists, read from Redis.";
    /// Dead letters that came back.
    REDRIVEN = Redis Counter, "feedmill_redriven_total" ["queue"]
        "Dead letters that were enqueued again, since the queue exists, read from Redis.";
    /// Dead letters that were deleted.
    DISCARDED = Redis Counter, "feedmill_discarded_total" ["queue"]
        "Dead letters that were deleted, since the queue exists, read from Redis.";
    /// Redis evicted them, or somebody deleted them.
    LOSSES = Redis Counter, "feedmill_losses_total" ["queue"]
        "Jobs whose payload was gone when they were read, since the queue exists, read from Redis.";
    /// Of the server, not of feedmill alone.
    REDIS_MEMORY_USED = Redis Gauge, "feedmill_redis_memory_used_bytes" []
        "Memory that the Redis server has allocated, as it says itself.";
    /// 0 is no limit.
    REDIS_MEMORY_MAX = Redis Gauge, "feedmill_redis_memory_max_bytes" []
        "Most memory that the Redis server may allocate (its maxmemory; 0: no limit but the machine's), as it says \
         itself.";
    /// Must be 0.
    REDIS_MAY_EVICT = Redis Gauge, "feedmill_redis_may_evict" []
        "Whether Redis would delete keys, and jobs with them, when its memory is full (1) or not (0, noeviction).";
    /// Any is one too many.
    REDIS_EVICTED = Redis Counter, "feedmill_redis_evicted_keys_total" []
        "Keys that Redis deleted for want of memory since it started, as it says itself.";
    /// A crash now would lose what was not written.
    REDIS_PERSISTENCE_FAILED = Redis Gauge, "feedmill_redis_persistence_failed" []
        "Whether the last write of Redis to its disk failed (1) or not (0), as it says itself.";
    /// Of all clients.
    REDIS_COMMANDS = Redis Counter, "feedmill_redis_commands_total" []
        "Commands that Redis carried out since it started, for whichever client, as it says itself.";
    /// Of all kinds.
    REDIS_CLIENTS = Redis Gauge, "feedmill_redis_clients" []
        "Connections of clients to Redis, as it says itself.";

    // ---- what a process did itself ------------------------------------------------------------------------------------
    /// Always 1.
    BUILD_INFO = Process Gauge, "feedmill_build_info" ["version"]
        "Always 1; the label is the version of the process.";
    /// How deliveries ended.
    SETTLED = Process Counter, "feedmill_jobs_settled_total" ["queue", "outcome"]
        "Deliveries that this process settled by outcome: done, retried, snoozed, buried, changed (newer content \
         came meanwhile), lost (another process has the job) or given_back (at shutdown).";
    /// Dead letters by reason.
    BURIED = Process Counter, "feedmill_jobs_buried_total" ["queue", "reason"]
        "Dead letters that this process made by reason: exhausted (attempts used up), hopeless (not worth another \
         attempt), stalled, unreadable or lost (payload gone).";
    /// Of the handler.
    JOB_DURATION = Process Histogram(WORK_SECONDS), "feedmill_job_duration_seconds" ["queue"]
        "Time that this process took to handle a job; each job of a batch took as long as the batch.";
    /// Queueing delay.
    JOB_WAIT = Process Histogram(WAIT_SECONDS), "feedmill_job_wait_seconds" ["queue"]
        "Time from enqueueing a job to its first handling in this process, by the clocks of both.";
    /// How full batches are.
    BATCH_JOBS = Process Histogram(JOBS), "feedmill_batch_jobs" ["queue"]
        "Jobs in a batch that this process handed to the handler.";
    /// Take-overs.
    CLAIMED = Process Counter, "feedmill_jobs_claimed_total" ["queue"]
        "Stalled jobs that this process put back to waiting.";
    /// Due retries.
    PROMOTED = Process Counter, "feedmill_jobs_promoted_total" ["queue"]
        "Jobs whose wait was over and that this process put back to waiting.";
    /// Outages of the store, or of Redis during a fetch.
    OUTAGES = Process Counter, "feedmill_outages_total" ["queue"]
        "Times that this process stopped reading because something that all jobs need was not available.";
    /// Limits: rate, jobs active at once, a hold-up.
    HELD_UP = Process Counter, "feedmill_reads_held_up_total" ["queue"]
        "Times that this process asked for jobs and got none because of a limit of the queue.";
    /// One write of a batch.
    WRITE_SECONDS = Process Histogram(WORK_SECONDS), "feedmill_mongodb_write_seconds" []
        "Time that a write of a batch to MongoDB took in this process, failed ones included.";
    /// The number to alert on for MongoDB.
    WRITES = Process Counter, "feedmill_mongodb_writes_total" ["result"]
        "Writes of a batch to MongoDB that this process made by result: done, refused (at least one of its documents) \
         or outage (none is known to be written, all are tried again).";
    /// What writes did.
    DOCUMENTS = Process Counter, "feedmill_documents_total" ["result"]
        "Documents that this process wrote by result: inserted, updated, stale (a newer version was there) or \
         failed.";
    /// What became of the times at which feeds and other schedulers were due.
    SLOTS = Process Counter, "feedmill_slots_total" ["result"]
        "Slots of feeds and of other schedulers that this process ended by result: fired (their job waits), overlapped \
         (that of an earlier slot lives), refused (the key of the job holds something else) or dropped (nobody has the \
         feed).";
    /// Of slots whose job waits.
    SLOT_DELAY = Process Histogram(WAIT_SECONDS), "feedmill_slot_delay_seconds" ["queue"]
        "Time from a slot to the moment this process fired it, by the clock of Redis.";
    /// Answers of feed servers.
    FETCHES = Process Counter, "feedmill_fetches_total" ["status"]
        "Requests for feeds that this process made by answer: 2xx, 304, 3xx, 4xx, 5xx, other, or none.";
    /// GET and parser.
    FETCH_SECONDS = Process Histogram(WORK_SECONDS), "feedmill_fetch_duration_seconds" []
        "Time that a request for a feed took in this process, parsing included.";
    /// Items that fetches brought.
    ITEMS = Process Counter, "feedmill_fetched_items_total" ["class"]
        "Items of the feeds that this process fetched by class: new, changed, unchanged or duplicate.";
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_are_unique_and_say_type_and_unit() {
        let mut names = HashSet::new();
        for family in FAMILIES {
            assert!(names.insert(family.name), "{} is there twice", family.name);
            assert!(family.name.starts_with("bullmq_") || family.name.starts_with("feedmill_"), "{}", family.name);
            assert_eq!(family.kind == Counter, family.name.ends_with("_total"), "{}", family.name);
        }
    }

    #[test]
    fn a_help_text_is_one_line_that_ends_and_says_whose_number_it_is() {
        for family in FAMILIES {
            let said = match family.whose {
                Whose::Redis => "Redis",
                Whose::Process => "process",
            };
            assert!(family.help.ends_with('.') && !family.help.contains('\n'), "{}", family.name);
            assert!(family.help.contains(said), "{}: {}", family.name, family.help);
        }
    }

    #[test]
    fn labels_never_hold_what_there_is_no_end_of() {
        let closed = ["queue", "state", "result", "outcome", "reason", "status", "class", "version"];
        for label in FAMILIES.iter().flat_map(|family| family.labels) {
            assert!(closed.contains(label), "{label}");
        }
    }

    #[test]
    fn limits_of_histograms_rise() {
        for family in FAMILIES {
            if let Histogram(limits) = family.kind {
                assert!(limits.is_sorted() && !limits.is_empty(), "{}", family.name);
            }
        }
    }
}
