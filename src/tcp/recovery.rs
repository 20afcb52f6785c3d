//! What acknowledgments and time say of a flight: what has arrived, what is lost, how much may be
//! under way now, and which timer comes next (RFC 6675, RFC 6582, RFC 8985, RFC 9937).
//!
//! Peers with SACK are judged by time (`rack`), others by duplicate acknowledgments. Nothing is
//! sent from here: what is lost is marked, and `text` sends it again.

use super::cc::Acked;
use super::cc::hystart::Pace;
use super::flight::{Alarm, DUP_ACKS_LOST, Flight, Phase, Reduction};
use super::path::Tally;
use super::rto::{Expiry, micros};
use super::scoreboard::Fate;
use super::tcb::{Tcb, flag, owed};
use super::{Env, Paths, Seq};
use crate::time::{Instant, Span};
use crate::wire::segment::Segment;

/// RFC 8985 s7.2: a probe timeout before there is a measurement.
const PROBE_UNMEASURED: Span = Span::from_secs(1);

/// What a peer may wait with the acknowledgment of a single segment (RFC 8985 s7.2, WCDelAckT).
const ACK_DELAY_MAX: Span = Span::from_millis(200);

/// What is added to two round trips: on a short path those are less than what a busy peer takes to
/// answer. Two ticks of a kernel's clock, as Linux adds.
const PROBE_SLACK: Span = Span::from_millis(2);

/// An acknowledgment, as far as the flight is concerned.
struct News {
    /// Bytes by which SND.UNA moved.
    advanced: u32,
    /// Bytes that are now known to have arrived, and were not before.
    delivered: u32,
    /// A D-SACK (RFC 2883): something arrived twice.
    duplicated: bool,
    /// Bytes newly taken for lost.
    lost: u32,
    /// When something more will be overdue, in µs from now.
    wait_us: Option<u32>,
}

impl Tcb {
    /// An acceptable acknowledgment moved SND.UNA from `una` to where it is, or was a `duplicate`,
    /// or has SACK blocks.
    pub(super) fn acknowledge_flight(
        &mut self,
        segment: &Segment,
        una: Seq,
        duplicate: bool,
        env: &mut Env<'_>,
    ) {
        let (mss, now_us) = (u32::from(self.segment_bytes()), micros(env.now));
        let Some((flight, tally)) = env.paths.flight(self) else { return };
        let Flight { board, rack, .. } = flight;
        let advanced = self.snd_una.since(una);
        let flown = board.outstanding();
        let delivered = board.acknowledge(self.snd_una, |run| rack.delivered(run, now_us));
        let mut news = News { advanced, delivered, duplicated: false, lost: 0, wait_us: None };
        if flight.phase != Phase::Open
            && flight.recover.is_none_or(|recover| !self.snd_una.before(recover))
        {
            flight.end_loss();
        }
        if self.has(flag::SACK) {
            self.take_sacks(segment, flight, &mut news, tally, now_us);
            self.judge_by_time(flight, &mut news, tally, now_us);
        } else {
            self.judge_by_duplicates(flight, &mut news, duplicate, mss);
        }
        if news.lost > 0 && flight.phase == Phase::Open {
            self.begin_recovery(flight, flown, tally);
        }
        flight.recover = flight.recover.filter(|&recover| !self.snd_una.after(recover));
        self.end_tail(flight, &news, duplicate, tally, mss);
        match flight.phase {
            Phase::Recovery => {
                flight.reduce(news.delivered, mss, news.advanced > 0 && news.lost == 0);
            }
            Phase::Open | Phase::Timeout => {
                // RFC 3465 s2.3: after a timeout one ACK may cover much that was sent before it.
                let bytes = match flight.phase {
                    Phase::Timeout => news.advanced.min(mss),
                    Phase::Open | Phase::Recovery => self.slow_start(flight, news.advanced),
                };
                if flight.limited_to.is_some_and(|to| una.before(to)) && bytes > 0 {
                    let acked = Acked { bytes, mss, srtt_us: self.srtt_us, now: env.now };
                    flight.window.grow(&acked);
                }
            }
        }
        let limit_acked = |to: &Seq| !self.snd_una.after(*to);
        flight.limited_to = flight.limited_to.filter(limit_acked);
        self.show_lost(flight);
        // The persist timer goes on.
        if !self.has(flag::PERSIST) {
            if news.advanced > 0 {
                flight.advanced_at = env.now;
                // RFC 6298 s5.2-5.3.
                let all_acked = self.snd_una == self.snd_max;
                let rto_at =
                    if all_acked { Instant::NEVER } else { env.now + self.rto(env.config) };
                flight.rto_at = rto_at;
            }
            if news.advanced > 0 || news.delivered > 0 || news.wait_us.is_some() {
                self.set_alarm(flight, news.wait_us, env.now);
            }
        }
    }

    /// How much of `bytes` acknowledged counts: all of it, or less while the first slow start is
    /// wary of a queue (RFC 9406).
    fn slow_start(&self, flight: &mut Flight, bytes: u32) -> u32 {
        if !flight.window.is_starting() {
            return bytes;
        }
        match flight.hystart.acked(self.snd_una, self.snd_max, flight.rack.rtt_us()) {
            Pace::Grow(divisor) => bytes.div_ceil(divisor),
            Pace::Over => {
                flight.window.end_slow_start();
                bytes
            }
        }
    }

    /// The blocks of a SACK option, as far as they can be true (RFC 2018 s4, RFC 2883 s4).
    fn take_sacks(
        &self,
        segment: &Segment,
        flight: &mut Flight,
        news: &mut News,
        tally: &mut Tally,
        now_us: u32,
    ) {
        let Flight { board, rack, .. } = flight;
        let blocks = segment.options.sack.blocks();
        for (place, &(left, right)) in blocks.iter().enumerate() {
            let (left, right) = (Seq(left), Seq(right));
            // RFC 2883 s4: the first block, below the acknowledgment or inside of the second one.
            let second = blocks.get(1).filter(|_| place == 0);
            let inside = second.is_some_and(|&(from, to)| {
                !left.before(Seq(from))
                    && !right.after(Seq(to))
                    && (left, right) != (Seq(from), Seq(to))
            });
            if place == 0 && left.before(right) && (!right.after(self.snd_una) || inside) {
                tally.dsacks += 1;
                news.duplicated = true;
                rack.duplicated(self.snd_una, self.snd_max);
                continue;
            }
            let sound =
                left.before(right) && !left.before(self.snd_una) && !right.after(self.snd_max);
            let bytes = match sound {
                true => board.sack(left, right, |run| rack.delivered(run, now_us)),
                false => None,
            };
            match bytes {
                Some(bytes) => news.delivered += bytes,
                None => tally.sacks_discarded += 1,
            }
        }
    }

    /// What is overdue is lost.
    fn judge_by_time(&self, flight: &mut Flight, news: &mut News, tally: &mut Tally, now_us: u32) {
        let mss = u32::from(self.segment_bytes());
        let ahead = flight.board.sacked() >= u32::from(DUP_ACKS_LOST) * mss;
        let sure = ahead || flight.phase != Phase::Open;
        let (lost, again, wait_us) =
            flight.rack.judge(&mut flight.board, now_us, sure, self.srtt_us);
        (news.lost, news.wait_us) = (lost, wait_us);
        tally.retransmissions_lost += u64::from(again.div_ceil(mss));
    }

    /// A peer without SACK (RFC 5681 s3.2, RFC 6582 s3.2). Each duplicate tells of a segment that
    /// arrived, so that limited transmit (RFC 3042) needs no rule of its own.
    fn judge_by_duplicates(&self, flight: &mut Flight, news: &mut News, duplicate: bool, mss: u32) {
        match flight.phase {
            Phase::Open if duplicate => {
                flight.count_duplicate(mss);
                news.delivered += mss;
                // "the Cumulative Acknowledgment field covers more than recover": else it may be
                // the answer to what was sent again for nothing.
                if flight.dup_acks >= DUP_ACKS_LOST && flight.recover.is_none() {
                    news.lost = flight.board.lose_head(mss);
                }
            }
            Phase::Recovery if duplicate => {
                flight.count_duplicate(mss);
                news.delivered += mss;
            }
            Phase::Recovery if news.advanced > 0 => {
                // A partial acknowledgment: what was sent again filled one gap, and what follows it
                // is the next. The rest of what it covers was counted by duplicates before.
                let segments = news.advanced.div_ceil(mss).min(u32::from(u16::MAX)) as u16;
                let counted = flight.dup_acks.min(segments - 1);
                flight.dup_acks -= counted;
                news.delivered = news.advanced.saturating_sub(u32::from(counted) * mss);
                if flight.board.first().is_some_and(|head| head.fate == Fate::Sent) {
                    news.lost = flight.board.lose_head(mss);
                }
            }
            Phase::Open if news.advanced > 0 => flight.dup_acks = 0,
            Phase::Open | Phase::Recovery | Phase::Timeout => {}
        }
    }

    fn begin_recovery(&self, flight: &mut Flight, flown: u32, tally: &mut Tally) {
        let mss = u32::from(self.segment_bytes());
        flight.phase = Phase::Recovery;
        flight.recover = Some(self.snd_max);
        flight.tail = None;
        flight.window.congested(flown, mss);
        flight.reduction = Reduction { from: flown, ..Reduction::default() };
        match self.has(flag::SACK) {
            true => tally.sack_recoveries += 1,
            false => tally.reno_recoveries += 1,
        }
    }

    /// Whether a tail loss probe has told what it was sent for (RFC 8985 s7.4.2).
    fn end_tail(
        &self,
        flight: &mut Flight,
        news: &News,
        duplicate: bool,
        tally: &mut Tally,
        mss: u32,
    ) {
        let Some(tail) = flight.tail else { return };
        if self.snd_una.before(tail.end) {
            return;
        }
        let repaired = tail.again && !news.duplicated && self.snd_una.after(tail.end);
        if repaired {
            // What it carried had been lost: congestion, although nothing is left to repair.
            tally.tail_recoveries += 1;
            flight.window.reduce_now(flight.board.outstanding().max(flight.window.cwnd), mss);
        }
        let told = !tail.again || news.duplicated || repaired || duplicate;
        flight.tail = flight.tail.filter(|_| !told);
    }

    /// The peer says that a router marked congestion (RFC 3168 s6.1.2): the window is halved, or as
    /// the law has it, once for what is in flight now, and the next new text says so. Without a
    /// flight there is no window to halve.
    pub(super) fn congestion_echoed(&mut self, paths: &mut Paths) {
        let mss = u32::from(self.segment_bytes());
        let Some((flight, _)) = paths.flight(self) else {
            self.flags |= flag::REDUCED;
            return;
        };
        let answered = flight.echoed_to.is_some_and(|to| self.snd_una.before(to));
        if flight.phase == Phase::Open && !answered {
            flight.window.reduce_now(flight.board.outstanding(), mss);
            flight.echoed_to = Some(self.snd_max);
            self.flags |= flag::REDUCED;
        }
    }

    /// An alarm's time may have come, and not the retransmission timer's: what it was, then.
    pub(super) fn alarm_rings(&mut self, env: &mut Env<'_>) -> Option<Expiry> {
        let (flight, tally) = env.paths.flight(self)?;
        match std::mem::take(&mut flight.alarm) {
            Alarm::None => None,
            Alarm::Tail => {
                tally.tail_probes += 1;
                self.owed |= owed::TAIL;
                // RFC 8985 s7.3: after the probe it is the retransmission timer's turn.
                flight.rto_at = env.now + self.rto(env.config);
                self.timer_at = flight.rto_at;
                Some(Expiry::ProbeTail)
            }
            Alarm::Reorder => {
                let mut news =
                    News { advanced: 0, delivered: 0, duplicated: false, lost: 0, wait_us: None };
                let flown = flight.board.outstanding();
                self.judge_by_time(flight, &mut news, tally, micros(env.now));
                if news.lost > 0 && flight.phase == Phase::Open {
                    self.begin_recovery(flight, flown, tally);
                    flight.reduce(0, u32::from(self.segment_bytes()), false);
                }
                self.show_lost(flight);
                self.set_alarm(flight, news.wait_us, env.now);
                Some(Expiry::Reorder)
            }
        }
    }

    /// The retransmission timer fired: everything that is not known to have arrived is lost, and
    /// goes out again from the first on (RFC 6675 s5.1, RFC 5681 s3.1).
    pub(super) fn time_out_flight(&mut self, paths: &mut Paths) {
        let mss = u32::from(self.segment_bytes());
        let Some((flight, tally)) = paths.flight(self) else {
            self.snd_nxt = self.snd_una;
            return;
        };
        // RFC 2018 s8: the peer may discard what it has reported. That the first number is among
        // it shows that it did; a second timeout in a row leaves nothing to rely on.
        let reneged = flight.board.first().is_some_and(|head| head.fate == Fate::Sacked);
        tally.reneged += u64::from(reneged);
        if reneged || self.retries > 1 {
            flight.board.forget_sacked();
        }
        let first = flight.phase != Phase::Timeout || self.retries <= 1;
        flight.window.timed_out(flight.board.outstanding(), mss, first);
        flight.board.lose(|_| true);
        flight.phase = Phase::Timeout;
        flight.recover = Some(self.snd_max);
        (flight.dup_acks, flight.tail, flight.alarm) = (0, None, Alarm::None);
        flight.rto_at = self.timer_at;
        self.show_lost(flight);
    }

    /// The peer's window kept out what is in flight, or let in no more than a probe: it goes out
    /// again from the first number on.
    pub(super) fn send_anew(&mut self, paths: &mut Paths) {
        let Some((flight, _)) = paths.flight(self) else {
            self.snd_nxt = self.snd_una;
            return;
        };
        flight.board.lose(|_| true);
        flight.alarm = Alarm::None;
        flight.rto_at = self.timer_at;
        self.show_lost(flight);
    }

    /// Lets `wants_output` see whether something is to be sent again.
    pub(super) fn show_lost(&mut self, flight: &Flight) {
        self.flags &= !flag::LOST;
        self.flags |= if flight.board.lost() > 0 { flag::LOST } else { 0 };
    }

    /// Sets the timer: to when something will be overdue, else to when a tail loss probe is due,
    /// else to the retransmission timeout. Whatever it is, that timeout is not passed over.
    pub(super) fn set_alarm(&mut self, flight: &mut Flight, wait_us: Option<u32>, now: Instant) {
        let (alarm, at) = match wait_us {
            Some(wait_us) => (Alarm::Reorder, now + Span::from_micros(u64::from(wait_us))),
            None if self.may_probe(flight) => (Alarm::Tail, now + self.probe_timeout(flight)),
            None => (Alarm::None, Instant::NEVER),
        };
        (flight.alarm, self.timer_at) = match at < flight.rto_at {
            true => (alarm, at),
            false => (Alarm::None, flight.rto_at),
        };
    }

    /// RFC 8985 s7.2: with SACK, no loss in sight, and no probe under way.
    fn may_probe(&self, flight: &Flight) -> bool {
        let Flight { board, phase, tail, .. } = flight;
        self.has(flag::SACK)
            && *phase == Phase::Open
            && tail.is_none()
            && board.pipe() > 0
            && board.sacked() == 0
            && board.lost() == 0
    }

    /// RFC 8985 s7.2.
    fn probe_timeout(&self, flight: &Flight) -> Span {
        if self.srtt_us == 0 {
            return PROBE_UNMEASURED;
        }
        let single = flight.board.outstanding() <= u32::from(self.segment_bytes());
        let delay = if single { ACK_DELAY_MAX } else { PROBE_SLACK };
        Span::from_micros(2 * u64::from(self.srtt_us)) + delay
    }
}

impl Flight {
    /// What was sent when the loss became known is acknowledged.
    fn end_loss(&mut self) {
        if self.phase == Phase::Recovery {
            self.window.recovered();
            self.rack.recovered();
        }
        (self.phase, self.dup_acks) = (Phase::Open, 0);
    }
}
