//! What is answered without a connection, in the very frame that asked: ICMP echo and errors, RST.

use super::Engine;
use super::neighbors::Link;
use crate::app::{App, SoftError};
use crate::flow::Endpoints;
use crate::frame::{Burst, Frame};
use crate::tcp::{End, Seq, State};
use crate::time::{Instant, Span};
use crate::wire::Family;
use crate::wire::icmp::{self, Kind, Quoted, Unspoken};
use crate::wire::segment::{self, Segment};
use crate::wire::tcp::Flags;
use std::net::{IpAddr, SocketAddr};

/// ICMP errors sent a second, at the most (RFC 4443 s2.4 f: they MUST be limited): plenty for
/// whoever looks for a port, and no amplifier.
const ERRORS_PER_SECOND_MAX: u32 = 1000;

/// ICMP errors that may still be sent in the second that began at `since`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Complaints {
    since: Instant,
    left: u32,
}

impl Complaints {
    pub(super) fn new(now: Instant) -> Complaints {
        Complaints { since: now, left: ERRORS_PER_SECOND_MAX }
    }

    fn take(&mut self, now: Instant) -> bool {
        if now >= self.since + Span::from_secs(1) {
            *self = Complaints::new(now);
        }
        let allowed = self.left > 0;
        self.left -= u32::from(allowed);
        allowed
    }
}

impl<A: App> Engine<A> {
    /// ICMP to an address of ours: an echo request is answered, an error goes to the connection
    /// that it quotes (RFC 9293 s3.9.2.2, MUST-54).
    #[cold]
    pub(super) fn icmp(
        &mut self,
        now: Instant,
        mut frame: Frame,
        from: Link,
        message: &icmp::Message,
        tx: &mut Burst,
    ) -> Option<Frame> {
        match message.kind {
            Kind::EchoRequest { .. } if !self.may_be_answered(message.src) => {
                self.counters.rx_martian += 1;
                Some(frame)
            }
            Kind::EchoRequest { data_at, data_len } => {
                let ethertype = Family::of(message.src).ethertype();
                let ethernet = self.ethernet(from, ethertype);
                let (ip_id, ttl) = (self.next_ip_id(), self.config.ttl);
                let data = (data_at, data_len);
                let len =
                    icmp::emit_echo_reply(frame.bytes_mut(), &ethernet, message, data, ip_id, ttl);
                frame.truncate(len);
                self.answer(frame, tx)
            }
            Kind::Error { error, quoted: Some(quoted) } => {
                if matches!(error, icmp::Error::SourceQuench | icmp::Error::Redirect) {
                    // Source quench is dropped (MUST-55).
                    self.counters.rx_icmp_ignored += 1;
                    return Some(frame);
                }
                let Some(slot) = self.quoted(&quoted) else {
                    let frame = self.pass_on(frame)?;
                    self.counters.rx_icmp_ignored += 1;
                    return Some(frame);
                };
                if self.table.is_resting(slot) {
                    // Nothing is in flight that it could be about.
                    self.counters.rx_icmp_ignored += 1;
                    return Some(frame);
                }
                let seq = Seq(quoted.seq);
                // Soft errors never abort (RFC 9293 s3.9.2.2, MUST-56).
                match error {
                    icmp::Error::TooBig { mtu } => self.path_mtu(slot, now, seq, mtu),
                    icmp::Error::Refused => self.error_about(slot, now, seq, SoftError::Refused),
                    icmp::Error::Unreachable => {
                        self.error_about(slot, now, seq, SoftError::Unreachable);
                    }
                    icmp::Error::TimeExceeded => {
                        self.error_about(slot, now, seq, SoftError::TimeExceeded);
                    }
                    icmp::Error::ParameterProblem => {
                        self.error_about(slot, now, seq, SoftError::ParameterProblem);
                    }
                    icmp::Error::SourceQuench | icmp::Error::Redirect => {}
                }
                Some(frame)
            }
            Kind::Error { quoted: None, .. } | Kind::EchoReply | Kind::Other => {
                self.counters.rx_icmp_ignored += 1;
                Some(frame)
            }
        }
    }

    /// The place of the connection whose segment an error quotes.
    fn quoted(&self, quoted: &Quoted) -> Option<u32> {
        self.find(&Endpoints {
            local: SocketAddr::new(quoted.src, quoted.src_port),
            remote: SocketAddr::new(quoted.dst, quoted.dst_port),
        })
    }

    /// An error about the segment of ours that begins at `seq`. A hard one (RFC 9293 s3.9.2.2,
    /// SHLD-26) is believed only where RFC 5927 s4 and s5.2 would: in SYN-SENT, quoting the very
    /// SYN that is outstanding. Every other one goes to the application (MUST-47, SHLD-25), if what
    /// it quotes is in flight (RFC 5927 s4.1).
    fn error_about(&mut self, slot: u32, now: Instant, seq: Seq, error: SoftError) {
        let tcb = &mut self.table.tcbs[slot as usize];
        if !tcb.is_in_flight(seq) {
            self.counters.rx_icmp_ignored += 1;
            return;
        }
        if tcb.state() == State::SynSent && error == SoftError::Refused {
            tcb.abort();
            return self.end(slot, State::SynSent, End::Unreachable, now);
        }
        self.counters.soft_errors += 1;
        self.tell(slot, now, |app, conn| app.soft_error(conn, error));
        self.settle(slot, now);
    }

    /// The segment that begins at `seq` was too big for a link of `mtu` bytes (RFC 1191, RFC 8201).
    fn path_mtu(&mut self, slot: u32, now: Instant, seq: Seq, mtu: u16) {
        let tcb = &mut self.table.tcbs[slot as usize];
        if tcb.path_mtu(seq, mtu, &mut self.table.paths) {
            self.counters.path_mtus += 1;
            self.settle(slot, now);
        } else {
            self.counters.rx_icmp_ignored += 1;
        }
    }

    /// A datagram to us that we do not understand.
    #[cold]
    pub(super) fn unspoken(
        &mut self,
        now: Instant,
        mut frame: Frame,
        from: Link,
        about: &Unspoken,
        tx: &mut Burst,
    ) -> Option<Frame> {
        if !self.may_be_answered(about.src) {
            self.counters.rx_martian += 1;
            return Some(frame);
        }
        self.counters.rx_not_ours += 1;
        if !self.complaints.take(now) {
            self.counters.errors_withheld += 1;
            return Some(frame);
        }
        let at = usize::from(about.quote_at);
        let mut quote = [0; icmp::QUOTE_MAX];
        let quote = &mut quote[..usize::from(about.quote_len)];
        quote.copy_from_slice(&frame.bytes()[at..at + quote.len()]);
        let ethernet = self.ethernet(from, Family::of(about.src).ethertype());
        frame.reset(icmp::error_len(from.vlan.is_some(), about));
        let (ip_id, ttl) = (self.next_ip_id(), self.config.ttl);
        icmp::emit_error(frame.bytes_mut(), &ethernet, about, quote, ip_id, ttl);
        self.answer(frame, tx)
    }

    /// RST for a segment that belongs to no connection of any worker (RFC 9293 s3.10.7.1), never
    /// for an RST.
    #[cold]
    pub(super) fn refuse(
        &mut self,
        frame: Frame,
        segment: &Segment,
        from: Link,
        tx: &mut Burst,
    ) -> Option<Frame> {
        let mut frame = self.pass_on_segment(frame, segment)?;
        if segment.flags.has(Flags::RST) {
            self.counters.rx_tcp_dropped += 1;
            return Some(frame);
        }
        // "If the ACK bit is off, sequence number zero is used,
        // <SEQ=0><ACK=SEG.SEQ+SEG.LEN><CTL=RST,ACK>. If the ACK bit is on, <SEQ=SEG.ACK><CTL=RST>."
        let (seq, ack, flags) = match segment.flags.has(Flags::ACK) {
            true => (segment.ack, 0, Flags::RST),
            false => (0, segment.seq.wrapping_add(segment.seq_len()), Flags::RST | Flags::ACK),
        };
        let reset = Segment {
            src: segment.dst,
            dst: segment.src,
            src_port: segment.dst_port,
            dst_port: segment.src_port,
            seq,
            ack,
            flags,
            ..Segment::BLANK
        };
        let family = segment.family();
        frame.reset(segment::header_len(from.vlan.is_some(), family, &reset.options));
        let ethernet = self.ethernet(from, family.ethertype());
        let ip_id = self.next_ip_id();
        segment::emit(frame.bytes_mut(), &ethernet, &reset, ip_id, self.config.ttl);
        let dropped = self.answer(frame, tx);
        if dropped.is_none() {
            self.counters.out_segs += 1;
            self.counters.out_rsts += 1;
        }
        dropped
    }

    /// True if `address` can be another host's: whoever has ours, or everyone's, lies, and an
    /// answer would go to the one lied about (RFC 1122 s3.2.1.3, RFC 9293 s3.9.2.3, MUST-63).
    pub(super) fn may_be_answered(&self, address: IpAddr) -> bool {
        self.routes.is_one_host(address) && !self.is_ours(address)
    }

    /// Sends an answer if there is room; else it is dropped and counted: whoever asked will ask
    /// again.
    pub(super) fn answer(&mut self, frame: Frame, tx: &mut Burst) -> Option<Frame> {
        if tx.room() == 0 {
            self.counters.answers_dropped += 1;
            return Some(frame);
        }
        self.hand_over(frame, tx);
        None
    }
}
