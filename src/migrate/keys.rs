//! The keys of a BullMQ queue, of version 5 or 6: `<prefix>:<queue>:<name>`.
//!
//! | name | type | holds |
//! |---|---|---|
//! | `wait` | list | ids of jobs that wait; the next one is at the right end |
//! | `paused` | list | the same while the queue is paused, in version 5; version 6 leaves them in `wait` |
//! | `active` | list | ids of jobs that a worker has |
//! | `prioritized` | zset | ids by priority × 2³² + arrival |
//! | `delayed` | zset | ids by due time (ms) × 4096 + arrival |
//! | `failed`, `completed` | zset | ids by the time of their end (ms) |
//! | `waiting-children` | zset | ids of parents whose children are not done |
//! | `repeat` | zset | ids of schedulers by their next slot (ms) |
//! | `meta` | hash | `version`, `paused`, and more; exists for every queue |
//! | `<id>` | hash | a job |

/// Where jobs of a BullMQ queue stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Structure {
    /// The jobs that wait.
    Wait,
    /// The jobs that wait while the queue is paused (version 5).
    Paused,
    /// The jobs with a priority.
    Prioritized,
    /// The jobs that are not due.
    Delayed,
    /// The jobs that were given up.
    Failed,
}

impl Structure {
    /// Its name at the end of the key.
    fn name(self) -> &'static str {
        match self {
            Self::Wait => "wait",
            Self::Paused => "paused",
            Self::Prioritized => "prioritized",
            Self::Delayed => "delayed",
            Self::Failed => "failed",
        }
    }

    /// Its Redis type.
    pub(super) fn kind(self) -> &'static str {
        match self {
            Self::Wait | Self::Paused => "list",
            Self::Prioritized | Self::Delayed | Self::Failed => "zset",
        }
    }
}

/// The keys of one BullMQ queue.
#[derive(Clone, Debug)]
pub(super) struct SourceKeys {
    prefix: String,
    queue: String,
}

impl SourceKeys {
    pub(super) fn new(prefix: &str, queue: &str) -> Self {
        Self { prefix: prefix.to_owned(), queue: queue.to_owned() }
    }

    pub(super) fn prefix(&self) -> &str {
        &self.prefix
    }

    pub(super) fn queue(&self) -> &str {
        &self.queue
    }

    /// The queue as people see it: `bull:orders`.
    pub(super) fn label(&self) -> String {
        format!("{}:{}", self.prefix, self.queue)
    }

    /// What all its keys begin with; a job's key is this and its id.
    pub(super) fn base(&self) -> String {
        format!("{}:{}:", self.prefix, self.queue)
    }

    /// A structure that holds jobs.
    pub(super) fn structure(&self, structure: Structure) -> String {
        self.named(structure.name())
    }

    /// Any other key.
    pub(super) fn named(&self, name: &str) -> String {
        format!("{}{name}", self.base())
    }
}
