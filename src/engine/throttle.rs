//! How often a connection answers what is not acceptable (RFC 5961 s7, RFC 9293 s3.10.7.4): each by
//! itself, so that nobody learns from the silence of one what another was sent (CVE-2016-5696), and
//! neither so often nor for so long that it could be foretold. Two connections that each take the
//! other's ACKs for wrong come to rest.

use super::Engine;
use crate::app::App;
use crate::rng::Rng;
use crate::sys::pages::zeroed;
use crate::tcp::{Arrival, Note};
use crate::time::{Instant, Span};
use crate::wire::segment::Segment;
use crate::wire::tcp::Flags;

/// Answers in a row, at the least, and how many more at random: ten on average, as RFC 5961 s7 has
/// it for an example.
const ANSWERS: u32 = 6;
const ANSWERS_MORE: u32 = 9;

/// What they are counted in, and how much longer at random: five seconds on average.
const PERIOD: Span = Span::from_secs(4);
const PERIOD_MORE: Span = Span::from_secs(2);

/// What each connection may still answer. Memory is used only of those that had to.
pub struct Throttle {
    rng: Rng,
    /// Until when, in ms and wrapping, in the upper half; how many answers are left in the lower.
    places: Vec<u64>,
}

impl Throttle {
    pub fn new(places: usize, seed: u64) -> Throttle {
        Throttle { rng: Rng::new(seed), places: zeroed(places) }
    }

    /// True if the connection at `place` may answer once more.
    pub fn take(&mut self, place: u32, now: Instant) -> bool {
        let now_ms = now.as_nanos() / 1_000_000;
        let word = &mut self.places[place as usize];
        let (until_ms, mut left) = ((*word >> 32) as u32, *word as u32);
        let ahead = until_ms.wrapping_sub(now_ms as u32) as i32;
        let longest = PERIOD + PERIOD_MORE;
        let mut until_ms = until_ms;
        if ahead <= 0 || i64::from(ahead) > longest.as_millis() as i64 {
            let period = PERIOD.as_millis() + self.rng.below(PERIOD_MORE.as_millis());
            until_ms = (now_ms + period) as u32;
            left = ANSWERS + self.rng.below(u64::from(ANSWERS_MORE)) as u32;
        }
        let allowed = left > 0;
        *word = u64::from(until_ms) << 32 | u64::from(left - u32::from(allowed));
        allowed
    }
}

impl<A: App> Engine<A> {
    /// Counts what a segment was to the connection at `node`. True if the ACK that it provoked is
    /// not to be sent: there were too many (RFC 5961 s7).
    pub(super) fn withholds(
        &mut self,
        now: Instant,
        arrival: &Arrival,
        segment: &Segment,
        node: u32,
    ) -> bool {
        match arrival.note {
            None => false,
            Some(note) => self.withholds_noted(now, note, segment, node),
        }
    }

    /// [`Engine::withholds`] of what is worth a note.
    #[cold]
    fn withholds_noted(&mut self, now: Instant, note: Note, segment: &Segment, node: u32) -> bool {
        // Text and FIN have their ACK always: who lost the last one asks so. RST has none.
        let asks = segment.seq_len() > 0 && !segment.flags.has(Flags::SYN);
        let limited = !asks && !segment.flags.has(Flags::RST);
        let counters = &mut self.counters;
        let (counter, skipped) = match note {
            Note::Ahead => (&mut counters.ofo_queued, None),
            Note::AheadDropped => (&mut counters.ofo_dropped, None),
            Note::Dropped => (&mut counters.rx_tcp_dropped, None),
            Note::AheadAgain => (&mut counters.dsack_ofo_sent, None),
            Note::ChallengeAck => {
                (&mut counters.challenge_acks, Some(&mut counters.skipped_challenge))
            }
            Note::OutOfWindow => {
                (&mut counters.out_of_window, limited.then_some(&mut counters.skipped_seq))
            }
            Note::Paws => (&mut counters.paws_estab, limited.then_some(&mut counters.skipped_paws)),
        };
        *counter += 1;
        let Some(skipped) = skipped else { return false };
        let withheld = !self.throttle.take(node, now);
        *skipped += u64::from(withheld);
        withheld
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_place_answers_about_ten_times_in_five_seconds() {
        let mut throttle = Throttle::new(2, 1);
        let (mut answered, mut in_a_row) = ([0; 2], Vec::new());
        let mut row = 0;
        for ms in 0..100_000 {
            // Past the wrap of milliseconds in 32 bits.
            let now = Instant::ZERO + Span::from_millis((1 << 32) - 50_000 + ms);
            let allowed = throttle.take(0, now);
            answered[0] += u32::from(allowed);
            match allowed {
                true => row += 1,
                false if row > 0 => in_a_row.push(std::mem::take(&mut row)),
                false => {}
            }
            if ms % 1000 == 0 {
                answered[1] += u32::from(throttle.take(1, now));
            }
        }
        assert!((160..=240).contains(&answered[0]), "{answered:?}");
        assert_eq!(answered[1], 100, "and one is not held to what the other did");
        in_a_row.sort_unstable();
        in_a_row.dedup();
        assert!(in_a_row.len() > 3, "not always as many: {in_a_row:?}");
    }
}
