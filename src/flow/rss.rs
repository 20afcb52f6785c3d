//! Receive-side scaling: which queue a NIC puts a frame on, and so which of our source ports bring
//! the replies back to the worker that asked.
//!
//! ```text
//!   (src, dst, src port, dst port) --Toeplitz, with the NIC's key--> hash --its low bits--> bucket
//!   bucket --indirection table--> queue, and so worker
//! ```
//! The hash is linear: that of a tuple is that of its remote socket and local address XOR that of
//! its local port. So ports fall into classes, and a port brings replies to bucket b if its class
//! is b XOR the bucket of the rest: [`HomePorts`] looks it up where a search would hash one port
//! after another.

use super::Endpoints;
use crate::wire::{Family, ethernet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// Bytes of a key: 32 bits for each bit of the longest input, IPv6's, and no more.
pub const KEY_BYTES: usize = INPUT_BYTES_MAX + 4;

/// Two addresses and two ports.
const INPUT_BYTES_MAX: usize = 2 * 16 + 2 * 2;

/// Buckets of the largest table that we follow. NICs have 128 to 2048.
const BUCKETS_MAX: usize = 4096;

/// Microsoft's Toeplitz hash, as tables: what each four bits of the input add to it. Bytewise
/// tables would be half as many look-ups and the whole of an L1 cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Toeplitz {
    nibbles: Vec<[u32; 16]>,
}

/// A NIC's hash with its indirection table, of which an entry says not the queue but whose the
/// queue is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rss {
    toeplitz: Toeplitz,
    /// Worker by bucket. As short as it can be: `bucket` is the hash's low bits.
    workers: Vec<u16>,
}

/// Source ports by class, and the buckets that are a worker's own.
#[derive(Clone, Debug)]
pub(super) struct HomePorts {
    rss: Arc<Rss>,
    /// Buckets that are ours.
    own: Vec<u16>,
    /// Ports sorted by class; class c is `starts[c]..starts[c + 1]` of them.
    ports: Vec<u16>,
    starts: Vec<u32>,
    /// Ports of the largest class.
    most: u32,
}

impl Toeplitz {
    /// The hash with a key.
    pub fn new(key: &[u8; KEY_BYTES]) -> Toeplitz {
        let window = |bit: usize| {
            let at = bit / 8;
            let bytes: [u8; 8] = std::array::from_fn(|i| key.get(at + i).copied().unwrap_or(0));
            (u64::from_be_bytes(bytes) << (bit % 8) >> 32) as u32
        };
        let added = |place: usize, value: usize| {
            let set = (0..4).filter(|bit| value >> (3 - bit) & 1 == 1);
            set.fold(0, |hash, bit| hash ^ window(4 * place + bit))
        };
        let nibble = |place| std::array::from_fn(|value| added(place, value));
        Toeplitz { nibbles: (0..2 * INPUT_BYTES_MAX).map(nibble).collect() }
    }

    /// What `bytes` at offset `at` of the input add to the hash: the parts' XOR is the whole's.
    pub fn part(&self, at: usize, bytes: &[u8]) -> u32 {
        let nibbles = self.nibbles[2 * at..].chunks_exact(2).zip(bytes);
        nibbles.fold(0, |hash, (tables, &byte)| {
            hash ^ tables[0][usize::from(byte >> 4)] ^ tables[1][usize::from(byte & 15)]
        })
    }

    fn of_ip(&self, at: usize, address: IpAddr) -> u32 {
        match address {
            IpAddr::V4(address) => self.part(at, &address.octets()),
            IpAddr::V6(address) => self.part(at, &address.octets()),
        }
    }
}

/// Bytes of an address.
const fn ip_len(family: Family) -> usize {
    match family {
        Family::V4 => 4,
        Family::V6 => 16,
    }
}

impl Rss {
    /// `workers` is the worker of each bucket; one that is no worker's has a number that none has.
    /// `None` if there are not 1, 2, 4, … up to 4096 buckets: the hash's low bits would not name
    /// one.
    pub fn new(key: &[u8; KEY_BYTES], mut workers: Vec<u16>) -> Option<Rss> {
        if !workers.len().is_power_of_two() || workers.len() > BUCKETS_MAX {
            return None;
        }
        // A table that repeats itself, as they do unless told otherwise, says no more than its
        // first part, and fewer classes have more ports each.
        while let (first, again) = workers.split_at(workers.len() / 2)
            && first == again
        {
            workers.truncate(workers.len() / 2);
        }
        Some(Rss { toeplitz: Toeplitz::new(key), workers })
    }

    /// True if some bucket is the worker's: else nothing comes to it.
    pub fn reaches(&self, worker: u16) -> bool {
        self.workers.contains(&worker)
    }

    /// The worker that what the remote side sends comes to.
    pub fn worker_of(&self, endpoints: &Endpoints) -> u16 {
        let Endpoints { local, remote } = *endpoints;
        let port = self.port_class(Family::of(local.ip()), local.port());
        self.workers[usize::from(self.rest(remote, local.ip()) ^ port)]
    }

    /// The worker that a TCP frame comes to, tagged or not; `None` for all else and for fragments,
    /// which a NIC hashes by address alone or not at all.
    pub fn worker_of_frame(&self, frame: &[u8]) -> Option<u16> {
        let untagged = match frame.get(12..14)? {
            &[0x81, 0x00] => 16,
            _ => 12,
        };
        let ethertype = u16::from_be_bytes(frame.get(untagged..untagged + 2)?.try_into().ok()?);
        let ip = frame.get(untagged + 2..)?;
        let (addresses, ports) = match ethertype {
            ethernet::ETHERTYPE_IPV4 => {
                let whole = ip.get(6)? & 0x3f == 0 && *ip.get(7)? == 0;
                (ip.get(12..20).filter(|_| whole && ip[9] == 6)?, 4 * usize::from(ip[0] & 15))
            }
            ethernet::ETHERTYPE_IPV6 => (ip.get(8..40).filter(|_| ip[6] == 6)?, 40),
            _ => return None,
        };
        let ports = ip.get(ports..ports + 4)?;
        let hash = self.toeplitz.part(0, addresses) ^ self.toeplitz.part(addresses.len(), ports);
        Some(self.workers[usize::from(self.bucket(hash))])
    }

    fn bucket(&self, hash: u32) -> u16 {
        hash as u16 & (self.workers.len() - 1) as u16
    }

    /// What a reply's tuple but its destination port adds to the bucket.
    fn rest(&self, remote: SocketAddr, local: IpAddr) -> u16 {
        let len = ip_len(Family::of(local));
        let addresses = self.toeplitz.of_ip(0, remote.ip()) ^ self.toeplitz.of_ip(len, local);
        self.bucket(addresses ^ self.toeplitz.part(2 * len, &remote.port().to_be_bytes()))
    }

    /// What its destination port, ours, adds.
    fn port_class(&self, family: Family, port: u16) -> u16 {
        self.bucket(self.toeplitz.part(2 * ip_len(family) + 2, &port.to_be_bytes()))
    }
}

impl HomePorts {
    /// Of the ports `first..=last`, for `worker`.
    pub fn new(rss: &Arc<Rss>, worker: u16, family: Family, first: u16, last: u16) -> HomePorts {
        let buckets = rss.workers.len();
        let own = (0..buckets as u16).filter(|&at| rss.workers[usize::from(at)] == worker);
        let mut classes: Vec<(u16, u16)> =
            (first..=last).map(|port| (rss.port_class(family, port), port)).collect();
        classes.sort_unstable();
        let start = |class| classes.partition_point(|&(its, _)| usize::from(its) < class) as u32;
        let starts: Vec<u32> = (0..=buckets).map(start).collect();
        let most = starts.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or(0);
        HomePorts {
            rss: Arc::clone(rss),
            own: own.collect(),
            ports: classes.into_iter().map(|(_, port)| port).collect(),
            starts,
            most,
        }
    }

    /// Places of a round. Where ports are many and classes alike, nearly all hold a port for each
    /// pair of sockets.
    pub fn places(&self) -> u32 {
        self.own.len() as u32 * self.most
    }

    /// The port at `place` that brings what `remote` sends to `local` home, if there is one.
    pub fn at(&self, place: u32, remote: SocketAddr, local: IpAddr) -> Option<u16> {
        let own = self.own.len() as u32;
        let class = usize::from(self.own[(place % own) as usize] ^ self.rss.rest(remote, local));
        let at = self.starts[class] + place / own;
        (at < self.starts[class + 1]).then(|| self.ports[at as usize])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Of Microsoft's "Verifying the RSS Hash Calculation".
    const KEY: [u8; KEY_BYTES] = [
        0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3, 0x8f,
        0xb0, 0xd0, 0xca, 0x2b, 0xcb, 0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3, 0x80, 0x30,
        0xf2, 0x0c, 0x6a, 0x42, 0xb7, 0x3b, 0xbe, 0xac, 0x01, 0xfa,
    ];

    /// Source, destination, hash of the addresses, hash of addresses and ports: from there too.
    const PUBLISHED: [(&str, &str, u32, u32); 8] = [
        ("66.9.149.187:2794", "161.142.100.80:1766", 0x323e_8fc2, 0x51cc_c178),
        ("199.92.111.2:14230", "65.69.140.83:4739", 0xd718_262a, 0xc626_b0ea),
        ("24.19.198.95:12898", "12.22.207.184:38024", 0xd2d0_a5de, 0x5c2b_394a),
        ("38.27.205.30:48228", "209.142.163.6:2217", 0x8298_9176, 0xafc7_327f),
        ("153.39.163.191:44251", "202.188.127.2:1303", 0x5d18_09c5, 0x10e8_28a2),
        ("[3ffe:2501:200:1fff::7]:2794", "[3ffe:2501:200:3::1]:1766", 0x2cc1_8cd5, 0x4020_7d3d),
        ("[3ffe:501:8::260:97ff:fe40:efab]:14230", "[ff02::1]:4739", 0x0f0c_461c, 0xdde5_1bbf),
        (
            "[3ffe:1900:4545:3:200:f8ff:fe21:67cf]:44251",
            "[fe80::200:f8ff:fe21:67cf]:38024",
            0x4b61_e985,
            0x02d1_feef,
        ),
    ];

    fn sockets(src: &str, dst: &str) -> Endpoints {
        Endpoints { remote: src.parse().unwrap(), local: dst.parse().unwrap() }
    }

    #[test]
    fn the_hash_is_what_was_published_for_it() {
        let toeplitz = Toeplitz::new(&KEY);
        for (src, dst, addresses, whole) in PUBLISHED {
            let Endpoints { remote, local } = sockets(src, dst);
            let len = ip_len(Family::of(local.ip()));
            let hash = toeplitz.of_ip(0, remote.ip()) ^ toeplitz.of_ip(len, local.ip());
            assert_eq!(hash, addresses, "{src} to {dst}");
            let ports = [remote.port().to_be_bytes(), local.port().to_be_bytes()].concat();
            assert_eq!(hash ^ toeplitz.part(2 * len, &ports), whole, "{src} to {dst}");
        }
    }

    #[test]
    fn a_reply_comes_to_the_worker_that_its_hash_names() {
        let table: Vec<u16> = (0..128).map(|bucket| bucket * 7 % 128).collect();
        let rss = Rss::new(&KEY, table.clone()).unwrap();
        for (src, dst, _, whole) in PUBLISHED {
            assert_eq!(rss.worker_of(&sockets(src, dst)), table[whole as usize % 128]);
        }
    }

    #[test]
    fn a_table_is_as_short_as_what_it_says() {
        let buckets = |table: Vec<u16>| Rss::new(&KEY, table).map(|rss| rss.workers.len());
        let dealt = |len: u16, workers| (0..len).map(|bucket| bucket % workers).collect();
        assert_eq!(buckets(dealt(128, 1)), Some(1));
        assert_eq!(buckets(dealt(128, 2)), Some(2));
        assert_eq!(buckets(dealt(128, 3)), Some(128));
        assert_eq!(buckets(dealt(512, 16)), Some(16));
        assert_eq!(buckets(dealt(4096, 6)), Some(4096));
        for none in [0, 3, 100, 8192] {
            assert_eq!(buckets(dealt(none, 2)), None, "{none} buckets");
        }
    }

    #[test]
    fn a_worker_without_a_bucket_is_known() {
        let rss = Rss::new(&KEY, vec![0, 2]).unwrap();
        assert_eq!([0, 1, 2].map(|worker| rss.reaches(worker)), [true, false, true]);
    }

    /// A TCP frame of these sockets, tagged or not, with as many words of IPv4 options.
    fn frame(endpoints: &Endpoints, tagged: bool, option_words: u8) -> Vec<u8> {
        let Endpoints { remote, local } = *endpoints;
        let mut frame = vec![2; 12];
        frame.extend(if tagged { &[0x81, 0, 0, 5][..] } else { &[] });
        frame.extend(Family::of(local.ip()).ethertype().to_be_bytes());
        match (remote.ip(), local.ip()) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                frame.extend([0x45 + option_words, 0, 0, 40, 0, 1, 0x40, 0, 64, 6, 0, 0]);
                frame.extend([src.octets(), dst.octets()].concat());
                frame.extend(vec![1; 4 * usize::from(option_words)]);
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                frame.extend([0x60, 0, 0, 0, 0, 20, 6, 64]);
                frame.extend([src.octets(), dst.octets()].concat());
            }
            mixed => panic!("{mixed:?}"),
        }
        frame.extend([remote.port().to_be_bytes(), local.port().to_be_bytes()].concat());
        frame
    }

    #[test]
    fn a_frame_is_hashed_as_its_tuple_whatever_is_around_it() {
        let rss = Rss::new(&KEY, (0..4096).collect()).unwrap();
        for (src, dst, _, whole) in PUBLISHED {
            let endpoints = sockets(src, dst);
            for (tagged, option_words) in [(false, 0), (true, 0), (false, 3)] {
                let option_words = if endpoints.local.is_ipv4() { option_words } else { 0 };
                let bytes = frame(&endpoints, tagged, option_words);
                assert_eq!(rss.worker_of_frame(&bytes), Some(whole as u16 & 4095));
                for len in 0..bytes.len() {
                    assert_eq!(rss.worker_of_frame(&bytes[..len]), None, "cut to {len}");
                }
            }
        }
    }

    #[test]
    fn a_fragment_and_another_protocol_have_no_ports() {
        let rss = Rss::new(&KEY, vec![0]).unwrap();
        let whole = frame(&sockets("10.0.0.2:80", "10.0.0.1:1024"), false, 0);
        assert_eq!(rss.worker_of_frame(&whole), Some(0));
        for (at, byte) in [(13, 6), (20, 0x20), (21, 1), (23, 17)] {
            let mut other = whole.clone();
            other[at] = byte;
            assert_eq!(rss.worker_of_frame(&other), None, "byte {at}");
        }
    }

    proptest! {
        #[test]
        fn any_frame_is_taken(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let rss = Rss::new(&KEY, (0..16).collect()).unwrap();
            if let Some(worker) = rss.worker_of_frame(&bytes) {
                prop_assert!(worker < 16);
            }
        }

        #[test]
        fn home_ports_are_those_whose_replies_come_home_each_once(
            key: [u8; 32], table in prop::collection::vec(0u16..4, 16),
            first in 1u16..2000, count in 0u16..600, remote: ([u8; 4], u16), local: [u8; 4],
        ) {
            let key = std::array::from_fn(|at| key[at % 32]);
            let rss = Arc::new(Rss::new(&key, table).unwrap());
            let (remote, local) = (SocketAddr::from(remote), IpAddr::from(local));
            let last = first + count;
            let mut seen = Vec::new();
            for worker in 0..4 {
                let home = HomePorts::new(&rss, worker, Family::V4, first, last);
                let ports = (0..home.places()).filter_map(|at| home.at(at, remote, local));
                for port in ports {
                    let local = SocketAddr::new(local, port);
                    prop_assert_eq!(rss.worker_of(&Endpoints { local, remote }), worker);
                    seen.push(port);
                }
            }
            seen.sort_unstable();
            prop_assert_eq!(seen, (first..=last).collect::<Vec<_>>());
        }
    }
}
