//! Time as a value: an [`Instant`] on a monotonic clock and a [`Span`] between two of them, both in
//! nanoseconds.
//!
//! Nothing below `worker` reads a clock; the time is an argument, so the simulation may bring its
//! own.

use std::fmt;
use std::ops::{Add, AddAssign, Sub};

/// A tick is 2^16 ns, 65.5 µs: well under the 200 ms of the shortest RTO and about the time of a
/// few busy turns. What may be a tick late is kept in ticks.
pub const TICK_BITS: u32 = 16;

/// The first tick that does not start before `at`.
pub const fn tick_after(at: Instant) -> u64 {
    at.0.div_ceil(1 << TICK_BITS)
}

/// The tick that `at` is in.
pub const fn tick_of(at: Instant) -> u64 {
    at.0 >> TICK_BITS
}

/// When the tick is that counts so much in 32 bits, wrapping: the one that is within 39 hours of
/// `now`.
pub fn tick_near(tick: u32, now: Instant) -> Instant {
    let ticks = tick_of(now);
    let ahead = i64::from(tick.wrapping_sub(ticks as u32) as i32);
    Instant(ticks.saturating_add_signed(ahead) << TICK_BITS)
}

/// A point in time: nanoseconds since the run's origin. Monotonic; never wraps in five centuries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(u64);

/// A length of time in nanoseconds. Saturates instead of wrapping.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span(u64);

impl Instant {
    /// The origin of the run's clock.
    pub const ZERO: Instant = Instant(0);
    /// Later than every real point in time; stands for "no deadline".
    pub const NEVER: Instant = Instant(u64::MAX);

    pub const fn from_nanos(nanos: u64) -> Instant {
        Instant(nanos)
    }

    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// The time since `earlier`; zero when `earlier` is in fact later.
    pub const fn since(self, earlier: Instant) -> Span {
        Span(self.0.saturating_sub(earlier.0))
    }
}

impl Span {
    pub const ZERO: Span = Span(0);
    pub const MAX: Span = Span(u64::MAX);

    pub const fn from_nanos(nanos: u64) -> Span {
        Span(nanos)
    }

    pub const fn from_micros(micros: u64) -> Span {
        Span(micros.saturating_mul(1_000))
    }

    pub const fn from_millis(millis: u64) -> Span {
        Span(millis.saturating_mul(1_000_000))
    }

    pub const fn from_secs(secs: u64) -> Span {
        Span(secs.saturating_mul(1_000_000_000))
    }

    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    pub const fn as_micros(self) -> u64 {
        self.0 / 1_000
    }

    pub const fn as_millis(self) -> u64 {
        self.0 / 1_000_000
    }

    pub fn as_secs_f64(self) -> f64 {
        self.0 as f64 / 1e9
    }

    /// This span `times` over, saturating.
    pub const fn times(self, times: u64) -> Span {
        Span(self.0.saturating_mul(times))
    }

    /// One of so many equal parts of it.
    ///
    /// # Panics
    /// If there are to be none.
    pub const fn over(self, parts: u64) -> Span {
        Span(self.0 / parts)
    }
}

impl Add<Span> for Instant {
    type Output = Instant;
    fn add(self, span: Span) -> Instant {
        Instant(self.0.saturating_add(span.0))
    }
}

impl AddAssign<Span> for Instant {
    fn add_assign(&mut self, span: Span) {
        *self = *self + span;
    }
}

impl Sub<Span> for Instant {
    type Output = Instant;
    fn sub(self, span: Span) -> Instant {
        Instant(self.0.saturating_sub(span.0))
    }
}

impl Add for Span {
    type Output = Span;
    fn add(self, other: Span) -> Span {
        Span(self.0.saturating_add(other.0))
    }
}

impl Sub for Span {
    type Output = Span;
    fn sub(self, other: Span) -> Span {
        Span(self.0.saturating_sub(other.0))
    }
}

impl fmt::Display for Instant {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}.{:09}", self.0 / 1_000_000_000, self.0 % 1_000_000_000)
    }
}

impl fmt::Display for Span {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            n if n < 1_000 => write!(out, "{n} ns"),
            n if n < 1_000_000 => write!(out, "{:.1} µs", n as f64 / 1e3),
            n if n < 1_000_000_000 => write!(out, "{:.2} ms", n as f64 / 1e6),
            n => write!(out, "{:.2} s", n as f64 / 1e9),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_saturate_at_both_ends() {
        assert_eq!(Instant::NEVER + Span::from_secs(1), Instant::NEVER);
        assert_eq!(Instant::ZERO - Span::from_secs(1), Instant::ZERO);
        assert_eq!(Instant::ZERO.since(Instant::NEVER), Span::ZERO);
        assert_eq!(Span::MAX + Span::MAX, Span::MAX);
    }

    #[test]
    fn spans_print_in_the_unit_a_person_would_choose() {
        assert_eq!(Span::from_nanos(999).to_string(), "999 ns");
        assert_eq!(Span::from_micros(25).to_string(), "25.0 µs");
        assert_eq!(Span::from_millis(1500).to_string(), "1.50 s");
    }
}
