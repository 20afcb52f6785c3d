//! Where frames come from and go to. A device owns the frames it was lent and nothing else; it
//! knows no TCP.

pub mod impair;
pub mod link;
pub mod mesh;
pub mod packet;
pub mod pcap;
pub mod steering;
pub mod xdp;

use crate::frame::{Burst, Pool};
use crate::time::Instant;

/// A NIC queue, or something that behaves like one.
pub trait Device {
    /// Moves what has arrived into `rx`, at most `rx.room()` frames, and gives the device free
    /// frames from `pool` to receive into. Never blocks.
    fn rx(&mut self, now: Instant, pool: &mut Pool, rx: &mut Burst);

    /// Takes frames from the front of `tx`, as many as there is room for, and leaves the rest; puts
    /// frames whose transmission is complete back into `pool`. Never blocks.
    fn tx(&mut self, now: Instant, pool: &mut Pool, tx: &mut Burst);

    /// Frames in the device's hands now: lent for receiving, queued for sending, or on their way.
    fn lent(&self) -> usize;

    /// What it is and what it counted. Not for the fast path.
    fn report(&self) -> Report;

    /// When the device will have something to do of itself (a delayed frame comes due), for a
    /// virtual clock.
    fn next_deadline(&self) -> Option<Instant> {
        None
    }
}

/// A device's name, mode and counters.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Kernel driver, or `memory`.
    pub driver: String,
    /// `zerocopy`, `copy`, `skb`, `memory` or `packet`.
    pub mode: &'static str,
    /// True if it puts in the checksum of a frame that leaves it to the device
    /// ([`Frame::leave_unsummed`](crate::frame::Frame::leave_unsummed)).
    pub sums: bool,
    /// Counters by the kernel's names (`rx_ring_full`, …) and ours (`tx_kicks_total`,
    /// `impair_lost_total`, …).
    pub counters: Vec<(&'static str, u64)>,
}
