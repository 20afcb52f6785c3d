//! Timestamps (RFC 7323): the clock that they show, what is remembered of the peer's, and PAWS, the
//! protection against old duplicates. Invariant: `ts_recent` is of a segment that was acceptable.

use super::arrives::{Arrival, Note};
use super::tcb::{Tcb, flag, owed};
use super::{Config, Seq};
use crate::time::{Instant, Span};
use crate::wire::segment::Segment;
use crate::wire::tcp::Flags;

/// RFC 7323 s5.5: a recent timestamp is not believed after 24 days without a segment.
const TIMESTAMP_LIFE: Span = Span::from_secs(24 * 86_400);

/// The timestamp clock: milliseconds, wrapping (RFC 7323 s5.4 asks for 1 ms to 1 s).
pub(super) fn timestamp(config: &Config, now: Instant) -> u32 {
    config.timestamp_origin_ms.wrapping_add((now.as_nanos() / 1_000_000) as u32)
}

impl Tcb {
    /// PAWS (RFC 7323 s5): "an incoming segment is considered an old duplicate if its timestamp is
    /// older".
    pub(super) fn timestamp_passes(
        &mut self,
        segment: &Segment,
        now: Instant,
        arrival: &mut Arrival,
    ) -> bool {
        if !self.has(flag::TIMESTAMPS) || segment.flags.has(Flags::RST) {
            return true;
        }
        let Some((value, _)) = segment.options.timestamps else {
            // Deviates: RFC 7323 s3.2 would have such a segment dropped. Linux takes it, and so do
            // we: middleboxes that strip the option would hang the connection.
            return true;
        };
        if Seq(value).before(Seq(self.ts_recent)) && now.since(self.heard_at) < TIMESTAMP_LIFE {
            self.old_duplicate(arrival);
            return false;
        }
        true
    }

    #[cold]
    fn old_duplicate(&mut self, arrival: &mut Arrival) {
        self.owe_ack_now();
        arrival.note = Some(Note::Paws);
    }

    /// RFC 7323 s4.3 (2), s5.3 (R3): for the echo, and for PAWS, if the segment is the next in
    /// order. Only of a segment whose numbers both are acceptable: whoever guesses them could else
    /// have all that the peer sends taken for old.
    #[inline]
    pub(super) fn remember_timestamp(&mut self, segment: &Segment) {
        // While an ACK is due, RCV.NXT is past Last.ACK.sent: the echo is to be of the first
        // segment that it acknowledges, so that the peer's measurement contains the delay.
        let due = self.has(flag::DELAYED) || self.owed & owed::ACK != 0;
        let seq = Seq(segment.seq);
        if let (true, Some((value, _))) = (self.has(flag::TIMESTAMPS), segment.options.timestamps)
            && (seq.before(self.rcv_nxt) || !due && seq == self.rcv_nxt)
        {
            self.ts_recent = value;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_counts_milliseconds_from_its_origin_and_wraps() {
        let config = Config { timestamp_origin_ms: u32::MAX - 9, ..Config::default() };
        assert_eq!(timestamp(&config, Instant::ZERO), u32::MAX - 9);
        assert_eq!(timestamp(&config, Instant::ZERO + Span::from_millis(30)), 20);
    }
}
