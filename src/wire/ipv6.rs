//! The IPv6 header (RFC 8200).

use std::net::Ipv6Addr;

/// Bytes of the header that we write: no extension headers.
pub const HEADER_LEN: usize = 40;

/// Writes a header for `payload_len` bytes to the start of `datagram`; hop limit and traffic class
/// as in the header. The flow label is left zero (RFC 6437 s3: "not part of any flow").
///
/// # Panics
/// If `datagram` is shorter than the header, or the payload longer than its length can say: a bug
/// of the caller.
#[inline]
pub fn emit(
    datagram: &mut [u8],
    (src, dst): (Ipv6Addr, Ipv6Addr),
    next_header: u8,
    payload_len: usize,
    (hop_limit, tos): (u8, u8),
) {
    assert!(payload_len <= usize::from(u16::MAX));
    let first = 6 << 28 | u32::from(tos) << 20;
    let second = (payload_len as u32) << 16 | u32::from(next_header) << 8 | u32::from(hop_limit);
    datagram[..4].copy_from_slice(&first.to_be_bytes());
    datagram[4..8].copy_from_slice(&second.to_be_bytes());
    datagram[8..24].copy_from_slice(&src.octets());
    datagram[24..HEADER_LEN].copy_from_slice(&dst.octets());
}
