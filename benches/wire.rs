//! Wire: a frame to a segment, a segment to a frame, and the checksum, each beside smoltcp's.
//!
//! `cargo bench --bench wire`. Frames: a bare ACK (54 bytes), a SYN with Linux's options (74), a
//! full segment (1514).

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use shakedown::wire::Family;
use shakedown::wire::checksum;
use shakedown::wire::ethernet::{ETHERTYPE_IPV4, Header, Mac};
use shakedown::wire::options::Options;
use shakedown::wire::segment::{Segment, Verify, emit, header_len, parse};
use shakedown::wire::tcp::Flags;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire as rival;
use std::hint::black_box;
use std::net::Ipv4Addr;
use std::time::Duration;

const ETHERNET: Header =
    Header { dst: Mac([2; 6]), src: Mac([4; 6]), vlan: None, ethertype: ETHERTYPE_IPV4 };

/// Name, segment and frame of each kind.
fn frames() -> Vec<(&'static str, Segment, Vec<u8>)> {
    let syn_options = Options {
        mss: Some(1460),
        window_scale: Some(7),
        sack_permitted: true,
        timestamps: Some((1, 0)),
        ..Options::default()
    };
    let kinds = [
        ("ack", Flags::ACK, Options::default(), 0),
        ("syn", Flags::SYN, syn_options, 0),
        ("full", Flags::ACK | Flags::PSH, Options::default(), 1460),
    ];
    kinds
        .into_iter()
        .map(|(name, flags, options, payload_len)| {
            let segment = Segment {
                src: [10, 0, 0, 1].into(),
                dst: [10, 0, 0, 2].into(),
                src_port: 40_000,
                dst_port: 80,
                seq: 0x1234_5678,
                ack: 0x8765_4321,
                flags,
                window: 65_535,
                urgent: 0,
                tos: 0,
                options,
                payload_at: 0,
                payload_len,
            };
            let at = header_len(false, Family::V4, &options);
            let mut frame: Vec<u8> = (0..at + usize::from(payload_len)).map(|i| i as u8).collect();
            emit(&mut frame, &ETHERNET, &segment, 1, 64);
            (name, segment, frame)
        })
        .collect()
}

fn rival_parse(frame: &[u8]) -> rival::TcpRepr<'_> {
    let checks = ChecksumCapabilities::default();
    let ethernet = rival::EthernetFrame::new_checked(frame).unwrap();
    let ip = rival::Ipv4Packet::new_checked(ethernet.payload()).unwrap();
    let addresses = rival::Ipv4Repr::parse(&ip, &checks).unwrap();
    let tcp = rival::TcpPacket::new_checked(ip.payload()).unwrap();
    let (src, dst) = (addresses.src_addr.into(), addresses.dst_addr.into());
    rival::TcpRepr::parse(&tcp, &src, &dst, &checks).unwrap()
}

fn rival_emit(frame: &mut [u8], segment: &rival::TcpRepr<'_>) {
    let checks = ChecksumCapabilities::default();
    let mut ethernet = rival::EthernetFrame::new_unchecked(frame);
    rival::EthernetRepr {
        src_addr: rival::EthernetAddress(ETHERNET.src.0),
        dst_addr: rival::EthernetAddress(ETHERNET.dst.0),
        ethertype: rival::EthernetProtocol::Ipv4,
    }
    .emit(&mut ethernet);
    let addresses = rival::Ipv4Repr {
        src_addr: Ipv4Addr::new(10, 0, 0, 1),
        dst_addr: Ipv4Addr::new(10, 0, 0, 2),
        next_header: rival::IpProtocol::Tcp,
        payload_len: segment.buffer_len(),
        hop_limit: 64,
    };
    let mut ip = rival::Ipv4Packet::new_unchecked(ethernet.payload_mut());
    addresses.emit(&mut ip, &checks);
    let mut tcp = rival::TcpPacket::new_unchecked(ip.payload_mut());
    let (src, dst) = (addresses.src_addr.into(), addresses.dst_addr.into());
    segment.emit(&mut tcp, &src, &dst, &checks);
}

fn bench_parse(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("parse");
    group.throughput(Throughput::Elements(1));
    for (name, _, frame) in frames() {
        group.bench_function(format!("shakedown/{name}"), |bench| {
            bench.iter(|| parse(black_box(&frame), Verify::All).unwrap());
        });
        group.bench_function(format!("smoltcp/{name}"), |bench| {
            bench.iter(|| rival_parse(black_box(&frame)));
        });
    }
    group.finish();
}

/// The rival copies the payload into the frame as part of emitting; ours has it there already.
fn bench_emit(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("emit");
    group.throughput(Throughput::Elements(1));
    for (name, segment, frame) in frames() {
        let mut out = frame.clone();
        group.bench_function(format!("shakedown/{name}"), |bench| {
            bench.iter(|| emit(black_box(&mut out), &ETHERNET, black_box(&segment), 1, 64));
        });
        let segment = rival_parse(&frame);
        group.bench_function(format!("smoltcp/{name}"), |bench| {
            bench.iter(|| rival_emit(black_box(&mut out), black_box(&segment)));
        });
    }
    group.finish();
}

fn bench_checksum(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("checksum");
    for len in [20usize, 64, 256, 1460, 9000] {
        let bytes: Vec<u8> = (0..len).map(|i| (i * 7) as u8).collect();
        group.throughput(Throughput::Bytes(len as u64));
        group.bench_function(format!("shakedown/{len}"), |bench| {
            bench.iter(|| checksum::finish(checksum::sum(black_box(&bytes))));
        });
        // smoltcp's sum is private: the rival is the RFC's own loop.
        group.bench_function(format!("word by word/{len}"), |bench| {
            bench.iter(|| word_by_word(black_box(&bytes)));
        });
    }
    group.finish();
}

/// RFC 1071 s4.1 as it stands.
fn word_by_word(bytes: &[u8]) -> u16 {
    let mut sum = 0u32;
    for pair in bytes.chunks(2) {
        sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !sum as u16
}

fn config() -> Criterion {
    Criterion::default()
        .sample_size(30)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
}

criterion_group! {
    name = benches;
    config = config();
    targets = bench_parse, bench_emit, bench_checksum
}
criterion_main!(benches);
