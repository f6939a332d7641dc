//! Walks: long operations in bounded steps, over everything that stood in a structure when they began.
//!
//! Each walk is a value with a `step` that handles one page and says what it did, until it says that the walk is through.
//! Between two steps a walk can be left, and nothing is left behind half done: every page is one script, or several of which
//! each leaves a whole queue. A walk does not meet what comes in behind it, so it ends however fast others add.
//!
//! *Crash:* what a walk did not reach stays as it is. Begun anew, it goes on with that.

use redis::streams::{StreamId, StreamRangeReply};

use super::{Queue, QueueError};
use crate::job::{EntryId, JobId};

/// What one step of a walk did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Step {
    /// Jobs it looked at.
    pub looked_at: usize,
    /// Those it did something with.
    pub done: usize,
}

/// One member of a zset: its job (`None` for a name that no job can have) and its score as Redis writes it.
pub(super) type Member = (Option<JobId>, String);

/// Pages of a zset by rising score, as many members as it has when they begin.
///
/// Members that stay where they are are passed by; what leaves the zset meanwhile shifts nothing, since the cursor is a score.
#[derive(Debug)]
pub(super) struct ZsetPages {
    key: Vec<u8>,
    /// Score from which the next page begins.
    cursor: String,
    /// Members of just this score that were passed by already.
    skip: usize,
    /// Members that may still be looked at.
    left: usize,
}

impl ZsetPages {
    pub(super) async fn begin(queue: &Queue, key: impl Into<Vec<u8>>) -> Result<Self, QueueError> {
        let key = key.into();
        let left = redis::cmd("ZCARD").arg(&key).query_async(&mut queue.connection()).await;
        let left = left.map_err(|cause| QueueError::from_redis("ZCARD", cause))?;
        Ok(Self { key, cursor: "-inf".to_owned(), skip: 0, left })
    }

    /// The next page, of up to `limit` members; none when it is through.
    pub(super) async fn next(&mut self, queue: &Queue, limit: usize) -> Result<Vec<Member>, QueueError> {
        let limit = limit.min(self.left);
        if limit == 0 {
            return Ok(Vec::new());
        }
        let mut range = redis::cmd("ZRANGEBYSCORE");
        range.arg(&self.key).arg(&self.cursor).arg("+inf").arg("WITHSCORES").arg("LIMIT").arg(self.skip).arg(limit);
        let page = range.query_async::<Vec<(Vec<u8>, String)>>(&mut queue.connection()).await;
        let page = page.map_err(|cause| QueueError::from_redis("ZRANGEBYSCORE", cause))?;
        self.left -= page.len();
        Ok(page.into_iter().map(|(id, score)| (JobId::new(id).ok(), score)).collect())
    }

    /// To be called after each page, with the scores of those of its members that stay in the zset.
    pub(super) fn pass<'a>(&mut self, page: &'a [Member], staying: impl Iterator<Item = &'a str>) {
        let Some((_, last)) = page.last() else { return };
        if *last != self.cursor {
            self.cursor.clone_from(last);
            self.skip = 0;
        }
        self.skip += staying.filter(|score| *score == self.cursor).count();
    }
}

/// Pages of a stream, up to the entry that is its last when they begin.
#[derive(Debug)]
pub(super) struct StreamPages {
    key: String,
    after: Option<EntryId>,
    /// `None` when there is nothing to read.
    until: Option<EntryId>,
}

impl StreamPages {
    pub(super) async fn begin(queue: &Queue, key: &str) -> Result<Self, QueueError> {
        let mut last = redis::cmd("XREVRANGE");
        last.arg(key).arg("+").arg("-").arg("COUNT").arg(1);
        let last = last.query_async::<StreamRangeReply>(&mut queue.connection()).await;
        let last = last.map_err(|cause| QueueError::from_redis("XREVRANGE", cause))?;
        let until = last.ids.first().map(entry_id).transpose()?;
        Ok(Self { key: key.to_owned(), after: None, until })
    }

    /// The next page, of up to `limit` entries; none when it is through.
    pub(super) async fn next(&mut self, queue: &Queue, limit: usize) -> Result<Vec<(EntryId, StreamId)>, QueueError> {
        let Some(until) = self.until else { return Ok(Vec::new()) };
        let mut range = redis::cmd("XRANGE");
        range.arg(&self.key).arg(self.after.map_or_else(|| "-".to_owned(), |after| format!("({after}")));
        range.arg(until.to_string()).arg("COUNT").arg(limit);
        let page = range.query_async::<StreamRangeReply>(&mut queue.connection()).await;
        let page = page.map_err(|cause| QueueError::from_redis("XRANGE", cause))?;
        let page: Vec<_> =
            page.ids.into_iter().map(|entry| Ok((entry_id(&entry)?, entry))).collect::<Result<_, QueueError>>()?;
        match page.last() {
            Some((last, _)) => self.after = Some(*last),
            None => self.until = None,
        }
        Ok(page)
    }
}

fn entry_id(entry: &StreamId) -> Result<EntryId, QueueError> {
    entry.id.parse().map_err(|_| QueueError::Reply { script: "XRANGE", detail: format!("entry id {:?}", entry.id) })
}
