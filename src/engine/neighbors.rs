//! Next hops: who has which MAC address (RFC 826), who has to be asked, and the connections that
//! wait for the answer.

use super::table::Queue;
use crate::time::{Instant, Span};
use crate::wire::ethernet::Mac;
use hashbrown::HashTable;
use std::net::Ipv4Addr;

/// Next hops at the most. A connection names its own in sixteen bits.
const NEIGHBORS_MAX: usize = 65_535;

/// Times a next hop is asked for, a second apart, before what waits for it is given up (RFC 1122
/// s2.3.2.1: at most one a second).
const ASK_TIMES: u8 = 3;
const ASK_INTERVAL: Span = Span::from_secs(1);

/// Entries looked at for one that a new next hop may replace. The search goes on where the last
/// one ended, so a flood from a full table's worth of addresses finds what its own ends left.
const EVICTION_TRIES: usize = 64;

/// The next hops of one engine. Entries are made only for next hops that we have a use for. One
/// that no connection holds stays, known, until its place is needed: strangers who send a SYN from
/// ever new addresses can't fill it for good.
pub struct Neighbors {
    entries: Vec<Neighbor>,
    /// Where the next search for an entry to be replaced begins.
    hand: usize,
    index: HashTable<u16>,
    /// Entries without an answer, in the order in which they were first asked for.
    asking: Vec<u16>,
}

struct Neighbor {
    ip: Ipv4Addr,
    mac: Option<Mac>,
    asked: u8,
    ask_at: Instant,
    waiting: Queue,
    /// Slots whose connection goes this way.
    held: u32,
}

/// What is due about one next hop.
#[derive(Clone, Copy, Debug)]
pub enum Due {
    /// Ask for it now.
    Ask(Ipv4Addr),
    /// It does not answer: whoever waits for it is to be told.
    GiveUp(Queue),
}

impl Neighbors {
    pub fn new() -> Neighbors {
        Neighbors {
            entries: Vec::with_capacity(NEIGHBORS_MAX),
            hand: 0,
            index: HashTable::with_capacity(NEIGHBORS_MAX),
            asking: Vec::with_capacity(NEIGHBORS_MAX),
        }
    }

    /// The number of the next hop `ip`; `None` when there are too many. A new one takes its MAC
    /// from `hint`, or else has to be asked for.
    pub fn number(&mut self, ip: Ipv4Addr, hint: Option<Mac>, now: Instant) -> Option<u16> {
        if let Some(number) = self.find(ip) {
            return Some(number);
        }
        let number = self.place()?;
        let waiting = Queue::new();
        let neighbor = Neighbor { ip, mac: hint, asked: 0, ask_at: now, waiting, held: 0 };
        match self.entries.get_mut(number as usize) {
            Some(replaced) => *replaced = neighbor,
            None => self.entries.push(neighbor),
        }
        let entries = &self.entries;
        self.index.insert_unique(hash(ip), number, |&n| hash(entries[n as usize].ip));
        if hint.is_none() {
            self.asking.push(number);
        }
        Some(number)
    }

    /// A slot's connection goes this way.
    pub fn hold(&mut self, number: u16) {
        self.entries[number as usize].held += 1;
    }

    /// It does no more.
    pub fn leave(&mut self, number: u16) {
        self.entries[number as usize].held -= 1;
    }

    /// Slots whose connections go any way.
    pub fn held(&self) -> usize {
        self.entries.iter().map(|neighbor| neighbor.held as usize).sum()
    }

    /// The MAC of a next hop, if it is known.
    pub fn mac(&self, number: u16) -> Option<Mac> {
        self.entries[number as usize].mac
    }

    /// The connections that wait for a next hop. One that was given up before is asked for anew.
    pub fn waiting(&mut self, number: u16, now: Instant) -> &mut Queue {
        let neighbor = &mut self.entries[number as usize];
        if neighbor.mac.is_none() && neighbor.asked > ASK_TIMES {
            (neighbor.asked, neighbor.ask_at) = (0, now);
            self.asking.push(number);
        }
        &mut self.entries[number as usize].waiting
    }

    /// `ip` said that it has `mac`. Ignored unless we have a use for it; answers who waited for it.
    pub fn learn(&mut self, ip: Ipv4Addr, mac: Mac) -> Queue {
        let Some(number) = self.find(ip) else { return Queue::new() };
        let neighbor = &mut self.entries[number as usize];
        neighbor.mac = Some(mac);
        self.asking.retain(|&asking| asking != number);
        std::mem::take(&mut self.entries[number as usize].waiting)
    }

    /// What is due at `now`, one thing a call.
    pub fn due(&mut self, now: Instant) -> Option<Due> {
        let place = self.asking.iter().position(|&n| self.entries[n as usize].ask_at <= now)?;
        let neighbor = &mut self.entries[self.asking[place] as usize];
        neighbor.asked += 1;
        neighbor.ask_at = now + ASK_INTERVAL;
        if neighbor.asked <= ASK_TIMES {
            return Some(Due::Ask(neighbor.ip));
        }
        let waiting = std::mem::take(&mut neighbor.waiting);
        self.asking.remove(place);
        Some(Due::GiveUp(waiting))
    }

    /// When something will be due.
    pub fn next(&self) -> Instant {
        let due = self.asking.iter().map(|&n| self.entries[n as usize].ask_at);
        due.min().unwrap_or(Instant::NEVER)
    }

    /// The number for a new entry: one that was never used, or one that nobody holds and nobody is
    /// asked for, taken out of the index.
    fn place(&mut self) -> Option<u16> {
        if self.entries.len() < NEIGHBORS_MAX {
            return Some(self.entries.len() as u16);
        }
        for _ in 0..EVICTION_TRIES {
            let number = self.hand as u16;
            self.hand = (self.hand + 1) % NEIGHBORS_MAX;
            let Neighbor { ip, mac, asked, held, .. } = self.entries[number as usize];
            let being_asked = mac.is_none() && asked <= ASK_TIMES;
            if held > 0 || being_asked {
                continue;
            }
            let entry = self.index.find_entry(hash(ip), |&filed| filed == number);
            entry.expect("every entry is filed").remove();
            return Some(number);
        }
        None
    }

    fn find(&self, ip: Ipv4Addr) -> Option<u16> {
        self.index.find(hash(ip), |&n| self.entries[n as usize].ip == ip).copied()
    }
}

impl Default for Neighbors {
    fn default() -> Neighbors {
        Neighbors::new()
    }
}

/// Addresses on our links are the operator's choice, not an attacker's: a fixed mix will do.
fn hash(ip: Ipv4Addr) -> u64 {
    u64::from(ip.to_bits()).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

#[cfg(test)]
mod tests {
    use super::*;

    const IP: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
    const MAC: Mac = Mac([2, 0, 0, 0, 0, 2]);

    fn seconds(count: u64) -> Instant {
        Instant::ZERO + Span::from_secs(count)
    }

    #[test]
    fn an_unknown_next_hop_is_asked_for_three_times_then_given_up() {
        let mut neighbors = Neighbors::new();
        let number = neighbors.number(IP, None, seconds(0)).unwrap();
        for second in 0..3 {
            assert!(matches!(neighbors.due(seconds(second)), Some(Due::Ask(IP))));
            assert!(neighbors.due(seconds(second)).is_none(), "once a second");
        }
        assert!(matches!(neighbors.due(seconds(3)), Some(Due::GiveUp(_))));
        assert_eq!(neighbors.next(), Instant::NEVER);
        neighbors.waiting(number, seconds(9));
        assert!(matches!(neighbors.due(seconds(9)), Some(Due::Ask(IP))), "asked anew");
    }

    #[test]
    fn an_answer_ends_the_asking() {
        let mut neighbors = Neighbors::new();
        let number = neighbors.number(IP, None, seconds(0)).unwrap();
        assert_eq!(neighbors.mac(number), None);
        neighbors.learn(IP, MAC);
        assert_eq!(neighbors.mac(number), Some(MAC));
        assert!(neighbors.due(seconds(1)).is_none());
    }

    #[test]
    fn a_next_hop_that_nobody_holds_makes_room_for_a_new_one() {
        let mut neighbors = Neighbors::new();
        let ip = |n: u32| Ipv4Addr::from_bits(0x0a00_0000 + n);
        let kept = neighbors.number(ip(0), Some(MAC), seconds(0)).unwrap();
        neighbors.hold(kept);
        for n in 1..200_000 {
            let number = neighbors.number(ip(n), Some(MAC), seconds(0)).unwrap();
            neighbors.hold(number);
            assert_eq!(neighbors.find(ip(n)), Some(number));
            neighbors.leave(number);
        }
        assert_eq!(neighbors.find(ip(0)), Some(kept));
        assert_eq!((neighbors.entries.len(), neighbors.held()), (NEIGHBORS_MAX, 1));
        assert_eq!(neighbors.index.len(), NEIGHBORS_MAX);
    }

    #[test]
    fn next_hops_that_are_held_or_asked_for_are_not_replaced() {
        let mut neighbors = Neighbors::new();
        let ip = |n: usize| Ipv4Addr::from_bits(0x0a00_0000 + n as u32);
        for n in 0..NEIGHBORS_MAX {
            let hint = (n % 2 == 0).then_some(MAC);
            let number = neighbors.number(ip(n), hint, seconds(0)).unwrap();
            if hint.is_some() {
                neighbors.hold(number);
            }
        }
        assert_eq!(neighbors.number(IP, Some(MAC), seconds(0)).map(|_| ()), Some(()), "known");
        assert_eq!(neighbors.number([11, 0, 0, 1].into(), Some(MAC), seconds(0)), None);
    }

    #[test]
    fn strangers_are_not_learnt() {
        let mut neighbors = Neighbors::new();
        neighbors.learn(IP, MAC);
        assert!(neighbors.entries.is_empty());
    }
}
