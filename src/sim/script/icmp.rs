//! ICMP errors as a script names them, in either family.

use super::run::{OUR_MAC, PEER_MAC, addresses};
use crate::flow::Endpoints;
use crate::wire::ethernet;
use crate::wire::ipv4::{self, PROTOCOL_TCP};
use crate::wire::{Family, checksum, ipv6};
use std::net::IpAddr;

/// The frame with an error from the peer that quotes the header and eight bytes of our segment with
/// number `seq` (RFC 792, RFC 1191 s4; RFC 4443). Type and code are IPv4's; `None` if IPv6 has no
/// such error. `mtu` is IPv4's too: IPv6's is as much more as its header.
pub(super) fn error(
    endpoints: &Endpoints,
    (kind, code): (u8, u8),
    seq: u32,
    mtu: u16,
) -> Option<Vec<u8>> {
    let family = Family::of(endpoints.local.ip());
    let mut quote = vec![0; family.header_len() + 8];
    ip(&mut quote, (endpoints.local.ip(), endpoints.remote.ip()), PROTOCOL_TCP, 20);
    let tcp = quote.len() - 8;
    quote[tcp..tcp + 2].copy_from_slice(&endpoints.local.port().to_be_bytes());
    quote[tcp + 2..tcp + 4].copy_from_slice(&endpoints.remote.port().to_be_bytes());
    quote[tcp + 4..].copy_from_slice(&seq.to_be_bytes());

    let (kind, code) = match family {
        Family::V4 => (kind, code),
        Family::V6 => over_ipv6(kind, code)?,
    };
    let mtu = if family == Family::V6 && mtu > 0 { mtu + 20 } else { mtu };
    let mut message = vec![kind, code, 0, 0, 0, 0];
    message.extend(mtu.to_be_bytes());
    message.extend(quote);

    let at = ethernet::header_len(false);
    let mut frame = vec![0; at + family.header_len()];
    let header =
        ethernet::Header { dst: OUR_MAC, src: PEER_MAC, vlan: None, ethertype: family.ethertype() };
    header.emit(&mut frame);
    let (ours, theirs) = addresses(family);
    let protocol = match family {
        Family::V4 => ipv4::PROTOCOL_ICMP,
        Family::V6 => ipv6::PROTOCOL_ICMP,
    };
    let pseudo = ip(&mut frame[at..], (theirs, ours), protocol, message.len());
    let sum = checksum::finish(pseudo + checksum::sum(&message));
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    frame.extend(message);
    Some(frame)
}

/// IPv6's type and code for IPv4's.
fn over_ipv6(kind: u8, code: u8) -> Option<(u8, u8)> {
    match (kind, code) {
        (3, 2 | 3) => Some((1, 4)),
        (3, 4) => Some((2, 0)),
        (3, _) => Some((1, 0)),
        (11, code) => Some((3, code)),
        (12, _) => Some((4, 0)),
        _ => None,
    }
}

/// Writes an IP header; answers the sum of the pseudo-header of its ICMP message.
fn ip(bytes: &mut [u8], addresses: (IpAddr, IpAddr), protocol: u8, len: usize) -> u64 {
    match addresses {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            ipv4::emit(bytes, (src, dst), protocol, len, 0, (64, 0));
            0
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            ipv6::emit(bytes, (src, dst), protocol, len, (64, 0));
            checksum::pseudo_header_v6(src, dst, protocol, len as u16)
        }
        (src, dst) => panic!("{src} and {dst} are of two families"),
    }
}
