//! What a connection needs only while more than a segment is under way: the flight it has sent and
//! what it holds out of order. Most connections of a load test never do, so these blocks are few,
//! and lent on demand.
//!
//! Invariant: a block is with one connection or free. A connection that finds none free goes on
//! without: it sends a segment at a time and drops what comes out of order. `refused` counts that.

use super::Tcb;
use super::flight::Flight;
use super::reassembly::Held;

/// No path: in `Tcb::path`.
pub(super) const NONE: u16 = u16::MAX;

/// Both directions of one connection's data path.
#[derive(Clone, Debug, Default)]
pub(super) struct Path {
    pub flight: Flight,
    #[expect(dead_code)]
    pub held: Held,
}

/// All blocks of an engine, allocated at start.
#[derive(Debug)]
pub struct Paths {
    blocks: Vec<Path>,
    free: Vec<u16>,
    /// Connections that found no block free.
    pub refused: u64,
}

impl Paths {
    /// `count` blocks, touched now.
    ///
    /// # Panics
    /// If there are so many that a block's number would not fit.
    pub fn new(count: u16) -> Paths {
        assert!(count < NONE);
        let blocks = vec![Path::default(); usize::from(count)];
        Paths { blocks, free: (0..count).rev().collect(), refused: 0 }
    }

    /// The path of a connection, if it has one.
    pub(super) fn of(&mut self, tcb: &Tcb) -> Option<&mut Path> {
        self.blocks.get_mut(usize::from(tcb.path))
    }

    /// The path of a connection, which is given one if it has none.
    pub(super) fn lend(&mut self, tcb: &mut Tcb) -> Option<&mut Path> {
        if tcb.path == NONE {
            let Some(number) = self.free.pop() else {
                self.refused += 1;
                return None;
            };
            tcb.path = number;
        }
        self.blocks.get_mut(usize::from(tcb.path))
    }

    /// Takes the path of a connection back: it has no more use for one.
    pub fn reclaim(&mut self, tcb: &mut Tcb) {
        if let Some(path) = self.blocks.get_mut(usize::from(tcb.path)) {
            *path = Path::default();
            self.free.push(tcb.path);
            tcb.path = NONE;
        }
    }

    /// Blocks that no connection has.
    pub fn free(&self) -> usize {
        self.free.len()
    }

    /// All blocks.
    pub fn max(&self) -> usize {
        self.blocks.len()
    }
}
