//! A hierarchical timing wheel (Varghese and Lauck, scheme 7) with one node a connection and
//! intrusive links.
//!
//! Owns when a node fires; knows nothing of what a node is. Time is cut into ticks; six levels of
//! 256 slots cover the whole 64-bit clock. A node stands at the level of the highest base-256 digit
//! in which its tick differs from the wheel's; when the wheel's tick enters that slot, the slot's
//! nodes cascade to lower levels:
//!
//! ```text
//!   level 0: 256 slots of 65.5 µs   level 1: of 16.8 ms   level 2: of 4.3 s   ...   level 5
//! ```
//!
//! Invariant: no occupied slot lies before the wheel's tick, so the first set bit of a level's
//! bitmap is its earliest slot, and idle time is jumped over, never walked. Slots are the [`SLOTS`]
//! links after the first: a list is a ring through its slot, and linking has no special case.

use crate::sys::pages::zeroed;
use crate::time::{Instant, TICK_BITS, tick_after};

/// A finer tick would only spread nodes over more slots; and 48 bits of ticks are six digits of
/// eight bits.
///
/// 256 slots a level: a 1 s RTO cascades once and a 60 s TIME-WAIT twice (with 64 slots, twice and
/// three times).
const DIGIT_BITS: u32 = 8;
const LEVEL_SLOTS: usize = 1 << DIGIT_BITS;
const LEVELS: usize = ((u64::BITS - TICK_BITS) / DIGIT_BITS) as usize;
const SLOTS: usize = LEVELS * LEVEL_SLOTS;
/// The link of the first node.
const NODES_FROM: usize = head(SLOTS);
/// The tick that no clock reaches.
const NEVER_TICK: u64 = 1 << (u64::BITS - TICK_BITS);
/// Nodes cascaded for each node that one call may hand out: a node moves down at most five times in
/// its life, mostly twice, so with four the cascades never fall behind, and a slot of a million
/// nodes is no stall.
const MOVES_PER_DUE: usize = 4;
/// In `next` of a node that is not filed; the link with this number stands for no slot and no node.
/// Zero, so that the memory of nodes that never were is not touched.
const UNFILED: u32 = 0;

/// Deadlines of up to a fixed number of nodes, each at most once in the wheel.
pub struct Wheel {
    /// One that is not used, the slots' ring heads, then the nodes.
    links: Vec<Link>,
    /// One bit a slot: set while its ring holds a node.
    occupied: [[u64; LEVEL_SLOTS / 64]; LEVELS],
    /// Everything before this tick has been handed out.
    tick: u64,
    /// Nothing is to be done before this tick. May be too early after a cancel, never too late.
    soonest: u64,
    filed: u32,
}

/// A place in a slot's ring and the exact deadline of the node there, in two halves.
type Link = [u32; 4];

const PREV: usize = 0;
const NEXT: usize = 1;
const AT: usize = 2;

impl Wheel {
    /// Bytes of memory a node.
    pub const NODE_BYTES: usize = size_of::<Link>();

    /// A wheel for nodes `0..nodes`, starting at `now`. All memory is allocated here; a node's is
    /// touched when it is armed for the first time.
    ///
    /// # Panics
    /// If links of 32 bits can't count that many nodes.
    pub fn new(nodes: u32, now: Instant) -> Wheel {
        assert!(nodes < u32::MAX - NODES_FROM as u32);
        let mut links: Vec<Link> = zeroed(NODES_FROM + nodes as usize);
        for slot in 0..SLOTS {
            let head = head(slot);
            (links[head][PREV], links[head][NEXT]) = (head as u32, head as u32);
        }
        Wheel {
            links,
            occupied: [[0; LEVEL_SLOTS / 64]; LEVELS],
            tick: now.as_nanos() >> TICK_BITS,
            soonest: NEVER_TICK,
            filed: 0,
        }
    }

    /// Touches the memory of nodes, so that no page fault falls into a run.
    pub fn touch(&mut self, nodes: std::ops::Range<u32>) {
        for node in nodes {
            let index = self.index(node);
            std::hint::black_box(&mut self.links[index])[PREV] = 0;
        }
    }

    /// Files `node` to fire at `at` or up to one tick later, never earlier; moves it if it is filed
    /// already. A time that has passed is due at the next [`Wheel::expire`]; `NEVER` only takes the
    /// node out. O(1).
    #[inline(always)]
    pub fn arm(&mut self, node: u32, at: Instant) {
        let index = self.index(node);
        if self.links[index][NEXT] != UNFILED {
            self.unlink(index);
        }
        let nanos = at.as_nanos();
        (self.links[index][AT], self.links[index][AT + 1]) = (nanos as u32, (nanos >> 32) as u32);
        if tick_after(at) < NEVER_TICK {
            let tick = self.link(index);
            self.soonest = self.soonest.min(tick);
        }
    }

    /// Takes `node` out; nothing happens if it is not filed. O(1).
    #[inline]
    pub fn cancel(&mut self, node: u32) {
        let index = self.index(node);
        if self.links[index][NEXT] != UNFILED {
            self.unlink(index);
        }
    }

    /// Moves the wheel to `now` and hands out nodes that are due, taking them out, at most `limit`;
    /// the rest stay due for the next call. The work is bounded whatever the time that went by:
    /// cascading is, too, and then nodes may wait for the next call although `limit` was not
    /// reached. Answers through `due`, in order of tick.
    pub fn expire(&mut self, now: Instant, limit: usize, due: &mut Vec<u32>) {
        let target = now.as_nanos() >> TICK_BITS;
        let mut fires = limit;
        let mut moves = limit.saturating_mul(MOVES_PER_DUE);
        while self.soonest <= target {
            let Some((slot, start)) = self.earliest() else {
                self.soonest = NEVER_TICK;
                break;
            };
            self.soonest = start;
            if start > target {
                break;
            }
            self.tick = self.tick.max(start);
            let budget = if slot < LEVEL_SLOTS { &mut fires } else { &mut moves };
            let head = head(slot);
            while self.links[head][NEXT] as usize != head {
                if *budget == 0 {
                    return;
                }
                *budget -= 1;
                let index = self.links[head][NEXT] as usize;
                self.unlink(index);
                if slot < LEVEL_SLOTS {
                    due.push((index - NODES_FROM) as u32);
                } else {
                    self.link(index);
                }
            }
        }
        // No slot at or before the target is occupied any more, so the wheel may go there at once.
        self.tick = self.tick.max(target);
    }

    /// When `node` is filed to fire, if it is: as it was armed, not rounded to ticks.
    pub fn deadline(&self, node: u32) -> Option<Instant> {
        let index = self.index(node);
        (self.links[index][NEXT] != UNFILED).then(|| self.at_of(index))
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

    /// Number of filed nodes.
    pub fn len(&self) -> usize {
        self.filed as usize
    }

    pub fn is_empty(&self) -> bool {
        self.filed == 0
    }

    /// The earliest occupied slot and its first tick; of two that start together the higher, which
    /// must cascade first.
    fn earliest(&self) -> Option<(usize, u64)> {
        let mut best = None;
        for (level, words) in self.occupied.iter().enumerate() {
            let Some(word) = words.iter().position(|&bits| bits != 0) else { continue };
            let digit = word * 64 + words[word].trailing_zeros() as usize;
            let shift = level as u32 * DIGIT_BITS;
            let above = self.tick >> shift >> DIGIT_BITS;
            let start = (above << DIGIT_BITS | digit as u64) << shift;
            if best.is_none_or(|(_, earliest)| start <= earliest) {
                best = Some((level * LEVEL_SLOTS + digit, start));
            }
        }
        best
    }

    /// Puts the node at `index` at the end of the ring where its deadline belongs; answers that
    /// slot's first tick.
    #[inline(always)]
    fn link(&mut self, index: usize) -> u64 {
        let tick = tick_after(self.at_of(index)).max(self.tick);
        let differing = tick ^ self.tick;
        let level = (differing | 1).ilog2() / DIGIT_BITS;
        let shift = level * DIGIT_BITS;
        let digit = (tick >> shift) as usize % LEVEL_SLOTS;
        let slot = level as usize * LEVEL_SLOTS + digit;
        let head = head(slot);
        let last = self.links[head][PREV];
        (self.links[index][PREV], self.links[index][NEXT]) = (last, head as u32);
        self.links[last as usize][NEXT] = index as u32;
        self.links[head][PREV] = index as u32;
        self.occupied[level as usize][digit / 64] |= 1 << (digit % 64);
        self.filed += 1;
        tick >> shift << shift
    }

    #[inline]
    fn unlink(&mut self, index: usize) {
        let [prev, next, ..] = self.links[index];
        self.links[prev as usize][NEXT] = next;
        self.links[next as usize][PREV] = prev;
        self.links[index][NEXT] = UNFILED;
        if prev == next {
            // Only the slot itself is left in its ring.
            let slot = prev as usize - head(0);
            let (level, digit) = (slot / LEVEL_SLOTS, slot % LEVEL_SLOTS);
            self.occupied[level][digit / 64] &= !(1 << (digit % 64));
        }
        self.filed -= 1;
    }

    fn index(&self, node: u32) -> usize {
        node as usize + NODES_FROM
    }

    /// The deadline of the node at `index`.
    #[inline]
    fn at_of(&self, index: usize) -> Instant {
        let [_, _, low, high] = self.links[index];
        Instant::from_nanos(u64::from(high) << 32 | u64::from(low))
    }
}

/// The link that is the head of a slot's ring.
#[inline]
const fn head(slot: usize) -> usize {
    slot + 1
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

    #[derive(Clone, Debug)]
    enum Act {
        Arm(u32, u64),
        Cancel(u32),
        Pass(u64, usize),
    }

    fn act() -> impl Strategy<Value = Act> {
        let span =
            prop_oneof![0..4 * TICK_NS, 0..1u64 << 30, 0..1u64 << 36, 0..1u64 << 48, 0..1u64 << 62];
        let node = 0..40u32;
        prop_oneof![
            5 => (node.clone(), span.clone()).prop_map(|(node, span)| Act::Arm(node, span)),
            1 => node.prop_map(Act::Cancel),
            3 => (span, prop_oneof![0..4usize, Just(1000)])
                .prop_map(|(span, limit)| Act::Pass(span, limit)),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
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
