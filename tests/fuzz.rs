//! An engine among strangers: segments with the right four-tuple and nearly the right numbers, odd
//! options, all flags, in both families, ARP, NDP, extension headers and noise, at arbitrary times.
//! It must not panic, lose a frame, break a law, or answer more than it is asked.
//!
//! `SHAKEDOWN_SEEDS=1000 cargo test --test fuzz` tries more; a failure prints its seed,
//! `SHAKEDOWN_SEED=7` runs that one.

use shakedown::app::client::{Client, Close, Load, Workload};
use shakedown::app::server::{Server, Service};
use shakedown::app::{App, Conn};
use shakedown::engine::{Config, Engine, Listener, Subnet};
use shakedown::flow::Endpoints;
use shakedown::flow::tuples::{Range, Ranges, Target};
use shakedown::frame::{Burst, Pool};
use shakedown::rng::Rng;
use shakedown::stats::Counters;
use shakedown::tcp::{self, End, Keepalive, State};
use shakedown::time::{Instant, Span};
use shakedown::wire::Family;
use shakedown::wire::arp;
use shakedown::wire::ethernet::{Header, Mac};
use shakedown::wire::ndp::{self, Message};
use shakedown::wire::options::Options;
use shakedown::wire::segment::{self, Body, Packet, Segment, Verify};
use shakedown::wire::tcp::Flags;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

const OURS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
const THEIRS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const OUR_MAC: Mac = Mac([2, 0, 0, 0, 0, 2]);
const THEIR_MAC: Mac = Mac([2, 0, 0, 0, 0, 1]);
const POOL_FRAMES: u32 = 256;
const STEPS: u32 = 4_000;
const SEEDS: u64 = 40;
const SERVICES: [Service; 6] = [
    Service::Http { response_size: 5_000 },
    Service::Accept,
    Service::Echo,
    Service::Discard,
    Service::Chargen,
    Service::HalfClose,
];

const OURS6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2);
const THEIRS6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1);

/// Whether a flow is over IPv6, and its ports, ours and theirs.
type Flow = (bool, u16, u16);

/// What a stranger knows of a flow: what the engine sends next, and what it expects next.
#[derive(Clone, Copy, Default)]
struct Seen {
    seq: u32,
    ack: u32,
}

struct Stranger<A: App> {
    engine: Engine<A>,
    pool: Pool,
    rx: Burst,
    tx: Burst,
    now: Instant,
    rng: Rng,
    flows: BTreeMap<Flow, Seen>,
    received: u64,
    sent: u64,
    met: Met,
}

/// Which events met a connection in which states, as it stood when the turn began.
type Met = BTreeSet<(&'static str, &'static str)>;

/// What a segment is to a connection, before its numbers are looked at.
const EVENTS: [&str; 9] =
    ["no flag", "SYN", "SYN-ACK", "SYN-FIN", "SYN-RST", "RST", "FIN", "text", "ACK"];

fn event(segment: &Segment) -> &'static str {
    let has = |flag| segment.flags.has(flag);
    match (has(Flags::SYN), has(Flags::RST), has(Flags::FIN), has(Flags::ACK)) {
        (true, true, _, _) => "SYN-RST",
        (true, false, true, _) => "SYN-FIN",
        (true, false, false, true) => "SYN-ACK",
        (true, false, false, false) => "SYN",
        (false, true, _, _) => "RST",
        (false, false, true, _) => "FIN",
        (false, false, false, true) if segment.payload_len > 0 => "text",
        (false, false, false, true) => "ACK",
        (false, false, false, false) => "no flag",
    }
}

fn config(rng: &mut Rng) -> Config {
    let any = |rng: &mut Rng, low: u64, high: u64| Span::from_millis(low + rng.below(high - low));
    let keepalive = Keepalive { idle: any(rng, 1, 5_000), interval: any(rng, 1, 900), probes: 3 };
    Config {
        mac: OUR_MAC,
        mtu: 1500,
        subnets: vec![Subnet::only(OURS, 24), Subnet::only(OURS6, 64)],
        keepalive: Some(keepalive),
        connections_max: 16,
        awake_max: 0,
        tcp: tcp::Config {
            msl: any(rng, 0, 3_000),
            syn_retries: rng.below(4) as u8,
            data_retries: rng.below(5) as u8,
            fin_wait2: any(rng, 1, 9_000),
            window: [1, 700, 65_535, 1 << 20][rng.below(4) as usize],
            timestamps: rng.chance(0.5),
            window_scaling: rng.chance(0.5),
            syn_backlog: 1 + rng.below(16) as u32,
            ..tcp::Config::default()
        },
        verify: Verify::All,
        device_sums: false,
        seed: rng.next(),
        ttl: 64,
        gateways: vec![],
        listeners: vec![],
        ranges: None,
    }
}

fn server(rng: &mut Rng) -> Engine<Server> {
    let mut config = config(rng);
    let keepalive = config.keepalive.filter(|_| rng.chance(0.5));
    let ports = 1..=SERVICES.len() as u16;
    config.listeners = ports.map(|port| Listener { port, keepalive }).collect();
    Engine::new(config, Server::new(SERVICES.to_vec(), 16), Instant::ZERO)
}

fn client(rng: &mut Rng) -> Engine<Client> {
    let mut config = config(rng);
    let target = |addresses| Target { addresses, first_port: 1, last_port: 4 };
    config.ranges = Some(Ranges {
        locals: vec![Range::only(OURS), Range::only(OURS6)],
        first_port: 1,
        last_port: 6,
        targets: vec![target(Range::only(THEIRS)), target(Range::only(THEIRS6))],
        share: 0,
        shares: 1,
        rss: None,
    });
    let http = Workload::Http {
        host: "h".into(),
        path: "/".into(),
        requests: 3,
        response_bytes: Some(10),
    };
    let rr = Workload::Rr { request_bytes: 3_000, response_bytes: 3_000, count: 2 };
    let workload =
        vec![Workload::Handshake, http, rr, Workload::Hold].swap_remove(rng.below(4) as usize);
    let close = if rng.chance(0.5) { Close::Fin } else { Close::Rst };
    let load = Load { rate_per_second: None, connections: 12, held: 0, count: None, close };
    Engine::new(config, Client::new(workload, load, rng.next()), Instant::ZERO)
}

/// Answers all text with a little of its own, and stays open when its peer has closed.
struct Lingerer;

impl App for Lingerer {
    type State = ();
    type Idle = ();

    fn established(&mut self, _conn: &mut Conn<'_, ()>) {}
    fn received(&mut self, conn: &mut Conn<'_, ()>, _data: &[u8]) {
        conn.send(100);
    }
    fn peer_closed(&mut self, conn: &mut Conn<'_, ()>) {
        conn.send(3_000);
    }
    fn acknowledged(&mut self, _conn: &mut Conn<'_, ()>, _acked: u64) {}
    fn ended(&mut self, _now: Instant, _state: &mut (), _end: End) {}
    fn payload(&self, _state: &(), _offset: u64, out: &mut [u8]) {
        out.fill(b'l');
    }
}

impl<A: App> Stranger<A> {
    fn new(engine: Engine<A>, rng: Rng) -> Stranger<A> {
        Stranger {
            engine,
            pool: Pool::new(POOL_FRAMES).unwrap(),
            rx: Burst::new(),
            tx: Burst::new(),
            now: Instant::ZERO,
            rng,
            flows: BTreeMap::new(),
            received: 0,
            sent: 0,
            met: Met::new(),
        }
    }

    fn run(&mut self) {
        for step in 0..STEPS {
            for _ in 0..self.rng.below(4) {
                self.inject();
            }
            self.pass_time();
            self.turn();
            if step == STEPS * 3 / 4 {
                self.engine.stop();
            }
        }
        // Left alone, everything comes to an end of itself.
        for _ in 0..20_000 {
            self.now += Span::from_secs(10);
            self.turn();
        }
        assert_eq!(self.engine.connections(), 0, "every state has a timer");
    }

    fn pass_time(&mut self) {
        let nanos = match self.rng.below(20) {
            0 => self.rng.below(20_000_000_000),
            1..4 => self.rng.below(400_000_000),
            _ => self.rng.below(50_000),
        };
        self.now += Span::from_nanos(nanos);
    }

    fn turn(&mut self) {
        let asked = self.rx.len();
        self.engine.poll(self.now, &mut self.pool, &mut self.rx, &mut self.tx);
        self.engine.check();
        assert!(self.rx.is_empty());
        // A device that is sometimes slow.
        let taken = match self.rng.below(5) {
            0 => self.rng.below(self.tx.len() as u64 + 1) as usize,
            _ => self.tx.len(),
        };
        let frames: Vec<_> = self.tx.drain(taken).collect();
        for frame in frames {
            self.sent += 1;
            let packet = segment::parse(frame.bytes(), Verify::All).expect("what we send is sound");
            self.watch(&packet);
            self.pool.put(frame);
        }
        self.received += asked as u64;
        assert_eq!(self.pool.len() + self.tx.len(), POOL_FRAMES as usize);
    }

    fn watch(&mut self, packet: &Packet) {
        let Body::Tcp(segment) = packet.body else { return };
        let flow = (segment.family() == Family::V6, segment.src_port, segment.dst_port);
        if segment.flags.has(Flags::RST) || self.flows.len() > 40 {
            self.flows.remove(&flow);
            return;
        }
        let seen = self.flows.entry(flow).or_default();
        seen.seq = segment.seq.wrapping_add(segment.seq_len());
        if segment.flags.has(Flags::ACK) {
            seen.ack = segment.ack;
        }
    }

    /// One frame to the engine, if a frame is free.
    fn inject(&mut self) {
        if self.rx.room() == 0 {
            return;
        }
        let Some(mut frame) = self.pool.take() else { return };
        let bytes = match self.rng.below(40) {
            0 => self.noise(),
            1 => self.arp(),
            2 => self.ndp(),
            _ => self.segment(),
        };
        frame.reset(bytes.len());
        frame.bytes_mut().copy_from_slice(&bytes);
        self.rx.push(frame);
    }

    fn segment(&mut self) -> Vec<u8> {
        let flow = self.flow();
        let seen = self.flows.get(&flow).copied().unwrap_or_default();
        let mut options = self.options();
        if self.rng.chance(0.1) {
            let edge = seen.seq.wrapping_add(self.nearly());
            options.sack.push(edge.wrapping_sub(self.rng.below(1_500) as u32), edge);
        }
        let payload_len = [0, 0, 0, 1, 5, 300, 1_400][self.rng.below(7) as usize];
        let (over_v6, our_port, their_port) = flow;
        let (family, src, dst) = match over_v6 {
            false => (Family::V4, THEIRS.into(), OURS.into()),
            true => (Family::V6, THEIRS6.into(), OURS6.into()),
        };
        let payload_at = segment::header_len(false, family, &options);
        let segment = Segment {
            src,
            dst,
            src_port: their_port,
            dst_port: our_port,
            seq: seen.ack.wrapping_add(self.nearly()),
            ack: seen.seq.wrapping_add(self.nearly()),
            flags: self.flags(),
            window: [0, 0, 1, 100, 5_000, 65_535][self.rng.below(6) as usize],
            urgent: self.rng.next() as u16,
            tos: 0,
            options,
            payload_at: payload_at as u16,
            payload_len,
        };
        self.met.insert((self.state(&segment).name(), event(&segment)));
        let mut bytes = vec![0; payload_at + usize::from(payload_len)];
        let text = b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n";
        for (byte, text) in bytes[payload_at..].iter_mut().zip(text.iter().cycle()) {
            *byte = *text;
        }
        let ethertype = family.ethertype();
        let ethernet = Header { dst: OUR_MAC, src: THEIR_MAC, vlan: None, ethertype };
        segment::emit(&mut bytes, &ethernet, &segment, 7, 64);
        if over_v6 && self.rng.chance(0.05) {
            self.extend(&mut bytes);
        }
        if self.rng.chance(0.01) {
            let at = self.rng.below(bytes.len() as u64) as usize;
            bytes[at] ^= 1 << self.rng.below(8);
        }
        bytes
    }

    fn state(&self, segment: &Segment) -> State {
        let local = (segment.dst, segment.dst_port).into();
        self.engine.state_of(&Endpoints { local, remote: (segment.src, segment.src_port).into() })
    }

    /// Puts an extension header, sound or nearly so, before the TCP header of an IPv6 frame.
    fn extend(&mut self, bytes: &mut Vec<u8>) {
        let mut header = [6, 0, 1, 4, 0, 0, 0, 0];
        if self.rng.chance(0.5) {
            header[self.rng.below(8) as usize] = self.rng.next() as u8;
        }
        bytes.splice(54..54, header);
        bytes[20] = [0, 43, 44, 60][self.rng.below(4) as usize];
        let len = (bytes.len() - 54) as u16;
        bytes[18..20].copy_from_slice(&len.to_be_bytes());
    }

    /// A flow that the engine has spoken on, or a new one among few.
    fn flow(&mut self) -> Flow {
        if !self.flows.is_empty() && self.rng.chance(0.9) {
            let place = self.rng.below(self.flows.len() as u64) as usize;
            if let Some((flow, _)) = self.flows.iter().nth(place) {
                return *flow;
            }
        }
        (self.rng.chance(0.5), 1 + self.rng.below(7) as u16, 1 + self.rng.below(4) as u16)
    }

    /// Mostly exact; else off by a little, by a window, or by anything.
    fn nearly(&mut self) -> u32 {
        match self.rng.below(12) {
            0 => 1,
            1 => u32::MAX,
            2 => self.rng.below(3_000) as u32,
            3 => (self.rng.below(3_000) as u32).wrapping_neg(),
            4 => self.rng.next() as u32,
            _ => 0,
        }
    }

    fn flags(&mut self) -> Flags {
        match self.rng.below(12) {
            0..5 => Flags::ACK,
            5 => Flags::SYN,
            6 => Flags::SYN | Flags::ACK,
            7 | 8 => Flags::FIN | Flags::ACK,
            9 if self.rng.chance(0.5) => Flags::RST,
            10 => [Flags(0), Flags::SYN | Flags::FIN, Flags::SYN | Flags::RST]
                [self.rng.below(3) as usize],
            _ => Flags(self.rng.next() as u8),
        }
    }

    fn options(&mut self) -> Options {
        let mut options = Options::default();
        if self.rng.chance(0.3) {
            options.mss = Some([0, 1, 47, 536, 1_460, 65_535][self.rng.below(6) as usize]);
            options.window_scale = Some(self.rng.next() as u8);
            options.sack_permitted = self.rng.chance(0.8);
        }
        if self.rng.chance(0.4) {
            let clock = (self.now.as_nanos() / 1_000_000) as u32;
            options.timestamps = Some((clock.wrapping_add(self.nearly()), self.rng.next() as u32));
        }
        options
    }

    fn arp(&mut self) -> Vec<u8> {
        let ip = if self.rng.chance(0.5) { THEIRS } else { OURS };
        let packet = arp::Packet::request(THEIR_MAC, ip, OURS);
        let packet = if self.rng.chance(0.5) { packet } else { packet.reply(THEIR_MAC) };
        let mut bytes = vec![0; arp::frame_len(false)];
        packet.emit(None, &mut bytes);
        bytes
    }

    fn ndp(&mut self) -> Vec<u8> {
        let address = |rng: &mut Rng| {
            let random = Ipv6Addr::from_bits(u128::from(rng.next()) << 64 | 1);
            [THEIRS6, THEIRS6, OURS6, Ipv6Addr::UNSPECIFIED, random][rng.below(5) as usize]
        };
        let message = match self.rng.chance(0.5) {
            true => Message::Solicitation,
            false => Message::Advertisement {
                solicited: self.rng.chance(0.5),
                overrides: self.rng.chance(0.5),
            },
        };
        let (src, target) = (address(&mut self.rng), address(&mut self.rng));
        let packet = ndp::Packet { src, dst: OURS6, target, mac: Some(THEIR_MAC), message };
        let mut bytes = vec![0; ndp::frame_len(false)];
        packet.emit(THEIR_MAC, OUR_MAC, None, &mut bytes);
        bytes
    }

    fn noise(&mut self) -> Vec<u8> {
        let mut bytes: Vec<u8> = (0..self.rng.below(200)).map(|_| self.rng.next() as u8).collect();
        // Half of it comes as IP to us.
        let head = match self.rng.chance(0.5) {
            true => [0x02, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0, 0x45],
            false => [0x02, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 0x86, 0xdd, 0x60],
        };
        if bytes.len() > head.len() && self.rng.chance(0.5) {
            bytes[..head.len()].copy_from_slice(&head);
        }
        bytes
    }
}

fn seeds() -> std::ops::Range<u64> {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    match number("SHAKEDOWN_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("SHAKEDOWN_SEEDS").unwrap_or(SEEDS),
    }
}

/// Runs each seed, and answers what they met and counted together; `None` if only some were run.
fn each_seed(run: impl Fn(u64) -> (Met, Counters)) -> Option<(Met, Counters)> {
    let (mut met, mut counters) = (Met::new(), Counters::default());
    for seed in seeds() {
        match catch_unwind(AssertUnwindSafe(|| run(seed))) {
            Ok((more, counted)) => {
                met.extend(more);
                counters.add(&counted);
            }
            Err(panic) => {
                eprintln!("SHAKEDOWN_SEED={seed} shows it again");
                resume_unwind(panic);
            }
        }
    }
    (seeds().end - seeds().start >= SEEDS).then_some((met, counters))
}

/// Counters that no stranger moves here: other workers do, or a device that is full, a pool that is
/// empty, a table or paths used up, malformed frames with sound sums (tests/hostile.rs), routers'
/// messages, an application that has urgent text, a peer that acknowledges as a sound one does.
const STILL: [&str; 23] = [
    "TCPTimeWaitOverflow",
    "ListenOverflows",
    "TCPReqQFullDrop",
    "DelayedACKs",
    "icmp_soft_errors_total",
    "urgent_unsaid_total",
    "TCPRenoRecovery",
    "TCPLostRetransmit",
    "TCPSACKReneging",
    "path_mtu_learned_total",
    "paths_refused_total",
    "launch_no_tuple_total",
    "launch_not_a_host_total",
    "rx_tcp_option_total",
    "rx_tcp_port_total",
    "rx_arp_malformed_total",
    "rx_icmp_ignored_total",
    "tx_no_frame_total",
    "answers_dropped_total",
    "strays_in_total",
    "strays_out_total",
    "strays_dropped_total",
    "icmp_errors_withheld_total",
];

fn lingerer(rng: &mut Rng) -> Engine<Lingerer> {
    let mut config = config(rng);
    config.listeners = vec![Listener { port: 1, keepalive: config.keepalive }];
    Engine::new(config, Lingerer, Instant::ZERO)
}

fn stay<A: App>(engine: Engine<A>, rng: Rng) -> (Met, Counters) {
    let mut stranger = Stranger::new(engine, rng);
    stranger.run();
    (stranger.met, stranger.engine.counters)
}

#[test]
fn among_strangers_every_state_meets_every_event_keeps_its_laws_and_comes_to_rest() {
    let reached = each_seed(|seed| {
        let rng = || Rng::new(seed);
        let (mut met, mut counters) = (Met::new(), Counters::default());
        let runs: [&dyn Fn(Rng) -> (Met, Counters); 3] = [
            &|mut rng| stay(server(&mut rng), rng),
            &|mut rng| stay(lingerer(&mut rng), rng),
            &|mut rng| stay(client(&mut rng), rng),
        ];
        for run in runs {
            let (more, counted) = run(rng());
            met.extend(more);
            counters.add(&counted);
        }
        (met, counters)
    });
    let Some((met, counters)) = reached else { return };
    // CLOSED is LISTEN here.
    let states = State::ALL.iter().filter(|&&state| state != State::Listen);
    let pairs = states.flat_map(|state| EVENTS.map(|event| (state.name(), event)));
    let missed: Vec<_> = pairs.filter(|pair| !met.contains(pair)).collect();
    assert!(missed.is_empty(), "never met: {missed:?}");
    let table = Counters::TABLE.iter().zip(counters.values());
    let unmoved: Vec<&str> = table.filter(|(_, value)| *value == 0).map(|(row, _)| row.0).collect();
    assert_eq!(unmoved, STILL);
}
