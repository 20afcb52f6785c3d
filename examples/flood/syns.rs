//! The flood: SYNs as Linux lays them out, from 2^16 addresses and all ports, through AF_PACKET, so
//! that the kernel goes on with the interface as if nothing was.

use super::Rate;
use shakedown::device::Device;
use shakedown::device::packet::Packet;
use shakedown::device::steering::Steering;
use shakedown::frame::{Burst, Pool};
use shakedown::rng::Rng;
use shakedown::sys::net::Interface;
use shakedown::time::Instant;
use shakedown::wire::ethernet::{ETHERTYPE_IPV4, Header, Mac};
use shakedown::wire::options::Options;
use shakedown::wire::segment::{self, Segment};
use shakedown::wire::tcp::Flags;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant as Clock};

/// Frames of one call to the kernel.
const BURST: u64 = 32;

/// Ports below are no clients'.
const FIRST_PORT: u64 = 1024;

/// SYNs to one server.
pub struct Flood {
    pub interface: String,
    /// The server's, or its gateway's.
    pub mac: Mac,
    pub server: SocketAddrV4,
    /// First of the addresses that are claimed.
    pub spoof: Ipv4Addr,
    pub rate: Rate,
}

/// What has left.
pub struct Sent {
    pub sent: u64,
    pub took: Duration,
}

impl Flood {
    /// Sends for so long.
    ///
    /// # Errors
    /// No such interface, or not permitted.
    pub fn run(&self, span: Duration) -> io::Result<Sent> {
        let started = Clock::now();
        let mut sent = 0;
        if self.rate != Rate::Paced(0) {
            let mut sender = Sender::open(self)?;
            while started.elapsed() < span {
                let due = match self.rate {
                    Rate::Max => BURST,
                    Rate::Paced(rate) => {
                        let due = started.elapsed().as_secs_f64() * rate as f64;
                        (due as u64).saturating_sub(sent).min(BURST)
                    }
                };
                match due {
                    0 => std::thread::sleep(Duration::from_micros(100)),
                    _ => sent += sender.send(due),
                }
            }
        }
        Ok(Sent { sent, took: started.elapsed() })
    }
}

struct Sender<'a> {
    flood: &'a Flood,
    header: Header,
    device: Packet,
    pool: Pool,
    burst: Burst,
    rng: Rng,
}

impl Sender<'_> {
    fn open(flood: &Flood) -> io::Result<Sender<'_>> {
        let src = Mac(Interface::find(&flood.interface)?.mac);
        let header = Header { dst: flood.mac, src, vlan: None, ethertype: ETHERTYPE_IPV4 };
        Ok(Sender {
            flood,
            header,
            device: Packet::open(&flood.interface, &Steering::default())?,
            pool: Pool::new(4 * BURST as u32)?,
            burst: Burst::new(),
            rng: Rng::new(std::process::id().into()),
        })
    }

    /// Sends up to `count` SYNs; answers how many the kernel took.
    fn send(&mut self, count: u64) -> u64 {
        for _ in self.burst.len() as u64..count {
            let Some(mut frame) = self.pool.take() else { break };
            let syn = self.syn();
            frame.reset(segment::header_len(false, syn.family(), &syn.options));
            segment::emit(frame.bytes_mut(), &self.header, &syn, self.rng.next() as u16, 64);
            self.burst.push(frame);
        }
        let before = self.burst.len();
        self.device.tx(Instant::ZERO, &mut self.pool, &mut self.burst);
        (before - self.burst.len()) as u64
    }

    fn syn(&mut self) -> Segment {
        let host = u32::from(self.flood.spoof) + self.rng.below(1 << 16) as u32;
        Segment {
            src: Ipv4Addr::from(host).into(),
            dst: (*self.flood.server.ip()).into(),
            src_port: (FIRST_PORT + self.rng.below(65_536 - FIRST_PORT)) as u16,
            dst_port: self.flood.server.port(),
            seq: self.rng.next() as u32,
            flags: Flags::SYN,
            window: 64_240,
            options: Options {
                mss: Some(1460),
                window_scale: Some(7),
                sack_permitted: true,
                timestamps: Some((self.rng.next() as u32, 0)),
                ..Options::NONE
            },
            ..Segment::BLANK
        }
    }
}
