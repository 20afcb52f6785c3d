//! The retransmission timeout (RFC 6298) and what happens when a connection's time comes.

use super::state::{Event, State};
use super::tcb::{Tcb, flag, owed};
use super::{Config, End, Env, Keepalive};
use crate::time::{Instant, Span};

/// What is added to SRTT at the least, up to the lower bound of the RTO: RFC 6298's G. On a path
/// whose round trip is long and steady the timeout would else be no longer than that, and every
/// delayed ACK too late. Linux's 200 ms.
const SLACK_MAX: Span = Span::from_millis(200);

/// RFC 6298 s5.7: the RTO to begin with when the SYN had to be sent again.
const RTO_AFTER_LOST_SYN: Span = Span::from_secs(3);

/// Times that a segment is sent again before the next hop is in doubt (RFC 9293 s3.8.3, R1:
/// "at least 3 retransmissions").
const R1: u8 = 3;

/// What time did to a connection, for the engine to count and to tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expiry {
    /// Its time had not come, or only its deadline moved.
    Early,
    /// SYN or SYN-ACK is owed again.
    ResendSyn,
    /// The first unacknowledged segment is owed again.
    Resend,
    /// What is overdue was taken for lost (RFC 8985 s6.3).
    Reorder,
    /// A tail loss probe is owed (RFC 8985 s7).
    ProbeTail,
    /// A zero-window probe is owed.
    ProbeWindow,
    /// A delayed acknowledgment is owed.
    Acknowledge,
    /// A keepalive probe is owed.
    ProbeKeepalive,
    /// TIME-WAIT is over. The application knows already.
    TimeWaitOver,
    /// Given up.
    Ended(End),
}

impl Tcb {
    /// The present timeout: SRTT + max(G, 4 RTTVAR), doubled a retry, within the bounds (RFC 6298
    /// s2.2-2.5, s5.5). So do the waits between the probes of a zero window grow (RFC 9293
    /// s3.8.6.1, SHLD-30). The backing off is MUST-19's.
    pub(super) fn rto(&self, config: &Config) -> Span {
        let base = if self.srtt_us == 0 {
            // Not before data transmission begins.
            let in_handshake = matches!(self.state(), State::SynSent | State::SynReceived);
            match self.has(flag::SYN_RESENT) && !in_handshake {
                true => config.rto_initial.max(RTO_AFTER_LOST_SYN),
                false => config.rto_initial,
            }
        } else {
            let variance = Span::from_micros(4 * u64::from(self.rttvar_us));
            let slack = config.rto_min.min(SLACK_MAX);
            let sum = Span::from_micros(u64::from(self.srtt_us)) + variance.max(slack);
            sum.max(config.rto_min)
        };
        base.times(1 << self.retries.min(20)).min(config.rto_max)
    }

    /// Takes one round-trip measurement (RFC 6298 s2.2, s2.3), unless the timed segment was sent
    /// again (Karn, MUST-18: `TIMING` is off then).
    #[inline(always)]
    pub(super) fn measure(&mut self, now: Instant) {
        if !self.has(flag::TIMING) || self.snd_una.before(self.rtt_seq) {
            return;
        }
        self.flags &= !flag::TIMING;
        let rtt_us = (micros(now).wrapping_sub(self.rtt_at_us)).clamp(1, 1 << 30);
        if self.srtt_us == 0 {
            (self.srtt_us, self.rttvar_us) = (rtt_us, rtt_us / 2);
        } else {
            let error = self.srtt_us.abs_diff(rtt_us);
            self.rttvar_us = self.rttvar_us - self.rttvar_us / 4 + error / 4;
            self.srtt_us = (self.srtt_us - self.srtt_us / 8 + rtt_us / 8).max(1);
        }
    }

    /// Lets time act.
    pub fn expires(
        &mut self,
        keepalive: Option<Keepalive>,
        data_retries: u8,
        env: &mut Env<'_>,
    ) -> Expiry {
        let (config, now) = (env.config, env.now);
        if self.ack_by() <= now && self.end_delay() {
            self.owed |= owed::ACK;
            return Expiry::Acknowledge;
        }
        if self.timer_at <= now {
            return match self.state() {
                State::Closed | State::Listen => Expiry::Early,
                State::TimeWait => self.leave_time_wait(now),
                State::SynSent | State::SynReceived => self.resend_syn(config, now),
                State::Established
                | State::FinWait1
                | State::FinWait2
                | State::CloseWait
                | State::Closing
                | State::LastAck => self.resend_text(data_retries, env),
            };
        }
        match self.state() {
            State::FinWait2 if self.heard_at + config.fin_wait2 <= now => {
                self.abandon();
                Expiry::Ended(End::FinWait2Timeout)
            }
            State::Established | State::CloseWait => match keepalive {
                Some(keepalive) if self.keepalive_at(keepalive) <= now => self.probe(keepalive),
                _ => Expiry::Early,
            },
            State::Closed
            | State::Listen
            | State::SynSent
            | State::SynReceived
            | State::FinWait1
            | State::FinWait2
            | State::Closing
            | State::LastAck
            | State::TimeWait => Expiry::Early,
        }
    }

    fn leave_time_wait(&mut self, now: Instant) -> Expiry {
        // The last ACK must be out first: without room to send, TIME-WAIT lasts a little longer.
        if self.owes() {
            self.timer_at = now + Span::from_millis(1);
            return Expiry::Early;
        }
        self.enter(Event::TimeWaitOver);
        self.timer_at = Instant::NEVER;
        Expiry::TimeWaitOver
    }

    fn resend_syn(&mut self, config: &Config, now: Instant) -> Expiry {
        if self.retries >= config.syn_retries {
            // RFC 9293 s3.8.3, MUST-22: R2 for a SYN is passed: close the connection.
            self.abandon();
            return Expiry::Ended(End::SynTimeout);
        }
        self.flags |= flag::SYN_RESENT;
        self.back_off(config, now);
        self.snd_nxt = self.snd_una;
        Expiry::ResendSyn
    }

    fn resend_text(&mut self, data_retries: u8, env: &mut Env<'_>) -> Expiry {
        // A peer that answers zero-window probes is never given up (MUST-37), nor one that shrank
        // its window (SHLD-17): `probes` counts the unanswered ones. Unless our application has
        // closed, and nobody is left who could give it up (RFC 6429 s4): then all count that have
        // moved nothing.
        let persist = self.has(flag::PERSIST);
        let left = matches!(self.state(), State::FinWait1 | State::Closing | State::LastAck);
        if !persist && let Some(expiry) = self.alarm_rings(env) {
            return expiry;
        }
        let unanswered = if persist && !left { self.probes } else { self.retries };
        let (now, stalled) = (env.now, self.stalled(env));
        let limit = env.config.user_timeout.filter(|_| !persist);
        if unanswered >= data_retries || limit.is_some_and(|limit| stalled >= limit) {
            // RFC 9293 s3.8.3, MUST-20: R2 is passed: close the connection.
            self.abandon();
            return Expiry::Ended(End::DataTimeout);
        }
        self.back_off(env.config, env.now);
        if persist {
            self.send_anew(env.paths);
            self.probes += 1;
            self.owed |= owed::PROBE;
            return Expiry::ProbeWindow;
        }
        if let Some(limit) = limit {
            self.timer_at = self.timer_at.min(now + (limit - stalled));
        }
        self.suspect_black_hole();
        self.time_out_flight(env.paths);
        Expiry::Resend
    }

    /// How long what is in flight has waited for an acknowledgment.
    fn stalled(&self, env: &mut Env<'_>) -> Span {
        match env.paths.flight(self) {
            Some((flight, _)) => env.now.since(flight.advanced_at),
            // The time of the only segment stays when it is sent again.
            None => Span::from_micros(u64::from(micros(env.now).wrapping_sub(self.rtt_at_us))),
        }
    }

    /// True once R1 is passed, and until the next timeout: something may be wrong with the next hop
    /// (RFC 9293 s3.8.3, MUST-20 (b), SHLD-10).
    pub fn is_in_doubt(&self) -> bool {
        self.retries == R1
    }

    /// Backs the timer off (RFC 6298 s5.5-5.6) and stops the measurement.
    fn back_off(&mut self, config: &Config, now: Instant) {
        self.retries = self.retries.saturating_add(1);
        self.flags &= !flag::TIMING;
        self.timer_at = now + self.rto(config);
    }

    /// Keep-alive (RFC 9293 s3.8.4, MAY-5): nothing was heard for the interval.
    fn probe(&mut self, keepalive: Keepalive) -> Expiry {
        // MUST-29: one unanswered probe is no proof of a dead connection; all of them are taken as
        // one.
        if self.probes >= keepalive.probes {
            self.owed |= owed::RST;
            self.abandon();
            return Expiry::Ended(End::KeepaliveTimeout);
        }
        self.probes += 1;
        self.owed |= owed::KEEPALIVE;
        Expiry::ProbeKeepalive
    }
}

/// Microseconds, wrapping: enough for a round trip.
pub(super) fn micros(now: Instant) -> u32 {
    (now.as_nanos() / 1_000) as u32
}
