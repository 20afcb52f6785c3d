//! Ethernet II with at most one 802.1Q tag.

use super::Malformed;
use std::fmt;
use std::str::FromStr;

/// EtherType of IPv4.
pub const ETHERTYPE_IPV4: u16 = 0x0800;
/// EtherType of IPv6.
pub const ETHERTYPE_IPV6: u16 = 0x86dd;
/// EtherType of ARP.
pub const ETHERTYPE_ARP: u16 = 0x0806;
/// EtherType that announces an 802.1Q tag.
pub const ETHERTYPE_VLAN: u16 = 0x8100;

/// A MAC address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Mac(pub [u8; 6]);

/// An Ethernet header, tag included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    pub dst: Mac,
    pub src: Mac,
    /// The 802.1Q VLAN id, if the frame is tagged. A tag with id 0 carries only a priority: `None`.
    pub vlan: Option<u16>,
    /// The type after the tag.
    pub ethertype: u16,
}

/// Bytes of an Ethernet header with or without a tag.
#[inline]
pub const fn header_len(vlan: bool) -> usize {
    if vlan { 18 } else { 14 }
}

impl Header {
    /// The header, and where in the frame what it carries begins.
    ///
    /// # Errors
    /// The frame is shorter than its header.
    #[inline]
    pub fn parse(frame: &[u8]) -> Result<(Header, usize), Malformed> {
        let Some((fixed, rest)) = frame.split_first_chunk::<14>() else {
            return Err(Malformed::Truncated);
        };
        let [d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5, t0, t1] = *fixed;
        let mut header = Header {
            dst: Mac([d0, d1, d2, d3, d4, d5]),
            src: Mac([s0, s1, s2, s3, s4, s5]),
            vlan: None,
            ethertype: u16::from_be_bytes([t0, t1]),
        };
        if header.ethertype != ETHERTYPE_VLAN {
            return Ok((header, 14));
        }
        let Some(&[c0, c1, t0, t1]) = rest.first_chunk::<4>() else {
            return Err(Malformed::Truncated);
        };
        let id = u16::from_be_bytes([c0, c1]) & 0x0fff;
        header.vlan = (id != 0).then_some(id);
        header.ethertype = u16::from_be_bytes([t0, t1]);
        Ok((header, 18))
    }

    /// Writes the header to the start of `frame`; answers its length.
    ///
    /// # Panics
    /// If `frame` is shorter than the header, or the VLAN id takes more than 12 bits: a bug of the
    /// caller.
    #[inline]
    pub fn emit(&self, frame: &mut [u8]) -> usize {
        let ([d0, d1, d2, d3, d4, d5], [s0, s1, s2, s3, s4, s5]) = (self.dst.0, self.src.0);
        let [t0, t1] = self.vlan.map_or(self.ethertype, |_| ETHERTYPE_VLAN).to_be_bytes();
        let fixed = [d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5, t0, t1];
        frame[..14].copy_from_slice(&fixed);
        if let Some(id) = self.vlan {
            assert!(id < 0x1000);
            let ([c0, c1], [t0, t1]) = (id.to_be_bytes(), self.ethertype.to_be_bytes());
            frame[14..18].copy_from_slice(&[c0, c1, t0, t1]);
        }
        header_len(self.vlan.is_some())
    }
}

impl Mac {
    /// Every station on the link.
    pub const BROADCAST: Mac = Mac([0xff; 6]);

    /// True for a multicast address, broadcast included: never a station's own.
    pub const fn is_group(self) -> bool {
        self.0[0] & 1 != 0
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, f] = self.0;
        write!(out, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
    }
}

/// Not a MAC address, as a user wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidMac(String);

impl fmt::Display for InvalidMac {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "`{}` is not a MAC address: write six bytes as in 02:00:00:00:00:01", self.0)
    }
}

impl std::error::Error for InvalidMac {}

impl FromStr for Mac {
    type Err = InvalidMac;

    fn from_str(text: &str) -> Result<Mac, InvalidMac> {
        let invalid = || InvalidMac(text.to_owned());
        let mut bytes = [0; 6];
        let mut parts = text.split([':', '-']);
        for byte in &mut bytes {
            let part = parts.next().ok_or_else(invalid)?;
            // `from_str_radix` would take a sign.
            if part.len() != 2 || !part.bytes().all(|digit| digit.is_ascii_hexdigit()) {
                return Err(invalid());
            }
            *byte = u8::from_str_radix(part, 16).map_err(|_| invalid())?;
        }
        if parts.next().is_some() {
            return Err(invalid());
        }
        Ok(Mac(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_header_comes_back_as_it_went(
            dst: [u8; 6], src: [u8; 6], vlan in prop::option::of(1u16..0x1000),
            ethertype in any::<u16>().prop_filter("a tag is not a type", |&t| t != ETHERTYPE_VLAN),
        ) {
            let header = Header { dst: Mac(dst), src: Mac(src), vlan, ethertype };
            let mut frame = [0; 18];
            let len = header.emit(&mut frame);
            prop_assert_eq!(len, header_len(vlan.is_some()));
            prop_assert_eq!(Header::parse(&frame[..len]), Ok((header, len)));
            for cut in 0..len {
                prop_assert_eq!(Header::parse(&frame[..cut]), Err(Malformed::Truncated));
            }
        }

        #[test]
        fn an_address_is_read_as_it_is_printed(bytes: [u8; 6]) {
            prop_assert_eq!(Mac(bytes).to_string().parse(), Ok(Mac(bytes)));
        }
    }

    #[test]
    fn a_priority_tag_is_no_vlan_and_the_priority_bits_are_not_part_of_the_id() {
        let mut frame = [0; 18];
        frame[12..].copy_from_slice(&[0x81, 0x00, 0xe0, 0x00, 0x08, 0x00]);
        let (header, at) = Header::parse(&frame).unwrap();
        assert_eq!((header.vlan, header.ethertype, at), (None, ETHERTYPE_IPV4, 18));
        frame[14..16].copy_from_slice(&[0xf0, 0x64]);
        assert_eq!(Header::parse(&frame).unwrap().0.vlan, Some(100));
    }

    #[test]
    fn what_is_not_an_address_is_refused_with_advice() {
        for text in
            ["", "02:00:00:00:00", "02:00:00:00:00:01:02", "2:0:0:0:0:1", "0g:00:00:00:00:01"]
        {
            let error = text.parse::<Mac>().unwrap_err().to_string();
            assert!(error.contains(text) && error.contains("02:00:00:00:00:01"), "{error}");
        }
        assert!("+2:00:00:00:00:01".parse::<Mac>().is_err());
    }

    #[test]
    fn broadcast_is_a_group_and_a_station_is_not() {
        assert!(Mac::BROADCAST.is_group());
        assert!(!Mac([0x02, 0, 0, 0, 0, 1]).is_group());
    }
}
