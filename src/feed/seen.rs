//! The seen map: what a feed showed lately, in 16 bytes an item, so that only new and changed items become jobs.
//!
//! ```text
//!  header (16)                               a record (16), any number of them
//!  ┌────────┬──────────┬───────────────────┐ ┌────────────┬─────────────────┬───────────────────┐
//!  │ format │ zero (7) │ fetch version (8) │ │ digest (8) │ fingerprint (7) │ normaliser·missed │
//!  └────────┴──────────┴───────────────────┘ └────────────┴─────────────────┴───────────────────┘
//! ```
//!
//! It is one byte string in Redis, which `queue/` keeps without looking into it. The fetch handler reads it, classifies
//! the items, and hands the records of what it sends to the enqueue script, which appends them; at the end of the fetch
//! it writes the compacted map. Of several records with one digest the last wins. One whose fingerprint is [`FORGET`]
//! takes the item out: whatever discards a job that did not finish appends it, or the item would never come again.
//!
//! Each record names the normaliser version of its own fingerprint. So a map may hold records of several versions: those
//! that an enqueue script appended, those of items that were not shown since an upgrade, and those of a newer feedmill
//! during a rolling upgrade.
//!
//! *Crash:* between the appends and the compaction the map is longer than needed and right. A map that cannot be read
//! counts as empty: its items are enqueued once more, and the idempotent write makes that harmless.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};

use tracing::warn;
use xxhash_rust::xxh3::xxh3_64;

use super::fingerprint::{Fingerprint, NORMALISER_VERSION};

/// Length of the header and of each record, in bytes.
pub const RECORD_BYTES: usize = 16;

/// The fingerprint of a record that takes its item out of the map.
pub const FORGET: Fingerprint = Fingerprint([0xFF; 7]);

/// An item is dropped after this many complete fetches without it. Mirrors behind one address show different windows of
/// a feed, so an item that is gone once may be back in the next fetch; ten in a row is gone.
pub const MISSED_MAX: u8 = 10;

/// First byte of a map. Not a number a damaged or foreign value is likely to start with.
const FORMAT: u8 = 0xF1;

/// What stands for a job id in the map.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest(pub [u8; 8]);

impl Digest {
    /// The digest of a job id. Among 2,000 items two share one by chance once in 10^13 feeds; the one that comes second
    /// would be taken for a change of the first.
    pub fn of(job_id: &[u8]) -> Self {
        Self(xxh3_64(job_id).to_be_bytes())
    }
}

/// What an item is, compared with what was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Not in the map.
    New,
    /// In the map with another fingerprint.
    Changed,
    /// In the map as it is. Nothing is sent.
    Unchanged,
}

/// What the map knows of an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seen {
    fingerprint: Fingerprint,
    /// Version of the normaliser that made the fingerprint, 0 to 15.
    normaliser: u8,
    /// Complete fetches since the item was last shown.
    missed: u8,
}

/// A seen map in memory.
#[derive(Clone, Debug, Default)]
pub struct SeenMap {
    items: HashMap<Digest, Seen>,
    is_damaged: bool,
}

impl SeenMap {
    /// Reads what Redis holds; `None` (no such key) is an empty map.
    ///
    /// A format that is not known or a length that does not fit gives an empty map that [`is_damaged`](Self::is_damaged).
    pub fn decode(bytes: Option<&[u8]>) -> Self {
        let Some(bytes) = bytes else { return Self::default() };
        if fetch_version(bytes).is_none() || !bytes.len().is_multiple_of(RECORD_BYTES) {
            warn!(bytes = bytes.len(), "seen map cannot be read; every item of the feed counts as new");
            return Self { is_damaged: true, ..Self::default() };
        }
        let (records, _) = bytes[RECORD_BYTES..].as_chunks::<RECORD_BYTES>();
        let mut items = HashMap::with_capacity(records.len());
        for record in records {
            let [d0, d1, d2, d3, d4, d5, d6, d7, f0, f1, f2, f3, f4, f5, f6, flags] = *record;
            let digest = Digest([d0, d1, d2, d3, d4, d5, d6, d7]);
            let fingerprint = Fingerprint([f0, f1, f2, f3, f4, f5, f6]);
            if fingerprint == FORGET {
                items.remove(&digest);
            } else {
                items.insert(digest, Seen { fingerprint, normaliser: flags >> 4, missed: flags & 0x0F });
            }
        }
        Self { items, is_damaged: false }
    }

    /// Whether there was a map that could not be read.
    pub fn is_damaged(&self) -> bool {
        self.is_damaged
    }

    /// How many items it knows.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// The fingerprint that the map holds of an item, made by whatever version of the normaliser.
    pub fn fingerprint(&self, digest: Digest) -> Option<Fingerprint> {
        self.items.get(&digest).map(|seen| seen.fingerprint)
    }

    /// How many items the last complete fetch showed: what a feed that answers 304 still holds.
    pub fn shown_last(&self) -> usize {
        self.items.values().filter(|seen| seen.missed == 0).count()
    }

    /// Whether it knows none.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Compares an item with what was seen.
    ///
    /// `fingerprint_in` gives the item's fingerprint in a normaliser version, `None` for one it does not know; it is
    /// [`fingerprint_as`](super::fingerprint::fingerprint_as). So an upgrade changes nothing, and an item whose record
    /// a newer feedmill wrote counts as unchanged: the newer one will judge it.
    pub fn classify(&self, digest: Digest, fingerprint_in: impl FnOnce(u8) -> Option<Fingerprint>) -> Class {
        match self.items.get(&digest) {
            None => Class::New,
            Some(seen) => match fingerprint_in(seen.normaliser) {
                Some(fingerprint) if fingerprint != seen.fingerprint => Class::Changed,
                _ => Class::Unchanged,
            },
        }
    }

    /// The digests of what it knows, in no order.
    pub fn digests(&self) -> impl Iterator<Item = Digest> {
        self.items.keys().copied()
    }

    /// What [`Self::compact`] drops, in the order of the digests.
    pub fn dropped(&self, shown: &[(Digest, Fingerprint)], complete: bool) -> Vec<Digest> {
        if !complete || shown.is_empty() {
            return Vec::new();
        }
        let shown: HashSet<Digest> = shown.iter().map(|(digest, _)| *digest).collect();
        let is_dropped = |digest: &Digest, seen: &Seen| seen.missed + 1 >= MISSED_MAX && !shown.contains(digest);
        let dropped = self.items.iter().filter(|(digest, seen)| is_dropped(digest, seen));
        let mut dropped: Vec<Digest> = dropped.map(|(digest, _)| *digest).collect();
        dropped.sort_unstable();
        dropped
    }

    /// The map to write after a fetch with this `version`.
    ///
    /// `shown` is every item of the fetch that was accepted or is unchanged, with its current fingerprint; so it covers
    /// what the enqueue script appended meanwhile. The others count one more fetch without them, and leave at
    /// [`MISSED_MAX`]; not after a fetch that is not `complete` (cut short, recovered) or shows nothing, which proves
    /// nothing about them.
    ///
    /// A record of a newer feedmill keeps its fingerprint: ours would hide a change that only the newer one can tell.
    pub fn compact(&self, shown: &[(Digest, Fingerprint)], complete: bool, version: u64) -> Vec<u8> {
        let misses_count = complete && !shown.is_empty();
        let mut items: HashMap<Digest, Seen> = HashMap::with_capacity(shown.len() + self.items.len());
        let mut order = Vec::with_capacity(shown.len() + self.items.len());
        for (digest, fingerprint) in shown {
            let ours = Seen { fingerprint: *fingerprint, normaliser: NORMALISER_VERSION, missed: 0 };
            let theirs = self.items.get(digest).filter(|seen| seen.normaliser > NORMALISER_VERSION);
            let seen = theirs.map_or(ours, |theirs| Seen { missed: 0, ..*theirs });
            match items.entry(*digest) {
                Entry::Vacant(vacant) => {
                    vacant.insert(seen);
                    order.push(*digest);
                }
                Entry::Occupied(mut twice) => {
                    twice.insert(seen);
                }
            }
        }
        let mut missing: Vec<(Digest, Seen)> =
            self.items.iter().filter(|(digest, _)| !items.contains_key(digest)).map(|(d, seen)| (*d, *seen)).collect();
        // Sorted, so that the same map is the same bytes.
        missing.sort_unstable_by_key(|(digest, _)| *digest);
        let mut bytes = Vec::with_capacity(RECORD_BYTES * (1 + order.len() + missing.len()));
        bytes.extend(header(version));
        for digest in order {
            bytes.extend(encode(digest, items[&digest]));
        }
        for (digest, mut seen) in missing {
            seen.missed += u8::from(misses_count);
            if seen.missed < MISSED_MAX {
                bytes.extend(encode(digest, seen));
            }
        }
        bytes
    }
}

/// The record of an item that was just shown.
pub fn record(digest: Digest, fingerprint: Fingerprint) -> [u8; RECORD_BYTES] {
    encode(digest, Seen { fingerprint, normaliser: NORMALISER_VERSION, missed: 0 })
}

/// The record that takes an item out.
pub fn forget_record(digest: Digest) -> [u8; RECORD_BYTES] {
    record(digest, FORGET)
}

fn encode(digest: Digest, seen: Seen) -> [u8; RECORD_BYTES] {
    let [d0, d1, d2, d3, d4, d5, d6, d7] = digest.0;
    let [f0, f1, f2, f3, f4, f5, f6] = seen.fingerprint.0;
    [d0, d1, d2, d3, d4, d5, d6, d7, f0, f1, f2, f3, f4, f5, f6, seen.normaliser << 4 | seen.missed]
}

/// What an empty map after fetch `version` consists of.
pub fn header(version: u64) -> [u8; RECORD_BYTES] {
    let [v0, v1, v2, v3, v4, v5, v6, v7] = version.to_be_bytes();
    [FORMAT, 0, 0, 0, 0, 0, 0, 0, v0, v1, v2, v3, v4, v5, v6, v7]
}

/// The version of the fetch that last wrote the map; `None` when the bytes are no map.
pub fn fetch_version(bytes: &[u8]) -> Option<u64> {
    let header = bytes.first_chunk::<RECORD_BYTES>().filter(|header| header[0] == FORMAT)?;
    header.last_chunk().map(|version| u64::from_be_bytes(*version))
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::{
        Class, Digest, FORGET, Fingerprint, MISSED_MAX, NORMALISER_VERSION, RECORD_BYTES, Seen, SeenMap, encode,
        fetch_version, forget_record, header, record,
    };

    const VERSION: u64 = 0x0006_4123_4567_89AB;

    fn digest(n: u8) -> Digest {
        Digest::of(&[n])
    }

    fn print(n: u8) -> Fingerprint {
        Fingerprint([n; 7])
    }

    fn bytes(records: &[[u8; RECORD_BYTES]]) -> Vec<u8> {
        [header(VERSION).as_slice(), records.concat().as_slice()].concat()
    }

    fn decode(records: &[[u8; RECORD_BYTES]]) -> SeenMap {
        SeenMap::decode(Some(&bytes(records)))
    }

    fn classify(map: &SeenMap, digest: Digest, fingerprint: Fingerprint) -> Class {
        map.classify(digest, |version| (version == NORMALISER_VERSION).then_some(fingerprint))
    }

    #[test]
    fn an_item_is_new_then_unchanged_then_changed() {
        let map = SeenMap::decode(None);
        assert_eq!(classify(&map, digest(1), print(1)), Class::New);
        let map = decode(&[record(digest(1), print(1))]);
        assert_eq!(classify(&map, digest(1), print(1)), Class::Unchanged);
        assert_eq!(classify(&map, digest(1), print(2)), Class::Changed);
        assert_eq!(classify(&map, digest(2), print(1)), Class::New);
    }

    #[test]
    fn the_last_record_of_a_digest_wins() {
        let map = decode(&[record(digest(1), print(1)), record(digest(2), print(2)), record(digest(1), print(3))]);
        assert_eq!(classify(&map, digest(1), print(3)), Class::Unchanged);
        assert_eq!(map.len(), 2);
    }

    #[test]
    fn a_forgotten_item_is_new_again() {
        let map = decode(&[record(digest(1), print(1)), forget_record(digest(1))]);
        assert_eq!(classify(&map, digest(1), print(1)), Class::New);
        let map = decode(&[forget_record(digest(1)), record(digest(1), print(1))]);
        assert_eq!(classify(&map, digest(1), print(1)), Class::Unchanged);
    }

    #[test]
    fn the_layout_is_fixed() {
        assert_eq!(
            bytes(&[encode(
                Digest([1, 2, 3, 4, 5, 6, 7, 8]),
                Seen { fingerprint: print(9), normaliser: 1, missed: 3 }
            )]),
            [
                0xF1, 0, 0, 0, 0, 0, 0, 0, 0x00, 0x06, 0x41, 0x23, 0x45, 0x67, 0x89, 0xAB, // header
                1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 9, 9, 9, 9, 0x13, // record
            ]
        );
        assert_eq!(fetch_version(&bytes(&[])), Some(VERSION));
        assert_eq!(&forget_record(digest(1))[8..15], FORGET.0);
    }

    #[test]
    fn what_cannot_be_read_is_an_empty_map_that_says_so() {
        for damaged in [b"".as_slice(), b"x", &[0; 16], &bytes(&[record(digest(1), print(1))])[..31]] {
            let map = SeenMap::decode(Some(damaged));
            assert!(map.is_damaged() && map.is_empty());
        }
        assert!(!SeenMap::decode(None).is_damaged());
        assert_eq!(fetch_version(&[0xF1; 15]), None);
    }

    #[test]
    fn an_item_leaves_after_ten_complete_fetches_without_it() {
        let mut stored = bytes(&[record(digest(1), print(1)), record(digest(2), print(2))]);
        for fetch in 1..=u64::from(MISSED_MAX) {
            assert_eq!(SeenMap::decode(Some(&stored)).len(), 2, "before fetch {fetch}");
            stored = SeenMap::decode(Some(&stored)).compact(&[(digest(2), print(2))], true, fetch);
            assert_eq!(fetch_version(&stored), Some(fetch));
        }
        let map = SeenMap::decode(Some(&stored));
        assert_eq!(classify(&map, digest(1), print(1)), Class::New);
        assert_eq!(classify(&map, digest(2), print(2)), Class::Unchanged);
    }

    #[test]
    fn an_incomplete_or_empty_fetch_drops_nothing() {
        let mut stored = bytes(&[record(digest(1), print(1)), record(digest(2), print(2))]);
        for fetch in 0..30 {
            stored = SeenMap::decode(Some(&stored)).compact(&[(digest(2), print(2))], false, fetch);
            stored = SeenMap::decode(Some(&stored)).compact(&[], true, fetch);
        }
        assert_eq!(SeenMap::decode(Some(&stored)).len(), 2);
    }

    #[test]
    fn an_item_that_comes_back_starts_counting_again() {
        let mut stored = bytes(&[record(digest(1), print(1))]);
        for fetch in 0..40 {
            let shown = if fetch % 9 == 8 { [(digest(1), print(1))] } else { [(digest(2), print(2))] };
            stored = SeenMap::decode(Some(&stored)).compact(&shown, true, fetch);
            assert_eq!(classify(&SeenMap::decode(Some(&stored)), digest(1), print(1)), Class::Unchanged);
        }
    }

    #[test]
    fn a_record_of_an_older_normaliser_is_compared_in_its_own_version() {
        let old = encode(digest(1), Seen { fingerprint: print(7), normaliser: 0, missed: 0 });
        let map = decode(&[old]);
        let unchanged = map.classify(digest(1), |version| Some(if version == 0 { print(7) } else { print(1) }));
        assert_eq!(unchanged, Class::Unchanged);
        let changed = map.classify(digest(1), |version| Some(if version == 0 { print(8) } else { print(1) }));
        assert_eq!(changed, Class::Changed);
        let upgraded = SeenMap::decode(Some(&map.compact(&[(digest(1), print(1))], true, 1)));
        assert_eq!(classify(&upgraded, digest(1), print(1)), Class::Unchanged);
    }

    #[test]
    fn a_record_of_a_newer_normaliser_counts_as_unchanged_and_is_left_to_the_newer_one() {
        let newer = Seen { fingerprint: print(7), normaliser: NORMALISER_VERSION + 1, missed: 2 };
        let map = decode(&[encode(digest(1), newer)]);
        assert_eq!(classify(&map, digest(1), print(1)), Class::Unchanged);
        let kept = SeenMap::decode(Some(&map.compact(&[(digest(1), print(1))], true, 1)));
        assert_eq!(kept.items[&digest(1)], Seen { missed: 0, ..newer });
    }

    proptest! {
        #[test]
        fn any_bytes_decode_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let map = SeenMap::decode(Some(&bytes));
            map.compact(&[(digest(1), print(1))], true, 1);
            let shaped = [header(1).as_slice(), &bytes[..bytes.len() / 16 * 16]].concat();
            SeenMap::decode(Some(&shaped)).compact(&[(digest(1), print(1))], true, 1);
        }

        #[test]
        fn the_map_agrees_with_a_model(
            fetches in prop::collection::vec(
                (prop::collection::btree_map(0u8..8, 0u8..3, 0..6), any::<[bool; 2]>(), prop::option::of(0u8..8)),
                0..60,
            ),
        ) {
            // Item → content, complete fetches without it.
            let mut model: HashMap<u8, (u8, u8)> = HashMap::new();
            let mut stored: Option<Vec<u8>> = None;
            for (number, (shown, [complete, dies], forgotten)) in (1..).zip(fetches) {
                let map = SeenMap::decode(stored.as_deref());
                prop_assert_eq!(map.len(), model.len());
                let mut after = stored.take().unwrap_or_else(|| header(0).to_vec());
                for (item, content) in &shown {
                    let expected = match model.get(item) {
                        None => Class::New,
                        Some((seen, _)) if seen == content => Class::Unchanged,
                        Some(_) => Class::Changed,
                    };
                    prop_assert_eq!(classify(&map, digest(*item), print(*content)), expected);
                    if expected != Class::Unchanged {
                        after.extend(record(digest(*item), print(*content)));
                        model.insert(*item, (*content, 0));
                    }
                }
                // A fetch that dies here leaves what was appended.
                if !dies {
                    let records: Vec<_> = shown.iter().map(|(i, content)| (digest(*i), print(*content))).collect();
                    after = map.compact(&records, complete, number);
                    prop_assert_eq!(fetch_version(&after), Some(number));
                    model.retain(|item, (_, missed)| {
                        let is_shown = shown.contains_key(item);
                        *missed = if is_shown { 0 } else { *missed + u8::from(complete && !shown.is_empty()) };
                        *missed < MISSED_MAX
                    });
                }
                if let Some(item) = forgotten {
                    after.extend(forget_record(digest(item)));
                    model.remove(&item);
                }
                stored = Some(after);
            }
        }
    }
}
