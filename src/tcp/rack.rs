//! Loss detection by time (RFC 8985): what was sent well before something that has arrived is lost.
//!
//! Times are microseconds that wrap. A run of the scoreboard was sent over a short while: it counts
//! by its first moment where it has arrived and by its last where it is judged, so that the doubt
//! is always to its favour.

use super::Seq;
use super::scoreboard::{Fate, Run, Scoreboard, is_earlier};

/// RFC 8985 s6.2 step 4: recoveries without a D-SACK after which the reordering window shrinks
/// again.
const PATIENCE: u8 = 16;

/// What has arrived, and how much reordering there is.
#[derive(Clone, Debug)]
pub(super) struct Rack {
    /// When the latest sent of what has arrived was sent, and its end: RACK.xmit_ts, RACK.end_seq.
    sent_us: u32,
    end: Seq,
    /// Its round trip; zero before the first.
    rtt_us: u32,
    /// The shortest round trip of the connection; zero before the first.
    min_rtt_us: u32,
    /// The highest number that has arrived: RACK.fack.
    top: Option<Seq>,
    /// Something sent once has arrived after something that was sent later.
    reordered: bool,
    /// The reordering window in quarters of the shortest round trip: RACK.reo_wnd_mult.
    quarters: u8,
    /// Recoveries until that is one again.
    patience: u8,
    /// A D-SACK widened the window, and not everything sent by then is acknowledged.
    round: Option<Seq>,
}

impl Default for Rack {
    fn default() -> Rack {
        Rack {
            sent_us: 0,
            end: Seq(0),
            rtt_us: 0,
            min_rtt_us: 0,
            top: None,
            reordered: false,
            quarters: 1,
            patience: 0,
            round: None,
        }
    }
}

impl Rack {
    /// `run` has arrived (s6.2, steps 1 to 3).
    pub fn delivered(&mut self, run: &Run, now_us: u32) {
        let rtt_us = now_us.wrapping_sub(run.sent_us).max(1);
        let again = run.fate == Fate::Resent;
        // "the ACK is likely for the original": it came back faster than anything can.
        if again && rtt_us < self.min_rtt_us {
            return;
        }
        if run.fate == Fate::Sent {
            let shortest = if self.min_rtt_us == 0 { rtt_us } else { self.min_rtt_us };
            self.min_rtt_us = shortest.min(rtt_us);
            self.reordered |= self.top.is_some_and(|top| run.end.before(top));
        }
        self.top = Some(self.top.map_or(run.end, |top| top.max(run.end)));
        if self.rtt_us == 0 || self.is_before(run.sent_us, run.end) {
            (self.sent_us, self.end, self.rtt_us) = (run.sent_us, run.end, rtt_us);
        }
    }

    /// The round trip of the latest sent of what has arrived, in µs; zero before the first.
    pub fn rtt_us(&self) -> u32 {
        self.rtt_us
    }

    /// The peer got something twice that was sent before `max` (s6.2, step 4): what was taken for
    /// lost was late. Once a round trip.
    pub fn duplicated(&mut self, una: Seq, max: Seq) {
        if self.round.is_none_or(|round| !una.before(round)) {
            self.round = Some(max);
            self.quarters = self.quarters.saturating_add(1);
            self.patience = PATIENCE;
        }
    }

    /// A recovery is over.
    pub fn recovered(&mut self) {
        self.patience = self.patience.saturating_sub(1);
        if self.patience == 0 {
            self.quarters = 1;
        }
    }

    /// How late something may be, in µs (s6.2, step 4). `sure` if as much has arrived ahead of it
    /// as RFC 5681 asks for, or it is known already that something is lost.
    fn window_us(&self, sure: bool, srtt_us: u32) -> u32 {
        if !self.reordered && sure {
            return 0;
        }
        (self.min_rtt_us / 4).saturating_mul(u32::from(self.quarters)).min(srtt_us)
    }

    /// Takes for lost what is overdue (s6.2, step 5): bytes, how many of them had been sent again,
    /// and the time until the next one will be overdue if nothing is heard of it.
    pub fn judge(
        &self,
        board: &mut Scoreboard,
        now_us: u32,
        sure: bool,
        srtt_us: u32,
    ) -> (u32, u32, Option<u32>) {
        if self.rtt_us == 0 {
            return (0, 0, None);
        }
        let patience_us = self.rtt_us.saturating_add(self.window_us(sure, srtt_us));
        let mut wait_us = None;
        let (bytes, again) = board.lose(|run| {
            if !self.is_after(run) {
                return false;
            }
            let age_us = now_us.wrapping_sub(run.last_us());
            let left_us = patience_us.saturating_sub(age_us);
            if left_us > 0 {
                wait_us = Some(left_us.max(wait_us.unwrap_or(0)));
            }
            left_us == 0
        });
        (bytes, again, wait_us)
    }

    /// True if the latest that has arrived was sent after all of `run`.
    fn is_after(&self, run: &Run) -> bool {
        let last_us = run.last_us();
        is_earlier(last_us, self.sent_us) || (last_us == self.sent_us && run.end.before(self.end))
    }

    /// True if the latest that has arrived was sent before `end` was, at `sent_us`.
    fn is_before(&self, sent_us: u32, end: Seq) -> bool {
        is_earlier(self.sent_us, sent_us) || (sent_us == self.sent_us && self.end.before(end))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ten segments of ten numbers each, sent a millisecond apart, with a round trip of 20 ms.
    fn flight() -> (Rack, Scoreboard) {
        let mut board = Scoreboard::default();
        for place in 0..10 {
            let start = Seq(place * 10);
            board.push(start, start.plus(10), place * 1000, 0);
        }
        (Rack::default(), board)
    }

    fn sack(rack: &mut Rack, board: &mut Scoreboard, place: u32, now_us: u32) {
        let left = Seq(place * 10);
        board.sack(left, left.plus(10), |run| rack.delivered(run, now_us));
    }

    fn lost(board: &Scoreboard) -> Vec<u32> {
        let lost = board.runs().iter().filter(|run| run.fate == Fate::Lost);
        lost.flat_map(|run| (run.start.0..run.end.0).step_by(10).map(|at| at / 10)).collect()
    }

    #[test]
    fn what_was_sent_before_something_that_arrived_is_lost_after_a_quarter_of_a_round_trip() {
        let (mut rack, mut board) = flight();
        sack(&mut rack, &mut board, 1, 21_000);
        // 20 ms and a quarter of that after it was sent at 0 ms.
        let (bytes, _, wait_us) = rack.judge(&mut board, 21_000, false, 20_000);
        assert_eq!((bytes, wait_us), (0, Some(4_000)));
        let (bytes, again, wait_us) = rack.judge(&mut board, 25_000, false, 20_000);
        assert_eq!((bytes, again, wait_us), (10, 0, None));
        assert_eq!(lost(&board), [0]);
    }

    #[test]
    fn enough_that_arrived_ahead_makes_it_sure_at_once() {
        let (mut rack, mut board) = flight();
        for place in [1, 2, 3] {
            sack(&mut rack, &mut board, place, 20_000 + place * 1000);
        }
        rack.judge(&mut board, 23_000, true, 20_000);
        assert_eq!(lost(&board), [0]);
    }

    #[test]
    fn a_path_that_reorders_is_given_time_even_so() {
        let (mut rack, mut board) = flight();
        sack(&mut rack, &mut board, 2, 22_000);
        sack(&mut rack, &mut board, 1, 22_000);
        let (bytes, _, wait_us) = rack.judge(&mut board, 22_000, true, 20_000);
        assert_eq!((bytes, wait_us), (0, Some(3_000)));
    }

    #[test]
    fn what_was_sent_again_can_be_lost_again() {
        let (mut rack, mut board) = flight();
        sack(&mut rack, &mut board, 1, 21_000);
        rack.judge(&mut board, 26_000, false, 20_000);
        board.resend(Seq(0), Seq(10), 26_000, 0);
        board.push(Seq(100), Seq(110), 27_000, 0);
        sack(&mut rack, &mut board, 10, 47_000);
        let (bytes, again, _) = rack.judge(&mut board, 47_000, true, 20_000);
        assert_eq!((again, bytes), (10, 90), "with all that was sent before");
        assert_eq!(lost(&board), [0, 2, 3, 4, 5, 6, 7, 8, 9]);
    }

    #[test]
    fn an_answer_that_came_too_soon_is_the_original_s() {
        let (mut rack, mut board) = flight();
        sack(&mut rack, &mut board, 1, 21_000);
        rack.judge(&mut board, 26_000, false, 20_000);
        board.resend(Seq(0), Seq(10), 26_000, 0);
        board.acknowledge(Seq(10), |run| rack.delivered(run, 27_000));
        let (bytes, ..) = rack.judge(&mut board, 27_000, true, 20_000);
        assert_eq!(bytes, 0, "nothing sent before 26 ms is overdue for that");
    }

    #[test]
    fn duplicates_widen_the_window_once_a_round_trip_and_recoveries_narrow_it() {
        let mut rack = Rack { min_rtt_us: 20_000, reordered: true, ..Rack::default() };
        rack.duplicated(Seq(0), Seq(100));
        rack.duplicated(Seq(50), Seq(200));
        assert_eq!(rack.window_us(true, 100_000), 10_000);
        rack.duplicated(Seq(100), Seq(200));
        assert_eq!(rack.window_us(true, 100_000), 15_000);
        assert_eq!(rack.window_us(true, 12_000), 12_000, "never more than a round trip");
        for _ in 0..PATIENCE {
            rack.recovered();
        }
        assert_eq!(rack.window_us(true, 100_000), 5_000);
    }
}
