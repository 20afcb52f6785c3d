//! IPv6 and VLANs on a veth pair: the binary against the kernel's own TCP at the other end. As
//! root; without, each test says that it is skipped.

mod common;

use common::running::{
    OURS, OURS6, Running, connect, curl, has, kernel_server, kernel_server_on, lab, number, wrk,
};
use common::vlan::{FAR_ADDR, FAR_ADDR6, VLAN};
use common::{End, Lab, run, say};
use serde_json::Value;
use shakedown::sys::net::Interface;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener};

/// Kernel connections from the far end, one after the other; each says something and closes.
fn connect_from_far(lab: &Lab, address: &str, port: u16, count: usize) {
    lab.inside(End::Far, || {
        for _ in 0..count {
            let mut stream = connect(address, port);
            stream.write_all(b"hello").unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
            assert_eq!(stream.read(&mut [0; 16]).unwrap(), 0);
        }
    });
}

/// Runs a client of ours to its end and holds it to `count` whole connections.
fn client(lab: &Lab, arguments: &[&str], count: u64) -> Value {
    let common = ["client", "--no-verify-tcp-checksum", "-c", "32", "-n"];
    let number_of = count.to_string();
    let arguments = [&common[..], &[&number_of], arguments].concat();
    let (code, report) = Running::start(lab, End::Near, &arguments).end();
    assert_eq!(code, Some(0), "{report:#}");
    for name in ["opened", "established", "closed"] {
        assert_eq!(number(&report, &format!("/client/connections_{name}_total")), count, "{name}");
    }
    assert_eq!(number(&report, "/client/connections_left_open"), 0);
    report
}

fn assert_served(report: &Value, count: u64) {
    for name in ["established", "closed"] {
        assert_eq!(number(report, &format!("/server/connections_{name}_total")), count, "{name}");
    }
}

#[test]
fn curl_and_wrk_are_served_over_ipv6() {
    let test = "curl_and_wrk_are_served_over_ipv6";
    let Some((lab, _turn)) = lab("curl6") else { return };
    let server = Running::server(&lab, &["--listen", "80=http", "--response-size", "1k"]);
    if has("curl", test) {
        curl(&lab, &format!("http://[{OURS6}]/"));
        curl(&lab, &format!("http://{OURS}/"));
    }
    if has("wrk", test) {
        wrk(&lab, &format!("http://[{OURS6}]/"));
    }
    server.stop();
}

#[test]
fn every_mode_serves_ipv6() {
    if !has("curl", "every_mode_serves_ipv6") {
        return;
    }
    for mode in ["copy", "skb", "packet"] {
        let Some((lab, _turn)) = lab("modes6") else { return };
        let arguments = ["--listen", "80", "--response-size", "1k", "--mode", mode];
        let server = Running::server(&lab, &arguments);
        curl(&lab, &format!("http://[{OURS6}]/"));
        let report = server.stop();
        assert_eq!(report.pointer("/server/device/mode").unwrap(), mode);
    }
}

#[test]
fn kernel_connections_over_ipv6_all_complete() {
    let Some((lab, _turn)) = lab("inbound6") else { return };
    let server = Running::server(&lab, &["--listen", "9=discard"]);
    connect_from_far(&lab, OURS6, 9, 2000);
    assert_served(&server.stop(), 2000);
}

#[test]
fn connections_to_a_kernel_server_over_ipv6_all_complete() {
    let Some((lab, _turn)) = lab("outbound6") else { return };
    kernel_server_on(&lab, End::Far.addr6(), 9);
    let target = format!("[{}]:9", End::Far.addr6());
    // Not more of them than the kernel's neighbor table holds.
    let addr = format!("{OURS6}-fd99::10f/64");
    client(&lab, &["--addr", &addr, "--target", &target], 5000);
}

#[test]
fn one_run_has_both_families() {
    let Some((lab, _turn)) = lab("mixed") else { return };
    kernel_server(&lab, 9);
    kernel_server_on(&lab, End::Far.addr6(), 9);
    let pcap = format!("{}/mixed-{}.pcap", env!("CARGO_TARGET_TMPDIR"), std::process::id());
    let addr = format!("{OURS}/24,{OURS6}/64");
    let target = format!("{}:9,[{}]:9", End::Far.addr(), End::Far.addr6());
    client(&lab, &["--addr", &addr, "--target", &target, "--pcap", &pcap], 1000);
    let syns = syns_by_ethertype(&std::fs::read(&pcap).unwrap());
    std::fs::remove_file(&pcap).unwrap();
    assert_eq!(syns, [500, 500], "half the connections in each family");
}

/// SYNs alone, without ACK, in a little-endian pcap: of IPv4 and of IPv6.
fn syns_by_ethertype(pcap: &[u8]) -> [usize; 2] {
    let (mut at, mut syns) = (24, [0; 2]);
    while at < pcap.len() {
        let len = u32::from_le_bytes(pcap[at + 8..at + 12].try_into().unwrap()) as usize;
        let frame = &pcap[at + 16..at + 16 + len];
        let is_syn = |flags: usize| frame.get(flags).is_some_and(|byte| byte & 0x12 == 0x02);
        match (&frame[12..14], frame[20], frame[23]) {
            ([0x08, 0x00], _, 6) => syns[0] += usize::from(is_syn(47)),
            ([0x86, 0xdd], 6, _) => syns[1] += usize::from(is_syn(67)),
            _ => {}
        }
        at += 16 + len;
    }
    syns
}

#[test]
fn an_ipv6_address_of_the_kernel_is_shared_by_port() {
    let Some((lab, _turn)) = lab("shared6") else { return };
    kernel_server_on(&lab, End::Far.addr6(), 9);
    let addr = format!("{}/64", End::Near.addr6());
    let server = Running::server_on(&lab, &addr, &["--listen", "7=echo"]);
    let theirs = lab.inside(End::Near, || TcpListener::bind((End::Near.addr6(), 22)).unwrap());
    lab.inside(End::Far, || {
        let mut echo = connect(End::Near.addr6(), 7);
        echo.write_all(b"ours").unwrap();
        let mut back = [0; 4];
        echo.read_exact(&mut back).unwrap();
        assert_eq!(&back, b"ours");
        drop(connect(End::Near.addr6(), 22));
    });
    theirs.accept().unwrap();
    server.stop();
    // The kernel's neighbors know nothing of the far end, and we ask for ourselves.
    lab.ip(End::Near, &["neigh", "flush", "all"]);
    let target = format!("[{}]:9", End::Far.addr6());
    client(&lab, &["--addr", &addr, "--target", &target], 200);
}

#[test]
fn a_link_local_address_serves_its_link() {
    let Some((lab, _turn)) = lab("linklocal") else { return };
    let server = Running::server_on(&lab, "fe80::100/64", &["--listen", "9=discard"]);
    // The one that the kernel makes for itself is still being tested for a twin.
    lab.ip(End::Far, &["addr", "add", "fe80::2/64", "dev", "far0", "nodad"]);
    let zone = lab.inside(End::Far, || Interface::find("far0").unwrap().index);
    connect_from_far(&lab, &format!("fe80::100%{zone}"), 9, 100);
    assert_served(&server.stop(), 100);
}

/// Goal: the far kernel is on a VLAN, we on the interface below; what it sends without the tag is
/// not for these addresses.
#[test]
fn the_kernel_connects_both_ways_over_a_vlan_in_both_families() {
    let test = "the_kernel_connects_both_ways_over_a_vlan";
    let Some((lab, _turn)) = lab("vlan") else { return };
    lab.far_on_vlan();
    let addr = format!("10.98.0.100/24@{VLAN},fd98::100/64@{VLAN}");
    let listen = ["--listen", "9=discard,80=http", "--response-size", "1k"];
    let server = Running::server_on(&lab, &addr, &listen);
    connect_from_far(&lab, "10.98.0.100", 9, 500);
    connect_from_far(&lab, "fd98::100", 9, 500);
    let curls = has("curl", test);
    if curls {
        curl(&lab, "http://10.98.0.100/");
        curl(&lab, "http://[fd98::100]/");
    }
    assert_served(&server.stop(), if curls { 1002 } else { 1000 });
    kernel_server_on(&lab, FAR_ADDR, 9);
    kernel_server_on(&lab, FAR_ADDR6, 9);
    let target = format!("{FAR_ADDR}:9,[{FAR_ADDR6}]:9");
    let report = client(&lab, &["--addr", &addr, "--target", &target], 1000);
    assert_eq!(number(&report, "/client/counters/RetransSegs"), 0, "{report:#}");
    // The default tag says the same.
    let vlan = VLAN.to_string();
    let untagged = ["--addr", "10.98.0.100/24,fd98::100/64", "--target", &target];
    client(&lab, &[&untagged[..], &["--vlan", &vlan]].concat(), 100);
}

#[test]
fn a_vlan_works_in_every_mode_once_the_tags_are_in_the_frames() {
    let test = "a_vlan_works_in_every_mode";
    if !has("curl", test) || !has("ethtool", test) {
        return;
    }
    for mode in ["copy", "skb", "packet"] {
        let Some((lab, _turn)) = lab("vlanmode") else { return };
        lab.far_on_vlan();
        run(
            "ip",
            &["netns", "exec", lab.namespace(End::Far), "ethtool", "-K", "far0", "txvlan", "off"],
        );
        let addr = format!("10.98.0.100/24@{VLAN},fd98::100/64@{VLAN}");
        let arguments = ["--listen", "80", "--response-size", "1k", "--mode", mode];
        let server = Running::server_on(&lab, &addr, &arguments);
        curl(&lab, "http://10.98.0.100/");
        curl(&lab, "http://[fd98::100]/");
        server.stop();
        say(&format!("{test}: {mode} is good"));
    }
}
