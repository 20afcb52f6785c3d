//! Addresses as people write them, in both families: our own with their subnet and VLAN, those to
//! connect to, and single ones.
//!
//! Every error is one sentence that says what was wrong and what would be right; who asked for it
//! adds the flag, or the file's line and column.

use super::value::Ports;
use crate::engine::Subnet;
use crate::flow::tuples::{Range, Target};
use std::net::{IpAddr, Ipv6Addr};

/// Addresses with the length of their subnet's prefix, and their VLAN if it is not the default:
/// `10.0.0.2/24`, `10.0.0.10-10.0.3.250/16`, every host of a block `10.0.1.0/24`, `fd00::2/64@100`.
pub fn subnet(text: &str) -> Result<Subnet, String> {
    let (addresses, vlan) = match text.split_once('@') {
        Some((addresses, vlan)) => (addresses, Some(tag(vlan)?)),
        None => (text, None),
    };
    let Some((_, prefix)) = addresses.split_once('/') else {
        let first = address(addresses.split('-').next().unwrap_or(addresses))?;
        let prefix_len = if first.is_ipv4() { 24 } else { 64 };
        return Err(format!("`{text}` has no prefix length: write {addresses}/{prefix_len}, say"));
    };
    let Range { first, last } = range(addresses)?;
    let subnet = Subnet { first, last, prefix_len: prefix_len(prefix, first)?, vlan };
    if !subnet.is_on_link(last) {
        return Err(format!("`{text}` spans more than one /{prefix}: give each subnet its own"));
    }
    Ok(subnet)
}

/// Where to connect to: `10.0.0.2:80`, `10.0.0.2-10.0.0.9:80-89`, `10.0.1.0/24:80`, `[fd00::2]:80`,
/// `[fd00::10-fd00::1f]:80-89`.
pub fn target(text: &str) -> Result<Target, String> {
    let brackets = text.strip_prefix('[').map(|rest| rest.split_once(']').unwrap_or((rest, "")));
    let (addresses, ports) = match brackets {
        Some((addresses, ports)) => (addresses, ports.strip_prefix(':')),
        None if text.matches(':').count() > 1 => {
            return Err(format!("`{text}`: write IPv6 in brackets, as in [fd00::2]:80"));
        }
        None => match text.split_once(':') {
            Some((addresses, ports)) => (addresses, Some(ports)),
            None => (text, None),
        },
    };
    let addresses = range(addresses)?;
    if brackets.is_some() && addresses.first.is_ipv4() {
        return Err(format!("`{text}`: brackets are for IPv6, leave them out"));
    }
    let Some(ports) = ports else {
        return Err(format!("`{text}` has no port: write {text}:80, say"));
    };
    let Ports { first, last } = ports.parse()?;
    Ok(Target { addresses, first_port: first, last_port: last })
}

/// One address that a host may have.
pub fn address(text: &str) -> Result<IpAddr, String> {
    if let Some((address, zone)) = text.split_once('%') {
        return Err(format!(
            "`{text}`: leave out %{zone} and write {address}; every address is on the interface \
             that -i names"
        ));
    }
    let address = text.trim().parse::<IpAddr>().map_err(|_| {
        format!("`{text}` is not an IP address: write four numbers, 10.0.0.2, or IPv6, fd00::2")
    })?;
    let usable = match address {
        IpAddr::V4(ip) => !matches!(ip.octets()[0], 0 | 127 | 224..),
        IpAddr::V6(ip) => {
            !(ip.is_unspecified()
                || ip.is_loopback()
                || ip.is_multicast()
                || ip.to_ipv4_mapped().is_some())
        }
    };
    if !usable {
        return Err(format!("`{text}` is no address a host on a network can have"));
    }
    Ok(address)
}

/// An address and a port as one word, without a port that is `usual`: `10.0.0.2:8080`, `[fd00::2]`.
pub fn authority(address: IpAddr, port: u16, usual: u16) -> String {
    let host = match address {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("[{address}]"),
    };
    if port == usual { host } else { format!("{host}:{port}") }
}

fn tag(text: &str) -> Result<u16, String> {
    text.parse::<u16>()
        .ok()
        .filter(|tag| (1..=4094).contains(tag))
        .ok_or_else(|| format!("`@{text}` is not a VLAN from 1 to 4094"))
}

fn prefix_len(text: &str, address: IpAddr) -> Result<u8, String> {
    let max = bits(address).1;
    text.parse::<u8>()
        .ok()
        .filter(|len| (1..=max).contains(&u32::from(*len)))
        .ok_or_else(|| format!("`/{text}` is not a prefix length from 1 to {max}"))
}

/// One address, `first-last`, or a block; behind a `/` stands the length of the prefix, which only
/// a block's own number asks for.
fn range(text: &str) -> Result<Range, String> {
    let (addresses, prefix) = match text.split_once('/') {
        Some((addresses, prefix)) => (addresses, Some(prefix)),
        None => (text, None),
    };
    let Some((first, last)) = addresses.split_once('-') else {
        let only = address(addresses)?;
        let Some(prefix) = prefix else { return Ok(Range::only(only)) };
        return Ok(hosts(only, prefix_len(prefix, only)?));
    };
    let (first, last) = (address(first)?, address(last)?);
    if first.is_ipv4() != last.is_ipv4() {
        return Err(format!("address range in `{text}` has two families: give each its own"));
    }
    if first > last {
        return Err(format!("address range in `{text}` is empty: write the lower address first"));
    }
    Ok(Range { first, last })
}

/// The address itself, or, for a block's own number, all of the block's hosts. IPv6 has no
/// broadcast, but the number itself is every router's there too (RFC 4291 s2.6.1).
fn hosts(address: IpAddr, prefix_len: u8) -> Range {
    let (number, width) = bits(address);
    let host_bits = width - u32::from(prefix_len);
    let block = 1u128.checked_shl(host_bits).unwrap_or(0).wrapping_sub(1);
    if host_bits < 2 || number & block != 0 {
        return Range::only(address);
    }
    match address {
        IpAddr::V4(_) => {
            let ends = [number + 1, (number | block) - 1];
            let [first, last] = ends.map(|end| IpAddr::V4((end as u32).into()));
            Range { first, last }
        }
        IpAddr::V6(_) => {
            let [first, last] = [number + 1, number | block].map(|end| Ipv6Addr::from(end).into());
            Range { first, last }
        }
    }
}

/// The address as a number, and its width in bits.
fn bits(address: IpAddr) -> (u128, u32) {
    match address {
        IpAddr::V4(address) => (address.to_bits().into(), 32),
        IpAddr::V6(address) => (address.to_bits(), 128),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_one_host_a_range_or_every_host_of_a_block() {
        let parsed = |text: &str| {
            subnet(text).map(|s| (s.first.to_string(), s.last.to_string(), s.prefix_len)).unwrap()
        };
        let of = |first: &str, last: &str, len| (first.to_string(), last.to_string(), len);
        assert_eq!(parsed("10.0.0.2/24"), of("10.0.0.2", "10.0.0.2", 24));
        assert_eq!(parsed("10.0.0.10-10.0.3.250/16"), of("10.0.0.10", "10.0.3.250", 16));
        assert_eq!(parsed("10.0.1.0/24"), of("10.0.1.1", "10.0.1.254", 24));
        assert_eq!(parsed("10.0.1.0/32"), of("10.0.1.0", "10.0.1.0", 32));
        assert_eq!(parsed("10.0.1.4/31"), of("10.0.1.4", "10.0.1.4", 31));
        assert_eq!(parsed("fd00::2/64"), of("fd00::2", "fd00::2", 64));
        assert_eq!(parsed("fd00::2/128"), of("fd00::2", "fd00::2", 128));
        assert_eq!(parsed("fd00::10-fd00::1f/64"), of("fd00::10", "fd00::1f", 64));
        assert_eq!(parsed("fd00::1:0/112"), of("fd00::1:1", "fd00::1:ffff", 112));
        assert_eq!(parsed("fe80::5/10"), of("fe80::5", "fe80::5", 10));
    }

    #[test]
    fn an_address_may_have_a_vlan_of_its_own() {
        assert_eq!(subnet("10.0.0.2/24").unwrap().vlan, None);
        assert_eq!(subnet("10.0.0.2/24@100").unwrap().vlan, Some(100));
        assert_eq!(subnet("fd00::2-fd00::9/64@4094").unwrap().vlan, Some(4094));
        for bad in ["10.0.0.2/24@0", "10.0.0.2/24@4095", "10.0.0.2/24@", "10.0.0.2/24@a"] {
            assert!(subnet(bad).unwrap_err().contains("not a VLAN from 1 to 4094"), "{bad}");
        }
    }

    #[test]
    fn a_bad_address_says_what_is_wrong() {
        let error = |text: &str| subnet(text).unwrap_err();
        assert!(error("10.0.0.2").contains("no prefix length: write 10.0.0.2/24"));
        assert!(error("fd00::2@7").contains("no prefix length: write fd00::2/64"));
        assert!(error("10.0.0.9-10.0.0.2/24").contains("lower address first"));
        assert!(error("fd00::9-fd00::2/64").contains("lower address first"));
        assert!(error("10.0.0.9-10.0.1.2/24").contains("more than one /24"));
        assert!(error("fd00::1-fd00:0:0:1::1/64").contains("more than one /64"));
        assert!(error("10.0.0.9-fd00::1/24").contains("two families"));
        assert!(error("10.0.0.2/33").contains("from 1 to 32"));
        assert!(error("fd00::2/129").contains("from 1 to 128"));
        assert!(error("fd00::2/0").contains("from 1 to 128"));
        assert!(error("fe80::1%eth0/64").contains("leave out %eth0"));
        assert!(error("10.0.0/24").contains("not an IP address"));
        for nobodys in ["127.0.0.1/8", "224.0.0.1/4", "::1/128", "ff02::1/16", "::ffff:1.2.3.4/96"]
        {
            assert!(error(nobodys).contains("no address a host"), "{nobodys}");
        }
        assert!(address("::").unwrap_err().contains("no address a host"));
    }

    #[test]
    fn targets_take_ranges_of_addresses_and_ports() {
        let parsed = |text: &str| {
            let Target { addresses: Range { first, last }, first_port, last_port } =
                target(text).unwrap();
            (first.to_string(), last.to_string(), first_port, last_port)
        };
        let of = |first: &str, last: &str, a, b| (first.to_string(), last.to_string(), a, b);
        assert_eq!(parsed("10.0.0.2-10.0.0.9:80-89"), of("10.0.0.2", "10.0.0.9", 80, 89));
        assert_eq!(parsed("10.0.1.0/24:80"), of("10.0.1.1", "10.0.1.254", 80, 80));
        assert_eq!(parsed("[fd00::2]:80"), of("fd00::2", "fd00::2", 80, 80));
        assert_eq!(parsed("[fd00::10-fd00::1f]:80-89"), of("fd00::10", "fd00::1f", 80, 89));
        assert_eq!(parsed("[fd00::/120]:80"), of("fd00::1", "fd00::ff", 80, 80));
        let error = |text: &str| target(text).unwrap_err();
        assert!(error("10.0.0.2").contains("no port: write 10.0.0.2:80"));
        assert!(error("[fd00::2]").contains("no port: write [fd00::2]:80"));
        assert!(error("fd00::2:80").contains("[fd00::2]:80"));
        assert!(error("[10.0.0.2]:80").contains("brackets are for IPv6"));
        assert!(error("[fe80::1%eth0]:80").contains("leave out %eth0"));
        assert!(error("[fd00::2:80").contains("no port"));
        assert!(error("[10.0.0.1-fd00::2]:80").contains("two families"));
        assert!(error("10.0.0.2:0").contains("not a port"));
        assert!(error("10.0.0.2:90-80").contains("lower port first"));
    }

    #[test]
    fn no_text_makes_the_parsers_panic() {
        for text in ["", "@", "/", "-", "-/-@", "[", "]", "[]", "[]:", ":", "[::]:1", "é/1@é", "%"]
        {
            assert!(subnet(text).is_err() && target(text).is_err() && address(text).is_err());
        }
    }

    #[test]
    fn an_authority_has_brackets_around_ipv6_and_no_usual_port() {
        let authority = |text: &str, port| authority(text.parse().unwrap(), port, 80);
        assert_eq!(authority("10.0.0.2", 80), "10.0.0.2");
        assert_eq!(authority("10.0.0.2", 8080), "10.0.0.2:8080");
        assert_eq!(authority("fd00::2", 80), "[fd00::2]");
        assert_eq!(authority("fd00::2", 8080), "[fd00::2]:8080");
    }
}
