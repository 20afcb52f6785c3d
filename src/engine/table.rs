//! The connection table: a keyed-hash index into slabs. No larger than it was made.
//!
//! A connection is in a slot, or idle and at rest in less memory. A slot is in one of three places:
//! free; filed (in the index, found by its key); or leaving (out of the index, but still queued
//! because it owes its last words). `filed + leaving + resting <= max` always.
//!
//! Slots have the numbers `0..max`, and places of rest those from `max` on.

use super::index::Index;
use super::queue::{LAST, Linked, UNQUEUED};
use crate::flow::{FlowKey, Hosts};
use crate::rng::Secret;
use crate::sys::cpu::prefetch;
use crate::sys::pages::reserved;
use crate::tcp::{Config, Idle, Paths, State, Tcb};
use crate::time::Instant;
use crate::wire::Family;

/// Slots hold a control block and the application's state `S` of one connection each; of that, `I`
/// is kept while the connection rests.
pub struct Table<S, I> {
    secret: Secret,
    index: Index,
    max: usize,
    /// Grow as they are used, within memory that was reserved at the start.
    pub tcbs: Vec<Tcb>,
    pub states: Vec<S>,
    pub paths: Paths,
    /// Each slot that is not free, and who waits elsewhere in TIME-WAIT, holds its addresses'
    /// numbers.
    pub hosts: Hosts,
    /// The free slot to be taken next, the one freed last; each names the one below it by its link.
    free: u32,
    /// Slots that are not free.
    taken: usize,
    /// By place of rest, less `max`. Grows as the slots do.
    resting: Vec<(Idle, I)>,
    /// Places of rest that are empty, the one that was left last on top.
    left: Vec<u32>,
}

/// Data paths at the most: connections that have more than a segment under way at a time. 23 MB.
const PATHS_MAX: u32 = 16_384;

/// Slots that are touched at the start, if there are so many, so that no page fault falls into a
/// run: 13 MB.
pub const READY_SLOTS: u32 = if cfg!(test) { 1 } else { 1 << 16 };

impl Linked for Tcb {
    #[inline]
    fn link(&self) -> u32 {
        self.link
    }

    #[inline]
    fn set_link(&mut self, link: u32) {
        self.link = link;
    }
}

impl<S: Copy + Default, I: Copy> Table<S, I> {
    /// Room for `max` connections and `hosts_max` IPv6 addresses.
    ///
    /// # Panics
    /// If `max` is zero or so large that a place's number would not fit, or `hosts_max` so large
    /// that an address's would not.
    pub fn new(max: u32, hosts_max: u32, secret: Secret, config: &Config) -> Table<S, I> {
        assert!(max > 0 && max < LAST / 2);
        let ready = max.min(READY_SLOTS);
        let (mut tcbs, mut states) = (reserved(max as usize), reserved(max as usize));
        tcbs.resize(ready as usize, Tcb::CLOSED);
        states.resize(ready as usize, S::default());
        for (slot, tcb) in (0..).zip(&mut tcbs) {
            tcb.link = if slot + 1 == ready { LAST } else { slot + 1 };
        }
        Table {
            secret,
            index: Index::new(max),
            max: max as usize,
            tcbs,
            states,
            paths: Paths::new(max.min(PATHS_MAX) as u16, config),
            hosts: Hosts::new(hosts_max, secret),
            free: 0,
            taken: 0,
            resting: reserved(max as usize),
            left: reserved(max as usize),
        }
    }

    /// What [`Table::find_hashed`] looks for.
    #[inline]
    pub fn hash(&self, key: &FlowKey) -> u64 {
        key.bucket(&self.secret)
    }

    /// Asks for the line of memory that [`Table::find_hashed`] will read.
    #[inline]
    pub fn prefetch_hashed(&self, hash: u64) {
        self.index.prefetch(hash);
    }

    /// Where most likely the connection with this hash is, of those that come and go: its slot. Its
    /// memory is not looked at.
    #[inline]
    pub fn guess(&self, hash: u64) -> Option<u32> {
        self.index.guess(hash)
    }

    /// The same, of those that stay: its slot, or where it rests. What this reads was
    /// [asked for](Table::prefetch_hashed) a while ago.
    pub fn guess_far(&self, hash: u64) -> Option<u32> {
        self.index.guess_far(hash)
    }

    /// Asks for the memory of the connection at a place.
    #[inline]
    pub fn prefetch(&self, place: u32) {
        match self.tcbs.get(place as usize) {
            Some(tcb) => {
                // Two cache lines.
                prefetch(&tcb.key);
                prefetch(tcb.second_line());
                prefetch(&self.states[place as usize]);
            }
            None => prefetch(&self.resting[place as usize - self.max]),
        }
    }

    /// Where the connection `key` is, whose hash is `hash`: its slot, or where it rests.
    #[inline]
    pub fn find_hashed(&self, key: &FlowKey, hash: u64) -> Option<u32> {
        self.index.find(hash, |place| match self.tcbs.get(place as usize) {
            Some(tcb) => tcb.key == *key,
            None => self.rests_as(place, key),
        })
    }

    #[inline(never)] // Out of the way of what comes and goes.
    fn rests_as(&self, place: u32, key: &FlowKey) -> bool {
        self.resting[place as usize - self.max].0.key == *key
    }

    /// Where the connection `key` is: its slot, or where it rests.
    pub fn find(&self, key: &FlowKey) -> Option<u32> {
        self.find_hashed(key, self.hash(key))
    }

    /// Files a connection, whose key `hosts` has given out for it, by the key's hash; `None`, and
    /// the key given back, when there are as many as there may be. The caller has seen that its key
    /// is not filed.
    #[inline(always)]
    pub fn insert(&mut self, key: &FlowKey, hash: u64, state: S) -> Option<u32> {
        if self.is_full() {
            self.hosts.leave(key);
            return None;
        }
        let slot = self.take_slot(key, state);
        self.index.insert(hash, slot);
        Some(slot)
    }

    #[inline(always)]
    fn take_slot(&mut self, key: &FlowKey, state: S) -> u32 {
        if self.free == LAST {
            self.grow();
        }
        let slot = self.free;
        let tcb = &mut self.tcbs[slot as usize];
        self.free = tcb.link;
        self.taken += 1;
        tcb.begin(*key);
        tcb.link = UNQUEUED;
        self.states[slot as usize] = state;
        slot
    }

    /// Makes one more slot, and it the only free one.
    #[cold]
    fn grow(&mut self) {
        assert!(self.tcbs.len() < self.max, "nobody takes a slot of a full table");
        self.free = self.tcbs.len() as u32;
        self.tcbs.push(Tcb::CLOSED);
        self.tcbs[self.free as usize].link = LAST;
        self.states.push(S::default());
    }

    /// Takes a slot out of the index: its key is free for another connection from here on. Answers
    /// the hash of that.
    ///
    /// # Panics
    /// If the slot is not filed.
    #[inline]
    pub fn unfile(&mut self, slot: u32) -> u64 {
        let hash = self.hash(&self.tcbs[slot as usize].key);
        assert!(self.index.remove(hash, slot), "slot {slot} is not filed");
        hash
    }

    /// Gives an unfiled slot back, unless it is queued: then it leaves once the queue has come to
    /// it.
    #[inline]
    pub fn release(&mut self, slot: u32) {
        if self.is_queued(slot) {
            return;
        }
        let tcb = &mut self.tcbs[slot as usize];
        self.paths.reclaim(tcb);
        self.hosts.leave(&tcb.key);
        self.free_slot(slot);
    }

    #[inline]
    fn free_slot(&mut self, slot: u32) {
        let tcb = &mut self.tcbs[slot as usize];
        tcb.vacate();
        tcb.link = self.free;
        self.free = slot;
        self.taken -= 1;
    }

    /// Lets the connection in a slot rest, of whose state `kept` is to be kept; answers where.
    ///
    /// # Panics
    /// If the slot is queued or not filed.
    pub fn rest(&mut self, slot: u32, kept: I) -> u32 {
        assert!(!self.is_queued(slot));
        let tcb = &mut self.tcbs[slot as usize];
        let idle = tcb.rest();
        let at = self.left.pop().unwrap_or(self.resting.len() as u32);
        match self.resting.get_mut(at as usize) {
            Some(left) => *left = (idle, kept),
            None => self.resting.push((idle, kept)),
        }
        let place = self.max as u32 + at;
        let moved = self.index.settle(idle.key.bucket(&self.secret), slot, place);
        assert!(moved, "slot {slot} is not filed");
        tcb.begin(FlowKey::NONE);
        self.free_slot(slot);
        place
    }

    /// Gives the connection that rests at a place a slot again, in which its state is what `wake`
    /// makes of what was kept.
    ///
    /// # Panics
    /// If nobody rests there.
    pub fn wake(&mut self, place: u32, now: Instant, wake: impl FnOnce(I) -> S) -> u32 {
        let at = place as usize - self.max;
        let (idle, kept) = self.resting[at];
        assert!(idle.key != FlowKey::NONE, "nobody rests at {place}");
        self.resting[at].0.key = FlowKey::NONE;
        self.left.push(at as u32);
        let slot = self.take_slot(&idle.key, wake(kept));
        self.tcbs[slot as usize].wake(&idle, now);
        let hash = idle.key.bucket(&self.secret);
        assert!(self.index.remove(hash, place), "place {place} is not filed");
        self.index.insert(hash, slot);
        slot
    }

    /// True if a connection that is filed at `place` rests.
    #[inline]
    pub fn is_resting(&self, place: u32) -> bool {
        place as usize >= self.max
    }

    /// What rests at a place, if anybody does.
    pub fn resting(&self, place: u32) -> Option<&Idle> {
        let (idle, _) = self.resting.get((place as usize).checked_sub(self.max)?)?;
        (idle.key != FlowKey::NONE).then_some(idle)
    }

    /// One past the last place where a connection rests or has rested.
    pub fn places(&self) -> u32 {
        (self.max + self.resting.len()) as u32
    }

    pub fn is_queued(&self, slot: u32) -> bool {
        self.tcbs[slot as usize].link != UNQUEUED
    }

    /// True if the connection `key` still is at a place.
    #[inline]
    pub fn holds(&self, place: u32, key: &FlowKey) -> bool {
        match self.tcbs.get(place as usize) {
            Some(tcb) => tcb.key == *key && tcb.state() != State::Closed,
            None => self.rests_as(place, key),
        }
    }

    /// True if there are as many connections as there may be.
    #[inline]
    pub fn is_full(&self) -> bool {
        self.taken + self.idle() == self.max
    }

    /// Number of filed connections.
    pub fn len(&self) -> usize {
        self.index.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Number of slots that are not free.
    #[inline]
    pub fn taken(&self) -> usize {
        self.taken
    }

    /// Number of connections that rest.
    #[inline]
    pub fn idle(&self) -> usize {
        self.resting.len() - self.left.len()
    }

    /// Number of connections that there may be.
    pub fn max(&self) -> usize {
        self.max
    }

    /// Bytes of a slot: block, state, and its share of the index.
    pub fn slot_bytes(&self) -> usize {
        size_of::<Tcb>() + size_of::<S>() + self.index.bytes() / self.max
    }

    /// Bytes of a connection that rests, its share of the index included.
    pub fn rest_bytes(&self) -> usize {
        size_of::<(Idle, I)>() + self.index.bytes() / self.max
    }

    /// Bytes of memory at the most.
    pub fn bytes(&self) -> usize {
        let place = size_of::<Tcb>() + size_of::<S>() + size_of::<(Idle, I)>() + size_of::<u32>();
        self.max * place + self.index.bytes() + self.paths.bytes()
    }

    /// Law 2, and law 3 for every block. `numbers` of addresses are held by others.
    ///
    /// # Panics
    /// If one does not hold.
    pub fn check(&self, config: &Config, mut numbers: usize) {
        let mut leaving = 0;
        let mut taken = 0;
        for (slot, tcb) in self.tcbs.iter().enumerate() {
            if tcb.key == FlowKey::NONE {
                assert!(tcb.state() == State::Closed && !tcb.owes() && !tcb.has_path());
                continue;
            }
            taken += 1;
            let at_rest = tcb.state() == State::TimeWait && !tcb.owes();
            assert!(!at_rest || tcb.link != UNQUEUED, "slot {slot} is to have retired");
            let filed = self.find(&tcb.key) == Some(slot as u32);
            tcb.check(config);
            self.paths.check_flight(tcb);
            numbers += numbers_of(&tcb.key);
            if filed {
                assert!(tcb.state() != State::Closed, "slot {slot} is filed and CLOSED");
            } else {
                leaving += 1;
            }
        }
        let mut idle = 0;
        for place in self.max as u32..self.places() {
            let Some(Idle { key, .. }) = self.resting(place) else { continue };
            assert_eq!(self.find(key), Some(place), "{key:?} rests and is found");
            numbers += numbers_of(key);
            idle += 1;
        }
        assert_eq!((taken, idle), (self.taken, self.idle()));
        assert_eq!(taken + idle, self.len() + leaving);
        assert!(taken + idle <= self.max);
        assert_eq!(self.hosts.held(), numbers, "two addresses for each connection over IPv6");
        let paths = self.tcbs.iter().filter(|tcb| tcb.has_path()).count();
        assert_eq!(self.paths.free() + paths, self.paths.max());
        self.paths.check();
    }
}

/// Numbers of addresses that a connection holds.
fn numbers_of(key: &FlowKey) -> usize {
    if key.family() == Family::V6 { 2 } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::super::queue::Queue;
    use super::*;
    use crate::tcp::Seq;
    use crate::time::Instant;

    fn key(port: u16) -> FlowKey {
        FlowKey::v4(([10, 0, 0, 1], port), ([10, 0, 0, 2], 80))
    }

    /// Files a connection that is opened.
    fn insert(table: &mut Table<u8, u8>, port: u16, state: u8) -> Option<u32> {
        let slot = table.insert(&key(port), table.hash(&key(port)), state)?;
        table.tcbs[slot as usize].open_active(Seq(7), Instant::ZERO);
        Some(slot)
    }

    #[test]
    fn a_connection_is_found_until_it_is_unfiled_and_its_slot_comes_back() {
        let mut table: Table<u8, u8> = Table::new(2, 0, Secret::from_seed(1), &Config::default());
        let key = key(1);
        let slot = insert(&mut table, 1, 9).unwrap();
        assert_eq!(table.find(&key), Some(slot));
        assert!(table.holds(slot, &key));
        table.tcbs[slot as usize].abort();
        table.unfile(slot);
        assert_eq!(table.find(&key), None);
        table.release(slot);
        assert!(!table.holds(slot, &key));
        table.check(&Config::default(), 0);
    }

    #[test]
    fn a_full_table_refuses_and_does_not_grow() {
        let mut table: Table<u8, u8> = Table::new(2, 0, Secret::from_seed(1), &Config::default());
        assert!(insert(&mut table, 1, 0).is_some());
        assert!(insert(&mut table, 2, 0).is_some());
        assert!(insert(&mut table, 3, 0).is_none());
        assert_eq!(table.len(), 2);
    }

    #[test]
    fn a_queued_slot_leaves_only_after_the_queue_has_come_to_it() {
        let mut table: Table<u8, u8> = Table::new(1, 0, Secret::from_seed(1), &Config::default());
        let slot = insert(&mut table, 1, 0).unwrap();
        let mut ready = Queue::new();
        ready.push(&mut table.tcbs, slot);
        table.tcbs[slot as usize].abort();
        table.unfile(slot);
        table.release(slot);
        assert!(insert(&mut table, 2, 0).is_none());
        ready.pop(&mut table.tcbs);
        table.release(slot);
        assert!(insert(&mut table, 2, 0).is_some());
    }

    /// Files a connection that is open and has been silent.
    fn establish(table: &mut Table<u8, u8>, port: u16, state: u8) -> Option<u32> {
        let slot = insert(table, port, state)?;
        table.tcbs[slot as usize].abort();
        let mut tcb = Tcb::begun(key(port));
        (tcb.link, tcb.listener) = (UNQUEUED, port);
        let mut idle = Idle::NONE;
        idle.key = key(port);
        tcb.wake(&idle, Instant::ZERO);
        table.tcbs[slot as usize] = tcb;
        Some(slot)
    }

    #[test]
    fn who_rests_is_found_by_its_key_and_takes_no_slot_but_its_share() {
        let mut table: Table<u8, u8> = Table::new(3, 0, Secret::from_seed(1), &Config::default());
        let now = Instant::ZERO + crate::time::Span::from_secs(1);
        let slots = [1, 2, 3].map(|port| establish(&mut table, port, 10 + port as u8).unwrap());
        let places = slots.map(|slot| {
            assert!(table.tcbs[slot as usize].is_idle(now));
            table.rest(slot, table.states[slot as usize] + 10)
        });
        table.check(&Config::default(), 0);
        assert_eq!((table.taken(), table.idle(), table.len()), (0, 3, 3));
        assert!(insert(&mut table, 4, 0).is_none(), "three connections there may be");
        for port in [2, 1, 3] {
            let place = table.find(&key(port)).expect("it is filed");
            assert!(table.is_resting(place) && places.contains(&place));
            let slot = table.wake(place, now, |kept| kept + 10);
            assert_eq!(table.find(&key(port)), Some(slot));
            assert_eq!(table.states[slot as usize], 30 + port as u8);
            assert_eq!(table.tcbs[slot as usize].state(), State::Established);
            table.check(&Config::default(), 0);
        }
        assert_eq!((table.taken(), table.idle()), (3, 0));
    }
}
