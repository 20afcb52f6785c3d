//! Where the hashes of many slots are filed: a table of cache lines.
//!
//! A line has twelve places, each with a mark, which is eight bits of the hash, and a slot. What is
//! looked for and is not there, as each new connection is, costs the reading of one line in most
//! cases, and so does what is there: marks that differ rule all others out without a look at whose
//! they are.
//!
//! What finds its line full goes on to the next one that is not, and each line that it passes
//! counts it: a look-up goes on where others did, and ends where none did, or after all lines. Who
//! leaves takes itself out of those counts. So there are no tombstones, nothing moves and nothing
//! is ever rehashed. (This is how F14 of Meta's folly resolves overflow.)

use crate::sys::cpu::prefetch;
use crate::sys::pages::{slab, zeroed};

/// Slots filed in cache lines.
pub struct Lines {
    lines: Vec<Line>,
    filed: usize,
}

/// Marks of eight places; those of four, and how many passed by; slots of twelve.
type Line = ([u64; 2], [u32; PLACES]);

const _: () = assert!(size_of::<Line>() == 64);

const PLACES: usize = 12;

/// Of twelve places eight are taken when as many slots are filed as there may be: then one line in
/// fourteen has been passed by.
const TAKEN_MAX: usize = 8;

/// Of lines [for few](Lines::for_few). What is touched at the start makes nobody wait later; but
/// where ten million connections are to be held, few are ever in TIME-WAIT.
const TOUCHED_MAX_BYTES: usize = 64 << 20;

/// One in each byte.
const ONES: u64 = 0x0101_0101_0101_0101;

/// One who passed by, in the second word.
const PASSED: u64 = 1 << 32;

impl Lines {
    /// Room for `max` slots, touched now.
    pub fn new(max: usize) -> Lines {
        Lines { lines: slab(Line::default(), lines(max)), filed: 0 }
    }

    /// Room for `max` slots of which there may never be many: what would take more than
    /// [`TOUCHED_MAX_BYTES`] costs nothing until it is used.
    pub fn for_few(max: usize) -> Lines {
        match lines(max) * size_of::<Line>() <= TOUCHED_MAX_BYTES {
            true => Lines::new(max),
            false => Lines { lines: zeroed(lines(max)), filed: 0 },
        }
    }

    /// The slot with this tag for which `is_it` holds; it is asked about others, rarely.
    #[inline(always)]
    pub fn find(&self, tag: u32, is_it: impl Fn(u32) -> bool) -> Option<u32> {
        let home = self.home(tag);
        let mut at = home;
        loop {
            let line = &self.lines[at];
            if let Some(place) = place_of(line, mark(tag), &is_it) {
                return Some(line.1[place]);
            }
            if line.0[1] < PASSED {
                return None;
            }
            at = self.after(at);
            if at == home {
                return None;
            }
        }
    }

    /// Files a slot that is not filed.
    ///
    /// # Panics
    /// If every place is taken: the caller files fewer.
    #[inline]
    pub fn insert(&mut self, tag: u32, slot: u32) {
        assert!(self.filed < self.lines.len() * PLACES);
        self.filed += 1;
        let mut at = self.home(tag);
        loop {
            let line = &mut self.lines[at];
            if let Some(place) = place_of(line, NO_MARK, |_| true) {
                put(line, place, mark(tag), slot);
                return;
            }
            line.0[1] += PASSED;
            at = self.after(at);
        }
    }

    /// Takes a slot out; false if it is not filed under this tag.
    #[inline(always)]
    pub fn remove(&mut self, tag: u32, filed: u32) -> bool {
        let home = self.home(tag);
        let mut at = home;
        loop {
            let line = &mut self.lines[at];
            if let Some(place) = place_of(line, mark(tag), |slot| slot == filed) {
                put(line, place, NO_MARK, 0);
                break;
            }
            if line.0[1] < PASSED {
                return false;
            }
            at = self.after(at);
            if at == home {
                return false;
            }
        }
        self.filed -= 1;
        let mut passed = home;
        while passed != at {
            self.lines[passed].0[1] -= PASSED;
            passed = self.after(passed);
        }
        true
    }

    /// Asks for the cache line where a tag is looked for first.
    #[inline]
    pub fn prefetch(&self, tag: u32) {
        prefetch(&self.lines[self.home(tag)]);
    }

    /// Number of filed slots.
    #[inline]
    pub fn len(&self) -> usize {
        self.filed
    }

    #[inline]
    pub fn is_empty(&self) -> bool {
        self.filed == 0
    }

    /// True while one more leaves it as sparse as look-ups want it.
    pub fn has_room(&self) -> bool {
        lines(self.filed + 1) <= self.lines.len()
    }

    /// Bytes of memory.
    pub fn bytes(&self) -> usize {
        size_of_val(&self.lines[..])
    }

    /// The line where a tag belongs.
    #[inline]
    fn home(&self, tag: u32) -> usize {
        ((u64::from(tag) * self.lines.len() as u64) >> 32) as usize
    }

    #[inline]
    fn after(&self, line: usize) -> usize {
        if line + 1 == self.lines.len() { 0 } else { line + 1 }
    }
}

/// What of a hash the lines are told.
#[inline]
pub fn tag(hash: u64) -> u32 {
    (hash >> 32) as u32
}

fn lines(max: usize) -> usize {
    max.div_ceil(TAKEN_MAX).max(1)
}

/// Of a place without a slot.
const NO_MARK: u8 = 0;

/// What the line of a tag shows of it, which its home does not: its last bits. No mark differs from
/// [`NO_MARK`] in the last bit alone.
#[inline]
fn mark(tag: u32) -> u8 {
    tag.to_le_bytes()[0].max(2)
}

/// The first place of a line with this mark and a slot for which `is_it` holds.
#[inline(always)]
fn place_of(line: &Line, mark: u8, is_it: impl Fn(u32) -> bool) -> Option<usize> {
    let alike = u64::from(mark) * ONES;
    for (word, bytes) in [(0, ONES << 7), (1, (PASSED - 1) & ONES << 7)] {
        // The highest bit of the first byte that is zero, and perhaps of others after it that are
        // one (Hacker's Delight 6-1): these have another mark, and so are of others.
        let differ = line.0[word] ^ alike;
        let mut found = differ.wrapping_sub(ONES) & !differ & bytes;
        while found != 0 {
            let place = word * 8 + found.trailing_zeros() as usize / 8;
            if is_it(line.1[place]) {
                return Some(place);
            }
            found &= found - 1;
        }
    }
    None
}

#[inline]
fn put(line: &mut Line, place: usize, mark: u8, slot: u32) {
    let (word, shift) = (&mut line.0[place / 8], place % 8 * 8);
    *word = *word & !(0xff << shift) | u64::from(mark) << shift;
    line.1[place] = slot;
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        /// Tags of few lines and marks, so that lines overflow, marks meet, and the last line is
        /// followed by the first.
        #[test]
        fn it_finds_what_a_map_finds_and_forgets_all(
            steps in prop::collection::vec((0u8..5, 0u32..36, 0u32..4, 0u32..6), 1..400),
        ) {
            let mut lines = Lines::new(24);
            let mut filed: BTreeMap<u32, u32> = BTreeMap::new();
            for (act, slot, line, mark) in steps {
                let tag = line << 30 | mark;
                match filed.get(&slot).copied() {
                    None if act < 3 => {
                        lines.insert(tag, slot);
                        filed.insert(slot, tag);
                    }
                    None => prop_assert!(!lines.remove(tag, slot)),
                    Some(tag) if act > 2 => {
                        prop_assert!(lines.remove(tag, slot));
                        filed.remove(&slot);
                    }
                    Some(_) => {}
                }
                prop_assert_eq!(lines.len(), filed.len());
                prop_assert_eq!(lines.has_room(), filed.len() < 24);
                for slot in 0..36 {
                    let tag = filed.get(&slot).copied();
                    let found = lines.find(tag.unwrap_or(1 << 28), |found| found == slot);
                    prop_assert_eq!(found, tag.map(|_| slot));
                }
            }
            for (slot, tag) in filed {
                prop_assert!(lines.remove(tag, slot));
            }
            for line in lines.lines {
                prop_assert_eq!(line.0, [0, 0]);
            }
        }
    }

    #[test]
    fn a_look_up_ends_where_every_line_was_passed_by() {
        let mut lines = Lines::new(16);
        let (first, second) = (5, 1 << 31 | 5);
        (0..13).for_each(|slot| lines.insert(first, slot));
        assert!(lines.remove(first, 0));
        (13..25).for_each(|slot| lines.insert(second, slot));
        assert!(lines.lines.iter().all(|line| line.0[1] >= PASSED));
        for tag in [first, second] {
            assert_eq!(lines.find(tag, |slot| slot == 0), None);
            assert!(!lines.remove(tag, 0));
        }
    }

    #[test]
    fn few_lines_are_passed_by_when_all_is_filed() {
        let tag =
            |slot: u32| slot.wrapping_mul(0x9e37_79b9).rotate_left(15).wrapping_mul(0x85eb_ca6b);
        let mut lines = Lines::new(40_000);
        (0..40_000).for_each(|slot| lines.insert(tag(slot), slot));
        assert!(!lines.has_room());
        let passed = lines.lines.iter().filter(|line| line.0[1] >= PASSED).count();
        assert!(passed * 10 < lines.lines.len(), "{passed} of {}", lines.lines.len());
        assert!((0..40_000).all(|slot| lines.find(tag(slot), |it| it == slot) == Some(slot)));
        assert!((40_000..80_000).all(|slot| lines.find(tag(slot), |it| it == slot).is_none()));
    }
}
