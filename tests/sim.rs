//! Client and server in one process on a virtual clock, over good and bad links, with the five laws
//! checked after every turn: every workload against every service, hundreds of seeds.
//!
//! `SHAKEDOWN_SEEDS=1000 cargo test --test sim` tries more of them; a failure prints its seed, and
//! `SHAKEDOWN_SEED=7 cargo test --test sim` runs just that one again.

use shakedown::app::client::{Client, Close, Load, Workload};
use shakedown::app::server::{Server, Service};
use shakedown::app::{App, Conn};
use shakedown::device::impair::Options;
use shakedown::flow::Endpoints;
use shakedown::rng::Rng;
use shakedown::sim::{self, Setup, Sim};
use shakedown::stats::Counters;
use shakedown::tcp::{CookiesWhen, End, Keepalive, Mss};
use shakedown::time::{Instant, Span};
use shakedown::wire::Family;
use std::path::{Path, PathBuf};

/// Seeds a test tries when the environment does not say: so many that the file takes under a
/// minute.
const SEEDS: u64 = 12;
/// Seeds that found something, and would not be tried otherwise.
const FOUND: [u64; 6] = [37, 50, 61, 68, 214, 274];
/// The same, since seeds choose the family too.
const FOUND_LATER: [u64; 8] = [93, 149, 835, 1997, 2960, 3811, 5355, 6346];
/// By then, on the virtual clock, everything is over: several times what the worst back-off takes.
const END: Instant = Instant::from_nanos(2 * 3600 * 1_000_000_000);
const KEEPALIVE: Keepalive =
    Keepalive { idle: Span::from_secs(20), interval: Span::from_secs(2), probes: 9 };

/// What a client does with a service, and over how many connections.
struct Pairing {
    name: &'static str,
    workload: fn() -> Workload,
    close: Close,
    service: Service,
    connections: u64,
}

const HTTP_SIZE: u64 = 9_000;
const HTTP: Service = Service::Http { response_size: HTTP_SIZE };

const PAIRINGS: [Pairing; 13] = [
    pairing("handshake, accept", || Workload::Handshake, Close::Fin, Service::Accept),
    pairing("handshake, discard", || Workload::Handshake, Close::Fin, Service::Discard),
    pairing("handshake by reset, discard", || Workload::Handshake, Close::Rst, Service::Discard),
    pairing("handshake by reset, accept", || Workload::Handshake, Close::Rst, Service::Accept),
    pairing("handshake, halfclose", || Workload::Handshake, Close::Fin, Service::HalfClose),
    // A generator that is closed still sends the megabyte it has promised.
    pairing("handshake, chargen", || Workload::Handshake, Close::Fin, Service::Chargen).over(1),
    pairing("handshake by reset, chargen", || Workload::Handshake, Close::Rst, Service::Chargen),
    pairing("http", || http(1), Close::Fin, HTTP),
    pairing("http keep-alive", || http(3), Close::Fin, HTTP),
    pairing("http by reset", || http(2), Close::Rst, HTTP),
    pairing("rr, echo", || rr(4_000, 4_000), Close::Fin, Service::Echo),
    pairing("rr, echo more than it keeps", || rr(30_000, 30_000), Close::Fin, Service::Echo)
        .over(2),
    pairing("rr, discard", || rr(3_000, 0), Close::Fin, Service::Discard),
];

const fn pairing(
    name: &'static str,
    workload: fn() -> Workload,
    close: Close,
    service: Service,
) -> Pairing {
    Pairing { name, workload, close, service, connections: 12 }
}

impl Pairing {
    const fn over(self, connections: u64) -> Pairing {
        Pairing { connections, ..self }
    }
}

fn http(requests: u32) -> Workload {
    let response_bytes = Some(HTTP_SIZE);
    Workload::Http { host: "server".into(), path: "/".into(), requests, response_bytes }
}

fn rr(request_bytes: u64, response_bytes: u64) -> Workload {
    Workload::Rr { request_bytes, response_bytes, count: 3 }
}

/// `count` connections, up to five at a time.
fn load(count: u64, close: Close) -> Load {
    Load { rate_per_second: None, connections: 5, held: 0, count: Some(count), close }
}

/// A setup in which only bad luck beyond belief, and no timer of its own, fails a connection. What
/// each side offers in its SYN differs from seed to seed, and so do the families.
fn patient(seed: u64, link: Options) -> Setup {
    let mut setup = Setup::new(seed, 1);
    // What was found, was found over IPv4.
    match seed % 3 {
        1 if !FOUND.contains(&seed) => setup.over(&[Family::V6]),
        2 if !FOUND.contains(&seed) => setup.over(&[Family::V4, Family::V6]),
        _ => {}
    }
    let mut rng = Rng::new(!seed);
    for config in [&mut setup.a, &mut setup.b] {
        config.tcp.timestamps = rng.chance(0.5);
        config.tcp.window_scaling = rng.chance(0.5);
        config.tcp.mss = Mss::both([1440, 1440, 536, 300][rng.below(4) as usize]);
        config.tcp.window = [65_535, 300_000, 3_000, 500][rng.below(4) as usize];
        config.tcp.syn_retries = 40;
        config.tcp.data_retries = 40;
        config.tcp.rto_max = Span::from_secs(4);
        config.tcp.fin_wait2 = Span::from_secs(600);
        // A lost last ACK is asked for again, again and again, while the other end is in TIME-WAIT.
        config.tcp.msl = Span::from_secs(120);
        config.connections_max = 24;
        config.tcp.syn_backlog = [24, 24, 2, 1][rng.below(4) as usize];
        // What is dropped for want of room is sent again. Cookies have a test of their own: an ACK
        // that is lost or overtaken loses the connection.
        config.tcp.syncookies = CookiesWhen::Off;
    }
    setup.impair(link);
    setup
}

fn seeds() -> Vec<u64> {
    let number = |name| std::env::var(name).ok().map(|text| text.parse().expect(name));
    match number("SHAKEDOWN_SEED") {
        Some(seed) => vec![seed],
        None => {
            let last = number("SHAKEDOWN_SEEDS").unwrap_or(SEEDS);
            let found = FOUND.into_iter().chain(FOUND_LATER);
            (1..=last).chain(found.filter(|&seed| seed > last)).collect()
        }
    }
}

/// Runs `scenario` for every seed; the first that fails prints itself and leaves pcap files.
fn for_all_seeds<R>(name: &str, scenario: impl Fn(u64, Option<PathBuf>) -> R) -> Vec<R> {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR"));
    seeds().into_iter().map(|seed| sim::examine(name, seed, directory, &scenario)).collect()
}

/// Every pairing over this link: all connections are opened, verified to the last byte, and closed
/// on both sides.
fn every_pairing_over(link_name: &str, link: Options) {
    for pairing in &PAIRINGS {
        for_all_seeds(&format!("{} over {link_name}", pairing.name), |seed, captures| {
            let sim = run_pairing(pairing, seed, link, captures);
            // Only a copy of a SYN that comes late can open what nobody asked for.
            assert!(sim.ghosts() == 0 || link.duplicate > 0.0);
        });
    }
}

fn run_pairing(
    pairing: &Pairing,
    seed: u64,
    link: Options,
    captures: Option<PathBuf>,
) -> Sim<Client, Server> {
    run_pairing_in(Setup { captures, ..patient(seed, link) }, pairing, link)
}

fn run_pairing_in(mut setup: Setup, pairing: &Pairing, link: Options) -> Sim<Client, Server> {
    let &Pairing { name: _, workload, close, service, connections } = pairing;
    // A RST that is lost leaves the server with a connection whose peer is gone: what keepalive is
    // for.
    setup.b.listeners[0].keepalive = (close == Close::Rst).then_some(KEEPALIVE);
    let mut sim = client_and_server(setup, workload(), load(connections, close), service);
    run_to_the_end(&mut sim);
    // ARP and NDP ask only so many times, whatever TCP's patience: with bad luck all get lost.
    let asks_in_vain = link.loss > 0.0 || link.corrupt > 0.0;
    if !asks_in_vain || sim.a.engine.app.results().failed.of(End::Unreachable) == 0 {
        all_went_well(&sim, connections);
    }
    nothing_was_wrong(&sim);
    sim
}

fn client_and_server(
    setup: Setup,
    workload: Workload,
    load: Load,
    service: Service,
) -> Sim<Client, Server> {
    let server = Server::new(vec![service], setup.b.connections_max);
    let client = Client::new(workload, load, setup.seed);
    Sim::new(setup, client, server)
}

/// Runs until the client is done and both tables are empty.
fn run_to_the_end(sim: &mut Sim<Client, Server>) {
    assert!(sim.run(END, |sim| sim.a.engine.app.done()), "client not done: {}", outcome(sim));
    sim.run_out(END);
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

fn all_went_well(sim: &Sim<Client, Server>, connections: u64) {
    let results = sim.a.engine.app.results();
    assert_eq!(results.finished, connections, "{}", outcome(sim));
    assert_eq!((results.launched, results.established), (connections, connections));
    nothing_was_wrong(sim);
}

/// Whatever was received was what was asked for, to the byte.
fn nothing_was_wrong(sim: &Sim<Client, Server>) {
    let results = sim.a.engine.app.results();
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
fn every_workload_ends_well_where_nothing_is_kept_of_a_syn() {
    for pairing in &PAIRINGS {
        for_all_seeds(&format!("{} by cookies", pairing.name), |seed, captures| {
            let mut setup = Setup { captures, ..patient(seed, Options::default()) };
            setup.b.tcp.syncookies = CookiesWhen::Always;
            let sim = run_pairing_in(setup, pairing, Options::default());
            let Counters { syncookies_sent, syncookies_recv, passive_opens, .. } =
                sim.b.engine.counters;
            assert_eq!((syncookies_recv, syncookies_recv), (pairing.connections, passive_opens));
            assert!(syncookies_sent >= syncookies_recv);
        });
    }
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

/// One direction good, the other not.
#[test]
fn every_workload_ends_well_over_a_link_that_is_bad_one_way() {
    for pairing in &PAIRINGS {
        for_all_seeds(&format!("{} one way", pairing.name), |seed, captures| {
            let mut setup = Setup { captures, ..patient(seed, everything()) };
            if seed % 2 == 0 {
                setup.a_to_b = None
            } else {
                setup.b_to_a = None
            }
            run_pairing_in(setup, pairing, everything());
        });
    }
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    let traces = for_all_seeds("trace", |seed, captures| {
        let pairing = &PAIRINGS[seed as usize % PAIRINGS.len()];
        let run = || {
            let sim = run_pairing(pairing, seed, everything(), captures.clone());
            (sim.trace(), sim.turns(), sim.now())
        };
        let (first, second) = (run(), run());
        assert_eq!(first, second, "{}", pairing.name);
        first.0
    });
    let mut different = traces.clone();
    different.sort_unstable();
    different.dedup();
    assert_eq!(different.len(), traces.len(), "another seed, another trace");
}

/// Closes as soon as it may, and counts.
#[derive(Debug, Default, PartialEq, Eq)]
struct Crossing {
    established: u32,
    finished: u32,
}

impl App for Crossing {
    type State = ();
    type Idle = ();

    fn established(&mut self, conn: &mut Conn<'_, ()>) {
        self.established += 1;
        conn.close();
    }

    fn received(&mut self, _conn: &mut Conn<'_, ()>, _data: &[u8]) {}

    fn peer_closed(&mut self, _conn: &mut Conn<'_, ()>) {}

    fn acknowledged(&mut self, _conn: &mut Conn<'_, ()>, _acked: u64) {}

    fn ended(&mut self, _now: Instant, _state: &mut (), end: End) {
        self.finished += u32::from(end == End::Finished);
    }

    fn payload(&self, _state: &(), _offset: u64, _out: &mut [u8]) {}
}

/// Both sides connect to each other with the same ports, so that their SYNs cross (RFC 9293 s3.5,
/// figure 7), and both close as soon as they are established (s3.6, figure 13).
#[test]
fn both_sides_may_open_and_close_at_the_same_time() {
    for (name, link) in [
        ("crossing", Options { delay: Span::from_millis(1), ..Options::default() }),
        ("crossing with everything", everything()),
    ] {
        for_all_seeds(name, |seed, captures| {
            let setup = Setup { captures, ..patient(seed, link) };
            let mut sim = Sim::new(setup, Crossing::default(), Crossing::default());
            for port in 7000..7008 {
                let (local, remote) = ((sim::A_IP, port).into(), (sim::B_IP, 9000).into());
                let endpoints = Endpoints { local, remote };
                sim.a.engine.connect(Instant::ZERO, &endpoints, ()).unwrap();
                sim.b.engine.connect(Instant::ZERO, &endpoints.reversed(), ()).unwrap();
            }
            sim.run_out(END);
            for engine in [&sim.a.engine, &sim.b.engine] {
                assert_eq!(engine.app, Crossing { established: 8, finished: 8 });
            }
        });
    }
}

/// Four ports for twenty connections: each four-tuple is used again as soon as the rules allow,
/// whichever side waits in TIME-WAIT; the referee watches that it is not before.
#[test]
fn four_tuples_come_round_again() {
    for (name, service) in [
        ("reuse after the client closed", Service::Discard),
        ("reuse after the server closed", Service::Accept),
    ] {
        for loss in [0.0, 0.1] {
            for_all_seeds(&format!("{name} {loss}"), |seed, captures| {
                let mut setup =
                    Setup { captures, ..patient(seed, Options { loss, ..Options::default() }) };
                setup.a.tcp.msl = Span::from_millis(20);
                setup.b.tcp.msl = Span::from_secs(1);
                let ranges = setup.a.ranges.as_mut().unwrap();
                ranges.last_port = ranges.first_port + 3;
                // One less than there are four-tuples, or it would ask for another all the time.
                let load = Load { connections: 3, ..load(20, Close::Fin) };
                let mut sim = client_and_server(setup, Workload::Handshake, load, service);
                run_to_the_end(&mut sim);
                let results = sim.a.engine.app.results();
                assert_eq!(results.launched, 20);
                assert_eq!(results.finished + results.failed.total(), 20);
                assert!(loss > 0.0 || results.finished == 20, "{}", outcome(&sim));
            });
        }
    }
}

/// A server with room for four connections, and a client that wants eight at a time: who finds no
/// room tries again.
#[test]
fn a_full_table_turns_connections_away_and_recovers() {
    for_all_seeds("full table", |seed, captures| {
        let mut setup = Setup { captures, ..patient(seed, Options::default()) };
        setup.b.connections_max = 4;
        setup.b.tcp.msl = Span::from_secs(1);
        setup.a.tcp.msl = Span::from_secs(1);
        let load = Load { connections: 8, ..load(24, Close::Fin) };
        let mut sim = client_and_server(setup, http(1), load, HTTP);
        run_to_the_end(&mut sim);
        all_went_well(&sim, 24);
        let Counters { listen_overflows, req_q_full_drop, .. } = sim.b.engine.counters;
        assert!(listen_overflows + req_q_full_drop > 0);
    });
}

#[test]
fn a_port_without_a_listener_refuses() {
    for_all_seeds("refused", |seed, captures| {
        let mut setup = Setup { captures, ..patient(seed, everything()) };
        setup.b.listeners.clear();
        let server = Server::new(Vec::new(), setup.b.connections_max);
        let client = Client::new(Workload::Handshake, load(12, Close::Fin), seed);
        let mut sim = Sim::new(setup, client, server);
        run_to_the_end(&mut sim);
        let results = sim.a.engine.app.results();
        let failed = [End::Refused, End::Unreachable].map(|end| results.failed.of(end));
        assert_eq!((results.established, failed.iter().sum()), (0, 12));
    });
}

#[test]
fn stopping_closes_what_is_held_open() {
    for_all_seeds("hold and stop", |seed, captures| {
        let setup = Setup { captures, ..patient(seed, everything()) };
        let load = Load { connections: 12, count: None, ..load(0, Close::Fin) };
        let mut sim = client_and_server(setup, Workload::Hold, load, Service::Echo);
        assert!(sim.run(END, |sim| sim.a.engine.app.results().established == 12
            && sim.b.engine.app.served().established == 12));
        assert_eq!((sim.a.engine.live(), sim.b.engine.live()), (12, 12));
        match seed % 2 {
            0 => sim.a.engine.stop(),
            _ => {
                sim.a.engine.app.stop();
                sim.b.engine.stop();
            }
        }
        sim.run_out(END);
        assert_eq!(sim.b.engine.app.echo_rings_free(), 24, "one for each connection there may be");
    });
}

/// The cable is pulled at a random moment: each side gives every connection up by a timer of its
/// own, and tells why.
#[test]
fn a_peer_that_vanishes_is_given_up() {
    for pairing in &PAIRINGS {
        for_all_seeds(&format!("{} unplugged", pairing.name), |seed, captures| {
            let link = Options { delay: Span::from_millis(1), ..Options::default() };
            let mut setup = Setup { captures, ..patient(seed, link) };
            setup.a.keepalive = Some(KEEPALIVE);
            setup.b.listeners[0].keepalive = Some(KEEPALIVE);
            let mut sim = client_and_server(
                setup,
                (pairing.workload)(),
                load(5, pairing.close),
                pairing.service,
            );
            // Six or more times the way between them is in a connection: every stage of it is hit
            // by some seed.
            let moment = Instant::from_nanos(Rng::new(seed).below(16_000_000));
            sim.run(moment, |_| false);
            sim.unplug();
            run_to_the_end(&mut sim);
            let results = sim.a.engine.app.results();
            assert_eq!(results.finished + results.failed.total(), 5, "{}", outcome(&sim));
            for end in [End::Reset, End::Refused, End::Unreachable] {
                assert!(
                    end == End::Unreachable || results.failed.of(end) == 0,
                    "{}",
                    outcome(&sim)
                );
            }
        });
    }
}
