//! The end of the first slow start (HyStart++, RFC 9406): a round trip that grows says that a queue
//! does, before it overflows and loses half a window.
//!
//! Rounds are counted by sequence numbers, round trips by their least in a round. Once that has
//! grown, the window grows by a quarter as much for some rounds (CSS), and if it stays so, slow
//! start is over.

use crate::tcp::Seq;

/// RFC 9406 s4.2, in µs: how much longer a round trip must be, at least and at most, and as a part.
const LONGER_US_MIN: u32 = 4_000;
const LONGER_US_MAX: u32 = 16_000;
const LONGER_DIVISOR: u32 = 8;

/// RFC 9406 s4.2: samples of a round before it is judged, the divisor of growth in CSS, and rounds
/// that CSS lasts.
const SAMPLES_MIN: u8 = 8;
const GROWTH_DIVISOR: u32 = 4;
const CAUTIOUS_ROUNDS: u8 = 5;

/// The first slow start of a connection, as seen by its round trips.
#[derive(Clone, Debug, Default)]
pub(in crate::tcp) struct HyStart {
    /// SND.MAX when the round began; `None` before the first.
    round_end: Option<Seq>,
    samples: u8,
    /// The least round trip of this round and of the one before, in µs; zero for none yet.
    least_us: u32,
    before_us: u32,
    /// In CSS: the least round trip that it began with, and its rounds so far.
    cautious: Option<(u32, u8)>,
}

/// What slow start is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::tcp) enum Pace {
    /// Grow by what is acknowledged, divided by this.
    Grow(u32),
    /// It is over.
    Over,
}

impl HyStart {
    /// An acknowledgment up to `una`, with `max` being the end of what is sent and `rtt_us` the
    /// round trip of the latest that it covers (RFC 9406 s4.2).
    pub fn acked(&mut self, una: Seq, max: Seq, rtt_us: u32) -> Pace {
        let round_is_over = self.round_end.is_none_or(|end| !una.before(end));
        if round_is_over {
            (self.round_end, self.before_us) = (Some(max), self.least_us);
            (self.least_us, self.samples) = (0, 0);
            if let Some((_, rounds)) = &mut self.cautious {
                *rounds += 1;
                if *rounds > CAUTIOUS_ROUNDS {
                    return Pace::Over;
                }
            }
        }
        self.least_us = if self.least_us == 0 { rtt_us } else { self.least_us.min(rtt_us) };
        self.samples = self.samples.saturating_add(1);
        self.judge();
        Pace::Grow(if self.cautious.is_some() { GROWTH_DIVISOR } else { 1 })
    }

    fn judge(&mut self) {
        if self.samples < SAMPLES_MIN {
            return;
        }
        match self.cautious {
            // It was a passing thing.
            Some((began_us, _)) if self.least_us < began_us => self.cautious = None,
            Some(_) => {}
            None if self.before_us > 0 => {
                let longer_us =
                    (self.before_us / LONGER_DIVISOR).clamp(LONGER_US_MIN, LONGER_US_MAX);
                if self.least_us >= self.before_us.saturating_add(longer_us) {
                    self.cautious = Some((self.least_us, 0));
                }
            }
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rounds of ten acknowledgments, each with this round trip; what the last of each is told.
    fn rounds(hystart: &mut HyStart, from: u32, rtts_us: &[u32]) -> Vec<Pace> {
        let mut una = from;
        let mut round = |&rtt_us: &u32| {
            let end = una + 10;
            let mut last = Pace::Over;
            while una < end {
                una += 1;
                last = hystart.acked(Seq(una), Seq(end + 10), rtt_us);
            }
            last
        };
        rtts_us.iter().map(&mut round).collect()
    }

    #[test]
    fn a_steady_round_trip_lets_the_window_grow() {
        let paces = rounds(&mut HyStart::default(), 0, &[50_000; 30]);
        assert!(paces.iter().all(|&pace| pace == Pace::Grow(1)));
    }

    #[test]
    fn a_round_trip_that_stays_longer_slows_the_growth_and_then_ends_it() {
        let mut hystart = HyStart::default();
        assert_eq!(rounds(&mut hystart, 0, &[50_000, 50_000]), [Pace::Grow(1); 2]);
        let slow = rounds(&mut hystart, 20, &[57_000; 6]);
        assert_eq!(slow[1..5], [Pace::Grow(4); 4]);
        assert!(rounds(&mut hystart, 80, &[60_000; 2]).contains(&Pace::Over));
    }

    #[test]
    fn a_passing_delay_and_a_small_one_do_not_end_it() {
        let mut hystart = HyStart::default();
        let rtts_us = [50_000, 50_000, 57_000, 57_000, 50_000, 50_000, 53_000];
        let paces = rounds(&mut hystart, 0, &rtts_us);
        assert_eq!(paces[3], Pace::Grow(4));
        assert_eq!(paces[5..], [Pace::Grow(1); 2]);
    }
}
