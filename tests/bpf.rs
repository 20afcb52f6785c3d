//! The steering program's verdict on single frames, by BPF_PROG_TEST_RUN: no traffic, no NIC. Queue
//! 0 has a socket, so that what is ours is redirected.

mod common;

use common::{End, Lab, say};
use shakedown::device::steering::{Reach, Steering};
use shakedown::device::xdp::{self, OBJECT, OBJECT_VLAN};
use shakedown::frame::Pool;
use shakedown::sys::bpf::{Program, XDP_PASS, XDP_REDIRECT};
use shakedown::sys::net::Interface;
use shakedown::sys::socket::{Socket, Way};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::process::Command;

const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;
const FRAGMENT: u8 = 44;

const OURS: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 100);
const KERNELS: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 1);
const OTHER: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 7);

const OURS6: Ipv6Addr = Ipv6Addr::new(0xfd99, 0, 0, 0, 0, 0, 0, 0x100);
const KERNELS6: Ipv6Addr = Ipv6Addr::new(0xfd99, 0, 0, 0, 0, 0, 0, 1);
const OTHER6: Ipv6Addr = Ipv6Addr::new(0xfd99, 0, 0, 0, 0, 0, 0, 7);
/// Solicited-node group of `OURS6`, and all nodes.
const GROUP6: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00, 0x100);
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// The program with a socket on queue 0.
struct Rig {
    program: Program,
    _socket: Socket,
    _pool: Pool,
    _lab: Lab,
}

impl Rig {
    fn new(name: &str, steering: &Steering) -> Option<Rig> {
        let lab = Lab::new(name)?;
        let pool = Pool::new(64).unwrap();
        let umem = pool.umem().clone();
        let socket = lab.inside(End::Near, || {
            let interface = Interface::find(End::Near.interface()).unwrap();
            Socket::bind(&umem, interface.index, 0, Way::default(), 64).unwrap()
        });
        let program = xdp::load(steering).unwrap();
        program.give_socket(0, &socket).unwrap();
        Some(Rig { program, _socket: socket, _pool: pool, _lab: lab })
    }

    fn takes(&self, frame: &[u8]) -> bool {
        match self.program.test_run(frame).unwrap() {
            XDP_REDIRECT => true,
            XDP_PASS => false,
            verdict => panic!("verdict {verdict}"),
        }
    }
}

fn ours_alone() -> Steering {
    ours_on(None)
}

fn ours_on(vlan: Option<u16>) -> Steering {
    let ours = [OURS.into(), OURS6.into()].map(|addr| Reach { vlan, ..Reach::only(addr) });
    Steering { ours: ours.to_vec(), ..Steering::default() }
}

fn ports_mode() -> Steering {
    let ports = vec![(80, 80), (20_000, 29_999)];
    let shared = [KERNELS.into(), KERNELS6.into()].map(Reach::only).to_vec();
    Steering { shared, ports, ..Steering::default() }
}

fn ethernet(ethertype: u16, payload: &[u8]) -> Vec<u8> {
    [&[2; 12][..], &ethertype.to_be_bytes(), payload].concat()
}

/// The frame with an 802.1Q tag pushed in.
fn tagged(frame: &[u8], tci: u16) -> Vec<u8> {
    [&frame[..12], &0x8100u16.to_be_bytes(), &tci.to_be_bytes(), &frame[12..]].concat()
}

/// An IPv4 packet with `options` bytes of options and a fragment field; the payload starts with
/// ports 40000 and `port`.
fn ipv4_with(dst: Ipv4Addr, protocol: u8, port: u16, options: usize, fragment: u16) -> Vec<u8> {
    let ihl = 5 + options / 4;
    let mut packet = vec![0x40 | ihl as u8, 0];
    packet.extend(((ihl * 4 + 20) as u16).to_be_bytes());
    packet.extend([0, 0]);
    packet.extend(fragment.to_be_bytes());
    packet.extend([64, protocol, 0, 0, 10, 99, 0, 2]);
    packet.extend(dst.octets());
    packet.extend(vec![1; options]);
    packet.extend(40_000u16.to_be_bytes());
    packet.extend(port.to_be_bytes());
    packet.extend([0; 16]);
    ethernet(0x0800, &packet)
}

fn ipv4(dst: Ipv4Addr, protocol: u8, port: u16) -> Vec<u8> {
    ipv4_with(dst, protocol, port, 0, 0x4000)
}

/// An IPv6 packet whose next header is `next`; the payload starts with ports 40000 and `port`.
fn ipv6(dst: Ipv6Addr, next: u8, port: u16) -> Vec<u8> {
    let mut payload = [0; 20];
    payload[..2].copy_from_slice(&40_000u16.to_be_bytes());
    payload[2..4].copy_from_slice(&port.to_be_bytes());
    ipv6_with(dst, next, &payload)
}

fn ipv6_with(dst: Ipv6Addr, next: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend((payload.len() as u16).to_be_bytes());
    packet.extend([next, 255]);
    packet.extend(OTHER6.octets());
    packet.extend(dst.octets());
    packet.extend(payload);
    ethernet(0x86dd, &packet)
}

/// ICMPv6 of `kind` to `dst`, about `target` where it has one.
fn icmpv6(kind: u8, dst: Ipv6Addr, target: Ipv6Addr) -> Vec<u8> {
    let mut payload = vec![kind, 0, 0, 0, 0, 0, 0, 0];
    payload.extend(target.octets());
    payload.extend([1, 1, 2, 2, 2, 2, 2, 2]);
    ipv6_with(dst, ICMPV6, &payload)
}

fn arp(operation: u8, sender: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    let mut packet = vec![0, 1, 8, 0, 6, 4, 0, operation];
    packet.extend([2; 6]);
    packet.extend(sender.octets());
    packet.extend([0; 6]);
    packet.extend(target.octets());
    ethernet(0x0806, &packet)
}

#[test]
fn what_is_to_our_address_is_ours_and_nothing_else() {
    let Some(rig) = Rig::new("ours", &ours_alone()) else { return };
    for protocol in [TCP, ICMP, UDP] {
        assert!(rig.takes(&ipv4(OURS, protocol, 80)));
        assert!(!rig.takes(&ipv4(OTHER, protocol, 80)));
        assert!(!rig.takes(&ipv4(KERNELS, protocol, 22)), "ssh");
    }
    assert!(!rig.takes(&ipv4(Ipv4Addr::BROADCAST, UDP, xdp::hello_port(0))), "a hello");
    for next in [TCP, ICMPV6, UDP, FRAGMENT, 0, 60] {
        assert!(rig.takes(&ipv6(OURS6, next, 80)), "{next}");
        assert!(!rig.takes(&ipv6(OTHER6, next, 80)), "{next}");
        assert!(!rig.takes(&ipv6(KERNELS6, next, 22)), "{next}");
        assert!(!rig.takes(&ipv6(ALL_NODES, next, 80)), "{next}");
    }
    assert!(!rig.takes(&ethernet(0x88cc, &[0; 60])), "LLDP");
}

#[test]
fn arp_about_our_address_is_ours() {
    let Some(rig) = Rig::new("arp", &ours_alone()) else { return };
    assert!(rig.takes(&arp(1, OTHER, OURS)), "a request for us");
    assert!(rig.takes(&arp(2, OTHER, OURS)), "a reply to us");
    assert!(rig.takes(&arp(1, OURS, OURS)), "somebody claims our address");
    assert!(!rig.takes(&arp(1, OTHER, KERNELS)));
    assert!(!rig.takes(&arp(2, OTHER, KERNELS)));
    assert!(!rig.takes(&arp(1, OTHER, OTHER)), "somebody announces an address");
}

#[test]
fn neighbor_discovery_about_our_address_is_ours() {
    let [solicitation, advertisement, router, echo] = [135, 136, 134, 128];
    let Some(rig) = Rig::new("ndp", &ours_alone()) else { return };
    assert!(rig.takes(&icmpv6(solicitation, GROUP6, OURS6)), "who has our address");
    assert!(rig.takes(&icmpv6(solicitation, OURS6, OURS6)), "is it still there");
    assert!(rig.takes(&icmpv6(advertisement, OURS6, OTHER6)), "an answer to us");
    assert!(rig.takes(&icmpv6(advertisement, ALL_NODES, OURS6)), "somebody claims our address");
    assert!(!rig.takes(&icmpv6(solicitation, GROUP6, OTHER6)), "of the same group");
    assert!(!rig.takes(&icmpv6(advertisement, ALL_NODES, OTHER6)));
    assert!(!rig.takes(&icmpv6(advertisement, KERNELS6, OTHER6)));
    for kind in [router, echo] {
        assert!(!rig.takes(&icmpv6(kind, ALL_NODES, OURS6)), "type {kind} has no target");
    }
    let Some(rig) = Rig::new("ndpp", &ports_mode()) else { return };
    for kind in [solicitation, advertisement, echo] {
        for dst in [KERNELS6, GROUP6, ALL_NODES] {
            assert!(!rig.takes(&icmpv6(kind, dst, KERNELS6)), "the kernel answers {kind}");
        }
    }
}

#[test]
fn fragments_and_options_to_our_address_are_ours() {
    let Some(rig) = Rig::new("frag", &ours_alone()) else { return };
    assert!(rig.takes(&ipv4_with(OURS, TCP, 80, 0, 0x2000)));
    assert!(rig.takes(&ipv4_with(OURS, TCP, 80, 0, 0x0010)));
    assert!(rig.takes(&ipv4_with(OURS, TCP, 80, 40, 0)));
    assert!(!rig.takes(&ipv4_with(OTHER, TCP, 80, 0, 0x2000)));
}

#[test]
fn a_frame_too_short_to_tell_is_the_kernels_at_every_length() {
    let Some(rig) = Rig::new("short", &ours_alone()) else { return };
    let ndp = icmpv6(135, GROUP6, OURS6);
    for (frame, needed) in [
        (ipv4(OURS, TCP, 80), 34),
        (arp(1, OTHER, OURS), 42),
        (ipv6(OURS6, TCP, 80), 54),
        (ndp, 78),
    ] {
        // The kernel runs no program on less than an Ethernet header.
        for len in 14..=frame.len() {
            assert_eq!(rig.takes(&frame[..len]), len >= needed, "{len} bytes");
        }
    }
    let Some(rig) = Rig::new("shortp", &ports_mode()) else { return };
    let (plain, options) = (ipv4(KERNELS, TCP, 80), ipv4_with(KERNELS, TCP, 80, 40, 0));
    for (frame, needed) in [(plain, 38), (options, 78), (ipv6(KERNELS6, TCP, 80), 58)] {
        for len in 14..=frame.len() {
            assert_eq!(rig.takes(&frame[..len]), len >= needed, "{len} bytes");
        }
    }
}

#[test]
fn on_the_kernels_address_only_tcp_to_our_ports_is_ours() {
    let Some(rig) = Rig::new("ports", &ports_mode()) else { return };
    for (port, expected) in
        [(80, true), (20_000, true), (29_999, true), (22, false), (81, false), (19_999, false)]
    {
        assert_eq!(rig.takes(&ipv4(KERNELS, TCP, port)), expected, "port {port}");
        assert_eq!(rig.takes(&ipv4_with(KERNELS, TCP, port, 12, 0)), expected, "with options");
        assert_eq!(rig.takes(&ipv6(KERNELS6, TCP, port)), expected, "port {port}");
        assert!(!rig.takes(&ipv6(KERNELS6, UDP, port)));
        assert!(!rig.takes(&ipv6(KERNELS6, FRAGMENT, port)), "the kernel reassembles");
        assert!(!rig.takes(&ipv6(OTHER6, TCP, port)));
        assert!(!rig.takes(&ipv4(OTHER, TCP, port)));
        assert!(!rig.takes(&ipv4(KERNELS, UDP, port)));
    }
    assert!(!rig.takes(&ipv4(KERNELS, ICMP, 80)));
    assert!(!rig.takes(&arp(1, OTHER, KERNELS)));
    assert!(!rig.takes(&ipv4_with(KERNELS, TCP, 80, 0, 0x2000)), "the kernel reassembles");
    assert!(!rig.takes(&ipv4_with(KERNELS, TCP, 80, 0, 0x0010)));
    let mut bad_header = ipv4(KERNELS, TCP, 80);
    bad_header[14] = 0x44;
    assert!(!rig.takes(&bad_header), "a header below 20 bytes");
}

#[test]
fn a_tag_must_be_ours_and_untagged_means_untagged() {
    let ndp = icmpv6(135, GROUP6, OURS6);
    let frames = [ipv4(OURS, TCP, 80), arp(1, OTHER, OURS), ipv6(OURS6, TCP, 80), ndp];
    let Some(rig) = Rig::new("untag", &ours_alone()) else { return };
    for frame in &frames {
        assert!(!rig.takes(&tagged(frame, 5)));
        assert!(rig.takes(&tagged(frame, 0xe000)), "a priority tag is no VLAN");
    }
    let Some(rig) = Rig::new("tag", &ours_on(Some(5))) else { return };
    for frame in &frames {
        assert!(rig.takes(&tagged(frame, 0x2005)), "whatever the priority");
        assert!(!rig.takes(&tagged(frame, 6)));
        assert!(!rig.takes(frame));
        assert!(!rig.takes(&tagged(&tagged(frame, 5), 5)), "two tags");
        let mut providers = tagged(frame, 5);
        providers[12..14].copy_from_slice(&0x88a8u16.to_be_bytes());
        assert!(!rig.takes(&providers), "802.1ad");
        let tagged = tagged(frame, 5);
        assert!((14..18).all(|len| !rig.takes(&tagged[..len])));
    }
}

#[test]
fn each_address_has_a_vlan_of_its_own() {
    let on = |addr: IpAddr, vlan| Reach { vlan, ..Reach::only(addr) };
    let ours = vec![
        on(OURS.into(), None),
        on(OTHER.into(), Some(5)),
        on(OURS6.into(), Some(6)),
        on(OTHER6.into(), None),
    ];
    let Some(rig) = Rig::new("vlans", &Steering { ours, ..Steering::default() }) else { return };
    for (frame, its) in [
        (ipv4(OURS, TCP, 80), None),
        (ipv4(OTHER, TCP, 80), Some(5)),
        (arp(1, KERNELS, OTHER), Some(5)),
        (ipv6(OURS6, TCP, 80), Some(6)),
        (icmpv6(135, GROUP6, OURS6), Some(6)),
        (ipv6(OTHER6, TCP, 80), None),
    ] {
        assert_eq!(rig.takes(&frame), its.is_none());
        for vlan in [5, 6, 7] {
            assert_eq!(rig.takes(&tagged(&frame, vlan)), its == Some(vlan), "{vlan}");
        }
    }
}

#[test]
fn of_thousands_of_ranges_each_is_found_and_no_gap_is() {
    let nth = |index: u32, offset: u32| Ipv4Addr::from(0x0a63_0000 + index * 4 + offset);
    // A step of 2^62: four ranges a prefix, whose upper halves differ from the next four's.
    let nth6 = |index: u32, offset: u32| {
        let low = u128::from(index % 4) << 62 | u128::from(offset);
        Ipv6Addr::from((0xfd99 << 112 | u128::from(index / 4) << 64) + low)
    };
    for count in [1, 2, 3, 5, 1000, 4096, 16_384] {
        let reach = |first: IpAddr, last: IpAddr| Reach { first, last, vlan: None };
        let ours = (0..count).rev().flat_map(|index| {
            let ends = [1, 2].map(|offset| nth(index, offset));
            let ends6 = [1, 2].map(|offset| nth6(index, offset));
            [reach(ends[0].into(), ends[1].into()), reach(ends6[0].into(), ends6[1].into())]
        });
        let ours = ours.collect();
        let steering = Steering { ours, ..Steering::default() };
        let Some(rig) = Rig::new(&format!("many{count}"), &steering) else { return };
        let step = (count / 500).max(1);
        for index in (0..count).step_by(step as usize).chain([count - 1]) {
            for (offset, expected) in [(0, false), (1, true), (2, true), (3, false)] {
                let addr = nth(index, offset);
                assert_eq!(rig.takes(&ipv4(addr, TCP, 80)), expected, "{addr} of {count}");
                let addr = nth6(index, offset);
                assert_eq!(rig.takes(&ipv6(addr, TCP, 80)), expected, "{addr} of {count}");
            }
        }
        assert!(!rig.takes(&ipv4(nth(count, 1), TCP, 80)), "past the last");
        assert!(!rig.takes(&ipv6(nth6(count, 1), TCP, 80)), "past the last");
    }
}

#[test]
fn nothing_is_ours_without_a_socket_or_without_addresses() {
    let Some(rig) = Rig::new("none", &Steering::default()) else { return };
    assert!(!rig.takes(&ipv4(Ipv4Addr::UNSPECIFIED, TCP, 0)));
    assert!(!rig.takes(&ipv6(Ipv6Addr::UNSPECIFIED, TCP, 0)));
    let Some(rig) = Rig::new("nosock", &ours_alone()) else { return };
    assert!(rig.takes(&ipv4(OURS, TCP, 80)));
    rig.program.take_socket(0).unwrap();
    assert!(!rig.takes(&ipv4(OURS, TCP, 80)));
}

/// Each object with its name and that of its source.
const OBJECTS: [(&str, &str, &[u8]); 3] = [
    ("shakedown", "shakedown", OBJECT),
    ("shakedown-vlan", "shakedown", OBJECT_VLAN),
    ("tagger", "tagger", common::vlan::TAGGER),
];

#[test]
fn the_committed_objects_were_built_from_the_committed_sources() {
    let root = env!("CARGO_MANIFEST_DIR");
    for (name, source, object) in OBJECTS {
        let output = common::run("sha256sum", &[&format!("{root}/bpf/{source}.bpf.c")]);
        let sum = &output.stdout[..64];
        assert!(
            object.windows(64).any(|window| window == sum),
            "bpf/{source}.bpf.c is not what {name}.bpf.o was built from: run scripts/bpf.sh and \
             commit the objects"
        );
    }
}

#[test]
fn a_rebuild_gives_the_committed_objects() {
    /// Other versions may well emit other instructions.
    const BUILT_WITH: &str = "clang version 14.0.6";
    let version = ["clang", "clang-14"]
        .iter()
        .find_map(|clang| Command::new(clang).arg("--version").output().ok())
        .map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    match version {
        Some(version) if version.contains(BUILT_WITH) => {}
        found => {
            let found = found.as_deref().and_then(|text| text.lines().next()).unwrap_or("no clang");
            say(&format!(
                "rebuild of the XDP program: SKIPPED, needs {BUILT_WITH}, here is {found}"
            ));
            return;
        }
    }
    let folder = env!("CARGO_TARGET_TMPDIR");
    common::run(&format!("{}/scripts/bpf.sh", env!("CARGO_MANIFEST_DIR")), &[folder]);
    for (name, _, object) in OBJECTS {
        let rebuilt = std::fs::read(format!("{folder}/{name}.bpf.o")).unwrap();
        assert!(rebuilt == object, "run scripts/bpf.sh and commit the objects");
    }
}
