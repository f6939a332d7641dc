//! Sessions of the dashboard that somebody has logged out of: what all processes under a prefix know of them.
//!
//! A session is a signed cookie that is good until its time is over. One that ends earlier is noted here, and the note goes
//! when the session would have been over by itself.

use std::collections::HashSet;
use std::time::Duration;

use super::keys::ended_sessions;
use super::scripts::{self, Call};
use super::{QueueError, Redis};

/// Notes that are kept. Each costs a login with the right token and a logout within the life of a session; of more, those
/// of the sessions that would be over first are forgotten.
const NOTES_MAX: usize = 4096;

impl Redis {
    /// Notes that a session, which would go on for `left`, has ended.
    ///
    /// # Errors
    /// [`QueueError::Redis`]; may be repeated.
    pub async fn end_session(&self, id: &str, left: Duration) -> Result<(), QueueError> {
        let mut call = Call::new(&scripts::END_SESSION, std::iter::once(ended_sessions(self.prefix())));
        call.arg(id).arg(u64::try_from(left.as_millis()).unwrap_or(u64::MAX).max(1)).arg(NOTES_MAX);
        call.run(&mut self.connection()).await?.decode::<usize>()?;
        Ok(())
    }

    /// Ids of the sessions that have ended before their time.
    ///
    /// # Errors
    /// [`QueueError::Redis`].
    pub async fn ended_sessions(&self) -> Result<HashSet<String>, QueueError> {
        redis::cmd("ZREVRANGE")
            .arg(ended_sessions(self.prefix()))
            .arg(0)
            .arg(NOTES_MAX - 1)
            .query_async(&mut self.connection())
            .await
            .map_err(|cause| QueueError::from_redis("ZREVRANGE", cause))
    }
}
