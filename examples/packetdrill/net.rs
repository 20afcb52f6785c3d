//! The engine, its frames and its time: IP datagrams in, IP datagrams out with the moment of each.
//!
//! packetdrill knows no Ethernet. Its peer has one MAC address, which answers for every address
//! that is not ours; so the first segment to it leaves in the same instant as without resolution.

use crate::flags::Settings;
use crate::socket::Sockets;
use shakedown::engine::Engine;
use shakedown::frame::{Burst, Frame, Pool};
use shakedown::time::{Instant, Span};
use shakedown::wire::arp::Operation;
use shakedown::wire::ethernet::{self, ETHERTYPE_IPV4, ETHERTYPE_IPV6, Header, Mac};
use shakedown::wire::ndp::{self, Message};
use shakedown::wire::segment::{self, Body, Verify};
use std::collections::VecDeque;
use std::io;
use std::net::IpAddr;

/// Ours, and that of everybody else.
pub const OUR_MAC: Mac = Mac([2, 0, 0, 0, 0, 1]);
const PEER_MAC: Mac = Mac([2, 0, 0, 0, 0, 2]);

/// More frames than the windows of a script's connections hold.
const FRAMES: u32 = 1024;

/// Largest datagram: scripts have peers send several segments in one, as a kernel's receive offload
/// hands them on.
const DATAGRAM_BYTES_MAX: u16 = 32_000;

/// Turns at one instant. An engine that still moves then is left until the next instant.
const TURNS_MAX: usize = 100_000;

/// A datagram of ours, and when it left.
pub struct Departure {
    pub at: Instant,
    pub datagram: Vec<u8>,
}

/// One host under a clock that moves when it is told to.
pub struct Net {
    pub engine: Engine<Sockets>,
    pub now: Instant,
    pub departures: VecDeque<Departure>,
    /// The addresses that are ours.
    pub addresses: Vec<IpAddr>,
    pool: Pool,
    rx: Burst,
    tx: Burst,
    next_port: u16,
}

impl Net {
    /// # Errors
    /// Not enough memory.
    pub fn new(settings: Settings) -> io::Result<Net> {
        let Settings { config, addresses, buffer_bytes } = settings;
        let sockets = Sockets::new(buffer_bytes);
        // Not at zero: a moment before the start is a moment too.
        let now = Instant::ZERO + Span::from_secs(1);
        let mut net = Net {
            engine: Engine::new(config, sockets, now),
            now,
            departures: VecDeque::new(),
            addresses,
            pool: Pool::for_mtu(FRAMES, DATAGRAM_BYTES_MAX)?,
            rx: Burst::new(),
            tx: Burst::new(),
            next_port: FIRST_EPHEMERAL_PORT,
        };
        net.settle();
        Ok(net)
    }

    /// An IP datagram arrives now. False if no frame holds it.
    pub fn arrive(&mut self, datagram: &[u8]) -> bool {
        let header_len = ethernet::header_len(false);
        let len = header_len + datagram.len();
        let fits = datagram.len() <= usize::from(DATAGRAM_BYTES_MAX);
        let Some(version) = datagram.first().map(|byte| byte >> 4).filter(|_| fits) else {
            return false;
        };
        if self.rx.room() == 0 {
            return false;
        }
        let Some(mut frame) = self.pool.take() else { return false };
        let ethertype = if version == 6 { ETHERTYPE_IPV6 } else { ETHERTYPE_IPV4 };
        frame.reset(len);
        let header = Header { dst: OUR_MAC, src: PEER_MAC, vlan: None, ethertype };
        header.emit(frame.bytes_mut());
        frame.bytes_mut()[header_len..].copy_from_slice(datagram);
        self.rx.push(frame);
        self.settle();
        true
    }

    /// Turns of the engine at this instant, until nothing moves any more.
    pub fn settle(&mut self) {
        for _ in 0..TURNS_MAX {
            self.engine.poll(self.now, &mut self.pool, &mut self.rx, &mut self.tx);
            let sent = self.tx.len();
            if sent == 0 && self.engine.next_deadline(self.now) > self.now {
                break;
            }
            let frames: Vec<Frame> = self.tx.drain(sent).collect();
            for frame in frames {
                self.depart(frame);
            }
        }
        let Net { engine, .. } = self;
        for (id, key) in std::mem::take(&mut engine.app.unnamed) {
            let ends = engine.endpoints(&key);
            engine.app.name(id, ends);
        }
    }

    /// When something will happen of itself.
    pub fn next(&self) -> Instant {
        self.engine.next_deadline(self.now)
    }

    pub fn is_ours(&self, address: IpAddr) -> bool {
        self.addresses.contains(&address)
    }

    /// Our address of the family of `remote`.
    pub fn address_towards(&self, remote: IpAddr) -> Option<IpAddr> {
        self.addresses.iter().copied().find(|ours| ours.is_ipv4() == remote.is_ipv4())
    }

    /// A port that `taken` does not know; they come round in order.
    pub fn ephemeral_port(&mut self, taken: impl Fn(u16) -> bool) -> Option<u16> {
        for _ in FIRST_EPHEMERAL_PORT..=u16::MAX {
            let port = self.next_port;
            self.next_port = port.checked_add(1).unwrap_or(FIRST_EPHEMERAL_PORT);
            if !taken(port) {
                return Some(port);
            }
        }
        None
    }

    /// A frame of ours: a datagram is kept for packetdrill; a question for a neighbour is answered,
    /// and what tells or checks of our own addresses concerns nobody.
    fn depart(&mut self, mut frame: Frame) {
        let packet = segment::parse(frame.bytes(), Verify::All);
        let answered = match packet.map(|packet| packet.body) {
            Ok(Body::Arp(packet)) => {
                let asks = packet.operation == Operation::Request;
                let answered = asks && packet.sender_ip != packet.target_ip;
                packet.reply(PEER_MAC).emit(None, frame.bytes_mut());
                answered
            }
            Ok(Body::Ndp(packet)) => {
                frame.reset(ndp::frame_len(false));
                packet.reply(PEER_MAC).emit(PEER_MAC, OUR_MAC, None, frame.bytes_mut());
                packet.message == Message::Solicitation && !packet.src.is_unspecified()
            }
            _ => {
                let datagram = frame.bytes()[ethernet::header_len(false)..].to_vec();
                self.departures.push_back(Departure { at: self.now, datagram });
                false
            }
        };
        if answered && self.rx.room() > 0 {
            self.rx.push(frame);
        } else {
            self.pool.put(frame);
        }
    }
}

/// IANA's dynamic ports (RFC 6335 s6).
const FIRST_EPHEMERAL_PORT: u16 = 49_152;
