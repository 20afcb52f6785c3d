//! Frames in our hands: the [`Pool`] they rest in and the [`Burst`] they travel in.
//!
//! A [`Frame`] is move-only, so it is in exactly one place: a pool, a burst, or lent to a device.
//! The pool is LIFO: the frame freed last, still warm in the cache, is the next one written.

pub use crate::sys::umem::{Frame, HEADROOM_BYTES, Umem};
use std::io;
use std::sync::Arc;

/// Frames handled together in one turn. 64 amortises the ring's cursor updates and keeps a burst's
/// headers in L1.
pub const BURST_FRAMES_MAX: usize = 64;

/// Size of a chunk in bytes: an Ethernet frame of MTU 1500 with the kernel's 256 bytes of XDP
/// headroom.
pub const CHUNK_BYTES: u32 = 2048;

/// Bytes of a chunk beside the IP datagram: the kernel's XDP headroom, and Ethernet with a tag.
const BESIDE_DATAGRAM_BYTES: u32 = 256 + 18;

/// Where free frames rest. Fixed in size from the start.
pub struct Pool {
    umem: Arc<Umem>,
    free: Vec<Frame>,
}

/// Up to [`BURST_FRAMES_MAX`] frames on their way between device and engine, in order of arrival.
#[derive(Default)]
pub struct Burst {
    frames: Vec<Frame>,
}

impl Pool {
    /// A pool of `frames` frames with memory of its own.
    ///
    /// # Errors
    /// Not enough memory.
    pub fn new(frames: u32) -> io::Result<Pool> {
        Pool::for_mtu(frames, 0)
    }

    /// A pool whose frames hold IP datagrams of `mtu` bytes, or of 1500 if that is more.
    ///
    /// # Errors
    /// Not enough memory.
    ///
    /// # Panics
    /// If no chunk holds such a datagram: above 32,494 bytes.
    pub fn for_mtu(frames: u32, mtu: u16) -> io::Result<Pool> {
        Pool::of_chunks(frames, chunk_bytes(mtu))
    }

    /// A pool of chunks of a given size.
    ///
    /// # Errors
    /// Not enough memory.
    ///
    /// # Panics
    /// On a size that [`Umem::new`] does not make.
    pub fn of_chunks(frames: u32, chunk_bytes: u32) -> io::Result<Pool> {
        let (umem, free) = Umem::new(frames, chunk_bytes)?;
        Ok(Pool { umem, free })
    }

    /// Two pools of `frames` frames each over one memory, so that frames may move from one to the
    /// other.
    ///
    /// # Errors
    /// Not enough memory.
    pub fn pair(frames: u32) -> io::Result<(Pool, Pool)> {
        Pool::pair_for_mtu(frames, 0)
    }

    /// [`Pool::pair`] for datagrams of `mtu` bytes, as [`Pool::for_mtu`].
    ///
    /// # Errors
    /// Not enough memory.
    ///
    /// # Panics
    /// As [`Pool::for_mtu`].
    pub fn pair_for_mtu(frames: u32, mtu: u16) -> io::Result<(Pool, Pool)> {
        let mut pools = Pool::several(2, frames, mtu)?;
        let second = pools.swap_remove(1);
        Ok((pools.swap_remove(0), second))
    }

    /// `count` pools of `frames` frames each over one memory, for datagrams as [`Pool::for_mtu`].
    ///
    /// # Errors
    /// Not enough memory.
    ///
    /// # Panics
    /// As [`Pool::for_mtu`], or if `count` is zero.
    pub fn several(count: usize, frames: u32, mtu: u16) -> io::Result<Vec<Pool>> {
        let (umem, mut all) = Umem::new(frames * count as u32, chunk_bytes(mtu))?;
        let mut pool = |_| {
            // What moves between pools is paid for, but two that trade a burst are out of balance
            // till then.
            let mut free = Vec::with_capacity(frames as usize * 2);
            free.extend(all.drain(all.len() - frames as usize..));
            Pool { umem: umem.clone(), free }
        };
        Ok((0..count).map(&mut pool).collect())
    }

    /// The warmest free frame, or `None` when all are in use; the caller counts what it could not
    /// do.
    pub fn take(&mut self) -> Option<Frame> {
        self.free.pop()
    }

    /// Takes a frame back.
    ///
    /// # Panics
    /// If the frame is of another memory.
    pub fn put(&mut self, frame: Frame) {
        assert!(self.umem.owns(&frame));
        self.free.push(frame);
    }

    /// Moves the `count` warmest free frames to the end of `to`.
    ///
    /// # Panics
    /// If there are fewer.
    pub fn take_many(&mut self, count: usize, to: &mut Vec<Frame>) {
        to.extend(self.free.drain(self.free.len() - count..));
    }

    /// [`Pool::put`] for all of `frames`.
    ///
    /// # Panics
    /// If one of them is of another memory.
    pub fn put_all(&mut self, frames: &mut Vec<Frame>) {
        assert!(frames.iter().all(|frame| self.umem.owns(frame)));
        self.free.append(frames);
    }

    /// Number of free frames.
    pub fn len(&self) -> usize {
        self.free.len()
    }

    pub fn is_empty(&self) -> bool {
        self.free.is_empty()
    }

    /// The memory behind the frames, for a device to register.
    pub fn umem(&self) -> &Arc<Umem> {
        &self.umem
    }
}

/// The smallest chunk that holds datagrams of `mtu` bytes.
fn chunk_bytes(mtu: u16) -> u32 {
    CHUNK_BYTES.max((u32::from(mtu) + BESIDE_DATAGRAM_BYTES).next_power_of_two())
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.umem.bury(self.free.drain(..));
    }
}

impl Burst {
    pub fn new() -> Burst {
        Burst { frames: Vec::with_capacity(BURST_FRAMES_MAX) }
    }

    /// Number of frames that still fit.
    pub fn room(&self) -> usize {
        BURST_FRAMES_MAX - self.frames.len()
    }

    /// Adds a frame at the end.
    ///
    /// # Panics
    /// If the burst is full: whoever fills it asks for `room` first.
    pub fn push(&mut self, frame: Frame) {
        assert!(self.frames.len() < BURST_FRAMES_MAX);
        self.frames.push(frame);
    }

    /// Moves the first `count` frames of `from` to the end.
    ///
    /// # Panics
    /// If there are fewer, or more than fit.
    pub fn fill(&mut self, from: &mut Vec<Frame>, count: usize) {
        assert!(count <= self.room());
        shift(from, &mut self.frames, count);
    }

    /// Moves the first `count` frames to the end of `to`.
    ///
    /// # Panics
    /// If there are fewer.
    pub fn pour(&mut self, to: &mut Vec<Frame>, count: usize) {
        shift(&mut self.frames, to, count);
    }

    /// Removes and answers the first `count` frames, in order.
    pub fn drain(&mut self, count: usize) -> impl ExactSizeIterator<Item = Frame> + '_ {
        self.frames.drain(..count)
    }

    pub fn len(&self) -> usize {
        self.frames.len()
    }

    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    pub fn frames(&self) -> &[Frame] {
        &self.frames
    }

    pub fn frames_mut(&mut self) -> &mut [Frame] {
        &mut self.frames
    }
}

/// Moves the first `count` frames from one to the end of the other: as one block, if they are all.
fn shift(from: &mut Vec<Frame>, to: &mut Vec<Frame>, count: usize) {
    match count == from.len() {
        true => to.append(from),
        false => to.extend(from.drain(..count)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_frame_freed_last_is_taken_first() {
        let mut pool = Pool::new(4).unwrap();
        let (mut first, second) = (pool.take().unwrap(), pool.take().unwrap());
        first.reset(3);
        first.bytes_mut().copy_from_slice(b"abc");
        pool.put(second);
        pool.put(first);
        assert_eq!(pool.take().unwrap().bytes(), b"abc");
    }

    #[test]
    fn a_chunk_grows_with_the_mtu_and_never_below_that_of_ethernet() {
        let chunk = |mtu| Pool::for_mtu(1, mtu).unwrap().umem().chunk_bytes();
        assert_eq!(
            [0, 1500, 1774, 1775, 9000, 9216].map(chunk),
            [2048, 2048, 2048, 4096, 16_384, 16_384]
        );
    }

    #[test]
    fn a_frame_may_move_between_paired_pools() {
        let (mut ours, mut theirs) = Pool::pair(2).unwrap();
        theirs.put(ours.take().unwrap());
        assert_eq!((ours.len(), theirs.len()), (1, 3));
    }
}
