//! The last steps of SEGMENT ARRIVES (RFC 9293 s3.10.7.4): text and FIN, in order or ahead of a
//! gap, and which ACK they are owed.

use super::arrives::{Arrival, Note};
use super::reassembly::{Fate, Range};
use super::state::{Event, State};
use super::tcb::{Tcb, flag, owed};
use super::{Env, Paths, Seq};
use crate::wire::segment::Segment;
use crate::wire::tcp::Flags;

impl Tcb {
    /// Steps seven and eight: the text that is next in order, then FIN.
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
            self.text_ahead(Range { start: text_at, end }, fin, env, arrival);
            return;
        }
        let skip = self.rcv_nxt.since(text_at).min(u32::from(segment.payload_len));
        let new = u32::from(segment.payload_len) - skip;
        let taken = new.min(self.rcv_adv.since(self.rcv_nxt)).min(env.room);
        if skip > 0 {
            self.owe_ack_now();
            self.report_again(Range { start: text_at, end: text_at.plus(skip) }, env.paths);
        }
        self.rcv_nxt = self.rcv_nxt.plus(taken);
        self.owed |= owed::ACK;
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
    }

    /// Text, or a FIN, ahead of a gap: "segments with higher beginning sequence numbers SHOULD be
    /// held for later processing" (SHLD-31), and an ACK for each at once (RFC 5681 s4.2).
    fn text_ahead(&mut self, text: Range, fin: bool, env: &mut Env<'_>, arrival: &mut Arrival) {
        self.owe_ack_now();
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
    pub(super) fn report_again(&mut self, range: Range, paths: &mut Paths) {
        if self.has(flag::SACK)
            && let Some(path) = paths.lend(self)
        {
            path.held.repeat(range);
        }
    }

    /// Step eight: "advance RCV.NXT over the FIN, and send an acknowledgment for the FIN".
    fn fin_arrives(&mut self, env: &mut Env<'_>, arrival: &mut Arrival) {
        let (config, now) = (env.config, env.now);
        self.rcv_nxt = self.rcv_nxt.plus(1);
        env.paths.forget_held(self);
        self.rcv_adv = self.rcv_adv.max(self.rcv_nxt);
        self.enter(Event::Fin);
        arrival.fin = true;
        if self.state() == State::TimeWait {
            self.begin_time_wait(config, now, arrival);
        }
    }
}
