//! The leases that a worker holds: what is to be renewed, and how much room is left.

use std::collections::HashMap;
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
        let is_new = held.leases.insert(delivery.lease.entry, (delivery.lease.clone(), bytes)).is_none();
        if is_new {
            held.bytes += bytes;
        }
        is_new
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
