//! One pass from a frame to what it says, and one pass back.
//!
//! [`parse`] answers a [`Packet`]: a small `Copy` summary with offsets into the frame, no borrow.
//! [`emit`] writes the Ethernet, IP and TCP headers in front of a payload that already stands in
//! the buffer.

use super::ethernet::{ETHERTYPE_ARP, ETHERTYPE_IPV4, ETHERTYPE_IPV6};
use super::ipv4::{self, PROTOCOL_ICMP, PROTOCOL_TCP};
use super::options::{Layout, Options};
use super::tcp::{self, Flags};
use super::{Family, Malformed, arp, checksum, ethernet, icmp, ipv6, ndp};
use std::net::{IpAddr, Ipv4Addr};

/// A TCP segment with its addresses, as it arrived or as it shall be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Of the same family as `dst`.
    pub src: IpAddr,
    pub dst: IpAddr,
    pub src_port: u16,
    pub dst_port: u16,
    pub seq: u32,
    /// Meaningless unless `flags` has ACK.
    pub ack: u32,
    pub flags: Flags,
    /// As in the header: not scaled.
    pub window: u16,
    /// Meaningless unless `flags` has URG.
    pub urgent: u16,
    /// The IP header's DiffServ and ECN octet (RFC 2474, RFC 3168 s5).
    pub tos: u8,
    pub options: Options,
    /// Where the payload starts in the frame, in bytes.
    pub payload_at: u16,
    /// Length of the payload in bytes.
    pub payload_len: u16,
}

/// What a frame holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    Tcp(Segment),
    Arp(arp::Packet),
    Icmp(icmp::Message),
    Ndp(ndp::Packet),
    /// To one host, and not understood.
    Unspoken(icmp::Unspoken),
    /// Well-formed, but nothing to us: another EtherType, a group's datagram.
    Other,
}

/// A frame, understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    pub ethernet: ethernet::Header,
    pub body: Body,
}

/// Which received checksums are verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verify {
    /// Every one (RFC 9293 s3.1 MUST-3). The default.
    All,
    /// IP and ICMP, not TCP: for a peer that leaves TCP's to hardware that is not there, such as
    /// the kernel on a veth. (Deviates from MUST-3; a documented switch.)
    NotTcp,
}

impl Packet {
    /// With nothing in it.
    pub const BLANK: Packet = Packet {
        ethernet: ethernet::Header {
            dst: ethernet::Mac([0; 6]),
            src: ethernet::Mac([0; 6]),
            vlan: None,
            ethertype: 0,
        },
        body: Body::Other,
    };
}

impl Segment {
    /// From nobody to nobody, and with nothing in it.
    pub const BLANK: Segment = Segment {
        src: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        dst: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        src_port: 0,
        dst_port: 0,
        seq: 0,
        ack: 0,
        flags: Flags(0),
        window: 0,
        urgent: 0,
        tos: 0,
        options: Options::NONE,
        payload_at: 0,
        payload_len: 0,
    };

    /// Sequence numbers it takes: its payload, and one each for SYN and FIN (RFC 9293 s3.4).
    pub fn seq_len(&self) -> u32 {
        u32::from(self.payload_len)
            + u32::from(self.flags.has(Flags::SYN))
            + u32::from(self.flags.has(Flags::FIN))
    }

    /// Of its addresses.
    #[inline]
    pub fn family(&self) -> Family {
        Family::of(self.src)
    }
}

/// Understands a frame.
///
/// # Errors
/// Why it can't be: to be counted and dropped, never answered.
pub fn parse(frame: &[u8], verify: Verify) -> Result<Packet, Malformed> {
    let mut packet = Packet::BLANK;
    parse_into(frame, verify, &mut packet)?;
    Ok(packet)
}

/// [`parse`] into `packet`, where it is kept: a copy of what was just written field by field would
/// wait for each of those writes.
///
/// # Errors
/// As [`parse`]; `packet` then means nothing.
#[inline(always)]
pub fn parse_into(frame: &[u8], verify: Verify, packet: &mut Packet) -> Result<(), Malformed> {
    if parse_plain(frame, verify, packet).is_none() {
        *packet = parse_any(frame, verify)?;
    }
    Ok(())
}

/// Where TCP begins in a plain frame, and where its fixed header ends.
const PLAIN_TCP_AT: usize = 34;
const PLAIN_OPTIONS_AT: usize = PLAIN_TCP_AT + tcp::HEADER_LEN;

/// Reads what nearly every frame is, word by word: a whole and sound TCP segment in an IPv4
/// datagram without options, untagged, to one host. `None` for whatever is not so: [`parse_any`] is
/// to say what it is. The two agree on every frame: a test has both read the same ones.
#[inline(always)] // Once, in `parse_into`: what it reads stays in registers.
fn parse_plain(frame: &[u8], verify: Verify, packet: &mut Packet) -> Option<()> {
    let head = frame.first_chunk::<PLAIN_OPTIONS_AT>()?;
    let word = |at: usize| u32::from_be_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    let [first, fragment, third, src, dst] = [word(14), word(18), word(22), word(26), word(30)];
    let [ports, seq, ack, control, last] = [word(34), word(38), word(42), word(46), word(50)];
    let [d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5, t0, t1] = *head.first_chunk()?;
    // No options, and neither a fragment nor followed by one.
    let whole = first >> 24 == 0x45 && fragment & 0x3fff == 0;
    let to_tcp = third >> 16 & 0xff == u32::from(PROTOCOL_TCP);
    if !whole || !to_tcp || [t0, t1] != ETHERTYPE_IPV4.to_be_bytes() {
        return None;
    }
    // Who may send is one host, and not this one.
    let hosts = ipv4::may_send(src.into()) && ipv4::may_send(dst.into());
    let ip_sum = checksum::sum_words(&[first, fragment, third, src, dst]);
    if !hosts || ports >> 16 == 0 || ports & 0xffff == 0 || !checksum::holds(ip_sum) {
        return None;
    }
    let end = 14 + (first & 0xffff) as usize;
    let payload_at = PLAIN_TCP_AT + (control >> 28) as usize * 4;
    let payload = frame.get(payload_at..end)?;
    packet.ethernet = ethernet::Header {
        dst: ethernet::Mac([d0, d1, d2, d3, d4, d5]),
        src: ethernet::Mac([s0, s1, s2, s3, s4, s5]),
        vlan: None,
        ethertype: ETHERTYPE_IPV4,
    };
    packet.body = Body::Tcp(Segment {
        src: IpAddr::V4(src.into()),
        dst: IpAddr::V4(dst.into()),
        src_port: (ports >> 16) as u16,
        dst_port: ports as u16,
        seq,
        ack,
        flags: Flags((control >> 16) as u8),
        window: control as u16,
        urgent: last as u16,
        tos: (first >> 16) as u8,
        options: Options::NONE,
        payload_at: payload_at as u16,
        payload_len: payload.len() as u16,
    });
    let Body::Tcp(segment) = &mut packet.body else { return None };
    let options_sum = segment.options.read(frame.get(PLAIN_OPTIONS_AT..payload_at)?)?;
    let tcp_len = u64::from(PROTOCOL_TCP) + (end - PLAIN_TCP_AT) as u64;
    let pseudo = u64::from(src) + u64::from(dst) + tcp_len;
    let sum = pseudo + checksum::sum_words(&[ports, seq, ack, control, last]) + options_sum;
    // RFC 9293 s3.1, MUST-3: "The receiver MUST check it."
    (verify == Verify::NotTcp || checksum::holds(sum + checksum::sum(payload))).then_some(())
}

/// [`parse`] of whatever there is.
#[cold] // Out of the way of what is plain.
fn parse_any(frame: &[u8], verify: Verify) -> Result<Packet, Malformed> {
    let (ethernet, at) = ethernet::Header::parse(frame)?;
    let body = match ethernet.ethertype {
        ETHERTYPE_IPV4 => parse_datagram(frame, at, verify)?,
        ETHERTYPE_IPV6 => parse_datagram_v6(frame, at, verify)?,
        ETHERTYPE_ARP => Body::Arp(arp::Packet::parse(&frame[at..])?),
        _ => Body::Other,
    };
    Ok(Packet { ethernet, body })
}

#[inline]
fn parse_datagram(frame: &[u8], at: usize, verify: Verify) -> Result<Body, Malformed> {
    let header = ipv4::Header::parse(&frame[at..])?;
    let payload_at = at + usize::from(header.header_len);
    let payload = &frame[payload_at..payload_at + usize::from(header.payload_len)];
    if !header.to_one_host() {
        // RFC 9293 s3.9.2.3 MUST-57: a SYN to a multicast or broadcast address is silently
        // discarded. (An echo request to one may be, RFC 1122 s3.2.2.6; we do.)
        return if header.protocol == PROTOCOL_TCP {
            Err(Malformed::Martian)
        } else {
            Ok(Body::Other)
        };
    }
    match header.protocol {
        PROTOCOL_TCP => {
            let ipv4::Header { src, dst, tos, payload_len, .. } = header;
            let pseudo = checksum::pseudo_header(src, dst, PROTOCOL_TCP, payload_len);
            let carrier = Carrier { src: src.into(), dst: dst.into(), tos, pseudo };
            parse_segment(payload, payload_at, &carrier, verify).map(Body::Tcp)
        }
        PROTOCOL_ICMP => {
            let kind = icmp::Kind::parse(payload, payload_at)?;
            Ok(Body::Icmp(icmp::Message { src: header.src.into(), dst: header.dst.into(), kind }))
        }
        _ => Ok(Body::Unspoken(icmp::Unspoken::v4(&header, at))),
    }
}

fn parse_datagram_v6(frame: &[u8], at: usize, verify: Verify) -> Result<Body, Malformed> {
    let header = ipv6::Header::parse(&frame[at..])?;
    let payload_at = at + usize::from(header.header_len);
    let payload = &frame[payload_at..payload_at + usize::from(header.payload_len)];
    let ipv6::Header { src, dst, tos, payload_len, .. } = header;
    match header.protocol {
        // Nobody speaks TCP from no address, nor to a group (RFC 9293 s3.9.2.3 MUST-57).
        Some(PROTOCOL_TCP) if src.is_unspecified() || dst.is_multicast() => Err(Malformed::Martian),
        Some(PROTOCOL_TCP) if header.problem.is_none() => {
            let pseudo = checksum::pseudo_header_v6(src, dst, PROTOCOL_TCP, payload_len);
            let carrier = Carrier { src: src.into(), dst: dst.into(), tos, pseudo };
            parse_segment(payload, payload_at, &carrier, verify).map(Body::Tcp)
        }
        Some(ipv6::PROTOCOL_ICMP) if header.problem.is_none() => {
            parse_icmp_v6(&header, payload, payload_at)
        }
        // Nobody to tell, or nobody who spoke to us alone.
        Some(_) if src.is_unspecified() => Err(Malformed::Martian),
        Some(_) | None if header.to_one_host() => {
            Ok(icmp::Unspoken::v6(&header, at).map_or(Body::Other, Body::Unspoken))
        }
        Some(_) | None => Ok(Body::Other),
    }
}

/// The ICMPv6 message that takes all of `payload`.
#[inline(never)] // Out of the way of TCP.
fn parse_icmp_v6(header: &ipv6::Header, payload: &[u8], at: usize) -> Result<Body, Malformed> {
    let ipv6::Header { src, dst, payload_len, .. } = *header;
    let pseudo = checksum::pseudo_header_v6(src, dst, ipv6::PROTOCOL_ICMP, payload_len);
    if payload.len() < 8 || !checksum::holds(pseudo + checksum::sum(payload)) {
        return Err(Malformed::Icmp);
    }
    if let Some(packet) = ndp::Packet::parse(header, payload)? {
        return Ok(Body::Ndp(packet));
    }
    if src.is_unspecified() {
        return Err(Malformed::Martian);
    }
    if dst.is_multicast() {
        return Ok(Body::Other);
    }
    let kind = icmp::Kind::parse_v6(payload, at);
    Ok(Body::Icmp(icmp::Message { src: src.into(), dst: dst.into(), kind }))
}

/// What a segment gets from the datagram that carries it.
struct Carrier {
    src: IpAddr,
    dst: IpAddr,
    tos: u8,
    /// The sum of the pseudo-header.
    pseudo: u64,
}

#[inline]
fn parse_segment(
    bytes: &[u8],
    at: usize,
    ip: &Carrier,
    verify: Verify,
) -> Result<Segment, Malformed> {
    let Some((fixed, rest)) = bytes.split_first_chunk::<{ tcp::HEADER_LEN }>() else {
        return Err(Malformed::TcpHeader);
    };
    let word =
        |at: usize| u32::from_be_bytes([fixed[at], fixed[at + 1], fixed[at + 2], fixed[at + 3]]);
    let words = [word(0), word(4), word(8), word(12), word(16)];
    let [ports, seq, ack, control, last] = words;
    let header_len = (control >> 28) as usize * 4;
    if header_len < tcp::HEADER_LEN || header_len > bytes.len() {
        return Err(Malformed::TcpHeader);
    }
    // RFC 9293 s3.1, MUST-3: "The receiver MUST check it."
    if verify == Verify::All {
        let sum = ip.pseudo
            + words.iter().map(|&word| u64::from(word)).sum::<u64>()
            + checksum::sum(rest);
        if !checksum::holds(sum) {
            return Err(Malformed::TcpChecksum);
        }
    }
    let (src_port, dst_port) = ((ports >> 16) as u16, ports as u16);
    if src_port == 0 || dst_port == 0 {
        return Err(Malformed::TcpPort);
    }
    Ok(Segment {
        src: ip.src,
        dst: ip.dst,
        src_port,
        dst_port,
        seq,
        ack,
        flags: Flags((control >> 16) as u8),
        window: control as u16,
        urgent: last as u16,
        tos: ip.tos,
        options: Options::parse(&rest[..header_len - tcp::HEADER_LEN])?,
        payload_at: (at + header_len) as u16,
        payload_len: (bytes.len() - header_len) as u16,
    })
}

/// Bytes before the payload: Ethernet with or without a tag, IP without options, TCP with these
/// options.
#[inline]
pub fn header_len(vlan: bool, family: Family, options: &Options) -> usize {
    ethernet::header_len(vlan) + family.header_len() + tcp::HEADER_LEN + options.len()
}

/// Writes all headers of `segment` into `frame`, whose payload stands at `header_len` already and
/// ends where `frame` ends. `segment.payload_at` is ignored; `segment.payload_len` must be
/// `frame.len() - header_len`. Pads nothing: the IP length rules, and short frames are legal on
/// every device we have. `ip_id` is for IPv4 alone. The checksum is always there (RFC 9293 s3.1,
/// MUST-2).
///
/// # Panics
/// If the lengths disagree, or the families of the addresses: a bug of the caller.
#[inline(always)]
pub fn emit(frame: &mut [u8], ethernet: &ethernet::Header, segment: &Segment, ip_id: u16, ttl: u8) {
    let (IpAddr::V4(src), IpAddr::V4(dst), None) = (segment.src, segment.dst, ethernet.vlan) else {
        return emit_any(frame, ethernet, segment, ip_id, ttl);
    };
    let addresses = (src, dst);
    match segment.options.layout() {
        Layout::Nothing => emit_plain(frame, ethernet, segment, addresses, [], ip_id, ttl),
        Layout::Timestamps(words) => {
            emit_plain(frame, ethernet, segment, addresses, words, ip_id, ttl);
        }
        Layout::Syn(words) => emit_plain(frame, ethernet, segment, addresses, words, ip_id, ttl),
        Layout::Any => emit_any(frame, ethernet, segment, ip_id, ttl),
    }
}

/// [`emit`] for a device that sums: in the checksum's place stands the sum of the pseudo-header,
/// and the device is to put there the checksum of all from the TCP header on. Answers where that
/// begins; the checksum is [`tcp::CHECKSUM_AT`] bytes further.
///
/// # Panics
/// As [`emit`].
pub fn emit_unsummed(
    frame: &mut [u8],
    ethernet: &ethernet::Header,
    segment: &Segment,
    ip_id: u16,
    ttl: u8,
) -> usize {
    let (tcp_at, pseudo) = emit_ip(frame, ethernet, segment, ip_id, ttl);
    let payload_at = frame.len() - usize::from(segment.payload_len);
    let header = &mut frame[tcp_at..payload_at];
    put(header, segment, segment.options.words().as_slice(), 0);
    let sum = !checksum::finish(pseudo);
    header[tcp::CHECKSUM_AT..][..2].copy_from_slice(&sum.to_be_bytes());
    tcp_at
}

/// [`emit`] of what nearly every segment is: untagged, over IPv4, its options of a known layout.
#[inline(always)] // Once a layout, in `emit`: every place in the frame is a constant.
fn emit_plain<const WORDS: usize>(
    frame: &mut [u8],
    ethernet: &ethernet::Header,
    segment: &Segment,
    (src, dst): (Ipv4Addr, Ipv4Addr),
    options: [u32; WORDS],
    ip_id: u16,
    ttl: u8,
) {
    let payload_at = PLAIN_OPTIONS_AT + 4 * WORDS;
    assert!(frame.len() == payload_at + usize::from(segment.payload_len));
    let (headers, payload) = frame.split_at_mut(payload_at);
    let at = ethernet.emit(headers);
    let (ip, tcp) = headers[at..].split_at_mut(ipv4::HEADER_LEN);
    let tcp_len = tcp.len() + payload.len();
    ipv4::emit(ip, (src, dst), PROTOCOL_TCP, tcp_len, ip_id, (ttl, segment.tos));
    let pseudo = checksum::pseudo_header(src, dst, PROTOCOL_TCP, tcp_len as u16);
    put(tcp, segment, &options, pseudo + checksum::sum(payload));
}

/// [`emit`] of whatever there is.
#[cold] // Out of the way of what is plain.
fn emit_any(frame: &mut [u8], ethernet: &ethernet::Header, segment: &Segment, ip_id: u16, ttl: u8) {
    let (tcp_at, pseudo) = emit_ip(frame, ethernet, segment, ip_id, ttl);
    let payload_at = frame.len() - usize::from(segment.payload_len);
    let (headers, payload) = frame.split_at_mut(payload_at);
    let options = segment.options.words();
    put(&mut headers[tcp_at..], segment, options.as_slice(), pseudo + checksum::sum(payload));
}

/// Writes what is before the TCP header. Answers where that stands, and the sum of its
/// pseudo-header.
fn emit_ip(
    frame: &mut [u8],
    ethernet: &ethernet::Header,
    segment: &Segment,
    ip_id: u16,
    ttl: u8,
) -> (usize, u64) {
    let family = segment.family();
    let payload_at = header_len(ethernet.vlan.is_some(), family, &segment.options);
    assert!(frame.len() == payload_at + usize::from(segment.payload_len));
    let at = ethernet.emit(frame);
    let tcp_at = at + family.header_len();
    let (tcp_len, tos) = (frame.len() - tcp_at, segment.tos);
    let ip = &mut frame[at..tcp_at];
    let pseudo = match (segment.src, segment.dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            ipv4::emit(ip, (src, dst), PROTOCOL_TCP, tcp_len, ip_id, (ttl, tos));
            checksum::pseudo_header(src, dst, PROTOCOL_TCP, tcp_len as u16)
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            ipv6::emit(ip, (src, dst), PROTOCOL_TCP, tcp_len, (ttl, tos));
            checksum::pseudo_header_v6(src, dst, PROTOCOL_TCP, tcp_len as u16)
        }
        (src, dst) => panic!("{src} and {dst} are of two families"),
    };
    (tcp_at, pseudo)
}

/// Writes a TCP header; `sum` is that of its pseudo-header and payload.
#[inline(always)] // Where the options are known to be none or three words, there is no loop.
fn put(header: &mut [u8], segment: &Segment, options: &[u32], sum: u64) {
    let mut fixed = [
        u32::from(segment.src_port) << 16 | u32::from(segment.dst_port),
        segment.seq,
        segment.ack,
        (header.len() as u32 / 4) << 28
            | u32::from(segment.flags.0) << 16
            | u32::from(segment.window),
        u32::from(segment.urgent),
    ];
    let sum = sum + checksum::sum_words(&fixed) + checksum::sum_words(options);
    fixed[4] |= u32::from(checksum::finish(sum)) << 16;
    let words = fixed.iter().chain(options);
    for (bytes, word) in header.as_chunks_mut::<4>().0.iter_mut().zip(words) {
        *bytes = word.to_be_bytes();
    }
}

#[cfg(test)]
mod tests {
    use super::super::ethernet::Mac;
    use super::super::options::tests::any_options;
    use super::*;
    use crate::wire::hex;
    use proptest::prelude::*;
    use std::net::Ipv6Addr;

    // Two Linux kernels over a veth pair without checksum offload: the handshake, five bytes, three
    // bytes back.
    const SYN: &str = "020000000702 020000000701 0800
        4500003c 929e4000 4006940d 0a070001 0a070002
        98381f90 90032aff 00000000 a002faf0 03490000 020405b4 0402080a 4aba782d 00000000 0103030a";
    const SYN_ACK: &str = "020000000701 020000000702 0800
        4500003c 00004000 400626ac 0a070002 0a070001
        1f909838 a87d4174 90032b00 a012fe88 29510000 020405b4 0402080a b1363b26 4aba782d 0103030a";
    const ACK: &str = "020000000702 020000000701 0800
        45000034 929f4000 40069414 0a070001 0a070002
        98381f90 90032b00 a87d4175 8010003f 566a0000 0101080a 4aba782d b1363b26";
    const HELLO: &str = "020000000702 020000000701 0800
        45000039 92a04000 4006940e 0a070001 0a070002
        98381f90 90032b00 a87d4175 8018003f 128b0000 0101080a 4aba782d b1363b26 68656c6c6f";
    const ODD: &str = "020000000701 020000000702 0800
        45000037 4ec54000 4006d7eb 0a070002 0a070001
        1f909838 a87d4175 90032b05 80180040 82f40000 0101080a b1363b26 4aba782d 6f6464";

    fn tcp_of(frame: &[u8]) -> (ethernet::Header, Segment) {
        match parse(frame, Verify::All).unwrap() {
            Packet { ethernet, body: Body::Tcp(segment) } => (ethernet, segment),
            other => panic!("not TCP: {other:?}"),
        }
    }

    /// `segment` in a frame behind `ethernet`, with `payload`.
    fn framed(ethernet: &ethernet::Header, segment: &Segment, payload: &[u8]) -> Vec<u8> {
        let at = header_len(ethernet.vlan.is_some(), segment.family(), &segment.options);
        let mut frame = vec![0xaa; at];
        frame.extend(payload);
        emit(&mut frame, ethernet, segment, 7, 64);
        frame
    }

    /// The frame with the byte at `at` changed, and both checksums mended.
    fn changed(mut frame: Vec<u8>, at: usize, byte: u8) -> Vec<u8> {
        frame[at] = byte;
        frame[24..26].fill(0);
        let ip = checksum::finish(checksum::sum(&frame[14..34]));
        frame[24..26].copy_from_slice(&ip.to_be_bytes());
        frame[50..52].fill(0);
        let pseudo = checksum::sum(&frame[26..34]) + u64::from(PROTOCOL_TCP);
        let tcp = pseudo + (frame.len() - 34) as u64 + checksum::sum(&frame[34..]);
        frame[50..52].copy_from_slice(&checksum::finish(tcp).to_be_bytes());
        frame
    }

    #[test]
    fn the_segments_of_linux_are_understood_and_written_again_byte_for_byte() {
        for golden in [SYN, SYN_ACK, ACK, HELLO, ODD] {
            let golden = hex(golden);
            let (ethernet, segment) = tcp_of(&golden);
            let mut frame = golden.clone();
            frame[..usize::from(segment.payload_at)].fill(0xaa);
            let ip_id = u16::from_be_bytes([golden[18], golden[19]]);
            emit(&mut frame, &ethernet, &segment, ip_id, 64);
            assert_eq!(frame, golden);
        }
    }

    #[test]
    fn a_syn_ack_says_all_that_it_has_to_say() {
        let (ethernet, segment) = tcp_of(&hex(SYN_ACK));
        assert_eq!(ethernet.dst, Mac([2, 0, 0, 0, 7, 1]));
        let expected = Segment {
            src: [10, 7, 0, 2].into(),
            dst: [10, 7, 0, 1].into(),
            src_port: 8080,
            dst_port: 38_968,
            seq: 0xa87d_4174,
            ack: 0x9003_2b00,
            flags: Flags::SYN | Flags::ACK,
            window: 65_160,
            urgent: 0,
            tos: 0,
            options: Options {
                mss: Some(1460),
                window_scale: Some(10),
                sack_permitted: true,
                timestamps: Some((0xb136_3b26, 0x4aba_782d)),
                ..Options::default()
            },
            payload_at: 74,
            payload_len: 0,
        };
        assert_eq!(segment, expected);
        assert_eq!(segment.seq_len(), 1);
        let (_, hello) = tcp_of(&hex(HELLO));
        assert_eq!((hello.seq_len(), hello.payload_at), (5, 66));
    }

    #[test]
    fn padding_after_the_datagram_is_no_payload() {
        let mut frame = hex(HELLO);
        frame.extend([0x55; 9]);
        assert_eq!(tcp_of(&frame), tcp_of(&hex(HELLO)));
    }

    #[test]
    fn every_truncation_and_every_flipped_bit_is_noticed() {
        let frame = hex(HELLO);
        for cut in 0..frame.len() {
            let reason = if cut < 34 { Malformed::Truncated } else { Malformed::IpLength };
            assert_eq!(parse(&frame[..cut], Verify::All), Err(reason), "cut to {cut}");
        }
        for bit in 14 * 8..frame.len() * 8 {
            let mut bad = frame.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(parse(&bad, Verify::All).is_err(), "bit {bit}");
        }
    }

    /// What the options say does not change, what they are made of does.
    #[test]
    fn padding_of_options_that_was_changed_on_the_way_is_noticed() {
        for (golden, at, padding) in [(ACK, 54, [5, 2]), (ACK, 54, [1, 0xfd]), (SYN, 70, [0xfd, 3])]
        {
            let mut frame = hex(golden);
            frame[at..at + 2].copy_from_slice(&padding);
            let options = tcp_of(&hex(golden)).1.options;
            let understood = parse(&frame, Verify::All);
            assert_eq!(understood, Err(Malformed::TcpChecksum), "{options:?} as {padding:x?}");
        }
    }

    #[test]
    fn a_partial_checksum_passes_only_where_that_is_switched_on() {
        let mut frame = hex(HELLO);
        frame[50] ^= 0xff;
        assert_eq!(parse(&frame, Verify::All), Err(Malformed::TcpChecksum));
        assert!(matches!(parse(&frame, Verify::NotTcp), Ok(Packet { body: Body::Tcp(_), .. })));
    }

    #[test]
    fn each_rule_of_the_tcp_header_has_its_reason() {
        let cases = [
            (46, 0x40, Malformed::TcpHeader),
            (46, 0xf0, Malformed::TcpHeader),
            (57, 0x01, Malformed::TcpOption),
            (57, 0xff, Malformed::TcpOption),
        ];
        for (at, byte, reason) in cases {
            let bad = changed(hex(HELLO), at, byte);
            assert_eq!(parse(&bad, Verify::All), Err(reason), "byte {at} = {byte:#x}");
        }
        for at in [34, 36] {
            let mut bad = hex(HELLO);
            bad[at..at + 2].fill(0);
            let bad = changed(bad, at, 0);
            assert_eq!(parse(&bad, Verify::All), Err(Malformed::TcpPort), "port at {at}");
        }
        // A datagram with room for less than a TCP header.
        let bad = changed(hex(HELLO), 17, 39);
        assert_eq!(parse(&bad, Verify::All), Err(Malformed::TcpHeader));
    }

    #[test]
    fn a_segment_to_a_group_is_a_martian_and_other_datagrams_to_one_are_nothing_to_us() {
        for group in [224, 239, 255] {
            let mut frame = changed(hex(HELLO), 30, group);
            if group == 255 {
                frame[31..34].fill(255);
                frame = changed(frame, 30, group);
            }
            assert_eq!(parse(&frame, Verify::All), Err(Malformed::Martian));
            for protocol in [PROTOCOL_ICMP, ipv4::PROTOCOL_UDP] {
                let frame = changed(frame.clone(), 23, protocol);
                assert_eq!(parse(&frame, Verify::All).unwrap().body, Body::Other);
            }
        }
    }

    #[test]
    fn other_ether_types_are_well_formed_and_nothing_to_us() {
        for ethertype in [[0x88, 0xa8], [0x00, 0x40], [0x81, 0x00]] {
            let mut frame = vec![0; 12];
            frame.extend([0x81, 0x00, 0x00, 0x05]);
            frame.extend(ethertype);
            let packet = parse(&frame, Verify::All).unwrap();
            assert_eq!((packet.ethernet.vlan, packet.body), (Some(5), Body::Other));
        }
    }

    #[test]
    fn over_ipv6_every_truncation_and_every_flipped_bit_is_noticed_too() {
        let (ethernet, segment) = tcp_of(&hex(HELLO));
        let ethernet = ethernet::Header { ethertype: ETHERTYPE_IPV6, ..ethernet };
        let (src, dst) = ([0x20; 16].into(), [0x3f; 16].into());
        let segment = Segment { src, dst, payload_at: 86, ..segment };
        let frame = framed(&ethernet, &segment, b"hello");
        assert_eq!(tcp_of(&frame), (ethernet, segment));
        for cut in 0..frame.len() {
            let reason = if cut < 54 { Malformed::Truncated } else { Malformed::IpLength };
            assert_eq!(parse(&frame[..cut], Verify::All), Err(reason), "cut to {cut}");
        }
        // The traffic class, the flow label and the hop limit have no checksum; a next header that
        // is another makes another datagram of it.
        let covered =
            (14 * 8..frame.len() * 8).filter(|bit| ![14, 15, 16, 17, 20, 21].contains(&(bit / 8)));
        for bit in covered {
            let mut bad = frame.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(parse(&bad, Verify::All).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_segment_over_ipv6_to_a_group_or_from_nobody_is_a_martian() {
        let (ethernet, segment) = tcp_of(&hex(HELLO));
        let ethernet = ethernet::Header { ethertype: ETHERTYPE_IPV6, ..ethernet };
        let (one, group) = ([0x20; 16].into(), [0xff; 16].into());
        for (src, dst) in [(one, group), ([0; 16].into(), one)] {
            let frame = framed(&ethernet, &Segment { src, dst, ..segment }, b"hello");
            assert_eq!(parse(&frame, Verify::All), Err(Malformed::Martian));
        }
    }

    #[test]
    #[should_panic(expected = "frame.len()")]
    fn lengths_that_disagree_are_a_bug_of_the_caller() {
        let (ethernet, segment) = tcp_of(&hex(HELLO));
        emit(&mut [0; 70], &ethernet, &segment, 0, 64);
    }

    /// Two hosts of one family.
    fn any_hosts() -> impl Strategy<Value = (IpAddr, IpAddr)> {
        let four = || (1u8..127, any::<[u8; 3]>()).prop_map(|(a, [b, c, d])| [a, b, c, d].into());
        let six =
            || any::<u128>().prop_map(|bits| Ipv6Addr::from_bits(bits >> 8 | 0x20 << 120).into());
        prop_oneof![(four(), four()), (six(), six())]
    }

    prop_compose! {
        fn any_segment()(
            (src, dst) in any_hosts(), src_port in 1u16.., dst_port in 1u16..,
            seq: u32, ack: u32, flags: u8, window: u16, urgent: u16, tos: u8,
            options in any_options(),
        ) -> Segment {
            let flags = Flags(flags);
            Segment {
                src, dst, src_port, dst_port, seq, ack, flags, window, urgent, tos, options,
                payload_at: 0, payload_len: 0,
            }
        }
    }

    proptest! {
        /// One read in one go, one step by step: of sound frames, and of frames with bytes changed,
        /// cut or added, checksums mended or not.
        #[test]
        fn what_is_plain_is_what_the_general_reading_says(
            options in any_options(), payload in prop::collection::vec(any::<u8>(), 0..90),
            ports: [u16; 2], flags: u8, tail in 0usize..4, cut in prop::option::of(0usize..140),
            change in prop::option::of((0usize..140, any::<u8>())), mend: bool, not_tcp: bool,
        ) {
            let (ethernet, mut segment) = tcp_of(&hex(HELLO));
            (segment.options, segment.flags) = (options, Flags(flags));
            [segment.src_port, segment.dst_port] = ports;
            segment.payload_len = payload.len() as u16;
            let mut frame = framed(&ethernet, &segment, &payload);
            if let Some((at, byte)) = change {
                let at = at % frame.len();
                if mend && at >= 14 && frame[14] == 0x45 {
                    frame = changed(frame, at, byte);
                } else {
                    frame[at] = byte;
                }
            }
            frame.extend(vec![0x55; tail]);
            frame.truncate(cut.unwrap_or(usize::MAX));
            let verify = if not_tcp { Verify::NotTcp } else { Verify::All };
            prop_assert_eq!(parse(&frame, verify), parse_any(&frame, verify));
        }

        #[test]
        fn noise_is_read_alike(bytes in prop::collection::vec(any::<u8>(), 0..120)) {
            let mut frame = hex(HELLO)[..34].to_vec();
            frame.extend(bytes);
            prop_assert_eq!(parse(&frame, Verify::NotTcp), parse_any(&frame, Verify::NotTcp));
        }
    }

    proptest! {
        #[test]
        fn a_segment_comes_back_as_it_went(
            mut segment in any_segment(), vlan in prop::option::of(1u16..0x1000),
            payload in prop::collection::vec(any::<u8>(), 0..1461), padding in 0usize..8,
        ) {
            let (dst, src) = (Mac([2; 6]), Mac([4; 6]));
            let ethertype = segment.family().ethertype();
            let ethernet = ethernet::Header { dst, src, vlan, ethertype };
            let family = segment.family();
            segment.payload_at = header_len(vlan.is_some(), family, &segment.options) as u16;
            segment.payload_len = payload.len() as u16;
            let mut frame = framed(&ethernet, &segment, &payload);
            frame.resize(frame.len() + padding, 0x55);
            prop_assert_eq!(tcp_of(&frame), (ethernet, segment));
            prop_assert_eq!(&frame[usize::from(segment.payload_at)..][..payload.len()], payload);
        }

        #[test]
        fn what_a_device_sums_ends_up_as_what_we_sum(
            mut segment in any_segment(), vlan in prop::option::of(1u16..0x1000),
            payload in prop::collection::vec(any::<u8>(), 0..1461),
        ) {
            let (dst, src) = (Mac([2; 6]), Mac([4; 6]));
            let ethertype = segment.family().ethertype();
            let ethernet = ethernet::Header { dst, src, vlan, ethertype };
            segment.payload_len = payload.len() as u16;
            let whole = framed(&ethernet, &segment, &payload);
            let mut frame = vec![0xaa; whole.len() - payload.len()];
            frame.extend(&payload);
            let at = emit_unsummed(&mut frame, &ethernet, &segment, 7, 64);
            // The device knows of no pseudo-header, whose sum stands in the field.
            let sum = checksum::finish(checksum::sum(&frame[at..]));
            frame[at + tcp::CHECKSUM_AT..][..2].copy_from_slice(&sum.to_be_bytes());
            prop_assert_eq!(frame, whole);
        }

        #[test]
        fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..120)) {
            let _ = parse(&bytes, Verify::All);
        }

        #[test]
        fn a_real_frame_with_random_damage_and_mended_checksums_never_panics(
            damage in prop::collection::vec((14usize..71, any::<u8>()), 1..6), cut in 54usize..72,
        ) {
            let mut frame = hex(HELLO);
            for (at, byte) in damage {
                frame = changed(frame, at, byte);
            }
            frame.truncate(cut);
            for verify in [Verify::All, Verify::NotTcp] {
                if let Ok(Packet { body: Body::Tcp(segment), .. }) = parse(&frame, verify) {
                    let end = usize::from(segment.payload_at) + usize::from(segment.payload_len);
                    prop_assert!(end <= frame.len());
                }
            }
        }
    }
}
