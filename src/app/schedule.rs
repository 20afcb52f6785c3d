//! When connections are due at a rate: evenly spaced, exact for ever. Independent of what becomes
//! of them, so that latency counted from the due time has no coordinated omission.

use crate::rng::Rng;
use crate::time::{Instant, Span};

/// Rates are kept in millionths of a connection a second, a nanosecond's fraction in units of 1 /
/// `rate_micro`.
const MICRO: f64 = 1e6;
const NANOS_MICRO: u64 = 1_000_000_000_000_000;

/// The due times origin + phase + k / rate, k = 0, 1, 2, … each rounded down to a nanosecond.
#[derive(Clone, Debug)]
pub struct Schedule {
    rate_micro: u64,
    carry: u64,
    phase: Span,
    due: Option<Instant>,
}

impl Schedule {
    /// The phase within the first interval comes from `seed`, so that the workers of a run don't
    /// all launch at once.
    ///
    /// # Panics
    /// If the rate is not a positive number of at most 10^9.
    pub fn new(rate_per_second: f64, seed: u64) -> Schedule {
        assert!(rate_per_second > 0.0 && rate_per_second <= 1e9, "rate {rate_per_second}");
        let rate_micro = ((rate_per_second * MICRO).round() as u64).max(1);
        let phase = Span::from_nanos(Rng::new(seed).below(NANOS_MICRO / rate_micro));
        Schedule { rate_micro, carry: 0, phase, due: None }
    }

    /// When the next connection is due. The first call sets the origin.
    pub fn due(&mut self, now: Instant) -> Instant {
        *self.due.get_or_insert(now + self.phase)
    }

    /// As [`Schedule::due`], before the origin is set: now.
    pub fn peek(&self, now: Instant) -> Instant {
        self.due.unwrap_or(now)
    }

    /// The connection that was due is on its way; on to the next.
    pub fn advance(&mut self) {
        if let Some(due) = &mut self.due {
            let total = NANOS_MICRO % self.rate_micro + self.carry;
            *due += Span::from_nanos(NANOS_MICRO / self.rate_micro + total / self.rate_micro);
            self.carry = total % self.rate_micro;
        }
    }

    /// Gives up what became due before `now`: for a workload where the rate is a pace and not a
    /// promise.
    pub fn skip_to(&mut self, now: Instant) {
        self.due = self.due.map(|due| due.max(now));
    }

    /// Connections that are due by `now` and were not launched.
    pub fn backlog(&self, now: Instant) -> u64 {
        match self.due {
            Some(due) if due <= now => {
                let late = u128::from(now.since(due).as_nanos()) * u128::from(self.rate_micro);
                (late / u128::from(NANOS_MICRO)) as u64 + 1
            }
            Some(_) | None => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Goal: the k-th due time is origin + phase + floor(k / rate) in whole nanoseconds; no
        /// error adds up.
        #[test]
        fn the_kth_due_time_is_exact(
            rate_micro in 1_000_000u64..3_000_000_000_000,
            seed: u64,
            k in 1usize..3000,
        ) {
            let mut schedule = Schedule::new(rate_micro as f64 / 1e6, seed);
            prop_assume!(schedule.rate_micro == rate_micro);
            let first = schedule.due(Instant::from_nanos(5));
            for _ in 0..k {
                schedule.advance();
            }
            let exact = (k as u128 * u128::from(NANOS_MICRO) / u128::from(rate_micro)) as u64;
            prop_assert_eq!(schedule.due(Instant::NEVER), first + Span::from_nanos(exact));
        }
    }

    #[test]
    fn a_second_holds_as_many_connections_as_the_rate_says() {
        for rate in [1.0, 3.0, 7.5, 999.0, 100_000.0, 333_333.0] {
            let mut schedule = Schedule::new(rate, 42);
            let mut launched = 0;
            let end = Instant::ZERO + Span::from_secs(2);
            while schedule.due(Instant::ZERO) < end {
                schedule.advance();
                launched += 1;
            }
            assert_eq!(launched, (rate * 2.0) as u64, "{rate}");
        }
    }

    #[test]
    fn the_backlog_is_what_is_due_and_not_launched() {
        let mut schedule = Schedule::new(1000.0, 0);
        assert_eq!(schedule.backlog(Instant::NEVER), 0);
        let first = schedule.due(Instant::ZERO);
        assert_eq!(schedule.backlog(first), 1);
        assert_eq!(schedule.backlog(first + Span::from_millis(3)), 4);
        schedule.advance();
        assert_eq!(schedule.backlog(first + Span::from_millis(3)), 3);
        schedule.skip_to(first + Span::from_millis(3));
        assert_eq!(schedule.backlog(first + Span::from_millis(3)), 1);
    }
}
