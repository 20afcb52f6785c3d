//! A device worked by hand: numbered frames from one end to the other and back, with the frame
//! ledger checked at every step.
#![allow(dead_code)] // each test binary uses a part of it

use shakedown::device::Device;
use shakedown::device::steering::{Reach, Steering};
use shakedown::frame::{Burst, Pool};
use shakedown::time::Instant;
use std::net::Ipv4Addr;
use std::time::Duration;

pub const NEAR: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 100);
pub const FAR: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 200);

/// One end: a device with its frames, turned by hand.
pub struct Station<D> {
    pub dev: D,
    pub pool: Pool,
    pub rx: Burst,
    pub tx: Burst,
    frames: usize,
}

impl<D: Device> Station<D> {
    /// A device that took its share of the `frames` frames of `pool`.
    pub fn new(dev: D, pool: Pool, frames: u32) -> Station<D> {
        Station { dev, pool, rx: Burst::new(), tx: Burst::new(), frames: frames as usize }
    }

    pub fn receive(&mut self) {
        self.dev.rx(Instant::ZERO, &mut self.pool, &mut self.rx);
        self.check();
    }

    pub fn send(&mut self) {
        self.dev.tx(Instant::ZERO, &mut self.pool, &mut self.tx);
        self.check();
    }

    /// Law 1: every frame is in the pool, in a burst, or with the device.
    pub fn check(&self) {
        let total = self.pool.len() + self.rx.len() + self.tx.len() + self.dev.lent();
        assert_eq!(total, self.frames);
    }

    pub fn counter(&self, name: &str) -> u64 {
        let report = self.dev.report();
        report.counters.iter().find(|(known, _)| *known == name).expect(name).1
    }
}

/// Steers one address.
pub fn only(addr: Ipv4Addr) -> Steering {
    Steering { ours: vec![Reach::only(addr.into())], ..Steering::default() }
}

/// An IPv4 frame to `dst` of an experimental protocol, with a number in it. Only the steering
/// program looks at it.
pub fn write_numbered(bytes: &mut [u8], dst: Ipv4Addr, number: u64) {
    bytes.fill(0);
    bytes[..6].fill(0xff);
    bytes[12..14].copy_from_slice(&[0x08, 0x00]);
    bytes[14] = 0x45;
    bytes[23] = 253;
    bytes[30..34].copy_from_slice(&dst.octets());
    bytes[34..42].copy_from_slice(&number.to_be_bytes());
}

pub fn number_of(bytes: &[u8]) -> u64 {
    u64::from_be_bytes(bytes[34..42].try_into().unwrap())
}

/// `near` sends numbered frames, `far` checks the order and returns each frame, until `count` came
/// back.
pub fn ping_pong(near: &mut Station<impl Device>, far: &mut Station<impl Device>, count: u64) {
    const WINDOW: u64 = 128;
    let deadline = std::time::Instant::now() + Duration::from_secs(30);
    let (mut sent, mut turned, mut returned) = (0, 0, 0);
    while returned < count {
        assert!(std::time::Instant::now() < deadline, "{sent} {turned} {returned}");
        while sent < count && sent - returned < WINDOW && near.tx.room() > 0 {
            let mut frame = near.pool.take().unwrap();
            frame.reset(60 + (sent % 1400) as usize);
            write_numbered(frame.bytes_mut(), FAR, sent);
            near.tx.push(frame);
            sent += 1;
        }
        near.send();
        far.receive();
        for mut frame in far.rx.drain(far.rx.len().min(far.tx.room())) {
            assert_eq!(number_of(frame.bytes()), turned);
            assert_eq!(frame.bytes().len(), 60 + (turned % 1400) as usize);
            write_numbered(frame.bytes_mut(), NEAR, turned);
            far.tx.push(frame);
            turned += 1;
        }
        far.send();
        near.receive();
        for frame in near.rx.drain(near.rx.len()) {
            assert_eq!(number_of(frame.bytes()), returned);
            near.pool.put(frame);
            returned += 1;
        }
    }
}
