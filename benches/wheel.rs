//! The timing wheel next to a binary heap and a sorted map, at 1,000 and 1,000,000 filed timers.
//!
//! One operation is what a connection costs its timers: a random one moves to a new deadline up to
//! 60 s ahead (an RTO, a TIME-WAIT), the clock goes on by 60 s / timers, and what came due is filed
//! again.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use shakedown::rng::Rng;
use shakedown::time::{Instant, Span};
use shakedown::timer::Wheel;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::hint::black_box;

const AHEAD_NS: u64 = 60_000_000_000;
const DUE_MAX: usize = 64;

/// What each rival can do.
trait Timers {
    fn new(timers: u32) -> Self;
    fn arm(&mut self, node: u32, at: Instant);
    fn expire(&mut self, now: Instant, due: &mut Vec<u32>);
}

impl Timers for Wheel {
    fn new(timers: u32) -> Wheel {
        Wheel::new(timers, Instant::ZERO)
    }

    fn arm(&mut self, node: u32, at: Instant) {
        Wheel::arm(self, node, at);
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

    fn expire(&mut self, now: Instant, due: &mut Vec<u32>) {
        while let Some(entry) = self.entries.first_entry().filter(|first| first.key().0 <= now) {
            if due.len() == DUE_MAX {
                return;
            }
            due.push(entry.remove_entry().0.1);
        }
    }
}

fn run<T: Timers>(criterion: &mut Criterion, name: &str) {
    let mut group = criterion.benchmark_group("wheel");
    group.throughput(Throughput::Elements(1));
    for timers in [1_000u32, 1_000_000] {
        group.bench_function(BenchmarkId::new(name, timers), |bencher| {
            let mut rng = Rng::new(1);
            let mut now = Instant::ZERO;
            let mut due = Vec::with_capacity(DUE_MAX);
            let mut rival = T::new(timers);
            let mut later = |now: Instant| now + Span::from_nanos(1 + rng.below(AHEAD_NS));
            (0..timers).for_each(|node| rival.arm(node, later(now)));
            let mut nodes = Rng::new(2);
            bencher.iter(|| {
                now += Span::from_nanos(AHEAD_NS / u64::from(timers));
                rival.arm(nodes.below(u64::from(timers)) as u32, later(now));
                rival.expire(black_box(now), &mut due);
                for node in due.drain(..) {
                    rival.arm(node, later(now));
                }
            });
        });
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
