//! What the referee knows of one side of a connection, and what that side may therefore send.

use super::data::Data;
use crate::time::{Instant, Span};
use crate::wire::Family;
use crate::wire::options::Options;
use crate::wire::segment::Segment;
use crate::wire::tcp::Flags;

/// Bytes of Ethernet and TCP headers without a tag and without options.
const HEADERS_BYTES: u16 = 34;
/// An endpoint whose SYN or FIN found no answer and that was silent for so long may have given up
/// without a word.
const SILENCE: Span = Span::from_secs(1);
/// How often the clock moves that ISNs come from (RFC 9293 s3.4.1, SHLD-1).
const ISN_TICK: Span = Span::from_micros(4);
/// `Err` names the law that is broken.
pub(super) type Verdict = Result<(), String>;

/// One side of a connection: what it sent, and what is known of it. Numbers are relative to its
/// ISN: SYN is 0.
#[derive(Default)]
pub(super) struct Endpoint {
    pub syn: Option<Syn>,
    /// End of everything sent.
    pub top: i64,
    /// Payload sent; its first byte is number 1.
    pub stream: Vec<u8>,
    pub fin: Option<i64>,
    /// FIN was sent before the other side's arrived: by the book this side goes to TIME-WAIT.
    pub closed_first: bool,
    /// Up to here everything arrived at the other side, and past it these ranges. Up to `taken` it
    /// came in order and into an open window.
    pub arrived: i64,
    pub arrived_ahead: Vec<(i64, i64)>,
    pub taken: i64,
    /// Highest acknowledgment the other side sent for it; what arrived here in order; the same of
    /// right window edges.
    pub acked: i64,
    pub acked_known: i64,
    pub edge: i64,
    pub edge_known: i64,
    /// Highest acknowledgment that arrived here, in order or not.
    pub acked_heard: i64,
    /// ACKs this side may send that say nothing new.
    pub credit: u32,
    pub last_sent: Instant,
    /// Latest timestamp that arrived here: what is older may be dropped (RFC 7323 s5).
    pub stamped: Option<u32>,
    /// When the other side's FIN last arrived here.
    pub fin_heard: Instant,
    /// It sent a RST of its own accord, or heard one that it had to obey: from here on it is silent
    /// but for answers.
    pub over: bool,
    /// It sent or heard any RST: it may be over.
    pub reset: bool,
    /// Its numbers in the connection before this one, for a last ACK out of TIME-WAIT: (sequence,
    /// acknowledgment).
    pub before: Option<(u32, u32)>,
    pub data: Data,
}

#[derive(Clone, Copy)]
pub(super) struct Syn {
    /// For the first time.
    pub sent: Instant,
    pub isn: u32,
    pub family: Family,
    pub options: Options,
}

impl Syn {
    /// Whether `sent`, with the same number, may open another connection.
    pub fn may_be_another(&self, sent: &Segment, now: Instant) -> bool {
        self.isn == sent.seq && now.since(self.sent) < ISN_TICK
    }
}

impl Endpoint {
    /// Holds `sent`, which begins at `seq`, to what its sender sent before and knows of the
    /// receiver.
    pub fn sends(&mut self, them: &Endpoint, seq: i64, sent: &Segment, payload: &[u8]) -> Verdict {
        let end = seq + payload.len() as i64;
        let fin = sent.flags.has(Flags::FIN);
        law(seq >= 0 && seq <= self.top, "it leaves a gap after what was sent before")?;
        if let Some(at) = self.fin {
            law(end <= at || payload.is_empty(), "payload stands past its FIN")?;
            law(!fin || end == at, "its FIN has moved")?;
        }
        let probe = payload.len() <= 1 && !fin && end <= self.acked_known;
        if sent.seq_len() > 0 && !probe {
            law(end + i64::from(fin) > self.acked_known, "all of it is known to be acknowledged")?;
            law(seq >= 1, "payload stands before the first byte")?;
            let at = (seq - 1) as usize;
            let again = payload.len().min(self.stream.len() - at);
            law(self.stream[at..][..again] == payload[..again], "bytes sent again have changed")?;
            self.stream.extend_from_slice(&payload[again..]);
        }
        if fin && self.fin.is_none() {
            law(end == self.stream.len() as i64 + 1, "its FIN stands before its payload")?;
            self.fin = Some(end);
            self.closed_first = !them.fin_arrived();
        }
        self.top = self.top.max(end + i64::from(fin));
        // One byte past the edge is a window probe (RFC 9293 s3.8.6.1).
        let edge = self.edge_known + i64::from(payload.len() == 1);
        law(payload.is_empty() || end <= edge, "it is past the window it was offered")?;
        let ip_bytes = sent.family().header_len() as u16;
        let options_bytes = sent.payload_at.saturating_sub(HEADERS_BYTES + ip_bytes);
        let bytes = i64::from(sent.payload_len + options_bytes);
        law(bytes <= them.mss_offered(), "it is above the MSS it was offered")
    }

    /// A segment arrives. True if its timestamp is older than one that arrived before.
    pub fn hears_timestamp(&mut self, segment: &Segment) -> bool {
        let Some((value, _)) = segment.options.timestamps else { return false };
        let latest = self.stamped.unwrap_or(value);
        let late = (value.wrapping_sub(latest) as i32) < 0;
        self.stamped = Some(if late { latest } else { value });
        late
    }

    /// A RST arrives. It must be obeyed where there is no doubt that it is next in order, or
    /// refuses the SYN.
    pub fn hears_reset(&mut self, them: &Endpoint, segment: &Segment) {
        if them.syn.is_none() {
            return;
        }
        let next = them.relative(segment.seq);
        let doubt = self.fin.is_some() && them.fin_arrived();
        if next == them.arrived && next == them.acked && !doubt {
            self.over = self.syn.is_some();
        }
    }

    /// Bytes `seq..end` arrive at the other side.
    pub fn arrives(&mut self, seq: i64, end: i64) {
        if seq <= self.taken.max(self.acked) {
            // What is past the window may be taken or not.
            self.taken = self.taken.max(end.min(self.edge.max(1)));
        }
        if end <= self.arrived {
            return;
        }
        self.arrived_ahead.push((seq, end));
        self.arrived_ahead.sort_unstable();
        for &(from, to) in &self.arrived_ahead {
            if from <= self.arrived {
                self.arrived = self.arrived.max(to);
            }
        }
        self.arrived_ahead.retain(|&(_, to)| to > self.arrived);
    }

    /// The other side acknowledges up to `ack` and offers `window` bytes from there: by how much
    /// that moves the edge to the right.
    pub fn advertise(&mut self, ack: i64, window: i64) -> i64 {
        let moved = ack + window - self.edge;
        self.acked = self.acked.max(ack);
        self.edge = self.edge.max(ack + window);
        moved
    }

    /// How far its window fields are shifted: only if both SYNs offered scaling (RFC 7323 s2.2).
    pub fn shift(&self, them: &Endpoint) -> u8 {
        let scale = |end: &Endpoint| end.syn.and_then(|syn| syn.options.window_scale);
        scale(them).and(scale(self)).unwrap_or(0).min(14)
    }

    /// The largest segment it takes, in bytes of text and options. What a SYN names that names none
    /// is in RFC 9293 s3.7.1, MUST-15.
    pub fn mss_offered(&self) -> i64 {
        let Some(Syn { options, family, .. }) = self.syn else { return 0 };
        let mss_default = match family {
            Family::V4 => 536,
            Family::V6 => 1220,
        };
        i64::from(options.mss.unwrap_or(mss_default))
    }

    pub fn relative(&self, seq: u32) -> i64 {
        let Some(Syn { isn, .. }) = self.syn else { return 0 };
        self.top + i64::from(seq.wrapping_sub(isn.wrapping_add(self.top as u32)) as i32)
    }

    pub fn fin_arrived(&self) -> bool {
        self.fin.is_some_and(|fin| self.arrived > fin)
    }

    /// Both FINs are over, and it knows.
    pub fn is_finished(&self, them: &Endpoint) -> bool {
        self.fin.is_some_and(|fin| self.acked_known > fin) && them.fin_arrived()
    }

    /// True unless it is certain that it still holds its connection.
    pub fn may_be_over(&self, them: &Endpoint, now: Instant) -> bool {
        let silent = now.since(self.last_sent) >= SILENCE;
        let gave_up = silent && (self.acked_known < 1 || self.fin.is_some());
        self.over || self.reset || self.is_finished(them) || gave_up
    }
}

pub(super) fn law(holds: bool, text: &str) -> Verdict {
    if holds { Ok(()) } else { Err(text.into()) }
}
