//! Who is where on our links: ARP and neighbor discovery, asked and answered, and the announcement
//! of our own addresses. Nobody is believed about an address of ours, nor about one that we have no
//! use for.

use super::neighbors::{Due, Link};
use super::queue::Queue;
use super::routes::Hop;
use super::{Engine, Subnet};
use crate::app::App;
use crate::frame::{Burst, Frame, Pool};
use crate::tcp::{End, State};
use crate::time::Instant;
use crate::wire::arp::{self, Operation};
use crate::wire::ethernet::Mac;
use crate::wire::ndp::{self, Message};
use std::net::IpAddr;

/// Questions and announcements sent a turn: few, so that connections' segments keep their room.
const ASKS_MAX: usize = 8;

/// Addresses announced at start, at the most: enough for switches and caches to learn a lab, short
/// of a storm.
const ANNOUNCED_MAX: usize = 1024;

/// Walks over our addresses once, at start.
pub(super) struct Announcer {
    subnets: Vec<Subnet>,
    place: usize,
    offset: u128,
    left: usize,
}

impl Announcer {
    pub(super) fn new(subnets: &[Subnet]) -> Announcer {
        let subnets = subnets.iter().copied().filter(|subnet| subnet.range().count() > 0);
        Announcer { subnets: subnets.collect(), place: 0, offset: 0, left: ANNOUNCED_MAX }
    }

    pub(super) fn is_done(&self) -> bool {
        self.left == 0 || self.place == self.subnets.len()
    }

    fn take(&mut self) -> Option<Hop> {
        if self.is_done() {
            return None;
        }
        let subnet = &self.subnets[self.place];
        let range = subnet.range();
        let hop = Hop { ip: range.nth(self.offset), vlan: subnet.vlan };
        self.left -= 1;
        self.offset += 1;
        if self.offset == range.count() {
            (self.place, self.offset) = (self.place + 1, 0);
        }
        Some(hop)
    }
}

/// What is said to a link unasked.
enum Word {
    Arp(arp::Packet),
    Ndp(ndp::Packet),
}

impl Word {
    /// Tells everyone that `mac` has `address` (RFC 5227 s2.3, RFC 4861 s7.2.6).
    fn announcement(mac: Mac, address: IpAddr) -> Word {
        match address {
            IpAddr::V4(address) => Word::Arp(arp::Packet::gratuitous(mac, address)),
            IpAddr::V6(address) => Word::Ndp(ndp::Packet::announcement(mac, address)),
        }
    }

    /// `mac` at `from` asks who has `target`; `None` if they are of two families.
    fn question(mac: Mac, from: IpAddr, target: IpAddr) -> Option<Word> {
        match (from, target) {
            (IpAddr::V4(from), IpAddr::V4(target)) => {
                Some(Word::Arp(arp::Packet::request(mac, from, target)))
            }
            (IpAddr::V6(from), IpAddr::V6(target)) => {
                Some(Word::Ndp(ndp::Packet::solicitation(mac, from, target)))
            }
            _ => None,
        }
    }

    fn write(&self, mac: Mac, vlan: Option<u16>, frame: &mut Frame) {
        match self {
            Word::Arp(packet) => {
                frame.reset(arp::frame_len(vlan.is_some()));
                packet.emit(vlan, frame.bytes_mut());
            }
            Word::Ndp(packet) => {
                frame.reset(ndp::frame_len(vlan.is_some()));
                packet.emit(mac, Mac::BROADCAST, vlan, frame.bytes_mut());
            }
        }
    }
}

impl<A: App> Engine<A> {
    /// An ARP packet (RFC 826's algorithm): learn if we have a use for the sender, answer if we are
    /// asked. What is not answered may teach the next worker too; who asks is answered at once, and
    /// teaches the other workers when they ask him.
    #[cold]
    pub(super) fn arp(
        &mut self,
        mut frame: Frame,
        packet: &arp::Packet,
        vlan: Option<u16>,
        tx: &mut Burst,
    ) -> Option<Frame> {
        self.learn(Hop { ip: packet.sender_ip.into(), vlan }, packet.sender_mac, true);
        self.dispute(packet.sender_ip.into(), vlan, packet.sender_mac);
        let ours = self.is_ours_on(packet.target_ip.into(), vlan);
        let asked = packet.operation == Operation::Request && ours;
        if !asked || packet.sender_ip == packet.target_ip {
            let frame = self.pass_on(frame)?;
            self.counters.rx_not_ours += u64::from(!ours);
            return Some(frame);
        }
        frame.reset(arp::frame_len(vlan.is_some()));
        packet.reply(self.config.mac).emit(vlan, frame.bytes_mut());
        self.answer(frame, tx)
    }

    /// A solicitation or an advertisement (RFC 4861 s7.2.3, s7.2.5), as for ARP.
    #[cold]
    pub(super) fn ndp(
        &mut self,
        mut frame: Frame,
        packet: &ndp::Packet,
        from: Link,
        tx: &mut Burst,
    ) -> Option<Frame> {
        let (speaker, overrides) = match packet.message {
            Message::Solicitation => (packet.src, true),
            Message::Advertisement { solicited: _, overrides } => (packet.target, overrides),
        };
        if let Some(mac) = packet.mac {
            self.learn(Hop { ip: speaker.into(), vlan: from.vlan }, mac, overrides);
            self.dispute(speaker.into(), from.vlan, mac);
        }
        let ours = self.is_ours_on(packet.target.into(), from.vlan);
        if !ours || packet.message != Message::Solicitation {
            let frame = self.pass_on(frame)?;
            self.counters.rx_not_ours += u64::from(!ours);
            return Some(frame);
        }
        frame.reset(ndp::frame_len(from.vlan.is_some()));
        let to = packet.mac.unwrap_or(from.mac);
        let mac = self.config.mac;
        packet.reply(mac).emit(mac, to, from.vlan, frame.bytes_mut());
        self.answer(frame, tx)
    }

    /// Asks for next hops, tells those who waited in vain, and announces our addresses.
    #[inline(never)]
    pub(super) fn resolve(&mut self, now: Instant, pool: &mut Pool, tx: &mut Burst) {
        let mac = self.config.mac;
        for _ in 0..ASKS_MAX {
            if tx.room() == 0 || pool.is_empty() {
                return;
            }
            let (word, vlan) = if let Some(due) = self.neighbors.due(now) {
                match due {
                    Due::Ask(hop) => {
                        let from = self.routes.address_towards(hop);
                        (from.and_then(|from| Word::question(mac, from, hop.ip)), hop.vlan)
                    }
                    Due::GiveUp(mut waiting) => {
                        self.give_up(&mut waiting, now);
                        continue;
                    }
                }
            } else if let Some(hop) = self.announcer.take() {
                (Some(Word::announcement(mac, hop.ip)), hop.vlan)
            } else {
                return;
            };
            let Some(word) = word else { continue };
            let Some(mut frame) = pool.take() else { return };
            word.write(mac, vlan, &mut frame);
            self.count_question(&word);
            self.hand_over(frame, tx);
        }
    }

    /// A connection waits for its next hop to answer.
    #[cold]
    pub(super) fn park(&mut self, slot: u32, neighbor: u16, now: Instant) {
        let waiting = self.neighbors.waiting(neighbor, now);
        waiting.push(&mut self.table.tcbs, slot);
    }

    fn give_up(&mut self, waiting: &mut Queue, now: Instant) {
        while let Some(slot) = waiting.pop(&mut self.table.tcbs) {
            let before = self.tcb(slot).state();
            if before == State::Closed {
                self.release(slot);
                continue;
            }
            self.table.tcbs[slot as usize].abort();
            self.table.tcbs[slot as usize].forget();
            self.end(slot, before, End::Unreachable, now);
        }
    }

    /// Whoever waited for `hop` may go on. Nobody else speaks for our own addresses.
    fn learn(&mut self, hop: Hop, mac: Mac, overrides: bool) {
        if !self.is_ours(hop.ip) {
            let waiting = self.neighbors.learn(hop, mac, overrides);
            self.ready.append(&mut self.table.tcbs, waiting);
        }
    }

    /// Somebody says that `address` is at `mac`: if it is ours, two have it, or one lies. A frame
    /// of our own that came back is neither.
    fn dispute(&mut self, address: IpAddr, vlan: Option<u16>, mac: Mac) {
        let disputed = mac != self.config.mac && self.is_ours_on(address, vlan);
        self.counters.address_conflicts += u64::from(disputed);
    }

    fn count_question(&mut self, word: &Word) {
        match word {
            Word::Arp(packet) if packet.sender_ip != packet.target_ip => {
                self.counters.arp_requests += 1;
            }
            Word::Ndp(packet) if packet.message == Message::Solicitation => {
                self.counters.solicitations += 1;
            }
            Word::Arp(_) | Word::Ndp(_) => {}
        }
    }
}
