//! Ethernet II with at most one 802.1Q tag.

/// A MAC address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Mac(pub [u8; 6]);

/// An Ethernet header, tag included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    pub dst: Mac,
    pub src: Mac,
    /// The 802.1Q VLAN id, if the frame is tagged.
    pub vlan: Option<u16>,
    /// The type after the tag.
    pub ethertype: u16,
}
