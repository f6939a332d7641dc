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
use super::{GROUP, LISTED_FAILURES_MAX, Queue, QueueError, millis};
use crate::job::Stored;

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
}

impl Queue {
    /// Ends jobs whose work is done; says for the import what the write did, if there was one.
    ///
    /// # Errors
    /// [`QueueError::Redis`]; may be repeated.
    pub async fn done(&self, jobs: &[(Lease, Option<Stored>)]) -> Result<Vec<Settled>, QueueError> {
        let keys = self.keys();
        let fixed = [keys.stream(), keys.failures(), keys.meta(), keys.closing_imports()];
        let mut settled = Vec::with_capacity(jobs.len());
        for piece in jobs.chunks(JOBS_PER_CALL_MAX) {
            let mut call = self.jobs_call(&scripts::DONE, &fixed, piece.iter().map(|(lease, _)| lease));
            call.arg(GROUP).arg(keys.import_prefix());
            for (lease, stored) in piece {
                fenced(&mut call, lease).arg(match stored {
                    Some(Stored::Inserted) => "inserted",
                    Some(Stored::Updated) => "updated",
                    Some(Stored::Stale) => "stale",
                    None => "",
                });
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
        let keys = self.keys();
        let fixed = [keys.stream(), keys.delayed(), keys.failures(), keys.meta(), keys.wake(), keys.events()];
        let mut settled = Vec::with_capacity(jobs.len());
        let mut next_due = None;
        for piece in jobs.chunks(JOBS_PER_CALL_MAX) {
            let mut call = self.jobs_call(&scripts::BACK_OFF, &fixed, piece.iter().map(|job| &job.lease));
            call.arg(GROUP).arg(self.events_max());
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
        let keys = self.keys();
        let fixed = [keys.stream(), keys.dead(), keys.failures(), keys.meta(), keys.closing_imports(), keys.events()];
        let mut settled = Vec::with_capacity(jobs.len());
        for piece in jobs.chunks(JOBS_PER_CALL_MAX) {
            let mut call = self.jobs_call(&scripts::BURY, &fixed, piece.iter().map(|job| &job.lease));
            call.arg(GROUP).arg(keys.import_prefix()).arg(consumer).arg(self.events_max()).arg(LISTED_FAILURES_MAX);
            for job in piece {
                fenced(&mut call, &job.lease).arg(cut(&job.reason)).arg(if job.exhausted { "exhausted" } else { "" });
            }
            let reply = call.run(&mut self.connection()).await?;
            settled.extend(reply.statuses(piece.len(), |letter| match letter {
                b'F' => Some(Settled::Settled),
                other => changed_or_lost(other),
            })?);
        }
        Ok(settled)
    }

    /// Gives jobs back to waiting as they are: no attempt and no stall is counted.
    ///
    /// # Errors
    /// [`QueueError::Redis`]; may be repeated.
    pub async fn give_back(&self, leases: &[Lease]) -> Result<Vec<Settled>, QueueError> {
        let mut settled = Vec::with_capacity(leases.len());
        for piece in leases.chunks(JOBS_PER_CALL_MAX) {
            let mut call = self.jobs_call(&scripts::GIVE_BACK, &[self.keys().stream()], piece.iter());
            call.arg(GROUP);
            for lease in piece {
                call.arg(lease.entry.to_string()).arg(&lease.packed()[..]).arg(lease.id.as_bytes());
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
            let mut call = self.jobs_call(&scripts::RENEW, &[self.keys().stream()], piece.iter());
            call.arg(GROUP).arg(consumer);
            for lease in piece {
                call.arg(lease.entry.to_string()).arg(&lease.packed()[..]);
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

    fn jobs_call<'a>(
        &self,
        script: &'static scripts::Script,
        fixed: &[&str],
        leases: impl Iterator<Item = &'a Lease>,
    ) -> Call {
        let fixed = fixed.iter().map(|key| key.as_bytes().to_vec());
        let all: Vec<Vec<u8>> = fixed.chain(leases.map(|lease| self.keys().job(&lease.id))).collect();
        Call::new(script, all.into_iter())
    }
}

/// The arguments that every settle of a version begins with.
fn fenced<'c>(call: &'c mut Call, lease: &Lease) -> &'c mut Call {
    call.arg(lease.entry.to_string())
        .arg(&lease.packed()[..])
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
