//! An engine in memory, and a crowd of peers that send it whatever segments they like.

use shakedown::app::App;
use shakedown::engine::{Config, Engine, Listener, Subnet};
use shakedown::frame::{BURST_FRAMES_MAX, Burst, Pool};
use shakedown::rng::Rng;
use shakedown::tcp;
use shakedown::time::{Instant, Span};
use shakedown::wire::Family;
use shakedown::wire::ethernet::{Header, Mac};
use shakedown::wire::options::Options;
use shakedown::wire::segment::{self, Body, Segment, Verify};
use shakedown::wire::tcp::Flags;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub const OUR_MAC: Mac = Mac([2, 0, 0, 0, 0, 2]);
pub const THEIR_MAC: Mac = Mac([2, 0, 0, 0, 0, 1]);
pub const OURS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
pub const OURS6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2);

/// What text is, over and over: as many bytes of it are one request.
pub const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n";

/// Of an engine that listens at port 80, with room for so many connections.
pub fn config(connections_max: u32, tcp: tcp::Config) -> Config {
    Config {
        mac: OUR_MAC,
        mtu: 1500,
        ttl: 64,
        subnets: vec![Subnet::only(OURS, 24), Subnet::only(OURS6, 64)],
        gateways: vec![],
        listeners: vec![Listener { port: 80, keepalive: None }],
        ranges: None,
        keepalive: None,
        connections_max,
        awake_max: 0,
        tcp,
        verify: Verify::All,
        device_sums: false,
        seed: 1,
    }
}

/// The engine, its frames and its clock.
pub struct Crowd<A: App> {
    pub engine: Engine<A>,
    pub now: Instant,
    pub rng: Rng,
    pub pool: Pool,
}

impl<A: App> Crowd<A> {
    /// Before an engine that listens at port 80, with room for so many connections.
    pub fn new(app: A, connections_max: u32, tcp: tcp::Config) -> Crowd<A> {
        Crowd::of(config(connections_max, tcp), app)
    }

    /// Before any engine.
    pub fn of(config: Config, app: A) -> Crowd<A> {
        let engine = Engine::new(config, app, Instant::ZERO);
        Crowd { engine, pool: Pool::new(256).unwrap(), now: Instant::ZERO, rng: Rng::new(7) }
    }

    /// Lets segments arrive, a burst of 64 every 64 µs; answers what is sent.
    pub fn turn(&mut self, segments: &[Segment]) -> Vec<Segment> {
        let mut sent = Vec::new();
        for burst in segments.chunks(BURST_FRAMES_MAX) {
            let rx = self.burst(burst);
            self.now += Span::from_micros(64);
            sent.extend(self.poll(rx));
        }
        sent
    }

    /// The frames of segments, of which there are no more than a burst takes.
    pub fn burst(&mut self, segments: &[Segment]) -> Burst {
        let mut rx = Burst::new();
        for segment in segments {
            let family = segment.family();
            let ethertype = family.ethertype();
            let header = Header { dst: OUR_MAC, src: THEIR_MAC, vlan: None, ethertype };
            let mut frame = self.pool.take().expect("as many frames as are under way");
            let text_at = segment::header_len(false, family, &segment.options);
            frame.reset(text_at + usize::from(segment.payload_len));
            let text = frame.bytes_mut()[text_at..].iter_mut();
            text.zip(REQUEST.iter().cycle()).for_each(|(byte, text)| *byte = *text);
            segment::emit(frame.bytes_mut(), &header, segment, 0, 64);
            rx.push(frame);
        }
        rx
    }

    /// Lets a peer open a connection by a SYN; what it sends next, without text. `None` if the SYN
    /// is not answered.
    pub fn open(&mut self, syn: &Segment) -> Option<Segment> {
        let answers = self.turn(&[*syn]);
        let syn_ack = answers.iter().find(|answer| answer.dst_port == syn.src_port)?;
        assert_eq!(syn_ack.flags, Flags::SYN | Flags::ACK);
        let acked = ack(syn_ack);
        self.turn(&[acked]);
        Some(acked)
    }

    /// Lets time pass; answers what is sent at its end.
    pub fn wait(&mut self, span: Span) -> Vec<Segment> {
        self.now += span;
        self.poll(Burst::new())
    }

    fn poll(&mut self, mut rx: Burst) -> Vec<Segment> {
        let (mut tx, mut sent) = (Burst::new(), Vec::new());
        loop {
            self.engine.poll(self.now, &mut self.pool, &mut rx, &mut tx);
            let count = tx.len();
            for frame in tx.drain(count) {
                if let Ok(packet) = segment::parse(frame.bytes(), Verify::All)
                    && let Body::Tcp(segment) = packet.body
                {
                    sent.push(segment);
                }
                self.pool.put(frame);
            }
            // What found no room has it now.
            if count == 0 {
                return sent;
            }
        }
    }

    /// A SYN from anywhere but here.
    pub fn spoofed(&mut self, family: Family) -> Segment {
        let bits = self.rng.next();
        let src = match family {
            Family::V4 => IpAddr::from(Ipv4Addr::from_bits(0x0b00_0000 | bits as u32 & 0xff_ffff)),
            Family::V6 => Ipv6Addr::from_bits(0xfd01 << 112 | u128::from(bits)).into(),
        };
        syn(src, 1024 + (bits >> 48) as u16 % 60_000)
    }
}

pub fn syn(src: IpAddr, src_port: u16) -> Segment {
    let dst = if src.is_ipv4() { IpAddr::from(OURS) } else { OURS6.into() };
    let options = Options {
        mss: Some(1460),
        window_scale: Some(7),
        sack_permitted: true,
        timestamps: Some((1, 0)),
        ..Options::NONE
    };
    let (dst_port, seq, window) = (80, 100, 65_535);
    let flags = Flags::SYN;
    Segment { src, dst, src_port, dst_port, seq, flags, window, options, ..Segment::BLANK }
}

/// The ACK of a segment.
pub fn ack(sent: &Segment) -> Segment {
    let Segment { src, dst, src_port, dst_port, ack, options, .. } = *sent;
    let timestamps = options.timestamps.map(|(value, _)| (2, value));
    Segment {
        src: dst,
        dst: src,
        src_port: dst_port,
        dst_port: src_port,
        seq: ack,
        ack: sent.seq.wrapping_add(sent.seq_len()),
        flags: Flags::ACK,
        window: 512,
        options: Options { timestamps, ..Options::NONE },
        ..Segment::BLANK
    }
}
