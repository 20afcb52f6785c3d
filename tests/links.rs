//! What an engine does on links of both families: neighbor discovery, a tag for each address, and
//! the errors that it sends.

use shakedown::app::{App, Conn};
use shakedown::engine::{Config, Engine, Listener, Subnet};
use shakedown::flow::Endpoints;
use shakedown::frame::{Burst, Pool};
use shakedown::tcp::{self, End, State};
use shakedown::time::{Instant, Span};
use shakedown::wire::Family;
use shakedown::wire::ethernet::{Header, Mac};
use shakedown::wire::icmp::{Error, Kind};
use shakedown::wire::ndp::{self, Message};
use shakedown::wire::options::Options;
use shakedown::wire::segment::{self, Body, Packet, Segment, Verify};
use shakedown::wire::tcp::Flags;
use shakedown::wire::{checksum, ipv6};
use std::net::{IpAddr, Ipv6Addr};

const OUR_MAC: Mac = Mac([2, 0, 0, 0, 0, 2]);
const THEIR_MAC: Mac = Mac([2, 0, 0, 0, 0, 1]);
const STRANGER: Mac = Mac([2, 0, 0, 0, 0, 9]);
const OURS: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2);
const THEIRS: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1);
const ROUTER: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);

struct Idle;

impl App for Idle {
    type State = ();
    type Idle = ();

    fn established(&mut self, _conn: &mut Conn<'_, ()>) {}
    fn received(&mut self, _conn: &mut Conn<'_, ()>, _data: &[u8]) {}
    fn peer_closed(&mut self, _conn: &mut Conn<'_, ()>) {}
    fn acknowledged(&mut self, _conn: &mut Conn<'_, ()>, _acked: u64) {}
    fn ended(&mut self, _now: Instant, _state: &mut (), _end: End) {}
    fn payload(&self, _state: &(), _offset: u64, _out: &mut [u8]) {}
}

struct Bench {
    engine: Engine<Idle>,
    pool: Pool,
    now: Instant,
}

impl Bench {
    /// An engine that has announced itself.
    fn new(subnets: Vec<Subnet>) -> Bench {
        let config = Config {
            mac: OUR_MAC,
            mtu: 1500,
            ttl: 64,
            subnets,
            gateways: vec![ROUTER.into()],
            listeners: vec![Listener { port: 80, keepalive: None }],
            ranges: None,
            keepalive: None,
            connections_max: 16,
            awake_max: 0,
            tcp: tcp::Config::default(),
            verify: Verify::All,
            device_sums: false,
            seed: 1,
        };
        let engine = Engine::new(config, Idle, Instant::ZERO);
        Bench { engine, pool: Pool::new(64).unwrap(), now: Instant::ZERO }
    }

    /// Gives the engine `frames`; answers what it sends.
    fn turn(&mut self, frames: &[Vec<u8>]) -> Vec<Packet> {
        let (mut rx, mut tx) = (Burst::new(), Burst::new());
        for bytes in frames {
            let mut frame = self.pool.take().unwrap();
            frame.reset(bytes.len());
            frame.bytes_mut().copy_from_slice(bytes);
            rx.push(frame);
        }
        self.now += Span::from_micros(1);
        self.engine.poll(self.now, &mut self.pool, &mut rx, &mut tx);
        self.engine.check();
        let count = tx.len();
        let sent = tx.drain(count).map(|frame| {
            let packet = segment::parse(frame.bytes(), Verify::All).expect("a sound frame");
            self.pool.put(frame);
            packet
        });
        sent.collect()
    }

    fn connect(&mut self, remote: Ipv6Addr) -> Endpoints {
        let endpoints = Endpoints { local: (OURS, 4000).into(), remote: (remote, 80).into() };
        self.engine.connect(self.now, &endpoints, ()).unwrap();
        endpoints
    }
}

fn six() -> Vec<Subnet> {
    vec![Subnet::only(OURS, 64)]
}

fn tell(packet: &ndp::Packet, from: Mac) -> Vec<u8> {
    let mut frame = vec![0; ndp::frame_len(false)];
    packet.emit(from, OUR_MAC, None, &mut frame);
    frame
}

/// `mac` says that it has `target`.
fn claim(mac: Mac, target: Ipv6Addr, overrides: bool) -> Vec<u8> {
    let message = Message::Advertisement { solicited: true, overrides };
    let packet = ndp::Packet { src: target, dst: OURS, target, mac: Some(mac), message };
    tell(&packet, mac)
}

fn segment_from(src: IpAddr, dst: IpAddr, flags: Flags, vlan: Option<u16>) -> Vec<u8> {
    let family = Family::of(src);
    let segment = Segment {
        src,
        dst,
        src_port: 5000,
        dst_port: 80,
        seq: 7,
        ack: 0,
        flags,
        window: 1000,
        urgent: 0,
        tos: 0,
        options: Options::default(),
        payload_at: 0,
        payload_len: 0,
    };
    let mut frame = vec![0; segment::header_len(vlan.is_some(), family, &segment.options)];
    let ethertype = family.ethertype();
    let header = Header { dst: OUR_MAC, src: THEIR_MAC, vlan, ethertype };
    segment::emit(&mut frame, &header, &segment, 1, 64);
    frame
}

/// The MAC addresses that TCP segments went to.
fn segments_to(sent: &[Packet]) -> Vec<Mac> {
    let tcp = sent.iter().filter(|packet| matches!(packet.body, Body::Tcp(_)));
    tcp.map(|packet| packet.ethernet.dst).collect()
}

#[test]
fn an_address_is_announced_at_start_and_checked_ones_are_defended() {
    let mut bench = Bench::new(six());
    let announced = bench.turn(&[]);
    let announcement = ndp::Packet::announcement(OUR_MAC, OURS);
    assert_eq!(announced[0].body, Body::Ndp(announcement));
    assert_eq!(announced[0].ethernet.dst, Mac([0x33, 0x33, 0, 0, 0, 1]));
    let asked = ndp::Packet::solicitation(THEIR_MAC, THEIRS, OURS);
    let answer = bench.turn(&[tell(&asked, THEIR_MAC)]);
    assert_eq!(answer[0].body, Body::Ndp(asked.reply(OUR_MAC)));
    assert_eq!(answer[0].ethernet.dst, THEIR_MAC);
    let elsewhere = ndp::Packet::solicitation(THEIR_MAC, THEIRS, ROUTER);
    assert_eq!(bench.turn(&[tell(&elsewhere, THEIR_MAC)]), []);
}

/// Goal: an advertisement is believed about what we asked for, and about nothing else.
#[test]
fn no_advertisement_speaks_for_us_or_for_whom_we_have_no_use() {
    let mut bench = Bench::new(six());
    bench.turn(&[]);
    bench.connect(THEIRS);
    let asked = bench.turn(&[]);
    assert_eq!(asked[0].body, Body::Ndp(ndp::Packet::solicitation(OUR_MAC, OURS, THEIRS)));
    assert_eq!(asked[0].ethernet.dst, Mac([0x33, 0x33, 0xff, 0, 0, 1]));
    let stranger = Ipv6Addr::from_bits(THEIRS.to_bits() + 77);
    for poison in [claim(STRANGER, OURS, true), claim(STRANGER, stranger, true)] {
        assert_eq!(bench.turn(&[poison]), []);
    }
    // A forged one came through a router.
    let mut forged = claim(STRANGER, THEIRS, true);
    forged[21] = 254;
    assert_eq!(bench.turn(&[forged]), []);
    assert_eq!(bench.engine.counters.rx_ndp_malformed, 1);
    let sent = bench.turn(&[claim(THEIR_MAC, THEIRS, false)]);
    assert_eq!(segments_to(&sent), [THEIR_MAC]);
    // What is known stays, unless it is overridden.
    bench.turn(&[claim(STRANGER, THEIRS, false)]);
    bench.now += Span::from_secs(2);
    assert_eq!(segments_to(&bench.turn(&[])), [THEIR_MAC]);
    bench.turn(&[claim(STRANGER, THEIRS, true)]);
    bench.now += Span::from_secs(4);
    assert_eq!(segments_to(&bench.turn(&[])), [STRANGER]);
}

#[test]
fn a_gateway_may_have_a_link_local_address() {
    let mut bench = Bench::new(six());
    bench.turn(&[]);
    let endpoints = bench.connect("2001:db8::9".parse().unwrap());
    let asked = bench.turn(&[]);
    assert_eq!(asked[0].body, Body::Ndp(ndp::Packet::solicitation(OUR_MAC, OURS, ROUTER)));
    let sent = bench.turn(&[claim(THEIR_MAC, ROUTER, true)]);
    assert_eq!(segments_to(&sent), [THEIR_MAC]);
    assert_eq!(bench.engine.state_of(&endpoints), State::SynSent);
}

/// Goal: an address is ours on the link of its tag alone, and answers go out with it.
#[test]
fn each_address_has_its_own_tag() {
    let four = [10, 0, 0, 2];
    let peer = |dst: IpAddr| match dst {
        IpAddr::V4(_) => IpAddr::from([10, 0, 0, 1]),
        IpAddr::V6(_) => IpAddr::from(THEIRS),
    };
    let subnets = vec![
        Subnet { vlan: Some(100), ..Subnet::only(four, 24) },
        Subnet { vlan: Some(200), ..Subnet::only(OURS, 64) },
    ];
    for (dst, tag) in [(IpAddr::from(four), 100), (OURS.into(), 200)] {
        for vlan in [None, Some(100), Some(200), Some(300)] {
            let mut bench = Bench::new(subnets.clone());
            let announced = bench.turn(&[]);
            let tags: Vec<_> = announced.iter().map(|packet| packet.ethernet.vlan).collect();
            assert_eq!(tags, [Some(100), Some(200)]);
            let sent = bench.turn(&[segment_from(peer(dst), dst, Flags::SYN, vlan)]);
            let tags: Vec<_> = sent.iter().map(|packet| packet.ethernet.vlan).collect();
            let expected = if vlan == Some(tag) { vec![vlan] } else { vec![] };
            assert_eq!(tags, expected, "to {dst} with {vlan:?}");
            assert_eq!(bench.engine.counters.rx_not_ours, u64::from(expected.is_empty()));
        }
    }
}

#[test]
fn what_belongs_to_no_connection_is_reset_over_ipv6_too() {
    let mut bench = Bench::new(six());
    bench.turn(&[]);
    let sent = bench.turn(&[segment_from(THEIRS.into(), OURS.into(), Flags::ACK, None)]);
    let Body::Tcp(segment) = sent[0].body else { panic!("no segment: {sent:?}") };
    assert_eq!(segment.flags, Flags::RST);
    assert_eq!((segment.src, segment.dst), (OURS.into(), THEIRS.into()));
}

/// Goal: whoever sends UDP is told that nobody listens, but not more often than RFC 4443 allows.
#[test]
fn errors_are_sent_and_limited() {
    let mut datagram = vec![0; 62];
    let header = Header { dst: OUR_MAC, src: THEIR_MAC, vlan: None, ethertype: 0x86dd };
    header.emit(&mut datagram);
    ipv6::emit(&mut datagram[14..], (THEIRS, OURS), 17, 8, (64, 0));
    datagram[54..].copy_from_slice(&[0x10, 0, 0, 9, 0, 8, 0, 0]);
    let pseudo = checksum::pseudo_header_v6(THEIRS, OURS, 17, 8);
    let sum = checksum::finish(pseudo + checksum::sum(&datagram[54..]));
    datagram[60..].copy_from_slice(&sum.to_be_bytes());

    let mut bench = Bench::new(six());
    bench.turn(&[]);
    let sent = bench.turn(std::slice::from_ref(&datagram));
    let Body::Icmp(message) = sent[0].body else { panic!("no error: {sent:?}") };
    assert_eq!(message.kind, Kind::Error { error: Error::Refused, quoted: None });
    let burst = vec![datagram; 30];
    let more: usize = (0..100).map(|_| bench.turn(&burst).len()).sum();
    assert_eq!(1 + more, 1000);
    assert_eq!(bench.engine.counters.errors_withheld, 3001 - 1000);
    bench.now += Span::from_secs(1);
    assert_eq!(bench.turn(&burst[..1]).len(), 1);
}

/// Goal: connections from ever new addresses leave no number behind, and of one too many nothing is
/// kept.
#[test]
fn addresses_are_known_only_as_long_as_somebody_has_them() {
    let mut bench = Bench::new(six());
    bench.turn(&[]);
    let peer = |n: u128| IpAddr::from(Ipv6Addr::from_bits(THEIRS.to_bits() + (n << 16)));
    for n in 0..100 {
        let syn = segment_from(peer(n), OURS.into(), Flags::SYN, None);
        let endpoints = Endpoints { local: (OURS, 80).into(), remote: (peer(n), 5000).into() };
        bench.turn(&[syn]);
        assert_eq!(bench.engine.state_of(&endpoints), State::SynReceived);
        let aborted = bench.engine.prod(bench.now, &endpoints, |_, conn| conn.abort());
        assert!(aborted);
        bench.turn(&[]);
        assert_eq!(bench.engine.state_of(&endpoints), State::Closed);
    }
    for n in 0..17 {
        bench.turn(&[segment_from(peer(n), OURS.into(), Flags::SYN, None)]);
    }
    assert_eq!(bench.engine.connections(), 16);
    assert_eq!(bench.engine.counters.syncookies_sent, 1, "and nothing kept of the last");
    bench.engine.check();
}
