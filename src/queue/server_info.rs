//! What the server says about itself.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::{QueueError, Redis};

impl Redis {
    /// The fields of `INFO` by name, and the time of one round trip.
    ///
    /// # Errors
    /// [`QueueError::Redis`].
    pub async fn server_info(&self) -> Result<(BTreeMap<String, String>, Duration), QueueError> {
        let from_redis = |cause| QueueError::from_redis("INFO", cause);
        let began = Instant::now();
        redis::cmd("PING").query_async::<String>(&mut self.connection()).await.map_err(from_redis)?;
        let ping = began.elapsed();
        let info: String = redis::cmd("INFO").query_async(&mut self.connection()).await.map_err(from_redis)?;
        let fields = info.lines().filter_map(|line| line.split_once(':'));
        Ok((fields.map(|(name, value)| (name.to_owned(), value.trim().to_owned())).collect(), ping))
    }
}
