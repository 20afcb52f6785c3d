//! Client and server in one process on a virtual clock, over good and bad links, with the five laws checked after every
//! turn: every workload against every service, hundreds of seeds.
//!
//! `SHAKEDOWN_SEEDS=1000 cargo test --test sim` tries more of them; a failure prints its seed, and
//! `SHAKEDOWN_SEED=7 cargo test --test sim` runs just that one again.

use shakedown::app::client::{Client, Close, Load, Workload};
use shakedown::app::server::{Server, Service};
use shakedown::device::impair::Options;
use shakedown::sim::{self, Setup, Sim};
use shakedown::tcp::Keepalive;
use shakedown::time::{Instant, Span};
use std::path::{Path, PathBuf};

/// Seeds a test tries when the environment does not say: so many that the file takes under a minute.
const SEEDS: u64 = 8;
/// By then, on the virtual clock, everything is over: several times what the worst back-off takes.
const END: Instant = Instant::from_nanos(2 * 3600 * 1_000_000_000);
const CONNECTIONS: u64 = 12;
const KEEPALIVE: Keepalive =
    Keepalive { idle: Span::from_secs(20), interval: Span::from_secs(2), probes: 9 };

/// What the client does with which service.
type Pairing = (&'static str, fn() -> Workload, Close, Service);

const HTTP_SIZE: u64 = 9_000;

const PAIRINGS: [Pairing; 12] = [
    ("handshake, accept", || Workload::Handshake, Close::Fin, Service::Accept),
    ("handshake, discard", || Workload::Handshake, Close::Fin, Service::Discard),
    ("handshake by reset, discard", || Workload::Handshake, Close::Rst, Service::Discard),
    ("handshake by reset, accept", || Workload::Handshake, Close::Rst, Service::Accept),
    ("handshake, halfclose", || Workload::Handshake, Close::Fin, Service::HalfClose),
    ("handshake, chargen", || Workload::Handshake, Close::Fin, Service::Chargen),
    ("handshake by reset, chargen", || Workload::Handshake, Close::Rst, Service::Chargen),
    ("http", || http(1), Close::Fin, Service::Http { response_size: HTTP_SIZE }),
    ("http keep-alive", || http(3), Close::Fin, Service::Http { response_size: HTTP_SIZE }),
    ("http by reset", || http(2), Close::Rst, Service::Http { response_size: HTTP_SIZE }),
    ("rr, echo", || rr(4_000, 4_000), Close::Fin, Service::Echo),
    ("rr, discard", || rr(3_000, 0), Close::Fin, Service::Discard),
];

fn http(requests: u32) -> Workload {
    let response_bytes = Some(HTTP_SIZE);
    Workload::Http { host: "server".into(), path: "/".into(), requests, response_bytes }
}

fn rr(request_bytes: u64, response_bytes: u64) -> Workload {
    Workload::Rr { request_bytes, response_bytes, count: 3 }
}

fn load(close: Close) -> Load {
    Load { rate_per_second: None, connections: 5, count: Some(CONNECTIONS), close }
}

/// A setup in which only bad luck beyond belief, and no timer of its own, fails a connection.
fn patient(seed: u64, link: Options) -> Setup {
    let mut setup = Setup::new(seed, 1);
    for config in [&mut setup.a, &mut setup.b] {
        config.tcp.syn_retries = 20;
        config.tcp.data_retries = 20;
        config.tcp.rto_max = Span::from_secs(8);
        config.tcp.fin_wait2 = Span::from_secs(600);
        // A lost last ACK is asked for again, again and again, while the other end is in TIME-WAIT.
        config.tcp.msl = Span::from_secs(120);
        config.connections_max = 24;
    }
    setup.impair(link);
    setup
}

fn seeds() -> Vec<u64> {
    let number = |name| std::env::var(name).ok().map(|text| text.parse().expect(name));
    match number("SHAKEDOWN_SEED") {
        Some(seed) => vec![seed],
        None => (1..=number("SHAKEDOWN_SEEDS").unwrap_or(SEEDS)).collect(),
    }
}

/// Runs `scenario` for every seed; the first that fails prints itself and leaves pcap files.
fn for_all_seeds<R>(name: &str, scenario: impl Fn(u64, Option<PathBuf>) -> R) -> Vec<R> {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR"));
    seeds().into_iter().map(|seed| sim::examine(name, seed, directory, &scenario)).collect()
}

/// Every pairing over this link: all connections are opened, verified to the last byte, and closed on both sides.
fn every_pairing_over(link_name: &str, link: Options) {
    for (name, workload, close, service) in PAIRINGS {
        for_all_seeds(&format!("{name} over {link_name}"), |seed, captures| {
            let mut setup = Setup { captures, ..patient(seed, link) };
            // A RST that is lost leaves the server with a connection whose peer is gone: what keepalive is for.
            setup.b.listeners[0].keepalive = (close == Close::Rst).then_some(KEEPALIVE);
            let server = Server::new(vec![service], setup.b.connections_max);
            let mut sim = Sim::new(setup, Client::new(workload(), load(close), seed), server);
            assert!(
                sim.run(END, |sim| sim.a.engine.app.done()),
                "client not done: {:?}",
                outcome(&sim)
            );
            sim.run_out(END);
            all_went_well(&sim);
        });
    }
}

fn outcome(sim: &Sim<Client, Server>) -> String {
    let results = sim.a.engine.app.results();
    format!(
        "launched {} established {} finished {} failed {:?}; {} of {} left at {}",
        results.launched,
        results.established,
        results.finished,
        results.failed,
        sim.a.engine.connections(),
        sim.b.engine.connections(),
        sim.now()
    )
}

fn all_went_well(sim: &Sim<Client, Server>) {
    let results = sim.a.engine.app.results();
    assert_eq!(results.finished, CONNECTIONS, "{}", outcome(sim));
    assert_eq!((results.launched, results.established), (CONNECTIONS, CONNECTIONS));
    let errors = [
        results.status_errors,
        results.length_errors,
        results.protocol_errors,
        results.incomplete,
        results.verify_errors,
    ];
    assert_eq!(errors, [0; 5]);
}

#[test]
fn every_workload_ends_well_on_a_good_link() {
    every_pairing_over("a good link", Options::default());
}

#[test]
fn every_workload_ends_well_with_1_percent_lost() {
    every_pairing_over("1% loss", Options { loss: 0.01, ..Options::default() });
}

#[test]
fn every_workload_ends_well_with_10_percent_lost() {
    every_pairing_over("10% loss", Options { loss: 0.1, ..Options::default() });
}

#[test]
fn every_workload_ends_well_with_30_percent_lost() {
    every_pairing_over("30% loss", Options { loss: 0.3, ..Options::default() });
}

#[test]
fn every_workload_ends_well_with_duplicates() {
    every_pairing_over("duplicates", Options { duplicate: 0.3, ..Options::default() });
}

#[test]
fn every_workload_ends_well_with_segments_out_of_order() {
    every_pairing_over("reordering", Options { reorder: 0.3, ..Options::default() });
}

#[test]
fn every_workload_ends_well_with_10_percent_corrupted() {
    every_pairing_over("corruption", Options { corrupt: 0.1, ..Options::default() });
}

#[test]
fn every_workload_ends_well_over_a_long_way() {
    let (delay, jitter) = (Span::from_millis(150), Span::from_millis(100));
    every_pairing_over("delay", Options { delay, jitter, ..Options::default() });
}

#[test]
fn every_workload_ends_well_through_a_bottleneck() {
    let link = Options { rate_bps: Some(2_000_000), queue_frames: 20, ..Options::default() };
    every_pairing_over("bottleneck", link);
}

#[test]
fn every_workload_ends_well_with_everything_at_once() {
    every_pairing_over("everything", everything());
}

fn everything() -> Options {
    Options {
        loss: 0.05,
        duplicate: 0.05,
        reorder: 0.1,
        corrupt: 0.05,
        delay: Span::from_millis(2),
        jitter: Span::from_millis(3),
        rate_bps: Some(20_000_000),
        queue_frames: 100,
        reorder_hold: Span::from_millis(20),
    }
}
