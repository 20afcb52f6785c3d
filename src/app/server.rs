//! The server's application: each listener has a service, and each event goes to the behaviour of
//! its connection.

use super::results::Served;
use super::{App, Conn, Owes, accept, chargen, discard, echo, halfclose, http, stream};
use crate::tcp::End;
use crate::time::Instant;

/// What a listener does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// Answers each request with `response_size` bytes.
    Http { response_size: u64 },
    /// Closes as soon as the handshake is done.
    Accept,
    /// Sends back what it receives.
    Echo,
    /// Reads and says nothing.
    Discard,
    /// Sends for ever.
    Chargen,
    /// Reads to the peer's FIN, then says `BYE` and closes.
    HalfClose,
    /// Receives and sends as many bytes as the client orders, and verifies them.
    Stream,
}

/// A server's listeners and what they share.
pub struct Server {
    services: Vec<Service>,
    /// The site of each listener; those of other services than `http` are never asked.
    sites: Vec<http::Site>,
    rings: echo::Rings,
    /// Window before a connection has its behaviour: what the narrowest service can take.
    window_min: u32,
    stopping: bool,
    served: Served,
}

/// A connection of a server.
#[derive(Clone, Copy, Debug, Default)]
pub enum State {
    /// Not established.
    #[default]
    New,
    /// With the index of its site.
    Http(u16, http::State),
    Accept,
    Echo(echo::State),
    /// No ring was free: aborted.
    EchoRefused,
    Discard,
    Chargen(chargen::State),
    HalfClose,
    Stream(stream::State),
}

const _: () = assert!(size_of::<State>() <= 48);

/// A connection of a server that has nothing under way.
#[derive(Clone, Copy, Debug)]
pub enum Idle {
    /// Between requests, with what was promised so far.
    Http(u16, u64),
    Discard,
    HalfClose,
}

const _: () = assert!(size_of::<Idle>() <= 16);

impl Server {
    /// A server with a service for each listener, in the order of the engine's configuration.
    /// Memory for echo's rings is reserved here, for up to `connections_max` connections at a time.
    pub fn new(services: Vec<Service>, connections_max: u32) -> Server {
        let site = |service: &Service| match *service {
            Service::Http { response_size } => http::Site::new(response_size),
            Service::Accept
            | Service::Echo
            | Service::Discard
            | Service::Chargen
            | Service::HalfClose
            | Service::Stream => http::Site::new(0),
        };
        let echoes = services.contains(&Service::Echo);
        Server {
            sites: services.iter().map(site).collect(),
            services,
            rings: echo::Rings::new(if echoes { connections_max } else { 0 }),
            window_min: if echoes { echo::RING_BYTES } else { u32::MAX },
            stopping: false,
            served: Served::default(),
        }
    }

    /// What was served so far.
    pub fn served(&self) -> &Served {
        &self.served
    }

    /// Echo rings that no connection holds; a leak would show here.
    pub fn echo_rings_free(&self) -> usize {
        self.rings.free()
    }

    fn echo(&mut self) -> (State, Owes) {
        match echo::State::new(&mut self.rings) {
            Some(state) => (State::Echo(state), Owes::NOTHING),
            None => {
                self.served.echo_refused += 1;
                (State::EchoRefused, Owes::ABORT)
            }
        }
    }

    /// What is owed by a connection that came while the run is stopping.
    fn drain_new(state: &mut State) -> Owes {
        match state {
            State::Http(_, state) => {
                state.stop();
                Owes::NOTHING
            }
            state => Server::drain_at_once(state),
        }
    }

    /// What is owed by a connection of a behaviour with nothing to wait for.
    fn drain_at_once(state: &mut State) -> Owes {
        match state {
            State::New | State::Http(..) | State::Accept | State::EchoRefused | State::Discard => {
                Owes::CLOSE
            }
            State::Echo(state) => state.peer_closed(),
            State::Chargen(state) => state.peer_closed(),
            State::HalfClose => halfclose::drain(),
            State::Stream(state) => state.stop(),
        }
    }
}

impl App for Server {
    type State = State;
    type Idle = Idle;

    fn established(&mut self, conn: &mut Conn<'_, State>) {
        self.served.established += 1;
        let listener = conn.listener();
        let (state, owes) = match self.services[usize::from(listener)] {
            Service::Http { .. } => (State::Http(listener, http::State::default()), Owes::NOTHING),
            Service::Accept => (State::Accept, accept::established()),
            Service::Echo => self.echo(),
            Service::Discard => (State::Discard, Owes::NOTHING),
            Service::Chargen => {
                let mut state = chargen::State::default();
                let owes = state.established();
                (State::Chargen(state), owes)
            }
            Service::HalfClose => (State::HalfClose, Owes::NOTHING),
            Service::Stream => (State::Stream(stream::State::default()), Owes::NOTHING),
        };
        *conn.state = state;
        conn.owe(owes);
        if self.stopping {
            let owes = Server::drain_new(conn.state);
            conn.owe(owes);
        }
    }

    fn received(&mut self, conn: &mut Conn<'_, State>, data: &[u8]) {
        let owes = match conn.state {
            State::Http(site, state) => {
                self.sites[usize::from(*site)].received(state, data, &mut self.served.http)
            }
            State::Echo(state) => state.received(&mut self.rings, data),
            State::Stream(state) => state.received(data, &mut self.served.stream),
            State::New
            | State::Accept
            | State::EchoRefused
            | State::Discard
            | State::Chargen(_)
            | State::HalfClose => Owes::NOTHING,
        };
        conn.owe(owes);
    }

    fn peer_closed(&mut self, conn: &mut Conn<'_, State>) {
        let owes = match conn.state {
            State::Http(..) => http::peer_closed(),
            State::Echo(state) => state.peer_closed(),
            State::Chargen(state) => state.peer_closed(),
            State::Discard => discard::peer_closed(),
            State::HalfClose => halfclose::peer_closed(),
            State::Stream(state) => state.peer_closed(),
            State::New | State::Accept | State::EchoRefused => Owes::CLOSE,
        };
        conn.owe(owes);
    }

    fn acknowledged(&mut self, conn: &mut Conn<'_, State>, acked: u64) {
        let owes = match conn.state {
            State::Echo(state) => {
                state.acknowledged(acked);
                Owes::NOTHING
            }
            State::Chargen(state) => state.acknowledged(acked),
            State::New
            | State::Http(..)
            | State::Accept
            | State::EchoRefused
            | State::Discard
            | State::HalfClose
            | State::Stream(_) => Owes::NOTHING,
        };
        conn.owe(owes);
    }

    fn ended(&mut self, _now: Instant, state: &mut State, end: End) {
        self.served.ended.count(end);
        match state {
            State::Echo(state) => state.ended(&mut self.rings),
            State::New
            | State::Http(..)
            | State::Accept
            | State::EchoRefused
            | State::Discard
            | State::Chargen(_)
            | State::HalfClose
            | State::Stream(_) => {}
        }
    }

    fn payload(&self, state: &State, offset: u64, out: &mut [u8]) {
        match state {
            State::Http(site, state) => self.sites[usize::from(*site)].payload(state, offset, out),
            State::Echo(state) => state.payload(&self.rings, offset, out),
            State::Chargen(_) => chargen::payload(offset, out),
            State::HalfClose => halfclose::payload(offset, out),
            State::Stream(state) => state.payload(offset, out),
            State::New | State::Accept | State::EchoRefused | State::Discard => {
                unreachable!("nothing was promised")
            }
        }
    }

    fn rest(&self, state: &State) -> Option<Idle> {
        match state {
            State::Http(site, state) => state.rest().map(|promised| Idle::Http(*site, promised)),
            State::Discard => Some(Idle::Discard),
            State::HalfClose => Some(Idle::HalfClose),
            // Who is new, or sends, is never idle for long; an echo's ring is far more than a slot.
            State::New
            | State::Accept
            | State::Echo(_)
            | State::EchoRefused
            | State::Chargen(_)
            | State::Stream(_) => None,
        }
    }

    fn wake(&self, idle: Idle) -> State {
        match idle {
            Idle::Http(site, promised) => State::Http(site, http::State::woken(promised)),
            Idle::Discard => State::Discard,
            Idle::HalfClose => State::HalfClose,
        }
    }

    fn window(&self, state: &State) -> u32 {
        match state {
            State::New => self.window_min,
            State::Echo(state) => state.window(),
            State::Http(..)
            | State::Accept
            | State::EchoRefused
            | State::Discard
            | State::Chargen(_)
            | State::HalfClose
            | State::Stream(_) => u32::MAX,
        }
    }

    fn stop(&mut self) {
        self.stopping = true;
    }

    fn drain(&mut self, conn: &mut Conn<'_, State>) {
        let owes = match &mut *conn.state {
            // It is served as one that comes now, once it is established.
            State::New => Owes::NOTHING,
            State::Http(site, state) => self.sites[usize::from(*site)].drain(state),
            state => Server::drain_at_once(state),
        };
        conn.owe(owes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::FlowKey;

    const ALL: [Service; 7] = [
        Service::Http { response_size: 3 },
        Service::Accept,
        Service::Echo,
        Service::Discard,
        Service::Chargen,
        Service::HalfClose,
        Service::Stream,
    ];

    /// One connection to listener `listener` of a server, driven by hand.
    struct Peer {
        server: Server,
        state: State,
        listener: u16,
    }

    impl Peer {
        fn new(listener: u16) -> Peer {
            Peer { server: Server::new(ALL.to_vec(), 2), state: State::New, listener }
        }

        fn event(&mut self, act: impl FnOnce(&mut Server, &mut Conn<'_, State>)) -> Owes {
            let key = FlowKey::v4(([10, 0, 0, 2], 80), ([10, 0, 0, 1], 4000));
            let mut conn = Conn::new(&mut self.state, Instant::ZERO, key, self.listener);
            act(&mut self.server, &mut conn);
            conn.owes()
        }

        fn established(&mut self) -> Owes {
            self.event(Server::established)
        }

        fn received(&mut self, data: &[u8]) -> Owes {
            self.event(|server, conn| server.received(conn, data))
        }

        fn payload(&self, offset: u64, bytes: usize) -> Vec<u8> {
            let mut out = vec![0; bytes];
            self.server.payload(&self.state, offset, &mut out);
            out
        }
    }

    #[test]
    fn each_service_answers_the_handshake_data_and_fin_in_its_way() {
        let say = |bytes| Owes::send(bytes);
        let response = http::Site::new(3).received(
            &mut http::State::default(),
            b"GET / HTTP/1.1\r\n\r\n",
            &mut http::Served::default(),
        );
        let table = [
            (0, Owes::NOTHING, response, Owes::CLOSE),
            (1, Owes::CLOSE, Owes::NOTHING, Owes::CLOSE),
            (2, Owes::NOTHING, say(18), Owes::CLOSE),
            (3, Owes::NOTHING, Owes::NOTHING, Owes::CLOSE),
            (4, say(1 << 20), Owes::NOTHING, Owes::CLOSE),
            (5, Owes::NOTHING, Owes::NOTHING, say(4).and(Owes::CLOSE)),
            (6, Owes::NOTHING, Owes::ABORT, Owes::CURTAIL.and(Owes::CLOSE)),
        ];
        for (listener, established, received, peer_closed) in table {
            let mut peer = Peer::new(listener);
            assert_eq!(peer.established(), established, "{listener}");
            assert_eq!(peer.received(b"GET / HTTP/1.1\r\n\r\n"), received, "{listener}");
            assert_eq!(peer.event(Server::peer_closed), peer_closed, "{listener}");
        }
    }

    #[test]
    fn the_bytes_of_each_service_are_its_own() {
        let mut echo = Peer::new(2);
        echo.established();
        echo.received(b"over there");
        assert_eq!(echo.payload(5, 5), b"there");
        let mut goodbye = Peer::new(5);
        goodbye.established();
        assert_eq!(goodbye.payload(0, 4), b"BYE\n");
        let mut chargen = Peer::new(4);
        chargen.established();
        assert_eq!(chargen.payload(0, 4), b" !\"#");
    }

    #[test]
    fn a_connection_that_finds_no_ring_is_aborted_and_counted_and_the_others_give_theirs_back() {
        let mut peer = Peer::new(2);
        let mut states = [State::New; 3];
        for state in &mut states {
            peer.state = *state;
            peer.established();
            *state = peer.state;
        }
        assert!(matches!(states[2], State::EchoRefused));
        assert_eq!(peer.received(b"x"), Owes::NOTHING);
        assert_eq!(peer.server.served().echo_refused, 1);
        for state in &mut states {
            peer.server.ended(Instant::ZERO, state, End::Finished);
        }
        assert_eq!(peer.server.echo_rings_free(), 2);
        assert_eq!(peer.server.served().ended.of(End::Finished), 3);
    }

    #[test]
    fn before_it_is_established_a_connection_is_promised_what_an_echo_can_take() {
        let peer = Peer::new(0);
        assert_eq!(peer.server.window(&State::New), echo::RING_BYTES);
        assert_eq!(Server::new(vec![Service::Discard], 10).window(&State::New), u32::MAX);
    }

    #[test]
    fn draining_closes_every_idle_connection_and_new_ones_get_one_answer() {
        for (listener, _) in ALL.iter().enumerate() {
            let mut peer = Peer::new(listener as u16);
            peer.established();
            assert!(peer.event(Server::drain).close, "{listener}");
        }
        let mut peer = Peer::new(0);
        peer.server.stop();
        assert_eq!(peer.established(), Owes::NOTHING);
        assert!(peer.received(b"GET / HTTP/1.1\r\n\r\n").close);
    }

    #[test]
    fn a_connection_that_is_opening_when_the_run_stops_gets_its_answer_too() {
        let mut peer = Peer::new(0);
        peer.server.stop();
        assert_eq!(peer.event(Server::drain), Owes::NOTHING, "a promise after CLOSE is ignored");
        assert_eq!(peer.established(), Owes::NOTHING);
        let owes = peer.received(b"GET / HTTP/1.1\r\n\r\n");
        assert!(owes.bytes > 0 && owes.close);
        for (listener, _) in ALL.iter().enumerate().skip(1) {
            let mut peer = Peer::new(listener as u16);
            peer.server.stop();
            assert_eq!(peer.event(Server::drain), Owes::NOTHING, "{listener}");
            assert!(peer.established().close, "{listener}");
        }
    }
}
