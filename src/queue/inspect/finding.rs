//! Findings: what is not as it should be in a queue, and what mends it.

use serde::Serialize;

use crate::check::Status;

/// Examples that a finding names.
pub(super) const EXAMPLES_MAX: usize = 5;

/// What is wrong. The name in JSON is that of the variant, in kebab-case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum FindingKind {
    /// A key of the queue is of another type: somebody else wrote it, and every script that meets it fails.
    WrongType,
    /// The consumer group is gone: nobody can read.
    GroupLost,
    /// The stream has other groups beside ours.
    SecondGroup,
    /// Jobs wait, and no consumer is alive.
    NoConsumer,
    /// A consumer is gone, or was none of ours, and entries are pending for it.
    DeadConsumer,
    /// Entries are pending for longer than it takes to claim them: nobody claims.
    OverdueClaim,
    /// Entries were delivered, and are pending for nobody: nobody will ever read them.
    OrphanEntry,
    /// Entries whose job has no guard: there is nothing to work on. Whoever reads them makes dead letters of them.
    PayloadLost,
    /// Guards say that their jobs stand where they do not: nobody will ever work on them, and their ids are taken.
    GuardWithoutJob,
    /// Keys of jobs that hold no head.
    UnreadableGuard,
    /// Jobs are due in the backoff zset, and nobody promotes them.
    OverdueBackoff,
    /// The slot of a scheduler has come, and nobody fires it.
    OverdueScheduler,
    /// Jobs of a group are parked, nothing of it is where it will be read, and it is not held up: nothing brings them out.
    ForgottenGroup,
    /// More or fewer jobs are counted for a group than it has: its window is not what it should be.
    MiscountedGroup,
    /// The queue is paused, and jobs wait.
    Paused,
    /// There are dead letters.
    DeadLetters,
}

impl FindingKind {
    /// Whether [`Queue::repair`](crate::queue::Queue::repair) mends it: what it does loses nothing, and gives no job away that
    /// somebody holds.
    pub fn is_repairable(self) -> bool {
        matches!(
            self,
            Self::GroupLost
                | Self::OrphanEntry
                | Self::GuardWithoutJob
                | Self::OverdueBackoff
                | Self::ForgottenGroup
                | Self::MiscountedGroup
        )
    }
}

/// One thing that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// What is wrong.
    pub kind: FindingKind,
    /// [`Status::Error`]: an anomaly. [`Status::Warning`]: worth knowing.
    pub status: Status,
    /// How many (jobs, entries, consumers …) it is about.
    pub count: u64,
    /// Some of them, at most 5: ids, entries, names.
    pub examples: Vec<String>,
    /// What was found, as a sentence.
    pub verdict: String,
    /// The command that mends it, or what to do.
    pub fix: String,
    /// Whether `feedmill xinfo --fix` mends it.
    pub repairable: bool,
}

impl Finding {
    /// An anomaly.
    pub(super) fn error(kind: FindingKind, count: u64, verdict: impl Into<String>, fix: impl Into<String>) -> Self {
        Self {
            kind,
            status: Status::Error,
            count,
            examples: Vec::new(),
            verdict: verdict.into(),
            fix: fix.into(),
            repairable: kind.is_repairable(),
        }
    }

    /// Worth knowing.
    pub(super) fn warning(kind: FindingKind, count: u64, verdict: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { status: Status::Warning, ..Self::error(kind, count, verdict, fix) }
    }

    /// With some of what it is about.
    pub(super) fn with_examples(mut self, examples: impl IntoIterator<Item = impl ToString>) -> Self {
        self.examples = examples.into_iter().take(EXAMPLES_MAX).map(|example| example.to_string()).collect();
        self
    }
}
