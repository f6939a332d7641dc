//! Settles: ends a delivery in exactly one of the ways there are, and renews it until then.
//!
//! ```text
//!   active ──done──▶ gone            active ──bury──▶ dead
//!   active ──back off──▶ delayed     active ──give back──▶ waiting
//! ```
//!
//! Every settle is fenced by the job's head: a worker that lost the job (it was claimed, replaced, removed) is answered
//! [`Settled::Lost`], and nothing of the job is touched or counted. So every call here may be repeated when its answer
//! was lost on the way: what was carried out the first time is "lost" the second time.
//!
//! *Crash before the call:* the entry stays pending and is claimed; the work is done once more, which the store makes
//! harmless. *Crash after it:* nothing is left behind.

use std::time::Duration;

use super::read::Lease;
use super::scripts::{self, Call, JOBS_PER_CALL_MAX, decode_statuses, element};
use super::{LISTED_FAILURES_MAX, NO_KEYS, Queue, QueueError, millis};
use crate::job::head::HEAD_BYTES;
use crate::job::{Keep, Stored};

/// Longest error text that is kept, in bytes: enough for a cause chain, small enough for a hash of many.
const REASON_BYTES_MAX: usize = 1024;

/// What a settle did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// What was asked for.
    Settled,
    /// The job's content was replaced meanwhile: it waits again, at attempt 1, and nothing was counted.
    Changed,
    /// The worker does not hold the job any more: nothing was done.
    Lost,
}

/// A job that is done.
#[derive(Clone, Debug)]
pub struct Done {
    /// The lease on it.
    pub lease: Lease,
    /// What the write did, for the import, if there was one.
    pub stored: Option<Stored>,
    /// What becomes of it; `None`: what becomes of all of them.
    pub keep: Option<Keep>,
    /// What it came to, as JSON; kept with it.
    pub result: Option<String>,
    /// Its deduplication id, which is free from now on.
    pub dedup: Option<String>,
}

impl Done {
    /// A job that is done as most are.
    pub fn new(lease: Lease) -> Self {
        Self { lease, stored: None, keep: None, result: None, dedup: None }
    }

    /// What the script is told: the head that the job has if it is a plain one, which names what the worker holds, and the plain
    /// word of what became of it where that is all there is.
    fn told(&self) -> Vec<u8> {
        let tally = match self.stored {
            Some(Stored::Inserted) => "inserted",
            Some(Stored::Updated) => "updated",
            Some(Stored::Stale) => "stale",
            None => "",
        };
        let mut told = Vec::with_capacity(HEAD_BYTES + "inserted".len());
        told.extend_from_slice(&self.lease.plain_head());
        if self.keep.is_none() && self.result.is_none() && self.dedup.is_none() {
            told.extend_from_slice(tally.as_bytes());
            return told;
        }
        let (keep, count, age) = self.keep.map_or((None, None, None), |keep| {
            let (keep, count, age) = kept(keep);
            (Some(keep), Some(count), Some(age))
        });
        let ending = (tally, keep, count, age, self.result.as_deref(), self.dedup.as_deref());
        rmp_serde::encode::write(&mut told, &ending).expect("writing to memory does not fail");
        told
    }
}

/// "remove" or "keep", most jobs kept and longest time (ms) as scripts take them, -1 for no limit.
pub(super) fn kept(keep: Keep) -> (&'static str, i64, i64) {
    let number = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    match keep {
        Keep::Nothing => ("remove", -1, -1),
        Keep::All => ("keep", -1, -1),
        Keep::Newest { count, age } => ("keep", count.map_or(-1, number), age.map_or(-1, |age| number(millis(age)))),
    }
}

/// A job that failed and is to be tried again.
#[derive(Clone, Debug)]
pub struct BackOff {
    /// The lease on it.
    pub lease: Lease,
    /// How long it waits, by the clock of Redis.
    pub wait: Duration,
    /// Why the attempt failed; `None` for a job that only waits and uses no attempt.
    pub reason: Option<String>,
}

/// A job that is given up.
#[derive(Clone, Debug)]
pub struct Burial {
    /// The lease on it.
    pub lease: Lease,
    /// Why.
    pub reason: String,
    /// Whether it failed as often as it may.
    pub exhausted: bool,
    /// Its deduplication id, which is free from now on.
    pub dedup: Option<String>,
}

impl Queue {
    /// Ends jobs whose work is done; `keep` is what becomes of those that do not say it themselves.
    ///
    /// # Errors
    /// [`QueueError::Redis`]; may be repeated.
    pub async fn done(&self, jobs: &[Done], keep: Keep) -> Result<Vec<Settled>, QueueError> {
        let (keep, count, age) = kept(keep);
        let mut settled = Vec::with_capacity(jobs.len());
        for piece in jobs.chunks(JOBS_PER_CALL_MAX) {
            let mut call = self.moving(&scripts::DONE, piece.iter().map(|job| self.keys().job(&job.lease.id)));
            call.arg(keep).arg(count).arg(age);
            for job in piece {
                call.arg(job.lease.entry.to_string()).arg(job.told());
            }
            let reply = call.run(&mut self.connection()).await?;
            settled.extend(reply.statuses(piece.len(), |letter| match letter {
                b'D' => Some(Settled::Settled),
                other => changed_or_lost(other),
            })?);
        }
        Ok(settled)
    }

    /// Sends jobs to the backoff zset. Returns what happened to each, and how long until the next job of the zset is due.
    ///
    /// # Errors
    /// [`QueueError::Redis`]; may be repeated.
    pub async fn back_off(&self, jobs: &[BackOff]) -> Result<(Vec<Settled>, Option<Duration>), QueueError> {
        let mut settled = Vec::with_capacity(jobs.len());
        let mut next_due = None;
        for piece in jobs.chunks(JOBS_PER_CALL_MAX) {
            let mut call = self.moving(&scripts::BACK_OFF, piece.iter().map(|job| self.keys().job(&job.lease.id)));
            for job in piece {
                let reason =
                    job.reason.as_deref().map_or("", |reason| cut(if reason.is_empty() { "failed" } else { reason }));
                fenced(&mut call, &job.lease).arg(millis(job.wait)).arg(reason);
            }
            let (script, elements) = call.run(&mut self.connection()).await?.array()?;
            let [letters, due] = two(script, elements)?;
            let letters: Vec<u8> = element(script, letters)?;
            settled.extend(decode_statuses(script, &letters, piece.len(), |letter| match letter {
                b'B' => Some(Settled::Settled),
                other => changed_or_lost(other),
            })?);
            next_due = u64::try_from(element::<i64>(script, due)?).ok().map(Duration::from_millis);
        }
        Ok((settled, next_due))
    }

    /// Makes dead letters of jobs.
    ///
    /// # Errors
    /// [`QueueError::Redis`]; may be repeated.
    pub async fn bury(&self, consumer: &str, jobs: &[Burial]) -> Result<Vec<Settled>, QueueError> {
        let mut settled = Vec::with_capacity(jobs.len());
        for piece in jobs.chunks(JOBS_PER_CALL_MAX) {
            let mut call = self.moving(&scripts::BURY, piece.iter().map(|job| self.keys().job(&job.lease.id)));
            call.arg(consumer).arg(LISTED_FAILURES_MAX);
            for job in piece {
                fenced(&mut call, &job.lease)
                    .arg(cut(&job.reason))
                    .arg(if job.exhausted { "exhausted" } else { "" })
                    .arg(job.dedup.as_deref().unwrap_or_default());
            }
            let reply = call.run(&mut self.connection()).await?;
            settled.extend(reply.statuses(piece.len(), |letter| match letter {
                b'F' => Some(Settled::Settled),
                other => changed_or_lost(other),
            })?);
        }
        Ok(settled)
    }

    /// Lets go of completed jobs that are kept beyond what is said here, up to one call's worth. Returns how many; a full call
    /// means that there may be more. With [`Keep::Nothing`] nothing goes: what was kept then is what jobs say of themselves.
    ///
    /// # Errors
    /// [`QueueError::Redis`]; may be repeated.
    pub async fn retain_completed(&self, keep: Keep) -> Result<usize, QueueError> {
        let Keep::Newest { .. } = keep else { return Ok(0) };
        let (_, count, age) = kept(keep);
        let mut call = self.moving(&scripts::TRIM_COMPLETED, NO_KEYS);
        call.arg(count).arg(age).arg(JOBS_PER_CALL_MAX);
        call.run(&mut self.connection()).await?.decode()
    }

    /// Gives jobs back to waiting as they are: no attempt and no stall is counted.
    ///
    /// # Errors
    /// [`QueueError::Redis`]; may be repeated.
    pub async fn give_back(&self, leases: &[Lease]) -> Result<Vec<Settled>, QueueError> {
        let mut settled = Vec::with_capacity(leases.len());
        for piece in leases.chunks(JOBS_PER_CALL_MAX) {
            let mut call = self.moving(&scripts::GIVE_BACK, piece.iter().map(|lease| self.keys().job(&lease.id)));
            for lease in piece {
                call.arg(lease.entry.to_string()).arg(&lease.reference()[..]).arg(lease.id.as_bytes());
            }
            let reply = call.run(&mut self.connection()).await?;
            settled.extend(reply.statuses(piece.len(), |letter| match letter {
                b'W' => Some(Settled::Settled),
                b'L' => Some(Settled::Lost),
                _ => None,
            })?);
        }
        Ok(settled)
    }

    /// Renews leases; returns those that are lost.
    ///
    /// Only what is in the memory of the worker is to be renewed: renewing everything that is pending for its consumer
    /// would keep alive for ever what a lost reply delivered to nobody.
    ///
    /// # Errors
    /// [`QueueError::Redis`]; may be repeated.
    pub async fn renew(&self, consumer: &str, leases: &[Lease]) -> Result<Vec<Lease>, QueueError> {
        let mut lost = Vec::new();
        for piece in leases.chunks(JOBS_PER_CALL_MAX) {
            let lanes = [self.keys().stream(), self.keys().prioritized_active()];
            let mut call =
                Call::with_front(&scripts::RENEW, &lanes, piece.iter().map(|lease| self.keys().job(&lease.id)));
            call.arg(consumer);
            for lease in piece {
                call.arg(lease.entry.to_string()).arg(&lease.reference()[..]);
            }
            let reply = call.run(&mut self.connection()).await?;
            let kept = reply.statuses(piece.len(), |letter| match letter {
                b'R' => Some(true),
                b'L' => Some(false),
                _ => None,
            })?;
            lost.extend(piece.iter().zip(kept).filter(|(_, kept)| !kept).map(|(lease, _)| lease.clone()));
        }
        Ok(lost)
    }
}

/// The arguments that every settle of a version begins with: what the worker holds, and the id.
fn fenced<'c>(call: &'c mut Call, lease: &Lease) -> &'c mut Call {
    call.arg(lease.entry.to_string())
        .arg(&lease.reference()[..])
        .arg(&lease.version.to_bytes()[..])
        .arg(lease.id.as_bytes())
}

fn changed_or_lost(letter: u8) -> Option<Settled> {
    match letter {
        b'C' => Some(Settled::Changed),
        b'L' => Some(Settled::Lost),
        _ => None,
    }
}

fn two(script: &scripts::Script, elements: Vec<redis::Value>) -> Result<[redis::Value; 2], QueueError> {
    elements.try_into().map_err(|_| QueueError::Reply { script: script.name, detail: "not two elements".to_owned() })
}

/// The front of an error text, cut at a character.
pub(crate) fn cut(reason: &str) -> &str {
    &reason[..reason.floor_char_boundary(REASON_BYTES_MAX)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_reason_is_cut_between_characters() {
        assert_eq!(cut("short"), "short");
        let long = "é".repeat(600);
        assert_eq!(cut(&long).len(), 1024);
        assert_eq!(cut(&format!("x{long}")).len(), 1023);
    }
}
