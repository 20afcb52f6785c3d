//! Which four-tuple the next connection gets.

use super::FlowKey;
use std::net::Ipv4Addr;
use std::ops::AddAssign;

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

/// What four-tuples are made of. Worker `share` of `shares` uses the source ports that leave
/// remainder `share`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ranges {
    pub locals: Vec<Range>,
    pub first_port: u16,
    pub last_port: u16,
    pub targets: Vec<Target>,
    pub share: u16,
    pub shares: u16,
}

/// An endless walk over the four-tuples of the ranges, each met once a round: targets round-robin
/// (RFC 3511 s4.4), then local addresses, then ports, so that a tuple rests as long as possible
/// before it is met again.
#[derive(Clone, Debug)]
pub struct Tuples {
    targets: Vec<Target>,
    locals: Vec<Range>,
    /// Our source ports: the first, how many, and how far apart.
    first_port: u16,
    ports: u16,
    stride: u16,
    count: u64,
    next: Position,
}

/// Where the walk stands: an odometer whose fastest wheel is the target's port.
#[derive(Clone, Copy, Debug, Default)]
struct Position {
    target_port: u16,
    target_address: u32,
    target: usize,
    local_address: u32,
    local: usize,
    port: u16,
}

impl Range {
    /// Number of addresses; zero if `last` comes before `first`.
    pub fn count(&self) -> u64 {
        (u64::from(self.last.to_bits()) + 1).saturating_sub(u64::from(self.first.to_bits()))
    }

    fn nth(&self, offset: u32) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.first.to_bits() + offset)
    }
}

impl Target {
    /// Number of sockets: addresses times ports.
    pub fn count(&self) -> u64 {
        let ports = (u64::from(self.last_port) + 1).saturating_sub(u64::from(self.first_port));
        self.addresses.count() * ports
    }
}

impl Tuples {
    /// A walk that starts at the first of everything. Port 0 is no port and left out.
    ///
    /// # Panics
    /// If there are no shares, or `share` is not one of them: a bug of the caller.
    pub fn new(ranges: Ranges) -> Tuples {
        let Ranges { mut locals, first_port, last_port, mut targets, share, shares } = ranges;
        assert!(share < shares);
        locals.retain(|range| range.count() > 0);
        for target in &mut targets {
            target.first_port = target.first_port.max(1);
        }
        targets.retain(|target| target.count() > 0);
        // The first port from `first_port` on that leaves remainder `share`; it may lie past
        // 65,535.
        let (low, stride) = (u32::from(first_port.max(1)), u32::from(shares));
        let first = low + (u32::from(share) + stride - low % stride) % stride;
        let ports = match u32::from(last_port).checked_sub(first) {
            Some(span) => (span / stride + 1) as u16,
            None => 0,
        };
        let locals_count: u128 = locals.iter().map(|range| u128::from(range.count())).sum();
        let targets_count: u128 = targets.iter().map(|target| u128::from(target.count())).sum();
        // Lists short enough to be written down stay far below 2^128.
        let count = locals_count * targets_count * u128::from(ports);
        Tuples {
            targets,
            locals,
            first_port: first as u16,
            ports,
            stride: shares,
            count: u64::try_from(count).unwrap_or(u64::MAX),
            next: Position::default(),
        }
    }

    /// Number of different four-tuples, if the ranges do not overlap each other. Saturates.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The next four-tuple, or `None` if the ranges are empty. O(1). The caller checks whether it
    /// is in use.
    #[allow(clippy::should_implement_trait)] // It is no iterator: it never ends, and it says so.
    pub fn next(&mut self) -> Option<FlowKey> {
        if self.count == 0 {
            return None;
        }
        let at = self.next;
        let (target, local) = (&self.targets[at.target], &self.locals[at.local]);
        let key = FlowKey {
            local: local.nth(at.local_address),
            remote: target.addresses.nth(at.target_address),
            local_port: self.first_port + at.port * self.stride,
            remote_port: target.first_port + at.target_port,
        };
        self.step();
        Some(key)
    }

    /// Turns the odometer by one: a wheel that comes round turns the next.
    fn step(&mut self) {
        let (target, local) = (&self.targets[self.next.target], &self.locals[self.next.local]);
        let last_target_port = target.last_port - target.first_port;
        let last_target_address = (target.addresses.count() - 1) as u32;
        let last_local_address = (local.count() - 1) as u32;
        let at = &mut self.next;
        if !turn(&mut at.target_port, last_target_port)
            || !turn(&mut at.target_address, last_target_address)
            || !turn(&mut at.target, self.targets.len() - 1)
            || !turn(&mut at.local_address, last_local_address)
            || !turn(&mut at.local, self.locals.len() - 1)
        {
            return;
        }
        turn(&mut at.port, self.ports - 1);
    }
}

/// Turns one wheel of an odometer whose highest digit is `last`; true if it came round to zero.
fn turn<T: Copy + PartialEq + Default + AddAssign + From<bool>>(digit: &mut T, last: T) -> bool {
    if *digit == last {
        *digit = T::default();
        return true;
    }
    *digit += T::from(true);
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

    fn ip(last: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 0, 0, last)
    }

    fn range(first: u8, last: u8) -> Range {
        Range { first: ip(first), last: ip(last) }
    }

    fn target(first: u8, last: u8, first_port: u16, last_port: u16) -> Target {
        Target { addresses: range(first, last), first_port, last_port }
    }

    fn ranges() -> Ranges {
        Ranges {
            locals: vec![range(1, 2)],
            first_port: 1000,
            last_port: 1001,
            targets: vec![target(11, 11, 80, 81), target(12, 12, 80, 80)],
            share: 0,
            shares: 1,
        }
    }

    #[test]
    fn targets_change_fastest_then_local_addresses_then_ports() {
        let mut tuples = Tuples::new(ranges());
        assert_eq!(tuples.count(), 12);
        let walk: Vec<String> = (0..8).map(|_| tuples.next().unwrap().to_string()).collect();
        let expected = [
            "10.0.0.1:1000 > 10.0.0.11:80",
            "10.0.0.1:1000 > 10.0.0.11:81",
            "10.0.0.1:1000 > 10.0.0.12:80",
            "10.0.0.2:1000 > 10.0.0.11:80",
            "10.0.0.2:1000 > 10.0.0.11:81",
            "10.0.0.2:1000 > 10.0.0.12:80",
            "10.0.0.1:1001 > 10.0.0.11:80",
            "10.0.0.1:1001 > 10.0.0.11:81",
        ];
        assert_eq!(walk, expected);
    }

    #[test]
    fn empty_ranges_give_nothing() {
        let empty = [
            Ranges { locals: vec![], ..ranges() },
            Ranges { locals: vec![range(2, 1)], ..ranges() },
            Ranges { targets: vec![target(11, 11, 81, 80)], ..ranges() },
            Ranges { targets: vec![target(11, 11, 0, 0)], ..ranges() },
            Ranges { first_port: 1002, ..ranges() },
            Ranges { share: 5, shares: 7, last_port: 1000, ..ranges() },
            Ranges { first_port: 65_535, last_port: 65_535, share: 0, shares: 2, ..ranges() },
        ];
        for ranges in empty {
            let mut tuples = Tuples::new(ranges.clone());
            assert_eq!((tuples.count(), tuples.next()), (0, None), "{ranges:?}");
        }
    }

    #[test]
    fn everything_there_is_does_not_overflow() {
        let all = Range { first: Ipv4Addr::UNSPECIFIED, last: Ipv4Addr::BROADCAST };
        let targets = vec![Target { addresses: all, first_port: 0, last_port: u16::MAX }];
        let locals = vec![all, all];
        let (first_port, last_port) = (0, u16::MAX);
        let whole = Ranges { locals, first_port, last_port, targets, share: 0, shares: 1 };
        let mut tuples = Tuples::new(whole);
        assert_eq!(tuples.count(), u64::MAX);
        let key = tuples.next().unwrap();
        assert_eq!((key.local_port, key.remote_port), (1, 1));
    }

    #[test]
    #[should_panic(expected = "share < shares")]
    fn a_share_that_does_not_exist_is_a_bug_of_the_caller() {
        Tuples::new(Ranges { share: 2, shares: 2, ..ranges() });
    }

    proptest! {
        #[test]
        fn the_shares_together_meet_each_tuple_once_a_round(
            locals in prop::collection::vec(0u8..3, 1..3),
            first_port in 1000u16..1008, ports in 0u16..12,
            targets in prop::collection::vec((0u8..3, 0u16..3), 1..3), shares in 1u16..5,
        ) {
            // The ranges of a list must not overlap, so each has a ten of its own.
            let tens = |at: usize| 10 * (at as u8 + 1);
            let whole = Ranges {
                locals: locals
                    .iter()
                    .enumerate()
                    .map(|(i, n)| range(tens(i), tens(i) + n))
                    .collect(),
                first_port,
                last_port: first_port + ports,
                targets: targets
                    .iter()
                    .enumerate()
                    .map(|(i, (n, ports))| target(100 + tens(i), 100 + tens(i) + n, 80, 80 + ports))
                    .collect(),
                share: 0,
                shares,
            };
            let mut seen = HashSet::new();
            for share in 0..shares {
                let mut tuples = Tuples::new(Ranges { share, ..whole.clone() });
                let round: Vec<FlowKey> =
                    (0..tuples.count()).map(|_| tuples.next().unwrap()).collect();
                for key in &round {
                    prop_assert!(seen.insert(*key), "{} met twice", key);
                    prop_assert_eq!(key.local_port % shares, share);
                }
                for key in round {
                    prop_assert_eq!(tuples.next(), Some(key));
                }
            }
            let addresses: u64 = locals.iter().map(|&n| u64::from(n) + 1).sum();
            let sockets: u64 =
                targets.iter().map(|&(n, p)| (u64::from(n) + 1) * (u64::from(p) + 1)).sum();
            prop_assert_eq!(seen.len() as u64, addresses * sockets * (u64::from(ports) + 1));
        }
    }
}
