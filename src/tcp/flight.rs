//! What a connection has sent and knows of its fate: loss detection and how much may be under way.

use super::Seq;

/// Segments in flight at the most: the initial window of RFC 6928, held for the whole connection,
/// but for the single segment that follows a timeout (RFC 5681 s3.1) and the climb back.
pub(super) const FLIGHT_SEGMENTS_MAX: u8 = 10;

/// The sending half of a path.
#[derive(Clone, Debug)]
pub(super) struct Flight {
    /// Duplicate acknowledgments received in a row.
    pub dup_acks: u8,
    /// Segments that may be under way.
    pub segments: u8,
    /// Text was taken for lost, and what was sent before that, up to here, is not all acknowledged
    /// yet.
    pub recover: Option<Seq>,
}

impl Default for Flight {
    fn default() -> Flight {
        Flight { dup_acks: 0, segments: FLIGHT_SEGMENTS_MAX, recover: None }
    }
}
