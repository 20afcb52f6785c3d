//! One host in memory, what it counts and sends for a frame, and the frames of a hostile peer.
#![allow(dead_code)] // each test binary uses a part of it

pub use super::crowd::{OUR_MAC, OURS, OURS6, THEIR_MAC, config};
use shakedown::app::{App, Conn};
use shakedown::engine::Engine;
use shakedown::flow::Endpoints;
use shakedown::frame::{Burst, Pool};
use shakedown::stats::Counters;
use shakedown::tcp::{self, End, State};
use shakedown::time::{Instant, Span};
use shakedown::wire::checksum;
use shakedown::wire::ethernet::Header;
use shakedown::wire::segment::{self, Body, Segment, Verify};
use shakedown::wire::tcp::Flags;
use std::net::{Ipv4Addr, Ipv6Addr};

pub const THEIRS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
pub const THEIRS6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1);

/// Each state of a connection that there is.
pub fn states() -> impl Iterator<Item = State> {
    State::ALL.into_iter().filter(|state| !matches!(state, State::Closed | State::Listen))
}

const FRAMES: u32 = 64;

/// Counters of the frames themselves.
const VOLUME: [&str; 4] =
    ["rx_packets_total", "rx_bytes_total", "tx_packets_total", "tx_bytes_total"];

/// Reads everything and does nothing of itself.
pub struct Passive;

impl App for Passive {
    type State = ();
    type Idle = ();

    fn established(&mut self, _conn: &mut Conn<'_, ()>) {}
    fn received(&mut self, _conn: &mut Conn<'_, ()>, _data: &[u8]) {}
    fn peer_closed(&mut self, _conn: &mut Conn<'_, ()>) {}
    fn acknowledged(&mut self, _conn: &mut Conn<'_, ()>, _acked: u64) {}
    fn ended(&mut self, _now: Instant, _state: &mut (), _end: End) {}
    fn payload(&self, _state: &(), _offset: u64, _out: &mut [u8]) {}
}

/// A host with one peer, to whom it has at most one connection.
pub struct Host {
    pub engine: Engine<Passive>,
    pool: Pool,
    rx: Burst,
    tx: Burst,
    now: Instant,
    /// What the peer sends next, and what it expects next.
    seq: u32,
    ack: u32,
    /// The host's port and the peer's.
    ports: (u16, u16),
}

impl Host {
    /// Listens at port 80, and has announced itself.
    pub fn new() -> Host {
        let mut host = Host {
            engine: Engine::new(config(4, tcp::Config::default()), Passive, Instant::ZERO),
            pool: Pool::new(FRAMES).expect("memory for a few frames"),
            rx: Burst::new(),
            tx: Burst::new(),
            now: Instant::ZERO,
            seq: 5_000,
            ack: 0,
            ports: (80, 4_000),
        };
        host.turn();
        host
    }

    /// With a connection in `state`.
    ///
    /// # Panics
    /// If there is no way there.
    pub fn in_state(state: State) -> Host {
        let mut host = Host::new();
        match state {
            State::SynSent => host.connect(),
            State::Closed | State::Listen => {}
            State::SynReceived => host.hears(Flags::SYN),
            _ => {
                host.hears(Flags::SYN);
                host.hears(Flags::ACK);
            }
        }
        match state {
            State::FinWait1 => host.close(),
            State::FinWait2 => {
                host.close();
                host.hears(Flags::ACK);
            }
            State::CloseWait => host.hears(Flags::FIN | Flags::ACK),
            State::Closing => {
                host.close();
                // Sent before our FIN arrived there.
                host.ack = host.ack.wrapping_sub(1);
                host.hears(Flags::FIN | Flags::ACK);
            }
            State::LastAck => {
                host.hears(Flags::FIN | Flags::ACK);
                host.close();
            }
            State::TimeWait => {
                host.close();
                host.hears(Flags::FIN | Flags::ACK);
            }
            _ => {}
        }
        host
    }

    pub fn state(&self) -> State {
        self.engine.state_of(&self.endpoints())
    }

    /// True if the last frame did something to the connection.
    pub fn acted(&self, before: State) -> bool {
        self.state() != before
    }

    /// The counters that a frame moves, in their order, and what comes back at once.
    pub fn give(&mut self, bytes: &[u8]) -> (Vec<&'static str>, Vec<Vec<u8>>) {
        let before = self.engine.counters;
        let mut frame = self.pool.take().expect("every frame comes back");
        frame.reset(bytes.len());
        frame.bytes_mut().copy_from_slice(bytes);
        self.rx.push(frame);
        let replies = self.turn();
        let moved = self.engine.counters.since(&before).values();
        let named = Counters::TABLE.iter().zip(moved).filter(|(_, moved)| *moved > 0);
        let names = named.map(|((name, _), _)| *name).filter(|name| !VOLUME.contains(name));
        (names.collect(), replies)
    }

    /// A segment of the peer, `offset` past what comes next, with `len` bytes of text.
    pub fn peer_frame(&self, flags: Flags, offset: u32, len: u16) -> Vec<u8> {
        frame_of(&Segment {
            src_port: self.ports.1,
            dst_port: self.ports.0,
            seq: self.seq.wrapping_add(offset),
            ack: self.ack,
            flags,
            payload_len: len,
            ..blank()
        })
    }

    fn endpoints(&self) -> Endpoints {
        let (local, remote) = ((OURS, self.ports.0).into(), (THEIRS, self.ports.1).into());
        Endpoints { local, remote }
    }

    fn connect(&mut self) {
        self.ports = (4_000, 80);
        let endpoints = self.endpoints();
        self.engine.connect(self.now, &endpoints, ()).expect("there is room");
        self.turn();
        let mut answer = vec![0; shakedown::wire::arp::frame_len(false)];
        let question = shakedown::wire::arp::Packet::request(OUR_MAC, OURS, THEIRS);
        question.reply(THEIR_MAC).emit(None, &mut answer);
        let (_, replies) = self.give(&answer);
        self.heed(&replies);
    }

    fn close(&mut self) {
        let endpoints = self.endpoints();
        assert!(self.engine.prod(self.now, &endpoints, |_, conn| conn.close()));
        let replies = self.turn();
        self.heed(&replies);
    }

    fn hears(&mut self, flags: Flags) {
        let frame = self.peer_frame(flags, 0, 0);
        let (_, replies) = self.give(&frame);
        let numbers = flags.has(Flags::SYN) || flags.has(Flags::FIN);
        self.seq = self.seq.wrapping_add(u32::from(numbers));
        self.heed(&replies);
    }

    fn heed(&mut self, replies: &[Vec<u8>]) {
        for reply in replies {
            let packet = segment::parse(reply, Verify::All).expect("what is sent is sound");
            if let Body::Tcp(sent) = packet.body {
                self.ack = sent.seq.wrapping_add(sent.seq_len());
            }
        }
    }

    /// Until nothing more is sent; a delayed ACK is not waited for.
    fn turn(&mut self) -> Vec<Vec<u8>> {
        let mut sent = Vec::new();
        for _ in 0..4 {
            self.now += Span::from_micros(1);
            self.engine.poll(self.now, &mut self.pool, &mut self.rx, &mut self.tx);
            for frame in self.tx.drain(self.tx.len()) {
                sent.push(frame.bytes().to_vec());
                self.pool.put(frame);
            }
        }
        assert_eq!(self.pool.len(), FRAMES as usize, "every frame came back");
        sent
    }
}

/// A SYN of the peer to port 80, without options.
pub fn blank() -> Segment {
    Segment {
        src: THEIRS.into(),
        dst: OURS.into(),
        src_port: 4_000,
        dst_port: 80,
        seq: 5_000,
        flags: Flags::SYN,
        window: 8_000,
        ..Segment::BLANK
    }
}

pub fn frame_of(segment: &Segment) -> Vec<u8> {
    let payload_at = segment::header_len(false, segment.family(), &segment.options);
    let mut bytes = vec![b'x'; payload_at + usize::from(segment.payload_len)];
    let ethertype = segment.family().ethertype();
    let header = Header { dst: OUR_MAC, src: THEIR_MAC, vlan: None, ethertype };
    segment::emit(&mut bytes, &header, segment, 7, 64);
    bytes
}

pub fn syn(edit: impl FnOnce(&mut Segment)) -> Vec<u8> {
    let mut segment = blank();
    edit(&mut segment);
    frame_of(&segment)
}

pub fn syn6(edit: impl FnOnce(&mut Segment)) -> Vec<u8> {
    syn(|syn| {
        (syn.src, syn.dst) = (THEIRS6.into(), OURS6.into());
        edit(syn);
    })
}

pub fn urgent(pointer: u16) -> Vec<u8> {
    syn(|syn| (syn.flags, syn.urgent) = (Flags::SYN | Flags::URG, pointer))
}

/// With `bytes` at an offset, and no checksum put right.
pub fn at(frame: &[u8], offset: usize, bytes: &[u8]) -> Vec<u8> {
    let mut frame = frame.to_vec();
    frame[offset..offset + bytes.len()].copy_from_slice(bytes);
    frame
}

pub fn padded(frame: &[u8], len: usize, byte: u8) -> Vec<u8> {
    let mut frame = frame.to_vec();
    frame.resize(len, byte);
    frame
}

/// With tags, outermost first, before the EtherType.
pub fn tagged(frame: &[u8], tags: &[[u8; 4]]) -> Vec<u8> {
    [&frame[..12], tags.concat().as_slice(), &frame[12..]].concat()
}

/// With the checksums of IPv4 and TCP put right, as far as the lengths allow.
pub fn sealed(mut frame: Vec<u8>) -> Vec<u8> {
    let header_end = 14 + usize::from(frame[14] & 15) * 4;
    let end = 14 + usize::from(u16::from_be_bytes([frame[16], frame[17]]));
    if header_end < 34 || header_end > frame.len() {
        return frame;
    }
    frame[24..26].fill(0);
    let sum = checksum::finish(checksum::sum(&frame[14..header_end]));
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
    if end >= header_end + 20 && end <= frame.len() {
        let address =
            |at: usize| Ipv4Addr::new(frame[at], frame[at + 1], frame[at + 2], frame[at + 3]);
        let len = (end - header_end) as u16;
        let pseudo = checksum::pseudo_header(address(26), address(30), 6, len);
        put_sum(&mut frame[header_end..end], 16, pseudo);
    }
    frame
}

/// An ICMP message of IPv4 from an address, with eight bytes behind its header.
pub fn icmp(src: Ipv4Addr, kind: u8, code: u8) -> Vec<u8> {
    let mut frame = syn(|syn| syn.src = src.into());
    frame.truncate(14 + 20 + 16);
    frame[17] = 36;
    frame[23] = 1;
    frame[34..].fill(0);
    frame[34..36].copy_from_slice(&[kind, code]);
    put_sum(&mut frame[34..], 2, 0);
    frame[24..26].fill(0);
    let sum = checksum::finish(checksum::sum(&frame[14..34]));
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
    frame
}

/// With the checksum of ICMPv6 put right.
pub fn sealed6(mut frame: Vec<u8>) -> Vec<u8> {
    let address = |at: usize| Ipv6Addr::from(std::array::from_fn::<u8, 16, _>(|i| frame[at + i]));
    let len = (frame.len() - 54) as u16;
    let pseudo = checksum::pseudo_header_v6(address(22), address(38), 58, len);
    put_sum(&mut frame[54..], 2, pseudo);
    frame
}

fn put_sum(bytes: &mut [u8], at: usize, pseudo: u64) {
    bytes[at..at + 2].fill(0);
    let sum = checksum::finish(pseudo + checksum::sum(bytes));
    bytes[at..at + 2].copy_from_slice(&sum.to_be_bytes());
}

pub fn with_ip_options(frame: &[u8], options: &[u8]) -> Vec<u8> {
    let mut frame = [&frame[..34], options, &frame[34..]].concat();
    frame[14] += options.len() as u8 / 4;
    let total = (frame.len() - 14) as u16;
    frame[16..18].copy_from_slice(&total.to_be_bytes());
    sealed(frame)
}

/// A SYN with these very option bytes.
pub fn with_tcp_options(options: &[u8]) -> Vec<u8> {
    let mut frame = [&syn(|_| ())[..], options].concat();
    frame[46] += (options.len() as u8 / 4) << 4;
    let total = (frame.len() - 14) as u16;
    frame[16..18].copy_from_slice(&total.to_be_bytes());
    sealed(frame)
}

/// One unknown option that takes all the room there is.
pub fn maximal() -> [u8; 40] {
    let mut option = [0; 40];
    option[..2].copy_from_slice(&[254, 40]);
    option
}

/// With extension headers, first first, before what an IPv6 frame carries: the type of each, and
/// its bytes, of which the first becomes the type of what follows.
pub fn extended(frame: &[u8], headers: &[(u8, &[u8])]) -> Vec<u8> {
    let mut bytes = frame[..54].to_vec();
    let mut named_at = 20;
    let carried = bytes[named_at];
    for (kind, header) in headers {
        bytes[named_at] = *kind;
        named_at = bytes.len();
        bytes.extend_from_slice(header);
    }
    bytes[named_at] = carried;
    bytes.extend_from_slice(&frame[54..]);
    let len = (bytes.len() - 54) as u16;
    bytes[18..20].copy_from_slice(&len.to_be_bytes());
    bytes
}
