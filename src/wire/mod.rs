//! Bytes to values and back. Parsing never panics and never loops on any input: it gives a value or
//! a [`Malformed`] reason, which the caller counts. Nothing here knows a connection, a clock or a
//! device.

pub mod arp;
pub mod checksum;
pub mod ethernet;
pub mod icmp;
pub mod ipv4;
pub mod ipv6;
pub mod ndp;
pub mod options;
pub mod segment;
pub mod tcp;

use std::net::IpAddr;

/// The versions of IP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Family {
    V4,
    V6,
}

impl Family {
    #[inline]
    pub const fn of(address: IpAddr) -> Family {
        match address {
            IpAddr::V4(_) => Family::V4,
            IpAddr::V6(_) => Family::V6,
        }
    }

    /// Its EtherType.
    #[inline]
    pub const fn ethertype(self) -> u16 {
        match self {
            Family::V4 => ethernet::ETHERTYPE_IPV4,
            Family::V6 => ethernet::ETHERTYPE_IPV6,
        }
    }

    /// Bytes of the IP header that we write.
    #[inline]
    pub const fn header_len(self) -> usize {
        match self {
            Family::V4 => ipv4::HEADER_LEN,
            Family::V6 => ipv6::HEADER_LEN,
        }
    }
}

impl std::fmt::Display for Family {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(match self {
            Family::V4 => "IPv4",
            Family::V6 => "IPv6",
        })
    }
}

/// Why a received frame was not understood. Each has a counter of the same name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// Shorter than its headers say.
    Truncated,
    /// IP version or header length is not what it must be.
    IpHeader,
    /// IP length is below its header or past the frame.
    IpLength,
    IpChecksum,
    /// An IPv6 extension header or option past its end, or one too many, or one that says to drop.
    IpExtension,
    /// A fragment: not reassembled, dropped.
    Fragment,
    /// A source or destination that no host may use (RFC 1122 s3.2.1.3; RFC 4291;
    /// RFC 9293 s3.9.2.3).
    Martian,
    /// TCP data offset below five words or past the segment.
    TcpHeader,
    TcpChecksum,
    /// An option's length is 0, 1, or past the header.
    TcpOption,
    /// TCP port 0.
    TcpPort,
    Arp,
    Icmp,
    /// A rule of RFC 4861 s7.1 is broken.
    Ndp,
}

/// Bytes from hexadecimal digits, for golden frames; white space is for the reader.
#[cfg(test)]
fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    assert!(digits.len().is_multiple_of(2));
    digits.chunks(2).map(byte).collect()
}
