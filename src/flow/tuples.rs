//! Which four-tuple the next connection gets.

use super::Endpoints;
use super::rss::{HomePorts, Rss};
use crate::wire::Family;
use std::net::{IpAddr, SocketAddr};
use std::ops::AddAssign;
use std::sync::Arc;

/// Places of a walk looked at for one four-tuple. A place without one is rare unless there are
/// fewer ports than the NIC has buckets: then some launches are put off.
pub const PLACES_MAX: u32 = 64;

/// Addresses `first..=last`, of one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    pub first: IpAddr,
    pub last: IpAddr,
}

/// Where connections are opened to: every address with every port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    pub addresses: Range,
    pub first_port: u16,
    pub last_port: u16,
}

/// What four-tuples are made of: each target with the local addresses of its family. Worker `share`
/// of `shares` uses those whose replies `rss` brings to it, or, where that is not known, the source
/// ports that leave remainder `share`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ranges {
    pub locals: Vec<Range>,
    pub first_port: u16,
    pub last_port: u16,
    pub targets: Vec<Target>,
    pub share: u16,
    pub shares: u16,
    pub rss: Option<Arc<Rss>>,
}

/// An endless walk over the four-tuples of the ranges: targets round-robin (RFC 3511 s4.4), then
/// local addresses, then ports, so that a tuple rests as long as possible before it is met again.
/// With targets in both families, a round of the one's is followed by a round of the other's.
#[derive(Clone, Debug)]
pub struct Tuples {
    /// One for each family that there are four-tuples in.
    walks: Vec<Walk>,
    /// Places of a round.
    count: u64,
    /// Whose round it is.
    turn: usize,
}

/// The walk in one family: each four-tuple is met once a round.
#[derive(Clone, Debug)]
struct Walk {
    /// Each with the place of its last address.
    targets: Vec<(Target, u128)>,
    /// Likewise.
    locals: Vec<(Range, u128)>,
    ports: Ports,
    next: Position,
}

/// The source ports of a walk.
#[derive(Clone, Debug)]
enum Ports {
    /// The first, how many, and how far apart.
    Apart { first: u16, count: u16, stride: u16 },
    /// Those that bring replies home, which depends on the rest of the four-tuple.
    Home(HomePorts),
}

/// Where the walk stands: an odometer whose fastest wheel is the target's port.
#[derive(Clone, Copy, Debug, Default)]
struct Position {
    target_port: u16,
    target_address: u128,
    target: usize,
    local_address: u128,
    local: usize,
    port: u32,
}

impl Range {
    /// One address.
    pub fn only(address: impl Into<IpAddr>) -> Range {
        let address = address.into();
        Range { first: address, last: address }
    }

    /// Number of addresses; zero if `last` comes before `first` or is of another family. Saturates.
    pub fn count(&self) -> u128 {
        match (self.first, self.last) {
            (IpAddr::V4(first), IpAddr::V4(last)) => {
                (u128::from(last.to_bits()) + 1).saturating_sub(u128::from(first.to_bits()))
            }
            (IpAddr::V6(first), IpAddr::V6(last)) if first <= last => {
                (last.to_bits() - first.to_bits()).saturating_add(1)
            }
            _ => 0,
        }
    }

    /// The address `offset` after the first; the caller has seen that it is in the range.
    pub fn nth(&self, offset: u128) -> IpAddr {
        match self.first {
            IpAddr::V4(first) => IpAddr::V4((first.to_bits() + offset as u32).into()),
            IpAddr::V6(first) => IpAddr::V6((first.to_bits() + offset).into()),
        }
    }

    fn is_of(&self, family: Family) -> bool {
        Family::of(self.first) == family
    }
}

impl Ranges {
    /// The worker that may have opened a connection between `endpoints`, if any has; `share` itself
    /// where what the remote side sends comes to nobody.
    pub fn worker_of(&self, endpoints: &Endpoints) -> u16 {
        match &self.rss {
            Some(rss) => Some(rss.worker_of(endpoints)).filter(|&worker| worker < self.shares),
            None => Some(endpoints.local.port() % self.shares),
        }
        .unwrap_or(self.share)
    }
}

impl Target {
    /// Number of sockets: addresses times ports. Saturates.
    pub fn count(&self) -> u128 {
        let ports = (u128::from(self.last_port) + 1).saturating_sub(u128::from(self.first_port));
        self.addresses.count().saturating_mul(ports)
    }
}

impl Tuples {
    /// A walk that starts at the first of everything. Port 0 is no port and left out.
    ///
    /// # Panics
    /// If there are no shares, or `share` is not one of them: a bug of the caller.
    pub fn new(ranges: Ranges) -> Tuples {
        assert!(ranges.share < ranges.shares);
        let families = [Family::V4, Family::V6];
        let walks = families.into_iter().map(|family| Walk::new(&ranges, family));
        let walks: Vec<Walk> = walks.filter(|walk| walk.count() > 0).collect();
        let count = sum(walks.iter().map(Walk::count));
        Tuples { walks, count: u64::try_from(count).unwrap_or(u64::MAX), turn: 0 }
    }

    /// Places of a round. Each is another four-tuple if the ranges do not overlap each other; with
    /// `rss` some may be empty. Saturates.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The next four-tuple, or `None` if the ranges are empty, or so nearly that 64 places hold
    /// none. O(1). The caller checks whether it is in use. So a SYN has an address of ours before
    /// it goes out (RFC 9293 s3.9.1.1, MUST-44).
    #[inline(always)]
    #[allow(clippy::should_implement_trait)] // It is no iterator: it never ends, and it says so.
    pub fn next(&mut self) -> Option<Endpoints> {
        let last = self.walks.len().checked_sub(1)?;
        for _ in 0..PLACES_MAX {
            let walk = &mut self.walks[self.turn];
            let endpoints = walk.endpoints();
            if walk.step() {
                turn(&mut self.turn, last);
            }
            if endpoints.is_some() {
                return endpoints;
            }
        }
        None
    }
}

impl Walk {
    fn new(ranges: &Ranges, family: Family) -> Walk {
        let Ranges { locals, targets, .. } = ranges;
        let in_use = |range: &Range| range.is_of(family) && range.count() > 0;
        let last = |range: &Range| range.count() - 1;
        let at_port = |target: &Target| Target { first_port: target.first_port.max(1), ..*target };
        Walk {
            targets: targets
                .iter()
                .map(at_port)
                .filter(|target| in_use(&target.addresses) && target.count() > 0)
                .map(|target| (target, last(&target.addresses)))
                .collect(),
            locals: locals
                .iter()
                .filter(|local| in_use(local))
                .map(|local| (*local, last(local)))
                .collect(),
            ports: Ports::new(ranges, family),
            next: Position::default(),
        }
    }

    fn count(&self) -> u128 {
        let locals = self.locals.iter().map(|(local, _)| local.count());
        let targets = self.targets.iter().map(|(target, _)| target.count());
        let pairs = sum(locals).saturating_mul(sum(targets));
        pairs.saturating_mul(u128::from(self.ports.places()))
    }

    /// The four-tuple of this place, if it has one.
    fn endpoints(&self) -> Option<Endpoints> {
        let at = self.next;
        let ((target, _), (local, _)) = (&self.targets[at.target], &self.locals[at.local]);
        let local = local.nth(at.local_address);
        let remote = SocketAddr::new(
            target.addresses.nth(at.target_address),
            target.first_port + at.target_port,
        );
        let port = self.ports.at(at.port, remote, local)?;
        Some(Endpoints { local: SocketAddr::new(local, port), remote })
    }

    /// Turns the odometer by one: a wheel that comes round turns the next. True if all targets have
    /// been met.
    fn step(&mut self) -> bool {
        let (target, last_target_address) = self.targets[self.next.target];
        let (_, last_local_address) = self.locals[self.next.local];
        let last_target_port = target.last_port - target.first_port;
        let at = &mut self.next;
        if !turn(&mut at.target_port, last_target_port)
            || !turn(&mut at.target_address, last_target_address)
            || !turn(&mut at.target, self.targets.len() - 1)
        {
            return false;
        }
        if turn(&mut at.local_address, last_local_address)
            && turn(&mut at.local, self.locals.len() - 1)
        {
            turn(&mut at.port, self.ports.places() - 1);
        }
        true
    }
}

impl Ports {
    fn new(ranges: &Ranges, family: Family) -> Ports {
        let &Ranges { first_port, last_port, share, shares, ref rss, .. } = ranges;
        let low = first_port.max(1);
        if let Some(rss) = rss {
            return Ports::Home(HomePorts::new(rss, share, family, low, last_port));
        }
        // The first port from `low` on that leaves remainder `share`; it may lie past 65,535.
        let (low, stride) = (u32::from(low), u32::from(shares));
        let first = low + (u32::from(share) + stride - low % stride) % stride;
        let count = match u32::from(last_port).checked_sub(first) {
            Some(span) => (span / stride + 1) as u16,
            None => 0,
        };
        Ports::Apart { first: first as u16, count, stride: shares }
    }

    fn places(&self) -> u32 {
        match self {
            Ports::Apart { count, .. } => u32::from(*count),
            Ports::Home(home) => home.places(),
        }
    }

    /// The port at `place`, if it suits the rest of the four-tuple.
    fn at(&self, place: u32, remote: SocketAddr, local: IpAddr) -> Option<u16> {
        match self {
            Ports::Apart { first, stride, .. } => Some(first + place as u16 * stride),
            Ports::Home(home) => home.at(place, remote, local),
        }
    }
}

/// Adds up; saturates.
fn sum(counts: impl Iterator<Item = u128>) -> u128 {
    counts.fold(0, u128::saturating_add)
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

    fn ip(last: u8) -> IpAddr {
        [10, 0, 0, last].into()
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
            rss: None,
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
    fn each_family_has_its_own_pairs_and_all_targets_their_turn() {
        let six = |last: u16| IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, last]);
        let range = |first, last| Range { first: six(first), last: six(last) };
        let mut ranges = ranges();
        ranges.locals.push(range(1, 2));
        let addresses = range(0xf, 0x10);
        ranges.targets.push(Target { addresses, first_port: 80, last_port: 80 });
        let mut tuples = Tuples::new(ranges);
        assert_eq!(tuples.count(), 12 + 2 * 2 * 2);
        let walk: Vec<String> = (0..7).map(|_| tuples.next().unwrap().to_string()).collect();
        let expected = [
            "10.0.0.1:1000 > 10.0.0.11:80",
            "10.0.0.1:1000 > 10.0.0.11:81",
            "10.0.0.1:1000 > 10.0.0.12:80",
            "[fd00::1]:1000 > [fd00::f]:80",
            "[fd00::1]:1000 > [fd00::10]:80",
            "10.0.0.2:1000 > 10.0.0.11:80",
            "10.0.0.2:1000 > 10.0.0.11:81",
        ];
        assert_eq!(walk, expected);
    }

    #[test]
    fn empty_ranges_give_nothing() {
        let empty = [
            Ranges { locals: vec![], ..ranges() },
            Ranges { locals: vec![range(2, 1)], ..ranges() },
            Ranges { locals: vec![Range::only([0xfd; 16])], ..ranges() },
            Ranges { locals: vec![Range { last: [0xfd; 16].into(), ..range(1, 2) }], ..ranges() },
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
        let four = Range { first: [0; 4].into(), last: [255; 4].into() };
        let six = Range { first: [0; 16].into(), last: [255; 16].into() };
        let all = |addresses| Target { addresses, first_port: 0, last_port: u16::MAX };
        let (locals, targets) = (vec![four, six, four, six], vec![all(four), all(six)]);
        let (first_port, last_port) = (0, u16::MAX);
        let whole = Ranges { locals, first_port, last_port, targets, ..ranges() };
        let mut tuples = Tuples::new(whole);
        assert_eq!(tuples.count(), u64::MAX);
        let key = tuples.next().unwrap();
        assert_eq!((key.local.port(), key.remote.port()), (1, 1));
    }

    #[test]
    #[should_panic(expected = "ranges.share < ranges.shares")]
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
                rss: None,
            };
            let mut seen = HashSet::new();
            for share in 0..shares {
                let mut tuples = Tuples::new(Ranges { share, ..whole.clone() });
                let round: Vec<Endpoints> =
                    (0..tuples.count()).map(|_| tuples.next().unwrap()).collect();
                for key in &round {
                    prop_assert!(seen.insert(*key), "{} met twice", key);
                    prop_assert_eq!(whole.worker_of(key), share);
                    prop_assert_eq!(key.local.port() % shares, share);
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

        #[test]
        fn with_a_known_hash_the_shares_meet_each_tuple_once_a_round_where_its_reply_comes(
            key: [u8; 32], table in prop::collection::vec(0u16..3, 16),
            ports in 0u16..300, locals in 0u8..3, sockets in 0u16..3,
        ) {
            let key = std::array::from_fn(|at| key[at % 32]);
            let rss = Arc::new(Rss::new(&key, table).unwrap());
            let whole = Ranges {
                locals: vec![range(1, 1 + locals)],
                first_port: 1000,
                last_port: 1000 + ports,
                targets: vec![target(100, 101, 80, 80 + sockets)],
                share: 0,
                shares: 3,
                rss: Some(Arc::clone(&rss)),
            };
            let mut seen = HashSet::new();
            for share in 0..3 {
                let mut tuples = Tuples::new(Ranges { share, ..whole.clone() });
                let count = tuples.count();
                let mut round = || -> Vec<Endpoints> {
                    let mut place = |_| {
                        let walk = tuples.walks.first_mut()?;
                        let endpoints = walk.endpoints();
                        walk.step();
                        endpoints
                    };
                    (0..count).filter_map(&mut place).collect()
                };
                let first = round();
                for key in &first {
                    prop_assert!(seen.insert(*key), "{} met twice", key);
                    prop_assert_eq!(whole.worker_of(key), share);
                }
                prop_assert_eq!(round(), first);
            }
            let pairs = (u64::from(locals) + 1) * 2 * (u64::from(sockets) + 1);
            prop_assert_eq!(seen.len() as u64, pairs * (u64::from(ports) + 1));
        }
    }
}
