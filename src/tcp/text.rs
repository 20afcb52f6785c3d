//! Text and FIN: which part goes next, and whether it may (RFC 9293 s3.8.6, s3.7.4).
//!
//! A connection without a flight has one segment under way and begins again from `snd_una` if that
//! is lost. With one, what is lost goes before what is new, as far as the congestion window allows;
//! what is new goes at `snd_max`.

use super::cc::Window;
use super::flight::{Alarm, Flight, Phase, Tail, first_window};
use super::output::Transmit;
use super::rto::micros;
use super::tcb::{Tcb, flag, owed};
use super::{Config, Env, Seq};
use crate::time::Instant;
use crate::wire::tcp::Flags;

/// Where the next segment begins.
struct Stretch {
    start: Seq,
    /// Sequence numbers that it may cover: what is in flight behind them need not go again.
    numbers: u32,
    /// Bytes that the congestion window has room for.
    budget: u32,
}

/// A segment's part of the sequence space.
#[derive(Clone, Copy)]
struct Piece {
    start: Seq,
    /// Payload bytes.
    len: u32,
    fin: bool,
}

impl Piece {
    fn numbers(&self) -> u32 {
        self.len + u32::from(self.fin)
    }
}

impl Tcb {
    /// The next text or FIN that the peer's window and ours allow.
    #[inline(always)]
    pub(super) fn text(&mut self, env: &mut Env<'_>, out: &mut Transmit) -> bool {
        let asked = self.owed & (owed::PROBE | owed::TAIL);
        self.owed &= !(owed::PROBE | owed::TAIL);
        // MUST-16: what options take is the text's loss.
        let mss = u32::from(self.segment_bytes());
        let Some(piece) =
            self.stretch(asked, mss, env).and_then(|stretch| self.piece(&stretch, asked, mss, env))
        else {
            return false;
        };
        let Piece { start, len, fin } = piece;
        let again = start.before(self.snd_max);
        let mut flags = Flags::ACK;
        if len > 0 && u64::from(len) == self.unsent_from(start) {
            // MUST-61: "the PSH bit in the last buffered segment", and once for all that is in it
            // (SHLD-27).
            flags = flags | Flags::PSH;
        }
        if fin {
            flags = flags | Flags::FIN;
            self.flags |= flag::FIN_SENT;
        }
        let offset = self.offset_at(start);
        self.sent_text(&piece, asked, env);
        self.owed &= !(owed::ACK | owed::HANDSHAKE);
        let window = self.advertise(env.config, env.room);
        out.set(start, self.rcv_nxt, flags, window);
        self.text_options(env.config, env.now, &mut out.segment.options);
        out.segment.payload_len = len as u16;
        (out.offset, out.again) = (offset, again);
        true
    }

    /// Where to go on: with what is lost, else with what is new. `None` if a flight would have to
    /// begin and can't.
    #[inline(always)]
    fn stretch(&mut self, asked: u8, mss: u32, env: &mut Env<'_>) -> Option<Stretch> {
        let whole = Stretch { start: self.snd_nxt, numbers: u32::MAX, budget: u32::MAX };
        if env.paths.flight(self).is_none() {
            let alone = self.snd_nxt == self.snd_una || self.unsent() == 0;
            if alone || asked & owed::PROBE != 0 {
                return Some(whole);
            }
            if !self.begin_flight(mss, env) {
                return None;
            }
        }
        self.stretch_of_flight(asked, mss, env)
    }

    /// [`Tcb::stretch`] of who has a flight.
    #[inline(never)]
    fn stretch_of_flight(&mut self, asked: u8, mss: u32, env: &mut Env<'_>) -> Option<Stretch> {
        let whole = Stretch { start: self.snd_nxt, numbers: u32::MAX, budget: u32::MAX };
        let (flight, _) = env.paths.flight(self)?;
        let outstanding = flight.board.outstanding();
        if asked & owed::PROBE != 0 {
            // It repeats the first octet that was not taken.
            return Some(Stretch { start: self.snd_una, ..whole });
        }
        if outstanding == 0 {
            let idle = env.now.since(flight.sent_at);
            if idle > self.rto(env.config) {
                flight.window.idled(idle, mss);
            }
        }
        let pipe = flight.pipe(mss);
        let budget = match pipe {
            0 => flight.window.cwnd.max(mss),
            _ => flight.window.cwnd.saturating_sub(pipe),
        };
        if asked & owed::TAIL != 0 && outstanding > 0 {
            return self.tail_stretch(flight, mss);
        }
        match flight.board.first_lost() {
            Some((start, end)) if end != self.snd_max => {
                Some(Stretch { start, numbers: end.since(start), budget })
            }
            // SHLD-28: a segment that is sent again may be filled up with what is new.
            Some((start, _)) => Some(Stretch { start, budget, ..whole }),
            None => Some(Stretch { budget, ..whole }),
        }
    }

    /// RFC 8985 s7.3: a tail loss probe is the next new text if the peer's window has room for it,
    /// else the last segment again; the congestion window does not matter.
    fn tail_stretch(&self, flight: &Flight, mss: u32) -> Option<Stretch> {
        let whole = Stretch { start: self.snd_max, numbers: u32::MAX, budget: u32::MAX };
        let room = self.snd_wnd.saturating_sub(self.snd_max.since(self.snd_una));
        if u64::from(room) >= self.unsent().min(u64::from(mss)) && self.unsent() > 0 {
            return Some(whole);
        }
        let last = flight.board.last().filter(|run| run.in_flight())?;
        let fin = u32::from(self.has(flag::FIN_SENT));
        let start = self.snd_max.minus((mss + fin).min(self.snd_max.since(last.start)));
        Some(Stretch { start, ..whole })
    }

    /// How much of the stretch goes now: a full segment, or all there is, or half the largest
    /// window; less waits (RFC 9293 s3.8.6.2.1, MUST-38), but all there is never does (MUST-60). So
    /// what is promised piecemeal goes out in full segments (s3.9.1.2, MAY-16, SHLD-28).
    ///
    /// The peer's window may have shrunk: what is past its edge waits, new or not (s3.8.6, SHLD-15;
    /// its room is zero then and never less, MUST-34), what is inside goes again (SHLD-16).
    #[inline(always)]
    fn piece(
        &mut self,
        stretch: &Stretch,
        asked: u8,
        mss: u32,
        env: &mut Env<'_>,
    ) -> Option<Piece> {
        let &Stretch { start, numbers, budget } = stretch;
        let unsent = self.unsent_from(start);
        let fin_acked = self.has(flag::FIN_SENT) && self.snd_una == self.snd_max;
        let fin_due =
            self.has(flag::FIN_QUEUED) && !fin_acked && self.offset_at(start) <= self.promised;
        if unsent == 0 && !fin_due {
            return None;
        }
        let probe = asked & owed::PROBE != 0;
        let ahead = start.since(self.snd_una);
        let peer_room = self.snd_wnd.saturating_sub(ahead);
        // A probe carries at least one octet, or the FIN, whatever the window (MUST-36).
        let usable = if probe { peer_room.max(1) } else { peer_room };
        let len = u64::from(usable.min(mss).min(numbers)).min(unsent) as u32;
        let all = u64::from(len) == unsent;
        let fin = fin_due && all && usable > len && numbers > len;
        // SHLD-7, Nagle's algorithm: "if there is unacknowledged data ..., then the sending TCP
        // endpoint buffers all user data ... until the outstanding data has been acknowledged or
        // until the TCP endpoint can send a full-sized segment".
        let held = env.nagle && ahead > 0 && !start.before(self.snd_max) && asked == 0;
        let worthwhile = fin
            || len == mss
            || (len > 0 && all && !held)
            || (len > 0 && len == numbers)
            || (len > 0 && len >= self.snd_wnd_max() / 2);
        if !probe && !worthwhile {
            self.persist(env);
            return None;
        }
        if len > budget {
            if let Some((flight, _)) = env.paths.flight(self) {
                flight.limited_to = Some(self.snd_max);
            }
            return None;
        }
        Some(Piece { start, len, fin })
    }

    /// Accounts for a piece that goes out.
    #[inline(always)]
    fn sent_text(&mut self, piece: &Piece, asked: u8, env: &mut Env<'_>) {
        if env.paths.flight(self).is_some() {
            return self.sent_in_flight(piece, asked, env);
        }
        self.time(piece.numbers(), env.now);
        self.sent(piece.numbers(), env.config, env.now);
    }

    /// [`Tcb::sent_text`] of who has a flight.
    #[inline(never)]
    fn sent_in_flight(&mut self, piece: &Piece, asked: u8, env: &mut Env<'_>) {
        let (config, now, now_us) = (env.config, env.now, micros(env.now));
        let &Piece { start, .. } = piece;
        let Some((flight, tally)) = env.paths.flight(self) else { return };
        let end = start.plus(piece.numbers());
        let alone = self.snd_una == self.snd_max;
        let grain_us = Flight::grain_us(self.srtt_us);
        if start.before(self.snd_max) {
            // RFC 6298 s3: no measurement across what was sent again.
            self.flags &= !flag::TIMING;
            tally.fast_retransmissions += u64::from(flight.phase == Phase::Recovery);
            tally.slow_retransmissions += u64::from(flight.phase == Phase::Timeout);
            flight.board.resend(start, end.min(self.snd_max), now_us, grain_us);
            self.show_lost(flight);
        } else if flight.phase == Phase::Open {
            self.time(piece.numbers(), now);
        }
        if end.after(self.snd_max) {
            flight.board.push(start.max(self.snd_max), end, now_us, grain_us);
        }
        if asked & owed::TAIL != 0 {
            flight.tail =
                Some(Tail { end: end.max(self.snd_max), again: start.before(self.snd_max) });
        }
        self.snd_max = self.snd_max.max(end);
        self.snd_nxt = self.snd_max;
        flight.advanced_at = if alone { now } else { flight.advanced_at };
        flight.sent_at = now;
        let sent = flight.reduction.sent.saturating_add(piece.numbers());
        flight.reduction.sent = sent;
        if self.has(flag::PERSIST) {
            return;
        }
        // RFC 6298 s5.1; and the first segment, when sent again, has a round trip before it.
        if flight.rto_at == Instant::NEVER || start == self.snd_una {
            flight.rto_at = now + self.rto(config);
            self.timer_at = self.timer_at.min(flight.rto_at);
        }
        if flight.alarm != Alarm::Reorder {
            self.set_alarm(flight, None, now);
        }
    }

    /// A second segment is to join the first, which is under way: from here on a scoreboard says
    /// what of it is where. False if there is none to be had.
    #[cold]
    fn begin_flight(&mut self, mss: u32, env: &mut Env<'_>) -> bool {
        if self.snd_nxt != self.snd_max || self.snd_wnd <= self.snd_max.since(self.snd_una) {
            return false;
        }
        let Some(path) = env.paths.lend(self) else { return false };
        let flight = &mut path.flight;
        let lossy = self.has(flag::SYN_RESENT) || self.retries > 0;
        flight.window = Window::new(env.config.congestion, first_window(mss, lossy));
        let timed = self.has(flag::TIMING) && self.rtt_seq == self.snd_max;
        let sent_us = if timed { self.rtt_at_us } else { micros(env.now) };
        flight.board.push(self.snd_una, self.snd_max, sent_us, 0);
        if self.retries > 0 {
            flight.board.resend(self.snd_una, self.snd_max, sent_us, 0);
        }
        flight.rto_at = self.timer_at;
        (flight.advanced_at, flight.sent_at) = (env.now, env.now);
        true
    }

    /// Nothing may go. If nothing is on its way either, no ACK will come to change that: it is the
    /// peer's window that keeps us, and the timer becomes the persist timer, the first probe after
    /// one RTO (RFC 9293 s3.8.6.1, SHLD-29). So it is with a window that shrank to nothing
    /// (MUST-35).
    #[cold]
    fn persist(&mut self, env: &mut Env<'_>) {
        let under_way = match env.paths.flight(self) {
            Some((flight, _)) => flight.board.pipe() > 0,
            None => self.snd_nxt != self.snd_una,
        };
        if under_way || self.has(flag::PERSIST) {
            return;
        }
        self.flags |= flag::PERSIST;
        self.retries = 0;
        self.probes = 0;
        self.timer_at = env.now + self.rto(env.config);
    }

    /// Times the `numbers` sequence numbers that are sent now at `snd_nxt`, if they are new (RFC
    /// 6298 s3).
    pub(super) fn time(&mut self, numbers: u32, now: Instant) {
        if self.snd_nxt == self.snd_max && !self.has(flag::TIMING) {
            self.flags |= flag::TIMING;
            (self.rtt_seq, self.rtt_at_us) = (self.snd_nxt.plus(numbers), micros(now));
        }
    }

    /// Accounts for `numbers` sequence numbers sent at `snd_nxt` without a flight.
    pub(super) fn sent(&mut self, numbers: u32, config: &Config, now: Instant) {
        self.snd_nxt = self.snd_nxt.plus(numbers);
        self.snd_max = self.snd_max.max(self.snd_nxt);
        // RFC 6298 s5.1.
        if self.timer_at == Instant::NEVER {
            self.timer_at = now + self.rto(config);
        }
    }

    /// Promised bytes from `snd_nxt` on.
    pub(super) fn unsent(&self) -> u64 {
        self.unsent_from(self.snd_nxt)
    }

    /// Stream offset of `snd_nxt`; one past `promised` once FIN is behind it.
    pub(super) fn offset_at_next(&self) -> u64 {
        self.offset_at(self.snd_nxt)
    }

    fn unsent_from(&self, seq: Seq) -> u64 {
        self.promised.saturating_sub(self.offset_at(seq))
    }

    /// Stream offset of a number that is not before `snd_una`.
    fn offset_at(&self, seq: Seq) -> u64 {
        self.una_offset + u64::from(seq.since(self.snd_una))
    }

    /// Payload bytes of a full segment that carries nothing but timestamps (MUST-16).
    pub(super) fn segment_bytes(&self) -> u16 {
        self.snd_mss - if self.has(flag::TIMESTAMPS) { super::tcb::TIMESTAMP_BYTES } else { 0 }
    }
}
