//! A hierarchical timing wheel (Varghese and Lauck, scheme 7) with one node a connection.
//!
//! Owns when a node fires; knows nothing of what a node is. Time is cut into ticks; four levels of
//! 4096 slots cover the whole 64-bit clock. A node stands at the level of the highest base-4096
//! digit in which its tick differs from the wheel's; when the wheel's tick enters that slot, the
//! slot's nodes cascade to lower levels:
//!
//! ```text
//!   level 0: 4096 slots of 65.5 µs   level 1: of 268 ms   level 2: of 18 min   level 3: of 52 days
//! ```
//!
//! A node that moves to a later time or is cancelled stays where it stands, and the wheel finds out
//! when it comes there: what a timer usually does touches its node alone. Only one that moves to an
//! earlier slot is taken out of its own.
//!
//! A slot's nodes are listed in chunks of a cache line, not chained one to the next: with a million
//! of them each is somewhere else in memory, and so many can be asked for at once. No chunk is
//! empty, so there are never more of them than nodes.
//!
//! Invariant: no occupied slot lies before the wheel's tick, so slots are in order of their numbers
//! (but for one whose cascade is not finished, which comes first), the first set bit of a level's
//! bitmap is its earliest slot, and idle time is jumped over, never walked.

use crate::sys::cpu::prefetch;
use crate::sys::pages::zeroed;
use crate::time::{Instant, TICK_BITS, tick_after};

/// A finer tick would only spread nodes over more slots; and 48 bits of ticks are four digits of
/// twelve bits.
///
/// 4096 slots a level: an RTO of 200 ms hardly ever cascades, a 60 s TIME-WAIT once (with 256
/// slots, once and twice).
const DIGIT_BITS: u32 = 12;
const LEVEL_SLOTS: usize = 1 << DIGIT_BITS;
const LEVELS: usize = ((u64::BITS - TICK_BITS) / DIGIT_BITS) as usize;
/// The tick that no clock reaches.
const NEVER_TICK: u64 = 1 << (u64::BITS - TICK_BITS);
/// Nodes cascaded, filed again or forgotten for each node that one call may hand out. One moves
/// down at most three times, mostly once, so with four the cascades never fall behind, and a slot
/// of a million nodes is no stall.
const MOVES_PER_DUE: usize = 4;

/// Deadlines of up to a fixed number of nodes, each at most once in the wheel.
pub struct Wheel {
    nodes: Vec<Node>,
    /// The first is no slot's, and full: the end of each list.
    chunks: Vec<Chunk>,
    slots: Vec<Slot>,
    occupied: [Bitmap; LEVELS],
    /// Chunks that were used and are not any more, as a list; and the first that never was.
    free: u32,
    fresh: u32,
    /// Everything before this tick has been handed out.
    tick: u64,
    /// Nothing is to be done before this tick. May be too early, never too late.
    soonest: u64,
    /// The slot that the tick has entered and not yet emptied. Zero if there is none, or if it is
    /// the first of all, which needs no remembering.
    entered: usize,
    /// Nodes that have a deadline.
    armed: u32,
}

/// A node's deadline in nanoseconds, that of `Instant::NEVER` once it is cancelled, and where it
/// stands (see [`place`]). All zero, so that the memory of nodes that never were is not touched,
/// while it stands nowhere.
type Node = [u64; 2];

const AT: usize = 0;
const PLACE: usize = 1;

/// A part of a slot's list, one cache line: the numbers of the chunks before and after it, how many
/// nodes are in it, and these.
type Chunk = [u32; 16];

const PREV: usize = 0;
const NEXT: usize = 1;
const COUNT: usize = 2;
const NODES: usize = 3;
const CHUNK_NODES: usize = size_of::<Chunk>() / size_of::<u32>() - NODES;

/// A slot's first and last chunk; both zero while it is empty.
type Slot = [u32; 2];

const FIRST: usize = 0;
const LAST: usize = 1;

/// Which of a level's slots hold a node, and which of these words are not zero.
#[derive(Clone, Copy)]
struct Bitmap {
    words: [u64; LEVEL_SLOTS / 64],
    summary: u64,
}

/// What one call of [`Wheel::expire`] may still do.
struct Budget {
    fires: usize,
    moves: usize,
}

impl Wheel {
    /// Bytes of memory a node, where many are filed.
    pub const NODE_BYTES: usize = size_of::<Node>() + size_of::<Chunk>().div_ceil(CHUNK_NODES);

    /// Bytes of memory a node at the most: where each that is filed has a chunk of its own.
    pub const NODE_BYTES_MAX: usize = size_of::<Node>() + size_of::<Chunk>();

    /// A wheel for nodes `0..nodes`, starting at `now`. All memory is allocated here; a node's is
    /// touched when it is armed for the first time.
    ///
    /// # Panics
    /// If 32 bits can't count the chunks of that many nodes.
    pub fn new(nodes: u32, now: Instant) -> Wheel {
        // Beside one for each node: the first, and one that is being emptied.
        let mut chunks: Vec<Chunk> = zeroed(nodes.checked_add(2).expect("fewer nodes") as usize);
        chunks[0][COUNT] = CHUNK_NODES as u32;
        Wheel {
            nodes: zeroed(nodes as usize),
            chunks,
            slots: zeroed(LEVELS * LEVEL_SLOTS),
            occupied: [Bitmap { words: [0; LEVEL_SLOTS / 64], summary: 0 }; LEVELS],
            free: 0,
            fresh: 1,
            tick: now.as_nanos() >> TICK_BITS,
            soonest: NEVER_TICK,
            entered: 0,
            armed: 0,
        }
    }

    /// Touches the memory of nodes that were never armed, and of the chunks that they may fill, so
    /// that no page fault falls into a run.
    pub fn touch(&mut self, nodes: std::ops::Range<u32>) {
        for node in nodes {
            let node = node as usize;
            std::hint::black_box(&mut self.nodes[node])[PLACE] = 0;
            std::hint::black_box(&mut self.chunks[1 + node / CHUNK_NODES])[PREV] = 0;
        }
    }

    /// Asks for the memory of a node that is about to be armed or cancelled.
    #[inline(always)]
    pub fn prefetch(&self, node: u32) {
        prefetch(&self.nodes[node as usize]);
    }

    /// Files `node` to fire at `at` or up to one tick later, never earlier; moves it if it is filed
    /// already. A time that has passed is due at the next [`Wheel::expire`]; `NEVER` cancels. O(1).
    #[inline(always)]
    pub fn arm(&mut self, node: u32, at: Instant) {
        let tick = tick_after(at);
        if tick >= NEVER_TICK {
            return self.cancel(node);
        }
        let slot = self.slot_of(tick);
        self.armed += u32::from(self.deadline(node).is_none());
        let entry = &mut self.nodes[node as usize];
        entry[AT] = at.as_nanos();
        let place = entry[PLACE];
        if place != 0 {
            if slot_at(place) <= slot {
                return;
            }
            self.take_out(node, place);
        }
        self.put_in(node, slot);
        self.soonest = self.soonest.min(self.start_of(slot));
    }

    /// Takes `node`'s deadline away; nothing happens if it has none. O(1).
    #[inline]
    pub fn cancel(&mut self, node: u32) {
        if self.deadline(node).is_some() {
            self.nodes[node as usize][AT] = Instant::NEVER.as_nanos();
            self.armed -= 1;
        }
    }

    /// Moves the wheel to `now` and hands out nodes that are due, taking them out, at most `limit`;
    /// the rest stay due for the next call. The work is bounded whatever the time that went by:
    /// cascading is, too, and then nodes may wait for the next call although `limit` was not
    /// reached. Answers through `due`, in order of tick.
    pub fn expire(&mut self, now: Instant, limit: usize, due: &mut Vec<u32>) {
        let target = now.as_nanos() >> TICK_BITS;
        let moves = limit.saturating_mul(MOVES_PER_DUE);
        let mut budget = Budget { fires: limit, moves };
        while self.soonest <= target {
            let Some(slot) = self.earliest() else {
                self.soonest = NEVER_TICK;
                break;
            };
            let start = self.start_of(slot);
            self.soonest = start;
            if start > target {
                break;
            }
            self.tick = self.tick.max(start);
            self.entered = slot;
            if !self.empty(slot, &mut budget, due) {
                return;
            }
            self.entered = 0;
        }
        // No slot at or before the target is occupied any more, so the wheel may go there at once.
        self.tick = self.tick.max(target);
    }

    /// When `node` is to fire, if it is: as it was armed, not rounded to ticks.
    #[inline(always)]
    pub fn deadline(&self, node: u32) -> Option<Instant> {
        let [at, place] = self.nodes[node as usize];
        (place != 0 && at != Instant::NEVER.as_nanos()).then(|| Instant::from_nanos(at))
    }

    /// No node fires before this: the earliest deadline, or a lower bound of it. `NEVER` if the
    /// wheel is empty. Whoever jumps there, calls [`Wheel::expire`] and asks again comes to every
    /// deadline in a few steps.
    pub fn next(&self) -> Instant {
        if self.is_empty() || self.soonest == NEVER_TICK {
            return Instant::NEVER;
        }
        Instant::from_nanos(self.soonest << TICK_BITS)
    }

    /// Number of nodes that have a deadline.
    pub fn len(&self) -> usize {
        self.armed as usize
    }

    pub fn is_empty(&self) -> bool {
        self.armed == 0
    }

    /// The earliest occupied slot: all of a level are before all of the next, but for the one that
    /// the tick has entered.
    #[inline(always)]
    fn earliest(&self) -> Option<usize> {
        if self.entered != 0 {
            return Some(self.entered);
        }
        let level = self.occupied.iter().position(|bitmap| bitmap.summary != 0)?;
        Some(level * LEVEL_SLOTS + self.occupied[level].first())
    }

    /// Takes every node out of a slot that the tick has entered: those that are due are handed out,
    /// those that are later go where they belong, those that were cancelled nowhere. Whether the
    /// budget was enough.
    fn empty(&mut self, slot: usize, budget: &mut Budget, due: &mut Vec<u32>) -> bool {
        self.ask_for(self.slots[slot][FIRST]);
        loop {
            let number = self.slots[slot][FIRST];
            if number == 0 {
                return true;
            }
            let chunk = self.chunks[number as usize];
            self.ask_for(chunk[NEXT]);
            let nodes = &chunk[NODES..][..chunk[COUNT] as usize];
            for (done, &node) in nodes.iter().enumerate() {
                if budget.fires == 0 || budget.moves == 0 {
                    let left = &mut self.chunks[number as usize];
                    left[NODES..].copy_within(done..nodes.len(), 0);
                    left[COUNT] -= done as u32;
                    return false;
                }
                self.decide(node, budget, due);
            }
            self.remove(number, slot);
        }
    }

    /// What becomes of a node that was taken out of its slot.
    #[inline(always)]
    fn decide(&mut self, node: u32, budget: &mut Budget, due: &mut Vec<u32>) {
        let entry = &mut self.nodes[node as usize];
        entry[PLACE] = 0;
        let at = Instant::from_nanos(entry[AT]);
        let tick = tick_after(at);
        if tick <= self.tick {
            budget.fires -= 1;
            self.armed -= 1;
            due.push(node);
            return;
        }
        budget.moves -= 1;
        if at != Instant::NEVER {
            self.put_in(node, self.slot_of(tick));
        }
    }

    /// Asks for the memory of a chunk's nodes and for the chunk after it.
    #[inline]
    fn ask_for(&self, number: u32) {
        if number != 0 {
            let chunk = &self.chunks[number as usize];
            prefetch(&self.chunks[chunk[NEXT] as usize]);
            for &node in &chunk[NODES..][..chunk[COUNT] as usize] {
                self.prefetch(node);
            }
        }
    }

    /// The slot where a tick belongs; of one that has passed, that of the wheel's tick.
    #[inline(always)]
    fn slot_of(&self, tick: u64) -> usize {
        let tick = tick.max(self.tick);
        let level = ((tick ^ self.tick) | 1).ilog2() / DIGIT_BITS;
        let digit = (tick >> (level * DIGIT_BITS)) as usize % LEVEL_SLOTS;
        level as usize * LEVEL_SLOTS + digit
    }

    /// The first tick of an occupied slot.
    #[inline(always)]
    fn start_of(&self, slot: usize) -> u64 {
        let (level, digit) = (slot / LEVEL_SLOTS, slot % LEVEL_SLOTS);
        let shift = level as u32 * DIGIT_BITS;
        let above = self.tick >> shift >> DIGIT_BITS;
        (above << DIGIT_BITS | digit as u64) << shift
    }

    /// Puts a node that stands nowhere at the end of a slot's list.
    #[inline(always)]
    fn put_in(&mut self, node: u32, slot: usize) {
        let mut number = self.slots[slot][LAST];
        if self.chunks[number as usize][COUNT] as usize == CHUNK_NODES {
            number = self.extend(slot);
        }
        let chunk = &mut self.chunks[number as usize];
        chunk[NODES + chunk[COUNT] as usize] = node;
        chunk[COUNT] += 1;
        self.nodes[node as usize][PLACE] = place(number, slot);
    }

    /// Takes a node out of its chunk; the chunk's last takes its place.
    fn take_out(&mut self, node: u32, place: u64) {
        let number = chunk_at(place);
        let chunk = &mut self.chunks[number as usize];
        let nodes = &mut chunk[NODES..];
        let hole = nodes.iter().position(|&other| other == node).expect("it stands here");
        chunk[COUNT] -= 1;
        chunk[NODES + hole] = chunk[NODES + chunk[COUNT] as usize];
        if chunk[COUNT] == 0 {
            self.remove(number, slot_at(place));
        }
    }

    /// An empty chunk at the end of a slot's list.
    fn extend(&mut self, slot: usize) -> u32 {
        let number = match self.free {
            0 => {
                self.fresh += 1;
                self.fresh - 1
            }
            free => {
                self.free = self.chunks[free as usize][NEXT];
                free
            }
        };
        let last = std::mem::replace(&mut self.slots[slot][LAST], number);
        let chunk = &mut self.chunks[number as usize];
        (chunk[PREV], chunk[NEXT], chunk[COUNT]) = (last, 0, 0);
        if last == 0 {
            self.slots[slot][FIRST] = number;
            self.occupied[slot / LEVEL_SLOTS].set(slot % LEVEL_SLOTS);
        } else {
            self.chunks[last as usize][NEXT] = number;
        }
        number
    }

    /// Takes a chunk out of a slot's list.
    fn remove(&mut self, number: u32, slot: usize) {
        let [prev, next, ..] = self.chunks[number as usize];
        match prev {
            0 => self.slots[slot][FIRST] = next,
            _ => self.chunks[prev as usize][NEXT] = next,
        }
        match next {
            0 => self.slots[slot][LAST] = prev,
            _ => self.chunks[next as usize][PREV] = prev,
        }
        if prev == 0 && next == 0 {
            self.occupied[slot / LEVEL_SLOTS].clear(slot % LEVEL_SLOTS);
        }
        self.chunks[number as usize][NEXT] = std::mem::replace(&mut self.free, number);
    }
}

impl Bitmap {
    fn set(&mut self, digit: usize) {
        self.words[digit / 64] |= 1 << (digit % 64);
        self.summary |= 1 << (digit / 64);
    }

    fn clear(&mut self, digit: usize) {
        self.words[digit / 64] &= !(1 << (digit % 64));
        if self.words[digit / 64] == 0 {
            self.summary &= !(1 << (digit / 64));
        }
    }

    /// The lowest that is set.
    ///
    /// # Panics
    /// If none is.
    #[inline(always)]
    fn first(&self) -> usize {
        let word = self.summary.trailing_zeros() as usize;
        word * 64 + self.words[word].trailing_zeros() as usize
    }
}

/// Where a node stands: its chunk and its slot in one number, which is never zero.
fn place(chunk: u32, slot: usize) -> u64 {
    u64::from(chunk) << 16 | slot as u64
}

fn chunk_at(place: u64) -> u32 {
    (place >> 16) as u32
}

fn slot_at(place: u64) -> usize {
    place as usize % (1 << 16)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Span;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    const TICK_NS: u64 = 1 << TICK_BITS;

    fn at(nanos: u64) -> Instant {
        Instant::from_nanos(nanos)
    }

    impl Wheel {
        /// That lists, nodes, bitmaps and numbers agree: every node that has a place is there once,
        /// no chunk is empty, each is in one list or free, no slot lies behind.
        fn check(&self) {
            let (mut chunks, mut filed) = (0, 0);
            for (slot, &[first, last]) in self.slots.iter().enumerate() {
                let bitmap = &self.occupied[slot / LEVEL_SLOTS];
                let word = slot % LEVEL_SLOTS / 64;
                assert_eq!(bitmap.words[word] >> (slot % 64) & 1 == 1, first != 0, "{slot}");
                assert_eq!(bitmap.summary >> word & 1 == 1, bitmap.words[word] != 0, "{slot}");
                let (mut prev, mut number) = (0, first);
                while number != 0 {
                    let chunk = &self.chunks[number as usize];
                    let nodes = &chunk[NODES..][..chunk[COUNT] as usize];
                    assert!(chunk[PREV] == prev && !nodes.is_empty(), "{slot}");
                    for &node in nodes {
                        assert_eq!(self.nodes[node as usize][PLACE], place(number, slot));
                    }
                    filed += nodes.len();
                    chunks += 1;
                    (prev, number) = (number, chunk[NEXT]);
                }
                assert_eq!(last, prev, "{slot}");
                let ahead = self.start_of(slot) >= self.tick || slot == self.entered;
                assert!(first == 0 || ahead, "{slot}");
            }
            let mut free = self.free;
            while free != 0 {
                chunks += 1;
                free = self.chunks[free as usize][NEXT];
            }
            assert_eq!(chunks + 1, self.fresh);
            assert_eq!(filed, self.nodes.iter().filter(|node| node[PLACE] != 0).count());
            let armed = (0..self.nodes.len()).filter(|&n| self.deadline(n as u32).is_some());
            assert_eq!(armed.count(), self.len());
        }
    }

    fn fired(wheel: &mut Wheel, now: Instant) -> Vec<u32> {
        let mut due = Vec::new();
        wheel.expire(now, usize::MAX, &mut due);
        due
    }

    #[test]
    fn a_node_fires_at_its_deadline_or_up_to_a_tick_later() {
        for deadline in [1, TICK_NS, TICK_NS + 1, 1_000_000, 7_200_000_000_000, 1 << 63] {
            let mut wheel = Wheel::new(1, Instant::ZERO);
            wheel.arm(0, at(deadline));
            assert_eq!(fired(&mut wheel, at(deadline - 1)), [0; 0], "{deadline}");
            assert_eq!(wheel.deadline(0), Some(at(deadline)));
            assert_eq!(fired(&mut wheel, at(deadline + TICK_NS - 1)), [0], "{deadline}");
            assert_eq!((wheel.len(), wheel.deadline(0), wheel.next()), (0, None, Instant::NEVER));
        }
    }

    #[test]
    fn a_deadline_that_has_passed_is_due_at_once() {
        let mut wheel = Wheel::new(2, at(10 * TICK_NS));
        wheel.arm(1, at(3));
        wheel.check();
        assert!(wheel.next() <= at(10 * TICK_NS));
        assert_eq!(fired(&mut wheel, at(10 * TICK_NS)), [1]);
    }

    #[test]
    fn never_takes_the_node_out() {
        let mut wheel = Wheel::new(1, Instant::ZERO);
        wheel.arm(0, at(5));
        wheel.arm(0, Instant::NEVER);
        assert_eq!((wheel.len(), wheel.deadline(0)), (0, None));
        assert_eq!(fired(&mut wheel, at(u64::MAX - 1)), [0; 0]);
    }

    #[test]
    fn nodes_of_one_tick_fire_in_the_order_they_were_armed() {
        let mut wheel = Wheel::new(100, Instant::ZERO);
        let later = Instant::ZERO + Span::from_secs(60);
        for node in (0..100).rev() {
            wheel.arm(node, later);
        }
        assert_eq!(
            fired(&mut wheel, later + Span::from_millis(1)),
            (0..100).rev().collect::<Vec<_>>()
        );
    }

    #[test]
    fn one_call_does_bounded_work_and_the_rest_stays_due() {
        let mut wheel = Wheel::new(10_000, Instant::ZERO);
        let later = Instant::ZERO + Span::from_secs(60);
        (0..10_000).for_each(|node| wheel.arm(node, later));
        let (now, mut due, mut calls) = (later + Span::from_secs(3600), Vec::new(), 0);
        while !wheel.is_empty() {
            let before = due.len();
            wheel.expire(now, 64, &mut due);
            assert!(due.len() - before <= 64);
            assert!(wheel.is_empty() || wheel.next() <= now);
            calls += 1;
        }
        assert_eq!(due, (0..10_000).collect::<Vec<_>>());
        // 60 s cascades twice: 2 * 10,000 moves at 256 a call, and 10,000 nodes at 64 a call.
        assert!(calls <= 2 * 10_000 / 256 + 10_000 / 64 + 3, "{calls}");
    }

    #[test]
    fn jumping_from_next_to_next_meets_a_far_deadline_in_a_few_steps() {
        let mut wheel = Wheel::new(1, at(123_456_789));
        wheel.arm(0, at(u64::MAX / 3));
        let mut steps = 0;
        while !wheel.is_empty() {
            let next = wheel.next();
            fired(&mut wheel, next);
            steps += 1;
        }
        assert!(steps <= LEVELS, "{steps}");
    }

    #[test]
    fn what_moves_later_or_is_cancelled_stays_where_it_stands_until_the_wheel_comes_there() {
        let mut wheel = Wheel::new(2, Instant::ZERO);
        let [soon, late] = [200, 60_000].map(|ms| Instant::ZERO + Span::from_millis(ms));
        (0..2).for_each(|node| wheel.arm(node, soon));
        let places: Vec<u64> = wheel.nodes.iter().map(|node| node[PLACE]).collect();
        wheel.arm(0, late);
        wheel.cancel(1);
        assert_eq!(wheel.nodes.iter().map(|node| node[PLACE]).collect::<Vec<_>>(), places);
        assert_eq!((wheel.deadline(0), wheel.deadline(1), wheel.len()), (Some(late), None, 1));
        assert_eq!(fired(&mut wheel, soon + Span::from_millis(1)), [0; 0]);
        wheel.check();
        assert_eq!(wheel.nodes[1][PLACE], 0);
        assert_eq!(fired(&mut wheel, late + Span::from_millis(1)), [0]);
    }

    #[test]
    fn moving_ever_earlier_takes_no_more_chunks_than_there_are_nodes() {
        const COUNT: u32 = 100;
        let mut wheel = Wheel::new(COUNT, Instant::ZERO);
        for round in (1..50).rev() {
            for node in 0..COUNT {
                let spread = u64::from(node) * 7 * TICK_NS;
                wheel.arm(node, at(round * 50_000_000_000 + spread));
            }
            assert!(wheel.fresh <= COUNT + 2, "{}", wheel.fresh);
        }
        wheel.check();
    }

    #[derive(Clone, Debug)]
    enum Act {
        Arm(u32, u64),
        ArmMany(u64),
        Cancel(u32),
        Pass(u64, usize),
    }

    fn act() -> impl Strategy<Value = Act> {
        let span =
            prop_oneof![0..4 * TICK_NS, 0..1u64 << 30, 0..1u64 << 36, 0..1u64 << 48, 0..1u64 << 62];
        let node = 0..40u32;
        prop_oneof![
            5 => (node.clone(), span.clone()).prop_map(|(node, span)| Act::Arm(node, span)),
            1 => span.clone().prop_map(Act::ArmMany),
            1 => node.prop_map(Act::Cancel),
            3 => (span, prop_oneof![0..4usize, Just(1000)])
                .prop_map(|(span, limit)| Act::Pass(span, limit)),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(500))]
        /// The model keeps (tick in which it may fire, node). A call with a high limit must hand
        /// out exactly those up to the current tick; one with a low limit, some of those. Nothing
        /// comes early.
        #[test]
        fn the_wheel_does_what_a_sorted_map_does(
            start in 0..1u64 << 62,
            acts in prop::collection::vec(act(), 1..120),
        ) {
            let mut now = start;
            let mut wheel = Wheel::new(40, at(now));
            let mut model: BTreeMap<u32, u64> = BTreeMap::new();
            for act in acts {
                match act {
                    Act::Arm(node, span) => {
                        // Mostly ahead, sometimes already past.
                        let deadline = (now + span).saturating_sub(TICK_NS);
                        wheel.arm(node, at(deadline));
                        model.insert(node, deadline);
                    }
                    Act::ArmMany(span) => (0..30).for_each(|node| {
                        wheel.arm(node, at(now + span));
                        model.insert(node, now + span);
                    }),
                    Act::Cancel(node) => {
                        wheel.cancel(node);
                        model.remove(&node);
                    }
                    Act::Pass(span, limit) => {
                        now = now.saturating_add(span).min(1 << 63);
                        let mut due = Vec::new();
                        wheel.expire(at(now), limit, &mut due);
                        prop_assert!(due.len() <= limit);
                        for node in due {
                            let deadline = model.remove(&node);
                            prop_assert!(deadline.is_some_and(|deadline| deadline <= now));
                        }
                        if limit == 1000 {
                            let now_tick = now >> TICK_BITS;
                            let overdue = model.values().any(|&d| tick_after(at(d)) <= now_tick);
                            prop_assert!(!overdue, "{model:?} at {now}");
                        }
                    }
                }
                wheel.check();
                prop_assert_eq!(wheel.len(), model.len());
                for node in 0..40 {
                    prop_assert_eq!(wheel.deadline(node), model.get(&node).map(|&d| at(d)));
                }
                let earliest = model.values().map(|&d| tick_after(at(d)) << TICK_BITS).min();
                match earliest {
                    None => prop_assert_eq!(wheel.next(), Instant::NEVER),
                    Some(first) => prop_assert!(wheel.next().as_nanos() <= first.max(now)),
                }
            }
        }

        #[test]
        fn nodes_armed_at_one_time_fire_in_order_of_tick(
            deadlines in prop::collection::vec(0..1u64 << 45, 1..60),
            jump in 0..1u64 << 46,
        ) {
            let mut wheel = Wheel::new(60, Instant::ZERO);
            for (node, &deadline) in deadlines.iter().enumerate() {
                wheel.arm(node as u32, at(deadline));
            }
            let ticks: Vec<u64> = fired(&mut wheel, at(jump))
                .iter()
                .map(|&node| tick_after(at(deadlines[node as usize])))
                .collect();
            prop_assert!(ticks.is_sorted());
        }
    }
}
