//! AF_PACKET: the fallback where XDP is impossible. Every frame is copied and costs a share of a
//! system call.
//!
//! It looks over the kernel's shoulder instead of taking frames away, so the kernel handles them
//! too: for an address of its own it would answer our peers with a reset. It serves addresses that
//! are ours alone, and forwarding must be off (`net.ipv4.ip_forward=0`), or the kernel sends their
//! packets on. One worker an interface.

use super::steering::{self, Steering, Wanted};
use super::{Device, Report};
use crate::frame::{BURST_FRAMES_MAX, Burst, Frame, Pool};
use crate::sys::net::Interface;
use crate::sys::packet::{Groups, PacketSocket};
use crate::time::Instant;
use std::cell::Cell;
use std::io;

/// An interface through AF_PACKET.
pub struct Packet {
    socket: PacketSocket,
    _groups: Option<Groups>,
    driver: String,
    /// Frames to receive into next.
    free: Vec<Frame>,
    rx_calls: u64,
    rx_too_long: u64,
    tx_calls: u64,
    tx_again: u64,
    tx_refused: u64,
    /// Reading it resets it in the kernel.
    rx_dropped: Cell<u64>,
}

impl Packet {
    /// Opens `interface` of the calling thread's network namespace; the device may then move to any
    /// thread.
    ///
    /// # Errors
    /// What was attempted and what to do: no such interface, it is down, not permitted, an address
    /// belongs to the kernel, or `steering` shares the kernel's addresses, which only XDP can.
    pub fn open(interface: &str, steering: &Steering) -> io::Result<Packet> {
        let interface = Interface::find(interface)?;
        let name = &interface.name;
        if !interface.up {
            let text = format!("{name} is down: `ip link set {name} up`");
            return Err(io::Error::new(io::ErrorKind::NetworkDown, text));
        }
        if !steering.shared.is_empty() {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "AF_PACKET can't share an address with the kernel, which would reset our \
                 connections: use an address that the kernel does not have, or XDP",
            ));
        }
        steering.check_against(name, &interface.addrs)?;
        let socket = PacketSocket::bind(
            interface.index,
            &steering::filter(Wanted::Everything, &steering.ours),
        )?;
        Ok(Packet {
            socket,
            _groups: steering.owns_ipv6().then(|| Groups::hear(interface.index)).transpose()?,
            driver: interface.driver,
            free: Vec::with_capacity(BURST_FRAMES_MAX),
            rx_calls: 0,
            rx_too_long: 0,
            tx_calls: 0,
            tx_again: 0,
            tx_refused: 0,
            rx_dropped: Cell::new(0),
        })
    }
}

impl Device for Packet {
    fn rx(&mut self, _now: Instant, pool: &mut Pool, rx: &mut Burst) {
        while self.free.len() < BURST_FRAMES_MAX {
            let Some(frame) = pool.take() else { break };
            self.free.push(frame);
        }
        if rx.room() == 0 || self.free.is_empty() {
            return;
        }
        self.rx_calls += 1;
        let too_long = &mut self.rx_too_long;
        self.socket.receive(&mut self.free, rx.room(), |frame| match frame {
            Ok(frame) => rx.push(frame),
            Err(frame) => {
                *too_long += 1;
                pool.put(frame);
            }
        });
    }

    fn tx(&mut self, _now: Instant, pool: &mut Pool, tx: &mut Burst) {
        if tx.is_empty() {
            return;
        }
        self.tx_calls += 1;
        let done = self.socket.send(tx.frames()).unwrap_or_else(|_| {
            self.tx_refused += 1;
            1
        });
        self.tx_again += u64::from(done < tx.len());
        tx.drain(done).for_each(|frame| pool.put(frame));
    }

    fn lent(&self) -> usize {
        self.free.len()
    }

    fn report(&self) -> Report {
        self.rx_dropped.set(self.rx_dropped.get() + u64::from(self.socket.take_drops()));
        let counters = vec![
            ("tx_kicks_total", self.tx_calls),
            ("tx_kicks_again_total", self.tx_again),
            ("tx_refused_total", self.tx_refused),
            ("rx_calls_total", self.rx_calls),
            ("syscalls_total", self.rx_calls + self.tx_calls),
            ("rx_dropped", self.rx_dropped.get()),
            ("rx_too_long_total", self.rx_too_long),
        ];
        Report { driver: self.driver.clone(), mode: "packet", sums: false, counters }
    }
}
