//! A timing wheel without cascades (as the kernel's since 4.8) with one node a connection.
//!
//! Owns when a node fires; knows nothing of what a node is. Time is cut into ticks, and levels of
//! 2048 slots cover the whole 64-bit clock. Each level's slots are eight times as long as those of
//! the level below, and a node stands at the lowest level that reaches as far as it is ahead:
//!
//! ```text
//!   level 0: 2048 slots of 65.5 µs, up to 134 ms ahead   level 1: of 524 µs, up to 1.07 s
//!   level 2: of 4.2 ms, up to 8.6 s   level 3: of 34 ms, up to 69 s   ...
//! ```
//!
//! There it stays until the wheel comes to its slot. So it may be late by a tick, and by 1/255 of
//! how far ahead it was when it was filed: an RTO of 1 s by 0.5 ms, one of 60 s by 34 ms. It is
//! never early. A wheel with cascades is exact, and touches each node again as its time comes near.
//!
//! A slot is a queue (see [`super::queues`]), and nothing is taken out of its middle. A node that
//! moves to a later time or is cancelled stays where it stands, and the wheel finds out when it
//! comes there. One that moves to an earlier slot is put in there, and leaves a stale entry behind:
//! one in a slot that is not its node's. Where there are many of them they are looked for (see
//! [`Wheel::sweep`]).
//!
//! As a slot says when it is, a node need not: of it is known the slot where it belongs and the one
//! where it stands, in four bytes, for with many nodes what an operation takes is waiting for
//! memory.

use super::bitmap::Bitmap;
use super::queues::{CHUNK_BYTES, CHUNK_ENTRIES, Queues};
use crate::sys::cpu::prefetch;
use crate::sys::pages::zeroed;
use crate::time::{Instant, TICK_BITS, tick_after, tick_of};

/// A level's slots are longer than those below it by so many bits.
const STEP_BITS: u32 = 3;
/// All but the lowest level begin to be used at an eighth of their slots, of which a node may be
/// late by one.
const DIGIT_BITS: u32 = 11;
const LEVEL_SLOTS: usize = 1 << DIGIT_BITS;
/// What 48 bits of ticks need, and one for what [`Wheel::slot_of`] adds to them.
const LEVELS: usize = ((u64::BITS - TICK_BITS - DIGIT_BITS) / STEP_BITS + 2) as usize;
const SLOTS: usize = LEVELS * LEVEL_SLOTS;
/// The tick that no clock reaches.
const NEVER_TICK: u64 = (1 << (u64::BITS - TICK_BITS)) - 1;
/// Entries that are filed again or forgotten for each node that one call may hand out, so that a
/// slot of a million nodes that have all moved on is no stall.
const MOVES_PER_DUE: usize = 4;
/// Chunks that are swept for each entry that turns stale where they are too many.
const SWEPT: usize = 4;

/// Deadlines of up to a fixed number of nodes.
pub struct Wheel {
    nodes: Vec<Node>,
    /// The entries of each slot, which are nodes.
    slots: Queues,
    occupied: [Bitmap<{ LEVEL_SLOTS / 64 }>; LEVELS],
    /// The levels that hold an entry, a bit each.
    levels: u32,
    /// Everything before this tick has been handed out.
    tick: u64,
    /// Nothing is to be done before this tick. May be too early, never too late.
    soonest: u64,
    /// Nodes that have a deadline.
    armed: u32,
    /// Stale entries, and the slot that is swept of them.
    stale: u32,
    swept: usize,
    /// The last chunk of those that are to be swept in that slot; zero if none is left.
    swept_last: u32,
}

/// The slot where a node belongs, as is its number and one, or zero once it is cancelled; and below
/// it where its entry stands (see [`place`]), which is not after that. Zero while it has none, so
/// that the memory of nodes that never were is not touched.
type Node = u32;

const PLACE_BITS: u32 = 16;
const _: () = assert!(SLOTS < 1 << (PLACE_BITS - 1));

/// What one call of [`Wheel::expire`] may still do.
struct Budget {
    /// The tick that the wheel goes to.
    target: u64,
    fires: usize,
    moves: usize,
}

impl Wheel {
    /// Bytes of memory a node, where many are filed.
    pub const NODE_BYTES: usize = size_of::<Node>() + CHUNK_BYTES.div_ceil(CHUNK_ENTRIES);

    /// A wheel for nodes `0..nodes`, starting at `now`. All memory is allocated here; a node's is
    /// touched when it is armed for the first time.
    ///
    /// # Panics
    /// If 32 bits can't count the entries of that many nodes.
    pub fn new(nodes: u32, now: Instant) -> Wheel {
        Wheel {
            nodes: zeroed(nodes as usize),
            slots: Queues::new(SLOTS, Self::entries_max(nodes)),
            occupied: [Bitmap::EMPTY; LEVELS],
            levels: 0,
            tick: tick_of(now),
            soonest: NEVER_TICK,
            armed: 0,
            stale: 0,
            swept: 0,
            swept_last: 0,
        }
    }

    /// As many as there are nodes may be stale.
    fn entries_max(nodes: u32) -> usize {
        nodes.checked_mul(2).expect("fewer nodes") as usize
    }

    /// Bytes of memory that a wheel for so many nodes takes at the most.
    pub fn bytes_max(nodes: u32) -> usize {
        nodes as usize * size_of::<Node>() + Queues::bytes_max(SLOTS, Self::entries_max(nodes))
    }

    /// Touches the memory of nodes that were never armed, and of the chunks that they may fill, so
    /// that no page fault falls into a run.
    pub fn touch(&mut self, nodes: std::ops::Range<u32>) {
        for node in nodes {
            let node = node as usize;
            *std::hint::black_box(&mut self.nodes[node]) = 0;
            self.slots.touch(1 + node / CHUNK_ENTRIES);
        }
    }

    /// Asks for the memory of a node that is about to be armed or cancelled.
    #[inline(always)]
    pub fn prefetch(&self, node: u32) {
        prefetch(&self.nodes[node as usize]);
    }

    /// Files `node` to fire at `at` or a little later (by a tick and 1/255 of the time until then
    /// at the most), never earlier; moves it if it is filed already. A time that has passed is due
    /// at the next [`Wheel::expire`]; `NEVER` cancels. O(1).
    #[inline(always)]
    pub fn arm(&mut self, node: u32, at: Instant) {
        let tick = tick_after(at);
        if tick >= NEVER_TICK {
            return self.cancel(node);
        }
        let (slot, start) = self.slot_of(tick);
        let known = self.nodes[node as usize];
        self.armed += u32::from(!is_armed(known));
        if let Some(before) = slot_at(known) {
            if self.start_of(before) <= start {
                self.nodes[node as usize] = aim(slot) | place_at(known);
                return;
            }
            self.stale += 1;
            if self.stale > self.nodes.len() as u32 / 2 {
                self.sweep();
            }
        }
        self.file(node, slot, start);
    }

    /// Takes `node`'s deadline away; nothing happens if it has none. O(1).
    #[inline]
    pub fn cancel(&mut self, node: u32) {
        let known = self.nodes[node as usize];
        if is_armed(known) {
            self.nodes[node as usize] = place_at(known);
            self.armed -= 1;
        }
    }

    /// Goes on to `now` as far as nothing is due. How exact a node is depends on how far ahead of
    /// where the wheel stands it is, so nothing should be armed before the wheel knows the time.
    #[inline(always)]
    pub fn advance(&mut self, now: Instant) {
        self.tick = self.tick.max(reached(now).min(self.soonest));
    }

    /// Moves the wheel to `now` and hands out nodes that are due, taking them out, at most `limit`;
    /// the rest stay due for the next call. The work is bounded whatever the time that went by:
    /// filing again what has moved on is, too, and then nodes may wait for the next call although
    /// `limit` was not reached. Answers through `due`: level by level, in order of their slots.
    pub fn expire(&mut self, now: Instant, limit: usize, due: &mut Vec<u32>) {
        self.advance(now);
        let target = reached(now);
        if self.soonest > target {
            return;
        }
        let moves = limit.saturating_mul(MOVES_PER_DUE);
        let mut budget = Budget { target, fires: limit, moves };
        self.soonest = NEVER_TICK;
        let mut levels = self.levels;
        while levels != 0 {
            self.empty_level(levels.trailing_zeros() as usize, &mut budget, due);
            levels &= levels - 1;
        }
        // What is left at or before the target waits for the next call.
        self.advance(now);
    }

    /// No node fires before this: the earliest slot's time, or a lower bound of it. `NEVER` if the
    /// wheel is empty. Whoever jumps there, calls [`Wheel::expire`] and asks again comes to every
    /// deadline in a few steps.
    pub fn next(&self) -> Instant {
        if self.is_empty() || self.soonest >= NEVER_TICK {
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

    /// Takes every entry out of a level's slots up to the target.
    #[inline(always)]
    fn empty_level(&mut self, level: usize, budget: &mut Budget, due: &mut Vec<u32>) {
        while !self.occupied[level].is_empty() {
            let digit = self.occupied[level].next(self.coming(level) as usize % LEVEL_SLOTS);
            let slot = level * LEVEL_SLOTS + digit;
            let start = self.start_of(slot);
            if start > budget.target || !self.empty(slot, budget, due) {
                self.soonest = self.soonest.min(start);
                return;
            }
        }
    }

    /// The first of a level's slots that the wheel has not passed, numbered since time zero. Of
    /// those that are occupied none is farther ahead of it than the level has slots.
    #[inline(always)]
    fn coming(&self, level: usize) -> u64 {
        after(self.tick, level as u32)
    }

    /// The slot where a tick belongs, and the tick of that slot, which is not before it; of a tick
    /// that has passed, the wheel's.
    #[inline(always)]
    fn slot_of(&self, tick: u64) -> (usize, u64) {
        let tick = tick.max(self.tick);
        let ahead = tick - self.tick;
        // A slot's tick may be a slot farther, and must be within reach, too.
        let reach = ahead + (ahead >> (DIGIT_BITS - 1));
        let beyond = (reach | 1 << (DIGIT_BITS - 1)).ilog2() - (DIGIT_BITS - STEP_BITS);
        let level = beyond / STEP_BITS;
        let number = after(tick, level);
        let slot = level as usize * LEVEL_SLOTS + number as usize % LEVEL_SLOTS;
        (slot, number << (level * STEP_BITS))
    }

    /// The tick of an occupied slot.
    #[inline(always)]
    fn start_of(&self, slot: usize) -> u64 {
        let (level, digit) = (slot / LEVEL_SLOTS, slot % LEVEL_SLOTS);
        let coming = self.coming(level);
        let ahead = (digit as u64).wrapping_sub(coming) % LEVEL_SLOTS as u64;
        (coming + ahead) << (level as u32 * STEP_BITS)
    }

    /// Takes every entry out of a slot that the wheel has come to: nodes that are due are handed
    /// out, those that have moved to a later time go there. Whether the budget was enough.
    fn empty(&mut self, slot: usize, budget: &mut Budget, due: &mut Vec<u32>) -> bool {
        self.slots.prefetch((slot + 1) % SLOTS);
        if let Some(front) = self.slots.front(slot) {
            self.prefetch_all(front.entries());
        }
        while let Some(front) = self.slots.front(slot) {
            self.prefetch_all(self.slots.behind(&front));
            for (done, &node) in front.entries().iter().enumerate() {
                if budget.fires == 0 || budget.moves == 0 {
                    self.slots.remove_entries(slot, done);
                    return false;
                }
                self.decide(node, slot, budget, due);
            }
            self.remove_front(slot, front.chunk);
        }
        true
    }

    /// What becomes of a node whose entry in a slot is taken out.
    #[inline(always)]
    fn decide(&mut self, node: u32, slot: usize, budget: &mut Budget, due: &mut Vec<u32>) {
        let known = self.nodes[node as usize];
        if slot_at(known) != Some(slot) {
            budget.moves -= 1;
            self.stale -= 1;
            return;
        }
        self.nodes[node as usize] = 0;
        let Some(slot) = aim_at(known) else {
            budget.moves -= 1;
            return;
        };
        let start = self.start_of(slot);
        if start <= budget.target {
            budget.fires -= 1;
            self.armed -= 1;
            due.push(node);
        } else {
            budget.moves -= 1;
            self.file(node, slot, start);
        }
    }

    /// Looks through some chunks for stale entries, slot by slot, and drops them: in turn each is
    /// taken from the front of its queue, and what is not stale goes to the back.
    ///
    /// Called for each entry that turns stale while more than half as many are as there are nodes.
    /// All chunks have had their turn before as many more have been added as a third of them, and
    /// so there are never more stale entries than nodes.
    #[cold]
    fn sweep(&mut self) {
        for _ in 0..SWEPT {
            if self.swept_last == 0 {
                self.swept = self.following(self.swept);
                self.swept_last = self.slots.close(self.swept);
            }
            let slot = self.swept;
            let front = self.slots.front(slot).expect("it is not swept to its end");
            self.prefetch_all(self.slots.behind(&front));
            self.remove_front(slot, front.chunk);
            let before = place(slot, self.slots.parity(slot) ^ 1);
            for &node in front.entries() {
                let known = self.nodes[node as usize];
                if place_at(known) == before {
                    let entry = self.push(node, slot);
                    self.nodes[node as usize] = (known - before) | entry;
                } else {
                    self.stale -= 1;
                }
            }
        }
    }

    /// The occupied slot after another, by number and around.
    ///
    /// # Panics
    /// If none is occupied.
    fn following(&self, slot: usize) -> usize {
        let (level, digit) = (slot / LEVEL_SLOTS, slot % LEVEL_SLOTS);
        if self.levels & 1 << level != 0 {
            let next = self.occupied[level].next((digit + 1) % LEVEL_SLOTS);
            if next > digit {
                return level * LEVEL_SLOTS + next;
            }
        }
        let above = self.levels & u32::MAX << level << 1;
        let level = if above != 0 { above } else { self.levels }.trailing_zeros() as usize;
        level * LEVEL_SLOTS + self.occupied[level].next(0)
    }

    #[inline(always)]
    fn prefetch_all(&self, nodes: &[u32]) {
        nodes.iter().for_each(|&node| self.prefetch(node));
    }

    /// Puts a node into a slot where it belongs, and that starts at that tick.
    #[inline(always)]
    fn file(&mut self, node: u32, slot: usize, start: u64) {
        self.nodes[node as usize] = aim(slot) | self.push(node, slot);
        self.soonest = self.soonest.min(start);
    }

    /// Puts an entry of a node at the end of a slot's queue. Where it stands.
    #[inline(always)]
    fn push(&mut self, node: u32, slot: usize) -> Node {
        if self.slots.is_empty(slot) {
            let level = slot / LEVEL_SLOTS;
            self.occupied[level].set(slot % LEVEL_SLOTS);
            self.levels |= 1 << level;
        }
        self.slots.push(slot, node);
        place(slot, self.slots.parity(slot))
    }

    /// Takes the first chunk, of that number, out of a slot's queue.
    fn remove_front(&mut self, slot: usize, chunk: u32) {
        self.slots.remove_front(slot);
        if chunk == self.swept_last {
            self.swept_last = 0;
        }
        if self.slots.is_empty(slot) {
            let level = slot / LEVEL_SLOTS;
            self.occupied[level].clear(slot % LEVEL_SLOTS);
            self.levels &= !(u32::from(self.occupied[level].is_empty()) << level);
        }
    }
}

/// The tick that a clock has reached, which is never [`NEVER_TICK`].
#[inline(always)]
fn reached(now: Instant) -> u64 {
    tick_of(now).min(NEVER_TICK - 1)
}

/// The first of a level's slots, numbered since time zero, that does not start before a tick.
#[inline(always)]
fn after(tick: u64, level: u32) -> u64 {
    (tick + ((1 << (level * STEP_BITS)) - 1)) >> (level * STEP_BITS)
}

/// Where a node belongs.
#[inline(always)]
fn aim(slot: usize) -> Node {
    (slot as Node + 1) << PLACE_BITS
}

/// The slot where a node belongs, if it has a deadline.
#[inline(always)]
fn aim_at(known: Node) -> Option<usize> {
    (known as usize >> PLACE_BITS).checked_sub(1)
}

/// Where an entry stands: its slot, and the parity that it had then. Never zero.
#[inline(always)]
fn place(slot: usize, parity: Node) -> Node {
    (slot as Node + 1) << 1 | parity
}

#[inline(always)]
fn place_at(known: Node) -> Node {
    known & ((1 << PLACE_BITS) - 1)
}

#[inline(always)]
fn slot_at(known: Node) -> Option<usize> {
    (place_at(known) as usize >> 1).checked_sub(1)
}

/// Whether a node has a deadline.
#[inline(always)]
fn is_armed(known: Node) -> bool {
    aim_at(known).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;
    use crate::time::Span;
    use proptest::prelude::*;
    use std::collections::{BTreeMap, BTreeSet};

    const TICK_NS: u64 = 1 << TICK_BITS;

    fn at(nanos: u64) -> Instant {
        Instant::from_nanos(nanos)
    }

    impl Wheel {
        /// When `node` is to fire, if it is.
        fn deadline(&self, node: u32) -> Option<Instant> {
            let slot = aim_at(self.nodes[node as usize])?;
            Some(Instant::from_nanos(self.start_of(slot) << TICK_BITS))
        }

        /// That queues, nodes, bitmaps and numbers agree: every node that stands somewhere has an
        /// entry there, all others are stale and counted, no slot lies behind.
        fn check(&self) {
            let (mut entries, mut standing) = (0, BTreeSet::<u32>::new());
            let filed = self.slots.check();
            let digits = |level: usize| {
                let slots = filed.keys().filter(|slot| **slot / LEVEL_SLOTS == level);
                slots.map(|slot| slot % LEVEL_SLOTS).collect::<Vec<_>>()
            };
            for level in 0..LEVELS {
                let (bitmap, digits) = (&self.occupied[level], digits(level));
                assert_eq!(self.levels >> level & 1 == 1, !digits.is_empty());
                assert_eq!(bitmap.is_empty(), digits.is_empty());
                for (at, &digit) in digits.iter().enumerate() {
                    let after = digits.get(at + 1).unwrap_or(&digits[0]);
                    assert_eq!(bitmap.next((digit + 1) % LEVEL_SLOTS), *after);
                }
            }
            for (&slot, queue) in &filed {
                assert!(self.start_of(slot) >= self.tick, "{slot}");
                let here = |node: &&u32| slot_at(self.nodes[**node as usize]) == Some(slot);
                standing.extend(queue.iter().filter(here));
                entries += queue.len();
            }
            assert_eq!(standing.len(), self.nodes.iter().filter(|&&node| node != 0).count());
            assert_eq!(entries, standing.len() + self.stale as usize);
            assert!(self.stale as usize <= self.nodes.len(), "{} stale", self.stale);
            let armed = (0..self.nodes.len()).filter(|&n| self.deadline(n as u32).is_some());
            assert_eq!(armed.count(), self.len());
        }

        /// The latest that a node may fire that is armed now.
        fn latest(&self, deadline: u64) -> u64 {
            let ahead = deadline.saturating_sub(self.tick << TICK_BITS);
            deadline.div_ceil(TICK_NS) * TICK_NS + ahead / 255
        }
    }

    fn fired(wheel: &mut Wheel, now: Instant) -> Vec<u32> {
        let mut due = Vec::new();
        wheel.expire(now, usize::MAX, &mut due);
        due
    }

    #[test]
    fn a_node_fires_at_its_deadline_or_a_little_later() {
        for deadline in [1, TICK_NS, TICK_NS + 1, 1_000_000, 7_200_000_000_000, 1 << 63] {
            let mut wheel = Wheel::new(1, Instant::ZERO);
            let latest = wheel.latest(deadline);
            wheel.arm(0, at(deadline));
            assert_eq!(fired(&mut wheel, at(deadline - 1)), [0; 0], "{deadline}");
            assert!(wheel.deadline(0).is_some_and(|due| at(deadline) <= due && due <= at(latest)));
            assert_eq!(fired(&mut wheel, at(latest)), [0], "{deadline}");
            assert_eq!((wheel.len(), wheel.deadline(0), wheel.next()), (0, None, Instant::NEVER));
        }
    }

    #[test]
    fn how_long_nothing_happened_before_makes_a_node_no_less_exact() {
        let mut wheel = Wheel::new(2, Instant::ZERO);
        wheel.arm(0, at(7_200_000_000_000));
        let now = Instant::ZERO + Span::from_secs(3600);
        wheel.advance(now);
        wheel.arm(1, now + Span::from_millis(200));
        assert_eq!(fired(&mut wheel, now + Span::from_millis(199)), [0; 0]);
        assert_eq!(fired(&mut wheel, now + Span::from_millis(201)), [1]);
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
            fired(&mut wheel, later + Span::from_millis(300)),
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
        assert!(calls <= 10_000 / 64 + 1, "{calls}");
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
        let places = [0, 1].map(|node| slot_at(wheel.nodes[node]));
        wheel.arm(0, late);
        wheel.cancel(1);
        assert_eq!([0, 1].map(|node| slot_at(wheel.nodes[node])), places);
        assert_eq!((wheel.deadline(1), wheel.len(), wheel.stale), (None, 1, 0));
        assert!(wheel.deadline(0).is_some_and(|deadline| deadline >= late));
        assert_eq!(fired(&mut wheel, soon + Span::from_millis(2)), [0; 0]);
        wheel.check();
        assert_eq!(wheel.nodes[1], 0);
        assert_eq!(fired(&mut wheel, late + Span::from_millis(300)), [0]);
    }

    /// An idle connection sends now and then: from its keepalive to a retransmission and back, into
    /// the same slot of the far future each time.
    #[test]
    fn what_moves_to_and_fro_leaves_no_more_stale_entries_than_there_are_nodes() {
        const COUNT: u32 = 100;
        let mut wheel = Wheel::new(COUNT, Instant::ZERO);
        let (mut now, mut rng) = (Instant::ZERO, Rng::new(7));
        for _ in 0..200_000 {
            let node = rng.below(u64::from(COUNT)) as u32;
            wheel.arm(node, now + Span::from_millis(200));
            wheel.arm(node, now + Span::from_secs(7200));
            now += Span::from_millis(rng.below(20));
            assert_eq!(fired(&mut wheel, now), [0; 0]);
            assert!(wheel.stale <= COUNT, "{}", wheel.stale);
        }
        wheel.check();
        assert_eq!(fired(&mut wheel, now + Span::from_secs(7260)).len(), COUNT as usize);
    }

    #[test]
    fn moving_ever_earlier_leaves_no_more_stale_entries_than_there_are_nodes() {
        for count in [1, 2, 3, 50, 1000] {
            let mut wheel = Wheel::new(count, Instant::ZERO);
            for round in (1..50).rev() {
                for node in 0..count {
                    let spread = u64::from(node) * 7 * TICK_NS;
                    wheel.arm(node, at(round * 50_000_000_000 + spread));
                    assert!(wheel.stale <= count, "{} of {count}", wheel.stale);
                }
                wheel.check();
            }
            assert_eq!(fired(&mut wheel, at(60_000_000_000)).len(), count as usize);
        }
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
        /// The model keeps each node's deadline and the latest that it may fire. A call with a high
        /// limit must hand out all those that may not be later; one with a low limit, some. Nothing
        /// comes early.
        #[test]
        fn the_wheel_does_what_a_sorted_map_does(
            start in 0..1u64 << 62,
            acts in prop::collection::vec(act(), 1..120),
        ) {
            let mut now = start;
            let mut wheel = Wheel::new(40, at(now));
            let mut model: BTreeMap<u32, (u64, u64)> = BTreeMap::new();
            for act in acts {
                match act {
                    Act::Arm(node, span) => {
                        // Mostly ahead, sometimes already past.
                        let deadline = (now + span).saturating_sub(TICK_NS);
                        wheel.arm(node, at(deadline));
                        model.insert(node, (deadline, wheel.latest(deadline)));
                    }
                    Act::ArmMany(span) => (0..30).for_each(|node| {
                        wheel.arm(node, at(now + span));
                        model.insert(node, (now + span, wheel.latest(now + span)));
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
                            let known = model.remove(&node);
                            prop_assert!(known.is_some_and(|(deadline, _)| deadline <= now));
                        }
                        let overdue = model.values().any(|&(_, latest)| latest <= now);
                        prop_assert!(limit != 1000 || !overdue, "{model:?} at {now}");
                    }
                }
                wheel.check();
                prop_assert_eq!(wheel.len(), model.len());
                for node in 0..40 {
                    match (wheel.deadline(node), model.get(&node)) {
                        (Some(due), Some(&(deadline, latest))) => {
                            prop_assert!(at(deadline) <= due.max(at(now)) && due <= at(latest));
                        }
                        (due, known) => prop_assert!(due.is_none() && known.is_none()),
                    }
                }
                match model.values().map(|known| known.1).min() {
                    None => prop_assert_eq!(wheel.next(), Instant::NEVER),
                    Some(first) => prop_assert!(wheel.next().as_nanos() <= first.max(now)),
                }
            }
        }

        #[test]
        fn nodes_armed_at_one_time_fire_level_by_level_in_order_of_their_slots(
            deadlines in prop::collection::vec(0..1u64 << 45, 1..60),
            jump in 0..1u64 << 46,
        ) {
            let mut wheel = Wheel::new(60, Instant::ZERO);
            let slot_of = |nanos| wheel.slot_of(tick_after(at(nanos)));
            let slots: Vec<(usize, u64)> = deadlines.iter().map(|&nanos| slot_of(nanos)).collect();
            let orders = slots.iter().map(|&(slot, start)| (slot / LEVEL_SLOTS, start));
            let orders: Vec<(usize, u64)> = orders.collect();
            for (node, &deadline) in deadlines.iter().enumerate() {
                wheel.arm(node as u32, at(deadline));
            }
            let due = fired(&mut wheel, at(jump));
            prop_assert!(due.iter().map(|&node| orders[node as usize]).is_sorted());
        }
    }
}
