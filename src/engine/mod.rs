//! One core's stack: frames in, frames out, and a table of connections between.

use crate::app::{App, Conn, Refusal};
use crate::flow::FlowKey;
use crate::flow::tuples::Ranges;
use crate::frame::{Burst, Pool};
use crate::stats::Counters;
use crate::tcp::{self, Keepalive};
use crate::time::Instant;
use crate::wire::ethernet::Mac;
use crate::wire::segment::Verify;
use std::net::Ipv4Addr;

/// Addresses that are ours, on one subnet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subnet {
    pub first: Ipv4Addr,
    pub last: Ipv4Addr,
    pub prefix_len: u8,
}

/// A listening port. Its place in the list is `Conn::listener`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listener {
    pub port: u16,
    pub keepalive: Option<Keepalive>,
}

/// What an engine is made of. Everything is fixed at start.
#[derive(Clone, Debug)]
pub struct Config {
    pub mac: Mac,
    /// 802.1Q tag of everything sent; frames with another tag are not ours.
    pub vlan: Option<u16>,
    /// Largest IP datagram in bytes.
    pub mtu: u16,
    pub ttl: u8,
    pub subnets: Vec<Subnet>,
    pub gateway: Option<Ipv4Addr>,
    pub listeners: Vec<Listener>,
    /// Where a client opens connections from and to; `None` for a server.
    pub ranges: Option<Ranges>,
    /// Keepalive of the connections we open.
    pub keepalive: Option<Keepalive>,
    /// Connections at a time, TIME-WAIT included. Memory for them is allocated at start.
    pub connections_max: u32,
    pub tcp: tcp::Config,
    pub verify: Verify,
    /// Where the run's secret and its random numbers come from.
    pub seed: u64,
}

/// The engine of one core.
pub struct Engine<A: App> {
    pub app: A,
    pub counters: Counters,
}

impl<A: App> Engine<A> {
    pub fn new(_config: Config, app: A, _now: Instant) -> Engine<A> {
        Engine { app, counters: Counters::default() }
    }

    /// One turn: takes every frame out of `rx`, lets due timers fire, lets the application launch, and fills `tx` with
    /// what is owed, as far as there is room. Bounded work, whatever arrives.
    pub fn poll(&mut self, _now: Instant, _pool: &mut Pool, _rx: &mut Burst, _tx: &mut Burst) {}

    /// Connections in the table, TIME-WAIT included.
    pub fn connections(&self) -> usize {
        0
    }

    /// Connections in the table that are not in TIME-WAIT.
    pub fn live(&self) -> usize {
        0
    }

    /// Opens the connection `key` now, whatever the ranges say.
    ///
    /// # Errors
    /// The four-tuple is in use, or the table is full.
    pub fn connect(
        &mut self,
        _now: Instant,
        _key: FlowKey,
        _state: A::State,
    ) -> Result<(), Refusal> {
        Err(Refusal::TableFull)
    }

    /// Lets `act` mark something on the connection `key` outside of any event, as a user's call would. False if there
    /// is no such connection, or it is in TIME-WAIT.
    pub fn prod(
        &mut self,
        _now: Instant,
        _key: &FlowKey,
        _act: impl FnOnce(&mut A, &mut Conn<'_, A::State>),
    ) -> bool {
        false
    }

    /// The state of the connection `key`; `Closed` if there is none.
    pub fn state_of(&self, _key: &FlowKey) -> tcp::State {
        tcp::State::Closed
    }

    /// No new connections: SYNs are refused with RST, launches stop, and every idle connection is closed.
    pub fn stop(&mut self, _now: Instant) {}

    /// When the engine will next have something to do of itself, for a virtual clock.
    pub fn next_deadline(&self, _now: Instant) -> Instant {
        Instant::NEVER
    }

    /// Bytes of state a connection takes (table, slabs and wheel), at this configuration.
    pub fn bytes_per_connection(&self) -> usize {
        0
    }

    /// Laws 2 and 3: free + live slots = max, the index agrees with the slots, every control block is sound.
    ///
    /// # Panics
    /// If not: a bug of ours.
    pub fn check(&self) {}
}
