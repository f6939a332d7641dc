//! The leases that a worker holds: what is to be renewed, and how much room is left.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::job::{EntryId, Place};
use crate::queue::read::{Delivery, Lease};

/// What a lease is on: entries of two lanes may have the same id.
type LaneEntry = (Place, EntryId);

/// Leases by entry. A lease is held from the moment its job was read until it is settled or lost.
#[derive(Debug, Default)]
pub(crate) struct Leases {
    held: Mutex<Held>,
    /// Told when there is one after there was none.
    some: Notify,
}

#[derive(Debug, Default)]
struct Held {
    leases: HashMap<LaneEntry, HeldLease>,
    /// Of those that are not being settled.
    bytes: usize,
    /// How many are being settled.
    settling: usize,
}

#[derive(Debug)]
struct HeldLease {
    lease: Lease,
    /// 0 once it is being settled: the job itself is gone then.
    bytes: usize,
    is_settling: bool,
    cancelled: CancellationToken,
}

fn lane_entry(lease: &Lease) -> LaneEntry {
    (lease.lane, lease.entry)
}

impl Leases {
    // The lock is held for a few map operations and never across an await; a panic in between cannot leave it half done.
    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Holds a lease; false if it is held already.
    pub(super) fn add(&self, delivery: &Delivery) -> bool {
        let mut held = self.lock();
        let bytes = delivery.job.size_bytes();
        if held.leases.is_empty() {
            self.some.notify_one();
        }
        let Entry::Vacant(vacant) = held.leases.entry(lane_entry(&delivery.lease)) else { return false };
        vacant.insert(HeldLease {
            lease: delivery.lease.clone(),
            bytes,
            is_settling: false,
            cancelled: delivery.cancelled.clone(),
        });
        held.bytes += bytes;
        true
    }

    pub(super) fn remove<'a>(&self, leases: impl IntoIterator<Item = &'a Lease>) {
        let mut held = self.lock();
        for lease in leases {
            held.remove(lane_entry(lease));
        }
    }

    /// Notes that nobody works on these any more: they are held only until Redis has answered.
    pub(super) fn settling<'a>(&self, leases: impl IntoIterator<Item = &'a Lease>) {
        let mut held = self.lock();
        for lease in leases {
            let Some(found) = held.leases.get_mut(&lane_entry(lease)) else { continue };
            if !std::mem::replace(&mut found.is_settling, true) {
                let bytes = std::mem::take(&mut found.bytes);
                held.bytes -= bytes;
                held.settling += 1;
            }
        }
    }

    /// Gives up leases that are somebody else's, or nobody's: tells the handlers of their jobs. Returns those that were held.
    pub(super) fn lose(&self, entries: impl IntoIterator<Item = LaneEntry>) -> Vec<Lease> {
        let mut lost = Vec::new();
        for entry in entries {
            // The lock is not held while others are told.
            let removed = self.lock().remove(entry);
            if let Some(removed) = removed {
                removed.cancelled.cancel();
                lost.push(removed.lease);
            }
        }
        lost
    }

    pub(super) fn is_held(&self, lease: &Lease) -> bool {
        self.lock().leases.contains_key(&lane_entry(lease))
    }

    pub(super) fn all(&self) -> Vec<Lease> {
        self.lock().leases.values().map(|held| held.lease.clone()).collect()
    }

    /// Waits until one is held.
    pub(super) async fn some(&self) {
        while self.totals().0 == 0 {
            self.some.notified().await;
        }
    }

    /// How many are held, and the bytes of their jobs.
    pub(super) fn totals(&self) -> (usize, usize) {
        let held = self.lock();
        (held.leases.len(), held.bytes)
    }

    /// How many are held because somebody works on them or will, how many are being settled, and the bytes of the former.
    pub(super) fn loads(&self) -> (usize, usize, usize) {
        let held = self.lock();
        (held.leases.len() - held.settling, held.settling, held.bytes)
    }
}

impl Held {
    fn remove(&mut self, entry: LaneEntry) -> Option<HeldLease> {
        let removed = self.leases.remove(&entry)?;
        self.bytes -= removed.bytes;
        self.settling -= usize::from(removed.is_settling);
        Some(removed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::{EntryId, Envelope, Head, Job, JobId, Place, Version};

    fn delivery(payload: &[u8]) -> Delivery {
        let entry = EntryId { ms: 5, seq: 1 };
        let mut value = Head::new(Place::Stream, Some(entry), Version(1), None).encode();
        Envelope { payload, ..Envelope::default() }.encode_into(&mut value);
        let id = JobId::new("a").expect("an id");
        let job = Job::decode(id.clone(), value).expect("readable");
        let lease = Lease { id, lane: Place::Stream, entry, version: job.head.version };
        Delivery { job, lease, cancelled: CancellationToken::new() }
    }

    #[test]
    fn an_entry_that_is_delivered_twice_counts_once_whatever_its_size() {
        let leases = Leases::default();
        assert!(leases.add(&delivery(b"small")));
        let totals = leases.totals();
        let larger = delivery(&[0; 10_000]);
        assert!(!leases.add(&larger), "it is held already");
        assert_eq!(leases.totals(), totals);
        leases.remove([&larger.lease]);
        assert_eq!(leases.totals(), (0, 0));
    }
    #[test]
    fn entries_of_two_lanes_with_one_id_are_two_leases() {
        let leases = Leases::default();
        let plain = delivery(b"x");
        let mut prioritized = delivery(b"x");
        prioritized.lease.lane = Place::Prioritized;
        assert!(leases.add(&plain) && leases.add(&prioritized));
        leases.remove([&plain.lease]);
        assert!(leases.is_held(&prioritized.lease));
    }

    #[test]
    fn who_loses_a_lease_is_told_and_nobody_else() {
        let leases = Leases::default();
        let (lost, mut kept) = (delivery(b"x"), delivery(b"x"));
        kept.lease.entry = EntryId { ms: 6, seq: 1 };
        leases.add(&lost);
        leases.add(&kept);
        assert_eq!(leases.lose([lane_entry(&lost.lease)]), std::slice::from_ref(&lost.lease));
        assert!(leases.lose([lane_entry(&lost.lease)]).is_empty(), "it is held no more");
        assert!(lost.cancelled.is_cancelled() && !kept.cancelled.is_cancelled());
        assert_eq!(leases.totals().0, 1);
    }
}
