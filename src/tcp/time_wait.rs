//! TIME-WAIT in 36 bytes: what is left of a connection once its last ACK is out (RFC 9293 s3.6.1).
//!
//! Nothing here acts. A segment that arrives is put to the [`Tcb`] that [`TimeWait::thaw`] makes
//! for the moment, so that TIME-WAIT has no rules of its own; what came of it is frozen again.

use super::state::State;
use super::tcb::{Tcb, flag};
use super::{Config, Seq};
use crate::flow::FlowKey;
use crate::time::{Instant, tick_after, tick_near};

/// A connection in TIME-WAIT that owes nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TimeWait {
    pub key: FlowKey,
    /// When it is over, in ticks, wrapping; rounded up.
    until: u32,
    rcv_nxt: Seq,
    snd_max: Seq,
    ts_recent: u32,
    /// The window that the last ACK offered, in its units.
    window: u16,
    window_max: u16,
    /// The next hop; of the engine.
    pub neighbor: u16,
    /// The [`Tcb`]'s; in place of [`SAID`] the shift of the peer's window and [`RENEWED`].
    flags: u16,
}

const _: () = assert!(size_of::<TimeWait>() == 36);

/// What is the same in every TIME-WAIT: our FIN was sent and acknowledged, so nothing of ours is
/// under way.
const SAID: u16 =
    flag::FIN_QUEUED | flag::FIN_SENT | flag::TIMING | flag::PERSIST | flag::SYN_RESENT;

/// The end has moved since it was filed.
const RENEWED: u16 = 1 << 6;
const SHIFT_AT: u32 = 2;
const SHIFT: u16 = 0xf << SHIFT_AT;

const _: () = assert!(SHIFT & RENEWED == 0 && SHIFT | RENEWED == SAID);

impl Tcb {
    /// What is to be kept of a connection in TIME-WAIT.
    ///
    /// # Panics
    /// If it is not in TIME-WAIT, or something is still owed: a bug of ours.
    pub fn freeze(&self, config: &Config) -> TimeWait {
        assert!(self.state() == State::TimeWait && !self.owes() && !self.has_path());
        let window = self.rcv_adv.since(self.rcv_nxt) >> self.rcv_shift(config);
        TimeWait {
            key: self.key,
            until: tick_after(self.timer_at) as u32,
            rcv_nxt: self.rcv_nxt,
            snd_max: self.snd_max,
            ts_recent: self.ts_recent,
            window: window.min(u32::from(u16::MAX)) as u16,
            window_max: self.window_max,
            neighbor: self.neighbor,
            flags: self.flags & !SAID | u16::from(self.snd_shift) << SHIFT_AT,
        }
    }
}

impl TimeWait {
    /// True if both end together.
    pub fn ends_with(&self, other: &TimeWait) -> bool {
        self.until == other.until
    }

    /// True if its end has moved since it was filed; of the engine.
    pub fn is_renewed(&self) -> bool {
        self.flags & RENEWED != 0
    }

    /// Notes whether its end has moved since it was filed.
    pub fn set_renewed(&mut self, renewed: bool) {
        self.flags = if renewed { self.flags | RENEWED } else { self.flags & !RENEWED };
    }

    /// When it is over: less than 39 hours from `now`, as two MSL are.
    pub fn until(&self, now: Instant) -> Instant {
        tick_near(self.until, now)
    }

    /// The connection as it was, as far as what can arrive in TIME-WAIT asks.
    pub fn thaw(&self, config: &Config, now: Instant) -> Tcb {
        let mut tcb = Tcb::in_time_wait();
        tcb.key = self.key;
        tcb.timer_at = self.until(now);
        // It was heard when TIME-WAIT began, or began anew.
        tcb.heard_at = tcb.timer_at - super::tcb::time_wait(config);
        tcb.flags = self.flags & !SAID & !flag::DELAYED | flag::FIN_QUEUED | flag::FIN_SENT;
        tcb.rcv_nxt = self.rcv_nxt;
        tcb.rcv_adv = self.rcv_nxt.plus(u32::from(self.window) << tcb.rcv_shift(config));
        (tcb.snd_una, tcb.snd_nxt, tcb.snd_max) = (self.snd_max, self.snd_max, self.snd_max);
        (tcb.wl1, tcb.wl2) = (self.rcv_nxt, self.snd_max);
        tcb.ts_recent = self.ts_recent;
        tcb.window_max = self.window_max;
        tcb.neighbor = self.neighbor;
        tcb.snd_shift = ((self.flags & SHIFT) >> SHIFT_AT) as u8;
        tcb
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::tcp::{Env, Paths};
    use crate::time::{Span, TICK_BITS};
    use crate::wire::options::Options;
    use crate::wire::segment::Segment;
    use crate::wire::tcp::Flags;
    use proptest::prelude::*;

    pub const KEY: FlowKey = FlowKey::v4(([10, 0, 0, 2], 80), ([10, 0, 0, 1], 4000));

    /// A connection in TIME-WAIT until then, of which nothing else is known.
    pub fn in_time_wait(key: FlowKey, until: Instant) -> Tcb {
        let mut tcb = Tcb::in_time_wait();
        (tcb.key, tcb.timer_at) = (key, until);
        tcb
    }

    pub fn segment(flags: Flags, seq: u32, ack: u32, timestamps: Option<(u32, u32)>) -> Segment {
        Segment {
            src: [10, 0, 0, 1].into(),
            dst: [10, 0, 0, 2].into(),
            src_port: 4000,
            dst_port: 80,
            seq,
            ack,
            flags,
            window: 1000,
            options: Options { timestamps, ..Options::NONE },
            ..Segment::BLANK
        }
    }

    /// A connection that was opened by the peer and closed by us first, its last ACK sent.
    fn closed_by_us(config: &Config, stamped: bool, paths: &mut Paths) -> Tcb {
        let stamp = |value| stamped.then_some((value, 0));
        let mut syn = segment(Flags::SYN, 99, 0, stamp(5));
        syn.options.window_scale = Some(3);
        let now = Instant::ZERO + Span::from_secs(1);
        let mut tcb = Tcb::CLOSED;
        tcb.begin(KEY);
        tcb.open_passive(&syn, Seq(1000), config, now);
        let mut env = Env { config, now, room: u32::MAX, nagle: false, paths };
        tcb.output(&mut env);
        tcb.arrives(&segment(Flags::ACK, 100, 1001, stamp(6)), &mut env);
        tcb.close();
        tcb.output(&mut env);
        tcb.arrives(&segment(Flags::ACK | Flags::FIN, 100, 1002, stamp(7)), &mut env);
        while tcb.output(&mut env).is_some() {}
        assert_eq!((tcb.state(), tcb.owes()), (State::TimeWait, false));
        tcb
    }

    proptest! {
        /// Whatever arrives, the thawed connection does what the whole one would.
        #[test]
        fn nothing_that_arrives_tells_the_two_apart(
            stamped: bool, later_ms in 0u64..50_000, flags: u8, seq in 0u32..300,
            ack in 900u32..1100, window: u16, value in prop::option::of(0u32..20), len in 0u16..3,
        ) {
            let config = Config::default();
            let mut paths = Paths::new(1, &config);
            let mut whole = closed_by_us(&config, stamped, &mut paths);
            let now = Instant::ZERO + Span::from_millis(1000 + later_ms);
            let mut thawed = whole.freeze(&config).thaw(&config, now);
            prop_assert_eq!(thawed.freeze(&config), whole.freeze(&config));
            let mut arrived = segment(Flags(flags), seq, ack, value.map(|value| (value, 0)));
            (arrived.window, arrived.payload_len) = (window, len);
            let mut env = Env { config: &config, now, room: 0, nagle: false, paths: &mut paths };
            let (a, b) = (whole.arrives(&arrived, &mut env), thawed.arrives(&arrived, &mut env));
            prop_assert_eq!((a, whole.state()), (b, thawed.state()));
            loop {
                let (a, b) = (whole.output(&mut env), thawed.output(&mut env));
                prop_assert_eq!(a, b);
                if a.is_none() {
                    break;
                }
            }
            if whole.state() == State::TimeWait {
                prop_assert_eq!(whole.freeze(&config), thawed.freeze(&config));
            }
        }
    }

    #[test]
    fn an_end_is_known_to_a_tick_from_anywhere_in_a_day() {
        for start in [0, 1 << 40, 1 << 55] {
            let now = Instant::from_nanos(start);
            for seconds in [0, 1, 60, 86_400] {
                let until = now + Span::from_secs(seconds);
                let known = in_time_wait(KEY, until).freeze(&Config::default()).until(now);
                assert!(known >= until && known.since(until) < Span::from_nanos(1 << TICK_BITS));
            }
        }
    }
}
