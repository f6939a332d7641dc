//! The keys of one bench: all begin with a prefix that nobody else has, and are deleted at the end, however it ends.
//!
//! *Crash:* a bench that is killed leaves its keys, under the prefix that it has named on stderr.

use anyhow::Context as _;

use crate::queue::Redis;

/// Keys that one step looks at, and at most deletes: well under a millisecond of Redis.
const KEYS_PER_STEP: usize = 500;

/// A prefix for keys that no other bench has. As long as those of an installation, which has its share in the memory of
/// a job: `bench-1a2b3c4d:{feedmill}:job:` for `feedmill:{job_import_queue}:job:`.
pub(super) fn own_prefix() -> String {
    format!("bench-{:08x}", fastrand::u32(..))
}

/// Deletes every key under the prefix, in steps; looks at all keys of the database to find them.
pub(super) async fn delete(redis: &Redis) -> anyhow::Result<()> {
    // What was on its way when the bench was interrupted may arrive behind the scan.
    while delete_once(redis).await.context("the keys of this bench could not all be deleted")? > 0 {}
    Ok(())
}

/// One pass; how many keys it deleted.
async fn delete_once(redis: &Redis) -> redis::RedisResult<usize> {
    let mut connection = redis.connection();
    let (mut cursor, mut deleted) = (0_u64, 0);
    loop {
        let pattern = format!("{}:*", redis.prefix());
        let mut scan = redis::cmd("SCAN");
        scan.arg(cursor).arg("MATCH").arg(pattern).arg("COUNT").arg(KEYS_PER_STEP);
        let (next, keys): (u64, Vec<Vec<u8>>) = scan.query_async(&mut connection).await?;
        if !keys.is_empty() {
            deleted += redis::cmd("UNLINK").arg(keys).query_async::<usize>(&mut connection).await?;
        }
        cursor = next;
        if cursor == 0 {
            return Ok(deleted);
        }
    }
}
