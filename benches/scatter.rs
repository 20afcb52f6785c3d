//! Segments from anywhere: each of a burst of 64 is of a random one of 1,000 to 1,000,000
//! established connections, carries a byte, and is in time acknowledged.
//!
//! `awake`: every connection keeps its slot. `resting`: those that are silent for 50 ms leave it,
//! which with 100,000 and more is nearly all before their next segment.
//!
//! The time is the engine's, a segment; the frames are written apart.

#[path = "../tests/common/crowd.rs"]
#[allow(dead_code)] // The tests use the rest of it.
mod crowd;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use crowd::{Crowd, ack, config, syn};
use shakedown::app::server::{Server, Service};
use shakedown::engine::Config;
use shakedown::frame::{BURST_FRAMES_MAX as BURST, Burst};
use shakedown::tcp;
use shakedown::time::Span;
use shakedown::wire::segment::Segment;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

const PORTS: u32 = 50_000;

/// An engine, and what the peer of each of its connections sends next.
struct Scattered {
    crowd: Crowd<Server>,
    peers: Vec<Segment>,
}

impl Scattered {
    fn new(connections: u32, awake_max: u32) -> Scattered {
        let config = Config { awake_max, ..config(connections, tcp::Config::default()) };
        let mut crowd = Crowd::of(config, Server::new(vec![Service::Discard], connections));
        let peer = |number: u32| {
            let host = Ipv4Addr::from_bits(0x0b00_0001 + number / PORTS);
            syn(IpAddr::V4(host), 1024 + (number % PORTS) as u16)
        };
        let mut peers = Vec::new();
        for first in (0..connections).step_by(BURST) {
            let syns: Vec<Segment> = (first..connections).take(BURST).map(peer).collect();
            let acks: Vec<Segment> = crowd.turn(&syns).iter().map(ack).collect();
            crowd.turn(&acks);
            peers.extend(acks);
        }
        assert_eq!(peers.len(), connections as usize, "all are established");
        Scattered { crowd, peers }
    }

    /// A byte of each of a burst of random peers.
    fn burst(&mut self) -> Burst {
        let segments: [Segment; BURST] = std::array::from_fn(|_| {
            let peer = self.crowd.rng.below(self.peers.len() as u64) as usize;
            let peer = &mut self.peers[peer];
            let segment = Segment { payload_len: 1, ..*peer };
            peer.seq = peer.seq.wrapping_add(1);
            segment
        });
        self.crowd.burst(&segments)
    }

    /// Lets so many segments arrive; how long the engine took for them and for what it sent.
    fn timed(&mut self, segments: u64) -> Duration {
        let bursts = segments.div_ceil(BURST as u64);
        let mut took = Duration::ZERO;
        for _ in 0..bursts {
            let (mut rx, mut tx) = (self.burst(), Burst::new());
            self.crowd.now += Span::from_micros(64);
            loop {
                let start = Instant::now();
                self.crowd.engine.poll(self.crowd.now, &mut self.crowd.pool, &mut rx, &mut tx);
                took += start.elapsed();
                let sent = tx.len();
                if sent == 0 {
                    break;
                }
                tx.drain(sent).for_each(|frame| self.crowd.pool.put(frame));
            }
        }
        // The last burst may be more than was asked for.
        took.mul_f64(segments as f64 / (bursts * BURST as u64) as f64)
    }
}

fn scatter(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("scatter");
    group.sample_size(20).throughput(Throughput::Elements(1));
    group.warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(2));
    for connections in [1_000, 100_000, 1_000_000] {
        for (name, awake_max) in [("awake", connections), ("resting", 0)] {
            let mut scattered = None;
            group.bench_function(BenchmarkId::new(name, connections), |bencher| {
                let scattered =
                    scattered.get_or_insert_with(|| Scattered::new(connections, awake_max));
                bencher.iter_custom(|segments| scattered.timed(segments));
            });
        }
    }
    group.finish();
}

criterion_group!(benches, scatter);
criterion_main!(benches);
