//! Which links a run has: our addresses with the VLAN of each, the routers on them, and whether
//! what we connect to can be reached from all of them.

use super::super::settings::FamilyName;
use crate::engine::Subnet;
use crate::flow::tuples::{Range, Target};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The smallest MTU that every link with IPv6 has, in bytes (RFC 8200 s5).
const MTU_MIN_IPV6: u16 = 1280;

/// Our addresses, with `vlan` for those that have none of their own.
///
/// # Errors
/// Datagrams of `mtu` bytes are too small for one of them, or one has two VLANs.
pub(super) fn subnets(
    mut subnets: Vec<Subnet>,
    vlan: Option<u16>,
    mtu: Option<u16>,
) -> Result<Vec<Subnet>, String> {
    for subnet in &mut subnets {
        subnet.vlan = subnet.vlan.or(vlan);
    }
    if let Some(mtu) = mtu {
        mtu_suits(mtu, &subnets).map_err(|error| format!("--mtu {mtu}: {error}"))?;
    }
    let mut sorted = subnets.clone();
    sorted.sort_unstable_by_key(|subnet| (subnet.first, subnet.last));
    // Of those that overlap, the one that reaches furthest: all have its VLAN.
    let mut furthest = sorted.first().copied();
    for subnet in sorted {
        match furthest {
            Some(before) if subnet.first <= before.last => {
                if subnet.vlan != before.vlan {
                    return Err(format!("{} has two VLANs: give it one", subnet.first));
                }
                if subnet.last > before.last {
                    furthest = Some(subnet);
                }
            }
            _ => furthest = Some(subnet),
        }
    }
    Ok(subnets)
}

/// Holds datagrams of `mtu` bytes to being large enough for every address.
///
/// # Errors
/// They are too small for one.
pub fn mtu_suits(mtu: u16, subnets: &[Subnet]) -> Result<(), String> {
    match subnets.iter().find(|subnet| subnet.first.is_ipv6() && mtu < MTU_MIN_IPV6) {
        Some(Subnet { first, .. }) => {
            Err(format!("{first} is IPv6, which needs at least {MTU_MIN_IPV6} bytes (RFC 8200 s5)"))
        }
        None => Ok(()),
    }
}

/// The routers, one for each link and family.
///
/// # Errors
/// Of two on one link the second would never be used.
pub(super) fn gateways(gateways: Vec<IpAddr>, subnets: &[Subnet]) -> Result<Vec<IpAddr>, String> {
    let links = |gateway: IpAddr| {
        let on_link = subnets.iter().filter(move |subnet| subnet.is_on_link(gateway));
        let mut links: Vec<_> = on_link.map(|subnet| subnet.vlan).collect();
        links.sort_unstable();
        links.dedup();
        links
    };
    for (place, &gateway) in gateways.iter().enumerate() {
        if !subnets.iter().any(|subnet| subnet.first.is_ipv4() == gateway.is_ipv4()) {
            return Err(format!("--gateway {gateway} is {}, and no --addr is", family_of(gateway)));
        }
        let twin = gateways[..place]
            .iter()
            .find(|other| other.is_ipv4() == gateway.is_ipv4() && links(**other) == links(gateway));
        if let Some(twin) = twin {
            return Err(format!(
                "--gateway {twin} and {gateway} are on one link: give one for each family and VLAN"
            ));
        }
    }
    Ok(gateways)
}

/// Holds a target to being reachable from every link that has addresses of its family: connections
/// are opened from all of them.
///
/// # Errors
/// No address of ours is of its family; or it is outside a link's subnets, and no router is there.
pub(super) fn reachable(
    target: &Target,
    subnets: &[Subnet],
    gateways: &[IpAddr],
) -> Result<(), String> {
    let Target { addresses: Range { first, last }, first_port: _, last_port: _ } = *target;
    let ours = || subnets.iter().filter(|subnet| subnet.first.is_ipv4() == first.is_ipv4());
    if ours().next().is_none() {
        let example = if first.is_ipv4() { "10.0.0.2/24" } else { "fd00::2/64" };
        return Err(format!(
            "target {first} is {}, and no --addr is: add one, as {example}",
            family_of(first)
        ));
    }
    let anywhere = |address| ours().any(|subnet| subnet.is_on_link(address));
    let mut seen: Vec<Option<u16>> = Vec::new();
    for &Subnet { first: from, vlan, .. } in ours() {
        if seen.contains(&vlan) {
            continue;
        }
        seen.push(vlan);
        let on_link = |address| ours().any(|s| s.vlan == vlan && s.is_on_link(address));
        let routed = gateways.iter().any(|&gateway| {
            gateway.is_ipv4() == first.is_ipv4() && (on_link(gateway) || !anywhere(gateway))
        });
        let neighbors = on_link(first) && on_link(last);
        if !routed && !neighbors {
            let link = vlan.map_or(String::new(), |vlan| format!(" on VLAN {vlan}"));
            return Err(format!(
                "target {last} is outside the subnet of {from}{link}: say --gateway, or fix --addr"
            ));
        }
    }
    Ok(())
}

/// Connections that a bench opens from one address: half of what it has ports for, so that a port
/// rests in TIME-WAIT while others are used.
const CONNECTIONS_PER_ADDRESS: u32 = 32_768;

/// The two ends of a bench: the client's addresses, enough for `connections`, and the server's.
/// From 198.18.0.0/15 (RFC 2544) and 2001:2::/48 (RFC 5180), which are kept for benches.
pub(super) fn bench(family: FamilyName, connections: u32) -> (Subnet, IpAddr) {
    let more = connections.saturating_sub(1) / CONNECTIONS_PER_ADDRESS;
    match family {
        FamilyName::Ipv4 => {
            let first = Ipv4Addr::new(198, 18, 1, 1);
            // Up to where the kernel's own begin.
            let last = Ipv4Addr::from_bits(first.to_bits() + more.min(0xfe00));
            let subnet = Subnet { last: last.into(), ..Subnet::only(first, 15) };
            (subnet, Ipv4Addr::new(198, 18, 0, 2).into())
        }
        FamilyName::Ipv6 => {
            let host = |host: u32| Ipv6Addr::from_bits(u128::from(host) | 0x2001_0002_u128 << 96);
            let subnet =
                Subnet { last: host(0x100 + more).into(), ..Subnet::only(host(0x100), 64) };
            (subnet, host(2).into())
        }
    }
}

fn family_of(address: IpAddr) -> &'static str {
    if address.is_ipv4() { "IPv4" } else { "IPv6" }
}

#[cfg(test)]
mod tests {
    use super::super::super::address;
    use super::*;

    fn ours(text: &str) -> Vec<Subnet> {
        text.split(',').map(|word| address::subnet(word).unwrap()).collect()
    }

    fn reach(target: &str, addr: &str, gateway: &str) -> Result<(), String> {
        let gateways: Vec<IpAddr> =
            gateway.split_whitespace().map(|word| word.parse().unwrap()).collect();
        reachable(&address::target(target).unwrap(), &ours(addr), &gateways)
    }

    #[test]
    fn the_default_vlan_is_for_addresses_without_their_own() {
        let found = subnets(ours("10.0.0.2/24,fd00::2/64@7"), Some(100), None).unwrap();
        assert_eq!(found.iter().map(|s| s.vlan).collect::<Vec<_>>(), [Some(100), Some(7)]);
    }

    #[test]
    fn ipv6_needs_an_mtu_of_1280() {
        assert!(subnets(ours("10.0.0.2/24"), None, Some(576)).is_ok());
        assert!(subnets(ours("fd00::2/64"), None, Some(1280)).is_ok());
        let error = subnets(ours("10.0.0.2/24,fd00::2/64"), None, Some(1279)).unwrap_err();
        assert!(error.contains("--mtu 1279: fd00::2 is IPv6"), "{error}");
    }

    #[test]
    fn an_address_has_one_vlan() {
        let vlans = |text: &str| subnets(ours(text), None, None).map(|found| found.len());
        assert_eq!(vlans("10.0.0.1-10.0.0.9/24@5,10.0.0.10/24,10.0.0.5/24@5"), Ok(3));
        let nested = "10.0.0.1-10.0.0.9/24,10.0.0.2/24,10.0.0.8/24@5";
        assert_eq!(vlans(nested), Err("10.0.0.8 has two VLANs: give it one".to_string()));
        assert!(vlans("fd00::/64@5,fd00::9/64@6").is_err());
    }

    #[test]
    fn a_target_needs_an_address_of_its_family() {
        let error = reach("[fd00::1]:80", "10.0.0.2/24", "10.0.0.1").unwrap_err();
        assert!(error.contains("target fd00::1 is IPv6, and no --addr is"), "{error}");
        let error = reach("10.0.0.1:80", "fd00::2/64", "").unwrap_err();
        assert!(error.contains("10.0.0.2/24"), "{error}");
        assert_eq!(reach("[fd00::1]:80", "10.0.0.2/24,fd00::2/64", ""), Ok(()));
    }

    #[test]
    fn a_target_off_the_link_needs_a_router_of_its_family() {
        let both = "10.0.0.2/24,fd00::2/64";
        assert!(reach("10.0.1.1:80", both, "fd00::1").unwrap_err().contains("say --gateway"));
        assert_eq!(reach("10.0.1.1:80", both, "fd00::1 10.0.0.1"), Ok(()));
        assert!(reach("[fd01::1]:80", both, "10.0.0.1").unwrap_err().contains("say --gateway"));
        assert_eq!(reach("[fd01::1]:80", both, "fe80::1"), Ok(()));
        assert!(reach("10.0.0.9-10.0.1.9:80", "10.0.0.2/24", "").is_err(), "half of it is outside");
    }

    #[test]
    fn a_target_is_reached_from_every_vlan_or_not_at_all() {
        let two = "10.0.0.2/24,10.0.1.2/24@100";
        let error = reach("10.0.1.9:80", two, "10.0.1.1").unwrap_err();
        assert!(error.contains("outside the subnet of 10.0.0.2:"), "{error}");
        let error = reach("10.0.0.9:80", two, "").unwrap_err();
        assert!(error.contains("outside the subnet of 10.0.1.2 on VLAN 100"), "{error}");
        assert_eq!(reach("10.0.0.9:80", two, "10.0.1.1"), Ok(()));
    }

    #[test]
    fn a_link_has_one_router_a_family() {
        let subnets = ours("10.0.0.2/24,10.0.1.2/24@100,fd00::2/64");
        let given = |text: &str| {
            gateways(text.split(' ').map(|word| word.parse().unwrap()).collect(), &subnets)
        };
        assert_eq!(given("10.0.0.1 fe80::1 10.0.1.1").unwrap().len(), 3);
        assert!(given("10.0.0.1 10.0.0.254").unwrap_err().contains("are on one link"));
        assert!(given("fd00::1 fe80::1").unwrap_err().contains("are on one link"));
        let error = gateways(vec!["fe80::1".parse().unwrap()], &ours("10.0.0.2/24")).unwrap_err();
        assert!(error.contains("--gateway fe80::1 is IPv6"), "{error}");
    }
}
