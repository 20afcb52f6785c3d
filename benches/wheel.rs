//! The timing wheel next to a binary heap and a sorted map, with 1,000 to 1,000,000 filed timers.
//!
//! What a connection costs its timers, in three mixes; with each iteration the clock goes on by
//! 60 s / timers:
//! - `move`: a random timer moves to a deadline up to 60 s ahead (a TIME-WAIT, a keepalive), and
//!   what came due is filed again;
//! - `answer`: a random timer is armed 200 ms ahead and cancelled, as a segment is sent and
//!   acknowledged: two operations;
//! - `expire`: the one timer that is due comes out and is filed 60 s ahead: two operations.
//!
//! Throughput counts operations where their number is known; the time is that of an iteration.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use shakedown::rng::Rng;
use shakedown::time::{Instant, Span};
use shakedown::timer::Wheel;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::hint::black_box;
use std::time::Duration;

const AHEAD_NS: u64 = 60_000_000_000;
const RTO_NS: u64 = 200_000_000;
const DUE_MAX: usize = 64;

/// What each rival can do.
trait Timers {
    fn new(timers: u32) -> Self;
    fn arm(&mut self, node: u32, at: Instant);
    fn cancel(&mut self, node: u32);
    fn expire(&mut self, now: Instant, due: &mut Vec<u32>);
}

impl Timers for Wheel {
    fn new(timers: u32) -> Wheel {
        Wheel::new(timers, Instant::ZERO)
    }

    fn arm(&mut self, node: u32, at: Instant) {
        Wheel::arm(self, node, at);
    }

    fn cancel(&mut self, node: u32) {
        Wheel::cancel(self, node);
    }

    fn expire(&mut self, now: Instant, due: &mut Vec<u32>) {
        Wheel::expire(self, now, DUE_MAX, due);
    }
}

/// A heap can't take a node out: it leaves the old entry, and skips it when it comes up.
struct Heap {
    entries: BinaryHeap<Reverse<(Instant, u32)>>,
    current: Vec<Instant>,
}

impl Timers for Heap {
    fn new(timers: u32) -> Heap {
        Heap { entries: BinaryHeap::new(), current: vec![Instant::NEVER; timers as usize] }
    }

    fn arm(&mut self, node: u32, at: Instant) {
        self.current[node as usize] = at;
        self.entries.push(Reverse((at, node)));
    }

    fn cancel(&mut self, node: u32) {
        self.current[node as usize] = Instant::NEVER;
    }

    fn expire(&mut self, now: Instant, due: &mut Vec<u32>) {
        while let Some(&Reverse((at, node))) = self.entries.peek().filter(|top| top.0.0 <= now) {
            if due.len() == DUE_MAX {
                return;
            }
            self.entries.pop();
            if self.current[node as usize] == at {
                due.push(node);
            }
        }
    }
}

struct Sorted {
    entries: BTreeMap<(Instant, u32), ()>,
    current: Vec<Instant>,
}

impl Timers for Sorted {
    fn new(timers: u32) -> Sorted {
        Sorted { entries: BTreeMap::new(), current: vec![Instant::NEVER; timers as usize] }
    }

    fn arm(&mut self, node: u32, at: Instant) {
        self.entries.remove(&(self.current[node as usize], node));
        self.current[node as usize] = at;
        self.entries.insert((at, node), ());
    }

    fn cancel(&mut self, node: u32) {
        self.entries.remove(&(self.current[node as usize], node));
        self.current[node as usize] = Instant::NEVER;
    }

    fn expire(&mut self, now: Instant, due: &mut Vec<u32>) {
        while let Some(entry) = self.entries.first_entry().filter(|first| first.key().0 <= now) {
            if due.len() == DUE_MAX {
                return;
            }
            due.push(entry.remove_entry().0.1);
        }
    }
}

/// Timers spread over the next 60 s, and the clock that they are filed by.
struct Filed<T> {
    timers: T,
    count: u64,
    now: Instant,
    due: Vec<u32>,
    rng: Rng,
}

impl<T: Timers> Filed<T> {
    fn new(count: u32) -> Filed<T> {
        let mut timers = T::new(count);
        let step = AHEAD_NS / u64::from(count);
        (0..count).for_each(|node| timers.arm(node, Instant::from_nanos(u64::from(node) * step)));
        let (now, due) = (Instant::ZERO, Vec::with_capacity(DUE_MAX));
        Filed { timers, count: u64::from(count), now, due, rng: Rng::new(1) }
    }

    /// Lets the clock go on by one step, and files what came due `ahead` of it.
    fn step(&mut self, ahead: impl Fn(&mut Rng) -> u64) {
        self.now += Span::from_nanos(AHEAD_NS / self.count);
        self.timers.expire(black_box(self.now), &mut self.due);
        for node in self.due.drain(..) {
            self.timers.arm(node, self.now + Span::from_nanos(ahead(&mut self.rng)));
        }
    }

    fn random(&mut self) -> u32 {
        self.rng.below(self.count) as u32
    }

    fn move_one(&mut self) {
        let node = self.random();
        let at = self.now + Span::from_nanos(1 + self.rng.below(AHEAD_NS));
        self.timers.arm(node, at);
        self.step(|rng| 1 + rng.below(AHEAD_NS));
    }

    /// The lower half of the timers is never armed for long; the upper half is what is filed
    /// meanwhile.
    fn answer_one(&mut self) {
        let node = self.random() / 2;
        self.timers.arm(node, self.now + Span::from_nanos(RTO_NS));
        self.timers.cancel(black_box(node));
        self.step(|_| AHEAD_NS);
    }

    fn expire_one(&mut self) {
        self.step(|_| AHEAD_NS);
    }
}

/// A mix's name, its operations, and the mix.
type Mix<T> = (&'static str, u64, fn(&mut Filed<T>));

fn run<T: Timers>(criterion: &mut Criterion, name: &str) {
    let mixes: [Mix<T>; 3] = [
        ("move", 1, Filed::move_one),
        ("answer", 2, Filed::answer_one),
        ("expire", 2, Filed::expire_one),
    ];
    let mut group = criterion.benchmark_group("wheel");
    group.sample_size(20);
    group.warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(2));
    for (mix, operations, once) in mixes {
        group.throughput(Throughput::Elements(operations));
        for timers in [1_000u32, 100_000, 1_000_000] {
            group.bench_function(BenchmarkId::new(format!("{mix}/{name}"), timers), |bencher| {
                let mut filed = Filed::<T>::new(timers);
                bencher.iter(|| once(&mut filed));
            });
        }
    }
    group.finish();
}

fn wheel(criterion: &mut Criterion) {
    run::<Wheel>(criterion, "wheel");
    run::<Heap>(criterion, "binary_heap");
    run::<Sorted>(criterion, "btree_map");
}

criterion_group!(benches, wheel);
criterion_main!(benches);
