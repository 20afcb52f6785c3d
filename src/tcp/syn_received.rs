//! SYN-RECEIVED in 48 bytes: what is to be known of a connection that a peer has asked for, until
//! the peer has shown that it is where its address says (RFC 4987 s3.3).
//!
//! As with TIME-WAIT, nothing here acts: [`Tcb::resume`] makes a block of it, which does what is to
//! be done, and is frozen again or goes on as the connection.

use super::Seq;
use super::state::{Event, State};
use super::tcb::{Tcb, flag};
use crate::flow::FlowKey;
use crate::time::{Instant, tick_after, tick_near};

/// A connection in SYN-RECEIVED that the peer opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SynReceived {
    pub key: FlowKey,
    iss: Seq,
    irs: Seq,
    ts_recent: u32,
    /// When the SYN-ACK is to be sent again, in ticks, wrapping; of no meaning before it was sent.
    resend_at: u32,
    /// When it was sent, if it is being timed.
    rtt_at_us: u32,
    snd_wnd: u16,
    rcv_wnd: u16,
    snd_mss: u16,
    flags: u16,
    /// The listener; of the engine.
    pub listener: u16,
    /// The next hop; of the engine.
    pub neighbor: u16,
    snd_shift: u8,
    retries: u8,
    /// The SYN-ACK was sent.
    sent: bool,
}

const _: () = assert!(size_of::<SynReceived>() == 48);

impl SynReceived {
    /// No connection.
    pub const NONE: SynReceived = SynReceived {
        key: FlowKey::NONE,
        iss: Seq(0),
        irs: Seq(0),
        ts_recent: 0,
        resend_at: 0,
        rtt_at_us: 0,
        snd_wnd: 0,
        rcv_wnd: 0,
        snd_mss: 0,
        flags: 0,
        listener: 0,
        neighbor: 0,
        snd_shift: 0,
        retries: 0,
        sent: false,
    };

    /// True if `ack` acknowledges the SYN-ACK: only whoever received that can know the number.
    pub fn is_acknowledged_by(&self, ack: Seq) -> bool {
        self.sent && ack == self.iss.plus(1)
    }

    /// When the SYN-ACK is to be sent again: less than 39 hours from `now`.
    pub fn resend_at(&self, now: Instant) -> Instant {
        if self.sent { tick_near(self.resend_at, now) } else { Instant::NEVER }
    }
}

impl Tcb {
    /// Writes down in `kept` what is to be kept of a connection in SYN-RECEIVED. In place, as
    /// [`Tcb::output_into`].
    ///
    /// # Panics
    /// If it is in another state or was not opened by the peer, or if more than a SYN-ACK is owed:
    /// a bug of ours.
    pub fn freeze_syn(&self, kept: &mut SynReceived) {
        assert!(self.state() == State::SynReceived && self.has(flag::PASSIVE));
        assert!(!self.owes() && !self.has_path());
        kept.key = self.key;
        kept.iss = self.snd_una;
        kept.irs = self.rcv_nxt.minus(1);
        kept.ts_recent = self.ts_recent;
        kept.resend_at = tick_after(self.timer_at) as u32;
        kept.rtt_at_us = self.rtt_at_us;
        kept.snd_wnd = self.snd_wnd as u16;
        kept.rcv_wnd = self.rcv_adv.since(self.rcv_nxt) as u16;
        kept.snd_mss = self.snd_mss;
        kept.flags = self.flags;
        kept.listener = self.listener;
        kept.neighbor = self.neighbor;
        kept.snd_shift = self.snd_shift;
        kept.retries = self.retries;
        kept.sent = self.snd_max != self.snd_una;
    }

    /// Makes a block that has [begun](Tcb::begin) the connection that was frozen.
    pub fn resume(&mut self, syn: &SynReceived, now: Instant) {
        self.start_at(syn.iss, now);
        (self.listener, self.neighbor) = (syn.listener, syn.neighbor);
        (self.flags, self.retries) = (syn.flags, syn.retries);
        (self.rcv_nxt, self.wl1) = (syn.irs.plus(1), syn.irs);
        self.rcv_adv = self.rcv_nxt.plus(u32::from(syn.rcv_wnd));
        (self.snd_wnd, self.snd_mss) = (u32::from(syn.snd_wnd), syn.snd_mss);
        self.snd_shift = syn.snd_shift;
        self.window_max = syn.snd_wnd >> syn.snd_shift;
        self.ts_recent = syn.ts_recent;
        if syn.sent {
            (self.snd_nxt, self.snd_max) = (syn.iss.plus(1), syn.iss.plus(1));
            (self.rtt_seq, self.rtt_at_us) = (self.snd_max, syn.rtt_at_us);
        }
        self.timer_at = syn.resend_at(now);
        self.enter(Event::PassiveOpen);
        self.enter(Event::Syn);
    }

    /// [`Tcb::resume`] where the SYN-ACK is due.
    pub fn resume_owing(&mut self, syn: &SynReceived, now: Instant) {
        self.resume(syn, now);
        self.snd_nxt = self.snd_una;
    }
}
