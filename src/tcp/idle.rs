//! An idle connection in 64 bytes: ESTABLISHED, everything sent is acknowledged, nothing is owed.
//!
//! As with TIME-WAIT, nothing here acts: whatever is to happen, [`Tcb::wake`] makes the block again
//! that it was, and that has the rules.

use super::Seq;
use super::state::{Event, State};
use super::tcb::{Tcb, flag};
use crate::flow::FlowKey;
use crate::time::{Instant, Span};

/// A connection that is idle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Idle {
    pub key: FlowKey,
    /// SND.UNA and SND.NXT.
    snd_nxt: Seq,
    rcv_nxt: Seq,
    rcv_adv: Seq,
    snd_wnd: u32,
    ts_recent: u32,
    srtt_us: u32,
    rttvar_us: u32,
    /// When the peer was last heard, in units of [`HEARD_BITS`], rounded up.
    heard: u32,
    /// Stream offset of `snd_nxt`: all that was promised.
    promised: u64,
    flags: u16,
    snd_mss: u16,
    window_max: u16,
    /// The listener that accepted it; of the engine.
    pub listener: u16,
    /// The next hop; of the engine.
    pub neighbor: u16,
    snd_shift: u8,
    /// Segments of text that are yet to be acknowledged at once.
    quick_acks: u8,
}

const _: () = assert!(size_of::<Idle>() == 64);

/// 67 ms: so much later, at the most, keepalive and the slow start of acknowledging (RFC 5681 s4.1)
/// take an idle connection to be silent. 32 bits of it are nine years.
const HEARD_BITS: u32 = 26;

/// Whoever has been silent for less than this may well be about to speak: longer than most round
/// trips.
const SILENCE: Span = Span::from_millis(50);

impl Idle {
    /// No connection.
    pub const NONE: Idle = Idle {
        key: FlowKey::NONE,
        snd_nxt: Seq(0),
        rcv_nxt: Seq(0),
        rcv_adv: Seq(0),
        snd_wnd: 0,
        ts_recent: 0,
        srtt_us: 0,
        rttvar_us: 0,
        heard: 0,
        promised: 0,
        flags: 0,
        snd_mss: 0,
        window_max: 0,
        listener: 0,
        neighbor: 0,
        snd_shift: 0,
        quick_acks: 0,
    };
}

impl Tcb {
    /// True if all that there is to know of it fits an [`Idle`], and it has been so for a while.
    /// (What is not acknowledged has a timer: law 3.)
    pub fn is_idle(&self, now: Instant) -> bool {
        const UNDER_WAY: u16 = flag::FIN_QUEUED
            | flag::FIN_SENT
            | flag::TIMING
            | flag::PERSIST
            | flag::DELAYED
            | flag::LOST;
        self.state() == State::Established
            && self.flags & UNDER_WAY == 0
            && self.timer_at == Instant::NEVER
            && self.una_offset == self.promised
            && (self.retries, self.probes) == (0, 0)
            && !self.owes()
            && !self.has_path()
            && now.since(self.heard_at) >= SILENCE
    }

    /// What is to be kept of a connection that [is idle](Tcb::is_idle).
    pub fn rest(&self) -> Idle {
        let heard = self.heard_at.as_nanos().div_ceil(1 << HEARD_BITS);
        Idle {
            key: self.key,
            snd_nxt: self.snd_una,
            rcv_nxt: self.rcv_nxt,
            rcv_adv: self.rcv_adv,
            snd_wnd: self.snd_wnd,
            ts_recent: self.ts_recent,
            srtt_us: self.srtt_us,
            rttvar_us: self.rttvar_us,
            heard: u32::try_from(heard).unwrap_or(u32::MAX),
            promised: self.promised,
            flags: self.flags,
            snd_mss: self.snd_mss,
            window_max: self.window_max,
            listener: self.listener,
            neighbor: self.neighbor,
            snd_shift: self.snd_shift,
            quick_acks: self.ack_by_ms as u8,
        }
    }

    /// Makes a block that has [begun](Tcb::begin) the connection that was idle. Two things are no
    /// longer known: when exactly the peer was heard, and which segment brought its window. The
    /// next one that begins with new text or has none does.
    pub fn wake(&mut self, idle: &Idle, now: Instant) {
        self.start_at(idle.snd_nxt, now);
        (self.listener, self.neighbor) = (idle.listener, idle.neighbor);
        self.flags = idle.flags;
        (self.rcv_nxt, self.rcv_adv) = (idle.rcv_nxt, idle.rcv_adv);
        (self.wl1, self.wl2) = (idle.rcv_nxt, idle.snd_nxt);
        (self.snd_wnd, self.snd_mss) = (idle.snd_wnd, idle.snd_mss);
        (self.window_max, self.snd_shift) = (idle.window_max, idle.snd_shift);
        self.ts_recent = idle.ts_recent;
        (self.srtt_us, self.rttvar_us) = (idle.srtt_us, idle.rttvar_us);
        (self.promised, self.una_offset) = (idle.promised, idle.promised);
        self.heard_at = Instant::from_nanos(u64::from(idle.heard) << HEARD_BITS).min(now);
        self.ack_by_ms = u16::from(idle.quick_acks);
        self.enter(Event::ActiveOpen);
        self.enter(Event::SynAck);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tcp::time_wait::tests::{KEY, segment};
    use crate::tcp::{Config, Env, Paths};
    use crate::wire::segment::Segment;
    use crate::wire::tcp::Flags;
    use proptest::prelude::*;

    fn later(units: u64) -> Instant {
        Instant::from_nanos(units << HEARD_BITS)
    }

    /// A connection that was opened by the peer, and has had a request of ten bytes and answered
    /// with as many.
    fn answered(config: &Config, stamped: bool, paths: &mut Paths) -> Tcb {
        let stamp = |value| stamped.then_some((value, 0));
        let mut syn = segment(Flags::SYN, 99, 0, stamp(5));
        (syn.options.window_scale, syn.options.sack_permitted) = (Some(3), true);
        syn.options.mss = Some(1000);
        let now = later(20);
        let mut env = Env { config, now, room: u32::MAX, nagle: false, paths };
        let mut tcb = Tcb::begun(KEY);
        tcb.open_passive(&syn, Seq(1000), config, now);
        tcb.output(&mut env);
        tcb.arrives(&segment(Flags::ACK, 100, 1001, stamp(6)), &mut env);
        let mut request = segment(Flags::ACK, 100, 1001, stamp(7));
        request.payload_len = 10;
        tcb.arrives(&request, &mut env);
        tcb.promise(10);
        while tcb.output(&mut env).is_some() {}
        tcb.arrives(&segment(Flags::ACK, 110, 1011, stamp(8)), &mut env);
        tcb
    }

    /// All that a connection does about a segment, and after.
    fn does(tcb: &mut Tcb, promise: u64, close: bool, arrived: &Segment, now: Instant) -> String {
        let config = Config::default();
        let mut paths = Paths::new(1, &config);
        let mut env = Env { config: &config, now, room: 9999, nagle: false, paths: &mut paths };
        tcb.promise(promise);
        if close {
            tcb.close();
        }
        let mut done = vec![format!("{:?}", tcb.arrives(arrived, &mut env))];
        while let Some(sent) = tcb.output(&mut env) {
            done.push(format!("{sent:?}"));
        }
        done.push(format!("{tcb:?}"));
        tcb.check(&config);
        paths.reclaim(tcb);
        done.join("\n")
    }

    proptest! {
        /// Whatever arrives, and whatever our application does then, a connection that has rested
        /// does what one that has not would.
        #[test]
        fn nothing_that_happens_tells_the_two_apart(
            stamped: bool, units in 1u64..100, flags: u8, seq in 90u32..140, ack in 990u32..1030,
            window: u16, value in prop::option::of(0u32..20), len in 0u16..12,
            promise in prop_oneof![0u64..3, 0u64..5000],
            close: bool,
        ) {
            let config = Config::default();
            let whole = answered(&config, stamped, &mut Paths::new(1, &config));
            let now = later(20 + units);
            prop_assert!(whole.is_idle(now));
            let mut woken = Tcb::begun(KEY);
            woken.wake(&whole.rest(), now);
            prop_assert_eq!(woken.rest(), whole.rest());
            // What was timed once is of no meaning.
            (woken.rtt_seq, woken.rtt_at_us) = (whole.rtt_seq, whole.rtt_at_us);
            let mut arrived = segment(Flags(flags), seq, ack, value.map(|value| (value, 0)));
            (arrived.window, arrived.payload_len) = (window, len);
            let [one, other] = [whole, woken]
                .map(|mut tcb| does(&mut tcb, promise, close, &arrived, now));
            prop_assert_eq!(one, other);
        }
    }

    #[test]
    fn who_has_something_under_way_is_not_idle() {
        let config = Config::default();
        let mut paths = Paths::new(1, &config);
        let tcb = answered(&config, true, &mut paths);
        assert!(!tcb.is_idle(later(20)), "heard a moment ago");
        let acts: [fn(&mut Tcb); 4] =
            [|tcb| tcb.promise(1), Tcb::close, Tcb::abort, |tcb| tcb.timer_at = later(1)];
        for act in acts {
            let mut busy = tcb.clone();
            act(&mut busy);
            assert!(tcb.is_idle(later(90)) && !busy.is_idle(later(90)));
        }
    }

    #[test]
    fn silence_is_never_made_longer_nor_lasts_into_the_future() {
        let config = Config::default();
        let mut tcb = answered(&config, true, &mut Paths::new(1, &config));
        for (heard, now) in [(1, 2), (1 << 40, (1 << 40) + 5), (5 << 55, 6 << 55)] {
            tcb.heard_at = Instant::from_nanos(heard);
            let mut woken = Tcb::begun(KEY);
            woken.wake(&tcb.rest(), Instant::from_nanos(now));
            assert!(woken.heard_at >= tcb.heard_at && woken.heard_at.as_nanos() <= now);
            assert!(woken.heard_at.since(tcb.heard_at) <= Span::from_millis(68));
        }
    }
}
