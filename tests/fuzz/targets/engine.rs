//! A server among segments, times and frames that the input chooses: each step is an operation and
//! what it takes. The engine's laws hold after each, no frame is lost, and all comes to rest.

use shakedown::app::server::{Server, Service};
use shakedown::engine::{Config, Engine, Listener, Subnet};
use shakedown::flow::Endpoints;
use shakedown::frame::{Burst, Pool};
use shakedown::tcp::{self, Keepalive, State};
use shakedown::time::{Instant, Span};
use shakedown::wire::ethernet::{ETHERTYPE_IPV4, Header, Mac};
use shakedown::wire::options::Options;
use shakedown::wire::segment::{self, Body, Segment, Verify};
use shakedown::wire::tcp::Flags;
use std::net::Ipv4Addr;

const OURS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
const THEIRS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const OUR_MAC: Mac = Mac([2, 0, 0, 0, 0, 2]);
const THEIR_MAC: Mac = Mac([2, 0, 0, 0, 0, 1]);
const PEER_PORT: u16 = 1000;
const FRAMES: u32 = 64;
const STEPS_MAX: usize = 200;
const SERVICES: [Service; 4] =
    [Service::Echo, Service::Discard, Service::HalfClose, Service::Http { response_size: 3_000 }];

struct World {
    engine: Engine<Server>,
    pool: Pool,
    rx: Burst,
    tx: Burst,
    now: Instant,
    /// By listener: what the engine sends next, and what it expects next.
    seen: [(u32, u32); SERVICES.len()],
}

pub fn run(mut data: &[u8]) {
    let mut world = World::new();
    for _ in 0..STEPS_MAX {
        let Some((step, rest)) = data.split_first_chunk::<8>() else { break };
        data = world.step(*step, rest);
        world.turn();
    }
    world.engine.stop();
    for _ in 0..2_000 {
        if world.engine.connections() == 0 {
            return;
        }
        world.now += Span::from_secs(10);
        world.turn();
    }
    let states: Vec<_> = world.states().collect();
    panic!("never at rest: {states:?}");
}

impl World {
    fn new() -> World {
        let ports = 1..=SERVICES.len() as u16;
        let keepalive = Some(Keepalive::default());
        let config = Config {
            mac: OUR_MAC,
            mtu: 1500,
            ttl: 64,
            subnets: vec![Subnet::only(OURS, 24)],
            gateways: vec![],
            // Or half a request would be waited for as long as its peer is silent.
            listeners: ports.map(|port| Listener { port, keepalive }).collect(),
            ranges: None,
            keepalive: None,
            connections_max: 8,
            awake_max: 0,
            tcp: tcp::Config { syn_backlog: 4, ..tcp::Config::default() },
            verify: Verify::All,
            device_sums: false,
            seed: 1,
        };
        World {
            engine: Engine::new(config, Server::new(SERVICES.to_vec(), 8), Instant::ZERO),
            pool: Pool::new(FRAMES).expect("memory for a few frames"),
            rx: Burst::new(),
            tx: Burst::new(),
            now: Instant::ZERO,
            seen: [(0, 0); SERVICES.len()],
        }
    }

    /// By listener.
    fn states(&self) -> impl Iterator<Item = State> {
        (1..=SERVICES.len() as u16).map(|port| {
            let (local, remote) = ((OURS, port).into(), (THEIRS, PEER_PORT).into());
            self.engine.state_of(&Endpoints { local, remote })
        })
    }

    /// Acts on eight bytes, and on those after them that they ask for; answers what is left.
    fn step<'a>(&mut self, step: [u8; 8], rest: &'a [u8]) -> &'a [u8] {
        let [operation, flags, port, seq, ack, len, window, option] = step;
        match operation % 8 {
            0 => {
                self.now += Span::from_millis(u64::from(u16::from_be_bytes([seq, ack])));
                rest
            }
            1 => {
                let (frame, rest) = rest.split_at(rest.len().min(usize::from(len)));
                self.give(frame);
                rest
            }
            _ => {
                let place = usize::from(port) % SERVICES.len();
                let (snd, rcv) = self.seen[place];
                let options = Options {
                    mss: (option & 1 != 0).then_some(u16::from(window)),
                    window_scale: (option & 2 != 0).then_some(option),
                    timestamps: (option & 4 != 0).then_some((u32::from(option), u32::from(seq))),
                    sack_permitted: option & 8 != 0,
                    ..Options::default()
                };
                self.segment(Segment {
                    src: THEIRS.into(),
                    dst: OURS.into(),
                    src_port: PEER_PORT,
                    dst_port: 1 + place as u16,
                    seq: rcv.wrapping_add(near(seq)),
                    ack: snd.wrapping_add(near(ack)),
                    flags: Flags(flags),
                    window: u16::from(window) * 257,
                    urgent: u16::from(option),
                    options,
                    payload_len: u16::from(len) * u16::from(operation & 8 != 0),
                    ..Segment::BLANK
                });
                rest
            }
        }
    }

    fn segment(&mut self, segment: Segment) {
        let payload_at = segment::header_len(false, segment.family(), &segment.options);
        let mut frame = vec![b'G'; payload_at + usize::from(segment.payload_len)];
        let header = Header { dst: OUR_MAC, src: THEIR_MAC, vlan: None, ethertype: ETHERTYPE_IPV4 };
        segment::emit(&mut frame, &header, &segment, 1, 64);
        self.give(&frame);
    }

    fn give(&mut self, bytes: &[u8]) {
        let Some(mut frame) = self.pool.take() else { return };
        frame.reset(bytes.len());
        frame.bytes_mut().copy_from_slice(bytes);
        self.rx.push(frame);
    }

    fn turn(&mut self) {
        self.engine.poll(self.now, &mut self.pool, &mut self.rx, &mut self.tx);
        self.engine.check();
        for frame in self.tx.drain(self.tx.len()) {
            let sent = segment::parse(frame.bytes(), Verify::All).expect("what we send is sound");
            if let Body::Tcp(sent) = sent.body {
                let place = usize::from(sent.src_port).wrapping_sub(1);
                if let Some(seen) = self.seen.get_mut(place) {
                    seen.0 = sent.seq.wrapping_add(sent.seq_len());
                    seen.1 = if sent.flags.has(Flags::ACK) { sent.ack } else { seen.1 };
                }
            }
            self.pool.put(frame);
        }
        assert_eq!(self.pool.len(), FRAMES as usize, "every frame came back");
    }
}

/// Mostly exact, else a little off, else far.
fn near(byte: u8) -> u32 {
    match byte {
        0..128 => 0,
        128..192 => u32::from(byte).wrapping_sub(160),
        192..224 => u32::from(byte).wrapping_sub(208).wrapping_mul(4_000),
        _ => u32::from(byte) << 24,
    }
}
