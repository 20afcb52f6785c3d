//! A referee on the wire between two stacks, with an opinion of its own: it knows RFC 9293 and what
//! passed, and nothing of our TCP.
//!
//! It sees every frame as it was sent, before any impairment, and every frame as it arrived. So it
//! knows exactly what each side can know, and holds each side to it:
//!
//! - every frame sent is well-formed, its checksums right, from its sender's address and no larger
//!   than the MTU;
//! - a SYN keeps its number and options; a SYN-ACK acknowledges exactly the SYN that arrived; SYN
//!   options are in SYNs only;
//! - bytes sent again are the same bytes; FIN never moves, and nothing follows it;
//! - nothing is sent past the window or above the MSS that arrived, and nothing that is known to be
//!   acknowledged; no more than the initial window before anything is heard, no more than a segment
//!   after a timeout;
//! - SACK blocks are of what arrived, D-SACKs of what arrived twice; ECN marks are on new text, and
//!   both only where it was agreed; the urgent pointer never goes back;
//! - text that arrived in order waits 500 ms at most for its ACK, two segments of it not at all;
//! - an acknowledgment never exceeds what arrived and never goes back, and the window's right edge
//!   does not either;
//! - an ACK that says nothing new answers a segment that arrived, at most one each, and the two
//!   sides do not go on answering each other's;
//! - a RST answers a segment of this turn as RFC 9293 s3.10.7.1 says, or stands at its connection's
//!   own numbers, and ends it; nobody answers a RST by a RST;
//! - whoever must be in TIME-WAIT opens no new connection on the same four-tuple.

use super::endpoint::{Endpoint, Syn, Verdict, law};
use crate::flow::Endpoints;
use crate::time::{Instant, Span};
use crate::wire::ethernet::Mac;
use crate::wire::options::Options;
use crate::wire::segment::{self, Body, Segment, Verify};
use crate::wire::tcp::Flags;
use std::collections::HashMap;

/// Largest Ethernet frame: an MTU of 1500.
const FRAME_BYTES_MAX: usize = 1514;
/// More segments than any flight here: so many duplicate ACKs in a row answer each other.
const IDLE_MAX: u32 = 2000;
/// Longer than a host waits before it asks for its next hop again.
const ASKING_MAX: Span = Span::from_secs(3);

/// One of the two ends of the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    A,
    B,
}

/// The referee of one wire.
pub struct Referee {
    macs: [Mac; 2],
    msl: Span,
    /// By A's view of the four-tuple. Looked up only, never walked.
    flows: HashMap<Endpoints, Flow>,
    /// What arrived intact at each side in its present turn.
    turn: [Vec<Segment>; 2],
    /// When each side last sent anything but TCP: it may be looking for its next hop, and can't
    /// answer before it knows.
    asked: [Option<Instant>; 2],
    /// Which sides have no congestion control.
    pub(super) unpaced: [bool; 2],
    violation: Option<String>,
    trace: u64,
    segments: u64,
    ghosts: u64,
}

/// A four-tuple: its present connection.
#[derive(Default)]
struct Flow {
    ends: [Endpoint; 2],
    /// A late duplicate SYN woke a listener whose connection was over; or one side began anew and
    /// the other does not know yet that the old connection is over. Two connections share the
    /// tuple, and what they say can't be told apart until the next one begins.
    haunted: bool,
    /// Segments sent since one said anything new.
    idle: u32,
}

impl Side {
    pub fn other(self) -> Side {
        match self {
            Side::A => Side::B,
            Side::B => Side::A,
        }
    }
}

impl Referee {
    /// A referee of the wire between these addresses, where TIME-WAIT lasts twice `msl`.
    pub fn new(macs: [Mac; 2], msl: Span) -> Referee {
        Referee {
            macs,
            msl,
            flows: HashMap::new(),
            turn: [Vec::new(), Vec::new()],
            asked: [None; 2],
            unpaced: [false; 2],
            violation: None,
            trace: 0,
            segments: 0,
            ghosts: 0,
        }
    }

    /// A turn of `side` begins: what arrived before has been answered.
    pub fn begin_turn(&mut self, side: Side) {
        self.turn[side as usize].clear();
    }

    /// `side` sends `frame`.
    pub fn sent(&mut self, now: Instant, side: Side, frame: &[u8]) {
        self.note(now, side as u64, frame);
        if let Err(law) = self.judge(now, side, frame)
            && self.violation.is_none()
        {
            let what = match segment::parse(frame, Verify::NotTcp).map(|packet| packet.body) {
                Ok(Body::Tcp(segment)) => describe(&segment),
                other => format!("{other:?}"),
            };
            self.violation = Some(format!("at {now} side {side:?} sent {what}: {law}"));
        }
    }

    /// `frame` arrives at `side`.
    pub fn arrived(&mut self, now: Instant, side: Side, frame: &[u8]) {
        self.note(now, 2 + side as u64, frame);
        // What was damaged on the way must have no effect: it gives the receiver no right to say
        // anything.
        let Ok(packet) = segment::parse(frame, Verify::All) else { return };
        let Body::Tcp(segment) = packet.body else { return };
        let turn = &mut self.turn[side as usize];
        turn.push(segment);
        let alone = turn.len() == 1;
        if let Some(flow) = self.flows.get_mut(&key(side.other(), &segment)) {
            flow.arrived(now, side, &segment, alone);
        }
    }

    /// The first law that was broken, and by what.
    pub fn violation(&self) -> Option<&str> {
        self.violation.as_deref()
    }

    /// A hash of every frame, where it passed and when: the same for the same seed.
    pub fn trace(&self) -> u64 {
        self.trace
    }

    /// TCP segments sent by both sides.
    pub fn segments(&self) -> u64 {
        self.segments
    }

    /// Connections that a late duplicate SYN began after their real one was over.
    pub fn ghosts(&self) -> u64 {
        self.ghosts
    }

    fn note(&mut self, now: Instant, place: u64, frame: &[u8]) {
        let mut mix = |word: u64| {
            self.trace = (self.trace ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
        };
        mix(now.as_nanos());
        mix(place << 32 | frame.len() as u64);
        for chunk in frame.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            mix(u64::from_le_bytes(word));
        }
    }

    fn judge(&mut self, now: Instant, side: Side, frame: &[u8]) -> Verdict {
        law(frame.len() <= FRAME_BYTES_MAX, "it is larger than the MTU")?;
        let packet = segment::parse(frame, Verify::All)
            .map_err(|reason| format!("it is malformed: {reason:?}"))?;
        let (ours, theirs) = (self.macs[side as usize], self.macs[side.other() as usize]);
        law(packet.ethernet.src == ours, "its Ethernet source is not its sender")?;
        let Body::Tcp(segment) = packet.body else {
            self.asked[side as usize] = Some(now);
            return Ok(());
        };
        law(packet.ethernet.dst == theirs, "its Ethernet destination is not its receiver")?;
        self.segments += 1;
        let payload = &frame[segment.payload_at as usize..][..segment.payload_len as usize];
        let heard = &self.turn[side as usize];
        let flow = self.flows.entry(key(side, &segment)).or_default();
        flow.ends[side as usize].data.unpaced = self.unpaced[side as usize];
        if segment.flags.has(Flags::RST) {
            flow.reset(side, &segment, heard)
        } else if segment.flags.has(Flags::SYN) {
            // In the turn in which more arrives, a SYN that came before it may be answered first.
            let asked_again = heard.iter().any(|heard| answers_syn(&segment, heard));
            let verdict = flow.syn(now, side, (&segment, asked_again), self.msl);
            self.ghosts += u64::from(matches!(verdict, Ok(true)));
            verdict.map(|_| ())
        } else {
            let asked = self.asked[side as usize];
            let excused = asked.is_some_and(|at| now.since(at) < ASKING_MAX);
            flow.synchronized(now, side, (&segment, payload), excused)
        }
    }
}

impl Flow {
    /// A SYN is sent. True if it begins a ghost.
    fn syn(
        &mut self,
        now: Instant,
        side: Side,
        (sent, asked_again): (&Segment, bool),
        msl: Span,
    ) -> Result<bool, String> {
        law(sent.payload_len == 0 && !sent.flags.has(Flags::FIN), "a SYN carries nothing here")?;
        let answers = sent.flags.has(Flags::ACK);
        let haunted = self.haunted;
        let (us, them) = self.ends(side);
        let mut ghost = false;
        match us.syn {
            // What these laws rest on is not known while two connections share the four-tuple.
            Some(syn) if haunted && syn.isn == sent.seq => {}
            Some(_) if haunted && answers => {}
            Some(_) if haunted => self.begin(side),
            // Who was reset and opens again before the clock of ISNs has moved has the same one.
            Some(syn) if us.over && !answers && syn.may_be_another(sent, now) => self.begin(side),
            Some(syn) if syn.isn == sent.seq => {
                // In simultaneous open, a SYN-ACK leaves out what the other SYN did not offer.
                let other = them.syn.filter(|_| answers).map(|syn| syn.options);
                let same = same_offer(sent.options, syn.options, other);
                law(same, "a SYN sent again has other options")?;
                law(us.acked_known < 1 || asked_again, "its SYN is known to be acknowledged")?;
                law(!us.over || asked_again, "its connection is over")?;
            }
            Some(_) if answers => {
                law(us.may_be_over(them, now), "its connection's SYN had another number")?;
                self.haunted = true;
                ghost = true;
            }
            Some(_) => {
                law(us.may_be_over(them, now), "its connection on this four-tuple is not over")?;
                let waits = us.closed_first && them.fin_arrived() && !us.reset;
                let free_at = us.fin_heard + msl.times(2);
                law(!waits || now >= free_at, "its four-tuple is in TIME-WAIT")?;
                self.begin(side);
            }
            None => {}
        }
        let haunted = self.haunted;
        let (us, them) = self.ends(side);
        if us.syn.is_none() {
            let Segment { seq: isn, options, .. } = *sent;
            us.syn = Some(Syn { isn, options, family: sent.family(), sent: now });
            us.top = 1;
        }
        us.last_sent = now;
        if !haunted {
            us.sends_syn(them, sent)?;
        }
        if answers && !haunted {
            let syn = them.syn.ok_or("it answers no SYN")?;
            law(them.arrived >= 1, "the SYN it answers has not arrived")?;
            law(sent.ack == syn.isn.wrapping_add(1), "it acknowledges another SYN")?;
            them.advertise(1, i64::from(sent.window));
        }
        Ok(ghost)
    }

    /// A segment is sent that is neither SYN nor RST.
    fn synchronized(
        &mut self,
        now: Instant,
        side: Side,
        (sent, payload): (&Segment, &[u8]),
        excused: bool,
    ) -> Verdict {
        law(sent.flags.has(Flags::ACK), "it has no ACK")?;
        let Options { mss, window_scale, sack_permitted, timestamps: _, sack: _, user_timeout: _ } =
            sent.options;
        let bare = mss.is_none() && window_scale.is_none() && !sack_permitted;
        law(bare, "it has an option that belongs to SYNs")?;
        if self.haunted {
            return Ok(());
        }
        let (us, them) = self.ends(side);
        if us.syn.is_none() || them.syn.is_none() {
            let last = us.before == Some((sent.seq, sent.ack)) && sent.seq_len() == 0;
            return law(last, "it belongs to no connection");
        }
        law(!us.over, "its connection is over")?;
        us.last_sent = now;
        let seq = us.relative(sent.seq);
        us.sends_data(them, now, seq, sent, excused)?;
        us.sends(them, seq, sent, payload)?;
        let ack = them.relative(sent.ack);
        law(ack <= them.arrived, "it acknowledges what has not arrived")?;
        law(ack >= them.acked, "its acknowledgment goes back")?;
        // A keepalive probe has a number that is acknowledged: its SYN's at least, though that came
        // ahead of a gap.
        let probes = seq < us.acked_known.max(1);
        let says_more = ack > them.acked || sent.seq_len() > 0 || probes;
        let shift = us.shift(them);
        let opens = them.advertise(ack, i64::from(sent.window) << shift);
        law(opens >= -(1 << shift), "it takes back window it has offered")?;
        if !says_more && opens <= 0 {
            law(us.credit > 0, "it answers nothing that arrived")?;
            us.credit -= 1;
            self.idle += 1;
            law(self.idle < IDLE_MAX, "the two sides answer each other and say nothing new")?;
        } else {
            self.idle = 0;
        }
        Ok(())
    }

    /// A RST is sent. `heard` arrived at its sender in this turn.
    fn reset(&mut self, side: Side, sent: &Segment, heard: &[Segment]) -> Verdict {
        law(sent.payload_len == 0, "a RST carries nothing here")?;
        let bare = !sent.flags.has(Flags::SYN) && !sent.flags.has(Flags::FIN);
        law(bare, "a RST has another flag")?;
        law(sent.tos & 0b11 == 0, "a RST is marked for ECN")?;
        let answers = heard.iter().any(|segment| answered_by(segment, sent));
        let haunted = self.haunted;
        let (us, them) = self.ends(side);
        us.reset = true;
        if answers || haunted {
            return Ok(());
        }
        law(us.syn.is_some(), "it answers nothing that arrived and ends no connection")?;
        law(!us.over, "its connection is over")?;
        let seq = us.relative(sent.seq);
        law((us.acked_known..=us.top).contains(&seq), "its number is not of its connection")?;
        if sent.flags.has(Flags::ACK) && them.syn.is_some() {
            let ack = them.relative(sent.ack);
            law(
                (them.acked..=them.arrived).contains(&ack),
                "it acknowledges what has not arrived",
            )?;
        }
        us.over = true;
        Ok(())
    }

    /// A segment arrives, intact, at `side`.
    fn arrived(&mut self, now: Instant, side: Side, segment: &Segment, alone: bool) {
        let haunted = self.haunted;
        let (us, them) = self.ends(side);
        us.credit = (us.credit + 1).min(1 << 20);
        if segment.flags.has(Flags::RST) {
            us.reset = true;
            us.hears_reset(them, segment);
            return;
        }
        let Some(syn) = them.syn else { return };
        let seq = them.relative(segment.seq);
        if segment.flags.has(Flags::SYN) && segment.seq != syn.isn {
            return;
        }
        let late = us.hears_timestamp(segment);
        let mut sure = false;
        if segment.flags.has(Flags::ACK) && us.syn.is_some() {
            let ack = us.relative(segment.ack);
            let shift = if segment.flags.has(Flags::SYN) { 0 } else { them.shift(us) };
            // It counts for sure only where the segment is next in order, whether or not this side
            // keeps what is ahead.
            let next = them.arrived == them.taken.max(them.acked) && them.arrived == seq;
            // What acknowledges too little may be dropped, with its text (RFC 5961 s5.2).
            let newest = ack >= us.acked_heard;
            if ack <= us.top {
                us.acked_heard = us.acked_heard.max(ack);
            }
            if next && !late && ack <= us.top {
                let end = seq + i64::from(segment.payload_len);
                sure = newest && end <= them.edge && !us.over && !haunted;
                us.acked_known = us.acked_known.max(ack);
            }
            us.edge_known = us.edge_known.max(ack + (i64::from(segment.window) << shift));
        }
        if segment.flags.has(Flags::FIN) {
            us.fin_heard = now;
        }
        us.hears_data(them, now, (seq, segment), alone, sure);
        them.arrives(seq, seq + i64::from(segment.seq_len()));
    }

    /// This side's endpoint, and the other's.
    fn ends(&mut self, side: Side) -> (&mut Endpoint, &mut Endpoint) {
        let [a, b] = &mut self.ends;
        match side {
            Side::A => (a, b),
            Side::B => (b, a),
        }
    }

    /// The next connection on the same four-tuple.
    fn begin(&mut self, side: Side) {
        let haunted = self.haunted;
        let (us, them) = self.ends(side);
        let gone = !haunted && (them.over || them.reset || them.is_finished(us));
        let lingers = them.syn.is_some() && !gone;
        let before = them.syn.zip(us.syn).map(|(theirs, ours)| {
            (theirs.isn.wrapping_add(them.top as u32), ours.isn.wrapping_add(us.acked as u32))
        });
        *self = Flow { haunted: lingers, ..Flow::default() };
        self.ends[side.other() as usize].before = before;
    }
}

/// Whether a SYN with `again` repeats one with `first`, the clock of timestamps apart. Where both
/// sides must offer an option to use it, it may be left out if it is not in `other`.
fn same_offer(again: Options, first: Options, other: Option<Options>) -> bool {
    let scaled = other.is_some_and(|other| other.window_scale.is_none());
    let stamped = other.is_some_and(|other| other.timestamps.is_none());
    let sacked = other.is_some_and(|other| !other.sack_permitted);
    again.mss == first.mss
        && (again.window_scale == first.window_scale || (scaled && again.window_scale.is_none()))
        && (again.timestamps.is_some() == first.timestamps.is_some()
            || (stamped && again.timestamps.is_none()))
        && (again.sack_permitted == first.sack_permitted || (sacked && !again.sack_permitted))
}

/// Whether `sent` is RFC 9293 s3.10.7.1's answer to `segment`.
fn answered_by(segment: &Segment, sent: &Segment) -> bool {
    let same = segment.src == sent.dst
        && segment.dst == sent.src
        && segment.src_port == sent.dst_port
        && segment.dst_port == sent.src_port;
    let form = if segment.flags.has(Flags::ACK) {
        !sent.flags.has(Flags::ACK) && sent.seq == segment.ack
    } else {
        let end = segment.seq.wrapping_add(segment.seq_len());
        sent.flags.has(Flags::ACK) && sent.seq == 0 && sent.ack == end
    };
    same && form && !segment.flags.has(Flags::RST)
}

/// True if `sent` is the SYN-ACK of the SYN `heard`.
fn answers_syn(sent: &Segment, heard: &Segment) -> bool {
    let same = Endpoints::of_received(heard) == Endpoints::of_received(sent).reversed();
    let acks = sent.flags.has(Flags::ACK) && sent.ack == heard.seq.wrapping_add(1);
    same && acks && heard.flags.has(Flags::SYN)
}

/// A's view of the four-tuple of a segment sent by `side`.
fn key(side: Side, segment: &Segment) -> Endpoints {
    let received = Endpoints::of_received(segment);
    match side {
        Side::B => received,
        Side::A => received.reversed(),
    }
}

fn describe(segment: &Segment) -> String {
    let Segment { src, dst, src_port, dst_port, seq, ack, window, payload_len, .. } = segment;
    let names = [
        (Flags::SYN, "S"),
        (Flags::FIN, "F"),
        (Flags::RST, "R"),
        (Flags::PSH, "P"),
        (Flags::ACK, "."),
    ];
    let set = names.iter().filter(|(flag, _)| segment.flags.has(*flag));
    let flags: String = set.map(|(_, name)| *name).collect();
    let end = seq.wrapping_add(u32::from(*payload_len));
    format!(
        "{src}:{src_port} > {dst}:{dst_port} {flags} {seq}:{end}({payload_len}) ack {ack} win {window}"
    )
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::wire::ethernet::Header;

    const MACS: [Mac; 2] = [Mac([2, 0, 0, 0, 0, 1]), Mac([2, 0, 0, 0, 0, 2])];
    const S: Flags = Flags::SYN;
    const F: Flags = Flags::FIN;
    const R: Flags = Flags::RST;
    const ACK: Flags = Flags::ACK;
    /// ISNs at the wrap, so that every test crosses it.
    pub(in crate::sim) const ISN: [u32; 2] = [u32::MAX, u32::MAX - 3];

    /// A wire on which a test writes both sides' segments. Numbers are relative to the ISNs,
    /// windows 1000, MSS 500.
    pub(in crate::sim) struct Wire {
        pub(in crate::sim) referee: Referee,
        pub(in crate::sim) now: Instant,
    }

    impl Wire {
        pub(in crate::sim) fn new() -> Wire {
            Wire { referee: Referee::new(MACS, Span::from_secs(30)), now: Instant::ZERO }
        }

        /// A connection with nothing sent yet.
        fn established() -> Wire {
            let mut wire = Wire::new();
            wire.pass(Side::A, S, 0, 0, b"");
            wire.pass(Side::B, S | ACK, 0, 1, b"");
            wire.pass(Side::A, ACK, 1, 1, b"");
            wire
        }

        /// A connection that A closed first.
        fn closed() -> Wire {
            let mut wire = Wire::established();
            wire.pass(Side::A, F | ACK, 1, 1, b"");
            wire.pass(Side::B, F | ACK, 1, 2, b"");
            wire.pass(Side::A, ACK, 2, 2, b"");
            wire
        }

        pub(in crate::sim) fn segment(side: Side, flags: Flags, seq: u32, ack: u32) -> Segment {
            let ips = [[10, 0, 0, 1].into(), [10, 0, 0, 2].into()];
            let ports = [4000, 80];
            let (us, them) = (side as usize, side.other() as usize);
            let mss = flags.has(S).then_some(500);
            let ack_of = if flags.has(ACK) { ISN[them].wrapping_add(ack) } else { 0 };
            Segment {
                src: ips[us],
                dst: ips[them],
                src_port: ports[us],
                dst_port: ports[them],
                seq: ISN[us].wrapping_add(seq),
                ack: ack_of,
                flags,
                window: 1000,
                urgent: 0,
                tos: 0,
                options: Options { mss, ..Options::default() },
                payload_at: 0,
                payload_len: 0,
            }
        }

        pub(in crate::sim) fn frame(side: Side, mut segment: Segment, payload: &[u8]) -> Vec<u8> {
            let header_len = segment::header_len(false, segment.family(), &segment.options);
            segment.payload_len = payload.len() as u16;
            let mut frame = vec![0; header_len + payload.len()];
            frame[header_len..].copy_from_slice(payload);
            let (src, dst) = (MACS[side as usize], MACS[side.other() as usize]);
            let header = Header { dst, src, vlan: None, ethertype: 0x0800 };
            segment::emit(&mut frame, &header, &segment, 1, 64);
            frame
        }

        /// Sends a segment that gets lost.
        pub(in crate::sim) fn lose(
            &mut self,
            side: Side,
            flags: Flags,
            seq: u32,
            ack: u32,
            payload: &[u8],
        ) {
            let frame = Wire::frame(side, Wire::segment(side, flags, seq, ack), payload);
            self.referee.sent(self.now, side, &frame);
        }

        /// Sends a segment that arrives at once, in a turn of its own.
        pub(in crate::sim) fn pass(
            &mut self,
            side: Side,
            flags: Flags,
            seq: u32,
            ack: u32,
            payload: &[u8],
        ) {
            self.pass_segment(side, Wire::segment(side, flags, seq, ack), payload);
        }

        pub(in crate::sim) fn pass_segment(
            &mut self,
            side: Side,
            segment: Segment,
            payload: &[u8],
        ) {
            let frame = Wire::frame(side, segment, payload);
            self.referee.sent(self.now, side, &frame);
            self.referee.begin_turn(side.other());
            self.referee.arrived(self.now, side.other(), &frame);
        }

        #[track_caller]
        pub(in crate::sim) fn is_legal(&self) {
            assert_eq!(self.referee.violation(), None);
        }

        #[track_caller]
        pub(in crate::sim) fn breaks(&self, law: &str) {
            let violation = self.referee.violation().expect("a law is broken");
            assert!(violation.ends_with(law), "{violation}");
        }
    }

    #[test]
    fn a_connection_by_the_book_breaks_no_law() {
        let mut wire = Wire::established();
        wire.pass(Side::A, ACK, 1, 1, b"request");
        wire.pass(Side::B, ACK, 1, 8, b"response");
        wire.pass(Side::B, F | ACK, 9, 8, b"");
        wire.pass(Side::A, F | ACK, 8, 10, b"");
        wire.pass(Side::B, ACK, 10, 9, b"");
        wire.is_legal();
        assert_eq!(wire.referee.segments(), 8);
    }

    #[test]
    fn losses_are_mended_by_the_same_bytes() {
        let mut wire = Wire::new();
        wire.lose(Side::A, S, 0, 0, b"");
        wire.pass(Side::A, S, 0, 0, b"");
        wire.lose(Side::B, S | ACK, 0, 1, b"");
        wire.pass(Side::B, S | ACK, 0, 1, b"");
        wire.lose(Side::A, ACK, 1, 1, b"abc");
        wire.pass(Side::A, ACK, 4, 1, b"def");
        wire.pass(Side::B, ACK, 1, 1, b"");
        wire.pass(Side::A, F | ACK, 1, 1, b"abcdef");
        wire.pass(Side::B, ACK, 1, 8, b"");
        wire.is_legal();
    }

    #[test]
    fn a_wrong_checksum_is_seen() {
        let mut wire = Wire::established();
        let mut frame = Wire::frame(Side::A, Wire::segment(Side::A, ACK, 1, 1), b"x");
        *frame.last_mut().unwrap() ^= 1;
        wire.referee.sent(wire.now, Side::A, &frame);
        wire.breaks("it is malformed: TcpChecksum");
    }

    #[test]
    fn a_frame_to_somewhere_else_is_seen() {
        let mut wire = Wire::new();
        let mut frame = Wire::frame(Side::A, Wire::segment(Side::A, S, 0, 0), b"");
        frame[5] = 9;
        wire.referee.sent(wire.now, Side::A, &frame);
        wire.breaks("its Ethernet destination is not its receiver");
    }

    #[test]
    fn a_syn_may_not_change() {
        let mut wire = Wire::new();
        wire.pass(Side::A, S, 0, 0, b"");
        wire.pass(Side::A, S, 7, 0, b"");
        wire.breaks("its connection on this four-tuple is not over");

        let mut wire = Wire::new();
        wire.pass(Side::A, S, 0, 0, b"");
        let mut segment = Wire::segment(Side::A, S, 0, 0);
        segment.options.mss = Some(501);
        wire.pass_segment(Side::A, segment, b"");
        wire.breaks("a SYN sent again has other options");
    }

    #[test]
    fn a_synack_acknowledges_the_syn_that_arrived() {
        let mut wire = Wire::new();
        wire.pass(Side::A, S, 0, 0, b"");
        wire.pass(Side::B, S | ACK, 0, 2, b"");
        wire.breaks("it acknowledges another SYN");

        let mut wire = Wire::new();
        wire.lose(Side::A, S, 0, 0, b"");
        wire.pass(Side::B, S | ACK, 0, 1, b"");
        wire.breaks("the SYN it answers has not arrived");

        let mut wire = Wire::new();
        wire.pass(Side::B, S | ACK, 0, 1, b"");
        wire.breaks("it answers no SYN");
    }

    #[test]
    fn an_acknowledged_syn_is_not_sent_again() {
        let mut wire = Wire::established();
        wire.pass(Side::B, S | ACK, 0, 1, b"");
        wire.breaks("its SYN is known to be acknowledged");
    }

    #[test]
    fn options_of_syns_stay_in_syns() {
        let mut wire = Wire::established();
        let mut segment = Wire::segment(Side::A, ACK, 1, 1);
        segment.options.window_scale = Some(2);
        wire.pass_segment(Side::A, segment, b"x");
        wire.breaks("it has an option that belongs to SYNs");
    }

    #[test]
    fn bytes_sent_again_may_not_change() {
        let mut wire = Wire::established();
        wire.lose(Side::A, ACK, 1, 1, b"abcdef");
        wire.pass(Side::A, ACK, 3, 1, b"cdX");
        wire.breaks("bytes sent again have changed");
    }

    #[test]
    fn a_gap_may_not_be_left() {
        let mut wire = Wire::established();
        wire.pass(Side::A, ACK, 3, 1, b"cd");
        wire.breaks("it leaves a gap after what was sent before");
    }

    #[test]
    fn fin_stays_where_it_is_and_nothing_follows() {
        let mut wire = Wire::established();
        wire.lose(Side::A, F | ACK, 1, 1, b"abc");
        wire.lose(Side::A, F | ACK, 1, 1, b"ab");
        wire.breaks("its FIN has moved");

        let mut wire = Wire::established();
        wire.lose(Side::A, F | ACK, 1, 1, b"");
        wire.lose(Side::A, ACK, 2, 1, b"x");
        wire.breaks("payload stands past its FIN");
    }

    #[test]
    fn the_window_and_the_mss_that_arrived_are_kept() {
        let mut wire = Wire::established();
        wire.pass(Side::A, ACK, 1, 1, &[0; 500]);
        wire.pass(Side::A, ACK, 501, 1, &[0; 500]);
        wire.is_legal();
        wire.lose(Side::A, ACK, 1001, 1, b"p");
        wire.is_legal();
        wire.pass(Side::A, ACK, 1001, 1, b"pp");
        wire.breaks("it is past the window it was offered");

        let mut wire = Wire::established();
        wire.pass(Side::A, ACK, 1, 1, &[0; 501]);
        wire.breaks("it is above the MSS it was offered");
    }

    #[test]
    fn a_window_that_got_lost_is_not_known() {
        let mut wire = Wire::established();
        wire.pass(Side::A, ACK, 1, 1, &[0; 500]);
        wire.pass(Side::A, ACK, 501, 1, &[0; 500]);
        wire.lose(Side::B, ACK, 1, 1001, b"");
        wire.pass(Side::A, ACK, 1001, 1, b"pp");
        wire.breaks("it is past the window it was offered");
    }

    #[test]
    fn what_is_known_to_be_acknowledged_is_not_sent_again() {
        let mut wire = Wire::established();
        wire.pass(Side::A, ACK, 1, 1, b"abc");
        wire.lose(Side::B, ACK, 1, 4, b"");
        wire.pass(Side::A, ACK, 1, 1, b"abc");
        wire.is_legal();
        wire.pass(Side::B, ACK, 1, 4, b"");
        wire.pass(Side::A, ACK, 1, 1, b"abc");
        wire.breaks("all of it is known to be acknowledged");
    }

    #[test]
    fn a_keepalive_probe_is_not_a_retransmission() {
        let mut wire = Wire::established();
        wire.pass(Side::A, ACK, 1, 1, b"abc");
        wire.pass(Side::B, ACK, 1, 4, b"");
        wire.pass(Side::A, ACK, 3, 1, b"");
        wire.pass(Side::B, ACK, 1, 4, b"");
        wire.pass(Side::A, ACK, 3, 1, b"\0");
        wire.is_legal();
    }

    #[test]
    fn acknowledgments_keep_to_what_arrived_and_never_go_back() {
        let mut wire = Wire::established();
        wire.lose(Side::A, ACK, 1, 1, b"abc");
        wire.pass(Side::B, ACK, 1, 4, b"");
        wire.breaks("it acknowledges what has not arrived");

        let mut wire = Wire::established();
        wire.pass(Side::A, ACK, 1, 1, b"abc");
        wire.pass(Side::B, ACK, 1, 4, b"");
        wire.pass(Side::B, ACK, 1, 2, b"x");
        wire.breaks("its acknowledgment goes back");
    }

    #[test]
    fn a_damaged_segment_has_not_arrived() {
        let mut wire = Wire::established();
        let mut frame = Wire::frame(Side::A, Wire::segment(Side::A, ACK, 1, 1), b"abc");
        wire.referee.sent(wire.now, Side::A, &frame);
        frame[56] ^= 1;
        wire.referee.arrived(wire.now, Side::B, &frame);
        wire.pass(Side::B, ACK, 1, 4, b"");
        wire.breaks("it acknowledges what has not arrived");
    }

    #[test]
    fn offered_window_is_not_taken_back() {
        let mut wire = Wire::established();
        wire.pass(Side::B, ACK, 1, 1, b"x");
        let mut segment = Wire::segment(Side::B, ACK, 2, 1);
        segment.window = 900;
        wire.pass_segment(Side::B, segment, b"y");
        wire.breaks("it takes back window it has offered");
    }

    #[test]
    fn one_ack_a_segment_that_arrived_and_no_more() {
        let mut wire = Wire::established();
        // B has heard the SYN, the ACK and this: three credits, one of them spent on nothing yet.
        wire.pass(Side::A, ACK, 1, 1, b"abc");
        wire.pass(Side::B, ACK, 1, 4, b"");
        for _ in 0..3 {
            wire.pass(Side::B, ACK, 1, 4, b"");
        }
        wire.is_legal();
        wire.pass(Side::B, ACK, 1, 4, b"");
        wire.breaks("it answers nothing that arrived");
    }

    #[test]
    fn a_war_of_acks_is_seen() {
        let mut wire = Wire::established();
        for _ in 0..IDLE_MAX {
            wire.pass(Side::A, ACK, 1, 1, b"");
            wire.pass(Side::B, ACK, 1, 1, b"");
        }
        wire.breaks("the two sides answer each other and say nothing new");
    }

    #[test]
    fn a_segment_of_no_connection_is_seen() {
        let mut wire = Wire::new();
        wire.pass(Side::A, ACK, 1, 1, b"");
        wire.breaks("it belongs to no connection");
    }

    #[test]
    fn a_reset_answers_or_ends_a_connection() {
        let mut wire = Wire::new();
        wire.pass(Side::A, S, 0, 0, b"");
        let mut refusal = Wire::segment(Side::B, R | ACK, 0, 1);
        refusal.seq = 0;
        wire.pass_segment(Side::B, refusal, b"");
        wire.is_legal();
        // Refused, the same four-tuple may be tried again at once, with another number.
        wire.pass(Side::A, S, 9, 0, b"");
        wire.is_legal();

        let mut wire = Wire::established();
        wire.pass(Side::B, R | ACK, 1, 1, b"");
        wire.is_legal();
        wire.lose(Side::B, ACK, 1, 1, b"x");
        wire.breaks("its connection is over");

        let mut wire = Wire::new();
        wire.pass(Side::B, R, 1, 0, b"");
        wire.breaks("it answers nothing that arrived and ends no connection");

        let mut wire = Wire::established();
        wire.pass(Side::A, R, 5, 0, b"");
        wire.breaks("its number is not of its connection");
    }

    #[test]
    fn whoever_hears_a_reset_falls_silent() {
        let mut wire = Wire::established();
        wire.pass(Side::A, R | ACK, 1, 1, b"");
        wire.pass(Side::B, ACK, 1, 1, b"x");
        wire.breaks("its connection is over");
    }

    #[test]
    fn whoever_hears_a_reset_may_open_again_with_the_same_number_in_the_same_tick() {
        let reset = |age| {
            let mut wire = Wire::established();
            wire.pass(Side::B, R | ACK, 1, 1, b"");
            wire.now += age;
            wire.pass(Side::A, S, 0, 0, b"");
            wire.pass(Side::B, S | ACK, 0, 1, b"");
            wire
        };
        reset(Span::from_micros(3)).is_legal();
        reset(Span::from_micros(4)).breaks("its SYN is known to be acknowledged");
    }

    #[test]
    fn a_reset_is_not_answered_by_a_reset() {
        let mut wire = Wire::new();
        wire.pass(Side::A, S, 0, 0, b"");
        let mut refusal = Wire::segment(Side::B, R | ACK, 0, 1);
        refusal.seq = 0;
        wire.pass_segment(Side::B, refusal, b"");
        let mut back = Wire::segment(Side::A, R, 0, 0);
        back.seq = refusal.ack;
        wire.pass_segment(Side::A, back, b"");
        wire.is_legal();
        // A could end its connection there, but has none any more to end again.
        wire.pass_segment(Side::A, back, b"");
        wire.breaks("its connection is over");
    }

    #[test]
    fn time_wait_keeps_its_four_tuple_for_twice_the_msl() {
        let mut wire = Wire::closed();
        wire.is_legal();
        wire.now = Instant::ZERO + Span::from_millis(59_999);
        wire.pass(Side::A, S, 1000, 0, b"");
        wire.breaks("its four-tuple is in TIME-WAIT");

        let mut wire = Wire::closed();
        wire.now = Instant::ZERO + Span::from_secs(60);
        wire.pass(Side::A, S, 1000, 0, b"");
        wire.is_legal();
    }

    #[test]
    fn a_fin_that_comes_again_keeps_the_four_tuple_for_longer() {
        let mut wire = Wire::established();
        wire.pass(Side::A, F | ACK, 1, 1, b"");
        wire.pass(Side::B, F | ACK, 1, 2, b"");
        wire.lose(Side::A, ACK, 2, 2, b"");
        wire.now = Instant::ZERO + Span::from_secs(1);
        wire.pass(Side::B, F | ACK, 1, 2, b"");
        wire.pass(Side::A, ACK, 2, 2, b"");
        wire.now = Instant::ZERO + Span::from_secs(60);
        wire.pass(Side::A, S, 1000, 0, b"");
        wire.breaks("its four-tuple is in TIME-WAIT");
    }

    #[test]
    fn the_side_that_closed_last_may_come_again_at_once_and_time_wait_may_ack() {
        let mut wire = Wire::established();
        wire.pass(Side::B, F | ACK, 1, 1, b"");
        wire.pass(Side::A, F | ACK, 1, 2, b"");
        wire.pass(Side::B, ACK, 2, 2, b"");
        wire.pass(Side::A, S, 1000, 0, b"");
        wire.pass(Side::B, ACK, 2, 2, b"");
        wire.is_legal();
        wire.pass(Side::B, ACK, 3, 2, b"");
        wire.breaks("it belongs to no connection");
    }

    #[test]
    fn a_fin_that_was_never_acknowledged_may_linger_into_the_next_connection() {
        let mut wire = Wire::established();
        wire.pass(Side::A, F | ACK, 1, 1, b"");
        wire.pass(Side::B, F | ACK, 1, 2, b"");
        wire.lose(Side::A, ACK, 2, 2, b"");
        wire.now = Instant::ZERO + Span::from_secs(60);
        wire.pass(Side::A, S, 1000, 0, b"");
        wire.pass(Side::B, F | ACK, 1, 2, b"");
        wire.is_legal();
    }

    #[test]
    fn a_late_duplicate_syn_raises_a_ghost() {
        let mut wire = Wire::closed();
        let frame = Wire::frame(Side::A, Wire::segment(Side::A, S, 0, 0), b"");
        wire.referee.arrived(wire.now, Side::B, &frame);
        wire.pass(Side::B, S | ACK, 500, 1, b"");
        wire.is_legal();
        assert_eq!(wire.referee.ghosts(), 1);

        let mut wire = Wire::established();
        wire.pass(Side::B, S | ACK, 500, 1, b"");
        wire.breaks("its connection's SYN had another number");
    }

    #[test]
    fn the_trace_tells_frames_places_and_times_apart() {
        let frame = Wire::frame(Side::A, Wire::segment(Side::A, S, 0, 0), b"");
        let trace = |now: u64, side, arrives: bool| {
            let mut referee = Wire::new().referee;
            let now = Instant::from_nanos(now);
            if arrives {
                referee.arrived(now, side, &frame);
            } else {
                referee.sent(now, side, &frame);
            }
            referee.trace()
        };
        let traces = [
            trace(0, Side::A, false),
            trace(1, Side::A, false),
            trace(0, Side::A, true),
            trace(0, Side::B, true),
        ];
        for (at, one) in traces.iter().enumerate() {
            assert!(!traces[..at].contains(one));
        }
        assert_eq!(trace(0, Side::A, false), traces[0]);
    }
}
