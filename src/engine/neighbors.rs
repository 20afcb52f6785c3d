//! Next hops: who has which MAC address (RFC 826, RFC 4861), who has to be asked, and the
//! connections that wait for the answer.

use super::queue::Queue;
use super::routes::Hop;
use crate::flow::{FlowKey, Host};
use crate::rng::Secret;
use crate::time::{Instant, Span};
use crate::wire::Family;
use crate::wire::ethernet::Mac;
use hashbrown::HashTable;
use std::net::IpAddr;

/// Next hops at the most. A connection names its own in sixteen bits.
const NEIGHBORS_MAX: usize = 65_535;

/// Times a next hop is asked for, a second apart, before what waits for it is given up (RFC 1122
/// s2.3.2.1: at most one a second).
const ASK_TIMES: u8 = 3;
const ASK_INTERVAL: Span = Span::from_secs(1);

/// Entries looked at for one that a new next hop may replace. The search goes on where the last
/// one ended, so a flood from a full table's worth of addresses finds what its own ends left.
const EVICTION_TRIES: usize = 64;

/// Ways that are remembered: 12 kB, of which few touch much.
const WAYS: usize = 1024;

/// From nobody to nobody.
const NO_WAY: Way = Way { hosts: (FlowKey::NONE.local, FlowKey::NONE.remote), number: 0 };

/// The next hops of one engine. Entries are made only for next hops that we have a use for. One
/// that no connection holds stays, known, until its place is needed: strangers who send a SYN from
/// ever new addresses can't fill it for good.
pub struct Neighbors {
    secret: Secret,
    entries: Vec<Neighbor>,
    /// Where the next search for an entry to be replaced begins.
    hand: usize,
    index: HashTable<u16>,
    /// Ways taken last, each at the [place](place_of) of its hosts: most connections go where
    /// others just went.
    ways: Box<[Way; WAYS]>,
    /// Entries without an answer, in the order in which they were first asked for.
    asking: Vec<u16>,
}

struct Neighbor {
    hop: Hop,
    mac: Option<Mac>,
    asked: u8,
    ask_at: Instant,
    /// Its MAC is known, and yet it is asked for: it may have moved.
    doubted: bool,
    waiting: Queue,
    /// Connections that go this way.
    held: u32,
}

/// The next hop from one host to another.
#[derive(Clone, Copy)]
struct Way {
    hosts: (Host, Host),
    number: u16,
}

/// Where frames to a next hop go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    pub mac: Mac,
    pub vlan: Option<u16>,
}

/// What is due about one next hop.
#[derive(Clone, Copy, Debug)]
pub enum Due {
    /// Ask for it now.
    Ask(Hop),
    /// It does not answer: whoever waits for it is to be told.
    GiveUp(Queue),
}

impl Neighbors {
    pub fn new(secret: Secret) -> Neighbors {
        Neighbors {
            secret,
            entries: Vec::with_capacity(NEIGHBORS_MAX),
            hand: 0,
            index: HashTable::with_capacity(NEIGHBORS_MAX),
            ways: Box::new([NO_WAY; WAYS]),
            asking: Vec::with_capacity(NEIGHBORS_MAX),
        }
    }

    /// The number of a next hop; `None` when there are too many. A new one takes its MAC from
    /// `hint`, or else has to be asked for.
    #[inline(always)]
    pub fn number(&mut self, hop: Hop, hint: Option<Mac>, now: Instant) -> Option<u16> {
        self.known(hop).or_else(|| self.add(hop, hint, now))
    }

    #[cold]
    fn add(&mut self, hop: Hop, hint: Option<Mac>, now: Instant) -> Option<u16> {
        let number = self.place()?;
        let waiting = Queue::new();
        let neighbor =
            Neighbor { hop, mac: hint, asked: 0, ask_at: now, doubted: false, waiting, held: 0 };
        match self.entries.get_mut(number as usize) {
            Some(replaced) => {
                *replaced = neighbor;
                *self.ways = [NO_WAY; WAYS];
            }
            None => self.entries.push(neighbor),
        }
        let (entries, secret) = (&self.entries, &self.secret);
        let rehash = |&n: &u16| hash(secret, entries[n as usize].hop);
        self.index.insert_unique(rehash(&number), number, rehash);
        if hint.is_none() {
            self.asking.push(number);
        }
        Some(number)
    }

    /// The number of the next hop of a connection, if its way is
    /// [remembered](Neighbors::remember).
    #[inline(always)]
    pub fn way(&self, key: &FlowKey) -> Option<u16> {
        let way = &self.ways[place_of(key)];
        (way.hosts == (key.local, key.remote)).then_some(way.number)
    }

    /// Remembers the way of a connection over IPv4 until another takes its place, or its next hop
    /// is forgotten. (An IPv6 host's number may be another's soon.)
    pub fn remember(&mut self, key: &FlowKey, number: u16) {
        if key.family() == Family::V4 {
            self.ways[place_of(key)] = Way { hosts: (key.local, key.remote), number };
        }
    }

    /// A connection, whatever its state, goes this way.
    pub fn hold(&mut self, number: u16) {
        self.entries[number as usize].held += 1;
    }

    /// It does no more.
    pub fn leave(&mut self, number: u16) {
        self.entries[number as usize].held -= 1;
    }

    /// Connections that go any way.
    pub fn held(&self) -> usize {
        self.entries.iter().map(|neighbor| neighbor.held as usize).sum()
    }

    /// Where frames to a next hop go, if that is known.
    pub fn link(&self, number: u16) -> Option<Link> {
        let neighbor = &self.entries[number as usize];
        neighbor.mac.map(|mac| Link { mac, vlan: neighbor.hop.vlan })
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

    /// A next hop may have gone or moved: it is asked for anew, and what goes its way goes on as
    /// before (RFC 1122 s2.3.2.1, RFC 9293 s3.8.3).
    pub fn doubt(&mut self, number: u16, now: Instant) {
        let neighbor = &mut self.entries[number as usize];
        if neighbor.mac.is_some() && !neighbor.doubted {
            (neighbor.asked, neighbor.ask_at, neighbor.doubted) = (0, now, true);
            self.asking.push(number);
        }
    }

    /// `hop` said that it has `mac`. Ignored unless we have a use for it, or if another address is
    /// known and this one does not override it (RFC 4861 s7.2.5); answers who waited for it.
    pub fn learn(&mut self, hop: Hop, mac: Mac, overrides: bool) -> Queue {
        let Some(number) = self.known(hop) else { return Queue::new() };
        let neighbor = &mut self.entries[number as usize];
        if neighbor.mac.is_none() || overrides {
            neighbor.mac = Some(mac);
        }
        neighbor.doubted = false;
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
            return Some(Due::Ask(neighbor.hop));
        }
        neighbor.doubted = false;
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
            let Neighbor { hop, mac, asked, doubted, held, .. } = self.entries[number as usize];
            let being_asked = doubted || (mac.is_none() && asked <= ASK_TIMES);
            if held > 0 || being_asked {
                continue;
            }
            let entry = self.index.find_entry(hash(&self.secret, hop), |&filed| filed == number);
            entry.expect("every entry is filed").remove();
            return Some(number);
        }
        None
    }

    /// The number of a next hop that has one.
    #[inline(always)]
    pub fn known(&self, hop: Hop) -> Option<u16> {
        let found = |&n: &u16| self.entries[n as usize].hop == hop;
        self.index.find(hash(&self.secret, hop), found).copied()
    }
}

/// The place of a way, by the last bits of its addresses.
#[inline(always)]
fn place_of(key: &FlowKey) -> usize {
    usize::from(key.local.last_bits() ^ key.remote.last_bits()) % WAYS
}

/// Keyed: whoever is on the link may come from any of the addresses of an IPv6 subnet.
fn hash(secret: &Secret, hop: Hop) -> u64 {
    let tag = u64::from(hop.vlan.unwrap_or(0)) << 48;
    match hop.ip {
        IpAddr::V4(ip) => secret.bucket(tag, u64::from(ip.to_bits())),
        IpAddr::V6(ip) => secret.bucket((ip.to_bits() >> 64) as u64 ^ tag, ip.to_bits() as u64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    const HOP: Hop = hop(0x0a00_0002);
    const MAC: Mac = Mac([2, 0, 0, 0, 0, 2]);

    const fn hop(bits: u32) -> Hop {
        Hop { ip: IpAddr::V4(Ipv4Addr::from_bits(bits)), vlan: None }
    }

    fn neighbors() -> Neighbors {
        Neighbors::new(Secret::from_seed(1))
    }

    fn seconds(count: u64) -> Instant {
        Instant::ZERO + Span::from_secs(count)
    }

    #[test]
    fn one_in_doubt_is_asked_for_again_and_keeps_its_mac() {
        let mut neighbors = neighbors();
        let number = neighbors.number(HOP, Some(MAC), seconds(0)).unwrap();
        assert!(neighbors.due(seconds(0)).is_none());
        neighbors.doubt(number, seconds(1));
        neighbors.doubt(number, seconds(1));
        assert!(matches!(neighbors.due(seconds(1)), Some(Due::Ask(_))));
        assert!(neighbors.due(seconds(1)).is_none(), "doubted once, asked once");
        assert_eq!(neighbors.link(number).map(|link| link.mac), Some(MAC));
        let moved = Mac([2, 0, 0, 0, 0, 9]);
        neighbors.learn(HOP, moved, true);
        assert_eq!(neighbors.link(number).map(|link| link.mac), Some(moved));
        assert_eq!(neighbors.next(), Instant::NEVER);
        neighbors.doubt(number, seconds(5));
        for second in 5..8 {
            assert!(matches!(neighbors.due(seconds(second)), Some(Due::Ask(_))));
        }
        assert!(matches!(neighbors.due(seconds(8)), Some(Due::GiveUp(queue)) if queue.is_empty()));
        assert_eq!(neighbors.link(number).map(|link| link.mac), Some(moved), "for want of better");
    }

    #[test]
    fn an_unknown_next_hop_is_asked_for_three_times_then_given_up() {
        let mut neighbors = neighbors();
        let number = neighbors.number(HOP, None, seconds(0)).unwrap();
        for second in 0..3 {
            assert!(matches!(neighbors.due(seconds(second)), Some(Due::Ask(HOP))));
            assert!(neighbors.due(seconds(second)).is_none(), "once a second");
        }
        assert!(matches!(neighbors.due(seconds(3)), Some(Due::GiveUp(_))));
        assert_eq!(neighbors.next(), Instant::NEVER);
        neighbors.waiting(number, seconds(9));
        assert!(matches!(neighbors.due(seconds(9)), Some(Due::Ask(HOP))), "asked anew");
    }

    #[test]
    fn an_answer_ends_the_asking() {
        let mut neighbors = neighbors();
        let number = neighbors.number(HOP, None, seconds(0)).unwrap();
        assert_eq!(neighbors.link(number), None);
        neighbors.learn(HOP, MAC, true);
        assert_eq!(neighbors.link(number), Some(Link { mac: MAC, vlan: None }));
        assert!(neighbors.due(seconds(1)).is_none());
    }

    #[test]
    fn the_same_address_behind_another_tag_is_another_next_hop() {
        let mut neighbors = neighbors();
        let tagged = Hop { vlan: Some(7), ..HOP };
        let number = neighbors.number(tagged, None, seconds(0)).unwrap();
        neighbors.learn(HOP, MAC, true);
        assert_eq!(neighbors.link(number), None);
        neighbors.learn(tagged, MAC, true);
        assert_eq!(neighbors.link(number), Some(Link { mac: MAC, vlan: Some(7) }));
    }

    #[test]
    fn a_next_hop_that_nobody_holds_makes_room_for_a_new_one() {
        let mut neighbors = neighbors();
        let ip = |n: u32| hop(0x0a00_0000 + n);
        let kept = neighbors.number(ip(0), Some(MAC), seconds(0)).unwrap();
        neighbors.hold(kept);
        for n in 1..200_000 {
            let number = neighbors.number(ip(n), Some(MAC), seconds(0)).unwrap();
            neighbors.hold(number);
            assert_eq!(neighbors.known(ip(n)), Some(number));
            neighbors.leave(number);
        }
        assert_eq!(neighbors.known(ip(0)), Some(kept));
        assert_eq!((neighbors.entries.len(), neighbors.held()), (NEIGHBORS_MAX, 1));
        assert_eq!(neighbors.index.len(), NEIGHBORS_MAX);
    }

    #[test]
    fn next_hops_that_are_held_or_asked_for_are_not_replaced() {
        let mut neighbors = neighbors();
        let ip = |n: usize| hop(0x0a00_0000 + n as u32);
        for n in 0..NEIGHBORS_MAX {
            let hint = (n % 2 == 0).then_some(MAC);
            let number = neighbors.number(ip(n), hint, seconds(0)).unwrap();
            if hint.is_some() {
                neighbors.hold(number);
            }
        }
        assert_eq!(neighbors.number(HOP, Some(MAC), seconds(0)).map(|_| ()), Some(()), "known");
        assert_eq!(neighbors.number(hop(0x0b00_0001), Some(MAC), seconds(0)), None);
    }

    #[test]
    fn what_does_not_override_changes_nothing_that_is_known() {
        let mut neighbors = neighbors();
        let other = Mac([2, 0, 0, 0, 0, 9]);
        let number = neighbors.number(HOP, None, seconds(0)).unwrap();
        for (mac, overrides, known) in
            [(MAC, false, MAC), (other, false, MAC), (other, true, other)]
        {
            neighbors.learn(HOP, mac, overrides);
            assert_eq!(neighbors.link(number), Some(Link { mac: known, vlan: None }));
        }
    }

    #[test]
    fn strangers_are_not_learnt() {
        let mut neighbors = neighbors();
        neighbors.learn(HOP, MAC, true);
        assert!(neighbors.entries.is_empty());
    }
}
