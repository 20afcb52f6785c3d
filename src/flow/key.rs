//! The four-tuple, seen from our side: whole, and in twelve bytes.

use crate::rng::Secret;
use crate::wire::Family;
use crate::wire::segment::Segment;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// Local and remote socket: what names a connection (RFC 9293 s3.4). Both of one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Endpoints {
    pub local: SocketAddr,
    pub remote: SocketAddr,
}

/// An address in four bytes: an IPv4 address is itself, an IPv6 address is the number that
/// [`Hosts`](super::Hosts) has given it, out of 240.0.0.0/4, which names no IPv4 host (RFC 1112
/// s4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Host(u32);

/// [`Endpoints`] in twelve bytes, as a control block and the connection table hold them. Good only
/// with the [`Hosts`](super::Hosts) that numbered its addresses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct FlowKey {
    pub local: Host,
    pub remote: Host,
    pub local_port: u16,
    pub remote_port: u16,
}

const _: () = assert!(size_of::<FlowKey>() == 12);

impl Endpoints {
    /// Of the connection that a received segment is for.
    pub fn of_received(segment: &Segment) -> Endpoints {
        Endpoints {
            local: SocketAddr::new(segment.dst, segment.dst_port),
            remote: SocketAddr::new(segment.src, segment.src_port),
        }
    }

    /// The same connection as the other side sees it.
    #[must_use]
    pub fn reversed(self) -> Endpoints {
        Endpoints { local: self.remote, remote: self.local }
    }

    /// The keyed hash that RFC 6528 s3 asks for, of the whole addresses.
    pub fn prf(&self, secret: &Secret) -> u64 {
        let ports = u32::from(self.local.port()) << 16 | u32::from(self.remote.port());
        match (self.local.ip(), self.remote.ip()) {
            (IpAddr::V4(local), IpAddr::V4(remote)) => {
                let addresses = u64::from(local.to_bits()) << 32 | u64::from(remote.to_bits());
                secret.prf([addresses], ports)
            }
            (local, remote) => {
                let ([a, b], [c, d]) = (words(local), words(remote));
                secret.prf([a, b, c, d], ports)
            }
        }
    }
}

impl fmt::Display for Endpoints {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} > {}", self.local, self.remote)
    }
}

impl Host {
    /// The host with this address; `None` if it names none.
    #[inline]
    pub const fn v4(address: Ipv4Addr) -> Option<Host> {
        let bits = address.to_bits();
        if bits < FIRST_NUMBER { Some(Host(bits)) } else { None }
    }

    /// The IPv6 host that has this place among those numbered.
    pub(super) const fn numbered(place: u32) -> Host {
        Host(FIRST_NUMBER + place)
    }

    /// The IPv4 address, or an IPv6 host's place among those numbered.
    pub(super) const fn known(self) -> Result<Ipv4Addr, usize> {
        match self.0.checked_sub(FIRST_NUMBER) {
            None => Ok(Ipv4Addr::from_bits(self.0)),
            Some(place) => Err(place as usize),
        }
    }

    /// Its last bits, by which hosts of one subnet differ.
    #[inline]
    pub const fn last_bits(self) -> u16 {
        self.0 as u16
    }

    #[inline]
    pub const fn family(self) -> Family {
        if self.0 < FIRST_NUMBER { Family::V4 } else { Family::V6 }
    }
}

/// 240.0.0.0.
const FIRST_NUMBER: u32 = 0xf000_0000;

impl FlowKey {
    /// Between nobody and nobody.
    pub const NONE: FlowKey =
        FlowKey { local: Host(0), remote: Host(0), local_port: 0, remote_port: 0 };

    /// Between two IPv4 sockets.
    ///
    /// # Panics
    /// If an address is of 240.0.0.0/4.
    pub const fn v4(local: ([u8; 4], u16), remote: ([u8; 4], u16)) -> FlowKey {
        let [a, b, c, d] = local.0;
        let [e, f, g, h] = remote.0;
        let local_host = Host::v4(Ipv4Addr::new(a, b, c, d)).expect("a host's address");
        let remote_host = Host::v4(Ipv4Addr::new(e, f, g, h)).expect("a host's address");
        FlowKey {
            local: local_host,
            remote: remote_host,
            local_port: local.1,
            remote_port: remote.1,
        }
    }

    /// Keyed hash for the connection table.
    #[inline]
    pub fn bucket(&self, secret: &Secret) -> u64 {
        let addresses = u64::from(self.local.0) << 32 | u64::from(self.remote.0);
        let ports = u64::from(self.local_port) << 16 | u64::from(self.remote_port);
        secret.bucket(addresses, ports)
    }

    /// Of both its addresses.
    #[inline]
    pub const fn family(&self) -> Family {
        self.local.family()
    }
}

/// An address as two words, for hashing; an IPv4 address as the IPv6 address mapped to it.
pub(super) fn words(address: IpAddr) -> [u64; 2] {
    let bits = match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
        IpAddr::V6(address) => address.to_bits(),
    };
    [(bits >> 64) as u64, bits as u64]
}
