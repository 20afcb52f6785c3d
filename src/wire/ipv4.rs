//! The IPv4 header (RFC 791, RFC 1122 s3.2.1). Options are accepted and skipped, fragments are not
//! reassembled.

use super::{Malformed, checksum};
use std::net::Ipv4Addr;

/// IP protocol numbers.
pub const PROTOCOL_ICMP: u8 = 1;
pub const PROTOCOL_TCP: u8 = 6;
pub const PROTOCOL_UDP: u8 = 17;

/// Bytes of the header that we write: no options.
pub const HEADER_LEN: usize = 20;

/// The part of an IPv4 header that we act on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    pub src: Ipv4Addr,
    pub dst: Ipv4Addr,
    pub protocol: u8,
    /// DiffServ and ECN, as in the header (RFC 2474, RFC 3168).
    pub tos: u8,
    /// Bytes of the header, options included.
    pub header_len: u16,
    /// Bytes of what follows the header.
    pub payload_len: u16,
}

impl Header {
    /// Understands a datagram; what follows its total length (Ethernet's padding) is ignored. The
    /// destination may be a multicast or broadcast address. Options are passed over: TCP has no use
    /// for any (RFC 9293 s3.9.2, MUST-50).
    ///
    /// # Errors
    /// Any but the TCP and ARP reasons.
    #[inline]
    pub fn parse(datagram: &[u8]) -> Result<Header, Malformed> {
        let Some((fixed, after)) = datagram.split_first_chunk::<HEADER_LEN>() else {
            return Err(Malformed::Truncated);
        };
        let word = |at: usize| {
            u32::from_be_bytes([fixed[at], fixed[at + 1], fixed[at + 2], fixed[at + 3]])
        };
        let (first, fragment, third) = (word(0), word(4), word(8));
        let (src, dst) = (word(12), word(16));
        let header_len = (first >> 24 & 0x0f) as usize * 4;
        if first >> 28 != 4 || header_len < HEADER_LEN {
            return Err(Malformed::IpHeader);
        }
        let total_len = (first & 0xffff) as usize;
        if total_len < header_len || total_len > datagram.len() {
            return Err(Malformed::IpLength);
        }
        let mut sum =
            [first, fragment, third, src, dst].iter().map(|&word| u64::from(word)).sum::<u64>();
        if header_len > HEADER_LEN {
            sum += checksum::sum(&after[..header_len - HEADER_LEN]);
        }
        if !checksum::holds(sum) {
            return Err(Malformed::IpChecksum);
        }
        // More fragments, or an offset: everything but the reserved bit and DF.
        if fragment & 0x3fff != 0 {
            return Err(Malformed::Fragment);
        }
        let (src, dst) = (Ipv4Addr::from_bits(src), Ipv4Addr::from_bits(dst));
        if !may_send(src) || !may_be_sent_to(dst) {
            return Err(Malformed::Martian);
        }
        Ok(Header {
            src,
            dst,
            protocol: (third >> 16) as u8,
            tos: (first >> 16) as u8,
            header_len: header_len as u16,
            payload_len: (total_len - header_len) as u16,
        })
    }

    /// True if the datagram goes to one host, not to a group or to everyone. (A directed broadcast
    /// looks like one host to whoever does not know the subnet.)
    #[inline]
    pub fn to_one_host(&self) -> bool {
        self.dst.octets()[0] < 224
    }
}

/// Writes a header without options, don't-fragment set, for `payload_len` bytes to the start of
/// `datagram`; `ttl` and `tos` as in the header.
///
/// # Panics
/// If `datagram` is shorter than the header: a bug of the caller.
#[inline]
pub fn emit(
    datagram: &mut [u8],
    (src, dst): (Ipv4Addr, Ipv4Addr),
    protocol: u8,
    payload_len: usize,
    ip_id: u16,
    (ttl, tos): (u8, u8),
) {
    assert!(HEADER_LEN + payload_len <= usize::from(u16::MAX));
    let mut words = [
        0x4500_0000 | u32::from(tos) << 16 | (HEADER_LEN + payload_len) as u32,
        u32::from(ip_id) << 16 | 0x4000,
        u32::from(ttl) << 24 | u32::from(protocol) << 16,
        src.to_bits(),
        dst.to_bits(),
    ];
    words[2] |= u32::from(checksum::finish(words.iter().map(|&word| u64::from(word)).sum()));
    for (bytes, word) in datagram[..HEADER_LEN].as_chunks_mut::<4>().0.iter_mut().zip(words) {
        *bytes = word.to_be_bytes();
    }
}

/// RFC 1122 s3.2.1.3: a source is one host's, and neither "this network" nor loopback leaves a
/// host. So no SYN comes from anything else (RFC 9293 s3.9.2.3, MUST-63).
#[inline]
pub(super) fn may_send(src: Ipv4Addr) -> bool {
    let first = src.octets()[0];
    first != 0 && first != 127 && first < 224
}

/// As a source, but groups and the limited broadcast are allowed too; the rest of class E is not.
#[inline]
pub(super) fn may_be_sent_to(dst: Ipv4Addr) -> bool {
    let first = dst.octets()[0];
    first != 0 && first != 127 && (first < 240 || dst.is_broadcast())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    // The UDP datagram of many a textbook: 115 bytes, checksum b861.
    const TEXTBOOK: &str = "4500 0073 0000 4000 4011 b861 c0a8 0001 c0a8 00c7";

    fn textbook() -> Vec<u8> {
        let mut datagram = crate::wire::hex(TEXTBOOK);
        datagram.resize(115, 0);
        datagram
    }

    /// The textbook's datagram with some bytes changed and the checksum mended.
    fn with(at: usize, bytes: &[u8]) -> Vec<u8> {
        let mut datagram = textbook();
        datagram[at..at + bytes.len()].copy_from_slice(bytes);
        datagram[10..12].fill(0);
        let header_len = usize::from(datagram[0] & 0x0f) * 4;
        let checksum = checksum::finish(checksum::sum(&datagram[..header_len]));
        datagram[10..12].copy_from_slice(&checksum.to_be_bytes());
        datagram
    }

    #[test]
    fn the_textbook_header_is_understood_and_written_again() {
        let header = Header::parse(&textbook()).unwrap();
        assert_eq!(
            (header.src, header.dst),
            ("192.168.0.1".parse().unwrap(), "192.168.0.199".parse().unwrap())
        );
        assert_eq!(
            (header.protocol, header.header_len, header.payload_len),
            (PROTOCOL_UDP, 20, 95)
        );
        let mut out = [0xaa; 20];
        emit(&mut out, (header.src, header.dst), PROTOCOL_UDP, 95, 0, (64, 0));
        assert_eq!(out[..], crate::wire::hex(TEXTBOOK));
    }

    #[test]
    fn each_rule_has_its_reason() {
        let short = textbook();
        for cut in 0..short.len() {
            let reason = if cut < 20 { Malformed::Truncated } else { Malformed::IpLength };
            assert_eq!(Header::parse(&short[..cut]), Err(reason), "cut to {cut}");
        }
        assert_eq!(Header::parse(&with(0, &[0x65])), Err(Malformed::IpHeader));
        assert_eq!(Header::parse(&with(0, &[0x44])), Err(Malformed::IpHeader));
        assert_eq!(Header::parse(&with(2, &[0, 19])), Err(Malformed::IpLength));
        assert_eq!(Header::parse(&with(6, &[0x20, 0])), Err(Malformed::Fragment));
        assert_eq!(Header::parse(&with(6, &[0, 1])), Err(Malformed::Fragment));
        let mut wrong = textbook();
        wrong[8] -= 1;
        assert_eq!(Header::parse(&wrong), Err(Malformed::IpChecksum));
    }

    #[test]
    fn options_are_skipped_padding_is_ignored_and_the_reserved_bit_too() {
        let header = Header::parse(&with(0, &[0x4f])).unwrap();
        assert_eq!((header.header_len, header.payload_len), (60, 55));
        let header = Header::parse(&with(2, &[0, 100])).unwrap();
        assert_eq!(header.payload_len, 80);
        assert!(Header::parse(&with(6, &[0xc0, 0])).is_ok());
    }

    #[test]
    fn sources_that_no_host_may_use_are_martians() {
        for src in
            [[0, 0, 0, 0], [0, 1, 2, 3], [127, 0, 0, 1], [224, 0, 0, 1], [240, 0, 0, 1], [255; 4]]
        {
            assert_eq!(Header::parse(&with(12, &src)), Err(Malformed::Martian), "{src:?}");
        }
    }

    #[test]
    fn groups_and_everyone_are_destinations_but_never_nobody() {
        for dst in [[0, 0, 0, 0], [127, 0, 0, 1], [240, 0, 0, 1]] {
            assert_eq!(Header::parse(&with(16, &dst)), Err(Malformed::Martian), "{dst:?}");
        }
        for dst in [[224, 0, 0, 1], [239, 1, 2, 3], [255; 4]] {
            assert!(!Header::parse(&with(16, &dst)).unwrap().to_one_host());
        }
        assert!(Header::parse(&textbook()).unwrap().to_one_host());
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = Header::parse(&bytes);
        }
    }
}
