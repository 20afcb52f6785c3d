//! Congestion control: how much may be under way (RFC 5681, RFC 9438, RFC 6928, RFC 9406).
//!
//! `Window` owns what all have in common: slow start, the threshold, what a timeout and idleness
//! do. A `Law` knows congestion avoidance alone. They count in bytes and are told what happened; of
//! segments, acknowledgments and timers they know nothing.

mod cubic;
pub(super) mod hystart;
mod newreno;

use crate::time::{Instant, Span};
use cubic::Cubic;
use newreno::NewReno;

/// The largest congestion window, in bytes: the largest receive window (RFC 7323 s2.3).
const WINDOW_BYTES_MAX: u32 = 1 << 30;

/// Which congestion control a sender uses (RFC 9293 s3.8.2, MAY-18: others than the RFC's may be).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Congestion {
    /// None: the peer's window alone bounds what is under way. For the tester who wants to see what
    /// a network does with that; never for a network that is shared.
    Fixed,
    /// RFC 5681.
    NewReno,
    /// RFC 9438.
    #[default]
    Cubic,
}

/// An acknowledgment, as far as it matters here.
#[derive(Clone, Copy, Debug)]
pub(super) struct Acked {
    /// Bytes that it acknowledges.
    pub bytes: u32,
    pub mss: u32,
    pub srtt_us: u32,
    pub now: Instant,
}

/// Congestion avoidance: one law of growth and decrease.
trait Avoidance {
    /// Bytes by which a window of `cwnd` bytes grows for `acked`.
    fn growth(&mut self, cwnd: u32, acked: &Acked) -> u32;

    /// Congestion with `used` bytes of the window in use: the bytes that may be under way
    /// from now on.
    fn decrease(&mut self, used: u32, mss: u32) -> u32;

    /// The congestion showed as a timeout.
    fn timed_out(&mut self) {}

    /// Nothing was sent for so long.
    fn idled(&mut self, _idle: Span) {}
}

#[derive(Clone, Debug)]
enum Law {
    Fixed,
    NewReno(NewReno),
    Cubic(Cubic),
}

/// A congestion window.
#[derive(Clone, Debug)]
pub(super) struct Window {
    /// Bytes that may be under way. Zero before the connection begins to use it.
    pub cwnd: u32,
    /// Up to here the window grows by slow start.
    ssthresh: u32,
    law: Law,
}

impl Congestion {
    /// Each of them, in declaration order.
    pub const ALL: [Congestion; 3] = [Congestion::Fixed, Congestion::NewReno, Congestion::Cubic];

    /// Name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Congestion::Fixed => "fixed",
            Congestion::NewReno => "newreno",
            Congestion::Cubic => "cubic",
        }
    }
}

/// RFC 6928 s2: "min (10*MSS, max (2*MSS, 14600))", in bytes.
pub(super) fn initial_window(mss: u32) -> u32 {
    (10 * mss).min((2 * mss).max(14_600))
}

impl Default for Window {
    fn default() -> Window {
        Window { cwnd: 0, ssthresh: u32::MAX, law: Law::Fixed }
    }
}

impl Window {
    /// A window of `initial` bytes that is under the law of `congestion`.
    pub fn new(congestion: Congestion, initial: u32) -> Window {
        let (law, cwnd) = match congestion {
            Congestion::Fixed => (Law::Fixed, WINDOW_BYTES_MAX),
            Congestion::NewReno => (Law::NewReno(NewReno::default()), initial),
            Congestion::Cubic => (Law::Cubic(Cubic::default()), initial),
        };
        Window { cwnd, ssthresh: u32::MAX, law }
    }

    /// True if nothing changes it.
    pub fn is_fixed(&self) -> bool {
        matches!(self.law, Law::Fixed)
    }

    /// Bytes that may be under way once the present congestion is over.
    pub fn ssthresh(&self) -> u32 {
        self.ssthresh
    }

    /// True in the slow start that a connection begins with.
    pub fn is_starting(&self) -> bool {
        self.ssthresh == u32::MAX && !self.is_fixed()
    }

    /// Slow start is over, without congestion: the window stays where it is.
    pub fn end_slow_start(&mut self) {
        self.ssthresh = self.cwnd;
    }

    /// Slow start and congestion avoidance (RFC 9293 s3.8.2, MUST-19). Grows by what is
    /// acknowledged, in bytes rather than ACKs (RFC 3465).
    ///
    /// Deviates: no limit L, as for Linux: receivers that take frames in batches acknowledge many
    /// segments at once. `Acked` is limited by the caller where RFC 3465 s2.3 insists, after a
    /// timeout.
    pub fn grow(&mut self, acked: &Acked) {
        // Slow start up to the threshold; what is left counts for congestion avoidance.
        let slow = acked.bytes.min(self.ssthresh.saturating_sub(self.cwnd));
        let rest = Acked { bytes: acked.bytes - slow, ..*acked };
        let mut cwnd = self.cwnd.saturating_add(slow);
        if rest.bytes > 0 {
            cwnd = cwnd.saturating_add(match &mut self.law {
                Law::Fixed => 0,
                Law::NewReno(law) => law.growth(cwnd, &rest),
                Law::Cubic(law) => law.growth(cwnd, &rest),
            });
        }
        self.cwnd = cwnd.min(WINDOW_BYTES_MAX);
    }

    /// Congestion, with `flight` bytes sent and not acknowledged: sets the threshold. What becomes
    /// of the window itself is the caller's: recovery goes there step by step.
    pub fn congested(&mut self, flight: u32, mss: u32) {
        // Not more than what was used: an application that sends little says little of the path.
        let used = flight.min(self.cwnd);
        let bytes = match &mut self.law {
            Law::Fixed => self.cwnd,
            Law::NewReno(law) => law.decrease(used, mss),
            Law::Cubic(law) => law.decrease(used, mss),
        };
        self.ssthresh = bytes.max(2 * mss);
    }

    /// The retransmission timer fired (MUST-19). RFC 5681 s3.1: "the cwnd MUST be set to no more
    /// than the loss window, LW, which equals 1 full-sized segment"; the threshold only at the
    /// first timeout of what is lost.
    pub fn timed_out(&mut self, flight: u32, mss: u32, first: bool) {
        if self.is_fixed() {
            return;
        }
        if first {
            self.congested(flight, mss);
        }
        match &mut self.law {
            Law::Fixed => {}
            Law::NewReno(law) => law.timed_out(),
            Law::Cubic(law) => law.timed_out(),
        }
        self.cwnd = mss;
    }

    /// The present congestion is over: as much as it left us.
    pub fn recovered(&mut self) {
        if !self.is_fixed() {
            self.cwnd = self.ssthresh;
        }
    }

    /// Congestion that calls for no repair (RFC 3168 s6.1.2).
    pub fn reduce_now(&mut self, flight: u32, mss: u32) {
        self.congested(flight, mss);
        self.cwnd = self.cwnd.min(self.ssthresh);
    }

    /// Nothing was sent for `idle`, longer than an RTO. RFC 5681 s4.1: the window falls back to the
    /// initial one.
    pub fn idled(&mut self, idle: Span, mss: u32) {
        match &mut self.law {
            Law::Fixed => return,
            Law::NewReno(law) => law.idled(idle),
            Law::Cubic(law) => law.idled(idle),
        }
        self.cwnd = self.cwnd.min(initial_window(mss));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MSS: u32 = 1000;

    fn acked(bytes: u32) -> Acked {
        Acked { bytes, mss: MSS, srtt_us: 100_000, now: Instant::ZERO }
    }

    #[test]
    fn the_initial_window_is_ten_segments_or_14600_bytes() {
        assert_eq!([536, 1460, 1448, 9000].map(initial_window), [5360, 14_600, 14_480, 18_000]);
    }

    #[test]
    fn slow_start_doubles_the_window_a_round_trip_up_to_the_threshold() {
        let mut window = Window::new(Congestion::NewReno, 10 * MSS);
        window.grow(&acked(10 * MSS));
        assert_eq!(window.cwnd, 20 * MSS);
        window.congested(20 * MSS, MSS);
        window.recovered();
        assert_eq!((window.cwnd, window.ssthresh()), (10 * MSS, 10 * MSS));
        window.timed_out(10 * MSS, MSS, true);
        assert_eq!((window.cwnd, window.ssthresh()), (MSS, 5 * MSS));
        window.grow(&acked(4 * MSS));
        assert_eq!(window.cwnd, 5 * MSS, "and no further but by congestion avoidance");
        window.grow(&acked(5 * MSS));
        assert_eq!(window.cwnd, 6 * MSS);
    }

    #[test]
    fn the_threshold_is_never_below_two_segments_and_a_second_timeout_leaves_it() {
        let mut window = Window::new(Congestion::Cubic, 10 * MSS);
        window.timed_out(MSS, MSS, true);
        assert_eq!(window.ssthresh(), 2 * MSS);
        let mut window = Window::new(Congestion::NewReno, 10 * MSS);
        window.timed_out(10 * MSS, MSS, true);
        window.timed_out(10 * MSS, MSS, false);
        assert_eq!((window.cwnd, window.ssthresh()), (MSS, 5 * MSS));
    }

    #[test]
    fn a_fixed_window_stays_what_it_is() {
        let mut window = Window::new(Congestion::Fixed, 10 * MSS);
        let cwnd = window.cwnd;
        window.grow(&acked(5 * MSS));
        window.congested(5 * MSS, MSS);
        window.recovered();
        window.timed_out(5 * MSS, MSS, true);
        window.idled(Span::from_secs(9), MSS);
        assert_eq!(window.cwnd, cwnd);
    }

    #[test]
    fn an_idle_sender_begins_with_the_initial_window_again() {
        let mut window = Window::new(Congestion::Cubic, 10 * MSS);
        window.grow(&acked(90 * MSS));
        window.idled(Span::from_secs(1), MSS);
        assert_eq!(window.cwnd, 10 * MSS);
    }
}
