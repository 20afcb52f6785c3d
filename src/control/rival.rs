//! The kernel's TCP doing what the bench did, on the same veth: a client and a server for each
//! core, both pinned to it, on epoll or io_uring. The best placement that was found; the client's
//! connections are the kernel's, its port choice too.

use super::clock::Clock;
use super::live::short;
use super::pin;
use super::plan::BenchPlan;
use super::rival_ring;
use super::settings::{CloseName, Rival, WorkloadName};
use super::signals::Signals;
use super::veth::{Pair, kernel_server};
use crate::sys::epoll::{Epoll, Interest, connect, listen, reset_on_close};
use crate::sys::netns::Namespace;
use crate::time::Span;
use serde_json::{Value, json};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;

/// Sockets a thread holds at a time: the measured best is at 64 to 256, and file descriptors are
/// limited.
pub(super) const SOCKETS_MAX: u32 = 256;

/// The longest that one thread may wait for events before it looks whether to stop.
pub(super) const WAIT_MS: i32 = 20;

/// The listener's token; connections are named by their place.
const LISTENER: u64 = u64::MAX;

/// What the kernel's sockets did.
pub(super) struct Outcome {
    pub rival: Rival,
    pub connections: u64,
    pub ran: Span,
}

impl Outcome {
    pub fn per_second(&self) -> f64 {
        self.connections as f64 / self.ran.as_secs_f64().max(1e-9)
    }

    /// As it is asked for.
    fn name(&self) -> &'static str {
        match self.rival {
            Rival::Kernel => "kernel",
            Rival::IoUring => "io-uring",
        }
    }

    /// For people; `ours` is our rate on the same veth.
    pub fn note(&self, ours: f64) -> String {
        let by = match self.rival {
            Rival::Kernel => "",
            Rival::IoUring => " by io_uring",
        };
        format!(
            "the kernel's own sockets{by} on the same veth: {} connections/s; we did {:.1} times as many",
            short(self.per_second()),
            ours / self.per_second().max(1e-9)
        )
    }

    /// For the report; `ours` is our rate on the same veth.
    pub fn json(&self, ours: f64) -> Value {
        json!({
            "rival": self.name(),
            "connections_total": self.connections,
            "duration_seconds": self.ran.as_secs_f64(),
            "handshakes_per_second": self.per_second(),
            "ratio": ours / self.per_second(),
        })
    }
}

/// What goes over each connection, in bytes; none for a bare handshake.
#[derive(Clone, Copy)]
pub(super) struct Exchange {
    pub request: usize,
    pub response: usize,
}

/// What each client and each server does.
struct Course {
    rival: Rival,
    remote: SocketAddr,
    /// Of a client, at a time.
    sockets: u32,
    exchange: Option<Exchange>,
    /// Clients close by RST.
    reset: bool,
}

impl Course {
    fn of(rival: Rival, plan: &BenchPlan, cores: &[u32]) -> Course {
        let BenchPlan { drive, service, .. } = plan;
        let exchange = match drive.workload {
            WorkloadName::Handshake | WorkloadName::Hold | WorkloadName::Stream => None,
            WorkloadName::Http | WorkloadName::Rr => Some(Exchange {
                request: drive.request_size.min(1460) as usize,
                response: service.response_size.min(1 << 16) as usize,
            }),
        };
        let address = kernel_server(plan.server_subnet().first);
        Course {
            rival,
            remote: SocketAddr::new(address, service.listener.port),
            sockets: (drive.connections / cores.len() as u32).clamp(1, SOCKETS_MAX),
            exchange,
            reset: drive.close == CloseName::Rst,
        }
    }

    fn drive(&self, stop: &AtomicBool) -> io::Result<u64> {
        let &Course { rival, remote, sockets, exchange, reset } = self;
        match rival {
            Rival::Kernel => drive(remote, sockets, exchange, reset, stop),
            Rival::IoUring => rival_ring::drive(remote, sockets, exchange, stop),
        }
    }

    fn serve(&self, listener: TcpListener, stop: &AtomicBool) -> io::Result<u64> {
        match self.rival {
            Rival::Kernel => serve(&listener, self.exchange, stop),
            Rival::IoUring => rival_ring::serve(listener, self.exchange, stop),
        }
    }
}

/// Runs clients in the pair's first namespace against servers in its second, a pair of threads on
/// each of `cores`.
///
/// # Errors
/// The kernel's.
pub(super) fn measure(
    rival: Rival,
    pair: &Pair,
    plan: &BenchPlan,
    cores: &[u32],
    duration: Span,
    clock: &Clock,
    signals: &Signals,
) -> io::Result<Outcome> {
    for end in 0..2 {
        pair.inside(end, loosen)?;
    }
    let course = &Course::of(rival, plan, cores);
    let (stop, stop_servers) = (&AtomicBool::new(false), &AtomicBool::new(false));
    let [here, there] = pair.namespaces();
    let inside = |namespace: &Namespace, core: u32| {
        namespace.enter()?;
        pin::to(core).map_err(io::Error::other)
    };
    thread::scope(|scope| {
        let servers: Vec<_> = cores
            .iter()
            .map(|&core| {
                // Listening before the first client connects, or that would be refused.
                let listener = pair.inside(1, || listen(course.remote))?;
                Ok(scope.spawn(move || {
                    inside(there, core)?;
                    course.serve(listener, stop_servers)
                }))
            })
            .collect::<io::Result<_>>()?;
        let started = clock.now();
        let client = |&core| {
            scope.spawn(move || {
                inside(here, core)?;
                course.drive(stop)
            })
        };
        let clients: Vec<_> = cores.iter().map(client).collect();
        while clock.now().since(started) < duration && !signals.came() {
            thread::sleep(std::time::Duration::from_millis(5));
        }
        stop.store(true, Relaxed);
        let ran = clock.now().since(started);
        let joined = |result: thread::Result<io::Result<u64>>| {
            result.unwrap_or_else(|_| Err(io::Error::other("a thread panicked")))
        };
        let counts: Vec<_> = clients.into_iter().map(|client| joined(client.join())).collect();
        stop_servers.store(true, Relaxed);
        for server in servers {
            joined(server.join())?;
        }
        let connections = counts.into_iter().sum::<io::Result<u64>>()?;
        Ok(Outcome { rival, connections, ran })
    })
}

/// Gives the kernel of the calling thread's namespace every port, and, as our own end has, hardly
/// any TIME-WAIT: with 60 s of it, one pair of addresses would be out of ports after a second.
fn loosen() -> io::Result<()> {
    std::fs::write("/proc/sys/net/ipv4/ip_local_port_range", "1024 65535")?;
    std::fs::write("/proc/sys/net/ipv4/tcp_max_tw_buckets", "1000")
}

/// One client: `sockets` connections at a time, each replaced when it has done its work. Answers
/// how many have.
fn drive(
    remote: SocketAddr,
    sockets: u32,
    exchange: Option<Exchange>,
    reset: bool,
    stop: &AtomicBool,
) -> io::Result<u64> {
    let epoll = Epoll::new()?;
    let mut open: Vec<Option<Client>> = Vec::new();
    for place in 0..sockets {
        open.push(Some(Client::start(&epoll, remote, place)?));
    }
    let (mut done, mut ready) = (0, Vec::new());
    while !stop.load(Relaxed) {
        epoll.wait(WAIT_MS, |token| ready.push(token as u32))?;
        for place in ready.drain(..) {
            let slot = &mut open[place as usize];
            let Some(client) = slot else { continue };
            if client.go_on(&epoll, exchange, place)? {
                if reset {
                    reset_on_close(&client.stream)?;
                }
                // Closed before the next is opened, as ours are.
                *slot = None;
                done += 1;
                *slot = Some(Client::start(&epoll, remote, place)?);
            }
        }
    }
    Ok(done)
}

/// One connection of the client.
struct Client {
    stream: TcpStream,
    connected: bool,
    received: usize,
}

impl Client {
    fn start(epoll: &Epoll, remote: SocketAddr, place: u32) -> io::Result<Client> {
        let stream = connect(remote)?;
        epoll.add(&stream, Interest::Writable, u64::from(place))?;
        Ok(Client { stream, connected: false, received: 0 })
    }

    /// Does what can be done now. True when the connection has done its work.
    fn go_on(&mut self, epoll: &Epoll, exchange: Option<Exchange>, place: u32) -> io::Result<bool> {
        if !self.connected {
            if let Some(error) = self.stream.take_error()? {
                return Err(error);
            }
            self.connected = true;
            let Some(Exchange { request, .. }) = exchange else { return Ok(true) };
            // A request of less than a segment always fits a new connection's buffer.
            self.stream.write_all(&[b'x'; 1460][..request])?;
            epoll.change(&self.stream, Interest::Readable, u64::from(place))?;
            return Ok(false);
        }
        let Some(Exchange { response, .. }) = exchange else { return Ok(true) };
        self.received += take(&mut self.stream)?.0;
        Ok(self.received >= response)
    }
}

/// One server: reads, answers when a request is whole, and closes after the client has. Answers how
/// many were accepted.
fn serve(listener: &TcpListener, exchange: Option<Exchange>, stop: &AtomicBool) -> io::Result<u64> {
    let epoll = Epoll::new()?;
    epoll.add(listener, Interest::Readable, LISTENER)?;
    let mut open: Vec<Option<(TcpStream, usize)>> = Vec::new();
    let (mut free, mut ready): (Vec<usize>, Vec<u64>) = (Vec::new(), Vec::new());
    let mut accepted = 0;
    while !stop.load(Relaxed) {
        epoll.wait(WAIT_MS, |token| ready.push(token))?;
        for token in ready.drain(..) {
            if token != LISTENER {
                let slot = &mut open[token as usize];
                let Some((stream, received)) = slot else { continue };
                if answer(stream, received, exchange)? {
                    *slot = None;
                    free.push(token as usize);
                }
                continue;
            }
            while let Some(stream) = accept(listener)? {
                let place = free.pop().unwrap_or_else(|| {
                    open.push(None);
                    open.len() - 1
                });
                epoll.add(&stream, Interest::Readable, place as u64)?;
                open[place] = Some((stream, 0));
                accepted += 1;
            }
        }
    }
    Ok(accepted)
}

/// Reads what has come, and answers if the request is whole. True when the client has closed.
fn answer(
    stream: &mut TcpStream,
    received: &mut usize,
    exchange: Option<Exchange>,
) -> io::Result<bool> {
    let (bytes, closed) = take(stream)?;
    *received += bytes;
    if let Some(Exchange { request, response }) = exchange
        && *received >= request
        && !closed
    {
        *received -= request;
        stream.write_all(&vec![b'y'; response])?;
    }
    Ok(closed)
}

fn accept(listener: &TcpListener) -> io::Result<Option<TcpStream>> {
    match listener.accept() {
        Ok((stream, _)) => {
            stream.set_nonblocking(true)?;
            Ok(Some(stream))
        }
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error),
    }
}

/// Reads once: how many bytes came, and whether the peer has closed or reset.
fn take(stream: &mut TcpStream) -> io::Result<(usize, bool)> {
    let mut buffer = [0; 65_536];
    match stream.read(&mut buffer) {
        Ok(0) => Ok((0, true)),
        Ok(bytes) => Ok((bytes, false)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok((0, false)),
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok((0, true)),
        Err(error) => Err(error),
    }
}
