//! An application over the kernel's own sockets: the same behaviours, the same bytes and the same
//! checks as over our stack, so that a kernel can be the peer of a bench, or its rival.
//!
//! The kernel does not say what was acknowledged; what it took from us counts as that.

use super::clock::Clock;
use crate::app::{App, Conn, Launch, Owes};
use crate::flow::FlowKey;
use crate::sys::epoll::{Epoll, Interest, reset_on_close};
use crate::tcp::End;
use crate::time::Span;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

/// Bytes moved by one read or write: as large as pays, small enough for a core's cache.
const CHUNK_BYTES: usize = 128 * 1024;

/// Writes for one connection before the others have their turn.
const CHUNKS_MAX: usize = 4;

/// The longest that a connect may take: everything is on one machine.
const CONNECT: Duration = Duration::from_secs(5);

/// How long one wait for events may take before the caller looks round.
const WAIT_MS: i32 = 5;

/// The listener's token; connections are named by their place.
const LISTENER: u64 = u64::MAX;

/// Connections of an application over kernel sockets, all in one thread.
pub(super) struct Host<A: App> {
    pub app: A,
    /// Payload bytes taken by the kernel, and received from it.
    pub tx_bytes: u64,
    pub rx_bytes: u64,
    clock: Clock,
    epoll: Epoll,
    listener: Option<TcpListener>,
    remote: Option<SocketAddr>,
    open: Vec<Option<Socket<A::State>>>,
    ready: Vec<u64>,
    chunk: Box<[u8]>,
}

/// One connection.
struct Socket<S> {
    stream: TcpStream,
    state: S,
    promised: u64,
    written: u64,
    /// Our application has closed; then that the kernel was told so.
    closing: bool,
    shut: bool,
    peer_closed: bool,
    abort: bool,
    interest: Interest,
}

impl<A: App> Host<A> {
    /// A server behind `listener`.
    ///
    /// # Errors
    /// Too many open files.
    pub fn server(app: A, listener: TcpListener, clock: Clock) -> io::Result<Host<A>> {
        listener.set_nonblocking(true)?;
        let host = Host { listener: Some(listener), ..Host::client(app, None, clock)? };
        if let Some(listener) = &host.listener {
            host.epoll.add(listener, Interest::Readable, LISTENER)?;
        }
        Ok(host)
    }

    /// A client of `remote`.
    ///
    /// # Errors
    /// Too many open files.
    pub fn client(app: A, remote: Option<SocketAddr>, clock: Clock) -> io::Result<Host<A>> {
        Ok(Host {
            app,
            tx_bytes: 0,
            rx_bytes: 0,
            clock,
            epoll: Epoll::new()?,
            listener: None,
            remote,
            open: Vec::new(),
            ready: Vec::new(),
            chunk: vec![0; CHUNK_BYTES].into_boxed_slice(),
        })
    }

    /// Lets the application launch, waits a little for sockets with something to do, and does it.
    ///
    /// # Errors
    /// The kernel's, of the set of sockets or the listener. What goes wrong with one connection is
    /// told to the application.
    pub fn turn(&mut self) -> io::Result<()> {
        while let Some(remote) = self.remote
            && let Some(Launch { mut state }) = self.app.launch(self.clock.now())
        {
            match TcpStream::connect_timeout(&remote, CONNECT) {
                Ok(stream) => self.begin(stream, state)?,
                Err(error) => self.app.ended(self.clock.now(), &mut state, end_of(&error)),
            }
        }
        let mut ready = std::mem::take(&mut self.ready);
        self.epoll.wait(WAIT_MS, |token| ready.push(token))?;
        for token in ready.drain(..) {
            if token == LISTENER {
                self.accept()?;
            } else {
                self.serve(token as usize)?;
            }
        }
        self.ready = ready;
        Ok(())
    }

    /// Connections that are open.
    pub fn live(&self) -> usize {
        self.open.iter().flatten().count()
    }

    /// No new connections; the open ones are asked to end.
    ///
    /// # Errors
    /// As [`Host::turn`].
    pub fn stop(&mut self) -> io::Result<()> {
        self.app.stop();
        for place in 0..self.open.len() {
            self.tell(place, |app, conn| app.drain(conn));
            self.go_on(place)?;
        }
        Ok(())
    }

    fn accept(&mut self) -> io::Result<()> {
        while let Some(listener) = &self.listener {
            match listener.accept() {
                Ok((stream, _)) => self.begin(stream, A::State::default())?,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn begin(&mut self, stream: TcpStream, state: A::State) -> io::Result<()> {
        stream.set_nonblocking(true)?;
        let place = self.open.iter().position(Option::is_none).unwrap_or(self.open.len());
        if place == self.open.len() {
            self.open.push(None);
        }
        self.epoll.add(&stream, Interest::Readable, place as u64)?;
        self.open[place] = Some(Socket {
            stream,
            state,
            promised: 0,
            written: 0,
            closing: false,
            shut: false,
            peer_closed: false,
            abort: false,
            interest: Interest::Readable,
        });
        self.tell(place, |app, conn| app.established(conn));
        self.go_on(place)
    }

    /// Reads what has come, once, and goes on.
    fn serve(&mut self, place: usize) -> io::Result<()> {
        let Some(socket) = &mut self.open[place] else { return Ok(()) };
        if !socket.peer_closed {
            let mut chunk = std::mem::take(&mut self.chunk);
            match socket.stream.read(&mut chunk) {
                Ok(0) => {
                    socket.peer_closed = true;
                    self.tell(place, |app, conn| app.peer_closed(conn));
                }
                Ok(bytes) => {
                    self.rx_bytes += bytes as u64;
                    self.tell(place, |app, conn| app.received(conn, &chunk[..bytes]));
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => self.end(place, end_of(&error)),
            }
            self.chunk = chunk;
        }
        self.go_on(place)
    }

    /// Sends what is owed as far as the kernel takes it, and ends what is over.
    fn go_on(&mut self, place: usize) -> io::Result<()> {
        for _ in 0..CHUNKS_MAX {
            let Some(socket) = &mut self.open[place] else { return Ok(()) };
            if socket.written == socket.promised || socket.abort {
                break;
            }
            let bytes = (socket.promised - socket.written).min(CHUNK_BYTES as u64) as usize;
            self.app.payload(&socket.state, socket.written, &mut self.chunk[..bytes]);
            match socket.stream.write(&self.chunk[..bytes]) {
                Ok(taken) => {
                    socket.written += taken as u64;
                    self.tx_bytes += taken as u64;
                    let written = socket.written;
                    self.tell(place, |app, conn| app.acknowledged(conn, written));
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => {
                    self.end(place, end_of(&error));
                    return Ok(());
                }
            }
        }
        self.settle(place)
    }

    fn settle(&mut self, place: usize) -> io::Result<()> {
        let Some(socket) = &mut self.open[place] else { return Ok(()) };
        if socket.abort {
            reset_on_close(&socket.stream)?;
            self.end(place, End::Aborted);
            return Ok(());
        }
        let behind = socket.written < socket.promised;
        if socket.closing && !behind && !socket.shut {
            socket.shut = true;
            // A peer that has gone is told of by the next read.
            let _ = socket.stream.shutdown(std::net::Shutdown::Write);
        }
        if socket.shut && socket.peer_closed {
            self.end(place, End::Finished);
            return Ok(());
        }
        let interest = match (behind, socket.peer_closed) {
            (true, true) => Interest::Writable,
            (true, false) => Interest::Both,
            (false, _) => Interest::Readable,
        };
        if interest != socket.interest {
            socket.interest = interest;
            self.epoll.change(&socket.stream, interest, place as u64)?;
        }
        Ok(())
    }

    /// Tells the application something about a connection and takes down what it marks.
    fn tell(&mut self, place: usize, event: impl FnOnce(&mut A, &mut Conn<'_, A::State>)) {
        let Some(socket) = &mut self.open[place] else { return };
        // No behaviour asks a kernel's connection for its addresses.
        let key = FlowKey::default();
        let listener = if self.listener.is_some() { 0 } else { u16::MAX };
        let mut conn = Conn::new(&mut socket.state, self.clock.now(), key, listener);
        event(&mut self.app, &mut conn);
        let Owes { bytes, urgent: _, curtail, close, abort } = conn.owes();
        if !socket.closing {
            socket.promised = socket.promised.saturating_add(bytes);
        }
        if curtail {
            socket.promised = socket.written;
        }
        socket.closing |= close;
        socket.abort |= abort;
    }

    fn end(&mut self, place: usize, end: End) {
        if let Some(mut socket) = self.open[place].take() {
            self.app.ended(self.clock.now(), &mut socket.state, end);
        }
    }
}

/// Turns until `done`, then stops and lets what is open end, for `drain` at the most. Answers the
/// time up to the stop.
///
/// # Errors
/// The kernel's.
pub(super) fn run<A: App>(
    host: &mut Host<A>,
    drain: Span,
    mut done: impl FnMut(&Host<A>) -> bool,
) -> io::Result<Span> {
    let started = host.clock.now();
    while !done(host) {
        host.turn()?;
    }
    let stopped = host.clock.now();
    host.stop()?;
    while host.live() > 0 && host.clock.now().since(stopped) < drain {
        host.turn()?;
    }
    Ok(stopped.since(started))
}

/// How a connection ended that the kernel has an error for.
fn end_of(error: &io::Error) -> End {
    match error.kind() {
        ErrorKind::ConnectionRefused => End::Refused,
        ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => End::Reset,
        ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => End::Unreachable,
        _ => End::DataTimeout,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::client::{Client, Close, Load, Workload};
    use crate::app::server::{Server, Service};
    use crate::app::stream::ENDLESS;
    use std::net::Ipv4Addr;
    use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

    /// Runs a client with `workload` against `service` over the loopback, for `span` at the most;
    /// answers both.
    fn over_loopback(
        service: Service,
        workload: Workload,
        count: Option<u64>,
        span: Span,
    ) -> (Host<Client>, Host<Server>) {
        let clock = Clock::start();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let remote = listener.local_addr().unwrap();
        let load =
            Load { rate_per_second: None, connections: 4, held: 0, count, close: Close::Fin };
        let mut client = Host::client(Client::new(workload, load, 1), Some(remote), clock).unwrap();
        let mut server = Host::server(Server::new(vec![service], 10), listener, clock).unwrap();
        // However busy the machine is, the end is waited for.
        let (over, drain) = (AtomicBool::new(false), Span::from_secs(30));
        std::thread::scope(|scope| {
            let serving = scope.spawn(|| run(&mut server, drain, |_| over.load(Relaxed)));
            let until = clock.now() + span;
            let driven =
                run(&mut client, drain, |host| host.app.done() || host.clock.now() >= until);
            over.store(true, Relaxed);
            driven.unwrap();
            serving.join().unwrap().unwrap();
        });
        (client, server)
    }

    #[test]
    fn streams_each_way_are_whole_and_right_over_the_kernel() {
        for (up_bytes, down_bytes) in [(3_000_000, 0), (0, 3_000_000), (2_000_000, 3_000_000)] {
            let workload = Workload::Stream { up_bytes, down_bytes };
            let (client, server) =
                over_loopback(Service::Stream, workload, Some(6), Span::from_secs(20));
            let results = client.app.results();
            assert_eq!((results.transactions, results.finished), (6, 6));
            assert_eq!(results.verify_errors + server.app.served().stream.verify_errors, 0);
            assert_eq!((client.tx_bytes, client.rx_bytes), (server.rx_bytes, server.tx_bytes));
            assert!(client.tx_bytes >= 6 * up_bytes && client.rx_bytes >= 6 * down_bytes);
        }
    }

    #[test]
    fn endless_streams_end_at_the_stop() {
        let workload = Workload::Stream { up_bytes: ENDLESS, down_bytes: ENDLESS };
        let (client, server) =
            over_loopback(Service::Stream, workload, None, Span::from_millis(300));
        let results = client.app.results();
        assert_eq!((results.transactions, results.failed.total()), (4, 0));
        assert_eq!((client.tx_bytes, client.rx_bytes), (server.rx_bytes, server.tx_bytes));
    }

    #[test]
    fn other_services_work_too() {
        let (host, path) = ("a".to_string(), "/".to_string());
        let http = Workload::Http { host, path, requests: 3, response_bytes: Some(5000) };
        let service = Service::Http { response_size: 5000 };
        let (client, _) = over_loopback(service, http, Some(20), Span::from_secs(20));
        assert_eq!(client.app.results().transactions, 60);
    }
}
