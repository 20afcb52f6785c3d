//! The bytes of what arrived ahead of a gap: pages of fixed size, taken on demand and given back.
//!
//! A path has a ring of page numbers, found by sequence number, so that a byte's place takes no
//! search. All memory is set aside at start and touched only when it is used. What a range is, and
//! when its pages may go, `reassembly` knows. Invariant: a page is in one ring, once, or free.

use super::Seq;
use super::reassembly::Range;

/// Bytes of a page: of what one segment ahead of a gap takes, less than two thirds are wasted.
const PAGE_BYTES: u32 = 4096;

/// Page numbers in all rings together, at the most: 256 MB. With so large a window that it is not
/// enough for the whole of it, text far ahead is dropped.
const PLACES_MAX: u32 = 1 << 26;

/// No page, in a ring.
const NONE: u32 = 0;

/// The pages of an engine, and the ring of each path.
#[derive(Debug)]
pub(super) struct Pages {
    bytes: Vec<u8>,
    /// Numbers of pages that hold nothing, from 1.
    free: Vec<u32>,
    rings: Vec<u32>,
    /// Places of a ring, a power of two.
    places: u32,
}

impl Pages {
    /// Bytes of memory.
    pub fn bytes(&self) -> usize {
        self.bytes.len() + size_of_val(&*self.rings)
    }

    /// `bytes` of pages for `paths` connections with windows of `window` bytes.
    pub fn new(paths: u16, window: u32, bytes: u32) -> Pages {
        let paths = u32::from(paths);
        let affordable = (PLACES_MAX / paths.max(1)).max(2);
        // The window need not begin where a page does.
        let wanted = (window / PAGE_BYTES + 2).next_power_of_two();
        let places = wanted.min(1 << affordable.ilog2());
        let count = (bytes / PAGE_BYTES).min(paths.saturating_mul(places));
        Pages {
            bytes: vec![0; count as usize * PAGE_BYTES as usize],
            free: (1..=count).rev().collect(),
            rings: vec![NONE; (paths * places) as usize],
            places,
        }
    }

    /// How far the end of a range may be past the next number in order.
    pub fn reach_bytes(&self) -> u32 {
        (self.places - 1) * PAGE_BYTES
    }

    /// Gives `path` every page that `range` touches and has none yet; all, or none.
    pub fn reserve(&mut self, path: u16, range: Range) -> bool {
        let missing = self.places_of(path, range).filter(|&at| self.rings[at] == NONE).count();
        if missing > self.free.len() {
            return false;
        }
        for at in self.places_of(path, range) {
            if self.rings[at] == NONE {
                self.rings[at] = self.free.pop().expect("counted above");
            }
        }
        true
    }

    /// Writes `bytes` at `start`, where there are pages.
    ///
    /// # Panics
    /// If there are none: a bug of ours.
    pub fn write(&mut self, path: u16, start: Seq, mut bytes: &[u8]) {
        let mut at = start;
        while !bytes.is_empty() {
            let (first, room) = self.place_in_memory(path, at);
            let (now, later) = bytes.split_at(bytes.len().min(room));
            self.bytes[first..first + now.len()].copy_from_slice(now);
            (bytes, at) = (later, at.plus(now.len() as u32));
        }
    }

    /// The bytes of `range`, page after page.
    pub fn read(&self, path: u16, range: Range) -> impl Iterator<Item = &[u8]> {
        let Range { start: mut at, end } = range;
        std::iter::from_fn(move || {
            let left = end.since(at) as usize;
            (left > 0).then(|| {
                let (first, room) = self.place_in_memory(path, at);
                let len = left.min(room);
                at = at.plus(len as u32);
                &self.bytes[first..first + len]
            })
        })
    }

    /// Takes back the pages that `range` touches and none of `others`, which lie apart from it.
    pub fn release(
        &mut self,
        path: u16,
        range: Range,
        others: impl Iterator<Item = Range> + Clone,
    ) {
        let places = self.places_of(path, range);
        let last = places.clone().last();
        for (step, at) in places.enumerate() {
            // Only those at its ends are shared.
            let at_end = step == 0 || Some(at) == last;
            let shares = |other| self.places_of(path, other).any(|place| place == at);
            if self.rings[at] != NONE && !(at_end && others.clone().any(shares)) {
                self.free.push(std::mem::replace(&mut self.rings[at], NONE));
            }
        }
    }

    /// Pages that hold nothing.
    pub fn free(&self) -> usize {
        self.free.len()
    }

    /// Pages in the ring of `path`.
    pub fn taken(&self, path: u16) -> usize {
        let (places, first) = (self.places as usize, usize::from(path) * self.places as usize);
        self.rings[first..first + places].iter().filter(|&&page| page != NONE).count()
    }

    /// All pages.
    pub fn max(&self) -> usize {
        self.bytes.len() / PAGE_BYTES as usize
    }

    /// The places in `rings` of the pages that `range` touches.
    fn places_of(&self, path: u16, range: Range) -> impl Iterator<Item = usize> + Clone + use<> {
        let (ring, mask) = (u32::from(path) * self.places, self.places - 1);
        let first = range.start.0 / PAGE_BYTES;
        let count = match range.end.since(range.start) {
            0 => 0,
            len => (range.start.0 % PAGE_BYTES + len).div_ceil(PAGE_BYTES),
        };
        (0..count).map(move |step| (ring + (first.wrapping_add(step) & mask)) as usize)
    }

    /// Where the byte at `at` stands in `bytes`, and how many follow it in its page.
    fn place_in_memory(&self, path: u16, at: Seq) -> (usize, usize) {
        let place = (at.0 / PAGE_BYTES) & (self.places - 1);
        let page = self.rings[(u32::from(path) * self.places + place) as usize];
        assert!(page != NONE, "no page at {at:?}");
        let within = (at.0 % PAGE_BYTES) as usize;
        ((page - 1) as usize * PAGE_BYTES as usize + within, PAGE_BYTES as usize - within)
    }
}
