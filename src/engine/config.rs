//! What an engine is made of: plain data, whole before the engine is.

use super::Subnet;
use crate::flow::tuples::Ranges;
use crate::tcp::{self, Keepalive};
use crate::wire::ethernet::Mac;
use crate::wire::segment::Verify;
use std::net::IpAddr;

/// A listening port. Its place in the list is `Conn::listener`; what `Engine::listen` adds goes on
/// the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listener {
    pub port: u16,
    pub keepalive: Option<Keepalive>,
}

/// What an engine is made of. Everything but the listeners is fixed at start.
#[derive(Clone, Debug)]
pub struct Config {
    pub mac: Mac,
    /// Largest IP datagram in bytes.
    pub mtu: u16,
    /// IPv4's TTL and IPv6's hop limit (RFC 9293 s3.9.1, MUST-49).
    pub ttl: u8,
    pub subnets: Vec<Subnet>,
    /// Routers, of either family.
    pub gateways: Vec<IpAddr>,
    pub listeners: Vec<Listener>,
    /// Where a client opens connections from and to; `None` for a server.
    pub ranges: Option<Ranges>,
    /// Keepalive of the connections we open.
    pub keepalive: Option<Keepalive>,
    /// Connections at a time, as many more in TIME-WAIT, and as many in SYN-RECEIVED up to
    /// [`tcp::Config::syn_backlog`]. Memory for them is set aside at start.
    pub connections_max: u32,
    /// Slots in use before idle connections rest in less memory. As many as
    /// [`AWAKE_MAX`](super::AWAKE_MAX) unless it is tried what comes of fewer.
    pub awake_max: u32,
    pub tcp: tcp::Config,
    pub verify: Verify,
    /// The device puts in the checksums of segments that carry text: of the others there is little
    /// to sum.
    pub device_sums: bool,
    /// Where the run's secrets and its random numbers come from. Workers of one run have the same,
    /// so that whichever of them a SYN comes to, the ISNs of its four-tuple move forward by one
    /// clock.
    pub seed: u64,
}
