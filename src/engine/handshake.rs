//! LISTEN and SYN-RECEIVED (RFC 9293 s3.10.7.2, s3.10.7.4): a SYN is noted in the cache, and gets a
//! slot of the table once the peer has acknowledged our SYN-ACK. What the cache has no room for is
//! answered all the same, with nothing kept of it: by a SYN cookie (RFC 4987 s3.6).

use super::egress::lay_out;
use super::neighbors::Link;
use super::syn_cache::NO_NEIGHBOR;
use super::{Engine, NO_LISTENER};
use crate::app::App;
use crate::flow::{Endpoints, FlowKey};
use crate::frame::{Burst, Frame, Pool};
use crate::tcp::syncookie::COOKIE_LIFE;
use crate::tcp::{self, CookiesWhen, End, Env, Expiry, Seq, State, SynReceived, Tcb};
use crate::time::Instant;
use crate::wire::ethernet::Mac;
use crate::wire::segment::Segment;
use crate::wire::tcp::Flags;

/// SYN-ACKs sent again while the SYN cache is [pressed](super::syn_cache::SynCache::is_pressed), at
/// the most: 7 s from the first to the end.
const RETRIES_PRESSED: u8 = 2;

impl<A: App> Engine<A> {
    /// A segment to no connection (RFC 9293 s3.10.7.1-2): CLOSED, or LISTEN if the port has a
    /// listener. `floor` is the number after the last one of the connection that the SYN replaces.
    pub(super) fn unconnected(
        &mut self,
        now: Instant,
        frame: Frame,
        segment: &Segment,
        from: Link,
        floor: Option<Seq>,
        tx: &mut Burst,
    ) -> Option<Frame> {
        if !self.may_be_answered(segment.src) {
            self.counters.rx_martian += 1;
            return Some(frame);
        }
        // "First, check for a RST: An incoming RST should be ignored."
        if segment.flags.has(Flags::RST) {
            return self.drop_segment(frame, segment);
        }
        if !self.listens(segment.dst_port) {
            return self.refuse(frame, segment, from, tx);
        }
        // "Second, check for an ACK: Any acknowledgment is bad if it arrives on a connection still
        // in the LISTEN state." Unless what it acknowledges is a cookie.
        if segment.flags.has(Flags::ACK) {
            return match self.redeem(now, segment) {
                Some((syn, iss)) => self.accept_cookie(now, frame, segment, from, (&syn, iss), tx),
                None => self.refuse(frame, segment, from, tx),
            };
        }
        // "Third, check for a SYN"; "Fourth, other data or control: ... drop the segment".
        if !segment.flags.has(Flags::SYN) {
            return self.drop_segment(frame, segment);
        }
        if self.table.is_full() {
            self.counters.listen_overflows += 1;
            return Some(frame);
        }
        if self.config.tcp.syncookies == CookiesWhen::Always {
            return self.answer_with_cookie(now, frame, segment, from, floor, tx);
        }
        let frame = match self.note_syn(now, frame, segment, from, floor, tx) {
            Ok(frame) => return frame,
            Err(frame) => frame,
        };
        if self.config.tcp.syncookies == CookiesWhen::Off {
            self.counters.req_q_full_drop += 1;
            return Some(frame);
        }
        self.counters.req_q_full_do_cookies += 1;
        self.answer_with_cookie(now, frame, segment, from, floor, tx)
    }

    pub(super) fn listens(&self, port: u16) -> bool {
        self.listeners[port as usize] != NO_LISTENER && !self.stopping
    }

    /// Takes down a SYN, and answers it in the frame that it came in if there is room to send.
    ///
    /// # Errors
    /// The frame, if there is no room to take it down.
    #[inline(always)]
    fn note_syn(
        &mut self,
        now: Instant,
        frame: Frame,
        syn: &Segment,
        from: Link,
        floor: Option<Seq>,
        tx: &mut Burst,
    ) -> Result<Option<Frame>, Frame> {
        let endpoints = Endpoints::of_received(syn);
        if floor.is_some() && self.syns.is_full() {
            self.make_way(now);
        }
        let key = match self.syns.is_full() {
            true => None,
            false => self.table.hosts.hold(&endpoints),
        };
        let Some(key) = key else { return Err(frame) };
        let mut iss = tcp::isn(&self.secret, &endpoints, now);
        if let Some(floor) = floor.filter(|floor| !iss.after(*floor)) {
            iss = floor.plus(1);
        }
        let neighbor = self.neighbors.way(&key).or_else(|| self.way_back(&key, syn));
        if let Some(neighbor) = neighbor {
            self.neighbors.hold(neighbor);
        }
        let mut tcb = Tcb::begun(key);
        tcb.listener = self.listeners[syn.dst_port as usize];
        tcb.neighbor = neighbor.unwrap_or(NO_NEIGHBOR);
        tcb.open_passive(syn, iss, &self.config.tcp, now);
        let at_once = tx.room() > 0 && !self.syns.owes();
        if at_once {
            self.lay_out_syn_ack(now, &mut tcb);
        }
        let place = self.syns.insert(&key, from.mac);
        tcb.freeze_syn(self.syns.get_mut(place));
        self.counters.passive_opens += 1;
        if !at_once {
            self.syns.owe(place);
            return Ok(Some(frame));
        }
        self.send_syn_ack(now, place, frame, tx);
        Ok(None)
    }

    /// The next hop to who sent a SYN, if we know it. Without a route the answer goes where the SYN
    /// came from, as to a next hop that is unknown it does for the time being: strangers do not
    /// make us ask for one.
    #[inline(never)] // Out of the way of ways that are remembered.
    fn way_back(&mut self, key: &FlowKey, syn: &Segment) -> Option<u16> {
        let neighbor = self.neighbors.known(self.routes.next_hop(syn.dst, syn.src))?;
        self.neighbors.remember(key, neighbor);
        Some(neighbor)
    }

    /// Gives up a connection of a full cache for a SYN whose answer must be beyond the numbers of
    /// the connection that it replaces, which no cookie can promise.
    #[cold]
    fn make_way(&mut self, now: Instant) {
        if let Some(place) = self.syns.victim() {
            self.counters.req_q_full_drop += 1;
            self.end_half_open(place, End::SynTimeout, now);
        }
    }

    /// Makes the SYN-ACK of a connection what is outgoing.
    fn lay_out_syn_ack(&mut self, now: Instant, tcb: &mut Tcb) {
        let (config, paths) = (&self.config.tcp, &mut self.table.paths);
        let room = self.app.window(&A::State::default());
        let mut env = Env { config, now, room, nagle: false, paths };
        tcb.output_into(&mut env, &mut self.outgoing);
    }

    /// Sends the SYN-ACK that is outgoing, of what is at a place. There is room: the caller has
    /// looked.
    fn send_syn_ack(&mut self, now: Instant, place: u32, mut frame: Frame, tx: &mut Burst) {
        self.arm_syn(place, now);
        let (key, link) = (self.syns.get(place).key, self.link_of(place));
        lay_out(&mut frame, link, &key, &self.outgoing.segment);
        self.write(&key, link, self.config.tcp.dscp, &mut frame);
        self.count_sent();
        self.hand_over(frame, tx);
    }

    /// A segment to a connection in SYN-RECEIVED that does not complete it. It is answered, if it
    /// has to be, in the frame that it came in.
    #[cold]
    pub(super) fn half_open(
        &mut self,
        now: Instant,
        frame: Frame,
        segment: &Segment,
        from: Link,
        place: u32,
        tx: &mut Burst,
    ) -> Option<Frame> {
        let syn = self.syns.get(place);
        let mut tcb = Tcb::begun(syn.key);
        tcb.resume(syn, now);
        let (config, paths) = (&self.config.tcp, &mut self.table.paths);
        let room = self.app.window(&A::State::default());
        let mut env = Env { config, now, room, nagle: false, paths };
        let arrival = tcb.arrives(segment, &mut env);
        let node = self.nodes.syn(place);
        let answers = self.lay_out_answer(now, &mut tcb, &arrival, segment, node);
        if arrival.refuse {
            return self.refuse(frame, segment, from, tx);
        }
        if let Some(end) = arrival.ended {
            self.end_half_open(place, end, now);
            return Some(frame);
        }
        tcb.forget();
        tcb.freeze_syn(self.syns.get_mut(place));
        if !answers {
            return Some(frame);
        }
        let link = self.link_of(place);
        self.reply(frame, link, &tcb.key, tx)
    }

    /// Takes a connection out of the cache into a slot of the table; `None`, and it stays as it is,
    /// if there is no slot, or no place for its next hop.
    #[inline]
    pub(super) fn give_slot(&mut self, now: Instant, place: u32, hash: u64) -> Option<u32> {
        if self.table.is_full() {
            self.counters.listen_overflows += 1;
            return None;
        }
        let SynReceived { key, neighbor, .. } = *self.syns.get(place);
        let neighbor = match neighbor {
            NO_NEIGHBOR => self.hold_neighbor(now, &key, self.syns.from(place))?,
            known => known,
        };
        let slot = self.table.insert(&key, hash, A::State::default())?;
        let tcb = &mut self.table.tcbs[slot as usize];
        tcb.resume(self.syns.get(place), now);
        tcb.neighbor = neighbor;
        self.syns.remove(place, hash);
        if self.stopping {
            // It was not yet there to be asked.
            self.tell(slot, now, |app, conn| app.drain(conn));
        }
        Some(slot)
    }

    /// Holds the next hop of a connection; one that we did not know has the MAC address `from`.
    fn hold_neighbor(&mut self, now: Instant, key: &FlowKey, from: Mac) -> Option<u16> {
        let Endpoints { local, remote } = self.table.hosts.endpoints(key);
        let hop = self.routes.next_hop(local.ip(), remote.ip());
        let neighbor = self.neighbors.number(hop, Some(from), now);
        match neighbor {
            Some(neighbor) => self.neighbors.hold(neighbor),
            None => self.counters.listen_overflows += 1,
        }
        neighbor
    }

    /// Sends the SYN-ACKs that are due, in the order in which they became so, until `tx` is full.
    pub(super) fn send_syn_acks(&mut self, now: Instant, pool: &mut Pool, tx: &mut Burst) {
        while tx.room() > 0 {
            let Some(place) = self.syns.front() else { return };
            let Some(frame) = pool.take() else {
                self.counters.tx_no_frame += 1;
                return;
            };
            self.syns.pop();
            let syn = self.syns.get(place);
            let mut tcb = Tcb::begun(syn.key);
            tcb.resume_owing(syn, now);
            self.lay_out_syn_ack(now, &mut tcb);
            tcb.freeze_syn(self.syns.get_mut(place));
            self.send_syn_ack(now, place, frame, tx);
        }
    }

    /// The time of a connection in SYN-RECEIVED has come, or that of one that had its place before.
    pub(super) fn expire_syn(&mut self, place: u32, now: Instant) {
        if !self.syns.is_filed(place) {
            return;
        }
        let syn = self.syns.get(place);
        let mut tcb = Tcb::begun(syn.key);
        tcb.resume(syn, now);
        let mut config = self.config.tcp;
        if self.syns.is_pressed() {
            config.syn_retries = config.syn_retries.min(RETRIES_PRESSED);
        }
        let paths = &mut self.table.paths;
        let mut env = Env { config: &config, now, room: 0, nagle: false, paths };
        match tcb.expires(None, 0, &mut env) {
            Expiry::Ended(end) => return self.end_half_open(place, end, now),
            Expiry::ResendSyn => {
                self.counters.timeouts += 1;
                if tcb.is_in_doubt() && tcb.neighbor != NO_NEIGHBOR {
                    self.neighbors.doubt(tcb.neighbor, now);
                }
                tcb.freeze_syn(self.syns.get_mut(place));
                self.syns.owe(place);
            }
            Expiry::Early
            | Expiry::Resend
            | Expiry::Reorder
            | Expiry::ProbeTail
            | Expiry::ProbeWindow
            | Expiry::Acknowledge
            | Expiry::ProbeKeepalive
            | Expiry::TimeWaitOver => {}
        }
        self.arm_syn(place, now);
    }

    /// Files the time of what is at a place.
    fn arm_syn(&mut self, place: u32, now: Instant) {
        self.wheel.arm(self.nodes.syn(place), self.syns.get(place).resend_at(now));
    }

    /// Where the SYN-ACK goes: to its next hop, or where the SYN came from.
    fn link_of(&self, place: u32) -> Link {
        let syn = self.syns.get(place);
        let known = match syn.neighbor {
            NO_NEIGHBOR => None,
            known => self.neighbors.link(known),
        };
        known.unwrap_or_else(|| {
            let local = self.table.hosts.address(syn.key.local);
            let mac = self.syns.from(place);
            Link { mac, vlan: self.routes.subnet_of(local).and_then(|subnet| subnet.vlan) }
        })
    }

    /// A connection goes back to LISTEN (RFC 9293 s3.5, MUST-11).
    fn end_half_open(&mut self, place: u32, end: End, now: Instant) {
        let SynReceived { key, neighbor, .. } = *self.syns.get(place);
        self.syns.remove(place, self.table.hash(&key));
        if neighbor != NO_NEIGHBOR {
            self.neighbors.leave(neighbor);
        }
        self.table.hosts.leave(&key);
        self.count_end(State::SynReceived, end);
        self.app.ended(now, &mut A::State::default(), end);
    }

    /// Answers a SYN with a cookie, in the frame that it came in.
    #[cold]
    fn answer_with_cookie(
        &mut self,
        now: Instant,
        frame: Frame,
        syn: &Segment,
        from: Link,
        floor: Option<Seq>,
        tx: &mut Burst,
    ) -> Option<Frame> {
        // It has its numbers for as long as it takes to write the answer.
        let Some(key) = self.table.hosts.hold(&Endpoints::of_received(syn)) else {
            self.counters.req_q_full_drop += 1;
            return Some(frame);
        };
        let mut tcb = Tcb::begun(key);
        let (config, paths) = (&self.config.tcp, &mut self.table.paths);
        let room = self.app.window(&A::State::default());
        let mut env = Env { config, now, room, nagle: false, paths };
        let iss = self.syncookies.answer(&mut tcb, syn, &mut env, &mut self.outgoing);
        let dropped = match floor.is_none_or(|floor| iss.after(floor)) {
            true => self.reply(frame, from, &key, tx),
            // The next SYN finds no old connection in its way.
            false => Some(frame),
        };
        self.table.hosts.leave(&key);
        match dropped {
            None => {
                self.counters.syncookies_sent += 1;
                self.cookies_until = now + COOKIE_LIFE;
            }
            Some(_) => self.counters.req_q_full_drop += 1,
        }
        dropped
    }

    /// The SYN whose cookie a segment acknowledges, and the cookie, if one was sent of late.
    #[cold]
    fn redeem(&mut self, now: Instant, segment: &Segment) -> Option<(Segment, Seq)> {
        if now >= self.cookies_until {
            return None;
        }
        let redeemed = self.syncookies.redeem(segment, now);
        self.counters.syncookies_failed += u64::from(redeemed.is_none());
        redeemed
    }

    /// A cookie has come back: the connection begins as if its SYN had been noted.
    #[cold]
    fn accept_cookie(
        &mut self,
        now: Instant,
        frame: Frame,
        segment: &Segment,
        from: Link,
        (syn, iss): (&Segment, Seq),
        tx: &mut Burst,
    ) -> Option<Frame> {
        let key = match self.table.is_full() {
            true => None,
            false => self.table.hosts.hold(&Endpoints::of_received(syn)),
        };
        let Some(key) = key else {
            self.counters.listen_overflows += 1;
            return Some(frame);
        };
        let Some(neighbor) = self.hold_neighbor(now, &key, from.mac) else {
            self.table.hosts.leave(&key);
            return Some(frame);
        };
        let slot = self.table.insert(&key, self.table.hash(&key), A::State::default())?;
        let tcb = &mut self.table.tcbs[slot as usize];
        (tcb.listener, tcb.neighbor) = (self.listeners[syn.dst_port as usize], neighbor);
        let room = self.app.window(&A::State::default());
        let (config, paths) = (&self.config.tcp, &mut self.table.paths);
        tcb.resume_cookie(syn, iss, &mut Env { config, now, room, nagle: false, paths });
        self.counters.passive_opens += 1;
        self.counters.syncookies_recv += 1;
        self.connected(now, frame, segment, from, slot, tx)
    }

    /// Sends what is outgoing in the frame of what asked for it.
    pub(super) fn reply(
        &mut self,
        mut frame: Frame,
        link: Link,
        key: &FlowKey,
        tx: &mut Burst,
    ) -> Option<Frame> {
        lay_out(&mut frame, link, key, &self.outgoing.segment);
        self.write(key, link, self.config.tcp.dscp, &mut frame);
        let dropped = self.answer(frame, tx);
        if dropped.is_none() {
            self.count_sent();
        }
        dropped
    }
}

/// True if `segment` acknowledges the SYN-ACK, which makes the connection ESTABLISHED.
#[inline(always)]
pub(super) fn completes(segment: &Segment, syn: &SynReceived) -> bool {
    let controls = [Flags::SYN, Flags::RST, Flags::ACK];
    let acks = controls.map(|flag| segment.flags.has(flag)) == [false, false, true];
    acks && syn.is_acknowledged_by(Seq(segment.ack))
}
