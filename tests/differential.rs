//! Our wire layer against others': etherparse finds the headers, smoltcp reads the options, and on
//! every frame they and we say the same: what is wrong with it, or every field of its segment.
//! Where we differ by intent, `judge` says why. Seeded; a failure prints the frame.

use etherparse::checksum::Sum16BitWords;
use etherparse::{
    Ethernet2HeaderSlice, IpNumber, Ipv4HeaderSlice, Ipv6Extensions, Ipv6HeaderSlice,
    PacketBuilder, SingleVlanHeaderSlice, TcpOptionElement, TcpSlice,
};
use shakedown::rng::Rng;
use shakedown::wire::Malformed;
use shakedown::wire::ethernet::{Header, Mac};
use shakedown::wire::options::Options;
use shakedown::wire::segment::{self, Body, Segment, Verify};
use shakedown::wire::tcp::Flags;
use smoltcp::wire::TcpOption;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const FRAMES: u32 = 300_000;

/// What a frame is.
#[derive(Clone, Debug, PartialEq)]
enum Verdict {
    Refused(Malformed),
    Tcp(Box<(Option<u16>, Segment)>),
    /// Not compared further: no TCP.
    Other,
}

use Verdict::{Other, Refused};

fn ours(frame: &[u8]) -> Verdict {
    match segment::parse(frame, Verify::All) {
        Err(why) => Refused(why),
        Ok(packet) => match packet.body {
            Body::Tcp(segment) => Verdict::Tcp(Box::new((packet.ethernet.vlan, segment))),
            _ => Other,
        },
    }
}

/// What the others make of a frame, with our policy on top where a parser has none: checksums,
/// fragments, martians and port 0 are not theirs to refuse. One tag alone is taken off (they would
/// take three, and 802.1ad's).
fn judge(frame: &[u8]) -> Verdict {
    let Ok(ethernet) = Ethernet2HeaderSlice::from_slice(frame) else {
        return Refused(Malformed::Truncated);
    };
    let (mut at, mut ethertype, mut vlan) = (14, ethernet.ether_type().0, None);
    if ethertype == 0x8100 {
        let Ok(tag) = SingleVlanHeaderSlice::from_slice(&frame[at..]) else {
            return Refused(Malformed::Truncated);
        };
        let id = tag.vlan_identifier().value();
        // A priority tag is none (IEEE 802.1Q s9.6).
        vlan = (id != 0).then_some(id);
        (at, ethertype) = (18, tag.ether_type().0);
    }
    match ethertype {
        0x0800 => judge_v4(frame, at, vlan),
        0x86dd => judge_v6(frame, at, vlan),
        // ARP is not theirs; ours are its unit tests'.
        _ => Other,
    }
}

fn judge_v4(frame: &[u8], at: usize, vlan: Option<u16>) -> Verdict {
    let datagram = &frame[at..];
    if datagram.len() < 20 {
        return Refused(Malformed::Truncated);
    }
    let header = match Ipv4HeaderSlice::from_slice(datagram) {
        Ok(header) => header,
        Err(etherparse::err::ipv4::HeaderSliceError::Content(_)) => {
            return Refused(Malformed::IpHeader);
        }
        Err(etherparse::err::ipv4::HeaderSliceError::Len(_)) => {
            return Refused(Malformed::IpLength);
        }
    };
    let header_len = header.slice().len();
    let payload = match header.payload_len() {
        Ok(len) => datagram.get(header_len..header_len + usize::from(len)),
        Err(_) => None,
    };
    let Some(payload) = payload else { return Refused(Malformed::IpLength) };
    if Sum16BitWords::new().add_slice(header.slice()).ones_complement() != 0 {
        return Refused(Malformed::IpChecksum);
    }
    if header.is_fragmenting_payload() {
        return Refused(Malformed::Fragment);
    }
    let (src, dst) = (header.source_addr(), header.destination_addr());
    let nowhere = |ip: Ipv4Addr| ip.octets()[0] == 0 || ip.is_loopback();
    let from_group = src.octets()[0] >= 224;
    let class_e = dst.octets()[0] >= 240 && !dst.is_broadcast();
    if nowhere(src) || nowhere(dst) || from_group || class_e {
        return Refused(Malformed::Martian);
    }
    let to_group = dst.octets()[0] >= 224;
    match header.protocol() {
        IpNumber::TCP if to_group => Refused(Malformed::Martian),
        IpNumber::TCP => {
            let sum = Sum16BitWords::new().add_4bytes(src.octets()).add_4bytes(dst.octets());
            let tos = header.dcp().value() << 2 | header.ecn().value();
            judge_tcp(payload, at + header_len, vlan, (src.into(), dst.into(), tos), sum)
        }
        IpNumber::ICMP if !to_group && !sound_icmp(payload) => Refused(Malformed::Icmp),
        _ => Other,
    }
}

fn sound_icmp(message: &[u8]) -> bool {
    message.len() >= 8 && Sum16BitWords::new().add_slice(message).ones_complement() == 0
}

fn judge_v6(frame: &[u8], at: usize, vlan: Option<u16>) -> Verdict {
    let datagram = &frame[at..];
    let header = match Ipv6HeaderSlice::from_slice(datagram) {
        Ok(header) => header,
        Err(etherparse::err::ipv6::HeaderSliceError::Content(_)) => {
            return Refused(Malformed::IpHeader);
        }
        Err(etherparse::err::ipv6::HeaderSliceError::Len(_)) => {
            return Refused(Malformed::Truncated);
        }
    };
    let Some(rest) = datagram.get(40..40 + usize::from(header.payload_length())) else {
        return Refused(Malformed::IpLength);
    };
    let (src, dst) = (header.source_addr(), header.destination_addr());
    let mapped = |ip: Ipv6Addr| ip.to_ipv4_mapped().is_some();
    let liar = src.is_multicast() || src.is_loopback() || mapped(src);
    if liar || dst.is_unspecified() || dst.is_loopback() || mapped(dst) {
        return Refused(Malformed::Martian);
    }
    let walk = Ipv6Extensions::from_slice(header.next_header(), rest);
    let Ok((extensions, IpNumber::TCP, payload)) = walk else { return Other };
    if extensions.is_fragmenting_payload() {
        return Other;
    }
    if src.is_unspecified() || dst.is_multicast() {
        return Refused(Malformed::Martian);
    }
    let sum = Sum16BitWords::new().add_16bytes(src.octets()).add_16bytes(dst.octets());
    let tcp_at = at + 40 + rest.len() - payload.len();
    judge_tcp(payload, tcp_at, vlan, (src.into(), dst.into(), header.traffic_class()), sum)
}

fn judge_tcp(
    bytes: &[u8],
    at: usize,
    vlan: Option<u16>,
    (src, dst, tos): (IpAddr, IpAddr, u8),
    addresses: Sum16BitWords,
) -> Verdict {
    let Ok(tcp) = TcpSlice::from_slice(bytes) else { return Refused(Malformed::TcpHeader) };
    let len = (bytes.len() as u16).to_be_bytes();
    let sum = addresses.add_2bytes([0, 6]).add_2bytes(len).add_slice(bytes);
    if sum.ones_complement() != 0 {
        return Refused(Malformed::TcpChecksum);
    }
    if tcp.source_port() == 0 || tcp.destination_port() == 0 {
        return Refused(Malformed::TcpPort);
    }
    let Some(options) = judge_options(tcp.options()) else {
        return Refused(Malformed::TcpOption);
    };
    let bits =
        [tcp.fin(), tcp.syn(), tcp.rst(), tcp.psh(), tcp.ack(), tcp.urg(), tcp.ece(), tcp.cwr()];
    let flags = bits.iter().rev().fold(0, |flags, &bit| flags << 1 | u8::from(bit));
    Verdict::Tcp(Box::new((
        vlan,
        Segment {
            src,
            dst,
            src_port: tcp.source_port(),
            dst_port: tcp.destination_port(),
            seq: tcp.sequence_number(),
            ack: tcp.acknowledgment_number(),
            flags: Flags(flags),
            window: tcp.window_size(),
            urgent: tcp.urgent_pointer(),
            tos,
            options,
            payload_at: (at + tcp.header_slice().len()) as u16,
            payload_len: tcp.payload().len() as u16,
        },
    )))
}

/// smoltcp's reading, one option at a time. It refuses an option that it knows with a length that
/// is not its own; RFC 9293 s3.2 lets us skip it, as Linux does. It does not know the user timeout,
/// and reads three SACK blocks of four: both are read here.
fn judge_options(mut bytes: &[u8]) -> Option<Options> {
    let mut options = Options::default();
    while !bytes.is_empty() {
        let len = match *bytes {
            [0, ..] => return Some(options),
            [1, ..] => 1,
            [_, len, ..] if len >= 2 && usize::from(len) <= bytes.len() => usize::from(len),
            _ => {
                assert!(TcpOption::parse(bytes).is_err(), "{bytes:?}");
                return None;
            }
        };
        let (option, rest) = bytes.split_at(len);
        match TcpOption::parse(option) {
            Ok((_, TcpOption::MaxSegmentSize(mss))) => options.mss = Some(mss),
            Ok((_, TcpOption::WindowScale(_))) => options.window_scale = Some(option[2]),
            Ok((_, TcpOption::SackPermitted)) => options.sack_permitted = true,
            Ok((_, TcpOption::TimeStamp { tsval, tsecr })) => {
                options.timestamps = Some((tsval, tsecr));
            }
            Ok((_, TcpOption::SackRange(_))) => options.sack = blocks(&option[2..]),
            Ok((_, TcpOption::Unknown { kind: 28, data: &[a, b] })) => {
                options.user_timeout = Some(u16::from_be_bytes([a, b]));
            }
            Ok(_) | Err(_) => {}
        }
        bytes = rest;
    }
    Some(options)
}

fn blocks(edges: &[u8]) -> shakedown::wire::options::Sack {
    let mut sack = shakedown::wire::options::Sack::default();
    let edge = |at: usize| u32::from_be_bytes(std::array::from_fn(|i| edges[at + i]));
    (0..edges.len() / 8).for_each(|n| assert!(sack.push(edge(8 * n), edge(8 * n + 4))));
    sack
}

/// A difference that is meant: of what stands behind IPv6's extension headers we refuse or answer
/// what their walk passes over (options that say to drop, RFC 8200 s4.2; routing with segments
/// left, s4.4; a chain of more than five), and pass over what theirs stops at.
fn is_meant(frame: &[u8], ours: &Verdict, theirs: &Verdict) -> bool {
    let at = if frame[12..14] == [0x81, 0] { 18 } else { 14 };
    let v6 = frame[at - 2..at] == [0x86, 0xdd];
    let extended = v6 && frame.len() > at + 6 && [0, 43, 44, 51, 60, 135].contains(&frame[at + 6]);
    let read_alike = matches!((ours, theirs), (Verdict::Tcp(_), Verdict::Tcp(_)));
    // Neighbor discovery and ICMPv6, ARP: none of theirs.
    let unread = matches!(
        ours,
        Refused(Malformed::Icmp | Malformed::Ndp | Malformed::Martian | Malformed::Arp)
    ) && *theirs == Other;
    let arp = frame[at - 2..at] == [8, 6] && *theirs == Other;
    (extended && !read_alike) || (v6 && unread) || arp
}

#[test]
fn every_frame_is_the_same_to_us_and_to_others() {
    let mut rng = Rng::new(7);
    let mut met: BTreeMap<String, u32> = BTreeMap::new();
    for _ in 0..FRAMES {
        let frame = any_frame(&mut rng);
        let (ours, theirs) = (ours(&frame), judge(&frame));
        let meant = ours != theirs && frame.len() >= 18 && is_meant(&frame, &ours, &theirs);
        assert!(ours == theirs || meant, "{frame:02x?}\nours {ours:?}\ntheirs {theirs:?}");
        let name = match ours {
            Refused(why) => format!("{why:?}"),
            Verdict::Tcp(_) => "Tcp".to_owned(),
            Other => "Other".to_owned(),
        };
        *met.entry(name).or_default() += 1;
        *met.entry(if meant { "meant" } else { "equal" }.to_owned()).or_default() += 1;
    }
    let names = [
        "Truncated",
        "IpHeader",
        "IpLength",
        "IpChecksum",
        "IpExtension",
        "Fragment",
        "Martian",
        "TcpHeader",
        "TcpChecksum",
        "TcpOption",
        "TcpPort",
        "Tcp",
        "Other",
        "Icmp",
        "equal",
    ];
    for name in names {
        assert!(met.get(name).is_some_and(|&count| count >= 100), "{name} is rare: {met:?}");
    }
    assert!(met["meant"] * 20 < FRAMES, "too many differ: {met:?}");
}

fn any_segment(rng: &mut Rng) -> Segment {
    let v4 = |rng: &mut Rng| Ipv4Addr::from(0x0a00_0000 | rng.next() as u32 & 0xff_ffff);
    let v6 = |rng: &mut Rng| Ipv6Addr::from_bits(0xfd00 << 112 | u128::from(rng.next()));
    let (src, dst): (IpAddr, IpAddr) = match rng.chance(0.5) {
        true => (v4(rng).into(), v4(rng).into()),
        false => (v6(rng).into(), v6(rng).into()),
    };
    let mut options = Options {
        mss: rng.chance(0.4).then(|| rng.next() as u16),
        window_scale: rng.chance(0.4).then(|| rng.next() as u8),
        timestamps: rng.chance(0.4).then(|| (rng.next() as u32, rng.next() as u32)),
        sack_permitted: rng.chance(0.3),
        ..Options::default()
    };
    if rng.chance(0.2) {
        options.sack.push(rng.next() as u32, rng.next() as u32);
    }
    Segment {
        src,
        dst,
        src_port: 1 + rng.below(65_535) as u16,
        dst_port: 1 + rng.below(65_535) as u16,
        seq: rng.next() as u32,
        ack: rng.next() as u32,
        flags: Flags(rng.next() as u8),
        window: rng.next() as u16,
        urgent: rng.next() as u16,
        tos: rng.next() as u8,
        options,
        payload_len: rng.below(40) as u16,
        ..Segment::BLANK
    }
}

fn written(segment: &Segment, vlan: Option<u16>, rng: &mut Rng) -> Vec<u8> {
    let at = segment::header_len(vlan.is_some(), segment.family(), &segment.options);
    let mut frame = vec![0; at + usize::from(segment.payload_len)];
    frame[at..].iter_mut().for_each(|byte| *byte = rng.next() as u8);
    let ethertype = segment.family().ethertype();
    let (dst, src) = (Mac([2, 0, 0, 0, 0, 2]), Mac([2, 0, 0, 0, 0, 1]));
    segment::emit(
        &mut frame,
        &Header { dst, src, vlan, ethertype },
        segment,
        rng.next() as u16,
        64,
    );
    frame
}

fn any_vlan(rng: &mut Rng) -> Option<u16> {
    rng.chance(0.2).then(|| 1 + rng.below(4_094) as u16)
}

/// Sound, or nearly: bits and fields changed, cut, padded; then most checksums put right, so that
/// what stands behind them is reached.
fn any_frame(rng: &mut Rng) -> Vec<u8> {
    if rng.chance(0.02) {
        return (0..rng.below(120)).map(|_| rng.next() as u8).collect();
    }
    let (segment, vlan) = (any_segment(rng), any_vlan(rng));
    let mut frame = written(&segment, vlan, rng);
    let at = if vlan.is_some() { 18 } else { 14 };
    if segment.src.is_ipv6() && rng.chance(0.1) {
        extend(&mut frame, at, rng);
    }
    for _ in 0..rng.below(3) {
        mutate(&mut frame, at, rng);
    }
    if rng.chance(0.8) {
        seal(&mut frame, at);
    }
    frame
}

fn extend(frame: &mut Vec<u8>, at: usize, rng: &mut Rng) {
    let mut header = [6, 0, 1, 4, 0, 0, 0, 0];
    if rng.chance(0.5) {
        header[rng.below(8) as usize] = rng.next() as u8;
    }
    frame.splice(at + 40..at + 40, header);
    frame[at + 6] = [0, 43, 44, 60][rng.below(4) as usize];
    let len = (frame.len() - at - 40) as u16;
    frame[at + 4..at + 6].copy_from_slice(&len.to_be_bytes());
}

fn mutate(frame: &mut Vec<u8>, at: usize, rng: &mut Rng) {
    if frame.len() <= at + 20 {
        return;
    }
    let last = frame.len() as u64 - 1;
    let tcp = if frame[at] >> 4 == 6 { at + 40 } else { at + 20 };
    let mut put = |place: usize, byte: u8| {
        if let Some(old) = frame.get_mut(place) {
            *old = byte;
        }
    };
    match rng.below(12) {
        0 => put(rng.below(last) as usize, rng.next() as u8),
        1 => put(at + rng.below(20) as usize, rng.next() as u8),
        2 => put(tcp + rng.below(20) as usize, rng.next() as u8),
        3 => put(tcp + 12, (rng.below(16) as u8) << 4),
        4 => {
            let port = tcp + 2 * rng.below(2) as usize;
            (0..2).for_each(|n| put(port + n, 0));
        }
        5 => put(tcp + 20 + rng.below(12) as usize, rng.below(32) as u8),
        6 => put(at, [0x44, 0x45, 0x46, 0x4f, 0x60, 0x55][rng.below(6) as usize]),
        7 => put(at + 6, [0x20, 0x40, 0x80, 0x1f][rng.below(4) as usize]),
        8 => put(at + 12, [0, 127, 224, 240, 255][rng.below(5) as usize]),
        9 => put(at + 9, [1, 17, 58, 51][rng.below(4) as usize]),
        10 => frame.truncate(rng.below(last) as usize),
        _ => frame.resize(frame.len() + rng.below(30) as usize, 0xaa),
    }
}

/// Puts the checksums right that the lengths let one find, with the others' arithmetic.
fn seal(frame: &mut [u8], at: usize) {
    if frame.len() < at + 20 {
        return;
    }
    let v4 = frame[at] >> 4 == 4;
    let header = if v4 { usize::from(frame[at] & 15) * 4 } else { 40 };
    if header < 20 || frame.len() < at + header {
        return;
    }
    let word = |at: usize| usize::from(u16::from_be_bytes([frame[at], frame[at + 1]]));
    let end = at + if v4 { word(at + 2) } else { 40 + word(at + 4) };
    let addresses = if v4 { at + 12..at + 20 } else { at + 8..at + 40 };
    if v4 {
        put_sum(&mut frame[at..at + header], 10, Sum16BitWords::new());
    }
    if end <= frame.len() && end >= at + header + 20 {
        let len = (end - at - header) as u16;
        let pseudo = Sum16BitWords::new().add_slice(&frame[addresses]);
        let pseudo = pseudo.add_2bytes([0, 6]).add_2bytes(len.to_be_bytes());
        put_sum(&mut frame[at + header..end], 16, pseudo);
    }
}

fn put_sum(bytes: &mut [u8], at: usize, pseudo: Sum16BitWords) {
    bytes[at..at + 2].fill(0);
    let sum = pseudo.add_slice(bytes).ones_complement();
    // Already in the order of the wire.
    bytes[at..at + 2].copy_from_slice(&sum.to_ne_bytes());
}

#[test]
fn others_read_what_we_write() {
    let mut rng = Rng::new(8);
    for _ in 0..20_000 {
        let (segment, vlan) = (any_segment(&mut rng), any_vlan(&mut rng));
        let family = segment.family();
        let header_len = segment::header_len(vlan.is_some(), family, &segment.options);
        if header_len - segment::header_len(vlan.is_some(), family, &Options::default()) > 40 {
            continue;
        }
        let frame = written(&segment, vlan, &mut rng);
        let expected = Segment { payload_at: header_len as u16, ..segment };
        assert_eq!(judge(&frame), Verdict::Tcp(Box::new((vlan, expected))));
    }
}

#[test]
fn we_read_what_others_write() {
    let mut rng = Rng::new(9);
    for _ in 0..20_000 {
        let Segment { src_port, dst_port, seq, ack, window, .. } = any_segment(&mut rng);
        let (value, echo) = (rng.next() as u32, rng.next() as u32);
        let builder = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
        let tcp = match rng.chance(0.5) {
            true => builder.ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64),
            false => builder.ipv6([0xfd; 16], [0xfc; 16], 64),
        };
        let options = [
            TcpOptionElement::MaximumSegmentSize(window),
            TcpOptionElement::Noop,
            TcpOptionElement::WindowScale(seq as u8),
            TcpOptionElement::SelectiveAcknowledgementPermitted,
            TcpOptionElement::Timestamp(value, echo),
        ];
        let tcp = tcp.tcp(src_port, dst_port, seq, window).syn().ack(ack);
        let tcp = tcp.options(&options).expect("they fit");
        let payload: Vec<u8> = (0..rng.below(50)).map(|_| rng.next() as u8).collect();
        let mut frame = Vec::new();
        tcp.write(&mut frame, &payload).expect("a vector takes all");
        let Ok(Body::Tcp(read)) = segment::parse(&frame, Verify::All).map(|packet| packet.body)
        else {
            panic!("{frame:02x?}");
        };
        let known = Options {
            mss: Some(window),
            window_scale: Some(seq as u8),
            sack_permitted: true,
            timestamps: Some((value, echo)),
            ..Options::default()
        };
        assert_eq!((read.src_port, read.dst_port), (src_port, dst_port));
        assert_eq!((read.seq, read.ack, read.window), (seq, ack, window));
        assert_eq!((read.flags, read.options), (Flags::SYN | Flags::ACK, known));
        assert_eq!(&frame[usize::from(read.payload_at)..], payload);
    }
}
