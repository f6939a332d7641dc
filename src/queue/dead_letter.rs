//! Dead letters: jobs we gave up on, kept with their reason.
//!
//! ```text
//!   active ──bury entry──▶ dead ──redrive──▶ waiting (attempt 1)
//!   producer ─enqueue dead─▶ └──discard──▶ gone, and the feed forgets the item
//! ```
//!
//! Burying a job with a guard is a settle; see [`super::settle`]. Here are the entries that no job can be made of, and
//! what is done with letters afterwards. The envelope of a dead job stays in its guard; of an unreadable entry the letter
//! holds what there was.
//!
//! *Crash:* every step is one script over one page; what a walk did not reach stays as it is.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use redis::streams::StreamRangeReply;

use super::enqueue::Enqueued;
use super::read::UnreadableEntry;
use super::remove::Forget;
use super::scripts::{self, JOBS_PER_CALL_MAX, element, pieces};
use super::settle::cut;
use super::{LISTED_FAILURES_MAX, Queue, QueueError, Settled, millis};
use crate::job::{EntryId, Envelope, JobId, Version};

/// A dead letter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// Its entry among the dead letters.
    pub entry: EntryId,
    /// The job; `None` for an entry that no job could be made of.
    pub id: Option<JobId>,
    /// Why we gave up.
    pub reason: String,
    /// Failed attempts.
    pub attempts: u32,
    /// When.
    pub at: SystemTime,
    /// The consumer that gave up; empty when none had the job.
    pub consumer: String,
    /// What there was of an unreadable entry.
    pub raw: Option<Vec<u8>>,
}

/// A job that was given up elsewhere.
#[derive(Clone, Debug)]
pub struct NewDeadJob<'a> {
    /// Its identity.
    pub id: JobId,
    /// What it is.
    pub envelope: Envelope<'a>,
    /// Version of its content; `None` takes the time of Redis, and then it replaces nothing.
    pub version: Option<Version>,
    /// 1 (first) to [`super::enqueue::PRIORITY_MAX`]; 0 for none. Counts once it is redriven.
    pub priority: u32,
    /// What it is grouped by, on a queue that limits its groups.
    pub group: Option<&'a str>,
    /// Failed attempts.
    pub attempts_made: u8,
    /// Why it was given up.
    pub reason: &'a str,
    /// When.
    pub at: SystemTime,
}

/// What a redrive did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Redriven {
    /// Letters whose jobs wait again.
    pub redriven: usize,
    /// Letters that were gone already.
    pub gone: usize,
    /// Letters with nothing left to work on; they stay.
    pub empty: usize,
}

/// How long, and how many, dead letters are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retention {
    /// Only the newest so many.
    pub count: Option<usize>,
    /// Only those younger than this.
    pub age: Option<Duration>,
}

impl DeadLetter {
    /// Reads the fields of a letter that `script` answered with.
    pub(super) fn decode(
        script: &'static str,
        entry: EntryId,
        field: impl Fn(&str) -> Option<Vec<u8>>,
    ) -> Result<Self, QueueError> {
        let unexpected =
            |what: &str| QueueError::Reply { script, detail: format!("dead letter {entry} has no {what}") };
        let text = |name: &str| field(name).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        // One letter with an id that no job can have must not hide all the others.
        let (id, raw) = match field("id").map(|bytes| (JobId::new(&bytes).ok(), bytes)) {
            Some((None, bytes)) => (None, Some(bytes)),
            Some((id, _)) => (id, field("raw")),
            None => (None, field("raw")),
        };
        let at = text("at").and_then(|at| at.parse().ok()).ok_or_else(|| unexpected("time"))?;
        Ok(Self {
            entry,
            id,
            reason: text("reason").ok_or_else(|| unexpected("reason"))?,
            attempts: text("attempts").and_then(|n| n.parse().ok()).ok_or_else(|| unexpected("attempts"))?,
            at: UNIX_EPOCH + Duration::from_millis(at),
            consumer: text("consumer").unwrap_or_default(),
            raw,
        })
    }

    /// The JSON of a plain producer's entry, which can be read again; not what else may have been unreadable.
    fn json(&self) -> Option<&[u8]> {
        self.raw.as_deref().filter(|raw| raw.trim_ascii_start().starts_with(b"{"))
    }
}

impl Queue {
    /// Makes a dead letter of an entry that no job can be made of, or drops it when its job stands elsewhere
    /// (then the answer is [`Settled::Changed`]).
    ///
    /// # Errors
    /// [`QueueError::Redis`]; may be repeated.
    pub async fn bury_entry(&self, consumer: &str, unreadable: &UnreadableEntry) -> Result<Settled, QueueError> {
        let mut call = self.moving(&scripts::BURY_ENTRY, [self.job_key(unreadable.id.as_ref())]);
        call.arg(consumer)
            .arg(LISTED_FAILURES_MAX)
            .arg(&[unreadable.lane as u8][..])
            .arg(unreadable.entry.to_string())
            .arg(unreadable.id.as_ref().map_or(&[][..], JobId::as_bytes))
            .arg(cut(&unreadable.reason))
            .arg(&unreadable.raw[..]);
        let letter: String = call.run(&mut self.connection()).await?.decode()?;
        match letter.as_str() {
            "F" => Ok(Settled::Settled),
            "O" => Ok(Settled::Changed),
            "L" => Ok(Settled::Lost),
            other => Err(QueueError::Reply { script: scripts::BURY_ENTRY.name, detail: other.to_owned() }),
        }
    }

    /// Takes in jobs that were given up elsewhere, as dead letters. Returns what became of each, in order: enqueued, or a
    /// duplicate of a job that is here, whose content is newer or which is not dead.
    ///
    /// May be repeated: its second run finds duplicates.
    ///
    /// # Errors
    /// [`QueueError::Redis`]: earlier calls were carried out.
    pub async fn enqueue_dead(&self, jobs: &[NewDeadJob<'_>]) -> Result<Vec<Enqueued>, QueueError> {
        let mut results = Vec::with_capacity(jobs.len());
        for piece in pieces(jobs, |job| job.envelope.payload.len()) {
            let keys: Vec<Vec<u8>> = piece.iter().map(|job| self.keys().job(&job.id)).collect();
            let mut call = self.moving(&scripts::ENQUEUE_DEAD, keys);
            for job in piece {
                let mut envelope = Vec::new();
                job.envelope.encode_into(&mut envelope);
                call.arg(job.id.as_bytes())
                    .arg(job.version.map(|version| version.to_bytes().to_vec()).unwrap_or_default())
                    .arg(envelope)
                    .arg(self.extras(job.priority, job.group))
                    .arg(job.attempts_made)
                    .arg(cut(job.reason))
                    .arg(millis(job.at.duration_since(UNIX_EPOCH).unwrap_or_default()));
            }
            let (script, mut elements) = call.run(&mut self.connection()).await?.array()?;
            let unexpected = |what: &str| QueueError::Reply { script: script.name, detail: what.to_owned() };
            if elements.is_empty() {
                return Err(unexpected("an empty array"));
            }
            let mut errors = elements.split_off(1).into_iter();
            let letters: Vec<u8> = element(script, elements.remove(0))?;
            let letters = scripts::decode_statuses(script, &letters, piece.len(), |letter| {
                b"EDX".contains(&letter).then_some(letter)
            })?;
            for letter in letters {
                results.push(match letter {
                    b'E' => Enqueued::Enqueued,
                    b'D' => Enqueued::Duplicate,
                    _ => Enqueued::Refused(element(script, errors.next().ok_or_else(|| unexpected("no error"))?)?),
                });
            }
        }
        Ok(results)
    }

    /// Reads dead letters, oldest first: up to `limit` after the entry `after` (from the beginning for `None`).
    ///
    /// # Errors
    /// [`QueueError::Redis`].
    pub async fn dead_letters(&self, after: Option<EntryId>, limit: usize) -> Result<Vec<DeadLetter>, QueueError> {
        let start = after.map_or_else(|| "-".to_owned(), |entry| format!("({entry}"));
        let reply = redis::cmd("XRANGE")
            .arg(self.keys().dead())
            .arg(start)
            .arg("+")
            .arg("COUNT")
            .arg(limit)
            .query_async::<StreamRangeReply>(&mut self.connection())
            .await
            .map_err(|cause| QueueError::from_redis("XRANGE", cause))?;
        reply.ids.into_iter().map(|entry| decode_letter(&entry)).collect()
    }

    /// The newest dead letter there is now.
    ///
    /// # Errors
    /// [`QueueError::Redis`].
    pub async fn last_dead_letter(&self) -> Result<Option<EntryId>, QueueError> {
        let reply = redis::cmd("XREVRANGE")
            .arg(self.keys().dead())
            .arg("+")
            .arg("-")
            .arg("COUNT")
            .arg(1)
            .query_async::<StreamRangeReply>(&mut self.connection())
            .await
            .map_err(|cause| QueueError::from_redis("XREVRANGE", cause))?;
        reply.ids.first().map(|entry| decode_letter(entry).map(|letter| letter.entry)).transpose()
    }

    /// Brings letters back to waiting, at attempt 1.
    ///
    /// # Errors
    /// [`QueueError::Redis`]: letters of earlier calls are redriven.
    pub async fn redrive(&self, letters: &[DeadLetter]) -> Result<Redriven, QueueError> {
        let mut redriven = Redriven::default();
        for piece in letters.chunks(JOBS_PER_CALL_MAX) {
            let own = piece.iter().map(|letter| self.job_key(letter.id.as_ref()));
            let mut call = self.moving(&scripts::REDRIVE, own);
            for letter in piece {
                call.arg(letter.entry.to_string())
                    .arg(letter.id.as_ref().map_or(&[][..], JobId::as_bytes))
                    .arg(letter.json().unwrap_or_default());
            }
            let statuses = call
                .run(&mut self.connection())
                .await?
                .statuses(piece.len(), |letter| b"RGN".contains(&letter).then_some(letter))?;
            for status in statuses {
                match status {
                    b'R' => redriven.redriven += 1,
                    b'G' => redriven.gone += 1,
                    _ => redriven.empty += 1,
                }
            }
        }
        Ok(redriven)
    }

    /// Deletes dead letters that `retention` no longer keeps, oldest first, with their guards, up to one page. Returns how
    /// many; a full page means that there may be more.
    ///
    /// The feed of a deleted item forgets it, or its next fetch would pass it over: `forget` makes the record that does
    /// this in a seen map.
    ///
    /// # Errors
    /// [`QueueError::Redis`]: letters up to there are deleted.
    pub async fn retain_dead_letters(
        &self,
        retention: Retention,
        now: SystemTime,
        forget: Forget,
    ) -> Result<usize, QueueError> {
        if retention == Retention::default() {
            return Ok(0);
        }
        // The length after the page: what another janitor deleted in between is in neither.
        let oldest = self.dead_letters(None, JOBS_PER_CALL_MAX).await?;
        let too_many = match retention.count {
            Some(count) => {
                let letters: usize = redis::cmd("XLEN")
                    .arg(self.keys().dead())
                    .query_async(&mut self.connection())
                    .await
                    .map_err(|cause| QueueError::from_redis("XLEN", cause))?;
                letters.saturating_sub(count)
            }
            None => 0,
        };
        let of_no_more_use = oldest.iter().enumerate().take_while(|(position, letter)| {
            let too_old = retention.age.is_some_and(|age| now.duration_since(letter.at).is_ok_and(|old| old > age));
            *position < too_many || too_old
        });
        let letters: Vec<_> = of_no_more_use.map(|(_, letter)| (letter.entry, letter.id.clone())).collect();
        self.discard(&letters, "discarded", forget).await?;
        Ok(letters.len())
    }

    /// The key of a job, or any key of the queue where there is no id.
    fn job_key(&self, id: Option<&JobId>) -> Vec<u8> {
        id.map_or_else(|| self.keys().meta().as_bytes().to_vec(), |id| self.keys().job(id))
    }

    /// Deletes letters, with their guards, and counts them as `counter`. Returns how many were still there.
    pub(super) async fn discard(
        &self,
        letters: &[(EntryId, Option<JobId>)],
        counter: &'static str,
        forget: Forget,
    ) -> Result<usize, QueueError> {
        let mut deleted = 0;
        for piece in letters.chunks(JOBS_PER_CALL_MAX) {
            let own = piece.iter().map(|(_, id)| self.job_key(id.as_ref()));
            let mut call = self.moving(&scripts::DISCARD, own);
            call.arg(counter);
            for (entry, id) in piece {
                call.arg(entry.to_string())
                    .arg(id.as_ref().map_or(&[][..], JobId::as_bytes))
                    .arg(id.as_ref().map_or_else(Vec::new, |id| forget(id).to_vec()));
            }
            let reply = call.run(&mut self.connection()).await?;
            let answers = reply.statuses(piece.len(), |letter| match letter {
                b'D' => Some(true),
                b'G' => Some(false),
                _ => None,
            })?;
            deleted += answers.into_iter().filter(|deleted| *deleted).count();
        }
        Ok(deleted)
    }
}

fn decode_letter(entry: &redis::streams::StreamId) -> Result<DeadLetter, QueueError> {
    let id = entry.id.parse();
    let id = id.map_err(|_| QueueError::Reply { script: "XRANGE", detail: format!("{} is no entry id", entry.id) })?;
    DeadLetter::decode("XRANGE", id, |name| entry.get::<Vec<u8>>(name))
}
