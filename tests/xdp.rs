//! The AF_XDP device on a real veth pair: frames both ways, who gets what, and what is left when it goes.

mod common;

use common::{End, Lab};
use shakedown::device::Device;
use shakedown::device::steering::Steering;
use shakedown::device::xdp::{self, Mode, Options, Program, Xdp};
use shakedown::frame::{Burst, Pool};
use shakedown::time::Instant;
use std::io;
use std::net::Ipv4Addr;
use std::time::Duration;

const NEAR: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 100);
const FAR: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 200);
const RING_FRAMES: u32 = 512;

/// One end: a device with its frames, turned by hand.
struct Station {
    dev: Xdp,
    pool: Pool,
    rx: Burst,
    tx: Burst,
    frames: usize,
}

impl Station {
    fn open(
        lab: &Lab,
        end: End,
        addr: Ipv4Addr,
        queues: &[u32],
        busy_poll: bool,
    ) -> io::Result<Station> {
        lab.inside(end, || {
            let program = Program::attach(end.interface(), &only(addr), Mode::Auto)?;
            Station::on(&std::sync::Arc::clone(&program), queues, busy_poll)
        })
    }

    fn on(
        program: &std::sync::Arc<Program>,
        queues: &[u32],
        busy_poll: bool,
    ) -> io::Result<Station> {
        let frames = xdp::frames_for(queues.len(), RING_FRAMES);
        let mut pool = Pool::new(frames)?;
        let options = Options { ring_frames: RING_FRAMES, busy_poll };
        let dev = Xdp::open(program, queues, &options, &mut pool)?;
        Ok(Station { dev, pool, rx: Burst::new(), tx: Burst::new(), frames: frames as usize })
    }

    fn receive(&mut self) {
        self.dev.rx(Instant::ZERO, &mut self.pool, &mut self.rx);
        self.check();
    }

    fn send(&mut self) {
        self.dev.tx(Instant::ZERO, &mut self.pool, &mut self.tx);
        self.check();
    }

    /// Law 1: every frame is in the pool, in a burst, or with the device.
    fn check(&self) {
        let total = self.pool.len() + self.rx.len() + self.tx.len() + self.dev.lent();
        assert_eq!(total, self.frames);
    }

    fn counter(&self, name: &str) -> u64 {
        let report = self.dev.report();
        report.counters.iter().find(|(known, _)| *known == name).expect(name).1
    }
}

fn only(addr: Ipv4Addr) -> Steering {
    Steering { ours: vec![(addr, addr)], ..Steering::default() }
}

/// An IPv4 frame to `dst` of an experimental protocol, with a number in it. Only the steering program looks at it.
fn write_numbered(bytes: &mut [u8], dst: Ipv4Addr, number: u64) {
    bytes.fill(0);
    bytes[..6].fill(0xff);
    bytes[12..14].copy_from_slice(&[0x08, 0x00]);
    bytes[14] = 0x45;
    bytes[23] = 253;
    bytes[30..34].copy_from_slice(&dst.octets());
    bytes[34..42].copy_from_slice(&number.to_be_bytes());
}

fn number_of(bytes: &[u8]) -> u64 {
    u64::from_be_bytes(bytes[34..42].try_into().unwrap())
}

/// `near` sends numbered frames, `far` checks the order and returns each frame, until `count` came back.
fn ping_pong(near: &mut Station, far: &mut Station, count: u64) {
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

#[test]
fn every_frame_arrives_in_order_both_ways_and_none_is_lost_from_the_ledger() {
    let Some(lab) = Lab::new("order") else { return };
    let mut near = Station::open(&lab, End::Near, NEAR, &[0], false).unwrap();
    let mut far = Station::open(&lab, End::Far, FAR, &[0], false).unwrap();
    ping_pong(&mut near, &mut far, 100_000);
    assert_eq!((near.dev.report().mode, near.dev.report().driver.as_str()), ("copy", "veth"));
    for station in [&near, &far] {
        for counter in ["rx_dropped", "rx_ring_full", "spoiled_descs_total", "tx_invalid_descs"] {
            assert_eq!(station.counter(counter), 0, "{counter}");
        }
        let kicks = station.counter("tx_kicks_total");
        assert!(kicks > 0 && kicks < 100_000, "{kicks} kicks for 100,000 frames");
        assert_eq!(station.counter("syscalls_total"), kicks);
    }
}
