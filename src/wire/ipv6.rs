//! The IPv6 header and its extension headers (RFC 8200). Extension headers are walked, a few of
//! them, and skipped; fragments are not reassembled, and jumbograms are an option we do not know.

use super::Malformed;
use super::ipv4::{PROTOCOL_TCP, PROTOCOL_UDP};
use std::net::Ipv6Addr;

/// Bytes of the header that we write: no extension headers.
pub const HEADER_LEN: usize = 40;

pub const PROTOCOL_ICMP: u8 = 58;

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const NO_NEXT_HEADER: u8 = 59;
const DESTINATION_OPTIONS: u8 = 60;

/// Extension headers walked, at the most: each may occur once, destination options twice (RFC 8200
/// s4.1).
const EXTENSIONS_MAX: usize = 5;

/// The part of an IPv6 header that we act on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    pub src: Ipv6Addr,
    pub dst: Ipv6Addr,
    /// Of what follows the last extension header; `None` if nothing follows.
    pub protocol: Option<u8>,
    /// Where in the datagram it is named.
    pub protocol_at: u16,
    /// The traffic class: DiffServ and ECN (RFC 8200 s7).
    pub tos: u8,
    pub hop_limit: u8,
    /// Bytes of the header, extension headers included.
    pub header_len: u16,
    /// Bytes of what follows the headers.
    pub payload_len: u16,
    /// What is wrong with an extension header, so that its sender is to be told.
    pub problem: Option<Problem>,
}

/// A parameter problem (RFC 4443 s3.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Problem {
    pub code: u8,
    /// Where in the datagram it stands, in bytes.
    pub pointer: u32,
}

/// Codes of a parameter problem.
const ERRONEOUS_FIELD: u8 = 0;
pub const UNKNOWN_NEXT_HEADER: u8 = 1;
const UNKNOWN_OPTION: u8 = 2;

/// How far the walk over the extension headers has come.
struct Walk {
    /// What comes next, and where the byte stands that says so.
    next_header: u8,
    named_at: usize,
    at: usize,
    problem: Option<Problem>,
}

impl Header {
    /// Understands a datagram; what follows its length (Ethernet's padding) is ignored. The
    /// destination may be a group, and the source may be unspecified.
    ///
    /// # Errors
    /// Any of the IP reasons.
    #[inline]
    pub fn parse(datagram: &[u8]) -> Result<Header, Malformed> {
        let Some((fixed, _)) = datagram.split_first_chunk::<HEADER_LEN>() else {
            return Err(Malformed::Truncated);
        };
        let word = |at: usize| {
            u32::from_be_bytes([fixed[at], fixed[at + 1], fixed[at + 2], fixed[at + 3]])
        };
        let (first, second) = (word(0), word(4));
        if first >> 28 != 6 {
            return Err(Malformed::IpHeader);
        }
        let total_len = HEADER_LEN + (second >> 16) as usize;
        if total_len > datagram.len() {
            return Err(Malformed::IpLength);
        }
        let address =
            |at: usize| Ipv6Addr::from(std::array::from_fn::<u8, 16, _>(|i| fixed[at + i]));
        let (src, dst) = (address(8), address(24));
        if !may_send(src) || !may_be_sent_to(dst) {
            return Err(Malformed::Martian);
        }
        let mut walk =
            Walk { next_header: (second >> 8) as u8, named_at: 6, at: HEADER_LEN, problem: None };
        if !matches!(walk.next_header, PROTOCOL_TCP | PROTOCOL_ICMP | PROTOCOL_UDP) {
            walk.over(&datagram[..total_len], dst)?;
        }
        Ok(Header {
            src,
            dst,
            protocol: (walk.next_header != NO_NEXT_HEADER).then_some(walk.next_header),
            protocol_at: walk.named_at as u16,
            tos: (first >> 20) as u8,
            hop_limit: second as u8,
            header_len: walk.at as u16,
            payload_len: (total_len - walk.at) as u16,
            problem: walk.problem,
        })
    }

    /// True if the datagram goes to one host, not to a group.
    #[inline]
    pub fn to_one_host(&self) -> bool {
        !self.dst.is_multicast()
    }
}

impl Walk {
    /// Goes on to what is no extension header, or to the first one that has a problem: those that
    /// are well are passed over (RFC 9293 s3.9.2, MUST-50).
    #[inline(never)] // Out of the way of TCP.
    fn over(&mut self, datagram: &[u8], dst: Ipv6Addr) -> Result<(), Malformed> {
        for _ in 0..EXTENSIONS_MAX {
            let header = match self.next_header {
                // RFC 8200 s4.1: only directly after the IPv6 header; elsewhere it is unknown.
                HOP_BY_HOP if self.at == HEADER_LEN => {
                    let header = sized(&datagram[self.at..])?;
                    self.options(header, dst)?;
                    header
                }
                DESTINATION_OPTIONS => {
                    let header = sized(&datagram[self.at..])?;
                    self.options(header, dst)?;
                    header
                }
                ROUTING => {
                    let header = sized(&datagram[self.at..])?;
                    // RFC 8200 s4.4: with segments left, of a type that we do not know, it is a
                    // problem; without, it is skipped.
                    if header[3] != 0 {
                        self.complain(ERRONEOUS_FIELD, self.at + 2);
                    }
                    header
                }
                FRAGMENT => {
                    let Some(header) = datagram[self.at..].first_chunk::<8>() else {
                        return Err(Malformed::IpExtension);
                    };
                    // RFC 6946 s4: an atomic fragment is a datagram in itself.
                    let place = u16::from_be_bytes([header[2], header[3]]);
                    if place & 0xfff9 != 0 {
                        return Err(Malformed::Fragment);
                    }
                    &header[..]
                }
                HOP_BY_HOP => {
                    self.complain(UNKNOWN_NEXT_HEADER, self.named_at);
                    return Ok(());
                }
                _ => return Ok(()),
            };
            if self.problem.is_some() {
                return Ok(());
            }
            (self.next_header, self.named_at) = (header[0], self.at);
            self.at += header.len();
        }
        Err(Malformed::IpExtension)
    }

    /// The options of a header that stands at `self.at`. RFC 8200 s4.2: the two highest bits of an
    /// unknown option's type say what becomes of the datagram.
    fn options(&mut self, header: &[u8], dst: Ipv6Addr) -> Result<(), Malformed> {
        let mut at = 2;
        while at < header.len() {
            let kind = header[at];
            if kind == PAD1 {
                at += 1;
                continue;
            }
            let Some(&len) = header.get(at + 1) else { return Err(Malformed::IpExtension) };
            let end = at + 2 + usize::from(len);
            if end > header.len() {
                return Err(Malformed::IpExtension);
            }
            match kind >> 6 {
                0 => {}
                1 => return Err(Malformed::IpExtension),
                3 if dst.is_multicast() => return Err(Malformed::IpExtension),
                _ => {
                    self.complain(UNKNOWN_OPTION, self.at + at);
                    return Ok(());
                }
            }
            at = end;
        }
        Ok(())
    }

    fn complain(&mut self, code: u8, pointer: usize) {
        self.problem.get_or_insert(Problem { code, pointer: pointer as u32 });
    }
}

/// The option of one byte.
const PAD1: u8 = 0;

/// An extension header that says its own length, in units of eight bytes after the first.
fn sized(bytes: &[u8]) -> Result<&[u8], Malformed> {
    let units = bytes.get(1).copied().ok_or(Malformed::IpExtension)?;
    bytes.get(..(usize::from(units) + 1) * 8).ok_or(Malformed::IpExtension)
}

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

/// RFC 4291 s2.5.3, s2.5.5.2, s2.7: a source is no group, no loopback, and no IPv4 host's. It may
/// be unspecified where an address is being checked (s2.5.2). So no SYN comes from anything else
/// (RFC 9293 s3.9.2.3, MUST-63).
#[inline]
fn may_send(src: Ipv6Addr) -> bool {
    !src.is_multicast() && !src.is_loopback() && !is_mapped(src)
}

/// A group may be a destination, nobody may not.
#[inline]
fn may_be_sent_to(dst: Ipv6Addr) -> bool {
    !dst.is_unspecified() && !dst.is_loopback() && !is_mapped(dst)
}

/// ::ffff:0:0/96.
#[inline]
fn is_mapped(address: Ipv6Addr) -> bool {
    address.to_bits() >> 32 == 0xffff
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SRC: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1);
    const DST: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2);

    /// A datagram whose first header is `next_header`.
    fn datagram(next_header: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0xaa; HEADER_LEN];
        emit(&mut bytes, (SRC, DST), next_header, payload.len(), (64, 0x2e));
        bytes.extend(payload);
        bytes
    }

    fn problem(bytes: &[u8]) -> Option<(u8, u32)> {
        Header::parse(bytes).unwrap().problem.map(|it| (it.code, it.pointer))
    }

    #[test]
    fn a_header_comes_back_as_it_went_and_padding_is_ignored() {
        let mut bytes = datagram(PROTOCOL_TCP, &[1; 20]);
        assert_eq!(bytes[..4], [0x62, 0xe0, 0, 0]);
        let header = Header {
            src: SRC,
            dst: DST,
            protocol: Some(PROTOCOL_TCP),
            protocol_at: 6,
            tos: 0x2e,
            hop_limit: 64,
            header_len: 40,
            payload_len: 20,
            problem: None,
        };
        assert_eq!(Header::parse(&bytes), Ok(header));
        bytes.extend([0x55; 7]);
        assert_eq!(Header::parse(&bytes), Ok(header));
        assert!(header.to_one_host());
        for cut in 0..60 {
            let reason = if cut < 40 { Malformed::Truncated } else { Malformed::IpLength };
            assert_eq!(Header::parse(&bytes[..cut]), Err(reason), "cut to {cut}");
        }
        bytes[0] = 0x4f;
        assert_eq!(Header::parse(&bytes), Err(Malformed::IpHeader));
    }

    #[test]
    fn extension_headers_are_skipped() {
        let padded = [DESTINATION_OPTIONS, 0, 1, 4, 0, 0, 0, 0];
        let unknown_but_harmless = [ROUTING, 1, 0x1e, 12, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1];
        let routed = [FRAGMENT, 0, 3, 0, 9, 9, 9, 9];
        let atomic = [PROTOCOL_TCP, 0, 0, 0, 1, 2, 3, 4];
        let mut payload = padded.to_vec();
        payload.extend(unknown_but_harmless);
        payload.extend(routed);
        payload.extend(atomic);
        payload.extend([7; 20]);
        let bytes = datagram(HOP_BY_HOP, &payload);
        let header = Header::parse(&bytes).unwrap();
        assert_eq!((header.protocol, header.problem), (Some(PROTOCOL_TCP), None));
        assert_eq!((header.header_len, header.payload_len), (80, 20));
        // Each cut short, the payload's length mended.
        for len in 0..40 {
            let bytes = datagram(HOP_BY_HOP, &payload[..len]);
            assert_eq!(Header::parse(&bytes), Err(Malformed::IpExtension), "cut to {len}");
        }
        let nothing = datagram(NO_NEXT_HEADER, &[1, 2, 3]);
        assert_eq!(Header::parse(&nothing).unwrap().protocol, None);
    }

    #[test]
    fn more_extension_headers_than_there_may_be_are_too_many() {
        let again = [DESTINATION_OPTIONS, 0, 1, 4, 0, 0, 0, 0];
        let bytes = datagram(DESTINATION_OPTIONS, &again.repeat(EXTENSIONS_MAX));
        assert_eq!(Header::parse(&bytes), Err(Malformed::IpExtension));
    }

    #[test]
    fn fragments_are_dropped_and_atomic_ones_are_not() {
        for (place, whole) in [(0, true), (1, false), (8, false), (6, true), (0xfff8, false)] {
            let [a, b] = u16::to_be_bytes(place);
            let bytes = datagram(FRAGMENT, &[PROTOCOL_TCP, 0, a, b, 0, 0, 0, 1]);
            let reason = Header::parse(&bytes).map(|header| header.protocol);
            let expected = if whole { Ok(Some(PROTOCOL_TCP)) } else { Err(Malformed::Fragment) };
            assert_eq!(reason, expected, "{place:#x}");
        }
    }

    #[test]
    fn what_its_sender_is_to_be_told_names_the_place() {
        let option = |kind| [PROTOCOL_TCP, 0, 0, kind, 2, 0, 0, 0];
        assert_eq!(problem(&datagram(HOP_BY_HOP, &option(0x9e))), Some((2, 43)));
        // A jumbogram (RFC 2675) among them.
        assert_eq!(problem(&datagram(HOP_BY_HOP, &option(0xc2))), Some((2, 43)));
        let dropped = datagram(HOP_BY_HOP, &option(0x5e));
        assert_eq!(Header::parse(&dropped), Err(Malformed::IpExtension));
        let mut to_group = datagram(HOP_BY_HOP, &option(0xde));
        to_group[24] = 0xff;
        assert_eq!(Header::parse(&to_group), Err(Malformed::IpExtension));
        let routed = [PROTOCOL_TCP, 0, 0, 1, 0, 0, 0, 0];
        assert_eq!(problem(&datagram(ROUTING, &routed)), Some((0, 42)));
        let second = [HOP_BY_HOP, 0, 1, 4, 0, 0, 0, 0, 6, 0, 1, 4, 0, 0, 0, 0];
        assert_eq!(problem(&datagram(DESTINATION_OPTIONS, &second)), Some((1, 40)));
    }

    #[test]
    fn addresses_that_no_host_may_use_are_martians() {
        let with = |at: usize, address: &str| {
            let mut bytes = datagram(PROTOCOL_TCP, &[0; 20]);
            let address: Ipv6Addr = address.parse().unwrap();
            bytes[at..at + 16].copy_from_slice(&address.octets());
            Header::parse(&bytes)
        };
        for address in ["ff02::1", "::1", "::ffff:10.0.0.1"] {
            assert_eq!(with(8, address), Err(Malformed::Martian), "from {address}");
        }
        for address in ["::", "::1", "::ffff:10.0.0.1"] {
            assert_eq!(with(24, address), Err(Malformed::Martian), "to {address}");
        }
        assert!(with(8, "::").is_ok() && with(8, "fe80::1").is_ok());
        assert!(!with(24, "ff02::1").unwrap().to_one_host());
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic_and_what_is_understood_is_within_them(
            mut bytes in prop::collection::vec(any::<u8>(), 0..160), first in 0usize..6,
        ) {
            if bytes.len() >= HEADER_LEN {
                let headers = [HOP_BY_HOP, ROUTING, FRAGMENT, DESTINATION_OPTIONS, 59, 6];
                let len = bytes.len() - HEADER_LEN;
                bytes[..8].copy_from_slice(&[0x60, 0, 0, 0, 0, len as u8, headers[first], 1]);
                bytes[8] = 0xfd;
                bytes[24] = 0xfd;
            }
            if let Ok(header) = Header::parse(&bytes) {
                let end = usize::from(header.header_len) + usize::from(header.payload_len);
                prop_assert_eq!(end, bytes.len());
            }
        }
    }
}
