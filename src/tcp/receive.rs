//! The last steps of SEGMENT ARRIVES (RFC 9293 s3.10.7.4): text and FIN, in order or ahead of a
//! gap, and which ACK they are owed.

use super::arrives::{Arrival, Note};
use super::reassembly::{Fate, Range};
use super::state::{Event, State};
use super::tcb::{Tcb, flag, owed};
use super::{Config, Env, Paths, Seq};
use crate::time::{Instant, Span};
use crate::wire::segment::Segment;
use crate::wire::tcp::Flags;

/// Segments of text that are acknowledged at once when a connection begins, or goes on after
/// silence: the peer is in slow start, and each ACK opens its window. About what Linux does.
pub(super) const QUICK_ACKS: u16 = 8;

impl Tcb {
    /// The peer is heard. After silence it begins slowly (RFC 5681 s4.1).
    pub(super) fn hears(&mut self, config: &Config, now: Instant) {
        if now.since(self.heard_at) > config.rto_min && !self.has(flag::DELAYED) {
            self.ack_by_ms = QUICK_ACKS;
        }
        self.heard_at = now;
        self.probes = 0;
    }

    /// Steps seven and eight: the text that is next in order, then FIN.
    #[inline(always)]
    pub(super) fn text_and_fin(
        &mut self,
        segment: &Segment,
        text_at: Seq,
        env: &mut Env<'_>,
        arrival: &mut Arrival,
    ) {
        let fin = segment.flags.has(Flags::FIN);
        if segment.payload_len == 0 && !fin {
            return;
        }
        match self.state() {
            State::Established | State::FinWait1 | State::FinWait2 => {}
            // "This should not occur since a FIN has been received from the remote side. Ignore the
            // segment text." What stands before that FIN was taken as out of the window already.
            State::CloseWait | State::Closing | State::LastAck | State::TimeWait => return,
            State::Closed | State::Listen | State::SynSent | State::SynReceived => return,
        }
        let end = text_at.plus(u32::from(segment.payload_len));
        if text_at.after(self.rcv_nxt) {
            self.text_ahead(segment, Range { start: text_at, end }, env, arrival);
            return;
        }
        let skip = self.rcv_nxt.since(text_at).min(u32::from(segment.payload_len));
        let new = u32::from(segment.payload_len) - skip;
        let taken = new.min(self.rcv_adv.since(self.rcv_nxt)).min(env.room);
        if skip > 0 {
            self.report_again(Range { start: text_at, end: text_at.plus(skip) }, env.paths);
        }
        self.rcv_nxt = self.rcv_nxt.plus(taken);
        let was_gap = self.has_gap(env.paths);
        let congested = taken > 0 && self.hears_congestion(segment);
        arrival.text = (skip as u16, taken as u16);
        let mut fin_is_next = fin && taken == new;
        if !fin_is_next {
            let joined = env.paths.join(self, env.room - taken);
            self.rcv_nxt = self.rcv_nxt.plus(joined.text);
            arrival.joined = joined.text;
            fin_is_next = joined.fin;
        }
        if fin_is_next {
            self.fin_arrives(env, arrival);
        }
        // RFC 5681 s4.2: at once for what fills a gap, or part of one.
        let at_once = was_gap || fin_is_next || congested || skip > 0 || taken < new;
        self.owe_text_ack(at_once, env);
        if skip > 0 || self.has_gap(env.paths) {
            // By itself: text has no room to say what came again, and what is still missing.
            self.owe_ack_now();
        }
    }

    /// Owes the ACK of text that came in order: at once, or with the second segment, or when its
    /// delay is over (RFC 9293 s3.8.6.3, SHLD-18, SHLD-19). "At least every second full-sized
    /// segment" is here every second one.
    #[inline(always)]
    fn owe_text_ack(&mut self, at_once: bool, env: &Env<'_>) {
        let pending = self.has(flag::DELAYED) || self.owed & owed::ACK != 0;
        let delay = env.config.delayed_ack;
        if at_once || pending || delay == Span::ZERO {
            self.owed |= owed::ACK;
        } else if self.ack_by_ms > 0 {
            self.ack_by_ms -= 1;
            self.owed |= owed::ACK;
        } else {
            self.flags |= flag::DELAYED;
            self.ack_by_ms = millis(env.now + delay) as u16;
        }
    }

    /// Until when an acknowledgment may be delayed, if one is.
    pub(super) fn ack_by(&self) -> Instant {
        if !self.has(flag::DELAYED) {
            return Instant::NEVER;
        }
        // Less than half a minute from when the peer was heard.
        let heard_ms = millis(self.heard_at);
        let ahead = i64::from(self.ack_by_ms.wrapping_sub(heard_ms as u16) as i16);
        Instant::from_nanos(heard_ms.saturating_add_signed(ahead) * 1_000_000)
    }

    /// The delay is over, or a segment goes out that acknowledges: answers whether one was delayed.
    pub(super) fn end_delay(&mut self) -> bool {
        let delayed = self.has(flag::DELAYED);
        if delayed {
            self.flags &= !flag::DELAYED;
            self.ack_by_ms = 0;
        }
        delayed
    }

    fn has_gap(&self, paths: &mut Paths) -> bool {
        paths.of(self).is_some_and(|path| !path.held.is_empty())
    }

    /// Text, or a FIN, ahead of a gap: "segments with higher beginning sequence numbers SHOULD be
    /// held for later processing" (SHLD-31), and an ACK for each at once (MAY-13, RFC 5681 s4.2).
    #[cold]
    fn text_ahead(
        &mut self,
        segment: &Segment,
        text: Range,
        env: &mut Env<'_>,
        arrival: &mut Arrival,
    ) {
        let fin = segment.flags.has(Flags::FIN);
        self.owe_ack_now();
        self.hears_congestion(segment);
        let inside = Range { end: text.end.min(self.rcv_adv), ..text };
        // What the window cuts off takes the FIN with it.
        let fate = env.paths.hold(self, inside, fin && inside == text);
        if fate == Fate::Held {
            arrival.ahead = Some((inside.start, inside.len() as u16));
        }
        arrival.note = Some(match fate {
            Fate::Held => Note::Ahead,
            Fate::Known => Note::AheadAgain,
            Fate::Dropped => Note::AheadDropped,
        });
    }

    /// RFC 2883 s4: numbers that arrived before are reported once; the ACK that does is owed.
    #[cold]
    pub(super) fn report_again(&mut self, range: Range, paths: &mut Paths) {
        if self.has(flag::SACK)
            && let Some(path) = paths.lend(self)
        {
            path.held.repeat(range);
        }
    }

    /// Step eight: "advance RCV.NXT over the FIN, and send an acknowledgment for the FIN".
    #[inline(always)]
    fn fin_arrives(&mut self, env: &mut Env<'_>, arrival: &mut Arrival) {
        let (config, now) = (env.config, env.now);
        self.rcv_nxt = self.rcv_nxt.plus(1);
        if self.has_path() {
            env.paths.forget_held(self);
        }
        self.rcv_adv = self.rcv_adv.max(self.rcv_nxt);
        self.enter(Event::Fin);
        arrival.fin = true;
        if self.state() == State::TimeWait {
            self.begin_time_wait(config, now, arrival);
        }
    }
}

fn millis(at: Instant) -> u64 {
    at.as_nanos() / 1_000_000
}
