//! Whole lives of connections, everything drawn from one seed: what the link does to frames, what
//! each host offers and how it behaves, what the connections do. Every byte must arrive once and in
//! order, every connection must end on both sides, and the five laws hold after every turn.
//!
//! `SHAKEDOWN_SEEDS=10000 cargo test --release --test sweep` tries more of them; a failure prints
//! its seed, and `SHAKEDOWN_SEED=7 cargo test --test sweep` runs just that one again.

use shakedown::app::client::{Client, Close, Load, Workload};
use shakedown::app::server::{Server, Service};
use shakedown::device::impair::Options;
use shakedown::rng::Rng;
use shakedown::sim::{self, Setup, Sim};
use shakedown::tcp::{self, Congestion, Ecn, End};
use shakedown::time::{Instant, Span};
use shakedown::wire::Family;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// Seeds tried when the environment does not say: so many that the file takes some seconds.
const SEEDS: u64 = 40;

/// By then, on the virtual clock, everything is over: several times what the worst back-off takes.
const END: Instant = Instant::from_nanos(12 * 3600 * 1_000_000_000);

#[test]
fn whatever_befalls_them_streams_arrive_whole_and_connections_end() {
    let number = |name| std::env::var(name).ok().map(|text| text.parse().expect(name));
    let seeds: RangeInclusive<u64> = match number("SHAKEDOWN_SEED") {
        Some(seed) => seed..=seed,
        None => 1..=number("SHAKEDOWN_SEEDS").unwrap_or(SEEDS),
    };
    let next = AtomicU64::new(*seeds.start());
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let tally: Vec<Tally> = std::thread::scope(|scope| {
        let work = || {
            let mut tally = Tally::default();
            loop {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed > *seeds.end() {
                    return tally;
                }
                let directory = Path::new(env!("CARGO_TARGET_TMPDIR"));
                tally.add(&sim::examine("sweep", seed, directory, one_life));
            }
        };
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let joined = threads.into_iter().map(|thread| thread.join());
        joined.map(|tally| tally.unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
    });
    let mut all = Tally::default();
    tally.iter().for_each(|part| all.add(part));
    println!("{all:?}");
    // What is not tried is not shown: of many seeds each of these must have met some.
    assert!(seeds.count() < 20 || (all.bytes > 0 && all.resent > 0 && all.held > 0));
}

/// What a seed, or all of them, did.
#[derive(Debug, Default)]
struct Tally {
    connections: u64,
    segments: u64,
    bytes: u64,
    resent: u64,
    held: u64,
}

impl Tally {
    fn add(&mut self, other: &Tally) {
        let Tally { connections, segments, bytes, resent, held } = other;
        self.connections += connections;
        self.segments += segments;
        self.bytes += bytes;
        self.resent += resent;
        self.held += held;
    }
}

/// Draws a world and lives in it to the end.
fn one_life(seed: u64, captures: Option<PathBuf>) -> Tally {
    let mut rng = Rng::new(seed ^ 0x5eed_0f11_fe00);
    let mut setup = Setup { captures, ..Setup::new(seed, 1) };
    match rng.below(3) {
        0 => {}
        1 => setup.over(&[Family::V6]),
        _ => setup.over(&[Family::V4, Family::V6]),
    }
    for config in [&mut setup.a.tcp, &mut setup.b.tcp] {
        *config = any_tcp(&mut rng);
    }
    (setup.a.connections_max, setup.b.connections_max) = (24, 24);
    (setup.a_to_b, setup.b_to_a) = (Some(any_link(&mut rng)), Some(any_link(&mut rng)));
    let (workload, service) = any_work(&mut rng);
    let connections = 1 + rng.below(6);
    let at_a_time = 1 + rng.below(connections) as u32;
    let load = Load {
        rate_per_second: None,
        connections: at_a_time,
        held: 0,
        count: Some(connections),
        close: Close::Fin,
    };
    let server = Server::new(vec![service], setup.b.connections_max);
    let client = Client::new(workload.clone(), load, setup.seed);
    let lossless = [&setup.a_to_b, &setup.b_to_a]
        .into_iter()
        .flatten()
        .all(|link| link.loss == 0.0 && link.corrupt == 0.0);
    let mut sim = Sim::new(setup, client, server);
    let said = || format!("{workload:?} with {service:?}, {connections} connections");
    assert!(
        sim.run(END, |sim| sim.a.engine.app.done()),
        "client not done: {}: {:?}",
        said(),
        sim.a.engine.app.results()
    );
    sim.run_out(END);
    judge(&sim, connections, lossless, &said());
    tally(&sim, connections)
}

/// Every connection ended well, and nothing was received that was not sent. ARP alone may fail: it
/// asks only so many times.
fn judge(sim: &Sim<Client, Server>, connections: u64, lossless: bool, said: &str) {
    let results = sim.a.engine.app.results();
    let unreachable = results.failed.of(End::Unreachable);
    assert!(!lossless || unreachable == 0, "{said}: {results:?}");
    assert_eq!(results.finished + unreachable, connections, "{said}: {results:?}");
    let errors = [
        results.status_errors,
        results.length_errors,
        results.protocol_errors,
        results.incomplete,
        results.verify_errors,
    ];
    assert_eq!(errors, [0; 5], "{said}");
}

fn tally(sim: &Sim<Client, Server>, connections: u64) -> Tally {
    let (a, b) = (&sim.a.engine.counters, &sim.b.engine.counters);
    Tally {
        connections,
        segments: sim.segments(),
        bytes: a.rx_payload_bytes + b.rx_payload_bytes,
        resent: a.retrans_segs + b.retrans_segs,
        held: a.ofo_queued + b.ofo_queued,
    }
}

/// Timers that outlast any luck; the rest as it comes.
fn any_tcp(rng: &mut Rng) -> tcp::Config {
    tcp::Config {
        timestamps: rng.chance(0.7),
        window_scaling: rng.chance(0.8),
        sack: rng.chance(0.7),
        ecn: one_of(rng, [Ecn::Off, Ecn::Accept, Ecn::Request]),
        congestion: one_of(rng, Congestion::ALL),
        nagle: rng.chance(0.2),
        delayed_ack: Span::from_millis(one_of(rng, [0, 40, 40, 200])),
        reassembly_bytes: one_of(rng, [1 << 22, 1 << 22, 20_000]),
        mss: tcp::Mss::both(one_of(rng, [1440, 1440, 1440, 536, 300])),
        window: one_of(rng, [65_535, 65_535, 1 << 20, 16_000, 3_000, 500]),
        rto_min: Span::from_millis(one_of(rng, [200, 200, 20, 1000])),
        syn_retries: 60,
        data_retries: 60,
        rto_max: Span::from_secs(4),
        fin_wait2: Span::from_secs(3000),
        // A lost last ACK is asked for again and again while the other end is in TIME-WAIT.
        msl: Span::from_secs(240),
        ..tcp::Config::default()
    }
}

fn any_link(rng: &mut Rng) -> Options {
    let rate_bps = one_of(rng, [None, None, Some(256_000), Some(2_000_000), Some(100_000_000)]);
    Options {
        loss: one_of(rng, [0.0, 0.0, 0.001, 0.01, 0.05, 0.1, 0.2, 0.3]),
        duplicate: one_of(rng, [0.0, 0.0, 0.01, 0.1]),
        reorder: one_of(rng, [0.0, 0.0, 0.01, 0.1, 0.3]),
        corrupt: one_of(rng, [0.0, 0.0, 0.01, 0.1]),
        delay: Span::from_micros(one_of(rng, [0, 50, 1000, 20_000, 150_000])),
        jitter: Span::from_micros(one_of(rng, [0, 0, 100, 5_000, 60_000])),
        rate_bps,
        queue_frames: one_of(rng, [10, 50, 1000]),
        reorder_hold: Span::from_millis(one_of(rng, [1, 20])),
    }
}

fn any_work(rng: &mut Rng) -> (Workload, Service) {
    let bytes = one_of(rng, [1, 100, 1_460, 10_000, 100_000, 400_000]);
    match rng.below(5) {
        0 => {
            let (host, path) = ("server".into(), "/".into());
            let requests = 1 + rng.below(3) as u32;
            let workload = Workload::Http { host, path, requests, response_bytes: Some(bytes) };
            (workload, Service::Http { response_size: bytes })
        }
        1 => {
            let (bytes, count) = (bytes.min(100_000), 1 + rng.below(3) as u32);
            let workload = Workload::Rr { request_bytes: bytes, response_bytes: bytes, count };
            (workload, Service::Echo)
        }
        2 => {
            let workload = Workload::Rr { request_bytes: bytes, response_bytes: 0, count: 1 };
            (workload, Service::Discard)
        }
        _ => {
            let (up_bytes, down_bytes) = one_of(rng, [(bytes, 0), (0, bytes), (bytes, bytes)]);
            (Workload::Stream { up_bytes, down_bytes }, Service::Stream)
        }
    }
}

fn one_of<T, const N: usize>(rng: &mut Rng, choices: [T; N]) -> T {
    let place = rng.below(N as u64) as usize;
    choices.into_iter().nth(place).expect("a place in the list")
}
