//! One way out: the only code that writes segments of connections in the table, bounded by the room
//! in `tx`.

use super::Engine;
use super::neighbors::Link;
use crate::app::App;
use crate::flow::FlowKey;
use crate::frame::{Burst, Frame, Pool};
use crate::tcp::{Env, State, Transmit};
use crate::time::Instant;
use crate::wire::ethernet::Header;
use crate::wire::segment::{self, Segment};
use crate::wire::tcp::Flags;

impl<A: App> Engine<A> {
    /// Sends what is owed, connection after connection in the order in which they became ready,
    /// until `tx` is full.
    pub(super) fn egress(&mut self, now: Instant, pool: &mut Pool, tx: &mut Burst) {
        self.send_syn_acks(now, pool, tx);
        while tx.room() > 0 {
            let Some(slot) = self.ready.front() else { return };
            let number = self.tcb(slot).neighbor;
            let Some(link) = self.neighbors.link(number) else {
                self.ready.pop(&mut self.table.tcbs);
                self.park(slot, number, now);
                continue;
            };
            if !self.send(slot, link, now, pool, tx) {
                // Out of room or frames: it stays first.
                return;
            }
            self.ready.pop(&mut self.table.tcbs);
            match self.tcb(slot).state() {
                State::Closed => self.release(slot),
                State::TimeWait if !self.tcb(slot).owes() => self.retire(slot),
                State::TimeWait
                | State::Listen
                | State::SynSent
                | State::SynReceived
                | State::Established
                | State::FinWait1
                | State::FinWait2
                | State::CloseWait
                | State::Closing
                | State::LastAck => self.rearm(slot, now),
            }
        }
    }

    /// Sends all that one connection may; false if something is left for want of room or frames.
    #[inline(always)]
    fn send(
        &mut self,
        slot: u32,
        link: Link,
        now: Instant,
        pool: &mut Pool,
        tx: &mut Burst,
    ) -> bool {
        while self.tcb(slot).wants_output() {
            if tx.room() == 0 {
                return false;
            }
            let Some(mut frame) = pool.take() else {
                self.counters.tx_no_frame += 1;
                return false;
            };
            let (config, paths) = (&self.config.tcp, &mut self.table.paths);
            let state = &self.table.states[slot as usize];
            let (room, nagle) = (self.app.window(state), self.app.nagle(state, config.nagle));
            let mut env = Env { config, now, room, nagle, paths };
            let transmit = &mut self.outgoing;
            if !self.table.tcbs[slot as usize].output_into(&mut env, transmit) {
                pool.put(frame);
                return true;
            }
            let key = self.table.tcbs[slot as usize].key;
            let payload_at = lay_out(&mut frame, link, &key, &transmit.segment);
            let state = &self.table.states[slot as usize];
            if transmit.segment.payload_len > 0 {
                self.app.payload(state, transmit.offset, &mut frame.bytes_mut()[payload_at..]);
            }
            // MUST-48, SHLD-21, SHLD-22: the application says it, may change it at any time, and it
            // goes out as it is; the ECN bits are not its own.
            let dscp = self.app.dscp(state, self.config.tcp.dscp);
            match self.config.device_sums && self.outgoing.segment.payload_len > 0 {
                true => self.write_unsummed(&key, link, dscp, &mut frame),
                false => self.write(&key, link, dscp, &mut frame),
            }
            self.count_sent();
            self.hand_over(frame, tx);
        }
        true
    }

    /// Writes the headers of what is outgoing in front of the payload that stands in `frame`.
    #[inline(always)]
    pub(super) fn write(&mut self, key: &FlowKey, link: Link, dscp: u8, frame: &mut Frame) {
        let ethernet = self.ethernet(link, key.family().ethertype());
        let ip_id = self.next_ip_id();
        let ttl = self.config.ttl;
        let segment = self.addressed(key, dscp);
        segment::emit(frame.bytes_mut(), &ethernet, segment, ip_id, ttl);
    }

    /// [`Engine::write`], for a device that puts in the checksum.
    #[cold] // Apart, or what it needs in memory costs those who don't come here.
    fn write_unsummed(&mut self, key: &FlowKey, link: Link, dscp: u8, frame: &mut Frame) {
        let ethernet = self.ethernet(link, key.family().ethertype());
        let (ip_id, ttl) = (self.next_ip_id(), self.config.ttl);
        let segment = self.addressed(key, dscp);
        let at = segment::emit_unsummed(frame.bytes_mut(), &ethernet, segment, ip_id, ttl);
        frame.leave_unsummed(at as u8);
    }

    /// What is outgoing, with its connection's addresses.
    #[inline(always)]
    fn addressed(&mut self, key: &FlowKey, dscp: u8) -> &Segment {
        let segment = &mut self.outgoing.segment;
        // RFC 9293 s3.9.1.1, MUST-45: the address that the connection began with.
        segment.src = self.table.hosts.address(key.local);
        segment.dst = self.table.hosts.address(key.remote);
        (segment.src_port, segment.dst_port) = (key.local_port, key.remote_port);
        segment.tos |= dscp << 2;
        segment
    }

    /// Counts a frame and puts it behind those that wait for the device. There is room: the caller
    /// has looked.
    #[inline(always)]
    pub(super) fn hand_over(&mut self, frame: Frame, tx: &mut Burst) {
        self.counters.tx_frames += 1;
        self.counters.tx_bytes += frame.bytes().len() as u64;
        tx.push(frame);
    }

    /// Counts what was outgoing.
    #[inline(always)]
    pub(super) fn count_sent(&mut self) {
        let Transmit { segment: Segment { flags, .. }, again, .. } = self.outgoing;
        self.counters.out_rsts += u64::from(flags.has(Flags::RST));
        self.counters.syn_retrans += u64::from(again && flags.has(Flags::SYN));
        match again {
            true => self.counters.retrans_segs += 1,
            false => self.counters.out_segs += 1,
        }
    }

    #[inline(always)]
    pub(super) fn ethernet(&self, to: Link, ethertype: u16) -> Header {
        Header { dst: to.mac, src: self.config.mac, vlan: to.vlan, ethertype }
    }

    pub(super) fn next_ip_id(&mut self) -> u16 {
        self.ip_id = self.ip_id.wrapping_add(1);
        self.ip_id
    }
}

/// Makes a frame as long as what it is to hold; answers where its payload stands.
#[inline(always)]
pub(super) fn lay_out(frame: &mut Frame, link: Link, key: &FlowKey, segment: &Segment) -> usize {
    let payload_at = segment::header_len(link.vlan.is_some(), key.family(), &segment.options);
    frame.reset(payload_at + usize::from(segment.payload_len));
    payload_at
}
