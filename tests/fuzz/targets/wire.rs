//! Any frame: understood or refused, never a panic; and what is understood as TCP is written as it
//! was read.

use shakedown::wire::checksum;
use shakedown::wire::ethernet::ETHERTYPE_IPV4;
use shakedown::wire::segment::{self, Body, Verify};

pub fn run(data: &[u8]) {
    let _ = segment::parse(data, Verify::All);
    check(data);
    // Few inputs have a checksum that holds: with it mended, the rest is read too.
    let mut mended = data.to_vec();
    mend(&mut mended);
    check(&mended);
}

fn check(frame: &[u8]) {
    let Ok(packet) = segment::parse(frame, Verify::NotTcp) else { return };
    let Body::Tcp(read) = packet.body else { return };
    let (start, len) = (usize::from(read.payload_at), usize::from(read.payload_len));
    let payload = &frame[start..start + len];
    let payload_at =
        segment::header_len(packet.ethernet.vlan.is_some(), read.family(), &read.options);
    let mut written = vec![0; payload_at + len];
    written[payload_at..].copy_from_slice(payload);
    segment::emit(&mut written, &packet.ethernet, &read, 0, 64);
    let again = segment::parse(&written, Verify::All).expect("what we write is sound");
    let Body::Tcp(again_read) = again.body else { panic!("{again:?}") };
    assert_eq!(again.ethernet, packet.ethernet);
    let expected = segment::Segment { payload_at: payload_at as u16, ..read };
    assert_eq!(again_read, expected);
}

fn mend(frame: &mut [u8]) {
    let ipv4 = frame.get(12..14) == Some(&ETHERTYPE_IPV4.to_be_bytes()[..]);
    let len = frame.get(14).map_or(0, |first| usize::from(first & 15) * 4);
    let header = frame.get_mut(14..14 + len).filter(|header| ipv4 && header.len() >= 20);
    if let Some(header) = header {
        header[10..12].fill(0);
        let sum = checksum::finish(checksum::sum(header));
        header[10..12].copy_from_slice(&sum.to_be_bytes());
    }
}
