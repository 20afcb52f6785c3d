//! Congestion avoidance by RFC 5681 s3.1: a segment more a round trip, half on congestion.

use super::{Acked, Avoidance};

/// What is acknowledged towards the next segment.
#[derive(Clone, Debug, Default)]
pub(super) struct NewReno {
    bytes: u32,
}

impl Avoidance for NewReno {
    /// RFC 5681 s3.1: "the number of bytes acknowledged ... has reached cwnd, then cwnd can be
    /// incremented by up to SMSS bytes".
    fn growth(&mut self, cwnd: u32, acked: &Acked) -> u32 {
        self.bytes = self.bytes.saturating_add(acked.bytes);
        let segments = self.bytes / cwnd.max(1);
        self.bytes -= segments * cwnd;
        segments.saturating_mul(acked.mss)
    }

    /// RFC 5681 s3.1, equation 4: half of what is in flight.
    fn decrease(&mut self, used: u32, _mss: u32) -> u32 {
        self.bytes = 0;
        used / 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Instant;

    #[test]
    fn it_grows_by_one_segment_a_window_however_the_acks_are_cut() {
        for cut in [500, 1000, 2000, 10_000] {
            let (mut law, mut cwnd) = (NewReno::default(), 10_000);
            let acked = Acked { bytes: cut, mss: 1000, srtt_us: 1, now: Instant::ZERO };
            for _ in 0..10_000 / cut {
                cwnd += law.growth(cwnd, &acked);
            }
            assert_eq!(cwnd, 11_000, "ACKs of {cut} bytes");
        }
    }
}
