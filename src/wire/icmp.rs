//! ICMP for IPv4 (RFC 792, RFC 1122 s3.2.2): echo, and the errors that quote a TCP segment.

use std::net::Ipv4Addr;

/// The part of an ICMP message that we act on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message {
    pub src: Ipv4Addr,
    pub dst: Ipv4Addr,
    pub kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Type 8. The rest of the message (identifier, sequence, data) stands at `data_at..data_at + data_len`.
    EchoRequest {
        data_at: u16,
        data_len: u16,
    },
    EchoReply,
    /// Type 3, 11, 12 or 4 with the start of the datagram that it is about.
    Error {
        kind: u8,
        code: u8,
        mtu: u16,
        quoted: Option<Quoted>,
    },
    /// Anything else: ignored (RFC 1122 s3.2.2).
    Other,
}

/// The quoted TCP header's first eight bytes and its addresses: as *we* sent them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quoted {
    pub src: Ipv4Addr,
    pub dst: Ipv4Addr,
    pub src_port: u16,
    pub dst_port: u16,
    pub seq: u32,
}
