//! Any frame: understood or refused, never a panic; and what is understood as TCP is written as it
//! was read.

use shakedown::wire::checksum;
use shakedown::wire::segment::{self, Body, Verify};
use std::net::Ipv6Addr;

const ICMP: u8 = 1;
const ICMPV6: u8 = 58;

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
    let mut expected = segment::Segment { payload_at: payload_at as u16, ..read };
    // Packed less tightly than they came, a block of SACK may find no room.
    let (before, after) = (read.options.sack, again_read.options.sack);
    assert!(before.blocks().starts_with(after.blocks()) && after.is_empty() == before.is_empty());
    expected.options.sack = after;
    assert_eq!(again_read, expected);
}

/// Puts right the checksums of IPv4 and, where it follows at once, of ICMP.
fn mend(frame: &mut [u8]) {
    match frame.get(12..14) {
        Some([0x08, 0x00]) => {
            let len = frame.get(14).map_or(0, |first| usize::from(first & 15) * 4);
            let Some(header) = frame.get_mut(14..14 + len).filter(|header| header.len() >= 20)
            else {
                return;
            };
            put_sum(header, 10, 0);
            let (protocol, total) = (header[9], u16::from_be_bytes([header[2], header[3]]));
            if protocol == ICMP
                && let Some(message) = frame.get_mut(14 + len..14 + usize::from(total))
            {
                put_sum(message, 2, 0);
            }
        }
        Some([0x86, 0xdd]) if frame.get(20) == Some(&ICMPV6) => {
            let Some((header, message)) = frame.split_at_mut_checked(54) else { return };
            let len = u16::from_be_bytes([header[18], header[19]]);
            let address = |at: usize| {
                Ipv6Addr::from_bits(u128::from_be_bytes(std::array::from_fn(|byte| {
                    header[at + byte]
                })))
            };
            let pseudo = checksum::pseudo_header_v6(address(22), address(38), ICMPV6, len);
            if let Some(message) = message.get_mut(..usize::from(len)) {
                put_sum(message, 2, pseudo);
            }
        }
        _ => {}
    }
}

fn put_sum(bytes: &mut [u8], at: usize, pseudo: u64) {
    let Some(place) = bytes.get_mut(at..at + 2) else { return };
    place.fill(0);
    let sum = checksum::finish(pseudo + checksum::sum(bytes));
    bytes[at..at + 2].copy_from_slice(&sum.to_be_bytes());
}
