//! Where a hash is filed: slots in arrays that never grow.
//!
//! What comes goes into a small array first, which stays in the processor's caches: a large one is
//! read at random, and each connection that comes and goes would wait for memory again and again.
//! Where the small one is full, what comes takes the place of another, which moves on into the
//! large one ([`Lines`]): so those that stay end up there, and those that come and go never do,
//! unless they are many. What rests moves there at once.
//!
//! The small one is filed in by linear probing. An entry is eight bytes, the hash's upper half and
//! the slot. A hash's home is its place in proportion: entries stand in order of hash but for what
//! a full neighbourhood pushed on. Removing moves what was pushed on back, so there are no
//! tombstones, nothing is ever rehashed, and the millionth insertion costs what the first did.
//!
//! Invariant: between an entry's home and its place there is no empty one.

use super::lines::{Lines, tag};
use crate::sys::pages::slab;

/// Slots filed by hash, of which the caller has the keys.
pub struct Index {
    /// Where what comes goes.
    near: Probed,
    far: Lines,
    /// Slots that `near` takes.
    near_max: usize,
    /// The place in `near` whose entry moves on next.
    hand: usize,
}

/// Slots filed in one array.
struct Probed {
    /// Each an [`Entry`].
    entries: Vec<u64>,
    filed: usize,
}

/// A hash's upper half, and a slot or none.
#[derive(Clone, Copy, Debug)]
struct Entry {
    tag: u32,
    slot: u32,
}

/// No slot's number.
const NO_SLOT: u32 = u32::MAX;

impl Entry {
    #[inline]
    fn of(word: u64) -> Entry {
        Entry { tag: (word >> 32) as u32, slot: (word as u32).wrapping_sub(1) }
    }

    #[inline]
    fn word(self) -> u64 {
        u64::from(self.tag) << 32 | u64::from(self.slot.wrapping_add(1))
    }
}

/// Slots that the small array takes at the most.
const NEAR_MAX: u32 = 1365;

/// Places in it for each of those, 32 KiB in all: a look-up reads one entry and a half on average
/// (Knuth, TAOCP 6.4).
const NEAR_PLACES: usize = 3;

impl Index {
    /// Room for `max` slots.
    pub fn new(max: u32) -> Index {
        Index::split(max, NEAR_MAX)
    }

    fn split(max: u32, near_max: u32) -> Index {
        let near_max = max.min(near_max);
        let near = Probed { entries: slab(0, near_max as usize * NEAR_PLACES + 2), filed: 0 };
        let far = Lines::new((max - near_max) as usize);
        Index { near, far, near_max: near_max as usize, hand: 0 }
    }

    /// The slot with this hash for which `is_it` holds.
    #[inline(always)]
    pub fn find(&self, hash: u64, is_it: impl Fn(u32) -> bool) -> Option<u32> {
        let near = self.near.find(hash, &is_it);
        if near.is_some() || self.far.is_empty() {
            return near;
        }
        self.far.find(tag(hash), &is_it)
    }

    /// The slot that most likely has this hash, of those that come and go.
    #[inline(always)]
    pub fn guess(&self, hash: u64) -> Option<u32> {
        self.near.find(hash, |_| true)
    }

    /// The slot that most likely has this hash, of those that stay.
    #[inline]
    pub fn guess_far(&self, hash: u64) -> Option<u32> {
        if self.far.is_empty() { None } else { self.far.find(tag(hash), |_| true) }
    }

    /// Files a slot that is not filed.
    ///
    /// # Panics
    /// If there are as many slots filed as places: the caller has fewer.
    #[inline]
    pub fn insert(&mut self, hash: u64, slot: u32) {
        let entry = Entry { tag: tag(hash), slot };
        if self.near.filed < self.near_max {
            self.near.insert(entry);
        } else {
            self.insert_among_many(entry);
        }
    }

    #[inline(never)] // Out of the way of what comes while few are filed.
    fn insert_among_many(&mut self, entry: Entry) {
        while self.near.entry(self.hand).slot == NO_SLOT {
            self.hand = self.near.after(self.hand);
        }
        let Entry { tag, slot } = self.near.entry(self.hand);
        self.far.insert(tag, slot);
        self.near.clear(self.hand);
        self.hand = self.near.after(self.hand);
        self.near.insert(entry);
    }

    /// Takes a slot out; false if it is not filed under this hash.
    #[inline(always)]
    pub fn remove(&mut self, hash: u64, slot: u32) -> bool {
        self.near.remove(hash, slot) || self.remove_far(hash, slot)
    }

    /// Has another slot filed instead of this one, among those that stay; false if this one is not
    /// filed under this hash.
    pub fn settle(&mut self, hash: u64, slot: u32, other: u32) -> bool {
        let filed = self.remove(hash, slot);
        if filed {
            let tag = tag(hash);
            match self.far.has_room() {
                true => self.far.insert(tag, other),
                false => self.near.insert(Entry { tag, slot: other }),
            }
        }
        filed
    }

    #[inline(never)] // Out of the way of what comes and goes.
    fn remove_far(&mut self, hash: u64, slot: u32) -> bool {
        self.far.remove(tag(hash), slot)
    }

    /// Asks for the cache line where a hash is looked for first, should it be of one that stays.
    /// The others are near.
    #[inline]
    pub fn prefetch(&self, hash: u64) {
        if !self.far.is_empty() {
            self.far.prefetch(tag(hash));
        }
    }

    /// Number of filed slots.
    pub fn len(&self) -> usize {
        self.near.filed + self.far.len()
    }

    /// Bytes of memory.
    pub fn bytes(&self) -> usize {
        self.near.bytes() + self.far.bytes()
    }
}

impl Probed {
    #[inline(always)]
    fn find(&self, hash: u64, is_it: impl Fn(u32) -> bool) -> Option<u32> {
        let tag = tag(hash);
        let mut place = self.home(tag);
        loop {
            let entry = self.entry(place);
            if entry.slot == NO_SLOT {
                return None;
            }
            if entry.tag == tag && is_it(entry.slot) {
                return Some(entry.slot);
            }
            place = self.after(place);
        }
    }

    #[inline]
    fn insert(&mut self, entry: Entry) {
        assert!(self.filed + 1 < self.entries.len() && entry.slot != NO_SLOT);
        let mut place = self.home(entry.tag);
        while self.entry(place).slot != NO_SLOT {
            place = self.after(place);
        }
        self.entries[place] = entry.word();
        self.filed += 1;
    }

    #[inline(always)]
    fn remove(&mut self, hash: u64, slot: u32) -> bool {
        let mut hole = self.home(tag(hash));
        while self.entry(hole).slot != slot {
            if self.entry(hole).slot == NO_SLOT {
                return false;
            }
            hole = self.after(hole);
        }
        self.clear(hole);
        true
    }

    /// Empties a place that is taken.
    #[inline]
    fn clear(&mut self, mut hole: usize) {
        let mut place = self.after(hole);
        while self.entry(place).slot != NO_SLOT {
            // What stands at its home, or was pushed on from beyond the hole, stays.
            let home = self.home(self.entry(place).tag);
            if self.distance(home, place) >= self.distance(hole, place) {
                self.entries[hole] = self.entries[place];
                hole = place;
            }
            place = self.after(place);
        }
        self.entries[hole] = 0;
        self.filed -= 1;
    }

    fn bytes(&self) -> usize {
        size_of_val(&self.entries[..])
    }

    #[inline]
    fn entry(&self, place: usize) -> Entry {
        Entry::of(self.entries[place])
    }

    #[inline]
    fn home(&self, tag: u32) -> usize {
        ((u64::from(tag) * self.entries.len() as u64) >> 32) as usize
    }

    #[inline]
    fn after(&self, place: usize) -> usize {
        if place + 1 == self.entries.len() { 0 } else { place + 1 }
    }

    /// Steps from one place on to another.
    #[inline]
    fn distance(&self, from: usize, to: usize) -> usize {
        if to >= from { to - from } else { to + self.entries.len() - from }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    impl Index {
        fn check(&self) {
            self.near.check();
        }
    }

    impl Probed {
        /// The invariant.
        fn check(&self) {
            for place in 0..self.entries.len() {
                let entry = self.entry(place);
                if entry.slot == NO_SLOT {
                    continue;
                }
                let mut between = self.home(entry.tag);
                while between != place {
                    assert_ne!(self.entry(between).slot, NO_SLOT, "a gap before place {place}");
                    between = self.after(between);
                }
            }
        }
    }

    proptest! {
        /// Hashes of a few places, so that runs meet, wrap and close over holes.
        #[test]
        fn it_finds_what_a_map_finds_whatever_comes_and_goes(
            near_max in 1u32..30,
            steps in prop::collection::vec((0u8..5, 0u32..24, 0u64..9), 1..300),
        ) {
            let mut index = Index::split(24, near_max);
            let mut filed: BTreeMap<u32, u64> = BTreeMap::new();
            for (act, slot, hash) in steps {
                let other = (slot + 7) % 24;
                let hash = hash << 61 | u64::from(slot);
                match (act, filed.get(&slot).copied()) {
                    (0..2, None) => {
                        index.insert(hash, slot);
                        filed.insert(slot, hash);
                    }
                    (0..2, Some(_)) => {}
                    (2..4, Some(hash)) => {
                        prop_assert!(index.remove(hash, slot));
                        filed.remove(&slot);
                    }
                    (2..4, None) => prop_assert!(!index.remove(hash, slot)),
                    (_, Some(hash)) if !filed.contains_key(&other) => {
                        prop_assert!(index.settle(hash, slot, other));
                        filed.remove(&slot);
                        filed.insert(other, hash);
                    }
                    (_, Some(_)) => {}
                    (_, None) => prop_assert!(!index.settle(hash, slot, other)),
                }
                index.check();
                prop_assert_eq!(index.len(), filed.len());
                for slot in 0..24 {
                    let hash = filed.get(&slot).copied();
                    let found = index.find(hash.unwrap_or(3 << 61), |found| found == slot);
                    prop_assert_eq!(found, hash.map(|_| slot));
                }
            }
        }
    }

    #[test]
    fn a_full_index_still_finds_and_misses() {
        let mut index = Index::split(1000, 300);
        let hash = |slot: u32| u64::from(slot).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (0..1000).for_each(|slot| index.insert(hash(slot), slot));
        index.check();
        assert!((0..1000).all(|slot| index.find(hash(slot), |it| it == slot) == Some(slot)));
        assert!((1000..2000).all(|slot| index.find(hash(slot), |it| it == slot).is_none()));
        assert!((0..1000).all(|slot| index.remove(hash(slot), slot)));
        assert_eq!(index.len(), 0);
    }
}
