//! A snapshot of every state × event: what becomes of the connection, what it sends, what the
//! application is told.
//!
//! The golden file is read by people: a line that changes is a change of behaviour.
//! `SHAKEDOWN_BLESS=1` rewrites it.

use shakedown::flow::FlowKey;
use shakedown::tcp::{Arrival, Config, Env, Expiry, Keepalive, Paths, Seq, State, Tcb, Transmit};
use shakedown::time::{Instant, Span};
use shakedown::wire::options::Options;
use shakedown::wire::segment::Segment;
use shakedown::wire::tcp::Flags;
use std::fmt::Write;

const ISS: u32 = 1000;
const IRS: u32 = 0xffff_fff0;
const WINDOW: u16 = 4096;
/// The text each side sends before the event, so that no number is a special one.
const SENT: u32 = 10;

/// A connection and the numbers that its peer would use.
struct Pair {
    tcb: Tcb,
    config: Config,
    now: Instant,
    /// What the peer sends next, and what it expects next.
    seq: u32,
    ack: u32,
    paths: Paths,
}

impl Pair {
    fn segment(&self, flags: Flags, seq: u32, ack: u32, len: u16) -> Segment {
        Segment {
            src: [10, 0, 0, 2].into(),
            dst: [10, 0, 0, 1].into(),
            src_port: 80,
            dst_port: 1024,
            seq,
            ack,
            flags,
            window: WINDOW,
            urgent: 0,
            tos: 0,
            options: Options::default(),
            payload_at: 54,
            payload_len: len,
        }
    }

    fn arrives(&mut self, flags: Flags, seq: u32, ack: u32, len: u16) -> Arrival {
        let segment = self.segment(flags, seq, ack, len);
        let Pair { tcb, config, now, paths, .. } = self;
        tcb.arrives(&segment, &mut Env { config, now: *now, room: u32::MAX, nagle: false, paths })
    }

    fn sends(&mut self) -> Vec<Transmit> {
        let Pair { tcb, config, now, paths, .. } = self;
        let mut env = Env { config, now: *now, room: u32::MAX, nagle: false, paths };
        std::iter::from_fn(|| tcb.output(&mut env)).collect()
    }

    /// The peer's next segment, and what comes of it.
    fn peer(&mut self, flags: Flags, len: u16) {
        self.arrives(flags, self.seq, self.ack, len);
        self.seq = self.seq.wrapping_add(u32::from(len));
        if flags.has(Flags::SYN) || flags.has(Flags::FIN) {
            self.seq = self.seq.wrapping_add(1);
        }
        self.sends();
    }

    fn close(&mut self) {
        self.tcb.close();
        self.sends();
    }
}

/// A connection in `state`, reached as the RFC's diagram has it, with text sent both ways where
/// that is possible.
fn pair_in(state: State) -> Pair {
    let key = FlowKey::v4(([10, 0, 0, 1], 1024), ([10, 0, 0, 2], 80));
    let config = Config { timestamps: false, ..Config::default() };
    let now = Instant::ZERO + Span::from_secs(1);
    let mut tcb = Tcb::CLOSED;
    tcb.begin(key);
    tcb.open_active(Seq(ISS), now);
    let mut pair = Pair { tcb, config, now, seq: IRS, ack: ISS + 1, paths: Paths::new(1, &config) };
    pair.sends();
    if state == State::SynSent {
        return pair;
    }
    if state == State::SynReceived {
        let syn = pair.segment(Flags::SYN, IRS, 0, 0);
        pair.tcb.begin(key);
        pair.tcb.open_passive(&syn, Seq(ISS), &config, now);
        pair.seq = IRS.wrapping_add(1);
        pair.sends();
        return pair;
    }
    pair.peer(Flags::SYN | Flags::ACK, 0);
    pair.tcb.promise(u64::from(SENT));
    pair.sends();
    pair.ack += SENT;
    pair.peer(Flags::ACK, SENT as u16);
    match state {
        State::FinWait1 => pair.close(),
        State::FinWait2 => {
            pair.close();
            pair.ack += 1;
            pair.peer(Flags::ACK, 0);
        }
        State::CloseWait => pair.peer(Flags::FIN | Flags::ACK, 0),
        State::Closing => {
            pair.close();
            pair.peer(Flags::FIN | Flags::ACK, 0);
        }
        State::LastAck => {
            pair.peer(Flags::FIN | Flags::ACK, 0);
            pair.close();
        }
        State::TimeWait => {
            pair.close();
            pair.ack += 1;
            pair.peer(Flags::FIN | Flags::ACK, 0);
        }
        State::Closed
        | State::Listen
        | State::SynSent
        | State::SynReceived
        | State::Established => {}
    }
    assert_eq!(pair.tcb.state(), state);
    pair
}

type Event = (&'static str, fn(&mut Pair) -> Outcome);

/// What an event answered.
enum Outcome {
    Arrived(Arrival),
    Expired(Expiry),
    Called,
}

fn arrive(pair: &mut Pair, flags: Flags, ahead: i32, ack_ahead: i32, len: u16) -> Outcome {
    let seq = pair.seq.wrapping_add_signed(ahead);
    let ack = pair.ack.wrapping_add_signed(ack_ahead);
    Outcome::Arrived(pair.arrives(flags, seq, ack, len))
}

fn later(pair: &mut Pair, span: Span) -> Outcome {
    pair.now += span;
    let keepalive = Some(Keepalive::default());
    let Pair { tcb, config, now, paths, .. } = pair;
    let mut env = Env { config, now: *now, room: u32::MAX, nagle: false, paths };
    Outcome::Expired(tcb.expires(keepalive, config.data_retries, &mut env))
}

/// RFC 9293 s3.10: segments by their bits and place, time, and the user's calls.
const EVENTS: &[Event] = &[
    ("SYN, next", |p| arrive(p, Flags::SYN, 0, 0, 0)),
    ("SYN, the first again", |p| {
        let seq = if p.tcb.state() == State::SynSent { p.seq } else { IRS };
        Outcome::Arrived(p.arrives(Flags::SYN, seq, 0, 0))
    }),
    ("SYN, far ahead", |p| arrive(p, Flags::SYN, 1 << 20, 0, 0)),
    ("SYN-ACK", |p| arrive(p, Flags::SYN | Flags::ACK, 0, 0, 0)),
    ("SYN-ACK of nothing", |p| arrive(p, Flags::SYN | Flags::ACK, 0, 99, 0)),
    ("ACK", |p| arrive(p, Flags::ACK, 0, 0, 0)),
    ("ACK of our FIN", |p| arrive(p, Flags::ACK, 0, 1, 0)),
    ("ACK of nothing", |p| arrive(p, Flags::ACK, 0, 99, 0)),
    ("ACK, old", |p| arrive(p, Flags::ACK, 0, -1, 0)),
    ("ACK, behind the window", |p| arrive(p, Flags::ACK, -1, 0, 0)),
    ("ACK, past the window", |p| arrive(p, Flags::ACK, 1 << 20, 0, 0)),
    ("no flag", |p| arrive(p, Flags(0), 0, 0, 0)),
    ("text", |p| arrive(p, Flags::ACK | Flags::PSH, 0, 0, 8)),
    ("text, old", |p| arrive(p, Flags::ACK | Flags::PSH, -8, 0, 8)),
    ("text, half old", |p| arrive(p, Flags::ACK | Flags::PSH, -4, 0, 8)),
    ("text, ahead", |p| arrive(p, Flags::ACK | Flags::PSH, 8, 0, 8)),
    ("FIN", |p| arrive(p, Flags::FIN | Flags::ACK, 0, 0, 0)),
    ("FIN, the first again", |p| arrive(p, Flags::FIN | Flags::ACK, -1, 0, 0)),
    ("FIN of ours acknowledged", |p| arrive(p, Flags::FIN | Flags::ACK, 0, 1, 0)),
    ("FIN with text", |p| arrive(p, Flags::FIN | Flags::ACK, 0, 0, 8)),
    ("FIN, ahead", |p| arrive(p, Flags::FIN | Flags::ACK, 8, 0, 0)),
    ("RST, next", |p| arrive(p, Flags::RST, 0, 0, 0)),
    ("RST-ACK, next", |p| arrive(p, Flags::RST | Flags::ACK, 0, 0, 0)),
    ("RST with text", |p| arrive(p, Flags::RST | Flags::ACK, 0, 0, 8)),
    ("RST, in the window", |p| arrive(p, Flags::RST, 8, 0, 0)),
    ("RST, past the window", |p| arrive(p, Flags::RST, 1 << 20, 0, 0)),
    ("SYN-FIN", |p| arrive(p, Flags::SYN | Flags::FIN, 0, 0, 0)),
    ("all flags", |p| arrive(p, Flags(0xff), 0, 0, 0)),
    ("one second", |p| later(p, Span::from_secs(1))),
    ("two hours", |p| later(p, Span::from_secs(7200))),
    ("user: send", |p| {
        p.tcb.promise(5);
        Outcome::Called
    }),
    ("user: close", |p| {
        p.tcb.close();
        Outcome::Called
    }),
    ("user: abort", |p| {
        p.tcb.abort();
        Outcome::Called
    }),
];

/// What the application and the engine hear, in words.
fn told(outcome: &Outcome) -> String {
    let arrival = match outcome {
        Outcome::Called => return String::new(),
        Outcome::Expired(expiry) => return format!("{expiry:?}"),
        Outcome::Arrived(arrival) => arrival,
    };
    let Arrival { established, acked_bytes, text, ahead, joined, .. } = *arrival;
    let Arrival { fin, time_wait, ended, refuse, reopen, note, .. } = *arrival;
    let mut words = Vec::new();
    for (said, word) in [
        (established, "established"),
        (fin, "peer closed"),
        (time_wait, "time-wait begins"),
        (refuse, "answer RST"),
        (reopen, "open anew"),
    ] {
        if said {
            words.push(word.to_string());
        }
    }
    if acked_bytes > 0 {
        words.push(format!("acked {acked_bytes}"));
    }
    if text.1 > 0 {
        words.push(format!("text {}+{}", text.0, text.1));
    }
    if let Some((start, len)) = ahead {
        words.push(format!("ahead {}+{len}", start.since(Seq(IRS))));
    }
    if joined > 0 {
        words.push(format!("joined {joined}"));
    }
    if let Some(end) = ended {
        words.push(format!("ended {}", end.name()));
    }
    if let Some(note) = note {
        words.push(format!("({note:?})"));
    }
    words.join(", ")
}

fn shown(sent: &[Transmit]) -> String {
    let one = |transmit: &Transmit| {
        let letters = [
            (Flags::SYN, "S"),
            (Flags::FIN, "F"),
            (Flags::RST, "R"),
            (Flags::PSH, "P"),
            (Flags::ACK, "."),
        ];
        let flags: String = letters
            .iter()
            .filter(|(flag, _)| transmit.segment.flags.has(*flag))
            .map(|(_, letter)| *letter)
            .collect();
        let seq = transmit.segment.seq.wrapping_sub(ISS);
        let ack = transmit.segment.ack.wrapping_sub(IRS);
        let ack = if transmit.segment.ack == 0 { 0 } else { ack };
        let again = if transmit.again { " again" } else { "" };
        format!(
            "{flags} {seq}:{}({}) ack {ack}{again}",
            seq + u32::from(transmit.segment.payload_len),
            transmit.segment.payload_len
        )
    };
    sent.iter().map(one).collect::<Vec<_>>().join("; ")
}

fn table() -> String {
    let mut out = String::from(
        "# state + event -> state | sent, numbers from the ISNs | told\n\
         # Every connection has sent and received ten bytes where its state lets it.\n",
    );
    for state in State::ALL {
        if matches!(state, State::Closed | State::Listen) {
            // Not blocks: the engine answers for them, and tests/scripts shows how.
            continue;
        }
        for (name, act) in EVENTS {
            let mut pair = pair_in(state);
            let outcome = act(&mut pair);
            pair.tcb.check(&pair.config);
            let sent = pair.sends();
            pair.tcb.check(&pair.config);
            let after = pair.tcb.state().name();
            let line = format!(
                "{} + {name} -> {after} | {} | {}",
                state.name(),
                shown(&sent),
                told(&outcome)
            );
            writeln!(out, "{}", line.replace("  ", " ").trim_end()).unwrap();
        }
        out.push('\n');
    }
    out
}

#[test]
fn every_state_meets_every_event_as_the_snapshot_says() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/states.txt");
    let is = table();
    if std::env::var_os("SHAKEDOWN_BLESS").is_some() {
        std::fs::write(path, &is).unwrap();
    }
    let was = std::fs::read_to_string(path).unwrap_or_default();
    for (is, was) in is.lines().zip(was.lines()) {
        assert_eq!(is, was);
    }
    assert_eq!(is.lines().count(), was.lines().count());
}

/// Goal: whatever a reset claims, nothing is reset for it (RFC 9293 s3.10.7.3, first: "unless the
/// RST bit is set"). The engine would drop such an answer; a worker that owns no such connection
/// would be asked for it, though.
#[test]
fn no_reset_is_answered_by_a_reset_in_any_state() {
    for state in State::ALL {
        if matches!(state, State::Closed | State::Listen) {
            continue;
        }
        for (flags, past) in
            [(Flags::RST, 0), (Flags::RST | Flags::ACK, 0), (Flags::RST | Flags::ACK, 1)]
        {
            for ahead in [0, 1, 100_000] {
                let mut pair = pair_in(state);
                let (seq, ack) = (pair.seq.wrapping_add(ahead), pair.ack.wrapping_add(past));
                let arrival = pair.arrives(flags, seq, ack, 0);
                let resets = pair.sends().iter().any(|sent| sent.segment.flags.has(Flags::RST));
                assert!(!arrival.refuse && !resets, "{} {flags} {past} {ahead}", state.name());
            }
        }
    }
}
