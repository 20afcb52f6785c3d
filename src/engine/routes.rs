//! Which addresses are ours, and where a datagram goes first.

use crate::flow::tuples::Range;
use crate::wire::Family;
use std::net::{IpAddr, Ipv6Addr};

/// Addresses that are ours, on one subnet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subnet {
    pub first: IpAddr,
    /// Of the same family.
    pub last: IpAddr,
    pub prefix_len: u8,
    /// The 802.1Q tag of what these addresses send, and of what is sent to them.
    pub vlan: Option<u16>,
}

/// A host on one of our links.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hop {
    pub ip: IpAddr,
    pub vlan: Option<u16>,
}

/// Our subnets and the routers on them.
#[derive(Clone, Debug)]
pub struct Routes {
    subnets: Vec<Subnet>,
    /// The first that the sender's link has is the one that it uses.
    gateways: Vec<IpAddr>,
    /// Those over IPv4, as every segment asks for them.
    ours_v4: Vec<OursV4>,
}

/// Addresses that are ours, and their tag.
#[derive(Clone, Copy, Debug)]
struct OursV4 {
    first: u32,
    last: u32,
    vlan: Option<u16>,
}

impl Subnet {
    /// One untagged address.
    pub fn only(address: impl Into<IpAddr>, prefix_len: u8) -> Subnet {
        let address = address.into();
        Subnet { first: address, last: address, prefix_len, vlan: None }
    }

    pub fn range(&self) -> Range {
        Range { first: self.first, last: self.last }
    }

    #[inline]
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.first, self.last, address) {
            (IpAddr::V4(first), IpAddr::V4(last), IpAddr::V4(address)) => {
                (first.to_bits()..=last.to_bits()).contains(&address.to_bits())
            }
            (IpAddr::V6(first), IpAddr::V6(last), IpAddr::V6(address)) => {
                are_ordered(first, address, last)
            }
            _ => false,
        }
    }

    /// True if `address` is a neighbour on this subnet. Every link has the link-local addresses of
    /// IPv6 (RFC 4291 s2.5.6).
    pub fn is_on_link(&self, address: IpAddr) -> bool {
        match (self.first, address) {
            (IpAddr::V4(first), IpAddr::V4(address)) => {
                let host_bits = 32 - u32::from(self.prefix_len.min(32));
                (u64::from(first.to_bits() ^ address.to_bits())) >> host_bits == 0
            }
            (IpAddr::V6(first), IpAddr::V6(address)) => {
                is_neighbour(first, self.prefix_len, address)
            }
            _ => false,
        }
    }

    /// True if `address` is everyone's on this subnet: its last (RFC 1122 s3.2.1.3). A link between
    /// two has none (RFC 3021 s2.1).
    fn is_broadcast(&self, address: IpAddr) -> bool {
        let host_bits = match address {
            IpAddr::V4(v4) => v4.to_bits().trailing_ones(),
            IpAddr::V6(_) => return false,
        };
        self.prefix_len < 31
            && self.is_on_link(address)
            && host_bits >= 32 - u32::from(self.prefix_len)
    }
}

impl Routes {
    pub fn new(subnets: Vec<Subnet>, gateways: Vec<IpAddr>) -> Routes {
        let ours_v4 = subnets.iter().filter_map(|&Subnet { first, last, vlan, .. }| {
            let (IpAddr::V4(first), IpAddr::V4(last)) = (first, last) else { return None };
            Some(OursV4 { first: first.to_bits(), last: last.to_bits(), vlan })
        });
        Routes { ours_v4: ours_v4.collect(), subnets, gateways }
    }

    /// The subnet that has our address `address`, if it is ours.
    #[inline]
    pub fn subnet_of(&self, address: IpAddr) -> Option<&Subnet> {
        self.subnets.iter().find(|subnet| subnet.contains(address))
    }

    /// True if `address` is ours on the link with this tag.
    #[inline(always)]
    pub fn has(&self, address: IpAddr, vlan: Option<u16>) -> bool {
        let IpAddr::V4(v4) = address else { return self.has_v6(address, vlan) };
        let bits = v4.to_bits();
        for ours in &self.ours_v4 {
            if ours.first <= bits && bits <= ours.last && ours.vlan == vlan {
                return true;
            }
        }
        false
    }

    #[inline(never)]
    fn has_v6(&self, address: IpAddr, vlan: Option<u16>) -> bool {
        self.subnets.iter().any(|subnet| subnet.vlan == vlan && subnet.contains(address))
    }

    /// Where a datagram from our address `local` to `remote` goes first: to the host itself if it
    /// is on our link, else to a gateway that is. Without either it is asked for on the link.
    #[inline(always)]
    pub fn next_hop(&self, local: IpAddr, remote: IpAddr) -> Hop {
        let vlan = self.subnet_of(local).and_then(|subnet| subnet.vlan);
        let on_link = |ip: IpAddr| {
            self.subnets.iter().any(|subnet| subnet.vlan == vlan && subnet.is_on_link(ip))
        };
        if on_link(remote) {
            return Hop { ip: remote, vlan };
        }
        self.gateway(remote, vlan)
    }

    /// The gateway on this link to what is not on it.
    #[cold]
    fn gateway(&self, remote: IpAddr, vlan: Option<u16>) -> Hop {
        let on_link = |ip: IpAddr| {
            self.subnets.iter().any(|subnet| subnet.vlan == vlan && subnet.is_on_link(ip))
        };
        let family = Family::of(remote);
        let elsewhere = |ip: IpAddr| self.subnets.iter().any(|subnet| subnet.is_on_link(ip));
        let leads = |ip: &IpAddr| Family::of(*ip) == family && (on_link(*ip) || !elsewhere(*ip));
        let gateway = self.gateways.iter().copied().find(leads);
        Hop { ip: gateway.unwrap_or(remote), vlan }
    }

    /// True if `address` can be one host's (RFC 9293 s3.9.1.1, MUST-46): it is no group's,
    /// nobody's, not a loopback address, and not everyone's on one of our links.
    #[inline]
    pub fn is_one_host(&self, address: IpAddr) -> bool {
        if address.is_multicast() || address.is_unspecified() || address.is_loopback() {
            return false;
        }
        match address {
            // "This network" and class E, limited broadcast included (RFC 1122 s3.2.1.3).
            IpAddr::V4(v4) if matches!(v4.octets()[0], 0 | 240..) => false,
            IpAddr::V4(_) => !self.subnets.iter().any(|subnet| subnet.is_broadcast(address)),
            IpAddr::V6(v6) => v6.to_ipv4_mapped().is_none(),
        }
    }

    /// The address of ours to ask for `hop` from: one on the same subnet, else the first on the
    /// link.
    pub fn address_towards(&self, hop: Hop) -> Option<IpAddr> {
        let family = Family::of(hop.ip);
        let linked =
            |subnet: &&Subnet| subnet.vlan == hop.vlan && Family::of(subnet.first) == family;
        let mut candidates = self.subnets.iter().filter(linked);
        let same = |subnet: &&Subnet| subnet.is_on_link(hop.ip);
        let best = candidates.clone().find(same).or_else(|| candidates.next());
        best.map(|subnet| subnet.first)
    }

    /// True if any address is of `family`.
    pub fn speaks(&self, family: Family) -> bool {
        self.subnets.iter().any(|subnet| Family::of(subnet.first) == family)
    }
}

#[inline(never)]
fn are_ordered(first: Ipv6Addr, address: Ipv6Addr, last: Ipv6Addr) -> bool {
    (first.to_bits()..=last.to_bits()).contains(&address.to_bits())
}

#[inline(never)]
fn is_neighbour(ours: Ipv6Addr, prefix_len: u8, address: Ipv6Addr) -> bool {
    let host_bits = 128 - u32::from(prefix_len.min(128));
    let differs = ours.to_bits() ^ address.to_bits();
    differs.checked_shr(host_bits).unwrap_or(0) == 0 || is_link_local(address)
}

/// fe80::/10 (RFC 4291 s2.5.6).
fn is_link_local(address: Ipv6Addr) -> bool {
    address.segments()[0] & 0xffc0 == 0xfe80
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn routes() -> Routes {
        let tagged = |address: &str, prefix_len, vlan| Subnet {
            vlan: Some(vlan),
            ..Subnet::only(ip(address), prefix_len)
        };
        let subnets = vec![
            Subnet::only(ip("10.0.0.2"), 24),
            tagged("10.0.1.2", 24, 100),
            Subnet::only(ip("fd00::2"), 64),
            tagged("fd01::2", 64, 100),
        ];
        Routes::new(subnets, vec![ip("10.0.0.1"), ip("10.0.1.1"), ip("fe80::1")])
    }

    #[test]
    fn groups_everyone_and_nobody_are_no_host() {
        let routes = routes();
        let hosts = ["10.0.0.1", "10.0.2.255", "192.0.2.255", "fd00::1", "fe80::1", "2001:db8::"];
        let none = [
            "224.0.0.1",
            "239.1.2.3",
            "255.255.255.255",
            "240.0.0.1",
            "0.0.0.0",
            "0.1.2.3",
            "127.0.0.1",
            "10.0.0.255",
            "10.0.1.255",
            "ff02::1",
            "::",
            "::1",
            "::ffff:10.0.0.1",
        ];
        for host in hosts {
            assert!(routes.is_one_host(ip(host)), "{host}");
        }
        for other in none {
            assert!(!routes.is_one_host(ip(other)), "{other}");
        }
        let pair = Routes::new(vec![Subnet::only(ip("10.0.0.0"), 31)], vec![]);
        assert!(pair.is_one_host(ip("10.0.0.1")), "a link of two has no broadcast");
    }

    #[test]
    fn a_datagram_stays_on_the_link_of_its_source() {
        let routes = routes();
        let hop = |local: &str, remote: &str| {
            let Hop { ip, vlan } = routes.next_hop(ip(local), ip(remote));
            (ip.to_string(), vlan)
        };
        let expect = |ip: &str, vlan| (ip.to_owned(), vlan);
        assert_eq!(hop("10.0.0.2", "10.0.0.9"), expect("10.0.0.9", None));
        assert_eq!(hop("10.0.0.2", "192.0.2.1"), expect("10.0.0.1", None));
        assert_eq!(hop("10.0.0.2", "10.0.1.9"), expect("10.0.0.1", None));
        assert_eq!(hop("10.0.1.2", "10.0.1.9"), expect("10.0.1.9", Some(100)));
        assert_eq!(hop("10.0.1.2", "192.0.2.1"), expect("10.0.1.1", Some(100)));
        assert_eq!(hop("fd00::2", "fd00::9"), expect("fd00::9", None));
        assert_eq!(hop("fd00::2", "2001:db8::1"), expect("fe80::1", None));
        assert_eq!(hop("fd01::2", "2001:db8::1"), expect("fe80::1", Some(100)));
        assert_eq!(hop("fd01::2", "fe80::9"), expect("fe80::9", Some(100)));
    }

    #[test]
    fn without_a_gateway_a_stranger_is_asked_for_on_the_link() {
        let lonely = Routes::new(routes().subnets, vec![ip("10.0.0.1")]);
        assert_eq!(lonely.next_hop(ip("fd00::2"), ip("2001:db8::1")).ip, ip("2001:db8::1"));
        assert_eq!(lonely.next_hop(ip("10.0.1.2"), ip("192.0.2.1")).ip, ip("192.0.2.1"));
    }

    #[test]
    fn a_neighbour_is_asked_for_from_an_address_of_its_family_and_link() {
        let routes = routes();
        let from = |ip_: &str, vlan| routes.address_towards(Hop { ip: ip(ip_), vlan });
        assert_eq!(from("10.0.1.9", Some(100)), Some(ip("10.0.1.2")));
        assert_eq!(from("192.0.2.1", None), Some(ip("10.0.0.2")));
        assert_eq!(from("fe80::1", Some(100)), Some(ip("fd01::2")));
        assert_eq!(from("fe80::1", Some(7)), None);
    }

    #[test]
    fn prefixes_of_every_length_are_compared_by_their_bits_alone() {
        let subnet = |address: &str, len| Subnet::only(ip(address), len);
        for (address, len, other, on_link) in [
            ("10.0.0.1", 0, "192.0.2.1", true),
            ("10.0.0.1", 32, "10.0.0.0", false),
            ("10.0.0.1", 31, "10.0.0.0", true),
            ("fd00::1", 0, "2001:db8::1", true),
            ("fd00::1", 128, "fd00::", false),
            ("fd00::1", 127, "fd00::", true),
            ("fd00::1", 64, "10.0.0.1", false),
        ] {
            assert_eq!(subnet(address, len).is_on_link(ip(other)), on_link, "{address}/{len}");
        }
    }
}
