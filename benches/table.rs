//! The connection table next to a std `HashMap` and a scan of a vector, from a four-tuple to a
//! number.
//!
//! `cargo bench --bench table`. `find` looks up random connections that are there; `replace` takes
//! the oldest out and files a new one. The table keeps keys in its control blocks: finding one has
//! fetched the line of memory that the engine needs next, and filing one writes the block. The map
//! keeps them beside its numbers and does neither.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use shakedown::engine::table::Table;
use shakedown::flow::FlowKey;
use shakedown::rng::{Rng, Secret};
use shakedown::tcp::Config;
use std::collections::HashMap;
use std::hint::black_box;
use std::time::Duration;

const SIZES: &[u32] = &[1_000, 100_000, 1_000_000, 10_000_000];

/// What each rival can do.
trait Index {
    fn new(max: u32) -> Self;
    fn find(&self, key: &FlowKey) -> Option<u32>;
    fn insert(&mut self, key: FlowKey);
    fn remove(&mut self, key: &FlowKey);
}

impl Index for Table<(), ()> {
    fn new(max: u32) -> Table<(), ()> {
        Table::new(max, 0, Secret::from_seed(1), &Config::default())
    }

    fn find(&self, key: &FlowKey) -> Option<u32> {
        Table::find(self, key)
    }

    fn insert(&mut self, key: FlowKey) {
        let slot = Table::insert(self, &key, self.hash(&key), ());
        assert!(slot.is_some());
    }

    fn remove(&mut self, key: &FlowKey) {
        let slot = Table::find(self, key).expect("the key is there");
        self.unfile(slot);
        self.release(slot);
    }
}

impl Index for HashMap<FlowKey, u32> {
    fn new(max: u32) -> HashMap<FlowKey, u32> {
        HashMap::with_capacity(max as usize)
    }

    fn find(&self, key: &FlowKey) -> Option<u32> {
        self.get(key).copied()
    }

    fn insert(&mut self, key: FlowKey) {
        HashMap::insert(self, key, u32::from(key.local_port));
    }

    fn remove(&mut self, key: &FlowKey) {
        HashMap::remove(self, key);
    }
}

/// What a stack without an index does.
struct Scan(Vec<FlowKey>);

impl Index for Scan {
    fn new(max: u32) -> Scan {
        Scan(Vec::with_capacity(max as usize))
    }

    fn find(&self, key: &FlowKey) -> Option<u32> {
        self.0.iter().position(|filed| filed == key).map(|place| place as u32)
    }

    fn insert(&mut self, key: FlowKey) {
        self.0.push(key);
    }

    fn remove(&mut self, key: &FlowKey) {
        let place = self.find(key).expect("the key is there");
        self.0.swap_remove(place as usize);
    }
}

fn key(number: u32) -> FlowKey {
    let remote = (0x0a01_0000 + (number >> 15)).to_be_bytes();
    FlowKey::v4(([10, 0, 0, 2], 80), (remote, 1024 + (number & 0x7fff) as u16))
}

fn run<I: Index>(criterion: &mut Criterion, name: &str, sizes: &[u32]) {
    let mut group = criterion.benchmark_group("table");
    group.throughput(Throughput::Elements(1)).sample_size(20);
    group.warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(2));
    for &size in sizes {
        let mut index = I::new(size);
        (0..size).for_each(|number| index.insert(key(number)));
        let mut rng = Rng::new(2);
        group.bench_function(BenchmarkId::new(format!("find/{name}"), size), |bencher| {
            bencher.iter(|| {
                let found = index.find(black_box(&key(rng.below(u64::from(size)) as u32)));
                assert!(found.is_some());
            });
        });
        // Those of `first..first + size` are filed.
        let mut first = 0;
        group.bench_function(BenchmarkId::new(format!("replace/{name}"), size), |bencher| {
            bencher.iter(|| {
                index.remove(black_box(&key(first)));
                index.insert(key(first.wrapping_add(size)));
                first = first.wrapping_add(1);
            });
        });
    }
    group.finish();
}

fn table(criterion: &mut Criterion) {
    run::<Table<(), ()>>(criterion, "table", SIZES);
    run::<HashMap<FlowKey, u32>>(criterion, "std_hash_map", SIZES);
    run::<Scan>(criterion, "vec_scan", &[1_000, 100_000]);
}

criterion_group!(benches, table);
criterion_main!(benches);
