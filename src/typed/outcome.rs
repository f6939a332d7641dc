//! What a handler may return.

use std::error::Error;

use crate::error::chain;
use crate::job::Outcome;
use crate::worker::Outage;

/// Turns what a handler returns into an [`Outcome`].
///
/// | returned | means |
/// |---|---|
/// | `()` | [`Outcome::Done`] |
/// | [`Outcome`] | itself |
/// | `Ok(…)` | what is in it |
/// | `Err(error)` | [`Outcome::Retry`] with the error and its causes as the reason; an [`Outage`] keeps the job and uses no attempt |
pub trait IntoOutcome {
    /// Turns it.
    ///
    /// # Errors
    /// [`Outage`]: something that all jobs need is not there; the job is handed in again later.
    fn into_outcome(self) -> Result<Outcome, Outage>;
}

impl IntoOutcome for () {
    fn into_outcome(self) -> Result<Outcome, Outage> {
        Ok(Outcome::Done)
    }
}

impl IntoOutcome for Outcome {
    fn into_outcome(self) -> Result<Outcome, Outage> {
        Ok(self)
    }
}

impl<O: IntoOutcome, E: Into<Box<dyn Error + Send + Sync>>> IntoOutcome for Result<O, E> {
    fn into_outcome(self) -> Result<Outcome, Outage> {
        match self {
            Ok(outcome) => outcome.into_outcome(),
            Err(error) => match error.into().downcast::<Outage>() {
                Ok(outage) => Err(*outage),
                Err(error) => Ok(Outcome::Retry(chain(&*error))),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_a_failed_attempt_and_an_outage_is_none() {
        assert_eq!(().into_outcome().expect("no outage"), Outcome::Done);
        assert_eq!(Ok::<_, String>(()).into_outcome().expect("no outage"), Outcome::Done);
        let failed: Result<Outcome, String> = Err("no such user".to_owned());
        assert_eq!(failed.into_outcome().expect("no outage"), Outcome::Retry("no such user".to_owned()));
        let outage: Result<(), Outage> = Err(Outage { what: "the mail server", cause: "refused".into() });
        assert_eq!(outage.into_outcome().expect_err("an outage").what, "the mail server");
    }
}
