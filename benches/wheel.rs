//! The timing wheel next to a binary heap and a sorted map, with 1,000 to 1,000,000 filed timers.
//!
//! Each mix goes in turns as of the engine: a burst of 64 segments, of which each touches a random
//! timer, and the clock goes on by 64 * 60 s / timers. The burst is known before it is worked off,
//! as there, and so the memory of its timers can be asked for.
//! - `restart`: each timer moves to 60 s ahead, as what a segment restarts, and so do those that
//!   come due because no segment came for them;
//! - `move`: each timer moves to a random deadline up to 60 s ahead, half of them to an earlier
//!   one, and those that come due are filed so as well;
//! - `answer`: each timer is armed 200 ms ahead and cancelled, as a segment is sent and
//!   acknowledged, while half as many others come due and are filed 60 s ahead;
//! - `expire`: nothing but those that come due and are filed 60 s ahead.
//!
//! The time is that of an operation: a timer is armed, moved or cancelled, or comes due.

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use shakedown::rng::Rng;
use shakedown::time::{Instant, Span};
use shakedown::timer::Wheel;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::hint::black_box;
use std::time::Duration;

const AHEAD_NS: u64 = 60_000_000_000;
const RTO_NS: u64 = 200_000_000;
const DUE_MAX: usize = 256;
const BURST: usize = 64;
/// For the memory of so many timers ahead it is asked: a processor waits for some 20 lines at once,
/// and of more that come from afar it forgets those that it was asked for last.
const ASKED: usize = 16;
const DRAWN: usize = 1 << 12;

/// What each rival can do.
trait Timers {
    fn new(timers: u32) -> Self;
    /// Asks for a timer's memory, if there is anything to ask for.
    fn prefetch(&self, _node: u32) {}
    fn arm(&mut self, node: u32, at: Instant);
    fn cancel(&mut self, node: u32);
    fn expire(&mut self, now: Instant, due: &mut Vec<u32>);
}

impl Timers for Wheel {
    fn new(timers: u32) -> Wheel {
        Wheel::new(timers, Instant::ZERO)
    }

    fn prefetch(&self, node: u32) {
        Wheel::prefetch(self, node);
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
    drawn: Drawn,
    operations: u64,
}

/// Random numbers drawn before, and taken in turn: to draw one takes as long as some operations.
/// They are few, so that the cache is the timers', and all are moved on by as much after each
/// round.
struct Drawn {
    numbers: Vec<u32>,
    taken: usize,
    moved: u32,
}

/// 2^32 by the golden ratio: multiples of it are spread evenly.
const MOVED: u32 = 0x9e37_79b9;

impl Drawn {
    fn new() -> Drawn {
        let mut rng = Rng::new(1);
        let numbers = (0..DRAWN).map(|_| rng.next() as u32).collect();
        Drawn { numbers, taken: 0, moved: 0 }
    }

    /// A number below a bound, evenly.
    fn below(&mut self, bound: u64) -> u64 {
        self.taken = (self.taken + 1) % DRAWN;
        if self.taken == 0 {
            self.moved = self.moved.wrapping_add(MOVED);
        }
        let number = self.numbers[self.taken].wrapping_add(self.moved);
        ((u128::from(number) * u128::from(bound)) >> 32) as u64
    }
}

impl<T: Timers> Filed<T> {
    fn new(count: u32) -> Filed<T> {
        let mut timers = T::new(count);
        let step = AHEAD_NS / u64::from(count);
        (0..count).for_each(|node| timers.arm(node, Instant::from_nanos(u64::from(node) * step)));
        let (now, due) = (Instant::ZERO, Vec::with_capacity(DUE_MAX));
        Filed { timers, count: u64::from(count), now, due, drawn: Drawn::new(), operations: 0 }
    }

    /// Lets the clock go on by a burst, and files what came due `ahead` of it.
    fn step(&mut self, ahead: impl Fn(&mut Drawn) -> u64) {
        self.now += Span::from_nanos(BURST as u64 * AHEAD_NS / self.count);
        loop {
            self.timers.expire(black_box(self.now), &mut self.due);
            let came_due = self.due.len();
            self.operations += 2 * came_due as u64;
            for node in self.due.drain(..) {
                self.timers.arm(node, self.now + Span::from_nanos(ahead(&mut self.drawn)));
            }
            if came_due < DUE_MAX {
                return;
            }
        }
    }

    /// Does something to each of a burst of random timers of the first `of`.
    fn burst(&mut self, of: u64, mut act: impl FnMut(&mut Self, u32)) {
        let nodes: [u32; BURST] = std::array::from_fn(|_| self.drawn.below(of) as u32);
        let nodes = black_box(nodes);
        nodes[..ASKED].iter().for_each(|&node| self.timers.prefetch(node));
        for (at, &node) in nodes.iter().enumerate() {
            if let Some(&soon) = nodes.get(at + ASKED) {
                self.timers.prefetch(soon);
            }
            act(self, node);
        }
    }

    fn restarted(&mut self) {
        self.burst(self.count, |filed, node| {
            filed.timers.arm(node, filed.now + Span::from_nanos(AHEAD_NS));
            filed.operations += 1;
        });
        self.step(|_| AHEAD_NS);
    }

    fn moved(&mut self) {
        self.burst(self.count, |filed, node| {
            let at = filed.now + Span::from_nanos(1 + filed.drawn.below(AHEAD_NS));
            filed.timers.arm(node, at);
            filed.operations += 1;
        });
        self.step(|drawn| 1 + drawn.below(AHEAD_NS));
    }

    /// The lower half of the timers is never armed for long; the upper half is what is filed
    /// meanwhile.
    fn answered(&mut self) {
        self.burst(self.count / 2, |filed, node| {
            filed.timers.arm(node, filed.now + Span::from_nanos(RTO_NS));
            filed.timers.cancel(black_box(node));
            filed.operations += 2;
        });
        self.step(|_| AHEAD_NS);
    }

    fn expired(&mut self) {
        self.step(|_| AHEAD_NS);
    }

    /// Turns until so many operations are done; the time that they took.
    fn timed(&mut self, operations: u64, turn: fn(&mut Self)) -> Duration {
        let (before, start) = (self.operations, std::time::Instant::now());
        while self.operations - before < operations {
            turn(self);
        }
        // The last turn did more than was asked for.
        start.elapsed().mul_f64(operations as f64 / (self.operations - before) as f64)
    }
}

/// A mix's name, and a turn of it.
type Mix<T> = (&'static str, fn(&mut Filed<T>));

fn run<T: Timers>(criterion: &mut Criterion, name: &str) {
    let mixes: [Mix<T>; 4] = [
        ("restart", Filed::restarted),
        ("move", Filed::moved),
        ("answer", Filed::answered),
        ("expire", Filed::expired),
    ];
    let mut group = criterion.benchmark_group("wheel");
    group.sample_size(20);
    group.warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(2));
    for (mix, turn) in mixes {
        for timers in [1_000u32, 100_000, 1_000_000] {
            let mut filed = None;
            group.bench_function(BenchmarkId::new(format!("{mix}/{name}"), timers), |bencher| {
                let filed = filed.get_or_insert_with(|| {
                    let mut filed = Filed::<T>::new(timers);
                    filed.timed(6 * u64::from(timers), turn);
                    filed
                });
                bencher.iter_custom(|operations| filed.timed(operations, turn));
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
