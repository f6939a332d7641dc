//! What became of one job that somebody operated on: it was done, or why it was left as it is.

/// What became of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operated {
    /// What was asked for.
    Done,
    /// There is no such job.
    Missing,
    /// It cannot be done to a job in this state; nothing was.
    Refused(StateName),
}

/// Name of a state; see [`super::find::State`] for what belongs to each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StateName {
    /// In the stream, not delivered; or parked.
    Waiting,
    /// Waiting, with a priority.
    Prioritized,
    /// A worker has it.
    Active,
    /// Not due yet.
    Delayed,
    /// Done, and kept.
    Completed,
    /// A dead letter.
    Failed,
    /// A guard without a job.
    Unknown,
}

impl StateName {
    /// BullMQ's name of the state.
    pub fn name(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Prioritized => "prioritized",
            Self::Active => "active",
            Self::Delayed => "delayed",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Unknown => "unknown",
        }
    }

    /// By the letter that scripts answer with; see `scripts/states.lua`.
    fn from_letter(letter: u8) -> Option<Self> {
        Some(match letter {
            b'w' => Self::Waiting,
            b'p' => Self::Prioritized,
            b'a' => Self::Active,
            b'd' => Self::Delayed,
            b'c' => Self::Completed,
            b'f' => Self::Failed,
            b'u' => Self::Unknown,
            _ => return None,
        })
    }
}

/// Decodes the answer for one job of a script for which one of the letters `done` says that it was done.
pub(super) fn operated(done: &[u8]) -> impl Fn(u8) -> Option<Operated> {
    |letter| match letter {
        done_letter if done.contains(&done_letter) => Some(Operated::Done),
        b'N' => Some(Operated::Missing),
        other => StateName::from_letter(other).map(Operated::Refused),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_decoded_strictly() {
        let decode = operated(b"D");
        assert_eq!(decode(b'D'), Some(Operated::Done));
        assert_eq!(decode(b'N'), Some(Operated::Missing));
        assert_eq!(decode(b'a'), Some(Operated::Refused(StateName::Active)));
        assert_eq!(decode(b'R'), None);
    }
}
