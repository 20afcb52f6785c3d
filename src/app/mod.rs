//! What a connection is for. A behaviour never sees a packet or a buffer: it is told what happened
//! and *marks what the connection owes* through [`Conn`]; the engine sends it when there is room.
//!
//! What a behaviour sends is a pure function of (its state, stream offset): [`App::payload`] is
//! asked for any range at any time until that range is acknowledged, so there is no send buffer and
//! a retransmission costs nothing to keep.
//!
//! [`server::Server`] and [`client::Client`] are the two applications; each is one match over its
//! behaviours, and each behaviour is a file of its own: functions from (state, event) to [`Owes`],
//! that know neither the others nor a `Conn`.

mod accept;
mod chargen;
pub mod client;
mod discard;
mod echo;
mod get;
mod halfclose;
mod head;
mod http;
mod load;
pub mod pattern;
pub mod results;
mod rr;
pub mod schedule;
pub mod server;
pub mod stream;
mod transfer;

use crate::flow::FlowKey;
use crate::tcp::{End, Keepalive};
use crate::time::Instant;

/// One engine's application: a server's listeners, or a client's workload.
pub trait App {
    /// What the behaviour keeps for one connection.
    type State: Copy + Default;

    /// What it keeps of that for an idle connection, in less memory; `()` if it never does.
    type Idle: Copy;

    /// The connection is ESTABLISHED. A client's request marked here rides on the handshake's last
    /// ACK.
    fn established(&mut self, conn: &mut Conn<'_, Self::State>);

    /// `data` arrived in order; it is gone after the call. Never more than [`App::window`]
    /// promised.
    fn received(&mut self, conn: &mut Conn<'_, Self::State>, data: &[u8]);

    /// Urgent data begins or goes on further: it ends `bytes` past what was delivered (RFC 9293
    /// s3.8.5, MUST-32, MUST-33). It comes by [`App::received`] like all other data.
    fn urgent(&mut self, _conn: &mut Conn<'_, Self::State>, _bytes: u32) {}

    /// The peer sent FIN: no more data will come. The connection stays open for sending
    /// (CLOSE-WAIT) until [`Conn::close`].
    fn peer_closed(&mut self, conn: &mut Conn<'_, Self::State>);

    /// Everything up to stream offset `acked` has been acknowledged; payload below it is never
    /// asked for again. The ACK that ends the connection is told as [`App::ended`] alone.
    fn acknowledged(&mut self, conn: &mut Conn<'_, Self::State>, acked: u64);

    /// What was sent has gone unanswered for R1 retransmissions (RFC 9293 s3.8.3, SHLD-9); it goes
    /// on being sent.
    #[inline]
    fn stalled(&mut self, _conn: &mut Conn<'_, Self::State>) {}

    /// The connection is over (TIME-WAIT counts as over) for this reason; also called for attempts
    /// that never got ESTABLISHED. Called exactly once a connection. `state` is dropped afterwards.
    fn ended(&mut self, now: Instant, state: &mut Self::State, end: End);

    /// Writes the payload bytes at stream offsets `offset..offset + out.len()`: bytes that were
    /// marked by [`Conn::send`] and are not acknowledged.
    fn payload(&self, state: &Self::State, offset: u64, out: &mut [u8]);

    /// What is to be kept of an idle connection; `None` if all of the state is needed. Nothing is
    /// told and nothing asked of the connection until [`App::wake`].
    fn rest(&self, _state: &Self::State) -> Option<Self::Idle> {
        None
    }

    /// The state of a connection again of which `idle` was kept.
    fn wake(&self, _idle: Self::Idle) -> Self::State {
        Self::State::default()
    }

    /// Bytes the behaviour can take now: bounds the receive window we advertise. `u32::MAX` if it
    /// keeps nothing.
    fn window(&self, _state: &Self::State) -> u32 {
        u32::MAX
    }

    /// The connection's keepalive, where it is not the `usual` one of its listener or of the client
    /// (RFC 9293 s3.8.4, MUST-24: "applications MUST be able to turn keep-alives on or off for each
    /// TCP connection").
    fn keepalive(&self, _state: &Self::State, usual: Option<Keepalive>) -> Option<Keepalive> {
        usual
    }

    /// Whether Nagle's algorithm holds small segments of this connection back, where that is not as
    /// `usual` (RFC 9293 s3.7.4, MUST-17: "there MUST be a way for an application to disable the
    /// Nagle algorithm on an individual connection").
    #[inline]
    fn nagle(&self, _state: &Self::State, usual: bool) -> bool {
        usual
    }

    /// Times that data or FIN of this connection is sent again before it is given up, where that is
    /// not the `usual` number: R2 (RFC 9293 s3.8.3, MUST-21: "an application MUST be able to set
    /// the value for R2 for a particular connection").
    fn data_retries(&self, _state: &Self::State, usual: u8) -> u8 {
        usual
    }

    /// An ICMP error came about text in flight: a route may be down for a moment (RFC 9293
    /// s3.9.2.2, MUST-47). Whoever does not listen has silenced it (SHLD-20).
    fn soft_error(&mut self, _conn: &mut Conn<'_, Self::State>, _error: SoftError) {}

    /// The differentiated services code point of what is sent on this connection from here on,
    /// where that is not the `usual` one (RFC 9293 s3.9.1.9, SHLD-21).
    #[inline]
    fn dscp(&self, _state: &Self::State, usual: u8) -> u8 {
        usual
    }

    /// A client says here when it wants a connection opened now; asked again after each until
    /// `None`, within a bound a turn. A server never does.
    fn launch(&mut self, _now: Instant) -> Option<Launch<Self::State>> {
        None
    }

    /// A launch could not be made, for this reason. The engine has counted it.
    fn refused(&mut self, _now: Instant, _state: &mut Self::State, _why: Refusal) {}

    /// When `launch` will next want something; it is not asked before. `NEVER` if it waits for
    /// something else.
    fn next_launch(&self, _now: Instant) -> Instant {
        Instant::NEVER
    }

    /// No new connections from here on: launches stop, idle connections are to be closed by
    /// [`App::drain`].
    fn stop(&mut self) {}

    /// Asked once for each live connection when the run is stopping: close it if nothing is under
    /// way on it.
    fn drain(&mut self, conn: &mut Conn<'_, Self::State>) {
        conn.close();
    }
}

/// What an ICMP error says that does not end a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SoftError {
    /// The network or the host can't be reached, or nobody may.
    Unreachable,
    TimeExceeded,
    ParameterProblem,
    /// Nobody speaks the protocol or listens at the port: hard while a connection opens, doubtful
    /// once it is open.
    Refused,
}

/// A connection to be opened: by whom the four-tuple is chosen, the engine knows.
#[derive(Clone, Copy, Debug)]
pub struct Launch<S> {
    pub state: S,
}

/// Why a connection was not launched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Every four-tuple of the configured ranges is in use or in TIME-WAIT.
    NoTuple,
    /// The connection table is full.
    TableFull,
    /// The target is a group, everyone or nobody: no single host (RFC 9293 s3.9.1.1, MUST-46).
    NotAHost,
}

/// A connection, as a behaviour sees it during a call.
pub struct Conn<'a, S> {
    /// The behaviour's own state of this connection.
    pub state: &'a mut S,
    now: Instant,
    key: FlowKey,
    listener: u16,
    owes: Owes,
}

/// What a behaviour marked in one call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Owes {
    /// More payload bytes to send.
    pub bytes: u64,
    /// All payload up to here is urgent (RFC 9293 s3.8.5).
    pub urgent: bool,
    /// Payload that was promised and not yet sent is not sent any more.
    pub curtail: bool,
    /// FIN after all payload.
    pub close: bool,
    /// RST now; payload not yet sent is forgotten.
    pub abort: bool,
}

impl Owes {
    pub const NOTHING: Owes =
        Owes { bytes: 0, urgent: false, curtail: false, close: false, abort: false };
    pub const CURTAIL: Owes = Owes { curtail: true, ..Owes::NOTHING };
    pub const CLOSE: Owes = Owes { close: true, ..Owes::NOTHING };
    pub const ABORT: Owes = Owes { abort: true, ..Owes::NOTHING };

    /// So many more payload bytes.
    pub const fn send(bytes: u64) -> Owes {
        Owes { bytes, ..Owes::NOTHING }
    }

    /// True if nothing was marked.
    pub const fn is_nothing(&self) -> bool {
        self.bytes == 0 && !(self.urgent | self.curtail | self.close | self.abort)
    }

    /// Both.
    #[must_use]
    pub const fn and(self, more: Owes) -> Owes {
        Owes {
            bytes: self.bytes.saturating_add(more.bytes),
            urgent: self.urgent | more.urgent,
            curtail: self.curtail | more.curtail,
            close: self.close | more.close,
            abort: self.abort | more.abort,
        }
    }
}

impl<'a, S> Conn<'a, S> {
    /// For the engine, and for tests of behaviours.
    pub fn new(state: &'a mut S, now: Instant, key: FlowKey, listener: u16) -> Conn<'a, S> {
        Conn { state, now, key, listener, owes: Owes::default() }
    }

    /// Promises `bytes` more payload bytes, which `App::payload` will supply; `u64::MAX` are as
    /// many as there can be. Ignored once the connection was closed.
    pub fn send(&mut self, bytes: u64) {
        self.owes.bytes = self.owes.bytes.saturating_add(bytes);
    }

    /// Takes back what was promised and not yet sent: the stream ends where it is. With
    /// [`Conn::close`], FIN follows the last byte that was sent.
    pub fn curtail(&mut self) {
        self.owes.curtail = true;
    }

    /// All payload promised up to here is urgent: the peer is told where it ends (RFC 9293 s3.8.5,
    /// MUST-30). New applications should not need it (SHLD-13).
    pub fn urge(&mut self) {
        self.owes.urgent = true;
    }

    /// No more payload: FIN follows the last promised byte (RFC 9293 s3.10.4). Data may still
    /// arrive.
    pub fn close(&mut self) {
        self.owes.close = true;
    }

    /// Ends the connection by RST (RFC 9293 s3.10.5). Marked in [`App::established`], the ACK that
    /// completes the handshake goes first: the peer is to see a connection, then its end.
    pub fn abort(&mut self) {
        self.owes.abort = true;
    }

    /// Marks all of `owes`.
    pub fn owe(&mut self, owes: Owes) {
        self.owes = self.owes.and(owes);
    }

    pub fn now(&self) -> Instant {
        self.now
    }

    /// Which connection it is; the engine knows what the key
    /// stands for.
    pub fn key(&self) -> FlowKey {
        self.key
    }

    /// Index of the listener that accepted it, in the order of the configuration; `u16::MAX` if we
    /// opened it.
    pub fn listener(&self) -> u16 {
        self.listener
    }

    /// What was marked, for the engine and for tests of behaviours.
    pub fn owes(&self) -> Owes {
        self.owes
    }
}
