//! ICMP in both families (RFC 792, RFC 1122 s3.2.2; RFC 4443): echo, the errors that quote a TCP
//! segment, and the errors that we send. What an error says is the same thing in either family.

use super::ipv4::{self, PROTOCOL_TCP, PROTOCOL_UDP};
use super::{Family, Malformed, checksum, ethernet, ipv6};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Types of IPv4's.
mod v4 {
    pub const ECHO_REPLY: u8 = 0;
    pub const UNREACHABLE: u8 = 3;
    pub const SOURCE_QUENCH: u8 = 4;
    pub const REDIRECT: u8 = 5;
    pub const ECHO_REQUEST: u8 = 8;
    pub const TIME_EXCEEDED: u8 = 11;
    pub const PARAMETER_PROBLEM: u8 = 12;
}

/// Types of IPv6's.
mod v6 {
    pub const UNREACHABLE: u8 = 1;
    pub const TOO_BIG: u8 = 2;
    pub const TIME_EXCEEDED: u8 = 3;
    pub const PARAMETER_PROBLEM: u8 = 4;
    pub const ECHO_REQUEST: u8 = 128;
    pub const ECHO_REPLY: u8 = 129;
}

const HEADER_LEN: usize = 8;

/// Bytes that an error of ours quotes, at the most: with it a datagram still has IPv6's minimum MTU
/// (RFC 4443 s2.4 c).
pub const QUOTE_MAX: usize = 1280 - ipv6::HEADER_LEN - HEADER_LEN;

/// The part of an ICMP message that we act on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message {
    pub src: IpAddr,
    pub dst: IpAddr,
    pub kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The rest of the message (identifier, sequence, data) stands at `data_at..data_at +
    /// data_len`.
    EchoRequest {
        data_at: u16,
        data_len: u16,
    },
    EchoReply,
    /// With the start of the datagram that it is about, if that was TCP.
    Error {
        error: Error,
        quoted: Option<Quoted>,
    },
    /// Anything else: ignored (RFC 1122 s3.2.2; RFC 4443 s2.4 b).
    Other,
}

/// What an error says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// Nobody speaks the protocol or listens at the port: hard (RFC 9293 s3.9.2.2, SHLD-26). IPv4's
    /// type 3 codes 2 and 3, IPv6's type 1 code 4 and type 4 code 1.
    Refused,
    /// The network or the host, or nobody may: soft. The other codes of the same types.
    Unreachable,
    /// The next hop's MTU in bytes; 0 if the router does not say (RFC 1191 s4, RFC 8201 s4). It may
    /// be a lie: below what every link of the family carries nothing is to be believed.
    TooBig {
        mtu: u16,
    },
    TimeExceeded,
    ParameterProblem,
    /// Obsolete, to be dropped (RFC 9293 s3.9.2.2, MUST-55).
    SourceQuench,
    Redirect,
}

/// The quoted TCP header's first eight bytes and its addresses: as *we* sent them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quoted {
    pub src: IpAddr,
    pub dst: IpAddr,
    pub src_port: u16,
    pub dst_port: u16,
    pub seq: u32,
}

/// A datagram to one host that we do not understand, although it is well-formed: in a protocol that
/// we do not speak, UDP most often. If it came to us, an error is due ([`emit_error`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unspoken {
    pub src: IpAddr,
    pub dst: IpAddr,
    /// What is to be said: type, code, and the pointer of a parameter problem.
    kind: u8,
    code: u8,
    pointer: u32,
    /// What the error quotes stands at `quote_at..quote_at + quote_len`.
    pub quote_at: u16,
    pub quote_len: u16,
}

impl Kind {
    /// Understands IPv4's ICMP message that takes all of `bytes` and stands at `at` in its frame.
    ///
    /// # Errors
    /// It is shorter than its header, or its checksum is wrong.
    #[inline(never)] // Out of the way of TCP, which `segment::parse` is laid out for.
    pub fn parse(bytes: &[u8], at: usize) -> Result<Kind, Malformed> {
        let Some(&[kind, code, _, _, _, _, m0, m1]) = bytes.first_chunk::<HEADER_LEN>() else {
            return Err(Malformed::Icmp);
        };
        if !checksum::holds(checksum::sum(bytes)) {
            return Err(Malformed::Icmp);
        }
        let error = match (kind, code) {
            (v4::ECHO_REQUEST, _) => return Ok(Kind::echo_request(bytes, at)),
            (v4::ECHO_REPLY, _) => return Ok(Kind::EchoReply),
            (v4::UNREACHABLE, 2 | 3) => Error::Refused,
            (v4::UNREACHABLE, 4) => Error::TooBig { mtu: u16::from_be_bytes([m0, m1]) },
            (v4::UNREACHABLE, _) => Error::Unreachable,
            (v4::SOURCE_QUENCH, _) => Error::SourceQuench,
            (v4::REDIRECT, _) => Error::Redirect,
            (v4::TIME_EXCEEDED, _) => Error::TimeExceeded,
            (v4::PARAMETER_PROBLEM, _) => Error::ParameterProblem,
            _ => return Ok(Kind::Other),
        };
        Ok(Kind::Error { error, quoted: Quoted::parse_v4(&bytes[HEADER_LEN..]) })
    }

    /// Understands ICMPv6's message, whose checksum holds, that takes all of `bytes`.
    pub(super) fn parse_v6(bytes: &[u8], at: usize) -> Kind {
        let Some(&[kind, code, _, _, m0, m1, m2, m3]) = bytes.first_chunk::<HEADER_LEN>() else {
            return Kind::Other;
        };
        let error = match (kind, code) {
            (v6::ECHO_REQUEST, _) => return Kind::echo_request(bytes, at),
            (v6::ECHO_REPLY, _) => return Kind::EchoReply,
            (v6::UNREACHABLE, PORT_UNREACHABLE_V6) => Error::Refused,
            (v6::UNREACHABLE, _) => Error::Unreachable,
            (v6::TOO_BIG, _) => {
                let mtu = u32::from_be_bytes([m0, m1, m2, m3]);
                Error::TooBig { mtu: u16::try_from(mtu).unwrap_or(u16::MAX) }
            }
            (v6::TIME_EXCEEDED, _) => Error::TimeExceeded,
            (v6::PARAMETER_PROBLEM, ipv6::UNKNOWN_NEXT_HEADER) => Error::Refused,
            (v6::PARAMETER_PROBLEM, _) => Error::ParameterProblem,
            _ => return Kind::Other,
        };
        Kind::Error { error, quoted: Quoted::parse_v6(&bytes[HEADER_LEN..]) }
    }

    fn echo_request(bytes: &[u8], at: usize) -> Kind {
        Kind::EchoRequest { data_at: at as u16 + 4, data_len: bytes.len() as u16 - 4 }
    }
}

/// Codes of an unreachable that a host sends (RFC 1122 s3.2.2.1; RFC 4443 s3.1).
const PROTOCOL_UNREACHABLE: u8 = 2;
const PORT_UNREACHABLE: u8 = 3;
const PORT_UNREACHABLE_V6: u8 = 4;

impl Quoted {
    /// The TCP segment whose start is quoted, if that is what it is: routers quote eight bytes of
    /// it or more, and may have changed the IP header on the way.
    fn parse_v4(bytes: &[u8]) -> Option<Quoted> {
        let ip = bytes.first_chunk::<{ ipv4::HEADER_LEN }>()?;
        let header_len = usize::from(ip[0] & 0x0f) * 4;
        let offset = u16::from_be_bytes([ip[6], ip[7]]) & 0x1fff;
        if ip[0] >> 4 != 4 || header_len < ipv4::HEADER_LEN || ip[9] != PROTOCOL_TCP || offset != 0
        {
            return None;
        }
        let address = |at: usize| Ipv4Addr::from(std::array::from_fn::<u8, 4, _>(|i| ip[at + i]));
        Quoted::at(address(12).into(), address(16).into(), bytes.get(header_len..)?)
    }

    /// As for IPv4. We send no extension headers, so none are quoted.
    fn parse_v6(bytes: &[u8]) -> Option<Quoted> {
        let (ip, rest) = bytes.split_first_chunk::<{ ipv6::HEADER_LEN }>()?;
        if ip[0] >> 4 != 6 || ip[6] != PROTOCOL_TCP {
            return None;
        }
        let address = |at: usize| Ipv6Addr::from(std::array::from_fn::<u8, 16, _>(|i| ip[at + i]));
        Quoted::at(address(8).into(), address(24).into(), rest)
    }

    fn at(src: IpAddr, dst: IpAddr, tcp: &[u8]) -> Option<Quoted> {
        let &[s0, s1, d0, d1, q0, q1, q2, q3] = tcp.first_chunk::<8>()?;
        Some(Quoted {
            src,
            dst,
            src_port: u16::from_be_bytes([s0, s1]),
            dst_port: u16::from_be_bytes([d0, d1]),
            seq: u32::from_be_bytes([q0, q1, q2, q3]),
        })
    }
}

impl Unspoken {
    /// An IPv4 datagram that stands at `at` in its frame. Its error quotes its header and eight
    /// bytes more (RFC 1122 s3.2.2): port unreachable for UDP, protocol unreachable for the rest.
    pub fn v4(header: &ipv4::Header, at: usize) -> Unspoken {
        let udp = header.protocol == PROTOCOL_UDP;
        Unspoken {
            src: header.src.into(),
            dst: header.dst.into(),
            kind: v4::UNREACHABLE,
            code: if udp { PORT_UNREACHABLE } else { PROTOCOL_UNREACHABLE },
            pointer: 0,
            quote_at: at as u16,
            quote_len: header.header_len + header.payload_len.min(8),
        }
    }

    /// An IPv6 datagram that stands at `at` in its frame. Its error quotes as much of it as there
    /// is room for: port unreachable for UDP, unknown next header for other protocols, and what is
    /// wrong with its extension headers before either (RFC 4443 s3.1, s3.4). `None` if nothing
    /// follows its headers.
    pub fn v6(header: &ipv6::Header, at: usize) -> Option<Unspoken> {
        let (kind, code, pointer) = match (header.problem, header.protocol?) {
            (Some(problem), _) => (v6::PARAMETER_PROBLEM, problem.code, problem.pointer),
            (None, PROTOCOL_UDP) => (v6::UNREACHABLE, PORT_UNREACHABLE_V6, 0),
            (None, _) => {
                let pointer = u32::from(header.protocol_at);
                (v6::PARAMETER_PROBLEM, ipv6::UNKNOWN_NEXT_HEADER, pointer)
            }
        };
        let len = usize::from(header.header_len) + usize::from(header.payload_len);
        Some(Unspoken {
            src: header.src.into(),
            dst: header.dst.into(),
            kind,
            code,
            pointer,
            quote_at: at as u16,
            quote_len: len.min(QUOTE_MAX) as u16,
        })
    }
}

/// Turns the frame that an echo request came in into its reply, data and all (RFC 1122 s3.2.2.6;
/// RFC 4443 s4.2); answers the reply's length, never more than the request's. `data_at` and
/// `data_len` are the request's; its IP options do not go back.
///
/// # Panics
/// If the frame is not that of the request, or `ethernet` has a tag and the request had none: a bug
/// of the caller.
pub fn emit_echo_reply(
    frame: &mut [u8],
    ethernet: &ethernet::Header,
    request: &Message,
    (data_at, data_len): (u16, u16),
    ip_id: u16,
    ttl: u8,
) -> usize {
    let (data_at, data_len) = (usize::from(data_at), usize::from(data_len));
    let family = Family::of(request.src);
    let at = ethernet::header_len(ethernet.vlan.is_some()) + family.header_len();
    let end = at + 4 + data_len;
    assert!(at + 4 <= data_at);
    frame.copy_within(data_at..data_at + data_len, at + 4);
    let kind = match family {
        Family::V4 => v4::ECHO_REPLY,
        Family::V6 => v6::ECHO_REPLY,
    };
    let addresses = (request.dst, request.src);
    emit(&mut frame[..end], ethernet, addresses, (kind, 0), ip_id, ttl);
    end
}

/// Bytes of the frame that says what is wrong with `about`.
pub fn error_len(vlan: bool, about: &Unspoken) -> usize {
    let ip_len = Family::of(about.src).header_len();
    ethernet::header_len(vlan) + ip_len + HEADER_LEN + usize::from(about.quote_len)
}

/// Writes into `frame` what is wrong with `about`. `quote` is what it says is to be quoted of its
/// frame. The caller sees to it that `about` came to an address of ours, and not to everyone on the
/// link (RFC 1122 s3.2.2; RFC 4443 s2.4 e).
///
/// # Panics
/// If `frame` is not [`error_len`] long, or `quote` not `quote_len`: a bug of the caller.
pub fn emit_error(
    frame: &mut [u8],
    ethernet: &ethernet::Header,
    about: &Unspoken,
    quote: &[u8],
    ip_id: u16,
    ttl: u8,
) {
    assert_eq!(frame.len(), error_len(ethernet.vlan.is_some(), about));
    let at = frame.len() - quote.len() - HEADER_LEN;
    frame[at + 4..at + HEADER_LEN].copy_from_slice(&about.pointer.to_be_bytes());
    frame[at + HEADER_LEN..].copy_from_slice(quote);
    let addresses = (about.dst, about.src);
    emit(frame, ethernet, addresses, (about.kind, about.code), ip_id, ttl);
}

/// Writes all headers of a message whose rest stands from its fifth byte to the end of `frame`.
fn emit(
    frame: &mut [u8],
    ethernet: &ethernet::Header,
    addresses: (IpAddr, IpAddr),
    (kind, code): (u8, u8),
    ip_id: u16,
    ttl: u8,
) {
    let at = ethernet.emit(frame);
    let (ip, message) = frame[at..].split_at_mut(Family::of(addresses.0).header_len());
    let pseudo = match addresses {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            let protocol = ipv4::PROTOCOL_ICMP;
            ipv4::emit(ip, (src, dst), protocol, message.len(), ip_id, (ttl, 0));
            0
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            let protocol = ipv6::PROTOCOL_ICMP;
            ipv6::emit(ip, (src, dst), protocol, message.len(), (ttl, 0));
            checksum::pseudo_header_v6(src, dst, protocol, message.len() as u16)
        }
        (src, dst) => panic!("{src} and {dst} are of two families"),
    };
    message[..4].copy_from_slice(&[kind, code, 0, 0]);
    let sum = checksum::finish(pseudo + checksum::sum(message));
    message[2..4].copy_from_slice(&sum.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::super::ethernet::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, Mac};
    use super::super::ipv4::PROTOCOL_ICMP;
    use super::super::segment::{Body, Verify, parse};
    use super::*;
    use proptest::prelude::*;

    // As a Linux kernel refused a datagram to a port where nobody listens.
    const DATAGRAM: &str = "020000000702 020000000701 0800
        4500001d 250c4000 401101b4 0a070001 0a070002 cd140009 0009a6ad 78";
    const REFUSAL: &str = "020000000701 020000000702 0800
        45c00039 add80000 4001b81b 0a070002 0a070001
        03031128 00000000 4500001d 250c4000 401101b4 0a070001 0a070002 cd140009 0009a6ad 78";

    const US: Ipv4Addr = Ipv4Addr::new(10, 7, 0, 2);
    const THEM: Ipv4Addr = Ipv4Addr::new(10, 7, 0, 1);

    fn to_them() -> ethernet::Header {
        let (dst, src) = (Mac([2, 0, 0, 0, 7, 1]), Mac([2, 0, 0, 0, 7, 2]));
        ethernet::Header { dst, src, vlan: None, ethertype: ETHERTYPE_IPV4 }
    }

    fn message_of(frame: &[u8]) -> Message {
        match parse(frame, Verify::All).unwrap().body {
            Body::Icmp(message) => message,
            other => panic!("not ICMP: {other:?}"),
        }
    }

    /// A frame around an ICMP message, its checksum mended.
    fn framed(mut message: Vec<u8>) -> Vec<u8> {
        message[2..4].fill(0);
        let sum = checksum::finish(checksum::sum(&message));
        message[2..4].copy_from_slice(&sum.to_be_bytes());
        let mut frame = vec![0; 34];
        to_them().emit(&mut frame);
        ipv4::emit(&mut frame[14..], (US, THEM), PROTOCOL_ICMP, message.len(), 1, (64, 0));
        frame.extend(message);
        frame
    }

    #[test]
    fn a_datagram_to_no_port_is_refused_as_linux_does() {
        let datagram = crate::wire::hex(DATAGRAM);
        let Ok(Body::Unspoken(about)) = parse(&datagram, Verify::All).map(|packet| packet.body)
        else {
            panic!("not unspoken");
        };
        assert_eq!((about.src, about.dst), (THEM.into(), US.into()));
        let quote = &datagram[usize::from(about.quote_at)..][..usize::from(about.quote_len)];
        let mut frame = vec![0xaa; error_len(false, &about)];
        emit_error(&mut frame, &to_them(), &about, quote, 0xadd8, 64);
        // Linux quotes the datagram's last byte too, and marks the error's precedence.
        let golden = crate::wire::hex(REFUSAL);
        assert_eq!(frame[..14], golden[..14]);
        assert_eq!(frame[42..], golden[42..70]);
        assert_eq!(frame[34..36], golden[34..36]);
        let kind = Kind::Error { error: Error::Refused, quoted: None };
        let refusal = Message { src: US.into(), dst: THEM.into(), kind };
        assert_eq!((message_of(&frame), message_of(&golden)), (refusal, refusal));
    }

    #[test]
    fn an_error_names_the_segment_that_it_is_about() {
        let quote = "4600003c 929e4000 40060000 0a070001 0a070002 01010101 98381f90 90032aff";
        for (kind, code, error) in [
            (3, 1, Error::Unreachable),
            (3, 2, Error::Refused),
            (3, 4, Error::TooBig { mtu: 1400 }),
            (4, 0, Error::SourceQuench),
            (5, 1, Error::Redirect),
            (11, 0, Error::TimeExceeded),
            (12, 0, Error::ParameterProblem),
        ] {
            let mut message = vec![kind, code, 0, 0, 0, 0, 0x05, 0x78];
            message.extend(crate::wire::hex(quote));
            let quoted = Some(Quoted {
                src: THEM.into(),
                dst: US.into(),
                src_port: 38_968,
                dst_port: 8080,
                seq: 0x9003_2aff,
            });
            let expected = Kind::Error { error, quoted };
            assert_eq!(message_of(&framed(message.clone())).kind, expected);
            // Without the eighth byte of TCP it can't be told which segment.
            message.pop();
            let expected = Kind::Error { error, quoted: None };
            assert_eq!(message_of(&framed(message)).kind, expected);
        }
    }

    #[test]
    fn a_quote_that_is_no_first_piece_of_tcp_names_no_segment() {
        let good =
            crate::wire::hex("4500003c 929e4000 40060000 0a070001 0a070002 98381f90 90032aff");
        assert!(Quoted::parse_v4(&good).is_some());
        for (at, byte) in [(0, 0x65), (0, 0x44), (0, 0x4f), (7, 1), (9, 17)] {
            let mut bad = good.clone();
            bad[at] = byte;
            assert_eq!(Quoted::parse_v4(&bad), None, "byte {at}");
        }
        for cut in 0..good.len() {
            assert_eq!(Quoted::parse_v4(&good[..cut]), None);
        }
    }

    #[test]
    fn a_message_cut_short_or_changed_is_malformed_and_an_unknown_one_is_not() {
        let good = vec![8, 0, 0, 0, 0, 1, 0, 2];
        let frame = framed(good.clone());
        for at in 34..frame.len() {
            let mut bad = frame.clone();
            bad[at] ^= 0x10;
            assert_eq!(parse(&bad, Verify::NotTcp), Err(Malformed::Icmp), "byte {at}");
        }
        for len in 0..8 {
            assert_eq!(Kind::parse(&good[..len], 34), Err(Malformed::Icmp));
        }
        assert_eq!(message_of(&framed(vec![13, 0, 0, 0, 0, 1, 0, 2])).kind, Kind::Other);
        assert_eq!(message_of(&framed(vec![0, 0, 0, 0, 0, 1, 0, 2])).kind, Kind::EchoReply);
    }

    fn six(last: u16) -> Ipv6Addr {
        Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, last)
    }

    /// A frame from fd00::1 to fd00::2, untagged.
    fn framed_v6(next_header: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![0; 54];
        ethernet::Header { ethertype: ETHERTYPE_IPV6, ..to_them() }.emit(&mut frame);
        ipv6::emit(&mut frame[14..], (six(1), six(2)), next_header, payload.len(), (64, 0));
        frame.extend(payload);
        frame
    }

    /// The same around an ICMPv6 message, its checksum mended.
    fn message_v6(mut message: Vec<u8>) -> Vec<u8> {
        message[2..4].fill(0);
        let (protocol, len) = (ipv6::PROTOCOL_ICMP, message.len() as u16);
        let pseudo = checksum::pseudo_header_v6(six(1), six(2), protocol, len);
        let sum = checksum::finish(pseudo + checksum::sum(&message));
        message[2..4].copy_from_slice(&sum.to_be_bytes());
        framed_v6(protocol, &message)
    }

    #[test]
    fn errors_of_icmpv6_say_the_same_things() {
        let mut quote = vec![0; 40];
        ipv6::emit(&mut quote, (six(2), six(1)), PROTOCOL_TCP, 20, (64, 0));
        quote.extend([0x98, 0x38, 0x1f, 0x90, 0x90, 0x03, 0x2a, 0xff]);
        let quoted = Some(Quoted {
            src: six(2).into(),
            dst: six(1).into(),
            src_port: 38_968,
            dst_port: 8080,
            seq: 0x9003_2aff,
        });
        for (kind, code, error) in [
            (1, 0, Error::Unreachable),
            (1, 4, Error::Refused),
            (2, 0, Error::TooBig { mtu: 1400 }),
            (3, 0, Error::TimeExceeded),
            (4, 0, Error::ParameterProblem),
            (4, 1, Error::Refused),
        ] {
            let mut message = vec![kind, code, 0, 0, 0, 0, 0x05, 0x78];
            message.extend(&quote);
            let frame = message_v6(message.clone());
            assert_eq!(message_of(&frame).kind, Kind::Error { error, quoted });
            message.pop();
            let frame = message_v6(message);
            assert_eq!(message_of(&frame).kind, Kind::Error { error, quoted: None });
        }
        let huge = message_v6([&[2, 0, 0, 0, 1, 0, 0, 0], &quote[..]].concat());
        let error = Error::TooBig { mtu: u16::MAX };
        assert_eq!(message_of(&huge).kind, Kind::Error { error, quoted });
        assert_eq!(message_of(&message_v6(vec![134, 0, 0, 0, 0, 0, 0, 0])).kind, Kind::Other);
        let mut bad = huge;
        bad[60] ^= 1;
        assert_eq!(parse(&bad, Verify::NotTcp), Err(Malformed::Icmp));
    }

    #[test]
    fn what_is_not_spoken_over_ipv6_is_answered_with_all_of_it_that_fits() {
        let long = [7; 1400];
        for (next_header, payload, said, quote_len) in [
            (PROTOCOL_UDP, &long[..9], [1, 4, 0], 49),
            (PROTOCOL_UDP, &long[..], [1, 4, 0], QUOTE_MAX),
            (132, &long[..9], [4, 1, 6], 49),
            // A routing header with a segment left.
            (43, &[6, 0, 0, 1, 0, 0, 0, 0], [4, 0, 42], 48),
        ] {
            let frame = framed_v6(next_header, payload);
            let Ok(Body::Unspoken(about)) = parse(&frame, Verify::All).map(|it| it.body) else {
                panic!("not unspoken");
            };
            assert_eq!(usize::from(about.quote_len), quote_len);
            let quote = &frame[usize::from(about.quote_at)..][..quote_len];
            let mut error = vec![0xaa; error_len(false, &about)];
            let ethernet = ethernet::Header { ethertype: ETHERTYPE_IPV6, ..to_them() };
            emit_error(&mut error, &ethernet, &about, quote, 1, 64);
            assert!(error.len() <= 14 + 1280);
            assert_eq!([error[54], error[55], error[61]], said);
            assert_eq!(&error[62..], quote);
            let Message { src, dst, kind: Kind::Error { .. } } = message_of(&error) else {
                panic!("no error");
            };
            assert_eq!((src, dst), (six(2).into(), six(1).into()));
        }
        let nothing = framed_v6(59, &[]);
        assert_eq!(parse(&nothing, Verify::All).unwrap().body, Body::Other);
    }

    #[test]
    fn an_echo_over_ipv6_comes_back_without_its_extension_headers() {
        let request = message_v6(vec![128, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7]);
        let mut frame = request.clone();
        frame.splice(54..54, [58, 0, 1, 4, 0, 0, 0, 0]);
        (frame[19], frame[20]) = (19, 60);
        let message = message_of(&frame);
        let Kind::EchoRequest { data_at, data_len } = message.kind else {
            panic!("not a request: {message:?}");
        };
        let ethernet = ethernet::Header { ethertype: ETHERTYPE_IPV6, ..to_them() };
        let len = emit_echo_reply(&mut frame, &ethernet, &message, (data_at, data_len), 1, 64);
        frame.truncate(len);
        assert_eq!(len, request.len());
        let reply = Message { src: six(2).into(), dst: six(1).into(), kind: Kind::EchoReply };
        assert_eq!(message_of(&frame), reply);
        assert_eq!(frame[58..], [1, 2, 3, 4, 5, 6, 7]);
    }

    proptest! {
        #[test]
        fn an_echo_comes_back_with_every_byte(
            data in prop::collection::vec(any::<u8>(), 4..100), padding in 0usize..20,
            options in 0usize..=10,
        ) {
            let mut message = vec![8, 0, 0, 0];
            message.extend(&data);
            let mut frame = framed(message);
            // IP options, which a reply leaves out; then Ethernet's padding.
            frame.splice(34..34, vec![1; options * 4]);
            frame[14] = 0x45 + options as u8;
            let total = (frame.len() - 14) as u16;
            frame[16..18].copy_from_slice(&total.to_be_bytes());
            frame[24..26].fill(0);
            let sum = checksum::finish(checksum::sum(&frame[14..34 + options * 4]));
            frame[24..26].copy_from_slice(&sum.to_be_bytes());
            frame.extend(vec![0x55; padding]);

            let request = message_of(&frame);
            let Kind::EchoRequest { data_at, data_len } = request.kind else {
                panic!("not a request: {request:?}");
            };
            let at = (data_at, data_len);
            let len = emit_echo_reply(&mut frame, &to_them(), &request, at, 1, 64);
            prop_assert_eq!(len, 38 + data.len());
            frame.truncate(len);
            let reply = Message { src: THEM.into(), dst: US.into(), kind: Kind::EchoReply };
            prop_assert_eq!(message_of(&frame), reply);
            prop_assert_eq!(&frame[38..], &data[..]);
        }

        #[test]
        fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = Kind::parse(&bytes, 34);
            let _ = (Quoted::parse_v4(&bytes), Quoted::parse_v6(&bytes));
            let _ = Kind::parse_v6(&bytes, 54);
        }
    }
}
