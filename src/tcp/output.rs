//! What a connection sends next (RFC 9293 s3.10.2, s3.8.6): one segment a call, until nothing is
//! owed or nothing may go.
//!
//! Order: duplicate ACKs one for one; the handshake's ACK if nothing can carry it; probes; text
//! with FIN; a bare ACK; RST last. Whatever carries ACK pays the coalesced one.

use super::state::State;
use super::tcb::{SYN_WINDOW_MAX, Tcb, flag, offered_shift, owed};
use super::timestamps::timestamp;
use super::{Config, Env, Seq};
use crate::time::{Instant, Span};
use crate::wire::options::Options;
use crate::wire::segment::Segment;
use crate::wire::tcp::Flags;

/// A segment to be written. Its addresses, ports and code point are the engine's to add.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transmit {
    pub segment: Segment,
    /// Stream offset of the first payload byte.
    pub offset: u64,
    /// Everything in it was sent before.
    pub again: bool,
}

impl Transmit {
    /// What [`Tcb::output_into`] is given to write to.
    pub const fn blank() -> Transmit {
        Transmit { segment: Segment::BLANK, offset: 0, again: false }
    }

    /// Makes it a segment without text and without options.
    pub(super) fn set(&mut self, seq: Seq, ack: Seq, flags: Flags, window: u16) {
        let Transmit { segment, offset, again } = self;
        segment.seq = seq.0;
        segment.ack = ack.0;
        segment.flags = flags;
        segment.window = window;
        segment.urgent = 0;
        segment.tos = 0;
        segment.options = Options::NONE;
        segment.payload_len = 0;
        (*offset, *again) = (0, false);
    }
}

impl Tcb {
    /// The next segment to send, if any.
    pub fn output(&mut self, env: &mut Env<'_>) -> Option<Transmit> {
        let mut transmit = Transmit::blank();
        self.output_into(env, &mut transmit).then_some(transmit)
    }

    /// [`Tcb::output`] into `out`, where it is read from: a copy of what was just written field by
    /// field would wait for each of those writes. False if there is nothing.
    #[inline(always)]
    pub fn output_into(&mut self, env: &mut Env<'_>, out: &mut Transmit) -> bool {
        let any = match self.state() {
            State::Closed => self.last_words(env, out),
            State::Listen => false,
            State::SynSent | State::SynReceived => self.handshake(env, out),
            State::Established
            | State::FinWait1
            | State::FinWait2
            | State::CloseWait
            | State::Closing
            | State::LastAck
            | State::TimeWait => self.synchronized(env, out),
        };
        if !any {
            return false;
        }
        self.mark_ecn(out);
        if self.has_path() {
            self.mark_urgent(out, env.paths);
        }
        if out.segment.flags.has(Flags::ACK) {
            self.end_delay();
        }
        true
    }

    /// True if [`Tcb::output`] may have something to give; false only if it has not.
    pub fn wants_output(&self) -> bool {
        if self.owes() {
            return true;
        }
        match self.state() {
            State::SynSent | State::SynReceived => self.snd_nxt == self.snd_una,
            // FIN takes the number after the last promised byte.
            State::Established
            | State::CloseWait
            | State::FinWait1
            | State::Closing
            | State::LastAck => {
                let fin = u64::from(self.has(flag::FIN_QUEUED));
                self.has(flag::LOST) || self.offset_at_next() < self.promised.saturating_add(fin)
            }
            State::Closed | State::Listen | State::FinWait2 | State::TimeWait => false,
        }
    }

    /// Owes an ACK if the window can be opened by enough for the peer to notice (RFC 9293
    /// s3.8.6.2.2): the application has taken what it kept. `room` as in [`Tcb::output`].
    pub fn offer_window(&mut self, config: &Config, room: u32) {
        let open = self.rcv_adv.since(self.rcv_nxt);
        // While half the window is open, or half of what a SYN can say, the peer needs no news of
        // the rest.
        let enough = config.window.min(SYN_WINDOW_MAX) / 2;
        if self.receives()
            && open < enough
            && self.edge(config, room, self.rcv_shift(config)) > open
        {
            self.owed |= owed::ACK;
        }
    }

    #[cold]
    fn last_words(&mut self, env: &mut Env<'_>, out: &mut Transmit) -> bool {
        let mut env = Env { room: 0, paths: env.paths, ..*env };
        if self.owed & owed::HANDSHAKE != 0 {
            self.owed &= !owed::HANDSHAKE;
            return self.bare_ack(&mut env, out);
        }
        if self.owed & owed::RST == 0 {
            return false;
        }
        self.owed = 0;
        self.bare_ack(&mut env, out);
        out.segment.flags = Flags::RST | Flags::ACK;
        true
    }

    #[inline(always)]
    fn handshake(&mut self, env: &mut Env<'_>, out: &mut Transmit) -> bool {
        if self.snd_nxt != self.snd_una {
            return self.owed_ack(env, out);
        }
        let (config, now) = (env.config, env.now);
        let again = self.snd_max != self.snd_una;
        let answer = self.state() == State::SynReceived;
        let window = config.window.min(env.room).min(SYN_WINDOW_MAX);
        if answer {
            self.rcv_adv = self.rcv_nxt.plus(window);
        }
        self.time(1, now);
        self.sent(1, config, now);
        self.owed = 0;
        let ack = if answer { self.rcv_nxt } else { Seq(0) };
        let flags = self.offer_ecn(config, answer, again)
            | if answer { Flags::SYN | Flags::ACK } else { Flags::SYN };
        out.set(self.snd_una, ack, flags, window as u16);
        self.syn_options(config, now, answer, &mut out.segment.options);
        out.again = again;
        true
    }

    /// A SYN offers what the configuration has; a SYN-ACK only what the SYN offered too (RFC 7323
    /// s2.2, s3.2). The MSS both offer always (RFC 9293 s3.7.1, MUST-14, SHLD-5, MAY-3). Written
    /// where they stay, as those of [`Tcb::text_options`].
    fn syn_options(&self, config: &Config, now: Instant, answer: bool, options: &mut Options) {
        let stamped = if answer { self.has(flag::TIMESTAMPS) } else { config.timestamps };
        let scaling = if answer { self.has(flag::SCALING) } else { config.window_scaling };
        let echo = if answer { self.ts_recent } else { 0 };
        options.mss = Some(config.mss.of(self.key.family()));
        options.window_scale = scaling.then(|| offered_shift(config));
        options.sack_permitted = if answer { self.has(flag::SACK) } else { config.sack };
        options.timestamps = stamped.then(|| (timestamp(config, now), echo));
        options.user_timeout = config.user_timeout.map(user_timeout_field);
    }

    #[inline(always)]
    fn synchronized(&mut self, env: &mut Env<'_>, out: &mut Transmit) -> bool {
        let again = self.dup_acks_owed > 0;
        self.dup_acks_owed -= u8::from(again);
        let first = again || (self.owed & owed::HANDSHAKE != 0 && self.unsent() == 0);
        if !first {
            if self.owed & owed::KEEPALIVE != 0 {
                return self.keepalive_probe(env, out);
            }
            if self.text(env, out) {
                return true;
            }
        }
        let any = first || self.owed & owed::ACK != 0;
        if any {
            self.bare_ack_into(env, out);
        }
        any
    }

    /// SHLD-12: no data; the number before the window provokes an ACK.
    #[cold]
    fn keepalive_probe(&mut self, env: &mut Env<'_>, out: &mut Transmit) -> bool {
        self.owed &= !owed::KEEPALIVE;
        self.bare_ack(env, out);
        out.segment.seq = self.snd_max.minus(1).0;
        true
    }

    /// What may be owed while SYN is under way.
    #[cold]
    fn owed_ack(&mut self, env: &mut Env<'_>, out: &mut Transmit) -> bool {
        if self.dup_acks_owed > 0 {
            self.dup_acks_owed -= 1;
            return self.bare_ack(env, out);
        }
        self.owed & owed::ACK != 0 && self.bare_ack(env, out)
    }

    /// [`Tcb::bare_ack_into`], which is always something to send.
    #[cold]
    fn bare_ack(&mut self, env: &mut Env<'_>, out: &mut Transmit) -> bool {
        self.bare_ack_into(env, out);
        true
    }

    /// `<SEQ=SND.NXT><ACK=RCV.NXT><CTL=ACK>`. The octet of a zero-window probe does not count until
    /// it is acknowledged: the number after it lies outside of the peer's window, and the ACK would
    /// be dropped. It alone reports what arrived ahead of order (RFC 2018 s4): what does is
    /// answered by one each, and text keeps its room.
    #[inline(always)]
    fn bare_ack_into(&mut self, env: &mut Env<'_>, out: &mut Transmit) {
        self.owed &= !(owed::ACK | owed::HANDSHAKE);
        let seq = if self.has(flag::PERSIST) { self.snd_una } else { self.snd_max };
        let window = self.advertise(env.config, env.room);
        out.set(seq, self.rcv_nxt, Flags::ACK, window);
        let options = &mut out.segment.options;
        self.text_options(env.config, env.now, options);
        if self.has(flag::SACK)
            && let Some(path) = env.paths.of(self)
        {
            options.sack = path.held.report(options.timestamps.is_some());
        }
    }

    /// The options of all but SYNs, which alone offer an MSS (RFC 9293 s3.7.1, MUST-65).
    pub(super) fn text_options(&self, config: &Config, now: Instant, options: &mut Options) {
        let stamped = self.has(flag::TIMESTAMPS);
        options.timestamps = stamped.then(|| (timestamp(config, now), self.ts_recent));
    }

    /// The window field, and the edge it promises.
    #[inline(always)]
    pub(super) fn advertise(&mut self, config: &Config, room: u32) -> u16 {
        let open = self.rcv_adv.since(self.rcv_nxt);
        let shift = self.rcv_shift(config);
        let mut units = self.edge(config, room, shift) >> shift;
        // SHLD-14: rounding must not pull the edge back; what it gives away is less than one unit.
        // It adds up, though, and where the application has no room for it, less than a unit is
        // taken back, which a peer has to expect of a scaled window (RFC 7323 s2.4).
        if units << shift < open && (units + 1) << shift <= room {
            units += 1;
        }
        let units = units.min(SYN_WINDOW_MAX);
        self.rcv_adv = self.rcv_adv.max(self.rcv_nxt.plus(units << shift));
        units as u16
    }

    /// Where the right edge goes, from RCV.NXT, in windows of this shift. RFC 9293 s3.8.6.2.2,
    /// MUST-39: it moves only by a full segment or half the buffer at least, and stays where it is
    /// for as long as there is no room (MAY-8).
    #[inline(always)]
    fn edge(&self, config: &Config, room: u32, shift: u8) -> u32 {
        let open = self.rcv_adv.since(self.rcv_nxt);
        let want = config.window.min(room).min(SYN_WINDOW_MAX << shift);
        let step = (config.window / 2).min(u32::from(config.mss.of(self.key.family())));
        if want >= open.saturating_add(step) { want } else { open }
    }
}

/// The field of a user timeout option: in seconds, or in minutes where those do not fit (RFC 5482
/// s3.1). Zero is reserved.
fn user_timeout_field(timeout: Span) -> u16 {
    let seconds = (timeout.as_millis() / 1000).max(1);
    let minutes = (seconds / 60).min(0x7fff) as u16;
    if seconds <= 0x7fff { seconds as u16 } else { 0x8000 | minutes }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::FlowKey;
    use crate::tcp::{Expiry, Paths};
    use crate::time::Span;
    use crate::wire::segment::Segment;

    const KEY: FlowKey = FlowKey::v4(([10, 0, 0, 2], 80), ([10, 0, 0, 1], 4000));

    fn segment(flags: Flags, seq: u32, ack: u32, window: u16) -> Segment {
        Segment {
            src: [10, 0, 0, 1].into(),
            dst: [10, 0, 0, 2].into(),
            src_port: 4000,
            dst_port: 80,
            seq,
            ack,
            flags,
            window,
            ..Segment::BLANK
        }
    }

    fn env<'a>(config: &'a Config, now: Instant, room: u32, paths: &'a mut Paths) -> Env<'a> {
        Env { config, now, room, nagle: config.nagle, paths }
    }

    #[test]
    fn a_syn_ack_offers_no_more_than_the_application_can_take() {
        let config = Config::default();
        let syn = segment(Flags::SYN, 0, 0, 65_535);
        let (now, mut paths) = (Instant::ZERO, Paths::new(1, &config));
        let mut tcb = Tcb::CLOSED;
        tcb.begin(KEY);
        tcb.open_passive(&syn, Seq(0), &config, now);
        let answer = tcb.output(&mut env(&config, now, 16_384, &mut paths)).unwrap();
        let Segment { flags, window, .. } = answer.segment;
        assert_eq!((flags, window), (Flags::SYN | Flags::ACK, 16_384));
        tcb.check(&config);
        let ack = segment(Flags::ACK, 1, 1, 65_535);
        tcb.arrives(&ack, &mut env(&config, now, 16_384, &mut paths));
        tcb.promise(1);
        let text = tcb.output(&mut env(&config, now, 16_384, &mut paths)).unwrap();
        let Segment { payload_len, window, .. } = text.segment;
        assert_eq!((payload_len, window), (1, 16_384), "and the edge stays there");
    }

    #[test]
    fn a_scaled_window_never_offers_more_than_the_application_can_take() {
        let delayed_ack = Span::ZERO;
        let config =
            Config { window: 1 << 20, timestamps: false, delayed_ack, ..Config::default() };
        let (now, mut paths) = (Instant::ZERO, Paths::new(1, &config));
        let mut syn = segment(Flags::SYN, 0, 0, 65_535);
        syn.options.window_scale = Some(0);
        let mut room = 16_384;
        let mut tcb = Tcb::CLOSED;
        tcb.begin(KEY);
        tcb.open_passive(&syn, Seq(0), &config, now);
        tcb.output(&mut env(&config, now, room, &mut paths));
        tcb.arrives(&segment(Flags::ACK, 1, 1, 65_535), &mut env(&config, now, room, &mut paths));
        assert!(tcb.rcv_shift(&config) > 0, "the unit is more than a byte");
        for count in 0..163 {
            let text =
                Segment { payload_len: 99, ..segment(Flags::ACK, 1 + 99 * count, 1, 65_535) };
            let arrival = tcb.arrives(&text, &mut env(&config, now, room, &mut paths));
            assert_eq!(arrival.text, (0, 99));
            room -= 99;
            let ack = tcb.output(&mut env(&config, now, room, &mut paths)).unwrap();
            assert!(
                u32::from(ack.segment.window) << tcb.rcv_shift(&config) <= room,
                "{ack:?} with room {room}"
            );
        }
    }

    #[test]
    fn probing_goes_on_after_the_peer_took_the_octet_of_a_probe() {
        let config = Config { timestamps: false, ..Config::default() };
        let (mut now, mut paths) = (Instant::ZERO, Paths::new(1, &config));
        let syn = segment(Flags::SYN, 0, 0, 0);
        let mut tcb = Tcb::CLOSED;
        tcb.begin(KEY);
        tcb.open_passive(&syn, Seq(0), &config, now);
        tcb.output(&mut env(&config, now, u32::MAX, &mut paths));
        tcb.arrives(&segment(Flags::ACK, 1, 1, 0), &mut env(&config, now, u32::MAX, &mut paths));
        tcb.promise(10);
        for taken in 1..4 {
            assert_eq!(
                tcb.output(&mut env(&config, now, u32::MAX, &mut paths)),
                None,
                "the window is shut"
            );
            now = tcb.deadline(&config, None);
            assert_ne!(now, Instant::NEVER, "and the persist timer runs");
            assert_eq!(
                tcb.expires(None, config.data_retries, &mut env(&config, now, 0, &mut paths)),
                Expiry::ProbeWindow
            );
            let probe = tcb.output(&mut env(&config, now, u32::MAX, &mut paths)).unwrap();
            assert_eq!((probe.segment.seq, probe.segment.payload_len), (taken, 1));
            tcb.arrives(
                &segment(Flags::ACK, 1, taken + 1, 0),
                &mut env(&config, now, u32::MAX, &mut paths),
            );
            tcb.check(&config);
        }
    }
}
