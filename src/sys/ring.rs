//! The four rings of an AF_XDP socket: single producer, single consumer, in memory shared with the
//! kernel.
//!
//! ```text
//!   fill        we produce   free chunks, for the kernel to receive into
//!   rx          we consume   received packets
//!   tx          we produce   packets to send
//!   completion  we consume   chunks whose packet was sent
//! ```
//! Producer and consumer are the same thing seen from two ends: each moves its own cursor up to a
//! limit that the other's cursor sets, `consumer + length` for the one and `producer` for the
//! other. So there is one [`Ring`], with that length as its slack, and two thin roles. Cursors
//! count for ever and wrap; an entry's place is the cursor masked. The other end's cursor is read
//! only when the cached limit is reached, so its cache line moves once a batch, not once a packet.
//!
//! What is in an entry this module does not know; `socket` keeps the kernel's descriptors from
//! naming memory of ours.

use std::marker::PhantomData;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// Memory mapped once, unmapped when the last ring over it goes.
pub(super) struct Mapping {
    base: NonNull<u8>,
    bytes: usize,
}

// SAFETY: a mapping only gives out pointers; who follows them answers for the access.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

/// Where in the mapping the parts of a ring are, in bytes: what XDP_MMAP_OFFSETS answers.
#[derive(Clone, Copy)]
pub(super) struct Offsets {
    pub producer: usize,
    pub consumer: usize,
    pub flags: usize,
    pub entries: usize,
}

/// What may lie in a ring: plain data, any bit pattern of it valid, shared with the kernel by
/// value.
///
/// # Safety
/// Every bit pattern is a valid value, and there is no padding whose content matters.
pub(super) unsafe trait Entry: Copy {}

// SAFETY: an integer.
unsafe impl Entry for u64 {}
// SAFETY: three integers, no padding.
unsafe impl Entry for libc::xdp_desc {}

/// Our end where we write entries.
pub(super) struct Producer<T>(Ring<T>);

/// Our end where we read entries.
pub(super) struct Consumer<T>(Ring<T>);

struct Ring<T> {
    /// Our cursor as the other end sees it.
    own: NonNull<AtomicU32>,
    /// The other end's cursor.
    other: NonNull<AtomicU32>,
    flags: NonNull<AtomicU32>,
    entries: NonNull<T>,
    mask: u32,
    /// How far we may be ahead of the other's cursor: the ring's length for a producer, 0 for a
    /// consumer.
    slack: u32,
    /// Our cursor with what is not published yet.
    cursor: u32,
    /// What of it is published.
    published: u32,
    /// Where we must stop, as of the last look at `other`.
    limit: u32,
    _mapping: Arc<Mapping>,
    _entry: PhantomData<T>,
}

// SAFETY: the pointers are into the mapping that the ring keeps alive; entries are plain data; the
// ring is used by one thread at a time because every access takes `&mut self` or is one atomic
// load.
unsafe impl<T: Entry> Send for Ring<T> {}
// SAFETY: through `&self` there are only atomic loads.
unsafe impl<T: Entry> Sync for Ring<T> {}

impl<T: Entry> Producer<T> {
    /// Our end of a ring of `len` entries, where the kernel (or a test) consumes.
    ///
    /// # Panics
    /// If `len` is not a power of two, or the ring would leave the mapping.
    pub fn new(mapping: Arc<Mapping>, offsets: Offsets, len: u32) -> Producer<T> {
        Producer(Ring::over(mapping, offsets, len, offsets.producer, offsets.consumer, len))
    }

    /// How many entries can be pushed now, looking at the other end only if fewer than `wanted` are
    /// known to fit.
    pub fn room(&mut self, wanted: u32) -> u32 {
        self.0.available(wanted)
    }

    /// Writes the next entry. The other end sees it after [`Producer::submit`].
    ///
    /// # Panics
    /// If there is no room: whoever pushes asks for `room` first.
    pub fn push(&mut self, entry: T) {
        let place = self.0.advance();
        // SAFETY: `place` is inside the entries; the other end does not touch this one until the
        // cursor is published.
        unsafe { place.write(entry) }
    }

    /// Publishes what was pushed.
    pub fn submit(&mut self) {
        self.0.publish();
    }

    /// Entries published that the other end has not taken yet.
    pub fn waiting(&self) -> u32 {
        self.0.published.wrapping_sub(self.0.load_other())
    }

    /// True if the kernel asks for a system call before it will go on with this ring
    /// (XDP_RING_NEED_WAKEUP).
    pub fn needs_wakeup(&self) -> bool {
        self.0.load_flags() & libc::XDP_RING_NEED_WAKEUP != 0
    }
}

impl<T: Entry> Consumer<T> {
    /// Our end of a ring of `len` entries, where the kernel (or a test) produces.
    ///
    /// # Panics
    /// If `len` is not a power of two, or the ring would leave the mapping.
    pub fn new(mapping: Arc<Mapping>, offsets: Offsets, len: u32) -> Consumer<T> {
        Consumer(Ring::over(mapping, offsets, len, offsets.consumer, offsets.producer, 0))
    }

    /// How many entries can be popped now, looking at the other end only if fewer than `wanted` are
    /// known.
    pub fn ready(&mut self, wanted: u32) -> u32 {
        self.0.available(wanted)
    }

    /// Reads the next entry. The other end may reuse its place after [`Consumer::release`].
    ///
    /// # Panics
    /// If there is none: whoever pops asks for `ready` first.
    pub fn pop(&mut self) -> T {
        let place = self.0.advance();
        // SAFETY: `place` is inside the entries; the other end wrote it before it published its
        // cursor (acquire), and does not touch it until ours is published. Any bit pattern is a
        // valid T.
        unsafe { place.read() }
    }

    /// Gives back the places of what was popped.
    pub fn release(&mut self) {
        self.0.publish();
    }
}

impl<T: Entry> Ring<T> {
    fn over(
        mapping: Arc<Mapping>,
        offsets: Offsets,
        len: u32,
        own: usize,
        other: usize,
        slack: u32,
    ) -> Ring<T> {
        assert!(len.is_power_of_two());
        let entries = mapping.at::<T>(offsets.entries, len as usize);
        let [own, other, flags] =
            [own, other, offsets.flags].map(|offset| mapping.at::<AtomicU32>(offset, 1));
        // SAFETY: `at` checked that a whole, aligned AtomicU32 lies there.
        let cursor = unsafe { own.as_ref() }.load(Ordering::Relaxed);
        Ring {
            own,
            other,
            flags,
            entries,
            mask: len - 1,
            slack,
            cursor,
            published: cursor,
            limit: cursor,
            _mapping: mapping,
            _entry: PhantomData,
        }
    }

    #[inline]
    fn available(&mut self, wanted: u32) -> u32 {
        if self.limit.wrapping_sub(self.cursor) < wanted {
            self.limit = self.load_other().wrapping_add(self.slack);
        }
        // A cursor that the other end spoiled can't lead us outside the entries, and claims no more
        // than there are.
        self.limit.wrapping_sub(self.cursor).min(self.mask + 1)
    }

    #[inline]
    fn advance(&mut self) -> NonNull<T> {
        assert!(self.limit != self.cursor);
        let index = self.cursor & self.mask;
        self.cursor = self.cursor.wrapping_add(1);
        // SAFETY: index < len, and `over` checked that len entries lie in the mapping.
        unsafe { self.entries.add(index as usize) }
    }

    #[inline]
    fn publish(&mut self) {
        if self.published != self.cursor {
            self.published = self.cursor;
            // SAFETY: checked in `over`, and the mapping is alive.
            unsafe { self.own.as_ref() }.store(self.cursor, Ordering::Release);
        }
    }

    #[inline]
    fn load_other(&self) -> u32 {
        // SAFETY: as in `publish`.
        unsafe { self.other.as_ref() }.load(Ordering::Acquire)
    }

    #[inline]
    fn load_flags(&self) -> u32 {
        // SAFETY: as in `publish`.
        unsafe { self.flags.as_ref() }.load(Ordering::Relaxed)
    }
}

impl Mapping {
    /// Maps `bytes` bytes of `fd` at `offset`, shared, readable and writable.
    pub fn of_fd(fd: i32, offset: u64, bytes: usize) -> std::io::Result<Mapping> {
        Mapping::new(fd, libc::MAP_SHARED | libc::MAP_POPULATE, offset, bytes)
    }

    fn new(fd: i32, flags: i32, offset: u64, bytes: usize) -> std::io::Result<Mapping> {
        // SAFETY: a fresh mapping at an address of the kernel's choice.
        let mapping = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                flags,
                fd,
                offset as libc::off_t,
            )
        };
        if mapping == libc::MAP_FAILED {
            return Err(std::io::Error::last_os_error());
        }
        let base = NonNull::new(mapping.cast::<u8>()).expect("mmap does not return null");
        Ok(Mapping { base, bytes })
    }

    /// A pointer to `count` values of T at `offset`.
    ///
    /// # Panics
    /// If they do not fit, or are not aligned.
    fn at<T>(&self, offset: usize, count: usize) -> NonNull<T> {
        let end = offset.checked_add(count * size_of::<T>());
        assert!(end.is_some_and(|end| end <= self.bytes));
        // SAFETY: offset <= bytes, checked above.
        let place = unsafe { self.base.add(offset) }.cast::<T>();
        assert!(place.is_aligned());
        place
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: our own mapping; the rings over it hold it by Arc, so none is left.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.bytes) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OFFSETS: Offsets = Offsets { producer: 0, consumer: 64, flags: 128, entries: 192 };

    /// Both ends of a ring in plain memory, both cursors at `start`.
    fn ring(len: u32, start: u32) -> (Producer<u64>, Consumer<u64>) {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        let mapping = Arc::new(Mapping::new(-1, flags, 0, 192 + 8 * len as usize).unwrap());
        for offset in [OFFSETS.producer, OFFSETS.consumer] {
            // SAFETY: in the mapping, and nobody else uses it yet.
            unsafe { mapping.at::<AtomicU32>(offset, 1).as_ref() }.store(start, Ordering::Relaxed);
        }
        (Producer::new(mapping.clone(), OFFSETS, len), Consumer::new(mapping, OFFSETS, len))
    }

    #[test]
    fn entries_come_out_in_order_across_the_wrap_of_the_cursors() {
        let (mut tx, mut rx) = ring(8, u32::MAX - 20);
        let (mut sent, mut received) = (0, 0);
        while received < 100 {
            for _ in 0..tx.room(5).min(5) {
                tx.push(sent);
                sent += 1;
            }
            tx.submit();
            for _ in 0..rx.ready(3).min(3) {
                assert_eq!(rx.pop(), received);
                received += 1;
            }
            rx.release();
            assert_eq!(u64::from(tx.waiting()), sent - received);
        }
    }

    #[test]
    fn nothing_is_seen_before_it_is_published() {
        let (mut tx, mut rx) = ring(4, 0);
        assert_eq!(tx.room(4), 4);
        (0..4).for_each(|entry| tx.push(entry));
        assert_eq!((tx.room(1), rx.ready(1), tx.waiting()), (0, 0, 0));
        tx.submit();
        assert_eq!((rx.ready(1), tx.waiting()), (4, 4));
        assert_eq!(rx.pop(), 0);
        assert_eq!(tx.room(1), 0, "not released yet");
        rx.release();
        assert_eq!((tx.room(1), tx.waiting()), (1, 3));
    }

    #[test]
    #[should_panic(expected = "self.limit != self.cursor")]
    fn pushing_without_room_is_a_bug_of_ours() {
        let (mut tx, _rx) = ring(2, 0);
        (0..=tx.room(2)).for_each(|_| tx.push(0));
    }

    #[test]
    fn a_spoiled_cursor_claims_no_more_than_the_ring_holds() {
        let (tx, mut rx) = ring(4, 0);
        // SAFETY: the producer's cursor, alive with the ring.
        unsafe { tx.0.own.as_ref() }.store(1_000_000, Ordering::Release);
        assert_eq!(rx.ready(1), 4);
        (0..4).for_each(|_| assert_eq!(rx.pop(), 0));
    }

    #[test]
    fn two_threads_pass_a_million_entries_in_order() {
        let (mut tx, mut rx) = ring(64, 0);
        let consumer = std::thread::spawn(move || {
            let mut next = 0;
            while next < 1_000_000 {
                for _ in 0..rx.ready(1) {
                    assert_eq!(rx.pop(), next);
                    next += 1;
                }
                rx.release();
            }
        });
        let mut next = 0;
        while next < 1_000_000 {
            for _ in 0..tx.room(1).min(1_000_000 - next as u32) {
                tx.push(next);
                next += 1;
            }
            tx.submit();
        }
        consumer.join().unwrap();
    }
}
