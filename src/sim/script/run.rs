//! What a script's lines mean: one engine, one peer that is only what the script says, one clock.

use super::notation::{Bases, Pattern, Wanted, moved};
use super::parse::{Act, Claim, Line, Script, Setup};
use super::witness::{Place, Told, Witness, payload_byte};
use super::{Outcome, icmp};
use crate::app::Conn;
use crate::engine::{Config, Engine, Listener, Subnet};
use crate::flow::Endpoints;
use crate::frame::{Burst, Frame, Pool};
use crate::stats::Counters;
use crate::tcp::{End, State};
use crate::time::{Instant, Span};
use crate::wire::Family;
use crate::wire::arp::{self, Operation};
use crate::wire::ethernet::{self, Mac};
use crate::wire::ndp;
use crate::wire::options::Options;
use crate::wire::segment::{self, Body, Segment, Verify};
use crate::wire::tcp::Flags;
use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};

pub(super) const OUR_MAC: Mac = Mac([2, 0, 0, 0, 0, 1]);
pub(super) const PEER_MAC: Mac = Mac([2, 0, 0, 0, 0, 2]);

/// The port of the side that opens actively.
const EPHEMERAL_PORT: u16 = 40_000;

/// The port that a peer's segments go to where no line names one.
const SERVER_PORT: u16 = 80;

const FRAMES: u32 = 256;

/// How much later than written a segment may be, beside a share of the time since the line before:
/// so exact are timers (see [`crate::timer::wheel`]).
const LATE_MAX: Span = Span::from_millis(1);
const LATE_PARTS: u64 = 255;

/// Turns between two lines, at the most: hours of timers need thousands.
const TURNS_MAX: u32 = 1_000_000;

/// Our address and the peer's.
pub(super) fn addresses(family: Family) -> (IpAddr, IpAddr) {
    match family {
        Family::V4 => ([192, 0, 2, 1].into(), [192, 0, 2, 2].into()),
        Family::V6 => {
            let host = |last| [0x2001, 0xdb8, 0, 0, 0, 0, 0, last].into();
            (host(1), host(2))
        }
    }
}

/// Runs a script in one family; answers the state changes that it saw, in order.
///
/// # Errors
/// The first line that did not go as written, and what was expected and got.
pub fn run(script: &Script, family: Family) -> Result<Vec<(State, State)>, (usize, String)> {
    let mut bench = Bench::new(&script.setup, family);
    let mut number = 0;
    for line in &script.lines {
        number = line.number;
        bench.step(line).map_err(|what| (number, what))?;
    }
    bench.finish().map_err(|what| (number, what))?;
    Ok(bench.steps)
}

/// The engine under test and what is known about it.
struct Bench {
    engine: Engine<Witness>,
    pool: Pool,
    rx: Burst,
    tx: Burst,
    now: Instant,
    endpoints: Endpoints,
    setup: Setup,
    bases: Bases,
    /// What the peer's payload counts from: one past its SYN.
    peer_start: u32,
    /// The end of all that the engine has sent, on the wire.
    sent_end: u32,
    /// The last timestamp that the engine sent.
    sent_stamp: u32,
    /// Sent and not yet expected by a line, oldest first.
    sent: VecDeque<Sent>,
    /// How late the segment of the last line was that expected one.
    late: Span,
    state: State,
    /// State changes seen, in order.
    steps: Vec<(State, State)>,
}

struct Sent {
    at: Instant,
    segment: Segment,
    payload: Vec<u8>,
}

impl Bench {
    fn new(setup: &Setup, family: Family) -> Bench {
        // Without a listener it is the engine that opens.
        let (local_port, remote_port) = match setup.listen {
            Some(port) => (port, EPHEMERAL_PORT),
            None => (EPHEMERAL_PORT, SERVER_PORT),
        };
        let (ours, theirs) = addresses(family);
        let local = SocketAddr::new(ours, local_port);
        let endpoints = Endpoints { local, remote: SocketAddr::new(theirs, remote_port) };
        let start = start_for(setup, endpoints);
        Bench {
            engine: engine(setup, ours, start),
            pool: Pool::new(FRAMES).expect("half a megabyte of memory"),
            rx: Burst::new(),
            tx: Burst::new(),
            now: start,
            endpoints,
            setup: *setup,
            bases: Bases { ours: None, theirs: setup.irs },
            peer_start: 0,
            sent_end: 0,
            sent_stamp: 0,
            sent: VecDeque::new(),
            late: Span::ZERO,
            state: State::Closed,
            steps: Vec::new(),
        }
    }

    fn step(&mut self, line: &Line) -> Outcome<()> {
        let (earliest, latest) = line.after;
        if let Act::Expect(pattern) = &line.act {
            return self.expect(pattern, self.now + earliest, self.now + latest);
        }
        let comes_in = matches!(line.act, Act::Inject(_) | Act::Icmp { .. });
        self.wait_quietly(earliest, comes_in)?;
        match &line.act {
            Act::Listen => {}
            Act::Connect(port) => self.connect(*port)?,
            Act::Dscp(dscp) => self.prod(|app, _| app.dscp = Some(*dscp))?,
            Act::SendUrgent(bytes) => self.prod(|_, conn| {
                conn.send(*bytes);
                conn.urge();
            })?,
            Act::Send(bytes) => self.prod(|_, conn| conn.send(*bytes))?,
            Act::Close => self.prod(|_, conn| conn.close())?,
            Act::Abort => self.prod(|_, conn| conn.abort())?,
            Act::Room(bytes) => self.prod(|app, _| app.room = *bytes)?,
            Act::Stop => self.engine.stop(),
            Act::Inject(pattern) => self.inject(pattern),
            Act::Icmp { kind, code, seq, mtu } => self.inject_icmp((*kind, *code), *seq, *mtu),
            Act::Silence(span) => return self.wait_quietly(*span, false),
            Act::Claim(claim) => return self.claim(claim),
            Act::Expect(_) => {}
        }
        self.watch_state();
        self.turn()
    }

    /// Lets time go by in which nothing may be sent. Where something comes in at its end, the turn
    /// then is that which takes it, as a worker's is.
    fn wait_quietly(&mut self, span: Span, comes_in: bool) -> Outcome<()> {
        self.run_until(self.now + span)?;
        if !comes_in {
            self.turn()?;
        }
        match self.sent.front() {
            None => Ok(()),
            Some(sent) => {
                Err(format!("sent, but not expected: {}", self.bases.relative(&sent.segment)))
            }
        }
    }

    fn expect(&mut self, pattern: &Pattern, earliest: Instant, latest: Instant) -> Outcome<()> {
        let late_max = LATE_MAX + latest.since(self.now).over(LATE_PARTS);
        self.run_until(latest + late_max)?;
        let expected = format!("expected  > {}", pattern.text);
        let Some(sent) = self.sent.pop_front() else {
            return Err(format!("{expected}\n    got       nothing"));
        };
        self.learn(pattern, &sent.segment)?;
        let got = self.bases.relative(&sent.segment);
        if !pattern.matches(&got) {
            return Err(format!("{expected}\n    got       {got}"));
        }
        // What is timed from the line before counts from when its segment came, but keepalives
        // count from when it should have come.
        let late = std::mem::replace(&mut self.late, sent.at.since(latest));
        if sent.at + late + LATE_MAX < earliest || sent.at > latest + late_max {
            let (seconds, how) = match sent.at < earliest {
                true => (earliest.since(sent.at), "early"),
                false => (sent.at.since(latest), "late"),
            };
            return Err(format!(
                "{expected}\n    it came {:.3} s too {how}",
                seconds.as_secs_f64()
            ));
        }
        self.verify_payload(&sent)
    }

    /// The first SYN says where the engine's numbers begin; so does one whose number is `*`: a new
    /// connection, which begins past all numbers of the old one (RFC 9293 s3.4.1).
    fn learn(&mut self, pattern: &Pattern, sent: &Segment) -> Outcome<()> {
        let is_past = |number: u32, end: u32| number.wrapping_sub(end) as i32 >= 0;
        if let Some((stamp, _)) = sent.options.timestamps {
            self.sent_stamp = stamp;
        }
        let end = sent.seq.wrapping_add(sent.seq_len());
        let begins = self.bases.ours.is_none() || pattern.seq.is_none();
        if !sent.flags.has(Flags::SYN) || !begins {
            self.sent_end = if is_past(end, self.sent_end) { end } else { self.sent_end };
            return Ok(());
        }
        if self.bases.ours.is_some() && !is_past(sent.seq, self.sent_end) {
            return Err("the new connection begins among the old one's numbers".to_owned());
        }
        let iss = sent.seq.wrapping_sub(pattern.seq.unwrap_or(0));
        if self.bases.ours.is_none() && self.setup.iss.is_some_and(|wanted| wanted != iss) {
            return Err(format!("the engine's numbers begin at {iss}, not as chosen"));
        }
        (self.bases.ours, self.sent_end) = (Some(iss), end);
        Ok(())
    }

    fn verify_payload(&self, sent: &Sent) -> Outcome<()> {
        let start = self.bases.ours.unwrap_or(0).wrapping_add(1);
        let first = sent.segment.seq.wrapping_sub(start);
        let offsets = (0..).map(|place| first.wrapping_add(place));
        match sent.payload.iter().zip(offsets).all(|(&byte, at)| byte == payload_byte(at)) {
            true => Ok(()),
            false => Err("the payload is not the application's".to_owned()),
        }
    }

    fn connect(&mut self, port: u16) -> Outcome<()> {
        self.endpoints.local.set_port(EPHEMERAL_PORT);
        self.endpoints.remote.set_port(port);
        let connected = self.engine.connect(self.now, &self.endpoints, Place::default());
        connected.map_err(|why| format!("connect: {why:?}"))
    }

    fn prod(&mut self, act: impl FnOnce(&mut Witness, &mut Conn<'_, Place>)) -> Outcome<()> {
        match self.engine.prod(self.now, &self.endpoints, act) {
            true => Ok(()),
            false => Err("there is no connection to act on".to_owned()),
        }
    }

    fn inject(&mut self, pattern: &Pattern) {
        let seq = pattern.seq.unwrap_or(0);
        let syn = pattern.flags.has(Flags::SYN);
        let unsynchronized = match self.engine.state_of(&self.endpoints) {
            State::Closed
            | State::Listen
            | State::SynSent
            | State::SynReceived
            | State::TimeWait => true,
            State::Established
            | State::FinWait1
            | State::FinWait2
            | State::CloseWait
            | State::Closing
            | State::LastAck => false,
        };
        if syn && unsynchronized {
            self.peer_start = seq.wrapping_add(1);
        }
        let options = self.options_of(&pattern.options);
        let Endpoints { local, remote } = self.endpoints;
        let family = Family::of(local.ip());
        let header_len = segment::header_len(false, family, &options);
        let segment = Segment {
            src: remote.ip(),
            dst: local.ip(),
            src_port: remote.port(),
            dst_port: local.port(),
            seq: seq.wrapping_add(self.bases.theirs),
            ack: pattern.ack.map_or(0, |ack| ack.wrapping_add(self.bases.ours.unwrap_or(0))),
            flags: pattern.flags,
            window: pattern.window.unwrap_or(u16::MAX),
            urgent: pattern.urgent,
            tos: pattern.tos,
            options,
            payload_at: header_len as u16,
            payload_len: pattern.payload_len,
        };
        let mut frame = self.frame(header_len + usize::from(pattern.payload_len));
        let first = seq.wrapping_add(u32::from(syn)).wrapping_sub(self.peer_start);
        for (place, byte) in frame.bytes_mut()[header_len..].iter_mut().enumerate() {
            *byte = payload_byte(first.wrapping_add(place as u32));
        }
        let ethernet = ethernet::Header {
            dst: OUR_MAC,
            src: PEER_MAC,
            vlan: None,
            ethertype: family.ethertype(),
        };
        segment::emit(frame.bytes_mut(), &ethernet, &segment, 0, 64);
        self.rx.push(frame);
    }

    /// A `*` among timestamps that are injected is the last one that the engine sent.
    fn options_of(&self, wanted: &Wanted) -> Options {
        match wanted {
            Wanted::Any => Options::default(),
            Wanted::These { options, timestamps } => {
                let stamp = |value: Option<u32>| value.unwrap_or(self.sent_stamp);
                let timestamps = timestamps.map(|(value, echo)| (stamp(value), stamp(echo)));
                let sack = moved(&options.sack, self.bases.ours.unwrap_or(0));
                Options { timestamps, sack, ..*options }
            }
        }
    }

    /// An ICMP error about a segment of ours.
    fn inject_icmp(&mut self, (kind, code): (u8, u8), seq: u32, mtu: u16) {
        let seq = seq.wrapping_add(self.bases.ours.unwrap_or(0));
        let Some(error) = icmp::error(&self.endpoints, (kind, code), seq, mtu) else { return };
        let mut frame = self.frame(error.len());
        frame.bytes_mut().copy_from_slice(&error);
        self.rx.push(frame);
    }

    fn frame(&mut self, len: usize) -> Frame {
        let mut frame = self.pool.take().expect("between lines every frame is in the pool");
        frame.reset(len);
        frame
    }

    fn claim(&self, claim: &Claim) -> Outcome<()> {
        let Told { established, received, acknowledged, peer_closed, urgent, soft_errors, ended } =
            self.engine.app.latest();
        let yes = |is: bool| if is { "yes" } else { "no" };
        let end = |end: Option<End>| end.map_or("none", End::name);
        let state = self.engine.state_of(&self.endpoints);
        let connections = self.engine.connections();
        let (holds, so) = match *claim {
            Claim::State(wanted) => (state == wanted, format!("state is {}", state.name())),
            Claim::Established(wanted) => {
                (established == wanted, format!("established is {}", yes(established)))
            }
            Claim::Received(wanted) => (received == wanted, format!("received is {received}")),
            Claim::Acknowledged(wanted) => {
                (acknowledged == wanted, format!("acknowledged is {acknowledged}"))
            }
            Claim::SoftErrors(wanted) => {
                (soft_errors == wanted, format!("soft_errors is {soft_errors}"))
            }
            Claim::Urgent(wanted) => (urgent == wanted, format!("urgent is {urgent}")),
            Claim::PeerClosed(wanted) => {
                (peer_closed == wanted, format!("peer_closed is {}", yes(peer_closed)))
            }
            Claim::Ended(wanted) => (ended == wanted, format!("ended is {}", end(ended))),
            Claim::Connections(wanted) => {
                (connections == wanted, format!("connections is {connections}"))
            }
            Claim::Counter(place, wanted) => {
                let value = self.engine.counters.values()[place];
                (value == wanted, format!("{} is {value}", Counters::TABLE[place].0))
            }
        };
        if holds { Ok(()) } else { Err(so) }
    }

    /// At the end nothing is left over.
    fn finish(&mut self) -> Outcome<()> {
        self.wait_quietly(Span::ZERO, false)?;
        match self.pool.len() == FRAMES as usize {
            true => Ok(()),
            false => Err(format!("{} of {FRAMES} frames came back", self.pool.len())),
        }
    }

    /// Lets time go by until `limit`, or until the engine sends something. At `limit` itself a turn
    /// is taken only if the engine asked for one.
    fn run_until(&mut self, limit: Instant) -> Outcome<()> {
        for _ in 0..TURNS_MAX {
            if !self.sent.is_empty() {
                return Ok(());
            }
            let next = self.engine.next_deadline(self.now).max(self.now + Span::from_nanos(1));
            if next > limit {
                self.now = limit;
                return Ok(());
            }
            self.now = next;
            self.turn()?;
        }
        Err(format!("the engine does not come to rest within {TURNS_MAX} turns"))
    }

    /// Polls the engine until it has nothing more to send now.
    fn turn(&mut self) -> Outcome<()> {
        loop {
            self.engine.poll(self.now, &mut self.pool, &mut self.rx, &mut self.tx);
            self.engine.check();
            self.watch_state();
            let count = self.tx.len();
            for place in 0..count {
                let frame = self.tx.drain(1).next().expect("one of those counted");
                self.capture(frame).map_err(|what| format!("frame {place} of a turn: {what}"))?;
            }
            if let Some(complaint) = self.engine.app.complaint {
                return Err(complaint.to_owned());
            }
            if count == 0 && self.rx.is_empty() {
                return Ok(());
            }
        }
    }

    fn watch_state(&mut self) {
        let before = std::mem::replace(&mut self.state, self.engine.state_of(&self.endpoints));
        if before != self.state {
            self.steps.push((before, self.state));
        }
    }

    /// Takes down a segment; answers who asks for the peer.
    fn capture(&mut self, mut frame: Frame) -> Outcome<()> {
        let packet = segment::parse(frame.bytes(), Verify::All);
        let packet = packet.map_err(|why| format!("not understood: {why:?}"))?;
        match packet.body {
            Body::Tcp(segment) => {
                if packet.ethernet.dst != PEER_MAC {
                    return Err(format!("sent to {}", packet.ethernet.dst));
                }
                let at = usize::from(segment.payload_at);
                let payload = frame.bytes()[at..][..usize::from(segment.payload_len)].to_vec();
                self.sent.push_back(Sent { at: self.now, segment, payload });
            }
            Body::Arp(asked) if asked.operation == Operation::Request => {
                if self.setup.arp && self.endpoints.remote.ip() == asked.target_ip {
                    frame.reset(arp::frame_len(false));
                    asked.reply(PEER_MAC).emit(None, frame.bytes_mut());
                    self.rx.push(frame);
                    return Ok(());
                }
            }
            Body::Ndp(asked) if asked.message == ndp::Message::Solicitation => {
                if self.setup.arp && self.endpoints.remote.ip() == asked.target {
                    let reply = asked.reply(PEER_MAC);
                    reply.emit(PEER_MAC, OUR_MAC, None, frame.bytes_mut());
                    self.rx.push(frame);
                    return Ok(());
                }
            }
            // It announces its own address at start.
            Body::Ndp(told) if self.endpoints.local.ip() == told.target => {}
            Body::Arp(_) | Body::Ndp(_) | Body::Icmp(_) | Body::Unspoken(_) | Body::Other => {
                return Err(format!("neither TCP nor a question: {:?}", packet.body));
            }
        }
        self.pool.put(frame);
        Ok(())
    }
}

fn engine(setup: &Setup, address: IpAddr, start: Instant) -> Engine<Witness> {
    let keepalive = setup.keepalive;
    let config = Config {
        mac: OUR_MAC,
        // The MSS is the same in both families: what a script says is.
        mtu: 1480 + Family::of(address).header_len() as u16,
        ttl: 64,
        subnets: vec![Subnet::only(address, 24)],
        gateways: vec![],
        listeners: setup.listen.iter().map(|&port| Listener { port, keepalive }).collect(),
        ranges: None,
        keepalive,
        connections_max: 4,
        awake_max: 0,
        tcp: setup.tcp,
        verify: Verify::All,
        device_sums: false,
        seed: setup.seed,
    };
    Engine::new(config, Witness::new(setup.close_on_fin), start)
}

/// When the clock must start for the engine's numbers to begin where the script wants them: they
/// move by one every 4 µs (RFC 9293 s3.4.1), so a SYN at time zero tells.
fn start_for(setup: &Setup, endpoints: Endpoints) -> Instant {
    let Some(wanted) = setup.iss else { return Instant::ZERO };
    let setup = Setup { iss: None, arp: true, ..*setup };
    let mut scout = Bench::new(&setup, Family::of(endpoints.local.ip()));
    scout.endpoints = endpoints;
    let opened = scout.engine.connect(Instant::ZERO, &endpoints, Place::default());
    assert!(opened.is_ok(), "an empty table has room");
    scout.turn().expect("a SYN goes out");
    let at_zero = scout.sent.front().expect("a SYN was sent").segment.seq;
    Instant::ZERO + Span::from_micros(4).times(u64::from(wanted.wrapping_sub(at_zero)))
}
