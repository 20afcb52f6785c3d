//! What RFC 9293 promises an application: its opens (s3.9.1.1), R1 and R2 (s3.8.3), Nagle's
//! algorithm as it likes (s3.7.4), and that a burst is acknowledged as one. An engine alone, given
//! segments and asked what it sends.

use shakedown::app::{App, Conn, Refusal};
use shakedown::engine::{Config, Engine, Listener, Subnet};
use shakedown::flow::Endpoints;
use shakedown::frame::{Burst, Pool};
use shakedown::tcp::{self, End, State};
use shakedown::time::{Instant, Span};
use shakedown::wire::arp::{self, Operation};
use shakedown::wire::ethernet::{ETHERTYPE_IPV4, Header, Mac};
use shakedown::wire::options::Options;
use shakedown::wire::segment::{self, Body, Packet, Segment, Verify};
use shakedown::wire::tcp::Flags;
use std::net::{IpAddr, Ipv4Addr};

const OURS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 5);
const PEER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 99);
const OUR_MAC: Mac = Mac([2, 0, 0, 0, 0, 1]);
const PEER_MAC: Mac = Mac([2, 0, 0, 0, 0, 2]);
const TTL: u8 = 33;

/// Sends ten bytes at once and closes when the peer does.
#[derive(Default)]
struct Polite {
    /// R2, if it is not the usual one.
    data_retries: Option<u8>,
    /// Whether it wants Nagle's algorithm, if it is not as usual.
    nagle: Option<bool>,
    /// Times that it was told of R1.
    stalled: u32,
    ended: Option<End>,
}

impl App for Polite {
    type State = ();
    type Idle = ();

    fn established(&mut self, conn: &mut Conn<'_, ()>) {
        conn.send(10);
    }
    fn received(&mut self, _conn: &mut Conn<'_, ()>, _data: &[u8]) {}
    fn peer_closed(&mut self, conn: &mut Conn<'_, ()>) {
        conn.close();
    }
    fn acknowledged(&mut self, _conn: &mut Conn<'_, ()>, _acked: u64) {}
    fn ended(&mut self, _now: Instant, _state: &mut (), end: End) {
        self.ended = Some(end);
    }
    fn data_retries(&self, _state: &(), usual: u8) -> u8 {
        self.data_retries.unwrap_or(usual)
    }
    fn nagle(&self, _state: &(), usual: bool) -> bool {
        self.nagle.unwrap_or(usual)
    }
    fn stalled(&mut self, _conn: &mut Conn<'_, ()>) {
        self.stalled += 1;
    }
    fn payload(&self, _state: &(), _offset: u64, out: &mut [u8]) {
        out.fill(0);
    }
}

/// An engine with the addresses 10.0.0.1 to 10.0.0.9, and a peer that answers ARP.
struct Bench {
    engine: Engine<Polite>,
    pool: Pool,
    now: Instant,
    /// ARP requests for the peer so far.
    asked: u32,
}

/// A segment that was sent, and the TTL of its datagram.
struct Sent {
    segment: Segment,
    ttl: u8,
}

impl Bench {
    fn new() -> Bench {
        Bench::of(tcp::Config { timestamps: false, ..tcp::Config::default() })
    }

    fn of(tcp: tcp::Config) -> Bench {
        let first = IpAddr::from([10, 0, 0, 1]);
        let config = Config {
            mac: OUR_MAC,
            mtu: 1500,
            ttl: TTL,
            subnets: vec![Subnet { last: [10, 0, 0, 9].into(), ..Subnet::only(first, 24) }],
            gateways: vec![],
            listeners: vec![Listener { port: 80, keepalive: None }],
            ranges: None,
            keepalive: None,
            connections_max: 16,
            awake_max: 0,
            tcp,
            verify: Verify::All,
            device_sums: false,
            seed: 1,
        };
        let mut bench = Bench {
            engine: Engine::new(config, Polite::default(), Instant::ZERO),
            pool: Pool::new(256).unwrap(),
            now: Instant::ZERO,
            asked: 0,
        };
        // The announcement of our addresses.
        bench.exchange(&[]);
        bench
    }

    /// Gives the engine `segments` in one burst; answers what it sends until it has nothing more.
    fn exchange(&mut self, segments: &[Segment]) -> Vec<Sent> {
        let (mut rx, mut tx) = (Burst::new(), Burst::new());
        let header = Header { dst: OUR_MAC, src: PEER_MAC, vlan: None, ethertype: ETHERTYPE_IPV4 };
        for segment in segments {
            let len = usize::from(segment.payload_len);
            let mut frame = self.pool.take().unwrap();
            frame.reset(segment::header_len(false, segment.family(), &segment.options) + len);
            segment::emit(frame.bytes_mut(), &header, segment, 0, 64);
            rx.push(frame);
        }
        let mut all = Vec::new();
        loop {
            self.now += Span::from_micros(10);
            self.engine.poll(self.now, &mut self.pool, &mut rx, &mut tx);
            self.engine.check();
            let count = tx.len();
            for mut frame in tx.drain(count) {
                let Packet { body, .. } = segment::parse(frame.bytes(), Verify::All).unwrap();
                match body {
                    Body::Tcp(segment) => all.push(Sent { segment, ttl: frame.bytes()[22] }),
                    Body::Arp(asked)
                        if asked.operation == Operation::Request && asked.target_ip == PEER =>
                    {
                        self.asked += 1;
                        frame.reset(arp::frame_len(false));
                        asked.reply(PEER_MAC).emit(None, frame.bytes_mut());
                        rx.push(frame);
                        continue;
                    }
                    _ => {}
                }
                self.pool.put(frame);
            }
            if count == 0 && rx.is_empty() {
                return all;
            }
        }
    }

    fn connect(&mut self, local: Ipv4Addr, port: u16, remote: IpAddr) -> Result<(), Refusal> {
        let endpoints = Endpoints { local: (local, port).into(), remote: (remote, 7).into() };
        self.engine.connect(self.now, &endpoints, ())
    }
}

/// A segment of the peer's, in answer to `to`.
fn answer(to: &Segment, flags: Flags, seq: u32) -> Segment {
    Segment {
        src: to.dst,
        dst: to.src,
        src_port: to.dst_port,
        dst_port: to.src_port,
        seq,
        ack: to.seq.wrapping_add(to.seq_len()),
        flags,
        window: 65_535,
        urgent: 0,
        tos: 0,
        options: Options { mss: flags.has(Flags::SYN).then_some(1460), ..Options::default() },
        payload_at: 0,
        payload_len: 0,
    }
}

fn syn(port: u16) -> Segment {
    let nowhere = Segment {
        src: OURS.into(),
        dst: PEER.into(),
        src_port: 80,
        dst_port: port,
        seq: 0,
        ack: 0,
        flags: Flags::default(),
        window: 0,
        urgent: 0,
        tos: 0,
        options: Options::default(),
        payload_at: 0,
        payload_len: 0,
    };
    Segment { ack: 0, ..answer(&nowhere, Flags::SYN, 1000) }
}

/// Goal: handshake, text, acknowledgment and FIN all leave from the address that the open named,
/// which is not the first of ours, and with the configured TTL (MUST-43, MUST-45, MUST-49).
#[test]
fn a_connection_keeps_the_address_that_its_open_named() {
    let mut bench = Bench::new();
    bench.connect(OURS, 4000, PEER.into()).unwrap();
    let mut all = bench.exchange(&[]);
    let syn = all[0].segment;
    let ack = Flags::ACK;
    all.extend(bench.exchange(&[answer(&syn, Flags::SYN | ack, 500)]));
    let text = all.last().unwrap().segment;
    assert_eq!((syn.flags, text.payload_len), (Flags::SYN, 10));
    all.extend(bench.exchange(&[answer(&text, ack | Flags::FIN, 501)]));
    assert!(all.last().unwrap().segment.flags.has(Flags::FIN));
    assert!(all.len() >= 3);
    for Sent { segment, ttl } in &all {
        assert_eq!((segment.src, segment.src_port), (OURS.into(), 4000));
        assert_eq!(*ttl, TTL);
    }
}

#[test]
fn an_open_to_a_group_or_to_nobody_is_refused_and_sends_nothing() {
    let mut bench = Bench::new();
    for remote in [[224, 0, 0, 1], [255, 255, 255, 255], [10, 0, 0, 255], [0, 0, 0, 0]] {
        assert_eq!(bench.connect(OURS, 4000, remote.into()), Err(Refusal::NotAHost), "{remote:?}");
    }
    assert!(bench.exchange(&[]).is_empty());
    assert_eq!((bench.engine.connections(), bench.engine.counters.active_opens), (0, 0));
}

/// Goal: a SYN to a listening port is taken while the same port is that of connections in SYN-SENT,
/// SYN-RECEIVED and ESTABLISHED, and none of these takes notice (MUST-41, MUST-42).
#[test]
fn a_port_is_listened_on_while_connections_of_it_are_opening() {
    let mut bench = Bench::new();
    bench.connect(OURS, 80, PEER.into()).unwrap();
    bench.exchange(&[]);
    let established = bench.exchange(&[syn(5000)])[0].segment;
    bench.exchange(&[answer(&established, Flags::ACK, 1001)]);
    bench.exchange(&[syn(5001)]);
    let last = bench.exchange(&[syn(5002)]);
    assert_eq!(last[0].segment.flags, Flags::SYN | Flags::ACK);
    let state = |port| {
        let endpoints = Endpoints { local: (OURS, 80).into(), remote: (PEER, port).into() };
        bench.engine.state_of(&endpoints)
    };
    assert_eq!(state(7), State::SynSent);
    assert_eq!(state(5000), State::Established);
    assert_eq!((state(5001), state(5002)), (State::SynReceived, State::SynReceived));
}

/// Goal: all of a burst is processed before any of it is acknowledged, and then once (RFC 9293
/// s3.10.7.4, MUST-58, MUST-59).
#[test]
fn a_burst_of_segments_is_answered_by_one_acknowledgment() {
    let mut bench = Bench::new();
    let accepted = bench.exchange(&[syn(5000)])[0].segment;
    let text = bench.exchange(&[answer(&accepted, Flags::ACK, 1001)])[0].segment;
    assert_eq!(text.payload_len, 10);
    let piece = |count: u32| Segment {
        payload_len: 1000,
        ..answer(&text, Flags::ACK, 1001 + 1000 * count)
    };
    let pieces: Vec<Segment> = (0..20).map(piece).collect();
    let sent = bench.exchange(&pieces);
    let acks: Vec<u32> = sent.iter().map(|sent| sent.segment.ack).collect();
    assert_eq!(acks, [21_001]);
}

/// Goal: the third retransmission has the next hop asked for anew and the application told, once;
/// the usual R2 is far from there (MUST-20, SHLD-9, SHLD-10).
#[test]
fn past_r1_the_next_hop_is_asked_for_anew_and_the_application_told() {
    let mut bench = Bench::new();
    bench.connect(OURS, 4000, PEER.into()).unwrap();
    let syn = bench.exchange(&[])[0].segment;
    let text = bench.exchange(&[answer(&syn, Flags::SYN | Flags::ACK, 500)])[0].segment;
    assert_eq!((text.payload_len, bench.asked), (10, 1));
    let mut sent = 0;
    while sent < 6 {
        bench.now += Span::from_millis(10);
        for Sent { segment, .. } in bench.exchange(&[]) {
            assert_eq!((segment.seq, segment.payload_len), (text.seq, 10));
            sent += 1;
        }
        let past = u32::from(sent >= 3);
        assert_eq!((bench.asked, bench.engine.app.stalled), (1 + past, past), "{sent} again");
    }
    assert_eq!(bench.engine.app.ended, None);
}

/// Goal: R2 is what the application says, for the connection it says it for (MUST-21).
#[test]
fn an_application_may_give_up_earlier_than_others() {
    for (data_retries, again) in [(Some(0), 0), (Some(2), 2), (Some(4), 4), (None, 15)] {
        let mut bench = Bench::new();
        bench.engine.app.data_retries = data_retries;
        let accepted = bench.exchange(&[syn(5000)])[0].segment;
        bench.exchange(&[answer(&accepted, Flags::ACK, 1001)]);
        let mut sent = 0;
        while bench.engine.app.ended.is_none() {
            bench.now += Span::from_millis(500);
            sent += bench.exchange(&[]).len();
        }
        assert_eq!((sent, bench.engine.app.ended), (again, Some(End::DataTimeout)));
    }
}

/// Goal: whatever is usual, an application has Nagle's algorithm on or off as it says (MUST-17).
#[test]
fn an_application_may_switch_nagle_off_or_on() {
    for (usual, wanted, at_once) in [(true, Some(false), true), (false, Some(true), false)] {
        let config = tcp::Config { nagle: usual, timestamps: false, ..tcp::Config::default() };
        for (wanted, at_once) in [(wanted, at_once), (None, !usual)] {
            let mut bench = Bench::of(config);
            bench.engine.app.nagle = wanted;
            let accepted = bench.exchange(&[syn(5000)])[0].segment;
            bench.exchange(&[answer(&accepted, Flags::ACK, 1001)]);
            let endpoints = Endpoints { local: (OURS, 80).into(), remote: (PEER, 5000).into() };
            assert!(bench.engine.prod(bench.now, &endpoints, |_, conn| conn.send(5)));
            assert_eq!(!bench.exchange(&[]).is_empty(), at_once, "{usual} {wanted:?}");
        }
    }
}
