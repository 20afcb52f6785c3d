//! The SYN cache (RFC 4987 s3.3): connections in SYN-RECEIVED, in an entry of 64 bytes each instead
//! of a slot of the table. Only who has answered our SYN-ACK gets a slot, so that SYNs from nowhere
//! can fill this cache and nothing else. Fixed in size from the start.
//!
//! An entry is free; filed; or leaving: its connection is gone, but the queue of those whose
//! SYN-ACK is due has still to come to it.

use super::index::Index;
use super::queue::{LAST, Linked, Queue, UNQUEUED};
use crate::flow::FlowKey;
use crate::rng::Secret;
use crate::sys::pages::slab;
use crate::tcp::SynReceived;
use crate::wire::Family;
use crate::wire::ethernet::Mac;

/// Its next hop is none that we know: the SYN-ACK goes where the SYN came from.
pub const NO_NEIGHBOR: u16 = u16::MAX;

/// Connections that are no flood, however small the cache; as many as for Linux.
const A_FEW: usize = 8;

/// The connections of an engine that peers have opened and not yet completed.
pub struct SynCache {
    secret: Secret,
    index: Index,
    entries: Vec<Entry>,
    /// Entries whose SYN-ACK is due, in the order in which it became so.
    due: Queue,
    /// The free entry to be taken next, the one freed last; each names the next by its link.
    free: u32,
    free_count: usize,
    /// The entry that gives way next.
    hand: u32,
}

#[derive(Clone, Copy)]
struct Entry {
    syn: SynReceived,
    link: u32,
    /// Where the SYN came from.
    from: Mac,
}

const _: () = assert!(size_of::<Entry>() <= 64);

impl Linked for Entry {
    fn link(&self) -> u32 {
        self.link
    }

    fn set_link(&mut self, link: u32) {
        self.link = link;
    }
}

impl SynCache {
    /// Bytes of an entry, beside its share of the index and its timer.
    pub const ENTRY_BYTES: usize = size_of::<Entry>();

    /// Room for `max`, found by the same secret as in the table.
    pub fn new(max: u32, secret: Secret) -> SynCache {
        assert!(max < LAST);
        let free = Entry { syn: SynReceived::NONE, link: UNQUEUED, from: Mac([0; 6]) };
        let mut entries = slab(free, max as usize);
        for (place, entry) in entries.iter_mut().enumerate() {
            entry.link = if place + 1 == max as usize { LAST } else { place as u32 + 1 };
        }
        SynCache {
            secret,
            index: Index::new(max),
            entries,
            due: Queue::new(),
            free: 0,
            free_count: max as usize,
            hand: 0,
        }
    }

    /// Asks for the cache line where a hash is looked for first, if anything is there.
    #[inline]
    pub fn prefetch_hashed(&self, hash: u64) {
        if self.index.len() > 0 {
            self.index.prefetch(hash);
        }
    }

    /// The place that most likely has this hash, unless there are so many that it is far away.
    #[inline]
    pub fn guess(&self, hash: u64) -> Option<u32> {
        self.index.guess(hash)
    }

    /// The place of `key`, whose hash is `hash`.
    #[inline]
    pub fn find(&self, key: &FlowKey, hash: u64) -> Option<u32> {
        if self.index.len() == 0 {
            return None;
        }
        self.index.find(hash, |place| self.entries[place as usize].syn.key == *key)
    }

    /// Files the connection that has this key, whose SYN came from `from`; what is to be kept of it
    /// is to be written there. The caller has seen that there is room, and that its key is not
    /// filed.
    ///
    /// # Panics
    /// If the cache is full.
    #[inline(always)]
    pub fn insert(&mut self, key: &FlowKey, from: Mac) -> u32 {
        assert!(!self.is_full());
        let place = self.free;
        let entry = &mut self.entries[place as usize];
        self.free = entry.link;
        self.free_count -= 1;
        (entry.link, entry.from, entry.syn.key) = (UNQUEUED, from, *key);
        self.index.insert(key.bucket(&self.secret), place);
        place
    }

    /// What is filed at a place.
    #[inline]
    pub fn get(&self, place: u32) -> &SynReceived {
        &self.entries[place as usize].syn
    }

    /// The same, to be changed: all but its key.
    #[inline]
    pub fn get_mut(&mut self, place: u32) -> &mut SynReceived {
        &mut self.entries[place as usize].syn
    }

    /// Where the SYN of what is filed at a place came from.
    pub fn from(&self, place: u32) -> Mac {
        self.entries[place as usize].from
    }

    /// Takes out what is filed at a place, by the hash of its key.
    ///
    /// # Panics
    /// If nothing is.
    #[inline(always)]
    pub fn remove(&mut self, place: u32, hash: u64) {
        let entry = &mut self.entries[place as usize];
        entry.syn.key = FlowKey::NONE;
        let queued = entry.link != UNQUEUED;
        assert!(self.index.remove(hash, place), "place {place} is filed");
        if !queued {
            self.release(place);
        }
    }

    /// The SYN-ACK of what is filed at a place is due.
    pub fn owe(&mut self, place: u32) {
        self.due.push(&mut self.entries, place);
    }

    /// The first whose SYN-ACK is due; it stays.
    pub fn front(&mut self) -> Option<u32> {
        loop {
            let place = self.due.front()?;
            if self.is_filed(place) {
                return Some(place);
            }
            self.due.pop(&mut self.entries);
            self.release(place);
        }
    }

    /// Its SYN-ACK goes out.
    pub fn pop(&mut self) {
        self.due.pop(&mut self.entries);
    }

    /// Something may be due.
    pub fn owes(&self) -> bool {
        !self.due.is_empty()
    }

    /// True if a place has a connection.
    pub fn is_filed(&self, place: u32) -> bool {
        self.entries[place as usize].syn.key != FlowKey::NONE
    }

    pub fn is_full(&self) -> bool {
        self.free_count == 0
    }

    /// True if more than half of it is taken, and more than a few: what is not answered soon is a
    /// flood.
    pub fn is_pressed(&self) -> bool {
        self.entries.len() - self.free_count > (self.entries.len() / 2).max(A_FEW)
    }

    /// A connection that is to give way to another, a different one each time: in a flood, nearly
    /// always a part of it. `None` if the entry whose turn it is has none.
    pub fn victim(&mut self) -> Option<u32> {
        let place = self.hand;
        self.hand = if place as usize + 1 == self.entries.len() { 0 } else { place + 1 };
        self.is_filed(place).then_some(place)
    }

    /// Number of connections.
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Number of entries.
    pub fn max(&self) -> usize {
        self.entries.len()
    }

    /// Bytes of memory, the index included.
    pub fn bytes(&self) -> usize {
        size_of_val(&self.entries[..]) + self.index.bytes()
    }

    /// Every connection is found by its key, and no entry is lost. Answers how many ends have an
    /// address with a number, and how many have a next hop that we know.
    ///
    /// # Panics
    /// If not: a bug of ours.
    pub fn check(&self) -> (usize, usize) {
        let (mut filed, mut leaving, mut numbers, mut neighbors) = (0, 0, 0, 0);
        let mut free = vec![false; self.entries.len()];
        let mut next = self.free;
        for _ in 0..self.free_count {
            free[next as usize] = true;
            next = self.entries[next as usize].link;
        }
        for (place, Entry { syn, .. }) in self.entries.iter().enumerate() {
            if !self.is_filed(place as u32) {
                leaving += usize::from(!free[place]);
                continue;
            }
            filed += 1;
            let found = self.find(&syn.key, syn.key.bucket(&self.secret));
            assert_eq!(found, Some(place as u32), "{syn:?} is found");
            numbers += if syn.key.family() == Family::V6 { 2 } else { 0 };
            neighbors += usize::from(syn.neighbor != NO_NEIGHBOR);
        }
        assert_eq!(filed, self.len());
        assert_eq!(self.free_count + filed + leaving, self.max());
        (numbers, neighbors)
    }

    fn release(&mut self, place: u32) {
        self.entries[place as usize].link = self.free;
        self.free = place;
        self.free_count += 1;
    }
}
