//! What arrived ahead of a gap (RFC 9293 s3.10.7.4, SHLD-31): which ranges of sequence numbers.

/// The receiving half of a path.
#[derive(Clone, Debug, Default)]
pub(super) struct Held {}
