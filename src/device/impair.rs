//! A bad network in front of a device: loss, duplication, corruption, delay, jitter, reordering and
//! a bottleneck.
//!
//! Deterministic: the same seed, options and frames give the same fate at the same times. Bounded
//! and allocated at the start: a lane holds at most `queue_frames` frames and drops the next, as a
//! router's queue does. Held frames are still the worker's: they count as lent.

use super::{Device, Report};
use crate::frame::{Burst, Frame, Pool, Umem};
use crate::rng::Rng;
use crate::time::{Instant, Span};
use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::sync::Arc;

/// Most bits flipped in a corrupted frame, all in one 16-bit word: what the Internet checksum
/// always finds.
const FLIPS_MAX: u64 = 3;
/// Bytes of an Ethernet header without a tag.
const ETHERNET_BYTES: usize = 14;

/// How bad one direction is. The default does nothing to a frame. Probabilities are 0..=1 and
/// independent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Options {
    /// Probability that a frame is dropped.
    pub loss: f64,
    /// Probability that a copy follows a frame.
    pub duplicate: f64,
    /// Probability that a frame is held back, up to `reorder_hold` more than its neighbours, which
    /// overtake it.
    pub reorder: f64,
    pub reorder_hold: Span,
    /// Probability that one to three bits of an IP datagram are flipped, within one word. Ethernet
    /// headers, ARP and the first eight bytes of an IPv6 header are spared: they have no checksum
    /// but Ethernet's own, and a frame that fails that is lost.
    pub corrupt: f64,
    /// Time on the way, of every frame.
    pub delay: Span,
    /// Up to so much more of it, uniform; this alone does not change the order.
    pub jitter: Span,
    /// A bottleneck in bits of Ethernet frame a second.
    pub rate_bps: Option<u64>,
    /// Frames on the way at a time; more are dropped. Leave the pool more frames than that.
    pub queue_frames: u32,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            loss: 0.0,
            duplicate: 0.0,
            reorder: 0.0,
            reorder_hold: Span::from_millis(1),
            corrupt: 0.0,
            delay: Span::ZERO,
            jitter: Span::ZERO,
            rate_bps: None,
            queue_frames: 1000,
        }
    }
}

/// A device behind a bad network, in either direction or both.
pub struct Impair<D> {
    inner: D,
    tx: Option<Lane>,
    rx: Option<Lane>,
    /// What left the tx lane and the device has no room for yet.
    leaving: Burst,
    /// What the device received and the rx lane is about to take. Empty between calls.
    arrived: Burst,
    umem: Arc<Umem>,
}

/// One direction.
struct Lane {
    options: Options,
    rng: Rng,
    held: BinaryHeap<Held>,
    /// Frames admitted so far: the order of those that come due together.
    admitted: u64,
    /// When the last frame that keeps the order comes due.
    last: Instant,
    /// When the bottleneck has sent what it took.
    idle_at: Instant,
    counted: Counted,
}

/// A frame on its way.
struct Held {
    at: Instant,
    order: u64,
    frame: Frame,
}

#[derive(Clone, Copy, Default)]
struct Counted {
    lost: u64,
    duplicated: u64,
    reordered: u64,
    corrupted: u64,
    queue_full: u64,
    no_frame: u64,
}

impl<D: Device> Impair<D> {
    /// Puts `tx` and `rx` between the worker and `inner`. `umem` is the memory of the worker's
    /// pool. All memory is allocated here.
    pub fn new(
        inner: D,
        umem: &Arc<Umem>,
        tx: Option<Options>,
        rx: Option<Options>,
        seed: u64,
    ) -> Impair<D> {
        let mut seeds = Rng::new(seed);
        let mut lane = |options| Lane::new(options, seeds.next());
        Impair {
            inner,
            tx: tx.map(&mut lane),
            rx: rx.map(&mut lane),
            leaving: Burst::new(),
            arrived: Burst::new(),
            umem: umem.clone(),
        }
    }
}

impl<D: Device> Device for Impair<D> {
    fn rx(&mut self, now: Instant, pool: &mut Pool, rx: &mut Burst) {
        let Some(lane) = &mut self.rx else { return self.inner.rx(now, pool, rx) };
        self.inner.rx(now, pool, &mut self.arrived);
        lane.admit(now, pool, &mut self.arrived);
        lane.release(now, rx);
    }

    fn tx(&mut self, now: Instant, pool: &mut Pool, tx: &mut Burst) {
        let Some(lane) = &mut self.tx else { return self.inner.tx(now, pool, tx) };
        lane.admit(now, pool, tx);
        lane.release(now, &mut self.leaving);
        self.inner.tx(now, pool, &mut self.leaving);
    }

    fn lent(&self) -> usize {
        let held = self.lanes().map(|lane| lane.held.len()).sum::<usize>();
        self.inner.lent() + held + self.leaving.len()
    }

    fn report(&self) -> Report {
        // What was changed on its way must not get a checksum that fits.
        let mut report = Report { sums: false, ..self.inner.report() };
        let mut sum = Counted::default();
        self.lanes().for_each(|lane| sum.add(lane.counted));
        let Counted { lost, duplicated, reordered, corrupted, queue_full, no_frame } = sum;
        report.counters.extend([
            ("impair_lost_total", lost),
            ("impair_duplicated_total", duplicated),
            ("impair_reordered_total", reordered),
            ("impair_corrupted_total", corrupted),
            ("impair_queue_full_total", queue_full),
            ("impair_no_frame_total", no_frame),
        ]);
        report
    }

    fn next_deadline(&self) -> Option<Instant> {
        let held = self.lanes().filter_map(|lane| lane.held.peek()).map(|held| held.at);
        held.chain(self.inner.next_deadline()).min()
    }
}

impl<D> Impair<D> {
    fn lanes(&self) -> impl Iterator<Item = &Lane> {
        self.tx.iter().chain(&self.rx)
    }
}

impl<D> Drop for Impair<D> {
    fn drop(&mut self) {
        for lane in self.tx.iter_mut().chain(&mut self.rx) {
            self.umem.bury(lane.held.drain().map(|held| held.frame));
        }
        let count = self.leaving.len();
        self.umem.bury(self.leaving.drain(count));
    }
}

impl Lane {
    fn new(options: Options, seed: u64) -> Lane {
        Lane {
            held: BinaryHeap::with_capacity(options.queue_frames as usize),
            options,
            rng: Rng::new(seed),
            admitted: 0,
            last: Instant::ZERO,
            idle_at: Instant::ZERO,
            counted: Counted::default(),
        }
    }

    /// Takes every frame of `burst`, and decides its fate.
    fn admit(&mut self, now: Instant, pool: &mut Pool, burst: &mut Burst) {
        let count = burst.len();
        for frame in burst.drain(count) {
            if self.rng.chance(self.options.loss) {
                self.counted.lost += 1;
                pool.put(frame);
                continue;
            }
            let copy = self.copy(pool, &frame);
            self.hold(now, pool, frame);
            if let Some(copy) = copy {
                self.hold(now, pool, copy);
            }
        }
    }

    fn copy(&mut self, pool: &mut Pool, frame: &Frame) -> Option<Frame> {
        if !self.rng.chance(self.options.duplicate) {
            return None;
        }
        let Some(mut copy) = pool.take() else {
            self.counted.no_frame += 1;
            return None;
        };
        self.counted.duplicated += 1;
        copy.reset(frame.bytes().len());
        copy.bytes_mut().copy_from_slice(frame.bytes());
        Some(copy)
    }

    /// Sends the frame on its way, or drops it if there are too many.
    fn hold(&mut self, now: Instant, pool: &mut Pool, mut frame: Frame) {
        if self.held.len() == self.options.queue_frames as usize {
            self.counted.queue_full += 1;
            return pool.put(frame);
        }
        if self.rng.chance(self.options.corrupt) {
            self.corrupt(frame.bytes_mut());
        }
        let mut sent = now;
        if let Some(rate_bps) = self.options.rate_bps {
            let bits = frame.bytes().len() as u64 * 8;
            let takes = Span::from_nanos(bits * 1_000_000_000 / rate_bps.max(1));
            sent = now.max(self.idle_at) + takes;
            self.idle_at = sent;
        }
        let jitter = self.rng.below(self.options.jitter.as_nanos().saturating_add(1));
        let mut at = sent + self.options.delay + Span::from_nanos(jitter);
        if self.rng.chance(self.options.reorder) {
            self.counted.reordered += 1;
            at += Span::from_nanos(1 + self.rng.below(self.options.reorder_hold.as_nanos()));
        } else {
            at = at.max(self.last);
            self.last = at;
        }
        self.held.push(Held { at, order: self.admitted, frame });
        self.admitted += 1;
    }

    fn corrupt(&mut self, bytes: &mut [u8]) {
        let Some((header, datagram)) = bytes.split_at_mut_checked(ETHERNET_BYTES) else { return };
        let datagram = match header[12..] {
            [0x08, 0x00] => datagram,
            [0x86, 0xdd] => datagram.get_mut(8..).unwrap_or_default(),
            _ => return,
        };
        let words = datagram.len() as u64 / 2;
        if words == 0 {
            return;
        }
        self.counted.corrupted += 1;
        let word = self.rng.below(words) as usize;
        let mut flips = 0;
        for _ in 0..1 + self.rng.below(FLIPS_MAX) {
            flips |= 1 << self.rng.below(16);
        }
        for (byte, flips) in datagram[word * 2..].iter_mut().zip(u16::to_be_bytes(flips)) {
            *byte ^= flips;
        }
    }

    /// Hands on what is due, in order of time, as far as there is room.
    fn release(&mut self, now: Instant, out: &mut Burst) {
        while out.room() > 0 && self.held.peek().is_some_and(|held| held.at <= now) {
            out.push(self.held.pop().expect("just seen").frame);
        }
    }
}

impl Counted {
    fn add(&mut self, other: Counted) {
        let Counted { lost, duplicated, reordered, corrupted, queue_full, no_frame } = other;
        self.lost += lost;
        self.duplicated += duplicated;
        self.reordered += reordered;
        self.corrupted += corrupted;
        self.queue_full += queue_full;
        self.no_frame += no_frame;
    }
}

/// The greatest, which the heap gives first, is the one that comes due first.
impl Ord for Held {
    fn cmp(&self, other: &Held) -> Ordering {
        (other.at, other.order).cmp(&(self.at, self.order))
    }
}

impl PartialOrd for Held {
    fn partial_cmp(&self, other: &Held) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Held {
    fn eq(&self, other: &Held) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Held {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::link::{self, Link};

    const FRAMES: u32 = 4096;

    /// A sender behind the impairment (in its tx, or else in the receiver's rx), a plain link, and
    /// a receiver.
    struct Rig {
        dev: Impair<Link>,
        pool: Pool,
        peer: Impair<Link>,
        peer_pool: Pool,
        now: Instant,
        sent: u64,
    }

    impl Rig {
        fn new(options: Options, seed: u64) -> Rig {
            Rig::of(Some(options), None, seed)
        }

        fn of(tx: Option<Options>, rx: Option<Options>, seed: u64) -> Rig {
            let (pool, peer_pool) = Pool::pair(FRAMES).unwrap();
            let (a, b) = link::pair(pool.umem(), 2048);
            let dev = Impair::new(a, pool.umem(), tx, None, seed);
            let peer = Impair::new(b, pool.umem(), None, rx, seed);
            Rig { dev, pool, peer, peer_pool, now: Instant::ZERO, sent: 0 }
        }

        /// Sends `count` frames of 100 bytes that begin with their number.
        fn send(&mut self, count: u64) {
            let mut tx = Burst::new();
            for _ in 0..count {
                let mut frame = self.pool.take().unwrap();
                frame.reset(100);
                frame.bytes_mut().fill(0);
                frame.bytes_mut()[..8].copy_from_slice(&self.sent.to_be_bytes());
                frame.bytes_mut()[12] = 0x08;
                self.sent += 1;
                tx.push(frame);
                self.dev.tx(self.now, &mut self.pool, &mut tx);
                assert!(tx.is_empty());
            }
        }

        /// Turns until `end`, jumping from deadline to deadline; answers what arrived, and when.
        fn run(&mut self, end: Instant) -> Vec<(Instant, Vec<u8>)> {
            let mut arrived = Vec::new();
            let (mut tx, mut rx) = (Burst::new(), Burst::new());
            loop {
                self.dev.tx(self.now, &mut self.pool, &mut tx);
                self.peer.rx(self.now, &mut self.peer_pool, &mut rx);
                let count = rx.len();
                for frame in rx.drain(count) {
                    arrived.push((self.now, frame.bytes().to_vec()));
                    self.peer_pool.put(frame);
                }
                self.peer.tx(self.now, &mut self.peer_pool, &mut tx);
                assert_eq!(self.pool.len() + self.dev.lent(), FRAMES as usize);
                assert_eq!(self.peer_pool.len() + self.peer.lent(), FRAMES as usize);
                if self.dev.inner.lent() > 0 {
                    continue;
                }
                let next = [self.dev.next_deadline(), self.peer.next_deadline()];
                match next.into_iter().flatten().min() {
                    Some(at) if at <= end => self.now = self.now.max(at),
                    _ => return arrived,
                }
            }
        }

        fn counter(&self, name: &str) -> u64 {
            let found = |report: Report| {
                report
                    .counters
                    .iter()
                    .filter(|(other, _)| *other == name)
                    .map(|(_, n)| n)
                    .sum::<u64>()
            };
            found(self.dev.report()) + found(self.peer.report())
        }
    }

    fn numbers(arrived: &[(Instant, Vec<u8>)]) -> Vec<u64> {
        arrived
            .iter()
            .map(|(_, frame)| u64::from_be_bytes(frame[..8].try_into().unwrap()))
            .collect()
    }

    fn secs(secs: u64) -> Instant {
        Instant::ZERO + Span::from_secs(secs)
    }

    #[test]
    fn a_good_network_changes_nothing() {
        let mut rig = Rig::new(Options::default(), 1);
        rig.send(500);
        assert_eq!(numbers(&rig.run(Instant::ZERO)), (0..500).collect::<Vec<_>>());
    }

    #[test]
    fn losses_come_at_their_probability_and_are_counted() {
        let mut rig = Rig::new(Options { loss: 0.3, queue_frames: 2000, ..Options::default() }, 2);
        rig.send(2000);
        let arrived = numbers(&rig.run(secs(1)));
        assert!((1300..1500).contains(&arrived.len()), "{}", arrived.len());
        assert!(arrived.is_sorted());
        assert_eq!(rig.counter("impair_lost_total") + arrived.len() as u64, 2000);
    }

    #[test]
    fn a_duplicate_follows_its_frame() {
        let mut rig = Rig::new(Options { duplicate: 1.0, ..Options::default() }, 3);
        rig.send(10);
        let expected: Vec<u64> = (0..20).map(|n| n / 2).collect();
        assert_eq!(numbers(&rig.run(secs(1))), expected);
        assert_eq!(rig.counter("impair_duplicated_total"), 10);
    }

    #[test]
    fn no_frame_for_a_duplicate_is_counted_not_fatal() {
        let mut rig = Rig::new(Options { duplicate: 1.0, ..Options::default() }, 3);
        let kept: Vec<Frame> = (0..FRAMES - 1).map(|_| rig.pool.take().unwrap()).collect();
        rig.send(1);
        kept.into_iter().for_each(|frame| rig.pool.put(frame));
        assert_eq!((rig.run(secs(1)).len(), rig.counter("impair_no_frame_total")), (1, 1));
    }

    #[test]
    fn corruption_flips_one_to_three_bits_of_one_word_of_a_datagram() {
        let mut rig = Rig::new(Options { corrupt: 1.0, ..Options::default() }, 4);
        rig.send(300);
        let mut seen = [0; 4];
        for (number, (_, frame)) in rig.run(secs(1)).into_iter().enumerate() {
            assert_eq!(
                frame[..14],
                [&(number as u64).to_be_bytes()[..], &[0; 4], &[8, 0]].concat()
            );
            let flips =
                frame[14..].chunks(2).map(|word| word[0].count_ones() + word[1].count_ones());
            let flips: Vec<u32> = flips.filter(|&count| count > 0).collect();
            assert_eq!(flips.len(), 1);
            seen[flips[0] as usize] += 1;
        }
        assert!(seen[1] > 60 && seen[2] > 60 && seen[3] > 60, "{seen:?}");
        assert_eq!(rig.counter("impair_corrupted_total"), 300);
    }

    #[test]
    fn delay_and_jitter_keep_the_order_and_their_bounds() {
        let (delay, jitter) = (Span::from_millis(5), Span::from_millis(3));
        let mut rig = Rig::new(Options { delay, jitter, ..Options::default() }, 5);
        rig.send(300);
        let arrived = rig.run(secs(1));
        assert_eq!(numbers(&arrived), (0..300).collect::<Vec<_>>());
        let (first, last) = (arrived[0].0, arrived[299].0);
        assert!(first >= Instant::ZERO + delay && last <= Instant::ZERO + delay + jitter);
        assert!(last > first);
    }

    #[test]
    fn a_reordered_frame_is_overtaken() {
        let mut rig = Rig::new(Options { reorder: 0.2, ..Options::default() }, 6);
        rig.send(300);
        let arrived = numbers(&rig.run(secs(1)));
        assert!(!arrived.is_sorted());
        let mut all = arrived.clone();
        all.sort_unstable();
        assert_eq!(all, (0..300).collect::<Vec<_>>());
        let behind = rig.counter("impair_reordered_total");
        assert!(behind > 20 && arrived[..arrived.len() - behind as usize].is_sorted());
    }

    #[test]
    fn the_bottleneck_sends_at_its_rate_and_its_queue_overflows() {
        // 100 bytes at 8 Mbit/s take 100 µs.
        let options = Options { rate_bps: Some(8_000_000), queue_frames: 50, ..Options::default() };
        let mut rig = Rig::new(options, 7);
        rig.send(80);
        let arrived = rig.run(secs(1));
        assert_eq!(numbers(&arrived), (0..50).collect::<Vec<_>>());
        for (number, (at, _)) in arrived.iter().enumerate() {
            assert_eq!(at.as_nanos(), (number as u64 + 1) * 100_000);
        }
        assert_eq!(rig.counter("impair_queue_full_total"), 30);
    }

    #[test]
    fn what_arrives_may_be_impaired_too() {
        let options = Options { loss: 0.5, delay: Span::from_millis(1), ..Options::default() };
        let mut rig = Rig::of(None, Some(options), 8);
        rig.send(400);
        let arrived = rig.run(secs(1));
        assert!((150..250).contains(&arrived.len()));
        assert!(arrived.iter().all(|(at, _)| at.as_nanos() == 1_000_000));
    }

    #[test]
    fn the_same_seed_gives_the_same_fate_and_another_seed_another() {
        let options = Options {
            loss: 0.2,
            duplicate: 0.2,
            reorder: 0.2,
            corrupt: 0.2,
            jitter: Span::from_millis(2),
            ..Options::default()
        };
        let trace = |seed| {
            let mut rig = Rig::new(options, seed);
            rig.send(300);
            rig.run(secs(1))
        };
        assert_eq!(trace(9), trace(9));
        assert_ne!(trace(9), trace(10));
    }

    #[test]
    fn the_memory_goes_with_frames_still_on_their_way() {
        let mut rig = Rig::new(Options { delay: Span::from_secs(1), ..Options::default() }, 1);
        rig.send(100);
        let umem = rig.pool.umem().clone();
        drop(rig);
        assert_eq!(umem.buried(), umem.chunks());
    }
}
