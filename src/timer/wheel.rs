//! A hierarchical timing wheel (Varghese and Lauck, scheme 7) with one node a connection and intrusive links.

use crate::time::Instant;

/// Deadlines of up to a fixed number of nodes, each at most once in the wheel.
pub struct Wheel {
    _now: Instant,
}

impl Wheel {
    /// A wheel for nodes `0..nodes`, starting at `now`. All memory is allocated here.
    pub fn new(_nodes: u32, now: Instant) -> Wheel {
        Wheel { _now: now }
    }

    /// Files `node` to fire at `at` or up to one tick later, never earlier; moves it if it is filed already. O(1).
    pub fn arm(&mut self, _node: u32, _at: Instant) {}

    /// Takes `node` out; nothing happens if it is not filed. O(1).
    pub fn cancel(&mut self, _node: u32) {}

    /// When `node` is filed to fire, if it is.
    pub fn deadline(&self, _node: u32) -> Option<Instant> {
        None
    }

    /// Moves the wheel to `now` and hands out nodes that are due, taking them out, at most `limit`; the rest stay due
    /// for the next call. The work is bounded whatever the time that went by. Answers through `due`, in order of tick.
    pub fn expire(&mut self, _now: Instant, _limit: usize, _due: &mut Vec<u32>) {}

    /// No node fires before this: the earliest deadline, or a lower bound of it. `NEVER` if the wheel is empty.
    pub fn next(&self) -> Instant {
        Instant::NEVER
    }

    /// Number of filed nodes.
    pub fn len(&self) -> usize {
        0
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
