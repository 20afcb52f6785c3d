//! Packet memory: one mapping cut into chunks, and the [`Frame`] that owns a chunk.
//!
//! The invariant everything rests on: **a chunk is named by at most one live `Frame`, or lent to
//! the kernel, never both.** `Umem::new` mints each chunk's frame once; a frame can't be cloned;
//! [`Lent`] takes a frame by value when the kernel gets the chunk and gives a frame back only for a
//! chunk whose bit says that it is lent. So two `Frame`s never alias, and no reference of ours
//! exists to a chunk that the kernel may write.
//!
//! The mapping lives until every frame of it has been [`buried`](Umem::bury). A frame that is
//! dropped elsewhere keeps the mapping alive for ever: a leak, never a dangling pointer.

use std::io;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// Free bytes kept before a packet that we write, so that a tag can be pushed. The kernel writes
/// received packets after its own XDP headroom of 256 bytes.
pub const HEADROOM_BYTES: u16 = 64;

/// One mapping of packet memory. Shared by the pools that hold its frames and by the sockets it is
/// registered with.
pub struct Umem {
    base: NonNull<u8>,
    /// Chunks are 2^this bytes: where a packet is, is found by shifts.
    chunk_shift: u32,
    chunks: u32,
    buried: AtomicU32,
}

/// The owner of one chunk: where the packet starts in it, how long it is, and how many workers have
/// passed it on or from where on its checksum is left to the device. Move-only.
#[derive(Debug)]
pub struct Frame {
    chunk: NonNull<u8>,
    head: u16,
    len: u16,
    chunk_bytes: u16,
    /// Workers that passed on what was received; with [`UNSUMMED`], where the device is to sum what
    /// is to be sent.
    mark: u16,
}

const UNSUMMED: u16 = 1 << 15;

const _: () = assert!(size_of::<Option<Frame>>() == 16);

/// The chunks of one [`Umem`] that are in the kernel's hands through one socket: lent by value,
/// reclaimed by address, one bit a chunk, checked in release builds too.
pub struct Lent {
    umem: Arc<Umem>,
    bits: Vec<u64>,
    count: u32,
}

// SAFETY: a frame is the only way to reach its chunk (the module's invariant), so moving it moves
// the access.
unsafe impl Send for Frame {}
// SAFETY: `Umem` itself reads and writes no chunk; its only mutable state is the atomic counter.
unsafe impl Send for Umem {}
// SAFETY: as above.
unsafe impl Sync for Umem {}

impl Umem {
    /// Maps `chunks` chunks of `chunk_bytes` (a power of two from 2048 to 32,768; AF_XDP takes 2048
    /// and 4096) and mints their frames. The pages are touched here, so that no page fault falls
    /// into a measured run.
    ///
    /// # Errors
    /// The mapping failed: not enough memory.
    ///
    /// # Panics
    /// On another chunk size, or no chunks.
    pub fn new(chunks: u32, chunk_bytes: u32) -> io::Result<(Arc<Umem>, Vec<Frame>)> {
        assert!(chunk_bytes.is_power_of_two() && (2048..=32_768).contains(&chunk_bytes));
        assert!(chunks > 0);
        let bytes = chunks as usize * chunk_bytes as usize;
        // SAFETY: a fresh anonymous private mapping; nothing else is at that address.
        let mapping = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_POPULATE,
                -1,
                0,
            )
        };
        if mapping == libc::MAP_FAILED {
            let cause = io::Error::last_os_error();
            return Err(io::Error::new(
                cause.kind(),
                format!("map {bytes} bytes of packet memory: {cause}"),
            ));
        }
        let base = NonNull::new(mapping.cast::<u8>()).expect("mmap does not return null");
        let umem = Arc::new(Umem {
            base,
            chunk_shift: chunk_bytes.ilog2(),
            chunks,
            buried: AtomicU32::new(0),
        });
        let frames = (0..chunks).map(|index| umem.mint(index)).collect();
        Ok((umem, frames))
    }

    /// Number of chunks.
    pub fn chunks(&self) -> u32 {
        self.chunks
    }

    /// Size of a chunk in bytes.
    pub fn chunk_bytes(&self) -> u32 {
        1 << self.chunk_shift
    }

    /// Address and length of the mapping in bytes, as XDP_UMEM_REG wants them.
    pub fn region(&self) -> (u64, u64) {
        (self.base.as_ptr() as u64, u64::from(self.chunks) << self.chunk_shift)
    }

    /// True if the frame's chunk is one of this mapping.
    pub fn owns(&self, frame: &Frame) -> bool {
        let (base, bytes) = self.region();
        (frame.chunk.as_ptr() as u64).wrapping_sub(base) < bytes
    }

    /// Ends the life of frames that nobody will use again; with the last of them the mapping goes.
    ///
    /// # Panics
    /// If a frame is not of this mapping.
    pub fn bury(&self, frames: impl IntoIterator<Item = Frame>) {
        let mut count = 0;
        for frame in frames {
            assert!(self.owns(&frame));
            count += 1;
        }
        self.buried.fetch_add(count, Ordering::AcqRel);
    }

    /// Number of frames whose life has ended.
    pub fn buried(&self) -> u32 {
        self.buried.load(Ordering::Acquire)
    }

    fn mint(&self, index: u32) -> Frame {
        assert!(index < self.chunks);
        // SAFETY: index < chunks, so the offset stays inside the mapping.
        let chunk = unsafe { self.base.add((index as usize) << self.chunk_shift) };
        let chunk_bytes = self.chunk_bytes() as u16;
        Frame { chunk, head: HEADROOM_BYTES, len: 0, chunk_bytes, mark: 0 }
    }

    fn index(&self, frame: &Frame) -> u32 {
        assert!(self.owns(frame));
        ((frame.chunk.as_ptr() as u64 - self.region().0) >> self.chunk_shift) as u32
    }
}

impl Drop for Umem {
    fn drop(&mut self) {
        // Frames still alive somewhere keep pointing into the mapping: leave it.
        if *self.buried.get_mut() == self.chunks {
            let (base, bytes) = self.region();
            // SAFETY: our own mapping, and every frame of it is gone, so nothing points into it.
            unsafe { libc::munmap(base as *mut libc::c_void, bytes as usize) };
        }
    }
}

impl Frame {
    /// The packet.
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: head + len <= chunk_bytes (kept by every setter); the chunk is ours alone while
        // the frame lives, and mapped while any frame lives.
        unsafe {
            std::slice::from_raw_parts(
                self.chunk.as_ptr().add(self.head as usize),
                self.len as usize,
            )
        }
    }

    /// The packet, for writing.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `bytes`, and `&mut self` makes the access unique.
        unsafe {
            std::slice::from_raw_parts_mut(
                self.chunk.as_ptr().add(self.head as usize),
                self.len as usize,
            )
        }
    }

    /// Makes the packet `len` bytes long, starting [`HEADROOM_BYTES`] into the chunk. The bytes are
    /// whatever was there. No worker has passed it on, and no checksum is left to the device.
    ///
    /// # Panics
    /// If it does not fit the chunk.
    pub fn reset(&mut self, len: usize) {
        assert!(len <= self.capacity());
        self.head = HEADROOM_BYTES;
        self.len = len as u16;
        self.mark = 0;
    }

    /// Cuts the packet to its first `len` bytes.
    ///
    /// # Panics
    /// If it is shorter than that.
    pub fn truncate(&mut self, len: usize) {
        assert!(len <= self.len as usize);
        self.len = len as u16;
    }

    /// Number of workers that looked at the packet since it arrived and passed it on to the next.
    pub fn passes(&self) -> u16 {
        if self.mark & UNSUMMED == 0 { self.mark } else { 0 }
    }

    /// Says how many workers have passed the packet on: fewer than 32,768.
    pub fn set_passes(&mut self, passes: u16) {
        self.mark = passes & !UNSUMMED;
    }

    /// The longest packet that [`Frame::reset`] takes, in bytes.
    pub fn capacity(&self) -> usize {
        (self.chunk_bytes - HEADROOM_BYTES) as usize
    }

    /// Where in the packet begins what the device is to sum before it goes out, if it is.
    pub fn unsummed_at(&self) -> Option<u8> {
        (self.mark & UNSUMMED != 0).then_some(self.mark as u8)
    }

    /// Leaves the checksum to the device: that of all from `at` on.
    pub fn leave_unsummed(&mut self, at: u8) {
        self.mark = UNSUMMED | u16::from(at);
    }

    /// The `len` bytes before the packet, for writing.
    ///
    /// # Panics
    /// If there are fewer.
    pub(super) fn before_mut(&mut self, len: u16) -> &mut [u8] {
        let start = self.head.checked_sub(len).expect("as much room before the packet");
        // SAFETY: start + len = head, which is inside the chunk; and as in `bytes_mut`.
        unsafe { std::slice::from_raw_parts_mut(self.chunk.as_ptr().add(start.into()), len.into()) }
    }

    /// Asks for the first cache line of the packet to be brought near.
    pub fn prefetch(&self) {
        if let Some(first) = self.bytes().first() {
            super::cpu::prefetch(first);
        }
    }
}

impl Lent {
    /// Nothing lent yet.
    pub fn new(umem: Arc<Umem>) -> Lent {
        let bits = vec![0; umem.chunks().div_ceil(64) as usize];
        Lent { umem, bits, count: 0 }
    }

    /// Number of chunks in the kernel's hands.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// The memory that is lent from.
    pub fn umem(&self) -> &Arc<Umem> {
        &self.umem
    }

    /// Takes a frame out of our world; answers the packet's offset in the mapping (for a fill ring:
    /// any offset in the chunk will do) and its length, for a descriptor.
    ///
    /// # Panics
    /// If the frame is not of this mapping, or its chunk is lent already.
    pub fn lend(&mut self, frame: Frame) -> (u64, u32) {
        let index = self.umem.index(&frame);
        let (word, bit) = (index as usize / 64, 1 << (index % 64));
        assert!(self.bits[word] & bit == 0, "chunk {index} lent twice");
        self.bits[word] |= bit;
        self.count += 1;
        ((u64::from(index) << self.umem.chunk_shift) + u64::from(frame.head), u32::from(frame.len))
    }

    /// Takes back the chunk that holds offset `addr`, the packet in it being `len` bytes from
    /// there. `None` if that chunk was not lent or the packet would leave it: the kernel broke its
    /// word, and the caller counts it.
    pub fn reclaim(&mut self, addr: u64, len: u32) -> Option<Frame> {
        let Umem { chunk_shift, chunks, .. } = *self.umem;
        let chunk_bytes = 1 << chunk_shift;
        let index = u32::try_from(addr >> chunk_shift).ok().filter(|&index| index < chunks)?;
        let head = addr & (chunk_bytes - 1);
        let (word, bit) = (index as usize / 64, 1 << (index % 64));
        if self.bits[word] & bit == 0 || head + u64::from(len) > chunk_bytes {
            return None;
        }
        self.bits[word] &= !bit;
        self.count -= 1;
        let mut frame = self.umem.mint(index);
        (frame.head, frame.len) = (head as u16, len as u16);
        Some(frame)
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        // Nobody will ask for these chunks again. The kernel pins the pages for as long as it uses
        // them, so that the mapping may go while packets of it are still on their way.
        self.umem.buried.fetch_add(self.count, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_frame_has_bytes_of_its_own() {
        let (umem, mut frames) = Umem::new(8, 2048).unwrap();
        for (index, frame) in frames.iter_mut().enumerate() {
            frame.reset(frame.capacity());
            frame.bytes_mut().fill(index as u8);
        }
        for (index, frame) in frames.iter().enumerate() {
            assert!(frame.bytes().iter().all(|&byte| byte == index as u8));
        }
        umem.bury(frames);
    }

    #[test]
    fn a_chunk_comes_back_from_the_kernel_once() {
        let (umem, mut frames) = Umem::new(4, 2048).unwrap();
        let mut lent = Lent::new(umem);
        let mut frame = frames.pop().unwrap();
        frame.reset(60);
        let (addr, len) = lent.lend(frame);
        assert_eq!((lent.count(), len), (1, 60));
        assert!(lent.reclaim(addr + 2048 * 4, 60).is_none(), "past the mapping");
        assert!(lent.reclaim(0, 60).is_none(), "never lent");
        assert!(lent.reclaim(addr, 2048).is_none(), "longer than the chunk");
        assert_eq!(lent.reclaim(addr, 60).unwrap().bytes().len(), 60);
        assert!(lent.reclaim(addr, 60).is_none(), "given back twice");
        assert_eq!(lent.count(), 0);
    }

    #[test]
    #[should_panic(expected = "self.owns(frame)")]
    fn a_frame_of_another_mapping_is_refused() {
        let (_ours, _frames) = Umem::new(1, 2048).unwrap();
        let (_other, mut frames) = Umem::new(1, 2048).unwrap();
        Lent::new(_ours).lend(frames.pop().unwrap());
    }
}
