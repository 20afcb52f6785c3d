//! Numbers for IPv6 addresses, so that a connection's key takes twelve bytes in either family.
//!
//! An address has a number as long as a connection has it for one of its ends. Fixed in size from
//! the start: when every number is taken, a new address is refused.

use super::key::{self, Endpoints, FlowKey, Host};
use crate::rng::Secret;
use crate::wire::Family;
use crate::wire::segment::Segment;
use hashbrown::HashTable;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// The IPv6 addresses of an engine's connections.
pub struct Hosts {
    secret: Secret,
    index: HashTable<u32>,
    entries: Vec<Entry>,
    free: Vec<u32>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    address: Ipv6Addr,
    /// Ends of connections that have this address; none if the entry is free.
    held: u32,
}

impl Hosts {
    /// Room for `max` addresses.
    ///
    /// # Panics
    /// If there are more than numbers, 2^28.
    pub fn new(max: u32, secret: Secret) -> Hosts {
        assert!(max < 1 << 28);
        Hosts {
            secret,
            // Twice the limit: below half load hashbrown never rehashes in place.
            index: HashTable::with_capacity(max as usize * 2),
            entries: vec![Entry { address: Ipv6Addr::UNSPECIFIED, held: 0 }; max as usize],
            free: (0..max).rev().collect(),
        }
    }

    /// The key of the connection that a received segment is for; `None` if there can't be one, for
    /// want of a number for an address.
    #[inline(always)]
    pub fn key_of_received(&self, segment: &Segment) -> Option<FlowKey> {
        let (IpAddr::V4(local), IpAddr::V4(remote)) = (&segment.dst, &segment.src) else {
            return self.key_of(&Endpoints::of_received(segment));
        };
        // By reference: four bytes were just written, and more are not read.
        let (local, remote) = (Host::v4(*local)?, Host::v4(*remote)?);
        let (local_port, remote_port) = (segment.dst_port, segment.src_port);
        Some(FlowKey { local, remote, local_port, remote_port })
    }

    /// The key of a connection; `None` if there can't be one, for want of a number for an address.
    pub fn key_of(&self, endpoints: &Endpoints) -> Option<FlowKey> {
        Some(FlowKey {
            local: self.find(endpoints.local.ip())?,
            remote: self.find(endpoints.remote.ip())?,
            local_port: endpoints.local.port(),
            remote_port: endpoints.remote.port(),
        })
    }

    /// What a key stands for.
    pub fn endpoints(&self, key: &FlowKey) -> Endpoints {
        Endpoints {
            local: SocketAddr::new(self.address(key.local), key.local_port),
            remote: SocketAddr::new(self.address(key.remote), key.remote_port),
        }
    }

    #[inline(always)]
    pub fn address(&self, host: Host) -> IpAddr {
        match host.known() {
            Ok(address) => IpAddr::V4(address),
            Err(place) => IpAddr::V6(self.entries[place].address),
        }
    }

    /// Numbers both addresses for one more connection; `None` if there is no number left. Each key
    /// it answers is to be given back to [`Hosts::leave`].
    #[inline]
    pub fn hold(&mut self, endpoints: &Endpoints) -> Option<FlowKey> {
        let local = self.hold_one(endpoints.local.ip())?;
        let Some(remote) = self.hold_one(endpoints.remote.ip()) else {
            self.leave_one(local);
            return None;
        };
        let (local_port, remote_port) = (endpoints.local.port(), endpoints.remote.port());
        Some(FlowKey { local, remote, local_port, remote_port })
    }

    /// What has a key that is held holds it once more.
    #[inline]
    pub fn hold_again(&mut self, key: &FlowKey) {
        if key.family() == Family::V6 {
            self.hold_numbers_again(key);
        }
    }

    #[inline(never)]
    fn hold_numbers_again(&mut self, key: &FlowKey) {
        for host in [key.local, key.remote] {
            if let Err(place) = host.known() {
                self.entries[place].held += 1;
            }
        }
    }

    /// A connection is gone.
    #[inline]
    pub fn leave(&mut self, key: &FlowKey) {
        if key.family() == Family::V6 {
            self.leave_numbers(key);
        }
    }

    #[inline(never)]
    fn leave_numbers(&mut self, key: &FlowKey) {
        self.leave_one(key.local);
        self.leave_one(key.remote);
    }

    /// Ends of connections that hold a number.
    pub fn held(&self) -> usize {
        self.entries.iter().map(|entry| entry.held as usize).sum()
    }

    #[inline]
    fn find(&self, address: IpAddr) -> Option<Host> {
        match address {
            IpAddr::V4(address) => Host::v4(address),
            IpAddr::V6(address) => self.place(address).map(Host::numbered),
        }
    }

    #[inline(never)]
    fn place(&self, address: Ipv6Addr) -> Option<u32> {
        let found = |&place: &u32| self.entries[place as usize].address == address;
        self.index.find(hash(&self.secret, address), found).copied()
    }

    #[inline]
    fn hold_one(&mut self, address: IpAddr) -> Option<Host> {
        match address {
            IpAddr::V4(address) => Host::v4(address),
            IpAddr::V6(address) => self.hold_number(address),
        }
    }

    #[inline(never)]
    fn hold_number(&mut self, address: Ipv6Addr) -> Option<Host> {
        if let Some(place) = self.place(address) {
            self.entries[place as usize].held += 1;
            return Some(Host::numbered(place));
        }
        let place = self.free.pop()?;
        self.entries[place as usize] = Entry { address, held: 1 };
        let (entries, secret) = (&self.entries, &self.secret);
        let rehash = |&place: &u32| hash(secret, entries[place as usize].address);
        self.index.insert_unique(rehash(&place), place, rehash);
        Some(Host::numbered(place))
    }

    fn leave_one(&mut self, host: Host) {
        let Err(place) = host.known() else { return };
        let entry = &mut self.entries[place];
        assert!(entry.held > 0, "an address that nobody holds");
        entry.held -= 1;
        if entry.held > 0 {
            return;
        }
        let filed = self
            .index
            .find_entry(hash(&self.secret, entry.address), |&filed| filed as usize == place);
        filed.expect("every address with a number is filed").remove();
        self.free.push(place as u32);
    }
}

/// Strangers choose their addresses: keyed, so that they can't aim at one bucket.
fn hash(secret: &Secret, address: Ipv6Addr) -> u64 {
    let [a, b] = key::words(IpAddr::V6(address));
    secret.bucket(a, b)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    fn hosts(max: u32) -> Hosts {
        Hosts::new(max, Secret::from_seed(1))
    }

    fn endpoints(local: &str, remote: &str) -> Endpoints {
        Endpoints { local: local.parse().unwrap(), remote: remote.parse().unwrap() }
    }

    #[test]
    fn an_ipv4_address_is_itself_and_needs_no_number() {
        let mut hosts = hosts(0);
        let ends = endpoints("10.0.0.1:80", "10.0.0.2:4000");
        let key = hosts.hold(&ends).unwrap();
        assert_eq!(key, FlowKey::v4(([10, 0, 0, 1], 80), ([10, 0, 0, 2], 4000)));
        assert_eq!(hosts.key_of(&ends), Some(key));
        assert_eq!(hosts.endpoints(&key), ends);
        hosts.leave(&key);
        let nobody = endpoints("10.0.0.1:80", "240.0.0.1:4000");
        assert_eq!((hosts.key_of(&nobody), hosts.hold(&nobody)), (None, None));
    }

    #[test]
    fn an_address_is_known_as_long_as_somebody_holds_it() {
        let mut hosts = hosts(3);
        let ends = endpoints("[fd00::1]:80", "[fd00::2]:4000");
        assert_eq!(hosts.key_of(&ends), None);
        let first = hosts.hold(&ends).unwrap();
        let second = hosts.hold(&endpoints("[fd00::1]:80", "[fd00::3]:4000")).unwrap();
        assert_eq!((first.local, first.family()), (second.local, Family::V6));
        assert_ne!(first.remote, second.remote);
        assert_eq!((hosts.key_of(&ends), hosts.endpoints(&first)), (Some(first), ends));
        let full = endpoints("[fd00::1]:80", "[fd00::4]:4000");
        assert_eq!(hosts.hold(&full), None, "no number left");
        assert_eq!(hosts.held(), 4, "and nothing is held of what was refused");
        hosts.leave(&first);
        assert_eq!(hosts.key_of(&ends), None);
        assert!(hosts.hold(&full).is_some());
    }

    proptest! {
        #[test]
        fn numbers_and_addresses_agree_with_a_map_whatever_comes_and_goes(
            steps in prop::collection::vec((any::<bool>(), 0u16..12), 0..200),
        ) {
            let mut hosts = hosts(8);
            let mut held: HashMap<u16, Vec<FlowKey>> = HashMap::new();
            for (come, who) in steps {
                let ends = endpoints("[fe80::1]:1", &format!("[fe80::2:{who:x}]:2"));
                if come {
                    let known = held.values().filter(|keys| !keys.is_empty()).count();
                    let room = known < 7 || held.get(&who).is_some_and(|keys| !keys.is_empty());
                    let key = hosts.hold(&ends);
                    prop_assert_eq!(key.is_some(), room);
                    held.entry(who).or_default().extend(key);
                } else if let Some(key) = held.get_mut(&who).and_then(Vec::pop) {
                    prop_assert_eq!(hosts.endpoints(&key), ends);
                    hosts.leave(&key);
                }
                let last = held.get(&who).and_then(|keys| keys.last()).copied();
                prop_assert_eq!(hosts.key_of(&ends), last);
            }
            let ends: usize = held.values().map(|keys| 2 * keys.len()).sum();
            prop_assert_eq!(hosts.held(), ends);
        }
    }
}
