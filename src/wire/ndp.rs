//! Neighbor discovery (RFC 4861): solicitations and advertisements, by which IPv6 hosts ask and
//! tell which MAC address an address has. Routers' messages and redirects are not for us.

use super::ethernet::{self, ETHERTYPE_IPV6, Mac};
use super::ipv6::{self, PROTOCOL_ICMP};
use super::{Malformed, checksum};
use std::net::Ipv6Addr;

/// ICMPv6 types.
pub(super) const SOLICITATION: u8 = 135;
pub(super) const ADVERTISEMENT: u8 = 136;

/// Options.
const SOURCE_MAC: u8 = 1;
const TARGET_MAC: u8 = 2;

const FIXED_LEN: usize = 24;
const OPTION_LEN: usize = 8;

/// No router forwards a datagram with this hop limit, so it comes from our link (RFC 4861 s3.1).
const HOP_LIMIT: u8 = 255;

/// Every node on the link.
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// Who asks, and who tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Unspecified for a host that checks whether its address is free (RFC 4862 s5.4).
    pub src: Ipv6Addr,
    pub dst: Ipv6Addr,
    pub target: Ipv6Addr,
    /// The MAC address of a solicitation's source, or of an advertisement's target.
    pub mac: Option<Mac>,
    pub message: Message,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message {
    Solicitation,
    Advertisement {
        /// In answer to a solicitation from the destination.
        solicited: bool,
        /// What was known before is no longer true.
        overrides: bool,
    },
}

/// Bytes of the frame that asks, tells or announces.
pub const fn frame_len(vlan: bool) -> usize {
    ethernet::header_len(vlan) + ipv6::HEADER_LEN + FIXED_LEN + OPTION_LEN
}

impl Packet {
    /// `mac` at `src` asks who has `target`.
    pub fn solicitation(mac: Mac, src: Ipv6Addr, target: Ipv6Addr) -> Packet {
        let dst = solicited_node(target);
        Packet { src, dst, target, mac: Some(mac), message: Message::Solicitation }
    }

    /// Tells everyone on the link that `mac` has `address` (RFC 4861 s7.2.6).
    pub fn announcement(mac: Mac, address: Ipv6Addr) -> Packet {
        let message = Message::Advertisement { solicited: false, overrides: true };
        Packet { src: address, dst: ALL_NODES, target: address, mac: Some(mac), message }
    }

    /// The answer to a solicitation for an address of ours: `mac` has it. Whoever only checks
    /// whether the address is free has none to answer to, so everyone is told (RFC 4861 s7.2.4).
    pub fn reply(&self, mac: Mac) -> Packet {
        if self.src.is_unspecified() {
            return Packet::announcement(mac, self.target);
        }
        let message = Message::Advertisement { solicited: true, overrides: true };
        Packet { src: self.target, dst: self.src, target: self.target, mac: Some(mac), message }
    }

    /// Understands an ICMPv6 message, whose checksum holds, that takes all of `bytes`; `None` if it
    /// is neither solicitation nor advertisement.
    ///
    /// # Errors
    /// One of the rules of RFC 4861 s7.1 is broken.
    pub(super) fn parse(ip: &ipv6::Header, bytes: &[u8]) -> Result<Option<Packet>, Malformed> {
        let message = match bytes[0] {
            SOLICITATION => Message::Solicitation,
            ADVERTISEMENT => Message::Advertisement {
                solicited: bytes[4] & 0x40 != 0,
                overrides: bytes[4] & 0x20 != 0,
            },
            _ => return Ok(None),
        };
        let Some((fixed, options)) = bytes.split_first_chunk::<FIXED_LEN>() else {
            return Err(Malformed::Ndp);
        };
        let target = Ipv6Addr::from(std::array::from_fn::<u8, 16, _>(|i| fixed[8 + i]));
        let (wanted, may_be_so) = match message {
            Message::Solicitation => {
                (SOURCE_MAC, !ip.src.is_unspecified() || ip.dst == solicited_node(target))
            }
            Message::Advertisement { solicited, .. } => {
                (TARGET_MAC, !(ip.src.is_unspecified() || solicited && ip.dst.is_multicast()))
            }
        };
        let mac = mac_option(options, wanted)?;
        let nameless = ip.src.is_unspecified() && mac.is_some();
        let sound = ip.hop_limit == HOP_LIMIT && fixed[1] == 0 && !target.is_multicast();
        // Nobody is believed who claims a group's MAC address.
        if !sound || !may_be_so || nameless || mac.is_some_and(Mac::is_group) {
            return Err(Malformed::Ndp);
        }
        Ok(Some(Packet { src: ip.src, dst: ip.dst, target, mac, message }))
    }

    /// Writes a whole frame from `src` to `to`, or to the group that the packet is for.
    ///
    /// # Panics
    /// If `frame` is not [`frame_len`] long, or the packet names no MAC address: a bug of the
    /// caller.
    pub fn emit(&self, src: Mac, to: Mac, vlan: Option<u16>, frame: &mut [u8]) {
        assert_eq!(frame.len(), frame_len(vlan.is_some()));
        let dst = if self.dst.is_multicast() { group_mac(self.dst) } else { to };
        let at = ethernet::Header { dst, src, vlan, ethertype: ETHERTYPE_IPV6 }.emit(frame);
        let (ip, message) = frame[at..].split_at_mut(ipv6::HEADER_LEN);
        let addresses = (self.src, self.dst);
        ipv6::emit(ip, addresses, PROTOCOL_ICMP, message.len(), (HOP_LIMIT, 0));
        let (kind, flags, option) = match self.message {
            Message::Solicitation => (SOLICITATION, 0, SOURCE_MAC),
            Message::Advertisement { solicited, overrides } => {
                let flags = u8::from(solicited) << 6 | u8::from(overrides) << 5;
                (ADVERTISEMENT, flags, TARGET_MAC)
            }
        };
        message[..8].copy_from_slice(&[kind, 0, 0, 0, flags, 0, 0, 0]);
        message[8..FIXED_LEN].copy_from_slice(&self.target.octets());
        message[FIXED_LEN..FIXED_LEN + 2].copy_from_slice(&[option, 1]);
        let mac = self.mac.expect("a MAC address to tell");
        message[FIXED_LEN + 2..].copy_from_slice(&mac.0);
        let len = message.len() as u16;
        let pseudo = checksum::pseudo_header_v6(self.src, self.dst, PROTOCOL_ICMP, len);
        let sum = checksum::finish(pseudo + checksum::sum(message));
        message[2..4].copy_from_slice(&sum.to_be_bytes());
    }
}

/// The MAC address that the option `wanted` says, if there is one.
fn mac_option(mut options: &[u8], wanted: u8) -> Result<Option<Mac>, Malformed> {
    let mut mac = None;
    while let [kind, units, ..] = *options {
        let len = usize::from(units) * 8;
        if len == 0 || len > options.len() {
            return Err(Malformed::Ndp);
        }
        let (option, rest) = options.split_at(len);
        if kind == wanted && len == OPTION_LEN {
            mac = Some(Mac(std::array::from_fn(|i| option[2 + i])));
        }
        options = rest;
    }
    if options.is_empty() { Ok(mac) } else { Err(Malformed::Ndp) }
}

/// The group that is asked for `address` (RFC 4291 s2.7.1).
fn solicited_node(address: Ipv6Addr) -> Ipv6Addr {
    let low = address.to_bits() & 0x00ff_ffff;
    Ipv6Addr::from_bits(0xff02_0000_0000_0000_0000_0001_ff00_0000 | low)
}

/// Where frames to a group go (RFC 2464 s7).
fn group_mac(group: Ipv6Addr) -> Mac {
    let [.., a, b, c, d] = group.octets();
    Mac([0x33, 0x33, a, b, c, d])
}

#[cfg(test)]
mod tests {
    use super::super::segment::{Body, Verify, parse};
    use super::*;
    use proptest::prelude::*;

    const ASKING: Mac = Mac([2, 0, 0, 0, 7, 1]);
    const ASKED: Mac = Mac([2, 0, 0, 0, 7, 2]);
    const ASKING_IP: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1);
    const ASKED_IP: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2);

    // As two Linux kernels exchange them over a veth pair.
    const QUESTION: &str = "3333ff000002 020000000701 86dd 60000000 0020 3a ff
        fd000000000000000000000000000001 ff0200000000000000000001ff000002
        8700 7bd6 00000000 fd000000000000000000000000000002 0101 020000000701";
    const ANSWER: &str = "020000000701 020000000702 86dd 60000000 0020 3a ff
        fd000000000000000000000000000002 fd000000000000000000000000000001
        8800 1adb 60000000 fd000000000000000000000000000002 0201 020000000702";

    fn packet_of(frame: &[u8]) -> Result<Packet, Malformed> {
        match parse(frame, Verify::All)?.body {
            Body::Ndp(packet) => Ok(packet),
            other => panic!("no neighbor discovery: {other:?}"),
        }
    }

    fn framed(packet: &Packet, to: Mac) -> Vec<u8> {
        let mut frame = vec![0xaa; frame_len(false)];
        let from = if packet.src == ASKING_IP { ASKING } else { ASKED };
        packet.emit(from, to, None, &mut frame);
        frame
    }

    /// The frame with some bytes changed and the checksum mended.
    fn changed(mut frame: Vec<u8>, at: usize, bytes: &[u8]) -> Vec<u8> {
        frame[at..at + bytes.len()].copy_from_slice(bytes);
        frame[56..58].fill(0);
        let pseudo = checksum::sum(&frame[22..54]) + u64::from(PROTOCOL_ICMP);
        let len = frame.len() - 54;
        let sum = checksum::finish(pseudo + len as u64 + checksum::sum(&frame[54..]));
        frame[56..58].copy_from_slice(&sum.to_be_bytes());
        frame
    }

    #[test]
    fn a_question_and_its_answer_are_those_of_linux() {
        let question = Packet::solicitation(ASKING, ASKING_IP, ASKED_IP);
        let answer = question.reply(ASKED);
        for (packet, golden) in [(question, QUESTION), (answer, ANSWER)] {
            let frame = framed(&packet, ASKING);
            // But for the checksum, which is checked by parsing.
            let golden = changed(crate::wire::hex(golden), 54, &[]);
            assert_eq!(frame, golden);
            assert_eq!(packet_of(&golden), Ok(packet));
        }
    }

    #[test]
    fn who_checks_an_address_that_is_ours_is_told_with_everyone_else() {
        let check = Packet {
            src: Ipv6Addr::UNSPECIFIED,
            mac: None,
            ..Packet::solicitation(ASKING, ASKING_IP, ASKED_IP)
        };
        let reply = check.reply(ASKED);
        assert_eq!(reply, Packet::announcement(ASKED, ASKED_IP));
        let frame = framed(&reply, ASKING);
        assert_eq!(frame[..6], [0x33, 0x33, 0, 0, 0, 1]);
        assert_eq!(packet_of(&frame), Ok(reply));
        // The check itself: no source, no option.
        let mut frame = framed(&Packet::solicitation(ASKING, ASKING_IP, ASKED_IP), ASKED);
        frame.truncate(78);
        frame[19] = 24;
        let frame = changed(frame, 22, &[0; 16]);
        assert_eq!(packet_of(&frame), Ok(check));
    }

    #[test]
    fn each_rule_has_its_case() {
        let question = framed(&Packet::solicitation(ASKING, ASKING_IP, ASKED_IP), ASKED);
        let answer = framed(&Packet::solicitation(ASKING, ASKING_IP, ASKED_IP).reply(ASKED), ASKED);
        for (frame, at, bytes, rule) in [
            (&question, 21, &[64][..], "a hop limit that a router may have lowered"),
            (&question, 55, &[1], "a code"),
            (&question, 62, &[0xff], "a group as target"),
            (&question, 79, &[0], "an option without length"),
            (&question, 79, &[2], "an option past the end"),
            (&question, 80, &[3], "a group's MAC address"),
            (&question, 22, &[0; 16], "an option and no source"),
            (&answer, 38, &[0xff], "an answer to a group"),
            (&answer, 22, &[0; 16], "an answer from nobody"),
        ] {
            let bad = changed(frame.clone(), at, bytes);
            assert_eq!(packet_of(&bad), Err(Malformed::Ndp), "{rule}");
        }
        for len in 8..32 {
            let mut short = question[..54 + len].to_vec();
            short[19] = len as u8;
            let expected = if len == 24 { None } else { Some(Malformed::Ndp) };
            assert_eq!(packet_of(&changed(short, 54, &[])).err(), expected, "{len} bytes");
        }
    }

    proptest! {
        #[test]
        fn random_damage_never_panics(
            damage in prop::collection::vec((54usize..86, any::<u8>()), 1..8), cut in 54usize..87,
        ) {
            let mut frame = framed(&Packet::announcement(ASKED, ASKED_IP), ASKED);
            for (at, byte) in damage {
                frame = changed(frame, at, &[byte]);
            }
            frame.truncate(cut);
            frame[19] = (frame.len() - 54) as u8;
            let _ = parse(&frame, Verify::All);
        }
    }
}
