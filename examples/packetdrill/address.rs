//! `sockaddr_in` and `sockaddr_in6` as bytes, to addresses and back.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The family of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Domain {
    V4,
    /// Speaks IPv4 too, by mapped addresses.
    V6,
}

/// Bytes of `sockaddr_in` and of `sockaddr_in6`.
const V4_BYTES: usize = 16;
const V6_BYTES: usize = 28;

impl Domain {
    /// As in `AF_INET`, `AF_INET6`.
    pub fn parse(number: i32) -> Option<Domain> {
        match number {
            libc::AF_INET => Some(Domain::V4),
            libc::AF_INET6 => Some(Domain::V6),
            _ => None,
        }
    }

    pub fn number(self) -> i32 {
        match self {
            Domain::V4 => libc::AF_INET,
            Domain::V6 => libc::AF_INET6,
        }
    }
}

/// Reads a `sockaddr`; an IPv4 address that is mapped to IPv6 comes out as itself. `None` if it is
/// too short or of another family.
pub fn parse(bytes: &[u8]) -> Option<SocketAddr> {
    let family = u16::from_ne_bytes(*bytes.first_chunk()?);
    let port = u16::from_be_bytes(*bytes.get(2..)?.first_chunk()?);
    let address = match Domain::parse(i32::from(family))? {
        Domain::V4 => IpAddr::V4(Ipv4Addr::from(*bytes.get(4..)?.first_chunk::<4>()?)),
        Domain::V6 => {
            let address = Ipv6Addr::from(*bytes.get(8..)?.first_chunk::<16>()?);
            match address.to_ipv4_mapped() {
                Some(mapped) => IpAddr::V4(mapped),
                None => IpAddr::V6(address),
            }
        }
    };
    Some(SocketAddr::new(address, port))
}

/// Writes a `sockaddr` as a socket of `domain` gives it.
pub fn emit(address: SocketAddr, domain: Domain) -> Vec<u8> {
    let (len, family) = match domain {
        Domain::V4 => (V4_BYTES, libc::AF_INET),
        Domain::V6 => (V6_BYTES, libc::AF_INET6),
    };
    let mut bytes = vec![0; len];
    bytes[..2].copy_from_slice(&(family as u16).to_ne_bytes());
    bytes[2..4].copy_from_slice(&address.port().to_be_bytes());
    match (domain, address.ip()) {
        (Domain::V4, IpAddr::V4(ip)) => bytes[4..8].copy_from_slice(&ip.octets()),
        (Domain::V6, IpAddr::V4(ip)) => {
            bytes[8..24].copy_from_slice(&ip.to_ipv6_mapped().octets());
        }
        (Domain::V6, IpAddr::V6(ip)) => bytes[8..24].copy_from_slice(&ip.octets()),
        // A socket of IPv4 has no such peer.
        (Domain::V4, IpAddr::V6(_)) => {}
    }
    bytes
}
