//! A link in memory with several queues a side, spread over as a NIC spreads: the receiver's queue
//! follows from the frame, not from who sent it.
//!
//! ```text
//!   near queue 0 ---+---- lane ---> far queue 0        and the same the other way
//!   near queue 1 ---|-+-- lane --->
//!                   | |
//!                   +-|-- lane ---> far queue 1
//!                     +-- lane --->
//! ```
//! A lane is a [`ThreadLink`], with one sender and one receiver, so that no two workers ever meet
//! at a cursor, and frames of one connection stay in order as long as they stay in one lane. What
//! is to go into a lane that is full waits in front of it, and then holds up what comes after it: a
//! switch would drop.

use super::link::{self, ThreadLink};
use super::{Device, Report};
use crate::frame::{BURST_FRAMES_MAX, Burst, Pool, Umem};
use crate::time::Instant;
use std::sync::Arc;

/// One queue of a side, which belongs to one worker. `S` says which of the other side's queues a
/// frame comes to; it is reduced to those there are.
pub struct Mesh<S> {
    /// To and from each queue of the other side.
    lanes: Vec<Lane>,
    spread: S,
    /// The lane that is received from first: each in its turn, so that none starves.
    first: usize,
    /// Where the frames of a burst go: scratch of a turn.
    ways: Vec<usize>,
    umem: Arc<Umem>,
}

struct Lane {
    link: ThreadLink,
    /// What is to be sent here, put together to a burst.
    staged: Burst,
}

/// Frames that the pool of a worker needs beside those in hand, with `lanes` lanes of `ring_bursts`
/// bursts: a receiver must be able to pay while all its own frames that can be under way are.
pub fn frames_for(lanes: usize, ring_bursts: u32) -> u32 {
    let under_way = lanes as u32 * (ring_bursts + 1) * BURST_FRAMES_MAX as u32;
    under_way + 4 * BURST_FRAMES_MAX as u32
}

/// The queues of both sides: `near` and `far` of them. `umem` is the memory of all workers' pools,
/// which are [`Pool::several`] of at least [`frames_for`] frames each. What the near side sends is
/// dealt out by the first of `spreads`, what the far side sends by the second.
///
/// # Panics
/// If a side has no queue.
pub fn mesh<S: Clone>(
    umem: &Arc<Umem>,
    [near, far]: [usize; 2],
    ring_bursts: u32,
    spreads: [S; 2],
) -> [Vec<Mesh<S>>; 2] {
    assert!(near > 0 && far > 0);
    let [to_far, to_near] = spreads;
    let end = |lanes: usize, spread: &S| Mesh {
        lanes: Vec::with_capacity(lanes),
        spread: spread.clone(),
        first: 0,
        ways: Vec::with_capacity(BURST_FRAMES_MAX),
        umem: Arc::clone(umem),
    };
    let mut nears: Vec<_> = (0..near).map(|_| end(far, &to_far)).collect();
    let mut fars: Vec<_> = (0..far).map(|_| end(near, &to_near)).collect();
    for one in &mut nears {
        for other in &mut fars {
            let (here, there) = link::threads(umem, ring_bursts);
            one.lanes.push(Lane { link: here, staged: Burst::new() });
            other.lanes.push(Lane { link: there, staged: Burst::new() });
        }
    }
    [nears, fars]
}

impl<S: Fn(&[u8]) -> usize> Mesh<S> {
    /// Moves frames to the lanes they go by, up to one whose lane has no room.
    fn stage(&mut self, tx: &mut Burst) {
        let count = self.lanes.len();
        self.ways.clear();
        for frame in tx.frames() {
            let way = (self.spread)(frame.bytes()) % count;
            let before = self.ways.iter().filter(|&&other| other == way).count();
            if before == self.lanes[way].staged.room() {
                break;
            }
            self.ways.push(way);
        }
        for (frame, &way) in tx.drain(self.ways.len()).zip(&self.ways) {
            self.lanes[way].staged.push(frame);
        }
    }
}

impl<S: Fn(&[u8]) -> usize> Device for Mesh<S> {
    fn rx(&mut self, now: Instant, pool: &mut Pool, rx: &mut Burst) {
        let count = self.lanes.len();
        for place in 0..count {
            self.lanes[(self.first + place) % count].link.rx(now, pool, rx);
        }
        self.first = (self.first + 1) % count;
    }

    fn tx(&mut self, now: Instant, pool: &mut Pool, tx: &mut Burst) {
        self.stage(tx);
        for lane in &mut self.lanes {
            lane.link.tx(now, pool, &mut lane.staged);
        }
    }

    fn lent(&self) -> usize {
        self.lanes.iter().map(|lane| lane.link.lent() + lane.staged.len()).sum()
    }

    fn report(&self) -> Report {
        let mut reports = self.lanes.iter().map(|lane| lane.link.report());
        let mut sum = reports.next().unwrap_or_default();
        for report in reports {
            for (all, (_, one)) in sum.counters.iter_mut().zip(report.counters) {
                all.1 += one;
            }
        }
        sum
    }
}

impl<S> Drop for Mesh<S> {
    fn drop(&mut self) {
        for Lane { staged, .. } in &mut self.lanes {
            let count = staged.len();
            self.umem.bury(staged.drain(count));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW: Instant = Instant::ZERO;

    /// A device with what a worker keeps beside it.
    struct Side {
        dev: Mesh<fn(&[u8]) -> usize>,
        pool: Pool,
        tx: Burst,
        received: Vec<[u8; 4]>,
    }

    impl Side {
        /// Sends frames that say where to, who from, and which they are, as many as there is room.
        fn send(&mut self, to: u8, from: u8, numbers: &mut [u16], count: usize) {
            for _ in 0..count.min(self.tx.room()) {
                let Some(mut frame) = self.pool.take() else { break };
                let [high, low] = numbers[usize::from(to)].to_be_bytes();
                frame.reset(4);
                frame.bytes_mut().copy_from_slice(&[to, from, high, low]);
                numbers[usize::from(to)] += 1;
                self.tx.push(frame);
            }
            self.dev.tx(NOW, &mut self.pool, &mut self.tx);
        }

        fn receive(&mut self) {
            let mut rx = Burst::new();
            self.dev.rx(NOW, &mut self.pool, &mut rx);
            for frame in rx.drain(rx.len()) {
                self.received.push(frame.bytes().try_into().unwrap());
                self.pool.put(frame);
            }
        }

        fn frames(&self) -> usize {
            self.pool.len() + self.tx.len() + self.dev.lent()
        }
    }

    fn sides(near: usize, far: usize, ring_bursts: u32) -> [Vec<Side>; 2] {
        let frames = frames_for(near.max(far), ring_bursts);
        let mut pools = Pool::several(near + far, frames, 0).unwrap();
        let umem = pools[0].umem().clone();
        let first_byte: fn(&[u8]) -> usize = |frame| usize::from(frame[0]);
        let ends = mesh(&umem, [near, far], ring_bursts, [first_byte, first_byte]);
        ends.map(|end| {
            let side = |dev| {
                let pool = pools.pop().unwrap();
                Side { dev, pool, tx: Burst::new(), received: Vec::new() }
            };
            end.into_iter().map(side).collect()
        })
    }

    #[test]
    fn a_full_lane_holds_up_what_comes_after_it_and_nothing_is_lost() {
        let [mut near, mut far] = sides(1, 2, 1);
        let (one, frames) = (&mut near[0], near_frames(1, 2, 1));
        let mut numbers = [0; 2];
        (0..3).for_each(|_| one.send(0, 0, &mut numbers, 64));
        one.send(1, 0, &mut numbers, 64);
        // A parcel on its way, a burst staged, a burst left; what goes elsewhere waits behind it.
        assert_eq!((one.dev.lent(), one.tx.len(), one.frames()), (128, 64, frames));
        assert_eq!(numbers, [192, 0]);
        for more in [1, 1, 1, 1, 0, 0, 0, 0] {
            far.iter_mut().for_each(Side::receive);
            one.send(1, 0, &mut numbers, more);
        }
        let received = [0, 1].map(|to: usize| far[to].received.len() as u16);
        assert_eq!((received, received[0]), (numbers, 192));
        assert!(received[1] > 0);
    }

    fn near_frames(near: usize, far: usize, ring_bursts: u32) -> usize {
        frames_for(near.max(far), ring_bursts) as usize
    }

    proptest! {
        /// Goal: whoever acts in whatever order, each frame comes to the queue that it names, once
        /// and in order, and no side gains or loses a frame.
        #[test]
        fn each_frame_comes_to_the_queue_it_names_once_and_in_order(
            near in 1..4usize, far in 1..4usize, ring_bursts in 1..4u32,
            acts in prop::collection::vec((0..2usize, 0..4usize, 0..5u8, 0..70usize), 1..80),
        ) {
            let mut both = sides(near, far, ring_bursts);
            let frames = near_frames(near, far, ring_bursts);
            let mut numbers = [[[0u16; 4]; 4]; 2];
            for (side, who, to, count) in acts {
                let others = both[1 - side].len() as u8;
                let who = who % both[side].len();
                match to {
                    4 => both[side][who].receive(),
                    to => {
                        let sent = &mut numbers[side][who];
                        both[side][who].send(to % others, who as u8, sent, count);
                    }
                }
                let whole = both.iter().flatten().all(|side| side.frames() == frames);
                prop_assert!(whole);
            }
            for _ in 0..200 {
                both.iter_mut().flatten().for_each(Side::receive);
                both.iter_mut().flatten().for_each(|side| side.send(0, 0, &mut [0; 4], 0));
            }
            for (end, side) in both.iter().enumerate() {
                for (place, receiver) in side.iter().enumerate() {
                    let mut due = [0u16; 4];
                    for &[to, from, high, low] in &receiver.received {
                        prop_assert_eq!(usize::from(to), place);
                        let next = &mut due[usize::from(from)];
                        prop_assert_eq!(u16::from_be_bytes([high, low]), *next);
                        *next += 1;
                    }
                    let sent: Vec<u16> = numbers[1 - end].iter().map(|to| to[place]).collect();
                    prop_assert_eq!(&due[..], &sent[..]);
                }
            }
        }
    }

    #[test]
    fn the_memory_goes_when_all_ends_have_gone() {
        let [mut near, far] = sides(2, 2, 1);
        let umem = near[0].pool.umem().clone();
        let mut numbers = [0; 2];
        near[0].send(0, 0, &mut numbers, 64);
        near[0].send(0, 0, &mut numbers, 64);
        assert_eq!(near[0].dev.lent(), 128);
        drop((near, far));
        assert_eq!(umem.buried(), umem.chunks());
    }
}
