//! Congestion avoidance by RFC 9438: the window is a cubic function of the time since the last
//! congestion, flat where that struck, and never grows slower than Reno would.
//!
//! Windows are in segments here, as in the RFC, and times in seconds. `f32` is exact to a byte up
//! to windows of 16 MB, and to a ten-millionth beyond.

use super::{Acked, Avoidance};
use crate::time::{Instant, Span};

/// RFC 9438 s4.6.
const BETA: f32 = 0.7;

/// RFC 9438 s5.1: how steep the function is, in segments per second cubed.
const C: f32 = 0.4;

/// RFC 9438 s4.3: growth in Reno's region that makes up for the smaller decrease.
const ALPHA: f32 = 3.0 * (1.0 - BETA) / (1.0 + BETA);

#[derive(Clone, Debug)]
pub(super) struct Cubic {
    /// Where the function is flat: the window at the last congestion, or less (s4.7).
    w_max: f32,
    /// The window just before the last congestion.
    w_prior: f32,
    /// What Reno's window would be.
    w_reno: f32,
    /// Seconds from the epoch's begin to the flat part.
    k: f32,
    /// Congestion avoidance began then; `NEVER` if it has yet to.
    epoch: Instant,
    /// Growth, in bytes, that is less than one.
    fraction: f32,
}

impl Default for Cubic {
    fn default() -> Cubic {
        let epoch = Instant::NEVER;
        Cubic { w_max: 0.0, w_prior: 0.0, w_reno: 0.0, k: 0.0, epoch, fraction: 0.0 }
    }
}

impl Cubic {
    /// Congestion avoidance begins with a window of `cwnd` (s4.2, and s4.8 after a timeout, when
    /// there is no `w_max`).
    fn begin(&mut self, cwnd: f32, now: Instant) {
        self.epoch = now;
        self.w_reno = cwnd;
        self.w_max = self.w_max.max(cwnd);
        self.k = ((self.w_max - cwnd) / C).cbrt();
    }

    /// RFC 9438 s4.2, figure 1.
    fn window_at(&self, seconds: f32) -> f32 {
        C * (seconds - self.k).powi(3) + self.w_max
    }
}

impl Avoidance for Cubic {
    fn growth(&mut self, cwnd: u32, acked: &Acked) -> u32 {
        let mss = acked.mss as f32;
        let (cwnd, segments) = (cwnd as f32 / mss, acked.bytes as f32 / mss);
        if self.epoch == Instant::NEVER {
            self.begin(cwnd, acked.now);
        }
        let seconds = acked.now.since(self.epoch).as_secs_f64() as f32;
        // s4.3: once Reno's window is back where congestion struck, it grows as Reno does.
        let alpha = if self.w_reno < self.w_prior { ALPHA } else { 1.0 };
        self.w_reno += alpha * segments / cwnd;
        let next = if self.window_at(seconds) < self.w_reno {
            self.w_reno.max(cwnd)
        } else {
            // s4.4, s4.5: towards where the function will be in a round trip.
            let ahead = self.window_at(seconds + acked.srtt_us as f32 / 1e6);
            cwnd + (ahead.clamp(cwnd, 1.5 * cwnd) - cwnd) / cwnd * segments
        };
        let bytes = (next - cwnd) * mss + self.fraction;
        self.fraction = bytes.fract();
        bytes as u32
    }

    fn decrease(&mut self, used: u32, mss: u32) -> u32 {
        let cwnd = used as f32 / mss as f32;
        // s4.7, fast convergence: less than last time, so there is another flow to make room for.
        self.w_max = if cwnd < self.w_max { cwnd * (1.0 + BETA) / 2.0 } else { cwnd };
        self.w_prior = cwnd;
        self.epoch = Instant::NEVER;
        self.fraction = 0.0;
        (used as f32 * BETA) as u32
    }

    /// s4.8: after the slow start that follows, the function begins at its flat part.
    fn timed_out(&mut self) {
        self.w_max = 0.0;
        self.epoch = Instant::NEVER;
    }

    /// s5.8: time in which nothing was sent does not count.
    fn idled(&mut self, idle: Span) {
        if self.epoch != Instant::NEVER {
            self.epoch += idle;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MSS: u32 = 1460;

    /// Acknowledges a window's worth a round trip of `rtt_ms` for `seconds`; the window in segments
    /// at the end.
    fn run(law: &mut Cubic, cwnd: &mut u32, from: Instant, rtt_ms: u64, seconds: u64) -> f64 {
        let mut now = from;
        for _ in 0..seconds * 1000 / rtt_ms {
            now += Span::from_millis(rtt_ms);
            for _ in 0..*cwnd / (2 * MSS) {
                let srtt_us = rtt_ms as u32 * 1000;
                *cwnd += law.growth(*cwnd, &Acked { bytes: 2 * MSS, mss: MSS, srtt_us, now });
            }
        }
        f64::from(*cwnd) / f64::from(MSS)
    }

    #[test]
    fn the_window_follows_the_rfc_s_function_of_time() {
        let mut law = Cubic::default();
        let mut cwnd = law.decrease(1000 * MSS, MSS);
        assert_eq!(cwnd / MSS, 700);
        let k = (1000.0_f64 * 0.3 / 0.4).cbrt();
        let mut from = Instant::ZERO;
        for seconds in [2, 4, 3, 5] {
            let got = run(&mut law, &mut cwnd, from, 100, seconds);
            from += Span::from_secs(seconds);
            // The epoch begins with the first ACK, a round trip in.
            let t = from.as_nanos() as f64 / 1e9 - 0.1;
            let wanted = 0.4 * (t - k).powi(3) + 1000.0;
            assert!((got / wanted - 1.0).abs() < 0.02, "at {t} s: {got}, not {wanted}");
        }
    }

    #[test]
    fn on_a_short_path_it_grows_as_reno_does() {
        let mut law = Cubic::default();
        let mut cwnd = law.decrease(20 * MSS, MSS);
        let got = run(&mut law, &mut cwnd, Instant::ZERO, 1, 1);
        // 3 (1 - 0.7) / (1 + 0.7) segments a round trip up to 20, one from there on.
        let slow = 6.0 / f64::from(ALPHA);
        let wanted = 20.0 + (1000.0 - slow);
        assert!((got / wanted - 1.0).abs() < 0.05, "{got}, not {wanted}");
    }

    #[test]
    fn a_flow_that_got_less_than_before_leaves_room() {
        let mut law = Cubic::default();
        law.decrease(100 * MSS, MSS);
        assert_eq!(law.w_max, 100.0);
        law.decrease(80 * MSS, MSS);
        assert!((law.w_max - 80.0 * 0.85).abs() < 0.01, "{}", law.w_max);
    }

    #[test]
    fn time_without_traffic_does_not_count() {
        let (mut law, mut other) = (Cubic::default(), Cubic::default());
        let (mut cwnd, mut rested) = (law.decrease(100 * MSS, MSS), other.decrease(100 * MSS, MSS));
        run(&mut law, &mut cwnd, Instant::ZERO, 50, 1);
        run(&mut other, &mut rested, Instant::ZERO, 50, 1);
        let later = Span::from_secs(60);
        other.idled(later);
        let straight = run(&mut law, &mut cwnd, Instant::ZERO + Span::from_secs(1), 50, 1);
        let paused = run(&mut other, &mut rested, Instant::ZERO + Span::from_secs(61), 50, 1);
        assert!((straight / paused - 1.0).abs() < 0.01, "{straight} and {paused}");
    }
}
