//! Two ends in memory: what one end sends, the other receives, without a copy.
//!
//! The frame itself moves from one worker's pool to the other's, and the receiver *pays* for it
//! with one of its own free frames, which comes back to the sender like a completion. So the frames
//! of each side, those in the link's hands included, stay as many as they were, and a receiver out
//! of free frames leaves what was sent in the ring.
//!
//! ```text
//!   A.tx -> | sent, in order | -> B.rx        (and the same from B to A)
//!   A   <-  | paid           | <- B
//! ```
//!
//! A side whose frames were all under way could pay for none, and two such sides would wait for
//! each other for ever. So the rings are smaller than the pools.
//!
//! [`pair`] is for two workers on one thread; [`threads`] for two threads, over lock-free queues
//! that carry whole bursts: one push and one pop a burst, however many frames are in it.

use super::{Device, Report};
use crate::frame::{BURST_FRAMES_MAX, Burst, Frame, Pool, Umem};
use crate::time::Instant;
use crossbeam::queue::ArrayQueue;
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

/// One end of a link whose ends are on the same thread.
pub struct Link {
    lanes: Rc<RefCell<[Lane; 2]>>,
    /// The lane that this end sends into: 0 or 1.
    end: usize,
    ring_frames: usize,
    counted: Counted,
}

/// One end of a link between two threads.
pub struct ThreadLink {
    out: Arc<SharedLane>,
    back: Arc<SharedLane>,
    /// Parcels with nothing in them, to send with.
    empty: Vec<Parcel>,
    /// Frames of ours that the other end has not paid for yet.
    lent: usize,
    /// What arrived and was not taken because `rx` was full or the pool empty, with the payment
    /// gathered so far.
    open: Option<Parcel>,
    counted: Counted,
}

/// Frames on their way in one direction, and the payment for those that have arrived.
struct Lane {
    sent: Vec<Frame>,
    paid: Vec<Frame>,
    umem: Arc<Umem>,
}

/// [`Lane`] between threads. The parcels of a lane circulate: with frames to the receiver, with the
/// payment back, empty at the sender. Each queue could hold them all, so none overflows.
struct SharedLane {
    sent: ArrayQueue<Parcel>,
    paid: ArrayQueue<Parcel>,
    umem: Arc<Umem>,
}

/// A burst of frames and, growing as they are taken, the payment for them.
struct Parcel {
    frames: Vec<Frame>,
    payment: Vec<Frame>,
}

/// What an end counted.
#[derive(Clone, Copy, Default)]
struct Counted {
    tx_ring_full: u64,
    rx_no_frame: u64,
}

/// Both ends of a link on one thread. Up to `ring_frames` frames wait in each direction. `umem` is
/// the memory of both workers' pools, which are a [`Pool::pair`].
///
/// # Panics
/// If a full ring and a full burst would take all frames of a pool.
pub fn pair(umem: &Arc<Umem>, ring_frames: u32) -> (Link, Link) {
    let ring_frames = ring_frames as usize;
    assert!(ring_frames + BURST_FRAMES_MAX < umem.chunks() as usize / 2);
    // More than can ever be owed to one side, whatever the rings hold.
    let paid_frames = umem.chunks() as usize;
    let lane = || Lane {
        sent: Vec::with_capacity(ring_frames),
        paid: Vec::with_capacity(paid_frames),
        umem: umem.clone(),
    };
    let lanes = Rc::new(RefCell::new([lane(), lane()]));
    let link =
        |end| Link { lanes: Rc::clone(&lanes), end, ring_frames, counted: Counted::default() };
    (link(0), link(1))
}

/// Both ends of a link between two threads. Up to `ring_bursts` bursts, of any number of frames,
/// are on their way in each direction. `umem` is the memory of both workers' pools, which are a
/// [`Pool::pair`].
///
/// # Panics
/// If a full ring and a full burst would take all frames of a pool.
pub fn threads(umem: &Arc<Umem>, ring_bursts: u32) -> (ThreadLink, ThreadLink) {
    let parcels = ring_bursts as usize;
    assert!((parcels + 1) * BURST_FRAMES_MAX < umem.chunks() as usize / 2);
    let lane = || {
        let (sent, paid) = (ArrayQueue::new(parcels), ArrayQueue::new(parcels));
        Arc::new(SharedLane { sent, paid, umem: umem.clone() })
    };
    let (there, back) = (lane(), lane());
    let link = |out: &Arc<SharedLane>, back: &Arc<SharedLane>| ThreadLink {
        out: out.clone(),
        back: back.clone(),
        empty: (0..parcels).map(|_| Parcel::new()).collect(),
        lent: 0,
        open: None,
        counted: Counted::default(),
    };
    (link(&there, &back), link(&back, &there))
}

impl Device for Link {
    fn rx(&mut self, _now: Instant, pool: &mut Pool, rx: &mut Burst) {
        let lane = &mut self.lanes.borrow_mut()[1 - self.end];
        let wanted = lane.sent.len().min(rx.room());
        let count = wanted.min(pool.len());
        self.counted.rx_no_frame += (wanted - count) as u64;
        rx.fill(&mut lane.sent, count);
        pool.take_many(count, &mut lane.paid);
    }

    fn tx(&mut self, _now: Instant, pool: &mut Pool, tx: &mut Burst) {
        let lane = &mut self.lanes.borrow_mut()[self.end];
        pool.put_all(&mut lane.paid);
        let count = tx.len().min(self.ring_frames - lane.sent.len());
        self.counted.tx_ring_full += (tx.len() - count) as u64;
        tx.pour(&mut lane.sent, count);
    }

    fn lent(&self) -> usize {
        let lane = &self.lanes.borrow()[self.end];
        lane.sent.len() + lane.paid.len()
    }

    fn report(&self) -> Report {
        self.counted.report()
    }

    /// At once, if anything waits to be received.
    fn next_deadline(&self) -> Option<Instant> {
        (!self.lanes.borrow()[1 - self.end].sent.is_empty()).then_some(Instant::ZERO)
    }
}

impl Device for ThreadLink {
    fn rx(&mut self, _now: Instant, pool: &mut Pool, rx: &mut Burst) {
        while rx.room() > 0 {
            let Some(mut parcel) = self.open.take().or_else(|| self.back.sent.pop()) else {
                return;
            };
            let wanted = parcel.frames.len().min(rx.room());
            let count = wanted.min(pool.len());
            self.counted.rx_no_frame += (wanted - count) as u64;
            rx.fill(&mut parcel.frames, count);
            pool.take_many(count, &mut parcel.payment);
            if !parcel.frames.is_empty() {
                self.open = Some(parcel);
                return;
            }
            assert!(self.back.paid.push(parcel).is_ok(), "a lane has room for all its parcels");
        }
    }

    fn tx(&mut self, _now: Instant, pool: &mut Pool, tx: &mut Burst) {
        while let Some(mut parcel) = self.out.paid.pop() {
            self.lent -= parcel.payment.len();
            pool.put_all(&mut parcel.payment);
            self.empty.push(parcel);
        }
        if tx.is_empty() {
            return;
        }
        let Some(mut parcel) = self.empty.pop() else {
            self.counted.tx_ring_full += tx.len() as u64;
            return;
        };
        let count = tx.len();
        tx.pour(&mut parcel.frames, count);
        self.lent += count;
        assert!(self.out.sent.push(parcel).is_ok(), "a lane has room for all its parcels");
    }

    fn lent(&self) -> usize {
        self.lent
    }

    fn report(&self) -> Report {
        self.counted.report()
    }
}

impl Parcel {
    fn new() -> Parcel {
        let burst = || Vec::with_capacity(BURST_FRAMES_MAX);
        Parcel { frames: burst(), payment: burst() }
    }

    fn bury(self, umem: &Umem) {
        umem.bury(self.frames.into_iter().chain(self.payment));
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        self.umem.bury(self.sent.drain(..).chain(self.paid.drain(..)));
    }
}

impl Drop for SharedLane {
    fn drop(&mut self) {
        while let Some(parcel) = self.sent.pop().or_else(|| self.paid.pop()) {
            parcel.bury(&self.umem);
        }
    }
}

impl Drop for ThreadLink {
    fn drop(&mut self) {
        if let Some(parcel) = self.open.take() {
            parcel.bury(&self.back.umem);
        }
    }
}

impl Counted {
    fn report(self) -> Report {
        let Counted { tx_ring_full, rx_no_frame } = self;
        let counters =
            vec![("tx_ring_full", tx_ring_full), ("rx_fill_ring_empty_descs", rx_no_frame)];
        Report { driver: "memory".into(), mode: "memory", sums: false, counters }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::sync::atomic::{AtomicBool, Ordering};

    const NOW: Instant = Instant::ZERO;

    /// A device with what a worker keeps beside it.
    struct Side<D> {
        dev: D,
        pool: Pool,
        rx: Burst,
        tx: Burst,
    }

    impl<D: Device> Side<D> {
        fn new(dev: D, pool: Pool) -> Side<D> {
            Side { dev, pool, rx: Burst::new(), tx: Burst::new() }
        }

        /// Sends frames of consecutive numbers, as many as there are free frames, at most `count`.
        fn send(&mut self, number: &mut u64, count: usize) {
            for _ in 0..count.min(self.tx.room()) {
                let Some(mut frame) = self.pool.take() else { break };
                frame.reset(8);
                frame.bytes_mut().copy_from_slice(&number.to_be_bytes());
                *number += 1;
                self.tx.push(frame);
            }
            self.dev.tx(NOW, &mut self.pool, &mut self.tx);
        }

        /// Receives, and puts the frames away; answers their numbers.
        fn receive(&mut self) -> Vec<u64> {
            self.dev.rx(NOW, &mut self.pool, &mut self.rx);
            let count = self.rx.len();
            let mut numbers = Vec::new();
            for frame in self.rx.drain(count) {
                numbers.push(u64::from_be_bytes(frame.bytes().try_into().unwrap()));
                self.pool.put(frame);
            }
            numbers
        }

        fn frames(&self) -> usize {
            self.pool.len() + self.rx.len() + self.tx.len() + self.dev.lent()
        }

        /// Puts everything away, so that the memory is freed.
        fn finish(mut self) {
            let count = self.tx.len();
            for frame in self.tx.drain(count) {
                self.pool.put(frame);
            }
        }
    }

    fn same_thread(frames: u32, ring: u32) -> (Side<Link>, Side<Link>) {
        let (ours, theirs) = Pool::pair(frames).unwrap();
        let (a, b) = pair(ours.umem(), ring);
        (Side::new(a, ours), Side::new(b, theirs))
    }

    fn two_threads(frames: u32, ring: u32) -> (Side<ThreadLink>, Side<ThreadLink>) {
        let (ours, theirs) = Pool::pair(frames).unwrap();
        let (a, b) = threads(ours.umem(), ring);
        (Side::new(a, ours), Side::new(b, theirs))
    }

    #[test]
    fn a_full_ring_leaves_the_rest_in_the_burst() {
        let (mut a, mut b) = same_thread(80, 4);
        let mut number = 0;
        a.send(&mut number, 6);
        assert_eq!((a.tx.len(), a.dev.lent(), a.frames()), (2, 4, 80));
        assert_eq!(a.dev.report().counters[0], ("tx_ring_full", 2));
        assert_eq!(b.receive(), [0, 1, 2, 3]);
        a.send(&mut number, 0);
        assert_eq!(b.receive(), [4, 5]);
    }

    #[test]
    fn a_receiver_without_free_frames_leaves_them_queued() {
        let (mut a, mut b) = same_thread(100, 16);
        let held: Vec<Frame> = (0..99).map(|_| b.pool.take().unwrap()).collect();
        a.send(&mut 0, 4);
        b.dev.rx(NOW, &mut b.pool, &mut b.rx);
        assert_eq!((b.rx.len(), b.pool.len(), a.dev.lent()), (1, 0, 4));
        assert_eq!(b.dev.report().counters[1], ("rx_fill_ring_empty_descs", 3));
        held.into_iter().for_each(|frame| b.pool.put(frame));
        assert_eq!(b.receive(), [0, 1, 2, 3]);
    }

    #[test]
    fn a_full_lane_of_parcels_leaves_the_burst_alone() {
        let (mut a, mut b) = two_threads(200, 2);
        let mut number = 0;
        (0..3).for_each(|_| a.send(&mut number, 2));
        assert_eq!((a.tx.len(), a.dev.lent(), a.frames()), (2, 4, 200));
        assert_eq!(b.receive(), [0, 1, 2, 3]);
        a.send(&mut number, 0);
        assert_eq!((b.receive(), a.frames(), b.frames()), (vec![4, 5], 200, 200));
        a.finish();
    }

    /// Both ends act in any order; whatever is sent arrives once and in order, and no side gains or
    /// loses a frame.
    fn exchange<D: Device>(mut a: Side<D>, mut b: Side<D>, acts: Vec<(u8, usize)>) {
        let (frames, mut sent, mut received) = (a.frames(), [0, 0], [0, 0]);
        let mut check = |at: usize, numbers: Vec<u64>| {
            for number in numbers {
                assert_eq!(number, received[at]);
                received[at] += 1;
            }
            received
        };
        for (act, count) in acts {
            match act {
                0 => a.send(&mut sent[0], count),
                1 => b.send(&mut sent[1], count),
                2 => drop(check(0, b.receive())),
                _ => drop(check(1, a.receive())),
            }
            assert_eq!((a.frames(), b.frames()), (frames, frames));
        }
        for _ in 0..100 {
            a.send(&mut sent[0], 0);
            b.send(&mut sent[1], 0);
            check(0, b.receive());
            check(1, a.receive());
        }
        assert_eq!(check(0, Vec::new()), sent);
        assert_eq!((a.pool.len() + a.dev.lent(), b.pool.len() + b.dev.lent()), (frames, frames));
    }

    proptest! {
        #[test]
        fn everything_arrives_once_and_in_order_and_no_frame_is_lost(
            acts in prop::collection::vec((0..4u8, 0..70usize), 1..60),
            spare in 1..200u32,
            ring in 1..100u32,
        ) {
            let (a, b) = same_thread(ring + 64 + spare, ring);
            exchange(a, b, acts.clone());
            let ring = ring.div_ceil(64);
            let (a, b) = two_threads((ring + 1) * 64 + spare, ring);
            exchange(a, b, acts);
        }
    }

    #[test]
    fn the_memory_goes_when_both_ends_have_gone() {
        let (mut a, mut b) = two_threads(130, 1);
        let umem = a.pool.umem().clone();
        a.send(&mut 0, 64);
        umem.bury((0..100).map_while(|_| b.pool.take()));
        b.dev.rx(NOW, &mut b.pool, &mut b.rx);
        assert!(b.dev.open.is_some(), "some frames wait for payment");
        b.receive();
        drop((a, b));
        assert_eq!(umem.buried(), umem.chunks());
    }

    #[test]
    fn two_threads_exchange_a_million_frames_in_order() {
        const FRAMES: u64 = 1_000_000;
        let (mut a, mut b) = two_threads(512, 6);
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut number = 0;
                while !done.load(Ordering::Relaxed) {
                    let count = (FRAMES - number).min(64) as usize;
                    a.send(&mut number, count);
                    assert_eq!(a.frames(), 512);
                    if a.tx.room() == 0 {
                        std::thread::yield_now();
                    }
                }
                a.send(&mut number, 0);
                assert_eq!((a.pool.len(), a.dev.lent()), (512, 0));
            });
            let mut expected = 0;
            while expected < FRAMES {
                let numbers = b.receive();
                if numbers.is_empty() {
                    std::thread::yield_now();
                }
                for number in numbers {
                    assert_eq!(number, expected);
                    expected += 1;
                }
                assert_eq!(b.frames(), 512);
                b.send(&mut 0, 0);
            }
            done.store(true, Ordering::Relaxed);
        });
    }
}
