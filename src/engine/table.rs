//! The connection table: a keyed-hash index into slabs. Fixed in size from the start.
//!
//! A slot is in one of three places: free; filed (in the index, found by its key); or leaving (out
//! of the index, but still queued because it owes its last words). `free + filed + leaving = max`
//! always.

use crate::flow::{FlowKey, Hosts};
use crate::rng::Secret;
use crate::tcp::{Config, Paths, State, Tcb};
use crate::wire::Family;
use hashbrown::HashTable;

/// Slots hold a control block and the application's state of one connection each.
pub struct Table<S> {
    secret: Secret,
    index: HashTable<u32>,
    pub tcbs: Vec<Tcb>,
    pub states: Vec<S>,
    pub paths: Paths,
    /// Each slot that is not free holds its addresses' numbers.
    pub hosts: Hosts,
    free: Vec<u32>,
}

/// Data paths at the most: connections that have more than a segment under way at a time. 23 MB.
const PATHS_MAX: u32 = 16_384;

/// Not in a [`Queue`].
const UNQUEUED: u32 = u32::MAX;

/// The last of a [`Queue`].
const LAST: u32 = u32::MAX - 1;

/// A first-in-first-out list of slots, threaded through the blocks: a slot is in one queue at most.
#[derive(Clone, Copy, Debug)]
pub struct Queue {
    head: u32,
    tail: u32,
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
        let mut empty = Tcb::closed();
        empty.link = UNQUEUED;
        Table {
            secret,
            // Twice the limit: below half load hashbrown never rehashes in place, which would stall
            // one insert.
            index: HashTable::with_capacity(max as usize * 2),
            tcbs: vec![empty; max as usize],
            states: vec![S::default(); max as usize],
            paths: Paths::new(max.min(PATHS_MAX) as u16, config),
            hosts: Hosts::new(hosts_max, secret),
            free: (0..max).rev().collect(),
        }
    }

    /// The slot of the connection `key`.
    pub fn find(&self, key: &FlowKey) -> Option<u32> {
        let hash = key.bucket(&self.secret);
        self.index.find(hash, |&slot| self.tcbs[slot as usize].key == *key).copied()
    }

    /// Files a connection, whose key `hosts` has given out for it; `None`, and the key given back,
    /// when every slot is taken. The caller has seen that its key is not filed.
    pub fn insert(&mut self, mut tcb: Tcb, state: S) -> Option<u32> {
        let Some(slot) = self.free.pop() else {
            self.hosts.leave(&tcb.key);
            return None;
        };
        let hash = tcb.key.bucket(&self.secret);
        tcb.link = UNQUEUED;
        self.tcbs[slot as usize] = tcb;
        self.states[slot as usize] = state;
        let (tcbs, secret) = (&self.tcbs, &self.secret);
        let rehash = |&slot: &u32| tcbs[slot as usize].key.bucket(secret);
        self.index.insert_unique(hash, slot, rehash);
        Some(slot)
    }

    /// Takes a slot out of the index: its key is free for another connection from here on.
    ///
    /// # Panics
    /// If the slot is not filed.
    pub fn unfile(&mut self, slot: u32) {
        let hash = self.tcbs[slot as usize].key.bucket(&self.secret);
        let entry = self.index.find_entry(hash, |&filed| filed == slot);
        let Ok(entry) = entry else { panic!("slot {slot} is not filed") };
        entry.remove();
    }

    /// Gives an unfiled slot back, unless it is queued: then it leaves once the queue has come to
    /// it.
    pub fn release(&mut self, slot: u32) {
        if self.is_queued(slot) {
            return;
        }
        self.paths.reclaim(&mut self.tcbs[slot as usize]);
        self.hosts.leave(&self.tcbs[slot as usize].key);
        let mut empty = Tcb::closed();
        empty.link = UNQUEUED;
        self.tcbs[slot as usize] = empty;
        self.states[slot as usize] = S::default();
        self.free.push(slot);
    }

    pub fn is_queued(&self, slot: u32) -> bool {
        self.tcbs[slot as usize].link != UNQUEUED
    }

    /// True if the slot still holds the connection `key`.
    pub fn holds(&self, slot: u32, key: &FlowKey) -> bool {
        let tcb = &self.tcbs[slot as usize];
        tcb.key == *key && tcb.state() != State::Closed
    }

    /// Number of filed connections.
    pub fn len(&self) -> usize {
        self.index.len()
    }

    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// Number of slots that are not free.
    pub fn taken(&self) -> usize {
        self.max() - self.free.len()
    }

    /// Number of slots.
    pub fn max(&self) -> usize {
        self.tcbs.len()
    }

    /// Bytes of a slot: block, state, free list, and its share of the index.
    pub fn slot_bytes(&self) -> usize {
        let own = size_of::<Tcb>() + size_of::<S>() + size_of::<u32>();
        own + self.index.allocation_size() / self.max()
    }

    /// Law 2, with `queues` being every queue there is, and law 3 for every block.
    ///
    /// # Panics
    /// If one does not hold.
    pub fn check(&self, config: &Config) {
        let (mut leaving, mut numbers) = (0, 0);
        for (slot, tcb) in self.tcbs.iter().enumerate() {
            let filed = self.find(&tcb.key) == Some(slot as u32);
            tcb.check(config);
            self.paths.check_flight(tcb);
            numbers += if tcb.key.family() == Family::V6 { 2 } else { 0 };
            if filed {
                assert!(tcb.state() != State::Closed, "slot {slot} is filed and CLOSED");
            } else if tcb.link != UNQUEUED {
                leaving += 1;
            }
        }
        assert_eq!(self.free.len() + self.len() + leaving, self.max());
        assert_eq!(self.hosts.held(), numbers, "two addresses for each connection over IPv6");
        let paths = self.tcbs.iter().filter(|tcb| tcb.has_path()).count();
        assert_eq!(self.paths.free() + paths, self.paths.max());
        self.paths.check();
    }
}

impl Queue {
    pub const fn new() -> Queue {
        Queue { head: LAST, tail: LAST }
    }

    pub fn is_empty(&self) -> bool {
        self.head == LAST
    }

    /// Adds a slot at the end, unless it is in this or another queue already.
    pub fn push(&mut self, tcbs: &mut [Tcb], slot: u32) {
        if tcbs[slot as usize].link != UNQUEUED {
            return;
        }
        tcbs[slot as usize].link = LAST;
        if self.head == LAST {
            self.head = slot;
        } else {
            tcbs[self.tail as usize].link = slot;
        }
        self.tail = slot;
    }

    /// The first slot; it stays.
    pub fn front(&self) -> Option<u32> {
        (self.head != LAST).then_some(self.head)
    }

    /// Removes the first slot.
    pub fn pop(&mut self, tcbs: &mut [Tcb]) -> Option<u32> {
        let slot = self.front()?;
        self.head = std::mem::replace(&mut tcbs[slot as usize].link, UNQUEUED);
        Some(slot)
    }

    /// Moves all of `other` to the end, in order. O(1).
    pub fn append(&mut self, tcbs: &mut [Tcb], other: Queue) {
        if self.is_empty() {
            *self = other;
        } else if !other.is_empty() {
            tcbs[self.tail as usize].link = other.head;
            self.tail = other.tail;
        }
    }
}

impl Default for Queue {
    fn default() -> Queue {
        Queue::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tcp::Seq;
    use crate::time::Instant;

    fn tcb(port: u16) -> Tcb {
        let key = FlowKey::v4(([10, 0, 0, 1], port), ([10, 0, 0, 2], 80));
        Tcb::open_active(key, Seq(7), Instant::ZERO)
    }

    #[test]
    fn a_connection_is_found_until_it_is_unfiled_and_its_slot_comes_back() {
        let mut table: Table<u8> = Table::new(2, 0, Secret::from_seed(1), &Config::default());
        let key = tcb(1).key;
        let slot = table.insert(tcb(1), 9).unwrap();
        assert_eq!(table.find(&key), Some(slot));
        assert!(table.holds(slot, &key));
        table.unfile(slot);
        assert_eq!(table.find(&key), None);
        table.release(slot);
        assert!(!table.holds(slot, &key));
        table.check(&Config::default());
    }

    #[test]
    fn a_full_table_refuses_and_does_not_grow() {
        let mut table: Table<u8> = Table::new(2, 0, Secret::from_seed(1), &Config::default());
        assert!(table.insert(tcb(1), 0).is_some());
        assert!(table.insert(tcb(2), 0).is_some());
        assert!(table.insert(tcb(3), 0).is_none());
        assert_eq!(table.len(), 2);
    }

    #[test]
    fn a_queue_keeps_order_and_takes_a_slot_once() {
        let mut table: Table<u8> = Table::new(4, 0, Secret::from_seed(1), &Config::default());
        let slots: Vec<u32> = (0..3).map(|n| table.insert(tcb(n + 1), 0).unwrap()).collect();
        let (mut ready, mut parked) = (Queue::new(), Queue::new());
        for &slot in &slots {
            parked.push(&mut table.tcbs, slot);
            parked.push(&mut table.tcbs, slot);
            ready.push(&mut table.tcbs, slot);
        }
        assert!(ready.is_empty());
        ready.append(&mut table.tcbs, std::mem::take(&mut parked));
        let popped: Vec<u32> = std::iter::from_fn(|| ready.pop(&mut table.tcbs)).collect();
        assert_eq!(popped, slots);
        assert!(ready.is_empty() && parked.is_empty());
    }

    #[test]
    fn a_queued_slot_leaves_only_after_the_queue_has_come_to_it() {
        let mut table: Table<u8> = Table::new(1, 0, Secret::from_seed(1), &Config::default());
        let slot = table.insert(tcb(1), 0).unwrap();
        let mut ready = Queue::new();
        ready.push(&mut table.tcbs, slot);
        table.unfile(slot);
        table.release(slot);
        assert!(table.insert(tcb(2), 0).is_none());
        ready.pop(&mut table.tcbs);
        table.release(slot);
        assert!(table.insert(tcb(2), 0).is_some());
    }
}
