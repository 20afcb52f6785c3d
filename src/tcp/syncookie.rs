//! SYN cookies (RFC 4987 s3.6): a SYN-ACK whose sequence number says all that is to be known of the
//! SYN, so that nothing has to be kept of it.
//!
//! ```text
//!   ISS = F(four-tuple) + epoch << 24 + (MAC(four-tuple, IRS) + place of the MSS) mod 2^24
//! ```
//!
//! F is that of all our ISNs, and an epoch is 2^24 of their clock's ticks: cookies move forward
//! with the other numbers of the four-tuple (RFC 6528). The MAC's key is another one each epoch; a
//! cookie is good in its own and in the next, 67 s at the least. A guess is right once in 2^21.
//!
//! Window scale, SACK and ECN ride in the low bits of our timestamp, which the peer echoes; without
//! timestamps they are not agreed on.

use super::output::Transmit;
use super::tcb::{Tcb, flag};
use super::{Env, Seq};
use crate::flow::Endpoints;
use crate::rng::Secret;
use crate::time::{Instant, Span};
use crate::wire::options::Options;
use crate::wire::segment::Segment;
use crate::wire::tcp::Flags;

/// Bits of a cookie that do not count epochs.
const MAC_BITS: u32 = 24;
const MAC_MASK: u32 = (1 << MAC_BITS) - 1;

/// A tick of the clock of ISNs.
const TICK: Span = Span::from_micros(4);

/// How long a cookie is good, at the most.
pub const COOKIE_LIFE: Span = Span::from_nanos(2 * (TICK.as_nanos() << MAC_BITS));

/// The peer's MSS is taken for the largest of these that is not larger: our floor, IPv4's default,
/// what tunnels, IPv6 and IPv4 leave of an Ethernet frame, and of two larger ones.
const MSS: [u16; 8] = [48, 536, 1220, 1360, 1440, 1460, 4036, 8940];

/// The low bits of a timestamp that carries options: four of the window scale, or all four set for
/// none; then SACK and ECN.
const STAMP_BITS: u32 = 6;
const NO_SCALE: u32 = 15;
const STAMP_SACK: u32 = 1 << 4;
const STAMP_ECN: u32 = 1 << 5;

/// Makes cookies and knows its own.
#[derive(Clone, Debug)]
pub struct Syncookies {
    /// That of all our ISNs.
    isns: Secret,
    /// What the keys of the epochs are drawn from.
    keys: Secret,
    epoch: u64,
    /// The key of this epoch, and of the one before.
    key: [Secret; 2],
}

impl Syncookies {
    /// Cookies beside the ISNs of the secret `isns`, with keys that come of `keys`.
    pub fn new(isns: Secret, keys: Secret) -> Syncookies {
        let key = [draw(&keys, 0), draw(&keys, u64::MAX)];
        Syncookies { isns, keys, epoch: 0, key }
    }

    /// Lets a block that has [begun](Tcb::begin) be SYN-RECEIVED by this SYN for as long as it
    /// takes to write the SYN-ACK, whose number is a cookie.
    pub fn answer(
        &mut self,
        tcb: &mut Tcb,
        syn: &Segment,
        env: &mut Env<'_>,
        out: &mut Transmit,
    ) -> Seq {
        tcb.open_passive(syn, Seq(0), env.config, env.now);
        if !tcb.has(flag::TIMESTAMPS) {
            tcb.flags &= !(flag::SCALING | flag::SACK | flag::ECN);
        }
        let place = MSS.iter().rposition(|&mss| mss <= tcb.snd_mss).unwrap_or(0);
        let endpoints = Endpoints::of_received(syn);
        self.turn_to(env.now);
        let iss = self.cookie(&endpoints, Seq(syn.seq), 0, place as u32);
        tcb.start_at(iss, env.now);
        tcb.output_into(env, out);
        if let Some((value, _)) = &mut out.segment.options.timestamps {
            *value = stamp(*value, tcb);
        }
        iss
    }

    /// The SYN that was answered by a cookie which `acked` acknowledges, as far as the cookie and
    /// the timestamp tell, and the cookie; `None` if there was none, or long ago.
    pub fn redeem(&mut self, acked: &Segment, now: Instant) -> Option<(Segment, Seq)> {
        let (irs, iss) = (Seq(acked.seq).minus(1), Seq(acked.ack).minus(1));
        let endpoints = Endpoints::of_received(acked);
        self.turn_to(now);
        let place = (0..self.key.len()).find_map(|age| {
            let place = iss.0.wrapping_sub(self.cookie(&endpoints, irs, age, 0).0);
            // The sum of MAC and place may have passed 2^24, and begun at 0 again.
            let place = if place > MAC_MASK { place.wrapping_add(1 << MAC_BITS) } else { place };
            ((place as usize) < MSS.len()).then_some(place as usize)
        })?;
        let mut flags = Flags::SYN;
        let mut options = Options { mss: Some(MSS[place]), ..Options::NONE };
        if let Some((_, echo)) = acked.options.timestamps {
            options.timestamps = acked.options.timestamps;
            options.window_scale = match echo & 0b1111 {
                NO_SCALE => None,
                shift => Some(shift as u8),
            };
            options.sack_permitted = echo & STAMP_SACK != 0;
            if echo & STAMP_ECN != 0 {
                flags = flags | Flags::ECE | Flags::CWR;
            }
        }
        let (seq, ack, payload_len) = (irs.0, 0, 0);
        Some((Segment { seq, ack, flags, options, payload_len, urgent: 0, ..*acked }, iss))
    }

    /// The cookie of so many epochs ago, at the most one, for the MSS at `place`.
    fn cookie(&self, endpoints: &Endpoints, irs: Seq, age: usize, place: u32) -> Seq {
        let base = endpoints.prf(&self.isns);
        let mac = self.key[age].prf([base], irs.0) as u32;
        let epoch = (self.epoch as u32).wrapping_sub(age as u32) << MAC_BITS;
        Seq((base as u32).wrapping_add(epoch).wrapping_add(mac.wrapping_add(place) & MAC_MASK))
    }

    /// Changes keys, if another epoch has begun.
    fn turn_to(&mut self, now: Instant) {
        let epoch = (now.as_nanos() / TICK.as_nanos()) >> MAC_BITS;
        if epoch != self.epoch {
            self.epoch = epoch;
            self.key = [draw(&self.keys, epoch), draw(&self.keys, epoch.wrapping_sub(1))];
        }
    }
}

impl Tcb {
    /// Makes a block that has [begun](Tcb::begin) what it would be had the SYN been noted when it
    /// came, and its SYN-ACK sent: no more than that the two took some time is known.
    pub fn resume_cookie(&mut self, syn: &Segment, iss: Seq, env: &mut Env<'_>) {
        self.open_passive(syn, iss, env.config, env.now);
        self.output_into(env, &mut Transmit::blank());
        self.flags &= !flag::TIMING;
    }
}

/// The key of an epoch.
fn draw(keys: &Secret, epoch: u64) -> Secret {
    Secret::from_seed(keys.prf([epoch], 0))
}

/// Our timestamp with what was agreed on in its low bits: up to 63 ms ago, for one that is ahead of
/// the next would make that an old duplicate (RFC 7323 s5).
fn stamp(value: u32, tcb: &Tcb) -> u32 {
    let scale = if tcb.has(flag::SCALING) { u32::from(tcb.snd_shift) } else { NO_SCALE };
    let sack = if tcb.has(flag::SACK) { STAMP_SACK } else { 0 };
    let ecn = if tcb.has(flag::ECN) { STAMP_ECN } else { 0 };
    let stamped = value >> STAMP_BITS << STAMP_BITS | scale | sack | ecn;
    if stamped > value { stamped.wrapping_sub(1 << STAMP_BITS) } else { stamped }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::FlowKey;
    use crate::rng::Rng;
    use crate::tcp::{Config, Paths, State};
    use proptest::prelude::*;

    const KEY: FlowKey = FlowKey::v4(([10, 0, 0, 2], 80), ([10, 0, 0, 1], 4000));

    fn segment(flags: Flags, seq: u32, ack: u32, options: Options) -> Segment {
        Segment {
            src: [10, 0, 0, 1].into(),
            dst: [10, 0, 0, 2].into(),
            src_port: 4000,
            dst_port: 80,
            seq,
            ack,
            flags,
            window: 1000,
            options,
            ..Segment::BLANK
        }
    }

    fn cookies() -> Syncookies {
        Syncookies::new(Secret::from_seed(1), Secret::from_seed(2))
    }

    fn at(seconds: u64) -> Instant {
        Instant::ZERO + Span::from_secs(seconds)
    }

    /// The SYN-ACK that answers `syn`.
    fn answer(cookies: &mut Syncookies, syn: &Segment, config: &Config, now: Instant) -> Segment {
        let mut paths = Paths::new(1, config);
        let mut env = Env { config, now, room: u32::MAX, nagle: false, paths: &mut paths };
        let (mut tcb, mut out) = (Tcb::CLOSED, Transmit::blank());
        tcb.begin(KEY);
        cookies.answer(&mut tcb, syn, &mut env, &mut out);
        out.segment
    }

    proptest! {
        /// Whatever a SYN asks for, the connection that a cookie makes is the one that the cache
        /// would have made, but for what is said not to be carried.
        #[test]
        fn a_cookie_makes_the_connection_that_was_asked_for(
            irs: u32, mss in 0u16..10_000, scale in prop::option::of(0u8..=255), sack: bool,
            stamped: bool, ecn: bool, start in 0u64..1 << 30, later in 0u64..67, value: u32,
        ) {
            let config = Config::default();
            let mut cookies = cookies();
            let (now, later) = (at(start), at(start + later));
            let timestamps = stamped.then_some((value, 0));
            let options = Options {
                mss: Some(mss), window_scale: scale, sack_permitted: sack, timestamps,
                ..Options::NONE
            };
            let flags = if ecn { Flags::SYN | Flags::ECE | Flags::CWR } else { Flags::SYN };
            let syn = segment(flags, irs, 0, options);
            let syn_ack = answer(&mut cookies, &syn, &config, now);
            prop_assert_eq!(syn_ack.options.window_scale.is_some(), stamped && scale.is_some());
            prop_assert_eq!(syn_ack.options.sack_permitted, stamped && sack);
            prop_assert_eq!(syn_ack.flags.has(Flags::ECE), stamped && ecn);

            let echo = syn_ack.options.timestamps.map(|(echo, _)| (value.wrapping_add(1), echo));
            let options = Options { timestamps: echo, ..Options::NONE };
            let next = (irs.wrapping_add(1), syn_ack.seq.wrapping_add(1));
            let ack = segment(Flags::ACK, next.0, next.1, options);
            let redeemed = cookies.redeem(&ack, later);
            prop_assert!(redeemed.is_some());
            let (told, iss) = redeemed.unwrap();
            prop_assert_eq!((iss.0, told.seq, told.payload_len), (syn_ack.seq, irs, 0));
            let known = told.options.mss.unwrap();
            prop_assert!(known <= mss.clamp(48, 1460) && MSS.contains(&known));
            prop_assert!(MSS.iter().all(|&other| other <= known || other > mss.clamp(48, 1460)));
            let usable = scale.map(|shift| shift.min(14)).filter(|_| stamped);
            prop_assert_eq!(told.options.window_scale, usable);
            prop_assert_eq!(told.options.sack_permitted, sack && stamped);
            prop_assert_eq!(told.flags.has(Flags::ECE | Flags::CWR), ecn && stamped);

            let mut paths = Paths::new(1, &config);
            let mut tcb = Tcb::CLOSED;
            tcb.begin(KEY);
            let (room, nagle, paths) = (u32::MAX, false, &mut paths);
            let mut env = Env { config: &config, now: later, room, nagle, paths };
            tcb.resume_cookie(&told, iss, &mut env);
            tcb.check(&config);
            let arrival = tcb.arrives(&ack, &mut env);
            prop_assert!(arrival.established);
            prop_assert_eq!(tcb.state(), State::Established);
            tcb.check(&config);
        }
    }

    /// A cookie is good for one four-tuple, one SYN and two epochs.
    #[test]
    fn what_is_not_our_cookie_is_refused() {
        let (mut cookies, config, mut rng) = (cookies(), Config::default(), Rng::new(1));
        let mut some = |from: u64, below: u64| (from + rng.below(below - from)) as u32;
        for _ in 0..1000 {
            let syn = segment(Flags::SYN, some(0, 1 << 32), 0, Options::NONE);
            let iss = answer(&mut cookies, &syn, &config, at(1000)).seq;
            let next = (syn.seq.wrapping_add(1), iss.wrapping_add(1));
            let ack = segment(Flags::ACK, next.0, next.1, Options::NONE);
            assert!(cookies.redeem(&ack, at(1067)).is_some());
            assert!(cookies.redeem(&ack, at(1135)).is_none(), "too old");
            // A wrong number is right once in 2^21: with this seed, never.
            let wrong = [
                Segment { seq: next.0.wrapping_add(some(1, 1 << 32)), ..ack },
                Segment { ack: next.1.wrapping_add(some(8, (1 << 32) - 8)), ..ack },
                Segment { src_port: some(1, 4000) as u16, ..ack },
            ];
            for wrong in wrong {
                assert!(cookies.redeem(&wrong, at(1000)).is_none(), "{wrong:?}");
            }
        }
    }

    #[test]
    fn a_timestamp_with_options_is_never_ahead_of_the_clock() {
        let mut tcb = Tcb::CLOSED;
        for (flags, shift) in [(0, 0), (flag::SCALING, 14), (flag::SACK | flag::ECN, 0)] {
            (tcb.flags, tcb.snd_shift) = (flags, shift);
            for value in (0..1000).map(|n| (u32::MAX - 500).wrapping_add(n)).chain(64..1000) {
                let behind = value.wrapping_sub(stamp(value, &tcb));
                assert!(behind < 128, "{value}: {behind}");
            }
        }
    }
}
