//! What each frame of a burst is, whose it is, and what it does to that connection; the
//! [stages](super::stages) before that.

use super::handshake::completes;
use super::neighbors::Link;
use super::stages::Staged;
use super::{Engine, NO_LISTENER};
use crate::app::{App, Conn};
use crate::flow::{Endpoints, FlowKey};
use crate::frame::{Burst, Frame, Pool};
use crate::stats::Counters;
use crate::tcp::{Arrival, Env, State, Tcb};
use crate::time::Instant;
use crate::wire::segment::{Body, Packet, Segment};
use crate::wire::{Family, Malformed};

/// Whose a segment is, and the place where that is kept.
enum Owner {
    /// In the table.
    Connection(u32),
    /// In the SYN cache.
    HalfOpen(u32),
    /// In TIME-WAIT, out of the table.
    TimeWait(u32),
    Nobody,
}

impl<A: App> Engine<A> {
    /// Takes every frame out of `rx`. What is owed for them is sent only after all are processed
    /// (RFC 9293 s3.10.7.4, MUST-59), and so put together (MUST-58); but for what is in TIME-WAIT,
    /// which is answered one by one.
    pub(super) fn ingress(
        &mut self,
        now: Instant,
        pool: &mut Pool,
        rx: &mut Burst,
        tx: &mut Burst,
    ) {
        let mut packets = std::mem::take(&mut self.packets);
        let mut staged = std::mem::take(&mut self.staged);
        self.counters.rx_frames += rx.len() as u64;
        self.stage(rx.frames(), &mut packets, &mut staged);
        for ((frame, packet), stage) in rx.drain(staged.len()).zip(&packets).zip(&staged) {
            stage.soon.inspect(|&place| self.ask_for(place));
            let done = match stage.fault {
                None => self.process(now, frame, packet, stage, tx),
                Some(why) => {
                    count_malformed(&mut self.counters, why);
                    Some(frame)
                }
            };
            if let Some(frame) = done {
                pool.put(frame);
            }
        }
        staged.clear();
        (self.packets, self.staged) = (packets, staged);
    }

    /// Acts on one frame; answers it if it is done with.
    #[inline(always)]
    fn process(
        &mut self,
        now: Instant,
        frame: Frame,
        packet: &Packet,
        stage: &Staged,
        tx: &mut Burst,
    ) -> Option<Frame> {
        let ethernet = &packet.ethernet;
        let from = Link { mac: ethernet.src, vlan: ethernet.vlan };
        // No station has a group's address (IEEE 802.3 s3.2.3); an answer would go to all of it.
        if ethernet.src.is_group() {
            self.counters.rx_martian += 1;
            return Some(frame);
        }
        match &packet.body {
            Body::Tcp(segment)
                if ethernet.dst == self.config.mac
                    && self.is_ours_on(segment.dst, ethernet.vlan) =>
            {
                self.counters.in_segs += 1;
                self.segment(now, frame, segment, from, stage, tx)
            }
            _ => self.beside_tcp(now, frame, packet, from, tx),
        }
    }

    /// A frame that is no TCP segment to an address of ours.
    #[cold]
    fn beside_tcp(
        &mut self,
        now: Instant,
        frame: Frame,
        packet: &Packet,
        from: Link,
        tx: &mut Burst,
    ) -> Option<Frame> {
        let to_us = packet.ethernet.dst == self.config.mac;
        let ours = |address| to_us && self.is_ours_on(address, from.vlan);
        match &packet.body {
            Body::Arp(arp) => self.arp(frame, arp, from.vlan, tx),
            Body::Icmp(message) if ours(message.dst) => self.icmp(now, frame, from, message, tx),
            Body::Ndp(packet) if to_us || packet.dst.is_multicast() => {
                self.ndp(frame, packet, from, tx)
            }
            Body::Unspoken(about) if ours(about.dst) => self.unspoken(now, frame, from, about, tx),
            Body::Tcp(_) | Body::Icmp(_) | Body::Ndp(_) | Body::Unspoken(_) | Body::Other => {
                self.counters.rx_not_ours += 1;
                Some(frame)
            }
        }
    }

    /// One TCP segment to an address of ours.
    #[inline(always)]
    fn segment(
        &mut self,
        now: Instant,
        frame: Frame,
        segment: &Segment,
        from: Link,
        stage: &Staged,
        tx: &mut Burst,
    ) -> Option<Frame> {
        // An earlier frame of the burst may have opened or ended the connection; over IPv6, even
        // the last one of its host, whose number is another's now.
        let key = match stage.key {
            Some((key, hash)) if key.family() == Family::V4 => Some((key, hash)),
            Some(_) | None => self.table.hosts.key_of_received(segment).map(|key| {
                let hash = self.table.hash(&key);
                (key, hash)
            }),
        };
        let (owner, hash) = match key {
            Some((key, hash)) => (self.owner(&key, hash, stage), hash),
            None => (Owner::Nobody, 0),
        };
        let slot = match owner {
            Owner::Connection(place) => self.awake(place, now),
            Owner::HalfOpen(place) if completes(segment, self.syns.get(place)) => {
                let Some(slot) = self.give_slot(now, place, hash) else { return Some(frame) };
                slot
            }
            Owner::HalfOpen(place) => return self.half_open(now, frame, segment, from, place, tx),
            Owner::TimeWait(place) => return self.waits_for(now, frame, segment, from, place, tx),
            Owner::Nobody => return self.unconnected(now, frame, segment, from, None, tx),
        };
        self.connected(now, frame, segment, from, slot, tx)
    }

    /// Whose a segment is that has this key and hash. What the stages guessed is seen to first.
    #[inline(always)]
    fn owner(&self, key: &FlowKey, hash: u64, stage: &Staged) -> Owner {
        if let Some(place) = stage.place.filter(|&place| self.table.holds(place, key)) {
            return Owner::Connection(place);
        }
        if let Some(place) = stage.half_open.filter(|&place| self.syns.get(place).key == *key) {
            return Owner::HalfOpen(place);
        }
        if let Some(place) = self.table.find_hashed(key, hash) {
            return Owner::Connection(place);
        }
        let half_open = self.syns.find(key, hash).map(Owner::HalfOpen);
        half_open
            .or_else(|| self.waits.find(key, hash).map(Owner::TimeWait))
            .unwrap_or(Owner::Nobody)
    }

    /// A segment to the connection in a slot of the table.
    #[inline(always)]
    pub(super) fn connected(
        &mut self,
        now: Instant,
        frame: Frame,
        segment: &Segment,
        from: Link,
        slot: u32,
        tx: &mut Burst,
    ) -> Option<Frame> {
        let before = self.tcb(slot).state();
        let room = self.app.window(&self.table.states[slot as usize]);
        let paths = &mut self.table.paths;
        let mut env = Env { config: &self.config.tcp, now, room, nagle: false, paths };
        let mut arrival = Arrival::default();
        self.table.tcbs[slot as usize].arrives_into(segment, &mut env, &mut arrival);
        if self.withholds(now, &arrival, segment, slot) {
            self.table.tcbs[slot as usize].withhold_ack();
        }
        self.counters.congestion_echoes += u64::from(arrival.echoed);
        if arrival.reopen {
            return self.reopen(now, frame, segment, from, slot, tx);
        }
        if arrival.refuse {
            return self.refuse(frame, segment, from, tx);
        }
        self.report(slot, now, &frame, segment, &arrival);
        self.conclude(slot, before, &arrival, now);
        Some(frame)
    }

    /// A SYN that may open what stands in TIME-WAIT anew.
    #[cold]
    fn reopen(
        &mut self,
        now: Instant,
        frame: Frame,
        syn: &Segment,
        from: Link,
        slot: u32,
        tx: &mut Burst,
    ) -> Option<Frame> {
        if !self.listens(syn.dst_port) {
            // Nobody would take it over: what is in TIME-WAIT stays there.
            return self.refuse(frame, syn, from, tx);
        }
        // The old numbers are beyond doubt over: the new connection starts past them (RFC 9293
        // s3.6.1, MAY-2).
        let floor = self.tcb(slot).snd_end();
        self.in_time_wait -= 1;
        self.counters.time_wait_recycled += 1;
        self.table.tcbs[slot as usize].abort();
        self.discard(slot);
        self.unconnected(now, frame, syn, from, Some(floor), tx)
    }

    /// A segment to a connection that has retired to TIME-WAIT. What is owed for it goes back in
    /// the frame that it came in.
    #[cold]
    fn waits_for(
        &mut self,
        now: Instant,
        frame: Frame,
        segment: &Segment,
        from: Link,
        place: u32,
        tx: &mut Burst,
    ) -> Option<Frame> {
        let mut tcb = self.waits.get(place).thaw(&self.config.tcp, now);
        let (config, paths) = (&self.config.tcp, &mut self.table.paths);
        let mut env = Env { config, now, room: 0, nagle: false, paths };
        let arrival = tcb.arrives(segment, &mut env);
        let node = self.nodes.waits() + place;
        let answers = self.lay_out_answer(now, &mut tcb, &arrival, segment, node);
        if arrival.reopen && !self.listens(segment.dst_port) {
            // Nobody would take it over: what is in TIME-WAIT stays there.
            return self.refuse(frame, segment, from, tx);
        }
        if arrival.reopen || tcb.state() == State::Closed {
            let wait = self.waits.take(place);
            self.forget(&wait);
        }
        if arrival.reopen {
            self.counters.time_wait_recycled += 1;
            return self.unconnected(now, frame, segment, from, Some(tcb.snd_end()), tx);
        }
        if arrival.refuse {
            return self.refuse(frame, segment, from, tx);
        }
        if tcb.state() == State::TimeWait {
            tcb.forget();
            self.waits.set(place, tcb.freeze(&self.config.tcp));
        }
        if !answers {
            return Some(frame);
        }
        let link = self.neighbors.link(tcb.neighbor).unwrap_or(from);
        self.reply(frame, link, &tcb.key, tx)
    }

    /// Tells the application what the segment did, in the order in which it happened.
    #[inline(always)]
    fn report(
        &mut self,
        slot: u32,
        now: Instant,
        frame: &Frame,
        segment: &Segment,
        arrival: &Arrival,
    ) {
        if arrival.established {
            self.counters.established += 1;
            self.tell(slot, now, |app, conn| app.established(conn));
        }
        if arrival.acked_bytes > 0 {
            self.counters.tx_payload_bytes += u64::from(arrival.acked_bytes);
            let acked = self.tcb(slot).acknowledged();
            self.tell(slot, now, |app, conn| app.acknowledged(conn, acked));
        }
        if arrival.urgent_bytes > 0 {
            self.report_urgent(slot, now, arrival.urgent_bytes);
        }
        let (skip, len) = arrival.text;
        if len > 0 {
            self.counters.rx_payload_bytes += u64::from(len);
            let at = usize::from(segment.payload_at) + usize::from(skip);
            let text = &frame.bytes()[at..at + usize::from(len)];
            self.tell(slot, now, |app, conn| app.received(conn, text));
        }
        if let Some((start, len)) = arrival.ahead {
            let at = usize::from(segment.payload_at);
            let text = &frame.bytes()[at..at + usize::from(len)];
            self.table.paths.store(&self.table.tcbs[slot as usize], start, text);
        }
        if arrival.joined > 0 {
            self.counters.rx_payload_bytes += u64::from(arrival.joined);
            self.deliver_joined(slot, now);
        }
        // In TIME-WAIT nothing more can be sent: the application hears of the end instead.
        if arrival.fin && !arrival.time_wait {
            self.tell(slot, now, |app, conn| app.peer_closed(conn));
        }
    }

    #[cold]
    fn report_urgent(&mut self, slot: u32, now: Instant, bytes: u32) {
        self.counters.urgent += 1;
        self.tell(slot, now, |app, conn| app.urgent(conn, bytes));
    }

    /// Hands over what was held ahead of a gap that is filled now.
    #[cold]
    fn deliver_joined(&mut self, slot: u32, now: Instant) {
        let tcb = &self.table.tcbs[slot as usize];
        if tcb.state() == State::Closed {
            return;
        }
        let mut conn = Conn::new(&mut self.table.states[slot as usize], now, tcb.key, tcb.listener);
        for piece in self.table.paths.in_order(tcb) {
            self.app.received(&mut conn, piece);
        }
        let owes = conn.owes();
        self.table.paths.give_back(tcb);
        self.mark(slot, owes, now);
    }

    #[inline(always)]
    fn conclude(&mut self, slot: u32, before: State, arrival: &Arrival, now: Instant) {
        if arrival.time_wait && self.tcb(slot).state() == State::TimeWait {
            self.begin_time_wait(slot, now);
        }
        match arrival.ended {
            Some(end) => self.end(slot, before, end, now),
            // An RST in TIME-WAIT: the application heard of the end before.
            None if before == State::TimeWait && self.tcb(slot).state() == State::Closed => {
                self.in_time_wait -= 1;
                self.discard(slot);
            }
            None => self.settle(slot, now),
        }
    }

    /// Leaves a frame that belongs to no connection here to the next worker, which may have it.
    /// Answers it if every worker has seen it: the last deals with it as if there were no other. It
    /// counts as received where it ends.
    pub(super) fn pass_on(&mut self, frame: Frame) -> Option<Frame> {
        self.pass_on_by(frame, 1)
    }

    /// [`Engine::pass_on`] to the worker `places` onward: those between can't have it.
    fn pass_on_by(&mut self, mut frame: Frame, places: u16) -> Option<Frame> {
        let passes = frame.passes() + places;
        if passes >= self.workers || places == 0 {
            return Some(frame);
        }
        frame.set_passes(passes);
        self.counters.strays_out += 1;
        self.counters.rx_frames -= 1;
        self.counters.rx_bytes -= frame.bytes().len() as u64;
        self.strays.push((places, frame));
        None
    }

    /// [`Engine::pass_on`] for a TCP segment. If it is to a port that only clients use, the
    /// four-tuple tells whose it is, and it takes one step instead of half a round.
    #[inline(never)]
    pub(super) fn pass_on_segment(&mut self, frame: Frame, segment: &Segment) -> Option<Frame> {
        let workers = self.workers;
        let listens = self.listeners[usize::from(segment.dst_port)] != NO_LISTENER;
        let places = match &self.config.ranges {
            Some(ranges) if ranges.shares == workers && !listens => {
                let owner = ranges.worker_of(&Endpoints::of_received(segment));
                (u32::from(owner) + u32::from(workers - ranges.share)) % u32::from(workers)
            }
            Some(_) | None => 1,
        };
        let kept = self.pass_on_by(frame, places as u16);
        self.counters.in_segs -= u64::from(kept.is_none());
        kept
    }

    /// Drops a segment that its state has no answer for, unless another worker's has.
    #[cold]
    pub(super) fn drop_segment(&mut self, frame: Frame, segment: &Segment) -> Option<Frame> {
        let frame = self.pass_on_segment(frame, segment)?;
        self.counters.rx_tcp_dropped += 1;
        Some(frame)
    }

    /// Makes what a connection without a slot owes for a segment what is outgoing; false if that is
    /// nothing. `node` as in [`Engine::withholds`].
    pub(super) fn lay_out_answer(
        &mut self,
        now: Instant,
        tcb: &mut Tcb,
        arrival: &Arrival,
        segment: &Segment,
        node: u32,
    ) -> bool {
        if self.withholds(now, arrival, segment, node) {
            tcb.withhold_ack();
        }
        let (config, paths) = (&self.config.tcp, &mut self.table.paths);
        let room = self.app.window(&A::State::default());
        let mut env = Env { config, now, room, nagle: false, paths };
        tcb.output_into(&mut env, &mut self.outgoing)
    }
}

#[cold]
fn count_malformed(counters: &mut Counters, why: Malformed) {
    let (counter, tcp) = match why {
        Malformed::Truncated => (&mut counters.rx_truncated, false),
        Malformed::IpHeader => (&mut counters.rx_ip_header, false),
        Malformed::IpLength => (&mut counters.rx_ip_length, false),
        Malformed::IpChecksum => (&mut counters.rx_ip_checksum, false),
        Malformed::IpExtension => (&mut counters.rx_ip_extension, false),
        Malformed::Fragment => (&mut counters.rx_fragment, false),
        Malformed::Martian => (&mut counters.rx_martian, false),
        Malformed::TcpHeader => (&mut counters.rx_tcp_header, true),
        Malformed::TcpChecksum => (&mut counters.rx_tcp_checksum, true),
        Malformed::TcpOption => (&mut counters.rx_tcp_option, true),
        Malformed::TcpPort => (&mut counters.rx_tcp_port, true),
        Malformed::Arp => (&mut counters.rx_arp_malformed, false),
        Malformed::Icmp => (&mut counters.rx_icmp_malformed, false),
        Malformed::Ndp => (&mut counters.rx_ndp_malformed, false),
    };
    *counter += 1;
    // RFC 4022: InSegs counts segments in error too.
    counters.in_segs += u64::from(tcp);
    counters.in_errs += u64::from(tcp);
}
