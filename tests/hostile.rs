//! Malformed and odd frames, one by one: what is counted, and what comes back. Every counter that
//! moves is named, so none is dropped in silence; src/HOSTILE.md says the same in prose.

mod common;

use common::hostile::*;
use shakedown::tcp::State;
use shakedown::wire::arp;
use shakedown::wire::ethernet::Mac;
use shakedown::wire::ndp::{self, Message};
use shakedown::wire::options::Options;
use shakedown::wire::tcp::Flags;
use std::net::{Ipv4Addr, Ipv6Addr};

/// What may come back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reply {
    Nothing,
    SynAck,
    Rst,
    Icmp,
    Arp,
    Advertisement,
}

use Reply::*;

/// A frame to a fresh server that listens at port 80, the counters that it moves, and the answer.
struct Case(&'static str, Vec<u8>, &'static [&'static str], Reply);

/// The frames of one concern.
fn hold(cases: Vec<Case>) {
    let mut wrong = Vec::new();
    for Case(name, frame, counters, reply) in cases {
        let mut host = Host::new();
        let (moved, replies) = host.give(&frame);
        let found = match replies.as_slice() {
            [] => Nothing,
            [only] => kind(only),
            more => panic!("{name}: {} answers to one frame", more.len()),
        };
        if moved != counters || found != reply {
            wrong.push(format!("{name}: {moved:?} {found:?}, not {counters:?} {reply:?}"));
        }
        for answer in replies {
            let larger = answer.len().saturating_sub(frame.len());
            assert!(larger <= allowance(reply), "{name}: {larger} bytes more than came");
        }
        host.engine.check();
    }
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}

/// Bytes by which an answer may outgrow what provoked it, and who says so.
fn allowance(reply: Reply) -> usize {
    match reply {
        Nothing | Rst | Arp => 0,
        // Options that we must or should offer: MSS (RFC 9293 MUST-14).
        SynAck => 4,
        // IPv6 and ICMPv6 headers before the quote (RFC 4443 s2.4 c); IPv4's are smaller.
        Icmp => 48,
        // The target's MAC address, where the question had no option (RFC 4861 s7.2.4).
        Advertisement => 8,
    }
}

fn kind(frame: &[u8]) -> Reply {
    match (frame[12], frame[13]) {
        (8, 6) => Arp,
        (8, 0) if frame[23] == 1 => Icmp,
        (0x86, 0xdd) if frame[20] == 58 && frame[54] == 136 => Advertisement,
        (0x86, 0xdd) if frame[20] == 58 => Icmp,
        (family, _) => {
            let flags = Flags(frame[if family == 8 { 47 } else { 67 }]);
            match flags.has(Flags::RST) {
                true => Rst,
                false if flags == Flags::SYN | Flags::ACK => SynAck,
                false => panic!("{flags}"),
            }
        }
    }
}

const SEGS: &str = "InSegs";
const OPENED: &[&str] = &["PassiveOpens", SEGS, "OutSegs"];
const RESET: &[&str] = &[SEGS, "OutSegs", "OutRsts"];
const UNSPOKEN: &[&str] = &["rx_not_ours_total"];
const TRUNCATED: &[&str] = &["rx_truncated_total"];
const IP_HEADER: &[&str] = &["rx_ip_header_total"];
const IP_LENGTH: &[&str] = &["rx_ip_length_total"];
const IP_CHECKSUM: &[&str] = &["rx_ip_checksum_total"];
const EXTENSION: &[&str] = &["rx_ip_extension_total"];
const FRAGMENT: &[&str] = &["rx_fragment_total"];
const MARTIAN: &[&str] = &["rx_martian_total"];
const MARTIAN_TCP: &[&str] = &[SEGS, "rx_martian_total"];
const TCP_HEADER: &[&str] = &[SEGS, "InErrs", "rx_tcp_header_total"];
const TCP_CHECKSUM: &[&str] = &[SEGS, "InErrs", "rx_tcp_checksum_total"];
const TCP_OPTION: &[&str] = &[SEGS, "InErrs", "rx_tcp_option_total"];
const TCP_PORT: &[&str] = &[SEGS, "InErrs", "rx_tcp_port_total"];
const DROPPED: &[&str] = &[SEGS, "rx_tcp_dropped_total"];
const ARP_BAD: &[&str] = &["rx_arp_malformed_total"];
const ICMP_BAD: &[&str] = &["rx_icmp_malformed_total"];
const ICMP_IGNORED: &[&str] = &["rx_icmp_ignored_total"];
const NDP_BAD: &[&str] = &["rx_ndp_malformed_total"];
const ELSEWHERE: &[&str] = &["rx_not_ours_total"];
const CONFLICT: &[&str] = &["address_conflicts_total"];
const NEWS: &[&str] = &[];

#[test]
fn ethernet_and_its_tags() {
    let whole = syn(|_| ());
    hold(vec![
        Case("nothing", vec![], TRUNCATED, Nothing),
        Case("half an Ethernet header", whole[..13].to_vec(), TRUNCATED, Nothing),
        Case("an Ethernet header alone", whole[..14].to_vec(), TRUNCATED, Nothing),
        Case("half an IP header", whole[..30].to_vec(), TRUNCATED, Nothing),
        Case("padding to 60 bytes", padded(&whole, 60, 0), OPENED, SynAck),
        Case("trailing bytes are no text", padded(&whole, 1514, 0xee), OPENED, SynAck),
        Case("from a group's MAC", at(&whole, 6, &[0xff; 6]), MARTIAN, Nothing),
        Case("from a multicast MAC", at(&whole, 6, &[1, 0, 0x5e, 0, 0, 1]), MARTIAN, Nothing),
        Case("to everyone's MAC", at(&whole, 0, &[0xff; 6]), ELSEWHERE, Nothing),
        Case("to another MAC", at(&whole, 5, &[9]), ELSEWHERE, Nothing),
        Case("an 802.3 length", at(&whole, 12, &[0, 46]), ELSEWHERE, Nothing),
        Case("jumbo EtherType", at(&whole, 12, &[0x88, 0x70]), ELSEWHERE, Nothing),
        Case(
            "a tag cut off",
            tagged(&whole, &[[0x81, 0, 0, 7]])[..16].to_vec(),
            TRUNCATED,
            Nothing,
        ),
        Case("a tag of no link of ours", tagged(&whole, &[[0x81, 0, 0, 7]]), ELSEWHERE, Nothing),
        Case("a priority tag is no tag", tagged(&whole, &[[0x81, 0, 0xe0, 0]]), OPENED, SynAck),
        Case("VLAN 4095, reserved", tagged(&whole, &[[0x81, 0, 0x0f, 0xff]]), ELSEWHERE, Nothing),
        Case("two tags", tagged(&whole, &[[0x81, 0, 0, 0], [0x81, 0, 0, 0]]), ELSEWHERE, Nothing),
        Case("802.1ad", tagged(&whole, &[[0x88, 0xa8, 0, 7]]), ELSEWHERE, Nothing),
    ]);
}

#[test]
fn ipv4_headers() {
    let whole = syn(|_| ());
    let len = |total: u16| sealed(at(&whole, 16, &total.to_be_bytes()));
    let options = |bytes: &[u8]| with_ip_options(&whole, bytes);
    let protocol = |number: u8| sealed(at(&whole, 23, &[number]));
    hold(vec![
        Case("version 6 in an IPv4 frame", sealed(at(&whole, 14, &[0x65])), IP_HEADER, Nothing),
        Case("header of 4 words", sealed(at(&whole, 14, &[0x44])), IP_HEADER, Nothing),
        Case("header of none", sealed(at(&whole, 14, &[0x40])), IP_HEADER, Nothing),
        Case("header past the packet", at(&whole, 14, &[0x4f]), IP_LENGTH, Nothing),
        Case("total length 0", len(0), IP_LENGTH, Nothing),
        Case("total length below the header", len(19), IP_LENGTH, Nothing),
        Case("total length without TCP", len(20), TCP_HEADER, Nothing),
        Case("total length cuts TCP", len(39), TCP_HEADER, Nothing),
        Case("total length past the frame", len(41), IP_LENGTH, Nothing),
        Case("total length 65535", len(65_535), IP_LENGTH, Nothing),
        Case("checksum", at(&whole, 24, &[0xde, 0xad]), IP_CHECKSUM, Nothing),
        Case("reserved bit", sealed(at(&whole, 20, &[0x80, 0])), OPENED, SynAck),
        Case("TTL 0", sealed(at(&whole, 22, &[0])), OPENED, SynAck),
        Case("first fragment", sealed(at(&whole, 20, &[0x20, 0])), FRAGMENT, Nothing),
        Case("middle fragment", sealed(at(&whole, 20, &[0x20, 2])), FRAGMENT, Nothing),
        Case("last fragment", sealed(at(&whole, 20, &[0, 2])), FRAGMENT, Nothing),
        Case("tiny fragment at 8", sealed(at(&whole, 20, &[0, 1])), FRAGMENT, Nothing),
        Case("fragment past 65535", sealed(at(&whole, 20, &[0x1f, 0xff])), FRAGMENT, Nothing),
        Case("no-operation options", options(&[1, 1, 1, 0]), OPENED, SynAck),
        Case("loose source route", options(&[131, 7, 4, 10, 0, 0, 9, 0]), OPENED, SynAck),
        Case("strict source route", options(&[137, 7, 4, 10, 0, 0, 9, 0]), OPENED, SynAck),
        Case("record route, full size", options(&[7; 40]), OPENED, SynAck),
        Case("an option of length 0", options(&[7, 0, 0, 0]), OPENED, SynAck),
        Case("UDP", protocol(17), UNSPOKEN, Icmp),
        Case("protocol 255", protocol(255), UNSPOKEN, Icmp),
    ]);
}

#[test]
fn ipv4_addresses() {
    let from = |src: [u8; 4]| syn(move |syn| syn.src = Ipv4Addr::from(src).into());
    let to = |dst: [u8; 4]| syn(move |syn| syn.dst = Ipv4Addr::from(dst).into());
    let land = syn(|syn| (syn.src, syn.src_port) = (OURS.into(), 80));
    let closed =
        |src: [u8; 4]| syn(move |syn| (syn.src, syn.dst_port) = (Ipv4Addr::from(src).into(), 81));
    hold(vec![
        Case("LAND", land, MARTIAN_TCP, Nothing),
        Case("from our own address", from([10, 0, 0, 2]), MARTIAN_TCP, Nothing),
        Case("ours, to a closed port", closed([10, 0, 0, 2]), MARTIAN_TCP, Nothing),
        Case("from the subnet's broadcast", from([10, 0, 0, 255]), MARTIAN_TCP, Nothing),
        Case("broadcast, to a closed port", closed([10, 0, 0, 255]), MARTIAN_TCP, Nothing),
        Case("from everyone", from([255; 4]), MARTIAN, Nothing),
        Case("from a group", from([224, 0, 0, 1]), MARTIAN, Nothing),
        Case("from class E", from([240, 0, 0, 1]), MARTIAN, Nothing),
        Case("from loopback", from([127, 0, 0, 1]), MARTIAN, Nothing),
        Case("from nobody", from([0; 4]), MARTIAN, Nothing),
        Case("from this network", from([0, 0, 0, 9]), MARTIAN, Nothing),
        Case("to loopback", to([127, 0, 0, 1]), MARTIAN, Nothing),
        Case("to everyone", to([255; 4]), MARTIAN, Nothing),
        Case("to a group", to([224, 0, 0, 1]), MARTIAN, Nothing),
        Case("to the subnet's broadcast", to([10, 0, 0, 255]), ELSEWHERE, Nothing),
        Case("to another host", to([10, 0, 0, 9]), ELSEWHERE, Nothing),
        Case(
            "UDP from our own address",
            sealed(at(&from([10, 0, 0, 2]), 23, &[17])),
            MARTIAN,
            Nothing,
        ),
        Case("UDP from broadcast", sealed(at(&from([10, 0, 0, 255]), 23, &[17])), MARTIAN, Nothing),
    ]);
}

#[test]
fn ipv6_headers() {
    let whole = syn6(|_| ());
    let chain = |headers: &[(u8, &[u8])]| extended(&whole, headers);
    let pad: &[u8] = &[0, 0, 1, 4, 0, 0, 0, 0];
    let option = |kind: u8| [0, 0, kind, 4, 0, 0, 0, 0];
    let route: &[u8] = &[0, 0, 0, 1, 0, 0, 0, 0];
    let len = |payload: u16| at(&whole, 18, &payload.to_be_bytes());
    hold(vec![
        Case("plain", whole.clone(), OPENED, SynAck),
        Case("half a header", whole[..50].to_vec(), TRUNCATED, Nothing),
        Case("version 4", at(&whole, 14, &[0x40]), IP_HEADER, Nothing),
        Case("length past the frame", len(21), IP_LENGTH, Nothing),
        Case("length cuts TCP", len(19), TCP_HEADER, Nothing),
        Case("length 0, a jumbogram's", len(0), TCP_HEADER, Nothing),
        Case("hop-by-hop", chain(&[(0, pad)]), OPENED, SynAck),
        Case("hop-by-hop not first", chain(&[(60, pad), (0, pad)]), UNSPOKEN, Icmp),
        Case("unknown option, skip", chain(&[(0, &option(0x1e))]), OPENED, SynAck),
        Case("unknown option, drop", chain(&[(0, &option(0x5e))]), EXTENSION, Nothing),
        Case("unknown option, tell", chain(&[(60, &option(0x9e))]), UNSPOKEN, Icmp),
        Case("unknown option, tell one", chain(&[(60, &option(0xde))]), UNSPOKEN, Icmp),
        Case(
            "an option past its header",
            chain(&[(60, &[0, 0, 1, 9, 0, 0, 0, 0])]),
            EXTENSION,
            Nothing,
        ),
        Case(
            "a header past the packet",
            chain(&[(60, &[0, 9, 1, 4, 0, 0, 0, 0])]),
            EXTENSION,
            Nothing,
        ),
        Case("routing, none left", chain(&[(43, &[0; 8])]), OPENED, SynAck),
        Case("routing type 0, one left", chain(&[(43, route)]), UNSPOKEN, Icmp),
        Case("atomic fragment", chain(&[(44, &[0; 8])]), OPENED, SynAck),
        Case("first fragment", chain(&[(44, &[0, 0, 0, 1, 0, 0, 0, 1])]), FRAGMENT, Nothing),
        Case("last fragment", chain(&[(44, &[0, 0, 0, 8, 0, 0, 0, 1])]), FRAGMENT, Nothing),
        Case(
            "a chain of four",
            chain(&[(0, pad), (60, pad), (43, &[0; 8]), (60, pad)]),
            OPENED,
            SynAck,
        ),
        Case("a chain of six", chain(&[(60, pad); 6]), EXTENSION, Nothing),
        Case("a chain of a hundred", chain(&[(60, pad); 100]), EXTENSION, Nothing),
        Case("no next header", at(&whole, 20, &[59]), ELSEWHERE, Nothing),
        Case("unknown next header", at(&whole, 20, &[200]), UNSPOKEN, Icmp),
    ]);
}

#[test]
fn ipv6_addresses() {
    let from = |src: Ipv6Addr| syn6(move |syn| syn.src = src.into());
    let to = |dst: Ipv6Addr| syn6(move |syn| syn.dst = dst.into());
    let all_nodes = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
    let mapped = Ipv4Addr::new(10, 0, 0, 1).to_ipv6_mapped();
    hold(vec![
        Case("LAND", syn6(|s| (s.src, s.src_port) = (OURS6.into(), 80)), MARTIAN_TCP, Nothing),
        Case("from our own address", from(OURS6), MARTIAN_TCP, Nothing),
        Case("from nobody", from(Ipv6Addr::UNSPECIFIED), MARTIAN, Nothing),
        Case("from loopback", from(Ipv6Addr::LOCALHOST), MARTIAN, Nothing),
        Case("from a group", from(all_nodes), MARTIAN, Nothing),
        Case("from an IPv4-mapped one", from(mapped), MARTIAN, Nothing),
        Case("to a group", to(all_nodes), MARTIAN, Nothing),
        Case("to loopback", to(Ipv6Addr::LOCALHOST), MARTIAN, Nothing),
        Case("to nobody", to(Ipv6Addr::UNSPECIFIED), MARTIAN, Nothing),
    ]);
}

#[test]
fn tcp_headers() {
    let whole = syn(|_| ());
    let offset = |words: u8| sealed(at(&whole, 46, &[words << 4]));
    let control = |flags: u8| sealed(at(&whole, 46, &[0x50 | flags >> 4, 2]));
    hold(vec![
        Case("data offset 0", offset(0), TCP_HEADER, Nothing),
        Case("data offset 4", offset(4), TCP_HEADER, Nothing),
        Case("data offset past the end", offset(6), TCP_HEADER, Nothing),
        Case("data offset 15", offset(15), TCP_HEADER, Nothing),
        Case("checksum", at(&whole, 50, &[0xde, 0xad]), TCP_CHECKSUM, Nothing),
        Case("checksum 0", at(&whole, 50, &[0, 0]), TCP_CHECKSUM, Nothing),
        Case("from port 0", syn(|syn| syn.src_port = 0), TCP_PORT, Nothing),
        Case("to port 0", syn(|syn| syn.dst_port = 0), TCP_PORT, Nothing),
        Case("reserved bits", control(0xf0), OPENED, SynAck),
        Case("urgent pointer without URG", syn(|syn| syn.urgent = 9), OPENED, SynAck),
        Case("urgent SYN", syn(|s| s.flags = Flags::SYN | Flags::URG), OPENED, SynAck),
        Case("urgent beyond", urgent(65_535), OPENED, SynAck),
        Case("to a closed port", syn(|syn| syn.dst_port = 81), RESET, Rst),
        Case("window 0", syn(|syn| syn.window = 0), OPENED, SynAck),
    ]);
}

#[test]
fn tcp_options() {
    let options = |bytes: &[u8]| with_tcp_options(bytes);
    let known = |options: Options| syn(move |syn| syn.options = options);
    let mss = |mss: u16| known(Options { mss: Some(mss), ..Options::default() });
    let scale = Options { window_scale: Some(255), ..Options::default() };
    hold(vec![
        Case("length 0", options(&[254, 0, 0, 0]), TCP_OPTION, Nothing),
        Case("length 1", options(&[254, 1, 0, 0]), TCP_OPTION, Nothing),
        Case("length past the end", options(&[254, 5, 0, 0]), TCP_OPTION, Nothing),
        Case("kind without a length", options(&[1, 1, 1, 254]), TCP_OPTION, Nothing),
        Case("MSS of length 0", options(&[2, 0, 5, 0]), TCP_OPTION, Nothing),
        Case("MSS of another length", options(&[2, 3, 5, 0]), OPENED, SynAck),
        Case("unknown", options(&[254, 4, 1, 2]), OPENED, SynAck),
        Case("unaligned", options(&[1, 2, 4, 5, 180, 1, 1, 0]), OPENED, SynAck),
        Case("end, then what would be wrong", options(&[0, 254, 0, 0]), OPENED, SynAck),
        Case("forty bytes of nothing", options(&[1; 40]), OPENED, SynAck),
        Case("one of forty bytes", options(&maximal()), OPENED, SynAck),
        Case("MSS 0", mss(0), OPENED, SynAck),
        Case("MSS 1", mss(1), OPENED, SynAck),
        Case("MSS 65535", mss(65_535), OPENED, SynAck),
        Case("window scale 255", known(scale), OPENED, SynAck),
    ]);
}

/// RFC 9293 s3.10.7.2: what LISTEN makes of the flags, in its order: RST, ACK, SYN.
#[test]
fn every_combination_of_flags_in_listen() {
    for bits in 0..512u16 {
        let flags = Flags(bits as u8);
        let mut segment = blank();
        segment.flags = flags;
        let frame = sealed(at(&frame_of(&segment), 46, &[0x50 | (bits >> 8) as u8]));
        let mut host = Host::new();
        let (moved, replies) = host.give(&frame);
        let (counters, reply) = match (flags.has(Flags::RST), flags.has(Flags::ACK)) {
            (true, _) => (DROPPED, Nothing),
            (false, true) => (RESET, Rst),
            (false, false) if flags.has(Flags::SYN) => (OPENED, SynAck),
            (false, false) => (DROPPED, Nothing),
        };
        let kinds: Vec<Reply> = replies.iter().map(|reply| kind_in_listen(reply)).collect();
        let expected: Vec<Reply> = [reply].into_iter().filter(|&reply| reply != Nothing).collect();
        assert_eq!((moved.as_slice(), kinds), (counters, expected), "{bits:#05x} {flags}");
    }
}

/// An ECN-setup SYN-ACK has ECE too (RFC 3168 s6.1.1).
fn kind_in_listen(frame: &[u8]) -> Reply {
    let flags = Flags(frame[47]);
    if flags == Flags::SYN | Flags::ACK | Flags::ECE { SynAck } else { kind(frame) }
}

/// RFC 9293 s3.10.7.3-4, RFC 5961: in each state, every combination of flags, with and without
/// text, in the window's first place, within it, and outside. At most one answer to a segment;
/// never one to RST but a challenge ACK; never a larger one; the laws hold; something is counted.
#[test]
fn every_combination_of_flags_in_every_state() {
    for state in states() {
        for bits in 0..=255u8 {
            for (offset, len) in [(0, 0), (0, 9), (100, 0), (1 << 30, 0), (1 << 30, 9)] {
                let flags = Flags(bits);
                let mut host = Host::in_state(state);
                assert_eq!(host.state(), state);
                let frame = host.peer_frame(flags, offset, len);
                let (moved, replies) = host.give(&frame);
                let what = format!("{} {flags} {offset} {len}", state.name());
                assert!(replies.len() <= 1, "{what}: {} answers", replies.len());
                // An ACK that is neither SYN nor RST is what a peer sends all day.
                let odd = !flags.has(Flags::ACK) || flags.has(Flags::SYN) || flags.has(Flags::RST);
                let heeded = !replies.is_empty() || host.acted(state);
                assert!(!odd || moved.len() > 1 || heeded, "{what}: {moved:?}");
                for reply in &replies {
                    assert!(reply.len() <= frame.len().max(58), "{what}: {} bytes", reply.len());
                    let answered = Flags(reply[47]);
                    let to_rst = flags.has(Flags::RST) && answered.has(Flags::RST);
                    assert!(!to_rst, "{what}: RST for RST");
                }
                // The blind attacker's segment (RFC 5961): TIME-WAIT alone takes a later SYN.
                let elsewhere = offset == 1 << 30 && state != State::SynSent;
                let reopens = state == State::TimeWait && flags.has(Flags::SYN);
                if elsewhere && !reopens {
                    assert_eq!(host.state(), state, "{what}: nothing out of place ends it");
                }
                host.engine.check();
            }
        }
    }
}

/// Fragments are not kept: a hundred thousand of them leave what there was.
#[test]
fn endless_fragments_leave_nothing() {
    let mut host = Host::new();
    let whole = syn(|_| ());
    for n in 0..100_000u32 {
        let [_, a, b, c] = n.to_be_bytes();
        let fragment = sealed(at(&at(&whole, 18, &[b, c]), 20, &[0x20, a ^ c]));
        let (moved, replies) = host.give(&fragment);
        assert_eq!((moved.as_slice(), replies.len()), (FRAGMENT, 0));
    }
    assert_eq!(host.engine.connections(), 0);
    host.engine.check();
}

#[test]
fn icmp_that_is_of_no_use() {
    let everyone = Ipv4Addr::new(10, 0, 0, 255);
    let ping = icmp(THEIRS, 8, 0);
    hold(vec![
        Case("a ping", ping.clone(), NEWS, Icmp),
        Case("a ping from our own address", icmp(OURS, 8, 0), MARTIAN, Nothing),
        Case("a ping from everyone's", icmp(everyone, 8, 0), MARTIAN, Nothing),
        Case("checksum", at(&ping, 36, &[0xde, 0xad]), ICMP_BAD, Nothing),
        Case("an answer unasked", icmp(THEIRS, 0, 0), ICMP_IGNORED, Nothing),
        Case("unreachable, about nothing", icmp(THEIRS, 3, 3), ICMP_IGNORED, Nothing),
        Case("too big, about nothing", icmp(THEIRS, 3, 4), ICMP_IGNORED, Nothing),
        Case("source quench", icmp(THEIRS, 4, 0), ICMP_IGNORED, Nothing),
        Case("a redirect", icmp(THEIRS, 5, 1), ICMP_IGNORED, Nothing),
        Case("a router advertises itself", icmp(THEIRS, 9, 0), ICMP_IGNORED, Nothing),
        Case("a timestamp request", icmp(THEIRS, 13, 0), ICMP_IGNORED, Nothing),
        Case("type 255", icmp(THEIRS, 255, 255), ICMP_IGNORED, Nothing),
    ]);
}

#[test]
fn arp_that_lies() {
    let ask = |edit: fn(&mut arp::Packet)| {
        let mut packet = arp::Packet::request(THEIR_MAC, THEIRS, OURS);
        edit(&mut packet);
        let mut bytes = vec![0; arp::frame_len(false)];
        packet.emit(None, &mut bytes);
        bytes
    };
    let whole = ask(|_| ());
    hold(vec![
        Case("a question", whole.clone(), NEWS, Arp),
        Case("cut off", whole[..41].to_vec(), TRUNCATED, Nothing),
        Case("another hardware", at(&whole, 15, &[6]), ARP_BAD, Nothing),
        Case("another protocol", at(&whole, 16, &[0x86, 0xdd]), ARP_BAD, Nothing),
        Case("addresses of other lengths", at(&whole, 18, &[8, 16]), ARP_BAD, Nothing),
        Case("operation 0", at(&whole, 21, &[0]), ARP_BAD, Nothing),
        Case("operation 3, RARP", at(&whole, 21, &[3]), ARP_BAD, Nothing),
        Case("from a group's MAC", ask(|p| p.sender_mac = Mac([0xff; 6])), ARP_BAD, Nothing),
        Case("from everyone", ask(|p| p.sender_ip = Ipv4Addr::BROADCAST), ARP_BAD, Nothing),
        Case("from a group", ask(|p| p.sender_ip = [224, 0, 0, 1].into()), ARP_BAD, Nothing),
        Case("from loopback", ask(|p| p.sender_ip = [127, 0, 0, 1].into()), ARP_BAD, Nothing),
        Case("a probe", ask(|p| p.sender_ip = Ipv4Addr::UNSPECIFIED), NEWS, Arp),
        Case("somebody has our address", ask(|p| p.sender_ip = OURS), CONFLICT, Nothing),
        Case("a gratuitous one", ask(|p| p.target_ip = THEIRS), ELSEWHERE, Nothing),
        Case("for another", ask(|p| p.target_ip = [10, 0, 0, 9].into()), ELSEWHERE, Nothing),
    ]);
}

#[test]
fn ndp_that_lies() {
    let tell = |edit: fn(&mut ndp::Packet)| {
        let message = Message::Advertisement { solicited: false, overrides: true };
        let mac = Some(THEIR_MAC);
        let mut packet = ndp::Packet { src: THEIRS6, dst: OURS6, target: THEIRS6, mac, message };
        edit(&mut packet);
        let mut bytes = vec![0; ndp::frame_len(false)];
        packet.emit(THEIR_MAC, OUR_MAC, None, &mut bytes);
        bytes
    };
    let ask = tell(|p| (p.message, p.target) = (Message::Solicitation, OURS6));
    let kind = |number: u8| sealed6(at(&ask, 54, &[number]));
    hold(vec![
        Case("a question", ask.clone(), NEWS, Advertisement),
        Case("through a router", sealed6(at(&ask, 21, &[254])), NDP_BAD, Nothing),
        Case("code 1", sealed6(at(&ask, 55, &[1])), NDP_BAD, Nothing),
        Case("an option of length 0", sealed6(at(&ask, 79, &[0])), NDP_BAD, Nothing),
        Case("an option past the end", sealed6(at(&ask, 79, &[2])), NDP_BAD, Nothing),
        Case("a group's MAC", sealed6(at(&ask, 80, &[0xff; 6])), NDP_BAD, Nothing),
        Case("about a group", sealed6(at(&ask, 62, &[0xff])), NDP_BAD, Nothing),
        Case("checksum", at(&ask, 56, &[0xde, 0xad]), ICMP_BAD, Nothing),
        Case("told unasked", tell(|_| ()), ELSEWHERE, Nothing),
        Case("that our address is theirs", tell(|p| p.target = OURS6), CONFLICT, Nothing),
        Case("a router advertises itself", kind(134), ICMP_IGNORED, Nothing),
        Case("a router solicits", kind(133), ICMP_IGNORED, Nothing),
        Case("a redirect", kind(137), ICMP_IGNORED, Nothing),
    ]);
}

/// RFC 826 ("Merge_flag"), RFC 4861 s7.2.5: a neighbour in use may say, unasked, that it has moved,
/// as for Linux. Nobody is believed about an address of ours, nor noted that is not in use.
#[test]
fn a_neighbour_is_believed_about_its_own_address_alone() {
    let liar = Mac([2, 0, 0, 0, 0, 0x66]);
    for (ip, mac) in [(OURS, THEIR_MAC), ([10, 0, 0, 77].into(), THEIR_MAC), (THEIRS, liar)] {
        let mut host = Host::in_state(State::Established);
        let mut claim = vec![0; arp::frame_len(false)];
        arp::Packet::gratuitous(liar, ip).emit(None, &mut claim);
        assert!(host.give(&claim).1.is_empty(), "{ip}");
        let frame = host.peer_frame(Flags::ACK, 1 << 30, 1);
        let (_, replies) = host.give(&frame);
        assert_eq!(replies.len(), 1);
        assert_eq!(replies[0][..6], mac.0, "{ip}");
    }
}
