//! One pass from a frame to what it says, and one pass back.
//!
//! [`parse`] answers a [`Packet`]: a small `Copy` summary with offsets into the frame, no borrow. [`emit`] writes the
//! Ethernet, IPv4 and TCP headers in front of a payload that already stands in the buffer.

use super::options::Options;
use super::tcp::Flags;
use super::{Malformed, arp, ethernet, icmp};
use std::net::Ipv4Addr;

/// A TCP segment with its addresses, as it arrived or as it shall be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    pub src: Ipv4Addr,
    pub dst: Ipv4Addr,
    pub src_port: u16,
    pub dst_port: u16,
    pub seq: u32,
    /// Meaningless unless `flags` has ACK.
    pub ack: u32,
    pub flags: Flags,
    /// As in the header: not scaled.
    pub window: u16,
    /// Meaningless unless `flags` has URG.
    pub urgent: u16,
    pub options: Options,
    /// Where the payload starts in the frame, in bytes.
    pub payload_at: u16,
    /// Length of the payload in bytes.
    pub payload_len: u16,
}

/// What a frame holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    Tcp(Segment),
    Arp(arp::Packet),
    Icmp(icmp::Message),
    /// Well-formed, but nothing we speak: another EtherType, IPv6, another IP protocol.
    Other,
}

/// A frame, understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    pub ethernet: ethernet::Header,
    pub body: Body,
}

/// Which received checksums are verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verify {
    /// Every one (RFC 9293 s3.1 MUST-3). The default.
    All,
    /// IPv4 and ICMP, not TCP: for a peer that leaves TCP's to hardware that is not there, such as the kernel on a veth.
    /// (Deviates from MUST-3; a documented switch.)
    NotTcp,
}

impl Segment {
    /// Sequence numbers it takes: its payload, and one each for SYN and FIN (RFC 9293 s3.4).
    pub fn seq_len(&self) -> u32 {
        u32::from(self.payload_len)
            + u32::from(self.flags.has(Flags::SYN))
            + u32::from(self.flags.has(Flags::FIN))
    }
}

/// Understands a frame.
///
/// # Errors
/// Why it can't be: to be counted and dropped, never answered.
pub fn parse(_frame: &[u8], _verify: Verify) -> Result<Packet, Malformed> {
    Err(Malformed::Truncated)
}

/// Bytes before the payload: Ethernet with or without a tag, IPv4 without options, TCP with these options.
pub fn header_len(_vlan: bool, _options: &Options) -> usize {
    54
}

/// Writes all headers of `segment` into `frame`, whose payload stands at `header_len` already and ends where `frame`
/// ends. `segment.payload_at` is ignored; `segment.payload_len` must be `frame.len() - header_len`. Pads nothing: the
/// IPv4 total length rules, and short frames are legal on every device we have.
///
/// # Panics
/// If the lengths disagree: a bug of the caller.
pub fn emit(
    _frame: &mut [u8],
    _ethernet: &ethernet::Header,
    _segment: &Segment,
    _ip_id: u16,
    _ttl: u8,
) {
}
