//! What a connection has sent and knows of its fate, and how much may be under way.
//!
//! A flight begins when a second segment is to join the first; before that the block's `snd_nxt`
//! says all there is to know. From then on `snd_nxt` stays at `snd_max`, and what is to be sent
//! again stands on the scoreboard.

use super::cc::Window;
use super::cc::hystart::HyStart;
use super::rack::Rack;
use super::scoreboard::Scoreboard;
use super::{Seq, cc};
use crate::time::Instant;

/// Duplicate acknowledgments after which the first unacknowledged segment is taken for lost (RFC
/// 5681 s3.2), or as many segments that have arrived ahead of it.
pub(super) const DUP_ACKS_LOST: u16 = 3;

/// What the sender makes of the present loss.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Phase {
    /// There is none.
    #[default]
    Open,
    /// Known from acknowledgments: fast recovery (RFC 6582, RFC 6675).
    Recovery,
    /// Known from the timer alone: slow start (RFC 5681 s3.1).
    Timeout,
}

/// What the timer is for, if not for the retransmission timeout.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Alarm {
    #[default]
    None,
    /// A tail loss probe (RFC 8985 s7.3).
    Tail,
    /// Something may be lost by then (RFC 8985 s6.3).
    Reorder,
}

/// A tail loss probe that is under way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tail {
    /// SND.NXT when it was sent: TLP.end_seq.
    pub end: Seq,
    /// It was sent before: TLP.is_retrans.
    pub again: bool,
}

/// Proportional rate reduction (RFC 9937): bytes since the recovery began.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Reduction {
    pub delivered: u32,
    pub sent: u32,
    /// In flight when it began.
    pub from: u32,
}

/// The sending half of a path.
#[derive(Clone, Debug, Default)]
pub(super) struct Flight {
    pub board: Scoreboard,
    pub window: Window,
    pub rack: Rack,
    pub hystart: HyStart,
    pub phase: Phase,
    /// SND.MAX when the present loss, or the last one, became known.
    pub recover: Option<Seq>,
    pub reduction: Reduction,
    /// Duplicate acknowledgments of a peer without SACK: so many segments have left the network.
    pub dup_acks: u16,
    pub tail: Option<Tail>,
    pub alarm: Alarm,
    /// When the retransmission timer is due, which an alarm may come before.
    pub rto_at: Instant,
    /// When SND.UNA last moved, or text went out with nothing in flight.
    pub advanced_at: Instant,
    /// When text was last sent.
    pub sent_at: Instant,
    /// Text up to here was in flight when the congestion window alone held more back: its
    /// acknowledgments let the window grow, others do not (RFC 7661 s4).
    pub limited_to: Option<Seq>,
    /// Up to here congestion by ECN has been answered (RFC 3168 s6.1.2).
    pub echoed_to: Option<Seq>,
}

impl Flight {
    /// True if a connection uses it.
    pub fn is_begun(&self) -> bool {
        self.window.cwnd > 0
    }

    /// Bytes under way. Of a peer without SACK each duplicate acknowledgment tells of a segment
    /// that has left the network (RFC 5681 s3.2, RFC 3042).
    pub fn pipe(&self, mss: u32) -> u32 {
        self.board.pipe().saturating_sub(u32::from(self.dup_acks) * mss)
    }

    /// One more duplicate acknowledgment of a peer without SACK: not more than there are segments
    /// for, but for as many as it takes to believe a loss.
    pub fn count_duplicate(&mut self, mss: u32) {
        let segments = self.board.pipe().div_ceil(mss).min(u32::from(u16::MAX)) as u16;
        self.dup_acks = (self.dup_acks + 1).min(segments.max(DUP_ACKS_LOST));
    }

    /// Spread of times that one run may have, in µs: a thirty-second part of a round trip, so that
    /// half of the scoreboard holds a window's worth.
    pub fn grain_us(srtt_us: u32) -> u16 {
        (srtt_us / 32).min(u32::from(u16::MAX)) as u16
    }

    /// RFC 9937 s6.2: bytes that may be under way after an acknowledgment of `delivered` bytes.
    /// `safe` if it advances and shows no further loss.
    pub fn reduce(&mut self, delivered: u32, mss: u32, safe: bool) {
        if self.window.is_fixed() {
            return;
        }
        let Reduction { from, .. } = self.reduction;
        self.reduction.delivered = self.reduction.delivered.saturating_add(delivered);
        let (pipe, target) = (self.pipe(mss), self.window.ssthresh());
        let arrived = u64::from(self.reduction.delivered);
        let mut quota = if pipe > target {
            let share = (arrived * u64::from(target)).div_ceil(u64::from(from.max(1)));
            share.saturating_sub(u64::from(self.reduction.sent)).min(u64::from(u32::MAX)) as u32
        } else {
            let owed = self.reduction.delivered.saturating_sub(self.reduction.sent);
            let more = if safe { mss } else { 0 };
            (owed.max(delivered) + more).min(target - pipe)
        };
        if self.reduction.sent == 0 {
            // The first retransmission goes out at once.
            quota = quota.max(mss);
        }
        // Where nothing is under way, nothing would come back either: a segment may always go.
        self.window.cwnd = (pipe + quota).max(mss);
    }
}

/// The window a connection begins with: RFC 6928's, or a segment if the SYN had to be sent again
/// (RFC 5681 s3.1).
pub(super) fn first_window(mss: u32, syn_resent: bool) -> u32 {
    if syn_resent { mss } else { cc::initial_window(mss) }
}
