//! The steering program's verdict on single frames, by BPF_PROG_TEST_RUN: no traffic, no NIC. Queue
//! 0 has a socket, so that what is ours is redirected.

mod common;

use common::{End, Lab, say};
use shakedown::device::steering::Steering;
use shakedown::device::xdp::{self, OBJECT};
use shakedown::frame::Pool;
use shakedown::sys::bpf::{Program, XDP_PASS, XDP_REDIRECT};
use shakedown::sys::net::Interface;
use shakedown::sys::socket::Socket;
use std::net::Ipv4Addr;
use std::process::Command;

const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMP: u8 = 1;

const OURS: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 100);
const KERNELS: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 1);
const OTHER: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 7);

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
            Socket::bind(&umem, interface.index, 0, false, 64).unwrap()
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
    Steering { ours: vec![(OURS, OURS)], ..Steering::default() }
}

fn ports_mode() -> Steering {
    let ports = vec![(80, 80), (20_000, 29_999)];
    Steering { shared: vec![(KERNELS, KERNELS)], ports, ..Steering::default() }
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
    let ipv6 = [&[0x60, 0, 0, 0, 0, 20, 6, 64][..], &[0xfd; 52]].concat();
    assert!(!rig.takes(&ethernet(0x86dd, &ipv6)));
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
    for (frame, needed) in [(ipv4(OURS, TCP, 80), 34), (arp(1, OTHER, OURS), 42)] {
        // The kernel runs no program on less than an Ethernet header.
        for len in 14..=frame.len() {
            assert_eq!(rig.takes(&frame[..len]), len >= needed, "{len} bytes");
        }
    }
    let Some(rig) = Rig::new("shortp", &ports_mode()) else { return };
    let (plain, options) = (ipv4(KERNELS, TCP, 80), ipv4_with(KERNELS, TCP, 80, 40, 0));
    for (frame, needed) in [(plain, 38), (options, 78)] {
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
    let frames = [ipv4(OURS, TCP, 80), arp(1, OTHER, OURS)];
    let Some(rig) = Rig::new("untag", &ours_alone()) else { return };
    for frame in &frames {
        assert!(!rig.takes(&tagged(frame, 5)));
        assert!(rig.takes(&tagged(frame, 0xe000)), "a priority tag is no VLAN");
    }
    let Some(rig) = Rig::new("tag", &Steering { vlan: Some(5), ..ours_alone() }) else { return };
    for frame in &frames {
        assert!(rig.takes(&tagged(frame, 0x2005)), "whatever the priority");
        assert!(!rig.takes(&tagged(frame, 6)));
        assert!(!rig.takes(frame));
        let tagged = tagged(frame, 5);
        assert!((14..18).all(|len| !rig.takes(&tagged[..len])));
    }
}

#[test]
fn of_thousands_of_ranges_each_is_found_and_no_gap_is() {
    let nth = |index: u32, offset: u32| Ipv4Addr::from(0x0a63_0000 + index * 4 + offset);
    for count in [1, 2, 3, 5, 1000, 4096, 16_384] {
        let ours = (0..count).rev().map(|index| (nth(index, 1), nth(index, 2))).collect();
        let steering = Steering { ours, ..Steering::default() };
        let Some(rig) = Rig::new(&format!("many{count}"), &steering) else { return };
        let step = (count / 500).max(1);
        for index in (0..count).step_by(step as usize).chain([count - 1]) {
            for (offset, expected) in [(0, false), (1, true), (2, true), (3, false)] {
                let addr = nth(index, offset);
                assert_eq!(rig.takes(&ipv4(addr, TCP, 80)), expected, "{addr} of {count}");
            }
        }
        assert!(!rig.takes(&ipv4(nth(count, 1), TCP, 80)), "past the last");
    }
}

#[test]
fn nothing_is_ours_without_a_socket_or_without_addresses() {
    let Some(rig) = Rig::new("none", &Steering::default()) else { return };
    assert!(!rig.takes(&ipv4(Ipv4Addr::UNSPECIFIED, TCP, 0)));
    let Some(rig) = Rig::new("nosock", &ours_alone()) else { return };
    assert!(rig.takes(&ipv4(OURS, TCP, 80)));
    rig.program.take_socket(0).unwrap();
    assert!(!rig.takes(&ipv4(OURS, TCP, 80)));
}

#[test]
fn the_committed_object_was_built_from_the_committed_source() {
    let root = env!("CARGO_MANIFEST_DIR");
    let output = common::run("sha256sum", &[&format!("{root}/bpf/shakedown.bpf.c")]);
    let sum = &output.stdout[..64];
    assert!(
        OBJECT.windows(64).any(|window| window == sum),
        "bpf/shakedown.bpf.c changed: run scripts/bpf.sh and commit the object"
    );
}

#[test]
fn a_rebuild_gives_the_committed_object() {
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
    let rebuilt = format!("{}/rebuilt.bpf.o", env!("CARGO_TARGET_TMPDIR"));
    common::run(&format!("{}/scripts/bpf.sh", env!("CARGO_MANIFEST_DIR")), &[&rebuilt]);
    assert!(std::fs::read(&rebuilt).unwrap() == OBJECT, "run scripts/bpf.sh and commit the object");
}
