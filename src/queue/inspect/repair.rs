//! Repairs what an inspection found, where that is safe: nothing is lost by it, and nothing is taken from anybody.
//!
//! Each script looks again before it changes anything, so what has changed since the inspection is left alone.
//!
//! *Crash:* each call is one script; what it did not reach is found by the next inspection.

use std::collections::BTreeMap;

use serde::Serialize;

use super::super::scripts::{self, JOBS_PER_CALL_MAX};
use super::super::{NO_KEYS, Queue, QueueError};
use super::walks::GUARDS_PER_CALL;
use super::words::counted;
use super::{FindingKind, Inspection};
use crate::job::{EntryId, ID_BYTES_MAX, JobId, Place};

/// Groups that one call corrects; each may bring out parked jobs.
const GROUPS_PER_CALL: usize = 128;

/// What became of the findings of one kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Repair {
    /// What was wrong.
    pub kind: FindingKind,
    /// How many (jobs, entries …) were repaired.
    pub repaired: u64,
    /// What was done, as a sentence.
    pub detail: String,
}

/// What became of an orphan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum OrphanRestored {
    /// Its job waits again.
    Waiting,
    /// Its job stands elsewhere: it was dropped.
    Dropped,
    /// No job can be made of it: a dead letter.
    Dead,
    /// It is none, or not any more: left alone.
    None,
}

/// What became of a guard whose job stood nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum GuardRestored {
    /// The job waits again.
    Waiting,
    /// The job has a dead letter again.
    Dead,
    /// The job is listed as completed again.
    Completed,
    /// The job stands where its head says: left alone.
    Stands,
    /// No head can be read: left alone.
    Unreadable,
    /// There is no such guard.
    Gone,
}

impl Queue {
    /// Repairs what `inspection` found and [`FindingKind::is_repairable`] says; what is not so any more is left alone.
    ///
    /// # Errors
    /// [`QueueError::Redis`]: what was repaired until then stays so; may be repeated.
    pub async fn repair(&self, inspection: &Inspection) -> Result<Vec<Repair>, QueueError> {
        let mut repairs = Vec::new();
        let found = |kind| inspection.finding(kind).is_some();
        if found(FindingKind::GroupLost) {
            let created = self.ensure_group().await?;
            let detail = if created {
                "the group was created again and reads from the beginning: what was active is delivered once more"
            } else {
                "the groups beside it were created again"
            };
            repairs.push(Repair { kind: FindingKind::GroupLost, repaired: 1, detail: detail.to_owned() });
        }
        if found(FindingKind::OrphanEntry) {
            repairs.push(self.repair_orphans(&inspection.orphans).await?);
        }
        if found(FindingKind::GuardWithoutJob) {
            repairs.push(self.repair_guards(&inspection.stray_guards).await?);
        }
        if found(FindingKind::MiscountedGroup) {
            repairs.push(self.repair_counts(inspection).await?);
        }
        if found(FindingKind::ForgottenGroup) {
            let mut out = 0;
            for piece in inspection.forgotten_groups.chunks(JOBS_PER_CALL_MAX) {
                out += self.release_groups(piece).await?;
            }
            let detail = format!("{} came out; the others follow as those leave", counted(out, "parked job"));
            repairs.push(Repair { kind: FindingKind::ForgottenGroup, repaired: out, detail });
        }
        if found(FindingKind::OverdueBackoff) {
            repairs.push(self.repair_backoff().await?);
        }
        Ok(repairs)
    }

    async fn repair_orphans(&self, orphans: &[(Place, EntryId)]) -> Result<Repair, QueueError> {
        let mut became: BTreeMap<OrphanRestored, u64> = BTreeMap::new();
        for lane in [Place::Stream, Place::Prioritized] {
            let of_lane = orphans.iter().filter(|(place, _)| *place == lane).map(|(_, entry)| *entry);
            for restored in self.restore_orphans(lane, &of_lane.collect::<Vec<_>>()).await? {
                *became.entry(restored).or_default() += 1;
            }
        }
        let n = |restored| became.get(&restored).copied().unwrap_or(0);
        let (waiting, dropped, dead) =
            (n(OrphanRestored::Waiting), n(OrphanRestored::Dropped), n(OrphanRestored::Dead));
        Ok(Repair {
            kind: FindingKind::OrphanEntry,
            repaired: waiting + dropped + dead,
            detail: list(&[
                (waiting, "put back to waiting"),
                (dropped, "leftover of a job that stands elsewhere, dropped"),
                (dead, "without a job, now a dead letter"),
                (n(OrphanRestored::None), "in order by now"),
            ]),
        })
    }

    async fn repair_guards(&self, guards: &[JobId]) -> Result<Repair, QueueError> {
        let mut became: BTreeMap<GuardRestored, u64> = BTreeMap::new();
        for restored in self.restore_guards(guards).await? {
            *became.entry(restored).or_default() += 1;
        }
        let n = |restored| became.get(&restored).copied().unwrap_or(0);
        let (waiting, dead, completed) =
            (n(GuardRestored::Waiting), n(GuardRestored::Dead), n(GuardRestored::Completed));
        Ok(Repair {
            kind: FindingKind::GuardWithoutJob,
            repaired: waiting + dead + completed,
            detail: list(&[
                (waiting, "put back to waiting"),
                (dead, "given a dead letter again"),
                (completed, "listed as completed again"),
                (n(GuardRestored::Stands) + n(GuardRestored::Gone), "in order by now"),
                (n(GuardRestored::Unreadable), "not readable, left alone"),
            ]),
        })
    }

    async fn repair_counts(&self, inspection: &Inspection) -> Result<Repair, QueueError> {
        let mut corrected = 0;
        for piece in inspection.miscounted.groups.chunks(GROUPS_PER_CALL) {
            corrected += self.recount_groups(&inspection.miscounted.fence, piece).await?.1;
        }
        let left = inspection.miscounted.groups.len() as u64 - corrected;
        let detail = if left == 0 {
            format!("{} counted anew", counted(corrected, "group"))
        } else {
            format!("{} counted anew; {left} not, since jobs moved meanwhile", counted(corrected, "group"))
        };
        Ok(Repair { kind: FindingKind::MiscountedGroup, repaired: corrected, detail })
    }

    async fn repair_backoff(&self) -> Result<Repair, QueueError> {
        let (mut moved, mut buried) = (0, 0);
        loop {
            let promoted = self.promote().await?;
            moved += promoted.moved as u64;
            buried += promoted.buried as u64;
            if promoted.next_due_in.is_none_or(|due| !due.is_zero()) || promoted.moved + promoted.buried == 0 {
                break;
            }
        }
        let detail = list(&[(moved, "promoted"), (buried, "without a guard, now a dead letter")]);
        Ok(Repair { kind: FindingKind::OverdueBackoff, repaired: moved + buried, detail })
    }

    /// Takes care of entries that were delivered and are pending for nobody. Says of each what became of it, in order.
    ///
    /// # Errors
    /// [`QueueError::Redis`]; may be repeated.
    pub async fn restore_orphans(&self, lane: Place, entries: &[EntryId]) -> Result<Vec<OrphanRestored>, QueueError> {
        let mut answers = Vec::with_capacity(entries.len());
        for piece in entries.chunks(GUARDS_PER_CALL) {
            let mut call = self.moving(&scripts::RESTORE_ORPHANS, NO_KEYS);
            call.arg(&[lane as u8][..]).arg(ID_BYTES_MAX);
            for entry in piece {
                call.arg(entry.to_string());
            }
            let reply = call.run(&mut self.connection()).await?;
            answers.extend(reply.statuses(piece.len(), |letter| match letter {
                b'W' => Some(OrphanRestored::Waiting),
                b'O' => Some(OrphanRestored::Dropped),
                b'F' => Some(OrphanRestored::Dead),
                b'A' => Some(OrphanRestored::None),
                _ => None,
            })?);
        }
        Ok(answers)
    }

    /// Puts jobs back that do not stand where their heads say. Says of each what became of it, in order.
    ///
    /// # Errors
    /// [`QueueError::Redis`]; may be repeated.
    pub async fn restore_guards(&self, ids: &[JobId]) -> Result<Vec<GuardRestored>, QueueError> {
        let mut answers = Vec::with_capacity(ids.len());
        for piece in ids.chunks(GUARDS_PER_CALL) {
            let mut call = self.moving(&scripts::RESTORE_GUARDS, NO_KEYS);
            for id in piece {
                call.arg(id.as_bytes());
            }
            let reply = call.run(&mut self.connection()).await?;
            answers.extend(reply.statuses(piece.len(), |letter| match letter {
                b'W' => Some(GuardRestored::Waiting),
                b'F' => Some(GuardRestored::Dead),
                b'C' => Some(GuardRestored::Completed),
                b'S' => Some(GuardRestored::Stands),
                b'X' => Some(GuardRestored::Unreadable),
                b'N' => Some(GuardRestored::Gone),
                _ => None,
            })?);
        }
        Ok(answers)
    }

    /// Brings out parked jobs of groups that nothing would bring them out of. Returns how many.
    ///
    /// # Errors
    /// [`QueueError::Redis`]; may be repeated.
    pub async fn release_groups(&self, groups: &[Vec<u8>]) -> Result<u64, QueueError> {
        let mut call = self.moving(&scripts::RELEASE_GROUPS, NO_KEYS);
        for group in groups {
            call.arg(group);
        }
        call.run(&mut self.connection()).await?.decode()
    }
}

/// "3 put back to waiting, 1 in order by now", without what there is none of.
fn list(parts: &[(u64, &str)]) -> String {
    let said = parts.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{n} {what}")).collect::<Vec<_>>();
    if said.is_empty() { "nothing was left to do".to_owned() } else { said.join(", ") }
}
