//! ARP for IPv4 over Ethernet (RFC 826, RFC 5227).

use super::Malformed;
use super::ethernet::{self, ETHERTYPE_ARP, Mac};
use std::net::Ipv4Addr;

/// Hardware type Ethernet, protocol type IPv4, and their address lengths.
const ETHERNET_IPV4: [u8; 6] = [0x00, 0x01, 0x08, 0x00, 6, 4];

const PACKET_LEN: usize = 28;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Request,
    Reply,
}

/// An ARP packet; gratuitous when `sender_ip == target_ip`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    pub operation: Operation,
    pub sender_mac: Mac,
    pub sender_ip: Ipv4Addr,
    pub target_mac: Mac,
    pub target_ip: Ipv4Addr,
}

/// Bytes of a frame with an ARP packet and no padding: 42, or 46 with a tag. A caller whose device
/// does not pad to Ethernet's 60 bytes may make the frame longer.
pub const fn frame_len(vlan: bool) -> usize {
    ethernet::header_len(vlan) + PACKET_LEN
}

impl Packet {
    /// Asks who has `target_ip`.
    pub fn request(sender_mac: Mac, sender_ip: Ipv4Addr, target_ip: Ipv4Addr) -> Packet {
        let operation = Operation::Request;
        Packet { operation, sender_mac, sender_ip, target_mac: Mac::default(), target_ip }
    }

    /// Tells everyone that `mac` has `ip` (an ARP Announcement, RFC 5227 s2.3).
    pub fn gratuitous(mac: Mac, ip: Ipv4Addr) -> Packet {
        Packet::request(mac, ip, ip)
    }

    /// The answer to a request for an address of ours: `mac` has it.
    pub fn reply(&self, mac: Mac) -> Packet {
        Packet {
            operation: Operation::Reply,
            sender_mac: mac,
            sender_ip: self.target_ip,
            target_mac: self.sender_mac,
            target_ip: self.sender_ip,
        }
    }

    /// Understands what follows the Ethernet header; padding behind it is ignored.
    ///
    /// # Errors
    /// It is not ARP for IPv4 over Ethernet, no request or reply, or its sender has an address that
    /// no station may have.
    #[inline(never)] // Out of the way of TCP, which `segment::parse` is laid out for.
    pub fn parse(bytes: &[u8]) -> Result<Packet, Malformed> {
        let Some(bytes) = bytes.first_chunk::<PACKET_LEN>() else {
            return Err(Malformed::Truncated);
        };
        let operation = match (bytes[..6] == ETHERNET_IPV4, bytes[6], bytes[7]) {
            (true, 0, 1) => Operation::Request,
            (true, 0, 2) => Operation::Reply,
            _ => return Err(Malformed::Arp),
        };
        let mac = |at: usize| Mac(std::array::from_fn(|i| bytes[at + i]));
        let ip = |at: usize| Ipv4Addr::new(bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]);
        let packet = Packet {
            operation,
            sender_mac: mac(8),
            sender_ip: ip(14),
            target_mac: mac(18),
            target_ip: ip(24),
        };
        // RFC 1812 s3.3.2 says not to believe a claim that a station has a broadcast or multicast
        // MAC address. A probe has the sender 0.0.0.0 (RFC 5227 s2.1.1).
        let sender = packet.sender_ip;
        if packet.sender_mac.is_group()
            || sender.is_multicast()
            || sender.is_broadcast()
            || sender.is_loopback()
        {
            return Err(Malformed::Arp);
        }
        Ok(packet)
    }

    /// Writes a whole frame: a request to everyone, a reply to its target. Bytes past [`frame_len`]
    /// become zero.
    ///
    /// # Panics
    /// If `frame` is shorter than [`frame_len`]: a bug of the caller.
    pub fn emit(&self, vlan: Option<u16>, frame: &mut [u8]) {
        let (dst, code) = match self.operation {
            Operation::Request => (Mac::BROADCAST, 1),
            Operation::Reply => (self.target_mac, 2),
        };
        let header = ethernet::Header { dst, src: self.sender_mac, vlan, ethertype: ETHERTYPE_ARP };
        let at = header.emit(frame);
        let (packet, padding) = frame[at..].split_at_mut(PACKET_LEN);
        packet[..6].copy_from_slice(&ETHERNET_IPV4);
        packet[6..8].copy_from_slice(&[0, code]);
        packet[8..14].copy_from_slice(&self.sender_mac.0);
        packet[14..18].copy_from_slice(&self.sender_ip.octets());
        packet[18..24].copy_from_slice(&self.target_mac.0);
        packet[24..28].copy_from_slice(&self.target_ip.octets());
        padding.fill(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ASKING: Mac = Mac([2, 0, 0, 0, 7, 1]);
    const ASKED: Mac = Mac([2, 0, 0, 0, 7, 2]);
    const ASKING_IP: Ipv4Addr = Ipv4Addr::new(10, 7, 0, 1);
    const ASKED_IP: Ipv4Addr = Ipv4Addr::new(10, 7, 0, 2);

    // As two Linux kernels exchanged them over a veth pair.
    const REQUEST: &str = "ffffffffffff 020000000701 0806
        0001080006040001 020000000701 0a070001 000000000000 0a070002";
    const REPLY: &str = "020000000701 020000000702 0806
        0001080006040002 020000000702 0a070002 020000000701 0a070001";

    #[test]
    fn a_request_and_its_answer_are_those_of_linux() {
        let request = Packet::request(ASKING, ASKING_IP, ASKED_IP);
        for (packet, golden) in [(request, REQUEST), (request.reply(ASKED), REPLY)] {
            let golden = crate::wire::hex(golden);
            let mut frame = vec![0xaa; frame_len(false)];
            packet.emit(None, &mut frame);
            assert_eq!(frame, golden);
            assert_eq!(Packet::parse(&golden[14..]), Ok(packet));
        }
    }

    #[test]
    fn a_frame_longer_than_the_packet_is_padded_with_zeros() {
        let announcement = Packet::gratuitous(ASKED, ASKED_IP);
        assert_eq!(announcement.sender_ip, announcement.target_ip);
        let mut frame = [0xaa; 60];
        announcement.emit(Some(7), &mut frame);
        assert_eq!(frame[46..], [0; 14]);
        assert_eq!(Packet::parse(&frame[18..]), Ok(announcement));
    }

    #[test]
    fn anything_but_ethernet_and_ipv4_is_refused_and_so_is_a_truncated_packet() {
        let good = &crate::wire::hex(REQUEST)[14..];
        for cut in 0..good.len() {
            assert_eq!(Packet::parse(&good[..cut]), Err(Malformed::Truncated));
        }
        for at in 0..8 {
            let mut bad = good.to_vec();
            bad[at] ^= 0x40;
            assert_eq!(Packet::parse(&bad), Err(Malformed::Arp), "byte {at}");
        }
    }

    #[test]
    fn no_station_is_believed_that_claims_a_group_address() {
        for (at, bytes) in [(8, &[0xff; 6][..]), (14, &[224, 0, 0, 1]), (14, &[127, 0, 0, 1])] {
            let mut bad = crate::wire::hex(REPLY)[14..].to_vec();
            bad[at..at + bytes.len()].copy_from_slice(bytes);
            assert_eq!(Packet::parse(&bad), Err(Malformed::Arp));
        }
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            let _ = Packet::parse(&bytes);
        }
    }
}
