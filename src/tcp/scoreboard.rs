//! What is in flight, as runs of sequence numbers that share a fate (RFC 2018 s8, RFC 6675 s3).
//!
//! Text that is sent within a small part of a round trip shares a run, so a few dozen of them hold
//! a flight of thousands of segments; a SACK block or a loss splits one. The array is bounded: when
//! it is full, runs are joined at the price of knowing less, and never is text forgotten.
//!
//! Invariant: the runs tile what is in flight, in order and without gaps; `sacked` and `lost` are
//! the sums over the runs of that fate.

use super::Seq;

/// Runs at the most. Half of them for the times at which a flight was sent, half for its holes.
pub(super) const RUNS_MAX: usize = 128;

/// From here on new text joins the last run whatever the time.
const CROWDED: usize = RUNS_MAX * 3 / 4;

/// What is known of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Fate {
    /// Under way for the first time.
    #[default]
    Sent,
    /// Under way again: what it says of a round trip is ambiguous (Karn, MUST-18).
    Resent,
    /// Taken for lost: to be sent again.
    Lost,
    /// The peer has it, and may yet discard it (RFC 2018 s8).
    Sacked,
}

/// Sequence numbers `start..end` of one fate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Run {
    pub start: Seq,
    pub end: Seq,
    /// When its first number was last sent, in µs, wrapping.
    pub sent_us: u32,
    /// How much later its last number was.
    pub spread_us: u16,
    pub fate: Fate,
}

/// A bounded list of runs.
#[derive(Clone, Debug)]
pub(super) struct Scoreboard {
    runs: [Run; RUNS_MAX],
    count: u8,
    sacked: u32,
    lost: u32,
}

impl Run {
    fn len(&self) -> u32 {
        self.end.since(self.start)
    }

    /// When its last number was sent, in µs, wrapping.
    pub fn last_us(&self) -> u32 {
        self.sent_us.wrapping_add(u32::from(self.spread_us))
    }

    pub fn in_flight(&self) -> bool {
        matches!(self.fate, Fate::Sent | Fate::Resent)
    }

    /// When the numbers before `at` ended to be sent: text goes out evenly.
    fn sent_until_us(&self, at: Seq) -> u32 {
        let part = u64::from(self.spread_us) * u64::from(at.since(self.start));
        (part / u64::from(self.len().max(1))) as u32
    }

    /// Its two parts, before `at` and from there.
    fn split(&self, at: Seq) -> (Run, Run) {
        let before_us = self.sent_until_us(at);
        let before = Run { end: at, spread_us: before_us as u16, ..*self };
        let sent_us = self.sent_us.wrapping_add(before_us);
        let after =
            Run { start: at, sent_us, spread_us: self.spread_us - before_us as u16, ..*self };
        (before, after)
    }

    /// This run and `next`, which follows it, as one of `fate`; the time between them as far as
    /// the field can hold it.
    fn joined(&self, next: &Run, fate: Fate) -> Run {
        let earlier = if is_earlier(next.sent_us, self.sent_us) { next } else { self };
        let later_us = if is_earlier(self.last_us(), next.last_us()) {
            next.last_us()
        } else {
            self.last_us()
        };
        let spread_us = later_us.wrapping_sub(earlier.sent_us).min(u32::from(u16::MAX)) as u16;
        Run { start: self.start, end: next.end, sent_us: earlier.sent_us, spread_us, fate }
    }

    /// True if nothing is lost by joining it and `next`: times matter only of what is in flight.
    fn joins(&self, next: &Run, grain_us: u16) -> bool {
        self.fate == next.fate
            && (!self.in_flight() || self.joined(next, self.fate).spread_us <= grain_us)
    }
}

impl Default for Scoreboard {
    fn default() -> Scoreboard {
        Scoreboard { runs: [Run::default(); RUNS_MAX], count: 0, sacked: 0, lost: 0 }
    }
}

impl Scoreboard {
    /// `start..end`, which follows all that was sent before, is sent for the first time. It joins
    /// the last run if that is not older than `grain_us`.
    pub fn push(&mut self, start: Seq, end: Seq, now_us: u32, grain_us: u16) {
        let crowded = usize::from(self.count) >= CROWDED;
        if let Some(last) = self.runs[..usize::from(self.count)].last_mut()
            && last.fate == Fate::Sent
        {
            let age_us = now_us.wrapping_sub(last.sent_us);
            if crowded || age_us <= u32::from(grain_us) {
                last.end = end;
                last.spread_us = age_us.min(u32::from(u16::MAX)) as u16;
                return;
            }
        }
        self.make_room(1);
        let run = Run { start, end, sent_us: now_us, spread_us: 0, fate: Fate::Sent };
        self.runs[usize::from(self.count)] = run;
        self.count += 1;
    }

    /// Everything before `ack` is acknowledged: tells `delivered` the runs that were not before,
    /// and answers how many bytes those are.
    pub fn acknowledge(&mut self, ack: Seq, mut delivered: impl FnMut(&Run)) -> u32 {
        let mut bytes = 0;
        let mut gone = 0;
        for place in 0..usize::from(self.count) {
            let run = self.runs[place];
            if !ack.after(run.start) {
                break;
            }
            let (over, left) = match ack.before(run.end) {
                true => run.split(ack),
                false => (run, Run { start: run.end, ..run }),
            };
            match run.fate {
                Fate::Sacked => self.sacked -= over.len(),
                Fate::Lost => self.lost -= over.len(),
                Fate::Sent | Fate::Resent => {}
            }
            if run.fate != Fate::Sacked {
                bytes += over.len();
                delivered(&over);
            }
            gone += usize::from(left.len() == 0);
            self.runs[place] = left;
        }
        if gone > 0 {
            self.runs.copy_within(gone..usize::from(self.count), 0);
            self.count -= gone as u8;
        }
        bytes
    }

    /// The peer has `left..right`, which is in flight: tells `delivered` the runs of which that is
    /// news, and answers how many bytes those are. `None` if there was no place to take it down.
    pub fn sack(&mut self, left: Seq, right: Seq, mut delivered: impl FnMut(&Run)) -> Option<u32> {
        if self.is_full(2) {
            self.join_all(|one, next| one.fate == next.fate);
            if self.is_full(2) {
                return None;
            }
        }
        self.split(left);
        self.split(right);
        let mut bytes = 0;
        for run in &mut self.runs[..usize::from(self.count)] {
            let inside = !run.start.before(left) && !run.end.after(right);
            if !inside || run.fate == Fate::Sacked {
                continue;
            }
            delivered(run);
            bytes += run.len();
            self.lost -= if run.fate == Fate::Lost { run.len() } else { 0 };
            run.fate = Fate::Sacked;
        }
        self.sacked += bytes;
        self.tidy(0);
        Some(bytes)
    }

    /// Takes for lost what is in flight and `judge` says so of. Answers the bytes, and how many of
    /// them had been sent again already.
    pub fn lose(&mut self, mut judge: impl FnMut(&Run) -> bool) -> (u32, u32) {
        let (mut bytes, mut again) = (0, 0);
        for run in &mut self.runs[..usize::from(self.count)] {
            if run.in_flight() && judge(run) {
                bytes += run.len();
                again += if run.fate == Fate::Resent { run.len() } else { 0 };
                run.fate = Fate::Lost;
            }
        }
        self.lost += bytes;
        if bytes > 0 {
            self.tidy(0);
        }
        (bytes, again)
    }

    /// Takes the first `bytes` of what is in flight for lost, if it is not yet. Answers how many
    /// are so newly.
    pub fn lose_head(&mut self, bytes: u32) -> u32 {
        let Some(first) = self.first() else { return 0 };
        let end = first.start.plus(bytes);
        self.make_room(1);
        self.split(end);
        self.lose(|run| !run.end.after(end)).0
    }

    /// The peer's word for what it has is no longer taken: it is lost like the rest.
    pub fn forget_sacked(&mut self) {
        for run in &mut self.runs[..usize::from(self.count)] {
            if run.fate == Fate::Sacked {
                run.fate = Fate::Lost;
                self.lost += run.len();
            }
        }
        self.sacked = 0;
        self.tidy(0);
    }

    /// `start..end`, which was sent before, is sent again.
    pub fn resend(&mut self, start: Seq, end: Seq, now_us: u32, grain_us: u16) {
        self.make_room(2);
        self.split(start);
        self.split(end);
        for run in &mut self.runs[..usize::from(self.count)] {
            if run.start.before(start) || run.end.after(end) {
                continue;
            }
            match run.fate {
                Fate::Sacked => self.sacked -= run.len(),
                Fate::Lost => self.lost -= run.len(),
                Fate::Sent | Fate::Resent => {}
            }
            (run.fate, run.sent_us, run.spread_us) = (Fate::Resent, now_us, 0);
        }
        self.tidy(grain_us);
    }

    /// The first stretch that is lost.
    pub fn first_lost(&self) -> Option<(Seq, Seq)> {
        // Runs of what is lost are joined always.
        let lost = self.runs().iter().find(|run| run.fate == Fate::Lost);
        lost.map(|run| (run.start, run.end))
    }

    pub fn first(&self) -> Option<&Run> {
        self.runs().first()
    }

    pub fn last(&self) -> Option<&Run> {
        self.runs().last()
    }

    pub fn runs(&self) -> &[Run] {
        &self.runs[..usize::from(self.count)]
    }

    /// Bytes between the first and the last number in flight.
    pub fn outstanding(&self) -> u32 {
        match (self.first(), self.last()) {
            (Some(first), Some(last)) => last.end.since(first.start),
            _ => 0,
        }
    }

    /// Bytes under way: neither known to have arrived nor taken for lost (RFC 6675's pipe).
    pub fn pipe(&self) -> u32 {
        self.outstanding() - self.sacked - self.lost
    }

    pub fn sacked(&self) -> u32 {
        self.sacked
    }

    pub fn lost(&self) -> u32 {
        self.lost
    }

    /// Law 3's part: the runs tile `una..max`, and the sums are right.
    ///
    /// # Panics
    /// If not.
    pub fn check(&self, una: Seq, max: Seq) {
        let mut at = una;
        let (mut sacked, mut lost) = (0, 0);
        for run in self.runs() {
            assert_eq!(run.start, at, "a gap between runs");
            assert!(run.end.after(run.start), "an empty run");
            at = run.end;
            sacked += if run.fate == Fate::Sacked { run.len() } else { 0 };
            lost += if run.fate == Fate::Lost { run.len() } else { 0 };
        }
        assert_eq!(at, max, "the runs end elsewhere");
        assert_eq!((sacked, lost), (self.sacked, self.lost));
    }

    fn is_full(&self, needed: usize) -> bool {
        usize::from(self.count) + needed > RUNS_MAX
    }

    /// Makes place for `needed` more runs, by knowing less if it must be.
    fn make_room(&mut self, needed: usize) {
        if !self.is_full(needed) {
            return;
        }
        self.join_all(|one, next| one.fate == next.fate);
        while self.is_full(needed) {
            let last = usize::from(self.count) - 1;
            let (one, next) = (self.runs[last - 1], self.runs[last]);
            // A peer's word is advisory; what is lost must not be taken for under way.
            let fate = match (one.fate, next.fate) {
                (Fate::Sacked, other) | (other, Fate::Sacked) => other,
                (Fate::Lost, _) | (_, Fate::Lost) => Fate::Lost,
                (Fate::Sent | Fate::Resent, Fate::Sent | Fate::Resent) => Fate::Resent,
            };
            self.runs[last - 1] = one.joined(&next, fate);
            self.count -= 1;
            self.count_up();
        }
    }

    fn count_up(&mut self) {
        let sum = |fate| self.runs().iter().filter(|run| run.fate == fate).map(Run::len).sum();
        (self.sacked, self.lost) = (sum(Fate::Sacked), sum(Fate::Lost));
    }

    /// Makes `at` the start of a run, if it is inside one.
    fn split(&mut self, at: Seq) {
        let inside = |run: &Run| run.start.before(at) && at.before(run.end);
        let Some(place) = self.runs().iter().position(inside) else { return };
        let (before, after) = self.runs[place].split(at);
        self.runs.copy_within(place..usize::from(self.count), place + 1);
        (self.runs[place], self.runs[place + 1]) = (before, after);
        self.count += 1;
    }

    fn tidy(&mut self, grain_us: u16) {
        self.join_all(|one, next| one.joins(next, grain_us));
    }

    fn join_all(&mut self, joins: impl Fn(&Run, &Run) -> bool) {
        let mut kept = 0;
        for place in 1..usize::from(self.count) {
            let (one, next) = (self.runs[kept], self.runs[place]);
            if joins(&one, &next) {
                self.runs[kept] = one.joined(&next, one.fate);
            } else {
                kept += 1;
                self.runs[kept] = next;
            }
        }
        self.count = self.count.min(kept as u8 + 1);
    }
}

/// Whether one wrapping time comes before another.
pub(super) fn is_earlier(one_us: u32, other_us: u32) -> bool {
    (one_us.wrapping_sub(other_us) as i32) < 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tcp::flight::Flight;
    use proptest::prelude::*;

    /// Each number's fate, one by one.
    struct Model {
        una: u32,
        fates: Vec<Fate>,
    }

    impl Model {
        fn range(&mut self, from: u32, to: u32) -> &mut [Fate] {
            &mut self.fates[(from - self.una) as usize..(to - self.una) as usize]
        }

        fn count(&self, fate: Fate) -> u32 {
            self.fates.iter().filter(|&&one| one == fate).count() as u32
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Send(u32),
        Ack(u32),
        Sack(u32, u32),
        LoseHead(u32),
        LoseAll,
        Resend(u32),
        Forget,
    }

    fn any_step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (1u32..30).prop_map(Step::Send),
            2 => (0u32..40).prop_map(Step::Ack),
            4 => (0u32..200, 1u32..20).prop_map(|(at, len)| Step::Sack(at, len)),
            1 => (1u32..20).prop_map(Step::LoseHead),
            1 => Just(Step::LoseAll),
            3 => (1u32..20).prop_map(Step::Resend),
            1 => Just(Step::Forget),
        ]
    }

    /// Begins where every test crosses the wrap.
    const BASE: Seq = Seq(u32::MAX - 50);

    fn shown(board: &Scoreboard) -> Vec<Fate> {
        let runs = board.runs().iter();
        runs.flat_map(|run| (0..run.end.since(run.start)).map(|_| run.fate)).collect()
    }

    proptest! {
        #[test]
        fn the_runs_say_what_a_list_of_all_numbers_would(
            steps in prop::collection::vec((any_step(), 0u32..50), 1..60)
        ) {
            let mut board = Scoreboard::default();
            let mut model = Model { una: 0, fates: Vec::new() };
            let mut now_us = u32::MAX - 100;
            for (step, wait_us) in steps {
                now_us = now_us.wrapping_add(wait_us);
                let max = model.una + model.fates.len() as u32;
                match step {
                    Step::Send(len) => {
                        board.push(BASE.plus(max), BASE.plus(max + len), now_us, 20);
                        model.fates.extend((0..len).map(|_| Fate::Sent));
                    }
                    Step::Ack(len) => {
                        let ack = (model.una + len).min(max);
                        let over = &model.fates[..(ack - model.una) as usize];
                        let news = over.iter().filter(|&&fate| fate != Fate::Sacked).count();
                        let got = board.acknowledge(BASE.plus(ack), |_| ());
                        prop_assert_eq!(got as usize, news);
                        model.fates.drain(..(ack - model.una) as usize);
                        model.una = ack;
                    }
                    Step::Sack(at, len) => {
                        let (left, right) = (model.una + at, model.una + at + len);
                        if right > max || board.is_full(2) {
                            continue;
                        }
                        let range = model.range(left, right);
                        let news = range.iter().filter(|&&fate| fate != Fate::Sacked).count();
                        range.fill(Fate::Sacked);
                        let got = board.sack(BASE.plus(left), BASE.plus(right), |_| ());
                        prop_assert_eq!(got, Some(news as u32));
                    }
                    Step::LoseHead(len) => {
                        let end = (model.una + len).min(max);
                        let una = model.una;
                        for fate in model.range(una, end) {
                            *fate = if *fate == Fate::Sacked { *fate } else { Fate::Lost };
                        }
                        board.lose_head(len);
                    }
                    Step::LoseAll => {
                        for fate in &mut model.fates {
                            *fate = if *fate == Fate::Sacked { *fate } else { Fate::Lost };
                        }
                        board.lose(|_| true);
                    }
                    Step::Resend(len) => {
                        let Some((start, end)) = board.first_lost() else { continue };
                        let end = end.min(start.plus(len));
                        let from = start.since(BASE);
                        model.range(from, end.since(BASE)).fill(Fate::Resent);
                        board.resend(start, end, now_us, 20);
                    }
                    Step::Forget => {
                        for fate in &mut model.fates {
                            *fate = if *fate == Fate::Sacked { Fate::Lost } else { *fate };
                        }
                        board.forget_sacked();
                    }
                }
                let max = model.una + model.fates.len() as u32;
                board.check(BASE.plus(model.una), BASE.plus(max));
                prop_assert_eq!(shown(&board), model.fates.clone());
                let under_way = model.count(Fate::Sent) + model.count(Fate::Resent);
                prop_assert_eq!(board.pipe(), under_way);
            }
        }

        #[test]
        fn a_full_scoreboard_forgets_what_it_was_told_and_never_what_was_sent(
            steps in prop::collection::vec((0u32..4000, any::<bool>()), 100..400)
        ) {
            let mut board = Scoreboard::default();
            let (mut max, mut now_us) = (0, 0);
            for (at, resend) in steps {
                now_us += 1000;
                board.push(BASE.plus(max), BASE.plus(max + 10), now_us, 1);
                max += 10;
                let at = at % max;
                if resend {
                    board.lose(|run| run.start.since(BASE) >= at);
                    if let Some((start, end)) = board.first_lost() {
                        board.resend(start, end.min(start.plus(3)), now_us, 1);
                    }
                } else {
                    board.sack(BASE.plus(at), BASE.plus((at + 4).min(max)), |_| ());
                }
                board.check(BASE, BASE.plus(max));
            }
            board.forget_sacked();
            board.lose(|_| true);
            prop_assert_eq!(board.lost(), max);
            prop_assert_eq!(board.runs().len(), 1);
        }
    }

    #[test]
    fn a_flight_of_thousands_of_segments_fits() {
        let mut board = Scoreboard::default();
        for segment in 0..5000 {
            let start = BASE.plus(segment * 1460);
            board.push(start, start.plus(1460), segment * 8, Flight::grain_us(40_000));
        }
        assert!(board.runs().len() <= 33, "{} runs in a round trip of 40 ms", board.runs().len());
    }

    #[test]
    fn the_parts_of_a_run_were_sent_one_after_the_other() {
        let mut board = Scoreboard::default();
        for (place, at_us) in [(0, 100), (1, 110), (2, 120), (3, 130)] {
            board.push(Seq(place * 10), Seq(place * 10 + 10), at_us, 1000);
        }
        let mut seen = None;
        board.sack(Seq(10), Seq(20), |run| seen = Some(*run));
        let seen = seen.expect("a run is delivered");
        assert_eq!((seen.start, seen.end), (Seq(10), Seq(20)));
        assert!((105..=110).contains(&seen.sent_us) && seen.last_us() <= 120, "{seen:?}");
        let [first, _, last] = board.runs() else { panic!("{:?}", board.runs()) };
        assert!(first.last_us() <= seen.sent_us && seen.last_us() <= last.sent_us);
    }
}
