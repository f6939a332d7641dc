//! The walks: over entries that were delivered, and over guards; page by page, up to a limit.

use std::collections::{BTreeSet, HashMap};

use super::super::scripts::{self, element};
use super::super::{NO_KEYS, Queue, QueueError};
use super::InspectOptions;
use crate::job::{EntryId, JobId, Place};

/// Entries that one script looks at: about half a millisecond of Redis.
const ENTRIES_PER_CALL: usize = 128;
/// Guards that one script looks at, or puts back: each costs a look into a node of the stream, about two milliseconds of Redis
/// together.
pub(super) const GUARDS_PER_CALL: usize = 64;
/// Keys that one step of a scan looks at.
const SCAN_COUNT: usize = 500;

/// What the walk over delivered entries found.
#[derive(Debug, Default)]
pub(super) struct Delivered {
    pub(super) looked: u64,
    pub(super) is_through: bool,
    /// Pending for nobody.
    pub(super) orphans: Vec<(Place, EntryId)>,
    /// Pending, and without a guard.
    pub(super) lost: Vec<JobId>,
}

/// What the walk over guards found.
#[derive(Debug, Default)]
pub(super) struct Guards {
    pub(super) looked: u64,
    pub(super) is_through: bool,
    /// Their jobs do not stand where their heads say.
    pub(super) strays: Vec<JobId>,
    /// No head can be read.
    pub(super) unreadable: Vec<JobId>,
    /// Jobs that take room in their group, by group.
    members: HashMap<Vec<u8>, u64>,
}

/// Groups that are counted wrong.
#[derive(Clone, Debug, Default)]
pub(in super::super) struct Miscounted {
    /// Group, and how many jobs it has.
    pub(super) groups: Vec<(Vec<u8>, u64)>,
    /// Tells whether a job moved since they were counted.
    pub(super) fence: String,
}

/// Behind which the first page begins.
pub(in super::super) const BEGINNING: &str = "-";

/// A page as the script answers it.
pub(in super::super) struct Page {
    looked: u64,
    /// Behind which the next one begins; `None`: there is none.
    pub(in super::super) next: Option<String>,
    /// Pending for nobody.
    pub(in super::super) orphans: Vec<EntryId>,
    /// Pending, and without a guard.
    lost: Vec<JobId>,
}

/// What is looked for among delivered entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum LookFor {
    /// Entries that are pending for nobody.
    Orphans,
    /// Those, and pending ones without a guard: one command more for each entry.
    OrphansAndLost,
}

impl Queue {
    pub(super) async fn walk_delivered(&self, options: &InspectOptions) -> Result<Delivered, QueueError> {
        let mut walked = Delivered::default();
        for lane in [Place::Stream, Place::Prioritized] {
            let mut cursor = Some(BEGINNING.to_owned());
            while let Some(behind) = cursor.take() {
                if walked.looked as usize >= options.entries_max {
                    return Ok(walked);
                }
                let page = self.look_at_delivered(lane, &behind, LookFor::OrphansAndLost).await?;
                walked.looked += page.looked;
                walked.orphans.extend(page.orphans.into_iter().map(|entry| (lane, entry)));
                walked.lost.extend(page.lost);
                cursor = page.next;
            }
        }
        walked.is_through = true;
        Ok(walked)
    }

    /// One page of what was delivered in a lane; the next one begins behind [`Page::next`].
    pub(in super::super) async fn look_at_delivered(
        &self,
        lane: Place,
        behind: &str,
        look_for: LookFor,
    ) -> Result<Page, QueueError> {
        let mut call = self.moving(&scripts::LOOK_AT_DELIVERED, NO_KEYS);
        call.arg(&[lane as u8][..]).arg(behind).arg(ENTRIES_PER_CALL);
        call.arg(if look_for == LookFor::OrphansAndLost { "g" } else { "" });
        let (script, elements) = call.run(&mut self.connection()).await?.array()?;
        let unexpected = |detail: String| QueueError::Reply { script: script.name, detail };
        if elements.len() < 2 || elements.len() % 3 != 2 {
            return Err(unexpected(format!("{} elements", elements.len())));
        }
        let mut elements = elements.into_iter();
        let mut next = || elements.next().expect("they were counted");
        let looked = element(script, next())?;
        let last: String = element(script, next())?;
        let mut page =
            Page { looked, next: Some(last).filter(|last| !last.is_empty()), orphans: Vec::new(), lost: Vec::new() };
        while let (Some(letter), Some(entry), Some(id)) = (elements.next(), elements.next(), elements.next()) {
            let (letter, entry): (String, String) = (element(script, letter)?, element(script, entry)?);
            let entry = entry.parse().map_err(|_| unexpected(format!("entry {entry:?}")))?;
            match letter.as_str() {
                "O" => page.orphans.push(entry),
                "L" => page.lost.push(JobId::new(element::<Vec<u8>>(script, id)?)?),
                other => return Err(unexpected(format!("letter {other:?}"))),
            }
        }
        Ok(page)
    }

    pub(super) async fn walk_guards(&self, options: &InspectOptions) -> Result<Guards, QueueError> {
        let (mut walked, mut cursor, mut scanned) = (Guards::default(), 0_u64, 0_usize);
        let pattern = self.keys().job_pattern();
        let prefix_bytes = self.keys().job_prefix().len();
        loop {
            let mut scan = redis::cmd("SCAN");
            scan.arg(cursor).arg("MATCH").arg(&pattern).arg("COUNT").arg(SCAN_COUNT);
            let (next, keys): (u64, Vec<Vec<u8>>) = self.ask("SCAN", &scan).await?;
            let ids = keys.iter().filter_map(|key| JobId::new(&key[prefix_bytes..]).ok()).collect::<Vec<_>>();
            for piece in ids.chunks(GUARDS_PER_CALL) {
                self.look_at_guards(piece, &mut walked).await?;
            }
            walked.looked += ids.len() as u64;
            cursor = next;
            // Keys of others are scanned too, and cost as much.
            scanned = scanned.saturating_add(SCAN_COUNT);
            walked.is_through = cursor == 0;
            if walked.is_through || scanned >= options.guards_max {
                break;
            }
        }
        // SCAN may name a key twice while Redis resizes its table.
        for ids in [&mut walked.strays, &mut walked.unreadable] {
            ids.sort_unstable();
            ids.dedup();
        }
        Ok(walked)
    }

    /// Which groups are counted wrong, by what a walk over all guards found that began with this fence. Nothing is known, and
    /// nothing is answered, where a job moved meanwhile.
    pub(super) async fn miscounted(&self, guards: &Guards, fence: String) -> Result<Miscounted, QueueError> {
        // The room of a job that stands nowhere is counted, too: that comes first.
        if !guards.is_through || !guards.strays.is_empty() {
            return Ok(Miscounted::default());
        }
        let (mut counted, mut cursor) = (HashMap::new(), 0_u64);
        loop {
            let mut scan = redis::cmd("HSCAN");
            scan.arg(self.keys().groups()).arg(cursor).arg("COUNT").arg(SCAN_COUNT);
            let (next, page): (u64, Vec<(Vec<u8>, u64)>) = self.ask("HSCAN", &scan).await?;
            counted.extend(page);
            cursor = next;
            if cursor == 0 {
                break;
            }
        }
        if self.recount_groups(&fence, &[]).await?.0 != fence {
            return Ok(Miscounted::default());
        }
        let groups: BTreeSet<&Vec<u8>> = counted.keys().chain(guards.members.keys()).collect();
        let has = |group: &Vec<u8>| guards.members.get(group).copied().unwrap_or(0);
        let wrong = groups.into_iter().filter(|group| counted.get(*group).copied().unwrap_or(0) != has(group));
        Ok(Miscounted { groups: wrong.map(|group| (group.clone(), has(group))).collect(), fence })
    }

    /// What tells whether jobs move from now on.
    pub(super) async fn fence(&self) -> Result<String, QueueError> {
        Ok(self.recount_groups("", &[]).await?.0)
    }

    /// Corrects the numbers of groups, unless a job moved since they were counted. Returns the fence as it is now, and how
    /// many were corrected.
    pub(super) async fn recount_groups(
        &self,
        fence: &str,
        groups: &[(Vec<u8>, u64)],
    ) -> Result<(String, u64), QueueError> {
        let mut call = self.moving(&scripts::RECOUNT_GROUPS, NO_KEYS);
        call.arg(fence);
        for (group, members) in groups {
            call.arg(group).arg(members);
        }
        call.run(&mut self.connection()).await?.decode()
    }

    async fn look_at_guards(&self, ids: &[JobId], walked: &mut Guards) -> Result<(), QueueError> {
        let mut call = self.moving(&scripts::LOOK_AT_GUARDS, NO_KEYS);
        for id in ids {
            call.arg(id.as_bytes());
        }
        let (script, mut elements) = call.run(&mut self.connection()).await?.array()?;
        if elements.is_empty() {
            return Err(QueueError::Reply { script: script.name, detail: "an empty array".to_owned() });
        }
        for group in elements.split_off(1) {
            *walked.members.entry(element(script, group)?).or_default() += 1;
        }
        let letters: Vec<u8> = element(script, elements.remove(0))?;
        let known = |letter| b"SGUXN".contains(&letter).then_some(letter);
        for (letter, id) in scripts::decode_statuses(script, &letters, ids.len(), known)?.into_iter().zip(ids) {
            match letter {
                b'U' => walked.strays.push(id.clone()),
                b'X' => walked.unreadable.push(id.clone()),
                _ => {}
            }
        }
        Ok(())
    }
}
