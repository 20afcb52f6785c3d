//! TCP's part of path MTU discovery (RFC 1191, RFC 8201): what a connection believes of a router's
//! message, and what becomes of what it has in flight. A path that swallows large segments without
//! a word is found by timeouts (RFC 4821, RFC 2923 s2.1).
//!
//! Segments only ever get smaller: nothing is probed for, so what is known lasts a connection's
//! life.

use super::tcb::{DEFAULT_MSS, Tcb, flag};
use super::{Paths, Seq, State};
use crate::wire::Family;
use crate::wire::tcp::HEADER_LEN;

/// The smallest MTU that is believed of an IPv4 path, so that a forged message can't make us send
/// crumbs: Linux's `min_pmtu`.
const MTU_LEAST_V4: u16 = 552;

/// RFC 8201 s4: a node "MUST NOT reduce its estimate of the Path MTU below the IPv6 minimum link
/// MTU".
const MTU_LEAST_V6: u16 = 1280;

/// Timeouts in a row of a full segment after which the path is taken for a black hole.
const BLACK_HOLE_TIMEOUTS: u8 = 2;

impl Tcb {
    /// A router says that the segment which begins at `seq` did not fit a link of `mtu` bytes. It
    /// is believed if that is in flight and the MTU is news (RFC 5927 s7.2): then what is in flight
    /// goes out again at once, in smaller segments, and the congestion window stays what it is
    /// (RFC 1191 s6.4). Answers whether it was.
    pub fn path_mtu(&mut self, seq: Seq, mtu: u16, paths: &mut Paths) -> bool {
        let least = match self.key.family() {
            Family::V4 => MTU_LEAST_V4,
            Family::V6 => MTU_LEAST_V6,
        };
        let headers = (self.key.family().header_len() + HEADER_LEN) as u16;
        let mss = mtu.max(least) - headers;
        let in_flight = seq.within(self.snd_una, self.snd_max.since(self.snd_una));
        let handshake = matches!(self.state(), State::SynSent | State::SynReceived);
        if !in_flight || handshake || self.has(flag::PERSIST) || mss >= self.snd_mss {
            return false;
        }
        self.snd_mss = mss;
        self.flags &= !flag::TIMING;
        if let Some((flight, _)) = paths.flight(self) {
            // An alarm that comes before it has no more meaning.
            self.timer_at = flight.rto_at;
        }
        self.send_anew(paths);
        true
    }

    /// The retransmission timer fired, for the `retries`th time in a row: if what is sent again and
    /// again fills a segment, the path may drop such. From here on segments have the size that
    /// every path takes.
    pub(super) fn suspect_black_hole(&mut self) {
        let full = self.snd_max.since(self.snd_una) >= u32::from(self.segment_bytes());
        if self.retries == BLACK_HOLE_TIMEOUTS && full {
            self.snd_mss = self.snd_mss.min(DEFAULT_MSS.of(self.key.family()));
        }
    }
}
