//! ICMP for IPv4 (RFC 792, RFC 1122 s3.2.2): echo, the errors that quote a TCP segment, and the one
//! error that we send.

use super::ipv4::{self, PROTOCOL_ICMP, PROTOCOL_TCP, PROTOCOL_UDP};
use super::{Malformed, checksum, ethernet};
use std::net::Ipv4Addr;

const ECHO_REPLY: u8 = 0;
const UNREACHABLE: u8 = 3;
const SOURCE_QUENCH: u8 = 4;
const REDIRECT: u8 = 5;
const ECHO_REQUEST: u8 = 8;
const TIME_EXCEEDED: u8 = 11;
const PARAMETER_PROBLEM: u8 = 12;

/// Codes of an unreachable that a host sends (RFC 1122 s3.2.2.1).
const PROTOCOL_UNREACHABLE: u8 = 2;
const PORT_UNREACHABLE: u8 = 3;

const HEADER_LEN: usize = 8;

/// The part of an ICMP message that we act on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message {
    pub src: Ipv4Addr,
    pub dst: Ipv4Addr,
    pub kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Type 8. The rest of the message (identifier, sequence, data) stands at `data_at..data_at +
    /// data_len`.
    EchoRequest {
        data_at: u16,
        data_len: u16,
    },
    EchoReply,
    /// Type 3, 4, 5, 11 or 12 with the start of the datagram that it is about.
    Error {
        kind: u8,
        code: u8,
        /// Of type 3 code 4: the next hop's MTU in bytes (RFC 1191 s4).
        mtu: u16,
        quoted: Option<Quoted>,
    },
    /// Anything else: ignored (RFC 1122 s3.2.2).
    Other,
}

/// The quoted TCP header's first eight bytes and its addresses: as *we* sent them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quoted {
    pub src: Ipv4Addr,
    pub dst: Ipv4Addr,
    pub src_port: u16,
    pub dst_port: u16,
    pub seq: u32,
}

/// A datagram to one host in a protocol that we do not speak, UDP most often. If it came to us, an
/// unreachable is due ([`emit_unreachable`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unspoken {
    pub src: Ipv4Addr,
    pub dst: Ipv4Addr,
    pub protocol: u8,
    /// What an error about it quotes, its IP header and eight bytes more, stands at
    /// `quote_at..quote_at + quote_len`.
    pub quote_at: u16,
    pub quote_len: u16,
}

impl Kind {
    /// Understands the ICMP message that takes all of `bytes` and stands at `at` in its frame.
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
        Ok(match kind {
            ECHO_REQUEST => {
                Kind::EchoRequest { data_at: at as u16 + 4, data_len: bytes.len() as u16 - 4 }
            }
            ECHO_REPLY => Kind::EchoReply,
            UNREACHABLE | SOURCE_QUENCH | REDIRECT | TIME_EXCEEDED | PARAMETER_PROBLEM => {
                let mtu = u16::from_be_bytes([m0, m1]);
                Kind::Error { kind, code, mtu, quoted: Quoted::parse(&bytes[HEADER_LEN..]) }
            }
            _ => Kind::Other,
        })
    }
}

impl Quoted {
    /// The TCP segment whose start is quoted, if that is what it is: routers quote eight bytes of
    /// it or more, and may have changed the IP header on the way.
    fn parse(bytes: &[u8]) -> Option<Quoted> {
        let ip = bytes.first_chunk::<{ ipv4::HEADER_LEN }>()?;
        let header_len = usize::from(ip[0] & 0x0f) * 4;
        let offset = u16::from_be_bytes([ip[6], ip[7]]) & 0x1fff;
        if ip[0] >> 4 != 4 || header_len < ipv4::HEADER_LEN || ip[9] != PROTOCOL_TCP || offset != 0
        {
            return None;
        }
        let &[s0, s1, d0, d1, q0, q1, q2, q3] = bytes.get(header_len..)?.first_chunk::<8>()?;
        Some(Quoted {
            src: Ipv4Addr::new(ip[12], ip[13], ip[14], ip[15]),
            dst: Ipv4Addr::new(ip[16], ip[17], ip[18], ip[19]),
            src_port: u16::from_be_bytes([s0, s1]),
            dst_port: u16::from_be_bytes([d0, d1]),
            seq: u32::from_be_bytes([q0, q1, q2, q3]),
        })
    }
}

impl Unspoken {
    /// Of a datagram that stands at `at` in its frame.
    pub(super) fn new(header: &ipv4::Header, at: usize) -> Unspoken {
        Unspoken {
            src: header.src,
            dst: header.dst,
            protocol: header.protocol,
            quote_at: at as u16,
            quote_len: header.header_len + header.payload_len.min(8),
        }
    }
}

/// Turns the frame that an echo request came in into its reply, data and all (RFC 1122 s3.2.2.6);
/// answers the reply's length, never more than the request's. `data_at` and `data_len` are the
/// request's; its IP options do not go back.
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
    let ip_at = ethernet::header_len(ethernet.vlan.is_some());
    let at = ip_at + ipv4::HEADER_LEN;
    assert!(at + 4 <= data_at);
    frame.copy_within(data_at..data_at + data_len, at + 4);
    ethernet.emit(frame);
    ipv4::emit(
        &mut frame[ip_at..],
        (request.dst, request.src),
        PROTOCOL_ICMP,
        4 + data_len,
        ip_id,
        (ttl, 0),
    );
    seal(&mut frame[at..at + 4 + data_len], ECHO_REPLY, 0);
    at + 4 + data_len
}

/// Bytes of the frame that says that `about` can't be delivered.
pub fn unreachable_len(vlan: bool, about: &Unspoken) -> usize {
    ethernet::header_len(vlan) + ipv4::HEADER_LEN + HEADER_LEN + usize::from(about.quote_len)
}

/// Writes into `frame` that nobody listens where `about` went: port unreachable for UDP, protocol
/// unreachable for the rest. `quote` is what `about` says is to be quoted of its frame. The caller
/// sees to it that `about` came to an address of ours, and not to everyone on the link (RFC 1122
/// s3.2.2).
///
/// # Panics
/// If `frame` is not [`unreachable_len`] long, or `quote` not `quote_len`: a bug of the caller.
pub fn emit_unreachable(
    frame: &mut [u8],
    ethernet: &ethernet::Header,
    about: &Unspoken,
    quote: &[u8],
    ip_id: u16,
    ttl: u8,
) {
    assert_eq!(frame.len(), unreachable_len(ethernet.vlan.is_some(), about));
    let code = if about.protocol == PROTOCOL_UDP { PORT_UNREACHABLE } else { PROTOCOL_UNREACHABLE };
    let ip_at = ethernet.emit(frame);
    let (ip, message) = frame[ip_at..].split_at_mut(ipv4::HEADER_LEN);
    ipv4::emit(ip, (about.dst, about.src), PROTOCOL_ICMP, message.len(), ip_id, (ttl, 0));
    message[4..HEADER_LEN].fill(0);
    message[HEADER_LEN..].copy_from_slice(quote);
    seal(message, UNREACHABLE, code);
}

/// Writes type, code and checksum of a message whose rest stands.
fn seal(message: &mut [u8], kind: u8, code: u8) {
    message[..4].copy_from_slice(&[kind, code, 0, 0]);
    let checksum = checksum::finish(checksum::sum(message));
    message[2..4].copy_from_slice(&checksum.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::super::ethernet::{ETHERTYPE_IPV4, Mac};
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
        let (kind, code) = (message[0], message[1]);
        seal(&mut message, kind, code);
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
        assert_eq!((about.src, about.dst, about.protocol), (THEM, US, PROTOCOL_UDP));
        let quote = &datagram[usize::from(about.quote_at)..][..usize::from(about.quote_len)];
        let mut frame = vec![0xaa; unreachable_len(false, &about)];
        emit_unreachable(&mut frame, &to_them(), &about, quote, 0xadd8, 64);
        // Linux quotes the datagram's last byte too, and marks the error's precedence.
        let golden = crate::wire::hex(REFUSAL);
        assert_eq!(frame[..14], golden[..14]);
        assert_eq!(frame[42..], golden[42..70]);
        assert_eq!(frame[34..36], golden[34..36]);
        let kind = Kind::Error { kind: 3, code: 3, mtu: 0, quoted: None };
        assert_eq!(message_of(&frame), Message { src: US, dst: THEM, kind });
        assert_eq!(message_of(&golden), Message { src: US, dst: THEM, kind });
    }

    #[test]
    fn an_error_names_the_segment_that_it_is_about() {
        let quote = "4600003c 929e4000 40060000 0a070001 0a070002 01010101 98381f90 90032aff";
        for (kind, code) in [(3, 4), (4, 0), (5, 1), (11, 0), (12, 0)] {
            let mut message = vec![kind, code, 0, 0, 0, 0, 0x05, 0x78];
            message.extend(crate::wire::hex(quote));
            let quoted = Some(Quoted {
                src: THEM,
                dst: US,
                src_port: 38_968,
                dst_port: 8080,
                seq: 0x9003_2aff,
            });
            let expected = Kind::Error { kind, code, mtu: 1400, quoted };
            assert_eq!(message_of(&framed(message.clone())).kind, expected);
            // Without the eighth byte of TCP it can't be told which segment.
            message.pop();
            let expected = Kind::Error { kind, code, mtu: 1400, quoted: None };
            assert_eq!(message_of(&framed(message)).kind, expected);
        }
    }

    #[test]
    fn a_quote_that_is_no_first_piece_of_tcp_names_no_segment() {
        let good =
            crate::wire::hex("4500003c 929e4000 40060000 0a070001 0a070002 98381f90 90032aff");
        assert!(Quoted::parse(&good).is_some());
        for (at, byte) in [(0, 0x65), (0, 0x44), (0, 0x4f), (7, 1), (9, 17)] {
            let mut bad = good.clone();
            bad[at] = byte;
            assert_eq!(Quoted::parse(&bad), None, "byte {at}");
        }
        for cut in 0..good.len() {
            assert_eq!(Quoted::parse(&good[..cut]), None);
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
            let reply = Message { src: THEM, dst: US, kind: Kind::EchoReply };
            prop_assert_eq!(message_of(&frame), reply);
            prop_assert_eq!(&frame[38..], &data[..]);
        }

        #[test]
        fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = Kind::parse(&bytes, 34);
            let _ = Quoted::parse(&bytes);
        }
    }
}
