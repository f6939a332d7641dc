//! The leases that a worker holds: what is to be renewed, and how much room is left.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::job::EntryId;
use crate::queue::read::{Delivery, Lease};

/// Leases by entry. A lease is held from the moment its job was read until it is settled or lost.
#[derive(Debug, Default)]
pub(crate) struct Leases {
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    leases: HashMap<EntryId, (Lease, usize)>,
    bytes: usize,
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
        let Entry::Vacant(vacant) = held.leases.entry(delivery.lease.entry) else { return false };
        vacant.insert((delivery.lease.clone(), bytes));
        held.bytes += bytes;
        true
    }

    pub(super) fn remove<'a>(&self, leases: impl IntoIterator<Item = &'a Lease>) {
        let mut held = self.lock();
        for lease in leases {
            if let Some((_, bytes)) = held.leases.remove(&lease.entry) {
                held.bytes -= bytes;
            }
        }
    }

    pub(super) fn is_held(&self, lease: &Lease) -> bool {
        self.lock().leases.contains_key(&lease.entry)
    }

    pub(super) fn all(&self) -> Vec<Lease> {
        self.lock().leases.values().map(|(lease, _)| lease.clone()).collect()
    }

    /// How many are held, and the bytes of their jobs.
    pub(super) fn totals(&self) -> (usize, usize) {
        let held = self.lock();
        (held.leases.len(), held.bytes)
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
        Delivery { lease: Lease { id, lane: Place::Stream, entry, version: job.head.version }, job }
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
}
