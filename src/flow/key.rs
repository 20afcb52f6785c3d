//! The four-tuple, seen from our side.

use crate::rng::Secret;
use crate::wire::segment::Segment;
use std::fmt;
use std::net::Ipv4Addr;

/// Local and remote socket: what names a connection (RFC 9293 s3.4). Twelve bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FlowKey {
    pub local: Ipv4Addr,
    pub remote: Ipv4Addr,
    pub local_port: u16,
    pub remote_port: u16,
}

const _: () = assert!(size_of::<FlowKey>() == 12);

impl FlowKey {
    /// The key of the connection that a received segment is for.
    pub fn of_received(segment: &Segment) -> FlowKey {
        FlowKey {
            local: segment.dst,
            remote: segment.src,
            local_port: segment.dst_port,
            remote_port: segment.src_port,
        }
    }

    /// The key as two words, for hashing.
    pub fn words(&self) -> [u64; 2] {
        let addresses = u64::from(self.local.to_bits()) << 32 | u64::from(self.remote.to_bits());
        [addresses, u64::from(self.local_port) << 16 | u64::from(self.remote_port)]
    }

    /// Keyed hash for the connection table.
    pub fn bucket(&self, secret: &Secret) -> u64 {
        let [a, b] = self.words();
        secret.bucket(a, b)
    }
}

impl fmt::Display for FlowKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}:{} > {}:{}", self.local, self.local_port, self.remote, self.remote_port)
    }
}
