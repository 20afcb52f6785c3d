//! Which received frames are ours, as numbers a kernel-side program can hold: the tables of
//! `bpf/shakedown.bpf.c`, whose layout this file mirrors, and a classic filter for AF_PACKET.
//!
//! The rule. On the VLAN of the address: IPv4 and IPv6 to our own addresses, whatever the protocol,
//! and ARP and neighbor discovery about them; and on addresses that the kernel owns and shares with
//! us, TCP to our ports. Everything else is the kernel's.

use crate::sys::packet::Instruction;
use std::io;
use std::net::IpAddr;

/// What to steer to us.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Steering {
    /// Addresses that are ours alone.
    pub ours: Vec<Reach>,
    /// Addresses of the kernel on which `ports` are ours. The kernel answers ARP, neighbor
    /// discovery and ICMP for them.
    pub shared: Vec<Reach>,
    /// Our TCP ports on `shared`: the listening ones of a server, the source ports of a client
    /// (outside the kernel's `net.ipv4.ip_local_port_range`, or its own connections lose their
    /// packets). Both ends included.
    pub ports: Vec<(u16, u16)>,
}

/// Addresses `first..=last` of one family, on one VLAN. Those of a list may overlap if they agree
/// on the VLAN, and need no order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reach {
    pub first: IpAddr,
    pub last: IpAddr,
    /// The 802.1Q tag that the frames bear; `None` for untagged.
    pub vlan: Option<u16>,
}

/// `RANGES_MAX` of the program, of each family.
const RANGES_MAX: usize = 16_384;

/// The program's `.rodata` and `.bss`.
pub(super) struct Tables {
    pub config: Vec<u8>,
    pub tables: Vec<u8>,
}

/// What we have to do with addresses: `struct claim` of the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Claim {
    vlan: u16,
    shared: bool,
}

/// Addresses of one family as numbers, with the claim on them.
type Claimed = (u128, u128, Claim);

impl Reach {
    /// One untagged address.
    pub fn only(addr: IpAddr) -> Reach {
        Reach { first: addr, last: addr, vlan: None }
    }

    fn holds(&self, addr: IpAddr) -> bool {
        self.first.is_ipv4() == addr.is_ipv4() && (self.first..=self.last).contains(&addr)
    }
}

impl Steering {
    /// True if some addresses of the other kind than IPv4 are ours alone.
    pub fn owns_ipv6(&self) -> bool {
        self.ours.iter().any(|reach| reach.first.is_ipv6())
    }

    /// True if any of the frames that are ours bear a tag.
    pub fn has_vlans(&self) -> bool {
        self.ours.iter().chain(&self.shared).any(|reach| reach.vlan.is_some())
    }

    /// Refuses addresses that the kernel has on the interface: it would answer for them too.
    pub(super) fn check_against(&self, name: &str, kernels: &[(IpAddr, u8)]) -> io::Result<()> {
        let untagged = |addr| self.ours.iter().any(|r| r.vlan.is_none() && r.holds(addr));
        let Some((addr, len)) = kernels.iter().find(|(addr, _)| untagged(*addr)) else {
            return Ok(());
        };
        Err(io::Error::new(
            io::ErrorKind::AddrInUse,
            format!(
                "{addr} is the kernel's own address on {name}: choose another address of its \
                 network, or take it from the kernel with `ip addr del {addr}/{len} dev {name}`"
            ),
        ))
    }

    /// The tables of the XDP program.
    ///
    /// # Errors
    /// More separate ranges than the program holds, or an address on two VLANs.
    pub(super) fn tables(&self) -> io::Result<Tables> {
        let (ipv4, ipv6) = (self.claimed(false)?, self.claimed(true)?);
        let config = [ipv4.len() as u32, ipv6.len() as u32].map(u32::to_ne_bytes).concat();
        let mut tables = Vec::new();
        let claim = |&(_, _, Claim { vlan, shared }): &Claimed| {
            [vlan.to_ne_bytes(), u16::from(shared).to_ne_bytes()].concat()
        };
        for range in &ipv4 {
            tables.extend((range.0 as u32).to_ne_bytes());
            tables.extend((range.1 as u32).to_ne_bytes());
            tables.extend(claim(range));
        }
        tables.resize(RANGES_MAX * RANGE4_BYTES, 0);
        for range in &ipv6 {
            for half in [range.0 >> 64, range.0, range.1 >> 64, range.1] {
                tables.extend((half as u64).to_ne_bytes());
            }
            tables.extend(claim(range));
            tables.extend([0; 4]);
        }
        tables.resize(RANGES_MAX * (RANGE4_BYTES + RANGE6_BYTES), 0);
        let mut bits = [0u64; 65_536 / 64];
        for port in self.ports.iter().flat_map(|&(first, last)| first..=last) {
            bits[usize::from(port) / 64] |= 1 << (port % 64);
        }
        tables.extend(bits.iter().flat_map(|word| word.to_ne_bytes()));
        Ok(Tables { config, tables })
    }

    /// All claims of one family, sorted, none overlapping another.
    fn claimed(&self, ipv6: bool) -> io::Result<Vec<Claimed>> {
        let invalid = |text: String| io::Error::new(io::ErrorKind::InvalidInput, text);
        let of = |reaches: &[Reach], shared: bool| {
            let family = reaches.iter().filter(|reach| reach.first.is_ipv6() == ipv6);
            family
                .map(|&Reach { first, last, vlan }| {
                    (number(first), number(last), Claim { vlan: vlan.unwrap_or(0), shared })
                })
                .collect::<Vec<Claimed>>()
        };
        let mut claims = of(&self.ours, false);
        claims.extend(of(&self.shared, true));
        let claims = merged(claims).map_err(|addr| {
            let addr = match ipv6 {
                true => IpAddr::V6(addr.into()),
                false => IpAddr::V4((addr as u32).into()),
            };
            invalid(format!("{addr} is ours twice, with different VLANs: give it one"))
        })?;
        if claims.len() > RANGES_MAX {
            return Err(invalid(format!(
                "{} separate address ranges are more than the XDP program's {RANGES_MAX}: use \
                 contiguous ranges",
                claims.len()
            )));
        }
        Ok(claims)
    }
}

/// Bytes of `struct range4` and `struct range6` of the program.
const RANGE4_BYTES: usize = 12;
const RANGE6_BYTES: usize = 40;

/// What a classic filter lets pass. The kernel has taken a tag out already, and what is let pass is
/// judged again by who receives it: the filter saves copies, it does not decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// Datagrams to our addresses, and ARP and neighbor discovery about them.
    Everything,
    /// What answers our questions for a link-layer address: ARP to our addresses, and neighbor
    /// advertisements to them.
    Resolution,
}

// Classic BPF, as far as it is used.
const LOAD_BYTE: u16 = 0x30; // BPF_LD | BPF_B | BPF_ABS
const LOAD_HALF: u16 = 0x28; // BPF_LD | BPF_H | BPF_ABS
const LOAD_WORD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
const JUMP: u16 = 0x05; // BPF_JMP | BPF_JA
const IF_EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
const IF_ABOVE: u16 = 0x25; // BPF_JMP | BPF_JGT | BPF_K
const IF_AT_LEAST: u16 = 0x35; // BPF_JMP | BPF_JGE | BPF_K
const RETURN: u16 = 0x06; // BPF_RET | BPF_K

fn step(code: u16, if_true: u8, if_false: u8, value: u32) -> Instruction {
    Instruction { code, if_true, if_false, value }
}

const OURS: Instruction = Instruction { code: RETURN, if_true: 0, if_false: 0, value: u32::MAX };
const NOT_OURS: Instruction = Instruction { code: RETURN, if_true: 0, if_false: 0, value: 0 };

/// A classic filter for AF_PACKET. Long tables are coarsened to one range.
pub(super) fn filter(wanted: Wanted, reaches: &[Reach]) -> Vec<Instruction> {
    const NEXT_HEADER: u32 = 20;
    const ICMPV6_TYPE: u32 = 54;
    let (ipv4, ipv6) = (coarse(reaches, false), coarse(reaches, true));
    let arp = (0x0806, within(38, 1, &ipv4));
    let mut sections = match wanted {
        Wanted::Resolution => vec![arp],
        Wanted::Everything => vec![arp, (0x0800, within(30, 1, &ipv4))],
    };
    if !ipv6.is_empty() {
        let mut body = match wanted {
            Wanted::Resolution => vec![
                step(LOAD_BYTE, 0, 0, NEXT_HEADER),
                step(IF_EQUAL, 1, 0, 58),
                NOT_OURS,
                step(LOAD_BYTE, 0, 0, ICMPV6_TYPE),
                step(IF_EQUAL, 1, 0, 136),
                NOT_OURS,
            ],
            // Solicitations and unasked advertisements come to multicast groups.
            Wanted::Everything => vec![
                step(LOAD_BYTE, 0, 0, NEXT_HEADER),
                step(IF_EQUAL, 0, 4, 58),
                step(LOAD_BYTE, 0, 0, ICMPV6_TYPE),
                step(IF_EQUAL, 1, 0, 135),
                step(IF_EQUAL, 0, 1, 136),
                OURS,
            ],
        };
        body.extend(within(38, 4, &ipv6));
        sections.push((0x86dd, body));
    }
    let mut filter = vec![step(LOAD_HALF, 0, 0, 12)];
    for (ethertype, body) in sections {
        filter.push(step(IF_EQUAL, 1, 0, ethertype));
        filter.push(step(JUMP, 0, 0, body.len() as u32));
        filter.extend(body);
    }
    filter.push(NOT_OURS);
    filter
}

/// Takes the frame if the address of `words` words at `offset` is in one of `ranges`, and else
/// refuses it. Of a range whose ends differ in an upper word, the words below are not looked at.
fn within(offset: u32, words: u32, ranges: &[(u128, u128)]) -> Vec<Instruction> {
    let mut body = Vec::new();
    for &(first, last) in ranges {
        let word = |of: u128, place: u32| (of >> (32 * (words - 1 - place))) as u32;
        let differs = (0..words).find(|&place| word(first, place) != word(last, place));
        let mut block = vec![OURS];
        for place in (0..=differs.unwrap_or(words - 1)).rev() {
            let rest = block.len() as u8;
            let (low, high) = (word(first, place), word(last, place));
            let mut checked = vec![step(LOAD_WORD, 0, 0, offset + 4 * place)];
            if low == high {
                checked.push(step(IF_EQUAL, 0, rest, low));
            } else {
                checked.push(step(IF_AT_LEAST, 0, rest + 1, low));
                checked.push(step(IF_ABOVE, rest, 0, high));
            }
            checked.append(&mut block);
            block = checked;
        }
        body.append(&mut block);
    }
    body.push(NOT_OURS);
    body
}

/// The addresses of one family as at most a few ranges, which may hold more than those.
fn coarse(reaches: &[Reach], ipv6: bool) -> Vec<(u128, u128)> {
    const RANGES_MAX: usize = 32;
    let whose = Claim { vlan: 0, shared: false };
    let family = reaches.iter().filter(|reach| reach.first.is_ipv6() == ipv6);
    let claims = family.map(|reach| (number(reach.first), number(reach.last), whose)).collect();
    let ranges = merged(claims).expect("with one claim for all, none contradicts another");
    if ranges.len() > RANGES_MAX {
        return vec![(ranges[0].0, ranges[ranges.len() - 1].1)];
    }
    ranges.into_iter().map(|(first, last, _)| (first, last)).collect()
}

fn number(addr: IpAddr) -> u128 {
    match addr {
        IpAddr::V4(addr) => addr.to_bits().into(),
        IpAddr::V6(addr) => addr.to_bits(),
    }
}

/// The same claims sorted; of those that overlap or touch, the ones that agree become one. An `Err`
/// is an address with two claims.
fn merged(mut claims: Vec<Claimed>) -> Result<Vec<Claimed>, u128> {
    claims.retain(|(first, last, _)| first <= last);
    claims.sort_unstable();
    let mut merged: Vec<Claimed> = Vec::new();
    for (first, last, claim) in claims {
        match merged.last_mut() {
            Some(before) if before.2 == claim && first <= before.1.saturating_add(1) => {
                before.1 = before.1.max(last);
            }
            Some(before) if first <= before.1 => return Err(first),
            _ => merged.push((first, last, claim)),
        }
    }
    Ok(merged)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, Ipv6Addr};

    fn reach(first: impl Into<IpAddr>, last: impl Into<IpAddr>) -> Reach {
        Reach { first: first.into(), last: last.into(), vlan: None }
    }

    /// fd00::`low`, for `low` of 16 bits.
    fn fd(low: u16) -> Ipv6Addr {
        Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, low)
    }

    #[test]
    fn ranges_are_sorted_and_those_that_touch_become_one() {
        let ours = vec![
            reach([10, 0, 0, 9], [10, 0, 0, 9]),
            reach([10, 0, 0, 1], [10, 0, 0, 4]),
            reach(fd(1), fd(2)),
            reach([10, 0, 0, 3], [10, 0, 0, 8]),
            reach([255, 255, 255, 255], [255, 255, 255, 255]),
            reach([10, 0, 0, 11], [10, 0, 0, 12]),
            reach(Ipv6Addr::from(u128::MAX), Ipv6Addr::from(u128::MAX)),
        ];
        let steering = Steering { ours, ..Steering::default() };
        let ends = |ipv6: bool| {
            let claims = steering.claimed(ipv6).unwrap();
            claims.into_iter().map(|(first, last, _)| (first, last)).collect::<Vec<_>>()
        };
        let top = u128::from(u32::MAX);
        let expected = [(0x0a000001, 0x0a000009), (0x0a00000b, 0x0a00000c), (top, top)];
        assert_eq!(ends(false), expected);
        let fd = fd(1).to_bits();
        assert_eq!(ends(true), [(fd, fd + 1), (u128::MAX, u128::MAX)]);
    }

    #[test]
    fn an_address_has_one_vlan_and_one_owner() {
        let tagged = |vlan| Reach { vlan, ..reach(fd(1), fd(9)) };
        let with = |ours: Vec<Reach>| Steering { ours, ..Steering::default() };
        let touching = Reach { vlan: Some(7), ..reach(fd(10), fd(10)) };
        assert_eq!(with(vec![tagged(None), touching]).claimed(true).unwrap().len(), 2);
        let error = with(vec![tagged(Some(7)), reach(fd(9), fd(9))]).tables().err().unwrap();
        assert!(error.to_string().contains("fd00::9 is ours twice"), "{error}");
        let shared = vec![reach([10, 0, 0, 1], [10, 0, 0, 1])];
        let both = Steering { ours: shared.clone(), shared, ..Steering::default() };
        assert!(both.tables().err().unwrap().to_string().contains("10.0.0.1 is ours twice"));
    }

    #[test]
    fn tables_have_the_layout_of_the_program() {
        let steering = Steering {
            ours: vec![
                reach([10, 0, 0, 2], [10, 0, 0, 3]),
                Reach { vlan: Some(7), ..reach(fd(2), fd(0xffff)) },
            ],
            shared: vec![reach([10, 0, 0, 1], [10, 0, 0, 1])],
            ports: vec![(80, 80), (65535, 65535)],
        };
        let Tables { config, tables } = steering.tables().unwrap();
        assert_eq!(config, [2u32, 1].map(u32::to_ne_bytes).concat());
        let word = |at: usize| u32::from_ne_bytes(tables[at..][..4].try_into().unwrap());
        let half = |at: usize| u16::from_ne_bytes(tables[at..][..2].try_into().unwrap());
        assert_eq!((word(0), word(4), half(8), half(10)), (0x0a000001, 0x0a000001, 0, 1));
        assert_eq!((word(12), word(16), half(20), half(22)), (0x0a000002, 0x0a000003, 0, 0));
        let ipv6 = RANGE4_BYTES * RANGES_MAX;
        let long = |at: usize| u64::from_ne_bytes(tables[at..][..8].try_into().unwrap());
        let ends = [0, 8, 16, 24].map(|at| long(ipv6 + at));
        assert_eq!(ends, [0xfd00 << 48, 2, 0xfd00 << 48, 0xffff]);
        assert_eq!((half(ipv6 + 32), half(ipv6 + 34), word(ipv6 + 36)), (7, 0, 0));
        let ports = (RANGE4_BYTES + RANGE6_BYTES) * RANGES_MAX;
        assert_eq!(tables.len(), ports + 8192);
        assert_eq!((long(ports + 8), long(ports + 8 * 1023)), (1 << 16, 1 << 63));
        assert_eq!((0..1024).filter(|&index| long(ports + 8 * index) != 0).count(), 2);
    }

    /// What the kernel's interpreter would answer, for the few instructions in use; loads past the
    /// end drop the frame.
    fn passes(filter: &[Instruction], frame: &[u8]) -> bool {
        let (mut at, mut accumulator) = (0, 0);
        loop {
            let Instruction { code, if_true, if_false, value } = filter[at];
            let load = |bytes: usize| {
                let field = frame.get(value as usize..value as usize + bytes)?;
                Some(field.iter().fold(0u32, |word, &byte| word << 8 | u32::from(byte)))
            };
            let branch = |condition| usize::from(if condition { if_true } else { if_false });
            at += 1;
            match code {
                LOAD_BYTE | LOAD_HALF | LOAD_WORD => {
                    let bytes = [(LOAD_BYTE, 1), (LOAD_HALF, 2), (LOAD_WORD, 4)];
                    match load(bytes.iter().find(|(its, _)| *its == code).unwrap().1) {
                        Some(field) => accumulator = field,
                        None => return false,
                    }
                }
                JUMP => at += value as usize,
                IF_EQUAL => at += branch(accumulator == value),
                IF_ABOVE => at += branch(accumulator > value),
                IF_AT_LEAST => at += branch(accumulator >= value),
                RETURN => return value != 0,
                _ => panic!("instruction {code:#x}"),
            }
        }
    }

    fn frame(ethertype: u16, offset: usize, addr: impl Into<IpAddr>) -> [u8; 80] {
        let mut bytes = [0; 80];
        bytes[12..14].copy_from_slice(&ethertype.to_be_bytes());
        match addr.into() {
            IpAddr::V4(addr) => bytes[offset..offset + 4].copy_from_slice(&addr.octets()),
            IpAddr::V6(addr) => bytes[offset..offset + 16].copy_from_slice(&addr.octets()),
        }
        bytes
    }

    /// ICMPv6 of `kind` to an address.
    fn icmpv6(kind: u8, addr: Ipv6Addr) -> [u8; 80] {
        let mut bytes = frame(0x86dd, 38, addr);
        (bytes[20], bytes[54]) = (58, kind);
        bytes
    }

    #[test]
    fn the_filter_passes_ipv4_and_arp_to_our_ranges() {
        let ours = [reach([10, 0, 0, 5], [10, 0, 0, 7]), reach([10, 0, 9, 0], [10, 0, 9, 0])];
        let everything = filter(Wanted::Everything, &ours);
        let resolution = filter(Wanted::Resolution, &ours);
        for (addr, expected) in [
            ([10, 0, 0, 4], false),
            ([10, 0, 0, 5], true),
            ([10, 0, 0, 7], true),
            ([10, 0, 0, 8], false),
            ([10, 0, 9, 0], true),
            ([255, 255, 255, 255], false),
        ] {
            let addr = Ipv4Addr::from(addr);
            assert_eq!(passes(&everything, &frame(0x0800, 30, addr)), expected, "{addr}");
            assert_eq!(passes(&everything, &frame(0x0806, 38, addr)), expected, "{addr}");
            assert!(!passes(&everything, &frame(0x86dd, 30, addr)));
            assert!(!passes(&everything, &frame(0x0800, 30, addr)[..33]));
            assert_eq!(passes(&resolution, &frame(0x0806, 38, addr)), expected, "{addr}");
            assert!(!passes(&resolution, &frame(0x0800, 30, addr)));
        }
    }

    #[test]
    fn the_filter_passes_ipv6_to_our_ranges_and_neighbor_discovery_to_groups() {
        let ours = [reach(fd(5), fd(7)), reach([10, 0, 0, 1], [10, 0, 0, 1])];
        let everything = filter(Wanted::Everything, &ours);
        let resolution = filter(Wanted::Resolution, &ours);
        let group = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00, 5);
        let other = Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, 0, 5);
        let cases = [(fd(4), false), (fd(5), true), (fd(7), true), (fd(8), false), (other, false)];
        for (addr, expected) in cases {
            assert_eq!(passes(&everything, &frame(0x86dd, 38, addr)), expected, "{addr}");
            assert_eq!(passes(&everything, &icmpv6(128, addr)), expected, "an echo to {addr}");
            assert_eq!(passes(&resolution, &icmpv6(136, addr)), expected, "{addr}");
            for kind in [128, 135] {
                assert!(!passes(&resolution, &icmpv6(kind, addr)), "{kind} to {addr}");
            }
            assert!(!passes(&resolution, &frame(0x86dd, 38, addr)));
            assert!(!passes(&everything, &frame(0x86dd, 38, addr)[..53]));
        }
        for (kind, expected) in [(135, true), (136, true), (134, false), (128, false)] {
            assert_eq!(passes(&everything, &icmpv6(kind, group)), expected, "{kind}");
        }
    }

    #[test]
    fn a_long_table_makes_a_coarse_filter() {
        let every_other = (0..100).map(|index| Ipv4Addr::from([10, 0, 0, index * 2]));
        let mut ours: Vec<_> = every_other.map(|addr| reach(addr, addr)).collect();
        ours.extend((0..100).map(|index| reach(fd(index * 2), fd(index * 2))));
        let filter = filter(Wanted::Everything, &ours);
        assert!(filter.len() < 50);
        assert!(passes(&filter, &frame(0x0800, 30, Ipv4Addr::new(10, 0, 0, 198))));
        assert!(!passes(&filter, &frame(0x0800, 30, Ipv4Addr::new(10, 0, 0, 199))));
        assert!(passes(&filter, &frame(0x86dd, 38, fd(198))));
        assert!(!passes(&filter, &frame(0x86dd, 38, fd(199))));
    }

    #[test]
    fn more_ranges_than_the_program_holds_are_refused() {
        let every_other = (0..=RANGES_MAX as u32)
            .map(|index| Ipv4Addr::from(0x0a000000 + 2 * index))
            .map(|addr| reach(addr, addr));
        let steering = Steering { ours: every_other.collect(), ..Steering::default() };
        assert!(steering.tables().err().unwrap().to_string().contains("16385 separate"));
    }

    #[test]
    fn the_kernels_address_is_refused_where_it_would_answer() {
        let kernels = [(IpAddr::from(fd(1)), 64)];
        let on = |vlan| {
            let ours = vec![Reach { vlan, ..reach(fd(1), fd(3)) }];
            Steering { ours, ..Steering::default() }.check_against("eth1", &kernels)
        };
        assert!(on(None).unwrap_err().to_string().contains("ip addr del fd00::1/64 dev eth1"));
        assert!(on(Some(7)).is_ok(), "on a VLAN of its own it is another address");
    }
}
