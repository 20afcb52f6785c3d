//! What is answered without a connection, in the very frame that asked: ARP, ICMP echo and
//! unreachable, RST. And what is asked: ARP for next hops, and the announcement of our own
//! addresses.

use super::neighbors::{Due, Link};
use super::routes::Hop;
use super::table::Queue;
use super::{Config, Engine, Subnet};
use crate::app::App;
use crate::flow::Endpoints;
use crate::frame::{Burst, Frame, Pool};
use crate::tcp::{End, State};
use crate::time::Instant;
use crate::wire::arp::{self, Operation};
use crate::wire::ethernet::ETHERTYPE_IPV4;
use crate::wire::icmp::{self, Kind, Quoted, Unspoken};
use crate::wire::options::Options;
use crate::wire::segment::{self, Segment};
use crate::wire::tcp::Flags;
use std::net::{IpAddr, SocketAddr};

/// ARP frames sent a turn: few, so that connections' segments keep their room.
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
    pub(super) fn new(config: &Config) -> Announcer {
        let mut subnets = config.subnets.clone();
        subnets.retain(|subnet| subnet.range().count() > 0);
        Announcer { subnets, place: 0, offset: 0, left: ANNOUNCED_MAX }
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

impl<A: App> Engine<A> {
    /// An ARP packet (RFC 826's algorithm): learn if we have a use for the sender, answer if we are
    /// asked. What is not answered may teach the next worker too; who asks is answered at once, and
    /// teaches the other workers when they ask him.
    pub(super) fn arp(
        &mut self,
        mut frame: Frame,
        packet: &arp::Packet,
        vlan: Option<u16>,
        tx: &mut Burst,
    ) -> Option<Frame> {
        // Nobody else speaks for our own addresses.
        if !self.is_ours(packet.sender_ip.into()) {
            let hop = Hop { ip: packet.sender_ip.into(), vlan };
            let waiting = self.neighbors.learn(hop, packet.sender_mac);
            self.ready.append(&mut self.table.tcbs, waiting);
        }
        let target = self.routes.subnet_of(packet.target_ip.into());
        let to_us = target.is_some_and(|subnet| subnet.vlan == vlan);
        let asked = packet.operation == Operation::Request && to_us;
        if !asked || packet.sender_ip == packet.target_ip {
            let frame = self.pass_on(frame)?;
            self.counters.rx_not_ours += u64::from(!to_us);
            return Some(frame);
        }
        frame.reset(arp::frame_len(vlan.is_some()));
        packet.reply(self.config.mac).emit(vlan, frame.bytes_mut());
        self.answer(frame, tx)
    }

    /// ICMP to an address of ours: an echo request is answered, an error goes to the connection
    /// that it quotes.
    pub(super) fn icmp(
        &mut self,
        now: Instant,
        mut frame: Frame,
        from: Link,
        message: &icmp::Message,
        tx: &mut Burst,
    ) -> Option<Frame> {
        match message.kind {
            Kind::EchoRequest { data_at, data_len } => {
                let ethernet = self.ethernet(from, ETHERTYPE_IPV4);
                let (ip_id, ttl) = (self.next_ip_id(), self.config.ttl);
                let data = (data_at, data_len);
                let len =
                    icmp::emit_echo_reply(frame.bytes_mut(), &ethernet, message, data, ip_id, ttl);
                frame.truncate(len);
                self.answer(frame, tx)
            }
            Kind::Error { kind: 3, code: 2 | 3, mtu: _, quoted: Some(quoted) } => {
                match self.unreachable(now, &quoted) {
                    true => Some(frame),
                    false => self.pass_on(frame),
                }
            }
            // Soft errors never abort (RFC 9293 s3.9.2.2, MUST-56); source quench is dropped
            // (MUST-55).
            Kind::Error { .. } | Kind::EchoReply | Kind::Other => Some(frame),
        }
    }

    /// A hard error (RFC 9293 s3.9.2.2, SHLD-26), believed only where RFC 5927 s4 and s5.2 would:
    /// in SYN-SENT, quoting the very SYN that is outstanding. False if there is no such connection.
    fn unreachable(&mut self, now: Instant, quoted: &Quoted) -> bool {
        let endpoints = Endpoints {
            local: SocketAddr::new(quoted.src.into(), quoted.src_port),
            remote: SocketAddr::new(quoted.dst.into(), quoted.dst_port),
        };
        let Some(slot) = self.find(&endpoints) else { return false };
        let tcb = &mut self.table.tcbs[slot as usize];
        if tcb.state() == State::SynSent && tcb.snd_end().minus(1).0 == quoted.seq {
            tcb.abort();
            self.end(slot, State::SynSent, End::Unreachable, now);
        }
        true
    }

    /// A datagram to us in a protocol that we do not speak.
    pub(super) fn unspoken(
        &mut self,
        mut frame: Frame,
        from: Link,
        about: &Unspoken,
        tx: &mut Burst,
    ) -> Option<Frame> {
        self.counters.rx_not_ours += 1;
        let at = usize::from(about.quote_at);
        let mut quote = [0; 68];
        let len = usize::from(about.quote_len).min(quote.len());
        quote[..len].copy_from_slice(&frame.bytes()[at..at + len]);
        let ethernet = self.ethernet(from, ETHERTYPE_IPV4);
        frame.reset(icmp::unreachable_len(from.vlan.is_some(), about));
        let (ip_id, ttl) = (self.next_ip_id(), self.config.ttl);
        icmp::emit_unreachable(frame.bytes_mut(), &ethernet, about, &quote[..len], ip_id, ttl);
        self.answer(frame, tx)
    }

    /// RST for a segment that belongs to no connection of any worker (RFC 9293 s3.10.7.1), never
    /// for an RST.
    pub(super) fn refuse(
        &mut self,
        frame: Frame,
        segment: &Segment,
        from: Link,
        tx: &mut Burst,
    ) -> Option<Frame> {
        let mut frame = self.pass_on_segment(frame)?;
        if segment.flags.has(Flags::RST) {
            return Some(frame);
        }
        // "If the ACK bit is off, sequence number zero is used,
        // <SEQ=0><ACK=SEG.SEQ+SEG.LEN><CTL=RST,ACK>. If the ACK bit is on, <SEQ=SEG.ACK><CTL=RST>."
        let (seq, ack, flags) = match segment.flags.has(Flags::ACK) {
            true => (segment.ack, 0, Flags::RST),
            false => (0, segment.seq.wrapping_add(segment.seq_len()), Flags::RST | Flags::ACK),
        };
        let options = Options::default();
        let header_len = segment::header_len(from.vlan.is_some(), segment.family(), &options);
        let reset = Segment {
            src: segment.dst,
            dst: segment.src,
            src_port: segment.dst_port,
            dst_port: segment.src_port,
            seq,
            ack,
            flags,
            window: 0,
            urgent: 0,
            tos: 0,
            options,
            payload_at: header_len as u16,
            payload_len: 0,
        };
        frame.reset(header_len);
        let ethernet = self.ethernet(from, segment.family().ethertype());
        let ip_id = self.next_ip_id();
        segment::emit(frame.bytes_mut(), &ethernet, &reset, ip_id, self.config.ttl);
        let dropped = self.answer(frame, tx);
        if dropped.is_none() {
            self.counters.out_segs += 1;
            self.counters.out_rsts += 1;
        }
        dropped
    }

    /// Asks for next hops, tells those who waited in vain, and announces our addresses.
    pub(super) fn resolve(&mut self, now: Instant, pool: &mut Pool, tx: &mut Burst) {
        for _ in 0..ASKS_MAX {
            let (packet, vlan) = if tx.room() == 0 || pool.is_empty() {
                return;
            } else if let Some(due) = self.neighbors.due(now) {
                match due {
                    Due::Ask(hop) => {
                        self.counters.arp_requests += 1;
                        let (Some(IpAddr::V4(from)), IpAddr::V4(ip)) =
                            (self.routes.address_towards(hop), hop.ip)
                        else {
                            continue;
                        };
                        (arp::Packet::request(self.config.mac, from, ip), hop.vlan)
                    }
                    Due::GiveUp(mut waiting) => {
                        self.give_up(&mut waiting, now);
                        continue;
                    }
                }
            } else if let Some(hop) = self.announcer.take() {
                let IpAddr::V4(address) = hop.ip else { continue };
                (arp::Packet::gratuitous(self.config.mac, address), hop.vlan)
            } else {
                return;
            };
            let Some(mut frame) = pool.take() else { return };
            frame.reset(arp::frame_len(vlan.is_some()));
            packet.emit(vlan, frame.bytes_mut());
            self.hand_over(frame, tx);
        }
    }

    /// A connection waits for its next hop to answer.
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

    /// Sends an answer if there is room; else it is dropped and counted: whoever asked will ask
    /// again.
    fn answer(&mut self, frame: Frame, tx: &mut Burst) -> Option<Frame> {
        if tx.room() == 0 {
            self.counters.answers_dropped += 1;
            return Some(frame);
        }
        self.hand_over(frame, tx);
        None
    }
}
