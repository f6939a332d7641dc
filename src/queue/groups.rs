//! Groups: which have the most jobs.

use redis::FromRedisValue;

use super::{Queue, QueueError};

/// Most groups that are looked at for the largest of them.
pub const GROUPS_LOOKED_MAX: usize = 10_000;
/// Groups that one command looks at.
const PAGE: usize = 250;

/// The jobs of one group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupCounts {
    /// The value that its jobs are grouped by.
    pub group: Vec<u8>,
    /// Its jobs in the stream and among the prioritized, active ones too: at most the window.
    pub members: u64,
    /// Its jobs that wait for room.
    pub parked: u64,
}

/// The largest groups.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TopGroups {
    /// The groups, largest first.
    pub groups: Vec<GroupCounts>,
    /// How many were looked at.
    pub looked: usize,
    /// Whether that were all there are; otherwise larger ones may be among the others.
    pub is_through: bool,
}

impl Queue {
    /// The `n` groups with the most jobs that are not parked, of up to [`GROUPS_LOOKED_MAX`].
    ///
    /// # Errors
    /// [`QueueError::Redis`].
    pub async fn top_groups(&self, n: usize) -> Result<TopGroups, QueueError> {
        let (mut top, mut cursor) = (TopGroups::default(), 0_u64);
        while !top.is_through && top.looked < GROUPS_LOOKED_MAX {
            let mut scan = redis::cmd("HSCAN");
            scan.arg(self.keys().groups()).arg(cursor).arg("COUNT").arg(PAGE);
            let (next, page): (u64, Vec<(Vec<u8>, u64)>) = self.ask("HSCAN", &scan).await?;
            let mut parked = redis::pipe();
            for (group, _) in &page {
                parked.zcard(self.keys().parked(group));
            }
            let parked: Vec<u64> = self.ask_all("ZCARD", &parked, page.len()).await?;
            let page = page.into_iter().zip(parked);
            top.take(page.map(|((group, members), parked)| GroupCounts { group, members, parked }), n, |group| {
                group.members
            });
            cursor = next;
            top.is_through = cursor == 0;
        }
        Ok(top)
    }

    /// The `n` groups with the most parked jobs, of up to [`GROUPS_LOOKED_MAX`] that have any.
    ///
    /// # Errors
    /// [`QueueError::Redis`].
    pub async fn top_parked_groups(&self, n: usize) -> Result<TopGroups, QueueError> {
        let mut top = TopGroups::default();
        let mut behind = b"-".to_vec();
        while !top.is_through && top.looked < GROUPS_LOOKED_MAX {
            let mut range = redis::cmd("ZRANGEBYLEX");
            range.arg(self.keys().parked_groups()).arg(&behind).arg("+").arg("LIMIT").arg(0).arg(PAGE);
            let page: Vec<Vec<u8>> = self.ask("ZRANGEBYLEX", &range).await?;
            let mut counts = redis::pipe();
            for group in &page {
                counts.zcard(self.keys().parked(group)).hget(self.keys().groups(), group);
            }
            let counts: Vec<Option<u64>> = self.ask_all("ZCARD", &counts, page.len()).await?;
            top.is_through = page.len() < PAGE;
            behind = page.last().map(|group| [b"(", group.as_slice()].concat()).unwrap_or_default();
            let page = page.into_iter().zip(counts.chunks_exact(2));
            let counted = page.map(|(group, counts)| GroupCounts {
                group,
                parked: counts[0].unwrap_or(0),
                members: counts[1].unwrap_or(0),
            });
            top.take(counted, n, |group| group.parked);
        }
        Ok(top)
    }

    /// Sends a pipeline; nothing for no groups.
    async fn ask_all<T: FromRedisValue>(
        &self,
        name: &'static str,
        commands: &redis::Pipeline,
        groups: usize,
    ) -> Result<Vec<T>, QueueError> {
        if groups == 0 {
            return Ok(Vec::new());
        }
        commands.query_async(&mut self.connection()).await.map_err(|cause| QueueError::from_redis(name, cause))
    }
}

impl TopGroups {
    /// Takes in a page and keeps the largest.
    fn take(&mut self, page: impl Iterator<Item = GroupCounts>, n: usize, size: fn(&GroupCounts) -> u64) {
        for counts in page {
            self.looked += 1;
            // HSCAN may name a group twice while the hash is resized.
            if !self.groups.iter().any(|known| known.group == counts.group) {
                self.groups.push(counts);
            }
        }
        self.groups.sort_by(|a, b| size(b).cmp(&size(a)).then_with(|| a.group.cmp(&b.group)));
        self.groups.truncate(n);
    }
}
