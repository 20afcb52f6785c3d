//! The connection table: a keyed-hash index into slabs. Fixed in size from the start.
//!
//! A slot is in one of three places: free; filed (in the index, found by its key); or leaving (out
//! of the index, but still queued because it owes its last words). `free + filed + leaving = max`
//! always.

use super::index::Index;
use super::queue::{LAST, Linked, UNQUEUED};
use crate::flow::{FlowKey, Hosts};
use crate::rng::Secret;
use crate::sys::cpu::prefetch;
use crate::sys::pages::slab;
use crate::tcp::{Config, Paths, State, Tcb};
use crate::wire::Family;

/// Slots hold a control block and the application's state of one connection each.
pub struct Table<S> {
    secret: Secret,
    index: Index,
    pub tcbs: Vec<Tcb>,
    pub states: Vec<S>,
    pub paths: Paths,
    /// Each slot that is not free, and who waits elsewhere in TIME-WAIT, holds its addresses'
    /// numbers.
    pub hosts: Hosts,
    /// The free slot to be taken next, the one freed last; each names the one below it by its link.
    free: u32,
    free_count: usize,
}

/// Data paths at the most: connections that have more than a segment under way at a time. 23 MB.
const PATHS_MAX: u32 = 16_384;

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

impl<S: Copy + Default> Table<S> {
    /// Room for `max` connections and `hosts_max` IPv6 addresses, touched now so that no page fault
    /// falls into a run.
    ///
    /// # Panics
    /// If `max` is zero or so large that a slot number would not fit, or `hosts_max` so large that
    /// an address's would not.
    pub fn new(max: u32, hosts_max: u32, secret: Secret, config: &Config) -> Table<S> {
        assert!(max > 0 && max < LAST);
        let mut tcbs = slab(Tcb::CLOSED, max as usize);
        for (slot, tcb) in tcbs.iter_mut().enumerate() {
            tcb.link = if slot + 1 == max as usize { LAST } else { slot as u32 + 1 };
        }
        Table {
            secret,
            index: Index::new(max),
            tcbs,
            states: slab(S::default(), max as usize),
            paths: Paths::new(max.min(PATHS_MAX) as u16, config),
            hosts: Hosts::new(hosts_max, secret),
            free: 0,
            free_count: max as usize,
        }
    }

    /// What [`Table::find_hashed`] looks for; the first line of memory that it will read is asked
    /// for.
    #[inline]
    pub fn hash(&self, key: &FlowKey) -> u64 {
        let hash = key.bucket(&self.secret);
        self.index.prefetch(hash);
        hash
    }

    /// The slot that most likely has the connection with this hash. Its memory is asked for, and
    /// not looked at.
    #[inline]
    pub fn guess(&self, hash: u64) -> Option<u32> {
        let slot = self.index.find(hash, |_| true)?;
        // Two cache lines.
        prefetch(&self.tcbs[slot as usize].key);
        prefetch(self.tcbs[slot as usize].second_line());
        prefetch(&self.states[slot as usize]);
        Some(slot)
    }

    /// The slot of the connection `key`, whose hash is `hash`.
    #[inline]
    pub fn find_hashed(&self, key: &FlowKey, hash: u64) -> Option<u32> {
        self.index.find(hash, |slot| self.tcbs[slot as usize].key == *key)
    }

    /// The slot of the connection `key`.
    pub fn find(&self, key: &FlowKey) -> Option<u32> {
        self.find_hashed(key, key.bucket(&self.secret))
    }

    /// Files a connection, whose key `hosts` has given out for it; `None`, and the key given back,
    /// when every slot is taken. The caller has seen that its key is not filed.
    #[inline(always)]
    pub fn insert(&mut self, key: &FlowKey, state: S) -> Option<u32> {
        if self.free_count == 0 {
            self.hosts.leave(key);
            return None;
        }
        let slot = self.free;
        let tcb = &mut self.tcbs[slot as usize];
        self.free = tcb.link;
        self.free_count -= 1;
        self.index.insert(key.bucket(&self.secret), slot);
        tcb.begin(*key);
        tcb.link = UNQUEUED;
        self.states[slot as usize] = state;
        Some(slot)
    }

    /// Takes a slot out of the index: its key is free for another connection from here on.
    ///
    /// # Panics
    /// If the slot is not filed.
    #[inline]
    pub fn unfile(&mut self, slot: u32) {
        let hash = self.tcbs[slot as usize].key.bucket(&self.secret);
        assert!(self.index.remove(hash, slot), "slot {slot} is not filed");
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
        tcb.vacate();
        tcb.link = self.free;
        self.free = slot;
        self.free_count += 1;
    }

    pub fn is_queued(&self, slot: u32) -> bool {
        self.tcbs[slot as usize].link != UNQUEUED
    }

    /// True if the slot still holds the connection `key`.
    #[inline]
    pub fn holds(&self, slot: u32, key: &FlowKey) -> bool {
        let tcb = &self.tcbs[slot as usize];
        tcb.key == *key && tcb.state() != State::Closed
    }

    /// True if every slot is taken.
    pub fn is_full(&self) -> bool {
        self.free_count == 0
    }

    /// Number of filed connections.
    pub fn len(&self) -> usize {
        self.index.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Number of slots that are not free.
    pub fn taken(&self) -> usize {
        self.max() - self.free_count
    }

    /// Number of slots.
    pub fn max(&self) -> usize {
        self.tcbs.len()
    }

    /// Bytes of a slot: block, state, and its share of the index.
    pub fn slot_bytes(&self) -> usize {
        size_of::<Tcb>() + size_of::<S>() + self.index.bytes() / self.max()
    }

    /// Law 2, and law 3 for every block. `numbers` of addresses are held by others.
    ///
    /// # Panics
    /// If one does not hold.
    pub fn check(&self, config: &Config, mut numbers: usize) {
        let mut leaving = 0;
        for (slot, tcb) in self.tcbs.iter().enumerate() {
            if tcb.key == FlowKey::NONE {
                assert!(tcb.state() == State::Closed && !tcb.owes() && !tcb.has_path());
                continue;
            }
            let at_rest = tcb.state() == State::TimeWait && !tcb.owes();
            assert!(!at_rest || tcb.link != UNQUEUED, "slot {slot} is to have retired");
            let filed = self.find(&tcb.key) == Some(slot as u32);
            tcb.check(config);
            self.paths.check_flight(tcb);
            numbers += if tcb.key.family() == Family::V6 { 2 } else { 0 };
            if filed {
                assert!(tcb.state() != State::Closed, "slot {slot} is filed and CLOSED");
            } else {
                leaving += 1;
            }
        }
        assert_eq!(self.free_count + self.len() + leaving, self.max());
        assert_eq!(self.hosts.held(), numbers, "two addresses for each connection over IPv6");
        let paths = self.tcbs.iter().filter(|tcb| tcb.has_path()).count();
        assert_eq!(self.paths.free() + paths, self.paths.max());
        self.paths.check();
    }
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
    fn insert(table: &mut Table<u8>, port: u16, state: u8) -> Option<u32> {
        let slot = table.insert(&key(port), state)?;
        table.tcbs[slot as usize].open_active(Seq(7), Instant::ZERO);
        Some(slot)
    }

    #[test]
    fn a_connection_is_found_until_it_is_unfiled_and_its_slot_comes_back() {
        let mut table: Table<u8> = Table::new(2, 0, Secret::from_seed(1), &Config::default());
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
        let mut table: Table<u8> = Table::new(2, 0, Secret::from_seed(1), &Config::default());
        assert!(insert(&mut table, 1, 0).is_some());
        assert!(insert(&mut table, 2, 0).is_some());
        assert!(insert(&mut table, 3, 0).is_none());
        assert_eq!(table.len(), 2);
    }

    #[test]
    fn a_queued_slot_leaves_only_after_the_queue_has_come_to_it() {
        let mut table: Table<u8> = Table::new(1, 0, Secret::from_seed(1), &Config::default());
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
}
