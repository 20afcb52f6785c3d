//! TCP options (RFC 9293 s3.2, RFC 7323, RFC 2018), gathered in one pass.

/// The options of one segment that we understand; all others are skipped by their length.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Maximum segment size in bytes.
    pub mss: Option<u16>,
    /// Window scale shift as sent; RFC 7323 s2.3 caps its use at 14.
    pub window_scale: Option<u8>,
    pub sack_permitted: bool,
    /// TSval and TSecr.
    pub timestamps: Option<(u32, u32)>,
}
