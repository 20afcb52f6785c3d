//! What a connection needs only while more than a segment is under way: the flight it has sent and
//! what it holds out of order. Most connections of a load test never do, so these blocks are few,
//! and lent on demand.
//!
//! Invariant: a block is with one connection or free. A connection that finds none free goes on
//! without: it sends a segment at a time and drops what comes out of order. `Tally::refused` counts
//! that.

use super::flight::Flight;
use super::pages::Pages;
use super::reassembly::Held;
use super::tcb::flag;
use super::urgent::Urgent;
use super::{Config, State, Tcb};

/// No path: in `Tcb::path`.
pub(super) const NONE: u16 = u16::MAX;

/// Both directions of one connection's data path.
#[derive(Clone, Debug, Default)]
pub(super) struct Path {
    pub flight: Flight,
    pub held: Held,
    pub urgent: Urgent,
}

/// All blocks of an engine, allocated at start.
#[derive(Debug)]
pub struct Paths {
    pub(super) blocks: Vec<Path>,
    free: Vec<u16>,
    pub(super) pages: Pages,
    pub tally: Tally,
}

/// What happened to the flights, for the engine's counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Times that a connection found no block free.
    pub refused: u64,
    /// Segments sent again in fast recovery, and after a timeout.
    pub fast_retransmissions: u64,
    pub slow_retransmissions: u64,
    pub sack_recoveries: u64,
    pub reno_recoveries: u64,
    /// Segments sent again that were lost again.
    pub retransmissions_lost: u64,
    pub tail_probes: u64,
    /// Losses that a tail loss probe repaired.
    pub tail_recoveries: u64,
    pub dsacks: u64,
    /// SACK blocks that can't be true, or that there was no place for.
    pub sacks_discarded: u64,
    /// Peers that discarded what they had reported to have.
    pub reneged: u64,
}

impl Paths {
    /// `count` blocks, touched now, and the pages that the configuration grants them.
    ///
    /// # Panics
    /// If there are so many that a block's number would not fit.
    pub fn new(count: u16, config: &Config) -> Paths {
        assert!(count < NONE);
        let blocks = vec![Path::default(); usize::from(count)];
        let pages = Pages::new(count, config.window, config.reassembly_bytes);
        let free = (0..count).rev().collect();
        Paths { blocks, free, pages, tally: Tally::default() }
    }

    /// Bytes of all of them, and of the memory for what arrives out of order.
    pub fn bytes(&self) -> usize {
        size_of_val(&*self.blocks) + self.pages.bytes()
    }

    /// The path of a connection, if it has one.
    pub(super) fn of(&mut self, tcb: &Tcb) -> Option<&mut Path> {
        self.blocks.get_mut(usize::from(tcb.path))
    }

    /// The flight of a connection, if it has begun one, and where to count what becomes of it.
    pub(super) fn flight(&mut self, tcb: &Tcb) -> Option<(&mut Flight, &mut Tally)> {
        let path = self.blocks.get_mut(usize::from(tcb.path))?;
        path.flight.is_begun().then_some((&mut path.flight, &mut self.tally))
    }

    /// The path of a connection, which is given one if it has none.
    pub(super) fn lend(&mut self, tcb: &mut Tcb) -> Option<&mut Path> {
        if tcb.path == NONE {
            let Some(number) = self.free.pop() else {
                self.tally.refused += 1;
                return None;
            };
            tcb.path = number;
        }
        self.blocks.get_mut(usize::from(tcb.path))
    }

    /// Takes the path of a connection back: it has no more use for one.
    #[inline]
    pub fn reclaim(&mut self, tcb: &mut Tcb) {
        if tcb.has_path() {
            self.take_back(tcb);
        }
    }

    #[cold]
    fn take_back(&mut self, tcb: &mut Tcb) {
        self.give_back(tcb);
        self.forget_held(tcb);
        if let Some(path) = self.blocks.get_mut(usize::from(tcb.path)) {
            *path = Path::default();
            self.free.push(tcb.path);
            tcb.path = NONE;
        }
    }

    /// Law 3's part: the scoreboard of a connection covers what it has in flight, no more and no
    /// less.
    ///
    /// # Panics
    /// If not.
    pub fn check_flight(&self, tcb: &Tcb) {
        if let Some(path) = self.blocks.get(usize::from(tcb.path))
            && path.flight.is_begun()
            && tcb.state() != State::Closed
        {
            path.flight.board.check(tcb.snd_una, tcb.snd_max);
            assert_eq!(tcb.snd_nxt, tcb.snd_max, "a flight has no number to fall back to");
            assert_eq!(path.flight.board.lost() > 0, tcb.has(flag::LOST));
        }
    }

    /// Blocks that no connection has.
    pub fn free(&self) -> usize {
        self.free.len()
    }

    /// Law 2 for pages: those free and those of paths are all.
    ///
    /// # Panics
    /// If not, or if a path without ranges has one: a bug of ours.
    pub fn check(&self) {
        let holding = |&(_, path): &(u16, &Path)| path.held.has_pages();
        let holding = (0..).zip(&self.blocks).filter(holding);
        let taken: usize = holding.map(|(number, _)| self.pages.taken(number)).sum();
        assert_eq!(self.pages.free() + taken, self.pages.max(), "pages free and taken are all");
    }

    /// All blocks.
    pub fn max(&self) -> usize {
        self.blocks.len()
    }
}
