//! SEGMENT ARRIVES (RFC 9293 s3.10.7), step for step in the RFC's order.

use super::reassembly::Range;
use super::state::{Event, State};
use super::tcb::{Tcb, flag, owed, time_wait};
use super::{Config, End, Env, Seq};
use crate::time::Instant;
use crate::wire::segment::Segment;
use crate::wire::tcp::Flags;

/// What a segment did to its connection, for the engine to tell the application, to answer and to
/// count. What the connection owes in return stands in the block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Arrival {
    /// ESTABLISHED was reached.
    pub established: bool,
    /// Payload bytes that are acknowledged now and were not before.
    pub acked_bytes: u32,
    /// In-order payload: bytes to skip at the start of the segment's payload, and how many follow.
    pub text: (u16, u16),
    /// Text ahead of a gap to be [kept](Paths::store): its sequence number, and bytes at the start
    /// of the segment's payload.
    pub ahead: Option<(Seq, u16)>,
    /// Bytes that were kept and follow in order now, after `text`: [`Paths::in_order`] has them.
    pub joined: u32,
    /// The peer's FIN arrived in order.
    pub fin: bool,
    /// TIME-WAIT was entered: for the application the connection is over.
    pub time_wait: bool,
    /// The connection is over, for this reason; the block is CLOSED.
    pub ended: Option<End>,
    /// The segment is to be answered by RST, as if there were no connection (RFC 9293 s3.10.7.1).
    pub refuse: bool,
    /// The segment is a SYN for a new connection in place of this one, which is in TIME-WAIT.
    pub reopen: bool,
    /// The peer says that our text met congestion (RFC 3168 s6.1.2).
    pub echoed: bool,
    /// Bytes from the next in order to the end of urgent data, where that is news (RFC 9293
    /// s3.8.5); else 0.
    pub urgent_bytes: u32,
    pub note: Option<Note>,
}

/// What is worth a counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Note {
    OutOfWindow,
    /// Ahead of a gap, and kept.
    Ahead,
    /// Ahead of a gap, and no room to keep it.
    AheadDropped,
    /// Ahead of a gap, and kept before.
    AheadAgain,
    ChallengeAck,
    Paws,
    /// For the flags that it has or lacks, and not answered.
    Dropped,
}

impl Tcb {
    /// Lets `segment` act on this connection.
    pub fn arrives(&mut self, segment: &Segment, env: &mut Env<'_>) -> Arrival {
        let mut arrival = Arrival::default();
        self.arrives_into(segment, env, &mut arrival);
        arrival
    }

    /// [`Tcb::arrives`], written to what says nothing so far, where it is read from: a copy of what
    /// was just written field by field would wait for each of those writes.
    #[inline(always)]
    pub fn arrives_into(&mut self, segment: &Segment, env: &mut Env<'_>, arrival: &mut Arrival) {
        match self.state() {
            // The engine keeps CLOSED blocks out of the table, and LISTEN is not a block.
            State::Closed | State::Listen => {}
            State::SynSent => self.arrives_syn_sent(segment, env, arrival),
            State::SynReceived
            | State::Established
            | State::FinWait1
            | State::FinWait2
            | State::CloseWait
            | State::Closing
            | State::LastAck
            | State::TimeWait => self.arrives_otherwise(segment, env, arrival),
        }
    }

    /// RFC 9293 s3.10.7.3.
    fn arrives_syn_sent(&mut self, segment: &Segment, env: &mut Env<'_>, arrival: &mut Arrival) {
        let (config, now) = (env.config, env.now);
        let acks = segment.flags.has(Flags::ACK);
        // "First, check the ACK bit: If SEG.ACK =< ISS or SEG.ACK > SND.NXT, send a reset (unless
        // the RST bit is set)". The SYN carries no data, so one number alone is acceptable.
        if acks && Seq(segment.ack) != self.snd_una.plus(1) {
            let answers = !segment.flags.has(Flags::RST);
            (arrival.refuse, arrival.note) = (answers, (!answers).then_some(Note::Dropped));
            return;
        }
        // "Second, check the RST bit": only an acceptable ACK makes it believable.
        if segment.flags.has(Flags::RST) {
            if acks {
                self.abandon();
                arrival.ended = Some(End::Refused);
            } else {
                arrival.note = Some(Note::Dropped);
            }
            return;
        }
        // "Fifth, if neither of the SYN or RST bits is set, then drop the segment and return."
        if !segment.flags.has(Flags::SYN) {
            arrival.note = Some(Note::Dropped);
            return;
        }
        // "Fourth, check the SYN bit."
        self.learn_syn(segment, config);
        self.heard_at = now;
        if !acks {
            // Simultaneous open (s3.5, MUST-10): "enter SYN-RECEIVED, form a SYN,ACK segment".
            self.enter(Event::Syn);
            self.snd_nxt = self.snd_una;
            return;
        }
        self.enter(Event::SynAck);
        self.owed |= owed::ACK | owed::HANDSHAKE;
        self.syn_acknowledged(now, arrival);
        // "If there are other controls or text in the segment, then continue processing at the
        // sixth step".
        self.hears_urgent(segment, env.paths, arrival);
        self.text_and_fin(segment, Seq(segment.seq).plus(1), env, arrival);
    }

    /// RFC 9293 s3.10.7.4.
    #[inline(always)]
    fn arrives_otherwise(&mut self, segment: &Segment, env: &mut Env<'_>, arrival: &mut Arrival) {
        let now = env.now;
        if self.syn_again(segment, arrival) {
            return;
        }
        // "First, check sequence number", after the timestamp (RFC 7323 s5.3).
        if !self.timestamp_passes(segment, now, arrival) {
            return;
        }
        // In SYN-RECEIVED the peer of a simultaneous open sends its SYN once more, with its ACK:
        // strip what we have.
        let syn_ack_again = self.state() == State::SynReceived
            && !self.has(flag::PASSIVE)
            && segment.flags.has(Flags::SYN | Flags::ACK)
            && Seq(segment.seq).plus(1) == self.rcv_nxt;
        if !syn_ack_again && !self.acceptable(segment) {
            self.unacceptable(segment, env, arrival);
            return;
        }
        // "Second, check the RST bit".
        if segment.flags.has(Flags::RST) {
            self.reset_arrives(segment, env.config, arrival);
            return;
        }
        // "Fourth, check the SYN bit".
        if segment.flags.has(Flags::SYN) && !syn_ack_again {
            self.syn_arrives(arrival);
            return;
        }
        // "Fifth, check the ACK field: if the ACK bit is off, drop the segment and return".
        if !segment.flags.has(Flags::ACK) {
            arrival.note = Some(Note::Dropped);
            return;
        }
        if !self.ack_arrives(segment, env, arrival) {
            return;
        }
        self.remember_timestamp(segment);
        self.hears(env.config, now);
        arrival.echoed = self.hears_echo(segment);
        if arrival.echoed {
            self.congestion_echoed(env.paths);
        }
        if self.state() == State::Closed {
            return;
        }
        self.hears_urgent(segment, env.paths, arrival);
        let text_at = Seq(segment.seq).plus(u32::from(syn_ack_again));
        self.text_and_fin(segment, text_at, env, arrival);
    }

    /// A SYN that is not part of this connection's numbers but has a meaning of its own. True if it
    /// was dealt with.
    #[inline(always)]
    fn syn_again(&mut self, segment: &Segment, arrival: &mut Arrival) -> bool {
        let flags = segment.flags;
        if !flags.has(Flags::SYN) || flags.has(Flags::ACK) || flags.has(Flags::RST) {
            return false;
        }
        self.syn_alone_again(segment, arrival)
    }

    #[cold]
    fn syn_alone_again(&mut self, segment: &Segment, arrival: &mut Arrival) -> bool {
        let Segment { flags, seq, .. } = *segment;
        match self.state() {
            // The SYN that we answered, again: our SYN-ACK was lost. Answer it again, without
            // waiting for the timer.
            State::SynReceived if Seq(seq).plus(1) == self.rcv_nxt => {
                self.snd_nxt = self.snd_una;
                if !flags.has(Flags::ECE | Flags::CWR) {
                    // It has given ECN up (RFC 3168 s6.1.1).
                    self.flags &= !flag::ECN;
                }
                true
            }
            // RFC 9293 s3.10.7.4 and s3.6.1, MAY-2; RFC 6191 s2, SHLD-4: a SYN beyond the old
            // numbers, or with a later timestamp, may open a new connection.
            State::TimeWait => {
                let later = match (self.has(flag::TIMESTAMPS), segment.options.timestamps) {
                    (true, Some((value, _))) if value != self.ts_recent => {
                        Seq(value).after(Seq(self.ts_recent))
                    }
                    _ => !Seq(seq).before(self.rcv_nxt),
                };
                arrival.reopen = later;
                later
            }
            _ => false,
        }
    }

    /// RFC 9293 s3.4: the four cases of an acceptable segment. With a window of zero, segments at
    /// its edge pass too, for their ACK and RST (MUST-66); their text finds no room.
    ///
    /// Deviates: a bare ACK passes at the edge of any window, as for Linux. It comes from a peer
    /// that has filled the window; if we had filled its own too, and both had lost some, each would
    /// take the other's ACKs for unacceptable and answer them, for ever.
    #[inline(always)]
    fn acceptable(&self, segment: &Segment) -> bool {
        let window = self.rcv_adv.since(self.rcv_nxt);
        let seq = Seq(segment.seq);
        let len = segment.seq_len();
        if len == 0 && seq == self.rcv_adv && !segment.flags.has(Flags::RST) {
            return true;
        }
        if window == 0 || len == 0 {
            return seq == self.rcv_nxt || seq.within(self.rcv_nxt, window);
        }
        seq.within(self.rcv_nxt, window) || seq.plus(len - 1).within(self.rcv_nxt, window)
    }

    /// "If an incoming segment is not acceptable, an acknowledgment should be sent in reply (unless
    /// the RST bit is set, if so drop the segment and return)".
    #[cold]
    fn unacceptable(&mut self, segment: &Segment, env: &mut Env<'_>, arrival: &mut Arrival) {
        arrival.note = Some(Note::OutOfWindow);
        if segment.flags.has(Flags::RST) {
            return;
        }
        self.owe_ack_now();
        // TIME-WAIT: "The only thing that can arrive in this state is a retransmission of the
        // remote FIN. Acknowledge it, and restart the 2 MSL timeout."
        if self.state() == State::TimeWait && segment.flags.has(Flags::FIN) {
            self.timer_at = env.now + time_wait(env.config);
        }
        let text = Range { start: Seq(segment.seq), end: Seq(segment.seq).plus(segment.seq_len()) };
        if text.len() > 0 && !text.end.after(self.rcv_nxt) && self.receives() {
            self.report_again(text, env.paths);
        }
    }

    /// "Second, check the RST bit". What else the segment carries does not matter (RFC 9293 s3.5.3,
    /// SHLD-2).
    #[cold]
    fn reset_arrives(&mut self, segment: &Segment, config: &Config, arrival: &mut Arrival) {
        // RFC 9293 s3.10.7.4 (from RFC 5961 s3.2): in the window but not exactly next: challenge
        // ACK.
        if Seq(segment.seq) != self.rcv_nxt {
            self.challenge(arrival);
            return;
        }
        if self.state() == State::TimeWait && config.rfc1337 {
            // RFC 1337 s4, fix F1: "ignore RST segments in TIME-WAIT state".
            arrival.note = Some(Note::Dropped);
            return;
        }
        let end = match self.state() {
            // Passive: "return this connection to the LISTEN state"; active: "connection refused".
            State::SynReceived => Some(End::Refused),
            State::Closed | State::Listen | State::SynSent => None,
            // The application was told when TIME-WAIT began.
            State::TimeWait => None,
            State::Established
            | State::FinWait1
            | State::FinWait2
            | State::CloseWait
            | State::Closing
            | State::LastAck => Some(End::Reset),
        };
        self.abandon();
        arrival.ended = end;
    }

    /// "Fourth, check the SYN bit".
    #[cold]
    fn syn_arrives(&mut self, arrival: &mut Arrival) {
        // "SYN-RECEIVED STATE: If the connection was initiated with a passive OPEN, then return
        // this connection to the LISTEN state and return." (MUST-11) The peer will send its SYN
        // again.
        if self.state() == State::SynReceived && self.has(flag::PASSIVE) {
            self.abandon();
            arrival.ended = Some(End::Refused);
            return;
        }
        // RFC 5961 s4.2: "If the SYN bit is set, irrespective of the sequence number, TCP endpoints
        // MUST send an ACK".
        self.challenge(arrival);
    }

    /// Step five. False if the segment is to be dropped.
    #[inline(always)]
    fn ack_arrives(&mut self, segment: &Segment, env: &mut Env<'_>, arrival: &mut Arrival) -> bool {
        let (config, now) = (env.config, env.now);
        let ack = Seq(segment.ack);
        if self.state() == State::SynReceived {
            // "If SND.UNA < SEG.ACK =< SND.NXT, then enter ESTABLISHED state", else "form a reset
            // segment".
            if ack != self.snd_una.plus(1) || self.snd_una == self.snd_max {
                arrival.refuse = true;
                return false;
            }
            self.enter(Event::AckOfSyn);
            self.syn_acknowledged(now, arrival);
            self.take_window(segment, env);
            return true;
        }
        // "If the ACK acks something not yet sent (SEG.ACK > SND.NXT), then send an ACK, drop the
        // segment". RFC 5961 s5.2 (MAY-12): neither may it be older than the largest window.
        let oldest = self.snd_una.minus(self.snd_wnd_max());
        if ack.after(self.snd_max) || ack.before(oldest) {
            self.challenge(arrival);
            return false;
        }
        let una = self.snd_una;
        let advances = ack.after(una);
        let duplicate = ack == una && self.is_duplicate(segment);
        if advances {
            self.advance(ack, env, arrival);
        }
        let tells = advances || duplicate || (ack == una && !segment.options.sack.is_empty());
        if tells && self.has_path() {
            self.acknowledge_flight(segment, una, duplicate, env);
        }
        if advances || (ack == una && self.is_newer(segment)) {
            self.take_window(segment, env);
        }
        if self.has(flag::FIN_SENT) && self.snd_una == self.snd_max {
            self.fin_acknowledged(config, now, arrival);
        }
        true
    }

    #[inline]
    fn syn_acknowledged(&mut self, now: Instant, arrival: &mut Arrival) {
        self.snd_una = self.snd_max;
        self.snd_nxt = self.snd_max;
        self.measure(now);
        self.retries = 0;
        self.timer_at = Instant::NEVER;
        arrival.established = true;
        if self.has(flag::FIN_QUEUED) {
            // CLOSE came in SYN-RECEIVED: "queue for processing after entering ESTABLISHED state"
            // (s3.10.4).
            self.enter(Event::Close);
        }
    }

    /// SND.UNA moves: everything that rests on it does.
    #[inline(always)]
    fn advance(&mut self, ack: Seq, env: &mut Env<'_>, arrival: &mut Arrival) {
        let (config, now) = (env.config, env.now);
        let numbers = ack.since(self.snd_una);
        let fin_acked = self.has(flag::FIN_SENT) && ack == self.snd_max;
        arrival.acked_bytes = numbers - u32::from(fin_acked);
        self.una_offset += u64::from(arrival.acked_bytes);
        self.snd_una = ack;
        self.snd_nxt = self.snd_nxt.max(ack);
        self.measure(now);
        self.retries = 0;
        // What a probe carried was taken. If the window is still closed, probing begins anew.
        self.flags &= !flag::PERSIST;
        // RFC 6298 s5.2-5.3.
        let all_acked = self.snd_una == self.snd_max;
        self.timer_at = if all_acked { Instant::NEVER } else { now + self.rto(config) };
    }

    /// RFC 5681 s2: what counts as a duplicate acknowledgment.
    fn is_duplicate(&self, segment: &Segment) -> bool {
        self.snd_una != self.snd_max
            && segment.payload_len == 0
            && !segment.flags.has(Flags::FIN)
            && u32::from(segment.window) << self.snd_shift == self.snd_wnd
    }

    /// "the send window should be updated": only from segments newer than the last that did
    /// (SND.WL1, SND.WL2).
    ///
    /// Deviates: one that acknowledges more is newer whatever its sequence number, as for Linux.
    /// The RFC supposes that segments are processed in order; here the last may have come ahead of
    /// a gap, and what fills the gap has a lower number. To move SND.UNA and leave SND.WND would be
    /// to send past the window that the peer offered.
    fn is_newer(&self, segment: &Segment) -> bool {
        let (seq, ack) = (Seq(segment.seq), Seq(segment.ack));
        !self.wl1.after(seq) && (self.wl1 != seq || !self.wl2.after(ack))
    }

    #[inline(always)]
    fn take_window(&mut self, segment: &Segment, env: &mut Env<'_>) {
        // MUST-1: "The window size MUST be treated as an unsigned number".
        (self.wl1, self.wl2) = (Seq(segment.seq), Seq(segment.ack));
        // RFC 7323 s2.2: that of a SYN is not scaled; one may end a simultaneous open.
        let shift = if segment.flags.has(Flags::SYN) { 0 } else { self.snd_shift };
        self.snd_wnd = u32::from(segment.window) << shift;
        self.window_max = self.window_max.max(segment.window >> (self.snd_shift - shift));
        if self.has(flag::PERSIST) && self.snd_wnd > 0 {
            self.end_probing(env);
        }
    }

    /// The window is open again. What the probe carried past it was not taken: it goes out again
    /// with the rest.
    #[cold]
    fn end_probing(&mut self, env: &mut Env<'_>) {
        self.flags &= !flag::PERSIST;
        self.retries = 0;
        let in_flight = self.snd_una != self.snd_max;
        let rto_at = env.now + self.rto(env.config);
        self.timer_at = if in_flight { rto_at } else { Instant::NEVER };
        self.send_anew(env.paths);
    }

    #[inline]
    fn fin_acknowledged(&mut self, config: &Config, now: Instant, arrival: &mut Arrival) {
        match self.state() {
            State::FinWait1 => self.enter(Event::AckOfFin),
            State::Closing => {
                self.enter(Event::AckOfFin);
                self.begin_time_wait(config, now, arrival);
            }
            State::LastAck => {
                self.enter(Event::AckOfFin);
                arrival.ended = Some(End::Finished);
            }
            State::Closed
            | State::Listen
            | State::SynSent
            | State::SynReceived
            | State::Established
            | State::FinWait2
            | State::CloseWait
            | State::TimeWait => {}
        }
    }

    pub(super) fn begin_time_wait(&mut self, config: &Config, now: Instant, arrival: &mut Arrival) {
        self.timer_at = now + time_wait(config);
        self.flags &= !flag::PERSIST;
        arrival.time_wait = true;
    }

    /// RFC 5961 s7 challenge ACK.
    #[cold]
    fn challenge(&mut self, arrival: &mut Arrival) {
        self.owe_ack_now();
        arrival.note = Some(Note::ChallengeAck);
    }

    /// One ACK for this very segment.
    pub(super) fn owe_ack_now(&mut self) {
        self.dup_acks_owed = self.dup_acks_owed.saturating_add(1);
    }
}
