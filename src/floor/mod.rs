//! The floor under the engine: its packets without its state.
//!
//! Two ends exchange the frames of a connection over the engine's devices, read and written by the
//! engine's code, every checksum verified, and remember nothing of it: each answer follows from the
//! segment that it answers. There is no control block, no table, no timer and no application, so
//! what the engine needs beyond this is what TCP costs. Nothing is sent again: who loses a frame
//! here has lost a connection, and goes on with another. At a rate the client keeps when each was
//! due, and so tells what a round trip takes on this link.
//!
//! ```text
//!        Bare                          Text
//!   C -> S  SYN                        SYN
//!   S -> C  SYN ACK                    SYN ACK
//!   C -> S  ACK                        PSH ACK, the request
//!   C -> S  FIN ACK           S -> C   FIN PSH ACK, the response
//!   S -> C  FIN ACK           C -> S   FIN ACK
//!   C -> S  ACK               S -> C   ACK
//! ```

mod launches;

use crate::app::schedule::Schedule;
use crate::device::Device;
use crate::frame::{Burst, Frame, Pool};
use crate::stats::histogram::Histogram;
use crate::time::{Instant, Span};
use crate::wire::ethernet::{Header, Mac};
use crate::wire::options::Options;
use crate::wire::segment::{self, Body, Packet, Segment, Verify};
use crate::wire::tcp::Flags;
use launches::Launches;
use std::net::IpAddr;

/// The most connections that a client has under way. Each is a frame or two in the rings, as there
/// is nowhere else to be, and above 240 the rings of `device::link::threads` can fill both ways,
/// each end waiting for room at the other's. Three bursts keep both ends busy.
pub const IN_FLIGHT_MAX: u32 = 192;

/// A connection that has not finished in this time, or twice it at most, is lost: no frame is under
/// way for so long on a link without impairment, even if its thread loses the core for some ticks.
const PATIENCE: Span = Span::from_millis(100);

/// Sequence numbers of one connection: more than its request, SYN and FIN take.
const SEQS_BITS: u32 = 12;

/// What goes over each connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exchange {
    /// Nothing.
    Bare,
    /// A request on the handshake's ACK, and a response that brings FIN.
    Text { request: Box<[u8]>, response: Box<[u8]> },
}

/// What both ends are made with; the same for both.
#[derive(Clone, Debug)]
pub struct Config {
    /// The client's and the server's.
    pub macs: [Mac; 2],
    pub addresses: [IpAddr; 2],
    /// The client's ports, one connection each in turn.
    pub first_port: u16,
    pub last_port: u16,
    pub server_port: u16,
    pub exchange: Exchange,
    /// What SYNs offer.
    pub mss: u16,
    pub window_scale: Option<u8>,
    pub sack_permitted: bool,
    /// What the timestamp clock reads at [`Instant::ZERO`], in ms; `None` for no timestamps.
    pub timestamp_origin_ms: Option<u32>,
    /// The window field of SYNs, and of all others.
    pub syn_window: u16,
    pub window: u16,
    pub tos: u8,
    pub ttl: u8,
    pub verify: Verify,
    /// Connections that the client keeps under way.
    pub in_flight: u32,
}

/// What one end counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    pub rx_packets: u64,
    /// Handed to the device or waiting for it.
    pub tx_packets: u64,
    /// SYNs sent.
    pub launched: u64,
    /// Connections whose last segment the client has got, or answered if the last word is its own.
    pub finished: u64,
    /// Connections given up because nothing came.
    pub lost: u64,
    /// Frames dropped: not understood.
    pub malformed: u64,
    /// Frames dropped: no segment of the exchange.
    pub strangers: u64,
    /// Segments dropped: of a connection that was given up.
    pub late: u64,
    /// Frames dropped because for [`PATIENCE`] there was no room for an answer.
    pub shed: u64,
    /// Segments not sent because the pool was empty.
    pub no_frame: u64,
}

/// One end.
pub struct Floor<D> {
    pub dev: D,
    pub pool: Pool,
    rx: Burst,
    tx: Burst,
    config: Config,
    role: Role,
    counted: Counted,
    ip_id: u16,
    /// When the next generation begins.
    over_at: Instant,
    /// Frames were taken out of `rx` since this generation began.
    progressed: bool,
}

enum Role {
    Client(Launches),
    Server,
}

const SYN_ACK: Flags = Flags::SYN.with(Flags::ACK);
const FIN_ACK: Flags = Flags::FIN.with(Flags::ACK);
const PSH_ACK: Flags = Flags::PSH.with(Flags::ACK);
const FIN_PSH_ACK: Flags = Flags::FIN.with(PSH_ACK);

/// The flags of the segments that a segment is answered with, and whether it ends the exchange.
type Answer = (&'static [Flags], bool);

impl<D: Device> Floor<D> {
    /// The end that launches: as fast as it can, or by a schedule.
    ///
    /// # Panics
    /// On a request of more than a segment, or more connections than [`IN_FLIGHT_MAX`].
    pub fn client(dev: D, pool: Pool, config: Config, schedule: Option<Schedule>) -> Floor<D> {
        assert!(config.in_flight <= IN_FLIGHT_MAX);
        let ports = (config.first_port, config.last_port);
        let launches = Launches::new(ports, config.in_flight, schedule);
        Floor::new(dev, pool, config, Role::Client(launches))
    }

    /// The end that only answers.
    ///
    /// # Panics
    /// On a request of more than a segment.
    pub fn server(dev: D, pool: Pool, config: Config) -> Floor<D> {
        Floor::new(dev, pool, config, Role::Server)
    }

    fn new(dev: D, pool: Pool, config: Config, role: Role) -> Floor<D> {
        if let Exchange::Text { request, .. } = &config.exchange {
            assert!(request.len() + 2 < 1 << SEQS_BITS);
        }
        Floor {
            dev,
            pool,
            rx: Burst::new(),
            tx: Burst::new(),
            config,
            role,
            counted: Counted::default(),
            ip_id: 0,
            over_at: Instant::ZERO,
            progressed: false,
        }
    }

    /// One turn, as a worker's: answers true if any frame moved.
    pub fn turn(&mut self, now: Instant) -> bool {
        self.dev.rx(now, &mut self.pool, &mut self.rx);
        let received = self.rx.len();
        // First, or in a steady state answers would leave no room for it.
        self.launch(now);
        self.answer_all(now);
        if now >= self.over_at {
            self.next_generation(now);
        }
        let sent = self.tx.len();
        self.dev.tx(now, &mut self.pool, &mut self.tx);
        received + sent > 0
    }

    /// Launches nothing more.
    pub fn stop(&mut self) {
        if let Role::Client(launches) = &mut self.role {
            launches.stop();
        }
    }

    /// Connections launched, and neither finished nor given up.
    pub fn in_flight(&self) -> u32 {
        match &self.role {
            Role::Client(launches) => launches.under_way(),
            Role::Server => 0,
        }
    }

    /// What it took a client from when a connection was due to its SYN-ACK, if it has a schedule.
    pub fn opened(&self) -> Option<&Histogram> {
        match &self.role {
            Role::Client(launches) => launches.opened(),
            Role::Server => None,
        }
    }

    pub fn counted(&self) -> &Counted {
        &self.counted
    }

    /// Every frame is in the pool, in a burst, or with the device.
    pub fn frames(&self) -> usize {
        self.pool.len() + self.rx.len() + self.tx.len() + self.dev.lent()
    }

    /// Answers what has arrived as far as there is room for the answers; the rest waits.
    fn answer_all(&mut self, now: Instant) {
        let answers_max = match self.role {
            Role::Client(_) => 2,
            Role::Server => 1,
        };
        let mut rx = std::mem::take(&mut self.rx);
        for frame in rx.frames() {
            frame.prefetch();
        }
        // Not every frame is answered by so many, so there may be room for a few more.
        loop {
            let count = rx.len().min(self.tx.room() / answers_max);
            if count == 0 {
                break;
            }
            self.progressed = true;
            for frame in rx.drain(count) {
                if let Some(frame) = self.answer(now, frame) {
                    self.pool.put(frame);
                }
            }
        }
        self.rx = rx;
    }

    /// Answers one frame, the first segment in the frame itself; gives it back if it is done with.
    fn answer(&mut self, now: Instant, mut frame: Frame) -> Option<Frame> {
        self.counted.rx_packets += 1;
        // By reference: a summary is too large to copy for nothing.
        let packet = segment::parse(frame.bytes(), self.config.verify);
        let (ethernet, segment) = match &packet {
            Ok(Packet { ethernet, body: Body::Tcp(segment) }) => (ethernet, segment),
            Ok(_) => {
                self.counted.strangers += 1;
                return Some(frame);
            }
            Err(_) => {
                self.counted.malformed += 1;
                return Some(frame);
            }
        };
        let Some((answer, finished)) = self.answer_to(ethernet, segment) else {
            self.counted.strangers += 1;
            return Some(frame);
        };
        if !self.account(now, segment, finished) {
            self.counted.late += 1;
            return Some(frame);
        }
        let vlan = ethernet.vlan;
        let Some((&first, others)) = answer.split_first() else { return Some(frame) };
        self.write(&mut frame, vlan, &self.reply(now, segment, first));
        self.tx.push(frame);
        for &flags in others {
            let Some(mut frame) = self.pool.take() else {
                self.counted.no_frame += 1;
                break;
            };
            self.write(&mut frame, vlan, &self.reply(now, segment, flags));
            self.tx.push(frame);
        }
        None
    }

    /// What a segment is answered with; `None` if it is none of the exchange.
    fn answer_to(&self, ethernet: &Header, segment: &Segment) -> Option<Answer> {
        let Config { macs, addresses, server_port, exchange, .. } = &self.config;
        let (text, text_len) = match (exchange, &self.role) {
            (Exchange::Bare, _) => (false, 0),
            (Exchange::Text { response, .. }, Role::Client(_)) => (true, response.len()),
            (Exchange::Text { request, .. }, Role::Server) => (true, request.len()),
        };
        let (us, peer) = self.role.ends();
        let port = match self.role {
            Role::Client(_) => segment.src_port,
            Role::Server => segment.dst_port,
        };
        let text_len = if segment.flags.has(Flags::PSH) { text_len } else { 0 };
        let to_us = ethernet.dst == macs[us] && segment.dst == addresses[us];
        let from_peer = segment.src == addresses[peer] && port == *server_port;
        if !to_us || !from_peer || usize::from(segment.payload_len) != text_len {
            return None;
        }
        match (&self.role, segment.flags, text) {
            (Role::Server, Flags::SYN, _) => Some((&[SYN_ACK], false)),
            (Role::Client(_), SYN_ACK, false) => Some((&[Flags::ACK, FIN_ACK], false)),
            (Role::Server, Flags::ACK, false) => Some((&[], false)),
            (Role::Server, FIN_ACK, false) => Some((&[FIN_ACK], false)),
            (Role::Client(_), FIN_ACK, false) => Some((&[Flags::ACK], true)),
            (Role::Client(_), SYN_ACK, true) => Some((&[PSH_ACK], false)),
            (Role::Server, PSH_ACK, true) => Some((&[FIN_PSH_ACK], false)),
            (Role::Client(_), FIN_PSH_ACK, true) => Some((&[FIN_ACK], false)),
            (Role::Server, FIN_ACK, true) => Some((&[Flags::ACK], false)),
            (Role::Client(_), Flags::ACK, true) => Some((&[], true)),
            _ => None,
        }
    }

    /// Counts a segment of the exchange; false if it belongs to a connection that was given up.
    fn account(&mut self, now: Instant, segment: &Segment, finished: bool) -> bool {
        let Role::Client(launches) = &mut self.role else { return true };
        let known = launches.heard(now, segment, segment.flags == SYN_ACK, finished);
        self.counted.finished += u64::from(known && finished);
        known
    }

    /// Gives up what is two generations old, and what has waited in `rx` for a whole one.
    fn next_generation(&mut self, now: Instant) {
        self.over_at = now + PATIENCE;
        if let Role::Client(launches) = &mut self.role {
            self.counted.lost += u64::from(launches.next_generation());
        }
        if !self.progressed {
            let count = self.rx.len();
            self.counted.shed += count as u64;
            for frame in self.rx.drain(count) {
                self.pool.put(frame);
            }
        }
        self.progressed = false;
    }

    /// Sends the SYNs that are due.
    fn launch(&mut self, now: Instant) {
        while let Role::Client(launches) = &mut self.role {
            if self.tx.room() == 0 || !launches.is_due(now) {
                return;
            }
            let Some(mut frame) = self.pool.take() else {
                self.counted.no_frame += 1;
                return;
            };
            let (port, seq) = launches.next(now);
            self.counted.launched += 1;
            let segment = Segment {
                src: self.config.addresses[0],
                dst: self.config.addresses[1],
                src_port: port,
                dst_port: self.config.server_port,
                seq,
                ack: 0,
                flags: Flags::SYN,
                window: self.config.syn_window,
                urgent: 0,
                tos: self.config.tos,
                options: self.options(now, Flags::SYN, Some(0)),
                payload_at: 0,
                payload_len: 0,
            };
            self.write(&mut frame, None, &segment);
            self.tx.push(frame);
        }
    }

    /// The segment with `flags` that answers `segment`.
    fn reply(&self, now: Instant, segment: &Segment, flags: Flags) -> Segment {
        let syn = flags.has(Flags::SYN);
        let (us, peer) = self.role.ends();
        Segment {
            src: self.config.addresses[us],
            dst: self.config.addresses[peer],
            src_port: segment.dst_port,
            dst_port: segment.src_port,
            // Any ISN will do that follows from the segment.
            seq: if syn { segment.seq.rotate_left(16) } else { segment.ack },
            ack: segment.seq.wrapping_add(segment.seq_len()),
            flags,
            window: if syn { self.config.syn_window } else { self.config.window },
            urgent: 0,
            tos: self.config.tos,
            options: self.options(now, flags, segment.options.timestamps.map(|(value, _)| value)),
            payload_at: 0,
            payload_len: self.text(flags).len() as u16,
        }
    }

    /// The options of a segment with `flags`, and with a timestamp if there is one to echo.
    fn options(&self, now: Instant, flags: Flags, echo: Option<u32>) -> Options {
        let Config { mss, window_scale, sack_permitted, timestamp_origin_ms, .. } = self.config;
        let clock = |origin: u32| origin.wrapping_add((now.as_nanos() / 1_000_000) as u32);
        let timestamps = timestamp_origin_ms.map(clock).zip(echo);
        match flags.has(Flags::SYN) {
            true => Options {
                mss: Some(mss),
                window_scale,
                sack_permitted,
                timestamps,
                ..Options::default()
            },
            false => Options { timestamps, ..Options::default() },
        }
    }

    /// What a segment of ours with `flags` carries.
    fn text(&self, flags: Flags) -> &[u8] {
        match (&self.config.exchange, &self.role) {
            (Exchange::Text { request, .. }, Role::Client(_)) if flags.has(Flags::PSH) => request,
            (Exchange::Text { response, .. }, Role::Server) if flags.has(Flags::PSH) => response,
            (Exchange::Bare | Exchange::Text { .. }, _) => &[],
        }
    }

    fn write(&mut self, frame: &mut Frame, vlan: Option<u16>, segment: &Segment) {
        let (us, peer) = self.role.ends();
        let (src, dst) = (self.config.macs[us], self.config.macs[peer]);
        let ethernet = Header { dst, src, vlan, ethertype: segment.family().ethertype() };
        let header_len = segment::header_len(vlan.is_some(), segment.family(), &segment.options);
        let text = self.text(segment.flags);
        frame.reset(header_len + text.len());
        frame.bytes_mut()[header_len..].copy_from_slice(text);
        self.ip_id = self.ip_id.wrapping_add(1);
        segment::emit(frame.bytes_mut(), &ethernet, segment, self.ip_id, self.config.ttl);
        self.counted.tx_packets += 1;
    }
}

impl Role {
    /// The places of this end and of the other in [`Config::macs`] and [`Config::addresses`].
    fn ends(&self) -> (usize, usize) {
        match self {
            Role::Client(_) => (0, 1),
            Role::Server => (1, 0),
        }
    }
}

impl<D> Drop for Floor<D> {
    fn drop(&mut self) {
        for burst in [&mut self.rx, &mut self.tx] {
            let count = burst.len();
            self.pool.umem().bury(burst.drain(count));
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::device::Report;
    use crate::device::link::{self, Link};
    use std::cell::RefCell;
    use std::rc::Rc;

    const MACS: [Mac; 2] = [Mac([2, 0, 0, 0, 0, 1]), Mac([2, 0, 0, 0, 0, 2])];
    const TURN: Span = Span::from_micros(10);

    /// Frames in the order in which they were sent, by either end.
    pub type Seen = Rc<RefCell<Vec<Vec<u8>>>>;

    /// A device that shows what is sent by it.
    pub struct Tap<D> {
        pub dev: D,
        pub seen: Seen,
    }

    impl<D: Device> Device for Tap<D> {
        fn rx(&mut self, now: Instant, pool: &mut Pool, rx: &mut Burst) {
            self.dev.rx(now, pool, rx);
        }
        fn tx(&mut self, now: Instant, pool: &mut Pool, tx: &mut Burst) {
            let waiting: Vec<_> = tx.frames().iter().map(|frame| frame.bytes().to_vec()).collect();
            self.dev.tx(now, pool, tx);
            let taken = waiting.len() - tx.len();
            self.seen.borrow_mut().extend(waiting.into_iter().take(taken));
        }
        fn lent(&self) -> usize {
            self.dev.lent()
        }
        fn report(&self) -> Report {
            self.dev.report()
        }
    }

    fn text() -> Exchange {
        Exchange::Text { request: (*b"question?").into(), response: (*b"answer").into() }
    }

    fn config(exchange: Exchange, in_flight: u32) -> Config {
        Config {
            macs: MACS,
            addresses: [[10, 0, 0, 1].into(), [10, 0, 0, 2].into()],
            first_port: 5000,
            last_port: 5002,
            server_port: 80,
            exchange,
            mss: 1460,
            window_scale: Some(3),
            sack_permitted: true,
            timestamp_origin_ms: Some(1000),
            syn_window: 65_535,
            window: 32_768,
            tos: 0,
            ttl: 64,
            verify: Verify::All,
            in_flight,
        }
    }

    struct Pair {
        client: Floor<Tap<Link>>,
        server: Floor<Tap<Link>>,
        seen: Seen,
        now: Instant,
    }

    impl Pair {
        fn new(config: Config) -> Pair {
            Pair::paced(config, None)
        }

        fn paced(config: Config, schedule: Option<Schedule>) -> Pair {
            let (ours, theirs) = Pool::pair(512).unwrap();
            let (near, far) = link::pair(ours.umem(), 256);
            let seen = Seen::default();
            let tap = |dev| Tap { dev, seen: Rc::clone(&seen) };
            Pair {
                client: Floor::client(tap(near), ours, config.clone(), schedule),
                server: Floor::server(tap(far), theirs, config),
                seen,
                now: Instant::ZERO,
            }
        }

        fn turns(&mut self, count: u32) {
            for _ in 0..count {
                self.now += TURN;
                self.client.turn(self.now);
                self.server.turn(self.now);
                assert_eq!((self.client.frames(), self.server.frames()), (512, 512));
            }
        }

        /// Puts bytes into the server's way.
        fn inject(&mut self, bytes: &[u8]) {
            let mut frame = self.client.pool.take().unwrap();
            frame.reset(bytes.len());
            frame.bytes_mut().copy_from_slice(bytes);
            self.client.tx.push(frame);
        }

        fn segments(&self) -> Vec<(Segment, Vec<u8>)> {
            self.seen.borrow().iter().map(|frame| segment_of(frame)).collect()
        }
    }

    /// A frame's segment, and its text.
    pub fn segment_of(frame: &[u8]) -> (Segment, Vec<u8>) {
        match segment::parse(frame, Verify::All) {
            Ok(Packet { body: Body::Tcp(segment), .. }) => {
                (segment, frame[usize::from(segment.payload_at)..].to_vec())
            }
            other => panic!("not TCP: {other:?}"),
        }
    }

    /// Goal: six legal segments a connection, in order, each field as it must be.
    fn holds_the_six(exchange: Exchange, expected: [(bool, Flags, &[u8]); 6]) {
        let mut pair = Pair::new(config(exchange, 1));
        pair.turns(30);
        let seen = pair.segments();
        assert!(seen.len() > 24);
        for (number, connection) in seen.chunks_exact(6).enumerate() {
            // What each end sends next, and has been sent: the client's and the server's.
            let mut next = [connection[0].0.seq, connection[1].0.seq];
            for (place, (segment, text)) in connection.iter().enumerate() {
                let (by_client, flags, said) = expected[place];
                let (us, peer) = if by_client { (0, 1) } else { (1, 0) };
                let syn = flags.has(Flags::SYN);
                let clock = Some((1000, if flags == Flags::SYN { 0 } else { 1000 }));
                let client_port = 5000 + (number % 3) as u16;
                let ports = [client_port, 80];
                let addresses: [IpAddr; 2] = [[10, 0, 0, 1].into(), [10, 0, 0, 2].into()];
                let right = Segment {
                    src: addresses[us],
                    dst: addresses[peer],
                    src_port: ports[us],
                    dst_port: ports[peer],
                    seq: next[us],
                    ack: if flags.has(Flags::ACK) { next[peer] } else { 0 },
                    flags,
                    window: if syn { 65_535 } else { 32_768 },
                    urgent: 0,
                    tos: 0,
                    options: Options {
                        mss: syn.then_some(1460),
                        window_scale: syn.then_some(3),
                        sack_permitted: syn,
                        timestamps: clock,
                        ..Options::default()
                    },
                    payload_at: 54 + if syn { 20 } else { 12 },
                    payload_len: said.len() as u16,
                };
                assert_eq!((segment, &text[..]), (&right, said), "segment {place} of {number}");
                next[us] = next[us].wrapping_add(segment.seq_len());
            }
        }
    }

    #[test]
    fn a_bare_connection_is_opened_and_closed_in_six_segments() {
        holds_the_six(
            Exchange::Bare,
            [
                (true, Flags::SYN, b""),
                (false, SYN_ACK, b""),
                (true, Flags::ACK, b""),
                (true, FIN_ACK, b""),
                (false, FIN_ACK, b""),
                (true, Flags::ACK, b""),
            ],
        );
    }

    #[test]
    fn a_connection_with_text_is_opened_served_and_closed_in_six_segments() {
        holds_the_six(
            text(),
            [
                (true, Flags::SYN, b""),
                (false, SYN_ACK, b""),
                (true, PSH_ACK, b"question?"),
                (false, FIN_PSH_ACK, b"answer"),
                (true, FIN_ACK, b""),
                (false, Flags::ACK, b""),
            ],
        );
    }

    #[test]
    fn as_many_as_asked_for_are_under_way_and_all_finish_after_the_stop() {
        for exchange in [Exchange::Bare, text()] {
            let mut pair = Pair::new(config(exchange, IN_FLIGHT_MAX));
            pair.turns(1000);
            assert!(pair.client.in_flight() > IN_FLIGHT_MAX - 64, "but for those of one burst");
            pair.client.stop();
            pair.turns(20);
            let (client, server) = (*pair.client.counted(), *pair.server.counted());
            assert!(client.finished > 1000);
            assert_eq!((pair.client.in_flight(), client.launched), (0, client.finished));
            assert_eq!(client.tx_packets + client.rx_packets, 6 * client.finished);
            assert_eq!(
                (client.tx_packets, client.rx_packets),
                (server.rx_packets, server.tx_packets)
            );
            let nothing = Counted { launched: 0, ..Counted::default() };
            for Counted { lost, malformed, strangers, late, shed, no_frame, .. } in [client, server]
            {
                let dropped =
                    Counted { lost, malformed, strangers, late, shed, no_frame, ..nothing };
                assert_eq!(dropped, nothing);
            }
        }
    }

    #[test]
    fn at_a_rate_each_is_launched_when_due_and_its_round_trip_counted_from_then() {
        let rate = 50_000.0;
        let mut pair = Pair::paced(config(Exchange::Bare, 8), Some(Schedule::new(rate, 7)));
        pair.turns(1000);
        let in_time = pair.client.opened().expect("it has a schedule").summary();
        assert!(in_time.count.abs_diff(500) <= 2, "10 ms at 50,000 a second: {in_time:?}");
        // Due up to a turn before its launch, and answered in the turn after that.
        assert!(
            (TURN..TURN.times(2) + Span::from_nanos(100)).contains(&in_time.p50),
            "{in_time:?}"
        );
        assert!(in_time.max <= TURN.times(2) + Span::from_nanos(100), "{in_time:?}");
        // Twenty came due while the client was away: the wait of each counts.
        pair.now += TURN.times(40);
        pair.turns(200);
        let behind = pair.client.opened().expect("as before").summary();
        assert!(behind.count.abs_diff(620) <= 3, "{behind:?}");
        assert!(behind.max > TURN.times(38), "{behind:?}");
        let beyond = pair.client.counted().launched - behind.count;
        assert!(beyond <= 1 && pair.client.counted().lost == 0, "none is forgotten");
    }

    #[test]
    fn the_malformed_and_strangers_are_counted_and_not_answered() {
        let mut pair = Pair::new(config(Exchange::Bare, 1));
        pair.turns(30);
        pair.client.stop();
        pair.turns(5);
        let syn = pair.seen.borrow()[0].clone();
        let sent = pair.server.counted.tx_packets;
        let mut damaged = syn.clone();
        damaged[54] ^= 1;
        let (wire, _) = segment::parse(&syn, Verify::All).map(|p| (p.ethernet, p.body)).unwrap();
        let (good, _) = segment_of(&syn);
        let written = |segment: Segment| {
            let mut frame = vec![0; syn.len()];
            segment::emit(&mut frame, &wire, &segment, 1, 64);
            frame
        };
        let strangers = [
            Segment { src: [10, 0, 0, 9].into(), ..good },
            Segment { dst: [10, 0, 0, 9].into(), ..good },
            Segment { dst_port: 81, ..good },
            Segment { flags: Flags::RST, ..good },
            Segment { flags: PSH_ACK, ..good },
        ];
        pair.inject(&damaged);
        pair.inject(&damaged[..33]);
        strangers.iter().for_each(|&stranger| pair.inject(&written(stranger)));
        pair.turns(2);
        let Counted { malformed, strangers, tx_packets, .. } = pair.server.counted;
        assert_eq!((malformed, strangers, tx_packets), (2, 5, sent));
        pair.inject(&syn);
        pair.turns(1);
        assert_eq!(pair.server.counted.tx_packets, sent + 1, "but the SYN itself is");
    }

    #[test]
    fn what_is_lost_is_given_up_and_made_up_for_and_what_comes_late_is_dropped() {
        let mut pair = Pair::new(config(Exchange::Bare, 8));
        // The first generation does not end with the first turn.
        pair.client.over_at = Instant::ZERO + PATIENCE;
        pair.turns(1);
        let is_answer = |frame: &&Vec<u8>| segment_of(frame).0.flags == SYN_ACK;
        let late = pair.seen.borrow().iter().find(is_answer).cloned();
        let late = late.expect("the SYN was answered");
        // All eight SYN-ACKs go astray.
        let count = pair.server.dev.dev.lent();
        assert!(count >= 8);
        let mut astray = Burst::new();
        pair.client.dev.rx(pair.now, &mut pair.client.pool, &mut astray);
        for frame in astray.drain(8) {
            pair.client.pool.put(frame);
        }
        pair.turns(10);
        assert_eq!((pair.client.in_flight(), pair.client.counted().finished), (8, 0));
        pair.now += PATIENCE;
        pair.turns(1);
        assert_eq!(pair.client.counted().lost, 0, "of the generation before");
        pair.now += PATIENCE;
        pair.turns(11);
        let Counted { lost, finished, late: dropped, .. } = *pair.client.counted();
        assert_eq!((lost, dropped, pair.client.in_flight()), (8, 0, 8));
        assert!(finished > 8);
        let mut frame = pair.server.pool.take().unwrap();
        frame.reset(late.len());
        frame.bytes_mut().copy_from_slice(&late);
        pair.server.tx.push(frame);
        pair.turns(3);
        assert_eq!((pair.client.counted().late, pair.client.in_flight()), (1, 8));
    }

    #[test]
    fn what_finds_no_room_for_its_answer_waits_and_at_last_is_shed() {
        let mut pair = Pair::new(config(Exchange::Bare, 100));
        // A client that does not receive: the server's answers fill ring and burst.
        for _ in 0..400 {
            pair.now += PATIENCE.over(50);
            pair.client.launch(pair.now);
            pair.client.dev.tx(pair.now, &mut pair.client.pool, &mut pair.client.tx);
            if let Role::Client(launches) = &mut pair.client.role {
                launches.next_generation();
                launches.next_generation();
            }
            pair.server.turn(pair.now);
            assert_eq!(pair.server.frames(), 512);
        }
        assert!(pair.server.counted().shed > 0);
        for _ in 0..20 {
            pair.now += PATIENCE.over(4);
            pair.turns(50);
        }
        assert!(pair.client.counted().finished > 1000, "and then it goes on");
    }

    #[test]
    fn the_memory_goes_with_both_ends() {
        let mut pair = Pair::new(config(text(), 100));
        pair.turns(7);
        let umem = pair.client.pool.umem().clone();
        drop(pair);
        assert_eq!(umem.buried(), umem.chunks());
    }
}
