//! What arrived ahead of a gap (RFC 9293 s3.10.7.4, SHLD-31): which ranges of sequence numbers, and
//! when they are in order. `pages` has their bytes.
//!
//! Bounded: so many ranges a connection, so many pages a worker. What finds no room is dropped, as
//! all of it once was; the peer sends it again. Invariants: ranges neither overlap nor touch, and
//! all lie past RCV.NXT; each page of a path holds part of one of its ranges.

use super::path::{Path, Paths};
use super::{Seq, Tcb};
use crate::wire::options::{SACK_BLOCKS_MAX, Sack};

/// Ranges of one connection. Each is a loss that is not mended yet, and a queue that overflows in
/// slow start makes many at once: with 32 a stream through one sent a third more again than with
/// 64.
const RANGES_MAX: usize = 64;

/// Sequence numbers from `start` until before `end`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Range {
    pub start: Seq,
    pub end: Seq,
}

/// The receiving half of a path.
#[derive(Clone, Debug)]
pub(super) struct Held {
    /// The one that arrived last first. A FIN takes its number at the end of one.
    ranges: [Range; RANGES_MAX],
    count: u8,
    /// The number of a FIN that arrived ahead of text.
    fin: Option<Seq>,
    /// Text in order by now, which the engine has not handed over yet.
    ready: Option<Ready>,
    /// Numbers that arrived again, and that is not reported yet.
    duplicate: Option<Range>,
}

impl Default for Held {
    fn default() -> Held {
        let ranges = [Range::default(); RANGES_MAX];
        Held { ranges, count: 0, fin: None, ready: None, duplicate: None }
    }
}

/// Text that came to be in order, and the range that it was held in.
#[derive(Clone, Copy, Debug)]
struct Ready {
    text: Range,
    range: Range,
}

/// What became of text ahead of a gap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Held,
    /// It was held already.
    Known,
    /// There was no room.
    Dropped,
}

/// What follows RCV.NXT once a gap is filled: bytes of text, and whether FIN is next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Joined {
    pub text: u32,
    pub fin: bool,
}

impl Range {
    pub fn len(self) -> u32 {
        self.end.since(self.start)
    }

    fn touches(self, other: Range) -> bool {
        !self.end.before(other.start) && !other.end.before(self.start)
    }

    /// What both have in common.
    fn and(self, other: Range) -> Option<Range> {
        let both = Range { start: self.start.max(other.start), end: self.end.min(other.end) };
        both.start.before(both.end).then_some(both)
    }
}

impl Held {
    /// True if nothing is ahead of a gap.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// True if a range of it may have pages.
    pub fn has_pages(&self) -> bool {
        !self.is_empty() || self.ready.is_some()
    }

    /// Takes down that `range` has arrived again (RFC 2883 s4).
    pub fn repeat(&mut self, range: Range) {
        self.duplicate = Some(range);
    }

    /// The SACK option for an ACK (RFC 2018 s4): "the first SACK block MUST specify the contiguous
    /// block of data containing the segment which triggered this ACK", then those reported most
    /// recently, as many as there is room for; ahead of all a duplicate, once (RFC 2883 s4).
    #[cold]
    pub fn report(&mut self, beside_timestamps: bool) -> Sack {
        let mut sack = Sack::default();
        let again = self.duplicate.take();
        let room = SACK_BLOCKS_MAX - usize::from(beside_timestamps);
        for range in again.iter().chain(self.ranges()).take(room) {
            sack.push(range.start.0, range.end.0);
        }
        sack
    }

    /// The ranges that may have pages.
    fn with_pages(&self) -> impl Iterator<Item = Range> + Clone + '_ {
        self.ready.iter().map(|ready| ready.range).chain(self.ranges().iter().copied())
    }

    fn ranges(&self) -> &[Range] {
        &self.ranges[..usize::from(self.count)]
    }

    /// True if `range` joins one that is there, or there is room for one more.
    fn has_room_for(&self, range: Range) -> bool {
        self.ranges().len() < RANGES_MAX || self.ranges().iter().any(|held| held.touches(range))
    }

    /// Joins `range` with those that it touches, and puts it first.
    fn insert(&mut self, mut range: Range) {
        let mut kept = 0;
        for at in 0..usize::from(self.count) {
            let held = self.ranges[at];
            if held.touches(range) {
                range = Range { start: held.start.min(range.start), end: held.end.max(range.end) };
            } else {
                self.ranges[kept] = held;
                kept += 1;
            }
        }
        self.ranges.copy_within(..kept, 1);
        self.ranges[0] = range;
        self.count = kept as u8 + 1;
    }

    /// Takes out one range that begins no later than `next`.
    fn take(&mut self, next: Seq) -> Option<Range> {
        let at = self.ranges().iter().position(|held| !held.start.after(next))?;
        let range = self.ranges[at];
        self.ranges.copy_within(at + 1..usize::from(self.count), at);
        self.count -= 1;
        Some(range)
    }

    fn take_last(&mut self) -> Option<Range> {
        self.count = self.count.checked_sub(1)?;
        Some(self.ranges[usize::from(self.count)])
    }
}

impl Paths {
    /// Takes `text` of a segment, with FIN behind it or not, which begins past RCV.NXT. If it is
    /// `Held`, its bytes are to be [stored](Paths::store).
    pub(super) fn hold(&mut self, tcb: &mut Tcb, text: Range, fin: bool) -> Fate {
        let in_reach = text.end.since(tcb.rcv_nxt) <= self.pages.reach_bytes();
        if !in_reach || self.lend(tcb).is_none() {
            return Fate::Dropped;
        }
        let held = &mut self.blocks[usize::from(tcb.path)].held;
        // A second FIN elsewhere: its number would have no page and no meaning.
        if fin && held.fin.is_some_and(|known| known != text.end) {
            return Fate::Dropped;
        }
        let numbers = Range { end: text.end.plus(u32::from(fin)), ..text };
        let again = held.ranges().iter().find_map(|range| range.and(numbers));
        let known = again == Some(numbers);
        let room = known || held.has_room_for(numbers) && self.pages.reserve(tcb.path, text);
        if numbers.len() == 0 || !room {
            return Fate::Dropped;
        }
        held.insert(numbers);
        held.duplicate = again;
        if fin {
            held.fin.get_or_insert(text.end);
        }
        if known { Fate::Known } else { Fate::Held }
    }

    /// RCV.NXT has moved: answers what it has come to, which is to be
    /// [delivered](Paths::deliver). More than `room` is never in order: the window promised so much
    /// and no more.
    pub(super) fn join(&mut self, tcb: &Tcb, room: u32) -> Joined {
        let next = tcb.rcv_nxt;
        let fin = self.blocks.get(usize::from(tcb.path)).and_then(|path| path.held.fin);
        if fin.is_some_and(|fin| fin.before(next)) {
            // Text where FIN was said to be, whose number has no page: of a peer that contradicts
            // itself nothing ahead is to be believed.
            self.forget_held(tcb);
            return Joined::default();
        }
        let Paths { blocks, pages, .. } = self;
        let Some(Path { held, .. }) = blocks.get_mut(usize::from(tcb.path)) else {
            return Joined::default();
        };
        let mut joined = Joined::default();
        while let Some(range) = held.take(next) {
            if !range.end.after(next) {
                pages.release(tcb.path, range, held.with_pages());
                continue;
            }
            let fin = held.fin.filter(|fin| fin.before(range.end) && !fin.before(next));
            let text = Range { start: next, end: fin.unwrap_or(range.end) };
            let fits = text.len() <= room;
            if fits {
                joined = Joined { text: text.len(), fin: fin.is_some() };
            }
            if !fits || text.len() == 0 {
                pages.release(tcb.path, range, held.with_pages());
                continue;
            }
            held.ready = Some(Ready { text, range });
        }
        joined
    }

    /// Forgets what is ahead of a gap, but not what is in order: FIN is, and nothing comes behind
    /// it.
    #[cold]
    pub(super) fn forget_held(&mut self, tcb: &Tcb) {
        let Paths { blocks, pages, .. } = self;
        let Some(Path { held, .. }) = blocks.get_mut(usize::from(tcb.path)) else { return };
        while let Some(range) = held.take_last() {
            pages.release(tcb.path, range, held.with_pages());
        }
        (held.fin, held.duplicate) = (None, None);
    }

    /// Keeps the bytes that begin at `start`, as [`Arrival::ahead`](super::Arrival) says.
    ///
    /// # Panics
    /// If it does not say so.
    #[cold]
    pub fn store(&mut self, tcb: &Tcb, start: Seq, bytes: &[u8]) {
        self.pages.write(tcb.path, start, bytes);
    }

    /// The text that became in order, piece by piece, until it is [given back](Paths::give_back).
    pub fn in_order(&self, tcb: &Tcb) -> impl Iterator<Item = &[u8]> {
        let ready = self.blocks.get(usize::from(tcb.path)).and_then(|path| path.held.ready);
        ready.into_iter().flat_map(|ready| self.pages.read(tcb.path, ready.text))
    }

    /// Ends the keeping of text that became in order: the application has it.
    pub fn give_back(&mut self, tcb: &Tcb) {
        let Paths { blocks, pages, .. } = self;
        let Some(Path { held, .. }) = blocks.get_mut(usize::from(tcb.path)) else { return };
        if let Some(ready) = held.ready.take() {
            pages.release(tcb.path, ready.range, held.with_pages());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Config;
    use super::*;
    use proptest::prelude::*;

    /// What a byte of the stream is.
    fn byte(number: u32) -> u8 {
        (number.wrapping_mul(0x9e37_79b9) >> 24) as u8
    }

    /// A receiver whose bytes are in a map: which numbers past `base` are here.
    struct Model {
        paths: Paths,
        tcb: Tcb,
        base: Seq,
        here: Vec<bool>,
        fin: Option<u32>,
        delivered: u32,
        closed: bool,
    }

    impl Model {
        fn new(base: u32, numbers: usize, config: &Config) -> Model {
            let mut tcb = Tcb::CLOSED;
            tcb.rcv_nxt = Seq(base);
            let paths = Paths::new(1, config);
            let here = vec![false; numbers];
            Model { paths, tcb, base: Seq(base), here, fin: None, delivered: 0, closed: false }
        }

        /// Lets text at `from..to` arrive, as `Tcb::text_and_fin` would.
        fn arrives(&mut self, from: u32, to: u32, fin: bool) {
            let next = self.tcb.rcv_nxt.since(self.base);
            let range = Range { start: self.base.plus(from), end: self.base.plus(to) };
            if from > next {
                match self.paths.hold(&mut self.tcb, range, fin) {
                    Fate::Held => {
                        let bytes: Vec<u8> = (from..to).map(byte).collect();
                        self.paths.store(&self.tcb, range.start, &bytes);
                    }
                    Fate::Known => {}
                    Fate::Dropped => return,
                }
                self.mark(from, to, fin);
                return;
            }
            if to + u32::from(fin) <= next {
                return;
            }
            self.mark(from, to, fin);
            self.delivered = self.delivered.max(to);
            self.tcb.rcv_nxt = self.tcb.rcv_nxt.max(range.end);
            let joined = match fin {
                true => Joined { text: 0, fin: true },
                false => self.paths.join(&self.tcb, u32::MAX),
            };
            let start = self.tcb.rcv_nxt.since(self.base);
            self.tcb.rcv_nxt = self.tcb.rcv_nxt.plus(joined.text);
            if joined.fin {
                self.paths.forget_held(&self.tcb);
                self.closed = true;
            }
            let text: Vec<u8> = match joined.text {
                0 => Vec::new(),
                _ => self.paths.in_order(&self.tcb).flatten().copied().collect(),
            };
            let expected: Vec<u8> = (start..start + joined.text).map(byte).collect();
            assert_eq!(text, expected, "the bytes that were kept come out in order");
            self.delivered += joined.text;
            self.paths.give_back(&self.tcb);
        }

        fn mark(&mut self, from: u32, to: u32, fin: bool) {
            self.here[from as usize..to as usize].fill(true);
            self.fin = self.fin.or(fin.then_some(to));
        }

        /// Numbers in a row from the base, and whether FIN follows.
        fn in_order(&self) -> (u32, bool) {
            let end = self.here.iter().position(|here| !here).unwrap_or(self.here.len()) as u32;
            (end, self.fin == Some(end))
        }

        fn check(&self) {
            self.paths.check();
            assert_eq!((self.delivered, self.closed), self.in_order());
            let Some(path) = self.paths.blocks.first().filter(|_| self.tcb.has_path()) else {
                return;
            };
            let ranges = path.held.ranges();
            for (at, range) in ranges.iter().enumerate() {
                assert!(range.start.after(self.tcb.rcv_nxt) && range.start.before(range.end));
                assert!(!ranges[..at].iter().any(|other| other.touches(*range)));
            }
            if !self.closed {
                let held: u32 = ranges.iter().map(|range| range.len()).sum();
                let ahead = self.here[self.delivered as usize..].iter().filter(|&&here| here);
                let fin = u32::from(self.fin.is_some());
                assert_eq!(held, ahead.count() as u32 + fin, "ranges are what is ahead");
            }
        }
    }

    proptest! {
        #[test]
        fn what_comes_out_is_what_a_map_of_bytes_says(
            base in prop_oneof![any::<u32>(), Just(u32::MAX - 9000)],
            segments in prop::collection::vec((0u32..20_000, 1u32..3000, any::<bool>()), 1..80),
            scale in 1u32..100,
            end in 10_000u32..20_000,
        ) {
            let mut model = Model::new(base, 20_001, &Config::default());
            for (from, len, aligned) in segments {
                let from = from / scale;
                let from = if aligned { from / 1000 * 1000 } else { from }.min(end);
                let to = (from + len / scale).min(end);
                let fin = to == end;
                if model.closed || (from == to && !fin) {
                    continue;
                }
                model.arrives(from, to, fin);
                model.check();
            }
            let mut tcb = model.tcb.clone();
            model.paths.reclaim(&mut tcb);
            prop_assert_eq!(model.paths.pages.free(), model.paths.pages.max());
        }

        #[test]
        fn too_little_memory_drops_and_never_forgets(
            segments in prop::collection::vec((0u32..60_000, 1u32..1500), 1..200),
        ) {
            let config = Config { reassembly_bytes: 20_000, ..Config::default() };
            let mut model = Model::new(7, 65_536, &config);
            for (from, len) in segments {
                model.arrives(from, from + len, false);
                model.check();
            }
        }
    }

    #[test]
    fn a_range_too_many_is_dropped_and_one_that_joins_is_not() {
        let mut model = Model::new(0, 1000, &Config::default());
        for count in 0..RANGES_MAX as u32 {
            model.arrives(10 + 10 * count, 11 + 10 * count, false);
        }
        let path = &model.paths.blocks[0];
        assert_eq!(path.held.ranges().len(), RANGES_MAX);
        let more = Range { start: Seq(990), end: Seq(991) };
        assert_eq!(model.paths.hold(&mut model.tcb, more, false), Fate::Dropped);
        let joins = Range { start: Seq(11), end: Seq(20) };
        assert_eq!(model.paths.hold(&mut model.tcb, joins, false), Fate::Held);
        assert_eq!(model.paths.blocks[0].held.ranges().len(), RANGES_MAX - 1);
    }

    #[test]
    fn text_out_of_reach_of_the_ring_is_dropped() {
        let config = Config { window: 8192, ..Config::default() };
        let mut model = Model::new(0, 1, &config);
        let reach = model.paths.pages.reach_bytes();
        let last = Range { start: Seq(reach - 1), end: Seq(reach) };
        let far = Range { start: Seq(reach), end: Seq(reach + 1) };
        assert_eq!(model.paths.hold(&mut model.tcb, far, false), Fate::Dropped);
        assert_eq!(model.paths.hold(&mut model.tcb, last, false), Fate::Held);
    }

    #[test]
    fn text_that_finds_no_room_with_the_application_is_given_up() {
        let mut model = Model::new(0, 1000, &Config::default());
        model.arrives(10, 500, false);
        model.tcb.rcv_nxt = Seq(10);
        assert_eq!(model.paths.join(&model.tcb, 489), Joined::default());
        assert_eq!(model.paths.pages.free(), model.paths.pages.max());
        assert!(model.paths.blocks[0].held.is_empty());
    }
}
