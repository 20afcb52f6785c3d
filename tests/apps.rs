//! Client and server applications over real engines and the in-memory link: each workload against
//! the service it is for. Nothing is lost on the way, so every number is exact.

use shakedown::app::client::{Client, Close, Load, Workload};
use shakedown::app::server::{Server, Service};
use shakedown::app::stream::ENDLESS;
use shakedown::device::link::{self, Link};
use shakedown::engine::{Config, Engine, Listener, Subnet};
use shakedown::flow::tuples::{Range, Ranges, Target};
use shakedown::frame::Pool;
use shakedown::tcp::{self, End};
use shakedown::time::{Instant, Span};
use shakedown::wire::ethernet::Mac;
use shakedown::wire::segment::Verify;
use shakedown::worker::Worker;
use std::net::Ipv4Addr;

const SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const CONNECTIONS_MAX: u32 = 4096;
const COUNT: u64 = 500;

/// A client and a server with one service, a link between them, and a clock.
struct Pair {
    client: Worker<Link, Client>,
    server: Worker<Link, Server>,
    now: Instant,
}

fn config(address: Ipv4Addr, mac: u8) -> Config {
    Config {
        mac: Mac([2, 0, 0, 0, 0, mac]),
        mtu: 1500,
        ttl: 64,
        subnets: vec![Subnet::only(address, 24)],
        gateways: vec![],
        listeners: vec![],
        ranges: None,
        keepalive: None,
        connections_max: CONNECTIONS_MAX,
        awake_max: 0,
        tcp: tcp::Config { msl: Span::from_millis(2), ..tcp::Config::default() },
        verify: Verify::All,
        device_sums: false,
        seed: u64::from(mac),
    }
}

impl Pair {
    fn new(service: Service, workload: Workload, load: Load) -> Pair {
        let (ours, theirs) = Pool::pair(1024).unwrap();
        let (near, far) = link::pair(ours.umem(), 256);
        let listeners = vec![Listener { port: 80, keepalive: None }];
        let server_config = Config { listeners, ..config(SERVER, 2) };
        let addresses = Range::only(SERVER);
        let ranges = Ranges {
            locals: vec![Range::only(CLIENT)],
            first_port: 1024,
            last_port: 65_535,
            targets: vec![Target { addresses, first_port: 80, last_port: 80 }],
            share: 0,
            shares: 1,
            rss: None,
        };
        let client_config = Config { ranges: Some(ranges), ..config(CLIENT, 1) };
        let client = Client::new(workload, load, 7);
        let server = Server::new(vec![service], CONNECTIONS_MAX);
        Pair {
            client: Worker::new(near, Engine::new(client_config, client, Instant::ZERO), ours),
            server: Worker::new(far, Engine::new(server_config, server, Instant::ZERO), theirs),
            now: Instant::ZERO,
        }
    }

    /// Turns until `done`, at most for `span`.
    fn run(&mut self, span: Span, mut done: impl FnMut(&Pair) -> bool) {
        let end = self.now + span;
        while !done(self) {
            assert!(self.now < end, "not done in {span}: {:?}", self.client.engine.app.results());
            self.now += Span::from_micros(10);
            self.client.turn(self.now);
            self.server.turn(self.now);
        }
    }

    /// Runs to the end of the count and of every TIME-WAIT; then nothing may be left anywhere.
    fn finish(&mut self) {
        self.run(Span::from_secs(30), |pair| {
            let tables = [pair.client.engine.connections(), pair.server.engine.connections()];
            pair.client.engine.app.done() && tables == [0, 0]
        });
        self.client.engine.check();
        self.server.engine.check();
        let retransmitted = self.client.engine.counters.retrans_segs;
        assert_eq!(retransmitted + self.server.engine.counters.retrans_segs, 0);
    }

    fn segments(&self) -> u64 {
        self.client.engine.counters.out_segs + self.server.engine.counters.out_segs
    }
}

const LOAD: Load =
    Load { rate_per_second: None, connections: 50, held: 0, count: None, close: Close::Fin };

fn load(close: Close) -> Load {
    Load { count: Some(COUNT), close, ..LOAD }
}

fn rr(bytes: u64, response_bytes: u64, count: u32) -> Workload {
    Workload::Rr { request_bytes: bytes, response_bytes, count }
}

fn stream(up_bytes: u64, down_bytes: u64) -> Workload {
    Workload::Stream { up_bytes, down_bytes }
}

fn http(requests: u32, response_bytes: u64) -> Workload {
    let (host, path) = ("10.0.0.2".into(), "/".into());
    Workload::Http { host, path, requests, response_bytes: Some(response_bytes) }
}

/// Goal: every workload with the service it is for, closed by FIN and by RST: all connections and
/// transactions complete, every byte is the right one, both tables are empty afterwards.
#[test]
fn every_workload_completes_against_its_service_and_leaves_nothing_behind() {
    let cases = [
        (Service::Accept, Workload::Handshake, 0),
        (Service::Discard, Workload::Handshake, 0),
        (Service::HalfClose, Workload::Handshake, 0),
        (Service::Chargen, Workload::Handshake, 0),
        (Service::Echo, rr(1, 1, 5), 5),
        (Service::Echo, rr(40_000, 40_000, 2), 2),
        (Service::Discard, rr(5_000, 0, 3), 3),
        (Service::Http { response_size: 100 }, http(1, 100), 1),
        (Service::Http { response_size: 0 }, http(4, 0), 4),
        (Service::Http { response_size: 50_000 }, http(3, 50_000), 3),
        (Service::Stream, stream(20_000, 0), 1),
        (Service::Stream, stream(0, 20_000), 1),
        (Service::Stream, stream(30_000, 20_000), 1),
        (Service::Stream, stream(1, 1), 1),
    ];
    for (service, workload, transactions) in cases {
        for close in [Close::Fin, Close::Rst] {
            let case = format!("{service:?} {workload:?} {close:?}");
            println!("{case}");
            let mut pair = Pair::new(service, workload.clone(), load(close));
            pair.finish();
            let results = pair.client.engine.app.results();
            assert_eq!(results.launched, COUNT, "{case}");
            assert_eq!(results.established, COUNT, "{case}");
            assert_eq!(results.transactions, COUNT * transactions, "{case}");
            assert_eq!(
                (results.finished, results.failed.total()),
                (COUNT, 0),
                "{case}: {results:?}"
            );
            assert_eq!(results.transaction.summary().count, COUNT * transactions, "{case}");
            let errors = [results.status_errors, results.length_errors, results.incomplete];
            assert_eq!(errors, [0; 3], "{case}");
            assert_eq!((results.protocol_errors, results.verify_errors), (0, 0), "{case}");
            let served = pair.server.engine.app.served();
            assert_eq!((served.established, served.ended.total()), (COUNT, COUNT), "{case}");
            assert_eq!(served.http.rejected, 0, "{case}");
        }
    }
}

#[test]
fn a_request_rides_the_handshake_and_fin_the_response_so_that_http_takes_six_packets() {
    let mut pair = Pair::new(Service::Http { response_size: 100 }, http(1, 100), load(Close::Fin));
    pair.finish();
    assert_eq!(pair.segments(), COUNT * 6);
}

#[test]
fn a_handshake_and_teardown_takes_six_packets_and_by_rst_four() {
    let mut pair = Pair::new(Service::Discard, Workload::Handshake, load(Close::Fin));
    pair.finish();
    assert_eq!(pair.segments(), COUNT * 6);
    let mut pair = Pair::new(Service::Discard, Workload::Handshake, load(Close::Rst));
    pair.finish();
    assert_eq!(pair.segments(), COUNT * 4);
    assert_eq!(pair.server.engine.app.served().ended.of(End::Reset), COUNT);
}

/// Goal: an open loop on a link that answers at once launches exactly what its schedule says, none
/// of it late.
#[test]
fn a_rate_is_kept() {
    let load = Load { rate_per_second: Some(20_000.0), connections: 4000, held: 0, ..LOAD };
    let mut pair = Pair::new(Service::Discard, Workload::Handshake, load);
    pair.run(Span::from_secs(1), |pair| pair.now >= Instant::ZERO + Span::from_millis(500));
    let app = &pair.client.engine.app;
    assert!((9_990..=10_001).contains(&app.results().launched), "{:?}", app.results().launched);
    assert_eq!((app.results().launched_late, app.backlog(pair.now)), (0, 0));
    assert!(app.results().handshake.summary().p50 < Span::from_micros(60));
}

#[test]
fn held_connections_are_all_open_until_the_stop_and_then_closed() {
    let hold = Load { connections: 1000, ..LOAD };
    let mut pair = Pair::new(Service::Echo, Workload::Hold, hold);
    pair.run(Span::from_secs(1), |pair| pair.server.engine.app.served().established == 1000);
    pair.run(Span::from_secs(2), |pair| pair.now >= Instant::ZERO + Span::from_millis(800));
    assert_eq!((pair.client.engine.live(), pair.server.engine.live()), (1000, 1000));
    pair.client.engine.stop();
    pair.finish();
    assert_eq!(pair.client.engine.app.results().finished, 1000);
    assert_eq!(pair.server.engine.app.echo_rings_free(), CONNECTIONS_MAX as usize);
}

/// Goal: what is held is opened first and stays; only what comes and goes above it is in the
/// results, and -n counts that alone.
#[test]
fn a_load_runs_over_connections_that_are_held() {
    let load = Load { held: 300, count: Some(COUNT), ..LOAD };
    let mut pair = Pair::new(Service::Discard, Workload::Handshake, load);
    pair.run(Span::from_secs(5), |pair| pair.client.engine.app.done());
    let client = &pair.client.engine;
    assert!(client.app.ready());
    assert_eq!((client.app.active(), client.live()), (0, 300));
    let results = client.app.results();
    assert_eq!((results.established, results.handshake.summary().count), (COUNT, COUNT));
    assert_eq!(client.counters.established, COUNT + 300);
    pair.client.engine.stop();
    pair.finish();
    assert_eq!(pair.client.engine.app.results().finished, COUNT + 300);
}

/// Goal: a walk that meets only held four-tuples for longer than a turn goes on where it stood, and
/// refuses nothing until it has seen that none is free.
#[test]
fn a_long_run_of_taken_four_tuples_is_walked_past() {
    let ports = 64_512;
    let held = CONNECTIONS_MAX - 60;
    let load = Load { held, connections: 50, count: Some(2 * ports), ..LOAD };
    let mut pair = Pair::new(Service::Discard, Workload::Handshake, load);
    pair.run(Span::from_secs(60), |pair| pair.client.engine.app.done());
    let client = &pair.client.engine;
    assert_eq!(client.app.results().established, 2 * ports, "more than a round of the walk");
    assert_eq!(client.counters.launch_no_tuple, 0);
    pair.client.engine.stop();
    pair.finish();
}

/// Goal: a server that is stopped first finishes what is under way and closes what is idle.
#[test]
fn a_server_that_stops_closes_its_connections_and_takes_no_new_ones() {
    for service in [
        Service::Echo,
        Service::Discard,
        Service::Chargen,
        Service::HalfClose,
        Service::Http { response_size: 10 },
    ] {
        let hold = Load { connections: 20, count: Some(20), ..LOAD };
        let mut pair = Pair::new(service, Workload::Hold, hold);
        pair.run(Span::from_secs(1), |pair| pair.server.engine.app.served().established == 20);
        pair.server.engine.stop();
        pair.finish();
        assert_eq!(pair.client.engine.app.results().finished, 20, "{service:?}");
    }
}

/// Goal: streams without an end run until the stop, verified all the way, and then end by FIN with
/// not a byte more than was under way.
#[test]
fn endless_streams_end_at_the_stop_and_every_byte_was_right() {
    for (up_bytes, down_bytes) in [(ENDLESS, 0), (0, ENDLESS), (ENDLESS, ENDLESS), (1000, ENDLESS)]
    {
        let load = Load { connections: 3, ..LOAD };
        let mut pair = Pair::new(Service::Stream, stream(up_bytes, down_bytes), load);
        let until = Instant::ZERO + Span::from_millis(50);
        pair.run(Span::from_secs(1), |pair| pair.now >= until);
        let sent = |pair: &Pair| {
            let counters = [&pair.client.engine.counters, &pair.server.engine.counters];
            counters.map(|counters| counters.tx_payload_bytes)
        };
        let before = sent(&pair);
        pair.client.engine.stop();
        pair.finish();
        let results = pair.client.engine.app.results();
        let case = format!("{up_bytes} bytes up, {down_bytes} down");
        assert_eq!((results.finished, results.transactions), (3, 3), "{case}");
        assert_eq!(results.verify_errors + results.incomplete + results.length_errors, 0, "{case}");
        assert_eq!(pair.server.engine.app.served().stream.verify_errors, 0, "{case}");
        for (before, after) in before.into_iter().zip(sent(&pair)) {
            assert!(
                after - before < 4 * 1_000_000,
                "{before} before the stop, {after} after: {case}"
            );
        }
        let moved = [up_bytes, down_bytes].map(|bytes| bytes == ENDLESS);
        for (endless, bytes) in moved.into_iter().zip(before) {
            assert!(!endless || bytes > 1_000_000, "{bytes} bytes: {case}");
        }
    }
}

#[test]
fn an_upload_to_a_plain_sink_is_complete_when_all_of_it_is_acknowledged() {
    let mut pair = Pair::new(Service::Discard, stream(100_000, 0), load(Close::Fin));
    pair.finish();
    let results = pair.client.engine.app.results();
    assert_eq!((results.transactions, results.incomplete), (COUNT, 0));
}
