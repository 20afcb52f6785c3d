//! The AF_PACKET device on a real veth pair.

mod common;

use common::station::{FAR, NEAR, Station, number_of, only, ping_pong, write_numbered};
use common::{End, Lab};
use shakedown::device::Device;
use shakedown::device::packet::Packet;
use shakedown::device::steering::{Reach, Steering};
use shakedown::frame::Pool;
use std::net::{Ipv4Addr, UdpSocket};
use std::time::Duration;

fn station(lab: &Lab, end: End, addr: Ipv4Addr) -> Station<Packet> {
    let dev = lab.inside(end, || Packet::open(end.interface(), &only(addr))).unwrap();
    Station::new(dev, Pool::new(512).unwrap(), 512)
}

/// Turns `station` until a frame comes, and takes it; `None` after a second.
fn next(station: &mut Station<Packet>) -> Option<Vec<u8>> {
    let deadline = std::time::Instant::now() + Duration::from_secs(1);
    while station.rx.is_empty() && std::time::Instant::now() < deadline {
        station.receive();
    }
    let frame = station.rx.drain(station.rx.len().min(1)).next()?;
    let bytes = frame.bytes().to_vec();
    station.pool.put(frame);
    Some(bytes)
}

/// Without XDP a veth hands frames on through a backlog for each core: a thread that is moved
/// between two sends overtakes itself, and a kernel thread on another core that has a frame of its
/// own to send takes along what waits in the interface's queue.
fn keep_to_one_core(lab: &Lab) {
    for end in [End::Near, End::Far] {
        lab.tc(end, &["qdisc", "del", "dev", end.interface(), "root"]);
    }
    let cores = core_affinity::get_core_ids().expect("the cores that we may run on");
    assert!(core_affinity::set_for_current(cores[0]));
}

#[test]
fn every_frame_arrives_in_order_both_ways_and_none_is_lost_from_the_ledger() {
    let Some(lab) = Lab::new("pkt") else { return };
    keep_to_one_core(&lab);
    let (mut near, mut far) = (station(&lab, End::Near, NEAR), station(&lab, End::Far, FAR));
    ping_pong(&mut near, &mut far, 20_000);
    let report = near.dev.report();
    assert_eq!((report.mode, report.driver.as_str()), ("packet", "veth"));
    assert_eq!((near.counter("rx_dropped"), near.counter("rx_too_long_total")), (0, 0));
}

#[test]
fn what_is_not_ours_is_not_received_and_what_is_too_long_is_dropped_and_counted() {
    let Some(lab) = Lab::new("long") else { return };
    for end in [End::Near, End::Far] {
        lab.ip(end, &["link", "set", end.interface(), "mtu", "9000"]);
    }
    let mut near = station(&lab, End::Near, NEAR);
    lab.ip(
        End::Far,
        &["neigh", "add", "10.99.0.100", "lladdr", "02:00:00:00:00:01", "dev", "far0"],
    );
    let udp = lab.inside(End::Far, || UdpSocket::bind((End::Far.addr(), 0))).unwrap();
    udp.send_to(&[1; 100], (End::Near.addr(), 9)).unwrap();
    udp.send_to(&[2; 5000], (NEAR, 9)).unwrap();
    udp.send_to(&[3; 200], (NEAR, 9)).unwrap();
    let frame = next(&mut near).unwrap();
    assert_eq!((frame.len(), frame[42]), (14 + 20 + 8 + 200, 3));
    assert_eq!(near.counter("rx_too_long_total"), 1);
    near.check();
}

#[test]
fn a_tag_that_the_kernel_took_out_is_put_back() {
    let Some(lab) = Lab::new("vlan") else { return };
    let mut near = station(&lab, End::Near, NEAR);
    let mut far = station(&lab, End::Far, FAR);
    let mut frame = far.pool.take().unwrap();
    frame.reset(64);
    let mut untagged = [0; 60];
    write_numbered(&mut untagged, NEAR, 42);
    let tagged = [&untagged[..12], &[0x81, 0x00, 0x20, 0x05], &untagged[12..]].concat();
    frame.bytes_mut().copy_from_slice(&tagged);
    far.tx.push(frame);
    far.send();
    assert_eq!(next(&mut near).unwrap(), tagged);
    let mut frame = far.pool.take().unwrap();
    frame.reset(60);
    frame.bytes_mut().copy_from_slice(&untagged);
    far.tx.push(frame);
    far.send();
    assert_eq!(number_of(&next(&mut near).unwrap()), 42);
}

#[test]
fn a_frame_above_the_mtu_is_refused_and_those_behind_it_are_sent() {
    let Some(lab) = Lab::new("mtu") else { return };
    let (mut near, mut far) = (station(&lab, End::Near, NEAR), station(&lab, End::Far, FAR));
    for (len, number) in [(1900, 1), (60, 2)] {
        let mut frame = far.pool.take().unwrap();
        frame.reset(len);
        write_numbered(frame.bytes_mut(), NEAR, number);
        far.tx.push(frame);
    }
    far.send();
    far.send();
    assert_eq!(number_of(&next(&mut near).unwrap()), 2);
    assert_eq!(far.counter("tx_refused_total"), 1);
}

#[test]
fn addresses_of_the_kernel_are_refused_with_what_to_do() {
    let Some(lab) = Lab::new("pktref") else { return };
    let refusal = |steering: &Steering| {
        lab.inside(End::Near, || Packet::open("near0", steering)).err().unwrap().to_string()
    };
    let kernels: Ipv4Addr = End::Near.addr().parse().unwrap();
    assert!(refusal(&only(kernels)).contains("ip addr del 10.99.0.1/24 dev near0"));
    let shared = vec![Reach::only(kernels.into())];
    let shared = Steering { shared, ..Steering::default() };
    assert!(refusal(&shared).contains("use an address that the kernel does not have"));
}
