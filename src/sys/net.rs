//! What the kernel knows of an interface, asked by ioctl in the caller's network namespace, so that
//! neither sysfs (which shows the namespace it was mounted in) nor ethtool is needed.

use super::{check, failed};
use std::ffi::{CStr, CString};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

const ETHTOOL_GDRVINFO: u32 = 0x03;
const ETHTOOL_GFLAGS: u32 = 0x25;
const ETHTOOL_SFLAGS: u32 = 0x26;
const ETH_FLAG_RXVLAN: u32 = 1 << 8;
const ETHTOOL_GGRO: u32 = 0x2b;
const ETHTOOL_STXCSUM: u32 = 0x17;
const ETHTOOL_STSO: u32 = 0x1f;
const ETHTOOL_SGSO: u32 = 0x24;
const ETHTOOL_GCHANNELS: u32 = 0x3c;
const ETHTOOL_GRXFH: u32 = 0x29;
const ETHTOOL_GRSSH: u32 = 0x46;
const TCP_V4_FLOW: u32 = 1;
const TCP_V6_FLOW: u32 = 5;
/// The first bit of struct ethtool_rxfh's `hfunc`.
const ETH_RSS_HASH_TOP: u8 = 1;
/// Source and destination address, and the two halves of the words where ports are.
const RXH_TUPLE: u32 = 1 << 4 | 1 << 5 | 1 << 6 | 1 << 7;

/// An interface as it was when asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    pub name: String,
    /// Its index, unique in its namespace.
    pub index: u32,
    pub mac: [u8; 6],
    /// Largest IP datagram in bytes.
    pub mtu: u32,
    /// Administratively up.
    pub up: bool,
    /// Up, and with a link to a peer.
    pub running: bool,
    /// Kernel driver, empty if it has no name.
    pub driver: String,
    /// Receive queues.
    pub queues: u32,
    /// Generic receive offload; `None` if it can't be asked.
    pub gro: Option<bool>,
    /// The driver takes 802.1Q tags out of received frames; `None` if it can't be asked.
    pub rx_vlan: Option<bool>,
    /// The kernel's addresses on it, with their prefix lengths.
    pub addrs: Vec<(IpAddr, u8)>,
}

impl Interface {
    /// Asks for the interface `name`.
    ///
    /// # Errors
    /// `NotFound` with the names there are, if there is none of that name.
    pub fn find(name: &str) -> io::Result<Interface> {
        let index = index(name)?;
        let asker = Asker::new(name)?;
        let flags = asker.flags()?;
        Ok(Interface {
            name: name.to_owned(),
            index,
            mac: asker.mac()?,
            mtu: asker.mtu()?,
            up: flags & libc::IFF_UP != 0,
            running: flags & libc::IFF_RUNNING != 0,
            driver: asker.driver(),
            queues: asker.queues(),
            gro: asker.ethtool([ETHTOOL_GGRO, 0]).ok().map(|[_, on]| on != 0),
            rx_vlan: asker.flag_words().ok().map(|[_, flags]| flags & ETH_FLAG_RXVLAN != 0),
            addrs: addresses(name)?,
        })
    }
}

/// How a NIC deals received frames out to its queues (receive-side scaling).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spreading {
    /// Of the hash.
    pub key: Vec<u8>,
    /// Queue by the hash's low bits.
    pub table: Vec<u32>,
    /// The hash is Toeplitz's and no more is done to it.
    pub toeplitz: bool,
    /// TCP is hashed with its ports, over IPv4 and over IPv6; `None` if it can't be asked.
    pub with_ports: [Option<bool>; 2],
}

impl Spreading {
    /// Asks for that of the interface `name`.
    ///
    /// # Errors
    /// The driver can't tell, or not permitted.
    pub fn of(name: &str) -> io::Result<Spreading> {
        let asker = Asker::new(name)?;
        let (head, tail) = asker.rss()?;
        let (table, rest) = tail.split_at(head.table_len as usize);
        let bytes = rest.iter().flat_map(|word| word.to_ne_bytes());
        Ok(Spreading {
            key: bytes.take(head.key_len as usize).collect(),
            table: table.to_vec(),
            toeplitz: head.functions & ETH_RSS_HASH_TOP != 0 && head.transform == 0,
            with_ports: [TCP_V4_FLOW, TCP_V6_FLOW].map(|flow| asker.hashes_ports(flow)),
        })
    }
}

/// What precedes the table and the key in struct ethtool_rxfh.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct RssHead {
    table_len: u32,
    key_len: u32,
    functions: u8,
    /// What is done to the tuple first (since Linux 6.8; a byte of zero before).
    transform: u8,
}

/// Entries and bytes that no NIC has: an answer with more is not believed.
const RSS_PART_MAX: u32 = 1 << 16;

impl RssHead {
    /// Its words: the command, the context, the two lengths, four bytes of which two are reserved,
    /// and a reserved word.
    const WORDS: usize = 6;

    fn parse(words: &[u32]) -> Option<RssHead> {
        let &[_, _, table_len, key_len, bytes, _] = words.first_chunk()?;
        let [functions, transform, _, _] = bytes.to_ne_bytes();
        let plausible = table_len <= RSS_PART_MAX && key_len <= RSS_PART_MAX;
        plausible.then_some(RssHead { table_len, key_len, functions, transform })
    }
}

/// Keeps a driver from taking 802.1Q tags out of received frames; undone when dropped.
pub struct TagsLeftIn {
    asker: Asker,
}

impl TagsLeftIn {
    /// Turns off `rxvlan` of an interface of the calling thread's network namespace. `None` if it
    /// is off already.
    ///
    /// # Errors
    /// The driver can't, or not permitted.
    pub fn on(name: &str) -> io::Result<Option<TagsLeftIn>> {
        let asker = Asker::new(name)?;
        let [_, flags] = asker.flag_words()?;
        if flags & ETH_FLAG_RXVLAN == 0 {
            return Ok(None);
        }
        asker.ethtool([ETHTOOL_SFLAGS, flags & !ETH_FLAG_RXVLAN])?;
        Ok(Some(TagsLeftIn { asker }))
    }
}

impl Drop for TagsLeftIn {
    fn drop(&mut self) {
        // The interface may be gone.
        if let Ok([_, flags]) = self.asker.flag_words() {
            let _ = self.asker.ethtool([ETHTOOL_SFLAGS, flags | ETH_FLAG_RXVLAN]);
        }
    }
}

/// Names of all interfaces of the namespace.
///
/// # Errors
/// Not enough memory.
pub fn names() -> io::Result<Vec<String>> {
    // SAFETY: no arguments; answers an array ended by index 0, or null.
    let list = unsafe { libc::if_nameindex() };
    if list.is_null() {
        return Err(failed("list the interfaces", io::Error::last_os_error()));
    }
    let mut names = Vec::new();
    for place in 0.. {
        // SAFETY: entries up to and including the one of index 0 exist.
        let entry = unsafe { &*list.add(place) };
        if entry.if_index == 0 {
            break;
        }
        // SAFETY: an entry's name is a C string, alive until if_freenameindex.
        names.push(unsafe { CStr::from_ptr(entry.if_name) }.to_string_lossy().into_owned());
    }
    // SAFETY: from if_nameindex, freed once.
    unsafe { libc::if_freenameindex(list) };
    Ok(names)
}

fn index(name: &str) -> io::Result<u32> {
    let c_name = CString::new(name).unwrap_or_default();
    // SAFETY: a C string.
    match unsafe { libc::if_nametoindex(c_name.as_ptr()) } {
        0 => Err(io::Error::new(
            io::ErrorKind::NotFound,
            format!("no interface {name:?}; there are: {}", names()?.join(", ")),
        )),
        index => Ok(index),
    }
}

/// Addresses of one interface.
fn addresses(name: &str) -> io::Result<Vec<(IpAddr, u8)>> {
    let mut first = std::ptr::null_mut();
    // SAFETY: on success `first` heads a list that freeifaddrs frees.
    check(unsafe { libc::getifaddrs(&mut first) }, "list the addresses")?;
    let mut addrs = Vec::new();
    let mut next = first;
    while !next.is_null() {
        // SAFETY: an element of the list, alive until freeifaddrs.
        let entry = unsafe { &*next };
        next = entry.ifa_next;
        // SAFETY: a C string of the element.
        let is_it = unsafe { CStr::from_ptr(entry.ifa_name) }.to_bytes() == name.as_bytes();
        if let (true, Some(addr), Some(mask)) =
            (is_it, ip_of(entry.ifa_addr), ip_of(entry.ifa_netmask))
        {
            let prefix_len = match mask {
                IpAddr::V4(mask) => mask.to_bits().count_ones(),
                IpAddr::V6(mask) => mask.to_bits().count_ones(),
            };
            addrs.push((addr, prefix_len as u8));
        }
    }
    // SAFETY: from getifaddrs, freed once.
    unsafe { libc::freeifaddrs(first) };
    Ok(addrs)
}

/// The IP address in a socket address of getifaddrs.
fn ip_of(address: *const libc::sockaddr) -> Option<IpAddr> {
    // SAFETY: null, or a socket address of getifaddrs.
    let family = unsafe { address.as_ref() }?.sa_family;
    match i32::from(family) {
        libc::AF_INET => {
            // SAFETY: AF_INET addresses are sockaddr_in.
            let address = unsafe { &*address.cast::<libc::sockaddr_in>() };
            Some(Ipv4Addr::from(u32::from_be(address.sin_addr.s_addr)).into())
        }
        libc::AF_INET6 => {
            // SAFETY: AF_INET6 addresses are sockaddr_in6.
            let address = unsafe { &*address.cast::<libc::sockaddr_in6>() };
            Some(Ipv6Addr::from(address.sin6_addr.s6_addr).into())
        }
        _ => None,
    }
}

/// What the kernel leaves to the interface when it sends TCP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offloads {
    /// To fill in checksums.
    pub checksums: bool,
    /// To cut what is larger than a frame into segments.
    pub segmentation: bool,
}

impl Offloads {
    /// Sets them on the interface `name`.
    ///
    /// # Errors
    /// No such interface, not permitted, or the driver can't.
    pub fn set(self, name: &str) -> io::Result<()> {
        let asker = Asker::new(name)?;
        let set = |command, on| asker.ethtool([command, u32::from(on)]).map(drop);
        set(ETHTOOL_STXCSUM, self.checksums)?;
        set(ETHTOOL_STSO, self.segmentation)?;
        set(ETHTOOL_SGSO, self.segmentation)
    }
}

/// An interface's name and a socket to ask through.
struct Asker {
    socket: OwnedFd,
    name: [libc::c_char; libc::IFNAMSIZ],
}

impl Asker {
    fn new(name: &str) -> io::Result<Asker> {
        let mut c_name = [0; libc::IFNAMSIZ];
        for (place, byte) in c_name[..libc::IFNAMSIZ - 1].iter_mut().zip(name.bytes()) {
            *place = byte as libc::c_char;
        }
        // SAFETY: no pointers.
        let fd = check(
            unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) },
            "open a socket to ask about interfaces",
        )?;
        // SAFETY: a descriptor just made, owned by nobody else.
        Ok(Asker { socket: unsafe { OwnedFd::from_raw_fd(fd) }, name: c_name })
    }

    fn request(&self, code: libc::c_ulong, request: &mut libc::ifreq) -> io::Result<()> {
        // SAFETY: every code used here takes an ifreq; where it holds a pointer, that is to a live
        // buffer.
        let result = unsafe { libc::ioctl(self.socket.as_raw_fd(), code as _, request) };
        check(result, "ask about the interface").map(drop)
    }

    fn empty(&self) -> libc::ifreq {
        // SAFETY: integers, an array and pointers; zero is valid for each.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        request.ifr_name = self.name;
        request
    }

    fn flags(&self) -> io::Result<i32> {
        let mut request = self.empty();
        self.request(libc::SIOCGIFFLAGS, &mut request)?;
        // SAFETY: the member that SIOCGIFFLAGS fills.
        Ok(i32::from(unsafe { request.ifr_ifru.ifru_flags }))
    }

    fn mtu(&self) -> io::Result<u32> {
        let mut request = self.empty();
        self.request(libc::SIOCGIFMTU, &mut request)?;
        // SAFETY: the member that SIOCGIFMTU fills.
        Ok(unsafe { request.ifr_ifru.ifru_mtu } as u32)
    }

    fn mac(&self) -> io::Result<[u8; 6]> {
        let mut request = self.empty();
        self.request(libc::SIOCGIFHWADDR, &mut request)?;
        // SAFETY: the member that SIOCGIFHWADDR fills.
        let data = unsafe { request.ifr_ifru.ifru_hwaddr }.sa_data;
        Ok(std::array::from_fn(|place| data[place] as u8))
    }

    /// An ethtool command: its structure as words, the command first.
    fn ethtool<const WORDS: usize>(&self, mut words: [u32; WORDS]) -> io::Result<[u32; WORDS]> {
        self.ethtool_slice(&mut words)?;
        Ok(words)
    }

    /// [`Asker::ethtool`] with a structure whose length is known only at run time.
    fn ethtool_slice(&self, words: &mut [u32]) -> io::Result<()> {
        let mut request = self.empty();
        request.ifr_ifru.ifru_data = words.as_mut_ptr().cast();
        self.request(libc::SIOCETHTOOL, &mut request)
    }

    /// The hash's head, and what follows it: the table, then the key. Asked for its lengths first,
    /// then whole; between the two they may change, which the kernel refuses.
    fn rss(&self) -> io::Result<(RssHead, Vec<u32>)> {
        let strange = || io::Error::new(io::ErrorKind::InvalidData, "an RSS table of no size");
        let mut head = [ETHTOOL_GRSSH, 0, 0, 0, 0, 0];
        self.ethtool_slice(&mut head)?;
        let lengths = RssHead::parse(&head).ok_or_else(strange)?;
        let RssHead { table_len, key_len, .. } = lengths;
        let tail = table_len as usize + key_len.div_ceil(4) as usize;
        let mut words = vec![0; RssHead::WORDS + tail];
        words[..4].copy_from_slice(&[ETHTOOL_GRSSH, 0, table_len, key_len]);
        self.ethtool_slice(&mut words)?;
        let head = RssHead::parse(&words).ok_or_else(strange)?;
        if (head.table_len, head.key_len) != (table_len, key_len) || table_len == 0 {
            return Err(strange());
        }
        Ok((head, words.split_off(RssHead::WORDS)))
    }

    /// Whether the hash of TCP over IPv4 or IPv6 takes in addresses and ports.
    fn hashes_ports(&self, flow: u32) -> Option<bool> {
        // struct ethtool_rxnfc: command, flow type, then 64 bits of fields; 192 bytes in all.
        let mut words = [0; 48];
        (words[0], words[1]) = (ETHTOOL_GRXFH, flow);
        let words = self.ethtool(words).ok()?;
        let fields =
            u64::from_ne_bytes(std::array::from_fn(|at| words[2 + at / 4].to_ne_bytes()[at % 4]));
        Some(fields == u64::from(RXH_TUPLE))
    }

    /// What [`ETHTOOL_SFLAGS`] sets: its second word.
    fn flag_words(&self) -> io::Result<[u32; 2]> {
        self.ethtool([ETHTOOL_GFLAGS, 0])
    }

    fn driver(&self) -> String {
        // struct ethtool_drvinfo: 196 bytes, the driver's name in the 32 after the command.
        let mut words = [0; 49];
        words[0] = ETHTOOL_GDRVINFO;
        let words = self.ethtool(words).unwrap_or([0; 49]);
        let bytes = words[1..9].iter().flat_map(|word| word.to_ne_bytes());
        bytes.take_while(|&byte| byte != 0).map(char::from).collect()
    }

    fn queues(&self) -> u32 {
        // struct ethtool_channels: command, four maxima, then rx, tx, other, combined.
        match self.ethtool([ETHTOOL_GCHANNELS, 0, 0, 0, 0, 0, 0, 0, 0]) {
            Ok([_, _, _, _, _, rx, _, _, combined]) => (rx + combined).max(1),
            Err(_) => 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_is_what_it_always_is() {
        let lo = Interface::find("lo").unwrap();
        assert_eq!((lo.mac, lo.queues), ([0; 6], 1));
        assert!(lo.index > 0 && lo.mtu >= 1500);
        assert!(!lo.up || lo.addrs.contains(&(Ipv4Addr::LOCALHOST.into(), 8)));
    }

    #[test]
    fn a_missing_interface_is_named_with_those_there_are() {
        let error = Interface::find("nothere0").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        assert!(error.to_string().contains("\"nothere0\"") && error.to_string().contains("lo"));
        assert!(Interface::find("").is_err() && Interface::find("a\0b").is_err());
        assert!(Interface::find("a-name-longer-than-any-interface-may-have").is_err());
    }

    #[test]
    fn an_interface_that_spreads_nothing_says_so() {
        let error = Spreading::of("lo").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::Unsupported, "{error}");
        assert!(Spreading::of("nothere0").is_err());
    }

    #[test]
    fn a_head_is_read_as_the_kernel_lays_it_out() {
        // ethtool -x of a NIC with 128 entries and a key of 40 bytes.
        let words = |bytes| [ETHTOOL_GRSSH, 0, 128, 40, u32::from_ne_bytes(bytes), 0];
        let head = RssHead { table_len: 128, key_len: 40, functions: 1, transform: 0 };
        assert_eq!(RssHead::parse(&words([1, 0, 0, 0])), Some(head));
        let transformed = RssHead { transform: 1, ..head };
        assert_eq!(RssHead::parse(&words([1, 1, 0, 0])), Some(transformed));
        assert_eq!(RssHead::parse(&[0; 5]), None);
        assert_eq!(RssHead::parse(&[0, 0, u32::MAX, 40, 0, 0]), None);
    }
}
