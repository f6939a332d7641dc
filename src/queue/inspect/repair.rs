//! Repairs what an inspection found, where that is safe: nothing is lost by it, and nothing is taken from anybody.

use serde::Serialize;

use super::super::{Queue, QueueError};
use super::{FindingKind, Inspection};

/// What became of the findings of one kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Repair {
    /// What was wrong.
    pub kind: FindingKind,
    /// How many (jobs, entries …) were repaired.
    pub repaired: u64,
    /// What was done with them, as a sentence.
    pub detail: String,
}

impl Queue {
    /// Repairs what `inspection` found and [`FindingKind::is_repairable`] says; what is not so any more is left alone.
    ///
    /// # Errors
    /// [`QueueError::Redis`]: what was repaired until then stays so; may be repeated.
    pub async fn repair(&self, inspection: &Inspection) -> Result<Vec<Repair>, QueueError> {
        let mut repairs = Vec::new();
        if inspection.finding(FindingKind::GroupLost).is_some() {
            let created = self.ensure_group().await?;
            repairs.push(Repair {
                kind: FindingKind::GroupLost,
                repaired: u64::from(created),
                detail: "the group reads from the beginning of the stream: what was active is delivered again"
                    .to_owned(),
            });
        }
        Ok(repairs)
    }
}
