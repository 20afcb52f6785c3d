//! A socket, and the engine's application that is all of them: buffers, what the peer did, and how
//! it ended. What a call may do with that is in `calls`.
//!
//! A connection's state in the engine is the number of its socket. A connection that came of a
//! listener gets its socket when it is established, and the socket a descriptor when it is
//! accepted; a socket goes when it has neither descriptor nor connection.

use crate::address::Domain;
use shakedown::app::{App, Conn};
use shakedown::flow::{Endpoints, FlowKey};
use shakedown::tcp::{End, Keepalive};
use shakedown::time::{Instant, Span};
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;

/// A socket's number; none for a connection that is not established yet.
pub type Id = Option<u32>;

/// Where a socket stands. The connection's own state is the engine's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Phase {
    /// No connection.
    Idle,
    /// `place` is the engine's name of the listener; `pending` waits for accept.
    Listening {
        place: u16,
        backlog: usize,
        pending: VecDeque<u32>,
    },
    Connecting,
    /// `told`: connect has answered.
    Connected {
        told: bool,
    },
    /// There was one, and it is over, or in TIME-WAIT.
    Over,
}

/// What setsockopt sets; a listener's go over to the connections that it accepts.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    pub reuse_address: bool,
    pub reuse_port: bool,
    pub no_delay: bool,
    pub keepalive: Option<Keepalive>,
    /// What `keepalive` is when it is on.
    pub keepalive_when_on: Keepalive,
    /// Seconds.
    pub linger: Option<i32>,
    pub receive_buffer_bytes: u32,
    pub send_buffer_bytes: u32,
    pub receive_timeout: Option<Span>,
    pub send_timeout: Option<Span>,
}

/// One socket.
#[derive(Debug)]
pub struct Socket {
    pub domain: Domain,
    pub settings: Settings,
    pub nonblocking: bool,
    pub bound: Option<SocketAddr>,
    pub phase: Phase,
    pub ends: Option<Endpoints>,
    /// Somebody may still ask for it: a descriptor, or a listener's list.
    pub held: bool,
    /// It was established.
    pub established: bool,
    /// What the peer sent and nobody has read.
    pub received: VecDeque<u8>,
    /// The peer's FIN arrived behind it.
    pub peer_closed: bool,
    /// What was written and is not acknowledged, from stream offset `acked` on.
    pub sent: VecDeque<u8>,
    acked: u64,
    pub shut_receive: bool,
    pub shut_send: bool,
    /// To be reported once: `SO_ERROR`.
    pub error: Option<i32>,
    /// Grows with everything that a poll may want to hear of.
    pub activity: u64,
}

/// Every socket.
pub struct Sockets {
    pub all: BTreeMap<u32, Socket>,
    /// Accepted connections whose addresses the engine has still to tell.
    pub unnamed: Vec<(u32, FlowKey)>,
    settings: Settings,
    next: u32,
}

impl Socket {
    fn new(domain: Domain, settings: Settings) -> Socket {
        Socket {
            domain,
            settings,
            nonblocking: false,
            bound: None,
            phase: Phase::Idle,
            ends: None,
            held: true,
            established: false,
            received: VecDeque::new(),
            peer_closed: false,
            sent: VecDeque::new(),
            acked: 0,
            shut_receive: false,
            shut_send: false,
            error: None,
            activity: 0,
        }
    }

    /// Forgets the last attempt, so that another can be made.
    pub fn start_again(&mut self) {
        let fresh = Socket::new(self.domain, self.settings);
        let Socket { nonblocking, bound, held, activity, .. } = *self;
        *self = Socket { nonblocking, bound, held, activity, ..fresh };
    }

    /// Bytes that may be written now.
    pub fn send_room(&self) -> usize {
        (self.settings.send_buffer_bytes as usize).saturating_sub(self.sent.len())
    }
}

impl Sockets {
    pub fn new((receive_buffer_bytes, send_buffer_bytes): (u32, u32)) -> Sockets {
        let settings = Settings {
            reuse_address: false,
            reuse_port: false,
            no_delay: false,
            keepalive: None,
            keepalive_when_on: Keepalive::default(),
            linger: None,
            receive_buffer_bytes,
            send_buffer_bytes,
            receive_timeout: None,
            send_timeout: None,
        };
        Sockets { all: BTreeMap::new(), unnamed: Vec::new(), settings, next: 0 }
    }

    pub fn open(&mut self, domain: Domain) -> u32 {
        self.insert(Socket::new(domain, self.settings))
    }

    /// # Panics
    /// If there is none: whoever has the number holds the socket.
    pub fn of(&mut self, id: u32) -> &mut Socket {
        self.all.get_mut(&id).expect("a held socket is there")
    }

    /// Nobody asks for it any more: it goes, now or with its connection.
    pub fn let_go(&mut self, id: u32) {
        let socket = self.of(id);
        socket.held = false;
        if !matches!(socket.phase, Phase::Connecting | Phase::Connected { .. }) {
            self.all.remove(&id);
        }
    }

    /// The engine told the addresses of an accepted connection.
    pub fn name(&mut self, id: u32, ends: Endpoints) {
        if let Some(socket) = self.all.get_mut(&id) {
            socket.ends = Some(ends);
            socket.bound = Some(ends.local);
        }
    }

    fn insert(&mut self, socket: Socket) -> u32 {
        let id = self.next;
        self.next += 1;
        self.all.insert(id, socket);
        id
    }

    fn find(&mut self, id: Id) -> Option<&mut Socket> {
        self.all.get_mut(&id?)
    }

    /// The listener's new connection; `None` if it is closed, or as many as it was to keep wait.
    fn accepted(&mut self, place: u16, key: FlowKey) -> Id {
        let listener = self.all.iter().find_map(|(id, socket)| match &socket.phase {
            // As Linux counts: one more than the backlog.
            Phase::Listening { place: of, backlog, pending } if *of == place => {
                (pending.len() <= *backlog).then_some(*id)
            }
            _ => None,
        })?;
        let (domain, settings) = (self.of(listener).domain, self.of(listener).settings);
        let child = self.insert(Socket {
            phase: Phase::Connected { told: true },
            established: true,
            ..Socket::new(domain, settings)
        });
        let socket = self.of(listener);
        socket.activity += 1;
        if let Phase::Listening { pending, .. } = &mut socket.phase {
            pending.push_back(child);
        }
        self.unnamed.push((child, key));
        Some(child)
    }
}

impl App for Sockets {
    type State = Id;
    type Idle = ();

    fn established(&mut self, conn: &mut Conn<'_, Id>) {
        match self.find(*conn.state) {
            Some(socket) => {
                socket.phase = Phase::Connected { told: false };
                socket.established = true;
                socket.activity += 1;
            }
            None => match self.accepted(conn.listener(), conn.key()) {
                Some(child) => *conn.state = Some(child),
                None => conn.abort(),
            },
        }
    }

    fn received(&mut self, conn: &mut Conn<'_, Id>, data: &[u8]) {
        match self.find(*conn.state) {
            Some(socket) if socket.held => {
                socket.received.extend(data);
                socket.activity += 1;
            }
            // RFC 9293 s3.6.1, SHLD-3: "if new data is received after CLOSE is called, its TCP
            // implementation SHOULD send a RST to show that data was lost".
            Some(_) | None => conn.abort(),
        }
    }

    fn peer_closed(&mut self, conn: &mut Conn<'_, Id>) {
        let Some(socket) = self.find(*conn.state) else { return };
        socket.peer_closed = true;
        socket.activity += 1;
    }

    fn acknowledged(&mut self, conn: &mut Conn<'_, Id>, acked: u64) {
        let Some(socket) = self.find(*conn.state) else { return };
        let count = (acked - socket.acked) as usize;
        socket.sent.drain(..count);
        socket.acked = acked;
        socket.activity += 1;
    }

    fn ended(&mut self, _now: Instant, state: &mut Id, end: End) {
        let Some(socket) = self.find(*state) else { return };
        let error = match end {
            End::Finished | End::FinWait2Timeout | End::Aborted => None,
            // As Linux: the peer had nothing more to say, so it is our sending that broke.
            End::Reset if socket.peer_closed => Some(libc::EPIPE),
            End::Reset => Some(libc::ECONNRESET),
            End::Refused => Some(libc::ECONNREFUSED),
            // The next hop always answers here: it was an ICMP message, to our SYN.
            End::Unreachable => Some(libc::ECONNREFUSED),
            End::SynTimeout | End::DataTimeout | End::KeepaliveTimeout => Some(libc::ETIMEDOUT),
        };
        socket.error = error;
        socket.phase = Phase::Over;
        // A FIN that led to TIME-WAIT, or to nothing, is told by the end alone.
        socket.peer_closed |= end == End::Finished;
        socket.sent.clear();
        socket.activity += 1;
        if !socket.held {
            let id = state.expect("it was found by its number");
            self.all.remove(&id);
        }
    }

    fn payload(&self, state: &Id, offset: u64, out: &mut [u8]) {
        let Some(socket) = state.and_then(|id| self.all.get(&id)) else { return };
        let from = (offset - socket.acked) as usize;
        for (to, byte) in out.iter_mut().zip(socket.sent.range(from..)) {
            *to = *byte;
        }
    }

    fn window(&self, state: &Id) -> u32 {
        match state.and_then(|id| self.all.get(&id)) {
            Some(socket) => {
                let kept = socket.received.len() as u32;
                socket.settings.receive_buffer_bytes.saturating_sub(kept)
            }
            None => u32::MAX,
        }
    }

    fn keepalive(&self, state: &Id, usual: Option<Keepalive>) -> Option<Keepalive> {
        let socket = state.and_then(|id| self.all.get(&id));
        socket.map_or(usual, |socket| socket.settings.keepalive)
    }
}
