//! Every byte back (RFC 862). The one behaviour that must remember what it received: each
//! connection has a ring of bytes from a fixed arena, a byte leaves it when its echo is
//! acknowledged, and what room is left is the window.

use super::Owes;

/// Bytes of a connection's ring, a power of two. Eleven full segments: more than the initial window
/// of ten.
pub const RING_BYTES: u32 = 16 * 1024;

/// Bound of the arena. It is address space until a connection touches it; 65,536 connections at a
/// time.
const ARENA_BYTES_MAX: usize = 1 << 30;

/// The arena, and which rings of it are free. The ring freed last is the next one taken: it is
/// warm, and untouched memory stays untouched.
pub struct Rings {
    arena: Box<[u8]>,
    free: Vec<u32>,
}

impl Rings {
    /// Rings for as many of `connections_max` as the arena's bound allows.
    pub fn new(connections_max: u32) -> Rings {
        let ring = RING_BYTES as usize;
        let rings = (connections_max as usize).min(ARENA_BYTES_MAX / ring);
        Rings {
            arena: vec![0; rings * ring].into_boxed_slice(),
            free: (0..rings as u32).rev().collect(),
        }
    }

    /// Rings that no connection holds.
    pub fn free(&self) -> usize {
        self.free.len()
    }

    fn ring(&self, ring: u32) -> &[u8] {
        let start = ring as usize * RING_BYTES as usize;
        &self.arena[start..start + RING_BYTES as usize]
    }

    fn ring_mut(&mut self, ring: u32) -> &mut [u8] {
        let start = ring as usize * RING_BYTES as usize;
        &mut self.arena[start..start + RING_BYTES as usize]
    }
}

/// A connection that holds a ring. The ring holds stream offsets `acked..received`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct State {
    ring: u32,
    closed: bool,
    acked: u64,
    received: u64,
}

impl State {
    /// Takes a ring; `None` when all are taken.
    pub fn new(rings: &mut Rings) -> Option<State> {
        Some(State { ring: rings.free.pop()?, closed: false, acked: 0, received: 0 })
    }

    /// # Panics
    /// If `data` is more than [`State::window`] promised: the engine's bug.
    pub fn received(&mut self, rings: &mut Rings, data: &[u8]) -> Owes {
        if self.closed {
            return Owes::NOTHING;
        }
        assert!(data.len() <= self.window() as usize, "the engine delivered past the window");
        let ring = rings.ring_mut(self.ring);
        let at = (self.received % u64::from(RING_BYTES)) as usize;
        let (tail, head) = data.split_at(data.len().min(ring.len() - at));
        ring[at..at + tail.len()].copy_from_slice(tail);
        ring[..head.len()].copy_from_slice(head);
        self.received += data.len() as u64;
        Owes::send(data.len() as u64)
    }

    pub fn acknowledged(&mut self, acked: u64) {
        assert!(acked <= self.received, "more was acknowledged than promised");
        self.acked = acked;
    }

    /// What was received is still echoed; what comes after is not.
    pub fn peer_closed(&mut self) -> Owes {
        self.closed = true;
        Owes::CLOSE
    }

    pub fn ended(self, rings: &mut Rings) {
        rings.free.push(self.ring);
    }

    pub fn payload(&self, rings: &Rings, offset: u64, out: &mut [u8]) {
        debug_assert!(self.acked <= offset && offset + out.len() as u64 <= self.received);
        super::pattern::repeat(rings.ring(self.ring), offset, out);
    }

    /// Room in the ring.
    pub fn window(&self) -> u32 {
        if self.closed {
            return u32::MAX;
        }
        RING_BYTES - (self.received - self.acked) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::pattern;
    use proptest::prelude::*;

    proptest! {
        /// Goal: whatever the sizes of segments and acknowledgments, every byte comes back, over
        /// many laps of the ring.
        #[test]
        fn every_byte_comes_back_whatever_the_segmentation(
            steps in prop::collection::vec((0usize..3000, 0u64..3000), 1..200),
        ) {
            let mut rings = Rings::new(2);
            let mut state = State::new(&mut rings).unwrap();
            for (arrive, acknowledge) in steps {
                let arrive = arrive.min(state.window() as usize);
                let mut data = vec![0; arrive];
                pattern::fill(0, state.received, &mut data);
                prop_assert_eq!(state.received(&mut rings, &data), Owes::send(arrive as u64));
                let mut back = vec![0; (state.received - state.acked) as usize];
                state.payload(&rings, state.acked, &mut back);
                prop_assert_eq!(pattern::mismatches(0, state.acked, &back), 0);
                state.acknowledged(state.acked + acknowledge.min(state.received - state.acked));
            }
        }
    }

    #[test]
    fn the_window_is_the_room_in_the_ring() {
        let mut rings = Rings::new(1);
        let mut state = State::new(&mut rings).unwrap();
        assert_eq!(state.window(), RING_BYTES);
        state.received(&mut rings, &vec![7; RING_BYTES as usize]);
        assert_eq!(state.window(), 0);
        state.acknowledged(100);
        assert_eq!(state.window(), 100);
    }

    #[test]
    fn rings_are_given_back_and_the_warm_one_is_taken_first() {
        let mut rings = Rings::new(2);
        let first = State::new(&mut rings).unwrap();
        let second = State::new(&mut rings).unwrap();
        assert!(State::new(&mut rings).is_none());
        second.ended(&mut rings);
        assert_eq!(State::new(&mut rings).unwrap().ring, second.ring);
        first.ended(&mut rings);
        assert_eq!(rings.free(), 1);
    }

    #[test]
    fn bytes_after_the_close_are_dropped_and_do_not_fill_the_ring() {
        let mut rings = Rings::new(1);
        let mut state = State::new(&mut rings).unwrap();
        state.received(&mut rings, b"abc");
        assert_eq!(state.peer_closed(), Owes::CLOSE);
        assert_eq!(state.received(&mut rings, &[0; 20_000]), Owes::NOTHING);
        let mut back = [0; 3];
        state.payload(&rings, 0, &mut back);
        assert_eq!(&back, b"abc");
    }
}
