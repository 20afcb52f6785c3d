//! Segments as they are written: a [`Pattern`] is one of a script's, a [`Relative`] one from the
//! wire, its numbers counted from where each side began.

use crate::wire::options::{Options, Sack};
use crate::wire::segment::Segment;
use crate::wire::tcp::Flags;
use std::fmt;

/// The ECN field's values (RFC 3168 s5), by their bits.
pub const ECN_NAMES: [&str; 4] = ["noecn", "ect1", "ect0", "ce"];

/// ICMP errors by name, with type and code (RFC 792, RFC 1812 s5.2.7.1).
pub const ICMP_NAMES: [(&str, u8, u8); 10] = [
    ("net_unreachable", 3, 0),
    ("host_unreachable", 3, 1),
    ("protocol_unreachable", 3, 2),
    ("port_unreachable", 3, 3),
    ("frag_needed", 3, 4),
    ("source_route_failed", 3, 5),
    ("prohibited", 3, 13),
    ("source_quench", 4, 0),
    ("ttl_exceeded", 11, 0),
    ("parameter_problem", 12, 0),
];

/// A segment of a script. `None` is `*`: any value will do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    pub flags: Flags,
    pub seq: Option<u32>,
    pub payload_len: u16,
    /// Meaningless without the ACK flag.
    pub ack: Option<u32>,
    pub window: Option<u16>,
    /// Meaningless without the URG flag.
    pub urgent: u16,
    /// DSCP and ECN, as in the IP header.
    pub tos: u8,
    pub options: Wanted,
    /// As it stands in the script.
    pub text: String,
}

/// Options of a script's segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// `<...>`
    Any,
    /// These and no others; each of the timestamps may be `*`.
    These { options: Options, timestamps: Option<(Option<u32>, Option<u32>)> },
}

/// Where each side's numbers begin on the wire.
#[derive(Clone, Copy, Debug, Default)]
pub struct Bases {
    /// The engine's: known from its first SYN.
    pub ours: Option<u32>,
    /// The peer's: chosen by the script.
    pub theirs: u32,
}

/// A segment that the engine sent, in the script's numbers.
#[derive(Clone, Copy, Debug)]
pub struct Relative(pub Segment);

impl Bases {
    /// A sent segment in the script's numbers.
    pub fn relative(&self, segment: &Segment) -> Relative {
        // Before the first SYN is taken for known it counts from itself.
        let unknown = if segment.flags.has(Flags::SYN) { segment.seq } else { 0 };
        let seq = segment.seq.wrapping_sub(self.ours.unwrap_or(unknown));
        let sack = moved(&segment.options.sack, 0u32.wrapping_sub(self.theirs));
        let options = Options { sack, ..segment.options };
        Relative(Segment { seq, ack: segment.ack.wrapping_sub(self.theirs), options, ..*segment })
    }
}

impl Pattern {
    /// True if `sent` is as written.
    pub fn matches(&self, sent: &Relative) -> bool {
        let Segment { flags, seq, ack, window, urgent, tos, options, payload_len, .. } = sent.0;
        flags == self.flags
            && tos == self.tos
            && is(self.seq, seq)
            && payload_len == self.payload_len
            && (!flags.has(Flags::ACK) || is(self.ack, ack))
            && is(self.window, window)
            && (!flags.has(Flags::URG) || self.urgent == urgent)
            && self.options.matches(&options)
    }
}

impl Wanted {
    fn matches(&self, sent: &Options) -> bool {
        match self {
            Wanted::Any => true,
            Wanted::These { options, timestamps } => {
                let stamps = match (timestamps, sent.timestamps) {
                    (None, None) => true,
                    (Some((value, echo)), Some((sent, echoed))) => {
                        is(*value, sent) && is(*echo, echoed)
                    }
                    (None, Some(_)) | (Some(_), None) => false,
                };
                stamps && Options { timestamps: None, ..*sent } == *options
            }
        }
    }
}

/// The blocks with `by` added to their edges.
pub fn moved(sack: &Sack, by: u32) -> Sack {
    let mut moved = Sack::default();
    for &(left, right) in sack.blocks() {
        moved.push(left.wrapping_add(by), right.wrapping_add(by));
    }
    moved
}

fn is<T: PartialEq>(wanted: Option<T>, got: T) -> bool {
    wanted.is_none_or(|wanted| wanted == got)
}

impl fmt::Display for Relative {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Segment { flags, seq, ack, window, urgent, tos, options, payload_len, .. } = self.0;
        let end = seq.wrapping_add(u32::from(payload_len));
        write!(out, "> ")?;
        match (tos >> 2, ECN_NAMES[usize::from(tos & 3)]) {
            (0, "noecn") => {}
            (0, ecn) => write!(out, "[{ecn}] ")?,
            (dscp, ecn) => write!(out, "[dscp {dscp} {ecn}] ")?,
        }
        write!(out, "{flags} {seq}:{end}({payload_len})")?;
        if flags.has(Flags::ACK) {
            write!(out, " ack {ack}")?;
        }
        write!(out, " win {window}")?;
        if flags.has(Flags::URG) {
            write!(out, " urg {urgent}")?;
        }
        let mut lead = " <";
        let mut item = |out: &mut fmt::Formatter<'_>, text: fmt::Arguments<'_>| {
            write!(out, "{lead}{text}")?;
            lead = ",";
            Ok(())
        };
        if let Some(mss) = options.mss {
            item(out, format_args!("mss {mss}"))?;
        }
        if options.sack_permitted {
            item(out, format_args!("sackOK"))?;
        }
        if let Some((value, echo)) = options.timestamps {
            item(out, format_args!("TS val {value} ecr {echo}"))?;
        }
        if let Some(shift) = options.window_scale {
            item(out, format_args!("wscale {shift}"))?;
        }
        if let Some(timeout) = options.user_timeout {
            item(out, format_args!("uto {timeout}"))?;
        }
        if !options.sack.is_empty() {
            let blocks = options.sack.blocks().iter();
            let blocks: String = blocks.map(|(left, right)| format!(" {left}:{right}")).collect();
            item(out, format_args!("sack{blocks}"))?;
        }
        if !options.is_empty() { write!(out, ">") } else { Ok(()) }
    }
}
