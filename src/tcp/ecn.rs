//! Explicit congestion notification (RFC 3168; RFC 9293 s3.8.2, SHLD-8): agreed on SYNs, marked on
//! new text, echoed to the sender until it says that it has heard. What the echo does to a sender,
//! `flight` knows.

use super::output::Transmit;
use super::state::State;
use super::tcb::{Tcb, flag};
use super::{Config, Ecn};
use crate::wire::segment::Segment;
use crate::wire::tcp::Flags;

/// The ECN bits of the IP header's octet (RFC 3168 s5): of an ECN-capable transport, and congestion
/// experienced.
const ECT_0: u8 = 0b10;
const CE: u8 = 0b11;

impl Tcb {
    /// True if ECN is agreed on by the peer's SYN (SHLD-8; RFC 3168 s6.1.1): with ECE and CWR it
    /// offers ECN, a SYN-ACK with ECE alone agrees. In simultaneous open nobody agrees.
    pub(super) fn agrees_on_ecn(&self, segment: &Segment, config: &Config) -> bool {
        let (echo, reduced) = (segment.flags.has(Flags::ECE), segment.flags.has(Flags::CWR));
        match (self.state(), segment.flags.has(Flags::ACK)) {
            // "If a host has sent at least one non-ECN-setup SYN", it does not.
            (State::SynSent, true) => {
                config.ecn == Ecn::Request && !self.has(flag::SYN_RESENT) && echo && !reduced
            }
            (State::SynSent, false) => false,
            _ => config.ecn != Ecn::Off && echo && reduced,
        }
    }

    /// What our SYN or SYN-ACK says. A SYN that is sent again makes no offer: the first may have
    /// been dropped for it (RFC 3168 s6.1.1.1).
    pub(super) fn offer_ecn(&self, config: &Config, answer: bool, again: bool) -> Flags {
        match (answer, self.has(flag::ECN), config.ecn) {
            (true, true, _) => Flags::ECE,
            (false, _, Ecn::Request) if !again => Flags::ECE | Flags::CWR,
            (true, false, _) | (false, _, Ecn::Off | Ecn::Accept | Ecn::Request) => {
                Flags::default()
            }
        }
    }

    /// Text arrived in the window. True if it met congestion, which is echoed at once, and on every
    /// ACK until the peer has reduced (RFC 3168 s6.1.3).
    pub(super) fn hears_congestion(&mut self, segment: &Segment) -> bool {
        if !self.has(flag::ECN) {
            return false;
        }
        if segment.flags.has(Flags::CWR) {
            self.flags &= !flag::ECHO;
        }
        let met = segment.tos & CE == CE;
        if met {
            self.flags |= flag::ECHO;
        }
        met
    }

    /// True if the peer says that our text met congestion.
    pub(super) fn hears_echo(&self, segment: &Segment) -> bool {
        self.has(flag::ECN) && segment.flags.has(Flags::ECE)
    }

    /// Marks a segment that is about to be sent (SHLD-8): only new text may meet congestion instead
    /// of being dropped, no retransmission and no window probe (RFC 3168 s6.1.5, s6.1.6).
    #[inline(always)]
    pub(super) fn mark_ecn(&mut self, transmit: &mut Transmit) {
        if self.has(flag::ECN) {
            self.mark_ecn_agreed(transmit);
        }
    }

    #[inline(never)]
    fn mark_ecn_agreed(&mut self, transmit: &mut Transmit) {
        let flags = transmit.segment.flags;
        if flags.has(Flags::SYN) || flags.has(Flags::RST) {
            return;
        }
        if self.has(flag::ECHO) {
            transmit.segment.flags = transmit.segment.flags | Flags::ECE;
        }
        if transmit.segment.payload_len > 0 && !transmit.again && !self.has(flag::PERSIST) {
            transmit.segment.tos |= ECT_0;
            if self.has(flag::REDUCED) {
                transmit.segment.flags = transmit.segment.flags | Flags::CWR;
                self.flags &= !flag::REDUCED;
            }
        }
    }
}
