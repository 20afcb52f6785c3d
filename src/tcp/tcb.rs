//! The transmission control block: what one connection is, in two cache lines.
//!
//! The first line is all that a lookup, a handshake and a teardown decide on; the second holds what
//! data transfer and measurement need. `arrives`, `output` and `expires` are the only code that
//! changes one; `enter` is the only way from state to state.

use super::receive::QUICK_ACKS;
use super::state::{Event, State};
use super::{Config, Keepalive, Mss, Seq, path};
use crate::flow::FlowKey;
use crate::time::{Instant, Span};
use crate::wire::options::Options;
use crate::wire::segment::Segment;
use std::mem::{offset_of, size_of};

/// The largest window that fits an unscaled header field, and so the largest that a SYN can offer.
pub(super) const SYN_WINDOW_MAX: u32 = 65_535;

/// RFC 9293 s3.7.1, MUST-15: "If an MSS Option is not received at connection setup, TCP
/// implementations MUST assume a default send MSS of 536 (576 - 40) for IPv4 or 1220 (1280 - 60)
/// for IPv6".
pub(super) const DEFAULT_MSS: Mss = Mss { v4: 536, v6: 1220 };

/// The smallest MSS we believe, so that a peer can't make us send a packet a byte. Linux's
/// `tcp_min_snd_mss`.
const SMALLEST_MSS: u16 = 48;

/// Bytes that timestamps take from every segment (RFC 7323 s3.2, padded).
pub(super) const TIMESTAMP_BYTES: u16 = 12;

/// What a connection owes the wire besides text.
pub(super) mod owed {
    /// An acknowledgment; text or FIN will carry it.
    pub const ACK: u8 = 1;
    /// The acknowledgment that ends the three-way handshake. Text may ride on it, a bare FIN or RST
    /// may not: whoever watches the wire sees the handshake complete before the teardown begins, as
    /// with any other stack.
    pub const HANDSHAKE: u8 = 2;
    /// RST, then nothing more.
    pub const RST: u8 = 4;
    /// A zero-window probe (RFC 9293 s3.8.6.1).
    pub const PROBE: u8 = 8;
    /// A keepalive probe (RFC 9293 s3.8.4).
    pub const KEEPALIVE: u8 = 16;
    /// A tail loss probe (RFC 8985 s7).
    pub const TAIL: u8 = 32;
}

/// What is true of a connection.
pub(super) mod flag {
    /// Opened by the peer: an RST in SYN-RECEIVED goes back to LISTEN (RFC 9293 s3.5, MUST-11).
    pub const PASSIVE: u16 = 1;
    /// Both sides sent the timestamps option (RFC 7323 s3.2).
    pub const TIMESTAMPS: u16 = 2;
    /// Our application closed: FIN follows the last promised byte.
    pub const FIN_QUEUED: u16 = 4;
    /// FIN was sent, and `snd_max` is just past it.
    pub const FIN_SENT: u16 = 8;
    /// A segment is being timed (RFC 6298 s3): `rtt_seq`, `rtt_at_us`.
    pub const TIMING: u16 = 16;
    /// The window keeps us from sending and nothing is in flight: the timer is the persist timer.
    pub const PERSIST: u16 = 32;
    /// The SYN was sent again (RFC 6298 s5.7).
    pub const SYN_RESENT: u16 = 64;
    /// Both sides sent the window scale option (RFC 7323 s2.2).
    pub const SCALING: u16 = 128;
    /// Both sides sent SACK-permitted (RFC 2018 s2).
    pub const SACK: u16 = 256;
    /// Congestion was echoed to us, and the next new text says that we heard (RFC 3168 s6.1.2).
    pub const REDUCED: u16 = 1 << 12;
    /// Congestion was met by what arrived, and every ACK says so (RFC 3168 s6.1.3).
    pub const ECHO: u16 = 1 << 13;
    /// Both sides agreed on ECN (RFC 3168 s6.1.1).
    pub const ECN: u16 = 1 << 14;
    /// An acknowledgment of text waits until `ack_by_ms` at most.
    pub const DELAYED: u16 = 1 << 15;
    /// Something in flight is taken for lost and goes out again.
    pub const LOST: u16 = 512;
}

/// One connection.
#[derive(Clone, Debug)]
#[repr(C, align(64))]
pub struct Tcb {
    pub key: FlowKey,
    state: State,
    pub(super) owed: u8,
    /// Acknowledgments owed one for one, never coalesced: the peer counts duplicates (RFC 5681
    /// s4.2).
    pub(super) dup_acks_owed: u8,
    /// Timeouts since the peer last acknowledged something.
    pub(super) retries: u8,
    pub(super) snd_una: Seq,
    pub(super) snd_nxt: Seq,
    /// RFC 9293's SND.NXT: `snd_nxt` falls back to `snd_una` to send again, this does not.
    pub(super) snd_max: Seq,
    /// The peer's window in bytes, scaled.
    pub(super) snd_wnd: u32,
    pub(super) rcv_nxt: Seq,
    /// The right edge of the window that we advertised. Never moves left (SHLD-14).
    pub(super) rcv_adv: Seq,
    pub(super) flags: u16,
    pub(super) snd_mss: u16,
    /// When a delayed acknowledgment is due at the latest, in ms, wrapping. While none is delayed:
    /// how many segments of text are yet to be acknowledged at once.
    pub(super) ack_by_ms: u16,
    /// The listener that accepted it, or `u16::MAX`; of the engine.
    pub listener: u16,
    /// The next hop; of the engine.
    pub neighbor: u16,
    /// Keepalive or zero-window probes sent since the peer was last heard.
    pub(super) probes: u8,
    pub(super) snd_shift: u8,
    /// The next slot that is ready to send; of the engine.
    pub link: u32,
    /// When the wheel will look at this slot, never later than `deadline`; of the engine.
    pub armed: Instant,

    // The second line.
    pub(super) wl1: Seq,
    pub(super) wl2: Seq,
    /// RFC 7323 s4.3.
    pub(super) ts_recent: u32,
    /// The largest window the peer ever offered, as in the header (RFC 9293 s3.8.6.2.1; RFC 5961
    /// s5.2).
    pub(super) window_max: u16,
    /// The number of its path, or [`path::NONE`].
    pub(super) path: u16,
    /// Bytes that the application has promised to send since the connection began.
    pub(super) promised: u64,
    /// Stream offset of `snd_una`.
    pub(super) una_offset: u64,
    /// When to send again, to probe, or to leave TIME-WAIT; `NEVER` if none of these is due.
    pub(super) timer_at: Instant,
    /// When the peer was last heard.
    pub(super) heard_at: Instant,
    /// The end of the timed segment.
    pub(super) rtt_seq: Seq,
    /// When the timed segment was sent, in µs, wrapping.
    pub(super) rtt_at_us: u32,
    pub(super) srtt_us: u32,
    pub(super) rttvar_us: u32,
}

const _: () = assert!(offset_of!(Tcb, wl1) == 64, "the hot line is one cache line");
const _: () = assert!(size_of::<Tcb>() == 128, "a connection is two cache lines");

impl Tcb {
    /// No connection: what an empty slot holds.
    pub const CLOSED: Tcb = Tcb {
        key: FlowKey::NONE,
        state: State::Closed,
        owed: 0,
        dup_acks_owed: 0,
        retries: 0,
        snd_una: Seq(0),
        snd_nxt: Seq(0),
        snd_max: Seq(0),
        snd_wnd: 0,
        rcv_nxt: Seq(0),
        rcv_adv: Seq(0),
        flags: 0,
        snd_mss: DEFAULT_MSS.v4,
        ack_by_ms: 0,
        listener: 0,
        neighbor: 0,
        probes: 0,
        snd_shift: 0,
        link: 0,
        armed: Instant::NEVER,
        wl1: Seq(0),
        wl2: Seq(0),
        ts_recent: 0,
        window_max: 0,
        path: path::NONE,
        promised: 0,
        una_offset: 0,
        timer_at: Instant::NEVER,
        heard_at: Instant::ZERO,
        rtt_seq: Seq(0),
        rtt_at_us: 0,
        srtt_us: 0,
        rttvar_us: 0,
    };

    /// A connection in TIME-WAIT, as [`TimeWait::thaw`](super::TimeWait::thaw) needs it to begin
    /// with.
    pub(super) fn in_time_wait() -> Tcb {
        Tcb { state: State::TimeWait, ..Tcb::CLOSED }
    }

    /// Makes it what an empty slot holds, as far as anybody asks of one: no key, CLOSED, nothing
    /// owed. A new connection overwrites the rest.
    ///
    /// # Panics
    /// If it is not CLOSED: a bug of ours.
    pub fn vacate(&mut self) {
        assert!(self.state == State::Closed);
        let Tcb { key, path, .. } = self;
        (*key, *path) = (FlowKey::NONE, path::NONE);
        self.forget();
    }

    /// Makes it what a connection with this key begins as: CLOSED, whatever it was before; `armed`
    /// is the slot's. In place, as all that follows: a copy of what was just written field by field
    /// would wait for each of those writes.
    pub fn begin(&mut self, key: FlowKey) {
        *self = Tcb { key, armed: self.armed, ..Tcb::CLOSED };
    }

    /// A connection with this key, CLOSED.
    pub fn begun(key: FlowKey) -> Tcb {
        Tcb { key, ..Tcb::CLOSED }
    }

    /// Active OPEN (RFC 9293 s3.10.1): SYN-SENT, a SYN owed.
    pub fn open_active(&mut self, iss: Seq, now: Instant) {
        self.snd_mss = DEFAULT_MSS.of(self.key.family());
        self.start_at(iss, now);
        self.enter(Event::ActiveOpen);
    }

    /// A SYN arrived in LISTEN (RFC 9293 s3.10.7.2): SYN-RECEIVED, a SYN-ACK owed. That it was
    /// LISTEN is remembered (MUST-11).
    pub fn open_passive(&mut self, segment: &Segment, iss: Seq, config: &Config, now: Instant) {
        self.start_at(iss, now);
        self.flags |= flag::PASSIVE;
        self.learn_syn(segment, config);
        self.enter(Event::PassiveOpen);
        self.enter(Event::Syn);
    }

    /// The only way from state to state.
    ///
    /// # Panics
    /// If the transition table has no such step: a bug of ours.
    pub(super) fn enter(&mut self, event: Event) {
        let next = self.state.after(event);
        assert!(next.is_some(), "{event:?} in {}", self.state.name());
        self.state = next.unwrap_or(State::Closed);
    }

    /// Everything off but what is owed: the way to CLOSED from anywhere.
    pub(super) fn abandon(&mut self) {
        self.enter(Event::Abort);
        self.timer_at = Instant::NEVER;
        // An RST still owed may have to follow the handshake's ACK; without one there is nobody
        // left to tell.
        let last_words = if self.owed & owed::RST == 0 { 0 } else { owed::RST | owed::HANDSHAKE };
        self.owed &= last_words;
        self.dup_acks_owed = 0;
        self.flags &= !flag::DELAYED;
    }

    /// Takes the peer's SYN: its number, window and options (RFC 9293 s3.10.7.2-3), the MSS among
    /// them (MUST-14) or its default (MUST-15).
    #[inline(always)]
    pub(super) fn learn_syn(&mut self, segment: &Segment, config: &Config) {
        let Options { mss, window_scale, sack_permitted, timestamps, .. } = segment.options;
        self.rcv_nxt = Seq(segment.seq).plus(1);
        self.rcv_adv = self.rcv_nxt.plus(config.window.min(SYN_WINDOW_MAX));
        // RFC 7323 s2.2: "The window field in a segment where the SYN bit is set MUST NOT be
        // scaled."
        self.snd_wnd = u32::from(segment.window);
        (self.wl1, self.wl2) = (Seq(segment.seq), Seq(segment.ack));
        let family = self.key.family();
        let theirs = mss.unwrap_or(DEFAULT_MSS.of(family)).max(SMALLEST_MSS);
        self.snd_mss = theirs.min(config.mss.of(family));
        let mut flags = self.flags;
        if let (true, Some(shift)) = (config.window_scaling, window_scale) {
            // RFC 7323 s2.3: a shift above 14 is used as 14.
            (flags, self.snd_shift) = (flags | flag::SCALING, shift.min(14));
        }
        self.window_max = segment.window >> self.snd_shift;
        if let (true, Some((value, _))) = (config.timestamps, timestamps) {
            (flags, self.ts_recent) = (flags | flag::TIMESTAMPS, value);
        }
        if config.sack && sack_permitted {
            flags |= flag::SACK;
        }
        if self.agrees_on_ecn(segment, config) {
            flags |= flag::ECN;
        }
        // At once: who reads flags that were written one by one waits for them.
        self.flags = flags;
    }

    /// The application promised `bytes` more; ignored once it has closed.
    pub fn promise(&mut self, bytes: u64) {
        if !self.has(flag::FIN_QUEUED) {
            self.promised = self.promised.saturating_add(bytes);
        }
    }

    /// Takes back what was promised and never sent. A FIN that waits for it goes at once.
    #[cold]
    pub fn curtail(&mut self) {
        let sent = match self.state {
            // What is under way is the SYN.
            State::Closed | State::Listen | State::SynSent | State::SynReceived => 0,
            State::Established
            | State::FinWait1
            | State::FinWait2
            | State::CloseWait
            | State::Closing
            | State::LastAck
            | State::TimeWait => self.snd_max.since(self.snd_una),
        };
        if !self.has(flag::FIN_SENT) {
            self.promised = self.una_offset + u64::from(sent);
        }
    }

    /// CLOSE (RFC 9293 s3.10.4). In SYN-SENT the block is gone at once; the state says so.
    pub fn close(&mut self) {
        match self.state {
            State::SynSent => {
                self.enter(Event::Close);
                self.timer_at = Instant::NEVER;
            }
            // "Queue for processing after entering ESTABLISHED state": the ACK of our SYN looks for
            // the flag.
            State::SynReceived => self.flags |= flag::FIN_QUEUED,
            State::Established | State::CloseWait => {
                self.flags |= flag::FIN_QUEUED;
                self.enter(Event::Close);
            }
            State::Closed
            | State::Listen
            | State::FinWait1
            | State::FinWait2
            | State::Closing
            | State::LastAck
            | State::TimeWait => {}
        }
    }

    /// ABORT (RFC 9293 s3.10.5): CLOSED, and an RST owed where the peer has something to forget.
    #[inline(never)]
    pub fn abort(&mut self) {
        match self.state {
            State::Closed => return,
            State::SynReceived
            | State::Established
            | State::FinWait1
            | State::FinWait2
            | State::CloseWait => self.owed |= owed::RST,
            State::Listen | State::SynSent | State::Closing | State::LastAck | State::TimeWait => {}
        }
        self.abandon();
    }

    /// Owes the last segment no ACK of its own.
    pub fn withhold_ack(&mut self) {
        self.dup_acks_owed = self.dup_acks_owed.saturating_sub(1);
    }

    /// Drops what is still owed: it can't be sent.
    pub fn forget(&mut self) {
        (self.owed, self.dup_acks_owed) = (0, 0);
    }

    pub fn state(&self) -> State {
        self.state
    }

    /// What the second cache line begins with, to be asked for before it is needed.
    pub fn second_line(&self) -> &Seq {
        &self.wl1
    }

    /// True if `seq` was sent and is not acknowledged: what an ICMP error that is to be believed
    /// quotes (RFC 5927 s4.1).
    pub fn is_in_flight(&self, seq: Seq) -> bool {
        seq.within(self.snd_una, self.snd_max.since(self.snd_una))
    }

    /// Stream offset below which everything is acknowledged.
    pub fn acknowledged(&self) -> u64 {
        self.una_offset
    }

    /// True while something must still be sent before the block may go.
    pub fn owes(&self) -> bool {
        self.owed != 0 || self.dup_acks_owed != 0
    }

    /// True in the states in which text is taken.
    pub(super) fn receives(&self) -> bool {
        matches!(self.state, State::Established | State::FinWait1 | State::FinWait2)
    }

    /// True if it has a data path of its own.
    pub fn has_path(&self) -> bool {
        self.path != path::NONE
    }

    /// SND.NXT, for the successor of a connection in TIME-WAIT.
    pub fn snd_end(&self) -> Seq {
        self.snd_max
    }

    /// When time alone will next change this connection: retransmission, probe, delayed ACK,
    /// keepalive, FIN-WAIT-2 or TIME-WAIT.
    #[inline]
    pub fn deadline(&self, config: &Config, keepalive: Option<Keepalive>) -> Instant {
        let timer_at = self.timer_at.min(self.ack_by());
        match self.state {
            State::FinWait2 => timer_at.min(self.heard_at + config.fin_wait2),
            State::Established | State::CloseWait => match keepalive {
                Some(keepalive) => timer_at.min(self.keepalive_at(keepalive)),
                None => timer_at,
            },
            State::Closed
            | State::Listen
            | State::SynSent
            | State::SynReceived
            | State::FinWait1
            | State::Closing
            | State::LastAck
            | State::TimeWait => timer_at,
        }
    }

    /// True if its keepalive, should it have one, decides on [`Tcb::deadline`].
    #[inline]
    pub fn heeds_keepalive(&self) -> bool {
        matches!(self.state, State::Established | State::CloseWait)
    }

    /// When the next keepalive probe is due. RFC 9293 s3.8.4, MUST-26: only "when no sent data is
    /// outstanding, and no data or acknowledgment packets have been received" for the interval.
    pub(super) fn keepalive_at(&self, keepalive: Keepalive) -> Instant {
        if self.timer_at != Instant::NEVER {
            return Instant::NEVER;
        }
        self.heard_at + keepalive.idle + keepalive.interval.times(u64::from(self.probes))
    }

    /// Law 3: what must hold of a connection between events.
    ///
    /// # Panics
    /// If it does not.
    pub fn check(&self, config: &Config) {
        assert!(!self.snd_una.after(self.snd_nxt));
        assert!(!self.snd_nxt.after(self.snd_max));
        assert!(!self.rcv_nxt.after(self.rcv_adv));
        let family = self.key.family();
        assert!(self.snd_mss <= config.mss.of(family).max(DEFAULT_MSS.of(family)));
        assert!(self.una_offset <= self.promised);
        assert!(!self.has(flag::FIN_SENT) || self.has(flag::FIN_QUEUED));
        let in_flight = self.snd_una != self.snd_max;
        match self.state {
            State::TimeWait => assert!(self.timer_at != Instant::NEVER && !in_flight),
            State::FinWait2 => assert!(!in_flight && self.has(flag::FIN_SENT)),
            State::FinWait1 | State::Closing | State::LastAck => {
                assert!(self.has(flag::FIN_QUEUED));
            }
            State::Closed
            | State::Listen
            | State::SynSent
            | State::SynReceived
            | State::Established
            | State::CloseWait => {}
        }
        if in_flight && self.state != State::Closed {
            assert!(self.timer_at != Instant::NEVER, "unacknowledged and no timer: {self:?}");
        }
    }

    pub(super) fn has(&self, flag: u16) -> bool {
        self.flags & flag != 0
    }

    /// The largest window the peer ever offered, in bytes: 32 bits, as all windows (REC-1).
    pub(super) fn snd_wnd_max(&self) -> u32 {
        u32::from(self.window_max) << self.snd_shift
    }

    /// The shift of the windows that we advertise (RFC 7323 s2.2).
    pub(super) fn rcv_shift(&self, config: &Config) -> u8 {
        if self.has(flag::SCALING) { offered_shift(config) } else { 0 }
    }

    pub(super) fn start_at(&mut self, iss: Seq, now: Instant) {
        (self.snd_una, self.snd_nxt, self.snd_max) = (iss, iss, iss);
        self.heard_at = now;
        self.ack_by_ms = QUICK_ACKS;
    }
}

/// The window shift that fits our window into sixteen bits (RFC 7323 s2.2).
pub(super) fn offered_shift(config: &Config) -> u8 {
    (config.window >> 15 | 1).ilog2().min(14) as u8
}

/// TIME-WAIT's length (RFC 9293 s3.6.1, MUST-13).
pub(super) fn time_wait(config: &Config) -> Span {
    config.msl.times(2)
}
