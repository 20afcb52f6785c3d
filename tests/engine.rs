//! What an engine promises whatever its application: bounded waiting, bounded memory of next hops,
//! and whose keepalive a connection has.

use shakedown::app::{App, Conn, Launch};
use shakedown::device::link;
use shakedown::engine::{Config, Engine, Listener, Subnet};
use shakedown::flow::Endpoints;
use shakedown::flow::tuples::{Range, Ranges, Target};
use shakedown::frame::{Burst, Pool};
use shakedown::tcp::{self, End, Keepalive};
use shakedown::time::{Instant, Span};
use shakedown::wire::ethernet::{ETHERTYPE_IPV4, Header, Mac};
use shakedown::wire::options::Options;
use shakedown::wire::segment::{self, Body, Packet, Segment, Verify};
use shakedown::wire::tcp::Flags;
use shakedown::worker::Worker;
use std::net::Ipv4Addr;

const SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);

/// Wants ever more connections, and nothing of them.
struct Greedy;

impl App for Greedy {
    type State = ();
    type Idle = ();

    fn established(&mut self, _conn: &mut Conn<'_, ()>) {}
    fn received(&mut self, _conn: &mut Conn<'_, ()>, _data: &[u8]) {}
    fn peer_closed(&mut self, _conn: &mut Conn<'_, ()>) {}
    fn acknowledged(&mut self, _conn: &mut Conn<'_, ()>, _acked: u64) {}
    fn ended(&mut self, _now: Instant, _state: &mut (), _end: End) {}
    fn payload(&self, _state: &(), _offset: u64, _out: &mut [u8]) {}
    fn launch(&mut self, _now: Instant) -> Option<Launch<()>> {
        Some(Launch { state: () })
    }
    fn next_launch(&self, now: Instant) -> Instant {
        now
    }
}

fn mac(last: u8) -> Mac {
    Mac([2, 0, 0, 0, 0, last])
}

fn config(address: Ipv4Addr, listeners: Vec<Listener>) -> Config {
    Config {
        mac: mac(address.octets()[3]),
        mtu: 1500,
        ttl: 64,
        subnets: vec![Subnet::only(address, 24)],
        gateways: vec![],
        listeners,
        ranges: None,
        keepalive: None,
        connections_max: 4096,
        awake_max: 0,
        tcp: tcp::Config::default(),
        verify: Verify::All,
        device_sums: false,
        seed: 1,
    }
}

fn engine(config: Config) -> Engine<Greedy> {
    Engine::new(config, Greedy, Instant::ZERO)
}

#[test]
fn a_connection_that_we_opened_has_the_keepalive_of_none_of_our_listeners() {
    let (ours, theirs) = Pool::pair(256).unwrap();
    let (near, far) = link::pair(ours.umem(), 64);
    let idle = Span::from_secs(1);
    let keepalive = Some(Keepalive { idle, interval: idle, probes: 3 });
    let plain = |port| vec![Listener { port, keepalive: None }];
    let client = engine(Config { keepalive, ..config(CLIENT, plain(9)) });
    let mut client = Worker::new(near, client, ours);
    let mut server = Worker::new(far, engine(config(SERVER, plain(80))), theirs);
    let local = (CLIENT, 4000).into();
    let endpoints = Endpoints { local, remote: (SERVER, 80).into() };
    client.engine.connect(Instant::ZERO, &endpoints, ()).unwrap();
    for turn in 0..300 {
        let now = Instant::ZERO + Span::from_millis(10 * turn);
        client.turn(now);
        server.turn(now);
    }
    assert_eq!(client.engine.counters.established, 1);
    assert!(client.engine.counters.keepalive_probes >= 2);
    assert_eq!(server.engine.counters.keepalive_probes, 0);
}

/// Goal: as long as the device takes nothing more, no connection is added to those that wait.
#[test]
fn launches_wait_while_what_is_under_way_finds_no_room() {
    let ranges = Ranges {
        locals: vec![Range::only(CLIENT)],
        first_port: 1024,
        last_port: 65_535,
        targets: vec![Target { addresses: Range::only(SERVER), first_port: 80, last_port: 80 }],
        share: 0,
        shares: 1,
        rss: None,
    };
    let mut client = engine(Config { ranges: Some(ranges), ..config(CLIENT, vec![]) });
    let mut pool = Pool::new(128).unwrap();
    let (mut rx, mut tx) = (Burst::new(), Burst::new());
    while tx.room() > 0 {
        tx.push(pool.take().unwrap());
    }
    for turn in 0..100 {
        client.poll(Instant::ZERO + Span::from_micros(turn), &mut pool, &mut rx, &mut tx);
    }
    assert_eq!(client.counters.active_opens, 32, "one turn's worth");
    let full = tx.len();
    tx.drain(full).for_each(|frame| pool.put(frame));
}

fn syn_and_reset(count: u32) -> impl Iterator<Item = Segment> {
    (0..count).flat_map(|n| {
        let syn = Segment {
            src: Ipv4Addr::from_bits(0x0b00_0000 + n).into(),
            dst: SERVER.into(),
            src_port: 4000,
            dst_port: 80,
            seq: 0,
            ack: 0,
            flags: Flags::SYN,
            window: 1000,
            urgent: 0,
            tos: 0,
            options: Options::default(),
            payload_at: 0,
            payload_len: 0,
        };
        [syn, Segment { seq: 1, flags: Flags::RST, ..syn }]
    })
}

/// Goal: SYNs from more addresses than there is room for next hops do not shut out the next one.
#[test]
fn strangers_from_ever_new_addresses_do_not_use_up_the_next_hops() {
    let mut server = engine(config(SERVER, vec![Listener { port: 80, keepalive: None }]));
    let mut pool = Pool::new(256).unwrap();
    let header = Header { dst: mac(2), src: mac(9), vlan: None, ethertype: ETHERTYPE_IPV4 };
    let (mut rx, mut tx) = (Burst::new(), Burst::new());
    let segments: Vec<Segment> = syn_and_reset(100_000).collect();
    for (turn, burst) in segments.chunks(64).enumerate() {
        for segment in burst {
            let mut frame = pool.take().unwrap();
            frame.reset(segment::header_len(false, segment.family(), &segment.options));
            segment::emit(frame.bytes_mut(), &header, segment, 0, 64);
            rx.push(frame);
        }
        let now = Instant::ZERO + Span::from_micros(turn as u64);
        server.poll(now, &mut pool, &mut rx, &mut tx);
        let sent = tx.len();
        tx.drain(sent).for_each(|frame| pool.put(frame));
    }
    let counters = server.counters;
    assert_eq!((counters.passive_opens, counters.listen_overflows), (100_000, 0));
    assert_eq!(server.connections(), 0);
    server.check();
}

/// One SYN from a stranger's `src_port` to port 80; answers the flags of what the server sent.
fn syn_to(server: &mut Engine<Greedy>, pool: &mut Pool, src_port: u16) -> Flags {
    let header = Header { dst: mac(2), src: mac(9), vlan: None, ethertype: ETHERTYPE_IPV4 };
    let syn = Segment { src_port, ..syn_and_reset(1).next().unwrap() };
    let (mut rx, mut tx) = (Burst::new(), Burst::new());
    let mut frame = pool.take().unwrap();
    frame.reset(segment::header_len(false, syn.family(), &syn.options));
    segment::emit(frame.bytes_mut(), &header, &syn, 0, 64);
    rx.push(frame);
    server.poll(Instant::ZERO, pool, &mut rx, &mut tx);
    let mut answer = None;
    let sent = tx.len();
    for frame in tx.drain(sent) {
        if let Ok(Packet { body: Body::Tcp(segment), .. }) =
            segment::parse(frame.bytes(), Verify::All)
        {
            assert_eq!(segment.dst_port, src_port);
            answer = Some(segment.flags);
        }
        pool.put(frame);
    }
    answer.expect("a SYN is answered")
}

/// Goal: a port is open from `listen` to `unlisten`, and what came of it goes on.
#[test]
fn ports_are_opened_and_closed_at_run_time() {
    let mut server = engine(config(SERVER, vec![Listener { port: 7, keepalive: None }]));
    let mut pool = Pool::new(16).unwrap();
    let refusal = Flags::RST | Flags::ACK;
    assert_eq!(syn_to(&mut server, &mut pool, 4000), refusal);
    assert_eq!(server.listen(Listener { port: 80, keepalive: None }), Some(1));
    assert_eq!(server.listen(Listener { port: 80, keepalive: None }), None, "it has one");
    assert_eq!(syn_to(&mut server, &mut pool, 4001), Flags::SYN | Flags::ACK);
    server.unlisten(80);
    assert_eq!(syn_to(&mut server, &mut pool, 4002), refusal);
    assert_eq!(server.connections(), 1);
    assert_eq!(server.listen(Listener { port: 80, keepalive: None }), Some(2), "a new place");
    server.check();
}
