//! Which received frames are ours, as numbers a kernel-side program can hold: the tables of
//! `bpf/shakedown.bpf.c`, whose layout this file mirrors, and a classic filter for AF_PACKET.
//!
//! The rule. On our VLAN: IPv4 to our own addresses, whatever the protocol, and ARP about them; and
//! on addresses that the kernel owns and shares with us, TCP to our ports. Everything else is the
//! kernel's.

use crate::sys::packet::Instruction;
use std::io;
use std::net::Ipv4Addr;

/// What to steer to us. Address ranges include both ends, may overlap, and need no order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Steering {
    /// Addresses that are ours alone.
    pub ours: Vec<(Ipv4Addr, Ipv4Addr)>,
    /// Addresses of the kernel on which `ports` are ours. The kernel answers ARP and ICMP for them.
    pub shared: Vec<(Ipv4Addr, Ipv4Addr)>,
    /// Our TCP ports on `shared`: the listening ones of a server, the source ports of a client
    /// (outside the kernel's `net.ipv4.ip_local_port_range`, or its own connections lose their
    /// packets). Both ends included.
    pub ports: Vec<(u16, u16)>,
    /// The 802.1Q tag that our frames bear; `None` for untagged.
    pub vlan: Option<u16>,
}

/// Where [`filter`] finds the destination of IPv4.
pub(super) const IPV4_DESTINATION: (u16, u32) = (0x0800, 30);
/// Where [`filter`] finds the target of ARP.
pub(super) const ARP_TARGET: (u16, u32) = (0x0806, 38);

/// `RANGES_MAX` of the program.
const RANGES_MAX: usize = 16_384;

/// The program's `.rodata` and `.bss`.
pub(super) struct Tables {
    pub config: Vec<u8>,
    pub tables: Vec<u8>,
}

impl Steering {
    /// True if `addr` is ours alone.
    pub fn owns(&self, addr: Ipv4Addr) -> bool {
        self.ours.iter().any(|&(first, last)| (first..=last).contains(&addr))
    }

    /// Refuses addresses that the kernel has on the interface: it would answer for them too.
    pub(super) fn check_against(&self, name: &str, kernels: &[(Ipv4Addr, u8)]) -> io::Result<()> {
        let Some((addr, len)) = kernels.iter().find(|(addr, _)| self.owns(*addr)) else {
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
    /// More separate ranges than the program holds.
    pub(super) fn tables(&self) -> io::Result<Tables> {
        let Steering { ours, shared, ports, vlan } = self;
        let (ours, shared) = (merged(ours), merged(shared));
        if ours.len().max(shared.len()) > RANGES_MAX {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!(
                    "{} separate address ranges are more than the XDP program's {RANGES_MAX}: \
                     use contiguous ranges",
                    ours.len().max(shared.len())
                ),
            ));
        }
        let config = [ours.len() as u32, shared.len() as u32, u32::from(vlan.unwrap_or(0))];
        let mut tables = Vec::new();
        for ranges in [&ours, &shared] {
            for index in 0..RANGES_MAX {
                let (first, last) = ranges.get(index).copied().unwrap_or((0, 0));
                tables.extend(first.to_ne_bytes());
                tables.extend(last.to_ne_bytes());
            }
        }
        let mut bits = [0u64; 65_536 / 64];
        for port in ports.iter().flat_map(|&(first, last)| first..=last) {
            bits[usize::from(port) / 64] |= 1 << (port % 64);
        }
        tables.extend(bits.iter().flat_map(|word| word.to_ne_bytes()));
        let config = config.iter().flat_map(|word| word.to_ne_bytes()).collect();
        Ok(Tables { config, tables })
    }
}

/// A classic filter for AF_PACKET that lets pass frames of one of `fields` (an ethertype, and where
/// its address is) if the address is in `ranges`. The kernel has taken a tag out already. Long
/// tables are coarsened to one range: the filter saves copies, it does not decide.
pub(super) fn filter(fields: &[(u16, u32)], ranges: &[(Ipv4Addr, Ipv4Addr)]) -> Vec<Instruction> {
    const RANGES_MAX: usize = 32;
    const LOAD_HALF: u16 = 0x28; // BPF_LD | BPF_H | BPF_ABS
    const LOAD_WORD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
    const JUMP: u16 = 0x05; // BPF_JMP | BPF_JA
    const IF_EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
    const IF_ABOVE: u16 = 0x25; // BPF_JMP | BPF_JGT | BPF_K
    const IF_AT_LEAST: u16 = 0x35; // BPF_JMP | BPF_JGE | BPF_K
    const RETURN: u16 = 0x06; // BPF_RET | BPF_K
    let step = |code, if_true, if_false, value| Instruction { code, if_true, if_false, value };

    let mut ranges = merged(ranges);
    if ranges.len() > RANGES_MAX {
        ranges = vec![(ranges[0].0, ranges[ranges.len() - 1].1)];
    }
    let mut filter = Vec::new();
    for (place, &(ethertype, offset)) in fields.iter().enumerate() {
        let fields_left = (fields.len() - place - 1) as u32;
        filter.extend([
            step(LOAD_HALF, 0, 0, 12),
            step(IF_EQUAL, 0, 2, u32::from(ethertype)),
            step(LOAD_WORD, 0, 0, offset),
            step(JUMP, 0, 0, fields_left * 4 + 1),
        ]);
    }
    filter.push(step(RETURN, 0, 0, 0));
    for (first, last) in ranges {
        filter.extend([
            step(IF_AT_LEAST, 0, 2, first),
            step(IF_ABOVE, 1, 0, last),
            step(RETURN, 0, 0, u32::MAX),
        ]);
    }
    filter.push(step(RETURN, 0, 0, 0));
    filter
}

/// The same addresses as sorted ranges that neither overlap nor touch.
fn merged(ranges: &[(Ipv4Addr, Ipv4Addr)]) -> Vec<(u32, u32)> {
    let mut sorted: Vec<(u32, u32)> =
        ranges.iter().map(|&(first, last)| (u32::from(first), u32::from(last))).collect();
    sorted.sort_unstable();
    let mut merged: Vec<(u32, u32)> = Vec::new();
    for (first, last) in sorted {
        match merged.last_mut() {
            Some(before) if first <= before.1.saturating_add(1) => before.1 = before.1.max(last),
            _ => merged.push((first, last)),
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(first: [u8; 4], last: [u8; 4]) -> (Ipv4Addr, Ipv4Addr) {
        (first.into(), last.into())
    }

    #[test]
    fn ranges_are_sorted_and_those_that_touch_become_one() {
        let ranges = [
            range([10, 0, 0, 9], [10, 0, 0, 9]),
            range([10, 0, 0, 1], [10, 0, 0, 4]),
            range([10, 0, 0, 3], [10, 0, 0, 8]),
            range([255, 255, 255, 255], [255, 255, 255, 255]),
            range([10, 0, 0, 11], [10, 0, 0, 12]),
        ];
        let expected = [(0x0a000001, 0x0a000009), (0x0a00000b, 0x0a00000c), (u32::MAX, u32::MAX)];
        assert_eq!(merged(&ranges), expected);
    }

    #[test]
    fn tables_have_the_layout_of_the_program() {
        let steering = Steering {
            ours: vec![range([10, 0, 0, 2], [10, 0, 0, 3])],
            shared: vec![range([10, 0, 0, 1], [10, 0, 0, 1])],
            ports: vec![(80, 80), (65535, 65535)],
            vlan: Some(7),
        };
        let Tables { config, tables } = steering.tables().unwrap();
        assert_eq!(config, [1u32, 1, 7].map(u32::to_ne_bytes).concat());
        assert_eq!(tables[..8], [0x0a000002u32, 0x0a000003].map(u32::to_ne_bytes).concat());
        let ports = &tables[2 * 8 * RANGES_MAX..];
        assert_eq!(ports.len(), 8192);
        let word = |index: usize| u64::from_ne_bytes(ports[index * 8..][..8].try_into().unwrap());
        assert_eq!((word(1), word(1023)), (1 << 16, 1 << 63));
        assert_eq!((0..1024).filter(|&index| word(index) != 0).count(), 2);
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
                0x28 | 0x20 => match load(if code == 0x28 { 2 } else { 4 }) {
                    Some(field) => accumulator = field,
                    None => return false,
                },
                0x05 => at += value as usize,
                0x15 => at += branch(accumulator == value),
                0x25 => at += branch(accumulator > value),
                0x35 => at += branch(accumulator >= value),
                0x06 => return value != 0,
                _ => panic!("instruction {code:#x}"),
            }
        }
    }

    fn frame(ethertype: u16, offset: usize, addr: Ipv4Addr) -> [u8; 60] {
        let mut bytes = [0; 60];
        bytes[12..14].copy_from_slice(&ethertype.to_be_bytes());
        bytes[offset..offset + 4].copy_from_slice(&addr.octets());
        bytes
    }

    #[test]
    fn the_filter_passes_ipv4_and_arp_to_our_ranges() {
        let ours = [range([10, 0, 0, 5], [10, 0, 0, 7]), range([10, 0, 9, 0], [10, 0, 9, 0])];
        let filter = filter(&[IPV4_DESTINATION, ARP_TARGET], &ours);
        let arp_only = super::filter(&[ARP_TARGET], &ours);
        for (addr, expected) in [
            ([10, 0, 0, 4], false),
            ([10, 0, 0, 5], true),
            ([10, 0, 0, 7], true),
            ([10, 0, 0, 8], false),
            ([10, 0, 9, 0], true),
            ([255, 255, 255, 255], false),
        ] {
            let addr = Ipv4Addr::from(addr);
            assert_eq!(passes(&filter, &frame(0x0800, 30, addr)), expected, "{addr}");
            assert_eq!(passes(&filter, &frame(0x0806, 38, addr)), expected, "{addr}");
            assert!(!passes(&filter, &frame(0x86dd, 30, addr)));
            assert!(!passes(&filter, &frame(0x0800, 30, addr)[..33]));
            assert_eq!(passes(&arp_only, &frame(0x0806, 38, addr)), expected, "{addr}");
            assert!(!passes(&arp_only, &frame(0x0800, 30, addr)));
        }
    }

    #[test]
    fn a_long_table_makes_a_coarse_filter() {
        let every_other = (0..100).map(|index| Ipv4Addr::from([10, 0, 0, index * 2]));
        let ours: Vec<_> = every_other.map(|addr| (addr, addr)).collect();
        let filter = filter(&[IPV4_DESTINATION, ARP_TARGET], &ours);
        assert!(filter.len() < 16);
        assert!(passes(&filter, &frame(0x0800, 30, Ipv4Addr::new(10, 0, 0, 198))));
        assert!(!passes(&filter, &frame(0x0800, 30, Ipv4Addr::new(10, 0, 0, 199))));
    }

    #[test]
    fn more_ranges_than_the_program_holds_are_refused() {
        let every_other = (0..=RANGES_MAX as u32)
            .map(|index| Ipv4Addr::from(0x0a000000 + 2 * index))
            .map(|addr| (addr, addr));
        let steering = Steering { ours: every_other.collect(), ..Steering::default() };
        assert!(steering.tables().err().unwrap().to_string().contains("16385 separate"));
    }
}
