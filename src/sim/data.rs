//! The referee's laws of the data path: what may be said of text that arrived (SACK, ACKs in time),
//! how much may be sent at once, ECN marks and the urgent pointer.
//!
//! `endpoint` has the laws of numbers and windows; this adds to what it knows. Where the wire does
//! not show what a host must have known, the host is right.

use super::endpoint::{Endpoint, Verdict, law};
use crate::time::{Instant, Span};
use crate::wire::segment::Segment;
use crate::wire::tcp::Flags;

/// RFC 9293 s3.8.6.3, MUST-40: "an excessive delay on ACKs is ... 0.5 seconds or more".
const ACK_DELAY_MAX: Span = Span::from_millis(500);
/// How long two segments' worth of text may wait for a turn, and for room to answer in.
const TURN_MAX: Span = Span::from_millis(10);
/// The two bits of ECN in the IP header's octet (RFC 3168 s5), and their value for congestion met.
const ECN: u8 = 0b11;

/// What one side of a connection is held to. Numbers are as in [`Endpoint`].
#[derive(Default)]
pub(super) struct Data {
    /// No congestion control holds it back.
    pub unpaced: bool,
    /// Its SYN asked for ECN; its SYN-ACK agreed.
    asks_ecn: bool,
    agrees_ecn: bool,
    /// What arrived more than once at the other side, which may say so as often.
    again: Vec<(i64, i64)>,
    repeats: u32,
    /// What arrived here last: alone in its turn, new, and ahead of a gap.
    trigger: Option<(i64, i64)>,
    /// Text that arrived here in order since it last sent an ACK.
    debt: Option<Debt>,
    /// Nothing arrived here since it sent its first text.
    unheard: bool,
    /// Since anything arrived here: how often it sent its first unacknowledged text again, and the
    /// text sent from the last time on, in bytes.
    heads: u32,
    burst_bytes: i64,
    /// The highest urgent pointer it sent.
    urgent: Option<i64>,
}

/// An acknowledgment that is owed.
#[derive(Clone, Copy)]
struct Debt {
    since: Instant,
    bytes: i64,
    /// When that came to two full segments.
    two_since: Option<Instant>,
}

impl Endpoint {
    /// Holds a SYN to RFC 3168 s6.1.1: it is never marked, and only an offer can be agreed to.
    pub fn sends_syn(&mut self, them: &Endpoint, sent: &Segment) -> Verdict {
        law(sent.tos & ECN == 0, "a SYN is marked for ECN")?;
        let (echo, reduced) = (sent.flags.has(Flags::ECE), sent.flags.has(Flags::CWR));
        if !sent.flags.has(Flags::ACK) {
            self.data.asks_ecn |= echo && reduced;
            return Ok(());
        }
        law(!echo || them.data.asks_ecn, "it agrees to ECN, which nobody asked for")?;
        self.data.agrees_ecn |= echo && !reduced;
        Ok(())
    }

    /// Holds a segment that is neither SYN nor RST to the laws of the data path. `seq` is where it
    /// begins; what this side sent before does not include it yet. `excused` if something else than
    /// the segments that arrived may have kept its ACKs back.
    pub fn sends_data(
        &mut self,
        them: &mut Endpoint,
        now: Instant,
        seq: i64,
        sent: &Segment,
        excused: bool,
    ) -> Verdict {
        self.reports(them, sent)?;
        self.marks(them, seq, sent)?;
        self.points(seq, sent)?;
        self.paces(them, seq, i64::from(sent.payload_len))?;
        let Some(debt) = self.data.debt.take().filter(|_| !excused) else { return Ok(()) };
        law(now.since(debt.since) < ACK_DELAY_MAX, "it kept an ACK back for 500 ms")?;
        let in_time = debt.two_since.is_none_or(|since| now.since(since) <= TURN_MAX);
        law(in_time, "it kept back the ACK of two full segments")
    }

    /// Its SACK blocks (RFC 2018 s4, RFC 2883 s4).
    fn reports(&mut self, them: &mut Endpoint, sent: &Segment) -> Verdict {
        let blocks: Vec<(i64, i64)> = (sent.options.sack.blocks().iter())
            .map(|&(left, right)| (them.relative(left), them.relative(right)))
            .collect();
        let Some((&first, others)) = blocks.split_first() else { return Ok(()) };
        let permits = |end: &Endpoint| end.syn.is_some_and(|syn| syn.options.sack_permitted);
        law(permits(self) && permits(them), "it has SACK blocks, which nobody agreed to")?;
        let ack = them.relative(sent.ack);
        for &(left, right) in &blocks {
            law(left < right, "a SACK block is empty")?;
            law(them.has_arrived(left, right), "a SACK block is of what has not arrived")?;
        }
        let inside = |outer: &(i64, i64)| outer.0 <= first.0 && first.1 <= outer.1;
        let duplicate = first.1 <= ack || others.iter().any(inside);
        if duplicate {
            let again = covers(&them.data.again, first.0, first.1);
            law(again, "a D-SACK is of what has arrived once")?;
            law(them.data.repeats > 0, "it reports a duplicate more than once")?;
            them.data.repeats -= 1;
        }
        let ahead = if duplicate { others } else { &blocks[..] };
        law(ahead.iter().all(|&(left, _)| left > ack), "a SACK block is not above the ACK")?;
        let Some((from, to)) = self.data.trigger else { return Ok(()) };
        // If no block has it, there was no room to keep it.
        let place = ahead.iter().position(|&(left, right)| left <= from && to <= right);
        law(
            place.is_none_or(|place| place == 0),
            "what arrived last is not in the first SACK block",
        )
    }

    /// Its marks of ECN (RFC 3168 s6.1).
    fn marks(&self, them: &Endpoint, seq: i64, sent: &Segment) -> Verdict {
        let (ours, theirs) = (&self.data, &them.data);
        let agreed = (ours.asks_ecn && theirs.agrees_ecn) || (theirs.asks_ecn && ours.agrees_ecn);
        let mark = sent.tos & ECN;
        let reduced = sent.flags.has(Flags::CWR);
        let says = mark != 0 || reduced || sent.flags.has(Flags::ECE);
        law(agreed || !says, "it speaks of ECN, which nobody agreed to")?;
        law(mark != ECN, "its sender says that it met congestion")?;
        let new_text = sent.payload_len > 0 && seq >= self.top;
        law(mark == 0 || new_text, "it is marked for ECN and is not new text")?;
        law(!reduced || new_text, "it has CWR and is not new text")
    }

    /// Its urgent pointer (RFC 9293 s3.8.5).
    fn points(&mut self, seq: i64, sent: &Segment) -> Verdict {
        if !sent.flags.has(Flags::URG) {
            return Ok(());
        }
        let end = seq + i64::from(sent.urgent);
        law(end > self.acked_known, "its urgent pointer is at what is acknowledged")?;
        // What is too far ahead for the field is pointed at as far as it goes.
        let cut = sent.urgent == u16::MAX;
        law(
            cut || self.data.urgent.is_none_or(|last| end >= last),
            "its urgent pointer goes back",
        )?;
        self.data.urgent = self.data.urgent.max(Some(end));
        Ok(())
    }

    /// How much of its text goes at once: the initial window before anything is heard (RFC 6928
    /// s2), and a segment after a timeout (RFC 5681 s3.1).
    fn paces(&mut self, them: &Endpoint, seq: i64, len: i64) -> Verdict {
        if len == 0 || self.data.unpaced {
            return Ok(());
        }
        let mss = them.mss_offered();
        self.data.unheard |= self.stream.is_empty();
        let initial = (10 * mss).min((2 * mss).max(14_600));
        // A tail loss probe may go beyond it (RFC 8985 s7.3).
        let within = seq + len - 1 <= initial + mss;
        law(!self.data.unheard || within, "it is past the initial window")?;
        if seq == self.acked_known && seq < self.top {
            self.data.heads += 1;
            self.data.burst_bytes = 0;
        }
        self.data.burst_bytes += len;
        // The first time it may be fast retransmission or a probe; nothing heard, the second is
        // the timer's doing.
        let one = self.data.heads < 2 || self.data.burst_bytes <= mss;
        law(one, "it is more than a segment after a timeout")
    }

    /// `segment` arrives here: `seq` is where it begins, `alone` if nothing else did in this turn.
    /// `sure` if there is no doubt that its text is next in order and taken.
    pub fn hears_data(
        &mut self,
        them: &mut Endpoint,
        now: Instant,
        (seq, segment): (i64, &Segment),
        alone: bool,
        sure: bool,
    ) {
        let (end, len) = (seq + i64::from(segment.seq_len()), i64::from(segment.payload_len));
        (self.data.unheard, self.data.heads) = (false, 0);
        let known = them.has_arrived(seq, end);
        let new_ahead = alone && len > 0 && seq > them.arrived && !known;
        self.data.trigger = new_ahead.then_some((seq, seq + len));
        them.repeats(seq, end);
        if sure && len > 0 {
            let full = 2 * self.mss_offered();
            let debt = self.data.debt.get_or_insert(Debt { since: now, bytes: 0, two_since: None });
            debt.bytes += len;
            if debt.bytes >= full {
                debt.two_since.get_or_insert(now);
            }
        }
    }

    /// Takes down which of `seq..end`, about to arrive at the other side, arrived there before.
    fn repeats(&mut self, seq: i64, end: i64) {
        let before = std::iter::once((i64::MIN, self.arrived)).chain(self.arrived_ahead.clone());
        let both = before.map(|(from, to)| (from.max(seq), to.min(end)));
        let known = self.data.again.len();
        self.data.again.extend(both.filter(|(from, to)| from < to));
        if self.data.again.len() > known {
            self.data.repeats += 1;
            self.data.again.sort_unstable();
            self.data.again.dedup_by(|next, last| {
                let joins = next.0 <= last.1;
                last.1 = if joins { last.1.max(next.1) } else { last.1 };
                joins
            });
        }
    }

    /// Whether all of `from..to` arrived at the other side.
    fn has_arrived(&self, from: i64, to: i64) -> bool {
        to <= self.arrived || covers(&self.arrived_ahead, from.max(self.arrived), to)
    }
}

/// Whether `ranges`, sorted, leave nothing out of `from..to`.
fn covers(ranges: &[(i64, i64)], from: i64, to: i64) -> bool {
    let reach = |at: i64, &(left, right): &(i64, i64)| if left <= at { at.max(right) } else { at };
    ranges.iter().fold(from, reach) >= to
}

#[cfg(test)]
mod tests {
    use super::super::monitor::Side::{self, A, B};
    use super::super::monitor::tests::{ISN, Wire};
    use super::*;

    const S: Flags = Flags::SYN;
    const ACK: Flags = Flags::ACK;

    /// A connection whose SYNs `edit` had a hand in.
    fn established(edit: impl Fn(&mut Segment)) -> Wire {
        let mut wire = Wire::new();
        for (side, flags, ack) in [(A, S, 0), (B, S | ACK, 1)] {
            let mut syn = Wire::segment(side, flags, 0, ack);
            edit(&mut syn);
            wire.pass_segment(side, syn, b"");
        }
        wire.pass(A, ACK, 1, 1, b"");
        wire
    }

    fn sacking() -> Wire {
        established(|syn| syn.options.sack_permitted = true)
    }

    fn marking() -> Wire {
        established(|syn| {
            let answers = syn.flags.has(ACK);
            let says = if answers { Flags::ECE } else { Flags::ECE | Flags::CWR };
            syn.flags = syn.flags | says;
        })
    }

    /// Lets B acknowledge, with these SACK blocks.
    fn report(wire: &mut Wire, ack: u32, blocks: &[(u32, u32)]) {
        let mut segment = Wire::segment(B, ACK, 1, ack);
        for &(left, right) in blocks {
            segment.options.sack.push(ISN[0].wrapping_add(left), ISN[0].wrapping_add(right));
        }
        wire.pass_segment(B, segment, b"");
    }

    /// Lets A send a segment that `edit` had a hand in.
    fn edited(wire: &mut Wire, seq: u32, payload: &[u8], edit: impl Fn(&mut Segment)) {
        let mut segment = Wire::segment(A, ACK, seq, 1);
        edit(&mut segment);
        wire.pass_segment(A, segment, payload);
    }

    fn passes(wire: &mut Wire, side: Side, span: Span) {
        wire.now += span;
        wire.pass(side, ACK, 1, 1 + 4, b"");
    }

    #[test]
    fn what_arrived_ahead_of_a_gap_is_reported_last_first() {
        let mut wire = sacking();
        wire.lose(A, ACK, 1, 1, b"abc");
        wire.pass(A, ACK, 4, 1, b"def");
        report(&mut wire, 1, &[(4, 7)]);
        wire.lose(A, ACK, 7, 1, b"ghi");
        wire.pass(A, ACK, 10, 1, b"jkl");
        report(&mut wire, 1, &[(10, 13), (4, 7)]);
        wire.pass(A, ACK, 4, 1, b"def");
        report(&mut wire, 1, &[(4, 7), (4, 7), (10, 13)]);
        wire.pass(A, ACK, 1, 1, b"abcdefghi");
        wire.pass(A, ACK, 1, 1, b"abc");
        report(&mut wire, 13, &[(1, 4)]);
        wire.is_legal();

        let mut wire = sacking();
        wire.lose(A, ACK, 1, 1, b"abc");
        wire.pass(A, ACK, 4, 1, b"def");
        wire.lose(A, ACK, 7, 1, b"ghi");
        wire.pass(A, ACK, 10, 1, b"jkl");
        report(&mut wire, 1, &[(4, 7), (10, 13)]);
        wire.breaks("what arrived last is not in the first SACK block");
    }

    #[test]
    fn sack_blocks_need_the_consent_of_both() {
        let mut wire = established(|syn| syn.options.sack_permitted = syn.flags.has(ACK));
        wire.lose(A, ACK, 1, 1, b"abc");
        wire.pass(A, ACK, 4, 1, b"def");
        report(&mut wire, 1, &[(4, 7)]);
        wire.breaks("it has SACK blocks, which nobody agreed to");
    }

    #[test]
    fn sack_blocks_are_of_what_arrived_and_above_the_ack() {
        for (ack, blocks, law) in [
            (1, &[(3, 7)][..], "a SACK block is of what has not arrived"),
            (1, &[(4, 8)], "a SACK block is of what has not arrived"),
            (1, &[(7, 4)], "a SACK block is empty"),
            (1, &[(4, 7), (1, 4)], "a SACK block is of what has not arrived"),
        ] {
            let mut wire = sacking();
            wire.lose(A, ACK, 1, 1, b"abc");
            wire.pass(A, ACK, 4, 1, b"def");
            report(&mut wire, ack, blocks);
            wire.breaks(law);
        }
        let mut wire = sacking();
        wire.pass(A, ACK, 1, 1, b"abcdef");
        report(&mut wire, 1, &[(1, 7)]);
        wire.breaks("a SACK block is not above the ACK");
    }

    #[test]
    fn a_duplicate_is_reported_if_it_is_one_and_once() {
        let mut wire = sacking();
        wire.pass(A, ACK, 1, 1, b"abc");
        report(&mut wire, 4, &[(1, 4)]);
        wire.breaks("a D-SACK is of what has arrived once");

        let mut wire = sacking();
        wire.pass(A, ACK, 1, 1, b"abc");
        wire.pass(A, ACK, 1, 1, b"abc");
        report(&mut wire, 4, &[(1, 4)]);
        wire.is_legal();
        report(&mut wire, 4, &[(1, 4)]);
        wire.breaks("it reports a duplicate more than once");
    }

    #[test]
    fn ecn_is_spoken_of_where_it_was_agreed() {
        let mut wire = marking();
        edited(&mut wire, 1, b"abc", |segment| segment.tos = 0b10);
        let mut echo = Wire::segment(B, ACK | Flags::ECE, 1, 4);
        wire.pass_segment(B, echo, b"");
        edited(&mut wire, 4, b"def", |segment| {
            (segment.tos, segment.flags) = (0b10, ACK | Flags::CWR);
        });
        wire.is_legal();

        for (tos, flags) in [(0b10, ACK), (0, ACK | Flags::ECE), (0, ACK | Flags::CWR)] {
            let mut wire = established(|_| {});
            edited(&mut wire, 1, b"abc", |segment| (segment.tos, segment.flags) = (tos, flags));
            wire.breaks("it speaks of ECN, which nobody agreed to");
        }
        let mut wire = Wire::new();
        wire.pass(A, S, 0, 0, b"");
        echo = Wire::segment(B, S | ACK | Flags::ECE, 0, 1);
        wire.pass_segment(B, echo, b"");
        wire.breaks("it agrees to ECN, which nobody asked for");
    }

    #[test]
    fn only_new_text_is_marked_for_ecn() {
        let mut wire = marking();
        edited(&mut wire, 1, b"", |segment| segment.tos = 0b10);
        wire.breaks("it is marked for ECN and is not new text");

        let mut wire = marking();
        wire.lose(A, ACK, 1, 1, b"abc");
        edited(&mut wire, 1, b"abc", |segment| segment.tos = 0b01);
        wire.breaks("it is marked for ECN and is not new text");

        let mut wire = marking();
        edited(&mut wire, 1, b"abc", |segment| segment.tos = 0b11);
        wire.breaks("its sender says that it met congestion");

        let mut wire = marking();
        edited(&mut wire, 1, b"", |segment| segment.flags = ACK | Flags::CWR);
        wire.breaks("it has CWR and is not new text");

        let mut wire = marking();
        edited(&mut wire, 1, b"", |segment| {
            (segment.tos, segment.flags) = (0b10, Flags::RST);
        });
        wire.breaks("a RST is marked for ECN");

        let wire = established(|syn| syn.tos = 0b10);
        wire.breaks("a SYN is marked for ECN");
    }

    #[test]
    fn the_urgent_pointer_is_ahead_and_never_goes_back() {
        let urge = |wire: &mut Wire, seq, payload: &[u8], pointer| {
            edited(wire, seq, payload, |segment| {
                (segment.flags, segment.urgent) = (ACK | Flags::URG, pointer);
            });
        };
        let mut wire = established(|_| {});
        urge(&mut wire, 1, b"abc", 5);
        urge(&mut wire, 4, b"def", 2);
        wire.is_legal();
        urge(&mut wire, 4, b"def", 1);
        wire.breaks("its urgent pointer goes back");

        let mut wire = established(|_| {});
        wire.pass(A, ACK, 1, 1, b"abc");
        wire.pass(B, ACK, 1, 4, b"");
        urge(&mut wire, 4, b"d", 0);
        wire.breaks("its urgent pointer is at what is acknowledged");
    }

    #[test]
    fn no_ack_is_kept_back_for_half_a_second() {
        let mut wire = established(|_| {});
        wire.pass(A, ACK, 1, 1, b"abcd");
        passes(&mut wire, B, Span::from_millis(499));
        wire.is_legal();

        let mut wire = established(|_| {});
        wire.pass(A, ACK, 1, 1, b"abcd");
        passes(&mut wire, B, Span::from_millis(500));
        wire.breaks("it kept an ACK back for 500 ms");

        // Whoever asks for its next hop can't answer.
        let mut wire = established(|_| {});
        wire.pass(A, ACK, 1, 1, b"abcd");
        let mut asks = Wire::frame(B, Wire::segment(B, ACK, 1, 5), b"");
        asks[12..14].copy_from_slice(&[0x88, 0xb5]);
        wire.referee.sent(wire.now, B, &asks);
        passes(&mut wire, B, Span::from_millis(500));
        wire.is_legal();
    }

    #[test]
    fn two_full_segments_are_acknowledged_at_once() {
        let mut wire = established(|_| {});
        wire.pass(A, ACK, 1, 1, &[0; 500]);
        wire.pass(A, ACK, 501, 1, &[0; 499]);
        wire.now += Span::from_millis(100);
        wire.pass(B, ACK, 1, 1000, b"");
        wire.is_legal();
        wire.pass(A, ACK, 1000, 1, &[0; 500]);
        wire.pass(A, ACK, 1500, 1, &[0; 500]);
        wire.now += Span::from_millis(11);
        wire.pass(B, ACK, 1, 2000, b"");
        wire.breaks("it kept back the ACK of two full segments");
    }

    #[test]
    fn a_sender_begins_with_the_initial_window_and_a_probe() {
        let mut wire = established(|_| {});
        let opens = Segment { window: 65_000, ..Wire::segment(B, ACK, 1, 1) };
        wire.pass_segment(B, opens, b"");
        for count in 0..11 {
            wire.lose(A, ACK, 1 + 500 * count, 1, &[0; 500]);
        }
        wire.is_legal();
        wire.lose(A, ACK, 5501, 1, b"x");
        wire.breaks("it is past the initial window");
    }

    #[test]
    fn after_a_timeout_one_segment_goes() {
        let mut wire = established(|_| {});
        for seq in [1, 501, 1, 501, 1] {
            wire.lose(A, ACK, seq, 1, &[0; 500]);
        }
        wire.is_legal();
        wire.lose(A, ACK, 501, 1, &[0; 500]);
        wire.breaks("it is more than a segment after a timeout");
    }
}
