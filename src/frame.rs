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
        let (umem, free) = Umem::new(frames, CHUNK_BYTES)?;
        Ok(Pool { umem, free })
    }

    /// Two pools of `frames` frames each over one memory, so that frames may move from one to the
    /// other.
    ///
    /// # Errors
    /// Not enough memory.
    pub fn pair(frames: u32) -> io::Result<(Pool, Pool)> {
        let (umem, mut free) = Umem::new(frames * 2, CHUNK_BYTES)?;
        let mut other = Vec::with_capacity(frames as usize * 2);
        other.extend(free.drain(frames as usize..));
        Ok((Pool { umem: umem.clone(), free }, Pool { umem, free: other }))
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

    /// Removes and answers the first `count` frames, in order.
    pub fn drain(&mut self, count: usize) -> impl Iterator<Item = Frame> + '_ {
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
    fn a_frame_may_move_between_paired_pools() {
        let (mut ours, mut theirs) = Pool::pair(2).unwrap();
        theirs.put(ours.take().unwrap());
        assert_eq!((ours.len(), theirs.len()), (1, 3));
    }
}
